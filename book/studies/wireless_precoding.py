"""Studies of the chapter on wireless singular vectors and precoding: precoders of a band from few exact solves."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import torch
from torch import Tensor

import neumatc as nm
from neumatc import linalg
from studies import practice, precoders, provenance, receivers, tones
from studies.provenance import Record
from studies.solvers import svd_by_gram

Row = dict[str, object]

# The record that the chapter shows, and the residual of its maps.
SURVEY, TOL = "wireless_precoders", 1e-2
# Noise power per receive antenna over the total transmit power.
NOISE = 0.1
STREAMS, USERS = 4, 8
# A 16 x 64 downlink to one user.
PANEL = {"user_antennas": (2, 4, 2), "direction": "downlink"}
MODELS, DELAYS = ("A", "C", "D"), (30e-9, 100e-9, 300e-9, 1000e-9)
PATTERNS = {"directional": "38.901", "omni": "omni"}
# Solves of 5G practice: one for each resource block of 12 tones.
BLOCK = 12
# Every so many tones are judged by their rate; steps are taken between all.
EVERY = 4
MAP, BASES, SPLINE = "map of vectors", "map of bases", "aligned spline"
HELD, BLOCKS, LINEAR, GEODESIC = "held", "held, each block", "linear, aligned", "geodesic"
CUBIC, ENTRIES = "cubic spline", "linear"
SPHERE, TURNED = "phase chosen", "linear, aligned, turned"
RETURNED, FOLLOWED, PAIRS = "exact, as returned", "exact, followed", "exact, pairs followed"
# Those that interpolate or hold bases of subspaces, whose columns are no singular vectors.
SPANS = (LINEAR, GEODESIC, BASES)


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
    judged = H[::EVERY].to(torch.complex128)
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
            found[key][name] = 1 - rate(judged, V[::EVERY], NOISE).mean() / reached[key]

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
    judged = H[::EVERY].to(torch.complex128)
    best = practice.precoded_rate(judged, precoders.by_gram(judged, 1).value, NOISE).mean()
    V, surrogate = mapped(channel, nm.SVD(rank=1), tol, seed)
    solves = surrogate.report.exact_solves
    found = {MAP: V, SPHERE: precoders.spherical(H, 1, solves).value}
    found |= {way: V for way, V, _ in ways(channel, H, 1, solves) if way != TURNED}
    lost = {way: 1 - practice.precoded_rate(judged, V[::EVERY], NOISE).mean() / best for way, V in found.items()}
    return placed(case) | {"solves": solves, "met": bool(surrogate.report.met), "lost": lost}


def several(case: tuple[str, float, str], subcarriers: int, tol: float, seed: int) -> Row:
    """Return the part of the sum rate of several users that regularised zero forcing loses on one channel.

    The regularisation is k s: the number of users times the noise over the total power.
    """
    channel = drawn(*case, subcarriers, seed, user_antennas=1, users=USERS)
    H, loading = channel(channel.frequencies), USERS * NOISE
    judged = H[::EVERY].to(torch.complex128)
    best = users_rate(judged, precoders.regularised(tones.lmmse(judged, loading))).mean()
    surrogate = nm.fit(nm.Problem(channel, nm.RZF(noise=loading)), tol=tol, seed=seed, progress=False)
    solves = min(surrogate.report.exact_solves, len(H))
    found = {MAP: surrogate(channel.frequencies)}
    for way, peer in {CUBIC: receivers.spline, ENTRIES: receivers.linear, HELD: receivers.held}.items():
        found[way] = peer(H, loading, solves).value
    found[BLOCKS] = receivers.held(H, loading, -(-len(H) // BLOCK)).value
    lost = {}
    for way, W in found.items():
        lost[way] = 1 - users_rate(judged, precoders.regularised(W[::EVERY].to(judged))).mean() / best
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
    for key, found, models in (("channels", surveyed, MODELS), ("single", single, "C"), ("users", several, "C")):
        work = partial(found, subcarriers=subcarriers, tol=tol, seed=record.seed)
        if workers == 1:
            record.numbers[key] = list(map(work, cases(models, delays)))
            continue
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            record.numbers[key] = list(pool.map(work, cases(models, delays)))


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
    """Return a lost part of the rate: below rounding as such.

    Example:
        >>> lost_text(0.0123), lost_text(-3e-9)
        ('1e-02', '< 1e-7')
    """
    return f"{part:.0e}" if part >= 1e-7 else "< 1e-7"


if __name__ == "__main__":
    take(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
