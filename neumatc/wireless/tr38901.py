"""Channels of 3GPP TR 38.901 through Sionna: clustered and tapped delay lines, and drops of users in a cell."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neumatc import checks
from neumatc.wireless.channel import Channel

# Sionna computes in double precision on the CPU: a seed means one channel for every dtype and device.
_ROOM = {"precision": "double", "device": "cpu"}
SCENARIOS = {"UMi": "umi", "UMa": "uma", "RMa": "rma"}


@checks.explained
def cdl(
    model: str = "C",
    *,
    carrier_frequency: float = 3.5e9,
    subcarriers: int = 3276,
    subcarrier_spacing: float = 30e3,
    delay_spread: float | Sequence[float] = 30e-9,
    base_antennas: int | Sequence[int] = (4, 8, 2),
    user_antennas: int | Sequence[int] = (1, 2, 2),
    base_pattern: str = "38.901",
    user_pattern: str = "38.901",
    users: int = 1,
    sector: float = 120.0,
    power_control: bool = True,
    speed: float = 0.0,
    symbols: int = 1,
    direction: str = "uplink",
    seed: int = 0,
    dtype: torch.dtype = torch.complex64,
    device: torch.device | str = "cpu",
) -> Channel:
    """Draw a clustered-delay-line channel of 3GPP TR 38.901 (clause 7.7.1) through Sionna.

    ``cdl("C", users=8)`` is the 64 x 32 uplink of eight users with four antennas each, and
    ``cdl("C", user_antennas=(2, 4, 2), direction="downlink")`` a 16 x 64 downlink to one user.

    What is modelled: powers, delays, angles and cross-polarisation of the tabulated clusters, 20 rays each, with
    random ray coupling and phases, independent from user to user. Elements are half a wavelength apart. Users stand at
    the azimuths of the centres of ``users`` equal slices of ``sector``, as a scheduler that picks well separated
    users would have them. A user at azimuth theta is made by turning the base station's array by -theta about the
    vertical, which is to add theta to every azimuth there: the translation of angles by which clause 7.7.5.1 extends
    CDL to MIMO. With ``sector=0`` all users share the table's cluster angles, as if they stood in one direction.

    With ``symbols`` above one the users move, each with the ``speed`` in a random direction: the Doppler shifts of
    clause 7.5, step 11. Then H has two parameters, time and frequency, and is Sionna's at the times of the symbols.
    Delays and angles stay, so the time should be short: 10 ms at 30 km/h are 8 cm, one wavelength at 3.5 GHz.

    What is not modelled: path loss, shadowing, blockage, timing and frequency errors (the first
    path of every user has delay zero), interference from other cells and, between symbols and tones, from paths that
    come after the cyclic prefix, channel estimation. Coefficients are those at
    the carrier over the whole band, as in TR 38.901, so the band should be narrow against the carrier.

    Normalisation: cluster powers sum to one, so with omnidirectional elements, one polarisation and no power control
    ``E|H_ij|^2 = 1``. Patterns (38.901: 8 dBi at boresight) and two polarisations change that, from user to user.
    Perfect power control multiplies the coefficients of each user by the number that makes ``sum_l |a_l|^2``, summed
    over the base station's antennas and averaged over the user's, equal to one: a stream arrives at the whole array
    with unit mean energy, and the noise level alone sets the signal-to-noise ratio. Only those numbers tell the result
    from Sionna's own channel.

    Args:
        model: ``"A"``, ``"B"``, ``"C"`` (no line of sight), ``"D"``, ``"E"`` (line of sight).
        carrier_frequency: Carrier in Hz. TR 38.901 holds from 0.5e9 to 100e9 (not enforced).
        subcarriers: Number N of subcarriers, at least 2, at the offsets -(N // 2), ..., (N - 1) // 2 times the
            spacing, as in Sionna. The box runs from the first to the last. Default: 3,276, the 273 resource blocks
            of a 100 MHz carrier.
        subcarrier_spacing: In Hz.
        delay_spread: Root-mean-square delay spread in seconds, above zero: one number, or one for each user. With
            one number all users have the same delays (those of the table), though not the same coefficients.
            TR 38.901 (Table 7.7.3-1) calls 10e-9 very short, 30e-9 short, 100e-9 nominal, 300e-9 long. The longer,
            the faster H varies along frequency. It is that of the table: directional patterns leave less of it.
        base_antennas: (rows, columns, 2) for a panel of cross-polarised (+-45 degrees) pairs, (rows, columns) for a
            panel of vertically polarised elements, N for a horizontal line of N of them. Order as in Sionna's
            ``PanelArray``.
        user_antennas: The same for each user.
        base_pattern: Pattern of the base station's elements: ``"38.901"`` (65 degrees wide) or ``"omni"``. Patterns
            weaken clusters off boresight, which lowers the numerical rank of H along frequency: report them.
        user_pattern: The same for the users, whose panels face the base station. The default suits fixed terminals
            with directional panels; ``"omni"`` is a common choice for hand-held ones, and makes H vary
            much faster along frequency.
        users: Number of users.
        sector: Angle in degrees, 0 to 360, over which the users are spread. One user stands in its middle.
        power_control: Whether to normalise each user's mean received energy per stream to one.
        speed: Of each user in m/s; 3 km/h are 0.83, 30 km/h 8.3. Needs ``symbols`` above one.
        symbols: OFDM symbols, at least 1: their times are multiples of 15/14 over the subcarrier spacing, the mean over
            a slot of 5G with normal cyclic prefixes; 14 make a slot. One: an instant, frequency alone is a parameter.
        direction: ``"uplink"``: H is base antennas x all user antennas; ``"downlink"``: all user antennas x base
            antennas. One seed gives different draws for the two, not transposes.
        seed: Seed of the draw, at least 0. It means the same channel for every dtype and device, as Sionna computes
            it in double precision on the CPU. Sionna's configuration and all random states stay as they were.
        dtype: complex64 or complex128.
        device: Device of the family.

    Returns:
        The channel, over the frequency offset from the carrier in Hz, or over time in seconds and that offset. A to E
        have 23, 23, 24, 13 and 14 paths.

    Raises:
        ImportError: If Sionna is not installed.
        ValueError, TypeError: For an argument out of range or of a wrong type.

    Example:
        >>> import torch
        >>> from neumatc import wireless
        >>> channel = wireless.cdl("A", users=8, seed=1)
        >>> channel(channel.frequencies[:5]).shape, channel.gram(noise=0.1)(torch.tensor([[1.2345e6]])).shape
        (torch.Size([5, 64, 32]), torch.Size([1, 32, 32]))
    """
    checks.choice("model", model, ("A", "B", "C", "D", "E"))
    setting = _Setting(
        carrier_frequency, subcarriers, subcarrier_spacing, speed, symbols, direction, seed, dtype, device
    )
    users = checks.integer("users", users, 1)
    spreads = [checks.number("delay_spread", s, above=0.0) for s in checks.each("delay_spread", delay_spread, users)]
    sector = checks.number("sector", sector, at_least=0.0, at_most=360.0)
    base, user = setting.panels((base_antennas, base_pattern), (user_antennas, user_pattern))
    azimuths = math.radians(sector) * ((torch.arange(users, dtype=torch.float64) + 0.5) / users - 0.5)
    turns = torch.stack([-azimuths, torch.zeros(users), torch.zeros(users)], dim=1)
    (CDL,) = from_sionna("sionna.phy.channel.tr38901", "CDL")
    motion = {"bs_orientation": turns, "min_speed": speed, "max_speed": speed}
    # The tables hold delays in units of the delay spread: a spread of one second leaves them as they are.
    source = CDL(model, 1.0, carrier_frequency, user, base, direction=direction, **motion, **_ROOM)
    a, tau = setting.drawn(lambda: source(users, symbols, setting.rate))
    # (users, 1, receive, 1, transmit, L, T) and (users, 1, 1, L).
    tau = tau[:, 0, 0] * torch.tensor(spreads, dtype=torch.float64)[:, None]
    return setting.channel(a[:, 0, :, 0].movedim(-2, 1), tau, power_control)


@checks.explained
def tdl(
    model: str = "C",
    *,
    carrier_frequency: float = 3.5e9,
    subcarriers: int = 3276,
    subcarrier_spacing: float = 30e3,
    delay_spread: float = 30e-9,
    base_antennas: int = 8,
    user_antennas: int = 1,
    users: int = 1,
    base_correlation: Tensor | None = None,
    user_correlation: Tensor | None = None,
    power_control: bool = True,
    speed: float = 0.0,
    symbols: int = 1,
    direction: str = "uplink",
    seed: int = 0,
    dtype: torch.dtype = torch.complex64,
    device: torch.device | str = "cpu",
) -> Channel:
    r"""Draw a tapped-delay-line channel of 3GPP TR 38.901 (clause 7.7.2) through Sionna, with correlated antennas.

    Every tap of every pair of antennas fades by itself (Rayleigh; the first of D and E is Ricean). Antennas are
    correlated as in :math:`H = R_b^{1/2} G R_u^{T/2}` for the uplink, and its transpose for the downlink: the columns
    of H have the covariance :math:`R_b` over the base station's antennas, the rows :math:`R_u` over the user's. The
    roots are the Hermitian ones, so matrices without full rank are allowed. (Sionna 2.2.0 takes Cholesky factors,
    which these do not have, and its ``tx_corr_mat`` gives the conjugate of what its text says; so it draws G alone.)

    Args:
        model: ``"A"``, ``"B"``, ``"C"`` (no line of sight), ``"D"``, ``"E"`` (line of sight).
        base_antennas, user_antennas: Numbers of antennas.
        base_correlation, user_correlation: R_b and R_u, Hermitian with ones on the diagonal, shapes
            (base_antennas, base_antennas) and (user_antennas, user_antennas); default: none.
        carrier_frequency, subcarriers, subcarrier_spacing, delay_spread: As for `cdl`; one spread for all users.
        users, power_control, speed, symbols, direction, seed, dtype, device: As for `cdl`.

    Returns:
        The channel, over the frequency offset from the carrier in Hz, or over time in seconds and that offset.

    Raises:
        ImportError: If Sionna is not installed.
        ValueError, TypeError: For an argument out of range or of a wrong type.

    Example:
        >>> from neumatc import wireless
        >>> wireless.tdl("A", users=4, delay_spread=100e-9).shape
        (8, 4)
    """
    checks.choice("model", model, ("A", "B", "C", "D", "E"))
    setting = _Setting(
        carrier_frequency, subcarriers, subcarrier_spacing, speed, symbols, direction, seed, dtype, device
    )
    users, spread = checks.integer("users", users, 1), checks.number("delay_spread", delay_spread, above=0.0)
    sides = {"base": (base_antennas, base_correlation), "user": (user_antennas, user_correlation)}
    counts = {side: checks.integer(f"{side}_antennas", count, 1) for side, (count, _) in sides.items()}
    roots = {side: _root(f"{side}_correlation", R, counts[side]) for side, (_, R) in sides.items()}
    receive, transmit = ("base", "user") if direction == "uplink" else ("user", "base")
    (TDL,) = from_sionna("sionna.phy.channel.tr38901", "TDL")
    antennas = {"num_rx_ant": counts[receive], "num_tx_ant": counts[transmit]}
    source = TDL(model, spread, carrier_frequency, min_speed=speed, max_speed=speed, **antennas, **_ROOM)
    a, tau = setting.drawn(lambda: source(users, symbols, setting.rate))
    a = a[:, 0, :, 0].movedim(-2, 1)  # (users, L, receive, transmit, T)
    a = torch.einsum("xi,ulijt,yj->ulxyt", roots[receive], a, roots[transmit])
    return setting.channel(a, tau[:, 0, 0], power_control)


@checks.explained
def drop(
    scenario: str = "UMi",
    *,
    carrier_frequency: float = 3.5e9,
    subcarriers: int = 3276,
    subcarrier_spacing: float = 30e3,
    base_antennas: int | Sequence[int] = (4, 8, 2),
    user_antennas: int | Sequence[int] = 1,
    base_pattern: str = "38.901",
    user_pattern: str = "omni",
    users: int = 8,
    penetration: str = "low",
    power_control: bool = False,
    speed: float = 0.0,
    symbols: int = 1,
    direction: str = "uplink",
    seed: int = 0,
    dtype: torch.dtype = torch.complex64,
    device: torch.device | str = "cpu",
) -> Channel:
    """Drop users at random in a sector of a cell of 3GPP TR 38.901 (clauses 7.2 to 7.5), through Sionna.

    Parameters are those of the version of TR 38.901 that is Sionna's default: V19.2 from Sionna 2.1 on.

    What a clustered delay line leaves out is there: path loss, shadow fading, users with and without line of sight,
    indoors and outdoors, each with delays and angles of its own. So the powers of eight users of a UMi drop lie about
    30 to 70 dB apart, some 45 dB in the median of a dozen drops. Positions, heights, and the part of users that are
    indoors are Sionna's defaults for the scenario.

    Coefficients hold the path gain: ``|H_ij|^2`` is received over transmitted power, about 1e-8 to 1e-14. The noise
    that goes with them is that of a subcarrier, over the transmitted power in it: 30 kHz at 290 K with a noise figure
    of 5 dB is -124 dBm, and 23 dBm over 3,276 subcarriers are -12 dBm in each, so ``noise=6e-12``.

    What is not modelled: other cells, blockage, timing and frequency errors, and interference from the symbol before,
    though paths of some users come after a normal cyclic prefix. Delays are those after the first path of each user, as
    in the standard, so all users are in time.

    Args:
        scenario: ``"UMi"`` (street canyon), ``"UMa"`` or ``"RMa"`` (macro cells, urban and rural).
        penetration: Loss into buildings, ``"low"`` or ``"high"``, for UMi and UMa.
        power_control: Whether to normalise each user's mean received energy per stream to one, as `cdl` does. Then
            near and far users are gone, and ``noise`` is as there.
        carrier_frequency, subcarriers, subcarrier_spacing, symbols, direction, seed, dtype, device: As for `cdl`.
        users, base_antennas, user_antennas, base_pattern, user_pattern, speed: As for `cdl`; headings are random.

    Returns:
        The channel, over the frequency offset from the carrier in Hz, or over time in seconds and that offset.

    Raises:
        ImportError: If Sionna is not installed.
        ValueError, TypeError: For an argument out of range or of a wrong type.

    Example:
        >>> from neumatc import wireless
        >>> channel = wireless.drop("UMi", users=8, seed=1)
        >>> channel.shape
        (64, 8)
    """
    name = SCENARIOS[checks.choice("scenario", scenario, tuple(SCENARIOS))]
    setting = _Setting(
        carrier_frequency, subcarriers, subcarrier_spacing, speed, symbols, direction, seed, dtype, device
    )
    users, penetration = checks.integer("users", users, 1), checks.choice("penetration", penetration, ("low", "high"))
    base, user = setting.panels((base_antennas, base_pattern), (user_antennas, user_pattern))
    (Model,) = from_sionna("sionna.phy.channel.tr38901", scenario)
    (topology,) = from_sionna("sionna.phy.channel", "gen_single_sector_topology")
    loss = {} if scenario == "RMa" else {"o2i_model": penetration}

    def draw() -> tuple[Tensor, Tensor]:
        panels = {"ut_array": user, "bs_array": base, "direction": direction}
        source = Model(carrier_frequency=carrier_frequency, **panels, **loss, **_ROOM)
        source.set_topology(*topology(1, users, name, min_ut_velocity=speed, max_ut_velocity=speed, **_ROOM))
        return source(symbols, setting.rate)

    a, tau = setting.drawn(draw)
    # (receivers, receive, transmitters, transmit, L, T) and (receivers, transmitters, L); one side is the base station.
    a, tau = (a[0, 0].movedim(1, 0), tau[0, 0]) if direction == "uplink" else (a[0, :, :, 0], tau[0, :, 0])
    # Paths of no power may come seconds late: users with fewer clusters than others have them (Sionna 2.2.0).
    there = (a != 0).any(dim=-1).any(dim=2).any(dim=1)
    return setting.channel(a.movedim(-2, 1), torch.where(there, tau, 0.0), power_control)


@dataclass(frozen=True)
class _Setting:
    """What all draws have in common, checked.

    Attributes:
        carrier_frequency, subcarriers, spacing, speed, symbols, direction, seed, dtype, device: As for `cdl`.
    """

    carrier_frequency: float
    subcarriers: int
    spacing: float
    speed: float
    symbols: int
    direction: str
    seed: int
    dtype: torch.dtype
    device: torch.device | str

    def __post_init__(self) -> None:
        checks.choice("direction", self.direction, ("uplink", "downlink"))
        checks.number("carrier_frequency", self.carrier_frequency, above=0.0)
        good, expected = self.dtype in checks.COMPLEX.values(), "torch.complex64 or torch.complex128"
        checks.require(good, "dtype", expected, checks.shown(self.dtype), "take one of them", TypeError)
        checks.seed(self.seed)
        checks.integer("subcarriers", self.subcarriers, 2)
        checks.number("subcarrier_spacing", self.spacing, above=0.0)
        speed, symbols = checks.number("speed", self.speed, at_least=0.0), checks.integer("symbols", self.symbols, 1)
        good, remedy = symbols > 1 or not speed, "ask for more symbols: 14 are a slot"
        checks.require(good, "speed", "0 for one symbol", speed, remedy)

    @property
    def rate(self) -> float:
        """Symbols in a second: the mean over a slot of 5G, whose cyclic prefixes take a fifteenth of the time."""
        return self.spacing * 14 / 15

    def panels(self, *sides: tuple[int | Sequence[int], str]) -> list[object]:
        """Return Sionna's arrays for the base station and a user."""
        arguments = [_panel(side, *given) for side, given in zip(("base", "user"), sides)]
        (PanelArray,) = from_sionna("sionna.phy.channel.tr38901", "PanelArray")
        return [PanelArray(**own, carrier_frequency=self.carrier_frequency, **_ROOM) for own in arguments]

    def drawn(self, draw: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return what Sionna draws with the seed; its generator stays as it was.

        Setting its ``config.seed`` would reset every generator, torch's global ones too.
        """
        (config,) = from_sionna("sionna.phy", "config")
        generator = config.torch_rng("cpu")
        state = generator.get_state()
        try:
            generator.manual_seed(self.seed)
            return draw()
        finally:
            generator.set_state(state)

    def channel(self, a: Tensor, tau: Tensor, power_control: bool) -> Channel:
        """Return the channel of coefficients (users, L, receive, transmit, T) and delays (users, L)."""
        if checks.flag("power_control", power_control):
            energy = a.abs().square().sum(dim=(1, 2, 3)).mean(dim=-1) / a.shape[3 if self.direction == "uplink" else 2]
            a = a / energy.sqrt()[:, None, None, None, None]
        a = a.to(self.device, self.dtype).contiguous()
        f = (torch.arange(self.subcarriers, dtype=torch.float64)[:, None] - self.subcarriers // 2) * self.spacing
        times = torch.arange(self.symbols, dtype=torch.float64)[:, None] / self.rate
        a, times = (a, times) if self.symbols > 1 else (a[..., 0], None)
        ends = f[0].item(), f[-1].item()
        return Channel(a, tau, *ends, direction=self.direction, frequencies=f, times=times)


def _root(name: str, R: Tensor | None, count: int) -> Tensor:
    """Return the Hermitian root of a correlation matrix in double precision; that of none is the identity."""
    if R is None:
        return torch.eye(count, dtype=torch.complex128)
    R = torch.as_tensor(R).to("cpu", torch.complex128)
    good = R.shape == (count, count) and bool(torch.isfinite(R).all()) and bool((R.diagonal() - 1).abs().max() < 1e-6)
    good = good and bool((R - R.mH).abs().max() < 1e-6)
    expected = f"a Hermitian matrix of shape ({count}, {count}) with ones on the diagonal"
    checks.require(good, name, expected, checks.describe(R), "divide it by its diagonal")
    values, vectors = torch.linalg.eigh(R)
    least = float(values[0])
    checks.require(least > -1e-6, name, "no negative eigenvalue", f"{least:.3g}", "take a covariance")
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.mH


def from_sionna(module: str, *names: str) -> list:
    """Import names from a module of Sionna's, or say how to install it.

    Args:
        module: Such as ``"sionna.phy.channel"``.
        names: What is wanted of it.

    Returns:
        The objects, in order.
    """
    # Importing Sionna seeds torch's global generators anew.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            return [getattr(importlib.import_module(module), name) for name in names]
        except ImportError as error:
            raise ImportError(f'`{module}` is not there: run `pip install "neumatc[wireless]"`.') from error


def _panel(side: str, antennas: int | Sequence[int], pattern: str) -> dict:
    """Return the arguments of Sionna's PanelArray for N, (rows, columns) or (rows, columns, polarisations)."""
    sizes = tuple(antennas) if isinstance(antennas, Sequence) else (1, antennas)
    good, expected = sizes[2:] in ((), (1,), (2,)), "a number or (rows, columns[, polarisations: 1 or 2])"
    good, got = good and len(sizes) > 1, checks.shown(antennas)
    checks.require(good, f"{side}_antennas", expected, got, "give for example (4, 4, 2)")
    dual = sizes[2:] == (2,)
    return {
        "num_rows_per_panel": checks.integer(f"{side}_antennas", sizes[0], 1),
        "num_cols_per_panel": checks.integer(f"{side}_antennas", sizes[1], 1),
        "polarization": "dual" if dual else "single",
        "polarization_type": "cross" if dual else "V",
        "antenna_pattern": checks.choice(f"{side}_pattern", pattern, ("omni", "38.901")),
    }
