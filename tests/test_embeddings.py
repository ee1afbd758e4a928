"""Embeddings: every family of functions against an oracle, and what all of them promise."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import DTYPES, assert_close, assert_raises, eps, gaussian, generator, parameters, real
from test_model import output_bytes, peak_bytes

import neumatc as nm
from neumatc import sampling
from studies import bases

# name: (embedding, dimensions: one, and several)
ALL = {
    "sine": (nm.SinusoidalMLP(width=12), (1, 3)),
    "deep sine": (nm.SinusoidalMLP(layers=3, width=7, frequency=2.0), (1, 3)),
    "chebyshev": (nm.Chebyshev(9), (1, 3)),
    "chebyshev stretched": (nm.Chebyshev(9, stretch=0.9), (1, 3)),
    "chebyshev periodic": (nm.Chebyshev(9, periodic=(True,)), (1,)),
    "chebyshev partly periodic": (nm.Chebyshev(5, stretch=0.5, periodic=(False, True, False)), (3,)),
    "chebyshev tensor": (nm.Chebyshev(3, "tensor"), (1, 3)),
    "chebyshev hyperbolic": (nm.Chebyshev(9, "hyperbolic"), (1, 3)),
    "fourier": (bases.FourierExtension(8), (1, 3)),
    "fourier tensor": (bases.FourierExtension(3, 2.0, "tensor"), (1, 3)),
    "radial": (bases.RadialBasis(11), (1, 3)),
    "radial quintic": (bases.RadialBasis(5, 5), (1, 3)),
    "radial one": (bases.RadialBasis(1, 1), (1, 3)),
}
CASES = [pytest.param(e, d, id=f"{name}-{d}") for name, (e, ds) in ALL.items() for d in ds]
each = pytest.mark.parametrize(("embedding", "d"), CASES)


def cube(count, d, dtype=torch.float64, ends=True):
    """Random points of the cube, and its corners."""
    x = 2 * parameters(count, d, dtype) - 1
    return torch.cat([x, torch.tensor(list(itertools.product((-1.0, 1.0), repeat=d))).to(dtype)]) if ends else x


def surrogate_of(embedding, d, dtype=torch.float64, rank=3, size=4, seed=0, device="cpu"):
    """Surrogate with random weights on [-1, 2]^d."""
    weights = embedding.initialise(d, rank, generator(seed))
    weights = {name: w.to(device, real(dtype)) for name, w in weights.items()}
    core = gaussian(rank, size, size, dtype=dtype, seed=seed).to(device)
    box = nm.Box([-1.0] * d, [2.0] * d, dtype=real(dtype), device=device)
    maps = [nm.FactorMap("X", core, embedding, weights)]
    return nm.Surrogate(nm.Inverse(), (size, size), maps, box, nm.Report("Random", {}, rank, seed))


# What all promise


@each
def test_features_have_the_promised_shape_and_are_deterministic(embedding, d, dtype, device):
    dtype = real(dtype)
    hidden = {name: w.to(device, dtype) for name, w in embedding.hidden(d, generator(3)).items()}
    again = embedding.hidden(d, generator(3))
    assert all(torch.equal(again[name].to(device, dtype), w) for name, w in hidden.items())
    x = cube(20, d, dtype).to(device)
    kept = x.clone()
    psi = embedding.features(x, hidden)
    assert torch.equal(x, kept)
    assert psi.shape == (len(x), embedding.count(d))
    assert embedding.working_numbers(d, 5) >= embedding.count(d) + 5
    assert (psi.dtype, psi.device) == (dtype, x.device)
    assert psi.isfinite().all()  # at the corners of the cube too
    for row in (0, len(x) - 1):  # a batch of one
        assert_close(embedding.features(x[row : row + 1], hidden), psi[row : row + 1], units=100)
    assert type(embedding)(**embedding.settings()) == embedding


@each
def test_no_feature_is_constant_and_the_last_layer_is_linear(embedding, d):
    weights = embedding.initialise(d, 5, generator())
    assert weights["weight_out"].shape == (5, embedding.count(d))
    assert weights["bias_out"].shape == (5,)
    assert all(w.dtype == torch.float64 for w in weights.values())
    x = cube(200, d)
    psi = embedding.features(x, weights)
    assert (psi.std(dim=0) > 1e-6).all()
    assert_close(embedding(x, weights), psi @ weights["weight_out"].T + weights["bias_out"])


@each
def test_single_precision_features_are_accurate(embedding, d):
    """Against the same features in double precision at the same rounded points and weights."""
    hidden = {name: w.float() for name, w in embedding.hidden(d, generator()).items()}
    x = cube(300, d, torch.float32)
    exact = embedding.features(x.double(), {name: w.double() for name, w in hidden.items()})
    frequency = {"SinusoidalMLP": 40, "FourierExtension": 20}.get(type(embedding).__name__, 1)
    assert (embedding.features(x, hidden).double() - exact).abs().max() <= (
        100 * frequency * eps(torch.float32) * max(1, float(exact.abs().max()))
    )


@each
def test_every_embedding_is_stored_and_moved(embedding, d, tmp_path):
    surrogate = surrogate_of(embedding, d)
    p = 3 * parameters(12, d) - 1
    nm.save(surrogate, tmp_path / "a")
    loaded = nm.load(tmp_path / "a")
    assert loaded.maps[0].embedding == embedding
    assert all(torch.equal(loaded.maps[0].weights[name], w) for name, w in surrogate.maps[0].weights.items())
    assert_close(loaded(p), surrogate(p), units=1000)  # the same numbers, in memory of another alignment
    expected = surrogate(p)
    low = surrogate.to(dtype=torch.float32)
    assert low.dtype == torch.float32
    assert (low(p).double() - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert low.to("cpu", torch.float64)(p).dtype == torch.float64


@each
def test_every_embedding_serves_one_parameter_the_ends_and_out(embedding, d, dtype, device):
    surrogate = surrogate_of(embedding, d, dtype, device=device)
    p = ((cube(5, d) + 1) * 1.5 - 1).to(device)
    value = surrogate(p)
    assert value.isfinite().all()
    for i in range(len(p)):
        assert_close(surrogate(p[i : i + 1]), value[i : i + 1], units=1000)
    out = torch.full_like(value, torch.nan)
    assert surrogate(p, out=out) is out
    assert torch.equal(out, value)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_every_embedding_keeps_the_memory_budget(embedding, d, dtype):
    surrogate = surrogate_of(embedding, d, dtype)
    p = 3 * parameters(150, d) - 1
    budget = output_bytes(surrogate, len(p)) + 20_000
    assert peak_bytes(lambda: surrogate(p, memory_budget=budget)) <= budget


@each
def test_every_embedding_follows_the_parameters(embedding, d):
    """Derivatives in p through autograd and torch.func, of the values that a call without them gives."""
    surrogate = surrogate_of(embedding, d)
    p = 3 * parameters(4, d) - 1
    assert_close(surrogate(p.clone().requires_grad_()).detach(), surrogate(p), units=1000)
    derivative = torch.func.vmap(torch.func.jacrev(lambda q: surrogate(q[None])[0]))(p)
    h = 1e-6
    steps = h * torch.eye(d, dtype=torch.float64)
    evaluate = lambda q: surrogate(q, extrapolate=True)  # noqa: E731
    slopes = torch.stack([(evaluate(p + s) - evaluate(p - s)) / (2 * h) for s in steps], dim=-1)
    assert (derivative - slopes).abs().max() < 1e-6 * max(1, float(slopes.abs().max()))


@each
def test_trainable_weights_exist_and_have_gradients(embedding, d):
    weights = embedding.initialise(d, 2, generator())
    names = set(weights) if embedding.trainable is None else set(embedding.trainable)
    assert names <= set(weights)
    assert {"weight_out", "bias_out"} <= names
    live = {name: w.clone().requires_grad_(name in names) for name, w in weights.items()}
    embedding(cube(9, d), live).square().sum().backward()
    assert all(live[name].grad.isfinite().all() for name in names)
    assert any(live[name].grad.abs().max() > 0 for name in names)


def test_what_gradient_training_moves():
    """The centres are no weights to be trained."""
    names = {name: embedding.trainable for name, (embedding, _) in ALL.items()}
    assert all(names[name] == ("weight_out", "bias_out") for name in names if "sine" not in name)
    assert names["sine"] is None
    for name in ("radial", "chebyshev", "fourier", "sine"):
        embedding = ALL[name][0]
        problem = nm.Problem(nm.families.trigonometric(3, 2, 3.0, cycles=0.3, dtype=torch.float64), nm.Inverse())
        method = nm.ResidualTraining(embedding, steps=3, collocation=16, batch=8, rounds=1)
        surrogate = nm.fit(problem, rank=3, method=method, progress=False)
        # The draws before the weights of the embedding are those of the latent tensor.
        draws = generator(0)
        torch.randn((3, 3, 3), dtype=torch.float64, generator=draws)
        initial = embedding.initialise(1, 3, draws)
        moved = {name for name, w in surrogate.maps[0].weights.items() if not torch.equal(w, initial[name])}
        assert moved == (set(initial) if embedding.trainable is None else {"weight_out", "bias_out"})


# The sine network


def test_the_sine_network_is_its_formula():
    embedding = nm.SinusoidalMLP(layers=3, width=6, frequency=5.0)
    weights = embedding.initialise(2, 4, generator())
    x = 2 * parameters(9, 2) - 1
    h = torch.sin(x @ weights["weight1"].T + weights["bias1"])
    for layer in (2, 3):
        h = torch.sin(h @ weights[f"weight{layer}"].T + weights[f"bias{layer}"])
    assert_close(embedding(x, weights), h @ weights["weight_out"].T + weights["bias_out"])
    assert weights["weight1"].abs().max() <= 5.0
    assert weights["bias1"].abs().max() <= math.pi
    assert weights["weight2"].abs().max() <= 1.0  # sqrt(6 / width)
    assert nm.SinusoidalMLP(**embedding.settings()) == embedding
    again = embedding.initialise(2, 4, generator())
    assert all(torch.equal(again[name], weights[name]) for name in weights)


# Chebyshev polynomials


def index_set(degree, index, d):
    size = {
        "tensor": max,
        "total": sum,
        "hyperbolic": lambda k: math.prod(i + 1 for i in k) - 1,
    }[index]
    return {k for k in itertools.product(range(degree + 1), repeat=d) if any(k) and size(k) <= degree}


@pytest.mark.parametrize("index", ["tensor", "total", "hyperbolic"])
@pytest.mark.parametrize(
    ("degree", "d"), [(1, 1), (2, 1), (3, 1), (7, 1), (64, 1), (3, 2), (64, 2), (1, 3), (2, 3), (7, 3)]
)
def test_chebyshev_is_numpys(degree, d, index):
    if d == 3 and degree == 64 and index == "tensor":
        degree = 12  # 274,624 products else
    embedding = nm.Chebyshev(degree, index)
    x = cube(12, d)
    psi = embedding.features(x, {})
    indices = [tuple(k) for k in embedding.indices(d).tolist()]
    assert set(indices) == index_set(degree, index, d)
    assert len(indices) == len(set(indices)) == embedding.count(d) == psi.shape[1]
    assert [sum(k) for k in indices] == sorted(sum(k) for k in indices)
    T = [np.polynomial.chebyshev.chebvander(x[:, i].numpy(), degree) for i in range(d)]
    expected = np.stack([math.prod(t[:, j] for t, j in zip(T, k)) for k in indices], axis=1)
    assert np.abs(psi.numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("degree", [1, 2, 3, 5, 7, 8, 33, 64, 300])
def test_chebyshev_is_the_cosine_in_single_precision(degree):
    """Its condition number is the degree squared at the ends and the degree inside."""
    x = torch.cat([torch.linspace(-1, 1, 1001), torch.tensor([-1.0, 1.0, 0.0])])[:, None]
    psi = nm.Chebyshev(degree).features(x, {})
    exact = torch.cos(torch.arange(1, degree + 1) * torch.arccos(x.double()))
    assert (psi.double() - exact).abs().max() <= 16 * degree * eps(torch.float32)
    assert (psi[-2] == 1).all()
    assert torch.equal(psi[-3], (-1.0) ** torch.arange(1, degree + 1))


@pytest.mark.parametrize(
    ("degree", "d", "counts"), [(8, 2, (80, 44, 22)), (1, 3, (7, 3, 3)), (5, 1, (5, 5, 5)), (4, 3, (124, 34, 15))]
)
def test_counts(degree, d, counts):
    for index, count in zip(("tensor", "total", "hyperbolic"), counts):
        for kind in (nm.Chebyshev(degree, index), bases.FourierExtension(degree, index=index)):
            assert kind.count(d) == count == len(index_set(degree, index, d))


def test_on_periodic_axes_they_are_the_waves_of_the_period():
    x, k = cube(20, 2), 6
    psi = nm.Chebyshev(k, "tensor", periodic=(True, False)).features(x, {})
    t = torch.pi * x[:, :1]
    waves = [torch.ones_like(t), *(f(m * t) for m in (1, 2, 3) for f in (torch.cos, torch.sin))]
    T = torch.from_numpy(np.polynomial.chebyshev.chebvander(x[:, 1].numpy(), k))
    every = (torch.cat(waves, dim=1)[:, :, None] * T[:, None]).flatten(1)[:, 1:]
    assert psi.shape == every.shape
    assert (torch.sort(psi, dim=1).values - torch.sort(every, dim=1).values).abs().max() < 1e-12


@pytest.mark.parametrize("flags", [True, ("no",), 1])
def test_flags_of_axes_are_true_or_false(flags):
    with pytest.raises(TypeError, match="`periodic`: expected a flag for each axis"):
        nm.Chebyshev(4, periodic=flags)


def test_flags_of_axes_are_one_for_each():
    with pytest.raises(ValueError, match="`periodic`: expected a flag for each of 3 axes"):
        nm.Chebyshev(4, periodic=(True, False)).count(3)


# Fourier extension


def test_fourier_extension_does_not_depend_on_the_default_dtype():
    x = cube(50, 1)
    expected = bases.FourierExtension(9).features(x, {})
    torch.set_default_dtype(torch.float64)
    try:
        psi = bases.FourierExtension(9).features(x, {})
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(psi, expected)


@pytest.mark.parametrize(("degree", "extension"), [(1, 1.5), (2, 1.5), (7, 2.0), (64, 1.01)])
def test_fourier_extension_is_its_formula(degree, extension):
    x = cube(50, 1)
    psi = bases.FourierExtension(degree, extension).features(x, {})
    for j in range(1, degree + 1):
        k = (j + 1) // 2
        function = torch.sin if j % 2 else torch.cos
        assert (psi[:, j - 1] - function(torch.pi * k * x[:, 0] / extension)).abs().max() < 1e-12


def test_fourier_extension_takes_products_in_several_parameters():
    embedding = bases.FourierExtension(5)
    x = cube(20, 3)
    one = torch.cat(
        [torch.ones(len(x), 3, 1).double(), torch.stack([embedding.features(y[:, None], {}) for y in x.T], 1)], 2
    )
    expected = torch.stack([one[:, 0, i] * one[:, 1, j] * one[:, 2, k] for i, j, k in embedding.indices(3)], dim=1)
    assert_close(embedding.features(x, {}), expected)


# Radial basis functions


@pytest.mark.parametrize("power", [1, 3, 5])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_radial_basis_is_its_formula(power, d):
    embedding = bases.RadialBasis(9, power)
    hidden = embedding.hidden(d, generator())
    centres = hidden["centres"]
    assert centres.shape == (9, d)
    assert (centres.abs() <= 1).all()
    assert len(centres.unique(dim=0)) == 9
    x = torch.cat([cube(20, d), centres])  # a centre itself too
    psi = embedding.features(x, hidden)
    distances = torch.cdist(x, centres, compute_mode="donot_use_mm_for_euclid_dist")
    assert_close(psi[:, :9], distances**power)
    assert torch.equal(psi[:, 9:], x)
    assert not torch.equal(embedding.hidden(d, generator(1))["centres"], centres)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nm.SinusoidalMLP(layers=0), ["`layers`", "at least 1", "got 0"]),
        (lambda: nm.SinusoidalMLP(width=2.5), ["`width`", "integer", "2.5"]),
        (lambda: nm.SinusoidalMLP(frequency=0.0), ["`frequency`", "above 0", "got 0.0"]),
        (lambda: nm.SinusoidalMLP(frequency=math.inf), ["`frequency`", "finite", "inf"]),
        (lambda: nm.Chebyshev(0), ["`degree`", "at least 1", "got 0"]),
        (lambda: nm.Chebyshev(2.0), ["`degree`", "integer", "2.0"]),
        (lambda: nm.Chebyshev(True), ["`degree`", "integer", "True"]),
        (lambda: nm.Chebyshev(3, "cross"), ["`index`", "'tensor', 'total', 'hyperbolic' or 'smolyak'", "'cross'"]),
        (lambda: nm.Chebyshev(3, None), ["`index`", "None"]),
        (lambda: nm.Chebyshev(3, stretch=1.0), ["`stretch`", "below 1", "1.0"]),
        (lambda: nm.Chebyshev(3, stretch=-0.1), ["`stretch`", "at least 0", "-0.1"]),
        (lambda: bases.FourierExtension(0), ["`degree`", "at least 1"]),
        (lambda: bases.FourierExtension(3, 1.0), ["`extension`", "above 1", "got 1.0"]),
        (lambda: bases.FourierExtension(3, math.nan), ["`extension`", "finite", "nan"]),
        (lambda: bases.FourierExtension(3, index="x"), ["`index`", "'x'"]),
        (lambda: bases.RadialBasis(0), ["`centres`", "at least 1"]),
        (lambda: bases.RadialBasis(4, 2), ["`power`", "1, 3 or 5", "got 2"]),
        (lambda: bases.RadialBasis(4, "3"), ["`power`", "1, 3 or 5", "got '3'"]),
    ],
)
def test_embeddings_refuse(make, words):
    assert_raises((ValueError, TypeError), words, make)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_copy_with_other_arguments_is_another_embedding(dtype):
    assert replace(nm.Chebyshev(3), degree=4) == nm.Chebyshev(4) != nm.Chebyshev(3)
    assert hash(nm.Chebyshev(3)) == hash(nm.Chebyshev(3))


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 7, 8, 9, 63, 64, 65])
def test_chebyshev_polynomials_have_their_slopes(degree):
    x = torch.linspace(-1, 1, 301, dtype=torch.float64).requires_grad_()
    slope = torch.autograd.grad(nm.Chebyshev(degree).univariate(x)[-1].sum(), x)[0]
    inside = slice(1, -1)
    theta = x.detach().acos()[inside]
    assert (slope[inside] - degree * torch.sin(degree * theta) / torch.sin(theta)).abs().max() < 1e-11 * degree**2


@pytest.mark.parametrize("stretch", [1e-9, 0.5, 0.99])
def test_stretched_chebyshev_polynomials_are_cosines_of_the_stretched_angle(stretch):
    x = torch.linspace(-1, 1, 101, dtype=torch.float64)
    y = torch.sin(x * math.asin(stretch)) / stretch
    expected = torch.cos(torch.arange(1, 13)[:, None] * torch.acos(y.clamp(-1, 1)))
    assert (nm.Chebyshev(12, stretch=stretch).univariate(x) - expected).abs().max() < 1e-6  # acos at the ends
    nodes, _ = sampling.design(12, 1, stretch=stretch)
    values = nm.Chebyshev(11, stretch=stretch).univariate(nodes[:, 0])
    assert (values @ values.T - 6 * torch.eye(11)).abs().max() < 1e-13  # discrete orthogonality


def test_the_stretch_needs_fewer_terms_for_an_oscillation():
    """cos(24 x) from 32 nodes: 7.6 oscillations across the box, four nodes each."""
    x = torch.linspace(-1, 1, 1001, dtype=torch.float64)
    errors = []
    for stretch in (0.0, sampling.widest_stretch(32, 1e-6)):
        nodes, _ = sampling.design(32, 1, stretch=stretch)
        embedding = nm.Chebyshev(31, stretch=stretch)
        T, U = (torch.cat([torch.ones_like(y)[None], embedding.univariate(y)]) for y in (nodes[:, 0], x))
        errors.append(float((torch.cos(24 * x) - torch.linalg.solve(T.T, torch.cos(24 * nodes[:, 0])) @ U).abs().max()))
    assert errors[1] < 0.02 * errors[0]


def test_the_stretched_variable_is_rounded_once():
    """In single precision too: polynomials of high degree magnify its errors."""
    embedding = nm.Chebyshev(128, stretch=0.99)
    x = 2 * parameters(2000, dtype=torch.float32) - 1
    error = embedding.features(x, {})[:, 0].double() - embedding.features(x.double(), {})[:, 0]
    assert error.abs().max() <= 0.26 * eps(torch.float32)
