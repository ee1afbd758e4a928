"""The measurements that take too long for a page: `python -m studies.measurements [cases|families|speed|draws|...]`.

Several words take several. Each is taken once and kept as a published record. The chapter *Measured* reads the first
four, *Frequency and time* and *Link level* that of their name and of `blocks`, page one the first four and `swings`. A
machine that has other work to do takes no times: the record that was published before stays.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from studies import (
    benchmark,
    cases,
    draws,
    figures,
    last_good,
    load,
    provenance,
    random_families,
    slots,
    speed,
    swings,
    texts,
)
from studies.provenance import Record, Table, glue

WHEN = ("after", "with the fit")
PIECES = "piecewise Chebyshev"
# Of the limit of a share, from a count; and new sets that were drawn so far, each of which was a chance to pass.
CONFIDENCE, SETS = 0.95, 2


def take(name: str, **settings: object) -> Path:
    """Measure, and publish the record; ``settings`` go to the measurement.

    Raises:
        RuntimeError: If a timing was refused; the published record stays as it was.
    """
    record = Record(name, profile="cpu", device="cpu", seed=0)
    record.provenance["command"] = f"python -m studies.measurements {name}"
    TAKEN[name](record, **settings)
    record.save()
    refused = [entry["conditions"]["refused"] for entry in last_good.measurements(provenance.load(name, "cpu").numbers)]
    if any(refused):
        raise RuntimeError(
            f"{name}: {sum(map(bool, refused))} of {len(refused)} timings were refused, so the published record stays: "
            f"{next(filter(None, refused))}; take them on an idle machine."
        )
    return provenance.publish(name, "cpu")


def take_cases(record: Record, words: list[str] | None = None) -> None:
    """The problems that users brought."""
    watch = load.Watch()
    record.numbers["cases"] = cases.record(cases.run(words))
    found = watch.load()
    record.numbers["load"] = {
        "conditions": benchmark.conditions(benchmark.too_much(found), found, rounds=2 * cases.REPEATS)
    }


def take_families(record: Record, count: int = 200, fresh: int = random_families.FRESH) -> None:
    """Two hundred random families that are a bar for the library, and as many that nobody has seen before.

    Fits were repaired on the first, so their count says nothing of others. The seed of the second is the time at which
    this record began: each record has its own, and nobody chooses it.
    """
    outcomes = random_families.run(range(count), record.seed, fresh)
    record.numbers["groups"] = random_families.groups(outcomes)
    record.numbers["kept"] = random_families.kept(outcomes)
    record.numbers["fresh"] = fresh
    seed = int("".join(filter(str.isdigit, record.provenance["date"][:19])))
    groups = random_families.groups(random_families.run(range(count), seed, fresh))
    record.numbers["new"] = {"seed": seed, "groups": groups}


def every(groups: Sequence[dict[str, object]]) -> dict[str, object]:
    """Return the counts of all families of the study of random families together."""
    (whole,) = (x for x in groups if x["kind"] == "all")
    return whole


def trusted() -> float:
    """Return the confidence in percent that is left, where a set that fails leads to a repair and to another set.

    Example:
        >>> trusted()
        90.0
    """
    return round(100 * (1 - SETS * (1 - CONFIDENCE)), 6)


def wrong_limit(numbers: dict) -> float:
    """Return the largest share of wrong reports, in percent, that the count of new families does not refute.

    Clopper and Pearson, at `CONFIDENCE`. Only families that no fit was repaired on allow it.

    Args:
        numbers: Of the record of families.
    """
    whole = every(numbers["new"]["groups"])
    return texts.at_least(100 * benchmark.upper_limit(whole["wrong"], whole["met"], CONFIDENCE))


def take_speed(record: Record, words: list[str] | None = None) -> None:
    """Maps in pieces beside exact methods."""
    record.numbers |= {word: speed.STUDIES[word]() for word in words or speed.STUDIES}


def take_draws(record: Record, count: int = draws.DRAWS, posed: Sequence = draws.POSED) -> None:
    """The problems of `take_speed`, counted for many draws of their channels."""
    record.numbers["draws"] = draws.run(count, posed)


def take_slots(record: Record, words: list[str] | None = None) -> None:
    """Slots, frames, near and far users, lines of sight, and the noise level as an axis."""
    record.numbers |= {word: slots.STUDIES[word]() for word in words or slots.STUDIES}


def take_swings(record: Record, **settings: int) -> None:
    """How often entries of radio matrices go up and down."""
    record.numbers["counts"] = swings.run(**settings)


def take_blocks(record: Record, **settings: object) -> None:
    """Equalisers and precoders that stand in Sionna's links."""
    from studies import blocks  # imports Sionna, which takes seconds

    size = {key: settings[key] for key in ("tones", "rounds") if key in settings}
    record.numbers["blocks"] = blocks.run(**settings)
    record.numbers["precoders"] = blocks.run_precoders(**size)


TAKEN: dict[str, Callable[..., None]] = {
    "cases": take_cases,
    "families": take_families,
    "speed": take_speed,
    "draws": take_draws,
    "frequency_and_time": take_slots,
    "swings": take_swings,
    "blocks": take_blocks,
}
# The records of the chapter *Measured*.
SHOWN = ("cases", "families", "speed", "draws")


def cases_table(record: Record) -> Table:
    """What came beside what is right: exact solves, share of parameters above the tolerance, and time."""
    rows = []
    for x in record.numbers["cases"]:
        solves = f"{x['solves']:,}" + ("" if x["most_solves"] is None else f" / {x['most_solves']:,}")
        shares = f"{x['failing']:.1%} / {x['allowed']:.0%}"
        # Older records kept the median alone.
        times = f"{texts.spread(texts.measured(x.get('multiples', x['multiple'])))} / {x['most']:,.0f}"
        name = x["name"] + ("" if x["right"] else ": missed")
        rows.append((name, solves, f"{x['defect']:.1e} / {x['bar']:g}", shares, times))
    largest, time = "largest residual or error", "time of the fit, in exact solves"
    return Table(("problem", "exact solves", largest, "parameters above", time), rows)


def glue_cases(record: Record) -> None:
    """Numbers of the text on the cases."""
    found = record.numbers["cases"]
    assert all(x["multiple"] <= x["most"] for x in found), "a fit took longer than the text says that none did"
    glue("ms-cases", len(found))
    glue("ms-solves", cases.SOLVES)
    glue("ms-cases-right", sum(x["right"] for x in found))
    glue("ms-cases-limited", sum(x["most_solves"] is not None for x in found))
    glue("ms-cases-at-limit", sum(x["most_solves"] == x["solves"] for x in found))
    glue("ms-cases-tables", sum(x["note"].startswith("table") for x in found))
    glue("ms-cases-slower", sum(x["multiple"] > cases.SOLVES for x in found))


def families_table(record: Record) -> Table:
    """Fits by kind and number of parameters."""
    rows = []
    for x in record.numbers["groups"]:
        named = "" if x["unmet"] == 0 else f"{x['named']:.1%}"
        first = (x["kind"], str(x["d"] or ""), str(x["fits"]), str(x["met"]), str(x["wrong"]), f"{x['largest']:.2%}")
        rows.append((*first, f"{x['located']} of {x['unmet']}", named, f"{x['solves']:.0f}"))
    head = ("kind", "d", "fits", "met", "wrong", "largest share", "unmet, boxes named", "part of the box", "solves")
    return Table(head, rows)


def glue_families(record: Record) -> None:
    """Numbers of the text on random families."""
    whole, new = every(record.numbers["groups"]), every(record.numbers["new"]["groups"])
    for key in ("fits", "met", "wrong", "unmet", "located"):
        glue(f"ms-{key}", whole[key])
        glue(f"ms-new-{key}", new[key])
    glue("ms-wrong-limit", wrong_limit(record.numbers))
    glue("ms-confidence", trusted())
    glue("ms-largest", 100 * whole["largest"])
    glue("ms-new-largest", 100 * new["largest"])
    # The record keeps the largest share of each group: so many reports exceed the promise at least.
    kinds = [x for x in record.numbers["groups"] if x["kind"] != "all"]
    glue("ms-above", sum(x["largest"] > random_families.TARGET for x in kinds))
    named = sorted((100 * x["named"], f"{x['kind']}, d = {x['d']}") for x in kinds if x["unmet"])
    for key, (share, kind) in (("least", named[0]), ("most", named[-1])):
        glue(f"ms-named-{key}", f"{share:.0f} % ({kind})")
    glue("ms-fresh", record.numbers["fresh"])
    glue("ms-target", 100 * random_families.TARGET)


def draws_table(record: Record) -> Table:
    """Solves, terms and errors of each problem over the draws of its channel: medians, least and largest values."""
    rows = []
    for x in record.numbers["draws"]:
        own = x["draws"]
        met = f"{sum(row['met'] for row in own)} of {len(own)}"
        counts = [draws.span([row[key] for row in own]) for key in ("solves", "terms")]
        errors, above = [row["error"] for row in own], [100 * row["above"] for row in own]
        peers = [row["peer"]["solves"] for row in own if "peer" in row]
        beside = draws.span(peers) if peers else "none"
        row = (x["name"], f"{x['tol']:g}", met, *counts, draws.span(errors, ".1e"), f"{max(above):.1f} %", beside)
        rows.append(row)
    head = ("problem", "tolerance", "met", "solves", "terms", "error", "above, worst draw", "solves of the peer")
    return Table(head, rows)


def glue_draws(record: Record, timed: Record) -> None:
    """Numbers of the text on many draws; ``timed`` is the record of speed."""
    found = record.numbers["draws"]
    ranges = draws.spreads(found)
    least, most = (pick(ranges, key=lambda name: ranges[name][i]) for i, pick in enumerate((min, max)))
    for key, name, i in (("least", least, 0), ("most", most, 1)):
        glue(f"ms-draws-{key}", f"{ranges[name][i]:.2f} ({name})")
    share, name = draws.worst(found)
    glue("ms-draws-above", f"{100 * share:.1f} % ({name})")
    fewer, beside = draws.fewer(found)
    glue("ms-draws-fewer", fewer)
    glue("ms-draws-finer", texts.ratios_between(draws.finer(found)))
    glue("ms-draws-over", draws.above(found, random_families.TARGET))
    glue("ms-draws-cheapest", "; ".join(draws.cheapest(found)) or "none")
    solves = {row["name"]: row["solves"] for row in compared(timed)}
    glue("ms-draws-cheap", "; ".join(draws.cheap(found, solves)) or "none")
    glue("ms-draws-moved", draws.moved(found, solves))
    glue("ms-draws-beside", beside)
    glue("ms-draws", len(found[0]["draws"]))
    glue("ms-draws-fits", sum(len(x["draws"]) for x in found))
    glue("ms-draws-unmet", draws.unmet(found))
    glue("ms-draws-judged", draws.JUDGED)


def compared(record: Record) -> list[dict[str, object]]:
    """Rows of the study of speed that compare with exact methods."""
    return [row for word in ("inverse", "svd", "lmmse") for row in record.numbers.get(word, [])]


def baselines(row: dict[str, object]) -> list[str]:
    """Exact methods of a row, the weakest first."""
    return [key.removesuffix(": after") for key in row if key.endswith(": after")]


def last(ratio: Sequence[float]) -> float:
    """Return the median of a ratio, by which what was not timed comes after all that was."""
    return math.inf if math.isnan(ratio[1]) else ratio[1]


def interpolated(row: dict[str, object], *when: str) -> list[tuple[str, dict[str, object]]]:
    """Peers of a row: all, the one in pieces first; or that one, and of those that got a number of solves the fastest.

    Args:
        row: Of the study of speed.
        when: ``"after"`` the fit, or ``"with the fit"``, for the fastest one; default: all.
    """
    peers = dict(row.get("interpolation", {}))
    shown = [(PIECES, peers.pop(PIECES))] if PIECES in peers else []
    fastest = [min(peers, key=lambda name: last(peers[name][column])) for column in when if peers]
    return shown + [(name, peers[name]) for name in fastest or peers]


def rivals(row: dict[str, object]) -> list[tuple[str, list[tuple[float, ...]]]]:
    """Return all that a row is compared with, and both ratios: exact methods, then interpolation."""
    exact = [(name, [row[f"{name}: {when}"] for when in WHEN]) for name in baselines(row)]
    return exact + [(name, [x[when] for when in WHEN]) for name, x in interpolated(row)]


def speed_table(record: Record) -> Table:
    """Tolerance, error, time beside a copy of the output, and speed-ups over exact methods and interpolation."""
    rows = []
    for x in compared(record):
        first = (x["name"], f"{x['tol']:g}", f"{x['solves']:,}", f"{x['error']:.1e}")
        copies, peers = (
            " / ".join(texts.spread(x[key]) for key in ("over a copy", "unsorted over a copy")),
            dict(interpolated(x)),
        )
        for name, ratios in rivals(x):
            peer = peers.get(name)
            label = name if peer is None else f"{name}, {peer['solves']:,} solves, {peer['error']:.1e}"
            rows.append((*first, copies, label, *map(texts.spread, ratios)))
            first, copies = ("",) * len(first), ""
    head = ("problem", "tolerance", "solves", "error", "over a copy", "beside", "faster after the fit", "with the fit")
    return Table(head, rows)


def speed_figure(record: Record) -> Figure:
    """Both ratios of every problem over every exact method and over interpolation."""
    rows = [(x["name"], name, *ratios) for x in compared(record) for name, ratios in rivals(x)]
    return figures.speed_ups(rows, "times as fast as what is named")


def tally(ratios: Sequence[Sequence[float]]) -> str:
    """Return in how many problems a map is faster, slower or neither, by the quartiles, and the range of the medians.

    Example:
        >>> tally([(1.1, 1.2, 1.3), (0.5, 0.6, 0.7), (0.4, 0.5, 0.6), (math.nan,) * 3])
        'faster in 1 of 3 problems and slower in 2 (0.5 to 1.2 times as fast)'
    """
    ratios = [ratio for ratio in ratios if not math.isnan(ratio[1])]
    if not ratios:  # where no number of solves made a peer as accurate, or none was timed
        return "not compared"
    words = [texts.side(ratio, "faster", "slower", "about as fast") for ratio in ratios]
    found = [(word, words.count(word)) for word in ("faster", "about as fast", "slower") if word in words]
    (word, count), *others = found
    parts = [f"{word} in {count} of {len(words)} problems", *(f"{word} in {count}" for word, count in others)]
    ends = sorted({texts.times(f(ratio[1] for ratio in ratios)) for f in (min, max)}, key=float)
    return f"{texts.listed(parts)} ({' to '.join(ends)} times as fast)"


def glue_interpolation(rows: Sequence[dict[str, object]]) -> None:
    """Verdicts of the text on interpolation, in pieces and with a number of solves that somebody has to know."""
    peers = [interpolated(x) for x in rows if interpolated(x)]
    glue("ms-interpolated", len(peers))
    for key, pieces in (("pieces", True), ("number", False)):
        glue(f"ms-{key}-names", texts.listed(sorted({name for own in peers for name, _ in own} - {PIECES})))
        for short, when in zip(("after", "with"), WHEN):
            found = [peer for x in rows for peer in interpolated(x, when) if (peer[0] == PIECES) == pieces]
            glue(f"ms-{key}-{short}", tally([x[when] for _, x in found]))
    finer = [x["error"] / peer["error"] for x in rows for name, peer in interpolated(x) if name == PIECES]
    assert min(finer, default=math.inf) > 1, "interpolation in pieces is more accurate than the map"
    glue("ms-finer", texts.ratios_between(finer))
    others = [peer["error"] / x["error"] for x in rows for name, peer in interpolated(x) if name != PIECES]
    glue("ms-coarser", texts.ratios_between(others))


def glue_speed(record: Record) -> None:
    """Numbers and verdicts of the text on speed."""
    rows = compared(record)
    glue_interpolation(rows)
    strongest = {x["name"]: [x[f"{baselines(x)[-1]}: {when}"] for when in WHEN] for x in rows}
    glue("ms-after-least", texts.least(after for after, _ in strongest.values())[1])
    glue("ms-after-most", texts.most(after for after, _ in strongest.values())[1])
    # A problem is lost, or won, where the whole spread says so.
    words = [texts.side(both, "faster", "slower", "even") for _, both in strongest.values()]
    glue("ms-losing", words.count("slower"))
    glue("ms-even", words.count("even"))
    glue("ms-winning", words.count("faster"))
    glue("ms-verdict-after", texts.verdict({name: after for name, (after, _) in strongest.items()}))
    glue("ms-verdict-with", texts.verdict({name: both for name, (_, both) in strongest.items()}))
    glue("ms-setups", len(rows))
    (many,) = record.numbers["many"]
    glue("ms-many", many["separate fits over fit_many"][1])
    glue("ms-many-spread", texts.spread(many["separate fits over fit_many"]))
    _, idle, busy = record.numbers["busy"]
    glue("ms-idle-problem", idle["name"].rsplit(",", 1)[0])
    glue("ms-idle-tol", idle["tol"])
    glue("ms-idle-threads", idle["threads"])
    for key, row in (("idle", idle), ("busy", busy)):
        for short, when in zip(("after", "both"), WHEN):
            glue(f"ms-{key}-{short}", texts.spread(row[f"NumPy loop: {when}"]))


if __name__ == "__main__":
    for word in sys.argv[1:] or list(TAKEN):
        print(f"written: {take(word).relative_to(provenance.root())}", flush=True)
