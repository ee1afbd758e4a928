"""Samples: joined, masked, made distinct and compressed as one value."""

import pytest
import torch
from conftest import assert_close, gaussian, singular_where

import neumatc as nm
from neumatc.samples import Samples, compressed, solved


def some(count, seed=0, dtype=torch.float64):
    x, weights = nm.sampling.design(count, 2, seed)
    return Samples(x, weights, (gaussian(count, 3, 4, dtype=dtype, seed=seed), gaussian(count, 2, dtype=dtype)))


def test_joined_samples_weigh_as_many_as_each_has():
    a, b = some(5), some(15, 1)
    joined = a + b
    assert len(joined) == 20
    assert_close(joined.weights, torch.cat([a.weights / 4, 3 * b.weights / 4]))
    assert torch.equal(joined.factors[1], torch.cat([a.factors[1], b.factors[1]]))


def test_masked_samples_keep_their_proportions():
    a, kept = some(9), torch.arange(9) % 3 == 0
    part = a[kept]
    assert torch.equal(part.x, a.x[kept]) and torch.equal(part.factors[0], a.factors[0][kept])
    assert_close(part.weights * a.weights[kept].sum(), a.weights[kept])


def test_polynomials_that_interpolate_serve_all_points_or_none():
    x, weights = nm.sampling.design(7, 1)
    samples = Samples(x, weights, (x,), nm.Chebyshev(6))
    assert samples[torch.ones(7, dtype=torch.bool)].space == nm.Chebyshev(6)
    assert samples[torch.arange(7) > 0].space is None


def test_distinct_keeps_the_first_of_each_point():
    a = some(4)
    twice = (a + a).distinct()
    assert torch.equal(twice.x, a.x) and torch.equal(twice.factors[0], a.factors[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_a_full_subspace_reproduces_the_samples(dtype):
    a = some(6, dtype=dtype)
    (subspace,) = compressed([a], 0, 6)
    expected = (torch.view_as_real(a.factors[0]) if dtype.is_complex else a.factors[0]).flatten(1)
    assert_close((subspace.coefficients @ subspace.C.double()).to(expected.dtype), expected, units=200)


def test_truncation_in_two_steps_is_truncation_in_one():
    a = some(12)
    (once,), (more,) = compressed([a], 0, 3), compressed([a], 0, 8)
    twice = more.truncated(3)
    assert_close(twice.coefficients @ twice.C, once.coefficients @ once.C, units=1e4)
    assert twice.tail == pytest.approx(once.tail)


def test_what_cannot_be_solved_is_left_out_and_reported():
    problem = singular_where(lambda p: p > 0.5)
    report = nm.Report("Test", {}, 1, 0)
    task = nm.Task(problem, 1, None, None, None, torch.Generator(), report, False)
    x, weights = nm.sampling.design(8, 1)
    (samples,) = solved([task], Samples(x, weights))
    assert len(samples) == 4 and (samples.x <= 0).all()
    assert report.exact_solves == 8 and len(report.singular) == 4
    assert "4 of 8 exact solves failed" in report.message
    assert_close(samples.factors[0], problem.exact(task.box(samples.x)).value)
