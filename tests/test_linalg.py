"""The trusted room: right on every thread count, failures as data, and nothing else in the library solves."""

import ast
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DTYPES, assert_close, assert_raises, conditioned, eps, gaussian, real, state_of_the_process

import neumatc as nm
from neumatc import checks, linalg

SHAPES = [(1, 1), (4, 4), (7, 3), (3, 7), (1, 5)]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def views(A):
    """The same values in awkward memory: transposed, strided, lazily conjugated, the imaginary part of a conjugate."""
    yield A.mT.contiguous().mT
    yield torch.stack([A, A], dim=1)[:, 0]
    if A.is_complex():
        yield A.conj().resolve_conj().conj()
    else:
        yield torch.complex(torch.zeros_like(A), -A).conj().imag


@pytest.mark.usefixtures("two_threads")
def test_inverse_where_the_batched_lu_of_torch_fails(dtype, device):
    A = conditioned(3, 192, 192, dtype, condition=100.0)
    X, failed = linalg.inverse(A.to(device))
    oracle = np.stack([np.linalg.inv(a) for a in A.to(torch.complex128 if dtype.is_complex else torch.float64).numpy()])
    assert X.dtype == dtype
    assert X.device == torch.device(device)
    assert not failed.any()
    assert_close(X.cpu(), torch.from_numpy(oracle), units=100, scale=100.0)


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_solvers_agree_with_numpy_in_any_memory_layout(m, n, dtype, device):
    A = conditioned(5, m, n, dtype)
    kept = A.clone()
    for view in (A, *views(A)):
        U, S, Vh, failed = linalg.svd(view.to(device))
        k = min(m, n)
        assert [x.shape for x in (U, S, Vh)] == [(5, m, k), (5, k), (5, k, n)]
        assert [x.dtype for x in (U, S, Vh, failed)] == [dtype, real(dtype), dtype, torch.bool]
        assert not failed.any()
        assert_close(S.cpu(), torch.from_numpy(np.linalg.svd(A.numpy(), compute_uv=False)))
        assert_close(((U * S[:, None, :].to(dtype)) @ Vh).cpu(), A)
        assert_close((U.mH @ U).cpu(), torch.eye(k, dtype=dtype).expand(5, k, k))
        assert_close((Vh @ Vh.mH).cpu(), torch.eye(k, dtype=dtype).expand(5, k, k))
        if m == n:
            X, failed = linalg.inverse(view.to(device))
            assert not failed.any()
            assert_close(X.cpu(), torch.from_numpy(np.linalg.inv(A.numpy())), scale=10.0)
    assert torch.equal(A, kept)  # the argument is not written to


@pytest.mark.parametrize("kind", ["zero", "repeated row", "numerical", "nan", "inf"])
def test_singular_members_are_reported_and_the_others_are_right(kind, dtype, device):
    A = conditioned(6, 8, 8, dtype)
    bad = {
        "zero": torch.zeros(8, 8, dtype=dtype),
        "repeated row": A[2].index_copy(0, torch.tensor([1]), A[2, :1]),
        "numerical": conditioned(1, 8, 8, dtype, condition=1 / eps(dtype))[0],
        "nan": torch.full((8, 8), torch.nan, dtype=dtype),
        "inf": torch.full((8, 8), torch.inf, dtype=dtype),
    }[kind]
    mixed = A.clone()
    mixed[2] = mixed[5] = bad
    X, failed = linalg.inverse(mixed.to(device))
    assert failed.tolist() == [False, False, True, False, False, True]
    assert X[failed].isnan().all()
    assert_close(X[~failed].cpu(), torch.from_numpy(np.linalg.inv(A[[0, 1, 3, 4]].numpy())), scale=10.0)


def test_well_conditioned_matrices_of_any_scale_are_not_singular(dtype):
    """The criterion is the condition number, not the determinant or the size of the entries."""
    A = conditioned(4, 6, 6, dtype) * torch.tensor([1e-12, 1e-4, 1e6, 1e12])[:, None, None].to(dtype)
    assert not linalg.inverse(A)[1].any()


@pytest.mark.parametrize("everything", [False, True])
def test_svd_failures_are_data(everything, dtype):
    """Also when the whole batch fails the factors keep their shapes and dtypes."""
    A = conditioned(4, 5, 3, dtype)
    A[1] = torch.nan
    A = A[1:2] if everything else A
    U, S, Vh, failed = linalg.svd(A)
    assert failed.tolist() == ([True] if everything else [False, True, False, False])
    assert [x.dtype for x in (U, S, Vh)] == [dtype, real(dtype), dtype]
    assert [x.shape[1:] for x in (U, S, Vh)] == [(5, 3), (3,), (3, 3)]
    assert all(x[failed].isnan().all() and x[~failed].isfinite().all() for x in (U, S, Vh))


@pytest.mark.parametrize("dtype", DTYPES[1::2])
def test_inverse_of_a_matrix_that_carries_gradients(dtype):
    A = gaussian(2, 3, 3, dtype=dtype).requires_grad_()
    assert not linalg.inverse(A)[0].requires_grad
    assert not linalg.svd(A)[0].requires_grad


def wide(A):
    """The same numbers in double precision, for NumPy."""
    return A.cpu().to(torch.complex128 if A.is_complex() else torch.float64).numpy()


def positive(batch, n, dtype, condition=10.0, seed=0):
    """Hermitian positive definite, exactly Hermitian after rounding, with eigenvalues from 1 down to 1 / condition."""
    double = torch.complex128 if dtype.is_complex else torch.float64
    Q = torch.linalg.qr(gaussian(batch, n, n, dtype=double, seed=seed)).Q
    values = torch.logspace(0, -torch.tensor(float(condition)).log10().item(), n, dtype=torch.float64)
    A = (Q * values) @ Q.mH
    return ((A + A.mH) / 2).to(dtype)


def diagonalizable(batch, n, dtype, seed=0):
    """Matrices with the eigenvalues 1 + 1 / n, 1 + 2 / n, ..., 2 and eigenvectors of condition 3."""
    double = torch.complex128 if dtype.is_complex else torch.float64
    V = conditioned(batch, n, n, double, condition=3.0, seed=seed)
    values = 1 + torch.arange(1, n + 1, dtype=torch.float64) / n
    return ((V * values) @ torch.from_numpy(np.linalg.inv(V.numpy()))).to(dtype), values.expand(batch, n)


def identities(count, n, dtype):
    return torch.eye(n, dtype=dtype).expand(count, n, n)


def poisoned(A, kind):
    """Matrices 2 and 5 of the batch replaced by one that is singular, NaN or Inf."""
    n = A.shape[1]
    bad = {
        "zero": torch.zeros(n, n, dtype=A.dtype),
        "repeated row": A[2].index_copy(0, torch.tensor([1]), A[2, :1]),
        "nan": torch.full((n, n), torch.nan, dtype=A.dtype),
        "inf": torch.full((n, n), torch.inf, dtype=A.dtype),
        "one nan": A[2].masked_fill(torch.eye(n, dtype=torch.bool) & (torch.arange(n) == n - 1), torch.nan),
    }[kind]
    mixed = A.clone()
    mixed[2] = mixed[5] = bad
    return mixed


POISONED, KEPT = [False, False, True, False, False, True], [0, 1, 3, 4]


def assert_masked(factors, failed, expected=POISONED):
    """Failed entries of every factor are NaN, the others finite."""
    assert failed.tolist() == expected
    for x in factors:
        assert x[failed].isnan().all()
        assert x[~failed].isfinite().all()


# Every function that factorises, where the batched LU of torch goes wrong (see test_inverse_...): n = 192, two
# matrices or more, two threads, against NumPy in double precision. Errors are those of the condition number, 10.
LARGE, BATCH = 192, 3


@cache
def large(dtype):
    return conditioned(BATCH, LARGE, LARGE, dtype)


@cache
def large_positive(dtype):
    return positive(BATCH, LARGE, dtype)


@pytest.mark.usefixtures("two_threads")
def test_svd_and_qr_on_two_threads(dtype):
    A = large(dtype)
    U, S, Vh, failed = linalg.svd(A)
    assert not failed.any()
    assert_close(S, torch.from_numpy(np.linalg.svd(wide(A), compute_uv=False)))
    assert_close((U * S[:, None, :].to(dtype)) @ Vh, A, units=200)
    assert_close(U.mH @ U, identities(BATCH, LARGE, dtype))
    Q, R, failed = linalg.qr(A)
    assert not failed.any()
    left, right = np.linalg.qr(wide(A))
    diagonal = np.diagonal(right, axis1=1, axis2=2)
    phase = diagonal / np.abs(diagonal)
    assert_close(Q, torch.from_numpy(left * phase[:, None, :]), units=100, scale=10.0)
    assert_close(R, torch.from_numpy(phase.conj()[:, :, None] * right), units=100, scale=10.0)


@pytest.mark.usefixtures("two_threads")
def test_solve_and_slogdet_on_two_threads(dtype):
    A, B = large(dtype), gaussian(BATCH, LARGE, 3, dtype=dtype, seed=5)
    X, failed = linalg.solve(A, B)
    assert not failed.any()
    assert_close(X, torch.from_numpy(np.linalg.solve(wide(A), wide(B))), units=100, scale=10.0)
    sign, logabsdet, failed = linalg.slogdet(A)
    assert not failed.any()
    oracle = np.linalg.slogdet(wide(A))
    assert_close(sign, torch.from_numpy(oracle.sign), scale=LARGE)  # each of 192 pivots is off by rounding
    assert_close(logabsdet, torch.from_numpy(oracle.logabsdet))


@pytest.mark.usefixtures("two_threads")
def test_solvers_of_hermitian_matrices_on_two_threads(dtype):
    A, B = large_positive(dtype), gaussian(BATCH, LARGE, 3, dtype=dtype, seed=5)
    X, failed = linalg.solve_positive(A, B)
    assert not failed.any()
    assert_close(X, torch.from_numpy(np.linalg.solve(wide(A), wide(B))), units=100, scale=10.0)
    L, failed = linalg.cholesky(A)
    assert not failed.any()
    assert_close(L, torch.from_numpy(np.linalg.cholesky(wide(A))), units=100)
    values, vectors, failed = linalg.eigh(A)
    assert not failed.any()
    assert_close(values, torch.from_numpy(np.linalg.eigvalsh(wide(A))))
    assert_close((vectors * values[:, None, :].to(dtype)) @ vectors.mH, A, units=200)
    assert_close(vectors.mH @ vectors, identities(BATCH, LARGE, dtype))


def test_what_torch_gives_up_on_has_its_eigenvectors_from_numpy(dtype, monkeypatch):
    """As it does on some matrices with MKL (pytorch issue 145801); and both are in double precision inside."""
    A = large_positive(dtype)
    values, vectors, _ = linalg.eigh(A)

    def refuse(A):
        raise RuntimeError("argument 8 had an illegal value")

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    again, others, failed = linalg.eigh(A)
    assert not failed.any() and others.dtype == dtype
    assert_close(values, again)
    assert_close((others * again[:, None, :].to(dtype)) @ others.mH, A, units=200)
    assert_close(vectors.mH @ vectors, identities(BATCH, LARGE, dtype))


@pytest.mark.usefixtures("two_threads")
def test_eig_on_two_threads(dtype):
    A, exact = diagonalizable(BATCH, LARGE, dtype)
    values, vectors, failed = linalg.eig(A)
    assert not failed.any()
    assert_close(values.real.sort(dim=1).values, exact, units=100)
    left, right = (
        torch.from_numpy(wide(A)).to(torch.complex128) @ vectors.to(torch.complex128),
        vectors * values[:, None],
    )
    assert_close(right, left, units=200)
    assert_close(torch.linalg.vector_norm(vectors, dim=1), torch.ones(BATCH, LARGE, dtype=torch.float64))


@pytest.mark.usefixtures("two_threads")
def test_matrix_functions_on_two_threads(dtype):
    """The one of them that needs an inverse."""
    A = large_positive(dtype)
    X, failed = linalg.matrix_function("inverse_sqrt", A)
    assert not failed.any()
    values, vectors = np.linalg.eigh(wide(A))
    oracle = (vectors / np.sqrt(values)[:, None, :]) @ vectors.conj().swapaxes(1, 2)
    assert_close(X, torch.from_numpy(oracle), scale=3.0)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("size", [0.01, 1.0], ids=["series", "svd"])
def test_orthonormalized_on_two_threads(size, dtype):
    A = conditioned(BATCH, LARGE, LARGE, dtype, condition=1 + size / 4)
    U, _, Vh = np.linalg.svd(wide(A))
    assert_close(linalg.orthonormalized(A), torch.from_numpy(U @ Vh))


SCALAR = {"exp": np.exp, "sqrt": np.sqrt, "inverse_sqrt": lambda w: 1 / np.sqrt(w), "log": np.log}


@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 1), (4, 6), (7, 2)])
def test_solve_agrees_with_numpy_in_any_memory_layout(n, k, dtype, device):
    A, B = conditioned(5, n, n, dtype), gaussian(5, n, k, dtype=dtype, seed=3)
    S, kept = positive(5, n, dtype), (A.clone(), B.clone())
    for left, hermitian, right in zip((A, *views(A)), (S, *views(S)), (B, *views(B))):
        for solve, M, view in ((linalg.solve, A, left), (linalg.solve_positive, S, hermitian)):
            X, failed = solve(view.to(device), right.to(device))
            assert (X.dtype, X.device.type, failed.dtype) == (dtype, torch.device(device).type, torch.bool)
            assert not failed.any()
            assert_close(X.cpu(), torch.from_numpy(np.linalg.solve(wide(M), wide(B))), scale=10.0)
    assert torch.equal(A, kept[0])  # the arguments are not written to
    assert torch.equal(B, kept[1])


@pytest.mark.parametrize("n", [1, 2, 6])
def test_hermitian_solvers_agree_with_numpy_in_any_memory_layout(n, dtype, device):
    A = positive(5, n, dtype)
    kept = A.clone()
    for view in (A, *views(A)):
        L, failed = linalg.cholesky(view.to(device))
        assert (L.dtype, failed.dtype) == (dtype, torch.bool)
        assert not failed.any()
        assert_close(L.cpu(), torch.from_numpy(np.linalg.cholesky(wide(A))))
        assert torch.equal(L, L.tril())
        values, vectors, failed = linalg.eigh(view.to(device))
        assert [x.dtype for x in (values, vectors, failed)] == [real(dtype), dtype, torch.bool]
        assert not failed.any()
        assert (values.diff(dim=1) >= 0).all()
        assert_close(values.cpu(), torch.from_numpy(np.linalg.eigvalsh(wide(A))))
        assert_close(((vectors * values[:, None, :].to(dtype)) @ vectors.mH).cpu(), A)
        assert_close((vectors.mH @ vectors).cpu(), identities(5, n, dtype))
    assert torch.equal(A, kept)


@pytest.mark.parametrize("n", [1, 2, 6])
def test_eig_agrees_with_numpy_in_any_memory_layout(n, dtype, device):
    A = gaussian(5, n, n, dtype=dtype)
    kept, complex_dtype = A.clone(), torch.complex(*torch.zeros(2, dtype=real(dtype))).dtype
    oracle = torch.from_numpy(np.linalg.eigvals(wide(A))).to(torch.complex128)
    for view in (A, *views(A)):
        values, vectors, failed = linalg.eig(view.to(device))
        assert [x.dtype for x in (values, vectors, failed)] == [complex_dtype, complex_dtype, torch.bool]
        assert not failed.any()
        distance = (values.cpu()[:, :, None] - oracle[:, None, :]).abs()  # in no order: each is there once
        assert (distance.argmin(dim=2).sort(dim=1).values == torch.arange(n)).all()
        assert distance.amin(dim=2).max() <= 500 * eps(dtype) * oracle.abs().max()
        assert_close((A.to(device, complex_dtype) @ vectors).cpu(), (vectors * values[:, None, :]).cpu(), units=200)
        assert_close(torch.linalg.vector_norm(vectors, dim=1), torch.ones(5, n, dtype=torch.float64))
    assert torch.equal(A, kept)


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_qr_agrees_with_numpy_in_any_memory_layout(m, n, dtype, device):
    A = conditioned(5, m, n, dtype)
    kept, k = A.clone(), min(m, n)
    left, right = np.linalg.qr(wide(A))
    diagonal = np.diagonal(right, axis1=1, axis2=2)
    phase = diagonal / np.abs(diagonal)
    for view in (A, *views(A)):
        Q, R, failed = linalg.qr(view.to(device))
        assert [x.shape for x in (Q, R)] == [(5, m, k), (5, k, n)]
        assert [x.dtype for x in (Q, R, failed)] == [dtype, dtype, torch.bool]
        assert not failed.any()
        diagonal = R.diagonal(dim1=1, dim2=2)
        assert (torch.real(diagonal) > 0).all()
        assert_close(diagonal, torch.real(diagonal).to(dtype))
        assert_close(Q.cpu(), torch.from_numpy(left * phase[:, None, :]), scale=10.0)
        assert_close(R.cpu(), torch.from_numpy(phase.conj()[:, :, None] * right), scale=10.0)
        assert_close(R.cpu(), R.cpu().triu())
    assert torch.equal(A, kept)


@pytest.mark.parametrize("n", [1, 2, 6])
def test_slogdet_agrees_with_numpy_in_any_memory_layout(n, dtype, device):
    A = conditioned(5, n, n, dtype)
    kept, oracle = A.clone(), np.linalg.slogdet(wide(A))
    for view in (A, *views(A)):
        sign, logabsdet, failed = linalg.slogdet(view.to(device))
        assert [x.dtype for x in (sign, logabsdet, failed)] == [dtype, real(dtype), torch.bool]
        assert [x.shape for x in (sign, logabsdet, failed)] == [(5,)] * 3
        assert not failed.any()
        assert_close(sign.cpu(), torch.from_numpy(oracle.sign))
        difference = logabsdet.cpu().double() - torch.from_numpy(oracle.logabsdet)
        assert difference.abs().max() <= 100 * eps(dtype)  # an absolute error, the relative one of the determinant
    assert torch.equal(A, kept)


def test_slogdet_takes_entries_that_are_nothing_beside_others(dtype):
    """A subnormal number loses digits as it is divided by its row's unit; none of them counts."""
    small = torch.finfo(dtype).tiny / 100
    A = torch.tensor([[[1, small], [small, 2]]], dtype=torch.float64).to(dtype)
    _, logabsdet, failed = linalg.slogdet(A)
    assert not failed.any()
    assert_close(logabsdet, torch.tensor([2.0], dtype=torch.float64).log())


def test_slogdet_does_not_overflow(dtype):
    """Where the determinant itself, 1e600 and 1e-600, does."""
    A = torch.diag_embed(torch.tensor([[1e3], [1e-3]], dtype=torch.float64).expand(2, 200)).to(dtype)
    sign, logabsdet, failed = linalg.slogdet(A)
    assert not failed.any()
    assert_close(sign, torch.ones(2, dtype=dtype))
    assert_close(logabsdet, torch.tensor([1.0, -1.0], dtype=torch.float64) * 600 * np.log(10.0))


@pytest.mark.parametrize("name", list(SCALAR))
def test_matrix_functions_agree_with_numpy_in_any_memory_layout(name, dtype, device):
    """Of matrices that are not normal, by their eigenvalues in double precision."""
    A, _ = diagonalizable(4, 5, dtype)
    kept = A.clone()
    values, vectors = np.linalg.eig(wide(A))
    oracle = (vectors * SCALAR[name](values)[:, None, :]) @ np.linalg.inv(vectors)
    oracle = torch.from_numpy(oracle if dtype.is_complex else oracle.real)
    for view in (A, *views(A)):
        X, failed = linalg.matrix_function(name, view.to(device))
        assert (X.dtype, X.device.type, failed.dtype) == (dtype, torch.device(device).type, torch.bool)
        assert not failed.any()
        assert_close(X.cpu(), oracle)
    assert torch.equal(A, kept)


@pytest.mark.parametrize("kind", ["zero", "repeated row", "nan", "inf", "one nan"])
def test_solve_reports_singular_members_and_the_others_are_right(kind, dtype, device):
    A, B = conditioned(6, 8, 8, dtype), gaussian(6, 8, 2, dtype=dtype, seed=3)
    X, failed = linalg.solve(poisoned(A, kind).to(device), B.to(device))
    assert_masked([X], failed)
    assert_close(X[~failed].cpu(), torch.from_numpy(np.linalg.solve(wide(A), wide(B))[KEPT]), scale=10.0)


def test_solve_of_a_numerically_singular_matrix_is_reported_where_the_solution_shows_it(dtype):
    """Two rows nearly the same: for [0, 1] the solution is too large for a condition below 1 / eps, for [1, 1] not."""
    A = torch.tensor([[1, 1], [1, 1 + eps(dtype)]], dtype=dtype).expand(2, 2, 2)
    X, failed = linalg.solve(A, torch.tensor([[1, 1], [0, 1]], dtype=dtype)[:, :, None])
    assert failed.tolist() == [False, True]
    assert torch.equal(X[0], torch.tensor([[1.0], [0.0]], dtype=dtype))
    assert X[1].isnan().all()


def test_solve_with_nothing_on_the_right(dtype):
    """Zero is the solution, also in other units; of a singular matrix it is one of many."""
    A = torch.diag(torch.tensor([1.0, eps(dtype) / 4], dtype=real(dtype))).to(dtype).repeat(3, 1, 1)
    A[1], A[2, 0, 0] = 0, torch.nan
    X, failed = linalg.solve(A, torch.zeros(3, 2, 1, dtype=dtype))
    assert failed.tolist() == [False, True, True]
    assert (X[0] == 0).all()


def test_well_conditioned_systems_of_any_scale_are_solved(dtype):
    scale = torch.tensor([1e-12, 1e-4, 1e6, 1e12])[:, None, None].to(dtype)
    A, B = conditioned(4, 6, 6, dtype), gaussian(4, 6, 2, dtype=dtype)
    for left, right in ((A * scale, B), (A, B * scale), (A * scale, B * scale)):
        assert not linalg.solve(left, right)[1].any()
    S = positive(4, 6, dtype) * scale
    assert not linalg.solve_positive(S, B)[1].any()
    assert not linalg.cholesky(S)[1].any()
    assert not linalg.eigh(S)[2].any()
    assert not linalg.eig(A * scale)[2].any()
    assert not linalg.qr(A * scale)[2].any()
    assert not linalg.slogdet(A * scale)[2].any()


def test_matrices_that_are_regular_in_other_units_of_rows_and_columns_are_solved(dtype, device):
    """In their own units their condition number is far above 1 / eps."""
    B, F, S = conditioned(4, 6, 6, dtype), gaussian(4, 6, 2, dtype=dtype), positive(4, 6, dtype)
    powers = torch.linspace(-1, 1, 6, dtype=torch.float64) * (30 if real(dtype) == torch.float32 else 120)
    rows, columns = ((2.0 ** x.round()).to(real(dtype))[:, None] for x in (powers, powers.roll(2)))
    A, P = (rows * B * columns.mT).to(device), (rows * S * rows.mT).to(device)
    assert (np.linalg.cond(wide(A)) > 100 / eps(dtype)).all()
    X, failed = linalg.inverse(A)
    assert not failed.any()
    assert_close(columns * X.cpu() * rows.mT, torch.from_numpy(np.linalg.inv(wide(B))), scale=10.0)
    for solve, M, plain, own in ((linalg.solve, A, B, columns), (linalg.solve_positive, P, S, rows)):
        X, failed = solve(M, (rows * F).to(device))
        assert not failed.any()
        assert_close(own * X.cpu(), torch.from_numpy(np.linalg.solve(wide(plain), wide(F))), scale=10.0)
    sign, logabsdet, failed = linalg.slogdet(A)
    assert not failed.any()
    oracle = np.linalg.slogdet(wide(B))
    assert_close(sign.cpu(), torch.from_numpy(oracle.sign), scale=10.0)
    moved = (rows.log().sum() + columns.log().sum()).item()
    assert_close(logabsdet.cpu(), torch.from_numpy(oracle.logabsdet) + moved, scale=100.0)


@pytest.mark.parametrize("kind", ["zero", "negative", "indefinite", "nan", "inf"])
def test_matrices_that_are_not_positive_definite_are_reported(kind, dtype, device):
    A, B = positive(6, 5, dtype), gaussian(6, 5, 2, dtype=dtype, seed=3)
    bad = {
        "zero": torch.zeros_like(A[2]),
        "negative": -A[2],
        "indefinite": A[2] - 0.5 * torch.eye(5, dtype=dtype),
        "nan": torch.full_like(A[2], torch.nan),
        "inf": torch.full_like(A[2], torch.inf),
    }[kind]
    mixed = A.clone()
    mixed[2] = mixed[5] = bad
    L, failed = linalg.cholesky(mixed.to(device))
    assert_masked([L], failed)
    assert_close(L[~failed].cpu(), torch.from_numpy(np.linalg.cholesky(wide(A))[KEPT]))
    X, failed = linalg.solve_positive(mixed.to(device), B.to(device))
    assert_masked([X], failed)
    assert_close(X[~failed].cpu(), torch.from_numpy(np.linalg.solve(wide(A), wide(B))[KEPT]), scale=10.0)


def test_solve_positive_reads_the_lower_triangle_only(dtype, device):
    A, B = positive(3, 5, dtype), gaussian(3, 5, 2, dtype=dtype, seed=3)
    spoiled = A.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), torch.nan)
    X, failed = linalg.solve_positive(spoiled.to(device), B.to(device))
    assert not failed.any()
    assert_close(X.cpu(), torch.from_numpy(np.linalg.solve(wide(A), wide(B))), scale=10.0)


@pytest.mark.parametrize("solve", [linalg.cholesky, linalg.eigh], ids=lambda f: f.__name__)
def test_matrices_that_are_not_hermitian_are_masked_and_refused_if_all_are(solve, dtype):
    A = positive(4, 5, dtype)
    A[2, 0, 4] += 0.01
    *factors, failed = solve(A)
    assert_masked(factors, failed, [False, False, True, False])
    words = ["`A`", "Hermitian", "||A - A^H|| / ||A||", "all 1", "(A + A^H) / 2", "nm.Eig", "nm.SVD"]
    assert_raises(ValueError, words, lambda: solve(A[2:3]))
    assert not solve((A + A.mH) / 2)[-1].any()  # the remedy works
    if dtype.is_complex:
        A = positive(4, 5, dtype)
        A[1] += 1e-2j * torch.eye(5, dtype=dtype)  # symmetric, but with a complex diagonal
        assert solve(A)[-1].tolist() == [False, True, False, False]


@pytest.mark.parametrize("function", linalg.FUNCTIONS)
def test_global_state_is_untouched_by_functions_of_matrices(function):
    """SciPy's logarithm draws random numbers from NumPy's global generator."""
    A = positive(2, 12, torch.float64)
    before = state_of_the_process()
    first, _ = linalg.matrix_function(function, A)
    assert state_of_the_process() == before
    again, _ = linalg.matrix_function(function, A)
    assert torch.equal(first, again)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_a_gram_matrix_is_hermitian_enough(size, dtype):
    """The product of a matrix with its adjoint is Hermitian up to rounding: that must not be refused."""
    A = (conditioned(8, 40, 30, dtype) * size**0.5).contiguous()
    G = A.mH.contiguous() @ A
    assert not linalg.eigh(G)[2].any()
    assert not linalg.cholesky(G)[1].any()


@pytest.mark.parametrize("everything", [False, True])
def test_failures_of_eigh_are_data(everything, dtype):
    A = positive(4, 5, dtype)
    A[1] = torch.nan
    values, vectors, failed = linalg.eigh(A[1:2] if everything else A)
    assert_masked([values, vectors], failed, [True] if everything else [False, True, False, False])
    assert (values.dtype, vectors.dtype) == (real(dtype), dtype)
    assert (values.shape[1:], vectors.shape[1:]) == ((5,), (5, 5))


@pytest.mark.parametrize("kind", ["jordan", "nearly defective", "nan", "inf"])
def test_defective_matrices_are_reported_by_eig(kind, dtype, device):
    A, exact = diagonalizable(6, 3, dtype)
    jordan = torch.tensor([[2.0, 1, 0], [0, 2, 1], [0, 0, 2]], dtype=dtype)
    bad = {
        "jordan": jordan,
        "nearly defective": jordan + eps(dtype) ** 2 * torch.ones_like(jordan),
        "nan": torch.full_like(jordan, torch.nan),
        "inf": torch.full_like(jordan, torch.inf),
    }[kind]
    A[2] = A[5] = bad
    values, vectors, failed = linalg.eig(A.to(device))
    assert_masked([values, vectors], failed)
    assert_close(values[~failed].real.sort(dim=1).values.cpu(), exact[KEPT])


def test_equal_eigenvalues_are_no_failure_of_eig_where_there_are_eigenvectors(dtype):
    values, _, failed = linalg.eig(2 * torch.eye(3, dtype=dtype).repeat(2, 1, 1))
    assert not failed.any()
    assert_close(values, torch.full((2, 3), 2.0, dtype=torch.complex128))


@pytest.mark.parametrize(("m", "n"), [(6, 4), (4, 4), (4, 6)])
@pytest.mark.parametrize("kind", ["zero", "zero column", "repeated column", "nan", "inf"])
def test_qr_reports_dependent_columns(kind, m, n, dtype, device):
    A = conditioned(6, m, n, dtype)
    for i in (2, 5):
        if kind == "zero":
            A[i] = 0
        elif kind == "zero column":
            A[i, :, 1] = 0
        elif kind == "repeated column":
            A[i, :, 2] = A[i, :, 0]
        else:
            A[i, 1, 1] = float(kind)
    Q, R, failed = linalg.qr(A.to(device))
    assert_masked([Q, R], failed)
    assert_close((Q[~failed] @ R[~failed]).cpu(), A[KEPT])


def test_qr_of_a_wide_matrix_minds_its_first_columns_only(dtype):
    """R (k, n) is unique where the first k columns are independent, whatever the rest."""
    A = conditioned(2, 3, 6, dtype)
    A[0, :, 3:] = 0
    A[1, :, 1] = A[1, :, 0]  # of full rank, by its last columns
    assert linalg.qr(A)[2].tolist() == [False, True]


@pytest.mark.parametrize("kind", ["zero", "repeated row", "nan", "one nan"])
def test_slogdet_reports_singular_members_and_the_others_are_right(kind, dtype, device):
    A = conditioned(6, 8, 8, dtype)
    sign, logabsdet, failed = linalg.slogdet(poisoned(A, kind).to(device))
    assert_masked([sign, logabsdet], failed)
    assert_close(logabsdet[~failed].cpu(), torch.from_numpy(np.linalg.slogdet(wide(A)).logabsdet[KEPT]))


@pytest.mark.parametrize("name", ["sqrt", "inverse_sqrt", "log"])
@pytest.mark.parametrize("kind", ["negative", "minus one", "zero", "repeated row", "nilpotent", "nan", "inf"])
def test_roots_and_logarithms_that_do_not_exist_are_reported(kind, name, dtype, device):
    A, _ = diagonalizable(6, 4, dtype)
    good = linalg.matrix_function(name, A)[0][KEPT]
    bad = {
        "negative": A[2] - 1.6 * torch.eye(4, dtype=dtype),  # eigenvalues -0.35, -0.1, 0.15, 0.4
        "minus one": -torch.eye(4, dtype=dtype),  # its real roots are not primary functions of it
        "nilpotent": torch.ones(4, 4, dtype=dtype).triu(1),
    }
    mixed = A.clone()
    if kind in bad:
        mixed[2] = mixed[5] = bad[kind]
    else:
        mixed = poisoned(A, kind)
    X, failed = linalg.matrix_function(name, mixed.to(device))
    assert_masked([X], failed)
    assert torch.equal(X[~failed].cpu(), good)


@pytest.mark.parametrize("kind", ["nan", "inf", "overflow"])
def test_exponentials_that_do_not_exist_are_reported(kind, dtype):
    A, _ = diagonalizable(6, 4, dtype)
    good = linalg.matrix_function("exp", A)[0][KEPT]
    A[2] = A[5] = 1e4 * torch.eye(4, dtype=dtype) if kind == "overflow" else float(kind)
    X, failed = linalg.matrix_function("exp", A)
    assert_masked([X], failed)
    assert torch.equal(X[~failed], good)


def test_real_functions_of_real_matrices_with_complex_eigenvalues(dtype):
    """A quarter turn has a real root and a real logarithm."""
    A = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]], dtype=dtype)
    half = torch.tensor([[[1.0, -1.0], [1.0, 1.0]]], dtype=torch.float64) / 2**0.5
    for name, expected in {"sqrt": half, "inverse_sqrt": half.mT, "log": A.real.double() * np.pi / 2}.items():
        X, failed = linalg.matrix_function(name, A)
        assert not failed.any()
        assert_close(X, expected.to(torch.complex128 if dtype.is_complex else torch.float64))


@pytest.mark.parametrize("singular", [False, True])
def test_exponential_does_not_mind_singular_matrices(singular, dtype):
    A = torch.zeros(2, 3, 3, dtype=dtype)
    A[:, 0, 1] = 0.0 if singular else 2.0
    X, failed = linalg.matrix_function("exp", A)
    assert not failed.any()
    assert_close(X, identities(2, 3, torch.complex128 if dtype.is_complex else torch.float64) + A)


DEFECTS = [0.0, 1e-12, 1e-7, 1e-4, 1e-2, 0.1, 0.29, 0.31, 0.7, 1.0, 3.0, 30.0]


def with_defect(m, k, dtype, seed=0):
    """Matrices U (m x k) with ||U^H U - I||_F as in `DEFECTS`, and the orthonormal factors of their polar forms."""
    double = torch.complex128 if dtype.is_complex else torch.float64
    count = len(DEFECTS)
    Q, _ = torch.linalg.qr(gaussian(count, m, k, dtype=double, seed=seed))
    P, _ = torch.linalg.qr(gaussian(count, k, k, dtype=double, seed=seed + 1))
    e = gaussian(count, k, dtype=torch.float64, seed=seed + 2)
    e = e / e.norm(dim=1, keepdim=True) * torch.tensor(DEFECTS, dtype=torch.float64)[:, None]
    e = torch.where(e < -0.9, -e, e)  # no smaller singular value than 0.3
    U = Q @ (P * (1 + e).sqrt()[:, None, :]) @ P.mH
    U = U.to(dtype)
    left, _, right = np.linalg.svd(wide(U), full_matrices=False)
    return U, torch.from_numpy(left @ right)


@pytest.mark.parametrize("rows", [False, True], ids=["columns", "rows"])
@pytest.mark.parametrize(("m", "k"), [(9, 4), (4, 4), (5, 1), (1, 1)])
def test_orthonormalized_is_the_nearest_orthonormal_matrix(m, k, rows, dtype, device):
    U, polar = with_defect(m, k, dtype)
    if rows:
        U, polar = U.mH.resolve_conj().contiguous(), polar.mH
    kept = U.clone()
    together = linalg.orthonormalized(U.to(device)).cpu()  # near and far ones in a batch
    assert together.dtype == dtype
    assert_close(together, polar)
    gram = together @ together.mH if rows else together.mH @ together
    assert_close(gram, identities(len(U), k, dtype), units=16)
    for i in range(len(U)):  # each alone, where the series has as many terms as this one needs
        assert_close(linalg.orthonormalized(U[i : i + 1].to(device)).cpu(), polar[i : i + 1])
    assert torch.equal(U, kept)


def test_no_other_orthonormal_matrix_is_nearer(dtype):
    U, _ = with_defect(6, 3, dtype, seed=4)
    nearest = torch.linalg.vector_norm((U - linalg.orthonormalized(U)).flatten(1).to(torch.complex128), dim=1)
    Q = linalg.orthonormalized(U)
    for seed in range(20):
        other = linalg.qr(Q + 10.0 ** (-seed / 5) * gaussian(*U.shape, dtype=dtype, seed=seed))[0]
        distance = torch.linalg.vector_norm((U - other).flatten(1).to(torch.complex128), dim=1)
        assert (distance >= nearest - 20 * eps(dtype)).all()


def test_orthonormalized_leaves_what_is_orthonormal(dtype):
    Q = linalg.qr(gaussian(4, 6, 3, dtype=dtype))[0]
    assert_close(linalg.orthonormalized(Q), Q, units=16)


def test_solvers_refuse_what_is_no_batch_of_matrices():
    square = [linalg.inverse, linalg.cholesky, linalg.eigh, linalg.eig, linalg.slogdet]
    for solve in (*square, lambda A: linalg.solve(A, A), lambda A: linalg.matrix_function("exp", A)):
        assert_raises(ValueError, ["`A`", "square", "(B, n, n)", "(2, 3, 4)"], lambda s=solve: s(torch.ones(2, 3, 4)))
    for solve in (*square, linalg.svd, linalg.qr):
        assert_raises(ValueError, ["`A`", "(B, m, n)", "(3, 3)", "A[None]"], lambda s=solve: s(torch.ones(3, 3)))
        assert_raises(TypeError, ["`A`", "float or complex", "int64"], lambda s=solve: s(torch.ones(2, 3, 3).long()))
        assert_raises(TypeError, ["`A`", "tensor", "an array"], lambda s=solve: s(np.ones((2, 3, 3))))


LU = {"inv", "inv_ex", "solve", "solve_ex", "lu", "lu_factor", "lu_factor_ex", "lu_solve", "lu_unpack", "det", "logdet"}
LU |= {"slogdet", "inverse", "tensorinv", "tensorsolve", "matrix_inverse"}


def lu_calls(source):
    """Lines that name a torch function which factorises by LU, however torch is imported, or a tensor's method."""
    tree = ast.parse(source)
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in LU:
            ours = ("linalg",) if imports(tree, "neumatc", "linalg") else ()
            owner = ast.unparse(node.value).split(".")[-1]
            counted = node.attr == "solve" and owner in (
                "task",
                "problem",
                "snapshots",
                "self",
            )  # through the operation
            trusted = ("np.linalg", "numpy.linalg", "scipy.linalg", "nm.linalg", *ours)
            if not counted and ast.unparse(node.value) not in trusted:
                lines.append(node.lineno)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            lines += [node.lineno for alias in node.names if alias.name in LU]
    return lines


def imports(tree, module, name):
    return any(
        isinstance(node, ast.ImportFrom) and node.module == module and name in [alias.name for alias in node.names]
        for node in ast.walk(tree)
    )


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch\ntorch.linalg.inv(A)", [2]),
        ("A.inverse()", [1]),
        ("torch.linalg.lu_factor_ex(A)", [1]),
        ("from torch import linalg\nlinalg.slogdet(A)", [2]),
        ("from torch.linalg import solve", [1]),
        ("f = torch.linalg.solve", [1]),
        ("from neumatc import linalg\nlinalg.inverse(A)", []),
        ("np.linalg.inv(A)", []),
        ("torch.linalg.svd(A)", []),
        ("task.solve(p)", []),
        ("task.inverse(p)", [1]),
        ("other.solve(p)", [1]),
    ],
)
def test_the_search_for_lu_finds_it(source, found):
    assert lu_calls(source) == found


@pytest.mark.parametrize("path", sorted(Path(nm.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_only_the_trusted_room_factorises(path):
    found = lu_calls(path.read_text(encoding="utf-8"))
    assert path.name == "linalg.py" or not found, f"{path.name}, lines {found}: go through neumatc.linalg"


@pytest.mark.parametrize("dtype", DTYPES)
def test_entries_are_a_view_in_whatever_order_they_lie(dtype):
    A = torch.randn(3, 4, 5, dtype=dtype)
    for B in (A, A.mT, A.mH, A.conj()):
        found = checks.entries(B)
        assert found.data_ptr() == A.data_ptr()
        assert torch.equal(found.abs().sort().values, A.flatten(1).abs().sort().values)
    assert checks.entries(A[:, 0, 0]).shape == (3, 1)
    assert checks.entries(A[:0]).shape == (0, 20)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", [linalg.solve, linalg.solve_positive])
def test_what_quick_norms_let_pass_is_what_the_exact_ones_do(solver, dtype):
    eps = torch.finfo(dtype).eps
    sizes = torch.tensor([1.0, 1e-3, eps**0.5, 100 * eps, eps, 0.0], dtype=torch.float64).to(dtype)
    for scale in (1.0, eps**4, eps**-4):  # squares of some leave single precision
        A = (torch.ones(2, 2, dtype=dtype) + sizes[:, None, None] * torch.tensor([[0, 0], [0, 1]])) * scale
        B = torch.eye(2, dtype=dtype).expand(len(sizes), 2, 2)
        together, failed = solver(A, B)
        alone = [solver(A[i : i + 1], B[i : i + 1]) for i in range(len(sizes))]
        assert failed.tolist() == [bool(one[1]) for one in alone]
        assert failed.tolist() == [False] * 4 + [True] * 2
        X = torch.cat([one[0] for one in alone])
        torch.testing.assert_close(together[:4], X[:4], rtol=4 * eps, atol=0)
