"""The linear algebra of the closed form, each against a dense oracle of NumPy's."""

import numpy as np
import pytest
import torch
from conftest import DTYPES, assert_close, conditioned, eps, gaussian, generator, parameters

from neumatc import lowrank

REAL = [torch.float32, torch.float64]
real_dtypes = pytest.mark.parametrize("dtype", REAL, ids=str)


def weights_of(count, seed=0):
    """Positive weights that differ by a factor of 10 and sum to one."""
    w = 0.1 + torch.rand(count, dtype=torch.float64, generator=generator(seed))
    return w / w.sum()


def decaying(groups, count, numbers, dtype, decay=1e-5, seed=0, weights=None):
    """Snapshots whose weighted singular values fall evenly from 1 to ``decay``."""
    k = min(count, numbers)
    left = torch.linalg.qr(gaussian(groups, count, k, dtype=torch.float64, seed=seed)).Q
    right = torch.linalg.qr(gaussian(groups, numbers, k, dtype=torch.float64, seed=seed + 1)).Q
    values = torch.logspace(0, float(np.log10(decay)), k, dtype=torch.float64)
    root = weights_of(count).sqrt() if weights is None else weights.sqrt()
    return (((left * values) @ right.mT) / root[:, None]).to(dtype)


# Proper orthogonal decomposition


@pytest.mark.parametrize(("count", "numbers"), [(20, 50), (50, 20), (20, 20), (7, 1), (1, 9)])
@real_dtypes
def test_pod_is_the_weighted_svd(dtype, count, numbers):
    w, rank = weights_of(count), min(count, numbers, 6)
    X = decaying(3, count, numbers, dtype)
    kept = X.clone()
    Y, C, S = lowrank.pod(X, w, rank)
    assert torch.equal(X, kept)
    assert (Y.dtype, C.dtype, S.dtype) == (torch.float64, dtype, torch.float64)
    assert (Y.shape, C.shape, S.shape) == ((3, count, rank), (3, rank, numbers), (3, count))
    assert (S.diff(dim=1) <= 0).all()
    for g in range(3):
        U, s, Vh = np.linalg.svd(w.sqrt()[:, None].numpy() * X[g].double().numpy(), full_matrices=False)
        s = np.pad(s, (0, count - len(s)))
        # The eigenvalues of the double-precision Gram matrix of single-precision snapshots: sqrt(2e-16) is the floor.
        floor = 1e-7 if dtype == torch.float32 else 1e-14
        assert np.abs(S[g].numpy() - s).max() <= floor * s[0]
        best = (U[:, :rank] * s[:rank]) @ Vh[:rank]
        found = w.sqrt()[:, None] * (Y[g] @ C[g].double())
        assert np.abs(found.numpy() - best).max() <= 50 * eps(dtype) * s[0]


@real_dtypes
def test_pod_error_is_the_tail_of_the_singular_values(dtype):
    w = weights_of(30)
    X = decaying(2, 30, 40, dtype)
    for rank in (1, 5, 12):
        Y, C, S = lowrank.pod(X, w, rank)
        error = (w[:, None] * (Y @ C.double() - X.double()) ** 2).sum(dim=(1, 2)).sqrt()
        assert torch.allclose(error, S[:, rank:].norm(dim=1), rtol=2e-3 if dtype == torch.float32 else 1e-8)
        # The coefficients are orthonormal under the weights, and the matrices orthogonal.
        assert_close(Y.mT @ (w[:, None] * Y), torch.eye(rank).double().expand(2, -1, -1), units=100)
        gram = C.double() @ C.double().mT
        assert_close(gram, torch.diag_embed(S[:, :rank] ** 2), units=100 * eps(dtype) / eps(torch.float64))


def test_single_precision_keeps_small_directions_that_its_own_gram_matrix_would_lose():
    """Relative singular values of 1e-6; the Gram matrix in single precision ends at sqrt(1e-7) = 3e-4."""
    w = weights_of(24)
    X = decaying(1, 24, 200, torch.float32, decay=1e-6)
    s = np.linalg.svd(w.sqrt()[:, None].numpy() * X[0].double().numpy(), compute_uv=False)
    _, _, S = lowrank.pod(X, w, 24)
    assert s[-1] < 3e-6
    assert np.abs(S[0].numpy() / s - 1).max() < 1e-3
    root = w.sqrt()[:, None].float()
    lost = torch.linalg.eigvalsh((root * X[0]) @ (root * X[0]).T).clamp_min(0).sqrt().flip(0)
    assert np.abs(lost.numpy() / s - 1).max() > 0.1  # what is avoided


@real_dtypes
@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_pod_does_not_depend_on_the_scale(dtype, scale):
    w = weights_of(12)
    X = decaying(1, 12, 30, dtype, decay=1e-3)
    Y, C, S = lowrank.pod(X, w, 4)
    Z, D, T = lowrank.pod(X * scale, w, 4)
    assert_close(T / scale, S, units=100 * eps(dtype) / eps(torch.float64))
    assert_close(Z @ D.double() / scale, Y @ C.double(), units=100 * eps(dtype) / eps(torch.float64))


@real_dtypes
def test_pod_of_dependent_and_of_zero_snapshots_is_finite(dtype):
    w = weights_of(10)
    one = gaussian(1, 1, 8, dtype=dtype).expand(1, 10, 8)
    for X in (one, torch.zeros(1, 10, 8, dtype=dtype)):
        Y, C, S = lowrank.pod(X, w, 5)
        assert all(t.isfinite().all() for t in (Y, C, S))
        assert (Y @ C.double() - X.double()).abs().max() <= 50 * eps(dtype) * max(1e-30, float(X.abs().max()))


# Regularised least squares


@pytest.mark.parametrize("penalty", [1e-15, 1e-6, 1e-1])
@pytest.mark.parametrize(("count", "features"), [(60, 8), (8, 60), (20, 20), (1, 3)])
def test_ridge_is_the_augmented_least_squares_problem(count, features, penalty):
    psi, Y = gaussian(count, features, dtype=torch.float64), gaussian(count, 4, dtype=torch.float64, seed=1)
    w = weights_of(count)
    root = w.sqrt()[:, None].numpy()
    matrix = np.zeros((count + features, features + 1))
    matrix[:count, :1], matrix[:count, 1:] = root, root * psi.numpy()
    matrix[count:, 1:] = penalty * np.eye(features)
    right = np.concatenate([root * Y.numpy(), np.zeros((features, 4))])
    expected = np.linalg.lstsq(matrix, right, rcond=0)[0]
    W, b = lowrank.ridge(psi, Y, w, penalty)
    assert (W.shape, b.shape) == ((features, 4), (4,))
    fitted = matrix @ np.concatenate([b[None].numpy(), W.numpy()])
    assert np.abs(fitted - matrix @ expected).max() < 1e-12
    if penalty > 1e-9 or count > features:  # else the coefficients are as ill-conditioned as 1 / penalty
        assert np.abs(W.numpy() - expected[1:]).max() < 1e-8
        assert np.abs(b.numpy() - expected[0]).max() < 1e-8


def test_ridge_does_not_square_the_condition_number():
    """Features of condition 1e8: normal equations would be singular, the solution here keeps half of the digits."""
    psi = torch.linalg.qr(gaussian(80, 10, dtype=torch.float64)).Q * torch.logspace(0, -8, 10, dtype=torch.float64)
    exact, w = gaussian(10, 3, dtype=torch.float64, seed=2), torch.full((80,), 1 / 80, dtype=torch.float64)
    W, b = lowrank.ridge(psi, psi @ exact + 7.0, w, 1e-13)
    assert (W - exact).abs().max() < 1e-4
    assert (b - 7).abs().max() < 1e-12


def test_ridge_of_dependent_features_is_finite_and_fits():
    x = gaussian(40, 3, dtype=torch.float64)
    psi = torch.cat([x, x, torch.zeros(40, 2).double()], dim=1)
    w, Y = weights_of(40), x @ gaussian(3, 2, dtype=torch.float64, seed=1)
    W, b = lowrank.ridge(psi, Y, w, 1e-12)
    assert W.isfinite().all() and W.abs().max() < 10
    assert (psi @ W + b - Y).abs().max() < 1e-9


def test_ridge_never_shrinks_the_constant():
    psi, w = gaussian(30, 2, dtype=torch.float64), weights_of(30)
    _, b = lowrank.ridge(psi, torch.full((30, 1), 5.0, dtype=torch.float64), w, 1e6)
    assert_close(b, torch.tensor([5.0], dtype=torch.float64), units=1e4)


# Collocation: coefficients of least residual


def kronecker(L, Q):
    """The assembled matrix of sum_k Q_ik L_i Z_k, rows (i, equation), columns (k, row of Z)."""
    return np.einsum("nem,nk->nekm", L.numpy(), Q.numpy()).reshape(L.shape[0] * L.shape[1], -1)


@pytest.mark.parametrize(("e", "m", "c"), [(5, 5, 5), (7, 4, 3), (4, 4, 1), (1, 1, 1)])
def test_collocate_is_the_dense_least_squares_problem(e, m, c, dtype):
    N, K = 14, 5
    L = gaussian(N, e, m, dtype=dtype)
    L[:, :m] += 4 * torch.eye(m, dtype=dtype)
    F = gaussian(N, e, c, dtype=dtype, seed=1)
    Q = torch.linalg.qr(gaussian(N, K, dtype=torch.float64, seed=2)).Q
    kept = L.clone(), F.clone(), Q.clone()
    values, steps = lowrank.collocate(L, F, Q.to(eps_real(dtype)), 8 * eps(dtype), 2000)
    assert all(torch.equal(x, y) for x, y in zip((L, F, Q), kept))
    assert values.shape == (N, m, c)
    assert values.dtype == dtype
    assert 1 <= steps < 2000
    wide = torch.complex128 if dtype.is_complex else torch.float64
    matrix = kronecker(L.to(wide), Q)
    Z = np.linalg.lstsq(matrix, F.to(wide).numpy().reshape(N * e, c), rcond=None)[0].reshape(K, m, c)
    expected = torch.from_numpy(np.einsum("nk,kmc->nmc", Q.numpy(), Z)).to(dtype)
    assert_close(values, expected, units=1000)


def eps_real(dtype):
    return dtype.to_real() if dtype.is_complex else dtype


def test_collocate_with_as_many_functions_as_points_solves_each_exactly(dtype):
    L = gaussian(6, 3, 3, dtype=dtype) + 4 * torch.eye(3, dtype=dtype)
    F = torch.eye(3, dtype=dtype).expand(6, 3, 3)
    values, _ = lowrank.collocate(L, F, torch.eye(6, dtype=eps_real(dtype)), 8 * eps(dtype), 500)
    assert_close(L @ values, F, units=500)


def test_collocate_stops_where_it_is_told_to_and_stays_finite():
    L = torch.diag_embed(torch.logspace(0, -9, 8, dtype=torch.float64)).expand(5, 8, 8)
    F = torch.eye(8, dtype=torch.float64).expand(5, 8, 8)
    values, steps = lowrank.collocate(L, F, torch.eye(5, dtype=torch.float64), 1e-15, 3)
    assert steps <= 3
    assert values.isfinite().all()
    values, _ = lowrank.collocate(0 * L, F, torch.eye(5, dtype=torch.float64), 1e-15, 10)
    assert torch.equal(values, torch.zeros_like(values))  # the least-squares solution of least norm


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_collocate_does_not_depend_on_the_scale(scale, dtype):
    """Single precision holds 1e-38 to 1e38: squares of gradients must not leave it."""
    L = gaussian(9, 4, 4, dtype=dtype) + 4 * torch.eye(4, dtype=dtype)
    F = torch.eye(4, dtype=dtype).expand(9, 4, 4)
    Q = torch.linalg.qr(gaussian(9, 3, dtype=torch.float64)).Q.to(eps_real(dtype))
    values, _ = lowrank.collocate(L, F, Q, 8 * eps(dtype), 500)
    scaled, _ = lowrank.collocate(L * scale, F, Q, 8 * eps(dtype), 500)
    assert_close(scaled * scale, values, units=1000)


# Projection: coefficients of least sketched residual at given parameters


@pytest.mark.parametrize(("e", "m", "c", "s"), [(6, 6, 6, 2), (8, 5, 4, 4), (6, 6, 6, 6)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_project_is_the_dense_sketched_problem(e, m, c, s, dtype):
    N, R = 7, 5
    L, F = gaussian(N, e, m, dtype=dtype), gaussian(N, e, c, dtype=dtype, seed=1)
    basis, sketch = gaussian(R, m, c, dtype=dtype, seed=2), gaussian(c, s, dtype=eps_real(dtype), seed=3)
    found = lowrank.project(L, F, basis, sketch)
    assert (found.shape, found.dtype) == ((N, R), torch.float64)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    for i in range(N):
        omega = sketch.to(wide)
        columns = torch.stack([(L[i].to(wide) @ B.to(wide) @ omega).flatten() for B in basis], dim=1).numpy()
        right = (F[i].to(wide) @ omega).flatten().numpy()
        columns, right = (np.concatenate([x.real, x.imag]) for x in (columns, right))
        expected = np.linalg.lstsq(columns, right, rcond=None)[0]
        assert np.abs(found[i].numpy() - expected).max() <= 1000 * eps(dtype) * max(1, np.abs(expected).max())


def test_project_recovers_what_lies_in_the_span(dtype):
    basis, c = gaussian(4, 6, 6, dtype=dtype), parameters(9, 4)
    X = torch.einsum("nr,rij->nij", c.to(dtype), basis)
    L = gaussian(9, 6, 6, dtype=dtype, seed=1)
    found = lowrank.project(L, L @ X, basis, gaussian(6, 2, dtype=eps_real(dtype), seed=2))
    assert (found - c).abs().max() < 1e4 * eps(dtype)


@pytest.mark.parametrize("condition", [1e3, 1e6, 1e9, 1e11])
def test_project_does_not_square_the_condition_number(condition):
    basis, c = gaussian(8, 8, 8, dtype=torch.float64), parameters(9, 8)
    L = conditioned(9, 8, 8, torch.float64, condition)
    X = torch.einsum("nr,rij->nij", c, basis)
    found = lowrank.project(L, L @ X, basis, gaussian(8, 1, dtype=torch.float64, seed=2))
    assert (found - c).abs().max() < 100 * condition * eps(torch.float64)


def test_project_marks_what_is_not_determined(dtype):
    """Where A(p) = 0 the residual says nothing, and the others are right."""
    basis, c = gaussian(3, 5, 5, dtype=dtype), parameters(4, 3)
    L = gaussian(4, 5, 5, dtype=dtype, seed=1)
    L[2] = 0
    X = torch.einsum("nr,rij->nij", c.to(dtype), basis)
    found = lowrank.project(L, L @ X, basis, gaussian(5, 2, dtype=eps_real(dtype), seed=2))
    assert torch.isfinite(found).all(dim=1).tolist() == [True, True, False, True]
    assert (found - c)[[0, 1, 3]].abs().max() < 1e4 * eps(dtype)
