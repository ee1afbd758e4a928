"""Sampling: designs in the box, their quadrature and their stretch."""

import math

import pytest
import torch
from conftest import assert_raises

from neumatc import sampling


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_designs_lie_in_the_box(count, d, dtype, device):
    lower = torch.linspace(-1, 3e9, d, dtype=dtype, device=device)
    upper = lower + 0.5 + lower.abs()
    design = sampling.sobol(count, lower, upper, seed=3)
    assert design.shape == (count, d)
    assert (design.dtype, design.device) == (dtype, lower.device)
    assert ((design >= lower) & (design <= upper)).all()
    assert torch.equal(sampling.sobol(count, lower, upper, seed=3), sampling.sobol(count, lower, upper, seed=3))
    assert not torch.equal(sampling.sobol(count, lower, upper, seed=3), sampling.sobol(count, lower, upper, seed=4))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_sobol_is_far_more_even_than_random_points(d):
    lower, upper = torch.zeros(d, dtype=torch.float64), torch.ones(d, dtype=torch.float64)
    x = sampling.sobol(256, lower, upper)
    for k in range(d):  # one point in each of 256 equal intervals, in every direction
        assert torch.equal((x[:, k] * 256).floor().long().sort().values, torch.arange(256))


# Designs for snapshots


@pytest.mark.parametrize("count", [1, 2, 3, 8, 17, 64])
def test_fejers_rule_is_exact_up_to_its_degree(count):
    x, weights = sampling.design(count, 1)
    assert x.shape == (count, 1) and (weights > 0).all()
    for degree in range(count):
        mean = 0.0 if degree % 2 else 1 / (degree + 1)  # of x^degree over [-1, 1]
        assert abs(float(weights @ x[:, 0] ** degree) - mean) < 1e-14


@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_nodes_of_a_period_are_equidistant_and_exact_for_its_waves(count):
    x, weights = sampling.design(count, 1, periodic=True)
    assert torch.allclose(torch.cat([x[:, 0].diff(), 1 + x[0] - x[-1] + 1]), torch.tensor(2 / count).double())
    for k in range(count):
        assert abs(complex(weights.to(torch.complex128) @ torch.exp(1j * torch.pi * k * x[:, 0])) - (k == 0)) < 1e-14


@pytest.mark.parametrize("stretch", [0.5, 0.9, 0.99])
def test_stretched_nodes_integrate_and_are_nearer_to_equal_spacing(stretch):
    x, weights = sampling.design(64, 1, stretch=stretch)
    assert (x.abs() < 1).all() and (weights > 0).all()
    assert abs(float(weights.sum()) - 1) < 1e-14
    assert abs(float(weights @ torch.cos(3 * x[:, 0])) - math.sin(3) / 3) < max(
        1e-13, 2 * stretched_rate(stretch) ** -64
    )
    gaps, plain = -x[:, 0].diff(), -sampling.design(64, 1)[0][:, 0].diff()
    assert gaps.max() < plain.max() and gaps.min() > plain.min()


def stretched_rate(stretch):
    """Sum of the half-axes of the ellipse through the branch points at 1 / a."""
    return (1 + math.sqrt(1 - stretch**2)) / stretch


@pytest.mark.parametrize("accuracy", [1e-6, 1e-15])
@pytest.mark.parametrize("count", [1, 8, 64, 1000])
def test_the_widest_stretch_has_the_rate_for_its_accuracy(count, accuracy):
    stretch = sampling.widest_stretch(count, accuracy)
    assert 0 < stretch < 1
    if stretch > 1e-6:  # else the rate is lost in rounding
        assert math.isclose(count * math.log(stretched_rate(stretch)), -math.log(accuracy), rel_tol=1e-6)


def test_stretches_out_of_range_are_refused():
    for make, words in (
        (lambda: sampling.design(8, 1, stretch=1.0), ["`stretch`", "below 1", "1.0"]),
        (lambda: sampling.widest_stretch(0, 1e-6), ["`count`", "at least 1", "got 0"]),
        (lambda: sampling.widest_stretch(8, 1.0), ["`accuracy`", "below 1", "1.0"]),
    ):
        assert_raises(ValueError, words, make)


@pytest.mark.parametrize("dimension", [2, 3, 4])
def test_scattered_designs_integrate(dimension):
    x, weights = sampling.design(4096, dimension, seed=1)
    assert x.shape == (4096, dimension) and (x.abs() <= 1).all() and (weights > 0).all()
    assert abs(float(weights.sum()) - 1) < 1e-12
    mean = float(weights @ torch.cos(x).prod(dim=1))
    assert abs(mean - math.sin(1) ** dimension) < 2e-3
    at_the_faces = float((x.abs() > 0.9).double().mean())
    assert at_the_faces > 0.12
