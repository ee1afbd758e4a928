"""Frequency and time: a slot, a frame, near and far users, lines of sight, and the noise level as an axis.

`python -m studies.slots [slot|tolerance|frame|near_far|line_of_sight|noise ...]` prints rows, and `python -m
studies.measurements frequency_and_time` publishes them. Every row is one run. Exact methods and maps start from
channels that are there, write into memory that is there, and have the same threads and precision.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import neumatc as nm
from neumatc import linalg, threads
from neumatc.box import Nearest
from neumatc.wireless import post_equalisation_noise, sum_rate
from studies import practice, problems, solvers, speed
from studies.benchmark import Ratio, compare

Row = dict[str, object]
NOISE = 0.1
# A resource block has so many tones; the exact result of its middle one is held for all.
BLOCK = 12
# Symbols on which exact methods are timed, and every how many a rate is judged: their cost is the same on each.
TIMED, JUDGED = 2, 5
# Matrices that an exact method solves at once: so many stay in the cache, and take as little time as any number.
PART = 512
SLOT, FRAME = 14, 280
# Symbols from one exact result to the next between which results may be linear in time, and the error they may have.
STEPS, _ERROR = (12, 10, 8, 7, 6, 5, 4, 3, 2), 1e-3
# Matrices on which the NumPy loop is timed, and at which the error over a frame is measured.
LOOPED = 2_000
WALKING, DRIVING = 3 / 3.6, 30 / 3.6  # m/s
SPREADS = (30e-9, 100e-9, 300e-9, 1000e-9)
# For drops: of a tone over the transmitted power, see `wireless.drop`; for the users' case what it came with.
DROP_NOISE, CASE_NOISE = 6e-12, 3.2e-13
# Singular values that are apart by so much of the larger do not mix from one tone to the next.
APART = 0.05


@dataclass(frozen=True)
class Task:
    """What is computed at every tone of every symbol.

    Attributes:
        name: Its name in tables.
        antennas: Arguments of `wireless.cdl`.
        operation: What the map computes.
    """

    name: str
    antennas: dict[str, object]
    operation: nm.LMMSE | nm.SVD

    @property
    def receives(self) -> bool:
        """Whether these are filters of a receiver, and not triplets of a precoder."""
        return isinstance(self.operation, nm.LMMSE)

    def channel(self, spread: float, omni: bool = False, **setting: object) -> nm.wireless.Channel:
        """Draw CDL-C; ``omni``: the users' antennas receive alike from everywhere."""
        pattern = {"user_pattern": "omni"} if omni else {}
        return nm.wireless.cdl("C", delay_spread=spread, **self.antennas, **pattern, **setting)

    def memory(self, *leading: int, shape: tuple[int, int]) -> list[Tensor]:
        """Return memory for the results of matrices of a shape."""
        kinds = {"complex": torch.complex64, "real": torch.float32}
        factors = self.operation.factors(*shape)
        found = [torch.empty(*leading, *x.shape, dtype=kinds[x.field or "complex"]) for x in factors]
        for x in found:
            x.zero_()  # touched once, so that nobody pays for the pages
        return found

    def exact(self, H: Tensor, out: Sequence[Tensor]) -> None:
        """Solve every matrix of H (B, m, n) by the strongest exact method that we found, into ``out``."""
        own = [x.flatten(0, -3) if x.ndim > 3 else x for x in out]
        parts = [x.split(PART) for x in (H, *own)]
        threads.each(lambda part: self._solve(*part), list(zip(*parts)))

    def _solve(self, H: Tensor, *out: Tensor) -> None:
        if self.receives:
            root = torch.linalg.cholesky(linalg.gram(H, NOISE))
            torch.matmul(torch.cholesky_inverse(root), H.mH, out=out[0])
            return
        for x, y in zip(out, solvers.svd_by_gram(H, self.operation.rank)):
            x.copy_(y)

    def loop(self, H: Tensor) -> object:
        """Solve one matrix after the other by NumPy."""
        if self.receives:
            return practice.lmmse_loop(H, NOISE)
        return solvers.svd_loop(H)

    def rate(self, H: Tensor, found: Sequence[Tensor]) -> float:
        """Return the mean rate over matrices H (B, m, n) with the filters, or precoders, found for them.

        A precoder sends along orthonormal columns of the span of the right vectors, so all streams have equal powers.
        """
        if self.receives:
            return float(sum_rate(H, found[0], NOISE).double().mean())
        return float(practice.precoded_rate(H, linalg.orthonormalized(found[2].mH), NOISE).mean())


TASKS = {
    task.name: task
    for task in (
        Task("LMMSE 64 x 8", {"users": 8, "user_antennas": 1}, nm.LMMSE(noise=NOISE)),
        Task("LMMSE 64 x 32", {"users": 8}, nm.LMMSE(noise=NOISE)),
        Task("SVD 16 x 64", {"user_antennas": (2, 4, 2), "direction": "downlink"}, nm.SVD(rank=4)),
    )
}


def spread_over(channel: nm.wireless.Channel, factor: float) -> nm.wireless.Channel:
    """Return the channel with delays that are so many times as long: that of another delay spread, from one draw."""
    (*_, low), (*_, high) = channel.lower.tolist(), channel.upper.tolist()
    setting = {"direction": channel.direction, "frequencies": channel.frequencies, "times": channel.times}
    return nm.wireless.Channel(channel.coefficients, factor * channel.delays, low, high, **setting)


def on_grid(channel: nm.wireless.Channel, t: Tensor, f: Tensor) -> Tensor:
    """Return H at every symbol and tone, shape (T, F, m, n)."""
    H = channel.coefficients.new_empty(len(t), len(f), *channel.shape)
    for own, moment in zip(H, t):
        own.copy_(channel(torch.cartesian_prod(moment[None], f)))
    return H


def spread_out(held: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Write what is held for a block of tones, (T, blocks, ...), to every tone of it, (T, F, ...)."""
    for x, y in zip(held, out):
        for start in range(BLOCK):
            place = y[:, start::BLOCK]
            place.copy_(x[:, : place.shape[1]])


def repeat(out: Sequence[Tensor], at: int) -> None:
    """Write what one symbol of ``out`` (T, F, ...) holds to all others."""
    for x in out:
        x[:at] = x[at]
        x[at + 1 :] = x[at]


def align(near: Sequence[Tensor], far: Sequence[Tensor]) -> None:
    """Turn the phases of triplets ``far`` to those of their neighbours, u and v of each together.

    Args:
        near: U (..., m, k), S (..., k) and Vh (..., k, n); of filters, which have no phase to choose, one factor.
        far: The same of the neighbour, changed in place.
    """
    if len(near) > 1:
        _turn(far, _phases(near, far))


def align_all(ends: Sequence[Tensor]) -> None:
    """Turn the phases of triplets (N, ...) to those of the one before, from the first to the last; see `align`."""
    if len(ends) > 1:
        near, far = ([x[part] for x in ends] for part in (slice(-1), slice(1, None)))
        _turn(far, _phases(near, far).cumprod(dim=0))


def _phases(near: Sequence[Tensor], far: Sequence[Tensor]) -> Tensor:
    """Return by which phases (..., k) triplets ``far`` are turned to come closest to ``near``."""
    (U, _, Vh), (own, _, rows) = near, far
    common = (own.conj() * U).sum(dim=-2) + (rows * Vh.conj()).sum(dim=-1)
    return torch.where(common == 0, 1, common.sgn())


def _turn(triplets: Sequence[Tensor], phases: Tensor) -> None:
    """Turn both vectors of triplets by phases, in place."""
    U, _, Vh = triplets
    U *= phases[..., None, :]
    Vh *= phases.conj()[..., None]


def real(x: Tensor) -> Tensor:
    """Return a view of x as real numbers."""
    return torch.view_as_real(x) if x.is_complex() else x


@dataclass
class Slot:
    """A slot of one task: its channel on the grid, and memory for what is computed from it."""

    task: Task
    t: Tensor
    f: Tensor
    H: Tensor
    tol: float

    def __post_init__(self) -> None:
        self.out = self.task.memory(*self.H.shape[:2], shape=self.H.shape[2:])
        middles = torch.arange(0, len(self.f), BLOCK) + BLOCK // 2
        self.middle = self.H[:, middles.clamp_max(len(self.f) - 1)].flatten(0, 1).contiguous()
        self.held = self.task.memory(len(self.H), len(middles), shape=self.H.shape[2:])
        self.places = torch.cat([torch.arange(0, len(self.f) - 1, BLOCK), torch.tensor([len(self.f) - 1])])
        self.first = self.H[len(self.H) // 2, self.places].contiguous()
        self.ends = self.task.memory(len(self.places), shape=self.H.shape[2:])

    def fit(self, start: nm.Surrogate | None = None) -> nm.Surrogate:
        """Fit one map from the channel on the grid, perhaps from the pieces of the slot before."""
        family = nm.families.from_grid([self.t, self.f], self.H, names=("time", "frequency"), units=("s", "Hz"))
        return nm.fit(nm.Problem(family, self.task.operation), tol=self.tol, start=start, progress=False)

    def mapped(self, start: nm.Surrogate | None = None) -> nm.Surrogate:
        """Fit one map, and evaluate it at all symbols and tones."""
        surrogate = self.fit(start)
        surrogate.grid(self.t, self.f, out=self.out[0] if self.task.receives else tuple(self.out))
        return surrogate

    def fill_held(self) -> None:
        """Solve for the middle tone of every block and symbol, and write each result to all tones of its block."""
        self.task.exact(self.middle, [x.flatten(0, 1) for x in self.held])
        spread_out(self.held, self.out)

    def fill_still(self) -> None:
        """Solve for every tone of the middle symbol, and write each result to all symbols."""
        at = len(self.H) // 2
        self.task.exact(self.H[at], [x[at] for x in self.out])
        repeat(self.out, at)

    def fill_both(self) -> None:
        """Solve for the middle tone of every block of the middle symbol, and write it to the block and all symbols."""
        at = len(self.H) // 2
        own = slice(at, at + 1)
        self.task.exact(self.middle.unflatten(0, (len(self.H), -1))[at], [x[at] for x in self.held])
        spread_out([x[own] for x in self.held], [x[own] for x in self.out])
        repeat(self.out, at)

    def fill_linear(self) -> None:
        """Solve for the first tone of every block of the middle symbol, and the last of all; linear between, and held.

        Triplets have their phases aligned first.
        """
        at, lengths = len(self.H) // 2, self.places.diff()
        self.task.exact(self.first, self.ends)
        align_all(self.ends)

        def fill(tone: int) -> None:
            for x, y in zip(self.ends, self.out):
                place = real(y[at, tone:-1:BLOCK])
                weight = (tone / lengths[: len(place)]).to(place.dtype).view(-1, *[1] * (place.ndim - 1))
                near, far = (real(end)[: len(place)] for end in (x[:-1], x[1:]))
                torch.lerp(near, far, weight, out=place)

        threads.each(fill, range(BLOCK))
        for x, y in zip(self.ends, self.out):
            y[at, -1] = x[-1]
        repeat(self.out, at)

    def solve(self, symbols: int) -> None:
        """Solve every tone of the first symbols exactly."""
        H, *out = (x[:symbols].flatten(0, 1) for x in (self.H, *self.out))
        self.task.exact(H, out)

    def solve_by_sionna(self, symbols: int) -> None:
        """Solve as Sionna's equalisers do, whose results are new memory."""
        H, X = (x[:symbols].flatten(0, 1) for x in (self.H, self.out[0]))
        X.copy_(practice.sionna_lmmse(H, NOISE))

    def lost(self, *fillings: Callable[[], object], every: int = JUDGED) -> list[float]:
        """Return the share of the rate that each way to fill the memory loses, over all tones of some symbols."""
        exact, judged = self.task.memory(self.H.shape[1], shape=self.H.shape[2:]), self.H[::every]
        best, found = 0.0, [0.0] * len(fillings)
        for H in judged:
            self.task.exact(H, exact)
            best += self.task.rate(H, exact)
        for i, fill in enumerate(fillings):
            fill()
            found[i] = sum(self.task.rate(H, [x[::every][j] for x in self.out]) for j, H in enumerate(judged))
        return [1 - x / best for x in found]


def slot(
    task: Task,
    channel: nm.wireless.Channel,
    name: str,
    *,
    tol: float = 0.1,
    rounds: int = 3,
    tones: int | None = None,
    timed: int = TIMED,
) -> Row:
    """Time a fit and its evaluation over a slot beside exact methods, and beside what is held.

    That is one solve for each block and symbol, one for each tone and the slot, or one for each block and the slot,
    written to the block or linear from block to block.
    The channel has two slots: the second is timed, by itself and from the pieces of the first, where time counts from
    the first symbol of each.
    """
    t, f, found = channel.times[:SLOT, 0], channel.frequencies[:tones, 0], []
    before, own = (Slot(task, t, f, on_grid(channel, own, f), tol) for own in channel.times[:, 0].split(SLOT))
    start = before.fit()
    del before
    held = {"held": own.fill_held, "still": own.fill_still, "both": own.fill_both, "linear": own.fill_linear}
    lost, *others = own.lost(lambda: found.append(own.mapped()), *held.values())
    exact = "Cholesky" if task.receives else "Gram"
    candidates = {"map": own.mapped, exact: lambda: own.solve(timed)} | held
    candidates["again"] = lambda: found.append(own.mapped(start))
    if task.receives:
        candidates["Sionna"] = lambda: own.solve_by_sionna(timed)
    timings = compare(candidates, rounds=rounds)
    row = counts(name, found[0], len(t) * len(f)) | {"conditions": timings.conditions}
    row |= {"lost": lost} | {f"lost, {key}": share for key, share in zip(held, others)}
    row |= {"held solves": len(own.middle), "still solves": len(f), "both solves": len(own.middle) // len(t)}
    row["linear solves"] = len(own.places)
    row["solves again"] = found[-1].report.exact_solves
    row["holds time"] = all(len(piece.nodes[0]) == 1 for piece in found[0].pieces)
    for key in candidates.keys() - {"map", "again"}:
        row[key] = timings.ratio(key, "map").times(1 if key in held else len(t) / timed)
    # How many times as fast one is as the other.
    row |= {"still beside held": timings.ratio("held", "still")}
    row |= {f"{key} beside still": timings.ratio("still", key) for key in ("both", "linear")}
    row["again"] = timings.ratio(exact, "again").times(len(t) / timed)
    return row


def counts(name: str, surrogate: nm.Surrogate, count: int) -> Row:
    """Return what a row says of a fit."""
    report = surrogate.report
    return {
        "name": name,
        "threads": torch.get_num_threads(),
        "tol": report.tol,
        "count": count,
        "solves": report.exact_solves,
        "pieces": len(surrogate.pieces),
        "terms": surrogate.rank,
        "met": report.met,
    }


def slots(tasks: Sequence[str] = tuple(TASKS), spreads: Sequence[float] = SPREADS, **setting: object) -> list[Row]:
    """A slot at walking pace, for every task, delay spread and pattern of the users' antennas."""
    rows, tones = [], setting.get("tones") or 3276
    for task, omni in itertools.product((TASKS[name] for name in tasks), (False, True)):
        drawn = task.channel(1e-9, omni, speed=WALKING, symbols=2 * SLOT, subcarriers=tones)
        for spread in spreads:
            name = f"{task.name}, {spread * 1e9:g} ns, {'omni' if omni else 'directional'}"
            row = slot(task, spread_over(drawn, spread / 1e-9), name, **setting)
            rows.append(row | {"task": task.name, "spread": spread, "omni": omni})
    return rows


# What is asked for in the study of tolerances.
TOLERANCES = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3)


def tolerances(
    task: str = "LMMSE 64 x 8", spreads: Sequence[float] = SPREADS[:3], tols: Sequence[float] = TOLERANCES, **size: int
) -> list[Row]:
    """Solves and the rate lost over the tolerance of the residual, for a slot; nothing is timed."""
    rows = []
    drawn = TASKS[task].channel(1e-9, speed=WALKING, symbols=SLOT, **size)
    for spread in spreads:
        channel = spread_over(drawn, spread / 1e-9)
        t, f = channel.times[:, 0], channel.frequencies[:, 0]
        own = Slot(TASKS[task], t, f, on_grid(channel, t, f), tols[0])
        found: list[nm.Surrogate] = []

        def fill(tol: float, own: Slot = own, found: list[nm.Surrogate] = found) -> None:
            own.tol = tol
            found.append(own.mapped())

        lost = own.lost(own.fill_held, *(partial(fill, tol) for tol in tols))
        for surrogate, share in zip(found, lost[1:]):
            row = counts(f"{task}, {spread * 1e9:g} ns", surrogate, len(t) * len(f))
            rows.append(row | {"spread": spread, "lost": share, "lost, held": lost[0], "held solves": len(own.middle)})
    return rows


@contextlib.contextmanager
def peak():
    """Measure by how much the process grows meanwhile: a list that gets one number, in GB, NaN where nobody tells."""
    found: list[float] = []
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the highest size begins anew
    before = _status("VmRSS")
    yield found
    found.append(_status("VmHWM") - before)


def _status(key: str) -> float:
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith(f"{key}:")), math.nan)
    return math.nan


@dataclass
class Frame:
    """A frame of one task: one fit for every few symbols, and evaluation slot by slot.

    Attributes:
        task, channel, tol: What is fitted, and how well.
        span: Symbols for one fit. None begins with the nodes of another: for triplets that took more solves.
    """

    task: Task
    channel: nm.wireless.Channel
    tol: float
    span: int

    def __post_init__(self) -> None:
        self.t, self.f = self.channel.times[:, 0], self.channel.frequencies[:, 0]
        self.span = min(self.span, len(self.t))
        self.starts = [min(i, len(self.t) - self.span) for i in range(0, len(self.t), self.span)]
        self.out = self.task.memory(min(SLOT, self.span), len(self.f), shape=self.channel.shape)

    @property
    def beside(self) -> float:
        """GB of the memory of a slot that one symbol does not need."""
        return (len(self.out[0]) - 1) * sum(x[0].nbytes for x in self.out) / 2**30

    def problem(self, start: int) -> nm.Problem:
        """Return the problem of the symbols from one on, known there and at the tones alone.

        Time counts as in the first ones, so that all have one box.
        """
        t = self.t[: self.span]
        nearest = Nearest(t)

        def fn(p: Tensor) -> Tensor:
            return self.channel(torch.stack([self.t[start + nearest(p[:, 0])], p[:, 1]], dim=1))

        axes, labels = [t, self.f], {"names": ("time", "frequency"), "units": ("s", "Hz")}
        lower, upper = (torch.stack([axis[k] for axis in axes]) for k in (0, -1))
        return nm.Problem(nm.ParametricMatrix(fn, lower, upper, grid=axes, **labels), self.task.operation)

    def fits(self, fits: int | None = None) -> list[nm.Surrogate]:
        """Fit one span after the other; the first ones only, if a number is given."""
        return [nm.fit(self.problem(i), tol=self.tol, progress=False) for i in self.starts[:fits]]

    def mapped(self, fits: int | None = None) -> list[nm.Surrogate]:
        """Fit, and evaluate slot by slot into the memory of one."""
        surrogates = self.fits(fits)
        for surrogate in surrogates:
            for moments in self.t[: self.span].split(len(self.out[0])):
                out = tuple(x[: len(moments)] for x in self.out)
                surrogate.grid(moments, self.f, out=out[0] if self.task.receives else out)
        return surrogates

    def sample(self, tones: int = 64) -> tuple[Tensor, list[Tensor]]:
        """Return H (T, F, m, n) at all symbols and some tones, evenly, and the exact results, (T, F, ...) each."""
        H = on_grid(self.channel, self.t, self.f[:: max(1, len(self.f) // tones)])
        exact = self.task.memory(*H.shape[:2], shape=self.shape)
        self.task.exact(H.flatten(0, 1), [x.flatten(0, 1) for x in exact])
        return H, exact

    def between(self, sample: tuple[Tensor, list[Tensor]], step: int) -> Row:
        """Judge results that are linear in time between exact ones, in triplets with their phases aligned.

        Args:
            sample: What `sample` returns.
            step: Symbols from one exact result to the next.
        """
        count = (len(self.t) - 1) // step * step + 1
        H, *exact = (x[:count] for x in (sample[0], *sample[1]))
        found = [x.clone() for x in exact]
        for start in range(0, count - 1, step):
            near, far = ([x[at] for x in found] for at in (start, start + step))
            align(near, far)
            for k, x in itertools.product(range(1, step), range(len(found))):
                found[x][start + k] = torch.lerp(near[x], far[x], k / step)
        return {"linear step": step} | self.beside_exact("linear", H, found, exact)

    def held(self, sample: tuple[Tensor, list[Tensor]]) -> Row:
        """Judge the exact results of the middle symbol of every slot, held for the slot."""
        H, exact = sample
        symbols = torch.arange(len(H))
        middle = (symbols // SLOT * SLOT + SLOT // 2).clamp_max(len(H) - 1)
        return self.beside_exact("held", H, [x[middle] for x in exact], exact)

    def beside_exact(self, name: str, H: Tensor, found: Sequence[Tensor], exact: Sequence[Tensor]) -> Row:
        """Return the error, in the operation's measure, and the share of the rate lost, of results (T, F, ...)."""
        H, *both = (x.flatten(0, 1) for x in (H, *found, *exact))
        found, exact = both[: len(found)], both[len(found) :]
        error = self.task.operation.error(found, exact).double().square().mean().sqrt()
        own, best = (self.task.rate(H, x) for x in (found, exact))
        return {f"{name} error": float(error), f"{name} lost": 1 - own / best}

    def fill_between(self, H: Sequence[Tensor], step: int, ends: Sequence[Sequence[Tensor]]) -> None:
        """Solve for symbols H, all but the first of them, and write what is linear in time between each and the next.

        Args:
            H: One symbol for each ``step``, and one more.
            step: Symbols from one to the next.
            ends: Memory for the results of two of them.
        """
        for x in H[1:]:
            self.task.exact(x, ends[1])
            align(*ends)
            parts = [
                (k / step, [real(end) for end in own], real(out[k]))
                for *own, out in zip(*ends, self.out)
                for k in range(step)
            ]
            threads.each(lambda part: torch.lerp(*part[1], part[0], out=part[2]), parts)
            ends = ends[::-1]

    def fill_held(self, H: Tensor) -> None:
        """Solve for every tone of one symbol H (F, m, n), and write each result to all symbols of a slot."""
        self.task.exact(H, [x[0] for x in self.out])
        repeat(self.out, 0)

    def judged(self, surrogates: Sequence[nm.Surrogate], sample: int) -> Row:
        """Return errors and the share of the rate lost, beside exact results at random symbols and tones."""
        generator, errors, rates = torch.Generator().manual_seed(1), [], []
        own = -(-sample // len(surrogates))
        for start, surrogate in zip(self.starts, surrogates):
            at = [axis[torch.randint(len(axis), (own,), generator=generator)] for axis in (self.t[: self.span], self.f)]
            p, problem, exactly = torch.stack(at, dim=1), self.problem(start), self.task.memory(own, shape=self.shape)
            value, H = surrogate(p), problem.family(p)
            self.task.exact(H, exactly)
            errors.append(problem.error(p, value).double())
            found = [value] if self.task.receives else list(value)
            rates.append([self.task.rate(H, x) for x in (found, exactly)])
        error, (own, best) = torch.cat(errors), map(sum, zip(*rates))
        return {
            "error": float(error.square().mean().sqrt()),
            "largest error": float(error.max()),
            "sample": len(error),
            "lost": 1 - own / best,
        }

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the channel."""
        return self.channel.shape


def frame(
    own: Frame, name: str, *, rounds: int = 3, looped: int = LOOPED, timed: int = TIMED, fits: int | None = None
) -> Row:
    """Time fits for a frame and their evaluation, slot by slot, into the memory of one slot.

    Fits are timed for the first spans, exact methods on some symbols, the NumPy loop on some matrices, and a copy of
    the output on one slot; their times are scaled to the frame. Nobody is charged for forming H but the map, at its
    nodes and its checks. Results that are linear in time between exact ones have as many symbols from one to the next
    as leave the error below `_ERROR`. *Held* are the exact results of the middle symbol, for a slot.
    """
    t, f, task, exact = own.t, own.f, own.task, "Cholesky" if own.task.receives else "Gram"
    with peak() as grown:
        surrogates = own.mapped()
    H = on_grid(own.channel, t[:: max(1, len(t) // timed)][:timed], f)
    alone, several = H.flatten(0, 1)[:looped].contiguous(), task.memory(len(f), shape=own.shape)
    source = [x.clone() for x in own.out]
    candidates = {
        "map": lambda: own.mapped(fits),
        "fit": lambda: own.fits(fits),
        exact: lambda: [task.exact(x, several) for x in H],
        "NumPy loop": lambda: task.loop(alone),
        "copy": lambda: [x.copy_(y) for x, y in zip(own.out, source)],
    }
    sample = own.sample()
    tried = (own.between(sample, step) for step in STEPS)
    linear = next((found for found in tried if found["linear error"] <= _ERROR), {})
    if linear:
        step, ends = linear["linear step"], [[torch.zeros_like(x[0]) for x in own.out] for _ in range(2)]
        symbols = on_grid(own.channel, t[: timed * step + 1 : step], f)
        task.exact(symbols[0], ends[0])
        candidates["linear"] = lambda: own.fill_between(symbols, step, ends)
    candidates["held"] = lambda: own.fill_held(H[0])
    timings = compare(candidates, rounds=rounds, warm_up=0)
    part = len(own.starts[:fits]) / len(own.starts)
    row = counts(name, surrogates[0], len(t) * len(f)) | own.judged(surrogates, looped) | linear
    row |= own.held(sample)
    if linear:
        row["linear"] = timings.ratio("linear", "map").times(part * len(t) / (step * timed))
    return row | {
        "solves": sum(x.report.exact_solves for x in surrogates),
        "met": all(x.report.met for x in surrogates),
        "fits": len(surrogates),
        "memory": grown[0] + own.beside,
        "conditions": timings.conditions,
        "fit share": timings.ratio("fit", "map"),
        exact: timings.ratio(exact, "map").times(part * len(t) / len(H)),
        "NumPy loop": timings.ratio("NumPy loop", "map").times(part * len(t) * len(f) / len(alone)),
        "held": timings.ratio("held", "map").times(part * len(t) / len(own.out[0])),
        "over a copy": timings.ratio("map", "copy").times(len(own.out[0]) / (part * len(t))),
    }


# The tolerance of the residual, with which errors over the frame are at most 1e-3, and symbols for one fit.
FRAMES = {
    ("LMMSE 64 x 8", 30e-9): (5e-3, FRAME),
    ("LMMSE 64 x 8", 100e-9): (5e-3, FRAME),
    ("SVD 16 x 64", 30e-9): (2e-3, SLOT),
    ("SVD 16 x 64", 100e-9): (2e-3, SLOT),
}
# Fits of triplets that are timed.
TIMED_FITS = 4


def frames(tones: int = 3276, symbols: int = FRAME, **setting: object) -> list[Row]:
    """A frame on the road, for the filters of eight streams and for triplets."""
    rows = []
    for task in (TASKS[name] for name in dict.fromkeys(name for name, _ in FRAMES)):
        drawn = task.channel(1e-9, speed=DRIVING, symbols=symbols, subcarriers=tones)
        for spread, way in ((spread, own) for (name, spread), own in FRAMES.items() if name == task.name):
            own = Frame(task, spread_over(drawn, spread / 1e-9), *way)
            fits = None if task.receives else TIMED_FITS
            row = frame(own, f"{task.name}, {spread * 1e9:g} ns", fits=fits, **setting)
            rows.append(row | {"task": task.name, "spread": spread, "span": own.span})
    return rows


def near_far(seeds: Sequence[int] = range(1, 11), tones: int = 3276, tol: float = 1e-2) -> list[Row]:
    """Ten UMi drops of eight users, and the one of the users' problems: rates beside those of exact filters.

    *Weakest* is the user with the least rate of exact filters.
    """
    rows = []
    for seed in seeds:
        channel = nm.wireless.drop("UMi", users=8, subcarriers=tones, seed=seed)
        rows.append(shares(f"drop {seed}", channel, channel.frequencies, DROP_NOISE, tol))
    case = problems.near_far()
    return [*rows, shares("the users' case", case.problem.family, case.problem.family.frequencies, CASE_NOISE, tol)]


def shares(name: str, channel: nm.wireless.Channel, f: Tensor, noise: float, tol: float) -> Row:
    """Fit LMMSE filters, and compare rates with those of exact filters in double precision, at every tone."""
    surrogate = nm.fit(nm.Problem(channel, nm.LMMSE(noise=noise)), tol=tol, progress=False)
    H = channel(f).to(torch.complex128)
    X = torch.linalg.solve(linalg.gram(H, noise), H.mH)

    def rates(W: Tensor) -> Tensor:
        return torch.log2(1 + 1 / post_equalisation_noise(H, W, noise)).mean(dim=0)

    exact, found = rates(X), rates(surrogate(f).to(torch.complex128))
    energy = H.abs().square().sum(dim=1).mean(dim=0)
    weakest = int(exact.argmin())
    return counts(name, surrogate, len(f)) | {
        "gains": float(10 * torch.log10(energy.max() / energy.min())),
        "rate": float(exact.sum()),
        "weakest rate": float(exact[weakest]),
        "sum": float(found.sum() / exact.sum()),
        "weakest": float(found[weakest] / exact[weakest]),
        "worst": float((found / exact).min()),
    }


def line_of_sight(tones: int = 3276, tol: float = 1e-2, rank: int = 2) -> list[Row]:
    """Precoders of CDL-D and CDL-E: steps from tone to tone beside parallel transport, and the rate that they lose."""
    rows = []
    for model, spread in itertools.product("DE", (30e-9, 100e-9)):
        antennas = TASKS["SVD 16 x 64"].antennas
        channel = nm.wireless.cdl(model, delay_spread=spread, subcarriers=tones, **antennas)
        for operation in (nm.Subspace(rank=rank, side="right"), nm.SVD(rank=rank, order="followed")):
            f = channel.frequencies
            surrogate = nm.fit(nm.Problem(channel, operation), tol=tol, progress=False)
            what = "span" if isinstance(operation, nm.Subspace) else "vectors"
            row = counts(f"CDL-{model}, {spread * 1e9:g} ns, {what}", surrogate, len(f))
            rows.append(row | steps(channel(f), surrogate(f)))
    return rows


def steps(H: Tensor, value: Tensor | nm.SVDFactors) -> Row:
    """Return the largest step of a map from tone to tone over that of exact parallel transport, and the rate lost.

    A step of a span is that between its bases; parallel transport turns the next basis by the unitary matrix that
    brings it closest. A step of a triplet is that of u and v together, which share a phase; of the exact ones it is
    that which has the largest part in common. Only values that are apart from their neighbours count.
    """
    H = H.to(torch.complex128)
    U, S, Vh = torch.linalg.svd(H, full_matrices=False)
    if isinstance(value, Tensor):
        V, k = value.to(H.dtype), value.shape[2]
        exact = Vh[:, :k].mH
        cosines = torch.linalg.svdvals(exact[1:].mH @ exact[:-1])
        least = (2 * (1 - cosines.clamp_max(1)).sum(dim=1)).sqrt()[:, None]
        own = torch.linalg.vector_norm(V.diff(dim=0), dim=(1, 2))[:, None]
        apart = ((S[:, k - 1] - S[:, k]) / S[:, k - 1] > APART)[:, None]
    else:
        V, k = value.Vh.mH.to(H.dtype), value.Vh.shape[1]
        exact = torch.cat([U, Vh.mH], dim=1) / 2**0.5
        pair = torch.cat([value.U.to(H.dtype), V], dim=1) / 2**0.5
        branch = (exact.mH @ pair).abs().argmax(dim=1)  # (B, k)
        followed = exact.gather(2, branch[:, None].expand(-1, exact.shape[1], -1))
        least = (2 * (1 - (followed[1:].conj() * followed[:-1]).sum(dim=1).abs().clamp_max(1))).sqrt()
        own = torch.linalg.vector_norm(pair.diff(dim=0), dim=1)
        gaps = torch.nn.functional.pad(S[:, :-1] - S[:, 1:], (1, 1), value=math.inf)
        apart = (torch.minimum(gaps[:, :-1], gaps[:, 1:]) / S).gather(1, branch) > APART
    apart = apart[1:] & apart[:-1]
    best = practice.precoded_rate(H, Vh[:, :k].mH, NOISE).mean()
    lost = 1 - float(practice.precoded_rate(H, linalg.orthonormalized(V), NOISE).mean() / best)
    return {"step": float((own / least)[apart].max()), "apart": float(apart.double().mean()), "lost": lost}


def noise_axis(tones: int = 3276, levels: int = 41, tol: float = 1e-2, rounds: int = 5) -> Row:
    """One map of LMMSE filters over frequency and noise level, from 0 to 40 dB, on a logarithmic axis.

    The filter of H and noise s is, up to a scale that no rate sees, that of H / sqrt(s) and noise one.
    """
    channel = TASKS["LMMSE 64 x 8"].channel(30e-9, subcarriers=tones)

    def whitened(p: Tensor) -> Tensor:
        f, which = p[:, 0].unique(return_inverse=True)
        return channel(f)[which] / p[:, 1].sqrt().to(channel.dtype)[:, None, None]

    low, high = float(channel.lower), float(channel.upper)
    labels = {"names": ("frequency", "noise"), "units": ("Hz", ""), "dtype": torch.float64}
    family = nm.ParametricMatrix(whitened, [low, 1e-4], [high, 1.0], scale=["linear", "log"], **labels)
    problem = nm.Problem(family, nm.LMMSE(noise=1.0))
    surrogate = nm.fit(problem, tol=tol, progress=False)
    timings = compare({"fit": lambda: nm.fit(problem, tol=tol, progress=False)}, rounds=rounds)
    f, H = channel.frequencies, channel(channel.frequencies)
    lost = []
    for s in torch.logspace(-4, 0, levels, dtype=torch.float64):
        W = surrogate.grid(f, s)[:, 0]
        exact = torch.empty_like(W)
        torch.matmul(torch.cholesky_inverse(torch.linalg.cholesky(linalg.gram(H, float(s)))), H.mH, out=exact)
        rates = [sum_rate(H, x, float(s)).double() for x in (W, exact)]
        lost.append((float(1 - rates[0].mean() / rates[1].mean()), float((1 - rates[0] / rates[1]).max())))
    seconds = Ratio.of(timings.seconds["fit"])
    return counts("LMMSE 64 x 8 over frequency and noise", surrogate, levels * len(f)) | {
        "levels": levels,
        "lost": max(mean for mean, _ in lost),
        "largest lost": max(largest for _, largest in lost),
        "conditions": timings.conditions,
        "seconds": seconds,
    }


STUDIES: dict[str, Callable[[], list[Row]]] = {
    "slot": slots,
    "tolerance": tolerances,
    "frame": frames,
    "near_far": near_far,
    "line_of_sight": line_of_sight,
    "noise": lambda: [noise_axis()],
}

if __name__ == "__main__":
    for word in sys.argv[1:] or list(STUDIES):
        for found in STUDIES[word]():
            print(speed.lines(found), flush=True)
