"""Parametric matrices p -> A(p): any function on a box, in torch or NumPy, and families made for study."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from neumatc import checks, measured, sampling, smoothing
from neumatc.box import Box, Nearest
from neumatc.measured import Interpolation
from neumatc.smoothing import Smoothing

# Parameters beside the centre of the box that are tried for the shape and the dtype of A, where the centre has none.
_TRIED = 8
# Part of the least spacing by which a parameter may be off a point of a grid.
_OFF = 1e-3
# What is said first of a function that raises or gives another shape: nothing of mathematics.
FAILED = "the family failed"
# Parameters of a larger batch at which a function that raises is tried first: where it has none of them, it is gone.
_SPREAD = 64


class FamilyError(ValueError):
    """A family failed, or gave something else than finite matrices of its shape that suit the operation.

    The message names the parameters.

    Attributes:
        surrogates: From `fit_many`: one entry for each problem, None where its family failed; else empty.
    """

    surrogates: Sequence[object] = ()


class ParametricMatrix:
    """A continuous map p -> A(p) from a box in R^d to m x n matrices.

    Args:
        fn: Function p of shape (B, d) -> A of shape (B, m, n), real or complex, any torch code. Arrays, lists, and
            sparse matrices of SciPy and torch are taken too; sparse ones are made dense, and so is all that is computed
            from them. It is called once with the centre of the box to learn the shape, the dtype and the device of A,
            or if that fails there with some other parameters. It is given its own copy of p, a tensor, and runs under
            the default device and ``np.errstate`` of whoever calls. Whatever it raises becomes a `FamilyError`; a fit
            goes on without that parameter, and its report says what was raised first, and where.
        lower: Lower bounds of the box, shape (d,), or a number for d = 1. Floating tensors, arrays and numbers of NumPy
            keep their dtype; the rest takes ``dtype``.
        upper: Upper bounds, above ``lower``.
        batched: False for NumPy or SciPy code that makes one matrix (m, n) at a time: ``fn`` gets a float for d = 1
            (also where the grid is of integers), else an array (d,), and the default ``dtype`` is float64. A then
            carries no gradients.
        scale: ``"linear"`` or ``"log"``, for all parameters or one of them each; see `neumatc.box.Box`.
        periodic: Whether A(p) repeats itself from ``lower`` to ``upper``, for all parameters or for each.
        grid: The only parameters that matter, shape (N, d), if they are finitely many: a fit to a tolerance never
            solves at more of them than there are. A list of d tensors or arrays (N_i,), the rising values of each
            axis from its lower to its upper bound, is a tensor grid: then ``fn`` is never asked for other parameters.
        names: One name per parameter, for plots and reports. Default ``("p",)`` or ``("p1", "p2", ...)``.
        units: One unit per parameter, for example ``("Hz",)``. Default: none (``""``).
        dtype: Real dtype of the parameters; default that of ``lower``, else torch's default (not if it is half).
        device: Device of the parameters; default that of ``lower``. Arrays that ``fn`` returns are moved there.

    Attributes:
        box: The box, a `neumatc.box.Box`; its ``lower``, ``upper``, ``names``, ``units``, ``dimension`` and ``device``
            are attributes of the family too.
        shape: (m, n).
        dtype: The dtype of A: float32, float64, complex64 or complex128.
        densified: Whether ``fn`` gave sparse matrices.
        measured: The interpolation or smoothing behind it, where it comes from samples (`from_samples`), else None.
        floor: Standard deviation of the error that smoothing noisy samples has left in each entry of A, shape (m, n);
            None without noise. A fit to a tolerance stops where noise of that size does (`neumatc.noise`).

    Raises:
        ValueError: For an empty or reversed box, or periodic axes whose ends differ.
        FamilyError: (a ValueError) If at every parameter tried ``fn`` raises, or gives a wrong shape, or NaN or Inf; it
            says so where ``batched=False`` would help.
        TypeError: For an unsupported dtype.

    Example:
        >>> import torch, neumatc as nm
        >>> def fn(p):
        ...     return torch.eye(2) + p[:, :, None] * torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> family = nm.ParametricMatrix(fn, lower=[0.0], upper=[0.5])
        >>> family(torch.tensor([[0.25]]))
        tensor([[[1.0000, 0.2500],
                 [0.2500, 1.0000]]])
    """

    measured: Interpolation | Smoothing | None = None
    floor: Tensor | None = None
    _at_once: Callable | None = None  # what `batches.at_once` calls, with families of this one's kind

    @checks.called
    def __init__(
        self,
        fn: Callable[[Tensor], object] | Callable[[float | np.ndarray], object],
        lower: ArrayLike | Tensor,
        upper: ArrayLike | Tensor,
        *,
        batched: bool = True,
        scale: str | Sequence[str] = "linear",
        periodic: bool | Sequence[bool] = False,
        grid: Tensor | Sequence[Tensor] | None = None,
        names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        expected = "a function p (B, d) -> A (B, m, n), or of one parameter with `batched=False`"
        remedy = "nm.families.from_samples takes matrices"
        checks.require(callable(fn), "fn", expected, checks.describe(fn), remedy, TypeError)
        self.fn, self.batched, self.densified = fn, checks.flag("batched", batched), False
        if dtype is None and not self.batched and not isinstance(lower, Tensor):
            dtype = torch.float64
        ticks = grid if _is_axes(grid) else None
        labels = {"scale": scale, "periodic": periodic, "names": names, "units": units}
        self.box = Box(lower, upper, **labels, dtype=dtype, device=device, ticks=ticks)
        self.lower, self.upper, self.dimension = self.box.lower, self.box.upper, self.box.dimension
        self.device = self.box.device
        self.names, self.units = self.box.names, self.box.units
        self._points = None if grid is None or ticks is not None else self.box.points(grid, offered=False)
        A = _tried(self)
        remedy = f"pass `device='{A.device}'` or create the tensors in `fn` on `p.device`"
        expected = f"A on the device of the parameters, {self.device}"
        checks.require(A.device == self.device, "fn", expected, A.device, remedy)
        self.shape, self.dtype = tuple(A.shape[1:]), A.dtype
        _check_periods(self)

    @property
    def grid(self) -> Tensor | None:
        """The parameters that matter, shape (N, d), or None."""
        if self.box.ticks is None:
            return self._points
        return torch.cartesian_prod(*self.box.ticks).view(-1, self.dimension)

    @property
    def count(self) -> float:
        """How many parameters matter: N, or Inf."""
        if self.box.ticks is None:
            return math.inf if self._points is None else len(self._points)
        return math.prod(map(len, self.box.ticks))

    def __call__(self, p: Tensor | ArrayLike, *, extrapolate: bool = False) -> Tensor | np.ndarray:
        """Evaluate A(p).

        Args:
            p: Parameters, shape (B, d), inside the box, on the family's device: a tensor, an array or lists; for d = 1
                also (B,) or a number.
            extrapolate: Allow parameters outside the box.

        Returns:
            A(p), shape (B, m, n), of the family's dtype: an array where p is one, or a number of NumPy; else a tensor.

        Raises:
            ValueError: If p has another shape, is empty, not finite or outside the box.
            FamilyError: (a ValueError) If ``fn`` raises, or A has another shape or dtype than at the centre of the box,
                or NaN or Inf; the message gives the parameter.
            TypeError: If p is not a real floating tensor.
        """
        return checks.like(p, self._values(self.box.points(p, extrapolate=extrapolate)))

    def evaluate(
        self, p: Tensor | ArrayLike, *, extrapolate: bool = False
    ) -> tuple[Tensor, Tensor] | tuple[np.ndarray, np.ndarray]:
        """Evaluate A(p) wherever it is defined: for callers that mark single parameters instead of stopping at them.

        Args:
            p, extrapolate: As for a call.

        Returns:
            A(p), shape (B, m, n), with zeros in the place of matrices with NaN or Inf, and the mask ``good`` (B,) of
            the others. Where ``fn`` raises, or gives another shape, halves of the batch are tried, down to the
            parameters that fail alone: these are not good, and ``family(p)`` says why.

        Raises:
            ValueError, TypeError: As a call does, but for NaN and Inf, and for what ``fn`` raises at some parameters:
                only if it does so at 64 that are spread over a larger batch, or for a batch and for none of it alone.
        """
        return checks.like(p, checks.defined(self._anything(self.box.points(p, extrapolate=extrapolate))[0]))

    def _anything(self, p: Tensor) -> tuple[Tensor, str]:
        """Return A(p), at parameters as `Box.points` gives them, NaN where ``fn`` raises, and what it raises first."""
        try:
            return self._values(p, anything=True), ""
        except FamilyError as error:
            spread = p[:: -(-len(p) // _SPREAD)]
            gone = len(p) > _SPREAD and not checks.defined(_parted(self, spread, error)[0])[1].any()
            A, why = (p, "") if gone else _parted(self, p, error)
            if not why:
                raise
            return A, why

    def _values(self, p: Tensor, *, anything: bool = False) -> Tensor:
        """Return A, of the family's shape and dtype, and finite unless ``anything`` goes; else FamilyError."""
        try:
            A = self._checked(p, anything)
        except TypeError as error:  # no matrix, or one of another kind, at one parameter of many
            raise FamilyError(f"{str(error).removesuffix('.')} (TypeError), at p = {checks.row(p[0])}.") from error
        if torch.promote_types(A.dtype, self.dtype) == self.dtype:
            A = A.to(self.dtype)  # a matrix may be real at single parameters, or of integers
        expected = f"shape {(p.shape[0], *self.shape)} and dtype {self.dtype} as at the centre of the box"
        same, got = tuple(A.shape[1:]) == self.shape and A.dtype == self.dtype, f"{tuple(A.shape)} and {A.dtype}"
        checks.require(same, "fn(p)", expected, got, "make it the same at every p", FamilyError)
        return A

    @checks.full_precision
    def _checked(self, p: Tensor, anything: bool = False) -> Tensor:
        plain, got = self.batched or not checks.followed(p), "some under autograd or torch.func"
        checks.require(plain, "p", "parameters without gradients for NumPy code", got, "take `p.detach()`")
        try:
            A = _called(self, p.to(self.lower.dtype, copy=True), self.batched)
            self.densified |= measured.sparse(A)
            A = measured.dense(A, p.device)
        except (FamilyError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the user's function raises
            low, high = (checks.row(end) for end in (p.amin(dim=0), p.amax(dim=0)))
            where = f"p = {low}" if low == high else f"parameters between {low} and {high}"
            text = f"`fn(p)`: expected matrices at {where}, got {checks.said(error)}; `fn` gets {_given(self)}"
            raise FamilyError(f"{text}: mend it, or restrict the box.") from error
        matrix, got = self.batched or A.ndim == 3, f"shape {tuple(A.shape[1:])}"
        checks.require(matrix, "fn(p)", "an m x n matrix for one parameter", got, "return that", FamilyError)
        try:
            return checks.matrices("fn(p)", A if self.batched else A.to(p.device), p, anything=anything)
        except ValueError as error:
            raise FamilyError(str(error)) from None

    @property
    def domain(self) -> dict[str, object]:
        """The arguments with which another family gets the box and the grid of this one."""
        grid = self._points if self.box.ticks is None else self.box.ticks
        return {"lower": self.lower, "upper": self.upper, "grid": grid, **self.box.settings()}

    def __repr__(self) -> str:
        shape = f"{self.shape[0]} x {self.shape[1]}{' made dense' if self.densified else ''}"
        return f"{type(self).__name__}({shape}, {self.box}, {self.dtype}, {self.device})"


@checks.full_precision
def _tried(family: ParametricMatrix) -> Tensor:
    """Return A at the centre of the box, or at the first of some other parameters at which it is defined."""
    ones = torch.ones(family.dimension, dtype=torch.float64)
    x, first = torch.cat([0 * ones[None], sampling.sobol(_TRIED, -ones, ones)]), None
    for p in family.box.parameters(x).split(1):
        try:
            return family._checked(p)
        except (FamilyError, TypeError) as error:
            first = first or error
    if family.batched and _takes_one(family):
        raise FamilyError(
            "`fn`: expected a function p (B, d) -> A (B, m, n), got one of one parameter at a time; "
            "pass `batched=False`."
        ) from first
    raise first


def _parted(family: ParametricMatrix, p: Tensor, error: FamilyError) -> tuple[Tensor, str]:
    """Return A(p), NaN at the parameters at which the function raises, and what it raises at the first of them.

    Args:
        error: What it raises for all of them at once.
    """
    if len(p) == 1:
        cause = checks.said(error.__cause__) if error.__cause__ else str(error).removesuffix(".")
        A = torch.full((1, *family.shape), torch.nan, dtype=family.dtype, device=family.device)
        return A, f"{FAILED} at {family.box.named(p[0].tolist())}: {cause}"
    # NumPy code is called for each anyway, and is asked again for no more than it must be.
    parts, found = p.tensor_split(2 if family.batched else len(p)), []
    for part in parts:
        try:
            found.append((family._values(part, anything=True), ""))
        except FamilyError as own:
            found.append(_parted(family, part, own))
    values, said = zip(*found)
    return torch.cat(values), next(filter(None, said), "")


def _given(family: ParametricMatrix) -> str:
    """Say what the function gets."""
    if family.batched:
        return f"one tensor of shape (B, {family.dimension})"
    return "a float" if family.dimension == 1 else f"one array of shape ({family.dimension},)"


def _called(family: ParametricMatrix, p: Tensor, batched: bool) -> object:
    """Return what the function gives, for each parameter by itself if it is not batched."""
    with checks.outside():
        if batched:
            return family.fn(p)
        # Copies: a function may write its next matrix into the same memory.
        return [_copied(family.fn(x if family.dimension > 1 else x.item())) for x in p.numpy(force=True)]


def _is_axes(grid: object) -> bool:
    """Whether a grid is given by its axes; numbers, lists of numbers and one tensor or array are its points."""
    several = isinstance(grid, (list, tuple)) and len(grid) > 0
    return several and all(isinstance(axis, (Tensor, np.ndarray)) and axis.ndim == 1 for axis in grid)


def _takes_one(family: ParametricMatrix) -> bool:
    """Whether the function gives a matrix where it gets one parameter instead of a batch of one."""
    with contextlib.suppress(Exception):  # whatever the user's function raises
        centre = family.box.parameters(torch.zeros(1, family.dimension, dtype=torch.float64))
        return measured.dense(_called(family, centre, batched=False), centre.device).ndim == 3
    return False


def _copied(A: object) -> object:
    return A.clone() if isinstance(A, Tensor) else copy.deepcopy(A)


def _check_periods(family: ParametricMatrix) -> None:
    """Raise where the ends of a periodic axis differ by more than rounding."""
    for i in np.flatnonzero(family.box.periodic):
        ends = torch.zeros(2, family.dimension, dtype=torch.float64)
        ends[:, i] = torch.tensor([-1.0, 1.0])
        A = family._checked(family.box.parameters(ends))
        gap = float(torch.linalg.vector_norm(A[1] - A[0]) / torch.linalg.vector_norm(A))
        expected, remedy = "A(p) that is the same at both ends of ", "give bounds one period apart, or periodic=False"
        same, got = gap <= torch.finfo(A.dtype).eps ** 0.5, f"a relative difference of {gap:.1g}"
        checks.require(same, "periodic", expected + family.box.names[i], got, remedy)


@checks.explained
def gaussian(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers, in double precision on the CPU: a seed means the same in every dtype.

    Args:
        shape, dtype: Of the result, but for the precision.
        generator: On the CPU.

    Returns:
        float64 or complex128.
    """
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, dtype=wide, generator=generator)


@checks.explained
@checks.full_precision
def trigonometric(
    size: int = 64,
    terms: int = 8,
    shift: float = 1.6,
    seed: int = 0,
    *,
    dimension: int = 1,
    cycles: float = 1.2,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> ParametricMatrix:
    r"""Smooth family on [0, 1]^d, well-conditioned for large n: a shifted random trigonometric polynomial.

    .. math:: A(p) = s I + \sum_{k=1}^{K} R_k \cos(\omega_k^T p) + S_k \sin(\omega_k^T p),
              \qquad \omega_k = 2 \pi c \tfrac{k}{K} u_k,

    with independent Gaussian R_k, S_k of variance 1 / (n K) and unit vectors u_k (u_k = 1 for d = 1). At each p the
    sum is a Ginibre matrix, whose spectrum fills the unit disc as n grows; a shift s > 1 keeps A(p) invertible with
    overwhelming probability for large n, not with certainty: below n = 16 or so take a larger shift. The family is
    analytic and not periodic on the box.

    Args:
        size: Rows and columns n of A.
        terms: K, number of frequencies.
        shift: The multiple s of the identity.
        seed: Seed of R, S and u; the same family in every dtype and on every device.
        dimension: Number d of parameters.
        cycles: c, periods of the fastest term over the unit interval.
        dtype: Dtype of A; a complex dtype draws complex R_k and S_k of the same variance. Default: torch's default.
        device: Device of the parameters and of A.

    Returns:
        A family of shape (n, n).

    Example:
        >>> import neumatc as nm
        >>> nm.families.trigonometric(size=4).shape
        (4, 4)
    """
    size, terms, seed = checks.integer("size", size, 1), checks.integer("terms", terms, 1), checks.seed(seed)
    dimension = checks.integer("dimension", dimension, 1)
    shift, cycles = checks.number("shift", shift), checks.number("cycles", cycles, above=0)
    dtype, device = checks.matrix_dtype("dtype", dtype), checks.place("device", device)
    generator = torch.Generator().manual_seed(seed)
    waves = (gaussian((2 * terms, size * size), dtype, generator) / (size * terms) ** 0.5).to(device, dtype)
    directions = torch.randn((terms, dimension), dtype=torch.float64, generator=generator)
    directions = directions / directions.norm(dim=1, keepdim=True) if dimension > 1 else torch.ones_like(directions)
    speeds, real = torch.arange(1, terms + 1, dtype=torch.float64) / terms, checks.real_dtype(dtype)
    frequencies = (2 * torch.pi * cycles * speeds[:, None] * directions).to(device, real)
    identity = shift * torch.eye(size, dtype=dtype, device=device)

    def fn(p: Tensor) -> Tensor:
        phase = p.to(real) @ frequencies.T
        basis = torch.cat([phase.cos(), phase.sin()], dim=1)
        return (basis.to(dtype) @ waves).view(-1, size, size) + identity

    return ParametricMatrix(fn, [0.0] * dimension, [1.0] * dimension, dtype=real, device=device)


@checks.explained
def beside(left: ParametricMatrix, right: ParametricMatrix | ArrayLike, *, name: str = "right") -> ParametricMatrix:
    """Family [A | B] of two matrices with the same rows: for `Solve`, `LMMSE` in coloured noise, `Eigh` of a pair.

    Args:
        left: A, a family of m x n matrices.
        right: B, a family of m x k matrices on the same box, or one such matrix for all parameters: a tensor, an array
            or a sparse matrix of SciPy, of a dtype that converts to that of A without loss, or to the complex one of
            the same precision: a complex B beside a real A makes both complex.
        name: What messages call B.

    Returns:
        A family of shape (m, n + k) with the labels of A.

    Raises:
        ValueError: For different boxes, rows, precisions or devices.
        TypeError: For anything else than a family and such a matrix.

    Example:
        >>> import torch, neumatc as nm
        >>> A = nm.families.trigonometric(size=8, shift=3)
        >>> nm.families.beside(A, torch.ones(8, 2)).shape
        (8, 10)
    """
    checks.instance("left", left, ParametricMatrix, "a ParametricMatrix")
    right = measured.dense(right, left.device) if measured.sparse(right) else right
    right = np.asarray(right) if isinstance(right, (list, tuple)) else right
    checks.instance(name, right, (ParametricMatrix, Tensor, np.ndarray), "a ParametricMatrix, a tensor or an array")
    right = checks.tensor(right, name).to(left.device) if isinstance(right, np.ndarray) else right
    constant, m, dtype = isinstance(right, Tensor), left.shape[0], torch.promote_types(left.dtype, right.dtype)
    good, remedy = len(right.shape) == 2 and right.shape[0] == m, "give it as many rows as A has"
    checks.require(good, name, f"shape ({m}, k)", tuple(right.shape), remedy)
    good, expected = checks.real_dtype(dtype) is checks.real_dtype(left.dtype), f"the precision of {left.dtype}"
    checks.require(good, name, expected, right.dtype, f"convert it, or A to that of {right.dtype}")
    checks.require(right.device == left.device, name, f"device {left.device}", right.device, "move it there")
    box = left.box if constant else right.box
    checks.require(box == left.box, name, f"the box {checks.shown(left.box)}", checks.shown(box), "give both the same")

    def fn(p: Tensor) -> Tensor:
        B = right.expand(len(p), -1, -1) if constant else right._values(p, anything=True).clone()
        return torch.cat([left._values(p, anything=True).to(dtype), B.to(dtype)], dim=2)

    family = ParametricMatrix(fn, **left.domain)
    family.measured = left.measured or (None if constant else right.measured)
    floors = [left.floor, None if constant else right.floor]
    if any(floor is not None for floor in floors):
        none = (torch.zeros(x.shape, device=left.device) for x in (left, right))
        family.floor = torch.cat([zeros if floor is None else floor for floor, zeros in zip(floors, none)], dim=1)
    return family


@checks.explained
def from_samples(
    p: Tensor | ArrayLike,
    A: Tensor | ArrayLike,
    *,
    missing: str = "raise",
    noise: float | str | ArrayLike | None = None,
    scale: str | Sequence[str] = "linear",
    names: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
) -> ParametricMatrix:
    """Family through measured matrices, interpolated entry by entry with SciPy, or of noisy ones smoothed.

    One parameter: a cubic spline (of lower degree for fewer than four samples). Several: cubic radial basis functions
    with a linear polynomial, on parameters scaled to the unit box; its cost grows with the cube of the number of
    samples, which suits up to a few thousand. The family passes through the samples. Between them it is an
    interpolation: a surrogate, its residual and its bounds are about that, and inherit its error. How large it is shows
    what is found at each sample from all others: ``family.measured.left_out``, which reports and certificates quote.
    A fit to a tolerance solves at no more points than there are samples, and of one parameter at samples alone; its
    tolerance is met where it is met between them too. Below what they tell, it is not, and the report names the place.
    (Checks of receivers and determinants take some exact solutions between them.)

    With ``noise`` the samples of one parameter are smoothed (`neumatc.smoothing`): cubic splines by least squares, with
    as many terms as the noise lets them have, whose coefficients are then shrunk, each entry's as far as it pays: weak
    columns (users far away), rows or entries keep fewer terms than strong ones. It is done in pieces where values jump
    (the phases of blocks of a band, the gain of a receiver), no matter how irregular the samples are.
    ``family.measured`` says how much noise there was, how many terms, what is left, and where jumps and gaps are;
    reports and certificates quote it. Averaging divides the variance by the samples per term, so the family, and a map
    of it, may be nearer to what was measured than the samples are. No bound knows by how much. A fit to a tolerance
    stops where the noise that is left does. Samples on a grid of several parameters: `from_grid`.

    Args:
        p: Parameters of the samples, shape (N, d), or (N,) for one parameter, N >= 2 distinct rows; the box is their
            bounding box. A tensor, or anything that NumPy makes an array of: lists, data sets of HDF5. Integers are
            taken in double precision.
        A: Matrices, shape (N, m, n); as p, real or complex, also as compounds of a real and an imaginary part (MATLAB
            v7.3 files), or lists of N sparse matrices of SciPy or torch, and sparse tensors, which are made dense
            (``family.densified``). Axes are never moved: h5py gives those of MATLAB arrays reversed, so that an
            m x n x N array arrives as (N, n, m) and wants ``A.transpose(0, 2, 1)``, which no shape tells.
        missing: What to do with samples that hold NaN, Inf or masked entries, or zeros only: ``"raise"``, ``"drop"``
            them, or ``"keep"`` zero matrices as data.
        noise: Variance of the errors of an entry of A, independent and of mean zero (of complex entries that of real
            and imaginary part together; of a least-squares estimate at pilots that of the noise over their power). A
            number, or an array that broadcasts to (m, n) where it differs: (n,) for the columns, (m, 1) for the rows.
            Or ``"estimate"``: one number, from differences of neighbouring samples, at least ten. Default, and for 0:
            none, the samples are interpolated.
        scale: ``"linear"`` or ``"log"``, for all parameters or for each, as of `ParametricMatrix`; for samples over
            decades: they are interpolated on that scale.
        names: One name per parameter.
        units: One unit per parameter.

    Returns:
        A family of shape (m, n) on the device of p. SciPy evaluates it on the CPU, so it is meant for the fit, not
        for speed, and it does not carry gradients.

    Raises:
        ValueError: For parameters that are repeated or too close to each other, fewer samples than an interpolation
            needs, missing samples, matrices along another axis than the first, or noise in several parameters.
        TypeError: For other data than numbers.

    Example:
        >>> import torch, neumatc as nm
        >>> p = torch.linspace(0, 1, 5)[:, None]
        >>> A = torch.eye(2) * (1 + p[:, :, None] ** 2)
        >>> family = nm.families.from_samples(p, A)
        >>> family(torch.tensor([[0.5]]))[0, 0, 0]
        tensor(1.2500)
        >>> bool(family.measured.left_out[2] < 1e-12)  # a parabola: four samples tell the fifth
        True
    """
    given, p, A = A, measured.tensor("p", p), measured.tensor("A", A)
    expected, good = "float32 or float64 numbers, shape (N, d) or (N,)", p.ndim in (1, 2) and p.dtype in checks.REAL
    checks.require(good, "p", expected, checks.describe(p), "give a row for each matrix", TypeError)
    p = p[:, None] if p.ndim == 1 else p
    A = measured.matrices(A, p, given)
    good = measured.kept(p, A, missing)
    p, A = p[good], A[good.to(A.device)]
    (count, d), (lower, upper) = p.shape, p.aminmax(dim=0) if len(p) else (p, p)
    offsets, width = p.double() - p.double().mean(dim=0), (upper - lower).double()
    rank = int(torch.linalg.matrix_rank(offsets / torch.where(width > 0, width, 1))) if len(p) else 0
    expected, got = f"at least {d + 1} samples that vary in {d} direction(s)", f"{count} that vary in {rank}"
    checks.require(rank == d, "p", expected, got, "add others, or leave a parameter that is constant out")
    box = Box(lower, upper, scale=scale, names=names, units=units)

    def scaled(q: Tensor) -> np.ndarray:
        return ((box.cube(q) + 1) / 2).numpy(force=True)

    x, values = scaled(p), A.cpu().numpy().reshape(count, -1)
    level, lost, curve = smoothing.level(noise, (count,), A.shape[1:]), int((~good).sum()), None
    smooth = not np.isscalar(level) or level > 0
    remedy = "give a grid to `nm.families.from_grid`, fix the others, or leave the noise out to interpolate"
    checks.require(not smooth or d == 1, "noise", "None, or samples of one parameter", f"{d} parameters", remedy)
    if len(np.unique(x, axis=0)) == count:
        samples = A.numpy(force=True)
        curve = Smoothing(x.T, samples, level, p.T.numpy(force=True), lost) if smooth else _through(x, values, lost)
    if curve is None:
        got = "some that are equal or too close to each other, or to a line or plane, for double precision"
        checks.require(False, "p", "distinct samples", got, "average or drop them, or add others")
    shape, dtype = A.shape[1:], A.dtype

    def fn(q: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(curve(scaled(q)))).to(q.device, dtype).view(-1, *shape)

    family = ParametricMatrix(fn, lower, upper, grid=p, **box.settings())
    family.measured, family.densified = curve, measured.sparse(given)
    return _with_floor(family) if smooth else family


@checks.explained
def from_grid(
    axes: Sequence[Tensor | ArrayLike] | Tensor | ArrayLike,
    A: Tensor | ArrayLike,
    *,
    noise: float | str | ArrayLike | None = None,
    scale: str | Sequence[str] = "linear",
    names: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
) -> ParametricMatrix:
    """Family of matrices on a tensor grid, as a receiver has them at its symbols and subcarriers: nothing in between.

    Nodes of a fit and the parameters at which it is checked are points of the grid, so nothing is interpolated but the
    result. Then ``surrogate.grid(*axes)`` gives all of them at once.

    With ``noise`` the matrices are smoothed along all axes, as `from_samples` smooths those of one parameter, by
    products of splines: pilots at a few symbols of a slot and at many tones. Then the family is defined between the
    points too. Along an axis with few points, such as two symbols, it is a line or nearly constant, as their noise has
    it. Jumps and gaps are looked for along each axis; one with fewer than 12 points may jump unseen.

    Args:
        axes: Values of each parameter, rising, shape (N_i,) each, at least two; for one parameter its values alone. A
            tensor, an array or lists.
        A: Matrices, shape (N_1, ..., N_d, m, n). Those with NaN or Inf count as missing: the family is not defined
            there. With noise there may be none.
        noise: As of `from_samples`: variance of the errors of an entry, an array of them, or ``"estimate"``, from an
            axis of at least ten points. Default, and for 0: none.
        scale: ``"linear"`` or ``"log"``, for all parameters or for each, as of `ParametricMatrix`.
        names: One name per parameter.
        units: One unit per parameter.

    Returns:
        A family of shape (m, n) on the device of A. Between points of the grid it raises `FamilyError`, but not with
        noise: then it is evaluated on the CPU, as that of `from_samples`.

    Raises:
        ValueError: For axes that do not rise, matrices of another number, or missing ones with noise.
        FamilyError: (a ValueError) If none of some matrices at random is finite.
        TypeError: For other data than numbers.

    Example:
        >>> import torch, neumatc as nm
        >>> times, tones = torch.arange(14.0), torch.arange(52.0)
        >>> H = torch.ones(14, 52, 4, 2) + 0.01 * times[:, None, None, None]
        >>> nm.families.from_grid([times, tones], H).shape
        (4, 2)
        >>> E = 0.1 * torch.randn(H.shape, generator=torch.Generator().manual_seed(0))
        >>> family = nm.families.from_grid([times, tones], H + E, noise=0.01)
        >>> bool((family(family.grid) - H.view(-1, 4, 2)).square().mean() < 0.03 * E.square().mean())
        True
    """
    A = measured.tensor("A", A)
    several = isinstance(axes, (list, tuple)) and not np.isscalar(axes[0]) and getattr(axes[0], "ndim", 1) == 1
    ticks = [_ticks(f"axes[{i}]", axis, A.device) for i, axis in enumerate(axes)] if several else []
    ticks = ticks or [_ticks("axes", axes, A.device)]
    counts = tuple(map(len, ticks))
    good, expected = A.ndim == len(ticks) + 2 and A.shape[:-2] == counts, f"shape {(*counts, 'm', 'n')}"
    checks.require(good, "A", expected, tuple(A.shape), "give one matrix for each point of the grid")
    checks.matrix_dtype("A", A.dtype)
    low, high = (torch.stack([axis[k] for axis in ticks]) for k in (0, -1))
    labels = {"scale": scale, "names": names, "units": units}
    level = smoothing.level(noise, counts, A.shape[-2:])
    if level is None or np.any(level):
        return _smoothed(A, level, Box(low, high, **labels), ticks)

    known = [(axis, Nearest(axis), _OFF * axis.diff().min()) for axis in ticks]

    def fn(p: Tensor) -> Tensor:
        at = []
        for own, (axis, nearest, most) in zip(p.T, known):
            at.append(nearest(own))
            off = (own - axis[at[-1]]).abs() > most
            checks.require(not off.any(), "p", "points of the grid", own[off][:1].tolist(), "take those", FamilyError)
        return A[tuple(at)]

    return ParametricMatrix(fn, low, high, grid=ticks, **labels)


def _smoothed(A: Tensor, level: float | np.ndarray | None, box: Box, ticks: Sequence[Tensor]) -> ParametricMatrix:
    """Return the family of noisy matrices on a grid, smoothed."""
    missing, remedy = int((~checks.finite(A.flatten(0, -3))).sum()), "leave out whole rows of the grid, or fill them in"
    checks.require(not missing, "A", "finite matrices at all points of a grid with noise", f"{missing} others", remedy)
    axes = [own.cube(axis[:, None])[:, 0] for own, axis in zip(box.axes, ticks)]
    axes, places = ([own.numpy(force=True) for own in x] for x in (axes, ticks))
    curve, dtype = Smoothing(axes, A.numpy(force=True), level, places), A.dtype

    def fn(p: Tensor) -> Tensor:
        return torch.from_numpy(curve(box.cube(p).numpy(force=True))).to(p.device, dtype)

    grid = torch.cartesian_prod(*ticks).view(-1, len(ticks))
    family = ParametricMatrix(fn, box.lower, box.upper, grid=grid, **box.settings())
    family.measured = curve
    return _with_floor(family)


def _with_floor(family: ParametricMatrix) -> ParametricMatrix:
    """Add the error that is left in smoothed samples."""
    family.floor = torch.from_numpy(family.measured.floor).to(family.device, checks.real_dtype(family.dtype))
    return family


def _ticks(name: str, axis: Tensor | ArrayLike, device: torch.device) -> Tensor:
    """Return the values of an axis in double precision, shape (N,), after checking them."""
    axis = measured.tensor(name, axis)
    axis = axis.flatten() if axis.shape[1:] == (1,) else axis
    good = axis.ndim == 1 and len(axis) > 1 and not axis.is_complex()
    axis = axis.to(device, torch.float64) if good else axis
    good = good and bool(torch.isfinite(axis).all()) and bool((axis.diff() > 0).all())
    checks.require(good, name, "at least two rising numbers, shape (N,)", checks.describe(axis), "sort the grid")
    return axis


def _through(x: np.ndarray, values: np.ndarray, missing: int) -> Interpolation | None:
    """Return the interpolation through samples, or None where they are too close to each other for it."""
    try:
        found = Interpolation(x, values, missing)
        missed = np.abs(found(x) - values).max()
    except ValueError:  # NumPy's LinAlgError is one
        return None
    return found if missed <= np.finfo(values.dtype).eps ** 0.5 * np.abs(values).max() else None
