"""The conformance suite: the library's own operations pass, and each kind of defect is found by the check for it."""

from dataclasses import dataclass

import pytest
import torch
from conftest import assert_raises
from test_operations import CASES, ONE_SHAPE, slow

import neumatc as nm

ALWAYS = {"shapes", "residual of the solution", "failures", "batches", "memory", "file"}
ALWAYS |= {"residual of errors", "gradient"}
FAMILY = nm.families.trigonometric(size=4, shift=3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, torch.complex128) for case in CASES] + [(case, torch.float64) for case in ONE_SHAPE],
    ids=str,
)
def test_the_operations_of_the_library_pass(case, dtype):
    expected = ALWAYS | ({"bound"} if case.operation.certainty == "bound" else set())
    expected |= set() if case.operation.unique else {"gauge"}
    assert set(nm.testing.check_operation(case.operation, slow(case, dtype))) == expected


def test_matrices_may_be_given_instead_of_a_family():
    A = FAMILY(torch.linspace(0, 1, 5, dtype=torch.float64)[:, None])
    assert "bound" in nm.testing.check_operation(nm.Inverse(), A, failing=torch.ones(4, 4))


def broken(**methods):
    """An inverse with methods of its own."""
    made = dataclass(frozen=True)(type("Broken", (nm.Inverse,), methods | {"__module__": __name__}))
    made.__qualname__ = "Broken"
    return made()


def transposed(self, A):
    (X,), failed = nm.Inverse().exact(A)
    return (X.mT,), failed


def differs_alone(self, A):
    (X,), failed = nm.Inverse().exact(A)
    return (X * (1 + 0.1 * (len(A) == 1)),), failed


DEFECTS = {
    "shapes": {"factors": lambda self, m, n: (nm.Factor("X", (n, n), "complex"),)},
    "residual of the solution": {"exact": transposed},
    "residual of errors": {"residual": lambda self, A, x: nm.Inverse().residual(A, x) ** 2},
    "gradient": {"loss": lambda self, A, x: nm.Inverse().loss(A, [x[0].detach()])},
    "bound": {"error_bound": lambda self, A, x: nm.Inverse().residual(A, x) / 10},
    "failures": {"exact": lambda self, A: ((torch.linalg.pinv(A),), torch.zeros(len(A), dtype=torch.bool))},
    "batches": {"exact": differs_alone},
    "memory": {"exact": lambda self, A: ((A.copy_(torch.linalg.inv(A)),), nm.Inverse().exact(A)[1])},
    "file": {"settings": lambda self: {"forgotten": 1}},
}


@pytest.mark.parametrize("check", DEFECTS)
def test_each_defect_is_found_by_its_check(check):
    operation = broken(**DEFECTS[check])
    words = [check, "Broken"] if check != "file" else []
    try:
        error = ValueError if check == "file" else AssertionError
        assert_raises(error, words, lambda: nm.testing.check_operation(operation, FAMILY, failing=torch.ones(4, 4)))
    finally:
        del nm.Operation.registry["Broken"]


def test_a_gauge_that_changes_the_answer_is_found():
    class Broken(nm.Subspace):
        def align(self, x, factors, **along):
            return (factors[0].roll(1, dims=1),), ()

    try:
        words = ["gauge", "the error of aligned solutions", "above rounding", "Broken"]
        assert_raises(AssertionError, words, lambda: nm.testing.check_operation(Broken(2), FAMILY))
    finally:
        del nm.Operation.registry["Broken"]


def test_the_default_device_of_the_caller_changes_nothing():
    family = nm.families.trigonometric(4, shift=3.0, dtype=torch.float64)
    with torch.device("meta"):
        done = nm.testing.check_operation(nm.Inverse(), family)
    assert done == nm.testing.check_operation(nm.Inverse(), family)


def test_matrices_that_are_not_finite_are_named_by_their_place():
    A = torch.eye(2, dtype=torch.float64).repeat(3, 1, 1)
    A[1, 0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"`matrices`: expected finite entries, got NaN or Inf at parameter \[1.0\]"):
        nm.testing.check_operation(nm.Inverse(), A)
