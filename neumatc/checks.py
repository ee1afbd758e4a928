"""Validation of arguments: every message names the argument, what was expected, what came, and the remedy."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import operator
import reprlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar, Token

import numpy as np
import torch
from torch import Tensor

REAL = (torch.float32, torch.float64)
COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
DTYPES = (*REAL, *COMPLEX.values())
# The least width of a box, in spacings of floating-point numbers at its far end.
_LEAST_NUMBERS = 1000
# How NumPy treats floating-point errors by itself, and a caller's default device and settings, where they differ.
_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
_OUTSIDE: ContextVar[tuple[torch.device, dict[str, str]] | None] = ContextVar("outside", default=None)
# Torch's setting for products of single precision on CUDA, and whether there is one.
_MATMUL, _CUDA = torch.backends.cuda.matmul, torch.backends.cuda.is_built()
# Most numbers of a parameter, and characters of what a caller's function says, that a message shows; characters of all
# parts of a message, and of what was expected and what came in one that is longer; and the largest integer argument.
_SHOWN, _QUOTED, _LONGEST, _CUT, _LARGEST = 3, 80, 275, 100, 2**63 - 1
_LIMITS = {"above": operator.gt, "at_least": operator.ge, "at_most": operator.le, "below": operator.lt}


def full_precision(function: Callable) -> Callable:
    """Decorate what computes, so that a caller's `torch.autocast`, default device and `np.errstate` change nothing.

    Nor does that products of single precision are to be of a lower one on CUDA (`torch.set_float32_matmul_precision`).
    A caller's own function still runs under the default device and `np.errstate`; see `outside`.
    """

    @functools.wraps(function)
    def wrapper(*arguments: object, **options: object) -> object:
        device, errors = torch.empty(0).device, np.geterr()
        cast = any(map(torch.is_autocast_enabled, ("cpu", "cuda")))
        fast = _CUDA and _MATMUL.fp32_precision not in ("none", "ieee")
        # The contexts take longer than a small evaluation.
        if not (cast or fast) and device.type == "cpu" and errors == _ERRORS:
            return function(*arguments, **options)
        # A wrapper inside ours sees what we set: what the caller has is what the outermost found.
        found = _OUTSIDE.get() or _OUTSIDE.set((device, errors))
        try:
            off = [torch.autocast(kind, enabled=False) for kind in ("cpu", "cuda")]
            full = products("ieee") if fast else contextlib.nullcontext()
            with off[0], off[1], full, _under("cpu", _ERRORS):
                return function(*arguments, **options)
        finally:
            if isinstance(found, Token):
                _OUTSIDE.reset(found)

    return wrapper


def explained(function: Callable) -> Callable:
    """Decorate what has few checks of its own: where it fails, the message is ours and tells what was given.

    What it raises is a TypeError or a ValueError then; the error of NumPy or torch behind it is its cause.
    """

    @functools.wraps(function)
    def wrapper(*arguments: object, **options: object) -> object:
        try:
            return function(*arguments, **options)
        except (OSError, ImportError, MemoryError, torch.OutOfMemoryError, Warning):
            raise
        except Exception as error:
            known = isinstance(error, (ValueError, TypeError)) and "`" in str(error)
            if known or "allocate memory" in str(error):  # a RuntimeError of torch
                raise
            given = [(name, x) for name, x in _named(function, arguments, options).items() if name != "self"]
            got = ", ".join(f"`{name}`: {describe(x)}"[:_QUOTED] for name, x in given[:2])
            kind = TypeError if isinstance(error, (TypeError, AttributeError)) else ValueError
            name = function.__qualname__.removesuffix(".__init__")
            raise kind(
                f"{name}: expected other arguments ({said(error)}), got {got}; see its documentation."
            ) from error

    return wrapper


def called(function: Callable) -> Callable:
    """Decorate what is called first: where it has other arguments than it is given, the message says which."""

    @functools.wraps(function)
    def wrapper(*arguments: object, **options: object) -> object:
        try:
            return function(*arguments, **options)
        except TypeError:
            _named(function, arguments, options)
            raise

    return wrapper


def _named(function: Callable, arguments: tuple, options: dict[str, object]) -> dict[str, object]:
    """Return the arguments of a call by their names."""
    signature = inspect.signature(function)
    try:
        return signature.bind(*arguments, **options).arguments
    except TypeError as error:
        first = int("self" in signature.parameters)
        own = [x.replace(annotation=x.empty, default=x.empty) for x in signature.parameters.values()][first:]
        came = [*(type(x).__name__ for x in arguments[first:]), *(f"{x}=" for x in options)]
        expected, why = f"the arguments {inspect.Signature(own)}", str(error).removeprefix("got ")
        text = f"`{function.__qualname__.removesuffix('.__init__')}`: expected {expected}, got ({', '.join(came)})"
        raise TypeError(f"{text}, {why}; give these, after * by name.") from None


@contextlib.contextmanager
def products(kind: str) -> Iterator[None]:
    """Let products of single precision on CUDA be "ieee" or "tf32"; torch's setting is that of the process."""
    before, _MATMUL.fp32_precision = _MATMUL.fp32_precision, kind
    try:
        yield
    finally:
        _MATMUL.fp32_precision = before


@contextlib.contextmanager
def _under(device: torch.device | str, errors: dict[str, str]) -> Iterator[None]:
    with torch.device(device), np.errstate(**errors):
        yield


def outside() -> contextlib.AbstractContextManager:
    """Return the context in which a caller's own function runs: with the caller's default device and `np.errstate`."""
    found = _OUTSIDE.get()
    return _under(*found) if found else contextlib.nullcontext()


def require(good: object, name: str, expected: str, got: object, remedy: str = "", error: type = ValueError) -> None:
    """Raise an error unless ``good``: it names the argument, what was expected, what came, and the remedy."""
    if not good:
        most = _CUT if len(f"{name}{expected}{got}{remedy}") > _LONGEST else _LONGEST
        expected, got = cut(str(expected), most), cut(str(got), most)
        raise error(f"`{name}`: expected {expected}, got {got}{remedy and '; '}{remedy}.")


def instance(name: str, value: object, kind: type, example: str) -> object:
    """Return ``value`` if it is of a type, of which the message gives an example."""
    if isinstance(value, kind):
        return value
    forgotten = isinstance(value, type) and issubclass(value, kind)
    remedy = f"make one of the class: {value.__name__}(...)" if forgotten else "pass that"
    return require(False, name, example, describe(value), remedy, TypeError)


def default_dtype() -> torch.dtype:
    """Return torch's default dtype, or float32 where that is half precision."""
    dtype = torch.get_default_dtype()
    return dtype if dtype in REAL else torch.float32


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the real dtype of the same precision: complex64 -> float32, float64 -> float64."""
    return {own: real for real, own in COMPLEX.items()}.get(dtype, dtype)  # as torch.compile understands it


def matrix_dtype(name: str, dtype: torch.dtype | None) -> torch.dtype:
    """Return a supported matrix dtype; None means `default_dtype`."""
    dtype = default_dtype() if dtype is None else dtype
    remedy = "convert the data first, as by `.to(torch.float64)`"
    good = isinstance(dtype, torch.dtype) and dtype in DTYPES
    require(good, name, "one of float32, float64, complex64, complex128", shown(dtype), remedy, TypeError)
    return dtype


def register(registry: dict[str, type], cls: type) -> None:
    """Enter a class under its name, by which files refer to it; only its own redefinition may replace an entry."""
    known = registry.get(cls.__name__, cls)
    same = (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
    require(same, cls.__name__, "a new name", f"that of {known!r}", "rename the class", TypeError)
    registry[cls.__name__] = cls


def integer(name: str, value: object, minimum: int, maximum: int = _LARGEST) -> int:
    """Return ``value`` as an int from ``minimum`` to ``maximum``, by default the largest of torch and NumPy."""
    try:
        result = None if isinstance(value, bool) else operator.index(value)
    except (TypeError, RuntimeError):
        result = None
    require(result is not None, name, "an integer", describe(value), "pass one, such as 8", TypeError)
    require(result >= minimum, name, f"at least {minimum}", shown(result), "raise it")
    require(result <= maximum, name, f"at most {maximum}", shown(result), "lower it")
    return result


def flag(name: str, value: object) -> bool:
    """Return ``value`` as a bool: True or False, also NumPy's, and arrays and tensors of one without an axis."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (np.bool_, np.ndarray, Tensor)) and value.shape == () and str(value.dtype).endswith("bool"):
        value = bool(value)
    require(isinstance(value, bool), name, "True or False", describe(value), "pass one of them", TypeError)
    return value


def place(name: str, value: object) -> torch.device | None:
    """Return ``value`` as a device of this machine that holds data; None stays None."""
    try:
        found = None if value is None else torch.empty(0, device=value).device
        good = found is None or found.type != "meta"
    except (RuntimeError, AssertionError, TypeError, ValueError, OverflowError):
        good = False
    require(good, name, "a device of this machine, such as 'cpu' or 'cuda:0'", describe(value), "move to one")
    return found


def seed(value: object) -> int:
    """Return ``value`` as a seed that every generator takes."""
    return integer("seed", value, 0)


def choice(name: str, value: object, choices: tuple) -> object:
    """Return ``value`` if it is one of ``choices``."""
    *others, last = map(repr, choices)
    found = [own for own in choices if isinstance(value, (type(own), np.integer)) and value == own]
    require(found, name, f"{', '.join(others)} or {last}" if others else last, shown(value), "take one of them")
    return found[0]


def each(name: str, value: object, count: int) -> list:
    """Return ``count`` values: those given, or the one given."""
    several = isinstance(value, (Sequence, np.ndarray, Tensor)) and getattr(value, "shape", True) != ()
    values = list(value) if several else [value] * count
    require(len(values) == count, name, f"one value or {count}", f"{len(values)}: {shown(value)}", "give one for each")
    return values


def number(name: str, value: object, **limits: float) -> float:
    """Return ``value`` as a finite float within limits: ``above``, ``at_least``, ``at_most``, ``below``."""
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    try:
        result = None if isinstance(value, (str, bytes, bool)) or kind not in "iuf" else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        result = None
    require(result is not None, name, "a number", describe(value), "pass one, such as 0.5", TypeError)
    good = math.isfinite(result) and all(_LIMITS[word](result, limit) for word, limit in limits.items())
    said = " and ".join(f"{word.replace('_', ' ')} {limit:g}" for word, limit in limits.items())
    require(good, name, f"a finite number {said}".rstrip(), shown(value), "pass one of that range")
    return result


def box(lower: object, upper: object, dtype: torch.dtype | None, device: object) -> tuple[Tensor, Tensor, torch.device]:
    """Return the bounds of a box, two real tensors (d,) of their own on the CPU, lower < upper, and the box's device.

    The box must hold a thousand numbers of its precision in every direction, and its width must be one.
    Floating tensors keep their dtype unless ``dtype`` is given; anything else is rounded once, to ``dtype``.
    """
    good = dtype is None or (isinstance(dtype, torch.dtype) and dtype in REAL)
    require(good, "dtype", "torch.float32 or torch.float64 for parameters", shown(dtype), "take one", TypeError)
    low, device = _bound("lower", lower, dtype, device)
    high = _bound("upper", upper, dtype, device)[0].to(low)
    remedy = "give one bound for each parameter"
    require(low.shape == high.shape, "upper", f"shape {tuple(low.shape)} like `lower`", tuple(high.shape), remedy)
    precise = ", or pass `dtype=torch.float64` if float32 cannot tell them apart" * (low.dtype == torch.float32)
    remedy = "swap them" if (low > high).any() else f"hold such a parameter fixed in the function{precise}"
    require((low < high).all(), "upper", f"values above `lower` = {row(low)}", row(high), remedy)
    width, size = high - low, torch.maximum(low.abs(), high.abs())
    wide = width >= _LEAST_NUMBERS * (size - torch.nextafter(size, torch.zeros_like(size)))
    expected = f"a box that is wide against the spacing of {low.dtype} numbers there, and finite"
    remedy = "give it in double precision, or shift or scale the parameters"
    require((width.isfinite() & wide).all(), "upper", expected, f"{row(low)} to {row(high)}", remedy)
    return low, high, device


def _bound(name: str, bound: object, dtype: torch.dtype | None, device: object) -> tuple[Tensor, torch.device]:
    if isinstance(bound, Tensor):
        require(not bound.is_complex(), name, "real bounds", bound.dtype, "take the real part", TypeError)
        own = place(name, bound.device)
        device = own if device is None else device
    else:
        device = torch.empty(0).device if device is None else device
        kept = isinstance(bound, (np.ndarray, np.floating))
        bound = numbers(name, bound, "cpu")
        dtype = dtype or (None if kept else default_dtype())
    dtype = dtype or (bound.dtype if bound.dtype in REAL else default_dtype())
    device = place("device", device)
    tensor = torch.atleast_1d(bound.detach().to("cpu", dtype, copy=True))
    shape, remedy = f"shape {tuple(tensor.shape)}", "give a number, or a list of them"
    require(tensor.ndim == 1 and tensor.numel(), name, "one bound per parameter, shape (d,)", shape, remedy)
    require(tensor.isfinite().all(), name, "finite bounds", row(tensor), "give the ends of what is used")
    return tensor, device


def numbers(name: str, value: object, device: torch.device) -> Tensor:
    """Return an array, a list or a number as a real floating tensor: float32 arrays stay so, the rest is float64."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError
        return tensor(array if array.dtype == np.float32 else array.astype(np.float64)).to(device)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        remedy = "give a number, lists, an array or a tensor"
        raise TypeError(f"`{name}`: expected real numbers, got {describe(value)}; {remedy}.") from None


def tensor(array: np.ndarray, name: str = "array") -> Tensor:
    """Return an array as a tensor: its own memory, where torch may have it (writable, forward, in native order)."""
    # torch has no numbers of more than double precision.
    good = array.dtype.kind in "biufc" and array.dtype.char not in "gG"
    require(good, name, "numbers", f"the dtype {array.dtype}", "convert it", TypeError)
    plain = array.flags.writeable and array.dtype.isnative and min(array.strides, default=0) >= 0
    return torch.from_numpy(array if plain else array.astype(array.dtype.newbyteorder("="), order="C"))


def like(p: object, value: object) -> object:
    """Return a value as it is, or, where parameters p are of NumPy, with arrays in the place of its tensors."""
    if not isinstance(p, (np.ndarray, np.generic)):
        return value
    if isinstance(value, tuple):
        arrays = [like(p, x) for x in value]
        return type(value)(*arrays) if hasattr(value, "_fields") else tuple(arrays)
    return value.numpy(force=True) if isinstance(value, Tensor) else value


def followed(x: Tensor) -> bool:
    """Whether something follows what is done with x: autograd in either direction, torch.func, or a compiler."""
    wrapped = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x)
    dual = wrapped or torch.autograd.forward_ad.unpack_dual(x).tangent is not None
    return dual or (x.requires_grad and torch.is_grad_enabled())


def points(p: Tensor, lower: Tensor, upper: Tensor, *, extrapolate: bool | None = False, name: str = "p") -> Tensor:
    """Return ``p`` if it is a real tensor of shape (B, d), B >= 1, finite and inside the box.

    A few units of rounding outside the box are allowed, at the coarser precision of p and the box and at most a
    thousandth of the box, so that bounds computed in another precision still count as inside. Needs no memory that
    grows with B unless there is something to complain of.
    """
    d, device = lower.numel(), lower.device
    require(p.dtype in REAL, name, "float32 or float64", p.dtype, f"convert with `{name}.to(torch.float64)`", TypeError)
    shape = tuple(p.shape)
    require(shape[1:] == (d,), name, f"shape (B, {d}), one row per parameter", shape, f"reshape it to (B, {d})")
    require(shape[0], name, "at least one parameter", f"an empty batch of shape {shape}", "leave the call out")
    require(p.device == device, name, f"device {device}", p.device, f"move it with `{name}.to('{device}')`")
    # Python numbers: this runs before every evaluation, and a dozen operations on tiny tensors would cost more than it.
    # They come in one piece, since a GPU is waited for each time. Both extremes are NaN where an entry is.
    extremes = torch.cat([lower, upper, p.detach().amin(dim=0), p.detach().amax(dim=0)]).tolist()
    low, high, smallest, largest = (extremes[i : i + d] for i in range(0, 4 * d, d))
    if not all(map(math.isfinite, smallest + largest)):
        i = int(torch.argmin(torch.isfinite(p).all(dim=1).int()))
        require(False, name, "finite parameters", f"{row(p[i])} in row {i}", "drop such rows")
    beyond = slack(max(torch.finfo(p.dtype).eps, torch.finfo(lower.dtype).eps), low, high)
    inside = [a - s <= x and y <= b + s for a, b, s, x, y in zip(low, high, beyond, smallest, largest)]
    if not extrapolate and not all(inside):
        s = torch.tensor(beyond, dtype=torch.float64, device=device)
        outside = ((p < lower - s) | (p > upper + s)).any(dim=1)
        i = int(torch.argmax(outside.int()))
        got = f"{row(p[i])} in row {i} ({int(outside.sum())} of {shape[0]} rows are outside)"
        remedy = "leave those out, or enlarge the box" if extrapolate is None else "pass `extrapolate=True` to allow it"
        require(False, name, f"parameters in the box {row(lower)} to {row(upper)}", got, remedy)
    return p


def slack(eps: float, lower: Sequence[float], upper: Sequence[float]) -> list[float]:
    """Return how far outside each axis of a box a parameter still counts as inside, in a precision of rounding eps."""
    return [min(8 * eps * max(abs(a), abs(b)), 1e-3 * (b - a)) for a, b in zip(lower, upper)]


def matrices(name: str, A: object, p: Tensor, *, anything: bool = False) -> Tensor:
    """Return ``A`` if it is a tensor of shape (B, m, n) and of a supported dtype, B the rows of ``p``.

    Its entries must be finite, unless ``anything`` goes.
    """
    expected, count = "a torch.Tensor of shape (B, m, n)", len(p)
    require(isinstance(A, Tensor), name, expected, describe(A), "convert it with torch.as_tensor", TypeError)
    matrix_dtype(name, A.dtype)
    good = A.ndim == 3 and len(A) == count and 0 not in A.shape
    remedy = "stack them along the first axis"
    require(good, name, f"shape ({count}, m, n), one matrix per parameter", tuple(A.shape), remedy)
    if not anything and not (good := finite(A.detach())).all():
        i = int(torch.argmin(good.int()))
        got = f"NaN or Inf at parameter {row(p[i])} ({int((~good).sum())} of {count} matrices)"
        require(False, name, "finite entries", got, "restrict the box or mend the function")
    return A.resolve_conj().resolve_neg()


def entries(A: Tensor) -> Tensor:
    """Return the entries (B, N) of a batch (B, ...), or their conjugates, in the order that takes no copy."""
    A = (A.conj() if A.is_conj() else A).resolve_neg()
    if A.ndim < 2:
        return A[:, None]
    return (A.mT if A.ndim > 2 and not A.is_contiguous() and A.mT.is_contiguous() else A).flatten(1)


def finite(A: Tensor) -> Tensor:
    """Return the mask (B,) of those entries of a batch (B, ...) that hold neither NaN nor Inf."""
    A = entries(A)
    if A.is_cuda:
        return (A * 0).sum(dim=1) == 0  # NaN where an entry is not; of the others no sum overflows
    # A sum is finite only if every entry is (it can overflow, too: then look closer); it is much faster than a mask.
    good = torch.isfinite(A.sum(dim=1))
    return good if good.all() else torch.isfinite(A).all(dim=1)


def sure(mask: Tensor) -> bool:
    """Return whether all of a mask is known to be true; of one on a GPU, which would be waited for, nothing is."""
    return not mask.is_cuda and bool(mask.all())


def defined(A: Tensor) -> tuple[Tensor, Tensor]:
    """Return matrices (B, m, n) with zeros in the place of those with NaN or Inf, and the mask (B,) of the others."""
    good = finite(A.detach())
    return (A if sure(good) else torch.where(good[:, None, None], A, 0)), good


class _Short(reprlib.Repr):
    """A part of what `repr` gives, and of tensors and arrays, however deep, the shape and the dtype."""

    def repr1(self, x: object, level: int) -> str:
        for kind, name in ((Tensor, "a tensor"), (np.ndarray, "an array")):
            if isinstance(x, kind):
                return f"{name} of shape {tuple(x.shape)} and dtype {x.dtype}"
        return cut(f"<function {x.__name__}>" if inspect.isfunction(x) else super().repr1(x, level))

    def repr_int(self, x: int, level: int) -> str:
        """Of an integer of more than 100 bits the size: Python refuses to print very long ones."""
        return repr(x) if x.bit_length() <= 100 else f"about {'-' * (x < 0)}2**{x.bit_length() - 1}"


_SHORT = _Short()


def describe(value: object) -> str:
    """Say what came, for the end of a message: the type, and for a tensor or an array its shape and dtype."""
    return shown(value) if isinstance(value, (Tensor, np.ndarray)) else f"{shown(value)} of type {type(value).__name__}"


def shown(value: object) -> str:
    """Return what `repr` gives, of what is long a part; no array."""
    return _SHORT.repr(value)


def row(p: Tensor) -> str:
    """Return the parameter p (d,) as a list, of many numbers the first, to nine digits."""
    numbers = [str(float(f"{x:.9g}")) for x in p[:_SHOWN].tolist()]
    return f"[{', '.join(numbers)}{', ...' if len(p) > _SHOWN else ''}]"


def said(error: Exception) -> str:
    """Return what a caller's function raised, of a long message the beginning."""
    lines = str(error).strip().splitlines() or [""]
    return cut(f"{type(error).__name__}: {lines[0]}")


def cut(text: str, most: int = _QUOTED) -> str:
    """Return a text, of a long one the beginning."""
    return text if len(text) <= most else f"{text[:most]}..."
