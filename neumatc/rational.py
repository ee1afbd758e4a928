r"""Set-valued AAA: one barycentric rational function for all entries of a result, from exact samples.

The entries share support points x_j and weights w_j, :math:`r(x) = \sum_j \frac{w_j F_j}{x - x_j} / \sum_j
\frac{w_j}{x - x_j}`, as resolvents share their poles. Support points are added where r misses the samples most, and
the weights are the right singular vector of a Loewner matrix (Nakatsukasa, Sete and Trefethen, SIAM J. Sci. Comput.
40, 2018; for sets of functions Lietaert, Meerbergen, Perez and Vandereycken, IMA J. Numer. Anal. 42, 2022). Random
combinations of the entries stand for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

# Part of the support points that is added at once.
_GROWTH = 8
# Combinations of the entries with which support points are chosen; for the final weights all are taken.
_FEW = 4
# Size of a residue, relative to the samples, below which a pole is spurious.
_SPURIOUS = 1e-13
# Rounding in a sample, in units: beside a pole it grows with the size of the sample over the usual one.
_ROUNDING = 1e3
# Loewner equations for each weight: with fewer, weights fit the samples and say nothing between them. Combinations give
# no more of them than they are independent, up to this part of a sample.
_EQUATIONS, _DEPENDENT = 1.5, 1e-8
# Support points, as a multiple of those that come to the second goal, with which the first is to be reached: where X is
# rational few more do, beside branch points many times as many.
_FURTHER = 1.5
# Real operations: of a QR factorisation for each equation and squared number of support points; of singular vectors and
# of poles for each cubed number.
_QR, _VECTORS, _POLES = 2.0, 20.0, 60.0

Afford = Callable[[float], bool]


@dataclass(frozen=True)
class Barycentric:
    """A rational function through some of the samples.

    Attributes:
        support: Rows of the samples that are support points, shape (m,).
        weights: Shape (m,), real for real samples.
        error: The largest error at the other samples, relative to the size by which each counts.
        poles: Complex numbers.
        goal: The accuracy that it was chosen for.
    """

    support: np.ndarray
    weights: np.ndarray
    error: float
    poles: np.ndarray
    goal: float


def fit(
    x: np.ndarray, F: np.ndarray, *goals: float, afford: Afford = lambda operations: True, unit: float = 2.0**-52
) -> Barycentric | None:
    """Fit samples F (N, s) at x (N,) to a relative error at the samples that are no support points.

    Args:
        x, F: The samples.
        goals: Errors, the smallest first.
        afford: Called before every step with the real operations that it takes; where it says no, there is no further
            step. It may raise.
        unit: The rounding unit of the samples.

    Returns:
        The function with the fewest support points that comes to the smallest of the goals that is reached; None where
        none does with enough samples left to check it.
    """
    size = np.linalg.norm(F, axis=1)
    scale = max(float(np.median(size)), np.finfo(float).tiny)
    # Samples near poles are much larger than the others; each counts by its own size, but not less than the usual, and
    # where its rounding is above the goal, by that.
    rounding, few = _ROUNDING * unit * size / scale, F[:, :_FEW]
    sizes = np.maximum(np.linalg.norm(few, axis=1), np.finfo(float).tiny)
    independent = np.linalg.matrix_rank(few / sizes[:, None], tol=_DEPENDENT * np.sqrt(len(x)))
    sizes = sizes * np.maximum(1, rounding / goals[:2][-1])
    support, reached = [int(size.argmax()), int(np.abs(x - x[size.argmax()]).argmax())], {}
    while goals[0] not in reached and len(left := np.setdiff1d(np.arange(len(x)), support)):
        equations = loewner(x, few, support, sizes, left)
        if not afford(_operations(equations)):
            break
        _, miss = _missed(x, F, support, weighted(equations, balanced=True)[1], size, scale)
        reached = {goal: list(support) for goal in goals if (miss <= np.maximum(goal, rounding[left])).all()} | reached
        count = max(1, len(support) // _GROWTH)
        wanted = len(support) + count
        near = [len(own) for goal, own in reached.items() if goal in goals[:2]]
        if independent * (len(x) - wanted) < _EQUATIONS * wanted or wanted > _FURTHER * min(near, default=wanted):
            break
        support += left[_highest(x[left], miss, count)].tolist()
    for goal in goals:
        counting = size * np.maximum(1, rounding / goal)
        if goal in reached and (found := _settled(x, F, reached[goal], counting, scale, goal, afford)):
            return found
    return None


def _settled(
    x: np.ndarray, F: np.ndarray, support: list[int], size: np.ndarray, scale: float, goal: float, afford: Afford
) -> Barycentric | None:
    """Compute the final weights from all combinations, and take support points beside spurious poles away."""
    support, new, R = np.array(support), np.setdiff1d(np.arange(len(x)), support), np.empty((0, len(support)))
    best = None
    while len(support) > 1:
        # Of the equations that were there, those in triangular form are enough.
        R = np.concatenate([R, loewner(x, F, support, size, new)])
        if not afford(_operations(R)):
            break
        R, w = weighted(R, balanced=True)
        keep = w != 0  # at a support point of weight zero the function would be 0 / 0
        if keep.all() or len(support) < 3:
            if not afford(_operations(R[:0], _POLES)):
                break
            worst = float(_missed(x, F, support, w, size, scale)[1].max())
            if worst > 10 * goal:
                break
            best = Barycentric(support, w, worst, poles := zeros(x[support], w), goal)
            spurious = poles[_spurious(poles, x, F, best, np.maximum(size, scale), scale)]
            keep[[int(np.abs(x[support] - z).argmin()) for z in spurious]] = False
        if keep.all() or len(support) < 3:
            break
        new, support, R = support[~keep], support[keep], R[:, keep]
    return best


def _highest(x: np.ndarray, miss: np.ndarray, count: int) -> np.ndarray:
    """Return so many of the highest peaks of an error at x, one of each: neighbours are mended with it."""
    order = np.argsort(x)
    padded = np.concatenate([[-np.inf], miss[order], [-np.inf]])
    peaks = order[(padded[1:-1] >= padded[:-2]) & (padded[1:-1] >= padded[2:])]
    return peaks[np.argsort(-miss[peaks])[:count]]


def loewner(x: np.ndarray, F: np.ndarray, support: Sequence[int], sizes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the equations of the weights: the linearised error at samples, relative to their sizes."""
    scales = 1 / np.maximum(sizes[rows], np.finfo(float).tiny)
    equations = (F[rows, None, :] - F[None, support, :]) / (x[rows, None, None] - x[None, support, None])
    return (equations * scales[:, None, None]).transpose(0, 2, 1).reshape(-1, len(support))


def weighted(equations: np.ndarray, *, balanced: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return equations, many in triangular form, and the weights of the least error.

    Args:
        balanced: In units of the columns: those of samples beside a pole, and of samples side by side, are many times
            as large as others, and would leave the small singular vector few digits.
    """
    if len(equations) > 2 * equations.shape[1]:
        equations = scipy.linalg.qr(equations, mode="r", check_finite=False)[0][: equations.shape[1]]
    units = np.maximum(np.linalg.norm(equations, axis=0), np.finfo(float).tiny) if balanced else 1
    w = np.linalg.svd(equations / units)[2][-1].conj() / units
    return equations, w / np.linalg.norm(w)


def _operations(equations: np.ndarray, cubed: float = _VECTORS) -> float:
    """Return the real operations of a factorisation, and of what takes so many for each cubed number of weights."""
    count, m = equations.shape
    return (4 if np.iscomplexobj(equations) else 1) * (_QR * count + cubed * m) * m**2


def _missed(
    x: np.ndarray, F: np.ndarray, support: Sequence[int], w: np.ndarray, size: np.ndarray, scale: float
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


def _spurious(
    poles: np.ndarray, x: np.ndarray, F: np.ndarray, found: Barycentric, size: np.ndarray, scale: float
) -> np.ndarray:
    """Mask of the poles near the interval that are rounding: their residues are, or at no sample more than the goal."""
    near, support = (np.abs(poles.imag) < 1) & (np.abs(poles.real) < 1.5), found.support
    left = np.setdiff1d(np.arange(len(x)), support)  # through the others it goes anyway
    with np.errstate(all="ignore"):  # a pole at a node is not spurious
        cauchy = 1 / (poles[near, None] - x[support])
        residues = (cauchy @ (found.weights[:, None] * F[support])) / -(cauchy**2 @ found.weights)[:, None]
        residues = np.linalg.norm(residues, axis=1)
        felt = (residues[:, None] / np.abs(poles[near, None] - x[left]) / size[left]).max(axis=1)
        near[near] = (residues < _SPURIOUS * scale) | (felt < found.goal)
    return near
