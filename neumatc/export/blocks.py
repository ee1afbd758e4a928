r"""Vectors that are followed as a block, in operators of ONNX: the eigenvectors of a small Hermitian matrix by Jacobi.

A round rotates disjoint pairs of columns at once, by products with matrices that differ from the identity there, and
so many rounds that every pair has its turn are a sweep (Golub and Van Loan, *Matrix Computations*, 2013, section 8.5).
Complex matrices A + jB stand as real ones, [[A, -B], [B, A]]. All is in double precision.
"""

from __future__ import annotations

import numpy as np

from neumatc.export.endings import best, placed
from neumatc.export.operators import Operators
from neumatc.export.plain import Plain, Table

# Convergence is quadratic: after so many sweeps of up to `plain.LARGEST` columns nothing is left but rounding; of two
# columns after the first.
_SWEEPS = 9
# What may be left beside the diagonal, relative to the norm; where more is, everything is NaN.
_LEFT = 1e-13
_TINY = np.finfo(float).tiny
# A matrix as its real and imaginary parts, of a real one without the second.
Parts = tuple[str, ...]


def untangled(g: Operators, plain: Plain, values: list[str], guide: str | None) -> list[str]:
    """Return the factors in order from the values of maps, with a matrix in the place of singular or eigenvalues."""
    own, tables = plain.order, plain.factors
    by, kind = own["by"], plain.precision
    J, k = tables[by].shape[0], own["count"]
    s, P = _eigen(g, _parts(g, tables[by], values[by]), J)
    order = best(g, s, own, np.float64)
    s = g.along(s, order)
    P = tuple(placed(g, part, order, 2, [J, k]) for part in P)
    toward = (np.eye(J, k)[None],) if guide is None else _parts(g, plain.guide, guide)
    P = _towards(g, P, toward)
    found = list(values)
    found[by] = g.cast(g("Abs", s) if own["signed"] else s, kind)
    left = P
    if own["signed"]:
        rounding = g("Mul", g("ReduceMax", g("Abs", s), axes=[1], keepdims=1), np.float64(own["equal"]))
        signs = g("Where", g("Less", g("Add", s, rounding), np.float64(0)), np.float64(-1), np.float64(1))
        left = tuple(g("Mul", part, g("Unsqueeze", signs, np.array([1]))) for part in P)
    for i, matrix, first in ((own["columns"], left, False), (own["rows"], _adjoint(g, P), True)):
        if i >= 0:
            fitted = _parts(g, tables[i], values[i])
            value = _product(g, matrix, fitted) if first else _product(g, fitted, matrix)
            found[i] = g.cast(_joined(g, value), kind)
    return found


def _parts(g: Operators, table: Table, value: str) -> Parts:
    value = g.cast(value, float)
    return tuple(g("Gather", value, np.int64(c), axis=3) for c in (0, 1)) if table.complex else (value,)


def _joined(g: Operators, parts: Parts) -> str:
    return parts[0] if len(parts) == 1 else g("Concat", *(g("Unsqueeze", x, np.array([3])) for x in parts), axis=3)


def _transposed(g: Operators, x: str) -> str:
    return g("Transpose", x, perm=[0, 2, 1])


def _adjoint(g: Operators, A: Parts) -> Parts:
    real, *rest = (_transposed(g, part) for part in A)
    return (real, *(g("Neg", part) for part in rest))


def _product(g: Operators, A: Parts, B: Parts, operator: str = "MatMul") -> Parts:
    if len(A) == 1:
        return (g(operator, A[0], B[0]),)
    real = g("Sub", g(operator, A[0], B[0]), g(operator, A[1], B[1]))
    return real, g("Add", g(operator, A[0], B[1]), g(operator, A[1], B[0]))


def _towards(g: Operators, P: Parts, guide: Parts) -> Parts:
    """Turn columns so that their products with those of the guide are positive."""
    guide = guide if len(guide) == len(P) else (*guide, 0 * guide[0])
    conjugate = (P[0], *(g("Neg", part) for part in P[1:]))
    overlap = tuple(g("ReduceSum", x, np.array([1]), keepdims=1) for x in _product(g, conjugate, guide, "Mul"))
    size = _size(g, overlap)
    none = g("LessOrEqual", size, np.float64(0))
    phase = [g("Div", x, g("Max", size, _TINY)) for x in overlap]
    phase[0] = g("Where", none, np.float64(1), phase[0])
    return _product(g, P, tuple(phase), "Mul")


def _size(g: Operators, z: Parts) -> str:
    squares = [g("Mul", x, x) for x in z]
    return g("Sqrt", squares[0] if len(z) == 1 else g("Add", *squares))


def _eigen(g: Operators, M: Parts, J: int) -> tuple[str, Parts]:
    """Return eigenvalues (B, J), in any order, and eigenvectors of the Hermitian part of M."""
    M = tuple(g("Mul", g(sign, x, _transposed(g, x)), np.float64(0.5)) for sign, x in zip(("Add", "Sub"), M))
    A, N = M[0], J * len(M)
    if len(M) == 2:
        rows = g("Concat", M[0], g("Neg", M[1]), axis=2), g("Concat", M[1], M[0], axis=2)
        A = g("Concat", *rows, axis=1)
    V = np.eye(N)[None]
    for pairs in _rounds(J) * (_SWEEPS if J > 2 else 2):
        G = _rotation(g, A, pairs, J, len(M))
        A, V = g("MatMul", _transposed(g, G), g("MatMul", A, G)), g("MatMul", V, G)
    beside = g("Mul", A, 1 - np.eye(N))
    left, norm = (g("ReduceSum", g("Mul", x, x), np.array([1, 2]), keepdims=0) for x in (beside, A))
    good = g("LessOrEqual", left, g("Mul", norm, np.float64(_LEFT**2)))
    wrong = g("Unsqueeze", g("Where", good, np.float64(0), np.float64(np.nan)), np.array([1]))
    values = g("Gather", g.shaped(A, N * N), np.arange(J) * (N + 1), axis=1)
    V = g("Add", V, g("Unsqueeze", wrong, np.array([2])))
    columns = g("Gather", V, np.arange(J), axis=2)
    parts = tuple(g("Gather", columns, np.arange(J) + J * c, axis=1) for c in range(len(M)))
    return g("Add", values, wrong), parts


def _rounds(J: int) -> list[list[tuple[int, int]]]:
    """Return pairs such that each meets each once, as in a tournament."""
    ring, rounds = [*range(J), *[J] * (J % 2 and J > 1)], []
    for _ in range(len(ring) - 1):
        pairs = zip(ring[: len(ring) // 2], ring[::-1])
        rounds.append([(min(pair), max(pair)) for pair in pairs if max(pair) < J])
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return rounds


def _rotation(g: Operators, A: str, pairs: list[tuple[int, int]], J: int, fields: int) -> str:
    """Return the matrix that makes the entries of A at some pairs zero: cosines, and sines times phases."""
    p, q = np.array(pairs).T
    N, flat = J * fields, g.shaped(A, (J * fields) ** 2)
    half = g("Sub", g("Gather", flat, p * N + p, axis=1), g("Gather", flat, q * N + q, axis=1))
    half = g("Mul", half, np.float64(0.5))
    b = tuple(g("Gather", flat, (J * c + p) * N + q, axis=1) for c in range(fields))
    size, width = _size(g, b), g("Abs", half)
    tangent = g("Div", size, g("Max", g("Add", width, _size(g, (half, size))), _TINY))
    tangent = g("Mul", tangent, g("Where", g("Less", half, np.float64(0)), np.float64(-1), np.float64(1)))
    cosine = g("Div", np.float64(1), g("Sqrt", g("Add", g("Mul", tangent, tangent), np.float64(1))))
    sine = g("Div", g("Mul", tangent, cosine), g("Max", size, _TINY))
    places = np.zeros((1 + fields, len(pairs), N, N))
    for i, (p, q) in enumerate(pairs):
        for c in range(0, N, J):
            places[0, i, [c + p, c + q], [c + p, c + q]] = 1
            places[1, i, [c + p, c + q], [c + q, c + p]] = -1, 1
        if fields == 2:
            places[2, i, [p, q, J + p, J + q], [J + q, J + p, q, p]] = 1, 1, -1, -1
    turned = g("Concat", cosine, *(g("Mul", sine, x) for x in b), axis=1)
    rest = np.eye(N) - places[0].sum(axis=0)
    G = g("Add", g("MatMul", turned, places.reshape(-1, N * N)), rest.reshape(1, -1))
    return g.shaped(G, N, N)
