"""Continuation: what snapshots say between the parameters at which they were solved for.

Interpolation takes the snapshots as they are. The two other strategies use the residual at further parameters, which
needs A(p) there and no exact solve: Newton's iteration from a first map adds solutions to the samples, and the least
residual in the span of the snapshots replaces their coefficients by many more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from neumatc import lowrank, polynomials, sampling
from neumatc.families import FamilyError
from neumatc.linalg import wide
from neumatc.methods import Task
from neumatc.operations import Operation
from neumatc.samples import Samples, Subspace, norms

# With fewer for each snapshot than this, interpolation is as good.
_WORTHWHILE = 2
# Operations of an exact solve: as the operation counts them, times this, for small factorisations run at a third of the
# speed of products; and as many for every call as a small product takes.
_SLOWER, _CALL = 3, 2**16
# Operations that a fit may spend beyond the solves that it replaces: a fraction of a second of one core, with a budget
# or without.
_FREE = 2**32
# Newton's iteration: its usual cost in n^3 (three steps in double precision), most steps, and the residual at which its
# result counts as solved.
_NEWTON, _NEWTON_STEPS, _NEWTON_SOLVED = 18, 20, 1e-3
# Most bytes of matrices or equations at once.
_BYTES = 2**26
# Further parameters for each snapshot, in the span and by Newton's iteration, whose values join a decomposition at the
# price of their square. And the most, unless the caller asks for more: it costs more than it gains.
_PER_SNAPSHOT, _MOST = (16, 8), 4096


def choose(task: Task, samples: Samples, asked: int | None) -> tuple[bool, int]:
    """Choose Newton's iteration or the least residual, by fewest operations, and the number of further parameters.

    Unless the caller asks for a number, all further parameters together never cost more than the exact solves there
    would and a fixed allowance, with a budget or without.

    Returns:
        Whether Newton's iteration serves, and the number; 0 where the snapshots are interpolated as they are.
    """
    operation, family, count = task.problem.operation, task.problem.family, len(samples)
    interpolated = samples.space is not None and family.dimension == 1
    if not operation.linear or asked == 0 or (asked is None and (interpolated or count < 2)):
        return False, 0
    field, real = (4, 2) if family.dtype.is_complex else (1, 1)
    rows, columns = task.problem.factors[0].shape
    terms, numbers = min(width(task.rank), count), rows * real
    sketch = min(columns, _sketch(terms, numbers))
    each = 2 * field * rows**2 * terms * sketch + 2 * numbers * sketch * terms**2 + 2 * terms**3
    newton = operation.newton and field * _NEWTON * rows**3 < each
    each = field * _NEWTON * rows**3 if newton else each
    if asked is not None:
        return newton, asked
    excess = each - field * _SLOWER * operation.cost(*family.shape) - _CALL
    allowed = _FREE // max(excess, 1)
    further = min(_PER_SNAPSHOT[newton] * count, max(_MOST, _WORTHWHILE * count), int(allowed))
    return (newton, further) if further >= _WORTHWHILE * count else (False, 0)


def width(rank: int) -> int:
    """Return how many directions serve to find the best ``rank`` at further parameters; also snapshots for a rank."""
    return 2 * rank + 16


def _sketch(terms: int, numbers: int) -> int:
    """Return the random columns that make twice as many real equations as unknowns, and one more."""
    return -(-2 * terms // numbers) + 1


def _further(task: Task, count: int) -> tuple[Tensor, Samples]:
    """Choose further parameters: with another seed than the snapshots, as they are rounded in the box."""
    x, weights = sampling.design(count, task.problem.family.dimension, task.report.seed + 1)
    p = task.box(x)
    return p, Samples(task.place(p), weights)


def newton(task: Task, samples: Samples, guess: Callable[[Tensor], Tensor], count: int) -> Samples:
    """Add the results of Newton's iteration at further parameters to the samples.

    Args:
        task: What is fitted.
        samples: Exact solutions.
        guess: A first map from points of the cube to values.
        count: Number of further parameters.
    """
    operation, known = task.problem.operation, samples.factors[0]
    p, points = _further(task, count)
    X = known.new_empty((count, *known.shape[1:]))
    solved = torch.zeros(count, dtype=torch.bool)
    batch = max(1, _BYTES // (known[0].numel() * known.element_size()))
    try:
        for where in torch.arange(count).split(batch):
            X[where], residual = _iterated(operation, task.matrices(p[where]), guess(task.cube(p[where])))
            solved[where] = (residual < _NEWTON_SOLVED).cpu()
    except FamilyError as error:
        task.note(f"no values from the residual: {error}")
        return samples
    if not solved.all():
        task.note(f"Newton's iteration fails at {int((~solved).sum())} of {count} parameters")
    return samples + replace(points, factors=(X,))[solved] if solved.any() else samples


def _iterated(operation: Operation, A: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
    """Iterate on the matrices that gain from it: the results, and their residuals.

    In double precision: Gram matrices are no better than the precision they are formed in.
    """
    dtype, enough = X.dtype, 16 * A.shape[-1] * torch.finfo(A.dtype).eps
    A, X = wide(A), wide(X).clone()
    residual = operation.residual(A, [X])
    rows, steps = torch.nonzero(residual < 1)[:, 0], 0
    while len(rows) and steps < _NEWTON_STEPS:
        (better,) = operation.improved(A[rows], [X[rows]])
        new = operation.residual(A[rows], [better])
        gained = new < residual[rows]
        X[rows[gained]], residual[rows[gained]] = better[gained], new[gained]  # a failing step is not taken
        rows, steps = rows[gained & (new > enough)], steps + 1
    return X.to(dtype), residual


def least_residual(task: Task, index: int, subspace: Subspace, count: int) -> Subspace:
    """Replace the coefficients at the snapshots by those of least residual at ``count`` further parameters.

    The least residual is not the least error: of matrices that are nearly singular it can be far from it. So the same
    is done at the snapshots, where the coefficients are known, and the replacement is kept only where it comes nearer
    to them than polynomials do to those they were not fitted to. With no more snapshots than matrices, as by default,
    every snapshot lies in their span, so its exact coefficients have no residual, and what is seen there is amplified
    rounding alone.
    """
    samples = subspace.samples
    p, points = _further(task, count)
    try:
        c = _projected(task, index, subspace.C, torch.cat([task.box(samples.x), p]))
    except FamilyError as error:
        task.note(f"no coefficients from the residual: {error}")
        return subspace
    known, new = torch.isfinite(c).all(dim=1).split([len(samples), count])
    if not new.all():
        task.note(f"the residual determines no coefficients at {int((~new).sum())} of {count} parameters")
    if 2 * int(new.sum()) < count or not known.any():
        return subspace
    exact, weights = subspace.scaled, samples.weights
    defects = (c[: len(samples)] * norms(subspace.C).cpu() - exact)[known]
    error = float(weights[known] @ defects.square().sum(dim=1) / weights[known].sum())
    _, predicted = polynomials.choose(samples.x, weights, exact, periodic=task.periodic)
    if error > predicted:
        size = float(weights @ exact.square().sum(dim=1))
        task.note(
            f"coefficients interpolated: those of least residual are off by {math.sqrt(error / size):.1g} at the "
            "snapshots"
        )
        return subspace
    return replace(subspace, samples=replace(points, factors=(c[len(samples) :],))[new])


def _projected(task: Task, index: int, C: Tensor, p: Tensor) -> Tensor:
    """Coefficients of least sketched residual in the matrices C (R, real numbers) at p: shape (B, R), on the CPU."""
    problem = task.problem
    factor = problem.factors[index]
    is_complex = factor.dtype(problem.family.dtype).is_complex
    basis = torch.view_as_complex(C.reshape(len(C), *factor.shape, 2)) if is_complex else C.view(-1, *factor.shape)
    # In double precision, as small defects of ill-conditioned systems ask for.
    scale = norms(C)
    basis = wide(problem.operation.unknown(basis).resolve_conj()) / scale[:, None, None]
    L, F = problem.operation.system(task.matrices(p[:1]))
    numbers = L.shape[1] * (2 if L.is_complex() else 1)
    columns = min(F.shape[2], _sketch(len(C), numbers))
    batch = max(1, _BYTES // (columns * numbers * len(C) * 8))
    c = []
    for piece in p.split(batch):
        L, F = problem.operation.system(wide(task.matrices(piece)))
        # Drawn anew for every batch.
        sketch = torch.randn((F.shape[2], columns), dtype=torch.float64, generator=task.generator)
        c.append(lowrank.project(L, F, basis, sketch.to(scale.device)) / scale)
    return torch.cat(c).cpu()
