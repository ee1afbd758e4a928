"""Files under abuse: damaged ones, saves that are killed, and saves to one path at the same time.

    python -m studies.abuse_files --damaged 6000 --kills 100 --saves 200

prints counts, and ends with an error if a single one is not as it should be. It takes some minutes.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import itertools
import json
import math
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

import neumatc as nm
from neumatc import storage

# The most calls that a load may take, of Python's functions and of C's, on any machine; and the longest that it may
# take, in seconds of this process, where the whole is run.
CALLS, PATIENCE = 300_000, 3.0
# What a setting is changed to.
ABSURD = (2**40, 10**400, -1, 0, 0.5, 1e308, "x" * 1000, "", None, True, [], {}, [0] * 10_000, [[[[[]]]]])


def originals() -> list[nm.Surrogate]:
    """Return one surrogate of each kind: of a rank, with several factors, complex, in pieces, rational."""
    trigonometric = nm.families.trigonometric
    line = nm.Problem(trigonometric(3, shift=3.0, dtype=torch.float64), nm.Inverse())
    plane = nm.Problem(trigonometric(3, shift=3.0, dimension=2, dtype=torch.float64), nm.Inverse())
    svd = nm.Problem(trigonometric(4, shift=3.0, dtype=torch.complex64), nm.SVD(rank=2))
    sines = nm.ClosedForm(embedding=nm.SinusoidalMLP(width=16, frequency=5.0))
    found = [nm.fit(p, rank=4, progress=False) for p in (line, plane, svd)]
    found += [nm.fit(line, rank=4, method=sines, progress=False)]
    found += [nm.fit(p, tol=1e-4, progress=False) for p in (line, plane)]
    weights = {
        "nodes": torch.linspace(-1, 1, 5).double(),
        "w": torch.tensor([[1.0, -2, 3, -2, 1], [0, 0, 0, 0, 0]]).double(),
    }
    rational = nm.FactorMap("X", torch.ones(5, 3, 3, dtype=torch.float64), nm.Rational(), weights)
    return [*found, nm.Surrogate(nm.Inverse(), (3, 3), [rational], found[0].box, found[0].report)]


def large(value: float) -> nm.Surrogate:
    """Return a surrogate of some megabytes that holds one number everywhere."""
    core = torch.full((8, 200, 200), value, dtype=torch.float64)
    embedding = nm.Chebyshev(4)
    weights = embedding.initialise(1, 8, torch.Generator().manual_seed(0))
    maps = [nm.FactorMap("X", core, embedding, weights)]
    return nm.Surrogate(
        nm.Inverse(), (200, 200), maps, nm.Box(0.0, 1.0, dtype=torch.float64), nm.Report("Abuse", {}, 8, 0)
    )


def same(a: nm.Surrogate, b: nm.Surrogate) -> bool:
    """Whether two surrogates are equal, bit for bit."""
    settings = [(s.operation, s.shape, s.box, repr(s.report), [m.embedding for m in s.maps]) for s in (a, b)]
    left, right = a.state_dict(), b.state_dict()
    equal = left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    return settings[0] == settings[1] and equal


# Damage to bytes: it must be refused, or do no harm.


def flipped(data: bytes, draw: random.Random) -> bytes:
    """One bit of the file is wrong."""
    changed, at = bytearray(data), draw.randrange(8 * len(data))
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def cut(data: bytes, draw: random.Random) -> bytes:
    """The file ends too early."""
    return data[: draw.randrange(len(data))]


def longer(data: bytes, draw: random.Random) -> bytes:
    """Something stands behind its end."""
    return data + draw.randbytes(draw.randrange(1, 100))


def wiped(data: bytes, draw: random.Random) -> bytes:
    """A block of the disk is lost."""
    at = draw.randrange(len(data))
    size = min(draw.randrange(1, 600), len(data) - at)
    return data[:at] + draw.choice([bytes(size), draw.randbytes(size)]) + data[at + size :]


def spliced(data: bytes, draw: random.Random) -> bytes:
    """Its end is that of another place of itself."""
    at, to = (draw.randrange(len(data)) for _ in range(2))
    return data[:at] + data[to:]


# Files that are whole and signed, but make no sense: refused, or of use.


def resigned(path: Path, change: Callable[[dict, dict], None]) -> None:
    """Change tensors and header of a file, and sign it again."""
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
        header = json.loads(file.metadata()["neumatc"])
    header.pop("sha256")
    change(tensors, header)
    with contextlib.suppress(TypeError, ValueError, AttributeError):  # what cannot be signed is refused anyway
        header["sha256"] = storage.digest(tensors, header)
    path.write_bytes(safetensors.torch.save(tensors, {"neumatc": json.dumps(header)}))


def setting(draw: random.Random) -> Callable[[dict, dict], None]:
    """Give one entry of the header, somewhere, another value, or none."""

    def change(tensors: dict, header: dict) -> None:
        at = header
        while True:
            key = draw.choice(list(at)) if isinstance(at, dict) else draw.randrange(len(at))
            if not (isinstance(at[key], (dict, list)) and at[key]) or draw.random() < 0.1:
                break
            at = at[key]
        if draw.random() < 0.1:
            del at[key]
        else:
            at[key] = draw.choice(ABSURD)

    return change


def tensor(draw: random.Random) -> Callable[[dict, dict], None]:
    """Give one tensor other numbers, another shape or kind, or none."""

    def change(tensors: dict, header: dict) -> None:
        name = draw.choice(sorted(tensors))
        x = tensors.pop(name)
        kind = draw.randrange(7)
        if kind < 2 and x.numel():
            absurd = (10**9, -1, 2**40, 0) if not x.is_floating_point() else (torch.nan, torch.inf, -torch.inf)
            x.view(-1)[draw.randrange(x.numel())] = draw.choice(absurd)
        elif kind < 6:
            x = [x.repeat(2, *(1 for _ in x.shape[1:])), x.flatten(), x[..., None], x.to(torch.int32)][kind - 2]
        if kind < 6:
            tensors[name] = x

    return change


def many_axes(tensors: dict, header: dict) -> None:
    """A million parameters."""
    tensors["lower"], tensors["upper"] = torch.zeros(10**6), torch.ones(10**6)
    header["box"] = {}


def many_maps(tensors: dict, header: dict) -> None:
    """Ten thousand factors."""
    header["maps"] *= 10**4


def deep(tensors: dict, header: dict) -> None:
    """A report that is nested as deep as JSON is read."""
    for _ in range(900):
        header["report"] = {"a": header["report"]}


BYTES = (flipped, cut, longer, wiped, spliced)
ABSURDITIES = (many_axes, many_maps, deep)


def opened(path: Path, original: nm.Surrogate, harmless: Callable[[nm.Surrogate], bool], patience: float) -> str:
    """Return what becomes of a damaged file: ``"refused"``, ``"loaded"``, or what is wrong."""
    calls, start = itertools.count(), time.process_time()
    sys.setprofile(lambda *_: next(calls))
    try:
        loaded = nm.load(path)
        outcome = "loaded" if harmless(loaded) else "loaded, but another"
    except ValueError as error:
        outcome = "refused" if "`path`" in str(error) else f"unclear message: {error}"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"[:100]
    finally:
        sys.setprofile(None)
    slow = next(calls) > CALLS or time.process_time() - start > patience
    return f"slow: {outcome}" if slow else outcome


def usable(surrogate: nm.Surrogate) -> bool:
    """Whether a surrogate has values in the middle of its box."""
    p = (surrogate.lower.double() + surrogate.upper.double())[None] / 2
    value = surrogate(p)
    factors = (value,) if isinstance(value, torch.Tensor) else value
    return all(len(x) == 1 for x in factors)


def damaged(count: int, folder: Path, seed: int = 0, patience: float = math.inf) -> collections.Counter:
    """Damage files and load them; returns how many were refused, how many loaded, and what else happened.

    A load is slow where it takes more than ``CALLS`` calls, or more than ``patience`` seconds of this process.
    """
    draw, found, outcomes = random.Random(seed), originals(), collections.Counter()
    path = folder / "damaged.safetensors"
    files = []
    for which, surrogate in enumerate(found):
        nm.save(surrogate, path)
        files.append(path.read_bytes())
        found[which] = nm.load(path)  # in whose settings JSON has made lists of tuples
    for i in range(count):
        which = i % len(files)
        path.write_bytes(files[which])
        if i % 3:
            kind = draw.choice(BYTES)
            path.write_bytes(kind(files[which], draw))
            outcome = opened(path, found[which], lambda loaded, which=which: same(loaded, found[which]), patience)
        else:
            kind = draw.choice((setting, setting, setting, tensor, tensor, *ABSURDITIES))
            resigned(path, kind if kind in ABSURDITIES else kind(draw))
            outcome = opened(path, found[which], usable, patience)
        outcomes[outcome if outcome == "refused" else f"{kind.__name__}: {outcome}"] += 1
    return outcomes


def _saving(path: Path, ready: object) -> None:
    """Save two surrogates in turns, until killed."""
    turns = [large(1.0), large(2.0)]
    nm.save(turns[0], path)
    ready.set()
    while True:
        for surrogate in turns:
            nm.save(surrogate, path)


def kills(count: int, folder: Path, seed: int = 0) -> collections.Counter:
    """Kill processes that save, at random moments; returns how many files were whole, and what was left beside them."""
    draw, outcomes, wanted = random.Random(seed), collections.Counter(), [large(1.0), large(2.0)]
    path, context = folder / "killed.safetensors", multiprocessing.get_context("fork")
    for _ in range(count):
        ready = context.Event()
        process = context.Process(target=_saving, args=(path, ready), daemon=True)
        process.start()
        if not ready.wait(60):
            outcomes["never saved"] += 1
        time.sleep(draw.random() * 0.1)
        process.kill()
        process.join()
        left = len(list(folder.iterdir())) - 1
        loaded = nm.load(path)
        outcomes["whole" if any(same(loaded, x) for x in wanted) else "torn"] += 1
        outcomes["left something behind"] += left > 0
        nm.save(wanted[0], path)
        outcomes["left something behind after the next save"] += len(list(folder.iterdir())) > 1
    return outcomes


def _saves(paths: list[Path], value: float) -> None:
    for path in paths:
        nm.save(large(value), path)


def saves(count: int, folder: Path, seed: int = 0, threads: int = 4, processes: int = 4) -> collections.Counter:
    """Save from threads and processes at the same time, to one path and each to its own, while somebody loads it.

    There is nothing to draw: ``seed`` is not used.
    """
    workers, context, shared = threads + processes, multiprocessing.get_context("fork"), folder / "shared.safetensors"
    each = -(-count // (2 * workers))
    own = [[folder / f"{k}-{i}.safetensors" for i in range(each)] for k in range(workers)]
    nm.save(large(0.0), shared)
    jobs = [(_saves, ([p for path in own[k] for p in (shared, path)], float(k))) for k in range(workers)]
    running = [context.Process(target=f, args=a) for f, a in jobs[threads:]]
    running += [threading.Thread(target=f, args=a) for f, a in jobs[:threads]]
    for worker in running:
        worker.start()
    outcomes = collections.Counter()
    while any(worker.is_alive() for worker in running):
        outcomes["read meanwhile"] += 1
        try:
            core = nm.load(shared).maps[0].core
            outcomes["torn"] += bool((core != core.flatten()[0]).any())
        except ValueError:
            outcomes["torn"] += 1
    outcomes["saved"] = 2 * each * workers
    for k, paths in enumerate(own):
        outcomes["lost"] += sum(not same(nm.load(path), large(float(k))) for path in paths if path.exists())
        outcomes["lost"] += sum(not path.exists() for path in paths)
    outcomes["left behind"] = len(list(folder.glob("*.part")))
    outcomes["failed"] = sum(getattr(worker, "exitcode", 0) != 0 for worker in running)
    return outcomes


def main(arguments: list[str] | None = None) -> int:
    """Run the three, print the counts, and return how many outcomes are wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, count in (("damaged", 6000), ("kills", 100), ("saves", 200)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    counts, wrong = vars(parser.parse_args(arguments)), 0
    torch.set_num_threads(1)  # forked processes cannot use the threads of this one
    good = ("refused", "loaded", "whole", "left something behind", "read meanwhile", "saved")
    runs = {"damaged": functools.partial(damaged, patience=PATIENCE), "kills": kills, "saves": saves}
    for name, run in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            outcomes = run(counts[name], Path(folder), counts["seed"])
        print(f"{name}:")
        for outcome, number in sorted(outcomes.items()):
            bad = outcome.split(": ", 1)[-1] not in good and number > 0
            wrong += number * bad
            print(f"  {number:6} {outcome}{'   WRONG' * bad}")
    print(f"{wrong} wrong")
    return wrong


if __name__ == "__main__":
    raise SystemExit(min(1, main()))
