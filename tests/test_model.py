"""The model: the mode-3 product, memory budgets measured on the allocator, batches, and every refusal."""

import json
import math

import pytest
import torch
from conftest import DTYPES, assert_close, assert_raises, generator, parameters, random_surrogate, real, tensors_of
from torch.profiler import ProfilerActivity, profile

import neumatc as nm

OPERATIONS = [nm.Inverse(), nm.SVD(rank=2), nm.LogDet()]
operations = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


def inside(count, d, dtype=torch.float64, device="cpu", seed=0):
    """Parameters of the box [-1, 2]^d of `random_surrogate`."""
    return (3 * parameters(count, d, dtype, seed) - 1).to(device)


def mode_3(surrogate, p):
    """The factors by definition, X(p)[...] = sum_k C[..., k] Phi(p)[k], in double precision."""
    values = []
    for m in surrogate.maps:
        x = ((2 * p.double() - (surrogate.lower + surrogate.upper)) / (surrogate.upper - surrogate.lower)).double()
        phi = m.embedding(x, {name: weight.double() for name, weight in m.weights.items()})
        wide = torch.complex128 if m.latent.is_complex() else torch.float64
        values.append(torch.einsum("...k,bk->b...", m.latent.to(wide), phi.to(wide)))
    return values


@pytest.mark.parametrize("d", [1, 2, 3])
@operations
def test_evaluation_is_the_mode_3_product(operation, d, dtype, device):
    surrogate = random_surrogate(operation, 5, 5, dtype, d, device=device)
    p = inside(40, d, real(dtype), device)
    expected = mode_3(surrogate, p)
    operation.finish(expected, expected)
    value = surrogate(p)
    factors = [value] if isinstance(value, torch.Tensor) else value
    assert [x.dtype for x in factors] == [m.core.dtype for m in surrogate.maps]
    for x, y, m in zip(factors, expected, surrogate.maps):
        assert not x.requires_grad
        assert x.device == p.device
        assert m.latent.shape == (*m.core.shape[1:], surrogate.rank)
        assert_close(x.cpu(), y.cpu(), units=500)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7)])
def test_svd_factors_are_rectangular_sorted_and_nonnegative(shape, dtype, device):
    value = random_surrogate(nm.SVD(rank=2), *shape, dtype, device=device)(inside(30, 1, device=device))
    assert type(value) is nm.SVDFactors
    assert [tuple(x.shape) for x in value] == [(30, shape[0], 2), (30, 2), (30, 2, shape[1])]
    S = value.S
    assert S.dtype == real(dtype)
    assert (S >= 0).all()
    assert (S.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("complex_core", [False, True])
def test_factor_map_has_gradients_without_out_and_equals_itself_with_out(complex_core):
    m = random_surrogate(nm.Inverse(), 4, 4, torch.complex128 if complex_core else torch.float64).maps[0]
    x = parameters(6) * 2 - 1
    core = m.core.clone().requires_grad_()
    value = nm.FactorMap(m.name, core, m.embedding, m.weights)(x)
    value.abs().square().sum().backward()
    assert core.grad.abs().max() > 0
    out = torch.empty_like(value)
    with torch.no_grad():
        assert m(x, out=out) is out
    assert_close(out, value.detach())


def test_embedding_is_its_formula():
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


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": 0}, ["`layers`", "at least 1", "got 0"]),
        ({"width": 2.5}, ["`width`", "integer", "2.5"]),
        ({"frequency": 0.0}, ["`frequency`", "above 0", "got 0.0"]),
        ({"frequency": math.inf}, ["`frequency`", "finite", "inf"]),
    ],
)
def test_embedding_refuses(settings, words):
    assert_raises((ValueError, TypeError), words, lambda: nm.SinusoidalMLP(**settings))


def peak_bytes(function, path):
    """Most bytes that torch's CPU allocator held at once during a call, beyond those held before it.

    Read from the profiler's record of every single allocation, temporaries inside of kernels included.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    recorded.export_chrome_trace(str(path))
    events = [event["args"] for event in json.loads(path.read_text())["traceEvents"] if event["name"] == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event["Ev Idx"]):
        held += event["Bytes"]
        peak = max(peak, held)
    return peak


def output_bytes(surrogate, count):
    factors = zip(surrogate.operation.factors(*surrogate.shape), surrogate.maps)
    dtypes = [(factor.shape, factor.dtype(m.core.dtype)) for factor, m in factors]
    return count * sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in dtypes)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: (x + 1) * 2, 8000),
        (lambda x: [x + 1 for _ in range(3)], 12000),
        (lambda x: [None for _ in range(3) if (x + 1) is None], 4000),
    ],
    ids=["temporary", "kept", "released"],
)
def test_peak_bytes_sees_temporaries(function, expected, tmp_path):
    x = torch.ones(1000)
    assert expected <= peak_bytes(lambda: function(x), tmp_path / "trace.json") <= expected + 50  # boxed scalars


def consume(batches):
    """Iterate as the documentation asks: let go of a piece before the next is made."""
    count = 0
    for p, value in batches:
        count += len(p)
        del p, value
    return count


CASES = [
    (nm.Inverse(), (6, 6), None),
    (nm.SVD(rank=3), (24, 4), None),
    (nm.SVD(rank=3), (4, 24), None),
    (nm.SVD(rank=3), (6, 6), None),
    (nm.SVD(rank=3), (24, 6), [(24, 5), (5,), (5, 6)]),
    (nm.SVD(rank=3), (6, 12), [(6, 5), (5, 5), (5, 12)]),
    (nm.SVD(rank=3, gauge="subspace"), (6, 6), [(6, 3), (3, 3), (3, 6)]),
    (nm.Eigh(rank=3), (6, 6), [(5, 5), (6, 5)]),
    (nm.Eig(), (6, 6), None),
    (nm.LogDet(), (6, 6), None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("d", "p_dtype"), [(1, torch.float32), (3, torch.float64)], ids=str)
@pytest.mark.parametrize("width", [1, 32])
@pytest.mark.parametrize(("operation", "shape", "shapes"), CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_budget_is_kept_on_the_allocator(operation, shape, shapes, dtype, width, d, p_dtype, tmp_path):
    """The peak never exceeds the budget, whether the working memory or the output is the larger part."""
    surrogate = random_surrogate(operation, *shape, dtype, d, rank=3, width=width, shapes=shapes)
    p = inside(400, d, p_dtype)
    for working in (10_000, 100_000):
        budget = output_bytes(surrogate, len(p)) + working
        assert peak_bytes(lambda budget=budget: surrogate(p, memory_budget=budget), tmp_path / "trace.json") <= budget
    budget = 30_000
    assert peak_bytes(lambda: consume(surrogate.batches(p, budget)), tmp_path / "trace.json") <= budget


@operations
def test_budgets_do_not_change_values(operation, dtype, device):
    surrogate = random_surrogate(operation, 5, 5, dtype, 2, device=device)
    p = inside(300, 2, device=device)
    value = surrogate(p)
    tight = surrogate(p, memory_budget=output_bytes(surrogate, 300) + 3000)
    pieces = list(surrogate.batches(p, 5000))
    assert len(pieces) > 5
    assert torch.equal(torch.cat([q for q, _ in pieces]), p)
    joined = operation.pack([torch.cat(x) for x in zip(*[v if isinstance(v, tuple) else (v,) for _, v in pieces])])
    for x, y, z in zip(*[v if isinstance(v, tuple) else (v,) for v in (value, tight, joined)]):
        assert_close(x, y)
        assert_close(z, y)


@operations
def test_a_million_parameters_within_a_budget(operation, tmp_path):
    surrogate = random_surrogate(operation, 3, 3, torch.float32)
    p, budget, seen = inside(1_000_000, 1, torch.float32), 4 * 2**20, []
    used = peak_bytes(lambda: seen.append(consume(surrogate.batches(p, budget))), tmp_path / "trace.json")
    assert seen == [1_000_000]
    assert used <= budget


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@operations
def test_budget_is_kept_on_cuda(operation):
    surrogate = random_surrogate(operation, 16, 16, torch.complex64, device="cuda:0", rank=8, width=32)
    p, budget = inside(200_000, 1, device="cuda:0"), 64 * 2**20
    surrogate(p[:10])  # cuBLAS takes its workspace at the first call
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    consume(surrogate.batches(p, budget))
    assert torch.cuda.max_memory_allocated() - before <= budget


def test_a_single_parameter_needs_little():
    """The default working memory is a limit, not an amount: one parameter of a wide model is evaluated too."""
    surrogate = random_surrogate(nm.Inverse(), 2, 2, torch.float32, width=4096)
    assert surrogate(inside(1, 1)).shape == (1, 2, 2)


def test_extrapolation_is_an_explicit_choice():
    surrogate = random_surrogate(nm.Inverse(), 4, 4, torch.float64)
    p = torch.tensor([[2.5], [-7.0]], dtype=torch.float64)
    assert_close(surrogate(p, extrapolate=True), mode_3(surrogate, p)[0])
    (q, value), *_ = surrogate.batches(p, 10**6, extrapolate=True)
    assert torch.equal(q, p)
    assert_close(value, mode_3(surrogate, p)[0])
    assert surrogate(torch.tensor([[2.0], [-1.0]])).isfinite().all()  # the ends belong to the box


@pytest.mark.parametrize("low", [1e9, -3e7, 0.25])
def test_parameters_in_single_precision_in_a_box_of_double(low):
    """Their numbers count as they are; the box, in which float32 sees a few points or none, is not rounded."""
    base = random_surrogate(nm.Inverse(), 3, 3, torch.float64)
    box = torch.tensor([low], dtype=torch.float64), torch.tensor([low + 1.5], dtype=torch.float64)
    surrogate = nm.Surrogate(base.operation, (3, 3), base.maps, *box, ["p"], [""], base.report)
    p = torch.tensor([[low], [low + 1]], dtype=torch.float32)
    p = p[(p[:, 0] >= box[0]) & (p[:, 0] <= box[1])]
    assert_close(surrogate(p), surrogate(p.double()))


@pytest.mark.parametrize("call", ["evaluate", "batches"])
@pytest.mark.parametrize(
    ("p", "error", "words"),
    [
        ([[0.5, 0.5]], TypeError, ["`p`", "torch.Tensor", "list", "torch.as_tensor(p)"]),
        (torch.zeros(3, 2).long(), TypeError, ["`p`", "float32 or float64", "int64", "convert"]),
        (torch.zeros(3, 2).cfloat(), TypeError, ["`p`", "float32 or float64", "complex64", "convert"]),
        (torch.zeros(3, 2).half(), TypeError, ["`p`", "float32 or float64", "float16", "convert"]),
        (torch.zeros(2), ValueError, ["`p`", "(B, 2)", "(2,)", "reshape"]),
        (torch.zeros(4, 3), ValueError, ["`p`", "(B, 2)", "(4, 3)", "reshape"]),
        (torch.zeros(1, 4, 2), ValueError, ["`p`", "(B, 2)", "(1, 4, 2)", "reshape"]),
        (torch.zeros(0, 2), ValueError, ["`p`", "at least one", "empty", "(0, 2)"]),
        (torch.tensor([[0.0, 0.0], [0.0, math.inf]]), ValueError, ["`p`", "finite", "inf", "row 1"]),
        (torch.tensor([[0.0, 0.0], [math.nan, 0.0]]), ValueError, ["`p`", "finite", "nan", "row 1"]),
        (
            torch.tensor([[0.0, 2.5]]),
            ValueError,
            ["`p`", "[-1.0, -1.0] to [2.0, 2.0]", "2.5", "row 0", "extrapolate=True"],
        ),
        (torch.zeros(1, 2, device="meta"), ValueError, ["`p`", "device cpu", "meta", "p.to('cpu')"]),
    ],
)
def test_bad_parameters_are_refused_at_once(call, p, error, words):
    surrogate = random_surrogate(nm.Inverse(), 3, 3, torch.float32, d=2)
    function = surrogate if call == "evaluate" else lambda p: surrogate.batches(p, 10**6)
    assert_raises(error, words, lambda: function(p))


def test_bad_budgets_are_refused():
    surrogate = random_surrogate(nm.Inverse(), 3, 3, torch.float32)
    p = inside(100, 1)
    assert_raises(
        ValueError,
        ["`memory_budget`", "100 parameters", "got 3600", "surrogate.batches"],
        lambda: surrogate(p, memory_budget=3600),
    )
    assert_raises(ValueError, ["`memory_budget`", "one parameter", "got 50"], lambda: surrogate.batches(p, 50))
    for call in (lambda b: surrogate(p, memory_budget=b), lambda b: surrogate.batches(p, b)):
        assert_raises(TypeError, ["`memory_budget`", "integer", "1000000.0"], lambda call=call: call(1e6))
        assert_raises(ValueError, ["`memory_budget`", "at least 1", "got 0"], lambda call=call: call(0))


@pytest.mark.parametrize("target", DTYPES, ids=str)
@operations
def test_to_another_precision(operation, target, dtype):
    surrogate = random_surrogate(operation, 4, 4, dtype)
    if target.is_complex != dtype.is_complex:
        assert_raises(
            TypeError,
            ["`dtype`", "complex" if dtype.is_complex else "real", str(target)],
            lambda: surrogate.to(dtype=target),
        )
        return
    moved, p = surrogate.to(dtype=target), inside(20, 1)
    assert (moved.dtype, surrogate.dtype) == (target, dtype)
    assert [m.core.dtype for m in moved.maps] == [factor.dtype(target) for factor in operation.factors(4, 4)]
    low = max((dtype, target), key=lambda t: torch.finfo(t).eps)
    for x, y in zip(operation_values(moved, p), operation_values(surrogate, p)):
        assert (x - y).abs().max() <= 500 * torch.finfo(low).eps * y.abs().max()


def operation_values(surrogate, p):
    value = surrogate(p)
    return (value,) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("shapes", [None, [(3, 3), (4, 3)]], ids=str)
def test_real_values_before_complex_vectors(shapes, dtype, device):
    """The surrogate's dtype is complex where one of its outputs is, and does not decide on that of the others."""
    operation = nm.Eigh(rank=2)
    surrogate = random_surrogate(operation, 4, 4, dtype, shapes=shapes, device=device)
    values, vectors = surrogate(inside(9, 1, device=device))
    assert (surrogate.dtype, values.dtype, vectors.dtype) == (dtype, real(dtype), dtype)
    assert (tuple(values.shape), tuple(vectors.shape)) == ((9, 2), (9, 4, 2))
    single = torch.complex64 if dtype.is_complex else torch.float32
    moved = surrogate.to(device, dtype=single)
    assert moved.dtype == single
    assert [m.core.is_complex() for m in moved.maps] == [m.core.is_complex() for m in surrogate.maps]
    assert_close(moved(inside(9, 1, device=device)).eigenvalues.cpu(), values.cpu().to(torch.float64), units=500)


def test_to_another_device(device, dtype):
    surrogate = random_surrogate(nm.SVD(rank=2), 4, 4, dtype)
    moved = surrogate.to(device)
    assert all(t.device == torch.device(device) for t in tensors_of(moved).values())
    assert moved.device == torch.device(device)
    p = inside(20, 1)
    for x, y in zip(moved(p.to(device)), surrogate(p)):
        assert_close(x.cpu(), y)
    assert_raises(
        (TypeError, ValueError), ["`dtype`", "complex128", "float16"], lambda: surrogate.to(dtype=torch.float16)
    )


def test_representation_names_the_factors():
    text = repr(random_surrogate(nm.SVD(rank=2), 5, 4, torch.complex64))
    assert text == "Surrogate(SVD(rank=2, gauge='vectors'), U (5, 2, 3), S (2, 3), Vh (2, 4, 3), torch.complex64, cpu)"
