"""How much the draw of a channel matters: the problems that are timed, for twenty draws of each.

It counts exact solves and terms and measures errors; nothing is timed, so other work on the machine does not matter.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch

import neumatc as nm
from studies import speed, texts

Row = dict[str, object]
DRAWS = 20
# One parameter in so many judges a map: exact results at all of them would take longer than all fits.
JUDGED = 4
# What is timed in `studies.speed`, with its tolerance: the problem of a draw, by its seed.
POSED: tuple[tuple[Callable[[int], speed.Posed], float], ...] = (
    (lambda seed: speed.inverse_problem(seed=seed), 1e-4),
    (lambda seed: speed.inverse_problem(spread=300e-9, seed=seed), 1e-2),
    (lambda seed: speed.inverse_problem(16, seed=seed), 1e-4),
    (lambda seed: speed.inverse_problem(32, seed=seed), 1e-4),
    (lambda seed: speed.svd_problem("A", 30e-9, seed), 1e-3),
    (lambda seed: speed.svd_problem("A", 100e-9, seed), 1e-3),
    (lambda seed: speed.svd_problem("C", 30e-9, seed), 1e-3),
    (lambda seed: speed.svd_problem("C", 100e-9, seed), 1e-3),
    (lambda seed: speed.lmmse_problem(32, seed), 1e-2),
    (lambda seed: speed.lmmse_problem(8, seed), 1e-2),
)


def judged(problem: nm.Problem, p: torch.Tensor, tol: float) -> Row:
    """Fit a draw, judge it on the band, and count what interpolation in pieces takes to the same tolerance."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)  # whether it is met is counted
        surrogate = nm.fit(problem, tol=tol, progress=False)
    q = p[::JUDGED]
    value = surrogate(q)
    row: Row = {
        "solves": surrogate.report.exact_solves,
        "terms": surrogate.rank,
        "met": surrogate.report.met,
        "error": speed.erring(problem, q, value),
        "above": float((problem.residual(q, value) > tol).double().mean()),
    }
    if len(problem.factors) == 1:
        peer = nm.peers.piecewise_chebyshev(problem, tol)
        row["peer"] = {"solves": peer.exact_solves, "error": speed.erring(problem, q, peer(q))}
    return row


def run(draws: int = DRAWS, posed: Sequence[tuple[Callable[[int], speed.Posed], float]] = POSED) -> list[Row]:
    """Return of each problem its name, its tolerance, and a row for each draw; the first is the one that is timed."""
    found: list[Row] = []
    for pose, tol in posed:
        rows = []
        for seed in range(draws):
            name, problem, p = pose(seed)
            rows.append(judged(problem, p, tol))
        found.append({"name": name, "tol": tol, "draws": rows})
    return found


def span(values: Sequence[float], form: str = ",.0f") -> str:
    """Return a median with the least and the largest value.

    Example:
        >>> span([3, 1, 2]), span([2, 2])
        ('2 (1 to 3)', '2')
    """
    middle, least, most = (format(x, form) for x in (statistics.median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least} to {most})"


def spreads(found: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Return of each problem the least and the largest number of solves over that of the first draw."""
    solves = {x["name"]: [row["solves"] for row in x["draws"]] for x in found}
    return {name: (min(own) / own[0], max(own) / own[0]) for name, own in solves.items()}


def cheapest(found: Sequence[Row]) -> list[str]:
    """Return the problems of which no draw takes fewer solves than the first, and some take more."""
    return [name for name, (least, most) in spreads(found).items() if least == 1 < most]


def cheap(found: Sequence[Row], timed: Mapping[str, int], share: float = 0.8) -> list[str]:
    """Return the problems of which the fit that was timed takes at most a share of the solves of the median draw.

    Args:
        found: The record of draws.
        timed: Exact solves of each problem in the record of speed, by its name: these fits have the times.
        share: Of the solves of the median draw.

    Example:
        >>> found = [{"name": "a", "draws": [{"solves": s} for s in (90, 100, 110)]}]
        >>> cheap(found, {"a": 75}), cheap(found, {"a": 90})
        (['a (75 solves timed, median 100)'], [])
    """
    middles = {x["name"]: statistics.median(row["solves"] for row in x["draws"]) for x in found}
    return [
        f"{name} ({timed[name]} solves timed, median {middle:.0f})"
        for name, middle in middles.items()
        if name in timed and timed[name] <= share * middle
    ]


def moved(found: Sequence[Row], timed: Mapping[str, int]) -> str:
    """Return in words for which problems the first draw took other solves where it is timed: records differ in commit.

    Args:
        found: The record of draws.
        timed: Exact solves of each problem in the record of speed, by its name.

    Example:
        >>> moved([{"name": "a", "draws": [{"solves": 80}]}], {"a": 81})
        'In the table of speed, of another commit, the first draw takes 81 solves instead of 80 (a).'
        >>> moved([{"name": "a", "draws": [{"solves": 80}]}], {"a": 80})
        'In the table of speed the first draw takes the same solves.'
    """
    pairs = [(x["name"], x["draws"][0]["solves"]) for x in found]
    other = [f"{timed[name]} solves instead of {own} ({name})" for name, own in pairs if timed.get(name, own) != own]
    if not other:
        return "In the table of speed the first draw takes the same solves."
    return f"In the table of speed, of another commit, the first draw takes {texts.listed(other)}."


def above(found: Sequence[Row], share: float) -> int:
    """Return for how many draws that are met more than a share of the judged band is above the tolerance."""
    return sum(row["met"] and row["above"] > share for x in found for row in x["draws"])


def unmet(found: Sequence[Row]) -> str:
    """Return in words for how many draws of which problems a fit did not meet its tolerance."""
    counts = {x["name"]: sum(not row["met"] for row in x["draws"]) for x in found}
    return "; ".join(f"{count} of {name}" for name, count in counts.items() if count) or "none"


def fewer(found: Sequence[Row]) -> tuple[int, int]:
    """Return for how many draws the map takes fewer solves than interpolation in pieces, and of how many."""
    rows = [row for x in found for row in x["draws"] if "peer" in row]
    return sum(row["solves"] < row["peer"]["solves"] for row in rows), len(rows)


def finer(found: Sequence[Row]) -> list[float]:
    """Return of each problem how many times the error of interpolation in pieces that of the map is, the median."""
    ratios = [[row["error"] / row["peer"]["error"] for row in x["draws"] if "peer" in row] for x in found]
    return [statistics.median(own) for own in ratios if own]


def worst(found: Sequence[Row]) -> tuple[float, str]:
    """Return the largest share of a band above the tolerance where the report says met, with the problem's name."""
    shares = [(row["above"], x["name"]) for x in found for row in x["draws"] if row["met"]]
    return max(shares, default=(math.nan, ""))
