"""The model: the mode-3 product, memory budgets measured on the allocator, batches, and every refusal."""

import copy
import math
import shutil

import numpy as np
import pytest
import torch
from conftest import (
    DTYPES,
    assert_close,
    assert_raises,
    eps,
    factors_of,
    gaussian,
    in_pieces,
    parameters,
    random_surrogate,
    real,
    tensors_of,
)
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
        phi = m.embedding(surrogate.box.cube(p), {name: weight.double() for name, weight in m.weights.items()})
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
    assert [x.dtype for x in factors_of(value)] == [m.core.dtype for m in surrogate.maps]
    for x, y, m in zip(factors_of(value), expected, surrogate.maps):
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


def peak_bytes(function):
    """Most bytes that torch's CPU allocator held at once during a call, beyond those held before it.

    Read from the profiler's record of every single allocation, temporaries inside of kernels included.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
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
def test_peak_bytes_sees_temporaries(function, expected):
    x = torch.ones(1000)
    assert expected <= peak_bytes(lambda: function(x)) <= expected + 50  # boxed scalars


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
@pytest.mark.parametrize(
    ("dtype", "width", "d", "p_dtype"),
    [(torch.float32, 32, 1, torch.float32), (torch.complex128, 1, 3, torch.float64)],
    ids=str,
)
@pytest.mark.parametrize(("operation", "shape", "shapes"), CASES, ids=str)
def test_budget_is_kept_on_the_allocator(operation, shape, shapes, dtype, width, d, p_dtype):
    """The peak never exceeds the budget, whether the working memory or the output is the larger part."""
    surrogate = random_surrogate(operation, *shape, dtype, d, rank=3, width=width, shapes=shapes)
    p = inside(120, d, p_dtype)
    for working in (10_000, 100_000):
        budget = output_bytes(surrogate, len(p)) + working
        assert peak_bytes(lambda budget=budget: surrogate(p, memory_budget=budget)) <= budget
    budget = 30_000
    assert peak_bytes(lambda: consume(surrogate.batches(p, budget))) <= budget


@operations
def test_budgets_do_not_change_values(operation, dtype, device):
    surrogate = random_surrogate(operation, 5, 5, dtype, 2, device=device)
    p = inside(300, 2, device=device)
    value = surrogate(p)
    tight = surrogate(p, memory_budget=output_bytes(surrogate, 300) + 3000)
    pieces = list(surrogate.batches(p, 5000))
    assert len(pieces) > 5
    assert torch.equal(torch.cat([q for q, _ in pieces]), p)
    joined = operation.pack([torch.cat(x) for x in zip(*[factors_of(v) for _, v in pieces])])
    for x, y, z in zip(*map(factors_of, (value, tight, joined))):
        assert_close(x, y)
        assert_close(z, y)


@operations
def test_a_million_parameters_within_a_budget(operation):
    surrogate = random_surrogate(operation, 3, 3, torch.float32)
    p, budget, seen = inside(1_000_000, 1, torch.float32), 4 * 2**20, []
    used = peak_bytes(lambda: seen.append(consume(surrogate.batches(p, budget))))
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
    surrogate = nm.Surrogate(base.operation, (3, 3), base.maps, nm.Box(*box), base.report)
    p = torch.tensor([[low], [low + 1]], dtype=torch.float32)
    p = p[(p[:, 0] >= box[0]) & (p[:, 0] <= box[1])]
    assert_close(surrogate(p), surrogate(p.double()))


@pytest.mark.parametrize("call", ["evaluate", "batches"])
@pytest.mark.parametrize(
    ("p", "error", "words"),
    [
        ([["a", 0.5]], TypeError, ["`p`", "real numbers", "list"]),
        (torch.zeros(3, 2).bool(), TypeError, ["`p`", "float32 or float64", "bool", "convert"]),
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
def test_to_another_precision_keeps_real_and_complex(operation, target, dtype):
    surrogate, p = random_surrogate(operation, 4, 4, dtype), inside(20, 1)
    before, kinds = factors_of(surrogate(p)), [x.is_complex for x in surrogate.dtypes]
    bounds = surrogate.lower.dtype
    assert surrogate.to(dtype=target) is surrogate
    assert [real(x) for x in surrogate.dtypes] == [real(target)] * len(kinds)
    assert [x.is_complex for x in surrogate.dtypes] == kinds
    assert (surrogate.lower.dtype, surrogate.box.dtype) == (bounds, bounds)
    low = max((dtype, target), key=eps)
    for x, y in zip(factors_of(surrogate(p)), before):
        assert (x - y).abs().max() <= 500 * eps(low) * y.abs().max()


def test_to_refuses_half_precision():
    surrogate = random_surrogate(nm.Inverse(), 4, 4, torch.float64)
    for call in (lambda: surrogate.to(torch.float16), lambda: surrogate.to("cpu", dtype=torch.bfloat16)):
        assert_raises(TypeError, ["`dtype`", "complex128", "float16"], call)
    assert surrogate.dtype == torch.float64


@pytest.mark.parametrize("shapes", [None, [(3, 3), (4, 3)]], ids=str)
def test_real_values_before_complex_vectors(shapes, dtype, device):
    """The surrogate's dtype is complex where one of its outputs is, and does not decide on that of the others."""
    operation = nm.Eigh(rank=2)
    surrogate = random_surrogate(operation, 4, 4, dtype, shapes=shapes, device=device)
    values, vectors = surrogate(inside(9, 1, device=device))
    assert (surrogate.dtype, values.dtype, vectors.dtype) == (dtype, real(dtype), dtype)
    assert (tuple(values.shape), tuple(vectors.shape)) == ((9, 2), (9, 4, 2))


def test_to_another_device(device, dtype):
    surrogate, p = random_surrogate(nm.SVD(rank=2), 4, 4, dtype), inside(20, 1)
    before = surrogate(p)
    assert surrogate.to(device) is surrogate
    assert {t.device for t in tensors_of(surrogate).values()} == {torch.device(device)}
    assert (surrogate.device, surrogate.box.device) == (torch.device(device),) * 2
    for x, y in zip(surrogate(p.to(device)), before):
        assert_close(x.cpu(), y)


def test_representation_names_the_factors():
    text = repr(random_surrogate(nm.SVD(rank=2), 5, 4, torch.complex64))
    assert text == f"Surrogate({nm.SVD(rank=2)}, U (5, 2, 3), S (2, 3), Vh (2, 4, 3), torch.complex64, cpu)"


def test_maps_that_do_not_belong_to_the_operation_are_refused():
    base = random_surrogate(nm.Inverse(), 4, 4, torch.float64)
    words = ["`maps`", "'U'", "SVD(rank=2", "(4, 4)", "got [('X', (4, 4))]"]
    assert_raises(ValueError, words, lambda: nm.Surrogate(nm.SVD(rank=2), (4, 4), base.maps, base.box, base.report))


# Parameters


@pytest.mark.parametrize("p", [0.5, [0.5], np.array([0.5]), torch.tensor([0.5]), torch.tensor(0.5)], ids=repr)
def test_one_parameter_may_be_a_number_or_a_row(p):
    surrogate = random_surrogate(nm.Inverse(), 3, 3, torch.float64)
    assert torch.equal(torch.as_tensor(surrogate(p)), surrogate(torch.tensor([[0.5]])))


@operations
def test_numpy_gives_numpy(operation):
    surrogate, p = random_surrogate(operation, 4, 4, torch.complex128, 2), inside(9, 2)
    value, expected = surrogate(p.numpy()), surrogate(p)
    assert type(value) is (np.ndarray if isinstance(expected, torch.Tensor) else type(expected))
    for x, y in zip((value,) if isinstance(value, np.ndarray) else value, factors_of(expected)):
        assert np.array_equal(x, y.numpy())


@pytest.mark.parametrize("operation", [nm.Inverse(), nm.SVD(rank=2)], ids=str)
def test_a_problem_measures_what_numpy_gets(operation):
    problem = nm.Problem(nm.families.trigonometric(4, dtype=torch.float64), operation)
    surrogate, p = random_surrogate(operation, 4, 4, torch.float64), parameters(5)
    for measure in (problem.residual, problem.error):
        value = measure(p.numpy(), surrogate(p.numpy()))
        assert isinstance(value, np.ndarray)
        assert np.array_equal(value, measure(p, surrogate(p)).numpy())


def test_parameters_on_a_logarithmic_axis_are_scaled():
    base = random_surrogate(nm.Inverse(), 3, 3, torch.float64)
    box = nm.Box(1e-4, 1e4, scale="log", dtype=torch.float64)
    surrogate = nm.Surrogate(base.operation, (3, 3), base.maps, box, base.report)
    decades = torch.linspace(-4, 4, 9, dtype=torch.float64)
    assert_close(surrogate(10**decades), base(1.5 * decades / 4 + 0.5), units=1000)


def test_parameters_on_a_periodic_axis_repeat():
    base = random_surrogate(nm.Inverse(), 3, 3, torch.float64)
    box = nm.Box(-1.0, 2.0, periodic=True, dtype=torch.float64)
    surrogate, p = nm.Surrogate(base.operation, (3, 3), base.maps, box, base.report), inside(9, 1)
    assert torch.equal(surrogate(p), base(p))
    for turns in (-7, 1, 2):
        assert_close(surrogate(p + 3 * turns), base(p), units=2000)


# Modules


def test_a_surrogate_is_a_module_without_parameters():
    surrogate = random_surrogate(nm.SVD(rank=2), 5, 4, torch.complex128)
    assert isinstance(surrogate, torch.nn.Module)
    assert not list(surrogate.parameters())
    assert {"lower", "upper", "maps.0.numbers", "maps.2.phi_weight1"} <= set(surrogate.state_dict())
    assert not any(t.is_complex() for t in surrogate.state_dict().values())


@pytest.fixture(params=["one piece", "pieces"])
def kind(request):
    """Makes a surrogate of 3 x 3 matrices on [-1, 1]^2; those of another seed differ."""

    def smooth(seed):
        R = gaussian(2, 9, dtype=torch.complex128, seed=seed)
        return lambda x: torch.cos(x.to(R.dtype) @ R).view(-1, 3, 3)

    if request.param == "pieces":
        return lambda seed=0: in_pieces(smooth(seed), 2, torch.complex128)
    return lambda seed=0: random_surrogate(nm.Inverse(), 3, 3, torch.complex128, 2, seed=seed)


def test_a_state_dict_goes_round(kind):
    first, second, p = kind(), kind(1), cube(20, 2)
    assert not torch.equal(first(p), second(p))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(p), second(p))


def test_a_deep_copy_is_of_its_own(kind):
    first, p = kind(), cube(20, 2)
    value, second = first(p), copy.deepcopy(first)
    assert torch.equal(second(p), value)
    second.to(torch.float32)
    assert (first.dtype, second.dtype) == (torch.complex128, torch.complex64)
    assert torch.equal(first(p), value)


def cube(count, d, dtype=torch.float64):
    return 2 * parameters(count, d, dtype) - 1


@pytest.mark.parametrize("d", [1, 2])
def test_the_value_follows_the_parameters(kind, d):
    surrogate = kind() if d == 2 else random_surrogate(nm.Inverse(), 3, 3, torch.float64)
    p = cube(4, d).requires_grad_()
    assert_close(surrogate(p).detach(), surrogate(p.detach()))
    assert torch.autograd.gradcheck(surrogate, (p,))


def test_autograd_and_torch_func_agree(kind):
    surrogate, p = kind(), cube(5, 2)
    single = lambda q: torch.view_as_real(surrogate(q[None])[0])  # noqa: E731
    derivative = torch.func.vmap(torch.func.jacrev(single))(p)
    assert_close(torch.func.vmap(torch.func.jacfwd(single))(p), derivative)
    whole = torch.autograd.functional.jacobian(lambda q: torch.view_as_real(surrogate(q)), p)
    assert_close(torch.stack([whole[i, ..., i, :] for i in range(5)]), derivative)
    forward, step = torch.autograd.forward_ad, cube(10, 2)[5:]
    with forward.dual_level():
        tangent = forward.unpack_dual(torch.view_as_real(surrogate(forward.make_dual(p, step)))).tangent
    assert_close(tangent, torch.einsum("b...d,bd->b...", derivative, step))


COMPILER = pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="needs a C++ compiler")


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, COMPILER])])
def test_a_surrogate_compiles_without_breaks(kind, backend):
    surrogate, p = kind(), cube(12, 2)
    torch.compiler.reset()
    assert_close(torch.compile(surrogate, fullgraph=True, backend=backend)(p), surrogate(p))


@pytest.mark.parametrize("with_out", [True, False])
def test_parameters_with_gradients_are_refused_where_the_result_does_not_follow_them(with_out):
    surrogate, p = random_surrogate(nm.Inverse(), 4, 4, torch.float64), inside(3, 1).requires_grad_()
    options = {"out": torch.empty(3, 4, 4, dtype=torch.float64)} if with_out else {"orthonormal": True}
    assert_raises(ValueError, ["`p`", "gradients", "`p.detach()`"], lambda: surrogate(p, **options))


def reals(surrogate):
    """The factors of a surrogate as one function p (B, d) -> (B, numbers), of real and imaginary parts."""

    def values(p):
        parts = [part for x in factors_of(surrogate(p)) for part in ((x.real, x.imag) if x.is_complex() else (x,))]
        return torch.cat([x.flatten(1) if x.ndim > 1 else x[:, None] for x in parts], dim=1)

    return values


BLOCK = [(4, 3), (3, 3), (3, 4)]
finished = pytest.mark.parametrize(
    ("operation", "shapes"),
    [
        (nm.SVD(rank=2), None),
        (nm.SVD(rank=2), [(4, 3), (3,), (3, 4)]),
        (nm.SVD(rank=2), BLOCK),
        (nm.Eigh(rank=2), None),
        (nm.Eig(), None),
        (nm.QR(), None),
        (nm.Cholesky(), None),
        (nm.LogDet(), None),
    ],
    ids=str,
)


@finished
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_factors_that_are_finished_follow_the_parameters(operation, shapes, dtype):
    """Order, signs, lengths, triangles and blocks: values as without gradients, derivatives as differences."""
    surrogate = random_surrogate(operation, 4, 4, dtype, 2, shapes=shapes)
    values, p = reals(surrogate), inside(3, 2)
    assert_close(values(p.clone().requires_grad_()).detach(), values(p))
    assert torch.autograd.gradcheck(values, (p.clone().requires_grad_(),))
    single = lambda q: values(q[None])[0]  # noqa: E731
    derivative = torch.func.vmap(torch.func.jacrev(single))(p)
    assert derivative.abs().amax() > 0.1
    assert_close(torch.func.vmap(torch.func.jacfwd(single))(p), derivative, units=1000)


@pytest.mark.parametrize(
    ("operation", "shapes", "dtype"),
    [
        (nm.SVD(rank=2), None, torch.complex128),
        (nm.SVD(rank=2), BLOCK, torch.float64),
        (nm.Eig(), None, torch.float64),
        (nm.QR(), None, torch.float64),
    ],
    ids=str,
)
def test_factors_that_are_finished_compile(operation, shapes, dtype):
    surrogate, p = random_surrogate(operation, 4, 4, dtype, 2, shapes=shapes), inside(3, 2)
    torch.compiler.reset()
    compiled = torch.compile(surrogate, fullgraph=True, backend="aot_eager")(p)
    for x, y in zip(factors_of(compiled), factors_of(surrogate(p))):
        # A block's vectors have the signs that its eigendecomposition gives them.
        assert_close(*((x.abs(), y.abs()) if shapes is BLOCK else (x, y)), units=1000)


def avoiding(dtype):
    """A complex Hermitian family with one avoided crossing, narrower than its snapshots are apart."""
    turn = gaussian(3, 3, dtype=torch.complex128)

    def matrices(p):
        x, zero = p[:, 0].double(), torch.zeros(len(p), dtype=torch.float64)
        A = torch.diag_embed(torch.stack([x + 1.5, 2.5 - x, zero + 0.3], dim=1)).to(torch.complex128)
        A[:, 0, 1], A[:, 1, 0] = 0.02j, -0.02j
        U = torch.linalg.matrix_exp(0.5j * torch.sin(3 * x)[:, None, None] * (turn + turn.mH))
        return (U @ A @ U.mH).to(dtype)

    return nm.ParametricMatrix(matrices, 0.0, 1.0, dtype=real(dtype))


@pytest.mark.parametrize("order", ["sorted", "followed"])
@pytest.mark.parametrize("kind", [nm.Eigh, nm.SVD])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_vectors_in_a_block_follow_the_parameters(kind, order, dtype):
    """Their phases are those of the guide: derivatives are differences of the plain values, however long the loss."""
    surrogate = nm.fit(nm.Problem(avoiding(dtype), kind(rank=2, order=order)), rank=12, progress=False)
    assert (2, 2) in [m.shape for m in surrogate.maps[:-1]]  # a block, and a guide
    p, values = 0.4 + 0.2 * parameters(5, dtype=real(dtype)), reals(surrogate)
    assert_close(values(p.clone().requires_grad_()).detach(), values(p), units=1000)
    single = lambda q: 1e6 * values(q[None])[0]  # noqa: E731
    derivative = torch.func.vmap(torch.func.jacrev(single))(p)
    assert_close(torch.func.vmap(torch.func.jacfwd(single))(p), derivative, units=1e4)
    if dtype == torch.complex128:
        difference = (values(p + 1e-5) - values(p - 1e-5)) / 2e-5
        assert (derivative[:, :, 0] / 1e6 - difference).abs().max() < 1e-5
        second = torch.func.hessian(lambda q: surrogate(q[None])[kind is nm.SVD][0, 0])(p[0])
        around = [surrogate(p[:1] + h)[kind is nm.SVD][0, 0] for h in (-1e-3, 0, 1e-3)]
        assert (second[0, 0] - (around[0] - 2 * around[1] + around[2]) * 1e6).abs() < 0.1


def test_derivatives_on_a_periodic_axis_repeat():
    base = random_surrogate(nm.Inverse(), 3, 3, torch.float64)
    surrogate = nm.Surrogate(base.operation, (3, 3), base.maps, nm.Box(-1.0, 2.0, periodic=True).to("cpu"), base.report)
    p, slope = inside(4, 1), lambda q: torch.autograd.functional.jacobian(lambda q: surrogate(q).sum(dim=0), q)
    assert_close(slope(p + 6), slope(p), units=2000)


@pytest.mark.parametrize("side", [-1, 0, 1])
def test_on_a_face_the_derivative_is_that_of_the_upper_piece(side):
    """At the face and close beside it, against a one-sided difference of the piece."""
    surrogate = in_pieces(lambda x: torch.exp(x[:, :, None] * torch.arange(9.0).view(3, 3)), 1)
    face = torch.tensor(surrogate.pieces[1].lower, dtype=torch.float64)
    p = face + side * 1e-9
    h = -1e-6 if side < 0 else 1e-6
    a, b, c = (surrogate(p + k * h) for k in range(3))
    derivative = torch.func.jacrev(surrogate)(p[None])[..., 0, 0]
    torch.testing.assert_close(derivative, (4 * b - 3 * a - c) / (2 * h), rtol=1e-6, atol=1e-6)
    assert not torch.equal(derivative, torch.zeros_like(derivative))


def test_parameters_of_another_width_are_refused_with_gradients():
    surrogate = random_surrogate(nm.Inverse(), 3, 3, torch.float64, 2)
    assert_raises(ValueError, ["`p`", "(B, 2)", "(4, 3)"], lambda: surrogate(torch.zeros(4, 3, requires_grad=True)))


# Grids


@pytest.mark.parametrize("d", [1, 2, 3])
@operations
def test_a_grid_of_any_map_is_the_batch_of_its_points(operation, d, dtype, device):
    surrogate = random_surrogate(operation, 4, 4, dtype, d, device=device)
    axes = [inside(n, 1, real(dtype), device, seed=n)[:, 0] for n in (4, 3, 5)[:d]]
    value, expected = surrogate.grid(*axes), surrogate(torch.cartesian_prod(*axes).view(-1, d))
    for x, y in zip(*map(factors_of, (value, expected))):
        assert x.shape[:d] == tuple(map(len, axes))
        assert_close(x.flatten(0, d - 1), y, units=200)


@pytest.mark.parametrize(
    "kind", [lambda: in_pieces(waves, 2), lambda: random_surrogate(nm.SVD(2), 3, 3, torch.float32, 2)]
)
def test_axes_of_a_grid_may_be_arrays_lists_and_numbers(kind):
    """Arrays, and no tensor among them, give arrays."""
    surrogate, x = kind(), [0.1, 0.4, -0.5]
    expected = factors_of(surrogate.grid(torch.tensor(x, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64)))
    assert expected[0].shape[:2] == (3, 1)
    for axes, is_array in [((x, 0.25), False), ((np.array(x), 0.25), True), ((np.array(x), torch.tensor(0.25)), False)]:
        for value, own in zip(factors_of(surrogate.grid(*axes)), expected):
            assert isinstance(value, np.ndarray) == is_array
            assert_close(torch.as_tensor(value), own)


@pytest.mark.parametrize(
    ("axes", "error", "words"),
    [
        ((0.5,), ValueError, ["`axes`", "2, one for each of p0, p1", "got 1", "a number"]),
        ((0.5, 0.5, 0.5), ValueError, ["`axes`", "2, one for", "got 3"]),
        ((0.5, [0.0, 2.5]), ValueError, ["`axes[1]`", "[-1.0] to [2.0]", "2.5", "row 1", "extrapolate=True"]),
        (([0.5, math.nan], 0.5), ValueError, ["`axes[0]`", "finite", "nan", "row 1"]),
        ((0.5, torch.zeros(0)), ValueError, ["`axes[1]`", "at least one", "empty"]),
        ((torch.zeros(2, 3), 0.5), ValueError, ["`axes[0]`", "(B, 1)", "(2, 3)"]),
        (
            (torch.zeros(3).bool(), 0.5),
            TypeError,
            ["`axes[0]`", "float32 or float64", "bool", "axes[0].to(torch.float64)"],
        ),
        ((0.5, ["a"]), TypeError, ["`axes[1]`", "real numbers", "list"]),
    ],
    ids=str,
)
def test_bad_axes_are_refused(axes, error, words):
    surrogate = random_surrogate(nm.Inverse(), 3, 3, torch.float32, d=2)
    assert_raises(error, words, lambda: surrogate.grid(*axes))


def test_axes_of_a_grid_are_scaled_one_by_one():
    """Logarithmic and periodic axes as in a call; parameters outside a period are moved inside."""
    box = nm.Box([0.5, 0.0], [8.0, 1.0], scale=["log", "linear"], periodic=[False, True], dtype=torch.float64)
    surrogate, axes = (
        in_pieces(waves, 2, box=box),
        [torch.tensor(x, dtype=torch.float64) for x in ([0.5, 2, 8], [-0.3, 1.9])],
    )
    assert_close(surrogate.grid(*axes).flatten(0, 1), surrogate(torch.cartesian_prod(*axes)), units=200)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("kind", ["one piece", "pieces", "factors"])
def test_out_gets_the_values_of_a_grid(kind, d):
    """Also where axes are arrays."""
    operation = nm.SVD(rank=2) if kind == "factors" else nm.Inverse()
    surrogate = in_pieces(waves, d) if kind == "pieces" else random_surrogate(operation, 3, 3, torch.float64, d)
    axes = [cube(n, 1)[:, 0] for n in (4, 3, 2)[:d]]
    expected = surrogate.grid(*axes)
    for given in (axes, [x.numpy() for x in axes]):
        out = operation.pack([torch.full_like(x, math.nan) for x in factors_of(expected)])
        value = surrogate.grid(*given, out=out)
        for x, y, z in zip(*map(factors_of, (value, out, expected))):
            assert x.data_ptr() == y.data_ptr() and torch.equal(y, z)
            assert x.shape == z.shape


@pytest.mark.parametrize(
    ("out", "error", "words"),
    [
        (lambda x: x.new_empty(12, 3, 3), ValueError, ["`out`", "contiguous", "(4, 3, 3, 3)", "(12, 3, 3)"]),
        (lambda x: x.new_empty(4, 3, 3, 3).float(), TypeError, ["`out`", "float64", "float32"]),
        (lambda x: x.new_empty(4, 3, 3, 3).mT, ValueError, ["`out`", "contiguous"]),
        (lambda x: (x, x), ValueError, ["`out`", "expected 1 tensor(s)", "got 2"]),
    ],
)
def test_bad_memory_for_a_grid_is_refused(out, error, words):
    surrogate, axes = in_pieces(waves, 2), [cube(n, 1)[:, 0] for n in (4, 3)]
    assert_raises(error, words, lambda: surrogate.grid(*axes, out=out(axes[0])))


def test_memory_for_a_grid_must_not_overlap_with_an_axis():
    surrogate, memory = in_pieces(waves, 2), torch.zeros(4, 3, 3, 3, dtype=torch.float64)
    axes = [memory.view(-1)[:4], cube(3, 1)[:, 0]]
    assert_raises(ValueError, ["`out`", "overlaps"], lambda: surrogate.grid(*axes, out=memory))


def test_axes_with_gradients_are_refused_where_out_does_not_follow_them():
    surrogate, axes = in_pieces(waves, 2), [cube(n, 1)[:, 0] for n in (4, 3)]
    out = torch.empty(4, 3, 3, 3, dtype=torch.float64)
    axes[1].requires_grad_()
    assert_raises(ValueError, ["`axes`", "gradients", "detach()"], lambda: surrogate.grid(*axes, out=out))


def test_an_axis_with_gradients_of_another_shape_is_refused():
    surrogate, axes = in_pieces(waves, 2), [cube(4, 2).requires_grad_(), cube(3, 1)[:, 0]]
    assert_raises(ValueError, ["`axes[0]`", "(B,) or (B, 1)", "(4, 2)"], lambda: surrogate.grid(*axes))


# Pieces


def test_the_papers_map_is_one_piece():
    surrogate = random_surrogate(nm.SVD(rank=2), 5, 4, torch.float64, 2)
    assert surrogate.pieces == [nm.Piece([-1.0, -1.0], [2.0, 2.0], [], 3)]
    assert surrogate.rank == 3


def waves(x):
    return torch.cos(x.sum(dim=1)[:, None, None] * torch.arange(1.0, 10).view(3, 3))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_pieces_tile_the_box(d):
    surrogate = in_pieces(waves, d, box=nm.Box([2.0] * d, [5.0] * d, dtype=torch.float64), cuts=5)
    pieces, p = surrogate.pieces, 2 + 3 * parameters(500, d)
    assert len(pieces) == 6
    inside = [((p >= torch.tensor(x.lower)) & (p <= torch.tensor(x.upper))).all(dim=1) for x in pieces]
    assert (torch.stack(inside).sum(dim=0) == 1).all()
    assert math.isclose(sum(math.prod(b - a for a, b in zip(x.lower, x.upper)) for x in pieces), 3.0**d)


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("d", [1, 2])
def test_nodes_of_pieces_are_in_the_units_of_the_parameters(d, scale):
    """At each the value is the row of the latent tensor that was solved for there."""
    surrogate = in_pieces(waves, d, box=nm.Box([0.5] * d, [8.0] * d, scale=scale, dtype=torch.float64))
    for piece in surrogate.pieces:
        assert piece.terms == math.prod(map(len, piece.nodes))
        assert all(a <= x <= b for a, b, own in zip(piece.lower, piece.upper, piece.nodes) for x in own)
        grid = torch.cartesian_prod(*(torch.tensor(own, dtype=torch.float64) for own in piece.nodes)).view(-1, d)
        low, high = torch.tensor([piece.lower, piece.upper], dtype=torch.float64)
        at_start, at_end = low == surrogate.lower, high == surrogate.upper
        # On a face between two pieces the other one may answer.
        own = grid[((grid > 1.001 * low) | at_start).all(dim=1) & ((grid < 0.999 * high) | at_end).all(dim=1)]
        assert_close(surrogate(own), waves(surrogate.box.cube(own)), units=500)


def test_the_rank_counts_the_terms_of_one_value():
    surrogate = in_pieces(waves, 2)
    assert surrogate.rank == max(piece.terms for piece in surrogate.pieces) < len(surrogate.maps[0].core)


@pytest.mark.parametrize("fixed", [0, 1, 2])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_pieces_keep_the_memory_budget(dtype, d, ordered, fixed):
    """Also where axes are constant in the batch."""
    surrogate, p = in_pieces(waves, d, dtype), cube(120, d)
    p[:, d - min(fixed, d - 1) :] = 0.3
    if ordered:
        p = p[p[:, 0].argsort()]
    for working in (20_000, 200_000):
        budget = output_bytes(surrogate, len(p)) + working
        assert peak_bytes(lambda budget=budget: surrogate(p, memory_budget=budget)) <= budget
    assert peak_bytes(lambda: consume(surrogate.batches(p, 60_000))) <= 60_000


@pytest.mark.parametrize("d", [1, 2, 3])
def test_batches_of_a_surrogate_in_pieces_are_the_whole(d):
    surrogate, p = in_pieces(waves, d), cube(300, d)
    pairs = list(surrogate.batches(p, 20_000))
    assert len(pairs) > 3
    assert torch.equal(torch.cat([q for q, _ in pairs]), p)
    assert_close(torch.cat([value for _, value in pairs]), surrogate(p))
