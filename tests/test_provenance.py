"""Records: what goes in comes out, provenance without private data, and no smoke number in a published record."""

import getpass
import json
import math
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from studies import provenance
from studies.provenance import Record, Table, glue, load, publish, resolve_device, table


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A project of this name, entered in its notebooks, as a kernel is."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def record(profile="cpu", **numbers):
    result = Record("chapter", profile=profile, device="cpu", seed=3)
    result.numbers.update(numbers)
    return result


def test_a_record_comes_back_as_it_was_saved(project):
    saved = record(error=2.4e-2, steps=4000, done=True, note="ä | b", nothing=None, history=[1, 2.5], nested={"a": {}})
    saved.arrays["x"] = np.linspace(0, 1, 7)
    saved.arrays["X"] = torch.tensor([[1 + 2j]], dtype=torch.complex64).mH
    path = saved.save()
    assert path == project / "_build" / "runs" / "cpu" / "chapter.json"
    found = load("chapter", "cpu")
    assert found.numbers == saved.numbers
    assert (found.chapter, found.profile, found.device, found.seed) == ("chapter", "cpu", "cpu", 3)
    np.testing.assert_array_equal(found.arrays["x"], saved.arrays["x"])
    np.testing.assert_array_equal(found.arrays["X"], np.array([[1 - 2j]], dtype=np.complex64))
    assert found.arrays["X"].dtype == np.complex64
    assert found.provenance == saved.provenance


@pytest.mark.parametrize("scalar", [np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5).double()])
def test_scalars_of_numpy_and_torch_become_plain_numbers(scalar):
    record(value=scalar, count=np.int64(3), flag=np.bool_(True)).save()
    assert load("chapter", "cpu").numbers == {"value": 0.5, "count": 3, "flag": True}


def test_nan_and_infinities_survive_in_strict_json():
    path = record(values=[math.nan, math.inf, -math.inf, torch.tensor(math.nan)]).save()
    text = path.read_text("utf-8")
    json.loads(text, parse_constant=pytest.fail)
    assert '"-Infinity"' in text
    nan, plus, minus, scalar = load("chapter", "cpu").numbers["values"]
    assert math.isnan(nan)
    assert math.isnan(scalar)
    assert (plus, minus) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (np.ones(3), TypeError, "`numbers.value`: expected a real number.*ndarray.*record.arrays"),
        (1 + 2j, TypeError, "`numbers.value`.*complex.*real and imaginary"),
        ({1: 2}, TypeError, "`numbers.value`: expected texts as keys, got 1"),
        ([{"a": object()}], TypeError, r"`numbers.value\[0\].a`"),
        ("NaN", ValueError, "`numbers.value`.*spell it otherwise"),
    ],
)
def test_a_number_that_cannot_be_kept_is_refused_by_name(value, error, words):
    with pytest.raises(error, match=words):
        record(value=value).save()


@pytest.mark.parametrize(("name", "value"), [("x", np.array(["a"])), ("file", np.ones(1)), ("a b", np.ones(1))])
def test_an_array_that_cannot_be_kept_is_refused_by_name(name, value):
    broken = record()
    broken.arrays[name] = value
    with pytest.raises(TypeError, match=f"`arrays\\['{name}'\\]`"):
        broken.save()


def test_a_second_save_leaves_nothing_of_the_first():
    first = record()
    first.arrays["x"] = np.ones(2)
    first.save()
    path = record().save()
    assert [p.name for p in path.parent.iterdir()] == ["chapter.json"]
    assert load("chapter", "cpu").arrays == {}


def test_files_that_do_not_belong_together_are_noticed():
    saved = record()
    saved.arrays["x"] = np.ones(2)
    path = saved.save()
    np.savez(path.with_suffix(".npz"), x=np.ones(3))
    with pytest.raises(ValueError, match="expected the arrays"):
        load("chapter", "cpu")
    path.with_suffix(".npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"cpu/chapter\.npz; make run"):
        load("chapter", "cpu")
    path.write_text("{}")
    with pytest.raises(ValueError, match="is not a record"):
        load("chapter", "cpu")


@pytest.mark.parametrize(("profile", "words"), [("cpu", "make run CHAPTER=chapter PROFILE=cpu"), (None, "publish it")])
def test_a_missing_record_names_the_command_that_makes_it(profile, words):
    with pytest.raises(FileNotFoundError, match=words):
        load("chapter", profile)


def test_publish_copies_a_run_and_replaces_all_of_the_older_one(project):
    first = record(error=1.0)
    first.arrays["x"] = np.ones(2)
    first.save()
    assert publish("chapter", "cpu") == project / "notebooks" / "records" / "chapter.json"
    assert load("chapter").arrays["x"].shape == (2,)
    record(error=2.0).save()
    assert load("chapter").numbers == {"error": 1.0}
    publish("chapter", "cpu")
    assert load("chapter").numbers == {"error": 2.0}
    assert load("chapter").arrays == {}


def test_a_smoke_run_never_overwrites_a_published_record():
    record(error=1.0).save()
    publish("chapter", "cpu")
    smoke = record("smoke", error=9.0)
    smoke.save()
    with pytest.raises(ValueError, match="`profile`: expected cpu, study or gpu, got 'smoke'"):
        publish("chapter", "smoke")
    # Nor in disguise, as the record of a larger profile.
    smoke.write(provenance.run_path("chapter", "cpu"))
    with pytest.raises(ValueError, match="got that of chapter at smoke"):
        publish("chapter", "cpu")
    assert load("chapter").numbers == {"error": 1.0}


def test_provenance_says_what_it_should_and_nothing_private(project):
    path = record().save()
    source = load("chapter", "cpu").provenance
    assert source["date"].endswith("+00:00")
    assert source["command"] == "make run CHAPTER=chapter PROFILE=cpu DEVICE=cpu SEED=3"
    assert source["versions"]["torch"] == torch.__version__
    assert source["versions"]["python"] == platform.python_version()
    assert source["torch_threads"] == torch.get_num_threads()
    assert source["wall_seconds"] >= 0
    assert set(source["machine"]) == {"cpu", "cores", "memory_gib", "gpu", "os"}
    assert source["commit"] == "unknown"
    # A short name such as "root" or "ci" may well be part of another word.
    text = path.read_text("utf-8")
    private = [str(project), sys.prefix, platform.node(), getpass.getuser()]
    assert [word for word in private if f'"{word}"' in text or (len(word) > 8 and word in text)] == []


def test_the_commit_is_the_projects_own(project, monkeypatch):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            cwd=project,
            check=True,
            capture_output=True,
        )

    git("init")
    git("add", "pyproject.toml")
    git("commit", "-m", "x")
    clean = record().provenance
    assert len(clean["commit"]) == 40
    assert not clean["dirty"]
    record().save()
    assert record().provenance["dirty"], "_build is not ignored here"
    # A folder inside another repository is not at that repository's commit.
    inner = project / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    monkeypatch.chdir(inner)
    assert record().provenance["commit"] == "unknown"


def test_the_root_is_the_nearest_project_of_this_name(project, tmp_path_factory, monkeypatch):
    other = project / "notebooks" / "other"
    other.mkdir()
    (other / "pyproject.toml").write_text('[project]\nname = "other"\n')
    monkeypatch.chdir(other)
    assert provenance.root() == project
    alone = tmp_path_factory.mktemp("alone")
    (alone / "pyproject.toml").write_text("not TOML")
    monkeypatch.chdir(alone)
    assert provenance.root() == alone


@pytest.mark.parametrize("chapter", ["", "../x", "a/b", "A", None])
def test_a_chapter_is_a_plain_name(chapter):
    with pytest.raises(ValueError, match="`chapter`: expected lower-case letters"):
        Record(chapter, profile="cpu", device="cpu", seed=0)


@pytest.mark.parametrize("seed", [-1, 0.5, True])
def test_a_seed_is_a_non_negative_integer(seed):
    with pytest.raises((TypeError, ValueError), match="`seed`"):
        Record("chapter", profile="cpu", device="cpu", seed=seed)


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto", "smoke") == resolve_device("auto", "cpu") == resolve_device("cpu", "gpu") == "cpu"
    for device, profile in [("auto", "gpu"), ("cuda", "cpu")]:
        with pytest.raises(RuntimeError, match="set DEVICE=cpu"):
            resolve_device(device, profile)
    for device in ["gpu", "mps", None]:
        with pytest.raises(ValueError, match="`device`: expected auto, cpu, cuda"):
            resolve_device(device, "cpu")
    with pytest.raises(ValueError, match="`profile`: expected one of smoke, cpu, study, gpu, got 'full'"):
        resolve_device("auto", "full")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("auto", "gpu") == "cuda"
    assert resolve_device("cuda:0", "cpu") == "cuda:0"
    with pytest.raises(RuntimeError, match="cuda:1"):
        resolve_device("cuda:1", "cpu")


def test_glue_stores_plain_numbers_and_is_silent_without_myst_nb(monkeypatch):
    stored = {}
    module = type(sys)("myst_nb")
    module.glue = lambda key, value, display: stored.update({key: (type(value), value, display)})
    monkeypatch.setitem(sys.modules, "myst_nb", module)
    glue("a", np.float32(0.5))
    glue("b", torch.tensor(2))
    assert stored == {"a": (float, 0.5, False), "b": (int, 2, False)}
    monkeypatch.setitem(sys.modules, "myst_nb", None)
    glue("c", 1.0)


def test_the_cells_of_a_table_keep_bars_and_quotes():
    text = Table(["a"], [['SVD(2, gauge="subspace") | `f("x|y")`']])._repr_markdown_()
    assert text.splitlines()[2] == '| SVD(2, gauge=\\"subspace\\") \\| `f("x\\|y")` |'


def test_the_table_shows_the_provenance():
    saved = record()
    assert "Wall time" not in repr(table(saved))
    saved.save()
    text = table(saved)._repr_markdown_()
    assert text.startswith("| Provenance |  |\n| --- | --- |\n")
    assert "| Command | `make run CHAPTER=chapter PROFILE=cpu DEVICE=cpu SEED=3` |" in text
    assert "Wall time" in text


def test_a_page_shows_the_published_record_of_what_takes_too_long(project):
    record = Record("tiny", profile="study", device="cpu", seed=0)
    record.numbers["error"] = 1e-3
    record.save()
    publish("tiny", "study")
    page = Record("tiny", profile="cpu", device="cpu", seed=0)
    assert provenance.taken(page).numbers == {"error": 1e-3}
    assert provenance.taken(page).profile == "study"
    other = Record("tiny", profile="smoke", device="cpu", seed=0)
    assert provenance.taken(other) is other


def test_published_records_are_found_outside_of_a_clone_too(project, tmp_path_factory, monkeypatch):
    """They come with the installed studies."""
    assert provenance.published_path("tiny") == project / "notebooks" / "records" / "tiny"
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert provenance.published_path("tiny") == Path(provenance.__file__).parent / "records" / "tiny"
