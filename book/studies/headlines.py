"""The numbers that a rerun must give again, and those that are published for them.

Each names one number of one record. How far it may be off depends on what it is:

- An *error* comes from linear algebra on the same matrices. Another processor, library of linear algebra or number of
  threads changes it by rounding, which its tolerance allows and which is far below a digit that a page shows.
- The error of a *trained* map follows thousands of steps, each of which passes rounding on. It may be off by a factor.
- A *count* (solves, pieces, ranks) is the same, or nearly, where a decision hangs on a number close to its threshold.
- A *timing* is compared within the spread that is published for it, and never makes a rerun fail.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from studies import provenance

PROFILES = ("smoke", "cpu", "gpu")
KINDS = ("error", "count", "timing")
# Matrices in double precision, and the limits of ranks, which are computed in it: rounding is far below a digit shown.
DOUBLE = 1e-3
# Matrices in single precision: rounding, times a condition number of some hundreds, moves an error of 1e-3 by less.
SINGLE = 1e-2
# Errors of a map in pieces, whose cuts hang on numbers that can be close to their thresholds, and their solves.
PIECES, SOLVES = 0.25, 0.1
# The error of a trained map after another way of rounding, thousands of steps on: within this factor less one.
TRAINED = 0.5


@dataclass(frozen=True)
class Headline:
    """A number that a rerun must give again.

    Args:
        id: Its name, ``<chapter>-<words>`` in lower-case letters, digits and hyphens.
        text: What it is, in a few words.
        chapter: Name of the notebook without suffix.
        path: Keys that lead to it in the numbers of the chapter's record.
        kind: ``"error"``, ``"count"`` or ``"timing"``.
        within: How far it may be off, relative to the published one.
        floor: How far it may be off besides, absolutely; for numbers that come close to rounding.

    Raises:
        ValueError: For another kind.
    """

    id: str
    text: str
    chapter: str
    path: tuple[str | int, ...]
    kind: str = "error"
    within: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"`kind`: expected one of {', '.join(KINDS)}, got {self.kind!r}.")


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


def tolerance(headline: Headline) -> str:
    """Return how far a number may be off, as tables show it."""
    if headline.kind == "timing":
        return "the spread"
    parts = [f"{100 * headline.within:g} %"] * bool(headline.within) + [f"{headline.floor:.0e}"] * bool(headline.floor)
    return " + ".join(parts) or "equal"


def _architecture() -> list[Headline]:
    name = "architecture"
    return [
        Headline("architecture-limit", "limit of the rank, trigonometric family", name, ("limit",), within=DOUBLE),
        Headline("architecture-closed-form", "error of the closed form", name, ("closed_form_error",), within=SINGLE),
        Headline("architecture-trained", "error of the trained map", name, ("error",), within=TRAINED),
        Headline("architecture-pieces", "error of the map in pieces", name, ("local", "error"), within=PIECES),
        Headline("architecture-solves", "its exact solves", name, ("local", "solves"), "count", SOLVES),
    ]


def _wireless() -> list[Headline]:
    name, rows = "wireless_inversion", []
    for model in ("cdl_a", "cdl_c"):
        short, key = f"CDL-{model[-1].upper()}", f"wireless-inversion-{model[-1]}"
        rows += [
            Headline(f"{key}-limit", f"limit of the rank, {short}", name, (model, "limit"), within=DOUBLE),
            Headline(
                f"{key}-closed", f"error of the closed form, {short}", name, (model, "closed", "error"), within=SINGLE
            ),
            Headline(f"{key}-trained", f"error of the trained map, {short}", name, (model, "error"), within=TRAINED),
            Headline(
                f"{key}-cubic",
                f"error of the cubic spline, {short}",
                name,
                (model, "errors", "cubic interpolation"),
                within=SINGLE,
            ),
            Headline(f"{key}-rate", f"sum rate of exact inverses, {short}", name, (model, "rate"), within=DOUBLE),
            Headline(
                f"{key}-time",
                f"time of the map over the NumPy loop, {short}",
                name,
                (model, "relative_time", "closed form"),
                "timing",
            ),
        ]
    return rows


def _to_the_limit() -> list[Headline]:
    name, key = "to_the_limit", "to-the-limit"
    return [
        Headline(
            f"{key}-limit", "limit of the rank, trigonometric family", name, ("trigonometric", "limit"), within=DOUBLE
        ),
        Headline(
            f"{key}-closed",
            "error of the closed form there",
            name,
            ("trigonometric", "errors", "closed form"),
            within=SINGLE,
        ),
        Headline(
            f"{key}-residual",
            "error of the fit from the residual alone",
            name,
            ("trigonometric", "residual_only", "error"),
            within=SINGLE,
        ),
        Headline(f"{key}-aaa", "error of AAA, CDL-A", name, ("cdl_a", "errors", "AAA"), within=TRAINED),
        Headline(
            f"{key}-spline",
            "error of the cubic spline, CDL-A",
            name,
            ("cdl_a", "errors", "cubic spline"),
            within=SINGLE,
        ),
        Headline(f"{key}-a-limit", "limit of the rank, CDL-A", name, ("cdl_a", "limit"), within=DOUBLE),
    ]


def _low_rankness() -> list[Headline]:
    name, key = "low_rankness", "low-rankness"
    return [
        Headline(
            f"{key}-rate",
            "decay of the singular values near a pole",
            name,
            ("poles", "families", 0, "rates", 0),
            within=DOUBLE,
        ),
        Headline(f"{key}-pole-rank", "rank near that pole", name, ("poles", "families", 0, "ranks", 1), "count"),
        Headline(f"{key}-c-rank", "rank of the channel, CDL-C", name, ("models", "C", "real", 1), "count"),
        Headline(
            f"{key}-c-inverse", "rank of its inverse at noise 0.1", name, ("models", "C", "inverse_0.1", 1), "count"
        ),
        Headline(
            f"{key}-kink", "rank with kinks at many places", name, ("kinks", "families", "spread", "ranks", 1), "count"
        ),
    ]


def _continuity() -> list[Headline]:
    name, key = "continuity", "continuity"
    return [
        Headline(
            f"{key}-aligned",
            "error of singular vectors, aligned",
            name,
            ("before_after", "gauges", "aligned", "errors", 1),
            within=DOUBLE,
        ),
        Headline(
            f"{key}-returned",
            "error of them as LAPACK returns them",
            name,
            ("crossing", "SVD(2), as returned", "median"),
            within=TRAINED,
        ),
        Headline(f"{key}-crossing", "error through a crossing", name, ("crossing", "SVD(2)", "error"), floor=1e-11),
        Headline(
            f"{key}-loop",
            "error of frames over a plane with a loop",
            name,
            ("planes", "truncated", "Subspace(2)", "error"),
            within=DOUBLE,
        ),
        Headline(
            f"{key}-levels", "solves of six levels that cross", name, ("paths", "six levels", "solves"), "count", SOLVES
        ),
    ]


def _beyond() -> list[Headline]:
    name, key = "beyond_the_inverse", "beyond-the-inverse"
    return [
        Headline(
            f"{key}-inverse", "error of the inverse of the small family", name, ("linear", 0, "error"), within=DOUBLE
        ),
        Headline(
            f"{key}-svd", "error of its singular value decomposition", name, ("factors", 0, "error"), within=DOUBLE
        ),
        Headline(f"{key}-exp", "error of its exponential", name, ("functions", 0, "error"), within=DOUBLE),
        Headline(
            f"{key}-c100",
            "error of leading triplets, CDL-C at 100 ns",
            name,
            ("svd", "C100", "error"),
            within=SINGLE,
            floor=1e-6,
        ),
        Headline(
            f"{key}-lmmse",
            "limit of the receiver's rank, CDL-C at 100 ns",
            name,
            ("lmmse", "C100", "limit"),
            within=SINGLE,
            floor=1e-7,
        ),
    ]


def _several() -> list[Headline]:
    name, key = "several_parameters", "several-parameters"
    return [
        Headline(f"{key}-limit", "limit of the rank, two parameters", name, ("designs", "limit"), within=DOUBLE),
        Headline(f"{key}-sobol", "error from Sobol points", name, ("designs", "sobol", "with"), within=DOUBLE),
        Headline(
            f"{key}-chebyshev",
            "error of Chebyshev interpolation",
            name,
            ("designs", "chebyshev", "error"),
            within=DOUBLE,
        ),
        Headline(
            f"{key}-wireless",
            "error over frequency and noise",
            name,
            ("wireless", "errors", "closed form"),
            within=SINGLE,
            floor=1e-6,
        ),
        Headline(
            f"{key}-tolerance",
            "solves of oblique waves to a tolerance",
            name,
            ("anisotropic", "waves", "rows", "fit to a tolerance", "solves"),
            "count",
            SOLVES,
        ),
    ]


HEADLINES = (
    *_architecture(),
    *_wireless(),
    *_to_the_limit(),
    *_low_rankness(),
    *_continuity(),
    *_beyond(),
    *_several(),
)
