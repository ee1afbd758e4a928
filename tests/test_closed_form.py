"""The closed form: near the limit, within its budget, and every failure on the way as data."""

import math
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from conftest import (
    CountedInverse,
    assert_close,
    assert_raises,
    conditioned,
    eps,
    gaussian,
    grid_of,
    parameters,
    real,
    singular_where,
    snapshots_of,
    state_of_the_process,
    tensors_of,
)

import neumatc as nm
from neumatc import StopReason
from neumatc.local import PiecewisePolynomials
from neumatc.operations import Factor
from studies import bases, benchmark, interpolants, low_rankness, solvers

EMBEDDINGS = {
    "default": None,
    "chebyshev": nm.Chebyshev(60),
    "sine": nm.SinusoidalMLP(width=128, frequency=10.0),
    "deep sine": nm.SinusoidalMLP(layers=2, width=128, frequency=4.0),
    "fourier": bases.FourierExtension(48),
    "radial": bases.RadialBasis(96, 5),
}


def smooth(dtype=torch.float64, size=14, d=1, operation=None, seed=0, **settings):
    family = nm.families.trigonometric(size, 4, 4.0, seed, dimension=d, dtype=dtype, **settings)
    return nm.Problem(family, operation or nm.Inverse())


def fit(problem, rank, *, seed=0, budget=None, **settings):
    return nm.fit(problem, rank=rank, budget=budget, seed=seed, method=nm.ClosedForm(**settings), progress=False)


def assert_near_limit(surrogate, problem, rank, factor):
    """Error on unseen parameters at most ``factor`` times that of the best map of the rank (or rounding)."""
    p = grid_of(problem.family, 800)
    exact = problem.exact(p).value
    limit = float(benchmark.eckart_young(exact, rank))
    error = benchmark.relative_error(surrogate(p), exact)
    assert error <= max(factor * limit, 30 * eps(problem.family.dtype)), f"{error / limit:.4g} times the limit"


def assert_sound(surrogate, problem):
    """Finite weights and values, and a report that can be shown, stored and read."""
    report = surrogate.report
    assert all(t.isfinite().all() for t in tensors_of(surrogate).values())
    p = grid_of(problem.family, 50)
    value = surrogate(p)
    assert all(x.isfinite().all() for x in (value if isinstance(value, tuple) else (value,)))
    assert surrogate.rank == report.rank == max(m.rank for m in surrogate.maps)
    assert surrogate.dtype == problem.family.dtype
    assert nm.Report.from_dict(report.to_dict()).to_dict() == report.to_dict()  # NaN as a word, equal to itself
    assert str(report.stop_reason) in str(report)
    return value


# Accuracy


@pytest.mark.parametrize("rank", [1, 14])
def test_the_default_reaches_the_limit_in_every_dtype(rank, dtype, device):
    problem = smooth(dtype, device=device)
    surrogate = fit(problem, rank)
    assert (surrogate.dtype, surrogate.device, surrogate.rank) == (dtype, problem.family.device, rank)
    assert_near_limit(surrogate, problem, rank, 1.1)
    assert_sound(surrogate, problem)


@pytest.mark.parametrize("count", [16, 17, 32])
def test_on_a_periodic_axis_the_map_is_trigonometric_and_closes(count):
    """As many waves as nodes: they interpolate, and are better than as many polynomials."""
    B = gaussian(3, 8, 8, dtype=torch.float64, seed=2)

    def fn(p):
        t = 2 * torch.pi * p[:, :, None]
        return 7 * torch.eye(8).double() + torch.cos(t) * B[0] + torch.sin(t) * B[1] + torch.cos(3 * t) * B[2]

    ring, line = (
        nm.Problem(nm.ParametricMatrix(fn, 0.0, 1.0, dtype=torch.float64, periodic=around), nm.Inverse())
        for around in (True, False)
    )
    surrogate = fit(ring, count, snapshots=count)
    p = torch.tensor([[0.0], [1.0], [0.3], [1.3], [-0.7]], dtype=torch.float64)
    value = surrogate(p)
    scale = value.abs().max()
    assert max((value[0] - value[1]).abs().max(), (value[2] - value[3:]).abs().max()) < 1e-12 * scale
    nodes = torch.arange(count, dtype=torch.float64)[:, None] / count
    assert ring.error(nodes, surrogate(nodes)).max() < 1e-10
    p = grid_of(ring.family)
    error, plain = (s.error(p, fit(s, count, snapshots=count)(p)).square().mean() for s in (ring, line))
    assert error < plain / 4


def test_the_report_of_a_fit_that_went_well():
    report = fit(smooth(), 6).report
    assert (report.method, report.rank, report.seed, report.stop_reason) == ("ClosedForm", 6, 0, StopReason.RANK)
    assert (report.exact_solves, report.collocation) == (2 * 6 + 16, 2 * 6 + 16)
    assert report.message == ""
    assert report.seconds > 0


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(lambda: nm.families.trigonometric(32, 8, 1.6, 0, dtype=torch.complex64), id="trigonometric"),
        pytest.param(lambda: nm.wireless.cdl("C", users=8).gram(0.1), id="cdl", marks=pytest.mark.slow),
    ],
)
def test_the_showcases_at_rank_24_from_64_snapshots(family):
    problem = nm.Problem(family(), nm.Inverse())
    assert_near_limit(fit(problem, 24, budget=64), problem, 24, 1.08)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_every_embedding_comes_near_the_limit(name, dtype):
    problem = smooth(dtype)
    surrogate = fit(problem, 10, embedding=EMBEDDINGS[name], snapshots=40)
    default = nm.Chebyshev(39, stretch=nm.sampling.widest_stretch(40, 4 * eps(dtype)))
    expected = default if name == "default" else EMBEDDINGS[name]
    assert surrogate.maps[0].embedding == expected
    assert_near_limit(surrogate, problem, 10, 1.1 if real(dtype) == torch.float64 else 1.2)
    assert_sound(surrogate, problem)


@pytest.mark.parametrize(("count", "rank", "cycles"), [(24, 8, 2.0), (64, 24, 6.0)])
def test_no_worse_than_a_spline_through_the_coefficients(count, rank, cycles):
    """At the same rank and from the same exact solves, of which plain polynomials would need more."""
    problem = smooth(torch.float32, cycles=cycles)
    p = grid_of(problem.family)
    exact = problem.exact(p).value
    ours = benchmark.relative_error(fit(problem, rank, snapshots=count)(p), exact)
    assert ours <= 1.05 * benchmark.relative_error(interpolants.pod_spline(problem, count, rank)(p), exact)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64], ids=str)
@pytest.mark.parametrize("name", EMBEDDINGS)
def test_without_any_exact_solve_near_the_limit(name, dtype, solved):
    """The residual alone, and the operation's exact solution is not called once."""
    problem = smooth(dtype, operation=CountedInverse())
    surrogate = fit(problem, 10, budget=0, embedding=EMBEDDINGS[name])
    assert solved == []
    assert surrogate.report.exact_solves == 0
    assert surrogate.report.stop_reason == StopReason.RANK
    assert_near_limit(surrogate, problem, 10, 2.0)
    assert_sound(surrogate, problem)


def test_the_residual_is_checked_on_fresh_parameters():
    problem = smooth()
    surrogate = fit(problem, 20, snapshots=64)
    final = surrogate.report.rounds[-1]
    assert math.isnan(final.failure_probability)
    assert final.residual_median <= final.residual_max < 1e-5
    assert (final.exact_solves, final.rank) == (64, 20)
    worst = torch.tensor([final.worst], dtype=torch.float64)
    assert float(problem.residual(worst, surrogate(worst))) == pytest.approx(final.residual_max, rel=1e-6)


@pytest.mark.parametrize(("d", "snapshots", "bound"), [(2, 100, 2.0), (3, 200, 4.0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64], ids=str)
def test_several_parameters(d, snapshots, bound, dtype, solved):
    problem = smooth(dtype, 8, d, CountedInverse(), cycles=0.4)
    surrogate = fit(problem, 12, snapshots=snapshots)
    assert sum(solved) == surrogate.report.exact_solves == snapshots
    assert_near_limit(surrogate, problem, 12, bound)
    assert_sound(surrogate, problem)


@pytest.mark.parametrize("name", ["chebyshev", "sine", "fourier", "radial"])
def test_embeddings_in_two_parameters(name):
    problem = smooth(torch.float64, 6, 2, cycles=0.4)
    embedding = {
        "chebyshev": nm.Chebyshev(16, "tensor"),
        "sine": nm.SinusoidalMLP(width=256, frequency=3.0),
        "fourier": bases.FourierExtension(18),
        "radial": bases.RadialBasis(400, 5),
    }[name]
    surrogate = fit(problem, 10, embedding=embedding, snapshots=80)
    assert surrogate.maps[0].embedding == embedding
    assert_near_limit(surrogate, problem, 10, 2.0)


@pytest.mark.parametrize("d", [2, 3])
def test_several_parameters_without_exact_solves(d, solved):
    problem = smooth(torch.float64, 6, d, CountedInverse(), cycles=0.2)
    surrogate = fit(problem, 6, budget=0)
    assert solved == []
    assert surrogate.report.exact_solves == 0
    assert_near_limit(surrogate, problem, 6, 4.0)


def ill_conditioned(shape, condition, dtype):
    """(I + K(p)) A (I + L(p)) in two parameters, with a slow K and L, and A of this condition number."""
    m, n = shape
    double = torch.complex128 if dtype.is_complex else torch.float64
    A = conditioned(1, m, n, double, condition)[0]
    K, L = (gaussian(3, k, k, dtype=double, seed=k) for k in (m, n))
    K, L = (0.3 * T / torch.linalg.matrix_norm(T, 2)[:, None, None] for T in (K, L))
    speeds = 2 * gaussian(2, 3, dtype=torch.float64, seed=1)

    def fn(p):
        c = (p.double() @ speeds + torch.arange(3)).cos().to(double)
        left, right = (torch.eye(len(T[0])) + torch.einsum("bk,kij->bij", c, T) for T in (K, L))
        return (left @ A @ right).to(dtype)

    return nm.ParametricMatrix(fn, [0.0, 0.0], [1.0, 1.0], dtype=real(dtype))


@pytest.mark.parametrize(
    ("operation", "shape", "condition", "dtype", "gain"),
    [
        (nm.PseudoInverse(), (7, 5), 1e2, torch.float64, 2.0),
        (nm.PseudoInverse(), (7, 5), 1e6, torch.complex128, 1.0),
        (nm.PseudoInverse(), (5, 7), 1e9, torch.float64, 1.0),
        (nm.PseudoInverse(), (7, 5), 1e4, torch.float32, 1.0),
        (nm.LMMSE(1e-8), (7, 5), 1e9, torch.float64, 2.0),
        (nm.LMMSE(1e-8), (3, 4), 1e6, torch.complex64, 1.0),
        (nm.RegularizedInverse(1e-6), (5, 5), 1e4, torch.float32, 1.0),
        (nm.Inverse(), (6, 6), 1e6, torch.float64, 2.0),
        (nm.Inverse(), (6, 6), 1e9, torch.float64, 2.0),
        (nm.Inverse(), (16, 16), 1e9, torch.float64, 1.0),
        (nm.Solve(2), (6, 6), 1e9, torch.float64, 2.0),
    ],
    ids=str,
)
def test_the_residual_never_spoils_ill_conditioned_fits(operation, shape, condition, dtype, gain):
    """Coefficients of least residual are at least as good as interpolated ones, or are not taken."""
    family = ill_conditioned(shape, condition, dtype)
    if isinstance(operation, nm.Solve):
        family = nm.families.beside(family, ill_conditioned((shape[0], operation.columns), 1.0, dtype))
    problem, p = nm.Problem(family, operation), grid_of(family, 200)
    rank = min(24, sum(torch.Size(x.shape).numel() for x in problem.factors))
    plain, projected = (fit(problem, rank, snapshots=100, projections=count) for count in (0, None))
    errors = [problem.error(p, s(p)).square().mean().sqrt() for s in (plain, projected)]
    assert gain * errors[1] <= 1.1 * errors[0], errors
    assert projected.report.collocation > 100


def test_the_residual_improves_several_parameters():
    problem = smooth(torch.float64, 8, 2, cycles=0.6)
    p = grid_of(problem.family)
    exact = problem.exact(p).value
    without, with_it = (fit(problem, 32, snapshots=60, projections=count) for count in (0, None))
    errors = [benchmark.relative_error(s(p), exact) for s in (without, with_it)]
    assert errors[1] < 0.2 * errors[0]
    assert without.report.collocation == 60 < with_it.report.collocation


@pytest.mark.parametrize("source", ["constant", "random"])
def test_four_diffusivities_from_80_solves(source):
    """The thermal block: 2 x 2 diffusivities over a decade, 64 unknowns, in their logarithms."""
    side, width = 8, 1 / 9
    stiffness = torch.zeros(4, side, side, side, side, dtype=torch.float64)
    for i, j in product(range(side), repeat=2):
        for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            quarter = 2 * int((i + 1 + di / 2) * width > 0.5) + int((j + 1 + dj / 2) * width > 0.5)
            stiffness[quarter, i, j, i, j] += 1 / width**2
            if 0 <= i + di < side and 0 <= j + dj < side:
                stiffness[quarter, i, j, i + di, j + dj] -= 1 / width**2
    blocks = stiffness.view(4, side**2, side**2)
    family = nm.ParametricMatrix(
        lambda q: torch.einsum("bk,kij->bij", q, blocks), [0.1] * 4, [1.0] * 4, dtype=torch.float64, scale="log"
    )
    b = torch.ones(side**2, 1, dtype=torch.float64)
    b = b if source == "constant" else gaussian(side**2, 1, dtype=torch.float64)
    problem = nm.Problem(nm.families.beside(family, b), nm.Solve())
    p = grid_of(problem.family, 400)
    assert problem.error(p, fit(problem, 40, budget=80)(p)).max() < 1e-3


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("d", [1, 2])
def test_the_scale_of_the_family_does_not_matter(scale, budget, d, dtype):
    base = smooth(dtype, 8, d, cycles=0.3).family
    family = nm.ParametricMatrix(lambda p: scale * base(p), base.lower, base.upper)
    problem = nm.Problem(family, nm.Inverse())
    surrogate = fit(problem, 6, budget=budget)
    assert_near_limit(surrogate, problem, 6, 1.1 if d == 1 and budget is None else 4.0)
    assert_sound(surrogate, problem)


@pytest.mark.parametrize("budget", [None, 0])
def test_a_box_far_from_zero_in_single_precision(budget):
    """3.5 GHz and 100 MHz wide: float32 tells 256 Hz apart, a hundred thousand places in the box."""
    base = smooth(torch.float32, 8).family
    lower, upper = torch.tensor([3.5e9]), torch.tensor([3.6e9])
    family = nm.ParametricMatrix(lambda p: base(((p - lower) / (upper - lower)).clamp(0, 1)), lower, upper)
    problem = nm.Problem(family, nm.Inverse())
    surrogate = fit(problem, 8, budget=budget)
    p = grid_of(family)
    near = fit(nm.Problem(base, nm.Inverse()), 8, budget=budget)
    q = (p - lower) / (upper - lower)
    bound = 1.5 * problem.residual(p, near(q)).median()  # the same family on [0, 1]
    assert problem.residual(p, surrogate(p)).median() <= max(bound, 1e-6)


@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("d", [1, 2])
def test_matrices_of_one_entry(budget, d, dtype):
    family = nm.ParametricMatrix(
        lambda p: (2 + p.sum(dim=1)).to(dtype)[:, None, None], [0.0] * d, [1.0] * d, dtype=real(dtype)
    )
    problem = nm.Problem(family, nm.Inverse())
    surrogate = fit(problem, 1, budget=budget)
    p = grid_of(family)
    assert problem.residual(p, surrogate(p)).max() < 5e-3
    assert_sound(surrogate, problem)


# Repeatability and global state


@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("d", [1, 2])
def test_a_seed_decides_everything(budget, d):
    problem = smooth(size=5, d=d, cycles=0.4)
    embedding = nm.SinusoidalMLP(width=64, frequency=3.0)
    first, second, other = (fit(problem, 5, budget=budget, seed=seed, embedding=embedding) for seed in (1, 1, 2))
    torch.randn(3)  # moves the global generator, which must not matter
    for name, tensor in tensors_of(first).items():
        assert torch.equal(tensor, tensors_of(second)[name])
    for name in ("seconds", "solve_seconds", "evaluation_seconds"):
        setattr(first.report, name, getattr(second.report, name))
    assert first.report.to_dict() == second.report.to_dict()
    assert not torch.equal(first.maps[0].weights["weight1"], other.maps[0].weights["weight1"])


@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("d", [1, 2])
def test_global_state_is_untouched(budget, d):
    before = state_of_the_process()
    fit(smooth(torch.complex64, 4, d, cycles=0.3), 5, budget=budget, embedding=bases.RadialBasis(64))
    assert state_of_the_process() == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("budget", [None, 0])
def test_every_gradient_mode_gives_the_same(mode, budget):
    problem = smooth(size=5, d=2, cycles=0.3)
    expected = fit(problem, 5, budget=budget)
    with mode():
        surrogate = fit(problem, 5, budget=budget)
    for name, tensor in tensors_of(surrogate).items():
        assert torch.equal(tensor, tensors_of(expected)[name])
        assert not tensor.requires_grad
        assert not tensor.is_inference()


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_the_default_dtype_does_not_matter(name):
    problem = smooth(torch.complex64, 5)
    p = grid_of(problem.family, 20)
    expected = fit(problem, 4, embedding=EMBEDDINGS[name])
    before = expected(p)
    torch.set_default_dtype(torch.float64)
    try:
        surrogate = fit(problem, 4, embedding=EMBEDDINGS[name])
        assert torch.equal(expected(p), before)
    finally:
        torch.set_default_dtype(torch.float32)
    for weight, tensor in tensors_of(surrogate).items():
        assert torch.equal(tensor, tensors_of(expected)[weight])


@pytest.mark.parametrize("budget", [None, 0])
def test_a_family_with_trainable_tensors_of_its_own(budget):
    weight = torch.nn.Parameter(0.1 * torch.ones(2, 2, dtype=torch.float64))
    family = nm.ParametricMatrix(
        lambda p: torch.eye(2).double() + p[:, :, None] * weight, [0.0], [1.0], dtype=torch.float64
    )
    problem = nm.Problem(family, nm.Inverse())
    assert not fit(problem, 3, budget=budget)(parameters(3)).requires_grad
    assert weight.grad is None


def test_arguments_are_not_modified():
    p, A = parameters(20), gaussian(20, 3, 3, dtype=torch.float64) + 5 * torch.eye(3)
    kept = p.clone(), A.clone()
    snapshots = [[float(x)] for x in p[:5, 0].clamp(p.min(), p.max())]
    given = [list(row) for row in snapshots]
    fit(nm.Problem(nm.families.from_samples(p, A), nm.Inverse()), 2, snapshots=snapshots)
    assert torch.equal(p, kept[0]) and torch.equal(A, kept[1])
    assert snapshots == given


# The budget


@pytest.mark.parametrize("budget", [0, 1, 2, 7, 40])
@pytest.mark.parametrize("d", [1, 2])
def test_the_budget_is_never_exceeded(budget, d, solved):
    surrogate = fit(smooth(torch.float64, 5, d, CountedInverse(), cycles=0.4), 4, budget=budget)
    assert sum(solved) == surrogate.report.exact_solves <= budget
    assert surrogate.report.budget == budget


@pytest.mark.parametrize("condition", [lambda p: p > 0.7, lambda p: p > -1], ids=["some", "all"])
@pytest.mark.parametrize("budget", [0, 3, 20])
def test_failed_solves_count(condition, budget, solved):
    family = singular_where(condition).family
    surrogate = fit(nm.Problem(family, CountedInverse()), 3, budget=budget)
    assert sum(solved) == surrogate.report.exact_solves <= budget
    assert surrogate(parameters(9)).isfinite().all()


def test_snapshots_are_as_many_as_asked_for(solved):
    problem = smooth(size=4, operation=CountedInverse())
    assert fit(problem, 3, snapshots=11).report.exact_solves == sum(solved) == 11
    given = [[0.1], [0.4], [0.5], [0.9]]
    surrogate = fit(problem, 3, snapshots=given)
    assert surrogate.report.exact_solves == 4
    assert surrogate.report.settings["snapshots"] == given
    assert fit(problem, 3, snapshots=torch.tensor(given)).report.exact_solves == 4
    words = ["`snapshots`", "`budget` = 6", "got 11"]
    assert_raises(ValueError, words, lambda: fit(problem, 3, snapshots=11, budget=6))
    array = torch.tensor(given, dtype=torch.float64).numpy()
    assert fit(problem, 3, snapshots=array).report.settings["snapshots"] == given
    assert fit(problem, 3, snapshots=[x for (x,) in given]).report.exact_solves == 4


def test_exact_solutions_are_reproduced_at_the_snapshots():
    problem = smooth(size=4, cycles=0.5)
    nodes = snapshots_of(12)
    surrogate = fit(problem, 12, snapshots=12)
    assert_close(surrogate(nodes), problem.exact(nodes).value, units=1e4)


# Bad input


def assert_degrades(problem, **settings):
    """The fit neither raises nor warns, and its surrogate and report are sound."""
    surrogate = fit(problem, **settings)
    assert_sound(surrogate, problem)
    return surrogate


@pytest.mark.parametrize("budget", [None, 0])
def test_a_constant_family_has_rank_one(budget, dtype):
    A = gaussian(5, 5, dtype=dtype) + 5 * torch.eye(5, dtype=dtype)
    family = nm.ParametricMatrix(lambda p: A.expand(len(p), 5, 5), [0.0], [1.0], dtype=real(dtype))
    problem = nm.Problem(family, nm.Inverse())
    surrogate = assert_degrades(problem, rank=24, budget=budget)
    assert surrogate.rank == 1 or budget == 0
    assert surrogate.rank <= 24
    p = grid_of(family)
    assert problem.residual(p, surrogate(p)).max() < 1e3 * eps(dtype)
    if surrogate.rank < 24:
        assert f"rank {surrogate.rank} instead of 24" in surrogate.report.message


def exact_rank_three(dtype, d=1, size=6):
    """A(p) whose inverse is X0 + p X1 + p^2 X2, exactly of rank three."""
    X = gaussian(3, size, size, dtype=dtype) / size
    X[0] += 3 * torch.eye(size, dtype=dtype)

    def fn(p):
        q = p.sum(dim=1)[:, None, None].to(dtype) / d
        return nm.linalg.inverse(X[0] + q * X[1] + q * q * X[2])[0]

    return nm.Problem(nm.ParametricMatrix(fn, [0.0] * d, [1.0] * d, dtype=real(dtype)), nm.Inverse())


@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("d", [1, 2])
def test_fewer_directions_than_the_rank(budget, d, dtype):
    problem = exact_rank_three(dtype, d)
    surrogate = assert_degrades(problem, rank=24, budget=budget)
    p = grid_of(problem.family)
    assert problem.residual(p, surrogate(p)).max() < 2e3 * eps(dtype)
    if budget is None and real(dtype) == torch.float64:
        assert surrogate.rank <= 6
        assert "instead of 24" in surrogate.report.message


@pytest.mark.parametrize("d", [1, 2])
def test_noisy_samples(d):
    """Interpolated noise of 1e-2 has no low rank: the fit takes what there is, and says how far it got."""
    p = nm.sampling.sobol(64, torch.zeros(d).double(), torch.ones(d).double())
    base = smooth(torch.float64, 4, d, cycles=0.3).family
    A = base(p) + 1e-2 * gaussian(64, 4, 4, dtype=torch.float64)
    problem = nm.Problem(nm.families.from_samples(p, A), nm.Inverse())
    surrogate = assert_degrades(problem, rank=8)
    q = grid_of(problem.family)
    assert problem.residual(q, surrogate(q)).median() < 0.05
    assert surrogate.report.rounds[-1].residual_median < 0.05


def test_repeated_snapshots(solved):
    problem = smooth(size=4, cycles=0.3, operation=CountedInverse())
    points = [[0.0], [0.2], [0.2], [0.5], [0.8], [1.0], [1.0], [0.2]]
    surrogate = assert_degrades(problem, rank=4, snapshots=points)
    assert sum(solved) == surrogate.report.exact_solves == 5
    assert "3 of 8 snapshots are repeated" in surrogate.report.message
    expected = fit(problem, 4, snapshots=[[0.0], [0.2], [0.5], [0.8], [1.0]])
    p = grid_of(problem.family)
    assert_close(surrogate(p), expected(p), units=1e4)
    fit(problem, 4, snapshots=points, budget=5)  # five, not eight


@pytest.mark.parametrize("d", [1, 4])
@pytest.mark.parametrize("settings", [{"budget": 1}, {"snapshots": 1}, {"snapshots": "centre"}], ids=str)
def test_a_single_snapshot(d, settings, solved):
    problem = smooth(torch.float64, 4, d, CountedInverse(), cycles=0.1)
    settings = {"snapshots": [[0.5] * d]} if settings.get("snapshots") == "centre" else settings
    surrogate = assert_degrades(problem, rank=6, **settings)
    assert sum(solved) == 1
    assert surrogate.rank == 1
    assert "rank 1 instead of 6" in surrogate.report.message
    x = torch.full((1, d), 0.5, dtype=torch.float64)
    if d == 1 or ("snapshots" in settings and settings["snapshots"] != 1):
        assert problem.residual(x, surrogate(x)) < 1e-10  # the centre is the one Chebyshev node


@pytest.mark.parametrize("d", [1, 2])
def test_a_rank_above_the_snapshots(d):
    problem = smooth(torch.float64, 5, d, cycles=0.3)
    surrogate = assert_degrades(problem, rank=20, snapshots=6, projections=0)
    assert surrogate.rank == 6
    assert "rank 6 instead of 20" in surrogate.report.message


def singular_at_nodes(count, which, dtype=torch.float64, d=1):
    """Three-by-three, smooth, and exactly singular at some of the parameters at which the fit solves."""
    nodes = snapshots_of(count, d)[which]

    def fn(p):
        near = ((p.double()[:, None, :] - nodes).abs().amax(dim=2) < 1e-9).any(dim=1)
        A = torch.diag_embed(torch.stack([2 + p.sum(1), 3 - p.sum(1), 5 + p.sum(1) ** 2], dim=1))
        A[near, 0, 0] = 0
        return A.to(dtype)

    return nm.Problem(nm.ParametricMatrix(fn, [0.0] * d, [1.0] * d, dtype=torch.float64), CountedInverse()), nodes


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("which", [[3], [0, 5, 11], list(range(0, 24, 2))], ids=str)
def test_singular_nodes_are_left_out_and_reported(which, d, solved):
    problem, nodes = singular_at_nodes(24, which, d=d)
    surrogate = assert_degrades(problem, rank=4, snapshots=24)
    report = surrogate.report
    assert sum(solved) == report.exact_solves == 24
    assert_close(torch.tensor(report.singular, dtype=torch.float64).sort(0).values, nodes.sort(0).values)
    assert f"{len(which)} of 24 exact solves failed" in report.message
    p = grid_of(problem.family)
    assert problem.residual(p, surrogate(p)).median() < 0.02


@pytest.mark.parametrize("asked", [{"rank": 3}, {"rank": 3, "snapshots": [[0.2], [0.4]]}], ids=str)
def test_all_singular(asked, dtype):
    problem = nm.Problem(
        nm.ParametricMatrix(
            lambda p: torch.ones(len(p), 3, 3, dtype=dtype) * (1 + p[:, :, None]), [0.0], [1.0], dtype=real(dtype)
        ),
        nm.Inverse(),
    )
    surrogate = assert_degrades(problem, **asked)
    report = surrogate.report
    assert report.stop_reason == StopReason.SINGULAR
    assert len(report.singular) == report.exact_solves > 0
    assert (surrogate(parameters(9, dtype=real(dtype))) == 0).all()


def test_all_singular_without_exact_solves():
    problem = singular_where(lambda p: p > -1)
    surrogate = assert_degrades(problem, rank=4, budget=0)
    p = grid_of(problem.family)
    # The pseudo-inverse has the least residual, sqrt(1 / 2) at every parameter.
    assert (problem.residual(p, surrogate(p)) - 0.5**0.5).abs().max() < 0.05
    assert surrogate.report.stop_reason == StopReason.RANK


@pytest.mark.parametrize(
    ("budget", "dtype"), [(None, torch.complex128), (None, torch.float32), (0, torch.float32)], ids=str
)
def test_nearly_singular(budget, dtype):
    problem = nm.Problem(low_rankness.low_rank_plus_shift(6, 3, 1e-4, dtype=dtype), nm.Inverse())
    assert_degrades(problem, rank=4, budget=budget)


def failing_later(call, how):
    """A smooth family that misbehaves from its ``call``-th call on."""
    base, calls = smooth(size=4).family, []

    def fn(p):
        calls.append(len(p))
        A = base(p)
        if len(calls) >= call:
            if how == "raises":
                raise nm.FamilyError("the instrument is switched off")
            A = A[:, :3] if how == "shape" else A * torch.nan
        return A

    return nm.Problem(nm.ParametricMatrix(fn, base.lower, base.upper), nm.Inverse())


@pytest.mark.parametrize("how", ["raises", "nan"])
def test_a_family_that_fails_at_the_check(how):
    surrogate = fit(failing_later(3, how), 4)
    assert surrogate.report.stop_reason == StopReason.RANK
    assert "could not be checked" in surrogate.report.message
    assert surrogate.report.rounds == []
    assert surrogate(parameters(5)).isfinite().all()


def undefined_away_from(centre, width):
    base = smooth(size=3).family

    def fn(p):
        return torch.where((p[:, :, None] - centre).abs() > width, torch.nan, base(p))

    return nm.Problem(nm.ParametricMatrix(fn, base.lower, base.upper), nm.Inverse())


def test_a_family_that_is_not_defined_somewhere_costs_those_parameters():
    problem = undefined_away_from(0.4, 0.4)
    surrogate = fit(problem, 3)
    assert all(p > 0.8 for (p,) in surrogate.report.singular) and len(surrogate.report.singular) > 3
    p = 0.8 * parameters(50)
    assert problem.error(p, surrogate(p)).median() < 0.1


@pytest.mark.parametrize(("budget", "width"), [(None, 1e-9), (0, 0.4)])
def test_a_family_that_is_not_defined_where_it_must_be_raises(budget, width):
    """At one snapshot at least; without exact solves at every collocation point."""
    problem = undefined_away_from(0.5, width)
    assert_raises(nm.FamilyError, ["`fn(p)`", "NaN or Inf", "parameter ["], lambda: fit(problem, 3, budget=budget))


# Operations of users


@dataclass(frozen=True)
class Exponential(nm.Operation):
    """The matrix exponential: unique, not linear in X, no system of equations."""

    def factors(self, m, n):
        return (Factor("X", (m, n)),)

    def exact(self, A):
        return (torch.linalg.matrix_exp(A),), torch.zeros(len(A), dtype=torch.bool, device=A.device)

    def residual(self, A, factors):
        E = torch.linalg.matrix_exp(A)
        return torch.linalg.matrix_norm(factors[0] - E) / torch.linalg.matrix_norm(E)

    def scales(self, A):
        return (1.0,)


@dataclass(frozen=True)
class TwoFactors(Exponential):
    """A^2 and the real part of the trace, of different shapes and kinds."""

    def factors(self, m, n):
        return Factor("X", (m, n)), Factor("t", (1,), "real")

    def exact(self, A):
        t = A.diagonal(dim1=1, dim2=2).sum(dim=1).real if A.is_complex() else A.diagonal(dim1=1, dim2=2).sum(dim=1)
        return (A @ A, t[:, None]), torch.zeros(len(A), dtype=torch.bool, device=A.device)

    def residual(self, A, factors):
        (X, t), _ = self.exact(A)
        return torch.linalg.matrix_norm(factors[0] - X) / torch.linalg.matrix_norm(X) + (factors[1] - t).abs()[:, 0]

    def pack(self, factors):
        return tuple(factors)


@dataclass(frozen=True)
class LeastSquares(nm.LinearOperation):
    """A^+ B for a fixed B of ones: a tall least-squares system, L X = F with more equations than rows of X."""

    def factors(self, m, n):
        return (Factor("X", (n, 2)),)

    def system(self, A):
        F = torch.linspace(1, 2, A.shape[1] * 2, dtype=real(A.dtype)).to(A).view(A.shape[1], 2)
        return A, (A @ A.mH @ F)

    def exact(self, A):
        _, F = self.system(A)
        return (torch.linalg.pinv(A) @ F,), torch.zeros(len(A), dtype=torch.bool, device=A.device)

    def scales(self, A):
        return (1.0,)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("operation", [Exponential(), TwoFactors()], ids=str)
def test_operations_of_users(operation, d, dtype):
    base = nm.families.trigonometric(4, 2, 0.5, cycles=0.3, dimension=d, dtype=dtype)
    problem = nm.Problem(base, operation)
    surrogate = nm.fit(problem, rank=10, progress=False)
    assert surrogate.report.method == "ClosedForm"
    p = grid_of(base)
    assert problem.residual(p, surrogate(p)).median() < (1e-2 if d == 1 else 5e-2)
    assert_sound(surrogate, problem)


@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("d", [1, 2])
def test_a_rectangular_linear_operation(d, budget, dtype):
    base = smooth(dtype, 6, d, cycles=0.3).family
    family = nm.ParametricMatrix(lambda p: base(p)[:, :, :4].contiguous(), base.lower, base.upper)
    problem = nm.Problem(family, LeastSquares())
    p = grid_of(family)
    surrogate = fit(problem, 6, budget=budget)
    exact = problem.exact(p).value
    assert problem.residual(p, exact).max() < 0.9
    error = problem.error(p, surrogate(p))
    assert error.median() < 1e-2
    assert_sound(surrogate, problem)


# Oscillating families: the polynomials are chosen by held-out points that lie all over the box


@pytest.mark.parametrize("settings", [{}, {"projections": 0}], ids=str)
def test_equal_steps_over_an_oscillating_family(settings):
    problem = smooth(size=8, cycles=2)
    surrogate = fit(problem, 20, snapshots=torch.linspace(0, 1, 60, dtype=torch.float64)[:, None], **settings)
    p = grid_of(problem.family)
    assert problem.error(p, surrogate(p)).median() < 1e-2


def test_one_failed_snapshot_costs_little():
    base = nm.families.trigonometric(8, 4, 4.0, cycles=2, dtype=torch.float64)
    node = snapshots_of(64)[20]

    def fn(p):
        return torch.where((p[:, :, None] - node).abs() < 1e-9, 0.0, base(p))

    problem = nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=torch.float64), nm.Inverse())
    surrogate = fit(problem, 24)
    assert "1 of 64 exact solves failed" in surrogate.report.message
    p = grid_of(problem.family)
    assert problem.error(p, surrogate(p)).median() < 1e-3


@pytest.mark.parametrize("place", [(1000.0, 1.0), (1e4, 1.0), (3.5e9, 1e6)], ids=str)
@pytest.mark.parametrize("budget", [None, 0])
def test_parameters_count_as_they_are_rounded(budget, place):
    low, width = (torch.tensor([v], dtype=torch.float32) for v in place)
    base = nm.families.trigonometric(8, 4, 4.0, dtype=torch.float64)
    high = low + width

    def fn(p):
        return base(((p.double() - low) / (high.double() - low)).clamp(0, 1)).float()

    problem = nm.Problem(nm.ParametricMatrix(fn, low, high), nm.Inverse())
    p = grid_of(problem.family)
    error = benchmark.relative_error(fit(problem, 14, budget=budget)(p), problem.exact(p).value)
    limit = float(benchmark.eckart_young(problem.exact(p).value, 14))
    assert error < 2 * limit + 2e-6


# Results that are not what they should be


class Overflowing(Exponential):
    """exp(A), not finite where A is large, with a mask that does not tell."""

    def exact(self, A):
        return (torch.linalg.matrix_exp(A),), torch.zeros(len(A), dtype=torch.bool, device=A.device)

    def residual(self, A, factors):
        return torch.linalg.matrix_norm(factors[0] - torch.linalg.matrix_exp(A)) / torch.linalg.matrix_norm(factors[0])


def test_a_result_that_is_not_finite_counts_as_failed(dtype):
    def fn(p):
        return torch.eye(3, dtype=dtype) * torch.where(p > 0.7, 1e4, p).to(dtype)[:, :, None]

    problem = nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=torch.float64), Overflowing())
    p = torch.tensor([[0.1], [0.9]], dtype=torch.float64)
    assert problem.exact(p).failed.tolist() == [False, True]
    surrogate = fit(problem, 5)
    assert "exact solves failed" in surrogate.report.message
    assert_sound(surrogate, problem)


class Transposed(Exponential):
    """A^H, with strides that are not those of a contiguous tensor."""

    def factors(self, m, n):
        return (Factor("X", (n, m)),)

    def exact(self, A):
        return (A.mH.clone(),), torch.zeros(len(A), dtype=torch.bool, device=A.device)

    def residual(self, A, factors):
        return torch.linalg.matrix_norm(factors[0] - A.mH) / torch.linalg.matrix_norm(A)


@pytest.mark.parametrize("d", [1, 2])
def test_factors_of_any_strides(d, dtype):
    base = nm.families.trigonometric(4, 2, 3.0, cycles=0.2, dimension=d, dtype=dtype)
    problem = nm.Problem(nm.ParametricMatrix(lambda p: base(p)[:, :3], base.lower, base.upper), Transposed())
    surrogate = fit(problem, 12)
    p = grid_of(base, 100)
    assert problem.error(p, surrogate(p)).median() < 1e-2


class RealInverse(nm.Inverse):
    """(Re A^H A)^(-1), real for a complex A."""

    def factors(self, m, n):
        return (Factor("X", (n, n), "real"),)

    def exact(self, A):
        X, failed = nm.linalg.inverse((A.mH @ A).real.contiguous() if A.is_complex() else A.mT @ A)
        return (X,), failed

    def system(self, A):
        gram = A.mH @ A
        return super().system(gram.real.contiguous() if A.is_complex() else gram)


@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("d", [1, 2])
def test_a_real_factor_of_a_complex_matrix(d, budget, dtype):
    family = smooth(dtype, 4, d, cycles=0.4).family
    problem = nm.Problem(family, RealInverse())
    surrogate = fit(problem, 8, budget=budget)
    assert surrogate.maps[0].core.dtype == real(dtype)
    p = grid_of(family, 100)
    assert problem.error(p, surrogate(p)).median() < 2e-2


@pytest.mark.parametrize("method", [nm.ClosedForm(), nm.ResidualTraining(steps=3)], ids=["closed", "trained"])
def test_a_family_of_lazy_conjugates(method, dtype):
    base = nm.families.trigonometric(4, 2, 3.0, dtype=dtype)
    problem = nm.Problem(nm.ParametricMatrix(lambda p: base(p).mH, base.lower, base.upper), nm.Inverse())
    nm.fit(problem, rank=4, method=method, progress=False)
    A = base(grid_of(base, 5)).mH
    for solver in (solvers.numpy_loop, solvers.numpy_batched, solvers.scipy_batched):
        assert_close(solver(A), nm.linalg.inverse(A)[0], units=1000)


def test_a_family_that_fails_at_the_projections_degrades_the_fit():
    base, calls = smooth(size=4, d=2).family, []

    def fn(p):
        calls.append(len(p))
        return base(p) if len(calls) < 3 else torch.full_like(base(p), torch.nan)

    problem = nm.Problem(nm.ParametricMatrix(fn, [0.0] * 2, [1.0] * 2, dtype=torch.float64), nm.Inverse())
    surrogate = fit(problem, 5)
    assert "no coefficients from the residual" in surrogate.report.message
    assert surrogate.report.exact_solves == 26


# What it refuses


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"embedding": 3}, TypeError, ["`embedding`", "nm.SinusoidalMLP()", "3"]),
        ({"embedding": nm.Chebyshev}, TypeError, ["`embedding`", "Chebyshev"]),
        ({"embedding": "chebyshev"}, TypeError, ["`embedding`", "'chebyshev'"]),
        ({"snapshots": 0}, ValueError, ["`snapshots`", "at least 1", "got 0"]),
        ({"snapshots": True}, TypeError, ["`snapshots`", "integer", "True"]),
        ({"snapshots": 2.5}, TypeError, ["`snapshots`", "2.5"]),
        ({"snapshots": "abc"}, (TypeError, ValueError), ["`snapshots`"]),
        ({"projections": -1}, ValueError, ["`projections`", "at least 0"]),
        ({"projections": "many"}, TypeError, ["`projections`", "'many'"]),
    ],
)
def test_the_method_refuses(settings, error, words):
    assert_raises(error, words, lambda: fit(smooth(size=3), 3, **settings))


@pytest.mark.parametrize(
    ("snapshots", "words"),
    [
        ([[0.5], [1.5]], ["`snapshots`", "box [0.0] to [1.0]", "[1.5]", "row 1"]),
        ([[0.5, 0.5]], ["`snapshots`", "(B, 1)", "(1, 2)"]),
        ([], ["`snapshots`", "at least one"]),
        ([[0.5], [math.nan]], ["`snapshots`", "finite", "nan", "row 1"]),
        ([[0.5], [0.5, 0.6]], ["`snapshots`"]),
        ([["a"]], ["`snapshots`"]),
    ],
)
def test_snapshots_that_are_no_parameters(snapshots, words):
    """A caller's mistake names the caller's argument."""
    assert_raises((ValueError, TypeError), words, lambda: fit(smooth(size=3), 3, snapshots=snapshots))


@pytest.mark.parametrize("operation", [nm.SVD(rank=2), Exponential()], ids=str)
def test_without_exact_solves_the_residual_must_be_linear(operation):
    problem = nm.Problem(smooth(size=3).family, operation)
    words = ["`budget`", "at least 1", str(operation), "not linear", "nm.ResidualTraining()"]
    assert_raises(ValueError, words, lambda: fit(problem, 3, budget=0))


def test_more_snapshots_than_the_budget_are_refused():
    snapshots, words = [[0.1], [0.2], [0.3]], ["`snapshots`", "at most `budget` = 2", "got 3"]
    assert_raises(ValueError, words, lambda: fit(smooth(size=3), 3, budget=2, snapshots=snapshots))


def test_snapshots_without_exact_solves_are_refused():
    assert_raises(ValueError, ["`snapshots`", "`budget=0`"], lambda: fit(smooth(size=3), 3, budget=0, snapshots=9))


def test_a_tolerance_is_refused():
    words = ["`tol`", "None for nm.ClosedForm", "got 0.001", "leave the method out"]
    method = nm.ClosedForm()
    assert_raises(ValueError, words, lambda: nm.fit(smooth(size=3), tol=1e-3, method=method, progress=False))


def test_a_start_is_refused():
    start, words = fit(smooth(size=3), 3), ["`start`", "nm.ClosedForm", "nm.ResidualTraining()"]
    assert_raises(ValueError, words, lambda: nm.fit(smooth(size=3), rank=3, start=start))


@pytest.mark.parametrize("budget", [None, 0])
def test_an_embedding_that_cannot_be_fitted_is_refused_before_the_exact_solves(budget, solved):
    problem = smooth(size=3, operation=CountedInverse())
    embedding = PiecewisePolynomials()
    assert_raises(
        ValueError, ["`embedding`", "nm.Chebyshev"], lambda: fit(problem, 3, budget=budget, embedding=embedding)
    )
    assert solved == []


@pytest.mark.parametrize("budget", [None, 0])
def test_a_fit_can_be_saved_and_loaded(budget, tmp_path):
    surrogate = fit(smooth(torch.complex64, 4), 4, budget=budget, embedding=bases.FourierExtension(20))
    nm.save(surrogate, tmp_path / "map")
    loaded = nm.load(tmp_path / "map")
    assert loaded.report.to_dict() == surrogate.report.to_dict()  # NaN as a word, equal to itself
    p = parameters(9, dtype=torch.float32)
    assert_close(loaded(p), surrogate(p), units=1000)


@pytest.mark.parametrize("settings", [{"rank": 3}, {"rank": 3, "budget": 1}, {"rank": 3, "budget": 0}], ids=str)
@pytest.mark.parametrize("d", [1, 2])
def test_a_result_that_is_zero_everywhere_is_fitted(d, settings, dtype):
    """The receiver of no signal; a snapshot is then no direction."""
    family = nm.ParametricMatrix(
        lambda p: torch.zeros(len(p), 4, 3, dtype=dtype), [0.0] * d, [1.0] * d, dtype=real(dtype)
    )
    problem = nm.Problem(family, nm.LMMSE(noise=0.1))
    surrogate = nm.fit(problem, progress=False, **settings)
    p = torch.rand(7, d, dtype=real(dtype), generator=torch.Generator().manual_seed(0))
    assert not surrogate(p).any() and not problem.residual(p, surrogate(p)).any()
    assert nm.certify(surrogate, problem, p).residual.tolist() == [0] * 7


@pytest.mark.parametrize("operation", [nm.Inverse(), nm.SVD()], ids=str)
def test_snapshots_that_coincide_in_the_precision_of_the_box_are_left_out_and_reported(operation):
    """In float32 there are few numbers in this box: neighbouring nodes are rounded to one."""
    half, slope = 1.5e5, torch.tensor([[0.0, 1.0], [-1.0, 0.5]], dtype=torch.float64)

    def fn(p):
        return 2 * torch.eye(2, dtype=torch.float64) + ((p.double() - 3.5e9) / half)[:, :, None] * slope

    family = nm.ParametricMatrix(fn, [3.5e9 - half], [3.5e9 + half], dtype=torch.float32)
    problem = nm.Problem(family, operation)
    surrogate = fit(problem, 4, snapshots=1200)
    assert "of 1200 snapshots coincide with others in the precision of the box" in surrogate.report.message
    p = torch.linspace(3.5e9 - half, 3.5e9 + half, 201, dtype=torch.float64).float()[:, None]
    assert problem.error(p, surrogate(p)).max() < 1e-4


@pytest.mark.parametrize("unit", [1e-25, 1e20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_right_hand_sides_of_any_unit_without_exact_solves(dtype, unit):
    B = unit * torch.tensor([[1.0], [2.0]], dtype=dtype)
    A = nm.families.trigonometric(2, 2, 4.0, cycles=0.3, dtype=dtype)
    problem = nm.Problem(nm.families.beside(A, B), nm.Solve(1))
    surrogate = fit(problem, 4 if dtype.is_complex else 2, budget=0)
    p = grid_of(problem.family)
    assert problem.error(p, surrogate(p)).max() < 1e-4


@pytest.mark.parametrize(
    "embedding", [nm.Chebyshev(16), nm.SinusoidalMLP(width=128, frequency=10.0)], ids=["cheb", "mlp"]
)
def test_an_embedding_of_more_features_than_snapshots_is_fitted_through_polynomials(embedding):
    problem = nm.Problem(nm.families.trigonometric(6, 4, 2.0, dimension=2, dtype=torch.float64), nm.Inverse())
    method = nm.ClosedForm(snapshots=100, projections=0, embedding=embedding)
    p = problem.family.box.uniform(200, torch.Generator().manual_seed(1))
    error, default = (
        float(problem.error(p, nm.fit(problem, rank=24, method=m, progress=False)(p)).median())
        for m in (method, nm.ClosedForm(snapshots=100, projections=0))
    )
    assert error < 2 * default
