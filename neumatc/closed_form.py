"""The closed form: snapshots, their best subspace, and an embedding fitted by linear least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neumatc import checks, continuation, lowrank, polynomials, sampling
from neumatc.continuation import Strategy
from neumatc.embeddings import Embedding
from neumatc.families import FamilyError
from neumatc.methods import Method, Task, check_embedding, real_numbers
from neumatc.model import FactorMap, evaluate
from neumatc.operations import LinearOperation
from neumatc.report import Round, StopReason
from neumatc.samples import Samples, Subspace, compressed, solved

# Points at which an embedding is fitted to coefficients that are known everywhere: at least, and for each feature.
_DENSE, _DENSE_PER_FEATURE = 512, 4
# The fit without exact solves stops its iterations at this multiple of the rounding unit, or after so many steps.
_COLLOCATION_UNITS, _COLLOCATION_STEPS = 8, 5000
# Collocation points for each polynomial in the fit without exact solves.
_COLLOCATION_POINTS = 1.5


@dataclass(frozen=True)
class ClosedForm(Method):
    r"""Linear algebra instead of gradient descent: the best rank-r map, up to how well the parameters are sampled.

    One map for the whole box, of the rank asked for. It is linear in its latent tensor and in the last layer of its
    embedding, so given snapshots nothing needs to be trained:

    1. Exact solutions X_i at N parameters p_i with quadrature weights (`sampling.design`). Factors that A does not
       determine (singular vectors) are aligned: the operation chooses their gauge so that they are continuous, and
       what it meets on the way (crossings, Berry phases) is in ``report.events``.
    2. The coefficients between the snapshots (`neumatc.continuation`). For one parameter by a Chebyshev series, which
       interpolates, in a variable that is stretched as far as rounding allows (`Chebyshev`). For several, and for
       snapshots at other places, from the residual at further parameters, which needs A(p) there and no exact solve:
       where the operation has a Newton step (`Operation.improved`, the inverse) and that takes fewer operations,
       Newton's iteration from a first map, whose results join the snapshots; else the coefficients of least sketched
       residual in the span of the snapshots (`lowrank.project`). Those are taken only if, at the snapshots, they come
       nearer to the known ones than interpolation does to held-out ones. Where all this costs more operations than
       the exact solves that it replaces (and an allowance), polynomials through the snapshots serve.
    3. Proper orthogonal decomposition: the r matrices C_k that span the samples best, and the coefficients of each
       sample in them (`lowrank.pod`).
    4. The last layer of the embedding, by regularised linear least squares on those coefficients (`lowrank.ridge`).

    With ``budget=0`` there is no exact solution at all: the values at collocation points are those of the
    polynomial map of least residual (`lowrank.collocate`), and steps 2 to 4 follow. That and the residual in step 2
    need a `LinearOperation`.

    Args:
        embedding: Phi, with its features as they are drawn. None: Chebyshev polynomials, for one parameter as many as
            there are snapshots; for several as many, and so stretched, as predict left-out coefficients best.
        snapshots: N, or the parameters themselves, one row each. Default: 2 r + 16, or the budget if that is less.
        design: Where the snapshots of several parameters are: ``"sobol"``, ``"tensor"`` or ``"sparse"``, see
            `sampling.design`. Grids have as many points as fit into the number asked for.
        projections: Number of further parameters in step 2; 0 leaves them out. Default: 0 where the Chebyshev series
            serves; else 8 N for Newton's iteration and 16 N in the span, at most 4,096 (or 2 N if that is more), fewer
            where they would cost too much.
        check: Random parameters, not used in the fit, at which the residual is reported.
        failure_probability, sampling: As for every `Method`; not used.

    Limits: the snapshots are kept in memory. Accuracy is that of the dtype: in single precision relative errors
    below about 5e-7 are out of reach. Where X(p) is not smooth (a pole of the inverse near the box, kinks), many
    snapshots are needed, whatever the rank: ``nm.fit(problem, tol=...)`` divides the box there. An error of one
    subspace for the whole box is never below the Eckart-Young limit of its rank.
    """

    embedding: Embedding | None = None
    snapshots: int | Sequence[Sequence[float]] | None = None
    design: str = "sobol"
    projections: int | None = None
    check: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding is not None:
            check_embedding(self.embedding)
        if isinstance(self.snapshots, (Tensor, Sequence, np.ndarray)):
            object.__setattr__(self, "snapshots", _rows("snapshots", self.snapshots))
        elif self.snapshots is not None:
            checks.integer("snapshots", self.snapshots, 1)
        if self.projections is not None:
            checks.integer("projections", self.projections, 0)
        checks.choice("design", self.design, ("sobol", "tensor", "sparse"))
        checks.integer("check", self.check, 0)

    def run(self, task: Task) -> list[FactorMap]:
        return self.run_many([task])[0]

    def run_many(self, tasks: Sequence[Task]) -> list[list[FactorMap]]:
        """Fit problems of one operation, shape, dtype and device, with the same rank and budget, at once."""
        first = tasks[0]
        self._accept(first)
        for task in tasks:
            task.report.stop_reason = StopReason.RANK
        samples = [_collocated(task) for task in tasks] if first.budget == 0 else solved(tasks, self._points(first))
        alike: dict[bytes, list[int]] = {}  # at the same points, so nothing failed at some of them alone
        for i, own in enumerate(samples):
            alike.setdefault(own.x.numpy().tobytes(), []).append(i)
        fitted: dict[int, list[FactorMap]] = {}
        for group in alike.values():
            fitted |= zip(group, self._fit([tasks[i] for i in group], [samples[i] for i in group]))
        maps = [fitted[i] for i in range(len(tasks))]
        self._check(tasks, maps)
        return maps

    def batch_snapshots(self, rank: int | None) -> int:
        """Return how many snapshots a fit of this rank takes if the budget allows."""
        if isinstance(self.snapshots, Sequence):
            return len(self.snapshots)
        return self.snapshots or continuation.width(rank or 1)

    def _accept(self, task: Task) -> None:
        """Raise ValueError for what the closed form cannot do, before anything is solved."""
        operation = task.problem.operation
        if task.start is not None:
            raise ValueError(
                "`start`: expected None for nm.ClosedForm, which has nothing to begin from, got a surrogate; take "
                "nm.ResidualTraining()."
            )
        if task.tol is not None:
            raise ValueError(
                f"`tol`: expected None for nm.ClosedForm, one map of a given rank for the whole box, got {task.tol:g}; "
                "leave the method out, or give a rank in the place of the tolerance."
            )
        if task.budget == 0 and not isinstance(operation, LinearOperation):
            raise ValueError(
                f"`budget`: expected at least 1 for {operation}, whose residual is not linear, got 0; raise it, or "
                "take nm.ResidualTraining()."
            )
        if self.embedding is not None:
            self.embedding.count(task.problem.family.dimension)  # raises where there is no such embedding
        if task.budget == 0 and self.snapshots is not None:
            raise ValueError(
                f"`snapshots`: expected None with `budget=0`, got {self.snapshots!r}; leave one of them out."
            )

    def _points(self, task: Task) -> Samples:
        """Choose where to solve: the caller's parameters, or as many of a design as asked for."""
        family, given = task.problem.family, self.snapshots
        if isinstance(given, Sequence):
            return _given(task, given)
        if given is not None and given > task.left():
            raise ValueError(f"`snapshots`: expected at most `budget` = {task.budget}, got {given}; raise the budget.")
        count = min(self.batch_snapshots(task.rank), task.left())
        space = polynomials.interpolating(count, family.dimension, self.design, family.dtype)
        stretch = space.stretch if space else 0.0
        x, weights = sampling.design(count, family.dimension, task.report.seed, kind=self.design, stretch=stretch)
        return Samples(x, weights, space=space)

    def _fit(self, tasks: list[Task], samples: list[Samples]) -> list[list[FactorMap]]:
        """Fit several problems from samples at the same points; what is found for each alone, one by one."""
        task, operation = tasks[0], tasks[0].problem.operation
        if len(samples[0]) == 0:
            return [own.zero() for own in tasks]
        strategy, count = continuation.choose(task, samples[0], self.projections)
        alone = strategy is not Strategy.INTERPOLATE or not operation.unique
        if alone and len(tasks) > 1:
            return [self._fit([own], [values])[0] for own, values in zip(tasks, samples)]
        if alone:
            samples = [_aligned(task, samples[0])]
        for own in tasks:
            own.report.collocation = len(samples[0]) + count
        if strategy is Strategy.NEWTON:
            first = compressed(samples, 0, len(samples[0]))
            (guess,) = _embedded(tasks, 0, first, None, samples[0])
            further = continuation.newton(task, samples[0], guess, count)
            strategy = Strategy.INTERPOLATE
            if 2 * (len(further) - len(samples[0])) < count:
                strategy = Strategy.LEAST_RESIDUAL
            samples = [further]
        maps: list[list[FactorMap]] = [[] for _ in tasks]
        for index in range(len(samples[0].factors)):
            asked = min(task.rank, real_numbers(task.problem, index) if operation.unique else task.rank)
            if strategy is Strategy.LEAST_RESIDUAL:
                subspaces = compressed(samples, index, continuation.width(asked))
                subspaces = [continuation.least_residual(task, index, subspaces[0], count).truncated(asked)]
            else:
                subspaces = compressed(samples, index, asked)
            for own, subspace in zip(tasks, subspaces):
                _tell(own, index, asked, subspace, len(samples[0]))
            for own, fitted in zip(maps, _embedded(tasks, index, subspaces, self.embedding, samples[0])):
                own.append(fitted)
        return maps

    def _check(self, tasks: Sequence[Task], fitted: Sequence[list[FactorMap]]) -> None:
        """Report the rank, and the residuals at a few random parameters."""
        operation = tasks[0].problem.operation
        count = min(self.check, tasks[0].left()) if operation.residual_solves else self.check
        checked, A, values = [], [], []
        for task, maps in zip(tasks, fitted):
            family, report = task.problem.family, task.report
            report.rank = max(m.rank for m in maps)
            if count == 0:
                continue
            p = family.box.uniform(count, task.generator)
            try:
                A.append(family(p).clone())  # a family may give the same memory again
            except FamilyError as error:
                task.note(f"the residual could not be checked: {error}")
                continue
            values.append(evaluate(operation, family.shape, maps, task.cube(p)))
            checked.append((report, p))
        if not checked:
            return
        residuals = operation.residual(torch.cat(A), [torch.cat(column) for column in zip(*values)])
        for (report, p), own in zip(checked, residuals.split(count)):
            report.residual_evaluations += count
            report.exact_solves += count if operation.residual_solves else 0
            median, largest, worst = float(own.median()), float(own.max()), p[own.argmax()].tolist()
            entry = Round(0, math.nan, math.nan, median, largest, [], worst, report.exact_solves, report.rank)
            report.rounds.append(entry)


def _rows(name: str, value: object) -> list[list[float]]:
    """Return parameters as rows of numbers."""
    try:
        rows = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        rows = None
    if rows is None or rows.ndim != 2 or rows.numel() == 0:
        raise ValueError(
            f"`{name}`: expected an integer, or parameters of shape (N, d), got {value!r}; write `[[0.0], [0.5]]` for "
            "two values of a single parameter."
        )
    return rows.tolist()


def _given(task: Task, rows: Sequence[Sequence[float]]) -> Samples:
    """Return the points of the caller's parameters, each once."""
    box = task.problem.family.box
    p = torch.tensor(rows, dtype=torch.float64, device=box.device)
    try:
        distinct = torch.unique(box.points(p).to(box.dtype), dim=0)
    except ValueError as error:
        raise ValueError(str(error).replace("`p`", "`snapshots`").partition("; ")[0] + ".") from None
    count = len(distinct)
    if count > task.left():
        raise ValueError(
            f"`snapshots`: expected at most `budget` = {task.budget} parameters, got {count}; raise the budget."
        )
    if count < len(p):
        task.note(f"{len(p) - count} of {len(p)} snapshots are repeated and were left out")
    return Samples(task.place(distinct), torch.full((count,), 1 / count, dtype=torch.float64))


def _aligned(task: Task, samples: Samples) -> Samples:
    """Choose the gauge of samples, and report what was met on the way."""
    factors, events = task.problem.operation.align(samples.x, samples.factors)
    task.enter(events)
    return replace(samples, factors=tuple(x.resolve_conj().contiguous() for x in factors))


def _collocated(task: Task) -> Samples:
    """Values, at collocation points, of the polynomial map of least residual."""
    family = task.problem.family
    dtype, dimension = checks.real_dtype(family.dtype), family.dimension
    space = polynomials.largest(continuation.width(task.rank) - 1, dimension)
    count = int(_COLLOCATION_POINTS * (space.count(dimension) + 1)) + 1
    x, weights = sampling.design(count, dimension, task.report.seed)
    p = task.box(x)
    x = task.place(p)
    L, F = task.problem.operation.system(family(p))
    psi = space.features(x, {})
    Q, _ = torch.linalg.qr(torch.cat([torch.ones_like(psi[:, :1]), psi], dim=1))
    tolerance = _COLLOCATION_UNITS * torch.finfo(dtype).eps
    X, steps = lowrank.collocate(L, F, Q.to(family.device, dtype), tolerance, _COLLOCATION_STEPS)
    if steps == _COLLOCATION_STEPS:
        task.note("the least-squares iteration had not converged: the matrices are ill-conditioned")
    X = X if tuple(X.shape[1:]) == task.problem.factors[0].shape else X.mH.resolve_conj().contiguous()
    return Samples(x, weights, (X,), space)


def _tell(task: Task, index: int, asked: int, subspace: Subspace, count: int) -> None:
    """Report a rank that the snapshots do not have."""
    found, factors = len(subspace.C), task.problem.factors
    if found < asked:
        why = "the snapshots" if found >= count else "those above rounding among the snapshots' directions"
        of = f" of {factors[index].name}" if len(factors) > 1 else ""
        task.note(f"rank{of} {found} instead of {asked}: {why} are no more")


def _embedded(
    tasks: Sequence[Task], index: int, subspaces: Sequence[Subspace], embedding: Embedding | None, values: Samples
) -> list[FactorMap]:
    """Fit the embedding's last layer to the coefficients of all tasks at once: they share points and features."""
    task, samples = tasks[0], subspaces[0].samples
    family, name, like = task.problem.family, task.problem.factors[index].name, values.factors[index]
    d, seed, dtype = family.dimension, task.report.seed, checks.real_dtype(family.dtype)
    ridge = polynomials.penalty(dtype)
    Y = torch.cat([s.coefficients for s in subspaces], dim=1)
    space = samples.space
    if space is None and (embedding is None or embedding.count(d) >= len(samples)):
        # Too few values for the caller's embedding: it is fitted to polynomials through them.
        scaled, tail = torch.cat([s.scaled for s in subspaces], dim=1), sum(s.tail for s in subspaces)
        space, _ = polynomials.choose(samples.x, samples.weights, scaled, tail)
    embedding = embedding or space
    x, weights = samples.x, samples.weights
    if space is not None and embedding != space:
        W, b = lowrank.ridge(space.features(x, {}), Y, weights, ridge)
        x, weights = sampling.design(max(_DENSE, _DENSE_PER_FEATURE * embedding.count(d)), d, seed)
        Y = space.features(x, {}) @ W + b
    # The features are fitted as they will be evaluated, with weights rounded to the precision of the surrogate.
    hidden = {key: w.to(dtype) for key, w in embedding.hidden(d, torch.Generator().manual_seed(seed)).items()}
    psi = embedding.features(x, {key: w.double() for key, w in hidden.items()})
    W, b = lowrank.ridge(psi, Y, weights, ridge)
    hidden = {key: w.to(family.device) for key, w in hidden.items()}
    parts = [len(s.C) for s in subspaces]
    maps = []
    for s, weight, bias in zip(subspaces, W.T.contiguous().split(parts), b.split(parts)):
        shape = (len(s.C), *like.shape[1:])
        core = torch.view_as_complex(s.C.reshape(*shape, 2)) if like.is_complex() else s.C.reshape(shape)
        last = {
            "weight_out": weight.to(family.device, dtype).clone(),
            "bias_out": bias.to(family.device, dtype).clone(),
        }
        maps.append(FactorMap(name, core, embedding, hidden | last))
    return maps
