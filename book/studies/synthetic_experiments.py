"""Chapter *Synthetic experiments*: difficulty, growth of the cost, the paper's training.

    python -m studies.synthetic_experiments [difficulty|size|terms|... ...]   errors and counts -> the record
    python -m studies.synthetic_experiments --timings                  ratios of times, on an idle machine, -> another

Both are published records, and no part of `make book`. A part that is named is taken anew, and the others are kept.
Errors and counts do not depend on what else the machine does; ratios of times do, and stand in a record of their own.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import skfem
import torch
from scipy.linalg import eigh
from scipy.stats import t as student
from skfem.helpers import dot, grad
from torch import Tensor

import neumatc as nm
from neumatc.failure import FailureEstimate
from studies import interpolants, provenance, solvers
from studies.benchmark import compare, eckart_young, relative_error
from studies.provenance import Record

CHAPTER, TIMINGS = "synthetic_experiments", "synthetic_timings"
COMMAND = f"python -m studies.{CHAPTER}"
DOUBLE = torch.float64
SEEDS = 5
TOL = 1e-3
# The rank of the one map for the whole box: that of the chapters on training.
RANK = 24
# Solves of a rational or spline peer beyond these cost more than they tell: the peers get those of our fit, at most.
MOST_PEER = 512
# The greedy algorithm judges 128 parameters for every solution it takes.
MOST_BASIS = 32
# Random parameters at which errors are measured.
CHECKED = 200
# What several parameters may cost before a fit gives up.
MOST_SOLVES = 1000
# Resonances in the band of the vibrating chain, and their damping.
MODES, DAMPING = 6, 0.01
# Distance of the poles of the inverse from the interval of length one.
POLE = 0.02
# How far the sum of the random terms is from the identity, in the spectral norm: condition numbers stay below 4.
PART = 0.6
# Steps of a training: short ones, so that five seeds and two ways of sampling fit; longer ones are in another chapter.
TRAINED = 500
# Steps of longer trainings, of which families, and the width and the frequency scale of their network: what the search
# of another chapter found for another family. Everything else is the library's default.
LONGER = {"steps": 6000, "kinds": ("oscillating", "poles", "jumps"), "width": 128, "frequency": 80.0}
# Size and steps of the trained singular value decomposition that is timed.
TIMED_SVD = {"size": 64, "steps": 600}
TITLES = {
    "smooth": "smooth",
    "oscillating": "oscillating",
    "poles": "near poles",
    "resonances": "vibrating chain",
    "kinks": "kinks",
    "jumps": "jumps",
    "decades": "decades",
    "diffusion": "diffusion",
}
KINDS = tuple(TITLES)
# Families whose leading singular vectors are asked for: the others have leading values that coincide or mean nothing.
SVD_KINDS = ("smooth", "oscillating", "kinks", "jumps")
PEERS = ("spline", "chebyshev", "aaa", "reduced basis")


# Families


def family(kind: str, size: int = 32, dimension: int = 1, *, seed: int = 0, terms: int = 4, cycles: float = 12.0):
    """Return a family of n x n matrices of one of `KINDS`, in double precision, on a box of d parameters.

    - smooth, oscillating, kinks, jumps: A = I + sum_k f_k(c_k . x) R_k, symmetric positive definite with a condition
      number below 4 for every n; f_k is a cosine of half a cycle, or of ``cycles``, a modulus, or a step.
    - poles: one eigenvalue is ((u - u_0)^2 + POLE^2) / 2, u the mean of the parameters, others at least 1/2: the
      inverse has poles at u_0 +- i POLE.
    - resonances: K - w^2 M + i w C of a chain of masses between walls, from n = 32 on `MODES` resonances in the band of
      w (the first parameter), `DAMPING` at each of them, and a dashpot; further parameters stiffen parts of the chain.
    - decades: G + sum_i p_i D_i, p_i from 1e-4 to 1e2 on logarithmic axes, G with eigenvalues over six decades.
    - diffusion: stiffness of a plate with conductivities p_i from 0.1 to 10 in d parts and 1 elsewhere, assembled by
      scikit-fem, bilinear elements.

    Args:
        kind: One of `KINDS`.
        size: n; for the diffusion a power of two.
        dimension: d, at most 4.
        seed: Of all that is random.
        terms: K.
        cycles: Cycles of the oscillating family from corner to corner of the box.
    """
    if kind not in BUILD:
        raise ValueError(f"`kind`: expected one of {', '.join(BUILD)}, got {kind!r}.")
    rng = np.random.default_rng([KINDS.index(kind), dimension, seed])
    return BUILD[kind](kind, size, dimension, rng, terms, cycles)


def _symmetric(size: int, count: int, rng: np.random.Generator) -> Tensor:
    """Return random symmetric matrices of spectral norm one."""
    G = rng.normal(size=(count, size, size))
    G = torch.as_tensor(G + G.transpose(0, 2, 1))
    return G / torch.linalg.eigvalsh(G).abs().amax(dim=1)[:, None, None]


def _profiles(kind: str, d: int, count: int, cycles: float, rng: np.random.Generator) -> Callable[[Tensor], Tensor]:
    """Return the functions f_k of x (B, d) in the unit cube, of modulus at most one, as one function to (B, K)."""
    c = torch.as_tensor(rng.dirichlet(np.ones(d), size=count).T)
    place, phase = (torch.as_tensor(rng.uniform(low, up, count)) for low, up in ((0.2, 0.8), (0, 2 * np.pi)))
    shapes = {
        "smooth": lambda u: torch.cos(np.pi * u + phase),
        "oscillating": lambda u: torch.cos(2 * np.pi * cycles * u + phase),
        "kinks": lambda u: (u - place).abs(),
        "jumps": lambda u: (u > place).to(u.dtype) - 0.5,
    }
    return lambda x: shapes[kind](x @ c)


def _sums(kind: str, size: int, d: int, rng: np.random.Generator, terms: int, cycles: float) -> nm.ParametricMatrix:
    f, R, one = _profiles(kind, d, terms, cycles, rng), _symmetric(size, terms, rng), torch.eye(size, dtype=DOUBLE)
    scale = PART / terms

    def fn(p: Tensor) -> Tensor:
        return one + scale * torch.einsum("bk,kij->bij", f(p), R)

    return nm.ParametricMatrix(fn, [0.0] * d, [1.0] * d, dtype=DOUBLE)


def _poles(kind: str, size: int, d: int, rng: np.random.Generator, terms: int, cycles: float) -> nm.ParametricMatrix:
    Q = torch.as_tensor(np.linalg.qr(rng.normal(size=(size, size)))[0])
    others, u0 = torch.as_tensor(rng.uniform(0.5, 1.5, size - 1)), rng.uniform(0.3, 0.7)
    slopes = torch.as_tensor(rng.uniform(0, 0.5, size - 1))

    def fn(p: Tensor) -> Tensor:
        u = p.mean(dim=1, keepdim=True)
        values = torch.cat([((u - u0) ** 2 + POLE**2) / 2, others + slopes * u], dim=1)
        return (Q * values[:, None, :]) @ Q.mT

    return nm.ParametricMatrix(fn, [0.0] * d, [1.0] * d, dtype=DOUBLE)


def _resonances(kind: str, size: int, d: int, rng: np.random.Generator, terms: int, cycles: float):
    # A string of length one: its resonances are near pi, 2 pi, ..., whatever the number of masses.
    springs = torch.as_tensor((size + 1) ** 2 * rng.uniform(0.95, 1.05, size + 1))
    M = torch.diag(torch.as_tensor(rng.uniform(0.95, 1.05, size)))
    dashpot = torch.zeros(size, size, dtype=DOUBLE)
    dashpot[(place := int(size * rng.uniform(0.2, 0.4))), place] = DAMPING * (size + 1)
    parts = torch.arange(size + 1) * max(1, d - 1) // (size + 1)
    B = torch.zeros(size + 1, size, dtype=DOUBLE)
    B[torch.arange(size), torch.arange(size)], B[torch.arange(size) + 1, torch.arange(size)] = 1.0, -1.0

    def fn(p: Tensor) -> Tensor:
        factor = 1 + 0.2 * p[:, 1:][:, parts] if d > 1 else torch.ones(len(p), 1, dtype=DOUBLE)
        K, w = B.T @ ((springs * factor)[:, :, None] * B), p[:, :1, None]
        # Structural damping: the same share of every resonance.
        return (1 + 2j * DAMPING) * K - w**2 * M + 1j * w * dashpot

    return nm.ParametricMatrix(fn, [1.5] + [0.0] * (d - 1), [(MODES + 0.5) * np.pi] + [1.0] * (d - 1), dtype=DOUBLE)


def _decades(kind: str, size: int, d: int, rng: np.random.Generator, terms: int, cycles: float) -> nm.ParametricMatrix:
    Q = np.linalg.qr(rng.normal(size=(size, size)))[0]
    G = torch.as_tensor((Q * np.logspace(-4, 2, size)) @ Q.T)
    part = torch.arange(size) * d // size
    return nm.ParametricMatrix(
        lambda p: (G + G.mT) / 2 + torch.diag_embed(p[:, part]), [1e-4] * d, [1e2] * d, scale="log", dtype=DOUBLE
    )


@skfem.BilinearForm
def _conduction(u, v, w):
    return w.conductivity * dot(grad(u), grad(v))


def _diffusion(kind: str, size: int, d: int, rng: np.random.Generator, terms: int, cycles: float):
    rows = 2 ** (int(math.log2(size)) // 2)
    sides = (np.linspace(0, 1, count + 1) for count in (size // rows + 1, rows + 1))
    mesh = skfem.MeshQuad.init_tensor(*sides)
    basis = skfem.Basis(mesh, skfem.ElementQuad1())
    inside = basis.complement_dofs(basis.get_dofs())
    x, y = np.asarray(basis.global_coordinates())
    middle = [(0.5 + 0.25 * i, 0.5 + 0.25 * j) for i in (-1, 1) for j in (-1, 1)][:d]
    within = [np.hypot(x - a, y - b) < rng.uniform(0.15, 0.24) for a, b in middle]
    shares = [1.0 - np.sum(within, axis=0), *(part.astype(float) for part in within)]
    parts = [_conduction.assemble(basis, conductivity=share)[inside][:, inside].toarray() for share in shares]
    parts = torch.as_tensor(np.stack(parts))

    def fn(p: Tensor) -> Tensor:
        return parts[0] + torch.einsum("bk,kij->bij", p, parts[1:])

    return nm.ParametricMatrix(fn, [0.1] * d, [10.0] * d, scale="log", dtype=DOUBLE)


BUILD: dict[str, Callable] = dict.fromkeys(("smooth", "oscillating", "kinks", "jumps"), _sums)
BUILD |= {"poles": _poles, "resonances": _resonances, "decades": _decades, "diffusion": _diffusion}


def by_pencil(matrices: nm.ParametricMatrix) -> Callable[[Tensor], Tensor]:
    """Return X(p) of a symmetric definite pencil A(p) = A_0 + p A_1, exact at every p, by one eigendecomposition.

    Of the matrices at the two ends of the box: V^T A(lower) V = I and V^T A(upper) V = diag(d) give, where t is the
    part of the way from lower to upper, X(p) = V diag(1 / (1 - t + t d)) V^T. *Decades* and *diffusion* in one
    parameter are such pencils.
    """
    ends = torch.stack([matrices.box.lower, matrices.box.upper]).to(DOUBLE)
    first, last = matrices(ends).numpy()
    d, V = (torch.from_numpy(x) for x in eigh(last, first))

    def solve(p: Tensor) -> Tensor:
        t = (p - ends[0]) / (ends[1] - ends[0])
        return (V / (1 - t + t * d)[:, None, :]) @ V.mT

    return solve


def by_eigenvectors(matrices: nm.ParametricMatrix) -> Callable[[Tensor], Tensor]:
    """Return X(p) of symmetric A(p) that share their eigenvectors, with eigenvalues of degree two, exact at every p.

    Of one eigendecomposition, and the eigenvalues at three parameters. *Near poles* in one parameter is such a family.
    """
    at = torch.lerp(matrices.box.lower, matrices.box.upper, torch.tensor([0.0, 0.5, 1.0], dtype=DOUBLE)[:, None])
    A = matrices(at)
    V = torch.linalg.eigh(A[0])[1]
    values = torch.einsum("ji,bjk,ki->bi", V, A, V)
    powers = torch.linalg.solve(at ** torch.arange(3), values)

    def solve(p: Tensor) -> Tensor:
        return (V / (p ** torch.arange(3) @ powers)[:, None, :]) @ V.mT

    return solve


# Families of one parameter that one decomposition solves at every p.
DECOMPOSED = {"poles": by_eigenvectors, "decades": by_pencil, "diffusion": by_pencil}


def spread(kind: str, size: int = 16, *, seed: int = 0) -> nm.ParametricMatrix:
    """Return a family whose columns fall by 0.7 from one to the next: its leading singular values keep apart."""
    matrices, weights = family(kind, size, seed=seed), 0.7 ** torch.arange(size, dtype=DOUBLE)
    return nm.ParametricMatrix(lambda p: matrices(p) * weights, 0.0, 1.0, dtype=DOUBLE)


# Measurements


def fresh(matrices: nm.ParametricMatrix, count: int, seed: int) -> Tensor:
    """Draw parameters uniformly on the scales of the box, none of which a fit has seen."""
    return matrices.box.uniform(count, torch.Generator().manual_seed(10_000 + seed))


def quietly(problem: nm.Problem, **settings: object) -> nm.Surrogate:
    """Fit, and leave it to the record to say what a warning would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)
        return nm.fit(problem, progress=False, **settings)


def peer(problem: nm.Problem, name: str, budget: int) -> Callable[[Tensor], Tensor]:
    """Build a peer with at most so many exact solves."""
    build = {
        "spline": nm.peers.spline,
        "chebyshev": interpolants.chebyshev,
        "aaa": nm.peers.aaa,
        "reduced basis": nm.peers.reduced_basis,
    }[name]
    return build(problem, max(4, min(budget, MOST_BASIS if name == "reduced basis" else MOST_PEER)))


def needed(exact: Tensor, tol: float) -> int:
    """Return the smallest rank whose Eckart-Young limit on these samples is at most ``tol``."""
    ranks = list(range(1, len(exact) + 1))
    return ranks[int((eckart_young(exact, ranks) > tol).sum())]


def one_difficulty(kind: str, seed: int, size: int = 32, count: int = CHECKED) -> dict[str, object]:
    """Fit the inverse of one family to the tolerance, with one map of a given rank, and by peers with as many solves.

    Returns:
        ``solves``, ``pieces``, ``terms``, ``met``, ``error`` of the fit to `TOL`; ``rank``, the smallest that any map
        of that error needs; ``whole``, the error of the map of rank `RANK`, and ``limit``, that of the best such map;
        ``peers``, their errors. Errors are relative Frobenius errors over ``count`` fresh parameters.
    """
    problem = nm.Problem(family(kind, size, seed=seed), nm.Inverse())
    p = fresh(problem.family, count, seed)
    exact = problem.exact(p).value
    fitted, whole = quietly(problem, tol=TOL, seed=seed), quietly(problem, rank=RANK, seed=seed)
    errors, solves = {}, {}
    for name in PEERS:
        built = peer(problem, name, fitted.report.exact_solves)
        errors[name], solves[name] = relative_error(built(p), exact), built.exact_solves
    return {
        **_outcome(fitted, p, exact),
        "kind": kind,
        "seed": seed,
        "rank": needed(exact, TOL),
        "whole": relative_error(whole(p), exact),
        "whole_solves": whole.report.exact_solves,
        "limit": float(eckart_young(exact, RANK)),
        "peers": errors,
        "peer_solves": solves,
    }


def one_condition(kind: str, seed: int, size: int) -> dict[str, object]:
    """Return the largest condition number, in the spectral norm, of a family at `CHECKED` fresh parameters."""
    own = family(kind, size, seed=seed)
    found = torch.linalg.cond(own(fresh(own, CHECKED, seed))).max()
    return {"kind": kind, "seed": seed, "size": size, "condition": float(found)}


def _outcome(fitted: nm.Surrogate, p: Tensor, exact: Tensor) -> dict[str, object]:
    return {
        "solves": fitted.report.exact_solves,
        "pieces": len(fitted.pieces),
        "terms": fitted.report.rank,
        "met": fitted.report.met,
        "error": relative_error(fitted(p), exact),
    }


def one_growth(kind: str, seed: int, *, tol: float = TOL, count: int = 64, **settings: object) -> dict[str, object]:
    """Fit one inverse to a tolerance; return ``settings`` of `family`, what it took, as ``rank`` the map's terms."""
    problem = nm.Problem(family(kind, seed=seed, **settings), nm.Inverse())
    fitted = quietly(problem, tol=tol, seed=seed, budget=MOST_SOLVES)
    p = fresh(problem.family, count, seed)
    found = _outcome(fitted, p, problem.exact(p).value)
    return {"kind": kind, "seed": seed, "rank": found.pop("terms"), **found, **settings}


@dataclass(frozen=True)
class UniformSampling(nm.FailureInformedSampling):
    """The same estimate of the failure probability, but points that join training are uniform, not those that fail."""

    def estimate(
        self, residual: Callable, tolerance: float, box: object, generator: torch.Generator
    ) -> FailureEstimate:
        """Estimate as before, and put as many uniform points in the place of those where the residual fails."""
        found = super().estimate(residual, tolerance, box, generator)
        if not len(found.failures):
            return found
        points = box.uniform(len(found.failures), generator)
        return FailureEstimate(found.probability, found.standard_error, points, found.candidates, found.residuals)


SAMPLINGS = {"informed": nm.FailureInformedSampling, "uniform": UniformSampling}


def one_training(
    kind: str,
    seed: int,
    *,
    operation: str = "inverse",
    sampling: str = "informed",
    steps: int = TRAINED,
    size: int = 16,
    longer: bool = False,
) -> dict[str, object]:
    """Train as the paper does, beside the closed form and the limit of the same rank.

    Args:
        kind: Of the family.
        seed: Of family and training.
        operation: ``"inverse"`` or ``"SVD"``.
        sampling: A key of `SAMPLINGS`.
        steps: Of the training.
        size: n.
        longer: The network of `LONGER` and the library's own settings, instead of a small network and few points.

    Returns:
        ``error`` of the trained map, ``worst`` of one parameter, ``failing``, the share of fresh parameters with a
        residual above 0.1, ``points``, collocation points at the end, ``closed``, the error of the closed form, and
        ``limit``. Those of an SVD are of U S V^H with `RANK` replaced by half of it, and the limit is of that product.
    """
    if operation == "inverse":
        problem, rank = nm.Problem(family(kind, size, seed=seed), nm.Inverse()), RANK
    else:
        problem, rank = nm.Problem(spread(kind, size, seed=seed), nm.SVD(rank=4)), RANK // 2
    # No early end, few points to start from: all variants take the same steps, and additions matter.
    few = {
        "batch": 32,
        "collocation": 2 * rank,
        "rounds": 5,
        "added": rank // 2,
        "sampling": SAMPLINGS[sampling](candidates=100, samples=200, stages=3),
    }
    network = nm.SinusoidalMLP(1, *((LONGER["width"], LONGER["frequency"]) if longer else (64, 20.0)))
    method = nm.ResidualTraining(network, steps=steps, failure_probability=0.0, **({} if longer else few))
    p = fresh(problem.family, 200, seed)
    exact = product(problem.exact(p).value)
    trained = quietly(problem, rank=rank, method=method, seed=seed)
    closed = quietly(problem, rank=rank, seed=seed)
    found, residuals = product(trained(p)), problem.residual(p, trained(p))
    own = ((found - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).max()
    return {
        "kind": kind,
        "seed": seed,
        "operation": operation,
        "sampling": sampling,
        "steps": steps,
        "error": relative_error(found, exact),
        "worst": float(own),
        "failing": float((residuals > 0.1).double().mean()),
        "points": trained.report.collocation,
        "closed": relative_error(product(closed(p)), exact),
        "limit": float(eckart_young(exact, rank)),
    }


def timed_training(size: int, steps: int, seed: int = 0) -> tuple[nm.Problem, Callable[[], nm.Surrogate]]:
    """Return the problem of the trained SVD that is timed, and what trains its map of rank 12."""
    problem = nm.Problem(spread("smooth", size, seed=seed), nm.SVD(rank=4))
    method = nm.ResidualTraining(nm.SinusoidalMLP(1, 64, 20.0), steps=steps, batch=32, collocation=32, rounds=1)
    return problem, lambda: quietly(problem, rank=RANK // 2, method=method, seed=seed)


def one_timed_svd(seed: int, size: int = TIMED_SVD["size"], steps: int = TIMED_SVD["steps"]) -> dict[str, object]:
    """Return the error of the product U S V^H of the trained SVD that is timed, and the limit of its rank."""
    problem, train = timed_training(size, steps, seed)
    p = fresh(problem.family, CHECKED, seed)
    exact = product(problem.exact(p).value)
    error, limit = relative_error(product(train()(p)), exact), float(eckart_young(exact, RANK // 2))
    return {"kind": "smooth", "seed": seed, "size": size, "steps": steps, "error": error, "limit": limit}


def product(value: object) -> Tensor:
    """Return a matrix as it is, and an SVD as U S V^H, which no phase changes."""
    return value if isinstance(value, Tensor) else (value[0] * value[1][:, None, :]) @ value[2]


# Statistics


def quartiles(values: Iterable[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile."""
    return tuple(np.quantile(list(values), [0.25, 0.5, 0.75]).tolist())


def exponent(x: Sequence[float], y: Sequence[float], *, level: float = 0.95) -> tuple[float, float, float]:
    r"""Fit :math:`y = c\,x^a` by least squares in log-log, and return a with its interval: (low, a, high).

    The interval is Student's for independent errors of the same size of log y, at the given ``level``. It says how well
    the points determine the slope, not whether a power law is right.

    Raises:
        ValueError: For fewer than three points, one x only, or values that are not positive.

    Example:
        >>> low, a, high = exponent([1, 2, 4, 8], [3, 12, 48, 192])
        >>> round(low, 6), round(a, 6), round(high, 6)
        (2.0, 2.0, 2.0)
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 3 or len(x) != len(y) or (x <= 0).any() or (y <= 0).any() or np.ptp(x) == 0:
        raise ValueError(f"`x`, `y`: expected three or more pairs of positive numbers, got {len(x)} and {len(y)}.")
    u, v = np.log(x) - np.log(x).mean(), np.log(y) - np.log(y).mean()
    a = float(u @ v / (u @ u))
    half = float(student.ppf((1 + level) / 2, len(x) - 2) * np.sqrt((v - a * u) @ (v - a * u) / (len(x) - 2) / (u @ u)))
    return a - half, a, a + half


# The study

# What grows, over which values, for which kinds, with which other settings.
STEPS = {
    "size": ((16, 32, 64, 128, 256, 512), ("smooth", "poles", "diffusion"), {}),
    "terms": ((1, 4, 16, 32), ("smooth", "oscillating", "kinks"), {"size": 32}),
    "cycles": ((2, 4, 8, 16, 32), ("oscillating",), {"size": 32}),
    "dimension": ((1, 2, 3, 4), ("smooth", "poles", "decades", "diffusion"), {"size": 16, "tol": 1e-2}),
}
AXES = {"size": "size n", "terms": "terms K of A", "cycles": "cycles", "dimension": "parameters d"}


def take_difficulty(seed: int, kinds: Sequence[str] = KINDS) -> list[dict]:
    """All families, d = 1."""
    return [_said(one_difficulty(kind, seed)) for kind in kinds]


def take_condition(seed: int) -> list[dict]:
    """The largest condition number of each family at fresh parameters; of the chain for large matrices, too."""
    return [_said(one_condition(kind, seed, size)) for kind, size in [*((k, 32) for k in KINDS), ("resonances", 128)]]


def take_growth(seed: int, name: str) -> list[dict]:
    """What fits to a tolerance take as something grows: a key of `STEPS`."""
    values, kinds, settings = STEPS[name]
    return [_said(one_growth(kind, seed, **{name: value}, **settings)) for value in values for kind in kinds]


def take_training(seed: int, operation: str, sampling: str) -> list[dict]:
    """The paper's training on all families that the operation applies to."""
    kinds = KINDS if operation == "inverse" else SVD_KINDS
    return [_said(one_training(kind, seed, operation=operation, sampling=sampling)) for kind in kinds]


def take_longer(seed: int, kinds: Sequence[str] = LONGER["kinds"], steps: int = LONGER["steps"]) -> list[dict]:
    """Longer trainings of some inverses, of the first seed alone."""
    return [_said(one_training(kind, seed, steps=steps, longer=True)) for kind in kinds if seed == 0]


def _said(row: dict) -> dict:
    print({key: value for key, value in row.items() if not isinstance(value, dict)}, flush=True)
    return row


PARTS: dict[str, Callable[[int], list[dict]]] = {
    "difficulty": take_difficulty,
    "condition": take_condition,
    **{name: partial(take_growth, name=name) for name in STEPS},
    "training": partial(take_training, operation="inverse", sampling="informed"),
    "longer": take_longer,
    "ablation": partial(take_training, operation="inverse", sampling="uniform"),
    "training_svd": partial(take_training, operation="SVD", sampling="informed"),
    "ablation_svd": partial(take_training, operation="SVD", sampling="uniform"),
    "timed_svd": lambda seed: [_said(one_timed_svd(seed))],
}


def _rows(part: str, seed: int) -> list[dict]:
    return PARTS[part](seed)


def study(parts: Sequence[str] = tuple(PARTS), workers: int = 1) -> Path:
    """Take parts of the study, seed by seed, and write the record of all that were taken.

    Parts may run in processes of their own at the same time: each keeps what it has in a file of its own; and so may
    seeds, in ``workers`` processes. Parts that are taken later than the record have their own provenance, ``anew``.
    """
    record = Record(CHAPTER, profile="cpu", device="cpu", seed=0)
    record.provenance["command"] = COMMAND
    taken: dict[str, list[dict]] = {part: [] for part in parts}
    # All parts of a seed first: what is stopped early has few seeds, and no part without.
    tasks = [(part, seed) for seed in range(SEEDS) for part in parts]
    with ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn"))) if workers > 1 else None
        for (part, _), rows in zip(tasks, (pool.map if pool else map)(_rows, *zip(*tasks))):
            taken[part] += rows
            path = _part_path(part)
            path.parent.mkdir(parents=True, exist_ok=True)
            source = record.provenance | {"command": f"{COMMAND} {part}"}
            content = {"source": source, "rows": provenance.plain(taken[part], part)}
            path.write_text(json.dumps(content), "utf-8")
    if set(parts) < set(PARTS) and provenance.published_path(CHAPTER).with_suffix(".json").is_file():
        record = provenance.load(CHAPTER)
    here = {part: json.loads(_part_path(part).read_text("utf-8")) for part in PARTS if _part_path(part).is_file()}
    found = record.numbers | {part: content["rows"] for part, content in here.items()}
    record.numbers = {part: found[part] for part in PARTS if part in found}
    later = {x: own["source"] for x, own in here.items() if own["source"]["date"] != record.provenance["date"]}
    record.provenance["anew"] = record.provenance.get("anew", {}) | later
    return provenance.keep(record)


def _part_path(part: str) -> Path:
    return provenance.root() / "_build" / "runs" / "study" / f"{CHAPTER}_{part}.json"


# Times


def strongest(A: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the fastest exact inverse for such matrices: Cholesky if definite, else NumPy's LU, on all threads."""
    definite = not A.is_complex() and bool((torch.linalg.cholesky_ex(A)[1] == 0).all())
    return solvers.torch_cholesky if definite else solvers.numpy_batched


# An exact method that decomposes a family once, and not each of its matrices.
ONCE = "decomposed once"


def quickest(row: dict) -> dict:
    """Return the ratios of a row of times over the fastest exact method: the loop may be it, or one decomposition.

    Where another one was refused, those over the method that is named the strongest.

    Example:
        >>> loop, exact, once = ({"after": (x, x, x)} for x in (4.4, 5.5, 0.9))
        >>> quickest({"NumPy loop": loop, "strongest exact": exact})["after"][1]
        4.4
        >>> quickest({"NumPy loop": loop, "strongest exact": exact, ONCE: once})["after"][1]
        0.9
    """
    best = row["strongest exact"]
    for way in ("NumPy loop", ONCE):
        best = row[way] if way in row and row[way]["after"][1] < best["after"][1] else best
    return best


def timed(problem: nm.Problem, surrogate: nm.Surrogate, refit: Callable, exact: dict, count: int, rounds: int) -> dict:
    """Time evaluation, fit and exact methods in alternating rounds; return quartiles of the ratios of each round.

    The exact methods are given the matrices, as in all other studies, while a fit forms its own; so does what
    decomposes a family once, which is given the parameters, and decomposes anew in each pass.
    """
    p = fresh(problem.family, count, 0)
    row = timed_at(p, problem, surrogate, refit, exact, rounds=rounds)
    return row | {"solves": surrogate.report.exact_solves, "terms": surrogate.report.rank}


def timed_at(
    p: Tensor, problem: nm.Problem, surrogate: nm.Surrogate, refit: Callable, exact: dict, **how: object
) -> dict:
    """Do what `timed` does at parameters that are given; ``how`` is for `benchmark.compare`."""
    A, count, candidates = problem.family(p), len(p), {"evaluation": lambda: surrogate(p), "fit": refit}
    given = {name: p if name == ONCE else A for name in exact}
    timings = compare(candidates | {name: (lambda f=f, x=given[name]: f(x)) for name, f in exact.items()}, **how)
    row = {"count": count, "conditions": timings.conditions}
    for name in exact:
        row[name] = {
            "after": timings.ratio(name, "evaluation"),
            "with the fit": timings.ratio(name, ("evaluation", "fit")),
            "pays": timings.break_even("fit", name, "evaluation", count),
        }
    return row


def timed_inverse(kind: str, size: int, count: int = 400, rounds: int = 7) -> dict[str, object]:
    """Time the fit of an inverse to `TOL`."""
    problem = nm.Problem(family(kind, size), nm.Inverse())
    surrogate = quietly(problem, tol=TOL)
    best = strongest(problem.family(fresh(problem.family, 2, 0)))
    exact = {"NumPy loop": solvers.numpy_loop, "strongest exact": best}
    if kind in DECOMPOSED:
        exact[ONCE] = lambda p: DECOMPOSED[kind](problem.family)(p)
    row = timed(problem, surrogate, lambda: quietly(problem, tol=TOL), exact, count, rounds)
    return {"kind": kind, "size": size, "method": best.__name__, **row}


def timed_svd(
    size: int = TIMED_SVD["size"], count: int = 400, rounds: int = 5, steps: int = TIMED_SVD["steps"]
) -> dict[str, object]:
    """Time the paper's SVD: a map of rank 12 after a short training, which takes as long to evaluate as a good one.

    Its error is in the record of errors, as the part ``timed_svd``.
    """
    problem, train = timed_training(size, steps)
    exact = {"NumPy loop": solvers.svd_loop, "strongest exact": lambda A: solvers.svd_by_gram(A, 4)}
    row = timed(problem, train(), train, exact, count, rounds)
    return {"kind": "smooth", "size": size, "method": "svd_by_gram", "steps": steps, **row}


def timings(kinds: Sequence[str] = KINDS, sizes: Sequence[int] = (16, 32, 64, 128, 256, 512)) -> Path:
    """Take the ratios of times, and publish them; those that were refused are NaN."""
    record = Record(TIMINGS, profile="cpu", device="cpu", seed=0)
    record.provenance["command"] = f"{COMMAND} --timings"
    record.numbers["difficulty"] = [_said(timed_inverse(kind, 32)) for kind in kinds]
    counts = {size: max(32, min(400, 2**21 // size**2)) for size in sizes}
    record.numbers["size"] = [_said(timed_inverse("smooth", n, counts[n], 5)) for n in sizes]
    record.numbers["svd"] = _said(timed_svd())
    return provenance.keep(record)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Take the study of synthetic families.")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--workers", type=int, default=1, help="processes that take seeds side by side")
    parser.add_argument("--timings", action="store_true", help="ratios of times instead; needs an idle machine")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"parts: expected some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    print((timings() if given.timings else study(given.parts or tuple(PARTS), given.workers)).name)


if __name__ == "__main__":
    main()
