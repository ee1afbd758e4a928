"""Peers of the wireless chapters: receivers of a whole OFDM band from few exact solves, or none.

All are called as ``peer(H, noise, solves)``, the channels H (N, m, n) on the grid of tones, complex64 or complex128, on
the CPU; most have further options by name. They return `studies.tones.Filters`, the matrices W (N, n, m) and the exact
solves that they took. Those of other modules are `studies.laurent` (polynomials of the delay) and `studies.iterations`;
precoders have `studies.precoders`. What base stations do of this is in `studies.practice`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.interpolate import BSpline, make_interp_spline
from torch import Tensor

import neumatc as nm
from neumatc import checks
from studies import iterations, laurent, practice, tones
from studies.tones import Filters

# Part of the delays whose energy decides where the window of `dft` lies.
_CORE = 0.75


def cholesky(H: Tensor, noise: float, solves: int | None = None) -> Filters:
    """Solve every tone, by batched Cholesky factorisation on all cores.

    Args:
        H: Channels on the grid of tones, shape (N, m, n).
        noise: s, the power of the noise; 0 for zero forcing.
        solves: Not used; there for the signature that all share.

    Returns:
        W, shape (N, n, m), of the dtype of H, and N.

    Raises:
        ValueError: For NaN or Inf, or a Gram matrix that is not positive definite to rounding.
    """
    tones.budget(H, solves)
    return Filters(tones.lmmse(tones.read(H, slice(None)), noise), len(H))


def sionna(H: Tensor, noise: float, solves: int | None = None) -> Filters:
    """Solve every tone as Sionna does, whitened: `studies.practice.sionna_lmmse`.

    Args:
        H: Channels on the grid of tones, shape (N, m, n).
        noise: s, above zero.
        solves: Not used; there for the signature that all share.

    Returns:
        W, shape (N, n, m), of the dtype of H, and N.

    Raises:
        ValueError: For NaN or Inf, or a noise that is not above zero.
        ImportError: Without Sionna.
    """
    tones.budget(H, solves)
    noise = checks.number("noise", noise, above=0)
    return Filters(practice.sionna_lmmse(tones.read(H, slice(None)), noise), len(H))


def held(H: Tensor, noise: float, solves: int | None = None) -> Filters:
    """Hold the matrix of a group's middle tone over the group, much as 5G does with precoders (3GPP TS 38.214).

    Args:
        H: Channels on the grid of tones, shape (N, m, n). Only the middles of the groups are read.
        noise: s, the power of the noise; 0 for zero forcing.
        solves: Groups, equally large up to one tone. Default: of 12 tones.

    Returns:
        W, shape (N, n, m), of the dtype of H, and the exact solves.

    Raises:
        ValueError: For NaN or Inf, a Gram matrix that is not positive definite to rounding, or too many solves.
    """
    count = tones.budget(H, solves)
    group, middles = tones.grouped(len(H), count)
    return Filters(tones.lmmse(tones.read(H, middles), noise)[group], len(middles))


def spline(H: Tensor, noise: float, solves: int | None = None, *, degree: int = 3) -> Filters:
    """Interpolate the matrices entry by entry, by a cubic spline or linearly (SciPy, not-a-knot).

    Args:
        H: Channels on the grid of tones, shape (N, m, n). Only solved tones are read.
        noise: s, the power of the noise; 0 for zero forcing.
        solves: Tones to solve, as equally spaced as the grid allows, both ends among them; at least ``degree + 1``.
            Default: one in 12.
        degree: 3 or 1.

    Returns:
        W, shape (N, n, m), of the dtype of H, and the exact solves.

    Raises:
        ValueError: For NaN or Inf, a Gram matrix that is not positive definite to rounding, another degree, or too few
            or many solves.
    """
    degree = checks.choice("degree", degree, (1, 3))
    count = tones.budget(H, solves, degree + 1)
    chosen = tones.spaced(len(H), count)
    W = tones.lmmse(tones.read(H, chosen), noise)
    rows = torch.view_as_real(W).flatten(1).numpy()
    through = make_interp_spline(chosen.numpy().astype(float), rows, k=degree)
    basis = BSpline.design_matrix(np.arange(len(H), dtype=float), through.t, degree, extrapolate=True)
    value = basis.astype(rows.dtype) @ np.ascontiguousarray(through.c, dtype=rows.dtype)
    return Filters(torch.view_as_complex(torch.from_numpy(value).view(len(H), *W.shape[1:], 2)), len(chosen))


linear = partial(spline, degree=1)


def dft(
    H: Tensor, noise: float, solves: int | None = None, *, keep: int | None = None, first: int | None = None
) -> Filters:
    r"""Interpolate the matrices by their taps: transform equally spaced ones, window the delays, transform back.

    .. math:: C_l = \frac{1}{S} \sum_{i < S} W(i D) \, e^{2 \pi j i l / S}, \qquad
              W(t) = \sum_{l = l_0}^{l_0 + K - 1} C_l \, e^{-2 \pi j t l / (S D)}

    An inverse has taps without end, in both directions of time. Those whose delays differ by S cannot be told apart
    (they alias): the error is that of all taps outside of the window, which come back inside. A common delay of all
    users above S/2 is taken for a negative one, unless ``first`` tells. The band counts as a circle of S D tones: where
    its ends do not meet, as with delays off the sampling grid or guard tones, it rings near them.

    Source: Kashyap, Mollén, Björnson and Larsson, IEEE SPAWC 2016, for zero forcing, where many antennas make the taps
    of the inverse few.

    Args:
        H: Channels on the grid of tones, shape (N, m, n). Only solved tones are read.
        noise: s, the power of the noise; 0 for zero forcing.
        solves: The most tones to solve: every D-th one from the first on, D the least with which they suffice.
            Default: every 12th.
        keep: K, the width of the window, at most S. Default: S, and W is exact at solved tones.
        first: l_0. Default: so that the window, or for K = S three quarters of the circle in its middle, has the most
            energy, and with the middle nearest to zero.

    Returns:
        W, shape (N, n, m), of the dtype of H, and S.

    Raises:
        ValueError: For NaN or Inf, a Gram matrix that is not positive definite to rounding, or solves or a window out
            of range.
    """
    count, N = tones.budget(H, solves), len(H)
    step = -(-N // count)
    W = tones.lmmse(tones.read(H, slice(None, None, step)), noise)
    S = len(W)
    keep, taps = S if keep is None else checks.integer("keep", keep, 1, S), torch.fft.ifft(W, dim=0)
    first = _window(taps, keep) if first is None else checks.integer("first", first, -N, N)
    kept = taps[(first + torch.arange(keep)) % S]
    return Filters(tones.response(kept, first, S * step, N), S)


def delay_window(
    H: Tensor,
    noise: float,
    solves: int | None = None,
    *,
    width: float = 0.75,
    middle: float | None = None,
    floor: float = 1e-6,
) -> Filters:
    r"""Interpolate the matrices by delays of a window that need not be on the sampling grid, of least energy.

    .. math:: W(t) = \sum_k C_k \, e^{-2 \pi j t \tau_k}, \qquad
              C = \Phi^H (\Phi \Phi^H + \varepsilon K I)^{-1} W_S, \qquad
              \Phi_{ik} = e^{-2 \pi j t_i \tau_k},

    K delays at half the spacing of the band's sampling grid, so that its ends need not meet. It is the LMMSE
    interpolation of something whose delays are equally likely in the window, with as much as :math:`\varepsilon` of its
    energy outside, as Edfors et al. (IEEE Trans. Commun. 46, 1998) estimate channels; to use it for receivers is our
    reading of what a strong engineer would do with `dft` on a band with edges. What has delays outside of the window is
    lost. A wide window holds more of them, and errs more near the ends of the band.

    Args:
        H: Channels on the grid of tones, shape (N, m, n). Only solved tones are read.
        noise: s, the power of the noise; 0 for zero forcing.
        solves: S, equally spaced tones to solve, both ends among them, at least 2. Default: one in 12.
        width: Width of the window as a part of the delays that so many tones can tell apart, above 0, at most 1.
        middle: Its middle in cycles a tone, a delay times the spacing of tones. Default: the circular mean of the
            energy.
        floor: :math:`\varepsilon`, above 0. Near the rounding it is exact for few delays, and magnifies the others.

    Returns:
        W, shape (N, n, m), of the dtype of H, and S.

    Raises:
        ValueError: For NaN or Inf, a Gram matrix that is not positive definite to rounding, or solves, a window or a
            floor out of range.
    """
    floor = checks.number("floor", floor, above=0)
    count, N = tones.budget(H, solves, 2), len(H)
    width, chosen = checks.number("width", width, above=0, at_most=1), tones.spaced(N, count)
    W = tones.lmmse(tones.read(H, chosen), noise)
    S, step, period = len(W), (N - 1) / (len(W) - 1), 2 * N
    if middle is None:
        # The phase by which the matrices turn from one solved tone to the next, all together.
        turn = torch.vdot(W[:-1].flatten(), W[1:].flatten())
        middle = -float(turn.angle()) / (2 * math.pi * step)
    middle = checks.number("middle", middle, at_least=-1, at_most=1)
    K = max(1, round(width * period / step))
    first = round(middle * period - (K - 1) / 2)
    angles = chosen.double()[:, None] * torch.arange(first, first + K, dtype=torch.float64)
    phi = torch.exp(-2j * math.pi / period * angles)
    kernel = phi @ phi.mH
    # No less than the rounding of a Cholesky factorisation, or there is none; then torch would raise an error.
    kernel.diagonal().add_(K * max(floor, 8 * S * torch.finfo(torch.float64).eps))
    inverse = torch.cholesky_solve(phi, torch.linalg.cholesky(kernel)).mH.to(W.dtype)
    return Filters(tones.response((inverse @ W.flatten(1)).unflatten(1, W.shape[1:]), first, period, N), S)


def _window(taps: Tensor, keep: int) -> int:
    """Return where a window of so many delays begins on the circle, as an integer about zero."""
    S = len(taps)
    core = min(keep, math.ceil(_CORE * S))
    energy = taps.abs().square().sum(dim=(1, 2)).double()
    sums = torch.cat([energy, energy[: core - 1]]).unfold(0, core, 1).sum(dim=1)
    first = int(sums.argmax()) - (keep - core) // 2
    return first - S * round((first + keep / 2) / S)


# By name; each is called with H, noise and solves.
PEERS: dict[str, Callable[..., Filters]] = {
    "Cholesky, every tone": cholesky,
    "Sionna, every tone": sionna,
    "held": held,
    "linear": linear,
    "cubic spline": spline,
    "DFT": dft,
    "delay window": delay_window,
    "interpolated inversion": partial(laurent.inversion, rtol=math.inf),
    "interpolated QR": partial(laurent.by_qr, rtol=math.inf),
    "Gram, linear": laurent.gram_interpolated,
    "Neumann, diagonal": partial(iterations.neumann, start="diagonal"),
    "Neumann, block": partial(iterations.neumann, start="block"),
    "Neumann, neighbour": iterations.neumann,
    "Chebyshev, diagonal": partial(iterations.chebyshev, start="diagonal"),
    "Chebyshev, random": partial(iterations.chebyshev, start="diagonal", interval="random"),
    "Chebyshev, neighbour": iterations.chebyshev,
    "Newton, diagonal": partial(iterations.newton, start="diagonal"),
    "Newton, neighbour": iterations.newton,
}


class Row(NamedTuple):
    """What one peer did.

    Attributes:
        name: A key of `PEERS`.
        solves: Exact solves that it took.
        error: Relative error in the Frobenius norm over the band, against exact receivers in double precision.
        worst: That of the worst tone.
        loss: Part of the mean sum rate that is lost.
        seconds: The shortest call. Ratios to show come from `studies.benchmark.compare`.
        refused: Why there are no numbers, or nothing.
    """

    name: str
    solves: int
    error: float
    worst: float
    loss: float
    seconds: float
    refused: str = ""


def compared(
    H: Tensor,
    noise: float,
    solves: int,
    peers: dict[str, Callable[[Tensor, float, int], Filters]] = PEERS,
    *,
    calls: int = 3,
    every: int = 1,
) -> list[Row]:
    """Run peers with the same number of exact solves, or at most that, on one band.

    Those that solve or factorise every tone say so in their row, and so do those that solve none.

    Args:
        H: Channels on the grid of tones, shape (N, m, n).
        noise: s, the power of the noise, above zero.
        solves: Exact solves that each may take.
        peers: By name. Default: all receivers.
        calls: How often each is called, at least once; one is enough for errors.
        every: Above 1 only every so many tones are judged, the first among them, or few more apart: as far as it takes
            to have no divisor in common with the spacing of a peer's exact solves (`tones.coprime`).

    Returns:
        One row for each peer, in their order. A peer that cannot work with this channel or so few solves, or that is
        not installed, has NaN and its message.

    Raises:
        ValueError: For NaN or Inf in H, a noise that is not above zero, or ``calls`` or ``every`` below 1.
    """
    solves, noise = tones.budget(H, solves), checks.number("noise", noise, above=0)
    calls, every = checks.integer("calls", calls, 1), checks.integer("every", every, 1)
    wide = tones.read(H, slice(None)).to(torch.complex128)
    exact, rows = tones.lmmse(wide, noise), []
    sizes = torch.linalg.vector_norm(exact.flatten(1), dim=1)
    best = nm.wireless.sum_rate(wide, exact, noise)
    for name, peer in peers.items():
        try:
            value, count, seconds = _timed(calls, peer, H, noise, solves)
        except (ValueError, ImportError) as refusal:
            rows.append(Row(name, 0, *4 * [math.nan], str(refusal)))
            continue
        judged = slice(None, None, tones.coprime(len(H), count, every))
        W = value[judged].to(torch.complex128)
        errors = torch.linalg.vector_norm((W - exact[judged]).flatten(1), dim=1)
        loss = 1 - float(nm.wireless.sum_rate(wide[judged], W, noise).mean() / best[judged].mean())
        error, worst = errors.norm() / sizes[judged].norm(), (errors / sizes[judged]).max()
        rows.append(Row(name, count, float(error), float(worst), loss, seconds))
    return rows


def _timed(calls: int, peer: Callable[..., Filters], *arguments: object) -> tuple[Tensor, int, float]:
    """Return what a peer returns, and the shortest time of some calls."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        result = peer(*arguments)
        times.append(time.perf_counter() - start)
    return *result, min(times)
