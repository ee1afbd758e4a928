"""The problems that users brought, as a benchmark: solves, errors, and times in multiples of one exact solve.

``python -m studies.cases [WORDS ...]`` prints the table, for the cases whose names hold one of the words.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from dataclasses import asdict, dataclass

import neumatc as nm
from studies import problems
from studies.benchmark import Ratio

# The bar of every case: a fit takes no longer than this many exact solves and a second.
SOLVES, SECONDS = 4096, 1.0
# Exact solves that are timed together, as often: as many as a user's batch that stays small beside a fit.
BATCH, REPEATS = 128, 3


@dataclass(frozen=True)
class Outcome:
    """One case, measured.

    Attributes:
        name: The case.
        solves, most_solves: Exact solves, and the bar, None where there is none.
        defect, bar: Largest defect where the user looks, and what is right.
        failing: Share of the parameters there above the bar; ``allowed``: what is right.
        met: What the report says of the tolerance; None where none was given.
        seconds: Wall time of the fit.
        exact_rounds: Wall times of one exact solve, A(p) included, in batches, before and after the fit.
        note: Why the fit stopped.
    """

    name: str
    solves: int
    most_solves: int | None
    defect: float
    bar: float
    failing: float
    allowed: float
    met: bool | None
    seconds: float
    exact_rounds: tuple[float, ...]
    note: str

    @property
    def exact_seconds(self) -> float:
        """Median wall time of one exact solve."""
        return statistics.median(self.exact_rounds)

    @property
    def multiples(self) -> Ratio:
        """Time of the fit in exact solves; it ran once, so the spread is that of the solves."""
        return Ratio.of([self.seconds / one for one in self.exact_rounds])

    @property
    def multiple(self) -> float:
        """Median time of the fit in exact solves."""
        return self.multiples.median

    @property
    def most(self) -> float:
        """The bar of the time, in exact solves."""
        return SOLVES + SECONDS / self.exact_seconds

    @property
    def right(self) -> bool:
        """Whether every bar is kept."""
        few = self.most_solves is None or self.solves <= self.most_solves
        return few and self.failing <= self.allowed and self.multiple <= self.most


def exact_seconds(problem: nm.Problem) -> list[float]:
    """Time one exact solve, in batches of fresh parameters."""
    family, times = problem.family, []
    for seed in range(REPEATS + 1):  # the first warms up
        p = nm.sampling.sobol(BATCH, family.lower, family.upper, seed)
        if family.box.ticks is not None:  # the nearest points of the grid
            p = family.box.parameters(family.box.cube(p))
        begin = time.perf_counter()
        problem.exact(p)
        times.append((time.perf_counter() - begin) / BATCH)
    return times[1:]


def measured(case: problems.Case) -> Outcome:
    """Fit a case once and measure it."""
    before = exact_seconds(case.problem)  # and after, so that a machine that is busy for a while is so for both
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begin = time.perf_counter()
        surrogate = case.fitted()
        seconds = time.perf_counter() - begin
    rounds = tuple(before + exact_seconds(case.problem))
    report = surrogate.report
    defect, failing = case.failing(surrogate)
    note = "; ".join(x for x in (report.stop_reason.name.lower(), report.message) if x)
    found = (defect, case.bar, failing, case.share, report.met if "tol" in case.fit else None)
    return Outcome(case.name, report.exact_solves, case.solves, *found, seconds, rounds, note)


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a table: what came beside the bar, and what is not right marked by an exclamation mark."""
    heads = ("case", "solves", "defect", "above", "met", "time / one exact solve", "ms", "")
    rows = [heads]
    for x in outcomes:
        most = "" if x.most_solves is None else f" / {x.most_solves}"
        shares = f"{x.failing:.1%} / {x.allowed:.0%}"
        times = f"{x.multiple:,.0f} / {x.most:,.0f}"
        mark = "" if x.right else "!"
        met = {True: "yes", False: "no", None: "-"}[x.met]
        first = (x.name, f"{x.solves}{most}", f"{x.defect:.1e} / {x.bar:g}", shares, met)
        rows.append((*first, times, f"{1e3 * x.seconds:.0f}", mark))
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)


def run(words: list[str] | None = None) -> list[Outcome]:
    """Measure the cases whose names hold one of the words, by default all; without Sionna, those that need none."""
    outcomes = []
    for build in problems.all_cases():
        try:
            case = build()
        except ImportError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if not words or any(word in case.name for word in words):
            outcomes.append(measured(case))
    return outcomes


def record(outcomes: list[Outcome]) -> list[dict[str, object]]:
    """Return plain numbers for a benchmark record."""
    return [
        asdict(x) | {"multiples": x.multiples, "multiple": x.multiple, "most": x.most, "right": x.right}
        for x in outcomes
    ]


if __name__ == "__main__":
    print(table(run(sys.argv[1:])))
