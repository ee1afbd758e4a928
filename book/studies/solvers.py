"""Exact solvers of a batch of matrices that were formed already: what SciPy, NumPy and torch offer.

torch's own inverse is not here: its batched LU on the CPU returns wrong numbers (pytorch issue 142815).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

import neumatc as nm
from neumatc import checks, linalg
from neumatc.problem import Solution


def numpy_loop(A: Tensor) -> Tensor:
    """Invert one matrix after the other with NumPy: our reading of the baseline that the paper compares with.

    Args:
        A: Shape (B, n, n).

    Returns:
        The inverses, of the shape, dtype and device of A. NumPy computes in double precision and rounds.
    """
    a = host(A).numpy()
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
    return linalg.in_threads(lambda a: torch.from_numpy(np.linalg.inv(a.numpy())), host(A)).to(A.device)


def scipy_batched(A: Tensor) -> Tensor:
    """Invert a batch by SciPy, one call for each core, in the precision of A.

    Args:
        A: Shape (B, n, n).

    Returns:
        The inverses, of the shape, dtype and device of A.
    """

    def solve(a: Tensor) -> Tensor:
        return torch.from_numpy(scipy.linalg.inv(a.numpy(), assume_a="gen", check_finite=False))

    return linalg.in_threads(solve, host(A)).to(A.device)


def host(A: Tensor) -> Tensor:
    """Return A as a tensor that NumPy can read."""
    return A.cpu().resolve_conj().resolve_neg()


class Bare(nm.Problem):
    """A problem whose exact results are those of another function of p (B, d), which checks nothing.

    Args:
        problem: What is solved.
        solve: p -> X, for an operation with one factor.
    """

    def __init__(self, problem: nm.Problem, solve: Callable[[Tensor], Tensor]):
        super().__init__(problem.family, problem.operation)
        self.solve = solve

    def exact(self, p: Tensor) -> Solution:
        """Solve at p; nothing counts as failed."""
        X = self.solve(p)
        return Solution(X, torch.zeros(len(X), dtype=torch.bool, device=X.device))


def torch_cholesky(A: Tensor) -> Tensor:
    """Invert Hermitian positive definite matrices from torch's Cholesky factor, of which it reads one triangle.

    Args:
        A: Shape (B, n, n).

    Returns:
        The inverses, of the shape, dtype and device of A.
    """
    return linalg.in_threads(lambda a: torch.cholesky_inverse(torch.linalg.cholesky(a)), A)


def svd_loop(A: Tensor) -> list:
    """Decompose one matrix after the other with NumPy, all singular vectors of the thin form."""
    return [np.linalg.svd(a, full_matrices=False) for a in host(A).numpy()]


def svd_by_gram(H: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute leading singular triplets from the eigenvectors of the smaller Gram matrix, on all cores.

    It is several times faster than an SVD of long matrices, and squares the condition number: singular values below the
    root of the rounding, relative to the largest, are lost, and so are their vectors. All is computed in the precision
    of H; `neumatc.linalg.eigh` takes double precision inside, which costs some of the time.

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

    def part(H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(H @ H.mH)
        U, S = vectors[..., -rank:].flip(-1), values[..., -rank:].flip(-1).clamp_min(0).sqrt()
        return U, S, (U.mH @ H) / S.clamp_min(torch.finfo(S.dtype).tiny)[..., None]

    return linalg.in_threads(part, H)
