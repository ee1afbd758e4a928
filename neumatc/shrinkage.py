"""Splines of a few terms, smooth ones before rough ones, and how much of their coefficients noise leaves credible."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.fft import dct, dctn, idct
from scipy.interpolate import BSpline, make_interp_spline
from scipy.linalg import solve_triangular
from scipy.sparse import csr_array

from neumatc.segments import knots, numbers

# The least factor of the smoothest block: a column of zeros, a user without a channel, would have no equaliser.
_LEAST = 0.1
# Entries that are shrunk together, as axes of an m x n matrix.
TOGETHER = {"": (-2, -1), "column": (-2,), "row": (-1,), "entry": ()}


class Basis:
    """Cubic splines (polynomials for fewer than four terms) of t terms, orthonormal over the samples of an axis.

    The coefficients of their B-splines are cosines of the number of the B-spline, of rising frequency, each made
    orthogonal to those before it. So the first few span what is smooth, whatever t is. For t = N the splines
    interpolate, and values at the samples are the cosines of their number: those are orthonormal already.

    Args:
        x: Rising points of the samples, shape (N,).
        terms: t, at most N / 2, or N.
    """

    def __init__(self, x: np.ndarray, terms: int):
        self.x, self.terms, self.degree = x, terms, min(3, terms - 1)
        if terms == len(x):
            self.knots, self._factor = make_interp_spline(x, x, self.degree).t, None
        else:
            self.knots = knots(x, terms)
            self._B = self.at(x)
            self._factor = np.linalg.cholesky(dctn((self._B.T @ self._B).toarray(), norm="ortho"))

    def at(self, y: np.ndarray) -> csr_array:
        """Return the B-splines at points y (B,), shape (B, t), with the same number of entries in each row."""
        return BSpline.design_matrix(y, self.knots, self.degree, extrapolate=True)

    def coordinates(self, Y: np.ndarray) -> np.ndarray:
        """Project values (N, M) at the samples, shape (t, M)."""
        if self._factor is None:
            return dct(Y, axis=0, norm="ortho")
        return solve_triangular(self._factor, dct(self._B.T @ Y, axis=0, norm="ortho"), lower=True)

    def coefficients(self, Z: np.ndarray) -> np.ndarray:
        """Return the coefficients (t, M) of B-splines from coordinates (t, M)."""
        if self._factor is None:
            return make_interp_spline(self.x, idct(Z, axis=0, norm="ortho"), self.degree).c
        return idct(solve_triangular(self._factor, Z, lower=True, trans="T"), axis=0, norm="ortho")


@dataclass(frozen=True)
class Shrunk:
    """What is left of coordinates after shrinking.

    Attributes:
        factors: From 0 to 1, shape (t_1, ..., t_d, m, n), but 1 for m and n where all rows or columns have the same.
        risk: Estimated sum of squared errors of the coordinates of each entry, in units of its noise, shape (m, n);
            where several entries are shrunk together, the mean of theirs. Unbiased, so it may be below zero.
        together: Which these are: a key of `TOGETHER`.
    """

    factors: np.ndarray
    risk: np.ndarray
    together: str


def shrunk(Z: np.ndarray, noise: np.ndarray, kinds: tuple[str, ...] = tuple(TOGETHER)) -> Shrunk:
    r"""Shrink orthonormal coordinates with Gaussian noise, in blocks, as far as the noise makes it pay.

    Blocks are neighbouring coordinates, fewer of the smooth and more of the rough ones, of the entries of a column, of
    a row, of one entry, or of all. With z the n numbers of a block, over their standard deviations, it is multiplied by

    .. math:: \max\left(0, 1 - \frac{n - 2}{\|z\|^2}\right),

    for n > 2 the estimate of James and Stein, whose mean squared error is below that of z itself, whatever is measured.
    Stein's estimate of that error, :math:`n - (n - 2)^2 / \|z\|^2` or, where nothing is left,
    :math:`\|z\|^2 - n`, is unbiased; the entries that are shrunk together are those for which its sum is least. Of the
    smoothest block a tenth is left at least.

    Args:
        Z: Coordinates, shape (t_1, ..., t_d, m, n, parts): parts are 1 for real entries, 2 for complex ones.
        noise: Variance of each number, shape (m, n).
        kinds: Keys of `TOGETHER` that are tried.

    Sources: W. James and C. Stein, Proc. 4th Berkeley Symp. 1 (1961) 361; C. M. Stein, Ann. Statist. 9 (1981) 1135;
    blocks that grow like this: L. Cavalier and A. B. Tsybakov, Math. Methods Statist. 10 (2001) 247.
    """
    energy = np.square(Z).sum(axis=-1)
    # Without noise, what is not zero is credible.
    energy = np.divide(energy, noise, out=np.where(energy > 0, np.inf, 0.0), where=noise > 0)
    lengths = [np.diff([0, *numbers(t)]) for t in Z.shape[:-3]]
    for i, own in enumerate(lengths):
        energy = np.add.reduceat(energy, own.cumsum() - own, axis=i)
    sizes = np.broadcast_to(Z.shape[-1] * reduce(np.multiply.outer, lengths)[..., None, None], energy.shape)
    least = np.zeros((*energy.shape[:-2], 1, 1))
    least.flat[0] = _LEAST
    sums = {kind: [a.sum(axis=TOGETHER[kind], keepdims=True) for a in (energy, sizes)] for kind in kinds}
    tried = {kind: _stein(*own, least) for kind, own in sums.items()}
    best = min(kinds, key=lambda kind: tried[kind][1].sum())
    factors, risk = tried[best]
    for i, own in enumerate(lengths):
        factors = np.repeat(factors, own, axis=i)
    risk = risk.sum(axis=tuple(range(len(lengths))))
    return Shrunk(factors, np.broadcast_to(risk * risk.size / noise.size, noise.shape), best)


def _stein(energy: np.ndarray, sizes: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors of blocks with so much energy, at least some, and the estimated risks."""
    taken = np.maximum(sizes - 2, 0)
    kept = energy * (1 - least) > taken
    share = taken / np.where(kept, energy, 1)
    fixed = (1 - least) ** 2 * np.where(kept, 0, energy) - (1 - 2 * least) * sizes
    return np.where(kept, 1 - share, least), np.where(kept, sizes - taken * share, fixed)
