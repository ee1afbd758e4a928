r"""Set-valued AAA: one barycentric rational function for all entries of a result, from exact samples.

The entries share support points x_j and weights w_j, :math:`r(x) = \sum_j \frac{w_j F_j}{x - x_j} / \sum_j
\frac{w_j}{x - x_j}`, as resolvents share their poles. Support points are added where r misses the samples most, and
the weights are the right singular vector of a Loewner matrix (Nakatsukasa, Sete and Trefethen, SIAM J. Sci. Comput.
40, 2018; for sets of functions Lietaert, Meerbergen, Perez and Vandereycken, IMA J. Numer. Anal. 42, 2022). Random
combinations of the entries stand for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

# Part of the support points that is added at once.
_GROWTH = 8
# Combinations of the entries with which support points are chosen; for the final weights all are taken.
_FEW = 4
# Size of a residue, relative to the samples, below which a pole is spurious.
_SPURIOUS = 1e-13
# Loewner equations for each weight: with fewer, weights fit the samples and say nothing between them.
_EQUATIONS = 1.5


@dataclass(frozen=True)
class Barycentric:
    """A rational function through some of the samples.

    Attributes:
        support: Rows of the samples that are support points, shape (m,).
        weights: Shape (m,), real for real samples.
        error: The largest error at the other samples, relative to the median norm of a sample.
        poles: Complex numbers.
        goal: The accuracy that it was chosen for.
    """

    support: np.ndarray
    weights: np.ndarray
    error: float
    poles: np.ndarray
    goal: float


def fit(
    x: np.ndarray, F: np.ndarray, *goals: float, most: int | None = None, check: Callable[[], None] = lambda: None
) -> Barycentric | None:
    """Fit samples F (N, s) at x (N,) to a relative error at the samples that are no support points.

    Args:
        x, F: The samples.
        goals: Errors, the smallest first.
        most: Most support points, of which so many take about :math:`38 N m^2` operations. Default: any number.
        check: Called before every step; it may raise.

    Returns:
        The function with the fewest support points that comes to the smallest of the goals that is reached; None where
        none does with enough samples left to check it.
    """
    size = np.linalg.norm(F, axis=1)
    scale = max(float(np.median(size)), np.finfo(float).tiny)
    # Samples near poles are much larger than the others; each counts by its own size, but not less than the usual.
    few = F[:, :_FEW]
    sizes = np.linalg.norm(few, axis=1)
    support, reached = [int(size.argmax()), int(np.abs(x - x[size.argmax()]).argmax())], {}
    while goals[0] not in reached:
        check()
        found = weighted(x, few, support, sizes)
        if found is None:
            break
        left, miss = _missed(x, F, support, found, size, scale)
        reached = {goal: list(support) for goal in goals if miss.max() <= goal} | reached
        count = max(1, len(support) // _GROWTH)
        wanted = len(support) + count
        if _FEW * (len(x) - wanted) < _EQUATIONS * wanted or wanted > (most or wanted):
            break
        support += left[np.argsort(-miss)[:count]].tolist()
    settled = (_settled(x, F, reached[goal], size, scale, goal) for goal in goals if goal in reached)
    return next((one for one in settled if one), None)


def _settled(
    x: np.ndarray, F: np.ndarray, support: list[int], size: np.ndarray, scale: float, goal: float
) -> Barycentric | None:
    """Compute the final weights from all combinations, and take support points beside spurious poles away."""
    while True:
        w = weighted(x, F, support, size)
        if not w.all() and len(support) > 2:  # at a support point of weight zero the function would be 0 / 0
            support = [j for j, own in zip(support, w) if own]
            continue
        _, miss = _missed(x, F, support, w, size, scale)
        poles = zeros(x[support], w)
        spurious = _spurious(poles, x[support], F[support], w, scale)
        if not len(spurious) or len(support) < 3:
            worst = float(miss.max())
            return Barycentric(np.array(support), w, worst, poles, goal) if worst <= 10 * goal else None
        nearest = {int(np.abs(x[support] - z).argmin()) for z in spurious}
        support = [j for k, j in enumerate(support) if k not in nearest]
        if len(support) < 2:
            return None


def weighted(x: np.ndarray, F: np.ndarray, support: list[int], sizes: np.ndarray) -> np.ndarray | None:
    """Return the weights of least linearised error at the other samples, relative to their sizes; None without any."""
    left = np.setdiff1d(np.arange(len(x)), support)
    if not len(left):
        return None
    rows = 1 / np.maximum(sizes[left], np.finfo(float).tiny)
    loewner = (F[left, None, :] - F[None, support, :]) / (x[left, None, None] - x[None, support, None])
    loewner = (loewner * rows[:, None, None]).transpose(0, 2, 1).reshape(-1, len(support))
    if len(loewner) > 2 * len(support):
        loewner = scipy.linalg.qr(loewner, mode="r", check_finite=False)[0][: len(support)]
    return np.linalg.svd(loewner)[2][-1].conj()


def _missed(
    x: np.ndarray, F: np.ndarray, support: list[int], w: np.ndarray, size: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples that are no support points, and the error at each relative to its own size."""
    left = np.setdiff1d(np.arange(len(x)), support)
    cauchy = w / (x[left, None] - x[support])
    with np.errstate(all="ignore"):
        values = (cauchy @ F[support]) / cauchy.sum(axis=1, keepdims=True)
        miss = np.linalg.norm(values - F[left], axis=1) / np.maximum(size[left], scale)
    return left, np.nan_to_num(miss, nan=np.inf)


def zeros(nodes: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Zeros of the denominator: the finite eigenvalues of an arrowhead pencil."""
    m = len(nodes)
    pencil, mass = np.zeros((m + 1, m + 1), w.dtype), np.eye(m + 1)
    pencil[0, 1:], pencil[1:, 0], mass[0, 0] = w, 1, 0
    pencil[np.arange(1, m + 1), np.arange(1, m + 1)] = nodes
    poles = scipy.linalg.eigvals(pencil, mass, check_finite=False)
    return poles[np.isfinite(poles) & (np.abs(poles) < 1e6)]


def _spurious(poles: np.ndarray, nodes: np.ndarray, F: np.ndarray, w: np.ndarray, scale: float) -> np.ndarray:
    """Return the poles near the interval whose residues are rounding."""
    near = poles[(np.abs(poles.imag) < 1) & (np.abs(poles.real) < 1.5)]
    if not len(near):
        return near
    with np.errstate(all="ignore"):  # a pole at a node is not spurious
        cauchy = 1 / (near[:, None] - nodes)
        residues = (cauchy @ (w[:, None] * F)) / -(cauchy**2 @ w)[:, None]
    return near[np.linalg.norm(residues, axis=1) < _SPURIOUS * scale]
