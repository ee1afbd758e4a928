"""Nodes on one axis of a piece, the polynomials through them, and how fast the coefficients of a result decay."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# Candidates for a new node, denser towards the ends as extrema of Chebyshev polynomials are.
_CANDIDATES = -np.cos(np.linspace(0, np.pi, 193))
# A point that is solved already is taken in the place of the best candidate if its product of distances to the nodes
# is at least this part of the best one: nearly as well placed, and free.
_NEARLY_BEST = 0.5
# How often the new nodes are moved to their best places beside the others.
_SWEEPS = 3
# The distance that new nodes keep from points where there is no solution, in half lengths of the piece.
_AWAY = 0.02
# The least angle of a stretch: its sine is the angle itself, so positions stay as they are.
_STRAIGHT = 2.0**-30
# Decimals by which positions within a piece are told apart.
_DECIMALS = 12


def added(count: int, taken: np.ndarray, offered: np.ndarray, banned: np.ndarray) -> list[tuple[float, int]]:
    r"""Choose ``count`` more nodes on [-1, 1], one by one, by Leja's rule.

    Each new node maximises :math:`\prod_i |x - x_i|` (Leja, Ann. Polon. Math. 4, 1957). Such sequences are nested and
    may begin with any points, and their Lebesgue constants stay small: about 3 and 6 for 9 and 17 nodes taken one by
    one; 2.1, 2.6 and 5.1 where 9 become 17 and 33 at once (2.3, 2.7 and 3.2 for Chebyshev points). Numbers in between
    are worse: 3.8 and 9.2 where 9 become 10 and 16. Points in ``offered`` are preferred where they are nearly as good.
    The ends come first.

    Args:
        count: How many.
        taken: Nodes so far.
        offered: Points that are solved already.
        banned: Points from which new nodes keep their distance.

    Returns:
        The new nodes, each with its place among those offered, or -1.
    """
    return _added(count, *(tuple(np.round(x, _DECIMALS).tolist()) for x in (taken, offered, banned)))


@lru_cache(maxsize=4096)
def _added(
    count: int, taken: tuple[float, ...], offered: tuple[float, ...], banned: tuple[float, ...]
) -> list[tuple[float, int]]:
    near = np.abs(_CANDIDATES[:, None] - np.array(banned)) < _AWAY
    points = np.concatenate([np.array(offered), _CANDIDATES[~near.any(axis=1)]])
    with np.errstate(divide="ignore"):
        fixed, chosen = _logs(points, np.array(taken)).sum(axis=0), []
        logs = np.zeros((count, len(points)))
        for k in range(count):
            chosen.append(_best(points, fixed + logs[:k].sum(axis=0), len(offered), (*taken, *points[chosen])))
            logs[k] = _logs(points, points[chosen[k:]])
        # Then each new one moves to the best place beside all others, as points of Fekete's do.
        for _ in range(_SWEEPS):
            for k, own in enumerate(chosen):
                if own >= len(offered) and abs(points[own]) < 1:
                    logs[k] = 0
                    chosen[k] = len(offered) + int((fixed + logs.sum(axis=0))[len(offered) :].argmax())
                    logs[k] = _logs(points, points[chosen[k : k + 1]])
    return [(float(points[i]), i if i < len(offered) else -1) for i in chosen]


def ordered(at: np.ndarray, first: np.ndarray | None = None) -> np.ndarray:
    """Return nodes in Leja's order, each with the largest product of distances to those before.

    So the first few of them are well placed by themselves.

    Args:
        at: The nodes.
        first: Others that come first; default the ends.
    """
    at = np.sort(at)
    left, chosen = (at[1:-1], [at[0], at[-1]][: len(at)]) if first is None else (at, [*first])
    with np.errstate(divide="ignore"):
        while len(left):
            best = int(_logs(left, np.array(chosen)).sum(axis=0).argmax())
            chosen, left = [*chosen, left[best]], np.delete(left, best)
    return np.array(chosen)


def _logs(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the logarithms of the distances to others, a row for each of these."""
    return np.log(np.abs(points - others[:, None]))


def _best(points: np.ndarray, sums: np.ndarray, offered: int, nodes: tuple[float, ...]) -> int:
    """Return the place of the next node: an end that is missing, or the largest product of distances."""
    for end in (-1.0, 1.0):
        if len(nodes) < 2 and end not in nodes and (points == end).any():
            return int(np.flatnonzero(points == end)[0])
    best, free = int(sums.argmax()), int(sums[:offered].argmax()) if offered else 0
    return free if offered and sums[free] >= sums[best] + math.log(_NEARLY_BEST) else best


def bent(t: np.ndarray | Tensor, bend: np.ndarray | Tensor | float) -> np.ndarray | Tensor:
    r"""Return :math:`\sin(b t) / \sin b`, for t in [-1, 1] and an angle b below pi/2; t itself for b = 0."""
    if isinstance(t, Tensor):
        bend = torch.clip(bend, _STRAIGHT)
        return torch.sin(bend * t) / torch.sin(bend)
    if not np.any(bend):
        return t
    bend = np.maximum(bend, _STRAIGHT)
    return np.sin(bend * t) / np.sin(bend)


def straight(y: np.ndarray | Tensor, bend: np.ndarray | Tensor | float) -> np.ndarray | Tensor:
    """Return the t of which y is `bent`; the ends exactly."""
    if isinstance(y, Tensor):
        bend = torch.clip(bend, _STRAIGHT)
        return torch.where(y.abs() == 1, y, torch.arcsin(torch.clip(y * torch.sin(bend), -1, 1)) / bend)
    if not np.any(bend):
        return y
    bend = np.maximum(bend, _STRAIGHT)
    return np.where(np.abs(y) == 1, y, np.arcsin(np.clip(y * np.sin(bend), -1, 1)) / bend)


def barycentric(at: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return one over the product of differences of each node to the others.

    Args:
        at: Sets of nodes, shape (..., n), of which the first ones count.
        counts: How many, shape (...).

    Returns:
        The weights, zero beyond those that count, shape (..., n).
    """
    delta = at[..., :, None] - at[..., None, :]
    own = np.arange(at.shape[-1]) < np.asarray(counts)[..., None]
    delta[~(own[..., :, None] & own[..., None, :]) | np.eye(at.shape[-1], dtype=bool)] = 1.0
    return np.where(own, 1 / delta.prod(axis=-1), 0.0)


@lru_cache(maxsize=4096)
def _transform(at: bytes) -> np.ndarray:
    # Nodes that coincide, as in the precision of a small piece, share a coefficient.
    at = np.frombuffer(at)
    return np.linalg.pinv(np.polynomial.chebyshev.chebvander(at, len(at) - 1))


def decay(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the sizes of the Chebyshev coefficients of interpolants along one axis, a falling envelope for each.

    Args:
        values: Real results at the nodes, shape (k, n, ..., s): those of other axes in between, numbers of a result
            last.
        at: Nodes on [-1, 1], shape (k, n).

    Returns:
        e_j = max over i >= j of the largest norm of coefficient i, shape (k, n).
    """
    transforms = np.stack([_transform(own.tobytes()) for own in np.round(at, _DECIMALS) + 0.0])
    coefficients = transforms @ values.reshape(*at.shape, -1)
    squares = (coefficients * coefficients).reshape(*at.shape, -1, values.shape[-1])
    sizes = np.sqrt(squares.sum(axis=-1).max(axis=2))
    return np.maximum.accumulate(sizes[:, ::-1], axis=1)[:, ::-1]
