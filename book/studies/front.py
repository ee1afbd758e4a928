"""The answer on page one: the table of decisions, its figure and the numbers beside them, all from published records.

The pages *Introduction* and *When to use this* write ``{{ decisions }}`` or ``{{ front.NAME }}`` where one of them
stands; the Sphinx extension ``front_page`` puts it in when the book is built. So a new record changes the pages, and a
verdict that it no longer supports stops the build.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from matplotlib.figure import Figure

from studies import figures, measurements, provenance
from studies.texts import times, two_digits

RECORDS = ("speed", "cases", "families", "to_the_limit", "beyond_the_inverse", "training_search")
CHAPTERS = "../notebooks/"
# What the table says of the three possible verdicts of the quartiles.
FASTER, SLOWER, EVEN = "faster", "slower", "about as fast"
Numbers = dict[str, object]


@dataclass(frozen=True)
class Decision:
    """A row of the table, in the words of the page.

    Attributes:
        situation: What a reader has.
        pick: What to use.
        speed: How many times as fast as the strongest exact method the map is, with the fit counted.
        error: What the pick, and what stands beside it, reach.
        pays: From when on a fit has paid.
    """

    situation: str
    pick: str
    speed: str
    error: str
    pays: str


HEADER = ("You have", "Pick", "Speed", "Error", "Pays after")


def records() -> dict[str, Numbers]:
    """Return the numbers of the published records, by name."""
    return {name: provenance.load(name).numbers for name in RECORDS}


def middle(value: float | Sequence[float]) -> float:
    """Return the median of a ratio that may come with its quartiles.

    Example:
        >>> middle(2.0), middle([1.0, 2.0, 4.0])
        (2.0, 2.0)
    """
    return float(value) if isinstance(value, (int, float)) else float(value[1])


def verdict(ratio: Sequence[float]) -> str:
    """Return what quartiles say of a ratio of times; where they lie on both sides of one, that neither is faster.

    Example:
        >>> verdict([1.2, 1.5, 1.6]), verdict([0.5, 0.6, 0.9]), verdict([0.9, 1.2, 1.3])
        ('faster', 'slower', 'about as fast')
    """
    low, _, high = ratio
    return FASTER if low > 1 else SLOWER if high < 1 else EVEN


def between(values: Iterable[float]) -> str:
    """Return a range of ratios in words.

    Example:
        >>> between([2.46, 3.11]), between([1.93])
        ('2.5 to 3.1', '1.9')
    """
    found = sorted(values)
    ends = [times(x) for x in (found[0], found[-1])]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def power(values: Iterable[float]) -> str:
    """Return the largest error as the book writes it.

    Example:
        >>> power([2.7e-4, 4.1e-4])
        '4e-04'
    """
    return f"{max(values):.0e}"


def strongest(row: Numbers) -> str:
    """Return the exact method of a row of the study of speed that leaves the map the least advantage."""
    return min(measurements.baselines(row), key=lambda name: row[f"{name}: with the fit"][1])


def ratios(row: Numbers) -> tuple[Sequence[float], Sequence[float]]:
    """Return how many times as fast as its strongest exact method a map is, after the fit and with the fit counted."""
    return tuple(row[f"{strongest(row)}: {when}"] for when in measurements.WHEN)


def speeds(found: dict[str, Numbers], word: str, text: str) -> list[Numbers]:
    """Return the rows of one study of speed whose name has a text in it."""
    return [row for row in found["speed"][word] if text in row["name"]]


def timed(situation: str, chapter: str, rows: list[Numbers], exact: str) -> Decision:
    """Return the decision for rows of the study of speed; what to pick follows from their quartiles."""
    after, counted = zip(*map(ratios, rows))
    verdicts = {verdict(ratio) for ratio in counted}
    again = f"for many, the map ({between(x[1] for x in after)} after the fit)"
    if {verdict(x) for x in after} != {FASTER}:
        again = "nothing else"
    picks = {
        FASTER: ("**The map in pieces**", "less than one pass"),
        SLOWER: (f"**{exact}** for one pass; {again}", "more than one pass"),
    }
    pick, pays = picks.get(
        verdicts.pop() if len(verdicts) == 1 else EVEN, (f"Either for one pass; {again}", "about one pass")
    )
    error = power(row["error"] for row in rows)
    return Decision(f"[{situation}]({CHAPTERS}{chapter}.ipynb)", pick, between(x[1] for x in counted), error, pays)


def on_a_gpu(found: dict[str, Numbers]) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    """Return both ratios over the strongest exact method on the GPU of the record, by the name of the problem."""
    shown = {}
    for word, exact in (("svd", "Gram matrix"), ("lmmse", "Cholesky")):
        for channel, entry in found["beyond_the_inverse"][word].items():
            faster = entry["faster"][exact]
            both = (faster["map"], faster["fit and map"])
            name = f"{word.upper()} CDL-{channel[0]}, {channel[1:]} ns, GPU"
            shown[name] = tuple((x,) * 3 if isinstance(x, float) else x for x in both)
    return shown


def case(found: dict[str, Numbers], name: str) -> Numbers:
    """Return the users' problem of this name."""
    return next(x for x in found["cases"]["cases"] if x["name"] == name)


def count(value: float) -> str:
    """Return a number of matrices in two digits, since wall times repeat no better."""
    return "never" if math.isinf(value) else f"{two_digits(value):,.0f}"


def brought(situation: str, chapter: str, cases: list[Numbers], pick: str) -> Decision:
    """Return the decision for problems that users brought: their fits are timed in exact solves."""
    ends = sorted({two_digits(f(x["multiple"] for x in cases)) for f in (min, max)})
    pays = " to ".join(f"{x:,.0f}" for x in ends) + " values or more"
    name = f"[{situation}]({CHAPTERS}{chapter}.ipynb)"
    error = power(x["defect"] for x in cases)
    return Decision(name, pick, "below 1 before", f"map {error}", pays)


def trained(found: dict[str, Numbers]) -> Numbers:
    """Return the best trial of the search for CDL-C, with its error and its cost in inversions by NumPy."""
    trials = [x for x in found["training_search"]["trials"] if x["family"] == "cdl_c"]
    return min(trials, key=lambda x: x["error"])


def decisions(found: dict[str, Numbers]) -> list[Decision]:
    """Return the table of decisions, the cases for the map first."""
    limit, best = found["to_the_limit"]["cdl_c"], trained(found)
    errors, gpu = limit["errors"], on_a_gpu(found)
    kinds = found["families"]["groups"]
    steps = [x for x in kinds if x["kind"] == "steps"]
    never = count(middle(limit["closed_break_even"]["torch, Cholesky"]))
    inverse, svd, gram = "wireless_inversion", "beyond_the_inverse", "Eigenvectors of the Gram matrix"
    return [
        timed("Leading singular vectors, 30 ns, CPU", svd, speeds(found, "svd", " 30 ns"), gram),
        timed("The same, 100 ns, CPU", svd, speeds(found, "svd", "100 ns"), gram),
        timed(
            "Inverses, 64 x 64 and larger, CPU",
            "measured",
            [row for size in ("64 x 64", "128 x 128") for row in speeds(found, "inverse", size)],
            "Batched Cholesky",
        ),
        timed("Inverses, 32 x 32, CPU", inverse, speeds(found, "inverse", "32 x 32"), "Batched Cholesky"),
        timed("Equaliser, 32 streams, CPU", svd, speeds(found, "lmmse", "x 32"), "Batched Cholesky"),
        timed("Equaliser, 8 streams, CPU", svd, speeds(found, "lmmse", "x 8"), "Batched Cholesky"),
        Decision(
            f"[A GPU]({CHAPTERS}to_the_limit.ipynb)",
            "**Solve exactly**, in a batch",
            between(middle(counted) for _, counted in gpu.values()),
            power(entry["errors"]["Cholesky"] for entry in found["beyond_the_inverse"]["lmmse"].values()),
            f"{never} (inverse)",
        ),
        Decision(
            f"[One parameter, and solves that you count]({CHAPTERS}to_the_limit.ipynb)",
            "**A spline** or Chebyshev interpolation; one map of low rank only to store less",
            f"{'below 1' if never == 'never' else 'see the chapter'} (GPU)",
            f"spline {power([errors['cubic spline']])}, map of rank {limit['rank']} {power([errors['closed form']])}",
            f"{count(middle(limit['cubic spline_break_even']['NumPy loop']))} (spline), "
            f"{count(middle(limit['closed_break_even']['NumPy loop']))} (map) inverses in a loop",
        ),
        Decision(
            f"[The paper's gradient training]({CHAPTERS}training_search.ipynb)",
            "**Not this.** The closed form of the same rank, or a spline",
            "below 1 before",
            f"{power([best['error']])}, spline {power([errors['cubic spline']])}",
            f"{count(best['cost_in_inversions'])} inverses in a loop, or more",
        ),
        brought(
            "Resonances, little damping",
            "measured",
            [x for x in found["cases"]["cases"] if x["name"].startswith("resonances")],
            "`fit(tol=...)`, which finds **a rational function**",
        ),
        brought(
            "A parameter over decades",
            "measured",
            [x for x in found["cases"]["cases"] if x["name"].endswith(("log", "log from 1e-05"))],
            '`fit(tol=...)` with **`scale="log"`**',
        ),
        brought(
            "Two parameters, small matrices",
            "several_parameters",
            [
                case(found, name)
                for name in ("slot at 3 km/h", "Green's function, eta 0.5", "Green's function, eta 0.2")
            ],
            "**Solve exactly**, unless one solve is dear",
        ),
        brought(
            "Finite elements, four parameters",
            "several_parameters",
            [x for x in found["cases"]["cases"] if x["name"].startswith("thermal block")],
            "**A reduced basis** (`nm.peers`)",
        ),
        Decision(
            f"[A step or a jump in the matrix]({CHAPTERS}measured.ipynb)",
            "**Cut the box there**, or solve exactly",
            "none",
            f"tolerance met in {sum(x['met'] for x in steps)} of {sum(x['fits'] for x in steps)} fits",
            "never",
        ),
    ]


def table(found: dict[str, Numbers]) -> provenance.Table:
    """Return the table of decisions."""
    return provenance.Table(HEADER, [astuple(row) for row in decisions(found)])


def numbers(found: dict[str, Numbers]) -> dict[str, str]:
    """Return the numbers of the sentences on both pages.

    Raises:
        ValueError: If a record no longer supports a sentence; the message says which.
    """
    rows = [row for word in ("inverse", "svd", "lmmse") for row in found["speed"][word]]
    after, counted = zip(*map(ratios, rows))
    limit, best, gpu = found["to_the_limit"]["cdl_c"], trained(found), on_a_gpu(found)
    (whole,) = (x for x in found["families"]["groups"] if x["kind"] == "all")
    errors = limit["errors"]
    cases = found["cases"]["cases"]
    for claim, holds in {
        "gradient training is less accurate than a spline": best["error"] > 2 * errors["cubic spline"],
        "the closed form is near its limit": errors["closed form"] < 1.1 * limit["limit"],
        "a spline is more accurate than the closed form": errors["cubic spline"] < errors["closed form"],
        "on a CPU the map is faster after its fit": {verdict(x) for x in after} == {FASTER},
        "on a GPU the exact methods are faster": {verdict(x) for _, x in gpu.values()} == {SLOWER},
        "the closed form never pays on a GPU": math.isinf(middle(limit["closed_break_even"]["torch, Cholesky"])),
    }.items():
        if not holds:
            raise ValueError(f"`records`: expected that {claim}, as the introduction says; rewrite its sentence.")
    return {
        "after": between(x[1] for x in after),
        "problems": str(len(rows)),
        "wins": str(sum(verdict(x) == FASTER for x in counted)),
        "losses": str(sum(verdict(x) == SLOWER for x in counted)),
        "gpu": between(1 / middle(x) for _, x in gpu.values()),
        "trained_error": power([best["error"]]),
        "trained_cost": count(best["cost_in_inversions"]),
        "trained_steps": f"{best['steps']:,}",
        "trials": str(sum(x["family"] == "cdl_c" for x in found["training_search"]["trials"])),
        "closed_error": power([errors["closed form"]]),
        "limit": power([limit["limit"]]),
        "rank": str(limit["rank"]),
        "solves": str(limit["solves"]),
        "spline_error": power([errors["cubic spline"]]),
        "met": str(whole["met"]),
        "fits": str(whole["fits"]),
        "wrong": str(whole["wrong"]),
        "unmet": str(whole["unmet"]),
        "located": str(whole["located"]),
        "cases": str(len(cases)),
        "right": str(sum(x["right"] for x in cases)),
        "resonances": str(min(x["solves"] for x in cases if x["name"].startswith("resonances"))),
        "kernel": count(case(found, "GP Cholesky")["multiple"]),
        "slot": count(case(found, "slot at 3 km/h")["multiple"]),
        "many": times(found["speed"]["many"][0]["separate fits over fit_many"][1]),
    }


def figure(found: dict[str, Numbers]) -> Figure:
    """Draw both ratios over the strongest exact method, for each problem on a CPU and then on a GPU."""
    figures.style()
    rows = [row for word in ("svd", "lmmse", "inverse") for row in found["speed"][word]]
    shown = [(row["name"], strongest(row), *ratios(row)) for row in rows]
    for name, both in on_a_gpu(found).items():
        shown.append((name, "Gram" if name.startswith("SVD") else "Cholesky", *both))
    return figures.speed_ups(shown)


def substitutions() -> dict[str, object]:
    """Return what stands on the pages in the place of ``{{ decisions }}`` and ``{{ front.NAME }}``."""
    found = records()
    return {"decisions": table(found)._repr_markdown_(), "front": numbers(found)}
