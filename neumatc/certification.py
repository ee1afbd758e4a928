"""Certified answers: residual and error bound of every value, and exact solutions where that is not good enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from neumatc import checks, linalg
from neumatc.families import FamilyError
from neumatc.linalg import wide
from neumatc.model import Surrogate
from neumatc.problem import Problem

# Numbers of A at a time that are taken to double precision.
NUMBERS = 2**22


@dataclass(frozen=True)
class Certified:
    """Values with what is known of them.

    Attributes:
        value: As the surrogate returns it; rejected entries are exact solutions, NaN where there is none.
        residual: Relative algebraic residual of the surrogate's value, shape (B,), float64, as the operation defines it
            (for the inverse of the whole matrix, for receivers the largest over the users); Inf where the family is not
            defined.
        bound: Bound or estimate of its relative error, shape (B,), float64; Inf where nothing is proved.
        certainty: ``"bound"`` where ``bound`` is proved, ``"estimate"`` where it is not; see the operation.
        accepted: Mask (B,): the surrogate's value was kept, because ``bound`` is at most the tolerance.
        failed: Mask (B,): rejected, and no exact solution exists, or A(p) does not (NaN or Inf in it).
    """

    value: Tensor | tuple[Tensor, ...]
    residual: Tensor
    bound: Tensor
    certainty: str
    accepted: Tensor
    failed: Tensor

    def __str__(self) -> str:
        kept, count = int(self.accepted.sum()), len(self.accepted)
        rest = f"{count - kept} solved exactly, of which {int(self.failed.sum())} failed"
        return f"{kept} of {count} values accepted by the {self.certainty} of their relative error; {rest}"


@checks.full_precision
@torch.no_grad()
def certify(
    surrogate: Surrogate, problem: Problem, p: Tensor | ArrayLike, *, rtol: float = 1e-2, orthonormal: bool = False
) -> Certified:
    r"""Evaluate a surrogate, measure each value against A(p), and solve exactly where it is not good enough.

    The residual and the bound are those of the operation (`Operation.error_bound` states what is proved, and its
    source), computed in double precision from A(p) and the value as they are. A bound is one of ``problem.error``, for
    receivers too, whose residual is that of the worst user, and holds for the matrix that the family returned: how well
    that describes the world it cannot know. An estimate is a residual and proves nothing: it can be small at a wrong
    answer, as each operation states.

    Cost: an exact residual costs about as much as a solution. For the inverse it is one product of n x n matrices, as
    many operations as an inversion, in double precision. So this is for answers that must be right, or for checking a
    sample; it is not faster than solving everything exactly.

    Args:
        surrogate: A fitted surrogate.
        problem: The problem that it stands for.
        p: Parameters inside the box, as for the surrogate's call; arrays give arrays.
        rtol: Largest relative error that is accepted, in the measure of ``problem.error``.
        orthonormal: As for the surrogate's call.

    Returns:
        The values, with residual, bound and masks.

    Raises:
        ValueError: If the surrogate is of another operation or shape; and as a call of it does.
        TypeError: For arguments of another type.

    Example:
        >>> import torch, neumatc as nm
        >>> problem = nm.Problem(nm.families.trigonometric(size=16, dtype=torch.float64), nm.Inverse())
        >>> surrogate = nm.fit(problem, rank=24)
        >>> p = torch.rand(100, 1, dtype=torch.float64)
        >>> checked = nm.certify(surrogate, problem, p, rtol=1e-2)
        >>> checked.certainty, bool((problem.error(p, surrogate(p)) <= checked.bound).all())
        ('bound', True)
        >>> bool((problem.error(p, checked.value) <= 1e-2).all())
        True
    """
    checks.instance("surrogate", surrogate, Surrogate, "an nm.Surrogate")
    checks.instance("problem", problem, Problem, "an nm.Problem")
    rtol = checks.number("rtol", rtol, above=0)
    operation, family = problem.operation, problem.family
    expected, found = (operation, family.shape), (surrogate.operation, surrogate.shape)
    checks.require(expected == found, "surrogate", f"one of the problem, {expected}", f"one of {found}", "fit one")
    given, p = p, surrogate.box.points(p)
    value = surrogate(p, orthonormal=orthonormal)
    factors = (value,) if isinstance(value, Tensor) else tuple(value)
    expected = ([factor.dtype(family.dtype) for factor in problem.factors], family.device)
    found = ([x.dtype for x in factors], surrogate.device)
    same = expected == found
    checks.require(same, "surrogate", f"values of {expected}", found, "convert it with `.to(...)`", TypeError)
    residual, bound, failed = (torch.empty(len(p), dtype=t, device=p.device) for t in (torch.float64,) * 2 + (bool,))
    rows = max(1, NUMBERS // (family.shape[0] * family.shape[1]))
    for start in range(0, len(p), rows):
        piece = slice(start, start + rows)
        A, good = family.evaluate(p[piece])
        own = [x[piece] for x in factors]
        residual[piece], bound[piece] = _measured(problem, A, good, own)
        rejected = ~(bound[piece] <= rtol)
        failed[piece] = False
        if rejected.any():
            try:
                exact, failed[piece][rejected] = problem.solve(A[rejected], good[rejected])
            except FamilyError:  # the operation does not exist for any of them; the others are kept
                exact, failed[piece][rejected] = [torch.nan] * len(own), True
            for x, y in zip(own, exact):
                x[rejected] = y
    found = (operation.pack(factors), residual, bound, operation.certainty, bound <= rtol, failed)
    return Certified(*(checks.like(given, x) for x in found))


def _measured(problem: Problem, A: Tensor, good: Tensor, factors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Residual and bound in double precision; Inf where they are not numbers, or A is not good."""
    operation, A, factors = problem.operation, wide(A), [wide(x) for x in factors]
    residual = operation.residual(A, factors)
    bound = operation.error_bound(A, factors) if operation.bounds else residual
    if operation.certainty == "bound":  # beyond these sizes the squares in its rounding terms leave double precision
        size = linalg.norm(A)
        bound = torch.where((size > 1e-140) & (size < 1e140) | (size == 0), bound, torch.inf)
    return tuple(torch.where(good & ~torch.isnan(x), x, torch.inf) for x in (residual, bound))
