"""The chapter on frequency and time: its tables, figures and words, from rows that are made up here."""

import copy
import math

import pytest

from studies import figures, slots
from studies import frequency_and_time as study
from studies.provenance import Record, load

FAST, SLOW, UNKNOWN = [3.0, 4.0, 5.0], [0.4, 0.5, 0.6], [math.nan] * 3


def fitted(name, **others):
    return {"name": name, "threads": 1, "tol": 0.1, "count": 45864, "solves": 70, "pieces": 2, "terms": 32} | others


@pytest.fixture
def record():
    """A record in which a map wins at short delays and loses at long ones."""
    numbers = {"slot": [], "tolerance": [], "frame": [], "near_far": [], "line_of_sight": []}
    for task in slots.TASKS:
        exact = "Gram" if "SVD" in task else "Cholesky"
        for omni in (False, True):
            for spread in slots.SPREADS:
                own = {exact: FAST if spread < 1e-7 else SLOW, "held": SLOW, "met": True}
                own |= {} if exact == "Gram" else {"Sionna": FAST}
                own |= {"lost": 1e-5, "lost, held": spread * 2e3, "held solves": 3822}
                own |= {"again": FAST, "solves again": 60}
                own |= {"still": SLOW, "lost, still": 1e-4, "still solves": 3276, "holds time": spread < 1e-7}
                own |= {"both": SLOW, "lost, both": spread * 5e3, "both solves": 273}
                own |= {"linear": SLOW, "lost, linear": spread * 4e3, "linear solves": 274}
                own |= {f"{a} beside {b}": FAST for a, b in (("still", "held"), ("both", "still"), ("linear", "still"))}
                name = f"{task}, {1e9 * spread:g} ns, {'omni' if omni else 'directional'}"
                numbers["slot"].append(fitted(name, task=task, spread=spread, omni=omni, **own))
    for spread in slots.SPREADS[:3]:
        for tol in slots.TOLERANCES:
            own = {"spread": spread, "lost": tol * 1e-5, "lost, held": 1e-3, "held solves": 3822, "met": True}
            numbers["tolerance"].append(fitted("LMMSE", **own) | {"tol": tol})
    for (task, spread), (tol, _) in slots.FRAMES.items():
        own = {
            "task": task,
            "spread": spread,
            "tol": tol,
            "error": 9e-4,
            "memory": 0.2,
            "fits": 1,
            "met": "SVD" not in task or spread < 1e-7,
            "lost": 1e-5,
        }
        own |= {"Gram" if "SVD" in task else "Cholesky": SLOW, "NumPy loop": FAST, "over a copy": FAST}
        own |= {"linear": SLOW, "linear step": 4, "linear error": 5e-4, "linear lost": 1e-7}
        own |= {"held": SLOW, "held error": 3e-2, "held lost": 1e-4}
        numbers["frame"].append(fitted(f"{task}, {1e9 * spread:g} ns", **own))
    rates = {"gains": 44.0, "weakest rate": 0.3, "sum": 0.999, "weakest": 0.995, "worst": 0.995}
    numbers["near_far"] = [fitted(name, **rates) | {"solves": 900, "count": 3276} for name in ("drop 1", "the case")]
    numbers["line_of_sight"] = [fitted("CDL-D", step=1.2, apart=0.9, lost=1e-5)]
    own = {"levels": 41, "lost": 3e-4, "largest lost": 8e-4, "seconds": FAST, "met": True}
    numbers["noise"] = [fitted("noise", **own)]
    return Record("frequency_and_time", profile="cpu", device="cpu", seed=0, numbers=numbers)


def untimed(record):
    """The same record where every time was refused."""
    changed = copy.deepcopy(record)
    for row in [row for rows in changed.numbers.values() for row in rows]:
        row |= {key: UNKNOWN for key, value in row.items() if isinstance(value, list)}
    return changed


TABLES = ("slot_table", "held_table", "frame_table", "near_far_table", "line_of_sight_table", "paper_table")


@pytest.mark.parametrize("name", TABLES)
def test_tables_show_every_row(record, name):
    rows = getattr(study, name)(record).rows
    key = name.removesuffix("_table").replace("held", "slot")
    assert len(rows) == (2 if key == "paper" else len(record.numbers[key]))
    assert len(getattr(study, name)(untimed(record)).rows) == len(rows)


def test_the_table_of_slots_names_what_is_not_met(record):
    record.numbers["slot"][0]["met"] = False
    first, second, *_ = study.slot_table(record).rows
    assert first[0] == "LMMSE 64 x 8, 30 ns: not met" and second[0] == "LMMSE 64 x 8, 100 ns"
    assert first[3] == "4.0 (3.0 to 5.0)" and second[3] == "0.5 (0.4 to 0.6)"


@pytest.mark.parametrize("name", ["slot_figure", "rate_figure", "tolerance_figure"])
def test_figures_can_be_read(record, name):
    figures.style()
    assert figures.faults(getattr(study, name)(record)) == []


def test_a_figure_of_refused_times_is_not_drawn(record, capsys):
    study.slot_figure(untimed(record))
    assert figures.UNDRAWN in capsys.readouterr().out


def test_what_is_said_of_times_follows_from_their_quartiles(record):
    found, unknown = dict(study.lines(record)), dict(study.lines(untimed(record)))
    assert found["ft-tally"].startswith("faster in 6 of 24 problems and slower in 18")
    assert found["ft-still-tally"].startswith("slower in 24 of 24 problems")
    assert "about as fast" not in found["ft-eight"] and "4.0 (3.0 to 5.0) times as fast on 30 ns" in found["ft-eight"]
    assert found["ft-both-tally"] == found["ft-still-tally"] and unknown["ft-both-tally"] == "not timed"
    assert unknown["ft-tally"] == "not timed" and unknown["ft-eight"].startswith("No time is published")
    assert set(found) == set(unknown)
    same = {key for key in found if found[key] == unknown[key]}
    assert {"ft-matrices", "ft-drops-sum", "ft-step", "ft-noise-lost"} <= same, "counts and rates hang on no clock"


def test_what_to_hold_follows_from_the_rows(record):
    told = study.to_hold(record)
    assert "loses less than one for each block and symbol in 18 of 24 slots" in told, "at 30 ns it loses more"
    assert "273 solves, loses less than a thousandth of the rate at 30 ns for every task; at 100 ns for every" in told
    assert "300 ns for" not in told and "it is, there, faster in 12 of 12 problems" in told
    assert "it is not timed" in study.to_hold(untimed(record))
    rows = [row for row in record.numbers["slot"] if row["spread"] < 2e-7]
    for row in rows:
        row["lost, both"] = 2e-3
    assert "or more, at every delay spread" in study.to_hold(record)
    rows[0]["lost, both"] = 2e-4  # the omnidirectional users of this task still lose too much
    assert "or more, at every delay spread" in study.to_hold(record)
    rows[2]["lost, both"] = 2e-4
    assert (
        "at 30 ns for LMMSE 64 x 8, with directional users and with omnidirectional ones. At 10 dB over the array it "
        "is enough there" in study.to_hold(record)
    )


def test_the_peers_of_a_frame_are_told_or_their_lack(record):
    rows = [row for row in record.numbers["frame"] if "SVD" in row["task"]]
    assert "4 symbols (30 ns) and 4 symbols (100 ns) their error is at most 0.0005" in study.linear_told(rows)
    assert study.linear_told(rows).endswith("times on 100 ns.")
    del rows[1]["linear"]
    assert "4 symbols (30 ns) their error" in study.linear_told(rows)
    assert study.linear_told(rows).endswith("On 100 ns no step that was tried keeps that error.")
    del rows[0]["linear"]
    assert study.linear_told(rows) == "On 30 ns and 100 ns no step that was tried keeps that error."


def test_triplets_that_miss_their_tolerance_are_named(record):
    assert "Of SVD 16 x 64, 100 ns some fits miss" in dict(study.lines(record))["ft-frame-svd-told"]
    record.numbers["frame"][-1]["met"] = True
    assert dict(study.lines(record))["ft-frame-svd-told"].startswith("Every fit of triplets meets its tolerance")
    record.numbers["frame"][-1]["error"] = 2e-3
    with pytest.raises(AssertionError):
        study.check(record)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("slot", {"met": False}),
        ("slot", {"lost": 2e-3}),
        ("long", {"lost": 1.0}),
        ("slot", {"lost, still": 2e-3}),
        ("slot", {"lost, both": 2e-3}),
        ("every", {"lost, held": 1e-6}),
        ("frame", {"linear error": 2e-3}),
        ("frame", {"linear lost": 2e-3}),
        ("frame", {"error": 2e-3}),
        ("frame", {"lost": 2e-3}),
        ("near_far", {"weakest": 0.98}),
        ("near_far", {"solves": 10}),
        ("line_of_sight", {"step": 1.6}),
        ("noise", {"largest lost": 2e-3}),
        ("tolerance", {"lost": 1e-2}),
    ],
)
def test_a_record_that_refutes_the_text_stops_the_build(record, key, change):
    study.check(record)
    rows = {"long": record.numbers["slot"][2:3], "every": record.numbers["slot"]}
    for row in rows.get(key) or record.numbers[key][:1]:
        row |= change
    with pytest.raises(AssertionError):
        study.check(record)


def test_the_published_record_holds_what_the_text_says():
    study.check(load("frequency_and_time"))
