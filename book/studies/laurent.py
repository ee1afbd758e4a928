r"""Interpolation-based inversion, QR decomposition and Gram matrices: exact for taps on the sampling grid.

A channel of L + 1 taps, :math:`H(t) = \sum_{l=0}^L H_l s^l`, is a polynomial in :math:`s = \exp(-2 \pi j t / P)` on
the tones t of an OFDM symbol of P samples. Determinant and adjugate of H, or of H^H H + s I, are Laurent polynomials
in s then, and so are the columns of Q and the rows of R times known factors. They are interpolated exactly from as
many base points as they have coefficients, and the inverse follows by a division at every tone.

When that helps: the degree is L times the size of the matrix, so the base points grow with both, and they must not
outnumber the tones. Delays off the sampling grid give taps without end, and then it is an approximation. Base points
on a part of the circle only (guard bands) are ill-conditioned, exponentially in their number. Where the determinant
varies over decades along the band, as those of large matrices do, its small values lose digits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neumatc import checks, linalg
from studies import tones
from studies.tones import Filters


class Triangular(NamedTuple):
    """QR decompositions of all tones.

    Attributes:
        Q: Orthonormal columns, shape (N, m, n).
        R: Upper triangular with a positive diagonal, shape (N, n, n).
        solves: Decompositions that were computed.
    """

    Q: Tensor
    R: Tensor
    solves: int


class _Base:
    """Base points, and Laurent polynomials of degrees l_0 to l_0 + count - 1 through values there.

    Args:
        H: The band, of which only the base points are read.
        solves, taps, period: As for `inversion`.
        powers: Base points beside the first for each degree of the channel.
        below: As many of these belong to negative powers of s.
        rtol: As for `inversion`.
    """

    def __init__(
        self, H: Tensor, solves: int | None, taps: int | None, period: int | None, powers: int, below: int, rtol: float
    ):
        given = tones.budget(H, solves)
        self.N, self.rtol, self.dtype = len(H), rtol, H.dtype
        period = self.N if period is None else period
        self.period = checks.integer("period", period, self.N)
        order = (given - 1) // powers if taps is None else checks.integer("taps", taps, 1) - 1
        self.count = powers * order + 1
        remedy = "this channel is too long or its matrices too large for this method"
        got, most = f"{self.count} of them for {order + 1} taps", self.N if solves is None else given
        checks.require(self.count <= most, "taps", f"at most {most} base points", got, remedy)
        self.first = -below * order
        # All around the circle they are best conditioned; on a part of it both ends belong to them.
        whole = torch.arange(self.count) * self.N // self.count
        self.tones = whole if self.period == self.N else tones.spaced(self.N, self.count)
        self.H = tones.read(H, self.tones).to(torch.complex128)
        U, S, Vh = np.linalg.svd(self._powers(self.first, self.count))
        self.inverse, self.condition = torch.from_numpy((Vh.conj().T / S) @ U.conj().T), float(S[0] / S[-1])
        self._fits(order)

    def _powers(self, first: int, count: int) -> np.ndarray:
        return np.exp(-2j * math.pi / self.period * self.tones.numpy()[:, None] * np.arange(first, first + count))

    def _fits(self, order: int) -> None:
        """Raise a ValueError if the channels at the base points are not those of so many taps."""
        H = self.H.flatten(1).numpy()
        found = np.linalg.lstsq(self._powers(0, order + 1), H)[0]
        error = float(np.linalg.norm(self._powers(0, order + 1) @ found - H) / max(np.linalg.norm(H), 1e-300))
        expected = f"channels of {order + 1} taps on the grid of {self.period} samples, to {self.rtol:.1e}"
        remedy = "raise `taps` or `rtol`, or take a peer that needs no taps"
        checks.require(error <= self.rtol, "H", expected, f"a misfit of {error:.1e}", remedy)

    def through(self, values: Tensor) -> Tensor:
        """Interpolate values (count, ...), complex128, at all tones."""
        coefficients = (self.inverse @ values.flatten(1)).unflatten(1, values.shape[1:])
        return tones.response(coefficients, self.first, self.period, self.N)

    def kept(self, determinants: Tensor) -> None:
        """Raise a ValueError where the smallest determinant (of those scaled to at most 1) has lost too many digits."""
        least = float(determinants.nan_to_num(0).min())
        loss = self.condition * torch.finfo(self.dtype).eps / max(least, 1e-300)
        expected = f"determinants above zero, with an accuracy of {self.rtol:.1e} as we estimate it"
        got = f"{loss:.1e}: they fall to {least:.1e}, and the base points have the condition {self.condition:.1e}"
        remedy = "raise `rtol`, use complex128, or solve each tone"
        checks.require(least > 0 and loss <= self.rtol, "H", expected, got, remedy)


def _rtol(H: Tensor, rtol: float | None) -> float:
    """Return the tolerance: half of the digits of H, or the one given, which may be infinite."""
    if rtol == math.inf:
        return rtol
    return torch.finfo(H.dtype).eps ** 0.5 if rtol is None else checks.number("rtol", rtol, above=0)


def inversion(
    H: Tensor,
    noise: float,
    solves: int | None = None,
    *,
    taps: int | None = None,
    period: int | None = None,
    rtol: float | None = None,
) -> Filters:
    r"""Invert by interpolation of numerator and determinant, exactly for taps on the sampling grid.

    .. math:: W(t) = \frac{\mathrm{adj}(G(t)) \, H(t)^H}{\det G(t)}, \qquad G = H^H H + s I,

    both Laurent polynomials with powers from -kL to kL, k = min(m, n), through their values at 2kL + 1 base points.
    Without noise a square H is inverted directly, adj(H) / det(H): powers from 0 to nL, nL + 1 base points. Of a wide H
    it is H H^H + s I that is inverted. All is computed in double precision. The numerator at a base point comes from
    the exact receiver there, times the determinant.

    Sources: Borgmann and Bölcskei, Asilomar Conf. Signals, Systems and Computers, 2004; Cescato and Bölcskei, IEEE
    Trans. Inf. Theory 56, 2010. They interpolate adjugates; the product with H^H is ours, so that no other tone is
    read.

    Args:
        H: Channels on the grid of tones, shape (N, m, n). Only base points are read.
        noise: s, the power of the noise; 0 for zero forcing.
        solves: The most base points. Default: as many as ``taps`` needs, or one in 12 tones.
        taps: L + 1. Default: the most that so many base points allow.
        period: P, the samples of an OFDM symbol, at least N. Default: N, the band is the whole circle.
        rtol: Largest misfit of H at the base points, relative, and largest estimated loss of accuracy, above which it
            raises. Default: half of the digits of H; `math.inf` for whatever comes.

    Returns:
        W, shape (N, n, m), of the dtype of H, and the number of base points.

    Raises:
        ValueError: For more base points than tones or ``solves``, channels that have not these taps, determinants that
            lose too many digits, NaN or Inf at a base point, or a Gram matrix that is not positive definite there.
    """
    tones.budget(H, None)
    noise, rtol = checks.number("noise", noise, at_least=0), _rtol(H, rtol)
    m, n = H.shape[1:]
    square = noise == 0 and m == n
    size = min(m, n) if noise else n
    base = _Base(H, solves, taps, period, size if square else 2 * size, 0 if square else size, rtol)
    if square:
        W, failed = linalg.inverse(base.H)
        tones.defined(~failed, noise)
        phase, logs, _ = linalg.slogdet(base.H)
    else:
        W = tones.lmmse(base.H, noise)
        phase, logs, _ = linalg.slogdet(linalg.gram(base.H.mH if m < n else base.H, noise))
    determinant = phase * torch.exp(logs - logs.max())
    both = base.through(torch.cat([determinant[:, None], determinant[:, None] * W.flatten(1)], dim=1))
    base.kept(both[:, 0].abs())
    return Filters((both[:, 1:] / both[:, :1]).unflatten(1, (n, m)).to(H.dtype), base.count)


def qr(
    H: Tensor,
    solves: int | None = None,
    *,
    taps: int | None = None,
    period: int | None = None,
    rtol: float | None = None,
) -> Triangular:
    r"""Decompose H = Q R at all tones by interpolation, exactly for taps on the sampling grid.

    With :math:`\Delta_k = r_{11}^2 \cdots r_{kk}^2`, the determinant of the Gram matrix of the first k columns, the
    products

    .. math:: \tilde q_k = \Delta_{k-1} r_{kk} \, q_k, \qquad \tilde r_k = \Delta_{k-1} r_{kk} \, r_k

    of columns of Q and rows of R are Laurent polynomials with powers from -kL to kL, and the diagonal of
    :math:`\tilde R` has the :math:`\Delta_k`, so that the factors :math:`(\Delta_{k-1} \Delta_k)^{1/2}` can be divided
    out again. All k use the same 2nL + 1 base points here; the source also has variants with fewer for small k.

    Sources: Cescato and Bölcskei, IEEE Trans. Inf. Theory 56, 2010, and IEEE Trans. Signal Process. 59, 2011.

    Args:
        H: Channels on the grid of tones, shape (N, m, n), m at least n. Only base points are read.
        solves, taps, period, rtol: As for `inversion`.

    Returns:
        Q and R of the dtype of H, and the number of base points.

    Raises:
        ValueError: As `inversion`; for m < n, or dependent columns at a base point.
    """
    tones.budget(H, None)
    n = H.shape[2]
    return _decomposed(H, _Base(H, solves, taps, period, 2 * n, n, _rtol(H, rtol)))


def _decomposed(H: Tensor, base: _Base) -> Triangular:
    """Interpolate between the decompositions at given base points."""
    m, n = H.shape[1:]
    checks.require(m >= n, "H", "at least as many rows as columns", (m, n), "add noise as rows, or take the transpose")
    Q, R, failed = linalg.qr(base.H)
    got, remedy = f"{int(failed.sum())} where they are dependent", "add noise as rows, sqrt(s) I"
    checks.require(not failed.any(), "H", "independent columns at each base point", got, remedy)
    logs = 2 * R.diagonal(dim1=1, dim2=2).real.log().cumsum(dim=1)  # of Delta_k, which would leave the range
    factors = (torch.nn.functional.pad(logs, (1, 0))[:, :-1] + logs) / 2
    largest = logs.amax(dim=0)
    factors = torch.exp(factors - largest)
    both = base.through(torch.cat([(Q * factors[:, None, :]).mT, R * factors[:, :, None]], dim=2))
    rows, triangle = both[:, :, :m], both[:, :, m:].triu()
    determinants = triangle.diagonal(dim1=1, dim2=2).real
    base.kept(determinants)
    before = torch.nn.functional.pad(determinants, (1, 0), value=1.0)[:, :-1]
    shift = torch.exp((torch.nn.functional.pad(largest, (1, 0))[:-1] - largest) / 2)
    divided = ((before * determinants).clamp_min(1e-300).sqrt() * shift)[:, :, None]
    return Triangular((rows / divided).mT.to(H.dtype), (triangle / divided).to(H.dtype), base.count)


def by_qr(
    H: Tensor,
    noise: float,
    solves: int | None = None,
    *,
    taps: int | None = None,
    period: int | None = None,
    rtol: float | None = None,
) -> Filters:
    r"""Compute LMMSE receivers from interpolated QR decompositions (`qr`) of H with sqrt(s) I below it.

    .. math:: \begin{pmatrix} H \\ \sqrt{s} I \end{pmatrix} = \begin{pmatrix} Q_1 \\ Q_2 \end{pmatrix} R,
              \qquad W = R^{-1} Q_1^H

    The base points are as many as for `inversion`, 2kL + 1, k = min(m, n): the minors of H^H H + s I, of which all
    entries consist, are polynomials in s and minors of H^H H, and those of more than m rows vanish.

    Args:
        H, noise, solves, taps, period, rtol: As for `inversion`.

    Returns:
        W, shape (N, n, m), of the dtype of H, and the number of base points.

    Raises:
        ValueError: As `qr`, for H with the rows below it.
    """
    noise = checks.number("noise", noise, at_least=0)
    tones.budget(H, None)
    m, n = H.shape[1:]
    if noise:
        H = torch.cat([H, math.sqrt(noise) * torch.eye(n, dtype=H.dtype).expand(len(H), n, n)], dim=1)
    size = min(m, n) if noise else n
    Q, R, count = _decomposed(H, _Base(H, solves, taps, period, 2 * size, size, _rtol(H, rtol)))
    return Filters(torch.linalg.solve_triangular(R, Q[:, :m].mH, upper=True), count)


def gram_interpolated(
    H: Tensor,
    noise: float,
    solves: int | None = None,
    *,
    taps: int | None = None,
    period: int | None = None,
    rtol: float | None = None,
) -> Filters:
    """Interpolate the Gram matrices H^H H, add s I and solve at every tone.

    With L + 1 taps on the sampling grid they are Laurent polynomials with powers from -L to L, and exact from 2L + 1
    base points. Without taps they are interpolated linearly, between equally spaced tones; they stay positive
    semidefinite. It saves products H^H H, and no solve: H is read and a factorisation done at every tone.

    Source: Jeon, Li and Studer, arXiv 1610.00227.

    Args:
        H: Channels on the grid of tones, shape (N, m, n).
        noise: s, the power of the noise; 0 for zero forcing.
        solves: Gram matrices to compute. Default: as many as ``taps`` needs, or one in 12 tones, at least 2.
        taps: L + 1, for interpolation that is exact. Default: linear interpolation.
        period, rtol: As for `inversion`, of which the loss does not matter here.

    Returns:
        W, shape (N, n, m), of the dtype of H, and N: so many were factorised.

    Raises:
        ValueError: As `inversion`.
    """
    noise = checks.number("noise", noise, at_least=0)
    if taps is None:
        count = tones.budget(H, solves, 2)
        chosen = tones.spaced(len(H), count)
        base = tones.read(H, chosen)
        i, weight = tones.between(len(H), chosen, H.dtype)
        G = base.mH @ base
        G = torch.lerp(G[i], G[i + 1], weight.to(H.dtype)[:, None, None])
    else:
        base = _Base(H, solves, taps, period, 2, 1, _rtol(H, rtol))
        G = base.through(base.H.mH @ base.H).to(H.dtype)
    G.diagonal(dim1=1, dim2=2).add_(noise)
    return Filters(tones.positive_inverse(G, noise) @ tones.read(H, slice(None)).mH, len(H))
