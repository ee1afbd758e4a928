"""Matrix operations A -> X: one class each, with its exact solution, residual, gauge and error bound."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import sparray
from torch import Tensor

from neumatc import checks, families, linalg, twofold
from neumatc.families import FamilyError, ParametricMatrix
from neumatc.linalg import beside, gram, identity_like, largest_row, norm, relative, squared_norm, two_norm_above, wide
from neumatc.report import Event

# Operations of a matrix function, in n^3 (Higham, 2008): products and a solve for the exponential; for the others a
# Schur form, 25, with what follows, and an inverse that tells which matrices are singular. The second number is for the
# call, since they take one matrix at a time: its time, for a processor of 1 Gflop/s.
_FUNCTION_COSTS = {"exp": (20, 4e5), "sqrt": (30, 6e4), "inverse_sqrt": (32, 7e4), "log": (60, 4e6)}
# Relative change of entries that shows what rounding does to a matrix function.
_CHANGE = 8 * torch.finfo(torch.float64).eps
# A matrix that is less Hermitian than this, relative to its norm, is no covariance: well above any rounding.
_SKEW = 1e-4
Factors = tuple[Tensor, ...]


class Factor(NamedTuple):
    """One output of an operation: its name, its shape per parameter, and its field if that is not the matrix's."""

    name: str
    shape: tuple[int, ...]
    field: str = ""
    """``"real"`` or ``"complex"`` for every A; empty: real for real A, complex for complex A."""

    def dtype(self, matrix: torch.dtype) -> torch.dtype:
        """Return the factor's dtype for matrices of the dtype ``matrix``."""
        real = checks.real_dtype(matrix)
        return {"real": real, "complex": checks.COMPLEX[real]}.get(self.field, matrix)


class Operation(ABC):
    """A matrix operation: what is computed, and how an answer is checked without knowing the exact one.

    Factors travel as a tuple of tensors, batch first, in the order of `factors`. Subclasses are frozen dataclasses of
    plain numbers, by which a file names them. They give `factors`, `exact`, and `residual` or `loss`; what else they
    can do they declare, in the attributes that follow.
    """

    registry: dict[str, type[Operation]] = {}
    unique: bool = True
    """Whether A determines the factors, so that they vary continuously with it; not so for singular vectors."""
    linear: bool = False
    """Whether the factor solves the equations of `LinearOperation.system`, so that it is fitted from them alone."""
    newton: bool = False
    """Whether `improved` takes a Newton step; true of a class with its own."""
    finishes: bool = False
    """Whether values of the maps take `finish` to become factors; true of a class with its own."""
    bounds: bool = False
    """Whether `error_bound` is another number than the residual; true of a class with its own."""
    certainty: str = "estimate"
    """What `error_bound` gives: ``"bound"`` where it is proved, else ``"estimate"``."""
    needs: str = "`exact` gives no failure"
    """What holds where the operation exists, for remedies: ``"A is regular"``."""
    remedy: str = "the operation exists only where {needs}, at none of the parameters tried: check the family"
    """What to do where every exact solution fails, for the warning; ``{needs}`` stands for that."""
    residual_solves: bool = False
    """Whether the residual takes an exact solve, which whoever asks for residuals then counts as one."""
    orthonormal: tuple[int, ...] = ()
    """Which factors have orthonormal columns (wide ones: rows) in the exact solution."""
    powers: tuple[float, ...] = ()
    """How each factor grows with A, as a power of it; empty where that is not the whole of it."""
    turns: tuple[tuple[str, str], ...] = ()
    """By which phases the rows and columns of each factor turn where those of A do: of its ``"rows"``, its
    ``"columns"``, with ``-`` in front conjugate, or ``""``, none; empty if that is not all. See `neumatc.turns`."""
    order: str = ""
    """Where that is a choice, how columns are ordered; ``"followed"``: their labels are kept."""
    packed: type[tuple] | None = None
    """The named tuple in which the caller gets several factors."""
    wanted: Callable[..., Tensor] | None = None
    """Of A, factors and residuals (B,): whether these are those meant, (B,), where others have residuals as small."""
    work: tuple[float, float] = (6, 20)
    """The operations of an exact solution, in units of long short^2 and short^3, for the sides of A; see `cost`."""

    def __init_subclass__(cls) -> None:
        for method, declared in (("improved", "newton"), ("finish", "finishes"), ("error_bound", "bounds")):
            if method in vars(cls):
                setattr(cls, declared, True)
        if vars(cls).keys() & {"exact", "system"}:  # what is known of another solution is not known of this one
            for own in ("refined", "turns", "wanted"):
                setattr(cls, own, vars(cls).get(own, getattr(Operation, own)))
        cls.__repr__ = vars(cls).get("__repr__", Operation.__repr__)  # in the place of that of a dataclass
        checks.register(Operation.registry, cls)

    @abstractmethod
    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        """Describe the outputs for an m x n matrix; raise ValueError where the operation does not exist."""

    @abstractmethod
    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        """Solve exactly through `neumatc.linalg`: the factors, and a mask of failures of shape (B,)."""

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        """Relative algebraic residual (B,), zero at an exact solution, one for all gauges; or the root of `loss`."""
        return self.loss(A, factors).sqrt()

    def admitted(self, A: Tensor) -> tuple[Tensor, Tensor]:
        """Return A as it is meant, and a mask (B,) of what `exact` does not refuse at sight, as not Hermitian.

        In the precision in which A came, which tells rounding. Residuals and bounds of what is refused count as Inf.
        """
        return A, torch.ones(len(A), dtype=torch.bool, device=A.device)

    def cost(self, m: int, n: int) -> float:
        """Approximate number of floating-point operations of one exact solution for a real m x n matrix.

        Leading terms only (Golub and Van Loan, *Matrix Computations*, 2013), of real matrices: whoever counts takes
        four times as many for complex ones. How fast they run is not in it. From `work`, by default that of a thin SVD.
        """
        short, long = sorted((m, n))
        return self.work[0] * long * short**2 + self.work[1] * short**3

    def scales(self, A: Tensor) -> tuple[float, ...]:
        """Guess the root-mean-square entry of each factor: by `powers`, as for equal singular values of A; else 1."""
        factors = self.factors(*A.shape[1:])
        k = getattr(self, "rank", None) or min(A.shape[1:])
        value = float(norm(A).square().mean().sqrt()) / k**0.5 or 1.0
        sizes = [value**power * (k / math.prod(f.shape)) ** 0.5 for power, f in zip(self.powers, factors)]
        return tuple(sizes) or (1.0,) * len(factors)

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        """Differentiable training loss, shape (B,); the squared residual unless there is something better."""
        return self.residual(A, factors) ** 2

    def orthogonality(self, factors: Sequence[Tensor]) -> Tensor:
        """Mean squared defect of orthonormality of the factors that are `orthonormal`, one at least; shape (B,)."""
        frames = [factors[i] if factors[i].shape[1] >= factors[i].shape[2] else factors[i].mH for i in self.orthonormal]
        return sum(squared_norm(gram(U, -1.0)) for U in frames) / (len(frames) * frames[0].shape[-1])

    def invariant(self, factors: Sequence[Tensor]) -> Tensor:
        """Return the gauge-invariant matrix by which two solutions are compared, shape (B, rows, cols)."""
        return factors[0]

    def error(self, factors: Sequence[Tensor], exact: Sequence[Tensor]) -> Tensor:
        """Relative error against an exact solution, shape (B,): of `invariant`, in the Frobenius norm."""
        right = self.invariant(exact)
        return relative(self.invariant(factors) - right, right).sqrt()

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        """Bound or estimate the relative `error`, shape (B,), without an exact solve; `certainty` says which.

        Bounds hold for factors and A as given, in double precision, with the rounding of their own arithmetic
        included, and are Inf where the proof does not apply. By default the residual, which is an estimate.
        """
        return self.residual(A, factors)

    def refined(self, A: Tensor) -> tuple[Factors, Tensor] | None:
        """Solve in twice the working precision: factors and proved bounds of their relative error (B,), or None.

        A is in double precision; a bound is Inf where nothing is proved. For what `certify` cannot bound otherwise. A
        class with its own `exact` or `system` does not inherit it, nor `turns`.
        """
        return None

    def improved(self, A: Tensor, factors: Sequence[Tensor]) -> Factors | None:
        """Return approximate factors after a Newton step, which about squares their error; see `newton`."""
        return None

    def snapshots(self, A: Tensor) -> tuple[Factors, Tensor]:
        """Solve exactly for what `align` needs, which may be more than is asked for; by default as `exact` does."""
        return self.exact(A)

    def align(self, x: Tensor, factors: Sequence[Tensor], **along: object) -> tuple[Factors, tuple[Event, ...]]:
        """Make snapshots continuous: choose their gauge.

        Args:
            x: Parameters in the cube [-1, 1]^d, shape (N, d).
            factors: As `snapshots` gives them, where that succeeded.
            along: ``periodic``: whether the family is the same at -1 and 1 (one parameter only), as the factors are to
                be; ``anchors``: coordinates of one parameter between which factors are to be smooth. As for
                `gauge.align`.

        Returns:
            Factors to be fitted, of the public shapes or any that `finish` understands, and what was met on the way.
        """
        return tuple(factors), ()

    def fits(self, m: int, n: int, shapes: Sequence[tuple[int, ...]]) -> bool:
        """Whether maps of these shapes stand for this operation on m x n matrices; by default the public shapes."""
        return list(shapes) == [factor.shape for factor in self.factors(m, n)]

    def finish(self, fitted: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        """Write the factors, in the form that the exact solution has (order, signs), from the values of the maps.

        After them comes that of `guide`, if there is one. Values of the public shape lie in ``out`` already. Callers
        set memory aside for it, three times that of the values; see `finishes`.
        """

    def guide(
        self, maps: Sequence[Callable], x: np.ndarray, m: int, n: int, *, periodic: bool
    ) -> tuple[np.ndarray, Tensor] | None:
        """Return what `finish` needs to make values of the maps continuous along one parameter; by default nothing.

        Args:
            maps: The maps of the factors.
            x: Coordinates in [-1, 1] from end to end, close enough for the maps to be about linear between them.
            m, n: The shape of A.
            periodic: Whether -1 and 1 are the same.

        Returns:
            Coordinates (P,) and numbers ``(P, *shape)``, between which they are linear: one more value for `finish`.
        """
        return None

    def matched(self, factors: Sequence[Tensor], like: Sequence[Tensor]) -> Factors:
        """Return an exact solution with the labels of another value, where the operation keeps labels."""
        return tuple(factors)

    def orthonormalize_(self, factors: Sequence[Tensor]) -> None:
        """Replace those factors that are orthonormal in the exact solution, in place, by the nearest that are."""
        expected = f"False for {self}, whose factors are not orthonormal"
        checks.require(self.orthonormal, "orthonormal", expected, True, "leave it out")
        for U in (factors[i] for i in self.orthonormal):
            U.copy_(linalg.orthonormalized(U))

    def pack(self, factors: Sequence[Tensor]) -> Tensor | Factors:
        """Return the factors as the caller sees them: one tensor, or a named tuple."""
        return self.packed(*factors) if self.packed else factors[0]

    def joined(self, family: ParametricMatrix) -> tuple[ParametricMatrix, Operation]:
        """Return the family with matrices of the operation's own beside it, and the operation that names them only."""
        return family, self

    def settings(self) -> dict[str, object]:
        """Return the constructor's arguments, as plain numbers."""
        return asdict(self)

    def __repr__(self) -> str:
        """Name the class and the settings that are not the default."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in own.items())})"


def judged(operation: Operation, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Return the residuals by which a fit judges, shape (B,): Inf where A is refused, or other factors are meant."""
    A, good = operation.admitted(A)
    residuals = operation.residual(A, factors)
    good = good & operation.wanted(A, factors, residuals) if operation.wanted else good
    return torch.where(good, residuals, torch.inf)


def checked(solve: Callable[[Tensor], tuple[Factors, Tensor]], A: Tensor) -> tuple[Factors, Tensor]:
    """Solve by `Operation.exact` or `Operation.snapshots`, count what is not finite as failed; failed ones are NaN.

    A ValueError of the operation, which suits none of the matrices, is the family's: FamilyError.
    """
    try:
        factors, failed = solve(A)
    except ValueError as error:
        raise FamilyError(str(error)) from error
    return split(linalg.masked(failed, *(x.resolve_conj().contiguous() for x in factors)))


class LinearOperation(Operation):
    r"""An operation whose one factor X solves linear equations, :math:`L X = F`, with matrices L and F made from A.

    Residual: :math:`\rho = \|L X - F\|_F / \|F\|_F` (`LMMSE`, `RZF` and `PseudoInverse`: row by row). Being linear in
    X, it can be minimised in closed form, so such an operation can be fitted from its residual alone. Equations from
    the other side, :math:`X L^H = F^H`, are those of X^H: then `unknown` gives X^H for X.
    """

    linear = True

    @abstractmethod
    def system(self, A: Tensor) -> tuple[Tensor, Tensor]:
        """Return L of shape (B, equations, rows) and F of shape (B, equations, columns), of the unknown."""

    def unknown(self, X: Tensor) -> Tensor:
        """Return what the equations are for: X, or X^H for those of its shapes where that is meant."""
        return X

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        L, F = self.system(A)
        return relative(L @ self.unknown(factors[0]) - F, F)

    def scales(self, A: Tensor) -> tuple[float, ...]:
        # L X = F with a multiple of a unitary matrix for L.
        L, F = self.system(A)
        return (float((relative(F, L) / F.shape[-1]).sqrt().median()),)


@dataclass(frozen=True)
class Inverse(LinearOperation):
    r"""The inverse X = A^{-1} of a square matrix, the solution of A X = I.

    Residual: :math:`\|A X - I\|_F / \sqrt{n}`, the root-mean-square singular value of A X - I. It costs one
    n x n matrix product, 2 n^3 operations, as many as an inversion.

    Bound: if :math:`\rho = \|R\|_F < 1` for :math:`R = I - A X`, then A is invertible, and
    :math:`\|A^{-1} - X\|_F \le \rho \, \|A^{-1}\|_F`, because :math:`A^{-1} - X = A^{-1} R` (Higham, *Accuracy and
    Stability of Numerical Algorithms*, SIAM 2002, section 14.1). A second product is worth its price:
    :math:`A^{-1} = X (I - R)^{-1}`, so :math:`\|A^{-1} - X\|_F \le \|X R\|_F / (1 - \rho)`, and X R is the Newton
    correction, the error itself up to a relative error of rho. The smaller of the two is taken.
    """

    certainty, work, needs = "bound", (0, 2), "A is regular"
    turns = (("-columns", "-rows"),)
    remedy = "A is singular at all parameters tried: take nm.PseudoInverse(rank=...) where its rank is constant"

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        require_square(self, m, n, "nm.PseudoInverse")
        return (Factor("X", (n, n)),)

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        return split(linalg.inverse(A))

    def system(self, A: Tensor) -> tuple[Tensor, Tensor]:
        return A, identity_like(A)

    def improved(self, A: Tensor, factors: Sequence[Tensor]) -> Factors:
        r"""Newton-Schulz step :math:`X (2 I - A X)`: its residual I - A X is the square of that before."""
        L, _ = self.system(A)
        X = factors[0]
        return (2 * X - X @ (L @ X),)

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        return _bound_of_inverse(A, factors[0])

    def refined(self, A: Tensor) -> tuple[Factors, Tensor]:
        return twofold.pseudo_inverse(A)


class Paired:
    """Operations of two matrices: the second, given as an argument, is put beside the first by `Problem`."""

    _second = None

    def _put_beside(self, name: str) -> None:
        """Take the argument as the second matrix; in its place stands what a file can name."""
        object.__setattr__(self, "_second", (getattr(self, name), name))
        object.__setattr__(self, name, "beside")

    def joined(self, family: ParametricMatrix) -> tuple[ParametricMatrix, Operation]:
        if self._second is None:
            return family, self
        second, name, m, got = *self._second, family.shape[0], tuple(np.shape(self._second[0]))
        checks.require(got == (m, m), name, f"shape {(m, m)}, as A has {m} rows", got, "give a matrix of that size")
        return families.beside(family, second, name=name), replace(self)


@dataclass(frozen=True)
class _Regularized(LinearOperation):
    """Operations of the Gram matrix plus noise times the identity, which is positive definite."""

    noise: float = 1.0
    certainty = "bound"

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", checks.number("noise", self.noise, above=0))

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        # In double precision, since forming the Gram matrix squares the condition number.
        X, failed = linalg.solve_positive(*self.system(wide(A)))
        X, (factor,) = X.to(A.dtype), self.factors(*A.shape[1:])
        return (X if X.shape[1:] == factor.shape else X.mH,), failed


class RegularizedInverse(_Regularized):
    r"""The inverse of the regularised Gram matrix, :math:`X = (A^H A + s I)^{-1}`, for A of any shape.

    Residual: :math:`\|(A^H A + s I) X - I\|_F / \sqrt{n}`. Bound: that of `Inverse`.

    Args:
        noise: s, above zero, in the units of :math:`A^H A`: for a channel A the noise power over that of a stream.
    """

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        return (Factor("X", (n, n)),)

    def cost(self, m: int, n: int) -> float:
        return 2 * m * n**2 + 7 / 3 * n**3

    def system(self, A: Tensor) -> tuple[Tensor, Tensor]:
        L = gram(A, self.noise)
        return L, identity_like(L)

    improved = Inverse.improved

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        L, _ = self.system(A)
        return _bound_of_inverse(L, factors[0], gram_rounding(A))

    def refined(self, A: Tensor) -> tuple[Factors, Tensor]:
        return twofold.pseudo_inverse(A, self.noise, gram=True)


class _NormalEquations(LinearOperation):
    r"""Receivers (A^H A + s I)^{-1} A^H: the smaller of the two systems is solved, for X or, of wide A, for X^H.

    Residual: the largest over the rows of the unknown, each relative to its own right-hand side,

    .. math:: \rho = \max_i \|(L X - F)_i\| / \|F_i\| .

    A row is a user's, and users may be received 40 dB apart: relative to the norm of all rows together, a weak user's
    would be small however wrong it is, and its rate is lost. (The `error` remains that of the whole matrix.)
    """

    noise = 0.0
    certainty, work, needs = "bound", (4, 1 / 3), "the covariance is Hermitian positive definite"

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        return (Factor("X", (n, m)),)

    def system(self, A: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        A = A if A.shape[1] < A.shape[2] else A.mH
        return gram(A.mH, self.noise if noise is None else noise), A

    def unknown(self, X: Tensor) -> Tensor:
        return X if X.shape[-2] <= X.shape[-1] else X.mH

    def refined(self, A: Tensor) -> tuple[Factors, Tensor]:
        return twofold.pseudo_inverse(A, self.noise)

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        # In units of the larger of A and sqrt(s): squares of path gains leave single precision.
        unit = norm(A).clamp_min(max(self.noise**0.5, torch.finfo(A.dtype).tiny))[:, None, None]
        L, F = self.system(A * (1 / unit), (self.noise**0.5 / unit[:, 0]).square())
        return largest_row(L @ (self.unknown(factors[0]) * unit) - F, F)


@dataclass(frozen=True)
class RZF(Paired, _Regularized, _NormalEquations):
    r"""Regularised zero forcing: the precoder :math:`X = H^H (H H^H + R)^{-1}` of the m x n downlink channel H.

    H has a row for each receive antenna and a column for each transmit antenna, and R is the covariance of the noise at
    the receive antennas: s I, or diagonal where users have noise of their own. It is the same matrix as `LMMSE` gives
    for H, with its residual (m < n: the largest over the streams) and bound; columns are streams, and scaling them to
    the transmit power is left to the caller.

    Args:
        noise: As for `LMMSE`.
    """

    noise: float | tuple[float, ...] | str | Tensor | np.ndarray | sparray | ParametricMatrix = 1.0

    @checks.explained
    def __post_init__(self) -> None:
        if isinstance(self.noise, str) and self.noise == "beside":
            return
        shape = self.noise.shape if hasattr(self.noise, "shape") else np.shape(self.noise)
        expected, remedy = "a number, one for each row of A, or a matrix", "give a covariance R of shape (m, m)"
        checks.require(len(shape) < 3, "noise", expected, f"shape {tuple(shape)}", remedy)
        if len(shape) == 2:
            self._put_beside("noise")
        elif shape:
            object.__setattr__(self, "noise", tuple(checks.number("noise", s, above=0) for s in self.noise))
        else:
            super().__post_init__()

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        # A covariance beside the channel turns with its rows.
        return (("-columns", "" if self.noise == "beside" else "-rows"),)

    @property
    def _white(self) -> bool:
        """Whether the noise is s I, and not of each antenna, or beside the channel."""
        return isinstance(self.noise, float)

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        if self.noise == "beside":
            expected, remedy = f"[A | R] of shape m x (n + m) for {self}", "join A and R by nm.families.beside"
            checks.require(n > m, "family", expected, f"{m} x {n}", remedy)
            n -= m
        rows = len(self.noise) if isinstance(self.noise, tuple) else m
        checks.require(rows == m, "noise", f"{m} numbers for a {m} x {n} matrix", rows, "give one for each row")
        return super().factors(m, n)

    def cost(self, m: int, n: int) -> float:
        n -= m * (self.noise == "beside")
        white = self._white or m < n
        return super().cost(m, n) + (0 if white else m**3 / 3 + 2 * m**2 * n)

    def parts(self, A: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return the channel H (B, m, n), and the covariance of the noise, (B, m, m), or its power."""
        if self.noise == "beside":
            return A[:, :, : -A.shape[1]], A[:, :, -A.shape[1] :]
        if self._white:
            return A, self.noise
        return A, torch.tensor(self.noise, dtype=torch.float64).diag().to(A).expand(len(A), -1, -1)

    def system(self, A: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self._white:
            return super().system(A, noise)
        H, R = self.parts(wide(A))
        F = H if H.shape[1] < H.shape[2] else linalg.solve_positive(R, H)[0].mH
        L = gram(H.mH) + R if F is H else F @ H + identity_like(F @ H)
        return L.to(A.dtype), F.to(A.dtype)

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        X, failed = super().exact(A)
        return X, failed if self._white else failed | _no_covariance(self.parts(A)[1])

    def refined(self, A: Tensor) -> tuple[Factors, Tensor] | None:
        return _NormalEquations.refined(self, A) if self._white else None

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        if self._white:
            return super().residual(A, factors)
        L, F = self.system(A)
        return largest_row(L @ self.unknown(factors[0]) - F, F)

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        H, R = self.parts(A)
        if isinstance(R, Tensor):
            L = gram(H.mH) + R
            rounding = gram_rounding(H) + norm(R - R.mH)
            bound = _bound_of_system(L, factors[0].mH, H, linalg.inverse(L)[0], rounding)
            return torch.where(_no_covariance(R), torch.inf, bound)
        (L, F), X = self.system(A), self.unknown(factors[0])
        R, above, unsure = _defect(L, X, F, gram_rounding(A))
        HR = F.mH @ R
        growth = two_norm_above(HR) + norm(F) * unsure
        step = norm(R - X @ HR) * (1 + _slack(X)) + (1 + norm(X) * norm(F)) * unsure
        sharper = torch.where(growth < self.noise, step / (self.noise - growth), torch.inf)
        bound = beside(torch.minimum(above / self.noise, sharper), X)
        rest = (~sharper.isfinite()).nonzero()[:, 0]
        if len(rest):  # of little noise: the inverse of L is smaller than 1 / s
            P, rounding = linalg.inverse(L[rest])[0], gram_rounding(A[rest])
            bound[rest] = torch.fmin(bound[rest], _bound_of_system(L[rest], X[rest], F[rest], P, rounding))
        return bound


@dataclass(frozen=True)
class LMMSE(RZF):
    r"""The linear minimum-mean-square-error receiver :math:`X = H^H (H H^H + R)^{-1}` of the m x n channel H.

    For y = H x + w with E[x x^H] = I and E[w w^H] = R; streams of other powers are columns of H scaled by their roots.
    White noise, R = s I: by the push-through identity :math:`X = (H^H H + s I)^{-1} H^H`, and the smaller of the two
    systems is solved, without an inverse. Coloured noise: m >= n, :math:`X = (H^H R^{-1} H + I)^{-1} H^H R^{-1}`, in
    double precision. Each residual then takes a Cholesky factorisation of R as well.

    Timing, of all users or of each, turns columns of H and rows of X alike: a fit takes it out first (`turns`).

    With ``unbiased`` every row x_k is divided by :math:`d_k = x_k h_k`, with the columns h_k of H, so that the signal
    comes through as it is: X y = x + e, as Sionna's ``lmmse_equalizer`` returns it. The variance of e, which a demapper
    takes, is 1 / d_k - 1 for exact filters, and `wireless.post_equalisation_noise` for any.

    Residual: :math:`\max_i \|(L X - F)_i\| / \|F_i\|` over the rows i of X (users) with :math:`L = H^H H + s I`,
    :math:`F = H^H`, or L and F of the coloured form, for m >= n; else :math:`\max_i \|(X L - H^H)_i\| / \|h_i\|`
    over the columns i of X with :math:`L = H H^H + R` and the rows h_i of H. A residual of the whole matrix would not
    see weak users: random ones of 1e-3 keep 89 % of the rate of a channel whose users are 44 dB apart, row by row
    99.9 %. At 1e-2 it is 93 %: the strong users' interference is not in it, nor is that of users nearly in one
    direction where the noise is far below what tells them apart (`wireless.post_equalisation_noise` sees both). With
    ``unbiased`` it is that of the rows scaled to the d_k that their own signal, interference and noise would give LMMSE
    filters, and :math:`|x_k h_k - 1|` where that is larger.

    Bound, white noise (m >= n; else for X^H): the error :math:`E = X_* - X = L^{-1} D` of the system :math:`L X = H^H`
    with the residual matrix D is at most :math:`\|D\|_F / s`, since L has no eigenvalue below s. It is also
    :math:`((I - X H) D - E H D) / s`, since :math:`L^{-1} = (I - X_* H) / s`; so if :math:`\|H D\|_2 < s`, it is
    at most :math:`\|(I - X H) D\|_F / (s - \|H D\|_2)`, which comes close to the error itself as that falls. The
    smaller b of the two is taken, relative to :math:`\|X\|_F - b \le \|X_*\|_F`. Where the second does not apply, as
    with little noise, and for coloured noise: that of `PseudoInverse` for :math:`L X = H^H`, or :math:`L X^H = H` with
    :math:`L = H H^H + R`, with a computed inverse of L for P. With ``unbiased`` a
    bound b of the rows of LMMSE filters bounds each d_k up to :math:`b \|h_k\|`, and so the quotient.

    Args:
        noise: s, above zero: noise power per receive antenna over the power of a stream; m of them for antennas with
            noise of their own; or the covariance R: one for all p, (m, m), as a tensor, an array or a sparse matrix of
            SciPy, or a `ParametricMatrix` on the box of H. Beside a real H a complex R of its precision makes the
            problem complex, as X is. `Problem` puts R beside H and calls the operation
            ``LMMSE("beside")``: that of a family [H | R], as `families.beside` makes it. So R is in no file.
        unbiased: Whether the diagonal of X H is one. Channels with a column of zeros then count as failed.
    """

    unbiased: bool = False
    turns = RZF.turns

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.choice("unbiased", self.unbiased, (False, True))

    @property
    def linear(self) -> bool:
        return not self.unbiased

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        (X,), failed = super().exact(wide(A) if self.unbiased else A)
        if self.unbiased:
            H, _ = self.parts(wide(A))
            X = (X / (X @ H).diagonal(dim1=1, dim2=2)[:, :, None]).to(A.dtype)
        return (X,), failed

    def refined(self, A: Tensor) -> tuple[Factors, Tensor] | None:
        return None if self.unbiased else super().refined(A)

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        if not self.unbiased:
            return super().residual(A, factors)
        X, _, bias = self._biased(A, factors[0])
        return torch.maximum(super().residual(A, (X,)), bias.abs().amax(dim=1))

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        if not self.unbiased:
            return super().loss(A, factors)
        X, _, bias = self._biased(A, factors[0])
        return super().loss(A, (X,)) + bias.abs().square().mean(dim=1)

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        if not self.unbiased:
            return super().error_bound(A, factors)
        (U,), (H, _) = factors, self.parts(A)
        X, scale, _ = self._biased(A, U)
        b, slack = super().error_bound(A, (X,)), _slack(U) + _slack(H)
        b = torch.where(b < 1, b / (1 - b) * norm(X), torch.inf)[:, None]  # absolute
        rows, columns = linalg.lengths(U, 2), linalg.lengths(H, 1)
        unsure = (b + slack * rows * scale.abs()) * columns
        through = (X @ H).diagonal(dim1=1, dim2=2)
        least = through.abs() - unsure
        error = (rows * ((scale - through).abs() + unsure) + b) / least + slack * rows
        return beside(torch.where((least > 0).all(dim=1), norm(error) * (1 + slack), torch.inf), U)

    def _biased(self, A: Tensor, U: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scale rows as LMMSE filters with their ratio of signal to disturbance have them: rows, factors, u_k h_k - 1.

        The row of an LMMSE filter lets the part signal / (signal + disturbance) of its user's signal through.
        """
        H, R = self.parts(A)
        own, disturbance = linalg.outputs(H, U, R)
        scale = own.conj() / (own.abs().square() + disturbance).clamp_min(torch.finfo(U.dtype).tiny ** 0.5)
        return U * scale[:, :, None], scale, own - 1


@dataclass(frozen=True)
class PseudoInverse(_NormalEquations):
    r"""The Moore-Penrose inverse :math:`X = A^+` of an m x n matrix of full rank, or of constant rank.

    Where the rank falls, A^+ is not continuous. Without arguments such matrices count as failed: those with a singular
    value below max(m, n) eps times the largest. With ``rank`` or ``rcond`` X is the pseudo-inverse of the part of A
    that its largest singular values make, which is smooth as long as their number stays.

    Residual (full rank): the largest over the users of two numbers, for m >= n (else for A^H and X^H):
    :math:`\|(A^H A X - A^H)_i\| / \|a_i\|` over the rows i of X, with the columns a_i of A, and
    :math:`\|(X A - I)_i\|`. The second is what zero forcing is for: with a residual of rho < 1 every user's signal is
    at least :math:`1 / \rho^2 - 1` above the interference, 40 dB for 1e-2. The first alone does not see that: users
    nearly in one direction can pass it at 0 dB.

    Residual (``rank``, ``rcond``), with :math:`P = A X` and :math:`Q = X A`: the root of

    .. math:: \frac{\|X P - X\|^2}{\|X\|^2} + \frac{\|P - P^H\|^2 + 2 \|P^2 - P\|^2}{2 \|P\|^2}
              + \frac{\|Q - Q^H\|^2}{2 \|Q\|^2} + \delta

    in Frobenius norms, four products of matrices. By Moore's conditions P and Q are orthogonal projectors, and X maps
    between their ranges; A X A = A is left out, since A is of that rank only nearly.
    :math:`\delta = |\mathrm{tr}\, P - k|^2 / k^2` for ``rank=k``; it is zero at ANY k singular triplets, as that of
    `SVD`. For ``rcond=c`` it is what :math:`\|A - A X A\|^2 / \|A\|^2` is above :math:`c^2 \min(m, n)`.

    Bound (full rank, m >= n; else for A^H): :math:`A^+ - X = L^{-1} R` for :math:`L = A^H A`, :math:`R = A^H - L X`.
    With :math:`P = X X^H`, about the inverse of L, if :math:`\|I - P L\|_F < 1` then L is invertible and
    :math:`\|A^+ - X\|_F \le \|P R\|_F / (1 - \|I - P L\|_F)`, which comes close to the error itself where the
    square of the condition number times the rounding is small. With ``rank`` or ``rcond`` the residual, an estimate.

    Args:
        rank: k, how many singular values count. Matrices whose value k is zero to working precision, or not separated
            from the next, count as failed.
        rcond: Singular values up to this part of the largest do not count, as for ``numpy.linalg.pinv``. Where their
            number changes along p, X jumps, and a fit says so. For rounded matrices not below max(m, n) eps.
    """

    rank: int | None = None
    rcond: float | None = None
    work, needs, turns = (8, 20), "A has full rank, or that of `rank`", (("-columns", "-rows"),)
    remedy = "no A has full rank: take nm.PseudoInverse(rank=...) where the rank is constant, or rcond=..."

    @checks.explained
    def __post_init__(self) -> None:
        checks.require(None in (self.rank, self.rcond), "rank`, `rcond", "one of them or none", "both", "leave one out")
        if self.rank is not None:
            checks.integer("rank", self.rank, 1)
        if self.rcond is not None:
            object.__setattr__(self, "rcond", checks.number("rcond", self.rcond, above=0, below=1))

    @property
    def linear(self) -> bool:
        return self.rank is None and self.rcond is None

    @property
    def certainty(self) -> str:
        return "bound" if self.linear else "estimate"

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        require_rank(self.rank or 1, m, n)
        return super().factors(m, n)

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        # In double precision: in single, rounding of the size of the weak users' rows would spoil those of the strong.
        U, S, Vh, failed = linalg.svd(wide(A))
        unit = max(A.shape[1:]) * torch.finfo(A.dtype).eps if self.rcond is None else self.rcond
        cut, k = unit * S[:, 0], self.rank or S.shape[1]
        kept = (cut[:, None] < S) & (torch.arange(S.shape[1], device=A.device) < k)
        if self.rcond is None:
            failed = failed | ~(S[:, k - 1] - (S[:, k] if k < S.shape[1] else 0) > cut)
        return (((Vh.mH * torch.where(kept, 1 / S, 0)[:, None, :]) @ U.mH).to(A.dtype),), failed

    def refined(self, A: Tensor) -> tuple[Factors, Tensor] | None:
        return super().refined(A) if self.linear else None

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        if not self.linear:
            return self.loss(A, factors).sqrt()
        (X,), rows = factors, super().residual(A, factors)
        product = X @ A if A.shape[1] >= A.shape[2] else A @ X
        eye = identity_like(product)
        return torch.maximum(rows, largest_row(product - eye, eye))

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        if self.linear:
            return super().loss(A, factors)
        (X,) = factors
        P, Q = A @ X, X @ A
        if self.rank:
            other = (P.diagonal(dim1=1, dim2=2).sum(dim=1) - self.rank).abs().square() / self.rank**2
        else:
            other = (relative(A - A @ Q, A) - min(A.shape[1:]) * self.rcond**2).clamp_min(0)
        projectors = relative(P - P.mH, P) / 2 + relative(Q - Q.mH, Q) / 2 + relative(P @ P - P, P)
        return relative(X @ P - X, X) + projectors + other

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        if not self.linear:
            return self.residual(A, factors)
        (L, F), X = self.system(A), self.unknown(factors[0])
        return _bound_of_system(L, X, F, gram(X.mH), gram_rounding(A))


@dataclass(frozen=True)
class Solve(LinearOperation):
    r"""The solution :math:`X(p) = A(p)^{-1} B(p)` for a block of right-hand sides.

    The family is [A | B], of shape (n, n + k), as `families.beside` makes it.

    Residual: :math:`\|A X - B\|_F / \|B\|_F`. The error can be larger by a factor up to the condition number of A.

    Args:
        columns: k, the number of right-hand sides.
    """

    columns: int = 1
    certainty, work, needs = "bound", (2, -4 / 3), "A is regular"

    def __post_init__(self) -> None:
        checks.integer("columns", self.columns, 1)

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        if n != m + self.columns:
            expected = f"[A | B] of shape n x (n + {self.columns}) for {self}"
            raise ValueError(f"`family`: expected {expected}, got {m} x {n}; join A and B by nm.families.beside.")
        return (Factor("X", (m, self.columns)),)

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        return split(linalg.solve(*self.system(A)))

    def system(self, A: Tensor) -> tuple[Tensor, Tensor]:
        return A[:, :, : A.shape[1]], A[:, :, A.shape[1] :]

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        r"""Bound the relative error by its Newton correction, with a computed inverse P of A.

        From :math:`X_* - X = (P A)^{-1} P R` with :math:`R = B - A X` and :math:`\rho = \|I - P A\|_F < 1` follows
        :math:`X_* - X = P R + E`, :math:`\|E\|_F \le \|P R\|_F \rho / (1 - \rho)`. That is said of A with rows and
        columns in units of comparable size (`linalg.in_units`), in which rounding is least; row i of the error is then
        put back into its own unit. Inf where numbers in these units leave the precision. The inverse takes as long as
        some three solutions.
        """
        (L, F), (X,) = self.system(A), factors
        L, rows, columns, lost = linalg.in_units(L)
        Y, limits = X * columns.mT, torch.finfo(X.dtype)
        P = linalg.inverse(L)[0]
        R, _, unsure = _defect(L, Y, F / rows)
        step, rho, unsure = P @ R, _defect(P, L, identity_like(L))[1], norm(P) * unsure
        all_rows = (unsure + rho * norm(step) * (1 + _slack(R))) / (1 - rho)
        each = norm(step.flatten(0, 1)).view(step.shape[:2]) * (1 + _slack(R)) + all_rows[:, None]
        good = (rho < 1) & ~lost & ((norm(Y) > limits.tiny / limits.eps) | (norm(X) == 0))
        return beside(torch.where(good, norm(each / columns[:, 0]) * (1 + _slack(R)), torch.inf), X)


class LogDetFactors(NamedTuple):
    """sign (B,) and logabsdet (B,), as ``torch.linalg.slogdet`` returns them."""

    sign: Tensor
    logabsdet: Tensor


@dataclass(frozen=True)
class LogDet(Operation):
    r"""The determinant of a square matrix as sign and logarithm, :math:`\det A = \mathrm{sign} \cdot e^{l}`.

    The sign of a complex determinant is its phase, a number of modulus one. Matrices that are singular to working
    precision count as failed.

    Residual: the relative error of the determinant, :math:`|e^{\hat l - l} \hat s \bar s - 1|`, which for small errors
    is the absolute one of l. There is no cheaper one: it costs an LU factorisation, as the exact solution does.

    The estimate of the error adds what rounding does to that solution,
    :math:`n \, \mathrm{eps} \sum_j \max_i |a_{ij}| \sum_i |(A^{-1})_{ji}| + \mathrm{eps} \, |\hat l|`: an LU
    factorisation is that of a matrix whose columns are perturbed in proportion to their own size.
    """

    residual_solves, packed, needs = True, LogDetFactors, "A is regular"
    work = (0, 8 / 3)  # an LU factorisation, and an inverse that tells which matrices are singular

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        require_square(self, m, n)
        return Factor("sign", ()), Factor("logabsdet", (), "real")

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        return split(linalg.slogdet(A))

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        exact, failed = checked(self.exact, A)
        return torch.where(failed, torch.inf, self.error(factors, exact))

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        condition = (A.abs().amax(dim=1) * linalg.inverse(A)[0].abs().sum(dim=2)).sum(dim=1)
        rounding = torch.finfo(A.dtype).eps * (A.shape[1] * condition + factors[1].abs())
        return self.residual(A, factors) + rounding.nan_to_num(torch.inf)

    def error(self, factors: Sequence[Tensor], exact: Sequence[Tensor]) -> Tensor:
        ratio = (factors[1] - exact[1]).exp() * factors[0] * exact[0].conj()
        return (ratio - 1).abs()

    def finish(self, fitted: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        out[0].copy_(fitted[0] / fitted[0].abs().clamp_min(torch.finfo(fitted[0].dtype).tiny))


@dataclass(frozen=True)
class MatrixFunction(Operation):
    r"""A primary matrix function X = f(A) of a square matrix (Higham, *Functions of Matrices*, SIAM 2008).

    ==================  =============================  ======================================================
    ``function``        X                              residual
    ==================  =============================  ======================================================
    ``"exp"``           :math:`e^A`                    :math:`\|X - e^A\|_F / \|e^A\|_F`
    ``"sqrt"``          principal :math:`A^{1/2}`      :math:`\|X^2 - A\|_F / \|A\|_F`
    ``"inverse_sqrt"``  principal :math:`A^{-1/2}`     :math:`\|X A X - I\|_F / \sqrt{n}`
    ``"log"``           principal :math:`\log A`       :math:`\|e^{-X/2} A e^{-X/2} - I\|_F / \sqrt{n}`
    ==================  =============================  ======================================================

    The residual of the exponential is its error and takes an exact solve: to multiply by :math:`e^{-A}` instead would
    magnify rounding by the condition number of X. That of the logarithm weighs all eigenvalues alike, however far apart
    they are, which :math:`e^X - A` does not. Those of the roots do not see which of the square roots X is, nor that of
    the logarithm which branch. Matrices without a principal root or logarithm, and real ones
    whose result is not real, count as failed; so do exponentials of which rounding leaves nothing, where
    :math:`n \, \mathrm{eps} \|A\|_F \ge 1` in double precision, or that leave the range of the dtype. For a function
    of your own subclass `Operation`.

    The estimate of the error sees root and branch. It takes three exact solves: it is the error against that of A,
    plus the most that two random changes of every entry by some units of rounding make of that, plus for the
    exponential :math:`n \, \mathrm{eps} \|A\|_F`, for the others the residual. So it is about the rounding times the
    condition number of the function. It is Inf where one of these solutions fails. Nothing is proved: another change
    may make more of it.

    Args:
        function: Its name in the table.
    """

    function: str = "exp"
    needs = "X is finite, and but for exp A has no eigenvalue at or below zero"

    def __post_init__(self) -> None:
        checks.choice("function", self.function, tuple(linalg.FUNCTIONS))

    @property
    def residual_solves(self) -> bool:
        return self.function == "exp"

    @property
    def powers(self) -> tuple[float, ...]:  # exponentials and logarithms have no unit
        return {"sqrt": (0.5,), "inverse_sqrt": (-0.5,)}.get(self.function, ())

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        require_square(self, m, n)
        return (Factor("X", (n, n)),)

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        return split(linalg.matrix_function(self.function, A))

    def cost(self, m: int, n: int) -> float:
        cubes, call = _FUNCTION_COSTS[self.function]
        return cubes * n**3 + call

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        found = super().residual(A, factors)
        return torch.where(linalg.exp_rounding(A) < 1, found, torch.inf) if self.function == "exp" else found

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        draw = torch.Generator().manual_seed(0)
        changes = 1 + _CHANGE * torch.randn((2, *A.shape[1:]), dtype=torch.float64, generator=draw)
        exact, *near = (self.exact(wide(A) * x)[0] for x in (torch.ones(()), *changes.to(A.device)))
        found = self.error(factors, exact) + torch.stack([self.error(X, exact) for X in near]).amax(dim=0)
        # SciPy's logarithm of huge matrices can be any matrix, which only the residual sees.
        found = found + (linalg.exp_rounding(A) if self.function == "exp" else self.residual(A, factors)) + _CHANGE
        return torch.where(torch.isnan(found), torch.inf, found)

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        X = factors[0]
        left, right = {
            "exp": lambda: (X, linalg.exponential(wide(A)).to(A.dtype)),
            "sqrt": lambda: (X @ X, A),
            "inverse_sqrt": lambda: (X @ A @ X, identity_like(A)),
            # In double precision, since the products magnify rounding by the spread of the eigenvalues.
            "log": lambda: ((half := linalg.exponential(wide(-X / 2))) @ wide(A) @ half, identity_like(half)),
        }[self.function]()
        return relative(left - right, right).to(checks.real_dtype(A.dtype))


def split(solved: tuple[Tensor, ...]) -> tuple[Factors, Tensor]:
    """Return what a function of `neumatc.linalg` has returned as factors and mask."""
    return tuple(solved[:-1]), solved[-1]


def require_square(operation: Operation, m: int, n: int, instead: str = "") -> None:
    """Raise ValueError for a rectangular matrix."""
    remedy = f"take {instead} for rectangular ones" if instead else ""
    checks.require(m == n, "family", f"square matrices for {operation}", f"{m} x {n}", remedy)


def require_rank(rank: int, m: int, n: int) -> None:
    """Raise ValueError for more vectors than a matrix has."""
    checks.require(rank <= min(m, n), "rank", f"at most {min(m, n)} for a {m} x {n} matrix", rank, "lower it")


def _no_covariance(R: Tensor) -> Tensor:
    """Mask of matrices that are not Hermitian positive definite, shape (B,)."""
    return ~(norm(R - R.mH) <= _SKEW * norm(R)) | (torch.linalg.cholesky_ex(R)[1] != 0)


def _slack(A: Tensor) -> float:
    """Bound the relative rounding of sums and products over all dimensions of A: four times what is needed."""
    return 4 * (sum(A.shape[1:]) + 4) * torch.finfo(A.dtype).eps


def _defect(L: Tensor, X: Tensor, F: Tensor, rounding: Tensor | float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return R = F - L X as computed, a bound of :math:`\|F - L X\|_F`, and one of the rounding in R and its products.

    A computed product has an error of at most :math:`\gamma_n |L| |X|`, entry by entry (Higham, *Accuracy and
    Stability of Numerical Algorithms*, SIAM 2002, section 3.5; section 3.6 for complex numbers), hence of
    :math:`\gamma_n \|L\|_F \|X\|_F` in the norm. L itself is known up to ``rounding`` in that norm.
    """
    R, slack = F - L @ X, _slack(L) + _slack(X)
    above = norm(R) * (1 + slack) + slack * (norm(L) * norm(X) + norm(F)) + rounding * norm(X)
    return R, above, above - norm(R) + 2 * _slack(F) * above


def _corrected(P: Tensor, R: Tensor, unsure: Tensor, rho: Tensor) -> Tensor:
    r"""Bound an error by its Newton correction P R: :math:`\|P R\|_F / (1 - \rho)`, R known up to ``unsure``."""
    return torch.where(rho < 1, (norm(P @ R) * (1 + _slack(R)) + norm(P) * unsure) / (1 - rho), torch.inf)


def _bound_of_system(L: Tensor, X: Tensor, F: Tensor, P: Tensor, rounding: Tensor) -> Tensor:
    """Bound the relative error of a solution of L X = F, L known up to ``rounding``, and P about its inverse."""
    R, _, unsure = _defect(L, X, F, rounding)
    rho = _defect(P, L, identity_like(L))[1] + rounding * norm(P)
    return beside(_corrected(P, R, unsure, rho), X)


def _bound_of_inverse(A: Tensor, X: Tensor, rounding: Tensor | float = 0.0) -> Tensor:
    """Bound the relative error of an inverse of A, which is itself known up to ``rounding`` in the Frobenius norm."""
    R, rho, unsure = _defect(A, X, identity_like(A), rounding)
    return torch.where(rho < 1, torch.minimum(rho, beside(_corrected(X, R, unsure, rho), X)), torch.inf)


def gram_rounding(A: Tensor) -> Tensor:
    """Bound the error of a computed Gram matrix, in the Frobenius norm."""
    return _slack(A) * norm(A) ** 2
