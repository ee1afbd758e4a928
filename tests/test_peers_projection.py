"""Projection onto the span of exact solutions: least residuals, Galerkin, Rayleigh-Ritz, against dense oracles."""

import pytest
import torch
from conftest import assert_close, assert_raises, conditioned, eps, gaussian, generator, real

import neumatc as nm
from neumatc import peers


def uniform(family, count, seed=0):
    return family.box.uniform(count, generator(seed))


def affine(dtype, size=12, terms=3, d=2, definite=False, device="cpu"):
    """A(p) = D + p_1 A_1 + sin(p_2) A_2 ..., of condition about 10."""
    A = conditioned(terms, size, size, dtype, condition=10.0).to(device) / terms
    A = A @ A.mH if definite else A
    start = torch.diag(torch.linspace(1, 3, size)).to(A)

    def fn(p):
        weights = torch.stack([torch.sin((k + 1) * p[:, k % d]) for k in range(terms)], dim=1)
        return start + torch.einsum("bk,kij->bij", weights.to(A.dtype), A)

    return nm.ParametricMatrix(fn, [0.0] * d, [1.0] * d, dtype=real(dtype), device=device)


def not_affine(dtype=torch.float64, size=30):
    """Waves of many frequencies in each entry: more terms than there are training matrices."""
    x = torch.rand(size, dtype=torch.float64, generator=generator())
    squares = (x[:, None] - x) ** 2

    def fn(p):
        waves = torch.cos(90 * p[:, :1, None] * squares) * torch.cos(80 * p[:, 1:, None] * squares.sqrt())
        return (waves + 20 * torch.eye(size, dtype=torch.float64)).to(dtype)

    return nm.ParametricMatrix(fn, [0.0, 0.0], [1.0, 1.0], dtype=real(dtype))


def solving(family, columns=1):
    n = family.shape[0]
    right = gaussian(n, columns, dtype=family.dtype, seed=5).to(family.device)
    return nm.Problem(nm.families.beside(family, right), nm.Solve(columns=columns))


def thermal_block(source, side=12):
    """Diffusion on the unit square, with a diffusivity in [0.1, 1] for each quarter of it (five-point stencil)."""
    h, n = 1 / (side + 1), side * side
    A = torch.zeros(4, n, n, dtype=torch.float64)
    for i in range(side):
        for j in range(side):
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                x, y = (i + 1 + dx / 2) * h, (j + 1 + dy / 2) * h
                quarter, row = 2 * (x > 0.5) + (y > 0.5), i * side + j
                A[quarter, row, row] += 1 / h**2
                if 0 <= i + dx < side and 0 <= j + dy < side:
                    A[quarter, row, row + dx * side + dy] -= 1 / h**2
    family = nm.ParametricMatrix(lambda p: torch.einsum("bk,kij->bij", p, A), [0.1] * 4, [1.0] * 4, dtype=A.dtype)
    right = torch.ones(n, 1, dtype=A.dtype) if source == "constant" else gaussian(n, 1, dtype=A.dtype)
    return nm.Problem(nm.families.beside(family, right), nm.Solve())


# The projection of the identity


def test_projection_is_exact_where_the_inverse_lies_in_the_span(dtype):
    """The inverse is a sum of three fixed matrices; no interpolation of three nodes could meet its coefficients."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    C = gaussian(3, 8, 8, dtype=wide) / 10
    C[0] += 2 * torch.eye(8, dtype=wide)

    def fn(p):
        weights = torch.cat([torch.ones_like(p[:, :1]), torch.sin(20 * p[:, :1]), torch.cos(31 * p[:, 1:])], dim=1)
        return torch.einsum("bk,kij->bij", weights.to(wide), C)

    def family(p):
        return nm.linalg.inverse(fn(p.double()))[0].to(dtype)

    problem = nm.Problem(nm.ParametricMatrix(family, [0.0] * 2, [1.0] * 2, dtype=real(dtype)), nm.Inverse())
    peer = nm.peers.residual_projection(problem, 3, sketch=2)
    assert peer.terms == 3
    p = uniform(problem.family, 50)
    assert_close(peer(p), problem.exact(p).value, units=1000)


def test_projection_minimises_the_residual(dtype, monkeypatch):
    """With no sketch it is the least residual over the span of the exact inverses, in one piece or in several."""
    problem = nm.Problem(nm.families.trigonometric(size=5, terms=3, shift=3.0, dtype=dtype), nm.Inverse())
    peer = nm.peers.residual_projection(problem, 4, sketch=5)
    p = uniform(problem.family, 3)
    X, A = peer(uniform(problem.family, 4, seed=9)), problem.family(p)  # four of the span
    for a, value in zip(A, peer(p)):
        columns = (a @ X).flatten(1).mT
        best = torch.linalg.lstsq(columns, torch.eye(5, dtype=dtype).flatten()[:, None]).solution
        assert_close(value, (best * X.flatten(1)).sum(dim=0).view(5, 5), units=2000)
    whole = peer(p)
    monkeypatch.setattr("neumatc.peers.projection._WORKING_BYTES", 1)
    assert_close(nm.peers.residual_projection(problem, 4, sketch=5)(p), whole, units=500)


# Linear equations


@pytest.mark.parametrize("definite", [True, False], ids=["Galerkin", "least residual"])
@pytest.mark.parametrize("operation", ["Solve", "Inverse"])
def test_reduced_basis_of_linear_equations(operation, definite, dtype, device):
    family = affine(dtype, definite=definite, device=device)
    problem = solving(family, 2) if operation == "Solve" else nm.Problem(family, nm.Inverse())
    peer, p = peers.reduced_basis(problem, 30, training=64), uniform(family, 40)
    X = peer(p)
    assert (X.dtype, X.device) == (dtype, family.device)
    # The inverses span more than thirty solutions do.
    error = float(problem.error(p, X).max())
    assert error < (1e4 * eps(dtype) if operation == "Solve" else max(1e-6, 1e4 * eps(dtype)))
    assert peer.details["projection"] == ("Galerkin" if definite else "least residual")
    assert peer.exact_solves <= 30 and peer.terms <= 2 * peer.exact_solves


@pytest.mark.parametrize("definite", [True, False])
def test_the_solution_is_the_best_of_the_span(definite, dtype):
    """Least residual, or least energy of the error, over the span of the exact solutions that it has taken."""
    problem = solving(affine(dtype, definite=definite))
    peer = peers.reduced_basis(problem, 4)
    family, p = problem.family, uniform(problem.family, 5)
    V = torch.linalg.qr(peer(uniform(family, 50, seed=3))[:, :, 0].T.to(torch.complex128))[0][:, :4]
    for joint, X in zip(family(p).to(V.dtype), peer(p)):
        A, b = joint[:, :-1], joint[:, -1:]
        best = torch.linalg.solve(V.mH @ A @ V, V.mH @ b) if definite else torch.linalg.lstsq(A @ V, b).solution
        assert_close(X.to(V.dtype), V @ best, units=1e5 * eps(dtype) / eps(V.dtype))


def test_the_cost_of_the_affine_form_is_that_of_its_terms(dtype):
    """Three terms and a constant, which the right-hand side shares, found from the family alone."""
    problem = solving(affine(dtype, terms=3))
    peer = peers.reduced_basis(problem, 5)
    assert peer.details["affine_terms"] == 4
    assert peer.details["affine_error"] < 100 * eps(dtype)


def test_a_family_that_is_not_affine_is_projected_itself():
    family = not_affine()
    problem, p = solving(family), uniform(family, 30)
    peer = peers.reduced_basis(problem, 32)
    assert peer.details["affine_terms"] is None
    assert float(problem.error(p, peer(p)).max()) < 1e-10
    words = ["`problem`", "affine", "`residual_projection`"]
    assert_raises(ValueError, words, lambda: peers.reduced_basis(nm.Problem(family, nm.Inverse()), 4))
    assert_raises(ValueError, words, lambda: peers.reduced_basis(problem, 4, tangents=True))


def test_an_evaluation_in_pieces_is_the_same(monkeypatch):
    problem = solving(affine(torch.float64))
    peer, p = peers.reduced_basis(problem, 6), uniform(problem.family, 20)
    whole = peer(p)
    monkeypatch.setattr("neumatc.peers.projection._WORKING_BYTES", 1)
    assert_close(peer(p), whole, units=100)


def test_a_tolerance_stops_it_and_more_solutions_of_the_same_span_too():
    problem = solving(affine(torch.float64))
    early = peers.reduced_basis(problem, 40, tol=1e-2)
    assert early.details["residual"] <= 1e-2
    late = peers.reduced_basis(problem, 40)
    assert early.exact_solves < late.exact_solves <= late.terms + 1 <= 13  # twelve unknowns


@pytest.mark.parametrize("source", ["constant", "random"])
def test_thermal_block(source):
    """No span of 20 vectors has less than 2e-5 and 2e-4; derivatives of eight solutions make it complete."""
    problem = thermal_block(source)
    p = uniform(problem.family, 300, seed=3)
    X = problem.exact(p).value
    plain, tangents = (peers.reduced_basis(problem, 20, tangents=t) for t in (False, True))
    assert (plain.exact_solves, plain.terms) == (20, 20)
    assert tangents.exact_solves <= 20
    worst = [
        float((torch.linalg.vector_norm(peer(p) - X, dim=1) / torch.linalg.vector_norm(X, dim=1)).max())
        for peer in (plain, tangents)
    ]
    assert worst[0] < {"constant": 2e-4, "random": 2e-3}[source]
    assert worst[1] < 1e-10


# Rayleigh-Ritz


def oscillators(dtype=torch.float64, size=40):
    """A chain of which one part is stiffened by p, turned so that the lowest modes are the largest eigenvalues."""
    chain = 2 * torch.eye(size) - torch.diag(torch.ones(size - 1), 1) - torch.diag(torch.ones(size - 1), -1)
    bump = torch.diag(torch.exp(-(((torch.arange(size) / size - 0.3) / 0.1) ** 2)))
    turn = torch.linalg.qr(gaussian(size, size, dtype=dtype)).Q
    top, chain, bump = (turn @ A.to(dtype) @ turn.mH for A in (5 * torch.eye(size), chain, bump))
    top, chain, bump = ((A + A.mH) / 2 for A in (top, chain, bump))
    return nm.ParametricMatrix(lambda p: top - chain - p[:, :, None].to(dtype) * bump, [0.0], [1.0], dtype=real(dtype))


@pytest.mark.parametrize("operation", [nm.Eigh(rank=4), nm.SVD(rank=4)], ids=["Eigh", "SVD"])
def test_eight_exact_eigenproblems_give_all_others(operation, dtype):
    problem = nm.Problem(oscillators(dtype), operation)
    peer, p = peers.reduced_basis(problem, 8, training=32), uniform(problem.family, 50)
    found, exact = peer(p), problem.exact(p).value
    assert type(found) is type(exact)
    assert [x.dtype for x in found] == [x.dtype for x in exact]
    assert peer.exact_solves <= 8
    single = real(dtype) == torch.float32
    place = 0 if isinstance(operation, nm.Eigh) else 1
    assert float(((found[place] - exact[place]).abs() / exact[place].abs()).max()) < (1e-5 if single else 1e-10)
    assert float(problem.residual(p, found).max()) < (1e-4 if single else 1e-8)
    assert float(problem.error(p, found).max()) < (1e-4 if single else 1e-8)


@pytest.mark.parametrize(("which", "chosen"), [("lowest", slice(0, 3)), ("highest", slice(37, 40))])
def test_the_operation_chooses_the_end_of_the_spectrum(which, chosen):
    problem = nm.Problem(oscillators(), nm.Eigh(rank=3, which=which))
    p = uniform(problem.family, 20)
    expected = torch.linalg.eigvalsh(problem.family(p))[:, chosen]
    assert_close(peers.reduced_basis(problem, 8)(p).eigenvalues, expected, units=1e5)


@pytest.mark.parametrize("which", ["lowest", "largest"])
def test_pairs_are_projected_both(which):
    family = oscillators()
    mass = conditioned(1, 40, 40, torch.float64, 2.0)[0]
    problem = nm.Problem(family, nm.Eigh(rank=3, which=which, B=mass @ mass.mT))
    p = uniform(problem.family, 20)
    peer, exact = peers.reduced_basis(problem, 10), problem.exact(p).value
    assert peer.details["affine_terms"] == 2
    assert float(((peer(p).eigenvalues - exact.eigenvalues) / exact.eigenvalues).abs().max()) < 1e-8
    assert float(problem.error(p, peer(p)).max()) < 1e-4


@pytest.mark.parametrize("chosen", [{"which": "smallest"}, {"near": 2.5}], ids=str)
def test_values_from_within_the_spectrum_are_refused(chosen):
    problem = nm.Problem(oscillators(), nm.Eigh(rank=3, **chosen))
    words = ["`problem`", "end of the spectrum", "which='lowest'", "nm.fit"]
    assert_raises(ValueError, words, lambda: peers.reduced_basis(problem, 8))


def test_singular_triplets_of_a_rectangular_family(dtype):
    square = affine(dtype, size=9)
    family = nm.ParametricMatrix(lambda p: square(p)[:, :, :6], square.lower, square.upper)
    problem = nm.Problem(family, nm.SVD(rank=2))
    p = uniform(family, 20)
    assert float(problem.error(p, peers.reduced_basis(problem, 12)(p)).max()) < 1e5 * eps(dtype)


def test_other_operations_are_refused():
    problem = nm.Problem(affine(torch.float64), nm.QR())
    words = ["`problem`", "nm.Solve, Inverse, Eigh or SVD", "QR()", "`chebyshev`"]
    assert_raises(ValueError, words, lambda: peers.reduced_basis(problem, 4))
