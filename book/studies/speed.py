"""How fast maps in pieces are beside what a user has: `python -m studies.speed [inverse|svd|lmmse|many|busy]`.

Every line is one run: all candidates in alternating order, medians, and the quartiles of the ratios round by round.
A machine that has other work to do is refused; `busy` makes its own load.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor

import neumatc as nm
from studies import interpolants, practice, random_families, solvers
from studies.benchmark import Timings, compare, relative_error

Row = dict[str, object]
# Name, problem, and the parameters at which it is evaluated, (B, 1).
Posed = tuple[str, nm.Problem, Tensor]
_NOISE = 0.1
# Numbers of solves that a peer which asks for one is given, each a fifth more than the last, so that none gets many
# more than it needs; up to every second parameter, where interpolation has no sense left.
_FEWEST, _STEP, _MOST = 8, 1.2, 0.5
# One parameter in so many judges a number of solves while the ladder is climbed; all judge the peer that is timed.
_JUDGED = 8


def measured(
    name: str,
    problem: nm.Problem,
    p: Tensor,
    tol: float,
    exact: dict[str, Callable],
    rounds: int,
    judged: bool = True,
    interpolated: bool = True,
) -> Row:
    """Time a fit and its evaluation beside exact methods, interpolation, and a copy of the output.

    What interpolates gets its exact results from the strongest exact method; see `bared`.

    A *pass* of the map, or of what interpolates, is one call: it is made from its exact results and evaluated at all
    parameters. These and what solves exactly write into new memory; beside the copy, the map writes into memory that is
    there, as the copy does.
    """
    surrogate = nm.fit(problem, tol=tol, progress=False)
    value = surrogate(p)
    error = erring(problem, p, value)
    builders = rivals(bared(problem), p, tol) if interpolated else {}
    peers = {peer: build() for peer, build in builders.items()}
    out, mixed = value, p[torch.randperm(len(p), generator=torch.Generator().manual_seed(0))]
    buffers = [value] if isinstance(value, Tensor) else list(value)
    sources = [x.clone() for x in buffers]
    candidates = {
        "pass": lambda: nm.fit(problem, tol=tol, progress=False)(p),
        "evaluation": lambda: surrogate(p),
        "in place": lambda: surrogate(p, out=out),
        "unsorted": lambda: surrogate(mixed, out=out),
        "copy": lambda: [x.copy_(source) for x, source in zip(buffers, sources)],
    }
    for peer, build in builders.items():
        candidates |= {f"{peer}, pass": lambda build=build: build()(p), peer: lambda peer=peer: peers[peer](p)}
    timings = compare(candidates | exact, rounds=rounds, judged=judged)
    row: Row = {
        "name": name,
        "threads": torch.get_num_threads(),
        "tol": tol,
        "count": len(p),
        "solves": surrogate.report.exact_solves,
        "pieces": len(surrogate.pieces),
        "terms": surrogate.rank,
        "met": surrogate.report.met,
        "error": error,
        "conditions": timings.conditions,
        "over a copy": timings.ratio("in place", "copy"),
        "unsorted over a copy": timings.ratio("unsorted", "copy"),
    }
    for key in exact:
        row[f"{key}: after"] = timings.ratio(key, "evaluation")
        row[f"{key}: with the fit"] = timings.ratio(key, "pass")
        row[f"{key}: pays"] = timings.break_even("pass", key, "evaluation", len(p), instead="evaluation")
    if peers:
        row["interpolation"] = beside(peers, problem, p, timings, list(exact))
    return row


def bared(problem: nm.Problem) -> nm.Problem:
    """Return a problem whose exact results are those of the strongest exact method, without the library's checks.

    Singular vectors are aligned by `practice.aligned_spline`, which takes them so by itself.
    """
    strongest = {nm.Inverse: solvers.torch_cholesky, nm.LMMSE: partial(nm.peers.torch_lmmse, noise=_NOISE)}
    solve = strongest.get(type(problem.operation))
    return problem if solve is None else solvers.Bare(problem, lambda p: solve(problem.family(p)))


def counted(name: str, problem: nm.Problem, p: Tensor, tol: float) -> Row:
    """Return the solves and the error of a fit and of what interpolates, as :func:`measured` does, without a clock."""
    surrogate = nm.fit(problem, tol=tol, progress=False)
    row: Row = {"name": name, "solves": surrogate.report.exact_solves, "error": erring(problem, p, surrogate(p))}
    peers = {peer: build() for peer, build in rivals(bared(problem), p, tol).items()}
    found = {peer: {"solves": x.exact_solves, "error": erring(problem, p, x(p))} for peer, x in peers.items()}
    return row | {"interpolation": found}


def erring(problem: nm.Problem, p: Tensor, value: Tensor | Sequence[Tensor]) -> float:
    """Return the relative error over all parameters together, of factors that of what they make up."""
    if isinstance(value, Tensor):
        return relative_error(value, problem.exact(p).value)
    return float(problem.error(p, value).square().mean().sqrt())


def rivals(problem: nm.Problem, p: Tensor, tol: float) -> dict[str, Callable]:
    """Return what builds the peers that interpolate, by name.

    The one in pieces is asked for the tolerance. Those that are asked for a number of solves get the smallest of a
    ladder that keeps what the map promises: at most 1 % of the parameters exceed the tolerance. Where none does, they
    are left out. Nobody tells a user that number. Singular vectors are aligned first. Splines are cubic and linear.
    """
    found: dict[str, Callable] = {}
    asked: dict[str, Callable] = {
        "aligned spline": lambda _, n: practice.aligned_spline(problem.family, 4, n),
        "aligned linear spline": lambda _, n: practice.aligned_spline(problem.family, 4, n, degree=1),
    }
    if len(problem.factors) == 1:
        found["piecewise Chebyshev"] = lambda: nm.peers.piecewise_chebyshev(problem, tol)
        linear = partial(nm.peers.spline, degree=1)
        asked = {"Chebyshev": interpolants.chebyshev, "cubic spline": nm.peers.spline, "linear spline": linear}
    q, rungs = p[::_JUDGED], int(math.log(max(_MOST * len(p) / _FEWEST, 1), _STEP))

    def keeps(peer: Callable) -> bool:
        above = problem.residual(q, peer(q)) > tol
        return float(above.double().mean()) <= random_families.TARGET

    for name, build in asked.items():
        ladder = (round(_FEWEST * _STEP**i) for i in range(rungs + 1))
        if (count := next((n for n in ladder if keeps(build(problem, n))), None)) is not None:
            found[name] = lambda build=build, count=count: build(problem, count)
    return found


def beside(
    peers: Mapping[str, Callable], problem: nm.Problem, p: Tensor, timings: Timings, exact: Sequence[str]
) -> dict[str, Row]:
    """Return of each peer its solves, its error, and how many times as fast as it the map is, as beside exact methods.

    With the fit, the peer's exact results and what it makes of them count as well. Beside exact methods it stands like
    a map.
    """
    rows: dict[str, Row] = {}
    for name, peer in peers.items():
        once = f"{name}, pass"
        rows[name] = {
            "solves": peer.exact_solves,
            "error": erring(problem, p, peer(p)),
            "after": timings.ratio(name, "evaluation"),
            "with the fit": timings.ratio(once, "pass"),
        }
        for key in exact:
            rows[name] |= {
                f"{key}: after": timings.ratio(key, name),
                f"{key}: with the fit": timings.ratio(key, once),
                f"{key}: pays": timings.break_even(once, key, name, len(p), instead=name),
            }
    return rows


def inverse_problem(users: int = 8, spread: float = 30e-9, seed: int = 0) -> Posed:
    """Name, problem and parameters of `inverse`, for any draw of the channel."""
    channel = nm.wireless.cdl("C", users=users, delay_spread=spread, base_antennas=_panel(users), seed=seed)
    name = f"inverse {4 * users} x {4 * users}, {spread * 1e9:g} ns"
    return name, nm.Problem(channel.gram(_NOISE), nm.Inverse()), channel.frequencies


def svd_problem(model: str = "C", spread: float = 30e-9, seed: int = 0) -> Posed:
    """Name, problem and parameters of `svd`, for any draw of the channel."""
    antennas = {"user_antennas": (2, 4, 2), "direction": "downlink"}
    channel = nm.wireless.cdl(model, delay_spread=spread, seed=seed, **antennas)
    return f"SVD CDL-{model}, {spread * 1e9:g} ns", nm.Problem(channel, nm.SVD(rank=4)), channel.frequencies


def lmmse_problem(streams: int = 32, seed: int = 0) -> Posed:
    """Name, problem and parameters of `lmmse`, for any draw of the channel."""
    antennas = {"user_antennas": 1, "user_pattern": "omni"} if streams == 8 else {}
    channel = nm.wireless.cdl("C", users=8, delay_spread=30e-9, seed=seed, **antennas)
    problem = nm.Problem(channel, nm.LMMSE(noise=_NOISE))
    return f"LMMSE 64 x {channel.shape[1]}", problem, channel.frequencies


def inverse(
    users: int = 8,
    spread: float = 30e-9,
    tol: float = 1e-4,
    rounds: int = 9,
    tones: int | None = None,
    judged: bool = True,
    interpolated: bool = True,
) -> Row:
    """The inverse of the regularised Gram matrix of a CDL-C uplink, four antennas a user."""
    name, problem, p = inverse_problem(users, spread)
    p = p[:tones]
    A = problem.family(p)
    arrays = list(A.numpy())
    exact = {
        "NumPy loop": lambda: [np.linalg.inv(a) for a in arrays],
        "Cholesky": lambda: solvers.torch_cholesky(A),
    }
    return measured(name, problem, p, tol, exact, rounds, judged, interpolated)


def svd(model: str = "C", spread: float = 30e-9, tol: float = 1e-3, rounds: int = 7, tones: int | None = None) -> Row:
    """The four leading singular triplets of a 16 x 64 downlink."""
    name, problem, p = svd_problem(model, spread)
    p = p[:tones]
    H = problem.family(p)
    arrays = list(H.numpy())
    exact = {
        "NumPy loop": lambda: [np.linalg.svd(h, full_matrices=False) for h in arrays],
        "Gram": lambda: solvers.svd_by_gram(H, 4),
    }
    return measured(name, problem, p, tol, exact, rounds)


def lmmse(streams: int = 32, tol: float = 1e-2, rounds: int = 9, tones: int | None = None) -> Row:
    """The LMMSE filter of a 64-antenna uplink with 8 or 32 streams."""
    name, problem, p = lmmse_problem(streams)
    p = p[:tones]
    H = problem.family(p)
    return measured(name, problem, p, tol, {"Cholesky": lambda: nm.peers.torch_lmmse(H, _NOISE)}, rounds)


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
            # The load is made on purpose; the question is that of the NumPy loop.
            row = inverse(tol=1e-3, rounds=rounds, tones=tones, judged=not processes, interpolated=False)
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
        if isinstance(value, dict):
            return "; ".join(f"{key} {text(x)}" for key, x in value.items())
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
