"""Studies of the chapter on wireless singular vectors and precoding: precoders of a band from few exact solves.

All tones are judged. A part of them, equally spaced, has a divisor in common with the groups or nodes of some peer: it
then sees their middles or edges alone.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context

import torch
from matplotlib.figure import Figure
from torch import Tensor

import neumatc as nm
from neumatc import linalg
from studies import figures, practice, precoders, provenance, receivers, tones
from studies.provenance import Record, Table
from studies.solvers import svd_by_gram
from studies.texts import at_least, between, listed, side, spread

Row = dict[str, object]

# Rates in double precision, of precoders in single precision: what is smaller is no loss.
ROUNDING = 1e-6
# The record that the chapter shows, and the residual of its maps.
SURVEY, TOL = "wireless_precoders", 1e-2
# How many times as fast as NumPy the paper reports its decomposition to be.
PAPER = 10
# Noise power per receive antenna over the total transmit power.
NOISE = 0.1
STREAMS, USERS = 4, 8
# A 16 x 64 downlink to one user.
PANEL = {"user_antennas": (2, 4, 2), "direction": "downlink"}
MODELS, DELAYS = ("A", "C", "D"), (30e-9, 100e-9, 300e-9, 1000e-9)
PATTERNS = {"directional": "38.901", "omni": "omni"}
# Tones of a resource block. One precoder for each is finer than the groups of 5G: `studies.precoding_groups`.
BLOCK = 12
MAP, BASES, SPLINE = "map of vectors", "map of bases", "aligned spline"
HELD, BLOCKS, LINEAR, GEODESIC = "held", "held, each block", "linear, aligned", "geodesic"
CUBIC, ENTRIES = "cubic spline", "linear"
SPHERE, TURNED = "phase chosen", "linear, aligned, turned"
RETURNED, FOLLOWED, PAIRS = "exact, as returned", "exact, followed", "exact, pairs followed"
# Those that interpolate or hold bases of subspaces, whose columns are no singular vectors.
SPANS = (LINEAR, GEODESIC, BASES)
# Singular vectors without jumps.
VECTORS = (FOLLOWED, PAIRS, MAP, SPLINE)
# Largest step of the map over that of exact pairs, where it meets its tolerance.
CLOSE = 1.1


def linear_rate(H: Tensor, V: Tensor, noise: float = NOISE) -> Tensor:
    r"""Return the sum rate of one user whose LMMSE receiver decodes stream by stream, in bit/s/Hz.

    It is `neumatc.wireless.sum_rate` of the effective channel :math:`G = H V / \|V\|_F` with its LMMSE filters: what
    `studies.practice.precoded_rate` is for a receiver that decodes the streams jointly.

    Args:
        H: Channels, shape (B, m, n).
        V: Precoders, shape (B, n, k).
        noise: s, noise power per receive antenna over the total transmit power.

    Returns:
        Shape (B,), float64.
    """
    V = V.to(torch.complex128)
    G = H.to(torch.complex128) @ V / torch.linalg.matrix_norm(V)[:, None, None]
    return nm.wireless.sum_rate(G, tones.lmmse(G, noise), noise)


def users_rate(H: Tensor, V: Tensor, noise: float = NOISE) -> Tensor:
    """Return the sum rate of k users of one antenna that each decode their own stream, in bit/s/Hz.

    Args:
        H: Downlink channels, shape (B, k, n).
        V: Precoders, shape (B, n, k), of the dtype of H, columns of unit length, each with 1 / k of the power.
        noise: s, noise power per receive antenna over the total transmit power.

    Returns:
        Shape (B,), real, of the precision of H.
    """
    G = H @ V
    return nm.wireless.sum_rate(G, linalg.identity_like(G), noise * V.shape[2])


def turned(H: Tensor, V: Tensor) -> Tensor:
    """Turn the bases V (B, n, k) so that their columns are singular vectors, as far as their spans allow.

    They become the right singular vectors of H V, strongest first. It takes H at every tone, a product with V and a
    decomposition of k x k, and their phases are as LAPACK returns them.
    """
    G = H @ V
    return V @ torch.linalg.eigh(G.mH @ G)[1].flip(-1)


def largest_step(V: Tensor) -> float:
    r"""Return the largest step from tone to tone, :math:`\max_t \|V(t + 1) - V(t)\|_F / \sqrt k`."""
    return float((torch.linalg.matrix_norm(V[1:] - V[:-1]) / math.sqrt(V.shape[2])).max())


def followed(V: Tensor, U: Tensor | None = None) -> Tensor:
    """Turn each column by the phase that brings it, and that of U, closest to that of the tone before.

    Args:
        V: Singular vectors, shape (N, n, k), in the order of their values; where these cross it jumps.
        U: Those of the other side, (N, m, k), which turn with them, as they must if H V is to stay U S.

    Returns:
        V, turned.
    """
    overlap = (V[1:].conj() * V[:-1]).sum(dim=1)
    if U is not None:
        overlap = overlap + (U[1:].conj() * U[:-1]).sum(dim=1)
    turns = torch.cat([torch.ones_like(overlap[:1]), overlap / overlap.abs()]).cumprod(dim=0)
    return V * turns[:, None, :]


def mapped(channel: nm.wireless.Channel, operation: nm.Operation, tol: float, seed: int) -> tuple[Tensor, nm.Surrogate]:
    """Fit a map in pieces to a tolerance, and return its precoders (N, n, k) on all tones, and the map.

    Args:
        channel: Of the downlink.
        operation: `nm.SVD` or `nm.Subspace`.
        tol: Relative residual. More than one tone in four is not solved: then the report says that it was not met.
        seed: Of the fit.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)  # `met` is kept
        budget, problem = len(channel.frequencies) // 4, nm.Problem(channel, operation)
        surrogate = nm.fit(problem, tol=tol, budget=budget, seed=seed, progress=False)
    value = surrogate(channel.frequencies, orthonormal=True)
    return (value.Vh.mH if isinstance(operation, nm.SVD) else value), surrogate


def ways(channel: nm.wireless.Channel, H: Tensor, streams: int, solves: int) -> Iterator[tuple[str, Tensor, int]]:
    """Yield name, precoders (N, n, k) and exact solves of the peers, from the same number of exact solves.

    Args:
        channel: Of the downlink.
        H: Its matrices on all tones, (N, m, n).
        streams: k.
        solves: Of each but of one for each resource block.
    """
    V = practice.aligned_spline(channel, streams, solves)(channel.frequencies)[2].mH
    yield SPLINE, linalg.orthonormalized(V), solves
    for name, peer in ((HELD, precoders.held), (LINEAR, precoders.aligned), (GEODESIC, precoders.geodesic)):
        V, count = peer(H, streams, solves)
        yield name, V, count
        if name == LINEAR:
            yield TURNED, turned(H, V), count
    V, count = precoders.held(H, streams, -(-len(H) // BLOCK))
    yield BLOCKS, V, count


def compared(channel: nm.wireless.Channel, streams: int, tol: float, seed: int) -> Row:
    """Compare the precoders of one channel: rates that are lost with both receivers, and the largest steps.

    Args:
        channel: Of the downlink.
        streams: k.
        tol: Of the maps. The peers take as many exact solves as the map of singular vectors.
        seed: Of the fits.

    Returns:
        ``rate`` of exact vectors; ``met`` and ``events`` of the map of vectors; by way ``solves``, ``joint`` and
        ``linear``, parts of the rate that are lost, and ``step``.
    """
    H = channel(channel.frequencies)
    judged = H.to(torch.complex128)
    U, _, Vh = svd_by_gram(H, streams)
    best = precoders.by_gram(judged, streams).value
    rates = {"joint": practice.precoded_rate, "linear": linear_rate}
    reached = {key: rate(judged, best, NOISE).mean() for key, rate in rates.items()}
    found: Row = {"rate": reached["joint"], "linear_rate": reached["linear"], "solves": {}, "joint": {}, "linear": {}}
    exact = {RETURNED: Vh.mH, FOLLOWED: followed(Vh.mH), PAIRS: followed(Vh.mH, U)}
    found["step"] = {way: largest_step(V) for way, V in exact.items()}

    def keep(name: str, V: Tensor, solves: int) -> None:
        found["solves"][name], found["step"][name] = solves, largest_step(V)
        for key, rate in rates.items():
            found[key][name] = 1 - rate(judged, V, NOISE).mean() / reached[key]

    V, surrogate = mapped(channel, nm.SVD(rank=streams), tol, seed)
    solves = surrogate.report.exact_solves
    found |= {"met": bool(surrogate.report.met), "events": len(surrogate.report.events)}
    keep(MAP, V, solves)
    V, bases = mapped(channel, nm.Subspace(rank=streams, side="right"), tol, seed)
    keep(BASES, V, bases.report.exact_solves)
    for way in ways(channel, H, streams, solves):
        keep(*way)
    return found


def drawn(
    model: str, delay: float, pattern: str, subcarriers: int, seed: int, **settings: object
) -> nm.wireless.Channel:
    """Draw a channel; ``pattern`` is a key of `PATTERNS`."""
    settings = PANEL | settings
    pattern = PATTERNS[pattern]
    return nm.wireless.cdl(
        model, delay_spread=delay, user_pattern=pattern, subcarriers=subcarriers, seed=seed, **settings
    )


def cases(models: Sequence[str], delays: Sequence[float]) -> Iterator[tuple[str, float, str]]:
    """Yield model, delay spread and users' pattern, a line of the tables each."""
    return ((model, delay, pattern) for model in models for pattern in PATTERNS for delay in delays)


def surveyed(case: tuple[str, float, str], subcarriers: int, tol: float, seed: int) -> Row:
    """Return what `compared` finds of one channel."""
    return placed(case) | compared(drawn(*case, subcarriers, seed), STREAMS, tol, seed)


def placed(case: tuple[str, float, str]) -> Row:
    """Return model, delay spread and pattern of a case by name."""
    return dict(zip(("model", "delay", "pattern"), case))


def single(case: tuple[str, float, str], subcarriers: int, tol: float, seed: int) -> Row:
    """Return the part of the rate that beamformers of one stream lose on one channel.

    One stream has no others to tell apart, so both receivers have the same rate.
    """
    channel = drawn(*case, subcarriers, seed)
    H = channel(channel.frequencies)
    judged = H.to(torch.complex128)
    best = practice.precoded_rate(judged, precoders.by_gram(judged, 1).value, NOISE).mean()
    V, surrogate = mapped(channel, nm.SVD(rank=1), tol, seed)
    solves = surrogate.report.exact_solves
    found = {MAP: V, SPHERE: precoders.spherical(H, 1, solves).value}
    found |= {way: V for way, V, _ in ways(channel, H, 1, solves) if way != TURNED}
    lost = {way: 1 - practice.precoded_rate(judged, V, NOISE).mean() / best for way, V in found.items()}
    return placed(case) | {"solves": solves, "met": bool(surrogate.report.met), "lost": lost}


def several(case: tuple[str, float, str], subcarriers: int, tol: float, seed: int) -> Row:
    """Return the part of the sum rate of several users that regularised zero forcing loses on one channel.

    The regularisation is k s: the number of users times the noise over the total power.
    """
    channel = drawn(*case, subcarriers, seed, user_antennas=1, users=USERS)
    H, loading = channel(channel.frequencies), USERS * NOISE
    judged = H.to(torch.complex128)
    best = users_rate(judged, precoders.regularised(tones.lmmse(judged, loading))).mean()
    surrogate = nm.fit(nm.Problem(channel, nm.RZF(noise=loading)), tol=tol, seed=seed, progress=False)
    solves = min(surrogate.report.exact_solves, len(H))
    found = {MAP: surrogate(channel.frequencies)}
    for way, peer in {CUBIC: receivers.spline, ENTRIES: receivers.linear, HELD: receivers.held}.items():
        found[way] = peer(H, loading, solves).value
    found[BLOCKS] = receivers.held(H, loading, -(-len(H) // BLOCK)).value
    lost = {}
    for way, W in found.items():
        lost[way] = 1 - users_rate(judged, precoders.regularised(W.to(judged))).mean() / best
    return placed(case) | {"solves": solves, "met": bool(surrogate.report.met), "rate": best, "lost": lost}


def fill(record: Record, delays: Sequence[float], *, subcarriers: int, tol: float, workers: int = 1) -> None:
    """Record ``channels``, ``single`` and ``users``, a row for each channel, by some processes side by side.

    Args:
        record: Its seed decides.
        delays: Delay spreads in seconds.
        subcarriers: Tones of the band.
        tol: Of all maps.
        workers: Processes; 1: this one.
    """
    record.numbers |= {"tol": tol, "count": subcarriers, "blocks": -(-subcarriers // BLOCK)}
    parts = {"channels": (surveyed, MODELS), "single": (single, "C"), "users": (several, "C")}
    settings = {"subcarriers": subcarriers, "tol": tol, "seed": record.seed}
    with ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else nullcontext() as pool:
        ways = map if pool is None else pool.map
        rows = {key: ways(partial(of, **settings), cases(models, delays)) for key, (of, models) in parts.items()}
        record.numbers |= {key: list(found) for key, found in rows.items()}


def take(workers: int) -> None:
    """Take and publish the record that the chapter shows."""
    record = Record(SURVEY, profile="study", device="cpu", seed=0)
    record.provenance["command"] = "python -m studies.wireless_precoding"
    fill(record, DELAYS, subcarriers=3276, tol=TOL, workers=workers)
    record.save()
    provenance.publish(SURVEY, "study")


def ladder(record: Record, delay: float, tols: Sequence[float], *, subcarriers: int) -> None:
    """Record what a map of each tolerance and its peers lose on CDL-C, directional, as ``ladder``."""
    channel = drawn("C", delay, "directional", subcarriers, record.seed)
    rows = [compared(channel, STREAMS, tol, record.seed) for tol in tols]
    record.numbers["ladder"] = {
        "delay": delay,
        "solves": [row["solves"][MAP] for row in rows],
        **{key: {name: [row[key][name] for row in rows] for name in rows[0][key]} for key in ("joint", "linear")},
    }


def name(row: Row) -> str:
    """Return what tables call a channel.

    Example:
        >>> name({"model": "C", "pattern": "omni", "delay": 3e-8})
        'CDL-C, omni, 30 ns'
    """
    return f"CDL-{row['model']}, {row['pattern']}, {1e9 * row['delay']:,.0f} ns"


def lost_text(part: float) -> str:
    """Return a lost part of the rate; one of the size of rounding, on either side of zero, as such.

    Example:
        >>> lost_text(0.0123), lost_text(-3e-9)
        ('1e-02', '< 1e-06')
    """
    return f"{part:.0e}" if part >= ROUNDING else f"< {ROUNDING:.0e}"


def solves_text(row: Row) -> str:
    """Return the exact solves of a map, and whether they did not suffice for its tolerance."""
    return (
        f"{row['solves'][MAP] if isinstance(row['solves'], dict) else row['solves']}{'' if row['met'] else ', not met'}"
    )


def losses_table(record: Record, key: str) -> Table:
    """Tabulate the parts of the rate that are lost with a receiver, ``"joint"`` or ``"linear"``, channel by channel."""
    shown = (MAP, SPLINE, HELD, LINEAR, TURNED, GEODESIC, BASES, BLOCKS)
    rows = [[name(r), solves_text(r), *(lost_text(r[key][way]) for way in shown)] for r in record.numbers["channels"]]
    return Table(["channel", "exact solves", *shown], rows)


def steps_table(record: Record) -> Table:
    """Tabulate the largest steps from tone to tone, a line for each channel."""
    shown = (RETURNED, FOLLOWED, PAIRS, MAP, SPLINE, BASES, LINEAR, GEODESIC, HELD)
    rows = [[name(r), *(f"{r['step'][way]:.1g}" for way in shown)] for r in record.numbers["channels"]]
    return Table(["channel", *shown], rows)


def single_table(record: Record) -> Table:
    """Tabulate what beamformers of one stream lose."""
    shown = (MAP, SPLINE, SPHERE, LINEAR, GEODESIC, HELD, BLOCKS)
    rows = [[name(r), solves_text(r), *(lost_text(r["lost"][way]) for way in shown)] for r in record.numbers["single"]]
    return Table(["channel", "exact solves", *shown], rows)


def users_table(record: Record) -> Table:
    """Tabulate what regularised zero forcing loses."""
    shown = (MAP, CUBIC, ENTRIES, HELD, BLOCKS)
    rows = [
        [name(r), f"{r['rate']:.1f}", solves_text(r), *(lost_text(r["lost"][way]) for way in shown)]
        for r in record.numbers["users"]
    ]
    return Table(["channel", "rate (bit/s/Hz)", "exact solves", *shown], rows)


def ladder_figure(record: Record) -> Figure:
    """Plot the rate that is lost against the exact solves, a panel for each receiver."""
    found = record.numbers["ladder"]
    styles = {
        MAP: (figures.BLUE, "o-"),
        SPLINE: (figures.RED, "^-."),
        HELD: (figures.BLACK, "s:"),
        LINEAR: (figures.ORANGE, "D--"),
        GEODESIC: (figures.PURPLE, "v--"),
    }
    figure, panels = figures.stacked(2, 3.0, sharex=True)
    for axes, (key, title) in zip(panels, {"joint": "joint receiver", "linear": "linear receiver"}.items()):
        lines = []
        for way, (colour, line) in styles.items():
            lost = [max(part, ROUNDING / 10) for part in found[key][way]]
            lines += axes.loglog(found["solves"], lost, line, color=colour, ms=4, label=way)
        axes.set(title=title, ylabel="part of the rate lost")
        axes.set_xticks(found["solves"], [str(n) for n in found["solves"]])
        axes.minorticks_off()
        figures.name_lines(axes, lines)
    panels[-1].set_xlabel("exact solves")
    return figure


def paper_table(closed: Record, pieces: Record, trained: Sequence[Sequence[str]]) -> Table:
    """Tabulate what the paper reports of the decomposition beside trained maps, closed forms and pieces.

    Args:
        closed: Of the chapter ``beyond_the_inverse``, as `last_good.shown` returns it.
        pieces: ``speed``.
        trained: Rows of trained maps, see `studies.trained_precoders.rows`.
    """
    unknown, loop, gram = "not known to us", "NumPy loop", "Gram matrix"
    rows = [["the paper, trained (its task, its machine)", "called acceptable", "10, perhaps more", *3 * [unknown]]]
    rows += map(list, trained)
    for case, label in (("C30", "CDL-C, 30 ns"), ("C100", "CDL-C, 100 ns")):
        entry = closed.numbers["svd"][case]
        own = ("map, orthonormal", "fit and map, orthonormal")
        times = (entry["faster"][rival][way] for rival in (loop, gram) for way in own)
        rows.append([f"closed form, orthonormal, {label}", f"{entry['error']:.0e}", *map(spread, times)])
    for entry in pieces.numbers["svd"]:
        label = entry["name"].removeprefix("SVD ")
        if label.startswith("CDL-C"):
            times = (entry[f"{rival}: {when}"] for rival in (loop, "Gram") for when in ("after", "with the fit"))
            rows.append([f"in pieces, {label}", f"{entry['error']:.0e}", *map(spread, times)])
            other = entry["interpolation"].get(SPLINE)
            if other is None:  # none of its budgets kept the tolerance
                continue
            times = (other[f"{rival}: {when}"] for rival in (loop, "Gram") for when in ("after", "with the fit"))
            rows.append([f"{SPLINE}, {label}", f"{other['error']:.0e}", *map(spread, times)])
    over = [f"over {rival}, {fit}" for rival in ("a NumPy loop", "Gram") for fit in ("after the fit", "fit counted")]
    return Table(["leading vectors", "error", *over], rows)


def paper_sentences(closed: Record, pieces: Record) -> str:
    """Say whether the paper's factor over NumPy is reached, by quartiles, after the fit and with it, for each channel.

    Args:
        closed, pieces: As for `paper_table`.
    """
    words = "reached", "not reached", "not decided"
    own = {f"{1e9 * delay:.0f} ns": f"C{1e9 * delay:.0f}" for delay in (30e-9, 100e-9)}
    over = {at: closed.numbers["svd"][key]["faster"]["NumPy loop"] for at, key in own.items()}
    ways = {
        ("In closed form", "after the fit"): {at: x["map, orthonormal"] for at, x in over.items()},
        ("In closed form", "with the fit counted"): {at: x["fit and map, orthonormal"] for at, x in over.items()},
    }
    found = {e["name"].removeprefix("SVD CDL-C, "): e for e in pieces.numbers["svd"] if "CDL-C" in e["name"]}
    for when, key in (("after the fit", "after"), ("with the fit counted", "with the fit")):
        ways["In pieces", when] = {at: e[f"NumPy loop: {key}"] for at, e in found.items()}
    told: dict[str, list[str]] = {}
    for (way, when), ratios in ways.items():
        told.setdefault(way, []).append(f"{when} it is {_reached(ratios, words)}")
    return " ".join(f"{way} {', and '.join(parts)}." for way, parts in told.items())


def _reached(ratios: dict[str, Sequence[float]], words: Sequence[str]) -> str:
    """Say where ratios are above the paper's, by `texts.side`; one that was refused is not decided."""
    by_word: dict[str, list[str]] = {}
    for at, ratio in ratios.items():
        by_word.setdefault(side([x / PAPER for x in ratio], *words), []).append(at)
    return ", ".join(f"{word} at {listed(places)}" for word, places in by_word.items())


def glue(record: Record) -> None:
    """Glue what the text says of the channels, the streams and the users."""
    rows, numbers = record.numbers["channels"], record.numbers
    good, short = met(rows), [row for row in rows if row["delay"] <= 3e-7]

    def most(some: Sequence[Row], way: str, key: str = "linear") -> str:
        return lost_text(max(row[key][way] for row in some))

    for key, value in {
        "channels": len(rows),
        "met": len(good),
        "count": numbers["count"],
        "tol": numbers["tol"],
        "blocks": numbers["blocks"],
        "unmet": len(rows) - len(good),
        "unmet-lost": most(rows, MAP),
        "spans": percents(row["linear"][way] for row in good for way in SPANS),
        "spans-all": percents(row["linear"][way] for row in rows for way in SPANS),
        "joint-spans": lost_text(max(row["joint"][way] for row in short for way in SPANS)),
        "map": most(good, MAP),
        "spline": most(good, SPLINE),
        "held": most(good, HELD),
        "blocks-short": most(short, BLOCKS),
        "blocks-long": most(rows, BLOCKS),
        "blocks-wins": blocks_sentence(rows),
        "turned": most(good, TURNED),
        "spline-wins": sum(row["linear"][SPLINE] <= max(row["linear"][MAP], ROUNDING) for row in rows),
        "steps": steps_sentence(rows),
        "bases-steps": bases_sentence(rows),
        "single-sentence": single_sentence(numbers["single"]),
        "sphere-sentence": sphere_sentence(numbers["single"]),
        "least-solves": min(row["solves"][MAP] for row in good),
        "most-solves": max(row["solves"][MAP] for row in good),
        "fewer": sum(row["solves"][BASES] < row["solves"][MAP] for row in rows),
        "users-map": most(numbers["users"], MAP, "lost"),
        "users-blocks": most(numbers["users"], BLOCKS, "lost"),
        "users-spline-wins": sum(row["lost"][CUBIC] <= max(row["lost"][MAP], ROUNDING) for row in numbers["users"]),
        "users-exact": sum(row["solves"] == numbers["count"] for row in numbers["users"]),
        "users-count": len(numbers["users"]),
    }.items():
        provenance.glue(f"wp-{key}", value)


def met(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose map met its tolerance."""
    return [row for row in rows if row["met"]]


def steps_sentence(rows: Sequence[Row]) -> str:
    """Say how the largest steps of the map compare with those of exact pairs."""

    def most(some: Sequence[Row]) -> str:
        return f"{at_least(max(row['step'][MAP] / row['step'][PAIRS] for row in some)):.2g}"

    good, others = met(rows), [row for row in rows if not row["met"]]
    rest = f" On the other {len(others)} it is up to {most(others)} times theirs." if others else ""
    return (
        f"On the {len(good)} channels where the map meets its tolerance its largest step is at most {most(good)} times "
        f"that of exact pairs.{rest}"
    )


def steps_least(row: Row, way: str) -> bool:
    """Say whether the largest step of bases is no larger than that of any singular vectors."""
    return row["step"][way] <= min(row["step"][other] for other in VECTORS)


def bases_sentence(rows: Sequence[Row]) -> str:
    """Say on how many channels bases have smaller steps than singular vectors."""
    held, fitted = (sum(steps_least(row, way) for row in rows) for way in (LINEAR, BASES))
    rest = "" if held == fitted == len(rows) else " On the others the spline steps less."
    return f"aligned ones on {held} of {len(rows)} channels, as a map on {fitted}.{rest}"


def blocks_sentence(rows: Sequence[Row]) -> str:
    """Say on which channels one precoder for each resource block loses less than a map that met its tolerance."""
    wins = [name(row) for row in met(rows) if row["linear"][BLOCKS] < max(row["linear"][MAP], ROUNDING)]
    where = f"on {listed(wins)}" if wins else "on none"
    return f"One for each block loses less than the map {where} of the {len(met(rows))} channels."


def single_sentence(rows: Sequence[Row]) -> str:
    """Say what maps of one stream lose, and from how many solves."""
    solves = [row["solves"] for row in rows]
    lost = lost_text(max(row["lost"][MAP] for row in rows))
    return f"The map takes {min(solves)} to {max(solves)} decompositions and loses at most about {lost}."


def sphere_sentence(rows: Sequence[Row]) -> str:
    """Say how a phase that is chosen by trial compares with one that aligns the two vectors."""
    less = sum(row["lost"][SPHERE] <= max(row["lost"][LINEAR], ROUNDING) for row in rows)
    return f"A phase that is chosen by trial loses no more than one that aligns two vectors on {less} of {len(rows)}."


def percents(parts: Iterable[float]) -> str:
    """Return the ends of some parts in per cent.

    Example:
        >>> percents([0.0112, 0.2])
        'from 1.1 to 20 %'
    """
    found = [100 * part for part in parts]
    return f"{between(min(found), max(found), '.2g')} %"


def check(record: Record, survey: Record) -> None:
    """Assert what text, captions and figures say in words.

    Args:
        record: Of the chapter.
        survey: The published record of all channels.
    """
    check_channels(survey.numbers["channels"])
    unmet = [row["model"] for row in survey.numbers["channels"] if not row["met"]]
    assert 2 * unmet.count("D") > len(unmet), "most of those that need more have a line of sight"
    for row in survey.numbers["single"]:
        others = max(row["lost"][way] for way in (MAP, SPLINE, SPHERE, LINEAR, GEODESIC))
        assert row["lost"][HELD] > others, "held ones lose more"
    for row in survey.numbers["users"]:
        assert row["lost"][MAP] < max(row["lost"][HELD], ROUNDING), "better than what is held from as many solves"
    if record.profile != "smoke":
        check_ladder(record.numbers["ladder"])


def check_paper(closed: Record, pieces: Record) -> None:
    """Assert what the text says of the records of other chapters; a time that was refused refutes nothing.

    Args:
        closed, pieces: As for `paper_table`.
    """
    for channel in ("C30", "C100"):
        faster = closed.numbers["svd"][channel]["faster"]
        for way in ("map, orthonormal", "fit and map, orthonormal"):
            assert not faster["Gram matrix"][way][1] >= faster["NumPy loop"][way][1], "less is left"
    for entry in pieces.numbers["svd"]:
        if "CDL-C" in entry["name"]:
            assert not entry["Gram: with the fit"][1] >= entry["NumPy loop: with the fit"][1], "less is left"
            if SPLINE in entry["interpolation"]:
                other = entry["interpolation"][SPLINE]["Gram: with the fit"][1]
                assert not other <= entry["Gram: with the fit"][1], "the spline is the faster one, if told"


def check_channels(rows: Sequence[Row]) -> None:
    """Assert what the text says of all channels."""
    for way in (LINEAR, BASES):
        assert 2 * sum(steps_least(row, way) for row in rows) > len(rows), "bases mostly step least"
    for row in rows:
        joint, linear, step = row["joint"], row["linear"], row["step"]
        good = [MAP] if row["met"] else []
        assert abs(row["rate"] / row["linear_rate"] - 1) < ROUNDING, "singular vectors: both receivers agree"
        assert all(joint[way] < joint[HELD] for way in (SPLINE, LINEAR, GEODESIC, *good)), "less than holding"
        assert min(linear[way] for way in SPANS) > linear[HELD], "the order turns round"
        assert all(linear[way] < linear[HELD] for way in (SPLINE, *good)), "less than holding, equally many"
        assert linear[SPLINE] <= linear[MAP] + ROUNDING, "the spline is the better one, or as good, if told"
        assert abs(linear[TURNED] - joint[LINEAR]) < 0.5 * joint[LINEAR] + ROUNDING, "turned, as with the joint one"
        assert min(step[way] for way in (RETURNED, HELD, GEODESIC)) > 0.9, "they jump"
        for way in (LINEAR, BASES):
            passes = step[SPLINE] == min(step[x] for x in VECTORS) and step[SPLINE] < step[PAIRS]
            assert steps_least(row, way) or passes, "where bases do not step least, the spline passes over a turn"
        if row["met"]:
            assert max(step[LINEAR], step[BASES]) < 1.1 * min(step[FOLLOWED], step[MAP]), "less than map or exact"
            assert step[MAP] < CLOSE * step[PAIRS], "as exact transport"


def check_ladder(found: Row) -> None:
    """Assert what text and alternative text say of more decompositions on one channel."""
    joint, linear = found["joint"], found["linear"]
    for way in (MAP, SPLINE, HELD, LINEAR, GEODESIC):
        assert joint[way][-1] < max(0.5 * joint[way][0], ROUNDING), "with the joint receiver every way gains"
    for way in (MAP, SPLINE, HELD):
        assert linear[way][-1] < max(0.5 * linear[way][0], ROUNDING), "vectors gain with the linear one"
    for way in (LINEAR, GEODESIC):
        assert linear[way][-1] > 0.5 * linear[way][0] > 1e-3, "bases stay level"
    for a, b in zip(linear[TURNED], joint[LINEAR]):
        assert abs(a - b) < 0.5 * b + ROUNDING, "turned, they lose no more than with the joint receiver"


if __name__ == "__main__":
    take(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
