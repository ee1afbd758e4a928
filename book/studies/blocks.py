"""Times of the blocks of `neumatc.sionna`: as they choose, by maps, exactly; Sionna's own, and a bare factorisation.

`python -m studies.measurements blocks` takes them; the chapter *Link level* shows them. A row has slots of 5G that
follow each other, so that maps begin from the pieces of the slot before, as they do in a link.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from sionna.phy.mimo import StreamManagement
from sionna.phy.ofdm import LMMSEEqualizer, ResourceGrid, RZFPrecodedChannel
from torch import Tensor

import neumatc as nm
import neumatc.sionna
from neumatc import linalg, threads
from studies import link_level, slots, texts
from studies.benchmark import compare
from studies.provenance import Record, Table, glue
from studies.slots import NOISE, PART, SLOT, TIMED, WALKING, Row

SPACING = 30e3
# Slots that take turns.
TURNS = 2
CHANNELS = {"30 ns": 30e-9, "100 ns": 100e-9, "300 ns": 300e-9, "UMi drop": None}
# Antennas of the base station and streams of one antenna each.
SIZES = ((16, 4), (64, 8), (64, 32))
PANELS = {16: (2, 4, 2), 64: (4, 8, 2)}
PACES = {"still": 0.0, "walking": WALKING}
# What it is compared with, as the table names it.
OTHERS = {
    "Sionna": "times as fast as Sionna's block",
    "bare": "as a bare factorisation",
    "held": "as one a tone, held",
    "exact": "as without maps",
    "map": "as maps everywhere",
}
# What the table says where a map that was asked for is not to be had, and the block solved exactly after the trial.
NONE = "no map met the tolerance"
# Relative error of symbols in single precision.
ROUNDING = 1e-4
# Precoders: antennas of the base station, of the receivers together, and streams. RZF has a receiver for each.
PRECODERS = {"RZF": (64, 8, 8), "SVD": (64, 16, 4)}
PRECODED = {"30 ns": 30e-9, "300 ns": 300e-9}
Received = tuple[Tensor, Tensor]


def in_slots(drawn: nm.wireless.Channel, speed: float, turns: int) -> list[Tensor]:
    """Return the channels (T, F, m, n) of slots that follow each other, T = 1 where it stands still."""
    if not speed:
        return [drawn(drawn.frequencies)[None]] * turns
    return [slots.on_grid(drawn, t, drawn.frequencies[:, 0]) for t in drawn.times[:, 0].split(SLOT)]


def at_a_pace(speed: float, turns: int) -> dict[str, object]:
    """Return what is asked of a channel model for as many slots as take turns."""
    return {"speed": speed, "symbols": turns * SLOT} if speed else {}


def outcome(ways: dict[str, Callable[[], object]], chosen: torch.nn.Module, asked: torch.nn.Module, rounds: int) -> Row:
    """Time a block beside other ways to its results.

    Args:
        ways: What is timed: ``"block"`` and others, of which ``"Sionna"`` is of `TIMED` symbols.
        chosen: The block.
        asked: That which takes maps everywhere.
        rounds: Of the timing.

    Returns:
        Solves, conditions, and how many times as fast the block is as each of the others.
    """
    timings = compare(ways, rounds=rounds)
    found = {"solves": chosen.report.solves, "solves of maps": asked.report.solves, "conditions": timings.conditions}
    found |= {name: timings.ratio(name, "block") for name in ways if name not in ("block", "Sionna")}
    return found | {"Sionna": timings.ratio("Sionna", "block").times(SLOT / TIMED)}


@dataclass
class Uplink:
    """Slots of an uplink: channels (T, F, M, K) of each and the signals (T, F, M), and equalisers of Sionna's kind.

    Attributes:
        H, y: Lists of them; of a channel that stands still T = 1 for H.
    """

    H: list[Tensor]
    y: list[Tensor]

    @classmethod
    def draw(cls, antennas: int, streams: int, channel: str, speed: float, tones: int, turns: int = TURNS) -> Uplink:
        """Draw a channel of one of `CHANNELS`, whose users move at a speed in m/s, and random symbols and noise."""
        setting = {"base_antennas": PANELS[antennas], "user_antennas": 1, "users": streams, "subcarriers": tones}
        setting |= at_a_pace(speed, turns)
        if CHANNELS[channel] is None:
            drawn = nm.wireless.drop("UMi", power_control=True, **setting)
        else:
            drawn = nm.wireless.cdl("C", delay_spread=CHANNELS[channel], **setting)
        H, y, random = in_slots(drawn, speed, turns), [], torch.Generator().manual_seed(0)
        for own in H:
            sent, noise = (
                torch.randn(SLOT, tones, size, dtype=own.dtype, generator=random) for size in (streams, antennas)
            )
            y.append((own @ sent[..., None])[..., 0] + math.sqrt(NOISE) * noise)
        return cls(H, y)

    @property
    def still(self) -> bool:
        """Whether the channel is the same at all symbols."""
        return len(self.H[0]) == 1

    @cached_property
    def given(self) -> list[Received]:
        """What blocks of Sionna are given of each slot: y (1, 1, M, T, F) and H (1, 1, M, K, 1, T, F), side by side."""
        found = []
        for H, y in zip(self.H, self.y):
            h = H.permute(2, 3, 0, 1).contiguous()[None, None, :, :, None]
            # A receiver that estimates a channel for each symbol does not know that all are the same.
            h = h.expand(*[-1] * 5, SLOT, -1).contiguous() if self.still else h
            found.append((y.permute(2, 0, 1).contiguous()[None, None], h))
        return found

    def block(self, kind: Callable[..., torch.nn.Module], symbols: int = SLOT) -> tuple[Callable[[], object], object]:
        """Return a call of an equaliser for the first symbols of the next slot, and the equaliser."""
        _, tones, _, streams = self.H[0].shape
        grid = ResourceGrid(symbols, tones, SPACING, num_tx=streams)
        equaliser = kind(grid, StreamManagement(np.ones((1, streams), int), 1))
        turn, (none, noise) = itertools.cycle(self.given), torch.tensor([0.0, NOISE])

        def call() -> Received:
            y, h = next(turn)
            return equaliser(y[..., :symbols, :], h[..., :symbols, :], none, noise)

        return call, equaliser

    def bare(self, *, held: bool = False) -> Callable[[], Received]:
        """Return a call of a batched Cholesky factorisation for the next slot: symbols and variances, (T, F, K) each.

        Matrices lie as it likes them, it moves nothing, and solves a part at a time.

        Args:
            held: Whether the equalisers of the middle symbol serve all of the slot.
        """
        channels = [H[[len(H) // 2]] if held else H for H in self.H]
        turn, (times, tones, _, streams) = itertools.cycle(zip(channels, self.y)), channels[0].shape
        x, v = torch.empty(SLOT, tones, streams, dtype=self.H[0].dtype), torch.empty(times, tones, streams)

        def solve(H: Tensor, y: Tensor, x: Tensor, v: Tensor) -> None:
            gram = linalg.gram(H)
            P = torch.cholesky_inverse(torch.linalg.cholesky(gram + NOISE * linalg.identity_like(gram)))
            gain = (P * gram.mT).real.sum(dim=2)
            x.copy_((P @ (H.mH @ y.permute(1, 2, 0))).permute(2, 0, 1) / gain)
            torch.div(NOISE * P.diagonal(dim1=1, dim2=2).real, gain, out=v)

        def call() -> Received:
            H, y = next(turn)
            if len(H) == 1:
                parts = zip(H[0].split(PART), y.split(PART, 1), x.split(PART, 1), v[0].split(PART))
            else:
                flat = (own.flatten(0, 1).split(PART) for own in (H, y, x, v))
                parts = ((h, y[None], x[None], v) for h, y, x, v in zip(*flat))
            threads.each(lambda part: solve(*part), list(parts))
            return x, v

        return call


def row(antennas: int, streams: int, channel: str, pace: str, tones: int = 3276, rounds: int = 5) -> Row:
    """Time the equalisers of one uplink, and compare what they give with the bare factorisation's."""
    uplink = Uplink.draw(antennas, streams, channel, PACES[pace], tones)
    block, chosen = uplink.block(neumatc.sionna.LMMSEEqualizer)
    mapped, asked = uplink.block(partial(neumatc.sionna.LMMSEEqualizer, method="map"))
    exact, _ = uplink.block(partial(neumatc.sionna.LMMSEEqualizer, method="exact"))
    theirs, _ = uplink.block(LMMSEEqualizer, TIMED)
    errors = []
    for ours in (block, mapped, exact):
        (x, _), (right, _) = ours(), uplink.bare()()
        right = right.permute(2, 0, 1).flatten(1)
        errors.append(float(torch.linalg.vector_norm(x[0, :, 0] - right) / torch.linalg.vector_norm(right)))
    middle, (right, _) = uplink.bare(held=True)()[0], uplink.bare()()
    held = float(torch.linalg.vector_norm(middle - right) / torch.linalg.vector_norm(right))
    ways = {"block": block, "map": mapped, "exact": exact, "bare": uplink.bare(), "Sionna": theirs}
    found = {"antennas": antennas, "streams": streams, "channel": channel, "pace": pace, "count": SLOT * tones}
    found |= {"errors": errors, "error held": held}
    return found | outcome(ways | {"held": uplink.bare(held=True)}, chosen, asked, rounds)


@dataclass
class Downlink:
    """Slots of a downlink: channels (T, F, K, M) of each.

    Attributes:
        H: A list of them; of a channel that stands still T = 1.
        kind: One of `PRECODERS`.
    """

    H: list[Tensor]
    kind: str

    @classmethod
    def draw(cls, kind: str, channel: str, speed: float, tones: int, turns: int = TURNS) -> Downlink:
        """Draw CDL-C of one of `PRECODED`, whose users move at a speed in m/s."""
        antennas, rows, streams = PRECODERS[kind]
        users = {"users": rows, "user_antennas": 1} if rows == streams else {"users": 1, "user_antennas": (2, 4, 2)}
        setting = {"base_antennas": PANELS[antennas], "subcarriers": tones, **users, **at_a_pace(speed, turns)}
        drawn = nm.wireless.cdl("C", delay_spread=PRECODED[channel], **setting)
        # What the base station receives from one antenna it sends to it.
        uplink = in_slots(drawn, speed, turns)
        return cls([H.mT.contiguous() if H.shape[2] == antennas else H for H in uplink], kind)

    @cached_property
    def given(self) -> list[Tensor]:
        """What Sionna's blocks are given of each slot: (1, receivers, antennas, 1, M, T, F)."""
        _, rows, streams = PRECODERS[self.kind]
        apart = (rows, 1) if rows == streams else (1, rows)
        h = [H.permute(2, 3, 0, 1).contiguous().unflatten(0, apart)[None, :, :, None] for H in self.H]
        return [own.expand(*[-1] * 5, SLOT, -1).contiguous() for own in h]

    def block(self, kind: Callable[..., torch.nn.Module], symbols: int = SLOT) -> tuple[Callable[[], Tensor], object]:
        """Return a call of a block for the first symbols of the next slot, and the block."""
        (_, tones, rows, _), (_, _, streams) = self.H[0].shape, PRECODERS[self.kind]
        grid = ResourceGrid(symbols, tones, SPACING, num_tx=1, num_streams_per_tx=streams)
        receivers = rows if rows == streams else 1
        own = kind(grid, StreamManagement(np.ones((receivers, 1), int), streams))
        turn, power = itertools.cycle(self.given), torch.ones(1, 1, streams)
        more = {"alpha": NOISE} if self.kind == "RZF" else {}
        return lambda: own(next(turn)[..., :symbols, :], power, **more), own

    def lapack(self, symbols: int) -> Callable[[], Tensor]:
        """Return a call of torch's SVD for the first symbols of the next slot, as who has no block writes it."""
        turn, count = itertools.cycle(self.given), PRECODERS[self.kind][2]

        def call() -> Tensor:
            H = next(turn)[0, 0, :, 0, :, :symbols].permute(2, 3, 0, 1)
            return H @ torch.linalg.svd(H, full_matrices=False)[2][..., :count, :].mH

        return call

    def bare(self) -> Callable[[], Tensor]:
        """Return a call of the factorisation of the Gram matrices of the next slot: effective channels (N, rows, K).

        Of RZF a Cholesky factorisation, else eigenvectors. No precoder is formed, nothing is moved, and of a channel
        that stands still one symbol is solved.
        """
        turn, (_, tones, rows, _) = itertools.cycle(self.H), self.H[0].shape
        streams = PRECODERS[self.kind][2]
        out = torch.empty(len(self.H[0]) * tones, rows, streams, dtype=self.H[0].dtype)

        def solve(H: Tensor, out: Tensor) -> None:
            gram = linalg.gram(H.mH)
            if self.kind == "SVD":
                values, U = torch.linalg.eigh(gram)
                out.copy_(U[:, :, -streams:].flip(2) * values[:, None, -streams:].flip(2).clamp_min(0).sqrt())
                return
            P = torch.cholesky_inverse(torch.linalg.cholesky(gram + NOISE * linalg.identity_like(gram)))
            torch.matmul(gram, P, out=out)
            out /= (P.mT * out).sum(dim=1, keepdim=True).real.sqrt()  # the lengths of the columns of H^H P

        def call() -> Tensor:
            H = next(turn).flatten(0, 1)
            threads.each(lambda part: solve(*part), list(zip(H.split(PART), out.split(PART))))
            return out

        return call


def precoder_row(kind: str, channel: str, pace: str, tones: int = 3276, rounds: int = 5) -> Row:
    """Time the precoded channels of one downlink, and compare what they give with the bare factorisation's."""
    downlink = Downlink.draw(kind, channel, PACES[pace], tones)
    own = {"RZF": neumatc.sionna.RZFPrecodedChannel, "SVD": neumatc.sionna.SVDPrecodedChannel}[kind]
    (block, chosen), (mapped, asked), (exact, _) = (
        downlink.block(partial(own, method=method)) for method in ("auto", "map", "exact")
    )
    theirs = downlink.block(RZFPrecodedChannel, TIMED)[0] if kind == "RZF" else downlink.lapack(TIMED)
    errors = []
    for ours in (block, mapped, exact):
        found, right = ours()[0, :, :, 0].flatten(0, 1), downlink.bare()()
        found = found.permute(2, 3, 0, 1)[: len(downlink.H[0])].flatten(0, 1)
        if kind == "SVD":  # of vectors with any phase the gains
            found, right = (torch.linalg.vector_norm(torch.view_as_real(x), dim=(1, 3)) for x in (found, right))
        errors.append(float(linalg.norm((found - right)[None]) / linalg.norm(right[None])))
    ways = {"block": block, "map": mapped, "exact": exact, "bare": downlink.bare(), "Sionna": theirs}
    found = {"kind": kind, "channel": channel, "pace": pace, "count": SLOT * tones, "errors": errors}
    return found | outcome(ways, chosen, asked, rounds)


def run_precoders(kinds: Sequence[str] = tuple(PRECODERS), **size: int) -> list[Row]:
    """Time every precoder, channel and pace."""
    return [precoder_row(kind, channel, pace, **size) for kind in kinds for pace in PACES for channel in PRECODED]


def run(sizes: Sequence[tuple[int, int]] = SIZES, channels: Sequence[str] = tuple(CHANNELS), **size: int) -> list[Row]:
    """Time every size of an array, channel and pace."""
    return [row(*own, channel, pace, **size) for pace in PACES for own in sizes for channel in channels]


def rows(record: Record, pace: str | None = None) -> list[Row]:
    """Return the rows of a record, all or those of one pace."""
    return [own for own in record.numbers["blocks"] if pace in (None, own["pace"])]


def precoders(record: Record, kind: str | None = None) -> list[Row]:
    """Return the rows of precoders, all or those of one kind."""
    return [own for own in record.numbers["precoders"] if kind in (None, own["kind"])]


def name(own: Row) -> str:
    """Return the name of a row."""
    if "kind" in own:
        antennas, rows, streams = PRECODERS[own["kind"]]
        size = f"{own['kind']}, {antennas} x {rows}, {streams} streams"
    else:
        size = f"{own['antennas']} x {own['streams']}"
    return f"{size}, {own['channel']}, {own['pace']}"


def short(own: Row) -> str:
    """Return the name of a row for a list in a sentence.

    Example:
        >>> short({"antennas": 64, "streams": 8, "channel": "30 ns", "pace": "walking"})
        '64 x 8 at 30 ns'
    """
    return f"{own['antennas']} x {own['streams']} at {own['channel']}" + ", still" * (own["pace"] == "still")


def compared(found: Sequence[Row], others: dict[str, str]) -> Table:
    """What a block did in slots, and how many times as fast it was as others, by their names; maps are the last."""
    cells = []
    for own in found:
        did = f"map, {own['solves']:,} solves" if own["solves"] else "exact"
        ratios = [texts.spread(own[key]) for key in others]
        cells.append((name(own), did, *ratios[:-1], ratios[-1] if own["solves of maps"] else NONE))
    return Table(("slot", "what it did", *others.values()), cells)


def table(record: Record) -> Table:
    """What the equaliser did in a slot, and how many times as fast it was as each of the others."""
    return compared(rows(record), OTHERS)


def precoder_table(record: Record) -> Table:
    """What the precoders did in a slot, and how many times as fast they were as each of the others."""
    theirs = {"Sionna": "times as fast as Sionna's block (RZF) or torch's SVD"}
    return compared(precoders(record), theirs | {key: OTHERS[key] for key in ("bare", "exact", "map")})


def tally(found: Sequence[Row], key: str) -> str:
    """Return in how many rows the block is faster, about as fast and slower than another, as a list.

    Example:
        >>> tally([{"bare": (0.5, 0.6, 0.7)}, {"bare": (0.9, 1.0, 1.1)}, {"bare": (0.3, 0.4, 0.5)}], "bare")
        'about as fast in 1 and slower in 2 of 3'
    """
    return f"{texts.counted(own[key] for own in found)} of {len(found)}"


def beside_bare(found: Sequence[Row]) -> str:
    """Return how the block is beside bare factorisations, with the lowest ratio."""
    return f"{tally(found, 'bare')}; {texts.told('the lowest ratio is {}', texts.least(x['bare'] for x in found))}"


def glue_all(record: Record) -> None:
    """Numbers and sentences of the text on times."""
    every = rows(record)
    mapped, there = [[own for own in every if own[key]] for key in ("solves", "solves of maps")]
    glue("bl-count", every[0]["count"])
    glue("bl-rows", len(every))
    glue("bl-mapped", len(mapped))
    glue("bl-none", len(every) - len(there))
    for pace in PACES:
        own = rows(record, pace)
        glue(f"bl-sionna-{pace}", texts.times_as_fast([x["Sionna"][1] for x in own]))
        glue(f"bl-{pace}", beside_bare(own))
    glue("bl-gain", f"{tally(mapped, 'exact')}: {texts.verdict({short(x): x['exact'] for x in mapped})}")
    glue("bl-maps", tally(there, "map"))
    glue("bl-held", tally(rows(record, "walking"), "held"))
    glue("bl-held-error", max(own["error held"] for own in rows(record, "walking")))
    for kind in PRECODERS:
        own = precoders(record, kind)
        glue(f"bl-{kind}-theirs", texts.times_as_fast([x["Sionna"][1] for x in own]))
        glue(f"bl-{kind}-bare", beside_bare(own))


def check(record: Record) -> None:
    """Assert what the text says of any record."""
    for own in (*rows(record), *precoders(record)):
        assert texts.side(own["Sionna"], "", "slower", "slower") != "slower", name(own)
        # The results of all ways are those of the bare factorisation, of maps to their tolerance.
        for error, solves in zip(own["errors"], (own["solves"], own["solves of maps"], 0), strict=True):
            assert error < (link_level.TOL if solves else ROUNDING), name(own)
