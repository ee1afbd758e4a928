"""The last good timings: what takes the place of those that were refused, and what does not."""

import math

import pytest

from studies import last_good, provenance
from studies.provenance import Record

NAN = [math.nan] * 3


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """An empty folder in the place of the repository."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    monkeypatch.setattr(provenance, "root", lambda: tmp_path)
    return tmp_path


def conditions(refused="", day="2026-11-01"):
    return {
        "refused": refused,
        "date": f"{day}T10:00:00+00:00",
        "rounds": 5,
        "attempts": 1,
        "threads": 2,
        "processor": "Some CPU",
        "load_before": 0.1,
        "load_during": 0.02,
    }


def saved(ratio, error, **told):
    """A run at cpu of a chapter with one timing, and one that is two levels down."""
    record = Record("chapter", profile="cpu", device="cpu", seed=0)
    record.numbers |= {
        "speed": {"faster": {"loop": ratio}, "error": error, "conditions": conditions(**told)},
        "races": [{"ratio": ratio, "conditions": conditions(**told)}],
        "size": 3,
    }
    record.save()
    return provenance.load("chapter", "cpu")


def test_refused_timings_are_replaced_and_nothing_else():
    saved([1.0, 2.0, 3.0], error=0.5)
    path = last_good.keep("chapter")
    assert path.name == "chapter_timings.json"
    found = last_good.fill(saved(NAN, error=0.25, refused="other work", day="2026-11-28"))
    assert found.numbers["speed"]["faster"]["loop"] == [1.0, 2.0, 3.0]
    assert found.numbers["races"][0]["ratio"] == [1.0, 2.0, 3.0]
    assert found.numbers["speed"]["conditions"] == conditions()
    assert (found.numbers["speed"]["error"], found.numbers["size"]) == (0.25, 3)


def test_good_timings_stay():
    saved([1.0, 2.0, 3.0], error=0.5)
    last_good.keep("chapter")
    record = saved([4.0, 5.0, 6.0], error=0.5, day="2026-11-28")
    assert last_good.fill(record) is record


def test_without_published_timings_the_page_says_that_there_are_none():
    record = last_good.fill(saved(NAN, error=0.25, refused="other work took 50%"))
    assert math.isnan(record.numbers["speed"]["faster"]["loop"][1])
    (row,) = last_good.table(record, speed="the map", size="nothing").rows
    assert row[0] == "the map" and "No timing could be taken here on 2026-11-01 (other work took 50%)" in row[1]


def test_another_page_shows_the_times_of_the_chapters_own_page():
    saved([1.0, 2.0, 3.0], error=0.5)
    last_good.keep("chapter")
    later = saved([4.0, 5.0, 6.0], error=0.5, day="2026-11-28")
    assert last_good.shown("chapter", "cpu").numbers == later.numbers
    assert last_good.shown("chapter", "smoke").numbers["speed"]["faster"]["loop"] == [1.0, 2.0, 3.0]
    saved(NAN, error=0.25, refused="other work")
    assert last_good.shown("chapter", "cpu").numbers["races"][0]["ratio"] == [1.0, 2.0, 3.0]
    provenance.run_path("chapter", "cpu").with_suffix(".json").unlink()
    assert last_good.shown("chapter", "cpu").numbers["speed"]["faster"]["loop"] == [1.0, 2.0, 3.0]


def test_refused_timings_are_not_kept():
    saved(NAN, error=0.25, refused="other work took 50%")
    with pytest.raises(ValueError, match="chapter: expected a timing that is good.*idle machine"):
        last_good.keep("chapter")


def test_a_run_that_is_refused_in_part_keeps_what_was_good_before():
    saved([1.0, 2.0, 3.0], error=0.5)
    last_good.keep("chapter")
    record = saved([4.0, 5.0, 6.0], error=0.5, day="2026-11-28")
    record.numbers["races"][0] = {"ratio": NAN, "conditions": conditions("too busy")}
    record.write(provenance.run_path("chapter", "cpu"))
    last_good.keep("chapter")
    kept = provenance.load("chapter_timings").numbers
    assert kept["speed"]["faster"]["loop"] == [4.0, 5.0, 6.0]
    assert kept["races"][0]["ratio"] == [1.0, 2.0, 3.0]
    assert "size" not in kept


def test_timings_of_full_size_never_stand_for_those_of_a_test():
    saved([1.0, 2.0, 3.0], error=0.5)
    last_good.keep("chapter")
    record = Record("chapter", profile="smoke", device="cpu", seed=0)
    record.numbers["speed"] = {"faster": {"loop": NAN}, "conditions": conditions("other work")}
    assert last_good.fill(record) is record
