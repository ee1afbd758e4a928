"""How fast maps in pieces are beside what a user has: `python -m studies.speed [inverse|svd|lmmse|many|busy]`.

Every line is one run: all candidates in alternating order, medians, and the quartiles of the ratios round by round.
A machine that has other work to do is refused; `busy` makes its own load.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

import neumatc as nm
from studies import solvers
from studies.benchmark import compare, relative_error

Row = dict[str, object]
_NOISE = 0.1
# Fewest exact solves that a cubic spline goes through.
_KNOTS = 4


def measured(
    name: str, problem: nm.Problem, p: Tensor, tol: float, exact: dict[str, Callable], rounds: int, judged: bool = True
) -> Row:
    """Time a fit and its evaluation beside exact methods and a copy of the output."""
    surrogate = nm.fit(problem, tol=tol, progress=False)
    value, solves = surrogate(p), surrogate.report.exact_solves
    out, mixed = value, p[torch.randperm(len(p), generator=torch.Generator().manual_seed(0))]
    buffers = [value] if isinstance(value, Tensor) else list(value)
    sources = [x.clone() for x in buffers]
    candidates = {
        "fit": lambda: nm.fit(problem, tol=tol, progress=False),
        "evaluation": lambda: surrogate(p, out=out),
        "unsorted": lambda: surrogate(mixed, out=out),
        "copy": lambda: [x.copy_(source) for x, source in zip(buffers, sources)],
    }
    # The peer that needs no choice of gauge, from as many exact solves.
    knots = max(solves, _KNOTS)
    peer = nm.peers.spline(problem, knots) if isinstance(value, Tensor) else None
    if peer is not None:
        candidates |= {"spline fit": lambda: nm.peers.spline(problem, knots), "spline": lambda: peer(p)}
    timings = compare(candidates | exact, rounds=rounds, judged=judged)
    surrogate(p, out=out)
    truth = problem.exact(p).value
    error = problem.error(p, out) if not isinstance(value, Tensor) else relative_error(out, truth)
    row: Row = {
        "name": name,
        "threads": torch.get_num_threads(),
        "tol": tol,
        "count": len(p),
        "solves": solves,
        "pieces": len(surrogate.pieces),
        "terms": surrogate.rank,
        "met": surrogate.report.met,
        "error": error if isinstance(error, float) else float(error.square().mean().sqrt()),
        "conditions": timings.conditions,
        "over a copy": timings.ratio("evaluation", "copy"),
        "unsorted over a copy": timings.ratio("unsorted", "copy"),
    }
    for key in exact:
        row[f"{key}: after"] = timings.ratio(key, "evaluation")
        row[f"{key}: with the fit"] = timings.ratio(key, ("evaluation", "fit"))
        row[f"{key}: pays"] = timings.break_even("fit", key, "evaluation", len(p))
    if peer is not None:
        row["spline"] = {
            "solves": peer.exact_solves,
            "error": relative_error(peer(p), truth),
            "after": timings.ratio("spline", "evaluation"),
            "with the fit": timings.ratio(("spline", "spline fit"), ("evaluation", "fit")),
        }
        for key in exact:
            row["spline"] |= {
                f"{key}: after": timings.ratio(key, "spline"),
                f"{key}: with the fit": timings.ratio(key, ("spline", "spline fit")),
                f"{key}: pays": timings.break_even("spline fit", key, "spline", len(p)),
            }
    return row


def inverse(
    users: int = 8,
    spread: float = 30e-9,
    tol: float = 1e-4,
    rounds: int = 9,
    tones: int | None = None,
    judged: bool = True,
) -> Row:
    """The inverse of the regularised Gram matrix of a CDL-C uplink, four antennas a user."""
    channel = nm.wireless.cdl("C", users=users, delay_spread=spread, base_antennas=_panel(users))
    p, problem = channel.frequencies[:tones], nm.Problem(channel.gram(_NOISE), nm.Inverse())
    A = problem.family(p)
    arrays = list(A.numpy())
    exact = {
        "NumPy loop": lambda: [np.linalg.inv(a) for a in arrays],
        "Cholesky": lambda: solvers.torch_cholesky(A),
    }
    return measured(f"inverse {4 * users} x {4 * users}, {spread * 1e9:g} ns", problem, p, tol, exact, rounds, judged)


def svd(model: str = "C", spread: float = 30e-9, tol: float = 1e-3, rounds: int = 7, tones: int | None = None) -> Row:
    """The four leading singular triplets of a 16 x 64 downlink."""
    channel = nm.wireless.cdl(model, delay_spread=spread, user_antennas=(2, 4, 2), direction="downlink")
    p = channel.frequencies[:tones]
    H = channel(p)
    arrays = list(H.numpy())
    exact = {
        "NumPy loop": lambda: [np.linalg.svd(h, full_matrices=False) for h in arrays],
        "Gram": lambda: solvers.svd_by_gram(H, 4),
    }
    return measured(f"SVD CDL-{model}, {spread * 1e9:g} ns", nm.Problem(channel, nm.SVD(rank=4)), p, tol, exact, rounds)


def lmmse(streams: int = 32, tol: float = 1e-2, rounds: int = 9, tones: int | None = None) -> Row:
    """The LMMSE filter of a 64-antenna uplink with 8 or 32 streams."""
    antennas = {"user_antennas": 1, "user_pattern": "omni"} if streams == 8 else {}
    channel = nm.wireless.cdl("C", users=8, delay_spread=30e-9, **antennas)
    p = channel.frequencies[:tones]
    H = channel(p)
    exact = {"Cholesky": lambda: nm.peers.torch_lmmse(H, _NOISE)}
    problem = nm.Problem(channel, nm.LMMSE(noise=_NOISE))
    return measured(f"LMMSE 64 x {H.shape[2]}", problem, p, tol, exact, rounds)


def many(count: int = 256, tol: float = 1e-3, rounds: int = 3) -> Row:
    """`fit_many` on channels of one delay profile and independent phases, beside separate fits."""
    channel = nm.wireless.cdl("C", users=8, delay_spread=30e-9)
    bounds, problems = (float(channel.lower), float(channel.upper)), []
    for seed in range(count):
        angle = torch.rand(channel.coefficients.shape, generator=torch.Generator().manual_seed(seed))
        turned = channel.coefficients * torch.exp(2j * torch.pi * angle).to(channel.coefficients.dtype)
        family = nm.wireless.Channel(turned, channel.delays, *bounds).gram(_NOISE)
        problems.append(nm.Problem(family, nm.Inverse()))
    together = nm.fit_many(problems, tol=tol, progress=False)
    alone = [nm.fit(problem, tol=tol, progress=False) for problem in problems]
    candidates = {
        "alone": lambda: [nm.fit(problem, tol=tol, progress=False) for problem in problems],
        "together": lambda: nm.fit_many(problems, tol=tol, progress=False),
    }
    timings = compare(candidates, rounds=rounds, warm_up=0)
    return {
        "name": f"{count} channels",
        "threads": torch.get_num_threads(),
        "tol": tol,
        "solves": statistics.median(s.report.exact_solves for s in together),
        "solves alone": statistics.median(s.report.exact_solves for s in alone),
        "met": all(s.report.met for s in together),
        "conditions": timings.conditions,
        "separate fits over fit_many": timings.ratio("alone", "together"),
    }


@contextmanager
def load(processes: int):
    """Keep so many processes busy meanwhile."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def busy(rounds: int = 7, tones: int | None = None) -> list[Row]:
    """The inverse with one idle thread, and at default threads beside one busy process a core."""
    default, rows = torch.get_num_threads(), []
    for threads, processes in ((1, 0), (default, 0), (default, max(default, 2))):
        torch.set_num_threads(threads)
        with load(processes):
            # The load is made on purpose.
            row = inverse(tol=1e-3, rounds=rounds, tones=tones, judged=not processes)
        rows.append(row | {"name": f"{row['name']}, {processes} busy processes"})
    torch.set_num_threads(default)
    return rows


def _panel(users: int) -> tuple[int, int, int]:
    """Return a panel of twice as many antennas as there are streams."""
    return {8: (4, 8, 2), 16: (8, 8, 2), 32: (8, 16, 2)}[users]


def lines(row: Row) -> str:
    """Return a row as lines of text."""

    def text(value: object) -> str:
        if isinstance(value, tuple):
            return f"{value[1]:.2f} ({value[0]:.2f} - {value[2]:.2f})"
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return "\n  ".join([str(row["name"]), *(f"{key}: {text(value)}" for key, value in row.items() if key != "name")])


STUDIES: dict[str, Callable[[], list[Row]]] = {
    "inverse": lambda: [inverse(), inverse(spread=300e-9, tol=1e-2), inverse(16, rounds=5), inverse(32, rounds=3)],
    "svd": lambda: [svd(model, spread) for model in "AC" for spread in (30e-9, 100e-9)],
    "lmmse": lambda: [lmmse(streams) for streams in (32, 8)],
    "many": lambda: [many()],
    "busy": busy,
}

if __name__ == "__main__":
    for word in sys.argv[1:] or list(STUDIES):
        for found in STUDIES[word]():
            print(lines(found), flush=True)
