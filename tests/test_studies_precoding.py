"""The study of precoders: its two rates, its steps, and what it compares, at smoke size."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch

from studies import practice, precoders, provenance, trained_precoders
from studies import precoding_groups as groups
from studies import wireless_precoding as study
from studies.provenance import Record

TONES = 96


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.complex128, generator=generator)


@pytest.fixture(scope="module")
def channel():
    return study.drawn("C", 300e-9, "directional", TONES, 0)


@pytest.fixture(scope="module")
def bands(channel):
    """Channels in double precision, and their exact precoders."""
    H = channel(channel.frequencies).to(torch.complex128)
    return H, precoders.by_gram(H, 4).value


@pytest.fixture(scope="module")
def row(channel):
    return provenance.plain(study.compared(channel, 4, 1e-2, 0), "row")


def test_with_singular_vectors_both_receivers_have_the_rate_of_the_values(bands):
    H, V = bands
    values = torch.linalg.svdvals(H)[:, :4]
    rate = torch.log2(1 + values.square() / (4 * study.NOISE)).sum(dim=1)
    assert torch.allclose(practice.precoded_rate(H, V, study.NOISE), rate, rtol=1e-10)
    assert torch.allclose(study.linear_rate(H, V), rate, rtol=1e-10)


def test_a_turn_of_the_columns_costs_the_linear_receiver_alone(bands):
    H, V = bands
    Q = torch.linalg.qr(randn(4, 4)).Q
    joint = [practice.precoded_rate(H, X, study.NOISE).mean() for X in (V, V @ Q)]
    assert joint[0] == pytest.approx(float(joint[1]), rel=1e-10)
    assert study.linear_rate(H, V @ Q).mean() < 0.99 * study.linear_rate(H, V).mean()


def test_a_basis_is_turned_back_to_singular_vectors(bands):
    H, V = bands
    Q = torch.linalg.qr(randn(4, 4)).Q
    back = study.turned(H, V @ Q)
    assert torch.allclose((back.mH @ V).abs(), torch.eye(4, dtype=torch.float64), atol=1e-6)


def test_each_user_takes_the_streams_of_the_others_as_noise():
    H, V = randn(5, 3, 8), torch.nn.functional.normalize(randn(5, 8, 3, seed=1), dim=1)
    signal = (H @ V).abs().square()
    own = signal.diagonal(dim1=1, dim2=2)
    noise = signal.sum(dim=2) - own + 3 * study.NOISE  # a third of the power for each stream
    assert torch.allclose(study.users_rate(H, V), torch.log2(1 + own / noise).sum(dim=1), rtol=1e-10)


def test_steps_are_those_of_the_largest_and_following_makes_them_least():
    V = torch.linalg.qr(randn(1, 6, 2)).Q.expand(4, -1, -1)
    phases = torch.exp(1j * torch.tensor([0.0, 0.1, 0.1 + math.pi, 0.2 + math.pi], dtype=torch.float64))
    assert study.largest_step(V * phases[:, None, None]) == pytest.approx(2)
    assert study.largest_step(study.followed(V * phases[:, None, None])) < 1e-7
    pairs = study.followed(V * phases[:, None, None], V * phases[:, None, None])
    assert study.largest_step(pairs) < 1e-7


def test_what_is_compared_has_the_solves_that_it_says_and_loses_what_a_sound_way_loses(row):
    most = row["solves"][study.MAP]
    others = set(row["solves"]) - {study.BASES, study.BLOCKS}
    assert row["solves"][study.BLOCKS] == TONES // study.BLOCK
    assert all(row["solves"][way] <= most for way in others)
    assert set(row["joint"]) == set(row["linear"]) == set(row["solves"])
    assert all(-study.ROUNDING < part < 0.01 for part in row["joint"].values())
    assert row["linear"][study.MAP] < 1e-3


def test_the_yardstick_of_steps_is_no_larger_than_what_interpolates(row):
    step = row["step"]
    assert step[study.FOLLOWED] <= min(step[study.RETURNED], step[study.PAIRS]) + 1e-6


def test_the_chapter_at_smoke_size_has_all_its_numbers(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "MODELS", "C")
    record = Record("wireless_precoding", profile="smoke", device="cpu", seed=0)
    study.fill(record, (300e-9,), subcarriers=TONES, tol=1e-2)
    study.ladder(record, 300e-9, (1e-1, 1e-2), subcarriers=TONES)
    assert len(record.numbers["channels"]) == len(record.numbers["users"]) == len(record.numbers["single"]) == 2
    assert record.numbers["ladder"]["solves"][0] <= record.numbers["ladder"]["solves"][1]
    assert all(row["lost"][study.MAP] < 0.01 for row in record.numbers["single"] + record.numbers["users"])


@pytest.fixture(scope="module")
def published():
    return provenance.load(study.SURVEY)


def test_the_published_channels_are_as_the_chapter_says(published):
    study.check(Record("wireless_precoding", profile="smoke", device="cpu", seed=0), published)


@pytest.mark.parametrize(
    ("key", "way", "value"),
    [
        ("linear", study.GEODESIC, 1e-6),
        ("linear", study.SPLINE, 0.1),
        ("linear", study.TURNED, 0.1),
        ("joint", study.LINEAR, 0.1),
        ("step", study.HELD, 1e-4),
    ],
)
def test_a_channel_that_refutes_the_chapter_stops_it(published, key, way, value):
    rows = copy.deepcopy(published.numbers["channels"])
    rows[0][key][way] = value
    with pytest.raises(AssertionError):
        study.check_channels(rows)


def test_tables_name_every_channel(published):
    rows = published.numbers["channels"]
    assert len(study.losses_table(published, "linear").rows) == len(study.steps_table(published).rows) == len(rows)
    assert study.sphere_sentence(published.numbers["single"]).count(str(len(published.numbers["single"])))


@pytest.mark.parametrize("stride", [2, 3, 4, 5, 6, 12, 24])
def test_a_precoder_that_is_exact_at_equally_spaced_tones_alone_is_seen_to_lose(bands, stride):
    H, V = bands
    wrong = V.roll(TONES // 2, 0)
    wrong[::stride] = V[::stride]
    lost = groups.lost(H, V, {"wrong": wrong, "right": V}, study.linear_rate)
    part = 1 - study.linear_rate(H, wrong).mean() / study.linear_rate(H, V).mean()
    assert lost["wrong"] == pytest.approx(float(part), rel=1e-9) and part > 1e-3
    assert abs(lost["right"]) < 1e-12


@pytest.mark.parametrize("tone", [1, 2, 3, 5, 7])
def test_channels_are_judged_at_every_tone(channel, bands, monkeypatch, tone):
    def one_wrong(*_):
        V = bands[1].clone()
        V[tone] = V[TONES - 1 - tone]
        yield study.HELD, V, 1

    monkeypatch.setattr(study, "ways", one_wrong)
    report = SimpleNamespace(exact_solves=1, met=True, events=())
    monkeypatch.setattr(study, "mapped", lambda *_: (bands[1], SimpleNamespace(report=report)))
    found = study.compared(channel, 4, 1e-2, 0)
    assert found["linear"][study.HELD] > 1e-4 > 1e-9 > abs(found["linear"][study.MAP])


def test_bases_that_do_not_step_least_are_counted_and_only_a_spline_may_step_less(published):
    rows = copy.deepcopy(published.numbers["channels"])
    assert study.bases_sentence([]) == "aligned ones on 0 of 0 channels, as a map on 0."
    for row in rows:
        row["step"] |= {study.LINEAR: 1e-9, study.BASES: 2.0}
    count = len(rows)
    assert study.bases_sentence(rows).startswith(f"aligned ones on {count} of {count} channels, as a map on 0. On")
    with pytest.raises(AssertionError, match="mostly"):
        study.check_channels(rows)
    rows = copy.deepcopy(published.numbers["channels"])
    rows[0]["step"] |= {study.LINEAR: 0.5, study.FOLLOWED: 0.4, study.PAIRS: 0.4, study.MAP: 0.4, study.SPLINE: 0.45}
    with pytest.raises(AssertionError, match="passes over"):
        study.check_channels(rows)


def test_steps_of_maps_that_met_their_tolerance_stand_alone():
    good, bad = ({"met": met, "step": {study.MAP: x, study.PAIRS: 0.1}} for met, x in ((True, 0.11), (False, 0.5)))
    assert "at most 1.1 times that of exact pairs." in study.steps_sentence([good])
    assert "On the other 1 it is up to 5 times theirs." in study.steps_sentence([good, bad])


@pytest.fixture(scope="module")
def others():
    """The records of other chapters that the last table shows."""
    return [provenance.load(name) for name in ("beyond_the_inverse_timings", "speed")]


def test_the_records_of_other_chapters_are_as_the_chapter_says(others):
    study.check_paper(*others)
    trained = trained_precoders.rows(provenance.load(trained_precoders.NAME))
    labels = [row[0] for row in study.paper_table(*others, trained).rows]
    assert labels[0].startswith("the paper") and any(label.startswith("in pieces") for label in labels)
    assert labels[1:3] == ["trained, CDL-A, 30 ns", "trained, CDL-C, 30 ns"]


@pytest.mark.parametrize(
    ("which", "path", "value"),
    [
        (0, ("svd", "C100", "faster", "Gram matrix", "map, orthonormal"), [80.0, 90.0, 95.0]),
        (1, ("svd", 2, "Gram: with the fit"), [80.0, 90.0, 95.0]),
    ],
)
def test_a_record_that_refutes_the_last_section_stops_it(others, which, path, value):
    changed = copy.deepcopy(others)
    place = changed[which].numbers
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(AssertionError):
        study.check_paper(*changed)


@pytest.mark.parametrize(
    ("ratio", "word"),
    [([10.6, 11.0, 12.0], "reached"), ([8.0, 9.0, 9.4], "not reached"), ([9.0, 11.0, 12.0], "not decided")],
)
def test_that_the_papers_factor_is_reached_follows_from_quartiles(others, ratio, word):
    closed, pieces = copy.deepcopy(others[:2])
    closed.numbers["svd"]["C100"]["faster"]["NumPy loop"]["map, orthonormal"] = ratio
    for entry in pieces.numbers["svd"]:
        entry["NumPy loop: after"] = [20.0, 21.0, 22.0]
    first, second = study.paper_sentences(closed, pieces).split(" In pieces ")
    told = first.removeprefix("In closed form after the fit it is ").split(", and with")[0]
    assert ("100 ns" in told.split(f"{word} at ")[1]) and second.startswith("after the fit it is reached at ")
    closed.numbers["svd"]["C100"]["faster"]["NumPy loop"]["map, orthonormal"] = [math.nan] * 3
    assert "not timed at 100 ns" in study.paper_sentences(closed, pieces)


def test_blocks_that_lose_less_than_the_map_are_named(published):
    rows = copy.deepcopy(published.numbers["channels"])
    for row in rows:
        row["linear"][study.BLOCKS] = 0.5
    assert "on none of the" in study.blocks_sentence(rows)
    good = next(row for row in rows if row["met"])
    good["linear"][study.BLOCKS], good["linear"][study.MAP] = 1e-4, 2e-4
    assert f"the map on {study.name(good)} of the" in study.blocks_sentence(rows)


# Groups of resource blocks


@pytest.fixture(scope="module")
def grouped():
    """What groups lose on one channel of each kind, in a band that has six of the larger ones."""
    record = Record("wireless_precoding", profile="smoke", device="cpu", seed=0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(study, "MODELS", "C")
        groups.fill(record, (100e-9, 300e-9), subcarriers=288)
    return record


def test_finer_groups_lose_less_and_have_the_solves_that_they_say(grouped):
    found = grouped.numbers["groups"]
    assert found["counts"] == {"one block": 24, "two blocks": 12, "four blocks": 6, "whole band": 1}
    for _, own in groups.lines(grouped):
        assert own[groups.FINE] < own[groups.FINEST] < own[groups.COARSE] < own[groups.WHOLE]
    for row in found["channels"]:
        assert set(row["joint"]) == set(row["linear"]) == {*groups.SIZES, *groups.MEANS.values()}
        assert row["joint"][groups.COARSE] < row["linear"][groups.COARSE]
    for row in found["users"]:
        assert set(row["rates"]) == {"0.1", "0.01", "0.001"} and set(row["quieter"]) == {"0.01", "0.001"}
        for noise in groups.QUIETER:
            own = groups.at(row, noise)
            assert own[groups.FINE] < own[groups.FINEST] < own[groups.COARSE]
    several = groups.users_table(grouped).rows
    assert len(several) == 12 and several[-1][:2] == ["CDL-C, omni, 300 ns", "0.001"]
    rows = groups.table(grouped).rows
    assert len(rows) == 8 and rows[-1][0] == "eight users, CDL-C, omni, 300 ns" and rows[-1][-1] == ""


def test_one_precoder_for_all_tones_is_that_of_the_mean_gram_matrix(bands):
    H, _ = bands
    V = precoders.of_mean_gram(H, 4)
    sent = torch.linalg.vector_norm(H @ V, dim=(1, 2)).square().sum()
    Q = torch.linalg.qr(randn(64, 4)).Q
    held = practice.group_precoders(H, 4, len(H))
    assert all(torch.linalg.vector_norm(H @ X, dim=(1, 2)).square().sum() < sent for X in (Q, held))
    assert torch.allclose(V.mH @ V, torch.eye(4, dtype=V.dtype).expand(len(V), 4, 4))
    for bad, setting in (("`rank`", {"rank": 65}), ("`size`", {"rank": 4, "size": 0})):
        with pytest.raises(ValueError, match=bad):
            precoders.of_mean_gram(H, **setting)


def test_each_group_has_the_precoder_of_its_own_mean_gram_matrix(bands):
    H, _ = bands
    V = precoders.of_mean_gram(H[:40], 4, 16)  # the last group has eight tones
    for start in (0, 16, 32):
        own = slice(start, min(start + 16, 40))
        alone = precoders.of_mean_gram(H[own], 4)
        assert torch.allclose(V[own] @ V[own].mH, alone @ alone.mH, atol=1e-8)


def test_less_noise_is_that_of_rates_and_of_the_regularisation(grouped):
    row = grouped.numbers["groups"]["users"][-1]
    channel = study.drawn("C", 300e-9, "omni", 288, 0, user_antennas=1, users=study.USERS)
    H = channel(channel.frequencies).to(torch.complex128)
    gram = H @ H.mH + study.USERS * groups.QUIETEST * torch.eye(study.USERS, dtype=H.dtype)
    V = torch.nn.functional.normalize(H.mH @ torch.linalg.inv(gram), dim=1)
    best = study.users_rate(H, V, groups.QUIETEST).mean()
    assert row["rates"]["0.001"] == pytest.approx(float(best), rel=1e-9)
    wide = V[torch.arange(288) // 48 * 48 + 24]  # four blocks, the middle of each
    part = 1 - study.users_rate(H, wide, groups.QUIETEST).mean() / best
    assert groups.at(row, groups.QUIETEST)[groups.COARSE] == pytest.approx(float(part), rel=0.05)
    assert study.users_rate(H, V, groups.QUIETEST).mean() > row["rates"]["0.01"] > row["rates"]["0.1"]


def test_one_user_is_judged_with_less_noise_at_the_longest_delay_that_is_no_stress_test(grouped):
    rows = groups.with_noises(grouped)
    assert [row["delay"] for row in rows] == [300e-9] * 2
    parts = [groups.better(groups.at(row, s), groups.COARSE) for row in rows for s in groups.QUIETER]
    assert groups.most_quieter(grouped, groups.COARSE) == study.lost_text(max(parts))
    most = max(groups.at(row, groups.QUIETEST)[groups.COARSE] for row in grouped.numbers["groups"]["users"])
    told = groups.most(grouped, groups.COARSE, part="users", noise=groups.QUIETEST)
    assert told == study.lost_text(most)


def test_the_models_that_lose_most_are_named_for_each_size_and_delay(grouped):
    assert groups.largest_sentence(grouped) == "Up to 300 ns CDL-C loses most with two blocks and with four blocks."
    other = copy.deepcopy(grouped)
    row = copy.deepcopy(other.numbers["groups"]["channels"][0]) | {"model": "A", "delay": 1e-6}
    row["linear"] |= {groups.FINEST: 0.1, groups.MEANS[groups.FINEST]: 0.1}
    second = copy.deepcopy(row) | {"model": "D"}
    second["linear"] |= {groups.FINEST: 0.2, groups.MEANS[groups.FINEST]: 0.2, groups.COARSE: 0.0}
    other.numbers["groups"]["channels"] += [row, second]
    assert groups.largest_sentence(other).endswith(
        "; at 1,000 ns CDL-D loses most with two blocks, and CDL-A with four blocks."
    )
    assert "bit/s/Hz at 0.1, " in groups.users_rates(grouped) and groups.users_rates(grouped).endswith(" at 0.001")


def test_sentences_on_groups_follow_from_the_record(grouped):
    rows = [row["linear"] for row in grouped.numbers["groups"]["channels"]]
    mean = groups.MEANS[groups.COARSE]
    assert groups.most(grouped, groups.COARSE) == study.lost_text(max(min(x[groups.COARSE], x[mean]) for x in rows))
    assert groups.by_middles(grouped, groups.COARSE) == study.lost_text(max(x[groups.COARSE] for x in rows))
    counts = [sum(x[groups.MEANS[name]] < x[name] for x in rows) for name in (groups.FINEST, groups.COARSE)]
    assert groups.means_sentence(grouped) == (
        f"The mean Gram matrix is the better one up to 300 ns on {counts[0]} of 4 channels with two blocks and on "
        f"{counts[1]} with four blocks."
    )
    assert groups.late(grouped).startswith("From a delay spread of 300 ns on the latest paths come after")
    assert "2.6 µs at 300 ns" in groups.late(grouped)
    early = copy.deepcopy(grouped)
    for row in early.numbers["groups"]["channels"]:
        row["latest"] = 1e-6
    assert groups.late(early).startswith("No path comes after")
    assert groups.times_more(grouped).endswith(" times")


@pytest.mark.parametrize(
    ("part", "way", "value"),
    [
        ("linear", groups.FINE, 0.3),
        ("linear", groups.COARSE, 1e-5),
        ("linear", groups.WHOLE, 1e-5),
        ("joint", groups.COARSE, 0.3),
        ("lost", groups.FINE, 0.9),
        ("lost", groups.FINEST, 2e-4),
        ("one user, 0.01", groups.COARSE, 1e-3),
        ("one user, 0.001", groups.FINEST, 1e-4),
        ("users, 0.01", groups.FINE, 1e-5),
        ("users, 0.01", groups.COARSE, 0.2),
        ("users, 0.001", groups.FINEST, 1e-3),
        ("short, 0.001", groups.FINEST, 5e-3),
        ("short", groups.FINEST, 6e-3),
    ],
)
def test_groups_that_refute_the_chapter_stop_it(part, way, value):
    sizes, own = (*groups.SIZES, *groups.MEANS.values()), [1e-4, 3e-4, 2e-3, 0.05, 3e-4, 3e-3, 0.04]
    joint, linear = dict(zip(sizes, [x / 2 for x in own])), dict(zip(sizes, own))
    place = {"model": "D", "pattern": "omni", "delay": 300e-9}
    louder = {s: dict(zip(sizes, [x * times for x in own])) for s, times in (("0.01", 2), ("0.001", 2.5))}
    quieter = {s: dict(zip(sizes, [x * times for x in own])) for s, times in (("0.01", 4), ("0.001", 50))}
    users = place | {"lost": dict(zip(sizes, [1.1 * x for x in own])), "quieter": quieter}
    row = place | {"latest": 3e-6, "joint": joint, "linear": linear, "quieter": louder}
    near = copy.deepcopy([row | {"latest": 1e-6}, users])
    for one in near:
        one["delay"] = groups.SHORT
    record = Record("wireless_precoding", profile="cpu", device="cpu", seed=0)
    record.numbers["groups"] = {"channels": [near[0], row], "users": [near[1], users]}
    groups.check(record)
    places = {
        **{"lost": users["lost"], "joint": joint, "linear": linear, "short": near[1]["lost"]},
        **{f"one user, {s}": own for s, own in louder.items()},
        **{f"users, {s}": own for s, own in quieter.items()},
        **{f"short, {s}": own for s, own in near[1]["quieter"].items()},
    }
    places[part][way] = value
    with pytest.raises(AssertionError):
        groups.check(record)


def test_less_noise_that_costs_one_user_more_without_a_line_of_sight_stops_the_chapter(grouped):
    record = copy.deepcopy(grouped)
    groups.check_noises(record)  # CDL-C
    groups.with_noises(record)[0]["quieter"]["0.01"] |= dict.fromkeys((groups.COARSE, groups.MEANS[groups.COARSE]), 0.5)
    with pytest.raises(AssertionError, match="line of sight"):
        groups.check_noises(record)


def test_a_ladder_that_refutes_the_chapter_stops_it():
    ways = (study.MAP, study.SPLINE, study.HELD, study.LINEAR, study.GEODESIC, study.TURNED)
    falls = {way: [1e-3, 1e-4] for way in ways}
    level = falls | {study.LINEAR: [2e-2, 2e-2], study.GEODESIC: [2e-2, 1.9e-2]}
    study.check_ladder({"joint": falls, "linear": level})
    for key, way, value in (("linear", study.LINEAR, [2e-2, 1e-3]), ("joint", study.HELD, [1e-3, 1e-3])):
        wrong = {"joint": dict(falls), "linear": dict(level)}
        wrong[key][way] = value
        with pytest.raises(AssertionError):
            study.check_ladder(wrong)
