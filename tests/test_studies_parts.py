"""Parts of a chapter: computed at study, taken from its published record at cpu, and never told as if rerun."""

import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from studies import cite, provenance, registry, reproduce, runs, slices, status
from studies.headlines import Headline
from studies.provenance import Record

ROOT = Path(__file__).parents[1]
GROWTH = 'if record.computes("growth"):\n    pass'
SHOWN = "shown = provenance.load('tiny', profile, 'growth')\nprovenance.Table(['a'], [[str(shown.numbers['rows'])]])"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A project of one chapter, whose record of another profile is published already."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    (tmp_path / "notebooks").mkdir()
    cells = [
        new_code_cell("from studies import provenance", id="imports"),
        new_code_cell(GROWTH, id="compute"),
        new_code_cell(SHOWN, id="show", metadata={"table": {"name": "tab-tiny", "caption": "Growth of it all."}}),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "tiny.ipynb")
    monkeypatch.chdir(tmp_path)
    other = Record("tiny", profile="gpu", device="cuda", seed=0)
    other.numbers["rows"] = "of a GPU"
    other.save()
    provenance.publish("tiny", "gpu")
    return tmp_path


def run(profile, rows=(1, 2), own=0.5):
    """A run of the chapter: an error of its own for each profile, and a part."""
    record = Record("tiny", profile=profile, device="cpu", seed=0)
    record.numbers |= {"case": {"error": own}, "untouched": 1}
    record.arrays["x"] = np.array([own])
    if record.computes("growth"):
        record.numbers["rows"] = list(rows)
        record.numbers["case"]["limit"] = 0.25
        record.arrays["limits"] = np.arange(3.0)
    record.save()
    record.numbers["after"] = own
    record.save()
    return record


def published(**changes):
    """Publish a study, as if another commit and processor had computed it."""
    study = run("study", **changes)
    study.provenance |= {"commit": "c0ffee" * 6, "dirty": False, "date": "2026-11-28T03:10:00+00:00"}
    study.provenance["machine"]["cpu"] = "AMD EPYC"
    study.provenance["notebook_seconds"] = 123.4
    study.write(provenance.run_path("tiny", "study"))
    provenance.publish("tiny", "study")


def test_a_study_writes_down_what_its_parts_have_added():
    record = run("study")
    assert record.provenance["parts"] == {"growth": {"numbers": [["case", "limit"], ["rows"]], "arrays": ["limits"]}}
    assert "taken" not in record.provenance


def test_a_page_takes_the_part_and_keeps_its_own_numbers():
    published(rows=(3, 4), own=0.125)
    run("cpu")
    found = provenance.load("tiny", "cpu")
    assert found.numbers == {"case": {"error": 0.5, "limit": 0.25}, "untouched": 1, "rows": [3, 4], "after": 0.5}
    np.testing.assert_array_equal(found.arrays["limits"], [0, 1, 2])
    np.testing.assert_array_equal(found.arrays["x"], [0.5])


@pytest.mark.parametrize("profile", ["smoke", "study"])
def test_other_profiles_compute_it(profile):
    published(rows=(3, 4))
    run(profile, rows=(5, 6))
    assert provenance.load("tiny", profile).numbers["rows"] == [5, 6]


def test_a_study_is_kept_beside_the_record_of_another_profile(project):
    published()
    assert provenance.load("tiny").numbers == {"rows": "of a GPU"}
    path = project / "notebooks" / "records" / "tiny_study.json"
    assert json.loads(path.read_text("utf-8"))["chapter"] == "tiny_study"
    kept = provenance.load("tiny_study")
    assert kept.numbers == {"case": {"limit": 0.25}, "rows": [1, 2]}, "nothing but the part"
    assert set(kept.arrays) == {"limits"}


def test_without_a_published_study_the_commands_are_named():
    commands = "make run CHAPTER=tiny PROFILE=study and make publish CHAPTER=tiny PROFILE=study"
    with pytest.raises(FileNotFoundError, match=f"records/tiny_study.json; {commands}"):
        run("cpu")


def test_a_part_that_was_not_published_is_named():
    published()
    record = Record("tiny", profile="cpu", device="cpu", seed=0)
    with pytest.raises(ValueError, match="study of tiny has 'growth', got 'decay'; make run CHAPTER=tiny PROFILE=stu"):
        record.computes("decay")


def test_calls_with_the_same_name_add_to_the_same_part():
    record = Record("tiny", profile="study", device="cpu", seed=0)
    for name in "ab":
        assert record.computes("both")
        record.numbers[name] = 1
    assert record.computes("another")
    record.numbers["c"] = 2
    record.save()
    found = {name: part["numbers"] for name, part in record.provenance["parts"].items()}
    assert found == {"both": [["a"], ["b"]], "another": [["c"]]}


def test_a_part_is_loaded_with_the_provenance_of_its_study():
    published()
    run("cpu")
    part = provenance.load("tiny", "cpu", "growth")
    assert (part.profile, part.provenance["commit"][:6]) == ("study", "c0ffee")
    assert part.numbers == provenance.load("tiny", "cpu").numbers
    assert provenance.load("tiny", "study", "growth").provenance["parts"].keys() == {"growth"}
    with pytest.raises(ValueError, match="record of tiny has 'growth', got 'decay'"):
        provenance.load("tiny", "cpu", "decay")


def test_a_page_says_behind_the_cell_what_was_not_computed():
    published()
    run("cpu")
    cells = nbformat.read("notebooks/tiny.ipynb", as_version=4).cells
    page = status.with_sources(cells, provenance.load("tiny", "cpu"))
    assert [cell.id for cell in page] == ["imports", "compute", "compute-taken-0", "show"]
    assert page[2].source == (
        "*Growth: not computed with this page, but taken from the run of 2026-11-28 at the profile `study` (commit "
        "c0ffeec0ff, AMD EPYC); `make run CHAPTER=tiny PROFILE=study`, then `make publish CHAPTER=tiny PROFILE=study` "
        "make it anew in 123 s.*"
    )
    assert "Growth: not computed" in f"{provenance.table(provenance.load('tiny', 'cpu'))}".replace("growth", "Growth")


def test_a_page_that_computed_it_says_nothing():
    run("smoke")
    cells = nbformat.read("notebooks/tiny.ipynb", as_version=4).cells
    assert status.with_sources(cells, provenance.load("tiny", "smoke")) == cells


def test_a_table_of_a_part_is_cited_as_of_its_study():
    published()
    run("cpu")
    (entry,) = registry.entries()
    assert entry.records == (slices.Source("tiny", published=False, part="growth"),)
    (source,) = cite.sources(entry, "cpu")
    assert (source.profile, source.provenance["date"][:10]) == ("study", "2026-11-28")


def test_a_claim_about_a_number_of_a_part_has_the_origin_of_its_study():
    published()
    run("cpu")
    sizes = {"id": "x", "paper": "y", "ours": "z", "chapter": "tiny"}
    assert cite.origin(registry.Claim(**sizes, path=("case", "limit")), "cpu").profile == "study"
    assert cite.origin(registry.Claim(**sizes, path=("case", "error")), "cpu").profile == "cpu"
    assert cite.origin(registry.Claim(**sizes, path=("rows",), published=True), "cpu").profile == "gpu"


def test_a_number_that_was_taken_does_not_count_as_reproduced(project, monkeypatch):
    published()
    run("cpu")
    listed = (
        Headline("tiny-limit", "x", "tiny/case/limit", within=0.01),
        Headline("tiny-error", "x", "tiny/case/error", within=0.01),
    )
    monkeypatch.setattr(reproduce, "HEADLINES", listed)
    path = reproduce.expected_path("cpu")
    path.parent.mkdir()
    path.write_text(json.dumps({"values": {"tiny-limit": 0.25, "tiny-error": 0.5}, "chapters": {}}))
    assert [row.verdict for row in reproduce.compare("cpu", ["tiny"])] == ["pass", reproduce.TAKEN, "pass"]
    path.write_text(json.dumps({"values": {"tiny-limit": 0.26, "tiny-error": 0.5}, "chapters": {}}))
    assert [row.verdict for row in reproduce.compare("cpu", ["tiny"])] == ["pass", "FAIL", "pass"]


def test_a_chapter_with_parts_can_be_run_at_study():
    assert runs.has_study(nbformat.read("notebooks/tiny.ipynb", as_version=4))


# The notebooks of this repository


def asked(path):
    """The parts that a notebook names: those that it computes, and those that its cells show."""
    cells = slices.cells(path)
    shown = slices.loaded([statement for cell in cells for statement in slices.parsed(cell)])
    return {name for cell in cells for name in status.PART.findall(cell.source)}, {source.part for source in shown}


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_a_page_does_not_compute_is_published(path):
    """If not: make run CHAPTER=... PROFILE=study, then make publish with the same, on an idle machine."""
    computed, shown = asked(path)
    assert shown - {None} <= computed
    if computed:
        content = json.loads((ROOT / "notebooks" / "records" / f"{path.stem}_study.json").read_text("utf-8"))
        assert set(content["provenance"]["parts"]) == computed
