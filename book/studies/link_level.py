"""Chapter *Link level*: block errors of coded OFDM uplinks, with exact equalisers and with those of `neumatc.sionna`.

    python -m studies.link_level --minutes N      simulate for N minutes, from where the last run ended
    python -m studies.link_level --publish        what there is -> the published record
    python -m studies.link_level --intervals      exact intervals of the published record, from its own counts

A slot of 5G with four users, LDPC codes and Sionna's estimator. All receivers of a point get the same bits, channels
and noise, so that their difference is paired. Each batch is seeded by its number and kept when it is done: a run that
is killed loses one batch, and goes on with the same bits, channels and noise. Only the pieces of the block, which it
takes over from call to call, begin anew; they differ within its tolerance.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
from sionna.phy.mapping import Demapper, Mapper
from sionna.phy.mimo import StreamManagement
from sionna.phy.ofdm import LMMSEEqualizer, LSChannelEstimator, ResourceGrid, ResourceGridMapper
from torch import Tensor

import neumatc as nm
import neumatc.sionna
from studies import provenance
from studies.benchmark import upper_limit
from studies.provenance import Record

CHAPTER = "link_level"
COMMAND = f"python -m studies.{CHAPTER}"
# Base station antennas (rows, columns, polarisations), users of one antenna each.
PANEL, USERS = (2, 4, 2), 4
TONES, SYMBOLS, SPACING, PILOTS, PRB = 624, 14, 30e3, (2, 11), 12
# Bits of a code block and of its message; iterations of the decoder: most blocks are right after the first few.
CODED, MESSAGE, ITERATIONS = 1152, 576, (6, 20)
# Tolerance of the block, its default.
TOL = 0.05
# Slots of a batch: `USERS` blocks each.
SLOTS = 16
# Errors of the exact receiver at which a point is done.
ERRORS = 100
# The level at which curves are compared, and resamplings for its interval.
LEVEL, RESAMPLED = 0.1, 2000
# With fewer blocks than this that one of two receivers alone lost, an interval is exact: of up to three of a kind,
# resampling leaves all out in more than 2.5 % of its draws, and with them all of the interval's width.
FEW = 5

SPREADS = {"CDL-C 30 ns": 30e-9, "CDL-C 100 ns": 100e-9, "CDL-C 300 ns": 300e-9}
CHANNELS = (*SPREADS, "UMi drop")
MODULATIONS = {2: "QPSK", 4: "16-QAM", 6: "64-QAM"}
KNOWN, ESTIMATED = "perfect", "estimated"
EXACT, BLOCK, SMOOTHED = "exact", "block", "block, smoothed estimates"
# From one exact filter for each resource block: with the gain and noise of its tone, or with those of each tone, or
# between them and one at the last tone.
HELD, RESCALED, LINEAR = PER_BLOCK = "held per PRB", "held, own gain and noise", "linear"
# A control: the exact receiver of the same estimates, which is told how large their errors really are.
TOLD = "exact, error known"
# Signal-to-noise ratios in dB at which curves begin, and their steps.
START = {KNOWN: {2: 4.0, 4: 8.0, 6: 14.0}, ESTIMATED: {2: 6.0, 4: 12.0, 6: 16.0}}
STEP = 2.0


@dataclass(frozen=True)
class Setting:
    """A link: one of `CHANNELS`, bits of a symbol, and what the receiver knows of the channel."""

    channel: str
    bits: int
    csi: str = KNOWN

    def __post_init__(self) -> None:
        for name, value, known in (
            ("channel", self.channel, CHANNELS),
            ("bits", self.bits, tuple(MODULATIONS)),
            ("csi", self.csi, (KNOWN, ESTIMATED)),
        ):
            if value not in known:
                raise ValueError(f"`{name}`: expected one of {', '.join(map(str, known))}, got {value!r}.")

    @property
    def receivers(self) -> tuple[str, ...]:
        """Receivers that are compared."""
        return (EXACT, BLOCK, *PER_BLOCK) + ((TOLD, SMOOTHED) if self.csi == ESTIMATED else ())

    def __str__(self) -> str:
        return f"{self.channel}, {MODULATIONS[self.bits]}, {self.csi}"


# In this order: after the first eight every channel and every modulation has been there, with both kinds of knowledge.
SETTINGS = tuple(
    Setting(channel, (2, 4, 6)[(i + turn) % 3], csi)
    for turn in range(3)
    for csi in (KNOWN, ESTIMATED)
    for i, channel in enumerate(CHANNELS)
)


@dataclass(frozen=True)
class Size:
    """What a batch is made of; tests take smaller ones."""

    tones: int = TONES
    slots: int = SLOTS
    coded: int = CODED
    message: int = MESSAGE


class _Exact(LMMSEEqualizer):
    """Sionna's equaliser, computed on the smaller side, for channels that stay the same for a slot.

    A test compares it with Sionna's own, which factorises a matrix of the size of the antennas at each tone and symbol.
    """

    def call(self, y: Tensor, h_hat: Tensor, err_var: Tensor, no: Tensor) -> tuple[Tensor, Tensor]:
        """Equalise, as Sionna's block does."""
        H, power = _still(h_hat, err_var, no)
        (X, v), failed = nm.Equaliser("lmmse").exact((H / power[..., None, None].sqrt()).flatten(0, 1))
        if failed.any():
            raise RuntimeError(f"{int(failed.sum())} of {len(failed)} exact equalisers failed.")
        return _equalised(y, X.unflatten(0, H.shape[:2]), v.unflatten(0, H.shape[:2]), power, self._resource_grid)


def _still(h_hat: Tensor, err_var: Tensor, no: Tensor) -> tuple[Tensor, Tensor]:
    """Return the channels (B, N, M, K) of a slot, and the power (B, N) of noise and of errors of estimation."""
    H = h_hat[:, 0, :, :, 0, 0].permute(0, 3, 1, 2)
    errors = err_var.broadcast_to(h_hat.shape)[:, 0, 0, :, 0, 0].sum(dim=1)
    return H, no + errors


def _equalised(y: Tensor, X: Tensor, v: Tensor, power: Tensor, grid: ResourceGrid) -> tuple[Tensor, Tensor]:
    """Apply filters (B, N, K, M) for noise of power one to y (B, 1, M, T, N); take the data, as Sionna does."""
    scaled = y[:, 0].permute(0, 3, 1, 2) / power[..., None, None].sqrt()
    x, noise = (X @ scaled).permute(0, 2, 3, 1), v.permute(0, 2, 1)[:, :, None].expand(-1, -1, y.shape[3], -1)
    data = grid.pilot_pattern.mask[0, 0].flatten() == 0
    return tuple(part.flatten(2)[..., data][:, :, None] for part in (x, noise))


class Link:
    """The parts of Sionna's link, made once for a setting.

    Args:
        setting: The link.
        size: Of a batch.
        tol: Tolerance of the block.
    """

    def __init__(self, setting: Setting, size: Size = Size(), tol: float = TOL):
        self.setting, self.size = setting, size
        options = {"num_tx": USERS, "pilot_pattern": "kronecker", "pilot_ofdm_symbol_indices": list(PILOTS)}
        self.grid = ResourceGrid(SYMBOLS, size.tones, SPACING, **options)
        streams = StreamManagement(np.ones((1, USERS), int), 1)
        self.mapped, self.estimator = (
            ResourceGridMapper(self.grid),
            LSChannelEstimator(self.grid, interpolation_type="lin_time_avg"),
        )
        self.encoder = LDPC5GEncoder(size.message, size.coded, num_bits_per_symbol=setting.bits)
        self.decoder = LDPC5GDecoder(self.encoder, cn_update="offset-minsum")
        constellation = {"constellation_type": "qam", "num_bits_per_symbol": setting.bits}
        self.mapper, self.demapper = Mapper(**constellation), Demapper("app", **constellation)
        self.exact, self.block, self.smoothed = (
            _Exact(self.grid, streams),
            # Filters as small as these the block would rather solve for at all tones.
            *(neumatc.sionna.LMMSEEqualizer(self.grid, streams, tol=tol, method="map") for _ in range(2)),
        )

    def lost(self, llr: Tensor, bits: Tensor) -> Tensor:
        """Decode (N, coded) and return which of the messages (N, message) are wrong.

        A block is right once its bits are, as with a checksum: decoding stops there.
        """
        found = self.decoder(llr, num_iter=ITERATIONS[0])
        wrong = (found != bits).any(dim=1)
        if wrong.any():
            found = self.decoder(llr[wrong], num_iter=ITERATIONS[1])
            wrong[wrong.clone()] = (found != bits[wrong]).any(dim=1)
        return wrong


@functools.lru_cache(maxsize=2)
def channels(name: str, batch: int, size: Size) -> Tensor:
    """Draw the channels of a batch of slots, shape (slots, tones, antennas, users); each user has unit energy.

    One draw has the users of all slots. With a clustered delay line those of a slot stand a quarter of the sector
    apart, and all of them have the delays of the table.
    """
    common = {
        "subcarriers": size.tones,
        "subcarrier_spacing": SPACING,
        "base_antennas": PANEL,
        "user_antennas": 1,
        "users": USERS * size.slots,
        "power_control": True,
        "seed": 10_000 * CHANNELS.index(name) + batch,
    }
    if name in SPREADS:
        drawn = nm.wireless.cdl("C", delay_spread=SPREADS[name], **common)
    else:
        drawn = nm.wireless.drop("UMi", **common)
    return drawn(drawn.frequencies).unflatten(2, (USERS, size.slots)).permute(3, 0, 1, 2).contiguous()


def smoothed(y: Tensor, no: float, grid: ResourceGrid) -> tuple[Tensor, Tensor]:
    """Estimate the channels from the pilots of y (B, 1, M, T, N) by `families.from_samples`, which smooths them.

    Returns:
        As Sionna's estimator does: estimates (B, 1, M, K, 1, T, N), and the variance of their errors.
    """
    pilots = grid.pilot_pattern.pilots[:, 0].unflatten(1, (len(PILOTS), -1))
    tones = torch.arange(y.shape[-1], dtype=torch.float64)
    found, errors = [], []
    for k in range(USERS):
        at = pilots[k, 0] != 0
        own = (y[:, 0, :, PILOTS, :][..., at] / pilots[k][:, at]).mean(dim=2)
        v = no / float(pilots[k, 0, at][0].abs() ** 2) / len(PILOTS)
        p = tones[at]
        inside = tones.clamp(p[0], p[-1])
        for slot in own.permute(0, 2, 1):
            family = nm.families.from_samples(p, slot[:, :, None], noise=v)
            found.append(family(inside)[:, :, 0])
            errors.append(family.measured.left**2)
    H = torch.stack(found).unflatten(0, (USERS, len(y))).permute(1, 3, 0, 2)
    h = H[:, None, :, :, None, None].expand(-1, -1, -1, -1, -1, y.shape[3], -1)
    error = torch.tensor(errors, dtype=torch.float32).view(USERS, -1).mean(dim=1)
    return h.to(y), error.view(1, 1, 1, USERS, 1, 1, 1)


def per_block(
    receiver: str, y: Tensor, h: Tensor, err_var: Tensor, no: Tensor, grid: ResourceGrid
) -> tuple[Tensor, Tensor]:
    """Equalise from one exact filter for each resource block: one of `PER_BLOCK`.

    The filter is that of the seventh tone. Between filters, and gains and noise, those of linear interpolation lie on
    lines; its filters are those of the first tones of the blocks and of the last tone of all.
    """
    H, power = _still(h, err_var, no)
    A, tones = H / power[..., None, None].sqrt(), torch.arange(H.shape[1])
    at = tones[PRB // 2 :: PRB] if receiver != LINEAR else torch.cat([tones[::PRB], tones[-1:]])
    (X, v), _ = nm.Equaliser("lmmse").exact(A[:, at].flatten(0, 1))
    X, v = (part.unflatten(0, (len(A), len(at))) for part in (X, v))
    if receiver == LINEAR:
        return _equalised(y, _between(X, at, tones), _between(v, at, tones), power, grid)
    own = tones // PRB
    X, v = X[:, own], v[:, own]
    if receiver == HELD:
        return _equalised(y, X, v, power[:, at[own]], grid)
    X = X / (X @ A).diagonal(dim1=-2, dim2=-1)[..., None]
    v = nm.wireless.post_equalisation_noise(A.flatten(0, 1), X.flatten(0, 1), 1.0).unflatten(0, A.shape[:2])
    return _equalised(y, X, v, power, grid)


def _between(values: Tensor, at: Tensor, tones: Tensor) -> Tensor:
    """Return values (B, len(at), ...) at all tones, linear between those of `at`, which rise from the first tone on."""
    left = (torch.searchsorted(at, tones, right=True) - 1).clamp_max(len(at) - 2)
    share = ((tones - at[left]) / (at[left + 1] - at[left])).to(values.real.dtype)
    return torch.lerp(values[:, left], values[:, left + 1], share.view(-1, *[1] * (values.ndim - 2)).to(values.dtype))


def simulate(link: Link, snr_db: float, batch: int, receivers: Sequence[str] | None = None) -> dict[str, object]:
    """Send a batch of slots, and decode one block of each user by each receiver.

    A block is spread over the slot at random. All other resources carry random symbols.

    Args:
        link: The link.
        snr_db: Energy of a user's symbol at all antennas together, over the noise of one antenna.
        batch: Number of the batch, which seeds all that is random.
        receivers: Default: those of the setting.

    Returns:
        ``lost``: for each receiver, of each block whether it is lost (slot by slot), as a text of 0 and 1; ``solves``,
        of the block in a slot, and ``exact``: why the block left the work to the exact one, or empty; of ``smoothed``
        estimates the same.
    """
    setting, size, grid = link.setting, link.size, link.grid
    H = channels(setting.channel, batch, size)
    text = f"{setting.channel} {setting.bits} {batch}"  # the same for all noise levels and kinds of knowledge
    random = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]))
    bits = torch.randint(0, 2, (size.slots, USERS, 1, size.message), generator=random).float()
    data = grid.num_data_symbols
    sent = torch.randint(0, 2, (size.slots, USERS, 1, data * setting.bits), generator=random).float()
    x = link.mapper(sent)
    own = torch.stack([torch.randperm(data, generator=random) for _ in range(size.slots)])
    own = own[:, : size.coded // setting.bits][:, None, None].expand(-1, USERS, -1, -1)
    x = x.scatter(3, own, link.mapper(link.encoder(bits)))
    no = torch.tensor(10 ** (-snr_db / 10))
    clean = torch.einsum("bnmk,bktn->bmtn", H, link.mapped(x)[:, :, 0])
    noise = torch.randn((*clean.shape, 2), generator=random)
    y = (clean + torch.view_as_complex(noise) * (no / 2).sqrt())[:, None]
    true = H.permute(0, 2, 3, 1)[:, None, :, :, None, None].expand(-1, -1, -1, -1, -1, SYMBOLS, -1)
    h, err_var = (true, torch.zeros((1,) * 7)) if setting.csi == KNOWN else link.estimator(y, no)
    found: dict[str, object] = {"batch": batch, "lost": {}}
    for receiver in receivers or setting.receivers:
        error = err_var if receiver != TOLD else (h - true).abs().square().mean(dim=(0, 2), keepdim=True)
        x_hat, no_eff = _received(receiver, link, y, h, error, no, found)
        llr = link.demapper(x_hat.gather(3, own), no_eff.gather(3, own))
        wrong = link.lost(llr.flatten(0, 2), bits.flatten(0, 2))
        found["lost"][receiver] = "".join(str(int(w)) for w in wrong)
    return found


def _received(
    receiver: str, link: Link, y: Tensor, h: Tensor, err_var: Tensor, no: Tensor, found: dict[str, object]
) -> tuple[Tensor, Tensor]:
    """Equalise by a receiver, and note what its map took."""
    if receiver in (EXACT, TOLD):
        return link.exact(y, h, err_var, no)
    if receiver in PER_BLOCK:
        return per_block(receiver, y, h, err_var, no, link.grid)
    block = link.block
    if receiver == SMOOTHED:
        block, (h, err_var) = link.smoothed, smoothed(y, float(no), link.grid)
    out = block(y, h, err_var, no)
    found[receiver] = {"exact": block.report.exact, "solves": block.report.solves, "pieces": block.report.pieces}
    return out


# Points, kept on the disk


def folder() -> Path:
    """Where the points of this clone are."""
    return provenance.root() / "_build" / CHAPTER


@dataclass
class Point:
    """The batches of a setting at a level of noise, in a file that is replaced as a whole for each batch that is added.

    Args:
        setting, snr_db, size: What is simulated.
        place: Folder of the files.
    """

    setting: Setting
    snr_db: float
    size: Size
    place: Path

    def __post_init__(self) -> None:
        self.made = {"setting": asdict(self.setting), "snr_db": self.snr_db, "size": asdict(self.size)}
        found = json.loads(self.path.read_text("utf-8")) if self.path.is_file() else {"made": self.made, "batches": []}
        if found["made"] != self.made:
            raise ValueError(f"{self.path.name}: expected batches of {self.made}, got {found['made']}; move it away.")
        self.batches: list[dict] = found["batches"]

    @property
    def path(self) -> Path:
        """The file, which need not be there yet."""
        words = f"{self.setting} {self.snr_db:g}".replace(",", "").replace(" ", "_")
        return self.place / f"{words}.json"

    def add(self, batch: dict) -> None:
        """Add a batch, and keep it."""
        if batch["batch"] != len(self.batches):
            raise ValueError(f"`batch`: expected number {len(self.batches)}, got {batch['batch']}.")
        self.batches.append(batch)
        self.place.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps({"made": self.made, "batches": self.batches}), "utf-8")
        partial.replace(self.path)

    def lost(self, receiver: str) -> NDArray:
        """Return what a receiver lost, (slots, users)."""
        text = "".join(batch["lost"][receiver] for batch in self.batches)
        return (np.frombuffer(text.encode(), np.uint8) == ord("1")).reshape(-1, USERS)

    def rate(self, receiver: str) -> float:
        """Return the part of the blocks that a receiver lost."""
        return float(self.lost(receiver).mean())

    def done(self, errors: int = ERRORS) -> bool:
        """Return whether the exact receiver has lost so many blocks."""
        return bool(self.batches) and int(self.lost(EXACT).sum()) >= errors


def points(setting: Setting, size: Size, place: Path) -> dict[float, Point]:
    """Return the points of a setting that are on the disk, by level of noise, rising."""
    words = str(setting).replace(",", "").replace(" ", "_")
    levels = sorted(float(path.stem.rpartition("_")[2]) for path in place.glob(f"{words}_*.json"))
    return {level: Point(setting, level, size, place) for level in levels}


def next_level(found: dict[float, Point], setting: Setting, errors: int = ERRORS) -> float | None:
    """Return the level of noise at which a setting needs more blocks; None where its curves are complete.

    They go in steps from where all receivers but those of `PER_BLOCK` lose more than `LEVEL` to where all lose less.
    """
    unfinished = [level for level, point in found.items() if not point.done(errors)]
    if unfinished or not found:
        return unfinished[0] if unfinished else START[setting.csi][setting.bits]
    curves = [r for r in setting.receivers if r not in PER_BLOCK]
    low, high = min(found), max(found)
    if min(found[low].rate(r) for r in curves) <= LEVEL:
        return low - STEP
    return high + STEP if max(found[high].rate(r) for r in curves) >= LEVEL else None


def advance(
    settings: Iterable[Setting], seconds: float, place: Path, size: Size = Size(), errors: int = ERRORS
) -> list[Setting]:
    """Simulate setting by setting until time is over, and return those whose curves are not complete."""
    end, left = time.monotonic() + seconds, list(settings)
    while left and time.monotonic() < end:
        setting = left[0]
        link = Link(setting, size)
        while (level := next_level(points(setting, size, place), setting, errors)) is not None:
            point = Point(setting, level, size, place)
            while not point.done(errors) and time.monotonic() < end:
                point.add(simulate(link, level, len(point.batches)))
            if not point.done(errors):
                return left
            print(f"{setting}, {level:g} dB: {point.rate(EXACT):.3f}, {point.rate(BLOCK):.3f}", flush=True)
        left.pop(0)
    return left


# What the points say


def interval(lost: int, blocks: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided interval of Clopper and Pearson for a probability.

    Example:
        >>> low, high = interval(10, 100)
        >>> f"{low:.4f} {high:.4f}"
        '0.0490 0.1762'
    """
    level = (1 + confidence) / 2
    return 1 - upper_limit(blocks - lost, blocks, level), upper_limit(lost, blocks, level)


def crossing(levels: Sequence[float], rates: Sequence[float], level: float = LEVEL) -> float:
    """Return where error rates fall to a level, by linear interpolation of their logarithms; NaN where they do not.

    Example:
        >>> crossing([4.0, 6.0, 8.0], [0.8, 0.2, 0.05])
        7.0
    """
    for (a, high), (b, low) in pairwise(zip(levels, rates)):
        if high >= level > low:
            logs = [math.log(max(rate, 1e-6)) for rate in (high, low)]
            return a + (b - a) * (logs[0] - math.log(level)) / (logs[0] - logs[1])
    return math.nan


def losses(
    levels: Sequence[float], lost: Sequence[NDArray], other: Sequence[NDArray], count: int = RESAMPLED
) -> tuple[float, float, float]:
    """Return by how many dB more a receiver needs at `LEVEL` than the exact one, between the ends of a 95 % interval.

    The interval is a bootstrap over slots: both receivers get the same ones, and a slot's users stay together. It says
    nothing where hardly any block tells the two apart, and has no width where none does: see `exact_ends`.

    Args:
        levels: In dB, rising.
        lost: For each of them what the exact receiver lost, (slots, users).
        other: What the other one did.
        count: Resamplings.
    """

    def loss(picked: Sequence[NDArray]) -> float:
        ends = [crossing(levels, [x[at].mean() for x, at in zip(own, picked)]) for own in (other, lost)]
        return ends[0] - ends[1]

    value = loss([np.arange(len(x)) for x in lost])
    if math.isnan(value):
        return (math.nan,) * 3
    rng = np.random.default_rng(0)
    drawn = [loss([rng.integers(len(x), size=len(x)) for x in lost]) for _ in range(count)]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return float(low), value, float(high)


def exact_ends(found: Sequence[dict], receiver: str, confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the ends of the interval of a loss in dB where hardly any block was lost by one of two receivers alone.

    Of the N blocks that at least one of the two lost, at the two points beside `LEVEL` together, this receiver alone
    lost a part q, and the exact one alone a part s. The rates have the ratio (1 - s) / (1 - q). With the upper limits
    of Clopper and Pearson for q and for s, each with a confidence of 97.5 %, the ends are::

        log(1 - s) / slope,  -log(1 - q) / slope,

    with the slope of the logarithm of the exact receiver's rate over the noise in dB. For each end the part of the
    other direction is taken as zero. So each is missed with a probability of at most 2.5 %, and both together with at
    most 5 %.

    Assumed is that lost blocks are independent, though a slot's users share its noise; that q and s are the same at
    both points; and that the slope is the measured one. With 100 errors a point it is off by 7 to 20 %, the less the
    steeper; averaged over that, the ends would be 1 to 7 % wider.

    Args:
        found: Points, as `compared` returns them, by rising level.
        receiver: That is compared with the exact one.
        confidence: Of the interval.

    Returns:
        The ends; None with `FEW` such blocks or more, and where the exact receiver's rate does not fall to `LEVEL`.
    """
    for a, b in pairwise(found):
        first, last = (point["receivers"][EXACT]["lost"] / point["blocks"] for point in (a, b))
        if first >= LEVEL > last > 0:
            slope = math.log(first / last) / (b["snr_db"] - a["snr_db"])
            rows = [point["receivers"][receiver] for point in (a, b)]
            more, fewer = (sum(row[key] for row in rows) for key in ("more", "fewer"))
            if more + fewer >= FEW:
                return None
            lost = sum(point["receivers"][EXACT]["lost"] for point in (a, b)) + more
            low, high = (math.log1p(-interval(own, lost, confidence)[1]) / slope for own in (fewer, more))
            return low, -high
    return None


def settled(found: Sequence[dict], receiver: str, loss: Sequence[float]) -> list[float]:
    """Return a loss with `exact_ends` in the place of those of the bootstrap, where it has them."""
    ends = None if math.isnan(loss[1]) else exact_ends(found, receiver)
    return list(loss) if ends is None else [ends[0], loss[1], ends[1]]


def compared(point: Point) -> dict[str, object]:
    """Return the errors of all receivers at a point, beside those of the exact one.

    Returns:
        ``snr_db``, ``blocks``, and ``receivers`` by name: ``lost``, their ``interval``, ``more`` blocks that this one
        lost and the exact one did not, ``fewer`` the other way round, and whether its rate is ``inside`` of the exact
        one's interval; ``solves`` of the block for a slot (medians of the batches), and the part of the batches that it
        left to the exact one, ``left``.
    """
    exact = point.lost(EXACT)
    low, high = interval(int(exact.sum()), exact.size)
    found: dict[str, object] = {"snr_db": point.snr_db, "blocks": exact.size, "slots": len(exact), "receivers": {}}
    for receiver in point.setting.receivers:
        own = point.lost(receiver)
        row: dict[str, object] = {
            "lost": int(own.sum()),
            "interval": list(interval(int(own.sum()), own.size)),
            "more": int((own & ~exact).sum()),
            "fewer": int((exact & ~own).sum()),
            "inside": bool(low <= own.mean() <= high),
        }
        if receiver in (BLOCK, SMOOTHED):
            took = [batch[receiver] for batch in point.batches]
            row["left"] = float(np.mean([bool(x["exact"]) for x in took]))
            solves = [x["solves"] for x in took if not x["exact"]]
            row["solves"] = float(np.median(solves)) if solves else None
        found["receivers"][receiver] = row
    return found


def curve(setting: Setting, found: dict[float, Point], count: int = RESAMPLED) -> dict[str, object]:
    """Return the points of a setting that are done, and the loss of each receiver inside of its interval."""
    done = {level: point for level, point in found.items() if point.done()}
    exact = [point.lost(EXACT) for point in done.values()]
    rows, loss = [compared(point) for point in done.values()], {}
    for receiver in setting.receivers[1:]:
        other = [point.lost(receiver) for point in done.values()]
        loss[receiver] = settled(rows, receiver, losses(list(done), exact, other, count))
    own = {"channel": setting.channel, "modulation": MODULATIONS[setting.bits], "csi": setting.csi}
    return own | {"points": rows, "loss": loss}


def sinr_losses(channel: str, snr_db: float, batch: int = 0, size: Size = Size()) -> dict[str, object]:
    """Return by how much the block's filters reduce the ratio of signal to interference and noise, the channel known.

    ``mean`` and ``largest`` over slots, tones and users, in dB, ``above``: the part of them that is above what the
    tolerance says, and ``variance``: the largest relative error of
    ``no_eff``, which the demapper takes for the variance.
    """
    link = Link(Setting(channel, 2), size)
    H, no = channels(channel, batch, size), torch.tensor(10 ** (-snr_db / 10))
    h = H.permute(0, 2, 3, 1)[:, None, :, :, None, None].expand(-1, -1, -1, -1, -1, SYMBOLS, -1)
    streams = torch.arange(USERS).expand(size.slots, -1)
    channels_of = [own.flatten(1, 2) for own in h.flatten(0, 1)]
    maps, _ = link.block._fitted(channels_of, no.expand(size.slots, 1, 1, 1), streams, streams[:, :0], h)
    if maps is None:
        raise RuntimeError(f"{channel}: the block left the work to the exact one, {link.block.report.exact}.")
    p = torch.stack([torch.zeros(size.tones), torch.arange(size.tones)], dim=1).double()
    W, v = (torch.cat(parts) for parts in zip(*(own(p) for own in maps)))
    A = H.flatten(0, 1).to(torch.complex128)
    (_, best), _ = nm.Equaliser("lmmse", float(no)).exact(A)
    own = nm.wireless.post_equalisation_noise(A, W.to(A), float(no))
    loss = 10 * torch.log10(own / best)
    return {
        "channel": channel,
        "snr_db": snr_db,
        "mean": float(loss.mean()),
        "largest": float(loss.max()),
        "above": float((loss > 10 * math.log10(1 + TOL**2)).double().mean()),
        "variance": float((v / best - 1).abs().max()),
        "solves": link.block.report.solves,
    }


def publish(place: Path, size: Size = Size()) -> Path:
    """Make what there is the published record, and return its path."""
    record = Record(CHAPTER, profile="cpu", device="cpu", seed=0)
    record.provenance["command"] = f"{COMMAND} --minutes 240 --publish"
    found = {setting: points(setting, size, place) for setting in SETTINGS}
    curves = [curve(setting, own) for setting, own in found.items() if any(point.done() for point in own.values())]
    record.numbers |= {
        "curves": curves,
        "missing": [str(setting) for setting, own in found.items() if next_level(own, setting) is not None],
        "sinr": [sinr_losses(channel, START[KNOWN][4], size=Size(slots=4)) for channel in CHANNELS],
        "sizes": {"tones": TONES, "slots": SLOTS, "coded": CODED, "users": USERS, "tol": TOL, "errors": ERRORS},
    }
    return provenance.keep(record)


def renew_intervals() -> Path:
    """Put exact intervals into the published record where they belong, by its own counts, and return its path.

    For a record that is older than they are: no block is sent again.
    """
    record, now = provenance.load(CHAPTER), Record(CHAPTER, profile="cpu", device="cpu", seed=0).provenance
    for own in record.numbers["curves"]:
        own["loss"] = {receiver: settled(own["points"], receiver, loss) for receiver, loss in own["loss"].items()}
    later = {key: now[key] for key in ("date", "commit", "dirty")} | {"command": f"{COMMAND} --intervals"}
    record.provenance["anew"] = record.provenance.get("anew", {}) | {"exact intervals, from its counts": later}
    return provenance.keep(record)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Simulate block error rates of coded uplinks.")
    parser.add_argument("--minutes", type=float, default=0.0, help="simulate so long, from where the last run ended")
    parser.add_argument("--csi", choices=(KNOWN, ESTIMATED), help="only links whose receivers know the channel so")
    parser.add_argument("--publish", action="store_true", help="make what there is the published record")
    parser.add_argument(
        "--intervals", action="store_true", help="exact intervals of the published record, by its counts"
    )
    given = parser.parse_args(arguments)
    if given.minutes > 0:
        chosen = [setting for setting in SETTINGS if given.csi in (None, setting.csi)]
        left = advance(chosen, 60 * given.minutes, folder())
        print(f"{len(chosen) - len(left)} of {len(chosen)} curves are complete")
    if given.publish:
        print(publish(folder()).name)
    if given.intervals:
        print(renew_intervals().name)


if __name__ == "__main__":
    main()
