"""The model: one latent tensor and one embedding per factor, evaluated as one matrix product on a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neumatc import checks
from neumatc.embeddings import Embedding
from neumatc.operations import Operation

if TYPE_CHECKING:
    from neumatc.report import Report

# Working memory, beside the output, of an evaluation for which the caller sets no budget.
_DEFAULT_WORKING_BYTES = 64 * 2**20


@dataclass(frozen=True)
class FactorMap:
    """One factor X(p) = C x_3 Phi(p), with a real Phi.

    Attributes:
        name: Name of the factor.
        core: The latent tensor with its mode 3 in front, shape ``(r, *shape)`` for a factor of
            that shape, real or complex, contiguous.
        embedding: Phi.
        weights: The weights of Phi, real tensors of the precision of ``core``.
    """

    name: str
    core: Tensor
    embedding: Embedding
    weights: dict[str, Tensor]

    @property
    def latent(self) -> Tensor:
        """The latent tensor C in the paper's order, shape ``(*shape, r)``, a view of ``core``."""
        return self.core.movedim(0, -1)

    @property
    def rank(self) -> int:
        """The rank r of this factor, the columns of Phi."""
        return self.core.shape[0]

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Evaluate at x (B, d) in [-1, 1]^d: shape ``(B, *shape)``, in ``out`` if given (then without gradients).

        A complex latent tensor is read as twice as many real columns: Phi is real, so this is half the operations of
        a complex product.
        """
        phi = self.embedding(x, self.weights)
        columns = real_rows(self.core)
        if out is None:
            flat = phi @ columns
            flat = torch.view_as_complex(flat.view(len(x), -1, 2)) if self.core.is_complex() else flat
            return flat.view(len(x), *self.core.shape[1:])
        torch.mm(phi, columns, out=real_rows(out))
        return out


def real_rows(x: Tensor) -> Tensor:
    """View a contiguous tensor as real rows: (N, ...) -> (N, numbers per row)."""
    return (torch.view_as_real(x) if x.is_complex() else x).view(x.shape[0], -1)


class Surrogate:
    r"""A fitted map p -> X(p), one product :math:`X_i(p) = C_i \times_3 \Phi_i(p)` per factor.

    Made by `fit` or `load`, and checked: ValueError if maps, operation, box and labels do not belong together.
    Immutable; safe to share between threads.

    Attributes:
        operation: The operation it stands for.
        shape: (m, n), the shape of the matrices A(p).
        maps: One `FactorMap` per factor; ``surrogate.maps[0].latent`` is C of shape (rows, cols, r).
        lower, upper: The box of parameters.
        names, units: Labels of the parameters.
        report: How it was fitted.
    """

    def __init__(
        self,
        operation: Operation,
        shape: tuple[int, int],
        maps: Sequence[FactorMap],
        lower: Tensor,
        upper: Tensor,
        names: Sequence[str],
        units: Sequence[str],
        report: Report,
    ):
        self.operation, self.shape, self.maps, self.report = operation, tuple(shape), tuple(maps), report
        self.lower, self.upper = checks.box(lower, upper, None, None)
        self.names, self.units = tuple(names), tuple(units)
        expected = [(factor.name, factor.shape) for factor in operation.factors(*self.shape)]
        found = [(m.name, tuple(m.core.shape[1:])) for m in self.maps]
        names, shapes = ([entry[i] for entry in found] for i in (0, 1))
        if names != [name for name, _ in expected] or not operation.fits(*self.shape, shapes):
            raise ValueError(
                f"`maps`: expected the factors {expected} of {operation} for `shape` {self.shape}, got {found}."
            )
        for label in ("names", "units"):
            if len(getattr(self, label)) != self.lower.numel():
                raise ValueError(
                    f"`{label}`: expected {self.lower.numel()}, one per parameter, got {getattr(self, label)}."
                )

    @property
    def rank(self) -> int:
        """The largest rank r of its factors."""
        return max(m.rank for m in self.maps)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of its output: of several factors that of a complex one, if there is one."""
        dtypes = [f.dtype(m.core.dtype) for f, m in zip(self.operation.factors(*self.shape), self.maps)]
        return next((dtype for dtype in dtypes if dtype.is_complex), dtypes[0])

    @property
    def device(self) -> torch.device:
        """Where it computes, and where the parameters must be."""
        return self.maps[0].core.device

    def __call__(
        self,
        p: Tensor,
        *,
        out: Tensor | tuple[Tensor, ...] | None = None,
        extrapolate: bool = False,
        memory_budget: int | None = None,
        orthonormal: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Evaluate at a batch of parameters.

        Args:
            p: Shape (B, d), float32 or float64 (scaled to the cube in its own precision), on the surrogate's device.
            out: Memory for the result, of its shape, dtype and device, contiguous; a tuple for several factors. Memory
                that is fresh from the system costs as much as the product (its pages are set up at the first touch),
                so reuse it in a loop.
            extrapolate: Allow parameters outside the box; the error there is not controlled by anything.
            memory_budget: Most bytes to allocate at once, the output included unless ``out`` is given. Default: the
                output plus 64 MiB.
            orthonormal: Replace factors that are orthonormal in the exact solution (U and V of the SVD, Q, ...) by the
                nearest that are, to rounding. Ours are so up to the error of the map.

        Returns:
            What the operation's exact solution gives, (B, n, n) for the inverse, a named tuple (U, S, Vh) for the SVD.
            Without gradients, of the surrogate's dtype; in the memory of ``out`` if given.

        Raises:
            ValueError: If p is empty, of another width, not finite, or outside the box; if the output alone exceeds
                ``memory_budget`` (use `batches`); if ``out`` has another shape or device, is not contiguous, or
                overlaps with p, the surrogate or itself; if ``orthonormal`` makes no sense for the operation.
            TypeError: If p is not a real floating tensor, or ``out`` of another dtype.
        """
        p = self._points(p, extrapolate)
        row, working = self._bytes_per_row
        if out is not None:
            outputs, row = self._checked_out(out, p), 0
        if memory_budget is None:
            rows = _DEFAULT_WORKING_BYTES // working
        else:
            budget = checks.integer("memory_budget", memory_budget, 1)
            rows = (budget - len(p) * row) // working
            if rows < 1:
                raise ValueError(
                    f"`memory_budget`: expected at least {len(p) * row + working} bytes for the output of {len(p)} "
                    f"parameters, got {budget}; iterate over `surrogate.batches(p, memory_budget={budget})` instead."
                )
        return self._evaluate(p, max(1, rows), None if out is None else outputs, orthonormal)

    def _checked_out(self, out: Tensor | tuple[Tensor, ...], p: Tensor) -> list[Tensor]:
        outputs = list(out) if isinstance(out, (tuple, list)) else [out]
        if len(outputs) != len(self.maps):
            raise ValueError(f"`out`: expected {len(self.maps)} tensor(s), one per factor, got {len(outputs)}.")
        for m, factor, x in zip(self.maps, self.operation.factors(*self.shape), outputs):
            shape, dtype = (len(p), *factor.shape), factor.dtype(m.core.dtype)
            if not isinstance(x, Tensor) or x.dtype != dtype:
                raise TypeError(f"`out`: expected a {dtype} tensor for {m.name}, got {checks.describe(x)}.")
            if x.shape != shape or x.device != m.core.device or not x.is_contiguous():
                raise ValueError(
                    f"`out`: expected a contiguous tensor of shape {shape} on {m.core.device} for {m.name}, got "
                    f"shape {tuple(x.shape)} and strides {x.stride()} on {x.device}; make it with torch.empty."
                )
            if x.is_conj() or x.is_neg() or (x.is_inference() and not torch.is_inference_mode_enabled()):
                kind = "made under torch.inference_mode" if x.is_inference() else "lazily conjugated or negated"
                raise ValueError(f"`out`: expected plain memory for {m.name}, got a tensor {kind}; take torch.empty.")
        taken = [_span(p), *self._own_spans]
        for m, x in zip(self.maps, outputs):
            start, end = _span(x)
            if any(start < last and first < end for first, last in taken):
                raise ValueError(
                    f"`out`: expected memory of its own for {m.name}, got some that overlaps with `p`, the surrogate's "
                    "tensors or another factor; make it with torch.empty."
                )
            taken.append((start, end))
        return outputs

    def batches(
        self, p: Tensor, memory_budget: int, *, extrapolate: bool = False, orthonormal: bool = False
    ) -> Iterator[tuple[Tensor, Tensor | tuple[Tensor, ...]]]:
        """Iterate over (p, value) pieces in order, within ``memory_budget`` bytes.

        The budget covers the working memory and two pieces, since in a loop the last one lives until the next is made.

        Raises:
            ValueError: As a call does, at once; and if a single parameter does not fit the budget.
        """
        p = self._points(p, extrapolate)
        output, working = self._bytes_per_row
        cost = 2 * output + working
        rows = checks.integer("memory_budget", memory_budget, 1) // cost
        if rows < 1:
            raise ValueError(
                f"`memory_budget`: expected at least {cost} bytes, one parameter's need, got {memory_budget}."
            )
        return ((piece, self._evaluate(piece, rows, None, orthonormal)) for piece in p.split(rows))

    def _points(self, p: Tensor, extrapolate: bool) -> Tensor:
        return checks.points(p, self.lower, self.upper, extrapolate=extrapolate)

    @cached_property
    def _own_spans(self) -> list[tuple[int, int]]:
        return [_span(x) for m in self.maps for x in (m.core, *m.weights.values())]

    @cached_property
    def _bytes_per_row(self) -> tuple[int, int]:
        """Bytes per parameter of the output, and of the working memory at its peak."""
        number = torch.finfo(checks.real_dtype(self.dtype)).bits // 8
        sizes = [m.core[0].numel() * m.core.element_size() for m in self.maps]
        factors = self.operation.factors(*self.shape)
        direct = [tuple(m.core.shape[1:]) == factor.shape for m, factor in zip(self.maps, factors)]
        dtypes = [factor.dtype(m.core.dtype) for m, factor in zip(self.maps, factors)]
        output = sum(torch.Size(f.shape).numel() * dtype.itemsize for f, dtype in zip(factors, dtypes))
        d = self.lower.numel()
        working = number * max(m.embedding.working_numbers(d, m.rank) for m in self.maps)
        # Parameters while they are scaled take up to 24 bytes each. An operation that brings its factors to their final
        # form may need three times their memory, but not at the same time as the embedding.
        final = 0 if type(self.operation).finish is Operation.finish else 3 * sum(sizes)
        held = sum(size for size, directly in zip(sizes, direct) if not directly)
        return output, held + max(working, final) + 24 * d

    @checks.full_precision
    @torch.no_grad()
    def _evaluate(
        self, p: Tensor, rows: int, outputs: list[Tensor] | None, orthonormal: bool
    ) -> Tensor | tuple[Tensor, ...]:
        outputs = empty(self.operation, self.shape, self.maps, p) if outputs is None else outputs
        for start in range(0, len(p), rows):
            x = unit_cube(p[start : start + rows], self.lower, self.upper, checks.real_dtype(self.dtype))
            pieces = [output[start : start + rows] for output in outputs]
            evaluate(self.operation, self.shape, self.maps, x, pieces)
            if orthonormal:
                self.operation.orthonormalize_(pieces)
        return self.operation.pack(outputs)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Surrogate:
        """Return a copy on another device or in another precision.

        Args:
            device: For example ``"cuda"``.
            dtype: Dtype of the output: float32 or float64 for a real surrogate, complex64 or complex128 for a complex
                one.

        Raises:
            TypeError: If ``dtype`` would turn a complex surrogate into a real one or the reverse.
        """
        dtype = self.dtype if dtype is None else checks.matrix_dtype("dtype", dtype)
        if dtype.is_complex != self.dtype.is_complex:
            raise TypeError(
                f"`dtype`: expected {'a complex' if self.dtype.is_complex else 'a real'} dtype, got {dtype}."
            )
        real = checks.real_dtype(dtype)
        maps = [
            FactorMap(
                m.name,
                m.core.to(device, checks.COMPLEX[real] if m.core.is_complex() else real),
                m.embedding,
                {name: weight.to(device, real) for name, weight in m.weights.items()},
            )
            for m in self.maps
        ]
        box = (self.lower.to(device), self.upper.to(device))
        return Surrogate(self.operation, self.shape, maps, *box, self.names, self.units, self.report)

    def __repr__(self) -> str:
        factors = ", ".join(f"{m.name} {tuple(m.latent.shape)}" for m in self.maps)
        return f"Surrogate({self.operation!r}, {factors}, {self.dtype}, {self.device})"


def _span(x: Tensor) -> tuple[int, int]:
    """Return the first address of a tensor and the first after it."""
    start = x.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride()))
    return start, start + (last + 1) * x.element_size()


def empty(operation: Operation, shape: tuple[int, int], maps: Sequence[FactorMap], p: Tensor) -> list[Tensor]:
    """Return memory for the factors at p (B, d)."""
    pairs = zip(operation.factors(*shape), maps)
    return [torch.empty((len(p), *f.shape), dtype=f.dtype(m.core.dtype), device=p.device) for f, m in pairs]


def evaluate(
    operation: Operation,
    shape: tuple[int, int],
    maps: Sequence[FactorMap],
    x: Tensor,
    out: list[Tensor] | None = None,
) -> list[Tensor]:
    """Evaluate the factors at x (B, d) in [-1, 1]^d, in their final form, in ``out`` if given."""
    out = empty(operation, shape, maps, x) if out is None else out
    fitted = [m(x, out=piece) if m.core.shape[1:] == piece.shape[1:] else m(x) for m, piece in zip(maps, out)]
    operation.finish(fitted, out)
    return out


def unit_cube(p: Tensor, lower: Tensor, upper: Tensor, dtype: torch.dtype) -> Tensor:
    """Scale parameters from the box to [-1, 1]^d in the finer precision of the two, then convert to ``dtype``."""
    return (((p - lower) - (upper - p)) / (upper - lower)).to(dtype)  # exact at the ends, however far from zero
