"""The study of precoders: its two rates, its steps, and what it compares, at smoke size."""

import copy
import math

import pytest
import torch

from studies import practice, precoders, provenance
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


def test_steps_of_maps_that_met_their_tolerance_stand_alone():
    good, bad = ({"met": met, "step": {study.MAP: x, study.PAIRS: 0.1}} for met, x in ((True, 0.11), (False, 0.5)))
    assert "at most 1.1 times that of exact pairs." in study.steps_sentence([good])
    assert "On the other 1 it is up to 5 times theirs." in study.steps_sentence([good, bad])


@pytest.fixture(scope="module")
def others():
    """The records of other chapters that the last table shows."""
    return [provenance.load(name) for name in ("beyond_the_inverse_timings", "speed", "synthetic_experiments")]


def test_the_records_of_other_chapters_are_as_the_chapter_says(others):
    study.check_paper(*others)
    labels = [row[0] for row in study.paper_table(*others, provenance.load("synthetic_timings")).rows]
    assert labels[0].startswith("the paper") and any(label.startswith("in pieces") for label in labels)


@pytest.mark.parametrize(
    ("which", "path", "value"),
    [
        (0, ("svd", "C30", "faster", "NumPy loop", "map, orthonormal"), [8.0, 9.0, 9.5]),
        (1, ("svd", 2, "NumPy loop: after"), [8.0, 9.0, 9.5]),
        (1, ("svd", 2, "Gram: with the fit"), [80.0, 90.0, 95.0]),
        (2, ("timed_svd", 0, "error"), 1e-3),
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
