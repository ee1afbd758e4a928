"""The peers: what a user would really pick instead of a learned map, as strong as we can make it with SciPy and torch.

Exact methods solve at every parameter. Approximations spend a budget of exact solves once and are cheap afterwards;
most are linear maps X(p) = sum_k phi_k(p) X_k with a known basis phi, evaluated as one matrix product like ours. The
basis is computed in double precision, since it is small and its digits are those of the result; the product runs in
the precision of the family, and in real arithmetic where the basis is real, as for a learned map.
"""

from __future__ import annotations

import functools
import importlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.linalg
import torch
from scipy.interpolate import BSpline, RBFInterpolator, make_interp_spline
from scipy.sparse import csr_array, issparse
from scipy.spatial.distance import cdist
from torch import Tensor

from neumatc import checks, linalg, sampling
from neumatc.families import ParametricMatrix
from neumatc.operations import Inverse, gram
from neumatc.problem import Problem

# Working memory of an evaluation in pieces, beside the output.
_WORKING_BYTES = 64 * 2**20
# Degree of the polynomial that each kernel needs beside it. The multiquadric has a shape parameter, in units of the
# box, which is judged by so many random combinations of the entries.
_KERNELS = {"linear": 0, "thin_plate_spline": 1, "cubic": 1, "quintic": 2, "multiquadric": 0}
_SHAPES, _JUDGED = tuple(2 ** (k / 2) for k in range(-2, 8)), 64


@dataclass(frozen=True, eq=False)
class Peer:
    """A classical method, ready to be evaluated.

    Attributes:
        name: Name of the method, for tables.
        exact_solves: Exact solves spent on building it, failed ones included; 0 for an exact method.
        terms: Matrices that one evaluation sums, the rank of its map; None for an exact method.
        lower, upper: The box of parameters, shape (d,).
        evaluate: The map p -> X on parameters that were checked.
        seconds: Wall time of building it, exact solves included.
        details: What else the method found, by name; its function says what.
    """

    name: str
    exact_solves: int
    terms: int | None
    lower: Tensor = field(repr=False)
    upper: Tensor = field(repr=False)
    evaluate: Callable[[Tensor], Tensor] = field(repr=False)
    seconds: float = 0.0
    details: Mapping[str, object] = field(default_factory=dict)

    @checks.full_precision
    @torch.no_grad()
    def __call__(self, p: Tensor, *, extrapolate: bool = False) -> Tensor:
        """Evaluate at a batch of parameters.

        Args:
            p: Shape (B, d), float32 or float64, inside the box, on the family's device.
            extrapolate: Allow parameters outside the box.

        Returns:
            X, shape (B, n, n), of the family's dtype and device, without gradients.

        Raises:
            ValueError: If p is empty, of another width, not finite, or outside the box.
            TypeError: If p is not a real floating tensor.
        """
        return self.evaluate(checks.points(p, self.lower, self.upper, extrapolate=extrapolate))


def _timed(build: Callable[..., Peer]) -> Callable[..., Peer]:
    """Check the problem before a peer is built, and enter the time that building it took."""

    @checks.full_precision
    @functools.wraps(build)
    def timed(problem: Problem, *args: object, **options: object) -> Peer:
        if not isinstance(problem, Problem):
            raise TypeError(f"`problem`: expected a nm.Problem, got {checks.describe(problem)}.")
        if len(problem.factors) != 1:
            names = ", ".join(factor.name for factor in problem.factors)
            raise ValueError(
                f"`problem`: expected an operation with one factor, such as nm.Inverse(), got {problem.operation} "
                f"with the factors {names}; the peers do not align the gauges that several factors need."
            )
        start = time.perf_counter()
        with torch.no_grad():
            peer = build(problem, *args, **options)
        if problem.family.device.type == "cuda":
            torch.cuda.synchronize(problem.family.device)
        return replace(peer, seconds=time.perf_counter() - start)

    return timed


def numpy_loop(A: Tensor) -> Tensor:
    """Invert one matrix after the other with NumPy: our reading of the baseline that the paper compares with.

    Args:
        A: Shape (B, n, n).

    Returns:
        The inverses, of the shape, dtype and device of A. NumPy computes in double precision and rounds.
    """
    a = _host(A).numpy()
    X = np.empty_like(a)
    for i, matrix in enumerate(a):
        X[i] = np.linalg.inv(matrix)
    return torch.from_numpy(X).to(A.device)


def numpy_batched(A: Tensor) -> Tensor:
    """Invert a batch by NumPy, one call for each core.

    Args:
        A: Shape (B, n, n).

    Returns:
        The inverses, of the shape, dtype and device of A. NumPy computes in double precision and rounds.
    """
    return linalg.in_threads(lambda a: torch.from_numpy(np.linalg.inv(a.numpy())), _host(A)).to(A.device)


def scipy_batched(A: Tensor) -> Tensor:
    """Invert a batch by SciPy, one call for each core, in the precision of A.

    Args:
        A: Shape (B, n, n).

    Returns:
        The inverses, of the shape, dtype and device of A.
    """

    def solve(a: Tensor) -> Tensor:
        return torch.from_numpy(scipy.linalg.inv(a.numpy(), assume_a="gen", check_finite=False))

    return linalg.in_threads(solve, _host(A)).to(A.device)


def _host(A: Tensor) -> Tensor:
    return A.cpu().resolve_conj().resolve_neg()


def torch_cholesky(A: Tensor) -> Tensor:
    """Invert Hermitian positive definite matrices from torch's Cholesky factor, of which it reads one triangle.

    torch's own inverse is not here: its batched LU on the CPU returns wrong numbers (pytorch issue 142815).

    Args:
        A: Shape (B, n, n).

    Returns:
        The inverses, of the shape, dtype and device of A.
    """
    return linalg.in_threads(lambda a: torch.cholesky_inverse(torch.linalg.cholesky(a)), A)


def sionna_cholesky(A: Tensor) -> Tensor:
    """Invert Hermitian positive definite matrices as L^{-H} L^{-1}, with L^{-1} from Sionna's `inv_cholesky`.

    Args:
        A: Shape (B, n, n). Sionna does not check that the factorisation succeeded.

    Returns:
        The inverses, of the shape, dtype and device of A.
    """
    invert = _sionna("sionna.phy.utils", "inv_cholesky")

    def solve(a: Tensor) -> Tensor:
        L = invert(a)
        return L.mH @ L

    return linalg.in_threads(solve, A)


@functools.cache
def _sionna(module: str, name: str) -> Callable[..., Tensor]:
    # Importing Sionna seeds torch's global generators anew.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            return getattr(importlib.import_module(module), name)
        except ImportError as error:
            raise ImportError(f'`{name}` needs Sionna: run `pip install "neumatc[wireless]"`.') from error


def lmmse_loop(H: Tensor, noise: float) -> Tensor:
    """Compute the LMMSE receivers (H^H H + s I)^{-1} H^H one after the other with NumPy.

    Args:
        H: Channels, shape (B, m, n).
        noise: s, the power of the noise.

    Returns:
        Shape (B, n, m), of the dtype and device of H.
    """
    h = _host(H).numpy()
    X = np.empty((len(h), h.shape[2], h.shape[1]), h.dtype)
    for i, matrix in enumerate(h):
        adjoint = matrix.conj().T
        G = adjoint @ matrix
        G.flat[:: len(G) + 1] += noise
        X[i] = np.linalg.solve(G, adjoint)
    return torch.from_numpy(X).to(H.device)


def sionna_lmmse(H: Tensor, noise: float) -> Tensor:
    """Compute the LMMSE receivers by Sionna's `lmmse_matrix`, whitened so that it solves the smaller, n x n system.

    Args:
        H: Channels, shape (B, m, n), complex.
        noise: s, the power of the noise.

    Returns:
        Shape (B, n, m), of the dtype and device of H. Sionna does not check that the factorisation succeeded.
    """
    solve, scale = _sionna("sionna.phy.mimo", "lmmse_matrix"), noise**-0.5
    precision = "single" if H.dtype == torch.complex64 else "double"
    return linalg.in_threads(lambda h: solve(scale * h, precision=precision) * scale, H)


def torch_lmmse(H: Tensor, noise: float) -> Tensor:
    """Compute the LMMSE receivers by torch's batched Cholesky factorisation of H^H H + s I, on all cores.

    Args:
        H: Channels, shape (B, m, n).
        noise: s, the power of the noise.

    Returns:
        Shape (B, n, m), of the dtype and device of H, in whose precision all is computed.
    """
    return linalg.in_threads(lambda h: torch.cholesky_solve(h.mH, torch.linalg.cholesky(gram(h, noise))), H)


def svd_by_gram(H: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute leading singular triplets from the eigenvectors of the smaller Gram matrix, on all cores.

    It is several times faster than an SVD of long matrices, and squares the condition number: singular values below the
    root of the rounding, relative to the largest, are lost, and so are their vectors.

    Args:
        H: Matrices, shape (B, m, n).
        rank: k, at most min(m, n).

    Returns:
        U (B, m, k), S (B, k), descending, and Vh (B, k, n). Columns are those of an exact SVD up to phases; where a
        singular value is lost, its vector on the longer side is of any length.

    Raises:
        ValueError: If ``rank`` is out of range.
    """
    checks.integer("rank", rank, 1, min(H.shape[1:]))
    if H.shape[1] > H.shape[2]:
        V, S, Uh = svd_by_gram(H.mH, rank)
        return Uh.mH, S, V.mH
    values, vectors, _ = linalg.eigh(H @ H.mH)
    U, S = vectors[..., -rank:].flip(-1), values[..., -rank:].flip(-1).clamp_min(0).sqrt()
    return U, S, (U.mH @ H) / S.clamp_min(torch.finfo(S.dtype).tiny)[..., None]


def group_precoders(H: Tensor, rank: int, size: int, *, interpolated: bool = False) -> Tensor:
    """Precode as 5G base stations do: one precoder, that of the middle subcarrier, for each group of subcarriers.

    It consists of the leading right singular vectors there (`svd_by_gram`). Rates such as `wireless.precoded_rate`
    depend on their span only, and so does the interpolation, whose columns are no singular vectors.

    Args:
        H: Channels on the grid of subcarriers, shape (B, m, n). Only those in the middle of a group are read.
        rank: k, at most min(m, n).
        size: Subcarriers in a group, at least 1; the last group may be smaller.
        interpolated: Interpolate linearly between the middles, each basis being turned towards the one before it
            (orthogonal Procrustes), and make the columns orthonormal. Beyond the outer middles nothing changes.

    Returns:
        V, shape (B, n, k), of the dtype and device of H, with orthonormal columns.

    Raises:
        ValueError: If ``rank`` or ``size`` is out of range.
    """
    size, place = checks.integer("size", size, 1), torch.arange(len(H), device=H.device)
    starts = place[::size]
    middles = (starts + (starts + size).clamp_max(len(H))) // 2
    V = svd_by_gram(H[middles], rank)[2].mH
    if not interpolated or len(middles) == 1:
        return V[place // size]
    left, _, right, _ = linalg.svd(V[1:].mH @ V[:-1])
    turns = [torch.eye(rank, dtype=H.dtype, device=H.device)]
    for turn in left @ right:
        turns.append(turn @ turns[-1])
    V = V @ torch.stack(turns)
    after = torch.searchsorted(middles, place, right=True).clamp(1, len(middles) - 1)
    weight = (place - middles[after - 1]) / (middles[after] - middles[after - 1])
    weight = weight.clamp(0, 1).to(checks.real_dtype(H.dtype))[:, None, None]
    return linalg.orthonormalized(torch.lerp(V[after - 1], V[after], weight.to(H.dtype)))


@_timed
def exact(problem: Problem, solver: Callable[[Tensor], Tensor] = numpy_batched) -> Peer:
    """Solve at every parameter: form A(p), then invert it.

    Args:
        problem: The inverse of a family.
        solver: Matrices A (B, n, n) -> their inverses: `numpy_loop`, `numpy_batched`, `scipy_batched`,
            `torch_cholesky`, `sionna_cholesky` or one's own. Call it alone to leave the forming of A(p) out of a
            measurement.

    Returns:
        The peer, named after the solver. A call raises the solver's own error at a singular matrix.

    Raises:
        ValueError: If the solver does not invert the matrix at the centre of the box, as a Cholesky factorisation of a
            matrix that is not Hermitian positive definite.

    Example:
        >>> import torch, neumatc as nm
        >>> from neumatc import peers
        >>> problem = nm.Problem(nm.families.trigonometric(size=8, shift=3), nm.Inverse())
        >>> peers.exact(problem, peers.numpy_loop)(torch.tensor([[0.3], [0.7]])).shape
        torch.Size([2, 8, 8])
    """
    family, name = problem.family, getattr(solver, "__name__", repr(solver))
    centre = torch.lerp(family.lower, family.upper, 0.5)[None]
    try:
        residual = float(problem.residual(centre, solver(family(centre))))
    except (np.linalg.LinAlgError, torch.linalg.LinAlgError) as error:
        residual = str(error)
    if isinstance(residual, str) or not residual < 0.1:
        raise ValueError(
            f"`solver`: expected one that solves the problem, got {name}, which fails at the centre of the box "
            f"(relative residual or error: {residual}); Cholesky needs Hermitian positive definite matrices, take "
            "numpy_batched for others."
        )
    return Peer(name, 0, None, family.lower, family.upper, lambda p: solver(family(p, extrapolate=True)))


@_timed
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
    nodes = [
        (1 + (torch.asin(a * y) / math.asin(a) if a else y)) / 2
        for y, a in zip([-_chebyshev_points(m) for m in sides], stretches)
    ]
    x = torch.cartesian_prod(*nodes).view(-1, d)
    p = torch.lerp(family.lower.double(), family.upper.double(), x.to(family.device)).to(family.lower)
    p, X, failed = _solve(problem, p, 1)

    def basis(x: Tensor) -> Tensor:
        phi = x.new_ones(len(x), 1)
        for y, m, a in zip((2 * x - 1).T, sides, stretches):
            y = torch.sin(y * math.asin(a)) / a if a else y
            T = [torch.ones_like(y), y]  # the recurrence is stable, also outside the box
            for _ in range(m - 2):
                T.append(2 * y * T[-1] - T[-2])
            phi = (phi[:, :, None] * torch.stack(T[:m], dim=1)[:, None, :]).flatten(1)
        return phi

    V = basis(_unit(family, p))
    if failed:
        degrees = torch.cartesian_prod(*[torch.arange(m, device=family.device) for m in sides]).view(-1, d).sum(dim=1)
        decay = 0.5 ** degrees.double()
        inverse = decay[:, None] * torch.linalg.pinv(V * decay)
    else:  # at nodes rounded to the precision of p the columns are not quite orthogonal
        inverse = linalg.inverse(V[None])[0][0]
    return _linear("chebyshev", problem, X, failed, basis, inverse @ _rows(X).double())


@_timed
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
    p, X, failed = _solve(problem, p, degree + 1)
    if degree == 0:
        edges = (_unit(problem.family, p[1:]) + _unit(problem.family, p[:-1])) / 2

        def held(x: Tensor) -> csr_array:
            columns = torch.searchsorted(edges[:, 0].contiguous(), x[:, 0].contiguous()).cpu().numpy()
            return csr_array((np.ones(len(x)), columns, np.arange(len(x) + 1)), shape=(len(x), len(p)))

        return _linear("held", problem, X, failed, held, _rows(X))
    through = _spline(problem, p, _rows(X), degree)

    def basis(x: Tensor) -> csr_array:
        return BSpline.design_matrix(x[:, 0].cpu().numpy(), through.t, degree, extrapolate=True)

    return _linear(f"spline of degree {degree}", problem, X, failed, basis, torch.from_numpy(through.c))


@_timed
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
    p, X, failed = _solve(problem, _equispaced(problem, budget, 4), 4)
    coefficients, modes = _pod(_rows(X), rank)
    through = _spline(problem, p, coefficients, 3)
    return _linear("pod_spline", problem, X, failed, lambda x: through(x[:, 0].cpu().numpy()), modes)


@_timed
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
    p, X, failed = _solve(problem, _equispaced(problem, budget, 2), 2)
    x, F = _unit(problem.family, p)[:, 0].cpu().numpy(), _pod(_rows(X).double(), len(X))[0].cpu().numpy()
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

    return _linear("aaa", problem, X, failed, basis, _rows(X)[support], **details)


@_timed
def rbf(
    problem: Problem,
    budget: int,
    *,
    kernel: str = "quintic",
    scales: Sequence[float] | None = None,
    edges: float = 0.5,
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
        edges: The design is a scrambled Sobol sequence x, moved to (1 - edges) x + edges (1 - cos(pi x)) / 2, denser
            at the faces of the box, from 0 (as it is) to 1 (distributed as Chebyshev points).
        seed: Seed of the sequence.

    Returns:
        The peer, of N terms (of the multiquadric no more than a matrix has numbers). Its details: ``shape``, epsilon.

    Raises:
        ValueError: For several factors, another kernel, a budget below the number of polynomial terms, scales that are
            not positive or not one for each parameter, or too few exact solutions that succeed.
    """
    d = problem.family.dimension
    scales = [checks.number("scales", a, above=0) for a in _each("scales", (1,) * d if scales is None else scales, d)]
    p, X, failed = _scattered(problem, budget, kernel, edges, seed)
    weights, rows = np.eye(len(p)), _rows(X)
    if kernel == "multiquadric":  # its cardinal functions lose digits where its matrix is ill-conditioned
        coefficients, rows = _pod(rows, len(p))
        weights = coefficients.cpu().numpy()
    basis, details = _radial(problem, p, weights, kernel, scales)
    return _linear(f"rbf {kernel}", problem, X, failed, basis, rows, **details)


@_timed
def pod_regression(
    problem: Problem, budget: int, rank: int, *, kernel: str = "quintic", edges: float = 0.5, seed: int = 0
) -> Peer:
    """Proper orthogonal decomposition of scattered snapshots, radial basis functions through its coefficients.

    As `rbf` with ``rank`` terms instead of N; with N it is the same map, since interpolation is linear in the values.
    Radial functions, since least-squares polynomials of total degree were several times less accurate from as many
    snapshots, at their best degree, in two and three parameters.

    Args:
        problem: An operation with one factor.
        budget: N, the exact solves.
        rank: Terms to keep, at most N of them.
        kernel, edges, seed: As for `rbf`.

    Returns:
        The peer, of min(rank, N) terms. Its details: as for `rbf`.

    Raises:
        ValueError: As `rbf`; for a rank below 1.
    """
    rank = checks.integer("rank", rank, 1)
    p, X, failed = _scattered(problem, budget, kernel, edges, seed)
    coefficients, modes = _pod(_rows(X), rank)
    basis, details = _radial(problem, p, coefficients.cpu().numpy(), kernel)
    return _linear("pod_regression", problem, X, failed, basis, modes, **details)


@_timed
def residual_projection(
    problem: Problem,
    budget: int,
    *,
    sketch: int | None = None,
    rank: int | None = None,
    greedy: bool = False,
    candidates: int | None = None,
    edges: float = 0.5,
    seed: int = 0,
) -> Peer:
    r"""Interpolate the inverse by projecting the identity: the combination of exact inverses with the least residual.

    .. math:: X(p) = \sum_{i=1}^N \lambda_i(p) A(p_i)^{-1}, \qquad
              \lambda(p) = \arg\min_\lambda \|(I - A(p) \sum_i \lambda_i A(p_i)^{-1}) \Omega\|_F,

    Omega (n, s) with random signs. It needs A(p) at every evaluation, but no interpolation in p: the error is
    governed by the span of the inverses. The combination is sought in an orthonormal basis of that span (the same
    minimum, but the least-squares problem is then about as well-conditioned as A(p)). An evaluation takes about
    2 n s r (n + r) operations beside A(p), with n s = 2 r that is 4 r^2 (n + r), against 2 n^3 for an inverse: it
    pays for matrices with many more rows than r.

    Source: Zahm and Nouy, SIAM J. Sci. Comput. 38 (2016), doi 10.1137/15M1019210 (arXiv 1504.07903), who multiply
    from the other side, as suits a left preconditioner.

    Args:
        problem: The inverse of a family.
        budget: N, the exact solves.
        sketch: s, the columns of Omega, at least r / n for r basis matrices, at most n: then Omega is the identity and
            the residual exact. Default: the least with n s >= 2 r equations.
        rank: Basis matrices to keep, the leading ones by singular values. Default: all but rounding errors.
        greedy: Whether the p_i are chosen one by one, where the sketched residual is largest, among ``candidates``
            points; otherwise they are a Sobol sequence.
        candidates: Number of those points, at least N. Default: 256 or 2 N, whichever is more.
        edges, seed: As for `rbf`; the seed is that of Omega, too.

    Returns:
        The peer, of r terms.

    Raises:
        ValueError: If the operation is not the inverse, for a sketch that gives fewer equations than unknowns, or no
            exact solution that succeeds.
    """
    family = problem.family
    if not isinstance(problem.operation, Inverse):
        raise ValueError(f"`problem`: expected the operation nm.Inverse(), got {problem.operation}; take `rbf`.")
    n, budget = family.shape[0], checks.integer("budget", budget, 1)
    generator = torch.Generator().manual_seed(checks.seed(seed))
    signs = (torch.randint(0, 2, (n, n), generator=generator) * 2 - 1).to(family.device, family.dtype)

    def draw(r: int) -> Tensor:
        s = min(n, -(-2 * r // n)) if sketch is None else checks.integer("sketch", sketch, 1, n)
        if n * s < r:
            raise ValueError(f"`sketch`: expected at least {-(-r // n)} columns of length {n} for {r} terms, got {s}.")
        return signs[:, :s] if s < n else torch.eye(n, dtype=family.dtype, device=family.device)

    draw(1)  # refuses a wrong sketch before anything is solved
    rank = budget if rank is None else checks.integer("rank", rank, 1)
    if greedy:
        candidates = max(256, 2 * budget) if candidates is None else checks.integer("candidates", candidates, budget)
        pool = _design(problem, candidates, edges, seed)
        X, failed = _greedy(problem, pool, budget, draw(min(budget, n * n)))
    else:
        _, X, failed = _solve(problem, _design(problem, budget, edges, seed), 1)
    _, S, Vh = torch.linalg.svd(X.flatten(1), full_matrices=False)
    r = min(int((S / S[0] > torch.finfo(S.dtype).eps).sum()), rank)
    modes, omega = Vh[:r].contiguous(), draw(r)
    # (r, n, s) -> (n, s r): then A times it is, row by row, the equations of shape (n s, r).
    sketched = (modes.view(r, n, n) @ omega).permute(1, 2, 0).reshape(n, -1)
    rows = max(1, _WORKING_BYTES // (sketched.numel() * sketched.element_size()))

    def evaluate(p: Tensor) -> Tensor:
        out = modes.new_empty(len(p), n * n)
        for piece, target in zip(p.split(rows), out.split(rows)):
            A = family(piece, extrapolate=True)
            equations = (A.flatten(0, 1) @ sketched).view(len(A), -1, r)
            torch.mm(_least_squares(equations, omega.reshape(-1, 1)), modes, out=target)
        return out.view(-1, n, n)

    return Peer("residual_projection", len(X) + failed, r, family.lower, family.upper, evaluate)


def _least_squares(equations: Tensor, goal: Tensor) -> Tensor:
    """Solve (B, k, r) c = (k, 1) in the least-squares sense: (B, r), NaN where single precision meets a deficient rank.

    Single precision by normal equations in double, where their squared condition number does no harm and which are
    faster than QR; double precision by QR.
    """
    wide = torch.promote_types(equations.dtype, torch.float64)
    if wide == equations.dtype:
        return torch.linalg.lstsq(equations, goal.expand(len(equations), -1, -1), driver="gels").solution[:, :, 0]
    E = equations.to(wide)
    L, info = torch.linalg.cholesky_ex(E.mH @ E)
    c = torch.cholesky_solve(E.mH @ goal.to(wide), L)[:, :, 0]
    c[info != 0] = torch.nan
    return c.to(equations.dtype)


def _greedy(problem: Problem, pool: Tensor, budget: int, omega: Tensor) -> tuple[Tensor, int]:
    """Solve at ``budget`` points of the pool, each where the residual of the projection on those before is largest."""
    A = problem.family(pool).clone()  # a family may give the same memory again
    residual = omega.flatten().expand(len(pool), -1).clone()
    basis = residual.new_zeros(len(pool), budget, omega.numel())
    taken, solutions, failures = torch.zeros(len(pool), dtype=torch.bool, device=pool.device), [], 0
    for k in range(budget):
        i = int(torch.linalg.vector_norm(residual, dim=1).masked_fill(taken, -1).argmax())
        taken[i] = True  # a pool point is used once, also where it failed
        X, failed = problem.exact(pool[i : i + 1])
        if failed:
            failures += 1
            continue
        column = (A @ (X[0] @ omega)).flatten(1)
        for _ in range(2):  # twice is enough for orthogonality
            known = (basis[:, :k].conj() @ column[:, :, None]).mT @ basis[:, :k]
            column = torch.nn.functional.normalize(column - known[:, 0], dim=1)
        basis[:, k] = column
        residual -= (column.conj() * residual).sum(dim=1, keepdim=True) * column
        solutions.append(X)
    _enough(pool[taken], failures, 1)
    return torch.cat(solutions), failures


def _chebyshev_points(count: int) -> Tensor:
    return torch.cos((torch.arange(count, dtype=torch.float64) + 0.5) * (math.pi / count))


def _each(name: str, values: Sequence[float], d: int) -> tuple:
    """Return one value for each parameter."""
    if len(values) != d:
        raise ValueError(f"`{name}`: expected one for each of the {d} parameters, got {values}.")
    return tuple(values)


def _equispaced(problem: Problem, budget: int, needed: int, *, middles: bool = False) -> Tensor:
    """Equally spaced parameters, both ends included or the middles of equal pieces, shape (budget, 1)."""
    family, budget = _one_parameter(problem), checks.integer("budget", budget, needed)
    options = {"dtype": torch.float64, "device": family.device}
    x = (torch.arange(budget, **options) + 0.5) / budget if middles else torch.linspace(0, 1, budget, **options)
    return torch.lerp(family.lower.double(), family.upper.double(), x[:, None]).to(family.lower)


def _one_parameter(problem: Problem) -> ParametricMatrix:
    if problem.family.dimension != 1:
        raise ValueError(
            f"`problem`: expected a family of one parameter, got {problem.family.dimension}; take `chebyshev`, `rbf` "
            "or `pod_regression`."
        )
    return problem.family


def _unit(family: ParametricMatrix, p: Tensor) -> Tensor:
    """Scale parameters from the box to [0, 1]^d, in double precision."""
    lower = family.lower.double()
    return (p.double() - lower) / (family.upper.double() - lower)


def _solve(problem: Problem, p: Tensor, needed: int) -> tuple[Tensor, Tensor, int]:
    """Solve at p (N, d): the parameters and solutions that succeeded, and how many failed."""
    if len(torch.unique(p, dim=0)) < len(p):
        raise ValueError(
            f"`problem`: expected a box that holds {len(p)} parameters of the design that differ in {p.dtype}, got "
            f"{problem.family.lower.tolist()} to {problem.family.upper.tolist()}; give the box in double precision."
        )
    X, failed = problem.exact(p)
    count = int(failed.sum())
    _enough(p, count, needed)
    return (p[~failed], X[~failed], count) if count else (p, X, 0)


def _enough(p: Tensor, failures: int, needed: int) -> None:
    if len(p) - failures < needed:
        raise ValueError(
            f"`problem`: expected at least {needed} exact solutions, got {len(p) - failures} from {len(p)} parameters "
            f"between {p.amin(dim=0).tolist()} and {p.amax(dim=0).tolist()}; restrict the box to where A(p) is regular."
        )


def _rows(X: Tensor) -> Tensor:
    """View X (N, ...) as real rows, real and imaginary parts side by side."""
    return (torch.view_as_real(X.resolve_conj()) if X.is_complex() else X).reshape(len(X), -1)


def _design(problem: Problem, count: int, edges: float, seed: int) -> Tensor:
    """Sobol points, denser at the faces of the box by the share ``edges``."""
    family, edges = problem.family, checks.number("edges", edges, at_least=0, at_most=1)
    x = _unit(family, sampling.sobol(count, family.lower, family.upper, checks.seed(seed)))
    x = (1 - edges) * x + edges * (1 - torch.cos(math.pi * x)) / 2
    return torch.lerp(family.lower.double(), family.upper.double(), x).to(family.lower)


def _scattered(problem: Problem, budget: int, kernel: str, edges: float, seed: int) -> tuple[Tensor, Tensor, int]:
    if kernel not in _KERNELS:
        raise ValueError(f"`kernel`: expected one of {', '.join(map(repr, _KERNELS))}, got {kernel!r}.")
    needed = math.comb(problem.family.dimension + _KERNELS[kernel], problem.family.dimension)
    return _solve(problem, _design(problem, checks.integer("budget", budget, needed), edges, seed), needed)


def _radial(
    problem: Problem, p: Tensor, values: np.ndarray, kernel: str, scales: Sequence[float] = (1.0,)
) -> tuple[Callable[[Tensor], np.ndarray], dict[str, float]]:
    """Interpolate values at p, with the shape parameter that suits them best; and that parameter."""
    x, details = _unit(problem.family, p).cpu().numpy() * scales, {}
    if kernel == "multiquadric":
        details["shape"] = min(_SHAPES, key=_left_out(x, values.astype(float)))
    through = RBFInterpolator(x, values, kernel=kernel, epsilon=details.get("shape", 1.0))
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


def _pod(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    U, S, Vh = torch.linalg.svd(rows, full_matrices=False)
    return (U * S)[:, :rank], Vh[:rank]


def _spline(problem: Problem, p: Tensor, values: Tensor, degree: int) -> BSpline:
    return make_interp_spline(_unit(problem.family, p)[:, 0].cpu().numpy(), values.cpu().numpy(), k=degree)


def _linear(
    name: str, problem: Problem, X: Tensor, failed: int, basis: Callable, rows: Tensor, **details: object
) -> Peer:
    """Return the map phi(p) @ rows for samples like X; phi: a tensor, an array, or a sparse array."""
    family, shape, is_complex = problem.family, X.shape[1:], X.is_complex()
    rows = rows.to(family.device, checks.real_dtype(X.dtype)).contiguous()

    def evaluate(p: Tensor) -> Tensor:
        phi = basis(_unit(family, p))
        if issparse(phi) and family.device.type == "cpu":
            flat = torch.from_numpy(phi.astype(rows.numpy().dtype) @ rows.numpy())
        else:
            phi = phi.toarray() if issparse(phi) else phi
            flat = torch.as_tensor(phi).to(rows) @ rows
        return (torch.view_as_complex(flat.view(len(p), -1, 2)) if is_complex else flat).view(len(p), *shape)

    return Peer(name, len(X) + failed, len(rows), family.lower, family.upper, evaluate, details=details)
