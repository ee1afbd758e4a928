"""Validation of arguments: every message names the argument, what was expected, what came, and the remedy."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

REAL = (torch.float32, torch.float64)
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
DTYPES = (*REAL, *COMPLEX.values())
# The least width of a box, in spacings of floating-point numbers at its far end.
_LEAST_NUMBERS = 1000


def full_precision(function: Callable) -> Callable:
    """Decorate what computes, so that a caller's `torch.autocast` does not lower its precision."""

    @functools.wraps(function)
    def wrapper(*arguments: object, **options: object) -> object:
        devices = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
        for device in devices:
            torch.set_autocast_enabled(device, False)
        try:
            return function(*arguments, **options)
        finally:
            for device in devices:
                torch.set_autocast_enabled(device, True)

    return wrapper


def default_dtype() -> torch.dtype:
    """Return torch's default dtype, or float32 where that is half precision."""
    dtype = torch.get_default_dtype()
    return dtype if dtype in REAL else torch.float32


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the real dtype of the same precision: complex64 -> float32, float64 -> float64."""
    return dtype.to_real() if dtype.is_complex else dtype


def matrix_dtype(name: str, dtype: torch.dtype | None) -> torch.dtype:
    """Return a supported matrix dtype; None means `default_dtype`."""
    dtype = default_dtype() if dtype is None else dtype
    if dtype not in DTYPES:
        raise TypeError(
            f"`{name}`: expected one of float32, float64, complex64, complex128, got {dtype}; "
            "convert the data first, for example with `.to(torch.float64)`."
        )
    return dtype


def register(registry: dict[str, type], cls: type) -> None:
    """Enter a class under its name, by which files refer to it; only its own redefinition may replace an entry."""
    known = registry.setdefault(cls.__name__, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TypeError(f"`{cls.__name__}`: expected a new name, got that of {known!r}; rename the class.")
    registry[cls.__name__] = cls


def integer(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """Return ``value`` as an int from ``minimum`` to ``maximum``."""
    given = value
    try:
        value = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        value = None
    if value is None:
        raise TypeError(f"`{name}`: expected an integer, got {given!r} of type {type(given).__name__}.")
    if value < minimum:
        raise ValueError(f"`{name}`: expected at least {minimum}, got {value}.")
    if maximum is not None and value > maximum:
        raise ValueError(f"`{name}`: expected at most {maximum}, got {value}.")
    return value


def seed(value: object) -> int:
    """Return ``value`` as a seed that every generator takes."""
    return integer("seed", value, 0, 2**63 - 1)


def choice(name: str, value: object, choices: tuple) -> object:
    """Return ``value`` if it is one of ``choices``."""
    if value not in choices:
        *others, last = map(repr, choices)
        expected = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"`{name}`: expected {expected}, got {value!r}.")
    return value


def each(name: str, value: object, count: int) -> list:
    """Return ``count`` values: those given, or the one given."""
    values = list(value) if isinstance(value, Sequence) else [value] * count
    if len(values) != count:
        raise ValueError(f"`{name}`: expected one value or {count}, got {len(values)}: {value!r}.")
    return values


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> float:
    """Return ``value`` as a finite float within the limits given."""
    try:
        result = None if isinstance(value, (str, bytes, bool)) else float(value)
    except (TypeError, ValueError):
        result = None
    if result is None:
        raise TypeError(f"`{name}`: expected a number, got {value!r} of type {type(value).__name__}.")
    limits = {
        "above": (above, above is None or result > above),
        "at least": (at_least, at_least is None or result >= at_least),
        "at most": (at_most, at_most is None or result <= at_most),
        "below": (below, below is None or result < below),
    }
    if not (math.isfinite(result) and all(kept for _, kept in limits.values())):
        said = " and ".join(f"{word} {limit:g}" for word, (limit, _) in limits.items() if limit is not None)
        raise ValueError(f"`{name}`: expected a finite number{' ' + said if said else ''}, got {value!r}.")
    return result


def box(lower: object, upper: object, dtype: torch.dtype | None, device: object) -> tuple[Tensor, Tensor]:
    """Return the bounds of a box as two real tensors of shape (d,) of their own, with lower < upper in every direction.

    The box must hold a thousand numbers of its precision in every direction, and its width must be one.
    Floating tensors keep their dtype unless ``dtype`` is given; anything else is rounded once, to ``dtype``.
    """
    if dtype is not None and dtype not in REAL:
        raise TypeError(f"`dtype`: expected torch.float32 or torch.float64 for the parameters, got {dtype}.")
    low = _bound("lower", lower, dtype, device)
    high = _bound("upper", upper, dtype, device).to(low)
    if low.shape != high.shape:
        raise ValueError(f"`upper`: expected shape {tuple(low.shape)} like `lower`, got {tuple(high.shape)}.")
    if not (low < high).all():
        raise ValueError(
            f"`upper`: expected values above `lower` = {low.tolist()}, got {high.tolist()}; swap them, or pass "
            "`dtype=torch.float64` if float32 cannot tell them apart."
        )
    width, size = high - low, torch.maximum(low.abs(), high.abs())
    spacing = size - torch.nextafter(size, torch.zeros_like(size))
    if not (torch.isfinite(width) & (width >= _LEAST_NUMBERS * spacing)).all():
        remedy = "give them in double precision, or " if low.dtype == torch.float32 else ""
        raise ValueError(
            f"`upper`: expected a box that is wide against the spacing of {low.dtype} numbers there, and no wider than "
            f"the largest of them, got {low.tolist()} to {high.tolist()}; {remedy}shift or scale the parameters."
        )
    return low, high


def _bound(name: str, bound: object, dtype: torch.dtype | None, device: object) -> Tensor:
    if isinstance(bound, Tensor):
        if bound.is_complex():
            raise TypeError(f"`{name}`: expected real bounds, got {bound.dtype}.")
        dtype = dtype or (bound.dtype if bound.dtype in REAL else None)
    try:
        tensor = torch.as_tensor(bound, dtype=dtype or default_dtype(), device=device).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"`{name}`: expected one number per parameter, got {bound!r}.") from None
    tensor = tensor.reshape(1) if tensor.ndim == 0 else tensor
    if tensor.ndim != 1 or tensor.numel() == 0:
        raise ValueError(f"`{name}`: expected one bound per parameter, shape (d,), got shape {tuple(tensor.shape)}.")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"`{name}`: expected finite bounds, got {tensor.tolist()}.")
    return tensor


def numbers(name: str, value: object, device: torch.device) -> Tensor:
    """Return an array, a list or a number as a real floating tensor: float32 arrays stay so, the rest is float64."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError
        return torch.as_tensor(array if array.dtype == np.float32 else array.astype(np.float64), device=device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"`{name}`: expected real numbers, got {type(value).__name__}.") from None


def points(p: object, lower: Tensor, upper: Tensor, *, extrapolate: bool = False) -> Tensor:
    """Return ``p`` if it is a real tensor of shape (B, d), B >= 1, finite and inside the box.

    A few units of rounding outside the box are allowed, at the coarser precision of p and the box and at most a
    thousandth of the box, so that bounds computed in another precision still count as inside. Needs no memory that
    grows with B unless there is something to complain of.
    """
    if not isinstance(p, Tensor):
        raise TypeError(f"`p`: expected a torch.Tensor, got {type(p).__name__}; convert with `torch.as_tensor(p)`.")
    if p.dtype not in REAL:
        raise TypeError(f"`p`: expected float32 or float64, got {p.dtype}; convert with `p.to(torch.float64)`.")
    d = lower.numel()
    if p.ndim != 2 or p.shape[1] != d:
        hint = "write `p[:, None]`" if p.ndim == 1 and d == 1 else f"reshape it to (B, {d})"
        raise ValueError(f"`p`: expected shape (B, {d}), one row per parameter, got {tuple(p.shape)}; {hint}.")
    if p.shape[0] == 0:
        raise ValueError(f"`p`: expected at least one parameter, got an empty batch of shape {tuple(p.shape)}.")
    if p.device != lower.device:
        raise ValueError(f"`p`: expected device {lower.device}, got {p.device}; move it with `p.to('{lower.device}')`.")
    # Python numbers: this runs before every evaluation, and a dozen operations on tiny tensors would cost more than it.
    # They come in one piece, since a GPU is waited for each time. Both extremes are NaN where an entry is.
    extremes = torch.cat([lower, upper, p.detach().amin(dim=0), p.detach().amax(dim=0)]).tolist()
    low, high, smallest, largest = (extremes[i : i + d] for i in range(0, 4 * d, d))
    if not all(map(math.isfinite, smallest + largest)):
        row = int(torch.argmin(torch.isfinite(p).all(dim=1).int()))
        raise ValueError(f"`p`: expected finite parameters, got {p[row].tolist()} in row {row}.")
    eps = max(torch.finfo(p.dtype).eps, torch.finfo(lower.dtype).eps)
    slack = [min(8 * eps * max(abs(a), abs(b)), 1e-3 * (b - a)) for a, b in zip(low, high)]
    allowed = [(a - s, b + s) for a, b, s in zip(low, high, slack)]
    if not extrapolate and not all(a <= least and most <= b for (a, b), least, most in zip(allowed, smallest, largest)):
        limits = torch.tensor(allowed, dtype=torch.float64, device=p.device)
        inside = ((p >= limits[:, 0]) & (p <= limits[:, 1])).all(dim=1)
        row = int(torch.argmin(inside.int()))
        raise ValueError(
            f"`p`: expected parameters in the box {low} to {high}, got {p[row].tolist()} in row {row} "
            f"({int((~inside).sum())} of {p.shape[0]} rows are outside); pass `extrapolate=True` to allow it."
        )
    return p


def matrices(name: str, A: object, p: Tensor, *, anything: bool = False) -> Tensor:
    """Return ``A`` if it is a tensor of shape (B, m, n) and of a supported dtype, B the rows of ``p``.

    Its entries must be finite, unless ``anything`` goes.
    """
    if not isinstance(A, Tensor):
        raise TypeError(f"`{name}`: expected a torch.Tensor of shape (B, m, n), got {type(A).__name__}.")
    matrix_dtype(name, A.dtype)
    if A.ndim != 3 or A.shape[0] != p.shape[0] or 0 in A.shape:
        raise ValueError(
            f"`{name}`: expected shape ({p.shape[0]}, m, n), one matrix per parameter, got {tuple(A.shape)}."
        )
    if not anything and not (good := finite(A.detach())).all():
        row = int(torch.argmin(good.int()))
        raise ValueError(
            f"`{name}`: expected finite entries, got NaN or Inf at parameter {p[row].tolist()} "
            f"({int((~good).sum())} of {p.shape[0]} matrices); restrict the box or mend the function."
        )
    return A.resolve_conj().resolve_neg()


def finite(A: Tensor) -> Tensor:
    """Return the mask (B,) of those entries of a batch (B, ...) that hold neither NaN nor Inf."""
    A = A.reshape(len(A), -1)
    # A sum is finite only if every entry is (it can overflow, too: then look closer); it is much faster than a mask.
    good = torch.isfinite(A.sum(dim=1))
    return good if good.all() else torch.isfinite(A).all(dim=1)


def describe(value: object) -> str:
    """Say what came, for the end of a message: the type, and for a tensor its shape and dtype."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"{value!r} of type {type(value).__name__}"
