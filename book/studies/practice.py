"""Wireless practice: receivers and precoders as they are computed today, one by one or one for a group."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.interpolate import BSpline, make_interp_spline
from torch import Tensor

import neumatc as nm
from neumatc import checks, linalg
from neumatc.wireless import from_sionna
from studies.solvers import host, svd_by_gram


def sionna_cholesky(A: Tensor) -> Tensor:
    """Invert Hermitian positive definite matrices as L^{-H} L^{-1}, with L^{-1} from Sionna's `inv_cholesky`.

    Args:
        A: Shape (B, n, n). Sionna does not check that the factorisation succeeded.

    Returns:
        The inverses, of the shape, dtype and device of A.
    """
    (invert,) = from_sionna("sionna.phy.utils", "inv_cholesky")

    def solve(a: Tensor) -> Tensor:
        L = invert(a)
        return L.mH @ L

    return linalg.in_threads(solve, A)


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
    (solve,), scale = from_sionna("sionna.phy.mimo", "lmmse_matrix"), noise**-0.5
    precision = "single" if H.dtype == torch.complex64 else "double"
    return linalg.in_threads(lambda h: solve(scale * h, precision=precision) * scale, H)


def aligned_spline(
    family: nm.ParametricMatrix, rank: int, budget: int, degree: int = 3
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return a spline (SciPy, not-a-knot) through leading singular triplets, as an engineer would align them.

    Each triplet is turned by the phase that brings both of its vectors closest to those before it. They keep the order
    of their values, so a crossing is not followed.

    Args:
        family: Of one parameter.
        rank: k.
        budget: Equally spaced parameters, at least ``degree + 1``, at which triplets are computed from the Gram matrix.
        degree: 3, or 1 for linear interpolation.

    Returns:
        p (B, 1) -> U (B, m, k), S (B, k), Vh (B, k, n); its ``exact_solves`` is the budget.

    Raises:
        ValueError: If budget, rank or degree is out of range.
    """
    degree = checks.choice("degree", degree, (1, 3))
    x = torch.linspace(-1, 1, checks.integer("budget", budget, degree + 1), dtype=torch.float64)
    U, S, Vh = svd_by_gram(family(family.box.parameters(x[:, None])), rank)
    overlap = (U[1:].conj() * U[:-1]).sum(dim=1) + (Vh[1:] * Vh[:-1].conj()).sum(dim=2)
    turns = torch.cat([torch.ones_like(overlap[:1]), overlap / overlap.abs()]).cumprod(dim=0)
    factors = U * turns[:, None], S, Vh * turns.conj()[..., None]
    rows = np.concatenate([factor.flatten(1).numpy().view(S.numpy().dtype) for factor in factors], axis=1)
    through = make_interp_spline(x.numpy(), rows, k=degree)
    ends = np.cumsum([0, *(factor[0].numel() * (2 if factor.is_complex() else 1) for factor in factors)])

    def evaluate(p: Tensor) -> tuple[Tensor, ...]:
        basis = BSpline.design_matrix(family.box.cube(p)[:, 0].numpy(), through.t, degree, extrapolate=True)
        values, basis = [], basis.astype(rows.dtype)
        for factor, start, end in zip(factors, ends, ends[1:]):
            value = basis @ coefficients[:, start:end]
            values.append(torch.from_numpy(value.view(factor.numpy().dtype)).view(len(p), *factor.shape[1:]))
        return tuple(values)

    coefficients = np.ascontiguousarray(through.c, dtype=rows.dtype)
    evaluate.exact_solves = budget
    return evaluate


def group_precoders(H: Tensor, rank: int, size: int, *, interpolated: bool = False, vectors: bool = False) -> Tensor:
    """Precode as 5G base stations do: one precoder, that of the middle subcarrier, for each group of subcarriers.

    It consists of the leading right singular vectors there (`svd_by_gram`). What a receiver reaches that decodes the
    streams jointly (`precoded_rate`) depends on their span only. So does interpolation between bases, whose columns
    drift away from the singular vectors; a linear receiver (`stream_rate`) needs the vectors, one by one.

    Args:
        H: Channels on the grid of subcarriers, shape (B, m, n). Only those in the middle of a group are read.
        rank: k, at most min(m, n).
        size: Subcarriers in a group, at least 1; the last group may be smaller.
        interpolated: Interpolate linearly between the middles, each basis being turned towards the one before it
            (orthogonal Procrustes), and make the columns orthonormal. Beyond the outer middles nothing changes.
        vectors: When interpolating, turn each vector by a phase alone towards the one before it, so that all stay near
            singular vectors. They keep the order of their values, so a crossing is not followed.

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
    V = _in_phase(V) if vectors else _turned(V)
    after = torch.searchsorted(middles, place, right=True).clamp(1, len(middles) - 1)
    weight = (place - middles[after - 1]) / (middles[after] - middles[after - 1])
    weight = weight.clamp(0, 1).to(checks.real_dtype(H.dtype))[:, None, None]
    return linalg.orthonormalized(torch.lerp(V[after - 1], V[after], weight.to(H.dtype)))


def _turned(V: Tensor) -> Tensor:
    """Turn each basis towards the one before it: orthogonal Procrustes, along the chain."""
    left, _, right, _ = linalg.svd(V[1:].mH @ V[:-1])
    turns = [torch.eye(V.shape[2], dtype=V.dtype, device=V.device)]
    for turn in left @ right:
        turns.append(turn @ turns[-1])
    return V @ torch.stack(turns)


def _in_phase(V: Tensor) -> Tensor:
    """Turn each vector by the phase that brings it closest to the one before it, along the chain."""
    overlap = (V[1:].conj() * V[:-1]).sum(dim=1)
    phases = torch.where(overlap == 0, 1, torch.sgn(overlap))
    return V * torch.cat([torch.ones_like(phases[:1]), phases]).cumprod(dim=0)[:, None]


def precoded_rate(H: Tensor, V: Tensor, noise: float) -> Tensor:
    r"""Return the achievable rate of one user's downlink with the precoder V, in bit/s/Hz.

    .. math:: R = \log_2 \det\!\Bigl(I + \frac{1}{s \|V\|_F^2} (H V) (H V)^H\Bigr)

    for y = H V x + w with V scaled to unit transmit power, symbols x of equal power and E[w w^H] = s I: what the best
    receiver can reach, which decodes the streams jointly. It depends on the span of orthonormal columns alone. The
    leading right singular vectors of H maximise it.

    Args:
        H: Channels, shape (B, m, n), m receive and n transmit antennas.
        V: Precoders, shape (B, n, k).
        noise: s, above zero: noise power per receive antenna over the total transmit power.

    Returns:
        R, shape (B,), float64.

    Raises:
        TypeError: If H or V is not a complex tensor with three dimensions.
        ValueError: For shapes that do not fit, or a ``noise`` that is not finite and above zero.
    """
    energies = torch.linalg.eigvalsh(_signal(H, V, noise)).clamp_min(0)
    return torch.log1p(energies).sum(dim=1) / math.log(2.0)


def stream_rate(H: Tensor, V: Tensor, noise: float) -> Tensor:
    r"""Return the rate of one user's downlink with the precoder V and a linear receiver, in bit/s/Hz.

    .. math:: R = -\sum_i \log_2 \Bigl[\Bigl(I + \frac{1}{s \|V\|_F^2} (H V)^H H V\Bigr)^{-1}\Bigr]_{ii}

    The LMMSE receiver, stream by stream: each term is log2(1 + SINR), and the other streams are noise. It is at most
    `precoded_rate`, and equal where the columns of H V are orthogonal, as they are for singular vectors. It depends on
    the columns of V, not on their span alone.

    Args:
        H, V, noise: As for `precoded_rate`.

    Returns:
        R, shape (B,), float64.

    Raises:
        TypeError: As `precoded_rate`.
        ValueError: As `precoded_rate`.
    """
    M = _signal(H, V, noise)
    L = torch.linalg.cholesky(M + torch.eye(M.shape[1], dtype=M.dtype, device=M.device))
    errors = torch.linalg.diagonal(torch.cholesky_inverse(L)).real
    return -errors.log2().sum(dim=1)


def _signal(H: Tensor, V: Tensor, noise: float) -> Tensor:
    """Return (H V)^H H V over the noise, for V scaled to unit power, shape (B, k, k), complex128."""
    noise = checks.number("noise", noise, above=0.0)
    for name, x in (("H", H), ("V", V)):
        if not isinstance(x, Tensor) or x.ndim != 3 or not x.is_complex():
            raise TypeError(f"`{name}`: expected a complex tensor with three dimensions, got {checks.describe(x)}.")
    if (len(V), V.shape[1]) != (len(H), H.shape[2]):
        raise ValueError(f"`V`: expected shape ({len(H)}, {H.shape[2]}, k) for `H`, got {tuple(V.shape)}.")
    V = V.to(torch.complex128)
    G = H.to(torch.complex128) @ V
    power = torch.linalg.matrix_norm(V).square()[:, None, None]
    return G.mH @ G / (power * noise)
