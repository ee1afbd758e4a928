"""Runs: a small project in a temporary folder, its notebooks executed by the real papermill."""

import json
import os
import re
import subprocess
import time
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from distributed import Client, LocalCluster
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from studies import headlines, launch, provenance, runs, status, sweeps

PARAMETERS = 'profile = "smoke"\ndevice = "auto"\nseed = 0'
COMPUTE = """
import sys
from studies.provenance import Record, resolve_device
device = resolve_device(device, profile)
record = Record("tiny", profile=profile, device=device, seed=seed)
record.numbers["twice"] = 2 * seed
print("on the way", file=sys.stderr)
record.save().name
"""


def code(source, *tags):
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


def write(project, name="tiny", cells=None):
    cells = cells or [new_markdown_cell("# Tiny"), code(PARAMETERS, "parameters"), code(COMPUTE)]
    nbformat.write(new_notebook(cells=cells), project / "notebooks" / f"{name}.ipynb")


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    (tmp_path / "constraints.txt").write_text("numpy==2.4.6\n")
    for folder in ("notebooks", "neumatc", "book"):
        (tmp_path / folder).mkdir()
    (tmp_path / "neumatc" / "checks.py").write_text("")
    (tmp_path / "_config.yml").write_text("title: x\n")
    (tmp_path / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nparts:\n"
        "  - chapters: [{file: notebooks/tiny}]\n  - chapters: [{file: book/reference}]\n"
    )
    (tmp_path / "book" / "intro.md").write_text("# Introduction\n")
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "wheels", lambda: [])
    for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "BOOK_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def expect(project, **seconds):
    """Publish what chapters take at cpu."""
    path = headlines.expected_path("cpu")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"values": {}, "chapters": {name: {"seconds": s} for name, s in seconds.items()}}))


@pytest.mark.slow
def test_a_run_leaves_the_executed_notebook_and_a_record_with_provenance(project):
    saved = (project / "notebooks" / "tiny.ipynb").read_bytes()
    output = runs.run("tiny", profile="cpu", seed=21)
    assert output == project / "_build" / "runs" / "cpu" / "tiny.ipynb"
    record = provenance.load("tiny", "cpu")
    assert record.numbers == {"twice": 42}
    assert record.device == "cpu"
    assert record.provenance["notebook_seconds"] > record.provenance["wall_seconds"]
    assert record.provenance["command"] == "make run CHAPTER=tiny PROFILE=cpu DEVICE=cpu SEED=21"
    assert (project / "notebooks" / "tiny.ipynb").read_bytes() == saved
    # The page is the saved notebook with these outputs: no cell of papermill, no stderr, no parameters.
    stage = runs._stage(["tiny"])
    page = nbformat.read(stage / "notebooks" / "tiny.ipynb", as_version=4)
    assert page.cells[0].source.startswith("# Tiny\n\n*To run again: ")
    assert [cell.source for cell in page.cells[1:]] == [PARAMETERS, COMPUTE]
    assert page.cells[1].metadata["tags"] == ["parameters", "remove-cell"]
    assert [item.get("name") or item.data["text/plain"] for item in page.cells[2].outputs] == ["'tiny.json'"]
    text = (stage / "notebooks" / "tiny.ipynb").read_text("utf-8")
    assert str(project) not in text
    assert "papermill" not in text
    # A file whose content stays is left alone, so that Sphinx does not read it again; one that is gone goes.
    before = (stage / "book" / "intro.md").stat().st_mtime_ns
    (project / "book" / "_toc.yml").rename(project / "book" / "moved.yml")
    runs._stage(["tiny"])
    assert (stage / "book" / "intro.md").stat().st_mtime_ns == before
    assert not (stage / "book" / "_toc.yml").exists()


@pytest.mark.slow
def test_a_failing_cell_is_named_and_nothing_of_an_older_run_remains(project):
    path = provenance.run_path("tiny", "smoke")
    path.parent.mkdir(parents=True)
    for suffix in (".json", ".npz", ".key"):
        path.with_suffix(suffix).write_text("older")
    write(project, cells=[code(PARAMETERS, "parameters"), code('raise KeyError("missing")')])
    with pytest.raises(RuntimeError, match=r"notebooks/tiny.ipynb failed in cell \[\d+\] with KeyError: 'missing'"):
        runs.run("tiny", profile="smoke")
    assert sorted(p.name for p in path.parent.iterdir()) == ["tiny.ipynb"]


DIED = "Kernel died before replying to kernel_info"


@pytest.mark.parametrize(
    ("message", "failures", "calls"),
    [(DIED, 2, 3), (DIED, 3, 3), ("Kernel didn't respond in 60 seconds", 1, 1)],
    ids=["two starts", "all starts", "another error"],
)
def test_a_kernel_that_found_its_port_taken_is_started_again(project, message, failures, calls, monkeypatch):
    done = []

    def execute(*_, parameters, **__):
        done.append(parameters)
        if len(done) <= failures:
            raise RuntimeError(message)
        provenance.Record("tiny", **parameters).save()

    monkeypatch.setattr(runs.papermill, "execute_notebook", execute)
    if calls > failures:
        runs.run("tiny", profile="smoke")
    else:
        with pytest.raises(RuntimeError, match=message):
            runs.run("tiny", profile="smoke")
    assert len(done) == calls


@pytest.mark.parametrize(
    ("seeds", "words"),
    [([], "wrote no record smoke/tiny.json"), ([5], "expected a record of")],
    ids=["none", "another"],
)
def test_a_run_without_its_own_record_fails(project, seeds, words, monkeypatch):
    def execute(*_, parameters, **__):
        for seed in seeds:
            provenance.Record("tiny", **parameters | {"seed": seed}).save()

    monkeypatch.setattr(runs.papermill, "execute_notebook", execute)
    with pytest.raises(RuntimeError, match=words):
        runs.run("tiny", profile="smoke")
    assert not provenance.run_path("tiny", "smoke").with_suffix(".key").exists()


@pytest.mark.slow
def test_refresh_executes_in_place_and_leaves_no_trace_of_the_machine(project, capsys):
    quick = 'import sys\nprint("on the way", file=sys.stderr)\nprofile'  # a record takes torch, and that seconds
    write(project, cells=[new_markdown_cell("# Tiny"), code(PARAMETERS, "parameters"), code(quick)])
    assert runs.main(["refresh"]) == 0
    text = (project / "notebooks" / "tiny.ipynb").read_text("utf-8")
    notebook = nbformat.reads(text, as_version=4)
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2]
    assert notebook.cells[2].outputs[0].data["text/plain"] == "'smoke'"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    assert len(notebook.cells[2].outputs) == 1, "what went to stderr is left out"
    for word in (str(project), "iopub", "papermill"):
        assert word not in text
    nbformat.validate(notebook)
    assert "2 code cells executed" in capsys.readouterr().out


def test_refresh_refuses_defaults_of_another_profile(project):
    write(project, cells=[code(PARAMETERS.replace("smoke", "cpu"), "parameters")])
    with pytest.raises(ValueError, match=r"expected the default profile to be 'smoke'.*got 'cpu'"):
        runs.refresh()


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([], "exactly one code cell tagged `parameters`, got 0"),
        (
            [code(PARAMETERS, "parameters"), code(PARAMETERS, "parameters")],
            "exactly one code cell tagged `parameters`, got 2",
        ),
        ([code(PARAMETERS + "\nsize = 3", "parameters")], "nothing else, got"),
        ([code('profile = "smoke"', "parameters")], "profile, device, seed"),
        ([code(PARAMETERS + "\nimport os", "parameters")], "plain values"),
        ([code(PARAMETERS.replace("0", "1 + x"), "parameters")], "plain values"),
    ],
)
def test_the_parameters_cell_is_checked_before_anything_runs(project, cells, words, monkeypatch):
    monkeypatch.setattr(runs.papermill, "execute_notebook", lambda *_, **__: pytest.fail("executed"))
    write(project, cells=[code("1"), *cells])
    with pytest.raises(ValueError, match=words):
        runs.run("tiny", profile="smoke")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "tony"], "error: `chapter`: expected one of tiny, got 'tony'."),
        (["run", "../tiny"], "error: `chapter`: expected one of tiny"),
        (["run", "tiny", "--device", "tpu"], "error: `device`: expected auto, cpu, cuda"),
        (["run", "tiny", "--seed", "-1"], "error: `seed`"),
        (["publish", "tiny", "--profile", "smoke"], "error: `profile`: expected cpu, study or gpu"),
        (["publish", "tiny"], "error: no record cpu/tiny.json; make run CHAPTER=tiny PROFILE=cpu."),
        (["refresh", "tony"], "error: `chapter`: expected one of tiny"),
    ],
)
def test_the_command_line_fails_with_one_line(project, capsys, arguments, words):
    assert runs.main(arguments) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "tiny", "--profile", "full"], "invalid choice: 'full'"),
        (["run", "tiny", "--rank", "3"], "unrecognized arguments"),
        (["run", "tiny", "--seed", "x"], "invalid int value"),
        ([], "required"),
    ],
)
def test_the_command_line_refuses_unknown_names(project, capsys, arguments, words):
    with pytest.raises(SystemExit):
        runs.main(arguments)
    assert words in capsys.readouterr().err


def test_the_key_follows_all_that_outputs_depend_on_and_not_the_prose(project):
    def key(**parameters):
        return runs.run_key("tiny", {"profile": "cpu", "device": "cpu", "seed": 0, **parameters})

    keys = [key()]
    assert key() == keys[0]
    write(project, cells=[new_markdown_cell("# Other words"), code(PARAMETERS, "parameters"), code(COMPUTE)])
    assert key() == keys[0]
    keys.append(key(seed=1))
    write(project, cells=[code(PARAMETERS, "parameters"), code(COMPUTE + "\n1")])
    keys.append(key())
    for name in (
        "neumatc/checks.py",
        "neumatc/new.py",
        "neumatc/sub/new.py",
        "book/studies/new.py",
        "constraints.txt",
        "notebooks/records/tiny.json",
        "notebooks/records/map.safetensors",
    ):
        (project / name).parent.mkdir(exist_ok=True, parents=True)
        (project / name).write_text("changed")
        keys.append(key())
    assert len(set(keys)) == len(keys)


@pytest.fixture
def pretend(project, monkeypatch):
    """Runs and Sphinx builds that are only counted."""
    calls = SimpleNamespace(runs=[], builds=[], status=0)

    def run(chapter, output, parameters):
        calls.runs.append((chapter, parameters["profile"]))
        record = provenance.Record(chapter, **parameters)
        record.numbers["run"] = len(calls.runs)  # two in one second are not the same
        record.save()
        notebook = runs.read_notebook(chapter)
        notebook.cells[2].outputs = [new_output("stream", text="x")]
        nbformat.write(notebook, output)

    def build(command, **_):
        calls.builds.append(command)
        return SimpleNamespace(returncode=calls.status)

    monkeypatch.setattr(runs, "_execute", run)
    monkeypatch.setattr(runs, "subprocess", SimpleNamespace(run=build))
    monkeypatch.setattr(provenance, "subprocess", subprocess)
    return calls


def test_the_book_runs_a_chapter_only_when_its_key_changes(project, pretend, capsys):
    for _ in range(2):
        assert runs.book() == project / "_build" / "html" / "index.html"
    assert pretend.runs == [("tiny", "cpu")]
    assert "tiny: unchanged since its last run" in capsys.readouterr().out
    (project / "neumatc" / "checks.py").write_text("# changed")
    runs.book()
    assert len(pretend.runs) == 2
    # A run with other parameters took the place of the book's: it must not be shown.
    runs.run("tiny", profile="cpu", seed=7)
    runs.book()
    assert len(pretend.runs) == 4
    provenance.run_path("tiny", "cpu").with_suffix(".json").unlink()
    runs.book()
    assert len(pretend.runs) == 5


def test_a_chapter_that_shows_the_run_of_another_runs_after_it_and_again_with_it(project, pretend, monkeypatch):
    (project / "notebooks" / "later.ipynb").write_bytes((project / "notebooks" / "tiny.ipynb").read_bytes())
    monkeypatch.setattr(runs, "book_chapters", lambda: ["later", "tiny"])
    monkeypatch.setattr(runs, "SHOWING", {"later": ("tiny",)})

    def start(command, env):
        runs.run(command[-1], device="cpu")
        return SimpleNamespace(poll=lambda: 0)

    runs.subprocess.Popen = start
    runs.book()
    runs.book()
    assert pretend.runs == [("tiny", "cpu"), ("later", "cpu")]
    provenance.run_path("tiny", "cpu").with_suffix(".json").unlink()
    runs.book()
    assert pretend.runs[2:] == [("tiny", "cpu"), ("later", "cpu")]
    # One that was run alone since then would leave the other page behind it.
    runs.run("tiny", profile="cpu")
    runs.book()
    assert pretend.runs[-1] == ("later", "cpu")


def test_no_page_is_built_of_records_that_changed_since_it_ran(project, pretend, monkeypatch):
    calls = []

    def changed(*_):  # before the chapters that are timed, and after them
        folder = project / "notebooks" / "records"
        folder.mkdir(exist_ok=True)
        calls.append(1)
        (folder / "other_timings.json").write_text(str(len(calls)))

    monkeypatch.setattr(runs, "_side_by_side", changed)
    with pytest.raises(RuntimeError, match="^tiny: expected what the pages show to stay"):
        runs.book()
    assert pretend.runs == [("tiny", "cpu")] and not pretend.builds


@pytest.mark.parametrize("status", [0, 1])
def test_chapters_without_times_run_side_by_side_on_one_thread(project, pretend, monkeypatch, status):
    started = []

    def start(command, env):
        started.append((command[-1], env["OMP_NUM_THREADS"]))
        runs.run(command[-1], device="cpu")
        return SimpleNamespace(poll=lambda: status)

    monkeypatch.setattr(runs, "UNTIMED", ("tiny",))
    runs.subprocess.Popen = start
    if status:
        with pytest.raises(RuntimeError, match="^tiny failed"):
            runs.book()
    else:
        runs.book()
    assert started == [("tiny", "1")]
    assert pretend.runs == [("tiny", "cpu")]


def test_where_no_times_are_wanted_all_chapters_run_side_by_side(project, pretend, monkeypatch):
    started, parameters = [], {"profile": "cpu", "device": "cpu", "seed": 0}

    def start(command, env):
        started.append(command[-1])
        runs.run(command[-1], device="cpu")
        return SimpleNamespace(poll=lambda: 0)

    runs.subprocess.Popen = start
    with_times = runs.run_key("tiny", parameters)
    monkeypatch.setenv("NEUMATC_TIMES", "0")
    runs.book()
    assert started == ["tiny"]
    # A book with times does not take such a run for its own.
    monkeypatch.delenv("NEUMATC_TIMES")
    assert runs.run_key("tiny", parameters) == with_times
    runs.book()
    assert started == ["tiny"] and pretend.runs == [("tiny", "cpu")] * 2


def test_few_chapters_run_at_once_the_longest_first(monkeypatch):
    alive, most, order = set(), [], []

    def start(command, env):
        alive.add(command[-1])
        most.append(len(alive))
        order.append(command[-1])

        looks = iter([None, None, 0])

        def poll():
            code = next(looks)
            if code == 0:
                alive.discard(command[-1])
            return code

        return SimpleNamespace(poll=poll)

    monkeypatch.setattr(runs, "subprocess", SimpleNamespace(Popen=start))
    clock = runs._Clock([])
    clock.expected = {f"chapter{i}": float(i) for i in range(1, 9)} | {"new": None}
    runs._side_by_side(list(clock.expected), clock)
    assert max(most) == runs.AT_ONCE and order == ["new", *(f"chapter{i}" for i in range(8, 0, -1))]


def test_the_terminal_shows_what_a_chapter_is_expected_to_take_and_took(project, pretend, monkeypatch, capsys):

    def said():
        """What the terminal shows, without the seconds that passed."""
        return re.sub(r"\d+ s\b", "N s", capsys.readouterr().out)

    first, later = "[N s] tiny: running at the cpu profile, expected {}\n", "[N s] tiny: took N s, expected {}\n"
    runs.book()
    text = said()
    assert "1 of 1 chapters are run, expected N s on a machine that computes nothing else" in text
    assert first.format("an unknown time") + later.format("an unknown time") in text
    # On this machine the last run knows, a chapter that never ran here takes what it took elsewhere.
    assert runs.expected_seconds("tiny") == provenance.load("tiny", "cpu").provenance["notebook_seconds"]
    expect(project, tiny=100.0, other=3.0)
    assert runs.expected_seconds("other") == 3.0
    provenance.run_path("tiny", "cpu").with_suffix(".json").unlink()
    runs.book()
    assert first.format("1.7 min") in said()


def test_a_page_says_what_its_chapter_takes_and_the_page_on_reruns_what_all_take(project, pretend):
    places = "".join(f"<!-- {name} -->\n\n" for name in ("launch", "clone", "times", "numbers", "build"))
    (project / "book" / "reproduce.md").write_text(f"# Run it again\n\n{places}")
    expect(project, tiny=100.0)
    runs.book()
    stage = project / "_build" / "stage"
    page = nbformat.read(stage / "notebooks" / "tiny.ipynb", as_version=4)
    assert page.cells[0].source.startswith("# Tiny\n\n*To run again: 0 s; {doc}`how")
    text = (stage / "book" / "reproduce.md").read_text("utf-8")
    assert "<!--" not in text
    record = provenance.load("tiny", "cpu")
    assert f"| {{doc}}`/notebooks/tiny` | not known | 0 s ({record.provenance['date'][:10]}) |" in text
    assert f"| {{doc}}`/notebooks/tiny` | cpu | {record.provenance['date']} |" in text
    assert "no buttons" in text and "git clone ADDRESS neumatc" in text
    assert "`make book`" in text
    assert str(project) not in text
    # The notebook of the repository stays without these.
    assert nbformat.read(project / "notebooks" / "tiny.ipynb", as_version=4).cells[0].source == "# Tiny"


def test_pages_are_staged_with_buttons_and_addresses_where_there_are_some(project, pretend, monkeypatch):
    write(project, cells=[new_markdown_cell("# Tiny"), code(PARAMETERS, "parameters"), code("SOURCES = ()", "colab")])
    runs.book()
    config = project / "_build" / "stage" / "_config.yml"
    assert yaml.safe_load(config.read_text("utf-8")) == {"title": "x"}
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "group/book")
    runs.book()
    assert yaml.safe_load(config.read_text("utf-8"))["repository"]["url"] == "https://github.com/group/book"
    page = nbformat.read(project / "_build" / "stage" / "notebooks" / "tiny.ipynb", as_version=4)
    assert "neumatc @ git+https://github.com/group/book" in page.cells[2].source


def test_the_smaller_time_is_what_a_chapter_takes(project):
    path = headlines.expected_path("cpu")
    path.parent.mkdir()
    entries = {
        "busy": {"seconds": 90.0, "processor_seconds": 30.0},
        "both": {"seconds": 20.0, "processor_seconds": 35.0},
    }
    path.write_text(json.dumps({"values": {}, "chapters": entries | {"old": {"seconds": 7.0}}}))
    assert [status.seconds(name, "cpu") for name in ("busy", "both", "old", "new")] == [30.0, 20.0, 7.0, None]


@pytest.mark.parametrize(("loaded", "expected"), [(False, 12.0), (True, 90.0)])
def test_the_run_that_the_pages_show_says_what_it_took_unless_it_had_other_work_beside_it(project, loaded, expected):
    expect(project, tiny=90.0)
    record = provenance.Record("tiny", profile="cpu", device="cpu", seed=0)
    record.save()
    path = provenance.run_path("tiny", "cpu").with_suffix(".json")
    content = json.loads(path.read_text("utf-8"))
    content["provenance"] |= {"notebook_seconds": 12.0, "loaded": loaded}
    path.write_text(json.dumps(content), "utf-8")
    assert status.seconds("tiny", "cpu") == expected


def test_a_study_is_run_only_of_a_chapter_that_shows_one(project, monkeypatch, capsys):
    assert runs.main(["run", "tiny", "--profile", "study"]) == 1
    assert "error: `profile`: expected smoke, cpu or gpu, got 'study'; tiny shows" in capsys.readouterr().err
    write(project, cells=[code(PARAMETERS, "parameters"), code("shown = provenance.taken(record)")])
    monkeypatch.setattr(runs, "_execute", lambda *_: pytest.fail("executed"))
    with pytest.raises(pytest.fail.Exception, match="executed"):
        runs.run("tiny", "study")


def test_after_a_failure_sphinx_reads_every_page_again(project, pretend):
    runs.book()
    pretend.status = 1
    with pytest.raises(RuntimeError, match="the book was not built"):
        runs.book()
    pretend.status = 0
    runs.book()
    runs.book()
    assert ["--all" in command for command in pretend.builds] == [False, False, True, False]
    assert all("-W" in command for command in pretend.builds)


def test_publishing_from_the_command_line(project, pretend, capsys):
    runs.run("tiny", profile="cpu")
    assert runs.main(["publish", "tiny"]) == 0
    assert "written: notebooks/records/tiny.json" in capsys.readouterr().out
    assert json.loads((project / "notebooks" / "records" / "tiny.json").read_text("utf-8"))["chapter"] == "tiny"


def test_a_page_says_what_the_records_took_that_it_only_shows():
    took = sum(provenance.load(name).provenance["wall_seconds"] for name in status.SHOWN["measured"])
    note = status.with_note("# Measured\n", "measured").split("\n")[2]
    assert f"the records that it shows took {status.duration(took)}" in note


def test_records_that_pages_show_are_published():
    assert all(provenance.load(name) for names in status.SHOWN.values() for name in names)


def test_the_state_of_the_build_has_runs_and_records_with_their_profiles(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "run_path", lambda chapter, profile: tmp_path / chapter)
    run = provenance.Record("tiny", profile="cpu", device="cpu", seed=0)
    run.save()
    rows = {row[0]: row[1:] for row in status.runs_table(["tiny"]).rows}
    assert rows["{doc}`/notebooks/tiny`"][:2] == ["cpu", run.provenance["date"]]
    study, on_gpu = (provenance.load(name) for name in ("continuity_study", "to_the_limit"))
    assert rows["record `continuity_study`"][:2] == ["study", study.provenance["date"]]
    assert rows["record `to_the_limit`"][0].startswith("gpu, ")
    assert rows["record `to_the_limit`"][2].startswith(on_gpu.provenance["commit"][:10])
    assert rows["record `synthetic_experiments`"][0] == "study"


# Sweeps over workers of Dask

# A notebook that imports no torch: a record takes that, and that seconds.
KEPT = """
import json
from pathlib import Path
path = Path("../_build/runs", profile, "{name}.json")
path.write_text(json.dumps({{"chapter": "{name}", "parameters": {{"profile": profile, "device": device, "seed": seed}},
    "provenance": {{}}, "numbers": {{"seen": {seen}}}, "arrays": {{}}}}))
"""
# Ends the worker, which started the kernel: the first one, or with `always` each.
DEADLY = """
import os
from pathlib import Path
marker = Path("died")
if {always} or not marker.exists():
    marker.touch()
    os.kill(os.getppid(), 9)
    import time
    time.sleep(60)
"""


def chapter(project, name, source="", seen="0"):
    cells = [code(PARAMETERS, "parameters"), *[code(source)] * bool(source), code(KEPT.format(name=name, seen=seen))]
    write(project, name, cells)


def seen(name):
    return provenance.load(name, "smoke").numbers["seen"]


@pytest.fixture(scope="module")
def client():
    """Two workers, which are where nothing of the project is."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=None, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as own,
    ):
        own.run(os.chdir, "/")
        yield own


@pytest.mark.slow
def test_chapters_run_on_workers_under_their_names_and_tell_of_themselves(project, client, capsys, monkeypatch):
    monkeypatch.setattr(runs, "SHOWING", {"first": ("second",)})
    chapter(project, "first", seen="Path('../_build/runs/smoke/second.json').exists()")
    chapter(project, "second", seen="__import__('os').environ['OMP_NUM_THREADS']")
    submit, keys = client.submit, []
    monkeypatch.setattr(client, "submit", lambda *a, **k: keys.append(k["key"]) or submit(*a, **k))
    sweeps.sweep(["first", "second"], "smoke", seed=3, scheduler=client)
    assert [re.sub("-[0-9a-f]{32}$", "", key) for key in keys] == ["second", "first"]
    assert (seen("first"), seen("second")) == (True, "1") and provenance.load("second", "smoke").seed == 3
    told = capsys.readouterr().out
    assert "2 chapters at the smoke profile, 2 at once\n" in told
    assert re.search(r"second: took \S+ s on \S+; 1 of 2 have ended\n.*first: took .*; 2 of 2 have ended\n", told)
    # They are those of one call after the other: the book takes them.
    key = runs.run_key("second", {"profile": "smoke", "device": "cpu", "seed": 3})
    assert provenance.run_path("second", "smoke").with_suffix(".key").read_text() == key


@pytest.mark.slow
def test_a_chapter_whose_worker_is_killed_is_run_again_and_one_that_fails_leaves_the_others(project, client, capsys):
    chapter(project, "killed", DEADLY.format(always=False))
    chapter(project, "wrong", 'raise KeyError("missing")')
    chapter(project, "good")
    words = r"^wrong failed: notebooks/wrong.ipynb failed in cell \[\d+\] with KeyError: 'missing'"
    with pytest.raises(RuntimeError, match=words) as caught:
        sweeps.sweep(["killed", "wrong", "good"], "smoke", scheduler=client)
    assert "killed failed" not in str(caught.value) and (project / "notebooks" / "died").exists()
    assert seen("killed") == seen("good") == 0
    told = capsys.readouterr().out
    assert re.search(r"wrong: failed on \S+: notebooks/wrong.ipynb failed", told) and "3 of 3 have ended" in told


@pytest.mark.slow
def test_a_chapter_that_ends_every_worker_is_given_up_and_named(project, client):
    chapter(project, "deadly", DEADLY.format(always=True))
    chapter(project, "good")

    client.run_on_scheduler(_allow, 0)
    with pytest.raises(RuntimeError, match="^deadly failed: it ended every worker that took it"):
        sweeps.sweep(["deadly", "good"], "smoke", scheduler=client)
    client.run_on_scheduler(_allow, 3)
    assert seen("good") == 0


def _allow(failures, dask_scheduler):
    """How many workers a task may end."""
    dask_scheduler.allowed_failures = failures


@pytest.mark.slow
def test_a_connection_that_is_lost_names_what_did_not_end(project, client, capsys):
    chapter(project, "long", "import time\ntime.sleep(20)")
    begin, own = time.monotonic(), Client(client.scheduler.address, set_as_default=False)
    own.loop.call_later(2, own.close)
    with pytest.raises(ConnectionError, match="`scheduler`: .* lost or closed; long did not end: run these again"):
        sweeps.sweep(["long"], "smoke", scheduler=own)
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tony"], "error: `chapter`: expected one of tiny, got 'tony'."),
        (["tiny", "--seed", "-1"], "error: `seed`"),
        (["tiny", "--scheduler", "tcp://127.0.0.1:1"], "error: `client`: expected a scheduler at tcp://127.0.0.1:1"),
    ],
)
def test_a_sweep_that_cannot_be_fails_with_one_line(project, capsys, monkeypatch, arguments, words):
    monkeypatch.setattr(sweeps, "TIMEOUT", 0.5)
    assert sweeps.main(arguments) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
