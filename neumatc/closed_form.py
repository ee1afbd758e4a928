"""The closed form: snapshots, their best subspace, and an embedding fitted by linear least squares."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import qr
from scipy.spatial import cKDTree
from torch import Tensor
from tqdm import tqdm

from neumatc import checks, lowrank, sampling
from neumatc.embeddings import Chebyshev, Embedding, real_rows
from neumatc.failure import FailureEstimate
from neumatc.families import FamilyError
from neumatc.methods import Method, Task, check_embedding
from neumatc.model import FactorMap, evaluate
from neumatc.operations import LinearOperation, Operation, checked, wide
from neumatc.report import Round, StopReason

# Points at which an embedding is fitted to coefficients that are known everywhere: at least, and for each feature.
_DENSE, _DENSE_PER_FEATURE = 512, 4
# In a fit to a tolerance: most snapshots where the caller sets no budget, and most parameters for the projection.
_MOST_SNAPSHOTS, _MOST_PROJECTIONS = 4096, 16384
# Newton's iteration: most steps, the residual at which its result counts as solved, and how often it is tried again
# from the nearest solution where it fails. Three steps for a matrix of size n take this times n^3 operations.
_NEWTON_STEPS, _NEWTON_SOLVED, _NEWTON_SWEEPS, _NEWTON_COST = 20, 1e-3, 3, 18
# Most polynomials in a residual-only fit to a tolerance, and most bytes of equations at once in the projection.
_MOST_COLLOCATION, _PROJECTION_BYTES = 2048, 2**26
# Polynomials that are tried for coefficients at scattered parameters: the most, their stretches, and the random
# combinations of the coefficients by which they are judged.
_MOST_FEATURES, _STRETCHES, _JUDGED = 2048, (0.95, 0.8, 0.0), 64
# What a fit to coefficients need not resolve, in rounding units.
_ROUNDING_UNITS = 4
# Rounds without progress after which a fit to a tolerance gives up.
_MOST_IDLE = 3
_NOT_CONVERGED = "the least-squares iteration had not converged: the matrices are ill-conditioned"
# The residual-only fit stops its iterations at this multiple of the rounding unit, or after so many steps; in a fit to
# a tolerance after fewer, since every round takes more than the one before.
_COLLOCATION_UNITS, _COLLOCATION_STEPS, _COLLOCATION_STEPS_PER_ROUND = 8, 5000, 2000


class _Design(NamedTuple):
    """Parameters of snapshots: points of the cube, their weights, and the polynomials that continue values there."""

    x: Tensor
    weights: Tensor
    space: Chebyshev | None


class _Subspace(NamedTuple):
    """Coefficients at parameters of a design, and the matrices that they multiply, for one factor of one problem."""

    design: _Design
    Y: Tensor  # (N, R), float64, on the CPU
    C: Tensor  # (R, real numbers)
    tail: float  # mean square of what C leaves out


@dataclass(frozen=True)
class ClosedForm(Method):
    r"""Linear algebra instead of gradient descent: the best rank-r map, up to how well the parameters are sampled.

    The map is linear in its latent tensor and in the last layer of its embedding, so given snapshots nothing needs to
    be trained:

    1. Exact solutions X_i at N parameters p_i with quadrature weights (`sampling.design`).
    2. Proper orthogonal decomposition: the r matrices C_k that span the snapshots best, and the coefficients of each
       snapshot in them (`lowrank.pod`).
    3. The coefficients between the snapshots. For one parameter by a Chebyshev series, which interpolates, in a
       variable that is stretched as far as rounding allows (`Chebyshev`). For several, and for snapshots at other
       places, from the residual at ``projections`` further parameters, which needs A(p) there and no exact solve: the
       coefficients of least sketched residual in the matrices of step 2 (`lowrank.project`); or, where the operation
       has a Newton step (`Operation.improved`, the inverse) and that takes fewer operations, Newton's iteration from a
       first map, whose results join the snapshots before step 2. An iteration costs more than an exact solve of the
       same size: it saves solves, not time. Coefficients from the residual are taken only if, at the snapshots, they
       come nearer to the known ones than interpolation does to held-out ones.
    4. The last layer of the embedding, by regularised linear least squares on those coefficients (`lowrank.ridge`).

    With ``budget=0`` there is no exact solution at all: the values at collocation points are those of the
    polynomial map of least residual (`lowrank.collocate`), and steps 2 to 4 follow.

    With a tolerance, snapshots are added where the residual is estimated to fail, or the embedding and the projections
    grow where the subspace is good enough, until the estimated failure probability is low enough; then the rank
    is reduced as far as the tolerance allows, unless it is fixed. Where that does not come about, the map of the
    best round is returned: of the least estimated failure probability times the median residual.

    Factors that A does not determine (singular vectors) are aligned first: the operation chooses their gauge so that
    they are continuous, and what it meets on the way (crossings, Berry phases) is in ``report.events``. The projection
    and ``budget=0`` need a `LinearOperation`.

    Args:
        embedding: Phi; its features stay as they are drawn unless ``refine`` is given. None: Chebyshev polynomials, for
            one parameter as many as there are snapshots; for several as many, and so stretched, as predict left-out
            coefficients best.
        snapshots: N, or the parameters themselves, one row each. Default: 2 r + 16, or the budget if that is less;
            with a tolerance that is where it starts from.
        design: Where the snapshots of several parameters are: ``"sobol"``, ``"tensor"`` or ``"sparse"``, see
            `sampling.design`. Grids have as many points as fit into the number asked for.
        projections: Number of parameters for step 3 from the residual; 0 leaves the step out. Default: 0 where the
            Chebyshev series serves, else 8 N, but not above 4,096 unless that is below 2 N; with a tolerance more
            where that is not enough.
        refine: Most Gauss-Newton steps on the weights of the features (`SinusoidalMLP`), by variable projection: the
            last layer is eliminated, so only what is not linear is trained.
        check: Random parameters, not used in the fit, at which the residual of a fit without a tolerance is reported.
        failure_probability, sampling: As for every `Method`.

    Limits: the snapshots are kept in memory. Accuracy is that of the dtype: in single precision relative errors
    below about 5e-7 are out of reach. Where X(p) is not smooth (a pole of the inverse near the box, kinks), many
    snapshots are needed, whatever the rank.
    """

    embedding: Embedding | None = None
    snapshots: int | Sequence[Sequence[float]] | None = None
    design: str = "sobol"
    projections: int | None = None
    refine: int = 0
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
        checks.integer("refine", self.refine, 0)
        checks.integer("check", self.check, 0)

    def run(self, task: Task) -> list[FactorMap]:
        return self.run_many([task])[0]

    def run_many(self, tasks: Sequence[Task]) -> list[list[FactorMap]]:
        """Fit problems of one operation, shape, dtype and device, with the same rank, tolerance and budget, at once."""
        first = tasks[0]
        operation = first.problem.operation
        if first.start is not None:
            raise ValueError(
                "`start`: expected None for nm.ClosedForm, which has nothing to begin from, got a surrogate; take "
                "nm.ResidualTraining()."
            )
        if first.budget == 0 and not isinstance(operation, LinearOperation):
            raise ValueError(
                f"`budget`: expected at least 1 for {operation}, whose residual is not linear, got 0; raise it, or "
                "take nm.ResidualTraining()."
            )
        if self.embedding is not None:
            self.embedding.count(first.problem.family.dimension)  # raises where there is no such embedding
        if first.budget == 0 and self.snapshots is not None:
            raise ValueError(
                f"`snapshots`: expected None with `budget=0`, got {self.snapshots!r}; leave one of them out."
            )
        if first.tol is not None:
            if operation.residual_solves and first.budget is not None:
                raise ValueError(
                    f"`budget`: expected None with a tolerance for {operation}, whose residual takes an exact solve, "
                    f"got {first.budget}; give a rank instead of the tolerance."
                )
            return [self._adapt(task) for task in tasks]
        for task in tasks:
            task.report.stop_reason = StopReason.RANK
        if first.budget == 0:
            fitted = []
            for task in tasks:
                design = _collocation(_snapshots(first.rank), task)
                fitted += self._assemble([task], design, [_collocated(task, design)[0][None]])
        else:
            design = self._first_design(first, self.batch_snapshots(first.rank))
            fitted = self._solved(tasks, design)
        self._check(tasks, fitted)
        return fitted

    def batch_snapshots(self, rank: int | None) -> int:
        """Return how many snapshots a fit of this rank takes if the budget allows; with a tolerance, one by one."""
        if isinstance(self.snapshots, Sequence):
            return len(self.snapshots)
        return self.snapshots or (_snapshots(rank) if rank else 1)

    def _first_design(self, task: Task, count: int) -> _Design:
        """Choose the snapshots: the caller's, or as many as asked for."""
        dimension = task.problem.family.dimension
        if self.snapshots is None or not isinstance(self.snapshots, Sequence):
            if self.snapshots is not None and self.snapshots > task.left():
                raise ValueError(
                    f"`snapshots`: expected at most `budget` = {task.budget}, got {self.snapshots}; raise the budget."
                )
            count = max(1, min(self.snapshots or count, task.left()))
            space = _interpolating(count, dimension, self.design, task.problem.family.dtype)
            stretch = space.stretch if space else 0.0
            x, weights = sampling.design(count, dimension, task.report.seed, kind=self.design, stretch=stretch)
            return _Design(x, weights, space)
        family = task.problem.family
        p = torch.tensor(self.snapshots, dtype=torch.float64, device=family.device)
        try:
            distinct = torch.unique(family.box.points(p).to(family.lower.dtype), dim=0)
        except ValueError as error:
            raise ValueError(str(error).replace("`p`", "`snapshots`").partition("; ")[0] + ".") from None
        if len(distinct) > task.left():
            raise ValueError(
                f"`snapshots`: expected at most `budget` = {task.budget} parameters, got {len(distinct)}; raise the "
                "budget."
            )
        if len(distinct) < len(p):
            task.note(f"{len(p) - len(distinct)} of {len(p)} snapshots are repeated and were left out")
        return _scattered(task.place(distinct))

    def _solved(self, tasks: Sequence[Task], design: _Design) -> list[list[FactorMap]]:
        """Solve exactly at one design for all tasks, and fit; those with failed solves one by one."""
        factors, good = _solve(tasks, design.x)
        fitted: dict[int, list[FactorMap]] = {}
        for group in _alike(tasks, good):
            chosen = [tasks[i] for i in group]
            own = _rounded(chosen[0], design)
            succeeded = good[group[0]].cpu()
            if not succeeded.any():
                fitted |= {i: _zero(tasks[i]) for i in group}
                continue
            batch = factors if len(group) == len(tasks) else [x[group] for x in factors]
            for task in chosen:
                if not succeeded.all():
                    task.note(f"{int((~succeeded).sum())} of {len(succeeded)} exact solves failed")
            kept = _distinct(chosen, own.x, succeeded)
            if not kept.all():
                own, batch = _scattered(own.x[kept]), [x[:, kept.to(x.device)] for x in batch]
            fitted |= zip(group, self._assemble(chosen, own, batch))
        return [fitted[i] for i in range(len(tasks))]

    def _assemble(self, tasks: Sequence[Task], design: _Design, factors: list[Tensor]) -> list[list[FactorMap]]:
        """Fit all factors of all tasks to snapshots of shape (G, N, *shape)."""
        maps: list[list[FactorMap]] = [[] for _ in tasks]
        if not tasks[0].problem.operation.unique:
            if len(tasks) > 1:  # each has its own gauge, and may follow another number of vectors
                return [self._assemble([t], design, [x[i : i + 1] for x in factors])[0] for i, t in enumerate(tasks)]
            factors = [x[None] for x in _aligned(tasks[0], design, [x[0] for x in factors])]
        if self._iterates(tasks[0], design):
            if len(tasks) > 1:
                return [self._assemble([t], design, [x[i : i + 1] for x in factors])[0] for i, t in enumerate(tasks)]
            own, values = self._continued(tasks[0], design, factors[0][0])
            if 2 * (len(own.x) - len(design.x)) >= self._projections(tasks[0], design):
                return replace(self, projections=0)._assemble(tasks, own, [values[None]])
            design, factors = own, [values[None]]
        for index, x in enumerate(factors):
            subspaces = self._subspaces(tasks, index, design, x)
            for own, factor_map in zip(maps, self._embed(tasks, index, subspaces, x)):
                own.append(factor_map)
        for task, own in zip(tasks, maps):
            task.report.rank = max(m.rank for m in own)
            task.report.collocation = max(task.report.collocation, len(design.x))
        return maps

    def _subspaces(self, tasks: Sequence[Task], index: int, design: _Design, x: Tensor) -> list[_Subspace]:
        """Compress snapshots to the rank asked for, and continue their coefficients where that needs the residual."""
        first = tasks[0]
        projected = self._projections(first, design)
        rows = real_rows(x.flatten(0, 1)).view(*x.shape[:2], -1)
        asked = min(first.rank or len(design.x), rows.shape[2])
        width = min(2 * asked + 16 if projected else asked, len(design.x))
        Y, C, S = lowrank.pod(rows, design.weights.to(x.device), width)
        kept = (2 * torch.finfo(rows.dtype).eps * S[:, :1] < S).sum(dim=1).clamp_max(Y.shape[2])
        Y = Y.cpu()
        subspaces = []
        for g, (task, numerical) in enumerate(zip(tasks, kept.clamp_min(1).tolist())):
            subspace = _Subspace(design, Y[g, :, :numerical], C[g, :numerical], _energy(S[g, numerical:]))
            if projected:
                subspace = _truncate(self._project(task, index, subspace, projected), asked)
            if first.rank is not None and len(subspace.C) < asked:
                why = (
                    "the snapshots"
                    if numerical >= len(design.x)
                    else "those above rounding among the snapshots' directions"
                )
                of = f" of {task.problem.factors[index].name}" if len(task.problem.factors) > 1 else ""
                task.note(f"rank{of} {len(subspace.C)} instead of {asked}: {why} are no more")
            subspaces.append(subspace)
        return subspaces

    def _projections(self, task: Task, design: _Design) -> int:
        """Return the number of parameters at which coefficients come from the residual; 0 where they do not."""
        if not isinstance(task.problem.operation, LinearOperation) or self.projections == 0:
            return 0
        if self.projections is not None:
            return self.projections
        interpolates = design.space is not None and task.problem.family.dimension == 1
        return 0 if interpolates or len(design.x) == 1 else _projections(len(design.x))

    def _iterates(self, task: Task, design: _Design) -> bool:
        """Whether values at further parameters come from Newton's iteration, which then takes fewer operations."""
        operation, n = task.problem.operation, task.problem.family.shape[1]
        if not self._projections(task, design) or type(operation).improved is Operation.improved:
            return False
        terms = min(2 * (task.rank or len(design.x)) + 16, len(design.x))
        sketch = -(-2 * terms // n) + 1
        return _NEWTON_COST * n**3 < 2 * n * n * terms * sketch + 4 * terms**3

    def _continued(self, task: Task, design: _Design, factor: Tensor) -> tuple[_Design, Tensor]:
        """Add the results of Newton's iteration at further parameters to the snapshots (N, *shape)."""
        operation, family = task.problem.operation, task.problem.family
        count = self._projections(task, design)
        x, weights = sampling.design(count, family.dimension, task.report.seed + 1)
        p = task.box(x)
        x = task.place(p)
        aside = replace(task, rank=None, report=replace(task.report))
        try:
            (first,) = replace(self, embedding=None, refine=0, projections=0)._assemble(
                [aside], design, [factor[None]]
            )[0]
            X = factor.new_empty((count, *factor.shape[1:]))
            solved = torch.zeros(count, dtype=torch.bool)
            rows = max(1, _PROJECTION_BYTES // (factor[0].numel() * factor.element_size()))
            for sweep in range(1 + _NEWTON_SWEEPS):
                left = torch.nonzero(~solved)[:, 0]
                if sweep:  # continuation from the nearest solution
                    places = torch.cat([design.x, x[solved]])
                    nearest = torch.from_numpy(cKDTree(places.numpy()).query(x[left].numpy())[1])
                    starts = torch.cat([factor, X[solved]])
                for piece in torch.arange(len(left)).split(rows):
                    where = left[piece]
                    guess = starts[nearest[piece]] if sweep else first(task.cube(p[where]))
                    X[where], residual = _newton(operation, family(p[where]), guess)
                    solved[where] = (residual < _NEWTON_SOLVED).cpu()
                if solved.all() or not solved.any():
                    break
        except FamilyError as error:
            task.note(f"no values from the residual: {error}")
            return design, factor
        task.report.collocation = max(task.report.collocation, count)
        if not solved.all():
            task.note(f"Newton's iteration fails at {int((~solved).sum())} of {count} parameters")
        if not solved.any():
            return design, factor
        weights = torch.cat([len(design.x) * design.weights, count * weights[solved]])
        return (
            _Design(torch.cat([design.x, x[solved]]), weights / weights.sum(), None),
            torch.cat([factor, X[solved]]),
        )

    def _project(self, task: Task, index: int, subspace: _Subspace, count: int) -> _Subspace:
        """Replace the coefficients at the snapshots by those of least residual at ``count`` parameters.

        The least residual is not the least error: of matrices that are nearly singular it can be far from it. So the
        same is done at the snapshots, where the coefficients are known, and the replacement is kept only where it comes
        nearer to them than polynomials do to those they were not fitted to. (With no more snapshots than matrices, as
        by default, every snapshot lies in their span: then only rounding that was amplified is seen.)
        """
        design, norms = subspace.design, _lengths(subspace.C).cpu()
        x, weights = sampling.design(count, task.problem.family.dimension, task.report.seed + 1)
        p = task.box(x)
        try:
            c = _least_residual(task, index, subspace.C, torch.cat([task.box(design.x), p]))
        except FamilyError as error:
            task.note(f"no coefficients from the residual: {error}")
            return subspace
        good = torch.isfinite(c).all(dim=1)
        task.report.collocation = max(task.report.collocation, count)
        known, new = good.split([len(design.x), count])
        if not new.all():
            task.note(f"the residual determines no coefficients at {int((~new).sum())} of {count} parameters")
        if 2 * int(new.sum()) < count or not known.any():
            return subspace
        c, at_snapshots = c[len(design.x) :], c[: len(design.x)][known]
        squares = ((at_snapshots - subspace.Y[known]) * norms).square().sum(dim=1)
        error = float(design.weights[known] @ squares / design.weights[known].sum())
        penalty = _ROUNDING_UNITS * torch.finfo(subspace.C.dtype).eps
        _, predicted = _chosen(design, subspace.Y * norms, 0.0, penalty)
        if error > predicted:
            size = float(design.weights @ (subspace.Y * norms).square().sum(dim=1))
            task.note(
                f"coefficients interpolated: those of least residual are off by {math.sqrt(error / size):.1g} at the "
                "snapshots"
            )
            return subspace
        further = _Design(task.place(p)[new], weights[new] / weights[new].sum(), None)
        return subspace._replace(design=further, Y=c[new])

    def _embed(self, tasks: Sequence[Task], index: int, subspaces: list[_Subspace], x: Tensor) -> list[FactorMap]:
        """Fit the embedding's last layer to all coefficients at once: the features are the same for all tasks."""
        first, like = tasks[0], x
        family, name = first.problem.family, first.problem.factors[index].name
        dtype = checks.real_dtype(family.dtype)
        design = subspaces[0].design
        if any(s.design is not design for s in subspaces):  # each has its own points, and chooses its own polynomials
            return [m for task, s in zip(tasks, subspaces) for m in self._embed([task], index, [s], like)]
        Y = torch.cat([s.Y for s in subspaces], dim=1)
        penalty = _ROUNDING_UNITS * torch.finfo(dtype).eps
        norms = torch.cat([_lengths(s.C).cpu() for s in subspaces])
        tail = sum(s.tail for s in subspaces)
        if design.space is None and (self.embedding is None or self.embedding.count(family.dimension) >= len(design.x)):
            # Too few values for the caller's embedding: it is fitted to polynomials through them.
            design = design._replace(space=_chosen(design, Y * norms, tail, penalty)[0])
        embedding = self.embedding or design.space
        if design.space is not None and embedding != design.space:
            dense = max(_DENSE, _DENSE_PER_FEATURE * embedding.count(family.dimension))
            x, weights = sampling.design(dense, family.dimension, first.report.seed)
            W, b = lowrank.ridge(design.space.features(design.x, {}), Y, design.weights, penalty)
            design, Y = _Design(x, weights, None), design.space.features(x, {}) @ W + b
        # The features are fitted as they will be evaluated, with weights rounded to the precision of the surrogate.
        hidden = embedding.hidden(family.dimension, torch.Generator().manual_seed(first.report.seed))
        if self.refine and hidden and embedding.trainable is None:
            scaled = Y * (norms / norms.norm())
            hidden = lowrank.refine(embedding.features, hidden, design.x, scaled, design.weights, penalty, self.refine)
        hidden = {name: w.to(dtype) for name, w in hidden.items()}
        psi = embedding.features(design.x, {name: w.double() for name, w in hidden.items()})
        W, b = lowrank.ridge(psi, Y, design.weights, penalty)
        hidden = {name: w.to(family.device) for name, w in hidden.items()}
        W, b = W.T.contiguous().to(family.device, dtype), b.to(family.device, dtype)
        maps, column = [], 0
        for s in subspaces:
            columns = slice(column, column := column + len(s.C))
            shape = (len(s.C), *like.shape[2:])
            core = torch.view_as_complex(s.C.reshape(*shape, 2)) if like.is_complex() else s.C.reshape(shape)
            last = {"weight_out": W[columns].clone(), "bias_out": b[columns].clone()}
            maps.append(FactorMap(name, core, embedding, hidden | last))
        return maps

    def _check(self, tasks: Sequence[Task], fitted: Sequence[list[FactorMap]]) -> None:
        """Report the residuals at a few random parameters."""
        operation = tasks[0].problem.operation
        count = min(self.check, tasks[0].left()) if operation.residual_solves else self.check
        if count == 0:
            return
        probed, A = [], []
        for task, maps in zip(tasks, fitted):
            family = task.problem.family
            p = family.box.uniform(count, task.generator)
            try:
                A.append(family(p).clone())  # a family may give the same memory again
                probed.append((task, maps, p))
            except FamilyError as error:
                task.note(f"the residual could not be checked: {error}")
        if not probed:
            return
        values = [evaluate(operation, task.problem.family.shape, maps, task.cube(p)) for task, maps, p in probed]
        factors = [torch.cat(column) for column in zip(*values)]
        residuals = operation.residual(torch.cat(A), factors).view(len(probed), -1)
        for (task, _, p), own in zip(probed, residuals):
            report = task.report
            report.residual_evaluations += count
            report.exact_solves += count if operation.residual_solves else 0
            worst = p[own.argmax()].tolist()
            entry = Round(0, math.nan, math.nan, float(own.median()), float(own.max()), worst=worst)
            entry.exact_solves, entry.rank = report.exact_solves, report.rank
            report.rounds.append(entry)

    def _adapt(self, task: Task) -> list[FactorMap]:
        """Grow snapshots, projections and embedding until the tolerance is met, then lower the rank."""
        report, free = task.report, replace(task, rank=None)
        operation, dimension = task.problem.operation, task.problem.family.dimension
        linear, solving = isinstance(operation, LinearOperation), task.budget != 0
        if solving:
            design = self._first_design(task, 8 * 2**dimension)
            factors, good = _solve([task], design.x)
            design, factors = _rounded(task, design), [x[0] for x in factors]
            kept = _distinct([task], design.x, good[0].cpu())
            if not kept.all():
                design, factors = _scattered(design.x[kept]), [x[kept.to(x.device)] for x in factors]
            self._warn(task, design, factors)
        size = len(design.x) if solving else 16
        projections = _projections(size) if self.projections is None else self.projections
        maps: list[FactorMap] = []
        best, failure = None, ""
        progress, idle, converged = math.inf, 0, True
        with tqdm(disable=not task.progress, delay=2, unit="round", desc="closed form") as bar:
            while True:
                if solving and len(design.x) == 0:
                    return _zero(task)
                method = replace(self, projections=projections if linear and solving else 0)
                try:
                    if not solving:
                        design = _collocation(size, task)
                        values, converged = _collocated(task, design)
                        factors = [values]
                    maps = method._assemble([free], design, [x[None] for x in factors])[0]
                    estimate = self.estimate(task, maps, task.tol)
                    bar.update()
                    bar.set_postfix_str(f"{report.exact_solves} exact solves, failing {estimate.probability:.2g}")
                    # Progress is either fewer failures or smaller residuals.
                    measure = estimate.probability * float(estimate.residuals.median())
                    if best is None or measure < best[0]:
                        best = measure, maps, report.rounds[-1], report.events, report.message
                    if estimate.probability <= self.failure_probability:
                        return self._lowered(task, maps, estimate)
                    progress, idle = (measure, 0) if measure < 0.8 * progress else (progress, idle + 1)
                    if idle == _MOST_IDLE or not converged:
                        report.stop_reason, failure = StopReason.STALLED, "" if converged else _NOT_CONVERGED
                        break
                    # The failures that the subspace cannot mend call for snapshots, the others for a better embedding.
                    new = estimate.failures[torch.randperm(len(estimate.failures), generator=task.generator)[:256]]
                    if solving:
                        new = self._beyond(task, maps, new) if linear else new
                        new = new[: len(design.x)]
                        if len(new) and task.left() < 1:
                            report.stop_reason = StopReason.BUDGET
                            break
                        if len(new) and task.budget is None and len(design.x) + len(new) > _MOST_SNAPSHOTS:
                            report.stop_reason = StopReason.STALLED
                            break
                        if len(new):
                            new = new[: task.left()]
                            report.rounds[-1].added = new.tolist()
                            more, good = task.solve(new, aligned=True)
                            factors = [torch.cat(pair) for pair in zip(factors, more)]
                            x = torch.cat([design.x, task.place(new[good])])
                            kept = _distinct([task], x, torch.ones(len(x), dtype=torch.bool))
                            design, factors = _scattered(x[kept]), [y[kept.to(y.device)] for y in factors]
                            projections = max(projections, _projections(len(design.x))) if projections else 0
                            continue
                        projections *= 2
                    size *= 2
                    if projections > _MOST_PROJECTIONS or size > _MOST_COLLOCATION:
                        report.stop_reason = StopReason.STALLED
                        break
                except FamilyError as error:
                    if not maps:
                        raise
                    report.stop_reason, failure = StopReason.FAMILY, str(error)
                    break
        if best is not None and maps is not best[1]:
            _, maps, entry, report.events, report.message = best
            report.rank = entry.rank
            task.note(
                f"the map of round {1 + report.rounds.index(entry)} of {len(report.rounds)} is returned, the best"
            )
            report.rounds.append(replace(entry, added=[], exact_solves=report.exact_solves))
        if failure:
            task.note(failure)
        if task.rank is not None and task.rank < max(m.rank for m in maps):
            maps = [_first(m, task.rank) for m in maps]
            report.rank = task.rank
            with suppress(FamilyError):
                self.estimate(task, maps, task.tol)
        return maps

    def _warn(self, task: Task, design: _Design, factors: Sequence[Tensor]) -> None:
        """Report a tolerance that the exact solutions themselves miss, for their rounding."""
        operation, family = task.problem.operation, task.problem.family
        if operation.residual_solves or len(design.x) == 0:
            return
        with suppress(FamilyError):
            residuals = operation.residual(family(task.box(design.x)), factors)
            if float((residuals > task.tol).double().mean()) > self.failure_probability:
                task.note(
                    f"the tolerance is below the residuals of exact solutions in {family.dtype}, up to "
                    f"{float(residuals.max()):.1g}"
                )

    def _beyond(self, task: Task, maps: list[FactorMap], p: Tensor) -> Tensor:
        """Choose those parameters whose residual no combination of the map's matrices makes small.

        Many failing parameters call for the same new direction, so they are taken in the order of a QR factorisation
        with pivoting of their residuals, until what is left is below half the tolerance.
        """
        if len(p) == 0:
            return p
        core = maps[0].core
        c = _least_residual(task, 0, real_rows(core), p).to(core.device, checks.real_dtype(core.dtype))
        operation = task.problem.operation
        X = operation.unknown((c.to(core.dtype) @ core.flatten(1)).view(len(p), *core.shape[1:]))
        L, F = operation.system(task.problem.family(p))
        defects = ((L @ X - F) / torch.linalg.matrix_norm(F)[:, None, None]).flatten(1)
        good = torch.isfinite(defects).all(dim=1)
        if not good.all():  # the subspace says nothing there
            return p[~good]
        R, pivots = qr(real_rows(defects.contiguous()).double().cpu().numpy().T, mode="r", pivoting=True)
        wanted = pivots[: len(R)][np.abs(np.diagonal(R)) > task.tol / 2]
        return p[torch.from_numpy(wanted).long().to(p.device)]

    def _lowered(self, task: Task, maps: list[FactorMap], estimate: FailureEstimate) -> list[FactorMap]:
        """Lower the rank as far as the tolerance allows, or to the one asked for."""
        report, top = task.report, max(m.rank for m in maps)
        p, operation = estimate.candidates, task.problem.operation
        A, x = task.problem.family(p), task.cube(p)

        def cut(rank: int) -> list[FactorMap]:
            return [_first(m, rank) for m in maps]

        def failing(rank: int) -> float:
            residuals = operation.residual(A, evaluate(operation, task.problem.family.shape, cut(rank), x))
            report.exact_solves += len(A) if operation.residual_solves else 0
            return float((~(residuals <= task.tol)).double().mean())

        enough = 1 + bisect_left(range(1, top), True, key=lambda rank: failing(rank) <= self.failure_probability)
        rank = enough if task.rank is None else min(task.rank, top)
        while True:
            lowered = cut(rank)
            final = self.estimate(task, lowered, task.tol)
            met = final.probability <= self.failure_probability
            if met or rank == top or task.rank is not None:
                break
            rank = min(top, rank + 1 + rank // 16)
        report.rank = max(m.rank for m in lowered)
        if task.rank is not None and report.rank < task.rank:
            task.note(f"rank {report.rank} instead of {task.rank}: the snapshots taken have no more directions")
        if met:
            report.stop_reason = StopReason.TOLERANCE
        elif task.rank is None:
            report.stop_reason = StopReason.STALLED
            task.note("the estimate was under the target, but another of the same map is not")
        else:
            report.stop_reason = StopReason.SMALL
            task.note(f"about {enough} would do")
        return lowered


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


def _snapshots(rank: int) -> int:
    return 2 * rank + 16


def _scattered(x: Tensor) -> _Design:
    return _Design(x, torch.full((len(x),), 1 / max(1, len(x)), dtype=torch.float64), None)


def _projections(snapshots: int) -> int:
    """Return the default number of parameters for step 3: more than 4,096 cost more than they gain."""
    return min(8 * snapshots, max(4096, 2 * snapshots))


def _interpolating(count: int, dimension: int, kind: str, dtype: torch.dtype) -> Chebyshev | None:
    """Return the polynomials that interpolate at the points of `sampling.design`, if there are any."""
    if dimension == 1:
        accuracy = _ROUNDING_UNITS * torch.finfo(dtype).eps
        return Chebyshev(max(1, count - 1), stretch=sampling.widest_stretch(count, accuracy))
    if kind == "tensor" and (side := sampling.tensor_side(count, dimension)) > 1:
        return Chebyshev(side - 1, "tensor")
    if kind == "sparse" and (level := sampling.sparse_level(count, dimension)) > 0:
        return Chebyshev(2**level, "smolyak")
    return None


def _distinct(tasks: Sequence[Task], x: Tensor, good: Tensor) -> Tensor:
    """Return the mask of the snapshots that succeeded, each parameter once, and report those that coincide."""
    _, which = torch.unique(x, dim=0, return_inverse=True)
    kept, seen = good.clone(), set()
    for i in torch.nonzero(good)[:, 0].tolist():
        kept[i] = (point := int(which[i])) not in seen
        seen.add(point)
    if (repeated := int(good.sum() - kept.sum())) > 0:
        for task in tasks:
            task.note(
                f"{repeated} of {len(x)} snapshots coincide with others in the precision of the box, "
                f"{tasks[0].problem.family.lower.dtype}; give it in double precision"
            )
    return kept


def _solve(tasks: Sequence[Task], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Solve exactly for all tasks in one batch: factors (G, N, *shape), and the mask of successes (G, N)."""
    points = [task.box(x) for task in tasks]
    A = torch.cat([task.problem.family(p).clone() for task, p in zip(tasks, points)])
    factors, failed = checked(tasks[0].problem.operation.snapshots, A)
    good = ~failed.view(len(tasks), -1)
    for task, p, own in zip(tasks, points, good):
        task.count(p, own)
    if len(tasks) > 1:  # where the operation suits none of a task's matrices, its own error says why
        for own in torch.nonzero(~good.any(dim=1))[:, 0].tolist():
            checked(tasks[own].problem.operation.snapshots, A.view(len(tasks), len(x), *A.shape[1:])[own])
    return [f.view(*good.shape, *f.shape[1:]) for f in factors], good


def _aligned(task: Task, design: _Design, factors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Choose the gauge of snapshots (N, *shape), and report what was met on the way."""
    operation, report = task.problem.operation, task.report
    aligned, events = operation.align(design.x, factors)
    places = [torch.tensor([e.parameter], dtype=torch.float64) for e in events]
    report.events = [replace(e, parameter=task.box(x)[0].tolist()) for e, x in zip(events, places)]
    return tuple(x.resolve_conj().contiguous() for x in aligned)


def _alike(tasks: Sequence[Task], good: Tensor) -> list[list[int]]:
    """Group tasks whose successful snapshots are at the same points of the cube, after rounding in their boxes."""
    groups: dict[tuple, list[int]] = {}
    for i, (task, mask) in enumerate(zip(tasks, good.tolist())):
        family = task.problem.family
        box = () if family.lower.dtype == torch.float64 else (*family.lower.tolist(), *family.upper.tolist())
        groups.setdefault((box, *mask), []).append(i)
    return list(groups.values())


def _rounded(task: Task, design: _Design) -> _Design:
    """Move the points of a design to where its parameters are after rounding to the precision of the box."""
    return design._replace(x=task.place(task.box(design.x)))


def _collocation(terms: int, task: Task) -> _Design:
    """Choose some ``terms`` polynomials, and half as many collocation points again."""
    dimension = task.problem.family.dimension
    space = _largest(terms - 1, dimension)
    x, weights = sampling.design(3 * (space.count(dimension) + 1) // 2 + 1, dimension, task.report.seed)
    return _rounded(task, _Design(x, weights, space))


def _collocated(task: Task, design: _Design) -> tuple[Tensor, bool]:
    """Values, at the collocation points, of the polynomial map of least residual, and whether they had converged."""
    family = task.problem.family
    L, F = task.problem.operation.system(family(task.box(design.x)))
    psi = design.space.features(design.x, {})
    Q, _ = torch.linalg.qr(torch.cat([torch.ones_like(psi[:, :1]), psi], dim=1))
    dtype = checks.real_dtype(family.dtype)
    tolerance = _COLLOCATION_UNITS * torch.finfo(dtype).eps
    most = _COLLOCATION_STEPS if task.tol is None else _COLLOCATION_STEPS_PER_ROUND
    X, steps = lowrank.collocate(L, F, Q.to(family.device, dtype), tolerance, most)
    X = X if tuple(X.shape[1:]) == task.problem.factors[0].shape else X.mH.resolve_conj().contiguous()
    converged = steps < most
    if not converged:
        task.note(_NOT_CONVERGED)
    return X, converged


def _largest(terms: int, dimension: int) -> Chebyshev:
    """Return the Chebyshev polynomials of the largest total degree that are at most ``terms``, and at least one."""
    degree = 1
    while degree < terms and math.comb(degree + 1 + dimension, dimension) - 1 <= terms:
        degree += 1
    return Chebyshev(degree)


def _chosen(design: _Design, Y: Tensor, tail: float, penalty: float) -> tuple[Chebyshev, float]:
    r"""Choose the polynomials that predict left-out values best, the fewest of those that are nearly as good.

    All degrees are judged at the price of the largest, since the polynomials are ordered by their degree: the leading
    columns of an orthogonal basis Q of all serve the smaller ones. The error at a point that was left out is its
    residual over 1 - h_i, h_i the squared norm of row i of Q (Allen, Technometrics 16, 1974). Errors far below what the
    rank leaves out anyway (``tail``) are not worth more polynomials. Less stretch is tried as long as it is better.
    Also return the mean squared error expected of those chosen, with the tail.
    """
    count, dimension = design.x.shape
    largest = _largest(min(count // 2, _MOST_FEATURES), dimension)
    root = design.weights.sqrt()[:, None]
    if Y.shape[1] > _JUDGED:
        generator = torch.Generator().manual_seed(0)
        Y = Y @ (torch.randn((Y.shape[1], _JUDGED), dtype=Y.dtype, generator=generator) / math.sqrt(_JUDGED))
    rounding, errors, best = torch.finfo(Y.dtype).eps, {(1, 0.0): math.inf}, math.inf
    for stretch in _STRETCHES:
        psi = root * torch.nn.functional.pad(replace(largest, stretch=stretch).features(design.x, {}), (1, 0), value=1)
        gram = psi.T @ psi
        gram.diagonal()[1:] += penalty**2
        L, dependent = torch.linalg.cholesky_ex(gram)
        independent = int(dependent) - 1 if dependent else len(L)
        L = L[:independent, :independent]
        Q = torch.linalg.solve_triangular(L, psi[:, :independent].T, upper=False).T
        left, kept, R = 0, torch.zeros(count, dtype=Y.dtype), root * Y
        coefficients = Q.T @ R
        for degree in range(largest.degree + 1):
            right = math.comb(degree + dimension, dimension)
            if right > independent:
                break
            R = R - Q[:, left:right] @ coefficients[left:right]
            kept += Q[:, left:right].square().sum(dim=1)
            left = right
            if degree:
                # What the others say nothing about is predicted as zero.
                free = (1 - kept > math.sqrt(rounding))[:, None]
                left_out = torch.where(free, R / (1 - kept).clamp_min(rounding)[:, None], root * Y)
                errors[degree, stretch] = tail + float(left_out.square().sum())
        last, best = best, min(errors.values())
        if best == last:
            break
    enough = 1.44 * best
    degree, error, stretch = min((key[0], error, key[1]) for key, error in errors.items() if error <= enough)
    return Chebyshev(degree, stretch=stretch), error


def _newton(operation: Operation, A: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's iteration on the matrices that gain from it: the results, and their residuals.

    In double precision: Gram matrices are no better than the precision they are formed in.
    """
    dtype, solved = X.dtype, 16 * A.shape[-1] * torch.finfo(A.dtype).eps
    A, X = wide(A), wide(X)
    residual = operation.residual(A, [X])
    active = residual < 1
    for _ in range(_NEWTON_STEPS):
        rows = torch.nonzero(active)[:, 0]
        if len(rows) == 0:
            break
        (better,) = operation.improved(A[rows], [X[rows]])
        new = operation.residual(A[rows], [better])
        gained = new < residual[rows]
        X[rows[gained]], residual[rows[gained]] = better[gained], new[gained]  # a failing step is not taken
        active[rows] = gained & (new > solved)
    return X.to(dtype), residual


def _least_residual(task: Task, index: int, C: Tensor, p: Tensor) -> Tensor:
    """Coefficients of least sketched residual in the matrices C (R, real numbers) at p: shape (B, R), on the CPU."""
    problem = task.problem
    shape = problem.factors[index].shape
    is_complex = problem.family.dtype.is_complex
    basis = torch.view_as_complex(C.reshape(len(C), *shape, 2)) if is_complex else C.view(-1, *shape)
    basis = problem.operation.unknown(basis).resolve_conj()
    c = []
    # A sketch of twice as many real equations as unknowns; drawn anew for every batch of parameters.
    L, F = problem.operation.system(problem.family(p[:1]))
    numbers = L.shape[1] * (2 if L.is_complex() else 1)
    columns = min(F.shape[2], -(-2 * len(C) // numbers) + 1)
    rows = max(1, _PROJECTION_BYTES // (columns * numbers * len(C) * 8))
    scale = _lengths(C)
    # In double precision, as small defects of ill-conditioned systems ask for.
    basis = wide(basis) / scale[:, None, None]
    for piece in p.split(rows):
        L, F = problem.operation.system(wide(problem.family(piece)))
        sketch = torch.randn((F.shape[2], columns), dtype=torch.float64, generator=task.generator)
        c.append(lowrank.project(L, F, basis, sketch.to(scale.device)) / scale)
    return torch.cat(c).cpu()


def _truncate(subspace: _Subspace, rank: int) -> _Subspace:
    """Return the best subspace of the rank within this one, over the parameters of its design."""
    norms = _lengths(subspace.C).cpu()
    rank = min(rank, len(norms), len(subspace.Y))
    Y, T, S = lowrank.pod((subspace.Y * norms)[None], subspace.design.weights, rank)
    tail = subspace.tail + _energy(S[0, rank:])
    return _Subspace(subspace.design, Y[0], (T[0] / norms).to(subspace.C) @ subspace.C, tail)


def _energy(values: Tensor) -> float:
    return float(values.square().sum())


def _lengths(C: Tensor) -> Tensor:
    """Norms of rows, float64; 1 for those that are zero, as where X(p) = 0."""
    norms = C.double().norm(dim=1)
    return torch.where(norms > 0, norms, 1)


def _first(m: FactorMap, rank: int) -> FactorMap:
    """Keep the leading terms of a map, whose terms are ordered."""
    output = {name: m.weights[name][:rank].clone() for name in ("weight_out", "bias_out")}
    return m.with_(core=m.core[:rank].clone(), weights=m.weights | output)


def _zero(task: Task) -> list[FactorMap]:
    """Return the zero map: nothing could be solved."""
    task.report.stop_reason, task.report.rank = StopReason.SINGULAR, 1
    family, maps = task.problem.family, []
    embedding = Chebyshev(1)
    for factor in task.problem.factors:
        dtype = factor.dtype(family.dtype)
        weights = embedding.initialise(family.dimension, 1, task.generator)
        real = {name: w.to(family.device, checks.real_dtype(dtype)) for name, w in weights.items()}
        maps.append(
            FactorMap(factor.name, torch.zeros((1, *factor.shape), dtype=dtype, device=family.device), embedding, real)
        )
    return maps
