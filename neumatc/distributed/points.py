"""Parameters that need not be in memory: any rows of them, from an array, a tensor grid of axes, or a recipe."""

from __future__ import annotations

import hashlib
import math
import numbers
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from neumatc import checks
from neumatc.box import Box

# Rows that are checked at once.
_CHECKED = 2**20
_FORMS = "an array (N, d), a list of d axes (N_i,), or for an axis (start, stop, count)"


@dataclass(frozen=True)
class Listed:
    """Parameters of an array (N, d), which may be a memory map."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(N,)."""
        return (len(self.array),)

    def part(self, start: int, stop: int) -> Listed:
        """Return what another process needs to have the rows from ``start`` on."""
        return Listed(np.array(self.array[start:stop]))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the parameters (B, d); of a `part` all that it has."""
        return self.array

    @property
    def digest(self) -> str:
        """A checksum of all parameters."""
        found = hashlib.sha256(f"{self.array.dtype} {self.array.shape}".encode())
        for start in range(0, len(self.array), _CHECKED):
            found.update(np.ascontiguousarray(self.array[start : start + _CHECKED]))
        return found.hexdigest()


@dataclass(frozen=True)
class Spaced:
    """A recipe for an axis: ``count`` values from ``start`` to ``stop``, ends included, evenly on the axis's scale.

    A value depends on its number alone, not on the rows that it is computed with.
    """

    start: float
    stop: float
    count: int
    log: bool = False

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        low, high = (math.log(x) if self.log else x for x in (self.start, self.stop))
        t = index / max(self.count - 1, 1)
        x = low * (1 - t) + high * t
        x = np.clip(np.exp(x) if self.log else x, *sorted((self.start, self.stop)))
        return np.where(index == 0, self.start, np.where(index == self.count - 1, self.stop, x))


@dataclass(frozen=True)
class Grid:
    """All pairs of the values of axes, the last axis running fastest."""

    axes: tuple[np.ndarray | Spaced, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N_1, ..., N_d)."""
        return tuple(map(len, self.axes))

    def part(self, start: int, stop: int) -> None:
        """Return nothing: another process has the axes."""

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the parameters (B, d) with the numbers from ``start`` to ``stop``, the latter not included."""
        index = np.unravel_index(np.arange(start, stop), self.shape)
        return np.stack([axis[i] for axis, i in zip(self.axes, index)], axis=1)

    @property
    def digest(self) -> str:
        """A checksum of all axes."""
        found = hashlib.sha256(str(self.shape).encode())
        for axis in self.axes:
            found.update(repr(axis).encode() if isinstance(axis, Spaced) else np.ascontiguousarray(axis))
        return found.hexdigest()


@checks.explained
def points(p: object, box: Box) -> Listed | Grid:
    """Return parameters of a box, after checking them, so that rows of them can be had.

    Args:
        p: An array or a tensor of shape (N, d), for d = 1 also (N,); a list of d axes, each an array (N_i,) or a recipe
            ``(start, stop, count)``, which stand for all their pairs; for d = 1 also a recipe alone. A recipe has
            ``count`` values, ends included, evenly on the scale of the axis.
        box: Where they must be.

    Raises:
        ValueError: If there are none, or some are not finite or outside of the box.
        TypeError: For another kind of p.
    """
    p = p.numpy(force=True) if isinstance(p, Tensor) else p
    if isinstance(p, np.ndarray):
        return Listed(_checked(p.reshape(-1, 1) if p.ndim < 2 and box.dimension == 1 else p, box, "p"))
    axes = [p] if _recipe(p) else p
    several = isinstance(axes, (list, tuple)) and all(_recipe(x) or isinstance(x, (np.ndarray, Tensor)) for x in axes)
    checks.require(several, "p", _FORMS, checks.describe(p), "give points as an array", TypeError)
    d, names = box.dimension, ", ".join(box.names)
    checks.require(len(axes) == d, "p", f"{d} axes, one for each of {names}", len(axes), "give one for each")
    return Grid(tuple(_axis(x, own, f"p[{i}]") for i, (x, own) in enumerate(zip(axes, box.axes))))


def _recipe(x: object) -> bool:
    """Whether x is a tuple of three numbers."""
    return isinstance(x, tuple) and len(x) == 3 and all(isinstance(own, numbers.Real) for own in x)


def _axis(x: object, box: Box, name: str) -> np.ndarray | Spaced:
    if not _recipe(x):
        x = x.numpy(force=True) if isinstance(x, Tensor) else x
        return _checked(x.reshape(-1, 1) if x.ndim < 2 else x, box, name)[:, 0]
    start, stop = (checks.number(name, own) for own in x[:2])
    _checked(np.array([[start], [stop]]), box, name)
    return Spaced(start, stop, checks.integer(name, x[2], 1), box.scale[0] == "log")


def _checked(array: np.ndarray, box: Box, name: str) -> np.ndarray:
    """Return parameters (N, d) as they are, after checking some at a time: an array may be larger than memory."""
    for start in range(0, max(1, len(array)), _CHECKED):
        box.points(array[start : start + _CHECKED], offered=False, name=name)
    return array
