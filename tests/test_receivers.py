"""Pseudo-inverses of constant rank, zero forcing, and receivers in coloured noise, against textbook formulas."""

import warnings

import numpy as np
import pytest
import torch
from conftest import DTYPES, assert_close, assert_raises, conditioned, eps, gaussian

import neumatc as nm

DOUBLE = torch.float64
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def wide(x):
    return x.to(torch.complex128 if x.is_complex() else DOUBLE)


def quietly(problem, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)
        return nm.fit(problem, progress=False, **settings)


# Pseudo-inverses of constant rank


def deficient(batch, m, n, rank, dtype, tail=0.0):
    """Matrices with singular values 1, 1/2, ..., 1/rank, and ``tail`` after them."""
    k = min(m, n)
    U, V = (torch.linalg.qr(gaussian(batch, s, k, dtype=dtype, seed=s)).Q for s in (m, n))
    values = torch.cat([1 / torch.arange(1.0, rank + 1), torch.full((k - rank,), tail)]).to(dtype)
    return (U * values) @ V.mH


@dtypes
@pytest.mark.parametrize("shape", [(5, 5), (7, 4), (4, 7)], ids=str)
@pytest.mark.parametrize("tail", [0.0, 1e-2])
def test_the_pseudo_inverse_of_a_rank_is_that_of_numpy(shape, tail, dtype):
    A = deficient(6, *shape, 3, dtype, tail)
    expected = torch.from_numpy(np.linalg.pinv(wide(A).resolve_conj().numpy(), rcond=0.1))
    for operation in (nm.PseudoInverse(rank=3), nm.PseudoInverse(rcond=0.1)):
        (X,), failed = operation.exact(A)
        assert not failed.any()
        assert_close(X, expected)
        assert operation.residual(A, (X,)).max() <= 100 * eps(dtype)


@dtypes
def test_a_rank_that_is_not_there_fails(dtype):
    values = torch.tensor([[3.0, 2, 1], [3, 2, 2], [2, 1, 0], [2, 0, 0], [0, 0, 0]], dtype=DOUBLE)
    A = torch.diag_embed(values).to(dtype)
    assert nm.PseudoInverse(rank=2).exact(A)[1].tolist() == [False, True, False, True, True]
    assert nm.PseudoInverse(rank=3).exact(A)[1].tolist() == [False, False, True, True, True]
    (X,), failed = nm.PseudoInverse(rcond=1e-3).exact(A)
    assert not failed.any()
    assert_close(X, torch.where(values > 0, 1 / values, 0).diag_embed().to(wide(A)))


@pytest.mark.parametrize("operation", [nm.PseudoInverse(rank=2), nm.PseudoInverse(rcond=0.1)], ids=str)
@pytest.mark.parametrize("shape", [(4, 4), (5, 4), (4, 5)], ids=str)
def test_the_residual_of_a_rank_sees_an_error_in_every_direction(operation, shape):
    """Also in those that A maps to zero, and to first order: ten times the error, ten times the residual."""
    A = deficient(1, *shape, 2, torch.complex128)
    (X,), _ = operation.exact(A)
    for k in range(X[0].numel()):
        E = torch.zeros_like(X)
        E.view(-1)[k] = 1
        small, large = (float(operation.residual(A, (X + size * E,))) for size in (1e-6, 1e-5))
        assert small > 1e-8
        assert 9 < large / small < 11


def test_residuals_of_a_rank_see_directions_that_are_missing_or_too_many():
    A = deficient(3, 5, 5, 3, DOUBLE, 1e-2)
    for wrong in (0, 1, 2, 4, 5):
        (X,), _ = nm.PseudoInverse(rank=max(wrong, 1)).exact(
            A if wrong < 4 else A + 1e-4 * conditioned(3, 5, 5, DOUBLE)
        )
        X = X * (wrong > 0)
        assert nm.PseudoInverse(rank=3).residual(A, (X,)).min() > 0.05
        if wrong < 3:
            assert nm.PseudoInverse(rcond=0.1).residual(A, (X,)).min() > 0.05


def test_a_jump_of_the_rank_is_named():
    def fn(p):
        return torch.diag_embed(torch.cat([torch.ones_like(p), 1.5 * (1 + p), p], dim=1))

    problem = nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=DOUBLE), nm.PseudoInverse(rcond=0.3))
    with pytest.warns(nm.FitWarning, match="jumps"):
        report = nm.fit(problem, tol=1e-4, progress=False).report
    jump = 0.45 / 0.55  # where p = 0.3 * 1.5 (1 + p)
    assert [place.lower[0] <= jump <= place.upper[0] for place in report.unmet] == [True]


@pytest.mark.parametrize(("operation", "words"), [(nm.PseudoInverse(), "full rank"), (nm.Inverse(), "singular")])
@pytest.mark.parametrize("settings", [{"rank": 2}, {"tol": 1e-3}], ids=str)
def test_a_family_without_full_rank_warns_with_the_remedy(operation, words, settings):
    family = nm.ParametricMatrix(lambda p: (1 + p[:, :, None]) * torch.ones(3, 3), [0.0], [1.0])
    with pytest.warns(nm.FitWarning) as caught:
        nm.fit(nm.Problem(family, operation), progress=False, **settings)
    message = str(caught[0].message)
    assert len(caught) == 1 and len(message) < 300
    assert "every exact solve failed" in message and words in message and "nm.PseudoInverse(rank=...)" in message
    assert nm.fit(nm.Problem(family, nm.PseudoInverse(rank=1)), tol=1e-3, progress=False).report.met


def test_pseudo_inverses_refuse_wrong_settings():
    assert_raises(ValueError, ["`rank`, `rcond`", "one of them", "both"], lambda: nm.PseudoInverse(2, 1e-3))
    assert_raises(ValueError, ["`rank`", "at least 1"], lambda: nm.PseudoInverse(0))
    assert_raises(ValueError, ["`rcond`", "above 0", "below 1"], lambda: nm.PseudoInverse(rcond=1.0))
    assert_raises(ValueError, ["`rank`", "at most 3", "4 x 3"], lambda: nm.PseudoInverse(4).factors(4, 3))


# Zero forcing


def interference(A, X):
    """Power of the interference at each user over that of its own signal, the largest of the users, shape (B,)."""
    G = (X @ A if A.shape[1] >= A.shape[2] else A @ X).abs().square()
    own = G.diagonal(dim1=1, dim2=2)
    return ((G.sum(dim=2) - own) / own).amax(dim=1)


@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (3, 3)], ids=str)
@pytest.mark.parametrize("gap", [1.0, 1e-3])
def test_a_small_residual_of_zero_forcing_promises_suppressed_interference(shape, gap):
    """Two users nearly in one direction; whatever the error, the interference is at most rho^2 / (1 - rho^2)."""
    short = min(shape)
    H = gaussian(20, short, max(shape), dtype=torch.complex128)
    H[:, 1] = H[:, 0] + gap * H[:, 1]
    A = H.mH if shape[0] > shape[1] else H
    operation = nm.PseudoInverse()
    (X,), _ = operation.exact(A)
    for size in (1e-8, 1e-5, 1e-2):
        wrong = X * (1 + size * gaussian(*X.shape, dtype=X.dtype, seed=5))
        rho = operation.residual(A, (wrong,))
        small = rho < 0.9
        assert (interference(A, wrong)[small] <= (rho**2 / (1 - rho**2))[small] * (1 + 1e-9) + 1e-15).all()
        assert small.any() or size > 1e-3


# Receivers in coloured noise
