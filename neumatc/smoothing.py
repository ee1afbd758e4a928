"""Noisy samples of one parameter or on a grid: splines by least squares, shrunk as far as the noise makes it pay."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.sparse import csr_array

from neumatc import checks
from neumatc.segments import FEWEST, Line, variance
from neumatc.shrinkage import TOGETHER, Basis, shrunk

# Random combinations of the entries by which terms and jumps are chosen.
_COMBINATIONS = 64
# Terms of the splines that are shrunk, in times those of least risk without.
_MORE = 1.5
# Standard deviations of its estimate from which on something is left out.
_SURE = 2
# In rounding errors: how far Hermitian matrices may be from that.
_ROUNDING = 8
# Jumps and gaps that are named.
_NAMED = 3


class Smoothing:
    r"""Noisy m x n matrices at distinct points of the unit interval, or on a grid of such points.

    Y = F + E with independent errors of mean zero. F is estimated by cubic splines, on a grid by products of splines of
    each axis, in three steps.

    1. Each axis is taken by itself, with all other samples as columns: where do values jump (`neumatc.segments`), and
       how many terms have least risk by Mallows' estimate? Where more terms pay up to the last, it is all of them.
    2. Between jumps, half as many terms again are fitted by least squares, the same to all entries.
    3. Their coordinates are shrunk in blocks (`neumatc.shrinkage`), rough ones and those of weak entries more than
       others. So each entry gets as many terms as it deserves: by columns (the users of an uplink), by rows, by entries
       or all together, whichever has the least estimated risk.

    The noise is given, or estimated from differences of neighbouring samples; for a long part between jumps from its
    own. What changes from sample to sample as noise does counts as noise. Between the two samples at a jump nothing is
    known: each side is continued to the middle. Axes of fewer than 12 points are not searched for jumps.

    Args:
        axes: Points of each axis, d of shape (N_i,), in any order.
        values: The samples, real or complex, shape (N_1, ..., N_d, m, n). Where all are Hermitian or symmetric, so is
            what comes out.
        noise: Variance of an entry (of complex ones that of real and imaginary part together): a number, or shape
            (m, n); None to estimate one for all entries.
        places: The points in the units of the parameters, for texts.
        missing: How many more samples there were, that were left out.

    Attributes:
        noise: The variance, as used; the mean over the entries, and over all parts where it was estimated.
        estimated: Whether it was.
        kept: Terms that entries keep, shape (m, n): the sum of the factors of shrinking, of all parts together.
        terms: Their mean.
        floor: Standard deviation of the error that is left in each entry, estimated, shape (m, n).
        left: Its root mean square.
        scatter: Standard deviation that the differences tell, in units of the one given: 1 where that is right; NaN
            where no axis has ten samples, or none was given.
        size: Root mean square of an entry.
        lines: What was found on each axis, a list of `neumatc.segments.Line`.
        jumps, gaps: Pairs of neighbouring places between which values jump, or which are more than 1.5 times the usual
            spacing apart, of one axis after the other.
    """

    def __init__(
        self,
        axes: Sequence[np.ndarray],
        values: np.ndarray,
        noise: float | np.ndarray | None,
        places: Sequence[np.ndarray],
        missing: int = 0,
    ):
        orders = [np.argsort(x) for x in axes]
        self.counts, self.missing, self.estimated = values.shape[:-2], missing, noise is None
        self._shape, self._complex = values.shape[-2:], np.iscomplexobj(values)
        parts = 2 if self._complex else 1
        Y = np.ascontiguousarray(values[np.ix_(*orders)], complex if self._complex else float)
        Y = Y.view(float).reshape(*values.shape, parts)
        # All is in units of the noise, as far as it is known: of variance v = 1, or still to be estimated.
        unit = np.broadcast_to(1.0 if noise is None else np.asarray(noise) / parts, self._shape)
        scale = np.broadcast_to(unit[..., None] ** 0.5, (*self._shape, parts)).ravel()
        sketch = _combined(Y.reshape(-1, scale.size), scale).reshape(*self.counts, -1)
        columns = [_combined(np.moveaxis(sketch, i, 0).reshape(len(own), -1)) for i, own in enumerate(axes)]
        x = [x[order] for x, order in zip(axes, orders)]
        told = [variance(own, Z) if len(own) >= FEWEST else np.nan for own, Z in zip(x, columns)]
        known = [own for own in told if not np.isnan(own)]
        v = min(known) if noise is None else 1.0
        self.scatter = np.nan if noise is None or not known else min(known) ** 0.5
        # Along an axis on which values change as fast as noise does, segments tell only by how much theirs differs.
        part_of = [v / own if noise is None and own > 0 else 0.0 for own in told]
        places = [place[order] for place, order in zip(places, orders)]
        self.lines = [Line(own, Z, v, *more) for own, Z, *more in zip(x, columns, part_of, places)]
        self.jumps, self.gaps = [[pair for line in self.lines for pair in getattr(line, k)] for k in ("jumps", "gaps")]
        kinds, self._parts = _kinds(values), {}
        for number in np.ndindex(*(len(line.segments) for line in self.lines)):
            chosen = [(line.x, line.ends[k], line.segments[k]) for k, line in zip(number, self.lines)]
            level = unit * v * np.prod([segment.noise / v if v > 0 else 1.0 for *_, segment in chosen])
            bases = [Basis(own[end], _more(segment.terms, len(own[end]))) for own, end, segment in chosen]
            self._parts[number] = _Part(bases, Y[tuple(end for _, end, _ in chosen)], level, kinds)
        found = list(self._parts.values())
        share = np.array([part.count for part in found]) / np.prod(self.counts)
        self.noise = parts * float(share @ [part.noise.mean() for part in found])
        self.kept = sum(part.kept for part in found)
        self.floor = (parts * np.tensordot(share, [part.risk for part in found], 1)) ** 0.5
        self.terms, self.left = float(self.kept.mean()), _root(np.mean(self.floor**2))
        self.size, self.together = _root(parts * np.mean(Y**2)), {part.together for part in found}

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """Evaluate at points y (B, d), shape (B, m, n)."""
        own = np.stack([np.searchsorted(line.middles, at) for line, at in zip(self.lines, y.T)], axis=1)
        found = np.empty((len(y), *self._shape, 2 if self._complex else 1))
        for number, part in self._parts.items():
            if (here := (own == number).all(axis=1)).any():
                found[here] = part(y[here]).reshape(-1, *found.shape[1:])
        return (found.view(complex) if self._complex else found)[..., 0]

    def __str__(self) -> str:
        lost = f" ({self.missing} more were missing and left out)" if self.missing else ""
        size = self.size or 1.0
        known = "estimated" if self.estimated else "given"
        known += "" if np.isnan(self.scatter) else f"; neighbours differ as by {self.scatter:.2g} of it"
        apart, ends = " and ".join(sorted(self.together - {""})), [f"{f(self.kept):.3g}" for f in (np.min, np.max)]
        range_ = f" ({' to '.join(ends)} by {apart})" if ends[0] != ends[1] else ""
        said = f"{' x '.join(map(str, self.counts))} noisy ones{lost} in {self.terms:.3g} terms{range_}; noise of "
        said += f"{_root(self.noise) / size:.1e} of A ({known}) leaves {self.left / size:.1e} once they are smoothed"
        for i, line in enumerate(self.lines):
            along = f" along axis {i + 1}" if len(self.lines) > 1 else ""
            for name, pairs in (("jumps", line.jumps), ("gaps", line.gaps)):
                if pairs:
                    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
                    said += f"; {name}{along} at {', '.join(f'{a:.6g} to {b:.6g}' for a, b in pairs[:_NAMED])}{more}"
        return said


class _Part:
    """Shrunk splines of the samples (n_1, ..., n_d, m, n, parts) between jumps.

    Args:
        bases: Of each axis.
        Y: The samples.
        noise: Variance of each number, shape (m, n).
        kinds: What may be shrunk together.
    """

    def __init__(self, bases: Sequence[Basis], Y: np.ndarray, noise: np.ndarray, kinds: Sequence[str]):
        self.bases, self.noise = bases, noise
        samples, parts = tuple(range(len(bases))), Y.shape[-1]
        self.count, terms = (int(np.prod(own)) for own in (Y.shape[: len(bases)], [b.terms for b in bases]))
        Z = _applied([basis.coordinates for basis in bases], Y)
        found = shrunk(Z, noise, kinds)
        X = Z * found.factors[..., None]
        C = _applied([basis.coefficients for basis in bases], X)
        fitted = _applied([basis.at(basis.x).__matmul__ for basis in bases], C)
        # What the splines leave out: of what is missed without what shrinking has taken away, more than noise would be.
        missed, taken = (np.square(a - b).sum(axis=(*samples, -1)) for a, b in ((Y, fitted), (Z, X)))
        free, group = (self.count - terms) * parts, TOGETHER[found.together]
        left_out = (np.maximum(missed - taken, 0) - free * noise).mean(axis=group, keepdims=True)
        spread = noise * (2 * free * left_out.size / noise.size) ** 0.5
        left_out = np.where(left_out > _SURE * spread, left_out, 0)
        least = parts * noise * np.square(found.factors).sum(axis=samples)
        self.risk = np.maximum(left_out + noise * found.risk, least) / (self.count * parts)
        self.kept = np.broadcast_to(found.factors.sum(axis=samples), noise.shape)
        self.together, self._C = found.together, C.reshape(terms, -1)

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """Evaluate at points y (B, d), shape (B, m * n * parts)."""
        index, weights = np.zeros((len(y), 1), int), np.ones((len(y), 1))
        for basis, at in zip(self.bases, y.T):
            B = basis.at(np.ascontiguousarray(at))
            number, value = (a.reshape(len(y), 1, -1) for a in (B.indices, B.data))
            index = (index[:, :, None] * basis.terms + number).reshape(len(y), -1)
            weights = (weights[:, :, None] * value).reshape(len(y), -1)
        rows = np.arange(len(y) + 1) * index.shape[1]
        return csr_array((weights.ravel(), index.ravel(), rows), shape=(len(y), len(self._C))) @ self._C


def _applied(functions: Sequence[Callable[[np.ndarray], np.ndarray]], Y: np.ndarray) -> np.ndarray:
    """Apply a function (n, M) -> (n', M) along each of the first axes."""
    for i, function in enumerate(functions):
        Z = np.moveaxis(Y, i, 0)
        found = function(np.ascontiguousarray(Z).reshape(len(Z), -1))
        Y = np.moveaxis(found.reshape(len(found), *Z.shape[1:]), 0, i)
    return Y


def _combined(Y: np.ndarray, units: np.ndarray | float = 1.0) -> np.ndarray:
    """Return few random combinations of the columns of Y (N, M) in their units, of the variance of one."""
    if Y.shape[1] <= _COMBINATIONS:
        return Y / units
    signs = 2.0 * np.random.default_rng(0).integers(0, 2, Y.shape[1]) - 1
    starts = np.arange(_COMBINATIONS) * Y.shape[1] // _COMBINATIONS
    counts = np.diff([*starts, Y.shape[1]])
    return np.add.reduceat(Y * (signs / units), starts, axis=1) / counts**0.5


def _more(terms: int, count: int) -> int:
    """Return how many terms are shrunk, so that the samples determine them well."""
    found = int(np.ceil(_MORE * terms))
    return found if 2 * found <= count else count


def _kinds(A: np.ndarray) -> Sequence[str]:
    """Return what may be shrunk together so that matrices that are Hermitian or symmetric stay so."""
    other = np.swapaxes(A, -1, -2) if A.shape[-1] == A.shape[-2] else None
    units = 0 if other is None else _ROUNDING * np.finfo(A.dtype).eps * np.abs(A).max()
    same = other is not None and any(np.abs(A - B).max() <= units for B in (other, other.conj()))
    return ("", "entry") if same else tuple(TOGETHER)


def _root(value: float) -> float:
    return float(max(value, 0.0) ** 0.5)


def level(noise: object, counts: Sequence[int], shape: Sequence[int]) -> float | np.ndarray | None:
    """Return the variances of noise that a caller gave, 0 for none, None where to estimate it.

    Args:
        noise: What was given.
        counts: The samples of each axis.
        shape: Of a matrix, to which the variances broadcast.
    """
    if noise is None:
        return 0.0
    shown, text, remedy = checks.shown(noise), isinstance(noise, str), "give E|e|^2 of an entry"
    checks.require(not text or noise == "estimate", "noise", "'estimate', variances, or None", shown, remedy)
    if text:
        enough, remedy = max(counts) >= FEWEST, "give the variance"
        checks.require(enough, "noise", f"a variance for fewer than {FEWEST} samples", "'estimate'", remedy)
        return None
    noise = noise.numpy(force=True) if isinstance(noise, torch.Tensor) else noise
    if not isinstance(noise, (list, tuple)) and getattr(noise, "ndim", 0) == 0:
        return checks.number("noise", noise, at_least=0.0)
    found = checks.numbers("noise", noise, torch.device("cpu")).double().numpy()
    good, remedy = _broadcasts(found.shape, shape), "give one for each column, (n,), each row, (m, 1), or each entry"
    checks.require(good, "noise", f"variances that broadcast to {tuple(shape)}", f"shape {found.shape}", remedy)
    good, expected = bool((np.isfinite(found) & (found >= 0)).all()), "finite variances that are not negative"
    checks.require(good, "noise", expected, shown, "give E|e|^2 of each entry")
    none, remedy = (found == 0).all(), "smooth the others, and put them beside those with `nm.families.beside`"
    checks.require(none or (found > 0).all(), "noise", "variances above zero, or none", "some of both", remedy)
    return 0.0 if none else np.broadcast_to(found, shape)


def _broadcasts(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether a shape broadcasts to another."""
    return len(one) <= len(other) and all(a in (1, b) for a, b in zip(one[::-1], other[::-1]))
