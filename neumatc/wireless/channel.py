"""Channels H(f) and H(t, f) given by their paths, at any frequency and time, and their Gram matrices."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neumatc import checks
from neumatc.batches import at_once, equal
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
        self._distinct, self._which = torch.unique(self.delays, dim=0, return_inverse=True)
        # Users of one table and delay spread have the same delays: then they are one block, and one product serves all.
        self._paths = coefficients.movedim(-1, 0) if moving else coefficients[None]  # (T, blocks, L, m, n)
        if len(self._distinct) == 1:
            self._paths, self._which = self._stacked(self._paths)[:, None], self._which[:1]
        self._paths = self._paths.contiguous()
        self.frequencies = None if frequencies is None else frequencies.to(device, torch.float64)
        self.times = times.to(device, torch.float64) if moving else None
        users, _, m, n = coefficients.shape[:4]
        self._shape = (m, users * n) if direction == "uplink" else (users * m, n)
        bounds, labels = ([lower], [upper]), {"names": ("frequency",), "units": ("Hz",), "grid": self.frequencies}
        if moving:
            good = self.times.shape == (coefficients.shape[-1], 1) and bool((self.times.diff(dim=0) > 0).all())
            expected = f"rising times of shape ({coefficients.shape[-1]}, 1), one for each coefficient of a path"
            checks.require(good and len(times) > 1, "times", expected, checks.describe(times), "give at least two")
            ends = [self.times[0, 0].item(), self.times[-1, 0].item()]
            bounds, labels = (
                ([ends[0], lower], [ends[1], upper]),
                {"names": ("time", "frequency"), "units": ("s", "Hz")},
            )
        super().__init__(self._response, *bounds, dtype=torch.float64, device=device, **labels)

    def _response(self, p: Tensor) -> Tensor:
        if self.times is None:
            return self._sums(self._paths, p[None])[0]
        _, which, counts = torch.unique(p[:, 0].detach(), return_inverse=True, return_counts=True)
        rows, first = which.argsort(stable=True), counts.cumsum(0) - counts
        step = max(1, _AT_ONCE * len(self.times) // self._paths.numel())
        H = self._paths.new_empty(len(p), *self._shape)
        for count in counts.unique().tolist():  # moments that have as many parameters, together
            for own in rows[first[counts == count, None] + torch.arange(count, device=p.device)].split(step):
                H[own.flatten()] = self._sums(self._at(p[own[:, 0], 0]), p[own][:, :, 1:]).flatten(0, 1)
        return H

    def _sums(self, a: Tensor, f: Tensor) -> Tensor:
        """Return sum_l a_l exp(-2 pi j f tau_l) for coefficients (T, blocks, L, m, n) and frequencies f (T, B, 1)."""
        rotations = torch.exp(-2j * math.pi * f[:, None] * self._distinct[:, None]).to(a.dtype)  # (T, distinct, B, L)
        return self._stacked((rotations[:, self._which] @ a.flatten(3)).unflatten(3, a.shape[3:]))

    def _at(self, t: Tensor) -> Tensor:
        """Return the coefficients (T, blocks, L, m, n) at times (T,): Lagrange's polynomials through the nearest."""
        nearest = min(_NEAREST, len(self.times))
        after = torch.searchsorted(self.times[:, 0].contiguous(), t.detach()).clamp_max(len(self.times) - 1)
        if not checks.followed(t) and torch.equal(self.times[after, 0], t):  # there they are given
            return self._paths[after]
        first = (after - nearest // 2).clamp(0, len(self.times) - nearest)
        which = first[:, None] + torch.arange(nearest, device=t.device)
        at = self.times[which, 0]
        own = torch.eye(nearest, dtype=torch.bool, device=t.device)
        quotients = (t[:, None] - at)[:, None] / (at[:, :, None] - at[:, None]).masked_fill(own, 1.0)
        weights = quotients.masked_fill(own, 1.0).prod(dim=2).to(self._paths.dtype)
        if t.is_cuda:  # one product of all samples, for which nothing waits
            weights = weights.new_zeros(len(t), len(self.times)).scatter(1, which, weights)
            return (weights @ self._paths.flatten(1)).view(-1, *self._paths.shape[1:])
        a = self._paths.new_empty(len(t), *self._paths.shape[1:])
        for start in first.unique().tolist():
            here, paths = first == start, self._paths[start : start + nearest]
            a[here] = (weights[here] @ paths.flatten(1)).view(-1, *paths.shape[1:])
        return a

    def _stacked(self, blocks: Tensor) -> Tensor:
        """Stack blocks (T, users, K, m, n) side by side (uplink) or above each other: (T, K) matrices."""
        if self.direction == "uplink":
            return blocks.permute(0, 2, 3, 1, 4).flatten(3)
        return blocks.transpose(1, 2).flatten(2, 3)

    def _at_once(self, families: Sequence[ParametricMatrix]) -> Callable[[Tensor], Tensor] | None:
        if type(self) is not Channel or not all(x._like(self) for x in families):
            return None
        axis, users = (2 if self.direction == "uplink" else 1), copy.copy(self)  # of all channels, side by side
        users._paths, delays = (
            torch.cat([x._paths for x in families], dim=1),
            [x._distinct[x._which] for x in families],
        )
        users._distinct, users._which = torch.unique(torch.cat(delays), dim=0, return_inverse=True)
        users._shape = tuple(n * (len(families) if i == axis - 1 else 1) for i, n in enumerate(self._shape))
        return lambda p: users._response(p).unflatten(axis, (len(families), -1)).movedim(axis, 1)

    def _like(self, other: Channel) -> bool:
        """Whether both have as many users and paths, and the same times and direction."""
        same = self._paths.shape == other._paths.shape and self.direction == other.direction
        return same and equal(self.times, other.times)

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
        return _Gram(self, checks.number("noise", noise, above=0.0))


class _Gram(ParametricMatrix):
    """The regularised Gram matrices of a channel."""

    def __init__(self, channel: Channel, noise: float):
        self.channel, self.noise = channel, noise
        super().__init__(lambda f: gram(channel._response(f), noise), **channel.domain)

    def _at_once(self, families: Sequence[ParametricMatrix]) -> Callable[[Tensor], Tensor] | None:
        own = at_once([family.channel for family in families])
        if own is None or any(family.noise != self.noise for family in families):
            return None
        return lambda p: gram(own(p).flatten(0, 1), self.noise).unflatten(0, (len(p), -1))
