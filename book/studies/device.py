"""What a GPU has to show, in one run of a few minutes: `python -m studies.device`.

Four tasks: values beside a copy of their memory, inverses beside batched Cholesky, four singular triplets beside the
batched SVD and the eigenvectors of Gram matrices, and many channels fitted at once. Every task is one run, in
alternating order; its ratios are taken round by round. Matrices are there before exact methods begin, so these do not
pay for forming them. Channels are drawn here, so nothing but the library is needed.

The record has the name of the device. It is written after each task: what a limit of time cuts off is in it as left
out. Where files of a run are fetched from a folder: `python -m studies.device && cp -r _build/runs/gpu "$OUT"`.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import neumatc as nm
from studies import provenance, solvers, texts
from studies.benchmark import compare
from studies.provenance import Record, Table

Row = dict[str, object]
# Band in Hz, spread of the delays in seconds, paths, and the noise beside a power of one.
_BAND, _SPREAD, _PATHS, _NOISE = (-50e6, 50e6), 30e-9, 24, 0.1
# Triplets.
_LEADING = 4
# Seconds after which no further task begins.
LIMIT = 420.0


@dataclass(frozen=True)
class Size:
    """How much each task computes.

    Attributes:
        values: Pairs of a size n and a number of parameters, for values beside a copy.
        inverse: n and the number of parameters.
        antennas: Of the channel whose singular vectors are wanted.
        triplets: Parameters beside the SVD, which takes one matrix after the other, and beside Gram matrices.
        streams, channels, alone, tones: Of many fits: n, how many there are, how many of them are also fitted one by
            one, and at how many tones each is solved.
        rounds: Timed rounds.
    """

    values: tuple[tuple[int, int], ...] = ((32, 100_000), (64, 100_000), (128, 50_000))
    inverse: tuple[int, int] = (64, 100_000)
    antennas: tuple[int, int] = (16, 64)
    triplets: tuple[int, int] = (2_000, 100_000)
    streams: int = 32
    channels: int = 256
    alone: int = 16
    tones: int = 2_000
    rounds: int = 5


TINY = Size(((4, 60), (8, 40)), (4, 60), (3, 4), (20, 40), 2, 4, 2, 30, 2)

# Task, what is divided by what, and the goal: a ratio of at least so much, or of at most.
GOALS = (
    ("values", "in place over a copy", "at most", 1.25),
    ("inverse", "Cholesky over evaluation", "at least", 20.0),
    ("triplets", "SVD over evaluation", "at least", 50.0),
    ("triplets", "Gram over evaluation", "at least", 10.0),
    ("many", "separate fits over fit_many", "at least", 8.0),
    ("many", "Cholesky over fit and evaluation", "at least", 1.0),
)


def channel(m: int, n: int, device: str, seed: int = 0) -> nm.wireless.Channel:
    """Draw a channel of plane waves between two linear arrays of half a wavelength, of mean power one for each entry.

    Args:
        m, n: Antennas of the two sides.
        device: Where it is.
        seed: Of directions and phases; delays, with an exponential profile, are the same for all.
    """
    draw, delays = torch.Generator().manual_seed(seed), -_SPREAD * torch.linspace(0.02, 0.98, _PATHS).double().log()
    power = torch.softmax(-delays / _SPREAD, 0)
    sides = [torch.rand(_PATHS, 1, generator=draw).double() * torch.arange(size) for size in (m, n)]
    phases = torch.rand(_PATHS, 1, 1, generator=draw).double() + sides[0][:, :, None] - sides[1][:, None, :]
    waves = power.sqrt()[:, None, None] * torch.exp(2j * math.pi * phases)
    return nm.wireless.Channel(waves[None].to(device, torch.complex64), delays[None].to(device), *_BAND)


def gram(n: int, device: str, seed: int = 0) -> nm.Problem:
    """Return the problem of the inverse of regularised Gram matrices n x n of a channel with twice as many antennas."""
    return nm.Problem(channel(2 * n, n, device, seed).gram(_NOISE), nm.Inverse())


def tones(count: int, device: str) -> Tensor:
    """Return frequencies over the band, rising, shape (count, 1)."""
    return torch.linspace(*_BAND, count, dtype=torch.float64, device=device)[:, None]


def fitted(problem: nm.Problem, tol: float) -> tuple[nm.Surrogate, Row]:
    """Fit a map, and say what it is."""
    surrogate = nm.fit(problem, tol=tol, progress=False)
    report = surrogate.report
    return surrogate, {"pieces": report.pieces, "terms": report.rank, "solves": report.exact_solves, "met": report.met}


def values(size: Size, device: str, judged: bool) -> list[Row]:
    """Values in memory that is there, in the order of the parameters and in another, beside a copy of them."""
    rows = []
    for n, count in size.values:
        (surrogate, row), p = fitted(gram(n, device), 1e-3), tones(count, device)
        mixed = p[torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(device)]
        out = surrogate(p)
        source, lower = out.clone(), "bf16" if device == "cpu" else "tf32"
        low = surrogate(p, precision=lower)
        error = float(torch.linalg.vector_norm(low - out) / torch.linalg.vector_norm(out))
        del low
        candidates = {
            "in place": lambda s=surrogate, p=p, out=out: s(p, out=out),
            "any order": lambda s=surrogate, p=mixed, out=out: s(p, out=out),
            lower: lambda s=surrogate, p=p, out=out, lower=lower: s(p, out=out, precision=lower),
            "copy": lambda out=out, source=source: out.copy_(source),
        }
        timings = compare(candidates, rounds=size.rounds, judged=judged)
        ratios = {f"{name} over a copy": timings.ratio(name, "copy") for name in ("in place", "any order", lower)}
        name = f"{n} x {n}, {count:,} parameters"
        rows.append({"name": name, **row, f"error of {lower}": error, **ratios, "conditions": timings.conditions})
        del out, source
    return rows


def inverse(size: Size, device: str, judged: bool) -> list[Row]:
    """Inverses after the fit, and with it, beside batched Cholesky of the matrices."""
    n, count = size.inverse
    problem, p = gram(n, device), tones(count, device)
    surrogate, row = fitted(problem, 1e-3)
    A, out = problem.family(p), surrogate(p)
    candidates = {
        "Cholesky": lambda: solvers.torch_cholesky(A),
        "evaluation": lambda: surrogate(p, out=out),
        "pass": lambda: fitted(problem, 1e-3)[0](p, out=out),
    }
    timings = compare(candidates, rounds=size.rounds, judged=judged)
    ratios = {f"Cholesky over {name}": timings.ratio("Cholesky", name) for name in ("evaluation", "pass")}
    return [{"name": f"{n} x {n}, {count:,} parameters", **row, **ratios, "conditions": timings.conditions}]


def by_gram(H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leading singular triplets of wide matrices from the eigenvectors of H H^H, without a check."""
    squares, vectors = torch.linalg.eigh(H @ H.mH)
    U, S = vectors[..., -_LEADING:].flip(-1), squares[..., -_LEADING:].flip(-1).clamp_min(0).sqrt()
    return U, S, (U.mH @ H) / S.clamp_min(torch.finfo(S.dtype).tiny)[..., None]


def triplets(size: Size, device: str, judged: bool) -> list[Row]:
    """Four leading singular triplets, as the map gives them and orthonormal, beside exact ones."""
    family, rows = channel(*size.antennas, device), []
    surrogate, row = fitted(nm.Problem(family, nm.SVD(rank=min(_LEADING, *size.antennas))), 1e-2)
    exact = {"SVD": lambda H: torch.linalg.svd(H, full_matrices=False), "Gram": by_gram}
    for (name, solve), count in zip(exact.items(), size.triplets):
        p = tones(count, device)
        H, out = family(p), tuple(surrogate(p))
        candidates = {
            name: lambda solve=solve, H=H: solve(H),
            "evaluation": lambda p=p, out=out: surrogate(p, out=out),
            "orthonormal": lambda p=p, out=out: surrogate(p, out=out, orthonormal=True),
        }
        timings = compare(candidates, rounds=size.rounds, judged=judged)
        ratios = {f"{name} over {own}": timings.ratio(name, own) for own in ("evaluation", "orthonormal")}
        what = f"{size.antennas[0]} x {size.antennas[1]}, {count:,} parameters"
        rows.append({"name": what, **row, **ratios, "conditions": timings.conditions})
    return rows


def many(size: Size, device: str, judged: bool) -> list[Row]:
    """Channels of one profile fitted at once, beside some of them one by one, and beside exact results at all tones."""
    problems, f = [gram(size.streams, device, seed) for seed in range(size.channels)], tones(size.tones, device)
    surrogates = nm.fit_many(problems, tol=1e-3, progress=False)
    A, out = torch.cat([problem.family(f) for problem in problems]), surrogates[0](f)
    candidates = {
        "alone": lambda: [nm.fit(problem, tol=1e-3, progress=False) for problem in problems[: size.alone]],
        "together": lambda: nm.fit_many(problems, tol=1e-3, progress=False),
        "evaluation": lambda: [surrogate(f, out=out) for surrogate in surrogates],
        "Cholesky": lambda: solvers.torch_cholesky(A),
    }
    timings, share = compare(candidates, rounds=max(2, size.rounds - 2), judged=judged), size.channels / size.alone
    ratios = {
        "separate fits over fit_many": timings.ratio("alone", "together").times(share),
        "Cholesky over fit and evaluation": timings.ratio("Cholesky", ("together", "evaluation")),
        "Cholesky over evaluation": timings.ratio("Cholesky", "evaluation"),
    }
    solves = sum(surrogate.report.exact_solves for surrogate in surrogates) / len(surrogates)
    row = {"pieces": surrogates[0].report.pieces, "terms": surrogates[0].rank, "solves": solves}
    row |= {"met": all(surrogate.report.met for surrogate in surrogates)}
    name = f"{size.channels} channels, {size.streams} x {size.streams}, {size.tones:,} tones"
    return [{"name": name, **row, **ratios, "conditions": timings.conditions}]


TASKS: dict[str, Callable[[Size, str, bool], list[Row]]] = {
    "values": values,
    "inverse": inverse,
    "triplets": triplets,
    "many": many,
}


def named(device: str) -> str:
    """Return the name of the record: "device_" and that of the GPU, or "device_cpu"."""
    name = "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
    return "device_" + re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def take(size: Size, device: str, *, judged: bool = True, limit: float = LIMIT) -> Record:
    """Take all tasks, and write the record after each; a task that would begin after the limit is None in it."""
    record = Record(named(device), profile="smoke" if device == "cpu" else "gpu", device=device, seed=0)
    record.provenance["command"] = "python -m studies.device"
    begin = time.perf_counter()
    for task, measure in TASKS.items():
        record.numbers[task] = None
        if time.perf_counter() - begin < limit:
            record.numbers[task] = measure(size, device, judged)
        record.save()
        if device != "cpu":
            torch.cuda.empty_cache()
    return record


def goals(record: Record) -> Table:
    """Tabulate each goal beside what was measured, and whether all of its quartiles are on the right side."""
    rows = []
    for task, key, side, goal in GOALS:
        wanted = f"{side} {goal:g}"
        if record.numbers[task] is None:
            rows.append((task, key, wanted, "left out: the time was used up", ""))
        for row in record.numbers[task] or ():
            if key in row:
                lower, median, upper = ratio = texts.measured(row[key])
                good = upper <= goal if side == "at most" else lower >= goal
                met = texts.UNTIMED if math.isnan(median) else "yes" if good else "no"
                rows.append((f"{task}: {row['name']}", key, wanted, texts.spread(ratio), met))
    return Table(("task", "ratio of times", "goal", "measured", "met"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the goals."""
    parser = argparse.ArgumentParser(prog="python -m studies.device", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:<index>, or cpu at the size of a test")
    parser.add_argument("--publish", action="store_true", help="keep the record in notebooks/records/")
    given = parser.parse_args(arguments)
    device = provenance.resolve_device(given.device, "gpu")
    record = take(TINY if device == "cpu" else Size(), device, judged=device != "cpu")
    print(repr(goals(record)))
    if given.publish:
        print(f"published: {provenance.publish(record.chapter, record.profile).relative_to(provenance.root())}")


if __name__ == "__main__":
    main()
