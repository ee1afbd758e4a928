"""The exact solves that a fit in pieces may still take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neumatc.piece import Piece
from neumatc.snapshots import Snapshots

# Most exact solves where neither a budget nor a grid says so.
_MOST = 4096


class Budget:
    """Counts what may still be solved.

    Args:
        snapshots: What is solved.

    Attributes:
        short: Whether solves are scarce.
        reserved: Those that are promised to pieces.
        why: Why pieces end without them.
    """

    def __init__(self, snapshots: Snapshots):
        self.snapshots, self.task = snapshots, snapshots.task
        self.total = min(self.task.budget or _MOST, _MOST)  # of all, with those that residuals take
        self.most = min(self.total, self.task.problem.family.count)
        self.short, self.reserved, self.why = False, 0, f"the exact solves are used up ({self.most})"

    def left(self) -> int:
        """Return how many exact solves may still be promised."""
        left = min(self.total - self.task.report.exact_solves, self.most - self.snapshots.solved)
        return left - self.reserved

    def missing(self, pieces: Sequence[Piece]) -> int:
        """Return how many exact solves pieces wait for."""
        return self.snapshots.missing(np.concatenate([piece.grid() for piece in pieces])) if pieces else 0
