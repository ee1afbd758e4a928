"""Rational functions through samples of matrix functions: exact where these are rational, and nothing elsewhere."""

import math
import re

import numpy as np
import pytest
import torch

import neumatc as nm
from neumatc import rational


def samples(poles, residues, x, constant=0.0):
    """Values at x of a constant and a sum of residues over x - pole, shape (N, s)."""
    return constant + (1 / (x[:, None] - np.asarray(poles))) @ np.asarray(residues)


def value(found, x, F, t):
    """The barycentric function at t, shape (B, s)."""
    cauchy = found.weights / (t[:, None] - x[found.support])
    return cauchy @ F[found.support] / cauchy.sum(axis=1, keepdims=True)


def worst(found, x, F, expected, t):
    """Largest error at t, relative to the size of the result there."""
    miss = np.linalg.norm(value(found, x, F, t) - expected, axis=1)
    return float((miss / np.linalg.norm(expected, axis=1)).max())


def crowded(rng, count):
    """Four times as many places as poles beside them, and samples there."""
    poles = rng.uniform(-1, 1, count) - 1j * 10 ** rng.uniform(-4, -2, count)
    residues = rng.standard_normal((count, 16)) + 1j * rng.standard_normal((count, 16))
    x = np.sort(rng.uniform(-1, 1, 4 * count))
    return x, samples(poles, residues, x)


CASES = {
    "real, outside": ([1.2, -1.5, 3.0], False),
    "real, inside": ([0.31, -0.52], False),
    "conjugate pairs": ([0.2 + 0.01j, 0.2 - 0.01j, -0.6 + 0.05j, -0.6 - 0.05j], False),
    "one side": ([0.2 - 0.01j, -0.6 - 0.003j, 0.9 - 0.2j], True),
    "at infinity": ([40.0], False),
}


def of_case(name, count, seed=0):
    """Samples of a case, and of the same function at other places."""
    poles, one_sided = CASES[name]
    rng = np.random.default_rng(seed)
    residues = rng.standard_normal((len(poles), 16)).astype(complex)
    if one_sided:
        residues = residues + 1j * rng.standard_normal(residues.shape)
    elif np.iscomplexobj(np.array(poles)):
        residues[1::2] = residues[::2].conj()
    x = np.sort(rng.uniform(-1, 1, count))
    t = np.linspace(-0.9997, 0.9991, 997)
    F, expected = (samples(poles, residues, at, 1.0) for at in (x, t))
    return (x, F, t, expected) if one_sided else (x, F.real, t, expected.real)


@pytest.mark.parametrize("name", CASES)
def test_rational_functions_are_recovered(name):
    x, F, t, expected = of_case(name, 24)
    found = rational.fit(x, F, 1e-12)
    assert worst(found, x, F, expected, t) < 1e-8


@pytest.mark.parametrize("name", CASES)
def test_poles_are_recovered(name):
    x, F, _, _ = of_case(name, 24)
    found = rational.fit(x, F, 1e-12)
    for pole in CASES[name][0]:
        assert np.abs(found.poles - pole).min() < 1e-6 * max(1, abs(pole)) ** 2


@pytest.mark.parametrize("name", CASES)
def test_as_few_support_points_as_the_degree_takes(name):
    """A function of p poles and a constant is determined by p + 1 support points; a few more do no harm."""
    x, F, _, _ = of_case(name, 40)
    assert len(rational.fit(x, F, 1e-11).support) <= len(CASES[name][0]) + 3


@pytest.mark.parametrize("name", ["real, outside", "conjugate pairs"])
def test_weights_of_real_samples_are_real(name):
    x, F, _, _ = of_case(name, 24)
    assert not np.iscomplexobj(rational.fit(x, F, 1e-12).weights)


def test_a_resolvent_of_a_matrix():
    """(K - x I)^-1 has poles at the eigenvalues of K, all entries the same."""
    rng = np.random.default_rng(1)
    K = np.diag([-0.7, -0.1, 0.4, 0.95]) + 0.01j * np.eye(4) + 0.001 * rng.standard_normal((4, 4))
    inverse = lambda at: np.linalg.inv(K - at[:, None, None] * np.eye(4)).reshape(len(at), -1)  # noqa: E731
    x, t = np.cos(np.pi * np.arange(24) / 23), np.linspace(-0.9997, 0.9991, 501)
    F = inverse(x)
    found = rational.fit(x, F, 1e-12)
    assert worst(found, x, F, inverse(t), t) < 1e-9
    for eigenvalue in np.linalg.eigvals(K):
        assert np.abs(found.poles - eigenvalue).min() < 1e-8


def test_the_error_that_is_named_holds_at_the_samples():
    rng = np.random.default_rng(2)
    x = np.sort(rng.uniform(-1, 1, 60))
    F = np.stack([np.tanh(4 * x), np.exp(x), 1 / (1.1 - x), x], axis=1)
    found = rational.fit(x, F, 1e-6)
    left = np.setdiff1d(np.arange(60), found.support)
    scale = np.maximum(np.linalg.norm(F[left], axis=1), np.median(np.linalg.norm(F, axis=1)))
    miss = np.linalg.norm(value(found, x, F, x[left]) - F[left], axis=1) / scale
    assert found.error == pytest.approx(miss.max(), rel=1e-6)
    assert found.error <= 1e-5


def test_a_looser_goal_takes_no_more_support_points():
    x = np.linspace(-1, 1, 80)
    F = np.stack([np.tanh(9 * x), np.exp(x)], axis=1)
    counts = [len(rational.fit(x, F, goal).support) for goal in (1e-2, 1e-5, 1e-8)]
    assert counts == sorted(counts) and counts[0] < counts[2]


@pytest.mark.parametrize("count", [3, 5, 6])
def test_nothing_where_samples_are_too_few(count):
    """Of eight poles; what fits so few samples says nothing between them."""
    rng = np.random.default_rng(3)
    x = np.sort(rng.uniform(-1, 1, count))
    F = samples(np.linspace(-0.9, 0.9, 8) + 0.01j, rng.standard_normal((8, 16)), x)
    assert rational.fit(x, F, 1e-10) is None


@pytest.mark.parametrize("count", [20, 60])
def test_nothing_where_the_samples_have_no_structure(count):
    rng = np.random.default_rng(5)
    assert rational.fit(np.linspace(-1, 1, count), rng.standard_normal((count, 16)), 1e-3) is None


def test_a_jump_takes_many_support_points():
    """Rational functions do approach a jump, but slowly: poles gather at it."""
    x = np.linspace(-1, 1, 60)
    jump = np.sign(x - 0.137)
    F = np.stack([jump * (1 + x), np.exp(x), jump + x**2, 1 + jump * x], axis=1)
    found = rational.fit(x, F, 1e-8)
    assert found is None or len(found.support) > 12
    assert found is None or np.abs(found.poles - 0.137).min() < 0.1


def test_spurious_poles_are_taken_away():
    """Noise at rounding level makes pairs of poles and zeros in the interval; a smooth function has none there."""
    rng = np.random.default_rng(4)
    x = np.cos(np.pi * np.arange(60) / 59)
    F = np.stack([np.exp(x), np.sin(2 * x), 1 / (2 - x), np.cosh(x)], axis=1)
    F = F * (1 + 1e-14 * rng.standard_normal(F.shape))
    for goal in (1e-11, 1e-13):
        found = rational.fit(x, F, goal)
        inside = [] if found is None else found.poles
        assert not any(abs(z.imag) < 1e-3 and abs(z.real) < 1 for z in inside)
    found = rational.fit(x, F, 1e-11)
    t = np.linspace(-0.9997, 0.9991, 997)
    expected = np.stack([np.exp(t), np.sin(2 * t), 1 / (2 - t), np.cosh(t)], axis=1)
    assert worst(found, x, F, expected, t) < 1e-9


@pytest.mark.parametrize("scale", [1e-100, 1e-30, 1e30, 1e100])
def test_the_unit_of_the_samples_does_not_matter(scale):
    x, F, t, expected = of_case("conjugate pairs", 24)
    assert worst(rational.fit(x, scale * F, 1e-12), x, F, expected, t) < 1e-8


def test_the_smallest_goal_that_is_reached_counts_and_support_points_are_limited():
    x, F, *_ = of_case("conjugate pairs", 24)
    kinked = F + 1e-4 * np.random.default_rng(1).standard_normal(F.shape)
    assert rational.fit(x, kinked, 1e-12) is None
    found = rational.fit(x, kinked, 1e-12, 1e-3)
    np.testing.assert_array_equal(found.support, rational.fit(x, kinked, 1e-3).support)
    assert found.goal == 1e-3 and rational.fit(x, F, 1e-12, 1e-3).goal == 1e-12
    steps = iter([True] * (len(rational.fit(x, F, 1e-12).support) - 3))
    assert rational.fit(x, F, 1e-12, afford=lambda operations: next(steps, False)) is None


def test_a_fit_can_be_ended_between_its_steps():
    x, F, *_ = of_case("conjugate pairs", 24)
    steps = []

    def afford(operations):
        steps.append(operations)
        if len(steps) == 3:
            raise TimeoutError
        return True

    with pytest.raises(TimeoutError):
        rational.fit(x, F, 1e-12, afford=afford)


def counted(monkeypatch):
    """Numbers of equations and weights of each step, as they are computed."""
    sizes = []
    own = rational.weighted
    monkeypatch.setattr(rational, "weighted", lambda E, **options: sizes.append(E.shape) or own(E, **options))
    return sizes


def test_every_step_is_asked_for_with_what_it_takes(monkeypatch):
    """Those too that take support points away beside spurious poles: the limit of time holds there."""
    sizes, asked = counted(monkeypatch), []
    x, F = crowded(np.random.default_rng(0), 24)
    rational.fit(x, F, 1e-12, afford=lambda operations: asked.append((len(sizes), operations)) or True)
    assert sizes[-1][1] < sizes[-2][1]  # some were taken away
    for step, (count, m) in enumerate(sizes):
        assert max(operations for before, operations in asked if before == step) >= 2 * count * m**2


def test_rounding_is_not_sought_beside_branch_points(monkeypatch):
    """Where X is rational, hardly more support points than come to the second goal come to the first."""
    sizes, x = counted(monkeypatch), np.cos(np.pi * np.arange(120) / 119)
    F = np.sqrt(np.abs(x - 0.3))[:, None] * (1 + np.outer(x, np.arange(8)))
    found = rational.fit(x, F, 1e-12, 1e-4)
    assert found.goal == 1e-4 and max(m for _, m in sizes) <= 2 * len(found.support)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("is_complex", [False, True])
def test_equations_in_triangular_form_stand_for_those_there_were(is_complex, balanced):
    """Where a support point is taken away, its equations join them; nothing is factorised anew."""
    rng = np.random.default_rng(6)
    x = np.sort(rng.uniform(-1, 1, 40))
    F = rng.standard_normal((40, 8)) + 1j * is_complex * rng.standard_normal((40, 8))
    F, size, support = F if is_complex else F.real, np.ones(40), np.arange(0, 40, 4)
    others = np.setdiff1d(np.arange(40), support)
    R, _ = rational.weighted(rational.loewner(x, F, support, size, others))
    new = rational.loewner(x, F, support[1:], size, support[:1])
    _, w = rational.weighted(np.concatenate([R[:, 1:], new]), balanced=balanced)
    equations = rational.loewner(x, F, support[1:], size, np.append(others, support[0]))
    _, expected = rational.weighted(equations, balanced=balanced)
    np.testing.assert_allclose(w * (expected[0] / w[0]), expected, rtol=1e-9)


def test_branch_points_take_no_more_trials_than_their_solves_are_worth(monkeypatch):
    """Wood anomalies: rational functions come near them slowly, with many spurious poles on the way."""
    factorised = []
    qr = rational.scipy.linalg.qr
    monkeypatch.setattr(rational.scipy.linalg, "qr", lambda E, **k: factorised.append(E.shape) or qr(E, **k))
    orders = np.arange(-4, 5) + 0.13
    V = 0.3 * np.random.default_rng(3).standard_normal((9, 9))

    def wood(k):
        return np.diag(np.sqrt(k**2 - orders**2 + 0j) + 0.2j) + 0.5j * (V + V.T)

    problem = nm.Problem(nm.ParametricMatrix(wood, 0.5, 3.5, batched=False), nm.Inverse())
    report = nm.fit(problem, tol=1e-3, progress=False, time_limit=60).report
    assert report.met and factorised
    assert sum(8 * count * m**2 for count, m in factorised) <= 3.1e6 * report.exact_solves


def test_noise_takes_no_more_trials_than_its_solves_are_worth(monkeypatch):
    """White noise is known beside the nodes once some are solved."""
    rng, sizes = np.random.default_rng(0), counted(monkeypatch)
    values = {}

    def noisy(x):
        return values.setdefault(float(x), np.eye(2) * 2 + 0.5 * rng.normal(size=(2, 2)))

    problem = nm.Problem(nm.ParametricMatrix(noisy, 0.0, 1.0, batched=False), nm.Inverse())
    with pytest.warns(nm.FitWarning, match="noise"):
        report = nm.fit(problem, tol=1e-6, progress=False).report
    assert report.exact_solves < 200
    assert sum(2 * count * m**2 for count, m in sizes) <= 3e6 * report.exact_solves
    assert math.isnan(report.break_even) and "pole" not in report.message


def test_no_support_point_has_weight_zero():
    """More support points than poles ask for: a singular vector may be zero there, and the function 0 / 0."""
    rng = np.random.default_rng(0)
    for count in (12, 24, 36):
        for _ in range(8):
            found = rational.fit(*crowded(rng, count), 1e-12, 1e-6)
            assert found is None or found.weights.all()


def pencil(seed, size=10):
    """Real matrices that are singular at some parameters of the box: A + p B + cos(9 p) C."""
    A, B, C = np.random.default_rng(seed).normal(size=(3, size, size))

    def fn(p):
        x = p.numpy()[:, :, None]
        return A + x * B + np.cos(9 * x) * C

    return nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=torch.float64), nm.Inverse())


@pytest.mark.parametrize(("tol", "most"), [(1e-4, 250), (1e-8, 700)])
@pytest.mark.parametrize("seed", range(4))
def test_poles_in_the_box_are_found_from_samples_beside_them(seed, tol, most):
    problem = pencil(seed)
    report = (surrogate := nm.fit(problem, tol=tol, progress=False)).report
    assert report.met and report.exact_solves <= most and "rational function" in report.message
    p = torch.linspace(0.0003, 0.9997, 2000, dtype=torch.float64)[:, None]
    assert (problem.residual(p, surrogate(p)) > tol).double().mean() < 0.01


def test_real_poles_are_named_once_each():
    """Rounding in samples beside a pole leaves pairs of a pole and a zero there; these are taken away."""
    n = 12
    values = np.linspace(0.11, 0.87, n)
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    H = (Q * values) @ Q.T
    family = nm.ParametricMatrix(lambda x: H - x * np.eye(n), 0.0, 1.0, batched=False)
    report = nm.fit(nm.Problem(family, nm.Inverse()), tol=1e-4, progress=False).report
    named = report.message.split("without bound at p = ")[1].split(";")[0]
    np.testing.assert_allclose(sorted(map(float, named.split(", "))), values, rtol=1e-5)


def test_of_a_peak_of_the_error_one_support_point_is_taken():
    x, miss = np.array([3.0, 1.0, 2.0, 0.0, 4.0, 5.0]), np.array([5.0, 2.0, 9.0, 8.0, 4.0, 7.0])
    assert sorted(rational._highest(x, miss, 3).tolist()) == [2, 3, 5]
    assert rational._highest(x, miss, 1).tolist() == [2]


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_many_problems_with_poles_of_their_own_leave_common_pieces(share):
    problems = [pencil(seed, size=6) for seed in range(5)]
    alone = [nm.fit(problem, tol=1e-6, progress=False).report.exact_solves for problem in problems]
    method = nm.Pieces() if share == 1 else nm.Pieces(share=share)
    together = nm.fit_many(problems, tol=1e-6, method=method, progress=False)
    assert all(surrogate.report.met for surrogate in together)
    assert sum(surrogate.report.exact_solves for surrogate in together) <= 2 * sum(alone)


def test_a_report_says_how_close_to_poles_in_the_box_the_tolerance_is_met():
    """Rounding ends the accuracy of a pole: right beside it no residual of 1e-9 is to be had."""
    n, tol = 24, 1e-9
    values = np.linspace(0.03, 0.97, n)
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    H = (Q * values) @ Q.T
    problem = nm.Problem(nm.ParametricMatrix(lambda x: H - x * np.eye(n), 0.0, 1.0, batched=False), nm.Inverse())
    surrogate = nm.fit(problem, tol=tol, progress=False)
    assert surrogate.report.met and surrogate.report.exact_solves < 1000
    gap = re.search(r"closer to such a place than (\S+) of the box", surrogate.report.message)
    assert gap and n * 2 * float(gap[1]) <= 3.1e-3
    p = np.concatenate([values + side * float(gap[1]) for side in (-1.1, 1.1, 4.0)])
    assert (problem.residual(p, surrogate(p)) <= 2 * tol).all()


@pytest.mark.parametrize("entries", [1, 2, 3])
def test_combinations_that_depend_on_each_other_are_no_further_evidence(entries):
    """Two functions of 8 combinations give two equations a sample: more weights than these fit anything."""
    x = np.cos(np.pi * np.arange(26) / 25)
    rng = np.random.default_rng(entries)
    F = rng.standard_normal((26, entries)) @ rng.standard_normal((entries, 8))
    assert rational.fit(x, F, 2e-12, 1e-3) is None
