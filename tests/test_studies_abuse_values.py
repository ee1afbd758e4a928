"""A sample of the abuse of certificates, and what it is judged by; ``python -m studies.abuse_values`` is the whole."""

import numpy as np
import pytest
import torch

import neumatc as nm
from neumatc import linalg
from studies import abuse_values


@pytest.mark.slow
def test_no_bound_is_below_the_true_error():
    found = abuse_values.run(40_000)
    whole = sum(found.values(), start=type(next(iter(found.values())))())
    assert whole["values"] >= 40_000
    assert whole["accepted"] > 1000 and whole["replaced"] > 1000
    assert [word for word, number in whole.items() if word.startswith("WRONG") and number] == []
    for kind in ("Inverse", "PseudoInverse"):  # up to a condition number of 1e15
        assert found[kind]["failed"] <= 0.1 * found[kind]["values"]
    bounded = {kind.__name__ for kind in (*abuse_values.LINEAR, *abuse_values.SPECTRAL, nm.Cholesky)}
    assert set(found) == bounded


@pytest.mark.parametrize("case", [abuse_values.linear_case, abuse_values.spectral_case, abuse_values.cholesky_case])
def test_true_errors_are_those_of_double_precision_where_that_is_enough(case):
    draw, compared = np.random.default_rng(1), 0
    for _ in range(5):
        operation, A, error = case(draw, torch.complex128)
        exact, failed = operation.exact(A)
        value = [x + 0.1 * linalg.norm(x).view(-1, *(1,) * (x.ndim - 1)) * torch.randn_like(x) for x in exact]
        above, below = error(operation, A, *(torch.nan_to_num(x) for x in value))
        bound = operation.error_bound(A, exact)
        for i in ((bound < 1e-9) & ~failed).nonzero()[:, 0].tolist():
            found = (above[i] / below[i]) ** 0.5
            expected = float(operation.error([x[i : i + 1] for x in value], [x[i : i + 1] for x in exact]))
            assert found == pytest.approx(expected, rel=1e-6)
            compared += 1
    assert compared > 200


def test_a_bound_that_is_too_small_is_found():
    bound, flags = torch.tensor([0.5, 0.4, torch.inf]).double(), torch.tensor([True, True, False])
    checked = nm.Certified(None, bound, bound, "bound", flags, ~flags)
    counts = abuse_values.judged(checked, ([1, 1, 1], [4, 4, 0]), rtol=0.5)
    assert counts["WRONG: bound below the true error"] == 1
    assert counts["WRONG: accepted or returned above the tolerance"] == 0
    assert (
        abuse_values.judged(checked, ([1, 1, 1], [4, 4, 0]), rtol=0.45)[
            "WRONG: accepted or returned above the tolerance"
        ]
        == 2
    )
