"""The trusted room: every exact solve of the library goes through here.

torch's batched LU on the CPU returns wrong numbers, sometimes silently, when it runs on more than one thread (pytorch
issue 142815), so on the CPU the work is NumPy's. On CUDA it is torch's, whose ``_ex`` variants report failure as data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from neumatc import checks


def inverse(A: Tensor) -> tuple[Tensor, Tensor]:
    """Invert a batch of square matrices.

    Args:
        A: Shape (B, n, n), any supported dtype, CPU or CUDA.

    Returns:
        The inverses, shape (B, n, n), and a mask of failures, shape (B,): True where A is singular to working
        precision, that is, where the reciprocal condition number 1 / (||A||_1 ||X||_1) is not above eps. Failed
        entries are NaN.
    """
    A = A.detach()
    if A.device.type == "cpu":
        X = torch.from_numpy(_batched(lambda a: (np.linalg.inv(a),), _to_numpy(A), (A.shape[1:],))[0])
    else:
        X = torch.linalg.inv_ex(A)[0]
    eps = torch.finfo(checks.real_dtype(A.dtype)).eps
    rcond = 1 / (_one_norm(A) * _one_norm(X))
    failed = ~(rcond > eps)  # written so that NaN counts as failed
    X[failed] = torch.nan
    return X, failed


def svd(A: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Thin singular value decomposition of a batch.

    Args:
        A: Shape (B, m, n), any supported dtype, CPU or CUDA.

    Returns:
        U (B, m, k), S (B, k) real and descending, Vh (B, k, n) with k = min(m, n), and a mask of failures, shape (B,):
        True where the iteration did not converge. Failed entries are NaN.
    """
    A = A.detach()
    m, n = A.shape[1:]
    k = min(m, n)
    if A.device.type == "cpu":
        arrays = _batched(lambda a: np.linalg.svd(a, full_matrices=False), _to_numpy(A), ((m, k), (k,), (k, n)))
        factors = [torch.from_numpy(np.ascontiguousarray(x)) for x in arrays]
    else:
        factors = list(torch.linalg.svd(A, full_matrices=False))
    failed = torch.stack([~torch.isfinite(x).flatten(1).all(dim=1) for x in factors]).any(dim=0)
    for x in factors:
        x[failed] = torch.nan
    return (*factors, failed)


def _one_norm(A: Tensor) -> Tensor:
    return A.abs().sum(dim=-2).amax(dim=-1)


def _to_numpy(A: Tensor) -> np.ndarray:
    return A.resolve_conj().resolve_neg().numpy()


def _batched(
    solve: Callable[[np.ndarray], tuple[np.ndarray, ...]], A: np.ndarray, shapes: tuple[tuple[int, ...], ...]
) -> tuple[np.ndarray, ...]:
    """Solve a whole batch. NumPy rejects it for one failure: then each matrix is tried alone, NaN where it fails."""
    try:
        return tuple(solve(A))
    except np.linalg.LinAlgError:
        outputs = None
        for i, a in enumerate(A):
            try:
                single = solve(a)
            except np.linalg.LinAlgError:
                continue
            if outputs is None:
                outputs = tuple(np.full((len(A), *x.shape), np.nan, x.dtype) for x in single)
            for output, x in zip(outputs, single):
                output[i] = x
        if outputs is None:
            outputs = tuple(np.full((len(A), *shape), np.nan, A.dtype) for shape in shapes)
        return outputs
