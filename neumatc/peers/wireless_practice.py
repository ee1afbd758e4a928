"""Wireless practice: receivers and precoders as they are computed today, one by one or one for a group."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neumatc import checks, linalg
from neumatc.linalg import gram
from neumatc.peers.exact import from_sionna, host, svd_by_gram


def lmmse_loop(H: Tensor, noise: float) -> Tensor:
    """Compute the LMMSE receivers (H^H H + s I)^{-1} H^H one after the other with NumPy.

    Args:
        H: Channels, shape (B, m, n).
        noise: s, the power of the noise.

    Returns:
        Shape (B, n, m), of the dtype and device of H.
    """
    h = host(H).numpy()
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
    solve, scale = from_sionna("sionna.phy.mimo", "lmmse_matrix"), noise**-0.5
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
