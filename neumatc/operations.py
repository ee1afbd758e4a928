"""Matrix operations A -> X: one class each, with its exact solution, algebraic residual and factors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from neumatc import checks, linalg


class Factor(NamedTuple):
    """One output of an operation: its name, its shape per parameter, and whether it is real for a complex A."""

    name: str
    shape: tuple[int, ...]
    real: bool = False


class SVDFactors(NamedTuple):
    """U (B, m, k), S (B, k) and Vh (B, k, n), as ``torch.linalg.svd(A, full_matrices=False)`` returns them."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class Operation(ABC):
    """A matrix operation: what is computed, and how an answer is checked without knowing the exact one.

    Factors travel as a tuple of tensors, each with the batch first, in the order of `factors`. Subclasses are frozen
    dataclasses whose fields are plain numbers, so that a saved surrogate can name its operation.
    """

    registry: dict[str, type[Operation]] = {}
    unique: bool = True
    """Whether A determines the factors, so that they vary continuously with it; not so for singular vectors."""

    def __init_subclass__(cls) -> None:
        checks.register(Operation.registry, cls)

    @abstractmethod
    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        """Describe the outputs for an m x n matrix; raise ValueError where the operation does not exist."""

    @abstractmethod
    def exact(self, A: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Solve exactly through `neumatc.linalg`: the factors, and a mask of failures of shape (B,)."""

    def checked_exact(self, A: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Solve exactly as `exact`, count what is not finite as failed, and make the factors contiguous."""
        factors, failed = self.exact(A)
        factors = tuple(x.resolve_conj().contiguous() for x in factors)
        for x in factors:
            failed = failed | ~torch.isfinite(x).reshape(len(x), -1).all(dim=1)
        return factors, failed

    @abstractmethod
    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        """Relative algebraic residual, shape (B,), zero at an exact solution, the same in every gauge."""

    @abstractmethod
    def scales(self, A: Tensor) -> tuple[float, ...]:
        """Guess the root-mean-square entry of each factor from a batch of A, with no exact solve."""

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        """Differentiable training loss, shape (B,); the squared residual unless there is something better."""
        return self.residual(A, factors) ** 2

    def invariant(self, factors: Sequence[Tensor]) -> Tensor:
        """Return the gauge-invariant matrix by which two solutions are compared, shape (B, rows, cols)."""
        return factors[0]

    def improved(self, A: Tensor, factors: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
        """Return approximate factors after a Newton step, which about squares their error; None where there is none."""
        return None

    def canonical_(self, factors: Sequence[Tensor]) -> None:
        """Bring the factors, in place, to the form that the exact solution has (order, signs).

        It may need working memory up to three times that of the factors; callers reckon with it.
        """

    def pack(self, factors: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        """Return the factors as the caller sees them: one tensor, or a named tuple."""
        return factors[0]

    def settings(self) -> dict[str, object]:
        """Return the constructor's arguments, as plain numbers."""
        return asdict(self)


class LinearOperation(Operation):
    r"""An operation whose one factor X solves linear equations, :math:`L X = F`, with matrices L and F made from A.

    Residual: :math:`\rho = \|L X - F\|_F / \|F\|_F`. Being linear in X, it can be minimised in closed form, so such
    an operation can be fitted from its residual alone.
    """

    @abstractmethod
    def system(self, A: Tensor) -> tuple[Tensor, Tensor]:
        """Return L of shape (B, equations, rows of X) and F of shape (B, equations, columns of X)."""

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        return self.loss(A, factors).sqrt()

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        L, F = self.system(A)
        return _squared_norm(L @ factors[0] - F) / _squared_norm(F)


@dataclass(frozen=True)
class Inverse(LinearOperation):
    r"""The inverse X = A^{-1} of a square matrix, the solution of A X = I.

    Residual: :math:`\rho = \|A X - I\|_F / \sqrt{n}`, the root-mean-square singular value of A X - I. It costs one
    n x n matrix product, 2 n^3 operations, as many as an inversion.
    """

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        if m != n:
            raise ValueError(
                f"`family`: expected square matrices for the inverse, got {m} x {n}; take nm.SVD for rectangular ones."
            )
        return (Factor("X", (n, n)),)

    def exact(self, A: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        X, failed = linalg.inverse(A)
        return (X,), failed

    def system(self, A: Tensor) -> tuple[Tensor, Tensor]:
        return A, torch.eye(A.shape[-1], dtype=A.dtype, device=A.device).expand_as(A)

    def improved(self, A: Tensor, factors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        r"""Newton-Schulz step :math:`X (2 I - A X)`: its residual I - A X is the square of that before."""
        X = factors[0]
        return (2 * X - X @ (A @ X),)

    def scales(self, A: Tensor) -> tuple[float, ...]:
        # ||X||_F >= n / ||A||_F, with equality for a multiple of a unitary matrix.
        return (float((1 / _squared_norm(A).clamp_min(torch.finfo(A.dtype).tiny).sqrt()).median()),)


@dataclass(frozen=True)
class SVD(Operation):
    r"""The leading singular triplets, A V = U S and A^H U = V S, of an m x n matrix.

    Residual: :math:`(\alpha + \beta)^{1/2}` with the defects of the triplets and of orthogonality,
    :math:`\alpha = (\|A V - U S\|_F^2 + \|A^H U - V S\|_F^2) / (2 \|S\|_F^2)` and
    :math:`\beta = (\|U^H U - I\|_F^2 + \|V^H V - I\|_F^2) / (2k)`.
    A common phase of a pair (u_i, v_i) leaves it as it is. It is zero for ANY k singular triplets: that they are the
    leading ones it does not see, which is why training uses another loss: the reconstruction error
    :math:`\|A - U S V^H\|_F^2 / \|A\|_F^2` plus the orthogonality defect, smallest for the leading triplets
    (Eckart-Young) and, for k < min(m, n), not zero there.

    Factors are unique only up to that phase, and only where the singular values are distinct: compare the
    reconstruction U S V^H, the singular values or principal angles, never the entries of U and V.

    Args:
        rank: k, the number of triplets; None means min(m, n).
    """

    rank: int | None = None
    unique = False

    def __post_init__(self) -> None:
        if self.rank is not None:
            checks.integer("rank", self.rank, 1)

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        k = min(m, n) if self.rank is None else self.rank
        if k > min(m, n):
            raise ValueError(
                f"`rank`: expected at most min(m, n) = {min(m, n)} triplets of a {m} x {n} matrix, got {k}; lower it."
            )
        return Factor("U", (m, k)), Factor("S", (k,), real=True), Factor("Vh", (k, n))

    def exact(self, A: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        U, S, Vh, failed = linalg.svd(A)
        k = S.shape[-1] if self.rank is None else self.rank
        if k < S.shape[-1]:  # cloned, so that the rest of the decomposition is let go
            U, S, Vh = (x.clone() for x in (U[..., :k], S[..., :k], Vh[..., :k, :]))
        return (U, S, Vh), failed

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        U, S, Vh = factors
        left = A @ Vh.mH - U * S[..., None, :]
        right = U.mH @ A - S[..., :, None] * Vh
        scale = 2 * (S**2).sum(dim=-1).clamp_min(torch.finfo(S.dtype).tiny)
        return ((_squared_norm(left) + _squared_norm(right)) / scale + self._orthogonality(U, Vh)).sqrt()

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        U, _, Vh = factors
        defect = _squared_norm(A - self.invariant(factors)) / _squared_norm(A).clamp_min(torch.finfo(A.dtype).tiny)
        return defect + self._orthogonality(U, Vh)

    @staticmethod
    def _orthogonality(U: Tensor, Vh: Tensor) -> Tensor:
        identity = torch.eye(U.shape[-1], dtype=U.dtype, device=U.device)
        return (_squared_norm(U.mH @ U - identity) + _squared_norm(Vh @ Vh.mH - identity)) / (2 * U.shape[-1])

    def scales(self, A: Tensor) -> tuple[float, ...]:
        m, n = A.shape[-2:]
        k = min(m, n) if self.rank is None else self.rank
        return m**-0.5, float(_squared_norm(A).mean().sqrt()) / k**0.5, n**-0.5

    def invariant(self, factors: Sequence[Tensor]) -> Tensor:
        U, S, Vh = factors
        return (U * S[..., None, :].to(U.dtype)) @ Vh

    def canonical_(self, factors: Sequence[Tensor]) -> None:
        U, S, Vh = factors
        wrong = (S < 0).any(dim=-1) | (S.diff(dim=-1) > 0).any(dim=-1)
        if wrong.any():
            s = S[wrong]
            signs = torch.where(s < 0, -1, 1).to(U.dtype)
            s, order = s.abs_().sort(dim=-1, descending=True)
            S[wrong] = s
            U[wrong] = U[wrong].mul_(signs[:, None, :]).gather(2, order[:, None, :].expand(-1, U.shape[1], -1))
            Vh[wrong] = Vh[wrong].gather(1, order[:, :, None].expand(-1, -1, Vh.shape[2]))

    def pack(self, factors: Sequence[Tensor]) -> SVDFactors:
        return SVDFactors(*factors)


def _squared_norm(A: Tensor) -> Tensor:
    """Squared Frobenius norm per matrix, differentiable at zero."""
    A = torch.view_as_real(A) if A.is_complex() else A
    return (A**2).flatten(1).sum(dim=1)
