"""Noisy samples of one parameter: cubic splines by least squares, with as many terms as the noise lets them have."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.interpolate import BSpline, make_interp_spline, make_lsq_spline
from scipy.stats import chi2

from neumatc import checks

# Orders of the differences from which noise is estimated: of smooth data the higher ones leave noise alone.
_ORDERS = range(2, 9)
# Fewest samples from which noise is estimated, and of a piece that has a noise of its own.
FEWEST, _OWN = 10, 32
# Random combinations of the entries by which terms and jumps are chosen.
_COMBINATIONS = 64
# Samples on each side that are continued by a line to look for a jump; a difference is one where noise makes it less
# often than this over all places, and where it is that many times the usual one beside it.
_SIDES, _RARE, _UNUSUAL = (3, 4, 8), 1e-4, 4.0
# Factor from one number of terms to the next, and that of the risk, and of terms, at which the search ends.
_FINER, _WORSE, _FURTHER = 1.2, 1.5, 4
# Spacings of the usual size from which on there is a gap.
_GAP = 1.5
# Jumps and gaps that are named.
_NAMED = 3


class Smoothing:
    r"""Noisy values (N, M) at distinct points x (N, 1) of the unit interval, smoothed column by column.

    Y = F + E with independent errors of mean zero and variance v. F is estimated by cubic splines of t terms, by least
    squares, whose knots have equally many samples between them. t minimises Mallows' unbiased estimate of the risk,

    .. math:: \frac{1}{N M} \|Y - \hat F_t\|_F^2 + \frac{2 t v}{N} - v,

    which is about the variance t v / N where the terms resolve F. Where more terms pay up to the last, the samples are
    interpolated. v is given, or the least of the medians of squared differences of orders 2 to 8 (divided differences,
    scaled to unit norm), each over the median that noise has (Gaussian errors); for a long piece of its own samples.
    What changes from sample to sample as noise does counts as noise.

    Pieces are smoothed by themselves where values jump: lines through the samples on both sides of a place differ by
    more than noise lets them, and by more than such lines do beside it, and two pieces have less risk than one.
    Between the two samples at a jump nothing is known: each side is continued to the middle.

    Args:
        x, values: The samples, values real or complex.
        noise: v for an entry (of complex ones that of real and imaginary part together), or None to estimate it.
        places: The points in the units of the parameter, shape (N,), for texts.
        missing: How many more samples there were, that were left out.

    Attributes:
        noise: v, as used; the mean over the pieces where it was estimated.
        estimated: Whether it was.
        terms: Terms of all pieces together.
        left: Square root of the estimated risk of an entry (its variance, where that is more).
        scatter: Standard deviation that the differences tell, in units of the one given: 1 where that is right; NaN for
            fewer than ten samples, or none given.
        size: Root mean square of an entry.
        jumps, gaps: Pairs of neighbouring places between which values jump, or which are more than 1.5 times the usual
            spacing apart.

    Source: C. L. Mallows, Technometrics 15 (1973) 661.
    """

    def __init__(self, x: np.ndarray, values: np.ndarray, noise: float | None, places: np.ndarray, missing: int = 0):
        order = np.argsort(x[:, 0])
        self.x, self.places, self.missing, self.estimated = x[order, 0], places[order], missing, noise is None
        self._complex = np.iscomplexobj(values)
        Y = np.ascontiguousarray(values[order].astype(complex if self._complex else float)).view(float)
        parts = 2 if self._complex else 1
        sketch, count = _combined(Y), len(self.x)
        told = variance(self.x, sketch) if count >= FEWEST else np.nan
        v = told if noise is None else noise / parts
        self.scatter = np.nan if noise is None else float((told / v) ** 0.5)
        cuts = _jumps(self.x, sketch, v)
        found = [_Piece(self.x[i:j], sketch[i:j], v, self.estimated) for i, j in pairwise([0, *cuts, count])]
        while joined := _joined(self.x, sketch, v, self.estimated, cuts, found):
            cuts, found = joined
        ends = list(pairwise([0, *cuts, count]))
        self._splines = [_spline(self.x[i:j], Y[i:j], piece.terms) for (i, j), piece in zip(ends, found)]
        self._cuts = np.array([(self.x[k - 1] + self.x[k]) / 2 for k in cuts])
        counts, terms = (np.array(a) for a in zip(*((j - i, piece.terms) for (i, j), piece in zip(ends, found))))
        own = np.array([piece.noise for piece in found])
        rest = np.array([np.mean((s(self.x[i:j]) - Y[i:j]) ** 2) for (i, j), s in zip(ends, self._splines)])
        risk = np.maximum(rest + (2 * terms / counts - 1) * own, terms / counts * own)
        usual = counts / count
        self.noise, self.terms, self.size = parts * float(usual @ own), int(terms.sum()), _root(parts * np.mean(Y**2))
        self.left = _root(parts * usual @ risk)
        self.jumps = [(float(self.places[k - 1]), float(self.places[k])) for k in cuts]
        steps = np.diff(self.x)
        self.gaps = [tuple(self.places[k : k + 2].tolist()) for k in np.flatnonzero(steps > _GAP * np.median(steps))]

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """Evaluate at points y (B, 1)."""
        own = np.searchsorted(self._cuts, y[:, 0])
        found = np.empty((len(y), self._splines[0].c.shape[1]))
        for k in np.unique(own):
            found[own == k] = self._splines[k](y[own == k, 0])
        return found.view(complex) if self._complex else found

    def __str__(self) -> str:
        lost = f" ({self.missing} more were missing and left out)" if self.missing else ""
        size = self.size or 1.0
        known = "estimated" if self.estimated else "given"
        known += "" if np.isnan(self.scatter) else f"; neighbours differ as by {self.scatter:.2g} of it"
        said = f"{len(self.x)} noisy ones{lost} in {self.terms} terms; noise of {_root(self.noise) / size:.1e} of A ("
        said += f"{known}) leaves {self.left / size:.1e} once they are smoothed"
        for name, pairs in (("jumps", self.jumps), ("gaps", self.gaps)):
            if pairs:
                more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
                said += f"; {name} at {', '.join(f'{a:.6g} to {b:.6g}' for a, b in pairs[:_NAMED])}{more}"
        return said


class _Piece:
    """The terms that noisy values (N, s) deserve, their noise, and the risk over all of them.

    Args:
        x, Y: The samples.
        v: Variance of an entry.
        own: Whether to estimate that from these samples, if there are enough.
    """

    def __init__(self, x: np.ndarray, Y: np.ndarray, v: float, own: bool):
        self.noise = variance(x, Y) if own and len(x) >= _OWN else v
        count, least = len(x), np.inf
        for terms in _numbers(count):
            rest = np.mean((_spline(x, Y, terms)(x) - Y) ** 2) if terms < count else 0.0
            risk = rest + 2 * terms / count * self.noise
            if risk < least:
                least, self.terms = risk, terms
            elif risk > _WORSE * least and terms > _FURTHER * self.terms:
                break
        # In units of the noise, which may differ from piece to piece.
        self.risk = count * (least / self.noise if self.noise > 0 else 2.0)


def variance(x: np.ndarray, Y: np.ndarray) -> float:
    """Estimate the variance of the noise of values (N, s) at rising points x (N,)."""
    found = []
    for q in (q for q in _ORDERS if len(x) >= q + FEWEST - _ORDERS[0]):
        rows = np.arange(len(x) - q)[:, None] + np.arange(q + 1)
        at = (x[rows] - x[rows[:, :1]]) / (x[rows[:, -1:]] - x[rows[:, :1]])
        gaps = at[:, :, None] - at[:, None] + np.eye(q + 1)
        weights = 1 / gaps.prod(axis=2)
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        squares = np.square(np.einsum("iq,iqs->is", weights, Y[rows])).sum(axis=1)
        found.append(np.median(squares) / chi2.median(Y.shape[1]))
    return float(min(found))


def _spline(x: np.ndarray, Y: np.ndarray, terms: int) -> BSpline:
    """Return the cubic spline (a polynomial of lower degree for fewer terms) of so many terms nearest to the values."""
    degree = min(3, terms - 1)
    if terms == len(x):
        return make_interp_spline(x, Y, k=degree)
    inner = np.quantile(x, np.linspace(0, 1, terms - degree + 1)[1:-1])
    return make_lsq_spline(x, Y, np.concatenate([[x[0]] * (degree + 1), inner, [x[-1]] * (degree + 1)]), k=degree)


def _numbers(count: int) -> list[int]:
    """Return numbers of terms, rising, up to the number of samples."""
    found = [min(count, 1)]
    while found[-1] < count:
        found.append(min(count, max(found[-1] + 1, round(_FINER * found[-1]))))
    return found


def _combined(Y: np.ndarray) -> np.ndarray:
    """Return random combinations of many columns, each with the variance of an entry."""
    if Y.shape[1] <= _COMBINATIONS:
        return Y
    signs = np.random.default_rng(0).integers(0, 2, (Y.shape[1], _COMBINATIONS))
    return Y @ ((2.0 * signs - 1) / Y.shape[1] ** 0.5)


def _jumps(x: np.ndarray, Y: np.ndarray, v: float) -> list[int]:
    """Return numbers of the samples before which values seem to jump."""
    found = np.zeros(len(x))
    for w in (w for w in _SIDES if len(x) >= 4 * w):
        k = np.arange(w, len(x) - w + 1)
        middle, sides = (x[k - 1] + x[k]) / 2, [k[:, None] + np.arange(-w, 0), k[:, None] + np.arange(w)]
        lines = []
        for rows in sides:
            at = x[rows] - middle[:, None]
            mean = at.mean(axis=1, keepdims=True)
            rise = (at - mean) / np.square(at - mean).sum(axis=1, keepdims=True)
            lines.append((rows, 1 / w - mean * rise, rise))
        ends, rises = ([np.einsum("iw,iws->is", line[part], Y[line[0]]) for line in lines] for part in (1, 2))
        difference = np.square(ends[0] - ends[1]).sum(axis=1)
        usual = (x[k] - x[k - 1]) ** 2 * np.maximum(*(np.square(rise).sum(axis=1) for rise in rises))
        steps = difference / sum(np.square(line[1]).sum(axis=1) for line in lines)
        steep = difference > _UNUSUAL * usual
        for i, step in enumerate(steps):
            near, beside = steps[max(0, i - w + 1) : i + w], [steps[max(0, i - 3 * w) : max(0, i - w + 1)]]
            beside = np.concatenate([*beside, steps[i + w : i + 3 * w + 1]])
            if steep[i] and step == near.max() and step > _UNUSUAL * np.median(beside):
                found[k[i]] = max(found[k[i]], step)
    return np.flatnonzero(found > v * chi2.isf(_RARE / len(x), Y.shape[1])).tolist()


def _joined(
    x: np.ndarray, Y: np.ndarray, v: float, own: bool, cuts: list[int], pieces: list[_Piece]
) -> tuple[list[int], list[_Piece]] | None:
    """Join the first two neighbours that have less risk as one; None where there are none."""
    for i, (low, high) in enumerate(zip([0, *cuts], [*cuts[1:], len(x)])):
        if not cuts:
            break
        one = _Piece(x[low:high], Y[low:high], v, own)
        if one.risk <= pieces[i].risk + pieces[i + 1].risk:
            return cuts[:i] + cuts[i + 1 :], [*pieces[:i], one, *pieces[i + 2 :]]
    return None


def _root(value: float) -> float:
    return float(max(value, 0.0) ** 0.5)


def level(noise: object, count: int, dimension: int) -> float | None:
    """Return the variance of noise that a caller gave for so many samples: 0 for none, None where to estimate it."""
    if noise is None:
        return 0.0
    expected, got = "'estimate', a variance that is not negative, or None", checks.shown(noise)
    checks.require(noise == "estimate" or not isinstance(noise, str), "noise", expected, got, "give E|e|^2 of an entry")
    found = None if isinstance(noise, str) else checks.number("noise", noise, at_least=0.0)
    if found != 0:
        remedy = "fix the others, or leave the noise out to interpolate"
        checks.require(dimension == 1, "noise", "None, or samples of one parameter", f"{dimension} parameters", remedy)
    enough, remedy = found is not None or count >= FEWEST, "give the variance"
    checks.require(enough, "noise", f"a variance for fewer than {FEWEST} samples", "'estimate'", remedy)
    return found
