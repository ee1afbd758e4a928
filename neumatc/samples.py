"""Samples: exact factors at points of the cube, as one value that can be solved for, masked, joined and compressed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neumatc import lowrank
from neumatc.embeddings import Chebyshev
from neumatc.linalg import real_rows
from neumatc.methods import Task
from neumatc.operations import checked


@dataclass(frozen=True)
class Samples:
    """Factors at points of the cube [-1, 1]^d.

    Attributes:
        x: Points, shape (N, d), float64, on the CPU.
        weights: Quadrature weights for the uniform measure, positive, shape (N,), float64; their sum is one.
        factors: Values, each of shape (N, *shape).
        space: Polynomials that interpolate at the points, where there are any.
    """

    x: Tensor
    weights: Tensor
    factors: tuple[Tensor, ...] = ()
    space: Chebyshev | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, kept: Tensor) -> Samples:
        """Keep those of a mask (N,) on the CPU. Polynomials that interpolate at all points serve the rest no more."""
        if kept.all():
            return self
        weights = self.weights[kept]
        factors = tuple(x[kept.to(x.device)] for x in self.factors)
        return Samples(self.x[kept], weights / weights.sum(), factors)

    def __add__(self, other: Samples) -> Samples:
        """Join two sets, each weighing as many as it has."""
        weights = torch.cat([len(self) * self.weights, len(other) * other.weights])
        factors = tuple(torch.cat(pair) for pair in zip(self.factors, other.factors, strict=True))
        return Samples(torch.cat([self.x, other.x]), weights / weights.sum(), factors)

    def distinct(self) -> Samples:
        """Keep the first of those at the same point."""
        _, first = np.unique(self.x.numpy(), axis=0, return_index=True)
        return self[torch.isin(torch.arange(len(self)), torch.from_numpy(first))]


@dataclass(frozen=True)
class Subspace:
    """One factor in the span of a few matrices: at each point the sum of C_k times its coefficients.

    Attributes:
        samples: Coefficients, one factor of shape (N, R), float64 on the CPU.
        C: The matrices as rows of real numbers, shape (R, numbers).
        tail: Mean square of what they leave out.
    """

    samples: Samples
    C: Tensor
    tail: float

    @property
    def coefficients(self) -> Tensor:
        """Shape (N, R)."""
        return self.samples.factors[0]

    @property
    def scaled(self) -> Tensor:
        """The coefficients times the norms of the matrices, so that their errors are those of the factor."""
        return self.coefficients * norms(self.C).cpu()

    def truncated(self, rank: int) -> Subspace:
        """Return the best subspace of a rank within this one, over its own points."""
        rank = min(rank, *self.coefficients.shape)
        Y, T, S = lowrank.pod(self.scaled[None], self.samples.weights, rank)
        C = (T[0] / norms(self.C).cpu()).to(self.C) @ self.C
        return Subspace(replace(self.samples, factors=(Y[0],)), C, self.tail + float(S[0, rank:].square().sum()))


def norms(C: Tensor) -> Tensor:
    """Norms of rows, float64; 1 for those that are zero, as where X(p) = 0."""
    result = C.double().norm(dim=1)
    return torch.where(result > 0, result, 1)


def solved(tasks: Sequence[Task], points: Samples) -> list[Samples]:
    """Solve exactly at the points for all tasks in one batch, and keep what succeeded, each parameter once.

    The points move to where their parameters are after rounding to the precision of the box. Failures, of the family or
    of the operation, and parameters that coincide are reported; a family that is defined nowhere raises.
    """
    operation, count, begin = tasks[0].problem.operation, len(points), time.perf_counter()
    p = [task.box(points.x) for task in tasks]
    A, defined = map(torch.cat, zip(*[_defined(task, own) for task, own in zip(tasks, p)]))
    for task, own, good in zip(tasks, p, defined.view(len(tasks), -1).any(dim=1).tolist()):
        if not good:
            task.problem.family(own)  # it says why
    factors, failed = checked(operation.snapshots, A)
    succeeded = (~failed & defined).cpu()
    result = []
    for i, (task, own) in enumerate(zip(tasks, p)):
        part = slice(i * count, (i + 1) * count)
        task.count(own, succeeded[part], begin, len(tasks))
        good = succeeded[part]
        if len(tasks) > 1 and not good.any():  # an operation that suits none of these matrices says why
            checked(operation.snapshots, A[part])
        if not good.all():
            task.note(f"{int((~good).sum())} of {count} exact solves failed")
        x = task.problem.family.box.rounded(points.x)
        samples = replace(points, x=x, factors=tuple(value[part] for value in factors))[good]
        result.append(samples.distinct())
        if lost := len(samples) - len(result[-1]):
            where = f"the precision of the box, {task.problem.family.box.dtype}, give it in double precision"
            task.note(f"{lost} of {count} snapshots coincide with others in {where}")
    return result


def _defined(task: Task, p: Tensor) -> tuple[Tensor, Tensor]:
    """Return copies of A(p), as a family may give the same memory again, and where they are defined."""
    A, defined = task.evaluate(p)
    return A.clone(), defined


def compressed(samples: Sequence[Samples], index: int, rank: int) -> list[Subspace]:
    """Return the best subspace of at most ``rank`` for one factor of each of several samples at the same points.

    Directions whose size is at the rounding of the largest are left out.
    """
    rows = torch.stack([real_rows(s.factors[index]) for s in samples])
    weights = samples[0].weights
    Y, C, S = lowrank.pod(rows, weights.to(rows.device), min(rank, len(weights)))
    kept = (2 * torch.finfo(rows.dtype).eps * S[:, :1] < S).sum(dim=1).clamp(1, Y.shape[2]).tolist()
    Y, tails = Y.cpu(), S.square().cpu()
    return [
        Subspace(replace(s, factors=(Y[g, :, :k],)), C[g, :k], float(tails[g, k:].sum()))
        for g, (s, k) in enumerate(zip(samples, kept))
    ]
