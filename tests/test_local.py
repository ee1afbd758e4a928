"""Polynomials in pieces and rational functions: cardinal, exact where they should be, and with their derivatives."""

import itertools
import math
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import (
    assert_close,
    assert_raises,
    easy,
    eps,
    factors_of,
    gaussian,
    generator,
    grid_of,
    in_pieces,
    parameters,
    pieced,
    rational,
    tree_of,
)
from test_model import peak_bytes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import neumatc as nm
from neumatc import threads
from neumatc.piece import Piece, chain, embedded

dimensions = pytest.mark.parametrize("d", [1, 2, 3])
CUTS = 6  # seven pieces
LEAST = 3  # nodes on any axis of them


def cube(count, d, dtype=torch.float64, seed=0):
    return 2 * parameters(count, d, dtype, seed) - 1


def polynomial(d, degree, seed=0):
    """A random polynomial of a degree in each of d variables, with matrices for values: x (B, d) -> (B, 3, 3)."""
    powers = torch.tensor(list(itertools.product(range(degree + 1), repeat=d)))
    C = gaussian(len(powers), 9, dtype=torch.float64, seed=seed)
    return lambda x: ((x[:, None, :] ** powers).prod(dim=2) @ C).view(len(x), 3, 3)


def wave(x):
    return torch.sin(x.sum(dim=1)[:, None, None] * torch.arange(1.0, 10.0).view(3, 3))


# Polynomials in pieces


@dimensions
@pytest.mark.parametrize("cuts", [0, CUTS])
def test_functions_are_one_at_their_node_and_zero_at_the_others(d, cuts):
    embedding, weights, _ = tree_of(d, cuts)
    for k, (first, counts) in enumerate(zip(weights["first"].tolist(), weights["counts"].tolist())):
        ends = zip(weights["low"][k], weights["high"][k], weights["nodes"][k], counts)
        axes = [torch.lerp(low, high, (1 + t[:n]) / 2) for low, high, t, n in ends]
        grid = torch.cartesian_prod(*axes).view(-1, d)
        own = embedding.locate(grid, weights) == k  # on a face the next piece answers
        assert own.sum() >= (torch.tensor(counts) - 1).prod()
        expected = torch.zeros(len(grid), weights["first"][-1] + weights["counts"][-1].prod(), dtype=torch.float64)
        expected[torch.arange(len(grid)), first + torch.arange(len(grid))] = 1
        # The position in a piece is rounded; functions are as steep as the square of their number there.
        assert (embedding(grid, weights) - expected)[own].abs().max() <= 64 * eps(torch.float64)


def test_stretched_functions_hold_more_oscillations():
    """Where X oscillates, polynomials in sin(b t) with b near pi/2 need nearly two nodes an oscillation, not pi."""
    x = torch.linspace(-1, 1, 401, dtype=torch.float64)[:, None]
    errors = []
    for bend in (0.0, 1.2):
        whole = Piece(-np.ones(1), np.ones(1), [np.empty(0)])
        whole.bend = np.array([bend])
        whole.extend(0, 24, np.empty(0), lambda axis, x: x)
        whole.rows = np.arange(24)
        embedding, weights, order = embedded(whole)
        at = torch.from_numpy(whole.axes[0])[order[:, 0]]
        errors.append(
            float((embedding(x, weights) @ torch.cos(8 * math.pi * at) - torch.cos(8 * math.pi * x[:, 0])).abs().max())
        )
    assert errors[1] < 0.03 < 0.3 < errors[0]


@dimensions
def test_functions_sum_to_one(d):
    embedding, weights, _ = tree_of(d, CUTS)
    assert (embedding(cube(300, d), weights).sum(dim=1) - 1).abs().max() < 100 * eps(torch.float64)


@dimensions
def test_few_functions_are_not_zero(d):
    embedding, weights, nodes = tree_of(d, CUTS)
    phi = embedding(cube(300, d), weights)
    terms = (phi != 0).sum(dim=1)
    assert phi.shape[1] == len(nodes)
    assert int(terms.max()) == embedding.terms(len(nodes), weights) < len(nodes)


@dimensions
def test_polynomials_of_the_degree_of_the_pieces_are_reproduced(d):
    truth = polynomial(d, LEAST - 1)
    surrogate, p = in_pieces(truth, d, cuts=CUTS), cube(300, d)
    assert_close(surrogate(p), truth(p), units=200)


def test_single_precision_is_accurate_in_small_pieces():
    """Differences to nodes are taken in double precision: a million units from zero the result is as good."""
    function = lambda x: torch.sin(9 * x)[:, :, None] * torch.ones(3, 3)  # noqa: E731
    box = nm.Box(1e6, 1e6 + 2, dtype=torch.float64)
    low, high = (in_pieces(function, 1, dtype, box, cuts=CUTS, count=9) for dtype in (torch.float32, torch.float64))
    p = box.uniform(500, generator())
    assert_close(low(p).double(), high(p), units=20 * eps(torch.float32) / eps(torch.float64))


@dimensions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128], ids=str)
def test_the_value_is_the_dense_product(d, dtype):
    surrogate, p = in_pieces(wave, d, dtype, cuts=CUTS), cube(200, d)
    m = surrogate.maps[0]
    phi = m.embedding(surrogate.box.cube(p), m.weights).to(dtype)
    assert_close(surrogate(p), torch.einsum("bk,kij->bij", phi, m.core), units=200)


@dimensions
@pytest.mark.parametrize("order", ["as drawn", "sorted", "reversed", "one piece"])
def test_order_does_not_change_values(d, order):
    surrogate, p = in_pieces(wave, d, cuts=CUTS), cube(60, d)
    p = p[p[:, 0].argsort(descending=order == "reversed")] if order in ("sorted", "reversed") else p
    p = p * 1e-3 + 0.3 if order == "one piece" else p
    alone = torch.cat([surrogate(row) for row in p.split(1)])
    assert_close(surrogate(p), alone)


@dimensions
@pytest.mark.parametrize("ordered", [True, False])
def test_out_gets_the_value(d, ordered):
    surrogate, p = in_pieces(wave, d, torch.complex128, cuts=CUTS), cube(200, d)
    p = p[p[:, 0].argsort()] if ordered else p
    out = torch.full((200, 3, 3), torch.nan, dtype=torch.complex128)
    assert surrogate(p, out=out) is out
    assert torch.equal(out, surrogate(p))


@dimensions
def test_followed_values_are_the_same(d):
    """Under autograd each value gathers its own rows; without, those of a piece share one product."""
    surrogate, p = in_pieces(wave, d, cuts=CUTS), cube(200, d)
    assert_close(surrogate(p.clone().requires_grad_()).detach(), surrogate(p))
    assert_close(torch.func.vmap(lambda q: surrogate(q[None])[0])(p), surrogate(p))


# Batched products, which evaluate on CUDA


def batched(m, x):
    """A map at x by batched products, as real rows."""
    columns = m.numbers.reshape(len(m.numbers), -1)
    out = torch.full((len(x), columns.shape[1]), torch.nan, dtype=columns.dtype)
    return m.embedding.batched(x, m.embedding.locate(x, m.weights), m.weights, columns, out), columns


@dimensions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("order", ["as drawn", "sorted", "one piece", "two far apart", "one point"])
def test_batched_products_are_the_grouped_and_the_gathered_ones(d, dtype, order):
    m, x = in_pieces(wave, d, dtype, cuts=CUTS).maps[0], cube(300, d)
    if order == "two far apart":  # and the pieces between are empty
        x = torch.cat([x[:1] * 1e-3 - 0.9, x[1:] * 1e-3 + 0.9])
    x = {"sorted": x[x[:, 0].argsort()], "one piece": x * 1e-3 + 0.3, "one point": x[:1]}.get(order, x)
    value, columns = batched(m, x)
    assert_close(value, m.embedding.contract(x, m.weights, columns), units=200)
    assert_close(value, m.embedding.gathered(x, m.embedding.locate(x, m.weights), m.weights, columns), units=200)


@pytest.mark.parametrize("cuts", [0, 1, 20])
@pytest.mark.parametrize("count", [1, 2, 21, 22, 200])
def test_batched_products_of_any_number_of_pieces_and_points(cuts, count):
    m, x = in_pieces(wave, 2, cuts=cuts).maps[0], cube(count, 2)
    value, columns = batched(m, x)
    assert_close(value, m.embedding(x, m.weights) @ columns, units=200)


def hundred_pieces(width):
    embedding, weights = chain(np.linspace(-1, 1, 101))
    core = gaussian(101, width, 1, dtype=torch.float64)
    return nm.FactorMap("X", core, embedding, weights)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_batched_products_take_little_memory_in_even_and_uneven_pieces(spread):
    """With 1e-3 all points lie in one of a hundred pieces."""
    m, x = hundred_pieces(200), spread * cube(20_000, 1) + 0.0051 * (spread < 1)
    x = x.clamp(-1, 1)
    output = len(x) * m.numbers[0].numel() * 8
    assert peak_bytes(lambda: batched(m, x)) <= 3 * output


class Operations(TorchDispatchMode):
    """Counts the operations of torch."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_batched_products_take_as_many_operations_for_many_pieces():
    counts = []
    for cuts in (2, 40):
        m, x = in_pieces(wave, 1, cuts=cuts).maps[0], cube(300, 1)
        with Operations() as mode:
            batched(m, x)
        counts.append(mode.count)
    assert counts[0] == counts[1]


def derivative(surrogate, p):
    """dX/dp, shape (B, 3, 3, d)."""
    return torch.func.vmap(torch.func.jacrev(lambda q: surrogate(q[None])[0]))(p)


@dimensions
def test_the_derivative_is_that_of_the_polynomial(d):
    truth = polynomial(d, LEAST - 1)
    surrogate, p = in_pieces(truth, d, cuts=CUTS), cube(50, d)
    exact = torch.func.vmap(torch.func.jacrev(lambda q: truth(q[None])[0]))(p)
    assert_close(derivative(surrogate, p), exact, units=1000)


@dimensions
def test_the_derivative_is_the_limit_of_differences(d):
    surrogate, p, h = in_pieces(wave, d, cuts=CUTS), 0.99 * cube(50, d), 1e-5
    steps = h * torch.eye(d, dtype=torch.float64)
    slopes = torch.stack([(surrogate(p + s) - surrogate(p - s)) / (2 * h) for s in steps], dim=-1)
    assert (derivative(surrogate, p) - slopes).abs().max() < 1e-6


@dimensions
def test_every_way_of_differentiating_agrees(d):
    surrogate, p = in_pieces(wave, d, cuts=CUTS), cube(20, d)
    expected, single = derivative(surrogate, p), lambda q: surrogate(q[None])[0]
    assert_close(torch.func.vmap(torch.func.jacfwd(single))(p), expected)
    jacobian = torch.autograd.functional.jacobian(surrogate, p)
    assert_close(torch.stack([jacobian[i, ..., i, :] for i in range(20)]), expected)
    with torch.autograd.forward_ad.dual_level():
        value = surrogate(torch.autograd.forward_ad.make_dual(p, torch.ones_like(p)))
        assert_close(torch.autograd.forward_ad.unpack_dual(value).tangent, expected.sum(dim=-1))
    live = p.clone().requires_grad_()
    (slope,) = torch.autograd.grad(surrogate(live).sum(), live)
    assert_close(slope, expected.sum(dim=(1, 2)))


def test_at_a_node_the_derivative_is_finite_and_exact():
    """A quotient by the distance to the node would give NaN."""
    truth = polynomial(1, 3)
    surrogate = in_pieces(truth, 1, cuts=2)
    p = torch.tensor(surrogate.pieces[1].nodes[0][:-1], dtype=torch.float64)[:, None]
    exact = torch.func.vmap(torch.func.jacrev(lambda q: truth(q[None])[0]))(p)
    assert_close(derivative(surrogate, p), exact, units=500)


def test_the_second_derivative_is_that_of_the_polynomial():
    truth = polynomial(2, 2)
    surrogate, p = in_pieces(truth, 2, cuts=CUTS), 0.9 * cube(9, 2)
    one = lambda f: torch.func.vmap(torch.func.hessian(lambda q: f(q[None])[0, 0, 0]))(p)  # noqa: E731
    assert_close(one(surrogate), one(truth), units=1e4)


def test_a_chain_rule_through_the_box():
    """On a logarithmic axis the derivative is with respect to p, not to its logarithm."""
    box = nm.Box(1e-2, 1e2, scale="log", dtype=torch.float64)
    surrogate = in_pieces(lambda x: (1 + 2 * x)[:, :, None] * torch.ones(3, 3), 1, box=box)
    p = torch.tensor([[0.05], [1.0], [70.0]], dtype=torch.float64)
    assert_close(derivative(surrogate, p)[:, 0, 0], 2 / (p * math.log(100)), units=200)


@dimensions
def test_outside_the_box_the_nearest_piece_goes_on(d):
    truth = polynomial(d, LEAST - 1)
    surrogate, p = in_pieces(truth, d, cuts=CUTS), 1.2 * cube(50, d)
    assert_close(surrogate(p, extrapolate=True), truth(p), units=2000)


@pytest.mark.parametrize("d", [1, 2])
def test_the_derivative_of_a_fitted_inverse(d):
    """It is -X (dA/dp) X."""
    K = gaussian(d, 3, 3, dtype=torch.float64)

    def fn(p):
        return 4 * torch.eye(3, dtype=p.dtype) + torch.einsum("bd,dij->bij", torch.sin(2 * p), K)

    problem = nm.Problem(nm.ParametricMatrix(fn, [0.0] * d, [1.0] * d, dtype=torch.float64), nm.Inverse())
    surrogate, p = pieced(problem, 1e-7), grid_of(problem.family, 20)
    X = problem.exact(p).value
    dA = torch.func.vmap(torch.func.jacrev(lambda q: fn(q[None])[0]))(p)
    exact = -torch.einsum("bij,bjkd,bkl->bild", X, dA, X)
    assert (derivative(surrogate, p) - exact).abs().max() < 1e-4 * exact.abs().max()


def test_a_fit_interpolates_what_was_solved():
    problem = easy(nm.Inverse())
    surrogate = pieced(problem, 1e-8)
    nodes = torch.tensor([x for piece in surrogate.pieces for x in piece.nodes[0]], dtype=torch.float64)
    assert_close(surrogate(nodes), problem.exact(nodes[:, None]).value, units=100)


# Tensor grids


def axes_of(counts, dtype=torch.float64):
    """Coordinates in [-1, 1], both ends among them."""
    ends = torch.tensor([1.0, -1.0], dtype=dtype)
    return [torch.cat([ends[: min(2, n)], cube(max(0, n - 2), 1, dtype, seed=i)[:, 0]]) for i, n in enumerate(counts)]


def products(function):
    """Multiply-adds of the matrix products in a call: those that torch counts, and those that NumPy is given."""
    with (
        FlopCounterMode(display=False) as counter,
        mock.patch.object(threads, "products", wraps=threads.products) as given,
        mock.patch.object(threads, "multiply", wraps=threads.multiply) as grids,
    ):
        function()
    jobs = [job[:2] for call in given.call_args_list for job in call.args[0]]
    jobs += [call.args[:2] for call in grids.call_args_list]
    return counter.get_total_flops() // 2 + sum(len(a) * b.numel() for a, b in jobs)


@pytest.mark.parametrize("counts", [(7,), (1,), (7, 5), (1, 9), (4, 6, 5), (5, 1, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128], ids=str)
def test_a_tensor_grid_is_the_batch_of_its_points(counts, dtype):
    surrogate, axes = in_pieces(wave, len(counts), dtype, cuts=CUTS), axes_of(counts)
    value = surrogate.grid(*axes)
    assert value.shape == (*counts, 3, 3)
    assert value.dtype == dtype
    expected = surrogate(torch.cartesian_prod(*axes).view(-1, len(counts)))
    assert_close(value.flatten(0, -3), expected, units=200)


def test_a_grid_on_the_faces_of_pieces_and_a_rounding_outside_the_box():
    """Each of its points belongs to one piece."""
    truth = polynomial(2, LEAST - 1)
    surrogate = in_pieces(truth, 2, cuts=CUTS)
    faces = [sorted({x for k in surrogate.pieces for x in (k.lower[i], k.upper[i])}) for i in (0, 1)]
    axes = [torch.tensor([-1 - 4e-16, *own, 1 + 4e-16], dtype=torch.float64) for own in faces]
    p = torch.cartesian_prod(*axes)
    assert_close(surrogate.grid(*axes).flatten(0, 1), truth(p), units=200)
    assert_close(surrogate.grid(*(1.1 * x for x in axes), extrapolate=True).flatten(0, 1), truth(1.1 * p), units=2000)


@pytest.mark.parametrize("counts", [(2, 50), (50, 2), (5, 6, 20), (20, 5, 4), (3, 40, 7), (30, 30, 30)], ids=str)
def test_axes_are_contracted_in_the_cheapest_order(counts):
    d, entries = len(counts), 9
    surrogate, axes = in_pieces(wave, d, cuts=0), axes_of(counts)
    nodes = [len(own) for own in surrogate.pieces[0].nodes]

    def price(order):
        sizes, total = list(nodes), 0
        for i in order:
            total += math.prod(sizes) * counts[i]
            sizes[i] = counts[i]
        return total * entries

    assert products(lambda: surrogate.grid(*axes)) == min(map(price, itertools.permutations(range(d))))


@pytest.mark.parametrize("d", [2, 3])
def test_a_value_of_a_grid_costs_little_more_than_its_last_axis(d):
    surrogate, axes = in_pieces(wave, d, cuts=0), axes_of([60] * d)
    nodes = [len(own) for own in surrogate.pieces[0].nodes]
    assert products(lambda: surrogate.grid(*axes)) <= 1.2 * min(nodes) * 60**d * 9


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("ordered", [True, False])
def test_constant_axes_of_a_batch_cost_nothing(d, dtype, ordered):
    surrogate, p = in_pieces(wave, d, dtype, cuts=CUTS), cube(4000, d)
    p = p[p[:, 1].argsort()] if ordered else p
    whole, alone = products(lambda: surrogate(p)), torch.cat([p, p])
    p[:, [i for i in range(d) if i != 1]] = 0.3
    assert products(lambda: surrogate(p)) < whole / 2 ** (d - 1)
    alone[::2] = p
    assert_close(surrogate(p), surrogate(alone)[::2], units=200)


def test_a_batch_of_one_parameter_many_times():
    surrogate, p = in_pieces(wave, 2, cuts=CUTS), cube(1, 2)
    assert_close(surrogate(p.expand(50, 2)), surrogate(p).expand(50, 3, 3))


def test_a_grid_of_several_factors():
    problem = easy(nm.SVD(rank=2), d=2)
    surrogate, axes = pieced(problem, 1e-2), [torch.linspace(0, 1, n, dtype=torch.float64) for n in (6, 5)]
    assert isinstance(surrogate.maps[0].embedding, nm.PiecewisePolynomials)
    value, expected = surrogate.grid(*axes), surrogate(torch.cartesian_prod(*axes))
    assert type(value) is nm.SVDFactors
    for x, y in zip(value, expected):
        assert_close(x.flatten(0, 1), y, units=1000)


def test_a_grid_survives_a_file(tmp_path):
    surrogate, axes = in_pieces(wave, 2, torch.complex128, cuts=CUTS), axes_of((4, 5))
    nm.save(surrogate, tmp_path / "map.safetensors")
    assert torch.equal(nm.load(tmp_path / "map.safetensors").grid(*axes), surrogate.grid(*axes))


def test_a_grid_follows_axes_with_gradients():
    truth = polynomial(2, LEAST - 1)
    surrogate, (x, y) = in_pieces(truth, 2, cuts=CUTS), axes_of((4, 3))
    slopes = []
    for function in (surrogate.grid, lambda x, y: truth(torch.cartesian_prod(x, y))):
        live = x.clone().requires_grad_()
        slopes += torch.autograd.grad(function(live, y).square().sum(), live)
    assert_close(*slopes, units=1000)


@pytest.mark.parametrize("d", [1, 2])
def test_a_grid_has_the_derivatives_of_its_points(d):
    """Under torch.func; the value at a point of the grid depends on its own coordinates only."""
    surrogate, axes = in_pieces(wave, d, cuts=CUTS), axes_of((4, 3)[:d])
    expected = derivative(surrogate, torch.cartesian_prod(*axes).view(-1, d)).view(*map(len, axes), 3, 3, d)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        found = transform(surrogate.grid, argnums=tuple(range(d)))(*axes)
        for i, jacobian in enumerate(found):
            own = jacobian.movedim(-1, 0).movedim(i + 1, 1).diagonal(dim1=0, dim2=1).movedim(-1, i)
            assert_close(own, expected[..., i], units=1000)


def test_a_grid_under_vmap():
    surrogate, (x, y) = in_pieces(wave, 2, cuts=CUTS), axes_of((6, 3))
    value = torch.func.vmap(surrogate.grid, in_dims=(0, None))(x.view(2, 3), y)
    assert_close(value.flatten(0, 1), surrogate.grid(x, y), units=200)


def test_a_grid_with_gradients_in_one_axis_checks_the_other():
    surrogate, (x, y) = in_pieces(wave, 2, cuts=CUTS), axes_of((4, 3))
    assert_close(surrogate.grid(x.requires_grad_(), y).detach(), surrogate.grid(x.detach(), y), units=200)
    assert_raises(ValueError, ["`axes[1]`", "in the box"], lambda: surrogate.grid(x, 2 * y))


@pytest.mark.slow
def test_a_grid_compiles_without_breaks():
    surrogate, axes = in_pieces(wave, 2, cuts=CUTS), axes_of((4, 3))
    torch.compiler.reset()
    compiled = torch.compile(surrogate.grid, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*axes), surrogate.grid(*axes), units=200)


# Rational functions


kinds = pytest.mark.parametrize("is_complex", [False, True])


def barycentric(surrogate, p):
    """The quotient of sums by definition, in complex double precision."""
    m = surrogate.maps[0]
    nodes, w = m.weights["nodes"], torch.complex(m.weights["w"][0], m.weights["w"][1])
    cauchy = w / (p - nodes)
    return torch.einsum("bk,kij->bij", cauchy, m.core[: len(nodes)].to(w)) / cauchy.sum(dim=1)[:, None, None]


@kinds
def test_rational_functions_are_their_formula(is_complex):
    surrogate, p = rational(is_complex), cube(200, 1)
    value = barycentric(surrogate, p)
    error = (surrogate(p) - value).abs().amax(dim=(1, 2)) / value.abs().amax(dim=(1, 2))
    assert error.median() < 100 * eps(torch.float64)
    assert error.max() < 1e-10  # beside a zero of the denominator


@kinds
def test_rational_functions_are_one_at_their_support_point(is_complex):
    m = rational(is_complex).maps[0]
    nodes = m.weights["nodes"]
    phi, count = m.embedding(nodes[:, None], m.weights), len(nodes)
    assert (phi[:, :count] - torch.eye(count)).abs().max() < 8 * eps(torch.float64)
    assert phi[:, count:].numel() == 0 or phi[:, count:].abs().max() < 8 * eps(torch.float64)


@kinds
def test_rational_functions_have_their_derivative_at_support_points_and_beside(is_complex):
    """Differentiated by hand: the quotient of the products, against central differences in between."""
    surrogate = rational(is_complex)
    at = surrogate.maps[0].weights["nodes"][1:-1, None]
    p = torch.cat([at, at + 1e-9, at + 1e-3, at - 0.05])
    slope = torch.func.vmap(
        torch.func.jacrev(lambda q: torch.view_as_real(surrogate(q[None])[0].to(torch.complex128)))
    )(p)
    slope = torch.view_as_complex(slope[..., 0].contiguous())
    h = 1e-5
    difference = (surrogate(p + h) - surrogate(p - h)) / (2 * h)
    assert slope.isfinite().all()
    assert (slope - difference).abs().max() < 1e-4 * difference.abs().max()


@kinds
def test_rational_functions_with_poles_of_their_own_are_reproduced(is_complex):
    """Weights 1 / prod(x_j - z) prod(x_j - x_k)^-1 put the poles at z, where x is real or complex."""
    nodes = torch.linspace(-1, 1, 4, dtype=torch.float64)
    poles = torch.tensor([1.5, -2.0, 1.1 + 0.3j if is_complex else 3.0], dtype=torch.complex128)
    gaps = (nodes[:, None] - nodes + torch.eye(4)).prod(dim=1)
    w = (nodes[:, None] - poles).prod(dim=1) / gaps
    embedding = nm.Rational(is_complex)
    x = cube(50, 1)
    truth = lambda x: ((1 + x) / (x - poles).prod(dim=1, keepdim=True))[:, 0]  # noqa: E731
    phi = embedding(x, {"nodes": nodes, "w": torch.stack([w.real, w.imag])})
    core = truth(nodes[:, None])
    core = torch.cat([core, 1j * core]) if is_complex else core
    assert_close(phi.to(core.dtype) @ core, truth(x), units=500)


def test_a_resonance_is_fitted_by_a_rational_function():
    """Poles close to the box: the first call finds them, and the derivative follows."""
    K = torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=torch.complex128)) + 0.1

    def fn(p):
        return K - p[:, :, None].square() * torch.eye(3) + 1e-3j * p[:, :, None] * torch.eye(3)

    problem = nm.Problem(nm.ParametricMatrix(fn, 0.5, 2.5, dtype=torch.float64), nm.Inverse())
    surrogate = pieced(problem, 1e-6)
    assert isinstance(surrogate.maps[0].embedding, nm.Rational)
    assert len(surrogate.pieces) == 1
    p = grid_of(problem.family, 200)
    X = problem.exact(p).value
    error = (surrogate(p) - X).flatten(1).norm(dim=1) / X.flatten(1).norm(dim=1)
    assert error.max() < 1e-4
    single = lambda q: torch.view_as_real(surrogate(q[None])[0])  # noqa: E731
    slope = torch.view_as_complex(torch.func.vmap(torch.func.jacrev(single))(p)[..., 0].contiguous())
    exact = -X @ (-2 * p[:, :, None] * torch.eye(3) + 1e-3j * torch.eye(3)) @ X
    assert ((slope - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).max() < 1e-3


@pytest.mark.parametrize("embedding", [nm.PiecewisePolynomials(), nm.Rational()], ids=repr)
def test_functions_of_nodes_cannot_be_fitted_to_snapshots(embedding):
    words = ["`embedding`", "fitted to snapshots", type(embedding).__name__, "tol=", "nm.Chebyshev"]
    assert_raises(ValueError, words, lambda: nm.fit(easy(nm.Inverse()), rank=3, method=nm.ClosedForm(embedding)))


@pytest.mark.parametrize("make", [lambda: in_pieces(wave, 2, cuts=CUTS), rational], ids=["pieces", "rational"])
def test_weights_of_nodes_stay_double_in_single_precision(make):
    surrogate = make().to(torch.float32)
    assert surrogate.maps[0].core.dtype == torch.float32
    weights = surrogate.maps[0].weights.values()
    assert {w.dtype for w in weights} <= {torch.float64, torch.int64}
    expected, p = make(), make().box.uniform(100, generator())
    assert (surrogate(p) - expected(p)).abs().max() <= 100 * eps(torch.float32) * expected(p).abs().max()


def test_pieces_are_found_alike_where_the_batch_is_followed():
    """`locate` on one axis is a bisection; where the batch is followed it counts instead."""
    embedding, weights, _ = tree_of(1, CUTS)
    x = torch.cat([cube(300, 1), weights["low"], weights["high"]])
    found = embedding.locate(x, weights)
    assert torch.equal(embedding.locate(x.clone().requires_grad_(), weights), found)
    low, high = weights["low"][found, 0], weights["high"][found, 0]
    assert ((x[:, 0] >= low) & ((x[:, 0] < high) | (high == 1))).all()
    assert found.tolist() == np.searchsorted(weights["low"][1:, 0].numpy(), x[:, 0].numpy(), side="right").tolist()


def test_factors_of_several_maps_share_their_pieces():
    problem = easy(nm.SVD(rank=2))
    surrogate, p = pieced(problem, 1e-4), grid_of(problem.family, 50)
    exact = problem.exact(p).value
    assert len({m.rank for m in surrogate.maps}) == 1
    assert (surrogate(p).S - exact.S).abs().max() < 1e-3
    assert len(factors_of(surrogate(p))) == 3
