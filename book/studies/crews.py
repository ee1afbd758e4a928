"""Crews of Dask: a scheduler and workers in processes of their own, watched and killed by number of chunks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import psutil

Numbers = dict[str, object]
# Bytes of the memory that a worker may have, and of one that has imported torch.
MEMORY, IMPORTED = 2 * 10**9, 2 * 10**8
# Seconds between two looks at a run, and between two notes of memory.
LOOK, NOTED = 0.05, 0.5


class Crew:
    """A scheduler and workers, in processes of their own that can be killed.

    Args:
        workers: How many.
        threads: Of each.
        memory: Bytes that each may have.

    Attributes:
        address: Of the scheduler.
    """

    def __init__(self, workers: int, threads: int = 1, memory: int = MEMORY):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        plain = ["--no-dashboard"]
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), *plain)
        sizes = ["--nworkers", str(workers), "--nthreads", str(threads), "--memory-limit", str(memory)]
        self.workers = self._start("worker", self.address, "--host", "127.0.0.1", *sizes, *plain)

    @staticmethod
    def _start(kind: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "distributed.cli.dask_" + kind, *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, env=environment, start_new_session=True, **streams)

    def pids(self) -> list[int]:
        """Return the processes that compute, which a nanny starts anew when they die."""
        try:
            children = psutil.Process(self.workers.pid).children(recursive=True)
            return [own.pid for own in children if "resource_tracker" not in " ".join(own.cmdline())]
        except psutil.Error:  # one ended meanwhile
            return []

    def seconds(self) -> float:
        """Return the seconds that all its processes have computed."""
        return computed([self.scheduler.pid, self.workers.pid, *self.pids()])

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


def computed(pids: Iterable[int]) -> float:
    """Return the seconds that processes have computed, and those of their children that have ended."""
    found = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found += sum(psutil.Process(pid).cpu_times()[:4])
    return found


def kernel() -> list[int]:
    """Return the threads of the kernel: in a run that writes, they bring to the disk what was written."""
    with contextlib.suppress(psutil.Error):
        return [own.pid for own in psutil.Process(2).children()]
    return []


class Watcher(threading.Thread):
    """Looks at a run: notes the memory of the workers, and kills where so many chunks are there.

    Args:
        crew: Whose workers.
        there: Returns how many chunks are there.
        kills: Numbers of chunks, rising, each with what is killed then, ``"worker"`` or ``"scheduler"``.
        begin: When the run began, on the clock of `time.perf_counter`.

    Attributes:
        memory: Bytes of each worker's process, by its number and by steps of ``NOTED`` seconds: the most in each.
        killed: What was killed, in order: what, after how many seconds, and the number of the process.
        started: Seconds from its own start until a chunk was there; None if none was seen.
    """

    def __init__(
        self,
        crew: Crew,
        there: Callable[[], int] = lambda: 0,
        kills: Sequence[tuple[int, str]] = (),
        begin: float | None = None,
    ):
        super().__init__(daemon=True)
        self.crew, self.there, self.kills = crew, there, list(kills)
        self.begin = time.perf_counter() if begin is None else begin
        self.memory: dict[int, dict[int, int]] = {}
        self.killed: list[Numbers] = []
        self.started: float | None = None
        self._done = threading.Event()

    @property
    def peak(self) -> int:
        """The most memory of a worker, in bytes."""
        return max((size for own in self.memory.values() for size in own.values()), default=0)

    def run(self) -> None:
        """Look at the workers until the call is done, and kill at the numbers of chunks that were named."""
        own_begin, before = time.perf_counter(), self.there()
        while not self._done.wait(LOOK):
            if self.started is None and self.there() > before:
                self.started = time.perf_counter() - own_begin
            seconds, found = time.perf_counter() - self.begin, {pid: resident(pid) for pid in self.crew.pids()}
            sizes = {pid: size for pid, size in found.items() if size}
            for pid, size in sizes.items():
                own, step = self.memory.setdefault(pid, {}), int(seconds / NOTED)
                own[step] = max(own.get(step, 0), size)
            # The worker that has the most memory computes; what has not imported torch has no chunk to lose.
            largest = max(sizes, key=sizes.get, default=None)
            if self.kills and sizes.get(largest, 0) > IMPORTED and self.there() >= self.kills[0][0]:
                _, what = self.kills.pop(0)
                pid = largest if what == "worker" else self.crew.scheduler.pid
                os.kill(pid, signal.SIGKILL)
                self.killed.append({"what": what, "seconds": seconds, "pid": pid})

    def __enter__(self) -> Watcher:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self.join()


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has, 0 if it has ended."""
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


def told(watchers: Sequence[Watcher]) -> Numbers:
    """Return memory and kills of a run, whose processes are numbered in the order of their first note.

    ``memory``: for each process the step of its first note and the megabytes in each step from then on. ``kills``:
    what, when, and the number of the process, None for a scheduler.
    """
    memory = {pid: own for watcher in watchers for pid, own in watcher.memory.items()}
    order = sorted(memory, key=lambda pid: min(memory[pid]))
    rows = []
    for pid in order:
        own, first = memory[pid], min(memory[pid])
        rows.append({"first": first, "MB": [round(own.get(i, 0) / 1e6) for i in range(first, max(own) + 1)]})
    kills = [kill for watcher in watchers for kill in watcher.killed]
    named = [
        {
            "what": kill["what"],
            "seconds": round(kill["seconds"], 2),
            "worker": order.index(kill["pid"]) if kill["pid"] in memory else None,
        }
        for kill in kills
    ]
    return {"step": NOTED, "memory": rows, "kills": named}
