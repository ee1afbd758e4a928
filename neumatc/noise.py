"""The noise floor of a fit: samples that were smoothed let an operation deserve so much accuracy, and no more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from neumatc import checks
from neumatc.families import FamilyError, gaussian
from neumatc.methods import Task
from neumatc.operations import checked
from neumatc.report import StopReason, Unmet

# Draws of the noise at as many random parameters, and one over the part of a budget that they may take.
_DRAWS, _PART = 8, 4


def raised(tasks: Sequence[Task]) -> list[Task]:
    """Return tasks whose tolerance is what their samples deserve, where that is more; of several, the least of these.

    What noise does to X is measured, not bounded: X is solved exactly from A + E at a few random parameters, E one draw
    of the error that smoothing leaves in A (``family.floor``), and the residual of that X against A is what a map to
    the tolerance would have to undercut. The median of these is the floor. Where the noise spares some columns or rows
    more than others (users near and far), E is as small, over their size, for all.
    """
    goals = [max(task.tol, _floor(task)) for task in tasks]
    return [replace(task, tol=min(goals)) for task in tasks]


def settle(task: Task, goal: float) -> None:
    """Report that the floor is met and not the tolerance, where the fit has stopped at that."""
    report, box = task.report, task.problem.family.box
    if goal > task.tol and report.met:
        why = f"noise of the samples leaves a residual of {goal:.1e}, more than the {task.tol:g} asked for; that is met"
        report.stop_reason, report.met = StopReason.NOISE, False
        report.unmet = [Unmet(box.lower.tolist(), box.upper.tolist(), why)]


def _floor(task: Task) -> float:
    """Return the usual residual of exact solutions from matrices with the noise that is left in them; 0 without any."""
    problem, count = task.problem, min(_DRAWS, task.left() // _PART)
    if problem.family.floor is None or not count:
        return 0.0
    begin, p = time.perf_counter(), problem.family.box.uniform(count, task.generator)
    A, good = task.evaluate(p)
    try:
        factors, failed = checked(problem.operation.exact, A + _drawn(A, problem.family.floor, task.generator))
    except FamilyError:  # the operation suits none of them
        return 0.0
    good &= ~failed
    task.count(p, torch.ones_like(good), begin)
    r = task.measure(A[good], [x[good] for x in factors]) if good.any() else A.new_zeros(0).real
    r = r[torch.isfinite(r)]
    return float(r.median()) if len(r) else 0.0


def _drawn(A: Tensor, floor: Tensor, generator: torch.Generator) -> Tensor:
    """Return one draw of the noise in matrices A: Hermitian where they are.

    Every column has as much of it, over its size, as the one that has least, or every row, whichever is less: the
    results of a user near by are to be as good as its own samples, however noisy those of others are.
    """
    power, own = A.abs().square().mean(dim=0).double(), floor.square().double()
    parts = [own.sum(dim=i, keepdim=True) / power.sum(dim=i, keepdim=True) for i in (0, 1)]
    least = [float(part[part > 0].min()) if (part > 0).any() else 1.0 for part in parts]
    i = int(least[1] < least[0])
    spread = floor * torch.where(parts[i] > 0, least[i] / parts[i], 0).sqrt().to(floor)
    E = gaussian(A.shape, A.dtype, generator).to(A.device, A.dtype) * spread
    units = 8 * torch.finfo(checks.real_dtype(A.dtype)).eps
    same = A.shape[1] == A.shape[2] and bool((A - A.mH).abs().max() <= units * A.abs().max())
    return (E + E.mH) / 2**0.5 if same else E
