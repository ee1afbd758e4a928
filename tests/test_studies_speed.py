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


def test_interpolation_with_a_number_of_solves_is_as_accurate_as_the_map():
    row = speed.inverse(tol=1e-2, rounds=3, tones=5 * TONES)
    pieces, *others = row["interpolation"].values()
    assert pieces["error"] < 0.05 and len(others) == 2
    for peer in (pieces, *others):
        assert {"solves", "error", "after", "with the fit", "Cholesky: with the fit", "Cholesky: pays"} <= set(peer)
    # The ladder is judged at a part of the parameters.
    assert all(peer["error"] < 2 * row["error"] for peer in others)


def test_an_operation_of_several_factors_has_no_interpolation():
    assert "interpolation" not in speed.svd(tol=1e-2, rounds=3, tones=TONES)


def test_channels_are_fitted_together():
    row = speed.many(count=3, tol=1e-2, rounds=1)
    assert row["met"] and row["solves"] > 0


def test_the_busy_processes_end_and_the_threads_stay():
    before = torch.get_num_threads()
    rows = speed.busy(rounds=3, tones=TONES)
    assert [row["threads"] for row in rows] == [1, before, before]
    assert torch.get_num_threads() == before
    assert rows[2]["NumPy loop: after"].median > 0, "a load that is made on purpose is no reason to refuse"
