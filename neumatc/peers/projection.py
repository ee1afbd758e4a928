"""Projection onto the span of exact solutions: nothing is interpolated in p, a small problem is solved at each p."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import scipy.linalg
import torch
from torch import Tensor

from neumatc import checks, linalg, sampling
from neumatc.linalg import norm, wide
from neumatc.operations import Inverse, Solve
from neumatc.peers.base import Peer, builder, enough, solve
from neumatc.problem import Problem
from neumatc.spectral import SVD, Eigh

# Working memory of an evaluation in pieces, beside the output.
_WORKING_BYTES = 64 * 2**20
# Fresh parameters that check the affine form, and the error there, in units of rounding, up to which it counts as
# exact: solving for the coefficients from few entries magnifies rounding.
_FRESH, _UNITS = 16, 1000
# Singular values below so many units of rounding are noise: of sums in the family, where it would add terms that every
# evaluation pays for, and of exact solutions, where it does no harm.
_NOISE, _DEPENDENT = 64, 4


@builder()
def residual_projection(problem: Problem, budget: int, *, sketch: int | None = None, seed: int = 0) -> Peer:
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
        budget: N, the exact solves, at the scattered points of `sampling.design`.
        sketch: s, the columns of Omega, at least r / n for r basis matrices, at most n: then Omega is the identity and
            the residual exact. Default: the least with n s >= 2 r equations.
        seed: Seed of the points and of Omega.

    Returns:
        The peer, of r terms.

    Raises:
        ValueError: If the operation is not the inverse, for a sketch that gives fewer equations than unknowns, or no
            exact solution that succeeds.
    """
    family = problem.family
    if not isinstance(problem.operation, Inverse):
        raise ValueError(f"`problem`: expected the operation nm.Inverse(), got {problem.operation}; take `chebyshev`.")
    n, budget = family.shape[0], checks.integer("budget", budget, 1)
    solved = solve(problem, scattered(problem, budget, seed), 1)
    modes = span(solved.X.flatten(1).T).T.to(family.dtype).contiguous()
    r = len(modes)
    s = min(n, -(-2 * r // n)) if sketch is None else checks.integer("sketch", sketch, -(-r // n), n)
    signs = torch.randint(0, 2, (n, s), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    omega = (torch.eye(n) if s == n else signs).to(family.device, family.dtype)
    # (r, n, s) -> (n, s r): then A times it is, row by row, the equations of shape (n s, r).
    sketched = (modes.view(r, n, n) @ omega).permute(1, 2, 0).reshape(n, -1)

    def evaluate(p: Tensor) -> tuple[Tensor]:
        A = family(p, extrapolate=True)
        c = least_squares((A.flatten(0, 1) @ sketched).view(len(A), -1, r), omega.reshape(1, -1, 1))
        return ((c[:, :, 0] @ modes).view(-1, n, n),)

    solves = len(solved.X) + solved.failed
    return Peer("residual_projection", solves, r, family.box, lambda p: in_pieces(evaluate, p, sketched.numel())[0])


@builder(several=True)
def reduced_basis(
    problem: Problem, budget: int, *, tol: float = 0.0, training: int = 128, tangents: bool = False, seed: int = 0
) -> Peer:
    r"""Reduced basis: the problem projected onto the span V of exact solutions, chosen by a greedy algorithm.

    - `Solve`, `Inverse`: X = V c. If A(p) was Hermitian positive definite wherever we looked, c solves
      :math:`V^H A V c = V^H B` (Galerkin), which is the best of the span in the energy norm; otherwise it has the least
      residual :math:`\|A V c - B\|` (Petrov-Galerkin). For `Solve` the columns of all solutions span V, for `Inverse`
      the matrices, with B = I and the inner product :math:`\mathrm{tr}(X^H Y)`.
    - `Eigh`, `SVD`: the Rayleigh-Ritz method. The operation itself is applied to :math:`V^H A V` (with B to the pair
      with :math:`V^H B V`; or to :math:`U^H A V`), so it chooses the end of the spectrum as it always does; its vectors
      times V are the result. The error of a value is of second order in that of its vector. It serves the ends of the
      spectrum, where such values are extrema over a span. From within (``"smallest"``, ``near``) values of V^H A V
      come near sigma that are no eigenvalues of A, so that is refused.

    The next solution is taken where the residual of the operation is largest among ``training`` parameters. That of
    eigenvectors and singular vectors does not see whether they are the wanted ones.

    Online and offline parts are apart if A is affine, :math:`A(p) = \sum_q \theta_q(p) A_q`. The A_q are found by POD
    of the training matrices, theta(p) from as many entries of A(p), at places that a pivoted QR factorisation of the
    A_q selects (Barrault, Maday, Nguyen, Patera, C. R. Math. 339, 2004; Drmac, Gugercin, SIAM J. Sci. Comput. 38,
    2016). Where that reproduces A at fresh parameters to rounding, an evaluation multiplies and solves matrices whose
    size does not depend on n, and multiplies by V. But a family is a function for all of A(p), so **all of A(p) is
    still formed**, for a few entries. Where it is not affine, A(p) itself is projected: about 2 n^2 r operations,
    little beside an exact solve if r is far below n.

    Sources: Hesthaven, Rozza, Stamm, Certified Reduced Basis Methods for Parametrized Partial Differential Equations,
    Springer 2016; for the spectrum Machiels, Maday, Oliveira, Patera, Rovas, C. R. Math. 331 (2000).

    Example:
        Lowest modes of a string with a stiff place, from eight exact eigenproblems of size 80:

        >>> import torch, neumatc as nm
        >>> ones, x = torch.ones(79, dtype=torch.float64), torch.linspace(0, 1, 80, dtype=torch.float64)
        >>> chain = 2 * torch.eye(80) - torch.diag(ones, 1) - torch.diag(ones, -1)
        >>> bump = torch.diag(torch.exp(-100 * (x - 0.3) ** 2))
        >>> A = nm.ParametricMatrix(lambda p: 6561 * chain + 2000 * p[:, :, None] * bump, 0.0, 1.0, dtype=x.dtype)
        >>> problem = nm.Problem(A, nm.Eigh(rank=4, which="lowest"))
        >>> p = torch.linspace(0, 1, 31, dtype=x.dtype)[:, None]
        >>> found, exact = nm.peers.reduced_basis(problem, 8)(p).eigenvalues, problem.exact(p).value.eigenvalues
        >>> bool(((found - exact).abs() <= 1e-10 * exact).all())
        True

    Args:
        problem: With the operation `Solve`, `Inverse`, `Eigh` or `SVD`.
        budget: Most exact solves; fewer where a solution adds nothing to the span, or ``tol`` is met.
        tol: Stop when no residual at the training parameters is larger.
        training: Number of those parameters, at least the budget; their matrices are kept while the basis is built.
        tangents: For `Solve`, extend V by the derivatives of each solution with respect to the coefficients theta_q:
            :math:`A^{-1} (B_q - A_q X)`. They come from one solve with Q k right-hand sides, which counts as one more;
            worth it where Q k is small against n.
        seed: Seed of the training parameters.

    Returns:
        The peer, with as many terms as V has columns. Its details: ``projection``, ``"Galerkin"``, ``"least residual"``
        or ``"Rayleigh-Ritz"``; ``residual``, the largest at the training parameters; ``affine_terms``, Q, or None
        where A(p) is projected; ``affine_error``, the largest relative error of the affine form at fresh parameters.

    Raises:
        ValueError: For another operation or values from within the spectrum, a budget below 1 (with tangents 2) or
            above ``training``, a family that is not affine for `Inverse` or tangents, or no exact solution that
            succeeds.
    """
    family, operation = problem.family, problem.operation
    if not isinstance(operation, (Solve, Inverse, Eigh, SVD)):
        raise ValueError(f"`problem`: expected nm.Solve, Inverse, Eigh or SVD, got {operation}; take `chebyshev`.")
    if tangents and not isinstance(operation, Solve):
        raise ValueError(f"`tangents`: expected False for {operation}, got True; only nm.Solve has them.")
    if isinstance(operation, Eigh) and operation.inner:
        raise ValueError(
            f"`problem`: expected values at an end of the spectrum, got {operation}: projected matrices have others "
            "than A within it; take which='lowest' or 'highest', or nm.fit."
        )
    budget, tol = checks.integer("budget", budget, 1 + tangents), checks.number("tol", tol, at_least=0)
    pool = scattered(problem, checks.integer("training", training, budget), seed)
    A = family(pool).clone()  # a family may give the same memory again
    form = _affine(problem, A)
    exact, error = form.error <= _UNITS * torch.finfo(family.dtype).eps, form.error
    if not exact and (tangents or isinstance(operation, Inverse)):
        raise ValueError(
            f"`problem`: expected A affine in at most {training} terms for nm.Inverse() or `tangents`, got an error of "
            f"{error:.2g}; raise `training`, or take `residual_projection` or tangents=False."
        )
    found = len(form.terms) if exact else None
    form = form if exact else _Form(None, lambda p: wide(family(p, extrapolate=True)).clone(), error)
    spectral = isinstance(operation, (Eigh, SVD))
    definite = not spectral and _definite(A[:, :, : len(A[0])])
    kind = "Rayleigh-Ritz" if spectral else "Galerkin" if definite else "least residual"
    build = partial(_ritz, problem, form) if spectral else partial(_projected, problem, form, definite)
    model, solves, residual = _greedy(problem, pool, A, form, build, budget, tol, tangents)

    def evaluate(p: Tensor) -> Tensor | tuple[Tensor, ...]:
        return operation.pack(in_pieces(lambda q: model.solve(form.weights(q)), p, model.numbers))

    details = {"projection": kind, "residual": residual, "affine_error": error, "affine_terms": found}
    return Peer("reduced_basis", solves, model.terms, family.box, evaluate, details)


def scattered(problem: Problem, count: int, seed: int) -> Tensor:
    """Scattered parameters of `sampling.design`."""
    return problem.family.box.parameters(sampling.design(count, problem.family.dimension, checks.seed(seed))[0])


def _greedy(
    problem: Problem,
    pool: Tensor,
    A: Tensor,
    form: _Form,
    build: Callable[[list[Tensor]], _Model],
    budget: int,
    tol: float,
    tangents: bool,
) -> tuple[_Model, int, float]:
    """Solve where the residual is largest: the model, the exact solves spent, and the largest residual left."""
    solutions, model, residual, price = [], None, torch.ones(len(pool), device=pool.device), 1 + tangents
    failed, taken, weights = [], torch.zeros(len(pool), dtype=torch.bool, device=pool.device), form.weights(pool)
    while price * len(failed) <= budget - price:
        i = int(residual.masked_fill(taken, -1).argmax())
        taken[i] = True  # a parameter is used once, also where it failed
        solution = problem.exact(pool[i : i + 1])
        failed.append(solution.failed)
        if solution.failed:
            continue
        factors = problem.unpack(solution.value, pool[i : i + 1])
        solutions.append((_with_tangents(A[i], factors[0], form),) if tangents else factors)
        known, model = model, build([torch.cat(x) for x in zip(*solutions)])
        residual = problem.operation.residual(A, in_pieces(model.solve, weights, model.numbers))
        residual = torch.where(residual.isfinite(), residual, torch.inf)
        if residual.max() <= tol or (known and known.terms == model.terms):
            break
    enough(problem, pool[taken], torch.cat(failed), 1)
    return model, len(failed) + tangents * len(solutions), float(residual.max())


def _with_tangents(A: Tensor, X: Tensor, form: _Form) -> Tensor:
    """Beside X (1, n, k), the changes A^{-1} (B_q - A_q X) with the coefficient of every affine term."""
    n = len(A)
    rates = form.terms[:, :, n:] - form.terms[:, :, :n] @ wide(X)
    changes, _ = linalg.solve(wide(A[None, :, :n]), rates.transpose(0, 1).flatten(1)[None])
    return torch.cat([X, changes.nan_to_num(0).to(X.dtype)], dim=2)


class _Form(NamedTuple):
    """A(p) = sum_q weights(p)_q terms_q; or no terms, and the weights are A(p) itself; in double precision."""

    terms: Tensor | None
    weights: Callable[[Tensor], Tensor]
    error: float

    def project(self, left: Tensor, right: Tensor) -> Callable[[Tensor], Tensor]:
        """Return weights -> left^H (A right), shape (B, f, r).

        The rows of ``right``, (c n, r), run through the rows of A's columns first, so that A can act on c blocks.
        """
        f, r = left.shape[1], right.shape[1]

        def times(A: Tensor) -> Tensor:
            return left.mH @ (A @ right.reshape(A.shape[2], -1)).reshape(len(A), -1, r)

        if self.terms is None:
            return times
        small = times(self.terms).flatten(1)
        return lambda weights: (weights @ small).view(-1, f, r)


class _Model(NamedTuple):
    """Weights of the form -> factors, with so many numbers in between for each parameter; dimension of the span."""

    solve: Callable[[Tensor], tuple[Tensor, ...]]
    numbers: int
    terms: int


def _affine(problem: Problem, A: Tensor) -> _Form:
    """Find the affine form of a family from its matrices at the training parameters; its error at fresh ones."""
    family, n, eps = problem.family, A.shape[1], torch.finfo(A.dtype).eps
    # What lies beside A, a right-hand side or the second matrix of a pair, may be of another size.
    joint = family.shape[1] > n and not isinstance(problem.operation, SVD)
    parts = [slice(0, n), slice(n, None)] if joint else [slice(None)]
    size = torch.cat([norm(A[None, :, :, part]).expand(n, A[0, :, part].shape[1]) for part in parts], dim=1)
    size = size.clamp_min(torch.finfo(size.dtype).tiny).double()
    _, S, Vh = torch.linalg.svd(wide(A / size).flatten(1), full_matrices=False)
    # The rows carry the rounding of the family, not of double precision alone.
    modes = Vh[: max(1, int((S / S[0] > _NOISE * eps).sum()))]
    pivots = scipy.linalg.qr(modes.cpu().numpy(), mode="r", pivoting=True)[1][: len(modes)].copy()
    places = torch.from_numpy(pivots).to(A.device, torch.int64)
    inverse = linalg.inverse(modes[None, :, places])[0][0] / size.flatten()[places, None]
    terms = modes.view(-1, *family.shape) * size

    def weights(p: Tensor) -> Tensor:
        return wide(family(p, extrapolate=True).flatten(1)[:, places]) @ inverse

    fresh = family.box.uniform(_FRESH, torch.Generator().manual_seed(len(A)))
    exact = wide(family(fresh).clone())
    defect = (weights(fresh) @ terms.flatten(1)).view(exact.shape) - exact
    tiny = torch.finfo(defect.dtype).tiny
    errors = [norm(defect[:, :, part]) / norm(exact[:, :, part]).clamp_min(tiny) for part in parts]
    return _Form(terms, weights, float(torch.stack(errors).max()))


def _definite(A: Tensor) -> bool:
    """Whether all matrices are Hermitian, up to rounding, and positive definite."""
    defect = norm(A - A.mH) <= 16 * A.shape[1] * torch.finfo(A.dtype).eps * norm(A)
    return bool(defect.all()) and not bool(linalg.cholesky(A)[1].any())


def span(columns: Tensor) -> Tensor:
    """Orthonormal basis of the span of columns (M, N), in double precision, without what is rounding of theirs."""
    lengths = linalg.lengths(columns, 0).clamp_min(torch.finfo(columns.dtype).tiny)
    U, S, _ = torch.linalg.svd(wide(columns / lengths), full_matrices=False)
    return U[:, S / S[0] > _DEPENDENT * torch.finfo(columns.dtype).eps]


def _projected(problem: Problem, form: _Form, definite: bool, factors: list[Tensor]) -> _Model:
    """Linear equations in the span of solutions X (N, n, k)."""
    (X,), n, dtype = factors, problem.family.shape[0], problem.family.dtype
    whole = isinstance(problem.operation, Inverse)
    V = span(X.flatten(1).T if whole else X.transpose(0, 1).flatten(1))
    r, columns = V.shape[1], problem.family.shape[1] - n
    if definite:
        frame = V
    elif form.terms is None:
        frame = torch.eye(len(V)).to(V)
    else:  # what A can make of V, in coordinates of its own
        images = form.terms[:, :, :n] @ V.reshape(n, -1)
        frame = torch.linalg.qr(images.reshape(len(images), -1, r).transpose(0, 1).flatten(1))[0]
    project = form.project(frame, torch.block_diag(V, torch.eye(columns).to(V)))
    goal = frame.mH @ torch.eye(n).to(V).reshape(-1, 1) if whole else None
    basis = V.to(dtype)

    def lift(weights: Tensor) -> tuple[Tensor]:
        E, F = project(weights).split([r, columns], dim=2)
        F = goal.expand(len(E), -1, -1) if whole else F
        c = (linalg.solve(E.contiguous(), F.contiguous())[0] if definite else least_squares(E, F)).to(dtype)
        return ((c[:, :, 0] @ basis.T).view(-1, n, n) if whole else basis @ c,)

    return _Model(lift, frame.shape[1] * (r + columns), r)


def _ritz(problem: Problem, form: _Form, factors: list[Tensor]) -> _Model:
    """The operation on its projection onto the span of exact singular vectors or eigenvectors."""
    two_sided, n = isinstance(problem.operation, SVD), problem.family.shape[0]
    frames = (factors[0], factors[2].mH) if two_sided else (factors[1], factors[1])
    left, right = (span(x.transpose(0, 1).flatten(1)) for x in frames)
    pair = not two_sided and problem.family.shape[1] > n
    project = form.project(left, torch.block_diag(right, right) if pair else right)
    dtypes = [factor.dtype(problem.family.dtype) for factor in problem.factors]

    def lift(weights: Tensor) -> tuple[Tensor, ...]:
        small = project(weights)
        if not two_sided:
            small = torch.cat([(x + x.mH) / 2 for x in small.split(left.shape[1], dim=2)], dim=2)
        found, _ = problem.operation.exact(small)
        found = (left @ found[0], found[1], found[2] @ right.mH) if two_sided else (found[0], right @ found[1])
        return tuple(x.to(dtype) for x, dtype in zip(found, dtypes))

    return _Model(lift, left.shape[1] * right.shape[1] * (1 + pair), max(left.shape[1], right.shape[1]))


def in_pieces(evaluate: Callable[[Tensor], tuple[Tensor, ...]], p: Tensor, numbers: int) -> tuple[Tensor, ...]:
    """Evaluate as many rows of p at once as the working memory holds, with so many ``numbers`` for each."""
    pieces = p.split(max(1, _WORKING_BYTES // (16 * numbers)))
    return tuple(map(torch.cat, zip(*map(evaluate, pieces))))


def least_squares(equations: Tensor, goal: Tensor) -> Tensor:
    """Solve (B, e, r) c = (B or 1, e, k) in the least-squares sense: NaN where single precision meets a deficient rank.

    Single precision by normal equations in double, where their squared condition number does no harm and which are
    faster than QR; double precision by QR.
    """
    goal = goal.expand(len(equations), -1, -1)
    E = wide(equations)
    if E.dtype == equations.dtype:
        return torch.linalg.lstsq(E, goal, driver="gels").solution
    L, info = torch.linalg.cholesky_ex(E.mH @ E)
    c = torch.cholesky_solve(E.mH @ wide(goal), L)
    c[info != 0] = torch.nan
    return c.to(equations.dtype)
