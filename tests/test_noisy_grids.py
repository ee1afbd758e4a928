"""Noisy matrices on a grid, smoothed along all axes: pilots at a few symbols and many tones."""

import re

import numpy as np
import pytest
import torch
from conftest import assert_raises

import neumatc as nm
from neumatc.report import StopReason

SEEDS = range(3)
T, F = np.arange(14.0), np.arange(156) * 120e3
SLOT = 0.5e-3


def drawn(rng, *shape):
    """Complex Gaussian numbers of unit variance."""
    return rng.normal(size=(*shape, 2)) @ [1, 1j] / 2**0.5


def channel(seed, doppler, t=T, f=F, spread=100e-9, shape=(8, 4)):
    """Random paths with delays and Dopplers up to some Hz, over symbols t and frequencies f, shape (T, F, m, n)."""
    rng = np.random.default_rng(seed)
    delays, shifts = np.minimum(rng.exponential(spread, 12), 5 * spread), doppler * np.cos(rng.uniform(0, np.pi, 12))
    waves = np.exp(2j * np.pi * (np.multiply.outer(t * SLOT / 14, shifts)[:, None] - np.multiply.outer(f, delays)))
    return np.einsum("tfp,pmn->tfmn", waves, drawn(rng, 12, *shape)) / 12**0.5


def noisy(H, v, seed=0):
    return H + np.sqrt(v) * drawn(np.random.default_rng([seed, 3]), *H.shape)


def points(*axes):
    return torch.cartesian_prod(*(torch.from_numpy(np.array(axis, float)) for axis in axes)).view(-1, len(axes))


def at(family, *axes):
    return family(points(*axes)).numpy().reshape(*map(len, axes), *family.shape)


def errors(X, H):
    """Mean squared error at each symbol."""
    return np.mean(np.abs(X - H) ** 2, axis=(1, 2, 3))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("symbols, gain", [([2, 11], 1.5), ([2, 7, 11], 1.9), (range(14), 4.0)], ids=str)
def test_a_grid_is_better_than_frequency_alone_at_each_symbol_where_the_channel_hardly_turns(symbols, gain, seed):
    """Of k symbols, noise of the constant part falls by k; that of the rest is shrunk."""
    t = T[list(symbols)]
    H, v = channel(seed, 10.0, t), 0.1
    A = noisy(H, v, seed)
    family = nm.families.from_grid([t, F], A, noise=v)
    alone = np.stack([np.asarray(nm.families.from_samples(F, own, noise=v)(F)) for own in A])
    grid, alone = errors(at(family, t, F), H), errors(alone, H)
    assert (grid < alone).all() and grid.mean() < alone.mean() / gain
    assert family.measured.left**2 == pytest.approx(grid.mean(), rel=0.35)


@pytest.mark.parametrize("doppler", [300.0, 1500.0])
def test_where_the_channel_turns_fast_nothing_is_lost(doppler):
    """Up to a quarter turn a symbol and beyond: the terms along time follow it."""
    H, v = channel(1, doppler), 0.01
    A = noisy(H, v)
    grid = nm.families.from_grid([T, F], A, noise=v)
    alone = np.stack([np.asarray(nm.families.from_samples(F, own, noise=v)(F)) for own in A])
    assert errors(at(grid, T, F), H).mean() < 1.05 * errors(alone, H).mean()


def test_it_is_defined_between_the_points_and_from_symbol_to_symbol_a_line():
    H, v, t = channel(0, 20.0), 0.05, T[[2, 11]]
    A = noisy(H, v)[[2, 11]][:, ::2]
    family = nm.families.from_grid([t, F[::2]], A, noise=v, names=("symbol", "f"), units=("", "Hz"))
    between = at(family, T[2:12], F[:-1])
    assert (errors(between, H[2:12, :-1]) < 0.2 * v).all()
    middle = (at(family, [2.0], F[:9]) + at(family, [11.0], F[:9])) / 2
    assert np.allclose(at(family, [6.5], F[:9]), middle, rtol=1e-9, atol=1e-12)
    assert (family.names, family.units, family.dimension) == (("symbol", "f"), ("", "Hz"), 2)
    assert_raises(ValueError, ["box"], lambda: family([[0.0, 0.0]]))


def test_one_axis_is_as_samples_of_one_parameter(dtype):
    H = channel(0, 0.0, T[:1])[0]
    A = noisy(H, 0.05)
    A = torch.from_numpy(A if dtype.is_complex else A.real).to(dtype)
    grid, samples = nm.families.from_grid(F, A, noise=0.05), nm.families.from_samples(F, A, noise=0.05)
    assert grid.dtype == samples.dtype == dtype
    units = 1e3 * torch.finfo(dtype).eps
    assert np.allclose(grid(F), samples(F), rtol=units, atol=units)
    assert grid.measured.terms == pytest.approx(samples.measured.terms)
    assert torch.allclose(grid.floor, samples.floor)


@pytest.mark.parametrize("noise", [0.1, "estimate"])
def test_three_axes(noise):
    x, y, z = np.linspace(0, 1, 6), np.linspace(0, 1, 12), np.arange(3.0)
    H = (np.sin(2 * x)[:, None, None] * np.cos(3 * y)[:, None] * (1 + 0.1 * z))[..., None, None] * np.ones((2, 2))
    A = H + 0.1**0.5 * np.random.default_rng(0).normal(size=H.shape)
    family = nm.families.from_grid([x, y, z], A, noise=noise)
    assert np.mean((at(family, x, y, z) - H) ** 2) < 0.2 * 0.1
    assert family.measured.noise == pytest.approx(0.1, rel=0.2)
    assert "6 x 12 x 3 noisy ones" in str(family.measured)


def test_logarithmic_axes_are_smoothed_in_their_logarithm():
    rho = np.geomspace(1e-3, 1e3, 61)
    H = np.log10(rho)[:, None, None, None] * np.ones((1, 12, 2, 2)) + 1.0
    A = H + 0.1 * np.random.default_rng(0).normal(size=H.shape)
    family = nm.families.from_grid([rho, np.arange(12.0)], A, noise=0.01, scale=("log", "linear"))
    assert family.box.scale == ("log", "linear") and family.measured.terms < 12
    between = np.sqrt(rho[1:] * rho[:-1])
    H = np.log10(between)[:, None, None, None] + 1.0
    assert np.abs(at(family, between, [3.0]) - H).max() < 0.1


def test_noise_that_differs_from_user_to_user():
    v, t = np.array([1e-3, 1e-2, 0.1, 1.0]), T[:4]
    H = channel(0, 10.0, t)
    A = noisy(H, v)
    own, mean = (nm.families.from_grid([t, F], A, noise=noise) for noise in (v, v.mean()))
    lost = [np.mean(np.abs(at(x, t, F) - H) ** 2, axis=(0, 1, 2)) for x in (own, mean)]
    assert (lost[0][:2] < [0.2 * lost[1][0], 0.6 * lost[1][1]]).all() and (lost[0] < 1.1 * lost[1]).all()


@pytest.mark.parametrize("noise", [None, 0, np.zeros((8, 4))], ids=["None", "0", "zeros"])
def test_without_noise_nothing_is_smoothed(noise):
    A = noisy(channel(0, 10.0), 0.1)
    family = nm.families.from_grid([T, F], A, noise=noise)
    assert np.array_equal(at(family, T, F), A) and family.floor is None and family.measured is None


# Jumps, gaps, and what is not taken


@pytest.mark.parametrize("seed", SEEDS)
def test_jumps_are_found_along_each_axis_and_divide_the_grid(seed):
    """A gain that steps between packets, and blocks of a band with phases of their own."""
    t, v = np.arange(40.0), 0.01
    H = channel(seed, 5.0, t, spread=30e-9)
    H[:, 78:] *= np.exp(2j)
    A = noisy(H, v, seed)
    A[17:], H[17:] = 2 * A[17:], 2 * H[17:]
    family = nm.families.from_grid([t, F], A, noise="estimate")
    assert [line.jumps for line in family.measured.lines] == [[(16.0, 17.0)], [(F[77], F[78])]]
    assert family.measured.jumps == [(16.0, 17.0), (F[77], F[78])]
    assert "jumps along axis 1 at 16 to 17; jumps along axis 2 at 9.24e+06 to 9.36e+06" in str(family.measured)
    assert (errors(at(family, t, F), H) < 0.3 * errors(A, H)).all()
    # The gain has made the noise larger too, which the samples tell.
    assert family.measured.noise == pytest.approx(v * (17 + 4 * 23) / 40, rel=0.1)


def test_gaps_are_named_along_their_axis():
    t, f = T[[2, 3, 10, 11]], np.delete(F, range(60, 66))
    family = nm.families.from_grid([t, f], noisy(channel(0, 10.0, t, f), 0.1), noise=0.1)
    assert [line.gaps for line in family.measured.lines] == [[(3.0, 10.0)], [(F[59], F[66])]]
    assert re.search(
        r"; gaps along axis 1 at 3 to 10; gaps along axis 2 at 7.08e\+06 to 7.92e\+06$", str(family.measured)
    )


def test_no_jumps_are_seen_where_there_are_none():
    t = np.arange(28.0)
    for seed in range(4):
        for doppler in (10.0, 300.0):
            A = noisy(channel(seed, doppler, t), 0.01, seed)
            assert nm.families.from_grid([t, F], A, noise="estimate").measured.jumps == []


def test_missing_matrices_are_refused():
    A = noisy(channel(0, 10.0), 0.1)
    A[3, 5, 0, 0] = np.nan
    words = ["`A`", "finite matrices at all points of a grid with noise", "got 1 others", "leave out"]
    assert_raises(ValueError, words, lambda: nm.families.from_grid([T, F], A, noise=0.1))
    assert nm.families.from_grid([T, F], A).shape == (8, 4)


def test_the_noise_of_a_small_grid_has_to_be_given():
    A = noisy(channel(0, 10.0, T[:9], F[:9]), 0.1)
    words = ["`noise`", "fewer than 10 samples", "give the variance"]
    assert_raises(ValueError, words, lambda: nm.families.from_grid([T[:9], F[:9]], A, noise="estimate"))
    small = nm.families.from_grid([T[:9], F[:9]], A, noise=0.1).measured
    assert np.isnan(small.scatter) and small.terms < 81


def test_noise_at_scattered_points_names_the_grid():
    p = np.random.default_rng(0).uniform(size=(20, 2))
    words = ["`noise`", "2 parameters", "nm.families.from_grid"]
    assert_raises(ValueError, words, lambda: nm.families.from_samples(p, np.ones((20, 1, 1)), noise=0.1))


# Fits


@pytest.mark.parametrize("symbols", [[2, 11], range(14)], ids=str)
def test_a_fit_stops_at_the_floor_of_a_grid(symbols):
    t, v = T[list(symbols)], 0.1
    H = channel(0, 10.0, t)
    family = nm.families.from_grid([t, F], noisy(H, v), noise=v, names=("symbol", "f"))
    with pytest.warns(nm.FitWarning, match="noise of the samples"):
        surrogate = nm.fit(nm.Problem(family, nm.LMMSE(noise=v)), tol=1e-6, progress=False)
    report = surrogate.report
    assert (report.met, report.stop_reason) == (False, StopReason.NOISE)
    assert report.exact_solves < len(family.grid) / 2
    assert str(family.measured) == report.samples
    Hh = np.swapaxes(H.conj(), 2, 3)
    exact = np.linalg.solve(Hh @ H + v * np.eye(4), Hh)
    found = surrogate.grid(torch.from_numpy(t), torch.from_numpy(F)).numpy().reshape(exact.shape)
    assert np.linalg.norm(found - exact) < 0.15 * np.linalg.norm(exact)
