"""Maps of receivers beside their peers: counts of solves, errors, times, and words that follow from records."""

import copy
import math

import pytest
import torch
from conftest import gaussian

from studies import figures, receivers, tones, wireless_noise
from studies import wireless_receivers as study
from studies.provenance import Record, plain
from studies.texts import UNTOLD

FAST, EVEN, SLOW, UNKNOWN = [3.0, 4.0, 5.0], [0.9, 1.0, 1.1], [0.4, 0.5, 0.6], [math.nan] * 3
TONES = 96
CONDITIONS = {"refused": "", "date": "2026-11-29", "rounds": 5, "threads": 1, "attempts": 1, "processor": "x"}
CONDITIONS |= {"load_before": 0.1, "load_during": 0.01}


def way(error, solves=100, refused=""):
    return {"solves": solves, "error": error, "worst": error, "loss": error**2, "refused": refused}


def ways_of(band, everything):
    """What a map and its peers do on a band: the map loses a little, blocks the more the longer the delays."""
    eight = band.task == study.EIGHT
    found = {
        study.MAP: 1e-2,
        study.BLOCKS: (0.05 if band.omni else 0.04) * (band.spread / study.NOMINAL) ** 1.1,
        study.HELD: 0.2,
    }
    found |= {study.LINEAR: 0.05, study.CUBIC: 5e-3, study.DFT: 0.1, study.NEIGHBOUR: 1e-3 if eight else 0.1}
    if everything:
        found |= dict.fromkeys(study.BLIND, 0.3) | {study.CHOLESKY: 1e-6, study.SIONNA: 1e-6, study.WINDOW: 6e-3}
        found |= {study.LAURENT: 0.2, study.QR: math.nan, study.GRAM: 0.1}
    rows = {name: way(error) for name, error in found.items()}
    rows[study.BLOCKS]["solves"] = 273
    if everything:
        rows[study.QR]["refused"] = "`H`: no determinants above zero"
    return rows


def linear_steps(error):
    """Linear interpolation on the ladder, its error at the step of one solve in 48 tones and at finer ones."""
    solves = {rung: -(-3276 // rung) for rung in (*study.RUNGS, *study.FINER)}
    return {study.stepped(study.LINEAR, rung): way(0.5 if rung > 48 else error, n) for rung, n in solves.items()}


@pytest.fixture
def record():
    """A record of the form and the size of the chapter's, in which all is as its text says."""
    rows, times = [], []
    for band in study.bands():
        everything = not band.omni and math.isclose(band.spread, study.ALL)
        solves = {0: 100, 1: 200, 2: 500, 3: 2000}[study.SPREADS.index(band.spread)]
        own = {"solves": solves, "met": True, "count": 3276, "ways": ways_of(band, everything)}
        own["steps"] = linear_steps(0.1 if band.spread > study.ALL else 1e-2)
        rows.append(band.entry | own)
        over = dict.fromkeys((study.CHOLESKY, study.SIONNA, study.BLOCKS, study.CUBIC), SLOW)
        over |= {study.CHOLESKY: FAST if band.task == study.MANY else SLOW}
        times.append(band.entry | {"over": over, "conditions": CONDITIONS})
    numbers = {"bands": rows, "band_times": times, "tols": list(study.TOLS), "rungs": list(study.RUNGS)}
    found = Record("wireless_inversion", profile="cpu", device="cpu", seed=0, numbers=numbers)
    steps = {name: way(0.1 / 2**i) for i, name in enumerate(study.ways_up(found, study.MAP))}
    for i, peer in enumerate(study.STEPPED):
        base = {study.DFT: 0.9, study.CUBIC: 0.01}.get(peer, 0.1 + 0.01 * i)
        falls = [0.9, 0.4, 0.5, 0.6, 0.7] if peer == study.DFT else [base / 3**k for k in range(5)]
        steps |= {name: way(error) for name, error in zip(study.ways_up(found, peer), falls)}
    over = dict.fromkeys((*steps, study.CHOLESKY, study.SIONNA), EVEN)
    over |= {name: [0.1, 0.2, 0.3] for name in study.tried(found)}
    beside = {name: SLOW if name.startswith((study.CUBIC, study.HELD)) else FAST for name in over}
    numbers["ladder"] = {task: copy.deepcopy(steps) for task in study.TASKS}
    numbers["ladder_times"] = {
        task: {"over": dict(over), "over the map": dict(beside), "conditions": CONDITIONS} for task in study.TASKS
    }
    return found


def untimed(record):
    changed = copy.deepcopy(record)
    refused = CONDITIONS | {"refused": "other work"}
    for row in [*changed.numbers["band_times"], *changed.numbers["ladder_times"].values()]:
        row["conditions"] = refused
        for key in ("over", "over the map"):
            row[key] = dict.fromkeys(row.get(key, ()), UNKNOWN)
    return changed


# What is computed


@pytest.fixture(scope="module")
def channel():
    """A smooth channel for two streams: three taps on the grid of a band that is a circle."""
    t = torch.arange(TONES, dtype=torch.float64)[:, None, None]
    taps = gaussian(3, 4, 2, dtype=torch.complex128, seed=0)
    return sum(torch.exp(-2j * math.pi * k * t / TONES) * tap for k, tap in enumerate(taps)).to(torch.complex64)


def test_a_map_meets_its_tolerance_and_counts_its_solves(channel):
    exact = tones.lmmse(channel.to(torch.complex128), study.NOISE)
    for tol in (0.3, 1e-2):
        found, met = study.fitted(channel, study.NOISE, tol=tol)
        error = torch.linalg.vector_norm(found.value - exact) / torch.linalg.vector_norm(exact)
        assert met and error < tol and 0 < found.solves <= TONES


def test_blocks_take_one_solve_for_twelve_tones_whatever_is_asked(channel):
    found = study.blocks(channel, study.NOISE, 3)
    assert found.solves == TONES // 12
    assert torch.equal(found.value, receivers.held(channel, study.NOISE, TONES // 12).value)


def test_a_window_that_is_too_large_is_refused_and_its_row_says_so(channel, monkeypatch):
    monkeypatch.setattr(study, "WIDEST", 20)
    assert study.window(channel, study.NOISE, 20).solves == 20
    rows = study.judged_rows(channel, 21, {study.WINDOW: study.peer(study.WINDOW)})
    assert "at most 20" in rows[study.WINDOW]["refused"] and math.isnan(rows[study.WINDOW]["error"])
    assert study.both(rows[study.WINDOW]) == "refused"


def test_peers_get_the_solves_of_the_map(channel):
    band = study.Band(study.EIGHT, study.ALL, False)
    row = study.line(band, channel, every_peer=False)
    ways = row["ways"]
    assert row["met"] and row["count"] == TONES and list(ways) == [study.MAP, study.BLOCKS, *study.BESIDE]
    assert ways[study.MAP]["solves"] == row["solves"] == ways[study.HELD]["solves"] == ways[study.CUBIC]["solves"]
    assert ways[study.DFT]["solves"] <= row["solves"] and ways[study.BLOCKS]["solves"] == TONES // 12
    every = tones.coprime(TONES, row["solves"], study.EVERY)
    exact = tones.lmmse(channel.to(torch.complex128), study.NOISE)[::every]
    W = receivers.held(channel, study.NOISE, row["solves"]).value[::every]
    error = torch.linalg.vector_norm(W - exact) / torch.linalg.vector_norm(exact)
    assert ways[study.HELD]["error"] == pytest.approx(float(error), rel=1e-4)


def test_all_peers_are_run_where_asked(channel):
    ways = study.line(study.Band(study.EIGHT, study.ALL, False), channel, every_peer=True)["ways"]
    assert set(ways) == {study.MAP, study.BLOCKS, *receivers.PEERS}


def test_steps_of_the_ladder_have_their_solves(channel):
    steps = study.steps(channel, (0.1,), (24, 12))
    assert len(steps) == 1 + 2 * len(study.STEPPED)
    assert steps[study.stepped(study.HELD, 12)](channel, study.NOISE, TONES).solves == TONES // 12
    assert steps[study.stepped(study.CUBIC, 24)](channel, study.NOISE, TONES).solves == TONES // 24
    assert steps[study.stepped(study.MAP, 0.1)](channel, study.NOISE, TONES).solves <= TONES


@pytest.mark.slow
def test_the_chapter_at_a_small_size_has_all_that_it_shows():
    record = Record("wireless_inversion", profile="smoke", device="cpu", seed=0)
    study.lines(record, (study.SHORT, study.ALL), subcarriers=48, rungs=(12,))
    study.ladder(record, subcarriers=48, tols=(0.1,), rungs=(12,))
    assert all(list(row["steps"]) == study.tried(record) for row in record.numbers["bands"])
    study.line_times(record, subcarriers=48, rounds=1)
    study.ladder_times(record, subcarriers=48, rounds=1)
    record.numbers = plain(record.numbers, "numbers")
    assert len(record.numbers["bands"]) == len(record.numbers["band_times"]) == 8
    assert all("1 round" in row["conditions"]["refused"] for row in record.numbers["band_times"])


# What is shown


def test_tables_have_a_line_for_each_band(record):
    for task in study.TASKS:
        rows = study.bands_table(record, task).rows
        assert [row[0] for row in rows[:2]] == ["directional, 30 ns", "directional, 100 ns"] and len(rows) == 8
        assert rows[0][2] == "1e-02 / 1e-04"
    assert len(study.times_table(record).rows) == 16
    assert study.times_table(record).rows[0][2] == "0.5 (0.4 to 0.6)"
    assert study.times_table(untimed(record)).rows[0][2] == "not timed"
    rows = {row[0]: row[1:] for row in study.peers_table(record).rows}
    assert list(rows) == list(study.every_peer(record, study.EIGHT)["ways"])
    assert rows[study.QR] == ["", "refused"] * 2 and rows[study.BLOCKS][0] == "273"


def test_a_map_that_misses_its_tolerance_is_named(record):
    record.numbers["bands"][0]["met"] = False
    assert study.bands_table(record, study.EIGHT).rows[0][1] == "100, not met"


def test_in_equal_time_a_peer_has_its_best_step_that_is_no_slower(record):
    over = record.numbers["ladder_times"][study.EIGHT]["over the map"]
    names = study.ways_up(record, study.CUBIC)
    over[names[-1]] = [0.9, 1.0, 1.1]  # perhaps slower: does not count
    steps = record.numbers["ladder"][study.EIGHT]
    assert study.within(record, study.EIGHT, study.CUBIC) == steps[names[-2]]
    assert study.within(record, study.EIGHT, study.LINEAR) is None
    rows = {row[0]: row[1:] for row in study.equal_time_table(record).rows}
    assert rows[study.LINEAR] == ["", "slower"] * 2 and rows[study.CUBIC][1] == study.both(steps[names[-2]])
    assert {row[1] for row in study.equal_time_table(untimed(record)).rows[1:]} == {""}
    assert {row[2] for row in study.equal_time_table(untimed(record)).rows[1:]} == {"not timed"}


@pytest.mark.parametrize("name", ["headline_figure", "rate_figure", "solves_figure", "equal_time_figure"])
def test_figures_can_be_read(record, name):
    figures.style()
    assert figures.faults(getattr(study, name)(record)) == []


@pytest.mark.parametrize("name", ["headline_figure", "equal_time_figure"])
def test_figures_of_refused_times_are_not_drawn(record, name, capsys):
    getattr(study, name)(untimed(record))
    assert figures.UNDRAWN in capsys.readouterr().out


def test_words_follow_from_the_record(record):
    found, unknown = dict(study.said(record)), dict(study.said(untimed(record)))
    assert found["wi-tally-cholesky"].startswith("faster in 8 of 16 problems and slower in 8")
    assert found["wi-tally-blocks"].startswith("slower in 16 of 16")
    assert "0.5 (0.4 to 0.6) times as fast on 30 ns" in found["wi-eight-cholesky"]
    assert found["wi-finer"] == 16 and found["wi-map-lost"] == "1e-04" and found["wi-blocks"] == 273
    assert found["wi-eight-in-time"].endswith("2 of 6 peers lose less than it: held and cubic spline.")
    assert unknown["wi-tally-cholesky"] == "not timed" and unknown["wi-eight-in-time"] == UNTOLD
    assert set(found) == set(unknown)
    clocks = {key for key in found if found[key] != unknown[key]}
    assert {"wi-finer", "wi-map-lost", "wi-blocks-long", "wi-eight-blind"}.isdisjoint(clocks)


def test_where_no_peer_is_better_in_the_time_of_the_map_it_says_so(record):
    slow = record.numbers["ladder_times"][study.MANY]["over the map"]
    slow |= dict.fromkeys(slow, FAST)
    assert dict(study.said(record))["wi-many-in-time"] == "No peer loses less than the map in its time."


# What is asserted


def test_a_record_that_is_as_the_text_says_passes(record):
    study.check(record)
    study.check(untimed(record))


@pytest.mark.parametrize(
    ("at", "way", "change"),
    [
        (0, None, {"met": False}),
        (0, study.MAP, {"loss": 2e-3}),
        (0, study.BLOCKS, {"loss": 2e-3}),
        (2, study.BLOCKS, {"loss": 1e-5}),
        (3, study.BLOCKS, {"loss": 1e-5}),
        (0, None, {"solves": 300}),
        (3, None, {"solves": 900}),
        (5, study.CUBIC, {"error": 0.06}),
        (5, study.LINEAR, {"error": 0.3}),
        (1, study.NEIGHBOUR, {"error": 0.01}),
        (9, study.NEIGHBOUR, {"error": 1e-3}),
        (2, study.CHOLESKY, {"error": 1e-2}),
        (2, study.LAURENT, {"error": 6e-3}),
        (2, study.QR, {"refused": "", "loss": 0.1}),
        (2, study.GRAM, {"loss": 1e-9}),
        (2, study.BLIND[0], {"loss": 1e-3}),
        (2, study.WINDOW, {"error": 0.1}),
        (0, study.DFT, {"solves": 3000}),
        (0, study.DFT, {"refused": "no"}),
    ],
)
def test_a_record_that_refutes_the_text_stops_the_page(record, at, way, change):
    row = record.numbers["bands"][at]
    (row if way is None else row["ways"][way]).update(change)
    with pytest.raises(AssertionError):
        study.check(record)


def test_blocks_that_lose_less_with_omnidirectional_users_stop_the_page(record):
    first, other = (record.numbers["bands"][i]["ways"][study.BLOCKS] for i in (0, 4))
    first["loss"], other["loss"] = other["loss"], first["loss"]
    with pytest.raises(AssertionError, match="directional"):
        study.check(record)


def test_a_map_that_is_faster_than_cholesky_at_long_delays_stops_the_page(record):
    record.numbers["band_times"][2]["over"][study.CHOLESKY] = FAST
    with pytest.raises(AssertionError, match="few streams"):
        study.check(record)


def test_the_fewest_filters_that_are_enough_follow_from_the_record(record):
    rows = study.enough_table(record).rows
    assert rows[0] == ["LMMSE 64 x 8", "directional, 30 ns", "69", "1e-04", "0.2 (0.1 to 0.3)", "1e-04"]
    assert rows[3][2:5] == ["more than tried", "", ""] and len(rows) == 16
    assert study.enough_table(untimed(record)).rows[0][4] == "not timed"
    record.numbers["bands"][1]["steps"] = {
        name: own if own["solves"] > 500 else own | {"loss": 0.5}
        for name, own in record.numbers["bands"][1]["steps"].items()
    }
    for row in record.numbers["bands"][4:8]:
        row["steps"] = linear_steps(0.5)
    assert study.take_sentence(record, study.EIGHT) == (
        "Eight streams: with directional users 69 to 546 exact filters are enough, but none of them at 1,000 ns; "
        "with omnidirectional users no number that was tried is."
    )


def test_what_is_left_to_exact_filters_follows_from_the_record(record):
    left = [f"{n} streams ({users}, 1,000 ns)" for n in ("eight", "32") for users in ("directional", "omni")]
    assert study.left_sentence(record).startswith(f"That leaves {', '.join(left[:3])} and {left[3]}: there take")
    for row in record.numbers["bands"]:
        row["steps"] = linear_steps(1e-2)
    assert study.left_sentence(record) == "It is on every band, in less time than batched Cholesky."
    assert study.left_sentence(untimed(record)) == "It is on every band; not all its times are known."


def test_numbers_of_filters_without_a_time_are_named_with_their_bands(record):
    assert study.untimed_sentence(record) == "All these numbers were timed."
    for row in record.numbers["bands"][:2]:
        row["steps"] = linear_steps(0.5) | {study.stepped(study.LINEAR, 4): way(1e-2, 819)}
    del record.numbers["ladder_times"][study.EIGHT]["over"][study.stepped(study.LINEAR, 4)]
    assert study.untimed_sentence(record) == (
        "On 2 bands it takes 819, one in 4, which was not timed: "
        "eight streams (directional, 30 ns) and eight streams (directional, 100 ns)."
    )


def test_how_often_the_map_is_faster_and_the_spline_more_accurate_is_counted(record):
    assert study.beside_spline(record) == (
        "The map is faster than Cholesky on 8 bands. If you know how many solves your channels need, on 16 of all 16 "
        "bands a cubic spline through as many has the smaller error, and on 8 of these 8."
    )
    record.numbers["bands"][8]["ways"][study.MAP]["error"] = 1e-3
    record.numbers["band_times"][9]["over"][study.CHOLESKY] = EVEN  # on neither side: not faster
    said = study.beside_spline(record)
    assert "on 7 bands" in said and "on 15 of all 16" in said and said.endswith("on 6 of these 7.")
    assert "faster" not in study.beside_spline(untimed(record))


@pytest.mark.parametrize("at", [2, 6])
def test_linear_interpolation_that_is_not_enough_stops_the_page(record, at):
    record.numbers["bands"][at]["steps"] = linear_steps(0.5)
    with pytest.raises(AssertionError, match="few streams: linear"):
        study.check(record)


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        (study.stepped(study.LINEAR, 6), SLOW),
        (study.stepped(study.CUBIC, 96), [0.1, 0.1, 0.1]),
        (study.stepped(study.MAP, study.TOL), [0.1, 0.1, 0.1]),
    ],
)
def test_linear_interpolation_that_is_slow_stops_the_page(record, name, ratio):
    record.numbers["ladder_times"][study.MANY]["over"][name] = ratio
    with pytest.raises(AssertionError, match="time|spline|map"):
        study.check(record)


def test_a_spline_that_is_seldom_better_stops_the_page(record):
    for row in record.numbers["bands"][:3]:
        row["ways"][study.MAP]["error"] = 1e-3
    with pytest.raises(AssertionError, match="most bands"):
        study.check(record)


@pytest.mark.parametrize(
    ("peer", "step", "error"), [(study.HELD, 2, 1.0), (study.DFT, -1, 0.3), (study.CUBIC, -1, 0.009)]
)
def test_a_ladder_that_refutes_the_text_stops_the_page(record, peer, step, error):
    name = study.ways_up(record, peer)[step]
    record.numbers["ladder"][study.MANY][name]["error"] = error
    with pytest.raises(AssertionError):
        study.check(record)


def test_a_small_record_is_not_judged_by_words_about_a_whole_band(record):
    small = Record("wireless_inversion", profile="smoke", device="cpu", seed=0, numbers=record.numbers)
    small.numbers["bands"][0]["ways"][study.MAP]["loss"] = 0.5
    study.check(small)


# With less noise


@pytest.fixture
def quieter(record):
    """The record, with what its filters lose at all levels: ten times as much for each 20 dB."""
    grown = [1e-4, 1e-3, 1e-2, 1e-1]
    levels = [
        {"way": way, "spread": at, "levels": [{"solves": 69, "loss": lost, "met": True} for lost in grown]}
        for way, at in [(study.BLOCKS, 30e-9), *((w, s) for w in (study.LINEAR, study.MAP) for s in (30e-9, 3e-7))]
    ]
    record.numbers["levels"] = levels
    return record


def test_at_ten_decibels_a_rate_lost_is_that_of_the_chapter(channel):
    peers = {study.HELD: receivers.held}
    (row,) = receivers.compared(channel, study.NOISE, 12, peers, calls=1, every=study.EVERY)
    assert wireless_noise.noise(10) == study.NOISE
    levels = (1e-1, 1e-2, 1e-3, 1e-4)
    lost = [study.judged_rows(channel, 12, peers, s)[study.HELD]["loss"] for s in levels]
    assert lost[0] == study.judged_rows(channel, 12, peers)[study.HELD]["loss"] == pytest.approx(row.loss, rel=1e-6)
    assert lost == sorted(lost) and lost[0] > 0


def test_ways_are_measured_at_all_levels():
    record = Record("wireless_inversion", profile="smoke", device="cpu", seed=0)
    study.lines(record, (study.SHORT, study.ALL), subcarriers=48, rungs=(12,))
    record.numbers["rungs"] = [12]
    wireless_noise.measure(record, subcarriers=48)
    found = record.numbers["levels"]
    assert [(entry["way"], entry["spread"]) for entry in found] == [
        *((study.BLOCKS, study.SHORT), (study.LINEAR, study.SHORT), (study.LINEAR, study.ALL)),
        *((study.MAP, study.SHORT), (study.MAP, study.ALL)),
    ]
    assert all(len(entry["levels"]) == len(wireless_noise.LEVELS) for entry in found)
    assert [own["solves"] for own in found[0]["levels"]] == [4] * 4
    wireless_noise.check(record)


def test_what_less_noise_costs_is_shown_and_said(quieter):
    rows = wireless_noise.table(quieter).rows
    assert rows[0] == [study.BLOCKS, "30 ns", "69", "1e-04", "1e-03", "1e-02", "1e-01"] and len(rows) == 5
    assert wireless_noise.sentence(quieter) == (
        "With the numbers of exact filters that lose at most 0.01 % of the rate at 10 dB, one for each block and "
        "linear interpolation lose all 10 % of it at 40 dB. "
        "The map, at the same tolerance, loses up to 0.01 % and 10 %."
    )
    wireless_noise.check(quieter)


@pytest.mark.parametrize(
    ("entry", "level", "change"),
    [
        (0, 0, {"loss": 2e-3}),
        (1, 2, {"loss": 2e-5}),
        (1, 3, {"loss": 9e-4}),
        (3, 3, {"loss": 9e-4}),
        (3, 1, {"met": False}),
    ],
)
def test_filters_that_stay_enough_with_less_noise_stop_the_page(quieter, entry, level, change):
    quieter.numbers["levels"][entry]["levels"][level].update(change)
    with pytest.raises(AssertionError):
        wireless_noise.check(quieter)
