r"""Approximate inverses: Neumann series, Chebyshev and Newton-Schulz iterations for the receivers of all tones.

All start from an approximate inverse :math:`X_0` of :math:`A = H^H H + s I`: of the diagonal, of a block diagonal, or
the exact inverse in the middle of the tone's group, which is what a strong engineer would take. :math:`X_0` and A are
Hermitian positive definite, so the eigenvalues of :math:`X_0 A` are real and positive. An interval [a, b] of them
comes from Gershgorin's discs; from below they are at least :math:`s / \|X_0^{-1}\|`, too, whose norm is bounded by row
sums. Both are proved, up to rounding. Scaled by :math:`\alpha = 2 / (a + b)`, which is 1 where the discs are inside of
(0, 2), every iteration converges, but slowly where a / b is small. All tones are read, and there are no exact solves
but those of the start.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neumatc import checks, linalg
from studies import tones
from studies.tones import Filters

STARTS = ("neighbour", "diagonal", "block")
# Size of the blocks on the diagonal, unless given.
BLOCK = 2


class Start(NamedTuple):
    """Where an iteration starts.

    Attributes:
        H: The channels, shape (N, m, n).
        A: H^H H + s I, shape (N, n, n).
        X: Its approximate inverses, Hermitian positive definite, shape (N, n, n).
        low, high: Bounds of the eigenvalues of X A, shape (N, 1, 1), real.
        solves: Exact solves.
    """

    H: Tensor
    A: Tensor
    X: Tensor
    low: Tensor
    high: Tensor
    solves: int

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Return alpha X and I - alpha X A, alpha = 2 / (low + high), of which the spectral radius is below 1."""
        X = (2 / (self.low + self.high)).to(self.A.dtype) * self.X
        E = -(X @ self.A)
        E.diagonal(dim1=1, dim2=2).add_(1)
        return X, E


def begun(H: Tensor, noise: float, solves: int | None, start: str, block: int = BLOCK) -> Start:
    """Form the matrices of all tones and what an iteration starts from.

    Args:
        H: Channels on the grid of tones, shape (N, m, n).
        noise: s, the power of the noise.
        solves: Groups of tones, of which the middles are solved exactly; only for the start ``"neighbour"``.
        start: One of `STARTS`.
        block: Size of the blocks for ``"block"``; the last may be smaller.

    Returns:
        The start.

    Raises:
        ValueError: For NaN or Inf, a negative noise, another start, or a matrix that is not positive definite.
    """
    count, noise = tones.budget(H, solves), checks.number("noise", noise, at_least=0)
    start, block = checks.choice("start", start, STARTS), checks.integer("block", block, 1)
    H = tones.read(H, slice(None))
    A = linalg.gram(H, noise)
    if start == "neighbour":
        group, middles = tones.grouped(len(H), count)
        X, largest = (x[group] for x in _inverse(A[middles], noise))
    else:
        count, parts = 0, A.split(1 if start == "diagonal" else block, dim=2)
        X, largest, at = torch.zeros_like(A), A.new_zeros(len(A), dtype=checks.real_dtype(A.dtype)), 0
        for part in parts:
            own = slice(at, at := at + part.shape[2])
            X[:, own, own], bound = _inverse(part[:, own], noise)
            largest = torch.maximum(largest, bound)
    M = X @ A
    centres = M.diagonal(dim1=1, dim2=2)
    radii = M.abs().sum(dim=2) - centres.abs()
    low = torch.maximum((centres.real - radii).amin(dim=1), noise / largest)
    return Start(H, A, X, *(x[:, None, None] for x in (low, (centres.real + radii).amax(dim=1))), count)


def _inverse(A: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Return the inverses of positive definite matrices and a bound of their largest eigenvalues, shape (B,)."""
    return tones.positive_inverse(A, noise), A.abs().sum(dim=2).amax(dim=1)


def neumann(
    H: Tensor,
    noise: float,
    solves: int | None = None,
    *,
    terms: int = 3,
    start: str = "neighbour",
    block: int = BLOCK,
) -> Filters:
    r"""Sum the first terms of a Neumann series.

    .. math:: X = \sum_{i < K} (I - \alpha X_0 A)^i \, \alpha X_0, \qquad W = X H^H,

    whose error falls by the spectral radius of :math:`I - \alpha X_0 A`, at most (b - a) / (b + a), with each term.
    From the diagonal it is good for many more antennas than streams: Wu et al., IEEE J. Sel. Topics Signal Process. 8,
    2014.

    Args:
        H: Channels on the grid of tones, shape (N, m, n).
        noise: s, the power of the noise.
        solves: Exact solves, for the start ``"neighbour"``. Default: one in 12 tones.
        terms: K, at least 1. Each beyond the first takes one product of n x n matrices per tone.
        start: ``"neighbour"``, ``"diagonal"`` or ``"block"``; the last two take no exact solves.
        block: Size of the blocks.

    Returns:
        W, shape (N, n, m), of the dtype of H, and the exact solves.

    Raises:
        ValueError: As `begun`; for ``terms`` below 1.
    """
    terms, begin = checks.integer("terms", terms, 1), begun(H, noise, solves, start, block)
    first, E = begin.scaled()
    X = first
    for _ in range(terms - 1):
        X = first + E @ X
    return Filters(X @ begin.H.mH, begin.solves)


def newton(
    H: Tensor,
    noise: float,
    solves: int | None = None,
    *,
    steps: int = 2,
    start: str = "neighbour",
    block: int = BLOCK,
) -> Filters:
    r"""Take steps of the Newton-Schulz iteration, :math:`X \leftarrow X (2 I - A X)`, from :math:`\alpha X_0`.

    The residual I - X A is squared by each step. K steps give what 2^K terms of `neumann` give, for two products each.
    Sources: Schulz, Z. Angew. Math. Mech. 13, 1933; Pan and Schreiber, SIAM J. Sci. Stat. Comput. 12, 1991.

    Args:
        H, noise, solves, start, block: As for `neumann`.
        steps: K, at least 0.

    Returns:
        W, shape (N, n, m), of the dtype of H, and the exact solves.

    Raises:
        ValueError: As `begun`; for ``steps`` below 0.
    """
    steps, begin = checks.integer("steps", steps, 0), begun(H, noise, solves, start, block)
    X, _ = begin.scaled()
    for _ in range(steps):
        X = 2 * X - X @ (begin.A @ X)
    return Filters(X @ begin.H.mH, begin.solves)


def chebyshev(
    H: Tensor,
    noise: float,
    solves: int | None = None,
    *,
    steps: int = 3,
    start: str = "neighbour",
    block: int = BLOCK,
    interval: tuple[float, float] | str | None = None,
) -> Filters:
    r"""Take steps of the Chebyshev iteration with the preconditioner :math:`X_0`.

    It is the polynomial of degree K - 1 in :math:`X_0 A` whose residual is least on an interval [a, b] of its
    eigenvalues: :math:`1 / T_K((b + a) / (b - a))` there, about :math:`2 ((\sqrt b - \sqrt a) / (\sqrt b + \sqrt
    a))^K`. As many steps as `neumann` has terms cost the same.
    Source: Golub and Varga, Numer. Math. 3, 1961; for receivers and precoders Hashima and Muta, EURASIP J. Wirel.
    Commun. Netw. 2020.

    Args:
        H, noise, solves, start, block: As for `neumann`.
        steps: K, at least 1.
        interval: (a, b), 0 < a <= b, the same for all tones; or ``"random"``, :math:`(1 \pm \sqrt{n / m})^2`, m above
            n, which is that of many independent antennas and X_0 of the diagonal (Marchenko and Pastur, 1967).
            Eigenvalues outside of either can make the iteration diverge. Default: the proved one of the module's text,
            tone by tone, often far too wide below.

    Returns:
        W, shape (N, n, m), of the dtype of H, and the exact solves.

    Raises:
        ValueError: As `begun`; for ``steps`` below 1, or an interval that is none or, by default, reaches zero.
    """
    steps, begin = checks.integer("steps", steps, 1), begun(H, noise, solves, start, block)
    low, high = _interval(begin, interval)
    middle, half = (high + low) / 2, (high - low) / 2
    M = begin.X @ begin.A
    alpha = 1 / middle
    residual = direction = begin.X  # of X_0 A X = X_0
    X = alpha.to(M.dtype) * direction
    for k in range(1, steps):
        residual = residual - alpha.to(M.dtype) * (M @ direction)
        beta = (half * alpha).square() / (2 if k == 1 else 4)
        alpha = 1 / (middle - beta / alpha)
        direction = residual + beta.to(M.dtype) * direction
        X = X + alpha.to(M.dtype) * direction
    return Filters(X @ begin.H.mH, begin.solves)


def _interval(begin: Start, interval: tuple[float, float] | str | None) -> tuple[Tensor, Tensor]:
    """Return the ends of an interval of eigenvalues, each of shape (N, 1, 1) or a single one."""
    low, high = begin.low, begin.high
    if interval is not None:
        m, n = begin.H.shape[1:]
        if isinstance(interval, str):
            checks.choice("interval", interval, ("random",))
            checks.require(m > n, "H", "more antennas than streams", (m, n), "give numbers as `interval`")
            interval = [(1 + sign * (n / m) ** 0.5) ** 2 for sign in (-1, 1)]
        a, b = checks.each("interval", interval, 2)
        a = checks.number("interval", a, above=0)
        low, high = torch.full_like(low, a), torch.full_like(high, checks.number("interval", b, at_least=a))
    remedy = "give an `interval`, raise `noise`, or start from a neighbour that is nearer"
    checks.require((low > 0).all(), "interval", "one above zero", f"a = {float(low.min()):.3g}", remedy)
    return low, high
