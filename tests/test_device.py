"""On a device: the ways that values and fits take on a GPU, on a pretended one, and how often it is waited for."""

import copy
import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import eps, gaussian
from pretend import DEVICE, Pretend
from torch.profiler import ProfilerActivity, profile

import neumatc as nm
from neumatc import checks, local
from neumatc.batches import at_once
from neumatc.turns import Straight, straightened

# Waits of a fit that do not grow, and those of each round, whatever the number of pieces and of problems; and of each
# problem in a batch, whose matrices are looked at by themselves before they are fitted, and whose report is its own.
_ONCE, _ROUND, _PROBLEM, _PROBLEM_RANK = 12, 9, 3, 9


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**33, 2**33))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with Pretend() as pretended:
        yield pretended
    torch.set_num_threads(before)


def channel(seed=0, device="cpu", spread=6.0, size=4, dtype=torch.complex64, calls=None):
    """Gram matrices of a few paths over a band, two products each; more pieces the larger the spread of the delays."""
    generator = torch.Generator().manual_seed(seed)
    delays = (torch.rand(6, generator=generator) * spread).to(device)
    paths = gaussian(6, 2 * size, size, dtype=dtype, seed=seed).to(device)

    def fn(p):
        if calls is not None:
            calls.append(len(p))
        H = torch.einsum("bt,tmn->bmn", torch.exp(-2j * torch.pi * p * delays).to(dtype), paths)
        return H.mH @ H + torch.eye(size, dtype=dtype, device=device)

    return nm.ParametricMatrix(fn, 0.0, 1.0, dtype=torch.float32, device=device)


def plane(device="cpu", waves=3.0):
    """Regular matrices of two parameters."""

    def fn(p):
        t = torch.arange(4.0, device=p.device)
        A = torch.cos(waves * p[:, :1, None] * t[:, None] * t + p[:, 1:, None] * t)
        return A + 6 * torch.eye(4, device=p.device)

    return nm.ParametricMatrix(fn, [0.0, 0.0], [1.0, 1.0], device=device)


def moved(surrogate):
    """Return what a surrogate gives on the device, made on the CPU."""
    return surrogate.to(DEVICE)


def counted(device, call):
    """Return how often a call waits and starts something, and what it returns."""
    for counter in (device.waits, device.launches, device.sent, device.products):
        counter.clear()
    value = call()
    return sum(device.waits.values()), sum(device.launches.values()), value


def rounds(device):
    return sum(count for name, count in device.waits.items() if re.search(r"(methods|together)\.py:\d+ solve$", name))


def test_the_device_counts_what_it_is_waited_for(device):
    x = torch.arange(6.0, device=DEVICE)
    assert x.is_cuda and x.device == DEVICE and (x + 1).device == DEVICE
    for call in (lambda: float(x.sum()), x.tolist, lambda: x[x > 2], x.nonzero, x.cpu, lambda: x.numpy(force=True)):
        assert counted(device, call)[0] == 1
    assert counted(device, lambda: x[1:] * 2)[:2] == (0, 1)
    assert counted(device, lambda: x[None].mT.view(2, 3))[:2] == (0, 0)
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(6)
    for call in (x.numpy, lambda: np.asarray(x)):
        with pytest.raises(TypeError, match="numpy"):
            call()


@pytest.mark.parametrize("tol", [1e-2, 1e-5])
def test_a_value_of_one_parameter_waits_for_its_check_alone(device, tol):
    surrogate = nm.fit(nm.Problem(channel(dtype=torch.complex128), nm.Inverse()), tol=tol)
    p = torch.linspace(0, 1, 300)[:, None]
    expected = surrogate(p)
    moved(surrogate)
    out = torch.empty_like(expected, device=DEVICE)
    surrogate(p[:1].to(DEVICE))  # sizes of pieces are asked for once
    for count in (1, 300):
        own = p[:count].to(DEVICE)
        waits, launches, value = counted(device, lambda own=own: surrogate(own))
        assert waits == 1 and launches < 80
        assert (value.cpu() - expected[:count]).abs().max() <= 64 * eps(expected.dtype) * expected.abs().max()
    assert counted(device, lambda: surrogate(own, out=out))[0] == 1 and torch.equal(out.cpu(), value.cpu())


def test_pieces_with_much_to_compute_write_where_it_belongs(device, monkeypatch):
    surrogate = nm.fit(nm.Problem(channel(spread=20.0), nm.Inverse()), tol=1e-2)
    count, p = len(surrogate.pieces), torch.linspace(0, 1, 400)[:, None]
    expected = surrogate(p)
    moved(surrogate)(p[:1].to(DEVICE))
    _, _, batched = counted(device, lambda: surrogate(p.to(DEVICE)))
    assert device.launches["bmm"] == 1 and device.launches["index_copy_"] == 1
    monkeypatch.setattr(local, "_OWN", 1)
    waits, _, direct = counted(device, lambda: surrogate(p.to(DEVICE)))
    assert count > 8 and device.launches["mm"] == count and "index_copy_" not in device.launches
    assert waits <= 4  # of the check, the order, the pieces that are there, and their sizes
    mixed = p[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    _, _, any_order = counted(device, lambda: surrogate(mixed.to(DEVICE)))
    assert device.launches["bmm"] == 1 and "mm" not in device.launches
    for value, at in ((batched, p), (direct, p), (any_order, mixed)):
        exact = expected if at is p else expected[(mixed * 399).round().long()[:, 0]]
        assert (value.cpu() - exact).abs().max() <= 64 * eps(torch.float32) * expected.abs().max()


@pytest.mark.parametrize("waves", [1.0, 9.0])
def test_two_parameters_wait_as_often_whatever_the_pieces(device, waves):
    surrogate = nm.fit(nm.Problem(plane(waves=waves), nm.Inverse()), tol=1e-3)
    assert (len(surrogate.pieces) > 1) == (waves > 1)
    p, x, y = torch.rand(50, 2), torch.linspace(0, 1, 9), torch.linspace(1, 0, 7)
    expected, grid = surrogate(p), surrogate.grid(x, y)
    moved(surrogate)(p[:1].to(DEVICE))
    waits, _, value = counted(device, lambda: surrogate(p.to(DEVICE)))
    assert waits == 2 and torch.allclose(value.cpu(), expected, rtol=1e-5, atol=1e-6)
    waits, _, value = counted(device, lambda: surrogate.grid(x.to(DEVICE), y.to(DEVICE)))
    assert waits <= 8 and torch.allclose(value.cpu(), grid, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "operation"), [(channel, nm.Inverse()), (plane, nm.Inverse()), (channel, nm.Eigh())]
)
def test_a_value_that_is_followed_waits_for_nothing(device, family, operation):
    """As a compiled one: a CUDA graph takes no waits."""
    surrogate = nm.fit(nm.Problem(family(), operation), tol=1e-3)
    p = moved(surrogate).box.uniform(50, torch.Generator().manual_seed(0)).to(DEVICE)
    assert counted(device, lambda: surrogate(p.clone().requires_grad_()))[0] == 0


@pytest.mark.parametrize(
    "operation", [nm.Inverse(), nm.SVD(rank=2), nm.LMMSE(noise=0.1), nm.Eigh(), nm.Cholesky(), nm.QR()], ids=str
)
def test_exact_solutions_and_certificates_wait_as_often_whatever_the_batch(device, operation):
    problem, here = (nm.Problem(channel(device=place), operation) for place in (DEVICE, "cpu"))
    surrogate = nm.fit(here, rank=4)
    few, many = (torch.linspace(0, 1, count)[:, None] for count in (70, 700))
    moved(surrogate)(few.to(DEVICE))
    found = []
    for p in (few.to(DEVICE), many.to(DEVICE)):
        exact, _, solution = counted(device, lambda p=p: problem.exact(p))
        residual, _, r = counted(device, lambda p=p, x=solution.value: problem.residual(p, x))
        certify, _, checked = counted(device, lambda p=p: nm.certify(surrogate, problem, p, rtol=1e-3))
        found.append((exact, residual, certify))
        assert bool((r < 1e-4).all()) and bool(torch.isfinite(checked.residual).all())
    (exact, residual, certify), more = found
    # Certificates take a further look where single values are refused.
    assert more[:2] == (exact, residual) and max(exact, residual) <= 8 and max(certify, more[2]) <= 100


def test_a_fit_waits_for_its_rounds_and_not_for_its_pieces(device):
    pieces = []
    for spread in (6.0, 24.0):
        problem = nm.Problem(channel(device=DEVICE, spread=spread, size=2), nm.Inverse())
        waits, _, surrogate = counted(device, lambda problem=problem: nm.fit(problem, tol=1e-3))
        assert surrogate.report.met and waits <= _ONCE + _ROUND * rounds(device)
        pieces.append(len(surrogate.pieces))
    assert pieces[1] > 2 * pieces[0]


@pytest.mark.parametrize(("given", "most"), [({"tol": 1e-2}, _PROBLEM), ({"rank": 4}, _PROBLEM_RANK)])
def test_many_fits_wait_little_more_than_one(device, given, most):
    found = []
    for count in (2, 8):
        problems = [nm.Problem(channel(seed=i, device=DEVICE, size=2, spread=2.0), nm.Inverse()) for i in range(count)]
        waits, _, surrogates = counted(device, lambda problems=problems: nm.fit_many(problems, **given))
        found.append(waits - _ROUND * rounds(device))
        assert len(surrogates) == count and all(surrogate.device == DEVICE for surrogate in surrogates)
    assert found[1] - found[0] <= most * 6


def test_a_fit_on_the_device_is_that_of_the_cpu(device):
    p, values = torch.rand(40, 1), []
    for place in ("cpu", DEVICE):
        surrogate = nm.fit(nm.Problem(channel(device=place), nm.Inverse()), tol=1e-3)
        values.append((len(surrogate.pieces), surrogate(p.to(place)).cpu()))
    assert values[0][0] == values[1][0]
    assert (values[0][1] - values[1][1]).abs().max() < 1e-3 * values[0][1].abs().max()


# Launches on a CPU, by torch's profiler


def launches(call):
    """Count torch's matrix products, factorisations and solves, and reads of single numbers."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    counts = Counter(event.name() for event in found.profiler.kineto_results.events())
    products = sum(counts[f"aten::{name}"] for name in ("mm", "bmm", "addmm"))
    factored = [name for name in counts if name.startswith(("aten::linalg", "aten::_linalg", "aten::cholesky"))]
    return products, sum(counts[name] for name in factored if "norm" not in name), counts["aten::_local_scalar_dense"]


def test_a_batched_evaluation_launches_one_product_for_all_pieces():
    found = {}
    for spread in (6.0, 60.0):
        surrogate = nm.fit(nm.Problem(channel(spread=spread), nm.Inverse()), tol=1e-2)
        (own,), x = surrogate.maps, surrogate.box.cube(torch.linspace(0, 1, 500)[:, None])
        given = x, own.embedding.locate(x, own.weights), own.weights, own.numbers.flatten(1), torch.empty(500, 32)
        found[len(surrogate.pieces)] = launches(lambda own=own, given=given: own.embedding.batched(*given))
    (few, first), (many, last) = sorted(found.items())
    assert many > 4 * few and first == last == (1, 0, 0)


@pytest.mark.parametrize(("given", "most"), [({"rank": 4}, 2), ({"tol": 1e-2}, 0)])
def test_sixty_four_fits_launch_few_products_more_than_one(given, most):
    """Beside those of the families' own functions: in common pieces none, of maps of a rank those of each check."""
    found = []
    for count in (1, 64):
        calls = []
        problems = [nm.Problem(channel(0, size=2, spread=1.0, calls=calls), nm.Inverse()) for _ in range(count)]
        calls.clear()
        products, factored, _ = launches(lambda problems=problems: nm.fit_many(problems, progress=False, **given))
        found.append((products - 2 * len(calls), factored))
    (one, solves), (many, all_solves) = found
    assert one > 0 and many <= one + most * 63
    assert all_solves == solves


def paths(seed=0, late=0.0, times=None, **given):
    """A channel of two users and five paths, whose delays and phases are its own."""
    generator = torch.Generator().manual_seed(seed)
    delays = late + 1e-7 * torch.rand(2, 5, generator=generator, dtype=torch.float64)
    a = gaussian(2, 5, 4, 2, dtype=torch.complex64, seed=seed)
    if times is not None:
        a = a[..., None] * torch.exp(50j * torch.rand(2, 5, 1, 1, 1, generator=generator) * times[:, 0])
    return nm.wireless.Channel(a.to(torch.complex64), delays, -5e6, 5e6, times=times, **given)


MOMENTS = torch.linspace(0, 1e-2, 14, dtype=torch.float64)[:, None]
# Families that evaluate as a batch, by name.
BATCHES = {
    "uplink": paths,
    "downlink": lambda i: paths(i, direction="downlink"),
    "moving": lambda i: paths(i, times=MOMENTS),
    "Gram": lambda i: paths(i).gram(0.1),
    "one table": lambda i: nm.wireless.Channel(paths(i).coefficients, paths().delays[:1].repeat(2, 1), -5e6, 5e6),
    "late": lambda i: straightened([paths(i, late=1e-5)], nm.LMMSE(noise=0.1))[0],
}


@pytest.mark.parametrize("name", BATCHES)
def test_channels_are_evaluated_at_once_as_each_is_alone(name):
    every = [BATCHES[name](i) for i in range(3)]
    p = every[0].box.uniform(40, torch.Generator().manual_seed(0))
    A = torch.stack([family(p) for family in every], dim=1)
    # Phases of some hundred radians, in double precision, are rounded to single once.
    assert (at_once(every)(p) - A).abs().max() <= 16 * eps(torch.float32) * A.abs().max()
    assert isinstance(every[0], Straight) == (name == "late")


def test_a_moving_channel_waits_as_often_whatever_its_moments(device):
    found = []
    for count in (14, 56):
        here = paths(times=torch.linspace(0, 1e-2, count, dtype=torch.float64)[:, None])
        given = (x.to(DEVICE) for x in (here.coefficients, here.delays))
        there = nm.wireless.Channel(*given, -5e6, 5e6, times=here.times.to(DEVICE))
        ends = (torch.linspace(1e-4, 9.9e-3, 2 * count), torch.linspace(-5e6, 5e6, 5))
        p = torch.cartesian_prod(*(x.double() for x in ends))
        waits, _, A = counted(device, lambda there=there, p=p: there(p.to(DEVICE)))
        assert (A.cpu() - here(p)).abs().max() <= 64 * eps(torch.float32) * A.cpu().abs().max()
        found.append(waits)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", BATCHES)
def test_channels_that_were_changed_in_place_are_evaluated_at_once_as_each_is_alone(name):
    every = [BATCHES[name](i) for i in range(2)]
    own = getattr(getattr(every[0], "family", every[0]), "channel", getattr(every[0], "family", every[0]))
    own.coefficients.mul_(3)
    own.delays.add_(1e-6)
    p = every[0].box.uniform(40, torch.Generator().manual_seed(0))
    A = torch.stack([family(p) for family in every], dim=1)
    assert (at_once(every)(p) - A).abs().max() <= 16 * eps(torch.float32) * A.abs().max()


def test_channels_of_a_kind_of_their_own_are_evaluated_each_by_itself():
    class Filtered(nm.wireless.Channel):
        pass

    every = [Filtered(paths(i).coefficients, paths(i).delays, -5e6, 5e6) for i in range(2)]
    assert at_once(every) is None and at_once([own.gram(0.1) for own in every]) is None


def test_families_of_other_kinds_sizes_or_boxes_are_evaluated_each_by_itself():
    a, delays = paths().coefficients, paths().delays
    wide, few = nm.wireless.Channel(a, delays, -6e6, 6e6), nm.wireless.Channel(a[:, :4], delays[:, :4], -5e6, 5e6)
    next_to = nm.wireless.Channel(a, delays, -5e6, math.nextafter(5e6, math.inf))
    for other in (
        wide,
        few,
        next_to,
        paths().gram(0.2),
        paths(direction="downlink"),
        nm.families.trigonometric(size=4),
    ):
        assert at_once([paths(), other]) is None and at_once([other, paths()]) is None
    assert at_once([paths().gram(0.1), paths().gram(0.2)]) is None
    assert at_once([channel(0), channel(1)]) is None


@pytest.mark.parametrize("name", BATCHES)
def test_sixty_four_channels_launch_as_many_products_as_two(name):
    operation = nm.Inverse() if name == "Gram" else nm.LMMSE(noise=0.1)
    found = []
    for count in (2, 64):
        own = BATCHES[name](0)
        problems = [nm.Problem(copy.copy(own), operation) for _ in range(count)]
        products, factored, _ = launches(lambda problems=problems: nm.fit_many(problems, tol=1e-2, progress=False))
        found.append((products, factored))
    # All users' channel is tried once before turns are looked for, and once before the fit: two products at most.
    assert found[1][0] <= found[0][0] + 4 and found[1][1] == found[0][1]


def test_certificates_launch_as_much_for_a_batch_of_any_size():
    problem = nm.Problem(channel(), nm.Inverse())
    surrogate = nm.fit(problem, tol=1e-3)
    found = []
    for count in (101, 1001):
        p = torch.linspace(0, 1, count)[:, None]
        found.append(launches(lambda p=p: nm.certify(surrogate, problem, p)))
    assert found[0] == found[1] and found[0][0] > 0


# Products of a lower precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
@pytest.mark.parametrize("given", [{"tol": 1e-4}, {"rank": 6}], ids=str)
def test_a_product_of_half_precision_keeps_its_bound(dtype, given):
    problem = nm.Problem(channel(dtype=torch.complex64), nm.Inverse())
    if not dtype.is_complex:
        problem = nm.Problem(nm.families.trigonometric(size=8, shift=3.0), nm.Inverse())
    surrogate, p = nm.fit(problem, **given), torch.rand(200, 1)
    own, rows = surrogate.maps[0], lambda x: (torch.view_as_real(x) if x.is_complex() else x).flatten(1).double()
    x = surrogate.box.cube(p)
    phi = own.embedding(x if own.embedding.precise else x.float(), own.weights).double()
    C = own.numbers.flatten(1).double()
    u, size = 2.0**-8, phi.abs() @ C.abs()
    value, low = rows(surrogate(p)), rows(surrogate(p, precision="bf16"))
    bound = (2 * u + u * u) * size
    bound = bound + u * ((phi @ C).abs() + bound) + 2 * (own.rank + 4) * eps(torch.float32) * size
    moved_by = (low - value).abs()
    assert (moved_by <= bound).all()
    assert moved_by.max() > 2.0**-12 * size.max()  # it is of that precision indeed


def test_a_lower_precision_fits_the_memory_of_the_caller_and_is_asked_for():
    surrogate, p = nm.fit(nm.Problem(channel(), nm.Inverse()), tol=1e-3), torch.rand(50, 1)
    low, out = surrogate(p, precision="bf16"), torch.empty(50, 4, 4, dtype=torch.complex64)
    assert surrogate(p, precision="bf16", out=out) is out and torch.equal(out, low)
    budget = 50 * 16 * 8 + 40_000
    assert torch.equal(surrogate(p, precision="bf16", memory_budget=budget), low)
    assert not torch.equal(surrogate(p), low)


@pytest.mark.parametrize(
    ("precision", "dtype", "words"),
    [
        ("tf32", torch.float32, ["on a CPU", "tf32", "GPU"]),
        ("fp8", torch.float32, ["'tf32' or 'bf16'", "fp8"]),
        (16, torch.float32, ["'tf32' or 'bf16'"]),
        ("bf16", torch.float64, ["single precision", "float32"]),
    ],
)
def test_a_precision_that_there_is_not_is_refused(precision, dtype, words):
    surrogate = nm.fit(nm.Problem(channel(), nm.Inverse()), tol=1e-2).to(dtype)
    with pytest.raises(ValueError, match="`precision`: expected") as caught:
        surrogate(torch.rand(3, 1), precision=precision)
    assert all(word in str(caught.value) for word in words)


def test_a_lower_precision_follows_no_gradients():
    surrogate = nm.fit(nm.Problem(channel(), nm.Inverse()), tol=1e-2)
    with pytest.raises(ValueError, match=r"`precision`.*detach"):
        surrogate(torch.rand(3, 1, requires_grad=True), precision="bf16")


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_on_the_device_products_are_of_the_precision_asked_for(device, precision):
    surrogate, p = nm.fit(nm.Problem(channel(), nm.Inverse()), tol=1e-3), torch.rand(50, 1)
    expected = surrogate(p)
    moved(surrogate)(p[:1].to(DEVICE))
    _, _, value = counted(device, lambda: surrogate(p.to(DEVICE), precision=precision))
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    assert device.products == {(kind, "tf32" if precision == "tf32" else "none")}
    size = {"tf32": 64 * eps(torch.float32), "bf16": 2.0**-5}[precision]  # tf32 is that of a GPU alone
    assert (value.cpu() - expected).abs().max() <= size * expected.abs().max()
    assert torch.backends.cuda.matmul.fp32_precision == "none"


def test_torchs_setting_for_products_changes_nothing_inside(monkeypatch):
    monkeypatch.setattr(checks, "_CUDA", True)
    settings, matmul = [], torch.backends.cuda.matmul
    before = matmul.fp32_precision

    @checks.full_precision
    def product():
        settings.append(matmul.fp32_precision)

    try:
        torch.set_float32_matmul_precision("high")
        product()
        assert torch.get_float32_matmul_precision() == "high" and settings == ["ieee"]
        with pytest.raises(ZeroDivisionError):
            checks.full_precision(lambda: 1 / 0)()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
        matmul.fp32_precision = before
