"""Which eigenpairs, of one matrix or of a pair: chosen, ordered, followed, bounded and stored."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import torch
from conftest import assert_close, assert_raises, conditioned, eps, gaussian, grid_of, pieced, real

import neumatc as nm

DOUBLE = torch.float64
CHOICES = [{"which": which} for which in ("largest", "smallest", "lowest", "highest")] + [{"near": 1.5}]
choices = pytest.mark.parametrize("chosen", CHOICES, ids=str)


def hermitian(count, n, dtype, seed=0):
    A = gaussian(count, n, n, dtype=dtype, seed=seed)
    return (A + A.mH) / 2


def positive(count, n, dtype, seed=9):
    B = conditioned(count, n, n, dtype, 3.0, seed)
    return (B @ B.mH + (B @ B.mH).mH) / 2


def family_of(fn, dtype=DOUBLE, **settings):
    return nm.ParametricMatrix(lambda p: fn(p[:, :, None].to(dtype)), [0.0], [1.0], dtype=real(dtype), **settings)


def waves(n=9, dtype=DOUBLE, seed=1):
    """A Hermitian family whose spectrum lies on both sides of zero, and varies by about a third of its width."""
    A = hermitian(3, n, dtype, seed)
    diagonal = torch.diag(torch.linspace(-3, 3, n).to(dtype))
    return family_of(lambda p: diagonal + 0.15 * (A[0] + A[1] * torch.sin(2 * p) + A[2] * torch.cos(3 * p)), dtype)


def expected(A, B, k, which="largest", near=None):
    """Ascending eigenvalues of each matrix, by SciPy."""
    found = []
    for i in range(len(A)):
        w = scipy.linalg.eigh(A[i].numpy(), None if B is None else B[i].numpy(), eigvals_only=True)
        worth = {"largest": np.abs(w), "smallest": -np.abs(w), "lowest": -w, "highest": w}[which]
        worth = worth if near is None else -np.abs(w - near)
        found.append(np.sort(w[np.argsort(-worth)[:k]]))
    return torch.from_numpy(np.stack(found))


# What is chosen


@choices
@pytest.mark.parametrize("pair", [False, True], ids=["A", "A and B"])
def test_the_values_asked_for_ascend(chosen, pair, dtype):
    A, B = hermitian(6, 7, dtype), positive(6, 7, dtype) if pair else None
    operation = nm.Eigh(rank=3, B="beside" if pair else None, **chosen)
    (w, V), failed = operation.exact(torch.cat([A, B], dim=2) if pair else A)
    assert not failed.any() and (w.dtype, V.dtype) == (real(dtype), dtype)
    double = torch.complex128 if dtype.is_complex else DOUBLE
    assert_close(w, expected(A.to(double), B if B is None else B.to(double), 3, **chosen), 1000)
    right = V if B is None else B @ V
    assert_close(V.mH @ right, torch.eye(3).to(double).expand(6, 3, 3), 300)
    assert_close(A @ V, (right * w[:, None, :]).to(double), 1000)


@choices
def test_a_fit_gives_the_values_asked_for_wherever_they_enter_and_leave(chosen):
    """A spectrum that drifts by half its width: every choice but one end changes hands several times."""
    A = hermitian(1, 9, DOUBLE)[0]
    family = family_of(lambda p: torch.diag(torch.linspace(-4, 4, 9).double()) + 0.1 * A + 4 * (p - 0.5) * torch.eye(9))
    problem = nm.Problem(family, nm.Eigh(rank=2, **chosen))
    surrogate, p = pieced(problem, 1e-6), grid_of(family, 300)
    assert surrogate.report.met, str(surrogate.report)
    assert surrogate.report.exact_solves < 60
    w = surrogate(p).eigenvalues
    assert (w.diff(dim=1) >= 0).all()
    assert_close(w, expected(family(p), None, 2, **chosen), 1e-5 / eps(DOUBLE))


def test_the_lowest_values_cross_those_above_them():
    """Levels of a spin in a field: the second lowest is another one at each end, and both are followed."""
    levels = torch.tensor([[-2.0, 0.0], [-1.0, 1.5], [0.0, -1.5], [1.0, 0.1]], dtype=DOUBLE)
    V = torch.linalg.qr(gaussian(4, 4, dtype=DOUBLE)).Q
    family = family_of(lambda p: (V * (levels[:, 0] + levels[:, 1] * p)) @ V.mT)
    problem = nm.Problem(family, nm.Eigh(rank=2, which="lowest"))
    surrogate, p = pieced(problem, 1e-10), grid_of(family, 200)
    assert [event.kind for event in surrogate.report.events] == ["crossing"]
    assert abs(surrogate.report.events[0].parameter[0] - 1 / 3) < 1e-8
    assert surrogate.report.exact_solves <= 12
    assert problem.error(p, surrogate(p)).max() < 1e-9


# Pairs


@pytest.mark.parametrize("kind", ["tensor", "array", "sparse", "family", "beside"])
def test_ways_to_give_the_second_matrix(kind):
    A, B = waves(), positive(1, 9, DOUBLE)[0]
    if kind == "beside":
        problem = nm.Problem(nm.families.beside(A, B), nm.Eigh(rank=3, which="lowest", B="beside"))
    else:
        given = {"tensor": B, "array": B.numpy(), "sparse": scipy.sparse.csr_array(B.numpy())}
        given = given.get(kind, family_of(lambda p: B + 0 * p))
        problem = nm.Problem(A, nm.Eigh(rank=3, which="lowest", B=given))
    p = grid_of(A, 5)
    assert problem.operation == nm.Eigh(rank=3, which="lowest", B="beside")
    assert_close(problem.exact(p).value.eigenvalues, expected(A(p), B.expand(5, 9, 9), 3, "lowest"), 1000)


def test_a_real_second_matrix_goes_with_a_complex_first_and_the_other_way_round():
    A, B = waves(dtype=torch.complex128), positive(1, 9, DOUBLE)[0]
    p = grid_of(A, 5)
    found = nm.Problem(A, nm.Eigh(rank=3, B=B)).exact(p).value.eigenvalues
    assert_close(found, expected(A(p), B.expand(5, 9, 9), 3), 1000)
    A, B = waves(), positive(1, 9, torch.complex128)[0]
    problem = nm.Problem(A, nm.Eigh(rank=3, B=B))
    assert A.dtype == DOUBLE and problem.family.dtype == torch.complex128
    assert_close(problem.exact(p).value.eigenvalues, expected(A(p).to(B.dtype), B.expand(5, 9, 9), 3), 1000)
    words = ["`B`", "precision", "float32", "complex128", "convert"]
    assert_raises(ValueError, words, lambda: nm.Problem(waves(dtype=torch.float32), nm.Eigh(B=B)))


@choices
def test_a_fit_of_a_pair_with_a_second_matrix_that_varies(chosen):
    B = positive(2, 9, DOUBLE)
    problem = nm.Problem(waves(), nm.Eigh(rank=2, B=family_of(lambda p: B[0] + p * B[1]), **chosen))
    surrogate, p = pieced(problem, 1e-6), grid_of(problem.family, 200)
    assert surrogate.report.met, str(surrogate.report)
    A, right = problem.family(p).split(9, dim=2)
    w, V = surrogate(p)
    assert_close(w, expected(A, right, 2, **chosen), 1e-5 / eps(DOUBLE))
    assert_close(V.mH @ right @ V, torch.eye(2).double().expand(200, 2, 2), 1e-5 / eps(DOUBLE))
    certified = nm.certify(surrogate, problem, p, rtol=1e-3)
    assert certified.certainty == "bound" and (problem.error(p, certified.value) <= certified.bound).all()
    assert certified.accepted.double().mean() > 0.9


def test_the_residual_of_a_pair_does_not_depend_on_the_coordinates(dtype):
    """Nor on the units of both: (A, B, V) -> (T^H A T, T^H B T, T^-1 V)."""
    A, B = hermitian(5, 6, dtype), positive(5, 6, dtype)
    operation, T = nm.Eigh(rank=3, which="lowest", B="beside"), conditioned(5, 6, 6, dtype, 3.0, seed=4)
    w, V = operation.exact(torch.cat([A, B], dim=2))[0]
    V = V + 0.01 * gaussian(*V.shape, dtype=dtype)
    A2, B2 = ((x + x.mH) / 2 for x in (T.mH @ A @ T, T.mH @ B @ T))
    turned = operation.residual(torch.cat([A2, 100 * B2], dim=2), (w / 100, torch.linalg.solve(T, V) / 10))
    straight = operation.residual(torch.cat([A, B], dim=2), (w, V))
    assert straight.dtype == real(dtype)
    assert_close(turned, straight.double(), 1e4)


def test_the_residual_of_a_pair_is_its_formula():
    A, B = hermitian(5, 6, torch.complex128), positive(5, 6, torch.complex128)
    operation = nm.Eigh(rank=3, which="highest", B="beside")
    w, V = (x + 0.1 * gaussian(*x.shape, dtype=x.dtype) for x in operation.exact(torch.cat([A, B], dim=2))[0])
    defect = A @ V - B @ V * w[:, None, :]
    weighed = torch.einsum("bij,bij->b", defect.conj(), torch.linalg.solve(B, defect)).real
    parts = weighed / w.square().sum(dim=1), torch.linalg.matrix_norm(V.mH @ B @ V - torch.eye(3)).square() / 3
    assert_close(operation.residual(torch.cat([A, B], dim=2), (w, V)), sum(parts).sqrt())


def test_units_of_the_rows_do_not_matter():
    """Displacements in metres beside angles: eight decades in the diagonal of both matrices, in single precision."""
    A, B = hermitian(3, 6, DOUBLE), positive(3, 6, DOUBLE)
    D = torch.logspace(0, -4, 6, dtype=DOUBLE)
    scaled = torch.cat([D[:, None] * A * D, D[:, None] * B * D], dim=2).float()
    (w, _), failed = nm.Eigh(which="lowest", B="beside").exact(scaled)
    assert not failed.any()
    assert_close(w, expected(A, B, 6), 500)


def test_a_second_matrix_that_is_not_positive_definite_fails_there(dtype):
    A, B = hermitian(4, 5, dtype), positive(4, 5, dtype)
    v = gaussian(5, 1, dtype=dtype)
    B[1] = v @ v.mH  # semidefinite
    B[2] -= 10 * torch.eye(5)
    B[3, 0, 1] += 0.1
    both, operation = torch.cat([A, B], dim=2), nm.Eigh(rank=2, B="beside")
    (w, V), failed = operation.exact(both)
    assert failed.tolist() == [False, True, True, True]
    value = w.nan_to_num(1.0), V.nan_to_num(1.0)
    assert operation.residual(both, value).isinf().tolist()[1:3] == [True, True]
    bound = operation.error_bound(both.to(torch.complex128 if dtype.is_complex else DOUBLE), value)
    assert bound.isinf().tolist()[1:3] == [True, True]


def test_a_pair_in_a_file(tmp_path):
    B = positive(1, 9, DOUBLE)[0]
    problem = nm.Problem(waves(), nm.Eigh(rank=2, which="lowest", B=B))
    surrogate, p = pieced(problem, 1e-6), grid_of(problem.family, 20)
    nm.save(surrogate, tmp_path / "pair.safetensors")
    loaded = nm.load(tmp_path / "pair.safetensors")
    assert loaded.operation == problem.operation and loaded.operation.which == "lowest"
    assert torch.equal(loaded(p).eigenvalues, surrogate(p).eigenvalues)
    again = nm.Problem(waves(), nm.Eigh(rank=2, which="lowest", B=B))
    assert nm.certify(loaded, again, p, rtol=1e-3).accepted.all()
    without = nm.Problem(waves(), nm.Eigh(rank=2, which="lowest"))
    assert_raises(ValueError, ["`surrogate`", "which='lowest')", "B='beside'"], lambda: nm.certify(loaded, without, p))


def test_a_pair_is_not_solved_without_its_second_matrix():
    assert_raises(ValueError, ["`B`", "no zeros"], lambda: nm.Eigh(rank=2, B=torch.eye(4)).exact(torch.eye(4)[None]))


def test_vectors_of_a_pair_are_not_orthonormal():
    problem = nm.Problem(waves(), nm.Eigh(rank=2, B=positive(1, 9, DOUBLE)[0]))
    surrogate = nm.fit(problem, rank=8, progress=False)
    p = grid_of(problem.family, 3)
    assert_raises(ValueError, ["`orthonormal`", "False", "B='beside'"], lambda: surrogate(p, orthonormal=True))


# Bad input


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"which": "biggest"}, ValueError, ["`which`", "'largest'", "'highest'", "'biggest'"]),
        ({"near": "0"}, TypeError, ["`near`", "number", "'0'"]),
        ({"near": float("nan")}, ValueError, ["`near`", "finite", "nan"]),
        ({"near": 1, "which": "lowest"}, ValueError, ["`which`", "near=1.0", "lowest", "leave"]),
        ({"B": "mass"}, TypeError, ["`B`", "tensor", "ParametricMatrix", "'beside'", "'mass'"]),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(settings, error, words):
    assert_raises(error, words, lambda: nm.Eigh(rank=2, **settings))


@pytest.mark.parametrize("B", [torch.eye(4), torch.eye(9)[:, :4], torch.ones(9)], ids=lambda B: str(tuple(B.shape)))
def test_a_second_matrix_of_another_shape(B):
    with pytest.raises(ValueError, match=r"`B`: expected shape") as caught:
        nm.Problem(waves(), nm.Eigh(rank=2, B=B))
    assert len(str(caught.value)) < 300


def test_a_second_matrix_is_not_shown():
    operation = nm.Eigh(rank=2, B=torch.eye(400, dtype=DOUBLE))
    assert "tensor" not in repr(operation) and operation == nm.Eigh(rank=2, B="beside") and hash(operation)
    assert operation.settings()["B"] == "beside"


# What must not be accepted


TIES = [
    ({"which": "largest"}, [-2.0, 1, 2, 0], 1, True),
    ({"which": "largest"}, [-2.0, 1, 2, 0], 2, False),
    ({"which": "largest"}, [3.0, 0, 0, 0], 2, False),  # the part of rank two is unique
    ({"which": "lowest"}, [0.0, 0, 1, 2], 1, True),
    ({"which": "lowest"}, [0.0, 0, 1, 2], 2, False),
    ({"which": "highest"}, [0.0, 1, 2, 2], 1, True),
    ({"which": "smallest"}, [-1.0, 1, 2, 3], 1, True),
    ({"near": 1.5}, [0.0, 1, 2, 9], 1, True),
    ({"near": 1.5}, [0.0, 1, 2, 9], 2, False),
]


@pytest.mark.parametrize(("chosen", "values", "k", "tied"), TIES, ids=str)
def test_values_that_are_no_choice_fail(chosen, values, k, tied, dtype):
    V = torch.linalg.qr(gaussian(4, 4, dtype=dtype)).Q
    A = ((V * torch.tensor(values).to(dtype)) @ V.mH)[None]
    A, other = (A + A.mH) / 2, hermitian(1, 4, dtype)
    assert nm.Eigh(rank=k, **chosen).exact(torch.cat([A, other]))[1].tolist() == [tied, False]
    B = positive(1, 4, dtype)
    root = torch.linalg.cholesky(B)
    pair = torch.cat([(root @ A @ root.mH + (root @ A @ root.mH).mH) / 2, B], dim=2)
    if chosen != {"which": "largest"} or values[-1]:  # a zero, in another basis, is rounding
        assert nm.Eigh(rank=k, B="beside", **chosen).exact(pair)[1].tolist() == [tied]


@pytest.mark.parametrize(("values", "k", "tied"), [([3, 2, 2, 1], 2, True), ([3, 2, 2, 1], 3, False)])
def test_singular_values_that_are_no_choice_fail(values, k, tied, dtype):
    A = (
        torch.diag(torch.tensor(values).to(dtype))[None, :, :3]
        if k == 5
        else torch.diag(torch.tensor(values).to(dtype))[None]
    )
    assert nm.SVD(k).exact(A)[1].tolist() == nm.Subspace(k).exact(A)[1].tolist() == [tied]


def test_a_matrix_of_lower_rank_has_its_singular_part(dtype):
    """Unlike its subspace: the product of zero values is unique."""
    A = gaussian(2, 5, 1, dtype=dtype) @ gaussian(2, 1, 4, dtype=dtype, seed=1)
    factors, failed = nm.SVD(2).exact(A)
    assert not failed.any()
    assert_close(nm.SVD(2).invariant(factors), A.to(torch.complex128 if dtype.is_complex else DOUBLE), 200)


def test_certify_never_returns_one_of_two_equal_values():
    """Two levels that are equal at one parameter, of which one is asked for."""
    V = torch.linalg.qr(gaussian(3, 3, dtype=DOUBLE)).Q
    family = family_of(lambda p: (V * torch.cat([1 + p, 1.5 + 0 * p, 9 + p], dim=2)) @ V.mT)
    problem = nm.Problem(family, nm.Eigh(rank=1, which="lowest"))
    surrogate = pieced(problem, 1e-8)
    certified = nm.certify(surrogate, problem, torch.tensor([[0.2], [0.5], [0.8]], dtype=DOUBLE))
    assert certified.failed.tolist() == [False, True, False]
    assert certified.accepted.tolist() == [True, False, True]


def skewed(operation, part, size):
    """A positive definite family that is off Hermitian by ``size`` where p is above ``part``, and its problem."""
    base = waves(4)
    off = size * torch.ones(4, 4).triu(1).double()
    fn = lambda p: base(p) + 9 * torch.eye(4).double() + (p[:, :, None] > part) * off  # noqa: E731
    return nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=DOUBLE), operation)


NOT_HERMITIAN = [nm.Eigh(), nm.Eigh(rank=2), nm.Eigh(rank=2, which="lowest"), nm.Cholesky()]
not_hermitian = pytest.mark.parametrize("operation", NOT_HERMITIAN, ids=str)


@not_hermitian
def test_certify_marks_what_is_not_hermitian_however_little(operation):
    right, wrong = skewed(operation, 2.0, 0.0), skewed(operation, 0.6, 1e-9)
    surrogate = pieced(right, 1e-6)
    p = torch.tensor([[0.3], [0.7], [0.5]], dtype=DOUBLE)
    certified = nm.certify(surrogate, wrong, p, rtol=1e-2)
    assert certified.accepted.tolist() == [True, False, True]
    assert certified.failed.tolist() == certified.bound.isinf().tolist() == [False, True, False]
    assert wrong.residual(p, surrogate(p)).isinf().tolist() == [False, True, False]


@not_hermitian
def test_certify_takes_the_rounding_of_single_precision_for_what_it_is(operation):
    """Hermitian up to it: not in double precision, in which bounds are computed."""
    double = skewed(operation, 2.0, 0.0).family
    V = conditioned(1, 4, 4, torch.float32, 1.0)[0]
    family = nm.ParametricMatrix(lambda p: V @ double(p.double()).float() @ V.mT, [0.0], [1.0], dtype=torch.float32)
    problem = nm.Problem(family, operation)
    p = torch.linspace(0, 1, 20)[:, None]
    assert not torch.equal(family(p), family(p).mT)
    surrogate = pieced(problem, 1e-4)
    assert nm.certify(surrogate, problem, p).accepted.all()
    assert not nm.certify(surrogate, problem, p, rtol=1e-12).value[0].isnan().any()  # rejected, and solved exactly


@not_hermitian
def test_a_fit_does_not_meet_its_tolerance_where_matrices_are_not_hermitian(operation):
    with pytest.warns(nm.FitWarning, match="not met"):
        surrogate = pieced(skewed(operation, 0.6, 1e-9), 1e-4, budget=60)
    assert not surrogate.report.met
    assert all(place.upper[0] > 0.6 for place in surrogate.report.unmet)


# Bounds and losses


@choices
@pytest.mark.parametrize("pair", [False, True], ids=["A", "A and B"])
def test_bounds_of_larger_matrices(chosen, pair, dtype):
    """Finite where errors are small against the gap, and never below them."""
    A, B = hermitian(20, 12, dtype), positive(20, 12, dtype)
    double = torch.complex128 if dtype.is_complex else DOUBLE
    A = (torch.cat([A, B], dim=2) if pair else A).to(double)
    operation = nm.Eigh(rank=3, B="beside" if pair else None, **chosen)
    exact, failed = operation.exact(A)
    assert not failed.any()
    for size in (0.0, 1e-9, 1e-5, 1e-3, 1e-1):
        factors = [x + size * gaussian(*x.shape, dtype=x.dtype, seed=3) for x in exact]
        error, bound = operation.error(factors, exact), operation.error_bound(A, factors)
        assert not bound.isnan().any() and (error <= bound + 1e-15).all()
        if size <= 1e-5:
            assert (bound <= 1e4 * size + 1e-7).double().mean() > 0.9


@choices
def test_bounds_see_that_the_pairs_are_not_those_wanted(chosen):
    A = hermitian(6, 6, torch.complex128)
    w, V = nm.Eigh().exact(A)[0]
    operation = nm.Eigh(rank=2, **chosen)
    exact = operation.exact(A)[0]
    for i in range(6):
        for j in range(i + 1, 6):
            factors = w[:, [i, j]], V[:, :, [i, j]]
            assert operation.residual(A, factors).max() < 1e-13
            error, bound = operation.error(factors, exact), operation.error_bound(A, factors)
            assert (error <= bound).all()
            assert torch.equal(bound < 1e-6, error < 1e-6)


@choices
@pytest.mark.parametrize("pair", [False, True], ids=["A", "A and B"])
def test_the_loss_is_least_at_the_pairs_wanted(chosen, pair):
    A, B = hermitian(4, 5, torch.complex128), positive(4, 5, torch.complex128)
    A, operation = torch.cat([A, B], dim=2) if pair else A, nm.Eigh(rank=2, B="beside" if pair else None, **chosen)
    w, V = nm.Eigh(B="beside" if pair else None).exact(A)[0]
    exact = [x.clone().requires_grad_() for x in operation.exact(A)[0]]
    least = operation.loss(A, exact)
    assert max(float(x.abs().max()) for x in torch.autograd.grad(least.sum(), exact)) < 1e-10
    for i in range(5):
        for j in range(i + 1, 5):
            assert (operation.loss(A, (w[:, [i, j]], V[:, :, [i, j]])) >= least * (1 - 1e-9)).all()
