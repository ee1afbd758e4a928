"""The Eckart-Young limit against explicit truncation, and paired timings of callables with a fake clock."""

import math

import numpy as np
import pytest
import torch
from conftest import DTYPES, assert_raises, gaussian, generator
from hypothesis import given, settings
from hypothesis import strategies as st

import neumatc as nm
from studies import benchmark, load
from studies.load import Load

SHAPES = [(12, 3, 4), (5, 3, 4), (9, 6), (4, 2, 2, 2)]


def samples(shape, dtype, seed=0):
    """Random samples whose singular values fall by a factor of two each."""
    X = gaussian(*shape, dtype=dtype, seed=seed)
    U, S, Vh = torch.linalg.svd(X.flatten(1), full_matrices=False)
    return ((U * 0.5 ** torch.arange(len(S))) @ Vh).to(dtype).view(shape)


def truncated(X, rank):
    """Relative error of the explicit truncation of X (N, ...), by NumPy in double precision."""
    x = X.reshape(len(X), -1).numpy().astype(np.complex128 if X.is_complex() else np.float64)
    U, S, Vh = np.linalg.svd(x, full_matrices=False)
    return np.linalg.norm(x - (U[:, :rank] * S[:rank]) @ Vh[:rank]) / np.linalg.norm(x)


def sides(X):
    """Real and imaginary parts side by side."""
    return torch.cat([X.real, X.imag], dim=-1) if X.is_complex() else X


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_limit_is_the_error_of_the_truncated_decomposition(shape, dtype, device):
    X = samples(shape, dtype)
    ranks = list(range(1, 15))
    limits = {field: benchmark.eckart_young(X.to(device), ranks, field=field) for field in ("real", "complex")}
    for field, oracle in (("real", sides(X)), ("complex", X)):
        assert limits[field].dtype == torch.float64
        expected = [truncated(oracle, rank) for rank in ranks]
        np.testing.assert_allclose(limits[field].cpu(), expected, rtol=1e-6, atol=1e-14)
    assert (limits["complex"] <= limits["real"] + 1e-14).all()
    assert float(limits["real"][-1]) < 1e-14 or shape[0] > 14
    single = benchmark.eckart_young(X, 3)
    assert single.shape == ()
    assert float(single) == float(limits["real"][2]) or device != "cpu"


def test_least_residual_falls_from_the_map_of_least_error(dtype):
    family = nm.families.trigonometric(size=5, terms=4, shift=1.6, dtype=dtype)
    A = family(torch.linspace(0, 1, 60, dtype=family.lower.dtype)[:, None])
    maps = [benchmark.least_residual(A, 3, steps=steps) for steps in (0, 1, 4, 12)]
    assert all((X.dtype, X.shape) == (dtype, A.shape) for X in maps)
    X = nm.linalg.inverse(A)[0]
    assert torch.equal(maps[0], benchmark.best_of_rank(X, 3))
    residuals = [float(torch.linalg.vector_norm(X @ A - torch.eye(5))) for X in maps]
    assert residuals[1] < 0.98 * residuals[0]
    assert residuals == sorted(residuals, reverse=True)
    # A map of the rank asked for; one of full rank is exact, up to squared condition numbers.
    assert benchmark.eckart_young(maps[-1], 3) < 10 * torch.finfo(dtype).eps
    assert benchmark.relative_error(benchmark.least_residual(A, 50), X) < 1e-5
    assert_raises(ValueError, ["`A`", "1 singular"], lambda: benchmark.least_residual(torch.zeros_like(A[:1]), 2))


def test_small_limits_are_not_lost_to_squaring():
    X = torch.diag(torch.tensor([1.0, 1e-6, 1e-12], dtype=torch.float64))
    limits = benchmark.eckart_young(X, [1, 2, 3])
    np.testing.assert_allclose(limits, [1e-6, 1e-12, 0], rtol=1e-6, atol=1e-16)


@pytest.mark.parametrize("dtype", DTYPES[2:])
def test_hermitian_values_have_the_same_limit_in_both_fields(dtype):
    """Hermitian matrices are a real vector space: a complex coefficient gains nothing."""
    X = gaussian(10, 4, 4, dtype=dtype)
    X = X + X.mH
    real, complex_ = (benchmark.eckart_young(X, [1, 2, 4, 8], field=field) for field in ("real", "complex"))
    np.testing.assert_allclose(real, complex_, rtol=1e-5)


@given(st.integers(0, 2**31), st.integers(1, 5), st.sampled_from(DTYPES), st.sampled_from(SHAPES), st.floats(-6, 1))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_no_map_of_the_same_rank_beats_the_limit(seed, rank, dtype, shape, nearness):
    """Neither a random map C x_3 Phi nor a random perturbation of the best one, with a real embedding."""
    X = samples(shape, dtype, seed=seed % 1000)
    wide = X.to(torch.complex128 if dtype.is_complex else torch.float64)
    flat = sides(wide).reshape(len(X), -1)
    U, S, Vh = torch.linalg.svd(flat, full_matrices=False)
    draw = generator(seed)
    phi = U[:, :rank] * S[:rank] + 10**nearness * torch.randn(U[:, :rank].shape, dtype=torch.float64, generator=draw)
    core = Vh[:rank] + 10**nearness * torch.randn(Vh[:rank].shape, dtype=torch.float64, generator=draw)
    error = float((phi @ core - flat).norm() / flat.norm())
    assert error >= float(benchmark.eckart_young(X, rank)) * (1 - 1e-9) - 1e-14
    best = torch.linalg.lstsq(phi, flat).solution if phi.shape[0] >= phi.shape[1] else core
    assert (
        float((phi @ best - flat).norm() / flat.norm()) >= float(benchmark.eckart_young(X, rank)) * (1 - 1e-9) - 1e-14
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.ones(3, 2), 1, "quaternion"), ["`field`", "'real' or 'complex'", "'quaternion'"]),
        ((torch.ones(3, 2), 0, "real"), ["`ranks`", "at least 1", "got 0"]),
        ((torch.ones(3, 2), [1, -1], "real"), ["`ranks`", "at least 1", "got -1"]),
        ((torch.ones(3, 2), [], "real"), ["`ranks`", "several", "none"]),
        (([], 1, "real"), ["`X`", "torch.Tensor", "[]"]),
        ((torch.ones(3, 2), 1.5, "real"), ["`ranks`", "integer", "1.5"]),
        ((torch.ones(3), 1, "real"), ["`X`", "(N, ", "(3,)"]),
        ((np.ones((3, 2)), 1, "real"), ["`X`", "torch.Tensor", "an array"]),
        ((torch.zeros(3, 2), 1, "real"), ["`X`", "zero"]),
        ((torch.full((3, 2), math.nan), 1, "real"), ["`X`", "finite"]),
    ],
)
def test_eckart_young_refuses(arguments, words):
    X, ranks, field = arguments
    assert_raises((ValueError, TypeError), words, lambda: benchmark.eckart_young(X, ranks, field=field))


def test_ranks_may_be_any_integers():
    X = samples((6, 5), torch.float64)
    expected = benchmark.eckart_young(X, [1, 2])
    assert torch.equal(benchmark.eckart_young(X, (1, 2)), expected)
    assert torch.equal(benchmark.eckart_young(X, range(1, 3)), expected)
    assert torch.equal(benchmark.eckart_young(X, np.arange(1, 3)), expected)
    assert float(benchmark.eckart_young(X, np.int64(2))) == float(expected[1])


def test_relative_error(dtype, device):
    exact, error = gaussian(5, 3, 3, dtype=dtype), gaussian(5, 3, 3, dtype=dtype, seed=1)
    expected = np.linalg.norm(0.1 * error.numpy()) / np.linalg.norm(exact.numpy())
    value = benchmark.relative_error((exact + 0.1 * error).to(device), exact.to(device))
    assert type(value) is float
    assert value == pytest.approx(float(expected), rel=1e-5)
    assert benchmark.relative_error(exact, exact) == 0
    assert_raises(TypeError, ["`X`", "torch.Tensor", "list"], lambda: benchmark.relative_error([1.0], exact))
    assert_raises(
        TypeError, ["`exact`", "torch.Tensor", "an array"], lambda: benchmark.relative_error(exact, np.ones(3))
    )


class Clock:
    """A clock that advances only when a callable says so."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def perf_counter(self):
        return self.now

    def callable(self, name, seconds):
        def run():
            self.calls.append(name)
            self.now += seconds[sum(call == name for call in self.calls) - 1]

        return run


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(benchmark.time, "perf_counter", fake.perf_counter)
    return fake


@pytest.fixture
def idle(monkeypatch):
    """A machine on which nothing else runs; tests append what others take, one look after the other."""
    shares = []
    monkeypatch.setattr(load.Watch, "load", lambda self, wait=True: Load(0.5, shares.pop(0) if shares else 0.0))
    return shares


def test_compare_alternates_and_leaves_the_warm_up_out(clock, idle):
    callables = {"a": clock.callable("a", [100, 4, 4, 4]), "b": clock.callable("b", [100, 5, 4, 4])}
    timings = benchmark.compare(callables, rounds=3, warm_up=1)
    assert clock.calls == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert timings.seconds == {"a": (4, 4, 4), "b": (5, 4, 4)}
    assert not timings.refused
    assert timings.conditions["rounds"] == 3 and timings.conditions["attempts"] == 1
    assert (timings.conditions["load_before"], timings.conditions["load_during"]) == (0.5, 0.0)


def test_what_is_short_is_called_once_more_before_it_is_timed(clock, idle):
    short, long = benchmark.LONG / 4, benchmark.LONG
    own = {"a": [short, *[short, short * 1.5] * 3], "b": [long] * 20}
    timings = benchmark.compare({name: clock.callable(name, times) for name, times in own.items()}, rounds=3)
    assert "".join(clock.calls) == "ab" + "baa" + "aab" + "baa"
    assert timings.seconds == {"a": (short * 1.5,) * 3, "b": (long,) * 3}


def test_a_loaded_machine_is_measured_again_and_then_believed(clock, idle):
    idle += [0.5, 0.0]
    seconds = {"a": [1.0, 0.9, 0.9, 0.9, 2.0, 2.0, 2.0], "b": [1.0, 0.9, 0.9, 0.9, 1.0, 1.0, 1.0]}
    timings = benchmark.compare({name: clock.callable(name, own) for name, own in seconds.items()}, rounds=3)
    assert timings.conditions["attempts"] == 2 and not timings.refused
    assert timings.ratio("a", "b") == pytest.approx((2, 2, 2)), "of the second attempt alone, without another warm-up"


def test_a_machine_that_stays_loaded_is_refused(clock, idle):
    idle += [0.5] * benchmark.ATTEMPTS
    own = {name: clock.callable(name, [1] * 20) for name in "ab"}
    timings = benchmark.compare(own, rounds=3)
    assert timings.refused and timings.conditions["attempts"] == benchmark.ATTEMPTS
    assert timings.conditions["refused"] == "other work took 50% of the processor, where 10% is allowed"
    assert all(map(math.isnan, timings.ratio("a", "b")))
    assert all(map(math.isnan, timings.break_even("a", "a", "b", 10)))


def test_patience_with_a_loaded_machine_ends(clock, idle):
    idle += [0.5] * benchmark.ATTEMPTS
    own = {name: clock.callable(name, [benchmark.PATIENCE] * 20) for name in "ab"}
    assert benchmark.compare(own, rounds=3).conditions["attempts"] == 1


def test_a_load_that_is_made_on_purpose_is_no_reason_to_refuse(clock, idle):
    idle += [0.9]
    own = {name: clock.callable(name, [1] * 20) for name in "ab"}
    timings = benchmark.compare(own, rounds=3, judged=False)
    assert not timings.refused and timings.conditions["load_during"] == 0.9


@pytest.mark.parametrize(
    ("seconds", "others", "words"),
    [
        ({"a": (1, 1, 1), "b": (2, 2.1, 2)}, 0.05, ""),
        ({"a": (1, 1, 1), "b": (2, 2.1, 2)}, None, ""),
        ({"a": (1, 1, 1), "b": (2, 2.1, 2)}, 0.2, "other work took 20%"),
        ({"a": (1, 1, 3, 3), "b": (1, 3, 3, 1)}, 0.0, "the times of every method spread by more than 50%"),
        ({"a": (1, 1, 1, 1), "b": (1, 1, 3, 3)}, 0.0, ""),
        # Both slow down together: a drift of the machine, which the ratio does not see.
        ({"a": (1, 2, 8), "b": (2, 4, 16)}, 0.0, ""),
        ({"a": (1, 1), "b": (2, 2)}, 0.0, "2 round(s) have no spread"),
    ],
)
def test_what_is_not_to_be_published(seconds, others, words):
    found = benchmark.objection(seconds, Load(None, others))
    assert found.startswith(words) and bool(found) == bool(words)


@pytest.mark.parametrize(
    ("seconds", "wild"),
    [
        ({"a": (1, 1, 1, 1), "b": (1, 1, 3, 3), "c": (2, 2, 2, 2)}, ["b"]),
        # Both slow down together: a drift of the machine, which the ratio does not see.
        ({"a": (1, 2, 8), "b": (2, 4, 16)}, []),
        ({"a": (1, 2, 8)}, ["a"]),
        ({"a": (1, 1, 3, 3), "b": (1, 3, 3, 1)}, ["a", "b"]),
        ({"a": (1, 1, 3, 3), "b": (2, 2, 2, 2), "c": (1, 1.1, 1, 1.1)}, ["a"]),
    ],
)
def test_times_that_spread_too_much_are_named(seconds, wild):
    assert benchmark.unsteady(seconds) == wild


def test_a_callable_that_is_unsteady_has_no_ratio_and_the_others_have_theirs(clock, idle):
    own = {"a": [0.125] * 40, "b": [0.5, 0.6, 0.9, 1.7, 0.5] * 4, "c": [0.25] * 40}
    found = benchmark.compare({name: clock.callable(name, times) for name, times in own.items()}, rounds=5)
    assert not found.refused and found.conditions["unsteady"] == ["b"]
    assert found.conditions["attempts"] == benchmark.ATTEMPTS
    assert found.ratio("c", "a") == (2, 2, 2)
    assert all(map(math.isnan, (*found.ratio("b", "a"), *found.ratio("a", ("b", "c")), *found.ratio(1.0, "b"))))


def test_rounds_of_an_unsteady_callable_are_joined_by_more_but_for_those_under_load(clock, idle):
    """Two outliers of four are two of eight; what was taken beside other work counts for nothing."""
    idle += [0.0, 0.5, 0.0]
    seconds = {"a": [1, *[1] * 12], "b": [1, 0.5, 0.5, 1, 1, *[0.75] * 4, *[0.5] * 4]}
    found = benchmark.compare({name: clock.callable(name, own) for name, own in seconds.items()}, rounds=4)
    assert found.seconds == {"a": (1,) * 8, "b": (0.5, 0.5, 1, 1, *[0.5] * 4)}
    assert found.conditions["rounds"] == 8 and found.conditions["attempts"] == 3
    assert found.conditions["unsteady"] == [] and found.conditions["load_during"] == 0.0
    assert found.ratio("a", "b").median == 2


def timings(**seconds):
    return benchmark.Timings(seconds, {"refused": ""})


def test_ratios_are_taken_round_by_round():
    found = timings(slow=(2.0, 8.0, 3.0), fast=(1.0, 2.0, 1.0), fit=(1.0, 2.0, 0.5))
    assert found.ratio("slow", "fast") == (2.0, 3.0, 4.0)
    assert found.ratio("slow", ("fast", "fit")) == (1.0, 2.0, 2.0)
    assert found.ratio(6.0, "fast") == (3.0, 6.0, 6.0), "what ran once, in units of the rounds"
    assert found.ratios("slow", ["fast", "slow"]) == {"fast": (2.0, 3.0, 4.0), "slow": (1, 1, 1)}
    assert found.ratio("slow", "fast").times(2) == (4, 6, 8)
    # The median of ratios is not the ratio of medians, nor one of medians of ratios.
    assert timings(a=(1.0, 4.0, 9.0), b=(2.0, 2.0, 1.0)).ratio("a", "b").median == 2.0


@pytest.mark.parametrize("values", [(3.0, 1.0, 7.0), (3.0, 1.0, 7.0, 4.0), (3.0, 1.0, math.inf)], ids=str)
def test_of_few_rounds_the_ends_are_the_least_and_the_largest(values):
    found = benchmark.Ratio.of(values)
    assert (found.lower, found.upper) == (min(values), max(values))


def test_of_five_rounds_and_more_the_ends_are_quartiles():
    assert benchmark.Ratio.of([5.0, 1.0, 4.0, 2.0, 3.0]) == (2.0, 3.0, 4.0)
    assert benchmark.Ratio.of([1.0] * 9 + [100.0]).upper == 1.0


def test_break_even_is_taken_round_by_round():
    found = timings(fit=(10.0, 10.0, 20.0), exact=(3.0, 2.0, 3.0), map=(1.0, 1.0, 4.0), other=(2.0, 4.0, 1.0))
    assert found.break_even("fit", "exact", "map", 10) == pytest.approx((50, 100, math.inf))
    assert found.break_even("fit", "exact", "map", 10, "other").median == 60
    assert found.break_even(4.0, "exact", "exact", 10) == (math.inf,) * 3


def test_compare_passes_an_error_on_and_refuses_nonsense(clock, idle):
    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        benchmark.compare({"a": broken})
    assert_raises(ValueError, ["`rounds`", "at least 1", "got 0"], lambda: benchmark.compare({}, rounds=0))
    assert_raises(ValueError, ["`warm_up`", "at least 0", "got -1"], lambda: benchmark.compare({}, warm_up=-1))


@pytest.mark.parametrize(
    ("fit", "exact", "surrogate", "expected"),
    [(10.0, 0.3, 0.05, 40), (0.0, 2.0, 1.0, 0), (10.0, 1.0, 1.0, math.inf), (10.0, 1.0, 2.0, math.inf)],
)
def test_break_even(fit, exact, surrogate, expected):
    assert benchmark.break_even(fit, exact, surrogate) == pytest.approx(expected)


@pytest.mark.parametrize(("failed", "draws"), [(0, 200), (3, 50), (49, 50)])
def test_the_upper_limit_is_the_probability_that_just_so_few_fail(failed, draws):
    p = benchmark.upper_limit(failed, draws)
    few = sum(math.comb(draws, k) * p**k * (1 - p) ** (draws - k) for k in range(failed + 1))
    assert few == pytest.approx(0.05, rel=1e-6)


def test_where_all_fail_nothing_is_refuted():
    assert benchmark.upper_limit(7, 7) == 1.0


def test_where_no_times_are_wanted_one_round_is_run_and_refused(monkeypatch):
    calls = []
    monkeypatch.setenv("NEUMATC_TIMES", "0")
    timings = benchmark.compare({"one": lambda: calls.append(1), "two": lambda: calls.append(2)}, rounds=5)
    assert timings.refused and timings.conditions["rounds"] == 1
    assert math.isnan(timings.ratio("one", "two").median) and set(calls) == {1, 2}
