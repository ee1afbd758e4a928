"""Phases that turn fast: taken out of A before a fit, put back at evaluation, left alone where that does not pay."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import assert_close, eps, gaussian, generator

import neumatc as nm
from neumatc import fitting, turns
from neumatc.turns import straightened

BAND, SPREAD, PREFIX = 49.14e6, 30e-9, 2.3e-6
LMMSE, C128 = nm.LMMSE(noise=0.1), torch.complex128


def channel(offset=0.0, spread=SPREAD, users=8, antennas=64, direction="uplink", dtype=torch.complex64):
    """A channel of users with one antenna each and exponential delay profiles, by a receiver ``offset`` s early."""
    delays = -spread * torch.rand((users, 24), dtype=torch.float64, generator=generator()).log() / 2
    shape = (users, 24, antennas, 1) if direction == "uplink" else (users, 24, 1, antennas)
    paths = gaussian(*shape, dtype=C128, seed=1) * (-delays / spread / 2).exp()[:, :, None, None]
    paths = paths / paths.abs().square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
    f = torch.linspace(-BAND, BAND, 3276, dtype=torch.float64)[:, None]
    return nm.wireless.Channel(paths.to(dtype), delays + offset, -BAND, BAND, frequencies=f, direction=direction)


def each(users=8, seed=3):
    """A timing of each user's, in the cyclic prefix."""
    return PREFIX * torch.rand((users, 1), dtype=torch.float64, generator=generator(seed))


def spinning(m, n, rows=0.0, columns=0.0, d=1, shift=3.0):
    """A smooth family on [0, 1]^d whose rows and columns turn by radians for half an axis, on axis i times i + 1."""
    base = nm.families.trigonometric(max(m, n), 3, shift, cycles=0.5, dimension=d, dtype=C128)
    speeds = [torch.as_tensor(own, dtype=torch.float64).expand(k) for own, k in ((rows, m), (columns, n))]

    def fn(p):
        phase = (2 * p.double() - 1) @ torch.arange(1, d + 1, dtype=torch.float64)
        left, right = (torch.exp(1j * phase[:, None] * own) for own in speeds)
        return base.fn(p)[:, :m, :n] * left[:, :, None] * right[:, None, :]

    return nm.ParametricMatrix(fn, [0.0] * d, [1.0] * d, dtype=torch.float64)


def fitted(family, operation=LMMSE, **settings):
    settings = settings if "rank" in settings else {"tol": 1e-3} | settings
    return nm.fit(nm.Problem(family, operation), progress=False, **settings)


def points(count=50, d=1, dtype=torch.float64, seed=0):
    return torch.rand((count, d), dtype=torch.float64, generator=generator(seed)).to(dtype)


def factors_of(value):
    return (value,) if isinstance(value, torch.Tensor) else tuple(value)


@pytest.fixture(scope="module")
def turned():
    """A surrogate whose rows and columns turn, in double precision, and its problem."""
    slopes = torch.cat([torch.linspace(30, 50, 5), torch.linspace(-450, -400, 5)]).double()
    still, operation = fitted(spinning(5, 5), nm.Inverse(), tol=1e-8), nm.Inverse()
    surrogate = nm.Surrogate(operation, (5, 5), still.maps, still.box, still.report, slopes[:, None])
    return surrogate, nm.Problem(spinning(5, 5, slopes[:5], slopes[5:]), operation)


# What turns with A

COVARIANCE = 0.1 * torch.eye(6, dtype=C128) + 0.02
OPERATIONS = {  # an operation, the shape of A, and whether its rows may turn
    "inverse": (nm.Inverse(), 5, 5, True),
    "pseudo-inverse": (nm.PseudoInverse(), 4, 6, True),
    "pseudo-inverse of a rank": (nm.PseudoInverse(rank=2), 6, 4, True),
    "white noise": (LMMSE, 6, 4, True),
    "unbiased": (nm.LMMSE(noise=0.1, unbiased=True), 6, 4, True),
    "precoder": (nm.RZF(noise=0.3), 3, 6, True),
    "noise of each antenna": (nm.RZF(noise=(0.1, 0.2, 0.3)), 3, 6, True),
    "coloured noise": (nm.LMMSE(noise=COVARIANCE), 6, 4, False),
    "filters and variances": (nm.Equaliser("zf", 0.1), 6, 4, True),
    "singular triplets": (nm.SVD(rank=2), 6, 4, True),
    "followed": (nm.SVD(rank=2, order="followed"), 4, 6, True),
}
each_operation = pytest.mark.parametrize("name", OPERATIONS)


@each_operation
def test_the_factors_of_a_turned_matrix_are_the_turned_factors(name):
    operation, m, n, rows = OPERATIONS[name]
    slopes, p = gaussian(m + n, dtype=torch.float64), points(7)
    slopes[:m] *= rows
    still = nm.Problem(spinning(m, n), operation)
    moving = nm.Problem(spinning(m, n, slopes[:m], slopes[m:]), operation)
    beside = still.family.shape[1] - n
    own = torch.cat([slopes, slopes.new_zeros(beside)])[:, None]
    x, value = still.family.box.cube(p), factors_of(still.exact(p).value)
    value = turns.turned(moving.operation, moving.family.shape, own, x, value)
    units = 1e4 * eps(C128)
    assert moving.residual(p, value).max() < units and moving.error(p, value).max() < units


@pytest.mark.parametrize("side", ["columns", "rows"])
@each_operation
def test_what_turns_is_fitted_as_what_does_not(name, side):
    operation, m, n, rows = OPERATIONS[name]
    turning = {side: torch.linspace(-450, -350, m if side == "rows" else n)}
    if side == "rows" and not rows:
        pytest.skip("a covariance beside the channel does not turn with it")
    families = [spinning(m, n, shift=0.5, **own) for own in (turning, {})]
    problem, p = nm.Problem(families[0], operation), points(200)
    surrogate, still = (fitted(family, operation, tol=1e-6) for family in families)
    assert surrogate.report.met and still.turns is None
    rows, columns = surrogate.turns[:m], surrogate.turns[m:]
    if operation.unique:
        assert rows.any() == (side == "rows") and columns.any() == (side == "columns")
    else:  # what all of A shares is shared by both sides, so that neither steps more than it must
        assert_close(rows.mean(), columns.mean())
        assert (rows.std() > 1) == (side == "rows") and (columns.std() > 1) == (side == "columns")
    assert re.findall("per (row|column)", surrogate.report.message) == [side[:-1]]
    assert problem.residual(p, surrogate(p)).quantile(0.98) <= 1e-6
    assert surrogate.report.exact_solves <= 2 * still.report.exact_solves  # of hundreds


def test_of_another_solution_nothing_is_known():
    @dataclass(frozen=True)
    class TransposedInverse(nm.Inverse):
        def exact(self, A):
            (X,), failed = super().exact(A)
            return (X.mT,), failed

    assert nm.Inverse.turns and not TransposedInverse.turns


# Timing

OFFSETS = {"1 us": 1e-6, "the prefix": PREFIX, "each user": each()}


@pytest.mark.parametrize("tol", [1e-2, 1e-3])
@pytest.mark.parametrize("name", OFFSETS)
def test_a_timing_offset_takes_no_more_solves(name, tol):
    family = channel(OFFSETS[name])
    surrogate, f, problem = fitted(family, tol=tol), family.frequencies[::7], nm.Problem(family, LMMSE)
    assert surrogate.report.met
    assert surrogate.report.exact_solves <= 1.2 * fitted(channel(), tol=tol).report.exact_solves
    assert (problem.residual(f, surrogate(f)) <= tol).double().mean() >= 0.98


def test_the_users_of_a_downlink_turn_rows():
    family = channel(each(), direction="downlink")
    surrogate = fitted(family, nm.RZF(noise=0.1))
    assert surrogate.report.met and surrogate.turns[:8].all() and not surrogate.turns[8:].any()
    assert "per row" in surrogate.report.message


def test_a_map_of_a_rank_profits_too():
    f = channel().frequencies[::7]
    errors = [
        nm.Problem(family, LMMSE).error(f, fitted(family, rank=24)(f)).max() for family in (channel(), channel(PREFIX))
    ]
    assert errors[1] <= 1.5 * errors[0]


def test_the_report_says_the_delay():
    surrogate = fitted(channel(2e-6))
    found = re.search(r"a common delay of (\S+) s \(per column (\S+) to (\S+)\) was taken", surrogate.report.message)
    delay, low, high = (float(x) for x in found.groups())
    assert low <= delay <= high
    assert abs(delay - 2e-6) < 3 * SPREAD
    assert found[0] in str(surrogate.report).replace("\n              ", " ")
    several = fitted(channel(each())).report.message
    assert re.search(r"delays per column \S+ to \S+ s were taken out of A and are put back", several)


def test_another_axis_is_told_in_its_own_unit():
    family = spinning(5, 5, columns=-150.0)
    labelled = nm.ParametricMatrix(family.fn, 0.0, 1.0, dtype=torch.float64, names=["angle"], units=["rad"])
    said = fitted(labelled, nm.Inverse()).report.message
    cycles = float(re.search(r"a common turn of (\S+) cycles per rad ", said)[1])
    assert abs(cycles + 300 / (2 * torch.pi)) < 0.1 * 300 / (2 * torch.pi)


def test_many_problems_have_their_own():
    families = [channel(offset) for offset in (0.0, 1e-6, each())]
    problems, f = [nm.Problem(family, LMMSE) for family in families], families[0].frequencies[::31]
    found = nm.fit_many(problems, tol=1e-3, progress=False)
    assert [surrogate.turns is None for surrogate in found] == [True, False, False]
    for problem, surrogate in zip(problems, found, strict=True):
        assert surrogate.report.met and problem.residual(f, surrogate(f)).max() < 2e-3


# What does not turn


def plain(family, operation, **settings):
    """A fit that does not look for turns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "straightened", lambda families, operation: families)
        return fitted(family, operation, **settings)


FAMILIES = {
    "real": (nm.families.trigonometric(8, 4, 2.0, dtype=torch.float64), nm.Inverse()),
    "complex": (nm.families.trigonometric(8, 4, 2.0, dtype=torch.complex64), nm.Inverse()),
    "channel": (channel(), LMMSE),
}


@pytest.mark.parametrize("settings", [{"tol": 1e-3}, {"rank": 8}], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_without_turns_every_bit_is_as_before(name, settings):
    found, expected = (fit(*FAMILIES[name], **settings) for fit in (fitted, plain))
    assert found.turns is None and list(found.state_dict()) == list(expected.state_dict())
    for x, y in zip(found.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(x, y)
    assert "put back" not in found.report.message


@pytest.mark.parametrize("spread", [30e-9, 100e-9, 300e-9, 1e-6])
def test_the_delays_of_a_channel_itself_are_no_turn(spread):
    family = channel(spread=spread)
    assert straightened([family], LMMSE)[0] is family


@pytest.mark.parametrize("cycles", [1.2, 8.0])
def test_random_waves_are_no_turn(cycles):
    for seed in range(8):
        family = nm.families.trigonometric(4, 8, 0.0, seed, cycles=cycles, dtype=C128)
        assert straightened([family], nm.Inverse())[0] is family


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (16, 4)])
def test_noise_is_no_turn(shape):
    p = torch.arange(200, dtype=torch.float64)
    for seed in range(8):
        family = nm.families.from_samples(p, gaussian(200, *shape, dtype=C128, seed=seed))
        assert straightened([family], LMMSE)[0] is family


@pytest.mark.parametrize("settings", [{"periodic": True}, {"scale": "log"}], ids=str)
def test_axes_that_go_round_or_are_logarithmic_do_not_turn(settings):
    phase = lambda p: torch.exp(-80j * torch.pi * p)[:, :, None] * torch.eye(3)  # noqa: E731
    family = nm.ParametricMatrix(phase, 1.0, 2.0, dtype=torch.float64, **settings)
    assert straightened([family], nm.Inverse())[0] is family
    assert straightened([nm.ParametricMatrix(phase, 1.0, 2.0, dtype=torch.float64)], nm.Inverse())[0] is not family


# Samples and failures


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_noise_on_samples_hides_no_delay(noise):
    source = channel(1e-6, users=4, antennas=16, dtype=C128)
    f = source.frequencies[::5]
    A = source(f)
    noise = noise * A.abs().square().mean().sqrt() * gaussian(*A.shape, dtype=C128, seed=5)
    family = nm.families.from_samples(f, A + noise)
    found = straightened([family], LMMSE)[0]
    delays = -found.turns[16:, 0] / (2 * torch.pi * BAND)
    assert (delays - 1e-6).abs().max() < 3 * SPREAD


def test_a_grid_of_two_axes_is_asked_for_its_points_alone():
    """A slot of 14 symbols: a carrier that is off turns along time, a window that is early along frequency."""
    still = channel(users=4, antennas=8, dtype=C128)
    times, f = torch.arange(14, dtype=torch.float64) * 36e-6, still.frequencies[::4, 0]
    turning = torch.exp(2j * torch.pi * (1e4 * times[:, None] - 1e-6 * f))
    A = turning[:, :, None, None] * still(f[:, None])
    units = {"names": ["time", "frequency"], "units": ["s", "Hz"]}
    problem = nm.Problem(nm.families.from_grid([times, f], A, **units), LMMSE)
    surrogate = nm.fit(problem, tol=1e-3, progress=False)
    assert surrogate.report.met and (surrogate.turns[8:] != 0).all()
    found = problem.residual(torch.cartesian_prod(times, f), surrogate.grid(times, f).flatten(0, 1))
    assert (found <= 1e-3).double().mean() > 0.98
    plain = nm.fit(nm.Problem(nm.families.from_grid([times, f], still(f[:, None]).expand_as(A)), LMMSE), tol=1e-3)
    assert surrogate.report.exact_solves <= 2 * plain.report.exact_solves
    assert re.search(r"turn of \S+ cycles per s .* delay of \S+ s", surrogate.report.message)


def test_where_a_family_is_not_defined_it_says_nothing_of_turns():
    family = spinning(4, 4, columns=-150.0)
    holes = lambda p: torch.where(((p - 0.5).abs() < 0.05)[:, :, None], torch.nan, family.fn(p))  # noqa: E731
    holed = nm.ParametricMatrix(holes, 0.0, 1.0, dtype=torch.float64)
    assert holed.evaluate(0.5)[1].sum() == 0
    assert (straightened([holed], nm.Inverse())[0].turns[4:] + 150).abs().max() < 15

    def small(p):
        if len(p) > 1:
            raise RuntimeError("too many at once")
        return family.fn(p)

    small = nm.ParametricMatrix(small, 0.0, 1.0, dtype=torch.float64)
    assert straightened([small], nm.Inverse())[0] is small


# Values


def test_every_way_to_a_value_gives_the_same(turned):
    surrogate, problem = turned
    p = points(40)
    value = surrogate(p)
    assert problem.error(p, value).max() < 1e-6
    for other in (
        surrogate(p, out=torch.empty_like(value)),
        torch.cat([part for _, part in surrogate.batches(p, memory_budget=2**14)]),
        surrogate(p, memory_budget=2**16),
        surrogate.grid(p),
        torch.from_numpy(surrogate(p.numpy())),
        torch.cat([surrogate(q) for q in p]),
    ):
        assert_close(other, value)
    checked = nm.certify(surrogate, problem, p, rtol=1e-6)
    assert checked.accepted.all() and torch.equal(checked.value, value)


def test_a_grid_of_two_parameters():
    problem = nm.Problem(spinning(4, 4, columns=torch.linspace(-40, -45, 4), d=2), nm.Inverse())
    surrogate, axes = nm.fit(problem, tol=1e-4, progress=False), [points(5, seed=1), points(7, seed=2)]
    assert surrogate.report.met and surrogate.turns[4:].all()
    p = torch.cartesian_prod(*(axis[:, 0] for axis in axes))
    value = surrogate(p)
    assert problem.residual(p, value).max() < 1e-3
    out = torch.empty(5, 7, 4, 4, dtype=C128)
    assert_close(surrogate.grid(*axes).flatten(0, 1), value, units=200)
    assert_close(surrogate.grid(*axes, out=out).flatten(0, 1), value, units=200)
    held = torch.cat([axes[0], torch.full_like(axes[0], 0.3)], dim=1)
    assert_close(surrogate.grid(axes[0], 0.3)[:, 0], surrogate(held), units=200)


def test_vectors_stay_orthonormal_and_lie_in_the_memory_given():
    problem = nm.Problem(spinning(6, 4, columns=torch.linspace(-150, -130, 4)), nm.SVD(rank=2))
    surrogate, p = nm.fit(problem, tol=1e-4, progress=False), points(30)
    out = tuple(torch.empty_like(x) for x in surrogate(p))
    surrogate(p, out=out, orthonormal=True)
    assert (out[2] @ out[2].mH - torch.eye(2)).abs().max() < 1e3 * eps(C128)
    assert problem.residual(p, out).max() < 1e-3


def test_derivatives_follow_the_turns(turned):
    surrogate, _ = turned
    p, step = 0.1 + 0.8 * points(5), 1e-6
    single = lambda q: torch.view_as_real(surrogate(q[None])[0])  # noqa: E731
    found = torch.func.vmap(torch.func.jacrev(single))(p)[..., 0]
    expected = torch.view_as_real((surrogate(p + step) - surrogate(p - step)) / (2 * step))
    # Of a phase of 400 rad: the third derivative times the square of the step, and rounding over it.
    assert (found - expected).abs().max() < 1e-6 * 400 * expected.abs().max()
    live = points(3).requires_grad_()
    assert_close(surrogate.grid(live).detach(), surrogate(live.detach()))


def test_a_compiler_sees_through(turned):
    surrogate, p = turned[0], points(12)
    torch.compiler.reset()
    assert_close(torch.compile(surrogate, fullgraph=True, backend="aot_eager")(p), surrogate(p))


def test_single_precision_keeps_the_phases(turned):
    surrogate, p = turned[0], points(40)
    value, state = surrogate(p), {name: x.clone() for name, x in surrogate.state_dict().items()}
    try:
        single = surrogate.to(torch.float32)
        assert single.turns.dtype == torch.float64 and torch.equal(single.turns, state["turns"])
        assert_close(single(p), value.to(torch.complex64), units=100)
    finally:
        surrogate.to(torch.float64).load_state_dict(state)
    assert torch.equal(surrogate(p), value)


def test_a_file_keeps_every_bit(turned, tmp_path):
    surrogate, p = turned[0], points(40)
    nm.save(surrogate, tmp_path / "turned.safetensors")
    loaded = nm.load(tmp_path / "turned.safetensors")
    assert torch.equal(loaded.turns, surrogate.turns) and torch.equal(loaded(p), surrogate(p))


def test_a_training_begins_from_what_was_taken_out():
    problem = nm.Problem(spinning(5, 5, columns=-150.0), nm.Inverse())
    start = nm.fit(problem, rank=12, progress=False)
    method = nm.ResidualTraining(steps=3, collocation=16)
    trained = nm.fit(problem, start=start, method=method, progress=False)
    assert torch.equal(trained.turns, start.turns)
    p = points(20)
    assert problem.residual(p, trained(p)).max() < 0.1


def test_single_precision_of_a_family_is_enough():
    """At 98 MHz and 2.3 us phases reach 1,400 radians, of which single precision rounds 1e-4 away."""
    family = channel(PREFIX)
    surrogate, exact = fitted(family, tol=1e-5), nm.Problem(channel(PREFIX, dtype=C128), LMMSE)
    f = family.frequencies[::13]
    assert exact.error(f, surrogate(f).to(C128)).max() < 1e-5
    assert np.iscomplexobj(surrogate(f.numpy()))
