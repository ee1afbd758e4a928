"""Residuals of pieces at fresh parameters, and what they say of the size of the coefficients that were left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from neumatc import piece as tree
from neumatc.embeddings import Embedding
from neumatc.linalg import from_rows, real_rows
from neumatc.local import PiecewisePolynomials
from neumatc.methods import Task
from neumatc.model import FactorMap
from neumatc.piece import Piece
from neumatc.report import Round
from neumatc.snapshots import Snapshots

# Fresh parameters for each piece; over the box, for one parameter and for more, half as many where each takes an exact
# solve; and as a part of the exact solves. That none of 149 uniform ones fails says with 95 % confidence that at most
# 2 % of the box do, twice the target: of 64 none fails in every fourth such case.
_FRESH, _FRESH_IN_BOX, _SHARE = 4, (149, 192), (0.0, 0.25)
# How near a node, as a part of the way to the middle of its piece, X is what it is there but for noise; and from which
# part of the tolerance, and of what the coefficients promise, the residual there is taken for that. At how many nodes
# it is measured; of which the median is taken, as X may jump at one; and where each takes an exact solve.
_BESIDE, _NOISY, _MOSTLY, _NODES = 1e-12, 0.3, 0.1, (9, 3)
# Points at which it is looked how much of the box is undefined, where some is; and how much may be without a word: as
# much as may miss the tolerance.
_FRESH_IF_HOLLOW, _MISSING = 512, 0.01
# Residual over the size of the coefficients left out: the most that is believed of the first measurement, where nothing
# is resolved, and how often it counts; and the last measurements of which the median is taken.
_MOST_RATIO, _FIRST, _LAST = 4.0, 4, 32
# A residual that is at most this many times that of exact solutions is rounding, of them and of their sum.
_ROUNDED = 8


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
        self.uniform = np.empty(0)
        self.quiet = 32  # what was solved when there was no noise; before, it is not asked for
        self.hollow = False  # whether the family was not defined at a uniform point

    def ratio(self) -> float:
        """Return the residual over the size of the coefficients left out, as it usually is."""
        last = sorted(self.ratios[-_LAST:])
        return last[len(last) // 2] if last else 1.0

    def learn(self, worst: float, tail: float) -> None:
        """Enter a residual and the size of the coefficients left out, unless that is rounding."""
        if np.isfinite(worst) and tail > 64 * np.finfo(float).eps:
            self.ratios.append(worst / tail)

    def calibrate(self, root: Piece, tail: float) -> None:
        """Measure the whole box, for a first idea."""
        (worst,) = self.worst([root])
        self.ratios += _FIRST * [float(np.clip(worst / max(tail, 1e-100), 1.0, _MOST_RATIO))]

    def worst(self, pieces: Sequence[Piece]) -> list[float]:
        """Return the largest residual of each piece at fresh parameters; Inf where the family is defined at none."""
        if not pieces:
            return []
        tables = tree.tables(pieces)
        x = tree.places(tables[0], _FRESH, self.generator)
        r = self._residuals(tables, x.reshape(-1, x.shape[2]), np.repeat(np.arange(len(pieces)), _FRESH))
        r = np.where(np.isnan(r), -np.inf, r).reshape(len(pieces), -1).max(axis=1)
        return np.where(r < 0, np.inf, r).tolist()

    def rounding(self, piece: Piece, worst: float) -> str:
        """Say that a residual is rounding, where exact solutions at the nodes have such ones; nothing if it solves."""
        if self.task.problem.operation.residual_solves:
            return ""
        p = self.task.problem.family.box.parameters(torch.from_numpy(self.snapshots.x[piece.rows]))
        own = float(self.measured(p, lambda value: real_rows(value)[piece.rows]).max())
        said = f"the exact solutions themselves have residuals of some {own:.0e} here"
        return said if worst <= _ROUNDED * own else ""

    def along(self, pieces: Sequence[Piece], axes: Sequence[int]) -> np.ndarray:
        """Return the largest residual of each piece at fresh parameters that are between nodes on one axis only."""
        if not pieces:
            return np.empty(0)
        tables = tree.tables(pieces)
        x = tree.places(tables[0], _FRESH, self.generator)
        for own, piece, axis in zip(x, pieces, axes):
            for i in set(range(own.shape[1])) - {axis}:
                own[:, i] = self.generator.choice(piece.axes[i], len(own))
        r = self._residuals(tables, x.reshape(-1, x.shape[2]), np.repeat(np.arange(len(pieces)), _FRESH))
        return np.nan_to_num(r, nan=0.0, posinf=np.inf).reshape(len(pieces), -1).max(axis=1)

    def noise(self, piece: Piece, tail: float) -> float:
        """Return the residual right beside nodes if that keeps a piece from the tolerance, and not the tail; or 0.

        It does so where a family is random, or rough at any scale. Asked for in vain, it is again once the solves have
        doubled.
        """
        if not tail or self.snapshots.solved < 2 * self.quiet:
            return 0.0
        grid, count = piece.grid(), _NODES[self.task.problem.operation.residual_solves]
        x = grid[np.linspace(0, len(grid) - 1, count).astype(int)]
        x += _BESIDE * ((piece.low + piece.high) / 2 - x)
        r = self._residuals(tree.tables([piece]), x, np.zeros(count, int))
        size, least = float(np.median(np.where(np.isfinite(r), r, 0.0))), _NOISY * self.task.tol
        self.quiet = self.snapshots.solved if size <= least else self.quiet
        return size if size > max(least, _MOSTLY * self.ratio() * tail) else 0.0

    def forget(self) -> None:
        """Forget the last check, and do not ask the family again: something has ended the fit."""
        self.uniform, self.hollow = np.empty(0), False

    def draws(self) -> np.ndarray:
        """Draw uniform points of the box, as many as a last check takes."""
        d = self.task.problem.family.dimension
        kind = min(d, 2) - 1
        least = _FRESH_IN_BOX[kind] // (2 if self.task.problem.operation.residual_solves else 1)
        return self.generator.uniform(-1, 1, (max(least, int(_SHARE[kind] * self.snapshots.solved)), d))

    def in_box(self, pieces: Sequence[Piece], x: np.ndarray | None = None) -> dict[Piece, float]:
        """Return the largest residual of those pieces in which points x lie, by default uniform ones of the box."""
        uniform, x = x is None, self.draws() if x is None else x
        own = tree.located(pieces, x)
        order = np.argsort(own, kind="stable")[(own < 0).sum() :]
        own = own[order]
        r = self._residuals(tree.tables(pieces), x[order], own) if len(own) else np.empty(0)
        self.hollow |= bool(np.isnan(r).any())
        own, r = own[~np.isnan(r)], r[~np.isnan(r)]
        self.uniform = r if uniform else self.uniform
        return {pieces[k]: float(r[own == k].max()) for k in np.unique(own)}

    def beyond(self, root: Piece, still: Sequence[int]) -> np.ndarray:
        """Return uniform points (N, d) of the box where the tolerance is missed if X is held along some axes."""
        drawn, r = self.probe(*tree.embedded(root, still))
        good = r <= self.task.tol
        self.uniform = r if good.all() else self.uniform
        return drawn[~good]

    def probe(self, embedding: Embedding, weights: dict[str, Tensor], rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return uniform points (N, d) of the box, and residuals there of a map whose rows are means of snapshots.

        They are Inf where the family is not defined.
        """
        drawn = self.draws()
        p = self.task.problem.family.box.parameters(torch.from_numpy(drawn))
        x, weights = self.task.cube(p), {name: weight.to(p.device) for name, weight in weights.items()}
        r = self.measured(p, lambda value: embedding.contract(x, weights, real_rows(tree.mean(value, rows))))
        return drawn, np.where(np.isnan(r), np.inf, r)

    def undefined(self) -> np.ndarray:
        """Return uniform points (N, d) at which the family is not defined; none where they are too few to matter."""
        if not self.hollow:
            return np.empty((0, self.snapshots.x.shape[1]))
        x = self.generator.uniform(-1, 1, (_FRESH_IF_HOLLOW, self.snapshots.x.shape[1]))
        _, good = self.task.evaluate(self.task.box(torch.from_numpy(x)))
        x = x[~good.cpu().numpy()]
        return x if len(x) > _MISSING * _FRESH_IF_HOLLOW else x[:0]

    def maps(
        self, embedding: Embedding, weights: dict[str, Tensor], core: Callable[[Tensor], Tensor]
    ) -> list[FactorMap]:
        """Return the maps whose latent tensors are made of each factor's solved values; enter the last check."""
        task, report, device = self.task, self.task.report, self.task.problem.family.device
        weights = {name: weight.to(device) for name, weight in weights.items()}
        values = zip(task.problem.factors, self.snapshots.values())
        maps = [FactorMap(factor.name, core(value), embedding, weights) for factor, value in values]
        report.rank, report.collocation = max(m.rank for m in maps), self.snapshots.solved
        if len(self.uniform):
            found = Round(exact_solves=report.exact_solves, rank=report.rank)
            report.rounds.append(found.measured(self.uniform, task.tol))
        return maps

    def _residuals(self, tables: tuple[dict[str, Tensor], Tensor], x: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return residuals at x (B, d) in pieces of rising numbers: NaN where the family is not defined."""
        p = self.task.problem.family.box.parameters(torch.from_numpy(x))
        device, embedding = p.device, PiecewisePolynomials()
        x, own, rows = self.task.cube(p), torch.from_numpy(own).to(device), tables[1].to(device)
        weights = {name: weight.to(device) for name, weight in tables[0].items()}
        return self.measured(p, lambda value: embedding.summed(x, own, weights, real_rows(value)[rows]))

    def measured(self, p: Tensor, combine: Callable[[Tensor], Tensor]) -> np.ndarray:
        """Return residuals at p of the real rows that are made of each factor's solved values: NaN where undefined."""
        if self.task.problem.operation.residual_solves and len(p) > self.task.left():
            return np.full(len(p), np.inf)  # nothing is known where the budget ends
        fitted = [from_rows(combine(value), value) for value in self.snapshots.values()]
        return self.task.unfinished(p, fitted).double().cpu().numpy()
