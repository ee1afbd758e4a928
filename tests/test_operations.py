"""Operations and problems: exact solutions, residuals, gauges, and the training loss, against dense NumPy oracles."""

import itertools

import numpy as np
import pytest
import torch
from conftest import assert_close, assert_raises, conditioned, eps, gaussian, parameters, real

import neumatc as nm

SHAPES = [(4, 4), (7, 3), (3, 7), (1, 5), (1, 1)]
CASES = [(nm.Inverse(), (m, n)) for m, n in SHAPES if m == n]
CASES += [(nm.SVD(rank), shape) for shape, rank in itertools.product(SHAPES, (None, 1, 2)) if (rank or 1) <= min(shape)]
cases = pytest.mark.parametrize(("operation", "shape"), CASES, ids=lambda x: str(x).replace(" ", ""))


def norm(x):
    """Frobenius norms per matrix, by NumPy, in double precision."""
    return torch.from_numpy(np.linalg.norm(x.cpu().to(torch.complex128).numpy(), axis=(1, 2)))


def perturbed(factors, size=0.1):
    return [x + size * gaussian(*x.shape, dtype=x.dtype, seed=7 + i).to(x.device) for i, x in enumerate(factors)]


@cases
def test_exact_solution_has_the_stated_shapes_and_no_residual(operation, shape, dtype, device):
    A = conditioned(6, *shape, dtype).to(device)
    factors, failed = operation.exact(A)
    stated = operation.factors(*shape)
    assert [tuple(x.shape) for x in factors] == [(6, *factor.shape) for factor in stated]
    assert [x.dtype for x in factors] == [real(dtype) if factor.real else dtype for factor in stated]
    assert all(x.device == A.device for x in factors)
    assert not failed.any()
    assert operation.residual(A, factors).max() <= 200 * eps(dtype)
    assert operation.residual(A, factors).dtype == real(dtype)
    assert operation.residual(A, perturbed(factors)).min() > 1e-3


def test_residual_of_the_inverse_is_its_formula(dtype, device):
    A, X = conditioned(5, 4, 4, dtype).to(device), gaussian(5, 4, 4, dtype=dtype, seed=3).to(device)
    residual = nm.Inverse().residual(A, (X,))
    assert_close(residual.cpu(), norm(A @ X - torch.eye(4, dtype=dtype, device=device)) / 2)
    assert_close(nm.Inverse().loss(A, (X,)).cpu(), residual.cpu().double() ** 2)
    singular = np.linalg.svd((A @ X).cpu().numpy() - np.eye(4), compute_uv=False)
    assert_close(residual.cpu(), torch.from_numpy(np.sqrt((singular**2).mean(axis=1))))


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


def test_loss_of_the_svd_is_minimal_at_the_leading_triplets():
    A = conditioned(4, 6, 5, torch.complex128)
    operation = nm.SVD(rank=2)
    exact = [x.clone().requires_grad_() for x in operation.exact(A)[0]]
    loss = operation.loss(A, exact)
    gradients = torch.autograd.grad(loss.sum(), exact)
    assert max(float(g.abs().max()) for g in gradients) < 1e-12
    for seed in range(20):
        near = [x + 1e-3 * gaussian(*x.shape, dtype=x.dtype, seed=seed) for x in exact]
        assert (operation.loss(A, near) > loss).all()


@cases
def test_loss_has_finite_gradients_also_at_the_solution(operation, shape, dtype):
    A = conditioned(3, *shape, dtype)
    for factors in (operation.exact(A)[0], [torch.zeros_like(x) for x in operation.exact(A)[0]]):
        leaves = [x.clone().requires_grad_() for x in factors]
        for gradient in torch.autograd.grad(operation.loss(A, leaves).sum(), leaves):
            assert gradient.isfinite().all()


def test_canonical_sorts_and_fixes_signs_without_changing_the_matrix(dtype, device):
    A = conditioned(8, 5, 4, dtype).to(device)
    operation = nm.SVD(rank=3)
    exact = operation.exact(A)[0]
    order = torch.tensor([list(x) for x in itertools.permutations(range(3))] * 2, device=device)[:8]
    sign = torch.where(gaussian(8, 3, dtype=torch.float64) < 0, -1, 1).to(device, real(dtype))
    sign[0], order[0] = 1, torch.arange(3, device=device)  # one that is canonical already
    U = torch.take_along_dim(exact[0], order[:, None, :], dim=2)
    S = torch.take_along_dim(exact[1], order, dim=1) * sign
    Vh = torch.take_along_dim(exact[2], order[:, :, None], dim=1) * sign[:, :, None].to(dtype)
    factors = [U, S, Vh]
    before = operation.invariant(factors).clone()
    operation.canonical_(factors)
    assert_close(S, exact[1].double())
    assert_close(operation.invariant(factors), before)
    assert operation.residual(A, factors).max() <= 200 * eps(dtype)
    assert torch.equal(U[0], exact[0][0])


def test_operations_refuse_what_does_not_exist():
    assert_raises(ValueError, ["square", "4 x 3"], lambda: nm.Inverse().factors(4, 3))
    assert_raises(ValueError, ["`rank`", "at most", "3", "4 x 3", "got 4"], lambda: nm.SVD(rank=4).factors(4, 3))
    assert_raises(ValueError, ["`rank`", "at least 1", "got 0"], lambda: nm.SVD(rank=0))
    assert_raises(TypeError, ["`rank`", "integer", "2.0", "float"], lambda: nm.SVD(rank=2.0))
    assert_raises(TypeError, ["`rank`", "integer", "True"], lambda: nm.SVD(rank=True))


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


def test_problem_reports_singular_matrices_with_their_parameter():
    family = nm.ParametricMatrix(lambda p: torch.diag_embed(torch.cat([p - 0.25, p + 1], dim=1)), [0.0], [1.0])
    problem = nm.Problem(family, nm.Inverse())
    p = torch.tensor([[0.0], [0.25], [1.0]])
    solution = problem.exact(p)
    assert p[solution.failed].tolist() == [[0.25]]
    assert problem.error(p, solution.value).isnan().tolist() == [False, True, False]


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
        (lambda U, S, Vh: (U.numpy(), S.numpy(), Vh.numpy()), TypeError, ["`value`", "Tensor", "ndarray"]),
    ],
    ids=["two factors", "transposed", "short batch", "single", "NumPy"],
)
def test_problem_refuses_a_wrong_value(measure, spoil, error, words):
    problem, p = problem_of(nm.SVD(rank=2), torch.float32, size=3), parameters(5, dtype=torch.float32)
    value = spoil(*problem.exact(p).value)
    assert_raises(error, words, lambda: getattr(problem, measure)(p, value))
