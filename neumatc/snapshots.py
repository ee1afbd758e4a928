"""What is solved exactly, in the order in which it was: the store of a fit in pieces."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from neumatc.linalg import norm
from neumatc.methods import Task

# Distance in the cube within which two values of an axis are the same.
_SAME = 1e-12
# Random combinations of the entries of a result by which its decay is judged, and decimals that tell points apart.
_COMBINATIONS, _DECIMALS = 16, 13


class Snapshots:
    """Exact solutions at points of the cube, each solved once.

    Args:
        task: Of the fit; it counts the solves.
    """

    def __init__(self, task: Task):
        self.task = task
        self.x = np.empty((0, task.problem.family.dimension))
        self.anchors = np.array([-1.0, 1.0])  # of one parameter: coordinates between which factors are smooth
        self._rows: dict[bytes, int] = {}
        self._factors: tuple[Tensor, ...] = ()
        self._values: tuple[Tensor, ...] | None = None
        self._sketch: np.ndarray | None = None
        self._sizes: list[np.ndarray] = []
        self.grid = _grid(task)  # of one parameter, if the family has one
        self.curve = self.grid is not None and task.problem.family.measured is not None  # known between its points too
        box = task.problem.family.box
        self.ticks = None if box.places is None else [at.cpu().numpy() for at in box.places]  # of each axis
        self._single = box.dtype == torch.float32
        self._periodic = np.array(box.periodic)

    def adopt(self, other: Snapshots, chosen: int | list[int]) -> None:
        """Take over what was solved for many problems: of those chosen, where all of them have a solution."""
        self.x, self._rows = other.x, {key: row for key, row in other._rows.items() if row >= 0}
        self._factors = tuple(values[:, chosen] for values in other._factors)

    @property
    def solved(self) -> int:
        """Points at which a solution was tried."""
        return len(self._rows)

    def _keys(self, x: np.ndarray) -> list[bytes]:
        x = np.round(x, _DECIMALS) + 0.0
        x = np.where(self._periodic & (x == 1), -1.0, x)
        return [row.tobytes() for row in np.ascontiguousarray(x)]

    def missing(self, x: np.ndarray) -> int:
        """Return at how many points there is no solution yet."""
        return len({key for key in self._keys(x) if key not in self._rows})

    def solve(self, x: np.ndarray) -> np.ndarray:
        """Solve where that was not done yet; return the row of each point (N, d), or -1 where its solution failed."""
        keys = self._keys(x)
        new = {key: i for i, key in enumerate(keys) if key not in self._rows}
        if new:
            points = x[list(new.values())]
            factors, good = self.task.solve(self.task.box(torch.from_numpy(points)), aligned=True)
            good = good.numpy()
            numbers = np.where(good, len(self.x) + np.cumsum(good) - 1, -1).tolist()
            x = np.concatenate([self.x, points[good]])
            factors = tuple(map(torch.cat, zip(self._factors, factors))) if self._factors else tuple(factors)
            sketch = self._sketch if self.task.problem.operation.unique else None
            # Together, as Ctrl-C may come between any two calls.
            self.x, self._factors, self._values, self._sketch = x, factors, None, sketch
            self._rows |= zip(new, numbers)
        return np.array([self._rows[key] for key in keys])

    def undecided(self) -> np.ndarray:
        """Return the mask (N,) of what is no choice, as values that are tied; for most operations of nothing."""
        tied = getattr(self.task.problem.operation, "undecided", None)
        return tied(self._factors).cpu().numpy() if tied else np.zeros(len(self.x), dtype=bool)

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """Return the row of the nearest solution for each point (N, d)."""
        return np.array([int(np.square(self.x - point).sum(axis=1).argmin()) for point in x])

    def values(self) -> tuple[Tensor, ...]:
        """Return the factors in their gauge, shape (N, *shape) each."""
        if self._values is None:
            operation = self.task.problem.operation
            values = self._factors
            if not operation.unique:
                along = {"periodic": self._periodic[0], "anchors": self.anchors} if self.x.shape[1] == 1 else {}
                values, events = operation.align(torch.from_numpy(self.x), values, **along)
                self.task.enter(events)
            self._values = tuple(v.resolve_conj().contiguous() for v in values)
        return self._values

    def sketch(self) -> np.ndarray:
        """Return random combinations of the entries of each factor, problem by problem, in double precision.

        Shape (N, problems, s); every factor of every problem counts alike.
        """
        first = 0 if self._sketch is None else len(self._sketch)
        if first < len(self.x):
            count, many = len(self.x) - first, self.task.many
            parts = [value[first:].reshape(count, many, -1) for value in self.values()]
            if not first:
                sizes = [norm(part.flatten(0, 1)).double().view(count, many) for part in parts]
                self._sizes = [size.square().mean(dim=0).sqrt().cpu().numpy() for size in sizes]
            new = [_combined(part, size) for part, size in zip(parts, self._sizes)]
            new = np.concatenate(new, axis=2)
            self._sketch = np.concatenate([self._sketch, new]) if first else new
        return self._sketch

    def divide(self, cuts: list[float]) -> None:
        """Place anchors at the ends and where pieces are divided."""
        anchors = np.array([-1.0, 1.0, *cuts])
        if not self.task.problem.operation.unique and not np.array_equal(anchors, self.anchors):
            self.anchors, self._values, self._sketch = anchors, None, None

    def along(self, low: float, high: float) -> np.ndarray:
        """Return what is solved between two bounds of one parameter; of several parameters nothing."""
        x = self.x[:, 0] if self.x.shape[1] == 1 else np.empty(0)
        return x[(x >= low) & (x <= high)]

    def within(self, low: float, high: float) -> np.ndarray | None:
        """Return the points (N, 1) of the grid, if there is one, between two bounds of its parameter."""
        return None if self.grid is None else self.grid[((self.grid >= low) & (self.grid <= high))[:, 0]]

    def between(self, axis: int, low: float, high: float) -> np.ndarray:
        """Return the values between two bounds that an axis has alone; none where it has all."""
        if self.ticks is None:
            return np.empty(0)
        return self.ticks[axis][slice(*np.searchsorted(self.ticks[axis], [low - _SAME, high + _SAME]))]

    def available(self, axis: int, low: float, high: float) -> float:
        """Return how many values an axis has between two bounds: Inf unless the family has nothing between them."""
        return np.inf if self.ticks is None else len(self.between(axis, low, high))

    def rounded(self, axis: int, x: np.ndarray) -> np.ndarray:
        """Move coordinates to where a solution may be: to points of the grid, or of single precision."""
        if self.grid is not None or self.ticks is not None:
            places = self.grid[:, 0] if self.ticks is None else self.ticks[axis]
            after = np.searchsorted(places, x).clip(1, len(places) - 1)
            low, high = places[after - 1], places[after]
            return np.where(x - low < high - x, low, high)
        if self._single:
            points = torch.zeros(len(x), self.x.shape[1], dtype=torch.float64)
            points[:, axis] = torch.from_numpy(x)
            return self.task.problem.family.box.rounded(points)[:, axis].numpy()
        return x


def _grid(task: Task) -> np.ndarray | None:
    """Return the family's grid of one parameter, distinct points of the cube (N, 1), rising, if it has one."""
    family = task.problem.family
    if family.dimension > 1 or family.grid is None:
        return None
    return np.unique(family.box.cube(family.grid).cpu().numpy(), axis=0)


def _combined(rows: Tensor, size: np.ndarray) -> np.ndarray:
    """Return random combinations of the last axis in units of ``size``, in double precision."""
    combined = (rows @ _combinations(rows.shape[-1]).to(rows.device, rows.dtype)).cpu().numpy()
    combined = combined.astype(np.complex128 if rows.is_complex() else float)
    return combined / np.maximum(size, np.finfo(float).tiny)[:, None]


@lru_cache(maxsize=16)
def _combinations(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (count, _COMBINATIONS), generator=generator)
    return (2.0 * signs - 1) / _COMBINATIONS**0.5
