"""Validation helpers, and what holds for the whole public interface: documentation."""

import inspect
import math
import re

import numpy as np
import pytest
import torch
from conftest import assert_raises

import neumatc as nm
from neumatc import checks


@pytest.mark.parametrize("value", [3, torch.tensor(3), True.__index__() + 2])
def test_integer_takes_what_counts_as_one(value):
    assert type(checks.integer("n", value, 0)) is int


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: checks.integer("n", 3.0, 1), TypeError, ["`n`", "integer", "3.0", "float"]),
        (lambda: checks.integer("n", True, 1), TypeError, ["`n`", "integer", "True", "bool"]),
        (lambda: checks.integer("n", "3", 1), TypeError, ["`n`", "integer", "'3'", "str"]),
        (lambda: checks.integer("n", 0, 1), ValueError, ["`n`", "at least 1", "got 0"]),
        (lambda: checks.number("x", None), TypeError, ["`x`", "number", "None", "NoneType"]),
        (lambda: checks.number("x", math.nan, above=0), ValueError, ["`x`", "finite", "above 0", "nan"]),
        (lambda: checks.number("x", 0, above=0), ValueError, ["`x`", "finite", "above 0", "got 0"]),
        (lambda: checks.number("x", 2, above=0, at_most=1), ValueError, ["`x`", "above 0 and at most 1", "got 2"]),
        (lambda: checks.number("x", -math.inf), ValueError, ["`x`", "finite", "-inf"]),
        (lambda: checks.number("x", "1"), TypeError, ["`x`", "number", "'1'", "str"]),
        (lambda: checks.number("x", 1j), TypeError, ["`x`", "number", "1j", "complex"]),
        (lambda: checks.number("x", True), TypeError, ["`x`", "number", "True", "bool"]),
        (lambda: checks.integer("n", 7, 1, 5), ValueError, ["`n`", "at most 5", "got 7"]),
        (lambda: checks.seed(True), TypeError, ["`seed`", "integer", "True"]),
        (lambda: checks.choice("x", "c", ("a", "b")), ValueError, ["`x`", "expected 'a' or 'b'", "got 'c'"]),
        (lambda: checks.choice("x", 2, (1, 3, 5)), ValueError, ["`x`", "expected 1, 3 or 5", "got 2"]),
        (
            lambda: checks.choice("x", None, ("a", "b", "c")),
            ValueError,
            ["`x`", "'a', 'b' or 'c'", "None"],
        ),
        (lambda: checks.choice("x", ["a"], ("a", "b")), ValueError, ["`x`", "expected 'a' or 'b'", "got ['a']"]),
        (lambda: checks.matrix_dtype("dtype", torch.bfloat16), TypeError, ["`dtype`", "complex64", "bfloat16", ".to("]),
    ],
)
def test_messages_say_what_was_expected_and_what_came(call, error, words):
    assert_raises(error, words, call)


def test_choice_returns_the_value():
    assert checks.choice("x", "b", ("a", "b")) == "b"


def test_default_dtype_is_torchs():
    assert checks.matrix_dtype("dtype", None) == torch.get_default_dtype()
    assert [checks.real_dtype(dtype) for dtype in checks.DTYPES] == [torch.float32, torch.float64] * 2


@pytest.mark.parametrize("default", [torch.float16, torch.bfloat16])
def test_a_half_default_dtype_does_not_count(default):
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        assert checks.matrix_dtype("dtype", None) == torch.float32
        lower, upper, _ = checks.box([0.1], [0.7], None, None)
    finally:
        torch.set_default_dtype(before)
    assert (lower.dtype, upper.tolist()) == (torch.float32, torch.tensor([0.7]).tolist())


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (3, torch.float64),
        ([[0.5, 1.0]], torch.float64),
        (np.float32([0.5]), torch.float32),
        (np.float64([0.5]), torch.float64),
        (np.arange(3), torch.float64),
    ],
    ids=repr,
)
def test_numbers_are_real_and_double_unless_single(value, dtype):
    found = checks.numbers("p", value, "cpu")
    assert found.dtype == dtype
    assert found.tolist() == np.asarray(value).tolist()


@pytest.mark.parametrize("value", ["a", None, [1j], [True], [[1.0], [2.0, 3.0]], {"p": 1.0}], ids=repr)
def test_what_is_no_number_is_refused(value):
    assert_raises(TypeError, ["`p`", "real numbers", type(value).__name__], lambda: checks.numbers("p", value, "cpu"))


def test_points_are_returned_as_they_came():
    p = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    assert checks.points(p, torch.zeros(1), torch.ones(1)) is p


@pytest.mark.parametrize(
    ("p", "error", "words"),
    [
        (torch.zeros(2, 1, dtype=torch.int64), TypeError, ["`p`", "float32 or float64", "int64"]),
        (torch.zeros(2), ValueError, ["`p`", "(B, 1)", "(2,)", "reshape it to (B, 1)"]),
        (torch.zeros(0, 1), ValueError, ["`p`", "at least one", "(0, 1)"]),
        (torch.tensor([[0.0], [math.nan]]), ValueError, ["`p`", "finite", "nan", "row 1"]),
        (torch.tensor([[0.0], [1.1]]), ValueError, ["`p`", "box [0.0] to [1.0]", "1.1", "row 1", "extrapolate=True"]),
    ],
)
def test_points_refuse(p, error, words):
    assert_raises(error, words, lambda: checks.points(p, torch.zeros(1), torch.ones(1)))


def test_points_outside_are_taken_on_request():
    p = torch.tensor([[7.0]])
    assert checks.points(p, torch.zeros(1), torch.ones(1), extrapolate=True) is p


@pytest.mark.parametrize("fails", [False, True])
def test_autocast_is_off_inside_and_on_again_after(fails):
    @checks.full_precision
    def product(A):
        assert not torch.is_autocast_enabled("cpu")
        return A @ A if not fails else 1 / 0

    A = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (A @ A).dtype == torch.bfloat16
        if fails:
            with pytest.raises(ZeroDivisionError):
                product(A)
        else:
            assert product(A).dtype == torch.float32
        assert torch.is_autocast_enabled("cpu")
    assert product.__name__ == "product" and not torch.is_autocast_enabled("cpu")


def public():
    """Every name of neumatc.__all__, and the public functions and classes of the modules among them."""
    for name in nm.__all__:
        value = getattr(nm, name)
        yield pytest.param(value, id=name)
        if inspect.ismodule(value):
            for inner, member in vars(value).items():
                ours = getattr(member, "__module__", None) == value.__name__
                if ours and not inner.startswith("_") and callable(member):
                    yield pytest.param(member, id=f"{name}.{inner}")


def test_all_is_sorted_and_complete():
    names = {name for name, value in vars(nm).items() if getattr(value, "__module__", "").startswith("neumatc.")}
    assert {name for name in names if not name.startswith("_")} <= set(nm.__all__)
    assert len(set(nm.__all__)) == len(nm.__all__)


@pytest.mark.parametrize("value", list(public()))
def test_public_names_are_documented(value):
    """Classes by hand (not by the signature that dataclass writes), functions with their arguments and result."""
    text = inspect.getdoc(value)
    assert text
    if inspect.isclass(value):
        assert not text.startswith(f"{value.__name__}(")
    if inspect.isfunction(value):
        signature = inspect.signature(value)
        if signature.parameters:
            assert "Args:" in text
            section = text.split("Args:")[1]
            for name in signature.parameters:
                assert re.search(rf"^ +(\w+, )*{name}(, \w+)*:", section, re.MULTILINE), f"`{name}` is not described"
        if signature.return_annotation not in (None, "None"):
            assert "Returns:" in text


@pytest.mark.parametrize("value", [v for v in public() if inspect.isclass(v.values[0])])
def test_public_methods_are_documented(value):
    """Where a method overrides another, the docstring of the other counts."""
    for name, member in vars(value).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod)):
            assert inspect.getdoc(getattr(value, name)), f"{value.__name__}.{name} has no docstring"


def test_settings_of_dataclasses_are_documented():
    values = [value for value in vars(nm).values() if isinstance(value, type)]
    methods = (nm.Method, nm.ClosedForm, nm.Pieces, nm.ResidualTraining, nm.FailureInformedSampling, nm.Task)
    ours = [value for value in values if issubclass(value, nm.Operation | nm.Embedding)]
    for cls in (*ours, *methods, nm.Report, nm.Round, nm.Event, nm.Unmet):
        for name in getattr(cls, "__dataclass_fields__", {}):
            assert re.search(rf"\b{name}\b", inspect.getdoc(cls)), f"{cls.__name__}: {name} is not described"
