"""The choice of polynomials: by errors at left-out points, as few as serve."""

import pytest
import torch

import neumatc as nm
from neumatc import lowrank, polynomials


def chosen(values, d, count=400, tail=0.0):
    x, weights = nm.sampling.design(count, d)
    return polynomials.choose(x, weights, values(x), tail)


def bump(x):
    return torch.exp(torch.sin(3 * x.sum(dim=1, keepdim=True)))


def waves(x):
    return torch.cos(9 * x @ x.new_tensor([[1.0, 0.3, 0.7], [0.2, -1.0, 0.7]]))


def pole(x):
    return 1 / (3 + x[:, :1]) / (3 - x[:, 1:])


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_expected_error_is_that_of_fits_that_leave_out_one_point_each(d):
    x, weights = nm.sampling.design(40, d)
    Y = bump(x)
    best, expected = polynomials.choose(x, weights, Y)
    psi, total = best.features(x, {}), 0.0
    for i in range(len(x)):
        others = torch.arange(len(x)) != i
        W, b = lowrank.ridge(psi[others], Y[others], weights[others], 1e-15)
        total += float(weights[i] * (psi[i] @ W + b - Y[i]).square().sum())
    assert expected == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("values", [bump, waves, pole])
def test_no_rival_predicts_new_points_much_better(values):
    x, weights = nm.sampling.design(200, 2)
    fresh = 2 * torch.rand(1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1

    def error(embedding):
        W, b = lowrank.ridge(embedding.features(x, {}), values(x), weights, 1e-15)
        return float((embedding.features(fresh, {}) @ W + b - values(fresh)).square().mean().sqrt())

    best, _ = polynomials.choose(x, weights, values(x))
    rivals = [nm.Chebyshev(degree, stretch=a) for degree in range(1, 13) for a in (0.95, 0.8, 0.0)]
    assert error(best) <= max(2 * min(map(error, rivals)), 1e-12)


def test_polynomials_are_stretched_for_oscillations_and_not_near_poles():
    assert chosen(waves, 2)[0].stretch > 0
    assert chosen(pole, 2)[0].stretch == 0


def around(x):
    """Analytic around the first axis, and along the second."""
    return (1 / (1.3 - torch.cos(torch.pi * x[:, :1] - 1))) * torch.exp(x[:, 1:])


def test_waves_are_taken_on_periodic_axes_where_they_predict_better():
    x, weights = nm.sampling.design(400, 2)
    best, error = polynomials.choose(x, weights, around(x), periodic=(True, False))
    assert best.periodic == (True, False)
    assert error < polynomials.choose(x, weights, around(x))[1]
    # What is not periodic, although it is said to be, is left to polynomials.
    ramp = x[:, :1] + 0 * x[:, 1:]
    assert not polynomials.choose(x, weights, ramp, periodic=(True, False))[0].periodic


def test_fewer_polynomials_where_the_rank_leaves_more_out():
    assert chosen(waves, 2, tail=1e-4)[0].degree < chosen(waves, 2)[0].degree


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_points_give_the_lowest_degree(count):
    assert chosen(bump, 3, count)[0] == nm.Chebyshev(1)


def test_points_of_equal_steps_take_no_degree_that_runs_away():
    x = torch.linspace(-1, 1, 60, dtype=torch.float64)[:, None]
    best, _ = polynomials.choose(x, torch.full((60,), 1 / 60, dtype=torch.float64), 1 / (1.2 + x))
    fine = torch.linspace(-1, 1, 1001, dtype=torch.float64)[:, None]
    W, b = lowrank.ridge(best.features(x, {}), 1 / (1.2 + x), torch.full((60,), 1 / 60, dtype=torch.float64), 1e-15)
    assert (best.features(fine, {}) @ W + b - 1 / (1.2 + fine)).abs().max() < 1e-3


def test_values_of_many_columns_are_judged_alike():
    x, weights = nm.sampling.design(150, 2)
    many = waves(x).repeat(1, 100)
    best, error = polynomials.choose(x, weights, many)
    expected, once = polynomials.choose(x, weights, waves(x))
    assert best.stretch == expected.stretch and abs(best.degree - expected.degree) <= 1
    assert error == pytest.approx(100 * once, rel=1)
