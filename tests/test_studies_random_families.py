"""The study of random families: what it draws suits the operations, and a sample of the fits keeps the bars."""

import pytest

import neumatc as nm
from studies import random_families
from studies.random_families import KINDS, SORTS, Outcome, sample

# Families of the smoke run, their largest size, and the fresh parameters at which each fit is judged.
COUNT, SIZE, FRESH = 12, 10, 1000
ALL = range(len(KINDS) * len(SORTS))


def test_every_kind_meets_every_operation():
    assert {random_families.pair(i, 0) for i in ALL} == {(kind, sort) for kind in KINDS for sort in SORTS}


@pytest.mark.parametrize("sort", SORTS)
def test_exact_solutions_of_what_is_drawn_exist(sort):
    drawn = [sample(i, size=SIZE) for i in ALL if random_families.pair(i, 0)[1] == sort]
    for s in drawn:
        p = s.fresh(8)
        solution = s.problem.exact(p)
        assert not solution.failed.any()
        assert s.problem.residual(p, solution.value).max() < 0.1 * s.tol


def test_fresh_parameters_are_uniform_on_the_scales_of_the_box():
    s = next(s for s in map(sample, ALL) if s.log)
    p = s.fresh(2000)[:, 0].double()
    low, up = s.problem.family.lower[0], s.problem.family.upper[0]
    assert ((p >= low) & (p <= up)).all()
    assert abs(float((p < (low * up).sqrt()).double().mean()) - 0.5) < 0.05


@pytest.mark.parametrize(
    ("met", "failing", "outside", "offends"),
    [(True, 0.01, 0.0, False), (True, 0.03, 0.0, True), (False, 0.5, 0.01, False), (False, 0.5, 0.4, True)],
)
def test_a_report_offends_where_it_names_nothing(met, failing, outside, offends):
    assert Outcome(sample(0), met, failing, outside, 0.5, 9, 0.1, True, "").offends == offends


def test_a_fit_that_raises_counts_as_one_that_fails(monkeypatch):
    def raising(*_, **__):
        raise IndexError("no")

    monkeypatch.setattr(nm, "fit", raising)
    found = random_families.judged(sample(1))
    assert found.offends
    assert found.note == "IndexError: no"


@pytest.mark.slow
def test_reports_of_a_sample_keep_the_bars():
    outcomes = random_families.run(range(COUNT), fresh=FRESH, size=SIZE)
    kept = random_families.kept(outcomes)
    assert all(kept.values()), "\n".join(["", random_families.table(outcomes), str(kept), *map(str, outcomes)])
