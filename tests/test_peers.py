"""Approximations among the peers: what each reproduces exactly, its budget, its dtype, and what it refuses."""

import math

import numpy as np
import pytest
import torch
from conftest import assert_close, assert_raises, eps, gaussian, generator, parameters, real
from scipy.interpolate import AAA, CubicSpline, RBFInterpolator

import neumatc as nm
from neumatc import peers
from studies import benchmark, interpolants

# name -> (builder, dimensions)
APPROXIMATIONS = {
    "chebyshev": (lambda problem, budget: peers.chebyshev(problem, budget), (1, 2, 3)),
    "linear": (lambda problem, budget: peers.spline(problem, budget, degree=1), (1,)),
    "spline": (lambda problem, budget: peers.spline(problem, budget), (1,)),
    "pod_spline": (lambda problem, budget: interpolants.pod_spline(problem, budget, rank=budget), (1,)),
    "pod_regression": (lambda problem, budget: interpolants.pod_regression(problem, budget, rank=budget), (2,)),
    "rbf": (lambda problem, budget: interpolants.rbf(problem, budget), (1, 3)),
    "residual_projection": (lambda problem, budget: nm.peers.residual_projection(problem, budget), (1, 3)),
    "reduced_basis": (
        lambda problem, budget: peers.reduced_basis(problem, budget, training=max(128, budget)),
        (2,),
    ),
    "piecewise_chebyshev": (
        lambda problem, budget: nm.peers.piecewise_chebyshev(problem, 1e-5, budget=max(9, budget)),
        (1,),
    ),
    "aaa": (lambda problem, budget: peers.aaa(problem, budget), (1,)),
}
KERNELS = {"linear": 0, "thin_plate_spline": 1, "cubic": 1, "quintic": 2, "multiquadric": 0}
CASES = [(name, d) for name, (_, dimensions) in APPROXIMATIONS.items() for d in dimensions]
each_case = pytest.mark.parametrize(("name", "d"), CASES, ids=lambda value: str(value))


class Counting(nm.Problem):
    """A problem that counts and keeps its exact solves, and lets those fail that ``fails(p)`` names."""

    def __init__(self, family, fails=None):
        super().__init__(family, nm.Inverse())
        self.solves, self.p, self.fails = 0, [], fails

    def exact(self, p):
        self.solves += len(p)
        self.p.append(p)
        value, failed = super().exact(p)
        if self.fails is not None:
            failed = failed | self.fails(p)
            value[failed] = torch.nan
        return nm.Solution(value, failed)


def smooth(d=1, dtype=torch.float64, device="cpu", size=6):
    """A gently varying family, condition below three."""
    return nm.families.trigonometric(size=size, terms=2, shift=3.0, dimension=d, cycles=0.3, dtype=dtype, device=device)


def inverse_of(fn, d=1, dtype=torch.float64, lower=0.0, upper=1.0):
    """The problem whose exact inverse is fn(p), (B, d) -> (B, n, n)."""

    def family(p):
        return nm.linalg.inverse(fn(p.double()))[0].to(dtype)

    return nm.Problem(nm.ParametricMatrix(family, [lower] * d, [upper] * d, dtype=real(dtype)), nm.Inverse())


def uniform(family, count, seed=0):
    return family.box.uniform(count, generator(seed))


def rounding(name):
    """SciPy's systems for quintic radial functions are ill-conditioned: no better in double precision."""
    return 1e-9 if name in ("rbf", "pod_regression") else 0.0


@each_case
def test_accuracy_dtype_and_budget(name, d, dtype, device):
    problem, budget = Counting(smooth(d, dtype, device)), {1: 14, 2: 50, 3: 130}[d]
    peer = APPROXIMATIONS[name][0](problem, budget)
    assert problem.solves == peer.exact_solves <= budget
    assert 1 <= peer.terms <= peer.exact_solves
    assert peer.seconds > 0
    p = uniform(problem.family, 40)
    X = peer(p)
    assert problem.solves == peer.exact_solves, "evaluation must not solve"
    assert X.shape == (40, 6, 6) and (X.dtype, X.device) == (dtype, problem.family.device)
    error = benchmark.relative_error(X, problem.exact(p).value)
    limit = {"linear": 5e-3, "spline": 2e-4, "pod_spline": 2e-4}.get(name, {1: 1e-4, 2: 1e-3, 3: 2e-3}[d])
    assert error < limit
    # A single parameter, and either precision of it, give the same.
    assert_close(peer(p[:1]), X[:1], units=max(200, rounding(name) / eps(dtype)))
    assert peer(p.double()).dtype == peer(p.float()).dtype == dtype


@each_case
def test_the_nodes_are_reproduced(name, d, dtype):
    problem = Counting(smooth(d, dtype))
    peer = APPROXIMATIONS[name][0](problem, {1: 10, 2: 30, 3: 64}[d])
    p = torch.cat(problem.p)
    X, exact = peer(p), problem.exact(p).value
    if name == "aaa":
        assert float((X - exact).abs().max()) <= 2 * peer.details["sample_error"] * float(
            exact.norm(dim=(1, 2)).max()
        ) + (200 * eps(dtype))
        assert int(((X - exact).abs().amax(dim=(1, 2)) == 0).sum()) == peer.terms
    else:
        assert_close(X, exact, units=max(2000, rounding(name) / eps(dtype)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "d"), [case for case in CASES if not case[0].endswith("chebyshev")])
def test_failed_solves_are_left_out(name, d):
    # The greedy choice asks for more and more points where solves fail, so the region is small for it.
    corner = 0.02 ** (1 / d) if name == "reduced_basis" else 0.11

    def fails(p):
        return (p < corner).all(dim=1)

    problem = Counting(smooth(d), fails=fails)
    peer = APPROXIMATIONS[name][0](problem, {1: 30, 2: 60, 3: 300}[d])
    assert fails(torch.cat(problem.p)).any(), "the test must see a failure"
    assert peer.exact_solves == problem.solves
    q = 0.3 + 0.7 * uniform(problem.family, 30)
    error = benchmark.relative_error(peer(q), nm.Problem(problem.family, nm.Inverse()).exact(q).value)
    assert error < (1e-2 if name == "linear" else 2e-3)
    hopeless = Counting(smooth(d), fails=lambda p: torch.ones(len(p), dtype=torch.bool))
    words = ["`problem`", "at least", "exact solutions, got 0", "restrict the box"]
    assert_raises(ValueError, words, lambda: APPROXIMATIONS[name][0](hopeless, 64))


@pytest.mark.parametrize(("d", "budget", "m"), [(1, 5, 5), (1, 1, 1), (2, 35, 5), (2, 25, 5), (3, 64, 4), (3, 124, 4)])
def test_chebyshev_reproduces_polynomials(d, budget, m):
    powers = torch.cartesian_prod(*[torch.arange(m)] * d).view(-1, d)
    C = 0.3 * gaussian(len(powers), 3, 3, dtype=torch.float64) / len(powers)

    def fn(p):
        monomials = (p[:, None, :] ** powers).prod(dim=2)
        return torch.einsum("bk,kij->bij", monomials, C) + 2 * torch.eye(3, dtype=torch.float64)

    problem = inverse_of(fn, d)
    peer = peers.chebyshev(problem, budget)
    assert (peer.terms, peer.exact_solves) == (m**d, m**d)
    p = uniform(problem.family, 20)
    assert_close(peer(p), fn(p.double()), units=2000)
    beyond = torch.full((1, d), 1.05, dtype=torch.float64)
    assert_close(peer(beyond, extrapolate=True), fn(beyond), units=1e5)


@pytest.mark.parametrize("build", [peers.chebyshev, peers.spline])
def test_a_logarithmic_axis_is_that_of_the_interpolation(build):
    def family(p):
        return torch.eye(2, dtype=torch.float64) / (2 + p[:, :, None].log() ** 2 / 100)

    problem = nm.Problem(nm.ParametricMatrix(family, 1e-6, 1e2, scale="log", dtype=torch.float64), nm.Inverse())
    p = torch.logspace(-6, 2, 60, dtype=torch.float64)[:, None]
    assert_close(build(problem, 6)(p), problem.exact(p).value, units=1e4)


def test_a_stretched_grid_is_exact_for_stretched_polynomials_and_better_for_oscillations():
    def stretched(p):
        y = torch.sin((2 * p - 1) * math.asin(0.9)) / 0.9
        return (3 + y[:, :1] ** 3 + y[:, 1:] ** 2 * y[:, :1])[:, :, None] * torch.eye(2, dtype=torch.float64)

    def waves(p):
        return (3 + torch.cos(20 * p.sum(dim=1)))[:, None, None] * torch.eye(2, dtype=torch.float64)

    problem = inverse_of(stretched, 2)
    p = uniform(problem.family, 20)
    assert_close(peers.chebyshev(problem, 16, stretch=0.9)(p), stretched(p.double()), units=2000)
    plain, better = (
        benchmark.relative_error(peers.chebyshev(inverse_of(waves, 2), 144, stretch=a)(p), waves(p.double()))
        for a in (0.0, 0.9)
    )
    assert better < 0.5 * plain


def test_a_parameter_in_which_a_family_is_smooth_needs_few_nodes_and_a_small_scale():
    def fn(p):
        return (3 + torch.cos(20 * p[:, 0]) * (1 + 0.1 * p[:, 1]))[:, None, None] * torch.eye(2, dtype=torch.float64)

    problem, options = inverse_of(fn, 2), {"kernel": "multiquadric"}
    p = uniform(problem.family, 50)
    grid = peers.chebyshev(problem, 64, stretch=(0.9, 0), sides=(32, 2))
    assert (grid.terms, grid.exact_solves) == (64, 64)
    assert benchmark.relative_error(grid(p), fn(p.double())) < 1e-5  # linear in the second parameter
    square, equal, scaled = (
        benchmark.relative_error(peer(p), fn(p.double()))
        for peer in (
            peers.chebyshev(problem, 64),
            interpolants.rbf(problem, 64, **options),
            interpolants.rbf(problem, 64, scales=(1, 0.05), **options),
        )
    )
    assert square > 1e-2
    assert scaled < 0.3 * equal


@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize("rank", [None, 5])
def test_radial_functions_reproduce_their_polynomials(kernel, rank):
    degree = KERNELS[kernel]

    def fn(p):
        q = p.sum(dim=1)[:, None, None] ** degree
        return 2 * torch.eye(3, dtype=torch.float64) + q * gaussian(3, 3, dtype=torch.float64) / 10

    problem = inverse_of(fn, 2)
    options = {"kernel": kernel, "seed": 3}
    peer = (
        interpolants.rbf(problem, 20, **options)
        if rank is None
        else interpolants.pod_regression(problem, 20, rank, **options)
    )
    assert peer.terms == (rank or (9 if kernel == "multiquadric" else 20))  # a matrix has nine numbers
    p = uniform(problem.family, 30)
    assert_close(peer(p), fn(p.double()), units=1e5)


def test_the_shape_parameter_is_that_of_least_error_at_points_left_out():
    problem = Counting(smooth(2))
    peer = interpolants.rbf(problem, 24, kernel="multiquadric")
    x, X = problem.p[0].double().numpy(), problem.exact(problem.p[0]).value.flatten(1).numpy()
    errors = {}
    for shape in 2 ** torch.arange(-1, 4, 0.5, dtype=torch.float64):
        squares = [
            np.square(
                RBFInterpolator(
                    np.delete(x, i, axis=0), np.delete(X, i, axis=0), kernel="multiquadric", epsilon=float(shape)
                )(x[i : i + 1])
                - X[i]
            ).sum()
            for i in range(len(x))
        ]
        errors[float(shape)] = sum(squares)
    assert errors[min(errors, key=lambda shape: abs(shape - peer.details["shape"]))] <= 1.1 * min(
        errors.values()
    )  # judged on random combinations
    same = interpolants.pod_regression(problem, 24, 24, kernel="multiquadric")
    p = uniform(problem.family, 20)
    assert_close(same(p), peer(p), units=1e4)


def test_splines_are_those_of_scipy_and_reproduce_cubics(dtype):
    problem = nm.Problem(smooth(dtype=dtype), nm.Inverse())
    nodes, p = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None], uniform(problem.family, 40)
    X = problem.exact(nodes).value
    expected = torch.from_numpy(CubicSpline(nodes[:, 0], X)(p[:, 0].double()))
    assert_close(peers.spline(problem, 9)(p), expected.to(dtype), units=50)
    assert_close(interpolants.pod_spline(problem, 9, rank=20)(p), expected.to(dtype), units=200)
    i = (8 * p[:, 0].double()).long()
    weight = (8 * p[:, :, None].double() - i[:, None, None]).to(real(dtype))
    assert_close(peers.spline(problem, 9, degree=1)(p), torch.lerp(X[i], X[i + 1], weight.to(dtype)), units=50)
    held = (9 * p[:, 0].double()).long()
    counting = Counting(problem.family)
    assert_close(peers.spline(counting, 9, degree=0)(p), problem.exact(counting.p[0]).value[held], units=0)
    assert_close(counting.p[0], (torch.arange(9, dtype=real(dtype))[:, None] + 0.5) / 9, units=1)
    cubic = inverse_of(lambda p: (2 + p[:, :, None] ** 3 - p[:, :, None]) * torch.eye(2, dtype=torch.float64))
    q = uniform(cubic.family, 30)
    assert_close(peers.spline(cubic, 5)(q), cubic.exact(q).value, units=200)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_splines_solve_on_the_grid_only(degree):
    problem, grid = Counting(smooth()), torch.linspace(0, 1, 24, dtype=torch.float64)[:, None]
    peer = peers.spline(problem, 9, degree, grid)
    assert (problem.p[0] == grid.mT).any(dim=1).all()
    assert peer.terms == 9
    assert_close(peer(problem.p[0]), problem.exact(problem.p[0]).value, units=50)
    assert peers.spline(smooth_problem := Counting(smooth()), 30, degree, grid).terms == smooth_problem.solves == 24


def test_pod_truncation_is_that_of_the_snapshots(dtype):
    """At the nodes the truncated interpolant is the best approximation of rank r of the snapshots."""
    for problem, build in (
        (Counting(smooth(1, dtype)), interpolants.pod_spline),
        (Counting(smooth(2, dtype)), interpolants.pod_regression),
    ):
        peer = build(problem, 20, 3)
        assert peer.terms == 3
        p = problem.p[0]
        X = problem.exact(p).value
        assert_close(peer(p), benchmark.best_of_rank(X, 3), units=2000)


def rational(p):
    """Poles at 0.5 +- 0.2j and 1.5, numerators of degree at most 3: type (3, 3), four support points."""
    q = p[:, :, None]
    numerator = sum(q**k * C for k, C in enumerate(gaussian(3, 3, 3, dtype=torch.float64) / 10))
    return numerator / (((q - 0.5) ** 2 + 0.04) * (q - 1.5)) + 2 * torch.eye(3, dtype=torch.float64)


def test_aaa_reproduces_rational_functions_and_finds_their_poles():
    problem = inverse_of(rational)
    peer = peers.aaa(problem, 15)
    assert peer.terms == 4
    p = torch.cat([uniform(problem.family, 50).double(), torch.linspace(0, 1, 15, dtype=torch.float64)[:, None]])
    assert_close(peer(p), rational(p), units=1e6)
    expected = np.array([0.5 - 0.2j, 1.5, 0.5 + 0.2j])
    np.testing.assert_allclose(sorted(peer.details["poles"], key=lambda z: z.imag), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:AAA failed to converge")
@pytest.mark.parametrize("terms", [3, 6, 9])
def test_aaa_of_a_scalar_is_that_of_scipy(terms):
    def fn(p):
        return (2 + torch.exp(torch.sin(p)))[:, :, None]

    problem = inverse_of(fn, lower=-1.0, upper=3.0)
    x = torch.linspace(-1, 3, 40, dtype=torch.float64)
    theirs = AAA(x.numpy(), fn(x[:, None])[:, 0, 0].numpy(), max_terms=terms, rtol=0, clean_up=False)
    peer = peers.aaa(problem, 40, terms=terms, rtol=0)
    p = uniform(problem.family, 60)
    assert peer.terms == terms == len(theirs.support_points)
    assert_close(peer(p)[:, 0, 0], torch.from_numpy(theirs(p[:, 0].double().numpy())), units=1e6)


def resolvent(lower, upper, *, shifts, scale="linear"):
    """The inverse of diag(p - shifts): poles of residue one in the shifts."""
    shifts = torch.as_tensor(shifts)

    def family(p):
        return torch.diag_embed(p - shifts)

    return nm.Problem(nm.ParametricMatrix(family, lower, upper, scale=scale, dtype=torch.float64), nm.Inverse())


def test_aaa_of_a_logarithmic_axis_is_rational_in_the_parameter():
    """Six decades with a pole beyond each: type (6, 7), exact in p from eight samples on, and in no way in log p."""
    shifts = -np.logspace(-4, 2, 7)
    problem = resolvent(1e-4, 1e2, shifts=shifts, scale="log")
    peer = peers.aaa(problem, 17)
    assert peer.terms == 8
    p = torch.logspace(-4, 2, 97, dtype=torch.float64)[:, None]
    exact = problem.exact(p).value
    # What the weights do at the small end, the samples at the large one see by 1e-6 only.
    assert benchmark.relative_error(peer(p), exact) < 1e6 * 1e3 * eps(torch.float64)
    found = np.sort(peer.details["poles"].real)
    np.testing.assert_allclose(found[:4], np.sort(shifts)[:4], rtol=1e-3)


def test_aaa_of_complex_results_has_poles_on_one_side():
    """Four damped poles in the lower half plane: five support points, where a real denominator has their images too."""
    shifts = [0.1 - 0.05j, 0.4 - 0.02j, 0.6 - 0.03j, 0.9 - 0.04j]
    problem = resolvent(0.0, 1.0, shifts=shifts)
    peer = peers.aaa(problem, 11)
    assert peer.terms == 5
    p = uniform(problem.family, 50)
    assert_close(peer(p), problem.exact(p).value, units=1e6)
    np.testing.assert_allclose(np.sort_complex(peer.details["poles"]), np.sort_complex(shifts), atol=1e-8)


def test_aaa_of_hermitian_results_has_real_weights():
    """Their poles come in conjugate pairs, so a real denominator has no others, and the result stays Hermitian."""
    shift = torch.tensor([[0.5, 0.3j], [-0.3j, 0.2]], dtype=torch.complex128)

    def family(p):
        return torch.eye(2, dtype=torch.complex128) * (p[:, :, None] ** 2 + 0.1) + shift * p[:, :, None] / 4

    problem = nm.Problem(nm.ParametricMatrix(family, 0.0, 1.0, dtype=torch.float64), nm.Inverse())
    peer = peers.aaa(problem, 20)
    p = uniform(problem.family, 40)
    X = peer(p)
    assert_close(X, problem.exact(p).value, units=1e6)
    assert_close(X, X.mH)
    poles = sorted(peer.details["poles"], key=lambda z: z.imag)
    np.testing.assert_allclose(poles, np.conj(poles[::-1]), atol=1e-9)


def test_aaa_keeps_poles_off_the_interval():
    """Noise makes spurious poles; what is returned has none on the interval, and says so."""
    noise = gaussian(60, 1, 1, dtype=torch.float64) * 1e-4

    def fn(p):
        i = (p[:, 0] * 59).round().long().clamp(0, 59)
        return 2 + torch.exp(p[:, :, None]) + noise[i]

    problem = inverse_of(fn)
    peer = peers.aaa(problem, 60, rtol=0)
    assert peer.details["rejected"] > 0
    poles = peer.details["poles"]
    assert not ((abs(poles.imag) < 1e-12) & (poles.real >= 0) & (poles.real <= 1)).any()
    p = torch.linspace(0, 1, 997, dtype=torch.float64)[:, None]
    assert float((peer(p) - fn(p)).abs().max()) < 1e-2


# Chebyshev interpolation in pieces


def kinked(p):
    """Smooth, but for a kink at a third, and with an entry a million times smaller than the others."""
    size = torch.tensor([[1.0, 1.0], [1e-6, 1.0]], dtype=torch.float64)
    return (2 * torch.eye(2) + (3 * p[:, :, None]).sin() + (p[:, :, None] - 1 / 3).abs()) * size


def test_pieces_gather_at_a_kink_and_resolve_every_entry():
    problem = Counting(inverse_of(kinked).family)
    peer = nm.peers.piecewise_chebyshev(problem, 1e-8)
    assert problem.solves == peer.exact_solves < 700
    assert peer.details["unresolved"] == 0
    widths = peer.details["edges"].diff()
    assert float(widths.min()) < 1e-3 < 0.2 < float(widths.max())
    assert peer.terms == max(peer.details["nodes"]) <= 33
    p = uniform(problem.family, 500)
    expected = problem.exact(p).value
    assert float(((peer(p) - expected).abs() / expected.abs().amax(dim=0)).max()) < 1e-7


@pytest.mark.parametrize("tol", [1e-2, 1e-5, 1e-8])
def test_pieces_meet_the_tolerance_of_a_smooth_family(tol):
    family = nm.families.trigonometric(16, 8, 3.0, cycles=4.0, dtype=torch.float64)
    problem = Counting(family)
    peer = nm.peers.piecewise_chebyshev(problem, tol)
    p = uniform(family, 300)
    assert benchmark.relative_error(peer(p), problem.exact(p).value) < tol
    assert peer.exact_solves < {1e-2: 80, 1e-5: 200, 1e-8: 320}[tol]


def test_neighbouring_pieces_agree_at_their_edges(dtype):
    family = nm.families.trigonometric(4, 6, 4.0, cycles=8.0, dtype=dtype)
    peer = nm.peers.piecewise_chebyshev(nm.Problem(family, nm.Inverse()), 1e-3, nodes=9)
    edges = peer.details["edges"][1:-1, None].double()
    assert len(edges) > 3
    step = 8 * eps(dtype)
    assert_close(peer(edges - step), peer(edges + step), units=2000)


def test_a_budget_keeps_pieces_as_they_are():
    problem = Counting(inverse_of(kinked).family)
    peer = nm.peers.piecewise_chebyshev(problem, 1e-8, budget=100)
    assert problem.solves == peer.exact_solves <= 100
    assert peer.details["unresolved"] > 0
    p = uniform(problem.family, 200)
    assert benchmark.relative_error(peer(p), problem.exact(p).value) < 1e-2


def test_a_piece_with_a_failed_solve_gives_nan_there_and_nowhere_else():
    problem = Counting(smooth(), fails=lambda p: (p[:, 0] - 0.3).abs() < 0.1)
    peer = nm.peers.piecewise_chebyshev(problem, 1e-6)
    p = uniform(problem.family, 300)
    X, distance = peer(p), (p[:, 0] - 0.3).abs()
    assert torch.isnan(X[distance < 0.0999]).all() and (distance < 0.0999).any()
    assert torch.isfinite(X[distance > 0.1001]).all()
    assert peer.details["unresolved"] > 0


@each_case
def test_parameters_outside_the_box_are_refused(name, d):
    peer = APPROXIMATIONS[name][0](nm.Problem(smooth(d), nm.Inverse()), {1: 8, 2: 16, 3: 27}[d])
    for p, words in (
        (torch.full((2, d), 1.1), ["`p`", "in the box", "extrapolate=True"]),
        (torch.rand(3, d + 1), ["`p`", f"(B, {d})", f"(3, {d + 1})"]),
    ):
        assert_raises(ValueError, words, lambda p=p: peer(p))
    assert torch.isfinite(peer(torch.full((2, d), 1.01), extrapolate=True)).all()


@pytest.mark.parametrize("build", [*(build for name, (build, _) in APPROXIMATIONS.items() if name != "reduced_basis")])
def test_problems_that_no_peer_takes(build):
    several = nm.Problem(smooth(), nm.SVD(rank=2))
    assert_raises(ValueError, ["`problem`", "one factor", "U, S, Vh", "gauges"], lambda: build(several, 20))
    assert_raises(TypeError, ["`problem`", "nm.Problem", "'family'"], lambda: build("family", 20))


@pytest.mark.parametrize(
    ("build", "d", "words"),
    [
        (lambda p: peers.chebyshev(p, 0), 1, ["`budget`", "at least 1", "got 0"]),
        (lambda p: peers.chebyshev(p, 2.5), 1, ["`budget`", "integer", "2.5"]),
        (lambda p: peers.chebyshev(p, 4, stretch=1), 1, ["`stretch`", "below 1", "got 1"]),
        (lambda p: peers.chebyshev(p, 9, stretch=(0.9,)), 2, ["`stretch`", "one value or 2", "(0.9,)"]),
        (lambda p: peers.chebyshev(p, 9, sides=(3, 4)), 2, ["`sides`", "at most `budget` = 9 nodes", "got 12"]),
        (lambda p: interpolants.rbf(p, 20, scales=(1, 0)), 2, ["`scales`", "above 0", "got 0"]),
        (lambda p: peers.spline(p, 3), 1, ["`budget`", "at least 4", "got 3"]),
        (lambda p: peers.spline(p, 1, degree=1), 1, ["`budget`", "at least 2", "got 1"]),
        (lambda p: peers.spline(p, 9, degree=2), 1, ["`degree`", "0, 1 or 3", "got 2"]),
        (lambda p: peers.spline(p, 9, grid=torch.ones(4, 2)), 1, ["`p`", "(B, 1)", "(4, 2)"]),
        (lambda p: peers.spline(p, 9, grid=torch.full((4, 1), 0.5)), 1, ["`grid`", "at least 4", "got 1", "box"]),
        (lambda p: peers.spline(p, 9), 2, ["`problem`", "one parameter, got 2", "`chebyshev`"]),
        (lambda p: interpolants.pod_spline(p, 9, 4), 3, ["`problem`", "one parameter, got 3", "`chebyshev`"]),
        (lambda p: interpolants.pod_spline(p, 3, 4), 1, ["`budget`", "at least 4", "got 3"]),
        (lambda p: interpolants.pod_spline(p, 9, 0), 1, ["`rank`", "at least 1", "got 0"]),
        (lambda p: interpolants.pod_regression(p, 9, 0), 2, ["`rank`", "at least 1", "got 0"]),
        (lambda p: peers.aaa(p, 9), 2, ["`problem`", "one parameter, got 2", "`chebyshev`"]),
        (lambda p: peers.aaa(p, 1), 1, ["`budget`", "at least 2", "got 1"]),
        (lambda p: peers.aaa(p, 9, terms=0), 1, ["`terms`", "at least 1", "got 0"]),
        (lambda p: peers.aaa(p, 9, rtol=-1), 1, ["`rtol`", "at least 0", "got -1"]),
        (lambda p: interpolants.rbf(p, 5), 2, ["`budget`", "at least 6", "got 5"]),
        (lambda p: interpolants.rbf(p, 20, kernel="gaussian"), 2, ["`kernel`", "'multiquadric'", "got 'gaussian'"]),
        (lambda p: interpolants.rbf(p, 20, seed=-1), 2, ["`seed`", "at least 0", "got -1"]),
        (lambda p: nm.peers.residual_projection(p, 0), 1, ["`budget`", "at least 1", "got 0"]),
        (lambda p: nm.peers.residual_projection(p, 8, sketch=7), 1, ["`sketch`", "at most 6", "got 7"]),
        (lambda p: nm.peers.residual_projection(p, 30, sketch=1), 3, ["`sketch`", "at least 5", "got 1"]),
        (lambda p: peers.reduced_basis(p, 0), 1, ["`budget`", "at least 1", "got 0"]),
        (lambda p: peers.reduced_basis(p, 8, training=4), 1, ["`training`", "at least 8", "got 4"]),
        (lambda p: peers.reduced_basis(p, 8, tol=-1), 1, ["`tol`", "at least 0", "got -1"]),
        (lambda p: peers.reduced_basis(p, 8, tangents=True), 1, ["`tangents`", "False for Inverse()", "nm.Solve"]),
        (lambda p: nm.peers.piecewise_chebyshev(p, 0), 1, ["`tol`", "above 0", "got 0"]),
        (lambda p: nm.peers.piecewise_chebyshev(p, 1e-3, nodes=20), 1, ["`nodes`", "2^k + 1", "got 20"]),
        (lambda p: nm.peers.piecewise_chebyshev(p, 1e-3, budget=8), 1, ["`budget`", "at least 9", "got 8"]),
        (lambda p: nm.peers.piecewise_chebyshev(p, 1e-3), 2, ["`problem`", "one parameter, got 2", "`chebyshev`"]),
    ],
)
def test_refusals(build, d, words):
    problem = Counting(smooth(d))
    assert_raises((ValueError, TypeError), words, lambda: build(problem))
    assert problem.solves == 0 or "`sketch`" in words, "a caller's mistake must cost no exact solve"


@pytest.mark.parametrize(
    "peer",
    [
        lambda problem: peers.chebyshev(problem, 2000),
        lambda problem: peers.spline(problem, 2500),
        lambda problem: interpolants.pod_spline(problem, 2500, 3),
        lambda problem: peers.aaa(problem, 2500),
        lambda problem: interpolants.rbf(problem, 2500),
    ],
    ids=["chebyshev", "spline", "pod_spline", "aaa", "rbf"],
)
def test_a_box_too_narrow_for_its_precision_is_refused(peer):
    base = nm.families.trigonometric(3, dtype=torch.float64)
    low, high = torch.tensor([3.5e9]), torch.tensor([3.5e9 + 5e5])  # some two thousand numbers in float32
    family = nm.ParametricMatrix(lambda p: base(((p - low) / (high - low)).double().clamp(0, 1)).float(), low, high)
    words = ["`problem`", "differ", "double precision"]
    assert_raises(ValueError, words, lambda: peer(nm.Problem(family, nm.Inverse())))


def test_peers_of_a_family_that_reuses_its_memory_under_autocast():
    base, memory = nm.families.trigonometric(3, shift=3.0), torch.empty(300, 3, 3)
    reusing = nm.ParametricMatrix(lambda p: memory[: len(p)].copy_(base(p)), [0.0], [1.0])
    p = parameters(9, dtype=torch.float32)
    for build in (
        lambda problem: peers.reduced_basis(problem, 8),
        lambda problem: peers.spline(problem, 8),
    ):
        expected = build(nm.Problem(base, nm.Inverse()))(p)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(build(nm.Problem(reusing, nm.Inverse()))(p), expected)


def test_the_studies_stretch_chebyshev_interpolation_as_the_closed_form_does():
    def waves(p):
        return (3 + torch.cos(60 * p))[:, :, None] * torch.eye(2, dtype=torch.float64)

    problem = inverse_of(waves)
    own = interpolants.chebyshev(problem, 48)
    p = uniform(problem.family, 40)
    a = nm.sampling.widest_stretch(48, 4 * eps(torch.float64))
    assert_close(own(p), peers.chebyshev(problem, 48, stretch=a)(p))
    plain, stretched = (benchmark.relative_error(x(p), waves(p)) for x in (peers.chebyshev(problem, 48), own))
    assert stretched < plain / 2
