"""The trusted room: every exact solve of the library goes through here.

torch's batched LU on the CPU returns wrong numbers, sometimes silently, when it runs on more than one thread (pytorch
issue 142815), so on the CPU the work is NumPy's; NumPy inverts single precision in double precision inside. On CUDA it
is torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from neumatc import checks

# Multiplications (m n min(m, n) for each matrix) that a thread must have for its start to pay.
_LEAST_PER_THREAD = 2**22


def inverse(A: Tensor) -> tuple[Tensor, Tensor]:
    """Invert a batch of square matrices.

    Args:
        A: Shape (B, n, n), any supported dtype, CPU or CUDA.

    Returns:
        The inverses, shape (B, n, n), and a mask of failures, shape (B,), True where A is singular to working
        precision, that is, where the reciprocal condition number 1 / (||A||_1 ||X||_1) is not above eps (the size of
        a complex number taken as the sum of its parts, at most 1.42 times its modulus). Failed entries are NaN.

    Raises:
        TypeError, ValueError: If A is not a batch of square matrices of a supported dtype.
    """
    A = _batch(A)
    if A.shape[1] != A.shape[2]:
        raise ValueError(f"`A`: expected square matrices (B, n, n), got shape {tuple(A.shape)}.")

    def solve(a: Tensor) -> tuple[Tensor, ...]:
        if a.device.type == "cpu":
            return (in_threads(lambda x: _numpy(np.linalg.inv, x), a),)
        X, info = torch.linalg.inv_ex(a)
        X[info != 0] = torch.nan
        return (X,)

    (X,) = _each(solve, A, [(A.shape[1:], A.dtype)])
    rcond = 1 / (_one_norm(A) * _one_norm(X))
    failed = ~(rcond > torch.finfo(A.dtype).eps)  # written so that NaN counts as failed
    X[failed] = torch.nan
    return X, failed


def svd(A: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Thin singular value decomposition of a batch.

    Args:
        A: Shape (B, m, n), any supported dtype, CPU or CUDA.

    Returns:
        U (B, m, k), S (B, k) real and descending, Vh (B, k, n) with k = min(m, n), and a mask of failures, shape (B,),
        True where the iteration did not converge. Failed entries are NaN.
    """
    A = _batch(A)
    m, n = A.shape[1:]
    k = min(m, n)

    def solve(a: Tensor) -> tuple[Tensor, ...]:
        if a.device.type == "cpu":
            return in_threads(lambda x: _numpy(np.linalg.svd, x, full_matrices=False), a)
        return tuple(torch.linalg.svd(a, full_matrices=False))

    outputs = [((m, k), A.dtype), ((k,), checks.real_dtype(A.dtype)), ((k, n), A.dtype)]
    factors = _each(solve, A, outputs)
    failed = torch.stack([~torch.isfinite(x).flatten(1).all(dim=1) for x in factors]).any(dim=0)
    for x in factors:
        x[failed] = torch.nan
    return (*factors, failed)


def in_threads(function: Callable[[Tensor], Tensor | tuple[Tensor, ...]], A: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Apply a function to a batch on the CPU in as many parts as torch has threads, where that pays.

    NumPy, SciPy and torch work through a batch of small factorisations on one core.

    Args:
        function: Takes a part of the batch and returns a tensor, or a tuple of tensors, with the batch first.
        A: Shape (B, m, n). On CUDA it is one part.

    Returns:
        What the function returns for the whole.
    """
    parts = min(torch.get_num_threads(), len(A), A.numel() * min(A.shape[1:]) // _LEAST_PER_THREAD)
    if parts < 2 or A.device.type != "cpu":
        return function(A)
    with ThreadPoolExecutor(parts) as pool:
        results = list(pool.map(function, A.tensor_split(parts)))
    return torch.cat(results) if isinstance(results[0], Tensor) else tuple(map(torch.cat, zip(*results)))


def _numpy(function: Callable, A: Tensor, **options: object) -> Tensor | tuple[Tensor, ...]:
    result = function(A.resolve_conj().resolve_neg().numpy(), **options)
    if isinstance(result, tuple):
        return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in result)
    return torch.from_numpy(result)


def _batch(A: Tensor) -> Tensor:
    if not isinstance(A, Tensor) or A.dtype not in checks.DTYPES:
        raise TypeError(f"`A`: expected a float or complex tensor of shape (B, m, n), got {checks.describe(A)}.")
    if A.ndim != 3 or 0 in A.shape:
        raise ValueError(f"`A`: expected shape (B, m, n) without zeros, got {tuple(A.shape)}; write `A[None]` for one.")
    return A.detach()


def _one_norm(A: Tensor) -> Tensor:
    if A.is_complex():  # the modulus takes several times as long, and the factor does not matter here
        columns = torch.view_as_real(A.resolve_conj()).flatten(-2).abs().sum(dim=-2)
        return columns.unflatten(-1, (-1, 2)).sum(dim=-1).amax(dim=-1)
    return A.abs().sum(dim=-2).amax(dim=-1)


def _each(
    solve: Callable[[Tensor], tuple[Tensor, ...]], A: Tensor, outputs: list[tuple[tuple[int, ...], torch.dtype]]
) -> tuple[Tensor, ...]:
    """Solve a whole batch. One failure can reject it all: then each matrix is tried alone, NaN where it fails."""
    errors = (np.linalg.LinAlgError, torch.linalg.LinAlgError)
    try:
        return solve(A)
    except errors:
        results = tuple(A.new_full((len(A), *shape), torch.nan, dtype=dtype) for shape, dtype in outputs)
        for i in range(len(A)):
            try:
                singles = solve(A[i : i + 1])
            except errors:
                continue
            for result, single in zip(results, singles):
                result[i] = single[0]
        return results
