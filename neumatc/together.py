"""Problems of one operation, shape and box as one, so that pieces are chosen once for all of them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from neumatc import checks, nodes
from neumatc.batches import alike, at_once
from neumatc.methods import Task
from neumatc.model import FactorMap
from neumatc.operations import checked, judged
from neumatc.piece import Piece
from neumatc.report import Report, StopReason
from neumatc.snapshots import Snapshots
from neumatc.watch import ENDINGS, STOPPED


@dataclass(frozen=True)
class Together(Task):
    """Tasks as one task: a factor of shape S becomes one of shape (problems, *S), a residual the largest of all.

    Attributes:
        tasks: One for each problem; their reports are written by `apart`.
        at_once: Gives the matrices of all problems, shape (B, problems, m, n), where their families do so together.
        last: The residuals measured last, shape (B, problems): those of the check over the box, at the end.
    """

    tasks: tuple[Task, ...] = ()
    at_once: Callable[[Tensor], Tensor] | None = None
    last: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Together | None:
        """Return the tasks as one, or None where each needs its own pieces: other boxes or grids, factors to align."""
        first = tasks[0]
        operation = first.problem.operation
        if operation.finishes or not operation.unique or first.budget is not None:
            return None
        families = [task.problem.family for task in tasks]
        if not alike(families):
            return None
        own = {entry.name: getattr(first, entry.name) for entry in fields(Task)}
        own |= {"report": copy.deepcopy(first.report), "at_once": at_once(families)}
        return cls(**own, tasks=tuple(tasks))

    @property
    def many(self) -> int:
        return len(self.tasks)

    def evaluate(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return the matrices at p (B, d), problem by problem within each parameter, and where all are defined."""
        self.check()
        p = self.problem.family.box.points(p)  # all are of one box
        if self.at_once is None:
            A = torch.stack([self.tried(task.problem.family, p) for task in self.tasks], dim=1)
        else:
            A = self.at_once(p)
        A, good = checks.defined(A.flatten(0, 1))
        return A, good.view(len(p), -1).all(dim=1)

    def solve(self, p: Tensor, *, aligned: bool = False) -> tuple[tuple[Tensor, ...], Tensor]:
        begin, (A, defined) = time.perf_counter(), self.evaluate(p)
        factors, failed = checked(self.problem.operation.exact, A)
        good = (~failed.view(len(p), -1).any(dim=1) & defined).cpu()
        self.count(p, good, begin, self.many)
        return tuple(x.unflatten(0, (len(p), -1))[good] for x in factors), good

    def unfinished(self, p: Tensor, fitted: Sequence[Tensor]) -> Tensor:
        A, good = self.evaluate(p)
        self.report.residual_evaluations += len(p)
        self.report.exact_solves += len(p) * self.problem.operation.residual_solves
        self.report.singular += p[~good].tolist()
        r = judged(self.problem.operation, A, [x.flatten(0, 1) for x in fitted]).view(len(p), -1)
        self.last[:] = [torch.where(torch.isfinite(r), r, torch.inf)]
        return torch.where(good, self.last[0].amax(dim=1), torch.nan)

    def charge(self, report: Report) -> None:
        """Add to a report what was solved and measured for all problems."""
        for entry in (report, *report.rounds):
            entry.exact_solves += self.report.exact_solves
        report.residual_evaluations += self.report.residual_evaluations

    def apart(self, maps: Sequence[FactorMap]) -> list[list[FactorMap]]:
        """Return the maps of each problem, and write its report."""
        return [self.own(k, maps) for k in range(self.many)]

    def own(self, k: int, maps: Sequence[FactorMap]) -> list[FactorMap]:
        """Return the maps of one problem, and write its report."""
        report, self.last[:] = self.tasks[k].report, [x.cpu() for x in self.last]  # from a device once for all
        own = {name: value for name, value in vars(self.report).items() if name not in ("settings", "seconds")}
        vars(report).update(copy.deepcopy(own))
        for entry in report.rounds[-1:]:
            report.rounds[-1] = entry.measured(self.last[0][:, k].double().numpy(), self.tol)
        return [FactorMap(m.name, m.core[:, k], m.embedding, m.weights) for m in maps]


def parted(snapshots: Snapshots, pieces: Sequence[Piece], allowed: Sequence[float]) -> list[list[int]]:
    """Return which of many problems have small last coefficients in all pieces, and the others; nothing for one side.

    Args:
        snapshots: What is solved.
        pieces: Those that are complete.
        allowed: The size of the coefficients left out of each, relative to X.
    """
    many, sketch = snapshots.task.many, snapshots.sketch()
    easy = np.full(many, True)
    for piece, size in zip(pieces, allowed) if many > 1 else ():
        values = np.moveaxis(sketch[piece.rows].view(float), 1, 0).reshape(many, *piece.counts, -1)
        scale = np.median(np.linalg.norm(sketch[piece.rows], axis=2), axis=0)
        for i, n in enumerate(piece.counts):
            # Not bent, which suits what oscillates.
            at = np.tile(2 * (piece.axes[i] - piece.low[i]) / (piece.high[i] - piece.low[i]) - 1, (many, 1))
            easy &= nodes.decay(np.moveaxis(values, i + 1, 1), at)[:, max(n - 2, 0)] <= size * scale
    return [] if easy.all() or not easy.any() else [np.flatnonzero(own).tolist() for own in (easy, ~easy)]


# What is solved already, and the number or numbers of the problems of which it is taken; None for nothing.
Known = tuple[Snapshots, int | list[int]] | None
# Fits a task from what is known: the maps, none where its problems part; the parts; what is solved.
Fit = Callable[[Task, Known], tuple[list[FactorMap], list[list[int]], Snapshots]]


def fitted(
    tasks: Sequence[Task], fit: Fit, known: Known = None, *, alone: bool = True
) -> list[list[FactorMap] | BaseException]:
    """Fit tasks in common pieces, in parts that need the same; where that does not lead to the tolerance, each alone.

    Args:
        tasks: Of one operation, shape, dtype and device.
        fit: How one is fitted.
        known: What is solved already.
        alone: Whether tasks are fitted again that common pieces have not led to the tolerance.

    Returns:
        The maps of each, or what has ended its fit before there were any.
    """
    together = Together.of(tasks) if len(tasks) > 1 else tasks[0]
    if together is None:
        return [task.watch.attempt(lambda task=task: fit(task, known)[0]) for task in tasks]
    maps, parts, snapshots = fit(together, known)
    if len(tasks) == 1:
        return [maps]
    # Where one is not defined nothing is known of the others.
    if together.report.stop_reason == StopReason.SINGULAR:
        maps, alone = [], True
    ended = together.report.stop_reason in STOPPED or not (alone or parts)
    if ended or (together.report.met and not together.report.singular):
        return together.apart(maps)
    found = {}
    for part in parts or zip(range(len(tasks))):
        try:
            own = [tasks[k] for k in part]
            found |= zip(part, fitted(own, fit, (snapshots, part if len(part) > 1 else part[0]), alone=alone))
            for task in own:
                together.charge(task.report)
        except ENDINGS as error:
            why = together.watch.reason(error)
            found |= dict.fromkeys(part, error)
            for k in part if maps else ():  # the common map is there
                found[k] = together.own(k, maps)
                tasks[k].report.stop_reason = why
    return [found[k] for k in range(len(tasks))]
