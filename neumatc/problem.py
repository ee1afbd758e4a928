"""A problem: an operation applied to a family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from neumatc import checks, linalg
from neumatc.families import ParametricMatrix
from neumatc.operations import Factor, Operation, checked, split

Value = Tensor | np.ndarray | Sequence[Tensor | np.ndarray]


class Solution(NamedTuple):
    """An exact solution: its value as a surrogate returns it, and a mask (B,) of failures, whose entries are NaN."""

    value: Tensor | np.ndarray | tuple[Tensor | np.ndarray, ...]
    failed: Tensor | np.ndarray


class Problem:
    """The operation X(p) on the family A(p), at every p of the family's box.

    Its methods take p as the family's call does, and values as tensors or arrays. NumPy in, NumPy out: where p is an
    array, or a number of NumPy, they return arrays; else tensors.

    Args:
        family: The parametric matrix.
        operation: For example ``nm.Inverse()`` or ``nm.SVD(rank=4)``.

    Attributes:
        family, operation: As given; a second matrix of the operation is part of the family (`Operation.joined`).
        factors: Name and shape of each output factor.

    Raises:
        ValueError: If the operation does not exist for the family's shape (the inverse of a rectangular matrix).
        TypeError: If the arguments are of another type.

    Example:
        >>> import torch, neumatc as nm
        >>> problem = nm.Problem(nm.families.trigonometric(size=8, shift=3), nm.Inverse())
        >>> p = torch.tensor([[0.3]])
        >>> solution = problem.exact(p)
        >>> bool(solution.failed), float(problem.residual(p, solution.value)) < 1e-5
        (False, True)
    """

    @checks.called
    def __init__(self, family: ParametricMatrix, operation: Operation):
        checks.instance("family", family, ParametricMatrix, "a ParametricMatrix around the function")
        checks.instance("operation", operation, Operation, "an operation such as nm.Inverse()")
        expected = f"another one for {family.dimension} parameters: labels change places around a degeneracy"
        kept = operation.order == "followed" and family.dimension > 1
        checks.require(not kept, "order", expected, "'followed'", "hold all parameters but one fixed")
        self.family, self.operation = operation.joined(family)
        self.factors: tuple[Factor, ...] = self.operation.factors(*self.family.shape)

    @property
    def work(self) -> float:
        """About how many real floating-point operations one exact solution takes: `Operation.cost`, complex or not."""
        return self.operation.cost(*self.family.shape) * (4 if self.family.dtype.is_complex else 1)

    @checks.full_precision
    def exact(self, p: Tensor | ArrayLike) -> Solution:
        """Solve exactly at each parameter: p (B, d) -> the value, and where it failed.

        Singular matrices, and parameters at which the family is not defined (NaN or Inf in A(p), or ``fn`` raises), are
        reported in the mask, not raised: ``p[solution.failed]`` says where, and ``family(p)`` there what is raised.

        Raises:
            FamilyError: (a ValueError) If the operation exists at none of the parameters, as the Cholesky factor of
                matrices that are not Hermitian; and as `ParametricMatrix.evaluate` does.
        """
        factors, failed = self.solve(*self.family.evaluate(self.family.box.points(p, offered=False)))
        return checks.like(p, Solution(self.operation.pack(factors), failed))

    @checks.explained
    def solve(self, A: Tensor, good: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Solve exactly for matrices A (B, m, n), those of the mask ``good`` (B,); the others count as failed.

        Returns:
            The factors, NaN where there is no solution, and a mask (B,) of failures.

        Raises:
            FamilyError: (a ValueError) If the operation exists for none of them.
        """
        if good.all():
            return checked(self.operation.exact, A)
        # Any that is defined, if there is one, stands in for those that are not.
        factors, failed = checked(self.operation.exact, torch.where(good[:, None, None], A, A[good.int().argmax()]))
        return split(linalg.masked(failed | ~good, *factors))

    @checks.full_precision
    def residual(self, p: Tensor | ArrayLike, value: Value) -> Tensor | np.ndarray:
        """Relative algebraic residual of ``value`` at p, shape (B,); see the operation for its formula.

        Inf where the family is not defined, or of a kind that the operation refuses (`Operation.admitted`).
        """
        given, p = p, self.family.box.points(p, offered=False)
        A, good = self.family.evaluate(p)
        A, admitted = self.operation.admitted(A)
        residual = self.operation.residual(A, self.unpack(value, p))
        return checks.like(given, torch.where(good & admitted, residual, torch.inf))

    @checks.full_precision
    def error(self, p: Tensor | ArrayLike, value: Value) -> Tensor | np.ndarray:
        """Relative error of ``value`` against the exact solution at p, shape (B,); NaN where that failed.

        In the operation's measure: for most the Frobenius norm of its gauge-invariant matrix, X for the inverse and for
        receivers (whose residual is row by row), U S V^H for the SVD.
        """
        given, p = p, self.family.box.points(p, offered=False)
        return checks.like(given, self.operation.error(self.unpack(value, p), self.unpack(self.exact(p).value, p)))

    @checks.explained
    def unpack(self, value: Value, p: Tensor) -> tuple[Tensor, ...]:
        """Return the factors of ``value`` as a tuple, after checking their number and shapes against p (B, d)."""
        kinds = (Tensor, np.ndarray)
        value = value if isinstance(value, (tuple, list)) else (value,)
        factors = tuple(
            checks.instance("value", x, kinds, "a torch.Tensor or an array, or a tuple of them") for x in value
        )
        factors = tuple(x if isinstance(x, Tensor) else checks.tensor(x) for x in factors)
        own = (checks.real_dtype(self.family.dtype), self.family.device)
        came = [(checks.real_dtype(x.dtype), x.device) for x in factors]
        expected = f"factors of the precision and device of the family, {own}"
        checks.require({*came} <= {own}, "value", expected, came[:1], "convert them with `.to(...)`", TypeError)
        shapes = [tuple(x.shape) for x in factors]
        names = ", ".join(f"{factor.name} (B, {', '.join(map(str, factor.shape))})" for factor in self.factors)
        same = shapes == [(len(p), *factor.shape) for factor in self.factors]
        remedy, wanted = "give what the surrogate returned for `p`", [f.dtype(self.family.dtype) for f in self.factors]
        checks.require(same, "value", f"{names} with B = {len(p)}, the rows of `p`", f"shapes {shapes[:4]}", remedy)
        real = all(dtype.is_complex or not x.is_complex() for x, dtype in zip(factors, wanted))
        checks.require(real, "value", f"numbers of {wanted}", "complex ones", "take the real part", TypeError)
        return tuple(x.to(dtype) for x, dtype in zip(factors, wanted))

    def __repr__(self) -> str:
        return f"Problem({self.family!r}, {self.operation!r})"
