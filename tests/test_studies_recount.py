"""What page one rests on, counted again: a digit of a published record that is changed on purpose is caught."""

import copy

import pytest

from studies import digests, headlines, load, provenance, recount, reproduce
from studies.provenance import Record


def rows(numbers, profile="cpu"):
    record = Record(recount.NAME, profile=profile, device="cpu", seed=0, numbers=numbers)
    return [reproduce.judge(*pair) for pair in recount.pairs(record)]


@pytest.fixture
def published(monkeypatch):
    """The published numbers, which a test may change."""
    found = copy.deepcopy(recount.published())
    monkeypatch.setattr(recount, "published", lambda: found)
    return found


def test_the_published_numbers_are_those_of_all_four_records(published):
    found = rows(copy.deepcopy(published))
    assert {row.verdict for row in found} == {"pass"}
    assert {row.id.partition(":")[0] for row in found} == set(recount.ROWS)
    assert len({row.id for row in found}) == len(found) > 200


CHANGES = {
    "speed: error": lambda x: x["speed"][0].update(error=0.1 * x["speed"][0]["error"]),
    "speed: a peer": lambda x: x["speed"][0]["interpolation"]["Chebyshev"].update(solves=1),
    "families: largest share": lambda x: x["families"][0].update(largest=x["families"][0]["largest"] + 0.01),
    "families: met": lambda x: x["families"][0].update(met=x["families"][0]["met"] - 2),
    "draws: solves": lambda x: x["draws"][0]["draws"][1].update(solves=x["draws"][0]["draws"][1]["solves"] + 7),
    "cases: error": lambda x: x["cases"][3].update(defect=1.5 * x["cases"][3]["defect"]),
    "cases: solves": lambda x: x["cases"][0].update(solves=x["cases"][0]["solves"] + 3),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_number_that_is_changed_on_purpose_is_caught(published, change):
    counted = copy.deepcopy(published)
    change(published)
    assert [row.verdict for row in rows(counted) if row.verdict != "pass"] == ["FAIL"]


def test_what_was_not_counted_fails_at_cpu_and_is_left_out_at_smoke(published):
    counted = copy.deepcopy(published)
    del counted["cases"][0]
    assert [row.verdict for row in rows(counted)].count("FAIL") == 2
    assert {row.verdict for row in rows(counted, "smoke")} == {"pass"}


@pytest.mark.slow
def test_a_few_problems_are_counted_again_as_they_were_published(monkeypatch):
    pytest.importorskip("sionna")
    monkeypatch.setattr(Record, "save", lambda self: None)  # no run of this clone is replaced
    monkeypatch.setattr(load.Watch, "load", lambda self, wait=True: load.Load(0.0, 0.0))
    record = recount.take("smoke")
    found = [reproduce.judge(*pair) for pair in recount.pairs(record)]
    assert {row.id.partition(":")[0] for row in found} == {"cases", "speed", "draws"}
    assert [row for row in found if row.verdict != "pass"] == []


def test_the_comparison_has_a_row_for_the_digests_and_one_for_each_number(published, monkeypatch):
    record = Record(recount.NAME, profile="cpu", device="cpu", seed=0, numbers=copy.deepcopy(published))
    monkeypatch.setattr(provenance, "load", lambda name, profile: record)
    whole, *others = reproduce.counted_again("cpu")
    assert (whole.id, whole.verdict) == ("records", "pass") and len(others) == len(rows(record.numbers))
    monkeypatch.setattr(digests, "differing", lambda folder: ["training_search.json"])
    assert reproduce.counted_again("cpu")[0].verdict == "FAIL"
    assert reproduce.counted_again("cpu")[0].got == "training_search.json"


def test_every_number_has_a_tolerance():
    assert all(headlines.Headline("a-b", "x", "a", **settings) for settings in recount.TOLERANCES.values())
