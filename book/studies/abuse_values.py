"""Certified values under abuse: every bound against the true error, in exact arithmetic.

    python -m studies.abuse_values --count 1000000

certifies that many values, accepted and replaced, of every operation with a bound: sizes up to 4, all dtypes, condition
numbers up to 1e15, sizes from 1e-6 to 1e6, values that are wrong by a rounding error up to ten times their size, and
tolerances down to 1e-12. It prints counts, and ends with an error if one bound is below the true error.

True errors are computed in integers: inverses, solutions and receivers from the matrix as it is, by the method of
Faddeev and LeVerrier; decompositions of matrices that are made from integer matrices with orthogonal columns, or
triangular ones, so that the exact answer is known.
"""

from __future__ import annotations

import argparse
import collections
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import neumatc as nm
from neumatc import linalg

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
# Values of one call of `certify`.
BATCH = 1000
SHAPES = ((1, 1), (2, 2), (3, 3), (4, 4), (3, 2), (2, 3), (4, 2), (2, 4), (4, 3))
LINEAR = (nm.Inverse, nm.PseudoInverse, nm.LMMSE, nm.RZF, nm.RegularizedInverse, nm.Solve)
SPECTRAL = (nm.SVD, nm.Eigh, nm.Subspace, nm.Projector)


@dataclass(frozen=True)
class Exact:
    """Matrices of Gaussian integers, shape (B, m, n), as arrays of Python's integers; without ``im`` they are real."""

    re: np.ndarray
    im: np.ndarray | None = None

    def __matmul__(self, other: Exact) -> Exact:
        if self.im is None and other.im is None:
            return Exact(self.re @ other.re)
        a, b, c, d = self.re, self._imaginary, other.re, other._imaginary
        return Exact(a @ c - b @ d, a @ d + b @ c)

    def __sub__(self, other: Exact) -> Exact:
        real = self.im is None and other.im is None
        return Exact(self.re - other.re, None if real else self._imaginary - other._imaginary)

    @property
    def _imaginary(self) -> np.ndarray:
        return 0 * self.re if self.im is None else self.im

    @property
    def adjoint(self) -> Exact:
        """The conjugate transposes."""
        return Exact(self.re.swapaxes(1, 2), None if self.im is None else -self.im.swapaxes(1, 2))

    def times(self, factor: np.ndarray) -> Exact:
        """Multiply each matrix by an integer, shape (B,)."""
        return Exact(self.re * factor[:, None, None], None if self.im is None else self.im * factor[:, None, None])

    def columns(self, which: slice) -> Exact:
        """Return some columns of each matrix."""
        return Exact(self.re[:, :, which], None if self.im is None else self.im[:, :, which])

    def squares(self) -> np.ndarray:
        """Return the squared Frobenius norms, shape (B,)."""
        return (self.re**2).sum(axis=(1, 2)) + (0 if self.im is None else (self.im**2).sum(axis=(1, 2)))


def integers(A: Tensor) -> tuple[Exact, np.ndarray]:
    """Return finite numbers, shape (B, m, n), as integers, and b (B,): they are divided by 2^b."""
    parts = [A.real, A.imag] if A.is_complex() else [A]
    mantissa, exponent = np.frexp(np.stack([x.double().numpy() for x in parts], axis=1))
    least = np.where(mantissa == 0, 2000, exponent).min(axis=(1, 2, 3))
    shifts = np.where(mantissa == 0, 0, exponent - least[:, None, None, None])
    whole = (mantissa * 2.0**53).astype(np.int64).astype(object) * two_to(shifts)
    return Exact(whole[:, 0], whole[:, 1] if len(parts) > 1 else None), 53 - least


def two_to(n: np.ndarray) -> np.ndarray:
    """Return powers of two as Python's integers."""
    return np.array([1 << int(k) for k in n.ravel()], dtype=object).reshape(n.shape)


def in_one_unit(value: tuple[Exact, np.ndarray], reference: Exact) -> tuple[Exact, Exact]:
    """Return matrices that are to be divided by powers of two, and others that are not, as multiples of one unit."""
    x, places = value
    return x.times(two_to(np.maximum(-places, 0))), reference.times(two_to(np.maximum(places, 0)))


def inverted(L: Exact) -> tuple[Exact, np.ndarray]:
    """Return integers M and d with M / d the inverse of Hermitian L (Faddeev and LeVerrier); d = 0 if there is none."""
    n = L.re.shape[1]
    unit = np.broadcast_to(np.eye(n, dtype=int).astype(object), L.re.shape)
    M = Exact(unit)
    for k in range(1, n + 1):
        LM = L @ M
        c = -np.trace(LM.re, axis1=1, axis2=2) // k
        if k < n:
            M = LM - Exact(unit).times(-c)
    return M.times(np.full(len(c), -1, dtype=object)), c


def linear_error(operation: nm.Operation, A: Tensor, X: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return integers (B,) whose quotient is the squared relative error of inverses and receivers; 0 below: none."""
    right = isinstance(operation, nm.Solve)
    flipped = A.shape[1] < A.shape[2] and not isinstance(operation, nm.RegularizedInverse) and not right
    if flipped:
        A, X = A.mH.resolve_conj(), X.mH.resolve_conj()
    (a, bits), (x, places), n = integers(A), integers(X), A.shape[1]
    a, b = (a.columns(slice(0, n)), a.columns(slice(n, None))) if right else (a, None)
    L = a.adjoint @ a
    if noise := getattr(operation, "noise", 0.0):
        top, bottom = noise.as_integer_ratio()
        more = np.maximum(0, -((2 * bits - bottom.bit_length() + 1) // 2))
        a, bits = a.times(two_to(more)), bits + more
        L, added = a.adjoint @ a, top * two_to(2 * bits) // bottom
        L = L - Exact(np.eye(L.re.shape[1], dtype=int).astype(object)[None] * -added[:, None, None])
    M, d = inverted(L)
    gram = isinstance(operation, nm.RegularizedInverse)
    M, power = (M, 2 * bits) if gram else (M @ a.adjoint, bits)
    M, power = (M @ b, 0 * bits) if right else (M, power)
    # X 2^-places against M 2^power / d; powers of two can be negative.
    up, down = np.maximum(power + places, 0), np.maximum(-power - places, 0)
    M, exists = M.times(two_to(up)), d != 0
    above, below = (x.times(d * two_to(down)) - M).squares(), M.squares()
    return np.where(exists, above, 1), np.where(exists, below, 0)


def orthogonal(n: int, count: int, draw: np.random.Generator, complex_: bool) -> Exact:
    """Return integer matrices whose columns are orthogonal and of one length: quaternions, times powers of i."""
    a, b, c, d = draw.integers(-3, 4, (4, count)) + np.array([[4], [0], [0], [0]])
    if n == 2:
        Q = [[a, -b], [b, a]]
    elif n == 3:
        Q = [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d],
        ]
    else:
        Q = [[a, -b, -c, -d], [b, a, -d, c], [c, d, a, -b], [d, -c, b, a]]
    Q = np.moveaxis(np.array(Q), 2, 0).astype(object)
    if not complex_:
        return Exact(Q)
    turns = draw.integers(0, 4, (count, 1, n))
    real, imaginary = (np.array([1, 0, -1, 0])[turns], np.array([0, 1, 0, -1])[turns])
    return Exact(Q * real.astype(object), Q * imaginary.astype(object))


def floats(A: Exact, dtype: torch.dtype) -> tuple[Tensor, np.ndarray]:
    """Return matrices as tensors, and which of them are exact in this precision."""
    A = A if dtype.is_complex else Exact(A.re)
    x = torch.from_numpy(A.re.astype(float) + (0 if A.im is None else 1j * A.im.astype(float))).to(dtype)
    most = 2**24 if dtype in (torch.float32, torch.complex64) else 2**53
    parts = [A.re] if A.im is None else [A.re, A.im]
    return x, np.all([(np.abs(part) <= most).all(axis=(1, 2)) for part in parts], axis=0)


def _columns(A: Exact, which: np.ndarray) -> Exact:
    at = which[:, None, :]
    return Exact(np.take_along_axis(A.re, at, 2), None if A.im is None else np.take_along_axis(A.im, at, 2))


def linear_case(draw: np.random.Generator, dtype: torch.dtype) -> tuple[nm.Operation, Tensor, object]:
    """Return an operation, matrices, and what computes the true error of values."""
    kind = LINEAR[draw.integers(len(LINEAR))]
    m, n = SHAPES[draw.integers(4 if kind in (nm.Inverse, nm.Solve) else len(SHAPES))]
    k, top = min(m, n), 15 if dtype in (torch.float64, torch.complex128) else 8
    wide = linalg.wide(torch.empty(0, dtype=dtype)).dtype
    noise = torch.Generator().manual_seed(int(draw.integers(2**62)))
    U, V = (torch.linalg.qr(torch.randn(BATCH, s, k, dtype=wide, generator=noise)).Q for s in (m, n))
    low = -top * torch.from_numpy(draw.random(BATCH))
    S = 10 ** (low[:, None] * torch.linspace(0, 1, k, dtype=torch.float64)[None, :])
    size = 10 ** draw.uniform(-6, 6)
    A = ((U * S[:, None, :]) @ V.mH * size).to(dtype)
    if kind in (nm.Inverse, nm.PseudoInverse):
        return kind(), A, linear_error
    if kind is nm.Solve:
        B = torch.randn(BATCH, m, int(draw.integers(1, 3)), dtype=wide, generator=noise).to(dtype)
        return kind(B.shape[2]), torch.cat([A, B], dim=2), linear_error
    # The noise from well above the singular values to well below the smallest.
    operation = kind(float(size**2 * 10 ** draw.uniform(-2 * top - 1, 1)))
    return operation, A, linear_error


def spectral_case(draw: np.random.Generator, dtype: torch.dtype) -> tuple[nm.Operation, Tensor, object]:
    """The same for decompositions, of matrices whose own is known."""
    kind = SPECTRAL[draw.integers(len(SPECTRAL))]
    shapes = [shape for shape in SHAPES if min(shape) > 1 and (shape[0] == shape[1] or kind is not nm.Eigh)]
    m, n = shapes[draw.integers(len(shapes))]
    r = min(m, n)
    k = int(draw.integers(1, r + 1))
    left = orthogonal(m, BATCH, draw, dtype.is_complex)
    right = left if kind is nm.Eigh else orthogonal(n, BATCH, draw, dtype.is_complex)
    most = 2**8 if dtype in (torch.float32, torch.complex64) else 2 ** int(draw.integers(4, 30))
    values = draw.integers(1, most, (BATCH, r))
    near = draw.random(BATCH) < 0.3  # values next to each other
    values[near] = most + draw.integers(0, 2 * r, (int(near.sum()), r))
    if kind is nm.Eigh:
        values = values * draw.choice([-1, 1], values.shape)
    order = np.argsort(-np.abs(values), axis=1)
    size = np.abs(np.take_along_axis(values, order, 1))
    tied = size[:, k - 1] == size[:, k] if k < r else np.zeros(BATCH, bool)
    own = np.take_along_axis(values, order, 1).astype(object)
    left, right = _columns(left, order), _columns(right, order)

    def part(count: int) -> Exact:
        U, V = left.columns(slice(count)), right.columns(slice(count))
        s = own[:, None, :count]
        return Exact(U.re * s, None if U.im is None else U.im * s) @ V.adjoint

    A, exact = floats(part(r), dtype)
    if kind in (nm.Subspace, nm.Projector):
        operation = kind(k, ("left", "right")[draw.integers(2)])
        U = (left if operation.side == "left" else right).columns(slice(k))
        reference, length = U @ U.adjoint, (U.adjoint @ U).re[:, 0, 0]
    else:
        operation, reference, length = kind(k), part(k), np.full(BATCH, 1, dtype=object)

    def error(operation: nm.Operation, A: Tensor, *factors: Tensor) -> tuple[np.ndarray, np.ndarray]:
        value, expected = in_one_unit(product_of(operation, factors), reference)
        below = expected.squares() * np.where(tied | ~exact, 0, 1)
        return (value.times(length) - expected).squares(), below

    # Inverses of a power of two, so that all sizes are seen.
    scale = 2.0 ** int(draw.integers(-20, 20))
    return operation, A * scale, lambda op, A, *factors: error(op, A, *_unscaled(op, factors, scale))


def cholesky_case(draw: np.random.Generator, dtype: torch.dtype) -> tuple[nm.Operation, Tensor, object]:
    """The same for Cholesky factors, of products of integer ones, whose diagonal may be small beside the rest."""
    n, most = int(draw.integers(1, 5)), int(draw.integers(0, 9 if dtype in (torch.float32, torch.complex64) else 23))
    below = np.tri(n, k=-1, dtype=int)
    re, im = (below * draw.integers(-(2**most), 2**most + 1, (BATCH, n, n)) for _ in range(2))
    diagonal = draw.integers(1, 2 ** int(draw.integers(0, most + 1)) + 1, (BATCH, n, 1)) * np.eye(n, dtype=int)
    L = Exact((re + diagonal).astype(object), im.astype(object) if dtype.is_complex else None)
    A, exact = floats(L @ L.adjoint, dtype)

    def error(operation: nm.Operation, A: Tensor, value: Tensor) -> tuple[np.ndarray, np.ndarray]:
        value, expected = in_one_unit(integers(value / scale), L)
        return (value - expected).squares(), expected.squares() * np.where(exact, 1, 0)

    scale = 2.0 ** int(draw.integers(-20, 20))
    return nm.Cholesky(), A * scale**2, error


def _unscaled(operation: nm.Operation, factors: tuple[Tensor, ...], scale: float) -> list[Tensor]:
    return [x / scale if power else x for x, power in zip(factors, operation.powers, strict=True)]


def product_of(operation: nm.Operation, factors: tuple[Tensor, ...]) -> tuple[Exact, np.ndarray]:
    """Return the matrices that factors stand for as integers, and the bits by which they are to be divided."""
    found = [integers(x if x.ndim == 3 else torch.diag_embed(x)) for x in factors]
    if isinstance(operation, nm.Projector):
        return found[0]
    if isinstance(operation, nm.Subspace):
        (U, bits), at = found[0], 2
        return U @ U.adjoint, at * bits
    if isinstance(operation, nm.SVD):
        (U, a), (S, b), (Vh, c) = found
        return U @ S @ Vh, a + b + c
    (w, a), (V, b) = found
    return V @ w @ V.adjoint, a + 2 * b


@dataclass(frozen=True)
class Listed(nm.Embedding):
    """Functions that are one at their own of ``length`` points, zero at the others: rows of a core are the values."""

    length: int = 1
    precise = True

    def count(self, dimension: int) -> int:
        """One for each point."""
        return self.length

    def features(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Evaluate all of them, mostly zeros."""
        return torch.nn.functional.one_hot(self._at(x), self.length).to(x.dtype)

    def contract(self, x: Tensor, weights: dict, columns: Tensor, out: Tensor | None = None) -> Tensor:
        """Take the rows of the core."""
        found = columns[self._at(x)]
        return found if out is None else out.copy_(found)

    def _at(self, x: Tensor) -> Tensor:
        return ((x[:, 0] + 1) / 2 * (self.length - 1)).round().long()


def given(operation: nm.Operation, A: Tensor, factors: tuple[Tensor, ...]) -> tuple[nm.Surrogate, nm.Problem, Tensor]:
    """Return a surrogate with these values at 0, 1, 2, ..., the problem with these matrices there, and the points."""
    real = A.real.dtype
    p = torch.arange(len(A), dtype=real)
    family = nm.ParametricMatrix(lambda q: A[q[:, 0].round().long()], 0.0, float(len(A) - 1), dtype=real)
    embedding = Listed(len(A))
    names = [factor.name for factor in operation.factors(*family.shape)]
    maps = [nm.FactorMap(name, x, embedding, {}) for name, x in zip(names, factors, strict=True)]
    surrogate = nm.Surrogate(operation, family.shape, maps, family.box, nm.Report("Given", {}, 1, 0))
    return surrogate, nm.Problem(family, operation), p


# Each as often as it has operations, about.
CASES = (*3 * (linear_case,), *2 * (spectral_case,), cholesky_case)


def certified(draw: np.random.Generator) -> tuple[str, collections.Counter]:
    """Certify one batch, and count what is wrong with it."""
    dtype = DTYPES[draw.integers(len(DTYPES))]
    operation, A, error = CASES[draw.integers(len(CASES))](draw, dtype)
    noise = torch.Generator().manual_seed(int(draw.integers(2**62)))
    factors, _ = operation.exact(linalg.wide(A))
    size = torch.from_numpy(10 ** draw.uniform(-18, 1, len(A)))
    perturbed = []
    for x, factor in zip(factors, operation.factors(*A.shape[1:]), strict=True):
        x = torch.nan_to_num(x)
        own = (size * linalg.norm(x) / math.sqrt(x[0].numel())).view(-1, *(1,) * (x.ndim - 1))
        x = x + own * torch.randn(x.shape, dtype=x.dtype, generator=noise)
        perturbed.append(torch.nan_to_num(x.to(factor.dtype(dtype))))
    surrogate, problem, p = given(operation, A, tuple(perturbed))
    rtol = float(10 ** draw.uniform(-12 if A.real.dtype == torch.float64 else -6, -1))
    checked = nm.certify(surrogate, problem, p, rtol=rtol)
    value = (checked.value,) if isinstance(checked.value, Tensor) else checked.value
    return type(operation).__name__, judged(checked, error(operation, A, *map(torch.nan_to_num, value)), rtol)


def judged(
    checked: nm.certification.Certified, error: tuple[np.ndarray, np.ndarray], rtol: float
) -> collections.Counter:
    """Count values by what `certify` says of them and what is true, of squared errors as quotients of integers."""
    counts = collections.Counter()
    limit = rtol.as_integer_ratio()
    masks = zip(*error, checked.bound.tolist(), checked.accepted.tolist(), checked.failed.tolist(), strict=True)
    for above, below, bound, accepted, failed in masks:
        counts["values"] += 1
        counts["accepted" if accepted else "replaced"] += 1
        counts["failed"] += failed
        if bound == math.inf:
            counts["without a bound"] += 1
            counts["WRONG: not failed without a bound"] += not failed
            continue
        counts["WRONG: bound below the true error"] += not _at_most(above, below, bound.as_integer_ratio())
        counts["WRONG: accepted or returned above the tolerance"] += not failed and not _at_most(above, below, limit)
    return counts


def _at_most(above: int, below: int, limit: tuple[int, int]) -> bool:
    """Whether above / below <= limit^2; 0 / 0 is 0, and without an exact answer (below = 0) nothing is."""
    return above * limit[1] ** 2 <= below * limit[0] ** 2


def run(count: int, seed: int = 0, seconds: float = math.inf) -> dict[str, collections.Counter]:
    """Certify ``count`` values, or as many as there is time for, and return what is found by operation."""
    draw, found, total = np.random.default_rng(seed), collections.defaultdict(collections.Counter), 0
    end = time.perf_counter() + seconds
    while total < count and time.perf_counter() < end:
        name, counts = certified(draw)
        found[name] += counts
        total += counts["values"]
    return dict(found)


def main(arguments: list[str] | None = None) -> int:
    """Run, print the counts, and return how many values are wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    start = time.perf_counter()
    found = run(options.count, options.seed, options.seconds)
    whole = sum(found.values(), collections.Counter())
    for name, counts in [*sorted(found.items()), ("all", whole)]:
        print(f"{name}: " + ", ".join(f"{number:,} {word}" for word, number in sorted(counts.items()) if number))
    wrong = sum(number for word, number in whole.items() if word.startswith("WRONG"))
    print(f"{wrong} wrong of {whole['values']:,} values, in {time.perf_counter() - start:.0f} s")
    return wrong


if __name__ == "__main__":
    raise SystemExit(min(1, main()))
