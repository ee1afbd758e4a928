"""Interpolation of exact solutions, entry by entry: the linear maps X(p) = sum_k phi_k(p) X_k with a known basis phi.

The basis is computed in double precision, since it is small and its digits are those of the result; the product runs in
the precision of the family, and in real arithmetic where the basis is real, as for a learned map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg
import torch
from scipy.interpolate import BSpline, RBFInterpolator, make_interp_spline
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist
from torch import Tensor

from neumatc import checks, linalg, lowrank, sampling
from neumatc.peers.base import Peer, from_unit, linear, one_parameter, rows, scattered, solve, timed, unit
from neumatc.problem import Problem

# Degree of the polynomial that each kernel needs beside it. The multiquadric has a shape parameter, in units of the
# box, which is judged by so many random combinations of the entries.
_KERNELS = {"linear": 0, "thin_plate_spline": 1, "cubic": 1, "quintic": 2, "multiquadric": 0}
_SHAPES, _JUDGED = tuple(2 ** (k / 2) for k in range(-2, 8)), 64


@timed
def chebyshev(
    problem: Problem, budget: int, *, stretch: float | Sequence[float] = 0.0, sides: Sequence[int] | None = None
) -> Peer:
    r"""Interpolate the whole matrix by polynomials at the tensor grid of Chebyshev points of the first kind.

    .. math:: X(p) = \sum_{k_1 < m_1, ..., k_d < m_d} C_k \prod_{i=1}^d T_{k_i}(x_i),
              \qquad m_i = \lfloor N^{1/d} \rfloor \text{ unless given},

    x the parameters scaled to [-1, 1]^d, or with a stretch a, sin(x_i arcsin a) / a in their place, whose nodes are
    nearer to equal spacing and serve oscillations with fewer of them (Kosloff and Tal-Ezer, J. Comput. Phys. 104,
    1993). Spectrally accurate for analytic families (Trefethen, Approximation Theory and Approximation Practice, SIAM
    2013). Where solves failed, the interpolant of the others whose coefficients are smallest in a norm that doubles
    with each degree.

    Args:
        problem: An operation with one factor.
        budget: N, at most so many exact solves; as many as the grid has nodes are used.
        stretch: a, from 0 (plain polynomials) to below 1, as in `nm.Chebyshev`; for all parameters or for each.
        sides: Nodes m_i in each direction, at most N in all. Default: equally many.

    Returns:
        The peer, of as many terms as nodes.

    Raises:
        ValueError: For several factors, a budget below 1 or less than the grid, numbers of sides or stretches that are
            not that of the parameters, or no exact solution that succeeds.
    """
    family, d = problem.family, problem.family.dimension
    budget = checks.integer("budget", budget, 1)
    stretches = (stretch,) * d if np.ndim(stretch) == 0 else _each("stretch", stretch, d)
    stretches = [checks.number("stretch", a, at_least=0, below=1) for a in stretches]
    if sides is None:
        m = round(budget ** (1 / d))
        sides = [m - (m**d > budget)] * d
    sides = [checks.integer("sides", m, 1) for m in _each("sides", sides, d)]
    if math.prod(sides) > budget:
        raise ValueError(f"`sides`: expected at most {budget} nodes in all, got {math.prod(sides)}; raise `budget`.")
    nodes = [-sampling.design(m, 1, stretch=a)[0][:, 0] for m, a in zip(sides, stretches)]
    x = (1 + torch.cartesian_prod(*nodes).view(-1, d)) / 2
    p, X, failed = solve(problem, from_unit(family, x), 1)

    def basis(x: Tensor) -> Tensor:
        phi = x.new_ones(len(x), 1)
        for y, m, a in zip((2 * x - 1).T, sides, stretches):
            y = torch.sin(y * math.asin(a)) / a if a else y
            phi = (phi[:, :, None] * polynomials(y, m)[:, None, :]).flatten(1)
        return phi

    V = basis(unit(family, p))
    if failed:
        degrees = torch.cartesian_prod(*[torch.arange(m, device=family.device) for m in sides]).view(-1, d).sum(dim=1)
        decay = 0.5 ** degrees.double()
        inverse = decay[:, None] * torch.linalg.pinv(V * decay)
    else:  # at nodes rounded to the precision of p the columns are not quite orthogonal
        inverse = linalg.inverse(V[None])[0][0]
    return linear("chebyshev", problem, X, failed, basis, inverse @ rows(X).double())


@timed
def spline(problem: Problem, budget: int, degree: int = 3, grid: Tensor | None = None) -> Peer:
    """Spline through the whole matrices at equally spaced parameters (SciPy, not-a-knot).

    Its map has rank N, but only ``degree + 1`` terms differ from zero at any one parameter, and no more are summed on
    the CPU.

    Args:
        problem: An operation with one factor, of one parameter.
        budget: N, the exact solves, at least ``degree + 1``.
        degree: 3, 1 for linear interpolation, or 0 to hold each solution over one of N equal pieces of the box, in
            whose middle it was computed.
        grid: Where solutions can be had, such as the subcarriers, shape (M, 1); the parameters nearest to the equally
            spaced ones are taken, coinciding ones once. Default: anywhere.

    Returns:
        The peer, of N terms.

    Raises:
        ValueError: For several factors or parameters, another degree, too small a budget, a grid of another shape or
            outside the box, or too few exact solutions that succeed.
    """
    if degree not in (0, 1, 3):
        raise ValueError(f"`degree`: expected 0 (held), 1 (linear) or 3 (cubic), got {degree!r}.")
    p = _equispaced(problem, budget, degree + 1, middles=degree == 0)
    if grid is not None:
        grid = checks.points(grid, problem.family.lower, problem.family.upper)
        p = grid[torch.cdist(p.double(), grid.double()).argmin(dim=1).unique_consecutive()]
    p, X, failed = solve(problem, p, degree + 1)
    if degree == 0:
        edges = (unit(problem.family, p[1:]) + unit(problem.family, p[:-1])) / 2

        def held(x: Tensor) -> csr_array:
            columns = torch.searchsorted(edges[:, 0].contiguous(), x[:, 0].contiguous()).cpu().numpy()
            return csr_array((np.ones(len(x)), columns, np.arange(len(x) + 1)), shape=(len(x), len(p)))

        return linear("held", problem, X, failed, held, rows(X))
    through = _spline(problem, p, rows(X), degree)

    def basis(x: Tensor) -> csr_array:
        return BSpline.design_matrix(x[:, 0].cpu().numpy(), through.t, degree, extrapolate=True)

    return linear(f"spline of degree {degree}", problem, X, failed, basis, torch.from_numpy(through.c))


@timed
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
    p, X, failed = solve(problem, _equispaced(problem, budget, 4), 4)
    Y, modes, _ = _pod(rows(X), rank)
    through = _spline(problem, p, Y, 3)
    return linear("pod_spline", problem, X, failed, lambda x: through(x[:, 0].cpu().numpy()), modes)


@timed
def aaa(problem: Problem, budget: int, *, terms: int = 100, rtol: float | None = None) -> Peer:
    r"""Rational interpolation by the set-valued AAA algorithm: one denominator for all entries.

    .. math:: X(p) = \sum_{j=1}^m \frac{w_j}{x - x_j} X(p_j) \Big/ \sum_{j=1}^m \frac{w_j}{x - x_j},

    from exact solutions at equally spaced parameters. Support points x_j are added where the error at the samples is
    largest; the weights w minimise the linearised error at the others (the last right singular vector of the Loewner
    matrix, which is formed from the samples in an orthonormal basis, where it is small). Weights are real: the
    product then costs half, and complex ones gained little or (Hermitian families) nothing. Of all m, the one with
    the smallest error at the samples is taken among those without a pole on the interval, where a spurious one would
    ruin the result between the samples. A family that is itself singular in the interval is thus not approximated
    well.

    Sources: Lietaert, Meerbergen, Perez, Vandereycken, IMA J. Numer. Anal. 42 (2022), doi 10.1093/imanum/draa098;
    Nakatsukasa, Sete, Trefethen, SIAM J. Sci. Comput. 40 (2018), doi 10.1137/16M1106122.

    Args:
        problem: An operation with one factor, of one parameter.
        budget: N, the exact solves, at least 2.
        terms: Most support points m; never more than the samples determine, at most N - 1.
        rtol: Stop when the largest error at the samples is below this fraction of the largest sample. Default:
            eps^(3/4) for the family's dtype, as in SciPy's scalar AAA.

    Returns:
        The peer, of m terms. Its details: ``sample_error``, that fraction; ``poles``, those of the result, complex
        numbers in the unit of the parameter; ``rejected``, how many m had a pole on the interval.

    Raises:
        ValueError: For several factors or parameters, too small a budget, or too few exact solutions that succeed.
    """
    terms = checks.integer("terms", terms, 1)
    rtol = torch.finfo(problem.family.dtype).eps ** 0.75 if rtol is None else checks.number("rtol", rtol, at_least=0)
    p, X, failed = solve(problem, _equispaced(problem, budget, 2), 2)
    Y, _, S = _pod(rows(X).double(), len(X))
    x, F = unit(problem.family, p)[:, 0].cpu().numpy(), (Y * S).cpu().numpy()
    F = F[:, np.linalg.norm(F, axis=0) > 0.1 * rtol * np.linalg.norm(F)]
    # The Loewner matrix needs as many rows, (N - m) per column of F, as it has columns, m.
    most = max(1, len(x) * F.shape[1] // (F.shape[1] + 1))
    scale, support, fit, models, rejected = np.linalg.norm(F, axis=1).max(), [], F.mean(axis=0), [], 0
    for m in range(1, min(most, terms) + 1):
        support.append(int(np.linalg.norm(F - fit, axis=1).argmax()))
        others = np.setdiff1d(np.arange(len(x)), support)
        differences = (F[others, None] - F[support]) / (x[others, None] - x[support])[:, :, None]
        loewner = differences.swapaxes(1, 2).reshape(-1, m)
        w = np.linalg.svd(np.linalg.qr(loewner, mode="r"))[2][-1]
        fit = _barycentric(x, x[support], w) @ F[support]
        error, poles = np.linalg.norm(F - fit, axis=1).max() / scale, _poles(x[support], w)
        on_interval = (abs(poles.imag) < 1e-12) & (poles.real >= 0) & (poles.real <= 1)
        rejected += int(on_interval.any())
        if not on_interval.any():
            models.append((error, list(support), w, poles))
        if error <= rtol:
            break
    error, support, w, poles = min(models, key=lambda model: model[0])
    lower, upper = problem.family.lower.item(), problem.family.upper.item()
    details = {"sample_error": float(error), "poles": lower + (upper - lower) * poles, "rejected": rejected}
    nodes = x[support]

    def basis(x: Tensor) -> np.ndarray:
        return _barycentric(x[:, 0].cpu().numpy(), nodes, w)

    return linear("aaa", problem, X, failed, basis, rows(X)[support], **details)


@timed
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
    scales = [checks.number("scales", a, above=0) for a in _each("scales", (1,) * d if scales is None else scales, d)]
    p, X, failed = _scattered(problem, budget, kernel, seed)
    values, S = rows(X), None
    weights = torch.eye(len(p), dtype=torch.float64)
    if kernel == "multiquadric":  # its cardinal functions lose digits where its matrix is ill-conditioned
        weights, values, S = _pod(values, len(p))
    basis, details = _radial(problem, p, weights, S, kernel, scales)
    return linear(f"rbf {kernel}", problem, X, failed, basis, values, **details)


@timed
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
    p, X, failed = _scattered(problem, budget, kernel, seed)
    Y, modes, S = _pod(rows(X), rank)
    basis, details = _radial(problem, p, Y, S, kernel)
    return linear("pod_regression", problem, X, failed, basis, modes, **details)


def polynomials(y: Tensor, count: int) -> Tensor:
    """Return the Chebyshev polynomials of degree below ``count`` at y (B,), shape (B, count)."""
    T = [torch.ones_like(y), y]  # the recurrence is stable, also outside of [-1, 1]
    for _ in range(count - 2):
        T.append(2 * y * T[-1] - T[-2])
    return torch.stack(T[:count], dim=1)


def _each(name: str, values: Sequence[float], d: int) -> tuple:
    """Return one value for each parameter."""
    if len(values) != d:
        raise ValueError(f"`{name}`: expected one for each of the {d} parameters, got {values}.")
    return tuple(values)


def _equispaced(problem: Problem, budget: int, needed: int, *, middles: bool = False) -> Tensor:
    """Equally spaced parameters, both ends included or the middles of equal pieces, shape (budget, 1)."""
    family, budget = one_parameter(problem), checks.integer("budget", budget, needed)
    ends = torch.linspace(0, 1, budget, dtype=torch.float64)
    x = (torch.arange(budget, dtype=torch.float64) + 0.5) / budget if middles else ends
    return from_unit(family, x[:, None])


def _scattered(problem: Problem, budget: int, kernel: str, seed: int) -> tuple[Tensor, Tensor, int]:
    checks.choice("kernel", kernel, tuple(_KERNELS))
    needed = math.comb(problem.family.dimension + _KERNELS[kernel], problem.family.dimension)
    return solve(problem, scattered(problem.family, checks.integer("budget", budget, needed), seed), needed)


def _radial(
    problem: Problem, p: Tensor, Y: Tensor, sizes: Tensor | None, kernel: str, scales: Sequence[float] = (1.0,)
) -> tuple[Callable[[Tensor], np.ndarray], dict[str, float]]:
    """Interpolate Y at p, with the shape parameter that suits Y times the sizes best; and that parameter."""
    x, details = unit(problem.family, p).cpu().numpy() * scales, {}
    if kernel == "multiquadric":
        details["shape"] = min(_SHAPES, key=_left_out(x, (Y * sizes).cpu().numpy()))
    through = RBFInterpolator(x, Y.cpu().numpy(), kernel=kernel, epsilon=details.get("shape", 1.0))
    return lambda x: through(x.cpu().numpy() * scales), details


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


def _barycentric(x: np.ndarray, nodes: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Barycentric basis at x, shape (B, m): one at a node itself."""
    difference = x[:, None] - nodes
    hit = difference == 0
    phi = w / np.where(hit, 1, difference)
    return np.where(hit.any(axis=1, keepdims=True), hit, phi / phi.sum(axis=1, keepdims=True))


def _poles(nodes: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Zeros of sum_j w_j / (x - x_j), the finite eigenvalues of an arrowhead pencil."""
    pencil = np.diag(np.append(0.0, nodes))
    pencil[0, 1:], pencil[1:, 0] = w, 1
    poles = scipy.linalg.eigvals(pencil, np.diag(np.append(0.0, np.ones_like(nodes))))
    return poles[np.isfinite(poles)]


def _pod(values: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return coordinates Y (N, r), orthonormal and in double precision, modes (r, M) of rows, and the sizes (r,)."""
    Y, modes, S = (x[0] for x in lowrank.pod(values[None], values.new_ones(len(values), dtype=torch.float64), rank))
    return Y, modes, S[: Y.shape[1]]


def _spline(problem: Problem, p: Tensor, values: Tensor, degree: int) -> BSpline:
    return make_interp_spline(unit(problem.family, p)[:, 0].cpu().numpy(), values.cpu().numpy(), k=degree)
