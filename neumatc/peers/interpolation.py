"""Interpolation of exact solutions, entry by entry: the linear maps X(p) = sum_k phi_k(p) X_k with a known basis phi.

The basis is computed in double precision, since it is small and its digits are those of the result; the product runs in
the precision of the family, and in real arithmetic where the basis is real, as for a learned map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebvander
from scipy.interpolate import BSpline, make_interp_spline
from scipy.sparse import csr_array
from torch import Tensor

from neumatc import checks, linalg, rational, sampling
from neumatc.box import Box
from neumatc.peers.base import Peer, builder, solve
from neumatc.problem import Problem


@builder()
def chebyshev(
    problem: Problem, budget: int, *, stretch: float | Sequence[float] = 0.0, sides: Sequence[int] | None = None
) -> Peer:
    r"""Interpolate the whole matrix by polynomials at the tensor grid of Chebyshev points of the first kind.

    .. math:: X(p) = \sum_{k_1 < m_1, ..., k_d < m_d} C_k \prod_{i=1}^d T_{k_i}(x_i),
              \qquad m_i = \lfloor N^{1/d} \rfloor \text{ unless given},

    x the parameters scaled to [-1, 1]^d, or with a stretch a, sin(x_i arcsin a) / a in their place, whose nodes are
    nearer to equal spacing and serve oscillations with fewer of them (Kosloff and Tal-Ezer, J. Comput. Phys. 104,
    1993). Spectrally accurate for analytic families (Trefethen, Approximation Theory and Approximation Practice, SIAM
    2013).

    Args:
        problem: An operation with one factor.
        budget: N, at most so many exact solves; as many as the grid has nodes are used.
        stretch: a, from 0 (plain polynomials) to below 1, as in `nm.Chebyshev`; for all parameters or for each.
        sides: Nodes m_i in each direction, at most N in all. Default: equally many.

    Returns:
        The peer, of as many terms as nodes.

    Raises:
        ValueError: For several factors, a budget below 1 or less than the grid, numbers of sides or stretches that are
            not that of the parameters, or an exact solution that fails.
    """
    box, d, budget = problem.family.box, problem.family.dimension, checks.integer("budget", budget, 1)
    stretches = [checks.number("stretch", a, at_least=0, below=1) for a in checks.each("stretch", stretch, d)]
    sides = sampling.tensor_side(budget, d) if sides is None else sides
    sides = [checks.integer("sides", m, 1) for m in checks.each("sides", sides, d)]
    checks.require(math.prod(sides) <= budget, "sides", f"at most `budget` = {budget} nodes", math.prod(sides))
    nodes = [-sampling.design(m, 1, stretch=a)[0][:, 0] for m, a in zip(sides, stretches)]
    grid = torch.cartesian_prod(*nodes).view(-1, d)
    solved = solve(problem, box.parameters(grid), len(grid))

    def basis(x: Tensor) -> Tensor:
        phi = x.new_ones(len(x), 1)
        for y, m, a in zip(x.T, sides, stretches):
            y = torch.sin(y * math.asin(a)) / a if a else y
            phi = (phi[:, :, None] * polynomials(y, m)[:, None, :]).flatten(1)
        return phi

    # At nodes rounded to the precision of p the columns are not quite orthogonal.
    inverse = linalg.inverse(basis(solved.x)[None])[0][0]
    return solved.map("chebyshev", basis, inverse @ solved.rows.double())


@builder(axis=True)
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
    box, degree = problem.family.box, checks.choice("degree", degree, (0, 1, 3))
    p = equispaced(problem, budget, degree + 1, middles=degree == 0)
    if grid is not None:
        grid = box.points(grid, offered=False)
        p = grid[torch.cdist(box.cube(p), box.cube(grid)).argmin(dim=1).unique_consecutive()]
        checks.require(len(p) > degree, "grid", f"at least {degree + 1} points", len(p), "refine it or shrink the box")
    solved = solve(problem, p, degree + 1)
    x, values = solved.x[:, 0].cpu().numpy(), solved.rows.cpu().numpy()
    if degree:
        through = make_interp_spline(x, values, k=degree)
    else:  # SciPy's own would hold each value from its node on
        through = BSpline(np.concatenate([[-1.0], (x[1:] + x[:-1]) / 2, [1.0]]), values, 0)

    def basis(x: Tensor) -> csr_array:
        return BSpline.design_matrix(x[:, 0].cpu().numpy(), through.t, degree, extrapolate=True)

    return solved.map(f"spline of degree {degree}", basis, torch.from_numpy(through.c))


@builder(axis=True)
def aaa(problem: Problem, budget: int, *, terms: int = 100, rtol: float | None = None) -> Peer:
    r"""Rational interpolation by the set-valued AAA algorithm: one denominator for all entries.

    .. math:: X(p) = \sum_{j=1}^m \frac{w_j}{z - z_j} X(p_j) \Big/ \sum_{j=1}^m \frac{w_j}{z - z_j},

    z the parameter itself in units of its upper bound on a logarithmic axis, where samples are equally spaced in log p,
    and otherwise p scaled to [-1, 1]: a resolvent is rational in p and not in log p. Support points p_j are added where
    the error at the samples is largest; the weights w minimise the linearised error at the others (the last right
    singular vector of the Loewner matrix, which is formed from the samples in an orthonormal basis, where it is small).
    Weights are complex for complex results, whose poles need not come in conjugate pairs. For real results, and for
    Hermitian ones, whose poles do come in such pairs, they are real, and the product costs half. Of all m, the one with
    the smallest error at the samples is taken among those without a pole on the interval, where a spurious one would
    ruin the result between the samples. A family that is itself singular in the interval is thus not approximated well.

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
    solved = solve(problem, equispaced(problem, budget, 2), 2)
    box, rows = problem.family.box, solved.rows if _paired(solved.X) else solved.X.flatten(1)
    U, S, _ = torch.linalg.svd(rows.to(torch.promote_types(rows.dtype, torch.float64)), full_matrices=False)
    ends = _own(torch.tensor([[-1.0], [1.0]]), box)
    z, F = _own(solved.x, box), (U * S)[:, 0.1 * rtol * S.norm() < S].cpu().numpy()
    # The Loewner matrix needs as many rows, (N - m) per column of F, as it has columns, m.
    most = max(1, len(z) * F.shape[1] // (F.shape[1] + 1))
    scale, support, fit, models = np.linalg.norm(F, axis=1).max(), [], F.mean(axis=0), []
    for _ in range(min(most, terms)):
        support.append(int(np.linalg.norm(F - fit, axis=1).argmax()))
        others = np.setdiff1d(np.arange(len(z)), support)
        _, w = rational.weighted(rational.loewner(z, F, support, np.ones(len(z)), others))
        fit = _barycentric(z, z[support], w) @ F[support]
        error, poles = float(np.linalg.norm(F - fit, axis=1).max() / scale), rational.zeros(z[support], w)
        near = abs(poles.imag) < 1e-12 * (abs(poles) if "log" in box.scale else 1)
        on_interval = bool((near & (ends[0] <= poles.real) & (poles.real <= ends[1])).any())
        models.append((on_interval, error, list(support), w, poles))
        if error <= rtol:
            break
    _, error, support, w, poles = min(models, key=lambda model: model[:2])
    nodes, low, high = z[support], box.lower.item(), box.upper.item()
    poles = high * poles if "log" in box.scale else low + (high - low) * (1 + poles) / 2
    details = {"sample_error": error, "poles": poles, "rejected": sum(model[0] for model in models)}

    def basis(x: Tensor) -> np.ndarray:
        return _barycentric(_own(x, box), nodes, w)

    return solved.map("aaa", basis, rows[support], **details)


def polynomials(y: Tensor, count: int) -> Tensor:
    """Return the Chebyshev polynomials of degree below ``count`` at y (B,), shape (B, count)."""
    return torch.from_numpy(chebvander(y.cpu().numpy(), count - 1)).to(y.device)


def equispaced(problem: Problem, budget: int, needed: int, *, middles: bool = False) -> Tensor:
    """Return equally spaced parameters, with both ends or as the middles of equal pieces, shape (budget, 1)."""
    budget = checks.integer("budget", budget, needed)
    end = 1 - 1 / budget if middles else 1
    return problem.family.box.parameters(torch.linspace(-end, end, budget, dtype=torch.float64)[:, None])


def _barycentric(x: np.ndarray, nodes: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Barycentric basis at x, shape (B, m): one at a node itself."""
    difference = x[:, None] - nodes
    hit = difference == 0
    phi = w / np.where(hit, 1, difference)
    return np.where(hit.any(axis=1, keepdims=True), hit, phi / phi.sum(axis=1, keepdims=True))


def _own(x: Tensor, box: Box) -> np.ndarray:
    """Return the variable in which results are rational, for x (B, 1) of the cube: on a logarithmic axis p over its
    upper bound, else x itself; shape (B,)."""
    x = x[:, 0].double().cpu().numpy()
    return (box.lower.item() / box.upper.item()) ** ((1 - x) / 2) if "log" in box.scale else x


def _paired(X: Tensor) -> bool:
    """Whether the poles come in conjugate pairs, since X (N, m, n) is real or, to rounding, Hermitian."""
    square = X.ndim == 3 and X.shape[1] == X.shape[2]
    return not X.is_complex() or (square and bool((X - X.mH).norm() <= 1e3 * torch.finfo(X.dtype).eps * X.norm()))
