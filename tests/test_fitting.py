"""`fit` and `fit_many`: what they share whatever the method, budgets, starts, and every refusal."""

import math
import sys
import warnings
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from conftest import (
    DTYPES,
    CountedInverse,
    assert_close,
    assert_raises,
    easy,
    eps,
    gaussian,
    grid_of,
    parameters,
    real,
    singular_where,
    snapshots_of,
    tensors_of,
    trained,
)

import neumatc as nm
from neumatc import StopReason, fitting
from studies import bases, benchmark


@pytest.mark.parametrize(
    ("operation", "dtype", "possible", "ranks"),
    [
        (nm.Inverse(), torch.float64, 4, [4]),
        (nm.Inverse(), torch.complex128, 8, [8]),
        (nm.SVD(rank=1), torch.float64, 2, [2, 1, 2]),
        (nm.SVD(), torch.complex128, 8, [8, 2, 8]),
    ],
    ids=str,
)
def test_rank_is_limited_by_the_numbers_in_a_factor(operation, dtype, possible, ranks):
    problem = easy(operation, dtype, size=2)
    surrogate = trained(problem, rank=possible, steps=2)
    assert [m.rank for m in surrogate.maps] == ranks
    assert_raises(
        ValueError, ["`rank`", f"at most {possible}", f"got {possible + 1}"], lambda: trained(problem, possible + 1)
    )


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"problem": nm.Inverse()}, TypeError, ["`problem`", "nm.Problem", "Inverse"]),
        ({"rank": 0}, ValueError, ["`rank`", "at least 1", "got 0"]),
        ({"rank": 2.0}, TypeError, ["`rank`", "integer", "2.0"]),
        ({"seed": -1}, ValueError, ["`seed`", "at least 0", "-1"]),
        ({"seed": 2**70}, ValueError, ["`seed`", str(2**70)]),
        ({"seed": True}, TypeError, ["`seed`", "integer", "True"]),
        ({"rank": True}, TypeError, ["`rank`", "integer", "True"]),
        ({"rank": "4"}, TypeError, ["`rank`", "integer", "'4'"]),
        ({"rank": None}, ValueError, ["`rank`", "`tol`", "got neither", "tol=1e-3"]),
        ({"rank": None, "method": nm.ResidualTraining(), "tol": 0.1}, ValueError, ["`rank`", "nm.ClosedForm()"]),
        ({"tol": 0}, ValueError, ["`tol`", "above 0", "got 0"]),
        ({"tol": -1e-3}, ValueError, ["`tol`", "above 0", "-0.001"]),
        ({"tol": math.nan}, ValueError, ["`tol`", "finite", "nan"]),
        ({"tol": math.inf}, ValueError, ["`tol`", "finite", "inf"]),
        ({"tol": "1e-3"}, TypeError, ["`tol`", "number", "'1e-3'"]),
        ({"tol": True}, TypeError, ["`tol`", "number", "True"]),
        ({"budget": -1}, ValueError, ["`budget`", "at least 0", "-1"]),
        ({"budget": True}, TypeError, ["`budget`", "integer", "True"]),
        ({"budget": 2.5}, TypeError, ["`budget`", "integer", "2.5"]),
        ({"budget": "9"}, TypeError, ["`budget`", "integer", "'9'"]),
        ({"start": 3}, TypeError, ["`start`", "nm.Surrogate", "3"]),
        ({"method": nm.ResidualTraining}, TypeError, ["`method`", "nm.ClosedForm()", "class"]),
        ({"method": "closed"}, TypeError, ["`method`", "nm.ClosedForm()", "'closed'"]),
        (
            {"rank": 8, "method": nm.ResidualTraining(collocation=4)},
            ValueError,
            ["`collocation`", "`rank` = 8", "got 4"],
        ),
    ],
)
def test_fit_refuses(arguments, error, words):
    defaults = {"problem": easy(nm.Inverse()), "rank": 2, "progress": False}
    settings = defaults | arguments
    assert_raises(error, words, lambda: nm.fit(settings.pop("problem"), **settings))


@pytest.mark.parametrize("operation", [nm.Inverse(), nm.SVD(rank=2), nm.QR(), nm.LogDet()], ids=str)
def test_the_default_method_is_the_closed_form_and_pieces_with_a_tolerance(operation):
    assert nm.fit(easy(operation), rank=1).report.method == "ClosedForm"
    report = nm.fit(easy(operation), tol=1e-2).report
    assert (report.method, report.met) == ("Pieces", True)
    method = nm.ResidualTraining(steps=2, collocation=8)
    assert nm.fit(easy(operation), rank=1, method=method).report.method == "ResidualTraining"


def test_factors_that_are_not_unique_are_aligned_first(dtype):
    """LAPACK's signs and phases jump along the parameter: no low rank without a gauge, and an accurate fit with it."""
    problem = easy(nm.SVD(rank=2), dtype)
    assert nm.SVD.unique is False and nm.Inverse.unique is True
    surrogate = nm.fit(problem, rank=5, method=nm.ClosedForm(snapshots=24), progress=False)
    assert (surrogate.report.method, surrogate.report.exact_solves) == ("ClosedForm", 24)
    p = grid_of(problem.family, 100)
    assert problem.error(p, surrogate(p)).max() < 1e-4


@dataclass(frozen=True)
class Fixed(nm.Method):
    """A method of a user: another fit's maps, with the task's rank, generator, budget and report."""

    count: int = 3

    def run(self, task):
        p = task.problem.family.box.uniform(self.count, task.generator)
        factors, good = task.solve(p)
        assert good.all() and len(factors[0]) == self.count
        task.note("first")
        task.note("second")
        maps = list(nm.fit(task.problem, rank=task.rank, progress=task.progress).maps)
        task.judge(p, task.residual(maps, p), rank=maps[0].rank, step=2)
        return maps


def test_a_method_of_the_user(solved):
    problem = nm.Problem(easy(nm.Inverse()).family, CountedInverse())
    method = Fixed()
    with pytest.warns(nm.FitWarning, match="0.1 is not met"):  # nothing says that it is
        surrogate = nm.fit(problem, rank=3, tol=1e-1, budget=9, method=method, progress=False)
    report = surrogate.report
    assert (report.method, report.rank, report.tol, report.budget) == ("Fixed", 3, 1e-1, 9)
    assert report.settings == {"count": 3}
    assert report.exact_solves == 3
    assert report.message == "first; second"
    assert report.residual_evaluations > 0
    (entry,) = report.rounds
    assert (entry.rank, entry.exact_solves, entry.step) == (3, 3, 2)
    assert len(entry.worst) == 1


def test_a_task_says_how_much_is_left():
    family = easy(nm.Inverse()).family
    report = nm.Report("x", {}, 3, 0)
    task = nm.Task(nm.Problem(family, nm.Inverse()), 3, None, 4, None, torch.Generator(), report, False)
    assert task.left() == 4
    task.solve(parameters(3))
    assert (task.left(), report.exact_solves) == (1, 3)
    assert replace(task, budget=None).left() > 10**9
    x = 2 * parameters(5) - 1
    assert_close(task.cube(task.box(x)), x)
    for note in ("fails at 3 of 80 parameters", "something else", "fails at 3 of 80 parameters"):
        task.note(note)
    assert report.message == "fails at 3 of 80 parameters; something else"


# Budgets, for gradient training


@pytest.mark.parametrize("budget", [0, 3, 8, 100])
def test_training_keeps_the_budget(budget, solved):
    """A family that is singular on a third of the box makes the fit look there, as far as the budget allows."""
    family = singular_where(lambda p: p > 0.7).family
    surrogate = trained(nm.Problem(family, CountedInverse()), steps=20, budget=budget)
    assert sum(solved) == surrogate.report.exact_solves == min(budget, 8)
    assert surrogate.report.budget == budget


# Beginning from another surrogate


def closed(problem, rank=6, **settings):
    return nm.fit(problem, rank=rank, method=nm.ClosedForm(**settings), progress=False)


@dataclass(frozen=True)
class Recorded(nm.FailureInformedSampling):
    """A sampler that keeps the parameters it has drawn: training judges every round at the first of them."""

    drawn: ClassVar[list[torch.Tensor]] = []

    def estimate(self, *arguments):
        found = super().estimate(*arguments)
        Recorded.drawn.append(found.candidates)
        return found


@pytest.mark.parametrize(("rate", "rounds"), [(1e-12, 5), (1e-6, 1), (1e-4, 5), (1e-2, 1), (1.0, 5)])
@pytest.mark.parametrize("goal", ["residual", "error"])
def test_training_never_ends_above_its_start(goal, rate, rounds):
    """By the measure of the goal, where it is judged: median residual, or error against a Newton step of the start."""
    problem = nm.Problem(nm.families.trigonometric(6, 4, 4.0, dtype=torch.float64), nm.Inverse())
    start = closed(problem, 8, embedding=nm.SinusoidalMLP(width=64, frequency=8.0))
    start.maps[0].core.mul_(1.0 if goal == "error" else 0.7)  # a good start, or a poor one
    kept = {name: t.clone() for name, t in tensors_of(start).items()}
    Recorded.drawn.clear()
    settings = {"learning_rate": rate, "rounds": rounds, "steps": 30}
    surrogate = trained(problem, None, start=start, sampling=Recorded(40, 60, stages=2), **settings)
    p = Recorded.drawn[0]
    if goal == "residual":
        before, after = (float(problem.residual(p, s(p)).median()) for s in (start, surrogate))
    else:
        (target,) = problem.operation.improved(problem.family(p), [start(p)])
        before, after = (benchmark.relative_error(s(p), target) for s in (start, surrogate))
    assert after <= (1 + 1e-9) * before
    assert all(torch.equal(t, kept[name]) for name, t in tensors_of(start).items())
    assert not any(t.requires_grad for t in tensors_of(surrogate).values())
    assert surrogate.maps[0].embedding == start.maps[0].embedding
    assert surrogate.rank == surrogate.report.rank == 8
    assert surrogate.report.rounds[0].step == 0
    assert surrogate.report.exact_solves <= 8


def test_training_improves_a_poor_start():
    problem = easy(nm.Inverse())
    start = trained(problem, steps=1)
    surrogate = trained(problem, None, start=start, steps=300, learning_rate=1e-2, rounds=3)
    p = grid_of(problem.family)
    before, after = (float(problem.residual(p, s(p)).median()) for s in (start, surrogate))
    assert after < 0.5 * before


@pytest.mark.parametrize("dtype", DTYPES[1:3], ids=str)
def test_training_on_the_error_mends_a_disturbed_map(dtype):
    problem = easy(nm.Inverse(), dtype)
    start = closed(problem)
    noise = torch.randn(start.maps[0].core.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    start.maps[0].core.mul_(1 + 0.03 * noise)
    p = grid_of(problem.family, 200)
    exact = problem.exact(p).value
    assert problem.residual(p, start(p)).max() < 0.1
    with pytest.warns(nm.FitWarning, match="train for more steps"):
        surrogate = trained(problem, None, start=start, steps=200, learning_rate=3e-3, tol=1e-9)
    assert surrogate.report.exact_solves == 0
    before, after = (benchmark.relative_error(s(p), exact) for s in (start, surrogate))
    assert after < 0.3 * before


@pytest.mark.parametrize("dtype", DTYPES[1:3], ids=str)
@pytest.mark.parametrize(
    "embedding", [None, bases.RadialBasis(20), bases.FourierExtension(12), nm.SinusoidalMLP()], ids=str
)
def test_a_start_of_every_kind(embedding, dtype):
    problem = easy(nm.Inverse(), dtype)
    start = closed(problem, 4, embedding=embedding)
    start.maps[0].weights["weight_out"].mul_(1.02)
    kept = {name: t.clone() for name, t in tensors_of(start).items()}
    surrogate = trained(problem, 4, start=start, learning_rate=3e-5, steps=100)
    assert all(torch.equal(t, kept[name]) for name, t in tensors_of(start).items())
    moved = {name for name, t in surrogate.maps[0].weights.items() if not torch.equal(t, start.maps[0].weights[name])}
    if start.maps[0].embedding.trainable is not None:
        assert moved == {"weight_out", "bias_out"}
    else:
        assert len(moved) > 2


def test_a_tolerance_is_not_claimed_for_a_map_that_misses_it():
    problem = nm.Problem(nm.families.trigonometric(6, 4, 4.0, dtype=torch.float64), nm.Inverse())
    start = closed(problem, 12, embedding=nm.Chebyshev(24))
    start.maps[0].weights["weight_out"][:, 5] += 0.5  # good except in a small part of the box
    p = grid_of(problem.family, 3000)
    for rate in (1e-3, 1e-2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", nm.FitWarning)  # it may be met or not
            surrogate = trained(problem, None, start=start, steps=60, rounds=4, learning_rate=rate, tol=1e-2)
        failing = float((problem.residual(p, surrogate(p)) > 1e-2).double().mean())
        assert surrogate.report.stop_reason != StopReason.TOLERANCE or failing < 0.02


def test_training_is_not_led_by_newton_steps_from_where_the_start_is_poor():
    x = nm.sampling.sobol(64, torch.zeros(1), torch.ones(1), 0)[:, 0].double().sort().values
    gap = int(x.diff().argmax())
    centre, width = float(x[gap] + x[gap + 1]) / 2, float(x[gap + 1] - x[gap])

    def family(height):
        def fn(p):
            bump = 1 + height * torch.exp(-(((p - centre) / (width / 7)) ** 2))
            return bump[:, :, None] * torch.eye(3, dtype=p.dtype) * (1 + 0.2 * p[:, :, None])

        return nm.ParametricMatrix(fn, [0.0], [1.0], dtype=torch.float64)

    problem = nm.Problem(family(20.0), nm.Inverse())
    flat = closed(nm.Problem(family(0.0), nm.Inverse()), 2, embedding=nm.SinusoidalMLP(width=64, frequency=40.0))
    surrogate = trained(problem, None, start=flat, steps=200, rounds=3, collocation=64, learning_rate=1e-3)
    p = grid_of(problem.family, 3000)
    exact = problem.exact(p).value
    before, after = (benchmark.relative_error(s(p), exact) for s in (flat, surrogate))
    assert after <= 1.02 * before


def test_a_family_that_fails_at_round_zero_returns_the_start():
    base = easy(nm.Inverse()).family
    start = closed(nm.Problem(base, nm.Inverse()))
    points = nm.sampling.sobol(32, base.lower, base.upper, 0)

    def fn(p):
        known = (p[:, None, :] - points).abs().amin(dim=(1, 2)) < 1e-6
        centre = (p - 0.5).abs().amax(dim=1) < 1e-6
        return torch.where((known | centre)[:, None, None], base(p), torch.nan)

    problem = nm.Problem(nm.ParametricMatrix(fn, base.lower, base.upper), nm.Inverse())
    surrogate = trained(problem, None, start=start, collocation=32)
    assert surrogate.report.stop_reason == StopReason.FAMILY
    p = grid_of(base, 20)
    assert_close(surrogate(p), start(p))


def test_many_problems_of_which_one_fails_at_the_check():
    problems = families(3)
    nodes = snapshots_of(22)

    def fn(p):
        near = (p - nodes[:, 0]).abs().amin(dim=1) < 1e-6
        return torch.where((near | (p[:, 0] == 0.5))[:, None, None], problems[1].family(p), torch.nan)

    bad = nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=torch.float64), problems[1].operation)
    many = nm.fit_many([problems[0], bad, problems[2]], rank=3, progress=False)
    assert ["could not be checked" in s.report.message for s in many] == [False, True, False]
    assert [len(s.report.rounds) for s in many] == [1, 0, 1]


def test_problems_from_a_generator():
    assert len(nm.fit_many((p for p in families(3)), rank=3, progress=False)) == 3


def test_a_start_that_diverges_or_fails_returns_the_start():
    problem = easy(nm.Inverse())
    start = closed(problem)
    surrogate = trained(problem, None, start=start, learning_rate=1e200)
    assert surrogate.report.stop_reason == StopReason.DIVERGED
    p = grid_of(problem.family, 20)
    assert_close(surrogate(p), start(p), units=1000)


@pytest.mark.parametrize(
    "other",
    [
        lambda: easy(nm.Inverse(), size=4),
        lambda: easy(nm.Inverse(), torch.float32),
        lambda: easy(nm.Inverse(), torch.complex128),
        lambda: easy(nm.Inverse(), d=2),
        lambda: nm.Problem(easy(nm.Inverse()).family, CountedInverse()),
        lambda: nm.Problem(
            nm.ParametricMatrix(easy(nm.Inverse()).family.fn, [0.0], [0.5], dtype=torch.float64), nm.Inverse()
        ),
    ],
    ids=["size", "precision", "complex", "dimension", "operation", "box"],
)
def test_a_start_of_another_problem_is_refused(other):
    start = closed(other(), 3)
    assert_raises(ValueError, ["`start`", "expected", "got"], lambda: trained(easy(nm.Inverse()), None, start=start))


def test_a_start_of_another_rank_is_refused():
    problem = easy(nm.Inverse())
    start = closed(problem, 3)
    assert_raises(ValueError, ["`rank`", "expected 3", "`start`", "got 4"], lambda: trained(problem, 4, start=start))
    assert trained(problem, None, start=start, steps=2).rank == 3


# The `out` argument


@pytest.mark.parametrize("operation", [nm.Inverse(), nm.SVD(rank=2)], ids=str)
def test_out_receives_the_result(operation, dtype, device):
    surrogate = trained(easy(operation, dtype, device=device), steps=2)
    p = parameters(20, dtype=real(dtype)).to(device)
    value = surrogate(p)
    single = isinstance(value, torch.Tensor)
    out = torch.full_like(value, torch.nan) if single else tuple(torch.full_like(x, torch.nan) for x in value)
    result = surrogate(p, out=out, memory_budget=4000)
    for x, y, z in zip(*([value], [out], [result]) if single else (value, out, result)):
        assert torch.equal(y, z) and y.data_ptr() == z.data_ptr()
        assert_close(y, x, units=1000)
    assert type(result) is type(value)


def test_out_works_under_inference_mode_and_in_a_view():
    surrogate = trained(easy(nm.Inverse()), steps=2)
    p, memory = parameters(4), torch.zeros(3, 4, 3, 3, dtype=torch.float64)
    with torch.inference_mode():
        surrogate(p, out=memory[1])
    assert_close(memory[1], surrogate(p))
    assert (memory[[0, 2]] == 0).all()


@pytest.mark.parametrize(
    ("out", "error", "words"),
    [
        (torch.zeros(4, 3, 2).double(), ValueError, ["`out`", "(5, 3, 3)", "(4, 3, 2)", "torch.empty"]),
        (torch.zeros(4, 3, 3).double(), ValueError, ["`out`", "(5, 3, 3)", "(4, 3, 3)"]),
        (torch.zeros(5, 9).double(), ValueError, ["`out`", "(5, 3, 3)", "(5, 9)"]),
        (torch.zeros(5, 3, 3), TypeError, ["`out`", "torch.float64", "torch.float32"]),
        (torch.zeros(5, 3, 3).cdouble(), TypeError, ["`out`", "torch.float64", "complex128"]),
        (torch.zeros(3, 3, 5).double().permute(2, 0, 1), ValueError, ["`out`", "contiguous", "strides"]),
        (torch.zeros(10, 3, 3).double()[::2], ValueError, ["`out`", "contiguous", "strides"]),
        (torch.zeros(1, 3, 3).double().expand(5, 3, 3), ValueError, ["`out`", "contiguous"]),
        (torch.zeros(5, 3, 3, dtype=torch.float64, device="meta"), ValueError, ["`out`", "cpu", "meta"]),
        ((torch.zeros(5, 3, 3).double(),) * 2, ValueError, ["`out`", "1 tensor", "got 2"]),
        ((), ValueError, ["`out`", "1 tensor", "got 0"]),
        ([[1.0]], (TypeError, ValueError), ["`out`", "[1.0]"]),
        (3, TypeError, ["`out`", "3"]),
        ("out", (TypeError, ValueError), ["`out`"]),
    ],
)
def test_out_is_refused(out, error, words):
    surrogate = trained(easy(nm.Inverse()), steps=2)
    assert_raises(error, words, lambda: surrogate(parameters(5), out=out))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda s, p: torch.empty(4, 3, 3, dtype=torch.complex128).conj(), ["`out`", "plain memory", "conjugated"]),
        (lambda s, p: torch._neg_view(torch.empty(4, 3, 3, dtype=torch.complex128)), ["`out`", "negated"]),
        (lambda s, p: inference(4, 3, 3), ["`out`", "plain memory", "inference_mode"]),
        (lambda s, p: s.maps[0].core, ["`out`", "overlaps", "surrogate"]),
        (lambda s, p: torch.view_as_complex(p.as_strided((4, 3, 3, 2), (18, 6, 2, 1))), ["`out`", "overlaps", "`p`"]),
    ],
    ids=["conjugated", "negated", "inference", "core", "p"],
)
def test_out_must_be_memory_of_its_own(make, words):
    surrogate = closed(easy(nm.Inverse(), torch.complex128), 4)
    p = torch.rand(100, 1, dtype=torch.float64)[:4]
    kept = surrogate.maps[0].core.clone(), p.clone()
    assert_raises(ValueError, words, lambda: surrogate(p, out=make(surrogate, p)))
    assert torch.equal(surrogate.maps[0].core, kept[0]) and torch.equal(p, kept[1])


def inference(*shape):
    with torch.inference_mode():
        return torch.empty(shape, dtype=torch.complex128)


def test_out_of_several_factors_does_not_overlap_with_itself():
    surrogate = trained(easy(nm.QR()), steps=2)
    memory = torch.empty(90, dtype=torch.float64)
    Q, R, shifted = (memory[i : i + 45].view(5, 3, 3) for i in (0, 45, 44))
    p = parameters(5)
    assert_raises(ValueError, ["`out`", "own for R", "overlaps"], lambda: surrogate(p, out=(Q, shifted)))
    assert_close(surrogate(p, out=(Q, R)).R, surrogate(p).R)


def test_out_of_several_factors_is_a_tuple():
    surrogate = trained(easy(nm.SVD(rank=2)), steps=2)
    assert_raises(
        ValueError,
        ["`out`", "3 tensor", "got 1"],
        lambda: surrogate(parameters(5), out=torch.zeros(5, 3, 2).double()),
    )


# Many problems


def families(count, dtype=torch.float64, d=1, size=5, boxes=False):
    """Problems of one kind, on boxes of their own if asked for."""
    problems = []
    for i in range(count):
        base = nm.families.trigonometric(size, 3, 4.0, i, cycles=0.5, dimension=d, dtype=dtype)
        low, width = (10.0 * i, 1.0 + i) if boxes else (0.0, 1.0)
        fn = lambda p, base=base, low=low, width=width: base(((p - low) / width).clamp(0, 1))  # noqa: E731
        family = nm.ParametricMatrix(fn, [low] * d, [low + width] * d, dtype=real(dtype))
        problems.append(nm.Problem(family, CountedInverse()))
    return problems


def assert_same_fits(many, problems, units=1e4, **settings):
    for surrogate, problem in zip(many, problems, strict=True):
        alone = nm.fit(problem, progress=False, **settings)
        p = grid_of(problem.family, 50)
        assert_close(surrogate(p), alone(p), units=units)
        assert torch.equal(surrogate.lower, problem.family.lower)
        assert surrogate.maps[0].embedding == alone.maps[0].embedding
        for name in ("rank", "seed", "tol", "budget", "stop_reason", "message", "exact_solves", "singular"):
            assert getattr(surrogate.report, name) == getattr(alone.report, name), name
        for name in ("collocation", "residual_evaluations", "settings", "method", "version"):
            assert getattr(surrogate.report, name) == getattr(alone.report, name), name
        assert len(surrogate.report.rounds) == len(alone.report.rounds)
        for ours, theirs in zip(surrogate.report.rounds, alone.report.rounds):
            assert ours.worst == theirs.worst or ours.residual_max < 1e-3
            assert (ours.exact_solves, ours.rank) == (theirs.exact_solves, theirs.rank)


@pytest.mark.parametrize(("d", "boxes"), [(1, True), (2, False)])
def test_many_fits_are_those_one_by_one(d, boxes, dtype, solved):
    problems = families(4, dtype, d, boxes=boxes)
    settings = {"rank": 5, "method": nm.ClosedForm(snapshots=24)}
    many = nm.fit_many(problems, **settings, progress=False)
    assert sum(solved) == 4 * 24
    assert len(solved) == 1  # one batch
    assert [s.report.exact_solves for s in many] == [24] * 4
    assert_same_fits(many, problems, **settings)


@pytest.mark.parametrize("settings", [{"tol": 1e-3}, {"rank": 4, "budget": 0}, {"rank": 4, "budget": 9}], ids=str)
def test_many_fits_to_a_tolerance_or_a_budget(settings):
    problems = families(3)
    assert_same_fits(nm.fit_many(problems, **settings, progress=False), problems, **settings)


@pytest.mark.parametrize(
    "embedding", [nm.SinusoidalMLP(width=64, frequency=6.0), bases.RadialBasis(50), nm.Chebyshev(30)], ids=str
)
@pytest.mark.parametrize("d", [1, 2])
def test_many_fits_with_drawn_features(embedding, d):
    problems = families(3, d=d)
    settings = {"rank": 5, "method": nm.ClosedForm(embedding, snapshots=30), "seed": 5}
    assert_same_fits(nm.fit_many(problems, **settings, progress=False), problems, units=1e7, **settings)


@pytest.mark.parametrize("d", [1, 2])
def test_one_family_of_many_is_singular_at_a_node(d):
    problems = families(3, d=d)
    node = snapshots_of(24, d)[7]

    def fn(p, base=problems[1].family):
        near = ((p - node).abs().amax(dim=1) < 1e-9)[:, None, None]
        return torch.where(near, 0.0, base(p))

    problems[1] = nm.Problem(nm.ParametricMatrix(fn, [0.0] * d, [1.0] * d, dtype=torch.float64), CountedInverse())
    everywhere = nm.ParametricMatrix(
        lambda p: torch.ones(len(p), 5, 5, dtype=torch.float64), [0.0] * d, [1.0] * d, dtype=torch.float64
    )
    problems.append(nm.Problem(everywhere, CountedInverse()))
    settings = {"rank": 5, "method": nm.ClosedForm(snapshots=24)}
    many = nm.fit_many(problems, **settings, progress=False)
    assert [len(s.report.singular) for s in many] == [0, 1, 0, 24]
    assert many[3].report.stop_reason == StopReason.SINGULAR
    assert_same_fits(many, problems, **settings)


@pytest.mark.parametrize("d", [1, 2])
def test_many_families_of_different_numerical_rank(d, dtype):
    problems = families(2, dtype, d)
    A = gaussian(5, 5, dtype=dtype) + 5 * torch.eye(5, dtype=dtype)
    constant = nm.ParametricMatrix(lambda p: A.expand(len(p), 5, 5), [0.0] * d, [1.0] * d, dtype=real(dtype))
    problems.insert(1, nm.Problem(constant, CountedInverse()))
    settings = {"rank": 6, "method": nm.ClosedForm(snapshots=24)}
    many = nm.fit_many(problems, **settings, progress=False)
    assert [s.rank for s in many] == [6, 1, 6]
    assert "rank 1 instead of 6" in many[1].report.message
    assert many[0].report.message == ""
    p = grid_of(constant, 20)
    assert problems[1].residual(p, many[1](p)).max() < 1e3 * eps(dtype)
    assert_same_fits(many, problems, **settings)


def test_many_fits_of_factors_with_a_gauge(dtype):
    """Every problem is aligned on its own: one of them follows more vectors, because two cross."""
    problems = [easy(nm.SVD(rank=1), dtype, seed=i) for i in range(2)]

    def crossing(p):
        values = torch.cat([2 + 2 * p, 4 - 2 * p, 1 + 0 * p], dim=1)
        return torch.diag_embed(values).to(dtype)

    problems.insert(1, nm.Problem(nm.ParametricMatrix(crossing, [0.0], [1.0], dtype=real(dtype)), nm.SVD(rank=1)))
    settings = {"rank": 3, "method": nm.ClosedForm(snapshots=24)}
    many = nm.fit_many(problems, **settings, progress=False)
    assert [[e.kind for e in s.report.events] for s in many] == [[], ["crossing"], []]
    assert [s.maps[1].core.shape[1] for s in many] == [1, 2, 1]
    for surrogate, problem in zip(many, problems, strict=True):
        alone = nm.fit(problem, **settings, progress=False)
        p = grid_of(problem.family, 50)
        assert_close(problem.operation.invariant(surrogate(p)), problem.operation.invariant(alone(p)), units=1e4)
        assert problem.error(p, surrogate(p)).max() < 5e-3  # a wrong sign: 2
        assert (surrogate.report.events, surrogate.report.rank) == (alone.report.events, alone.report.rank)
        assert surrogate.report.exact_solves == alone.report.exact_solves == 24


def test_more_problems_than_a_batch_holds(monkeypatch, solved):
    problems = families(7, size=3)
    monkeypatch.setitem(fitting._BATCH_BYTES, "cpu", 8 * 9 * (2 * 3 + 16) * 3)
    many = nm.fit_many(problems, rank=3, progress=False)
    assert len(solved) == 3
    assert_same_fits(many, problems, rank=3)


def test_families_that_fail_among_many_are_named_and_the_others_are_fitted():
    """Without exact solutions every collocation point is needed."""
    settings = {"budget": 0}
    good = families(4)

    def undefined(p):
        return torch.where(p[:, :, None] > 0.9, torch.nan, good[0].family(p))

    def raising(p):
        assert (p < 0.9).all(), "out of range"
        return good[0].family(p)

    bad = [
        nm.Problem(nm.ParametricMatrix(f, [0.0], [1.0], dtype=torch.float64), CountedInverse())
        for f in (undefined, raising)
    ]
    problems = [*good[:2], bad[0], *good[2:], bad[1]]
    with pytest.raises(nm.FamilyError) as caught:
        nm.fit_many(problems, rank=3, progress=False, **settings)
    words = [
        "`problems`",
        "2 of 6",
        "problem 2",
        "NaN or Inf",
        "problem 5",
        "AssertionError: out of range",
        "`surrogates`",
    ]
    assert_raises(nm.FamilyError, words, lambda: nm.fit_many(problems, rank=3, progress=False, **settings))
    fitted = caught.value.surrogates
    assert [s is None for s in fitted] == [False, False, True, False, False, True]
    assert_same_fits([s for s in fitted if s], good, rank=3, **settings)
    with pytest.raises(nm.FamilyError) as alone:
        nm.fit(bad[0], rank=3, progress=False, **settings)
    assert str(alone.value) in str(caught.value) and not alone.value.surrogates


# What the process and the family bring along


WAYS = {
    "closed form": {"rank": 4},
    "tolerance": {"rank": 4, "tol": 1e-3},
    "residual": {"rank": 4, "budget": 0},
    "training": {"rank": 4, "method": nm.ResidualTraining(steps=30, collocation=64, batch=16, rounds=3)},
}
each_way = pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)


def used(problem, settings):
    """All that a user gets: the tensors of a fit, its values, their measures, and what `certify` says."""
    surrogate, p = nm.fit(problem, **settings, progress=False), grid_of(problem.family, 30)
    X, certified = surrogate(p), nm.certify(surrogate, problem, p, rtol=1e-4)
    measures = [problem.exact(p).value, problem.residual(p, X), problem.error(p, X)]
    return [*tensors_of(surrogate).values(), X, *measures, certified.value, certified.bound]


@each_way
def test_autocast_changes_nothing(settings):
    problem = easy(nm.Inverse(), torch.float32)
    expected = used(problem, settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(torch.equal(x, y) for x, y in zip(used(problem, settings), expected, strict=True))
        assert easy(nm.Inverse(), torch.float32).family.dtype == torch.float32


@each_way
@pytest.mark.parametrize("default", [torch.float16, torch.bfloat16, torch.float64])
def test_the_default_dtype_changes_nothing(default, settings):
    problem = easy(nm.Inverse(), torch.float32)
    expected, before = used(problem, settings), torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        found = used(problem, settings)
    finally:
        torch.set_default_dtype(before)
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize("default", [torch.float16, torch.float32])
def test_the_default_dtype_does_not_round_the_places_of_events(default):
    def crossing(p):
        return torch.diag_embed(torch.cat([2 + 2 * p, 3.9 - 2 * p, 1 + 0 * p], dim=1))

    problem = nm.Problem(nm.ParametricMatrix(crossing, [0.0], [1.0], dtype=torch.float64), nm.SVD(rank=2))
    found, before = [], torch.get_default_dtype()
    for dtype in (default, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            found.append(nm.fit(problem, rank=3, progress=False).report.events)
        finally:
            torch.set_default_dtype(before)
    assert found[0] == found[1] and len(found[0]) == 1


@each_way
def test_a_family_that_reuses_its_memory_changes_nothing(settings):
    problem, memory = easy(nm.Inverse()), torch.empty(2000, 3, 3, dtype=torch.float64)
    family = problem.family

    def fn(p):
        out = memory[: len(p)].copy_(family(p))
        p.zero_()
        return out

    reusing = nm.Problem(nm.ParametricMatrix(fn, family.lower, family.upper), nm.Inverse())
    for x, y in zip(used(reusing, settings), used(problem, settings), strict=True):
        assert torch.equal(x, y)
    many = nm.fit_many([reusing, reusing], rank=4, progress=False)
    assert_close(many[1](grid_of(family, 9)), nm.fit(problem, rank=4, progress=False)(grid_of(family, 9)), units=1e4)


def gone_after(calls, family):
    """A family that raises at every call after some."""
    seen = []

    def fn(p):
        seen.append(len(p))
        if len(seen) > calls:
            raise RuntimeError("the simulator is gone")
        return family(p)

    return nm.Problem(nm.ParametricMatrix(fn, family.lower, family.upper), nm.Inverse())


def test_a_family_that_raises_later_ends_a_training_with_what_there_is():
    family = easy(nm.Inverse()).family
    surrogate = nm.fit(gone_after(4, family), **WAYS["training"])
    assert surrogate.report.stop_reason == StopReason.FAMILY
    assert "RuntimeError: the simulator is gone" in surrogate.report.message
    assert surrogate(grid_of(family, 9)).isfinite().all()


@pytest.mark.parametrize("d", [1, 2])
def test_a_family_that_raises_later_ends_a_fit_to_a_tolerance_with_what_there_is(d):
    """Few parameters at which it raises count as undefined; where it does so at all of many, the family has failed."""
    problem = easy(nm.Inverse(), d=d)
    with pytest.warns(nm.FitWarning, match="the tolerance 1e-12 is not met"):
        surrogate = nm.fit(gone_after(4, problem.family), tol=1e-12, progress=False)
    report = surrogate.report
    assert report.stop_reason == StopReason.FAMILY and report.unmet and not report.met
    assert "RuntimeError: the simulator is gone" in report.message
    p = grid_of(problem.family, 200)
    assert problem.error(p, surrogate(p)).median() < 0.1


def test_a_family_that_raises_in_a_part_of_two_parameters_is_fitted_in_the_rest():
    """Its first grid has more than a hundred parameters, and it raises for all of them at once."""
    inner = easy(nm.Inverse(), d=2).family
    middle = (inner.lower + inner.upper) / 2

    def fn(p):
        if (p > middle + (inner.upper - middle) / 2).all(dim=1).any():
            raise RuntimeError("not converged")
        return inner(p)

    problem = nm.Problem(nm.ParametricMatrix(fn, inner.lower, inner.upper), nm.Inverse())
    with pytest.warns(nm.FitWarning, match="RuntimeError: not converged"):
        surrogate = nm.fit(problem, tol=1e-6, progress=False)
    assert surrogate.report.stop_reason != StopReason.FAMILY
    p = grid_of(inner, 200)
    p = p[(p < middle).any(dim=1)]
    assert nm.Problem(inner, nm.Inverse()).error(p, surrogate(p)).median() < 1e-6


def test_surrogates_of_a_batch_are_saved_alone(tmp_path):
    """They share memory; a file holds its own surrogate only, and `to` makes it independent."""
    problems = families(6)
    many = nm.fit_many(problems, rank=4)
    alone = nm.fit(problems[2], rank=4)
    nm.save(many[2], tmp_path / "many")
    nm.save(alone, tmp_path / "alone")
    sizes = [(tmp_path / name).stat().st_size for name in ("many", "alone")]
    assert abs(sizes[0] - sizes[1]) < 200
    p = grid_of(problems[2].family, 9)
    assert_close(nm.load(tmp_path / "many")(p), many[2](p), units=1000)


def test_one_problem_of_many():
    (problem,) = families(1)
    for given in ([problem], (problem,), problem):
        (surrogate,) = nm.fit_many(given, rank=3)
        assert_same_fits([surrogate], [problem], rank=3)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: [], ValueError, ["`problems`", "at least one", "none"]),
        (lambda: [3], TypeError, ["`problem`", "nm.Problem", "int"]),
        (lambda: 3, TypeError, ["`problem`", "nm.Problem", "int"]),
        (lambda: [easy(nm.Inverse()), easy(nm.Inverse(), size=4)], ValueError, ["`problems`", "problem 1", "groups"]),
        (lambda: [easy(nm.Inverse()), easy(nm.Inverse(), torch.float32)], ValueError, ["`problems`", "problem 1"]),
        (lambda: [easy(nm.Inverse())] * 2 + [easy(nm.Inverse(), d=2)], ValueError, ["`problems`", "problem 2"]),
        (
            lambda: [easy(nm.Inverse()), nm.Problem(easy(nm.Inverse()).family, CountedInverse())],
            ValueError,
            ["`problems`", "problem 1"],
        ),
    ],
)
def test_fit_many_refuses_problems(make, error, words):
    assert_raises(error, words, lambda: nm.fit_many(make(), rank=2))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({}, ValueError, ["`rank`", "`tol`", "neither"]),
        ({"rank": 3, "method": nm.ResidualTraining()}, TypeError, ["`method`", "nm.ClosedForm()", "nm.fit"]),
        ({"rank": 3, "method": nm.ClosedForm}, TypeError, ["`method`", "nm.ClosedForm()"]),
        ({"rank": 10}, ValueError, ["`rank`", "at most 9", "got 10"]),
        ({"tol": -1}, ValueError, ["`tol`", "above 0"]),
        ({"rank": 3, "budget": -1}, ValueError, ["`budget`", "at least 0"]),
        ({"rank": 3, "seed": -1}, ValueError, ["`seed`", "at least 0"]),
    ],
)
def test_fit_many_refuses_settings(settings, error, words):
    assert_raises(error, words, lambda: nm.fit_many([easy(nm.Inverse())] * 2, **settings))


def test_progress_is_quiet_on_request_and_never_on_stdout(capsys):
    nm.fit(easy(nm.Inverse()), rank=2, method=nm.ResidualTraining(steps=3, collocation=8), progress=False)
    assert capsys.readouterr() == ("", "")
    nm.fit(easy(nm.Inverse()), rank=2, method=nm.ResidualTraining(steps=3, collocation=8))
    assert capsys.readouterr().out == ""
    assert "tqdm" in sys.modules
    for settings in ({"rank": 3}, {"tol": 1e-2}):
        nm.fit(easy(nm.Inverse()), **settings, progress=False)
        assert capsys.readouterr() == ("", "")
        nm.fit(easy(nm.Inverse()), **settings)
        assert capsys.readouterr().out == ""
    nm.fit_many([easy(nm.Inverse())] * 2, rank=3, progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("value", "text"), [(0.0, "< 1/1,000"), (0.0123, "0.012"), (1.0, "1")])
def test_no_failure_among_the_draws_is_not_shown_as_zero(value, text):
    entry = nm.Round(0, value, 0.0, 1e-4, 1e-3, draws=1000)
    report = nm.Report("Pieces", {}, 3, 0, rounds=[entry])
    assert report.probability(entry) == text
    assert f"failure probability {text} (estimate)" in str(report)
    assert nm.Report("Method", {}, 3, 0).probability(nm.Round(0, 0.0, 0.0, 1.0, 1.0)) == "0"


# What one part of a box or one problem of many does to the rest


def hermitian_up_to(edge, skew=0.3):
    """Positive definite matrices 3 x 3, with a part above ``edge`` that is not Hermitian."""

    def fn(p):
        A = torch.diag_embed(3 + torch.cos(7 * p) * torch.ones(3, dtype=p.dtype))
        A[:, 0, 1] += torch.where(p[:, 0] > edge, skew, 0.0)
        return A

    return nm.ParametricMatrix(fn, [0.0], [1.0], dtype=torch.float64)


def test_a_part_that_is_not_hermitian_does_not_end_a_fit_to_a_tolerance():
    problem = nm.Problem(hermitian_up_to(0.9), nm.Cholesky())
    with pytest.warns(nm.FitWarning, match=r"the tolerance 0\.001 is not met: \["):
        surrogate = nm.fit(problem, tol=1e-3, budget=100, progress=False)
    report = surrogate.report
    assert report.exact_solves > 16 and all(p > 0.9 for (p,) in report.singular)
    assert all(unmet.upper[0] > 0.9 for unmet in report.unmet)
    p = 0.8 * parameters(200)
    assert problem.residual(p, surrogate(p)).max() < 1e-3


def test_fit_many_names_a_family_that_does_not_suit_the_operation():
    problems = [nm.Problem(hermitian_up_to(edge), nm.Cholesky()) for edge in (1.0, -1.0, 1.0)]
    with pytest.raises(nm.FamilyError, match=r"problem 1: .*expected Hermitian") as caught:
        nm.fit_many(problems, rank=2)
    assert [s is not None for s in caught.value.surrogates] == [True, False, True]


def test_memory_that_runs_out_is_no_failure_of_the_family():
    def fn(p):
        if len(p) > 1:
            raise torch.OutOfMemoryError("no memory")
        return torch.eye(2, dtype=p.dtype).repeat(len(p), 1, 1)

    problem = nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=torch.float64), nm.Inverse())
    with pytest.raises(torch.OutOfMemoryError):
        nm.fit(problem, rank=1)
