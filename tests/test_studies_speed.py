"""The study of speed at smoke size: what its rows hold, not how fast anything is."""

import math
from functools import partial

import pytest
import torch

pytest.importorskip("sionna")

import neumatc as nm
from studies import practice, speed

TONES = 40


@pytest.mark.parametrize("build", [speed.inverse, speed.svd, speed.lmmse])
def test_a_row_holds_a_fit_that_is_met_and_ratios_in_order(build):
    row = build(tol=1e-2, rounds=3, tones=TONES)
    assert row["met"] and row["error"] < 0.05
    ratios = [value for value in row.values() if isinstance(value, tuple)]
    assert len(ratios) >= 4
    # Three NaN where the timings were refused, or one of them was too unsteady on a busy machine.
    assert all(math.isnan(middle) or 0 < low <= middle <= high for low, middle, high in ratios)
    assert row["name"] in speed.lines(row)


@pytest.mark.slow
def test_interpolation_with_a_number_of_solves_keeps_the_tolerance_as_the_map_does():
    row = speed.inverse(tol=1e-2, rounds=3, tones=5 * TONES)
    pieces, *others = row["interpolation"].values()
    assert pieces["error"] < 0.05 and len(others) == 3
    for peer in (pieces, *others):
        assert {"solves", "error", "after", "with the fit", "Cholesky: with the fit", "Cholesky: pays"} <= set(peer)
    _, problem, p = speed.inverse_problem()
    p = p[: 5 * TONES : 8]  # those that judge
    built = {"Chebyshev": nm.peers.chebyshev, "cubic spline": nm.peers.spline}
    built["linear spline"] = partial(nm.peers.spline, degree=1)
    for name, build in built.items():
        value = build(problem, row["interpolation"][name]["solves"])(p)
        assert float((problem.residual(p, value) > 1e-2).double().mean()) <= 0.01


@pytest.mark.slow
def test_singular_vectors_are_interpolated_once_they_are_aligned():
    row = speed.svd(tol=1e-2, rounds=3, tones=5 * TONES)
    peers = row["interpolation"]
    assert set(peers) == {"aligned spline", "aligned linear spline"}
    assert all(peer["error"] < 0.05 and peer["solves"] >= 8 for peer in peers.values())


@pytest.mark.parametrize(("degree", "count"), [(3, 40), (1, 300)])
def test_an_aligned_spline_goes_through_the_triplets_whatever_their_phases(degree, count):
    _, problem, p = speed.svd_problem("A")
    spline = practice.aligned_spline(problem.family, 4, count, degree)
    U, S, Vh = spline(p[::16])
    exact = problem.exact(p[::16]).value
    assert float(problem.error(p[::16], problem.operation.pack((U, S, Vh))).max()) < 1e-3
    torch.testing.assert_close(S, exact.S, rtol=1e-3, atol=1e-4)
    assert U.dtype == exact.U.dtype and spline.exact_solves == count


def test_channels_are_fitted_together():
    row = speed.many(count=3, tol=1e-2, rounds=1)
    assert row["met"] and row["solves"] > 0


@pytest.mark.slow
def test_the_busy_processes_end_and_the_threads_stay():
    before = torch.get_num_threads()
    rows = speed.busy(rounds=3, tones=TONES)
    assert [row["threads"] for row in rows] == [1, before, before]
    assert torch.get_num_threads() == before
    assert rows[2]["NumPy loop: after"].median > 0, "a load that is made on purpose is no reason to refuse"
