"""The box of parameters: bounds, scales, periodic axes and labels, and the cube [-1, 1]^d that it is scaled to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from neumatc import checks

SCALES = ("linear", "log")


class Box:
    r"""A box in R^d, each axis linear or logarithmic, periodic or not.

    Every computation happens on the cube :math:`x \in [-1, 1]^d`. A linear axis is scaled by
    :math:`x = (2 p - l - u) / (u - l)`, a logarithmic one by the same formula for :math:`\log p, \log l, \log u`. "At
    random" and "uniform" mean uniform in x, so on a logarithmic axis every decade counts alike. On a periodic axis the
    bounds are the same parameter, and parameters outside are moved inside by whole periods.

    Args:
        lower: Lower bounds, shape (d,), or a number for d = 1. Tensors, arrays and numbers of NumPy keep their dtype.
        upper: Upper bounds, above ``lower``.
        scale: ``"linear"`` or ``"log"``, or one of them per axis.
        periodic: Whether the axes are periodic, one for all or one per axis.
        names: One name per axis. Default ``("p",)`` or ``("p1", "p2", ...)``.
        units: One unit per axis. Default: none (``""``).
        dtype: Real dtype of the bounds; default that of ``lower``, else torch's default (not if it is half).
        device: Device of the bounds; default that of ``lower``.
        ticks: The only values that each axis has, one rising tensor or array of shape (N_i,) per axis, its ends the
            bounds. Then every point of the cube stands for the parameter on the nearest ticks. Default: all between
            the bounds.

    Attributes:
        lower, upper: Bounds, two tensors of shape (d,).
        ticks: As given, on the device and of the dtype of the box; or None.
        scale, periodic, names, units: Tuples of length d.

    Raises:
        ValueError: For an empty or reversed box, one too narrow for its precision, a logarithmic axis with a bound at
            or below zero, or labels of another number.
        TypeError: For bounds, scales or flags of another type.

    Example:
        >>> import torch
        >>> from neumatc.box import Box
        >>> box = Box(1.0, 4.0, scale="log")
        >>> box.cube(torch.tensor([[1.0], [2.0], [4.0]])).flatten().tolist()
        [-1.0, 0.0, 1.0]
    """

    def __init__(
        self,
        lower: object,
        upper: object,
        *,
        scale: str | Sequence[str] = "linear",
        periodic: bool | Sequence[bool] = False,
        names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        ticks: Sequence[Tensor] | None = None,
    ):
        # What is said and checked of bounds is said of those on the CPU: a GPU would be waited for each time.
        *self._given, device = checks.box(lower, upper, dtype, device)
        self.lower, self.upper = (bound.to(device) for bound in self._given)
        d = self.lower.numel()
        self.scale = tuple(checks.choice("scale", s, SCALES) for s in _each("scale", scale, str, d))
        self.periodic = _each("periodic", periodic, bool, d)
        default = ["p"] if d == 1 else [f"p{i + 1}" for i in range(d)]
        self.names = _each("names", default if names is None else names, str, d)
        self.units = _each("units", [""] * d if units is None else units, str, d)
        for name, s, low in zip(self.names, self.scale, self._given[0].tolist()):
            expected = f"'linear' for {name}, whose lower bound {low:g} is not above zero"
            checks.require(s != "log" or low > 0, "scale", expected, "'log'", "raise the bound, or leave it linear")
        self._logs = torch.tensor([s == "log" for s in self.scale], device=self.lower.device)
        self._ends = [self._linear(bound) for bound in (self.lower, self.upper)]
        self.ticks = None if ticks is None else _checked_ticks(ticks, self.lower, self.upper)
        self.places = None if ticks is None else [box.cube(x[:, None])[:, 0] for box, x in zip(self.axes, self.ticks)]
        self._nearest = None if ticks is None else [*map(Nearest, self.places)]

    @property
    def dimension(self) -> int:
        """d, the number of axes."""
        return self.lower.numel()

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the parameters."""
        return self.lower.dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.lower.device

    @cached_property
    def axes(self) -> list[Box]:
        """The box of each axis, of one parameter."""
        settings, one = self.settings(), [slice(i, i + 1) for i in range(self.dimension)]
        low, high = self._given
        return [Box(low[i], high[i], device=self.device, **{n: own[i] for n, own in settings.items()}) for i in one]

    @cached_property
    def here(self) -> Box:
        """The box on the CPU, with its ticks."""
        ticks = self.ticks and [x.cpu() for x in self.ticks]
        return self if self.device.type == "cpu" else Box(*self._given, ticks=ticks, **self.settings())

    def points(self, p: object, *, extrapolate: bool = False, offered: bool = True, name: str = "p") -> Tensor:
        """Return parameters as a real tensor of shape (B, d), B >= 1, finite and inside the box.

        Args:
            p: A tensor, an array or nested lists of shape (B, d); for d = 1 also (B,) or a number. Integers become
                float64.
            extrapolate: Allow parameters outside the box.
            offered: Whether whoever asks has such an argument, for the remedy.
            name: What messages call p.

        Raises:
            ValueError: If p is empty, of another width, on another device, not finite, or outside the box.
            TypeError: If p is not made of real floating numbers.
        """
        checks.instance("name", name, str, "a text")
        if not isinstance(p, Tensor):
            p = checks.numbers(name, p, self.device)
        elif p.dtype in checks.INTEGERS:
            p = p.double()
        if self.dimension == 1 and p.ndim < 2:
            p = p.reshape(-1, 1)
        if p.ndim == 2 and p.shape[1] == self.dimension and p.dtype in checks.REAL:
            p = self.wrapped(p)
        extrapolate = checks.flag("extrapolate", extrapolate) if offered else None
        return checks.points(p, self.lower, self.upper, extrapolate=extrapolate, name=name)

    @checks.explained
    def wrapped(self, p: Tensor) -> Tensor:
        """Move parameters (B, d) on periodic axes into the box by whole periods; those inside stay as they are."""
        if not any(self.periodic):
            return p
        lower, upper = self.lower.to(p.dtype), self.upper.to(p.dtype)
        turns = torch.floor((p - lower) / (upper - lower))
        outside = ((p < lower) | (p > upper)) & torch.tensor(self.periodic, device=p.device)
        return torch.where(outside, p - turns * (upper - lower), p)

    def _linear(self, p: Tensor) -> Tensor:
        """Return what is linear in the cube, in double precision: parameters, or their logarithms."""
        p = p.double()
        return torch.where(self._logs, torch.where(self._logs, p, 1.0).log(), p) if "log" in self.scale else p

    @checks.explained
    def cube(self, p: Tensor) -> Tensor:
        """Scale parameters (B, d) to the cube [-1, 1]^d, in double precision: exact at the ends."""
        (low, up), t = self._ends, self._linear(p)
        return ((t - low) - (up - t)) / (up - low)

    @checks.explained
    def parameters(self, x: Tensor) -> Tensor:
        """Scale points of the cube (B, d) to parameters, in its precision, on its device and ticks."""
        if self.here is not self and x.device.type == "cpu":
            return self.here.parameters(x).to(self.device)
        if self.ticks is not None:
            columns = zip(x.to(self.device).double().T, self._nearest, self.ticks)
            return torch.stack([ticks[nearest(own)] for own, nearest, ticks in columns], dim=1)
        t = (x.to(self.device).double() + 1) / 2
        p = torch.lerp(*self._ends, t)
        if "log" in self.scale:
            p = torch.where(self._logs, torch.where(self._logs, p, 0.0).exp(), p)
            p = torch.where(t == 0, self.lower.double(), torch.where(t == 1, self.upper.double(), p))
        return p.to(self.dtype)

    @checks.explained
    def rounded(self, x: Tensor) -> Tensor:
        """Move points of the cube (N, d) to where their parameters are after rounding; float64 on the CPU."""
        return self.here.cube(self.here.parameters(x.cpu()))

    @checks.explained
    def uniform(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw independent parameters, uniform in the cube, shape (count, d); the generator is on the CPU."""
        return self.parameters(2 * torch.rand((count, self.dimension), dtype=torch.float64, generator=generator) - 1)

    def settings(self) -> dict[str, object]:
        """Return scales, periodic axes and labels as plain data, for a file."""
        return {name: list(getattr(self, name)) for name in ("scale", "periodic", "names", "units")}

    def to(self, device: torch.device | str | None) -> Box:
        """Return the box on another device, without its ticks."""
        return Box(*self._given, device=self.device if device is None else device, **self.settings())

    @checks.explained
    def named(self, p: Sequence[float]) -> str:
        """Write one parameter with names and units: ``"f = 3.5e+09 Hz, t = 0.1"``."""
        return ", ".join(f"{n} = {x:.6g} {u}".rstrip() for n, x, u in zip(self.names, p, self.units))

    def hints(self) -> list[str]:
        """Say where a logarithmic scale would suit: positive bounds over two decades and more."""
        return [
            f"{name} spans {np.log10(up / low):.0f} decades and is sampled uniformly, scale='log' weighs all alike"
            for name, s, low, up in zip(self.names, self.scale, *map(Tensor.tolist, self._given))
            if s == "linear" and low > 0 and up / low >= 100
        ]

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Box) and self.settings() == other.settings()
        return same and all(map(torch.equal, self._given, other._given))

    __hash__ = None

    def __repr__(self) -> str:
        bounds = map(Tensor.tolist, self._given)
        return ", ".join(map(_shown, self.names, self.units, self.scale, self.periodic, *bounds))


class Nearest:
    """The number of the nearest of rising places (N,) for each x, shape (B,)."""

    @checks.explained
    def __init__(self, places: Tensor):
        self.between = (places[1:] + places[:-1]) / 2

    @checks.explained
    def __call__(self, x: Tensor) -> Tensor:
        return torch.bucketize(x.contiguous(), self.between)


def _shown(name: str, unit: str, scale: str, turn: bool, low: float, up: float) -> str:
    """Write one axis with its bounds."""
    kind = (" (log)" if scale == "log" else "") + (" (periodic)" if turn else "")
    return f"{name} in [{low:g}, {up:g}]{' ' + unit if unit else ''}{kind}"


def _each(name: str, value: object, kind: type, d: int) -> tuple:
    """Return one value per axis; scales and flags may be given once for all."""
    scalar = isinstance(value, kind) or (kind is bool and getattr(value, "shape", None) == ())
    if scalar and name in ("scale", "periodic"):
        value = [value] * d
    several = isinstance(value, (Sequence, np.ndarray, Tensor)) and not isinstance(value, str)
    expected, remedy = f"{d} values of type {kind.__name__}, one per axis", "give one for each"
    try:
        values = [checks.flag(name, v) if kind is bool else v for v in value] if several else [None]
        good = all(isinstance(v, kind) for v in values)
    except TypeError:
        good = False
    checks.require(good, name, expected, checks.shown(value), remedy, TypeError)
    checks.require(len(values) == d, name, expected, checks.shown(value), remedy)
    return tuple(values)


def _checked_ticks(ticks: Sequence[Tensor], lower: Tensor, upper: Tensor) -> tuple[Tensor, ...]:
    """Return the values of each axis on the device and in the precision of the bounds, after checking them."""
    expected, several = f"a list of {lower.numel()} axes", isinstance(ticks, (list, tuple))
    checks.require(several, "ticks", expected, checks.shown(ticks), "give the values of each", TypeError)
    checks.require(len(ticks) == lower.numel(), "ticks", expected, f"one of {len(ticks)}", "give one per parameter")
    found = []
    for i, (axis, low, high) in enumerate(zip(ticks, lower.tolist(), upper.tolist())):
        x = axis if isinstance(axis, Tensor) else checks.numbers(f"ticks[{i}]", axis, lower.device)
        good = x.ndim == 1 and len(x) > 1 and x.dtype in (*checks.REAL, *checks.INTEGERS)
        x = x.to(lower) if good else x
        good = good and bool((x.diff() > 0).all()) and x[[0, -1]].tolist() == [low, high]
        expected, remedy = f"rising numbers, shape (N,), from {low:g} to {high:g}", "sort them; the ends are the bounds"
        checks.require(good, f"ticks[{i}]", expected, checks.describe(axis), remedy)
        found.append(x)
    return tuple(found)
