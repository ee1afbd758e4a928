"""Twice the working precision: products and pseudo-inverses against arithmetic of 80 digits, and bounds that hold."""

from fractions import Fraction

import mpmath
import pytest
import torch
from conftest import conditioned, gaussian
from hypothesis import given, settings
from hypothesis import strategies as st

from neumatc import twofold

doubles = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)


def mp(x):
    return mpmath.matrix([[mpmath.mpmathify(v) for v in row] for row in x.tolist()])


def norm(X):
    return mpmath.sqrt(mpmath.fsum(abs(x) ** 2 for x in X))


@given(st.floats(-1e150, 1e150), st.floats(-1e150, 1e150))
def test_a_sum_and_its_rounding_error_are_the_sum(a, b):
    total, rest = twofold.two_sum(*(torch.tensor(x, dtype=torch.float64) for x in (a, b)))
    assert total.item() == a + b
    assert Fraction(total.item()) + Fraction(rest.item()) == Fraction(a) + Fraction(b)


@given(st.floats(1e-300, 1e300))
def test_powers_of_two_are_exact_and_above(x):
    power = twofold.power_of_two(torch.tensor(x, dtype=torch.float64)).item()
    assert x < power <= 2 * x
    assert Fraction(power).numerator.bit_count() == Fraction(power).denominator.bit_count() == 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(1, 9)] * 3), st.floats(-60, 60))
def test_products_of_pairs_are_as_exact_as_promised(seed, sizes, spread):
    """Also of rows and columns of very different sizes, and of small parts that are no smaller than they must be."""
    m, n, k = sizes

    def pair(rows, columns, seed):
        high = gaussian(1, rows, columns, dtype=torch.float64, seed=seed)
        high = high * 10 ** (spread * torch.rand(1, rows, 1, generator=torch.Generator().manual_seed(seed)).double())
        return twofold.two_sum(high, high * 1e-16 * gaussian(1, rows, columns, dtype=torch.float64, seed=seed + 1))

    A, B = pair(m, n, seed), tuple(x.mT for x in pair(k, n, seed + 7))
    (high, low), c = twofold.product(A, B)
    assert c < 1e-27
    with mpmath.workdps(120):
        a, b = (mp(high[0]) + mp(low[0]) for high, low in (A, B))
        assert norm(a * b - mp(high[0]) - mp(low[0])) <= c * norm(mp(A[0][0])) * norm(mp(B[0][0]))


@pytest.mark.parametrize("gram", [False, True])
@pytest.mark.parametrize("noise", [0.0, 1e-26, 0.3])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (1, 1)], ids=str)
@doubles
def test_pseudo_inverses_are_within_their_bounds(dtype, shape, noise, gram):
    if gram and (not noise or (shape[0] < shape[1] and noise < 1e-3)):
        noise = 0.3
    A = torch.cat([conditioned(1, *shape, dtype, condition=10.0**x, seed=x) for x in range(0, 14, 2)])
    A = A * (10.0 ** torch.arange(-3, 4)).double()[:, None, None]
    (X,), bound = twofold.pseudo_inverse(A, noise, gram=gram)
    assert bound.max() < 1e-12
    with mpmath.workdps(120):
        for i in range(len(A)):
            a, s = mp(A[i]), mpmath.mpf(noise)
            wide = a.rows < a.cols and not gram
            a = a.H if wide else a
            exact = (a.H * a + s * mpmath.eye(a.cols)) ** -1
            exact = exact if gram else exact * a.H
            exact = exact.H if wide else exact
            assert norm(mp(X[i]) - exact) <= float(bound[i]) * norm(exact)


@doubles
def test_nothing_is_proved_of_singular_matrices(dtype):
    A = gaussian(4, 5, 3, dtype=dtype)
    A[:, :, 2] = A[:, :, 0]
    A[3] = 0
    assert twofold.pseudo_inverse(A)[1].isinf().all()


def test_nothing_is_proved_where_scaling_loses_digits():
    A = torch.diag(torch.tensor([1.5, 1.3e-308], dtype=torch.float64))[None]
    assert twofold.pseudo_inverse(A)[1].isinf().all()


@pytest.mark.parametrize("unit", [1e-270, 1e-170, 1e170, 1e270])
def test_matrices_of_any_size_are_inverted(unit):
    A = unit * conditioned(2, 3, 3, torch.float64)
    (X,), bound = twofold.pseudo_inverse(A)
    assert bound.max() < 1e-15
    with mpmath.workdps(80):
        assert all(norm(mp(x) * mp(a) - mpmath.eye(3)) < 1e-14 for x, a in zip(X, A))
