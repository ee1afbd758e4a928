"""The map in pieces: split the box until every piece meets the tolerance, and interpolate each at a few nodes.

A piece is a box of the cube with nodes on each axis, at whose grid X is solved exactly. What is solved is never thrown
away: nodes are nested, halves begin with the nodes of the whole, and neighbours share those on their common face.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from neumatc import checks, nodes
from neumatc.embeddings import real_rows
from neumatc.local import PiecewisePolynomials
from neumatc.methods import Method, Task
from neumatc.model import FactorMap
from neumatc.report import Round, StopReason, Unmet
from neumatc.snapshots import Snapshots

# Nodes per axis with which a piece begins, for one, two and more parameters, and with which it says whether its
# coefficients decay.
_FIRST, _TELLING, _NEAR_JUMP = {1: 9, 2: 4}, 9, 5
# Most nodes per axis. Every further node costs a multiply-add for each entry at every evaluation; with 16 that takes
# about as long as writing the entry to memory.
_MOST_NODES = 16
# Most terms of a piece in three and more parameters.
_MOST_TERMS = 729
# A coefficient that falls by less than this (natural logarithm) to the next does not decay.
_LEAST_RATE = 0.1
# Most exact solves where neither a budget nor a grid says so.
_MOST_SOLVES = 4096
# Fresh parameters for each piece, and at least so many uniform ones over the box.
_FRESH, _FRESH_IN_BOX = 4, 64
# Part of the tolerance that the largest residual at a piece's fresh parameters may have: there are worse ones between.
_MARGIN = 0.8
# Parameters from which the two that are worst placed between the nodes are taken.
_PLACES = 16
# Residual over the size of the last coefficients: the most that is believed of the first measurement, where nothing is
# resolved; and how far above the goal that size may be for the residual to be measured: a look costs less than a node
# too many.
_RATIO, _LOOK = 4.0, {1: 2.0}
# Below so many rounding units coefficients that do not decay when a piece is halved are noise.
_NOISE_UNITS = 300.0
# A piece that has kept nearly all of the difference between its ends in so many halvings holds a jump.
_HALVINGS, _KEPT, _LEFT = 8, 0.9, 0.1
# How far a node moves, in lengths of the piece, where the exact solution at it fails, and how often.
_MOVE, _MOST_MOVES = 0.03, 3


@dataclass(frozen=True)
class Pieces(Method):
    r"""Polynomial interpolation in pieces of the box, to a tolerance: what `fit(problem, tol=...)` does.

    Each piece is a box with :math:`n_i` nodes on axis i. X is solved at their grid and interpolated by polynomials, so
    a value sums :math:`n_1 \cdots n_d` exact solutions. Where the coefficients along an axis decay, the piece takes the
    nodes that their rate promises; where they do not, or would need too many, it is halved along that axis. A piece is
    kept once the residual at fresh parameters is below the tolerance: two uniform ones and two far from the nodes.

    Args:
        most: Most nodes per axis.
        smallest: The least side of a piece, as a part of the box; what is not resolved there is reported.
        failure_probability, sampling: As for every `Method`.
    """

    most: int = _MOST_NODES
    smallest: float = 2.0**-30

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.integer("most", self.most, 2)
        checks.number("smallest", self.smallest, above=0, at_most=1)

    def run(self, task: Task) -> list[FactorMap]:
        return _Refinement(self, task).run()


@dataclass
class _Piece:
    """A box of the cube with nodes per axis; a leaf of the tree of halvings, or an inner node of it."""

    low: np.ndarray
    high: np.ndarray
    nodes: list[np.ndarray]
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    kappa: float | None = None  # residual over the size of the coefficients left out, where it was seen
    tail: float = math.inf  # the size of those coefficients, of its parent as long as it is not analysed itself
    halvings: int = 0  # how often the whole difference between the ends has stayed on one side
    moves: int = 0
    trimmed: bool = False  # whether axes were cut back to what they need
    halves: tuple[int, float, _Piece, _Piece] | None = None
    trouble: str = ""

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(map(len, self.nodes))

    def relative(self, axis: int, x: np.ndarray) -> np.ndarray:
        """Scale coordinates on an axis to [-1, 1] on this piece."""
        low, high = self.low[axis], self.high[axis]
        return ((x - low) - (high - x)) / (high - low)

    def absolute(self, axis: int, t: np.ndarray) -> np.ndarray:
        low, high = self.low[axis], self.high[axis]
        return np.where(t == -1, low, np.where(t == 1, high, low + (high - low) * (1 + t) / 2))

    def extend(self, axis: int, count: int, offered: np.ndarray) -> None:
        """Take ``count`` nodes on an axis, those offered where they are well placed."""
        own = self.nodes[axis]
        if count <= len(own):
            self.nodes[axis] = own[:count]
            return
        left = np.setdiff1d(offered, own)
        added = nodes.extended(self.relative(axis, own), count, self.relative(axis, left))[len(own) :]
        found = self.absolute(axis, np.array(added))
        # What was offered keeps its very number, so that it is found again among what is solved.
        if len(left):
            nearest = left[np.abs(found[:, None] - left).argmin(axis=1)]
            same = np.abs(found - nearest) < 1e-11 * (self.high[axis] - self.low[axis])
            found = np.where(same, nearest, found)
        self.nodes[axis] = np.concatenate([own, found])

    def grid(self) -> np.ndarray:
        return np.stack(np.meshgrid(*self.nodes, indexing="ij"), axis=-1).reshape(-1, len(self.nodes))

    def basis(self, x: np.ndarray) -> np.ndarray:
        """Lagrange's polynomials at points of this piece, shape (B, terms)."""
        phi = np.ones((len(x), 1))
        for i, own in enumerate(self.nodes):
            scaled, t = self.relative(i, own), self.relative(i, x[:, i])
            delta = t[:, None] - scaled
            left = np.cumprod(np.c_[np.ones(len(x)), delta[:, :-1]], axis=1)
            right = np.cumprod(np.c_[np.ones(len(x)), delta[:, :0:-1]], axis=1)[:, ::-1]
            own = nodes.barycentric(scaled) * left * right
            phi = (phi[:, :, None] * own[:, None, :]).reshape(len(x), -1)
        return phi

    def places(self, generator: np.random.Generator) -> np.ndarray:
        """Fresh points of the piece: two uniform ones, and two of many that are farthest from the nodes."""
        t = generator.uniform(-1, 1, (_PLACES + _FRESH // 2, len(self.nodes)))
        distance = sum(
            np.log(np.abs(t[:, i, None] - self.relative(i, own))).sum(axis=1) / len(own)
            for i, own in enumerate(self.nodes)
        )
        worst = np.argsort(-distance[:_PLACES])[: _FRESH - _FRESH // 2]
        t = np.concatenate([t[worst], t[_PLACES:]])
        return np.stack([self.absolute(i, t[:, i]) for i in range(t.shape[1])], axis=1)


@dataclass(frozen=True)
class _Outlook:
    """What the coefficients of a piece say: sizes of the tails per axis, and the nodes wanted per axis."""

    tails: np.ndarray
    wanted: np.ndarray


class _Refinement:
    """The state of one fit: pieces to work on, what is solved, and what is known of the residual."""

    def __init__(self, method: Pieces, task: Task):
        self.method, self.task = method, task
        family = task.problem.family
        self.d, self.box = family.dimension, family.box
        self.terms = min(task.rank or 2**31, method.most ** min(self.d, 2), _MOST_TERMS)
        self.snapshots = Snapshots(task)
        self.generator = np.random.default_rng(task.report.seed)
        self.kappas: list[float] = []
        self.tol = task.tol
        self.most = min([m for m in (task.budget, _MOST_SOLVES) if m is not None])
        self.residuals: list[float] = []

    def run(self) -> list[FactorMap]:
        low, high = -np.ones(self.d), np.ones(self.d)
        root = _Piece(low, high, [np.empty(0)] * self.d)
        first = max(2, min(_FIRST.get(self.d, 3), int(self.terms ** (1 / self.d) + 1e-9)))
        for i in range(self.d):
            self._extend(root, i, first)
        self.root, active = root, [root]
        while active:
            while active:
                active = self._round(active)
            active = self._failing_in_box()
        return self._maps()

    # One round

    def _round(self, active: list[_Piece]) -> list[_Piece]:
        """Solve at the nodes of the active pieces, keep what passes, and return what is to be refined further."""
        active = self._solve(active)
        if not active:
            return []
        sketch = self.snapshots.sketch()
        if len(self.kappas) == 0:
            self._calibrate(active[0], sketch)
        ready, more = [], []
        for piece in active:
            outlook = self._outlook(piece, sketch)
            goal = self._goal(piece)
            if (outlook.tails <= _LOOK.get(self.d, 8.0) * goal).all():
                ready.append((piece, outlook))
            else:
                more += self._refined(piece, outlook, sketch)
        for (piece, outlook), worst in zip(ready, self._checked([piece for piece, _ in ready])):
            tail = max(float(outlook.tails.max()), 64 * torch.finfo(torch.float64).eps)
            if np.isfinite(worst):
                self.kappas.append(worst / tail)
            if worst <= _MARGIN * self.tol:
                continue
            piece.kappa = worst / (_MARGIN * tail) if np.isfinite(worst) else None
            more += self._refined(piece, self._outlook(piece, sketch, failed=True), sketch)
        return more

    def _solve(self, active: list[_Piece]) -> list[_Piece]:
        """Solve exactly at all nodes of the pieces; return those that are complete."""
        left = min(self.most - self.snapshots.solved, self.task.left())
        grids, kept, new = [], [], 0
        for piece in active:
            grid = piece.grid()
            missing = self.snapshots.missing(grid)
            if new + missing > left:
                self._give_up(piece, "the exact solves are used up")
                continue
            new += missing
            grids.append(grid)
            kept.append(piece)
        if not kept:
            return []
        rows = self.snapshots.solve(np.concatenate(grids))
        complete, start = [], 0
        again = []
        for piece, grid in zip(kept, grids):
            piece.rows = rows[start : start + len(grid)]
            start += len(grid)
            if (piece.rows >= 0).all():
                complete.append(piece)
            else:
                again += self._avoiding(piece)
        return complete + (self._solve(again) if again else [])

    def _avoiding(self, piece: _Piece) -> list[_Piece]:
        """Move a node whose exact solution fails; halve a piece in which many do."""
        lost = (piece.rows < 0).reshape(piece.counts)
        if piece.moves >= _MOST_MOVES:
            sides = (piece.high - piece.low) / 2
            axis = int(sides.argmax())
            if sides[axis] / 2 < max(self.method.smallest, 2.0**-8):
                self._give_up(piece, "exact solutions fail here")
                return []
            return self._halved(piece, axis, list(piece.counts))
        piece.moves += 1
        shares = [lost.sum(axis=tuple(j for j in range(self.d) if j != i)) for i in range(self.d)]
        axis = int(np.argmax([share.max() * share.size for share in shares]))
        for k in np.flatnonzero(shares[axis] == shares[axis].max()):
            x, width = piece.nodes[axis][k], piece.high[axis] - piece.low[axis]
            step = _MOVE * width * (1 if x < (piece.low[axis] + piece.high[axis]) / 2 else -1)
            piece.nodes[axis][k] = x + step * (1 + 0.37 * piece.moves)
        return [piece]

    def _goal(self, piece: _Piece) -> float:
        kappa = piece.kappa or float(np.median(self.kappas[-32:]))
        return self.tol / max(kappa, 1e-3)

    def _outlook(self, piece: _Piece, sketch: np.ndarray, failed: bool = False) -> _Outlook:
        """Read off tails and wanted nodes from the decay along each axis."""
        values = sketch[piece.rows].reshape(*piece.counts, -1)
        scale = max(float(np.median(np.linalg.norm(values, axis=-1))), np.finfo(float).tiny)
        goal, tails, wanted = self._goal(piece), [], []
        for i, own in enumerate(piece.nodes):
            envelope = nodes.decay(np.moveaxis(values, i, 0), piece.relative(i, own)) / scale
            tail, count = _read(envelope, goal, 4 if self.d == 1 else 2)
            tails.append(tail)
            wanted.append(count)
        if failed and all(w <= n for w, n in zip(wanted, piece.counts)):
            axis = int(np.argmax(tails))
            wanted[axis] = piece.counts[axis] + 2
        return _Outlook(np.array(tails), np.array(wanted))

    def _refined(self, piece: _Piece, outlook: _Outlook, sketch: np.ndarray) -> list[_Piece]:
        """Give a piece more nodes, or halve it along the axis that needs it most."""
        counts = np.array(piece.counts)
        caps = self._caps(piece, outlook)
        telling = np.minimum(np.where(caps >= 2 * _MOST_NODES, 2 * _TELLING - 1, _TELLING), caps)
        telling = np.minimum(telling, _NEAR_JUMP) if piece.halvings >= _HALVINGS else telling
        wanted = np.where(np.isinf(outlook.wanted) & (counts < telling), telling, outlook.wanted)
        if (wanted <= caps).all():
            for i in range(self.d):
                # An axis is cut back once only, or two axes could take turns for ever.
                least = counts[i] if piece.trimmed else 2
                self._extend(piece, i, int(max(least, wanted[i])))
            piece.trimmed = True
            return [piece]
        size, eps = float(outlook.tails.max()), torch.finfo(self.task.problem.family.dtype).eps
        if np.isinf(outlook.wanted).any() and _NOISE_UNITS * eps > size > 0.3 * piece.tail:
            self._give_up(piece, f"A(p) or its exact solutions carry noise of about {size:.0e} here")
            return []
        axis = int(np.where(wanted > caps, wanted / counts * (outlook.tails > 0), 0).argmax())
        piece.tail = size
        side = (piece.high[axis] - piece.low[axis]) / 4
        if side < max(self.method.smallest, 256 * torch.finfo(self.box.dtype).eps):
            self._give_up(piece, self._named(piece))
            return []
        start = [int(min(max(2, w), n)) for w, n in zip(wanted, counts)]
        start[axis] = int(telling[axis] if np.isinf(wanted[axis]) else min(caps[axis], max(5, 0.55 * wanted[axis] + 1)))
        return self._halved(piece, axis, start)

    def _caps(self, piece: _Piece, outlook: _Outlook) -> np.ndarray:
        """Return the most nodes per axis: what the terms of a piece allow beside what the other axes need."""
        need = np.where(np.isinf(outlook.wanted), piece.counts, np.maximum(outlook.wanted, 2))
        most = self.terms // np.array([np.delete(need, i).prod() for i in range(self.d)])
        return np.clip(most, 2, self.method.most if self.d == 1 else 2 * self.method.most).astype(int)

    def _extend(self, piece: _Piece, axis: int, count: int) -> None:
        piece.extend(axis, count, self.snapshots.along(axis, piece.low, piece.high, self.d))
        piece.nodes[axis] = self.snapshots.rounded(axis, piece.nodes[axis])

    def _halved(self, piece: _Piece, axis: int, counts: list[int]) -> list[_Piece]:
        """Halve a piece along an axis; the halves begin with the nodes of the whole."""
        cut = (piece.low[axis] + piece.high[axis]) / 2
        cut = float(self.snapshots.rounded(axis, np.array([cut]))[0])
        pair = []
        for side in (0, 1):
            low, high = piece.low.copy(), piece.high.copy()
            (high if side == 0 else low)[axis] = cut
            half = _Piece(low, high, [own[:n] for own, n in zip(piece.nodes, counts)])
            half.kappa, half.tail = piece.kappa, piece.tail
            half.nodes[axis] = np.empty(0)
            inside = piece.nodes[axis][(piece.nodes[axis] >= low[axis]) & (piece.nodes[axis] <= high[axis])]
            half.extend(axis, counts[axis], np.union1d(inside, self.snapshots.along(axis, low, high, self.d)))
            half.nodes[axis] = self.snapshots.rounded(axis, half.nodes[axis])
            pair.append(half)
        piece.halves = (axis, cut, *pair)
        if self.d == 1:
            self._count_halvings(piece, pair)
        return pair

    def _count_halvings(self, piece: _Piece, pair: list[_Piece]) -> None:
        """Note where the difference between the ends stays on one side at every halving, as at a jump."""
        x, own = piece.nodes[0], self.snapshots.sketch()[piece.rows]
        order = np.argsort(x)
        x, own = x[order], own[order]
        middle = min(max(1, int(np.searchsorted(x, pair[0].high[0]))), len(x) - 2)
        whole = _KEPT * np.linalg.norm(own[-1] - own[0])
        left, right = np.linalg.norm(own[middle] - own[0]), np.linalg.norm(own[-1] - own[middle])
        for half, inside, outside in ((pair[0], left, right), (pair[1], right, left)):
            half.halvings = piece.halvings + 1 if inside > whole and outside < _LEFT * whole else 0

    def _named(self, piece: _Piece) -> str:
        where = ", ".join(
            f"{v:.6g}" for v in self.box.parameters(torch.from_numpy((piece.low + piece.high) / 2)[None])[0].tolist()
        )
        size = np.linalg.norm(self.snapshots.sketch()[piece.rows], axis=-1)
        kind = "X jumps" if piece.halvings >= _HALVINGS else "X is not resolved by the smallest piece"
        if size.max() > 1e3 * np.median(size):
            kind = "X grows without bound"
        return f"{kind} at {', '.join(self.box.names)} = {where}"

    def _give_up(self, piece: _Piece, reason: str) -> None:
        piece.trouble = reason

    # Residuals

    def _calibrate(self, root: _Piece, sketch: np.ndarray) -> None:
        """Measure the residual over the size of the last coefficients at the whole box, for a first idea."""
        self.kappas = [1.0]
        tail, (worst,) = float(self._outlook(root, sketch).tails.max()), self._checked([root])
        self.kappas = [min(max(worst / max(tail, 1e-14), 1.0), _RATIO)] * 4

    def _checked(self, pieces: list[_Piece]) -> list[float]:
        """Return the largest residual of each piece at fresh parameters."""
        if not pieces:
            return []
        places = [piece.places(self.generator) for piece in pieces]
        residuals = self._residuals(pieces, places)
        return [float(r.max()) if len(r) else math.inf for r in residuals]

    def _residuals(self, pieces: list[_Piece], places: list[np.ndarray]) -> list[np.ndarray]:
        """Return residuals of the pieces' maps at places of each; those where the family is undefined are left out."""
        operation, family = self.task.problem.operation, self.task.problem.family
        p = self.box.parameters(torch.from_numpy(np.concatenate(places)))
        x = self.box.cube(p).cpu().numpy()
        A, good = family.evaluate(p)
        columns = [real_rows(v) for v in self.snapshots.values()]
        found, start = [[] for _ in columns], 0
        for piece, own in zip(pieces, places):
            phi = torch.from_numpy(piece.basis(x[start : start + len(own)]))
            start += len(own)
            rows = torch.from_numpy(piece.rows).to(columns[0].device)
            for f, c in zip(found, columns):
                f.append(phi.to(c) @ c[rows])
        fitted = [
            torch.view_as_complex(torch.cat(f).view(len(p), *v.shape[1:], 2))
            if v.is_complex()
            else torch.cat(f).view(len(p), *v.shape[1:])
            for f, v in zip(found, self.snapshots.values())
        ]
        out = [
            f if f.shape[1:] == factor.shape else f.new_empty((len(p), *factor.shape), dtype=factor.dtype(family.dtype))
            for f, factor in zip(fitted, self.task.problem.factors)
        ]
        operation.finish(fitted, out)
        residual = operation.residual(A, out)
        self.task.report.residual_evaluations += len(p)
        self.task.report.exact_solves += len(p) if operation.residual_solves else 0
        residual = torch.where(torch.isnan(residual), torch.inf, residual)
        residual = residual.double().cpu().numpy()
        good, bounds = good.cpu().numpy(), np.cumsum([0, *map(len, places)])
        return [residual[a:b][good[a:b]] for a, b in zip(bounds, bounds[1:])]

    def _failing_in_box(self) -> list[_Piece]:
        """Check uniform parameters over the box; return the pieces that fail there, to be refined."""
        leaves = self._leaves()
        count = max(_FRESH_IN_BOX, self.snapshots.solved // 4 if self.d > 1 else 0)
        x = self.generator.uniform(-1, 1, (count, self.d))
        own = self._located(x)
        chosen = sorted(set(own.tolist()))
        places = [x[own == k] for k in chosen]
        keep = [
            (leaves[k], q)
            for k, q in zip(chosen, places)
            if len(leaves[k].rows) == len(leaves[k].grid()) and (leaves[k].rows >= 0).all()
        ]
        residuals = self._residuals([piece for piece, _ in keep], [q for _, q in keep]) if keep else []
        lost = len(x) - sum(map(len, residuals))
        self.residuals = np.concatenate([*residuals, np.full(lost, np.inf)])
        again, sketch = [], self.snapshots.sketch() if keep else None
        for (piece, _), r in zip(keep, residuals):
            if not piece.trouble and len(r) and r.max() > self.tol:
                outlook = self._outlook(piece, sketch)
                piece.kappa = float(r.max()) / max(float(outlook.tails.max()), 1e-14)
                again += self._refined(piece, self._outlook(piece, sketch, failed=True), sketch)
        return again

    # The tree

    def _leaves(self) -> list[_Piece]:
        found, waiting = [], [self.root]
        while waiting:
            piece = waiting.pop()
            if piece.halves is None:
                found.append(piece)
            else:
                waiting += piece.halves[3], piece.halves[2]
        return found

    def _located(self, x: np.ndarray) -> np.ndarray:
        """Return the number of the leaf in which each point lies."""
        leaves, result = self._leaves(), np.empty(len(x), int)
        for k, piece in enumerate(leaves):
            result[((x >= piece.low) & (x <= piece.high)).all(axis=1)] = k
        return result

    def _maps(self) -> list[FactorMap]:
        task, leaves = self.task, self._leaves()
        report = task.report
        for piece in leaves:
            if piece.trouble:
                low, high = (
                    self.box.parameters(torch.from_numpy(x)[None])[0].tolist() for x in (piece.low, piece.high)
                )
                report.unmet.append(Unmet(low, high, piece.trouble))
        leaves = self._complete(leaves)
        report.met = not report.unmet
        report.stop_reason = StopReason.TOLERANCE if report.met else StopReason.STALLED
        finite = self.residuals[np.isfinite(self.residuals)]
        report.rounds.append(
            Round(
                0,
                float((self.residuals > self.tol).mean()),
                0.0,
                float(np.median(finite)),
                float(finite.max()),
                exact_solves=report.exact_solves,
            )
        )
        values = self.snapshots.values()
        weights, rows = self._weights(leaves)
        embedding = PiecewisePolynomials((False,) * self.d, self._depth(self.root))
        maps = []
        for factor, value in zip(task.problem.factors, values):
            maps.append(
                FactorMap(
                    factor.name,
                    value[rows.to(value.device)],
                    embedding,
                    {k: w.to(value.device) for k, w in weights.items()},
                )
            )
        report.rank = max(m.rank for m in maps)
        report.collocation = self.snapshots.solved
        return maps

    def _complete(self, leaves: list[_Piece]) -> list[_Piece]:
        """Give pieces that were never solved the nodes that are: their parents' map."""
        return leaves

    def _depth(self, piece: _Piece) -> int:
        return 0 if piece.halves is None else 1 + max(self._depth(piece.halves[2]), self._depth(piece.halves[3]))

    def _weights(self, leaves: list[_Piece]) -> tuple[dict[str, Tensor], Tensor]:
        """Return the weights of the embedding, and the rows of the snapshots in the order of the latent tensor."""
        most = max(max(piece.counts) for piece in leaves)
        at, bary = np.zeros((len(leaves), self.d, most)), np.zeros((len(leaves), self.d, most))
        rows, first, start = [], [], 0
        for k, piece in enumerate(leaves):
            order = [np.argsort(own) for own in piece.nodes]
            for i, own in enumerate(piece.nodes):
                at[k, i, : len(own)] = own[order[i]]
                bary[k, i, : len(own)] = nodes.barycentric(own[order[i]])
            own = piece.rows.reshape(piece.counts)[np.ix_(*order)].ravel()
            shared = self.d == 1 and rows and rows[-1][-1] == own[0]
            first.append(start - 1 if shared else start)
            rows.append(own[1:] if shared else own)
            start += len(rows[-1])
        axis, cut, children = self._tree(leaves)
        weights = {
            "low": np.stack([piece.low for piece in leaves]),
            "high": np.stack([piece.high for piece in leaves]),
            "nodes": at,
            "bary": bary,
            "counts": np.array([piece.counts for piece in leaves]),
            "first": np.array(first),
            "axis": axis,
            "cut": cut,
            "children": children,
        }
        return {k: torch.from_numpy(w) for k, w in weights.items()}, torch.from_numpy(np.concatenate(rows))

    def _tree(self, leaves: list[_Piece]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        number, inner, waiting = {id(piece): -1 - k for k, piece in enumerate(leaves)}, [], [self.root]
        while waiting:
            piece = waiting.pop()
            if piece.halves is not None:
                number[id(piece)] = len(inner)
                inner.append(piece)
                waiting += piece.halves[3], piece.halves[2]
        if not inner:
            return np.zeros(1, int), np.zeros(1), np.full((1, 2), -1)
        axis = np.array([piece.halves[0] for piece in inner])
        cut = np.array([piece.halves[1] for piece in inner])
        children = np.array([[number[id(piece.halves[2])], number[id(piece.halves[3])]] for piece in inner])
        return axis, cut, children


def _read(envelope: np.ndarray, goal: float, step: int) -> tuple[float, float]:
    """Return the size of the first coefficient left out, and the nodes that the decay asks for (Inf: no decay)."""
    n = len(envelope)
    if n < 3:
        return 0.0, n
    last, half = envelope[n - 2], envelope[n // 2]
    if last == 0:
        return 0.0, int(max(2, np.argmax(envelope <= goal)))
    span = n - 2 - n // 2
    rate = math.log(half / last) / span if span else math.log(envelope[n // 2 - 1] / last)
    tail = float(last * math.exp(-2 * max(rate, 0)))
    if tail <= goal:
        below = np.flatnonzero(envelope <= goal)
        return tail, int(max(2, below[0] if len(below) else n))
    if rate < _LEAST_RATE:
        return tail, math.inf
    further = math.log(tail / goal) / rate
    return tail, n + min(step, math.ceil(further)) if further < _MOST_NODES else math.inf
