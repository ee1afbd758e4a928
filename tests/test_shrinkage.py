"""Shrunk splines: each entry keeps as many terms as it deserves, and no mean squared error grows by it."""

import numpy as np
import pytest
import torch
from conftest import assert_raises
from scipy.interpolate import make_lsq_spline

import neumatc as nm
from neumatc.segments import Segment, knots
from neumatc.shrinkage import Basis, shrunk
from neumatc.smoothing import Smoothing

SEEDS = range(5)
F = np.arange(312) * 60e3


def drawn(rng, *shape):
    """Complex Gaussian numbers of unit variance."""
    return rng.normal(size=(*shape, 2)) @ [1, 1j] / 2**0.5


def users(seed, spreads, powers, antennas=16, f=F):
    """Columns of random paths, each with a delay spread in seconds and a power, shape (N, antennas, n)."""
    rng, found = np.random.default_rng(seed), []
    for spread, power in zip(spreads, powers):
        delays = np.minimum(rng.exponential(spread, 12), 5 * spread)
        found.append(np.exp(-2j * np.pi * np.outer(f, delays)) @ drawn(rng, 12, antennas) * (power / 12) ** 0.5)
    return np.stack(found, axis=2)


def noisy(H, v, seed=0):
    return H + np.sqrt(v) * drawn(np.random.default_rng([seed, 3]), *H.shape)


def loss(family, H, f=F):
    """Mean squared error of each column."""
    return np.mean(np.abs(np.asarray(family(f)) - H) ** 2, axis=(0, 1))


def one_number(A, v):
    """Least-squares splines with one number of terms for all entries, by Mallows' estimate, and that number."""
    x, Y = np.linspace(0, 1, len(A)), A.reshape(len(A), -1)
    terms = Segment(x, Y.view(float), v / 2, 0.0).terms
    return make_lsq_spline(x, Y, knots(x, terms), min(3, terms - 1))(x).reshape(A.shape), terms


# James and Stein


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("size", [0.0, 0.5, 2.0, 20.0])
def test_shrinking_has_less_risk_than_none_and_knows_it(size, parts):
    """Over many draws: the loss is below that of the coordinates themselves, and its estimate is unbiased."""
    draws, shape = 300, (24, 3, 2, parts)
    rng = np.random.default_rng(5)
    truth = size * rng.normal(size=shape) / np.arange(1, 25)[:, None, None, None]
    losses, risks = [], []
    for _ in range(draws):
        Z = truth + rng.normal(size=shape)
        found = shrunk(Z, np.ones((3, 2)), ("",))
        losses.append(np.square(found.factors[..., None] * Z - truth).sum())
        risks.append(found.risk.sum())
    error = np.std(losses) / draws**0.5
    assert np.mean(losses) < truth.size + 4 * error
    spread = np.std(np.subtract(losses, risks)) / draws**0.5
    assert abs(np.mean(losses) - np.mean(risks)) < 4 * spread
    if size < 1:
        assert np.mean(losses) < truth.size / 2


@pytest.mark.parametrize("kind, axis", [("column", 1), ("row", 0)])
def test_entries_of_one_strength_are_shrunk_together(kind, axis):
    rng = np.random.default_rng(0)
    strength = np.where(np.arange(6) < 2, 30.0, 0.0)
    truth = strength[:, None] if axis == 0 else strength
    found = shrunk(truth[..., None] + rng.normal(size=(20, 6, 6, 2)), np.ones((6, 6)))
    assert found.together == kind
    kept = found.factors.sum(axis=0).ravel()
    assert (kept[:2] > 19).all() and (kept[2:] < 5).all()


def test_single_entries_are_shrunk_alone_where_only_they_are_strong():
    truth = 30.0 * np.eye(5)[:, np.random.default_rng(1).permutation(5)]
    Z = truth[..., None] + np.random.default_rng(0).normal(size=(20, 5, 5, 2))
    assert shrunk(Z, np.ones((5, 5))).together == "entry"


def test_one_complex_number_is_not_shrunk_and_nothing_stays_nothing():
    assert (shrunk(np.full((1, 1, 1, 2), 0.1), np.ones((1, 1))).factors == 1).all()
    for noise in (0.0, 1.0):
        factors = shrunk(np.zeros((9, 2, 2, 2)), np.full((2, 2), noise)).factors
        assert (factors[0] == 0.1).all() and (factors[1:] == 0).all()
    assert (shrunk(np.ones((9, 2, 2, 2)), np.zeros((2, 2))).factors == 1).all()


def test_a_user_in_noise_keeps_something_so_that_there_is_an_equaliser():
    A = noisy(users(0, [100e-9] * 2, [1.0, 1e-9]), 1.0)
    family = nm.families.from_samples(F, A, noise=1.0)
    solution = nm.Problem(family, nm.Equaliser(noise=1.0)).exact(F)
    assert not solution.failed.any() and (np.abs(family(F)).max(axis=(0, 1)) > 0).all()


# The splines


@pytest.mark.parametrize("terms", [1, 2, 3, 4, 9, 30, 60])
@pytest.mark.parametrize("irregular", [False, True])
def test_splines_are_orthonormal_smooth_before_rough_and_project(terms, irregular):
    rng = np.random.default_rng(terms)
    x = np.sort(rng.uniform(size=60)) if irregular else np.linspace(0, 1, 60)
    basis = Basis(x, terms)
    Q = basis.at(x) @ basis.coefficients(np.eye(terms))
    assert np.allclose(Q.T @ Q, np.eye(terms), atol=1e-10)
    Y = rng.normal(size=(60, 3))
    assert np.allclose(basis.coordinates(Y), Q.T @ Y, atol=1e-10)
    fitted = make_lsq_spline(x, Y, knots(x, terms), min(3, terms - 1))(x) if terms < 60 else Y
    assert np.allclose(Q @ (Q.T @ Y), fitted, atol=1e-9)
    # A constant is the first, and each has at most as many changes of sign as there are before it.
    assert np.allclose(np.abs(Q[:, 0]), 60**-0.5)
    turns = np.count_nonzero(np.diff(np.sign(Q), axis=0), axis=0)
    assert (turns <= 2 * np.arange(terms) + 1).all()


# Users near and far


@pytest.mark.parametrize("seed", SEEDS)
def test_weak_users_keep_fewer_terms_and_have_less_error_than_with_one_number_for_all(seed):
    """Of the weak ones noise leaves t v / N with t terms: here t is what the strong one needs."""
    H, v = users(seed, [1e-6, 100e-9, 100e-9], [1e3, 1.0, 0.01]), 0.1
    A = noisy(H, v, seed)
    family = nm.families.from_samples(F, A, noise=v)
    plain, terms = one_number(A, v)
    before, after = np.mean(np.abs(plain - H) ** 2, axis=(0, 1)), loss(family, H)
    assert (after[1:] < 0.7 * before[1:]).all() and (after[1:] < 0.7 * terms * v / len(F)).all()
    assert after[0] < 1.1 * before[0]
    kept = family.measured.kept
    assert (np.diff(kept[0]) < 0).all() and (kept == kept[0]).all()
    assert family.measured.terms == pytest.approx(kept.mean())
    assert said(kept) in str(family.measured)


def said(kept):
    return f"terms ({kept.min():.3g} to {kept.max():.3g} by column)"


@pytest.mark.parametrize("snr", [0, 10, 20, 30])
@pytest.mark.parametrize("antennas", [1, 16])
def test_no_more_error_than_least_squares_of_one_number_of_terms(antennas, snr):
    """On average over draws of channel and noise, also of users of equal power."""
    v, losses = 10 ** (-snr / 10), []
    for seed in range(12):
        H = users(seed, [100e-9] * 2, [1.0, 1.0], antennas)
        A = noisy(H, v, seed)
        smooth = loss(nm.families.from_samples(F, A, noise=v), H).mean()
        losses.append((smooth, np.mean(np.abs(one_number(A, v)[0] - H) ** 2)))
    ratios = np.divide(*np.transpose(losses))
    assert ratios.mean() < 1 + 2 * ratios.std() / len(ratios) ** 0.5
    assert np.mean([a for a, _ in losses]) < np.mean([b for _, b in losses])


def test_what_is_left_is_told_for_each_user():
    """On average over draws, to a quarter; for users in noise it is less certain."""
    v, told, found = 0.1, [], []
    for seed in range(10):
        H = users(seed, [300e-9, 100e-9, 100e-9], [30.0, 1.0, 0.03])
        family = nm.families.from_samples(F, noisy(H, v, seed), noise=v)
        told.append(np.square(family.floor[0].numpy()))
        found.append(loss(family, H))
        assert family.measured.left == pytest.approx(np.mean(told[-1]) ** 0.5)
    ratio = np.mean(told, axis=0) / np.mean(found, axis=0)
    assert (ratio > 0.75).all() and (ratio < 1.33).all()


@pytest.mark.parametrize("way", ["row", "column"])
def test_rows_or_columns_are_chosen_by_the_data(way):
    H, v = users(0, [1e-6, 100e-9, 100e-9, 30e-9], [100.0, 1.0, 0.1, 0.01]), 0.1
    A = noisy(H, v)
    turned = A if way == "column" else np.swapaxes(A, 1, 2)
    family = nm.families.from_samples(F, turned, noise=v)
    assert f"by {way})" in str(family.measured)
    same = np.asarray(nm.families.from_samples(F, A, noise=v)(F))
    assert np.allclose(family(F) if way == "column" else np.swapaxes(family(F), 1, 2), same, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(8, 8), (1, 1)])
@pytest.mark.parametrize("kind", ["Hermitian", "symmetric", "real symmetric"])
def test_hermitian_and_symmetric_samples_stay_so(kind, shape):
    n, rng = shape[0], np.random.default_rng(0)
    A = noisy(np.exp(-np.arange(n)[:, None] - np.arange(n)) * users(0, [300e-9] * n, [1.0] * n, n), 1e-3)
    A = A.real if kind.startswith("real") else A
    A = A + np.swapaxes(A.conj() if kind == "Hermitian" else A, 1, 2)
    found = np.asarray(nm.families.from_samples(F, A, noise=2e-3)(np.sort(rng.uniform(F[0], F[-1], 50))))
    other = np.swapaxes(found.conj() if kind == "Hermitian" else found, 1, 2)
    assert np.abs(found - other).max() <= 1e-13 * np.abs(found).max()


@pytest.mark.filterwarnings("ignore::neumatc.FitWarning")
@pytest.mark.parametrize("turned", [False, True])
def test_the_map_serves_strong_users_as_well_as_their_samples_do_beside_one_in_noise(turned):
    """The fit stops at the floor of those whom the noise spares most: a user in noise does not end it at once."""
    v = 0.1
    H = users(0, [300e-9, 100e-9, 100e-9], [30.0, 1.0, 1e-3])
    A, operation = noisy(H, v), nm.RZF(noise=v) if turned else nm.LMMSE(noise=v)
    H, A = (np.swapaxes(X, 1, 2) if turned else X for X in (H, A))
    family = nm.families.from_samples(F, A, noise=v)
    problem = nm.Problem(family, operation)
    surrogate = nm.fit(problem, tol=1e-6, progress=False)
    assert surrogate.report.stop_reason in (nm.StopReason.NOISE, nm.StopReason.TABLE)
    exact, true = (nm.Problem(one, operation).exact(F).value for one in (family, nm.families.from_samples(F, H)))
    mapped, exact, true = (np.swapaxes(X, 1, 2) if turned else X for X in (surrogate(F), exact, true))
    for user in range(2):
        missed, left = (np.linalg.norm((a - exact)[:, user]) for a in (mapped, true))
        assert missed < left < 0.3 * np.linalg.norm(true[:, user])


# Noise that differs


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 1), (4, 3)])
def test_noise_that_differs_is_a_matter_of_units(shape):
    """Entries in units of their noise have equal noise: scaled samples give scaled results."""
    H = users(1, [300e-9, 100e-9, 100e-9], [10.0, 1.0, 0.1], antennas=4)
    A, scale = noisy(H, 0.1), np.geomspace(0.01, 100, int(np.prod(shape))).reshape(shape)
    one = nm.families.from_samples(F, A, noise=0.1)
    other = nm.families.from_samples(F, A * scale, noise=torch.from_numpy(0.1 * scale**2))
    assert np.allclose(np.asarray(other(F)) / scale, one(F), rtol=1e-9, atol=1e-9)
    assert np.allclose(other.floor.numpy() / scale, one.floor) and np.allclose(other.measured.kept, one.measured.kept)
    assert other.measured.scatter == pytest.approx(one.measured.scatter)
    assert other.measured.noise == pytest.approx(0.1 * np.mean(np.broadcast_to(scale, (4, 3)) ** 2))
    equal = nm.families.from_samples(F, A, noise=np.full(shape, 0.1))
    assert np.array_equal(equal(F), one(F))


def test_users_with_noise_of_their_own_gain_from_saying_so():
    H, v = users(2, [300e-9, 300e-9], [1.0, 1.0]), np.array([1e-3, 1.0])
    A = noisy(H, v)
    own, mean = (loss(nm.families.from_samples(F, A, noise=noise), H) for noise in (v, v.mean()))
    assert own[0] < 0.2 * mean[0] and own[1] < 1.2 * mean[1]


@pytest.mark.parametrize(
    "noise, words",
    [
        ([0.1, 0.2], ["`noise`", "broadcast to (4, 3)", "(2,)", "(m, 1)"]),
        (np.ones((2, 4, 3)), ["`noise`", "broadcast to (4, 3)", "(2, 4, 3)"]),
        ([0.1, -0.2, 0.3], ["`noise`", "not negative", "-0.2"]),
        ([0.1, np.nan, 0.3], ["`noise`", "finite", "nan"]),
        ([0.1, 0.0, 0.3], ["`noise`", "some of both", "nm.families.beside"]),
        ([0.1, 0.2j, 0.3], ["`noise`", "real numbers"]),
    ],
)
def test_wrong_arrays_of_noise_are_refused(noise, words):
    A = noisy(users(0, [100e-9] * 3, [1.0] * 3, antennas=4), 0.1)
    for make in (nm.families.from_samples, nm.families.from_grid):
        assert_raises((ValueError, TypeError), words, lambda make=make: make(F, A, noise=noise))


def test_an_array_of_zeros_is_no_noise():
    A = noisy(users(0, [100e-9] * 3, [1.0] * 3, antennas=4), 0.1)
    family = nm.families.from_samples(F, A, noise=np.zeros(3))
    assert family.floor is None and not isinstance(family.measured, Smoothing)
