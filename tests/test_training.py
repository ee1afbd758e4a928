"""Gradient training: repeatable, global state untouched, adaptive where it fails, every failure as data."""

import math
from dataclasses import dataclass

import pytest
import torch
from conftest import (
    DTYPES,
    assert_close,
    assert_raises,
    easy,
    grid_of,
    parameters,
    real,
    singular_where,
    state_of_the_process,
    tensors_of,
    trained,
)

import neumatc as nm
from neumatc import StopReason
from neumatc.operations import Factor
from studies import benchmark

OPERATIONS = [nm.Inverse(), nm.SVD(rank=2)]


LOOKS = 8  # exact solves at the worst candidates of a fit that ends with large residuals


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_training_lowers_the_loss_in_every_dtype_and_dimension(operation, dtype, device):
    d = {torch.float32: 2, torch.complex64: 3}.get(dtype, 1)
    problem = easy(operation, dtype, d, device)
    surrogate = trained(problem, steps=60, rounds=1, learning_rate=2e-2)
    report = surrogate.report
    assert (surrogate.dtype, surrogate.device) == (dtype, problem.family.device)
    # The SVD's loss does not go to zero: measure it from its minimum, the truncated energy.
    p = parameters(64, d, real(dtype)).to(device)
    A = problem.family(p)
    floor = float(operation.loss(A, problem.unpack(problem.exact(p).value, p)).mean())
    assert report.losses[-1] - floor < 0.35 * (report.losses[0] - floor)
    assert report.losses[0] < 100  # the initial scale is sensible
    assert report.steps == sorted(report.steps)
    assert report.steps[-1] == 60
    value = surrogate(p)
    residual = problem.residual(p, value)
    assert residual.dtype == real(dtype)
    assert residual.isfinite().all()
    assert (report.rank, report.seed, report.method) == (4, 0, "ResidualTraining")
    assert report.exact_solves <= LOOKS
    assert report.seconds > 0
    assert str(report.collocation) in str(report)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_more_training_is_accurate(operation):
    problem = easy(operation)
    surrogate = trained(problem, rank=6, steps=500, rounds=1, learning_rate=2e-2, batch=32)
    p = parameters(100)
    assert problem.error(p, surrogate(p)).median() < 0.03
    assert_close(
        problem.residual(p, surrogate(p)),
        problem.operation.residual(problem.family(p), problem.unpack(surrogate(p), p)),
    )


@pytest.mark.parametrize("dtype", DTYPES[1:3], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_seed_decides_everything(operation, dtype, device):
    problem = easy(operation, dtype, d=2, device=device)
    settings = {"tol": 1e-3, "steps": 20}
    first, second, other = (trained(problem, seed=seed, **settings) for seed in (1, 1, 2))
    torch.randn(3)  # moves the global generator, which must not matter
    for name, tensor in tensors_of(first).items():
        assert torch.equal(tensor, tensors_of(second)[name])
    assert not torch.equal(first.maps[0].core, other.maps[0].core)
    for a, b, same in ((first, second, True), (first, other, False)):
        assert (a.report.losses == b.report.losses) is same
        assert (a.report.rounds == b.report.rounds) is same
    assert first.report.collocation == 32 + 8  # one enrichment between two rounds
    assert len(first.report.rounds[0].added) == 8
    assert first.report.exact_solves <= LOOKS


def test_global_state_is_untouched():
    before = state_of_the_process()
    trained(easy(nm.SVD(rank=2), torch.complex64, d=3), steps=10)
    assert state_of_the_process() == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_fit_works_in_every_gradient_mode(mode):
    expected = trained(easy(nm.Inverse()), steps=20)
    with mode():
        enabled = torch.is_grad_enabled()
        surrogate = trained(easy(nm.Inverse()), steps=20)
        assert torch.is_grad_enabled() == enabled
    assert torch.equal(surrogate.maps[0].core, expected.maps[0].core)
    assert not any(t.requires_grad for t in tensors_of(surrogate).values())


def test_a_family_with_trainable_tensors_of_its_own():
    """Any torch code may make A(p); its own parameters are neither trained nor a reason to fail."""
    weight = torch.nn.Parameter(0.1 * torch.ones(2, 2, dtype=torch.float64))
    family = nm.ParametricMatrix(
        lambda p: torch.eye(2).double() + p[:, :, None] * weight, [0.0], [1.0], dtype=torch.float64
    )
    surrogate = trained(nm.Problem(family, nm.Inverse()), steps=10)
    assert surrogate(parameters(3)).isfinite().all()
    assert weight.grad is None


def test_default_dtype_does_not_matter():
    expected = trained(easy(nm.Inverse(), torch.complex64), steps=10)
    torch.set_default_dtype(torch.float64)
    try:
        surrogate = trained(easy(nm.Inverse(), torch.complex64), steps=10)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(surrogate.maps[0].core, expected.maps[0].core)


@pytest.mark.parametrize("d", [1, 2])
def test_points_are_added_where_the_surrogate_fails(d):
    """The inverse is almost constant except in a narrow bump, which a slow embedding cannot follow."""
    centre, radius = 0.8, 0.1

    def fn(p):
        bump = 4 * torch.exp(-((p - centre) ** 2).sum(dim=1) / (2 * (radius / 3) ** 2))
        return torch.eye(3, dtype=p.dtype) / (1 + bump)[:, None, None]

    family = nm.ParametricMatrix(fn, [0.0] * d, [1.0] * d, dtype=torch.float64)
    surrogate = trained(
        nm.Problem(family, nm.Inverse()),
        rank=2,
        steps=400,
        rounds=2,
        added=20,
        tol=0.6,
        learning_rate=2e-2,
        failure_probability=0.0,
        embedding=nm.SinusoidalMLP(layers=1, width=8, frequency=0.5),
        sampling=nm.FailureInformedSampling(candidates=100, samples=200, stages=3),
    )
    report = surrogate.report
    added = torch.tensor([p for entry in report.rounds for p in entry.added], dtype=torch.float64)
    assert 5 <= len(added) <= 20
    assert ((added - centre).norm(dim=1) < radius).double().mean() > 0.9  # a fifth (1-D), a thirtieth (2-D) of the box
    assert report.collocation == 32 + len(added)
    assert len(report.rounds) == 2
    assert report.rounds[-1].added == []  # nothing is trained after the last round
    assert report.stop_reason == StopReason.STEPS
    assert [entry.step for entry in report.rounds] == [200, 400]
    assert report.residual_evaluations >= 2 * 300
    for entry in report.rounds:
        assert entry.residual_median < entry.residual_max
        assert 0 < entry.failure_probability < 0.4


def test_training_ends_when_the_failure_probability_is_low():
    surrogate = trained(easy(nm.Inverse()), steps=600, rounds=12, tol=0.05, learning_rate=2e-2)
    report = surrogate.report
    assert report.stop_reason == StopReason.TOLERANCE
    assert report.steps[-1] < 600
    assert report.steps[-1] == report.rounds[-1].step
    assert report.rounds[-1].failure_probability <= 1e-2 < report.rounds[0].failure_probability
    assert "under the target" in str(report)


def test_singular_matrices_are_found_where_residuals_stay_large():
    """A fit that cannot get its residual down says at which parameters the matrix is singular."""
    surrogate = trained(singular_where(lambda p: p > 0.7), steps=20)
    assert surrogate.report.singular
    assert all(p[0] > 0.7 for p in surrogate.report.singular)
    assert surrogate.report.exact_solves == LOOKS
    assert surrogate.report.rounds[-1].residual_max > 0.1
    assert surrogate(parameters(9)).isfinite().all()
    everywhere = trained(singular_where(lambda p: p > -1), steps=20)
    assert len(everywhere.report.singular) == LOOKS
    assert everywhere(parameters(9)).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 3])
def test_default_settings_come_near_the_limit_in_every_dimension(d):
    """On parameters not trained on, against the best map of the rank."""
    family = nm.families.trigonometric(size=12, shift=3.0, dimension=d)
    problem = nm.Problem(family, nm.Inverse())
    surrogate = nm.fit(problem, rank=16, method=nm.ResidualTraining(steps=1500, rounds=2), progress=False)
    p = family.box.uniform(500, torch.Generator().manual_seed(9))
    exact = problem.exact(p).value
    limit = float(benchmark.eckart_young(exact, 16))
    assert benchmark.relative_error(surrogate(p), exact) < max(3 * limit, 5e-3)


def test_a_constant_learning_rate_is_a_schedule_too():
    cosine, constant = (trained(easy(nm.Inverse()), steps=40, schedule=name) for name in ("cosine", "constant"))
    assert not torch.equal(cosine.maps[0].core, constant.maps[0].core)
    assert_raises(
        ValueError, ["`schedule`", "'cosine' or 'constant'", "'step'"], lambda: nm.ResidualTraining(schedule="step")
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
@pytest.mark.parametrize("rounds", [1, 4, 40])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_divergence_returns_a_finite_model(operation, rounds, dtype):
    """With a round at every step too: a state whose weights are finite but whose values overflow is not finite."""
    problem = easy(operation, dtype)
    surrogate = trained(problem, steps=40, rounds=rounds, learning_rate=1e30 if real(dtype) == torch.float32 else 1e200)
    assert surrogate.report.stop_reason == StopReason.DIVERGED
    assert "learning_rate" in surrogate.report.message
    assert "NaN or Inf" in str(surrogate.report)
    assert all(t.isfinite().all() for t in tensors_of(surrogate).values())
    p = parameters(9, dtype=real(dtype))
    assert all(x.isfinite().all() for x in problem.unpack(surrogate(p), p))


def test_divergence_at_the_last_step_is_noticed():
    """One step of this size overflows at once, and no loss is computed after it."""
    surrogate = trained(easy(nm.Inverse(), torch.float32), steps=1, rounds=1, learning_rate=1e30)
    assert surrogate(parameters(9, dtype=torch.float32)).isfinite().all()
    assert surrogate.report.stop_reason == StopReason.DIVERGED


def faulty(where):
    def fn(p):
        A = torch.eye(2, dtype=p.dtype) * (1 + p[:, :1, None])
        return torch.where(where(p)[:, :, None], torch.nan, A)

    return nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=torch.float64), nm.Inverse())


def test_a_family_that_fails_in_a_small_region():
    # Between two neighbours of the 32 Sobol points, and wide enough for 100 fresh draws per round to hit it.
    x = nm.sampling.sobol(32, torch.zeros(1).double(), torch.ones(1).double(), 0)[:, 0].sort().values
    gap = int((x[1:] - x[:-1]).argmax())
    low, high = float(x[gap]), float(x[gap + 1])
    problem = faulty(lambda p: (p > low) & (p < high))
    surrogate = trained(problem, steps=200, rounds=2, failure_probability=0.0, learning_rate=2e-2)
    report = surrogate.report
    assert report.stop_reason == StopReason.FAMILY
    assert low < float(report.message.split("parameter [")[1].split("]")[0]) < high
    assert report.steps[-1] in (100, 200)
    good = torch.tensor([[0.1], [0.9]], dtype=torch.float64)
    good = good[(good < low) | (good > high)][:, None]
    assert (problem.residual(good, surrogate(good)) < 0.3).all()


def test_a_family_that_fails_at_the_first_parameters_raises():
    problem = faulty(lambda p: p > 0.8)
    assert_raises(nm.FamilyError, ["`fn(p)`", "NaN or Inf", "parameter ["], lambda: trained(problem))


@dataclass(frozen=True)
class Square(nm.Operation):
    """A^2, with the default loss, gauge and packing."""

    def factors(self, m, n):
        return (Factor("X", (m, n)),)

    def exact(self, A):
        return (A @ A,), torch.zeros(len(A), dtype=torch.bool, device=A.device)

    def residual(self, A, factors):
        return torch.linalg.vector_norm(factors[0] - A @ A, dim=(1, 2)) / torch.linalg.vector_norm(A @ A, dim=(1, 2))

    def scales(self, A):
        return (float((A @ A).abs().square().mean().sqrt()),)


@dataclass(frozen=True)
class Adjoint(Square):
    """A^H: another shape than A."""

    def factors(self, m, n):
        return (Factor("X", (n, m)),)

    def exact(self, A):
        return (A.mH.clone(),), torch.zeros(len(A), dtype=torch.bool, device=A.device)

    def residual(self, A, factors):
        return torch.linalg.vector_norm(factors[0] - A.mH, dim=(1, 2)) / torch.linalg.vector_norm(A, dim=(1, 2))

    def scales(self, A):
        return (float(A.abs().square().mean().sqrt()),)


@pytest.mark.parametrize(
    ("operation", "shape", "dtype"), [(Square(), (3, 3), torch.complex128), (Adjoint(), (3, 2), torch.float64)], ids=str
)
def test_an_operation_of_the_user_is_fitted(operation, shape, dtype):
    base = nm.families.trigonometric(3, 2, 3.0, cycles=0.3, dtype=dtype)
    family = nm.ParametricMatrix(lambda p: base(p)[:, : shape[0], : shape[1]], base.lower, base.upper)
    problem = nm.Problem(family, operation)
    surrogate = trained(problem, rank=5, steps=400, rounds=1, learning_rate=2e-2)
    p = parameters(50)
    assert surrogate(p).shape == (50, *problem.factors[0].shape)
    assert problem.error(p, surrogate(p)).median() < 0.05
    assert_close(problem.error(p, surrogate(p)), problem.residual(p, surrogate(p)), units=1e6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"embedding": 3}, ["`embedding`", "nm.SinusoidalMLP()", "3"]),
        ({"sampling": 3}, ["`sampling`", "FailureInformedSampling", "3"]),
        ({"steps": 0}, ["`steps`", "at least 1"]),
        ({"batch": 1.5}, ["`batch`", "integer", "1.5"]),
        ({"collocation": 0}, ["`collocation`", "at least 1"]),
        ({"rounds": 0}, ["`rounds`", "at least 1"]),
        ({"added": -1}, ["`added`", "at least 0"]),
        ({"learning_rate": 0}, ["`learning_rate`", "above 0", "got 0"]),
        ({"learning_rate": math.nan}, ["`learning_rate`", "above 0", "nan"]),
        ({"failure_probability": 1.0}, ["`failure_probability`", "at least 0 and below 1", "1.0"]),
        ({"failure_probability": "a"}, ["`failure_probability`", "number", "'a'"]),
    ],
)
def test_method_refuses(settings, words):
    assert_raises((ValueError, TypeError), words, lambda: nm.ResidualTraining(**settings))


@pytest.mark.parametrize(
    ("operation", "powers"),
    [
        (nm.Inverse(), (-1,)),
        (nm.PseudoInverse(), (-1,)),
        (nm.SVD(2), (0, 1, 0)),
        (nm.Eig(), (1, 0)),
        (nm.QR(), (0, 1)),
        (nm.Polar(), (0, 1)),
        (nm.Projector(2), (0,)),
        (nm.MatrixFunction("sqrt"), (0.5,)),
        (nm.MatrixFunction("inverse_sqrt"), (-0.5,)),
    ],
    ids=str,
)
def test_the_unit_of_the_matrices_does_not_matter(operation, powers):
    family, unit = easy(operation).family, 2.0**-20 if sum(powers) < 0 else 2.0**10
    scaled = nm.ParametricMatrix(lambda p: unit * family(p), family.lower, family.upper)
    p = grid_of(family, 20)
    values = [trained(nm.Problem(f, operation), rank=3)(p) for f in (family, scaled)]
    value, other = [(v,) if isinstance(v, torch.Tensor) else tuple(v) for v in values]
    for x, y, power in zip(value, other, powers, strict=True):
        assert_close(y / unit**power, x, units=1e6)


def test_a_budget_where_the_residual_takes_exact_solves():
    problem = easy(nm.LogDet())
    assert_raises(ValueError, ["`budget`", "LogDet()", "exact solve", "got 50"], lambda: trained(problem, 1, budget=50))
    assert trained(problem, 1, steps=10).report.exact_solves >= 10 * 16


def test_a_family_that_reuses_its_memory():
    family = easy(nm.Inverse()).family
    memory = torch.empty(5000, 3, 3, dtype=torch.float64)

    def fn(p):
        memory[: len(p)] = family(p)
        return memory[: len(p)]

    reusing = nm.ParametricMatrix(fn, family.lower, family.upper)
    p = grid_of(family, 20)
    values = [trained(nm.Problem(f, nm.Inverse()), tol=1e-6)(p) for f in (family, reusing)]
    assert torch.equal(*values)


# Checkpoints


class Failing:
    """A function that is interrupted at its k-th call."""

    def __init__(self, fn, k):
        self.fn, self.left = fn, k

    def __call__(self, p):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.fn(p)


LONG = {"steps": 20, "rounds": 5, "failure_probability": 0.0, "tol": 1e-9}


def interrupted(problem, k, **settings):
    family = problem.family
    fn = Failing(family, k + 1)  # one call is that of the family itself
    return trained(nm.Problem(nm.ParametricMatrix(fn, family.lower, family.upper), problem.operation), **settings)


def from_start(problem):
    return nm.fit(problem, rank=4, progress=False)


@pytest.mark.filterwarnings("ignore::neumatc.FitWarning")
@pytest.mark.parametrize(
    ("start", "k", "schedule", "dtype"),
    [
        (None, 6, "cosine", torch.complex64),
        (None, 11, "constant", torch.float64),
        (from_start, 9, "constant", torch.float32),
        (from_start, 16, "cosine", torch.complex128),
    ],
)
def test_a_training_goes_on_to_the_same_bits(start, k, schedule, dtype, tmp_path):
    problem = easy(nm.Inverse(), dtype)
    settings = {**LONG, "schedule": schedule, "start": start and start(problem)}
    whole, path = trained(problem, **settings), tmp_path / "state"
    stopped = interrupted(problem, k, checkpoint=path, **settings)
    assert stopped.report.stop_reason == StopReason.INTERRUPTED and 0 < len(stopped.report.rounds) < 6
    resumed = trained(problem, checkpoint=path, **settings)
    for a, b in zip(tensors_of(resumed).values(), tensors_of(whole).values(), strict=True):
        assert torch.equal(a, b)
    same = (
        "rounds",
        "losses",
        "steps",
        "collocation",
        "stop_reason",
        "residual_evaluations",
        "exact_solves",
        "singular",
    )
    assert [getattr(resumed.report, name) for name in same] == [getattr(whole.report, name) for name in same]


@pytest.mark.filterwarnings("ignore::neumatc.FitWarning")
def test_a_finished_training_is_read_again(tmp_path):
    problem, path = easy(nm.Inverse()), tmp_path / "state"
    first = trained(problem, checkpoint=path, **LONG)
    second = trained(problem, checkpoint=str(path), **LONG)
    assert all(map(torch.equal, tensors_of(first).values(), tensors_of(second).values()))
    assert second.report.steps == first.report.steps
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


@pytest.mark.filterwarnings("ignore::neumatc.FitWarning")
@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"steps": 21}, {"tol": 1e-8}, {"rank": 3}, {"start": True}, {"problem": True}],
    ids=lambda other: next(iter(other)),
)
def test_a_checkpoint_of_another_fit_is_refused(other, tmp_path):
    problem, path = easy(nm.Inverse()), tmp_path / "state"
    trained(problem, checkpoint=path, **LONG)
    content, other = path.read_bytes(), dict(other)
    if other.pop("start", False):
        other["start"] = from_start(problem)
    problem = easy(nm.Inverse(), seed=1) if other.pop("problem", False) else problem
    words = ["`checkpoint`", "the same arguments", "delete it or give another path"]
    assert_raises(ValueError, words, lambda: trained(problem, checkpoint=path, **LONG | other))
    assert path.read_bytes() == content


@pytest.mark.filterwarnings("ignore::neumatc.FitWarning")
@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:99] + bytes([b[99] ^ 1]) + b[100:]])
def test_a_damaged_checkpoint_is_refused(damage, tmp_path):
    problem, path = easy(nm.Inverse()), tmp_path / "state"
    trained(problem, checkpoint=path, **LONG)
    path.write_bytes(damage(path.read_bytes()))
    words = ["`checkpoint`", "damaged", "delete it or give another path"]
    assert_raises(ValueError, words, lambda: trained(problem, checkpoint=path, **LONG))


@pytest.mark.filterwarnings("ignore::neumatc.FitWarning")
def test_a_checkpoint_that_cannot_be_written_does_not_end_training(tmp_path):
    problem, folder = easy(nm.Inverse()), tmp_path / "folder"
    folder.mkdir()

    def fn(p):
        if folder.exists() and len(p) > 32:  # after the collocation points
            folder.rmdir()
        return problem.family(p)

    family = nm.ParametricMatrix(fn, problem.family.lower, problem.family.upper)
    report = trained(nm.Problem(family, nm.Inverse()), checkpoint=folder / "state", **LONG | {"steps": 2}).report
    assert report.stop_reason == StopReason.STEPS and "the checkpoint could not be written" in report.message


def test_a_checkpoint_needs_a_folder(tmp_path):
    words = ["`checkpoint`", "a new one in a folder that exists", "create the folder"]
    for path in (tmp_path / "none" / "state", tmp_path):
        assert_raises(ValueError, words, lambda path=path: trained(easy(nm.Inverse()), checkpoint=path))
    assert_raises(TypeError, ["`checkpoint`", "a path"], lambda: nm.ResidualTraining(checkpoint=3))
