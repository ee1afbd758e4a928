"""The linear algebra of the closed form: proper orthogonal decomposition and the least-squares problems around it."""

from __future__ import annotations

import torch
from torch import Tensor

from neumatc import checks
from neumatc.linalg import in_threads

# Sine of the smallest angle between the columns of equations that seminormal equations still resolve.
_LEAST_ANGLE = 1e-5


@checks.explained
def pod(X: Tensor, weights: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Proper orthogonal decomposition of batches of snapshots: the weighted best approximation of rank r.

    With the quadrature weights w of the parameters, the r leading left singular vectors U of :math:`w^{1/2} X`
    minimise :math:`\sum_i w_i \|X_i - (Y C)_i\|^2` for :math:`Y = w^{-1/2} U`, :math:`C = U^T w^{1/2} X` (Sirovich,
    Quart. Appl. Math. 45, 1987; Eckart and Young). Single precision takes the eigenvectors of the Gram matrix of the
    snapshots, accumulated in double precision, so that squaring loses nothing; double precision, where nothing wider is
    at hand, and snapshots of fewer numbers than there are of them take a QR factorisation first.

    Args:
        X: Real snapshots, shape (G, N, M): G families, N parameters, M numbers each.
        weights: Positive, shape (N,), float64.
        rank: r, at most N.

    Returns:
        Y (G, N, r) in float64, C (G, r, M) in the dtype of X, and the singular values (G, N), float64, descending.
    """
    root = weights.sqrt()[:, None]
    wide = X * root  # in double precision
    if X.dtype == torch.float32 and X.shape[1] <= X.shape[2]:
        # On the CPU always: CUDA takes matrices of this size one after the other, and the cores share a batch.
        eigh = in_threads(lambda a: tuple(torch.linalg.eigh(a)), (wide @ wide.mT).cpu())
        S, U = (x.to(X.device).flip(-1) for x in eigh)
        S = S.clamp_min(0).sqrt()
    else:
        U, S, _ = torch.linalg.svd(torch.linalg.qr(wide.mT, mode="r").R.mT, full_matrices=False)
        S = torch.nn.functional.pad(S, (0, X.shape[1] - S.shape[-1]))
    U = U[..., :rank]
    return U / root, (U * root).mT.to(X.dtype) @ X, S


@checks.explained
def ridge(psi: Tensor, Y: Tensor, weights: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    r"""Fit Y ~ psi W + b by weighted least squares: minimise :math:`\sum_i w_i \|\psi_i W + b - Y_i\|^2` plus
    :math:`\lambda^2 \|W\|^2`, by a QR factorisation of the stacked equations, which does not square the condition
    number. A penalty of a few rounding units weighs the error of the fit against the rounding in its evaluation.

    Args:
        psi: Features, shape (N, K), float64.
        Y: Values, shape (N, R), float64.
        weights: Positive, shape (N,), summing to one.
        penalty: lambda, above zero.

    Returns:
        W (K, R) and b (R,).
    """
    root = weights.sqrt()[:, None]
    K = psi.shape[1]
    matrix = psi.new_zeros(len(psi) + K, K + 1)
    matrix[: len(psi), 0], matrix[: len(psi), 1:] = root[:, 0], root * psi
    matrix[len(psi) :, 1:].fill_diagonal_(penalty)
    Q, R = torch.linalg.qr(matrix)
    solution = torch.linalg.solve_triangular(R, Q[: len(psi)].T @ (root * Y), upper=True)
    return solution[1:], solution[0]


@checks.explained
def collocate(L: Tensor, F: Tensor, Q: Tensor, tolerance: float, iterations: int) -> tuple[Tensor, int]:
    r"""Solve :math:`\min_Z \sum_i \|L_i \sum_k Q_{ik} Z_k - F_i\|_F^2` for the coefficients Z with no inverse.

    Conjugate gradients on the least-squares problem (CGLS; Bjorck, *Numerical Methods for Least Squares Problems*, SIAM
    1996, algorithm 7.4.1), one step size for each column of Z, since the problem does not couple them. The normal
    equations are never formed. One step costs two products with the L_i; their number grows with the condition number
    of the L_i.

    Args:
        L: Shape (N, e, m).
        F: Shape (N, e, c).
        Q: Values of K basis functions at the N parameters, with orthonormal columns, shape (N, K), real.
        tolerance: Stop when the gradient has fallen by this factor in every column.
        iterations: Most steps.

    Returns:
        The values :math:`\sum_k Q_{ik} Z_k`, shape (N, m, c), and the steps taken.
    """
    # Squares of very large or small entries would leave the range of single precision.
    size, right = (torch.where(T.abs().amax() > 0, T.abs().amax(), 1) for T in (L, F))
    L, F = L / size, F / right
    Q, LH = Q.to(L.dtype), L.mH
    shape = (Q.shape[1], L.shape[2], F.shape[2])

    def values(Z: Tensor) -> Tensor:
        return (Q @ Z.view(shape[0], -1)).view(len(L), *shape[1:])

    def gradient(R: Tensor) -> Tensor:
        return (Q.T @ (LH @ R).view(len(L), -1)).view(shape)

    def square(T: Tensor) -> Tensor:
        return (torch.view_as_real(T).square().sum(-1) if T.is_complex() else T.square()).sum(dim=(0, 1))

    tiny = torch.finfo(L.dtype).tiny
    R, Z = F.clone(), L.new_zeros(shape)
    S = gradient(R)
    P, norm = S, square(S)
    first = norm
    steps, active = 0, norm > 0
    while steps < iterations and active.any():
        steps += 1
        W = L @ values(P)
        # Columns that have converged stand still: their quotients are of rounding errors.
        a = torch.where(active, norm / square(W).clamp_min(tiny), 0)
        Z = Z + a * P
        R -= a * W
        S = gradient(R)
        last, norm = norm.clamp_min(tiny), square(S)
        active &= norm > tolerance**2 * first
        P = S + (norm / last) * P
    return values(Z) * (right / size), steps


@checks.explained
def project(L: Tensor, F: Tensor, basis: Tensor, sketch: Tensor) -> Tensor:
    r"""Coefficients of least sketched residual, :math:`\min_c \|(L_i \sum_k c_k B_k - F_i) \Omega\|_F`, for each i.

    A few random columns Omega preserve the norm well enough when there are more equations than unknowns, which costs
    far less than an inverse for large matrices. The small least-squares problems are solved in double precision by
    seminormal equations with one correction (Bjorck, *Numerical Methods for Least Squares Problems*, SIAM 1996,
    section 2.9), as accurate as a QR factorisation up to condition numbers of about 1e6, and many times faster in
    batches; those whose columns come too near to dependence for that, by a QR factorisation.

    Args:
        L: Shape (N, e, m).
        F: Shape (N, e, c).
        basis: B, shape (R, m, c), of similar norms.
        sketch: Omega, shape (c, s) with e s >= R.

    Returns:
        Real coefficients, shape (N, R), float64; not finite where the equations are dependent.
    """
    R, m, _ = basis.shape
    sketch = sketch.to(L.dtype)
    sketched = (basis @ sketch).permute(1, 2, 0).reshape(m, -1)
    equations = (L @ sketched).view(len(L), -1, R)
    right = (F @ sketch).reshape(len(L), -1, 1)
    if L.is_complex():
        equations, right = (torch.view_as_real(T).transpose(-1, -2).flatten(1, 2) for T in (equations, right))
    equations, right = equations.double(), right.double()
    lengths = torch.linalg.vector_norm(equations, dim=1, keepdim=True)
    equations = equations / lengths
    root, info = torch.linalg.cholesky_ex(equations.mT @ equations)
    c = torch.cholesky_solve(equations.mT @ right, root)
    c += torch.cholesky_solve(equations.mT @ (right - equations @ c), root)
    # The diagonal of the root holds the sines of the angles between each column and those before it.
    near = ~(root.diagonal(dim1=1, dim2=2).amin(dim=1) > _LEAST_ANGLE) | (info != 0)
    if near.any():
        Q, T = torch.linalg.qr(equations[near])
        x = torch.linalg.solve_triangular(T, Q.mT @ right[near], upper=True)
        least = equations.shape[1] * torch.finfo(equations.dtype).eps
        x[~(T.diagonal(dim1=1, dim2=2).abs().amin(dim=1) > least)] = torch.nan
        c[near] = x
    return (c / lengths.mT)[..., 0]
