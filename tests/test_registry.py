"""The registry: it agrees with the notebooks both ways; a figure is remade from the record alone; claims and citing."""

import ast
import csv
import functools
import io
import json
import re
import shutil
import tomllib
import types
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import yaml
from docutils import nodes, utils

from studies import (
    cite,
    front,
    headlines,
    ids,
    interactive,
    last_good,
    prose,
    provenance,
    registry,
    remake,
    runs,
    slices,
    status,
)

ROOT = Path(__file__).parents[1]


def code(source, id, **metadata):
    return nbformat.v4.new_code_cell(source, id=id, metadata=metadata)


def labelled(name, caption="What it shows. More of it."):
    return {"figure": {"name": name, "caption": caption}, "image": {"alt": "a line that rises"}}


def cells():
    """A chapter that computes, saves, loads and draws, and then shows a fit itself."""
    setting = "scale = {'smoke': 2, 'cpu': 3}[profile]"
    return [
        code("import matplotlib.pyplot as plt\nfrom studies import figures, provenance\nfigures.style()", "imports"),
        code("record = provenance.Record('tiny')\nrecord.arrays['x'] = fail()", "compute"),
        code(
            "record.save()\nshown = provenance.load('tiny', profile)\nplt.plot(shown.arrays['x'], label='x');",
            "draw",
            mystnb=labelled("fig-tiny"),
        ),
        code(setting + "\nvalues = [scale]\nvalues.append(scale + 1)\nassert fail()", "fit"),
        code("print(values)\nplt.plot(values);", "live", mystnb=labelled("fig-live")),
        code(
            "provenance.Table(['a', 'b'], [['1', 'x | y']])", "tab", table={"name": "tab-tiny", "caption": "A table."}
        ),
    ]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one chapter whose run has left a record."""
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    shutil.copyfile(ROOT / "CITATION.cff", tmp_path / "CITATION.cff")
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells()), tmp_path / "notebooks" / "tiny.ipynb")
    monkeypatch.chdir(tmp_path)
    record = provenance.Record("tiny", profile="cpu", device="cpu", seed=0)
    record.arrays["x"] = np.array([0.1, 1 / 3, 2.0])
    record.save()
    return tmp_path


@functools.cache
def known():
    """The registry of this repository, read once."""
    return registry.entries()


def sources(entry, profile="cpu"):
    return [ast.unparse(statement) for statement in remake.statements(entry, profile)]


def rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))


# The registry and the notebooks


def test_every_figure_and_table_of_results_is_in_the_registry_and_nothing_else():
    listed = {(entry.chapter, entry.cell): entry.kind for entry in known()}
    shown = {}
    for path in slices.notebooks():
        for cell in slices.cells(path):
            if kind := registry.shows(cell):
                shown[path.stem, cell.id] = kind
    assert listed == shown, "give the cell of a figure or table of results a name and a caption in its metadata"


def test_ids_are_unique_and_tell_figures_from_tables():
    ids = [entry.id for entry in known()]
    assert sorted(ids) == sorted(set(ids))
    for entry in known():
        assert re.fullmatch({"figure": "fig", "table": "tab"}[entry.kind] + r"(-[a-z0-9]+)+", entry.id)
        assert len(entry.caption) > 10 and bool(entry.alt) == (entry.kind == "figure")


def test_the_script_of_every_entry_exists():
    """Or the figure is drawn by a method of an object of the notebook."""
    for entry in known():
        module, _, name = entry.script.rpartition(".")
        if module.startswith("studies."):
            assert callable(getattr(__import__(module, fromlist=[name]), name)), entry.id
        else:
            assert module and name, entry.id


def test_what_is_remade_changes_no_record():
    for entry in known():
        assert not [source for source in sources(entry) if re.search(r"\.(save|publish|write)\(", source)], entry.id


def test_what_a_page_takes_is_cited_as_the_record_that_it_takes():
    """The search was computed long before the pages: its figures name its commit and its day, not the build's."""
    own = [entry for entry in known() if entry.chapter == "training_search"]
    assert own and all(published for entry in own for _, published, *_ in entry.records)


# Remaking one


def test_a_figure_hangs_on_its_record_and_not_on_what_computed_it(project):
    assert sources(registry.find("fig-tiny")) == [
        "import matplotlib.pyplot as plt",
        "from studies import figures, provenance",
        "figures.style()",
        "shown = provenance.load('tiny', profile)",
        "plt.plot(shown.arrays['x'], label='x')",
    ]


def test_a_figure_of_a_fit_hangs_on_the_fit_and_what_changed_it(project):
    assert sources(registry.find("fig-live"))[3:] == [
        "scale = {'smoke': 2, 'cpu': 3}[profile]",
        "values = [scale]",
        "values.append(scale + 1)",
        "plt.plot(values)",
    ]


def test_a_branch_of_the_profile_is_decided(project):
    tail = [code("shown = fail() if profile == 'gpu' else provenance.load('tiny')\nplt.plot(shown);", "last")]
    needed = slices.needed([*cells(), *tail], tail[0], "cpu")
    assert [ast.unparse(node) for node in needed][-2] == "shown = provenance.load('tiny')"


def test_records_that_one_statement_loads_stand_alone():
    source = "from studies import measurements as study\nb, c, d, e = (provenance.load(name) for name in study.SHOWN)"
    own = [code(source, "load"), code("study.plot(d)", "plot")]
    found = slices.loaded(slices.needed(own, own[1], "cpu"))
    assert len(found) == 1 and found[0][1]


def test_a_figure_that_a_telephone_cannot_show_is_refused(project):
    path = project / "notebooks" / "tiny.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].source = "plt.figure(figsize=(9, 4));"
    nbformat.write(notebook, path)
    with pytest.raises(RuntimeError, match="fig-tiny: it is wider"):
        remake.write(registry.find("fig-tiny"), "cpu", project, "")


def test_make_figure_writes_drawings_and_exact_numbers(project):
    paths = runs.figure("fig-tiny")
    assert [path.relative_to(project).as_posix() for path in paths] == [
        f"_build/figures/fig-tiny.{kind}" for kind in ("svg", "pdf", "csv", "bib")
    ]
    assert paths[0].read_text("utf-8").count("<svg") == 1 and paths[1].read_bytes().startswith(b"%PDF")
    found = rows(paths[2])
    assert [float(row["y"]) for row in found] == [0.1, 1 / 3, 2.0]
    assert {row["series"] for row in found} == {"x"} and {row["kind"] for row in found} == {"line"}


def test_the_same_record_gives_the_same_files(project):
    first = [path.read_bytes() for path in runs.figure("fig-tiny")]
    assert [path.read_bytes() for path in runs.figure("fig-tiny")] == first


def test_make_figure_takes_a_table_too(project):
    path, reference = runs.figure("tab-tiny")
    assert path.read_text("utf-8") == "a,b\n1,x | y\n"
    assert reference.read_text("utf-8").startswith("@misc{neumatc-companion-tab-tiny-")


def test_what_it_takes_is_said_before_anything_is_set_up(project):
    with pytest.raises(ValueError, match="the nearest are fig-tiny"):
        ids.announcement("fig-tinny", "cpu", project)
    assert "expected an unknown time" in ids.announcement("fig-tiny", "cpu", project)
    publish_numbers(project, chapters={"tiny": {"seconds": 900.0, "processor_seconds": 300.0}})
    said = ids.announcement("fig-tiny", "cpu", project)
    assert "of the chapter tiny" in said and "Set-up: " in said and "about 5 min" in said


def test_ids_are_those_of_the_registry():
    assert set(ids.known(ROOT / "notebooks")) == {entry.id for entry in (*registry.page_entries(), *known())}


# Pages that are no notebooks


def of_front():
    return [entry for entry in registry.page_entries() if entry.chapter == ids.FRONT]


def test_page_one_names_its_figure_and_its_table():
    figure, table = sorted(of_front(), key=lambda entry: entry.id)
    assert (figure.id, table.id) == ("fig-decisions", "tab-decisions") and set(registry.FRONT) == {figure.id, table.id}
    assert figure.page == "book/intro" and registry.find("fig-decisions") == figure
    assert len(figure.alt) > 10 and len(figure.caption) > 10 and "{{" not in figure.caption
    assert "published records" in ids.announcement("fig-decisions", "cpu", ROOT)


class Reads(dict):
    """The records of page one, and which of them are looked at."""

    def __getitem__(self, name):
        self.read = getattr(self, "read", set()) | {name}
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.read = getattr(self, "read", set()) | {name}
        return super().get(name, default)


def test_page_one_cites_the_records_that_it_reads():
    for entry in of_front():
        found = Reads(front.records())
        shown = dict.__getitem__(found, "chapters")
        found |= {"chapters": (own := Reads(shown))}
        getattr(front, entry.script.removeprefix("studies.front."))(found)
        # What a chapter shows of its own run is published as its last good times.
        chapters = {last_good.kept_as(name) for name in getattr(own, "read", set())}
        assert found.read - {"chapters"} | chapters == {record.chapter for record in entry.records}, entry.id
        assert all(record.published for record in entry.records)
    plt.close("all")


def test_the_table_of_page_one_is_remade_from_published_records(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "run_path", lambda chapter, profile: tmp_path / chapter)
    entry = registry.find("tab-decisions")
    assert remake.absent(entry, "cpu") == ([], [])
    (path,) = remake.write(entry, "cpu", tmp_path, "")
    assert next(csv.reader(io.StringIO(path.read_text("utf-8")))) == list(front.HEADER)
    assert cite.figure_bibtex(entry, cite.sources(entry, "cpu")).count("commit ") > 1


@pytest.mark.slow
def test_interactive_figures_are_entries_and_keep_the_table_that_stands_for_them(tmp_path):
    found = [entry for entry in registry.page_entries() if entry.chapter == ids.INTERACTIVE]
    assert [entry.id for entry in found] == [interactive.PREFIX + name for name in interactive.FIGURES]
    for entry in found:
        assert len(entry.caption) > 10 and entry.page == "book/interactive" and registry.find(entry.id) == entry
        assert "it is computed, or drawn from a record" in ids.announcement(entry.id, "cpu", ROOT)
        name = entry.id.removeprefix(interactive.PREFIX)
        (path,) = remake.write(entry, "cpu", tmp_path, "")
        assert list(csv.reader(io.StringIO(path.read_text("utf-8")))) == interactive.figure(name).table
        records = cite.sources(entry, "cpu")
        assert f"Interactive Figure {entry.id} of" in cite.figure_bibtex(entry, records)
        # What has no record is computed now, by the command that stands below it.
        if name == registry.DRAWN:
            assert [record.provenance for record in records] == [interactive.costs().provenance]
            assert remake.absent(entry, "smoke") == ([], [])
        else:
            assert [record.provenance["command"] for record in records] == [f"make figure ID={entry.id}"]
            now = provenance.Record(ids.INTERACTIVE, "cpu", "cpu", 0).provenance
            assert records[0].provenance["commit"] == now["commit"]


def publish_numbers(project, values=(), chapters=()):
    path = project / "notebooks" / "expected" / "cpu.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"values": dict(values), "chapters": dict(chapters)}), "utf-8")


@pytest.mark.parametrize(("got", "verdict"), [(2.1, "1 of 1 published numbers agree"), (3.0, "off: tiny-n")])
def test_a_remade_figure_says_whether_its_numbers_are_the_published_ones(project, monkeypatch, capsys, got, verdict):
    monkeypatch.setattr(headlines, "HEADLINES", (headlines.Headline("tiny-n", "n", "tiny/n", within=0.1),))
    publish_numbers(project, values={"tiny-n": 2.0})
    made = provenance.load("tiny", "cpu")
    made.numbers["n"] = got
    made.save()
    runs.figure("fig-tiny")
    said = capsys.readouterr().out
    assert verdict in said and "the built book's is not here" in said


def test_its_csv_is_compared_with_that_of_the_built_book(project, capsys):
    path = project / "_build" / "html" / "figures" / "fig-tiny.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(runs.figure("fig-tiny")[2].read_bytes())
    runs.figure("fig-tiny")
    assert "entries agree within" in capsys.readouterr().out
    path.write_text(path.read_text("utf-8").replace(",2.0,", ",2.5,"), "utf-8")
    runs.figure("fig-tiny")
    assert ": 1 of " in capsys.readouterr().out


def test_an_unknown_id_fails_with_the_nearest(project, capsys):
    assert runs.main(["figure", "fig-tinny"]) == 1
    error = capsys.readouterr().err
    assert "fig-tiny" in error and error.count("\n") == 1


def test_a_chapter_without_a_record_runs_first(project, monkeypatch, capsys):
    record = provenance.load("tiny", "cpu")
    provenance.run_path("tiny", "cpu").with_suffix(".json").unlink()
    ran = []
    monkeypatch.setattr(runs, "run", lambda chapter, profile: ran.append((chapter, profile)) or record.save())
    assert runs.figure("fig-tiny")
    assert ran == [("tiny", "cpu")] and "tiny: no record at cpu" in capsys.readouterr().out


def test_a_published_record_of_the_profile_stands_for_the_run(project, monkeypatch):
    provenance.publish("tiny", "cpu")
    shutil.rmtree(project / "_build")
    monkeypatch.setattr(runs, "run", lambda *_: pytest.fail("it ran"))
    assert len(runs.figure("fig-tiny")) == 4


def test_where_nothing_has_run_every_entry_names_what_has_to_run(monkeypatch, tmp_path):
    """Also the figures of fits, whose own record nobody loads: it would be missing when they are cited."""
    monkeypatch.setattr(provenance, "run_path", lambda chapter, profile: tmp_path / profile / chapter)
    for entry in known():
        assert remake.absent(entry, "cpu")[1] or cite.sources(entry, "cpu"), entry.id


# The data of a figure


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def data(axes):
    return [dict(zip(remake.COLUMNS, row)) for row in remake.data(axes.figure)]


def test_intervals_bars_and_lines_across_the_panel(axes):
    axes.errorbar([1.0], [2.0], [0.5], label="e")
    axes.bar([3.0], [4.0], width=1.0, label="b")
    axes.axvline(7.0)
    axes.axhline(8.0)
    found = {row["kind"]: row for row in data(axes)}
    assert (found["interval"]["y"], found["interval"]["y_end"]) == (1.5, 2.5)
    assert [found["bar"][key] for key in ("x", "y", "x_end", "y_end")] == [2.5, 0, 3.5, 4.0]
    assert (found["vertical line"]["x"], found["vertical line"]["y"]) == (7.0, "")
    assert (found["horizontal line"]["x"], found["horizontal line"]["y"]) == ("", 8.0)


def test_dots_images_and_named_ticks(axes):
    axes.scatter([1.0], [2.0], label="s")
    axes.imshow([[5.0, 6.0]])
    axes.set_yticks([0.0], ["first"])
    found = data(axes)
    assert [(row["x"], row["y"]) for row in found if row["kind"] == "points"] == [(1.0, 2.0)]
    assert [(row["x"], row["y"], row["value"]) for row in found if row["kind"] == "image"] == [(0, 0, 5.0), (1, 0, 6.0)]
    assert [(row["y"], row["value"]) for row in found if row["kind"] == "tick"] == [(0.0, "first")]


def test_a_drawing_has_no_data(axes):
    axes.plot([1, 2])
    axes.axis("off")
    assert data(axes) == []


# Claims


def record(chapter="tiny", **numbers):
    return provenance.Record(chapter, profile="cpu", device="cpu", seed=0, numbers=numbers)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (3.5, "holds"),
        (2.0, "does not hold"),
        ([3.1, 4.0, 5.0], "holds"),
        ([2.9, 4.0, 5.0], "open, within the spread"),
        ([np.nan] * 3, "not measured"),
    ],
)
def test_the_verdict_follows_the_number_and_its_quartiles(value, verdict):
    claim = registry.Claim("a", "faster", "ratio", "tiny", ("x", "y"), above=3)
    assert claim.verdict(record(x={"y": value})).split(";")[0] == verdict


def test_a_ratio_of_times_close_to_its_limit_is_said_to_be_so():
    claim = registry.Claim("a", "faster", "ratio", "tiny", ("x",), above=10)
    ratios = [17.0, 18.0, 19.0], [10.5, 10.7, 20.0], [5.0, 6.0, 7.84]
    far, near, below = (claim.verdict(record(x=x)) for x in ratios)
    assert far == "holds" and near.startswith("holds; close") and below.startswith("does not hold; close")
    question = registry.Claim("a", "faster", "ratio", "tiny", ("x",), above=1, stated=False)
    assert question.verdict(record(x=[0.619, 0.633, 0.663])) == "no"  # all a third below
    assert question.verdict(record(x=[0.619, 0.633, 0.75])).startswith("no; close")
    assert question.verdict(record(x=[1.25, 1.4, 1.5])).startswith("yes; close")
    assert question.verdict(record(x=[1.26, 1.4, 1.5])) == "yes"
    loss = registry.Claim("a", "small", "loss", "tiny", ("x",), below=0.02)
    assert loss.verdict(record(x=[0.0, 0.01, 0.019])) == "holds"  # no ratio of times


def test_of_several_entries_the_one_with_the_largest_number_is_meant():
    claim = registry.Claim("a", "small", "loss", "tiny", ("x", registry.LARGEST, "loss"), below=0.02)
    rows = [{"loss": [0.0, 0.01, 0.5]}, {"loss": [0.0, 0.015, 0.016]}, {"loss": [float("nan")] * 3}]
    assert claim.values(record(x=rows)) == [0.0, 0.015, 0.016]
    assert claim.verdict(record(x=rows)) == "holds"
    assert claim.verdict(record(x=rows[2:])) == "not measured"
    for rows in ([], [{}]):
        with pytest.raises(ValueError, match=r"no number x\.\*\.loss"):
            claim.values(record(x=rows))


def test_an_inverse_turns_the_quartiles_round():
    claim = registry.Claim("a", "faster", "ratio", "tiny", ("x",), inverse=True, above=3)
    assert claim.values(record(x=[0.1, 0.2, 0.25])) == [4, 5, 10]


def test_a_question_is_answered_with_yes_or_no_and_a_bare_number_with_neither():
    assert registry.Claim("a", "q", "n", "tiny", ("x",), below=1, stated=False).verdict(record(x=0.5)) == "yes"
    assert registry.Claim("a", "q", "n", "tiny", ("x",)).verdict(record(x=0.5)) == "no number to compare with"


def test_words_of_its_own_stand_only_where_the_number_bears_them_out():
    claim = registry.Claim("a", "faster", "ratio", "tiny", ("x",), above=3, if_so="above 3, at our error")
    assert claim.verdict(record(x=[5.5, 6.0, 7.0])) == "above 3, at our error"
    assert claim.verdict(record(x=2.0)) == "does not hold"
    assert claim.verdict(record(x=[2.9, 4.0, 5.0])) == "open, within the spread"


def test_a_number_in_units_of_another_keeps_the_widest_spread():
    claim = registry.Claim("a", "q", "n", "tiny", ("x",), against=("y",), inverse=True)
    assert claim.values(record(x=8.0, y=2.0)) == [0.25]
    assert claim.values(record(x=[4.0, 8.0, 16.0], y=[1.0, 2.0, 4.0])) == [1 / 16, 1 / 4, 1]


def test_a_check_at_fresh_parameters_counts_with_its_upper_limit():
    claim = registry.Claim("a", "target met", "limit", "tiny", ("x",), below=0.01)
    # None of 300 that fails proves less than 1 - 0.05^(1/300).
    assert claim.values(record(x={"draws": 300, "failed": 0}))[0] == pytest.approx(1 - 0.05 ** (1 / 300))
    assert claim.verdict(record(x={"draws": 300, "failed": 3})) == "does not hold"


def test_the_trial_that_the_page_shows_is_the_best_of_its_family():
    trials = provenance.load("training_search").numbers["trials"]
    claim = next(claim for claim in registry.claims() if claim.id == "open-limit-search")
    assert trials[claim.path[1]] == min(
        (trial for trial in trials if trial["family"] == "trigonometric"), key=lambda trial: trial["error"]
    )


def test_a_number_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"record of tiny has no number x\.z"):
        registry.number(record(x={"y": 1}), ("x", "z"))


def test_claims_have_unique_ids_and_name_chapters_of_the_book():
    claims = registry.claims()
    assert len({claim.id for claim in claims}) == len(claims)
    assert {claim.chapter for claim in claims} <= set(runs.book_chapters())


def test_published_claims_lead_to_numbers():
    for claim in (claim for claim in registry.claims() if claim.published or claim.record):
        assert all(np.isfinite(claim.values(provenance.load(claim.record or claim.chapter)))), claim.id


def test_the_page_shows_the_number_of_the_record_and_its_verdict():
    claim = registry.Claim("a", "It is fast.", "ratio", "tiny", ("x",), above=3)
    table = cite.comparison([(claim, record(x=12.345))], {"tiny": "Tiny"})
    assert "| It is fast. | **12.3**: ratio; asked: more than 3 ({doc}`Tiny <../notebooks/tiny>`, cpu, " in table
    assert table.endswith("| holds |")


def test_a_limit_that_can_be_read_in_two_ways_is_told_in_words():
    claims = {claim.id: claim for claim in registry.claims()}
    pairs = [(claims[id], provenance.load("beyond_the_inverse")) for id in ("paper-svd", "open-gpu-fit")]
    told = cite.comparison(pairs, {"beyond_the_inverse": "B"})
    assert "; asked: about 10 (" in told and "; asked: more than 1 (" in told


def test_the_registry_has_the_words_of_a_claim_with_their_numbers(monkeypatch):
    claim = next(claim for claim in registry.claims() if "{{ front.wins }}" in claim.if_so)
    monkeypatch.setattr(registry.Claim, "values", lambda *_: [20.0])
    found = cite._claimed(claim, record())
    assert (
        found["verdict"] == found["if_so"] and f" {front.numbers(front.records())['wins']} of the " in found["verdict"]
    )


def test_a_time_that_was_refused_gives_way_to_the_last_good_one_with_its_own_origin(project):
    """As in the chapters; without one, and for a number that is no time, the record of the run remains."""
    claim = registry.Claim("a", "It is fast.", "ratio", "tiny", ("map", "ratio"), above=3)
    other = registry.Claim("b", "It is exact.", "error", "tiny", ("map", "error"))

    def run(ratio, error, refused, commit):
        told = {"refused": refused, "date": "2026-11-01T10:00:00+00:00"}
        own = record(map={"ratio": ratio, "error": error, "conditions": told})
        own.provenance["commit"] = commit
        own.save()

    unknown = [float("nan")] * 3
    run(unknown, 0.25, "other work", "b" * 40)
    assert claim.verdict(cite.origin(claim, "cpu")) == "not measured"
    run([4.0, 5.0, 6.0], 0.5, "", "a" * 40)
    last_good.keep("tiny")
    run(unknown, 0.25, "other work", "b" * 40)
    found = cite.origin(claim, "cpu")
    assert (claim.values(found), found.provenance["commit"]) == ([4.0, 5.0, 6.0], "a" * 40)
    assert cite.origin(other, "cpu").provenance["commit"] == "b" * 40


# Citing


def test_bibtex_names_version_commit_and_authors_of_the_citation_file(project):
    text = cite.figure_bibtex(registry.find("fig-tiny"), [provenance.load("tiny", "cpu")])
    meta = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert text.startswith("@misc{neumatc-companion-fig-tiny-") and text.count("{") == text.count("}")
    assert "author = {{NeuMatC companion authors}}" in text and f"version = {{{meta['version']}}}" in text
    assert "commit " in text and "doi" not in text.lower()
    assert "note = {What it shows. Version " in text, "the first sentence of the caption"


def test_bibtex_names_every_record_that_a_figure_comes_from(project):
    run = provenance.load("tiny", "cpu")
    older = provenance.load("tiny", "cpu")
    older.provenance |= {"commit": "f" * 40, "dirty": True, "date": "2025-01-02T00:00:00+00:00"}
    text = cite.figure_bibtex(registry.find("fig-tiny"), [run, older, run])
    assert " and commit ffffffffff with uncommitted changes, computed 2025-01-02" in text
    assert text.count("commit ") == 2


def test_a_page_cites_each_record_that_it_shows():
    """The times of the synthetic families are a record of their own, and one table sets a run beside a record."""
    found = {entry.id: [record[:2] for record in entry.records] for entry in known()}
    assert found["tab-synthetic-times"] == [("synthetic_experiments", True), ("synthetic_timings", True)]
    assert found["tab-synthetic-live"] == [("synthetic_experiments", False), ("synthetic_experiments", True)]


def test_a_table_of_last_good_times_cites_them_and_one_of_errors_does_not(project):
    run = record(map={"ratio": [float("nan")] * 3, "error": 0.25, "conditions": {"refused": "other work"}})
    kept = record("tiny_timings", map={"ratio": [4.0, 5.0, 6.0], "conditions": {"refused": ""}})
    run.provenance["commit"], kept.provenance["commit"] = "b" * 40, "a" * 40
    run.save()
    kept.write(provenance.published_path("tiny_timings"))
    load = "from studies import last_good, provenance\nx = last_good.fill(provenance.load('tiny', profile))"
    own = [
        code(
            load + f"\nprovenance.Table(['a'], [[str(x.numbers['map']['{key}'])]])",
            key,
            table={"name": f"tab-{key}", "caption": "A table."},
        )
        for key in ("ratio", "error")
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=own), project / "notebooks" / "tiny.ipynb")
    commits = {
        id: [x.provenance["commit"][0] for x in cite.sources(registry.find(id), "cpu")]
        for id in ids.known(project / "notebooks")
    }
    assert commits == {"tab-ratio": ["b", "a"], "tab-error": ["b"]}


def test_a_table_that_fills_its_own_times_cites_them_where_they_were_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "run_path", lambda chapter, profile: tmp_path / chapter)
    kept = provenance.load("your_own_matrices_timings")
    run = record("your_own_matrices", **kept.numbers)
    run.numbers["numpy"] = run.numbers["numpy"] | {"conditions": {"refused": "other work"}}
    run.save()
    found = {
        id: [x.chapter for x in cite.sources(registry.find(id), "cpu")] for id in ("tab-own-numpy", "tab-own-bands")
    }
    assert found == {"tab-own-numpy": [run.chapter, kept.chapter], "tab-own-bands": [run.chapter]}


def test_a_chapter_that_begins_with_published_results_cites_them():
    for chapter, names in status.BEGUN.items():
        assert (ROOT / "notebooks" / f"{chapter}.ipynb").is_file()
        assert all((ROOT / "notebooks" / "records" / f"{name}.json").is_file() for name in names)


def test_a_caption_in_bibtex_is_escaped_outside_of_its_formulas():
    assert cite.tex("5 % of $a_1 & b$, c_d") == r"5 \% of $a_1 & b$, c\_d"


def test_citation_and_zenodo_agree_and_credit_the_companion():
    meta = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text("utf-8"))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert zenodo["version"] == meta["version"] == version
    assert zenodo["title"] == meta["title"] and zenodo["keywords"] == meta["keywords"]
    assert [entry["name"] for entry in zenodo["creators"]] == [entry["name"] for entry in meta["authors"]]
    # Not every number is: records of studies, searches and a GPU are kept.
    assert zenodo["description"].startswith(meta["abstract"]) and "every number" not in meta["abstract"]
    assert zenodo["license"] in meta["license"] and "CC BY 4.0" in zenodo["description"]
    (paper,) = meta["references"]
    assert zenodo["related_identifiers"][0]["identifier"] == paper["identifiers"][0]["value"]
    assert "preferred-citation" not in meta, "it would send the credit for a figure to the paper"
    assert "doi" not in json.dumps([meta, zenodo]).lower(), "there is none"


def test_the_pages_are_filled_and_every_entry_has_its_line(project, monkeypatch):
    """What Sphinx makes of it is the stage's registry, the gallery, and the line under the cell."""
    (project / "book").mkdir()
    for name in ("cite.md", "gallery.md", "paper_and_this_run.md", "references.bib"):
        shutil.copyfile(ROOT / "book" / name, project / "book" / name)
    (project / "book" / "registry.toml").write_text(
        '[[claim]]\nid = "a"\npaper = "p"\nours = "o"\nchapter = "tiny"\npath = ["n"]\nabove = 1\n', "utf-8"
    )
    made = provenance.load("tiny", "cpu")
    made.numbers["n"] = 2.5
    made.save()
    monkeypatch.setattr(headlines, "HEADLINES", (headlines.Headline("tiny-n", "n", "tiny/n", within=0.1),))
    publish_numbers(project, values={"tiny-n": 2.0})
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Tiny"), *cells()])
    table = nbformat.v4.new_output("execute_result", {"text/markdown": "| a | b |\n| --- | --- |\n| 1 | x \\| y |"})
    page.cells[-1].outputs = [table]
    texts = {path.relative_to(project): path.read_bytes() for path in (project / "book").iterdir()}
    files = cite.staged({"tiny": page}, texts)
    everything = json.loads(files[cite.FOLDER / "registry.json"])
    rows = everything["entries"]
    assert [row["id"] for row in rows] == ["fig-tiny", "fig-live", "tab-tiny"]
    assert rows[0]["records"][0]["parameters"] == {"profile": "cpu", "device": "cpu", "seed": 0}
    assert rows[0]["page"] == "notebooks/tiny" and "seconds" in rows[0]["records"][0]
    (claim,), (number,) = everything["claims"], everything["numbers"]
    assert (claim["id"], claim["values"], claim["verdict"]) == ("a", [2.5], "holds")
    assert (number["id"], number["published"], number["tolerance"]) == ("tiny-n", 2.0, "10 %")
    assert files[cite.FOLDER / "tab-tiny.csv"] == b"a,b\n1,x | y\n"
    for row in rows:
        assert row["id"] in files[Path("book", "gallery.md")].decode()
        assert {cite.FOLDER / name for name in row["files"]} <= set(files)
    for entry in ("fig-tiny", "fig-live"):
        day, night = (files[cite.FOLDER / f"{entry}{end}"] for end in (".svg", "-night.svg"))
        assert b"#ffffff" in day and b"#ffffff" not in night and b"#121212" in night
        assert f'night" src="../figures/{entry}-night.svg"' in files[Path("book", "gallery.md")].decode()
    assert "| p | **2.5**: o; asked: more than 1 (" in files[Path("book", "paper_and_this_run.md")].decode()
    assert not any("{{software}}" in files[path].decode() for path in cite.PAGES)


@pytest.fixture
def origin_line(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    import origin_line

    return origin_line


def test_the_line_under_a_cell_holds_id_files_command_and_bibtex(origin_line):
    entry = {"id": "fig-a", "kind": "figure", "files": ["fig-a.svg", "fig-a.csv"]}
    entry |= {"command": "make figure ID=fig-a", "bibtex": "@misc{a, title = {<b>}}"}
    line = origin_line.line(entry, "../")
    assert 'href="#fig-a"' in line and 'href="../figures/fig-a.svg" download>SVG<' in line
    assert "<code>make figure ID=fig-a</code>" in line and "&lt;b&gt;" in line
    assert "http" not in line


def test_a_cell_is_found_by_its_metadata(origin_line):
    for metadata in ({"mystnb": labelled("fig-a")}, {"table": {"name": "fig-a", "caption": "A."}}):
        assert origin_line.name(nodes.container("", nb_element="cell_code", cell_metadata=metadata)) == "fig-a"
    assert origin_line.name(nodes.container("")) is None


def test_other_pages_can_refer_to_a_table(origin_line):
    domain = SimpleNamespace(labels={}, anonlabels={})
    env = SimpleNamespace(docname="notebooks/tiny", get_domain={"std": domain}.get)
    origin_line.refer(SimpleNamespace(env=env), "tab-a", "A table.")
    assert domain.labels == {"tab-a": ("notebooks/tiny", "tab-a", "A table.")}
    assert domain.anonlabels == {"tab-a": ("notebooks/tiny", "tab-a")}


def test_links_to_tables_and_figures_lead_to_some():
    text = "\n".join(path.read_text("utf-8") for path in (ROOT / "book").glob("*.md"))
    linked = re.findall(r"\{(?:num)?ref\}`(?:[^`<]*<)?((?:tab|fig)-[\w-]+)>?`", text)
    known = {entry.id for entry in registry.entries()} | {"fig-decisions"}
    assert len(linked) > 10 and set(linked) <= known


def test_pages_that_disagree_with_the_registry_are_named(origin_line, tmp_path):
    entry = {"id": "fig-a", "kind": "figure", "page": "notebooks/tiny", "files": ["fig-a.csv"]}
    entry |= {"command": "c", "bibtex": "b"}
    page = tmp_path / "notebooks" / "tiny.html"
    page.parent.mkdir()
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "fig-a.csv").touch()
    page.write_text('<figure id="fig-a"></figure>' + origin_line.line(entry, "../"), "utf-8")
    assert origin_line.disagreements([entry], tmp_path) == []
    assert "not in the registry" in origin_line.disagreements([], tmp_path)[0]
    assert "is not there" in origin_line.disagreements([entry | {"files": ["fig-a.svg"]}], tmp_path)[0]
    page.write_text(origin_line.line(entry, "../"), "utf-8")
    assert "no anchor" in origin_line.disagreements([entry], tmp_path)[0]
    page.write_text("", "utf-8")
    assert "on no such page" in origin_line.disagreements([entry], tmp_path)[0]


def test_every_figure_of_a_page_is_asked_for(origin_line, tmp_path):
    """Also of pages that are no notebooks, and figures without a name or a line."""
    (tmp_path / "book").mkdir()
    page = tmp_path / "book" / "intro.html"
    page.write_text('<figure class="a" id="fig-a"></figure>', "utf-8")
    assert origin_line.disagreements([], tmp_path) == ["fig-a: on the page book/intro, not in the registry"]
    page.write_text('<figure class="a"></figure>', "utf-8")
    assert "a figure without a name: on the page book/intro" in origin_line.disagreements([], tmp_path)[0]


def test_a_figure_and_a_table_of_page_one_have_their_lines(origin_line, tmp_path):
    entries = [
        {"id": id, "kind": "figure", "page": "book/intro", "cell": "", "files": [], "command": "c", "bibtex": "b"}
        for id in ("fig-a", "tab-b")
    ]
    path = tmp_path / origin_line.REGISTRY
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"entries": entries}), "utf-8")
    document = utils.new_document("intro")
    document += [nodes.figure(ids=["fig-a"]), nodes.paragraph(), nodes.container(ids=["tab-b"])]
    env = types.SimpleNamespace(docname="book/intro", note_dependency=lambda _: None)
    origin_line.add(types.SimpleNamespace(srcdir=tmp_path, env=env), document)
    kinds = [type(node).__name__ for node in document]
    assert kinds == ["figure", "raw", "paragraph", "container", "raw"]
    assert 'href="#fig-a"' in document[1].astext() and 'href="#tab-b"' in document[4].astext()


# Prose


def test_no_result_is_typed_into_prose():
    unknown, unused = prose.compared()
    assert [f"{bare.page}: {bare.text} in: {bare.around}" for bare in unknown] == [], "glue it; see book/numbers.toml"
    assert unused == [], "book/numbers.toml: no longer needed"


def test_captions_and_alternative_texts_are_read(project):
    own = cells()
    own[2].metadata["mystnb"] = {"figure": {"name": "fig-tiny", "caption": "At 36 %."}, "image": {"alt": "9 solves"}}
    own[5].metadata["table"]["caption"] = "Within 7 s."
    nbformat.write(nbformat.v4.new_notebook(cells=own), project / "notebooks" / "tiny.ipynb")
    assert [bare.text for bare in prose.bare()] == ["36 %", "9 solves", "7 s"]


@pytest.mark.parametrize(
    ("text", "results"),
    [
        ("It is 36x faster, or 8.5 times with the fit.", ["36x", "8.5 times"]),
        ("An error of 4e-3, and of 0.02 at most.", ["4e-3", "0.02"]),
        ("It keeps 97 % of the rate, nine times as much, by a factor of 6.", ["97 %", "nine times", "factor of 6"]),
        ("A fit takes 12 seconds, the search two hours.", ["12 seconds", "two hours"]),
        ("The rank is 92, and it took 129 exact solves.", ["rank is 92", "129 exact solves"]),
        ("It pays from 1,200 matrices on, in 3 families.", ["1,200 matrices", "3 families"]),
        (
            "Twice as fast, half the time, by two orders of magnitude.",
            ["Twice as fast", "half the time", "two orders of magnitude"],
        ),
        ("Wrong are 0 of 200, or 1/1,000; an error of $4\\cdot10^{-3}$.", ["0 of 200", "1/1,000", "4\\cdot10^{-3}"]),
        ("```{figure} a.png\n:alt: It takes 12 solves.\n\nA drop of 5 %.\n```\n", ["12 solves", "5 %"]),
        ("Twice as many rows of rank two, at a tolerance of $10^{-3}$, once and twice.", []),
        ("It takes {glue:text}`a:.1f` times, $3$ times $x$ at `1e-3`, of 64 antennas in 2 rows.", []),
        ("See [here](page-1.5%) or <https://example.org/1.5> and\n```\n3 times\n```\n", []),
    ],
)
def test_what_counts_as_a_result(text, results):
    assert [bare.text for bare in prose.found("page", text)] == results
