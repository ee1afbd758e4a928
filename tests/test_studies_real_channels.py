"""The chapter on real channels, at smoke size: what it compares, and that records that refute it stop it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import neumatc as nm
from studies import estimated, figures, provenance
from studies import real_channels as study
from studies.estimated import BLIND, LMMSE, MAP, MISMATCHED, PER_TONE, PROFILED, SMOOTH


@pytest.fixture(scope="module")
def record():
    """A record of small bands and two draws."""
    found = provenance.Record("real_channels", profile="smoke", device="cpu", seed=0)
    study.noisy(found)
    study.noisy(found, study.LARGE, study.SPREADS[:1])
    study.sionna_itself(found)
    study.drops(found)
    study.traced(found)
    study.slots(found)
    study.irregular(found)
    return found


def changed(record, place, key, value):
    """Return a record with another value at a place of its numbers."""
    found = copy.deepcopy(record)
    entry = found.numbers
    for name in place:
        entry = entry[name]
    entry[key] = value
    return found


@pytest.mark.slow
def test_the_text_holds_of_a_small_record(record):
    study.check(record)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        (("sionna",), LMMSE, 1e-3),
        (("noisy", study.SMALL, 0, "error", MAP), 0, 9.0),
        (("noisy", study.SMALL, 0, "error", LMMSE), 1, 9.0),
        (("noisy", study.SMALL, 2, "rate", MAP), 0, 0.01),
        (("noisy", study.SMALL, 1, "error", SMOOTH), 0, 9.0),
        (("munich", 0, "sum"), SMOOTH, 0.1),
        (("drops", 0, "sum"), study.BY_USER, 0.1),
        (("munich", 1, "sum"), study.OWN, 0.1),
        (("drops", 1, "sum"), study.ONE, 0.999),
        (("slots", 0, "grid", 0), 1, 0.9),
        (("slots", 3, "rate", 0), study.GRID, 0.1),
        (("slots", 0, "rate", 1), study.AVERAGED, 0.9),
        (("slots", 1, "averaged"), 0, [0.9] * 4),
        (("slots", 4, "averaged"), 0, [0.01] * 2),
        (("slots", 5, "rate", 0), study.AVERAGED, 0.99),
        (("slots", 2, "rate", 1), study.LINE, 0.9),
        (("irregular", "blocks of 20 MHz"), "found", 2),
        (("irregular", "nulls and guards"), "gaps", 5),
        (("irregular", "steps of the gain, small"), "wrong", 1),
    ],
)
def test_a_record_that_refutes_the_chapter_stops_it(record, place, key, value):
    with pytest.raises(AssertionError):
        study.check(changed(record, place, key, value))


def test_every_row_has_all_draws(record):
    point = record.numbers["noisy"][study.SMALL][0]
    assert {len(point[key]) for key in ("terms", "solves")} == {2}
    assert {len(values) for key in ("error", "rate") for values in point[key].values()} == {2}
    assert point["error"][BLIND] != point["error"][MAP]


def test_tables_and_figures_show_the_record(record):
    ways, large = study.ways_table(record), study.large_table(record)
    assert [row[0] for row in ways.rows] == [*study.KNOWS]
    assert len(large.rows) == 2 and large.rows[0][0] == "30 ns, 0 dB"
    assert [row[0] for row in study.irregular_table(record).rows] == [*study.PLANTED]
    assert len(study.drops_table(record).rows) == 8
    slots = study.slots_table(record)
    assert [row[0] for row in slots.rows][:2] == ["3 km/h, 2", "3 km/h, 4"]
    assert slots.header[2] == f"noise left, %: {study.AVERAGED}" and slots.header[-2] == f"rate, %: {study.LINE}"
    figures.style()
    for draw in (study.error_figure, study.terms_figure):
        assert figures.faults(draw(record)) == []


def test_settings_in_which_the_map_is_beaten_are_named(record):
    assert study.beaten(record, MISMATCHED) == []
    lost = changed(record, ("noisy", study.SMALL, 0, "rate"), MISMATCHED, [1.0, 1.0])
    assert study.beaten(lost, MISMATCHED) == ["30 ns with 0 dB"]


def test_a_fitted_profile_is_told_by_the_settings_it_wins_and_loses(record):
    place = ("noisy", study.SMALL)
    points = copy.deepcopy(record.numbers["noisy"][study.SMALL])
    for i, point in enumerate(points):
        point["error"][PROFILED] = [x * (0.5 if i else 2) for x in point["error"][MAP]]
        point["rate"][PROFILED] = [x + (0.01 if i > 1 else -0.01) for x in point["rate"][MAP]]
    told = study.profile_sentence(changed(record, place[:1], place[1], points))
    assert told == (
        f"has less error than the map in {len(points) - 1} of {len(points)} settings, and keeps more of the rate in "
        f"{len(points) - 2}; it keeps less of it at 30 ns with 0 dB and 30 ns with 20 dB"
    )
    for point in points:
        point["rate"][PROFILED] = [x + 0.01 for x in point["rate"][MAP]]
    told = study.profile_sentence(changed(record, place[:1], place[1], points))
    assert told.endswith(f"more of the rate in {len(points)}")


def test_how_far_a_map_is_from_its_samples_is_told(record):
    points = copy.deepcopy(record.numbers["noisy"][study.SMALL])
    for point, more in zip(points, (0.012, -0.02, *[0.0] * len(points))):
        point["error"][SMOOTH] = [1.0, 1.0]
        point["error"][MAP] = [1.0, 1 + more]
    assert study.apart_sentence(points) == "differ by at most 2 %"
    points[1]["error"][MAP][0] = 1.16
    assert study.apart_sentence(points) == "differ by at most 1.2 %, but at 30 ns with 20 dB by up to 16 %"


@pytest.fixture(scope="module")
def symbols():
    """Return the channel (T, N, m, n) along a line of symbols, and its estimates at four of them."""
    random = np.random.default_rng(0)
    drawn = estimated.estimate(study.SMALL, 30e-9, 10, 96)
    t, at, turn = np.arange(14.0), [2, 5, 8, 11], estimated.estimate(study.SMALL, 30e-9, 10, 96, seed=1).H
    H = drawn.H + 0.1 * (t - 3)[:, None, None, None] * turn
    E = random.normal(size=(4, *drawn.A.shape, 2)) @ [1, 1j] * (drawn.v / 2) ** 0.5
    return H, [replace(drawn, H=H[i], A=H[i][::2] + e) for i, e in zip(at, E)], t, at


def test_symbols_that_say_the_same_are_averaged(symbols):
    H, drawn, *_ = symbols
    still = [replace(own, A=own.A - H[i][::2] + H[3][::2]) for own, i in zip(drawn, (2, 5, 8, 11))]
    one = nm.families.from_samples(still[0].pilots, still[0].A, noise=still[0].v)(estimated.inside(still[0]))
    left = [np.mean(np.abs(X - H[3]) ** 2) for X in (study.averaged(still), one)]
    assert left[0] < left[1] / 2


def test_lines_follow_what_changes_at_one_rate(symbols):
    H, drawn, t, at = symbols
    found = study.lines_through(drawn, t, at)
    within = slice(at[0], at[-1] + 1)
    v = drawn[0].v
    assert np.mean(np.abs(found - H)[within] ** 2) < v / 4 < np.mean(np.abs(study.averaged(drawn) - H)[within] ** 2)
    assert np.allclose(np.diff(found[within], 2, axis=0), 0, atol=1e-12)
    assert np.array_equal(found[0], found[2]) and np.array_equal(found[-1], found[11]), "held at the ends"


def test_lines_through_estimates_without_noise_are_exact(symbols):
    H, drawn, t, at = symbols
    exact = [replace(own, A=H[i][::2], v=1e-12) for own, i in zip(drawn, at)]
    found = study.lines_through(exact, t, at)[2:12, :-1:2]
    assert np.linalg.norm(found - H[2:12, ::2]) < 1e-4 * np.linalg.norm(H[2:12, ::2])


def test_ways_over_a_slot_are_told_beside_the_grid():
    rate = {study.GRID: 0.99, study.LINE: 0.988, study.AVERAGED: 0.95}
    own = {"speed": 3, "alone": [[0.4, 0.2], [0.3, 0.3]], "line": [[0.1, 0.1], [0.1, 0.1]], "rate": [rate, rate]}
    assert study.less_noise(own, "line") == pytest.approx(3)
    assert study.apart_from_grid([own], study.LINE) == pytest.approx(0.002)
    assert study.at_speed([own, own | {"speed": 30}], 3) == [own]


def test_an_array_collects_energy():
    assert [round(study.array_gain(size), 2) for size in (study.SMALL, study.LARGE)] == [12.04, 18.06]


def test_jumps_are_counted_in_their_place():
    row = {"made": [3, 9], "found": [3, 5], "left": 1, "gaps": 0, "before": 0.2, "after": 0.1, "samples": "x"}
    found = study.counted([row, row])
    assert [found[key] for key in ("made", "found", "wrong", "left", "gaps")] == [4, 2, 2, 2, 0]


@pytest.fixture(scope="module")
def far():
    """Two users 30 dB apart, of one path each, and their estimate."""
    delays = torch.tensor([[0.0], [3e-7]], dtype=torch.float64)
    paths = torch.ones(2, 1, 4, 1, dtype=torch.complex128) * torch.tensor([1.0, 10**-1.5])[:, None, None, None]
    f = torch.arange(64, dtype=torch.float64)[:, None] * estimated.SPACING
    channel = nm.wireless.Channel(paths, delays, 0.0, f.max().item(), frequencies=f)
    return estimated.at_pilots(channel, 0.01, 0)


def test_users_have_covariances_of_their_own(far):
    """Of one path it has rank one, and tells the channel up to a number."""
    for user in range(2):
        R, h = estimated.covariance(far, user=user), far.H[:, 0, user]
        assert np.allclose(R, np.outer(h, h.conj()) / np.abs(h[0]) ** 2)
    errors = {true: np.abs(study.by_covariances(far, true) - far.H) ** 2 for true in (True, False)}
    assert errors[True].mean() < errors[False].mean() < far.v


def test_users_have_profiles_of_their_own(far):
    """The weaker user of one late path needs another decay than the stronger one of one early path."""
    both = study.by_profiles(far)
    for k in range(2):
        alone = replace(far, H=far.H[:, :, [k]], A=far.A[:, :, [k]])
        assert np.array_equal(both[:, :, [k]], estimated.by_profile(alone))
    assert estimated.fitted_decay(replace(far, A=far.A[:, :, [0]]))[0] == estimated.DECAYS[0]
    assert estimated.fitted_decay(replace(far, A=far.A[:, :, [1]]))[0] > estimated.DECAYS[0]
    assert (np.abs(both - far.H) ** 2).mean() < far.v


def test_a_user_alone_gets_the_terms_it_deserves(far):
    (one, common), (found, terms) = (study.splines(far, alone) for alone in (False, True))
    assert found.shape == one.shape == far.H.shape and len(terms) == 2 and len(common) == 1
    errors = [(np.abs(own - far.H) ** 2).mean() for own in (found, one)]
    assert errors[0] < errors[1] < 0.5 * far.v and terms[0] <= common[0]


def test_rates_sum_to_the_sum_rate(far):
    W = estimated.filters(far.H, far.v)
    total = nm.wireless.sum_rate(torch.from_numpy(far.H), torch.from_numpy(W), far.v).mean()
    assert study.rates(far.H, W, far.v).sum() == pytest.approx(float(total), rel=1e-10)


@pytest.fixture
def large():
    """The published points of the larger array."""
    return provenance.load("real_channels_study").numbers["noisy"][study.LARGE]


def test_the_larger_array_is_as_the_chapter_says(large):
    study.check_large(large)


@pytest.mark.parametrize(
    ("key", "way", "value"),
    [
        ("error", MAP, 9.0),
        ("error", LMMSE, 9.0),
        ("error", SMOOTH, 9.0),
        ("rate", PER_TONE, 1.0),
        ("rate", MAP, 1.0),
    ],
)
def test_a_larger_array_that_refutes_the_chapter_stops_it(large, key, way, value):
    large[0][key][way] = [value] * len(large[0][key][way])
    with pytest.raises(AssertionError):
        study.check_large(large)


@pytest.mark.parametrize(("at", "way"), [(-1, SMOOTH), (0, MAP)])
def test_a_map_of_the_larger_array_costs_rate_with_the_longest_delays_and_the_least_noise_alone(large, at, way):
    large[at]["rate"][MAP] = [own - (way == MAP) * 0.1 for own in large[at]["rate"][way]]
    large[at]["rate"][PER_TONE] = [0.0] * len(large[at]["rate"][PER_TONE])
    with pytest.raises(AssertionError, match="costs rate"):
        study.check_large(large)


@pytest.fixture
def full():
    """A record of all settings, in which a fitted profile is nearer everywhere, and keeps less with little noise."""
    found = provenance.Record("real_channels", profile="smoke", device="cpu", seed=0)
    error = {PER_TONE: 0.4, MISMATCHED: 0.2, MAP: 0.1, PROFILED: 0.08}
    found.numbers["noisy"] = {
        study.SMALL: [
            {
                "spread": spread,
                "snr": snr,
                "error": {way: [x, x] for way, x in error.items()},
                "rate": {MAP: [0.95, 0.95], PROFILED: [0.97 if snr < 30 else 0.94] * 2},
            }
            for spread in study.SPREADS
            for snr in study.SNRS
        ]
    }
    return found


def test_where_a_fitted_profile_may_keep_less_is_told_by_noise_and_delay(full):
    assert study.less_rate_sentence(full) == "though at 30 and 40 dB it may keep less of the rate, also at short delays"
    for point in full.numbers["noisy"][study.SMALL]:
        if point["spread"] < study.SPREADS[-1] or point["snr"] < 40:
            point["rate"][PROFILED] = [0.97, 0.97]
    assert study.less_rate_sentence(full) == "though at 40 dB it may keep less of the rate"
    full.numbers["noisy"][study.SMALL][-1]["rate"][PROFILED] = [0.97, 0.97]
    assert study.less_rate_sentence(full) == "and keeps more of the rate in all of them"


@pytest.mark.parametrize(
    ("at", "key", "way", "value"),
    [
        (4, "error", PROFILED, 0.11),
        (4, "error", MISMATCHED, 0.09),
        (4, "error", MISMATCHED, 0.5),
        (2, "rate", PROFILED, 0.9),
        (6, "rate", PROFILED, 0.9),  # the setting of the tables
    ],
)
def test_a_profile_that_refutes_the_chapter_stops_it(full, at, key, way, value):
    study.check_estimators(full)
    full.numbers["noisy"][study.SMALL][at][key][way] = [value, value]
    with pytest.raises(AssertionError):
        study.check_estimators(full)
