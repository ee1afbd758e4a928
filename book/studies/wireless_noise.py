"""Rates that few exact filters lose at several noises: what is enough at one is not at another.

Of the chapter *Wireless inversion*, computed with its page: eight streams, omnidirectional users.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from studies import provenance
from studies import wireless_receivers as bands
from studies.provenance import Record, Table
from studies.texts import at_least

# Signal over noise after combining over the array, in dB. The other bands of the chapter have the first.
LEVELS = (10, 20, 30, 40)


def noise(level: float) -> float:
    """Return the power of the noise at a level.

    Example:
        >>> noise(10) == bands.NOISE
        True
    """
    return 10 ** (-level / 10)


def rows_of(record: Record) -> list[bands.Row]:
    """Return the rows of the chapter's bands that are looked at: up to 300 ns, where linear interpolation is enough."""
    return [row for row in bands.chosen(record, bands.EIGHT, omni=True) if row["spread"] < 1.1 * bands.ALL]


def measure(record: Record, *, subcarriers: int) -> None:
    """Record ``levels``: for each way and delay spread its exact solves, and the part of the rate lost by level.

    Linear interpolation gets the number of solves that keeps the rate at the first level; the map finds its own.

    Args:
        record: Has ``bands``.
        subcarriers: Tones of a band.
    """
    found = []
    for row in rows_of(record):
        H = bands.Band(bands.EIGHT, row["spread"], True).channels(subcarriers, record.seed)
        name = bands.enough(record, row) or bands.tried(record)[-1]
        solves = row["steps"][name]["solves"]
        ways = (bands.LINEAR, bands.MAP)
        if math.isclose(row["spread"], bands.SHORT):
            ways = (bands.BLOCKS, *ways)
        entries = {way: [] for way in ways}
        for level in LEVELS:
            fitted, met = bands.fitted(H, noise(level))
            peers = {way: (lambda *_, own=fitted: own) if way == bands.MAP else bands.peer(way) for way in ways}
            judged = bands.judged_rows(H, solves, peers, noise(level))
            for way, entry in entries.items():
                good = met or way != bands.MAP
                entry.append({"solves": judged[way]["solves"], "loss": judged[way]["loss"], "met": good})
        found += [{"way": way, "spread": row["spread"], "levels": levels} for way, levels in entries.items()]
    order = (bands.BLOCKS, bands.LINEAR, bands.MAP)
    record.numbers["levels"] = sorted(found, key=lambda entry: (order.index(entry["way"]), entry["spread"]))


def table(record: Record) -> Table:
    """Tabulate the rate lost at each level."""
    rows = []
    for entry in record.numbers["levels"]:
        solves = sorted({own["solves"] for own in entry["levels"]})
        where = f"{1e9 * entry['spread']:,.0f} ns"
        losses = [bands.share(own["loss"]) for own in entry["levels"]]
        rows.append(
            [entry["way"], where, f"{solves[0]:,}" if len(solves) == 1 else f"{solves[0]:,} to {solves[-1]:,}", *losses]
        )
    return Table(["rate lost", "delay spread", "solves", *(f"{level} dB" for level in LEVELS)], rows)


def losses(record: Record, ways: Sequence[str], level: int) -> list[float]:
    """Return the parts of the rate that ways lose at a level, over all delay spreads."""
    at = LEVELS.index(level)
    return [entry["levels"][at]["loss"] for entry in record.numbers["levels"] if entry["way"] in ways]


def sentence(record: Record) -> str:
    """Say how the loss grows as the noise falls, with the same exact filters and with the same tolerance."""
    first, last = LEVELS[0], LEVELS[-1]
    peers, own = (bands.BLOCKS, bands.LINEAR), (bands.MAP,)
    before, after = max(losses(record, peers, first)), losses(record, peers, last)
    few = (
        f"With the numbers of exact filters that lose at most {100 * at_least(before):g} % of the rate at {first} dB, "
    )
    few += f"one for each block and linear interpolation lose {bands.percents(after)} of it at {last} dB. "
    grown = (f"{100 * at_least(max(losses(record, own, level))):g} %" for level in (first, last))
    return few + "The map, at the same tolerance, loses up to {} and {}.".format(*grown)


def glue(record: Record) -> None:
    """Glue what the text says."""
    provenance.glue("wi-levels", sentence(record))


def check(record: Record) -> None:
    """Assert what the text says: with less noise the same filters lose more, at last more than a thousandth."""
    for entry in record.numbers["levels"]:
        assert all(own["met"] for own in entry["levels"]), "the map meets its tolerance at every level"
    if record.profile == "smoke":
        return
    assert max(losses(record, (bands.BLOCKS, bands.LINEAR, bands.MAP), LEVELS[0])) < bands.RATE, "enough at 10 dB"
    for entry in record.numbers["levels"]:
        found = [own["loss"] for own in entry["levels"]]
        if entry["way"] != bands.MAP:
            assert found == sorted(found), "with less noise the same filters lose more"
        assert found[-1] > bands.RATE, "at 40 dB none of them keeps a thousandth"
