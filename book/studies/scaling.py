"""Scaling out: a million values into Zarr through killed workers and a killed scheduler, and ten million streamed.

`python -m studies.scaling` takes the measurements and publishes the record, on an idle machine; ``--stored`` and
``--streamed`` make them smaller, and then nothing is published. It writes up to 8 GB below ``--folder`` and removes
them again.

All runs evaluate one map, of the inverse of a complex 32 x 32 Gram matrix over a band, at evenly spaced frequencies.
The serial run that decides what is right is a plain loop in this process, without Dask and Zarr.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import torch

import neumatc as nm
from studies import benchmark, provenance, speed, texts
from studies.provenance import Record, Table

Numbers = dict[str, object]
# Start, stop and count.
Recipe = tuple[float, float, int]
# Parameters of the stored and of the streamed run; the part of the stored ones that is timed, and in how many rounds.
STORED, STREAMED, TIMED, ROUNDS = 10**6, 10**7, 5, 3
TOL = 1e-4
# Bytes of the values of a chunk, of the memory that a worker may have, and of one that has imported torch.
CHUNK_BYTES, MEMORY, IMPORTED = 2**25, 2 * 10**9, 2 * 10**8
# Parts of a run after which a worker is killed, and after which the scheduler is.
WORKERS_END, SCHEDULER_ENDS = (0.15, 0.35, 0.8), 0.55
# Seconds between two looks at a run, and that a scheduler and workers get to start.
LOOK, PATIENCE = 0.05, 120.0
# The run on paper.
PAPER_COUNT, PAPER_WORKERS, PAPER_CHUNK = 10**12, 1000, 2**30


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


class Crew:
    """A scheduler and workers of one thread each, in processes of their own that can be killed.

    Args:
        workers: How many.
        memory: Bytes that each may have.

    Attributes:
        address: Of the scheduler.
    """

    def __init__(self, workers: int, memory: int = MEMORY):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        plain = ["--no-dashboard"]
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), *plain)
        sizes = ["--nworkers", str(workers), "--nthreads", "1", "--memory-limit", str(memory)]
        self.workers = self._start("worker", self.address, "--host", "127.0.0.1", *sizes, *plain)

    @staticmethod
    def _start(kind: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "distributed.cli.dask_" + kind, *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, env=environment, start_new_session=True, **streams)

    def pids(self) -> list[int]:
        """Return the processes that compute, which a nanny starts anew when they die."""
        import psutil

        try:
            children = psutil.Process(self.workers.pid).children(recursive=True)
            return [own.pid for own in children if "resource_tracker" not in " ".join(own.cmdline())]
        except psutil.Error:  # one ended meanwhile
            return []

    def close(self) -> None:
        """End what was started here, children included: each process began a group of its own."""
        for process in (self.workers, self.scheduler):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Watcher(threading.Thread):
    """Looks at a run: notes the memory of the workers, and kills where so many chunks are there.

    Args:
        crew: Whose workers.
        there: Returns how many chunks are there.
        kills: Numbers of chunks, rising, each with what is killed then, ``"worker"`` or ``"scheduler"``.

    Attributes:
        peak: The most memory of a worker, in bytes.
        killed: What was killed, in order.
    """

    def __init__(self, crew: Crew, there: Callable[[], int], kills: Sequence[tuple[int, str]]):
        super().__init__(daemon=True)
        self.crew, self.there, self.kills = crew, there, list(kills)
        self.peak, self.killed, self._done = 0, [], threading.Event()

    def run(self) -> None:
        """Look at the workers until the call is done, and kill at the numbers of chunks that were named."""
        while not self._done.wait(LOOK):
            pids = self.crew.pids()
            self.peak = max([self.peak, *map(resident, pids)])
            # What has not imported torch has no chunk that could be lost.
            busy = [pid for pid in pids if resident(pid) > IMPORTED]
            if self.kills and busy and self.there() >= self.kills[0][0]:
                _, what = self.kills.pop(0)
                os.kill(busy[len(self.killed) % len(busy)] if what == "worker" else self.crew.scheduler.pid, 9)
                self.killed.append(what)

    def __enter__(self) -> Watcher:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self.join()


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has, 0 if it has ended."""
    import psutil

    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


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


def killed(surrogate: nm.Surrogate, recipe: Recipe, store: Path, *, values: bool) -> Numbers:
    """Evaluate by two workers through three killed workers and a killed scheduler, and compare with the serial run.

    Args:
        surrogate: The map.
        recipe: Its parameters.
        store: Where its values go.
        values: Whether they are written, or checksums alone.
    """
    from neumatc import distributed

    chunk, there = chunk_of(surrogate), (lambda: written(store)) if values else (lambda: noted(store))
    chunks = -(-recipe[2] // chunk)
    kills = sorted(
        [(round(x * chunks), "worker") for x in WORKERS_END] + [(round(SCHEDULER_ENDS * chunks), "scheduler")]
    )
    done, calls, peak, ended, begin = None, 0, 0, [], time.perf_counter()
    while done is None and calls < 3:  # two, unless a machine does something on its own
        calls += 1
        with Crew(2) as crew, Watcher(crew, there, kills) as watcher:
            done = attempt(surrogate, recipe, store, chunk, crew.address, values=values)
            print(f"  call {calls}: {'done' if done else 'the connection was lost'} after {watcher.killed}", flush=True)
        peak, kills, ended = max(peak, watcher.peak), watcher.kills, ended + watcher.killed
    seconds, damaged = time.perf_counter() - begin, []
    sums = serial(surrogate, recipe, chunk)
    if values and done:
        with Crew(1) as crew:
            damaged = distributed.verify(store, client=crew.address, timeout=PATIENCE, progress=False)
    return {
        "parameters": recipe[2],
        "chunk": chunk,
        "chunks": chunks,
        "bytes": recipe[2] * surrogate.value_bytes,
        "files": written(store),
        "killed": ended,
        "calls": calls,
        "found by the last call": done.found if done else None,
        "equal to the serial run": bool(done) and done.checksums.tolist() == sums,
        "damaged chunks on disk": damaged,
        "peak bytes of a worker": peak,
        "seconds with kills": seconds,
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


def to_disk(folder: Path, size: int, writers: int = 2) -> None:
    """Write files of the size of a chunk, as many at a time as there are workers, and wait until the disk has them."""
    block = np.random.default_rng(0).bytes(CHUNK_BYTES)
    folder.mkdir()
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(lambda i: (folder / str(i)).write_bytes(block), range(max(1, size // CHUNK_BYTES))))
    os.sync()


def timed(surrogate: nm.Surrogate, recipe: Recipe, folder: Path, rounds: int) -> Numbers:
    """Time a store by one worker and by two, the loop without a disk, and the disk alone, all in alternation.

    What others take of the processor is not judged, since the workers are others: the record has the load before.
    """
    chunk, size, places = chunk_of(surrogate), recipe[2] * surrogate.value_bytes, (folder / str(i) for i in count())

    def disk() -> None:
        place = next(places)
        to_disk(place, size)
        shutil.rmtree(place)

    def loop() -> None:
        serial(surrogate, recipe, chunk)

    def store(crew: Crew) -> None:
        place = next(places)
        assert attempt(surrogate, recipe, place, chunk, crew.address), "the connection was lost"
        os.sync()
        shutil.rmtree(place)

    with Crew(1) as one, Crew(2) as two:
        works = {"one worker": lambda: store(one), "two workers": lambda: store(two), "disk": disk, "loop": loop}
        timings = benchmark.compare(works, rounds=rounds, warm_up=1, judged=False)
        task = overhead(surrogate, two.address)
    ratios = {
        "two workers over one": ("one worker", "two workers"),
        "one worker, share of the disk": ("disk", "one worker"),
        "two workers, share of the disk": ("disk", "two workers"),
        "two workers over the loop": ("loop", "two workers"),
    }
    median = {name: float(np.median(own)) for name, own in timings.seconds.items()}
    return {
        "parameters": recipe[2],
        "bytes": size,
        "seconds": median,
        "seconds of a task": task,
        "ratios": {name: timings.ratio(*own) for name, own in ratios.items()},
        "conditions": timings.conditions,
        "model": model(median["loop"], median["disk"], task * -(-recipe[2] // chunk), 2, median["two workers"]),
    }


def overhead(surrogate: nm.Surrogate, address: str, tasks: int = 400) -> float:
    """Return the seconds that scheduler and connection take for a task, by tasks that compute nearly nothing."""
    recipe, begin = (float(surrogate.box.lower), float(surrogate.box.upper), tasks), time.perf_counter()
    assert attempt(surrogate, recipe, None, 1, address), "the connection was lost"
    return (time.perf_counter() - begin) / tasks


def model(loop: float, disk: float, tasks: float, workers: int, measured: float) -> Numbers:
    """Return a run beside what a model says of it: if its parts overlap the largest of them, if they do not their sum.

    Args:
        loop: Seconds of one core for all values.
        disk: Seconds of the disk for all bytes.
        tasks: Seconds of the scheduler for all tasks.
        workers: How many, on that disk.
        measured: Seconds of the run.

    Example:
        >>> found = model(8.0, 3.0, 1.0, 2, 5.0)
        >>> found["measured over the largest part"], found["measured over the sum"]
        (1.25, 0.625)
    """
    parts = {"arithmetic": loop / workers, "disk": disk, "scheduler": tasks}
    least, most = max(parts.values()), sum(parts.values())
    return {
        "parts": parts,
        "measured over the largest part": measured / least,
        "measured over the sum": measured / most,
    }


def paper(found: Numbers) -> Numbers:
    """Return what 10^12 parameters on 1,000 workers take on paper, each part of `model`, and the bottleneck.

    As here, two workers share a disk like ours, and the scheduler takes as long for a task. A chunk has 1 GiB: with
    ours of 32 MiB the scheduler would have 32 times as many tasks, which is told too.

    Args:
        found: What `timed` returned.
    """
    scale, seconds = PAPER_COUNT / found["parameters"], found["seconds"]
    size = scale * found["bytes"]
    parts = {
        "arithmetic": scale * seconds["loop"] / PAPER_WORKERS,
        "disks": scale * seconds["disk"] / (PAPER_WORKERS / 2),
        "scheduler": size / PAPER_CHUNK * found["seconds of a task"],
    }
    return {
        "parameters": PAPER_COUNT,
        "workers": PAPER_WORKERS,
        "bytes": size,
        "chunk bytes": PAPER_CHUNK,
        "hours": {name: own / 3600 for name, own in parts.items()},
        "hours of the scheduler with chunks as here": parts["scheduler"] * PAPER_CHUNK / CHUNK_BYTES / 3600,
        "bottleneck": max(parts, key=parts.get),
    }


def take(record: Record, folder: Path, stored: int = STORED, streamed: int = STREAMED, rounds: int = ROUNDS) -> None:
    """Fill a record: the stored run, the streamed run, the timed runs, and the estimate on paper."""
    surrogate, ends = posed()
    record.numbers["map"] = {
        "shape": list(surrogate.shape),
        "terms": surrogate.rank,
        "pieces": len(surrogate.pieces),
        "tol": TOL,
        "bytes of a value": surrogate.value_bytes,
        "memory of a worker": MEMORY,
    }
    for name, size, values in (("stored", stored, True), ("streamed", streamed, False)):
        print(f"{name}: {size:,} parameters", flush=True)
        record.numbers[name] = killed(surrogate, (*ends, size), folder / name, values=values)
        shutil.rmtree(folder / name)
    print(f"timed: {rounds} rounds", flush=True)
    record.numbers["timed"] = timed(surrogate, (*ends, max(1, stored // TIMED)), folder, rounds)
    record.numbers["paper"] = paper(record.numbers["timed"])


def check(record: Record) -> None:
    """Assert what is promised of the runs."""
    for name in ("stored", "streamed"):
        own = record.numbers[name]
        assert sorted(own["killed"]) == ["scheduler"] + ["worker"] * len(WORKERS_END), f"{name}: killed {own['killed']}"
        assert own["equal to the serial run"], f"{name}: the checksums are not those of the serial run"
        assert own["peak bytes of a worker"] <= MEMORY, f"{name}: more memory than promised"
    own = record.numbers["stored"]
    assert own["files"] == own["chunks"] and not own["damaged chunks on disk"], "a chunk is missing or damaged"
    assert record.numbers["paper"]["bottleneck"] != "arithmetic", "the bottleneck is arithmetic"


def runs_table(record: Record) -> Table:
    """Both runs: what was computed, what was killed, and whether the checksums are those of the serial run."""
    rows = []
    for name in ("stored", "streamed"):
        own = record.numbers[name]
        ended = ", ".join(f"{own['killed'].count(x)} {x}" for x in ("worker", "scheduler") if x in own["killed"])
        size, peak = f"{own['bytes'] / 1e9:.1f} GB", f"{own['peak bytes of a worker'] / 1e9:.2f} GB"
        equal = "yes" if own["equal to the serial run"] else "no"
        rows.append((name, f"{own['parameters']:,}", size, f"{own['chunks']:,}", ended or "nothing", equal, peak))
    head = ("run", "parameters", "values", "chunks", "killed", "checksums of the serial run", "peak of a worker")
    return Table(head, rows)


def speed_table(record: Record) -> Table:
    """Ratios of the timed runs, and of two workers to the model."""
    own = record.numbers["timed"]
    rows = [(name, texts.spread(ratio)) for name, ratio in own["ratios"].items()]
    rows += [(name, f"{ratio:.2g}") for name, ratio in own["model"].items() if name != "parts"]
    return Table(("what", "ratio"), rows)


def paper_table(record: Record) -> Table:
    """Hours of each part of the run on paper."""
    own = record.numbers["paper"]
    rows = [(name, f"{hours:,.2g}") for name, hours in own["hours"].items()]
    return Table((f"{own['parameters']:.0e} parameters, {own['workers']:,} workers", "hours"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and publish what was measured at full size."""
    parser = argparse.ArgumentParser(prog="python -m studies.scaling", description=__doc__.partition("\n")[0])
    parser.add_argument("--stored", type=int, default=STORED, help="parameters of the run that is stored")
    parser.add_argument("--streamed", type=int, default=STREAMED, help="parameters of the run that is streamed")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of the timed runs")
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's folder for such files")
    given = parser.parse_args(arguments)
    full = (given.stored, given.streamed) == (STORED, STREAMED) and given.rounds >= ROUNDS
    record = Record("scaling", profile="cpu" if full else "smoke", device="cpu", seed=0)
    record.provenance["command"] = "python -m studies.scaling"
    with tempfile.TemporaryDirectory(prefix="scaling-", dir=given.folder) as folder:
        take(record, Path(folder), given.stored, given.streamed, given.rounds)
    print(f"written: {record.save().relative_to(provenance.root())}")
    print("\n\n".join(repr(build(record)) for build in (runs_table, speed_table, paper_table)))
    check(record)
    if full:
        print(f"published: {provenance.publish('scaling', 'cpu').relative_to(provenance.root())}")


if __name__ == "__main__":
    main()
