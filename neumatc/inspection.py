"""Residuals of pieces at fresh parameters, and what they say of the size of the coefficients that were left out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from neumatc.embeddings import real_rows
from neumatc.methods import Task
from neumatc.piece import Piece, located
from neumatc.report import Round
from neumatc.snapshots import Snapshots

# Fresh parameters for each piece; over the box, for one parameter and for more, half as many where each takes an exact
# solve; and as a part of the exact solves.
_FRESH, _FRESH_IN_BOX, _SHARE = 4, (64, 192), (0.0, 0.25)
# Residual over the size of the coefficients left out: the most that is believed of the first measurement, where nothing
# is resolved, and how often it counts; and the last measurements of which the median is taken.
_MOST_RATIO, _FIRST, _LAST = 4.0, 4, 32


class Inspector:
    """Measures residuals of maps that are not finished yet.

    Args:
        task: Of the fit; it counts the evaluations.
        snapshots: What is solved.
    """

    def __init__(self, task: Task, snapshots: Snapshots):
        self.task, self.snapshots = task, snapshots
        self.generator = np.random.default_rng(task.report.seed)
        self.ratios: list[float] = []
        self._ratio = 1.0
        self.uniform = np.empty(0)

    def ratio(self) -> float:
        """Return the residual over the size of the coefficients left out, as it usually is."""
        return self._ratio

    def learn(self, worst: float, tail: float) -> None:
        """Enter a residual and the size of the coefficients left out, unless that is rounding."""
        if np.isfinite(worst) and tail > 64 * np.finfo(float).eps:
            self._enter(worst / tail)

    def calibrate(self, root: Piece, tail: float) -> None:
        """Measure the whole box, for a first idea."""
        (worst,) = self.worst([root])
        for _ in range(_FIRST):
            self._enter(float(np.clip(worst / max(tail, np.finfo(float).tiny), 1.0, _MOST_RATIO)))

    def _enter(self, ratio: float) -> None:
        self.ratios = [*self.ratios[1 - _LAST :], ratio]
        self._ratio = sorted(self.ratios)[len(self.ratios) // 2]

    def worst(self, pieces: Sequence[Piece]) -> list[float]:
        """Return the largest residual of each piece at fresh parameters; Inf where the family is defined at none."""
        found = self.residuals(pieces, [piece.places(_FRESH, self.generator) for piece in pieces])
        return [float(r.max()) if len(r) else np.inf for r in found]

    def in_box(self, pieces: Sequence[Piece]) -> dict[Piece, float]:
        """Return the largest residual of those pieces in which uniform parameters of the box lie."""
        d = len(pieces[0].low)
        kind = min(d, 2) - 1
        least = _FRESH_IN_BOX[kind] // (2 if self.task.problem.operation.residual_solves else 1)
        count = max(least, int(_SHARE[kind] * self.snapshots.solved))
        x = self.generator.uniform(-1, 1, (count, d))
        own = located(pieces, x)
        x, own = x[own >= 0], own[own >= 0]
        if not len(x):
            return {}
        chosen = [pieces[k] for k in np.unique(own)]
        found = self.residuals(chosen, [x[own == k] for k in np.unique(own)])
        self.uniform = np.concatenate(found)
        return {piece: float(r.max()) for piece, r in zip(chosen, found) if len(r)}

    def summary(self) -> None:
        """Enter the last check over the box into the report."""
        report, r = self.task.report, self.uniform
        if len(r):
            share = float((r > self.task.tol).mean())
            entry = Round(0, share, (share * (1 - share) / len(r)) ** 0.5, float(np.median(r)), float(r.max()))
            entry.exact_solves, entry.rank, entry.draws = report.exact_solves, report.rank, len(r)
            report.rounds.append(entry)

    def residuals(self, pieces: Sequence[Piece], places: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return residuals at places of each piece (B_k, d); where the family is not defined they are left out."""
        if not pieces:
            return []
        bounds = np.cumsum([0, *map(len, places)])
        x = np.concatenate(places)
        if self.task.problem.operation.residual_solves and len(x) > self.task.left():
            return [np.full(len(own), np.inf) for own in places]  # nothing is known where the budget ends
        p = self.task.problem.family.box.parameters(torch.from_numpy(x))
        x = self.task.place(p).numpy()
        values = self.snapshots.values()
        flat: list[list[Tensor]] = [[] for _ in values]
        for piece, (a, b) in zip(pieces, pairwise(bounds)):
            phi, rows = torch.from_numpy(piece.basis(x[a:b])), torch.from_numpy(piece.rows)
            for own, value in zip(flat, values):
                columns = real_rows(value)
                own.append(phi.to(columns) @ columns[rows.to(columns.device)])
        r = self.measured(p, [torch.cat(own) for own in flat])
        good = ~np.isnan(r)
        return [r[a:b][good[a:b]] for a, b in pairwise(bounds)]

    def measured(self, p: Tensor, flat: Sequence[Tensor]) -> np.ndarray:
        """Return residuals at p of factors as real rows, shape (B,): NaN where the family is not defined."""
        task, fitted = self.task, []
        operation, family = task.problem.operation, task.problem.family
        for own, value in zip(flat, self.snapshots.values()):
            shape = (len(p), *value.shape[1:])
            own = torch.view_as_complex(own.view(*shape, 2)) if value.is_complex() else own.view(shape)
            fitted.append(own)
        factors = [(factor.shape, factor.dtype(family.dtype)) for factor in task.problem.factors]
        out = [
            own if own.shape[1:] == shape else own.new_empty((len(p), *shape), dtype=dtype)
            for own, (shape, dtype) in zip(fitted, factors)
        ]
        operation.finish(fitted, out)
        A, good = family.evaluate(p)
        r = task.measure(A, out)
        r = torch.where(torch.isfinite(r), r, torch.inf)
        return torch.where(good, r, torch.nan).double().cpu().numpy()
