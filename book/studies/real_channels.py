"""Studies of the chapter on real channels: estimates with noise, near and far users, and irregular samples."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.interpolate import make_lsq_spline

import neumatc as nm
from neumatc.segments import Segment, knots
from studies import estimated, figures, munich, provenance
from studies.estimated import BLIND, LINEAR, LMMSE, MAP, MISMATCHED, PER_TONE, PROFILED, SMOOTH
from studies.provenance import Record, Table
from studies.texts import at_least, listed

SMALL, LARGE = "16 x 4", "64 x 8"
# The delay spreads of the chapter in seconds, and the one beyond them; signal over noise at the pilots in dB.
SPREADS, LONG = (30e-9, 100e-9, 300e-9), 1000e-9
SNRS = (0, 10, 20, 30, 40)
# The setting that the tables of one setting show.
SPREAD, SNR = 100e-9, 10
# Power of the noise of a tone over the transmitted power in it, see `wireless.drop`.
DROP_NOISE = 6e-12
ONE, BY_USER = "splines, one number of terms for all, then exact", "splines, each user's number of terms, then exact"
OWN = "LMMSE, true covariance of each user"
# Users who move, in km/h; symbols of a slot with pilots, by their number.
SPEEDS, PILOTS, SYMBOLS = (3, 30, 120), {2: (2, 11), 4: (2, 5, 8, 11)}, 14
HELD, ALONE, GRID = "tone by tone, held", "each symbol smoothed alone, held", "map of the smoothed grid"
AVERAGED, LINE = "averaged over the symbols, smoothed", "a line through the symbols, smoothed"
SLOT = (HELD, ALONE, AVERAGED, LINE, GRID)
# The keys of a slot under which stands what is left of the noise.
LEFT = {"alone": ALONE, "averaged": AVERAGED, "line": LINE, "grid": GRID}
# How far parts of the rate may be apart, where the text says that they are the same.
SAME = 0.005
# How far the map may be from exact filters of its samples, relatively, where the text says that it is as good.
NEAR = 0.05
# What of the rate the map may lose beside them where the text says that it costs none; where it does, it loses more.
COSTS = 0.01
# Part of the jumps of `estimated.irregular` that is planted: all, and a tenth.
PARTS = {"large": 1.0, "small": 0.1}
KNOWS = {
    PER_TONE: "noise variance, for the filter",
    LINEAR: "noise variance, for the filter",
    MAP: "noise variance",
    SMOOTH: "noise variance",
    BLIND: "nothing: the variance is estimated",
    PROFILED: "noise variance; the first path comes at zero",
    MISMATCHED: "noise variance; the cyclic prefix as the longest delay",
    LMMSE: "noise variance, and the powers of all delays",
}


def tones(record: Record) -> int:
    """Return the number of tones of a band: 19 MHz, less for a look."""
    return provenance.pick(record.profile, smoke=96, cpu=624, gpu=624)


def seeds(record: Record) -> range:
    """Return the seeds of the draws."""
    return range(record.seed, record.seed + provenance.pick(record.profile, smoke=2, cpu=5, gpu=5))


# Estimates with noise


def noisy(record: Record, size: str = SMALL, spreads: Sequence[float] = SPREADS) -> None:
    """Record errors, rates and terms over delay spread and noise, under ``noisy`` by size: lists over the seeds."""
    snrs = SNRS[:3:2] if record.profile == "smoke" else SNRS
    points = []
    for spread, snr in ((spread, snr) for spread in spreads for snr in snrs):
        rows = estimated.rows([size], [spread], [snr], tones(record), seeds(record))
        point = {"spread": spread, "snr": snr} | {key: [row[key] for row in rows] for key in ("terms", "solves")}
        point |= {key: {way: [row[key][way] for row in rows] for way in KNOWS} for key in ("error", "rate")}
        points.append(point)
    record.numbers.setdefault("noisy", {})[size] = points


def sionna_itself(record: Record) -> None:
    """Record how far Sionna's own estimator is from the filter that is made once for all pairs of antennas."""
    drawn = estimated.estimate(SMALL, SPREAD, SNR, tones(record), record.seed)
    record.numbers["sionna"] = {way: estimated.agreement(drawn, way) for way in (LMMSE, MISMATCHED)}


def middle(values: Sequence[float]) -> float:
    """Return the median over the draws."""
    return float(statistics.median(values))


def at(record: Record, spread: float = SPREAD, snr: float | None = None, size: str = SMALL) -> dict:
    """Return the point of a spread and noise; default: the setting of the tables, or the last one of a look."""
    points = [point for point in record.numbers["noisy"][size] if point["spread"] == spread]
    return next((point for point in points if point["snr"] == (SNR if snr is None else snr)), points[-1])


def shown(values: Sequence[float], digits: str = ".2g") -> str:
    """Return the median with the least and the largest of the draws in parentheses."""
    return f"{middle(values):{digits}} ({min(values):{digits}} to {max(values):{digits}})"


def percent(values: Sequence[float]) -> str:
    """Return parts in percent, median and range."""
    return shown([100 * value for value in values], ".1f")


def error_figure(record: Record) -> Figure:
    """Plot the error of the filters against the signal over noise of the pilots, a panel for each delay spread."""
    drawn, panels = figures.stacked(len(SPREADS), 2.5, sharex=True, sharey=True)
    styles = {
        PER_TONE: (figures.BLACK, "-"),
        MISMATCHED: (figures.ORANGE, "--"),
        MAP: (figures.BLUE, "-"),
        SMOOTH: (figures.BLUE, "o"),
        PROFILED: (figures.RED, "-."),
        LMMSE: (figures.GREEN, "v"),
    }
    for axes, spread in zip(panels, SPREADS):
        points = [point for point in record.numbers["noisy"][SMALL] if point["spread"] == spread]
        snrs = [point["snr"] for point in points]
        for way, (colour, line) in styles.items():
            _banded(axes, snrs, [point["error"][way] for point in points], colour, line, way)
        axes.set(title=f"delay spread {spread * 1e9:.0f} ns", ylabel="error of the filters", yscale="log")
    panels[-1].set_xlabel("signal over noise at the pilots (dB)")
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", fontsize=figures.SMALLEST)
    return drawn


def terms_figure(record: Record) -> Figure:
    """Plot the terms of the smoothed samples against the signal over noise, a line for each delay spread."""
    drawn, (axes,) = figures.stacked(1, 3.2)
    for spread, colour, line in zip(SPREADS, (figures.GREEN, figures.ORANGE, figures.BLUE), ("-.", "--", "-")):
        points = [point for point in record.numbers["noisy"][SMALL] if point["spread"] == spread]
        label = f"{spread * 1e9:.0f} ns"
        _banded(axes, [p["snr"] for p in points], [p["terms"] for p in points], colour, line, label)
    axes.set(xlabel="signal over noise at the pilots (dB)", ylabel="terms", yscale="log")
    axes.legend(loc="upper left", fontsize=figures.SMALLEST)
    return drawn


def _banded(
    axes: Axes, x: Sequence[float], values: Sequence[Sequence[float]], colour: str, line: str, label: str
) -> None:
    """Draw medians over the draws as a line or as marks, and from their least to their largest."""
    style = {"ls": line} if line.startswith("-") else {"ls": "None", "marker": line, "mfc": "none", "ms": 7}
    axes.plot(x, [middle(own) for own in values], color=colour, label=label, **style)
    axes.fill_between(x, [min(own) for own in values], [max(own) for own in values], color=colour, alpha=0.2, lw=0)


def ways_table(record: Record) -> Table:
    """Tabulate what each way has to know, and what it reaches at one setting."""
    point = at(record)
    rows = [[way, what, shown(point["error"][way]), percent(point["rate"][way])] for way, what in KNOWS.items()]
    return Table(["way", "has to know", "error of the filters", "part of the rate, %"], rows)


def large_table(record: Record) -> Table:
    """Tabulate the larger array, with the longest delay spread."""
    names = (PER_TONE, MISMATCHED, MAP, SMOOTH, PROFILED, LMMSE)
    rows = [
        [f"{point['spread'] * 1e9:,.0f} ns, {point['snr']} dB", shown(point["terms"], ".0f")]
        + [percent(point["rate"][way]) for way in names]
        for point in record.numbers["noisy"][LARGE]
    ]
    return Table(["delay spread, signal over noise", "terms of the map", *names], rows)


def beaten(record: Record, way: str, size: str = SMALL) -> list[str]:
    """Return the settings in which a way keeps more of the rate than the map, by the medians, in words."""
    points = record.numbers["noisy"][size]
    return [_setting(point) for point in points if middle(point["rate"][way]) > middle(point["rate"][MAP])]


def _setting(point: dict) -> str:
    return f"{point['spread'] * 1e9:,.0f} ns with {point['snr']} dB"


def nearer(points: Sequence[dict], way: str) -> list[dict]:
    """Return the points in which a way has less error than the map, by the medians."""
    return [point for point in points if middle(point["error"][way]) < middle(point["error"][MAP])]


def profile_sentence(record: Record, size: str = SMALL) -> str:
    """Say in how many settings the fitted delay profile has less error than the map, and where it keeps less rate."""
    points = record.numbers["noisy"][size]
    behind = [_setting(point) for point in points if _setting(point) not in beaten(record, PROFILED, size)]
    rest = f"; it keeps less of it at {listed(behind)}" if behind else ""
    return (
        f"has less error than the map in {len(nearer(points, PROFILED))} of {len(points)} settings, and keeps more of "
        f"the rate in {len(points) - len(behind)}{rest}"
    )


def less_rate_sentence(record: Record) -> str:
    """Say where the fitted delay profile may keep less of the rate than the map: at which noise, and which delays."""
    points, ahead = record.numbers["noisy"][SMALL], beaten(record, PROFILED)
    behind = [point for point in points if _setting(point) not in ahead]
    if not behind:
        return "and keeps more of the rate in all of them"
    levels = listed([f"{snr}" for snr in sorted({point["snr"] for point in behind})])
    near = ", also at short delays" if min(point["spread"] for point in behind) == SPREADS[0] else ""
    return f"though at {levels} dB it may keep less of the rate{near}"


def apart(points: Sequence[dict]) -> float:
    """Return how far the error of the map is at most from that of exact filters of its samples, in any draw."""
    return max((abs(a / b - 1) for p in points for a, b in zip(p["error"][MAP], p["error"][SMOOTH])), default=0.0)


def apart_sentence(points: Sequence[dict]) -> str:
    """Say how far the errors of the map are from those of exact filters of its samples, and where by `NEAR` or more."""
    far = [point for point in points if apart([point]) >= NEAR]
    rest = f", but at {listed([_setting(p) for p in far])} by up to {_percent_up(apart(far))}" if far else ""
    return f"differ by at most {_percent_up(apart([p for p in points if p not in far]))}{rest}"


def _percent_up(part: float) -> str:
    return f"{at_least(100 * part):g} %"


def array_gain(size: str) -> float:
    """Return by how many dB the energy at the array as a whole is above that at one antenna."""
    return 10 * math.log10(math.prod(estimated.SIZES[size][0]))


def over(points: Sequence[dict], one: str, other: str) -> list[float]:
    """Return how many times the error of one way is that of another, the median over the draws, by point."""
    return [middle([a / b for a, b in zip(point["error"][one], point["error"][other])]) for point in points]


def glue_noisy(record: Record) -> None:
    """Glue what the text says of estimates with noise."""
    points, point = record.numbers["noisy"][SMALL], at(record)
    gains, behind = (over(points, *pair) for pair in ((PER_TONE, MAP), (MAP, LMMSE)))
    values = {
        "seeds": len(point["terms"]),
        "tones": tones(record),
        "points": len(points),
        "gain-least": min(gains),
        "gain-most": max(gains),
        "behind-least": min(behind),
        "behind-most": max(behind),
        "kept": 100 * middle(point["rate"][MAP]),
        "kept-tone": 100 * middle(point["rate"][PER_TONE]),
        "kept-lmmse": 100 * middle(point["rate"][LMMSE]),
        "kept-mismatched": 100 * middle(point["rate"][MISMATCHED]),
        "kept-smooth": 100 * middle(point["rate"][SMOOTH]),
        "kept-profile": 100 * middle(point["rate"][PROFILED]),
        "apart": _percent_up(apart(points)),
        "nearer": len(nearer(points, PROFILED)),
        "profile": profile_sentence(record),
        "less-rate": less_rate_sentence(record),
        "beaten": listed(beaten(record, MISMATCHED)) or "none",
        "terms-least": min(min(p["terms"]) for p in points),
        "terms-most": max(max(p["terms"]) for p in points),
        "solves-least": min(min(p["solves"]) for p in points),
        "solves-most": max(max(p["solves"]) for p in points),
        "pilots": tones(record) // 2,
        "agreement": max(record.numbers["sionna"].values()),
        "array-small": array_gain(SMALL),
        "array-large": array_gain(LARGE),
        "ratio-blind": max(a / b for p in points for a, b in zip(p["error"][BLIND], p["error"][MAP])),
    }
    for key, value in values.items():
        provenance.glue(f"rc-{key}", value)


def glue_large(record: Record) -> None:
    """Glue what the text says of the larger array."""
    points = record.numbers["noisy"][LARGE]
    for key, pair in (("gain", (PER_TONE, MAP)), ("behind", (MAP, LMMSE))):
        found = over([point for point in points if point["spread"] == LONG], *pair)
        provenance.glue(f"rc-large-{key}", f"{min(found):.1f} to {max(found):.1f}" if found else "some unmeasured")
    provenance.glue("rc-large-beaten", listed(beaten(record, MISMATCHED, LARGE)) or "none")
    provenance.glue("rc-large-tone", listed(beaten(record, PER_TONE, LARGE)) or "none")
    provenance.glue("rc-large-profile", profile_sentence(record, LARGE))
    provenance.glue("rc-large-apart", apart_sentence(record.numbers["noisy"][LARGE]))
    most = max(record.numbers["noisy"][LARGE], key=lambda point: middle(point["terms"]))
    provenance.glue("rc-large-terms", middle(most["terms"]))
    provenance.glue("rc-large-terms-most", max(most["terms"]))
    for key, way in (("kept", MAP), ("kept-smooth", SMOOTH)):
        provenance.glue(f"rc-large-{key}", 100 * middle(most["rate"][way]))
    provenance.glue("rc-large-pilots", tones(record) // 2)


# Near and far users


def drops(record: Record) -> None:
    """Record what ways keep of the rate, from estimates of one pilot each: ``drops`` of UMi with path loss."""
    setting = {"users": 8, "subcarriers": tones(record), "dtype": torch.complex128}
    record.numbers["drops"] = [
        dropped(nm.wireless.drop("UMi", seed=seed, **setting), seed=seed) for seed in seeds(record)
    ]


def traced(record: Record) -> None:
    """Record the same of the users of Munich, ``munich``: one place, several draws of the noise."""
    found = munich.users()
    half, f = tones(record) // 2, torch.arange(tones(record), dtype=torch.float64)[:, None]
    f = (f - half) * estimated.SPACING
    # Of each user the first of its two antennas.
    channel = nm.wireless.Channel(
        found.coefficients[..., :1].to(torch.complex128), found.delays, f.min().item(), f.max().item(), frequencies=f
    )
    record.numbers["munich"] = [dropped(channel, seed=seed) for seed in seeds(record)]


def dropped(channel: nm.wireless.Channel, noise: float = DROP_NOISE, seed: int = 0) -> dict[str, object]:
    """Compare ways on users of unequal power: ``sum``, the part of the sum rate, and ``users``, of the rate of each."""
    own = estimated.at_pilots(channel, noise, seed)
    values, surrogate, family = estimated.mapped(own)
    found = {PER_TONE: estimated.filters(estimated.linear(own), noise), MAP: values}
    found[SMOOTH] = estimated.smooth(own, family)
    (one, terms), (alone, terms_alone) = splines(own, False), splines(own, True)
    others = {ONE: one, BY_USER: alone, PROFILED: by_profiles(own)}
    others |= {MISMATCHED: by_covariances(own, False), OWN: by_covariances(own, True)}
    for way, H in others.items():
        found[way] = estimated.filters(H, noise)
    full = rates(own.H, estimated.filters(own.H, noise), noise)
    parts = {way: rates(own.H, X, noise) / full for way, X in found.items()}
    powers = 10 * np.log10(np.mean(np.abs(own.H) ** 2, axis=(0, 1)) / noise)
    return {
        "powers": powers.tolist(),
        "rates": full.tolist(),
        "users": {way: part.tolist() for way, part in parts.items()},
        "sum": {way: float(part @ full / full.sum()) for way, part in parts.items()},
        "terms": terms[0],
        "terms_alone": terms_alone,
        "kept": family.measured.kept.mean(axis=0).tolist(),
        "samples": str(family.measured),
        "solves": surrogate.report.exact_solves,
    }


def splines(own: estimated.Estimate, alone: bool) -> tuple[NDArray, list[int]]:
    """Return the channel (N, m, n) by least-squares splines that are not shrunk, and their numbers of terms.

    Each number has the least risk by Mallows' estimate: of all users together, or of each user alone.
    """
    x = (own.f - own.f[0]) / (own.pilots[-1] - own.f[0])
    inside, found, terms = np.minimum(x, 1), [], []
    for A in np.split(own.A, own.H.shape[2], 2) if alone else [own.A]:
        Y = np.ascontiguousarray(A).reshape(len(A), -1).view(float)
        terms.append(Segment(x[::2], Y, own.v / 2, 0.0).terms)
        spline = make_lsq_spline(x[::2], Y, knots(x[::2], terms[-1]), min(3, terms[-1] - 1))
        found.append(spline(inside).view(complex).reshape(-1, *A.shape[1:]))
    return np.concatenate(found, axis=2), terms


def by_covariances(own: estimated.Estimate, true: bool) -> NDArray:
    """Return the LMMSE estimate (N, m, n) with a filter for each user: its true delays and power, or those of any.

    Without the truth the power is what the samples have above the noise, and any delay up to the prefix is as likely.
    """
    found = []
    for user in range(own.H.shape[2]):
        A, H = own.A[:, :, [user]], own.H[:, :, user]
        R = estimated.covariance(own, user=user) if true else estimated.covariance(own, estimated.PREFIX)
        power = np.mean(np.abs(H) ** 2) if true else max(np.mean(np.abs(A) ** 2) - own.v, 1e-3 * own.v)
        found.append(estimated.smoothed_by(R, own.v / power, A))
    return np.concatenate(found, axis=2)


def by_profiles(own: estimated.Estimate) -> NDArray:
    """Return the LMMSE estimate (N, m, n) with a decay and a power for each user, fitted to its samples."""
    alone = (replace(own, H=own.H[:, :, [k]], A=own.A[:, :, [k]]) for k in range(own.H.shape[2]))
    return np.concatenate([estimated.by_profile(user) for user in alone], axis=2)


def rates(H: NDArray, W: NDArray, noise: float) -> NDArray:
    """Return the mean rate of each user over the tones, in bit/s/Hz."""
    left = nm.wireless.post_equalisation_noise(torch.from_numpy(H), torch.from_numpy(W), noise)
    return (torch.log1p(1 / left).mean(dim=0) / np.log(2)).numpy()


def drops_table(record: Record) -> Table:
    """Tabulate the parts of the rate that ways keep, over the drops and over draws of the noise in Munich."""
    rows = []
    for way in _DROPPED.values():
        row = [way]
        for found in (record.numbers["drops"], record.numbers["munich"]):
            row += [percent([one["sum"][way] for one in found]), percent([middle(one["users"][way]) for one in found])]
        rows.append(row)
    header = ["part of the rate, %", "UMi: all users", "UMi: user in the middle"]
    return Table([*header, "Munich: all users", "Munich: user in the middle"], rows)


def glue_drops(record: Record) -> None:
    """Glue what the text says of the drops and of Munich."""
    for name, found in (("drop", record.numbers["drops"]), ("munich", record.numbers["munich"])):
        apart = [max(one["powers"]) - min(one["powers"]) for one in found]
        values = {
            "count": len(found),
            "users": len(found[0]["powers"]),
            "apart-least": min(apart),
            "apart-most": max(apart),
            "power-least": min(min(one["powers"]) for one in found),
            "power-most": max(max(one["powers"]) for one in found),
            "alone-least": min(min(one["terms_alone"]) for one in found),
            "alone-most": max(max(one["terms_alone"]) for one in found),
            "kept-least": min(min(one["kept"]) for one in found),
            "kept-most": max(max(one["kept"]) for one in found),
            "said": found[0]["samples"],
            "ahead": sum(one["sum"][PROFILED] > one["sum"][MAP] for one in found),
            "solves-least": min(one["solves"] for one in found),
            "solves-most": max(one["solves"] for one in found),
            "terms-least": min(one["terms"] for one in found),
            "terms-most": max(one["terms"] for one in found),
        }
        for key, way in _DROPPED.items():
            values[f"sum-{key}"] = 100 * middle([one["sum"][way] for one in found])
            values[f"least-{key}"] = 100 * middle([min(one["users"][way]) for one in found])
        for key, value in values.items():
            provenance.glue(f"rc-{name}-{key}", value)


_DROPPED = {
    "tone": PER_TONE,
    "one": ONE,
    "user": BY_USER,
    "map": MAP,
    "smooth": SMOOTH,
    "profile": PROFILED,
    "mismatched": MISMATCHED,
    "own": OWN,
}


# Time and frequency


def slots(record: Record) -> None:
    """Record what a slot of users who move gains from smoothing along time too: ``slots``, over the seeds."""
    settings = [(speed, count) for speed in SPEEDS for count in PILOTS]
    rows = [[slot(record, *setting, seed) for seed in seeds(record)] for setting in settings]
    record.numbers["slots"] = [
        {"speed": speed, "pilots": count} | {key: [row[key] for row in own] for key in own[0]}
        for (speed, count), own in zip(settings, rows)
    ]


def slot(record: Record, speed: float, count: int, seed: int) -> dict[str, object]:
    """Compare ways on a slot of 14 symbols, from estimates at every second tone of some of them.

    Returns:
        The keys of `LEFT`: the part of the variance of the noise that is left at each symbol with pilots; ``rate``: the
        part of the sum rate over the slot, by way; ``terms`` of the grid, and the map's ``solves``.
    """
    antennas, users = estimated.SIZES[SMALL]
    panel = {"base_antennas": antennas, "user_antennas": 1, "users": users, "seed": seed, "dtype": torch.complex128}
    motion = {"speed": speed / 3.6, "symbols": SYMBOLS, "subcarriers": tones(record) // 2}
    channel = nm.wireless.cdl("C", delay_spread=SPREAD, **panel, **motion)
    t, f, at = channel.times[:, 0], channel.frequencies[:, 0], list(PILOTS[count])
    H = channel(torch.cartesian_prod(t, f)).numpy().reshape(len(t), len(f), *channel.shape)
    v = float(np.mean(np.abs(H) ** 2)) / 10 ** (SNR / 10)
    E = np.random.default_rng([seed, 2]).normal(size=(*H[at][:, ::2].shape, 2)) @ [1, 1j]
    drawn = [estimated.Estimate(channel, f.numpy(), H[i], A, v) for i, A in zip(at, H[at][:, ::2] + (v / 2) ** 0.5 * E)]
    inside = f.clamp(max=f[-2])
    alone = np.stack([_along_tones(own, own.A, v) for own in drawn])
    both = {AVERAGED: np.broadcast_to(averaged(drawn), H.shape), LINE: lines_through(drawn, t.numpy(), at)}
    grid = nm.families.from_grid([t[at], f[::2]], np.stack([own.A for own in drawn]), noise=v, names=["t", "f"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)  # that the tolerance is below the floor, which is meant
        surrogate = nm.fit(nm.Problem(grid, nm.LMMSE(noise=v)), tol=estimated.TOL, progress=False)
    held = np.abs(np.arange(SYMBOLS)[:, None] - at).argmin(axis=1)
    # Symbols before the first and after the last with pilots are held too.
    X = surrogate.grid(t.clamp(t[at[0]], t[at[-1]]), inside).numpy()
    found = {
        HELD: estimated.filters(np.stack([estimated.linear(own) for own in drawn]).reshape(-1, *channel.shape), v),
        ALONE: estimated.filters(alone.reshape(-1, *channel.shape), v),
    }
    found = {way: W.reshape(len(at), len(f), *W.shape[1:])[held] for way, W in found.items()}
    found |= {way: estimated.filters(own.reshape(-1, *channel.shape), v) for way, own in both.items()} | {GRID: X}
    smooth = grid(grid.grid).numpy().reshape(len(at), -1, *channel.shape)
    flat = H.reshape(-1, *channel.shape)
    full = rates(flat, estimated.filters(flat, v), v).sum()
    return {
        "alone": part_left(alone[:, ::2], H[at][:, ::2], v),
        "averaged": part_left(both[AVERAGED][at][:, ::2], H[at][:, ::2], v),
        "line": part_left(both[LINE][at][:, ::2], H[at][:, ::2], v),
        "grid": part_left(smooth, H[at][:, ::2], v),
        "rate": {way: float(rates(flat, W.reshape(-1, *W.shape[-2:]), v).sum() / full) for way, W in found.items()},
        "terms": grid.measured.terms,
        "solves": surrogate.report.exact_solves,
    }


def averaged(drawn: Sequence[estimated.Estimate]) -> NDArray:
    """Return the channel (N, m, n) from the mean of the estimates of several symbols, smoothed along the tones."""
    mean = np.mean([own.A for own in drawn], axis=0)
    return _along_tones(drawn[0], mean, drawn[0].v / len(drawn))


def lines_through(drawn: Sequence[estimated.Estimate], t: NDArray, at: Sequence[int]) -> NDArray:
    """Return the channel (T, N, m, n) from the line of least squares of each entry, smoothed along the tones.

    A line is the mean of its estimates and a slope, whose errors are independent. Each is smoothed alone, with the
    noise that is left in it. Before the first and after the last estimate the line is held.

    Args:
        drawn: Estimates at some symbols.
        t: Times of all symbols.
        at: Numbers of the symbols with estimates.
    """
    times, centre = t[at], t[at].mean()
    weights = (times - centre) / np.sum((times - centre) ** 2)
    slope = np.tensordot(weights, [one.A for one in drawn], 1)
    smooth = _along_tones(drawn[0], slope, drawn[0].v * float(weights @ weights))
    return averaged(drawn) + (t.clip(times[0], times[-1]) - centre)[:, None, None, None] * smooth


def _along_tones(own: estimated.Estimate, A: NDArray, v: float) -> NDArray:
    """Return samples A at the pilots of an estimate, with noise of variance v, smoothed, at all tones."""
    return nm.families.from_samples(own.pilots, A, noise=v)(estimated.inside(own))


def part_left(X: NDArray, H: NDArray, v: float) -> list[float]:
    """Return the mean squared error at each symbol, as a part of the variance of the noise."""
    return (np.mean(np.abs(X - H) ** 2, axis=(1, 2, 3)) / v).tolist()


def slots_table(record: Record) -> Table:
    """Tabulate what is left of the noise, and the parts of the rate over the slot."""
    rows = []
    for own in record.numbers["slots"]:
        left = [percent([statistics.fmean(symbols) for symbols in own[key]]) for key in LEFT]
        kept = [percent([rate[way] for rate in own["rate"]]) for way in SLOT]
        rows.append([f"{own['speed']} km/h, {own['pilots']}", *left, *kept])
    header = ["speed, symbols with pilots", *(f"noise left, %: {way.removesuffix(', held')}" for way in LEFT.values())]
    return Table([*header, *(f"rate, %: {way}" for way in SLOT)], rows)


def less_noise(own: dict, key: str) -> float:
    """Return how many times less noise a way leaves than each symbol smoothed alone, the median over the draws.

    Args:
        own: A setting of ``slots``.
        key: Of `LEFT`.
    """
    return middle([statistics.fmean(a) / statistics.fmean(b) for a, b in zip(own["alone"], own[key])])


def apart_from_grid(found: Sequence[dict], way: str) -> float:
    """Return how far the part of the rate that a way keeps is at most from that of the grid, in any draw."""
    return max(abs(rate[way] - rate[GRID]) for own in found for rate in own["rate"])


def at_speed(found: Sequence[dict], speed: float) -> list[dict]:
    """Return the settings of a speed."""
    return [own for own in found if own["speed"] == speed]


def glue_slots(record: Record) -> None:
    """Glue what the text says of slots."""
    found = record.numbers["slots"]
    for own in found:
        setting = f"{own['speed']}-{own['pilots']}"
        provenance.glue(f"rc-slot-gain-{setting}", less_noise(own, "grid"))
        provenance.glue(f"rc-slot-gain-averaged-{setting}", less_noise(own, "averaged"))
        for key, way in (LEFT | {"held": HELD}).items():
            provenance.glue(f"rc-slot-{key}-{setting}", 100 * middle([rate[way] for rate in own["rate"]]))
    walking = apart_from_grid(at_speed(found, SPEEDS[0]), AVERAGED)
    provenance.glue("rc-slot-apart-averaged", _points(walking))
    provenance.glue("rc-slot-apart-line", _points(apart_from_grid(found, LINE)))


def _points(part: float) -> str:
    return f"{at_least(100 * part):g}"


def check_slots(found: Sequence[dict]) -> None:
    """Assert what the text says of slots."""
    for own in found:
        rates_ = {way: [rate[way] for rate in own["rate"]] for way in (HELD, ALONE, GRID)}
        assert all(a < b < c for a, b, c in zip(*rates_.values())), "the grid keeps more than one symbol in every draw"
        pairs = [pair for alone, grid in zip(own["alone"], own["grid"]) for pair in zip(alone, grid)]
        if own["speed"] == SPEEDS[0]:
            assert all(grid < alone for alone, grid in pairs), "less noise at each symbol"
        assert statistics.fmean(g for _, g in pairs) < statistics.fmean(a for a, _ in pairs), (
            "and on average at any speed"
        )
    by = {(own["speed"], own["pilots"]): own for own in found}
    gain = {setting: less_noise(own, "grid") for setting, own in by.items()}
    for count in PILOTS:
        ordered = [gain[speed, count] for speed in SPEEDS]
        assert ordered == sorted(ordered, reverse=True), "the faster, the less"
    assert all(gain[speed, 4] > gain[speed, 2] for speed in SPEEDS), "more symbols, more to average"
    check_combined(found)


def check_combined(found: Sequence[dict]) -> None:
    """Assert what the text says of pilots that are averaged over the symbols, and of lines through them."""
    walking = at_speed(found, SPEEDS[0])
    assert apart_from_grid(walking, AVERAGED) < SAME, "users who walk lose nothing by an average"
    for own in walking:
        assert less_noise(own, "averaged") > (1 - NEAR) * less_noise(own, "grid"), "which leaves no more noise"
    for own in at_speed(found, SPEEDS[-1]):
        kept = {way: middle([rate[way] for rate in own["rate"]]) for way in SLOT}
        assert kept[AVERAGED] < kept[ALONE], "the fastest lose more than by one symbol"
        assert less_noise(own, "averaged") < 1, "and an average leaves more of an error"
    assert apart_from_grid(found, LINE) < SAME, "a line is as good as the grid at any speed"


# Irregular samples


def irregular(record: Record) -> None:
    """Record what is recognised of nulls, blocks and steps, large and small, over the seeds: ``irregular``."""
    count = provenance.pick(record.profile, smoke=128, cpu=256, gpu=256)
    found = {}
    for name, part in PARTS.items():
        rows = [row for seed in seeds(record) for row in estimated.irregular(seed=seed, tones=count, part=part)]
        for kind in dict.fromkeys(row["kind"] for row in rows):
            own = [row for row in rows if row["kind"] == kind]
            if own[0]["made"] or part == 1:
                found[kind if part == 1 else f"{kind}, {name}"] = counted(own)
    record.numbers["irregular"] = found


def counted(rows: Sequence[dict]) -> dict[str, object]:
    """Return over draws how many jumps and gaps were planted, found in their place and found elsewhere, and errors."""
    return {
        "made": sum(len(row["made"]) for row in rows),
        "found": sum(len(set(row["made"]) & set(row["found"])) for row in rows),
        "wrong": sum(len(set(row["found"]) - set(row["made"])) for row in rows),
        "left": sum(row["left"] for row in rows),
        "gaps": sum(row["gaps"] for row in rows),
        "before": [row["before"] for row in rows],
        "after": [row["after"] for row in rows],
        "said": rows[0]["samples"],
    }


PLANTED = {
    "nulls and guards": "no tones at DC and between blocks",
    "blocks of 20 MHz": "blocks turned by 1, 2.5 and 0.9 radians",
    "steps of the gain": "gains of 6, -3 and 3 dB from packet to packet",
    "blocks of 20 MHz, small": "a tenth of these angles",
    "steps of the gain, small": "a tenth of these steps in dB",
}


def irregular_table(record: Record) -> Table:
    """Tabulate what was planted in irregular samples and what was found."""
    rows = []
    for kind, what in PLANTED.items():
        own = record.numbers["irregular"][kind]
        gaps = f"{own['gaps']} of {own['left']} gaps; " if own["left"] else ""
        jumps = f"{own['found']} of {own['made']} jumps, " if own["made"] else ""
        found = f"{gaps}{jumps}{own['wrong']} false"
        rows.append([kind, what, found, shown(own["before"]), shown(own["after"])])
    return Table(["samples", "planted", "found, all draws", "error before", "error smoothed"], rows)


def glue_irregular(record: Record) -> None:
    """Glue what the text says of irregular samples."""
    found = record.numbers["irregular"]
    small = [own for kind, own in found.items() if kind.endswith("small")]
    provenance.glue("rc-irregular-missed", sum(own["made"] - own["found"] for own in small))
    provenance.glue("rc-irregular-small", sum(own["made"] for own in small))
    provenance.glue("rc-irregular-said", found["blocks of 20 MHz"]["said"])


def paper_table(record: Record) -> Table:
    """Tabulate what the paper says beside what was measured here."""
    point = at(record)
    kept = {name: percent([one["sum"][MAP] for one in record.numbers[name]]) for name in ("drops", "munich")}
    rows = [
        ["knowledge of the channel", "not known to us", "least-squares estimates with noise"],
        ["error of the map", "called acceptable", shown(point["error"][MAP])],
        ["error of exact results from the same estimates", "not known to us", shown(point["error"][PER_TONE])],
        ["error of exact results from the same smoothed samples", "not known to us", shown(point["error"][SMOOTH])],
        ["rate kept by the map, %: users of equal power", "not known to us", percent(point["rate"][MAP])],
        ["UMi drops", "not known to us", kept["drops"]],
        ["Munich", "not known to us", kept["munich"]],
    ]
    return Table(["", "paper (its task)", "this run"], rows)


# What the chapter says in words


def check(record: Record) -> None:
    """Assert what the text says in words."""
    assert max(record.numbers["sionna"].values()) < 1e-9, "one filter for all pairs is Sionna's"
    points = record.numbers["noisy"][SMALL]
    for point in points:
        error, rate = point["error"], point["rate"]
        for i in range(len(point["terms"])):
            assert error[LMMSE][i] < error[MAP][i] < error[PER_TONE][i], "between the two in every draw"
            assert rate[PER_TONE][i] < rate[MAP][i], "and a larger rate than tone by tone"
            assert rate[SMOOTH][i] - rate[MAP][i] < COSTS, "the map costs no rate"
    assert apart(points) < NEAR, "the map has the error of its samples"
    for row in (*record.numbers["drops"], *record.numbers["munich"]):
        parts = row["sum"]
        assert abs(parts[MAP] / parts[SMOOTH] - 1) < NEAR, "nor here"
        order = [parts[way] for way in (PER_TONE, ONE, BY_USER, MAP, OWN)]
        assert order == sorted(order), "each user's terms are better, shrunk ones more so, LMMSE best"
    check_slots(record.numbers["slots"])
    check_irregular(record.numbers["irregular"])
    if record.profile != "smoke":
        check_sizes(record)
        check_large(record.numbers["noisy"][LARGE])


def check_irregular(found: dict[str, dict]) -> None:
    """Assert that what is large is found and named, and nothing else."""
    for kind, own in found.items():
        assert own["wrong"] == 0, "no false jumps"
        assert all(after < before for after, before in zip(own["after"], own["before"])), "smoothing helps"
        if not kind.endswith("small"):
            assert (own["found"], own["gaps"]) == (own["made"], own["left"]), "all of them are found"


def check_sizes(record: Record) -> None:
    """Assert what the text says of full sizes."""
    for point in record.numbers["noisy"][SMALL]:
        assert middle(point["rate"][MAP]) < middle(point["rate"][LMMSE]), "the true covariance wins"
    for spread in SPREADS:
        own = [point for point in record.numbers["noisy"][SMALL] if point["spread"] == spread]
        terms = [middle(point["terms"]) for point in own]
        assert terms == sorted(terms), "less noise, more terms"
    for snr in SNRS:
        terms = [middle(at(record, spread, snr)["terms"]) for spread in SPREADS]
        assert terms == sorted(terms), "longer delays, more terms"
    lost = beaten(record, MISMATCHED)
    assert set(lost) <= {f"300 ns with {snr} dB" for snr in (30, 40)}, "long delays, little noise"
    assert lost, "there the map loses"
    blind = [a / b for p in record.numbers["noisy"][SMALL] for a, b in zip(p["error"][BLIND], p["error"][MAP])]
    assert max(blind) < 1.25, "the variance need not be given"
    point = at(record)
    assert middle(point["rate"][MAP]) > middle(point["rate"][MISMATCHED]), "better than the covariance of any delay"
    check_estimators(record)
    check_users(record.numbers["drops"], record.numbers["munich"])
    equal = max(max(point["solves"]) for point in record.numbers["noisy"][SMALL])
    most = max(row["solves"] for row in record.numbers["drops"])
    assert most > equal, "more than with users of equal power"
    assert most > tones(record) // 2, "in some drops at all pilots"
    found = record.numbers["irregular"]
    assert all(own["found"] < own["made"] for kind, own in found.items() if kind.endswith("small")), "some are missed"


def check_estimators(record: Record) -> None:
    """Assert what the text says of the fitted profile, and of the covariance of any delay."""
    points, point = record.numbers["noisy"][SMALL], at(record)
    assert middle(point["rate"][PROFILED]) > middle(point["rate"][MAP]), "worth naming"
    assert len(nearer(points, PROFILED)) == len(points), "a fitted profile is nearer"
    ahead = beaten(record, PROFILED)
    assert len(ahead) > len(points) / 2, "and mostly keeps more"
    assert all(own["snr"] >= 30 for own in points if _setting(own) not in ahead), "but with little noise"
    for own in points:
        error = {way: middle(own["error"][way]) for way in (MAP, MISMATCHED, PER_TONE)}
        assert error[MAP] < error[MISMATCHED] < error[PER_TONE], "its line lies between"


def check_users(drops: Sequence[dict], munich: Sequence[dict]) -> None:
    """Assert what the text says of near and far users."""
    least = {way: middle([min(row["users"][way]) for row in drops]) for way in _DROPPED.values()}
    assert least[PER_TONE] < least[ONE] < least[BY_USER] < least[MAP] < least[OWN], "of the user who keeps least"
    assert least[OWN] > max(least[way] for way in _DROPPED.values() if way != OWN), "most with the true covariance"
    for row in drops:
        assert row["powers"][int(np.argmin(row["users"][PER_TONE]))] < -10, "pilots far below the noise"
    near = [middle([middle(row["users"][way]) for row in drops]) for way in (MAP, BY_USER)]
    assert abs(near[0] - near[1]) < 0.03, "close for the user in the middle"
    for row in (*drops, *munich):
        assert row["sum"][MISMATCHED] < row["sum"][MAP], "better than the covariance of any delay"
        assert "by column" in row["samples"], "users are shrunk apart"


def check_large(points: Sequence[dict]) -> None:
    """Assert what the text says of the larger array."""
    for point in points:
        assert apart([point]) < NEAR or point["spread"] == LONG, "the map has the error of its samples"
        error, rate = ({way: middle(point[key][way]) for way in KNOWS} for key in ("error", "rate"))
        assert error[MAP] > (1 - NEAR) * error[SMOOTH], "and nowhere less"
        assert error[LMMSE] < error[MAP] < error[PER_TONE], "between the two"
        assert rate[MAP] < rate[LMMSE], "the true covariance wins"
        assert rate[MAP] > rate[PER_TONE] or point["spread"] == LONG, "tone by tone wins with the longest delays alone"
        dear = (point["spread"], point["snr"]) == (LONG, SNRS[-1])
        assert (rate[SMOOTH] - rate[MAP] > COSTS) == dear, "costs rate with long delays and little noise alone"
    if points[-1]["spread"] == LONG:
        most = max(points, key=lambda point: middle(point["terms"]))
        assert (most["spread"], most["snr"]) == (LONG, SNRS[-1]), "and has the most terms there"
    medians = [{key: {way: middle(p[key][way]) for way in KNOWS} for key in ("error", "rate")} for p in points]
    nearer = [m for m in medians if m["error"][MAP] < m["error"][MISMATCHED]]
    assert any(m["rate"][MAP] < m["rate"][MISMATCHED] for m in nearer), "less error and less of the rate"
