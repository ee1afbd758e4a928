"""Operations and problems: one registry of cases, each against dense NumPy and SciPy oracles, fitted, and bounded."""

import itertools
import math
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import (
    DTYPES,
    assert_close,
    assert_raises,
    conditioned,
    eps,
    gaussian,
    grid_of,
    parameters,
    real,
    tensors_of,
)

import neumatc as nm
from neumatc import StopReason

SQUARE, TALL, WIDE, ROW, ONE, PAIR = (4, 4), (5, 3), (3, 5), (1, 5), (1, 1), (4, 8)
ALL = [SQUARE, TALL, WIDE, ROW, ONE]


@dataclass(frozen=True)
class Case:
    """An operation, the shape of its matrices, and the kind of matrix that it is for."""

    operation: nm.Operation
    shape: tuple[int, int]
    kind: str = "general"

    def __str__(self):
        return f"{self.operation}-{self.shape[0]}x{self.shape[1]}".replace(" ", "")


CASES = [Case(nm.Inverse(), shape) for shape in (SQUARE, ONE)]
CASES += [Case(nm.RegularizedInverse(noise=1.0), shape) for shape in (SQUARE, TALL, WIDE, ONE)]
CASES += [Case(nm.LMMSE(noise=0.1), shape) for shape in ALL]
CASES += [Case(nm.RZF(noise=0.5), shape) for shape in (TALL, WIDE)]
CASES += [Case(nm.LMMSE(noise=0.1, unbiased=True), shape) for shape in (SQUARE, TALL)]
CASES += [Case(nm.LMMSE(noise="beside"), (m, n + m), "noisy") for m, n in (SQUARE, TALL, WIDE)]
CASES += [Case(nm.LMMSE(noise="beside", unbiased=True), (5, 8), "noisy")]
CASES += [Case(nm.RZF(noise="beside"), (3, 8), "noisy"), Case(nm.RZF(noise=(0.1, 0.2, 0.3)), WIDE)]
CASES += [Case(nm.LMMSE(noise=(0.1, 0.2, 0.3, 0.2, 0.1)), TALL)]
CASES += [Case(nm.Equaliser(noise=0.1), shape) for shape in (SQUARE, TALL)]
CASES += [Case(nm.Equaliser("zf", noise=0.1), TALL)]
CASES += [Case(nm.Equaliser(kind, noise="beside"), (5, 8), "noisy") for kind in ("lmmse", "zf")]
CASES += [Case(nm.PseudoInverse(), shape) for shape in ALL]
CASES += [Case(nm.PseudoInverse(rank=2), shape) for shape in (SQUARE, TALL, WIDE)]
CASES += [Case(nm.PseudoInverse(rank=1), ROW), Case(nm.PseudoInverse(rcond=0.01), TALL)]
CASES += [Case(nm.Solve(columns=k), (n, n + k), "solve") for n, k in ((4, 1), (4, 3), (1, 1))]
CASES += [Case(nm.LogDet(), shape) for shape in (SQUARE, ONE)]
FUNCTIONS = ("exp", "sqrt", "inverse_sqrt", "log")
CASES += [Case(nm.MatrixFunction(name), SQUARE, "principal") for name in FUNCTIONS]
CASES += [Case(nm.MatrixFunction("log"), ONE, "principal")]
CASES += [Case(nm.SVD(), shape) for shape in ALL]
CASES += [Case(nm.SVD(rank=2), shape) for shape in (SQUARE, TALL, WIDE)]
CASES += [Case(nm.SVD(rank=2, gauge="subspace"), shape) for shape in (SQUARE, TALL, WIDE)]
CASES += [Case(nm.Eigh(), shape, "hermitian") for shape in (SQUARE, ONE)]
CASES += [Case(nm.Eigh(rank=2, gauge=gauge), SQUARE, "hermitian") for gauge in ("vectors", "subspace")]
CASES += [Case(nm.Eigh(rank=2, which=which), SQUARE, "hermitian") for which in ("smallest", "lowest", "highest")]
CASES += [Case(nm.Eigh(rank=2, which="lowest", gauge="subspace"), SQUARE, "hermitian")]
CASES += [Case(nm.Eigh(rank=2, near=1.0), SQUARE, "hermitian")]
CASES += [Case(nm.Eigh(rank=k, which="lowest", B="beside"), PAIR, "pair") for k in (None, 2)]
CASES += [Case(nm.Eigh(rank=2, B="beside", **chosen), PAIR, "pair") for chosen in ({}, {"near": 1.0})]
CASES += [Case(nm.Eig(), shape, "principal") for shape in (SQUARE, ONE)]
CASES += [Case(nm.Subspace(2, side), shape) for side in ("left", "right") for shape in (SQUARE, TALL, WIDE)]
CASES += [Case(nm.Projector(2, side), shape) for side in ("left", "right") for shape in (SQUARE, TALL, WIDE)]
CASES += [Case(nm.Subspace(1), ONE), Case(nm.Projector(1, "right"), ROW)]
CASES += [Case(nm.QR(), shape) for shape in ALL]
CASES += [Case(nm.Cholesky(), shape, "positive") for shape in (SQUARE, ONE)]
CASES += [Case(nm.Polar(), shape) for shape in ALL]
LINEAR = [case for case in CASES if case.operation.linear]
BOUNDED = [case for case in CASES if case.operation.certainty == "bound"]
ORTHONORMAL = (nm.SVD, nm.Eigh, nm.Subspace, nm.QR, nm.Polar)

# Of the linear operations one shape each for what does not depend on it, tall and wide both occurring.
ONE_SHAPE = [Case(nm.Inverse(), SQUARE), Case(nm.RegularizedInverse(noise=1.0), TALL), Case(nm.LMMSE(noise=0.1), WIDE)]
ONE_SHAPE += [Case(nm.RZF(noise=0.5), TALL), Case(nm.PseudoInverse(), WIDE), Case(nm.Solve(columns=3), (4, 7), "solve")]

cases = pytest.mark.parametrize("case", CASES, ids=str)
# Both precisions and both fields.
two_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
NAMED = {"SVDFactors": "U S Vh", "EigFactors": "eigenvalues eigenvectors", "QRFactors": "Q R", "PolarFactors": "U P"}
NAMED |= {"LogDetFactors": "sign logabsdet", "EqualiserFactors": "X v"}


def wide(x):
    """In double precision, on the CPU."""
    return x.cpu().to(torch.complex128 if x.is_complex() else torch.float64)


def matrices(case, batch, dtype, seed=0):
    """Well-conditioned matrices of the case's kind, on the CPU."""
    m, n = case.shape
    if case.kind == "solve":
        right = gaussian(batch, m, n - m, dtype=dtype, seed=seed + 5)
        return torch.cat([conditioned(batch, m, m, dtype, seed=seed), right], dim=2)
    if case.kind == "noisy":
        R = matrices(Case(case.operation, (m, m), "positive"), batch, dtype, seed + 5)
        return torch.cat([conditioned(batch, m, n - m, dtype, seed=seed), R], dim=2)
    if case.kind == "general":
        return conditioned(batch, m, n, dtype, seed=seed)
    double = torch.complex128 if dtype.is_complex else torch.float64
    if case.kind == "pair":  # C, the eigenvalues of which are theirs, and B of condition two
        C = matrices(Case(case.operation, (m, m), "hermitian"), batch, double, seed)
        B = 1.2 * torch.eye(m) + matrices(Case(case.operation, (m, m), "positive"), batch, double, seed + 5)
        root = torch.linalg.cholesky(B)
        A = root @ C @ root.mH
        return torch.cat([(A + A.mH) / 2, B], dim=2).to(dtype)
    if case.kind == "principal":  # eigenvalues 1, 2, ... in vectors that are not orthogonal
        V = torch.eye(n, dtype=double) + 0.5 * conditioned(batch, n, n, double, seed=seed)
        return (V * torch.arange(1.0, n + 1) @ torch.linalg.inv(V)).to(dtype)
    values = torch.logspace(0, -1, n, dtype=torch.float64)
    if case.kind == "hermitian":
        values = values * (-1) ** torch.arange(n)
    V = conditioned(batch, n, n, double, 1.0, seed)
    A = (V * values) @ V.mH
    return ((A + A.mH) / 2).to(dtype)


def slow(case, dtype, d=1, device="cpu"):
    """A family of the case's kind, which varies slowly about a diagonal with the entries 2, 3, ..., 0.4 at most."""
    m, n = case.shape
    if case.kind == "solve":
        square = Case(case.operation, (m, m))
        right = Case(case.operation, (m, n - m))
        return nm.families.beside(slow(square, dtype, d, device), slow(right, dtype, d, device))
    if case.kind == "noisy":
        channel, covariance = Case(case.operation, (m, n - m)), Case(case.operation, (m, m), "positive")
        return nm.families.beside(slow(channel, dtype, d, device), slow(covariance, dtype, d, device))
    if case.kind == "pair":
        A, B = (slow(Case(case.operation, (m, m), kind), dtype, d, device) for kind in ("hermitian", "positive"))
        turned = nm.ParametricMatrix(lambda p: B(p).flip(1, 2), B.lower, B.upper)
        return nm.families.beside(A, turned)
    k = min(m, n)
    centre = torch.zeros(m, n, dtype=torch.float64)
    centre[range(k), range(k)] = torch.arange(2.0, 2 + k, dtype=torch.float64)
    if case.kind == "hermitian":
        centre *= (-1) ** torch.arange(n)
    waves = gaussian(2, m, n, dtype=dtype, seed=3)
    waves = (waves + waves.mH) / 2 if case.kind in ("hermitian", "positive") else waves
    waves = 0.2 * waves / torch.linalg.matrix_norm(waves, 2)[:, None, None]
    centre, waves = centre.to(device, dtype), waves.to(device)
    speeds = torch.tensor([[1.5, -0.5], [0.7, 1.0]], dtype=real(dtype), device=device)[:, :d]

    def fn(p):
        phases = p @ speeds.T + torch.arange(2, dtype=p.dtype, device=p.device)
        return centre + torch.einsum("bk,kmn->bmn", phases.cos().to(dtype), waves)

    return nm.ParametricMatrix(fn, [0.0] * d, [1.0] * d, dtype=real(dtype), device=device)


def fit(problem, rank=None, *, tol=None, budget=None, **settings):
    method = nm.ClosedForm(**settings) if tol is None else None
    return nm.fit(problem, rank=rank, tol=tol, budget=budget, method=method, progress=False)


def as_tuple(value):
    return (value,) if isinstance(value, torch.Tensor) else tuple(value)


def largest_rank(problem):
    """The number of real numbers in the largest factor: then the rank truncates nothing."""
    dtypes = [(factor.shape, factor.dtype(problem.family.dtype)) for factor in problem.factors]
    return max(torch.Size(shape).numel() * (2 if dtype.is_complex else 1) for shape, dtype in dtypes)


# Oracles: one matrix at a time, by another algorithm than the library's wherever there is one


def leading(A, k, side="left"):
    """Orthonormal basis of the k leading left (right) singular vectors, by the eigenvectors of the Gram matrix."""
    return np.linalg.eigh(A @ A.conj().T if side == "left" else A.conj().T @ A)[1][:, -k:]


def by_eigenvectors(function, A):
    w, V = np.linalg.eig(A)
    X = V @ np.diag(function(w)) @ np.linalg.inv(V)
    return X if np.iscomplexobj(A) else X.real


def by_cholesky(A):
    """QR with a positive diagonal, from the Cholesky factor of the Gram matrix of the first columns."""
    first = A[:, : min(A.shape)]
    Q = first @ np.linalg.inv(np.linalg.cholesky(first.conj().T @ first).conj().T)
    return Q, Q.conj().T @ A


def best(o, w):
    """Numbers of the eigenvalues that an operation chooses, best first."""
    if o.near is not None:
        return sorted(range(len(w)), key=lambda i: abs(w[i] - o.near))[: o.rank]
    keys = {"largest": lambda i: -abs(w[i]), "smallest": lambda i: abs(w[i])}
    keys |= {"lowest": lambda i: w[i], "highest": lambda i: -w[i]}
    return sorted(range(len(w)), key=keys[o.which])[: o.rank]


def spectral(A, o):
    """The eigenvalues that are chosen, ascending, and that part of the matrix."""
    w, V = scipy.linalg.eigh(A) if not o.B else scipy.linalg.eigh(A[:, : len(A)], A[:, len(A) :])
    chosen = np.sort(best(o, w))
    return w[chosen], (V[:, chosen] * w[chosen]) @ V[:, chosen].conj().T


def singular(A, rank):
    """Singular values from the eigenvalues of [0 A; A^H 0], and the projection of A on the leading vectors."""
    k = rank or min(A.shape)
    zero = [np.zeros((s, s)) for s in A.shape]
    values = np.linalg.eigvalsh(np.block([[zero[0], A], [A.conj().T, zero[1]]]))[::-1][:k]
    U = leading(A, k)
    return values, U @ U.conj().T @ A


def projection(U):
    return U @ U.conj().T


def projector(A, o):
    return (projection(leading(A, o.rank, o.side)),)


def regularized(A, noise):
    return np.linalg.inv(A.conj().T @ A + noise * np.eye(A.shape[1]))


def receiver(A, o):
    """By the larger system, or the smaller, whichever the library does not take."""
    H, R = (A[:, : -len(A)], A[:, -len(A) :]) if o.noise == "beside" else (A, np.diag(np.broadcast_to(o.noise, len(A))))
    if len(H) > H.shape[1]:
        X = H.conj().T @ np.linalg.inv(H @ H.conj().T + R)
    else:
        whitened = np.linalg.inv(R) @ H
        X = np.linalg.inv(H.conj().T @ whitened + np.eye(H.shape[1])) @ whitened.conj().T
    return (X / np.diag(X @ H)[:, None] if getattr(o, "unbiased", False) else X,)


def equaliser(A, o):
    """Filters of unit gain and what they add, from the definition: e = X y - x for y = H x + w."""
    H, R = (A[:, : -len(A)], A[:, -len(A) :]) if o.noise == "beside" else (A, o.noise * np.eye(len(A)))
    X = np.linalg.inv(H.conj().T @ H) @ H.conj().T if o.kind == "zf" else H.conj().T @ np.linalg.inv(H @ H.conj().T + R)
    X = X / np.diag(X @ H)[:, None]
    E = X @ H - np.eye(len(X))
    return X, np.diag(E @ E.conj().T + X @ R @ X.conj().T).real


ORACLES = {
    "Equaliser": equaliser,
    "Inverse": lambda A, o: (np.linalg.inv(A),),
    "RegularizedInverse": lambda A, o: (regularized(A, o.noise),),
    "LMMSE": receiver,
    "RZF": receiver,
    "PseudoInverse": lambda A, o: (np.linalg.pinv(projection(leading(A, o.rank or min(A.shape))) @ A, rcond=1e-9),),
    "Solve": lambda A, o: (np.linalg.solve(A[:, : len(A)], A[:, len(A) :]),),
    "LogDet": lambda A, o: (np.array(scipy.linalg.det(A)),),
    "MatrixFunction": lambda A, o: (
        by_eigenvectors(
            {"exp": np.exp, "sqrt": np.sqrt, "inverse_sqrt": lambda w: 1 / np.sqrt(w), "log": np.log}[o.function], A
        ),
    ),
    "SVD": lambda A, o: singular(A, o.rank),
    "Eigh": spectral,
    "Eig": lambda A, o: (np.sort_complex(np.linalg.eigvals(A).astype(complex)), A.astype(complex)),
    "Subspace": projector,
    "Projector": projector,
    "QR": lambda A, o: by_cholesky(A),
    "Cholesky": lambda A, o: (np.linalg.cholesky(A),),
    "Polar": lambda A, o: scipy.linalg.polar(A),
}


def invariants(operation, factors):
    """What an oracle gives, from the factors: the same in every gauge and order of eigenvalues."""
    if isinstance(operation, nm.LogDet):
        return (factors[0] * factors[1].exp(),)
    if isinstance(operation, nm.SVD):
        return factors[1], operation.invariant(factors)
    if isinstance(operation, nm.Eigh):
        return factors[0], operation.invariant(factors)
    if isinstance(operation, nm.Eig):
        order = factors[0].real.argsort(dim=1)
        return factors[0].gather(1, order), operation.invariant(factors)
    return (operation.invariant(factors),) if isinstance(operation, nm.Subspace) else tuple(factors)


def oracle(operation, A):
    """The invariants of each matrix of a batch, in double precision."""
    columns = zip(*(ORACLES[type(operation).__name__](a, operation) for a in wide(A).numpy()))
    return [torch.from_numpy(np.stack([np.asarray(x) for x in column])) for column in columns]


def norm(x):
    """Frobenius norms per matrix, by NumPy, in double precision."""
    return torch.from_numpy(np.linalg.norm(x.cpu().to(torch.complex128).numpy(), axis=(1, 2)))


def perturbed(factors, size=0.1, seed=7):
    return [x + size * gaussian(*x.shape, dtype=x.dtype, seed=seed + i).to(x.device) for i, x in enumerate(factors)]


def defect_of_orthonormality(operation, factors):
    """Largest entry of U^H U - I over the factors that the exact solution has orthonormal."""
    if isinstance(operation, nm.SVD):
        frames = [factors[0], factors[2].mH]
    elif isinstance(operation, nm.Eigh):
        frames = [factors[1]]
    else:
        U = factors[0]
        frames = [U if U.shape[1] >= U.shape[2] else U.mH]
    return max(float((U.mH @ U - torch.eye(U.shape[2], dtype=U.dtype, device=U.device)).abs().max()) for U in frames)


# Exact solutions


@cases
def test_exact_solution_is_as_stated_and_agrees_with_the_oracle(case, dtype, device):
    operation = case.operation
    A = matrices(case, 6, dtype).to(device)
    factors, failed = operation.exact(A)
    stated = operation.factors(*case.shape)
    assert [tuple(x.shape) for x in factors] == [(6, *factor.shape) for factor in stated]
    assert [x.dtype for x in factors] == [factor.dtype(dtype) for factor in stated]
    assert all(x.device == A.device for x in factors)
    assert failed.dtype == torch.bool and failed.shape == (6,) and failed.device == A.device
    assert not failed.any()
    packed = operation.pack(factors)
    if len(stated) == 1:
        assert packed is factors[0]
    else:
        assert " ".join(packed._fields) == " ".join(factor.name for factor in stated) == NAMED[type(packed).__name__]
    for found, expected in zip(invariants(operation, factors), oracle(operation, A), strict=True):
        assert_close(found.cpu(), expected, units=500)
    residual = operation.residual(A, factors)
    assert residual.shape == (6,) and residual.dtype == real(dtype)
    assert residual.max() <= 300 * eps(dtype)
    assert operation.residual(A, perturbed(factors)).min() > 1e-3


def test_exact_solutions_have_the_stated_order_and_signs(dtype):
    def exact(operation, shape, kind="general"):
        return operation.pack(operation.exact(matrices(Case(operation, shape, kind), 5, dtype))[0])

    assert (exact(nm.SVD(), TALL).S.diff(dim=1) < 0).all()
    assert (exact(nm.SVD(rank=2), WIDE).S.diff(dim=1) < 0).all()
    for operation in (nm.Eigh(), nm.Eigh(rank=3)):
        values = exact(operation, SQUARE, "hermitian").eigenvalues
        assert (values.diff(dim=1) > 0).all()
        assert (values[:, 0] < 0).all() and (values[:, -1] > 0).all()
    for shape in (SQUARE, TALL, WIDE):
        R = exact(nm.QR(), shape).R
        diagonal = R.diagonal(dim1=1, dim2=2)
        assert (diagonal.real > 0).all() and torch.equal(
            diagonal.imag if R.is_complex() else 0 * diagonal, 0 * diagonal.real
        )
        assert torch.equal(R.triu(), R)
        P = exact(nm.Polar(), shape).P
        assert torch.linalg.eigvalsh(P).min() > -100 * eps(dtype)
        assert_close(P.mH, wide(P))
    L = exact(nm.Cholesky(), SQUARE, "positive")
    assert torch.equal(L.tril(), L)
    assert_close(
        torch.linalg.vector_norm(exact(nm.Eig(), SQUARE, "principal").eigenvectors, dim=1), torch.ones(5, 4).double()
    )
    assert_close(exact(nm.LogDet(), SQUARE).sign.abs(), torch.ones(5).double())


# Fits


# The largest error of a fit, in rounding units: inverses, roots and eigenvectors carry the condition of their matrices,
# 17 at most here.
UNITS = 300


def units_of(case, dtype):
    """Complex eigenvectors that are not orthogonal are as smooth as their transport from snapshot to snapshot."""
    return 3e5 if isinstance(case.operation, nm.Eig) and dtype == torch.complex128 else UNITS


def order_of(operation, value):
    """Assert what the exact solution promises of order and signs, as far as rounding lets it."""
    if isinstance(operation, nm.SVD):
        assert (value.S >= 0).all() and (value.S.diff(dim=1) <= 0).all()
    elif isinstance(operation, nm.Eigh):
        assert (value.eigenvalues.diff(dim=1) >= 0).all()
    elif isinstance(operation, nm.QR):
        diagonal = value.R.diagonal(dim1=1, dim2=2)
        assert (diagonal.real > 0).all()
        assert (value.R.tril(-1)).abs().max() <= UNITS * eps(value.R.dtype) * value.R.abs().max()
    elif isinstance(operation, nm.Polar):
        assert_close(value.P.mH, wide(value.P), UNITS)
    elif isinstance(operation, nm.LogDet):
        assert_close(value.sign.abs().cpu(), torch.ones(len(value.sign), dtype=torch.float64), 4)
    elif isinstance(operation, nm.Eig):
        assert_close(
            torch.linalg.vector_norm(value.eigenvectors, dim=1).cpu(), torch.ones(1).double().expand(value[0].shape)
        )


def assert_same_values(operation, value, other):
    """Equal up to the rounding of another order of operations, or of memory that is aligned in another way."""
    value, other = as_tuple(value), as_tuple(other)
    assert [(x.shape, x.dtype, x.device) for x in value] == [(x.shape, x.dtype, x.device) for x in other]
    if getattr(operation, "gauge", "") == "subspace":  # the eigenvectors of the small matrix have LAPACK's phases
        value, other = invariants(operation, value), invariants(operation, other)
    for x, y in zip(value, other, strict=True):
        assert_close(x.cpu(), wide(y), UNITS)


@two_dtypes
@cases
def test_fit_in_closed_form(case, dtype, device, tmp_path):
    operation, units = case.operation, units_of(case, dtype)
    problem = nm.Problem(slow(case, dtype, device=device), operation)
    surrogate = fit(problem, largest_rank(problem), snapshots=20)
    assert (surrogate.report.method, surrogate.report.exact_solves - 16 * operation.residual_solves) == (
        "ClosedForm",
        20,
    )
    assert surrogate.report.stop_reason == StopReason.RANK
    assert (surrogate.report.events, surrogate.report.singular) == ([], [])

    # As accurate as its precision allows, at parameters that the fit has not seen, and of the exact solution's form.
    p = grid_of(problem.family, 24)
    value, exact = surrogate(p), problem.exact(p).value
    assert type(value) is type(exact)
    for x, y in zip(as_tuple(value), as_tuple(exact), strict=True):
        assert (x.shape, x.dtype, x.device, x.is_contiguous()) == (y.shape, y.dtype, y.device, True)
    assert operation.error(as_tuple(value), as_tuple(exact)).max() <= units * eps(dtype)
    # An equaliser's residual is in standard deviations of what its symbols have beside them, which may be small.
    deviation = exact.v.min().sqrt().item() if isinstance(operation, nm.Equaliser) else 1
    for residual in (problem.residual(p, value).max(), surrogate.report.rounds[-1].residual_max):
        assert deviation * residual <= units * eps(dtype)
    order_of(operation, value)
    expected = oracle(operation, problem.family(p))
    for x, y in zip(invariants(operation, as_tuple(value)), expected, strict=True):
        assert_close(x.cpu(), y, units)
    if operation.unique:
        for x, y in zip(as_tuple(value), as_tuple(exact)):
            assert_close(x.cpu(), wide(y), UNITS)

    # In the caller's memory, in pieces, and from a file, bit for bit.
    out = tuple(torch.full_like(x, torch.nan) for x in as_tuple(value))
    returned = surrogate(p, out=out if len(out) > 1 else out[0])
    for x, y, z in zip(out, as_tuple(returned), as_tuple(value), strict=True):
        assert x is y or x.data_ptr() == y.data_ptr()
        assert torch.equal(x, z)
    many, count = p.repeat(12, 1), 0
    for points, piece in surrogate.batches(many, 20_000):
        assert len(points) < len(many)
        assert torch.equal(points, many[count : count + len(points)])
        assert_same_values(operation, piece, surrogate(points))
        count += len(points)
    assert count == len(many)
    nm.save(surrogate, tmp_path / "fit.safetensors")
    loaded = nm.load(tmp_path / "fit.safetensors", device)
    assert loaded.operation == operation and loaded.report.to_dict() == surrogate.report.to_dict()
    before, after = tensors_of(surrogate), tensors_of(loaded)
    assert before.keys() == after.keys()
    assert all(x.dtype == after[name].dtype and torch.equal(x, after[name]) for name, x in before.items())
    assert_same_values(operation, loaded(p), value)


@two_dtypes
@cases
def test_orthonormal_factors(case, dtype):
    """On request orthonormal to rounding, though the map, of too low a rank, is not; the rest is as it was."""
    operation = case.operation
    problem = nm.Problem(slow(case, dtype), operation)
    surrogate = fit(problem, min(3, largest_rank(problem)), snapshots=8)
    p = grid_of(problem.family, 20)
    if not isinstance(operation, ORTHONORMAL) or isinstance(operation, nm.Projector) or case.kind == "pair":
        assert_raises(
            ValueError,
            ["`orthonormal`", "False", type(operation).__name__, "True"],
            lambda: surrogate(p, orthonormal=True),
        )
        return
    plain, turned = as_tuple(surrogate(p)), as_tuple(surrogate(p, orthonormal=True))
    assert defect_of_orthonormality(operation, turned) <= 20 * eps(dtype)
    if min(case.shape) > 1:
        assert defect_of_orthonormality(operation, plain) > 100 * eps(dtype)
    for x, y in zip(plain, turned, strict=True):
        assert (x - y).abs().max() <= 0.1 * y.abs().max()
    for pieces in ([v for _, v in surrogate.batches(p, 40_000, orthonormal=True)],):
        for x, *parts in zip(turned, *map(as_tuple, pieces), strict=True):
            assert_close(torch.cat(parts), wide(x))
    assert problem.error(p, turned).max() <= 3 * problem.error(p, plain).max() + 100 * eps(dtype)


@two_dtypes
@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_linear_operations_from_the_residual_alone(case, dtype):
    problem = nm.Problem(slow(case, dtype), case.operation)
    surrogate = fit(problem, min(16, largest_rank(problem)), budget=0)
    assert (surrogate.report.exact_solves, surrogate.report.singular) == (0, [])
    p = grid_of(problem.family, 30)
    value = surrogate(p)
    assert (value.shape, value.dtype) == (problem.exact(p).value.shape, dtype)
    assert problem.error(p, value).max() <= 3000 * eps(dtype)


@two_dtypes
@pytest.mark.parametrize("case", ONE_SHAPE, ids=str)
def test_linear_operations_from_the_residual_alone_in_two_parameters(case, dtype):
    problem = nm.Problem(slow(case, dtype, 2), case.operation)
    surrogate = fit(problem, min(16, largest_rank(problem)), budget=0)
    assert (surrogate.report.exact_solves, surrogate.report.singular) == (0, [])
    p = grid_of(problem.family, 30)
    assert problem.error(p, surrogate(p)).max() <= 2e-3


@two_dtypes
@pytest.mark.parametrize("case", ONE_SHAPE, ids=str)
def test_linear_operations_in_two_parameters(case, dtype):
    """With their coefficients from the residual at further parameters."""
    problem = nm.Problem(slow(case, dtype, 2), case.operation)
    surrogate = fit(problem, largest_rank(problem), snapshots=40)
    assert surrogate.report.exact_solves == 40
    assert surrogate.report.collocation > 40
    p = grid_of(problem.family, 30)
    assert problem.error(p, surrogate(p)).max() <= 1e-4


@pytest.mark.parametrize("case", [case for case in CASES if case not in LINEAR and case.shape != ONE], ids=str)
def test_other_operations_in_two_parameters(case):
    problem = nm.Problem(slow(case, torch.complex128, 2), case.operation)
    surrogate = fit(problem, largest_rank(problem), snapshots=64)
    p = grid_of(problem.family, 30)
    assert problem.error(p, surrogate(p)).max() <= 1e-3


TOLERANCES = [
    Case(nm.LMMSE(noise=0.1), WIDE),
    Case(nm.PseudoInverse(), TALL),
    Case(nm.PseudoInverse(), WIDE),
    Case(nm.Solve(columns=2), (4, 6), "solve"),
    Case(nm.Equaliser(noise="beside"), (5, 8), "noisy"),
    Case(nm.LogDet(), SQUARE),
    Case(nm.MatrixFunction("sqrt"), SQUARE, "principal"),
    Case(nm.SVD(rank=2), TALL),
    Case(nm.SVD(rank=2, gauge="subspace"), TALL),
    Case(nm.Eigh(), SQUARE, "hermitian"),
    Case(nm.Eigh(rank=2, which="lowest"), SQUARE, "hermitian"),
    Case(nm.Eigh(rank=2, near=1.0), SQUARE, "hermitian"),
    Case(nm.Eigh(rank=2, which="highest", B="beside"), PAIR, "pair"),
    Case(nm.Eig(), SQUARE, "principal"),
    Case(nm.Subspace(2, "right"), WIDE),
    Case(nm.QR(), TALL),
    Case(nm.Cholesky(), SQUARE, "positive"),
    Case(nm.Polar(), WIDE),
]


@pytest.mark.parametrize(("d", "dtype"), [(1, torch.float64), (2, torch.complex128)], ids=str)
@pytest.mark.parametrize("case", TOLERANCES, ids=str)
def test_fit_to_a_tolerance(case, d, dtype):
    problem = nm.Problem(slow(case, dtype, d), case.operation)
    surrogate = fit(problem, tol=1e-4)
    assert surrogate.report.stop_reason == StopReason.TOLERANCE, surrogate.report
    assert surrogate.report.exact_solves < 500 + surrogate.report.residual_evaluations * case.operation.residual_solves
    p = grid_of(problem.family, 300)
    value = surrogate(p)
    assert (problem.residual(p, value) > 1e-4).double().mean() <= 0.03
    assert problem.error(p, value).median() <= 1e-3


def test_the_residual_of_the_determinant_counts_as_exact_solves():
    problem = nm.Problem(slow(Case(nm.LogDet(), SQUARE), torch.float64), nm.LogDet())
    assert fit(problem, 1, budget=12).report.exact_solves == 12
    assert fit(problem, 1, budget=30).report.exact_solves == 30
    report = fit(problem, tol=1e-4).report
    assert report.exact_solves > report.residual_evaluations > 0
    checked = nm.certify(fit(problem, 1), problem, grid_of(problem.family, 10), rtol=1e-8)
    assert checked.certainty == "estimate"  # an LU factorisation has its own rounding, which is not bounded


# Bounds


SIZES = [0.0, 1e-14, 1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0]


def true_error(operation, A, factors):
    """The error in the operation's measure, against the exact solution in double precision."""
    exact, failed = operation.exact(wide(A))
    assert not failed.any()
    return operation.error([wide(x) for x in factors], exact)


@pytest.mark.parametrize("case", BOUNDED, ids=str)
def test_bounds_are_never_below_the_error(case, dtype):
    operation = case.operation
    A = matrices(case, 5, dtype)
    exact, _ = operation.exact(A)
    for i, size in enumerate(SIZES):
        factors = perturbed(exact, size, seed=10 * i)
        bound = operation.error_bound(wide(A), [wide(x) for x in factors])
        error = true_error(operation, A, factors)
        assert bound.shape == (5,) and bound.dtype == torch.float64
        assert not bound.isnan().any()
        assert (error <= bound).all(), f"perturbed by {size}: {error - bound}"
        # Of use: finite where it should be, and not far above.
        if size <= 1e-4:
            assert (bound <= 1000 * size + 1e5 * eps(torch.float64) + 1000 * eps(dtype)).all(), (
                f"perturbed by {size}: {bound}"
            )


@two_dtypes
@pytest.mark.parametrize("case", BOUNDED, ids=str)
def test_bounds_hold_on_a_fit_and_for_matrices_near_singular(case, dtype):
    operation = case.operation
    problem = nm.Problem(slow(case, dtype), operation)
    p = grid_of(problem.family, 20)
    for rank in {1, min(3, largest_rank(problem))}:
        surrogate = fit(problem, rank, snapshots=6)
        value = as_tuple(surrogate(p))
        bound = operation.error_bound(wide(problem.family(p)), [wide(x) for x in value])
        assert (true_error(operation, problem.family(p), value) <= bound).all()
    if case.kind != "general":
        return
    for condition in (1e3, 1e6, 1e9, 1e12):
        A = conditioned(5, *case.shape, torch.complex128, condition)
        exact, failed = operation.exact(A)
        for size in (0.0, 1e-9, 1e-3):
            factors = perturbed(exact, size)
            bound = operation.error_bound(A, factors)[~failed]
            assert not bound.isnan().any()
            error = operation.error(factors, exact)[~failed]
            # The exact solution of an ill-conditioned problem is itself uncertain.
            assert (error <= bound + 1e-14 * condition).all()


@two_dtypes
@pytest.mark.parametrize("n", [1, 5, 40])
def test_the_bound_of_a_cholesky_factor_is_near_an_error_that_is_known(n, dtype):
    """Factors of small whole numbers, so that A = L L^H is exact."""
    generator = torch.Generator().manual_seed(n)
    whole = torch.randint(-3, 4, (20, n, n, 2), generator=generator).double()
    L = (whole[..., 0] + (1j * whole[..., 1] if dtype.is_complex else 0)).tril(-1)
    L = L + 20 * torch.diag_embed(torch.randint(1, 9, (20, n), generator=generator)).to(L.dtype)
    A, size = L @ L.mH, torch.linalg.matrix_norm(L)
    for small in (1e-6, 1e-3):
        change = torch.randn(L.shape, generator=generator, dtype=torch.float64).tril() / n
        off = L + small * size[:, None, None] * change
        error = torch.linalg.matrix_norm(off - L) / size
        bound = nm.Cholesky().error_bound(A, (off,))
        assert (error <= bound).all() and (bound <= 1.3 * error).all()
        above = off + small * torch.ones(n, n).triu(1)
        assert (nm.Cholesky().error([above], [L]) <= nm.Cholesky().error_bound(A, [above])).all()
    # What counts of A is its Hermitian part.
    skew = A + 0.1 * torch.ones(n, n).triu(1) - 0.1 * torch.ones(n, n).tril(-1)
    assert torch.equal(nm.Cholesky().error_bound(skew, (off,)), nm.Cholesky().error_bound((skew + skew.mH) / 2, (off,)))
    # The residual does not see the signs of the diagonal.
    assert nm.Cholesky().residual(A, (-L,)).max() < 1e-12 and nm.Cholesky().error_bound(A, (-L,)).isinf().all()


def in_mpmath(operation, A):
    """The exact solution of one matrix to 40 digits, as a matrix."""
    A = mpmath.matrix(A.tolist())
    if isinstance(operation, nm.RZF):  # and the LMMSE receivers
        m = A.rows
        if operation.noise == "beside":
            H, R = A[:, : A.cols - m], A[:, A.cols - m :]
        else:
            H, R = A, mpmath.diag([mpmath.mpf(float(s)) for s in np.broadcast_to(operation.noise, m)])
        X = H.H * (H * H.H + R) ** -1
        own = [(X[k, :] * H[:, k])[0] if getattr(operation, "unbiased", False) else 1 for k in range(X.rows)]
        return mpmath.diag([1 / x for x in own]) * X
    if isinstance(operation, nm.LogDet):
        return mpmath.matrix([[mpmath.det(A)]])
    if isinstance(operation, (nm.SVD, nm.Eigh)):
        k = operation.rank or min(A.rows, A.cols)
        if isinstance(operation, nm.Eigh):
            root = mpmath.cholesky(A[:, A.rows :]) ** -1 if operation.B else mpmath.eye(A.rows)
            w, V = mpmath.eighe(root * A[:, : A.rows] * root.H)
            V = root.H * V
            return sum((w[i] * V[:, i] * V[:, i].H for i in best(operation, w)), mpmath.zeros(A.rows))
        w, V = mpmath.eighe(A * A.H)
        chosen = sorted(range(A.rows), key=lambda i: -w[i])[:k]
        return sum((V[:, i] * V[:, i].H for i in chosen), mpmath.zeros(A.rows)) * A
    if isinstance(operation, nm.Subspace):
        w, V = mpmath.eighe(A * A.H if operation.side == "left" else A.H * A)
        chosen = sorted(range(len(w)), key=lambda i: -w[i])[: operation.rank]
        return sum((V[:, i] * V[:, i].H for i in chosen), mpmath.zeros(len(w)))
    if isinstance(operation, nm.Inverse):
        return A**-1
    if isinstance(operation, nm.Cholesky):
        return mpmath.cholesky(A)
    if isinstance(operation, nm.Solve):
        return A[:, : A.rows] ** -1 * A[:, A.rows :]
    if isinstance(operation, nm.RegularizedInverse):
        return (A.H * A + operation.noise * mpmath.eye(A.cols)) ** -1
    return (A.H * A) ** -1 * A.H if A.rows >= A.cols else A.H * (A * A.H) ** -1


@pytest.mark.parametrize("case", BOUNDED, ids=str)
def test_bounds_include_their_own_rounding(case):
    """Against 40 digits (mpmath comes with torch): a rounded exact solution has an error, and a bound above it."""
    operation = case.operation
    A = matrices(case, 3, torch.complex128)
    exact, _ = operation.exact(A)
    with mpmath.workdps(40):
        for factors in (exact, perturbed(exact, 1e-13)):
            bound = operation.error_bound(A, factors)
            for i in range(len(A)):
                truth, own = (
                    in_mpmath(operation, A[i]),
                    [mpmath.matrix(np.atleast_1d(x[i].resolve_conj().numpy()).tolist()) for x in factors],
                )
                if isinstance(operation, nm.LogDet):
                    found = own[0] * mpmath.exp(own[1][0])
                elif isinstance(operation, nm.SVD):
                    found = own[0] * mpmath.diag(list(own[1])) * own[2]
                elif isinstance(operation, nm.Eigh):
                    found = own[1] * mpmath.diag(list(own[0])) * own[1].H
                elif type(operation) is nm.Subspace:
                    found = own[0] * own[0].H
                else:
                    found = own[0]
                error = mpmath.norm(found - truth, 2) / mpmath.norm(truth, 2)
                assert error <= float(bound[i]), f"{float(error)} above {float(bound[i])}"


@pytest.mark.parametrize("shape", [SQUARE, TALL, WIDE])
@pytest.mark.parametrize("kind", ["svd", "subspace", "projector", "eigh"])
def test_bounds_see_that_vectors_are_not_the_leading_ones(kind, shape):
    """The residual does not: it is zero at any triplets."""
    if kind != "eigh":
        whole = nm.SVD()
        A = matrices(Case(whole, shape), 4, torch.complex128)
        U, S, Vh = whole.exact(A)[0]
        operation, chosen = {
            "svd": (nm.SVD(rank=2), lambda pair: (U[..., pair], S[..., pair], Vh[..., pair, :])),
            "subspace": (nm.Subspace(2), lambda pair: (U[..., pair],)),
            "projector": (nm.Projector(2, "right"), lambda pair: (Vh[..., pair, :].mH @ Vh[..., pair, :],)),
        }[kind]
    else:
        whole, operation = nm.Eigh(), nm.Eigh(rank=2)
        A = matrices(Case(whole, SQUARE, "hermitian"), 4, torch.complex128)
        w, V = whole.exact(A)[0]
        chosen = lambda pair: (w[..., pair], V[..., pair])  # noqa: E731
    exact = operation.exact(A)[0]
    accepted = []
    for pair in itertools.combinations(range(4 if kind == "eigh" else 3), 2):
        factors = chosen(list(pair))
        assert operation.residual(A, factors).max() <= 1000 * 2e-16
        error, bound = operation.error(factors, exact), operation.error_bound(A, factors)
        assert (error <= bound).all()
        accepted.append(bool((bound < 0.1).all()))
        assert accepted[-1] == bool((error < 0.1).all())
    assert sum(accepted) == 1


@pytest.mark.parametrize("make", [nm.Subspace, nm.Projector])
def test_certify_sees_weak_directions(make):
    """The second of two directions, 1e-5 as strong as the first, is wrong by 45 degrees; the residual is 1e-10."""
    U = torch.linalg.qr(gaussian(4, 4, dtype=torch.float64)).Q
    values = torch.tensor([1.0, 1e-5, 1e-7, 0.0], dtype=torch.float64)
    wrong = torch.stack([U[:, 0], (U[:, 1] + U[:, 2]) / 2**0.5], dim=1)
    family = nm.ParametricMatrix(lambda p: (U * values @ U.T).expand(len(p), 4, 4), [0.0], [1.0], dtype=torch.float64)
    problem = nm.Problem(family, make(2))
    surrogate, p = fit(problem, 1), grid_of(family, 3)
    right = nm.certify(surrogate, problem, p)
    assert right.certainty == "bound" and right.accepted.all() and right.bound.max() < 1e-6
    core = surrogate.maps[0].core
    factor = (surrogate(p)[0] * core).sum() / core.square().sum()  # of the constant map
    core.copy_((wrong if make is nm.Subspace else wrong @ wrong.T) / factor)
    certified = nm.certify(surrogate, problem, p)
    assert certified.residual.max() < 1e-9 and not certified.accepted.any()
    assert problem.error(p, certified.value).max() < 1e-6


@pytest.mark.parametrize("case", [case for case in CASES if case.operation.newton], ids=str)
def test_a_newton_step_squares_the_error(case):
    operation = case.operation
    A = matrices(case, 5, torch.complex128)
    exact, _ = operation.exact(A)
    factors = perturbed(exact, 1e-4)
    before, after = (operation.error(x, exact) for x in (factors, operation.improved(A, factors)))
    assert (before > 1e-5).all()
    assert (after <= 1000 * before**2).all()


# Residuals and losses


def test_residual_of_the_inverse_is_its_formula(dtype, device):
    A, X = conditioned(5, 4, 4, dtype).to(device), gaussian(5, 4, 4, dtype=dtype, seed=3).to(device)
    residual = nm.Inverse().residual(A, (X,))
    assert_close(residual.cpu(), norm(A @ X - torch.eye(4, dtype=dtype, device=device)) / 2)
    assert_close(nm.Inverse().loss(A, (X,)).cpu(), residual.cpu().double() ** 2)
    singular = np.linalg.svd((A @ X).cpu().numpy() - np.eye(4), compute_uv=False)
    assert_close(residual.cpu(), torch.from_numpy(np.sqrt((singular**2).mean(axis=1))))


@pytest.mark.parametrize("shape", [SQUARE, TALL, WIDE])
def test_residuals_of_the_linear_operations_are_their_formulas(shape, dtype):
    A = conditioned(5, *shape, dtype)
    m, n = shape
    eye = torch.eye(n, dtype=dtype)
    X = gaussian(5, n, n, dtype=dtype, seed=3)
    found = nm.RegularizedInverse(noise=0.3).residual(A, (X,))
    assert_close(found, norm((A.mH @ A + 0.3 * eye) @ X - eye) / n**0.5)
    X = gaussian(5, n, m, dtype=dtype, seed=4)
    other = torch.eye(m, dtype=dtype)
    for operation, s in ((nm.LMMSE(noise=0.3), 0.3), (nm.RZF(noise=0.3), 0.3), (nm.PseudoInverse(), 0.0)):
        defect = (A.mH @ A + s * eye) @ X - A.mH if m >= n else X @ (A @ A.mH + s * other) - A.mH
        users = 2 if m >= n else 1  # along which the entries of one user lie
        rows, sizes = (np.linalg.norm(wide(x).resolve_conj().numpy(), axis=users) for x in (defect, A.mH))
        worst = torch.from_numpy((rows / sizes).max(axis=1))
        if not s:  # zero forcing: interference relative to the wanted signal
            outputs = wide((X @ A - eye) if m >= n else (A @ X - other)).resolve_conj().numpy()
            worst = torch.maximum(worst, torch.from_numpy(np.linalg.norm(outputs, axis=2).max(axis=1)))
        assert_close(operation.residual(A, (X,)), worst)
        assert_close(operation.loss(A, (X,)), norm(defect) ** 2 / norm(A) ** 2)


@pytest.mark.parametrize("kind", ["lmmse", "zf"])
def test_the_residual_of_equalisers_is_what_a_receiver_loses(kind, dtype):
    """The ratio of signal to disturbance, the gain in units of the disturbance, and the variance that is told."""
    A = conditioned(6, 5, 3, dtype)
    operation = nm.Equaliser(kind, noise=0.1)
    (X, v), _ = operation.exact(A)
    Y = X + 0.02 * gaussian(*X.shape, dtype=dtype, seed=3)
    gain, left = nm.linalg.outputs(wide(A), wide(Y), 0.1)
    excess = left / gain.abs() ** 2 / wide(v) - 1
    lost = excess.sqrt() if kind == "lmmse" else excess.abs()
    off = (gain - 1).abs() / wide(v).sqrt()
    expected = torch.maximum(lost, off).amax(dim=1)
    units = 1 / eps(dtype) ** 0.5 / 50  # the difference of variances has half the digits
    assert_close(operation.residual(A, (Y, v)), expected, max(units * 50, 1000))
    assert_close(operation.residual(A, (X, 1.2 * v)), torch.full((6,), 0.2), 1e4)
    assert_close(operation.residual(A, (1.5 * X, v)), (0.5 / wide(v).sqrt()).amax(dim=1), 1e4)
    zero = operation.residual(A, [torch.zeros_like(x) for x in (X, v)])
    assert (zero >= 1 - 1e-3).all() and zero.isfinite().all()


RECEIVERS = [nm.LMMSE(noise=1e-6), nm.RZF(noise=1e-6), nm.PseudoInverse()]
receivers = pytest.mark.parametrize("operation", RECEIVERS, ids=str)


@pytest.mark.parametrize("shape", [TALL, WIDE])
@receivers
def test_the_residual_of_a_receiver_sees_the_weakest_user(operation, shape, dtype):
    """60 dB below the others, with a tenth of its equation missing: in the norm of all rows a ten-thousandth."""
    gains = torch.tensor([1.0, 1.0, 1e-3])
    A = conditioned(4, *shape, dtype, 2.0) * (gains if shape == TALL else gains[:, None])
    (X,), _ = operation.exact(A)
    # The pseudoinverse carries the condition number, 2000.
    assert operation.residual(A, (X,)).max() <= (300 if operation.noise else 3000) * eps(dtype) + 1e5 * eps(
        torch.float64
    )
    L, F = operation.system(wide(A))
    missing = torch.zeros_like(F)
    missing[:, 2] = 0.1 * F[:, 2]
    wrong = torch.linalg.solve(L, F - missing)
    wrong = (wrong if shape == TALL else wrong.mH).to(dtype)
    if operation.noise:
        assert_close(operation.residual(A, (wrong,)), torch.full((4,), 0.1, dtype=torch.float64), 3e4)
    else:  # into its output the others leak, a thousand times stronger
        assert operation.residual(A, (wrong,)).min() > 10
    assert operation.loss(A, (wrong,)).sqrt().max() < 3e-4


@receivers
def test_a_user_who_is_not_received_counts_as_right_only_where_the_filter_is_zero(operation, dtype):
    A = conditioned(3, 5, 3, dtype)
    (X,), _ = operation.exact(A)
    A[:, :, 1], X[:, 1] = 0, 0
    others = operation.residual(A, (X,))
    assert others.isfinite().all()
    if operation.noise:
        X[:, 1] = 1
        assert operation.residual(A, (X,)).isinf().all()


@pytest.mark.parametrize("unit", [2.0**-80, 2.0**80])
@pytest.mark.parametrize("make", [nm.LMMSE, nm.RZF], ids=lambda x: x.__name__)
@pytest.mark.parametrize("shape", [TALL, WIDE])
def test_the_residual_of_a_receiver_does_not_depend_on_the_unit_of_the_channel(make, shape, unit, dtype):
    A = conditioned(6, *shape, dtype)
    (X,) = perturbed(make(noise=0.1).exact(A)[0], 0.01)
    scaled = make(noise=0.1 * unit**2).residual(A * unit, (X / unit,))
    assert_close(scaled, make(noise=0.1).residual(A, (X,)).double(), 1000)


def test_filters_with_a_small_residual_keep_the_rate_of_users_near_and_far():
    """Of users 44 dB apart, the weakest at 8 dB: equations off at random by 1e-3 of each row, or of all rows."""
    gains = torch.logspace(0, -2.2, 8, dtype=torch.float64)
    H, noise = gaussian(20, 64, 8, dtype=torch.complex128) * gains, 10 * float(gains[-1]) ** 2
    operation = nm.LMMSE(noise=noise)
    (W,), _ = operation.exact(H)
    L, F = operation.system(H)
    F = F.resolve_conj()
    R = gaussian(*F.shape, dtype=F.dtype, seed=8)
    R = R / torch.linalg.vector_norm(R, dim=2, keepdim=True)
    rows = torch.linalg.vector_norm(F, dim=2, keepdim=True)
    rate = lambda X: nm.wireless.sum_rate(H, X, noise)  # noqa: E731
    by_row = W + torch.linalg.solve(L, 1e-3 * R * rows)
    by_norm = W + torch.linalg.solve(L, 1e-3 * R * norm(F)[:, None, None] / 8**0.5)
    assert_close(operation.residual(H, (by_row,)), torch.full((20,), 1e-3, dtype=torch.float64), 1e6)
    assert_close(operation.loss(H, (by_norm,)).sqrt(), torch.full((20,), 1e-3, dtype=torch.float64), 1e6)
    assert (rate(by_row) >= 0.99 * rate(W)).all()
    assert (rate(by_norm) <= 0.97 * rate(W)).all()
    assert operation.residual(H, (by_norm,)).min() > 0.03


def test_residuals_of_the_factorisations_are_their_formulas(dtype):
    A = conditioned(5, 5, 3, dtype)
    eye = torch.eye(3, dtype=dtype)
    Q, R = perturbed(nm.QR().exact(A)[0])
    orthogonality = norm(Q.mH @ Q - eye) ** 2 / 3
    below = norm(R.tril(-1)) ** 2 / norm(A) ** 2
    assert_close(nm.QR().residual(A, (Q, R)), (norm(A - Q @ R) ** 2 / norm(A) ** 2 + below + orthogonality).sqrt())
    polar = nm.Polar().exact(A)[0]
    assert nm.QR().residual(A, polar).min() > 1e-2  # orthonormal times Hermitian is no QR factorisation
    U, P = perturbed(nm.Polar().exact(A)[0])
    P = P - 0.3 * eye  # indefinite
    parts = [norm(A - U @ P) ** 2 / norm(A) ** 2, norm(P - P.mH) ** 2 / norm(P) ** 2, norm(U.mH @ U - eye) ** 2 / 3]
    parts.append(norm(torch.linalg.eigvalsh((P + P.mH) / 2).clamp_max(0)[:, None]) ** 2 / norm(P) ** 2)
    assert parts[3].max() > 0
    assert_close(nm.Polar().residual(A, (U, P)), sum(parts).sqrt())
    operation = nm.Subspace(2)
    (U,) = perturbed(operation.exact(A)[0])
    G = A @ A.mH
    inside = norm(G @ U - U @ U.mH @ G @ U) / norm(U.mH @ G @ U)
    defect = norm(U.mH @ U - torch.eye(2, dtype=dtype)) ** 2 / 2
    assert_close(operation.residual(A, (U,)), (inside**2 + defect).sqrt())
    P = gaussian(5, 5, 5, dtype=dtype, seed=4)
    trace = torch.from_numpy(np.abs(np.trace(wide(P).numpy(), axis1=1, axis2=2) - 2) ** 2 / 4)
    expected = (norm(G @ P - (G @ P).mH) ** 2 / norm(G @ P) ** 2 + norm(P @ P - P) ** 2 / 2 + trace).sqrt()
    assert_close(nm.Projector(2).residual(A, (P,)), expected)
    B = matrices(Case(nm.Eigh(), SQUARE, "hermitian"), 5, dtype)
    w, V = perturbed(nm.Eigh(rank=2).exact(B)[0])
    orthogonality = norm(V.mH @ V - torch.eye(2, dtype=dtype)) ** 2 / 2
    expected = norm(B @ V - V * w[:, None, :]) ** 2 / norm(w[:, None, :]) ** 2 + orthogonality
    assert_close(nm.Eigh(rank=2).residual(B, (w, V)), expected.sqrt())
    L = gaussian(5, 4, 4, dtype=dtype, seed=4)
    above = norm(L.triu(1)) ** 2 / norm(B)
    assert_close(nm.Cholesky().residual(B, (L,)), (norm(B - L @ L.mH) ** 2 / norm(B) ** 2 + above).sqrt())


def test_residuals_of_the_matrix_functions_are_their_formulas(dtype):
    A = matrices(Case(nm.MatrixFunction(), SQUARE, "principal"), 5, dtype)
    X, eye = 0.5 * gaussian(5, 4, 4, dtype=dtype, seed=4), torch.eye(4, dtype=dtype)
    exponential, half = (torch.from_numpy(scipy.linalg.expm(wide(B).numpy())) for B in (A, -X / 2))
    expected = {
        "exp": norm(wide(X) - exponential) / norm(exponential),
        "sqrt": norm(X @ X - A) / norm(A),
        "inverse_sqrt": norm(X @ A @ X - eye) / 2,
        "log": norm(half @ wide(A) @ half - wide(eye)) / 2,
    }
    for name in FUNCTIONS:
        operation = nm.MatrixFunction(name)
        assert_close(operation.residual(A, (X,)), expected[name], units=300)
        assert operation.residual_solves == (name == "exp")


@pytest.mark.parametrize(("function", "spread"), [("exp", 40.0), ("log", 1e6)])
def test_residuals_of_exponential_and_logarithm_see_all_eigenvalues(function, spread, dtype):
    """However far apart they are; and rounding stays small."""
    double = torch.complex128 if dtype.is_complex else torch.float64
    V = torch.linalg.qr(gaussian(4, 4, dtype=double)).Q
    values = torch.linspace(-spread, 0, 4) if function == "exp" else torch.logspace(0, -math.log10(spread), 4)
    A, weakest = ((V * values.to(double)) @ V.mH).to(dtype)[None], (V[:, -1:] @ V[:, -1:].mH).to(dtype)
    operation = nm.MatrixFunction(function)
    (X,), failed = operation.exact(A)
    assert not failed.any()
    assert operation.residual(A, (X,)) < (1e-4 if real(dtype) == torch.float32 else 1e-9)
    assert operation.residual(A, (X + 1e-2 * norm(X).to(X) * weakest,)) > 3e-3


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (4, 4)])
def test_residual_and_loss_of_the_svd_are_their_formulas(shape, dtype, device):
    A = conditioned(5, *shape, dtype).to(device)
    operation = nm.SVD(rank=2)
    U, S, Vh = factors = perturbed(operation.exact(A)[0])
    V, eye, diagonal = Vh.mH, torch.eye(2, dtype=dtype, device=device), torch.diag_embed(S).to(dtype)
    triplets = norm(A @ V - U @ diagonal) ** 2 + norm(A.mH @ U - V @ diagonal) ** 2
    orthogonality = (norm(U.mH @ U - eye) ** 2 + norm(V.mH @ V - eye) ** 2) / 4
    expected = (triplets / (2 * norm(diagonal) ** 2) + orthogonality).sqrt()
    assert_close(operation.residual(A, factors).cpu(), expected)
    reconstruction = norm(A - U @ diagonal @ Vh) ** 2 / norm(A) ** 2
    assert_close(operation.loss(A, factors).cpu(), reconstruction + orthogonality)


def test_svd_does_not_see_the_gauge(dtype, device):
    """A common random phase (a sign for real matrices) of each pair changes no residual, loss or reconstruction."""
    A = conditioned(6, 5, 4, dtype).to(device)
    operation = nm.SVD(rank=3)
    U, S, Vh = factors = perturbed(operation.exact(A)[0])
    z = gaussian(6, 3, dtype=dtype, seed=11).to(device)
    phase = z / z.abs()
    turned = (U * phase[:, None, :], S, phase.conj()[:, :, None] * Vh)
    for measure in (operation.residual, operation.loss):
        assert_close(measure(A, turned), measure(A, factors).double())
    assert_close(operation.invariant(turned), operation.invariant(factors))
    only_one_side = (turned[0], S, Vh)
    assert (operation.residual(A, only_one_side) > 2 * operation.residual(A, factors)).any()


@pytest.mark.parametrize(
    "case",
    [
        Case(nm.Eigh(rank=3), SQUARE, "hermitian"),
        Case(nm.Eig(), SQUARE, "principal"),
        Case(nm.Subspace(3, "left"), TALL),
        Case(nm.Subspace(2, "right"), WIDE),
    ],
    ids=str,
)
def test_other_factors_with_a_gauge_do_not_see_it(case, dtype):
    """Phases of eigenvectors; any rotation of the basis of a subspace. Perturbed, so that there is something to see."""
    operation = case.operation
    A = matrices(case, 6, dtype)
    *values, V = perturbed(operation.exact(A)[0], 0.01)
    z = gaussian(6, V.shape[2], V.shape[2], dtype=V.dtype, seed=11)
    if values:
        phases = z.diagonal(dim1=1, dim2=2)
        turned = (*values, V * (phases / phases.abs())[:, None, :])
    else:
        turned = (V @ torch.linalg.qr(z).Q,)
    factors = (*values, V)
    assert (turned[-1] - V).abs().max() > 0.5
    for measure in (operation.residual, operation.loss, lambda A, x: operation.error_bound(A, x).clamp_max(1)):
        assert_close(measure(A, turned), measure(A, factors).double(), 1000)
    assert_close(operation.invariant(turned), wide(operation.invariant(factors)), 1000)


def test_residual_of_the_svd_is_zero_at_any_triplets_but_the_loss_prefers_the_leading_ones(dtype):
    A = conditioned(4, 6, 5, dtype)
    U, S, Vh = nm.SVD().exact(A)[0]
    operation, losses = nm.SVD(rank=2), {}
    for pair in itertools.combinations(range(5), 2):
        chosen = U[..., pair], S[..., pair], Vh[..., pair, :]
        assert operation.residual(A, chosen).max() <= 1000 * eps(dtype)  # relative to the smallest triplets, 1 / 10
        losses[pair] = operation.loss(A, chosen)
    tails = (S[:, 2:] ** 2).sum(dim=1) / (S**2).sum(dim=1)
    assert_close(losses[0, 1], tails.double())
    assert all((loss > losses[0, 1]).all() for pair, loss in losses.items() if pair != (0, 1))


@pytest.mark.parametrize("case", [Case(nm.SVD(rank=2), (6, 5)), Case(nm.Eigh(rank=2), SQUARE, "hermitian")], ids=str)
def test_loss_is_minimal_at_the_leading_vectors(case):
    A = matrices(case, 4, torch.complex128)
    operation = case.operation
    exact = [x.clone().requires_grad_() for x in operation.exact(A)[0]]
    loss = operation.loss(A, exact)
    gradients = torch.autograd.grad(loss.sum(), exact)
    assert max(float(g.abs().max()) for g in gradients) < 1e-12
    for seed in range(20):
        near = [x + 1e-3 * gaussian(*x.shape, dtype=x.dtype, seed=seed) for x in exact]
        assert (operation.loss(A, near) > loss).all()


@two_dtypes
@cases
def test_loss_has_finite_gradients_also_at_the_solution(case, dtype):
    A, operation = matrices(case, 3, dtype), case.operation
    for factors in (operation.exact(A)[0], [torch.zeros_like(x) for x in operation.exact(A)[0]]):
        leaves = [x.clone().requires_grad_() for x in factors]
        for gradient in torch.autograd.grad(operation.loss(A, leaves).sum(), leaves):
            assert gradient.isfinite().all()


# What operations declare


CAPABILITIES = {"newton": "improved", "finishes": "finish", "bounds": "error_bound"}


@cases
def test_operations_declare_what_they_can_do(case):
    for declared, method in CAPABILITIES.items():
        own = getattr(type(case.operation), method) is not getattr(nm.Operation, method)
        assert getattr(case.operation, declared) == own, method
    assert case.operation.bounds or case.operation.certainty == "estimate"


@pytest.mark.parametrize(("declared", "method"), CAPABILITIES.items())
def test_a_class_with_its_own_method_can_do_what_it_does(declared, method):
    own = type(f"Own{declared}", (nm.Operation,), {method: lambda self, *a: None})
    del nm.Operation.registry[own.__name__]
    assert [name for name in CAPABILITIES if getattr(own, name)] == [declared]


@pytest.mark.parametrize("case", [case for case in CASES if case.shape == SQUARE or case.kind == "solve"], ids=str)
def test_the_cost_of_a_solution_grows_with_the_cube_of_the_size(case):
    operation = case.operation
    large, larger = ((n, n + getattr(operation, "columns", 0)) for n in (2000, 4000))
    assert 7.5 < operation.cost(*larger) / operation.cost(*large) <= 8
    assert operation.cost(*large) <= 110 * 2000**3


# How the factors grow with A, as powers.
POWERS = {nm.Inverse: (-1,), nm.SVD: (0, 1, 0), nm.Eigh: (1, 0), nm.Eig: (1, 0), nm.QR: (0, 1), nm.Cholesky: (0.5,)}
POWERS |= {nm.Polar: (0, 1), nm.PseudoInverse: (-1,)}


@pytest.mark.parametrize("unit", [2.0**-80, 2.0**80])
@pytest.mark.parametrize("case", [case for case in CASES if type(case.operation) in POWERS], ids=str)
def test_residual_and_error_do_not_depend_on_the_unit_of_the_matrices(case, dtype, unit):
    """Path gains in physical units: their squares leave the range of single precision."""
    A, operation = matrices(case, 6, dtype), case.operation
    exact = operation.exact(A)[0]
    factors, powers = perturbed(exact, 0.01), (0, -0.5) if case.kind == "pair" else POWERS[type(operation)]
    scaled = [[x * unit**power for x, power in zip(own, powers)] for own in (factors, exact)]
    assert_close(operation.residual(unit * A, scaled[0]), operation.residual(A, factors).double(), 1000)
    assert_close(operation.error(*scaled), operation.error(factors, exact).double(), 1000)


def test_residual_has_the_precision_of_the_matrices_whatever_the_default():
    A = conditioned(3, 4, 4, torch.float32)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert nm.Inverse().residual(A, (A,)).dtype == nm.SVD().error(nm.SVD().exact(A)[0], nm.SVD().exact(A)[0]).dtype
        assert nm.Inverse().residual(A, (A,)).dtype == torch.float32
    finally:
        torch.set_default_dtype(before)


def test_a_system_without_a_right_hand_side_has_the_solution_zero(dtype):
    A = torch.cat([conditioned(3, 4, 4, dtype), torch.zeros(3, 4, 2, dtype=dtype)], dim=2)
    (X,), failed = nm.Solve(2).exact(A)
    assert not failed.any() and not X.any()
    assert nm.Solve(2).residual(A, (X,)).tolist() == nm.Solve(2).error((X,), (X,)).tolist() == [0, 0, 0]
    assert nm.Solve(2).residual(A, (X + 1,)).tolist() == nm.Solve(2).error((X + 1,), (X,)).tolist() == [torch.inf] * 3


@two_dtypes
@pytest.mark.parametrize("case", [case for case in CASES if case.shape != ONE], ids=str)
def test_scales_are_of_the_size_of_the_factors(case, dtype):
    """A guess that training starts from: within a factor of 30, for matrices of any size."""
    A = matrices(case, 8, dtype)
    scales = case.operation.scales(A)
    factors, _ = case.operation.exact(A)
    assert len(scales) == len(factors)
    for scale, x in zip(scales, factors):
        size = float(x.abs().square().mean().sqrt())
        assert size / 30 <= scale <= 30 * size


# The final form of fitted values


def test_finish_sorts_and_fixes_signs_of_the_svd_without_changing_the_matrix(dtype, device):
    A = conditioned(8, 5, 4, dtype).to(device)
    operation = nm.SVD(rank=3)
    exact = operation.exact(A)[0]
    order = torch.tensor([list(x) for x in itertools.permutations(range(3))] * 2, device=device)[:8]
    sign = torch.where(gaussian(8, 3, dtype=torch.float64) < 0, -1, 1).to(device, real(dtype))
    sign[0], order[0] = 1, torch.arange(3, device=device)  # one that is in its final form already
    U = torch.take_along_dim(exact[0], order[:, None, :], dim=2)
    S = torch.take_along_dim(exact[1], order, dim=1) * sign
    Vh = torch.take_along_dim(exact[2], order[:, :, None], dim=1) * sign[:, :, None].to(dtype)
    factors = [U, S, Vh]
    before = operation.invariant(factors).clone()
    operation.finish(factors, factors)
    assert_close(S, exact[1].double())
    assert_close(operation.invariant(factors), before)
    assert operation.residual(A, factors).max() <= 200 * eps(dtype)
    assert torch.equal(U[0], exact[0][0])


def test_finish_sorts_eigenvalues_and_leaves_surplus_ones_out(dtype):
    A = matrices(Case(nm.Eigh(), SQUARE, "hermitian"), 8, dtype)
    w, V = nm.Eigh().exact(A)[0]
    order = torch.tensor([list(x) for x in itertools.permutations(range(4))][::3])
    mixed = [w.gather(1, order), V.gather(2, order[:, None, :].expand(-1, 4, -1))]
    for operation in (nm.Eigh(), nm.Eigh(rank=2)):
        exact = operation.exact(A)[0]
        out = [torch.full_like(x, torch.nan) for x in exact]
        operation.finish(mixed, out)
        for x, y in zip(out, exact):
            assert torch.equal(x, y)
    nm.Eigh().finish(mixed, mixed)  # in place
    assert torch.equal(mixed[0], w) and torch.equal(mixed[1], V)


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_finish_resolves_blocks(extra, dtype):
    """With a matrix in the place of the values, in any basis of the leading vectors."""
    A = conditioned(6, 5, 4, dtype)
    k = 2 + extra
    U, S, Vh = nm.SVD(rank=k).exact(A)[0]
    W = torch.linalg.qr(gaussian(6, k, k, dtype=dtype, seed=9)).Q
    operation = nm.SVD(rank=2)
    exact = operation.exact(A)[0]
    out = [torch.full_like(x, torch.nan) for x in exact]
    operation.finish([U @ W, W.mH @ (S[:, :, None].to(dtype) * W), W.mH @ Vh], out)
    assert_close(out[1], wide(exact[1]))
    assert_close(operation.invariant(out), wide(operation.invariant(exact)), 500)
    assert operation.residual(A, out).max() <= 200 * eps(dtype)
    B = matrices(Case(nm.Eigh(), SQUARE, "hermitian"), 6, dtype)
    operation = nm.Eigh(rank=2)
    w, V = nm.Eigh(rank=k).exact(B)[0]
    exact = operation.exact(B)[0]
    out = [torch.full_like(x, torch.nan) for x in exact]
    operation.finish([W.mH @ (w[:, :, None].to(dtype) * W), V @ W], out)
    assert_close(out[0], wide(exact[0]))
    assert_close(operation.invariant(out), wide(operation.invariant(exact)), 500)


@pytest.mark.parametrize("signs", [(1, 1, 1, 1, 1), (-1, 1, 1, 1, -1), (-1, -1, -1, -1, -1)])
def test_finish_resolves_pairs(signs, dtype):
    """Pairs that are followed together, 0 with 2 and 3 with 4, beside a vector that is alone, as LAPACK does."""
    A = conditioned(6, 7, 6, dtype)
    U, S, Vh = nm.SVD(rank=5).exact(A)[0]
    S[1, 2] = S[1, 0]  # two that meet
    sign = torch.tensor(signs, dtype=S.dtype).expand(6, 5)
    W = torch.eye(5).to(dtype).repeat(6, 1, 1)  # the first two matrices have no part outside the diagonal
    for seed, pair in enumerate((torch.tensor([0, 2]), torch.tensor([3, 4]))):
        W[2:, pair[:, None], pair] = torch.linalg.qr(gaussian(4, 2, 2, dtype=dtype, seed=seed)).Q
    M = W.mH @ ((S * sign)[:, :, None].to(dtype) * W)
    operation = nm.SVD(rank=5)
    out = [torch.full_like(x, torch.nan) for x in (U, S, Vh)]
    operation.finish([U @ W, M, W.mH @ (sign[:, :, None].to(dtype) * Vh)], out)
    assert_close(out[1], wide(S.sort(dim=1, descending=True).values))
    assert_close(operation.invariant(out), wide((U * S[:, None].to(dtype)) @ Vh), 500)
    assert operation.orthogonality(out).max() <= (200 * eps(dtype)) ** 2
    values, vectors = nm.Eigh().exact(M)[0]
    out = [torch.full_like(x, torch.nan) for x in (values, vectors)]
    nm.Eigh().finish([M, torch.eye(5).to(dtype).expand(6, 5, 5)], out)
    assert_close(out[0], wide(values))
    assert_close((out[1] * out[0][:, None].to(dtype)) @ out[1].mH, wide(M), 500)


# Bad input


def test_the_polar_residual_sees_a_factor_that_is_not_positive(dtype):
    """A = U P has as many Hermitian P as signs of its eigenvalues; only one is positive."""
    A = matrices(Case(nm.Polar(), SQUARE), 4, dtype)
    U, S, Vh = torch.linalg.svd(A)
    signs = torch.tensor([1, 1, 1, -1]).to(S)
    wrong = (U * signs) @ Vh, (Vh.mH * (signs * S)[:, None, :]) @ Vh
    assert_close(wrong[0] @ wrong[1], A)
    assert_close(nm.Polar().residual(A, wrong), S[:, 3] / torch.linalg.vector_norm(S, dim=1), units=1e4)
    assert (nm.Polar().residual(A, (U @ Vh, (Vh.mH * S[:, None, :]) @ Vh)) < 100 * eps(dtype)).all()
    nothing = [torch.full_like(x, torch.nan) for x in wrong]
    assert nm.Polar().residual(A, nothing).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES[1::2])
def test_the_estimate_of_eigenvectors_counts_their_condition(dtype):
    """Nearly parallel eigenvectors: a small residual at a wrong answer."""
    A = torch.tensor([[[1.0, 1e4], [0.0, 1.01]]], dtype=dtype)
    (w, V), _ = nm.Eig().exact(A)
    off = V + 1e-6 * gaussian(1, 2, 2, dtype=torch.complex128)
    off = off / torch.linalg.vector_norm(off, dim=1, keepdim=True)
    error = nm.Eig().error((w, off), (w, V))
    assert nm.Eig().residual(A, (w, off)) < 1e-5 < 0.1 < error
    assert_close(nm.Eig().error_bound(A, (w, off)), error, units=1e9)


@pytest.mark.parametrize("noise", [torch.tensor(0.5), np.float32(0.5), np.int64(2), 2], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("kind", [nm.RegularizedInverse, nm.LMMSE, nm.RZF])
def test_noise_is_a_plain_number(kind, noise):
    operation = kind(noise)
    assert type(operation.noise) is float and operation == kind(float(noise))
    assert hash(operation) == hash(kind(float(noise)))


@pytest.mark.parametrize("operation", [nm.QR(), nm.Polar(), nm.PseudoInverse()], ids=str)
@pytest.mark.parametrize("shape", [SQUARE, TALL, WIDE])
def test_matrices_without_full_rank_fail(operation, shape, dtype, device):
    A = conditioned(4, *shape, dtype)
    A[1, :, 1] = 2 * A[1, :, 0]  # dependent columns
    if min(shape) == shape[0]:
        A[1, 1] = 2 * A[1, 0]
    A[2] = 0
    failed = operation.exact(A.to(device))[1]
    assert failed.tolist() == [False, True, True, False]


def test_subspaces_without_a_gap_fail(dtype):
    A = torch.diag_embed(torch.tensor([[3.0, 2, 1], [3, 2, 2], [2, 2, 1], [0, 0, 0]])).to(dtype)
    assert nm.Subspace(2).exact(A)[1].tolist() == [False, True, False, True]
    assert nm.Projector(1, "right").exact(A)[1].tolist() == [False, False, True, True]
    assert nm.Subspace(3).exact(A)[1].tolist() == [False] * 4


def test_singular_matrices_fail(dtype):
    A = conditioned(3, 4, 4, dtype)
    A[1] = torch.ones(4, 4)
    for operation in (
        nm.Inverse(),
        nm.MatrixFunction("sqrt"),
        nm.MatrixFunction("inverse_sqrt"),
        nm.MatrixFunction("log"),
    ):
        assert operation.exact(A)[1][1]
    zero = conditioned(3, 4, 4, dtype)
    zero[1, 2] = 0
    assert nm.LogDet().exact(zero)[1].tolist() == [False, True, False]
    B = torch.cat([A, gaussian(3, 4, 2, dtype=dtype)], dim=2)
    assert nm.Solve(2).exact(B)[1].tolist() == [False, True, False]
    assert nm.LogDet().residual(zero, [torch.ones(3, dtype=dtype), torch.zeros(3, dtype=real(dtype))])[1] == torch.inf
    assert nm.MatrixFunction("exp").exact(A)[1].tolist() == [False] * 3


def test_matrices_without_a_principal_root_fail(dtype):
    """Those with an eigenvalue on the negative axis, on which the roots and the logarithm jump."""
    A = torch.diag_embed(torch.tensor([[1.0, 2.0], [-1.0, 2.0], [-1.0, -2.0]])).to(dtype)
    for name in ("sqrt", "inverse_sqrt", "log"):
        assert nm.MatrixFunction(name).exact(A)[1].tolist() == [False, True, True]
    assert nm.MatrixFunction("exp").exact(A)[1].tolist() == [False] * 3
    if dtype.is_complex:
        (X,), failed = nm.MatrixFunction("sqrt").exact(1j * A)
        assert not failed.any()
        roots = 1j * np.array([[1, 2], [-1, 2], [-1, -2]])
        assert_close(X, torch.from_numpy(np.sqrt(roots)[:, :, None] * np.eye(2)))


def test_no_projector_of_another_rank_passes(dtype):
    """P = 0, the projector of training's first steps and of failed fits, solves P^2 = P as well."""
    A = conditioned(4, 5, 3, dtype)
    U = nm.SVD().exact(A)[0][0]
    for k in range(4):
        residual = nm.Projector(2).residual(A, (U[:, :, :k] @ U[:, :, :k].mH,))
        assert (residual <= 300 * eps(dtype)).all() if k == 2 else (residual >= 0.49).all()


def test_defective_matrices_fail(dtype):
    A = matrices(Case(nm.Eig(), SQUARE, "principal"), 3, dtype)
    A[1] = torch.diag(torch.ones(4)) + torch.diag(torch.ones(3), 1)
    factors, failed = nm.Eig().exact(A)
    assert failed.tolist() == [False, True, False]
    assert all(x[1].isnan().all() for x in factors)


def test_eigenvalues_of_real_rotations_are_complex():
    angle = torch.tensor([0.5, 1.0], dtype=torch.float64)
    A = torch.stack([torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1)
    w, V = nm.Eig().exact(A)[0]
    assert w.dtype == V.dtype == torch.complex128
    assert_close(w.imag.sort(dim=1).values, torch.stack([-angle.sin(), angle.sin()], dim=1))
    assert nm.Eig().residual(A, (w, V)).max() < 1e-15


@pytest.mark.parametrize("operation", [nm.Eigh(), nm.Eigh(rank=2), nm.Cholesky()], ids=str)
def test_matrices_that_are_not_hermitian_fail_and_raise_if_all_are(operation, dtype):
    A = matrices(Case(operation, SQUARE, "positive"), 3, dtype)
    A[1, 0, 3] += 0.1
    assert operation.exact(A)[1].tolist() == [False, True, False]
    if dtype.is_complex:
        A[1, 0, 3] -= 0.1
        A[1, 2, 2] += 0.1j
        assert operation.exact(A)[1].tolist() == [False, True, False]
    problem = nm.Problem(nm.families.trigonometric(4, shift=3.0, dtype=dtype), operation)
    words = ["Hermitian", "(A + A^H) / 2"]
    assert_raises(nm.FamilyError, words, lambda: problem.exact(parameters(3, dtype=real(dtype))))
    assert_raises(nm.FamilyError, words, lambda: nm.fit(problem, rank=4, progress=False))


@pytest.mark.parametrize("operation", [nm.Eigh(), nm.Cholesky()], ids=str)
def test_matrices_that_are_not_hermitian_somewhere_lose_nothing_elsewhere(operation, dtype):
    base = nm.families.trigonometric(3, 2, 0.0, cycles=0.2, dtype=dtype)

    def fn(p):
        A = base(p)
        skew = (p[:, :, None] > 0.97) * torch.ones(3, 3).triu(1)
        return A @ A.mH + 3 * torch.eye(3) + skew

    problem = nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=real(dtype)), operation)
    surrogate = nm.fit(problem, rank=6, progress=False)
    assert 0 < len(surrogate.report.singular) < surrogate.report.exact_solves
    p = torch.tensor([[0.2], [0.99], [0.5]], dtype=real(dtype))
    for rows in (slice(None), slice(1, 2)):  # the one alone, too
        checked = nm.certify(surrogate, problem, p[rows], rtol=0.1)
        bad = p[rows, 0] > 0.97
        assert torch.equal(checked.failed, bad) and torch.equal(checked.accepted, ~bad)
        factors = problem.unpack(checked.value, p[rows])
        assert all(x[bad].isnan().all() and x[~bad].isfinite().all() for x in factors)


def test_indefinite_matrices_have_no_cholesky_factor(dtype):
    A = matrices(Case(nm.Cholesky(), SQUARE, "positive"), 3, dtype)
    A[1] -= 0.5 * torch.eye(4)
    (L,), failed = nm.Cholesky().exact(A)
    assert failed.tolist() == [False, True, False]
    assert L[1].isnan().all()


def bad_at(operation, good, bad, dtype=torch.float64):
    """A family with the matrix ``good`` (1 + p), but ``bad`` for p < 0.2."""
    good, bad = good.to(dtype), bad.to(dtype)

    def fn(p):
        return torch.where(p[:, :, None] < 0.2, bad, good * (1 + p[:, :, None]))

    return nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=real(dtype)), operation)


DIAGONAL = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
FAILING = [
    (nm.QR(), torch.ones(3, 3)),
    (nm.Polar(), torch.ones(3, 3)),
    (nm.PseudoInverse(), torch.ones(3, 3)),
    (nm.Subspace(1), torch.eye(3)),
    (nm.Projector(2), torch.eye(3)),
    (nm.Inverse(), torch.ones(3, 3)),
    (nm.LogDet(), torch.zeros(3, 3)),
    (nm.MatrixFunction("log"), torch.zeros(3, 3)),
    (nm.MatrixFunction("sqrt"), -DIAGONAL),
    (nm.Eig(), torch.eye(3) + torch.diag(torch.ones(2), 1)),
    (nm.Cholesky(), -DIAGONAL),
]


@pytest.mark.parametrize(("operation", "bad"), FAILING, ids=str)
def test_a_fit_reports_what_failed(operation, bad):
    problem = bad_at(operation, DIAGONAL, bad)
    p = torch.tensor([[0.1], [0.5]], dtype=torch.float64)
    solution = problem.exact(p)
    assert solution.failed.tolist() == [True, False]
    assert problem.error(p, solution.value).isnan().tolist() == [True, False]
    surrogate = fit(problem, 1, snapshots=16)
    singular = torch.tensor(surrogate.report.singular)
    assert 0 < len(singular) < 16 and singular.max() < 0.2
    assert f"{len(singular)} of 16 exact solves failed" in surrogate.report.message
    inside = torch.linspace(0.3, 0.9, 7, dtype=torch.float64)[:, None]
    assert all(x.isfinite().all() for x in as_tuple(surrogate(inside)))
    with pytest.warns(nm.FitWarning, match="not met"):  # it fails at a tenth of the box
        assert not fit(problem, tol=1e-3, budget=None if operation.residual_solves else 60).report.met
    nowhere = fit(bad_at(operation, bad / 1, bad), 1, snapshots=8) if operation != nm.Cholesky() else None
    if nowhere is not None and nowhere.report.singular and len(nowhere.report.singular) == 8:
        assert nowhere.report.stop_reason == StopReason.SINGULAR
        assert all(not x.abs().sum() or x.isfinite().all() for x in as_tuple(nowhere(inside)))


SQUARE_ONLY = [nm.Inverse(), nm.LogDet(), nm.MatrixFunction("exp"), nm.Eigh(), nm.Eig(), nm.Cholesky()]
INSTEAD = {"Inverse": "nm.PseudoInverse", "Eigh": "nm.SVD", "Eig": "nm.SVD", "Cholesky": "nm.QR"}


@pytest.mark.parametrize("operation", SQUARE_ONLY, ids=str)
def test_operations_of_square_matrices_refuse_others(operation):
    words = ["`family`", "square", type(operation).__name__, "4 x 3", INSTEAD.get(type(operation).__name__, ".")]
    family = nm.ParametricMatrix(lambda p: torch.ones(len(p), 4, 3), [0.0], [1.0])
    assert_raises(ValueError, words, lambda: nm.Problem(family, operation))


@pytest.mark.parametrize("operation", [nm.SVD(rank=4), nm.Subspace(4), nm.Projector(4, "right")], ids=str)
def test_operations_refuse_a_rank_that_is_too_large(operation):
    assert_raises(ValueError, ["`rank`", "at most", "3", "4 x 3", "got 4"], lambda: operation.factors(4, 3))
    assert_raises(ValueError, ["`rank`", "at most", "4", "got 5"], lambda: nm.Eigh(rank=5).factors(4, 4))


@pytest.mark.parametrize("make", [nm.SVD, nm.Eigh, nm.Subspace, nm.Projector], ids=lambda x: x.__name__)
def test_operations_refuse_what_is_no_rank(make):
    assert_raises(ValueError, ["`rank`", "at least 1", "got 0"], lambda: make(rank=0))
    assert_raises(TypeError, ["`rank`", "integer", "2.0", "float"], lambda: make(rank=2.0))
    assert_raises(TypeError, ["`rank`", "integer", "True"], lambda: make(rank=True))


@pytest.mark.parametrize("make", [nm.LMMSE, nm.RZF, nm.RegularizedInverse], ids=lambda x: x.__name__)
def test_operations_refuse_what_is_no_noise(make):
    for noise in (0, 0.0, -1.0, float("nan"), float("inf")):
        assert_raises(ValueError, ["`noise`", "above 0", str(noise)], lambda noise=noise: make(noise=noise))
    assert_raises(TypeError, ["`noise`", "number", "'1'"], lambda: make(noise="1"))


def test_operations_refuse_other_settings():
    assert_raises(ValueError, ["`side`", "'left' or 'right'", "'both'"], lambda: nm.Subspace(1, "both"))
    assert_raises(ValueError, ["`gauge`", "'vectors' or 'subspace'", "'free'"], lambda: nm.SVD(gauge="free"))
    assert_raises(ValueError, ["`gauge`", "'vectors' or 'subspace'", "'free'"], lambda: nm.Eigh(gauge="free"))
    assert_raises(ValueError, ["`function`", "'exp'", "'sqrt'", "'sin'"], lambda: nm.MatrixFunction("sin"))
    assert_raises(ValueError, ["`columns`", "at least 1", "got 0"], lambda: nm.Solve(0))
    assert_raises(
        ValueError,
        ["`family`", "[A | B]", "n x (n + 2)", "4 x 4", "nm.families.beside"],
        lambda: nm.Problem(nm.families.trigonometric(4), nm.Solve(columns=2)),
    )


@pytest.mark.parametrize("case", [case for case in CASES if case not in LINEAR and case.shape == SQUARE], ids=str)
def test_only_linear_operations_are_fitted_without_exact_solves(case):
    problem = nm.Problem(slow(case, torch.float64), case.operation)
    assert_raises(
        ValueError,
        ["`budget`", "at least 1", type(case.operation).__name__, "not linear", "nm.ResidualTraining()"],
        lambda: fit(problem, 1, budget=0),
    )


# Problems


def problem_of(operation, dtype, size=4, **settings):
    return nm.Problem(nm.families.trigonometric(size=size, terms=2, shift=3.0, dtype=dtype, **settings), operation)


@pytest.mark.parametrize("operation", [nm.Inverse(), nm.SVD(), nm.SVD(rank=2)], ids=str)
def test_problem_measures_residual_and_error(operation, dtype, device):
    problem = problem_of(operation, dtype, device=device)
    p = parameters(5, dtype=real(dtype)).to(device)
    solution = problem.exact(p)
    assert not solution.failed.any()
    assert type(solution.value) is (torch.Tensor if isinstance(operation, nm.Inverse) else nm.SVDFactors)
    assert problem.residual(p, solution.value).max() <= 100 * eps(dtype)
    assert problem.error(p, solution.value).max() <= 100 * eps(dtype)
    # An error of a known size, in the scale of the invariant matrix.
    scaled = (
        solution.value * 1.25
        if isinstance(solution.value, torch.Tensor)
        else (
            solution.value.U,
            solution.value.S * 1.25,
            solution.value.Vh,
        )
    )
    assert_close(problem.error(p, scaled).cpu(), torch.full((5,), 0.25, dtype=torch.float64), units=400)


@pytest.mark.parametrize("operation", [nm.QR(), nm.Polar()], ids=str)
def test_the_error_of_several_unique_factors_is_the_largest(operation):
    """Their product would not see an orthogonal matrix between them."""
    problem = problem_of(operation, torch.complex128)
    p = parameters(5)
    Q, R = problem.exact(p).value
    W = torch.linalg.qr(gaussian(4, 4, dtype=torch.complex128)).Q
    assert problem.error(p, (Q @ W, W.mH @ R)).min() > 0.1
    assert_close(problem.error(p, (Q, 1.25 * R)), torch.full((5,), 0.25, dtype=torch.float64), 400)
    assert_close(problem.error(p, (1.5 * Q, R)), torch.full((5,), 0.5, dtype=torch.float64), 400)


def test_the_error_of_a_determinant_is_relative():
    problem = problem_of(nm.LogDet(), torch.complex128)
    p = parameters(5)
    sign, logabsdet = problem.exact(p).value
    shifted = (sign, logabsdet + torch.tensor(1.5, dtype=torch.float64).log())
    for measure in (problem.error, problem.residual):
        assert_close(measure(p, shifted), torch.full((5,), 0.5, dtype=torch.float64))
        assert_close(measure(p, (-sign, logabsdet)), torch.full((5,), 2.0, dtype=torch.float64))
        assert_close(measure(p, (1j * sign, logabsdet)), torch.full((5,), 2**0.5, dtype=torch.float64))


def test_problem_reports_singular_matrices_with_their_parameter():
    family = nm.ParametricMatrix(lambda p: torch.diag_embed(torch.cat([p - 0.25, p + 1], dim=1)), [0.0], [1.0])
    problem = nm.Problem(family, nm.Inverse())
    p = torch.tensor([[0.0], [0.25], [1.0]])
    solution = problem.exact(p)
    assert p[solution.failed].tolist() == [[0.25]]
    assert problem.error(p, solution.value).isnan().tolist() == [False, True, False]


def undefined_at(bad, operation, fn=None, dtype=torch.float64):
    """A trigonometric family that is NaN, or Inf, or raises by ``fn``, at the parameters ``bad``."""
    base = nm.families.trigonometric(4, 2, 3.0, dtype=dtype)
    family = base if not isinstance(operation, nm.Solve) else nm.families.beside(base, gaussian(4, 2, dtype=dtype))
    places = torch.tensor(bad, dtype=base.lower.dtype)

    def undefined(p):
        A, hit = family(p), torch.isin(p[:, 0], places)
        A = A @ A.mH if isinstance(operation, (nm.Eigh, nm.Cholesky)) else A
        return fn(A, hit) if fn else torch.where(hit[:, None, None], torch.nan, A)

    return nm.Problem(nm.ParametricMatrix(undefined, base.lower, base.upper), operation)


ONE_EACH = [nm.Inverse(), nm.LMMSE(0.1), nm.PseudoInverse(), nm.Solve(2), nm.LogDet(), nm.MatrixFunction("exp")]
ONE_EACH += [nm.SVD(2), nm.Eigh(2), nm.Eig(), nm.Subspace(2), nm.Projector(2), nm.QR(), nm.Cholesky(), nm.Polar()]


@pytest.mark.parametrize("operation", ONE_EACH, ids=str)
def test_a_parameter_at_which_the_family_is_undefined_is_marked(operation, dtype):
    problem, p = undefined_at([0.5, 0.75], operation, dtype=dtype), torch.tensor([[0.25], [0.5], [0.6], [0.75]])
    p = p.to(real(dtype))
    solution = problem.exact(p)
    good = torch.tensor([True, False, True, False])
    assert torch.equal(solution.failed, ~good)
    alone = as_tuple(problem.exact(p[good]).value)
    for x, y in zip(as_tuple(solution.value), alone, strict=True):
        assert x.dtype == y.dtype and x[~good].isnan().all()
    assert operation.error([x[good] for x in as_tuple(solution.value)], alone).max() <= 300 * eps(dtype)
    value = [torch.where(x.isnan(), 1, x) for x in as_tuple(solution.value)]
    assert torch.equal(problem.residual(p, value).isinf(), ~good)
    assert problem.residual(p, value)[good].max() <= 1000 * eps(dtype)
    assert torch.equal(problem.error(p, value).isnan(), ~good)


def test_where_nothing_is_defined_all_is_marked():
    problem, p = undefined_at([0.5], nm.SVD(2)), torch.full((3, 1), 0.5, dtype=torch.float64)
    solution = problem.exact(p)
    assert solution.failed.all() and all(x.isnan().all() for x in solution.value)
    assert problem.residual(p, [torch.ones_like(x) for x in solution.value]).isinf().all()


def test_problem_refuses_wrong_arguments():
    family = nm.families.trigonometric(size=3)
    assert_raises(TypeError, ["`family`", "ParametricMatrix", "function"], lambda: nm.Problem(torch.sin, nm.Inverse()))
    assert_raises(TypeError, ["`operation`", "nm.Inverse()", "Inverse"], lambda: nm.Problem(family, nm.Inverse))


@pytest.mark.parametrize("measure", ["residual", "error"])
@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda U, S, Vh: (U, S), ValueError, ["`value`", "U (B, 3, 2)", "S (B, 2", "Vh (B, 2, 3)", "got"]),
        (lambda U, S, Vh: (U, S, Vh.mT), ValueError, ["`value`", "Vh (B, 2, 3)", "got", "(5, 3, 2)"]),
        (lambda U, S, Vh: (U[:4], S[:4], Vh[:4]), ValueError, ["`value`", "5", "got"]),
        (lambda U, S, Vh: (U[:1], S[:1], Vh[:1]), ValueError, ["`value`", "5", "got"]),  # must not be broadcast
        (lambda U, S, Vh: None, TypeError, ["`value`", "Tensor", "tuple", "None"]),
    ],
    ids=["two factors", "transposed", "short batch", "single", "nothing"],
)
def test_problem_refuses_a_wrong_value(measure, spoil, error, words):
    problem, p = problem_of(nm.SVD(rank=2), torch.float32, size=3), parameters(5, dtype=torch.float32)
    value = spoil(*problem.exact(p).value)
    assert_raises(error, words, lambda: getattr(problem, measure)(p, value))
