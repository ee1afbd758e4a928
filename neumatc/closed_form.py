"""The closed form: snapshots, their best subspace, and an embedding fitted by linear least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neumatc import advice, checks, continuation, lowrank, polynomials, sampling
from neumatc.embeddings import Embedding
from neumatc.families import FamilyError
from neumatc.linalg import from_rows, real_rows
from neumatc.methods import Method, Task, real_numbers
from neumatc.model import FactorMap
from neumatc.report import LARGE_RESIDUAL, StopReason
from neumatc.samples import Samples, Subspace, compressed, solved

# Points at which an embedding is fitted to coefficients that are known everywhere: at least, and for each feature.
_DENSE, _DENSE_PER_FEATURE = 512, 4
# The fit without exact solves stops its iterations at this multiple of the rounding unit, or after so many steps.
_COLLOCATION_UNITS, _COLLOCATION_STEPS = 8, 5000
# Random parameters, not used in a fit, at which its residual is reported.
_CHECKED = 16
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
       interpolates, in a variable that is stretched as far as rounding allows (`Chebyshev`); on a periodic axis by
       sines and cosines, where A determines the factors. For several, and for
       snapshots at other places, from the residual at further parameters, which needs A(p) there and no exact solve:
       where the operation has a Newton step (`Operation.improved`, the inverse) and that takes fewer operations,
       Newton's iteration from a first map, whose results join the snapshots; else the coefficients of least sketched
       residual in the span of the snapshots (`lowrank.project`). Those are taken only if, at the snapshots, they come
       nearer to the known ones than interpolation does to held-out ones. Where all this costs more operations than
       the exact solves that it replaces (and an allowance of a fraction of a second), polynomials
       through the snapshots serve.
    3. Proper orthogonal decomposition: the r matrices C_k that span the samples best, and the coefficients of each
       sample in them (`lowrank.pod`).
    4. The last layer of the embedding, by regularised linear least squares on those coefficients (`lowrank.ridge`).

    With ``budget=0`` there is no exact solution at all: the values at collocation points are those of the
    polynomial map of least residual (`lowrank.collocate`), and steps 2 to 4 follow. That and the residual in step 2
    need a `LinearOperation`.

    Args:
        embedding: Phi, with its features as they are drawn. None: Chebyshev polynomials, for one parameter as many as
            there are snapshots; for several as many, and so stretched, as predict left-out coefficients best.
        snapshots: N, or the parameters themselves, as a surrogate takes them. Default: 2 r + 16, or the budget if that
            is less.
        design: Where the snapshots of several parameters are: ``"sobol"`` or ``"tensor"``, see `sampling.design`. A
            grid has as many points as fit into the number asked for.
        projections: Number of further parameters in step 2; 0 leaves them out. Default: 0 where the Chebyshev series
            serves; else 8 N for Newton's iteration and 16 N in the span, at most 4,096 (or 2 N if that is more), fewer
            where they would cost too much.

    Limits: the snapshots are kept in memory. Accuracy is that of the dtype: in single precision relative errors
    below about 5e-7 are out of reach. Where X(p) is not smooth (a pole of the inverse near the box, kinks), many
    snapshots are needed, whatever the rank: ``nm.fit(problem, tol=...)`` divides the box there. An error of one
    subspace for the whole box is never below the Eckart-Young limit of its rank.
    """

    embedding: Embedding | None = None
    snapshots: int | Sequence[float] | Sequence[Sequence[float]] | None = None
    design: str = "sobol"
    projections: int | None = None

    def __post_init__(self) -> None:
        if self.embedding is not None:
            checks.instance("embedding", self.embedding, Embedding, "an embedding such as nm.SinusoidalMLP()")
        if isinstance(self.snapshots, (Tensor, Sequence, np.ndarray)):
            object.__setattr__(self, "snapshots", checks.numbers("snapshots", self.snapshots, "cpu").tolist())
        elif self.snapshots is not None:
            checks.integer("snapshots", self.snapshots, 1)
        if self.projections is not None:
            checks.integer("projections", self.projections, 0)
        checks.choice("design", self.design, ("sobol", "tensor"))

    def run(self, task: Task) -> list[FactorMap]:
        return self.run_many([task])[0]

    def run_many(self, tasks: Sequence[Task]) -> list[list[FactorMap]]:
        """Fit problems of one operation, shape, dtype and device, with the same rank and budget, at once."""
        first = tasks[0]
        self._accept(first)
        for task in tasks:
            task.report.stop_reason = StopReason.RANK
        samples = [_collocated(task) for task in tasks] if first.budget == 0 else solved(tasks, self._points(first))
        together = all(torch.equal(own.x, samples[0].x) for own in samples)  # nothing failed for some of them alone
        pairs = [(tasks, samples)] if together else [([task], [own]) for task, own in zip(tasks, samples)]
        fitted = [maps for own, values in pairs for maps in self._best(own, values)]
        return [
            task.kept(lambda task=task, maps=maps, own=own: self._check(task, maps, own), lambda maps=maps: maps)
            for task, maps, own in zip(tasks, fitted, samples)
        ]

    def _best(self, tasks: list[Task], samples: list[Samples]) -> list[list[FactorMap]]:
        """Fit problems from samples at the same points; where something ends that, from these alone."""
        plain = replace(self, projections=0)
        maps = tasks[0].kept(lambda: self._fit(tasks, samples), lambda: plain._fit(tasks, samples))
        for task in tasks:
            task.report.stop_reason = tasks[0].report.stop_reason
        return maps

    def batch_snapshots(self, rank: int) -> int:
        """Return how many snapshots a fit of this rank takes if the budget allows."""
        given = self.snapshots
        return len(given) if isinstance(given, Sequence) else given or continuation.width(rank)

    def _accept(self, task: Task) -> None:
        """Raise ValueError for what the closed form cannot do, before anything is solved."""
        operation, none = task.problem.operation, "None for nm.ClosedForm, "
        expected, remedy = none + "which has nothing to begin from", "take nm.ResidualTraining()"
        checks.require(task.start is None, "start", expected, "a surrogate", remedy)
        expected, remedy = none + "one map of a given rank for the whole box", "leave the method out, or give a rank"
        checks.require(task.tol is None, "tol", expected, task.tol, remedy)
        if self.embedding is not None:
            self.embedding.count(task.problem.family.dimension)  # raises where there is no such embedding
        if task.budget == 0:
            expected, remedy = f"at least 1 for {operation}, whose residual is not linear", "take nm.ResidualTraining()"
            checks.require(operation.linear, "budget", expected, 0, remedy)
            expected, remedy = "None with `budget=0`", "leave one of them out"
            checks.require(self.snapshots is None, "snapshots", expected, checks.shown(self.snapshots), remedy)

    def _points(self, task: Task) -> Samples:
        """Choose where to solve: the caller's parameters, or as many of a design as asked for."""
        family, given = task.problem.family, self.snapshots
        if isinstance(given, Sequence):
            points = _given(task, given)
        else:
            count = given or min(self.batch_snapshots(task.rank), task.left())
            space = polynomials.interpolating(count, family.dimension, self.design, family.dtype, task.periodic)
            along = {"stretch": space.stretch, "periodic": any(space.periodic)} if space else {}
            x, weights = sampling.design(count, family.dimension, task.report.seed, kind=self.design, **along)
            points = Samples(x, weights, space=space)
        enough, expected = len(points) <= task.left(), f"at most `budget` = {task.budget}"
        checks.require(enough, "snapshots", expected, len(points), "raise the budget")
        return points

    def _fit(self, tasks: list[Task], samples: list[Samples]) -> list[list[FactorMap]]:
        """Fit several problems from samples at the same points; what is found for each alone, one by one."""
        task, operation = tasks[0], tasks[0].problem.operation
        if len(samples[0]) == 0:
            return [own.zero() for own in tasks]
        newton, count = continuation.choose(task, samples[0], self.projections)
        if (count or not operation.unique) and len(tasks) > 1:
            return [self._fit([own], [values])[0] for own, values in zip(tasks, samples)]
        if not operation.unique:
            along = {"periodic": task.problem.family.box.periodic[0]} if samples[0].x.shape[1] == 1 else {}
            factors, events = operation.align(samples[0].x, samples[0].factors, **along)
            task.enter(events)
            samples = [replace(samples[0], factors=tuple(x.resolve_conj().contiguous() for x in factors))]
        for own in tasks:
            own.report.collocation = len(samples[0]) + count
        least = count > 0
        if newton:
            (guess,) = _embedded(tasks, 0, compressed(samples, 0, len(samples[0])), None, samples[0])
            further = continuation.newton(task, samples[0], guess, count)
            least = 2 * (len(further) - len(samples[0])) < count
            samples = [further]
        maps: list[list[FactorMap]] = []
        for index in range(len(samples[0].factors)):
            asked = min(task.rank, real_numbers(task.problem, index) if operation.unique else task.rank)
            if least:
                subspaces = compressed(samples, index, continuation.width(asked))
                subspaces = [continuation.least_residual(task, index, subspaces[0], count).truncated(asked)]
            else:
                subspaces = compressed(samples, index, asked)
            maps.append(_embedded(tasks, index, subspaces, self.embedding, samples[0]))
            for own, found in zip(tasks, (len(subspace.C) for subspace in subspaces)):
                if found < asked:
                    name = task.problem.factors[index].name
                    own.note(f"{name} has rank {found} instead of {asked}: the snapshots span no more above rounding")
        return [list(own) for own in zip(*maps)]

    def _check(self, task: Task, maps: list[FactorMap], samples: Samples) -> list[FactorMap]:
        """Report the rank, and the residuals at a few random parameters; return the maps."""
        task.report.rank = max(m.rank for m in maps)
        count = min(_CHECKED, task.left()) if task.problem.operation.residual_solves else _CHECKED
        if count:
            p = task.problem.family.box.uniform(count, task.generator)
            try:
                task.judge(p, task.residual(maps, p), rank=task.report.rank)
                if len(samples) and not task.report.rounds[-1].residual_max <= LARGE_RESIDUAL:
                    advice.note_pole(task, samples.x, [real_rows(x) for x in samples.factors])
            except FamilyError as error:
                task.note(f"the residual could not be checked: {error}")
        return maps


def _given(task: Task, given: Sequence) -> Samples:
    """Return the points of the caller's parameters, each once."""
    box = task.problem.family.box
    p = box.points(given, offered=False, name="snapshots").to(box.dtype)
    distinct = torch.unique(p, dim=0)
    count = len(distinct)
    if count < len(p):
        task.note(f"{len(p) - count} of {len(p)} snapshots are repeated and were left out")
    return Samples(task.place(distinct), torch.full((count,), 1 / count, dtype=torch.float64))


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
        space, _ = polynomials.choose(samples.x, samples.weights, scaled, tail, task.periodic)
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
        core = from_rows(s.C, like)
        last = {"weight_out": weight, "bias_out": bias}
        last = {key: w.to(family.device, dtype).clone() for key, w in last.items()}
        maps.append(FactorMap(name, core, embedding, hidden | last))
    return maps
