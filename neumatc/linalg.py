"""The trusted room: every exact solve of the library goes through here.

torch's batched LU on the CPU returns wrong numbers, sometimes silently, when it runs on more than one thread (pytorch
issue 142815), so on the CPU the work is NumPy's; NumPy inverts single precision in double precision inside. On CUDA it
is torch's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from neumatc import checks, threads

# Multiplications (m n min(m, n) for each matrix) of a part of a batch, at least: for them the start of a thread pays,
# and what they work on stays in the cache.
_LEAST_PER_PART = 2**22
# Times by which the condition number in comparable units must stay below that of a singular matrix to be believed.
_CLEARLY = 64.0
# Squarings in the bound of a 2-norm by a Frobenius norm, which leave a factor of at most rank^(1/32).
_SQUARINGS = 3
# Defect of orthonormality from which on a series for the polar factor converges too slowly.
_FAR = 0.3
# Norms between which the squares that matter neither vanish nor overflow.
_SAFE = {torch.float32: (1e-15, 1e15), torch.float64: (1e-140, 1e140)}


@checks.explained
def inverse(A: Tensor) -> tuple[Tensor, Tensor]:
    """Invert a batch of square matrices.

    Args:
        A: Shape (B, n, n), any supported dtype, CPU or CUDA.

    Returns:
        The inverses, shape (B, n, n), and a mask of failures, shape (B,), True where A is singular to working
        precision, that is, where the reciprocal condition number 1 / (||A||_1 ||X||_1) is not above eps, in the units
        of A, and not 64 times as large in units of comparable size (`in_units`). Failed entries are NaN.

    Raises:
        TypeError, ValueError: If A is not a batch of square matrices of a supported dtype.
    """
    X = _inverted(A := _square(A))
    return _again(lambda L, P, F: P @ F, A, identity_like(A), X, _singular(A, X))


@checks.explained
def svd(A: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Thin singular value decomposition of a batch.

    Args:
        A: Shape (B, m, n), any supported dtype, CPU or CUDA.

    Returns:
        U (B, m, k), S (B, k) real and descending, Vh (B, k, n) with k = min(m, n), and a mask of failures, shape (B,),
        True where the iteration did not converge. Failed entries are NaN.
    """
    thin = (partial(f, full_matrices=False) for f in (np.linalg.svd, torch.linalg.svd))
    return masked(False, *_solved(_batch(A), *thin))


@checks.explained
def solve(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Solve A X = B for a batch.

    Args:
        A: Shape (B, n, n), any supported dtype, CPU or CUDA.
        B: Right-hand sides, shape (B, n, k), of the same dtype and device.

    Returns:
        X, shape (B, n, k), and a mask of failures, shape (B,): True where the factorisation breaks down or
        ||A||_1 ||X||_1 >= ||B||_1 / eps, which proves a condition number of at least 1 / eps, in the units of A and in
        `units` of comparable size. Failed entries are NaN.
    """
    A, B = _system(A, B)
    X = _by_lu(A, B)
    if not A.is_cuda and _surely_regular(norm(A), X, B).all():
        return masked(False, X)
    return _again(lambda L, P, F: _by_lu(L, F), A, B, X, _ill_conditioned(A, X, B))


@checks.explained
def solve_positive(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Solve A X = B for a batch of Hermitian positive definite A by Cholesky factorisation.

    Args:
        A: Shape (B, n, n), Hermitian; only the lower triangle is read.
        B: Right-hand sides, shape (B, n, k).

    Returns:
        X, shape (B, n, k), and a mask of failures, shape (B,), True where A is not positive definite to working
        precision, or where `solve` would say so. Failed entries are NaN.
    """
    A, B = _system(A, B)

    def solve(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        L, info = torch.linalg.cholesky_ex(A)
        return torch.cholesky_solve(B, L), info != 0

    X, failed = in_threads(solve, A, B)
    # ||A||_2 is at most the trace, where A is positive definite.
    if not A.is_cuda and (failed | _surely_regular(A.diagonal(dim1=1, dim2=2).real.sum(dim=1), X, B)).all():
        return masked(failed, X)
    lower = A.tril()
    A = lower + lower.tril(-1).mH
    X, ill = _again(lambda L, P, F: _by_lu(L, F), A, B, X, _ill_conditioned(A, X, B))
    return masked(failed | ill, X)


@checks.explained
def cholesky(A: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factorisation of a batch of Hermitian positive definite matrices.

    Args:
        A: Shape (B, n, n), any supported dtype, CPU or CUDA.

    Returns:
        The lower factors L, shape (B, n, n), and a mask of failures, shape (B,), True where A is not Hermitian to
        rounding, or not positive definite to working precision. Failed entries are NaN.

    Raises:
        ValueError: If no A is Hermitian to rounding.
    """
    A, wrong = _hermitian(_square(A), "A")
    L, info = in_threads(lambda a: tuple(torch.linalg.cholesky_ex(a)), A)
    return masked(wrong | (info != 0), L)


@checks.explained
def eigh(A: Tensor, B: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Eigendecomposition of a batch of Hermitian matrices, A V = V L, or of pairs of them, A V = B V L.

    Args:
        A: Shape (B, n, n), any supported dtype, CPU or CUDA.
        B: Positive definite, of the shape, dtype and device of A; the problem is solved as that of `standard`.

    Returns:
        Eigenvalues (B, n), real and ascending, eigenvectors (B, n, n) in columns, orthonormal or V^H B V = I, and a
        mask of failures, shape (B,), True where A or B is not Hermitian to rounding, B not positive definite, or the
        iteration did not converge. Failed entries are NaN.

    Raises:
        ValueError: If no A, or no B, is Hermitian to rounding.
    """
    A, wrong = _hermitian(_square(A), "A")
    if B is None:
        return masked(wrong, *_eigenvectors(A))
    B, wrong_too = _hermitian(_system(A, B)[1], "B")
    C, L, failed = standard(A, B)
    values, Y = _eigenvectors(C)
    V = torch.linalg.solve_triangular(L.mH, Y, upper=True)
    return masked(wrong | wrong_too | failed, values.to(checks.real_dtype(A.dtype)), V.to(A.dtype))


@checks.explained
def standard(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reduce A x = l B x to C y = l y: with B = L L^H, C = L^{-1} A L^{-H} and y = L^H x.

    Args:
        A: Hermitian, shape (B, n, n).
        B: Hermitian positive definite, of the same shape and dtype; only its lower triangle is read.

    Returns:
        C and L in double precision, since C magnifies rounding by the condition number of B, and a mask of failures,
        shape (B,), True where B is not positive definite to working precision: a pivot is not above n eps times its
        own diagonal entry, whatever the units of the rows are. There L is the unit matrix.
    """
    L, info = in_threads(lambda b: tuple(torch.linalg.cholesky_ex(b)), wide(B))
    pivots, diagonal = (x.diagonal(dim1=1, dim2=2).abs() for x in (L, B))
    failed = (info != 0) | ~(pivots.square() > B.shape[1] * torch.finfo(B.dtype).eps * diagonal).all(dim=1)
    L = torch.where(failed[:, None, None], identity_like(L), L)
    C = torch.linalg.solve_triangular(L, torch.linalg.solve_triangular(L, wide(A), upper=False).mH, upper=False)
    return (C + C.mH) / 2, L, failed


@checks.explained
def eig(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigendecomposition of a batch of general square matrices.

    Args:
        A: Shape (B, n, n), any supported dtype, CPU or CUDA.

    Returns:
        Eigenvalues (B, n) and unit eigenvectors (B, n, n), complex, in no order, and a mask of failures, shape (B,),
        True where the iteration did not converge, or the condition number of the eigenvectors is not below
        1 / sqrt(eps), as for defective matrices. Failed entries are NaN.
    """
    A = _square(A)
    good = checks.finite(A)  # both libraries raise where an entry is not
    factors = _solved(torch.where(good[:, None, None], A, 0), np.linalg.eig, torch.linalg.eig)
    values, vectors = (x.to(checks.COMPLEX[checks.real_dtype(A.dtype)]) for x in factors)  # NumPy's can be real
    singular = svd(vectors)[1]
    return masked(~good | ~(singular[:, -1] > torch.finfo(A.dtype).eps ** 0.5 * singular[:, 0]), values, vectors)


@checks.explained
def qr(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin QR factorisation of a batch, with a positive diagonal of R, which makes it unique.

    Args:
        A: Shape (B, m, n), any supported dtype, CPU or CUDA.

    Returns:
        Q (B, m, k), R (B, k, n) with k = min(m, n), and a mask of failures, shape (B,), True where the first k columns
        of A are seen to be dependent to working precision: a diagonal entry of R is not above max(m, n) eps times the
        length of its column of A. (Without pivoting not every dependence shows.)
    """
    A = _batch(A)
    Q, R = in_threads(lambda a: tuple(torch.linalg.qr(a)), A)
    diagonal = R.diagonal(dim1=-2, dim2=-1)
    size = diagonal.abs()
    phase = torch.where(size > 0, diagonal / size.clamp_min(torch.finfo(A.dtype).tiny), 1)
    Q, R = Q * phase[:, None, :], phase.conj()[:, :, None] * R
    columns = lengths(A, 1)[:, : size.shape[1]]
    return masked(~(size > max(A.shape[1:]) * torch.finfo(A.dtype).eps * columns).all(dim=1), Q, R)


@checks.explained
def slogdet(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Determinants of a batch of square matrices, as sign (or phase) and logarithm of the modulus.

    Args:
        A: Shape (B, n, n), any supported dtype, CPU or CUDA.

    Returns:
        sign (B,) of the dtype of A, logabsdet (B,), real, and a mask of failures, shape (B,), True where A is singular
        to working precision, as for `inverse`. Failed entries are NaN.
    """
    L, rows, columns, lost = in_units(A := _square(A))
    sign, log = _solved(L, np.linalg.slogdet, torch.linalg.slogdet)
    return masked(inverse(A)[1] | lost, sign, log + (rows.flatten(1).log() + columns.flatten(1).log()).sum(dim=1))


def _log(a: np.ndarray) -> np.ndarray:
    """SciPy's logarithm, which estimates norms with draws from NumPy's global generator: the same draws every time."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        return scipy.linalg.logm(a)
    finally:
        np.random.set_state(state)  # noqa: NPY002


# Matrix functions of one matrix, on the CPU in double precision.
FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": lambda a: exponential(torch.from_numpy(a)[None])[0].numpy(),  # SciPy's loses digits of real matrices
    "sqrt": scipy.linalg.sqrtm,
    "inverse_sqrt": lambda a: np.linalg.inv(scipy.linalg.sqrtm(a)),
    "log": _log,
}


@checks.explained
def matrix_function(name: str, A: Tensor) -> tuple[Tensor, Tensor]:
    """Apply a matrix function of SciPy's to a batch of square matrices, in double precision.

    Args:
        name: A key of `FUNCTIONS`.
        A: Shape (B, n, n), any supported dtype; what is on CUDA is computed on the CPU.

    Returns:
        The results, of the shape, dtype and device of A, and a mask of failures, shape (B,), True where the result
        does not exist, is complex for a real matrix, or (roots and logarithm) A is singular to working precision in its
        own units, which are those of its eigenvalues. An exponential also fails where its `exp_rounding` is not below
        1, and where it leaves the range of the dtype.
    """
    A, name = _square(A), checks.choice("name", name, tuple(FUNCTIONS))
    matrices = wide(A).resolve_conj().resolve_neg().cpu().numpy()
    X = torch.full(A.shape, torch.nan, dtype=A.dtype)
    regular = exp_rounding(A) < 1 if name == "exp" else ~_singular(A, inverse(A)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of is told by the mask
        for i in torch.nonzero(regular)[:, 0].tolist():
            with suppress(Exception):  # SciPy's logarithm raises just that where its Schur form is not triangular
                X[i] = torch.as_tensor(_principal(name, matrices[i], torch.finfo(A.dtype).eps))
    lost = (name == "exp") & (norm(X) < torch.finfo(X.dtype).tiny)  # there numbers have few digits, or none
    return masked(lost.to(A.device), X.to(A.device))


@checks.explained
def exponential(A: Tensor) -> Tensor:
    """Return the exponentials of a batch (B, n, n), in its own precision; differentiable.

    Never of one matrix alone, for which torch up to 2.14 takes a wrong coefficient (pytorch issue 196592).

    Args:
        A: Shape (B, n, n).

    Returns:
        Shape (B, n, n).
    """
    return torch.linalg.matrix_exp(A if len(A) > 1 else torch.cat([A, A]))[: len(A)]


@checks.explained
def exp_rounding(A: Tensor) -> Tensor:
    r"""Estimate the relative rounding of the exponential in double precision, :math:`n \, \mathrm{eps} \|A\|_F`.

    The condition number of the exponential is at least :math:`\|A\|_2` (Higham, *Functions of Matrices*, SIAM 2008,
    chapter 10), and just that of normal A. Where the number is not below 1, nothing is known of the result.

    Args:
        A: Shape (B, n, n).

    Returns:
        Shape (B,), float64.
    """
    return A.shape[1] * torch.finfo(torch.float64).eps * norm(wide(A))


def _principal(name: str, a: np.ndarray, eps: float) -> np.ndarray | float:
    """Return a function of a matrix, NaN where it is complex for a real one, or an eigenvalue is on its cut."""
    if name != "exp" and np.iscomplexobj(a):
        values = np.linalg.eigvals(a)
        if ((values.real < 0) & (np.abs(values.imag) <= len(a) * eps * np.abs(values).max())).any():
            return np.nan
    X = FUNCTIONS[name](a)
    if np.iscomplexobj(a) or not np.iscomplexobj(X):
        return X
    return X.real if np.abs(X.imag).max() <= np.finfo(float).eps ** 0.5 * np.abs(X).max() else np.nan


@checks.explained
def orthonormalized(U: Tensor) -> Tensor:
    r"""Return the nearest matrices with orthonormal columns, of wide ones rows: the factor Q of the polar form U = Q P.

    By :math:`U (I - E / 2 + 3 E^2 / 8)`, E = U^H U - I, k x k, the first terms of :math:`Q = U (I + E)^{-1/2}`, which
    leave a defect of about :math:`5 E^3 / 8`: once in single precision where U is orthonormal to 1e-3, twice in double.
    Where the norm of E is not below 0.3, by a singular value decomposition first.

    Args:
        U: Shape (B, m, k), of full rank.

    Returns:
        The shape of U, orthonormal to a few units of rounding.
    """
    if U.shape[1] < U.shape[2]:
        return orthonormalized(U.mH).mH
    worst = 1.0
    while worst**3 > torch.finfo(U.dtype).eps:
        E = gram(U, -1.0)
        defect = torch.linalg.vector_norm(E.flatten(1), dim=1)
        worst = float(defect.nan_to_num(0).max())
        if worst >= _FAR:
            far = defect >= _FAR
            left, _, right, _ = svd(U[far])
            U = U.clone()
            U[far] = left @ right  # the Jacobi iteration on CUDA leaves some twenty units of rounding
        else:
            U = U - U @ (E / 2 - 3 / 8 * (E @ E))
    return U


@checks.explained
def norm(A: Tensor) -> Tensor:
    """Frobenius norm per matrix, or length per vector.

    Where squares leave the range of the precision, as those of path gains can, the largest entry is divided out first.

    Args:
        A: Shape (B, ...), any supported dtype.

    Returns:
        Shape (B,), real, of the precision of A.
    """
    A = checks.entries(A)
    A = torch.view_as_real(A).flatten(1) if A.is_complex() else A
    if A.is_cuda and A.dtype == torch.float32:  # nothing is to be asked of the numbers, which would take a wait
        return torch.linalg.vector_norm(A, dim=1, dtype=torch.float64).float()
    size, (least, most) = torch.linalg.vector_norm(A, dim=1), _SAFE[A.dtype]
    if (outside := ~((size > least) & (size < most))).any():
        rows = A[outside]
        largest = rows.abs().amax(dim=1)
        scaled = rows / torch.where(largest > 0, largest, 1)[:, None]
        size[outside] = torch.where(largest.isinf(), largest, largest * torch.linalg.vector_norm(scaled, dim=1))
    return size


@checks.explained
def lengths(A: Tensor, dim: int) -> Tensor:
    """Euclidean lengths along a dimension, of complex numbers as of pairs of real ones.

    For complex numbers torch's own takes 4 to 100 times as long on a CPU (version 2.13,
    ``findings/torch_complex_norm.sh``).

    Args:
        A: Any shape; ``dim`` counts from the front.
        dim: The dimension, which goes.

    Returns:
        Real.
    """
    if not A.is_complex():
        return torch.linalg.vector_norm(A, dim=dim)
    return torch.linalg.vector_norm(torch.view_as_real(A.resolve_conj()), dim=(dim, -1))


@checks.explained
def hermitian(A: Tensor) -> tuple[Tensor, Tensor]:
    """Take the Hermitian part of matrices, which is what counts where the rest is rounding.

    Args:
        A: Shape (B, n, n).

    Returns:
        (A + A^H) / 2, and a mask, shape (B,), True where A differs from it by no more than the rounding, in the
        precision of A, of a product that made A.
    """
    return (A + A.mH) / 2, norm(A - A.mH) <= 16 * A.shape[1] * torch.finfo(A.dtype).eps * norm(A)


@checks.explained
def gram(A: Tensor, shift: Tensor | float = 0.0) -> Tensor:
    """Return A^H A + shift I.

    Args:
        A: Shape (B, m, n).
        shift: One for all, or one for each, shape (B, 1).

    Returns:
        Shape (B, n, n).
    """
    G = A.mH @ A
    G.diagonal(dim1=-2, dim2=-1).add_(shift)
    return G


@checks.explained
def outputs(H: Tensor, W: Tensor, noise: Tensor | float) -> tuple[Tensor, Tensor]:
    """What comes out of linear filters W y for y = H x + w with E[x x^H] = I.

    Args:
        H: Shape (B, m, n).
        W: Shape (B, n, m).
        noise: Covariance of w, shape (B, m, m), or the power of each of its entries.

    Returns:
        The gains w_k h_k of the wanted signals, shape (B, n), and the power of interference and noise, (B, n), real.
    """
    gains = W @ H
    # The diagonal is left out, not subtracted from the sum: interference far below the signal keeps its digits.
    others = gains * (1 - torch.eye(gains.shape[1], dtype=gains.dtype, device=gains.device))
    own = ((W @ noise) * W.conj()).real if isinstance(noise, Tensor) else noise * W.abs().square()
    return gains.diagonal(dim1=1, dim2=2), others.abs().square().sum(dim=2) + own.sum(dim=2)


@checks.explained
def wide(A: Tensor) -> Tensor:
    """Convert to double precision.

    Args:
        A: Real or complex.

    Returns:
        The tensor as float64 or complex128.
    """
    return A.to(torch.complex128 if A.is_complex() else torch.float64)


@checks.explained
def identity_like(A: Tensor) -> Tensor:
    """Make identities for the columns of a batch.

    Args:
        A: Shape (..., m, n).

    Returns:
        A view of one identity, shape (..., n, n), of the dtype and device of A.
    """
    n = A.shape[-1]
    return torch.eye(n, dtype=A.dtype, device=A.device).expand(*A.shape[:-2], n, n)


@checks.explained
def real_rows(x: Tensor) -> Tensor:
    """View a batch as real rows.

    Args:
        x: Shape (N, ...).

    Returns:
        Shape (N, real numbers of each), real and imaginary parts side by side.
    """
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).reshape(len(x), -1)


@checks.explained
def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    """View real rows as a batch again.

    Args:
        rows: Shape (B, real numbers of each).
        like: Shape (N, ...), whose entries are of the shape and kind wanted.

    Returns:
        Shape (B, ...).
    """
    x = torch.view_as_complex(rows.reshape(len(rows), -1, 2)) if like.is_complex() else rows
    return x.reshape(len(rows), *like.shape[1:])


@checks.explained
def squared_norm(A: Tensor) -> Tensor:
    """Squared Frobenius norm per matrix, differentiable at zero.

    Args:
        A: Shape (B, ...).

    Returns:
        Shape (B,), real.
    """
    A = torch.view_as_real(A.resolve_conj()) if A.is_complex() else A
    return A.square().flatten(1).sum(dim=1)


@checks.explained
def relative(defect: Tensor, size: Tensor) -> Tensor:
    r"""Squared relative defect :math:`\|D\|_F^2 / \|F\|_F^2` per matrix, in the precision of D.

    It is 0 where both are zero, and Inf where only F is. Without gradients by `linalg.norm`, for matrices of any size.

    Args:
        defect: D, shape (B, ...).
        size: F, shape (B, ...).

    Returns:
        Shape (B,), real.
    """
    if defect.requires_grad:
        return _quotient(squared_norm(defect), squared_norm(size))
    return _quotient(norm(defect), norm(size)).square()


@checks.explained
def largest_row(defect: Tensor, size: Tensor) -> Tensor:
    r"""Largest relative defect of a row, :math:`\max_i \|D_i\| / \|F_i\|`, per matrix (B, rows, columns), shape (B,).

    A row where both are zero counts as 0, one where only F_i is as Inf. By `linalg.norm`, for rows of any size.

    Args:
        defect: D, shape (B, rows, columns).
        size: F, of the same shape.

    Returns:
        Shape (B,), real.
    """
    top, bottom = (norm(x.flatten(0, 1)).view(x.shape[:2]) for x in (defect, size))
    return _quotient(top, bottom).amax(dim=1)


def _quotient(top: Tensor, bottom: Tensor) -> Tensor:
    """Return top / bottom, 0 where both are zero and Inf where only the bottom is."""
    nothing = bottom == 0
    return torch.where(nothing, torch.where(top == 0, top, torch.inf), top / torch.where(nothing, 1, bottom))


@checks.explained
def two_norm_within(C: Tensor, size: Tensor) -> Tensor:
    r"""Whether :math:`\|C\|_2` is below a size, up to rounding: :math:`s^2 I - C^H C` is positive definite.

    Args:
        C: Shape (B, m, n).
        size: s, shape (B,).

    Returns:
        Shape (B,).
    """
    C = C / size[:, None, None]
    G = C @ C.mH if C.shape[1] <= C.shape[2] else C.mH @ C
    return in_threads(lambda G: torch.linalg.cholesky_ex(identity_like(G) - G)[1:], G)[0] == 0


def two_norm_above(C: Tensor) -> Tensor:
    r"""Bound :math:`\|C\|_2` from above, by :math:`\|(C C^H)^q\|_F^{1/(2q)}`, q = 8.

    Args:
        C: Shape (B, m, n).

    Returns:
        Shape (B,), real.
    """
    size = norm(C).clamp_min(torch.finfo(C.dtype).tiny)
    C = C / size[:, None, None]
    G = C @ C.mH if C.shape[1] <= C.shape[2] else C.mH @ C
    for _ in range(_SQUARINGS):
        G = G @ G
    return size * (norm(G) * (1 + 1e-6)) ** (0.5 ** (_SQUARINGS + 1))


@checks.explained
def beside(error: Tensor, X: Tensor) -> Tensor:
    """Bound a relative error by a bound of the absolute one.

    Args:
        error: Bound of the absolute error of X, shape (B,).
        X: Approximate results, shape (B, ...); the exact norm is at least theirs less that bound.

    Returns:
        Shape (B,): Inf where the bound is as large as X, 0 where it is 0, as of X = 0 that is exact.
    """
    least = norm(X) - error
    return torch.where(least > 0, error / least, torch.where(error == 0, error, torch.inf))


@checks.explained
def power_of_two(x: Tensor) -> Tensor:
    """Return powers of two that are larger than numbers, by a factor of two at most.

    Args:
        x: Zero or positive, any shape, real.

    Returns:
        Of the shape and dtype of x; 1 for 0.
    """
    return torch.where(x > 0, x / torch.frexp(x).mantissa, 1)


@checks.explained
def in_units(A: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return matrices in units, powers of two, in which the largest entries of rows and columns are from 1/2 to 1.

    Args:
        A: Shape (B, m, n).

    Returns:
        A divided by the units of its rows, shape (B, m, 1), and of its columns, (B, 1, n), as LAPACK's geequ has it;
        these; and a mask of matrices whose entries differ so much that this costs digits, shape (B,). What is small
        beside others of its row and of its column has none to lose.
    """
    rows = power_of_two(A.abs().amax(dim=2, keepdim=True))
    columns = power_of_two((A / rows).abs().amax(dim=1, keepdim=True))
    lost = (columns <= torch.finfo(A.dtype).tiny).flatten(1).any(dim=1)
    return A / (rows * columns), rows, columns, lost


def in_threads(function: Callable[..., Tensor | tuple[Tensor, ...]], A: Tensor, *more: Tensor) -> Tensor | tuple:
    """Apply a function to a batch on the CPU in parts that stay in the cache, in as many threads as torch has.

    NumPy, SciPy and torch work through a batch of small factorisations on one core, and leave the cache on the way.

    Args:
        function: Takes a part of the batch and returns a tensor, or a tuple of tensors, with the batch first.
        A: Shape (B, m, n). On CUDA it is one part.
        more: Other arguments, shape (B, ...).

    Returns:
        What the function returns for the whole.
    """
    work = sum(x.numel() for x in (A, *more)) * min(A.shape[1:])
    parts = min(len(A), -(-work // (_LEAST_PER_PART * threads.count())) * threads.count())
    if work < 2 * _LEAST_PER_PART or len(A) < 2 or A.device.type != "cpu":
        return function(A, *more)
    results = threads.each(lambda part: function(*part), [*zip(*(x.tensor_split(parts) for x in (A, *more)))])
    return torch.cat(results) if isinstance(results[0], Tensor) else tuple(map(torch.cat, zip(*results)))


def _eigenvectors(A: Tensor) -> tuple[Tensor, ...]:
    """Return eigenvalues and eigenvectors, on a CPU in double precision.

    By torch, whose LAPACK is MKL's where that is faster, and by NumPy what that gives up on (pytorch issue 145801).
    """

    def in_double(a: Tensor) -> tuple[Tensor, ...]:
        values, vectors = torch.linalg.eigh(wide(a))
        return values.to(checks.real_dtype(a.dtype)), vectors.to(a.dtype)

    if A.device.type == "cpu":
        with suppress(RuntimeError):
            return in_threads(in_double, A)
    return _solved(A, np.linalg.eigh, torch.linalg.eigh)


def _solved(A: Tensor, on_cpu: Callable, on_cuda: Callable) -> tuple[Tensor, ...]:
    """Solve a whole batch. One failure can reject it all: then those that fail alone are left out, and NaN."""

    def by_numpy(a: Tensor) -> tuple[Tensor, ...]:
        with np.errstate(all="ignore"):  # what it warns of is told by the masks
            found = on_cpu(a.resolve_conj().resolve_neg().numpy())
        return tuple(
            torch.from_numpy(np.ascontiguousarray(x)) for x in (found if isinstance(found, tuple) else [found])
        )

    solve = partial(in_threads, by_numpy) if A.device.type == "cpu" else on_cuda
    errors = np.linalg.LinAlgError, torch.linalg.LinAlgError
    try:
        return tuple(solve(A))
    except errors:
        wrong = torch.ones(len(A), dtype=torch.bool, device=A.device)
        for i in range(len(A)):
            with suppress(*errors):
                solve(A[i : i + 1])
                wrong[i] = False
        factors = solve(torch.where(wrong[:, None, None], torch.eye(*A.shape[1:]).to(A), A))
        return masked(wrong, *factors)[:-1]


def _unless(X: Tensor, info: Tensor) -> tuple[Tensor]:
    """Return solutions, NaN where torch says that it failed."""
    return (torch.where(info[:, None, None] != 0, torch.nan, X),)


@checks.explained
def masked(failed: Tensor | bool, *factors: Tensor) -> tuple[Tensor, ...]:
    """Put NaN where something failed.

    Args:
        failed: Mask, shape (B,), or one for all.
        factors: Shape (B, ...) each.

    Returns:
        The factors, and the mask (B,) of what failed or is not finite in one of them: there all are NaN.
    """
    for x in factors:
        failed = failed | ~checks.finite(x)
    if not checks.sure(~failed):
        factors = tuple(torch.where(failed.view(-1, *(1,) * (x.ndim - 1)), torch.nan, x) for x in factors)
    return (*factors, failed)


def _batch(A: Tensor, name: str = "A") -> Tensor:
    good, expected = isinstance(A, Tensor) and A.dtype in checks.DTYPES, "a float or complex tensor of shape (B, m, n)"
    checks.require(good, name, expected, checks.describe(A), "convert it", TypeError)
    good, remedy = A.ndim == 3 and 0 not in A.shape, f"write `{name}[None]` for one"
    checks.require(good, name, "(B, m, n), no zeros", tuple(A.shape), remedy)
    return A.detach()


def _system(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Check a batch of square matrices and its right-hand sides."""
    A, B = _square(A), _batch(B, "B")
    if B.shape[:2] != A.shape[:2] or B.dtype != A.dtype or B.device != A.device:
        wanted, got = (f"{checks.describe(x)} on {x.device}" for x in (A, B))
        raise ValueError(f"`B`: expected shape (B, n, k), dtype and device of `A`, {wanted}, got {got}; convert it.")
    return A, B


def _square(A: Tensor) -> Tensor:
    A = _batch(A)
    remedy = "of others take a pseudo-inverse or singular values"
    checks.require(A.shape[1] == A.shape[2], "A", "square matrices (B, n, n)", f"shape {tuple(A.shape)}", remedy)
    return A


def _hermitian(A: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Return Hermitian parts, and a mask of matrices that are not Hermitian up to rounding; ValueError if all."""
    part, good = hermitian(A)
    if (~good & checks.finite(A)).all():
        got = f"||A - A^H|| / ||A|| of {float((norm(A - A.mH) / norm(A)).min()):.2g} or more in all {len(A)}"
        raise ValueError(f"`{name}`: expected Hermitian matrices, got {got}; take (A + A^H) / 2, or nm.Eig or nm.SVD.")
    return part, ~good


def _inverted(A: Tensor) -> Tensor:
    return _solved(A, np.linalg.inv, lambda a: _unless(*torch.linalg.inv_ex(a)))[0]


def _by_lu(A: Tensor, B: Tensor) -> Tensor:
    n = A.shape[1]
    return _solved(
        torch.cat([A, B], dim=2),
        lambda a: np.linalg.solve(a[:, :, :n], a[:, :, n:]),
        lambda a: _unless(*torch.linalg.solve_ex(a[:, :, :n], a[:, :, n:])),
    )[0]


def _again(solve: Callable, A: Tensor, B: Tensor, X: Tensor, failed: Tensor) -> tuple[Tensor, Tensor]:
    """Solve A X = B again where that failed, in units in which only a matrix that is singular is ill-conditioned.

    ``solve`` is given the matrix in these units, its inverse, and the right-hand sides.
    """
    hard = failed.nonzero()[:, 0]  # on a GPU a wait for each batch
    if len(hard):
        L, rows, columns, lost = in_units(A[hard])
        # By an inverse: one right-hand side can miss the direction in which a matrix is singular.
        P = _inverted(L)
        failed[hard] = _singular(L, P, _CLEARLY) | lost
        X[hard] = solve(L, P, B[hard] / rows) / columns.mT
    return masked(failed, X)


def _singular(A: Tensor, X: Tensor, margin: float = 1.0) -> Tensor:
    """Mask of matrices whose inverses X show that they are singular to working precision, or are not finite."""
    return ~(_one_norm(A) * _one_norm(X) * torch.finfo(A.dtype).eps * margin < 1)


def _ill_conditioned(A: Tensor, X: Tensor, B: Tensor) -> Tensor:
    """Mask of solutions of A X = B whose size proves that A is singular to working precision, or not finite."""
    right = _one_norm(B)
    return ~(_one_norm(A) * _one_norm(X) * torch.finfo(A.dtype).eps < right) & ~((right == 0) & checks.finite(X))


def _surely_regular(size: Tensor, X: Tensor, B: Tensor) -> Tensor:
    """Mask of solutions of A X = B that `_ill_conditioned` would not refuse, by norms that are quick to compute.

    Not for a GPU, which would be waited for.

    With ``size`` of at least ||A||_2: ||A||_1 ||X||_1 is at most n ``size`` ||X||_F, and ||B||_1 at least ||B||_F
    over the root of the number of its columns.
    """
    n, k = B.shape[1:]
    return n * size * norm(X) * torch.finfo(X.dtype).eps < norm(B) / k**0.5


def _one_norm(A: Tensor) -> Tensor:
    return A.abs().sum(dim=-2).amax(dim=-1)
