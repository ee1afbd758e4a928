"""Inverses in twice the working precision, with proved bounds, of matrices for which double precision is too little."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from neumatc import linalg
from neumatc.linalg import beside, identity_like, norm, power_of_two, two_norm_above

# Numbers are cut into so many integers of some 20 bits, of whose products sums are exact in double precision: 100 bits,
# about as many as two numbers hold.
_SLICES = 5
_EPS = torch.finfo(torch.float64).eps
# What rounding can do to the few operations by which a bound is made of norms, with a wide margin.
_MARGIN = 1 + 1e-9
# Norms below which numbers that underflow are not small against a matrix, and, of an inverse, above which they matter.
_LEAST, _MOST = 1e-280, 1e140
# A number as an unevaluated sum of two, a large one and a small one.
Pair = tuple[Tensor, Tensor]


def two_sum(a: Tensor, b: Tensor) -> Pair:
    """Return a + b rounded, and the rounding error, exactly (Knuth, *The Art of Computer Programming* 2, 4.2.2)."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def product(A: Pair, B: Pair) -> tuple[Pair, float]:
    r"""Multiply matrices of pairs in about twice the double precision, by products of double precision only.

    Rows of A and columns of B are divided by powers of two and cut into integers :math:`q_1, q_2, \dots` with
    :math:`a = \sum_t 2^{-t b} q_t`, of as many bits b as leave sums of products below 2^53: they are exact in any order
    (Ozaki, Ogita, Oishi and Rump, Numer. Algorithms 59, 2012). Those that count are added in pairs.

    Args:
        A: Two real tensors of shape (B, m, n), float64.
        B: Two of shape (B, n, k).

    Returns:
        Their product as a pair (B, m, k), and a number c: the error is at most :math:`c \|A\|_F \|B\|_F`. Entry by
        entry it is :math:`n (3 \cdot 2^{-5 b} + 28 \cdot 2^{-106})` times the powers of two of row and column, from
        what is cut off and from rounding in the sum of small parts; the powers are at most twice the largest entries.
    """
    n = A[0].shape[2]
    bits = (53 - math.ceil(math.log2(n * _SLICES))) // 2
    left, rows = _sliced(A, bits)
    right, columns = _sliced((B[0].mT, B[1].mT), bits)
    left, right = torch.cat(left, dim=2), torch.cat(right[::-1], dim=2).mT
    high = low = left.new_zeros(())
    for level in range(1, _SLICES + 1):  # slices s and t with s + t = level + 1
        term = left[:, :, : level * n] @ right[:, (_SLICES - level) * n :]
        high, rest = two_sum(high, term * 2.0 ** (-bits * (level + 1)))
        low = low + rest
    scale = rows * columns.mT
    high, low = two_sum(high, low)
    return (high * scale, low * scale), 4 * n * (3 * 2.0 ** (-_SLICES * bits) + 28 * 2.0**-106)


def _sliced(A: Pair, bits: int) -> tuple[list[Tensor], Tensor]:
    """Return integers that make up the rows of a pair, and the powers of two (B, m, 1) by which rows are divided."""
    scale = power_of_two(A[0].abs().amax(dim=2, keepdim=True))
    (high, low), slices = (x / scale for x in A), []
    for _ in range(_SLICES):
        high, low = high * 2.0**bits, low * 2.0**bits
        slices.append(high.round())
        high, low = two_sum(high - slices[-1], low)
    return slices, scale


def pseudo_inverse(A: Tensor, noise: float = 0.0, *, gram: bool = False) -> tuple[tuple[Tensor], Tensor]:
    r"""Compute :math:`(A^H A + s I)^{-1} A^H`, or with ``gram`` :math:`(A^H A + s I)^{-1}`, and prove how well.

    It is made of the pseudo-inverse of the matrix M of A above :math:`\sqrt s I`. With T the inverse of the triangular
    factor of M, in double precision, :math:`W = M T` has nearly orthonormal columns, and if
    :math:`E = I - W^H W` has :math:`\|E\|_2 \le \epsilon < 1` then M has full rank, and whatever T is

    .. math:: (M^H M)^{-1} M^H = T (I - E)^{-1} W^H, \qquad (M^H M)^{-1} = T (I - E)^{-1} T^H ,

    so with F for what stands on the right, of W^H the columns that belong to A, and :math:`Z = F + V`,
    :math:`V \approx (I - E)^{-1} E F`, the value X = T Z is wrong by

    .. math:: \|T (I - E)^{-1} F - T Z\|_F \le \|T\|_2 \, \|V - E Z\|_F / (1 - \epsilon) .

    W, E and X are computed by `product` and `two_sum`, with bounds of their errors. Since the condition number enters
    as it is, not its square, the proof goes through up to about 1e15, of A^H A + s I up to 1e30.

    Args:
        A: Shape (B, m, n), float64 or complex128, finite.
        noise: s, at least zero.
        gram: What is asked for.

    Returns:
        A tuple of X, shape (B, n, m) or (B, n, n), and bounds of its relative error in the Frobenius norm, shape (B,),
        Inf where nothing is proved.
    """
    if not gram and A.shape[1] < A.shape[2]:
        (X,), bound = pseudo_inverse(A.mH, noise)
        return (X.mH,), bound
    root, n = math.sqrt(noise), A.shape[2]
    rest = float(Fraction(noise) - Fraction(root) ** 2) / (2 * root) if noise else 0.0
    unit = power_of_two(norm(A).clamp_min(root))[:, None, None]
    A = A / unit
    own = identity_like(A) / unit
    # An upper triangular matrix as LAPACK leaves it may be singular: then T is not finite, and nothing is proved.
    R = torch.linalg.qr(torch.cat([A, root * own], dim=1) if noise else A)[1]
    T = _real(torch.linalg.solve_triangular(R, identity_like(R), upper=True))
    M, low = _real(A), torch.zeros_like(_real(A))
    if noise:
        M, low = torch.cat([M, _real(root * own)], dim=1), torch.cat([low, _real(rest * own)], dim=1)
    W, c = product((M, low), (T, torch.zeros_like(T)))
    unsure = c * norm(M) * norm(T)
    P, c = product((W[0].mT, W[1].mT), W)
    E = (identity_like(T) - P[0]) - P[1]
    wrong = 2 * _EPS * norm(E) + c * norm(W[0]) ** 2 + (2 * norm(W[0]) + unsure) * unsure
    epsilon = two_norm_above(E) + wrong
    good = epsilon < 1
    E = torch.where(good[:, None, None], E, 0)
    F = (T.mT, torch.zeros_like(T)) if gram else (W[0].mT, W[1].mT)
    F = tuple(x[:, :, : n if gram else A.shape[1]] for x in F)  # of a complex matrix, what makes the columns of X
    V = linalg.solve(identity_like(E) - E, E @ torch.where(good[:, None, None], F[0], 0))[0]
    high, low = two_sum(F[0], V)
    X, c = product((T, torch.zeros_like(T)), (high, low + F[1]))
    size, slack = norm(high) * (1 + _EPS), 4 * (sum(T.shape[1:]) + 4) * _EPS
    defect = norm(V - E @ high) * (1 + slack) + slack * (norm(E) * size + norm(V)) + (wrong + c) * size
    defect = defect if gram else defect + unsure
    error = (two_norm_above(T) * defect / (1 - epsilon) + c * norm(T) * size + norm(X[1])) * _MARGIN
    value = X[0][:, :n] if not A.is_complex() else torch.complex(X[0][:, :n], X[0][:, n:])
    bound = beside(error, value) + 2.0**-98  # the root of s is known to 2^-102 of itself
    value = value / unit / unit if gram else value / unit
    sizes = torch.stack([norm(value), norm(A)])
    proved = good & (norm(T) < _MOST) & bound.isfinite() & ((sizes > _LEAST) & (sizes < torch.inf)).all(dim=0)
    return (value,), torch.where(proved, bound, torch.inf)


def _real(A: Tensor) -> Tensor:
    """Return the real matrices that stand for complex ones, of twice the size: sums and products are the same."""
    if not A.is_complex():
        return A
    return torch.cat([torch.cat([A.real, -A.imag], dim=2), torch.cat([A.imag, A.real], dim=2)], dim=1)
