"""Tables, figures and words of the chapter on frequency and time; `studies.slots` takes what they show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from studies import figures, slots
from studies.measurements import tally
from studies.provenance import Record, Table, glue, load, study_of
from studies.texts import UNTIMED, at_least, capital, judged, listed, matrices, spread, times, told

Row = dict
SHORT, LONG = 30e-9, 300e-9
# What is held, by its key in the rows, and the mark of its line.
HELD = {
    "held": ("one for each block and symbol", "s:"),
    "still": ("one for each tone and slot", "^--"),
    "both": ("one for each block and slot", "D-."),
    "linear": ("one for each block and slot, linear between", "v-"),
}
COLOURS = dict(zip(slots.TASKS, (figures.BLUE, figures.ORANGE, figures.GREEN)))
# Ticks of how many times as fast one is as another.
FACTORS = (0.2, 0.5, 1, 2, 5)
# A rate that is lost and cannot be told from rounding, in single precision.
ROUNDING = 1e-6
# What the issue of this chapter asks for.
RATE, NEAR_FAR, STEP, ERROR = 1e-3, 0.99, 1.5, 1e-3


def exact_of(row: Row) -> str:
    """Return the name of the strongest exact method of a row."""
    return "Gram" if "SVD" in row["task"] else "Cholesky"


def share(lost: float) -> str:
    """Return a share of the rate that is lost.

    Example:
        >>> share(2.34e-5), share(0.0312), share(1e-7), share(-2e-6)
        ('2.3e-05', '0.031', '< 1e-6', '< 1e-6')
    """
    if lost < ROUNDING:
        return "< 1e-6"
    return f"{lost:.2g}"


def chosen(record: Record, *, omni: bool = False) -> dict[str, list[Row]]:
    """Return the rows of the slot by task, for directional or omnidirectional users, by rising delay spread."""
    rows = [row for row in record.numbers["slot"] if row["omni"] == omni]
    return {name: [row for row in rows if row["task"] == name] for name in slots.TASKS}


def one(record: Record, task: str, spread: float, *, omni: bool = False) -> Row:
    """Return one row of the slot."""
    (row,) = (row for row in chosen(record, omni=omni)[task] if math.isclose(row["spread"], spread))
    return row


def slot_table(record: Record) -> Table:
    """Solves, rates lost, and times beside exact solves, for every task, delay spread and pattern."""
    rows = [
        (slot_name(row), f"{row['solves']:,}", share(row["lost"]), spread(row[exact_of(row)]))
        for row in record.numbers["slot"]
    ]
    return Table(("slot", "solves", "rate lost", "times as fast as exact"), rows)


def slot_name(row: Row) -> str:
    """Return the name of a slot in tables; directional users are not named."""
    return row["name"].replace(", directional", "") + ("" if row["met"] else ": not met")


def held_table(record: Record) -> Table:
    """The rate that is lost by each way to hold exact results, and how many times as fast the map is, by slot."""
    rows, head = [], ["slot", "rate lost by the map"]
    for row in record.numbers["slot"]:
        found = [slot_name(row), share(row["lost"])]
        for key in HELD:
            found += [share(row[f"lost, {key}"]), spread(row[key])]
        rows.append(tuple(found))
    for name, _ in HELD.values():
        head += [f"{name}: rate lost", "map: times as fast as that"]
    return Table(head, rows)


def slot_figure(record: Record) -> Figure:
    """How many times as fast as the strongest exact method a map is, its fit counted, over the delay spread."""
    if all(math.isnan(row[exact_of(row)][1]) for row in record.numbers["slot"]):
        return figures.undrawn()
    figure, panels = figures.stacked(2, 2.6, sharex=True)
    for axes, omni in zip(panels, (False, True)):
        for name, rows in chosen(record, omni=omni).items():
            x = [1e9 * row["spread"] for row in rows]
            low, middle, high = zip(*(row[exact_of(row)] for row in rows))
            axes.loglog(x, middle, "o-", color=COLOURS[name], ms=4.5, label=name)
            axes.fill_between(x, low, high, color=COLOURS[name], alpha=0.25, lw=0)
        axes.set(title="omnidirectional users" if omni else "directional users")
        figures.times_as_fast(axes, FACTORS)
        figures.ticks_at(axes, x)
    panels[-1].set_xlabel("delay spread (ns)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=figures.SMALLEST
    )
    return figure


def rate_figure(record: Record) -> Figure:
    """The rate that is lost over the delay spread, by a map and by each way to hold exact results."""
    figure, panels = figures.stacked(2, 2.6, sharex=True, sharey=True)
    for axes, omni in zip(panels, (False, True)):
        for name, rows in chosen(record, omni=omni).items():
            x = [1e9 * row["spread"] for row in rows]
            for key, style in (("lost", "o-"), *((f"lost, {key}", style) for key, (_, style) in HELD.items())):
                y = [max(row[key], ROUNDING) for row in rows]
                axes.loglog(x, y, style, color=COLOURS[name], ms=4.5, label=name if key == "lost" else None)
        axes.axhline(RATE, color=figures.RED, lw=1.2, ls="--")
        axes.set(title="omnidirectional users" if omni else "directional users", ylabel="rate lost")
        figures.ticks_at(axes, x)
    panels[-1].set_xlabel("delay spread (ns)")
    lines, names = panels[0].get_legend_handles_labels()
    marks = [plt.Line2D([], [], color=figures.GREY, ls="", marker=mark, ms=4.5) for mark in "os^Dv"]
    names += ["map", *(name for name, _ in HELD.values())]
    figure.legend([*lines, *marks], names, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def tolerance_figure(record: Record) -> Figure:
    """Exact solves and the rate lost over the tolerance, for three delay spreads."""
    figure, panels = figures.stacked(2, 2.6, sharex=True)
    spreads = sorted({row["spread"] for row in record.numbers["tolerance"]})
    for value, colour in zip(spreads, (figures.BLUE, figures.ORANGE, figures.GREEN)):
        rows = [row for row in record.numbers["tolerance"] if row["spread"] == value]
        tols = [row["tol"] for row in rows]
        panels[0].loglog(tols, [max(row["lost"], ROUNDING) for row in rows], "o-", color=colour, ms=4.5)
        panels[0].axhline(rows[0]["lost, held"], color=colour, ls=":", lw=1.2)
        panels[1].loglog(tols, [row["solves"] for row in rows], "o-", color=colour, ms=4.5, label=f"{1e9 * value:g} ns")
    panels[1].axhline(rows[0]["held solves"], color=figures.GREY, ls=":", lw=1.2)
    panels[0].set(ylabel="rate lost", title="dotted: one for each block")
    panels[1].set(ylabel="exact solves", xlabel="tolerance of the residual")
    figure.legend(
        *panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=figures.SMALLEST
    )
    return figure


def frame_table(record: Record) -> Table:
    """Error, solves, memory and times of a frame."""
    rows = []
    for row in record.numbers["frame"]:
        ratios = [spread(row[key]) for key in (exact_of(row), "NumPy loop", "over a copy")]
        fits = f"{row['solves']:,} in {row['fits']}"
        name = row["name"] + ("" if row["met"] else ": not met")
        rows.append((name, fits, f"{row['error']:.1e}", f"{row['memory']:.2g} GB", *ratios))
    exact = "times as fast as exact"
    return Table(("frame", "solves, fits", "error", "memory", exact, "as the NumPy loop", "over a copy"), rows)


def near_far_table(record: Record) -> Table:
    """Shares of the exact rates that near and far users keep."""
    rows = []
    for row in record.numbers["near_far"]:
        found = [f"{row[key]:.4f}" for key in ("sum", "weakest", "worst")]
        rows.append((row["name"], f"{row['gains']:.0f} dB", f"{row['solves']:,}", f"{row['weakest rate']:.2g}", *found))
    head = (
        "drop",
        "gains apart",
        "solves",
        "weakest user's rate",
        "sum rate kept",
        "weakest user's",
        "least of a user",
    )
    return Table(head, rows)


def line_of_sight_table(record: Record) -> Table:
    """Steps and rates lost of precoders on the line of sight."""
    rows = [
        (row["name"], f"{row['solves']:,}", f"{row['step']:.2f}", f"{row['apart']:.0%}", share(row["lost"]))
        for row in record.numbers["line_of_sight"]
    ]
    return Table(("precoder", "solves", "largest step", "steps judged", "rate lost"), rows)


def paper_table(record: Record) -> Table:
    """The paper's numbers beside those of the frame."""
    rows = []
    for claim, task in (
        ("inversion: more than 3 times as fast as NumPy", "LMMSE"),
        ("SVD: 10 times, perhaps more", "SVD"),
    ):
        own = [row for row in record.numbers["frame"] if row["task"].startswith(task)]
        found = [f"{row['name']}: {spread(row['NumPy loop'])}" for row in own]
        rows.append((claim, "; ".join(found), f"{max(row['error'] for row in own):.1e}"))
    return Table(("the paper, training not counted", "this run, fit counted", "our error"), rows)


def ratios(record: Record, task: str, key: str | None = None, *, omni: bool = False) -> dict[str, Sequence[float]]:
    """Return how many times as fast a map is, by delay spread."""
    rows = chosen(record, omni=omni)[task]
    return {f"{1e9 * row['spread']:g} ns": row[key or exact_of(row)] for row in rows}


def everywhere(ratios: Sequence[Sequence[float]]) -> str:
    """Return in a sentence the range of all known medians.

    Example:
        >>> everywhere([(1, 2, 3), (0.6, 0.71, 0.8)]), everywhere([(math.nan,) * 3])
        (' Over all 2 slots of filters its median goes from 0.71 to 2 times as fast.', '')
    """
    known = [median for _, median, _ in ratios if not math.isnan(median)]
    if not known:
        return ""
    return (
        f" Over all {len(known)} slots of filters its median goes from {min(known):.2g} to {max(known):.2g} times as "
        f"fast."
    )


def lines(record: Record) -> Iterator[tuple[str, object]]:
    """Yield what the text says, by name."""
    for key, task in zip(("eight", "many", "svd"), slots.TASKS):
        yield f"ft-{key}", judged("With the fit counted the map is {}.", ratios(record, task))
        yield f"ft-{key}-omni", judged("With the fit counted it is {}.", ratios(record, task, omni=True))
        for held, (name, _) in HELD.items():
            yield f"ft-{key}-{held}", judged(f"Beside {name} the map is {{}}.", ratios(record, task, held))
        for ending, omni in (("", False), ("-omni", True)):
            again = ratios(record, task, "again", omni=omni)
            said = judged("From the pieces of the slot before, beside exact solves, it is {}.", again)
            yield f"ft-{key}-again{ending}", said
        yield f"ft-{key}-short", one(record, task, SHORT)["solves"]
        yield f"ft-{key}-long", one(record, task, LONG)["solves"]
    rows = record.numbers["slot"]
    every = [row["Sionna"] for row in rows if "Sionna" in row]
    own = {row["name"]: row["Sionna"] for row in rows if "Sionna" in row and not row["omni"] and row["spread"] < LONG}
    yield "ft-sionna", judged("Beside it the map is {}.", own) + everywhere(every)
    yield "ft-matrices", rows[0]["count"]
    yield "ft-held-solves", rows[0]["held solves"]
    yield "ft-lost-short", at_least(max(row["lost"] for row in rows if math.isclose(row["spread"], SHORT)), 1)
    yield "ft-held-short", at_least(max(row["lost, held"] for row in rows if math.isclose(row["spread"], SHORT)), 1)
    yield "ft-held-most", share(max(row["lost, held"] for row in rows))
    yield "ft-still-most", at_least(max(row["lost, still"] for row in rows), 1)
    yield "ft-still-solves", rows[0]["still solves"]
    yield "ft-both-solves", rows[0]["both solves"]
    yield "ft-both-short", at_least(max(row["lost, both"] for row in rows if math.isclose(row["spread"], SHORT)), 1)
    yield "ft-both-most", share(max(row["lost, both"] for row in rows))
    yield "ft-hold", to_hold(record)
    yield "ft-map-most", at_least(max(row["lost"] for row in rows), 1)
    yield "ft-held-svd", at_least(max(row["lost, held"] for row in chosen(record)["SVD 16 x 64"]), 1)
    yield "ft-slots", len(rows)
    yield "ft-holding", sum(row["holds time"] for row in rows)
    yield "ft-tally", counted([row[exact_of(row)] for row in rows])
    yield "ft-linear-solves", rows[0]["linear solves"]
    yield "ft-linear-short", at_least(max(row["lost, linear"] for row in rows if math.isclose(row["spread"], SHORT)), 1)
    yield "ft-linear-most", share(max(row["lost, linear"] for row in rows))
    for key in ("still", "both", "linear"):
        yield f"ft-{key}-tally", counted([row[key] for row in rows])
    yield from frame_lines(record)
    yield from other_lines(record)


def counted(found: Sequence[Sequence[float]]) -> str:
    """Return in how many problems one is faster, or that none was timed."""
    return UNTIMED if all(math.isnan(ratio[1]) for ratio in found) else tally(found)


def to_hold(record: Record) -> str:
    """Return what to hold at walking pace, by the rates that are lost and the times that are known."""
    rows = record.numbers["slot"]
    less = sum(row["lost, still"] < row["lost, held"] for row in rows)
    first = (
        f"One result for each tone and slot loses less than one for each block and symbol in {less} of {len(rows)} "
        f"slots. Beside it, it is {counted([row['still beside held'] for row in rows])}."
    )
    return " ".join([first, *(enough(rows, key) for key in ("both", "linear"))])


def enough(rows: Sequence[Row], key: str) -> str:
    """Return in which slots few held results lose less than a thousandth of the rate, and how fast they are."""
    where, good = {}, []
    for value in slots.SPREADS:
        for task in slots.TASKS:
            own = [row for row in rows if row["task"] == task and math.isclose(row["spread"], value)]
            if max(row[f"lost, {key}"] for row in own) < RATE:
                where.setdefault(f"{1e9 * value:g} ns", []).append(task)
                good += own
    name = f"{capital(HELD[key][0])}, {rows[0][f'{key} solves']:,} solves,"
    if not good:
        return f"{name} loses a thousandth of the rate, or more, at every delay spread."
    tasks = {at: "every task" if len(own) == len(slots.TASKS) else listed(own) for at, own in where.items()}
    names = "; ".join(f"at {at} for {own}" for at, own in tasks.items())
    return (
        f"{name} loses less than a thousandth of the rate {names}, with directional users and with omnidirectional "
        f"ones. At 10 dB over the array it is enough there. Beside one for each tone and slot it is, there, "
        f"{counted([row[f'{key} beside still'] for row in good])}."
    )


def frame_lines(record: Record) -> Iterator[tuple[str, object]]:
    """Yield what the text says of frames."""
    rows = record.numbers["frame"]
    yield "ft-frame", rows[0]["count"]
    yield "ft-looped", slots.LOOPED
    errors = {svd: max(row["error"] for row in rows if ("SVD" in row["task"]) == svd) for svd in (False, True)}
    yield "ft-frame-error", at_least(errors[False])
    missed = [row["name"] for row in rows if "SVD" in row["task"] and not row["met"]]
    told_of = f"Every fit of triplets meets its tolerance, and their errors are at most {at_least(errors[True])}."
    if missed:
        told_of = (
            f"**Of {listed(missed)} some fits miss the tolerance:** the error is {at_least(errors[True])}. In some "
            "slots the fourth singular value nearly meets the fifth, and the span of four turns fast. There the fit "
            "ends by its number of solves, and its report names the place. Who needs those triplets solves exactly."
        )
    yield "ft-frame-svd-told", told_of
    yield "ft-frame-lost", at_least(max(row["lost"] for row in rows), 1)
    yield "ft-frame-memory", at_least(max(row["memory"] for row in rows))
    for key, task in (("eight", "LMMSE"), ("svd", "SVD")):
        own = [row for row in rows if row["task"].startswith(task)]
        names = [row["name"].rpartition(", ")[2] for row in own]
        for short, what, text in (
            ("exact", exact_of(own[0]), "With all fits counted the map is {}."),
            ("loop", "NumPy loop", "Beside the NumPy loop it is {}."),
        ):
            yield f"ft-frame-{key}-{short}", judged(text, {name: row[what] for name, row in zip(names, own)})
        yield (
            f"ft-frame-{key}-copy",
            told(
                "It takes {} (30 ns) and {} (100 ns) times as long as to copy the outputs.",
                *(row["over a copy"] for row in own),
            ),
        )
        yield f"ft-frame-{key}-solves", listed([f"{row['solves']:,}" for row in own])
        yield f"ft-frame-{key}-linear", linear_told(own)
        lost, error = (at_least(max(abs(row[what]) for row in own), 1) for what in ("held lost", "held error"))
        held = judged("Beside it the map is {}.", {name: row["held"] for name, row in zip(names, own)})
        yield f"ft-frame-{key}-held", f"It loses at most {lost} of the rate, and errs by at most {error}. {held}"


def linear_told(rows: Sequence[Row]) -> str:
    """Return how good results are that are linear in time between exact ones, and how fast the map is beside them."""
    found = {row["name"].rpartition(", ")[2]: row for row in rows if "linear" in row}
    missing = [row["name"].rpartition(", ")[2] for row in rows if "linear" not in row]
    none = f"On {listed(missing)} no step that was tried keeps that error." if missing else ""
    if not found:
        return none
    steps = listed([f"{row['linear step']} symbols ({name})" for name, row in found.items()])
    error = at_least(max(row["linear error"] for row in found.values()))
    lost = at_least(max(abs(row["linear lost"]) for row in found.values()), 1)
    beside = judged("Beside them the map is {}.", {name: row["linear"] for name, row in found.items()})
    said = f"With a step of {steps} their error is at most {error}, as asked of the map. "
    said += f"Their rate differs by at most {lost} from that of exact ones."
    return f"{said} {beside} {none}".strip()


def other_lines(record: Record) -> Iterator[tuple[str, object]]:
    """Yield what the text says of users, lines of sight and the noise level."""
    drops, sight, (noise,) = (record.numbers[key] for key in ("near_far", "line_of_sight", "noise"))
    yield "ft-drops", len(drops) - 1
    yield "ft-drops-sum", min(row["sum"] for row in drops)
    yield "ft-drops-weakest", min(row["weakest"] for row in drops)
    yield "ft-drops-gains", listed([f"{pick(row['gains'] for row in drops):.0f}" for pick in (min, max)])
    yield (
        "ft-drops-solves",
        " to ".join(f"{100 * pick(row['solves'] / row['count'] for row in drops):.0f}" for pick in (min, max)),
    )
    yield "ft-drops-tol", drops[0]["tol"]
    yield "ft-step", max(row["step"] for row in sight)
    yield "ft-step-left", f"{100 * max(1 - row['apart'] for row in sight):.0f}"
    yield "ft-sight-lost", at_least(max(row["lost"] for row in sight), 1)
    yield "ft-noise-solves", noise["solves"]
    yield "ft-noise-levels", noise["levels"]
    passed = load(study_of("several_parameters")).numbers["wireless"]["break_even"]
    yield "ft-noise-even", matrices(passed["eigendecomposition per frequency"])
    yield "ft-noise-lost", at_least(noise["lost"], 1)
    yield "ft-noise-largest", at_least(noise["largest lost"], 1)
    yield (
        "ft-noise-seconds",
        told("The fit takes {} s on this machine.", noise["seconds"], how=lambda ratio: times(ratio[1])),
    )


def glue_all(record: Record) -> None:
    """Glue what the text says."""
    for key, value in lines(record):
        glue(key, value)


def check(record: Record) -> None:
    """Assert what the text says in words alone; what it says of times follows from the quartiles."""
    short = [row for row in record.numbers["slot"] if math.isclose(row["spread"], SHORT)]
    assert all(row["met"] for row in record.numbers["slot"]), "every tolerance is met"
    assert all(row["lost"] < RATE and row["lost, held"] < RATE for row in short), "at 30 ns both keep the rate"
    assert all(row["lost, both"] < RATE for row in short), "at 30 ns one for each block and slot is enough"
    nearer = [row["lost, linear"] < row["lost, both"] for row in record.numbers["slot"] if row["spread"] < 1.1 * LONG]
    assert all(nearer), "up to 300 ns linear between blocks is better than held over them"
    more = [row["lost, still"] < row["lost, held"] for row in record.numbers["slot"]]
    assert sum(more) > len(more) / 2, "over the slot is held, not over a block"
    long = [row for row in record.numbers["slot"] if row["spread"] > LONG / 2 and "LMMSE" in row["task"]]
    assert all(row["lost"] < row["lost, held"] for row in long), "from 300 ns on maps of filters lose less than blocks"
    assert all(row["lost, still"] < RATE for row in record.numbers["slot"]), "one for each tone is good for the rate"
    check_frames(record.numbers["frame"])
    drops = record.numbers["near_far"]
    assert all(min(row["sum"], row["weakest"]) >= NEAR_FAR for row in drops)
    assert all(row["solves"] > 0.2 * row["count"] for row in drops), "solving every tone is the better choice"
    loose = [row for row in record.numbers["tolerance"] if math.isclose(row["spread"], SHORT)]
    assert loose[0]["lost"] < RATE, "at 30 ns the loosest tolerance is enough"
    assert all(row["step"] <= STEP and row["lost"] < RATE for row in record.numbers["line_of_sight"])
    (noise,) = record.numbers["noise"]
    assert noise["met"] and noise["largest lost"] < RATE


def check_frames(rows: Sequence[Row]) -> None:
    """Assert what the text says of frames."""
    filters, triplets = ([row for row in rows if ("SVD" in row["task"]) == svd] for svd in (False, True))
    assert all(row["error"] <= ERROR and row["met"] for row in filters)
    assert all("linear" in row for row in filters), "filters may be linear in time"
    linear = [row for row in rows if "linear" in row]
    assert all(row["linear error"] <= ERROR and abs(row["linear lost"]) < RATE for row in linear)
    assert all(row["lost"] < RATE for row in rows), "the rate does not see it"
    assert all(row["error"] <= ERROR for row in triplets if row["met"])
