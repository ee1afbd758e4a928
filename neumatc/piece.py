"""One piece of the box: its nodes on each axis, its halves, and the tree of pieces as the weights of an embedding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from neumatc import nodes
from neumatc.box import Box
from neumatc.local import PiecewisePolynomials

# Of so many points of a piece, those farthest from the nodes are looked at.
_PLACES = 16
# A residual so many times the coefficients left out is none of theirs: the nodes have missed something.
_MISSED = 1e3
# How far a node moves where the exact solution at it fails, in lengths of the piece.
_MOVE = 0.03
# The branches of a single piece, or where pieces of one parameter are found without a tree.
_NO_TREE = {"axis": np.zeros(1, int), "cut": np.zeros(1), "children": np.full((1, 2), -1)}


class Piece:
    """A box of the cube with nodes per axis, at whose grid X is solved; halves make it an inner node of a tree.

    Args:
        low, high: Bounds in the cube, shape (d,).
        axes: Nodes of each axis, in the order in which they were taken.
        trouble: Why it is not resolved, if so.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, axes: Sequence[np.ndarray], trouble: str = ""):
        self.low, self.high, self.axes, self.trouble = low, high, list(axes), trouble
        self.rows: np.ndarray | None = None  # of the snapshots at the grid, once they are solved
        self.settled: tuple[list[np.ndarray], np.ndarray] | None = None  # the last nodes that were solved at, and rows
        self.envelopes: list[np.ndarray] = []  # of its coefficients along each axis
        self.ratio: float | None = None  # residual over the size of the coefficients left out, where it was measured
        self.tail = np.inf  # that size; of its whole, as long as it is not analysed itself
        self.steep = 0  # how often the whole difference between the ends has stayed on one side
        self.bend = np.zeros(len(axes))  # of each axis: angle by which its middle is stretched
        self.banned = [np.empty(0)] * len(axes)  # coordinates at which the exact solution fails
        self.moves = 0  # how often nodes were moved away from where the exact solution fails
        self.passed = False  # whether its residual was small enough at fresh parameters
        self.trimmed = False  # whether axes were cut back to what they need
        self.halves: tuple[int, float, Piece, Piece] | None = None

    @property
    def counts(self) -> tuple[int, ...]:
        """Nodes per axis."""
        return tuple(map(len, self.axes))

    def relative(self, axis: int, x: np.ndarray) -> np.ndarray:
        """Scale coordinates on an axis to [-1, 1] on this piece."""
        low, high = self.low[axis], self.high[axis]
        return nodes.bent(((x - low) - (high - x)) / (high - low), self.bend[axis])

    def absolute(self, axis: int, t: np.ndarray) -> np.ndarray:
        """Scale [-1, 1] to coordinates on an axis, the ends exactly."""
        low, high = self.low[axis], self.high[axis]
        t = nodes.straight(t, self.bend[axis])
        return np.where(t == -1, low, np.where(t == 1, high, low + (high - low) * (1 + t) / 2))

    def extend(self, axis: int, count: int, offered: np.ndarray, rounded: Callable) -> None:
        """Take ``count`` nodes on an axis, some of those ``offered`` where they are well placed.

        Args:
            axis, count: Which, and how many.
            offered: Coordinates at which X is solved.
            rounded: Moves coordinates of an axis to where X can be solved; they may coincide then.
        """
        own = self.axes[axis]
        if count <= len(own):
            self.axes[axis] = own[:count]
            return
        taken = set(own.tolist())
        left = np.array([x for x in offered.tolist() if x not in taken])
        relative = (self.relative(axis, x) for x in (own, left, self.banned[axis]))
        t, numbers = zip(*nodes.added(count - len(own), *relative))
        found = rounded(axis, self.absolute(axis, np.array(t))).tolist()
        found = [x if k < 0 else float(left[k]) for x, k in zip(found, numbers)]
        self.axes[axis] = np.array([*own, *dict.fromkeys(x for x in found if x not in taken)])

    def fill(self, axis: int, count: int, ticks: np.ndarray) -> None:
        """Take so many nodes on an axis, of its only values, where those that `extend` has chosen coincide there."""
        own = self.axes[axis]
        left = np.setdiff1d(ticks, own)
        if len(own) < count and len(left):
            self.axes[axis] = nodes.ordered(left, own)[:count]

    def dodge(self, lost: np.ndarray, rounded: Callable) -> None:
        """Move nodes where the exact solution fails: those of the axis coordinates that most of ``lost`` share."""
        self.moves += 1
        shares = [np.moveaxis(lost, i, 0).reshape(len(own), -1).mean(axis=1) for i, own in enumerate(self.axes)]
        axis = int(np.argmax([share.max() for share in shares]))
        own, middle = self.axes[axis].copy(), (self.low[axis] + self.high[axis]) / 2
        wrong = shares[axis] == shares[axis].max()
        self.banned[axis] = np.union1d(self.banned[axis], own[wrong])
        step = _MOVE * (self.high[axis] - self.low[axis]) * (1 + self.moves / 3)
        own[wrong] += np.where(own[wrong] < middle, step, -step)
        self.axes[axis] = np.array(list(dict.fromkeys(rounded(axis, own).tolist())))

    def grid(self) -> np.ndarray:
        """Return all nodes, shape (n_1 ... n_d, d)."""
        return np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1).reshape(-1, len(self.axes))

    def settle(self) -> None:
        """Remember the nodes at which everything is solved."""
        self.settled = list(self.axes), self.rows

    def give_up(self, reason: str) -> list[Piece]:
        """Go back to the last nodes that were solved at, and say why; return what is to be refined further: nothing."""
        self.trouble = reason
        if self.settled is not None:
            self.axes, self.rows = list(self.settled[0]), self.settled[1]
        return []

    def split(
        self, axis: int, cut: float, counts: Sequence[int], offered: np.ndarray, rounded: Callable, bend: float = 0.0
    ) -> list[Piece]:
        """Halve along an axis; halves begin with what is offered there, and on other axes with their first nodes."""
        pair = []
        for side in (0, 1):
            low, high = self.low.copy(), self.high.copy()
            (low if side else high)[axis] = cut
            half = Piece(low, high, [own[:n] for own, n in zip(self.axes, counts)])
            half.ratio = self.ratio if (self.ratio or 0) < _MISSED else None
            half.tail, half.banned = self.tail, list(self.banned)
            half.bend = np.where(np.arange(len(low)) == axis, max(bend, self.bend[axis]), self.bend)
            half.axes[axis] = np.empty(0)
            half.extend(axis, counts[axis], offered[(offered >= low[axis]) & (offered <= high[axis])], rounded)
            pair.append(half)
        self.halves = (axis, cut, *pair)
        return pair

    def ends(self, box: Box) -> tuple[list[float], list[float]]:
        """Return the bounds in the units of the parameters."""
        low, high = box.parameters(torch.from_numpy(np.stack([self.low, self.high]))).tolist()
        return low, high


def leaves(root: Piece) -> list[Piece]:
    """Return the pieces without halves, from low to high."""
    return [root] if root.halves is None else [*leaves(root.halves[2]), *leaves(root.halves[3])]


def cuts(root: Piece) -> list[float]:
    """Return where pieces were halved."""
    return [] if root.halves is None else [root.halves[1], *cuts(root.halves[2]), *cuts(root.halves[3])]


def collapse(root: Piece) -> None:
    """Undo halvings whose halves were never solved, where the whole was: it stands for both."""
    if root.halves is None:
        return
    pair = root.halves[2:]
    for half in pair:
        collapse(half)
    hollow = [half for half in pair if half.halves is None and half.settled is None]
    if hollow and (root.settled is not None or len(hollow) == 2):
        root.halves = None
        root.give_up(hollow[0].trouble)


def tables(pieces: Sequence[Piece]) -> tuple[dict[str, Tensor], Tensor]:
    """Return the weights of an embedding of pieces, without a tree, and the snapshot of each row of a latent tensor."""
    counts = np.array([piece.counts for piece in pieces])
    low, high, bend = (np.stack([getattr(piece, name) for piece in pieces]) for name in ("low", "high", "bend"))
    at, rows, first, total = np.tile(low[..., None], counts.max()), [], [], 0
    for k, piece in enumerate(pieces):
        order = [np.argsort(own) for own in piece.axes]
        for i, own in enumerate(piece.axes):
            at[k, i, : len(own)] = own[order[i]]
        own = piece.rows.reshape(piece.counts)[np.ix_(*order)].ravel()
        shared = len(order) == 1 and bool(rows) and rows[-1][-1] == own[0]
        first.append(total - shared)
        rows.append(own[int(shared) :])
        total += len(rows[-1])
    ends = low[..., None], high[..., None]
    at = nodes.bent(((at - ends[0]) - (ends[1] - at)) / (ends[1] - ends[0]), bend[..., None])
    at = np.where(np.arange(at.shape[-1]) < counts[..., None], at, 0.0)
    weights = {
        "low": low,
        "high": high,
        "bend": bend,
        "nodes": at,
        "bary": nodes.barycentric(at, counts),
        "counts": counts,
        "first": np.array(first),
    }
    return _tensors(weights), torch.from_numpy(np.concatenate(rows))


def places(weights: dict[str, Tensor], count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw fresh points of pieces: half of them uniform, half far from the nodes; shape (pieces, count, d)."""
    low, high, bend, at = (weights[name].numpy() for name in ("low", "high", "bend", "nodes"))
    own = np.arange(at.shape[2]) < weights["counts"].numpy()[:, :, None]
    t = generator.uniform(-1, 1, (len(low), _PLACES + count // 2, low.shape[1]))
    gaps = np.abs(nodes.bent(t[:, :_PLACES], bend[:, None])[..., None] - at[:, None])
    x = low[:, None] + (high - low)[:, None] * (1 + t) / 2
    logs = np.where(own[:, None], np.log(np.maximum(gaps, np.finfo(float).tiny)), 0).sum(axis=3)
    far = np.argsort(-(logs / own.sum(axis=2)[:, None]).sum(axis=2), axis=1)[:, : count - count // 2]
    return np.concatenate([np.take_along_axis(x, far[:, :, None], axis=1), x[:, _PLACES:]], axis=1)


def located(pieces: Sequence[Piece], x: np.ndarray) -> np.ndarray:
    """Return the number of a piece in which each point lies, or -1."""
    low, high = (np.stack([getattr(piece, end) for piece in pieces]) for end in ("low", "high"))
    inside = ((x[:, None] >= low) & (x[:, None] <= high)).all(axis=2)
    return np.where(inside.any(axis=1), inside.argmax(axis=1), -1)


def embedded(root: Piece, still: Sequence[int] = ()) -> tuple[PiecewisePolynomials, dict[str, Tensor], Tensor]:
    """Return the embedding of a tree of pieces, its weights, and the snapshots whose mean each row of C is, (r, k).

    Args:
        root: Of the tree.
        still: Axes along which X is held in their middle, see `held`.
    """
    found, d = leaves(root), len(root.low)
    weights, rows = tables(found)
    rows = rows[:, None]
    for axis in still:
        weights, rows = held(weights, rows, axis)
    branches, depth = _tree(root, found) if d > 1 else (_NO_TREE, 0)
    return PiecewisePolynomials(depth), weights | _tensors(branches), rows


def held(weights: dict[str, Tensor], rows: Tensor, axis: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return the weights of pieces whose nodes on an axis have become one, and what X is there.

    That is X at the node next to the middle, of two the mean at both.

    Args:
        weights: Of pieces of several parameters, none of which is cut along the axis.
        rows: The snapshots whose mean each row of the latent tensor is, shape (r, k).
        axis: Which.
    """
    first, found = weights["first"].tolist(), []
    for start, counts, at in zip(first, weights["counts"].tolist(), weights["nodes"][:, axis]):
        own, n = rows[start : start + math.prod(counts)].unflatten(0, counts), counts[axis]
        pair = (0, 1) if n == 2 else 2 * (int(at[:n].abs().argmin()),)
        found.append(torch.cat([own.select(axis, k) for k in pair], dim=-1).flatten(0, -2))
    weights = {name: weight.clone() for name, weight in weights.items()}
    weights["counts"][:, axis] = 1
    sizes = weights["counts"].prod(dim=1)
    weights["first"] = sizes.cumsum(dim=0) - sizes
    for name, value in (("nodes", 0.0), ("bary", 1.0)):
        weights[name][:, axis] = 0.0
        weights[name][:, axis, 0] = value
    return weights, torch.cat(found)


def mean(value: Tensor, rows: Tensor) -> Tensor:
    """Return means of snapshots (N, ...), of those in each row of ``rows`` (r, k)."""
    own = rows.to(value.device).T
    return value[own[0]] if len(own) == 1 else sum(value[k] for k in own) / len(own)


def planted(weights: dict[str, Tensor], rounded: Callable) -> Piece:
    """Return the tree of pieces that the weights of an embedding stand for, nothing being solved in them.

    Args:
        weights: As `embedded` gives them.
        rounded: Moves coordinates of an axis to where X can be solved, so that some pieces may have no size.
    """
    own = {name: weight.cpu().numpy() for name, weight in weights.items()}
    found = []
    for low, high, bend, at, counts in zip(*(own[name] for name in ("low", "high", "bend", "nodes", "counts"))):
        piece = Piece(low, high, [np.empty(0)] * len(low))
        piece.bend = bend
        for i, n in enumerate(counts):
            ends, t = rounded(i, np.array([low[i], high[i]])), at[i, :n] if n > 1 else np.array([-1.0, 1.0])
            piece.axes[i] = nodes.ordered(np.unique(rounded(i, piece.absolute(i, t)).clip(*ends)))
            low[i], high[i] = ends
        found.append(piece)

    def whole(halves: list[Piece], axis: int) -> Piece:
        low, high = np.minimum(*(half.low for half in halves)), np.maximum(*(half.high for half in halves))
        piece = Piece(low, high, halves[0].axes)
        piece.halves = (axis, float(halves[1].low[axis]), *halves)
        return piece

    def branch(k: int) -> Piece:
        return found[-1 - k] if k < 0 else whole([branch(half) for half in own["children"][k]], int(own["axis"][k]))

    def between(first: int, last: int) -> Piece:  # of one parameter pieces are in order, and there is no tree
        middle = (first + last) // 2
        return found[first] if last == first + 1 else whole([between(first, middle), between(middle, last)], 0)

    return between(0, len(found)) if found[0].low.size == 1 else branch(0 if len(found) > 1 else -1)


def _tensors(weights: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(weight)) for name, weight in weights.items()}


def around(x: np.ndarray, k: np.ndarray | int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of ``count`` points of x (N,), rising, around each pair k and k + 1, and these points."""
    first = np.clip(k + 1 - count // 2, 0, len(x) - count)
    return first, x[first[..., None] + np.arange(count)]


def chain(x: np.ndarray, count: int = 2) -> tuple[PiecewisePolynomials, dict[str, Tensor]]:
    """Return the embedding that interpolates between points x (N,), rising, and its weights.

    Between two of them by the polynomial through ``count``, as many on one side as on the other where there are.
    """
    low, high = x[:-1, None], x[1:, None]
    first, at = around(x, np.arange(len(low)), count)
    at, counts = (((at - low) - (high - at)) / (high - low))[:, None], np.full(low.shape, count)
    weights = {
        "low": low,
        "high": high,
        "bend": np.zeros(low.shape),
        "nodes": at,
        "bary": nodes.barycentric(at, counts),
        "counts": counts,
        "first": first,
    } | _NO_TREE
    return PiecewisePolynomials(), _tensors(weights)


def _tree(root: Piece, found: Sequence[Piece]) -> tuple[dict[str, np.ndarray], int]:
    """Return axis, cut and children of each inner node (-1 - k stands for piece k), and the depth of the tree."""
    number = {id(piece): -1 - k for k, piece in enumerate(found)}
    inner, level, depth = [], [root], 0
    while level := [piece for piece in level if piece.halves]:
        number |= {id(piece): len(inner) + k for k, piece in enumerate(level)}
        inner += level
        level = [half for piece in level for half in piece.halves[2:]]
        depth += 1
    if not inner:
        return _NO_TREE, 0
    axes, cuts, *halves = zip(*(piece.halves for piece in inner))
    children = np.stack([[number[id(half)] for half in side] for side in halves], axis=1)
    return {"axis": np.array(axes), "cut": np.array(cuts), "children": children}, depth
