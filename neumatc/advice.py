"""What a fit tells at its end: when its map pays, and a warning with cause, place and remedy where it is of no use."""

from __future__ import annotations

import math
import re
import textwrap
import time
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neumatc import rational
from neumatc.box import Box
from neumatc.families import FAILED
from neumatc.methods import Task
from neumatc.model import Surrogate
from neumatc.report import LARGE_RESIDUAL, Report, StopReason, duration
from neumatc.watch import STOPPED

# Characters of a warning: two or three lines of a terminal.
_LONGEST = 300
# Batches on which an evaluation is timed, of which the first warms up; their parameters, and bytes of values: enough
# against what a call costs, and a few milliseconds.
_BATCHES, _TIMED, _TIMED_BYTES = 2, 1024, 2**20
# Snapshots that are so many times larger than usual lie near a pole. How many around it, combinations of their entries,
# and the accuracy, with which a rational function finds it; and the imaginary part, in half boxes, of one in the box.
_PEAK, _SAMPLES, _COMBINATIONS, _PROMISING, _REAL = 4.0, 64, 8, 1e-3, 1e-6
# What to do, by the first of these words in what is known: what a place holds, then scales, then why the fit ended.
_PLACES = {
    FAILED: "mend the family there, or restrict the box",
    "became NaN": "lower the learning rate, or leave the method out",
    "between the samples": "ask for a tolerance above that, or take more samples",
    "grows without bound": "leave that place out of the box, or let nm.certify solve exactly near it",
    "jumps": "end the box there and fit each side",
    "solutions themselves": "bring rows and columns of A to the same units, or raise the tolerance",
    "noise": "ask for a tolerance above the noise",
    "solutions fail here": "restrict the box to where {needs}",
    "not defined": "restrict the box to where the family is defined",
    "map returned is zero": "{remedy}",
    "no more parameters": "give the box in double precision",
}
_ENDINGS = {
    "time limit": "raise `time_limit`, or the tolerance",
    "interrupted": "let it run to its end",
    "memory ran out": "lower the rank, the snapshots or the budget, or take single precision",
    "used up before": "raise the budget or the tolerance",
    "steps are used up": "train for more steps, or leave the method out",
    "a pole": "leave that place out of the box",
    "solves are used up": "raise the tolerance, or fit parts of the box",
    "solution fails": "restrict the box to where {needs}",
}
_OTHER = "nm.certify solves exactly where the map is not good enough"
_RANK = "give a tolerance, tol=1e-3, in place of the rank, or "


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
    first, report.points = surrogate.maps[0], 0 if family.count == math.inf else family.count
    report.pieces = first.embedding.parts(first.weights)
    report.evaluation_seconds, report.samples = evaluation_seconds, str(family.measured or "")
    good, head, known = _judged(report, family.box)
    if not good:
        said, operation = "; ".join([str(report.stop_reason), *known]), surrogate.operation
        advice = _remedy(report, family.box, said).replace("{remedy}", operation.remedy)
        report.advice = advice.replace("{needs}", operation.needs)
        left = _LONGEST - len(head) - len(report.advice) - 4
        where = textwrap.shorten("; ".join(known), max(left, 24), placeholder=" ...")
        warnings.warn(f"{head}: {where}; {report.advice}"[:_LONGEST], FitWarning, stacklevel=stacklevel)


def _judged(report: Report, box: Box) -> tuple[bool, str, list[str]]:
    """Return whether a fit ended well, else how it ended, and what is known of the place and the cause."""
    stopped, reason = report.stop_reason in STOPPED, str(report.stop_reason)
    causes = FAILED, "a pole"
    notes = sorted(filter(None, report.message.split("; ")), key=lambda note: not any(word in note for word in causes))
    notes = [] if stopped else notes  # a guess from a few snapshots
    failing = [box.named(p) for p in report.singular[:1]]
    if report.tol is not None:
        known = [*([reason] if stopped or not report.unmet else []), *map(str, report.unmet[:1]), *notes]
        known += [f"{len(report.unmet) - 1} more in report.unmet"] if len(report.unmet) > 1 else []
        return report.met, f"the tolerance {report.tol:g} is not met", known
    if stopped:
        return False, reason, notes
    if report.stop_reason is StopReason.SINGULAR:
        known = [f"{len(report.singular)} tried, the first at {p}" for p in failing]
        return False, "every exact solve failed and the map returned is zero", known
    if not report.rounds or report.rounds[-1].residual_max <= LARGE_RESIDUAL:
        return True, "", notes
    last = report.rounds[-1]
    known = [*notes, *(f"the exact solution fails at {p}" for p in failing)]
    known = known or [f"the largest at {box.named(last.worst)}"]
    return False, f"the map of rank {report.rank} has residuals up to {last.residual_max:.2g}", known


def _remedy(report: Report, box: Box, known: str) -> str:
    """Return what to do about what is known."""
    seconds = report.points * report.solve_seconds
    aside = StopReason.NOISE, StopReason.TABLE, StopReason.SINGULAR
    if report.points and seconds < report.seconds and report.stop_reason not in aside:
        return f"these {report.points:,} points are solved exactly in {duration(seconds)}: no map pays"
    for name, unit in zip(box.names, box.units):  # words of the user's
        known = re.sub(rf"{re.escape(name)} = \S+( {re.escape(unit)})?", "", known)
    if f"used up ({report.budget})" not in known:  # by a limit of the method, not by the budget
        known = known.replace("used up before", "used up")
    places, endings = ([text for word, text in said.items() if word in known] for said in (_PLACES, _ENDINGS))
    if report.stop_reason is StopReason.RANK:
        endings = [_RANK + (*endings, "raise it")[0]]
    return (*places, *([] if report.samples else box.hints()), *endings, _OTHER)[0]


def note_pole(task: Task, x: np.ndarray | Tensor, rows: Sequence[Tensor]) -> None:
    """Note where exact solutions are large, as near a pole: of one parameter at that of a rational function.

    Args:
        task: Of the fit, whose report gets the note.
        x: Points of the cube at which was solved, shape (N, d).
        rows: The solutions there, real numbers of shape (N, numbers) for each factor.
    """
    x, rows = torch.as_tensor(x), torch.cat(list(rows), dim=1).double().cpu()
    size = rows.norm(dim=1)
    top, usual = int(size.argmax()), size.median()
    if not task.problem.operation.unique or not size[top] > _PEAK * usual:
        return
    place, kind = x[top].clone(), ", as near a pole" * (x.shape[1] > 1)
    if x.shape[1] == 1:
        near, generator = (x[:, 0] - x[top]).abs().argsort()[:_SAMPLES], torch.Generator().manual_seed(0)
        draws = torch.randn((rows.shape[1], _COMBINATIONS), dtype=torch.float64, generator=generator)
        found = rational.fit(x[near, 0].numpy(), (rows[near] @ draws).numpy(), _PROMISING)
        # X is largest at the snapshot that is nearest to a pole: others are made up, of rounding.
        inside = found.poles[np.abs(found.poles.real) <= 1] if found else ()
        poles = [pole for pole in inside if np.abs(x[:, 0].numpy() - pole).argmin() == top]
        if poles:
            pole = min(poles, key=lambda pole: abs(pole - float(place)))
            place[0], kind = pole.real, ", as at a pole" if abs(pole.imag) < _REAL else ", as near a pole"
    where = task.problem.family.box.named(task.box(place[None])[0].tolist())
    task.note(f"X is {size[top] / usual:,.0f} times its usual size near {where}{kind}")
