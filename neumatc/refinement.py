"""The refinement of a box into pieces, in rounds, until the residual is small in all of them."""

from __future__ import annotations

import numpy as np

from neumatc import ending, outlook, poles, together
from neumatc import piece as tree
from neumatc.budget import Budget
from neumatc.inspection import Inspector
from neumatc.local import PiecewisePolynomials
from neumatc.methods import Task
from neumatc.model import FactorMap
from neumatc.piece import Piece
from neumatc.snapshots import Snapshots
from neumatc.steps import ROUND, Steps
from neumatc.watch import UNFINISHED

# Nodes per axis with which a fit begins, for one, two and more parameters.
_FIRST = (9, 4, 3)
# How far above the goal the coefficients left out may be for the residual to be measured at all, for one parameter and
# for more: a look costs less than a node too many.
_LOOKS = (2.0, 8.0)
# How often nodes are moved where exact solutions fail, and the least side of a piece that is halved for that reason.
_MOST_MOVES, _LEAST_SINGULAR = 3, 2.0**-8
# Part of what is solved that a round of many problems may add before those which are resolved leave the others, or all
# take rational functions of their own.
_DEAR = 0.5
# One over the part of the pieces that are refined at once when solves run short: smaller parts take more rounds, larger
# ones waste solves where the residual is not the worst.
_PART = 3
# Part of the points of a grid from which on it is solved as a whole.
_SHARE = 0.7


class Refinement:
    """The state of one fit: the tree of pieces, what is solved, and what is known of the residual.

    Args:
        task: What is asked for.
        most: Most nodes per axis, or None.
        smallest: The least side of a piece, as a part of the box.
        share: Most exact solves, as a part of the points of a grid.

    Attributes:
        parts: Of many problems that part: those that are resolved and the others, or each.
    """

    def __init__(self, task: Task, most: int | None, smallest: float, share: float = 1.0):
        self.share = share
        self.task, self.d, self.snapshots = task, task.problem.family.dimension, Snapshots(task)
        self.inspector, self.budget = Inspector(task, self.snapshots), Budget(self.snapshots)
        self.steps = Steps(self.inspector, self.budget, most, smallest)
        self.root = tree.planted(task.start.maps[0].weights, self.snapshots.rounded) if self._starts() else None
        if self.root is None or any(min(piece.counts) < 2 for piece in tree.leaves(self.root)):
            self.root = Piece(-np.ones(self.d), np.ones(self.d), [np.empty(0)] * self.d)
            first = int(min(self.steps.terms, self.budget.most) ** (1 / self.d) + 1e-9)  # a grid of at most so many
            self.steps.grown(self.root, [max(2, min(_FIRST[min(self.d, 3) - 1], first))] * self.d)
        self.parts: list[list[int]] = []

    def run(self) -> list[FactorMap]:
        """Refine until nothing fails, and return the maps; none where many problems part."""
        trial, active, still = poles.Trial(self.inspector), self._afforded(tree.leaves(self.root)), []
        while active and not self._dear(active):
            if self._whole(active):
                return ending.table(self.inspector)
            active = self._round(active)
            dear = active and self.budget.missing(active) > _DEAR * self.snapshots.solved
            if self.task.many > 1:
                if dear and not self.parts and trial.due() and trial.promises():
                    self.parts = [[k] for k in range(self.task.many)]
                if dear and self.parts:
                    return []
            elif active and trial.due() and (maps := trial.maps()) is not None:
                return maps
            active = self._afforded(active)
            if not active:
                still, active = self._still()
                active = active if still else self._afforded(active or self._failing_in_box())
        return ending.pieces(self.root, self.steps.links.unknown, self.inspector, still)

    def _still(self) -> tuple[list[int], list[Piece]]:
        """Return the axes along which X stays, to the tolerance, what it is in their middle; uniform parameters say so.

        Values on a grid are then computed once for all of the axis. Where that fails, pieces may be what is to blame:
        return them, refined.
        """
        tree.collapse(self.root)
        found = tree.leaves(self.root)
        if self.d == 1 or any(piece.trouble or not piece.envelopes for piece in found):
            return [], []
        whole = [all(piece.high[i] - piece.low[i] == 2 for piece in found) for i in range(self.d)]
        changes = [max(piece.envelopes[i][1] for piece in found) for i in range(self.d)]
        still = [i for i in range(self.d) if whole[i] and changes[i] * self.inspector.ratio() <= self.steps.goal]
        if not still or self.task.problem.operation.residual_solves:
            return [], []
        beyond = self.inspector.beyond(self.root, still)
        return ([], self._failing_in_box(beyond)) if len(beyond) else (still, [])

    def _starts(self) -> bool:
        """Whether there is a start in pieces, and not a table, whose pieces may have the terms that are asked for."""
        start = self.task.start
        if start is None or not isinstance(start.maps[0].embedding, PiecewisePolynomials):
            return False
        weights, rows = start.maps[0].weights, len(start.maps[0].core)
        counts = weights["counts"]
        chain = counts.shape[1] == 1 and len(counts) == rows - 1
        beyond = bool((weights["nodes"].abs() > 1 + 1e-9).any())  # links of samples have nodes around them
        return not chain and not beyond and int(counts.prod(dim=1).max()) <= min(self.steps.terms, self.budget.most)

    def best(self) -> list[FactorMap] | None:
        """Return the maps of what is solved, where something ends the fit; None where that is nothing."""
        if not len(self.snapshots.x):
            return None
        tree.collapse(self.root)
        self.snapshots.divide(tree.cuts(self.root))
        found = tree.leaves(self.root)
        # Where all pieces have passed, it is the box that was not checked.
        for piece in [piece for piece in found if not (piece.passed or piece.trouble)] or found:
            piece.give_up(piece.trouble or UNFINISHED)
        self.inspector.forget()
        return ending.pieces(self.root, self.steps.links.unknown, self.inspector)

    def _dear(self, active: list[Piece]) -> bool:
        """Whether the map would take more than its share of a grid; then all pieces end."""
        count = self.task.problem.family.count
        if count == np.inf or self.share == 1:
            return False
        dear = self.snapshots.solved + self.budget.missing(active) > self.share * count
        for piece in active if dear else ():
            piece.give_up(f"the exact solves are used up ({self.share:.0%} of the points of the grid)")
        return dear

    def _whole(self, active: list[Piece]) -> bool:
        """Whether to solve a grid as a whole: it is small, or a map would take most of its points."""
        grid, problem = self.snapshots.grid, self.task.problem
        smoothed = problem.family.floor is not None  # of these samples a map takes few, and knows what is between them
        if grid is None or self.share < 1 or len(grid) > (self.task.budget or len(grid)):
            return False
        most = self.snapshots.solved + self.budget.missing(active) > _SHARE * len(grid)
        return most or (len(grid) * problem.work <= ROUND and not smoothed)

    def _round(self, active: list[Piece]) -> list[Piece]:
        """Solve at the nodes of the active pieces, keep what passes, and return what is to be refined further."""
        active, more = self._solved(sorted(active, key=lambda piece: -piece.tail))
        if not active:
            return more
        self.snapshots.divide(tree.cuts(self.root))
        outlook.analyse(self.snapshots, active)
        self.parts = together.parted(self.snapshots, active, list(map(self.steps.allowed, active)))
        if not self.inspector.ratios:
            self.inspector.calibrate(active[0], self.steps.outlook(active[0]).tail)
        ready, far = {}, _LOOKS[min(self.d, 2) - 1]
        for piece in active:
            look = self.steps.outlook(piece)
            if (look.tails <= far * self.steps.allowed(piece)).all():
                ready[piece] = look
            else:
                more += self.steps.refined(piece, look)
        failed = {}
        for (piece, look), worst in zip(ready.items(), self.inspector.worst(list(ready))):
            piece.passed = worst <= self.steps.goal
            # Nodes that are taken at once leave hardly a tail: the residual of a blind piece comes from elsewhere.
            if not self.steps.blind(piece).any() or (piece.passed and not self.steps.cheap(piece)):
                self.inspector.learn(worst, look.tail)
            if not piece.passed:
                failed[piece] = worst
        return more + self.steps.failed([*failed], [*failed.values()])

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
        lost, sides, moved = (piece.rows < 0).reshape(piece.counts), piece.high - piece.low, piece.moves >= _MOST_MOVES
        if (piece.moves and lost.all()) or (moved and sides.max() / 4 < max(self.steps.smallest, _LEAST_SINGULAR)):
            return ending.hopeless(self.snapshots, piece, piece.grid()[piece.rows < 0])
        if moved:
            return self.steps.halved(piece, int(sides.argmax()), piece.counts)
        piece.dodge(lost, self.snapshots.rounded)
        return [piece]

    def _afforded(self, active: list[Piece]) -> list[Piece]:
        """Return the pieces; once they take more solves than are left, those that are worst, refined less."""
        budget = self.budget
        budget.reserved = 0
        if not active or not (budget.short or budget.missing(active) > budget.left()):
            return active
        budget.short, found = True, []
        for piece in active:
            piece.give_up(budget.why)
        tree.collapse(self.root)
        waiting = [
            piece for piece in tree.leaves(self.root) if piece.trouble == budget.why and piece.settled is not None
        ]
        for piece in [waiting[k] for k in np.argsort(self._worst(waiting))[::-1]]:
            refined = self.steps.stepped(piece)
            cost = budget.missing(refined)
            if cost > budget.left():
                piece.halves = None
                piece.give_up(budget.why)
            elif refined:
                piece.trouble = ""
                budget.reserved += cost
                found += refined
            if len(found) > len(waiting) / _PART:
                break
        return found

    def _worst(self, pieces: list[Piece]) -> list[float]:
        """Return the residuals of pieces; where these take exact solves, what their coefficients say."""
        tails = self.task.problem.operation.residual_solves
        return [self.steps.outlook(piece).tail for piece in pieces] if tails else self.inspector.worst(pieces)

    def _failing_in_box(self, x: np.ndarray | None = None) -> list[Piece]:
        """Check points x, by default uniform ones of the box; refine the pieces that fail there."""
        tree.collapse(self.root)
        found = [piece for piece in tree.leaves(self.root) if piece.settled is not None]
        worst = self.inspector.in_box(found, x) if found else {}
        failed = {piece: own for piece, own in worst.items() if not piece.trouble and own > self.task.tol}
        for piece in failed:
            piece.passed = False
        return self.steps.failed([*failed], [*failed.values()])
