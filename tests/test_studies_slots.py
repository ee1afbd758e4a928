"""The studies of frequency and time at smoke size: what they promise is kept, not how fast anything is."""

import math

import pytest
import torch

pytest.importorskip("sionna")

import neumatc as nm
from studies import slots, solvers

TONES = 48


def in_order(ratio):
    """Three NaN where a busy machine's timings were refused, or one was too unsteady."""
    return len(ratio) == 3 and (math.isnan(ratio[1]) or 0 < ratio[0] <= ratio[1] <= ratio[2])


@pytest.mark.parametrize("name", slots.TASKS)
def test_a_map_of_a_slot_keeps_the_rate(name):
    setting = {"tones": TONES, "tol": 0.1, "rounds": 3 if "x 8" in name else 1}
    directional, omni = slots.slots([name], [100e-9], **setting)
    assert omni["omni"] and not directional["omni"]
    for row in (directional, omni):
        assert row["met"] and row["count"] == slots.SLOT * TONES and abs(row["lost"]) < 1e-3
        assert row["held solves"] == slots.SLOT * TONES // slots.BLOCK and row["still solves"] == TONES
        assert row["both solves"] == TONES // slots.BLOCK and row["lost, both"] < 1e-2
        assert abs(row["lost, still"]) < 1e-3, "nobody goes far in a slot"
        exact = {"Gram"} if "SVD" in name else {"Cholesky", "Sionna"}
        beside = {"still beside held", "both beside still"}
        assert all(in_order(row[key]) for key in {"held", "still", "both", "again"} | exact | beside)


def test_one_result_for_a_block_loses_more_where_the_channel_is_long():
    drawn = slots.TASKS["LMMSE 64 x 8"].channel(1e-9, speed=slots.WALKING, symbols=28, subcarriers=TONES)
    lost = []
    for spread in (30e-9, 1000e-9):
        row = slots.slot(slots.TASKS["LMMSE 64 x 8"], slots.spread_over(drawn, spread / 1e-9), "held", rounds=1)
        lost.append(row["lost, held"])
    assert lost[0] < 1e-3 and lost[1] > 10 * lost[0]


def test_a_smaller_tolerance_takes_more_solves_and_loses_less():
    rows = slots.tolerances(spreads=[300e-9], tols=(1.0, 0.1, 1e-2), subcarriers=600)
    assert [row["tol"] for row in rows] == [1.0, 0.1, 1e-2]
    assert sorted(row["solves"] for row in rows) == [row["solves"] for row in rows]
    lost = [row["lost"] for row in rows]
    assert lost[0] > lost[-1] and lost[-1] < 1e-4 and lost[-1] < rows[0]["lost, held"]


def test_the_channel_of_another_delay_spread_comes_from_the_same_draw():
    setting = {"speed": slots.WALKING, "symbols": 3, "subcarriers": 24}
    task = slots.TASKS["SVD 16 x 64"]
    channel, other = slots.spread_over(task.channel(1e-9, **setting), 30.0), task.channel(30e-9, **setting)
    t, f = channel.times[:, 0], channel.frequencies[:, 0]
    H = slots.on_grid(channel, t, f)
    torch.testing.assert_close(H, slots.on_grid(other, t, f), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(H.flatten(0, 1), other(torch.cartesian_prod(t, f)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", slots.TASKS)
def test_the_exact_methods_of_the_study_solve_what_the_operation_defines(name):
    task = slots.TASKS[name]
    channel = task.channel(100e-9, subcarriers=24)
    H, problem = channel(channel.frequencies), nm.Problem(channel, task.operation)
    out = task.memory(24, shape=channel.shape)
    task.exact(H, out)
    assert [x.shape[1:] for x in out] == [x.shape for x in task.operation.factors(*channel.shape)]
    value = out[0] if task.receives else problem.operation.pack(out)
    assert problem.error(channel.frequencies, value).max() < 1e-4
    assert len(task.loop(H)) == 24


def walked(task, symbols):
    """Return a short slot of a user who walks; the last of its blocks is half a one."""
    channel = task.channel(100e-9, speed=slots.WALKING, symbols=symbols, subcarriers=30)
    t, f = channel.times[:, 0], channel.frequencies[:, 0]
    return slots.Slot(task, t, f, slots.on_grid(channel, t, f), 0.1)


def test_what_is_held_is_the_exact_result_in_the_middle_of_every_block():
    task = slots.TASKS["LMMSE 64 x 8"]
    own = walked(task, 2)
    own.fill_held()
    exact = nm.peers.torch_lmmse(own.H.flatten(0, 1), slots.NOISE).unflatten(0, own.H.shape[:2])
    for start, middle in ((0, 6), (12, 18), (24, 29)):
        block = own.out[0][:, start : start + slots.BLOCK]
        torch.testing.assert_close(block, exact[:, middle, None].expand_as(block), rtol=1e-3, atol=1e-4)


def test_what_is_held_over_a_slot_is_the_exact_result_of_its_middle_symbol():
    task = slots.TASKS["SVD 16 x 64"]
    own = walked(task, 5)
    own.fill_still()
    exact = task.memory(30, shape=own.H.shape[2:])
    task.exact(own.H[2], exact)
    for x, y in zip(own.out, exact):
        torch.testing.assert_close(x, y.expand_as(x), rtol=1e-3, atol=1e-4)


def test_what_is_held_over_both_is_the_exact_result_in_the_middle_of_a_block_and_the_slot():
    task = slots.TASKS["SVD 16 x 64"]
    own = walked(task, 5)
    own.fill_both()
    exact = task.memory(3, shape=own.H.shape[2:])
    task.exact(own.H[2, [6, 18, 29]], exact)
    for x, y in zip(own.out, exact):
        assert torch.equal(x, y[torch.arange(30) // slots.BLOCK].expand_as(x))


@pytest.mark.parametrize("name", ["SVD 16 x 64", "LMMSE 64 x 8"])
def test_what_is_linear_in_frequency_passes_through_exact_results(name):
    task = slots.TASKS[name]
    own = walked(task, 5)
    own.fill_linear()
    found = [x[2].clone() for x in own.out]
    assert all(torch.equal(x, x[2:3].expand_as(x)) for x in own.out)
    exact = task.memory(4, shape=own.H.shape[2:])
    task.exact(own.H[2, [0, 12, 24, 29]], exact)
    ends = [x[[0, 12, 24, 29]] for x in found]
    assert task.operation.error(ends, exact).max() < 1e-3
    for x in found:
        for low, high in ((0, 12), (12, 24), (24, 29)):
            torch.testing.assert_close(x[low + 1], torch.lerp(x[low], x[high], 1 / (high - low)))
    if "SVD" in name:
        U, _, Vh = ends
        common = (U[1:].conj() * U[:-1]).sum(dim=-2) + (Vh[1:] * Vh[:-1].conj()).sum(dim=-1)
        assert common.imag.abs().max() < 1e-3 and common.real.min() > 0


def test_triplets_that_are_linear_in_time_have_their_phases_aligned():
    task = slots.TASKS["SVD 16 x 64"]
    channel = task.channel(30e-9, speed=slots.DRIVING, symbols=15, subcarriers=TONES)
    own = slots.Frame(task, channel, 2e-3, slots.SLOT)
    H, exact = sample = own.sample()
    wide, narrow = own.between(sample, 4), own.between(sample, 2)
    turn = torch.polar(torch.ones(15, TONES, 4), torch.arange(15.0)[:, None, None].expand(15, TONES, 4))
    U, S, Vh = exact
    turned = [U * turn[..., None, :], S, Vh * turn.conj()[..., None]]
    assert 0 < narrow["linear error"] < wide["linear error"] < 1e-2 and abs(wide["linear lost"]) < 1e-4
    assert own.between((H, turned), 4)["linear error"] == pytest.approx(wide["linear error"], rel=1e-2)
    assert wide["linear error"] < own.held(sample)["held error"] and own.held(sample)["held lost"] < 1e-3


def test_triplets_that_turned_are_turned_back():
    task = slots.TASKS["SVD 16 x 64"]
    channel = task.channel(30e-9, subcarriers=TONES)
    near = task.memory(TONES, shape=channel.shape)
    task.exact(channel(channel.frequencies), near)
    turn = torch.polar(torch.ones(TONES, 4), torch.linspace(0, 3, 4).expand(TONES, 4))
    far = [near[0] * turn[:, None], near[1].clone(), near[2] * turn.conj()[..., None]]
    slots.align(near, far)
    for x, y in zip(far, near):
        torch.testing.assert_close(x, y)


def test_filters_that_are_linear_in_time():
    task = slots.TASKS["LMMSE 64 x 8"]
    channel = task.channel(100e-9, speed=slots.DRIVING, symbols=13, subcarriers=TONES)
    own = slots.Frame(task, channel, 0.1, slots.SLOT)
    sample = own.sample()
    wide, narrow = own.between(sample, 4), own.between(sample, 2)
    assert 0 < narrow["linear error"] < wide["linear error"] / 2 < 1e-3 and abs(wide["linear lost"]) < 1e-5
    H, ends = slots.on_grid(channel, own.t[::4], own.f), [[torch.zeros_like(own.out[0][0])] for _ in range(2)]
    task.exact(H[0], ends[0])
    own.fill_between(H[:2], 4, ends)
    exact = task.memory(5, TONES, shape=channel.shape)[0]
    task.exact(slots.on_grid(channel, own.t[:5], own.f).flatten(0, 1), [exact])
    torch.testing.assert_close(own.out[0][0], exact[0])
    torch.testing.assert_close(own.out[0][2], (exact[0] + exact[4]) / 2)
    assert torch.linalg.vector_norm(own.out[0][2] - exact[2]) < 1e-2 * torch.linalg.vector_norm(exact[2])


@pytest.mark.slow
def test_a_frame_is_fitted_slot_by_slot_to_its_error():
    for row in slots.frames(tones=TONES, symbols=28, rounds=1, looped=64):
        assert row["met"] and row["count"] == 28 * TONES and row["fits"] in (1, 2)
        assert row["error"] <= 1e-3 and abs(row["lost"]) < 1e-4
        assert math.isnan(row["memory"]) or row["memory"] < 1.5
        exact = "Gram" if "SVD" in row["task"] else "Cholesky"
        assert all(in_order(row[key]) for key in (exact, "NumPy loop", "over a copy", "fit share", "linear", "held"))
        assert row["linear step"] in slots.STEPS and row["linear error"] <= 1e-3 and abs(row["linear lost"]) < 1e-4
        assert row["linear error"] < row["held error"] and row["held lost"] < 1e-2


def test_memory_that_is_taken_and_given_back_counts():
    with slots.peak() as found:
        torch.ones(2**25).sum()  # 128 MiB
    assert math.isnan(found[0]) or found[0] > 0.1


def test_near_and_far_users_keep_their_rates():
    rows = slots.near_far(seeds=range(1, 3), tones=600)
    assert [row["name"] for row in rows] == ["drop 1", "drop 2", "the users' case"]
    for row in rows:
        assert row["met"] and row["gains"] > 25, "near and far"
        assert min(row["sum"], row["weakest"], row["worst"]) >= 0.99


def test_precoders_on_the_line_of_sight_step_as_in_parallel_transport():
    rows = slots.line_of_sight(tones=400)
    assert len(rows) == 8
    for row in rows:
        assert row["met"] and row["step"] <= 1.5 and row["lost"] < 1e-3 and row["apart"] > 0.5


def test_jumps_are_seen():
    channel = slots.TASKS["SVD 16 x 64"].channel(30e-9, subcarriers=50)
    H = channel(channel.frequencies)
    U, S, Vh = solvers.svd_by_gram(H, 2)
    V = torch.linalg.qr(Vh.mH)[0]
    turned = V.clone()
    turned[25:] = V[25:] @ torch.tensor([[0, 1], [1, 0]], dtype=V.dtype)
    assert slots.steps(H, turned)["step"] > 10 and abs(slots.steps(H, turned)["lost"]) < 1e-5
    turn = torch.ones(50, 1, 1)
    turn[25:] = -1
    assert slots.steps(H, nm.SVDFactors(U * turn, S, Vh * turn))["step"] > 10


def test_one_map_for_all_noise_levels():
    row = slots.noise_axis(tones=TONES, levels=9, rounds=1)
    assert row["met"] and row["lost"] < 1e-3 and row["largest lost"] < 1e-3
    assert in_order(row["seconds"])
