"""Receivers of one band: a map in pieces beside its peers, at equal exact solves and at equal time.

Studies, tables, figures and words of the chapter *Wireless inversion*. What is computed hangs on no clock; times are
parts of their own, which the chapter takes from its published study.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from matplotlib.figure import Figure
from torch import Tensor

import neumatc as nm
from neumatc import checks
from studies import benchmark, figures, provenance, receivers, slots
from studies.measurements import tally
from studies.provenance import Record, Table
from studies.texts import UNTIMED, UNTOLD, at_least, between, conditions, judged, listed, side, spread
from studies.tones import GROUP, Filters

Row = dict[str, object]
Peer = Callable[[Tensor, float, int], Filters]

TASKS = tuple(name for name, task in slots.TASKS.items() if task.receives)
EIGHT, MANY = TASKS
NOISE = slots.NOISE
# Of the residual of the maps: a tenth is enough for rates (chapter *Frequency and time*). The ladder has more.
TOL, TOLS = 0.1, (0.3, 0.1, 0.03, 0.01)
# Delay spreads: that at which all peers run, and that at which each gets several numbers of solves; the ends.
ALL, NOMINAL = 300e-9, 100e-9
SPREADS = slots.SPREADS
SHORT, LONGEST = min(SPREADS), max(SPREADS)
# One solve in so many tones, on the ladder.
RUNGS = (96, 48, 24, 12, 6)
# And in so many where nothing but linear interpolation is tried, for long delays.
FINER = (4, 3, 2)
# One tone in so many is judged, or fewer: `studies.receivers.compared` keeps clear of the spacing of each way's solves.
EVERY = 5
# Solves from which on the window of delays is left out: it factorises a matrix of that size.
WIDEST = 600
# A rate that is lost and cannot be told from rounding, and what a receiver would not notice.
ROUNDING, RATE = 1e-6, 1e-3

MAP, BLOCKS = "map", "one for each block"
CHOLESKY, SIONNA = "Cholesky, every tone", "Sionna, every tone"
HELD, LINEAR, CUBIC, DFT, WINDOW, NEIGHBOUR = (
    "held",
    "linear",
    "cubic spline",
    "DFT",
    "delay window",
    "Neumann, neighbour",
)
LAURENT, QR, GRAM = "interpolated inversion", "interpolated QR", "Gram, linear"
# Iterations that start from no exact solve.
BLIND = tuple(name for name in receivers.PEERS if name.endswith(("diagonal", "random", "Neumann, block")))
# Those that interpolate filters, and so read the channel at few tones.
FEW = (HELD, LINEAR, CUBIC, DFT)
BESIDE = (*FEW, NEIGHBOUR)
STEPPED = (*FEW, WINDOW, NEIGHBOUR)


@dataclass(frozen=True)
class Band:
    """One band: what is computed, its delay spread in seconds, and whether users receive alike from everywhere."""

    task: str
    spread: float
    omni: bool

    @property
    def name(self) -> str:
        """What tables call it, without the task.

        Example:
            >>> Band(EIGHT, 1e-6, True).name
            'omni, 1,000 ns'
        """
        return f"{'omni' if self.omni else 'directional'}, {1e9 * self.spread:,.0f} ns"

    @property
    def entry(self) -> Row:
        """Its place in a record."""
        return {"task": self.task, "spread": self.spread, "omni": self.omni}

    def channels(self, subcarriers: int, seed: int) -> Tensor:
        """Draw CDL-C, and return H at all tones, shape (N, m, n): as a receiver knows it."""
        channel = slots.TASKS[self.task].channel(self.spread, self.omni, subcarriers=subcarriers, seed=seed)
        return channel(channel.frequencies)


def bands(spreads: Sequence[float] = SPREADS) -> list[Band]:
    """Return the bands of the chapter, one for each task, pattern of the users' antennas and delay spread."""
    return [Band(task, value, omni) for task, omni, value in product(TASKS, (False, True), spreads)]


def fitted(H: Tensor, noise: float, *, tol: float = TOL) -> tuple[Filters, bool]:
    """Fit a map in pieces to a tolerance from channels on the grid, and evaluate it at all tones.

    Args:
        H: Channels on the grid of tones, shape (N, m, n).
        noise: s, the power of the noise.
        tol: Relative residual of the filters.

    Returns:
        W, shape (N, n, m), with the exact solves that the fit found necessary; and whether it met its tolerance.
    """
    place = torch.arange(len(H), dtype=torch.float64)
    family = nm.families.from_grid([place], H, names=["tone"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)  # what is not met is returned
        surrogate = nm.fit(nm.Problem(family, nm.LMMSE(noise=noise)), tol=tol, progress=False)
    return Filters(surrogate(place), min(surrogate.report.exact_solves, len(H))), bool(surrogate.report.met)


def blocks(H: Tensor, noise: float, solves: int | None = None) -> Filters:
    """Solve for the middle of each block of twelve tones, whatever ``solves`` says.

    5G does much the same with precoders, over two or four blocks or the whole allocation.
    """
    return receivers.held(H, noise, -(-len(H) // GROUP))


def window(H: Tensor, noise: float, solves: int) -> Filters:
    """Interpolate by a window of delays, if that is not too large a problem itself."""
    remedy = "it factorises a matrix of that size; take a spline"
    checks.require(solves <= WIDEST, "solves", f"at most {WIDEST} for a window of delays", solves, remedy)
    return receivers.delay_window(H, noise, solves)


def peer(name: str) -> Peer:
    """Return a peer by its name."""
    return {BLOCKS: blocks, WINDOW: window}.get(name) or receivers.PEERS[name]


def judged_rows(H: Tensor, solves: int, peers: Mapping[str, Peer], noise: float = NOISE) -> dict[str, Row]:
    """Run peers once each, and return by name their solves, error and lost rate over every fifth tone or so."""
    rows = receivers.compared(H, noise, solves, dict(peers), calls=1, every=EVERY)
    keys = ("solves", "error", "worst", "loss", "refused")
    return {row.name: {key: getattr(row, key) for key in keys} for row in rows}


def line(band: Band, H: Tensor, *, every_peer: bool = False, rungs: Sequence[int] = RUNGS) -> Row:
    """Compare the map of one band with peers that get the number of exact solves that it has found.

    Args:
        band: Which one.
        H: Its channels.
        every_peer: All of `receivers.PEERS`; else those that interpolate, and one iteration.
        rungs: Of the ladder: linear interpolation gets one solve in so many tones.

    Returns:
        Place of the band, ``solves``, ``met``, ``count``, and ``ways``: by name what `judged_rows` returns. So are
        ``steps``, linear interpolation with the numbers of solves of the ladder.
    """
    own, met = fitted(H, NOISE)
    names = [*receivers.PEERS] if every_peer else list(BESIDE)
    peers = {MAP: lambda *_: own, BLOCKS: blocks} | {name: peer(name) for name in names}
    ways = judged_rows(H, own.solves, peers)
    found = judged_rows(H, len(H), steps(H, (), (*rungs, *FINER), (LINEAR,)))
    return band.entry | {"solves": own.solves, "met": met, "count": len(H), "ways": ways, "steps": found}


def lines(record: Record, spreads: Sequence[float], *, subcarriers: int, rungs: Sequence[int] = RUNGS) -> None:
    """Record ``bands``, a row for each task, pattern and delay spread; all peers run where that is `ALL`."""
    record.numbers["bands"] = [
        line(
            band,
            band.channels(subcarriers, record.seed),
            every_peer=math.isclose(band.spread, ALL) and not band.omni,
            rungs=rungs,
        )
        for band in bands(spreads)
    ]


def steps(H: Tensor, tols: Sequence[float], rungs: Sequence[int], ways: Sequence[str] = STEPPED) -> dict[str, Peer]:
    """Return what runs on the ladder: maps of several tolerances, and peers with one solve in so many tones.

    Their names are those of `stepped`.
    """
    found: dict[str, Peer] = {stepped(MAP, tol): lambda H, s, _, tol=tol: fitted(H, s, tol=tol)[0] for tol in tols}
    for name, rung in product(ways, rungs):
        solves = max(4, -(-len(H) // rung))  # a cubic spline needs four
        found[stepped(name, rung)] = lambda H, s, _, name=name, solves=solves: peer(name)(H, s, solves)
    return found


def stepped(name: str, step: float) -> str:
    """Return the name of one step of a way on the ladder.

    Example:
        >>> stepped("held", 12), stepped("map", 0.1)
        ('held @ 12', 'map @ 0.1')
    """
    return f"{name} @ {step:g}"


def ladder(record: Record, *, subcarriers: int, tols: Sequence[float] = TOLS, rungs: Sequence[int] = RUNGS) -> None:
    """Record ``ladder``: for each task, what each step of each way costs in solves, error and rate; and the steps."""
    record.numbers |= {"tols": list(tols), "rungs": list(rungs), "ladder": {}}
    for task in TASKS:
        H = Band(task, NOMINAL, False).channels(subcarriers, record.seed)
        record.numbers["ladder"][task] = judged_rows(H, len(H), steps(H, tols, rungs))


def ways_up(record: Record, way: str) -> list[str]:
    """Return the names of the steps of a way on the ladder, the coarsest first."""
    return [stepped(way, step) for step in record.numbers["tols" if way == MAP else "rungs"]]


def tried(record: Record) -> list[str]:
    """Return the names of all steps of linear interpolation, the coarsest first."""
    return [*ways_up(record, LINEAR), *(stepped(LINEAR, rung) for rung in FINER)]


def line_times(record: Record, *, subcarriers: int, rounds: int) -> None:
    """Record ``band_times``: how many times as long as the map, its fit counted, others take on each band.

    Args:
        record: Has ``bands``, whose numbers of solves the peers get.
        subcarriers: Tones of a band.
        rounds: Of the alternating measurement.
    """
    found = []
    for row in record.numbers["bands"]:
        band = Band(*(row[key] for key in ("task", "spread", "omni")))
        H = band.channels(subcarriers, record.seed)
        peers = {name: peer(name) for name in (CHOLESKY, SIONNA, BLOCKS, CUBIC)}
        timings = benchmark.compare(
            {MAP: partial(fitted, H, NOISE)}
            | {name: partial(way, H, NOISE, row["solves"]) for name, way in peers.items()},
            rounds=rounds,
        )
        over = {name: timings.ratio(name, MAP) for name in peers}
        found.append(band.entry | {"over": over, "conditions": timings.conditions})
    record.numbers["band_times"] = found


def ladder_times(record: Record, *, subcarriers: int, rounds: int) -> None:
    """Record ``ladder_times``: what each step of each way takes, over Cholesky at every tone, and over the map."""
    record.numbers["ladder_times"] = {}
    for task in TASKS:
        H = Band(task, NOMINAL, False).channels(subcarriers, record.seed)
        ways = steps(H, record.numbers["tols"], record.numbers["rungs"]) | steps(H, (), FINER, (LINEAR,))
        ways |= {name: peer(name) for name in (CHOLESKY, SIONNA)}
        timings = benchmark.compare({name: partial(way, H, NOISE, len(H)) for name, way in ways.items()}, rounds=rounds)
        record.numbers["ladder_times"][task] = {
            "over": {name: timings.ratio(name, CHOLESKY) for name in ways},
            "over the map": {name: timings.ratio(name, stepped(MAP, TOL)) for name in ways},
            "conditions": timings.conditions,
        }


def chosen(record: Record, task: str, *, omni: bool | None = None) -> list[Row]:
    """Return the rows of a task, of one pattern of antennas or both, by rising delay spread."""
    return [r for r in record.numbers["bands"] if r["task"] == task and omni in (None, r["omni"])]


def times_of(record: Record, row: Row) -> Mapping[str, Sequence[float]]:
    """Return how many times as long as the map others take on the band of a row."""
    band = Band(*(row[key] for key in ("task", "spread", "omni")))
    (found,) = (x["over"] for x in record.numbers["band_times"] if band.entry.items() <= x.items())
    return found


def name_of(row: Row) -> str:
    """Return what tables call the band of a row."""
    return Band(row["task"], row["spread"], row["omni"]).name


def share(lost: float) -> str:
    """Return a part of the rate that is lost; one of the size of rounding, on either side of zero, as such.

    Example:
        >>> share(2.3e-5), share(-2e-9), share(float("nan"))
        ('2e-05', '< 1e-06', 'none')
    """
    if math.isnan(lost):
        return "none"
    return f"{lost:.0e}" if lost >= ROUNDING else f"< {ROUNDING:.0e}"


def both(way: Row) -> str:
    """Return error and lost rate of a way, in one cell."""
    return "refused" if way["refused"] else f"{way['error']:.0e} / {share(way['loss'])}"


def bands_table(record: Record, task: str) -> Table:
    """Tabulate error and lost rate, a line for each band of a task."""
    shown = (MAP, *BESIDE, BLOCKS)
    rows = []
    for row in chosen(record, task):
        solves = f"{row['solves']:,}" + ("" if row["met"] else ", not met")
        rows.append([name_of(row), solves, *(both(row["ways"][way]) for way in shown)])
    return Table(["users, delay spread", "solves", *shown], rows)


def peers_table(record: Record) -> Table:
    """Tabulate all peers on one band of each task."""
    found = {task: every_peer(record, task)["ways"] for task in TASKS}
    rows = []
    for way in found[EIGHT]:
        cells = []
        for ways in found.values():
            own = ways[way]
            cells += [f"{own['solves']:,}", both(own)] if not own["refused"] else ["", "refused"]
        rows.append([way, *cells])
    head = [text for task in TASKS for text in (f"{task}: solves", "error / rate lost")]
    return Table(["receiver", *head], rows)


def every_peer(record: Record, task: str) -> Row:
    """Return the row of a task in which all peers have run."""
    (row,) = (row for row in chosen(record, task, omni=False) if math.isclose(row["spread"], ALL))
    return row


def times_table(record: Record) -> Table:
    """Tabulate how many times as fast as others the map of each band is, its fit counted."""
    rows = []
    for row in record.numbers["bands"]:
        over = times_of(record, row)
        rows.append([row["task"], name_of(row), *(spread(over[way]) for way in (CHOLESKY, SIONNA, BLOCKS, CUBIC))])
    head = [CHOLESKY, SIONNA, BLOCKS, f"{CUBIC}, as many solves"]
    return Table(["filters", "users, delay spread", *head], rows)


# Ticks of how many times as fast one is as another.
FACTORS = (0.1, 0.2, 0.5, 1, 2)
COLOURS = {
    MAP: (figures.BLUE, "o-"),
    CUBIC: (figures.RED, "^-."),
    HELD: (figures.BLACK, "s:"),
    LINEAR: (figures.ORANGE, "D--"),
    DFT: (figures.PURPLE, "v--"),
    WINDOW: (figures.GREEN, "P-."),
    NEIGHBOUR: (figures.SKY, "X--"),
}


def headline_figure(record: Record) -> Figure:
    """Plot how many times as fast as batched Cholesky and as one solve for each block a map is, over the delay."""
    if all(math.isnan(times_of(record, row)[CHOLESKY][1]) for row in record.numbers["bands"]):
        return figures.undrawn()
    figure, panels = figures.stacked(2, 2.9, sharex=True, sharey=True)
    for axes, omni in zip(panels, (False, True)):
        for (task, colour), (way, style) in product(
            zip(TASKS, (figures.BLUE, figures.ORANGE)), ((CHOLESKY, "o-"), (BLOCKS, "s:"))
        ):
            rows = chosen(record, task, omni=omni)
            x = [1e9 * row["spread"] for row in rows]
            low, middle, high = zip(*(times_of(record, row)[way] for row in rows))
            label = f"{task.removeprefix('LMMSE ')}: as {'Cholesky' if way == CHOLESKY else way}"
            axes.loglog(x, middle, style, color=colour, ms=4.5, label=label)
            axes.fill_between(x, low, high, color=colour, alpha=0.25, lw=0)
        axes.set(title="omnidirectional users" if omni else "directional users")
        figures.times_as_fast(axes, FACTORS)
        figures.ticks_at(axes, x)
    panels[-1].set_xlabel("delay spread (ns)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=figures.SMALLEST
    )
    return figure


def rate_figure(record: Record) -> Figure:
    """Plot the rate that a map, a spline with as many solves, and one solve for each block lose, over the delay."""
    figure, panels = figures.stacked(2, 2.9, sharex=True, sharey=True)
    for axes, omni in zip(panels, (False, True)):
        for (task, line), way in product(zip(TASKS, ("-", "--")), (MAP, CUBIC, BLOCKS)):
            rows = chosen(record, task, omni=omni)
            x = [1e9 * row["spread"] for row in rows]
            y = [max(row["ways"][way]["loss"], ROUNDING) for row in rows]
            colour, mark = (COLOURS | {BLOCKS: COLOURS[HELD]})[way]
            axes.loglog(x, y, mark[0], ls=line, color=colour, ms=4.5, label=way if task == EIGHT else None)
        axes.axhline(RATE, color=figures.RED, lw=1.2, ls=":")
        axes.set(title="omnidirectional users" if omni else "directional users", ylabel="rate lost")
        figures.ticks_at(axes, x)
    panels[-1].set_xlabel("delay spread (ns)")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=figures.SMALLEST)
    return figure


def solves_figure(record: Record, task: str = MANY) -> Figure:
    """Plot error and lost rate over exact solves on one band."""
    found = record.numbers["ladder"][task]
    figure, panels = figures.stacked(2, 3.2, sharex=True)
    for axes, key, label in zip(panels, ("error", "loss"), ("relative error", "rate lost")):
        drawn = []
        for way, (colour, style) in COLOURS.items():
            own = [found[name] for name in ways_up(record, way)]
            y = [max(x[key], ROUNDING / 10 if key == "loss" else 0) for x in own]
            drawn += axes.loglog([x["solves"] for x in own], y, style, color=colour, ms=4, label=way)
        axes.set_ylabel(label)
        axes.axvline(blocks_of(record), color=figures.GREY, lw=1, ls=":")
        ticks = [found[name]["solves"] for name in ways_up(record, HELD)]
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.minorticks_off()
        figures.name_lines(axes, drawn)
    panels[-1].set_xlabel("exact solves")
    return figure


def blocks_of(record: Record) -> int:
    """Return how many blocks of twelve tones a band has."""
    return record.numbers["bands"][0]["ways"][BLOCKS]["solves"]


def equal_time_figure(record: Record) -> Figure:
    """Plot the lost rate over the time of a whole band, in units of Cholesky at every tone, a panel for each task."""
    found = record.numbers["ladder_times"]
    if all(math.isnan(ratio[1]) for own in found.values() for ratio in own["over"].values()):
        return figures.undrawn()
    figure, panels = figures.stacked(2, 3.2)
    for axes, task in zip(panels, TASKS):
        over, errors, drawn = found[task]["over"], record.numbers["ladder"][task], []
        for way, (colour, style) in COLOURS.items():
            names = ways_up(record, way)
            y = [max(errors[name]["loss"], ROUNDING / 10) for name in names]
            drawn += axes.loglog([over[name][1] for name in names], y, style, color=colour, ms=4, label=way)
        axes.axvline(1, color=figures.RED, lw=1.2, ls="--")
        axes.set(title=task, ylabel="rate lost")
        figures.name_lines(axes, drawn)
    panels[-1].set_xlabel("time of a band, over Cholesky at every tone")
    return figure


def within(record: Record, task: str, way: str) -> Row | None:
    """Return the step of a peer that loses least of the rate and takes no longer than the map.

    Not longer: its upper quartile over the map is at most one.

    Returns:
        The step's row, or None where no step is so fast.
    """
    over, found = record.numbers["ladder_times"][task]["over the map"], record.numbers["ladder"][task]
    names = ways_up(record, way)
    fast = [found[name] for name in names if over[name][2] <= 1 and not found[name]["refused"]]
    return min(fast, key=lambda row: row["loss"], default=None)


def timed(record: Record, task: str) -> bool:
    """Say whether any step of the ladder has a time."""
    return not all(math.isnan(x[1]) for x in record.numbers["ladder_times"][task]["over the map"].values())


def equal_time_table(record: Record) -> Table:
    """Tabulate what each peer reaches in the time of the map."""
    rows = []
    own = [record.numbers["ladder"][task][stepped(MAP, TOL)] for task in TASKS]
    rows.append([f"{MAP}, tolerance {TOL:g}", *(text for row in own for text in (f"{row['solves']:,}", both(row)))])
    for way in STEPPED:
        cells = []
        for task in TASKS:
            best = within(record, task, way)
            missing = "slower" if timed(record, task) else UNTIMED
            cells += ["", missing] if best is None else [f"{best['solves']:,}", both(best)]
        rows.append([way, *cells])
    head = [text for task in TASKS for text in (f"{task}: solves", "error / rate lost")]
    return Table(["receiver", *head], rows)


def finer(record: Record, way: str, task: str) -> list[Row]:
    """Return the rows in which a peer with as many exact solves as the map has a smaller error."""
    return [row for row in chosen(record, task) if row["ways"][way]["error"] < row["ways"][MAP]["error"]]


def lost(record: Record, way: str, at: float | None = None) -> list[float]:
    """Return the parts of the rate that a way loses, on all bands or on those of one delay spread."""
    rows = [row for row in record.numbers["bands"] if at is None or math.isclose(row["spread"], at)]
    return [row["ways"][way]["loss"] for row in rows]


def lost_by(record: Record, way: str, band: Band) -> float:
    """Return the part of the rate that a way loses on one band."""
    (row,) = (row for row in record.numbers["bands"] if band.entry.items() <= row.items())
    return row["ways"][way]["loss"]


def said(record: Record) -> Iterator[tuple[str, object]]:
    """Yield what the text says, by name."""
    rows = record.numbers["bands"]
    yield "wi-bands", len(rows)
    yield "wi-tones", rows[0]["count"]
    yield "wi-blocks", blocks_of(record)
    yield "wi-map-tol", TOL
    yield "wi-most-tried", f"{max(row['solves'] for row in rows[0]['steps'].values()):,}"
    yield "wi-finer", sum(len(finer(record, CUBIC, task)) for task in TASKS)
    yield "wi-map-lost", f"{at_least(max(lost(record, MAP)), 1):.0e}"
    for key, task in (("eight", EIGHT), ("many", MANY)):
        for pattern, omni in (("", False), ("-omni", True)):
            own = [row["solves"] for row in chosen(record, task, omni=omni)]
            yield f"wi-{key}-solves{pattern}", f"{own[0]:,} to {own[-1]:,}"
        yield f"wi-{key}-take", take_sentence(record, task)
        yield f"wi-{key}-finer", len(finer(record, CUBIC, task))
        yield f"wi-{key}-bands", len(chosen(record, task))
        ways = every_peer(record, task)["ways"]
        # Rounded down: the text says at least.
        yield f"wi-{key}-blind", int(100 * min(ways[way]["loss"] for way in BLIND if not ways[way]["refused"]))
        yield f"wi-{key}-laurent", ways[LAURENT]["error"]
    for short, at in (("short", SHORT), ("nominal", NOMINAL), ("long", ALL), ("longest", LONGEST)):
        found = lost(record, BLOCKS, at)
        yield f"wi-blocks-{short}", percents(found) if found else "not computed"  # at the sizes of a test
    yield "wi-left", left_sentence(record)
    yield "wi-untimed", untimed_sentence(record)
    yield from said_of_times(record)


def enough(record: Record, row: Row) -> str | None:
    """Return the coarsest step at which linear interpolation loses less than `RATE` on a band, None if none does."""
    return next((name for name in tried(record) if row["steps"][name]["loss"] < RATE), None)


def over_cholesky(record: Record, task: str, name: str) -> Sequence[float]:
    """Return how many times as long as Cholesky at every tone a step takes; times of an older run may lack it."""
    return record.numbers["ladder_times"][task]["over"].get(name, benchmark.UNKNOWN)


def enough_table(record: Record) -> Table:
    """Tabulate the fewest solves between which linear interpolation loses less than `RATE`, and its time."""
    rows = []
    for row in record.numbers["bands"]:
        name = enough(record, row)
        cells = ["more than tried", "", ""]
        if name is not None:
            own, ratio = row["steps"][name], over_cholesky(record, row["task"], name)
            cells = [f"{own['solves']:,}", share(own["loss"]), spread(ratio)]
        rows.append([row["task"], name_of(row), *cells, share(row["ways"][BLOCKS]["loss"])])
    head = ["linear: solves", "rate lost", f"time over {CHOLESKY}", f"{BLOCKS}: rate lost"]
    return Table(["filters", "users, delay spread", *head], rows)


def take_sentence(record: Record, task: str) -> str:
    """Say up to which delays linear interpolation on the ladder loses less than `RATE`."""
    parts = []
    for omni, users in ((False, "directional"), (True, "omnidirectional")):
        rows = chosen(record, task, omni=omni)
        names = [enough(record, row) for row in rows]
        good = [row["steps"][name]["solves"] for row, name in zip(rows, names) if name is not None]
        short = [f"{1e9 * row['spread']:,.0f} ns" for row, name in zip(rows, names) if name is None]
        found = f"{min(good):,} to {max(good):,} exact filters are enough" if good else "no number that was tried is"
        rest = f", but none of them at {listed(short)}" if good and short else ""
        parts.append(f"with {users} users {found}{rest}")
    return f"{'Eight streams' if task == EIGHT else '32 streams'}: {'; '.join(parts)}."


def left_sentence(record: Record) -> str:
    """Say where no number of solves that was tried keeps the rate in less time than Cholesky takes at every tone."""
    left, times = [], []
    for row in record.numbers["bands"]:
        name = enough(record, row)
        times.append(over_cholesky(record, row["task"], name) if name is not None else [math.inf] * 3)
        if times[-1][2] >= 1:
            left.append(name_of_task(row))
    if left:
        return f"That leaves {listed(left)}: there take all tones by batched Cholesky, which needs no number of solves."
    known = not any(math.isnan(time[1]) for time in times)
    return f"It is on every band{', in less time than batched Cholesky' if known else '; not all its times are known'}."


def untimed_sentence(record: Record) -> str:
    """Say on how many bands linear interpolation keeps the rate with a number of exact filters that has no time."""
    found: dict[str, list[Row]] = {}
    for row in record.numbers["bands"]:
        name = enough(record, row)
        if name is not None and math.isnan(over_cholesky(record, row["task"], name)[1]):
            found.setdefault(name, []).append(row)
    parts = []
    for name, rows in found.items():
        where, solves = listed([name_of_task(row) for row in rows]), rows[0]["steps"][name]["solves"]
        rung, many = name.rpartition(" ")[2], "one band" if len(rows) == 1 else f"{len(rows)} bands"
        parts.append(f"On {many} it takes {solves:,}, one in {rung}, which was not timed: {where}.")
    return " ".join(parts) or "All these numbers were timed."


def name_of_task(row: Row) -> str:
    """Return in words which band a row is, with its streams."""
    return f"{'eight' if row['task'] == EIGHT else '32'} streams ({name_of(row)})"


def beside_spline(record: Record) -> str:
    """Say on how many bands the map is faster than Cholesky, and on how many a spline has the smaller error."""
    rows, spline = record.numbers["bands"], [row for task in TASKS for row in finer(record, CUBIC, task)]
    everywhere = f"on {len(spline)} of all {len(rows)} bands a cubic spline through as many has the smaller error"
    over = [times_of(record, row)[CHOLESKY] for row in rows]
    if all(math.isnan(ratio[1]) for ratio in over):
        return f"If you know how many solves your channels need: {everywhere}."
    faster = [row for row, ratio in zip(rows, over) if side(ratio, "faster", "", "") == "faster"]
    both_ways = sum(any(row is other for other in spline) for row in faster)
    told = f"The map is faster than Cholesky on {len(faster)} bands. If you know how many solves your channels need, "
    return f"{told}{everywhere}, and on {both_ways} of these {len(faster)}."


def percents(parts: Sequence[float]) -> str:
    """Return the ends of some parts in per cent.

    Example:
        >>> percents([2e-5, 0.12])
        'from 0.002 to 12 %'
    """
    return f"{between(100 * min(parts), 100 * max(parts), '.2g')} %"


def said_of_times(record: Record) -> Iterator[tuple[str, object]]:
    """Yield what the text says of times; it follows from quartiles."""
    for key, task in (("eight", EIGHT), ("many", MANY)):
        for pattern, omni in (("", False), ("-omni", True)):
            over = {f"{1e9 * r['spread']:,.0f} ns": times_of(record, r) for r in chosen(record, task, omni=omni)}
            for short, way, text in (
                ("cholesky", CHOLESKY, "Beside batched Cholesky the map is {}."),
                ("blocks", BLOCKS, "Beside one solve for each block it is {}."),
            ):
                yield f"wi-{key}-{short}{pattern}", judged(text, {where: own[way] for where, own in over.items()})
        yield f"wi-{key}-in-time", in_time(record, task)
    yield "wi-beside-spline", beside_spline(record)
    for short, way in (("cholesky", CHOLESKY), ("sionna", SIONNA), ("blocks", BLOCKS), ("cubic", CUBIC)):
        found = [times_of(record, row)[way] for row in record.numbers["bands"]]
        yield f"wi-tally-{short}", UNTIMED if all(math.isnan(x[1]) for x in found) else tally(found)
    rows = [*record.numbers["band_times"], *record.numbers["ladder_times"].values()]
    yield "wi-taken", conditions(*(row["conditions"] for row in rows))


def in_time(record: Record, task: str) -> str:
    """Say which peers lose less of the rate than the map in no more than its time."""
    if not timed(record, task):
        return UNTOLD
    own = record.numbers["ladder"][task][stepped(MAP, TOL)]["loss"]
    found = {way: within(record, task, way) for way in STEPPED}
    better = [way for way, row in found.items() if row is not None and own > max(row["loss"], ROUNDING)]
    if not better:
        return "No peer loses less than the map in its time."
    return f"In the time of the map {len(better)} of {len(STEPPED)} peers lose less than it: {listed(better)}."


def glue_all(record: Record) -> None:
    """Glue what the text says."""
    for key, value in said(record):
        provenance.glue(key, value)


def check(record: Record) -> None:
    """Assert what text, captions and figures say in words; what they say of times follows from quartiles.

    Args:
        record: Of the chapter. At the sizes of a test no word about a band of 3,276 tones can be true or false.
    """
    for row in record.numbers["bands"]:
        ways = row["ways"]
        assert row["met"], "every map meets its tolerance"
        assert not any(ways[way]["refused"] for way in (MAP, BLOCKS, *BESIDE)), "all run on every band"
        assert row["solves"] >= max(ways[way]["solves"] for way in BESIDE), "no peer gets more solves than the map"
    for task in TASKS:
        ways = every_peer(record, task)["ways"]
        assert max(ways[way]["error"] for way in (CHOLESKY, SIONNA)) < 1e-4, "exact, to rounding"
    if record.profile != "smoke":
        check_bands(record)
        check_peers(record)
        check_times(record)


def check_bands(record: Record) -> None:
    """Assert what the text says of all bands at full size."""
    assert max(lost(record, MAP)) < RATE, "the map loses less than a thousandth everywhere"
    assert max(lost(record, BLOCKS, SHORT)) < RATE < min(lost(record, BLOCKS, ALL)), "blocks: at 30 ns, from 300 ns on"
    for task, omni in product(TASKS, (False, True)):
        rows = chosen(record, task, omni=omni)
        if task == EIGHT:
            coarse = ways_up(record, LINEAR)
            good = [enough(record, row) in coarse for row in rows if row["spread"] < 1.1 * ALL]
            assert all(good), "few streams: linear is enough up to 300 ns, from one tone in six"
        held = [row["ways"][BLOCKS]["loss"] for row in rows]
        assert held == sorted(held), "one for each block loses more, the longer the delays"
        assert rows[0]["solves"] < blocks_of(record), "at 30 ns the map takes fewer solves than blocks"
        assert rows[0]["solves"] < 0.1 * rows[-1]["solves"], "and over ten times as many at 1,000 ns"
        for row in rows:
            errors = {way: row["ways"][way]["error"] for way in (*BESIDE, MAP)}
            assert errors[CUBIC] < errors[LINEAR] < errors[HELD], "each degree is better than the one before"
            assert (errors[NEIGHBOUR] < errors[CUBIC]) == (task == EIGHT), "iterations: for eight streams, not for 32"
            if row["spread"] > 0.9 * ALL:
                assert row["ways"][MAP]["loss"] < row["ways"][BLOCKS]["loss"], "from 300 ns on less than blocks"
    for band in bands():
        if band.omni:
            near, far = (lost_by(record, BLOCKS, Band(band.task, band.spread, omni)) for omni in (False, True))
            assert near < far, "the smaller numbers with directional users"
    for task in TASKS:
        assert 4 * len(finer(record, CUBIC, task)) >= 3 * len(chosen(record, task)), (
            "on most bands the spline is better"
        )


def check_times(record: Record) -> None:
    """Assert the advice that hangs on times; a time that was refused refutes nothing."""
    for row in chosen(record, EIGHT):
        if row["spread"] > 0.9 * ALL:
            assert not times_of(record, row)[CHOLESKY][1] >= 1, "few streams, long delays: Cholesky before the map"
    for task in TASKS:
        over = record.numbers["ladder_times"][task]["over"]
        for straight, spline in zip(ways_up(record, LINEAR), ways_up(record, CUBIC)):
            assert not over[straight][1] >= 0.5, "linear interpolation takes far less time than every tone"
            assert not over[spline][1] <= over[straight][1], "and less than the cubic spline with as many solves"
            assert not over[stepped(MAP, TOL)][1] <= over[straight][1], "and less than the map"


def check_peers(record: Record) -> None:
    """Assert what the text says of all peers on one band, and of the ladder."""
    for task in TASKS:
        ways = every_peer(record, task)["ways"]
        assert ways[LAURENT]["error"] > 3 * ways[CUBIC]["error"] and ways[QR]["refused"], "no taps on the grid"
        assert ways[GRAM]["loss"] > ways[CUBIC]["loss"], "interpolated Gram matrices lose more, and solve every tone"
        assert min(ways[way]["loss"] for way in BLIND if not ways[way]["refused"]) > 0.01, "blind starts lose per cents"
        assert 0.5 < ways[WINDOW]["error"] / ways[CUBIC]["error"] < 2, "the window is about as good as the spline"
        check_ladder(
            {way: [record.numbers["ladder"][task][x]["error"] for x in ways_up(record, way)] for way in STEPPED}
        )


def check_ladder(errors: Mapping[str, Sequence[float]]) -> None:
    """Assert what the text says of errors of peers, step by step on the ladder."""
    for way in (HELD, LINEAR, CUBIC, WINDOW, NEIGHBOUR):
        assert list(errors[way]) == sorted(errors[way], reverse=True), "more solves, less error"
    assert errors[DFT][-1] > errors[DFT][1], "more solves do not help DFT, which rings at the ends of the band"
    finest = {way: found[-1] for way, found in errors.items()}
    assert min(finest, key=finest.get) == CUBIC and max(finest, key=finest.get) == DFT, "lowest and highest at the end"
