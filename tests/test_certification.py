"""Certified answers: bounds against exact arithmetic, exact solutions where a bound is too large, failures as data."""

import math

import mpmath
import numpy as np
import pytest
import torch
from conftest import (
    DTYPES,
    assert_raises,
    conditioned,
    easy,
    eps,
    factors_of,
    gaussian,
    grid_of,
    parameters,
    pieced,
    random_surrogate,
    real,
    singular_where,
    tensors_of,
)
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import neumatc as nm
from neumatc import certification, linalg

GENERAL = [
    nm.Inverse(),
    nm.RegularizedInverse(0.3),
    nm.LMMSE(0.5),
    nm.RZF(0.5),
    nm.PseudoInverse(),
    nm.LogDet(),
    nm.MatrixFunction("exp"),
    nm.MatrixFunction("sqrt"),
    nm.MatrixFunction("inverse_sqrt"),
    nm.MatrixFunction("log"),
    nm.SVD(),
    nm.SVD(2),
    nm.SVD(2, "subspace"),
    nm.Eig(),
    nm.Subspace(2),
    nm.Projector(2, "right"),
    nm.QR(),
    nm.Polar(),
]
HERMITIAN = [nm.Eigh(), nm.Eigh(2), nm.Cholesky()]
OPERATIONS = [*GENERAL, *HERMITIAN, nm.Solve(2)]
operations = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda x: str(x).replace(" ", ""))
# One of each precision and each kind, for what has a test in every dtype elsewhere.
kinds = pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)


def problem_of(operation, dtype):
    """A 3 x 3 problem (Solve: with two right-hand sides) that is far from singular, with distinct singular values."""
    family = general = easy(nm.Inverse(), dtype).family
    if operation in HERMITIAN:

        def gram(p):
            A = general(p)
            return (A.mH @ A + (A.mH @ A).mH) / 2

        family = nm.ParametricMatrix(gram, general.lower, general.upper)
    if isinstance(operation, nm.Solve):
        family = nm.families.beside(family, gaussian(3, 2, dtype=dtype, seed=5))
    return nm.Problem(family, operation)


def fitted(problem, rank=4, **settings):
    numbers = 2 if problem.family.dtype.is_complex else 1
    most = max(torch.Size(factor.shape).numel() * numbers for factor in problem.factors)
    return nm.fit(problem, rank=min(rank, most), method=nm.ClosedForm(**settings), progress=False)


def wide(x):
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def true_error(problem, p, value):
    """Relative error against the exact solution of A(p) as it is, in double precision; NaN where there is none."""
    exact, _ = problem.operation.exact(wide(problem.family(p)))
    return problem.operation.error([wide(x) for x in factors_of(value)], exact)


def assert_never_below(checked, error):
    known = error.isfinite()
    worst = float((error / checked.bound)[known].max())
    assert (checked.bound >= error)[known].all(), f"the error is {worst:.17g} times its bound"


@operations
@kinds
def test_kept_values_are_the_surrogates_and_the_others_those_of_double_precision(operation, dtype):
    problem = problem_of(operation, dtype)
    surrogate, p = fitted(problem), parameters(40, dtype=real(dtype))
    before, value = surrogate(p), nm.certify(surrogate, problem, p, rtol=1e9)
    rtol = float(value.bound.median())  # about a half is rejected, wherever the bound lies
    rtol = rtol if 0 < rtol < torch.inf else 1e-2
    checked = nm.certify(surrogate, problem, p, rtol=rtol)
    assert type(checked.value) is type(before)
    assert checked.certainty == operation.certainty
    assert [x.dtype for x in (checked.residual, checked.bound)] == [torch.float64] * 2
    assert [x.dtype for x in (checked.accepted, checked.failed)] == [torch.bool] * 2
    assert all(x.shape == (40,) for x in (checked.residual, checked.bound, checked.accepted, checked.failed))
    assert torch.equal(checked.accepted, value.bound <= rtol)
    assert torch.equal(checked.bound[checked.accepted], value.bound[checked.accepted])
    assert not checked.failed.any()
    exact, _ = operation.exact(wide(problem.family(p)))
    for x, y, z in zip(factors_of(checked.value), factors_of(before), exact):
        assert x.dtype == y.dtype
        assert torch.equal(x[checked.accepted], y[checked.accepted])
        assert torch.equal(x[~checked.accepted], z.to(x.dtype)[~checked.accepted])
    if operation.certainty == "bound":
        assert_never_below(value, true_error(problem, p, before))
        assert_never_below(checked, true_error(problem, p, checked.value))
        assert true_error(problem, p, checked.value).max() <= rtol
    residual = operation.residual(wide(problem.family(p)), [wide(x) for x in factors_of(before)])
    assert torch.equal(checked.residual, residual)


BOUNDED = [operation for operation in OPERATIONS if operation.certainty == "bound"]
bounded = pytest.mark.parametrize("operation", BOUNDED, ids=lambda x: str(x).replace(" ", ""))


def test_bounds_are_proved_for_these():
    names = {"Inverse", "RegularizedInverse", "LMMSE", "RZF", "PseudoInverse", "SVD", "Eigh"}
    names |= {"Subspace", "Projector", "Cholesky", "Solve"}
    assert {type(operation).__name__ for operation in BOUNDED} == names


@pytest.mark.parametrize("kind", ["good", "corner", "random"])
@bounded
def test_bound_is_never_below_the_true_error(operation, kind, dtype):
    """Also for surrogates that extrapolate from a corner of the box, and for random ones."""
    problem = problem_of(operation, dtype)
    if kind == "random":
        surrogate = random_surrogate(operation, *problem.family.shape, dtype)
    else:
        surrogate = fitted(problem, **({"snapshots": [[0.1 * i] for i in range(4)]} if kind == "corner" else {}))
    p = parameters(200, dtype=real(dtype))
    whole = nm.certify(surrogate, problem, p, rtol=1e300)
    assert_never_below(whole, true_error(problem, p, whole.value))
    checked = nm.certify(surrogate, problem, p)
    assert_never_below(checked, true_error(problem, p, checked.value))
    assert not checked.failed.any()
    if kind == "good":  # and it is of use
        assert checked.accepted.all()


@pytest.mark.parametrize("operation", [nm.Inverse(), nm.SVD(2)], ids=str)
def test_a_value_at_the_tolerance_is_accepted_and_one_above_is_not(operation, dtype):
    problem = problem_of(operation, dtype)
    surrogate, p = fitted(problem, rank=2), parameters(9, dtype=real(dtype))
    bound = nm.certify(surrogate, problem, p, rtol=1e9).bound
    middle = float(bound.sort().values[4])
    at = nm.certify(surrogate, problem, p, rtol=middle)
    assert torch.equal(at.bound[at.accepted], bound[at.accepted])
    assert int(at.accepted.sum()) == 5
    assert not at.failed.any()
    below = nm.certify(surrogate, problem, p, rtol=math.nextafter(middle, 0))
    assert int(below.accepted.sum()) == 4


@operations
def test_all_accepted_and_all_rejected(operation):
    problem = problem_of(operation, torch.float64)
    surrogate, p = fitted(problem, rank=12), parameters(7)
    generous = nm.certify(surrogate, problem, p, rtol=1e300)
    assert generous.accepted.all()
    assert all(torch.equal(x, y) for x, y in zip(factors_of(generous.value), factors_of(surrogate(p))))
    strict = nm.certify(surrogate, problem, p, rtol=1e-300)
    assert torch.equal(strict.failed, strict.bound != 0)  # an estimate, or that of LogDet, can be zero
    assert strict.bound.max() < 1e-11
    exact = factors_of(problem.exact(p).value)
    rejected = ~strict.accepted
    assert all(torch.equal(x[rejected], y[rejected]) for x, y in zip(factors_of(strict.value), exact))


@pytest.mark.parametrize("operation", [nm.SVD(2), nm.QR(), nm.Polar(), nm.Eigh(2), nm.Subspace(2)], ids=str)
@kinds
def test_orthonormal_values_are_certified_as_they_are(operation, dtype):
    problem = problem_of(operation, dtype)
    surrogate, p = fitted(problem, rank=3), parameters(20, dtype=real(dtype))
    checked = nm.certify(surrogate, problem, p, rtol=1e9, orthonormal=True)
    value = surrogate(p, orthonormal=True)
    for x, y in zip(factors_of(checked.value), factors_of(value)):
        assert torch.equal(x[checked.accepted], y[checked.accepted])
    if operation.certainty == "bound":
        assert checked.accepted.any()
        assert_never_below(checked, true_error(problem, p, value))
    if not isinstance(operation, nm.Eigh):
        other = nm.certify(surrogate, problem, p, rtol=1e9).bound
        assert not torch.equal(checked.bound, other)


def test_singular_matrices_are_rejected_and_failed(dtype):
    problem = singular_where(lambda p: (p > 0.3) & (p < 0.5), dtype=real(dtype))
    surrogate = fitted(problem, rank=2, snapshots=[[0.0], [0.1], [0.2], [0.6], [0.8], [1.0]])
    p = torch.tensor([[0.2], [0.35], [0.45], [0.8]], dtype=real(dtype))
    checked = nm.certify(surrogate, problem, p, rtol=0.9)
    assert checked.failed.tolist() == [False, True, True, False]
    assert checked.accepted.tolist() == [True, False, False, True]
    assert checked.bound.isinf().tolist() == [False, True, True, False]
    assert checked.residual.isfinite().all()
    assert checked.value[checked.failed].isnan().all()
    assert torch.equal(checked.value[~checked.failed], surrogate(p)[~checked.failed])
    assert "2 of 4" in str(checked)
    assert "bound" in str(checked)
    assert "2 failed" in str(checked)


@operations
@kinds
def test_where_the_family_is_undefined_nothing_is_accepted(operation, dtype):
    problem, p = problem_of(operation, dtype), parameters(6, dtype=real(dtype))
    surrogate, fn, bad = fitted(problem), problem.family.fn, torch.tensor([False, True, False, False, True, False])
    places = p[bad]

    def undefined(q):
        return torch.where(torch.isin(q, places)[:, :, None], torch.inf, fn(q))

    family = nm.ParametricMatrix(undefined, problem.family.lower, problem.family.upper)
    rtol = 1e-4  # of which single precision is capable
    before = nm.certify(surrogate, problem, p[~bad], rtol=rtol)
    checked = nm.certify(surrogate, nm.Problem(family, operation), p, rtol=rtol)
    assert torch.equal(checked.failed, bad) and not checked.accepted[bad].any()
    assert checked.residual[bad].isinf().all() and checked.bound[bad].isinf().all()
    assert torch.equal(checked.accepted[~bad], before.accepted)
    for x, y in zip(factors_of(checked.value), factors_of(before.value)):
        assert x[bad].isnan().all()
        assert x[~bad].isfinite().all() and x.dtype == y.dtype


@pytest.mark.parametrize("operation", [nm.PseudoInverse(), nm.LogDet(), nm.QR(), nm.Polar()], ids=str)
def test_where_there_is_no_solution_nothing_is_returned(operation):
    problem = nm.Problem(singular_where(lambda p: p > 0.5).family, operation)
    surrogate = fitted(problem, rank=1, snapshots=[[0.0], [0.2], [0.4]])
    p = torch.tensor([[0.1], [0.7]], dtype=torch.float64)
    checked = nm.certify(surrogate, problem, p, rtol=1e-9)
    assert checked.failed.tolist() == [False, True]
    assert all(x[1].isnan().all() and x[0].isfinite().all() for x in factors_of(checked.value))


@pytest.mark.parametrize("operation", [nm.SVD(2), nm.SVD(2, "subspace"), nm.Eigh(2)], ids=str)
def test_without_a_gap_nothing_is_proved_and_all_fails(operation, dtype):
    """sigma_2 = sigma_3: two best approximations of rank 2 may have nothing in common."""
    A = torch.diag(torch.tensor([3.0, 2.0, 2.0, 1.0])).to(dtype)
    family = nm.ParametricMatrix(lambda p: A + 0 * p[:, :, None], [0.0], [1.0], dtype=real(dtype))
    problem = nm.Problem(family, operation)
    surrogate, p = fitted(problem, rank=1), parameters(5, dtype=real(dtype))
    checked = nm.certify(surrogate, problem, p, rtol=1e9)
    assert checked.bound.isinf().all()
    assert not checked.accepted.any()
    assert checked.failed.all()
    assert all(x.isnan().all() for x in checked.value)


def test_a_gap_that_rounding_hides_is_no_gap():
    """In single precision sigma_2 = sigma_3 (1 + 1e-6) is a gap, of which nothing is left in a surrogate's error."""
    A = torch.diag(torch.tensor([3.0, 1.000001, 1.0]))
    family = nm.ParametricMatrix(lambda p: A + 0 * p[:, :, None], [0.0], [1.0])
    surrogate = random_surrogate(nm.SVD(2), 3, 3, torch.float32)
    exact = torch.eye(3)[:, :2], A.diagonal()[:2], torch.eye(3)[:2]
    for m, x in zip(surrogate.maps, exact):
        m.core.zero_()[0] = x
        m.weights["weight_out"].zero_()
        m.weights["bias_out"].zero_()[0] = 1
    p, box = parameters(5, dtype=torch.float32), nm.ParametricMatrix(family.fn, surrogate.lower, surrogate.upper)
    problem = nm.Problem(box, nm.SVD(2))
    checked = nm.certify(surrogate, problem, p)
    assert_never_below(checked, true_error(problem, p, checked.value))
    surrogate.maps[0].core.mul_(1 + 1e-5)
    checked = nm.certify(surrogate, problem, p, rtol=1e300)  # the exact value is that of double precision
    assert not checked.accepted.any()
    assert_never_below(checked, true_error(problem, p, checked.value))


@operations
def test_large_batches_go_piece_by_piece(operation, monkeypatch):
    problem = problem_of(operation, torch.complex64)
    surrogate, p = fitted(problem, rank=1), parameters(23, dtype=torch.float32)
    before = nm.certify(surrogate, problem, p, rtol=1e300).bound
    rtol = float(before.median())
    whole = nm.certify(surrogate, problem, p, rtol=rtol)
    sizes, fn = [], problem.family.fn
    monkeypatch.setattr(problem.family, "fn", lambda p: sizes.append(len(p)) or fn(p))
    monkeypatch.setattr(certification, "NUMBERS", 5 * problem.family.shape[0] * problem.family.shape[1] + 1)
    pieces = nm.certify(surrogate, problem, p, rtol=rtol)
    assert sizes == [5, 5, 5, 5, 3]
    # A(p) of another batch may round otherwise, in the precision of the family.
    single = 50 * eps(problem.family.dtype)
    assert (pieces.residual - whole.residual).abs().max() <= single * (1 + whole.residual.max())
    assert torch.equal(pieces.failed, whole.failed)
    near = (before - rtol).abs() <= single * (1 + rtol)  # on either side of the tolerance
    assert (near | (pieces.accepted == whole.accepted)).all()
    kept, solved = (x & ~near for x in (whole.accepted, ~whole.accepted))
    assert kept.any() and solved.any()
    assert (pieces.bound - whole.bound)[~near].abs().max() <= single * (1 + whole.bound.max())
    for x, y in zip(factors_of(pieces.value), factors_of(whole.value)):
        assert torch.equal(x[kept], y[kept])
    found, expected = ([x[solved] for x in factors_of(v)] for v in (pieces.value, whole.value))
    assert operation.error(found, expected).max() <= single
    monkeypatch.setattr(certification, "NUMBERS", 1)  # less than one matrix: one at a time
    assert nm.certify(surrogate, problem, p[:3], rtol=rtol).bound.shape == (3,)


def test_certify_writes_to_nothing_of_the_caller(dtype):
    problem = problem_of(nm.SVD(2), dtype)
    surrogate, p = fitted(problem, rank=2), parameters(11, dtype=real(dtype))
    kept, before = p.clone(), {name: tensor.clone() for name, tensor in tensors_of(surrogate).items()}
    samples = problem.family(p)
    stored = nm.ParametricMatrix(lambda q: samples[: len(q)], [0.0], [1.0], dtype=real(dtype))  # returns its own memory
    held = samples.clone()
    for family in (problem.family, stored):
        nm.certify(surrogate, nm.Problem(family, nm.SVD(2)), p, rtol=1e-12)
    assert torch.equal(p, kept)
    assert torch.equal(samples, held)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors_of(surrogate).items())


def test_single_precision_parameters_and_double_precision_matrices():
    """p may be of another precision than the family."""
    problem = problem_of(nm.Inverse(), torch.float64)
    surrogate, p = fitted(problem, rank=12), parameters(6, dtype=torch.float32)
    checked = nm.certify(surrogate, problem, p)
    assert checked.accepted.all()
    assert_never_below(checked, true_error(problem, p, surrogate(p)))


def test_certify_takes_parameters_as_a_surrogate_does():
    problem = problem_of(nm.Inverse(), torch.float64)
    surrogate, p = fitted(problem, rank=12), parameters(6)
    expected = nm.certify(surrogate, problem, p)
    for points in (p[:, 0], p.numpy(), p[:, 0].tolist()):
        assert torch.equal(torch.as_tensor(nm.certify(surrogate, problem, points).bound), expected.bound)
    assert torch.equal(nm.certify(surrogate, problem, float(p[0])).bound, nm.certify(surrogate, problem, p[:1]).bound)


def test_a_surrogate_in_pieces_is_certified(dtype):
    """Fitted to a tolerance far below the one that is asked for here, it is accepted everywhere, rightly."""
    problem = problem_of(nm.Inverse(), dtype)
    surrogate, p = pieced(problem, 1e-4), grid_of(problem.family, 200)
    checked = nm.certify(surrogate, problem, p, rtol=1e-1)
    assert checked.accepted.all()
    assert_never_below(checked, true_error(problem, p, surrogate(p)))


def test_certify_refuses_wrong_arguments():
    problem, p = problem_of(nm.Inverse(), torch.float32), parameters(4, dtype=torch.float32)
    surrogate = fitted(problem, rank=2)

    def certify(s=surrogate, q=problem, points=p, **options):
        return lambda: nm.certify(s, q, points, **options)

    other = problem_of(nm.RegularizedInverse(0.3), torch.float32)
    louder = random_surrogate(nm.RegularizedInverse(0.2), 3, 3, torch.float32)
    assert_raises(TypeError, ["`surrogate`", "nm.Surrogate", "got", "function"], certify(s=lambda p: p))
    assert_raises(TypeError, ["`problem`", "nm.Problem", "got", "ParametricMatrix"], certify(q=problem.family))
    assert_raises(
        ValueError, ["`surrogate`", "expected", "RegularizedInverse(noise=0.3)", "got", "Inverse()"], certify(q=other)
    )
    assert_raises(ValueError, ["`surrogate`", "noise=0.3", "got", "noise=0.2"], certify(s=louder, q=other))
    small = random_surrogate(nm.Inverse(), 2, 2, torch.float32)
    assert_raises(ValueError, ["`surrogate`", "(3, 3)", "got", "(2, 2)"], certify(s=small))
    for dtype in (torch.float64, torch.complex64):
        foreign = random_surrogate(nm.Inverse(), 3, 3, dtype)
        assert_raises(TypeError, ["`surrogate`", "float32", "got", str(dtype), ".to("], certify(s=foreign))
    for rtol in (0, -1e-2, float("nan"), float("inf")):
        assert_raises(ValueError, ["`rtol`", "above 0", "got", str(rtol)], certify(rtol=rtol))
    for rtol in ("1e-2", None, True):
        assert_raises(TypeError, ["`rtol`", "number", "got"], certify(rtol=rtol))
    assert_raises(ValueError, ["`p`", "box", "got", "leave those out"], certify(points=p + 2))
    assert_raises(ValueError, ["`p`", "shape (B, 1)", "got"], certify(points=torch.zeros(2, 3)))
    assert_raises(ValueError, ["`p`", "at least one"], certify(points=p[:0]))
    assert_raises(ValueError, ["`orthonormal`", "False", "Inverse()", "got True"], certify(orthonormal=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_surrogate_and_problem_must_be_on_one_device():
    problem = problem_of(nm.Inverse(), torch.float32)
    surrogate = fitted(problem, rank=2).to("cuda:0")
    p = parameters(4, dtype=torch.float32)
    assert_raises(
        TypeError, ["`surrogate`", "cpu", "got", "cuda", ".to("], lambda: nm.certify(surrogate, problem, p.cuda())
    )


# The bounds themselves, against arithmetic of 60 digits: values that are wrong by anything from a rounding error to
# much more than their own size, of matrices of any condition and scale.


def mp(x):
    return mpmath.matrix([[mpmath.mpmathify(v) for v in row] for row in x.tolist()])


def mp_norm(X):
    return mpmath.sqrt(mpmath.fsum(abs(x) ** 2 for x in X))


def mp_error(operation, A, factors):
    """The relative error of the value in the operation's measure, to 40 digits or more."""
    with mpmath.workdps(60):
        A, factors = mp(A), [mp(x) if x.ndim == 2 else mpmath.diag(x.tolist()) for x in factors]
        if isinstance(operation, (nm.SVD, nm.Eigh)):
            k = factors[0].cols
            try:
                U, S, V = mpmath.svd(A)
            except RuntimeError:  # its iteration does not converge for some matrices with equal singular values
                reject()
            exact = U[:, :k] * mpmath.diag(S[:k]) * V[:k, :]
            if isinstance(operation, nm.SVD):
                value = factors[0] * factors[1] * factors[2]
            else:
                value = factors[1] * factors[0] * factors[1].H
        else:
            (value,), tall = factors, A.rows >= A.cols
            noise = mpmath.mpf(getattr(operation, "noise", 0))
            if isinstance(operation, (nm.Inverse, nm.RegularizedInverse)):
                exact = A**-1 if isinstance(operation, nm.Inverse) else (A.H * A + noise * mpmath.eye(A.cols)) ** -1
            elif tall:
                exact = (A.H * A + noise * mpmath.eye(A.cols)) ** -1 * A.H
            else:
                exact = A.H * (A * A.H + noise * mpmath.eye(A.rows)) ** -1
        return mp_norm(value - exact) / mp_norm(exact)


LINEAR = [nm.Inverse, nm.RegularizedInverse, nm.LMMSE, nm.RZF, nm.PseudoInverse]
cases = given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from(DTYPES),
    st.floats(0, 8),  # log10 of the condition number
    st.floats(-6, 6),  # log10 of the size
    st.floats(-18, 1),  # log10 of the perturbation
)


def measured(operation, A, factors):
    """The bound as `certify` computes it, in double precision."""
    return float(operation.error_bound(wide(A), [wide(x) for x in factors]))


def perturbed(x, size, seed):
    noise = gaussian(*x.shape, dtype=x.dtype, seed=seed)
    return (wide(x) + size * float(torch.linalg.vector_norm(x)) / x.numel() ** 0.5 * wide(noise)).to(x.dtype)


@pytest.mark.parametrize("kind", LINEAR, ids=lambda kind: kind.__name__)
@settings(max_examples=40, deadline=None, derandomize=True)
@cases
def test_bounds_of_linear_operations_hold_in_exact_arithmetic(kind, seed, shape, dtype, condition, scale, size):
    m, n = shape if kind is not nm.Inverse else (shape[0],) * 2
    A = (wide(conditioned(1, m, n, dtype, condition=10**condition, seed=seed % 997)) * 10**scale).to(dtype)
    regularized = kind in (nm.RegularizedInverse, nm.LMMSE, nm.RZF)
    operation = kind(10.0 ** (2 * scale - condition)) if regularized else kind()
    (X,), failed = operation.exact(A)
    if failed:
        return
    value = perturbed(X, 10**size, seed)
    bound, error = measured(operation, A, [value]), mp_error(operation, A[0], [value[0]])
    assert bound >= error
    squared = kind is nm.PseudoInverse  # whose bound needs the square of the condition number times the rounding
    if 10**condition * 10 ** max(size, -15) < 1e-3 and dtype in DTYPES[1::2] and condition < (5 if squared else 9):
        assert bound < 1  # of use, if pessimistic by the condition number


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.integers(2, 4), st.sampled_from(DTYPES[1::2]), st.floats(0, 8), st.floats(-18, 0))
def test_estimate_of_the_determinant_is_its_error_up_to_rounding(seed, n, dtype, condition, size):
    A = conditioned(1, n, n, dtype, condition=10**condition, seed=seed % 997)
    (sign, logabsdet), _ = nm.LogDet().exact(A)
    value = logabsdet + 10**size * gaussian(1, dtype=torch.float64, seed=seed)
    estimate = measured(nm.LogDet(), A, [sign, value])
    with mpmath.workdps(60):
        exact = mpmath.det(mp(A[0]))
        error = abs(mpmath.exp(mpmath.mpf(value.item())) * mpmath.mpmathify(sign.item()) / exact - 1)
    # A backward error of n eps in the LU factorisation, times the condition number of the determinant.
    assert abs(estimate - error) <= 10 * n * eps(torch.float64) * 10**condition * (1 + error)


@pytest.mark.parametrize("kind", [nm.SVD, nm.Eigh], ids=lambda kind: kind.__name__)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(cases=st.data())
def test_bounds_of_spectral_decompositions_hold_in_exact_arithmetic(kind, cases):
    seed, dtype = cases.draw(st.integers(0, 2**31)), cases.draw(st.sampled_from(DTYPES))
    m, n = cases.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    condition, size = cases.draw(st.floats(0, 4)), cases.draw(st.floats(-18, 1))
    A = conditioned(1, m, n, dtype, condition=10**condition, seed=seed % 997)
    if kind is nm.Eigh:
        A = A @ gaussian(1, n, m, dtype=dtype, seed=seed % 991)
        A = (A + A.mH) / 2  # indefinite
    k = cases.draw(st.integers(1, min(A.shape[1:])))
    operation = kind(k)
    factors = [perturbed(x, 10**size, seed + i) for i, x in enumerate(operation.exact(A)[0])]
    assert measured(operation, A, factors) >= mp_error(operation, A[0], [x[0] for x in factors])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.sampled_from(DTYPES[1::2]), st.floats(-8, 0), st.floats(-8, 0))
def test_bound_of_the_svd_holds_near_a_lost_gap(seed, dtype, gap, size):
    """Values of a nearby matrix, whose leading vectors may be others altogether."""
    U, V = (torch.linalg.qr(gaussian(4, 4, dtype=dtype, seed=seed % 997 + i)).Q for i in range(2))
    S = torch.tensor([2.0, 1 + 10**gap, 1.0, 0.3], dtype=torch.float64)
    A = (U * S) @ V.mH
    near = A + 10**size * gaussian(4, 4, dtype=dtype, seed=seed)
    operation = nm.SVD(2)
    factors = [x[0] for x in operation.exact(near[None])[0]]
    bound = measured(operation, A[None], [x[None] for x in factors])
    assert bound >= mp_error(operation, A, factors)
    if size < gap - 2:
        assert bound < torch.inf


@pytest.mark.parametrize("shape", [(5, 5), (7, 4), (4, 7)], ids=str)
@pytest.mark.parametrize("kind", LINEAR, ids=lambda kind: kind.__name__)
def test_bounds_of_linear_operations_come_close_to_small_errors(kind, shape):
    m, n = shape if kind is not nm.Inverse else (5, 5)
    A = conditioned(4, m, n, torch.complex128, condition=10)
    operation = kind() if kind in (nm.Inverse, nm.PseudoInverse) else kind(0.1)
    (X,), _ = operation.exact(A)
    value = X + 1e-6 * gaussian(4, *X.shape[1:], dtype=X.dtype)
    assert (operation.error_bound(A, [value]) < 1.1 * operation.error([value], [X])).all()


def test_bound_is_infinite_where_nothing_is_proved():
    A = conditioned(3, 3, 3, torch.float64)
    for operation in (nm.Inverse(), nm.PseudoInverse(), nm.RegularizedInverse(1e-6), nm.LMMSE(1e-6)):
        bound = operation.error_bound(A, [torch.zeros(3, 3, 3, dtype=torch.float64)])
        assert (bound.isinf() & (bound > 0)).all(), operation
    zero = [torch.zeros(3, *shape, dtype=torch.float64) for shape in ((3, 2), (2,), (2, 3))]
    assert nm.SVD(2).error_bound(A, zero).isinf().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_rejected(bad):
    problem = problem_of(nm.Inverse(), torch.float64)
    surrogate, p = fitted(problem, rank=4), parameters(5)
    surrogate.maps[0].core[0, 1, 1] = bad
    checked = nm.certify(surrogate, problem, p)
    assert checked.residual.isinf().all()
    assert not checked.accepted.any()
    assert not checked.failed.any()
    assert_never_below(checked, true_error(problem, p, checked.value))
    assert torch.equal(checked.value, problem.exact(p).value)


@pytest.mark.parametrize("unit", [1e-170, 1e-158, 1e150])
@pytest.mark.parametrize("operation", [nm.SVD(rank=1), nm.SVD(), nm.Inverse()], ids=str)
def test_no_bound_where_squares_leave_double_precision(operation, unit):
    C = gaussian(2, 3, 3, dtype=torch.float64)
    family = nm.ParametricMatrix(
        lambda p: unit * (C[0] + C[1] * torch.sin(9 * p[:, :, None])), [0.0], [1.0], dtype=torch.float64
    )
    problem = nm.Problem(family, operation)
    surrogate = nm.fit(problem, rank=3, budget=6, progress=False)
    p = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    checked = nm.certify(surrogate, problem, p, rtol=1e-2)
    assert not checked.accepted.any()
    if operation != nm.Inverse():
        assert checked.failed.all()
    else:  # in twice the precision matrices are scaled; problem.error would be wrong by more than the bound
        assert not checked.failed.any()
        errors = [mp_error(operation, A, [x]) for A, x in zip(problem.family(p[::9]), checked.value[::9])]
        assert all(error <= float(bound) for error, bound in zip(errors, checked.bound[::9]))


# The values that replace rejected ones.


def listed(matrices):
    """The family of given matrices, at p = 0, 1, 2, ..."""
    kind = real(matrices.dtype)
    return nm.ParametricMatrix(lambda p: matrices[p[:, 0].round().long()], 0.0, float(len(matrices) - 1), dtype=kind)


def replaced(operation, matrices, rtol=1e-2, scale=1.0):
    """Certify random values, which are wrong."""
    problem = nm.Problem(listed(matrices), operation)
    base = random_surrogate(operation, *problem.family.shape, matrices.dtype)
    for m in base.maps:
        m.numbers.mul_(scale)
    surrogate = nm.Surrogate(operation, problem.family.shape, base.maps, problem.family.box, base.report)
    return nm.certify(surrogate, problem, torch.arange(len(matrices), dtype=real(matrices.dtype)), rtol=rtol)


def assert_certain(operation, matrices, checked):
    """No value that is returned is wrong by more than its bound, in exact arithmetic."""
    for A, bound, *factors in zip(matrices, checked.bound, *factors_of(checked.value)):
        if bound < torch.inf:
            assert mp_error(operation, A, factors) <= float(bound)


RECEIVERS = [nm.LMMSE(1e-16), nm.RZF(1e-16), nm.RegularizedInverse(1e-16)]


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)], ids=str)
@pytest.mark.parametrize("operation", RECEIVERS, ids=str)
def test_receivers_near_a_singular_channel_are_solved_and_bounded(operation, shape, dtype):
    """The noise is the square of the smallest singular value: the condition number of the Gram matrix is 1e16."""
    A = torch.cat([conditioned(1, *shape, dtype, condition=1e8, seed=seed) for seed in range(8)])
    checked = replaced(operation, A, rtol=1e-6)
    assert not checked.failed.any()
    assert_certain(operation, A, checked)


@pytest.mark.parametrize("operation", [nm.Inverse(), nm.PseudoInverse()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_inverses_up_to_a_condition_number_of_1e13_are_returned(operation, dtype):
    shape = (4, 4) if operation == nm.Inverse() else (5, 3)
    powers = torch.linspace(9, 13, 30).tolist()
    A = torch.cat([conditioned(1, *shape, dtype, condition=10**x, seed=i) for i, x in enumerate(powers)])
    checked = replaced(operation, A, rtol=1e-12)
    assert not checked.failed.any()
    assert_certain(operation, A, checked)


@pytest.mark.parametrize("operation", [nm.Inverse(), nm.PseudoInverse()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_nothing_is_returned_of_matrices_that_are_singular_to_working_precision(operation, dtype):
    A = torch.cat([conditioned(1, 4, 4, dtype, condition=10.0**x, seed=x) for x in range(15, 21)])
    A = torch.cat([A, torch.ones(1, 4, 4, dtype=dtype), torch.zeros(1, 4, 4, dtype=dtype)])
    checked = replaced(operation, A)
    assert checked.failed[-3:].all()
    assert checked.value[checked.bound.isinf()].isnan().all()
    assert_certain(operation, A, checked)


@pytest.mark.parametrize("operation", BOUNDED, ids=lambda x: str(x).replace(" ", ""))
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_single_precision_is_solved_in_double_and_rounded(operation, dtype):
    A = conditioned(6, 4, 4, dtype, condition=1e2 if isinstance(operation, nm.Cholesky) else 1e4)
    A = (A + A.mH) / 2 if isinstance(operation, nm.Eigh) else A
    A = A @ A.mH if isinstance(operation, nm.Cholesky) else A
    A = torch.cat([A, gaussian(6, 4, 2, dtype=dtype)], dim=2) if isinstance(operation, nm.Solve) else A
    checked = replaced(operation, A, rtol=1e-6)
    assert not checked.failed.any()
    assert checked.bound.max() < 4 * eps(dtype)
    exact, _ = operation.exact(wide(A))
    assert_never_below(checked, operation.error([wide(x) for x in factors_of(checked.value)], exact))


def test_a_tolerance_below_the_precision_fails_with_the_bound_that_there_is():
    A = conditioned(3, 4, 4, torch.float32)
    checked = replaced(nm.Inverse(), A, rtol=1e-9)
    assert checked.failed.all() and checked.bound.max() < 1e-7
    assert_certain(nm.Inverse(), A, checked)


@pytest.mark.parametrize("scale", [1.0, 1e300, math.nan])
@operations
def test_certify_returns_whatever_the_numbers_are(operation, scale):
    """Huge, tiny and undefined entries in A(p) and in the surrogate's values."""
    A = conditioned(1, 3, 3, torch.float64, condition=5)
    A = (A.mH @ A + (A.mH @ A).mH) / 2
    wrong = [1.0, 1e308, 1e300, 1e-300, 1e-310, 1e155, 1e-160, math.nan, math.inf, 0.0]
    matrices = torch.cat([A * x for x in wrong] + [A + torch.diag(torch.tensor([x, 0, 0])) for x in (1e300, math.nan)])
    if isinstance(operation, nm.Solve):
        matrices = torch.cat([matrices, gaussian(len(matrices), 3, 2, dtype=torch.float64)], dim=2)
    checked = replaced(operation, matrices, scale=scale)
    assert not checked.failed[0]
    assert checked.failed[[7, 8, 11]].all()
    for x in factors_of(checked.value):
        assert x[~checked.failed].isfinite().all()
    assert torch.equal(checked.failed, ~(checked.bound <= 1e-2))


def test_a_function_that_raises_at_single_parameters_marks_them():
    """Also in a batch of some hundred."""
    problem = problem_of(nm.Inverse(), torch.float64)
    surrogate, p, fn = fitted(problem), parameters(200), problem.family.fn

    def raising(q):
        if (q == p[150]).any():
            raise RuntimeError("no data")
        return fn(q)

    family = nm.ParametricMatrix(raising, problem.family.lower, problem.family.upper)
    checked = nm.certify(surrogate, nm.Problem(family, nm.Inverse()), p)
    assert checked.failed.nonzero().tolist() == [[150]]
    assert checked.value[150].isnan().all()


def test_what_a_function_raises_is_told():
    family = nm.ParametricMatrix(lambda x: np.eye(2) if x <= 0.5 else undefined_name, 0.0, 1.0, batched=False)  # noqa: F821
    surrogate, told = random_surrogate(nm.Inverse(), 2, 2, torch.float64), "the family failed at p = 0.7: NameError: "
    problem, at = nm.Problem(family, nm.Inverse()), (lambda *p: torch.tensor(p, dtype=torch.float64)[:, None])
    checked = nm.certify(surrogate, problem, at(0.1, 0.7, 0.8))
    assert checked.raised.startswith(told) and checked.raised in str(checked)
    assert not nm.certify(surrogate, problem, at(0.1)).raised


@pytest.mark.parametrize("powers", [(-20, 0), (0, 20), (-20, 20), (20, -20), (-60, 60)])
def test_systems_in_other_units_are_bounded_as_in_their_own(powers):
    """Rows scaled leave X as it is; columns scaled scale the rows of X. Bounds are above the error, and not far."""
    A, B = conditioned(6, 4, 4, torch.float64), gaussian(6, 4, 2, dtype=torch.float64)
    X = torch.linalg.solve(A, B)
    rows, columns = (2.0 ** torch.linspace(-a, a, 4, dtype=torch.float64).round()[:, None] for a in powers)
    Y, found = X / columns * (1 + 1e-8), torch.cat([rows * A * columns.mT, rows * B], dim=2)
    bound, true = nm.Solve(columns=2).error_bound(found, (Y,)), linalg.norm(Y - X / columns) / linalg.norm(X / columns)
    assert (true * (1 - 1e-6) <= bound).all() and (bound <= 1.01 * true).all()


def test_an_operation_with_another_solution_is_not_refined_as_that_it_is_made_from(monkeypatch):
    """Twice the inverse, whose bound is Inf: nothing is known, so nothing is returned."""
    monkeypatch.setattr(nm.Operation, "registry", dict(nm.Operation.registry))

    class Twice(nm.Inverse):
        def system(self, A):
            return A / 2, super().system(A)[1]

        def exact(self, A):
            (X,), failed = super().exact(A)
            return (2 * X,), failed

        def error_bound(self, A, factors):
            return torch.full((len(A),), torch.inf, dtype=torch.float64)

    checked = replaced(Twice(), conditioned(3, 3, 3, torch.float64))
    assert checked.failed.all() and checked.value.isnan().all()


@pytest.mark.parametrize("operation", HERMITIAN, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_what_is_hermitian_in_single_precision_is_solved(operation, dtype):
    """Products that rounding made Hermitian to single precision only, alone and beside one that is not at all."""
    A = conditioned(5, 3, 3, dtype, condition=5)
    A = A.mH @ A
    A[:, 0, 1] *= 1 + eps(dtype)
    checked = replaced(operation, A, rtol=1e-4)
    assert not checked.failed.any()
    exact, _ = operation.exact(A)
    assert operation.error([wide(x) for x in factors_of(checked.value)], [wide(x) for x in exact]).max() < 1e-5
    A[2, 0, 1] *= 1.01
    assert replaced(operation, A, rtol=1e-4).failed.tolist() == [False, False, True, False, False]
