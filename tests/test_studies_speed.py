"""The study of speed at smoke size: what its rows hold, not how fast anything is."""

import pytest
import torch

pytest.importorskip("sionna")

from studies import speed

TONES = 40


@pytest.mark.parametrize("build", [speed.inverse, speed.svd, speed.lmmse])
def test_a_row_holds_a_fit_that_is_met_and_ratios_in_order(build):
    row = build(tol=1e-2, rounds=3, tones=TONES)
    assert row["met"] and row["error"] < 0.05
    ratios = [value for value in row.values() if isinstance(value, tuple)]
    assert len(ratios) >= 4
    refused = bool(row["conditions"]["refused"])
    assert all(refused or 0 < low <= middle <= high for low, middle, high in ratios)
    assert row["name"] in speed.lines(row)


@pytest.mark.parametrize("build", [speed.inverse, speed.lmmse])
def test_a_result_of_one_matrix_has_a_spline_beside_it(build):
    own = build(tol=1e-2, rounds=3, tones=TONES)["spline"]
    assert own["error"] < 0.1 and own["solves"] >= 4
    assert "Cholesky: with the fit" in own and "Cholesky: pays" in own


def test_singular_vectors_have_no_spline():
    assert "spline" not in speed.svd(tol=1e-2, rounds=3, tones=TONES)


def test_channels_are_fitted_together():
    row = speed.many(count=3, tol=1e-2, rounds=1)
    assert row["met"] and row["solves"] > 0


def test_the_busy_processes_end_and_the_threads_stay():
    before = torch.get_num_threads()
    rows = speed.busy(rounds=3, tones=TONES)
    assert [row["threads"] for row in rows] == [1, before, before]
    assert torch.get_num_threads() == before
    assert rows[2]["NumPy loop: after"].median > 0, "a load that is made on purpose is no reason to refuse"
