"""The measurements that take too long for a page: `python -m studies.measurements [cases|families|speed ...]`.

Each is taken once on an idle machine and kept as a published record; the chapter *Measured* reads these records only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure
from scipy.stats import beta

from studies import cases, figures, provenance, random_families, speed
from studies.provenance import Record, Table, glue

WHEN = ("after", "with the fit")
# Of the limit of a share, from a count.
CONFIDENCE = 0.95


def take(name: str, **settings: object) -> Path:
    """Measure, and publish the record; ``settings`` go to the measurement."""
    record = Record(name, profile="cpu", device="cpu", seed=0)
    record.provenance["command"] = f"python -m studies.measurements {name}"
    TAKEN[name](record, **settings)
    record.save()
    return provenance.publish(name, "cpu")


def take_cases(record: Record, words: list[str] | None = None) -> None:
    """The problems that users brought."""
    record.numbers["cases"] = cases.record(cases.run(words))


def take_families(record: Record, count: int = 200, fresh: int = random_families.FRESH) -> None:
    """Two hundred random families."""
    outcomes = random_families.run(range(count), record.seed, fresh)
    record.numbers["groups"] = random_families.groups(outcomes)
    record.numbers["kept"] = random_families.kept(outcomes)
    record.numbers["fresh"] = fresh


def take_speed(record: Record, words: list[str] | None = None) -> None:
    """Maps in pieces beside exact methods."""
    record.numbers |= {word: speed.STUDIES[word]() for word in words or speed.STUDIES}


TAKEN: dict[str, Callable[..., None]] = {"cases": take_cases, "families": take_families, "speed": take_speed}


def cases_table(record: Record) -> Table:
    """What came beside what is right: exact solves, share of parameters above the tolerance, and time."""
    rows = []
    for x in record.numbers["cases"]:
        solves = f"{x['solves']:,}" + ("" if x["most_solves"] is None else f" / {x['most_solves']:,}")
        shares = f"{x['failing']:.1%} / {x['allowed']:.0%}"
        times = f"{x['multiple']:,.0f} / {x['most']:,.0f}"
        name = x["name"] + ("" if x["right"] else ": missed")
        rows.append((name, solves, f"{x['defect']:.1e} / {x['bar']:g}", shares, times))
    head = ("problem", "exact solves", "largest defect", "parameters above", "time of the fit, in exact solves")
    return Table(head, rows)


def glue_cases(record: Record) -> None:
    """Numbers of the text on the cases."""
    found = record.numbers["cases"]
    glue("ms-cases", len(found))
    glue("ms-solves", cases.SOLVES)
    glue("ms-cases-right", sum(x["right"] for x in found))
    glue("ms-cases-slower", sum(x["multiple"] > cases.SOLVES for x in found))


def families_table(record: Record) -> Table:
    """Fits by kind and number of parameters."""
    rows = []
    for x in record.numbers["groups"]:
        named = "" if x["unmet"] == 0 else f"{x['named']:.1%}"
        first = (x["kind"], str(x["d"] or ""), str(x["fits"]), str(x["met"]), str(x["wrong"]), f"{x['largest']:.2%}")
        rows.append((*first, f"{x['located']} of {x['unmet']}", named, f"{x['solves']:.0f}"))
    head = ("kind", "d", "fits", "met", "wrong", "largest share", "unmet, place named", "part of the box", "solves")
    return Table(head, rows)


def glue_families(record: Record) -> None:
    """Numbers of the text on random families."""
    (whole,) = (x for x in record.numbers["groups"] if x["kind"] == "all")
    for key in ("fits", "met", "wrong", "unmet", "located"):
        glue(f"ms-{key}", whole[key])
    # Clopper and Pearson: the largest share of wrong reports that the count does not refute.
    limit = beta.ppf(CONFIDENCE, whole["wrong"] + 1, whole["met"] - whole["wrong"])
    glue("ms-wrong-limit", 100 * limit)
    glue("ms-largest", 100 * whole["largest"])
    glue("ms-fresh", record.numbers["fresh"])
    glue("ms-target", 100 * random_families.TARGET)


def compared(record: Record) -> list[dict[str, object]]:
    """Rows of the study of speed that compare with exact methods."""
    return [row for word in ("inverse", "svd", "lmmse") for row in record.numbers.get(word, [])]


def baselines(row: dict[str, object]) -> list[str]:
    """Exact methods of a row, the weakest first."""
    return [key.removesuffix(": after") for key in row if key.endswith(": after")]


def speed_table(record: Record) -> Table:
    """Error, time beside a copy of the output, and speed-ups over each exact method."""
    rows = []
    for x in compared(record):
        first = (x["name"], f"{x['solves']:,}", f"{x['error']:.1e}")
        copies = f"{x['over a copy'][1]:.1f} / {x['unsorted over a copy'][1]:.1f}"
        for name in baselines(x):
            times = (_spread(x[f"{name}: {when}"]) for when in WHEN)
            rows.append((*first, copies, name, *times))
            first, copies = ("",) * len(first), ""
    head = ("problem", "solves", "error", "over a copy", "exact method", "faster after the fit", "with the fit")
    return Table(head, rows)


def speed_figure(record: Record) -> Figure:
    """Both ratios of every problem over every exact method."""
    return figures.speed_ups(
        [(x["name"], name, *(x[f"{name}: {when}"] for when in WHEN)) for x in compared(record) for name in baselines(x)]
    )


def _spread(ratio: list[float]) -> str:
    low, middle, high = (f"{x:.0f}" if x >= 10 else f"{x:.2g}" for x in ratio)
    return f"{middle} ({low} - {high})"


def glue_speed(record: Record) -> None:
    """Numbers of the text on speed."""
    rows = compared(record)
    strongest = [(x[f"{baselines(x)[-1]}: after"][1], x[f"{baselines(x)[-1]}: with the fit"][1]) for x in rows]
    glue("ms-after-least", min(after for after, _ in strongest))
    glue("ms-after-most", max(after for after, _ in strongest))
    glue("ms-losing", sum(both < 1 for _, both in strongest))
    glue("ms-setups", len(rows))
    (many,) = record.numbers["many"]
    glue("ms-many", many["separate fits over fit_many"][1])
    busy = record.numbers["busy"][-1]
    glue("ms-busy-after", busy["NumPy loop: after, kept"])
    glue("ms-busy-both", busy["NumPy loop: with the fit, kept"])


if __name__ == "__main__":
    for word in sys.argv[1:] or list(TAKEN):
        print(f"written: {take(word).relative_to(provenance.root())}", flush=True)
