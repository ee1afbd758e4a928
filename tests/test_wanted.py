"""Residuals are zero for any k eigenpairs or triplets: a fit looks whether they are those that are wanted."""

import pytest
import torch
from conftest import eps, gaussian

import neumatc as nm
from neumatc.operations import judged

# Values in the order in which they are wanted.
MODULI = [5.0, 4.0, 2.0, 1.0, 0.1]
CHOICES = {
    "largest": (nm.Eigh(rank=2), [5.0, -4.0, 2.0, 0.5, -0.1]),
    "lowest": (nm.Eigh(rank=2, which="lowest"), [-5.0, -4.0, 2.0, 3.0, 6.0]),
    "highest": (nm.Eigh(rank=2, which="highest"), [5.0, 4.0, 2.0, -3.0, -6.0]),
    "smallest": (nm.Eigh(rank=2, which="smallest"), [0.1, -0.5, 2.0, 3.0, -6.0]),
    "near": (nm.Eigh(rank=2, near=3.0), [3.1, 2.8, 2.0, 5.0, -6.0]),
    "triplets": (nm.SVD(rank=2), MODULI),
    "span": (nm.Subspace(rank=2), MODULI),
    "span of rows": (nm.Subspace(rank=2, side="right"), MODULI),
    "projector": (nm.Projector(rank=2), MODULI),
}


def factors_of(operation, V, s):
    if isinstance(operation, nm.Eigh):
        order = s.argsort(dim=1)[0]
        return s[:, order], V[:, :, order]
    if isinstance(operation, nm.SVD):
        return V, s, V.mH
    return (V @ V.mH,) if isinstance(operation, nm.Projector) else (V,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
@pytest.mark.parametrize("name", CHOICES)
def test_values_that_are_not_those_wanted_are_refused_by_a_fit(name, dtype):
    operation, values = CHOICES[name]
    s, Q = torch.tensor([values], dtype=torch.float64), torch.linalg.qr(gaussian(1, 5, 5, dtype=dtype))[0]
    s = s.to(Q.real.dtype)
    A = (Q * s[:, None]) @ Q.mH
    for columns, wanted in (([0, 1], True), ([0, 2], False)):
        factors = factors_of(operation, Q[:, :, columns], s[:, columns])
        assert operation.residual(A, factors) < 1e3 * eps(dtype)
        assert (judged(operation, A, factors) < 1e3 * eps(dtype)) == wanted


@pytest.mark.parametrize("error", [1e-1, 1e-3])
@pytest.mark.parametrize("name", CHOICES)
def test_inexact_factors_are_those_wanted(name, error):
    operation, values = CHOICES[name]
    s, Q = torch.tensor([values], dtype=torch.float64), torch.linalg.qr(gaussian(1, 5, 5, dtype=torch.float64))[0]
    A = (Q * s[:, None]) @ Q.mH
    V = Q[:, :, :2] + error * gaussian(1, 5, 2, dtype=torch.float64, seed=1) / 10**0.5
    assert judged(operation, A, factors_of(operation, V, s[:, :2])) < torch.inf


def dip(at=0.777, width=0.1):
    """Two values that exchange their places twice between two nodes of a first look, five others above them."""
    Q = torch.linalg.qr(gaussian(6, 6, dtype=torch.float64))[0]

    def fn(p):
        low, sunken = 1 + 0.3 * p, 2 - 1.5 * torch.exp(-(((p - at) / width) ** 2))
        others = torch.arange(3.0, 7.0, dtype=torch.float64).expand(len(p), -1)
        return (Q * torch.cat([low, sunken, others], dim=1)[:, None]) @ Q.T

    return fn


def risen(p):
    return 8 * torch.eye(6, dtype=torch.float64) - dip()(p)


@pytest.mark.parametrize(
    ("operation", "fn"),
    [
        (nm.Eigh(rank=1, which="lowest"), dip()),
        (nm.Eigh(rank=1, which="highest"), risen),
        (nm.SVD(rank=1), risen),
        (nm.Subspace(rank=1), risen),
        (nm.Projector(rank=1), risen),
    ],
    ids=["lowest", "highest", "triplet", "span", "projector"],
)
def test_values_that_exchange_between_nodes_are_found(operation, fn):
    problem = nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0]), operation)
    surrogate = nm.fit(problem, tol=1e-3, progress=False)
    p = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None]
    wrong = problem.error(p, surrogate(p)) > 1e-2
    assert wrong.double().mean() < 0.02, "but beside the places where the choice jumps"
