"""The end of a fit in pieces: the maps of what is solved, and what the report says of places that are not resolved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from neumatc import advice
from neumatc import piece as tree
from neumatc.inspection import Inspector
from neumatc.methods import Task
from neumatc.model import FactorMap
from neumatc.piece import Piece
from neumatc.report import StopReason, Unmet
from neumatc.snapshots import Snapshots

# Why a piece ends where the operation does not exist.
FAILS, _UNDEFINED = "exact solutions fail here", "the family is not defined here"
# From so many halvings on that left the whole difference between the ends on one side, there is a jump.
STEEP = 8
# Size of X within the smallest piece, relative to the usual one there, with which it seems to have no bound.
_UNBOUNDED = 1e3
# Samples by which a table is interpolated between two of them.
_WIDTHS = (2, 4, 6, 8)
# Difference of the ends of an axis, relative to X and to how it varies, below which they are taken for the same.
_SAME = 1e-5


def pieces(root: Piece, links: Sequence[Piece], inspector: Inspector, still: Sequence[int] = ()) -> list[FactorMap]:
    """Report what is met, and return the maps of a tree of pieces.

    Args:
        root: Of the tree.
        links: Pieces between whose points of a grid nothing is known.
        inspector: Knows the snapshots, and the last check over the box.
        still: Axes along which X stays within the tolerance of what it is in their middle.
    """
    snapshots, report = inspector.snapshots, inspector.task.report
    if not len(snapshots.x):
        return _nothing(inspector.task, [piece.trouble for piece in tree.leaves(root)])
    tree.collapse(root)
    found, box = tree.leaves(root), inspector.task.problem.family.box
    undecided = snapshots.undecided()
    for piece in found:
        if piece.settled is None:  # nothing better is known there
            piece.rows = snapshots.nearest(piece.grid())
        elif undecided[piece.rows].all():
            piece.trouble = piece.trouble or FAILS
    troubles = [piece for piece in [*_joined(found), *_holes(found, inspector)] if piece.trouble]
    report.unmet, report.met = [Unmet(*piece.ends(box), piece.trouble) for piece in troubles], not troubles
    unmet = StopReason.BUDGET if any("used up" in piece.trouble for piece in troubles) else StopReason.STALLED
    report.stop_reason = StopReason.TOLERANCE if report.met else unmet
    _say_what_is_linear(links, inspector.task)
    _hint_at_periods(snapshots, still)
    if not report.met:
        advice.note_pole(inspector.task, snapshots.x, [torch.from_numpy(snapshots.sketch().view(float)).flatten(1)])
    if still:
        inspector.task.note(f"X does not change along {' and '.join(box.names[i] for i in still)}, to the tolerance")
    embedding, weights, rows = tree.embedded(root, still)
    return inspector.maps(embedding, weights, lambda value: tree.mean(value, rows))


def table(inspector: Inspector) -> list[FactorMap]:
    """Solve at every point of the grid, and interpolate: linearly, between samples to the tolerance if that goes."""
    task, report, grid = inspector.task, inspector.task.report, inspector.snapshots.grid
    rows = inspector.snapshots.solve(grid)
    good = rows >= 0
    if good.sum() < 2:
        return _nothing(task, [])
    report.stop_reason, report.met = StopReason.TABLE, bool(good.all())
    report.unmet = [Unmet(p, p, "the exact solution fails") for p in report.singular]
    task.note(f"all {len(grid)} points of the grid are solved exactly, which costs less than a map of them")
    inspector.snapshots.divide(grid[:, 0])  # each stands for itself
    x, rows = grid[good, 0], torch.from_numpy(rows[good])[:, None]
    count = _between(inspector, x, rows) if inspector.snapshots.curve else _WIDTHS[0]
    return inspector.maps(*tree.chain(x, count), lambda value: tree.mean(value, rows))


def _between(inspector: Inspector, x: np.ndarray, rows: torch.Tensor) -> int:
    """Return by how many samples to interpolate, as few as meet the tolerance, and report where that is missed.

    It is asked at uniform parameters of the box, and for the report at fresh ones. Where no number meets it, it is that
    of the least median.
    """
    task, report = inspector.task, inspector.task.report

    def missed(count: int) -> float:
        r = inspector.probe(*tree.chain(x, count), rows)[1]
        return float(np.median(r)) if r.max() > task.tol else 0.0

    most = max(_WIDTHS[0], min(len(x), task.rank or len(x)))
    count = min((n for n in _WIDTHS if n <= most), key=missed)
    drawn, inspector.uniform = inspector.probe(*tree.chain(x, count), rows)
    if len(beyond := drawn[inspector.uniform > task.tol]):
        low, high = np.searchsorted(x, [beyond.min(), beyond.max()]).clip(1, len(x) - 1)
        why = f"residuals come to {inspector.uniform.max():.1e}"
        if np.isinf(inspector.uniform).any():
            why = "the family is not defined, or no exact solves are left to check"
        why = f"between the samples, which are all solved, {why}"
        report.unmet.append(Unmet(*Piece(x[[low - 1]], x[[high]], []).ends(task.problem.family.box), why))
        report.met = False
    return count


def hopeless(snapshots: Snapshots, piece: Piece, lost: np.ndarray) -> list[Piece]:
    """End a piece that has too few solutions; the first of the points (N, d) without one says why."""
    task = snapshots.task
    undefined = len(lost) and not task.evaluate(task.box(torch.from_numpy(lost[:1])))[1]
    return piece.give_up(_UNDEFINED if undefined else FAILS)


def smallest(piece: Piece, snapshots: Snapshots) -> str:
    """Say what the smallest piece holds, and where."""
    box, middle = snapshots.task.problem.family.box, torch.from_numpy((piece.low + piece.high) / 2)
    where = ", ".join(f"{name} = {x:.6g}" for name, x in zip(box.names, box.parameters(middle[None])[0].tolist()))
    size = np.linalg.norm(snapshots.sketch()[piece.rows], axis=(1, 2))
    kind = "X jumps" if piece.steep >= STEEP else "the smallest piece does not resolve X"
    return f"{'X grows without bound' if size.max() > _UNBOUNDED * np.median(size) else kind} at {where}"


def _nothing(task: Task, troubles: list[str]) -> list[FactorMap]:
    """Return the zero map, and say why: all solutions fail, or all that a limit allowed."""
    box, limits = task.problem.family.box, [trouble for trouble in troubles if "used up" in trouble]
    known = limits or [trouble for trouble in troubles if "not defined" in trouble]
    why = "; ".join(["every exact solution fails", *known[:1]])
    task.report.unmet, maps = [Unmet(box.lower.tolist(), box.upper.tolist(), why)], task.zero()
    if limits:
        task.report.stop_reason = StopReason.BUDGET
    return maps


def _joined(found: Sequence[Piece]) -> list[Piece]:
    """Return pieces, those of one parameter that have the same trouble and follow each other as one."""
    joined: list[Piece] = []
    for piece in found:
        last = joined[-1] if joined and len(piece.low) == 1 else None
        if last and last.trouble == piece.trouble and piece.low <= last.high:
            joined[-1] = Piece(last.low, piece.high, [], piece.trouble)
        else:
            joined.append(piece)
    return joined


def _holes(found: Sequence[Piece], inspector: Inspector) -> list[Piece]:
    """Return where the family is not defined: pieces, of one parameter what lies between exact solutions."""
    undefined, trouble = inspector.undefined(), "the family is not defined at random parameters here"
    if undefined.shape[1] > 1:
        ends = [(found[k].low, found[k].high) for k in sorted({*tree.located(found, undefined)} - {-1})]
    else:
        places = np.unique(np.append(inspector.snapshots.x[:, 0], [-1, 1]))
        after = np.unique(np.searchsorted(places, undefined[:, 0]))
        ends = [(places[k - 1 : k], places[k : k + 1]) for k in after]
    return [Piece(*pair, [], trouble) for pair in ends]


def _say_what_is_linear(links: Sequence[Piece], task: Task) -> None:
    """Name the places where a grid does not resolve X."""
    if places := _joined(sorted(links, key=lambda piece: piece.low[0])):
        low, high = (end[0] for end in places[0].ends(task.problem.family.box))
        more = f", and at {len(places) - 1} more places," if len(places) > 1 else ""
        task.note(f"the grid does not resolve X near {low:.6g} to {high:.6g}{more} and X is linear between points")


def _hint_at_periods(snapshots: Snapshots, still: Sequence[int]) -> None:
    """Say where X is the same at both ends of an axis that was not said to be periodic, and not between them.

    At corners alone X may not depend on an axis at all: all pairs of solutions on opposite faces are compared.
    """
    task, box = snapshots.task, snapshots.task.problem.family.box
    if not task.problem.operation.unique:
        return
    sketch, x = snapshots.sketch(), snapshots.x
    places, varies = {tuple(row): k for k, row in enumerate(x.tolist())}, np.linalg.norm(sketch - sketch[0])
    for i in set(np.flatnonzero(~np.array(box.periodic)).tolist()) - set(still):
        faced = [(places.get((*at[:i], 1.0, *at[i + 1 :])), k) for at, k in places.items() if at[i] == -1]
        pairs = np.array([pair for pair in faced if pair[0] is not None], int).reshape(-1, 2)
        high, low = sketch[pairs[:, 0]], sketch[pairs[:, 1]]
        same = np.linalg.norm(high - low) < min(_SAME * np.linalg.norm(low), _SAME * varies)
        if same and len(pairs) > 2 ** (box.dimension - 1) * (box.dimension > 1):
            task.note(f"X is the same at both ends of {box.names[i]}: if that axis goes round, say periodic=True")
