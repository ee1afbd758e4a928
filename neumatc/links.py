"""Pieces of one parameter that have run out of the points of a grid: each becomes links between neighbours."""

from __future__ import annotations

import numpy as np

from neumatc import ending, outlook
from neumatc.budget import Budget
from neumatc.inspection import Inspector
from neumatc.piece import Piece, around

# Why a piece ends where samples are too few; by how many of them X is interpolated there.
_COARSE, _AROUND = "between the samples, which are too few here, residuals are larger", 6


class Links:
    """Pieces between neighbouring points of a grid.

    Args:
        inspector: Knows what is solved.
        budget: Of exact solves.
        terms: Most nodes of a piece.

    Attributes:
        unknown: Pieces that were linked and between whose points nothing is known.
    """

    def __init__(self, inspector: Inspector, budget: Budget, terms: int):
        self.inspector, self.snapshots, self.budget, self.terms = inspector, inspector.snapshots, budget, terms
        self.unknown: list[Piece] = []

    def of(self, piece: Piece, points: np.ndarray) -> list[Piece]:
        """Halve a piece at its points (N, 1) of the grid, until each half has two of them, and end it."""
        self.unknown += [] if self.snapshots.curve else [piece]
        return self._linked(piece, points[self.snapshots.solve(points) >= 0, 0])

    def _linked(self, piece: Piece, points: np.ndarray) -> list[Piece]:
        if len(points) < 2:
            points = self.snapshots.within(piece.low[0], piece.high[0])
            return ending.hopeless(self.snapshots, piece, points[self.snapshots.solve(points) < 0])
        if len(points) > 2:
            middle = len(points) // 2
            halves = piece.split(0, float(points[middle]), [2], points, self.snapshots.rounded)
            return self._linked(halves[0], points[: middle + 1]) + self._linked(halves[1], points[middle:])
        piece.axes[0] = self._around(points) if self.snapshots.curve else points
        piece.bend = np.zeros(1)  # nodes beyond its ends
        piece.rows = self.snapshots.solve(piece.grid())
        piece.settle()
        outlook.analyse(self.snapshots, [piece])
        missed = self.snapshots.curve and self.inspector.worst([piece])[0] > self.inspector.task.tol
        return piece.give_up(_COARSE) if missed else []

    def _around(self, points: np.ndarray) -> np.ndarray:
        """Return two neighbouring samples with others around them, unless those cannot be solved."""
        grid = self.snapshots.grid[:, 0]
        near = around(grid, np.searchsorted(grid, points[0]), max(2, min(_AROUND, self.terms, len(grid))))[1]
        known = self.snapshots.missing(near[:, None]) <= self.budget.left()
        return near if known and (self.snapshots.solve(near[:, None]) >= 0).all() else points
