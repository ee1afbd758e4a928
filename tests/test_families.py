"""Families: their formulas, one family in every dtype, interpolation through samples, and every refusal."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from conftest import DTYPES, assert_close, assert_raises, eps, gaussian, parameters, real

import neumatc as nm
from studies import low_rankness

FAMILIES = {
    "trigonometric": lambda dtype, device: nm.families.trigonometric(5, 3, dtype=dtype, device=device),
    "trigonometric 2-D": lambda dtype, device: nm.families.trigonometric(5, dimension=2, dtype=dtype, device=device),
    "trigonometric 3-D": lambda dtype, device: nm.families.trigonometric(5, dimension=3, dtype=dtype, device=device),
    "low rank": lambda dtype, device: low_rankness.low_rank_plus_shift(5, 2, dtype=dtype, device=device),
    "samples": lambda dtype, device: samples(1, dtype, device)[2],
    "samples 2-D": lambda dtype, device: samples(2, dtype, device)[2],
}
WIDE = {torch.float32: torch.float64, torch.complex64: torch.complex128}


def samples(d, dtype, device="cpu", count=12):
    """Random matrices at unsorted random parameters in [0, 2]^d, and the family through them."""
    p = 2 * parameters(count, d, real(dtype), seed=4)
    A = gaussian(count, 3, 2, dtype=dtype, seed=5)
    return p, A, nm.families.from_samples(p.to(device), A.to(device))


@pytest.mark.parametrize("name", FAMILIES)
def test_family_is_a_batched_function_of_its_dtype_and_device(name, dtype, device):
    family = FAMILIES[name](dtype, device)
    assert family.dtype == dtype
    assert family.device == torch.device(device)
    assert family.lower.dtype == real(dtype)
    x = parameters(6, family.dimension, real(dtype)).to(device)
    p = family.lower + x * (family.upper - family.lower)
    A = family(p)
    assert A.shape == (6, *family.shape)
    assert A.dtype == dtype
    assert A.device == p.device
    for i in range(6):
        assert_close(family(p[i : i + 1])[0], A[i], units=1000)  # the radial functions are solved for
    # p of the other precision is taken too, up to its own rounding.
    other = torch.float64 if p.dtype == torch.float32 else torch.float32
    assert (family(p.to(other)) - A).abs().max() <= 1e4 * eps(torch.float32) * A.abs().max()


@pytest.mark.parametrize("name", [name for name in FAMILIES if "samples" not in name])
@pytest.mark.parametrize("low", list(WIDE), ids=str)
def test_a_seed_means_the_same_family_in_every_precision(name, low):
    """And the same as in a float32 world: the default dtype has no influence, and torch's generator is not read."""
    family, wide = FAMILIES[name](low, "cpu"), FAMILIES[name](WIDE[low], "cpu")
    p = parameters(7, family.dimension)
    A = wide(p)
    assert (family(p.float()) - A).abs().max() <= 300 * eps(low) * A.abs().max()


def test_seed_changes_the_family():
    p = parameters(3, dtype=torch.float32)
    for make in (nm.families.trigonometric, low_rankness.low_rank_plus_shift):
        assert not torch.equal(make(4, 2, seed=1)(p), make(4, 2, seed=2)(p))


@pytest.mark.parametrize("dtype", DTYPES[1::2])
def test_trigonometric_formula(dtype):
    """A(p) - s I lies in the span of the K stated frequencies, and has the stated variance 1 / n."""
    size, terms, shift, cycles = 40, 5, 1.7, 1.3
    family = nm.families.trigonometric(size, terms, shift, seed=3, cycles=cycles, dtype=dtype)
    p = torch.linspace(0, 1, 60, dtype=torch.float64)[:, None]
    wave = (family(p) - shift * torch.eye(size, dtype=dtype)).flatten(1).numpy()
    phase = 2 * np.pi * cycles * np.arange(1, terms + 1) / terms * p.numpy()
    basis = np.hstack([np.cos(phase), np.sin(phase)])
    coefficients, *_ = np.linalg.lstsq(basis.astype(wave.dtype), wave)
    assert np.abs(basis @ coefficients - wave).max() < 1e-12
    # R_k and S_k: variance 1 / (n K) each; 1,600 entries, so the sample variance is within 4 * sqrt(2 / 1600).
    np.testing.assert_allclose(
        (np.abs(coefficients) ** 2).mean(axis=1) * size * terms, 1, atol=4 * (2 / size**2) ** 0.5
    )


@pytest.mark.parametrize("dimension", [2, 3])
def test_trigonometric_frequencies_in_several_dimensions(dimension):
    """With one term, A - s I oscillates with angular frequency 2 pi c along a unit vector: its Laplacian tells."""
    cycles = 1.3
    family = nm.families.trigonometric(4, 1, dimension=dimension, cycles=cycles, dtype=torch.float64)
    centre, h = torch.full((1, dimension), 0.5, dtype=torch.float64), 1e-3
    steps = torch.cat([torch.zeros_like(centre), h * torch.eye(dimension), -h * torch.eye(dimension)]).double()
    values = family(centre + steps) - 1.6 * torch.eye(4, dtype=torch.float64)
    laplacian = (values[1:].sum(dim=0) - 2 * dimension * values[0]) / h**2
    torch.testing.assert_close(laplacian, -((2 * math.pi * cycles) ** 2) * values[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES[1::2])
def test_low_rank_plus_shift_formula(dtype):
    """A(p) - eps I has rank k and is quadratic in p, and A(p) has a condition number of at least the order 1 / eps."""
    shift, p = 1e-3, torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    A = low_rankness.low_rank_plus_shift(12, 3, shift, dtype=dtype)(p)
    product = (A - shift * torch.eye(12, dtype=dtype)).numpy()
    assert (np.linalg.matrix_rank(product, tol=1e-12) == 3).all()
    assert np.abs(np.diff(product, n=3, axis=0)).max() < 1e-14
    assert (np.linalg.cond(A.numpy()) > 0.1 / shift).all()


@pytest.mark.parametrize("d", [1, 2, 3])
def test_samples_are_interpolated(d, dtype, device):
    p, A, family = samples(d, dtype, device)
    assert_close(family(p.to(device)).cpu(), A, units=1e4)
    assert torch.equal(family.lower.cpu(), p.amin(dim=0))
    assert torch.equal(family.upper.cpu(), p.amax(dim=0))


@pytest.mark.parametrize(("d", "degree", "count"), [(1, 1, 2), (1, 2, 3), (1, 3, 9), (2, 1, 3), (2, 1, 9), (3, 1, 9)])
@pytest.mark.parametrize("dtype", DTYPES[1::2])
def test_samples_of_a_polynomial_give_it_back(d, degree, count, dtype):
    """A cubic spline reproduces cubics (parabolas and lines with fewer samples), the radial functions affine maps."""
    slope = gaussian(d, 6, dtype=dtype)

    def truth(p):
        return ((p.to(dtype) @ slope + 1) ** degree).view(-1, 2, 3)

    p = 2 * parameters(count, d)
    family = nm.families.from_samples(p, truth(p))
    inside = family.lower + parameters(20, d, seed=1) * (family.upper - family.lower)
    assert_close(family(inside), truth(inside), units=1e4)


def test_samples_in_single_precision_are_scaled_in_double():
    """Far from zero and three apart: in single precision the scaled parameters would be off by the rounding of A."""
    p = 1e4 + torch.arange(0, 60, 3, dtype=torch.float32)[:, None]
    A = (p.double() - 1e4)[:, :, None] / 60 * torch.ones(2, 2, dtype=torch.float64)
    between = torch.linspace(0, 56, 113, dtype=torch.float64)[:, None]
    family = nm.families.from_samples(p, A, missing="keep")
    assert_close(family((1e4 + between).float()), between[:, :, None] / 60 * torch.ones(2, 2).double())


def test_samples_in_awkward_memory():
    """Lazy conjugates and tensors that carry gradients are ordinary data."""
    p, A, family = samples(1, torch.complex128)
    conjugate = nm.families.from_samples(p, A.conj())
    assert_close(conjugate(p), family(p).conj().resolve_conj())
    assert not nm.families.from_samples(p, A.clone().requires_grad_())(p).requires_grad
    assert_close(nm.families.from_samples(p.clone().requires_grad_(), A)(p), family(p))
    assert_close(family(p.clone().requires_grad_()), family(p))


@pytest.mark.parametrize("kind", [torch.Tensor.clone, torch.Tensor.numpy, torch.Tensor.tolist, list], ids=str)
@pytest.mark.parametrize("flat", [True, False], ids=str)
def test_samples_of_one_parameter_as_a_user_has_them(flat, kind):
    p, A, family = samples(1, torch.complex128)
    given = nm.families.from_samples(kind(p[:, 0] if flat else p), kind(A), names=["f"])
    assert (given.dtype, given.box.dtype, given.names) == (family.dtype, family.box.dtype, ("f",))
    assert_close(given(p), family(p))


@pytest.mark.parametrize(
    ("p", "A", "words"),
    [
        (torch.tensor([[0.0], [1.0], [0.0]]), None, ["`p`", "distinct", "equal"]),
        (torch.tensor([[-1.0], [1.0], [1e-30], [0.0]]), None, ["`p`", "distinct", "equal", "average"]),
        (
            torch.tensor([[1.0, 0], [0, 0], [0, 1], [1e-200, 0]], dtype=torch.float64),
            None,
            ["`p`", "too close", "average"],
        ),
        (torch.tensor([[1.0, 0], [0, 0], [0, 1], [1e-30, 0]]), torch.arange(16.0).view(4, 2, 2), ["`p`", "too close"]),
        (torch.tensor([[1.0], [0], [0.5], [1e-30]]), torch.arange(16.0).view(4, 2, 2), ["`p`", "too close", "drop"]),
        (torch.tensor([[1e8], [1e8 + 64]]), None, ["`upper`", "spacing of torch.float32", "double precision"]),
        (torch.tensor([[0.0], [torch.nan]]), None, ["`p`", "finite", "drop"]),
        (torch.tensor([[0.0]]), None, ["`p`", "at least 2", "got 1"]),
        (torch.tensor([[0.0, 0.0], [1.0, 1.0]]), None, ["`p`", "at least 3", "2 direction", "got 2"]),
        (torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), None, ["`p`", "got"]),  # flat box
        (
            torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]),
            None,
            ["`p`"],
        ),  # on a line, where a linear polynomial is not unique
        (torch.tensor([[0.0], [1.0]]), torch.full((2, 2, 2), torch.inf), ["`A`", "finite", "[0.0]", "2 of 2"]),
        (torch.tensor([[0.0], [1.0]]), torch.ones(3, 2, 2), ["`A`", "(2, m, n)", "(3, 2, 2)"]),
        (torch.tensor([[0.0], [1.0]]), torch.ones(2, 2), ["`A`", "(2, m, n)", "(2, 2)"]),
        (torch.zeros(2, 1, 1), None, ["`p`", "(N, d)", "(N,)", "(2, 1, 1)"]),
        (torch.tensor([[False], [True]]), None, ["`p`", "float32 or float64", "bool"]),
        ([[0.0], [1.0, 2.0]], None, ["`p`", "tensor", "regular", "list"]),
        (["a", "b"], None, ["`p`", "numbers", "list"]),
        (torch.tensor([[0.0], [1.0]]), torch.ones(2, 2, 2, dtype=torch.bool), ["`A`", "complex128", "bool"]),
        (torch.tensor([[0.0], [1.0]]), [[1.0]], ["`A`", "(2, m, n)", "(1, 1)"]),
        (torch.tensor([[0.0], [1.0]]), [[1.0], []], ["`A`", "regular", "list"]),
    ],
)
def test_from_samples_refuses(p, A, words):
    A = torch.ones(len(p), 2, 2) if A is None else A
    assert_raises((ValueError, TypeError), words, lambda: nm.families.from_samples(p, A))


def numbers(count=9):
    """Parameters and complex matrices 2 x 3, as arrays."""
    p = np.linspace(0, 1, count)
    return p, gaussian(count, 2, 3, dtype=torch.complex128).numpy()


def compound(A, names, kind="<f8"):
    """Complex numbers as HDF5 files of MATLAB hold them."""
    found = np.empty(A.shape, [(name, kind) for name in names])
    found[names[0]], found[names[1]] = A.real, A.imag
    return found


@pytest.mark.parametrize("names", [("real", "imag"), ("r", "i"), ("Re", "Im")], ids=str)
@pytest.mark.parametrize("kind", ["<f8", ">f8", "<f4"])
def test_samples_of_real_and_imaginary_parts(names, kind):
    p, A = numbers()
    family = nm.families.from_samples(p.astype(kind), compound(A, names, kind))
    assert family.dtype == (torch.complex64 if kind == "<f4" else torch.complex128)
    q = torch.from_numpy(p)
    expected = nm.families.from_samples(p, A)(q)
    assert_close(family(q), expected.to(family.dtype))


def test_samples_in_a_file_of_matlab():
    """An N x m x n array arrives with its axes reversed, complex numbers as compounds, parameters as a row."""
    h5py = pytest.importorskip("h5py")
    p, A = numbers()
    with h5py.File("samples.mat", "w", driver="core", backing_store=False) as file:
        file["p"], file["A"] = p[None], compound(A.transpose(2, 1, 0), ("real", "imag"))
        words = ["`A`", "(9, m, n)", "(3, 2, 9)", "np.transpose(A, (2, 0, 1)), or (2, 1, 0)", "MATLAB"]
        assert_raises(ValueError, words, lambda: nm.families.from_samples(file["p"][0], file["A"]))
        family = nm.families.from_samples(file["p"][0], np.transpose(file["A"], (2, 1, 0)))
    q = torch.from_numpy(p)
    assert_close(family(q), nm.families.from_samples(p, A)(q))


@pytest.mark.parametrize("kind", [np.int16, ">i4", np.longdouble])
def test_samples_of_other_numbers_are_taken_in_double_precision(kind):
    p, A = np.arange(9).astype(kind), (100 * numbers()[1].real).astype(kind)
    family = nm.families.from_samples(p, A)
    assert (family.dtype, family.box.dtype) == (torch.float64, torch.float64)
    assert_close(family(torch.arange(9.0, dtype=torch.float64)), torch.from_numpy(A.astype(float)))


@pytest.mark.parametrize("order", [(1, 0, 2), (1, 2, 0), (2, 1, 0)], ids=str)
@pytest.mark.parametrize(("kind", "function"), [(np.asarray, np.transpose), (torch.from_numpy, torch.permute)])
def test_samples_along_another_axis_are_refused_with_a_transpose_that_works(order, kind, function):
    p, A = numbers()
    moved = kind(np.ascontiguousarray(A.transpose(order)))
    with pytest.raises(ValueError, match=r"`A`: expected shape \(9, m, n\).*has length 9") as caught:
        nm.families.from_samples(p, moved)
    message, back = str(caught.value), tuple(np.argsort(order).tolist())
    assert len(message) < 300 and f"{function.__module__}.{function.__name__}".replace("numpy", "np") in message
    assert str(back) in message
    q = torch.from_numpy(p)
    assert_close(nm.families.from_samples(p, function(moved, back))(q), nm.families.from_samples(p, A)(q))


def test_parameters_along_another_axis_are_refused():
    p, A = numbers()
    assert_raises(ValueError, ["`p`", "N = 9", "(1, 9)", "p.T"], lambda: nm.families.from_samples(p[None], A))


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (1, 0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("rows", [1, 2])
def test_parameters_and_matrices_along_another_axis_are_refused_with_both_transposes(order, rows):
    """As h5py reads MATLAB's N x 1 and N x m x n, also where a side of A is the number of parameters."""
    p, A = np.linspace(0, 1, 9)[:, None] ** [[1, 2][:rows]], numbers()[1][:, :, :2]
    moved, back = np.ascontiguousarray(A.transpose(order)), str(tuple(np.argsort(order).tolist()))
    words = ["`A`", "(9, m, n)", f"`p` of ({rows}, 9)", "p.T and np.transpose(A, ", back]
    words = ["`p`", "N = 9", f"({rows}, 9)", "p.T"] if order == (0, 1, 2) else words
    assert_raises(ValueError, words, lambda: nm.families.from_samples(p.T, moved))
    q = torch.from_numpy(p[:3].mean(axis=0)[None])
    expected = nm.families.from_samples(p, A)(q)
    assert_close(nm.families.from_samples(p.T.T, moved.transpose(np.argsort(order)))(q), expected)


@pytest.mark.parametrize("kind", ["scipy", "coo", "csr", "list of coo", "integers"])
def test_sparse_samples_are_made_dense(kind):
    p, A = np.linspace(0, 1, 5), np.arange(1.0, 6)[:, None, None] * np.array([[1.0, 0], [2, 3]])
    T = torch.from_numpy(A)
    given = {
        "scipy": lambda: [sp.csr_array(a) for a in A],
        "coo": T.to_sparse,
        "csr": T.to_sparse_csr,
        "list of coo": lambda: [a.to_sparse() for a in T],
        "integers": lambda: [sp.coo_array(a.astype(int)) for a in A],
    }[kind]()
    family = nm.families.from_samples(p, given)
    assert family.densified and "2 x 2 made dense" in repr(family)
    assert_close(family(torch.tensor([0.25, 0.5], dtype=torch.float64)), T[1:3])
    assert not nm.families.from_samples(p, A).densified


def test_missing_samples_are_counted_and_left_out_on_request():
    p, A = numbers(12)
    A[3], A[7, 1, 1], A[8] = 0, np.nan, np.inf
    words = ["`A`", "finite", "[0.2727", "3 of 12", "2 with NaN or Inf", "1 zero", "missing='drop'", "missing='keep'"]
    assert_raises(ValueError, words, lambda: nm.families.from_samples(p, A))
    words = ["2 of 12", "2 with NaN", "0 zero", "missing='drop'"]
    assert_raises(ValueError, words, lambda: nm.families.from_samples(p, A, missing="keep"))
    there = np.delete(np.arange(12), [3, 7, 8])
    family = nm.families.from_samples(p, A, missing="drop")
    q = torch.from_numpy(p)
    assert_close(family(q), nm.families.from_samples(p[there], A[there])(q))
    assert "9 (3 more were missing and left out)" in str(family.measured)
    assert family.grid.flatten().tolist() == p[there].tolist()
    assert_raises(
        ValueError, ["`missing`", "'raise', 'drop' or 'keep'"], lambda: nm.families.from_samples(p, A, missing=1)
    )


def test_masked_entries_and_parameters_without_a_number_are_missing():
    p, A = numbers(12)
    masked = np.ma.masked_array(A, mask=np.zeros(A.shape, bool))
    masked[4, 0, 0], p[9] = np.ma.masked, np.nan
    assert_raises(ValueError, ["`p`", "finite", "1 with NaN", "drop"], lambda: nm.families.from_samples(p, A))
    family = nm.families.from_samples(p, masked, missing="drop")
    assert len(family.grid) == 10 and family.measured.missing == 2
    assert_raises(
        ValueError, ["`p`", "at least 2", "got 0"], lambda: nm.families.from_samples(p, 0 * A, missing="drop")
    )


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES[1::2])
def test_leaving_one_out_is_what_a_family_without_it_misses(d, dtype):
    """Inside the box; at its bounds it would be an extrapolation."""
    p, A, family = samples(d, dtype, count=30)
    found, inner = family.measured.left_out, ((p > family.lower) & (p < family.upper)).all(dim=1)
    assert np.isnan(found).tolist() == (~inner).tolist()
    for i in inner.nonzero().flatten().tolist():
        others = torch.arange(len(p)) != i
        value = nm.families.from_samples(p[others], A[others])(p[i : i + 1])[0]
        assert found[i] == pytest.approx(float((value - A[i]).norm() / A[i].norm()), rel=1e-6)


@pytest.mark.parametrize("d", [1, 2])
def test_samples_over_decades_are_interpolated_on_a_logarithmic_scale(d):
    p = np.geomspace(1e-3, 1e3, 60)[:, None] if d == 1 else 10 ** np.random.default_rng(0).uniform(-1, 1, (400, 2))
    truth = lambda p: (2 + np.sin(np.log(p).sum(axis=1) / 3))[:, None, None] * np.eye(2)  # noqa: E731
    inside, kinds = np.exp(0.8 * np.log(p) + 0.01), ("linear", "log")
    missed = [np.abs(nm.families.from_samples(p, truth(p), scale=s)(inside) - truth(inside)).max() for s in kinds]
    assert missed[1] < missed[0] / 20


def test_where_samples_lie_tells_their_scale_and_no_hint_does():
    p = np.linspace(0.01, 10, 50)
    problem = nm.Problem(nm.families.from_samples(p, np.eye(2) * (2 + np.sin(p))[:, None, None]), nm.Inverse())
    with pytest.warns(nm.FitWarning) as heard:
        report = nm.fit(problem, tol=1e-9, progress=False).report
    assert "scale=" not in str(heard[0].message) + report.message + report.advice


def test_of_many_samples_some_are_left_out():
    p = np.linspace(0, 1, 2000)
    found = nm.families.from_samples(p, np.sin(9 * p)[:, None, None] + 2).measured.left_out
    assert 100 < np.isfinite(found).sum() <= 256 and np.nanmax(found) < 1e-8


def test_two_samples_tell_nothing_of_each_other():
    assert "tells nothing" in str(nm.families.from_samples([0.0, 1.0], np.ones((2, 1, 1))).measured)
    corners = [[0.0, 0], [0, 1], [1, 0]]
    assert "tells nothing" in str(nm.families.from_samples(corners, np.ones((3, 1, 1))).measured)


@pytest.mark.parametrize("side", [0, 1])
def test_samples_beside_others_tell_what_they_told(side):
    _, _, family = samples(1, torch.float64)
    other = nm.ParametricMatrix(lambda p: torch.ones(len(p), 3, 1, dtype=p.dtype), family.lower, family.upper)
    assert nm.families.beside(*[family, other][:: 1 - 2 * side]).measured is family.measured
    assert nm.families.beside(other, torch.ones(3, 1, dtype=torch.float64)).measured is None


def eye(p):
    return torch.eye(2, dtype=p.dtype, device=p.device).expand(len(p), 2, 2) * (1 + p[:, :1, None])


def test_labels_and_representation():
    family = nm.ParametricMatrix(eye, [3e9, 0.0], [4e9, 1.0], names=["f", "t"], units=["Hz", ""])
    assert (family.names, family.units, family.dimension) == (("f", "t"), ("Hz", ""), 2)
    assert repr(family) == "ParametricMatrix(2 x 2, f in [3e+09, 4e+09] Hz, t in [0, 1], torch.float32, cpu)"
    assert nm.ParametricMatrix(eye, [0.0] * 2, [1.0] * 2).names == ("p1", "p2")


def test_a_family_has_the_box_that_it_is_given():
    labels = {"names": ["f", "t"], "units": ["Hz", "s"], "scale": ["log", "linear"], "periodic": [False, False]}
    family = nm.ParametricMatrix(eye, [1e-3, 0.0], [1e3, 1.0], dtype=torch.float64, **labels)
    assert family.box == nm.Box([1e-3, 0.0], [1e3, 1.0], dtype=torch.float64, **labels)


@pytest.mark.parametrize("p", [0.5, [0.5], np.array([0.5]), np.array([[0.5]]), torch.tensor([0.5])], ids=repr)
def test_one_parameter_may_be_a_number_or_a_row(p):
    family = nm.ParametricMatrix(eye, 0.0, 1.0)
    assert torch.equal(torch.as_tensor(family(p)), family(torch.tensor([[0.5]])))


def test_a_grid_is_inside_the_box():
    grid = torch.tensor([[0.0], [0.25], [1.0]])
    assert torch.equal(nm.ParametricMatrix(eye, 0.0, 1.0, grid=grid).grid, grid)
    words = ["`p`", "box [0.0] to [1.0]", "1.25", "row 2"]
    assert_raises(ValueError, words, lambda: nm.ParametricMatrix(eye, 0.0, 1.0, grid=grid * 1.25))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"fn": 3}, TypeError, ["`fn`", "function", "int"]),
        ({"upper": [0.0]}, ValueError, ["`upper`", "above `lower`", "[0.0]", "[0.0]"]),
        ({"scale": "log"}, ValueError, ["`scale`", "'linear'", "'log'"]),
        ({"names": ["a", "b"]}, ValueError, ["`names`", "expected 1", "['a', 'b']"]),
        ({"fn": lambda p: "A"}, nm.FamilyError, ["`fn(p)`", "TypeError", "dtype", "mend"]),
        ({"fn": lambda p: torch.ones(1, 2, 2).half()}, TypeError, ["`fn(p)`", "float32", "float16", "convert"]),
        ({"fn": lambda p: torch.ones(2, 2)}, nm.FamilyError, ["`fn`", "one parameter at a time", "`batched=False`"]),
        ({"fn": lambda p: torch.ones(2, 2, 2)}, nm.FamilyError, ["`fn(p)`", "(1, m, n)", "(2, 2, 2)", "stack"]),
        ({"fn": lambda p: 1 / 0}, nm.FamilyError, ["`fn(p)`", "[0.5]", "ZeroDivisionError: division", "mend"]),
        ({"batched": 1}, TypeError, ["`batched`", "True or False", "1 of type int"]),
        ({"fn": lambda p: torch.ones(1, 0, 2)}, ValueError, ["`fn(p)`", "(1, m, n)", "(1, 0, 2)"]),
        ({"fn": lambda p: eye(p) / 0}, nm.FamilyError, ["`fn(p)`", "NaN or Inf", "[0.5]", "mend"]),
    ],
)
def test_family_refuses(settings, error, words):
    arguments = {"fn": eye, "lower": [0.0], "upper": [1.0]} | settings
    assert_raises(error, words, lambda: nm.ParametricMatrix(**arguments))


@pytest.mark.parametrize(("lower", "upper"), [(2e38, 3e38), (-1e38, 2e38), (1e8, 1e8 + 2e4)])
def test_boxes_at_the_limits_of_their_precision(lower, upper):
    seen = []
    nm.ParametricMatrix(lambda p: seen.append(p.clone()) or torch.eye(2)[None], [lower], [upper])
    assert float(seen[0]) == float(torch.tensor([(lower + upper) / 2]))


def test_a_family_may_write_into_its_parameters():
    def fn(p):
        A = eye(p)
        p.zero_()
        return A

    family, p = nm.ParametricMatrix(fn, [0.0], [1.0]), parameters(5, dtype=torch.float32)
    kept = p.clone()
    assert_close(family(p), eye(kept))
    assert torch.equal(p, kept)
    assert_close(nm.families.beside(family, family)(p), torch.cat([eye(p)] * 2, dim=2))


def test_a_family_may_give_the_same_memory_again():
    memory = torch.empty(9, 2, 2)
    family = nm.ParametricMatrix(lambda p: torch.mul(eye(p), 1, out=memory[: len(p)]), [0.0], [1.0])
    shifted = nm.ParametricMatrix(lambda p: torch.mul(eye(p), 3, out=memory[: len(p)]), [0.0], [1.0])
    p = parameters(9, dtype=torch.float32)
    assert_close(nm.families.beside(family, shifted)(p), torch.cat([eye(p), 3 * eye(p)], dim=2))


@pytest.mark.parametrize(
    ("p", "error", "words"),
    [
        (["a"], TypeError, ["`p`", "real numbers", "list"]),
        (torch.tensor([[True]]), TypeError, ["`p`", "float32 or float64", "bool", "p.to(torch.float64)"]),
        (torch.zeros(2, 2, 1), ValueError, ["`p`", "(B, 1)", "(2, 2, 1)"]),
        (torch.zeros(2, 3), ValueError, ["`p`", "(B, 1)", "(2, 3)", "(B, 1)"]),
        (torch.zeros(0, 1), ValueError, ["`p`", "at least one", "(0, 1)"]),
        (torch.tensor([[0.1], [math.nan]]), ValueError, ["`p`", "finite", "nan", "row 1"]),
        (
            torch.tensor([[0.1], [1.1]]),
            ValueError,
            ["`p`", "box [0.0] to [1.0]", "1.1", "row 1", "1 of 2", "extrapolate"],
        ),
        (torch.zeros(1, 1, device="meta"), ValueError, ["`p`", "device cpu", "meta", "p.to('cpu')"]),
    ],
)
def test_evaluation_refuses(p, error, words):
    assert_raises(error, words, lambda: nm.ParametricMatrix(eye, [0.0], [1.0])(p))


def test_the_box_forgives_rounding_and_opens_on_request():
    family = nm.ParametricMatrix(eye, [3.5e9], [3.6e9], dtype=torch.float64)
    assert family(torch.tensor([[3.6e9]]) + 256).shape == (1, 2, 2)  # one unit of rounding in float32
    assert family(torch.tensor([[4e9]]), extrapolate=True).shape == (1, 2, 2)
    with pytest.raises(ValueError, match="outside"):
        family(torch.tensor([[3.7e9]]))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda A: A / 0, ["`fn(p)`", "NaN or Inf", "[0.875]", "1 of 2"]),
        (lambda A: A[:, :1], ["`fn(p)`", "(2, 2, 2)", "centre", "(2, 1, 2)"]),
        (lambda A: A.double(), ["`fn(p)`", "float32", "centre", "float64"]),
        (lambda A: A[:1], ["`fn(p)`", "(2, m, n)", "(1, 2, 2)"]),
        (lambda A: A.half(), ["`fn(p)`", "complex128", "float16", "convert", "TypeError"]),
        (lambda A: A @ torch.ones(3, 3), ["`fn(p)`", "[0.1", "[0.875]", "RuntimeError", "mend"]),
    ],
)
def test_a_family_that_fails_away_from_the_centre_is_named(fault, words):
    def fn(p):
        A = eye(p)
        if not (p > 0.8).any():
            return A
        damaged = fault(A)
        return (
            torch.where((p > 0.8)[:, :, None], damaged, A)
            if damaged.shape == A.shape and A.dtype == damaged.dtype
            else damaged
        )

    family = nm.ParametricMatrix(fn, [0.0], [1.0])
    assert issubclass(nm.FamilyError, ValueError)
    assert_raises(nm.FamilyError, words, lambda: family(torch.tensor([[0.1], [0.875]])))


def undefined_at(bad, raises=False):
    """A family that is NaN at the parameters ``bad``, or cannot take them, and the sizes of its batches."""
    places, sizes = torch.tensor(bad), []

    def fn(p):
        sizes.append(len(p))
        hit = torch.isin(p, places)
        if raises and hit.any():
            raise ZeroDivisionError("a pole")
        return torch.where(hit[:, :, None], torch.nan, eye(p))

    return fn, sizes


@pytest.mark.parametrize("raises", [False, True])
def test_evaluate_marks_what_is_undefined(raises):
    fn, sizes = undefined_at([0.5, 0.875], raises)
    family, p = nm.ParametricMatrix(fn, [0.0], [0.875]), torch.tensor([[0.25], [0.5], [0.875], [0.75]])
    sizes.clear()
    A, good = family.evaluate(p)
    assert sizes == ([4, 2, 1, 1, 2, 1, 1] if raises else [4])
    assert good.tolist() == [True, False, False, True]
    assert torch.equal(A[good], eye(p)[good]) and not A[~good].any()
    assert_raises(nm.FamilyError, ["`fn(p)`"], lambda: family(p))


def test_evaluate_gives_what_a_call_does_where_all_is_defined():
    family, p = nm.ParametricMatrix(eye, [0.0], [1.0]), parameters(9, dtype=torch.float32)
    A, good = family.evaluate(p)
    assert torch.equal(A, family(p)) and good.tolist() == [True] * 9
    A, good = family.evaluate(p + 1, extrapolate=True)
    assert torch.equal(A, eye(p + 1)) and good.all()
    assert_raises(ValueError, ["`p`", "box", "extrapolate"], lambda: family.evaluate(p + 1))


def test_evaluate_writes_to_no_memory_of_the_family():
    stored = torch.stack([torch.eye(2), torch.full((2, 2), torch.inf)])
    family = nm.ParametricMatrix(lambda p: stored[: len(p)], [0.0], [1.0])
    A, good = family.evaluate(torch.tensor([[0.1], [0.2]]))
    assert good.tolist() == [True, False] and not A[1].any() and stored[1].isinf().all()


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("count", [65, 3001])
def test_a_function_that_raises_at_few_of_many_parameters_lacks_only_these(count, batched):
    fn, sizes = undefined_at([0.25, 0.75], raises=True)
    one = fn if batched else lambda x: fn(torch.tensor([[x]]))[0]
    family, p = nm.ParametricMatrix(one, [0.0], [1.0], batched=batched), torch.linspace(0, 1, count)[:, None]
    sizes.clear()
    A, good = family.evaluate(p)
    assert (~good).nonzero().flatten().tolist() == [count // 4, 3 * count // 4]
    assert torch.equal(A[good], eye(p)[good].to(A.dtype)) and not A[~good].any()
    assert len(sizes) <= (150 if batched else 2 * count + 130)
    assert_raises(nm.FamilyError, ["`fn(p)`", "ZeroDivisionError: a pole"], lambda: family(p))


def test_a_function_that_is_gone_raises_soon():
    calls = []

    def fn(p):
        calls.append(len(p))
        if len(calls) > 1:
            raise OSError("no licence")
        return eye(p)

    family, p = nm.ParametricMatrix(fn, [0.0], [1.0]), torch.linspace(0, 1, 4096)[:, None]
    assert_raises(nm.FamilyError, ["`fn(p)`", "[0.0]", "[1.0]", "OSError: no licence"], lambda: family.evaluate(p))
    assert len(calls) < 140
    assert not family.evaluate(p[:64])[1].any()


def test_a_function_that_raises_for_batches_alone_says_so():
    def fn(p):
        if len(p) > 1:
            raise ValueError("one at a time")
        return eye(p)

    family = nm.ParametricMatrix(fn, [0.0], [1.0])
    assert_raises(nm.FamilyError, ["`fn(p)`", "ValueError: one at a time"], lambda: family.evaluate(parameters(5)))


@pytest.mark.parametrize("raises", [False, True])
def test_a_family_that_is_undefined_at_the_centre_of_its_box(raises):
    fn, sizes = undefined_at([0.5], raises)
    family = nm.ParametricMatrix(fn, [0.0], [1.0])
    assert (family.shape, family.dtype, sizes) == ((2, 2), torch.float32, [1, 1])
    assert family.evaluate(torch.tensor([[0.5]]))[1].tolist() == [False]


def test_a_family_beside_another_keeps_what_is_defined():
    fn, _ = undefined_at([0.25])
    left, right = nm.ParametricMatrix(fn, [0.0], [1.0]), nm.ParametricMatrix(eye, [0.0], [1.0])
    for both in (nm.families.beside(left, right), nm.families.beside(right, left)):
        A, good = both.evaluate(torch.linspace(0, 1, 101)[:, None])
        assert (~good).nonzero().tolist() == [[25]] and not A[25].any()


@pytest.mark.parametrize(
    ("right", "error", "words"),
    [
        (3, TypeError, ["`right`", "a tensor", "int"]),
        (torch.ones(2), ValueError, ["`right`", "(2, k)", "(2,)"]),
        (torch.ones(3, 1), ValueError, ["`right`", "(2, k)", "(3, 1)", "as many rows"]),
        (torch.ones(2, 1).double(), ValueError, ["`right`", "float32", "float64"]),
        (nm.ParametricMatrix(eye, 0.0, 2.0), ValueError, ["`right`", "[0, 1]", "[0, 2]"]),
    ],
)
def test_beside_refuses(right, error, words):
    assert_raises(error, words, lambda: nm.families.beside(nm.ParametricMatrix(eye, 0.0, 1.0), right))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nm.families.trigonometric(size=0), ["`size`", "at least 1", "got 0"]),
        (lambda: nm.families.trigonometric(terms=1.5), ["`terms`", "integer", "1.5"]),
        (lambda: nm.families.trigonometric(dimension=0), ["`dimension`", "at least 1"]),
        (lambda: nm.families.trigonometric(cycles=0), ["`cycles`", "above 0", "got 0"]),
        (lambda: nm.families.trigonometric(shift="a"), ["`shift`", "number", "'a'"]),
        (lambda: nm.families.trigonometric(shift=math.nan), ["`shift`", "a finite number, got nan"]),
        (lambda: nm.families.trigonometric(dtype=torch.float16), ["`dtype`", "complex128", "float16"]),
        (lambda: nm.families.trigonometric(seed=1.5), ["`seed`", "integer", "1.5"]),
        (lambda: low_rankness.low_rank_plus_shift(size=3, inner=4), ["`inner`", "at most `size` = 3", "got 4"]),
    ],
)
def test_made_families_refuse(make, words):
    assert_raises((ValueError, TypeError), words, make)


def test_gradients_flow_through_a_family_of_torch_code():
    p = torch.tensor([[0.25]], requires_grad=True)
    nm.families.trigonometric(size=3)(p).sum().backward()
    assert p.grad.isfinite().all()
