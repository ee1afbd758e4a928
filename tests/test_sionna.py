"""Blocks for Sionna: they give what Sionna's own give, within the tolerance, and say what they did."""

import copy
import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from conftest import assert_raises, state_of_the_process
from test_model import peak_bytes

import neumatc as nm

phy = pytest.importorskip("sionna.phy", reason='needs Sionna: pip install "neumatc[wireless]"')

from sionna.phy import ofdm  # noqa: E402
from sionna.phy.mimo import StreamManagement  # noqa: E402

from neumatc import sionna as blocks  # noqa: E402

TOL = 0.05
# Without whitening Sionna's own is more accurate where noise is weak.
NOT_WHITENED = {"lmmse": {"whiten_interference": False}, "zf": {}}
KINDS = {"lmmse": (blocks.LMMSEEqualizer, ofdm.LMMSEEqualizer), "zf": (blocks.ZFEqualizer, ofdm.ZFEqualizer)}
FFT, SYMBOLS = 96, 4


@pytest.fixture(autouse=True)
def fits_pay(monkeypatch):
    """These grids and matrices are so small that the blocks would solve all of them; of four symbols maps take all."""
    for name in ("_EQUALISING", "_PRECODING", "_SLOW", "_VECTORS"):
        monkeypatch.setattr(blocks, name, (0.0, 0.0, 0.5))


@pytest.fixture
def state():
    before = state_of_the_process(), phy.config.precision, phy.config.device
    yield
    assert (state_of_the_process(), phy.config.precision, phy.config.device) == before


def resource_grid(symbols=SYMBOLS, fft=FFT, transmitters=1, streams=4, pilots=None, **settings):
    nulled = {"num_guard_carriers": (5, 6), "dc_null": True} if fft > 20 else {}
    more = {"pilot_pattern": "kronecker", "pilot_ofdm_symbol_indices": pilots} if pilots else {}
    return ofdm.ResourceGrid(
        num_ofdm_symbols=symbols,
        fft_size=fft,
        subcarrier_spacing=30e3,
        num_tx=transmitters,
        num_streams_per_tx=streams,
        **(nulled | more | settings),
    )


def channel(*shape, symbols=SYMBOLS, tones=FFT, taps=3, speed=2e-3, seed=0, dtype=torch.complex64):
    """Paths of short delays and slow Doppler, shape (*shape, symbols, tones)."""
    draws = torch.Generator().manual_seed(seed)
    gains = torch.randn((*shape, taps), dtype=torch.complex128, generator=draws) / taps**0.5
    delays, shifts = speed * torch.arange(taps).double(), 2 * speed * torch.linspace(-1, 1, taps).double()
    t, f = torch.arange(symbols).double(), torch.arange(tones).double()
    phases = shifts[:, None, None] * t[:, None] - delays[:, None, None] * f
    return torch.einsum("...k,ktf->...tf", gains, torch.exp(2j * torch.pi * phases)).to(dtype)


def independent(*shape, symbols=SYMBOLS, tones=FFT, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return torch.randn((*shape, symbols, tones), dtype=torch.complex64, generator=draws)


def drawn(*shape, seed=5, dtype=torch.complex64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def setting(receivers=1, antennas=8, transmitters=1, streams=4, batch=2, association=None, double=False, **settings):
    """A resource grid, streams, signals and channels."""
    grid = resource_grid(transmitters=transmitters, streams=streams, **settings)
    association = np.ones((receivers, transmitters)) if association is None else association
    dtype = torch.complex128 if double else torch.complex64
    symbols, tones = grid.num_ofdm_symbols, grid.num_effective_subcarriers
    h = channel(batch, receivers, antennas, transmitters, streams, symbols=symbols, tones=tones, dtype=dtype)
    y = drawn(batch, receivers, antennas, symbols, grid.fft_size, dtype=dtype)
    return grid, StreamManagement(association, streams), y, h


def pair(kind, grid, streams, **settings):
    ours, theirs = KINDS[kind]
    return ours(grid, streams, tol=TOL, **settings), theirs(grid, streams, **settings)


def assert_within(found, expected, units):
    """x_hat within the standard deviations of what is in it for signals of this size, no_eff within the tolerance."""
    (x, v), (X, V) = found, expected
    assert (x.shape, x.dtype, v.shape, v.dtype) == (X.shape, X.dtype, V.shape, V.dtype)
    # At a few tones between those that were looked at it may be more.
    assert torch.quantile((v / V - 1).abs().flatten(), 0.98) <= TOL
    assert torch.quantile(((x - X).abs() / V.sqrt()).flatten(), 0.98) <= 2 * TOL * units


def assert_mapped(block):
    assert block.report.exact == "" and block.report.solves > 0 and block.report.residual <= TOL, block.report


def assert_the_same(found, expected):
    found, expected = ((x,) if isinstance(x, torch.Tensor) else x for x in (found, expected))
    for x, y in zip(found, expected, strict=True):
        assert torch.equal(
            torch.view_as_real(x) if x.is_complex() else x, torch.view_as_real(y) if y.is_complex() else y
        )


# What is in y comes with a variance of 1 for each antenna: about the root of (|h|^2 + noise) in units of the noise.
UNITS = 10.0
COLOURED = {"receivers": 2, "transmitters": 2, "streams": 2, "association": np.eye(2)}
SETTINGS = {
    "one receiver": {},
    "two transmitters": {"transmitters": 2, "streams": 2},
    "coloured": COLOURED,
    "two receivers of one": {"receivers": 2, "transmitters": 1, "streams": 4, "association": np.ones((2, 1))},
    "double": {"double": True},
    "pilots": {"pilots": [1]},
    "one symbol": {"symbols": 1, "fft": 192},
    "one antenna more than streams": {"antennas": 5},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETTINGS)
def test_equalisers_give_what_sionna_gives(name, kind, state):
    grid, streams, y, h = setting(**SETTINGS[name])
    precision = {"precision": "double"} if name == "double" else {}
    ours, theirs = pair(kind, grid, streams, **precision)
    given = (y, h, torch.tensor(0.01), torch.tensor(0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ours(*given)
    assert_mapped(ours)
    assert_within(found, theirs(*given), UNITS)


NOISES = {
    "scalar": lambda h: torch.tensor(0.1),
    "of examples": lambda h: torch.tensor([0.1, 0.4]),
    "of receivers": lambda h: torch.tensor([[0.1], [0.4]]),
    "of antennas": lambda h: 0.1 + torch.arange(8.0).expand(2, 1, 8) / 8,
}
ERRORS = {
    "scalar": lambda h: torch.tensor(0.01),
    "one number": lambda h: torch.full((1,), 0.01),
    "of streams": lambda h: 0.01 * torch.arange(1.0, 5.0)[:, None, None],
    "of transmitters": lambda h: torch.full((1, 1, 1, 1, 1), 0.02),
    "of tones": lambda h: torch.linspace(0.01, 0.05, h.shape[6]),
    "of symbols": lambda h: torch.linspace(0.01, 0.05, h.shape[5])[:, None],
    "of antennas and tones": lambda h: (
        (1 + torch.arange(8.0))[:, None, None, None, None] * torch.linspace(0.01, 0.02, h.shape[6])
    ),
    "whole": lambda h: torch.full(h.shape, 0.03),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("no", "err"), [*((n, "scalar") for n in NOISES), *(("of antennas", e) for e in ERRORS)])
def test_noise_and_errors_of_any_shape(no, err, kind):
    grid, streams, y, h = setting()
    ours, theirs = pair(kind, grid, streams)
    given = (y, h, ERRORS[err](h), NOISES[no](h))
    found = ours(*given)
    assert_mapped(ours)
    assert_within(found, theirs(*given), UNITS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ratio_that_is_lost_is_what_the_tolerance_says(kind):
    """The filters are read off by signals of one antenna each; their ratio follows from the channel."""
    grid, streams, _, h = setting(batch=1, pilots=None)
    ours, theirs = pair(kind, grid, streams)
    ratios = []
    for block in (ours, theirs):
        rows = []
        for antenna in range(8):
            y = torch.zeros(1, 1, 8, SYMBOLS, FFT, dtype=torch.complex64)
            y[:, :, antenna] = 1
            rows.append(block(y, h, torch.tensor(0.0), torch.tensor(0.1))[0][0, 0])
        X = torch.stack(rows, dim=-1).permute(1, 0, 2)  # (tones, streams, antennas)
        gain, disturbance = nm.linalg.outputs(h[0, 0, :, 0].permute(2, 3, 0, 1).flatten(0, 1), X, 0.1)
        ratios.append(gain.abs().square() / disturbance)
    assert_mapped(ours)
    lost = (1 - ratios[0] / ratios[1]).abs()
    assert torch.quantile(lost.flatten(), 0.98) <= (TOL**2 if kind == "lmmse" else TOL)
    assert lost.max() <= 9 * (TOL**2 if kind == "lmmse" else TOL)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_through_the_signal(kind):
    grid, streams, y, h = setting(batch=1, double=True)
    ours, theirs = pair(kind, grid, streams, precision="double")
    y = y.requires_grad_()
    weights = drawn(*theirs(y, h, torch.tensor(0.01), torch.tensor(0.1))[0].shape, dtype=torch.complex128)

    def loss(block, y):
        return (block(y, h, torch.tensor(0.01), torch.tensor(0.1))[0] * weights).real.sum()

    (gradient,) = torch.autograd.grad(loss(ours, y), y)
    assert_mapped(ours)
    with torch.no_grad():
        step = drawn(*y.shape, seed=7, dtype=torch.complex128)
        slope = (loss(ours, y + 0.5 * step) - loss(ours, y - 0.5 * step)).item()  # x_hat is linear in y
    assert slope == pytest.approx((gradient.conj() * step).real.sum().item(), rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("through", ["h_hat", "err_var", "no"])
def test_gradients_through_the_channel_are_those_of_sionna(through, kind):
    grid, streams, y, h = setting(batch=1)
    given = {"h_hat": h, "err_var": torch.tensor(0.01), "no": torch.tensor(0.1)}
    given[through] = given[through].requires_grad_()
    found = []
    for block in pair(kind, grid, streams):
        x, v = block(y, **given)
        (gradient,) = torch.autograd.grad((x.abs().square().sum() + v.sum()), given[through])
        found.append((x.detach(), v.detach(), gradient))
        if isinstance(block, blocks.LMMSEEqualizer | blocks.ZFEqualizer):
            assert block.report.exact == f"gradients or a compiler follow {through}"
    assert_the_same(*found)
    with torch.no_grad():  # nobody follows
        ours, _ = pair(kind, grid, streams)
        ours(y, **given)
        assert_mapped(ours)


def test_an_axis_of_two_nodes_gets_more_where_the_residual_asks_for_it():
    """Hardly anything happens over the symbols, but more than a high ratio of signal to noise allows."""
    A = channel(64, 8, symbols=14, tones=300, taps=6).permute(2, 3, 0, 1) / 0.1**0.5
    axes = [torch.arange(14.0), torch.arange(300.0)]
    problem = nm.Problem(nm.families.from_grid(axes, A), nm.Equaliser())
    report = nm.fit(problem, tol=TOL, progress=False).report
    assert report.met and report.collocation < 0.1 * len(problem.family.grid)


# Where Sionna's block computes


def zero_column(h):
    h = h.clone()
    h[:, :, :, 0, 1] = 0
    return h


def spoiled(h, value=float("nan")):
    h = h.clone()
    h[0, 0, 2, 0, 1, 1, 17] = value
    return h


LEFT = {
    "a user without paths": (zero_column, 0.1, ""),
    "NaN at one tone": (spoiled, 0.1, "NaN or Inf"),
    "Inf at one tone": (lambda h: spoiled(h, float("inf")), 0.1, "NaN or Inf"),
    "no noise": (lambda h: h, 0.0, ""),
    "NaN for noise": (lambda h: h, float("nan"), ""),
    "all zero": (torch.zeros_like, 0.1, ""),
    "all NaN": (lambda h: h * float("nan"), 0.1, ""),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LEFT)
def test_what_a_map_does_not_help_is_sionnas_to_the_bit(name, kind):
    change, no, why = LEFT[name]
    grid, streams, y, h = setting()
    ours, theirs = pair(kind, grid, streams)
    given = (y, change(h), torch.tensor(0.0), torch.tensor(no))
    assert_the_same([x.nan_to_num(7.0) for x in ours(*given)], [x.nan_to_num(7.0) for x in theirs(*given)])
    assert ours.report.exact and why in ours.report.exact
    assert re.fullmatch(r"exact at all \d+ tones: .+", str(ours.report))


def test_a_tone_and_a_symbol(state, monkeypatch):
    grid, streams, y, h = setting(symbols=1, fft=1, double=True)
    ours, theirs = pair("lmmse", grid, streams, precision="double")
    given = (y, h, torch.tensor(0.0), torch.tensor(0.1))
    assert_exact(exact_of(ours, given, monkeypatch), theirs(*given))
    assert ours.report.exact == "one tone" and ours.report.tones == 1


def test_one_tone_and_many_symbols():
    grid, streams, y, h = setting(symbols=40, fft=1)
    ours, theirs = pair("lmmse", grid, streams)
    given = (y, h, torch.tensor(0.0), torch.tensor(0.1))
    found = ours(*given)
    assert_mapped(ours)
    assert_within(found, theirs(*given), UNITS)


def assert_exact(found, expected):
    for x, y in zip(found, expected, strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def exact_of(ours, given, monkeypatch):
    """What the exact equalisers of a block give: Sionna's is not to be called."""

    def refuse(*given):
        raise AssertionError("Sionna's block was called")

    with monkeypatch.context() as patch:
        for theirs in (blocks._LMMSE, blocks._ZF):
            patch.setattr(theirs, "call", refuse)
        found = ours(*given)
    assert ours.report.exact
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["one receiver", "two transmitters", "pilots", "one symbol"])
def test_small_grids_are_solved_exactly(name, kind, monkeypatch):
    monkeypatch.undo()
    grid, streams, y, h = setting(**SETTINGS[name], double=True)
    ours, theirs = pair(kind, grid, streams, precision="double")
    given = (y, h, torch.tensor(0.01), torch.tensor(0.1))
    assert_exact(exact_of(ours, given, monkeypatch), theirs(*given))
    assert "less time than a map" in ours.report.exact and ours.report.solves == 0


@pytest.mark.parametrize("kind", KINDS)
def test_small_coloured_grids_are_sionnas(kind, monkeypatch):
    monkeypatch.undo()
    grid, streams, y, h = setting(**COLOURED)
    ours, theirs = pair(kind, grid, streams)
    given = (y, h, torch.tensor(0.0), torch.tensor(0.1))
    assert_the_same(ours(*given), theirs(*given))
    assert "less time than a map" in ours.report.exact


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("expanded", [True, False])
@pytest.mark.parametrize("taken", ["exact", "map"])
def test_a_channel_that_stands_still_has_one_filter_a_tone(taken, expanded, kind, monkeypatch):
    if taken == "exact":
        monkeypatch.undo()
    grid, streams, y, h = setting(double=True)
    h = h[..., :1, :].expand(h.shape)
    h = h if expanded else h.contiguous()
    ours, theirs = pair(kind, grid, streams, precision="double")
    given = (y, h, torch.tensor(0.01), torch.tensor(0.1))
    expected = theirs(*given)
    if taken == "exact":
        assert_exact(exact_of(ours, given, monkeypatch), expected)
    else:
        assert_within(ours(*given), expected, UNITS)
        assert_mapped(ours)
    assert ours.report.tones == grid.num_effective_subcarriers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("err", ["of streams", "of tones", "of symbols", "of antennas and tones", "whole"])
@pytest.mark.parametrize("still", [True, False])
def test_exact_equalisers_take_noise_of_each_antenna_and_tone(still, err, kind, monkeypatch):
    monkeypatch.undo()
    grid, streams, y, h = setting(double=True)
    h = h[..., :1, :].expand(h.shape) if still else h
    ours, theirs = pair(kind, grid, streams, precision="double")
    given = (y, h, ERRORS[err](h), NOISES["of antennas"](h))
    assert_exact(exact_of(ours, given, monkeypatch), theirs(*given))
    monkeypatch.setattr(blocks, "_CHUNK", 2**11)  # some tones at a time
    assert_exact(exact_of(ours, given, monkeypatch), theirs(*given))
    one = still and err != "of symbols"
    assert ours.report.tones == grid.num_effective_subcarriers * (1 if one else h.shape[5])
    assert "less time than a map" in ours.report.exact


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_map_was_given_up_some_calls_solve_exactly(kind, monkeypatch):
    """One, two, four, ... calls; then a map is tried again, and taken where the channel allows it."""
    grid, streams, y, h = setting(double=True)
    ours, theirs = pair(kind, grid, streams, precision="double")
    rough = independent(*h.shape[:5], tones=h.shape[6]).to(h)
    noise = (torch.tensor(0.01), torch.tensor(0.1))
    whys, expected = [], theirs(y, rough, *noise)
    for _ in range(9):
        assert_exact(exact_of(ours, (y, rough, *noise), monkeypatch), expected)
        whys.append("used up" in ours.report.exact)
    assert whys == [True, False, True, False, False, True, False, False, False]
    for _ in range(2):
        ours(y, h, *noise)
    assert_mapped(ours)
    ours(y, rough, *noise)
    assert "used up" in ours.report.exact  # what was taken makes the wait short again


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("still", [True, False])
def test_maps_are_over_all_tones_and_symbols_where_they_are_asked_for(still, kind, monkeypatch):
    """Fewer exact solves than points, though the block by itself would solve at all of them."""
    monkeypatch.undo()
    grid, streams, y, h = setting(symbols=14)
    h = h[..., :1, :].expand(h.shape) if still else h
    ours, theirs = KINDS[kind]
    block = ours(grid, streams, tol=TOL, method="map")
    given = (y, h, torch.tensor(0.01), torch.tensor(0.1))
    found = block(*given)
    assert_mapped(block)
    assert block.report.tones == 14 * grid.num_effective_subcarriers > block.report.solves
    assert_within(found, theirs(grid, streams)(*given), UNITS)
    assert_raises(ValueError, ["`method`"], lambda: ours(grid, streams, method="maps"))


@pytest.mark.parametrize("kind", KINDS)
def test_timing_of_each_user_is_taken_out(kind):
    """Offsets of up to some 40 samples, of one receiver and of single users."""
    grid, streams, y, h = setting(fft=384)
    block, solves = pair(kind, grid, streams, method="map")[0], []
    late = 2 * torch.pi / 384 * torch.tensor([0.0, 37.0, 40.0, -35.0])[:, None, None] * torch.arange(h.shape[6])
    for given in (h, h * torch.exp(-1j * late)):
        found = block(y, given, torch.tensor(0.0), torch.tensor(0.1))
        assert_mapped(block)
        assert_within(found, KINDS[kind][1](grid, streams)(y, given, torch.tensor(0.0), torch.tensor(0.1)), UNITS)
        solves.append(block.report.solves)
        block = pair(kind, grid, streams, method="map")[0]
    assert solves[1] <= 2 * solves[0]  # else they are given up


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ripple", [False, True])
@pytest.mark.parametrize("weakest", [1.0, 1e-4])
def test_variances_of_strong_signals_keep_their_digits(weakest, ripple, kind, monkeypatch):
    """Sionna's are 1 / d - 1 with a d near 1, of which single precision leaves nothing here."""
    monkeypatch.undo()
    grid, streams, y, h = setting(antennas=16)
    h = independent(*h.shape[:5], tones=h.shape[6])
    h[:, :, :, :, 0] *= weakest
    error = torch.linspace(1e-8, 1e-7, h.shape[6]) if ripple else torch.tensor(0.0)
    given = (y, h, error, torch.tensor(1e-6))
    ours, theirs = KINDS[kind]
    found = exact_of(ours(grid, streams), given, monkeypatch)[1]
    right = theirs(grid, streams, precision="double")(*(x.to(torch.complex128) for x in given[:2]), *given[2:])[1]
    assert (found / right - 1).abs().max() < 1000 * torch.finfo(torch.float32).eps


def test_tones_without_an_exact_solution_are_sionnas_and_the_report_says_so(monkeypatch):
    monkeypatch.undo()
    grid, streams, y, h = setting()
    h = h.clone()
    h[..., 17] = h[:, :, :, :, :1, :, 17]  # of equal streams
    ours, theirs = pair("zf", grid, streams)
    given = (y, h, torch.tensor(0.0), torch.tensor(0.1))
    assert_the_same([x.nan_to_num(7.0) for x in ours(*given)], [x.nan_to_num(7.0) for x in theirs(*given)])
    assert "by Sionna's block" in ours.report.exact


def doubled(given):
    """Sionna's equaliser in double precision gets these."""
    return [x.to(torch.complex128 if x.is_complex() else torch.float64) for x in given]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1e-17, 1.0, 1e12])
@pytest.mark.parametrize("antennas, strong", [(8, 1e-4), (8, 1e-8), (4, 1e-4), (4, 1e-8), (3, 1e-4), (2, 1e-6)])
def test_exact_symbols_are_right_to_a_part_of_their_deviation(antennas, strong, size, kind, monkeypatch):
    """Single precision, weak noise, and fewer antennas than streams: systems near singular, or of vanishing squares."""
    monkeypatch.undo()
    if kind == "zf" and antennas < 4:
        pytest.skip("zero forcing takes as many antennas as streams")
    grid, streams, y, h = setting(antennas=antennas)
    h = size * independent(*h.shape[:5], tones=h.shape[6])
    given = (y * size, h, torch.tensor(0.0), torch.tensor(strong * size**2))
    ours, theirs = KINDS[kind]
    x, v = exact_of(ours(grid, streams), given, monkeypatch)
    right, deviation = theirs(grid, streams, precision="double", **NOT_WHITENED[kind])(*doubled(given))
    assert ((x - right).abs() <= 0.01 * deviation.sqrt() + 1000 * torch.finfo(v.dtype).eps * right.abs()).all()
    assert (v / deviation - 1).abs().max() < 0.02


def test_weak_streams_beside_strong_ones_that_are_nearly_alike_keep_their_digits(monkeypatch):
    """The terms of their gains cancel, and their variances are far above those of the others."""
    monkeypatch.undo()
    grid, streams, y, h = setting(antennas=64, streams=32, batch=1)
    h = independent(*h.shape[:5], tones=h.shape[6])
    h += 100 * independent(*h.shape[:3], 1, 1, tones=h.shape[6], seed=7)
    h[:, :, :, :, ::2] *= 0.01
    given = (y, h, torch.tensor(0.0), torch.tensor(1e4))
    x, v = exact_of(blocks.LMMSEEqualizer(grid, streams, method="exact"), given, monkeypatch)
    right, deviation = ofdm.LMMSEEqualizer(grid, streams, precision="double", **NOT_WHITENED["lmmse"])(*doubled(given))
    assert ((x - right).abs() <= 0.01 * deviation.sqrt()).all()
    assert (v / deviation - 1).abs().max() < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_exact_solutions_may_be_asked_for(kind, monkeypatch):
    grid, streams, y, h = setting(double=True)
    ours, theirs = KINDS[kind]
    block, given = (
        ours(grid, streams, precision="double", method="exact"),
        (y, h, torch.tensor(0.01), torch.tensor(0.1)),
    )
    assert_exact(exact_of(block, given, monkeypatch), theirs(grid, streams, precision="double")(*given))
    assert "asked for" in block.report.exact


@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_examples_and_runs(kind, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(blocks, "_CHUNK", 2**11)
    grid, streams, y, h = setting(batch=3, double=True)
    ours, theirs = pair(kind, grid, streams, precision="double")
    given, before = (y, h, torch.tensor(0.01), torch.tensor(0.1)), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_exact(exact_of(ours, given, monkeypatch), theirs(*given))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
def test_one_channel_serves_all_examples_and_views_are_taken(kind, monkeypatch):
    monkeypatch.undo()
    grid, streams, y, h = setting(batch=3, double=True)
    ours, theirs = pair(kind, grid, streams, precision="double")
    for sent, own in ((y, h[:1]), (y[:1], h), (y, torch._neg_view(h)), (y, h.conj())):
        given = (sent, own, torch.tensor(0.01), torch.tensor(0.1))
        assert_exact(exact_of(ours, given, monkeypatch), theirs(*given))
    assert blocks._still(torch._neg_view(h[..., :1, :].to(torch.complex64)))


@pytest.mark.parametrize("kind", KINDS)
def test_tangents_of_the_channel_are_sionnas(kind):
    grid, streams, y, h = setting(batch=1, double=True)
    ours, theirs = pair(kind, grid, streams, precision="double")
    given, found = (torch.tensor(0.01), torch.tensor(0.1)), []
    for block in (ours, theirs):
        with torch.autograd.forward_ad.dual_level():
            own = torch.autograd.forward_ad.make_dual(h, drawn(*h.shape, dtype=h.dtype))
            found.append(torch.autograd.forward_ad.unpack_dual(block(y, own, *given)[0]).tangent)
    assert "gradients" in ours.report.exact
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_signals_are_followed_through_exact_equalisers(kind, monkeypatch):
    monkeypatch.undo()
    grid, streams, y, h = setting(batch=1, double=True)
    ours, theirs = pair(kind, grid, streams, precision="double")
    given, found = (h, torch.tensor(0.01), torch.tensor(0.1)), []
    for call in (lambda own: theirs(own, *given), lambda own: exact_of(ours, (own, *given), monkeypatch)):
        own = y.clone().requires_grad_()
        found.append(torch.autograd.grad(call(own)[0].abs().square().sum(), own)[0])
    torch.testing.assert_close(*found)


def test_numbers_for_noise_and_errors():
    grid, streams, y, h = setting()
    ours, theirs = pair("lmmse", grid, streams)
    found = ours(y, h, 0.01, 0.1)
    assert_mapped(ours)
    assert_within(found, theirs(y, h, 0.01, torch.tensor(0.1)), UNITS)


# From call to call


def test_the_next_slot_takes_over_the_pieces():
    grid, streams, y, h = setting()
    block, _ = pair("lmmse", grid, streams)
    given = (torch.tensor(0.01), torch.tensor(0.1))
    block(y, h, *given)
    first = block.report
    assert first.examples == 2 and first.tones == SYMBOLS * grid.num_effective_subcarriers
    assert f"2 maps of {first.tones} tones from {first.solves} exact solves each" in str(first)
    block(y, h, *given)
    assert_mapped(block)
    assert block.report.solves <= first.solves
    other = channel(*h.shape[:5], tones=h.shape[6], seed=3)
    block(y, other, *given)
    assert_mapped(block)
    assert block.report.solves <= 1.2 * first.solves
    # Symbols change their number, and there is one receiver's example more: the map begins anew, or from what fits.
    more = channel(3, *h.shape[1:5], symbols=1, tones=h.shape[6])
    block._grids.fitted(
        lambda chosen, t, f: more[chosen, 0, :, 0][:, :, :, t, f].permute(0, 3, 1, 2),
        1,
        nm.Equaliser(),
        1,
        torch.arange(40),
        more,
        blocks._SLOW,
    )
    block(y, h, *given)
    assert_mapped(block)
    block(y, spoiled(h), *given)
    assert block.report.exact
    assert_within(block(y, h, *given), pair("lmmse", grid, streams)[1](y, h, *given), UNITS)


def test_blocks_are_copied_and_hold_no_state_of_their_own():
    grid, streams, y, h = setting()
    block, theirs = pair("lmmse", grid, streams)
    given = (y, h, torch.tensor(0.01), torch.tensor(0.1))
    expected = block(*given)
    twin = copy.deepcopy(block)
    assert_within(twin(*given), expected, UNITS)
    assert block.state_dict().keys() == theirs.state_dict().keys()
    assert twin.report.solves <= block.report.solves


@pytest.mark.parametrize("tol", [0, -1.0, 1.0, 2, float("nan"), "fine"])
@pytest.mark.parametrize("block", [blocks.LMMSEEqualizer, blocks.RZFPrecodedChannel, blocks.SVDPrecodedChannel])
def test_tolerances_are_between_zero_and_one(block, tol):
    grid, streams, _, _ = setting()
    assert_raises((ValueError, TypeError), ["`tol`"], lambda: block(grid, streams, tol=tol))


# Precoders


def downlink(transmitters=1, per=2, antennas=8, batch=2, each=2, precision="double", **settings):
    """Receivers of two antennas each, a resource grid, and the channels to them."""
    dtype = torch.complex128 if precision == "double" else torch.complex64
    receivers, streams = transmitters * per, per * each
    association = np.zeros((receivers, transmitters))
    for j in range(transmitters):
        association[j * per : (j + 1) * per, j] = 1
    grid = resource_grid(transmitters=transmitters, streams=streams, **settings)
    h = channel(batch, receivers, each, transmitters, antennas, symbols=grid.num_ofdm_symbols, dtype=dtype)
    return grid, StreamManagement(association, streams), h


@pytest.mark.parametrize("alpha", [0.0, 0.1, torch.tensor([0.1, 0.3])], ids=["zero", "one", "of examples"])
@pytest.mark.parametrize("transmitters", [1, 2])
@pytest.mark.parametrize("precision", ["single", "double"])
def test_precoded_channels_are_those_of_sionna(transmitters, alpha, precision, state):
    grid, streams, h = downlink(transmitters, precision=precision)
    power = 0.5 + torch.rand(2, transmitters, 4, SYMBOLS, FFT, generator=torch.Generator().manual_seed(1))
    ours = blocks.RZFPrecodedChannel(grid, streams, precision=precision)
    theirs = ofdm.RZFPrecodedChannel(grid, streams, precision=precision)
    found, expected = (block(h, power, alpha=alpha) for block in (ours, theirs))
    assert_mapped(ours)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    off = (found - expected).abs() / expected.abs().square().mean().sqrt()
    assert torch.quantile(off.flatten()[::7], 0.98) <= 3 * TOL
    estimate = h * 1.01
    found = ours(h, power, h_hat=estimate, alpha=alpha)
    assert_mapped(ours)
    off = (found - theirs(h, power, h_hat=estimate, alpha=alpha)).abs() / expected.abs().square().mean().sqrt()
    assert torch.quantile(off.flatten()[::7], 0.98) <= 3 * TOL


@pytest.mark.parametrize("effective", [False, True])
def test_precoders_are_those_of_sionna(effective):
    grid, streams, h = downlink(2)
    x = drawn(2, 2, 4, SYMBOLS, FFT, dtype=torch.complex128).requires_grad_()
    ours, theirs = (
        block(grid, streams, return_effective_channel=effective, precision="double")
        for block in (blocks.RZFPrecoder, ofdm.RZFPrecoder)
    )
    found, expected = ours(x, h, alpha=0.1), theirs(x, h, alpha=0.1)
    assert_mapped(ours)
    for a, b in zip(*(((y,) if isinstance(y, torch.Tensor) else y) for y in (found, expected)), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert torch.quantile((a - b).abs().flatten()[::7], 0.98) <= 3 * TOL * b.abs().square().mean().sqrt()
    (gradient,) = torch.autograd.grad((found[0] if effective else found).abs().square().sum(), x)
    assert gradient.isfinite().all() and gradient.abs().max() > 0


def both(kind, grid, streams, method="exact", precision="double", **settings):
    """A block of ours, and one of Sionna's of the same name."""
    settings = {"precision": precision, **settings}
    return getattr(blocks, kind)(grid, streams, method=method, **settings), getattr(ofdm, kind)(
        grid, streams, **settings
    )


def precoded(ours, *given, monkeypatch, **more):
    """What exact precoders give: Sionna's block is not to be called."""

    def refuse(*given, **more):
        raise AssertionError("Sionna's block was called")

    with monkeypatch.context() as patch:
        for theirs in (blocks._RZF, blocks._RZF_PRECODER):
            patch.setattr(theirs, "call", refuse)
        found = ours(*given, **more)
    assert ours.report.exact
    return found


def alphas(batch=2, transmitters=1, tones=FFT):
    values = torch.full((batch, transmitters, SYMBOLS, tones), 0.1, dtype=torch.float64)
    values[..., 3] = 0.2
    return values


REGULARISED = {
    "zero": 0.0,
    "one": 0.1,
    "of examples": torch.tensor([0.1, 0.3]),
    "of tones": alphas(),
    "zero for one": torch.tensor([0.0, 0.1]),
}
POWERS = {"of streams": torch.rand(2, 1, 4), "of tones": torch.rand(1, 1, 4, SYMBOLS, FFT)}


@pytest.mark.parametrize("alpha", REGULARISED)
@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("still", [True, False])
@pytest.mark.parametrize("chunk", [2**21, 2**11], ids=["whole", "in runs"])
def test_exact_precoded_channels_are_those_of_sionna(chunk, still, power, alpha, monkeypatch):
    monkeypatch.setattr(blocks, "_CHUNK", chunk)
    grid, streams, h = downlink()
    h = h[..., :1, :].expand(h.shape).contiguous() if still else h
    ours, theirs = both("RZFPrecodedChannel", grid, streams)
    given, alpha = (h, POWERS[power].double()), REGULARISED[alpha]
    assert_exact([precoded(ours, *given, alpha=alpha, monkeypatch=monkeypatch)], [theirs(*given, alpha=alpha)])
    assert ours.report.tones == FFT * (1 if still else SYMBOLS)
    given = {"h_hat": 1.01 * h, "alpha": alpha}
    moving = channel(*h.shape[:5], dtype=h.dtype, seed=1)
    found = precoded(ours, moving, POWERS[power].double(), monkeypatch=monkeypatch, **given)
    assert_exact([found], [theirs(moving, POWERS[power].double(), **given)])


@pytest.mark.parametrize("transmitters", [1, 2])
@pytest.mark.parametrize("still", [True, False])
@pytest.mark.parametrize("effective", [True, False])
def test_exact_precoders_are_those_of_sionna(effective, still, transmitters, monkeypatch):
    grid, streams, h = downlink(transmitters)
    h = h[..., :1, :].expand(h.shape) if still else h
    x = drawn(2, transmitters, 4, SYMBOLS, FFT, dtype=torch.complex128).requires_grad_()
    ours, theirs = both("RZFPrecoder", grid, streams, return_effective_channel=effective)
    found = precoded(ours, x, h, alpha=0.1, monkeypatch=monkeypatch), theirs(x, h, alpha=0.1)
    found = [(y,) if isinstance(y, torch.Tensor) else y for y in found]
    assert_exact(*found)
    assert_exact(*(torch.autograd.grad(y[0].abs().square().sum(), x) for y in found))


@pytest.mark.parametrize("kind", ["RZFPrecodedChannel", "SVDPrecodedChannel"])
def test_an_estimate_that_stands_still_serves_a_channel_that_moves_by_a_map(kind):
    grid, streams, h = downlink() if kind == "RZFPrecodedChannel" else to_one()
    given, more = (h, torch.ones(2, 1, grid.num_streams_per_tx)), {"alpha": 0.1} if kind.startswith("RZF") else {}
    estimate = h[..., :1, :].expand(h.shape)
    mapped, exact = (
        getattr(blocks, kind)(grid, streams, precision="double", method=method, tol=1e-2)
        for method in ("auto", "exact")
    )
    found, expected = (block(*given, h_hat=estimate, **more) for block in (mapped, exact))
    assert_mapped(mapped)
    found, expected = (torch.linalg.vector_norm(x, dim=2) for x in (found, expected))  # of vectors with any phase
    assert torch.quantile((found / expected - 1).abs().flatten()[::7], 0.95) < 0.1


def test_powers_in_double_precision_are_taken():
    grid, streams, h = downlink(precision="single")
    block = blocks.RZFPrecodedChannel(grid, streams, method="exact")
    assert block(h, torch.ones(2, 1, 4, dtype=torch.float64), alpha=0.1).dtype == torch.complex64


def test_receivers_in_any_order_and_channels_that_are_followed(monkeypatch):
    grid, _, h = downlink(2)
    association = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
    ours, theirs = both("RZFPrecodedChannel", grid, StreamManagement(association, 4))
    found = []
    for call in (partial(precoded, ours, monkeypatch=monkeypatch), theirs):
        own = h.clone().requires_grad_()
        out = call(own, torch.ones(2, 2, 4), h_hat=1.01 * h, alpha=0.1)
        found.append((out, *torch.autograd.grad(out.abs().square().sum(), own)))
    assert_exact(*found)


@pytest.mark.parametrize("alpha", [0.0, 1e-9])
@pytest.mark.parametrize("size", [1e-17, 1.0, 1e12])
@pytest.mark.parametrize("weak", [1.0, 1e-4])
def test_single_precision_lets_little_through_to_other_streams(weak, size, alpha, monkeypatch):
    """Square channels, strong streams beside weak ones, and squares that vanish or grow beyond the precision."""
    grid, streams, h = downlink(antennas=4)
    h = size * independent(*h.shape[:5])
    h[:, 0] *= weak
    ours, given = blocks.RZFPrecodedChannel(grid, streams, method="exact"), {"alpha": alpha * (weak * size) ** 2}
    found = precoded(ours, h, torch.ones(2, 1, 4), monkeypatch=monkeypatch, **given)
    theirs = ofdm.RZFPrecodedChannel(grid, streams, precision="double")
    right = theirs(h.to(torch.complex128), torch.ones(2, 1, 4).double(), **given)
    # Beside the largest gain of the antenna at the tone.
    gain = h.abs().square().sum(dim=(3, 4)).sqrt()[:, :, :, None, None]
    kept = torch.as_tensor(grid.effective_subcarrier_ind).long()
    assert ((found - right).abs() / gain[..., kept]).max() < 3 * blocks._LEAK


UNUSUAL = {
    "below zero": (lambda h: h, -0.01, "below zero"),
    "NaN": (lambda h: torch.where(torch.arange(FFT) == 5, torch.nan, h), 0.1, "by Sionna's block"),
    "followed": (lambda h: h.clone().requires_grad_(), 0.1, "gradients or a compiler follow h"),
    "a user without paths": (lambda h: torch.cat([0 * h[:, :1], h[:, 1:]], 1), 0.0, "by Sionna's block"),
}


@pytest.mark.parametrize("method", ["auto", "exact"])
@pytest.mark.parametrize("name", UNUSUAL)
def test_precoders_that_are_left_to_sionna(name, method):
    grid, streams, h = downlink()
    change, alpha, why = UNUSUAL[name]
    ours, theirs = both("RZFPrecodedChannel", grid, streams, method)
    found, expected = (
        block(change(h), torch.ones(2, 1, 4), alpha=alpha).detach().nan_to_num(7.0) for block in (ours, theirs)
    )
    assert why in str(ours.report)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["auto", "exact", "map"])
def test_streams_that_are_no_antennas_of_the_receivers_are_refused_by_sionna(kind):
    grid, _, h = downlink(per=1)
    ours, theirs = both("RZFPrecodedChannel", grid, StreamManagement(np.ones((1, 1)), 1), kind)
    for block in (ours, theirs):
        assert_raises(ValueError, ["number of streams"], lambda block=block: block(h, torch.ones(2, 1, 1), alpha=0.1))


def test_rough_channels_get_exact_precoders(monkeypatch):
    grid, streams, h = downlink()
    rough = independent(*h.shape[:5]).to(h)
    ours, theirs = both("RZFPrecodedChannel", grid, streams, "auto")
    given = (rough, torch.ones(2, 1, 4))
    assert_exact([precoded(ours, *given, alpha=0.1, monkeypatch=monkeypatch)], [theirs(*given, alpha=0.1)])
    assert "used up" in ours.report.exact


def test_more_users_than_antennas_are_sionnas():
    grid, streams, h = downlink(antennas=3)
    ours, theirs = (
        block(grid, streams, precision="double") for block in (blocks.RZFPrecodedChannel, ofdm.RZFPrecodedChannel)
    )
    found, expected = (block(h, torch.ones(2, 1, 4), alpha=0.0).nan_to_num(7.0) for block in (ours, theirs))
    assert torch.equal(found, expected) and "zero forcing" in ours.report.exact


def to_one(streams=2, antennas=(4, 8), batch=2, **settings):
    """A receiver of several antennas, and a transmitter."""
    grid = resource_grid(streams=streams, **settings)
    gains = channel(batch, 1, antennas[0], 1, antennas[1], symbols=grid.num_ofdm_symbols, dtype=torch.complex128)
    return grid, StreamManagement(np.ones((1, 1)), streams), gains


def test_singular_vectors_carry_the_singular_values():
    grid, streams, h = to_one()
    block = blocks.SVDPrecodedChannel(grid, streams, precision="double", tol=1e-2)
    power = torch.tensor([2.0, 0.5]).expand(2, 1, 2)
    found = block(h, power)
    assert block.report.exact == ""
    assert found.shape == (2, 1, 4, 1, 2, SYMBOLS, grid.num_effective_subcarriers)
    kept = torch.as_tensor(grid.effective_subcarrier_ind).long()
    values = torch.linalg.svdvals(h[:, 0, :, 0].permute(0, 3, 4, 1, 2)[:, :, kept])[..., :2]
    own = found[:, 0, :, 0].permute(0, 3, 4, 1, 2) / power[0, 0].sqrt()
    both = torch.linalg.vector_norm(own, dim=(3, 4)) / torch.linalg.vector_norm(values, dim=3)
    assert (both - 1).abs().max() <= 0.02
    # From tone to tone the vectors go on: no jumps of the phase as LAPACK's have them.
    steps = torch.linalg.vector_norm(own.diff(dim=2), dim=3) / torch.linalg.vector_norm(own, dim=3)[:, :, 1:]
    assert steps.median() < 0.1


RANKS = {"full": 4, "two strong": 2}


@pytest.mark.parametrize("still", [True, False])
@pytest.mark.parametrize("antennas", [(4, 8), (8, 4)])
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("chunk", [2**21, 2**10], ids=["whole", "in runs"])
@pytest.mark.parametrize("precision", ["single", "double"])
def test_exact_singular_vectors_are_lapacks_and_phases_go_on(precision, chunk, rank, antennas, still, monkeypatch):
    monkeypatch.setattr(blocks, "_CHUNK", chunk)
    grid, streams, h = to_one(streams=3, antennas=antennas)
    h = h[..., :1, :].expand(h.shape) if still else h
    H = h[:, 0, :, 0].permute(0, 3, 4, 1, 2)
    if rank == "two strong":  # so that squares keep no digits of the third
        U, S, Vh = torch.linalg.svd(H, full_matrices=False)
        S = S * torch.tensor([1.0, 1.0, *[1e-4 if precision == "single" else 1e-9] * 2])
        H = (U * S[..., None, :]) @ Vh
        h = H.permute(0, 3, 4, 1, 2)[:, None, :, None]
    h = h.to(torch.complex64 if precision == "single" else torch.complex128)
    block = blocks.SVDPrecodedChannel(grid, streams, precision=precision, method="exact")
    found = block(h, torch.ones(2, 1, 3))[:, 0, :, 0].permute(0, 3, 4, 1, 2).to(H)
    kept = torch.as_tensor(grid.effective_subcarrier_ind).long()
    U, S, Vh = torch.linalg.svd(H, full_matrices=False)
    expected = (U[..., :3] * S[..., None, :3])[:, :, kept]
    overlap = (expected.conj() * found).sum(dim=3)
    phases = overlap / overlap.abs()
    eps = torch.finfo(block.dtype).eps
    gaps = (S[..., :-1] - S[..., 1:]).amin(dim=-1)[..., kept] / S[..., 0][..., kept]
    error = torch.linalg.vector_norm(found - expected * phases[..., None, :], dim=3) / S[..., :1][:, :, kept]
    assert (error <= 300 * eps / gaps[..., None] + 3 * blocks._LEAK * (precision == "single")).all()
    # The third would be swamped by what rounding adds of the first.
    assert (torch.linalg.vector_norm(found, dim=3) / S[..., :3][:, :, kept] - 1).abs().max() < 0.02
    V = H.mH[:, :, kept] @ found / S[..., None, :3][:, :, kept].square()
    steps = (V[:, :, :-1].conj() * V[:, :, 1:]).sum(dim=3)
    apart = torch.minimum(gaps[:, :, :-1], gaps[:, :, 1:]) > 0.05
    assert (steps.angle().abs()[..., :2][apart] < 0.05).all()
    # And at the first tone from symbol to symbol.
    steps = (V[:, :-1, 0].conj() * V[:, 1:, 0]).sum(dim=2)
    assert (steps.angle().abs()[..., :2] < 0.05).all()


def test_singular_vectors_of_rough_channels_are_exact():
    grid, streams, h = to_one()
    rough = independent(*h.shape[:5]).to(h)
    rough[1, ..., 40] = torch.nan
    block = blocks.SVDPrecodedChannel(grid, streams, precision="double")
    found = block(rough, torch.ones(2, 1, 2))[:, 0, :, 0].permute(0, 3, 4, 1, 2)
    assert "NaN or Inf" in block.report.exact
    kept = torch.as_tensor(grid.effective_subcarrier_ind).long()
    bad = ~found.isfinite().all(dim=4).all(dim=3)
    assert torch.equal(bad.nonzero()[:, 0].unique(), torch.tensor([1]))
    assert torch.equal(bad[1].nonzero()[:, 1].unique(), (kept == 40).nonzero()[0])
    values = torch.linalg.svdvals(rough[0, 0, :, 0].permute(2, 3, 0, 1)[:, kept])[..., :2]
    torch.testing.assert_close(torch.linalg.vector_norm(found[0], dim=2), values)


def test_gradients_pass_through_singular_vectors():
    grid, streams, h = to_one(batch=1)
    block = blocks.SVDPrecodedChannel(grid, streams, precision="double")
    h.requires_grad_()
    (gradient,) = torch.autograd.grad(block(h, torch.ones(1, 1, 2)).abs().square().sum(), h)
    # Of the sum of squares of the leading singular values: that of each matrix is 2 U S V^H of them.
    kept = torch.as_tensor(grid.effective_subcarrier_ind).long()
    U, S, Vh = torch.linalg.svd(h.detach()[0, 0, :, 0].permute(2, 3, 0, 1)[:, kept], full_matrices=False)
    expected = 2 * (U[..., :2] * S[..., None, :2]) @ Vh[..., :2, :]
    torch.testing.assert_close(gradient[0, 0, :, 0].permute(2, 3, 0, 1)[:, kept], expected)


def test_singular_vectors_serve_one_receiver():
    grid, streams, h = downlink()
    with pytest.raises(ValueError, match="one receiver for each transmitter"):
        blocks.SVDPrecodedChannel(grid, streams)(h, torch.ones(2, 1, 4))
    grid, streams, h = to_one(streams=6)
    with pytest.raises(ValueError, match="at least 6 antennas"):
        blocks.SVDPrecodedChannel(grid, streams)(h, torch.ones(2, 1, 6))


# Memory


def test_a_wide_band_takes_little_memory(monkeypatch):
    """273 resource blocks, 14 symbols, 64 antennas: Sionna's covariances alone would be 1.5 GB in single precision."""
    monkeypatch.undo()
    grid = resource_grid(symbols=14, fft=3276 + 12, streams=8)
    assert grid.num_effective_subcarriers == 3276
    block = blocks.LMMSEEqualizer(grid, StreamManagement(np.ones((1, 1)), 8), tol=TOL)
    h, y = channel(1, 1, 64, 1, 8, symbols=14, tones=3276, speed=5e-4), drawn(1, 1, 64, 14, grid.fft_size)
    peak = peak_bytes(lambda: block(y, h, torch.tensor(0.0), torch.tensor(0.1)))
    assert_mapped(block)
    print(peak / 1e6, h.nbytes / 1e6, block.report)
    assert peak < 2 * h.nbytes < 14 * 3276 * 64 * 64 * 8
