"""Piecewise Chebyshev interpolation with adaptive splitting, as Chebfun does it for every entry of a matrix."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from neumatc import checks, linalg, threads
from neumatc.linalg import from_rows, real_rows
from neumatc.peers.base import Peer, builder, enough
from neumatc.peers.interpolation import polynomials
from neumatc.problem import Problem

# Nodes of a piece that is tried first; at most `nodes`, by doubling, so that solutions are used again.
_FIRST = 9
# Pieces narrower than this share of the box, or than so many spacings of numbers, are left as they are: a singularity.
_NARROWEST, _SPACINGS = 2.0**-20, 100
# Coefficients, the last ones, that must be small: two, since every other one of an even or odd function vanishes.
_TAIL = 2
# Decay is not asked for below so many units of rounding of the largest entry.
_UNITS = 16


class _Piece(NamedTuple):
    """From a to b in [-1, 1], with so many nodes."""

    a: float
    b: float
    nodes: int

    def points(self) -> list[float]:
        """Extrema of the Chebyshev polynomials; the ends are those of the neighbours, to the last bit."""
        y = torch.cos(torch.arange(self.nodes, dtype=torch.float64) * (torch.pi / (self.nodes - 1)))
        inner = self.a + (self.b - self.a) * (1 - y) / 2
        return [self.a, *inner[1:-1].tolist(), self.b]

    def basis(self, x: Tensor) -> Tensor:
        """Chebyshev polynomials at x (B,), shape (B, nodes)."""
        return polynomials((2 * x - self.a - self.b) / (self.b - self.a), self.nodes)

    def finer(self, decay: float, tol: float, nodes: int) -> list[_Piece]:
        """Twice as many nodes, if at its rate of decay at most ``nodes`` reach the tolerance; otherwise two halves."""
        if self.nodes < nodes and decay ** ((nodes - 1) / (self.nodes - 1)) <= tol:
            return [self._replace(nodes=2 * self.nodes - 1)]
        middle = (self.a + self.b) / 2
        return [_Piece(self.a, middle, _FIRST), _Piece(middle, self.b, _FIRST)]


@builder(axis=True)
def piecewise_chebyshev(problem: Problem, tol: float, *, nodes: int = 33, budget: int = 4096) -> Peer:
    r"""Chebyshev interpolation of every entry in adaptive pieces, as by Chebfun with "splitting on".

    .. math:: X_{ij}(p) = \sum_{k < m} c_{kij} T_k(y), \qquad y \in [-1, 1] \text{ on the piece of } p.

    A piece is accepted when the last coefficients of each entry (real and imaginary parts apart) are below the
    tolerance relative to the largest value of that entry, or to rounding of the largest of all. Otherwise it gets twice
    as many nodes, if its decay promises that this will do, or is halved. All entries share the exact solutions, at
    Chebyshev extrema, which neighbours share at their ends. Unlike Chebfun it looks for no edges, halves instead, and
    keeps no shorter series for an entry that allows it.

    Sources: Driscoll, Hale, Trefethen (eds.), Chebfun Guide, Pafnuty 2014; Pachon, Platte, Trefethen, IMA J. Numer.
    Anal. 30 (2010), doi 10.1093/imanum/drp008.

    Args:
        problem: An operation with one factor, of one parameter.
        tol: Relative size of the last coefficients, above 0. It is no bound of the error: a feature between all nodes
            is not seen. Below the rounding of the exact solutions it only spends the budget.
        nodes: Most nodes of a piece, 2^k + 1, at least 9.
        budget: Most exact solves. Pieces that it does not allow to refine are kept as they are.

    Returns:
        The peer, with as many terms as the largest piece has nodes. Its details: ``edges`` of the pieces, shape
        (pieces + 1,), in the unit of the parameter; ``nodes`` of each; ``unresolved``, how many pieces were kept
        although they are not resolved. A piece in which a solve failed is not; there the result is NaN.

    Raises:
        ValueError: For several factors or parameters, another tolerance, number of nodes or budget, or no exact
            solution that succeeds.
    """
    family, box, tol = problem.family, problem.family.box, checks.number("tol", tol, above=0)
    nodes, budget = checks.integer("nodes", nodes, _FIRST), checks.integer("budget", budget, _FIRST)
    if (nodes - 1) & (nodes - 2):
        raise ValueError(f"`nodes`: expected 2^k + 1, such as 17 or 33, got {checks.shown(nodes)}; take one.")
    spacing = torch.finfo(box.dtype).eps * max(box.lower.abs().item(), box.upper.abs().item())
    narrowest = 2 * max(_NARROWEST, _SPACINGS * spacing / (box.upper - box.lower).item())
    known: dict[float, Tensor] = {}  # the solution at each point, as a row, NaN where it failed
    waiting, done, unresolved = [_Piece(-1.0, 1.0, _FIRST)], {}, 0

    def missing(pieces: list[_Piece]) -> list[float]:
        return list(dict.fromkeys(x for piece in pieces for x in piece.points() if x not in known))

    while waiting:
        x = missing(waiting)
        p = box.parameters(torch.tensor(x, dtype=torch.float64)[:, None])
        X, failed = problem.exact(p)
        if not known:
            enough(problem, p, failed, 1)
        known |= dict(zip(x, real_rows(X)))
        sizes = torch.stack(list(known.values())).double().abs().nan_to_num(0).amax(dim=0)
        scales = sizes.clamp_min(torch.finfo(torch.float64).tiny)
        floor = _UNITS * torch.finfo(family.dtype).eps * scales.max() / scales
        following = []
        for piece in waiting:
            points = piece.points()
            values = torch.stack([known[x] for x in points]).double()
            V = piece.basis(torch.tensor(points, dtype=torch.float64, device=values.device))
            coefficients = linalg.inverse(V[None])[0][0] @ values
            tail = coefficients[-_TAIL:].abs().amax(dim=0) / scales
            decay = float(torch.where(tail <= floor, 0, tail).max())
            resolved, finer = decay <= tol, piece.finer(decay, tol, nodes)
            hopeless = finer[0].b - finer[0].a <= narrowest or bool(values.isnan().all())
            affordable = len(known) + len(missing(following + finer)) <= budget
            if resolved or hopeless or not affordable:
                done[piece] = coefficients.to(checks.real_dtype(X.dtype))
                unresolved += not resolved
            else:
                following += finer
        waiting = following
    pieces = sorted(done)
    starts = torch.tensor([piece.a for piece in pieces], dtype=torch.float64, device=family.device)

    def evaluate(p: Tensor) -> Tensor:
        x = box.cube(p)[:, 0]
        place, order = torch.searchsorted(starts[1:], x).sort(stable=True)
        flat, first, jobs = done[pieces[0]].new_empty(len(p), done[pieces[0]].shape[1]), 0, []
        for piece, count in zip(pieces, torch.bincount(place, minlength=len(pieces)).tolist()):
            own = slice(first, first := first + count)
            jobs.append((piece.basis(x[order[own]]).to(flat), done[piece], flat[own], None))
        threads.products(jobs)
        if (order.diff() < 0).any():
            flat = flat[order.argsort()]
        return from_rows(flat, X)

    ends = torch.cat([starts, starts.new_ones(1)])
    edges, counts = box.parameters(ends[:, None])[:, 0], [piece.nodes for piece in pieces]
    details = {"edges": edges, "nodes": counts, "unresolved": unresolved}
    return Peer("piecewise_chebyshev", len(known), max(counts), box, evaluate, details)
