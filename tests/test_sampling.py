"""Sampling: designs in the box, and a failure probability that is unbiased on regions whose volume is known."""

import math

import numpy as np
import pytest
import torch
from conftest import assert_raises, generator

from neumatc import sampling
from neumatc.sampling import FailureInformedSampling

SEEDS = {1: 150, 2: 100, 3: 40}  # by dimension: fewer where one estimate costs more
SMALL = FailureInformedSampling(candidates=60, samples=120, stages=3)


def ball(centre, radius):
    """Residual above 1 inside of a ball, falling smoothly away from it."""
    centre = torch.as_tensor(centre, dtype=torch.float64)
    return lambda x: torch.exp(radius - (x - centre).norm(dim=1))


def corner(d, radius):
    """Ball around the origin: inside the unit cube lies the fraction 2^-d of it."""
    volume = math.pi ** (d / 2) / math.gamma(d / 2 + 1) * radius**d
    return ball([0.0] * d, radius), volume / 2**d


def two_intervals(x):
    return torch.maximum(torch.exp(0.02 - (x[:, 0] - 0.1).abs()), torch.exp(0.05 - (x[:, 0] - 0.9).abs()))


def ring(x):
    return torch.exp(0.05 - ((x - 0.5).norm(dim=1) - 0.3).abs())


REGIONS = {  # name: (d, residual on the unit cube, probability that it exceeds 1)
    "corner 1-D": (1, *corner(1, 0.05)),
    "corner 2-D": (2, *corner(2, 0.3)),
    "corner 3-D": (3, *corner(3, 0.4)),
    "middle 2-D": (2, ball([0.4, 0.6], 0.2), math.pi * 0.04),
    "ring 2-D": (2, ring, math.pi * (0.35**2 - 0.25**2)),
    "two intervals": (1, two_intervals, 0.14),
    "rare": (1, ball([0.7], 5e-4), 1e-3),
    "all": (2, lambda x: 2 + x[:, 0], 1.0),
    "none": (2, lambda x: x[:, 0], 0.0),
}


LARGE = FailureInformedSampling(candidates=60, samples=6000, stages=3)
CORNERS = [name for name in REGIONS if name.startswith("corner")]


def estimates(name, sampler=SMALL, seeds=None):
    d, residual, _ = REGIONS[name]
    seeds = SEEDS[d] if seeds is None else seeds
    lower, upper = torch.full((d,), -1.0, dtype=torch.float64), torch.full((d,), 3.0, dtype=torch.float64)
    return [
        sampler.estimate(lambda p: residual((p + 1) / 4), 1.0, lower, upper, generator(seed)) for seed in range(seeds)
    ]


def assert_unbiased(results, truth):
    values = np.array([result.probability for result in results])
    standard_error = values.std(ddof=1) / len(values) ** 0.5
    assert abs(values.mean() - truth) <= 4 * standard_error, (
        f"{values.mean():.5g} +- {standard_error:.2g}, not {truth:.5g}"
    )


@pytest.mark.parametrize("name", REGIONS)
def test_failure_probability_is_unbiased(name):
    d, _, truth = REGIONS[name]
    sampler = LARGE if name in CORNERS else SMALL
    results = estimates(name, sampler)
    assert_unbiased(results, truth)
    for result in results:
        assert result.candidates.shape == (SMALL.candidates, d)
        assert result.residuals.shape == (SMALL.candidates,)
        assert result.evaluations in [sampler.candidates * stages + sampler.samples for stages in (1, 2, 3)]
        assert ((result.failures >= -1) & (result.failures <= 3)).all()
        assert ((result.candidates >= -1) & (result.candidates <= 3)).all()
        assert result.proposal_mean.shape == (d,)
        assert result.proposal_covariance.shape == (d, d)
        assert (result.standard_error == 0) == (len(result.failures) in (0, sampler.samples))


@pytest.mark.parametrize("name", CORNERS)
def test_proposal_integrates_to_one_over_the_box(name):
    result = estimates(name, seeds=1)[0]
    proposal = sampling._TruncatedGaussian(result.proposal_mean, result.proposal_covariance)
    d = len(proposal.mean)
    count = {1: 10000, 2: 400, 3: 100}[d]  # midpoint rule
    grid = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    x = torch.cartesian_prod(*[grid] * d).view(-1, d)
    assert float(proposal.density(x).mean()) == pytest.approx(1, abs=0.002)
    # Without the division by the mass inside the box, which the circulating ports forget, this would not hold.
    assert float((proposal.density(x) * proposal.mass()).mean()) < {1: 0.9996, 2: 0.99, 3: 0.99}[d]
    drawn = proposal.draw(2000, generator())
    assert ((drawn >= 0) & (drawn <= 1)).all()
    mean = (proposal.density(x)[:, None] * x).mean(dim=0)
    assert (drawn.mean(dim=0) - mean).abs().max() < 5 * float(drawn.std(dim=0).max()) / 2000**0.5


def test_standard_error_is_the_spread_over_seeds():
    results = estimates("middle 2-D")
    spread = np.std([result.probability for result in results], ddof=1)
    assert np.mean([result.standard_error for result in results]) == pytest.approx(spread, rel=0.3)


def test_importance_sampling_beats_plain_monte_carlo_on_a_rare_region():
    plain = FailureInformedSampling(candidates=60, samples=120, stages=3, defensive=1.0)
    spreads = [np.std([r.probability for r in estimates("rare", sampler)]) for sampler in (SMALL, plain)]
    assert spreads[0] < spreads[1] / 2
    assert_unbiased(estimates("rare", plain, seeds=300), 1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_residual_that_is_not_finite_is_a_failure(bad):
    lower, upper = torch.zeros(1), torch.ones(1)

    def residual(p):
        return torch.where(p[:, 0] > 0.5, bad, 0.1)

    results = [SMALL.estimate(residual, 1.0, lower, upper, generator(seed)) for seed in range(50)]
    assert_unbiased(results, 0.5)
    assert all((result.failures > 0.5).all() and len(result.failures) > 20 for result in results)


@pytest.mark.parametrize("name", [name for name in REGIONS if name != "none"])
def test_failures_lie_in_the_region_and_most_samples_find_it(name):
    _, residual, _ = REGIONS[name]
    result = estimates(name, FailureInformedSampling(), seeds=1)[0]
    assert (residual((result.failures + 1) / 4) > 1).all()
    assert len(result.failures) > 100  # of 1,000, on regions down to a thousandth of the box


def test_estimate_repeats_for_a_seed_and_leaves_global_generators_alone(device):
    lower, upper = torch.zeros(3, device=device), torch.ones(3, device=device)
    residual = lambda p: torch.exp(0.3 - p.norm(dim=1))  # noqa: E731
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = (SMALL.estimate(residual, 1.0, lower, upper, generator(seed)) for seed in (1, 1, 2))
    assert first.probability == second.probability != other.probability
    assert torch.equal(first.failures, second.failures)
    assert first.failures.device == lower.device
    assert first.failures.dtype == lower.dtype
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_designs_lie_in_the_box(count, d, dtype, device):
    lower = torch.linspace(-1, 3e9, d, dtype=dtype, device=device)
    upper = lower + 0.5 + lower.abs()
    for design in (
        sampling.sobol(count, lower, upper, seed=3),
        sampling.uniform(count, lower, upper, generator()),
    ):
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


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"candidates": 1}, ["`candidates`", "at least 2", "got 1"]),
        ({"samples": 0}, ["`samples`", "at least 1", "got 0"]),
        ({"samples": 10.0}, ["`samples`", "integer", "10.0"]),
        ({"stages": 0}, ["`stages`", "at least 1"]),
        ({"quantile": 0}, ["`quantile`", "above 0 and at most 1", "got 0"]),
        ({"quantile": 1.5}, ["`quantile`", "above 0 and at most 1", "got 1.5"]),
        ({"defensive": 0.0}, ["`defensive`", "above 0 and at most 1", "got 0.0"]),
        ({"defensive": "a"}, ["`defensive`", "number", "'a'"]),
    ],
)
def test_sampler_refuses(settings, words):
    assert_raises((ValueError, TypeError), words, lambda: FailureInformedSampling(**settings))


@pytest.mark.parametrize("shape", [(60, 1), (59,), ()])
def test_a_residual_of_the_wrong_shape_is_refused(shape):
    def residual(p):
        return torch.zeros(shape)

    words = ["`residual`", "(60,)", str(tuple(shape))]
    assert_raises(ValueError, words, lambda: SMALL.estimate(residual, 1.0, torch.zeros(1), torch.ones(1), generator()))


# Designs for snapshots


@pytest.mark.parametrize("count", [1, 2, 3, 8, 17, 64])
def test_fejers_rule_is_exact_up_to_its_degree(count):
    x, weights = sampling.design(count, 1)
    assert x.shape == (count, 1) and (weights > 0).all()
    for degree in range(count):
        mean = 0.0 if degree % 2 else 1 / (degree + 1)  # of x^degree over [-1, 1]
        assert abs(float(weights @ x[:, 0] ** degree) - mean) < 1e-14


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
@pytest.mark.parametrize("edges", [0.0, 0.5, 0.9])
def test_scattered_designs_integrate(dimension, edges):
    x, weights = sampling.design(4096, dimension, seed=1, edges=edges)
    assert x.shape == (4096, dimension) and (x.abs() <= 1).all() and (weights > 0).all()
    assert abs(float(weights.sum()) - 1) < 1e-12
    mean = float(weights @ torch.cos(x).prod(dim=1))
    assert abs(mean - math.sin(1) ** dimension) < 2e-3
    at_the_faces = float((x.abs() > 0.9).double().mean())
    assert at_the_faces > (0.12 if edges else 0.098)
