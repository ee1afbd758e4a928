"""A rational map beside the pieces: tried where the result has peaks, on what is solved already."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from neumatc import rational
from neumatc.inspection import Inspector
from neumatc.linalg import real_rows
from neumatc.local import Rational
from neumatc.model import FactorMap
from neumatc.report import StopReason

# Samples of which some are so many times larger than usual are taken to lie beside poles.
_PEAK = 2.0
# Least samples, and how many times more there must be for another trial.
_LEAST, _GROWN = 12, 1.2
# All trials may take as many operations as the samples took: to solve, and the overhead of refinement for each. Another
# one begins where they have taken at most this part of it.
_OVERHEAD, _BEGUN = 3e6, 0.5
# Accuracy at the samples, in rounding units, of functions that are rational; and for others as a part of the tolerance,
# with at most this part of the samples as support points.
_UNITS, _PART, _MOST_SUPPORT = 1e4, 0.03, 0.6
# Accuracy at the samples with which a function is worth more samples.
_PROMISING = 1e-3
# Fresh parameters for the residual; and samples that are added to a promising function, as a part of those there are.
_FRESH, _ADDED = 32, 0.15
# Poles closer to the box than this, in half widths, the nearest first, are looked at from both sides, at these
# multiples of their distance.
_NEAR, _MOST_POLES, _BESIDE = 0.1, 48, np.array([-3.0, -1.0, -0.3, 0.3, 1.0, 3.0])
# Distance from the real axis, as a part of that from the ends of the box, below which a pole is in the box.
_INSIDE = 1e-6
# Beside poles in the box rounding ends all accuracy. Where a residual is above the tolerance only so close to them, in
# half widths, wider gaps are tried, as long as those of all poles are no more than this part of the box.
_CLOSE, _GAPS, _GAP_PART, _SIDES = 4e-6, (3e-6, 3e-5, 3e-4), 3e-3, np.array([-10.0, -3.0, -1.0, 1.0, 3.0, 10.0])
# Distance below which a point is at a pole itself.
_AT = 1e-10
# Size of a sample, relative to the usual one, times the rounding unit, from which on it is mostly rounding.
_ROUNDED = 1e-4


class Trial:
    """Rational functions through all that is solved, at most one for each growth of the samples.

    Args:
        inspector: Measures residuals; it knows the snapshots and the task.
    """

    def __init__(self, inspector: Inspector):
        self.inspector, self.snapshots, self.task = inspector, inspector.snapshots, inspector.task
        self.tried, self.spent = 0, 0.0  # samples of the last, and operations of all

    def due(self) -> bool:
        """Whether a trial is worth its price: one parameter, unique factors, peaks, and enough new samples."""
        task, box, operation = self.task, self.task.problem.family.box, self.task.problem.operation
        free = task.budget is None or not operation.residual_solves
        direct = operation.unique and not operation.finishes and free
        more = len(self.snapshots.x) >= max(_LEAST, _GROWN * self.tried) and self.spent <= _BEGUN * self._earned()
        if box.dimension > 1 or box.periodic[0] or not (direct and more):
            return False
        size = np.linalg.norm(self.snapshots.sketch()[:, 0], axis=1)
        return bool(size.max() > _PEAK * np.median(size))

    def _earned(self) -> float:
        """Return how many operations the samples took."""
        return (self.task.problem.work + _OVERHEAD) * len(self.snapshots.x)

    def _affords(self, operations: float) -> bool:
        """Enter what a step takes, and return whether the samples took as much; raise where the fit is to end.

        A step that is refused counts too, so that another trial waits until it can be paid.
        """
        self.task.check()
        self.spent += operations
        return self.spent <= self._earned()

    def promises(self) -> bool:
        """Whether of many problems each has a function of its own, as far as the first of them says."""
        return self._found() is not None

    def maps(self) -> list[FactorMap] | None:
        """Fit, check at fresh parameters and beside the poles, and add samples as long as that helps."""
        unit, best, last = torch.finfo(self.task.problem.family.dtype).eps, (np.inf,), np.inf
        while (found := self._found()) is not None:
            places, residuals = self._measured(found, self._places(found))
            worst = float(residuals.max())
            if found.goal <= _UNITS * unit or len(found.support) <= _MOST_SUPPORT * self.tried:
                if worst <= self.task.tol:
                    return self._built(found, residuals)
                gap, apart = self._gap(found, places, residuals)
                if gap < best[0] and self._gap(found, *self._measured(found, self._places(found)))[0] < np.inf:
                    best = gap, found, residuals[apart]
            if worst > last / 2 or not self._more(places, residuals):
                break
            last = worst
        return self._built(*best[1:], best[0]) if best[1:] else None

    def _gap(self, found: rational.Barycentric, places: np.ndarray, residuals: np.ndarray) -> tuple[float, np.ndarray]:
        """Return how far from its poles in the box a function meets the tolerance, Inf for not; which places are so."""
        inside = found.poles.real[_inside(found.poles)]
        apart = np.abs(places[:, None] - inside).min(axis=1, initial=np.inf) > _CLOSE
        if len(inside) and (residuals[apart] <= self.task.tol).all():
            for gap in _GAPS:
                beside = (inside[:, None] + gap * _SIDES).ravel()
                beside = beside[(np.abs(beside) < 1) & (np.abs(beside[:, None] - inside).min(axis=1) > 0.9 * gap)]
                if gap * len(inside) > _GAP_PART:
                    break
                if (self._measured(found, beside)[1] <= self.task.tol).all():
                    return gap, apart
        return np.inf, apart

    def _found(self) -> rational.Barycentric | None:
        """Return the function through the samples, of many problems through the first's; its support are their rows."""
        unit, self.tried = torch.finfo(self.task.problem.family.dtype).eps, len(self.snapshots.x)
        sketch = self.snapshots.sketch()[:, 0]
        size = np.linalg.norm(sketch, axis=1)
        kept = np.flatnonzero(size * unit < _ROUNDED * np.median(size))  # others are at a pole itself, and rounding
        goals = sorted([_UNITS * unit, _PART * self.task.tol, max(_PART * self.task.tol, _PROMISING)])
        found = rational.fit(self.snapshots.x[kept, 0], sketch[kept], *goals, afford=self._affords, unit=unit)
        return found and replace(found, support=kept[found.support])

    def _places(self, found: rational.Barycentric) -> np.ndarray:
        """Fresh places: uniform ones, some between neighbouring samples, and some beside the poles near the box.

        Samples are dense where X is hard, so a place between two of them counts at the scale of X there.
        """
        draw = self.inspector.generator
        x = np.sort(self.snapshots.x[:, 0])
        gap = draw.integers(0, len(x) - 1, _FRESH)
        between = x[gap] + draw.uniform(0.1, 0.9, _FRESH) * (x[gap + 1] - x[gap])
        nearest = np.clip(found.poles.real, -1, 1)
        away = np.abs(found.poles - nearest)
        close = np.argsort(away)[:_MOST_POLES]
        close = close[away[close] < _NEAR]
        # At a pole itself, in the box or at its end, there is nothing to compare.
        away = np.where(_inside(found.poles) | (away < _AT), _INSIDE, away)
        beside = nearest[close, None] + away[close, None] * _BESIDE * draw.uniform(0.8, 1.2, (len(close), len(_BESIDE)))
        beside = np.clip(beside, -1, 1)
        beside = beside[np.abs(beside - found.poles[close, None]) > _AT]
        return np.concatenate([draw.uniform(-1, 1, _FRESH), between, beside])

    def _measured(self, found: rational.Barycentric, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return places and the residuals there, where the family is defined."""
        p = self.task.box(torch.from_numpy(places)[:, None])
        x = self.task.place(p)
        embedding, weights = self._embedding(found)
        phi = embedding(x, weights)
        r = self.inspector.measured(p, lambda value: phi.to(value.real) @ real_rows(self._core(value, found)))
        good = ~np.isnan(r)
        return x[:, 0].numpy()[good], r[good]

    def _more(self, places: np.ndarray, residuals: np.ndarray) -> bool:
        """Solve where the residual is largest; whether that was possible."""
        count = min(max(3, int(_ADDED * len(self.snapshots.x))), len(places), self.task.left())
        worst = self.snapshots.rounded(0, places[np.argsort(-residuals)[:count]])[:, None]
        before = len(self.snapshots.x)
        if count > 0:
            self.snapshots.solve(worst)
        return len(self.snapshots.x) > before

    def _embedding(self, found: rational.Barycentric) -> tuple[Rational, dict[str, torch.Tensor]]:
        w = torch.from_numpy(np.stack([found.weights.real, found.weights.imag]))
        nodes = torch.from_numpy(self.snapshots.x[found.support, 0])
        return Rational(np.iscomplexobj(found.weights)), {"nodes": nodes, "w": w / w.abs().max()}

    def _built(self, found: rational.Barycentric, residuals: np.ndarray, gap: float = 0.0) -> list[FactorMap]:
        task, self.inspector.uniform = self.task, residuals
        task.report.stop_reason = StopReason.TOLERANCE
        task.note(f"X has poles near the box: a rational function through {len(found.support)} exact solutions")
        inside = np.sort(found.poles.real[_inside(found.poles)])
        if len(inside):
            at = ", ".join(f"{p:.6g}" for p in task.box(torch.from_numpy(inside[:, None]))[:, 0].tolist())
            task.note(f"X grows without bound at {task.problem.family.box.names[0]} = {at}")
        if gap:
            task.note(f"closer to such a place than {gap / 2:.1g} of the box the residual may be above the tolerance")
        return self.inspector.maps(*self._embedding(found), lambda value: self._core(value, found))

    def _core(self, value: torch.Tensor, found: rational.Barycentric) -> torch.Tensor:
        own = value[torch.from_numpy(found.support).to(value.device)]
        if not np.iscomplexobj(found.weights):
            return own
        # Of a real factor the real part of the function: its weights are those of complex factors too.
        return torch.cat([own, 1j * own if own.is_complex() else torch.zeros_like(own)])


def _inside(poles: np.ndarray) -> np.ndarray:
    """Mask of the poles in the box, up to rounding."""
    return (np.abs(poles.real) < 1) & (np.abs(poles.imag) < _INSIDE * (1 - np.abs(poles.real)))
