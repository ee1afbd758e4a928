"""The study of rank bounds: each bound against matrices whose inverse is known, each constant against one by hand."""

import math

import numpy as np
import pytest
import torch

import neumatc as nm
from studies import low_rankness, rank_bounds


def pencil(dtype, seed):
    """A regular pencil A0 + x A1 that is not normal."""
    generator = torch.Generator().manual_seed(seed)
    A0, A1 = torch.randn(2, 6, 6, generator=generator, dtype=dtype)
    A0 = A0 + 6 * torch.eye(6, dtype=dtype)
    A1 = 0.8 * A1 / torch.linalg.matrix_norm(A1, 2)
    return nm.ParametricMatrix(lambda p: A0 + p[:, :, None] * A1, -1.0, 1.0, dtype=torch.float64), A0, A1


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_bound_of_terms_holds_at_every_point(dtype, seed, everywhere):
    family, _, _ = pencil(dtype, seed)
    X, x, _, _ = low_rankness.inverses(family, 129)
    bound = rank_bounds.rank_bound(rank_bounds.known(family, x, rank_bounds.affine(0.8)), 1e-4, everywhere=everywhere)
    assert bound.terms <= 100, "129 nodes resolve it"
    # The Chebyshev series, cut off: coefficients by the discrete cosine transform at the nodes.
    T = torch.cos(torch.arange(129) * torch.arccos(x))
    C = (2 / 129) * torch.einsum("nk,nij->kij", T.to(X.dtype), X)
    C[0] /= 2
    cut = torch.einsum("nk,kij->nij", T[:, : bound.terms].to(X.dtype), C[: bound.terms])
    assert torch.linalg.matrix_norm(cut - X).max() <= 1e-4 * torch.linalg.matrix_norm(X).min()


@pytest.mark.parametrize("everywhere", [False, True])
def test_inside_the_ellipse_no_matrix_is_nearly_singular(everywhere):
    family, A0, A1 = pencil(torch.complex128, 2)
    x, _ = nm.sampling.design(129, 1)
    data = rank_bounds.known(family, x, rank_bounds.affine(0.8))
    bound = rank_bounds.rank_bound(data, 1e-4, everywhere=everywhere)
    for part in (0.3, 0.7, 1.0):  # ellipses inside, and the widest
        rho = 1 + part * (bound.rho - 1)
        z = torch.exp(2j * math.pi * torch.arange(90, dtype=torch.float64) / 90)
        z = (rho * z + 1 / (rho * z)) / 2
        least = torch.linalg.svdvals(A0 + z[:, None, None] * A1)[:, -1].min()
        assert least >= (1 - bound.share) * data.smallest.min() * (1 - 1e-6)


def test_values_along_the_interval_find_the_ellipse_of_poles_of_a_normal_pencil():
    x, _ = nm.sampling.design(257, 1)
    for height in (0.3, 0.8):
        data = rank_bounds.known(low_rankness.cyclic(64, height, device="cpu"), x, rank_bounds.affine(1.0))
        found = math.log(rank_bounds.rank_bound(data, 1e-12).rho)
        assert 0.8 * math.asinh(height) < found <= math.asinh(height)


def test_an_ellipse_is_the_union_of_the_discs_inside_of_it():
    height, x = 0.4, np.cos(np.linspace(0, np.pi, 801))
    rho = rank_bounds.widest_ellipse(x, height * np.sqrt(1 - x**2 + 1e-12))
    # Discs around inner points do not reach the two ends: those of the text have centres up to 1 / a only.
    assert rho <= height + math.hypot(1, height)
    inscribed = np.abs(x) <= 1 / math.hypot(1, height)
    radii = np.where(inscribed, height * np.sqrt(np.maximum(1 - x**2, 0)), math.hypot(1, height) - np.abs(x))
    assert rank_bounds.widest_ellipse(x, radii) == pytest.approx(height + math.hypot(1, height), rel=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_discs_cover_the_widest_ellipse_and_no_wider_one(seed):
    generator = np.random.default_rng(seed)
    x, radii = np.sort(generator.uniform(-1, 1, 40)), generator.uniform(0.1, 0.6, 40)
    radii[[0, -1]] = 0.6
    rho = rank_bounds.widest_ellipse(x, radii)
    assert rho > 1.05
    angles = np.linspace(0, np.pi, 20_001)

    def uncovered(rho):
        z = (rho * np.exp(1j * angles) + np.exp(-1j * angles) / rho) / 2
        return int((np.abs(z[:, None] - x) >= radii).all(axis=1).sum())

    assert uncovered(rho) == 0 < uncovered(1 + 1.001 * (rho - 1))


def test_a_turning_family_has_a_geometric_series_of_singular_values():
    share, size = 0.6, 12
    p = torch.arange(240, dtype=torch.float64)[:, None] / 120 - 1  # a period: sums over it are integrals
    X = torch.linalg.inv(rank_bounds.turning(share, size)(p))
    values = torch.linalg.svdvals(X.flatten(1))[:size]
    torch.testing.assert_close(values / values[0], share ** torch.arange(size, dtype=torch.float64))


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_no_map_of_a_turning_family_has_fewer_terms_than_is_proved(share):
    family = rank_bounds.turning(share, math.ceil(math.log(1e-3) / math.log(share)))
    X, x, w, condition = low_rankness.inverses(family, 129)
    least, bound = rank_bounds.fewest_terms(share, 1e-3), rank_bounds.rank_bound
    assert condition == pytest.approx((1 + share) / (1 - share), rel=1e-2)
    assert 0.5 * (condition - 1) * math.log(1 / (1e-3 * math.sqrt(2))) <= least
    assert least <= low_rankness.ranks(X, w)[1] <= low_rankness.terms(low_rankness.polynomial_errors(X, x, w), 1e-3)
    # The growth is 5 s as far as it is used: pi q e^(pi s) is below 5 there.
    assert low_rankness.ranks(X, w)[1] <= bound(rank_bounds.known(family, x, rank_bounds.affine(5.0)), 1e-3).terms


def test_discs_that_leave_a_part_of_the_interval_bare_give_no_ellipse():
    assert rank_bounds.widest_ellipse(np.array([-1.0, 1.0]), np.array([0.5, 0.5])) == pytest.approx(1)
    assert rank_bounds.terms_within(1e-3, 1.0, 5.0) == math.inf


def test_terms_are_the_fewest_that_the_estimate_allows():
    def estimate(r):
        return 2 * 7.0 * 1.3 ** -(r - 1) / 0.3

    terms = rank_bounds.terms_within(1e-5, 1.3, 7.0)
    assert estimate(terms) <= 1e-5 < estimate(terms - 1)


def test_a_wave_grows_off_the_real_line_no_faster_than_its_reach_says():
    speed, frequency = 3.0, 3.0  # cos(3 x)
    for s in (0.1, 0.5, 1.0):
        x, angle = torch.linspace(-3, 3, 301, dtype=torch.float64), torch.linspace(0, 6.2, 60, dtype=torch.float64)
        z = x[:, None] + s * torch.exp(1j * angle)
        moved = float((torch.cos(frequency * z) - torch.cos(frequency * x)[:, None]).abs().max())
        assert rank_bounds.oscillating(speed, frequency)(np.array(moved)) <= s


def test_the_speed_of_a_wave_is_bounded_closely():
    family = nm.ParametricMatrix(lambda p: torch.sin(6 * math.pi * p + 0.1)[:, :, None], 0.0, 1.0, dtype=torch.float64)
    speed = rank_bounds.waves_speed(family, period=1.0, terms=3, count=31)
    assert 6 * math.pi <= speed < 1.06 * 6 * math.pi


@pytest.mark.parametrize("sizes", [(0.4,), (0.3, 0.2), (0.3, 0.1, 0.03)])
def test_the_largest_monomials_leave_less_than_the_tolerance(sizes):
    d, tolerance = len(sizes), 1e-2
    count = rank_bounds.best_monomials(sizes, tolerance)
    # In scalars, all b_j of one sign: 1 / (1 - sum x_j b_j) at x = (1, ..., 1), the worst case of the bound.
    k = np.stack(np.meshgrid(*[np.arange(25)] * d, indexing="ij"), axis=-1).reshape(-1, d)
    k = k[k.sum(axis=1) < 25]
    logs = [
        math.lgamma(row.sum() + 1) + sum(i * math.log(b) - math.lgamma(i + 1) for i, b in zip(row, sizes)) for row in k
    ]
    values = np.sort(np.exp(logs))[::-1]
    whole = 1 / (1 - sum(sizes))
    assert whole - values[:count].sum() <= tolerance / (1 + sum(sizes)) < whole - values[: count - 1].sum()


def test_matrices_of_several_parameters_have_the_sizes_asked_for():
    family = rank_bounds.affine_family((0.3, 0.1), 5, 0, "cpu")
    p = torch.eye(2, dtype=torch.float64)
    sizes = torch.linalg.matrix_norm(family(p) - torch.eye(5, dtype=torch.float64), 2)
    torch.testing.assert_close(sizes, torch.tensor([0.3, 0.1], dtype=torch.float64))


def cut_off(X, x, terms):
    """The Chebyshev series of results at the nodes, by the discrete cosine transform, cut off after some terms."""
    n = len(x)
    T = torch.cos(torch.arange(n) * torch.arccos(x)).to(X.dtype)
    C = (2 / n) * torch.einsum("nk,nij->kij", T, X)
    C[0] /= 2
    return torch.einsum("nk,kij->nij", T[:, :terms], C[:terms])


@pytest.mark.parametrize("terms", [4, 10, 20])
def test_the_bound_for_a_projector_holds(terms):
    x, _ = nm.sampling.design(129, 1)
    A1 = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    A1 = 0.4 * (A1 + A1.mH) / torch.linalg.matrix_norm(A1 + A1.mH, 2)
    A0 = torch.diag(torch.tensor([-1, -0.6, 0, 2.4, 3], dtype=torch.complex128))
    values, V = torch.linalg.eigh(A0 + x[:, :, None] * A1)
    P = V[:, :, 3:] @ V[:, :, 3:].mH
    gap, wide = float((values[:, 3] - values[:, 2]).min()), float((values[:, 4] - values[:, 3]).max())
    points = np.sort(x[:, 0].numpy())
    rho = rank_bounds.widest_ellipse(points, np.full(129, 0.5 * gap / 2 / 0.4))
    length = 2 * wide + math.pi * gap
    bound = 2 * length / (math.pi * gap * 0.5) * rho ** -(terms - 1) / (rho - 1)
    error = torch.linalg.matrix_norm(cut_off(P, x, terms) - P).max() / math.sqrt(2)
    assert error <= bound + 1e-13


@pytest.mark.parametrize("terms", [4, 10, 20])
def test_the_bound_for_an_equaliser_holds(terms):
    noise, n = 0.5, 4
    x, _ = nm.sampling.design(129, 1)
    H0, H1 = torch.randn(2, 6, n, generator=torch.Generator().manual_seed(1), dtype=torch.complex128)
    H1 = 0.3 * H1 / torch.linalg.matrix_norm(H1, 2)
    H = H0 + x[:, :, None] * H1
    G = H.mH @ H + noise * torch.eye(n)
    X = torch.linalg.solve(G, H.mH)
    least, K = (float(f(torch.linalg.matrix_norm(G, which))) for f, which in ((torch.min, -2), (torch.max, 2)))
    most = float(torch.linalg.matrix_norm(H, 2).max())
    # G moves by at most 0.3 s (2 max ||H|| + 0.3 s); half of the least singular value may be used up.
    s = (math.sqrt(most**2 + least / 2) - most) / 0.3
    rho = rank_bounds.widest_ellipse(np.sort(x[:, 0].numpy()), np.full(129, s))
    M = math.sqrt(n) * 2 / least * (most + 0.3 * s)
    bound = 2 * M * rho ** -(terms - 1) / (rho - 1)
    assert torch.linalg.matrix_norm(cut_off(X, x, terms) - X).max() <= bound + 1e-13
    assert (torch.linalg.matrix_norm(X) >= torch.linalg.matrix_norm(H) / K).all()


def test_stretching_ends_at_rounding_only_with_many_nodes_for_an_oscillation():
    n, x = 64, np.linspace(-1, 1, 2001)
    stretch = nm.sampling.widest_stretch(n, 4 * torch.finfo(torch.float32).eps)
    at = np.cos((np.arange(n) + 0.5) * np.pi / n)
    basis = rank_bounds.cardinal(at, np.sin(x * np.arcsin(stretch)) / stretch)

    def error(nodes):
        wave = 2 * math.pi * n / nodes / 2  # so many nodes for each oscillation across the box
        return np.abs(
            basis @ np.cos(wave * np.arcsin(stretch * at) / np.arcsin(stretch) + 0.3) - np.cos(wave * x + 0.3)
        ).max()

    few, many = error(3.2), error(6.0)
    assert many < 4 * torch.finfo(torch.float32).eps < few / 10


def test_lebesgue_constants_by_hand():
    assert rank_bounds.lebesgue(np.array([-1.0, 1.0]))[0] == pytest.approx(1)
    assert rank_bounds.lebesgue(np.array([-1.0, 0.0, 1.0]))[0] == pytest.approx(1.25, rel=1e-5)


@pytest.mark.parametrize("n", [9, 33])
def test_lagrange_polynomials_reproduce_a_polynomial(n):
    at = rank_bounds.NODES["extrema (Lobatto)"](n)
    x = np.append(np.linspace(-1, 1, 40), at)
    np.testing.assert_allclose(rank_bounds.cardinal(at, x) @ at**7, x**7, atol=1e-13)


def test_nodes_of_pieces_are_nested():
    few, more = (rank_bounds.grown(n) for n in (9, 17))
    assert set(few) < set(more)
    assert (len(few), len(more)) == (9, 17)


@pytest.mark.parametrize("count", rank_bounds.BETWEEN)
def test_numbers_of_nodes_between_are_grown_from_nine_at_once(count):
    assert len(rank_bounds.grown(count)) == count
    assert set(rank_bounds.grown(9)) < set(rank_bounds.grown(count))


def test_nodes_of_pieces_are_those_of_their_polynomials():
    """Between the first and the last node of a piece lies all of it, and none comes twice."""
    fitted = nm.fit(nm.Problem(nm.families.trigonometric(size=8, shift=3.0), nm.Inverse()), tol=1e-3, progress=False)
    found = rank_bounds.of_pieces(fitted)
    assert len(found) == len(fitted.pieces) and max(map(len, found)) == fitted.rank
    for nodes in found:
        assert (min(nodes), max(nodes)) == pytest.approx((-1, 1))
        assert len(set(nodes)) == len(nodes)


def test_quadrature_of_two_nodes_by_hand():
    # Nodes +-1 / sqrt 2 of weight 1/2: a^2 + b^2 / 2 for a + b x, whose mean square is a^2 + b^2 / 3.
    assert rank_bounds.quadrature_factors(2) == pytest.approx((2 / 3, 1))


def test_inexact_inverses_differ_by_their_error():
    A, E = 2 * torch.eye(3, dtype=torch.float64).repeat(2, 1, 1), torch.full((3, 3), 0.1, dtype=torch.float64)
    (X,), _ = rank_bounds.Inexact(E, torch.tensor([1.0, -1.0])).exact(A)
    torch.testing.assert_close(X, torch.linalg.inv(A) + torch.stack([E, -E]))
