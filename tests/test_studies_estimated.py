"""The study of estimated channels, at smoke size: what it compares, and that it compares it rightly."""

import numpy as np
import pytest

from studies import estimated
from studies.estimated import AWARE, BLIND, LINEAR, LMMSE, MAP, MISMATCHED, NEAREST, PER_TONE

TONES = 96


@pytest.fixture(scope="module")
def drawn():
    return estimated.estimate("16 x 4", 100e-9, 10, TONES)


@pytest.fixture(scope="module")
def rows():
    return estimated.rows(["16 x 4"], [30e-9, 300e-9], [0, 20], TONES)


def test_an_estimate_has_the_noise_that_it_says(drawn):
    E = drawn.A - drawn.H[::2]
    assert drawn.v == pytest.approx(np.mean(np.abs(E) ** 2), rel=0.1)
    assert drawn.v == pytest.approx(np.mean(np.abs(drawn.H) ** 2) / 10, rel=1e-12)


def test_sionna_interpolates_as_we_do(drawn):
    ours, theirs = estimated.linear(drawn), estimated.by_sionna(drawn, LINEAR)
    inside = slice(None, -1)  # beyond the last pilot it goes on in a line
    assert np.allclose(ours[inside], theirs[inside], rtol=1e-6, atol=1e-9)
    assert np.allclose(estimated.by_sionna(drawn, NEAREST)[::2], drawn.A, rtol=1e-6)


@pytest.mark.parametrize("way, prefix", [(LMMSE, None), (MISMATCHED, estimated.PREFIX)])
def test_sionna_filters_with_the_covariance_given(drawn, way, prefix):
    R, m, n = estimated.covariance(drawn, prefix), *drawn.H.shape[1:]
    assert np.allclose(R, R.conj().T) and np.allclose(np.diag(R), 1)
    share = drawn.v / (np.mean(np.abs(drawn.A) ** 2) - drawn.v)
    F = R[:, ::2] @ np.linalg.inv(R[::2, ::2] + share * np.eye(TONES // 2))
    ours = (F @ drawn.A.reshape(-1, m * n)).reshape(drawn.H.shape)
    for found in (estimated.by_sionna(drawn, way), estimated.by_covariance(drawn, way)):
        assert np.linalg.norm(found - ours) < 1e-9 * np.linalg.norm(ours)
    assert estimated.agreement(drawn, way, 2) < 1e-9


def test_rows_are_plain_and_complete(rows):
    assert [(row["spread"], row["snr"]) for row in rows] == [(30e-9, 0), (30e-9, 20), (300e-9, 0), (300e-9, 20)]
    for row in rows:
        assert (
            set(row["error"]) == set(row["rate"]) == {PER_TONE, AWARE, NEAREST, LINEAR, LMMSE, MISMATCHED, MAP, BLIND}
        )
        assert all(type(x) is float for name in ("error", "rate") for x in row[name].values())
        assert all(0 < x <= 1 + 1e-12 for x in row["rate"].values())
        assert row["stopped"] in ("NOISE", "TOLERANCE", "TABLE")
        assert f"in {row['terms']:.3g} terms" in row["samples"]


def test_the_map_is_better_than_exact_tone_by_tone_and_not_than_lmmse_that_knows_the_channel(rows):
    for own, gain, aware in zip(rows, estimated.gains(rows), estimated.gains(rows, AWARE)):
        assert gain["error"] == own["error"][PER_TONE] / own["error"][MAP] > 1
        assert min(gain["rate"], aware["rate"]) > 0
        assert own["error"][LMMSE] < own["error"][MAP]
    spread = {row["spread"]: row["terms"] for row in rows if row["snr"] == 20}
    assert spread[30e-9] < spread[300e-9]


def test_rows_without_sionna_are_the_same_but_for_it(rows):
    (plain,) = estimated.rows(["16 x 4"], [30e-9], [0], TONES, sionna=False)
    assert plain["error"] == {way: x for way, x in rows[0]["error"].items() if "Sionna" not in way}


@pytest.mark.parametrize("seed", range(3))
def test_irregular_samples_are_recognised(seed):
    for row in estimated.irregular(seed=seed, tones=128):
        assert row["found"] == row["made"]
        assert row["gaps"] == row["left"]
        assert row["after"] < 0.6 * row["before"]
