"""The numbers that a rerun must give again, and those that are published for them.

Each names one number of one record. How far it may be off depends on what it is:

- An *error* comes from linear algebra on the same matrices. Another processor, library of linear algebra or number of
  threads changes it by rounding, which its tolerance allows and which is far below a digit that a page shows.
- The error of a *trained* map follows thousands of steps, each of which passes rounding on. It may be off by a factor.
- A *count* (solves, pieces, ranks) is the same. One that hangs on many decisions, each perhaps on a number close to its
  threshold, may be off by a few per cent.
- A *timing* is compared within the spread that is published for it, and never makes a rerun fail.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from studies import provenance

PROFILES = ("smoke", "cpu", "gpu")
KINDS = ("error", "count", "timing")
# Matrices in double precision, and the limits of ranks, which are computed in it: rounding is far below a digit shown.
DOUBLE = 1e-3
# Matrices in single precision: rounding, times a condition number of some hundreds, moves an error of 1e-3 by less.
SINGLE = 1e-2
# What rounding alone leaves of an error in single precision, times the condition numbers of the channels.
ROUNDING = 2e-6
# Errors of a map in pieces, and solves. Nothing is random there. A cut can hang on a number at its threshold; kernels
# of another processor (ATen without AVX, OpenBLAS for Haswell) turned none and moved errors by 1e-8 of them.
PIECES, SOLVES = 0.01, 0.03
# The error of a trained map after another way of rounding, thousands of steps on: within this factor less one.
TRAINED = 0.5


@dataclass(frozen=True)
class Headline:
    """A number that a rerun must give again.

    Args:
        id: Its name, ``<chapter>-<words>`` in lower-case letters, digits and hyphens.
        text: What it is, in a few words.
        path: Where it is: name of the notebook without suffix, then the keys that lead to it in the numbers of its
            record, with strokes between; places in lists count from 0.
        kind: ``"error"``, ``"count"`` or ``"timing"``.
        within: How far it may be off, relative to the published one.
        floor: How far it may be off besides, absolutely; for numbers that come close to rounding.

    Raises:
        ValueError: For another kind.
    """

    id: str
    text: str
    path: str
    kind: str = "error"
    within: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"`kind`: expected one of {', '.join(KINDS)}, got {self.kind!r}.")

    @property
    def chapter(self) -> str:
        """Name of the notebook without suffix."""
        return self.path.partition("/")[0]

    @property
    def keys(self) -> list[str | int]:
        """Keys and places that lead to the number in the record."""
        return [int(key) if key.isdecimal() else key for key in self.path.split("/")[1:]]


def expected_path(profile: str) -> Path:
    """Return where the published numbers of a profile are kept."""
    return provenance.root() / "notebooks" / "expected" / f"{profile}.json"


def expected(profile: str) -> dict:
    """Return the published numbers of a profile: ``values`` by id, ``chapters`` by name; both empty if there are none.

    Raises:
        ValueError: For an unknown profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"`profile`: expected one of {', '.join(PROFILES)}, got {profile!r}.")
    path = expected_path(profile)
    return json.loads(path.read_text("utf-8")) if path.is_file() else {"values": {}, "chapters": {}}


def text(number: object) -> str:
    """Return a number, or the quartiles of a timing, as tables show it.

    Example:
        >>> text(0.012345), text([1.0, 2.0, 3.0]), text(16), text(None)
        ('0.01235', '2 (1 - 3)', '16', 'none yet')
    """
    if number is None:
        return "none yet"
    if isinstance(number, list):
        return f"{number[1]:.3g} ({number[0]:.3g} - {number[2]:.3g})"
    return str(number) if isinstance(number, int) else f"{number:.4g}"


def agrees(headline: Headline, published: float, got: float) -> bool:
    """Return whether a number that is no timing is the published one, within the tolerance of its headline.

    Example:
        >>> agrees(Headline("a-b", "", "a/b", within=0.1), 1.0, 1.05)
        True
    """
    # An error that is not a number, or infinite, is right where that is what was published.
    same = got == published or (math.isnan(got) and math.isnan(published))
    return same or abs(got - published) <= headline.within * abs(published) + headline.floor


def tolerance(headline: Headline) -> str:
    """Return how far a number may be off, as tables show it."""
    if headline.kind == "timing":
        return "the spread"
    parts = [f"{100 * headline.within:g} %"] * bool(headline.within) + [f"{headline.floor:g}"] * bool(headline.floor)
    return " + ".join(parts) or "equal"


HEADLINES = (
    Headline(
        "gauge-in-detail-inverse",
        "largest share of the inverse's Lipschitz constant",
        "gauge_in_detail/lipschitz/shares/`Inverse`",
        within=DOUBLE,
    ),
    Headline("rank-bounds-rank", "rank of the ring's inverses", "rank_bounds/bounds/rows/0/rank", "count"),
    Headline(
        "rank-bounds-nested",
        "Lebesgue constant of 17 nested nodes",
        "rank_bounds/stability/constants/nested (pieces)/1",
        within=DOUBLE,
    ),
    Headline("architecture-limit", "limit of the rank, trigonometric family", "architecture/limit", within=DOUBLE),
    Headline("architecture-closed-form", "error of the closed form", "architecture/closed_form_error", within=SINGLE),
    Headline("architecture-trained", "error of the trained map", "architecture/error", within=TRAINED),
    Headline("architecture-pieces", "error of the map in pieces", "architecture/local/error", within=PIECES),
    Headline("architecture-solves", "its exact solves", "architecture/local/solves", "count", SOLVES),
    Headline(
        "wireless-inversion-a-limit",
        "limit of the rank, CDL-A",
        "wireless_inversion/cdl_a/limit",
        within=DOUBLE,
        floor=ROUNDING,
    ),
    Headline(
        "wireless-inversion-a-closed",
        "error of the closed form, CDL-A",
        "wireless_inversion/cdl_a/closed/error",
        within=SINGLE,
        floor=ROUNDING,
    ),
    Headline(
        "wireless-inversion-a-trained",
        "error of the trained map, CDL-A",
        "wireless_inversion/cdl_a/error",
        within=TRAINED,
    ),
    Headline(
        "wireless-inversion-a-cubic",
        "error of the cubic spline, CDL-A",
        "wireless_inversion/cdl_a/errors/cubic interpolation",
        within=SINGLE,
        floor=ROUNDING,
    ),
    Headline(
        "wireless-inversion-a-rate", "sum rate of exact inverses, CDL-A", "wireless_inversion/cdl_a/rate", within=DOUBLE
    ),
    Headline(
        "wireless-inversion-a-time",
        "time of the map over the NumPy loop, CDL-A",
        "wireless_inversion/cdl_a/relative_time/closed form",
        "timing",
    ),
    Headline(
        "wireless-inversion-c-limit",
        "limit of the rank, CDL-C",
        "wireless_inversion/cdl_c/limit",
        within=DOUBLE,
        floor=ROUNDING,
    ),
    Headline(
        "wireless-inversion-c-closed",
        "error of the closed form, CDL-C",
        "wireless_inversion/cdl_c/closed/error",
        within=SINGLE,
        floor=ROUNDING,
    ),
    Headline(
        "wireless-inversion-c-trained",
        "error of the trained map, CDL-C",
        "wireless_inversion/cdl_c/error",
        within=TRAINED,
    ),
    Headline(
        "wireless-inversion-c-cubic",
        "error of the cubic spline, CDL-C",
        "wireless_inversion/cdl_c/errors/cubic interpolation",
        within=SINGLE,
        floor=ROUNDING,
    ),
    Headline(
        "wireless-inversion-c-rate", "sum rate of exact inverses, CDL-C", "wireless_inversion/cdl_c/rate", within=DOUBLE
    ),
    Headline(
        "wireless-inversion-c-time",
        "time of the map over the NumPy loop, CDL-C",
        "wireless_inversion/cdl_c/relative_time/closed form",
        "timing",
    ),
    Headline(
        "wireless-inversion-solves",
        "exact solves of the map of filters, eight streams, 30 ns",
        "wireless_inversion/bands/0/solves",
        "count",
        SOLVES,
    ),
    Headline(
        "wireless-inversion-blocks",
        "rate that one filter for each block loses, eight streams, 30 ns",
        "wireless_inversion/bands/0/ways/one for each block/loss",
        within=SINGLE,
        floor=ROUNDING,
    ),
    Headline(
        "wireless-precoding-solves",
        "exact solves of the map of vectors, CDL-C at 100 ns",
        "wireless_precoding/ladder/solves/0",
        "count",
        SOLVES,
    ),
    Headline(
        "wireless-precoding-held",
        "rate that held precoders lose with a linear receiver, as many solves",
        "wireless_precoding/ladder/linear/held/0",
        within=PIECES,
        floor=ROUNDING,
    ),
    Headline(
        "synthetic-experiments-solves",
        "exact solves for the smooth family",
        "synthetic_experiments/difficulty/0/solves",
        "count",
        SOLVES,
    ),
    Headline("synthetic-experiments-error", "its error", "synthetic_experiments/difficulty/0/error", within=PIECES),
    Headline(
        "to-the-limit-limit",
        "limit of the rank, trigonometric family",
        "to_the_limit/trigonometric/limit",
        within=DOUBLE,
    ),
    Headline(
        "to-the-limit-closed",
        "error of the closed form there",
        "to_the_limit/trigonometric/errors/closed form",
        within=SINGLE,
    ),
    Headline(
        "to-the-limit-residual",
        "error of the fit from the residual alone",
        "to_the_limit/trigonometric/residual_only/error",
        within=SINGLE,
    ),
    Headline(
        "to-the-limit-aaa", "error of AAA, CDL-A", "to_the_limit/cdl_a/errors/AAA", within=TRAINED, floor=ROUNDING
    ),
    Headline(
        "to-the-limit-spline",
        "error of the cubic spline, CDL-A",
        "to_the_limit/cdl_a/errors/cubic spline",
        within=SINGLE,
        floor=ROUNDING,
    ),
    Headline(
        "to-the-limit-a-limit", "limit of the rank, CDL-A", "to_the_limit/cdl_a/limit", within=DOUBLE, floor=ROUNDING
    ),
    Headline(
        "low-rankness-rate",
        "decay of the singular values near a pole",
        "low_rankness/poles/families/0/rates/0",
        within=DOUBLE,
    ),
    Headline("low-rankness-pole-rank", "rank near that pole", "low_rankness/poles/families/0/ranks/1", "count"),
    Headline("low-rankness-c-rank", "rank of the channel, CDL-C", "low_rankness/models/C/real/1", "count"),
    Headline(
        "low-rankness-c-inverse", "rank of its inverse at noise 0.1", "low_rankness/models/C/inverse_0.1/1", "count"
    ),
    Headline(
        "low-rankness-kink", "rank with kinks at many places", "low_rankness/kinks/families/spread/ranks/1", "count"
    ),
    Headline(
        "continuity-aligned",
        "error of singular vectors, aligned",
        "continuity/before_after/gauges/aligned/errors/1",
        within=DOUBLE,
    ),
    Headline(
        "continuity-returned",
        "median error at the crossing, vectors as LAPACK returns them",
        "continuity/crossing/SVD(2), as returned/median",
        within=TRAINED,
    ),
    Headline("continuity-crossing", "error through a crossing", "continuity/crossing/SVD(2)/error", floor=1e-11),
    Headline(
        "continuity-loop",
        "error of frames over a plane with a loop",
        "continuity/planes/truncated/Subspace(2)/error",
        within=DOUBLE,
    ),
    Headline(
        "continuity-levels",
        "solves of six levels that stay well apart",
        "continuity/paths/six levels/solves",
        "count",
        SOLVES,
    ),
    Headline(
        "beyond-the-inverse-inverse",
        "error of the inverse of the small family",
        "beyond_the_inverse/linear/0/error",
        within=DOUBLE,
    ),
    Headline(
        "beyond-the-inverse-svd",
        "error of its singular value decomposition",
        "beyond_the_inverse/factors/0/error",
        within=DOUBLE,
    ),
    Headline(
        "beyond-the-inverse-exp", "error of its exponential", "beyond_the_inverse/functions/0/error", within=DOUBLE
    ),
    Headline(
        "beyond-the-inverse-c100",
        "error of leading triplets, CDL-C at 100 ns",
        "beyond_the_inverse/svd/C100/error",
        within=SINGLE,
        floor=ROUNDING,
    ),
    Headline(
        "beyond-the-inverse-lmmse",
        "limit of the receiver's rank, CDL-C at 100 ns",
        "beyond_the_inverse/lmmse/C100/limit",
        within=SINGLE,
        floor=ROUNDING,
    ),
    Headline(
        "several-parameters-limit",
        "limit of the rank, two parameters",
        "several_parameters/designs/limit",
        within=DOUBLE,
    ),
    Headline(
        "several-parameters-sobol", "error from Sobol points", "several_parameters/designs/sobol/with", within=DOUBLE
    ),
    Headline(
        "several-parameters-chebyshev",
        "error of Chebyshev interpolation",
        "several_parameters/designs/chebyshev/error",
        within=DOUBLE,
    ),
    Headline(
        "several-parameters-wireless",
        "error over frequency and noise",
        "several_parameters/wireless/errors/closed form",
        within=SINGLE,
        floor=ROUNDING,
    ),
    Headline(
        "several-parameters-tolerance",
        "solves of oblique waves to a tolerance",
        "several_parameters/anisotropic/waves/rows/fit to a tolerance/solves",
        "count",
        SOLVES,
    ),
    Headline(
        "your-own-matrices-numpy", "error, NumPy function", "your_own_matrices/numpy/ways/this map/error", within=DOUBLE
    ),
    Headline(
        "your-own-matrices-bands", "error, Hamiltonian", "your_own_matrices/bands/ways/this map/error", within=PIECES
    ),
    Headline(
        "your-own-matrices-kernel",
        "exact solves, kernel",
        "your_own_matrices/kernel/ways/this map/solves",
        "count",
        SOLVES,
    ),
    Headline(
        "real-channels-map",
        "error of the map of smoothed samples, 30 ns",
        "real_channels/noisy/16 x 4/1/error/map of smoothed samples/0",
        within=PIECES,
    ),
    Headline("real-channels-terms", "terms that an entry keeps", "real_channels/noisy/16 x 4/1/terms/0", within=PIECES),
    Headline(
        "real-channels-lmmse",
        "error with Sionna's LMMSE estimator, true covariance",
        "real_channels/noisy/16 x 4/1/error/Sionna, LMMSE, true covariance/0",
        within=DOUBLE,
    ),
    Headline(
        "real-channels-drop",
        "part of the sum rate of a UMi drop, map of all users",
        "real_channels/drops/0/sum/map of smoothed samples",
        within=PIECES,
    ),
    Headline(
        "real-channels-munich",
        "part of the sum rate in Munich, map of all users",
        "real_channels/munich/0/sum/map of smoothed samples",
        within=PIECES,
    ),
    Headline(
        "real-channels-slot",
        "part of the sum rate over a slot, map of the smoothed grid, 3 km/h",
        "real_channels/slots/0/rate/0/map of the smoothed grid",
        within=PIECES,
    ),
    Headline(
        "real-channels-jumps", "jumps between blocks found", "real_channels/irregular/blocks of 20 MHz/found", "count"
    ),
    Headline("your-own-operation-error", "error of the operation", "your_own_operation/error", within=PIECES),
    Headline("your-own-operation-solves", "its exact solves", "your_own_operation/solves", "count", SOLVES),
)
