"""Nodes on one axis of a piece, the polynomials through them, and how fast the coefficients of a result decay."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

# Candidates for a new node, denser towards the ends as extrema of Chebyshev polynomials are.
_CANDIDATES = -np.cos(np.linspace(0, np.pi, 193))
# A point that is solved already is taken in the place of the best candidate if its product of distances to the nodes
# is at least this part of the best one: nearly as well placed, and free.
_NEARLY_BEST = 0.5
# How often the new nodes are moved to their best places beside the others.
_SWEEPS = 3
# The distance that new nodes keep from points where there is no solution, in half lengths of the piece.
_AWAY = 0.02
# Decimals by which positions within a piece are told apart.
_DECIMALS = 12


def extended(taken: np.ndarray, count: int, offered: np.ndarray, banned: np.ndarray) -> list[float]:
    r"""Extend nodes on [-1, 1] to ``count`` of them, one by one, by Leja's rule.

    Each new node maximises :math:`\prod_i |x - x_i|` (Leja, Ann. Polon. Math. 4, 1957). Such sequences are nested and
    may begin with any points, and their Lebesgue constants stay small: about 3, 6 and 11 for 9, 17 and 33 nodes, twice
    those of Chebyshev points. Points in ``offered`` are preferred where they are nearly as good. The ends come first.

    Args:
        taken: Nodes so far, in order.
        count: How many there shall be.
        offered: Points that are solved already.
        banned: Points from which new nodes keep their distance.

    Returns:
        All nodes, those taken first.
    """
    first, free, out = (tuple(np.round(np.asarray(x, float), _DECIMALS)) for x in (taken, offered, banned))
    added = _added(first, max(0, count - len(taken)), free, out)
    return [*taken, *(float(offered[i]) if i >= 0 else x for x, i in added)]


@lru_cache(maxsize=4096)
def _added(
    taken: tuple[float, ...], count: int, offered: tuple[float, ...], banned: tuple[float, ...]
) -> list[tuple[float, int]]:
    """Return the nodes added, each with its place among those offered, or -1."""
    near = np.abs(_CANDIDATES[:, None] - np.array(banned)) < _AWAY
    points = np.concatenate([np.array(offered), _CANDIDATES[~near.any(axis=1)]])
    with np.errstate(divide="ignore"):
        logs = np.log(np.abs(points[:, None] - points))
        fixed = np.log(np.abs(points[:, None] - np.array(taken))).sum(axis=1)
        chosen: list[int] = []
        for _ in range(count):
            chosen.append(_best(points, fixed + logs[:, chosen].sum(axis=1), len(offered), (*taken, *points[chosen])))
        # Then each new one moves to the best place beside all others, as points of Fekete's do.
        for _ in range(_SWEEPS):
            for k, own in enumerate(chosen):
                if own >= len(offered) and abs(points[own]) < 1:
                    others = chosen[:k] + chosen[k + 1 :]
                    sums = (fixed + logs[:, others].sum(axis=1))[len(offered) :]
                    chosen[k] = len(offered) + int(sums.argmax())
    return [(float(points[i]), i if i < len(offered) else -1) for i in chosen]


def _best(points: np.ndarray, sums: np.ndarray, offered: int, nodes: tuple[float, ...]) -> int:
    """Return the place of the next node: an end that is missing, or the largest product of distances."""
    for end in (-1.0, 1.0):
        if len(nodes) < 2 and end not in nodes and (points == end).any():
            return int(np.flatnonzero(points == end)[0])
    best = int(sums.argmax())
    if offered:
        free = int(sums[:offered].argmax())
        return free if sums[free] >= sums[best] + math.log(_NEARLY_BEST) else best
    return best


def equidistant(count: int) -> list[float]:
    """Return ``count`` equidistant nodes of a periodic axis [-1, 1), a power of two, such that halves come first."""
    nodes = [-1.0]
    while len(nodes) < count:
        step = 1 / len(nodes)
        nodes += [x + step for x in nodes]
    return nodes[:count]


def barycentric(nodes: np.ndarray, trigonometric: bool = False) -> np.ndarray:
    """Return one over the product of differences of each node to the others (of half sines on a periodic axis)."""
    delta = nodes[:, None] - nodes
    delta = np.sin(delta * (np.pi / 2)) if trigonometric else delta
    np.fill_diagonal(delta, 1.0)
    return 1 / delta.prod(axis=1)


@lru_cache(maxsize=4096)
def _transform(nodes: tuple[float, ...]) -> np.ndarray:
    # Nodes that coincide, as in the precision of a small piece, share a coefficient.
    return np.linalg.pinv(np.polynomial.chebyshev.chebvander(np.array(nodes), len(nodes) - 1))


def decay(values: np.ndarray, nodes: np.ndarray, trigonometric: bool = False) -> np.ndarray:
    """Return the sizes of the coefficients of an interpolant along the first axis of ``values``, falling envelope.

    Args:
        values: Results at the nodes, shape (n, ..., s): those of other axes in between, numbers of a result last.
        nodes: On [-1, 1], shape (n,).
        trigonometric: Coefficients of a Fourier series, sorted by frequency, instead of a Chebyshev series.

    Returns:
        e_k = max over j >= k of the largest norm of coefficient j, shape (n,).
    """
    flat = values.reshape(len(nodes), -1)
    if trigonometric:
        order = np.argsort(nodes)
        spectrum = np.fft.fft(flat[order], axis=0) / len(nodes)
        frequency = np.abs(np.fft.fftfreq(len(nodes)))
        coefficients = spectrum[np.argsort(frequency, kind="stable")]
    else:
        coefficients = _transform(tuple(np.round(nodes, _DECIMALS))) @ flat
    sizes = np.linalg.norm(coefficients.reshape(values.shape), axis=-1).reshape(len(nodes), -1).max(axis=1)
    return np.maximum.accumulate(sizes[::-1])[::-1]
