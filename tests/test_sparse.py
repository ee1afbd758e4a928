"""One sparse polynomial basis for the whole box: where it is taken, what it promises there, and how it evaluates."""

import math
import warnings

import pytest
import torch
from conftest import DTYPES, assert_close, easy, eps, pieced, real

import neumatc as nm

F64 = torch.float64


def waves(d, dtype=F64, size=4, cycles=0.3):
    """A well-conditioned trigonometric family."""
    return nm.families.trigonometric(size, 3, 3.0, 0, cycles=cycles, dimension=d, dtype=dtype)


def shear(entry, d=3):
    """The family of 2 x 2 shears by a function of the columns of p: its inverses are shears by the opposite."""

    def fn(p):
        A = torch.eye(2, dtype=p.dtype).repeat(len(p), 1, 1)
        A[:, 0, 1] = entry(*p.T)
        return A

    return nm.ParametricMatrix(fn, [-1.0] * d, [1.0] * d, dtype=F64)


def fresh(family, count=2000, seed=99):
    return family.box.uniform(count, torch.Generator().manual_seed(seed))


def is_sparse(surrogate):
    return all(isinstance(m.embedding, nm.SparsePolynomials) for m in surrogate.maps)


@pytest.fixture(scope="module")
def smooth():
    """A problem of three parameters, and its map."""
    problem = nm.Problem(waves(3), nm.Inverse())
    return problem, pieced(problem, 1e-4)


# Where it is taken


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("d", "tol"), [(3, 1e-2), (3, 1e-3), (4, 1e-2)])
def test_the_tolerance_is_met_at_fresh_parameters(d, tol, dtype):
    problem = nm.Problem(waves(d, dtype), nm.Inverse())
    surrogate, p = pieced(problem, tol), fresh(problem.family)
    assert is_sparse(surrogate)
    assert surrogate.report.met
    assert (problem.residual(p, surrogate(p)) > tol).double().mean() <= 1e-2


@pytest.mark.parametrize(("d", "most"), [(3, 200), (4, 600)])
def test_few_solves_do_where_a_grid_takes_thousands(d, most):
    """A full period on each axis; grids that meet the tolerance have 9 nodes per axis: 729 and 6,561."""
    generator = torch.Generator().manual_seed(0)
    B = torch.randn(d, 8, 8, generator=generator, dtype=F64)
    B *= 0.5 / torch.linalg.matrix_norm(B, 2)[:, None, None]
    phase = 2 * math.pi * torch.rand(d, generator=generator, dtype=F64)

    def fn(p):
        return 3 * torch.eye(8, dtype=F64) + torch.einsum("bi,ijk->bjk", torch.cos(math.pi * p + phase), B)

    problem = nm.Problem(nm.ParametricMatrix(fn, [-1.0] * d, [1.0] * d, dtype=F64), nm.Inverse())
    surrogate = pieced(problem, 1e-2)
    assert surrogate.report.met
    assert surrogate.report.exact_solves <= most


def test_a_hard_axis_gets_more_nodes_than_an_easy_one():
    problem = nm.Problem(shear(lambda a, b, c: torch.cos(7 * a + 0.3) + 0.1 * b * c), nm.Inverse())
    surrogate = pieced(problem, 1e-3)
    hard, *easy_ones = surrogate.maps[0].weights["indices"].max(dim=0).values.tolist()
    assert surrogate.report.met
    assert hard >= 10 > max(easy_ones)


def test_a_sparse_polynomial_is_found_to_rounding():
    problem = nm.Problem(shear(lambda a, b, c: a**3 + a * b + b * c**2 - 2 * c), nm.Inverse())
    surrogate, p = pieced(problem, 1e-6), fresh(problem.family)
    assert surrogate.report.exact_solves <= 60
    assert_close(surrogate(p), problem.exact(p).value, units=1000)


def test_what_vanishes_in_the_middle_of_an_axis_does_not_hide():
    problem = nm.Problem(shear(lambda a, b, c: torch.exp(-b * c) * torch.cos(2 * a + b)), nm.Inverse())
    surrogate, p = pieced(problem, 1e-3), fresh(problem.family)
    assert is_sparse(surrogate)
    assert surrogate.report.exact_solves <= 300
    assert (problem.residual(p, surrogate(p)) > 1e-3).double().mean() <= 1e-2


def test_pieces_take_over_where_a_kink_lies():
    problem = nm.Problem(shear(lambda a, b, c: a.abs() + 0.1 * b * c), nm.Inverse())
    surrogate, p = pieced(problem, 1e-3), fresh(problem.family)
    assert isinstance(surrogate.maps[0].embedding, nm.PiecewisePolynomials)
    assert surrogate.report.met
    assert (problem.residual(p, surrogate(p)) > 1e-3).double().mean() <= 1e-2
    assert surrogate.report.exact_solves <= 300


def test_pieces_take_over_where_an_exact_solution_fails():
    # The hole lies on the first node of the basis.
    family = shear(
        lambda a, b, c: torch.where((a - 0.35).square() + (b - 0.35).square() < 1e-8, torch.nan, torch.sin(a + b + c))
    )
    problem = nm.Problem(family, nm.Inverse())
    surrogate, p = pieced(problem, 1e-2), fresh(family)
    assert isinstance(surrogate.maps[0].embedding, nm.PiecewisePolynomials)
    assert (problem.residual(p, surrogate(p)) > 1e-2).double().mean() <= 1e-2


def test_two_parameters_are_left_to_pieces():
    assert not is_sparse(pieced(nm.Problem(waves(2), nm.Inverse()), 1e-2))


def test_triplets_are_interpolated_in_their_gauge():
    problem = easy(nm.SVD(rank=2), d=3)
    surrogate, p = pieced(problem, 1e-3), fresh(problem.family)
    assert is_sparse(surrogate)
    (U, S, Vh), exact = surrogate(p), problem.exact(p).value
    error = U @ torch.diag_embed(S) @ Vh - exact.U @ torch.diag_embed(exact.S) @ exact.Vh
    assert (error.flatten(1).norm(dim=1) / exact.S.norm(dim=1)).quantile(0.99) < 1e-2


def test_where_the_budget_ends_the_report_names_the_box():
    problem = nm.Problem(waves(3, cycles=2.0), nm.Inverse())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)
        report = pieced(problem, 1e-6, budget=50).report
    assert report.exact_solves <= 50
    assert not report.met
    assert report.stop_reason == nm.StopReason.BUDGET
    assert report.unmet


def test_the_rank_limits_the_terms():
    problem = nm.Problem(shear(lambda a, b, c: 0.5 * (a + b * c)), nm.Inverse())
    assert max(piece.terms for piece in pieced(problem, 1e-2, rank=12).pieces) <= 12


# How it evaluates


def test_functions_are_one_at_their_node_and_zero_at_those_before():
    problem = nm.Problem(waves(3), nm.Inverse())
    m = pieced(problem, 1e-2).maps[0]
    indices, nodes = m.weights["indices"], m.weights["nodes"]
    x = torch.stack([nodes[i, k] for i, k in enumerate(indices.T)], dim=1)
    phi = m.embedding(x, m.weights)
    larger = (indices[:, None] >= indices[None]).all(dim=2)
    assert torch.equal(phi.diagonal(), torch.ones(len(x), dtype=F64))
    assert phi[~larger].abs().max() == 0


def test_the_map_is_one_piece(smooth):
    _, surrogate = smooth
    (piece,) = surrogate.pieces
    assert piece.terms == surrogate.rank == surrogate.report.rank == len(surrogate.maps[0].core)


def test_the_derivative_is_that_of_the_result():
    problem = nm.Problem(shear(lambda a, b, c: torch.sin(a + 0.5 * b * c)), nm.Inverse())
    surrogate, p = pieced(problem, 1e-5), fresh(problem.family, 50)
    slope = torch.func.vmap(torch.func.jacrev(lambda q: surrogate(q[None])[0, 0, 1]))(p)
    a, b, c = p.T
    exact = -torch.cos(a + 0.5 * b * c)[:, None] * torch.stack([torch.ones_like(a), 0.5 * c, 0.5 * b], dim=1)
    assert (slope - exact).abs().max() < 1e-3


def test_autograd_follows_the_parameters(smooth):
    problem, surrogate = smooth
    p = fresh(problem.family, 5).requires_grad_()
    assert torch.autograd.gradcheck(surrogate, p)


@pytest.mark.slow
def test_a_compiled_map_gives_the_same_values(smooth):
    problem, surrogate = smooth
    p = fresh(problem.family, 40)
    assert_close(torch.compile(surrogate, fullgraph=True)(p.clone().requires_grad_()).detach(), surrogate(p), units=100)


def test_a_stored_map_is_the_same_bit_for_bit(smooth, tmp_path):
    problem, surrogate = smooth
    p = fresh(problem.family, 100)
    nm.save(surrogate, tmp_path / "map.safetensors")
    assert torch.equal(nm.load(tmp_path / "map.safetensors")(p), surrogate(p))


def test_single_precision_costs_rounding_only(smooth):
    problem, surrogate = smooth
    p, dtype = fresh(problem.family), torch.float32
    expected = surrogate(p)
    maps = [m.with_(core=m.core.to(dtype)) for m in surrogate.maps]
    low = nm.Surrogate(surrogate.operation, surrogate.shape, maps, surrogate.box, surrogate.report)
    assert low(p).dtype == real(dtype)
    assert (low(p) - expected).abs().max() <= 100 * eps(dtype) * expected.abs().max()
