"""Shared by the tests of the core: dtypes, devices, conditioned matrices, small surrogates, and assertions."""

import math
import os
import random
from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import numpy as np
import pytest
import torch

import neumatc as nm
from neumatc import piece as tree

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
# A fifth of all tests would only be skipped without CUDA, and collecting them takes every process seconds.
DEVICES = ["cpu", "cuda:0"] if torch.cuda.is_available() else ["cpu"]


def pytest_report_header():
    return f"devices: {', '.join(DEVICES)}"


class Untimed:
    """Notebooks under test take no times: beside a second process that tests, three attempts each would be refused."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item):
        """Start kernels in an environment that says so; other tests keep their own."""
        with pytest.MonkeyPatch.context() as patch:
            if item.path.suffix == ".ipynb":
                patch.setenv("NEUMATC_TIMES", "0")
            return (yield)


def pytest_addoption(parser):
    parser.addoption("--cases", type=int, metavar="N", help="run N of the parameter sets of each test, not all")


def pytest_configure(config):
    config.pluginmanager.register(Untimed())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Keep some parameter sets of each test that -m and -k leave: the same in every process and run."""
    if config.getoption("cases") is None:
        return
    sets = defaultdict(list)
    for item in items:
        sets[item.nodeid.partition("[")[0]].append(item)
    chosen = [sorted(own, key=lambda item: crc32(item.nodeid.encode())) for own in sets.values()]
    kept = {item for own in chosen for item in own[: config.getoption("cases")]}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, which wait for each other on a busy machine; OMP_NUM_THREADS decides."""
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request):
    return request.param


def real(dtype):
    return dtype.to_real() if dtype.is_complex else dtype


def eps(dtype):
    return torch.finfo(dtype).eps


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(*shape, dtype, seed=0):
    """Standard Gaussian entries, drawn in double precision on the CPU."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, dtype=wide, generator=generator(seed)).to(dtype)


def conditioned(batch, m, n, dtype, condition=10.0, seed=0):
    """Random (batch, m, n) with singular values from 1 down to 1 / condition, spaced evenly in the logarithm."""
    k = min(m, n)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    left = torch.linalg.qr(gaussian(batch, m, k, dtype=wide, seed=seed)).Q
    right = torch.linalg.qr(gaussian(batch, n, k, dtype=wide, seed=seed + 1)).Q
    values = torch.logspace(0, -torch.tensor(float(condition)).log10().item(), k, dtype=torch.float64)
    return ((left * values) @ right.mH).to(dtype)


def parameters(count, d=1, dtype=torch.float64, seed=0):
    return torch.rand((count, d), dtype=torch.float64, generator=generator(seed)).to(dtype)


def assert_close(actual, expected, units=50, scale=1.0):
    """Assert equal dtypes and shapes, and entries equal up to units * eps * scale * (largest expected entry)."""
    assert actual.shape == expected.shape
    tolerance = units * scale * eps(actual.dtype) * float(expected.abs().max())
    worst = float((actual.to(expected.device, expected.dtype) - expected).abs().max())
    assert worst <= tolerance, f"largest difference {worst:.3g} exceeds {tolerance:.3g}"


def assert_raises(error, words, function):
    """Assert that ``function`` raises ``error`` and that its message holds every one of ``words``, in this order."""
    with pytest.raises(error) as caught:
        function()
    position, message = 0, str(caught.value)
    for word in words:
        position = message.find(word, position)
        assert position >= 0, f"{word!r} is missing, or out of order, in {message!r}"


def random_surrogate(operation, m, n, dtype, d=1, rank=3, device="cpu", width=8, seed=0, shapes=None):
    """Surrogate with random weights on the box [-1, 2]^d, made without a fit; ``shapes``: those of unfinished maps."""
    draws, maps = generator(seed), []
    embedding = nm.SinusoidalMLP(layers=2, width=width, frequency=3.0)
    factors = operation.factors(m, n)
    for i, (factor, shape) in enumerate(zip(factors, shapes or [factor.shape for factor in factors], strict=True)):
        kind = factor.dtype(dtype) if len(shape) == len(factor.shape) else dtype  # a matrix in the place of the values
        core = gaussian(rank, *shape, dtype=kind, seed=seed + i).to(device)
        weights = embedding.initialise(d, rank, draws)
        maps.append(
            nm.FactorMap(factor.name, core, embedding, {k: w.to(device, real(dtype)) for k, w in weights.items()})
        )
    names = [f"p{i}" for i in range(d)]
    box = nm.Box([-1.0] * d, [2.0] * d, names=names, units=["Hz"] * d, dtype=real(dtype), device=device)
    return nm.Surrogate(operation, (m, n), maps, box, nm.Report("Random", {}, rank, seed))


def tree_of(d, cuts=3, count=6):
    """A tree of ``cuts + 1`` pieces of the cube: its embedding, the weights, and the node of each row of a core."""
    empty = np.empty(0)
    root = tree.Piece(-np.ones(d), np.ones(d), [empty] * d)

    def same(axis, x):
        return x

    for axis in range(d):
        root.extend(axis, count - axis, empty, same)
    for k in range(cuts):
        whole, axis = tree.leaves(root)[-1 - k // 2], k % d
        cut = whole.low[axis] + (0.5 - 0.1 * (k % 2)) * (whole.high[axis] - whole.low[axis])
        whole.split(axis, cut, [max(3, n - (k + i) % 2) for i, n in enumerate(whole.counts)], whole.axes[axis], same)
    pieces = tree.leaves(root)
    points, rows = np.unique(np.concatenate([piece.grid() for piece in pieces]), axis=0, return_inverse=True)
    ends = np.cumsum([math.prod(piece.counts) for piece in pieces])
    for piece, own in zip(pieces, np.split(rows.ravel(), ends[:-1])):
        piece.rows = own
    embedding, weights, order = tree.embedded(root)
    return embedding, weights, tree.mean(torch.from_numpy(points), order)


def in_pieces(function, d=1, dtype=torch.float64, box=None, shape=(3, 3), **settings):
    """The surrogate of an inverse in pieces that interpolates ``function``, x (N, d) of the cube -> (N, *shape)."""
    embedding, weights, nodes = tree_of(d, **settings)
    box = nm.Box([-1.0] * d, [1.0] * d, dtype=real(dtype)) if box is None else box
    core = function(nodes).to(dtype)
    maps = [nm.FactorMap("X", core, embedding, weights)]
    return nm.Surrogate(nm.Inverse(), shape, maps, box, nm.Report("Pieces", {}, 1, 0))


def rational(is_complex=False, count=7, size=3, dtype=None):
    """The surrogate of an inverse by a random rational function of one parameter."""
    x = torch.linspace(-1, 1, count, dtype=torch.float64)
    w = gaussian(2, count, dtype=torch.float64) * torch.tensor([[1.0], [float(is_complex)]])
    dtype = (torch.complex128 if is_complex else torch.float64) if dtype is None else dtype
    core = gaussian(count, size, size, dtype=dtype, seed=1)
    core = torch.cat([core, 1j * core]) if is_complex else core
    maps = [nm.FactorMap("X", core, nm.Rational(is_complex), {"nodes": x, "w": w})]
    box = nm.Box(-1.0, 1.0, dtype=torch.float64)
    return nm.Surrogate(nm.Inverse(), (size, size), maps, box, nm.Report("Rational", {}, count, 0))


def tensors_of(surrogate):
    """Every tensor of a surrogate, by name."""
    maps = {f"{m.name}.{k}": t for m in surrogate.maps for k, t in {"core": m.core, **m.weights}.items()}
    return {"lower": surrogate.lower, "upper": surrogate.upper, **maps}


def pieced(problem, tol=1e-6, seed=0, **settings):
    """Fit in pieces, to a tolerance."""
    return nm.fit(problem, tol=tol, seed=seed, progress=False, **settings)


def factors_of(value):
    """The factors of a value, also where there is one only."""
    return (value,) if isinstance(value, torch.Tensor | np.ndarray) else tuple(value)


def trained(problem, rank=4, *, seed=0, steps=40, tol=None, budget=None, start=None, **settings):
    """Fit fast, by few steps of residual training with a small sampler."""
    sampler = nm.FailureInformedSampling(candidates=40, samples=60, stages=2)
    defaults = {
        "embedding": nm.SinusoidalMLP(layers=1, width=16, frequency=2.0),
        "collocation": 32,
        "batch": 16,
        "rounds": 2,
        "added": 8,
        "sampling": sampler,
    }
    method = nm.ResidualTraining(steps=steps, **(defaults | settings))
    return nm.fit(problem, rank=rank, tol=tol, budget=budget, start=start, seed=seed, method=method, progress=False)


def easy(operation, dtype=torch.float64, d=1, device="cpu", size=3, seed=0):
    """A slow family with distinct singular values: diag(2, 3, 4, ...) and a fifth of a trigonometric one."""
    waves = nm.families.trigonometric(size, 2, 0.0, seed, cycles=0.3, dimension=d, dtype=dtype, device=device)
    diagonal = torch.diag(torch.arange(2, 2 + size)).to(device, dtype)
    return nm.Problem(nm.ParametricMatrix(lambda p: diagonal + 0.2 * waves(p), waves.lower, waves.upper), operation)


@dataclass(frozen=True)
class CountedInverse(nm.Inverse):
    """The inverse, which keeps the number of matrices of every exact solve."""

    solved: ClassVar[list[int]] = []

    def exact(self, A):
        CountedInverse.solved.append(len(A))
        return super().exact(A)


@pytest.fixture
def solved():
    """The exact solves of `CountedInverse` in this test, one entry per call."""
    CountedInverse.solved.clear()
    return CountedInverse.solved


def grid_of(family, count=1000, seed=99):
    """Uniform random parameters of a family's box that no fit has seen."""
    return family.box.uniform(count, generator(seed))


def singular_where(condition, dtype=torch.float64):
    """diag(1, s(p)): s is 0 where ``condition`` holds, else 1 + p."""

    def fn(p):
        s = torch.where(condition(p), 0.0, 1 + p)
        return torch.diag_embed(torch.cat([torch.ones_like(p), s], dim=1))

    return nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=dtype), nm.Inverse())


def state_of_the_process():
    """Global state that a fit must leave alone."""
    numpy = np.random.get_state()  # noqa: NPY002
    return (
        torch.get_rng_state().tolist(),
        [x.tolist() for x in (torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])],
        (numpy[1].tolist(), numpy[2]),
        random.getstate(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
    )


def snapshots_of(count, d=1, dtype=torch.float64):
    """Where the closed form solves exactly by default, on the unit box."""
    stretch = nm.sampling.widest_stretch(count, 4 * eps(dtype)) if d == 1 else 0.0
    return (nm.sampling.design(count, d, stretch=stretch)[0] + 1) / 2
