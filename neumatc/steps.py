"""One step for one piece: more nodes, or halves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from neumatc import ending, outlook
from neumatc.budget import Budget
from neumatc.inspection import Inspector
from neumatc.links import Links
from neumatc.outlook import STEP, USUAL, Outlook
from neumatc.piece import Piece

# Nodes per axis with which a piece says whether its coefficients decay; those of a piece that seems to hold a jump,
# where more would be wasted; and, beside one more, the part of the nodes wanted on an axis with which a half begins.
_TELLING, _NEAR_JUMP, _HALF = 9, 5, 0.55
# Nodes on an axis below which nothing is known of its coefficients; those that it gets where a residual is too large.
_LEAST_KNOWN, _SEEN = 3, 4
# Most nodes per axis: so many for each digit of the tolerance, within limits; and most terms in three and more
# parameters. Every term costs a multiply-add for each entry at every evaluation; 16 take about as long as writing the
# entry to memory. Few digits want small pieces, many digits large ones.
_NODES_PER_DIGIT, _MOST_NODES, _MOST_TERMS = 3, 32, 729
# Part of the tolerance that the largest residual at a piece's fresh parameters may have: there are worse ones between.
_MARGIN = 0.8
# From so many halvings towards a jump on, a piece is halved at once as far as its nodes tell where it is.
_SURE = 3
# Spacings of floating-point numbers in the least side of a piece.
_LEAST_NUMBERS = 256
# Operations that a round of refinement takes in overhead, at least.
ROUND = 1e8
# Part of all solves up to which cheap ones are not counted; the most nodes that other axes of a piece have then.
_ENOUGH, _OTHERS = 0.5, 4


class Steps:
    """What pieces become, one at a time, within the limits of a fit.

    Args:
        inspector: Knows what is solved, and how residuals follow from coefficients.
        budget: Of exact solves.
        most: Most nodes per axis, or None.
        smallest: The least side of a piece, as a part of the box.

    Attributes:
        goal: The residual that a piece may have at its fresh parameters.
        terms: Most nodes of a piece.
        links: What becomes of pieces whose points of a grid are all solved.

    What refines a piece returns the pieces that are to be solved at their nodes.
    """

    def __init__(self, inspector: Inspector, budget: Budget, most: int | None, smallest: float):
        self.inspector, self.snapshots, self.budget, task = inspector, inspector.snapshots, budget, inspector.task
        self.d, self.goal = task.problem.family.dimension, _MARGIN * task.tol
        self.nodes = most or min(max(USUAL, math.ceil(-_NODES_PER_DIGIT * math.log10(task.tol))), _MOST_NODES)
        self.bend, self.terms = outlook.stretch(task.tol, self.nodes), self.nodes ** min(self.d, 2)
        self.terms = min(task.rank or self.terms, self.terms, _MOST_TERMS)
        self.smallest = max(smallest, _LEAST_NUMBERS * torch.finfo(task.problem.family.box.dtype).eps)
        self.links = Links(inspector, budget, self.terms)
        family, work = task.problem.family, task.many * task.problem.work
        grid = self.d > 1 and family.box.ticks is not None and family.floor is None and task.budget is None
        self._cheap = grid and _OTHERS * self.nodes * work <= ROUND

    def cheap(self, piece: Piece) -> bool:
        """Whether all nodes that an axis of a piece may have are solved sooner than a round of refinement ends.

        On a grid of several parameters, whose matrices cost nothing, they are taken at once then, as long as the other
        axes have few nodes and there are solves enough.
        """
        few = math.prod(piece.counts) <= _OTHERS * max(piece.counts)
        return self._cheap and few and self.snapshots.solved < _ENOUGH * self.budget.most

    def allowed(self, piece: Piece) -> float:
        """Return the size of the coefficients left out at which the residual should come to the tolerance."""
        return self.goal / max(piece.ratio or self.inspector.ratio(), 1e-3)

    def outlook(self, piece: Piece) -> Outlook:
        """Return what the coefficients of a piece say; all nodes that an axis has leave nothing out."""
        step, most = self.nodes if self.cheap(piece) else STEP, self._available(piece)
        look = Outlook.of(piece, self.allowed(piece), step)
        return Outlook(np.where(piece.counts < most, look.tails, 0.0), np.minimum(look.wanted, most))

    def _available(self, piece: Piece) -> np.ndarray:
        """Return how many nodes each axis of a piece may have at all."""
        ends = zip(piece.low, piece.high)
        return np.array([self.snapshots.available(i, *pair) for i, pair in enumerate(ends)])

    def blind(self, piece: Piece) -> np.ndarray:
        """Return which of several axes have too few nodes for their coefficients to be known, and could have more."""
        counts = np.array(piece.counts)
        return (self.d > 1) & (counts < _LEAST_KNOWN) & (counts < self._available(piece))

    def _turn(self, piece: Piece, axis: int) -> float:
        """Return the angle by which halves are to be stretched: zero where X does not oscillate."""
        return self.bend if outlook.unrelated(self.snapshots, piece, axis, self.nodes) else 0.0

    def failed(self, pieces: Sequence[Piece], worst: Sequence[float]) -> list[Piece]:
        """Refine pieces whose residuals are too large although their coefficients seemed small enough."""
        blind = [(piece, axis) for piece in pieces for axis in np.flatnonzero(self.blind(piece))]
        missed, blamed = self.inspector.along(*(zip(*blind) if blind else ((), ()))) > self.goal, {}
        for piece, axis in (pair for pair, to_blame in zip(blind, missed) if to_blame):  # its nodes alone miss X
            blamed.setdefault(piece, []).append(axis)
        return [one for piece, own in zip(pieces, worst) for one in self._failed(piece, own, blamed.get(piece, []))]

    def _failed(self, piece: Piece, worst: float, blamed: list[int]) -> list[Piece]:
        look = self.outlook(piece)
        if blamed:
            counts = np.array(piece.counts)
            counts[blamed] = _SEEN
            return self.refined(piece, Outlook(look.tails, counts))
        piece.ratio = worst / max(look.tail, np.finfo(float).eps) if np.isfinite(worst) else None
        look = self.outlook(piece)
        if look.small(self.snapshots.task.problem.family.dtype) and (why := self.inspector.rounding(piece, worst)):
            return piece.give_up(why)
        if (look.wanted <= piece.counts).all():
            free = np.where(piece.counts < self._available(piece), look.tails, -1)
            look.wanted[int(free.argmax())] = max(piece.counts) + 2
        return self.refined(piece, look)

    def refined(self, piece: Piece, look: Outlook) -> list[Piece]:
        """Give a piece more nodes, or halve it along the axis that needs it most."""
        bend = self._turn(piece, 0) if self.d == 1 and look.wanted[0] > piece.counts[0] else 0.0
        counts, endless = np.array(piece.counts), np.isinf(look.wanted)
        need = np.where(endless, counts, np.maximum(look.wanted, 2))
        # The most nodes per axis that the terms of a piece allow beside what the other axes need.
        caps = np.clip(self.terms // (need.prod() / need), 2, self.nodes)
        telling = np.minimum(_TELLING if piece.steep < ending.STEEP else _NEAR_JUMP, caps)
        wanted = np.where(endless & (counts < telling), telling, look.wanted)
        # An axis is cut back once only, or two axes could take turns for ever.
        asked = np.maximum(counts if piece.trimmed else 2, wanted)
        if not bend and (asked <= caps).all() and asked.prod() <= self.terms:
            piece.trimmed = True
            return self.grown(piece, asked)
        rounding = look.noise(piece, self.snapshots.task.problem.family.dtype)
        if size := rounding or self.inspector.noise(piece, look.tail):
            return piece.give_up(f"the family or its exact solutions carry noise of about {size:.0e} here")
        if bend:
            return self._quartered(piece, 0, [int(min(caps[0], _TELLING))], bend)
        return self._divided(piece, look.tails, wanted, caps, telling)

    def _divided(
        self, piece: Piece, tails: np.ndarray, wanted: np.ndarray, caps: np.ndarray, telling: np.ndarray
    ) -> list[Piece]:
        """Halve a piece along the axis that wants most nodes beyond those that it may have."""
        over, sides = wanted > caps, piece.high - piece.low
        need = np.where(over | ~over.any(), wanted / piece.counts * (tails > 0), 0)
        axis = max(range(self.d), key=lambda i: (need[i], tails[i], sides[i]))
        piece.tail, start = float(tails.max()), np.minimum(np.maximum(2, wanted), piece.counts)
        half = min(caps[axis], np.inf if self.cheap(piece) else max(_NEAR_JUMP, _HALF * wanted[axis] + 1))
        start[axis] = telling[axis] if np.isinf(wanted[axis]) else half
        start = start.astype(int)
        while start.prod() > self.terms:
            start[start.argmax()] -= 1
        if self.d > 1:
            bend = self._turn(piece, axis)
            far = bend and self.cheap(piece) and piece.counts[axis] >= _TELLING
            return (self._quartered if far else self.halved)(piece, axis, start.tolist(), bend)
        jump = outlook.jump(self.snapshots, piece)
        return self._towards(jump, piece, start.tolist()) if jump else self.halved(piece, 0, start.tolist())

    def grown(self, piece: Piece, counts: Sequence[float]) -> list[Piece]:
        """Give a piece nodes, so many per axis; where its grid or its precision has no more, it ends."""
        before = piece.counts
        for i, count in enumerate(counts):
            offered = self.snapshots.along(piece.low[i], piece.high[i])
            piece.extend(i, int(count), offered, self.snapshots.rounded)
            piece.fill(i, int(count), self.snapshots.between(i, piece.low[i], piece.high[i]))
        if any(now > then for now, then in zip(piece.counts, before)):
            return [piece]
        points = self.snapshots.within(piece.low[0], piece.high[0])
        if points is None:
            box = self.snapshots.task.problem.family.box
            return piece.give_up(f"there are no more {f'parameters in {box.dtype}' if box.ticks is None else 'points'}")
        if self.snapshots.missing(points) > self.budget.left():
            return piece.give_up(self.budget.why)
        return self.links.of(piece, points)

    def halved(self, piece: Piece, axis: int, counts: Sequence[int], bend: float = 0.0) -> list[Piece]:
        """Halve a piece along an axis; where it is too small, or no coordinate lies between its ends, it ends."""
        low, high = piece.low[axis], piece.high[axis]
        if piece.settled is not None and (high - low) / 4 < self.smallest:
            return piece.give_up(ending.smallest(piece, self.snapshots))
        cut = float(self.snapshots.rounded(axis, np.array([(low + high) / 2]))[0])
        if not low < cut < high:
            return self.grown(piece, piece.counts)
        offered = self.snapshots.along(low, high) if self.d == 1 else piece.axes[axis]
        return piece.split(axis, cut, counts, offered, self.snapshots.rounded, bend)

    def _quartered(self, piece: Piece, axis: int, counts: Sequence[int], bend: float) -> list[Piece]:
        """Halve a piece along an axis on which X oscillates, and its halves."""
        return [one for half in self.halved(piece, axis, counts, bend) for one in self.halved(half, axis, counts, bend)]

    def _towards(self, jump: tuple[float, float], piece: Piece, counts: list[int]) -> list[Piece]:
        """Halve a piece; where X seems to jump between two neighbouring nodes, on until a cut comes between them."""
        found = self.halved(piece, 0, counts)
        for half in list(found) if piece.halves else ():
            if jump[0] < half.high[0] and jump[1] > half.low[0]:
                half.steep = piece.steep + 1
                whole = half.low[0] <= jump[0] and jump[1] <= half.high[0]
                if whole and half.steep >= _SURE and (half.high - half.low)[0] / 4 >= self.smallest:
                    found.remove(half)
                    found += self._towards(jump, half, counts)
        return found

    def stepped(self, piece: Piece) -> list[Piece]:
        """Refine a piece by as little as makes a difference; halves begin with hardly more than what is solved."""
        look, counts = self.outlook(piece), list(piece.counts)
        axis = int(look.tails.argmax())
        n, bend = counts[axis], self._turn(piece, axis)
        counts[axis] += STEP if self.d == 1 else 1
        if (bend or np.isfinite(look.wanted[axis])) and counts[axis] <= self.nodes and math.prod(counts) <= self.terms:
            return self.grown(piece, counts)
        counts[axis] = min(n, max(_NEAR_JUMP, int(_HALF * n + 1)))
        return self.halved(piece, axis, counts, bend)
