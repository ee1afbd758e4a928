"""The 3GPP channels: equal to Sionna on the grid, exact between subcarriers, and the rates computed from them."""

import math
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from neumatc import wireless
from studies import practice

sionna_phy = pytest.importorskip("sionna.phy", reason='needs Sionna: pip install "neumatc[wireless]"')
# Of 5G at 30 kHz: 14 symbols in half a millisecond.
SYMBOL_RATE = 28e3
SMALL = {"subcarriers": 64, "base_antennas": (2, 3), "user_antennas": 2}


@pytest.fixture(autouse=True)
def keep_random_states():
    """The reference sets Sionna's seed, which resets torch's global generator: put both back after each test."""
    with torch.random.fork_rng(devices=[]):
        yield
        sionna_phy.config.seed = None


def close(actual, expected, scale=None):
    """Assert equality up to 20 units of rounding of the largest entry, at the precision of ``actual``."""
    eps = torch.finfo(actual.dtype).eps
    scale = expected.abs().max().item() if scale is None else scale
    torch.testing.assert_close(actual.to(expected.dtype), expected, rtol=0, atol=20 * eps * scale)


def sionna_channel(model, *, users, turns, base, user, direction, spread, seed, frequencies, speed=0.0, symbols=1):
    """Build the same draw through Sionna's public interface, up to its OFDM channel: (T N, m, n) in complex128."""
    from sionna.phy.channel import cir_to_ofdm_channel
    from sionna.phy.channel.tr38901 import CDL, PanelArray

    def panel(rows, columns, polarisations, pattern):
        return PanelArray(
            num_rows_per_panel=rows,
            num_cols_per_panel=columns,
            polarization="single" if polarisations == 1 else "dual",
            polarization_type="V" if polarisations == 1 else "cross",
            antenna_pattern=pattern,
            carrier_frequency=3.5e9,
            precision="double",
            device="cpu",
        )

    sionna_phy.config.seed = seed
    source = CDL(
        model,
        spread,
        3.5e9,
        panel(*user, "38.901"),
        panel(*base, "38.901"),
        direction=direction,
        bs_orientation=torch.tensor([[turn, 0.0, 0.0] for turn in turns], dtype=torch.float64),
        min_speed=speed,
        max_speed=speed,
        precision="double",
        device="cpu",
    )
    a, tau = source(users, symbols, SYMBOL_RATE)
    H = cir_to_ofdm_channel(frequencies, a, tau)[:, 0, :, 0].flatten(3)  # (users, receive, transmit, T N)
    return torch.cat(list(H.permute(0, 3, 1, 2)), dim=2 if direction == "uplink" else 1)


@pytest.mark.parametrize("model", ["A", "B", "C", "D", "E"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_equals_sionna_on_the_grid(model, dtype):
    from sionna.phy.channel import subcarrier_frequencies

    channel = wireless.cdl(
        model,
        subcarriers=3276,
        base_antennas=(2, 2, 2),
        user_antennas=(1, 1, 2),
        users=3,
        sector=90.0,
        power_control=False,
        delay_spread=100e-9,
        seed=7,
        dtype=dtype,
    )
    frequencies = subcarrier_frequencies(3276, 30e3, precision="double", device="cpu")
    assert torch.equal(channel.frequencies, frequencies[:, None])
    single = subcarrier_frequencies(3276, 30e3, precision="single", device="cpu")
    assert torch.equal(channel.frequencies.float(), single[:, None])  # the grid is exact in float32 too
    expected = sionna_channel(
        model,
        users=3,
        turns=[math.pi / 6, 0.0, -math.pi / 6],  # against the users' azimuths, -30, 0 and 30 degrees
        base=(2, 2, 2),
        user=(1, 1, 2),
        direction="uplink",
        spread=100e-9,
        seed=7,
        frequencies=frequencies,
    )
    H = channel(channel.frequencies)
    assert H.shape == (3276, 8, 6) and H.dtype == dtype
    # In double precision Sionna's phases, about 3,000 radians, carry the rounding: 2000 eps instead of 20.
    close(H, expected, scale=expected.abs().max().item() * (1 if dtype == torch.complex64 else 100))


@pytest.mark.parametrize("direction", ["uplink", "downlink"])
def test_moving_users_are_sionnas_at_the_symbols(direction):
    moving = {"speed": 30 / 3.6, "symbols": 14, "power_control": False, "dtype": torch.complex128}
    channel = wireless.cdl("C", **SMALL, users=2, direction=direction, delay_spread=300e-9, **moving)
    assert channel.names == ("time", "frequency") and channel.units == ("s", "Hz")
    expected = sionna_channel(
        "C",
        users=2,
        turns=[math.pi / 6, -math.pi / 6],
        base=(2, 3, 1),
        user=(1, 2, 1),
        direction=direction,
        spread=300e-9,
        seed=0,
        frequencies=channel.frequencies[:, 0],
        speed=30 / 3.6,
        symbols=14,
    )
    p = torch.cartesian_prod(channel.times[:, 0], channel.frequencies[:, 0])
    close(channel(p), expected, scale=100 * expected.abs().max().item())
    mixed = torch.randperm(len(p), generator=torch.Generator().manual_seed(0))[:500]
    close(channel(p[mixed]), expected[mixed], scale=100 * expected.abs().max().item())


def test_between_the_symbols_it_is_what_finer_samples_are():
    moving = {"speed": 120 / 3.6, "power_control": False, "dtype": torch.complex128}
    fine = wireless.cdl("C", **SMALL, users=2, symbols=33, **moving)
    coarse = wireless.Channel(fine.coefficients[..., ::2], fine.delays, -960e3, 930e3, times=fine.times[::2])
    p = torch.cartesian_prod(fine.times[:, 0], torch.tensor([-960e3, 1.5, 930e3], dtype=torch.float64))
    size = float(fine.coefficients.abs().sum(dim=1).max())
    # Doppler shifts of 390 Hz and samples 71 us apart: 1/36.
    assert float((coarse(p) - fine(p)).abs().max()) < 2e-6 * size
    still = p.clone()
    still[:, 0] = 0
    assert float((fine(p) - fine(still)).abs().max()) > 0.1 * size


def test_users_at_rest_stay_as_they_are_whatever_the_time():
    still, moving = (
        wireless.cdl("B", **SMALL, users=2, symbols=symbols, delay_spread=[5e-8, 3e-7]) for symbols in (1, 3)
    )
    p = moving.box.uniform(50, torch.Generator().manual_seed(0))
    close(moving(p), still(p[:, 1:]), scale=float(still(p[:, 1:]).abs().max()))


def test_a_channel_follows_time_and_frequency():
    channel = wireless.cdl("A", **SMALL, speed=30.0, symbols=14, dtype=torch.complex128)
    p = channel.box.uniform(5, torch.Generator().manual_seed(0)).requires_grad_()
    (slope,) = torch.autograd.grad(channel(p).real.sum(), p)
    for i, step in enumerate((1e-8, 1.0)):
        moved = torch.zeros(2, dtype=torch.float64)
        moved[i] = step
        up, down = (channel(p.detach() + sign * moved).real.sum(dim=(1, 2)) for sign in (1, -1))
        torch.testing.assert_close(
            slope[:, i], (up - down) / (2 * step), rtol=1e-4, atol=1e-4 * float(slope[:, i].abs().max())
        )


def test_downlink_stacks_rows_and_delay_spreads_may_differ():
    spreads = [50e-9, 300e-9]
    channel = wireless.cdl("A", **SMALL, users=2, delay_spread=spreads, direction="downlink", power_control=False)
    assert channel.shape == (4, 6)
    H = channel(channel.frequencies)
    for user, spread in enumerate(spreads):
        expected = sionna_channel(
            "A",
            users=2,
            turns=[math.pi / 6, -math.pi / 6],
            base=(2, 3, 1),
            user=(1, 2, 1),
            direction="downlink",
            spread=spread,
            seed=0,
            frequencies=channel.frequencies[:, 0],
        )
        block = slice(2 * user, 2 * user + 2)
        close(H[:, block], expected[:, block])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_between_subcarriers_equals_the_direct_sum(dtype):
    channel = wireless.cdl("E", base_antennas=2, user_antennas=1, users=2, delay_spread=1e-6, dtype=dtype)
    f = np.array([-49140e3, -12345678.9012345, 0.123, 49109999.5])
    direct = np.zeros((4, 2, 2), dtype=np.complex128)
    for user, (a, tau) in enumerate(zip(channel.coefficients.numpy(), channel.delays.numpy(), strict=True)):
        for path in range(len(tau)):
            rotation = np.exp(-2j * np.pi * f * tau[path])
            direct[:, :, user] += rotation[:, None] * a[path, :, 0].astype(np.complex128)
    scale = 1.0 if dtype == torch.complex64 else 100.0
    close(channel(torch.from_numpy(f)[:, None]), torch.from_numpy(direct), scale=scale)


# Drops and tapped delay lines


def sionna_drop(scenario, direction, *, users, frequencies, speed, symbols, seed):
    """Build a drop through Sionna's public interface, up to its OFDM channel: (T N, m, n) in complex128."""
    from sionna.phy.channel import cir_to_ofdm_channel, gen_single_sector_topology, tr38901

    room = {"precision": "double", "device": "cpu"}
    panel = {"polarization_type": "V", "polarization": "single", "carrier_frequency": 3.5e9, **room}
    base, user = (
        tr38901.PanelArray(num_rows_per_panel=rows, num_cols_per_panel=columns, antenna_pattern=pattern, **panel)
        for rows, columns, pattern in ((2, 3, "38.901"), (1, 2, "omni"))
    )
    sionna_phy.config.seed = seed
    loss = {} if scenario == "RMa" else {"o2i_model": "low"}
    arrays = {"ut_array": user, "bs_array": base, "direction": direction}
    model = getattr(tr38901, scenario)(carrier_frequency=3.5e9, **arrays, **loss, **room)
    speeds = {"min_ut_velocity": speed, "max_ut_velocity": speed}
    model.set_topology(*gen_single_sector_topology(1, users, scenario.lower(), **speeds, **room))
    a, tau = model(symbols, SYMBOL_RATE)
    H = cir_to_ofdm_channel(frequencies, a, tau)[0]  # (receivers, receive, transmitters, transmit, T, N)
    if direction == "uplink":
        return H[0].flatten(1, 2).permute(2, 3, 0, 1).flatten(0, 1)
    return H[:, :, 0].flatten(0, 1).permute(2, 3, 0, 1).flatten(0, 1)


@pytest.mark.parametrize("scenario", ["UMi", "UMa", "RMa"])
@pytest.mark.parametrize("direction", ["uplink", "downlink"])
def test_a_drop_is_sionnas(scenario, direction):
    moving = {"speed": 2.0, "symbols": 2, "dtype": torch.complex128}
    channel = wireless.drop(scenario, **SMALL, users=5, direction=direction, seed=4, **moving)
    expected = sionna_drop(
        scenario,
        direction,
        users=5,
        frequencies=channel.frequencies[:, 0],
        speed=2.0,
        symbols=2,
        seed=4,
    )
    found = channel(torch.cartesian_prod(channel.times[:, 0], channel.frequencies[:, 0]))
    axis = 1 if direction == "uplink" else 2
    # User by user: powers lie many decades apart.
    for own, other in zip(found.chunk(5, dim=3 - axis), expected.chunk(5, dim=3 - axis)):
        close(own, other, scale=100 * other.abs().max().item())


def test_users_of_a_drop_are_near_and_far_and_in_time():
    channel = wireless.drop("UMi", **SMALL, users=40, seed=1)
    gains = 10 * torch.log10(channel.coefficients.abs().square().sum(dim=(1, 2, 3)))
    assert float(gains.max() - gains.min()) > 30
    assert float(gains.min()) > -140 and float(gains.max()) < -50
    # Paths of no power do not count: Sionna puts them a second away.
    assert float(channel.delays.max()) < 1e-5
    controlled = wireless.drop("UMi", **SMALL, users=40, seed=1, power_control=True)
    energy = controlled.coefficients.abs().square().sum(dim=(1, 2)).mean(dim=1)
    torch.testing.assert_close(energy, torch.ones(40), rtol=1e-5, atol=0)


def test_a_tapped_delay_line_is_sionnas_without_correlation():
    from sionna.phy.channel import cir_to_ofdm_channel
    from sionna.phy.channel.tr38901 import TDL

    settings = {"subcarriers": 64, "delay_spread": 2e-7, "power_control": False, "dtype": torch.complex128}
    channel = wireless.tdl("D", **settings, base_antennas=3, user_antennas=2, users=2, speed=20.0, symbols=3, seed=5)
    sionna_phy.config.seed = 5
    antennas = {"num_rx_ant": 3, "num_tx_ant": 2, "precision": "double", "device": "cpu"}
    a, tau = TDL("D", 2e-7, 3.5e9, min_speed=20.0, max_speed=20.0, **antennas)(2, 3, SYMBOL_RATE)
    expected = cir_to_ofdm_channel(channel.frequencies[:, 0], a, tau)[:, 0, :, 0]
    expected = torch.cat(list(expected.permute(0, 3, 4, 1, 2).flatten(1, 2)), dim=2)
    found = channel(torch.cartesian_prod(channel.times[:, 0], channel.frequencies[:, 0]))
    close(found, expected, scale=100 * expected.abs().max().item())


@pytest.mark.parametrize("direction", ["uplink", "downlink"])
def test_antennas_of_a_tapped_delay_line_are_correlated_as_asked(direction):
    phase = torch.exp(1j * torch.tensor([0.0, 0.7, 1.9], dtype=torch.float64))
    base = 0.8 * torch.outer(phase, phase.conj()) + 0.2 * torch.eye(3)
    line = torch.exp(1j * torch.tensor([0.0, 2.1], dtype=torch.float64))
    user = torch.outer(line, line.conj())  # of rank one: it has no Cholesky factor
    counts = {"base_antennas": 3, "user_antennas": 2, "users": 3000}
    correlations = {"base_correlation": base, "user_correlation": user}
    channel = wireless.tdl(
        "A", **counts, **correlations, power_control=False, direction=direction, dtype=torch.complex128
    )
    H = channel.coefficients.sum(dim=1)  # at the carrier
    H = H if direction == "uplink" else H.mT
    for R, blocks in ((base, H), (user, H.mT)):
        found = (blocks @ blocks.mH).mean(dim=0)
        found = found / found.diagonal().real.mean()
        assert float((found - R).abs().max()) < 0.08  # 3,000 draws
    assert float((H[:, :, 1] - H[:, :, 0] * line[1]).abs().max()) < 1e-7


def test_users_are_spread_over_the_sector():
    # Omnidirectional elements, one vertical column: a turn about the vertical axis changes nothing at the array.
    column = {"base_antennas": (4, 1), "user_antennas": 1, "base_pattern": "omni", "users": 2, "subcarriers": 8}
    f = wireless.cdl("C", **column).frequencies
    near, far = (wireless.cdl("C", **column, sector=sector, dtype=torch.complex128)(f) for sector in (0.0, 120.0))
    close(near, far)
    row = column | {"base_antennas": 4}
    near, far = (wireless.cdl("C", **row, sector=sector)(f) for sector in (0.0, 120.0))
    assert (near - far).abs().max() > 0.1
    # In the line of sight of CDL-D, at 98.5 degrees from the zenith, the phase between neighbours gives the azimuth.
    channel = wireless.cdl("D", **row, sector=120.0, dtype=torch.complex128)
    strongest = channel.coefficients[:, 0, :, 0]
    phases = torch.angle(strongest[:, 1:] / strongest[:, :-1]).mean(dim=1)
    azimuths = torch.rad2deg(torch.asin(phases / math.pi / math.sin(math.radians(98.5))))
    # The scattered power of the first path, 13.3 dB below, moves a phase by some 12 degrees and the azimuth by some 3.
    torch.testing.assert_close(azimuths, torch.tensor([-30.0, 30.0], dtype=torch.float64), rtol=0, atol=6)


@pytest.mark.parametrize("direction", ["uplink", "downlink"])
def test_power_control_gives_every_stream_unit_energy_at_the_array(direction):
    settings = {**SMALL, "users": 3, "direction": direction}
    free, controlled = (wireless.cdl("B", **settings, power_control=value) for value in (False, True))
    base, user = (2, 3) if direction == "uplink" else (3, 2)
    energies = controlled.coefficients.abs().square().sum(dim=(1, base), keepdim=True).mean(dim=user)
    torch.testing.assert_close(energies.flatten(), torch.ones(3), rtol=1e-6, atol=0)
    ratio = controlled.coefficients / free.coefficients
    close(ratio, ratio[:, :1, :1, :1].expand_as(ratio).clone())


@pytest.mark.parametrize("model", ["A", "B", "C", "D", "E"])
def test_mean_gain_without_power_control(model):
    channel = wireless.cdl(
        model,
        **SMALL,
        users=100,
        base_pattern="omni",
        user_pattern="omni",
        sector=0.0,
        power_control=False,
        dtype=torch.complex128,
    )
    gains = channel.coefficients.abs().square().sum(dim=1).mean(dim=(1, 2))
    # Five standard errors of the mean of 100 independent draws.
    assert abs(gains.mean().item() - 1) < 5 * gains.std().item() / math.sqrt(100)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_gram(dtype):
    channel = wireless.cdl("C", **SMALL, users=2, dtype=dtype)
    gram = channel.gram(0.1)
    assert gram.shape == (4, 4) and gram.dtype == dtype and gram.names == ("frequency",) and gram.units == ("Hz",)
    f = channel.lower + (channel.upper - channel.lower) * torch.rand(20, 1, dtype=torch.float64)
    G, H = gram(f), channel(f).to(torch.complex128)
    close(G, H.mH @ H + 0.1 * torch.eye(4, dtype=torch.float64))
    close(G, G.mH.clone())
    eigenvalues = torch.linalg.eigvalsh(G)
    assert eigenvalues.min() >= 0.1 - 20 * torch.finfo(dtype).eps * eigenvalues.max()


def test_a_seed_fixes_the_channel():
    first, again, other = (wireless.cdl("A", **SMALL, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.coefficients, again.coefficients)
    assert not torch.allclose(first.coefficients, other.coefficients, rtol=0.1)
    double = wireless.cdl("A", **SMALL, seed=3, dtype=torch.complex128)
    assert torch.equal(first.coefficients, double.coefficients.to(torch.complex64))
    assert torch.equal(first.delays, double.delays)


def test_global_state_is_untouched():
    config = sionna_phy.config
    config.seed = 11
    random.seed(1), np.random.seed(1)  # noqa: NPY002 (the legacy state is what is watched)
    config.py_rng.random(), config.np_rng.random()

    def state():
        return [
            torch.get_rng_state().tolist(),
            config.torch_rng("cpu").get_state().tolist(),
            config.py_rng.getstate(),
            str(config.np_rng.bit_generator.state),
            random.getstate(),
            str(np.random.get_state()),  # noqa: NPY002
            (config.seed, config.precision, config.device),
            (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()),
        ]

    before = state()
    wireless.cdl("A", **SMALL)(torch.zeros(1, 1))
    assert state() == before


@pytest.mark.slow
def test_importing_sionna_leaves_torch_random_state():
    code = """
import torch
from neumatc import wireless
torch.manual_seed(5)
before = torch.get_rng_state()
wireless.cdl("A", subcarriers=8, base_antennas=1, user_antennas=1)
assert torch.equal(before, torch.get_rng_state())
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(wireless.__file__).parents[2])


def test_a_missing_sionna_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "sionna.phy.channel.tr38901", None)
    with pytest.raises(ImportError, match=r'pip install "neumatc\[wireless\]"'):
        wireless.cdl("A")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "F"}, "`model`: expected 'A', 'B', 'C', 'D' or 'E', got 'F'"),
        ({"direction": "up"}, "`direction`: expected 'uplink' or 'downlink', got 'up'"),
        ({"delay_spread": -1e-9}, "`delay_spread`: expected a finite number above 0"),
        ({"delay_spread": [1e-7, 2e-7], "users": 3}, "`delay_spread`: expected one value or 3"),
        ({"subcarriers": 1}, "`subcarriers`: expected at least 2, got 1"),
        ({"subcarrier_spacing": math.nan}, "`subcarrier_spacing`: expected a finite number"),
        ({"carrier_frequency": 0}, "`carrier_frequency`: expected a finite number above 0"),
        ({"users": 0}, "`users`: expected at least 1"),
        ({"sector": -1.0}, "`sector`: expected a finite number at least 0 and at most 360"),
        ({"sector": 400.0}, "`sector`"),
        ({"seed": -1}, "`seed`: expected at least 0"),
        ({"base_antennas": (2, 2, 3)}, "`base_antennas`: expected a number"),
        ({"user_antennas": 0}, "`user_antennas`: expected at least 1"),
        ({"user_antennas": (4,)}, "`user_antennas`: expected a number"),
        ({"base_pattern": "dipole"}, "`base_pattern`: expected 'omni' or '38.901', got 'dipole'"),
        ({"speed": 1.0}, "`speed`: expected 0 for one symbol, got 1.0; ask for more symbols: 14 are a slot"),
        ({"speed": -1.0, "symbols": 2}, "`speed`: expected a finite number at least 0"),
        ({"symbols": 0}, "`symbols`: expected at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        wireless.cdl(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wireless.drop("UMx"), "`scenario`: expected 'UMi', 'UMa' or 'RMa', got 'UMx'"),
        (lambda: wireless.drop(penetration="none"), "`penetration`: expected 'low' or 'high'"),
        (lambda: wireless.drop(users=0), "`users`: expected at least 1"),
        (lambda: wireless.drop(speed=3.0), "`speed`: expected 0 for one symbol"),
        (lambda: wireless.tdl("F"), "`model`: expected 'A', 'B', 'C', 'D' or 'E'"),
        (lambda: wireless.tdl(base_antennas=(2, 2)), "`base_antennas`: expected an integer"),
        (lambda: wireless.tdl(delay_spread=0.0), "`delay_spread`: expected a finite number above 0"),
        (
            lambda: wireless.tdl(base_correlation=torch.eye(3)),
            "`base_correlation`: expected a Hermitian matrix of shape",
        ),
        (
            lambda: wireless.tdl(base_antennas=2, base_correlation=torch.tensor([[1.0, 2.0], [2.0, 1.0]])),
            "`base_correlation`: expected no negative eigenvalue, got -1; take a covariance",
        ),
        (
            lambda: wireless.tdl(base_antennas=2, base_correlation=torch.tensor([[1.0, 0.5], [0.2, 1.0]])),
            "`base_correlation`: expected a Hermitian matrix",
        ),
    ],
)
def test_bad_drops_and_tapped_delay_lines(call, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call()


def test_bad_types():
    with pytest.raises(TypeError, match="`dtype`: expected torch.complex64 or torch.complex128, got torch.float32"):
        wireless.cdl("A", dtype=torch.float32)
    with pytest.raises(TypeError, match="`users`: expected an integer"):
        wireless.cdl("A", users=1.5)
    with pytest.raises(TypeError, match="`coefficients`: expected complex64 or complex128"):
        wireless.Channel(torch.ones(1, 2, 3, 4), torch.ones(1, 2), -1.0, 1.0)
    paths = torch.ones(1, 2, 3, 4, dtype=torch.complex64)
    with pytest.raises(ValueError, match=r"`delays`: expected shapes .* got \(1, 2, 3, 4\) and \(2,\)"):
        wireless.Channel(paths, torch.ones(2), -1.0, 1.0)
    with pytest.raises(ValueError, match="`coefficients`, `delays`: expected shapes"):
        wireless.Channel(paths[0], torch.ones(1, 2), -1.0, 1.0)
    moving, delays = paths[..., None].repeat(1, 1, 1, 1, 3), torch.ones(1, 2)
    with pytest.raises(ValueError, match=r"expected shapes \(users, L, m, n, T\) and \(users, L\)"):
        wireless.Channel(paths, delays, -1.0, 1.0, times=torch.arange(3.0)[:, None])
    for times in (torch.arange(2.0)[:, None], torch.arange(3.0), torch.zeros(3, 1)):
        with pytest.raises(ValueError, match=r"`times`: expected rising times of shape \(3, 1\)"):
            wireless.Channel(moving, delays, -1.0, 1.0, times=times)


def test_band_and_noise():
    channel = wireless.cdl("A", **SMALL)
    for noise in (0.0, -0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="`noise`: expected a finite number above 0"):
            channel.gram(noise)
    outside = channel.upper[:, None] * 2
    with pytest.raises(ValueError, match="extrapolate=True"):
        channel(outside)
    assert channel(outside, extrapolate=True).shape == (1, *channel.shape)
    odd = wireless.cdl("A", base_antennas=1, user_antennas=1, subcarriers=5, subcarrier_spacing=15e3)
    assert odd.frequencies[:, 0].tolist() == [-30e3, -15e3, 0.0, 15e3, 30e3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_sum_rate_equals_a_loop(dtype):
    generator = torch.Generator().manual_seed(0)
    H = torch.randn(5, 6, 3, dtype=dtype, generator=generator)
    W = torch.randn(5, 3, 6, dtype=dtype, generator=generator)
    rates = wireless.sum_rate(H, W, 0.3)
    assert rates.shape == (5,) and rates.dtype == dtype.to_real()
    for b in range(5):
        h, w, expected = H[b].numpy().astype(complex), W[b].numpy().astype(complex), 0.0
        for k in range(3):
            interference = sum(abs(w[k] @ h[:, j]) ** 2 for j in range(3) if j != k)
            sinr = abs(w[k] @ h[:, k]) ** 2 / (interference + 0.3 * np.linalg.norm(w[k]) ** 2)
            expected += math.log2(1 + sinr)
        assert rates[b].item() == pytest.approx(expected, rel=50 * torch.finfo(dtype).eps)


def test_sum_rate_of_orthogonal_streams_is_the_capacity():
    noise, gains = 0.2, torch.tensor([3.0, 1.0, 0.1], dtype=torch.float64)
    H = torch.linalg.qr(torch.randn(4, 5, 3, dtype=torch.complex128)).Q * gains
    eye = torch.eye(3, dtype=torch.float64)
    W = torch.from_numpy(np.linalg.inv((H.mH @ H + noise * eye).numpy())) @ H.mH
    capacity = torch.linalg.eigvalsh(eye + H.mH @ H / noise).log2().sum(dim=1)
    torch.testing.assert_close(wireless.sum_rate(H, W, noise), capacity, rtol=1e-12, atol=0)
    scales = torch.tensor([1e-3, 2j, -7.0], dtype=torch.complex128)[:, None]
    torch.testing.assert_close(wireless.sum_rate(H, scales * W, noise), capacity, rtol=1e-12, atol=0)
    silent = W.clone()
    silent[:, 0] = 0
    expected = capacity - math.log2(1 + 9.0 / noise)
    torch.testing.assert_close(wireless.sum_rate(H, silent, noise), expected, rtol=1e-12, atol=0)


def test_the_regularised_inverse_maximises_the_sum_rate():
    channel = wireless.cdl("C", **SMALL, users=2, dtype=torch.complex128)
    H = channel(channel.frequencies)
    W = torch.from_numpy(np.linalg.inv(channel.gram(0.1)(channel.frequencies).numpy())) @ H.mH
    best = wireless.sum_rate(H, W, 0.1)
    # No linear receiver beats the capacity, log2 det(I + H^H H / noise); NumPy, as torch's batched LU is not trusted.
    capacity = np.linalg.slogdet(np.eye(4) + (H.mH @ H).numpy() / 0.1).logabsdet / math.log(2)
    assert (best.numpy() <= capacity).all()
    for other in (H.mH, torch.linalg.pinv(H), W + 0.01 * torch.randn(W.shape, dtype=W.dtype)):
        assert (wireless.sum_rate(H, other, 0.1) <= best).all()


def test_precoded_rate_is_that_of_water_without_filling():
    """With exact singular vectors: sum of log2(1 + sigma^2 / (k s)); any other orthonormal precoder has less."""
    channel = wireless.cdl("C", **SMALL, direction="downlink", dtype=torch.complex128)
    H = channel(channel.frequencies[:5])
    _, S, Vh = torch.linalg.svd(H, full_matrices=False)
    k = 2
    V, noise = Vh.mH[:, :, :k], 0.05
    best = practice.precoded_rate(H, V, noise)
    expected = torch.log2(1 + S[:, :k] ** 2 / (k * noise)).sum(dim=1)
    torch.testing.assert_close(best, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(practice.precoded_rate(H, 3j * V, noise), best, rtol=1e-12, atol=0)  # power is scaled
    for seed in range(5):
        draw = torch.randn(V.shape, dtype=V.dtype, generator=torch.Generator().manual_seed(seed))
        assert (practice.precoded_rate(H, torch.linalg.qr(draw).Q, noise) < best).all()
    for wrong, error in ((V.real, TypeError), (V[0], TypeError), (V[:2], ValueError), (V.mT, ValueError)):
        for rate in (practice.precoded_rate, practice.stream_rate):
            with pytest.raises(error, match="`V`"):
                rate(H, wrong, noise)
    for rate in (practice.precoded_rate, practice.stream_rate):
        with pytest.raises(ValueError, match="`noise`"):
            rate(H, V, 0.0)


def test_sum_rate_rejects_bad_input():
    H, W = torch.ones(2, 4, 3), torch.ones(2, 3, 4)
    cases = [
        (ValueError, "`noise`: expected a finite number above 0", (H, W, 0.0)),
        (ValueError, r"`W`: expected shape \(2, 3, 4\)", (H, H, 0.1)),
        (ValueError, r"`H`: expected shape \(4, m, n\)", (H[0], W[0], 0.1)),
        (TypeError, "`W`: expected torch.float32 like `H`", (H, W.double(), 0.1)),
        (TypeError, "`H`: expected a torch.Tensor", (H.numpy(), W, 0.1)),
        (TypeError, "`W`: expected one of float32", (H, W.to(torch.float16), 0.1)),
    ]
    for kind, message, arguments in cases:
        with pytest.raises(kind, match=message):
            wireless.sum_rate(*arguments)
