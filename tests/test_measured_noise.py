"""Noisy samples: smoothed as far as their noise lets them be, in pieces where they jump, and fits to the floor."""

import re

import numpy as np
import pytest
import torch
from conftest import assert_raises, gaussian

import neumatc as nm
from neumatc.report import StopReason
from neumatc.smoothing import Smoothing

SEEDS = range(5)
SPACING = 30e3


def paths(seed, spread, shape=(8, 4), count=12):
    """Random paths: delays (P,) with an exponential profile, coefficients (P, m, n) of unit mean energy an entry."""
    rng = np.random.default_rng(seed)
    delays = np.minimum(rng.exponential(spread, count), 5 * spread)
    gains = rng.normal(size=(count, *shape, 2)) @ [1, 1j]
    return delays, gains / (2 * count) ** 0.5


def response(seed, spread, f, **shape):
    delays, gains = paths(seed, spread, **shape)
    return np.einsum("fp,pmn->fmn", np.exp(-2j * np.pi * f[:, None] * delays), gains)


def tones(count=312, step=2):
    return (np.arange(count) - count // 2) * step * SPACING


def noisy(H, snr, seed=0):
    """Return samples with white noise of a variance of so many decibels below the mean energy, and that variance."""
    v = np.mean(np.abs(H) ** 2) / 10 ** (snr / 10)
    E = np.random.default_rng([seed, 7]).normal(size=(*H.shape, 2)) @ [1, 1j]
    return H + (v / 2) ** 0.5 * (E if np.iscomplexobj(H) else 2**0.5 * E.real), v


def filters(H, v):
    Hh = np.swapaxes(H.conj(), 1, 2)
    return np.linalg.solve(Hh @ H + v * np.eye(H.shape[2]), Hh)


def distance(X, Y):
    return float(np.linalg.norm(X - Y) / np.linalg.norm(Y))


def rate(H, W, v):
    return float(nm.wireless.sum_rate(torch.from_numpy(H), torch.from_numpy(W), v).mean())


@pytest.mark.filterwarnings("ignore::neumatc.FitWarning")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("snr", [0, 20])
@pytest.mark.parametrize("spread, gain", [(30e-9, 3.0), (100e-9, 2.0), (300e-9, 1.3)])
def test_filters_of_the_map_are_nearer_to_the_true_ones_than_filters_tone_by_tone(spread, gain, snr, seed):
    f = tones()
    H = response(seed, spread, f)
    A, v = noisy(H, snr, seed)
    family = nm.families.from_samples(f, A, noise="estimate")
    problem = nm.Problem(family, nm.LMMSE(noise=v))
    surrogate = nm.fit(problem, tol=1e-2, progress=False)
    W, mapped, alone = filters(H, v), surrogate(f), filters(A, v)
    assert distance(mapped, W) < distance(alone, W) / gain
    assert rate(H, mapped, v) > rate(H, alone, v)
    # What is said to be left in A is what is left.
    left = np.sqrt(np.mean(np.abs(family(f) - H) ** 2))
    assert left / 1.6 < family.measured.left < 2.5 * left
    assert family.measured.terms < 100


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape, factor", [((1, 1), 1.5), ((8, 4), 1.12)])
def test_the_noise_is_estimated(shape, factor, seed, dtype):
    f = tones()
    H = response(seed, 100e-9, f, shape=shape)
    A, v = noisy(H if dtype.is_complex else H.real, 25, seed)
    found = nm.families.from_samples(f, torch.from_numpy(A).to(dtype), noise="estimate").measured
    assert v / factor < found.noise < factor * v
    assert found.estimated and np.isnan(found.scatter)


@pytest.mark.parametrize("snr", [0, 10, 20, 30, 50])
def test_more_noise_leaves_fewer_terms(snr):
    f = tones()
    counts = []
    for level in (snr, snr + 20):
        A, v = noisy(response(0, 100e-9, f), level)
        counts.append(nm.families.from_samples(f, A, noise=v).measured.terms)
    assert counts[0] < counts[1]


def test_given_and_estimated_noise_give_nearly_the_same():
    f = tones()
    A, v = noisy(response(0, 100e-9, f), 15)
    given, estimated = (nm.families.from_samples(f, A, noise=level) for level in (v, "estimate"))
    assert not given.measured.estimated
    assert distance(given(f), estimated(f)) < 0.02


def test_a_wrong_variance_is_told():
    f = tones()
    A, v = noisy(response(0, 100e-9, f), 15)
    for part in (1 / 16, 16):
        measured = nm.families.from_samples(f, A, noise=part * v).measured
        assert 0.9 < measured.scatter * part**0.5 < 1.1
        assert f"given; neighbours differ as by {measured.scatter:.2g} of it" in str(measured)


@pytest.mark.parametrize("noise", [None, 0, 0.0, np.float64(0)])
def test_without_noise_samples_are_interpolated_as_ever(noise):
    f = tones(40)
    A, _ = noisy(response(0, 100e-9, f), 20)
    q = np.linspace(f[0], f[-1], 101)
    family, plain = nm.families.from_samples(f, A, noise=noise), nm.families.from_samples(f, A)
    assert np.array_equal(family(q), plain(q))
    assert family.floor is None and not isinstance(family.measured, Smoothing)
    report = nm.fit(nm.Problem(family, nm.PseudoInverse()), tol=1e-2, progress=False).report
    assert report.stop_reason is StopReason.TABLE


@pytest.mark.parametrize("spread", [100e-9, 1e-6])
def test_clean_samples_are_not_smoothed_away(spread):
    """What is left is about the noise that they are said to have, be it far below what a spline resolves."""
    f = tones()
    H = response(0, spread, f)
    family = nm.families.from_samples(f, H, noise=1e-16)
    assert distance(family(f), H) < 3e-8
    # What changes from sample to sample as noise does would be taken for noise.
    if spread < 1e-6:
        assert distance(nm.families.from_samples(f, H, noise="estimate")(f), H) < 1e-3


def test_tones_between_pilots_are_estimated_too():
    f = tones(624, 1)
    H = response(0, 100e-9, f)
    A, v = noisy(H[::2], 10)
    family = nm.families.from_samples(f[::2], A, noise=v)
    assert distance(family(f[1:-1:2]), H[1:-1:2]) < 0.4 * distance(A, H[::2])


# Jumps, gaps and missing tones


def stepped(H, cuts, values):
    """Multiply samples by another value from each cut on."""
    return H * np.array(values)[np.searchsorted(cuts, np.arange(len(H)), side="right")][:, None, None]


def found_jumps(family, f):
    return [int(np.flatnonzero(f == after)[0]) for _, after in family.measured.jumps]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spread, snr", [(30e-9, 10), (50e-9, 20), (30e-9, 40)])
def test_phases_of_20_mhz_blocks_are_found_at_their_places(spread, snr, seed):
    f = tones(256, 312.5e3 / SPACING)
    cuts = [64, 128, 192]
    H = stepped(response(seed, spread, f), cuts, np.exp(1j * np.array([0.0, 1.0, 2.5, 0.9])))
    A, _ = noisy(H, snr, seed)
    family = nm.families.from_samples(f, A, noise="estimate", names=["tone"])
    assert found_jumps(family, f) == cuts
    assert distance(family(f), H) < 0.7 * distance(A, H)
    place = f"{f[63]:.6g} to {f[64]:.6g}"
    assert f"jumps at {place}" in str(family.measured)


@pytest.mark.parametrize("snr", [0, 20, 60, None])
@pytest.mark.parametrize("spread", [30e-9, 300e-9])
@pytest.mark.parametrize("shape", [(1, 1), (8, 4)])
def test_no_jumps_are_found_in_smooth_data(shape, spread, snr):
    f = tones()
    for seed in range(3):
        H = response(seed, spread, f, shape=shape)
        A = H if snr is None else noisy(H, snr, seed)[0]
        assert nm.families.from_samples(f, A, noise="estimate").measured.jumps == []


IRREGULAR = {
    "at random": lambda rng: rng.uniform(0, 10, 150),
    "clusters": lambda rng: 0.8 * (rng.integers(0, 12, 150) + 0.3 * rng.uniform(size=150)),
    "decades": lambda rng: np.geomspace(0.01, 10, 150),
}


def irregular(kind, seed, step=0.0, noise=1e-3):
    """Noisy samples (N,), (N, 3, 3) of a smooth family at irregular parameters, with a step in the middle."""
    rng = np.random.default_rng(seed)
    x = np.sort(IRREGULAR[kind](rng))
    a = [3 + np.sin(x), 0.5 * np.cos(2 * x), 0.1, 0.2, 2 + np.cos(x), np.sin(x), 0.3, 0.1 * x, 4.0]
    A = np.stack([own + 0 * x for own in a], axis=1).reshape(-1, 3, 3) + step * (x > 5)[:, None, None] * np.eye(3)
    return x, A + noise * rng.standard_normal(A.shape)


@pytest.mark.parametrize("noise", [1e-5, 1e-3])
@pytest.mark.parametrize("kind", IRREGULAR)
def test_no_jumps_are_found_in_smooth_data_at_irregular_places(kind, noise):
    for seed in range(10):
        x, A = irregular(kind, seed, noise=noise)
        assert nm.families.from_samples(x, A, noise=noise**2).measured.jumps == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["at random", "decades"])
def test_a_jump_at_irregular_places_is_found(kind, seed):
    x, A = irregular(kind, seed, step=0.5)
    ((low, high),) = nm.families.from_samples(x, A, noise=1e-6).measured.jumps
    assert low <= 5 <= high


@pytest.mark.parametrize("seed", range(6))
def test_a_tolerance_below_the_noise_is_not_met_at_irregular_places(seed):
    x, A = irregular("at random", seed)
    family = nm.families.from_samples(x, A, noise=1e-6)
    problem = nm.Problem(family, nm.Inverse())
    with pytest.warns(nm.FitWarning, match="noise of the samples|between the samples"):
        surrogate = nm.fit(problem, tol=1e-6, progress=False)
    assert not surrogate.report.met and surrogate.report.collocation <= 150
    # The map is about as good as the family that it is of.
    p = np.linspace(x[0], x[-1], 500)
    assert np.quantile(problem.residual(p, surrogate(p)), 0.98) < 3e-4


@pytest.mark.parametrize("seed", SEEDS)
def test_steps_of_the_gain_between_packets_are_found_with_their_own_noise(seed):
    """The gain scales signal and noise alike; each packet has noise of its own."""
    t, cuts = np.arange(240.0), [40, 80, 120, 160, 200]
    rng = np.random.default_rng(seed)
    H = response(seed, 300e-9, tones(240), shape=(4, 2))
    gains = 10 ** (np.array([0, 6, -3, 3, 9, 0]) / 20)
    A = stepped(noisy(H, 25, seed)[0], cuts, gains)
    shuffled = rng.permutation(240)
    family = nm.families.from_samples(t[shuffled], A[shuffled], noise="estimate", names=["packet"])
    assert found_jumps(family, t) == cuts
    assert distance(family(t), stepped(H, cuts, gains)) < 0.8 * distance(A, stepped(H, cuts, gains))


def test_the_map_keeps_jumps_between_its_pieces():
    f, cuts = tones(256), [128]
    H = stepped(response(1, 100e-9, f), cuts, [1.0, 1j])
    A, v = noisy(H, 20)
    surrogate = nm.fit(nm.Problem(nm.families.from_samples(f, A, noise=v), nm.LMMSE(noise=v)), tol=0.3, progress=False)
    W, mapped, alone = filters(H, v), surrogate(f), filters(A, v)
    beside = [126, 127, 128, 129]
    assert distance(mapped[beside], W[beside]) < distance(alone[beside], W[beside])
    assert surrogate.report.exact_solves < 128
    assert "jumps at" in surrogate.report.samples


@pytest.mark.parametrize("dropped", ["left out", "NaN"])
def test_gaps_are_named_and_single_tones_may_be_missing(dropped):
    f = tones()
    H = response(2, 100e-9, f)
    A, _ = noisy(H, 15)
    there = np.ones(len(f), bool)
    there[[40, 150, 151, 152, 153, 154, 155, 156]] = False
    if dropped == "NaN":
        A[~there] = np.nan
        family = nm.families.from_samples(f, A, noise="estimate", missing="drop")
        assert "304 noisy ones (8 more were missing and left out)" in str(family.measured)
    else:
        family = nm.families.from_samples(f[there], A[there], noise="estimate")
    assert family.measured.gaps == [(f[39], f[41]), (f[149], f[157])]
    assert family.measured.jumps == []
    assert re.search(r"gaps at -?[\d.e+]+ to -?[\d.e+]+, -?[\d.e+]+ to -?[\d.e+]+$", str(family.measured))
    assert distance(family(f), H) < 0.08  # in the gaps too: 15 dB are 0.18


# Wrong arguments


@pytest.mark.parametrize(
    "noise, words",
    [
        ("guess", ["`noise`", "'estimate'", "got 'guess'", "E|e|^2"]),
        (-0.1, ["`noise`", "-0.1"]),
        (float("nan"), ["`noise`", "nan"]),
        ([0.1, 0.2], ["`noise`"]),
    ],
)
def test_wrong_noise_is_refused(noise, words):
    f = tones(20)
    A = response(0, 30e-9, f)
    assert_raises((ValueError, TypeError), words, lambda: nm.families.from_samples(f, A, noise=noise))


def test_noise_of_several_parameters_or_few_samples_is_refused():
    p = np.random.default_rng(0).uniform(size=(20, 2))
    words = ["`noise`", "samples of one parameter", "2 parameters"]
    for noise in (0.1, "estimate"):
        assert_raises(
            ValueError, words, lambda noise=noise: nm.families.from_samples(p, np.ones((20, 1, 1)), noise=noise)
        )
    assert nm.families.from_samples(p, np.ones((20, 1, 1)), noise=0).floor is None
    few = tones(9)
    words = ["`noise`", "fewer than 10", "give the variance"]
    A = response(0, 30e-9, few)
    assert_raises(ValueError, words, lambda: nm.families.from_samples(few, A, noise="estimate"))
    assert nm.families.from_samples(few, A, noise=0.1).measured.terms < 9
    assert nm.families.from_samples(few[:2], A[:2], noise=0.1).measured.terms <= 2


# The floor of a fit


def estimated(snr=10, spread=100e-9, seed=0, **settings):
    f = tones(**settings)
    A, v = noisy(response(seed, spread, f), snr, seed)
    return f, v, nm.families.from_samples(f, A, noise="estimate")


@pytest.mark.parametrize("operation", [nm.LMMSE(noise=0.1), nm.RZF(noise=0.1), nm.SVD(rank=2)], ids=str)
def test_a_fit_stops_at_the_floor_and_says_so(operation):
    _, _, family = estimated(15)
    problem = nm.Problem(family, operation)
    with pytest.warns(nm.FitWarning, match="noise of the samples leaves a residual.*above the noise"):
        surrogate = nm.fit(problem, tol=1e-7, progress=False)
    report = surrogate.report
    assert (report.met, report.stop_reason, report.tol) == (False, StopReason.NOISE, 1e-7)
    (place,) = report.unmet
    floor = float(re.search(r"residual of ([\d.e+-]+), more than the 1e-07 asked for", place.reason)[1])
    assert [place.lower, place.upper] == [family.lower.tolist(), family.upper.tolist()]
    # What is met is what is said, and what is said is what the noise does.
    p = family.box.uniform(300, torch.Generator().manual_seed(3))
    assert (problem.residual(p, surrogate(p)) > floor).double().mean() < 0.02
    assert 0.01 < floor < 0.3
    assert report.exact_solves < 312
    assert nm.Report.from_dict(report.to_dict()) == report


def test_a_tolerance_above_the_floor_is_met_as_ever():
    _, _, family = estimated(30)
    report = nm.fit(nm.Problem(family, nm.LMMSE(noise=0.1)), tol=0.1, progress=False).report
    assert (report.met, report.unmet, report.stop_reason) == (True, [], StopReason.TOLERANCE)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_floor_is_what_noise_does_to_the_result(seed):
    f, v, family = estimated(10, seed=seed)
    H = response(seed, 100e-9, f)
    with pytest.warns(nm.FitWarning, match="noise"):
        report = nm.fit(nm.Problem(family, nm.LMMSE(noise=v)), tol=1e-6, progress=False).report
    floor = float(re.search(r"residual of ([\d.e+-]+)", report.unmet[0].reason)[1])
    true = nm.ParametricMatrix(lambda p: torch.from_numpy(response(seed, 100e-9, p[:, 0].numpy())), f[0], f[-1])
    r = nm.Problem(true, nm.LMMSE(noise=v)).residual(f, filters(np.asarray(family(f)), v))
    assert np.median(r) / 2.5 < floor < 2.5 * np.median(r)
    assert H.shape[0] == len(r)


@pytest.mark.parametrize("budget", [4, 10, 40])
def test_a_budget_holds_with_the_draws_of_the_floor(budget):
    _, _, family = estimated()
    with pytest.warns(nm.FitWarning):
        report = nm.fit(nm.Problem(family, nm.LMMSE(noise=0.1)), tol=1e-6, budget=budget, progress=False).report
    assert report.exact_solves <= budget


def test_noisy_matrices_that_are_hermitian_stay_so():
    f = tones()
    H = response(0, 100e-9, f)
    G = np.swapaxes(H.conj(), 1, 2) @ H + 0.5 * np.eye(4)
    E, _ = noisy(0 * G + 1, 20)
    E = E - 1
    family = nm.families.from_samples(f, G + E + np.swapaxes(E.conj(), 1, 2), noise="estimate")
    with pytest.warns(nm.FitWarning, match="noise of the samples"):
        report = nm.fit(nm.Problem(family, nm.Cholesky()), tol=1e-6, progress=False).report
    assert report.stop_reason is StopReason.NOISE


@pytest.mark.parametrize("side", [0, 1])
def test_what_stands_beside_noisy_samples_has_no_noise(side):
    f, _, family = estimated()
    exact = nm.ParametricMatrix(lambda p: torch.ones(len(p), 8, 3, dtype=torch.complex128), f[0], f[-1])
    pair = [family, exact][:: 1 - 2 * side]
    joined = nm.families.beside(*pair)
    assert joined.measured is family.measured
    noisy_part = joined.floor[:, 3:] if side else joined.floor[:, :4]
    assert joined.floor.shape == joined.shape
    assert (noisy_part == family.floor).all() and int((joined.floor > 0).sum()) == family.floor.numel()
    assert nm.families.beside(exact, torch.ones(8, 1, dtype=torch.float64)).floor is None


def test_a_batch_stops_at_the_floor_together():
    families = [estimated(seed=seed)[2] for seed in range(3)]
    problems = [nm.Problem(family, nm.LMMSE(noise=0.1)) for family in families]
    with pytest.warns(nm.FitWarning):
        surrogates = nm.fit_many(problems, tol=1e-6, progress=False)
    assert {s.report.stop_reason for s in surrogates} == {StopReason.NOISE}
    assert not any(s.report.met for s in surrogates)


def test_certificates_and_reports_quote_the_noise_and_claim_nothing_of_the_truth():
    f, _, family = estimated()
    problem = nm.Problem(family, nm.LMMSE(noise=0.1))
    surrogate = nm.fit(problem, tol=0.3, progress=False)
    checked = nm.certify(surrogate, problem, f[:5])
    assert checked.samples == surrogate.report.samples == str(family.measured)
    assert "about the curve through samples, not what they measure: 312 noisy ones" in str(checked)
    assert f"leaves {family.measured.left / family.measured.size:.1e} once" in str(surrogate.report).replace(
        "\n" + 14 * " ", " "
    )


def test_smoothing_keeps_dtype_shape_and_gaussian_zero():
    p = torch.linspace(0, 1, 30, dtype=torch.float32)
    A = gaussian(30, 3, 2, dtype=torch.complex64)
    family = nm.families.from_samples(p, A, noise="estimate")
    assert (family.dtype, family.shape, family.floor.dtype) == (torch.complex64, (3, 2), torch.float32)
    assert family.measured.terms <= 10  # nothing but noise
    zero = nm.families.from_samples(p, 0 * A, noise="estimate", missing="keep")
    assert (zero(p) == 0).all() and "noise of 0.0e+00" in str(zero.measured)
