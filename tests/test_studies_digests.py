"""Digests of published records: a digit that is changed by hand is named, and publishing notes a new one."""

import json

import numpy as np
import pytest

from studies import digests, last_good, provenance
from studies.provenance import Record


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The published records of a project that has one, with an array."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    monkeypatch.chdir(tmp_path)
    record = Record("tiny", profile="cpu", device="cpu", seed=0, numbers={"error": 1.25e-3})
    record.arrays["x"] = np.ones(2)
    record.save()
    provenance.publish("tiny", "cpu")
    return tmp_path / "notebooks" / "records"


def test_what_was_published_is_as_it_was(folder):
    assert digests.differing(folder) == []
    assert list(digests.noted(folder)) == ["tiny.json", "tiny.npz"]
    assert digests.main([]) == 0


def test_a_digit_that_is_changed_by_hand_is_named(folder, capsys):
    path = folder / "tiny.json"
    path.write_text(path.read_text("utf-8").replace("0.00125", "0.00126"), "utf-8")
    assert digests.differing(folder) == ["tiny.json"]
    assert digests.main([]) == 1
    assert capsys.readouterr().out == "tiny.json\n"
    assert digests.main(["tiny.json"]) == 0, "noted after a merge"


def test_files_that_are_gone_and_those_that_nobody_noted_are_named(folder):
    (folder / "tiny.npz").unlink()
    (folder / "other.json").write_text("{}")
    assert digests.differing(folder) == ["other.json", "tiny.npz"]
    digests.note(folder / "tiny.npz", folder / "other.json")
    assert digests.differing(folder) == []


def test_publishing_again_notes_the_new_digests_and_forgets_what_is_gone(folder):
    Record("tiny", profile="cpu", device="cpu", seed=0, numbers={"error": 2.0}).save()
    provenance.publish("tiny", "cpu")
    assert digests.differing(folder) == []
    assert list(digests.noted(folder)) == ["tiny.json"]


def test_timings_that_are_kept_have_digests_too(folder):
    timed = {"svd": {"time": [1.0, 2.0, 3.0], "conditions": {"refused": ""}}}
    Record("tiny", profile="cpu", device="cpu", seed=0, numbers=timed).save()
    last_good.keep("tiny")
    assert digests.differing(folder) == []
    assert "tiny_timings.json" in json.loads((folder / digests.NAME).read_text("utf-8"))
