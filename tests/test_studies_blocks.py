"""Times of Sionna's blocks: all ways give the same symbols, and table and sentences say what the record holds."""

import math

import pytest
import torch
from conftest import assert_raises

import neumatc.sionna
from studies import blocks, measurements, texts
from studies.provenance import Record


@pytest.fixture(scope="module")
def record():
    found = Record("blocks", profile="cpu", device="cpu", seed=0)
    measurements.take_blocks(found, sizes=[(16, 4)], channels=["30 ns", "UMi drop"], tones=96, rounds=3)
    return found


@pytest.mark.parametrize("pace", blocks.PACES)
def test_the_bare_factorisation_gives_what_the_block_and_sionnas_give(pace):
    uplink = blocks.Uplink.draw(16, 4, "100 ns", blocks.PACES[pace], 48)
    assert uplink.still == (pace == "still")
    right, v = uplink.bare()()
    for kind in (neumatc.sionna.LMMSEEqualizer, blocks.LMMSEEqualizer):
        call, _ = uplink.block(kind)
        x_hat, no_eff = (own[0, :, 0].unflatten(1, (blocks.SLOT, -1)).permute(1, 2, 0) for own in call())
        torch.testing.assert_close(x_hat, right, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(no_eff, v.expand_as(no_eff), rtol=1e-3, atol=1e-6)


def test_slots_take_turns():
    uplink = blocks.Uplink.draw(16, 4, "30 ns", blocks.WALKING, 24)
    call = uplink.bare()
    first, second, third = (call()[0].clone() for _ in range(3))
    assert torch.equal(first, third) and not torch.equal(first, second)


def test_a_row_for_each_size_channel_and_pace(record):
    found = blocks.table(record).rows
    assert [row[0] for row in found] == [
        f"16 x 4, {channel}, {pace}" for pace in blocks.PACES for channel in ("30 ns", "UMi drop")
    ]
    assert all(own["count"] == blocks.SLOT * 96 for own in blocks.rows(record))
    assert {own["solves"] for own in blocks.rows(record)} == {0}  # so small that the block solves all of them
    assert [row[1] for row in found] == ["exact"] * 4


def test_a_row_for_each_precoder_channel_and_pace(record):
    found = blocks.precoder_table(record).rows
    assert [row[0] for row in found] == [
        f"{title}, {channel}, {pace}"
        for title in ("RZF, 64 x 8, 8 streams", "SVD, 64 x 16, 4 streams")
        for pace in blocks.PACES
        for channel in blocks.PRECODED
    ]
    assert all(max(own["errors"]) < blocks.link_level.TOL for own in record.numbers["precoders"])


@pytest.mark.parametrize("pace", blocks.PACES)
def test_the_bare_precoders_give_what_sionna_and_lapack_give(pace):
    downlink = blocks.Downlink.draw("RZF", "300 ns", blocks.PACES[pace], 24)
    found, right = downlink.block(blocks.RZFPrecodedChannel)[0]()[0, :, 0, 0], downlink.bare()()
    times = len(downlink.H[0])
    torch.testing.assert_close(found.permute(2, 3, 0, 1)[:times].flatten(0, 1), right, rtol=1e-3, atol=1e-4)
    downlink = blocks.Downlink.draw("SVD", "300 ns", blocks.PACES[pace], 24)
    found, right = (
        torch.linalg.vector_norm(call(), dim=-2) for call in (downlink.lapack(blocks.SLOT), downlink.bare())
    )
    torch.testing.assert_close(found[:times].flatten(0, 1), right, rtol=1e-3, atol=1e-4)


def test_results_of_the_middle_symbol_serve_the_slot(record):
    walking, still = ([own["error held"] for own in blocks.rows(record, pace)] for pace in ("walking", "still"))
    assert max(still) < blocks.ROUNDING < min(walking) < max(walking) < 0.1


def test_what_was_refused_is_not_told(record):
    unknown = Record("blocks", profile="cpu", device="cpu", seed=0)
    for key in ("blocks", "precoders"):
        unknown.numbers[key] = [own | dict.fromkeys(blocks.OTHERS, (math.nan,) * 3) for own in record.numbers[key]]
    blocks.glue_all(unknown)
    assert blocks.tally(blocks.rows(unknown), "bare") == f"{texts.UNTIMED} in 4 of 4"


@pytest.mark.parametrize("key", ["blocks", "precoders"])
@pytest.mark.parametrize("change", [{"Sionna": (0.5, 0.6, 0.7)}, {"errors": [1e-3] * 3}, {"errors": [1e-6, 0.1, 1e-6]}])
def test_a_record_that_refutes_the_page_stops_it(change, key, record):
    held, refuted = (Record("blocks", profile="cpu", device="cpu", seed=0) for _ in range(2))
    sure = {"Sionna": (2.0, 2.1, 2.2)}  # whatever the times of so small a slot were
    held.numbers |= {name: [own | sure for own in record.numbers[name]] for name in ("blocks", "precoders")}
    blocks.check(held)
    refuted.numbers |= held.numbers | {key: [own | change for own in held.numbers[key]]}
    assert_raises(AssertionError, [], lambda: blocks.check(refuted))
