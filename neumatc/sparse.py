r"""One sparse polynomial basis for the whole box of several parameters: tried before pieces, for as long as it decays.

Indices :math:`\nu \in \mathbb{N}^d` form a set that holds with each all smaller ones. Each has one node
:math:`x_\nu = (t_{\nu_1}, \dots, t_{\nu_d})`, of one sequence t on every axis, and one function (`SparsePolynomials`)
that is zero at the nodes of all others but the larger ones. So an exact solution at a new node gives its coefficient,
the surplus: the error there of what was known before. The set grows where surpluses are large (Gerstner and Griebel,
Computing 71, 2003; Chkifa, Cohen and Schwab, Found. Comput. Math. 14, 2014).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch

from neumatc import nodes
from neumatc.embeddings import real_rows
from neumatc.inspection import Inspector
from neumatc.local import SparsePolynomials
from neumatc.model import FactorMap
from neumatc.report import StopReason, Unmet

# Parameters from which on pieces, of at least 3^d nodes, are dearer; and to which on an index fits an integer, at so
# many nodes per axis.
_LEAST, _MOST, _NODES = 3, 10, 64
# Most terms: each costs a multiply-add for each entry at every evaluation.
_MOST_TERMS = 2048
# Part of its square sum by which a surplus may be foreseen from the one before the last: every other one of an even or
# odd function is zero.
_BEFORE = 0.5
# Of the square sum of the surpluses foreseen, the part that is solved at once, and the least growth of the set.
_BULK, _GROWTH = 0.5, 10
# Fresh parameters for a look; how far above the goal the surpluses foreseen may be for one, by the last look; and the
# part of the tolerance that the residual there may have.
_FRESH, _LOOK, _MARGIN = 32, 3.0, 0.8


class Trial:
    """Sparse interpolation; for an `Inspector` one piece, which is the box.

    Args:
        inspector: Measures residuals; it knows the snapshots and the task.
        most: Most exact solves.
    """

    def __init__(self, inspector: Inspector, most: int):
        self.inspector, self.snapshots, self.task = inspector, inspector.snapshots, inspector.task
        self.d = self.task.problem.family.dimension
        self.low, self.high = -np.ones(self.d), np.ones(self.d)
        self.most, self.terms = most, min(self.task.rank or _MOST_TERMS, _MOST_TERMS)
        self.axes = [self.snapshots.rounded(i, _sequence()) for i in range(self.d)]
        self.indices, self.rows = np.empty((0, self.d), int), np.empty(0, int)
        self.own = np.empty((0, 0))  # each function at each node, lower triangular
        self.history: list[tuple[int, float]] = []

    def due(self) -> bool:
        """Whether a trial is worth its price."""
        family = self.task.problem.family
        return _LEAST <= self.d <= _MOST and family.grid is None and self.terms >= 1 + 2 * self.d

    def maps(self) -> list[FactorMap] | None:
        """Add indices until fresh parameters pass; None where pieces are to take over."""
        ratio = np.inf
        new = np.concatenate([np.zeros((1, self.d), int), np.eye(self.d, dtype=int), 2 * np.eye(self.d, dtype=int)])
        while self._added(new):
            ahead, foreseen = self._ahead()
            tail = float(np.linalg.norm(foreseen))
            self.history.append((len(self.rows), tail))
            if ratio * tail <= _LOOK * self.task.tol or np.isinf(ratio):
                worst = self._looked()
                if worst <= self.task.tol:
                    return self._built(True)
                ratio = worst / max(tail, np.finfo(float).tiny)
            if self._slow():
                return None
            order = np.argsort(-foreseen, kind="stable")
            bulk = np.searchsorted(np.cumsum(foreseen[order] ** 2), _BULK * tail**2) + 1
            new = ahead[order[: max(bulk, len(self.rows) // _GROWTH)]]
        return None

    def basis(self, x: np.ndarray) -> np.ndarray:
        """Functions that are one at their own node and zero at the others, at points x (B, d), shape (B, terms)."""
        phi = np.prod([_hierarchical(own, x[:, i])[:, self.indices[:, i]] for i, own in enumerate(self.axes)], axis=0)
        return scipy.linalg.solve_triangular(self.own, phi.T, trans="T", lower=True, unit_diagonal=True).T

    def _added(self, new: np.ndarray) -> bool:
        """Solve at the nodes of indices (n, d) and add them; whether that was possible."""
        new = new[: max(0, min(self.terms - len(self.rows), self.most - self.task.report.exact_solves))]
        x = np.stack([own[k] for own, k in zip(self.axes, new.T)], axis=1)
        rows = self.snapshots.solve(x) if len(new) else np.array([-1])
        if (rows < 0).any():
            return False
        before, self.indices = len(self.rows), np.concatenate([self.indices, new])
        phi = [_hierarchical(own, x[:, i])[:, self.indices[:, i]] for i, own in enumerate(self.axes)]
        self.own = np.vstack([np.pad(self.own, ((0, 0), (0, len(new)))), np.prod(phi, axis=0)])
        self.rows = np.append(self.rows, rows)
        return before < len(self.rows)

    def _ahead(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices that may come next, shape (n, d), and the sizes of their surpluses foreseen.

        That is the geometric mean over the axes of the size one step back, or a part of that two steps back.
        """
        values = self.snapshots.sketch()[self.rows]
        surpluses = scipy.linalg.solve_triangular(self.own, values, lower=True, unit_diagonal=True)
        scale = max(float(np.median(np.linalg.norm(values, axis=1))), np.finfo(float).tiny)
        sizes = np.linalg.norm(surpluses, axis=1) / scale
        base = _NODES ** np.arange(self.d)
        order = np.argsort(self.indices @ base)
        keys = (self.indices @ base)[order]
        ahead = np.unique((self.indices[:, None] + np.eye(self.d, dtype=int)).reshape(-1, self.d), axis=0)
        ahead = ahead[~np.isin(ahead @ base, keys) & (ahead < list(map(len, self.axes))).all(axis=1)]
        back = []
        for step in (1, 2):
            wanted = (ahead @ base)[:, None] - step * base
            at = order[np.searchsorted(keys, wanted).clip(0, len(keys) - 1)]
            back.append(np.where((ahead >= step) & (self.indices[at] @ base == wanted), sizes[at], -1.0))
        known = ((back[0] >= 0) | (ahead == 0)).all(axis=1)
        logs = np.log(np.maximum(np.maximum(back[0], _BEFORE * back[1]), np.finfo(float).tiny))
        return ahead[known], np.exp(np.where(ahead > 0, logs, 0).sum(axis=1) / (ahead > 0).sum(axis=1))[known]

    def _looked(self) -> float:
        """Return the largest residual at a few fresh parameters, and where that passes at many."""
        places = self.inspector.generator.uniform(-1, 1, (_FRESH, self.d))
        worst = float(max(self.inspector.residuals([self], [places])[0], default=np.inf)) / _MARGIN
        return worst if worst > self.task.tol else self.inspector.in_box([self]).get(self, np.inf)

    def _slow(self) -> bool:
        return False

    def _built(self, met: bool) -> list[FactorMap]:
        task, report, device = self.task, self.task.report, self.task.problem.family.device
        used = self.indices.max() + 1
        axes = np.stack([np.pad(own[:used], (0, max(0, used - len(own)))) for own in self.axes])
        delta = np.tril(axes[:, :, None] - axes[:, None, :], -1) + np.triu(np.ones((used, used)))
        weights = {"nodes": axes, "scale": 1 / delta.prod(axis=2), "indices": self.indices}
        weights = {name: torch.from_numpy(weight).to(device) for name, weight in weights.items()}
        own, rows, maps = torch.from_numpy(self.own).to(device), torch.from_numpy(self.rows).to(device), []
        for factor, value in zip(task.problem.factors, self.snapshots.values()):
            columns = real_rows(value[rows])
            core = torch.linalg.solve_triangular(own, columns.double(), upper=False, unitriangular=True)
            core = core.to(columns.dtype)
            core = torch.view_as_complex(core.view(len(rows), *value.shape[1:], 2)) if value.is_complex() else core
            maps.append(FactorMap(factor.name, core.view(len(rows), *value.shape[1:]), SparsePolynomials(), weights))
        report.rank, report.collocation = max(m.rank for m in maps), self.snapshots.solved
        report.met, report.stop_reason = met, StopReason.TOLERANCE
        self.inspector.summary()
        task.note(f"X is smooth in the whole box: one sparse polynomial of {len(rows)} terms")
        return maps


def _sequence() -> np.ndarray:
    """Return the nodes of an axis, the middle first: each set begins as a star, and none leans to one side."""
    found = nodes.extended(np.empty(0), 3, np.empty(0), np.empty(0))
    while len(found) < _NODES:
        found = nodes.extended(np.array(found), len(found) + 1, np.empty(0), np.empty(0))
    return np.array([*sorted(found[:3], key=abs), *found[3:]])


def _hierarchical(axis: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the functions of one axis at x (B,), shape (B, nodes)."""
    products = np.cumprod(x[:, None] - axis[:-1], axis=1)
    own = np.array([np.prod(axis[k] - axis[:k]) for k in range(1, len(axis))])
    return np.concatenate([np.ones((len(x), 1)), products / own], axis=1)
