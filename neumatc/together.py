"""Problems of one operation, shape and box as one, so that pieces are chosen once for all of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from neumatc.methods import Task
from neumatc.model import FactorMap
from neumatc.operations import checked


@dataclass(frozen=True)
class Together(Task):
    """Tasks as one task: a factor of shape S becomes one of shape (problems, *S), a residual the largest of all.

    Attributes:
        tasks: One for each problem; their reports are written by `apart`.
        last: The residuals measured last, shape (B, problems): those of the check over the box, at the end.
    """

    tasks: tuple[Task, ...] = ()
    last: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Together | None:
        """Return the tasks as one, or None where each needs its own pieces: other boxes or grids, factors to align."""
        first = tasks[0]
        operation, grid = first.problem.operation, first.problem.family.grid
        if operation.finishes or not operation.unique or operation.residual_solves or first.budget is not None:
            return None
        for family in (task.problem.family for task in tasks):
            same = family.grid is grid is None or (None not in (family.grid, grid) and torch.equal(family.grid, grid))
            if str(family.box) != str(first.problem.family.box) or not same:
                return None
        own = {entry.name: getattr(first, entry.name) for entry in fields(Task)}
        return cls(**{**own, "report": copy.deepcopy(first.report)}, tasks=tuple(tasks))

    @property
    def many(self) -> int:
        return len(self.tasks)

    def evaluate(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return the matrices at p (B, d), problem by problem within each parameter, and where all are defined."""
        A, good = zip(*(task.problem.family.evaluate(p) for task in self.tasks))
        return torch.stack(A, dim=1).flatten(0, 1), torch.stack(good).all(dim=0)

    def solve(self, p: Tensor, *, aligned: bool = False) -> tuple[tuple[Tensor, ...], Tensor]:
        A, defined = self.evaluate(p)
        factors, failed = checked(self.problem.operation.exact, A)
        good = ~failed.view(len(p), -1).any(dim=1) & defined
        self.count(p, good)
        return tuple(x.unflatten(0, (len(p), -1))[good] for x in factors), good

    def unfinished(self, p: Tensor, fitted: Sequence[Tensor]) -> Tensor:
        A, good = self.evaluate(p)
        self.report.residual_evaluations += len(p)
        self.report.singular += p[~good].tolist()
        A, admitted = self.problem.operation.admitted(A)
        r = self.problem.operation.residual(A, [x.flatten(0, 1) for x in fitted])
        r = torch.where(admitted, r, torch.inf).view(len(p), -1)
        self.last[:] = [torch.where(torch.isfinite(r), r, torch.inf)]
        return torch.where(good, self.last[0].amax(dim=1), torch.nan)

    def apart(self, maps: Sequence[FactorMap]) -> list[list[FactorMap]]:
        """Return the maps of each problem, and write its report."""
        for k, task in enumerate(self.tasks):
            own = {name: value for name, value in vars(self.report).items() if name not in ("settings", "seconds")}
            vars(task.report).update(copy.deepcopy(own))
            for entry in task.report.rounds[-1:]:
                task.report.rounds[-1] = entry.measured(self.last[0][:, k].double().cpu().numpy(), self.tol)
        return [[FactorMap(m.name, m.core[:, k], m.embedding, m.weights) for m in maps] for k in range(len(self.tasks))]
