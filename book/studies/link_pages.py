"""Chapter *Link level*: figures, tables and words of the record of `studies.link_level`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import binomtest

from studies import figures, link_level, texts
from studies.link_level import BLOCK, ESTIMATED, EXACT, HELD, KNOWN, LEVEL, SMOOTHED, TOLD
from studies.provenance import Record, Table, glue

# What the block may cost at `LEVEL`, in dB.
BAR = 0.02
STYLES = {
    EXACT: (figures.GREY, "-"),
    BLOCK: (figures.BLUE, "o"),
    HELD: (figures.RED, ":"),
    SMOOTHED: (figures.GREEN, "--"),
}
NONE = "not reached"


def curves(record: Record, csi: str | None = None) -> list[dict]:
    """Return the curves of a record, all or those of one kind of knowledge."""
    return [own for own in record.numbers["curves"] if csi in (None, own["csi"])]


def points(record: Record, csi: str | None = None) -> list[dict]:
    """Return the points of `curves`."""
    return [point for own in curves(record, csi) for point in own["points"]]


def name(own: dict) -> str:
    """Return the name of a curve."""
    return f"{own['channel']}, {own['modulation']}, {own['csi']} channel"


def figure(record: Record) -> Figure:
    """Draw block error rates over the signal-to-noise ratio: a panel for each channel and kind of knowledge."""
    panels = list(dict.fromkeys((own["channel"], own["csi"]) for own in curves(record)))
    drawn, axes = figures.stacked(len(panels), 2.1)
    named: dict[str, object] = {}
    for panel, key in zip(axes, panels):
        for own in curves(record):
            if (own["channel"], own["csi"]) != key:
                continue
            at = [point["snr_db"] for point in own["points"]]
            for receiver, (colour, line) in STYLES.items():
                rows = [point["receivers"].get(receiver) for point in own["points"]]
                if None in rows:
                    continue
                rates = [row["lost"] / point["blocks"] for row, point in zip(rows, own["points"])]
                options = {"color": colour, "label": receiver, "mfc": "none", "ms": 7}
                if receiver == EXACT:
                    ends = np.abs(np.array([row["interval"] for row in rows]).T - rates)
                    named[receiver] = panel.errorbar(at, rates, yerr=ends, fmt=line, capsize=4, lw=1.2, **options)
                else:
                    (named[receiver],) = panel.plot(at, np.where(np.array(rates) > 0, rates, np.nan), line, **options)
            panel.annotate(own["modulation"], (at[0], 1.0), fontsize=figures.SMALLEST, ha="center", va="bottom")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.axhline(LEVEL, color=figures.BLACK, lw=0.6)
        panel.set(yscale="log", ylim=(8e-3, 1.8), ylabel="block error rate", title=f"{key[0]}, {key[1]} channel")
    axes[-1].set_xlabel("signal-to-noise ratio at the array in dB")
    drawn.legend(named.values(), named.keys(), loc="outside lower center", ncols=2, fontsize=figures.SMALLEST)
    return drawn


def decibels(loss: Sequence[float]) -> str:
    """Return a loss in dB with its interval, or that its curve does not reach the level.

    Example:
        >>> decibels((-0.002, 0.0013, 0.01)), decibels((-2.71, -2.5, -2.32)), decibels((math.nan,) * 3)
        ('0.001 (-0.002 to 0.010)', '-2.500 (-2.710 to -2.320)', 'not reached')
    """
    low, value, high = (round(x, 3) + 0.0 if math.isfinite(x) else x for x in loss)
    return NONE if math.isnan(value) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def table(record: Record) -> Table:
    """Blocks, blocks that one of two receivers lost, and the loss of each receiver in dB."""
    rows = []
    for own in curves(record):
        blocks = sum(point["blocks"] for point in own["points"])
        found = [point["receivers"][BLOCK] for point in own["points"]]
        inside = f"{sum(row['inside'] for row in found)} of {len(found)}"
        alone = " / ".join(str(sum(row[key] for row in found)) for key in ("more", "fewer"))
        losses = [decibels(own["loss"][r]) if r in own["loss"] else "" for r in (BLOCK, HELD, TOLD, SMOOTHED)]
        rows.append((name(own), f"{blocks:,}", inside, alone, *losses))
    head = (
        "link",
        "blocks",
        "inside",
        "lost by the block / exact alone",
        f"{BLOCK}, dB",
        f"{HELD}, dB",
        f"{TOLD}, dB",
        "smoothed, dB",
    )
    return Table(head, rows)


def worst(record: Record) -> dict:
    """Return the curve on which the block loses most."""
    return max(curves(record), key=lambda own: _or(own["loss"][BLOCK][1], -math.inf))


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def gained(record: Record, receiver: str = SMOOTHED) -> list[float]:
    """Return by how many dB a receiver of estimates is better than the exact one, on all curves that tell."""
    values = [-own["loss"][receiver][1] for own in curves(record, ESTIMATED)]
    return sorted(value for value in values if not math.isnan(value))


def range_of(values: Sequence[float], digits: str = ".2f") -> str:
    """Return the least and the largest of values, in words.

    Example:
        >>> range_of([1.25, 0.5], ".1f"), range_of([2.0]), range_of([])
        ('0.5 to 1.2', '2.00', 'not known')
    """
    ends = list(dict.fromkeys(f"{x:{digits}}" for x in (min(values), max(values)))) if values else ["not known"]
    return " to ".join(ends)


def solves(record: Record, channel: str, csi: str, receiver: str = BLOCK) -> list[float]:
    """Return the exact solves of a slot by the block, for all points of a channel where it did not leave the work."""
    found = [
        p["receivers"][receiver]["solves"]
        for own in curves(record, csi)
        if own["channel"] == channel
        for p in own["points"]
    ]
    return [x for x in found if x is not None]


def loss_sentence(record: Record) -> str:
    """Return what the block loses in dB, as far as curves reach `LEVEL`."""
    known = [own for own in curves(record) if not math.isnan(own["loss"][BLOCK][1])]
    if not known:
        return f"No curve reaches a rate of {LEVEL:g} yet."
    own, within = worst(record), sum(x["loss"][BLOCK][1] <= BAR for x in known)
    return (
        f"Of the {len(known)} curves that reach a rate of {LEVEL:g}, {within} lose at most {BAR:g} dB there; the "
        f"largest loss is {decibels(own['loss'][BLOCK])} dB ({name(own)})."
    )


def resolution(own: dict) -> float:
    """Return by how many dB one block more in `link_level.ERRORS` shifts a curve, from its slope at `LEVEL`."""
    at = [point["snr_db"] for point in own["points"]]
    rates = [point["receivers"][EXACT]["lost"] / point["blocks"] for point in own["points"]]
    bracket = [(a, b, x, y) for a, b, x, y in zip(at, at[1:], rates, rates[1:]) if x >= LEVEL > y]
    return max(((b - a) / math.log(x / y) for a, b, x, y in bracket), default=math.nan) / link_level.ERRORS


def smoothing(record: Record) -> dict[str, str]:
    """Return sentences on estimated channels: the ``finding``, the ``gain`` and what the ``control`` adds to it."""
    rows = [point["receivers"] for point in points(record, ESTIMATED)]
    if not rows:
        none = "Links with estimated channels are not simulated yet."
        return {"finding": none, "gain": none, "control": ""}
    lost = sum(row[EXACT]["lost"] for row in rows)
    saved, more = (sum(row[SMOOTHED][key] for row in rows) for key in ("fewer", "more"))
    told = sum(row[TOLD]["fewer"] - row[TOLD]["more"] for row in rows)
    decibel = (
        f" At a block error rate of {LEVEL:g} it is better by {range_of(gained(record))} dB, on "
        f"{len(gained(record))} curves; the control by {range_of(gained(record, TOLD))} dB."
        if gained(record)
        else ""
    )
    return {
        "finding": f"Where the channel is estimated, the same equaliser fitted to smoothed estimates decodes {saved} "
        f"of the {lost} blocks that the exact one of the usual estimates loses.",
        "gain": f"Of the {lost} blocks that the exact receiver lost, at all points with estimates together, it decoded "
        f"{saved}; {more} it lost alone.{decibel}",
        "control": f"The control, told the true errors, saves {told} of them, those that it alone lost taken off: that "
        f"part is due to the variance that Sionna reports, and the rest to the estimates.",
    }


def glue_all(record: Record) -> None:
    """Numbers of the text."""
    found, sizes = [point["receivers"][BLOCK] for point in points(record)], record.numbers["sizes"]
    glue("ll-curves", len(curves(record)))
    glue("ll-points", len(found))
    glue("ll-blocks", sum(point["blocks"] for point in points(record)))
    glue("ll-inside", sum(row["inside"] for row in found))
    glue("ll-more", sum(row["more"] for row in found))
    glue("ll-fewer", sum(row["fewer"] for row in found))
    glue("ll-loss", loss_sentence(record))
    glue("ll-resolution", f"{range_of([x for x in map(resolution, curves(record)) if not math.isnan(x)])} dB")
    more, fewer = (sum(row[key] for row in found) for key in ("more", "fewer"))
    glue("ll-chance", f"{binomtest(more, more + fewer).pvalue if more + fewer else 1.0:.2g}")
    glue("ll-bar", BAR)
    glue("ll-level", LEVEL)
    for key, sentence in smoothing(record).items():
        glue(f"ll-{key}", sentence)
    missing = record.numbers["missing"]
    glue("ll-missing", f"{len(missing)} of {len(link_level.SETTINGS)}: {'; '.join(missing)}" if missing else "none")
    losses = {name(own): own["loss"][HELD] for own in curves(record)}
    told = [f"{own}: {decibels(loss)} dB" for own, loss in losses.items() if not math.isnan(loss[1])]
    glue("ll-held", "; ".join(told) or "not known yet")
    found = [point["receivers"] for point in points(record)]
    more, fewer = (sum(row[HELD][key] for row in found) for key in ("more", "fewer"))
    glue("ll-held-alone", f"{more} that the exact one decoded, and decoded {fewer} that it lost")
    left = [row[BLOCK]["left"] for row in found]
    glue("ll-left", f"{100 * float(np.mean(left)):.0f} %")
    for key, value in sizes.items():
        glue(f"ll-{key}", value)
    spread = {own["channel"]: solves(record, own["channel"], KNOWN) for own in curves(record, KNOWN)}
    glue("ll-solves", "; ".join(f"{channel}: {range_of(x, '.0f')}" for channel, x in spread.items() if x))
    followed = [x for own in curves(record, ESTIMATED) for x in solves(record, own["channel"], ESTIMATED)]
    glue("ll-solves-estimated", range_of(followed, ".0f"))
    sinr = record.numbers["sinr"]
    promised = 10 * math.log10(1 + sizes["tol"] ** 2)
    glue("ll-promised", f"{promised:.3f}")
    glue("ll-sinr-mean", f"{texts.two_digits(max(row['mean'] for row in sinr)):g}")
    glue("ll-sinr-largest", f"{max(row['largest'] for row in sinr):.3f} dB")
    glue("ll-sinr-above", f"{100 * max(row['above'] for row in sinr):.2g} %")


def check(record: Record) -> None:
    """Assert what text and captions say of the record."""
    rows = [point["receivers"] for point in points(record)]
    assert rows, "there is something to show"
    assert all(row[BLOCK]["inside"] for row in rows), "inside of the exact receiver's interval at every point"
    assert min(row[EXACT]["lost"] for row in rows) >= link_level.ERRORS, "enough errors"
    assert all(own["loss"][BLOCK][0] <= BAR for own in curves(record) if not math.isnan(own["loss"][BLOCK][0])), "bar"
    noisy = [point["receivers"] for point in points(record, ESTIMATED)]
    assert all(row[SMOOTHED]["lost"] < row[EXACT]["lost"] for row in noisy), "smoothing is better"
    assert min(gained(record), default=1.0) > 0.1, "smoothing is clearly better"
    assert all(row["mean"] < 0.2 * 10 * math.log10(1 + link_level.TOL**2) for row in record.numbers["sinr"]), (
        "far below"
    )
