"""Parametric matrices p -> A(p): any batched torch function on a box, and families made for study."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.interpolate import RBFInterpolator, make_interp_spline
from torch import Tensor

from neumatc import checks, sampling
from neumatc.box import Box

# Parameters beside the centre of the box that are tried for the shape and the dtype of A, where the centre has none.
_TRIED = 8
# Most parameters that are tried one by one where a function raises for all of them: one call each.
ALONE = 64


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
        fn: Batched function, p of shape (B, d) -> A of shape (B, m, n), real or complex, any torch code. It is
            called once with the centre of the box to learn the shape, the dtype and the device of A, or if that fails
            there with some other parameters. It is given its own copy of p.
        lower: Lower bounds of the box, shape (d,), or a number for d = 1. A floating tensor keeps its dtype; lists take
            ``dtype``.
        upper: Upper bounds, above ``lower``.
        scale: ``"linear"`` or ``"log"``, for all parameters or one of them each; see `neumatc.box.Box`.
        periodic: Whether A(p) repeats itself from ``lower`` to ``upper``, for all parameters or for each.
        grid: The only parameters that matter, shape (N, d), if they are finitely many: a fit to a tolerance never
            solves at more of them than there are.
        names: One name per parameter, for plots and reports. Default ``("p",)`` or ``("p1", "p2", ...)``.
        units: One unit per parameter, for example ``("Hz",)``. Default: none (``""``).
        dtype: Real dtype of the parameters; default that of ``lower``, else torch's default (not if it is half).
        device: Device of the parameters; default that of ``lower``.

    Attributes:
        box: The box, a `neumatc.box.Box`; its ``lower``, ``upper``, ``names``, ``units``, ``dimension`` and ``device``
            are attributes of the family too.
        grid: As given, or None.
        shape: (m, n).
        dtype: The dtype of A: float32, float64, complex64 or complex128.

    Raises:
        ValueError: For an empty or reversed box, a wrong shape, or NaN or Inf in A at every parameter tried.
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

    def __init__(
        self,
        fn: Callable[[Tensor], Tensor],
        lower: float | Sequence[float] | Tensor,
        upper: float | Sequence[float] | Tensor,
        *,
        scale: str | Sequence[str] = "linear",
        periodic: bool | Sequence[bool] = False,
        grid: Tensor | None = None,
        names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        if not callable(fn):
            raise TypeError(f"`fn`: expected a function p (B, d) -> A (B, m, n), got {type(fn).__name__}.")
        self.fn = fn
        self.box = Box(
            lower, upper, scale=scale, periodic=periodic, names=names, units=units, dtype=dtype, device=device
        )
        self.lower, self.upper, self.dimension = self.box.lower, self.box.upper, self.box.dimension
        self.device = self.box.device
        self.names, self.units = self.box.names, self.box.units
        self.grid = None if grid is None else self.box.points(grid)
        A = self._tried()
        remedy = f"pass `device='{A.device}'` or create the tensors in `fn` on `p.device`"
        expected = f"A on the device of the parameters, {self.device}"
        checks.require(A.device == self.device, "fn", expected, A.device, remedy)
        self.shape, self.dtype = tuple(A.shape[1:]), A.dtype
        _check_periods(self)

    def __call__(self, p: Tensor, *, extrapolate: bool = False) -> Tensor:
        """Evaluate A(p).

        Args:
            p: Parameters, shape (B, d), float32 or float64, inside the box, on the family's device.
            extrapolate: Allow parameters outside the box.

        Returns:
            A(p), shape (B, m, n), of the family's dtype.

        Raises:
            ValueError: If p has another shape, is empty, not finite or outside the box.
            FamilyError: (a ValueError) If ``fn`` raises, or A has another shape or dtype than at the centre of the box,
                or NaN or Inf; the message gives the parameter.
            TypeError: If p is not a real floating tensor.
        """
        return self._values(self.box.points(p, extrapolate=extrapolate))

    def evaluate(self, p: Tensor, *, extrapolate: bool = False) -> tuple[Tensor, Tensor]:
        """Evaluate A(p) wherever it is defined: for callers that mark single parameters instead of stopping at them.

        Args:
            p, extrapolate: As for a call.

        Returns:
            A(p), shape (B, m, n), with zeros in the place of matrices with NaN or Inf, and the mask ``good`` (B,) of
            the others. Where ``fn`` raises for at most 64 parameters, each is tried alone, and not good if it raises
            again; ``family(p)`` says why.

        Raises:
            ValueError, TypeError: As a call does, but for NaN and Inf; of what ``fn`` raises, that for larger batches.
        """
        p = self.box.points(p, extrapolate=extrapolate)
        try:
            A = self._values(p, anything=True)
        except FamilyError:
            if len(p) > ALONE:
                raise
            A = torch.full((len(p), *self.shape), torch.nan, dtype=self.dtype, device=self.device)
            for i in range(len(p)):
                with contextlib.suppress(FamilyError):
                    A[i] = self._values(p[i : i + 1], anything=True)[0]
        good = checks.finite(A.detach())
        return (A if good.all() else torch.where(good[:, None, None], A, 0)), good

    def _tried(self) -> Tensor:
        """Return A at the centre of the box, or at the first of some other parameters at which it is defined."""
        ones = torch.ones(self.dimension, dtype=torch.float64)
        x, first = torch.cat([0 * ones[None], sampling.sobol(_TRIED, -ones, ones)]), None
        for p in self.box.parameters(x).split(1):
            try:
                return self._checked(p)
            except Exception as error:  # whatever the user's function raises
                first = first or error
        raise first

    def _values(self, p: Tensor, *, anything: bool = False) -> Tensor:
        """Return A, of the family's shape and dtype, and finite unless ``anything`` goes; else FamilyError."""
        try:
            A = self._checked(p, anything)
        except (FamilyError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the user's function raises, at one parameter of many
            raise FamilyError(
                f"`fn(p)`: expected matrices at parameters between {p.amin(dim=0).tolist()} and "
                f"{p.amax(dim=0).tolist()}, got {type(error).__name__}: {error}; restrict the box or mend the function."
            ) from error
        if tuple(A.shape[1:]) != self.shape or A.dtype != self.dtype:
            raise FamilyError(
                f"`fn(p)`: expected shape {(p.shape[0], *self.shape)} and dtype {self.dtype} as at the centre of the "
                f"box, got {tuple(A.shape)} and {A.dtype}."
            )
        return A

    @checks.full_precision
    def _checked(self, p: Tensor, anything: bool = False) -> Tensor:
        A = self.fn(p.to(self.lower.dtype, copy=True))
        try:
            return checks.matrices("fn(p)", A, p, anything=anything)
        except ValueError as error:
            raise FamilyError(str(error)) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape[0]} x {self.shape[1]}, {self.box}, {self.dtype}, {self.device})"


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
    dtype = checks.matrix_dtype("dtype", dtype)
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


def beside(left: ParametricMatrix, right: ParametricMatrix | Tensor) -> ParametricMatrix:
    """Family [A | B] of two matrices with the same rows side by side, as `Solve` takes it.

    Args:
        left: A, a family of m x n matrices.
        right: B, a family of m x k matrices on the same box, or one such matrix for all parameters.

    Returns:
        A family of shape (m, n + k) with the labels of A.

    Raises:
        ValueError: For different boxes, rows, dtypes or devices.
        TypeError: For anything else than a family and a tensor.

    Example:
        >>> import torch, neumatc as nm
        >>> A = nm.families.trigonometric(size=8, shift=3)
        >>> nm.families.beside(A, torch.ones(8, 2)).shape
        (8, 10)
    """
    if not isinstance(left, ParametricMatrix) or not isinstance(right, (ParametricMatrix, Tensor)):
        kinds = f"{type(left).__name__} and {type(right).__name__}"
        raise TypeError(f"`left`, `right`: expected a ParametricMatrix, and one or a tensor, got {kinds}.")
    constant, box = isinstance(right, Tensor), left.box if isinstance(right, Tensor) else right.box
    expected, found = (left.dtype, left.device, left.box), (right.dtype, right.device, box)
    good = found == expected and len(right.shape) == 2 and right.shape[0] == left.shape[0]
    wanted = f"shape ({left.shape[0]}, k), dtype, device and box {expected} as in `left`"
    checks.require(good, "right", wanted, f"{tuple(right.shape)}, {found}", "convert it")

    def fn(p: Tensor) -> Tensor:
        B = right.expand(len(p), -1, -1) if constant else right._values(p, anything=True).clone()
        return torch.cat([left._values(p, anything=True), B], dim=2)

    return ParametricMatrix(fn, left.lower, left.upper, grid=left.grid, **left.box.settings())


def _interpolation(x: np.ndarray, values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Interpolate values (N, M) at distinct points x (N, d) of the unit box."""
    if x.shape[1] > 1:
        return RBFInterpolator(x, values, kernel="cubic", degree=1)
    order = np.argsort(x[:, 0])
    spline = make_interp_spline(x[order, 0], values[order], k=min(3, len(x) - 1))
    return lambda y: spline(y[:, 0])


def _tensor(name: str, value: Tensor | ArrayLike) -> Tensor:
    try:
        return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError):  # no numbers, or no regular shape
        expected = "a tensor, a NumPy array or lists of numbers of a regular shape"
        raise TypeError(f"`{name}`: expected {expected}, got {checks.describe(value)}; convert it.") from None


def from_samples(
    p: Tensor | ArrayLike,
    A: Tensor | ArrayLike,
    *,
    names: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
) -> ParametricMatrix:
    """Family through measured matrices, interpolated entry by entry with SciPy.

    One parameter: a cubic spline (of lower degree for fewer than four samples). Several: cubic radial basis functions
    with a linear polynomial, on parameters scaled to the unit box; its cost grows with the cube of the number of
    samples, which suits up to a few thousand. The family passes through the samples; between them it is an
    interpolation, and a surrogate of it inherits that interpolation's error, which nothing here can measure.

    Args:
        p: Parameters of the samples, shape (N, d), or (N,) for one parameter, N >= 2 distinct rows; the box is their
            bounding box. A tensor, a NumPy array or lists, of which NumPy chooses the dtype.
        A: Matrices, shape (N, m, n), of any supported dtype; as p.
        names: One name per parameter.
        units: One unit per parameter.

    Returns:
        A family of shape (m, n) on the device of p. SciPy evaluates it on the CPU, so it is meant for the fit, not
        for speed, and it does not carry gradients.

    Raises:
        ValueError: For parameters that are repeated or too close to each other, fewer samples than an interpolation
            needs, or NaN or Inf in A.

    Example:
        >>> import torch, neumatc as nm
        >>> p = torch.linspace(0, 1, 5)[:, None]
        >>> A = torch.eye(2) * (1 + p[:, :, None] ** 2)
        >>> family = nm.families.from_samples(p, A)
        >>> family(torch.tensor([[0.5]]))[0, 0, 0]
        tensor(1.2500)
    """
    p, A = _tensor("p", p), _tensor("A", A)
    if p.ndim not in (1, 2) or p.dtype not in checks.REAL:
        raise TypeError(f"`p`: expected float32 or float64 numbers, shape (N, d) or (N,), got {checks.describe(p)}.")
    p = p[:, None] if p.ndim == 1 else p
    checks.require(torch.isfinite(p).all(), "p", "finite parameters", "NaN or Inf", "drop those samples")
    p, A = p.detach(), checks.matrices("A", A, p)
    (count, d), lower, upper = p.shape, p.amin(dim=0), p.amax(dim=0)
    offsets, width = p.double() - p.double().mean(dim=0), (upper - lower).double()
    rank = int(torch.linalg.matrix_rank(offsets / torch.where(width > 0, width, 1)))
    expected, got = f"at least {d + 1} samples that vary in {d} direction(s)", f"{count} that vary in {rank}"
    checks.require(rank == d, "p", expected, got, "add others, or leave a parameter that is constant out")
    lower, upper = checks.box(lower, upper, None, None)

    def scaled(q: Tensor) -> np.ndarray:
        return ((q.detach().double() - lower) / (upper.double() - lower)).cpu().numpy()

    x, values = scaled(p), A.detach().resolve_conj().cpu().numpy().reshape(count, -1)
    try:
        interpolate = _interpolation(x, values)
        missed = np.abs(interpolate(x) - values).max()
    except ValueError:  # NumPy's LinAlgError is one
        missed = np.inf
    if len(np.unique(x, axis=0)) < count or not missed <= torch.finfo(A.dtype).eps ** 0.5 * np.abs(values).max():
        raise ValueError(
            "`p`: expected distinct samples, got some that are equal or too close to each other, or to a line or "
            "plane: no interpolation passes through them in double precision; average or drop them, or add others."
        )
    shape, dtype = A.shape[1:], A.dtype

    def fn(q: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(interpolate(scaled(q)))).to(q.device, dtype).view(-1, *shape)

    return ParametricMatrix(fn, lower, upper, grid=p, names=names, units=units)
