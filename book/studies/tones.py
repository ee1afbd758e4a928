"""Tones of an OFDM band: which are solved exactly, how that is checked, and what lies between them."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from neumatc import checks, linalg

# Tones of a resource block of 5G, for which one matrix is computed unless more or fewer are asked for.
GROUP = 12
# Steps of a grid beyond the least that are looked at, where its number of tones allows several.
_CLOSE = 4


class Filters(NamedTuple):
    """One matrix for each tone, and how many were computed exactly.

    Attributes:
        value: Receivers W (N, n, m) or precoders V (N, n, k).
        solves: Exact solves, of all of which the count is the same: a factorisation of one tone's full problem.
    """

    value: Tensor
    solves: int


def budget(H: Tensor, solves: int | None, least: int = 1) -> int:
    """Return how many tones are to be solved exactly, after a look at the band.

    Args:
        H: Channels on the grid of tones, shape (N, m, n), complex64 or complex128, at least two tones, on the CPU.
            Values are not read here, but by `read`.
        solves: That number; None for one in a group of 12 tones, and not fewer than ``least``.
        least: How many the method needs.

    Returns:
        The number, from ``least`` to N.

    Raises:
        TypeError: If H is not a complex tensor.
        ValueError: If H has not three dimensions, fewer than two tones, or is not on the CPU; for too few or too many
            solves.
    """
    good = isinstance(H, Tensor) and H.dtype in checks.COMPLEX.values()
    remedy = "convert it with `.to(torch.complex64)`"
    checks.require(good, "H", "a tensor, complex64 or complex128", checks.describe(H), remedy, TypeError)
    good, remedy = H.ndim == 3 and 0 not in H.shape, "put the tones along the first axis"
    checks.require(good, "H", "shape (N, m, n)", tuple(H.shape), remedy)
    remedy = "bring it there with `.cpu()`"
    checks.require(H.device.type == "cpu", "H", "a tensor on the CPU", H.device, remedy)
    N = len(H)
    checks.require(N > 1, "H", "a band of at least two tones", N, "solve one tone exactly: `nm.peers.torch_lmmse`")
    solves = checks.integer("solves", max(least, -(-N // GROUP)) if solves is None else solves, least)
    checks.require(solves <= N, "solves", f"at most the {N} tones of `H`", solves, "lower it, or give more tones")
    return solves


def read(H: Tensor, tones: Tensor | slice) -> Tensor:
    """Return the channels of some tones, whose entries have to be finite.

    Raises:
        ValueError: If one of them holds NaN or Inf.
    """
    chosen = H[tones].resolve_conj().resolve_neg()
    good = checks.finite(chosen)
    if not good.all():
        i = int(torch.arange(len(H))[tones][int(torch.argmin(good.int()))])
        got = f"NaN or Inf at tone {i} ({int((~good).sum())} of {len(good)} that are read)"
        checks.require(False, "H", "finite entries", got, "leave such tones out, or estimate them again")
    return chosen


def lmmse(H: Tensor, noise: float) -> Tensor:
    """Compute the LMMSE receivers (H^H H + s I)^{-1} H^H from the inverse of the smaller Gram matrix, on all cores.

    Args:
        H: Channels, shape (B, m, n).
        noise: s, the power of the noise; 0 for zero forcing, if H has full column rank.

    Returns:
        Shape (B, n, m), of the dtype of H.

    Raises:
        ValueError: If the noise is negative, or a Gram matrix not positive definite to rounding.
    """
    noise, wide = checks.number("noise", noise, at_least=0), H.shape[1] < H.shape[2] and noise > 0

    def solve(h: Tensor) -> tuple[Tensor, Tensor]:
        X, failed = _inverse(linalg.gram(h.mH if wide else h, noise))
        return (h.mH @ X if wide else X @ h.mH), failed

    W, failed = linalg.in_threads(solve, H)
    defined(~failed, noise)
    return W


def positive_inverse(A: Tensor, noise: float) -> Tensor:
    """Invert Hermitian positive definite matrices, H^H H + s I with the noise s, on all cores.

    Args:
        A: Shape (B, n, n).
        noise: s, for the message.

    Returns:
        The inverses, of the shape and dtype of A.

    Raises:
        ValueError: If one is not positive definite to rounding.
    """
    X, failed = linalg.in_threads(_inverse, A)
    defined(~failed, noise)
    return X


def _inverse(A: Tensor) -> tuple[Tensor, Tensor]:
    """Return inverses by Cholesky, and True where A is not positive definite, or its condition not below 1 / eps.

    Their products with many right-hand sides were faster than torch's `cholesky_solve`.
    """
    L, info = torch.linalg.cholesky_ex(A)
    broken = info != 0
    X = torch.cholesky_inverse(torch.where(broken[:, None, None], linalg.identity_like(A), L))
    return X, broken | ~(linalg.norm(A) * linalg.norm(X) * torch.finfo(A.dtype).eps < 1)


def defined(good: Tensor, noise: float) -> None:
    """Raise a ValueError unless all Gram matrices were positive definite to rounding."""
    got = f"{noise:g}, with which it is not for {int((~good).sum())} of {len(good)} tones"
    remedy = "raise it, or use complex128"
    checks.require(good.all(), "noise", "a power for which H^H H + s I is positive definite to rounding", got, remedy)


def spaced(N: int, count: int) -> Tensor:
    """Return so many tones of N, the first, the last, and others between them, as equally spaced as the grid allows."""
    return torch.linspace(0, N - 1, count, dtype=torch.float64).round().long()


def coprime(N: int, count: int, least: int) -> int:
    """Return the least stride, from a number on, at which a way that has so many of N tones can be judged.

    It shares no divisor with the spacing of these tones, be they middles of groups, on a grid, or `spaced`. One that
    does sees some of the places between them and never the others; in the worst case it sees solved tones alone.

    Example:
        >>> coprime(3276, 656, 5), coprime(3276, 273, 5), coprime(3276, 3276, 5)
        (7, 5, 5)
    """
    if least == 1 or not 0 < count < N:
        return least
    # On a grid from the first tone on so many have any of these steps. Of steps that are wide apart one hit is rare.
    low, high = N // count, -(-(N - 1) // max(count - 1, 1))
    steps = range(low, min(high, low + _CLOSE) + 1)
    return next(k for k in itertools.count(least) if all(math.gcd(k, step) == 1 for step in steps))


def grouped(N: int, count: int) -> tuple[Tensor, Tensor]:
    """Divide N tones into so many groups, equally large up to one tone.

    Returns:
        The group of each tone, shape (N,), and the tone in the middle of each group, shape (count,).
    """
    starts = -(-torch.arange(count + 1) * N // count)
    return torch.arange(N) * count // N, (starts[:-1] + starts[1:]) // 2


def between(N: int, tones: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return for each of N tones the interval between chosen ones, (N,), and where it is in that, from 0 to 1, (N,)."""
    place = torch.arange(N)
    i = (torch.searchsorted(tones, place, right=True) - 1).clamp(0, len(tones) - 2)
    return i, ((place - tones[i]).double() / (tones[i + 1] - tones[i])).to(checks.real_dtype(dtype))


def response(taps: Tensor, first: int, period: int, N: int) -> Tensor:
    r"""Evaluate Laurent polynomials at the first N tones, by one FFT.

    .. math:: F(t) = \sum_{l=0}^{L} c_l \, s^{l_0 + l}, \qquad s = \exp(-2 \pi j t / P)

    Args:
        taps: The coefficients c, shape (L + 1, ...), L < P.
        first: l_0, the delay of the first in samples; it may be negative.
        period: P, the tones after which the response repeats: the size of the transform of an OFDM symbol.
        N: At most P.

    Returns:
        Shape (N, ...), of the dtype of the coefficients.
    """
    line = taps.new_zeros(period, *taps.shape[1:])
    line[(first + torch.arange(len(taps), device=taps.device)) % period] = taps
    return torch.fft.fft(line, dim=0)[:N]
