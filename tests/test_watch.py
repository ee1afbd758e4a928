"""What ends a fit before it is done: its time, Ctrl-C, a lack of memory. The best map so far is returned."""

import functools
import math
import random
import sys
import warnings
from dataclasses import dataclass

import pytest
import torch
from conftest import assert_raises, generator, state_of_the_process, tensors_of, trained

import neumatc as nm
from neumatc import StopReason, fitting
from neumatc.watch import memory

F64 = torch.float64
MEMORY = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")]


class Stopping:
    """A function that raises at its k-th call, if k is given; it counts its calls."""

    def __init__(self, fn):
        self.fn, self.calls, self.k, self.error = fn, 0, None, KeyboardInterrupt()

    def __call__(self, p):
        self.calls += 1
        if self.calls == self.k:
            raise self.error
        return self.fn(p)

    def at(self, k, error=None):
        self.calls, self.k, self.error = 0, k, error or self.error
        return self


def stopping(family, operation=None):
    """A problem whose function can be told to raise, and the function."""
    fn = Stopping(family)
    family = nm.ParametricMatrix(fn, family.lower, family.upper, dtype=family.lower.dtype)
    return nm.Problem(family, operation or nm.Inverse()), fn


def waves(d=1, size=4, seed=0):
    cycles = {1: 2.0, 2: 1.0, 3: 0.4}[d]
    return nm.families.trigonometric(size, 3, 3.0, seed, cycles=cycles, dimension=d, dtype=F64)


def peaks():
    """A resonance, for which a rational function serves."""
    entries = lambda p: torch.stack([p[:, 0] - 0.4 - 1e-3j, 2 - p[:, 0] + 0j], dim=1)  # noqa: E731
    return nm.ParametricMatrix(lambda p: torch.diag_embed(entries(p)), 0.0, 1.0, dtype=F64)


def jumping():
    def fn(p):
        return torch.diag_embed(torch.stack([2 + torch.sin(3 * p[:, 0]) + (p[:, 0] > 0.337), 3 + p[:, 0]], dim=1))

    return nm.ParametricMatrix(fn, 0.0, 1.0, dtype=F64)


def fitted(problem, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)
        return nm.fit(problem, progress=False, **settings)


def assert_usable(problem, surrogate):
    """Finite everywhere, and good outside of the boxes in which the report says that the tolerance is not met."""
    report, p = surrogate.report, problem.family.box.uniform(200, generator())
    value = surrogate(p)
    assert all(x.isfinite().all() for x in (value if isinstance(value, tuple) else (value,)))
    assert not report.met and report.seconds > 0
    if report.tol is not None:
        assert report.unmet
        outside = torch.ones(len(p), dtype=torch.bool)
        for unmet in report.unmet:
            outside &= ~((p >= torch.tensor(unmet.lower)) & (p <= torch.tensor(unmet.upper))).all(dim=1)
        failing = problem.residual(p, value)[outside] > report.tol
        assert failing.sum() <= 0.05 * len(p)


# Interrupts

CASES = {
    "pieces": (lambda: stopping(waves()), {"tol": 1e-6}),
    "vectors": (lambda: stopping(waves(), nm.SVD(rank=2)), {"tol": 1e-3}),
    "two parameters": (lambda: stopping(waves(2)), {"tol": 1e-3}),
    "sparse": (lambda: stopping(waves(3)), {"tol": 1e-2}),
    "rational": (lambda: stopping(peaks()), {"tol": 1e-6}),
    "jump": (lambda: stopping(jumping()), {"tol": 1e-4}),
    "budget": (lambda: stopping(waves()), {"tol": 1e-8, "budget": 40}),
    "residuals that solve": (lambda: stopping(waves(), nm.LogDet()), {"tol": 1e-4}),
    "closed form": (lambda: stopping(waves()), {"rank": 8}),
    "closed form in two": (lambda: stopping(waves(2, size=2)), {"rank": 4}),
}


@functools.cache
def calls(name):
    """How often a fit that is not interrupted calls the function."""
    make, settings = CASES[name]
    problem, fn = make()
    fn.at(None)
    fitted(problem, **settings)
    return fn.calls


class Interrupting:
    """Ctrl-C at the k-th call of any function, once a fit has its maps; it counts these calls."""

    def __init__(self, monkeypatch, after):
        self.calls, self.k, run = 0, None, getattr(*after)

        def watched(*args, **kwargs):
            found = run(*args, **kwargs)
            sys.setprofile(self)
            return found

        monkeypatch.setattr(*after, watched)

    def __call__(self, frame, event, argument):
        if frame.f_code.co_name == "_complete":
            sys.setprofile(None)  # microseconds before the fit returns
        elif event == "call" and "neumatc" in frame.f_code.co_filename:
            self.calls += 1
            if self.calls == self.k:
                sys.setprofile(None)
                raise KeyboardInterrupt

    def during(self, fit, k=None):
        self.calls, self.k = 0, k
        try:
            return fit()
        finally:
            sys.setprofile(None)


@pytest.mark.parametrize("operation", [nm.Inverse(), nm.SVD(rank=2), nm.Eigh(rank=2, order="followed")], ids=str)
@pytest.mark.parametrize("settings", [{"tol": 1e-3}, {"rank": 6}], ids=str)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of generators that it ends
def test_an_interrupt_after_the_last_solve_loses_nothing(monkeypatch, operation, settings):
    own = waves()
    family = nm.ParametricMatrix(lambda p: (A := own(p)) + A.mT, 0.0, 1.0, dtype=F64)
    problem, interrupt = nm.Problem(family, operation), Interrupting(monkeypatch, (fitting, "_run"))
    whole = interrupt.during(lambda: fitted(problem, **settings))
    p = family.box.uniform(50, generator())
    for k in range(1, interrupt.calls, max(1, interrupt.calls // 15)):
        surrogate = interrupt.during(lambda: fitted(problem, **settings), k)
        assert surrogate.report.met == whole.report.met and surrogate.report.seconds > 0
        assert problem.residual(p, surrogate(p)).max() <= 2 * problem.residual(p, whole(p)).max() + 1e-12


@pytest.mark.parametrize("place", ["_run", "_finished"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of generators that it ends
def test_an_interrupt_among_many_problems_keeps_those_that_have_maps(monkeypatch, place):
    problems = [nm.Problem(waves(seed=seed), nm.Inverse()) for seed in range(3)]
    interrupt = Interrupting(monkeypatch, (fitting, place))
    interrupt.during(lambda: nm.fit_many(problems, tol=1e-3, progress=False))
    for k in range(1, interrupt.calls, max(1, interrupt.calls // 10)):
        found = interrupt.during(lambda: nm.fit_many(problems, tol=1e-3, progress=False), k)
        assert all(
            problem.residual(p := torch.rand(50, 1, dtype=F64), s(p)).max() < 1e-2
            for problem, s in zip(problems, found)
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of generators that it ends
def test_an_interrupt_of_separate_fits_keeps_the_common_map(monkeypatch):
    """What common pieces do not serve is fitted alone, from what was solved for all; the common map stays till then."""
    problems = [nm.Problem(family, nm.Inverse()) for family in (waves(size=2), jumping())]
    interrupt, p = Interrupting(monkeypatch, (nm.Pieces, "_fit")), torch.rand(50, 1, dtype=F64)

    def many():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", nm.FitWarning)
            return nm.fit_many(problems, tol=1e-6, progress=False)

    interrupt.during(many)
    for k in range(1, interrupt.calls, max(1, interrupt.calls // 60)):
        smooth, jumps = interrupt.during(many, k)
        assert problems[0].residual(p, smooth(p)).median() < (1e-5 if smooth.report.met else 0.5)
        assert jumps(p).isfinite().all() and not jumps.report.met


@pytest.mark.parametrize("seed", range(50))
def test_an_interrupt_at_any_call_leaves_a_usable_surrogate(seed):
    name = list(CASES)[seed % len(CASES)]
    make, settings = CASES[name]
    problem, fn = make()
    first = 2 + problem.family.dtype.is_complex  # of which it is looked first whether they turn
    fn.at(random.Random(seed).randint(first, calls(name)))
    surrogate = fitted(problem, **settings)
    assert surrogate.report.stop_reason == StopReason.INTERRUPTED
    assert surrogate.report.exact_solves > 0
    assert_usable(problem, surrogate)


@pytest.mark.parametrize("name", CASES)
def test_before_the_first_solves_an_interrupt_goes_on_to_the_caller(name):
    make, settings = CASES[name]
    problem, fn = make()
    fn.at(1)
    with pytest.raises(KeyboardInterrupt):
        fitted(problem, **settings)


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", ["pieces", "sparse", "closed form in two"])
def test_a_lack_of_memory_is_an_end_too(name, error):
    make, settings = CASES[name]
    problem, fn = make()
    fn.at(2, error)
    surrogate = fitted(problem, **settings)
    assert surrogate.report.stop_reason == StopReason.MEMORY
    assert_usable(problem, surrogate)


@dataclass(frozen=True)
class Interrupted(nm.Inverse):
    """An inverse whose residual fails."""

    message: str = ""

    def residual(self, A, factors):
        raise RuntimeError(self.message)


def test_torch_says_on_a_cpu_in_words_that_memory_ran_out():
    problem = nm.Problem(
        waves(), Interrupted("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
    )
    assert fitted(problem, tol=1e-3).report.stop_reason == StopReason.MEMORY


def test_another_error_is_raised():
    with pytest.raises(RuntimeError, match="not about that"):
        fitted(nm.Problem(waves(), Interrupted("not about that")), tol=1e-3)


def test_pieces_that_have_passed_are_not_named():
    problem, fn = stopping(jumping())
    fn.at(None)
    fitted(problem, tol=1e-4)
    fn.at(fn.calls - 4)
    surrogate = fitted(problem, tol=1e-4)
    width = sum(unmet.upper[0] - unmet.lower[0] for unmet in surrogate.report.unmet)
    assert surrogate.report.unmet and width < 0.5


@pytest.mark.parametrize("settings", [{"tol": 1e-6}, {"rank": 8}], ids=str)
def test_the_user_is_told_with_a_remedy(settings):
    problem, fn = stopping(waves())
    fn.at(2)
    with pytest.warns(nm.FitWarning, match="it was interrupted.*; let it run to its end"):
        nm.fit(problem, progress=False, **settings)


@pytest.mark.parametrize("settings", [{"tol": 1e-6}, {"rank": 8}], ids=str)
def test_a_fit_that_was_stopped_names_no_pole_by_its_few_snapshots(settings):
    problem, fn = stopping(peaks())
    fn.at(3)  # first it is looked whether it turns
    with pytest.warns(nm.FitWarning, match="it was interrupted") as caught:
        nm.fit(problem, progress=False, **settings)
    assert not any("pole" in str(warning.message) for warning in caught)


def test_what_is_interrupted_after_the_snapshots_is_interpolated_from_these():
    problem, fn = stopping(waves(2, size=2))
    fn.at(2)
    stopped = fitted(problem, rank=4)
    fn.at(None)
    plain = fitted(problem, rank=4, method=nm.ClosedForm(projections=0))
    assert all(map(torch.equal, tensors_of(stopped).values(), tensors_of(plain).values()))


@pytest.mark.parametrize("name", ["pieces", "closed form in two"])
def test_an_interrupt_leaves_the_process_as_it_was(name):
    make, settings = CASES[name]
    problem, fn = make()
    fn.at(2)
    before = state_of_the_process()
    fitted(problem, **settings)
    assert state_of_the_process() == before


def test_a_second_interrupt_while_the_map_is_made_goes_on_to_the_caller(monkeypatch):
    problem, fn = stopping(waves(), nm.SVD(rank=2))
    fn.at(3)

    def align(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(nm.SVD, "align", align)
    with pytest.raises(KeyboardInterrupt):
        fitted(problem, tol=1e-3)


# Time


@pytest.mark.parametrize("name", CASES)
def test_without_time_the_first_solves_are_finished(name):
    make, settings = CASES[name]
    problem, _ = make()
    surrogate = fitted(problem, time_limit=1e-9, **settings)
    assert surrogate.report.stop_reason == StopReason.TIME
    assert 0 < surrogate.report.exact_solves < 60
    assert_usable(problem, surrogate)


@pytest.mark.parametrize("settings", [{"tol": 1e-6}, {"rank": 8}], ids=str)
def test_time_enough_changes_nothing(settings):
    problem = nm.Problem(waves(), nm.Inverse())
    first, second = (fitted(problem, time_limit=limit, **settings) for limit in (None, 1e6))
    assert all(map(torch.equal, tensors_of(first).values(), tensors_of(second).values()))
    assert first.report.stop_reason == second.report.stop_reason


@pytest.mark.parametrize(
    ("limit", "error"), [(0, ValueError), (-1.0, ValueError), (math.nan, ValueError), ("1", TypeError)]
)
@pytest.mark.parametrize("fit", [nm.fit, nm.fit_many])
def test_a_limit_that_is_none_is_refused(limit, error, fit):
    problem = nm.Problem(waves(), nm.Inverse())
    problem = [problem] if fit is nm.fit_many else problem
    assert_raises(error, ["`time_limit`", "number"], lambda: fit(problem, tol=1e-2, time_limit=limit))


# Many problems


def several(count=4, operation=None):
    pairs = [stopping(waves(seed=seed), operation) for seed in range(count)]
    return [problem for problem, _ in pairs], [fn.at(None) for _, fn in pairs]


def many(problems, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)
        return nm.fit_many(problems, progress=False, **settings)


@pytest.mark.parametrize("settings", [{"tol": 1e-6}, {"rank": 8}], ids=str)
@pytest.mark.parametrize("who", [0, 3])
def test_an_interrupt_of_many_leaves_a_surrogate_of_each(settings, who):
    problems, fns = several()
    fns[who].at(2)
    surrogates = many(problems, **settings)
    assert len(surrogates) == 4
    assert surrogates[who].report.stop_reason == StopReason.INTERRUPTED
    for problem, surrogate in zip(problems, surrogates):
        assert surrogate(problem.family.box.uniform(50, generator())).isfinite().all()


def test_surrogates_fitted_before_an_interrupt_are_kept():
    problems, fns = several(3, nm.SVD(rank=2))
    fns[1].at(3)
    with pytest.raises(KeyboardInterrupt) as caught:
        many(problems, tol=1e-3)
    first, second, third = caught.value.surrogates
    assert first.report.met and second.report.stop_reason == StopReason.INTERRUPTED and third is None
    assert fns[2].calls == 0


def test_many_problems_share_a_time():
    problems, _ = several(3, nm.SVD(rank=2))
    surrogates = many(problems, tol=1e-3, time_limit=1e-9)
    assert [surrogate.report.stop_reason for surrogate in surrogates] == [StopReason.TIME] * 3


# Memory that is not there


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 4, "method": nm.ClosedForm(snapshots=10**12)},
        {"rank": 4, "method": nm.ResidualTraining(collocation=10**12)},
    ],
    ids=["closed form", "training"],
)
def test_what_cannot_fit_into_memory_is_refused_before_any_work(settings):
    problem, fn = stopping(waves())
    fn.at(None)
    words = ["GB", "exact solutions", "lower the rank"]
    assert_raises(MemoryError, words, lambda: nm.fit(problem, progress=False, **settings))
    assert fn.calls == 0


@pytest.mark.parametrize(
    ("controller", "group", "files", "expected"),
    [
        ("0::", "/job/step", {"job/step/memory.max": "max", "job/memory.max": "3000", "memory.max": "9000"}, 3000),
        ("0::", "/", {"memory.max": "5000"}, 5000),
        ("0::", "/docker/a", {"memory.max": "6000"}, 6000),
        ("7:memory:", "/docker/a", {"memory/docker/a/memory.limit_in_bytes": "7000"}, 7000),
        ("7:cpu:", "/a", {"a/memory.max": "1", "memory/a/memory.limit_in_bytes": "1"}, None),
        ("0::", "/", {}, None),
    ],
    ids=["batch system", "container", "container within", "version 1", "another controller", "no limit"],
)
def test_memory_ends_at_the_limit_of_a_control_group(tmp_path, controller, group, files, expected):
    for name, text in {
        "proc/self/cgroup": controller + group,
        **{f"sys/fs/cgroup/{k}": v for k, v in files.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert memory(torch.device("cpu"), tmp_path) == (expected or memory(torch.device("cpu"), tmp_path / "nothing"))


# Training


@pytest.mark.parametrize(("k", "rounds"), [(3, 0), (8, 2)])
def test_interrupted_training_returns_what_it_has_learned(k, rounds):
    problem, fn = stopping(waves(size=2))
    fn.at(k)
    surrogate = trained(problem, steps=20, rounds=4, failure_probability=0.0, tol=1e-9)
    assert surrogate.report.stop_reason == StopReason.INTERRUPTED
    assert surrogate.report.steps and not surrogate.report.met and len(surrogate.report.rounds) >= rounds
    assert surrogate(problem.family.box.uniform(50, generator())).isfinite().all()


def test_training_without_time_returns_its_start():
    problem = nm.Problem(waves(size=2), nm.Inverse())
    start = fitted(problem, rank=4)
    method = nm.ResidualTraining(collocation=32)
    surrogate = fitted(problem, start=start, method=method, time_limit=1e-9)
    assert surrogate.report.stop_reason == StopReason.TIME
    assert torch.equal(surrogate.maps[0].numbers, start.maps[0].numbers)
