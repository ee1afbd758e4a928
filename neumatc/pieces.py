"""The map in pieces: split the box until every piece meets the tolerance, and interpolate each at a few nodes.

What is solved is never thrown away: nodes are nested, halves begin with the nodes of the whole, and neighbours share
those on their common face.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from neumatc import checks, noise, sparse, threads, together
from neumatc.methods import Method, Task
from neumatc.model import FactorMap
from neumatc.refinement import Refinement
from neumatc.snapshots import Snapshots

# Exact solves that a fit usually takes.
_USUAL = 128


@dataclass(frozen=True)
class Pieces(Method):
    r"""Polynomial interpolation in pieces of the box, to a tolerance: what `fit(problem, tol=...)` does.

    Each piece is a box with :math:`n_i` nodes on axis i. X is solved at their grid and interpolated by polynomials, so
    a value sums :math:`n_1 \cdots n_d` exact solutions. Where the coefficients along an axis decay, the piece takes the
    nodes that their rate promises; where they do not, or would need too many, it is halved along that axis, and the
    halves are stretched where X oscillates (`PiecewisePolynomials`). A piece is kept once the residual at fresh
    parameters is below the tolerance: two uniform ones and two far from the nodes. In the end uniform parameters over
    the whole box are checked, and pieces that fail are refined further. Where X changes right beside the nodes by more
    than the tolerance lets it, as that of a random family does, the fit ends and names the noise.

    For one parameter, where the result has peaks, a rational function through all that is solved is tried beside
    (`neumatc.rational`). Right beside a pole in the box rounding ends all accuracy; where that is above the tolerance,
    the report says how close. For three parameters and more, one sparse polynomial for the whole box
    (`SparsePolynomials`) is tried before, as long as its coefficients decay as those of analytic functions do. From a
    ``start`` in pieces, of a problem that is alike, the fit begins with the pieces and nodes of that, and refines them
    where they are not enough. Where the family has a grid that is solved sooner as a whole, that is done instead;
    samples of one parameter are then interpolated by as many around each place as meet the tolerance between them, up
    to eight. On a grid of several parameters whose solves are cheap, pieces take at once all the nodes they may have,
    unless ``budget=`` says that solves count. Where noisy samples were smoothed, a tolerance below what is left of the
    noise is raised to that (`neumatc.noise`).

    Args:
        most: Most nodes per axis; default three for each digit of the tolerance, at least 16 and at most 32.
        smallest: The least side of a piece, as a part of the box; what is not resolved there is reported.
        share: Most exact solves, as a part of the points of a family's grid: where the map would take more of them, the
            fit ends, and `fit_many` does not go on with each problem alone.
    """

    most: int | None = None
    smallest: float = 2.0**-30
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.most is not None:
            checks.integer("most", self.most, 2)
        for name in ("smallest", "share"):
            checks.number(name, getattr(self, name), above=0, at_most=1)

    def run(self, task: Task) -> list[FactorMap]:
        return self.run_many([task])[0]

    def batch_snapshots(self, rank: int | None) -> int:
        """Return about how many snapshots of each problem are held at once."""
        return _USUAL

    def run_many(self, tasks: Sequence[Task]) -> list[list[FactorMap]]:
        """Choose the pieces once for all problems; where that does not lead to the tolerance, for each alone."""
        _check(tasks[0])
        goals = noise.raised(tasks)
        found = together.fitted(goals, self._fit, alone=self.share == 1)
        for task, goal in zip(tasks, goals):
            noise.settle(task, goal.tol)
        return found

    def _fit(self, task: Task, known: together.Known) -> tuple[list[FactorMap], list[list[int]], Snapshots]:
        """Fit one task: the maps, of what is solved where something ends it; see `together.fitted`."""
        fit = Refinement(task, self.most, self.smallest, self.share)
        if known:
            fit.snapshots.adopt(*known)
        with threads.alone() if task.many == 1 else nullcontext():  # the steps of one problem are small
            maps = task.kept(lambda: sparse.maps(fit.inspector, fit.budget.most) or fit.run(), fit.best)
        return maps, [] if maps else fit.parts, fit.snapshots


def _check(task: Task) -> None:
    """Raise where a fit in pieces makes no sense."""
    corners = 2**task.problem.family.dimension
    checks.require(task.tol is not None, "tol", "a tolerance for nm.Pieces", None, "give one, for example tol=1e-3")
    for name, value, of in (("budget", task.budget, "box"), ("rank", task.rank, "piece")):
        expected = f"at least {corners} with a tolerance, the corners of a {of}"
        checks.require(value is None or value >= corners, name, expected, value, "raise it")
