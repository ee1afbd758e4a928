"""Matrix operations A -> X: one class each, with its exact solution, residual, gauge and error bound."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from neumatc import checks, linalg
from neumatc.families import FamilyError
from neumatc.linalg import beside, gram, identity_like, largest_row, norm, relative, squared_norm, two_norm_above, wide
from neumatc.report import Event

# Operations of a matrix function, in n^3 (Higham, 2008): products and a solve for the exponential; for the others a
# Schur form, 25, with what follows, and an inverse that tells which matrices are singular. The second number is for the
# call, since they take one matrix at a time: its time, for a processor of 1 Gflop/s.
_FUNCTION_COSTS = {"exp": (20, 4e5), "sqrt": (30, 6e4), "inverse_sqrt": (32, 7e4), "log": (60, 4e6)}
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

    Factors travel as a tuple of tensors, each with the batch first, in the order of `factors`. Subclasses are frozen
    dataclasses whose fields are plain numbers, so that a saved surrogate can name its operation. They give `factors`,
    `exact`, and `residual` or `loss`; what else they can do they declare, in the attributes that follow.
    """

    registry: dict[str, type[Operation]] = {}
    unique: bool = True
    """Whether A determines the factors, so that they vary continuously with it; not so for singular vectors."""
    newton: bool = False
    """Whether `improved` takes a Newton step; true of a class with its own."""
    finishes: bool = False
    """Whether values of the maps take `finish` to become factors; true of a class with its own."""
    bounds: bool = False
    """Whether `error_bound` is another number than the residual; true of a class with its own."""
    certainty: str = "estimate"
    """What `error_bound` gives: ``"bound"`` where it is proved, else ``"estimate"``."""
    residual_solves: bool = False
    """Whether the residual takes an exact solve, which whoever asks for residuals then counts as one."""
    orthonormal: tuple[int, ...] = ()
    """Which factors have orthonormal columns (wide ones: rows) in the exact solution."""
    powers: tuple[float, ...] = ()
    """How each factor grows with A, as a power of it; empty where that is not the whole of it."""
    packed: type[tuple] | None = None
    """The named tuple in which the caller gets several factors."""
    work: tuple[float, float] = (6, 20)
    """The operations of an exact solution, in units of long short^2 and short^3, for the sides of A; see `cost`."""

    def __init_subclass__(cls) -> None:
        for method, declared in (("improved", "newton"), ("finish", "finishes"), ("error_bound", "bounds")):
            if method in vars(cls):
                setattr(cls, declared, True)
        checks.register(Operation.registry, cls)

    @abstractmethod
    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        """Describe the outputs for an m x n matrix; raise ValueError where the operation does not exist."""

    @abstractmethod
    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        """Solve exactly through `neumatc.linalg`: the factors, and a mask of failures of shape (B,)."""

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        """Relative algebraic residual, shape (B,), zero at an exact solution, the same in every gauge.

        The root of `loss`, unless there is something better: a subclass gives one of the two at least.
        """
        return self.loss(A, factors).sqrt()

    def cost(self, m: int, n: int) -> float:
        """Approximate number of floating-point operations of one exact solution for a real m x n matrix.

        Leading terms only (Golub and Van Loan, *Matrix Computations*, 2013), as if everything were real: whoever counts
        takes four times as many for complex matrices. How fast a processor runs them, which for small matrices and for
        eigenvalues is slowly, is not in it. From `work`, by default that of a thin singular value decomposition.
        """
        short, long = sorted((m, n))
        return self.work[0] * long * short**2 + self.work[1] * short**3

    def scales(self, A: Tensor) -> tuple[float, ...]:
        """Guess the root-mean-square entry of each factor from a batch of A, with no exact solve.

        By default, with `powers`, as for A with equal singular values; without, 1.
        """
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

        Values of the public shape lie in ``out`` already. Callers set memory aside for it, three times that of the
        values; see `finishes`.
        """

    def orthonormalize_(self, factors: Sequence[Tensor]) -> None:
        """Replace those factors that are orthonormal in the exact solution, in place, by the nearest that are."""
        expected = f"False for {self}, whose factors are not orthonormal"
        checks.require(self.orthonormal, "orthonormal", expected, True, "leave it out")
        for U in (factors[i] for i in self.orthonormal):
            U.copy_(linalg.orthonormalized(U))

    def pack(self, factors: Sequence[Tensor]) -> Tensor | Factors:
        """Return the factors as the caller sees them: one tensor, or a named tuple."""
        return self.packed(*factors) if self.packed else factors[0]

    def settings(self) -> dict[str, object]:
        """Return the constructor's arguments, as plain numbers."""
        return asdict(self)


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

    Residual: :math:`\rho = \|A X - I\|_F / \sqrt{n}`, the root-mean-square singular value of A X - I. It costs one
    n x n matrix product, 2 n^3 operations, as many as an inversion.

    Bound: if :math:`\rho = \|R\|_F < 1` for :math:`R = I - A X`, then A is invertible, and
    :math:`\|A^{-1} - X\|_F \le \rho \, \|A^{-1}\|_F`, because :math:`A^{-1} - X = A^{-1} R` (Higham, *Accuracy and
    Stability of Numerical Algorithms*, SIAM 2002, section 14.1). A second product is worth its price:
    :math:`A^{-1} = X (I - R)^{-1}`, so :math:`\|A^{-1} - X\|_F \le \|X R\|_F / (1 - \rho)`, and X R is the Newton
    correction, the error itself up to a relative error of rho. The smaller of the two is taken.
    """

    certainty, work = "bound", (0, 2)

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


class _NormalEquations(LinearOperation):
    r"""Receivers (A^H A + s I)^{-1} A^H: the smaller of the two systems is solved, for X or, of wide A, for X^H.

    Residual: the largest over the rows of the unknown, each relative to its own right-hand side,

    .. math:: \rho = \max_i \|(L X - F)_i\| / \|F_i\| .

    A row is a user's, and users may be received 40 dB apart: relative to the norm of all rows together, a weak user's
    would be small however wrong it is, and its rate is lost. (The `error` remains that of the whole matrix.)
    """

    noise = 0.0
    certainty, work = "bound", (4, 1 / 3)

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        return (Factor("X", (n, m)),)

    def system(self, A: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        A = A if A.shape[1] < A.shape[2] else A.mH
        return gram(A.mH, self.noise if noise is None else noise), A

    def unknown(self, X: Tensor) -> Tensor:
        return X if X.shape[-2] <= X.shape[-1] else X.mH

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        # In units of the larger of A and sqrt(s): squares of path gains leave single precision.
        unit = norm(A).clamp_min(max(self.noise**0.5, torch.finfo(A.dtype).tiny))[:, None, None]
        L, F = self.system(A * (1 / unit), (self.noise**0.5 / unit[:, 0]).square())
        return largest_row(L @ (self.unknown(factors[0]) * unit) - F, F)


class LMMSE(_Regularized, _NormalEquations):
    r"""The linear minimum-mean-square-error receiver :math:`X = (H^H H + s I)^{-1} H^H` of the m x n channel A = H.

    For y = H x + w with E[x x^H] = I and E[w w^H] = s I. By the push-through identity
    :math:`X = H^H (H H^H + s I)^{-1}`, and the smaller of the two systems is solved, without an inverse.

    Residual: :math:`\max_i \|((H^H H + s I) X - H^H)_i\| / \|h_i\|` over the rows i of X, with the columns h_i of H,
    for m >= n; else :math:`\max_i \|(X (H H^H + s I) - H^H)_i\| / \|h_i\|` over the columns i of X, with the rows h_i
    of H. A residual of the whole matrix would not see weak users: random ones of 1e-3 keep 89 % of the rate of a
    channel whose users are 44 dB apart, row by row 99.9 % (93 % at 1e-2: the strong users' interference is not in it).

    Bound (m >= n; else for X^H): the error :math:`E = X_* - X = L^{-1} R` of the system :math:`L X = H^H` with the
    residual matrix R is at most :math:`\|R\|_F / s`, since L has no eigenvalue below s. It is also
    :math:`((I - X H) R - E H R) / s`, since :math:`L^{-1} = (I - X_* H) / s`; so if :math:`\|H R\|_2 < s`, it is
    at most :math:`\|(I - X H) R\|_F / (s - \|H R\|_2)`, which comes close to the error itself as that falls. The
    smaller b of the two is taken, relative to :math:`\|X\|_F - b \le \|X_*\|_F`.

    Args:
        noise: s, above zero: noise power per receive antenna over the power of a stream.
    """

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        (L, F), X = self.system(A), self.unknown(factors[0])
        R, above, unsure = _defect(L, X, F, gram_rounding(A))
        HR = F.mH @ R
        growth = two_norm_above(HR) + norm(F) * unsure
        step = norm(R - X @ HR) * (1 + _slack(X)) + (1 + norm(X) * norm(F)) * unsure
        sharper = torch.where(growth < self.noise, step / (self.noise - growth), torch.inf)
        return beside(torch.minimum(above / self.noise, sharper), X)


class RZF(LMMSE):
    r"""Regularised zero forcing: the precoder :math:`X = H^H (H H^H + s I)^{-1}` of the m x n downlink channel A = H.

    H has a row for each receive antenna and a column for each transmit antenna. It is the same matrix as `LMMSE`
    gives for H, with its residual (m < n: the largest over the streams); columns are streams, and scaling them to the
    transmit power is left to the caller.

    Args:
        noise: s, above zero: noise power per receive antenna over the power of a stream.
    """


@dataclass(frozen=True)
class PseudoInverse(_NormalEquations):
    r"""The Moore-Penrose inverse :math:`X = A^+` of an m x n matrix of full rank.

    Where the rank falls, A^+ is not continuous; such matrices count as failed: those with a singular value below
    max(m, n) eps times the largest.

    Residual: :math:`\max_i \|(A^H A X - A^H)_i\| / \|a_i\|` over the rows i of X, with the columns a_i of A, for
    m >= n; else :math:`\max_i \|(X A A^H - A^H)_i\| / \|a_i\|` over the columns i of X, with the rows a_i of A.

    Bound (m >= n; else for A^H): :math:`A^+ - X = L^{-1} R` for :math:`L = A^H A`, :math:`R = A^H - L X`. With
    :math:`P = X X^H`, about the inverse of L, if :math:`\|I - P L\|_F < 1` then L is invertible and
    :math:`\|A^+ - X\|_F \le \|P R\|_F / (1 - \|I - P L\|_F)`, which comes close to the error itself where the
    square of the condition number times the rounding is small.
    """

    work = (8, 20)

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        # In double precision: in single, rounding of the size of the weak users' rows would spoil those of the strong.
        U, S, Vh, failed = linalg.svd(wide(A))
        failed = failed | ~(S[:, -1] > max(A.shape[1:]) * torch.finfo(A.dtype).eps * S[:, 0])
        return (((Vh.mH / S[:, None, :]) @ U.mH).to(A.dtype),), failed

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        (L, F), X = self.system(A), self.unknown(factors[0])
        P, rounding = gram(X.mH), gram_rounding(A)
        R, _, unsure = _defect(L, X, F, rounding)
        rho = _defect(P, L, identity_like(L))[1] + rounding * norm(P)
        return beside(_corrected(P, R, unsure, rho), X)


@dataclass(frozen=True)
class Solve(LinearOperation):
    r"""The solution :math:`X(p) = A(p)^{-1} B(p)` for a block of right-hand sides.

    The family is [A | B], of shape (n, n + k), as `families.beside` makes it.

    Residual: :math:`\|A X - B\|_F / \|B\|_F`. It is an estimate of the error: that can be larger by a factor up to the
    condition number of A.

    Args:
        columns: k, the number of right-hand sides.
    """

    columns: int = 1
    work = (2, -4 / 3)

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
    """

    residual_solves, packed = True, LogDetFactors
    work = (0, 8 / 3)  # an LU factorisation, and an inverse that tells which matrices are singular

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        require_square(self, m, n)
        return Factor("sign", ()), Factor("logabsdet", (), "real")

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        return split(linalg.slogdet(A))

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        exact, failed = checked(self.exact, A)
        return torch.where(failed, torch.inf, self.error(factors, exact))

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
    whose result is not real, count as failed. For a function of your own subclass `Operation`.

    Args:
        function: Its name in the table.
    """

    function: str = "exp"

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

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        X = factors[0]
        left, right = {
            "exp": lambda: (X, torch.linalg.matrix_exp(wide(A)).to(A.dtype)),
            "sqrt": lambda: (X @ X, A),
            "inverse_sqrt": lambda: (X @ A @ X, identity_like(A)),
            # In double precision, since the products magnify rounding by the spread of the eigenvalues.
            "log": lambda: ((half := torch.linalg.matrix_exp(wide(-X / 2))) @ wide(A) @ half, identity_like(half)),
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


def _bound_of_inverse(A: Tensor, X: Tensor, rounding: Tensor | float = 0.0) -> Tensor:
    """Bound the relative error of an inverse of A, which is itself known up to ``rounding`` in the Frobenius norm."""
    R, rho, unsure = _defect(A, X, identity_like(A), rounding)
    return torch.where(rho < 1, torch.minimum(rho, beside(_corrected(X, R, unsure, rho), X)), torch.inf)


def gram_rounding(A: Tensor) -> Tensor:
    """Bound the error of a computed Gram matrix, in the Frobenius norm."""
    return _slack(A) * norm(A) ** 2
