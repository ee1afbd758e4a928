"""What a fit tells at its end: when its map pays, and a warning with cause, place and remedy where it is of no use."""

from __future__ import annotations

import math
import textwrap
import time
import warnings

import torch

from neumatc.methods import Task
from neumatc.model import Surrogate
from neumatc.report import LARGE_RESIDUAL, StopReason, duration

# Characters of a warning: two or three lines of a terminal.
_LONGEST = 300
# Batches on which an evaluation is timed, of which the first warms up; their parameters, and bytes of values: enough
# against what a call costs, and a few milliseconds.
_BATCHES, _TIMED, _TIMED_BYTES = 3, 1024, 2**22
# What to do, by the first of these words in what is known: why the fit ended, where and why pieces fail, its notes.
_REMEDIES = {
    "used up before": "raise the budget or the tolerance",
    "steps are used up": "train for more steps, or leave the method out",
    "map returned is zero": "check the family; a singular A has an nm.RegularizedInverse, or restrict the box",
    "became NaN": "lower the learning rate, or leave the method out",
    "grows without bound": "leave that place out of the box, or let nm.certify solve exactly near it",
    "pole": "give a tolerance, tol=1e-3, in place of the rank, or leave that place out of the box",
    "jumps": "end the box there and fit each side",
    "noise": "ask for a tolerance above the noise",
    "not defined": "restrict the box to where the family is defined",
    "fail": "leave that place out of the box: A has no exact solution there",
    "no more parameters": "give the box in double precision",
}
_OTHER = {
    True: "nm.certify solves exactly where the map is not good enough",
    False: "raise the rank, or give a tolerance",
}


class FitWarning(UserWarning):
    """A fit ended without its tolerance, or with a map of no use; the message says where and why, and what to do."""


def seconds_per_value(surrogate: Surrogate) -> float:
    """Time evaluations: seconds per parameter, the least of some batches."""
    count = max(1, min(_TIMED, _TIMED_BYTES // surrogate.value_bytes))
    p, least = surrogate.box.uniform(count, torch.Generator().manual_seed(0)), math.inf
    for _ in range(_BATCHES):
        begin = time.perf_counter()
        surrogate(p)
        if p.is_cuda:
            torch.cuda.synchronize(p.device)
        least = min(least, (time.perf_counter() - begin) / count)
    return least


def conclude(task: Task, surrogate: Surrogate, evaluation_seconds: float, stacklevel: int) -> None:
    """Complete the report of a fit, and warn where it ended without its tolerance, or with a map of no use."""
    report, family = task.report, task.problem.family
    report.problem = f"{surrogate.operation} of {' x '.join(map(str, family.shape))} matrices, {family.box}"
    report.pieces, report.evaluation_seconds, report.samples = (
        len(surrogate.pieces),
        evaluation_seconds,
        str(family.measured or ""),
    )
    report.points = 0 if family.grid is None else len(family.grid)
    final = report.rounds[-1] if report.rounds else None
    if report.tol is not None:
        good, head = report.met, f"the tolerance {report.tol:g} is not met"
        known = [*map(str, report.unmet[:2]), f"and {len(report.unmet) - 2} more, see report.unmet"]
        known = known[: len(report.unmet)] or [str(report.stop_reason)]
    elif report.stop_reason is StopReason.SINGULAR:
        good, head = False, "every exact solve failed and the map returned is zero"
        known = [f"at {len(report.singular)} parameters, such as {family.box.named(report.singular[0])}"]
    else:
        good = final is None or final.residual_max <= LARGE_RESIDUAL
        head = f"the map of rank {report.rank} has residuals up to {final and final.residual_max:.2g}"
        known = [f"the largest at {family.box.named(final.worst)}"] if final and final.worst else []
        known += [f"the exact solution fails at {family.box.named(p)}" for p in report.singular[:1]]
        known += [report.message] if report.message else []
    if not good:
        report.advice = _remedy(task, "; ".join([str(report.stop_reason), *known]))
        left = _LONGEST - len(head) - len(report.advice) - 4
        where = textwrap.shorten("; ".join(known), max(left, 24), placeholder=" ...")
        warnings.warn(f"{head}: {where}; {report.advice}"[:_LONGEST], FitWarning, stacklevel=stacklevel)


def _remedy(task: Task, known: str) -> str:
    """Return what to do about what is known."""
    report, hints = task.report, task.problem.family.box.hints()
    seconds = report.points * report.solve_seconds
    if report.points and seconds < report.seconds:
        return f"these {report.points:,} points are solved exactly in {duration(seconds)}: no map pays"
    return (*hints, *(remedy for word, remedy in _REMEDIES.items() if word in known), _OTHER[report.tol is not None])[0]
