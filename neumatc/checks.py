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
_LIMITS = {"above": operator.gt, "at_least": operator.ge, "at_most": operator.le, "below": operator.lt}


def full_precision(function: Callable) -> Callable:
    """Decorate what computes, so that a caller's `torch.autocast` does not lower its precision."""

    @functools.wraps(function)
    def wrapper(*arguments: object, **options: object) -> object:
        if not any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):  # the contexts take longer than a small evaluation
            return function(*arguments, **options)
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*arguments, **options)

    return wrapper


def require(good: object, name: str, expected: str, got: object, remedy: str = "", error: type = ValueError) -> None:
    """Raise an error unless ``good``: it names the argument, what was expected, what came, and the remedy."""
    if not good:
        raise error(f"`{name}`: expected {expected}, got {got}{remedy and '; '}{remedy}.")


def instance(name: str, value: object, kind: type, example: str) -> object:
    """Return ``value`` if it is of a type, of which the message gives an example."""
    require(isinstance(value, kind), name, example, describe(value), error=TypeError)
    return value


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
    remedy = "convert the data first, as by `.to(torch.float64)`"
    require(dtype in DTYPES, name, "one of float32, float64, complex64, complex128", dtype, remedy, TypeError)
    return dtype


def register(registry: dict[str, type], cls: type) -> None:
    """Enter a class under its name, by which files refer to it; only its own redefinition may replace an entry."""
    known = registry.get(cls.__name__, cls)
    same = (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
    require(same, cls.__name__, "a new name", f"that of {known!r}", "rename the class", TypeError)
    registry[cls.__name__] = cls


def integer(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """Return ``value`` as an int from ``minimum`` to ``maximum``."""
    try:
        result = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        result = None
    require(result is not None, name, "an integer", describe(value), error=TypeError)
    require(result >= minimum, name, f"at least {minimum}", result)
    require(maximum is None or result <= maximum, name, f"at most {maximum}", result)
    return result


def seed(value: object) -> int:
    """Return ``value`` as a seed that every generator takes."""
    return integer("seed", value, 0, 2**63 - 1)


def choice(name: str, value: object, choices: tuple) -> object:
    """Return ``value`` if it is one of ``choices``."""
    *others, last = map(repr, choices)
    require(value in choices, name, f"{', '.join(others)} or {last}" if others else last, repr(value))
    return value


def each(name: str, value: object, count: int) -> list:
    """Return ``count`` values: those given, or the one given."""
    values = list(value) if isinstance(value, Sequence) else [value] * count
    require(len(values) == count, name, f"one value or {count}", f"{len(values)}: {value!r}")
    return values


def number(name: str, value: object, **limits: float) -> float:
    """Return ``value`` as a finite float within limits: ``above``, ``at_least``, ``at_most``, ``below``."""
    try:
        result = None if isinstance(value, (str, bytes, bool)) else float(value)
    except (TypeError, ValueError):
        result = None
    require(result is not None, name, "a number", describe(value), error=TypeError)
    good = math.isfinite(result) and all(_LIMITS[word](result, limit) for word, limit in limits.items())
    said = " and ".join(f"{word.replace('_', ' ')} {limit:g}" for word, limit in limits.items())
    require(good, name, f"a finite number {said}".rstrip(), repr(value))
    return result


def box(lower: object, upper: object, dtype: torch.dtype | None, device: object) -> tuple[Tensor, Tensor]:
    """Return the bounds of a box as two real tensors of shape (d,) of their own, with lower < upper in every direction.

    The box must hold a thousand numbers of its precision in every direction, and its width must be one.
    Floating tensors keep their dtype unless ``dtype`` is given; anything else is rounded once, to ``dtype``.
    """
    require(dtype in (None, *REAL), "dtype", "torch.float32 or torch.float64 for parameters", dtype, error=TypeError)
    low = _bound("lower", lower, dtype, device)
    high = _bound("upper", upper, dtype, device).to(low)
    require(low.shape == high.shape, "upper", f"shape {tuple(low.shape)} like `lower`", tuple(high.shape))
    remedy = "swap them, or pass `dtype=torch.float64` if float32 cannot tell them apart"
    require((low < high).all(), "upper", f"values above `lower` = {low.tolist()}", high.tolist(), remedy)
    width, size = high - low, torch.maximum(low.abs(), high.abs())
    wide = width >= _LEAST_NUMBERS * (size - torch.nextafter(size, torch.zeros_like(size)))
    expected = f"a box that is wide against the spacing of {low.dtype} numbers there, and finite"
    remedy = "give it in double precision, or shift or scale the parameters"
    require((width.isfinite() & wide).all(), "upper", expected, f"{low.tolist()} to {high.tolist()}", remedy)
    return low, high


def _bound(name: str, bound: object, dtype: torch.dtype | None, device: object) -> Tensor:
    if isinstance(bound, Tensor):
        require(not bound.is_complex(), name, "real bounds", bound.dtype, error=TypeError)
        dtype = dtype or (bound.dtype if bound.dtype in REAL else None)
    try:
        tensor = torch.as_tensor(bound, dtype=dtype or default_dtype(), device=device).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"`{name}`: expected one number per parameter, got {bound!r}.") from None
    tensor = torch.atleast_1d(tensor)
    shape = tuple(tensor.shape)
    require(tensor.ndim == 1 and tensor.numel(), name, "one bound per parameter, shape (d,)", f"shape {shape}")
    require(tensor.isfinite().all(), name, "finite bounds", tensor.tolist())
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


def points(p: Tensor, lower: Tensor, upper: Tensor, *, extrapolate: bool = False, name: str = "p") -> Tensor:
    """Return ``p`` if it is a real tensor of shape (B, d), B >= 1, finite and inside the box.

    A few units of rounding outside the box are allowed, at the coarser precision of p and the box and at most a
    thousandth of the box, so that bounds computed in another precision still count as inside. Needs no memory that
    grows with B unless there is something to complain of.
    """
    d, device = lower.numel(), lower.device
    require(p.dtype in REAL, name, "float32 or float64", p.dtype, f"convert with `{name}.to(torch.float64)`", TypeError)
    shape = tuple(p.shape)
    require(shape[1:] == (d,), name, f"shape (B, {d}), one row per parameter", shape, f"reshape it to (B, {d})")
    require(shape[0], name, "at least one parameter", f"an empty batch of shape {shape}")
    require(p.device == device, name, f"device {device}", p.device, f"move it with `{name}.to('{device}')`")
    # Python numbers: this runs before every evaluation, and a dozen operations on tiny tensors would cost more than it.
    # They come in one piece, since a GPU is waited for each time. Both extremes are NaN where an entry is.
    extremes = torch.cat([lower, upper, p.detach().amin(dim=0), p.detach().amax(dim=0)]).tolist()
    low, high, smallest, largest = (extremes[i : i + d] for i in range(0, 4 * d, d))
    if not all(map(math.isfinite, smallest + largest)):
        row = int(torch.argmin(torch.isfinite(p).all(dim=1).int()))
        require(False, name, "finite parameters", f"{p[row].tolist()} in row {row}")
    eps = max(torch.finfo(p.dtype).eps, torch.finfo(lower.dtype).eps)
    slack = [min(8 * eps * max(abs(a), abs(b)), 1e-3 * (b - a)) for a, b in zip(low, high)]
    inside = [a - s <= x and y <= b + s for a, b, s, x, y in zip(low, high, slack, smallest, largest)]
    if not extrapolate and not all(inside):
        s = torch.tensor(slack, dtype=torch.float64, device=device)
        outside = ((p < lower - s) | (p > upper + s)).any(dim=1)
        row = int(torch.argmax(outside.int()))
        got = f"{p[row].tolist()} in row {row} ({int(outside.sum())} of {shape[0]} rows are outside)"
        remedy = "" if name == "snapshots" else "pass `extrapolate=True` to allow it"
        require(False, name, f"parameters in the box {low} to {high}", got, remedy)
    return p


def matrices(name: str, A: object, p: Tensor, *, anything: bool = False) -> Tensor:
    """Return ``A`` if it is a tensor of shape (B, m, n) and of a supported dtype, B the rows of ``p``.

    Its entries must be finite, unless ``anything`` goes.
    """
    expected, count = "a torch.Tensor of shape (B, m, n)", len(p)
    require(isinstance(A, Tensor), name, expected, type(A).__name__, error=TypeError)
    matrix_dtype(name, A.dtype)
    good = A.ndim == 3 and len(A) == count and 0 not in A.shape
    require(good, name, f"shape ({count}, m, n), one matrix per parameter", tuple(A.shape))
    if not anything and not (good := finite(A.detach())).all():
        row = int(torch.argmin(good.int()))
        got = f"NaN or Inf at parameter {p[row].tolist()} ({int((~good).sum())} of {count} matrices)"
        require(False, name, "finite entries", got, "restrict the box or mend the function")
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
