"""Chapter *Link level*: figures, tables and words of the record of `studies.link_level`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import binomtest

from studies import figures, link_level, texts
from studies.link_level import (
    BLOCK,
    ESTIMATED,
    EXACT,
    HELD,
    KNOWN,
    LEVEL,
    LINEAR,
    PER_BLOCK,
    RESCALED,
    SMOOTHED,
    TOLD,
)
from studies.provenance import Record, Table, glue

# What the block may cost at `LEVEL`, in dB.
BAR = 0.02
# How far apart, relatively, rates may be that lie at one line of the figure.
NEAR = 0.2
STYLES = {
    EXACT: (figures.GREY, "-"),
    BLOCK: (figures.BLUE, "o"),
    HELD: (figures.RED, ":"),
    RESCALED: (figures.ORANGE, "-."),
    LINEAR: (figures.PURPLE, "--"),
    SMOOTHED: (figures.GREEN, "--"),
}
# What readers call the receivers.
LABELS = {
    EXACT: "exact",
    BLOCK: "mapped",
    HELD: "held per resource block",
    RESCALED: "held, own gain and noise",
    LINEAR: "linear between blocks",
    TOLD: "exact, error known",
    SMOOTHED: "mapped, smoothed estimates",
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


def figure(record: Record, shown: Sequence[str] = (EXACT, BLOCK, SMOOTHED)) -> Figure:
    """Draw block error rates over the signal-to-noise ratio: a panel for each channel and kind of knowledge."""
    panels = list(dict.fromkeys((own["channel"], own["csi"]) for own in curves(record)))
    drawn, axes = figures.stacked(len(panels), 2.1)
    named: dict[str, object] = {}
    for panel, key in zip(axes, panels):
        for own in curves(record):
            if (own["channel"], own["csi"]) != key:
                continue
            at = [point["snr_db"] for point in own["points"]]
            for receiver in shown:
                colour, line = STYLES[receiver]
                rows = [point["receivers"].get(receiver) for point in own["points"]]
                if None in rows:
                    continue
                rates = [row["lost"] / point["blocks"] for row, point in zip(rows, own["points"])]
                options = {"color": colour, "label": LABELS[receiver], "mfc": "none", "ms": 7}
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
    """Blocks, blocks that one of two receivers lost, and the loss of each receiver in dB, but for `PER_BLOCK`."""
    rows = []
    for own in curves(record):
        blocks = sum(point["blocks"] for point in own["points"])
        found = [point["receivers"][BLOCK] for point in own["points"]]
        inside = f"{sum(row['inside'] for row in found)} of {len(found)}"
        alone = " / ".join(str(sum(row[key] for row in found)) for key in ("more", "fewer"))
        losses = [decibels(own["loss"][r]) if r in own["loss"] else "" for r in (BLOCK, TOLD, SMOOTHED)]
        rows.append((name(own), f"{blocks:,}", inside, alone, *losses))
    head = ("link", "blocks", "inside", "lost by the mapped / exact one alone")
    return Table((*head, *(f"{LABELS[receiver]}, dB" for receiver in (BLOCK, TOLD, SMOOTHED))), rows)


def per_block_table(record: Record) -> Table:
    """The loss in dB of the receivers that take one exact filter for each resource block."""
    rows = [(name(own), *(decibels(own["loss"][receiver]) for receiver in PER_BLOCK)) for own in curves(record)]
    return Table(("link", *(f"{LABELS[receiver]}, dB" for receiver in PER_BLOCK)), rows)


def known(record: Record, receiver: str = BLOCK, csi: str | None = None) -> list[tuple[dict, Sequence[float]]]:
    """Return the curves that reach `LEVEL` with a receiver, each with its loss inside of its interval."""
    found = ((own, own["loss"].get(receiver)) for own in curves(record, csi))
    return [(own, loss) for own, loss in found if loss is not None and not math.isnan(loss[1])]


def several(found: Sequence[object], word: str = "curve") -> str:
    """Return a number with its noun.

    Example:
        >>> several([1]), several([1, 2], "link"), several([])
        ('1 curve', '2 links', 'no curve')
    """
    return f"{len(found) or 'no'} {word}{'s' if len(found) > 1 else ''}"


def named(found: Sequence[dict]) -> str:
    """Return the names of curves, in parentheses after a number of them; nothing where there are none."""
    return f" ({'; '.join(map(name, found))})" if found else ""


def covered(record: Record) -> str:
    """Say which of the settings have curves."""
    every, noisy = curves(record), curves(record, ESTIMATED)
    missing = record.numbers["missing"]
    rest = f"; {len(missing)} settings are not complete" if missing else "; all are complete"
    return (
        f"This record has curves of {len(every)} of {len(link_level.SETTINGS)} settings, {len(noisy) or 'none'} of "
        f"them with estimated channels{rest}."
    )


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
    """Return what the mapped receiver loses in dB, where curves reach `LEVEL`, and if its interval keeps to `BAR`."""
    found = known(record)
    if not found:
        return f"No curve reaches a rate of {LEVEL:g} yet."
    values = sorted(loss[1] for _, loss in found)
    loss = max((loss for _, loss in found), key=lambda loss: loss[1])
    kept = [own for own, (_, _, high) in found if high <= BAR]
    missed = [own for own, (low, _, _) in found if low > BAR]
    unsettled = [own for own, (low, _, high) in found if low <= BAR < high]
    spread = "" if len(found) == 1 else f", in the median {float(np.median(values)):.3f}"
    largest = "" if len(found) == 1 else f" The largest loss is {decibels(loss)} dB."
    why = f": some {link_level.ERRORS} errors a point do not settle so little" if unsettled else ""
    return (
        f"On {several(found)} a rate of {LEVEL:g} is reached: there the mapped equaliser loses "
        f"{range_of(values, '.3f')} dB{spread}. Our limit is {BAR:g} dB. With the 95 % interval of the loss it is kept "
        f"on {several(kept)}, missed on {several(missed)}{named(missed)}, and not settled on {several(unsettled)}{why}."
        f"{largest}"
    )


def exact_sentence(record: Record) -> str:
    """Say on how many curves the interval of the loss is exact, since hardly any block tells the receivers apart."""
    found = known(record)
    exact = [own for own, _ in found if link_level.exact_ends(own["points"], BLOCK)]
    if not exact:
        return ""
    return (
        f"On {several(exact)} of {len(found)}, fewer than {link_level.FEW} blocks were lost by one of the two "
        f"receivers alone, at the two points beside that rate. Resampling cannot find what is not there, and where "
        f"there is no such block, its interval has no width. So the interval there is the exact one of Clopper and "
        f"Pearson for the share of blocks that one receiver alone lost. The slope of the curve turns it into dB. Lost "
        f"blocks are taken as independent for that."
    )


def beside_sentence(record: Record, receiver: str, csi: str) -> str:
    """Say where a receiver differs from the exact one by its interval, of each channel the largest difference."""
    found = known(record, receiver, csi)
    better, worse = ([own for own, loss in found if side(loss)] for side in (_below, _above))
    same = [own for own, _ in found if own not in better and own not in worse]
    parts = [f"On {several(same)} no difference is settled."] if same else []
    for own, word in ((worse, "more"), (better, "less")):
        parts += [f"On {several(own)} it needs {word}: {_largest(own, receiver)}."] if own else []
    never = [own for own in curves(record, csi) if math.isnan(own["loss"][receiver][1]) and _reaches(own)]
    if never:
        parts.append(f"On {several(never)} it does not come to that rate where the exact one does{named(never)}.")
    return " ".join(parts) or "Not known yet."


def _largest(found: Sequence[dict], receiver: str) -> str:
    """Name the channels of curves, each with its largest difference."""
    shown: dict[str, float] = {}
    for own in found:
        value = own["loss"][receiver][1]
        shown[own["channel"]] = max(value, shown.get(own["channel"], value), key=abs)
    return "; ".join(f"{channel} up to {abs(value):.2f} dB" for channel, value in shown.items())


def alone_sentence(record: Record, receiver: str) -> str:
    """Say what a receiver and the exact one lost of the other's blocks, at all points together."""
    rows = [point["receivers"][receiver] for point in points(record)]
    more, fewer = (sum(row[key] for row in rows) for key in ("more", "fewer"))
    outside = sum(not row["inside"] for row in rows)
    return (
        f"{more:,} blocks that the exact one decoded, and decoded {fewer:,} that it lost. Its rate lies outside of the "
        f"exact one's interval at {outside} of {len(rows)} points"
    )


def _below(loss: Sequence[float]) -> bool:
    return loss[2] < 0


def _above(loss: Sequence[float]) -> bool:
    return loss[0] > 0


def _losses(found: Sequence[dict], receiver: str) -> str:
    return "; ".join(f"{name(own)} {decibels(own['loss'][receiver])} dB" for own in found)


def _reaches(own: dict) -> bool:
    """Return whether the exact receiver comes below `LEVEL`."""
    return any(point["receivers"][EXACT]["lost"] < LEVEL * point["blocks"] for point in own["points"])


def promise_sentence(record: Record) -> str:
    """Say whether the losses of the table can test what the tolerance promises; empty where there are none."""
    found, promised = known(record), 10 * math.log10(1 + record.numbers["sizes"]["tol"] ** 2)
    if not found:
        return ""
    fine = [own for own, (low, _, high) in found if max(abs(low), abs(high)) <= promised]
    reach = max(high for _, (_, _, high) in found)
    return (
        f"The table cannot test this as well: its intervals lie within the promise on {len(fine) or 'none'} of "
        f"{several(found)}, and reach up to {reach:.3f} dB, since a few blocks at the edge decide."
    )


def solves_sentence(record: Record) -> str:
    """Say what maps of a known channel take, beside one filter for each block and one for each tone."""
    tones = record.numbers["sizes"]["tones"]
    shown = {channel: solves(record, channel, KNOWN) for channel in link_level.CHANNELS}
    once = {row["channel"]: row["solves"] for row in record.numbers["sinr"]}
    told = [
        f"{channel} {range_of(found, '.0f')}"
        if found
        else f"{channel} {once[channel]:,} in the one batch of its filters"
        for channel, found in shown.items()
        if found or channel in once
    ]
    most = {channel: max(found or [once.get(channel, 0)]) for channel, found in shown.items()}
    over = [channel for channel, number in most.items() if number > tones]
    more = f" On {texts.listed(over)} the maps take more than that." if over else ""
    return (
        f"{'; '.join(told)}. Beside them: one filter for each resource block takes {-(-tones // link_level.PRB)}, "
        f"linear interpolation one more, and "
        f"an exact one for each tone {tones}, for the channel is the same at all symbols of the slot. The map is "
        f"not told that: it is fitted to the whole grid of tones and symbols.{more}"
    )


def followed_sentence(record: Record) -> str:
    """Say what maps of noisy estimates take; empty where no link has them."""
    tones = record.numbers["sizes"]["tones"]
    plain, smooth = (
        [x for channel in link_level.CHANNELS for x in solves(record, channel, ESTIMATED, receiver)]
        for receiver in (BLOCK, SMOOTHED)
    )
    if not plain:
        return ""
    return (
        f"Where Sionna's interpolation of noisy estimates is taken as it comes, they are {range_of(plain, '.0f')}, "
        f"beside the {tones} of exact filters: linear pieces between noisy pilots have a kink at each pilot, and an "
        f"accurate map has to follow it. Of smoothed estimates they are {range_of(smooth, '.0f')}."
    )


def resolution(own: dict) -> float:
    """Return by how many dB one block more in `link_level.ERRORS` shifts a curve, from its slope at `LEVEL`."""
    at = [point["snr_db"] for point in own["points"]]
    rates = [point["receivers"][EXACT]["lost"] / point["blocks"] for point in own["points"]]
    bracket = [(a, b, x, y) for a, b, x, y in zip(at, at[1:], rates, rates[1:]) if x >= LEVEL > y]
    return max(((b - a) / math.log(x / y) for a, b, x, y in bracket), default=math.nan) / link_level.ERRORS


def smoothing(record: Record) -> dict[str, str]:
    """Return sentences on estimated channels: the ``finding``, the ``gain`` and what the ``control`` tells."""
    rows = [point["receivers"] for point in points(record, ESTIMATED)]
    if not rows:
        none = "Links with estimated channels are not simulated yet."
        return {"finding": none, "gain": none, "control": ""}
    lost = sum(row[EXACT]["lost"] for row in rows)
    saved, more = (sum(row[SMOOTHED][key] for row in rows) for key in ("fewer", "more"))
    fewer = sum(row[SMOOTHED]["lost"] < row[EXACT]["lost"] for row in rows)
    before = record.numbers.get("smoothing", "")  # of a record that is older than the smoothing of today
    return {
        "finding": f"Where the channel is estimated, a better estimator decides. From smoothed estimates the same "
        f"equaliser decodes {saved} of the {lost} blocks that the exact one of linearly interpolated estimates "
        f"loses, and loses {more} others. That is the gain of the smoothed estimates, with the "
        "variance of error that they state, not of the map.",
        "gain": f"From smoothed estimates the mapped equaliser decoded {saved} of the {lost} blocks that the exact "
        f"receiver lost, at all {len(rows)} points with estimates; {more} it lost alone. It lost fewer than the exact "
        f"one at {fewer} of these points. {gain_sentence(record)} An exact equaliser of the smoothed estimates was not "
        f"simulated; in the chapter on real channels it is as good as the map. And compared is linear interpolation "
        f"of the estimates, not the best estimator: that chapter has such, one with a delay profile fitted to the "
        f"samples among them." + (f" Estimates were smoothed {before}." if before else ""),
        "control": control_sentence(record),
    }


def control_sentence(record: Record) -> str:
    """Say where the exact receiver that is told its true errors loses fewer blocks, and where more."""
    net = [
        (own, sum(p["receivers"][TOLD]["fewer"] - p["receivers"][TOLD]["more"] for p in own["points"]))
        for own in curves(record, ESTIMATED)
    ]
    parts = []
    for word, sign in (("fewer", 1), ("more", -1)):
        own = [(curve, sign * count) for curve, count in net if sign * count > 0]
        if own:
            parts.append(f"{sum(count for _, count in own)} {word} blocks{named([curve for curve, _ in own])}")
    shifts = known(record, TOLD, ESTIMATED)
    told = f"The control, told the true errors, loses {' and '.join(parts) or 'as many blocks'}."
    for side, word in ((_above, "more, its interval wholly above zero"), (_below, "less, its interval wholly below")):
        clear = [own for own, loss in shifts if side(loss)]
        told += f" On {several(clear)} it needs {word}: {_losses(clear, TOLD)}." if clear else ""
    if any(count < 0 for _, count in net):
        told += (
            " So the true errors, taken as white, are not what an equaliser should be told everywhere, and the control "
            "does not tell how much the reported variance costs."
        )
    return told


def gain_sentence(record: Record) -> str:
    """Say on how many curves smoothed estimates are better at `LEVEL`, and by how much."""
    found = known(record, SMOOTHED, ESTIMATED)
    if not found:
        return f"No curve with estimates reaches a rate of {LEVEL:g} yet."
    better, worse = ([own for own, loss in found if side(loss)] for side in (_below, _above))
    ends = range_of([-own["loss"][SMOOTHED][1] for own in better])
    parts = [f"it is better on {several(better)} of {len(found)}, by {ends} dB"] if better else []
    parts += [f"worse on {several(worse)}: {_losses(worse, SMOOTHED)}"] if worse else []
    rest = len(found) - len(better) - len(worse)
    parts += [f"not settled on {rest} of {len(found)}"] if rest else []
    return f"At a block error rate of {LEVEL:g}, with its interval, {', '.join(parts)}."


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
    glue("ll-exact", exact_sentence(record))
    glue("ll-resolution", f"{range_of([x for x in map(resolution, curves(record)) if not math.isnan(x)])} dB")
    more, fewer = (sum(row[key] for row in found) for key in ("more", "fewer"))
    glue("ll-chance", f"{binomtest(more, more + fewer).pvalue if more + fewer else 1.0:.2g}")
    glue("ll-bar", BAR)
    glue("ll-level", LEVEL)
    for key, sentence in smoothing(record).items():
        glue(f"ll-{key}", sentence)
    missing = record.numbers["missing"]
    glue("ll-missing", f"{len(missing)} of {len(link_level.SETTINGS)}: {'; '.join(missing)}" if missing else "none")
    for key, receiver in {"held": HELD, "rescaled": RESCALED, "linear": LINEAR}.items():
        glue(f"ll-{key}-alone", alone_sentence(record, receiver))
        for csi in (KNOWN, ESTIMATED):
            glue(f"ll-{key}-{csi}", beside_sentence(record, receiver, csi))
    glue("ll-promise", promise_sentence(record))
    glue("ll-covered", covered(record))
    left = [point["receivers"][BLOCK]["left"] for point in points(record)]
    glue("ll-left", f"{100 * float(np.mean(left)):.0f} %")
    for key, value in sizes.items():
        glue(f"ll-{key}", value)
    glue("ll-solves", solves_sentence(record))
    glue("ll-followed", followed_sentence(record))
    sinr = record.numbers["sinr"]
    promised = 10 * math.log10(1 + sizes["tol"] ** 2)
    glue("ll-promised", f"{promised:.3f}")
    glue("ll-sinr-mean", f"{texts.two_digits(max(row['mean'] for row in sinr)):g}")
    glue("ll-sinr-largest", f"{max(row['largest'] for row in sinr):.3f} dB")
    glue("ll-sinr-above", f"{100 * max(row['above'] for row in sinr):.2g} %")


def check(record: Record) -> None:
    """Assert what text and captions say of any record, whatever curves it has."""
    rows = [point["receivers"] for point in points(record)]
    assert rows, "there is something to show"
    assert min(row[EXACT]["lost"] for row in rows) >= link_level.ERRORS, "enough errors"
    assert all(abs(row[BLOCK]["lost"] / row[EXACT]["lost"] - 1) < NEAR for row in rows), "circles lie at the line"
    promised = 10 * math.log10(1 + record.numbers["sizes"]["tol"] ** 2)
    assert all(row["mean"] < promised for row in record.numbers["sinr"]), "the mean loss is within the promise"
    assert len(curves(record)) + len(record.numbers["missing"]) >= len(link_level.SETTINGS), "nothing is left out"
