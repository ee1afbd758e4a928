"""Matrices of a thousand rows and more: `python -m studies.large_matrices SIZE ROUNDS` measures one fit.

The family is that of Gaussian-process regression, :math:`A(\\ell) = (e^{-r_{ij} / \\ell})_{ij} + I`, with the distances
r of points drawn in the unit square, and lengths from a fiftieth of its side to the whole of it. Its inverse is fitted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import neumatc as nm
from studies import benchmark, provenance, solvers
from studies.crews import Crew, Numbers, Watcher, resident

TOL, SHORTEST = 1e-3, 0.02
# Parameters at which a map is judged, and those that are timed at once.
JUDGED, TIMED = 8, 4
# Terms of the map that is split, by as many exact solutions; what is streamed through it, in chunks of so many.
TERMS, STREAMED, CHUNK = 8, 64, 4
# Every so many rows and columns of a value come back to be compared.
APART = 64


class Covariances:
    """The family as a function of p (B, 1), in single precision; it counts the matrices that it was asked for.

    Args:
        size: Rows.
        seed: Of the points.
    """

    def __init__(self, size: int, seed: int = 0):
        points = torch.rand(size, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.distances, self.asked = torch.cdist(points, points).float(), 0

    def __call__(self, p: Tensor) -> Tensor:
        self.asked += len(p)
        A = torch.div(self.distances, -p[:, :, None].float()).exp_()
        A.diagonal(dim1=1, dim2=2).add_(1.0)
        return A

    def problem(self) -> nm.Problem:
        """Return the problem of its inverse."""
        family = nm.ParametricMatrix(self, SHORTEST, 1.0, scale="log", names=["length"], dtype=torch.float32)
        return nm.Problem(family, nm.Inverse())


def memory() -> int:
    """Return the most bytes that this process has had; `resource` would count those of what started it."""
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("utf-8"))[1])


def measured(size: int, rounds: int) -> Numbers:
    """Return what the fit of an inverse to a tolerance takes, beside batched Cholesky, and how good it is.

    To be called in a process of its own, since its memory is measured.

    Args:
        size: Rows of the matrices.
        rounds: In which fit, evaluation and exact solution are timed.
    """
    family = Covariances(size)
    problem = family.problem()
    p = problem.family.box.uniform(JUDGED, torch.Generator().manual_seed(1))
    A = problem.family(p[:TIMED])
    exact, before = solvers.torch_cholesky(A), memory()
    family.asked = 0
    surrogate = nm.fit(problem, tol=TOL, progress=False)
    asked, peak = family.asked, memory()
    works = {
        "fit": lambda: nm.fit(problem, tol=TOL, progress=False),
        "Cholesky": lambda: solvers.torch_cholesky(A),
        "evaluation": lambda: surrogate(p[:TIMED]),
    }
    timings = benchmark.compare(works, rounds=rounds, warm_up=1)
    value, right = surrogate(p), problem.exact(p).value
    return {
        "size": size,
        "tol": TOL,
        "solves": surrogate.report.exact_solves,
        "matrices asked for": asked,
        "met": surrogate.report.met,
        "pieces": len(surrogate.pieces),
        "terms": surrogate.rank,
        "error": benchmark.relative_error(value, right),
        "error of Cholesky": benchmark.relative_error(exact, right[:TIMED]),
        "residual": float(problem.residual(p, value).max()),
        "bytes of a value": surrogate.value_bytes,
        "bytes of the latent tensor": surrogate.maps[0].numbers.nbytes,
        "bytes before the fit": before,
        "peak bytes of the fit": peak,
        "fit in exact solves": timings.ratio("fit", "Cholesky").times(TIMED),
        "times as fast": timings.ratio("Cholesky", "evaluation"),
        "pays": timings.break_even("fit", "Cholesky", "evaluation", TIMED),
        "conditions": timings.conditions,
    }


def apart(size: int, rounds: int) -> Numbers:
    """Return what `measured` does in a process of its own."""
    command = [sys.executable, "-m", "studies.large_matrices", str(size), str(rounds)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return provenance.restore(json.loads(found.stdout))


def split(size: int) -> Numbers:
    """Return what workers hold of a map as a whole, and of one that is split by rows, and how far their values differ.

    Args:
        size: Rows of the matrices.
    """
    from neumatc import distributed

    problem = Covariances(size).problem()
    surrogate = nm.fit(problem, rank=TERMS, budget=TERMS, progress=False)
    lower, upper = float(surrogate.box.lower), float(surrogate.box.upper)
    p, found, values = np.geomspace(lower, upper, STREAMED).clip(lower, upper), {}, {}
    for name, call in (("whole", distributed.evaluate), ("rows", distributed.evaluate_rows)):
        with Crew(2) as crew:
            idle = ready(crew)
            with Watcher(crew) as watcher:
                runs = call(surrogate, p, sampled, client=crew.address, chunk=CHUNK, timeout=120.0, progress=False)
        runs = runs if isinstance(runs, list) else [runs]
        values[name] = np.concatenate([np.concatenate([x for _, x in run.results]) for run in runs], axis=1)
        pids = [{pid for pid, _ in run.results} for run in runs]
        peaks = sorted(max(own.values()) for pid, own in watcher.memory.items() if pid in set.union(*pids))
        found[name] = {"idle bytes": idle, "peak bytes": peaks, "workers of a part": [len(own) for own in pids]}
    q = problem.family.box.uniform(2, torch.Generator().manual_seed(1))
    return {
        "size": size,
        "terms": surrogate.rank,
        "solves": surrogate.report.exact_solves,
        "residual": float(problem.residual(q, surrogate(q)).max()),
        "parameters": len(p),
        "chunk": CHUNK,
        "bytes of a value": surrogate.value_bytes,
        "bytes of the latent tensor": surrogate.maps[0].numbers.nbytes,
        "difference": float(np.abs(values["rows"] - values["whole"]).max() / np.abs(values["whole"]).max()),
        **found,
    }


def sampled(p: np.ndarray, X: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the process, and some rows and columns of values."""
    return os.getpid(), X[:, ::APART, ::APART].copy()


def ready(crew: Crew) -> int:
    """Return the most bytes that a worker of a crew has after it has imported the library."""
    from distributed import Client

    with Client(crew.address, timeout=120.0, set_as_default=False) as client:
        client.wait_for_workers(2, 120.0)
        client.run(imported)
        return max(map(resident, client.run(imported).values()))


def imported() -> int:
    """Import the library, and return the process."""
    from neumatc import distributed

    return os.getpid() if distributed else 0


if __name__ == "__main__":
    print(json.dumps(provenance.plain(measured(*map(int, sys.argv[1:])), "large")))
