"""The exact solves of a fit in pieces: how many there may be, and which pieces get the last ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from neumatc.piece import Piece, collapse, leaves
from neumatc.snapshots import Snapshots

# Most exact solves where neither a budget nor a grid says so. And one over the part of the pieces that are refined at
# once when solves run short: smaller parts take more rounds, larger ones waste solves where the residual is not the
# worst.
_MOST, _PART = 4096, 3


class Budget:
    """Counts what may still be solved.

    Args:
        snapshots: What is solved.
    """

    def __init__(self, snapshots: Snapshots):
        self.snapshots, self.task = snapshots, snapshots.task
        grid = self.task.problem.family.grid
        self.most = min(self.task.budget or _MOST, _MOST if grid is None else len(grid), _MOST)
        self.short, self.reserved = False, 0  # whether solves are scarce, and those of pieces that wait for them
        self.why = f"the exact solves are used up ({self.most})"

    def left(self) -> int:
        """Return how many exact solves may still be promised."""
        return self.most - self.task.report.exact_solves - self.reserved

    def missing(self, pieces: Sequence[Piece]) -> int:
        """Return how many exact solves pieces wait for."""
        return self.snapshots.missing(np.concatenate([piece.grid() for piece in pieces])) if pieces else 0

    def afforded(
        self,
        root: Piece,
        active: list[Piece],
        worst: Callable[[list[Piece]], list[float]],
        stepped: Callable[[Piece], list[Piece]],
    ) -> list[Piece]:
        """Return the pieces; once they take more solves than are left, those of the tree that are worst, refined less.

        Args:
            root: Of the tree.
            active: Those that are to be solved at their nodes.
            worst: Says how bad pieces are.
            stepped: Refines a piece by as little as makes a difference.
        """
        self.reserved = 0
        if not active or not (self.short or self.missing(active) > self.left()):
            return active
        self.short, found = True, []
        for piece in active:
            piece.give_up(self.why)
        collapse(root)
        waiting = [piece for piece in leaves(root) if piece.trouble == self.why and piece.settled is not None]
        for k in np.argsort(worst(waiting))[::-1]:
            refined = stepped(waiting[k])
            cost = self.missing(refined)
            if cost > self.left():
                waiting[k].halves = None
                waiting[k].give_up(self.why)
            elif refined:
                waiting[k].trouble = ""
                self.reserved += cost
                found += refined
            if len(found) > len(waiting) / _PART:
                break
        return found
