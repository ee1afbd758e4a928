"""One piece of the box: its nodes on each axis, its halves, and the tree of pieces as the weights of an embedding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neumatc import nodes
from neumatc.box import Box
from neumatc.local import PiecewisePolynomials

# Of so many points of a piece, those farthest from the nodes are looked at.
_PLACES = 16
# The branches of a single piece, or where pieces of one parameter are found without a tree.
_NO_TREE = {"axis": np.zeros(1, int), "cut": np.zeros(1), "children": np.full((1, 2), -1)}
# Part of a piece below which two coordinates are one.
_SAME = 1e-11


class Piece:
    """A box of the cube with nodes per axis, at whose grid X is solved; halves make it an inner node of a tree.

    Args:
        low, high: Bounds in the cube, shape (d,).
        axes: Nodes of each axis, in the order in which they were taken.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, axes: Sequence[np.ndarray]):
        self.low, self.high, self.axes = low, high, list(axes)
        self.rows: np.ndarray | None = None  # of the snapshots at the grid, once they are solved
        self.settled: tuple[list[np.ndarray], np.ndarray] | None = None  # the last nodes that were solved at, and rows
        self.ratio: float | None = None  # residual over the size of the coefficients left out, where it was measured
        self.tail = np.inf  # that size; of its whole, as long as it is not analysed itself
        self.steep = 0  # how often the whole difference between the ends has stayed on one side
        self.banned = [np.empty(0)] * len(axes)  # coordinates at which the exact solution fails
        self.moves = 0  # how often nodes were moved away from where the exact solution fails
        self.trimmed = False  # whether axes were cut back to what they need
        self.halves: tuple[int, float, Piece, Piece] | None = None
        self.trouble = ""

    @property
    def counts(self) -> tuple[int, ...]:
        """Nodes per axis."""
        return tuple(map(len, self.axes))

    def relative(self, axis: int, x: np.ndarray) -> np.ndarray:
        """Scale coordinates on an axis to [-1, 1] on this piece."""
        low, high = self.low[axis], self.high[axis]
        return ((x - low) - (high - x)) / (high - low)

    def absolute(self, axis: int, t: np.ndarray) -> np.ndarray:
        """Scale [-1, 1] to coordinates on an axis, the ends exactly."""
        low, high = self.low[axis], self.high[axis]
        return np.where(t == -1, low, np.where(t == 1, high, low + (high - low) * (1 + t) / 2))

    def extend(self, axis: int, count: int, offered: np.ndarray) -> None:
        """Take ``count`` nodes on an axis, some of those ``offered`` where they are well placed."""
        own = self.axes[axis]
        if count <= len(own):
            self.axes[axis] = own[:count]
            return
        left = np.setdiff1d(offered, own)
        added = nodes.extended(
            self.relative(axis, own), count, self.relative(axis, left), self.relative(axis, self.banned[axis])
        )
        added = added[len(own) :]
        found = self.absolute(axis, np.array(added))
        if len(left):  # what was offered keeps its very number, by which it is found again among what is solved
            nearest = left[np.abs(found[:, None] - left).argmin(axis=1)]
            found = np.where(np.abs(found - nearest) < _SAME * (self.high[axis] - self.low[axis]), nearest, found)
        self.axes[axis] = np.concatenate([own, found])

    def grid(self) -> np.ndarray:
        """Return all nodes, shape (n_1 ... n_d, d)."""
        return np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1).reshape(-1, len(self.axes))

    def settle(self) -> None:
        """Remember the nodes at which everything is solved."""
        self.settled = list(self.axes), self.rows

    def give_up(self, reason: str) -> None:
        """Go back to the last nodes that were solved at, and say why."""
        self.trouble = reason
        if self.settled is not None:
            self.axes, self.rows = list(self.settled[0]), self.settled[1]

    def split(self, axis: int, cut: float, counts: Sequence[int], offered: np.ndarray) -> list[Piece]:
        """Halve along an axis; the halves begin with the nodes of the whole and what else is offered there."""
        pair = []
        for side in (0, 1):
            low, high = self.low.copy(), self.high.copy()
            (low if side else high)[axis] = cut
            half = Piece(low, high, [own[:n] for own, n in zip(self.axes, counts)])
            half.ratio, half.tail, half.banned = self.ratio, self.tail, list(self.banned)
            known = np.union1d(self.axes[axis], offered)
            half.axes[axis] = np.empty(0)
            half.extend(axis, counts[axis], known[(known >= low[axis]) & (known <= high[axis])])
            pair.append(half)
        self.halves = (axis, cut, *pair)
        return pair

    def basis(self, x: np.ndarray) -> np.ndarray:
        """Lagrange's polynomials at points of this piece, shape (B, terms)."""
        phi = np.ones((len(x), 1))
        for i, own in enumerate(self.axes):
            scaled = self.relative(i, own)
            delta = self.relative(i, x[:, i])[:, None] - scaled
            ones = np.ones((len(x), 1))
            left = np.cumprod(np.concatenate([ones, delta[:, :-1]], axis=1), axis=1)
            right = np.cumprod(np.concatenate([ones, delta[:, :0:-1]], axis=1), axis=1)[:, ::-1]
            phi = (phi[:, :, None] * (nodes.barycentric(scaled) * left * right)[:, None, :]).reshape(len(x), -1)
        return phi

    def places(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Draw ``count`` fresh points of the piece: half of them uniform, half far from the nodes."""
        t = generator.uniform(-1, 1, (_PLACES + count // 2, len(self.axes)))
        distance = np.zeros(_PLACES)
        for i, own in enumerate(self.axes):
            gaps = np.abs(t[:_PLACES, i, None] - self.relative(i, own))
            distance += np.log(np.maximum(gaps, np.finfo(float).tiny)).mean(axis=1)
        t = np.concatenate([t[np.argsort(-distance)[: count - count // 2]], t[_PLACES:]])
        return np.stack([self.absolute(i, t[:, i]) for i in range(t.shape[1])], axis=1)

    def ends(self, box: Box) -> tuple[list[float], list[float]]:
        """Return the bounds in the units of the parameters."""
        low, high = box.parameters(torch.from_numpy(np.stack([self.low, self.high]))).tolist()
        return low, high


def leaves(root: Piece) -> list[Piece]:
    """Return the pieces without halves, from low to high."""
    found, waiting = [], [root]
    while waiting:
        piece = waiting.pop()
        if piece.halves is None:
            found.append(piece)
        else:
            waiting += piece.halves[3], piece.halves[2]
    return found


def collapse(root: Piece) -> None:
    """Undo halvings whose halves were never solved, where the whole was: it stands for both."""
    if root.halves is None:
        return
    pair = root.halves[2:]
    for half in pair:
        collapse(half)
    hollow = [half for half in pair if half.halves is None and half.settled is None]
    if hollow and root.settled is not None:
        root.halves = None
        root.give_up(hollow[0].trouble)


def located(pieces: Sequence[Piece], x: np.ndarray) -> np.ndarray:
    """Return the number of the piece in which each point lies, or -1."""
    result = np.full(len(x), -1)
    for k, piece in enumerate(pieces):
        result[((x >= piece.low) & (x <= piece.high)).all(axis=1)] = k
    return result


def embedded(root: Piece) -> tuple[PiecewisePolynomials, dict[str, Tensor], Tensor]:
    """Return the embedding of a tree of pieces, its weights, and the snapshot of each row of the latent tensor."""
    found = leaves(root)
    d, most = len(root.low), max(max(piece.counts) for piece in found)
    at, bary = np.zeros((len(found), d, most)), np.zeros((len(found), d, most))
    rows, first, total = [], [], 0
    for k, piece in enumerate(found):
        order = [np.argsort(own) for own in piece.axes]
        for i, own in enumerate(piece.axes):
            at[k, i, : len(own)] = own[order[i]]
            bary[k, i, : len(own)] = nodes.barycentric(own[order[i]])
        own = piece.rows.reshape(piece.counts)[np.ix_(*order)].ravel()
        shared = d == 1 and bool(rows) and rows[-1][-1] == own[0]
        first.append(total - shared)
        rows.append(own[int(shared) :])
        total += len(rows[-1])
    branches, depth = _tree(root, found) if d > 1 else (_NO_TREE, 0)
    weights = {
        "low": np.stack([piece.low for piece in found]),
        "high": np.stack([piece.high for piece in found]),
        "nodes": at,
        "bary": bary,
        "counts": np.array([piece.counts for piece in found]),
        "first": np.array(first),
    } | branches
    tensors = {name: torch.from_numpy(weight) for name, weight in weights.items()}
    return PiecewisePolynomials((False,) * d, depth), tensors, torch.from_numpy(np.concatenate(rows))


def chain(x: np.ndarray) -> tuple[PiecewisePolynomials, dict[str, Tensor]]:
    """Return the embedding that interpolates linearly between points x (N,), rising, and its weights."""
    pairs, count = np.stack([x[:-1], x[1:]], axis=1)[:, None], len(x) - 1
    weights = {
        "low": pairs[:, :, 0],
        "high": pairs[:, :, 1],
        "nodes": pairs,
        "bary": 1 / (pairs - pairs[:, :, ::-1]),
        "counts": np.full((count, 1), 2),
        "first": np.arange(count),
    } | _NO_TREE
    return PiecewisePolynomials(), {name: torch.from_numpy(weight.copy()) for name, weight in weights.items()}


def _tree(root: Piece, found: Sequence[Piece]) -> tuple[dict[str, np.ndarray], int]:
    """Return axis, cut and children of each inner node (-1 - k stands for piece k), and the depth of the tree."""
    number = {id(piece): -1 - k for k, piece in enumerate(found)}
    inner, level, depth = [], [root] if root.halves else [], 0
    while level:
        number |= {id(piece): len(inner) + k for k, piece in enumerate(level)}
        inner += level
        level = [half for piece in level for half in piece.halves[2:] if half.halves]
        depth += 1
    if not inner:
        return _NO_TREE, 0
    branches = {
        "axis": np.array([piece.halves[0] for piece in inner]),
        "cut": np.array([piece.halves[1] for piece in inner]),
        "children": np.array([[number[id(half)] for half in piece.halves[2:]] for piece in inner]),
    }
    return branches, depth
