"""Continuation: which strategy, by counts of operations, and what it adds."""

import pytest
import torch

import neumatc as nm
from neumatc import continuation
from neumatc.samples import Samples, solved

NEWTON, LEAST_RESIDUAL, INTERPOLATE = (True, True), (False, True), (False, False)


def task_of(operation, size=8, d=2, rank=8, budget=None):
    family = nm.families.trigonometric(size, 3, 4.0, dimension=d, cycles=0.3, dtype=torch.float64)
    report = nm.Report("Test", {}, rank, 0)
    return nm.Task(
        nm.Problem(family, operation), rank, None, budget, None, torch.Generator().manual_seed(0), report, False
    )


def points(count, d=2, space=None):
    x, weights = nm.sampling.design(count, d)
    return Samples(x, weights, space=space)


@pytest.mark.parametrize(
    ("operation", "size", "expected"),
    [
        (nm.Inverse(), 8, NEWTON),
        (nm.Inverse(), 512, LEAST_RESIDUAL),  # a sketch costs less than a product
        (nm.LMMSE(0.1), 8, LEAST_RESIDUAL),
        (nm.SVD(2), 8, INTERPOLATE),  # no linear system
    ],
    ids=str,
)
def test_the_strategy_of_fewest_operations(operation, size, expected):
    newton, count = continuation.choose(task_of(operation, size), points(32), None)
    assert (newton, count > 0) == expected


def test_points_of_one_parameter_that_interpolate_need_no_more():
    task = task_of(nm.Inverse(), d=1)
    assert continuation.choose(task, points(32, 1, nm.Chebyshev(31)), None) == (False, 0)
    assert continuation.choose(task, points(32, 1), None)[0]


def test_the_caller_decides_the_number():
    task = task_of(nm.Inverse())
    assert continuation.choose(task, points(32), 5) == (True, 5)
    assert continuation.choose(task, points(32), 0) == (False, 0)


@pytest.mark.parametrize("budget", [None, 400])
@pytest.mark.parametrize(("size", "rank", "count"), [(12, 200, 400), (64, 72, 160)])
def test_what_costs_far_more_than_the_solves_that_it_replaces_is_left_out(size, rank, count, budget):
    """Many directions in small systems: many times the operations of an exact solve, and a budget is no excuse."""
    task = task_of(nm.LMMSE(0.1), size=size, rank=rank, budget=budget)
    assert continuation.choose(task, points(count), None) == (False, 0)


def test_newton_adds_solutions_to_rounding():
    task = task_of(nm.Inverse())
    (samples,) = solved([task], points(30))
    mean = samples.factors[0].mean(dim=0)
    more = continuation.newton(task, samples, lambda x: mean.expand(len(x), -1, -1), 50)
    assert len(more) == 80
    p = task.box(more.x)
    assert task.problem.residual(p, more.factors[0]).max() < 1e-12
    assert task.report.exact_solves == 30
