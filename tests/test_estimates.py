"""Estimates of matrix functions: never a tenth of the true error, for matrices of sizes up to 1e300."""

import math

import mpmath
import numpy as np
import pytest
import torch
from conftest import real

import neumatc as nm
from neumatc import linalg
from studies import abuse_values

FUNCTIONS = {
    "exp": mpmath.exp,
    "sqrt": mpmath.sqrt,
    "inverse_sqrt": lambda z: 1 / mpmath.sqrt(z),
    "log": mpmath.log,
}
# Matrices of one case, and the factor by which an estimate may be too small.
FEW, ESTIMATE = 50, 10


def function_case(draw, dtype):
    """Return an operation, matrices, and what computes the true error of values.

    The matrices are [a -b; b a], with the eigenvalues a + ib and a - ib, or [a b; 0 c].
    """
    name = list(FUNCTIONS)[draw.integers(len(FUNCTIONS))]
    rotation, most = draw.random() < 0.5, 300 if dtype in (torch.float64, torch.complex128) else 30
    top = draw.choice([1, 16, most])

    def entry():
        x = draw.choice([-1.0, 1.0], FEW) * 10 ** draw.uniform(-2, top, FEW)
        return np.where(draw.random(FEW) < 0.2, 1 + 10 ** draw.uniform(-16, 0, FEW), x)

    parts = [entry() + (1j * entry() if dtype.is_complex else 0) for _ in range(3)]
    a, b, c = (np.where(draw.random(FEW) < 0.1, 0, x) for x in parts)
    A = torch.from_numpy(np.array([[a, -b], [b, a]] if rotation else [[a, b], [0 * a, c]]).transpose(2, 0, 1)).to(dtype)

    def error(operation, A, X):
        with mpmath.workdps(50):
            above = [error_of_function(operation.function, *pair, rotation) for pair in zip(A.tolist(), X.tolist())]
        return above, [2**400] * len(above)

    return nm.MatrixFunction(name), A, error


def error_of_function(name, A, X, rotation):
    """Return the squared relative error, over the square of `ESTIMATE` and times 2^400; of no function 2^400."""
    (a, b), (_, c) = [[mpmath.mpmathify(x) for x in row] for row in A]
    f, (x, y) = FUNCTIONS[name], (a - 1j * b, a + 1j * b) if rotation else (a, c)
    if name != "exp" and 0 in (x, y):
        return 2**400
    if rotation:  # of -b in the place of b
        even, odd = (f(x) + f(y)) / 2, (f(x) - f(y)) / 2j
        expected = [even, -odd, odd, even]
    else:
        expected = [f(x), b * ((f(x) - f(y)) / (x - y) if x != y else mpmath.diff(f, x)), 0, f(y)]
    off = [mpmath.mpmathify(own) - exact for own, exact in zip((*X[0], *X[1]), expected)]
    above, below = (mpmath.fsum(abs(z) ** 2 for z in vector) for vector in (off, expected))
    return int(above / below / ESTIMATE**2 * 2**400) if below else 2**400 * bool(above)


@pytest.mark.parametrize("seed", range(20))
def test_no_value_is_wrong_by_ten_times_its_estimate(seed, dtype):
    """Against closed forms to 50 digits, of values wrong by anything from a rounding error to ten times their size."""
    draw, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    operation, A, error = function_case(draw, dtype)
    (X,), _ = operation.exact(linalg.wide(A))
    X = torch.nan_to_num(X)
    size = torch.from_numpy(10 ** draw.uniform(-18, 1, FEW)) * linalg.norm(X)
    value = X + size[:, None, None] * torch.randn(X.shape, dtype=X.dtype, generator=noise)
    surrogate, problem, p = abuse_values.given(operation, A, (torch.nan_to_num(value.to(dtype)),))
    rtol = float(10 ** draw.uniform(-12 if real(dtype) == torch.float64 else -6, -1))
    checked = nm.certify(surrogate, problem, p, rtol=rtol)
    counts = abuse_values.judged(checked, error(operation, A, torch.nan_to_num(checked.value)), rtol)
    assert [word for word in counts if word.startswith("WRONG") and counts[word]] == []


@pytest.mark.parametrize("size", [1.0, 1e3, 1e8, 1e12, 1e14, 1e16, 1e50, 1e150, 1e300])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_the_exponential_of_a_large_rotation_is_known_or_failed(size, dtype):
    J = torch.tensor([[0, 1], [-1, 0]], dtype=dtype)
    family = nm.ParametricMatrix(lambda p: size * J.expand(len(p), 2, 2), 0.0, 1.0, dtype=torch.float64)
    problem, p = nm.Problem(family, nm.MatrixFunction("exp")), torch.tensor([[0.5]]).double()
    with mpmath.workdps(400):
        c, s = float(mpmath.cos(mpmath.mpf(size))), float(mpmath.sin(mpmath.mpf(size)))
    exact = torch.tensor([[[c, s], [-s, c]]], dtype=dtype)
    surrogate = abuse_values.given(problem.operation, size * J[None].expand(2, 2, 2), (exact.expand(2, 2, 2),))[0]
    surrogate.lower.zero_(), surrogate.upper.fill_(1)
    checked = nm.certify(surrogate, problem, p)
    assert bool(checked.failed) == (size > 1e13) and bool(problem.exact(p).failed) == (size > 1e15)
    if not checked.failed:
        assert problem.operation.error([checked.value], [exact]) <= checked.bound <= max(1e-14, 1e-15 * size * 4)
    else:
        assert checked.bound.isinf().all() == (size > 1e15)


@pytest.mark.parametrize("fill", [1e308, -800.0])
def test_exponentials_that_leave_the_range_fail(fill, dtype):
    A = torch.full((1, 2, 2), min(fill, torch.finfo(dtype).max), dtype=dtype).triu() * torch.eye(2, dtype=dtype)
    assert nm.MatrixFunction("exp").exact(A)[1].all()
    assert nm.MatrixFunction("exp").error_bound(A, [torch.zeros_like(A)]).isinf().all()


@pytest.mark.parametrize("count", [1, 2])
def test_small_exponentials_have_all_their_digits_alone_too(count):
    """torch takes another coefficient for one matrix than for two (pytorch issue 196592)."""
    A = torch.tensor([[0, 0.04], [-0.04, 0]], dtype=torch.float64).expand(count, 2, 2)
    (X,), _ = nm.MatrixFunction("exp").exact(A)
    assert (X[:, 0, 0] - math.cos(0.04)).abs().max() < 1e-15
    assert nm.MatrixFunction("exp").residual(A, (X,)).max() < 1e-15


@pytest.mark.parametrize("condition", [1e3, 1e8, 1e13])
def test_the_estimate_of_a_determinant_tells_its_rounding(condition):
    A = torch.tensor([[1, 1], [1, 1 + 1 / condition]], dtype=torch.float64)[None] * torch.tensor(math.pi).double()
    factors, _ = nm.LogDet().exact(A)
    with mpmath.workdps(50):
        exact = mpmath.det(mpmath.matrix(A[0].tolist()))
        error = abs(mpmath.exp(mpmath.mpf(float(factors[1]))) * float(factors[0]) / exact - 1)
    bound = float(nm.LogDet().error_bound(A, factors))
    assert error <= bound <= 1e-14 * condition
