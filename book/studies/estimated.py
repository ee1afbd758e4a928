"""Estimated channels: filters from noisy least-squares estimates at pilots, tone by tone, as maps, and by Sionna.

Every way gets the same samples H + E at every second tone, E white with the noise of the receiver, and is judged at all
tones by the true H: the error of its LMMSE filters against those of H, and the part of their sum rate that it keeps.
Two peers tell what a map adds: exact filters of the very samples that it is fitted to, and an LMMSE estimator that
knows no more than it does (`by_profile`).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sionna.phy.ofdm import LMMSEChannelEstimator, LSChannelEstimator, PilotPattern, ResourceGrid

import neumatc as nm

# Of the tones of 5G, and of those of Wi-Fi (802.11ac), of which 64 are a block of 20 MHz.
SPACING, WIFI = 30e3, 312.5e3
# A cyclic prefix of 5G: the delays that a receiver without knowledge of the channel allows for.
PREFIX = 2.34e-6
# Antennas of the base station, and users of one antenna.
SIZES = {"16 x 4": ((2, 4, 2), 4), "64 x 8": ((4, 8, 2), 8)}
# Below what noise leaves in any of the cases: each map stops at its floor.
TOL = 1e-3
PER_TONE, AWARE, MAP = "tone by tone", "tone by tone, error known", "map of smoothed samples"
BLIND = "map of smoothed samples, noise estimated"
NEAREST, LINEAR = "Sionna, nearest pilot", "Sionna, linear"
LMMSE, MISMATCHED = "Sionna, LMMSE, true covariance", "Sionna, LMMSE, covariance of any delay"
# The samples of the map, with an exact filter at every tone: what it shares with the map is the smoothing.
SMOOTH = "smoothed samples, exact at every tone"
PROFILED = "LMMSE, delay profile fitted to the samples"
# Decays in seconds of which the likeliest is taken, from 8 ns to 2.6 us.
DECAYS = tuple(8e-9 * 1.3**k for k in range(23))
# Largest batch of pairs of antennas for Sionna's LMMSE, which makes a filter of its own for each.
_PAIRS = 16


@dataclass(frozen=True)
class Estimate:
    """Least-squares estimates A (N / 2, m, n) at the even ones of N tones f, errors of variance v; H is the truth."""

    channel: nm.wireless.Channel
    f: NDArray
    H: NDArray
    A: NDArray
    v: float

    @property
    def pilots(self) -> NDArray:
        """The frequencies of the pilots: every other tone."""
        return self.f[::2]


def estimate(
    size: str, spread: float, snr: float, tones: int = 624, seed: int = 0, spacing: float = SPACING
) -> Estimate:
    """Draw a CDL-C channel and its estimate at pilots.

    Args:
        size: Of `SIZES`.
        spread: Delay spread in seconds.
        snr: At one antenna, in dB: the mean energy of an entry over the variance of its error, and of the noise of the
            receiver.
        tones: Even.
        seed: Of channel and noise.
        spacing: Of the tones, in Hz.
    """
    antennas, users = SIZES[size]
    panel = {"base_antennas": antennas, "user_antennas": 1, "users": users, "seed": seed, "dtype": torch.complex128}
    channel = nm.wireless.cdl("C", delay_spread=spread, subcarriers=tones, subcarrier_spacing=spacing, **panel)
    energy = float(channel(channel.frequencies).abs().square().mean())
    return at_pilots(channel, energy / 10 ** (snr / 10), seed)


def at_pilots(channel: nm.wireless.Channel, v: float, seed: int) -> Estimate:
    """Estimate a channel at every second of its tones, with errors of variance v; the users' pilots are orthogonal."""
    H = channel(channel.frequencies).numpy()
    E = np.random.default_rng([seed, 1]).normal(size=(*H[::2].shape, 2)) @ [1, 1j]
    return Estimate(channel, channel.frequencies.numpy()[:, 0], H, H[::2] + (v / 2) ** 0.5 * E, v)


def covariance(estimate: Estimate, prefix: float | None = None, user: int | None = None) -> NDArray:
    """Return the covariance of an entry along frequency, N x N, one on the diagonal.

    Args:
        estimate: Of what.
        prefix: Any delay up to this is as likely; default: the delays and powers of the channel.
        user: Of this user alone; default: of all.
    """
    lag = estimate.f[:, None] - estimate.f
    if prefix is not None:
        return np.sinc(lag * prefix) * np.exp(-1j * np.pi * lag * prefix)
    own = slice(None) if user is None else slice(user, user + 1)
    a, delays = estimate.channel.coefficients[own].numpy(), estimate.channel.delays[own].numpy()
    powers = np.square(np.abs(a)).sum(axis=(2, 3)).ravel()
    waves = np.exp(-2j * np.pi * estimate.f[:, None] * delays.ravel())
    return (waves * powers / powers.sum()) @ waves.conj().T


def by_sionna(estimate: Estimate, way: str) -> NDArray:
    """Return the channel (N, m, n) at all tones by Sionna's estimators: each pair of antennas a link with comb pilots.

    Entries are scaled to unit energy, as its covariances are.
    """
    count, (m, n) = len(estimate.f), estimate.H.shape[1:]
    mask = torch.zeros(1, 1, 1, count, dtype=torch.bool)
    mask[..., ::2] = True
    pattern = PilotPattern(mask, torch.ones(1, 1, count // 2, dtype=torch.complex128), precision="double")
    grid = ResourceGrid(1, count, SPACING, pilot_pattern=pattern, precision="double")
    if way in (LMMSE, MISMATCHED):
        R = torch.from_numpy(covariance(estimate, None if way == LMMSE else PREFIX))
        one = torch.ones(1, 1, dtype=torch.complex128)
        estimator = LMMSEChannelEstimator(grid, one, R, order="f-t", precision="double")
    else:
        kind = {NEAREST: "nn", LINEAR: "lin"}[way]
        estimator = LSChannelEstimator(grid, interpolation_type=kind, precision="double")
    scale = float(np.mean(np.abs(estimate.A) ** 2) - estimate.v) ** 0.5
    y = torch.zeros(m * n, 1, 1, 1, count, dtype=torch.complex128)
    y[:, 0, 0, 0, ::2] = torch.from_numpy(estimate.A.reshape(-1, m * n).T / scale)
    no = torch.tensor(estimate.v / scale**2, dtype=torch.float64)
    found = torch.cat([estimator(part, no)[0].reshape(-1, count) for part in y.split(_PAIRS)])
    return scale * found.numpy().T.reshape(count, m, n)


def by_covariance(estimate: Estimate, way: str) -> NDArray:
    """Return the channel (N, m, n) at all tones by the filter of `LMMSE` or `MISMATCHED`, made once for all pairs.

    Sionna's estimator makes it for each pair of antennas. What comes out is the same to rounding (`agreement`).
    """
    R, size = covariance(estimate, None if way == LMMSE else PREFIX), np.mean(np.abs(estimate.A) ** 2) - estimate.v
    return smoothed_by(R, estimate.v / size, estimate.A)


def smoothed_by(R: NDArray, share: float, A: NDArray) -> NDArray:
    """Return the LMMSE estimates (N, m, n) from A (N / 2, m, n) at every second tone.

    Args:
        R: Covariance of an entry along the tones, N x N, one on the diagonal.
        share: Variance of the noise over that of an entry.
        A: The estimates at the pilots.
    """
    pilots = R[::2, ::2] + share * np.eye(len(A))
    return (R[:, ::2] @ np.linalg.solve(pilots, A.reshape(len(A), -1))).reshape(len(R), *A.shape[1:])


def exponential(lag: NDArray, decay: float) -> NDArray:
    """Return the covariance along frequency where power falls with the delay as exp(-delay / decay), from zero on.

    Args:
        lag: Differences of frequencies in Hz.
        decay: In seconds.
    """
    return 1 / (1 + 2j * np.pi * lag * decay)


@functools.lru_cache(maxsize=2)
def _spectra(count: int, step: float) -> list[tuple[float, NDArray, NDArray]]:
    """Return each of `DECAYS` with the eigenvalues and eigenvectors of its covariance at equally spaced pilots."""
    number = step * np.arange(count)
    found = ((decay, *np.linalg.eigh(exponential(number[:, None] - number, decay))) for decay in DECAYS)
    return [(decay, np.maximum(values, 0), vectors) for decay, values, vectors in found]


def fitted_decay(estimate: Estimate) -> tuple[float, float]:
    """Return the decay in seconds, of `DECAYS`, under which the samples are likeliest, and the power of an entry.

    Entries are taken as independent circular Gaussians with the covariance power * `exponential` + v. The power is what
    the samples have above v. No more is known than that, and that the first path comes at zero.
    """
    Y, v = estimate.A.reshape(len(estimate.A), -1), estimate.v
    power = max(float(np.mean(np.abs(Y) ** 2)) - v, 1e-3 * v)

    def surprise(values: NDArray, vectors: NDArray) -> float:
        """Return the negative logarithm of the likelihood for each entry, but for a constant."""
        expected = power * values + v
        found = np.mean(np.abs(vectors.conj().T @ Y) ** 2, axis=1)
        return float(np.sum(np.log(expected) + found / expected))

    spectra = _spectra(len(Y), float(estimate.pilots[1] - estimate.pilots[0]))
    return min(spectra, key=lambda own: surprise(*own[1:]))[0], power


def by_profile(estimate: Estimate, way: str = PROFILED) -> NDArray:
    """Return the LMMSE estimate (N, m, n) with the delay profile of `fitted_decay`, for `ESTIMATORS`."""
    decay, power = fitted_decay(estimate)
    return smoothed_by(exponential(estimate.f[:, None] - estimate.f, decay), estimate.v / power, estimate.A)


def agreement(estimate: Estimate, way: str, antennas: int = 1) -> float:
    """Return how far Sionna's own LMMSE is from `by_covariance`, relative, for all users at a few antennas."""
    part = replace(estimate, H=estimate.H[:, :antennas], A=estimate.A[:, :antennas])
    ours, theirs = by_covariance(part, way), by_sionna(part, way)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def linear(estimate: Estimate) -> NDArray:
    """Interpolate the estimates linearly, and hold them beyond the last pilot."""
    columns = estimate.A.reshape(len(estimate.A), -1).T
    found = np.stack([np.interp(estimate.f, estimate.pilots, column) for column in columns], axis=1)
    return found.reshape(estimate.H.shape)


# What estimates the channel at all tones in each of Sionna's ways, and in that of a fitted profile.
ESTIMATORS = {
    NEAREST: by_sionna,
    LINEAR: by_sionna,
    LMMSE: by_covariance,
    MISMATCHED: by_covariance,
    PROFILED: by_profile,
}


def filters(H: NDArray, noise: float) -> NDArray:
    """Return the LMMSE filters (N, n, m) of channels (N, m, n)."""
    Hh = np.swapaxes(H.conj(), 1, 2)
    return np.linalg.solve(Hh @ H + noise * np.eye(H.shape[2]), Hh)


def mapped(
    estimate: Estimate, tol: float = TOL, *, blind: bool = False
) -> tuple[NDArray, nm.Surrogate, nm.ParametricMatrix]:
    """Return the filters of a map of the smoothed samples, the map, and the family behind it.

    ``blind``: the variance of the noise is not given to it, but estimated from the samples.
    """
    noise = "estimate" if blind else estimate.v
    family = nm.families.from_samples(estimate.pilots, estimate.A, noise=noise, names=["f"], units=["Hz"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)  # that the tolerance is below the floor, which is meant
        surrogate = nm.fit(nm.Problem(family, nm.LMMSE(noise=family.measured.noise)), tol=tol, progress=False)
    return surrogate(inside(estimate)), surrogate, family


def inside(estimate: Estimate) -> NDArray:
    """Return the tones, the last one, which lies beyond the last pilot, held there as everywhere here."""
    return np.minimum(estimate.f, estimate.pilots[-1])


def smooth(estimate: Estimate, family: nm.ParametricMatrix) -> NDArray:
    """Return exact filters at every tone of the smoothed samples, those that the map is fitted to."""
    return filters(family(inside(estimate)), estimate.v)


def ways(estimate: Estimate, sionna: bool = True) -> dict[str, NDArray]:
    """Return the filters (N, n, m) of every way that does not smooth as the map does, at all tones.

    `AWARE` knows that the estimate has an error: it adds its power, of all users, to the noise.
    """
    v, flat, users = estimate.v, linear(estimate), estimate.H.shape[2]
    # The error of a linear interpolation between two pilots has half of their variance: three quarters on average.
    found = {PER_TONE: filters(flat, v), AWARE: filters(flat, v + 0.75 * users * v)}
    for way, find in ESTIMATORS.items() if sionna else ():
        found[way] = filters(find(estimate, way), v)
    return found


def row(estimate: Estimate, sionna: bool = True) -> dict[str, object]:
    """Compare all ways at one estimate: ``error`` and ``rate`` by way, and what the map took.

    ``error`` is that of the filters against those of the true channel, root mean square over the tones, relative;
    ``rate`` the part of their sum rate; ``terms`` those of the smoothed samples, and ``solves`` the exact ones of the
    map, of which there would be one a tone.
    """
    H, W = torch.from_numpy(estimate.H), filters(estimate.H, estimate.v)
    values, surrogate, family = mapped(estimate)
    found = ways(estimate, sionna) | {MAP: values, SMOOTH: smooth(estimate, family)}
    found[BLIND] = mapped(estimate, blind=True)[0]

    def rate(X: NDArray) -> float:
        return float(nm.wireless.sum_rate(H, torch.from_numpy(X), estimate.v).mean())

    report = surrogate.report
    return {
        "error": {way: float(np.linalg.norm(X - W) / np.linalg.norm(W)) for way, X in found.items()},
        "rate": {way: rate(X) / rate(W) for way, X in found.items()},
        "terms": family.measured.terms,
        "solves": report.exact_solves,
        "pieces": report.pieces,
        "stopped": report.stop_reason.name,
        "samples": str(family.measured),
    }


def rows(
    sizes: Sequence[str] = tuple(SIZES),
    spreads: Iterable[float] = (30e-9, 100e-9, 300e-9),
    snrs: Iterable[float] = (0, 10, 20, 30),
    tones: int = 624,
    seeds: Iterable[int] = (0,),
    *,
    sionna: bool = True,
) -> list[dict[str, object]]:
    """Compare all ways over sizes, delay spreads in seconds, noise in dB, and seeds; see `row`.

    LMMSE makes matrices of tones x tones: ``sionna=False`` leaves it out, for a whole carrier.
    """
    grid = [(size, spread, snr, seed) for size in sizes for spread in spreads for snr in snrs for seed in seeds]
    names = ("size", "spread", "snr", "seed")
    return [dict(zip(names, own)) | {"tones": tones} | row(estimate(*own[:3], tones, own[3]), sionna) for own in grid]


def gains(found: Sequence[dict[str, object]], against: str = PER_TONE) -> list[dict[str, object]]:
    """Return by how much the map is nearer to the true filters than another way, and what rate it adds.

    ``error``: the other's over the map's, above one where the map is better. ``rate``: the difference of the parts.
    """
    kept = ("size", "spread", "snr", "seed", "tones")
    return [
        {key: own[key] for key in kept}
        | {"error": own["error"][against] / own["error"][MAP], "rate": own["rate"][MAP] - own["rate"][against]}
        for own in found
    ]


def irregular(snr: float = 20.0, seed: int = 0, tones: int = 256, part: float = 1.0) -> list[dict[str, object]]:
    """Return what is recognised in measured-like samples: nulls, blocks of other phases, steps of the gain.

    Tones are those of Wi-Fi. Some at the edges of blocks and at DC are not there; blocks have phases of their own; and
    along packets, one a millisecond at one tone, users walk, and the gain of the receiver steps, with the noise before
    it.

    Args:
        snr: In dB.
        seed: Of channels and noise.
        tones: And packets.
        part: Of the phases and steps (1, 2.5 and 0.9 radians; 6, -3 and 3 dB) that are planted.

    Returns:
        Rows: the ``kind``, the places of jumps that were ``made`` and ``found`` (numbers of samples), the ``gaps`` that
        were ``left`` and named, and the error of the samples before and after smoothing, relative to what was measured.
    """
    drawn = estimate("16 x 4", 30e-9, snr, 2 * tones, seed, WIFI / 2)
    f, H, E = drawn.pilots, drawn.H[::2], drawn.A - drawn.H[::2]
    t, G = packets(tones, seed)
    number, cuts = np.arange(tones), [tones // 4, tones // 2, 3 * tones // 4]
    block = np.searchsorted(cuts, number, side="right")
    there = ~((number % (tones // 4) < 3) | (abs(number - tones // 2) < 3))
    turns = np.exp(1j * part * np.array([0.0, 1.0, 2.5, 0.9]))[block, None, None]
    gains = 10 ** (part * np.array([0.0, 6.0, -3.0, 3.0]) / 20)[block, None, None]
    D = E * np.linalg.norm(G) / np.linalg.norm(H)
    return [
        _recognised("nulls and guards", f[there], H[there], E[there], f, [], 3),
        _recognised("blocks of 20 MHz", f, H * turns, E, f, cuts),
        _recognised("steps of the gain", t, G * gains, D * gains, t, cuts),
    ]


def packets(count: int, seed: int) -> tuple[NDArray, NDArray]:
    """Return times of packets, one a millisecond, and the channel there at one tone, of users who walk (3 km/h)."""
    antennas, users = SIZES["16 x 4"]
    panel = {"base_antennas": antennas, "user_antennas": 1, "users": users, "seed": seed, "dtype": torch.complex128}
    motion = {"speed": 3 / 3.6, "symbols": count, "subcarriers": 2, "subcarrier_spacing": 1e3 * 15 / 14}
    channel = nm.wireless.cdl("C", delay_spread=30e-9, **panel, **motion)
    t = channel.times[:, 0]
    return t.numpy(), channel(torch.stack([t, torch.zeros_like(t)], dim=1)).numpy()


def _recognised(
    kind: str, p: NDArray, truth: NDArray, E: NDArray, places: NDArray, made: Sequence[int], left: int = 0
) -> dict[str, object]:
    """Return a row of `irregular` for samples truth + E at p, of all places."""
    family = nm.families.from_samples(p, truth + E, noise="estimate")
    size = np.linalg.norm(truth)
    return {
        "kind": kind,
        "made": [int(cut) for cut in made],
        "found": [int(np.flatnonzero(places == after)[0]) for _, after in family.measured.jumps],
        "left": left,
        "gaps": len(family.measured.gaps),
        "before": float(np.linalg.norm(E) / size),
        "after": float(np.linalg.norm(family(p) - truth) / size),
        "samples": str(family.measured),
    }
