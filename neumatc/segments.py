"""Noisy values along one axis: where they jump, how much noise they have, and how many terms each part deserves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.interpolate import BSpline, make_interp_spline, make_lsq_spline
from scipy.stats import chi2

# Orders of the differences from which noise is estimated: of smooth data the higher ones leave noise alone.
_ORDERS = range(2, 9)
# Fewest samples from which noise is estimated, and of a segment that has a noise of its own.
FEWEST, _OWN = 10, 32
# Samples on each side that are continued by a line to look for a jump; a difference is one where noise makes it less
# often than this over all places, and where it is that many times the usual one beside it.
_SIDES, _RARE, _UNUSUAL = (3, 4, 8), 1e-4, 4.0
# Factor from one number of terms to the next, and that of the risk, and of terms, at which the search ends.
_FINER, _WORSE, _FURTHER = 1.2, 1.5, 4
# Spacings of the usual size from which on there is a gap.
_GAP = 1.5


class Line:
    """Values (N, s) at rising points x (N,) of an axis, divided where they jump.

    Segments are taken by themselves where lines through the samples on both sides of a place differ by more than noise
    lets them, and by more than such lines do beside it, and two segments have less risk than one.

    Args:
        x, Y: The samples; the columns have noise of the same variance.
        v: That variance.
        own: Factor of the variance that a segment's own samples tell (`variance`), to which v is set in those that are
            long enough; 0 to leave it.
        places: The points in the units of the parameter, shape (N,).

    Attributes:
        x: As given.
        segments: What is known of each, a list of `Segment`.
        ends: Slices of the samples, one for each.
        middles: Where one ends and the next begins, in the units of x.
        jumps, gaps: Pairs of neighbouring places between which values jump, or which are more than 1.5 times the usual
            spacing apart.
    """

    def __init__(self, x: np.ndarray, Y: np.ndarray, v: float, own: float, places: np.ndarray):
        self.x, cuts = x, _jumps(x, Y, v)
        found = [Segment(x[i:j], Y[i:j], v, own) for i, j in pairwise([0, *cuts, len(x)])]
        while joined := _joined(x, Y, v, own, cuts, found):
            cuts, found = joined
        self.segments, self.ends = found, [slice(i, j) for i, j in pairwise([0, *cuts, len(x)])]
        self.middles = np.array([(x[k - 1] + x[k]) / 2 for k in cuts])
        steps = np.diff(x)
        wide = np.flatnonzero(steps > _GAP * np.median(steps)) + 1
        self.jumps, self.gaps = ([tuple(places[k - 1 : k + 1].tolist()) for k in ks] for ks in (cuts, wide))


class Segment:
    r"""The terms that noisy values (N, s) deserve, their noise, and the risk over all of them.

    Cubic splines of t terms by least squares have equally many samples between their knots. The best t minimises
    Mallows' unbiased estimate of the risk,

    .. math:: \frac{1}{N s} \|Y - \hat F_t\|_F^2 + \frac{2 t v}{N} - v,

    which is about the variance t v / N where the terms resolve what is measured.

    Args:
        x, Y: The samples.
        v: Variance of an entry.
        own: As of `Line`.

    Attributes:
        noise: v, as used.
        terms: The best t.
        risk: That of all samples, in units of the noise.

    Source: C. L. Mallows, Technometrics 15 (1973) 661.
    """

    def __init__(self, x: np.ndarray, Y: np.ndarray, v: float, own: float):
        self.noise = own * variance(x, Y) if own and len(x) >= _OWN else v
        count, least = len(x), np.inf
        for terms in numbers(count):
            rest = np.mean((_spline(x, Y, terms)(x) - Y) ** 2) if terms < count else 0.0
            risk = rest + 2 * terms / count * self.noise
            if risk < least:
                least, self.terms = risk, terms
            elif risk > _WORSE * least and terms > _FURTHER * self.terms:
                break
        # In units of the noise, which may differ from segment to segment.
        self.risk = count * (least / self.noise if self.noise > 0 else 2.0)


def variance(x: np.ndarray, Y: np.ndarray) -> float:
    """Estimate the variance of the noise of values (N, s) at rising points x (N,).

    It is the least of the medians of squared differences of orders 2 to 8 (divided differences, scaled to unit norm),
    each over the median that Gaussian noise has.
    """
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


def knots(x: np.ndarray, terms: int) -> np.ndarray:
    """Return the knots of a cubic spline (a polynomial of lower degree for fewer terms) with so many terms."""
    degree = min(3, terms - 1)
    inner = np.quantile(x, np.linspace(0, 1, terms - degree + 1)[1:-1])
    return np.concatenate([[x[0]] * (degree + 1), inner, [x[-1]] * (degree + 1)])


def numbers(count: int) -> list[int]:
    """Return numbers of terms, rising, up to the number of samples."""
    found = [min(count, 1)]
    while found[-1] < count:
        found.append(min(count, max(found[-1] + 1, round(_FINER * found[-1]))))
    return found


def _spline(x: np.ndarray, Y: np.ndarray, terms: int) -> BSpline:
    """Return the spline of so many terms nearest to the values."""
    degree = min(3, terms - 1)
    if terms == len(x):
        return make_interp_spline(x, Y, degree)
    # Of two samples and more between knots, normal equations are well conditioned, and several times faster.
    way = "norm-eq" if 2 * terms <= len(x) else "qr"
    return make_lsq_spline(x, Y, knots(x, terms), degree, method=way)


def _jumps(x: np.ndarray, Y: np.ndarray, v: float) -> list[int]:
    """Return numbers of the samples before which values seem to jump."""
    found, least = np.zeros(len(x), bool), v * chi2.isf(_RARE / len(x), Y.shape[1])
    for w in (w for w in _SIDES if len(x) >= 4 * w):
        k = np.arange(w, len(x) - w + 1)
        rows = k[:, None] + np.arange(-w, w)
        at = (x[rows] - (x[k - 1] + x[k])[:, None] / 2).reshape(-1, 2, w)
        mean = at.mean(axis=2, keepdims=True)
        rise = (at - mean) / np.square(at - mean).sum(axis=2, keepdims=True)
        ends, values = (1 / w - mean * rise) * [[[1], [-1]]], Y[rows].reshape(*at.shape, -1)
        # A parabola is no jump: what lines leave of it tells how much of it is in the difference of their ends.
        bent = np.square(at)
        left = bent - bent.mean(axis=2, keepdims=True) - (bent * rise).sum(axis=2, keepdims=True) * (at - mean)
        ends -= left * ((ends * bent).sum(axis=(1, 2)) / np.square(left).sum(axis=(1, 2)))[:, None, None]
        difference = np.square(np.einsum("iaw,iaws->is", ends, values)).sum(axis=1)
        rises = np.square(np.einsum("iaw,iaws->ias", rise, values)).sum(axis=2).max(axis=1)
        usual, steps = (x[k] - x[k - 1]) ** 2 * rises, difference / np.square(ends).sum(axis=(1, 2))
        # Cubic parts stay, the more the wider samples are apart: steps beside are compared in units of those.
        steep, relative = difference > _UNUSUAL * usual, difference / (ends * at**3).sum(axis=(1, 2)) ** 2
        for i in np.flatnonzero(steep & (steps > least)):
            near, beside = steps[max(0, i - w + 1) : i + w], [relative[max(0, i - 3 * w) : max(0, i - w + 1)]]
            beside = np.concatenate([*beside, relative[i + w : i + 3 * w + 1]])
            found[k[i]] |= steps[i] == near.max() and relative[i] > _UNUSUAL * np.median(beside)
    return np.flatnonzero(found).tolist()


def _joined(
    x: np.ndarray, Y: np.ndarray, v: float, own: float, cuts: list[int], segments: list[Segment]
) -> tuple[list[int], list[Segment]] | None:
    """Join the first two neighbours that have less risk as one; None where there are none."""
    for i, (low, high) in enumerate(zip([0, *cuts], [*cuts[1:], len(x)])):
        if not cuts:
            break
        one = Segment(x[low:high], Y[low:high], v, own)
        if one.risk <= segments[i].risk + segments[i + 1].risk:
            return cuts[:i] + cuts[i + 1 :], [*segments[:i], one, *segments[i + 2 :]]
    return None
