"""3GPP TR 38.901 channels H(f) and H(t, f) at any frequency and time, their Gram matrices, and the sum rate."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neumatc import checks, linalg
from neumatc.families import ParametricMatrix
from neumatc.linalg import gram

# Samples of the coefficients through which a time between two of them is interpolated.
_NEAREST = 8
# Coefficients that are interpolated in time at once.
_AT_ONCE = 2**22


class Channel(ParametricMatrix):
    """A frequency response given by its paths, H(f) = sum_l a_l exp(-2 pi j f tau_l), users side by side.

    f is the offset from the carrier in Hz. It is carried in float64 and so are the phases, which reach thousands of
    radians; they are rounded to the precision of the coefficients only as exp(...). H(f) takes one matrix product,
    (B, L) by (L, users m n), or one per user where their delays differ. The users' blocks are stacked as columns
    (uplink) or as rows (downlink).

    With ``times`` the users move: H(t, f) = sum_l a_l(t) exp(-2 pi j f tau_l) has two parameters, time in seconds
    before frequency. The coefficients are given at these times, and between two of them each is the polynomial through
    the eight nearest, or through all if there are fewer. Of equidistant ones this misses a ray by 2e-6 of its size at
    most if its Doppler shift times their spacing is below 1/20: for OFDM symbols at 30 kHz, below 1.4 kHz.

    Args:
        coefficients: Path coefficients a, shape (users, L, m, n), complex64 or complex128; (users, L, m, n, T) with
            ``times``, as Sionna's channel models give them.
        delays: Path delays tau in seconds, shape (users, L), real.
        lower: Lower end of the band, in Hz from the carrier.
        upper: Upper end of the band, above ``lower``.
        direction: ``"uplink"`` or ``"downlink"``.
        frequencies: The subcarriers in Hz from the carrier, shape (N, 1), if the band has a grid.
        times: Times of the coefficients in seconds, shape (T, 1), rising, at least two; for OFDM those of the symbols.

    Attributes:
        coefficients, delays, direction, frequencies, times: As above, all but the coefficients in float64.

    Raises:
        ValueError: For a wrong shape or direction, an empty band, times that do not rise, or NaN or Inf in H at the
            centre of the band.
        TypeError: For real coefficients.
    """

    @checks.explained
    def __init__(
        self,
        coefficients: Tensor,
        delays: Tensor,
        lower: float,
        upper: float,
        *,
        direction: str = "uplink",
        frequencies: Tensor | None = None,
        times: Tensor | None = None,
    ):
        good, got = coefficients.dtype in checks.COMPLEX.values(), coefficients.dtype
        checks.require(good, "coefficients", "complex64 or complex128", got, "convert them with `.to`", TypeError)
        moving = times is not None
        good, got = delays.shape == coefficients.shape[:2], f"{tuple(coefficients.shape)} and {tuple(delays.shape)}"
        expected = f"shapes (users, L, m, n{', T' * moving}) and (users, L)"
        remedy = "give each user's paths along the second axis, and time, if there are `times`, along the last"
        checks.require(good and coefficients.ndim == 4 + moving, "coefficients`, `delays", expected, got, remedy)
        device = coefficients.device
        self.coefficients, self.delays = coefficients, delays.to(device, torch.float64)
        self.direction = checks.choice("direction", direction, ("uplink", "downlink"))
        # Users of one table and delay spread have the same delays: then one product serves all.
        self._distinct, self._which = torch.unique(self.delays, dim=0, return_inverse=True)
        self.frequencies = None if frequencies is None else frequencies.to(device, torch.float64)
        self.times = times.to(device, torch.float64) if moving else None
        users, _, m, n = coefficients.shape[:4]
        self._shape = (m, users * n) if direction == "uplink" else (users * m, n)
        bounds, labels = ([lower], [upper]), {"names": ("frequency",), "units": ("Hz",), "grid": self.frequencies}
        if moving:
            good = self.times.shape == (coefficients.shape[-1], 1) and bool((self.times.diff(dim=0) > 0).all())
            expected = f"rising times of shape ({coefficients.shape[-1]}, 1), one for each coefficient of a path"
            checks.require(good and len(times) > 1, "times", expected, checks.describe(times), "give at least two")
            ends = self.times[[0, -1], 0].tolist()
            bounds, labels = (
                ([ends[0], lower], [ends[1], upper]),
                {"names": ("time", "frequency"), "units": ("s", "Hz")},
            )
        super().__init__(self._response, *bounds, dtype=torch.float64, device=device, **labels)

    def _response(self, p: Tensor) -> Tensor:
        if self.times is None:
            return self._sums(self.coefficients[None], p[None])[0]
        _, which, counts = torch.unique(p[:, 0].detach(), return_inverse=True, return_counts=True)
        rows = which.argsort(stable=True).split(counts.tolist())
        alike = min(counts) == max(counts)
        step = max(1, _AT_ONCE * len(self.times) // self.coefficients.numel()) if alike else 1
        H = self.coefficients.new_empty(len(p), *self._shape)
        for i in range(0, len(rows), step):
            own = torch.stack(rows[i : i + step])  # (moments, parameters at each)
            H[own.flatten()] = self._sums(self._at(p[own[:, 0], 0]), p[own][:, :, 1:]).flatten(0, 1)
        return H

    def _sums(self, a: Tensor, f: Tensor) -> Tensor:
        """Return sum_l a_l exp(-2 pi j f tau_l) for coefficients (T, users, L, m, n) and frequencies f (T, B, 1)."""
        rotations = torch.exp(-2j * math.pi * f[:, None] * self._distinct[:, None]).to(a.dtype)  # (T, distinct, B, L)
        if len(self._distinct) == 1:
            joint = self._stacked(a)
            return (rotations[:, 0] @ joint.flatten(2)).unflatten(2, joint.shape[2:])
        return self._stacked((rotations[:, self._which] @ a.flatten(3)).unflatten(3, a.shape[3:]))

    def _at(self, t: Tensor) -> Tensor:
        """Return the coefficients (T, users, L, m, n) at times (T,): Lagrange's polynomials through the nearest."""
        nearest = min(_NEAREST, len(self.times))
        after = torch.searchsorted(self.times[:, 0].contiguous(), t.detach())
        first = (after - nearest // 2).clamp(0, len(self.times) - nearest)
        at = self.times[first[:, None] + torch.arange(nearest, device=t.device), 0]
        own = torch.eye(nearest, dtype=torch.bool, device=t.device)
        quotients = (t[:, None] - at)[:, None] / (at[:, :, None] - at[:, None]).masked_fill(own, 1.0)
        weights = quotients.masked_fill(own, 1.0).prod(dim=2).to(self.coefficients.dtype)
        a = self.coefficients.new_empty(len(t), *self.coefficients.shape[:-1])
        for start in first.unique().tolist():
            here = first == start
            a[here] = (self.coefficients[..., start : start + nearest] @ weights[here].mT).movedim(-1, 0)
        return a

    def _stacked(self, blocks: Tensor) -> Tensor:
        """Stack blocks (T, users, K, m, n) side by side (uplink) or above each other: (T, K) matrices."""
        if self.direction == "uplink":
            return blocks.permute(0, 2, 3, 1, 4).flatten(3)
        return blocks.transpose(1, 2).flatten(2, 3)

    def gram(self, noise: float) -> ParametricMatrix:
        """Return the regularised Gram matrix f -> H(f)^H H(f) + noise I, Hermitian positive definite.

        Its inverse is the core of the linear minimum-mean-square-error receiver W = (H^H H + noise I)^(-1) H^H of
        the uplink y = H x + w, E[x x^H] = I, E[w w^H] = noise I. A downlink that is the transpose of this uplink
        (reciprocity) needs the complex conjugate of the same inverse for regularised zero-forcing. So take the
        uplink: with ``direction="downlink"`` the matrix is as large as the base station has antennas.

        Args:
            noise: Noise power per receive antenna over the transmit power per stream, above zero. Under perfect
                power control (see ``cdl``) the diagonal of H^H H is one on average, so 1 / noise is the mean
                signal-to-noise ratio of a stream after maximum-ratio combining over the whole array, before the
                other streams interfere: 0.1 is 10 dB.

        Returns:
            A family on the same band, of the channel's dtype and device. Eigenvalues are at least ``noise``, so the
            condition number is at most ``1 + |H|_2^2 / noise``, with ``|H|_2`` the largest singular value.

        Raises:
            ValueError: If ``noise`` is not finite and above zero.
        """
        noise = checks.number("noise", noise, above=0.0)

        def fn(f: Tensor) -> Tensor:
            return gram(self._response(f), noise)

        return ParametricMatrix(fn, self.lower, self.upper, grid=self.grid, **self.box.settings())


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
    path of every user has delay zero), interference from other cells, channel estimation. Coefficients are those at
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
            the faster H varies along frequency.
        base_antennas: (rows, columns, 2) for a panel of cross-polarised (+-45 degrees) pairs, (rows, columns) for a
            panel of vertically polarised elements, N for a horizontal line of N of them. Order as in Sionna's
            ``PanelArray``.
        user_antennas: The same for each user.
        base_pattern: Pattern of the base station's elements: ``"38.901"`` (65 degrees wide) or ``"omni"``. Patterns
            weaken clusters off boresight, which lowers the numerical rank of H along frequency: report them.
        user_pattern: The same for the users, whose panels face the base station. The default suits fixed terminals
            with directional panels; ``"omni"`` is TR 38.901's choice for hand-held ones below 6 GHz, and makes H vary
            much faster along frequency.
        users: Number of users.
        sector: Angle in degrees, 0 to 360, over which the users are spread. One user stands in its middle.
        power_control: Whether to normalise each user's mean received energy per stream to one.
        speed: Of each user in m/s; 3 km/h are 0.83, 30 km/h 8.3. Needs ``symbols`` above one.
        symbols: OFDM symbols, at least 1: their times are multiples of 15/14 over the subcarrier spacing, the mean over a
            slot of 5G with normal cyclic prefixes; 14 make a slot. One: an instant, and frequency alone is a parameter.
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
    checks.choice("direction", direction, ("uplink", "downlink"))
    carrier_frequency = checks.number("carrier_frequency", carrier_frequency, above=0.0)
    good, expected = dtype in checks.COMPLEX.values(), "torch.complex64 or torch.complex128"
    checks.require(good, "dtype", expected, checks.shown(dtype), "take one of them", TypeError)
    users, seed = checks.integer("users", users, 1), checks.seed(seed)
    spreads = [checks.number("delay_spread", s, above=0.0) for s in checks.each("delay_spread", delay_spread, users)]
    sector = checks.number("sector", sector, at_least=0.0, at_most=360.0)
    panels = [_panel("base", base_antennas, base_pattern), _panel("user", user_antennas, user_pattern)]
    count = checks.integer("subcarriers", subcarriers, 2)
    spacing = checks.number("subcarrier_spacing", subcarrier_spacing, above=0.0)
    frequencies = (torch.arange(count, dtype=torch.float64)[:, None] - count // 2) * spacing
    lower, upper = frequencies[0].item(), frequencies[-1].item()
    speed, symbols = checks.number("speed", speed, at_least=0.0), checks.integer("symbols", symbols, 1)
    checks.require(symbols > 1 or not speed, "speed", "0 for one symbol", speed, "ask for more: symbols=14 is a slot")
    duration = 15 / 14 / spacing

    (config,) = from_sionna("sionna.phy", "config")
    CDL, PanelArray = from_sionna("sionna.phy.channel.tr38901", "CDL", "PanelArray")
    room = {"precision": "double", "device": "cpu"}
    base, user = (PanelArray(**panel, carrier_frequency=carrier_frequency, **room) for panel in panels)
    azimuths = math.radians(sector) * ((torch.arange(users, dtype=torch.float64) + 0.5) / users - 0.5)
    turns = torch.stack([-azimuths, torch.zeros(users), torch.zeros(users)], dim=1)
    # The tables hold delays in units of the delay spread: a spread of one second leaves them as they are.
    motion = {"bs_orientation": turns, "min_speed": speed, "max_speed": speed}
    source = CDL(model, 1.0, carrier_frequency, user, base, direction=direction, **motion, **room)
    # Sionna draws from its own generator. Setting `config.seed` would reset every generator, torch's global ones too.
    generator = config.torch_rng("cpu")
    state = generator.get_state()
    try:
        generator.manual_seed(seed)
        a, tau = source(batch_size=users, num_time_steps=symbols, sampling_frequency=1 / duration)
    finally:
        generator.set_state(state)
    # (users, 1, receive, 1, transmit, L, T) -> (users, L, receive, transmit, T), and (users, 1, 1, L) -> (users, L)
    a, tau = a[:, 0, :, 0].movedim(-2, 1).contiguous(), tau[:, 0, 0]
    if power_control:
        energy = a.abs().square().sum(dim=(1, 2, 3)).mean(dim=-1) / a.shape[3 if direction == "uplink" else 2]
        a = a / energy.sqrt()[:, None, None, None, None]
    a, tau = a.to(device, dtype), tau * torch.tensor(spreads, dtype=torch.float64)[:, None]
    times = torch.arange(symbols, dtype=torch.float64)[:, None] * duration
    a, times = (a, times) if symbols > 1 else (a[..., 0], None)
    return Channel(a, tau, lower, upper, direction=direction, frequencies=frequencies, times=times)


@checks.explained
def sum_rate(H: Tensor, W: Tensor, noise: float | Tensor) -> Tensor:
    """Return the achievable sum rate of the linear equaliser W y for y = H x + w, in bit/s/Hz.

    ``sum_k log2(1 + SINR_k)``, ``SINR_k = |w_k h_k|^2 / (sum_{j != k} |w_k h_j|^2 + w_k R w_k^H)``, w_k the k-th row
    of W and h_j the j-th column of H: Gaussian symbols of unit power, each stream decoded by itself with the others
    taken as noise, H known to the receiver. The rate is achieved by any W, exact or approximate, and is largest for
    W = H^H (H H^H + R)^(-1). Scaling a row of W by a number other than zero does not change it; a row of zeros
    carries no rate.

    Args:
        H: Channels, shape (B, M, K).
        W: Equalisers, shape (B, K, M), of the dtype and on the device of H.
        noise: Noise power per receive antenna over the transmit power per stream, above zero; or the covariance R of
            the noise, shape (M, M) or (B, M, M), of the dtype and on the device of H, Hermitian positive definite,
            which is not checked.

    Returns:
        The rates, shape (B,), real, of the precision of H.

    Raises:
        TypeError: If H, W or R is not a tensor of a supported dtype, or their dtypes differ.
        ValueError: For wrong shapes, different devices, or a ``noise`` that is not finite and above zero.
    """
    return torch.log1p(1 / post_equalisation_noise(H, W, noise)).sum(dim=1) / math.log(2.0)


@checks.explained
def post_equalisation_noise(H: Tensor, W: Tensor, noise: float | Tensor) -> Tensor:
    """Return the variance of what the equaliser W y adds to each symbol, once its bias is divided out: 1 / SINR_k.

    x_k + e_k = w_k y / (w_k h_k) for y = H x + w, and the variance of e_k is
    ``(sum_{j != k} |w_k h_j|^2 + w_k R w_k^H) / |w_k h_k|^2``: what a demapper takes for its noise, the ``no_eff`` of
    Sionna's ``lmmse_equalizer``. That computes it as 1 / (w_k h_k) - 1, which holds for exact LMMSE filters only; this
    holds for any W, biased or not.

    Args:
        H, W, noise: As for `sum_rate`.

    Returns:
        The variances, shape (B, K), real, of the precision of H; Inf for a row of W that gives no signal.

    Raises:
        TypeError, ValueError: As `sum_rate` does.

    Example:
        >>> import torch
        >>> H = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
        >>> post_equalisation_noise(H, H.mT, noise=0.5)
        tensor([[0.1250, 0.5000]])
    """
    H = checks.matrices("H", H, H, anything=True)
    B, M, K = H.shape
    W = checks.matrices("W", W, H, anything=True)
    given = [("W", W, [(B, K, M)])]
    if isinstance(noise, Tensor) and noise.ndim:
        given.append(("noise", noise, [(M, M), (B, M, M)]))
    else:
        noise = checks.number("noise", noise, above=0.0)
    for name, x, shapes in given:
        same, got = tuple(x.shape) in shapes and x.device == H.device, f"{tuple(x.shape)} on {x.device}"
        checks.require(x.dtype == H.dtype, name, f"{H.dtype} like `H`", x.dtype, "convert it with `.to(H)`", TypeError)
        checks.require(same, name, f"shape {shapes[-1]} on {H.device} for `H`", got, "convert it")
    own, disturbance = linalg.outputs(H, W, noise)
    return disturbance.clamp_min(torch.finfo(disturbance.dtype).tiny) / own.abs().square()


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
