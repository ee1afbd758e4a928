"""Scaling out: a million values into Zarr through killed workers and a killed scheduler, and ten million streamed.

`python -m studies.scaling` takes the measurements and publishes the record, on an idle machine; ``--stored``,
``--streamed`` and ``--sizes`` make them smaller, and then ``--publish`` says that the record is published all the same.
It writes up to 8 GB below ``--folder`` and removes them again. Each part is kept as it ends. With words (``stored``,
``streamed``, ``timed``, ``large``, ``rows``) it takes these parts alone, and the others from the published record; with
``--resume`` it takes those that an interrupted run has left.

All runs but those of large matrices evaluate one map, of the inverse of a complex 32 x 32 Gram matrix over a band, at
evenly spaced frequencies. The serial run that decides what is right is a plain loop in this process, without Dask and
Zarr.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch

import neumatc as nm
from studies import benchmark, large_matrices, load, provenance, speed
from studies.benchmark import Timings
from studies.crews import MEMORY, Crew, Watcher, computed, kernel, told
from studies.provenance import Record

Numbers = dict[str, object]
# Start, stop and count.
Recipe = tuple[float, float, int]
COMMAND = "python -m studies.scaling"
# Parameters of the stored and of the streamed run; the part of the stored ones that is timed, and in how many rounds.
STORED, STREAMED, TIMED, ROUNDS = 10**6, 10**7, 10, 5
# Rows of the matrix whose fit is measured, and of the one whose map is split.
SIZES = (1024, 2048)
TOL = 1e-4
# Bytes of the values of a chunk.
CHUNK_BYTES = 2**25
# Parts of the chunks after which something is killed.
KILLS = ((0.15, "worker"), (0.35, "worker"), (0.55, "scheduler"), (0.8, "worker"))
# Seconds that a scheduler and workers get to start.
PATIENCE = 120.0
# Tasks that compute nearly nothing, by which those are timed.
TASKS = 400
# The run on paper.
PAPER_COUNT, PAPER_WORKERS, PAPER_CHUNK = 10**12, 1000, 2**32


def posed() -> tuple[nm.Surrogate, tuple[float, float]]:
    """Return the map, and the ends of its band."""
    _, problem, _ = speed.inverse_problem()
    surrogate = nm.fit(problem, tol=TOL, progress=False)
    return surrogate, (float(surrogate.box.lower), float(surrogate.box.upper))


def chunk_of(surrogate: nm.Surrogate) -> int:
    """Return how many parameters a chunk has: fixed, whatever the workers."""
    return max(1, CHUNK_BYTES // surrogate.value_bytes)


def serial(surrogate: nm.Surrogate, recipe: Recipe, chunk: int) -> list[int]:
    """Return the checksums of the chunks, by a loop on one core, without Dask and Zarr."""
    from neumatc.distributed.points import points
    from neumatc.distributed.workers import one_core

    asked, found = points(recipe, surrogate.box), []
    with one_core():
        for start in range(0, recipe[2], chunk):
            p = torch.from_numpy(asked.rows(start, min(recipe[2], start + chunk)))
            found.append(2**32 + zlib.crc32(surrogate(p).numpy().reshape(-1).view(np.uint8)))
    return found


def written(store: Path) -> int:
    """Return how many chunks of values are there."""
    try:
        return sum("." not in name for name in os.listdir(store / "X" / "c"))
    except FileNotFoundError:
        return 0


def noted(store: Path) -> int:
    """Return how many checksums are there; they are written every few seconds."""
    import zarr

    try:
        return int(np.count_nonzero(zarr.open_group(store, mode="r")["checksums"][:]))
    except (FileNotFoundError, KeyError):
        return 0


def killed(
    surrogate: nm.Surrogate,
    recipe: Recipe,
    store: Path,
    *,
    values: bool = True,
    kills: Sequence[tuple[float, str]] = KILLS,
    chunk: int | None = None,
) -> Numbers:
    """Evaluate by two workers through kills, and compare with the serial run.

    Args:
        surrogate: The map.
        recipe: Its parameters.
        store: Where its values go.
        values: Whether they are written, or checksums alone.
        kills: Parts of the chunks after which something is killed, each with what.
        chunk: Parameters in each chunk. Default: that of `chunk_of`.
    """
    from neumatc import distributed

    chunk, there = chunk or chunk_of(surrogate), (lambda: written(store)) if values else (lambda: noted(store))
    chunks = -(-recipe[2] // chunk)
    left = [(round(x * chunks), what) for x, what in kills]
    done, damaged, watchers, begin = None, [], [], time.perf_counter()
    while done is None and len(watchers) < 3:  # two calls, unless a machine does something on its own
        with Crew(2) as crew:
            with Watcher(crew, there, left, begin) as watcher:
                watchers.append(watcher)
                done = attempt(surrogate, recipe, store, chunk, crew.address, values=values)
                seconds = time.perf_counter() - begin
            if values and done:
                damaged = distributed.verify(store, client=crew.address, timeout=PATIENCE, progress=False)
        left = watcher.kills
    sums = serial(surrogate, recipe, chunk)
    ended = [kill["what"] for watcher in watchers for kill in watcher.killed]
    return {
        "parameters": recipe[2],
        "chunk": chunk,
        "chunks": chunks,
        "bytes": recipe[2] * surrogate.value_bytes,
        "files": written(store),
        "killed": ended,
        "calls": len(watchers),
        "found by the last call": done.found if done else None,
        "equal to the serial run": bool(done) and done.checksums.tolist() == sums,
        "damaged chunks on disk": damaged,
        "peak bytes of a worker": max(watcher.peak for watcher in watchers),
        "seconds of starts": sum(watcher.started or 0.0 for watcher in watchers),
        "seconds with kills": seconds,
        **told(watchers),
    }


def attempt(surrogate: nm.Surrogate, recipe: Recipe, store: object, chunk: int, address: str, **settings: object):
    """Return what a call has done, None where the connection was lost."""
    from neumatc import distributed

    try:
        return distributed.evaluate(
            surrogate, recipe, store, client=address, chunk=chunk, timeout=PATIENCE, progress=False, **settings
        )
    except ConnectionError:
        return None


def files(folder: Path) -> list[Path]:
    """Return all files below a folder."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def flush(folder: Path, forget: bool = False) -> None:
    """Wait until the disk has all files below a folder; on request let the memory forget them."""
    for path in files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            if forget:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def to_disk(folder: Path, size: int, writers: int = 2) -> None:
    """Write files of the size of a chunk, as many at a time as there are workers, and wait until the disk has them."""
    block = np.random.default_rng(0).bytes(min(size, CHUNK_BYTES))
    folder.mkdir()
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(lambda i: (folder / str(i)).write_bytes(block), range(max(1, size // CHUNK_BYTES))))
    flush(folder)


def from_disk(folder: Path) -> int:
    """Read all files below a folder, which memory has forgotten, and return a checksum."""
    flush(folder, forget=True)
    found = 0
    for path in files(folder):
        found = zlib.crc32(path.read_bytes(), found)
    return found


@dataclass(frozen=True)
class Model:
    """What a run takes: arithmetic on as many cores as workers, bytes to a disk that they share, and tasks.

    Attributes:
        arithmetic: Seconds of one core for a value.
        disk: Seconds of the disk for a value.
        task: Seconds of scheduler and connection for a task.
    """

    arithmetic: float
    disk: float
    task: float

    def parts(self, values: int, chunk: int, workers: int, disks: float = 1) -> dict[str, float]:
        """Return the seconds of each part of a run.

        Example:
            >>> Model(2e-5, 3e-5, 1e-3).parts(10**6, 10**4, 2)
            {'arithmetic': 10.0, 'disk': 30.0, 'scheduler': 0.1}
        """
        arithmetic, disk = values * self.arithmetic / workers, values * self.disk / disks
        return {"arithmetic": arithmetic, "disk": disk, "scheduler": self.task * -(-values // chunk)}


def timed(surrogate: nm.Surrogate, recipe: Recipe, whole: int, folder: Path, rounds: int) -> Numbers:
    """Time stores by one worker and by two, the loop without a disk, and the disk alone, all in alternation.

    Then a run of the whole size, once and without kills, beside what the model predicts from these times.

    Args:
        surrogate: The map.
        recipe: The parameters that are timed.
        whole: Parameters of the run that is predicted.
        folder: Where files go.
        rounds: How often each is timed.
    """
    chunk, size, places = chunk_of(surrogate), recipe[2] * surrogate.value_bytes, (folder / str(i) for i in count())
    few = (*recipe[:2], TASKS)

    def disk() -> None:
        place = next(places)
        to_disk(place, size)
        shutil.rmtree(place)

    def store(crew: Crew, asked: Recipe = recipe, keep: bool = False) -> Path:
        place = next(places)
        assert attempt(surrogate, asked, place, chunk, crew.address), "the connection was lost"
        flush(place)
        if not keep:
            shutil.rmtree(place)
        return place

    with Crew(1) as one, Crew(2) as two, Crew(1, threads=2) as threads:
        crews, system = (one, two, threads), kernel()
        kept = store(two, keep=True)
        works = {
            "one worker": lambda: store(one),
            "two workers": lambda: store(two),
            "two threads": lambda: store(threads),
            "disk": disk,
            "loop": lambda: serial(surrogate, recipe, chunk),
            "read": lambda: from_disk(kept),
            "tasks": lambda: attempt(surrogate, few, None, 1, two.address),
        }

        def more() -> float:
            return sum(crew.seconds() for crew in crews) + computed(system)

        timings = benchmark.compare(works, rounds=rounds, warm_up=1, more=more)
        shutil.rmtree(kept)
        watch, begin = load.Watch(more), time.perf_counter()
        store(two, (*recipe[:2], whole))
        seconds = time.perf_counter() - begin
        found = watch.load()
    refused = benchmark.too_much(found)
    return {
        "parameters": recipe[2],
        "chunk": chunk,
        "bytes": size,
        "seconds": {name: float(np.median(own)) for name, own in timings.seconds.items()},
        "ratios": ratios(timings),
        "conditions": timings.conditions,
        "parameters of a task's worth": timings.ratio("tasks", "loop").times(recipe[2] / TASKS),
        "whole": {
            "parameters": whole,
            "bytes": whole * surrogate.value_bytes,
            "conditions": benchmark.conditions(refused, found, rounds=1),
            **predicted(timings, recipe[2], whole, chunk, benchmark.UNKNOWN[0] if refused else seconds),
        },
    }


def ratios(timings: Timings) -> dict[str, object]:
    """Return what the text compares: throughputs in that of the disk, and of each other."""
    shares = {f"{name}, share of the disk": ("disk", name) for name in ("one worker", "two workers", "two threads")}
    shares |= {
        "loop, share of the disk": ("disk", "loop"),
        "two workers over one": ("one worker", "two workers"),
        "two threads over two workers": ("two workers", "two threads"),
        "one worker over the loop": ("loop", "one worker"),
        "computing over reading": ("read", "loop"),
    }
    return {name: timings.ratio(*own) for name, own in shares.items()}


def predicted(timings: Timings, timed: int, whole: int, chunk: int, seconds: float) -> Numbers:
    """Return what the model says of a run of two workers, beside its time: as one number, and round by round.

    If arithmetic, disk and scheduler overlap, a run takes as long as the largest part of them; if they do not, their
    sum.
    """

    def parts(loop: float, disk: float, tasks: float) -> list[float]:
        return [*Model(loop / timed, disk / timed, tasks / TASKS).parts(whole, chunk, 2).values()]

    works = ("loop", "disk", "tasks")
    medians = [float(np.median(timings.seconds[name])) for name in works]
    return {
        "predicted seconds": {"overlapping": max(parts(*medians)), "one after the other": sum(parts(*medians))},
        "measured seconds": seconds,
        "measured over overlapping": timings.by_round(lambda *own: seconds / max(parts(*own)), *works),
        "measured over one after the other": timings.by_round(lambda *own: seconds / sum(parts(*own)), *works),
    }


def paper(found: Numbers) -> Numbers:
    """Return what 10^12 parameters on 1,000 workers take on paper, each part of `Model`, and the bottleneck.

    As here, two workers share a disk like ours, and the scheduler takes as long for a task. A chunk has 4 GiB: with
    ours of 32 MiB the scheduler would have 128 times as many tasks, which is told too.

    Args:
        found: What `timed` returned.
    """
    seconds, values = found["seconds"], found["parameters"]
    model = Model(seconds["loop"] / values, seconds["disk"] / values, seconds["tasks"] / TASKS)
    each = found["bytes"] // values
    parts = model.parts(PAPER_COUNT, PAPER_CHUNK // each, PAPER_WORKERS, PAPER_WORKERS / 2)
    finer = model.parts(PAPER_COUNT, found["chunk"], PAPER_WORKERS, PAPER_WORKERS / 2)
    return {
        "parameters": PAPER_COUNT,
        "workers": PAPER_WORKERS,
        "bytes": PAPER_COUNT * each,
        "chunk bytes": PAPER_CHUNK,
        "hours": {name: own / 3600 for name, own in parts.items()},
        "hours of the scheduler with chunks as here": finer["scheduler"] / 3600,
        "bottleneck": max(parts, key=parts.get),
    }


@dataclass(frozen=True)
class Sizes:
    """How large the runs are: parameters stored and streamed, rounds, and the rows of two large matrices."""

    stored: int = STORED
    streamed: int = STREAMED
    rounds: int = ROUNDS
    fitted: int = SIZES[0]
    split: int = SIZES[1]

    @property
    def full(self) -> bool:
        """Whether they are those of the book."""
        return replace(self, rounds=ROUNDS) == Sizes() and self.rounds >= ROUNDS


def take(record: Record, folder: Path, sizes: Sizes, parts: Sequence[str]) -> None:
    """Fill parts of a record, and save it after each."""
    numbers, (surrogate, ends) = record.numbers, posed()
    numbers["map"] = {
        "shape": list(surrogate.shape),
        "terms": surrogate.rank,
        "pieces": len(surrogate.pieces),
        "tol": TOL,
        "bytes of a value": surrogate.value_bytes,
        "memory of a worker": MEMORY,
    }
    some = (*ends, max(1, sizes.stored // TIMED))

    def kills(size: int, *, values: bool) -> Numbers:
        return killed(surrogate, (*ends, size), folder / "store", values=values)

    works = {
        "stored": lambda: kills(sizes.stored, values=True),
        "streamed": lambda: kills(sizes.streamed, values=False),
        "timed": lambda: timed(surrogate, some, sizes.stored, folder, sizes.rounds),
        "large": lambda: large_matrices.apart(sizes.fitted, sizes.rounds),
        "rows": lambda: large_matrices.split(sizes.split),
    }
    for part in parts:
        begin = time.perf_counter()
        print(f"{part} ...", end=" ", flush=True)
        numbers[part] = works[part]()
        numbers.setdefault("seconds of parts", {})[part] = time.perf_counter() - begin
        if part == "timed":
            numbers["paper"] = paper(numbers["timed"])
        shutil.rmtree(folder / "store", ignore_errors=True)
        record.save()
        print(f"{time.perf_counter() - begin:.0f} s", flush=True)


PARTS = ("stored", "streamed", "timed", "large", "rows")


def begun(sizes: Sizes, parts: Sequence[str], arguments: Sequence[str], profile: str, resume: bool = False) -> Record:
    """Return a record to be filled: a new one, or a copy of one that has the other parts.

    Args:
        sizes: Of the runs.
        parts: What is to be taken.
        arguments: Of the command.
        profile: Of the record.
        resume: Whether the other parts come from the run that was interrupted; else from the published record.

    Raises:
        ValueError: If that record is of other sizes.
    """
    record = Record("scaling", profile=profile, device="cpu", seed=0)
    record.provenance["command"] = " ".join([COMMAND, *arguments])
    record.numbers["sizes"] = asdict(sizes)
    if set(parts) == set(PARTS):
        return record
    before = provenance.load("scaling", profile if resume else None)
    if before.numbers["sizes"] != record.numbers["sizes"]:
        raise ValueError(
            f"`sizes`: expected those of the record that has the other parts, {before.numbers['sizes']}, "
            f"got {record.numbers['sizes']}; take all parts anew."
        )
    anew = {part: dict(record.provenance) for part in parts}
    before.provenance["anew"] = before.provenance.get("anew", {}) | anew
    before._start -= before.provenance["wall_seconds"]  # its time is that of all parts
    return before


def missing(profile: str) -> list[str]:
    """Return the parts that a run which was interrupted has not taken."""
    try:
        found = provenance.load("scaling", profile).numbers
    except FileNotFoundError:
        found = {}
    return [part for part in PARTS if part not in found]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and publish what was measured at full size, or what is to be published all the same."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--stored", type=int, default=STORED, help="parameters of the run that is stored")
    parser.add_argument("--streamed", type=int, default=STREAMED, help="parameters of the run that is streamed")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of what is timed")
    parser.add_argument("--sizes", type=int, nargs=2, default=SIZES, help="rows of the two large matrices")
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's folder for such files")
    parser.add_argument("--resume", action="store_true", help="take the parts that an interrupted run has left")
    parser.add_argument("--publish", action="store_true", help="publish the record though it is smaller")
    given = parser.parse_args(arguments)
    sizes = Sizes(given.stored, given.streamed, given.rounds, *given.sizes)
    publish = sizes.full or given.publish
    profile = "cpu" if publish else "smoke"
    parts = given.parts or (missing(profile) if given.resume else list(PARTS))
    if unknown := set(parts) - set(PARTS):
        parser.error(f"expected parts of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    record = begun(sizes, parts, arguments, profile, given.resume)
    with tempfile.TemporaryDirectory(prefix="scaling-", dir=given.folder) as folder:
        take(record, Path(folder), sizes, parts)
    if publish:
        from studies import scaling_pages

        scaling_pages.check(record)
        print(f"published: {provenance.publish('scaling', 'cpu').relative_to(provenance.root())}")
    print(f"the full sizes take about {full_minutes(record.numbers):.0f} minutes on a machine as busy as this")


def full_minutes(numbers: Numbers) -> float:
    """Return what a run of the full sizes takes, from what the parts of a smaller one took: the starts of processes as
    they are, all else as many times as long as it has more parameters. The large matrices are taken as they are.

    Args:
        numbers: Of a record with all parts.
    """
    took, found = numbers["seconds of parts"], 0.0
    start = numbers["streamed"]["seconds of starts"]
    for part, size in (("stored", STORED), ("streamed", STREAMED), ("timed", STORED // TIMED)):
        starts = min(took[part], numbers[part].get("seconds of starts", start))
        found += starts + (took[part] - starts) * size / numbers[part]["parameters"]
    return (found + took["large"] + took["rows"]) / 60


if __name__ == "__main__":
    main()
