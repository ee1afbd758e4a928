"""The study of links: receivers that are what they say, runs that go on after a kill, and their statistics."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import eps
from scipy.stats import binomtest
from sionna.phy.mimo import StreamManagement
from sionna.phy.ofdm import LMMSEEqualizer

import neumatc as nm
from studies import figures, link_level, link_pages, provenance
from studies.link_level import (
    BLOCK,
    ESTIMATED,
    EXACT,
    HELD,
    KNOWN,
    LINEAR,
    PER_BLOCK,
    RESCALED,
    SMOOTHED,
    TOLD,
    Point,
    Setting,
    Size,
)

SMALL = Size(tones=48, slots=2, coded=96, message=48)
LINK = Setting("CDL-C 300 ns", 2)


def noisy(link, no=0.3):
    """Received signals of random symbols, and what the link's receiver knows."""
    H = link_level.channels(link.setting.channel, 0, link.size)
    generator = torch.Generator().manual_seed(1)
    shape = (link.size.slots, 1, H.shape[2], link_level.SYMBOLS, link.size.tones)
    y, no = torch.randn(shape, dtype=H.dtype, generator=generator), torch.tensor(no)
    if link.setting.csi == ESTIMATED:
        return y, *link.estimator(y, no), no
    h = H.permute(0, 2, 3, 1)[:, None, :, :, None, None].expand(-1, -1, -1, -1, -1, link_level.SYMBOLS, -1)
    return y, h, torch.zeros((1,) * 7), no


# Receivers


@pytest.mark.parametrize("csi", [KNOWN, ESTIMATED])
def test_the_exact_receiver_is_that_of_sionna(csi):
    link = link_level.Link(Setting("UMi drop", 4, csi), SMALL)
    given = noisy(link)
    theirs = LMMSEEqualizer(link.grid, StreamManagement(np.ones((1, link_level.USERS), int), 1))(*given)
    for own, other in zip(link.exact(*given), theirs, strict=True):
        # They factorise matrices of 16 antennas, whose condition number is about that of the signal over the noise.
        torch.testing.assert_close(own, other, rtol=0, atol=1000 * eps(torch.float32) * float(other.abs().max()))


def test_a_block_whose_maps_meet_no_tolerance_is_the_exact_receiver():
    link = link_level.Link(LINK, SMALL, tol=1e-9)
    given = noisy(link)
    for own, other in zip(link.block(*given), link.exact(*given), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=100 * eps(torch.float32) * float(other.abs().max()))
    assert link.block.report.exact


def test_the_study_takes_maps_of_filters_that_are_small():
    link = link_level.Link(LINK, SMALL)
    link.block(*noisy(link))
    assert not link.block.report.exact and link.block.report.solves > 0


@pytest.mark.parametrize("receiver", PER_BLOCK)
def test_one_filter_for_a_resource_block_is_exact_on_a_flat_channel_alone(receiver):
    link = link_level.Link(LINK, SMALL)
    y, h, err_var, no = noisy(link)
    flat = h[..., :1].expand_as(h)
    for channel, same in ((flat, True), (h, False)):
        found = link_level.per_block(receiver, y, channel, err_var, no, link.grid)
        for own, other in zip(found, link.exact(y, channel, err_var, no)):
            assert (float((own - other).abs().max()) < 1e-5) == same


@pytest.mark.parametrize(("receiver", "first"), [(HELD, 6), (RESCALED, 6), (LINEAR, 0)])
def test_one_filter_for_a_resource_block_is_exact_at_its_own_tone(receiver, first):
    link = link_level.Link(LINK, SMALL)
    given = noisy(link)
    found, exact = link_level.per_block(receiver, *given, link.grid), link.exact(*given)
    for own, other in zip(found, exact):
        off = (own - other).abs().unflatten(-1, (-1, SMALL.tones))
        assert float(off[..., first :: link_level.PRB].max()) < 1e-5


def test_a_held_filter_of_own_gain_leaves_a_lone_user_as_it_was():
    link = link_level.Link(LINK, SMALL)
    _, h, err_var, no = noisy(link)
    alone = h[:, :, :, 0, 0]
    x, _ = link_level.per_block(RESCALED, alone, h, err_var, no, link.grid)
    assert float((x[:, 0] - 1).abs().max()) < 1e-4


def test_smoothed_estimates_are_nearer_and_know_their_error():
    link = link_level.Link(Setting("CDL-C 30 ns", 2, ESTIMATED), Size(96, 2, 96, 48))
    H = link_level.channels("CDL-C 30 ns", 0, link.size).permute(0, 2, 3, 1)[:, None, :, :, None, None]
    no = torch.tensor(0.05)
    x = torch.zeros((2, link_level.USERS, 1, link.grid.num_data_symbols), dtype=torch.complex64)
    y = (H[:, 0, :, :, 0] * link.mapped(x)[:, None, :, 0]).sum(dim=2)[:, None]
    noise = torch.randn((*y.shape, 2), generator=torch.Generator().manual_seed(0))
    y = y + torch.view_as_complex(noise) * (no / 2).sqrt()
    (h, told), (theirs, _) = link_level.smoothed(y, float(no), link.grid), link.estimator(y, no)
    own, other = (float((found - H).abs().square().mean()) for found in (h, theirs))
    assert own < other / 2
    assert own / 2 < float(told.mean()) < own * 2


# Simulation


def test_batches_are_repeated_and_differ():
    first, again = (link_level.simulate(link_level.Link(LINK, SMALL), 5.0, 0) for _ in range(2))
    assert first == again
    assert set(first["lost"]) == {EXACT, BLOCK, *PER_BLOCK}
    assert first["lost"] != link_level.simulate(link_level.Link(LINK, SMALL), 5.0, 1)["lost"]


def test_no_block_is_lost_without_noise_and_all_are_in_much():
    link = link_level.Link(Setting("CDL-C 30 ns", 6, ESTIMATED), SMALL)
    blocks = SMALL.slots * link_level.USERS
    for snr_db, digit in ((60.0, "0"), (-20.0, "1")):
        lost = link_level.simulate(link, snr_db, 0)["lost"]
        assert lost == dict.fromkeys((EXACT, BLOCK, *PER_BLOCK, TOLD, SMOOTHED), digit * blocks)


@pytest.mark.parametrize(("name", "value"), [("channel", "CDL-C"), ("bits", 3), ("csi", "none")])
def test_unknown_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}`: expected one of"):
        Setting(**{"channel": "UMi drop", "bits": 2, name: value})


def test_the_block_keeps_what_its_tolerance_says():
    """On almost all tones: a map may exceed its tolerance on one per cent of them."""
    found = link_level.sinr_losses("CDL-C 30 ns", 8.0, size=Size(slots=1, tones=1024))
    assert 0 < found["mean"] < 10 * math.log10(1 + link_level.TOL**2)
    assert found["above"] < 0.02
    assert found["largest"] < 10 * 10 * math.log10(1 + link_level.TOL**2)


# Runs that go on


def batches(path):
    return json.loads(path.read_text("utf-8"))["batches"]


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(tmp_path, monkeypatch):
    whole = Point(LINK, 0.0, SMALL, tmp_path / "whole")
    for batch in range(3):
        whole.add(link_level.simulate(link_level.Link(LINK, SMALL), 0.0, batch))
    real, errors = link_level.simulate, int(whole.lost(EXACT).sum())
    monkeypatch.setattr(link_level, "next_level", lambda found, *_: None if found and found[0.0].done(errors) else 0.0)

    def killed(link, snr_db, batch):
        if batch == 1:
            raise KeyboardInterrupt
        return real(link, snr_db, batch)

    monkeypatch.setattr(link_level, "simulate", killed)
    with pytest.raises(KeyboardInterrupt):
        link_level.advance([LINK], 60, tmp_path / "killed", SMALL, errors)
    assert len(Point(LINK, 0.0, SMALL, tmp_path / "killed").batches) == 1
    monkeypatch.setattr(link_level, "simulate", real)
    assert link_level.advance([LINK], 60, tmp_path / "killed", SMALL, errors) == []
    assert batches(Point(LINK, 0.0, SMALL, tmp_path / "killed").path) == batches(whole.path)


def test_a_run_that_is_killed_as_it_writes_leaves_the_batches_before(tmp_path, monkeypatch):
    point = fake(tmp_path, 0.0, ["0" * 8])

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            point.add(sent(1, "1" * 8))
    assert [batch["batch"] for batch in fake(tmp_path, 0.0, []).batches] == [0]
    with pytest.raises(ValueError, match="`batch`: expected number 1, got 2"):
        fake(tmp_path, 0.0, []).add(sent(2, "1" * 8))


def test_batches_of_another_size_are_refused(tmp_path):
    fake(tmp_path, 0.0, ["0" * 8])
    with pytest.raises(ValueError, match="move it away"):
        Point(LINK, 0.0, Size(), tmp_path)


def test_time_that_is_over_stops_a_run(tmp_path):
    assert link_level.advance([LINK], 0, tmp_path, SMALL) == [LINK]
    assert not list(tmp_path.iterdir())


# Statistics


def sent(batch, exact, block=None, **others):
    return {
        "batch": batch,
        "lost": dict.fromkeys((EXACT, *PER_BLOCK, TOLD), exact) | {BLOCK: block or exact} | others,
        BLOCK: {"exact": "", "solves": 9, "pieces": 1},
        SMOOTHED: {"exact": "", "solves": 7, "pieces": 1},
    }


def fake(place, level, lost, setting=LINK, **others):
    point = Point(setting, level, SMALL, place)
    for text in lost:
        point.add(sent(len(point.batches), text, **others))
    return point


@pytest.mark.parametrize(("lost", "blocks"), [(0, 10), (3, 50), (100, 1000), (7, 7)])
def test_intervals_are_those_of_clopper_and_pearson(lost, blocks):
    theirs = binomtest(lost, blocks).proportion_ci(0.95, "exact")
    assert link_level.interval(lost, blocks) == pytest.approx((theirs.low, theirs.high), rel=1e-6)


def test_a_shifted_curve_is_lost_by_its_shift():
    """Blocks are lost below a threshold of their own, the other receiver's half a step later."""
    rng = np.random.default_rng(3)
    threshold, levels = rng.logistic(3.0, 1.0, size=(4000, 4)), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    exact, other = ([threshold + shift > level for level in levels] for shift in (0.0, 0.5))
    low, value, high = link_level.losses(levels, exact, other, 200)
    assert abs(value - 0.5) < 0.1
    assert low < value < high < low + 0.5
    assert link_level.losses(levels, exact, exact, 50) == (0.0, 0.0, 0.0)
    assert all(map(math.isnan, link_level.losses(levels[:2], exact[:2], other[:2], 50)))


def beside(rows, receiver=BLOCK):
    """Points two decibels apart, of what the exact receiver lost, of how many, and what one of two alone lost."""
    keys = ("lost", "more", "fewer")
    return [
        {
            "snr_db": 4.0 + 2 * i,
            "blocks": blocks,
            "receivers": {EXACT: {"lost": lost}, receiver: dict(zip(keys, (lost + more - fewer, more, fewer)))},
        }
        for i, (lost, blocks, more, fewer) in enumerate(rows)
    ]


def test_where_no_block_tells_receivers_apart_the_interval_has_its_exact_width():
    """With none of N the limit of Clopper and Pearson is 1 - 0.025 ** (1 / N)."""
    low, high = link_level.exact_ends(beside([(103, 512, 0, 0), (100, 3328, 0, 0)]), BLOCK)
    slope = math.log((103 / 512) / (100 / 3328)) / 2
    assert -low == pytest.approx(high, rel=1e-12) == pytest.approx(-math.log(0.025) / 203 / slope, rel=1e-9)
    assert link_level.settled(beside([(103, 512, 0, 0), (100, 3328, 0, 0)]), BLOCK, [0.0] * 3) == [low, 0.0, high]


def test_both_directions_have_their_own_limit():
    found = beside([(120, 400, 1, 0), (100, 1100, 2, 1)])
    slope = math.log((120 / 400) / (100 / 1100)) / 2
    more, fewer = (binomtest(count, 223).proportion_ci(0.95, "exact").high for count in (3, 1))
    assert link_level.exact_ends(found, BLOCK) == pytest.approx(
        (math.log(1 - fewer) / slope, -math.log(1 - more) / slope), rel=1e-6
    )


@pytest.mark.parametrize(
    "rows",
    [
        [(120, 400, 3, 0), (100, 1100, 1, 1)],  # enough of them for a bootstrap
        [(120, 400, 0, 0), (115, 1100, 0, 0)],  # the curve does not come to the level
        [(10, 400, 0, 0), (9, 1100, 0, 0)],  # it begins below it
    ],
)
def test_other_intervals_are_left_as_they_are(rows):
    assert link_level.exact_ends(beside(rows), BLOCK) is None
    assert link_level.settled(beside(rows), BLOCK, (-0.1, 0.0, 0.1)) == [-0.1, 0.0, 0.1]


def test_blocks_at_other_points_do_not_count_and_an_unknown_loss_stays_unknown():
    ends = beside([(300, 400, 9, 9), (120, 400, 0, 0), (100, 1100, 0, 0), (100, 9000, 9, 9)])
    assert link_level.exact_ends(ends, BLOCK) == pytest.approx(link_level.exact_ends(ends[1:3], BLOCK), rel=1e-12)
    assert all(map(math.isnan, link_level.settled(ends, BLOCK, [math.nan] * 3)))


@pytest.mark.parametrize("share", [0.002, 0.01, 0.015])
def test_exact_ends_miss_the_truth_as_rarely_as_they_say(share):
    """Of N lost blocks a true share is lost by the other receiver alone; its upper end may lie below in 2.5 %."""
    lost, draws = 200, 4000
    found = [beside([(100, 400, m, 0), (lost - 100 - m, 1100, 0, 0)]) for m in range(link_level.FEW)]
    truth = -math.log1p(-share)
    slopes = [math.log((100 / 400) / (own[1]["receivers"][EXACT]["lost"] / 1100)) / 2 for own in found]
    ends = [link_level.exact_ends(own, BLOCK)[1] * slope for own, slope in zip(found, slopes)]
    counts = np.random.default_rng(0).binomial(lost, share, draws)
    missed = sum(m < link_level.FEW and ends[m] < truth for m in counts) / draws
    assert missed < 0.025 + 4 * (0.025 / draws) ** 0.5


def test_a_published_record_gets_exact_intervals_by_its_counts_alone(both, monkeypatch):
    record = recorded(copy.deepcopy(both))
    before = copy.deepcopy([own["loss"] for own in record.numbers["curves"]])
    for own in record.numbers["curves"]:
        own["loss"][BLOCK] = [0.0, 0.0, 0.0]
    monkeypatch.setattr(provenance, "load", lambda chapter: record)
    monkeypatch.setattr(provenance, "keep", lambda kept: Path(kept.chapter))
    for _ in range(2):
        assert link_level.renew_intervals() == Path("link_level")
        assert [own["loss"] for own in record.numbers["curves"]] == before
    (source,) = record.provenance["anew"].values()
    assert source["command"].endswith("--intervals") and source["date"]


def test_levels_go_on_until_all_curves_are_crossed(tmp_path):
    link, most, some, few = Setting("UMi drop", 2, ESTIMATED), "1" * 8, "1" + "0" * 7, "0" * 8

    def following():
        found = link_level.points(link, SMALL, tmp_path)
        return link_level.next_level(found, link, errors=1)

    start, step = link_level.START[ESTIMATED][2], link_level.STEP
    assert following() == start
    point = fake(tmp_path, start, [few], link, **{SMOOTHED: few})
    assert following() == start  # no error yet
    point.add(sent(1, most, **{SMOOTHED: few}))
    assert following() == start - step  # smoothed estimates lose too little to begin with
    fake(tmp_path, start - step, [most], link, **{SMOOTHED: most})
    assert following() == start + step
    fake(tmp_path, start + step, [few, few, some], link, **{SMOOTHED: few})
    assert following() is None


def test_points_tell_what_one_receiver_lost_and_the_other_did_not(tmp_path):
    found = link_level.compared(fake(tmp_path, 0.0, ["11000000"], block="10110000"))
    assert (found["blocks"], found["slots"]) == (8, 2)
    own = found["receivers"][BLOCK]
    assert (own["lost"], own["more"], own["fewer"], own["inside"]) == (3, 2, 1, True)
    assert (own["solves"], own["left"]) == (9, 0)
    assert not link_level.compared(fake(tmp_path / "far", 0.0, ["0" * 8], block="1" * 8))["receivers"][BLOCK]["inside"]


# Pages


def drawn(tmp_path, setting, block_late=0.0, smooth_late=-1.0, held_late=0.0, levels=(2.0, 4.0, 6.0, 8.0)):
    """A curve whose receivers lose a block below a threshold of its own, each later than the exact one by some dB."""
    threshold, found = np.random.default_rng(0).logistic(4.0, 1.0, size=3000 * 4), {}
    for level in levels:
        late = (0, block_late, smooth_late, held_late)
        texts = ["".join(map(str, (threshold + x > level).astype(int))) for x in late]
        others = {SMOOTHED: texts[2], HELD: texts[3]}
        found[level] = fake(tmp_path / str(setting), level, texts[:1], setting, block=texts[1], **others)
    return link_level.curve(setting, found, count=50)


def recorded(curves, tones=48):
    """A record of some curves, as `publish` makes it."""
    record = provenance.Record("link_level", profile="smoke", device="cpu", seed=0)
    sinr = {"snr_db": 8.0, "mean": 1e-4, "largest": 0.02, "above": 0.001, "variance": 0.01, "solves": 30}
    there = {f"{own['channel']}, {own['modulation']}, {own['csi']}" for own in curves}
    record.numbers |= {
        "curves": curves,
        "missing": [str(setting) for setting in link_level.SETTINGS if str(setting) not in there],
        "sinr": [sinr | {"channel": channel} for channel in link_level.CHANNELS],
        "sizes": {"tones": tones, "slots": 2, "coded": 96, "users": 4, "tol": 0.05, "errors": 100},
    }
    return record


UMI = {csi: Setting("UMi drop", 4, csi) for csi in (KNOWN, ESTIMATED)}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A known and an estimated channel; the smoothed receiver is better by one dB."""
    place = tmp_path_factory.mktemp("both")
    return [drawn(place, UMI[csi]) for csi in (KNOWN, ESTIMATED)]


def test_pages_show_a_record(both):
    figures.style()
    record = recorded(both)
    link_pages.check(record)
    rows = link_pages.table(record).rows
    assert [row[0] for row in rows] == [f"UMi drop, 16-QAM, {csi} channel" for csi in (KNOWN, ESTIMATED)]
    low, high = link_level.exact_ends(record.numbers["curves"][0]["points"], BLOCK)
    assert rows[0][2:5] == ["4 of 4", "0 / 0", link_pages.decibels([low, 0.0, high])] and low < 0 < high
    assert "On 2 curves of 2, fewer than 5 blocks" in link_pages.exact_sentence(record)
    assert rows[0][-1] == "" and rows[1][-1].startswith("-1.")
    # A logistic law of scale one: its logarithm falls by nearly one for each dB where few are lost.
    assert link_pages.resolution(record.numbers["curves"][0]) == pytest.approx(1 / link_level.ERRORS, rel=0.3)
    figure = link_pages.figure(record)
    assert len(figure.axes) == 2 and figures.faults(figure) == []


@pytest.mark.parametrize("count", [1, 2, 24])
def test_pages_tell_of_any_number_of_curves(both, count):
    """One known channel, a known and an estimated one, all 24 settings."""
    settings = link_level.SETTINGS if count == 24 else [UMI[KNOWN], UMI[ESTIMATED]][:count]
    curves = []
    for setting in settings:
        own = copy.deepcopy(both[setting.csi == ESTIMATED])
        curves.append(own | {"channel": setting.channel, "modulation": link_level.MODULATIONS[setting.bits]})
    record = recorded(curves)
    link_pages.check(record)
    link_pages.glue_all(record)
    noisy = sum(own["csi"] == ESTIMATED for own in curves)
    assert link_pages.covered(record).startswith(f"This record has curves of {count} of 24 settings, ")
    assert ("all are complete" in link_pages.covered(record)) == (count == 24)
    assert f"{noisy or 'none'} of them with estimated" in link_pages.covered(record)
    assert f"kept on {count} curve" in link_pages.loss_sentence(record)
    told = link_pages.smoothing(record)
    assert ("not simulated yet" in told["finding"]) == (noisy == 0)
    assert noisy == 0 or f"better on {noisy} curve" in told["gain"]
    assert (link_pages.followed_sentence(record) == "") == (noisy == 0)


def test_a_bar_is_kept_missed_or_not_settled_by_the_interval(both):
    losses = {"kept": [-0.01, 0.0, 0.02], "missed": [0.021, 0.03, 0.04], "not settled": [0.0, 0.01, 0.03]}
    curves = [copy.deepcopy(both[0]) for _ in losses]
    for own, loss in zip(curves, losses.values()):
        own["loss"][BLOCK] = loss
    curves[1]["channel"] = "CDL-C 300 ns"
    told = link_pages.loss_sentence(recorded(curves))
    assert "kept on 1 curve, missed on 1 curve (CDL-C 300 ns, 16-QAM, known channel)".replace("known", KNOWN) in told
    assert (
        "not settled on 1 curve: some 100 errors" in told and "The largest loss is 0.030 (0.021 to 0.040) dB." in told
    )
    assert "0.000 to 0.030 dB, in the median 0.010" in told
    for own in curves:
        own["loss"][BLOCK] = [math.nan] * 3
    assert "No curve" in link_pages.loss_sentence(recorded(curves))
    assert link_pages.promise_sentence(recorded(curves)) == ""


def test_smoothing_that_is_worse_or_unsettled_is_said(both):
    curves = [copy.deepcopy(both[1]) for _ in range(3)]
    for own, loss in zip(curves, ([-2.5, -2.0, -1.5], [0.1, 0.2, 0.3], [-0.1, 0.0, 0.1])):
        own["loss"][SMOOTHED] = loss
    told = link_pages.gain_sentence(recorded(curves))
    assert "better on 1 curve of 3, by 2.00 dB" in told and "not settled on 1 of 3" in told
    assert "worse on 1 curve: UMi drop, 16-QAM, estimated channel 0.200 (0.100 to 0.300) dB" in told
    curves[0]["points"][0]["receivers"][SMOOTHED]["lost"] = 12000
    assert "at 11 of these points" in link_pages.smoothing(recorded(curves))["gain"]


def test_a_control_that_helps_on_some_curves_and_harms_on_others_is_said(both):
    curves = [copy.deepcopy(both[1]) for _ in range(3)]
    for own, channel, loss, more, fewer in zip(
        curves, ("UMi drop", "CDL-C 100 ns", "CDL-C 30 ns"), (0.2, -0.2, 0.0), (9, 1, 2), (1, 31, 1)
    ):
        own["channel"], own["loss"][TOLD] = channel, [loss - 0.1, loss, loss + 0.1]
        own["points"][0]["receivers"][TOLD] |= {"more": more, "fewer": fewer}
    told = link_pages.control_sentence(recorded(curves))
    assert "loses 30 fewer blocks (CDL-C 100 ns, 16-QAM, estimated channel) and 9 more blocks (UMi drop" in told
    assert "On 1 curve it needs more, its interval wholly above zero: UMi drop, 16-QAM" in told
    assert "On 1 curve it needs less, its interval wholly below: CDL-C 100 ns" in told
    assert "not what an equaliser should be told everywhere" in told
    assert "loses as many blocks" in link_pages.control_sentence(recorded(both))
    assert "everywhere" not in link_pages.control_sentence(recorded(curves[1:2]))


def test_held_filters_are_told_by_their_intervals(tmp_path, both):
    late = drawn(tmp_path, UMI[KNOWN], held_late=1.0)
    told = link_pages.beside_sentence(recorded([both[0], late]), HELD, KNOWN)
    assert "On 1 curve no difference is settled" in told and "On 1 curve it needs more: UMi drop up to 0.98 dB" in told
    assert "On 2 curves" in link_pages.beside_sentence(recorded([both[0], late]), LINEAR, KNOWN)
    better = copy.deepcopy(late)
    better["loss"][HELD] = [-0.3, -0.2, -0.1]
    assert "it needs less: UMi drop up to 0.20 dB" in link_pages.beside_sentence(recorded([better]), HELD, KNOWN)
    never = drawn(tmp_path / "never", UMI[KNOWN], held_late=9.0)
    assert "does not come to that rate" in link_pages.beside_sentence(recorded([never]), HELD, KNOWN)
    alone = link_pages.alone_sentence(recorded([late]), HELD)
    assert " 0 that it lost" in alone and not alone.startswith("0 ")


def test_solves_stand_beside_those_of_held_filters_and_of_every_tone(both):
    told = link_pages.solves_sentence(recorded(both, tones=48))
    assert "UMi drop 9." in told and "CDL-C 30 ns 30 in the one batch" in told
    assert (
        "block takes 4, linear interpolation one more, and an exact one for each tone 48" in told
        and "take more" not in told
    )
    assert "On UMi drop the maps take more" in link_pages.solves_sentence(recorded([_taking(both[0], 100)]))
    assert "they are 9, beside the 48" in link_pages.followed_sentence(recorded(both))


def _taking(own, solves):
    changed = copy.deepcopy(own)
    for point in changed["points"]:
        point["receivers"][BLOCK]["solves"] = solves
    return changed


def test_a_record_that_refutes_the_chapter_stops_it(tmp_path, both):
    with pytest.raises(AssertionError, match="circles"):
        link_pages.check(recorded([drawn(tmp_path, UMI[KNOWN], block_late=1.0)]))
    with pytest.raises(AssertionError, match="something"):
        link_pages.check(recorded([]))
    for key, value, word in (("sinr", [{"mean": 0.02}], "promise"), ("missing", [], "left out")):
        record = recorded(both)
        record.numbers[key] = value
        with pytest.raises(AssertionError, match=word):
            link_pages.check(record)
    few = copy.deepcopy(both[:1])
    few[0]["points"][0]["receivers"][EXACT]["lost"] = 99
    with pytest.raises(AssertionError, match="enough"):
        link_pages.check(recorded(few))


def test_the_study_covers_all_links():
    assert len(set(link_level.SETTINGS)) == len(link_level.SETTINGS) == 24
    first = link_level.SETTINGS[:8]
    assert {x.channel for x in first} == set(link_level.CHANNELS) and {x.bits for x in first} == {2, 4, 6}
    assert isinstance(link_level.Link(LINK, SMALL).block, nm.sionna.LMMSEEqualizer)
