"""Channels of other packages: their paths, with their padding, their blocked users and their layout, as a `Channel`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neumatc import checks
from neumatc.wireless.channel import Channel

# Most users that an error names.
_NAMED = 8


@checks.explained
def from_paths(
    coefficients: Tensor | np.ndarray | Sequence,
    delays: Tensor | np.ndarray | Sequence,
    lower: float,
    upper: float,
    *,
    direction: str = "uplink",
    frequencies: Tensor | np.ndarray | None = None,
    times: Tensor | np.ndarray | None = None,
) -> Channel:
    """Return the channel of paths as ray tracers and data sets hold them: padded, and some of them not there.

    A path is not there if its coefficients are all zero or all NaN, whatever its delay is. Such paths are left out; as
    many stay as the user with the most has. A user without any is an error: H would have zero columns, or rows.

    Where each pair of antennas has a delay of its own (spherical waves), the response stays exact: each antenna of a
    user becomes a user, and each path one for each antenna of the base station. Rows and columns keep their order. An
    evaluation then takes as many times the work, and memory for ``users * user antennas * L * base antennas`` phases
    for each frequency: ask for a few hundred at once.

    Args:
        coefficients: Path coefficients at the carrier, carrier phase included, shape (users, L, m, n), or
            (users, L, m, n, T) with ``times``; complex64 or complex128. Or a list with (L_u, m, n[, T]) for each user.
        delays: In seconds, shape (users, L), or (users, L, m, n) if each pair of antennas has its own. Or a list with
            (L_u,) or (L_u, m, n) for each user.
        lower, upper, direction, frequencies, times: As for `Channel`. m x n is base x user antennas for the
            ``"uplink"``, user x base antennas for the ``"downlink"``.

    Returns:
        The channel H(f) = sum_l a_l exp(-2 pi j f tau_l), in the precision of the coefficients.

    Raises:
        ValueError: For users without a path, a path with coefficients that are NaN or infinite in part, one with
            coefficients and no finite delay, or shapes that do not fit. Users are named by number.
        TypeError: For real coefficients.

    Example:
        >>> import numpy as np
        >>> from neumatc import wireless
        >>> a = np.array([[1.0 + 1.0j, 0.5j], [2.0 + 0.0j, np.nan]])[:, :, None, None]
        >>> channel = wireless.from_paths(a, np.array([[0.0, 1e-7], [5e-8, np.nan]]), -1e7, 1e7)
        >>> channel.shape
        (1, 2)
    """
    a, tau = _padded("coefficients", coefficients), _padded("delays", delays).double()
    good, got = a.is_complex(), checks.describe(a)
    checks.require(good, "coefficients", "complex numbers", got, "amplitude times exp(j phase)", TypeError)
    apart = tau.ndim == 4
    good = a.ndim == 4 + (times is not None) and tau.shape == a.shape[: 4 if apart else 2]
    expected = f"shapes (users, L, m, n{', T' * (times is not None)}) and (users, L) or (users, L, m, n)"
    got = f"{tuple(a.shape)} and {tuple(tau.shape)}"
    checks.require(good, "coefficients`, `delays", expected, got, "move the axis of the paths to the second place")
    a = torch.where(a.isnan().flatten(2).all(dim=2)[(...,) + (None,) * (a.ndim - 2)], 0.0, a)
    there, finite = (a != 0).flatten(2).any(dim=2), a.isfinite().flatten(2).all(dim=2)
    remedy = "mark a path that is not there by zeros or NaN in all its coefficients"
    _refuse("coefficients", ~finite.all(dim=1), "finite numbers", "NaN or Inf", remedy)
    remedy = "give a delay, or mark the path as not there by coefficients of zero"
    known = tau.isfinite().reshape(*there.shape, -1).all(dim=2)
    _refuse("delays", (there & ~known).any(dim=1), "a finite delay for each path with power", "none", remedy)
    remedy = "leave them out: `keep = (coefficients != 0)`, any over all axes but the first"
    _refuse("coefficients", ~there.any(dim=1), "a path for every user", "no path", remedy)
    # The paths that are there come first, in their order.
    order = (~there).int().argsort(dim=1, stable=True)[:, : int(there.sum(dim=1).max())]
    tau = torch.where(there[(...,) + (None,) * (tau.ndim - 2)], tau, 0.0)
    a, tau = (x[torch.arange(len(x))[:, None], order] for x in (a, tau))
    a, tau = _apart(a, tau, direction) if apart else (a, tau)
    given = {name: _tensor(name, x) for name, x in (("frequencies", frequencies), ("times", times)) if x is not None}
    return Channel(a, tau, lower, upper, direction=direction, **given)


@checks.explained
def from_cir(
    a: Tensor | np.ndarray,
    tau: Tensor | np.ndarray,
    lower: float,
    upper: float,
    *,
    direction: str = "uplink",
    frequencies: Tensor | np.ndarray | None = None,
    times: Tensor | np.ndarray | None = None,
) -> Channel:
    """Return the channel of an impulse response in Sionna's layout: Sionna RT's, Sionna PHY's, and OpenNTN's.

    One side is the base station: the only receiver (uplink) or transmitter (downlink). The other devices are the users.

    Args:
        a: Coefficients, shape (receivers, receive antennas, transmitters, transmit antennas, L, T), as
            ``paths.cir(out_type="numpy")`` gives them; of what a model of Sionna PHY or of OpenNTN gives, one example
            of the batch, ``a[0]``.
        tau: Delays in seconds, shape (receivers, transmitters, L), or with the antennas as ``a``.
        lower, upper, direction, frequencies: As for `Channel`.
        times: Times of the T coefficients in seconds, shape (T, 1); not needed if T is one.

    Returns:
        The channel, with the coefficients as they are: no power is changed.

    Raises:
        ValueError, TypeError: As `from_paths`.

    Example:
        >>> import torch
        >>> from neumatc import wireless
        >>> a, tau = torch.randn(1, 4, 3, 2, 5, 1, dtype=torch.complex64), torch.rand(1, 3, 5) * 1e-6
        >>> wireless.from_cir(a, tau, -1e7, 1e7).shape
        (4, 6)
    """
    uplink = checks.choice("direction", direction, ("uplink", "downlink")) == "uplink"
    a, tau = _tensor("a", a), _tensor("tau", tau)
    sides = (a.shape[0], a.shape[2]) if a.ndim == 6 else None
    good = sides and (tau.shape == (*sides, a.shape[4]) or tau.shape == a.shape[:5]) and sides[not uplink] == 1
    one = "transmitter" if not uplink else "receiver"
    expected = f"one {one}, and shapes (receivers, receive antennas, transmitters, transmit antennas, L, T) and "
    got = f"{tuple(a.shape)} and {tuple(tau.shape)}"
    checks.require(good, "a`, `tau", expected + "(receivers, transmitters, L)", got, f"take one example and one {one}")
    user, other = (2, 0) if uplink else (0, 2)
    a = a.select(other, 0).movedim(user - uplink, 0)  # (users, receive, transmit, L, T)
    pairs = tau.ndim == 5
    tau = tau.select(other, 0).movedim(user - uplink, 0).movedim(3, 1) if pairs else tau.select(other // 2, 0)
    good, remedy = times is not None or a.shape[-1] == 1, "give the times of the coefficients"
    checks.require(good, "times", f"times of shape ({a.shape[-1]}, 1)", times, remedy)
    a = a.movedim(3, 1) if times is not None else a[..., 0].movedim(3, 1)
    return from_paths(a, tau, lower, upper, direction=direction, frequencies=frequencies, times=times)


def _tensor(name: str, value: object) -> Tensor:
    """Return an array as a tensor, a tensor as it is."""
    return value if isinstance(value, Tensor) else checks.tensor(np.asarray(value), name)


def _padded(name: str, value: object) -> Tensor:
    """Return an array, or what a list has for each user, padded with NaN, as one tensor."""
    if not isinstance(value, (list, tuple)):
        return _tensor(name, value)
    users = [_tensor(name, own) for own in value]
    return torch.nn.utils.rnn.pad_sequence(users, batch_first=True, padding_value=float("nan"))


def _refuse(name: str, bad: Tensor, expected: str, got: str, remedy: str) -> None:
    """Raise an error that names the users for which ``bad`` is true."""
    users = bad.nonzero().flatten().tolist()
    named = ", ".join(map(str, users[:_NAMED])) + f" and {len(users) - _NAMED} more" * (len(users) > _NAMED)
    checks.require(not users, name, expected, f"{got} for {'users' if len(users) > 1 else 'user'} {named}", remedy)


def _apart(a: Tensor, tau: Tensor, direction: str) -> tuple[Tensor, Tensor]:
    """Return paths with one delay each: users are antennas of users, and paths belong to one base antenna each."""
    own = 3 if direction == "uplink" else 2  # the axis of a user's antennas
    a, tau = (x.movedim(own, 1).flatten(0, 1) for x in (a, tau))  # (users' antennas, L, base antennas[, T])
    eye = torch.eye(a.shape[2], dtype=a.dtype, device=a.device)
    a = (a[:, :, :, None] * eye[(...,) + (None,) * (a.ndim - 3)]).flatten(1, 2)
    return a.unsqueeze(own), tau.flatten(1, 2)
