"""Certified answers: residual and error bound of every value, and exact solutions where that is not good enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from neumatc import checks, linalg
from neumatc.families import FamilyError, ParametricMatrix
from neumatc.linalg import norm, wide
from neumatc.model import Surrogate
from neumatc.operations import Operation
from neumatc.problem import Problem

# Numbers of A at a time that are taken to double precision, and of those that are solved in twice that, for which each
# takes some hundred numbers of memory.
NUMBERS, REFINED = 2**22, 2**16
# Beyond these sizes squares in the rounding terms of a bound leave double precision.
_LEAST, _MOST = 1e-140, 1e140
# Bounds what rounding of double precision does to a comparison of two values, up to ranks of several hundred; rounding
# to single precision is 256 times as large.
_ROUNDING = 2**20 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Certified:
    """Values with what is known of them.

    Attributes:
        value: As the surrogate returns it; rejected entries are exact solutions, NaN where there is none, or nothing is
            known of it.
        residual: Relative algebraic residual of the surrogate's value, also where that is replaced, shape (B,),
            float64, as the operation defines it (for the inverse of the whole matrix, for receivers the largest over
            the users); Inf where the family is not defined or the value is not finite.
        bound: Bound or estimate of the relative error of ``value``, the replaced ones included, shape (B,), float64;
            Inf where nothing is known, and the value is NaN.
        certainty: ``"bound"`` where ``bound`` is proved, ``"estimate"`` where it is not; see the operation.
        accepted: Mask (B,): the surrogate's value was kept, because its bound is at most the tolerance.
        failed: Mask (B,): ``bound`` is above the tolerance. There is no exact solution, or A(p) does not exist, or it
            cannot be bounded better: because A(p) is too close to a matrix without a unique solution, or because the
            tolerance asks for more than the precision of the family.
        samples: Of a family through samples: how many, and what leaving one out changes, or the noise that smoothing
            leaves. All that is said here is about the curve through them, not about what was measured.
        raised: What the family's function raised at the first parameter where it did: A(p) does not exist there.
    """

    value: Tensor | tuple[Tensor, ...]
    residual: Tensor
    bound: Tensor
    certainty: str
    accepted: Tensor
    failed: Tensor
    samples: str = ""
    raised: str = ""

    def __str__(self) -> str:
        kept, count = int(self.accepted.sum()), len(self.accepted)
        rest = f"{count - kept} solved exactly, of which {int(self.failed.sum())} failed"
        about = (
            f"; the {self.certainty} is about the curve through samples, not what they measure: {self.samples}"
            if self.samples
            else ""
        )
        about += f"; {self.raised}" * bool(self.raised)
        return f"{kept} of {count} values accepted by the {self.certainty} of their relative error; {rest}{about}"


@checks.called
@checks.full_precision
@torch.no_grad()
def certify(
    surrogate: Surrogate, problem: Problem, p: Tensor | ArrayLike, *, rtol: float = 1e-2, orthonormal: bool = False
) -> Certified:
    r"""Evaluate a surrogate, measure each value against A(p), and solve exactly where it is not good enough.

    The residual and the bound are those of the operation (`Operation.error_bound` states what is proved, and its
    source), computed in double precision from A(p) and the value as they are. A bound is one of ``problem.error``, for
    receivers too, whose residual is that of the worst user, and holds for the matrix that the family returned: how well
    that describes the world it cannot know; of a family through samples it says what leaving one out changes, or what
    smoothing leaves of their noise (``certified.samples``). An estimate is a residual and proves nothing: it can be
    small at a wrong answer, as each operation states.

    Exact solutions are measured as well. They are computed in double precision; where that does not reach the
    tolerance, those of inverses and receivers in twice that (`neumatc.twofold`), which does up to a condition number
    of about 1e15. Of a solution X with a bound b that is rounded to X' for a family of single precision, the bound is
    :math:`b + (1 + b) \|X' - X\|_F / \|X\|_F`. Ties of an `SVD` of some of the values cannot be bounded: they fail.

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
        >>> checked.certainty, bool((problem.error(p, checked.value) <= checked.bound).all())
        ('bound', True)
        >>> bool((checked.bound <= 1e-2).all())
        True
    """
    checks.instance("surrogate", surrogate, Surrogate, "an nm.Surrogate")
    checks.instance("problem", problem, Problem, "an nm.Problem")
    rtol = checks.number("rtol", rtol, above=0)
    operation, family = problem.operation, problem.family
    expected, found = (operation, family.shape), (surrogate.operation, surrogate.shape)
    checks.require(expected == found, "surrogate", f"one of the problem, {expected}", f"one of {found}", "fit one")
    given, p = p, surrogate.box.points(p, offered=False)
    value = surrogate(p, orthonormal=orthonormal)
    factors = (value,) if isinstance(value, Tensor) else tuple(value)
    expected = ([factor.dtype(family.dtype) for factor in problem.factors], family.device)
    found = ([x.dtype for x in factors], surrogate.device)
    same = expected == found
    checks.require(same, "surrogate", f"values of {expected}", found, "convert it with `.to(...)`", TypeError)
    residual, bound = torch.empty((2, len(p)), dtype=torch.float64, device=p.device)
    accepted = torch.empty(len(p), dtype=torch.bool, device=p.device)
    raised = ""
    for piece, A, why in _matrices(family, family.box.points(p, offered=False)):
        (A, defined), raised = checks.defined(A), raised or why
        A, admitted = operation.admitted(A)
        good = defined & admitted
        own = [x[piece] for x in factors]
        residual[piece], bound[piece] = _measured(operation, wide(A), good, own)
        accepted[piece] = bound[piece] <= rtol
        rejected = ~accepted[piece]
        if rejected.any():
            exact, bound[piece][rejected] = _exact(problem, A[rejected], good[rejected], own, rtol)
            for x, y in zip(own, operation.matched(exact, [x[rejected] for x in own])):
                x[rejected] = y
    samples, failed = str(family.measured or ""), ~(bound <= rtol)
    found = (operation.pack(factors), residual, bound, operation.certainty, accepted, failed)
    return Certified(*(checks.like(given, x) for x in found), samples, raised)


@checks.full_precision
@torch.no_grad()
def bounded(problem: Problem, p: ArrayLike, value: Sequence[ArrayLike]) -> tuple[Tensor, Tensor]:
    """Return residual and bound of values that are there, each (B,), as `certify` has them; nothing is solved."""
    p = problem.family.box.points(p, offered=False)
    A, good = problem.family.evaluate(p)
    A, admitted = problem.operation.admitted(A)
    return _measured(problem.operation, wide(A), good & admitted, problem.unpack(value, p))


def _matrices(family: ParametricMatrix, p: Tensor) -> Iterator[tuple[slice, Tensor, str]]:
    """Yield parts of a batch, their matrices, and what the family raised."""
    rows = max(1, NUMBERS // (family.shape[0] * family.shape[1]))
    for start in range(0, len(p), rows):
        part = p[start : start + rows]
        yield slice(start, start + rows), *family._anything(part)


def _measured(operation: Operation, A: Tensor, good: Tensor, factors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Residual and bound in double precision; Inf where they are not numbers, or A is not good.

    What is not finite, or for a bound too large or small, is left out: nothing is asked of LAPACK about it.
    """
    factors = [wide(x) for x in factors]
    good = torch.stack([good, *map(checks.finite, factors)]).all(dim=0)
    measures, masks = torch.full((2, len(A)), torch.inf, dtype=torch.float64, device=A.device), [good, good]
    if operation.certainty == "bound":
        sizes = torch.stack([norm(x) for x in (A, *factors)])
        masks[1] = good & (((sizes > _LEAST) & (sizes < _MOST)) | (sizes == 0)).all(dim=0)
    for row, mask, measure in zip(measures, masks, (operation.residual, operation.error_bound)):
        if mask.any():
            these = slice(None) if mask.all() else mask  # without a copy
            found = measure(A[these], [x[these] for x in factors])
            row[these] = torch.where(torch.isnan(found), torch.inf, found)
        if not operation.bounds:
            return measures[0], measures[0].clone()
    return measures[0], measures[1]


def _exact(
    problem: Problem, A: Tensor, good: Tensor, like: Sequence[Tensor], rtol: float
) -> tuple[list[Tensor], Tensor]:
    """Exact solutions of the dtypes of ``like``, and their bounds; NaN and Inf where there is none.

    In double precision; in that of A where double refuses what is Hermitian in single; and in twice the double.
    """
    operation, W = problem.operation, wide(A)
    factors, bound = _rounded(operation, *_bounded(problem, W, good, like), like)

    def take(rows: Tensor, better: Sequence[Tensor], theirs: Tensor) -> None:
        won = theirs < bound[rows]
        for x, y in zip((*factors, bound), (*better, theirs)):
            x[rows[won]] = y[won].to(x.dtype)

    refused = (good & bound.isinf()).nonzero()[:, 0]
    if A.dtype != W.dtype and len(refused):
        take(refused, *_bounded(problem, A[refused], good[refused], like))
    least = min(torch.finfo(x.dtype).eps for x in like) / 8  # nearer is no number of this precision, but by chance
    hard = (good & ~(bound <= rtol) & (rtol > least)).nonzero()[:, 0]
    for rows in hard.split(max(1, REFINED // (A.shape[1] * A.shape[2]))):
        if len(rows) and (refined := operation.refined(W[rows])):
            take(rows, *_rounded(operation, *refined, like))
    *factors, _ = linalg.masked(bound.isinf(), *factors)
    return factors, bound


def _bounded(problem: Problem, A: Tensor, good: Tensor, like: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
    """Exact solutions of the precision of A, NaN where there is none, and their bounds."""
    try:
        exact, failed = problem.solve(A, good)
    except FamilyError:  # the operation does not exist for any of them
        exact, failed = [wide(x[:1]).new_full((len(A), *x.shape[1:]), torch.nan) for x in like], torch.ones_like(good)
    return exact, _measured(problem.operation, wide(A), ~failed, exact)[1]


def _rounded(
    operation: Operation, exact: Sequence[Tensor], bound: Tensor, like: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """Round solutions and add what that does to their bounds."""
    factors = [x.to(y.dtype) for x, y in zip(exact, like)]
    if all(x.dtype == y.dtype for x, y in zip(factors, exact)):
        return factors, bound
    change = torch.full_like(bound, torch.inf)
    good = torch.stack([bound.isfinite(), *map(checks.finite, factors)]).all(dim=0)
    if good.any():
        before, after = ([wide(x[good]) for x in values] for values in (exact, factors))
        change[good] = operation.error(after, before) + _ROUNDING
    found = bound + (1 + bound) * change
    return factors, torch.where(torch.isnan(found), torch.inf, found)
