"""The box: scales and periods both ways, labels, parameters in every form, and every refusal."""

import math

import numpy as np
import pytest
import torch
from conftest import assert_raises, eps, generator, parameters

import neumatc as nm

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
BOXES = {  # name: (lower, upper, settings)
    "linear": (-3.0, 0.7, {}),
    "far": (1e4, 1e4 + 30, {}),
    "log": (1e-6, 1e3, {"scale": "log"}),
    "narrow log": (2.0, 2.5, {"scale": "log"}),
    "periodic": (-math.pi, math.pi, {"periodic": True}),
    "mixed": ([0.1, -1.0, 1e-3], [10.0, 1.0, 1e3], {"scale": ["log", "linear", "log"]}),
}
boxes = pytest.mark.parametrize("name", BOXES)


def make(name, dtype=torch.float64):
    lower, upper, settings = BOXES[name]
    return nm.Box(lower, upper, dtype=dtype, **settings)


# Scaling


@boxes
@PRECISIONS
def test_scaling_goes_round(name, dtype):
    box = make(name, dtype)
    x = 2 * parameters(200, box.dimension) - 1
    p = box.parameters(x)
    assert p.dtype == dtype
    assert ((p >= box.lower) & (p <= box.upper)).all()
    # A parameter is rounded once; in the cube that is its spacing there, with a logarithm that of its exponent.
    width = torch.where(
        torch.tensor([s == "log" for s in box.scale]),
        (box.upper / box.lower).log().abs().nan_to_num(1),
        (box.upper - box.lower) / torch.maximum(box.lower.abs(), box.upper.abs()),
    )
    assert ((box.cube(p) - x).abs() <= 4 * eps(dtype) / width + 8 * eps(torch.float64)).all()


@boxes
@PRECISIONS
def test_the_ends_are_exact_both_ways(name, dtype):
    box = make(name, dtype)
    ends = torch.stack([box.lower, box.upper])
    corners = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand(2, box.dimension)
    assert torch.equal(box.parameters(corners), ends)
    assert torch.equal(box.cube(ends), corners)


def test_a_linear_axis_is_scaled_linearly():
    p = torch.linspace(2, 5, 13, dtype=torch.float64)[:, None]
    assert (nm.Box(2.0, 5.0).cube(p) - (2 * p - 7) / 3).abs().max() < 4 * eps(torch.float64)


def test_decades_are_equally_long_on_a_logarithmic_axis():
    box = nm.Box(1e-4, 1e4, scale="log", dtype=torch.float64)
    decades = torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None]
    assert (box.cube(10**decades) - decades / 4).abs().max() < 4 * eps(torch.float64)


def test_the_cube_is_in_double_precision():
    """Between two neighbouring numbers of single precision lie many of the cube."""
    assert make("log", torch.float32).cube(torch.tensor([[0.1]])).dtype == torch.float64


def test_rounded_points_are_where_their_parameters_are():
    box = make("log", torch.float32)
    x = 2 * parameters(50) - 1
    moved = box.rounded(x)
    assert torch.equal(box.cube(box.parameters(x)), moved)
    assert torch.equal(box.rounded(moved), moved)


def test_the_scaling_has_derivatives():
    box = make("mixed")
    p = box.uniform(5, generator()).requires_grad_()
    assert torch.autograd.gradcheck(box.cube, (p,))


@boxes
def test_uniform_means_uniform_in_the_cube(name):
    box = make(name)
    x = box.cube(box.uniform(4000, generator()))
    assert x.abs().max() <= 1
    for power in (1, 2, 3):  # five standard errors
        mean = 0.0 if power % 2 else 1 / (power + 1)
        assert ((x**power).mean(dim=0) - mean).abs().max() < 5 / 4000**0.5


def test_uniform_repeats_for_a_seed():
    box = make("mixed")
    assert torch.equal(box.uniform(9, generator(1)), box.uniform(9, generator(1)))
    assert not torch.equal(box.uniform(9, generator(1)), box.uniform(9, generator(2)))


# Periods


@PRECISIONS
@pytest.mark.parametrize("turns", [-5, -1, 1, 3])
def test_parameters_on_a_periodic_axis_are_moved_by_whole_periods(turns, dtype):
    box = make("periodic", dtype)
    p = box.uniform(50, generator())
    moved = box.points(p + turns * (box.upper - box.lower))
    assert ((moved >= box.lower) & (moved <= box.upper)).all()
    gap = (moved - p).abs()
    gap = torch.minimum(gap, (gap - 2 * math.pi).abs())  # about the ends, which are the same
    assert gap.max() <= 4 * (abs(turns) + 1) * math.pi * eps(dtype)


def test_parameters_inside_a_period_stay_as_they_are():
    box = make("periodic")
    p = torch.cat([box.uniform(50, generator()), box.lower[None], box.upper[None]])
    assert torch.equal(box.points(p), p)


def test_only_periodic_axes_are_wrapped():
    box = nm.Box([0.0, 0.0], [1.0, 1.0], periodic=[True, False], dtype=torch.float64)
    assert box.points([[2.25, 0.5]]).tolist() == [[0.25, 0.5]]
    assert_raises(ValueError, ["`p`", "2.25", "row 0", "extrapolate"], lambda: box.points([[0.5, 2.25]]))


def test_a_family_whose_ends_differ_is_not_periodic():
    def fn(p):
        return torch.eye(2, dtype=p.dtype) + torch.sin(p)[:, :, None]

    nm.ParametricMatrix(fn, 0.0, 2 * math.pi, periodic=True, dtype=torch.float64)
    words = ["`periodic`", "both ends of p", "relative difference of", "one period apart", "periodic=False"]
    assert_raises(ValueError, words, lambda: nm.ParametricMatrix(fn, 0.0, 5.0, periodic=True, dtype=torch.float64))


# Parameters in every form


@pytest.mark.parametrize(
    ("p", "rows"),
    [
        (0.5, 1),
        (1, 1),
        ([0.5, 0.25], 2),
        ([[0.5], [0.25]], 2),
        (np.array([0.5, 0.25]), 2),
        (np.array([[0.5]]), 1),
        (torch.tensor(0.5), 1),
        (torch.tensor([0.5, 0.25]), 2),
        (torch.tensor([[0.5], [0.25]]), 2),
    ],
    ids=repr,
)
def test_one_parameter_takes_numbers_and_rows(p, rows):
    points = nm.Box(0.0, 1.0).points(p)
    assert points.shape == (rows, 1)
    assert points.flatten().tolist() == np.asarray(p, dtype=float).flatten().tolist()


@pytest.mark.parametrize("p", [[[0.5, 0.25]], np.array([[0.5, 0.25]]), torch.tensor([[0.5, 0.25]])], ids=repr)
def test_several_parameters_take_rows(p):
    assert nm.Box([0.0, 0.0], [1.0, 1.0]).points(p).tolist() == [[0.5, 0.25]]


@pytest.mark.parametrize("p", [0.5, [0.5, 0.25], np.zeros((2, 3))], ids=repr)
def test_several_parameters_take_nothing_else(p):
    assert_raises(ValueError, ["`p`", "(B, 2)", "got ("], lambda: nm.Box([0.0, 0.0], [1.0, 1.0]).points(p))


@pytest.mark.parametrize("bound", [0.25, [0.25], (0.25,), np.array([0.25]), np.float64(0.25), torch.tensor([0.25])])
def test_bounds_take_numbers_lists_and_arrays(bound):
    assert nm.Box(0.0, bound).upper.tolist() == [0.25]


def test_bounds_keep_the_dtype_of_a_tensor():
    assert nm.Box(torch.zeros(1, dtype=torch.float64), 1.0).dtype == torch.float64
    assert nm.Box(torch.zeros(1, dtype=torch.float64), 1.0, dtype=torch.float32).dtype == torch.float32
    assert nm.Box(0.0, 1.0).dtype == torch.get_default_dtype()


def test_a_box_has_its_own_bounds():
    bounds = torch.tensor([[0.1], [0.7]])
    box = nm.Box(*bounds)
    bounds[1] = 0.0
    assert box.upper.tolist() == torch.tensor([0.7]).tolist()


# Labels, equality, hints


def test_names_count_the_axes():
    assert nm.Box(0.0, 1.0).names == ("p",)
    assert nm.Box([0.0] * 2, [1.0] * 2).names == ("p1", "p2")


def test_representation_shows_what_is_unusual():
    box = nm.Box(
        [1.0, 0.0], [1e3, 6.0], scale=["log", "linear"], periodic=[False, True], names=["t", "q"], units=("s", "")
    )
    assert repr(box) == "t in [1, 1000] s (log), q in [0, 6] (periodic)"


@boxes
def test_settings_make_the_same_box(name):
    box = make(name)
    assert nm.Box(box.lower, box.upper, **box.settings()) == box


@pytest.mark.parametrize(
    "changes",
    [
        {"upper": 11.0},
        {"scale": "log"},
        {"periodic": True},
        {"names": ["q"]},
        {"units": ["s"]},
    ],
)
def test_boxes_differ_in_any_part(changes):
    arguments = {"lower": 1.0, "upper": 10.0}
    assert nm.Box(**arguments) == nm.Box(**arguments)
    assert nm.Box(**arguments) != nm.Box(**arguments | changes)


def test_a_box_on_another_device_is_the_same(device):
    box = make("mixed")
    moved = box.to(device)
    assert (moved, moved.device) == (box, torch.device(device))


def test_hints_name_the_axes_over_decades():
    box = nm.Box([1e-3, 1.0, 0.0, 1e-3], [1e3, 99.0, 1e9, 1e3], scale=["linear"] * 3 + ["log"], names=[*"abcd"])
    (hint,) = box.hints()
    assert "a spans 6 decades" in hint
    assert "scale='log'" in hint


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"lower": 0.0, "scale": "log"}, ValueError, ["`scale`", "'linear' for p", "bound 0", "'log'", "raise"]),
        ({"lower": -1.0, "scale": "log"}, ValueError, ["`scale`", "'linear' for p", "bound -1", "'log'", "raise"]),
        ({"scale": "cubic"}, ValueError, ["`scale`", "'linear' or 'log'", "'cubic'"]),
        ({"scale": ["log", "log"]}, ValueError, ["`scale`", "expected 1 values", "one per axis", "['log', 'log']"]),
        ({"scale": None}, TypeError, ["`scale`", "type str", "None"]),
        ({"periodic": 1}, TypeError, ["`periodic`", "type bool", "1"]),
        ({"periodic": [True, False]}, ValueError, ["`periodic`", "expected 1", "[True, False]"]),
        ({"names": "time"}, TypeError, ["`names`", "one per axis", "'time'"]),
        ({"units": [3]}, TypeError, ["`units`", "type str", "[3]"]),
        ({"upper": 0.5}, ValueError, ["`upper`", "above `lower`", "[0.5]", "swap"]),
        ({"upper": [2.0, 3.0]}, ValueError, ["`upper`", "(1,)", "(2,)"]),
        ({"upper": math.inf}, ValueError, ["`upper`", "finite", "inf"]),
        ({"upper": "a"}, TypeError, ["`upper`", "number", "'a'"]),
        ({"lower": []}, ValueError, ["`lower`", "shape (d,)", "(0,)"]),
        ({"dtype": torch.complex64}, TypeError, ["`dtype`", "float32", "complex64"]),
        ({"lower": 1e8, "upper": 1e8 + 4e3}, ValueError, ["`upper`", "spacing of torch.float32", "double precision"]),
    ],
)
def test_a_box_refuses(settings, error, words):
    assert_raises(error, words, lambda: nm.Box(**{"lower": 1.0, "upper": 2.0} | settings))


def test_a_parameter_is_named_with_its_units():
    box = nm.Box([0.0, 0.0], [1.0, 1.0], names=["f", "t"], units=["GHz", ""])
    assert box.named([0.25, 1 / 3]) == "f = 0.25 GHz, t = 0.333333"
