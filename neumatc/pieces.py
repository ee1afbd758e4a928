"""The map in pieces: split the box until every piece meets the tolerance, and interpolate each at a few nodes.

What is solved is never thrown away: nodes are nested, halves begin with the nodes of the whole, and neighbours share
those on their common face.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neumatc import checks, nodes, poles, sparse, threads
from neumatc import piece as tree
from neumatc.box import Box
from neumatc.families import FamilyError
from neumatc.inspection import Inspector
from neumatc.local import PiecewisePolynomials
from neumatc.methods import Method, Task
from neumatc.model import FactorMap
from neumatc.piece import Piece
from neumatc.report import StopReason, Unmet
from neumatc.snapshots import Snapshots
from neumatc.together import Together

# Nodes per axis with which a piece begins, for one, two and more parameters; with which it says whether its
# coefficients decay; those of a piece that seems to hold a jump, where more would be wasted; and, beside one more, the
# part of the nodes wanted on an axis with which a half begins.
_FIRST, _TELLING, _NEAR_JUMP, _HALF = (9, 4, 3), 9, 5, 0.55
# Most nodes per axis: so many for each digit of the tolerance, within limits; and most terms in three and more
# parameters. Every term costs a multiply-add for each entry at every evaluation; 16 take about as long as writing the
# entry to memory. Few digits want small pieces, many digits large ones.
_NODES_PER_DIGIT, _FEWEST, _MOST_NODES, _MOST_TERMS = 3, 16, 32, 729
# Part of the tolerance to which stretched polynomials are to converge.
_STRETCH_PART = 0.1
# A coefficient that falls by less than this (natural logarithm) to the next does not decay.
_LEAST_RATE = 0.1
# Nodes that are added at once, unless four times as many seem to be needed: decay gets faster as X is resolved. And one
# over the part of the pieces that are refined at once when solves run short: smaller parts take more rounds, larger
# ones waste solves where the residual is not the worst.
_STEP, _PART = 2, 3
# Most exact solves where neither a budget nor a grid says so; and as many as there usually are.
_MOST_SOLVES, _USUAL_SOLVES = 4096, 128
# Part of the tolerance that the largest residual at a piece's fresh parameters may have: there are worse ones between.
_MARGIN = 0.8
# How far above the goal the coefficients left out may be for the residual to be measured at all, for one parameter and
# for more: a look costs less than a node too many.
_LOOKS = (2.0, 8.0)
# Below so many rounding units coefficients that do not fall when a piece is halved are noise.
_NOISE_UNITS, _FALLEN = 300.0, 0.3
# A residual that is larger than the coefficients by this part of one over a rounding unit is no noise.
_MISSED = 1e-3
# A piece that keeps nearly all of the difference between its ends in so many halvings seems to hold a jump; from the
# smaller number on it is halved at once as far as its nodes tell where.
_STEEP, _SURE, _KEPT, _LEFT = 8, 3, 0.9, 0.1
# Size of X within the smallest piece, relative to the usual one there, with which it seems to have no bound.
_UNBOUNDED = 1e3
# Difference of the ends of an axis, relative to X and to how it varies, below which they are taken for the same.
_SAME = 1e-5
# How often nodes are moved where exact solutions fail, and the least side of a piece that is halved for that reason.
_MOST_MOVES, _LEAST_SINGULAR = 3, 2.0**-8
# Part of what is solved that a round of many problems may add before those which are resolved leave the others.
_DEAR = 0.5
# Points of a grid: it is solved as a whole where a map has come to this part of them, or where that takes fewer
# operations than a round of refinement has in overhead.
_SHARE, _ROUND = 0.7, 1e8


@dataclass(frozen=True)
class Pieces(Method):
    r"""Polynomial interpolation in pieces of the box, to a tolerance: what `fit(problem, tol=...)` does.

    Each piece is a box with :math:`n_i` nodes on axis i. X is solved at their grid and interpolated by polynomials, so
    a value sums :math:`n_1 \cdots n_d` exact solutions. Where the coefficients along an axis decay, the piece takes the
    nodes that their rate promises; where they do not, or would need too many, it is halved along that axis, and the
    halves are stretched where X oscillates (`PiecewisePolynomials`). A piece is kept once the residual at fresh
    parameters is below the tolerance: two uniform ones and two far from the nodes. In the end uniform parameters over
    the whole box are checked, and pieces that fail are refined further.

    For one parameter, where the result has peaks, a rational function through all that is solved is tried beside
    (`neumatc.rational`). For three and more, one sparse polynomial for the whole box (`SparsePolynomials`) is tried
    before, as long as its coefficients decay as those of analytic functions do. Where the family has a grid that is
    solved sooner as a whole, that is done instead.

    Args:
        most: Most nodes per axis; default three for each digit of the tolerance, at least 16 and at most 32.
        smallest: The least side of a piece, as a part of the box; what is not resolved there is reported.
    """

    most: int | None = None
    smallest: float = 2.0**-30

    def __post_init__(self) -> None:
        if self.most is not None:
            checks.integer("most", self.most, 2)
        checks.number("smallest", self.smallest, above=0, at_most=1)

    def run(self, task: Task) -> list[FactorMap]:
        _check(task)
        return _maps(_Refinement(self, task))

    def batch_snapshots(self, rank: int | None) -> int:
        """Return about how many snapshots of each problem are held at once."""
        return _USUAL_SOLVES

    def run_many(self, tasks: Sequence[Task]) -> list[list[FactorMap]]:
        """Choose the pieces once for all problems; where that does not lead to the tolerance, for each alone."""
        return self._shared(tasks, lambda snapshots: None)

    def _shared(self, tasks: Sequence[Task], known: Callable[[Snapshots], None]) -> list[list[FactorMap]]:
        """Fit tasks in common pieces, in parts that need the same; ``known`` fills snapshots with what is solved."""
        together = Together.of(tasks) if len(tasks) > 1 else tasks[0]
        if together is None:
            return [self.run(task) for task in tasks]
        _check(together)
        fit = _Refinement(self, together)
        known(fit.snapshots)
        maps = _maps(fit)
        if together.many == 1:
            return [maps]
        # Where one is not defined nothing is known of the others.
        if together.report.met and not together.report.singular:
            return together.apart(maps)
        found = {}
        for part in fit.parts or [[k] for k in range(len(tasks))]:
            own, chosen = [tasks[k] for k in part], part if len(part) > 1 else part[0]
            found |= zip(
                part, self._shared(own, lambda snapshots, chosen=chosen: snapshots.adopt(fit.snapshots, chosen))
            )
            for report in (task.report for task in own):
                for entry in (report, *report.rounds):
                    entry.exact_solves += together.report.exact_solves
                report.residual_evaluations += together.report.residual_evaluations
        return [found[k] for k in range(len(tasks))]


@dataclass(frozen=True)
class _Outlook:
    """What the coefficients of a piece say: sizes of the tails per axis, and the nodes wanted per axis."""

    tails: np.ndarray
    wanted: np.ndarray

    @property
    def tail(self) -> float:
        return float(self.tails.max())


class _Refinement:
    """The state of one fit: the tree of pieces, what is solved, and what is known of the residual."""

    def __init__(self, method: Pieces, task: Task):
        self.method, self.task = method, task
        family = task.problem.family
        self.d, self.box = family.dimension, family.box
        self.nodes = method.most or min(max(_FEWEST, math.ceil(-_NODES_PER_DIGIT * math.log10(task.tol))), _MOST_NODES)
        self.bend = _bend(task.tol, self.nodes)
        self.terms = min(task.rank or 2**31, self.nodes ** min(self.d, 2), _MOST_TERMS)
        self.snapshots = Snapshots(task)
        self.inspector = Inspector(task, self.snapshots)
        self.goal = _MARGIN * task.tol
        limits = (task.budget, None if family.grid is None else len(family.grid), _MOST_SOLVES)
        self.most = min(limit for limit in limits if limit is not None)
        self.root = Piece(-np.ones(self.d), np.ones(self.d), [np.empty(0)] * self.d)
        first = int(min(self.terms, self.most) ** (1 / self.d) + 1e-9)  # a grid of at most so many
        for i in range(self.d):
            self.extend(self.root, i, max(2, min(_FIRST[min(self.d, 3) - 1], first)))
        self.cuts: list[float] = []
        self.links: list[Piece] = []  # between whose points of a grid nothing is known
        self.short, self.reserved = False, 0  # whether solves are scarce, and those of pieces that wait for them
        self.easy, self.parts = np.full(task.many, False), []

    def run(self) -> list[FactorMap]:
        """Refine until nothing fails, and return the maps."""
        grid = self.snapshots.grid
        if grid is not None and self.task.budget is not None and len(grid) > self.task.budget:
            grid = None  # it cannot be solved as a whole
        if grid is not None and _small(self.task, len(grid)):
            return _table(self.task, self.snapshots, grid)
        trial = poles.Trial(self.inspector)
        active = _afforded(self, [self.root])
        while active:
            if grid is not None and self.snapshots.solved + _missing(self.snapshots, active) > _SHARE * len(grid):
                return _table(self.task, self.snapshots, grid)
            active = self._round(active)
            if active and self.easy.any() and _missing(self.snapshots, active) > _DEAR * self.snapshots.solved:
                self.parts = [np.flatnonzero(own).tolist() for own in (self.easy, ~self.easy)]
                return []
            if active and trial.due() and (maps := trial.maps()) is not None:
                self.task.report.stop_reason = StopReason.TOLERANCE
                return maps
            active = _afforded(self, active) or _afforded(self, self._failing_in_box())
        return _finished(self)

    # One round

    def _round(self, active: list[Piece]) -> list[Piece]:
        """Solve at the nodes of the active pieces, keep what passes, and return what is to be refined further."""
        active, more = self._solved(sorted(active, key=lambda piece: -piece.tail))
        if not active:
            return more
        self.snapshots.divide(self.cuts)
        self.cuts = []
        _analyse(self.snapshots, active)
        self.easy = _resolved(self, active)
        if not self.inspector.ratios:
            self.inspector.calibrate(active[0], self.outlook(active[0]).tail)
        ready = []
        for piece in active:
            outlook = self.outlook(piece)
            if (outlook.tails <= _LOOKS[min(self.d, 2) - 1] * self.allowed(piece)).all():
                ready.append((piece, outlook))
            else:
                more += self._refined(piece, outlook)
        for (piece, outlook), worst in zip(ready, self.inspector.worst([piece for piece, _ in ready])):
            self.inspector.learn(worst, outlook.tail)
            if worst > self.goal:
                more += self._failed(piece, outlook, worst)
        return more

    def _solved(self, active: list[Piece]) -> tuple[list[Piece], list[Piece]]:
        """Solve exactly at all nodes of the pieces; return those that are complete, and those with nodes elsewhere."""
        grids = [piece.grid() for piece in active]
        rows = np.split(self.snapshots.solve(np.concatenate(grids)), np.cumsum(list(map(len, grids)))[:-1])
        complete, again = [], []
        for piece, own in zip(active, rows):
            piece.rows = own
            if (own >= 0).all():
                piece.settle()
                complete.append(piece)
            else:
                again += self._avoiding(piece)
        return complete, again

    def _avoiding(self, piece: Piece) -> list[Piece]:
        """Move a node at which the exact solution fails; halve a piece in which many do."""
        lost, axis = (piece.rows < 0).reshape(piece.counts), int((piece.high - piece.low).argmax())
        small = (piece.high - piece.low)[axis] / 4 < max(self.method.smallest, _LEAST_SINGULAR)
        if (piece.moves and lost.all()) or (piece.moves >= _MOST_MOVES and small):
            piece.give_up("exact solutions fail here")
            return []
        if piece.moves >= _MOST_MOVES:
            return self.halved(piece, axis, piece.counts)
        piece.dodge(lost, self.snapshots.rounded)
        return [piece]

    def left(self) -> int:
        """Return how many exact solves may still be promised."""
        return self.most - self.task.report.exact_solves - self.reserved

    def allowed(self, piece: Piece) -> float:
        """Return the size of the coefficients left out at which the residual should come to the tolerance."""
        return self.goal / max(piece.ratio or self.inspector.ratio(), 1e-3)

    def outlook(self, piece: Piece) -> _Outlook:
        """Read off tails and wanted nodes from the decay along each axis."""
        allowed = self.allowed(piece)
        return _Outlook(*map(np.array, zip(*(_read(envelope, allowed) for envelope in piece.envelopes))))

    def _failed(self, piece: Piece, outlook: _Outlook, worst: float) -> list[Piece]:
        """Refine a piece whose residual is too large although its coefficients seemed small enough."""
        piece.ratio = worst / max(outlook.tail, np.finfo(float).eps) if np.isfinite(worst) else None
        outlook = self.outlook(piece)
        if (outlook.wanted <= piece.counts).all():
            outlook.wanted[int(outlook.tails.argmax())] = max(piece.counts) + 2
        return self._refined(piece, outlook)

    def _refined(self, piece: Piece, outlook: _Outlook) -> list[Piece]:
        """Give a piece more nodes, or halve it along the axis that needs it most."""
        if self.d == 1 and outlook.wanted[0] > piece.counts[0] and _unrelated(self.snapshots, piece, 0, self.nodes):
            start = [min(self.nodes, _TELLING)]
            halves = self.halved(piece, 0, start, self.bend)
            return [quarter for half in halves for quarter in self.halved(half, 0, start, self.bend)]
        counts = np.array(piece.counts)
        need = np.where(np.isinf(outlook.wanted), counts, np.maximum(outlook.wanted, 2))
        # The most nodes per axis that the terms of a piece allow beside what the other axes need.
        caps = np.clip(self.terms // np.array([np.delete(need, i).prod() for i in range(self.d)]), 2, self.nodes)
        telling = np.minimum(_TELLING if piece.steep < _STEEP else _NEAR_JUMP, caps)
        wanted = np.where(np.isinf(outlook.wanted) & (counts < telling), telling, outlook.wanted)
        # An axis is cut back once only, or two axes could take turns for ever.
        asked = np.maximum(counts if piece.trimmed else 2, wanted)
        if (asked <= caps).all() and asked.prod() <= self.terms:
            for i, n in enumerate(asked):
                self.extend(piece, i, int(n))
            piece.trimmed = True
            return self.grown(piece, counts)
        if why := _hopeless(piece, outlook, self.task.problem.family.dtype):
            piece.give_up(why)
            return []
        over = wanted > caps if (wanted > caps).any() else np.full(self.d, True)
        need, side = np.where(over, wanted / counts * (outlook.tails > 0), 0), piece.high - piece.low
        axis = max(range(self.d), key=lambda i: (need[i], outlook.tails[i], side[i]))
        piece.tail = outlook.tail
        start = np.minimum(np.maximum(2, wanted), counts)
        half = min(caps[axis], max(_NEAR_JUMP, _HALF * wanted[axis] + 1))
        start[axis] = telling[axis] if np.isinf(wanted[axis]) else half
        start = start.astype(int)
        while start.prod() > self.terms:
            start[start.argmax()] -= 1
        if self.d == 1 and (jump := _jump(self.snapshots, piece)):
            return _towards(self, jump, piece, start.tolist())
        # Of one parameter it was asked above.
        turning = self.d > 1 and _unrelated(self.snapshots, piece, axis, self.nodes)
        return self.halved(piece, axis, start.tolist(), self.bend if turning else 0.0)

    def grown(self, piece: Piece, before: np.ndarray) -> list[Piece]:
        """Return a piece that has got nodes; where its grid or its precision has no more, it ends."""
        if (np.array(piece.counts) > before).any():
            return [piece]
        points = self.snapshots.within(piece.low[0], piece.high[0])
        if points is None:
            piece.give_up(f"there are no more parameters in {self.box.dtype}")
        elif self.snapshots.missing(points) > self.left():
            piece.give_up(f"the exact solves are used up ({self.most})")
        else:
            self.links.append(piece)
            _link(piece, self.snapshots, points[self.snapshots.solve(points) >= 0, 0])
        return []

    def extend(self, piece: Piece, axis: int, count: int) -> None:
        offered = self.snapshots.along(piece.low[axis], piece.high[axis])
        piece.extend(axis, count, offered, self.snapshots.rounded)

    def halved(self, piece: Piece, axis: int, counts: list[int], bend: float = 0.0) -> list[Piece]:
        """Halve a piece along an axis; where it is too small, or no coordinate lies between its ends, it ends."""
        smallest = max(self.method.smallest, 256 * torch.finfo(self.box.dtype).eps)
        if piece.settled is not None and (piece.high - piece.low)[axis] / 4 < smallest:
            piece.give_up(_named(piece, self.box, self.snapshots.sketch()[piece.rows]))
            return []
        cut = self.snapshots.rounded(axis, np.array([(piece.low[axis] + piece.high[axis]) / 2]))[0]
        if not piece.low[axis] < cut < piece.high[axis]:
            return self.grown(piece, np.array(piece.counts))
        offered = self.snapshots.along(piece.low[0], piece.high[0]) if self.d == 1 else piece.axes[axis]
        pair = piece.split(axis, float(cut), counts, offered, self.snapshots.rounded, bend)
        self.cuts.append(float(cut))
        return pair

    # The end

    def _failing_in_box(self) -> list[Piece]:
        """Check uniform parameters over the box; refine the pieces that fail there."""
        tree.collapse(self.root)
        found = [piece for piece in tree.leaves(self.root) if piece.settled is not None]
        again = []
        for piece, worst in self.inspector.in_box(found).items() if found else ():
            if not piece.trouble and worst > self.task.tol:
                again += self._failed(piece, self.outlook(piece), worst)
        return again


def _maps(fit: _Refinement) -> list[FactorMap]:
    """Return the maps, of what was solved before if the family fails."""
    with threads.alone() if fit.task.many == 1 else nullcontext():  # the steps of one problem are small
        try:
            return sparse.maps(fit.inspector, fit.most) or fit.run()
        except FamilyError as error:
            return _ended(fit, error)


def _check(task: Task) -> None:
    """Raise where a fit in pieces makes no sense."""
    corners = 2**task.problem.family.dimension
    if task.tol is None:
        raise ValueError("`tol`: expected a tolerance for nm.Pieces, got None; give one, for example tol=1e-3.")
    for name, value, of in (("budget", task.budget, "box"), ("rank", task.rank, "piece")):
        if value is not None and value < corners:
            raise ValueError(
                f"`{name}`: expected at least {corners} with a tolerance, the corners of a {of}, got {value}; raise it."
            )


def _analyse(snapshots: Snapshots, active: list[Piece]) -> None:
    """Compute how the coefficients of pieces decay along each axis."""
    sketch = snapshots.sketch()
    for counts in {piece.counts for piece in active}:
        alike = [piece for piece in active if piece.counts == counts]
        values = sketch[np.stack([piece.rows for piece in alike])].view(float)
        sizes = np.sort(np.linalg.norm(values, axis=(2, 3)), axis=1) / snapshots.task.many**0.5
        scale = np.maximum(sizes[:, sizes.shape[1] // 2, None], np.finfo(float).tiny)
        values = values.reshape(len(alike), *counts, *values.shape[2:])
        places = [np.stack([piece.relative(i, piece.axes[i]) for piece in alike]) for i in range(len(counts))]
        found = [nodes.decay(np.moveaxis(values, i + 1, 1), at) / scale for i, at in enumerate(places)]
        for piece, *envelopes in zip(alike, *found):
            piece.envelopes = envelopes


def _afforded(fit: _Refinement, active: list[Piece]) -> list[Piece]:
    """Return the pieces; once they take more solves than are left, those with the largest residuals, refined less."""
    fit.reserved = 0
    if not active or not (fit.short or _missing(fit.snapshots, active) > fit.left()):
        return active
    fit.short, why = True, f"the exact solves are used up ({fit.most})"
    for piece in active:
        piece.give_up(why)
    tree.collapse(fit.root)
    waiting = [piece for piece in tree.leaves(fit.root) if piece.trouble == why and piece.settled is not None]
    # Residuals that take exact solves are not measured.
    tails, found = fit.task.problem.operation.residual_solves, []
    worst = [fit.outlook(piece).tail for piece in waiting] if tails else fit.inspector.worst(waiting)
    for piece in [waiting[k] for k in np.argsort(worst)[::-1]]:
        refined = _stepped(fit, piece)
        cost = _missing(fit.snapshots, refined) if refined else 0
        if cost > fit.left():
            piece.halves = None
            piece.give_up(why)
        elif refined:
            piece.trouble = ""
            fit.reserved += cost
            found += refined
        if len(found) > len(waiting) / _PART:
            break
    fit.cuts = [piece.halves[1] for piece in waiting if piece.halves]
    return found


def _stepped(fit: _Refinement, piece: Piece) -> list[Piece]:
    """Refine a piece by as little as makes a difference; halves begin with hardly more than what is solved."""
    outlook, counts = fit.outlook(piece), list(piece.counts)
    axis = int(outlook.tails.argmax())
    n, turning = counts[axis], _unrelated(fit.snapshots, piece, axis, fit.nodes)
    counts[axis] += _STEP if fit.d == 1 else 1
    if (turning or np.isfinite(outlook.wanted[axis])) and counts[axis] <= fit.nodes and math.prod(counts) <= fit.terms:
        before = np.array(piece.counts)
        fit.extend(piece, axis, counts[axis])
        return fit.grown(piece, before)
    counts[axis] = min(n, max(_NEAR_JUMP, int(_HALF * n + 1)))
    return fit.halved(piece, axis, counts, fit.bend if turning else 0.0)


def _resolved(fit: _Refinement, active: list[Piece]) -> np.ndarray:
    """Return which of many problems have small last coefficients in all pieces; none where all have."""
    many, sketch = fit.task.many, fit.snapshots.sketch()
    easy = np.full(many, True)
    if many == 1:
        return ~easy
    for piece in active:
        values = np.moveaxis(sketch[piece.rows].view(float), 1, 0).reshape(many, *piece.counts, -1)
        scale = np.median(np.linalg.norm(sketch[piece.rows], axis=2), axis=0)
        for i, n in enumerate(piece.counts):
            # Not bent, which suits what oscillates.
            at = np.tile(2 * (piece.axes[i] - piece.low[i]) / (piece.high[i] - piece.low[i]) - 1, (many, 1))
            easy &= nodes.decay(np.moveaxis(values, i + 1, 1), at)[:, max(n - 2, 0)] <= fit.allowed(piece) * scale
    return easy if not easy.all() else ~easy


def _towards(fit: _Refinement, jump: tuple[float, float], piece: Piece, counts: list[int]) -> list[Piece]:
    """Halve a piece; where X seems to jump between two neighbouring nodes, on until a cut comes between them."""
    found = fit.halved(piece, 0, counts)
    if piece.halves is None:
        return found
    for half in list(found):
        if jump[0] < half.high[0] and jump[1] > half.low[0]:
            half.steep = piece.steep + 1
            whole = half.low[0] <= jump[0] and jump[1] <= half.high[0]
            if whole and half.steep >= _SURE and (half.high - half.low)[0] / 4 >= fit.method.smallest:
                found.remove(half)
                found += _towards(fit, jump, half, counts)
    return found


def _link(piece: Piece, snapshots: Snapshots, points: np.ndarray) -> None:
    """Halve a piece at points of a grid until each half has two of them."""
    if len(points) > 2:
        middle = len(points) // 2
        halves = piece.split(0, float(points[middle]), [2], points, snapshots.rounded)
        for half, own in zip(halves, (points[: middle + 1], points[middle:])):
            _link(half, snapshots, own)
    elif len(points) == 2:
        piece.axes[0] = points
        piece.rows = snapshots.solve(piece.grid())
        piece.settle()
        _analyse(snapshots, [piece])
    else:
        piece.give_up("exact solutions fail here")


def _ended(fit: _Refinement, error: FamilyError) -> list[FactorMap]:
    """Return the maps of what was solved before the family failed; raise if that is nothing."""
    if not len(fit.snapshots.x):
        raise error
    for piece in tree.leaves(fit.root):
        piece.give_up(piece.trouble or "the family failed at a new parameter")
    maps = _finished(fit)
    fit.task.report.stop_reason = StopReason.FAMILY
    fit.task.note(str(error))
    return maps


def _finished(fit: _Refinement) -> list[FactorMap]:
    """Report what is met, and return the maps."""
    report = fit.task.report
    if not len(fit.snapshots.x):
        return _nothing(fit.task, [piece.trouble for piece in tree.leaves(fit.root)])
    tree.collapse(fit.root)
    found = tree.leaves(fit.root)
    for piece in found:
        if piece.settled is None:  # nothing better is known there
            piece.rows = fit.snapshots.nearest(piece.grid())
    report.unmet = [
        Unmet(*piece.ends(fit.box), piece.trouble) for piece in [*_joined(found), *_holes(fit, found)] if piece.trouble
    ]
    report.met = not report.unmet
    unmet = StopReason.BUDGET if any("used up" in place.reason for place in report.unmet) else StopReason.STALLED
    report.stop_reason = StopReason.TOLERANCE if report.met else unmet
    fit.inspector.summary()
    _say_what_is_linear(fit)
    _hint_at_periods(fit)
    return _built(fit.task, fit.snapshots, *tree.embedded(fit.root))


def _joined(found: list[Piece]) -> list[Piece]:
    """Return pieces, those of one parameter that have the same trouble and follow each other as one."""
    joined: list[Piece] = []
    for piece in found:
        last = joined[-1] if joined and len(piece.low) == 1 else None
        if last and piece.trouble and last.trouble == piece.trouble and last.high == piece.low:
            joined[-1] = Piece(last.low, piece.high, [])
            joined[-1].trouble = piece.trouble
        else:
            joined.append(piece)
    return joined


def _holes(fit: _Refinement, found: list[Piece]) -> list[Piece]:
    """Return where the family is not defined: pieces, of one parameter what lies between exact solutions."""
    undefined = fit.inspector.undefined()
    if not len(undefined):
        return []
    if fit.d > 1:
        holes = [Piece(found[k].low, found[k].high, []) for k in sorted({*tree.located(found, undefined)} - {-1})]
    else:
        places = np.unique(np.append(fit.snapshots.x[:, 0], [-1, 1]))
        after = np.unique(np.searchsorted(places, undefined[:, 0]))
        holes = [Piece(places[k - 1 : k], places[k : k + 1], []) for k in after]
    for hole in holes:
        hole.trouble = "the family is not defined at random parameters here"
    return holes


def _say_what_is_linear(fit: _Refinement) -> None:
    """Name the places where a grid does not resolve X."""
    places: list[Piece] = []
    for piece in sorted(fit.links, key=lambda piece: piece.low[0]):
        if not places or piece.low[0] > places[-1].high[0]:
            places.append(piece)
    if places:
        low, high = (end[0] for end in places[0].ends(fit.box))
        more = f", and at {len(places) - 1} more places," if len(places) > 1 else ""
        fit.task.note(f"the grid does not resolve X near {low:.6g} to {high:.6g}{more} and X is linear between points")


def _hint_at_periods(fit: _Refinement) -> None:
    """Say where X is the same at both ends of an axis that was not said to be periodic, and not between them.

    At corners alone X may not depend on an axis at all: all pairs of solutions on opposite faces are compared.
    """
    if not fit.task.problem.operation.unique:
        return
    sketch, x = fit.snapshots.sketch(), fit.snapshots.x
    places, varies = {tuple(row): k for k, row in enumerate(x.tolist())}, np.linalg.norm(sketch - sketch[0])
    for i, name in enumerate(fit.box.names):
        faced = [(places.get((*at[:i], 1.0, *at[i + 1 :])), k) for at, k in places.items() if at[i] == -1]
        pairs = np.array([pair for pair in faced if pair[0] is not None], int).reshape(-1, 2)
        high, low = sketch[pairs[:, 0]], sketch[pairs[:, 1]]
        same = np.linalg.norm(high - low) < min(_SAME * np.linalg.norm(low), _SAME * varies)
        if same and not fit.box.periodic[i] and len(pairs) > 2 ** (fit.d - 1) * (fit.d > 1):
            fit.task.note(f"X is the same at both ends of {name}: if that axis goes round, say periodic=True")


def _small(task: Task, count: int) -> bool:
    """Whether so many exact solves cost less than a round of refinement."""
    family = task.problem.family
    operations = task.problem.operation.cost(*family.shape) * (4 if family.dtype.is_complex else 1)
    return count * operations <= _ROUND


def _missing(snapshots: Snapshots, active: list[Piece]) -> int:
    return snapshots.missing(np.concatenate([piece.grid() for piece in active]))


def _table(task: Task, snapshots: Snapshots, grid: np.ndarray) -> list[FactorMap]:
    """Solve at every point of a grid, and interpolate linearly between neighbours."""
    report, rows = task.report, snapshots.solve(grid)
    good = rows >= 0
    if good.sum() < 2:
        return _nothing(task, [])
    report.stop_reason, report.met = StopReason.TABLE, bool(good.all())
    report.unmet = [Unmet(p, p, "the exact solution fails") for p in report.singular]
    task.note(f"all {len(grid)} points of the grid are solved exactly, which costs less than a map of them")
    snapshots.divide(grid[:, 0].tolist())  # each stands for itself
    return _built(task, snapshots, *tree.chain(grid[good, 0]), torch.from_numpy(rows[good]))


def _built(
    task: Task, snapshots: Snapshots, embedding: PiecewisePolynomials, weights: dict[str, Tensor], rows: Tensor
) -> list[FactorMap]:
    report, device = task.report, task.problem.family.device
    weights, rows = {name: weight.to(device) for name, weight in weights.items()}, rows.to(device)
    values = zip(task.problem.factors, snapshots.values())
    maps = [FactorMap(factor.name, value[rows], embedding, weights) for factor, value in values]
    report.rank, report.collocation = max(m.rank for m in maps), snapshots.solved
    return maps


def _nothing(task: Task, troubles: list[str]) -> list[FactorMap]:
    """Return the zero map, and say why: all solutions fail, or all that a limit allowed."""
    box, limits = task.problem.family.box, [trouble for trouble in troubles if "used up" in trouble]
    why = "; ".join(["every exact solution fails", *limits[:1]])
    task.report.unmet, maps = [Unmet(box.lower.tolist(), box.upper.tolist(), why)], task.zero()
    if limits:
        task.report.stop_reason = StopReason.BUDGET
    return maps


def _hopeless(piece: Piece, outlook: _Outlook, dtype: torch.dtype) -> str:
    """Say why no refinement helps: what is left is noise, and no residual is so large that the nodes have missed X."""
    unit = torch.finfo(dtype).eps
    flat = np.isinf(outlook.wanted).any() and _FALLEN * piece.tail < outlook.tail < _NOISE_UNITS * unit
    flat = flat and (piece.ratio or 0) < _MISSED / unit
    return f"the family or its exact solutions carry noise of about {outlook.tail:.0e} here" if flat else ""


def _along(snapshots: Snapshots, piece: Piece, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the nodes on an axis in order, X there, and the sizes of its steps."""
    order = np.argsort(piece.axes[axis])
    values = np.moveaxis(snapshots.sketch()[piece.rows.reshape(piece.counts)], axis, 0)[order].reshape(len(order), -1)
    return piece.axes[axis][order], values, np.linalg.norm(np.diff(values, axis=0), axis=1)


def _jump(snapshots: Snapshots, piece: Piece) -> tuple[float, float] | None:
    """Return two neighbouring nodes between which nearly all of the difference between the ends happens."""
    x, values, steps = _along(snapshots, piece, 0)
    k = int(steps.argmax())
    steep = steps[k] > _KEPT * np.linalg.norm(values[-1] - values[0]) and steps.sum() - steps[k] < _LEFT * steps[k]
    return (x[k], x[k + 1]) if steep else None


def _unrelated(snapshots: Snapshots, piece: Piece, axis: int, most: int) -> bool:
    """Whether most neighbouring nodes on an axis have little to do with each other, as where X oscillates.

    With more nodes a piece may be longer.
    """
    _, values, steps = _along(snapshots, piece, axis)
    spread = np.linalg.norm(values - values.mean(axis=0)) / len(values) ** 0.5
    return bool(np.sort(steps)[len(steps) // 2] > most / _FEWEST * spread)


def _bend(tol: float, most: int) -> float:
    """Return the angle by which pieces are stretched where X oscillates.

    Polynomials in sin(b t) have their nodes nearly equidistant, and converge by the distance of the branch points of
    the stretched X, at 1 / sin(b): the factor per node with which so many nodes come to a part of the tolerance.
    """
    rate = (_STRETCH_PART * tol) ** (-1 / most)
    return math.asin(2 / (rate + 1 / rate))


def _named(piece: Piece, box: Box, values: np.ndarray) -> str:
    """Say what the smallest piece holds, and where."""
    middle = box.parameters(torch.from_numpy((piece.low + piece.high) / 2)[None])[0].tolist()
    where = ", ".join(f"{name} = {x:.6g}" for name, x in zip(box.names, middle))
    size = np.linalg.norm(values, axis=(1, 2))
    kind = "X jumps" if piece.steep >= _STEEP else "the smallest piece does not resolve X"
    return f"{'X grows without bound' if size.max() > _UNBOUNDED * np.median(size) else kind} at {where}"


def _read(envelope: np.ndarray, allowed: float) -> tuple[float, float]:
    """Return the size of the first coefficient left out, and the nodes that the decay asks for (Inf: no decay)."""
    n = len(envelope)
    if n < 3:
        return 0.0, n
    # Of the last two, the larger: every other coefficient of an even or odd function is zero.
    last, half, span = envelope[n - 2], envelope[n // 2], n - 2 - n // 2
    if last == 0:
        return 0.0, int(max(2, np.argmax(envelope <= allowed)))
    rate = math.log(half / last) / span if span else math.log(envelope[n // 2 - 1] / last)
    tail = float(last * math.exp(-2 * max(rate, 0)))
    if tail <= allowed:
        return tail, int(max(2, np.argmax(envelope <= allowed) if envelope[-1] <= allowed else n))
    if rate < _LEAST_RATE:
        return tail, math.inf
    further = math.log(tail / allowed) / rate
    if further >= _FEWEST:
        return tail, math.inf
    return tail, n + min(2 * _STEP if further > 4 * _STEP else _STEP, math.ceil(further))
