"""Times of `neumatc.sionna.LMMSEEqualizer`: as it chooses, by maps, exactly; Sionna's own, and a bare factorisation.

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
from sionna.phy.ofdm import LMMSEEqualizer, ResourceGrid
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
    "exact": "as without maps",
    "map": "as maps everywhere",
}
# What the table says where a map that was asked for is not to be had, and the block solved exactly after the trial.
NONE = "no map met the tolerance"
# Relative error of symbols in single precision.
ROUNDING = 1e-4
Received = tuple[Tensor, Tensor]


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
        if speed:
            setting |= {"speed": speed, "symbols": turns * SLOT}
        if CHANNELS[channel] is None:
            drawn = nm.wireless.drop("UMi", power_control=True, **setting)
        else:
            drawn = nm.wireless.cdl("C", delay_spread=CHANNELS[channel], **setting)
        f, random = drawn.frequencies[:, 0], torch.Generator().manual_seed(0)
        if speed:
            H = [slots.on_grid(drawn, t, f) for t in drawn.times[:, 0].split(SLOT)]
        else:
            H = [drawn(drawn.frequencies)[None]] * turns
        y = []
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

    def bare(self) -> Callable[[], Received]:
        """Return a call of a batched Cholesky factorisation for the next slot: symbols and variances, (T, F, K) each.

        Matrices lie as it likes them, it moves nothing, and solves a part at a time.
        """
        turn, (_, tones, _, streams) = itertools.cycle(zip(self.H, self.y)), self.H[0].shape
        x, v = torch.empty(SLOT, tones, streams, dtype=self.H[0].dtype), torch.empty(len(self.H[0]), tones, streams)

        def solve(H: Tensor, y: Tensor, x: Tensor, v: Tensor) -> None:
            gram = linalg.gram(H)
            P = torch.cholesky_inverse(torch.linalg.cholesky(gram + NOISE * linalg.identity_like(gram)))
            gain = (P * gram.mT).real.sum(dim=2)
            x.copy_((P @ (H.mH @ y.permute(1, 2, 0))).permute(2, 0, 1) / gain)
            torch.div(NOISE * P.diagonal(dim1=1, dim2=2).real, gain, out=v)

        def call() -> Received:
            H, y = next(turn)
            if self.still:
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
    ways = {"block": block, "map": mapped, "exact": exact, "bare": uplink.bare(), "Sionna": theirs}
    timings = compare(ways, rounds=rounds)
    found = {"antennas": antennas, "streams": streams, "channel": channel, "pace": pace, "count": SLOT * tones}
    found |= {"solves": chosen.report.solves, "solves of maps": asked.report.solves}
    found |= {"errors": errors, "conditions": timings.conditions}
    # How many times as fast the block is as each of these.
    found |= {name: timings.ratio(name, "block") for name in ("bare", "map", "exact")}
    return found | {"Sionna": timings.ratio("Sionna", "block").times(SLOT / TIMED)}


def run(sizes: Sequence[tuple[int, int]] = SIZES, channels: Sequence[str] = tuple(CHANNELS), **size: int) -> list[Row]:
    """Time every size of an array, channel and pace."""
    return [row(*own, channel, pace, **size) for pace in PACES for own in sizes for channel in channels]


def rows(record: Record, pace: str | None = None) -> list[Row]:
    """Return the rows of a record, all or those of one pace."""
    return [own for own in record.numbers["blocks"] if pace in (None, own["pace"])]


def name(own: Row) -> str:
    """Return the name of a row."""
    return f"{own['antennas']} x {own['streams']}, {own['channel']}, {own['pace']}"


def short(own: Row) -> str:
    """Return the name of a row for a list in a sentence.

    Example:
        >>> short({"antennas": 64, "streams": 8, "channel": "30 ns", "pace": "walking"})
        '64 x 8 at 30 ns'
    """
    return f"{own['antennas']} x {own['streams']} at {own['channel']}" + ", still" * (own["pace"] == "still")


def table(record: Record) -> Table:
    """What the block did in a slot, and how many times as fast it was as each of the others."""
    found = []
    for own in rows(record):
        did = f"map, {own['solves']:,} solves" if own["solves"] else "exact"
        ratios = [texts.spread(own[key]) for key in OTHERS]
        found.append((name(own), did, *ratios[:-1], ratios[-1] if own["solves of maps"] else NONE))
    return Table(("slot", "what it did", *OTHERS.values()), found)


def tally(found: Sequence[Row], key: str) -> str:
    """Return in how many rows the block is faster, about as fast and slower than another, as a list.

    Example:
        >>> tally([{"bare": (0.5, 0.6, 0.7)}, {"bare": (0.9, 1.0, 1.1)}, {"bare": (0.3, 0.4, 0.5)}], "bare")
        'about as fast in 1 and slower in 2 of 3'
    """
    return f"{texts.counted(own[key] for own in found)} of {len(found)}"


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
        least = texts.told("the lowest ratio is {}", texts.least(x["bare"] for x in own))
        glue(f"bl-{pace}", f"{tally(own, 'bare')}; {least}")
    glue("bl-gain", f"{tally(mapped, 'exact')}: {texts.verdict({short(x): x['exact'] for x in mapped})}")
    glue("bl-maps", tally(there, "map"))


def check(record: Record) -> None:
    """Assert what the text says of any record."""
    assert all(texts.side(own["Sionna"], "", "slower", "slower") != "slower" for own in rows(record))
    for own in rows(record):
        # Of all of them the symbols are those of the bare factorisation, of maps to their tolerance.
        for error, solves in zip(own["errors"], (own["solves"], own["solves of maps"], 0), strict=True):
            assert error < (link_level.TOL if solves else ROUNDING), name(own)
