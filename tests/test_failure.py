"""The failure probability: unbiased on regions whose volume is known, on every scale of the box."""

import math

import numpy as np
import pytest
import torch
from conftest import assert_raises, generator

import neumatc as nm
from neumatc import FailureInformedSampling

SEEDS = {1: 100, 2: 60, 3: 30}  # by dimension: fewer where one estimate costs more
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
    box = nm.Box([-1.0] * d, [3.0] * d, dtype=torch.float64)
    return [sampler.estimate(lambda p: residual((p + 1) / 4), 1.0, box, generator(seed)) for seed in range(seeds)]


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
        assert ((result.failures >= -1) & (result.failures <= 3)).all()
        assert ((result.candidates >= -1) & (result.candidates <= 3)).all()
        assert (result.standard_error == 0) == (len(result.failures) in (0, sampler.samples))


def test_standard_error_is_the_spread_over_seeds():
    results = estimates("middle 2-D", seeds=100)
    spread = np.std([result.probability for result in results], ddof=1)
    assert np.mean([result.standard_error for result in results]) == pytest.approx(spread, rel=0.3)


def test_importance_sampling_beats_plain_monte_carlo_on_a_rare_region():
    plain = FailureInformedSampling(candidates=60, samples=120, stages=3, defensive=1.0)
    spreads = [np.std([r.probability for r in estimates("rare", sampler)]) for sampler in (SMALL, plain)]
    assert spreads[0] < spreads[1] / 2
    assert_unbiased(estimates("rare", plain, seeds=150), 1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_residual_that_is_not_finite_is_a_failure(bad):

    def residual(p):
        return torch.where(p[:, 0] > 0.5, bad, 0.1)

    results = [SMALL.estimate(residual, 1.0, nm.Box(0.0, 1.0), generator(seed)) for seed in range(50)]
    assert_unbiased(results, 0.5)
    assert all((result.failures > 0.5).all() and len(result.failures) > 20 for result in results)


@pytest.mark.parametrize("name", [name for name in REGIONS if name != "none"])
def test_failures_lie_in_the_region_and_most_samples_find_it(name):
    _, residual, _ = REGIONS[name]
    result = estimates(name, FailureInformedSampling(), seeds=1)[0]
    assert (residual((result.failures + 1) / 4) > 1).all()
    assert len(result.failures) > 100  # of 1,000, on regions down to a thousandth of the box


def test_estimate_repeats_for_a_seed_and_leaves_global_generators_alone(device):
    box = nm.Box([0.0] * 3, [1.0] * 3, device=device)
    residual = lambda p: torch.exp(0.3 - p.norm(dim=1))  # noqa: E731
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = (SMALL.estimate(residual, 1.0, box, generator(seed)) for seed in (1, 1, 2))
    assert first.probability == second.probability != other.probability
    assert torch.equal(first.failures, second.failures)
    assert first.failures.device == box.device
    assert first.failures.dtype == box.dtype
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


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
    assert_raises(ValueError, words, lambda: SMALL.estimate(residual, 1.0, nm.Box(0.0, 1.0), generator()))


def test_decades_count_alike_on_a_logarithmic_axis():
    """The last of four decades fails: a quarter of a logarithmic axis, 90 % of a linear one."""
    for scale, truth in (("log", 0.25), ("linear", 0.9)):
        box = nm.Box(1e-2, 1e2, scale=scale, dtype=torch.float64)
        results = [SMALL.estimate(lambda p: p[:, 0], 10.0, box, generator(seed)) for seed in range(100)]
        assert_unbiased(results, truth if scale == "log" else 90 / (100 - 1e-2))


def test_failures_are_in_the_units_of_the_parameters():
    box = nm.Box([1e-6, -50.0], [1.0, 50.0], scale=["log", "linear"], dtype=torch.float64)
    result = SMALL.estimate(lambda p: (p[:, 0] > 1e-2) * p[:, 1], 40.0, box, generator())
    assert len(result.failures) > 10
    assert (result.failures > torch.tensor([1e-2, 40.0])).all()
    assert (result.failures <= box.upper).all()
