"""The model: one latent tensor and one embedding per factor, evaluated as matrix products on a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from neumatc import checks, threads
from neumatc.box import Box
from neumatc.embeddings import Embedding, Piece
from neumatc.linalg import real_rows
from neumatc.local import PiecewisePolynomials
from neumatc.operations import Operation
from neumatc.report import Report, Shown
from neumatc.turns import require_turns, turn_, turned

# Working memory, beside the output, of an evaluation for which the caller sets no budget.
_DEFAULT_WORKING_BYTES = 64 * 2**20
# Bytes that the phases of a row or column take, for each parameter.
_TURNING = 64


class FactorMap(nn.Module):
    """One factor X(p) = C x_3 Phi(p), with a real Phi.

    A module with buffers only: the latent tensor as real numbers, of a complex one as pairs, and the weights of Phi.

    Args:
        name: Name of the factor.
        core: The latent tensor with its mode 3 in front, shape ``(r, *shape)`` for a factor of that shape, real or
            complex.
        embedding: Phi.
        weights: The weights of Phi, real tensors of the precision of ``core``; in double precision, or integers, where
            the embedding says that it is ``precise``.
    """

    @checks.explained
    def __init__(self, name: str, core: Tensor, embedding: Embedding, weights: dict[str, Tensor]):
        super().__init__()
        self.name, self.embedding, self.is_complex = name, embedding, core.is_complex()
        core = core.resolve_conj().contiguous()
        self.register_buffer("numbers", torch.view_as_real(core) if self.is_complex else core)
        self._weights = tuple(weights)
        for key, weight in weights.items():
            self.register_buffer(f"phi_{key}", weight)

    @property
    def core(self) -> Tensor:
        """The latent tensor, mode 3 in front."""
        return torch.view_as_complex(self.numbers) if self.is_complex else self.numbers

    @property
    def latent(self) -> Tensor:
        """The latent tensor C in the paper's order, shape ``(*shape, r)``, a view of ``core``."""
        return self.core.movedim(0, -1)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights of Phi by name."""
        return {key: self._buffers[f"phi_{key}"] for key in self._weights}  # for each, getattr asks in three places

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a value."""
        return tuple(self.numbers.shape[1 : self.numbers.ndim - self.is_complex])

    @property
    def rank(self) -> int:
        """r, the most terms that one value sums: the columns of Phi, or those that are not zero in a piece."""
        return self.embedding.terms(len(self.numbers), self.weights)

    def with_(self, *, core: Tensor | None = None, weights: dict[str, Tensor] | None = None) -> FactorMap:
        """Return the map with another latent tensor or other weights."""
        core, weights = self.core if core is None else core, self.weights if weights is None else weights
        return FactorMap(self.name, core, self.embedding, weights)

    def forward(self, x: Tensor | list[Tensor], out: Tensor | None = None) -> Tensor:
        """Evaluate at x (B, d) in [-1, 1]^d: shape ``(B, *shape)``, in ``out`` if given (then without gradients).

        Polynomials in pieces also take the tensor grid of a list of axes, (B_i, 1) each, with B = B_1 ... B_d.

        A complex latent tensor is read as twice as many real columns: Phi is real, so this is half the operations of
        a complex product.
        """
        x = x if self.embedding.precise else x.to(self.numbers.dtype)
        columns = self.numbers.view(len(self.numbers), -1)  # also of scalars
        contract = self.embedding.contract if isinstance(x, Tensor) else self.embedding.grid
        if out is not None:
            contract(x, self.weights, columns, real_rows(out))
            return out
        flat = contract(x, self.weights, columns)
        flat = torch.view_as_complex(flat.view(len(flat), -1, 2)) if self.is_complex else flat
        return flat.view(len(flat), *self.shape)

    def _apply(self, fn: Callable, recurse: bool = True) -> FactorMap:
        before = self.weights
        super()._apply(fn, recurse)
        if self.embedding.precise:  # nodes of pieces lose their meaning in another precision
            for key, weight in before.items():
                setattr(self, f"phi_{key}", weight.to(self.numbers.device))
        return self


class Surrogate(Shown, nn.Module):
    r"""A fitted map p -> X(p), one product :math:`X_i(p) = C_i \times_3 \Phi_i(p)` per factor.

    Made by `fit` or `load`; ValueError if maps, operation and box do not match. Threads share it until one converts it.

    Args:
        operation: The operation it stands for.
        shape: (m, n), the shape of the matrices A(p).
        maps: One `FactorMap` per factor; ``surrogate.maps[0].latent`` is C of shape (rows, cols, r). A last one, the
            guide, where vectors are followed as a block: see `Operation.guide`.
        box: The box of parameters.
        report: How it was fitted.
        turns: By what rows and columns of A turn, which the maps leave out: see `neumatc.turns`. None: by nothing.
    """

    @checks.explained
    def __init__(
        self,
        operation: Operation,
        shape: tuple[int, int],
        maps: Sequence[FactorMap],
        box: Box,
        report: Report,
        turns: Tensor | None = None,
    ):
        super().__init__()
        self.operation, self.shape, self.box, self.report = operation, tuple(shape), box, report
        self.maps = nn.ModuleList(maps)
        for name, own in (("lower", box.lower), ("upper", box.upper), ("turns", turns)):
            self.register_buffer(name, own)
        expected = [(factor.name, factor.shape) for factor in operation.factors(*self.shape)]
        found = [(m.name, m.shape) for m in self.maps]
        names, shapes = ([entry[i] for entry in found] for i in (0, 1))
        if names[: len(expected)] != [name for name, _ in expected] or not operation.fits(*self.shape, shapes):
            wanted = f"the factors {expected} of {operation} for `shape` {self.shape}"
            checks.require(False, "maps", wanted, found, "take those that a fit made")
        self._factors = operation.factors(*self.shape)
        require_turns(turns, operation, self.shape, box, self.dtypes)

    @property
    def rank(self) -> int:
        """The largest rank r of its factors."""
        return max(m.rank for m in self.maps)

    @property
    def pieces(self) -> list[Piece]:
        """The pieces of the box: ``lower``, ``upper``, ``nodes`` per axis, ``terms``; one for the paper's map."""
        return self.maps[0].embedding.pieces(self.box, self.maps[0].weights, self.maps[0].rank)

    @property
    def dtypes(self) -> list[torch.dtype]:
        """Dtype of each factor."""
        return [factor.dtype(m.core.dtype) for factor, m in zip(self._factors, self.maps)]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of its output: of several factors that of a complex one, if there is one."""
        return next((dtype for dtype in self.dtypes if dtype.is_complex), self.dtypes[0])

    @property
    def value_bytes(self) -> int:
        """Bytes of the value at one parameter."""
        return sum(torch.Size(f.shape).numel() * dtype.itemsize for f, dtype in zip(self._factors, self.dtypes))

    @cached_property
    def _bytes(self) -> tuple[int, int]:
        """Bytes per parameter of the output, and of the working memory at its peak."""
        return self.value_bytes, _working(self)

    @property
    def device(self) -> torch.device:
        """Where it computes, and where the parameters must be."""
        return self.lower.device

    def forward(
        self,
        p: Tensor | np.ndarray | float,
        *,
        out: Tensor | tuple[Tensor, ...] | None = None,
        extrapolate: bool = False,
        memory_budget: int | None = None,
        orthonormal: bool = False,
        precision: str | None = None,
    ) -> Tensor | np.ndarray | tuple[Tensor | np.ndarray, ...]:
        r"""Evaluate at a batch of parameters.

        Args:
            p: Shape (B, d), on the surrogate's device, a tensor, an array or lists; for d = 1 also (B,) or a number.
                An array, or a number of NumPy, gives arrays; else the result is tensors.
            out: Memory for the result, of its shape, dtype and device, contiguous; a tuple for several factors. Memory
                that is fresh from the system costs as much as the product (its pages are set up at the first touch),
                so reuse it in a loop.
            extrapolate: Allow parameters outside the box.  The error there is not controlled by anything.
            memory_budget: Most bytes to allocate at once, the output included unless ``out`` is given. Default: the
                output plus 64 MiB.
            orthonormal: Replace factors that are orthonormal in the exact solution (U and V of the SVD, Q, ...) by the
                nearest that are, to rounding. Ours are so up to the error of the map.
            precision: Of the product alone, for a surrogate of single precision: ``"bf16"``, or on CUDA ``"tf32"``.
                Phi and C are rounded by at most u, :math:`2^{-8}` or :math:`2^{-11}` relative, so an entry of a factor
                moves by at most :math:`(2 u + u^2) \sum_k |\Phi_k| |C_k|` and what single precision rounds; on a CPU
                "bf16" rounds the result by u, too. No report has this error; `certify` and ``problem.residual`` see it
                in the values. While "tf32" is launched, so are products of other threads: torch has one setting.

        Returns:
            What the operation's exact solution gives, (B, n, n) for the inverse, a named tuple (U, S, Vh) for the SVD,
            of the surrogate's dtype; in the memory of ``out`` if given. Where p carries gradients, or under
            `torch.func` and `torch.compile`, the result follows p, and no parameter is checked, nor a GPU waited for,
            as CUDA graphs need it: derivatives are those of the map, on a face between pieces of the upper one.

        Raises:
            ValueError: If p is empty, of another width, not finite, or outside the box; if the output alone exceeds
                ``memory_budget`` (use `batches`); if ``out`` has another shape or device, is not contiguous, or
                overlaps with p, the surrogate or itself; if ``orthonormal`` makes no sense for the operation; if
                something follows p, with ``out``, ``orthonormal`` or ``precision``; for a ``precision`` it cannot have.
            TypeError: If p is not made of real floating numbers, or ``out`` of another dtype.
        """
        if isinstance(p, Tensor) and checks.followed(p):
            _detached("p", out is not None or orthonormal or precision, "`out`, `orthonormal` and `precision`")
            return _through(self, p)
        given, p = p, self.box.points(p, extrapolate=extrapolate)
        row, working = self._bytes if precision is None else _lowered(self, precision)
        if out is not None:
            outputs, row = _checked_out(self, out, (len(p),), [p]), 0
        if memory_budget is None:
            rows = _DEFAULT_WORKING_BYTES // working
        else:
            budget = checks.integer("memory_budget", memory_budget, 1)
            rows = (budget - len(p) * row) // working
            expected = f"at least {len(p) * row + working} bytes for the output of {len(p)} parameters"
            remedy = f"iterate over `surrogate.batches(p, memory_budget={budget})` instead"
            checks.require(rows > 0, "memory_budget", expected, budget, remedy)
        with nullcontext() if precision is None else threads.lowered(precision):
            value = _evaluated(self, p, max(1, rows), None if out is None else outputs, orthonormal)
        return checks.like(given if out is None else None, value)

    def grid(
        self, *axes: Tensor | np.ndarray | float, out: Tensor | tuple | None = None, extrapolate: bool = False
    ) -> object:
        """Evaluate on a tensor grid of parameters; in pieces, at the price of one axis instead of all.

        Args:
            axes: One per parameter, as a call takes them for d = 1: shape (B_i,) or a number, tensor, array or list.
            out: Memory for the result, as for a call.
            extrapolate: Allow parameters outside the box.

        Returns:
            What a call gives at all points of the grid, with (B_1, ..., B_d) in the place of (B,); in the memory of
            ``out`` if given, else arrays where axes are arrays and none is a tensor. Where an axis carries gradients,
            or under `torch.func` and `torch.compile`, it follows the axes, at the price of a call.

        Raises:
            ValueError: For another number of axes; and for ``out`` and each axis as a call does. Of axes that carry
                gradients, or that torch.func follows, only the shape is checked.
            TypeError: As a call does.
        """
        return _grid(self, axes, out, extrapolate)

    def batches(
        self, p: Tensor, memory_budget: int, *, extrapolate: bool = False, orthonormal: bool = False
    ) -> Iterator[tuple[Tensor, Tensor | tuple[Tensor, ...]]]:
        """Iterate over (p, value) pieces in order, within ``memory_budget`` bytes.

        The budget covers the working memory and two pieces, since in a loop the last one lives until the next is made.

        Raises:
            ValueError: As a call does, at once; and if a single parameter does not fit the budget.
        """
        given, p = p, self.box.points(p, extrapolate=extrapolate)
        output, working = self._bytes
        cost = 2 * output + working
        rows = checks.integer("memory_budget", memory_budget, 1) // cost
        expected = f"at least {cost} bytes, one parameter's need"
        checks.require(rows, "memory_budget", expected, memory_budget, "raise it")
        parts = p.split(min(rows, len(p)))
        return (checks.like(given, (part, _evaluated(self, part, rows, None, orthonormal))) for part in parts)

    @checks.explained
    def to(self, *args: object, **kwargs: object) -> Surrogate:
        """Convert in place, as any module: ``to(device)``, ``to(dtype)`` or both.

        float32 and float64, or complex64 and complex128, name the precision: what is real stays real, what is complex
        stays complex. The box keeps its precision.

        Raises:
            TypeError: For another dtype.
            ValueError: For a device that this machine has not.
        """
        return super().to(*map(_real, args), **{name: _real(value) for name, value in kwargs.items()})

    def _apply(self, fn: Callable, recurse: bool = True) -> Surrogate:
        box, turns = self.box, self.turns
        super()._apply(fn, recurse)
        self.box, self.turns = box.to(device := self.lower.device), turns if turns is None else turns.to(device)
        self.lower, self.upper = self.box.lower, self.box.upper
        self.__dict__.pop("_bytes", None)
        return self

    def __repr__(self) -> str:
        factors = ", ".join(f"{m.name} {tuple(m.latent.shape)}" for m in self.maps)
        return f"Surrogate({self.operation!r}, {factors}, {self.dtype}, {self.device})"


def _working(surrogate: Surrogate) -> int:
    """Return the bytes per parameter of the working memory at its peak."""
    sizes = [m.numbers[0].numel() * m.numbers.element_size() for m in surrogate.maps]
    working = 8 * max(m.embedding.working_numbers(surrogate.box.dimension, m.rank) for m in surrogate.maps)
    # Parameters take up to 24 bytes each while they are scaled. An operation that finishes its factors may need
    # three times their memory, but not with the embedding. Of an unsorted batch each thread holds a block.
    final = 3 * sum(sizes) if surrogate.operation.finishes else max(sizes)
    held = sum(size for size, m, factor in zip(sizes, surrogate.maps, surrogate._factors) if m.shape != factor.shape)
    turning = _TURNING * sum(surrogate.shape) * (surrogate.turns is not None)
    return held + max(working, final) + 24 * surrogate.box.dimension + turning


def _lowered(surrogate: Surrogate, precision: str) -> tuple[int, int]:
    """Return bytes as `_bytes`, where products are of a lower precision, after checking that they may be."""
    checks.choice("precision", precision, ("tf32", "bf16"))
    got, remedy = f"{precision!r} for one of {surrogate.dtype}", "leave it out, or convert with `.to(torch.float32)`"
    single = surrogate.maps[0].numbers.dtype == torch.float32
    checks.require(single, "precision", "None, or a surrogate of single precision", got, remedy)
    good, remedy = precision == "bf16" or surrogate.device.type == "cuda", "move the surrogate to a GPU for 'tf32'"
    checks.require(good, "precision", "'bf16' or None on a CPU", precision, remedy)
    return surrogate.value_bytes, surrogate._bytes[1] + surrogate.value_bytes


def _real(value: object) -> object:
    """Return an argument of `Surrogate.to` with the real dtype of its precision in the place of a dtype."""
    if isinstance(value, Tensor):  # of which the dtype and the device are meant
        return torch.empty(0, dtype=_real(value.dtype), device=_real(value.device))
    if isinstance(value, torch.dtype):
        return checks.real_dtype(checks.matrix_dtype("dtype", value))
    number = isinstance(value, (float, complex))  # which torch takes for a tensor
    checks.require(not number, "dtype", "a dtype or a device", value, "give torch.float64", TypeError)
    return checks.place("device", value) if isinstance(value, (str, torch.device)) else value


@checks.full_precision
@torch.no_grad()
def _evaluated(
    surrogate: Surrogate,
    p: Tensor,
    rows: int,
    outputs: list[Tensor] | None = None,
    orthonormal: bool = False,
    cube: Callable[[Tensor], Tensor | list[Tensor]] | None = None,
    points: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """Evaluate in parts of so many rows of p; for a grid p is its first axis, and each row has that many points."""
    cube, operation, own = cube or surrogate.box.cube, surrogate.operation, (surrogate.shape, surrogate.maps)
    outputs = empty(operation, *own, len(p) * points, p.device) if outputs is None else outputs

    with threads.alone() if p.device.type == "cpu" else nullcontext():  # but for the products, which are large
        for start in range(0, len(p), rows):
            end = min(start + rows, len(p))
            values = [output[start * points : end * points] for output in outputs]
            x = cube(p[start:end])
            evaluate(operation, *own, x, values)
            if surrogate.turns is not None:
                turn_(operation, surrogate.shape, surrogate.turns, x, values)
            if checks.flag("orthonormal", orthonormal):
                operation.orthonormalize_(values)
    return operation.pack(outputs)


def _still(surrogate: Surrogate, counts: Sequence[int]) -> list[int]:
    """Return the axes of a grid of several values on which nothing depends."""
    turns = surrogate.turns
    return [
        i
        for i, count in enumerate(counts)
        if count > 1
        and all(m.embedding.still(i, m.weights) for m in surrogate.maps)
        and (turns is None or not turns[:, i].any())
    ]


def _repeated(
    surrogate: Surrogate, p: list[Tensor], still: list[int], outputs: list[Tensor] | None
) -> Tensor | tuple[Tensor, ...]:
    """Evaluate a grid for one value on each axis on which nothing depends, and copy what is found to all others."""
    operation, counts = surrogate.operation, [*map(len, p)]
    found = surrogate.grid(*(x[:1, 0] if i in still else x[:, 0] for i, x in enumerate(p)), extrapolate=True)
    outputs = outputs or empty(operation, surrogate.shape, surrogate.maps, math.prod(counts), p[0].device)
    for x, own in zip(outputs, [found] if isinstance(found, Tensor) else found):
        x.view(*counts, *x.shape[1:]).copy_(own)
    return operation.pack(outputs)


def _grid(surrogate: Surrogate, axes: tuple, out: Tensor | tuple | None, extrapolate: bool) -> object:
    d, outputs, live = surrogate.box.dimension, None, [isinstance(x, Tensor) and checks.followed(x) for x in axes]
    names, remedy = ", ".join(surrogate.box.names), "give a number for a parameter that is held fixed"
    checks.require(len(axes) == d, "axes", f"{d}, one for each of {names}", len(axes), remedy)
    _detached("axes", any(live) and out is not None, "`out`")
    boxes = [None] * d if all(live) else surrogate.box.axes
    p = [
        (_followed_axis(axis, f"axes[{i}]") if own else box.points(axis, extrapolate=extrapolate, name=f"axes[{i}]"))
        for i, (box, axis, own) in enumerate(zip(boxes, axes, live))
    ]
    p = [axis.double() for axis in p]
    counts = [len(axis) for axis in p]
    if out is not None:
        outputs = [x.flatten(0, d - 1) for x in _checked_out(surrogate, out, counts, p)]
    pieces = d > 1 and not any(live) and all(isinstance(m.embedding, PiecewisePolynomials) for m in surrogate.maps)
    still = _still(surrogate, counts) if pieces else []
    if still:
        value = _repeated(surrogate, p, still, outputs)
    elif pieces:
        x = [box.cube(axis) for box, axis in zip(boxes[1:], p[1:])]
        # An operation that finishes values may need three times their memory.
        room = max(1, _DEFAULT_WORKING_BYTES // (4 * surrogate._bytes[0] * math.prod(counts[1:])))
        rows = room if surrogate.operation.finishes else len(p[0])
        value = _evaluated(
            surrogate, p[0], rows, outputs, cube=lambda first: [boxes[0].cube(first), *x], points=math.prod(counts[1:])
        )
    else:
        value = surrogate(torch.cartesian_prod(*(x[:, 0] for x in p)).view(-1, d), out=outputs, extrapolate=True)
    factors = [x.view(*counts, *x.shape[1:]) for x in ((value,) if isinstance(value, Tensor) else value)]
    arrays = [axis for axis in axes if isinstance(axis, (np.ndarray, np.generic))]
    tensors = out is not None or any(isinstance(axis, Tensor) for axis in axes)
    return checks.like(None if tensors or not arrays else arrays[0], surrogate.operation.pack(factors))


def _followed_axis(axis: Tensor, name: str) -> Tensor:
    """Return an axis of a grid as (B, 1); its values are not to be looked at."""
    checks.require(
        axis.ndim < 2 or axis.shape[1:] == (1,), name, "shape (B,) or (B, 1)", tuple(axis.shape), "flatten it"
    )
    return axis.reshape(-1, 1)


def _detached(name: str, refused: bool, what: str) -> None:
    """Refuse parameters that something follows, for what does not follow them."""
    got, remedy = "some under autograd or torch.func", f"take `{name}.detach()`"
    checks.require(not refused, name, f"parameters without gradients for {what}, which do not follow them", got, remedy)


def _through(surrogate: Surrogate, p: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Evaluate as a function of p that autograd, torch.func and torch.compile see through."""
    d = surrogate.box.dimension
    p = p.reshape(-1, 1) if d == 1 and p.ndim < 2 else p
    checks.require(p.shape[1:] == (d,), "p", f"shape (B, {d})", tuple(p.shape), f"reshape it to (B, {d})")
    x = surrogate.box.cube(surrogate.box.wrapped(p))
    fitted = [m(x) for m in surrogate.maps]
    if surrogate.operation.finishes:
        pairs = list(zip(fitted, surrogate._factors, surrogate.dtypes))
        # Not the memory of the maps: what finishes the factors must not overwrite what derivatives take.
        out = [x.new_empty(len(x), *f.shape, dtype=dtype) for x, f, dtype in pairs]
        for x, y in zip(fitted, out):
            if x.shape == y.shape:
                y.copy_(x)
        surrogate.operation.finish(fitted, out)
        fitted = out
    if surrogate.turns is not None:
        fitted = turned(surrogate.operation, surrogate.shape, surrogate.turns, x, fitted)
    return surrogate.operation.pack(fitted)


def _checked_out(surrogate: Surrogate, out: Tensor | tuple, counts: Sequence[int], p: list[Tensor]) -> list[Tensor]:
    """Return the memory that the caller gives for the factors at parameters p, after checking it."""
    outputs, count = list(out) if isinstance(out, (tuple, list)) else [out], len(surrogate._factors)
    checks.require(len(outputs) == count, "out", f"{count} tensor(s), one per factor", len(outputs), "give a tuple")
    taken, remedy = [_span(x) for x in (*p, *surrogate.buffers())], "make it with torch.empty"
    for m, factor, dtype, x in zip(surrogate.maps, surrogate._factors, surrogate.dtypes, outputs):
        good = isinstance(x, Tensor) and x.dtype == dtype
        checks.require(good, "out", f"a {dtype} tensor for {m.name}", checks.describe(x), remedy, TypeError)
        shape, got = (*counts, *factor.shape), f"shape {tuple(x.shape)} and strides {x.stride()} on {x.device}"
        good = x.shape == shape and x.device == surrogate.device and x.is_contiguous()
        expected = f"a contiguous tensor of shape {shape} on {surrogate.device} for {m.name}"
        checks.require(good, "out", expected, got, remedy)
        good = not (x.is_conj() or x.is_neg() or (x.is_inference() and not torch.is_inference_mode_enabled()))
        kind = "made under torch.inference_mode" if x.is_inference() else "lazily conjugated or negated"
        checks.require(good, "out", f"plain memory for {m.name}", f"a tensor {kind}", remedy)
        start, end = _span(x)
        good = not any(start < last and first < end for first, last in taken)
        got = "some that overlaps with `p`, the surrogate's tensors or another factor"
        checks.require(good, "out", f"memory of its own for {m.name}", got, remedy)
        taken.append((start, end))
    return outputs


def _span(x: Tensor) -> tuple[int, int]:
    """Return the first address of a tensor and the first after it."""
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride()))
    return x.data_ptr(), x.data_ptr() + (last + 1) * x.element_size()


def empty(
    operation: Operation, shape: tuple[int, int], maps: Sequence[FactorMap], count: int, device: torch.device
) -> list[Tensor]:
    """Return memory for the factors at ``count`` parameters."""
    pairs = zip(operation.factors(*shape), maps)
    return [torch.empty((count, *f.shape), dtype=f.dtype(m.core.dtype), device=device) for f, m in pairs]


def evaluate(
    operation: Operation,
    shape: tuple[int, int],
    maps: Sequence[FactorMap],
    x: Tensor | list[Tensor],
    out: list[Tensor] | None = None,
) -> list[Tensor]:
    """Evaluate the factors at x (B, d) in [-1, 1]^d, or on a grid, in their final form, in ``out`` if given."""
    out = empty(operation, shape, maps, len(x), x.device) if out is None else out
    fitted = [m(x, out=piece) if m.shape == piece.shape[1:] else m(x) for m, piece in zip(maps, out)]
    fitted += [m(x) for m in maps[len(out) :]]
    operation.finish(fitted, out)
    return out
