"""Peers of the wireless chapters: exact where theory says so, with the stated number of solves, and not with fewer."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from conftest import assert_close, assert_raises, eps, gaussian
from scipy.interpolate import make_interp_spline

import neumatc as nm
from studies import iterations, laurent, practice, precoders, receivers, tones

WIDE = torch.complex128
N, TAPS, NOISE = 96, 3, 0.3
precisions = pytest.mark.parametrize("dtype", [torch.complex64, WIDE], ids=str)


def band(m=4, n=2, taps=TAPS, delays=None, period=N, count=N, dtype=WIDE, seed=0):
    """A channel of a few taps by its plain sum, by default on the sampling grid, their power halved from tap to tap."""
    delays = torch.arange(taps, dtype=torch.float64) if delays is None else torch.tensor(delays, dtype=torch.float64)
    a = gaussian(len(delays), m, n, dtype=WIDE, seed=seed) * (0.5 ** (torch.arange(len(delays)) / 2))[:, None, None]
    t = torch.arange(count, dtype=torch.float64)
    return torch.einsum("tl,lmn->tmn", torch.exp(-2j * math.pi * t[:, None] * delays / period), a).to(dtype)


def oracle(H, noise=NOISE):
    H = H.to(WIDE)
    return torch.linalg.solve(H.mH @ H + noise * torch.eye(H.shape[2], dtype=WIDE), H.mH)


def error(found, H, noise=NOISE):
    exact = oracle(H, noise)
    return float(torch.linalg.vector_norm(found.value.to(WIDE) - exact) / torch.linalg.vector_norm(exact))


def misses(call, H):
    """Whether a peer is refused for what its determinants have become, or is wrong."""
    try:
        return error(call(), H) > 1e-3
    except ValueError as refusal:
        return "determinants above zero" in str(refusal)


def spectral(A):
    return torch.linalg.matrix_norm(A, 2)


def projectors(V):
    return V @ V.mH


# What all share


@precisions
@pytest.mark.parametrize("shape", [(4, 2), (2, 3)], ids=str)
@pytest.mark.parametrize("name", receivers.PEERS)
def test_a_peer_keeps_dtype_and_shape_and_is_near(name, shape, dtype):
    if name == "Sionna, every tone":
        pytest.importorskip("sionna.phy")
    if name == "Chebyshev, random" and shape[0] <= shape[1]:
        pytest.skip("more antennas than streams only")
    H = band(*shape, taps=2, dtype=dtype)
    found = receivers.PEERS[name](H, NOISE, 24)
    every = name.endswith("every tone") or name.startswith("Gram")
    most = N if every else 24
    assert found.value.dtype == dtype and found.value.shape == (N, shape[1], shape[0])
    assert 0 <= found.solves <= most
    assert error(found, H) < 1  # a matrix of zeros has 1
    assert every == (found.solves == N)


@pytest.mark.parametrize("name", precoders.PEERS)
@precisions
def test_a_precoder_has_orthonormal_columns(name, dtype):
    H, k = band(2, 5, dtype=dtype), 1 if name == "spherical" else 2
    V, solves = precoders.PEERS[name](H, k, 24)
    assert V.dtype == dtype and V.shape == (N, 5, k)
    assert_close(projectors(V.mH), torch.eye(k, dtype=dtype).expand(N, k, k), units=1000)
    assert solves == (N if name == "Gram, every tone" else 24)


@pytest.mark.parametrize("peer", [*list(receivers.PEERS.values())[2:7], *list(precoders.PEERS.values())[1:]])
def test_by_default_one_tone_in_twelve_is_solved(peer):
    assert peer(band(3, 3), 1).solves == N // 12


@pytest.mark.parametrize("name", [name for name in receivers.PEERS if name != "Sionna, every tone"])
def test_bad_bands_are_refused(name):
    peer, H = receivers.PEERS[name], band()
    assert_raises(ValueError, ["`H`", "at least two tones", "got 1"], lambda: peer(H[:1], NOISE, 1))
    assert_raises(ValueError, ["`H`", "shape (N, m, n)", "got (4, 2)"], lambda: peer(H[0], NOISE, 1))
    for other in (H.real, H.numpy(), None):
        assert_raises(TypeError, ["`H`", "complex64 or complex128"], lambda other=other: peer(other, NOISE, 8))
    assert_raises(ValueError, ["`solves`", "at most the 96 tones", "got 97"], lambda: peer(H, NOISE, 97))
    assert_raises(ValueError, ["`noise`", "a finite number", "-1"], lambda: peer(H, -1.0, 8))
    lost = torch.full_like(H, torch.nan)
    assert_raises(ValueError, ["`H`", "finite entries", "NaN or Inf at tone"], lambda: peer(lost, NOISE, 13))


@pytest.mark.parametrize("peer", precoders.PEERS.values())
def test_bad_bands_are_refused_by_precoders(peer):
    H = band(2, 5)
    assert_raises(ValueError, ["`H`", "at least two tones"], lambda: peer(H[:1], 1, 1))
    assert_raises(ValueError, ["`solves`", "at most the 96 tones"], lambda: peer(H, 1, 97))
    assert_raises(ValueError, ["`rank`", "at most", "got 3"], lambda: peer(H, 3, 8))
    assert_raises(ValueError, ["`H`", "finite"], lambda: peer(torch.full_like(H, torch.nan), 1, 8))


def test_tones_that_are_not_read_may_be_missing():
    H = band()
    lost = torch.full_like(H, torch.nan)
    for peer, chosen in [
        (receivers.held, tones.grouped(N, 8)[1]),
        (receivers.linear, tones.spaced(N, 8)),
        (receivers.spline, tones.spaced(N, 8)),
        (receivers.dft, torch.arange(0, N, 12)),
        (laurent.inversion, torch.arange(9) * N // 9),
        (laurent.by_qr, torch.arange(9) * N // 9),
    ]:
        holes = lost.clone()
        holes[chosen] = H[chosen]
        found = peer(holes, NOISE, 9, taps=TAPS) if chosen.numel() == 9 else peer(holes, NOISE, 8)
        assert found.solves == len(chosen) and found.value.isfinite().all()


def test_what_is_singular_is_said():
    H = band(2, 3)
    for peer in (receivers.cholesky, receivers.held, partial(laurent.inversion, rtol=math.inf), iterations.newton):
        assert_raises(ValueError, ["`noise`", "positive definite", "raise it"], lambda peer=peer: peer(H, 0.0, 8))
    assert_raises(ValueError, ["`H`", "as many rows as columns"], lambda: laurent.by_qr(H, 0.0, taps=TAPS))
    H = band(3, 3)
    H[:, :, 2] = H[:, :, 1]
    assert_raises(ValueError, ["`noise`", "positive definite"], lambda: laurent.inversion(H, 0.0, 8))
    assert_raises(ValueError, ["`H`", "independent columns"], lambda: laurent.qr(H, taps=TAPS))


# Held, splines and the delay window


def test_held_matrices_are_exact_in_the_middles_and_constant_between():
    H = band(count=90)
    W = receivers.held(H, NOISE, 7).value
    group, middles = tones.grouped(90, 7)
    assert torch.bincount(group).tolist() == [13, 13, 13, 13, 13, 13, 12]
    assert group[middles].tolist() == list(range(7))
    assert_close(W, oracle(H)[middles][group], units=1000)


@precisions
@pytest.mark.parametrize("degree", [1, 3])
def test_splines_are_those_of_scipy(degree, dtype):
    H = band(dtype=dtype)
    W = receivers.spline(H, NOISE, 14, degree=degree).value
    chosen = tones.spaced(N, 14)
    exact = oracle(H)
    assert_close(W[chosen], exact[chosen], units=1000)
    through = make_interp_spline(chosen.numpy().astype(float), exact[chosen].numpy(), k=degree)
    assert_close(W, torch.from_numpy(through(np.arange(N, dtype=float))), units=1000)


def test_splines_converge_with_their_order():
    H = band(count=961, period=961)
    for peer, order in ((receivers.held, 1), (receivers.linear, 2), (receivers.spline, 4)):
        coarse, fine = (error(peer(H, NOISE, count), H) for count in (121, 241))
        assert 2 ** (order - 0.4) < coarse / fine < 2 ** (order + 0.6)
    needed = ["`solves`", "at least 4", "got 3"]
    assert_raises(ValueError, needed, lambda: receivers.spline(H, NOISE, 3))


def paraunitary(delays, period=N):
    """Unitary at every tone: the inverse is the adjoint, whose taps are those of the channel, backwards in time."""
    left, right = (torch.linalg.qr(gaussian(3, 3, dtype=WIDE, seed=seed)).Q for seed in (0, 1))
    t = torch.arange(N, dtype=torch.float64)
    turns = torch.exp(-2j * math.pi * t[:, None] * torch.tensor(delays, dtype=torch.float64) / period)
    return (left * turns[:, None, :]) @ right


@precisions
def test_dft_interpolation_is_exact_for_as_many_taps_and_aliases_with_fewer(dtype):
    H = paraunitary([0, 2, 5]).to(dtype)
    assert error(receivers.dft(H, 0.0, 6, first=-5), H, 0.0) < 100 * eps(dtype)
    assert error(receivers.dft(H, 0.0, 12), H, 0.0) < 100 * eps(dtype)
    assert error(receivers.dft(H, 0.0, 12, keep=6), H, 0.0) < 100 * eps(dtype)
    assert error(receivers.dft(H, 0.0, 4), H, 0.0) > 0.3  # the taps 5 and 1 cannot be told apart


def test_a_common_delay_beyond_the_window_has_to_be_told():
    H = paraunitary([40, 42, 45])
    assert error(receivers.dft(H, 0.0, 12), H, 0.0) > 0.3
    assert error(receivers.dft(H, 0.0, 12, first=-46), H, 0.0) < 100 * eps(WIDE)


def test_dft_interpolation_is_exact_where_it_solved_and_falls_with_the_taps():
    H = band(8, 2)
    found = receivers.dft(H, NOISE, 24)
    assert_close(found.value[::4], oracle(H)[::4], units=1000)
    errors = [error(receivers.dft(H, NOISE, count), H) for count in (8, 16, 32)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert error(receivers.dft(band(8, 2, delays=[0, 0.5]), NOISE, 32), band(8, 2, delays=[0, 0.5])) > errors[2]
    assert_raises(ValueError, ["`keep`", "at most 8"], lambda: receivers.dft(H, NOISE, 8, keep=9))


def test_a_window_of_delays_needs_no_sampling_grid():
    for H, middle in ((paraunitary([0.3, 2.7, 5.1]), None), (paraunitary([40.3, 42.7, 45.1]), -42.7 / N)):
        floors = [
            error(receivers.delay_window(H, 0.0, 24, width=0.5, middle=middle, floor=floor), H, 0.0)
            for floor in (1e-2, 1e-6, 1e-12)
        ]
        assert floors[0] > 10 * floors[1] > 100 * floors[2] and floors[2] < 1e-5
        assert error(receivers.dft(H, 0.0, 24, first=None if middle is None else -54), H, 0.0) > 100 * floors[1]
    H = paraunitary([40.3, 42.7, 45.1])
    assert error(receivers.delay_window(H, 0.0, 24), H, 0.0) > 0.3  # taken for a negative one, as by `dft`
    assert_raises(ValueError, ["`width`", "at most 1", "got 2"], lambda: receivers.delay_window(H, 0.0, 8, width=2.0))


# Polynomials of the delay


@pytest.mark.parametrize(
    "shape, noise, points",
    [
        ((4, 2), NOISE, 2 * 2 * 2 + 1),
        ((2, 4), NOISE, 2 * 2 * 2 + 1),
        ((3, 3), NOISE, 2 * 3 * 2 + 1),
        ((3, 3), 0.0, 3 * 2 + 1),
        ((4, 3), 0.0, 2 * 3 * 2 + 1),
        ((1, 1), NOISE, 2 * 2 + 1),
    ],
    ids=str,
)
def test_inversion_is_exact_from_its_base_points_and_not_from_one_fewer(shape, noise, points):
    H = band(*shape)
    found = laurent.inversion(H, noise, taps=TAPS)
    assert found.solves == points
    loss = float(torch.linalg.cond(H).max()) ** 2
    assert error(found, H, noise) < 1000 * loss * eps(WIDE)
    assert error(laurent.inversion(H, noise, points), H, noise) < 1000 * loss * eps(WIDE)  # taps by the points
    needed = ["`taps`", f"at most {points - 1} base points", f"got {points} of them for 3 taps"]
    assert_raises(ValueError, needed, lambda: laurent.inversion(H, noise, points - 1, taps=TAPS))
    assert error(laurent.inversion(H, noise, points - 1, rtol=math.inf), H, noise) > 1e-3


def test_the_numbers_of_base_points_are_the_least():
    """At the highest power the determinants have a coefficient that does not vanish."""
    H = band(3, 3)
    for G, powers in ((H, range(7)), (H.mH @ H + NOISE * torch.eye(3, dtype=WIDE), range(-6, 7))):
        taps = torch.fft.ifft(torch.linalg.det(G)) if len(powers) == 7 else torch.fft.ifft(torch.linalg.det(G), dim=0)
        size = taps.abs() / taps.abs().max()
        assert min(size[powers[0]], size[powers[-1]]) > 1e-4
        outside = [k for k in range(-N // 2, N // 2) if k not in powers]
        assert size[outside].max() < 1e-12


def test_inversion_in_single_precision_keeps_half_of_the_digits():
    H = band(4, 2, dtype=torch.complex64)
    found = laurent.inversion(H, NOISE, taps=TAPS)
    assert found.value.dtype == torch.complex64
    assert error(found, H) < eps(torch.complex64) ** 0.5


@precisions
@pytest.mark.parametrize("shape", [(3, 3), (5, 2)], ids=str)
def test_qr_is_that_of_every_tone(shape, dtype):
    H, (m, n) = band(*shape, dtype=dtype), shape
    Q, R, solves = laurent.qr(H, taps=TAPS, rtol=0.1)
    assert solves == 2 * n * 2 + 1
    assert (Q.dtype, R.dtype, Q.shape, R.shape) == (dtype, dtype, (N, m, n), (N, n, n))
    q, r, _ = nm.linalg.qr(H.to(WIDE))
    scale = 10 * float(torch.linalg.cond(r).max()) ** 2
    assert_close(R, r, scale=scale)
    assert_close(Q, q, scale=scale)
    assert R.tril(-1).abs().max() == 0 and R.diagonal(dim1=1, dim2=2).real.min() > 0
    if m > n:  # else the determinants even change their sign
        fewer = laurent.qr(H, solves - 1, rtol=math.inf)
        assert float((fewer.Q @ fewer.R - H).abs().max()) > 1e-3


@pytest.mark.parametrize("shape", [(4, 2), (2, 2), (1, 2)], ids=str)
def test_receivers_by_qr_are_exact_from_their_base_points_and_not_from_one_fewer(shape):
    H = band(*shape)
    found = laurent.by_qr(H, NOISE, taps=TAPS)
    assert found.solves == 2 * min(shape) * 2 + 1
    loss = (1 + float(spectral(H).max()) ** 2 / NOISE) ** 2
    assert error(found, H) < 1000 * loss * eps(WIDE)
    assert misses(lambda: laurent.by_qr(H, NOISE, found.solves - 1, rtol=math.inf), H)
    if shape[0] >= shape[1]:
        assert error(laurent.by_qr(band(), 0.0, taps=TAPS), band(), 0.0) < 1e-9
    assert_raises(ValueError, ["`H`", "as many rows as columns"], lambda: laurent.qr(band(2, 3), taps=TAPS))


def test_what_is_off_the_sampling_grid_is_refused_or_approximated():
    H = band(delays=[0, 0.7, 1.9])
    assert_raises(ValueError, ["`H`", "3 taps on the grid of 96", "misfit"], lambda: laurent.inversion(H, 0.1, taps=3))
    assert_raises(ValueError, ["`H`", "misfit"], lambda: laurent.by_qr(H, 0.1, taps=3))
    assert_raises(ValueError, ["`H`", "misfit"], lambda: laurent.gram_interpolated(H, 0.1, taps=3))
    assert error(laurent.inversion(H, 0.1, taps=3, rtol=math.inf), H, 0.1) > 1e-3


def test_too_many_base_points_and_lost_digits_are_refused():
    H = band(8, 8, taps=7)
    needed = ["`taps`", "at most 96 base points", "got 97 of them for 7 taps", "too long or its matrices too large"]
    assert_raises(ValueError, needed, lambda: laurent.inversion(H, NOISE, taps=7))
    fading = 1e-9 + 1 + torch.exp(-2j * math.pi * torch.arange(N, dtype=torch.float64) / N)  # a zero at tone 48
    H = fading[:, None, None].to(WIDE) * torch.eye(3, dtype=WIDE)
    words = ["`H`", "determinants above zero, with an accuracy", "they fall to"]
    assert_raises(ValueError, words, lambda: laurent.inversion(H, 0.0, taps=2))
    assert_raises(ValueError, words, lambda: laurent.qr(H, taps=2))


def test_base_points_on_a_part_of_the_circle_lose_digits_with_their_number():
    H = band(4, 2, period=2 * N)
    assert error(laurent.inversion(H, NOISE, taps=TAPS, period=2 * N), H) < 1e-9
    few, many = (laurent._Base(H, None, taps, 2 * N, 4, 2, math.inf).condition for taps in (3, 6))
    whole = laurent._Base(band(4, 2), None, 6, None, 4, 2, math.inf).condition
    assert whole < 2 < few < many / 100
    assert_raises(ValueError, ["`period`", "at least 96", "got 95"], lambda: laurent.inversion(H, NOISE, period=N - 1))


@pytest.mark.parametrize("shape", [(6, 2), (2, 3)], ids=str)
def test_gram_matrices_are_exact_from_their_base_points_and_not_from_one_fewer(shape):
    H = band(*shape)
    found = laurent.gram_interpolated(H, NOISE, taps=TAPS)
    assert found.solves == N
    loss = 1 + float(spectral(H).max()) ** 2 / NOISE
    assert error(found, H) < 100 * loss * eps(WIDE)
    assert error(laurent.gram_interpolated(H, NOISE, 5, taps=TAPS), H) < 100 * loss * eps(WIDE)
    needed = ["`taps`", "at most 4 base points", "got 5"]
    assert_raises(ValueError, needed, lambda: laurent.gram_interpolated(H, NOISE, 4, taps=TAPS))
    errors = [error(laurent.gram_interpolated(H, NOISE, count), H) for count in (20, 39, N)]
    assert errors[0] > 3 * errors[1] and errors[2] < 100 * loss * eps(WIDE)


# Approximate inverses


@pytest.mark.parametrize("start", iterations.STARTS)
@pytest.mark.parametrize("shape", [(8, 3), (3, 3)], ids=str)
def test_intervals_hold_all_eigenvalues(shape, start):
    begin = iterations.begun(band(*shape), NOISE, 12, start)
    values = torch.linalg.eigvals(begin.X @ begin.A)
    assert values.imag.abs().max() < 1e-10
    assert (begin.low[:, :, 0] <= values.real * (1 + 1e-12)).all()
    assert (values.real <= begin.high[:, :, 0] * (1 + 1e-12)).all()
    assert (begin.low > 0).all() and begin.solves == (12 if start == "neighbour" else 0)
    X, E = begin.scaled()
    assert torch.linalg.eigvals(E).abs().max() < 1
    assert_close(E, torch.eye(shape[1], dtype=WIDE) - X @ begin.A, units=1000)


def energy_norm(begin, X):
    """The norm of I - X A that A itself induces, in which I - alpha X_0 A is Hermitian."""
    values, vectors = torch.linalg.eigh(begin.A)
    root = (vectors * values.sqrt()[:, None, :]) @ vectors.mH
    inverse = (vectors / values.sqrt()[:, None, :]) @ vectors.mH
    return spectral(root @ (torch.eye(X.shape[1], dtype=WIDE) - X @ begin.A) @ inverse)


def inverses(peer, H, start, **options):
    """The approximate inverses themselves: H has orthonormal rows, so that W H = X."""
    begin = iterations.begun(H, NOISE, 12, start)
    W = peer(H, NOISE, 12, start=start, **options).value
    return begin, W @ torch.linalg.pinv(H.mH)


@pytest.mark.parametrize("start", iterations.STARTS)
def test_a_neumann_series_converges_with_its_geometric_rate(start):
    H = band(12, 3)
    norms = []
    for terms in (1, 2, 3, 6):
        begin, X = inverses(iterations.neumann, H, start, terms=terms)
        norms.append(energy_norm(begin, X))
    rate = norms[0]  # the spectral radius of I - alpha X_0 A
    bound = ((begin.high - begin.low) / (begin.high + begin.low))[:, 0, 0]
    assert (rate <= bound + 1e-11).all() and (rate < 1).all()
    for norm, terms in zip(norms[1:], (2, 3, 6)):
        torch.testing.assert_close(norm, rate**terms, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize("start", iterations.STARTS)
def test_newton_squares_the_residual(start):
    H = band(12, 3)
    norms = [energy_norm(*inverses(iterations.newton, H, start, steps=steps)) for steps in (0, 1, 2)]
    for before, after in itertools.pairwise(norms):
        torch.testing.assert_close(after, before**2, rtol=1e-5, atol=1e-11)
    twice = iterations.newton(H, NOISE, 12, start=start, steps=2).value
    assert_close(twice, iterations.neumann(H, NOISE, 12, start=start, terms=4).value, units=1000)


@pytest.mark.parametrize("start", iterations.STARTS)
def test_chebyshev_is_within_its_bound(start):
    H, steps = band(12, 3), 4
    begin, X = inverses(iterations.chebyshev, H, start, steps=steps)
    ratio = ((begin.high + begin.low) / (begin.high - begin.low))[:, 0, 0]
    bound = 1 / torch.cosh(steps * torch.acosh(ratio))
    assert (energy_norm(begin, X) <= bound * (1 + 1e-6) + 1e-12).all()
    own = torch.linalg.eigvals(begin.X @ begin.A).real
    interval = float(own.min()), float(own.max())
    known = energy_norm(*inverses(iterations.chebyshev, H, start, steps=steps, interval=interval))
    ratio = (interval[1] + interval[0]) / (interval[1] - interval[0])
    assert known.max() <= 1 / math.cosh(steps * math.acosh(ratio)) * (1 + 1e-6)
    first = iterations.chebyshev(H, NOISE, 12, start=start, steps=1).value
    assert_close(first, iterations.neumann(H, NOISE, 12, start=start, terms=1).value, units=100)


def test_with_many_antennas_the_interval_of_random_matrices_beats_gershgorin():
    H = gaussian(4, 512, 16, dtype=WIDE) / 512**0.5
    found = {
        interval: error(iterations.chebyshev(H, 1e-3, start="diagonal", steps=6, interval=interval), H, 1e-3)
        for interval in (None, "random")
    }
    assert found["random"] < 0.01 < found[None]
    words = ["`H`", "more antennas than streams", "got (3, 3)"]
    assert_raises(ValueError, words, lambda: iterations.chebyshev(band(3, 3), 0.1, 8, interval="random"))


def test_a_nearer_neighbour_is_a_better_start():
    H = band(8, 4)
    for peer in (iterations.neumann, iterations.newton, iterations.chebyshev):
        assert error(peer(H, NOISE, 12), H) > 4 * error(peer(H, NOISE, 24), H)
        assert error(peer(H, NOISE, N), H) < 1e-13
        blocks = [error(peer(H, NOISE, start="block", block=size), H) for size in (1, 4)]
        assert blocks[0] > blocks[1] < 1e-13
        assert blocks[0] == pytest.approx(error(peer(H, NOISE, start="diagonal"), H))


def test_iterations_refuse_what_they_cannot_do():
    H = band()
    calls = [
        (["`start`", "'neighbour'", "'guess'"], lambda: iterations.neumann(H, NOISE, 8, start="guess")),
        (["`terms`", "at least 1"], lambda: iterations.neumann(H, NOISE, 8, terms=0)),
        (["`block`", "at least 1"], lambda: iterations.newton(H, NOISE, 8, block=0)),
        (["`interval`", "above 0"], lambda: iterations.chebyshev(H, NOISE, 8, interval=(0.0, 1.0))),
        (["`interval`", "at least 2"], lambda: iterations.chebyshev(H, NOISE, 8, interval=(2.0, 1.0))),
        (["`interval`", "above zero", "give an"], lambda: iterations.chebyshev(band(3, 3), 0.0, 2)),
    ]
    for words, call in calls:
        assert_raises(ValueError, words, call)


# Precoders


def along_a_geodesic(angles, n=7, count=N, seed=0):
    """Channels whose leading right singular subspace turns steadily by the given angles, and that subspace."""
    k = len(angles)
    basis = torch.linalg.qr(gaussian(n, n, dtype=WIDE, seed=seed)).Q
    t = torch.linspace(0, 1, count, dtype=torch.float64)[:, None] * torch.tensor(angles, dtype=torch.float64)
    V = basis[:, :k] * t.cos()[:, None, :] + basis[:, k : 2 * k] * t.sin()[:, None, :]
    values = torch.arange(k, 0, -1, dtype=torch.float64)
    return values[:, None] * V.mH, V


@pytest.mark.parametrize("angles", [(1.2,), (0.3, 1.4), (0.0, 0.5), (1e-9, 1e-3)], ids=str)
@pytest.mark.parametrize("solves", [2, 5])
def test_geodesics_are_reproduced(angles, solves):
    H, V = along_a_geodesic(angles, count=97)
    found = precoders.geodesic(H, len(angles), solves)
    assert found.solves == solves
    assert_close(projectors(found.value), projectors(V), units=5000)


def test_geodesics_do_not_depend_on_the_basis_and_are_of_second_order():
    H = band(3, 6)
    turned = (
        H
        * torch.exp(6j * torch.rand(N, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[:, None, None]
    )
    pair = [projectors(precoders.geodesic(x, 1, 12).value) for x in (H, turned)]
    assert_close(*pair, units=10000)
    exact = projectors(precoders.by_gram(H, 1).value)
    coarse, fine = (float((projectors(precoders.geodesic(H, 1, k).value) - exact).norm()) for k in (20, 39))
    assert coarse > 3 * fine


def test_spherical_beamformers_meet_their_tones_and_choose_the_best_phase():
    H = band(2, 4)
    chosen = tones.spaced(N, 12)
    exact = projectors(precoders.by_gram(H, 1).value)
    rates = {}
    for phases in (1, 4, 64):
        v = precoders.spherical(H, 1, 12, phases=phases).value
        assert_close(projectors(v)[chosen], exact[chosen], units=1000)
        rates[phases] = torch.linalg.vector_norm(H @ v, dim=(1, 2))
    middles = (chosen[:-1] + chosen[1:]) // 2
    assert (rates[64] >= rates[4] - 1e-12)[middles].all() and (rates[4] >= rates[1] - 1e-12)[middles].all()
    assert float((projectors(precoders.spherical(H, 1, N).value) - exact).abs().max()) < 1e-12
    assert_raises(ValueError, ["`rank`", "at most 1", "got 2"], lambda: precoders.spherical(H, 2, 8))


def test_a_beamformer_that_turns_in_a_plane_is_followed():
    H, V = along_a_geodesic([0.2], count=97)
    found = projectors(precoders.spherical(H, 1, 2, phases=64).value)
    # The phase is known to 1/64 of a turn, and a weighted sum is not quite the geodesic.
    assert float((found - projectors(V)).norm(dim=(1, 2)).max()) < 0.02


def test_precoders_of_groups_are_those_of_practice():
    H = band(3, 5)
    for peer, interpolated in ((precoders.held, False), (precoders.aligned, True)):
        V, solves = peer(H, 2, 10)
        assert solves == 10
        assert torch.equal(V, practice.group_precoders(H, 2, 10, interpolated=interpolated))
    best = practice.precoded_rate(H, precoders.by_gram(H, 2).value, NOISE)
    for peer in (precoders.held, precoders.aligned, precoders.geodesic):
        assert (practice.precoded_rate(H, peer(H, 2, 24).value, NOISE) <= best * (1 + 1e-12)).all()


# Sionna


@precisions
def test_receivers_are_those_of_sionna(dtype):
    (equalise,) = sionna("lmmse_equalizer")
    H = band(4, 2, dtype=dtype)
    assert_close(receivers.sionna(H, NOISE).value, oracle(H), units=1000)
    y = gaussian(N, 4, dtype=dtype, seed=3)
    S = (NOISE * torch.eye(4, dtype=dtype)).expand(N, 4, 4)
    precision = "single" if dtype == torch.complex64 else "double"
    theirs, noise = equalise(y, H, S, precision=precision)
    W = receivers.cholesky(H, NOISE).value
    gains = (W @ H).diagonal(dim1=1, dim2=2)
    assert_close((W @ y[:, :, None])[:, :, 0] / gains, theirs.to(WIDE), units=1000)
    assert_close(nm.wireless.post_equalisation_noise(H, W, NOISE), noise.double(), units=1000)
    assert_raises(ValueError, ["`noise`", "above 0"], lambda: receivers.sionna(H, 0.0))


@precisions
def test_regularised_precoders_are_those_of_sionna(dtype):
    sionna("rzf_precoding_matrix")
    H = band(2, 5, dtype=dtype)
    ours = precoders.regularised(receivers.cholesky(H, NOISE).value)
    assert ours.dtype == dtype
    assert_close(ours, precoders.sionna_regularised(H, NOISE).to(WIDE), units=1000)


def sionna(*names):
    module = pytest.importorskip("sionna.phy.mimo")
    return [getattr(module, name) for name in names]


# Side by side


def test_all_peers_stand_side_by_side():
    H = band(5, 3, taps=2)
    rows = receivers.compared(H, NOISE, 24)
    assert [row.name for row in rows] == list(receivers.PEERS)
    by_name = {row.name: row for row in rows}
    for row in rows:
        if row.refused:
            assert row.name == "Sionna, every tone" and math.isnan(row.error) and math.isnan(row.seconds)
            continue
        exact = row.name.startswith(("Cholesky", "Sionna", "interpolated"))
        assert row.error <= row.worst and row.seconds > 0 and -1e-12 < row.loss < 1
        assert row.worst < 1e-9 if exact else row.error > 1e-12
    assert by_name["held"].error > by_name["linear"].error > by_name["cubic spline"].error
    assert by_name["held"].loss > by_name["linear"].loss > by_name["cubic spline"].loss
    found = receivers.held(H, NOISE, 24)
    assert by_name["held"].error == pytest.approx(error(found, H)) and by_name["held"].solves == 24


def test_a_peer_that_refuses_says_why():
    H = band(3, 3)
    rows = receivers.compared(H, NOISE, 3, {"cubic": receivers.spline, "held": receivers.held})
    assert "`solves`: expected at least 4" in rows[0].refused and math.isnan(rows[0].loss)
    assert rows[1].refused == "" and rows[1].solves == 3
    assert_raises(ValueError, ["`noise`", "above 0"], lambda: receivers.compared(H, 0.0, 3))
    assert_raises(ValueError, ["`calls`"], lambda: receivers.compared(H, NOISE, 3, calls=0))
    assert_raises(ValueError, ["`every`"], lambda: receivers.compared(H, NOISE, 3, every=0))


@pytest.mark.parametrize("N", [96, 240, 3276])
@pytest.mark.parametrize("least", [2, 5, 12])
def test_a_stride_shares_no_divisor_with_the_spacing_of_any_peers_tones(N, least):
    for step in range(1, math.isqrt(N)):
        count = -(-N // step)  # what `dft` solves
        middles, ends = tones.grouped(N, count)[1], tones.spaced(N, count)
        spacings = {step, *middles.diff().tolist()[1:-1], *ends.diff().tolist()}
        stride = tones.coprime(N, count, least)
        assert least <= stride < least + 20
        assert all(math.gcd(stride, spacing) == 1 for spacing in spacings), step
    assert tones.coprime(N, 7, 1) == 1 and tones.coprime(N, 0, 5) == tones.coprime(N, N, 5) == 5


# At these numbers of solves the tones of some peer are three, four, five, six, or twelve apart.
@pytest.mark.parametrize("solves", [20, 40, 48, 60, 80])
@pytest.mark.parametrize("name", ["held", "linear", "cubic spline", "DFT", "Neumann, neighbour", "Gram, linear"])
def test_no_peer_is_judged_at_its_own_tones_alone(name, solves):
    H, peer = band(5, 3, taps=8, period=240, count=240), {name: receivers.PEERS[name]}
    whole, some = (receivers.compared(H, NOISE, solves, peer, calls=1, every=every)[0] for every in (1, 5))
    assert whole.error > 1e-12
    assert some.error == pytest.approx(whole.error, rel=0.3) and some.worst <= whole.worst * (1 + 1e-9)


@pytest.mark.parametrize("calls", [1, 4])
def test_peers_are_called_as_often_as_asked_and_judged_at_some_tones(calls):
    H, called = band(), []

    def peer(*arguments):
        called.append(arguments)
        return receivers.held(*arguments)

    (row,) = receivers.compared(H, NOISE, 8, {"held": peer}, calls=calls, every=5)
    assert len(called) == calls and all(len(H) == N for H, *_ in called), "a peer sees the whole band"
    W = receivers.held(H, NOISE, 8)
    assert row.error == pytest.approx(error(tones.Filters(W.value[::5], 8), H[::5]), rel=1e-10)
    assert row.error != pytest.approx(error(W, H), rel=1e-3)
