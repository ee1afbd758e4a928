"""Sweeps of chapters: each is a papermill task on a worker of Dask.

    python -m studies.sweeps --profile cpu                      all chapters of the book, on the cores of this machine
    python -m studies.sweeps CHAPTER ... --scheduler ADDRESS    some of them, on the workers of a scheduler

Workers see this clone at the same path: what they run lies in it, and what they make goes to `_build/runs`, as from
`studies.runs run`, where `make book` finds it. A worker that is lost costs time alone: another runs its chapter again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path

from distributed import Client, Future, KilledWorker

from neumatc import checks
from neumatc.distributed.workers import connected
from studies import load, provenance, runs, status

# Seconds between two looks at the tasks.
LOOK = 0.2
# Seconds after which a scheduler that does not answer, or has no workers, is given up.
TIMEOUT = 30.0
# Of a chapter that nobody has timed yet: it begins first.
UNKNOWN = 1e6


def sweep(
    names: Sequence[str] = (),
    profile: str = "cpu",
    device: str = "auto",
    seed: int = 0,
    *,
    scheduler: object = None,
) -> None:
    """Run chapters as `runs.run` does, each as a task that has its name, as many at once as workers have threads.

    The terminal shows what each took, and where, as it ends. One that shows the run of another comes after it. One that
    fails, or ends every worker that takes it, leaves the others alone.

    Args:
        names: Names of chapters; empty for all of the book.
        profile, device, seed: As for `runs.run`; what there is of devices, each worker knows.
        scheduler: The address of a scheduler, a `distributed.Client` or a cluster of Dask. Default: processes of one
            thread, one for each core of this machine.

    Raises:
        ValueError: For an unknown chapter, profile or seed, or a notebook without a proper parameters cell.
        ConnectionError: If the scheduler cannot be reached, is lost, or has no workers; it names what has not ended.
        RuntimeError: If chapters fail, after the others have ended; it names them, with the reasons.
    """
    names = list(dict.fromkeys(names or runs.book_chapters()))
    for chapter in names:
        runs.default_parameters(runs.read_notebook(chapter), chapter)
    parameters = {"profile": provenance.check_profile(profile), "device": device, "seed": checks.seed(seed)}
    with connected(scheduler, TIMEOUT, progress=True) as client:
        count = sum(client.nthreads().values())
        print(f"{len(names)} chapters at the {profile} profile, {count} at once", flush=True)
        failed = _ended(client, _submitted(client, names, parameters))
    if failed:
        raise RuntimeError("; ".join(f"{chapter} failed: {reason}" for chapter, reason in failed.items()))


def _submitted(client: Client, names: Sequence[str], parameters: dict) -> dict[str, Future]:
    """Return the tasks by the names of their chapters, the longest first, those that show others after these."""
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NEUMATC_TIMES": str(int(load.wanted()))}
    root, own, found = str(provenance.root()), uuid.uuid4().hex, {}
    for chapter in sorted(names, key=runs.SHOWING.__contains__):
        before = [found[other] for other in runs.SHOWING.get(chapter, ()) if other in found]
        found[chapter] = client.submit(
            _ran,
            *(root, alone, chapter, parameters, before),
            key=f"{chapter}-{own}",
            pure=False,
            priority=runs.expected_seconds(chapter) or UNKNOWN,
        )
    return found


def _ended(client: Client, tasks: dict[str, Future]) -> dict[str, str]:
    """Wait for all tasks, tell of each that ends, and return why chapters failed, by their names."""
    begin, seen, left, failed = time.monotonic(), time.monotonic(), dict(tasks), {}
    while left:
        with contextlib.suppress(Exception):  # of a connection that is gone
            seen = time.monotonic() if client.status == "running" and client.nthreads() else seen
        for chapter in [name for name, task in left.items() if task.done() and not _lost(client, task)]:
            reason, took, where = _result(left.pop(chapter))
            failed |= {chapter: reason} if reason else {}
            text = f"failed{where}: {reason}" if reason else f"took {status.duration(took)}{where}"
            passed, done = status.duration(time.monotonic() - begin), len(tasks) - len(left)
            print(f"[{passed}] {chapter}: {text}; {done} of {len(tasks)} have ended", flush=True)
        if left and (client.status != "running" or time.monotonic() - seen > TIMEOUT):
            what = "the workers are gone" if client.status == "running" else "the connection was lost or closed"
            said = "".join(f" {chapter} failed: {reason};" for chapter, reason in failed.items())
            raise ConnectionError(
                f"`scheduler`: expected one with workers until the end, but {what};{said} {', '.join(left)} did not "
                "end: run these again."
            )
        time.sleep(LOOK)
    return failed


def _lost(client: Client, task: Future) -> bool:
    """Whether a task has ended because its connection did."""
    return task.cancelled() and client.status != "running"


def _result(task: Future) -> tuple[str, float, str]:
    """Return why a chapter failed, or nothing, the seconds that it took, and where."""
    try:
        return task.result()
    except KilledWorker:
        return "it ended every worker that took it, perhaps for lack of memory", 0.0, ""
    except (Exception, CancelledError) as error:  # of a worker that has another library, say
        return f"{type(error).__name__}: {error}", 0.0, ""


def _ran(root: str, environment: dict, chapter: str, parameters: dict, before: list) -> tuple[str, float, str]:
    """Run a chapter on a worker; what goes wrong is a result, so that chapters that show it come all the same."""
    begin, reason, where = time.perf_counter(), "", f" on {socket.gethostname()}"
    try:
        os.chdir(root)
        os.environ.update(environment)
        runs.prepare_kernels()
        runs.run(chapter, **parameters)
    except FileNotFoundError as error:
        reason = f"{error}; workers need this clone at the same path"
    except Exception as error:
        reason = str(error) or type(error).__name__
    return reason, time.perf_counter() - begin, where


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; a failure is one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m studies.sweeps", description="Run chapters on workers of Dask.")
    parser.add_argument("chapters", nargs="*", help="names of notebooks without suffix; none: all of the book")
    parser.add_argument("--profile", default="cpu", choices=provenance.PROFILES)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<index>")
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--scheduler", help="address, such as tcp://host:8786; none: the cores of this machine")
    own = parser.parse_args(arguments)
    try:
        sweep(own.chapters, own.profile, own.device, own.seed, scheduler=own.scheduler or None)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {Path('_build', 'runs', own.profile)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
