"""Verdicts on times: their words follow from the quartiles, and nothing is said of times that were refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import neumatc as nm
from studies import (
    benchmark,
    beyond_the_inverse,
    load,
    own_matrices,
    provenance,
    texts,
    to_the_limit,
    wireless_inversion,
)
from studies.load import Load

positive = st.floats(0.01, 100)
CONDITIONS = {
    "refused": "other work took 50%",
    "date": "2026-11-28T10:00:00+00:00",
    "rounds": 5,
    "threads": 2,
    "attempts": 3,
    "processor": "Some CPU",
    "load_before": 4.0,
    "load_during": 0.5,
}
VERDICTS = ("as fast", "as long", "faster", "slower", "pays", "dearer", "cheaper", "longer", "more than", "less than")


@given(st.lists(positive, min_size=3, max_size=3).map(sorted))
def test_a_verdict_needs_the_whole_spread_on_one_side(ratio):
    """With the digits that a reader sees."""
    word = texts.side(ratio, "faster", "slower", "even")
    lower, _, upper = (float(texts.times(x).replace(",", "")) for x in ratio)
    assert (word == "faster") == (lower > 1) and (word == "slower") == (upper < 1)


@given(st.lists(positive, min_size=3, max_size=9), st.lists(positive, min_size=3, max_size=9))
def test_what_is_faster_is_not_slower_the_other_way_round(slow, fast):
    rounds = min(len(slow), len(fast))
    timings = benchmark.Timings({"a": tuple(slow[:rounds]), "b": tuple(fast[:rounds])}, {"refused": ""})
    words = [texts.side(timings.ratio(*pair), "faster", "slower", "even") for pair in (("a", "b"), ("b", "a"))]
    assert "faster" not in words or words.count("faster") == 1


@pytest.fixture
def glued(monkeypatch):
    """What a study glues, by key."""
    found = {}
    monkeypatch.setattr(provenance, "glue", found.__setitem__)
    return found


def entries(ratio, refused):
    names = ("map", "fit and map")
    conditions = CONDITIONS | {"refused": refused}
    return {"A30": {"conditions": conditions, "faster": {"Sionna": dict.fromkeys(names, ratio)}}}


def test_the_sentences_of_a_chapter_follow_its_record(glued):
    beyond_the_inverse.glue_verdicts("bi", entries([1.2, 1.5, 1.9], ""), {"sionna": "Sionna"})
    alone = "After the fit the map alone is 1.5 (1.2 to 1.9) times as fast on CDL-A at 30 ns."
    assert glued["bi-verdict-sionna-map"] == alone
    beyond_the_inverse.glue_verdicts("bi", entries([0.9, 1.5, 1.9], ""), {"sionna": "Sionna"})
    together = "Fit and map together are about as fast on CDL-A at 30 ns, 1.5 (0.9 to 1.9) times."
    assert glued["bi-verdict-sionna-with"] == together


def test_refused_times_give_no_verdict(glued):
    beyond_the_inverse.glue_verdicts("bi", entries(list(benchmark.UNKNOWN), "other work"), {"sionna": "Sionna"})
    assert glued["bi-timed"].startswith("No timing could be taken here on 2026-11-28 (other work)")
    assert glued["bi-verdict-sionna-map"] == glued["bi-verdict-sionna-with"] == texts.UNTOLD


def test_a_table_on_a_loaded_machine_has_errors_and_counts_and_no_times(monkeypatch):
    monkeypatch.setattr(load.Watch, "load", lambda self, wait=True: Load(9.0, 0.9))
    problem = nm.Problem(nm.families.trigonometric(4, shift=3, dtype=torch.float64), nm.Inverse())
    peer = nm.peers.chebyshev(problem, 8)
    record = provenance.Record("x", profile="smoke", device="cpu", seed=0)
    ((way, solves, error, *times),) = own_matrices.weigh(record, "case", problem, {"peer": peer}).rows
    assert (way, solves) == ("peer", "8") and 0 < float(error) < 1
    assert times == [texts.UNTIMED] * 2


def test_no_verdict_of_the_limit_stands_without_times(glued):
    unknown = list(benchmark.UNKNOWN)
    names = [*to_the_limit.SOLVERS, "cubic spline", "Chebyshev"]
    entry = {
        "over_closed": dict.fromkeys(names, unknown),
        "over_closed_with_fit": dict.fromkeys(names, unknown),
        "fit_over_closed": dict.fromkeys(["cubic spline", "POD and spline"], unknown),
    }
    record = provenance.Record("x", profile="smoke", device="cpu", seed=0, numbers={"cdl_a": entry, "cdl_c": entry})
    to_the_limit.glue_cost_verdicts(record)
    assert glued and set(glued.values()) == {"not timed"}
    assert not any(word in text for word in VERDICTS for text in glued.values())


@pytest.mark.parametrize(
    ("apart", "said"),
    [(250.0, "250 to 300 matrices"), (304.0, "300 matrices"), (math.nan, texts.matrices(benchmark.UNKNOWN))],
)
def test_a_break_even_is_said_by_both_ways_of_timing(apart, said):
    found = {"closed_break_even": {"e": [apart] * 3}, "together_break_even": {"e": [300.0] * 3}}
    assert to_the_limit.even(found, "e") == wireless_inversion.even(found, "e") == said


def test_fit_and_evaluation_in_one_call_pay_round_by_round():
    """Exact 1 s for 100 matrices, an evaluation 0.5 s, with its fit 2 s: 1.5 s / (0.5 s / 100) = 300."""
    seconds = {"exact": (1.0, 1.0, 1.0), "map": (0.5, 0.5, 1.2), "both": (2.0, 2.0, 2.5)}
    timings = benchmark.Timings(seconds, {"refused": ""})
    assert timings.break_even("both", "exact", "map", 100, instead="map") == (300.0, 300.0, math.inf)


def test_what_costs_no_more_than_the_other_way_pays_from_the_first_matrix():
    """A pass that takes less time than an evaluation, which noise makes of a building of a millisecond."""
    seconds = {"exact": (1.0, 1.0, 1.0), "map": (0.5, 0.5, 0.5), "both": (0.49, 0.4, 0.6)}
    timings = benchmark.Timings(seconds, {"refused": ""})
    assert timings.break_even("both", "exact", "map", 100, instead="map").lower == 0.0


@pytest.mark.parametrize(
    ("work", "said"),
    [((0.001, 0.004), "other work 0 %"), ((0.001, 0.02), "other work at most 2 %"), ((0.02,), "other work 2 %")],
)
def test_the_load_that_is_said_has_no_limit_where_there_was_none(work, said):
    found = texts.conditions(*(CONDITIONS | {"refused": "", "load_during": share} for share in work))
    assert f"{said} of the processor" in found and "too much" not in found


@pytest.mark.parametrize(
    ("wild", "said"), [(["loop"], 'the time of "loop"'), (["a, c", "b"], 'the times of "a, c" and "b"')]
)
def test_what_spread_too_much_is_named(wild, said):
    one = CONDITIONS | {"refused": "", "unsteady": wild}
    assert texts.conditions(one, one).endswith(f" For some of them {said} varied too much to be published.")
    assert texts.conditions(one).endswith(f". T{said[1:]} varied too much to be published.")


def test_errors_that_read_alike_are_said_once():
    assert texts.between(0.38, 0.42) == "all 0.4" and texts.between(0.01, 1) == "from 0.01 to 1"


def test_what_was_not_timed_takes_nothing():
    assert f"Training {texts.as_long(benchmark.UNKNOWN, 'a fit')}." == "Training was not timed."


def test_a_verdict_is_the_end_of_a_sentence():
    fast, even, unknown = (2.0, 2.2, 2.3), (0.9, 1.1, 1.3), tuple(benchmark.UNKNOWN)
    found = texts.verdict({"A": even, "B": fast, "C": unknown, "D": even, "E": fast})
    assert found == (
        "2.2 (2.0 to 2.3) times as fast on B and 2.2 (2.0 to 2.3) times on E; "
        "about as fast on A, 1.1 (0.9 to 1.3) times and on D, 1.1 (0.9 to 1.3) times; not timed: C"
    )


def test_break_even_points_are_words():
    assert texts.matrices((150, 200, math.inf)) == "200 (150 to never) matrices"
