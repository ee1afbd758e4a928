"""More interpolation of exact solutions: with a stretch, proper orthogonal decompositions, and radial functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator, make_interp_spline
from scipy.spatial.distance import cdist
from torch import Tensor

from neumatc import checks, lowrank, polynomials, sampling
from neumatc import peers as of_library
from neumatc.peers import Peer
from neumatc.peers.base import Solved, builder, solve
from neumatc.peers.interpolation import equispaced
from neumatc.problem import Problem

# Degree of the polynomial that each kernel needs beside it. The multiquadric has a shape parameter, in units of the
# box, which is judged by so many random combinations of the entries.
_KERNELS = {"linear": 0, "thin_plate_spline": 1, "cubic": 1, "quintic": 2, "multiquadric": 0}
_SHAPES, _JUDGED = tuple(2 ** (k / 2) for k in range(-2, 8)), 64


def chebyshev(problem: Problem, budget: int) -> Peer:
    """Interpolate at Chebyshev points, with the stretch that the closed form chooses for as many solves.

    Args:
        problem: An operation with one factor, of one parameter.
        budget: N, the exact solves.

    Returns:
        The peer, of N terms.

    Raises:
        ValueError: As `nm.peers.chebyshev`.
    """
    stretch = sampling.widest_stretch(budget, polynomials.penalty(problem.family.dtype))
    return of_library.chebyshev(problem, budget, stretch=stretch)


@builder(axis=True)
def pod_spline(problem: Problem, budget: int, rank: int) -> Peer:
    """Proper orthogonal decomposition of equally spaced snapshots, a cubic spline through its coefficients (SciPy).

    The snapshots are projected onto their ``rank`` leading singular vectors; real and imaginary parts side by side, so
    that the coefficients are real.

    Args:
        problem: An operation with one factor, of one parameter.
        budget: N, the exact solves, at least 4.
        rank: Terms to keep, at most N of them.

    Returns:
        The peer, of min(rank, N) terms.

    Raises:
        ValueError: For several factors or parameters, too small a budget or rank, or too few exact solutions that
            succeed.
    """
    rank = checks.integer("rank", rank, 1)
    solved = solve(problem, equispaced(problem, budget, 4), 4)
    Y, modes, _ = _pod(solved.rows, rank)
    through = make_interp_spline(solved.x[:, 0].cpu().numpy(), Y.cpu().numpy())
    return solved.map("pod_spline", lambda x: through(x[:, 0].cpu().numpy()), modes)


@builder()
def rbf(
    problem: Problem,
    budget: int,
    *,
    kernel: str = "quintic",
    scales: Sequence[float] | None = None,
    seed: int = 0,
) -> Peer:
    r"""Radial basis functions through the whole matrices at a scattered design (SciPy), for any number of parameters.

    SciPy gives the N cardinal functions, in double precision; they multiply the exact solutions, in the precision of
    the family. It uses a polynomial of the least degree that the kernel allows: higher ones made our tests worse.

    The multiquadric is -sqrt(1 + (epsilon r)^2), r the distance in the unit cube, and epsilon, from 1/2 to 11 in steps
    of the root of two, the one of least leave-one-out error. That takes no fit for each point: without point i the
    interpolant errs there by

    .. math:: e_i = (K^{-1} F)_i / (K^{-1})_{ii},

    K the interpolation matrix, bordered by the polynomial, and F the values (Rippa, Adv. Comput. Math. 11, 1999, doi
    10.1023/A:1018975909870). Its mean square over the points is judged on 64 random combinations of the entries.

    Args:
        problem: An operation with one factor.
        budget: N, the exact solves.
        kernel: ``"linear"``, ``"thin_plate_spline"``, ``"cubic"`` or ``"quintic"``, those without a length scale, or
            ``"multiquadric"``, whose scale is tuned.
        scales: Positive factors of the unit cube's axes, by which r is measured: less than 1 for a parameter in which
            the solutions are smoother than in the others. Default: 1 for all.
        seed: Seed of the design, that of `sampling.design`.

    Returns:
        The peer, of N terms (of the multiquadric no more than a matrix has numbers). Its details: ``shape``, epsilon.

    Raises:
        ValueError: For several factors, another kernel, a budget below the number of polynomial terms, scales that are
            not positive or not one for each parameter, or too few exact solutions that succeed.
    """
    d = problem.family.dimension
    scales = [checks.number("scales", a, above=0) for a in checks.each("scales", 1 if scales is None else scales, d)]
    solved = _scattered(problem, budget, kernel, seed)
    values, S = solved.rows, None
    weights = torch.eye(len(values), dtype=torch.float64)
    if kernel == "multiquadric":  # its cardinal functions lose digits where its matrix is ill-conditioned
        weights, values, S = _pod(values, len(values))
    basis, details = _radial(solved, weights, S, kernel, scales)
    return solved.map(f"rbf {kernel}", basis, values, **details)


@builder()
def pod_regression(problem: Problem, budget: int, rank: int, *, kernel: str = "quintic", seed: int = 0) -> Peer:
    """Proper orthogonal decomposition of scattered snapshots, radial basis functions through its coefficients.

    As `rbf` with ``rank`` terms instead of N; with N it is the same map, since interpolation is linear in the values.
    Radial functions, since least-squares polynomials of total degree were several times less accurate from as many
    snapshots, at their best degree, in two and three parameters.

    Args:
        problem: An operation with one factor.
        budget: N, the exact solves.
        rank: Terms to keep, at most N of them.
        kernel, seed: As for `rbf`.

    Returns:
        The peer, of min(rank, N) terms. Its details: as for `rbf`.

    Raises:
        ValueError: As `rbf`; for a rank below 1.
    """
    rank = checks.integer("rank", rank, 1)
    solved = _scattered(problem, budget, kernel, seed)
    Y, modes, S = _pod(solved.rows, rank)
    basis, details = _radial(solved, Y, S, kernel)
    return solved.map("pod_regression", basis, modes, **details)


def _scattered(problem: Problem, budget: int, kernel: str, seed: int) -> Solved:
    family = problem.family
    checks.choice("kernel", kernel, tuple(_KERNELS))
    needed = math.comb(family.dimension + _KERNELS[kernel], family.dimension)
    x, _ = sampling.design(checks.integer("budget", budget, needed), family.dimension, checks.seed(seed))
    return solve(problem, family.box.parameters(x), needed)


def _radial(
    solved: Solved, Y: Tensor, sizes: Tensor | None, kernel: str, scales: Sequence[float] = (1.0,)
) -> tuple[Callable[[Tensor], np.ndarray], dict[str, float]]:
    """Interpolate Y, with the shape parameter that suits Y times the sizes best; and that parameter."""

    def scaled(x: Tensor) -> np.ndarray:
        return (1 + x.cpu().numpy()) / 2 * scales

    x, details = scaled(solved.x), {}
    if kernel == "multiquadric":
        details["shape"] = min(_SHAPES, key=_left_out(x, (Y * sizes).cpu().numpy()))
    through = RBFInterpolator(x, Y.cpu().numpy(), kernel=kernel, epsilon=details.get("shape", 1.0))
    return lambda x: through(scaled(x)), details


def _left_out(x: np.ndarray, values: np.ndarray) -> Callable[[float], float]:
    """Return the mean square leave-one-out error of multiquadrics, a function of the shape parameter."""
    if values.shape[1] > _JUDGED:
        values = values @ np.random.default_rng(0).standard_normal((values.shape[1], _JUDGED))
    squares, ones = cdist(x, x, "sqeuclidean"), np.ones((len(x), 1))

    def error(shape: float) -> float:
        try:
            inverse = np.linalg.inv(np.block([[-np.sqrt(1 + shape**2 * squares), ones], [ones.T, 0]]))[:-1, :-1]
        except np.linalg.LinAlgError:
            return math.inf
        mean = np.mean(((inverse @ values) / np.diagonal(inverse)[:, None]) ** 2)
        return float(np.nan_to_num(mean, nan=np.inf))

    return error


def _pod(values: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return coordinates Y (N, r), orthonormal and in double precision, modes (r, M) of rows, and the sizes (r,)."""
    Y, modes, S = (x[0] for x in lowrank.pod(values[None], values.new_ones(len(values), dtype=torch.float64), rank))
    return Y, modes, S[: Y.shape[1]]
