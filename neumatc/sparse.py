r"""One sparse polynomial basis for the whole box of several parameters: tried before pieces, for as long as it decays.

Indices :math:`\nu \in \mathbb{N}^d` form a set that holds with each all smaller ones. Each has one node
:math:`x_\nu = (t_{\nu_1}, \dots, t_{\nu_d})`, of one sequence t on every axis, and one function (`SparsePolynomials`)
that is zero at the nodes of all others but the larger ones. So an exact solution at a new node gives its coefficient,
the surplus: the error there of what was known before. The set grows where surpluses are large (Gerstner and Griebel,
Computing 71, 2003; Chkifa, Cohen and Schwab, Found. Comput. Math. 14, 2014).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy.linalg
import torch

from neumatc import ending, nodes
from neumatc.inspection import Inspector
from neumatc.linalg import from_rows, real_rows
from neumatc.local import SparsePolynomials
from neumatc.model import FactorMap
from neumatc.report import StopReason, Unmet
from neumatc.watch import UNFINISHED

# Parameters from which on pieces, of at least 3^d nodes, are dearer; to which on an index fits an integer; and most
# nodes of an axis: more want pieces.
_LEAST, _MOST, _NODES = 3, 10, 48
# The first node of an axis. Not the middle: where X is odd there along one axis it does not vary along others, and the
# set would never grow along these.
_CENTRE = 0.35
# Most terms: each costs a multiply-add for each entry at every evaluation.
_MOST_TERMS = 4096
# The part of the surplus two steps back that the next one has at least: every other one of an even or odd function is
# zero.
_BEFORE = 0.5
# Of the square sum of the surpluses foreseen, the part that is solved at once, and the least growth of the set, an
# eighth: few rounds, each as dear as the solve of some large matrices.
_BULK, _GROWTH = 0.5, 8
# Fresh parameters for a look, and the part of the tolerance that the residual there may have: there is worse between,
# and one of many looks passes by luck; how far above it the residual foreseen may be for a look, and from how many
# terms and what growth on there is one anyway.
_FRESH, _MARGIN, _LOOK, _BLIND, _AGAIN = 32, 0.8, 3.0, 20, 1.5
# From so many terms to the power d on slow decay shows, which pieces that are halved along each axis take too; and from
# so many nodes of an axis on.
_TELLING, _TELLING_NODES = 5, 12


def maps(inspector: Inspector, most: int) -> list[FactorMap] | None:
    """Return the maps of a sparse basis, from at most so many exact solves; None where pieces are to take over."""
    task = inspector.task
    d = task.problem.family.dimension
    if not _LEAST <= d <= _MOST or task.problem.family.count < math.inf or (task.rank or _MOST_TERMS) <= 2 * d:
        return None
    trial = _Trial(inspector, most)
    return task.kept(trial.maps, trial.best)


class _Trial:
    """The state of a sparse interpolation."""

    def __init__(self, inspector: Inspector, most: int):
        self.inspector, self.snapshots, self.task = inspector, inspector.snapshots, inspector.task
        self.d = self.task.problem.family.dimension
        self.goal, self.most = _MARGIN * self.task.tol, most
        self.terms = min(self.task.rank or _MOST_TERMS, _MOST_TERMS)
        self.axes = [self.snapshots.rounded(i, _sequence()) for i in range(self.d)]
        self.scales = [1 / np.array([np.prod(own[k] - own[:k]) for k in range(len(own))]) for own in self.axes]
        self.indices, self.rows = np.empty((0, self.d), int), np.empty(0, int)
        self.own = np.empty((0, 0))  # each function at each node, lower triangular
        self.sizes = np.empty(0)  # of the surpluses, relative to X
        self.ratio = 1.0  # the residual over the surpluses foreseen
        self.history: list[tuple[int, float]] = []  # terms, and the surpluses foreseen

    def maps(self) -> list[FactorMap] | None:
        """Add indices until fresh parameters pass or solves are used up; None where pieces are to take over."""
        looked, new = _BLIND, np.concatenate([k * np.eye(self.d, dtype=int) for k in range(3)])[self.d - 1 :]
        while self._added(new):
            count, (ahead, foreseen) = len(self.rows), self._ahead()
            tail = max(float(np.linalg.norm(foreseen)), np.finfo(float).tiny)
            self.history.append((count, tail))
            if self.ratio * tail <= _LOOK * self.goal or count >= _AGAIN * looked:
                worst = self._looked()
                if worst <= self.goal:
                    return self._built("")
                looked, self.ratio = count, worst / tail
            if self.task.report.exact_solves >= self.most:
                return self._built(f"the exact solves are used up ({self.most})")
            if not len(ahead) or count >= self.terms or self._slow():
                return None
            # What matters by size, then by degree: products may hide where their factors are zero on all axes.
            least = self.goal / (self.ratio * count)
            order = np.lexsort((ahead.sum(axis=1), -np.maximum(foreseen, least)))
            bulk = int(np.searchsorted(np.cumsum(foreseen[order] ** 2), _BULK * tail**2)) + 1
            new = ahead[order[: max(bulk, count // _GROWTH)]]
        return None

    def best(self) -> list[FactorMap] | None:
        """Return the maps of the terms so far, where something ends the fit; None without any."""
        self.inspector.forget()
        return self._built(UNFINISHED) if len(self.rows) else None

    def basis(self, x: np.ndarray) -> np.ndarray:
        """Functions that are one at their own node and zero at the others, at points x (B, d), shape (B, terms)."""
        phi = self._functions(x, self.indices).T
        return scipy.linalg.solve_triangular(self.own, phi, trans="T", lower=True, unit_diagonal=True).T

    def _functions(self, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        phi = 1.0
        for own, scale, k, xi in zip(self.axes, self.scales, indices.T, x.T):
            delta = np.concatenate([np.ones((1, len(x))), xi - own[:-1, None]])
            phi = phi * (np.cumprod(delta, axis=0) * scale[:, None])[k]
        return phi.T

    def _added(self, new: np.ndarray) -> bool:
        """Solve at the nodes of indices (n, d) and add them; whether that was possible."""
        new = new[: max(0, min(self.terms - len(self.rows), self.most - self.task.report.exact_solves))]
        x = np.stack([own[k] for own, k in zip(self.axes, new.T)], axis=1)
        rows = self.snapshots.solve(x) if len(new) else np.array([-1])
        if (rows < 0).any():
            return False
        indices, before = np.concatenate([self.indices, new]), self.own
        own = np.vstack([np.pad(before, ((0, 0), (0, len(new)))), self._functions(x, indices)])
        self.indices, self.own, self.rows = indices, own, np.append(self.rows, rows)
        return True

    def _ahead(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices that may come next, shape (n, d), and the sizes of their surpluses foreseen.

        That is the geometric mean over the axes of the size one step back, or a part of that two steps back.
        """
        values = self.snapshots.sketch()[self.rows].reshape(len(self.rows), -1)
        surpluses = scipy.linalg.solve_triangular(self.own, values, lower=True, unit_diagonal=True)
        scale = max(float(np.median(np.linalg.norm(values, axis=1))), np.finfo(float).tiny)
        self.sizes = np.linalg.norm(surpluses, axis=1) / scale
        base = _NODES ** np.arange(self.d)
        order = np.argsort(self.indices @ base)
        keys = (self.indices @ base)[order]
        ahead = (self.indices[:, None] + np.eye(self.d, dtype=int)).reshape(-1, self.d)
        ahead = ahead[(ahead < list(map(len, self.axes))).all(axis=1)]
        numbers, first = np.unique(ahead @ base, return_index=True)
        ahead = ahead[first[~np.isin(numbers, keys)]]
        back = []
        for step in (1, 2):
            wanted = (ahead @ base)[:, None] - step * base
            at = order[np.searchsorted(keys, wanted).clip(0, len(keys) - 1)]
            back.append(np.where((ahead >= step) & (self.indices[at] @ base == wanted), self.sizes[at], -1.0))
        known = ((back[0] >= 0) | (ahead == 0)).all(axis=1)
        logs = np.log(np.maximum(np.maximum(back[0], _BEFORE * back[1]), np.finfo(float).tiny))
        return ahead[known], np.exp(np.where(ahead > 0, logs, 0).sum(axis=1) / (ahead > 0).sum(axis=1))[known]

    def _looked(self) -> float:
        """Return the largest residual at a few fresh parameters, and where that passes at many."""
        count = _FRESH // (4 if self.task.problem.operation.residual_solves else 1)
        worst = float(self._residuals(self.inspector.generator.uniform(-1, 1, (count, self.d))).max(initial=-np.inf))
        if not -np.inf < worst <= self.goal:
            return worst if worst > 0 else np.inf
        self.inspector.uniform = self._residuals(self.inspector.draws())
        return float(self.inspector.uniform.max(initial=0.0))

    def _residuals(self, x: np.ndarray) -> np.ndarray:
        """Return residuals at points x (B, d), where the family is defined."""
        p = self.task.box(torch.from_numpy(x))
        phi, rows = (torch.from_numpy(a).to(p.device) for a in (self.basis(self.task.place(p).numpy()), self.rows))
        r = self.inspector.measured(p, lambda value: phi.to(value.real) @ real_rows(value[rows]))
        return r[~np.isnan(r)]

    def _slow(self) -> bool:
        """Whether the tolerance is out of reach, of all terms together or of the nodes of an axis.

        Analytic functions are taken for granted: errors fall as exp(-c N^(1/d)) with N terms, or geometrically.
        """
        tol, limit, (counts, tails) = self.goal / self.ratio, min(self.terms, self.most), np.array(self.history).T
        now = counts[-1]
        windows = [(counts > part * now) & (counts <= 2 * part * now) for part in (0.25, 0.5)]
        if now >= min(_TELLING**self.d, limit / 2) and windows[0].any():
            (x, e), (y, f) = ((np.median(counts[w] ** (1 / self.d)), np.median(np.log(tails[w]))) for w in windows)
            if f - max(0.0, e - f) / (y - x) * (limit ** (1 / self.d) - y) > math.log(tol):
                return True
        for k in self.indices.T:
            n = k.max() + 1
            if n >= _TELLING_NODES:
                half, last = (max(self.sizes[k >= j].max(), np.finfo(float).tiny) for j in (n // 2, n - 2))
                if n + math.log(last / tol) * (n - 2 - n // 2) / max(math.log(half / last), 1e-9) > _NODES:
                    return True
        return False

    def _built(self, trouble: str) -> list[FactorMap]:
        task, report, device = self.task, self.task.report, self.task.problem.family.device
        used = self.indices.max() + 1
        axes, scales = (np.stack([np.resize(own, used) for own in each]) for each in (self.axes, self.scales))
        weights = {"nodes": axes, "scale": scales, "indices": self.indices}
        own, rows = torch.from_numpy(self.own).to(device), torch.from_numpy(self.rows).to(device)

        def core(value: torch.Tensor) -> torch.Tensor:
            columns = real_rows(value[rows])
            surpluses = torch.linalg.solve_triangular(own, columns.double(), upper=False, unitriangular=True)
            return from_rows(surpluses.to(columns.dtype).contiguous(), value)

        trouble = trouble or ending.FAILS * bool(self.inspector.snapshots.undecided().all())
        box, report.met = task.problem.family.box, not trouble
        report.unmet = [Unmet(box.lower.tolist(), box.upper.tolist(), trouble)] if trouble else []
        report.stop_reason = StopReason.BUDGET if trouble else StopReason.TOLERANCE
        task.note(f"X is smooth in the whole box: one sparse polynomial of {len(rows)} terms")
        weights = {name: torch.from_numpy(weight) for name, weight in weights.items()}
        return self.inspector.maps(SparsePolynomials(), weights, core)


@lru_cache(maxsize=1)
def _sequence() -> np.ndarray:
    """Return the nodes of an axis: one near the middle, the ends, and then by Leja's rule."""
    none, found = np.empty(0), np.array([_CENTRE, -1.0, 1.0])
    for _ in range(_NODES - 3):
        found = np.append(found, [x for x, _ in nodes.added(1, found, none, none)])
    return found
