"""What the coefficients of pieces say: how fast they decay, how many nodes that asks for, where X jumps or turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neumatc import nodes
from neumatc.piece import Piece
from neumatc.snapshots import Snapshots

# Nodes on an axis that resolve it for most tolerances; where so many more seem to be needed, the piece is halved.
USUAL = 16
# Nodes that are added at once where solves are dear, twice as many if four times as many seem to be needed: decay gets
# faster as X is resolved.
STEP = 2
# A coefficient that falls by less than this (natural logarithm) to the next does not decay.
_LEAST_RATE = 0.1
# Below so many rounding units coefficients that do not fall when a piece is halved are noise.
_NOISE_UNITS, _FALLEN = 300.0, 0.3
# A residual that is larger than the coefficients by this part of one over a rounding unit is no noise.
_MISSED = 1e-3
# A piece that keeps nearly all of the difference between its ends, and where little else happens, seems to hold a jump.
_KEPT, _LEFT = 0.9, 0.1
# Part of the tolerance to which stretched polynomials are to converge.
_STRETCH_PART = 0.1


@dataclass(frozen=True)
class Outlook:
    """What the coefficients of a piece say: sizes of the tails per axis, and the nodes wanted per axis."""

    tails: np.ndarray
    wanted: np.ndarray

    @classmethod
    def of(cls, piece: Piece, allowed: float, step: int) -> Outlook:
        """Read off tails and wanted nodes from the decay along each axis, if tails may be of a size."""
        return cls(*map(np.array, zip(*(_read(envelope, allowed, step) for envelope in piece.envelopes))))

    @property
    def tail(self) -> float:
        return float(self.tails.max())

    def small(self, dtype: torch.dtype) -> bool:
        """Whether what is left out may be rounding."""
        return self.tail < _NOISE_UNITS * torch.finfo(dtype).eps

    def noise(self, piece: Piece, dtype: torch.dtype) -> float:
        """Return what is left if it is rounding, and no residual is so large that nodes have missed X; else 0."""
        unit = torch.finfo(dtype).eps
        flat = np.isinf(self.wanted).any() and _FALLEN * piece.tail < self.tail and self.small(dtype)
        flat = flat and (piece.ratio or 0) < _MISSED / unit
        return self.tail if flat else 0.0


def analyse(snapshots: Snapshots, pieces: Sequence[Piece]) -> None:
    """Compute how the coefficients of pieces decay along each axis."""
    sketch = snapshots.sketch()
    for counts in {piece.counts for piece in pieces}:
        alike = [piece for piece in pieces if piece.counts == counts]
        values = sketch[np.stack([piece.rows for piece in alike])].view(float)
        sizes = np.sort(np.linalg.norm(values, axis=(2, 3)), axis=1) / snapshots.task.many**0.5
        scale = np.maximum(sizes[:, sizes.shape[1] // 2, None], np.finfo(float).tiny)
        values = values.reshape(len(alike), *counts, *values.shape[2:])
        places = [np.stack([piece.relative(i, piece.axes[i]) for piece in alike]) for i in range(len(counts))]
        found = [nodes.decay(np.moveaxis(values, i + 1, 1), at) / scale for i, at in enumerate(places)]
        for piece, *envelopes in zip(alike, *found):
            piece.envelopes = envelopes


def jump(snapshots: Snapshots, piece: Piece) -> tuple[float, float] | None:
    """Return two neighbouring nodes between which nearly all of the difference between the ends happens."""
    x, values, steps = _along(snapshots, piece, 0)
    k = int(steps.argmax())
    steep = steps[k] > _KEPT * np.linalg.norm(values[-1] - values[0]) and steps.sum() - steps[k] < _LEFT * steps[k]
    return (x[k], x[k + 1]) if steep else None


def unrelated(snapshots: Snapshots, piece: Piece, axis: int, most: int) -> bool:
    """Whether most neighbouring nodes on an axis have little to do with each other, as where X oscillates.

    With more nodes a piece may be longer.
    """
    _, values, steps = _along(snapshots, piece, axis)
    spread = np.linalg.norm(values - values.mean(axis=0)) / len(values) ** 0.5
    return bool(np.sort(steps)[len(steps) // 2] > most / USUAL * spread)


def stretch(tol: float, most: int) -> float:
    """Return the angle by which pieces are stretched where X oscillates.

    Polynomials in sin(b t) have their nodes nearly equidistant, and converge by the distance of the branch points of
    the stretched X, at 1 / sin(b): the factor per node with which so many nodes come to a part of the tolerance.
    """
    rate = (_STRETCH_PART * tol) ** (-1 / most)
    return math.asin(2 / (rate + 1 / rate))


def _along(snapshots: Snapshots, piece: Piece, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the nodes on an axis in order, X there, and the sizes of its steps."""
    order = np.argsort(piece.axes[axis])
    values = np.moveaxis(snapshots.sketch()[piece.rows.reshape(piece.counts)], axis, 0)[order].reshape(len(order), -1)
    return piece.axes[axis][order], values, np.linalg.norm(np.diff(values, axis=0), axis=1)


def _read(envelope: np.ndarray, allowed: float, step: int) -> tuple[float, float]:
    """Return the size of the first coefficient left out, and the nodes that the decay asks for (Inf: no decay)."""
    n = len(envelope)
    if n < 3:
        return 0.0, n
    # Of the last two, the larger: every other coefficient of an even or odd function is zero.
    last, half, span = envelope[n - 2], envelope[n // 2], n - 2 - n // 2
    enough = int(max(2, np.argmax(envelope <= allowed) if envelope[-1] <= allowed else n))
    if last == 0:
        return 0.0, enough
    rate = math.log(half / last) / span if span else math.log(envelope[n // 2 - 1] / last)
    tail = float(last * math.exp(-2 * max(rate, 0)))
    if tail <= allowed:
        return tail, enough
    further = math.log(tail / allowed) / rate if rate >= _LEAST_RATE else math.inf
    if further >= USUAL:
        return tail, math.inf
    return tail, n + min(2 * step if further > 4 * step else step, math.ceil(further))
