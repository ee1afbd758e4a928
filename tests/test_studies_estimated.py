"""The study of estimated channels, at smoke size: what it compares, and that it compares it rightly."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad

from studies import estimated
from studies.estimated import AWARE, BLIND, LINEAR, LMMSE, MAP, MISMATCHED, NEAREST, PER_TONE, PROFILED, SMOOTH

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


@pytest.mark.parametrize("lag", [0.0, 3e5, -4e6])
def test_the_covariance_of_a_profile_is_its_fourier_transform(lag):
    decay = 1e-7

    def part(wave):
        return quad(lambda x: np.exp(-x) * wave(2 * np.pi * lag * decay * x), 0, 60, limit=200)[0]

    assert estimated.exponential(np.array(lag), decay) == pytest.approx(part(np.cos) - 1j * part(np.sin), abs=1e-7)


@pytest.fixture
def gaussian(drawn):
    """An estimate of a channel whose entries have an exponential profile, of a decay of the list; and that decay."""
    decay, count = estimated.DECAYS[9], len(drawn.f)
    R = estimated.exponential(drawn.f[:, None] - drawn.f, decay)
    values, vectors = np.linalg.eigh(R)
    rng = np.random.default_rng(5)
    white = rng.normal(size=(count, 64, 2)) @ [1, 1j] / 2**0.5
    H = (vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * white)).reshape(count, 16, 4)
    E = rng.normal(size=(*H[::2].shape, 2)) @ [1, 1j]
    v = 0.05
    return replace(drawn, H=H, A=H[::2] + (v / 2) ** 0.5 * E, v=v), decay


def test_the_likeliest_decay_is_that_of_the_samples(gaussian):
    own, decay = gaussian
    found, power = estimated.fitted_decay(own)
    assert decay / 1.31 < found < decay * 1.31  # its neighbours in the list
    assert power == pytest.approx(np.mean(np.abs(own.H) ** 2), rel=0.05)
    best = estimated.smoothed_by(estimated.exponential(own.f[:, None] - own.f, decay), own.v, own.A)
    fitted, knowing, blind = (
        np.linalg.norm(H - own.H) for H in (estimated.by_profile(own), best, estimated.by_covariance(own, MISMATCHED))
    )
    assert fitted < 1.05 * knowing and fitted < blind


def test_a_fitted_profile_sees_the_samples_alone(gaussian):
    own, _ = gaussian
    other = replace(own, H=np.zeros_like(own.H), channel=None)
    assert np.array_equal(estimated.by_profile(own), estimated.by_profile(other))
    none = replace(own, A=np.zeros_like(own.A))
    assert np.abs(estimated.by_profile(none)).max() == 0


def test_exact_filters_of_smoothed_samples_are_those_of_their_family(drawn):
    _, _, family = estimated.mapped(drawn)
    found = estimated.smooth(drawn, family)
    assert np.allclose(found[::2], estimated.filters(family(drawn.pilots), drawn.v), rtol=1e-12, atol=1e-12)
    assert np.array_equal(found[-1], found[-2])  # held beyond the last pilot


def test_a_map_adds_nothing_to_the_samples_that_it_is_fitted_to(rows):
    for own in rows:
        for key in ("error", "rate"):
            assert own[key][SMOOTH] == pytest.approx(own[key][MAP], rel=0.05)
        assert own["error"][LMMSE] < own["error"][PROFILED] < own["error"][PER_TONE]


def test_rows_are_plain_and_complete(rows):
    assert [(row["spread"], row["snr"]) for row in rows] == [(30e-9, 0), (30e-9, 20), (300e-9, 0), (300e-9, 20)]
    for row in rows:
        every = {PER_TONE, AWARE, NEAREST, LINEAR, LMMSE, MISMATCHED, PROFILED, MAP, SMOOTH, BLIND}
        assert set(row["error"]) == set(row["rate"]) == every
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


def test_rows_without_estimators_are_the_same_but_for_them(rows):
    (plain,) = estimated.rows(["16 x 4"], [30e-9], [0], TONES, sionna=False)
    assert plain["error"] == {way: x for way, x in rows[0]["error"].items() if way not in estimated.ESTIMATORS}


@pytest.mark.parametrize("seed", range(3))
def test_irregular_samples_are_recognised(seed):
    for row in estimated.irregular(seed=seed, tones=128):
        assert row["found"] == row["made"]
        assert row["gaps"] == row["left"]
        assert row["after"] < 0.6 * row["before"]
