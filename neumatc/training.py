"""Gradient training: the paper's way, on the algebraic residual with failure-informed adaptive sampling."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from neumatc import checks, sampling
from neumatc.embeddings import Embedding, SinusoidalMLP
from neumatc.failure import FailureEstimate
from neumatc.families import FamilyError
from neumatc.methods import Method, Task, check_embedding, real_numbers
from neumatc.model import FactorMap
from neumatc.report import StopReason

# Residual that counts as failure where the caller gives no tolerance.
_TOLERANCE = 1e-2
# A fit that leaves a relative residual above this somewhere looks there for singular matrices.
_LARGE_RESIDUAL = 0.1
# So many of the worst parameters are solved there: enough to tell, and few beside a fit.
_LOOKS = 8
# Losses that a report keeps: enough for a curve.
_LOSSES = 500
# What Adam adds to the root of the mean squared gradient.
_ADAM_EPS = 1e-8


@dataclass(frozen=True)
class ResidualTraining(Method):
    r"""Unsupervised gradient training on the algebraic residual, as the paper proposes; the details are our reading.

    Minimises the mean over collocation points p_i of the operation's loss (for the inverse
    :math:`\|A(p_i) X(p_i) - I\|_F^2 / n`) over the latent tensors and the embeddings' weights, by Adam on minibatches.
    Training goes in rounds: after each, the probability that the residual exceeds the fit's ``tol`` (default 1e-2) is
    estimated on fresh candidates; when it is above ``failure_probability``, failing points join the collocation points.
    Training needs no exact solve; a fit that ends with residuals above 0.1 solves exactly at up to eight of the worst
    candidates, as far as the budget allows, to tell singular matrices.

    The fit can begin from another surrogate (``start``). The least residual is not the least error: from a start that
    is good already, training on the residual lowers it and raises the error. So ``goal="error"`` trains on the relative
    error against a Newton step from the start (``operation.improved``; for the inverse X (2 I - A X)), taken once at
    every collocation point: the step has about the square of the start's error, and needs no exact solve. In both cases
    the start counts as round zero, and of all rounds the map that is best by the goal is returned (its median residual,
    or its error against the step, at parameters not trained on).

    Args:
        embedding: Phi, one per factor; a fit that begins from a surrogate keeps that surrogate's.
        steps: Adam steps, all rounds together; with fewer steps than rounds, each step is a round.
        batch: Collocation points per step.
        learning_rate: Of the first step; for the latent tensors relative to the size that `Operation.scales` expects of
            their factors.
        schedule: ``"cosine"``: the learning rate falls to zero along half a cosine over ``steps``; ``"constant"``.
        collocation: Initial points, a scrambled Sobol sequence, at least the rank.
        rounds: Rounds of training, at least 1; between them points are added.
        added: Most points added after a round.
        goal: ``"residual"``, or ``"error"`` for a start with residuals below 0.1. Default: the latter where it is
            possible.
        failure_probability, sampling: As for every `Method`; training ends early when the tolerance is met.

    Limits: the matrices A(p_i) of all collocation points are kept in memory. The failure probability is an estimate.
    """

    embedding: Embedding = field(default_factory=SinusoidalMLP)
    steps: int = 5000
    batch: int = 128
    learning_rate: float = 1e-2
    schedule: str = "cosine"
    collocation: int = 256
    rounds: int = 5
    added: int = 64
    goal: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_embedding(self.embedding)
        for name in ("steps", "batch", "collocation", "rounds"):
            checks.integer(name, getattr(self, name), 1)
        checks.integer("added", self.added, 0)
        checks.number("learning_rate", self.learning_rate, above=0)
        checks.choice("schedule", self.schedule, ("cosine", "constant"))
        if self.goal is not None:
            checks.choice("goal", self.goal, ("residual", "error"))

    def run(self, task: Task) -> list[FactorMap]:
        # The first optimiser of a process imports this: seconds that are no part of a fit.
        importlib.import_module("torch._dynamo")
        family, operation, report = task.problem.family, task.problem.operation, task.report
        report.rank = rank = self._checked_rank(task)
        points = sampling.sobol(self.collocation, family.lower, family.upper, report.seed)
        A = family(points).clone()  # kept, while the family may write its next matrices into the same memory
        x = task.cube(points)
        report.collocation = len(x)
        scales = operation.scales(A)
        start = task.start and task.start.maps
        maps = _detached(start) if start else _initial_maps(task, self.embedding, rank, scales)
        try:
            goal = self._goal(task, maps, x, A)
        except FamilyError as error:
            report.stop_reason, report.message = StopReason.FAMILY, str(error)
            return maps
        training = _Training(self, task, goal, maps, scales, x, A)
        ends = sorted({-(-self.steps * i // self.rounds) for i in range(1, self.rounds + 1)})
        with tqdm(total=self.steps, disable=not task.progress, delay=2, unit="step", desc="residual training") as bar:
            for end in ends:
                if training.round(end, bar):
                    break
        return training.good

    def _checked_rank(self, task: Task) -> int:
        """Return the rank, after everything that a task can ask of training too much."""
        problem = task.problem
        rank = task.rank if task.start is None else task.start.rank
        if rank is None:
            raise ValueError(
                "`rank`: expected an integer for nm.ResidualTraining, which cannot choose it, got None; give one"
                ", or take nm.ClosedForm()."
            )
        shapes = [factor.shape for factor in problem.factors]
        if task.start is not None and (held := [tuple(m.core.shape[1:]) for m in task.start.maps]) != shapes:
            raise ValueError(
                f"`start`: expected maps of the shapes {shapes}, got {held}, which follow more vectors than asked for, "
                "or a block; training cannot: leave it out."
            )
        if self.collocation < rank:
            raise ValueError(
                f"`collocation`: expected at least `rank` = {rank} points, got {self.collocation}; fewer cannot "
                "determine the latent tensor. Give more points or a smaller rank."
            )
        if problem.operation.residual_solves and task.budget is not None:
            raise ValueError(
                f"`budget`: expected None for {problem.operation}, whose residual takes an exact solve at every point "
                f"of every step, got {task.budget}; take nm.ClosedForm(), or leave the budget out."
            )
        return rank

    def _goal(self, task: Task, maps: list[FactorMap], x: Tensor, A: Tensor) -> _Goal:
        """Choose what to minimise; a start is reported as round zero."""
        goal, why = self._goal_from_start(task, maps, x, A) if task.start else (_Goal(lambda maps: 0.0), "no start")
        if self.goal == "error" and goal.step is None:
            raise ValueError(
                f"`goal`: expected a start with residuals below {_LARGE_RESIDUAL} and an operation with a Newton step "
                f"for 'error', got {why}; take goal='residual'."
            )
        return goal

    def _goal_from_start(self, task: Task, maps: list[FactorMap], x: Tensor, A: Tensor) -> tuple[_Goal, str]:
        """Return the error against a Newton step where that can be, else the residual and why the error cannot be."""
        operation = task.problem.operation
        first = self.estimate(task, maps, _tolerance(task))
        near = task.measure(A, [m(x) for m in maps])
        largest, p = max(float(first.residuals.max()), float(near.max())), first.candidates

        def median(maps: list[FactorMap]) -> float:
            return float(task.residual(maps, p).median())

        if not operation.newton:
            return _Goal(median), f"{operation}, which has no Newton step"
        if self.goal == "residual" or not largest < _LARGE_RESIDUAL:
            return _Goal(median), f"a start with residuals up to {largest:.1e}"

        def step(x: Tensor, A: Tensor) -> list[Tensor]:
            return list(operation.improved(A, [m(x) for m in task.start.maps]))

        y = task.cube(p)
        improved = step(y, task.problem.family(p))
        return _Goal(lambda maps: _relative_square([m(y) for m in maps], improved).item(), step), ""


@dataclass(frozen=True)
class _Goal:
    """What a fit makes small.

    Attributes:
        judge: Of maps, the less the better; at the same parameters for all rounds, so that none wins by an easier draw.
        step: The start's Newton step, (x, A) -> factors, where the error against it is the goal; None: the residual.
    """

    judge: Callable[[list[FactorMap]], float]
    step: Callable[[Tensor, Tensor], list[Tensor]] | None = None


class _Training:
    """A fit under way.

    Attributes:
        maps: As they are now.
        good: The best of all rounds by the goal, of the value ``best``.
        x, A: The collocation points on the cube, and the matrices there.
        targets: The factors to be learned there, or None.
        steps: Taken so far.
    """

    def __init__(
        self,
        method: ResidualTraining,
        task: Task,
        goal: _Goal,
        maps: list[FactorMap],
        scales: Sequence[float],
        x: Tensor,
        A: Tensor,
    ):
        self.method, self.task, self.goal, self.maps, self.x, self.A, self.steps = method, task, goal, maps, x, A, 0
        self.good, self.best = _detached(maps), goal.judge(maps)
        self.targets = goal.step and goal.step(x, A)
        self.leaves = [_leaf(m) for m in maps]
        # The latent tensors move as if their factors were of the size of unitary matrices: Adam with a rate of lr * u
        # and eps / u takes u times the steps that it takes for u times the gradient. So the unit of A does not matter.
        shapes = [factor.shape for factor in task.problem.factors]
        units = [u * shape[-1] ** 0.5 if len(shape) == 2 else u for u, shape in zip(scales, shapes)]
        rate = method.learning_rate
        groups = [
            {"params": [leaf], "lr": rate * u, "eps": _ADAM_EPS / u} for leaf, u in zip(self.leaves, units) if u > 0
        ]
        groups.append({"params": [weight for m in maps for weight in _trainable(m)]})
        self.optimiser = torch.optim.Adam(groups, lr=rate, eps=_ADAM_EPS, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser,
            lambda step: 0.5 * (1 + math.cos(math.pi * step / method.steps)) if method.schedule == "cosine" else 1.0,
        )

    def round(self, end: int, bar: tqdm) -> bool:
        """Train up to step ``end``, keep what became better, and add points where it fails. Return whether to stop."""
        if not self._descend(end, bar):
            return True
        try:
            return self._judged(bar)
        except FamilyError as error:
            report = self.task.report
            report.stop_reason, report.message = StopReason.FAMILY, str(error)
            if self.task.start is None and all(torch.isfinite(m(self.x)).all() for m in self.maps):
                self.good = _detached(self.maps)
            return True

    def _descend(self, end: int, bar: tqdm) -> bool:
        """Take steps up to ``end``. Return whether the loss stayed finite."""
        report, losses, every = self.task.report, [], max(1, self.method.steps // _LOSSES)
        while self.steps < end:
            losses.append(self._step())
            self.steps += 1
            bar.update()
            if self.steps % every == 0 or self.steps == end:
                report.steps.append(self.steps)
                report.losses.append(float(torch.stack(losses).mean()))
                losses.clear()
                if not math.isfinite(report.losses[-1]):
                    self._diverged()
                    return False
        return True

    def _step(self) -> Tensor:
        """Take one step on a batch of the collocation points. Return its loss."""
        operation, count = self.task.problem.operation, len(self.x)
        rows = torch.randint(count, (min(self.method.batch, count),), generator=self.task.generator).to(self.x.device)
        if operation.residual_solves:
            self.task.report.exact_solves += len(rows)
        with torch.enable_grad():
            factors = [_live(m, leaf)(self.x[rows]) for m, leaf in zip(self.maps, self.leaves)]
            if self.targets is None:
                loss = operation.loss(self.A[rows], factors).mean()
            else:
                loss = _relative_square(factors, [t[rows] for t in self.targets])
            self.optimiser.zero_grad()
            loss.backward()
        self.optimiser.step()
        self.schedule.step()
        return loss.detach()

    def _judged(self, bar: tqdm) -> bool:
        """Compare the maps with the best so far. Return whether to stop."""
        task, method = self.task, self.method
        estimate = method.estimate(task, self.maps, _tolerance(task), self.steps)
        if not torch.isfinite(estimate.residuals).all():  # the family is finite, so the map is not
            task.report.rounds.pop()
            self._diverged()
            return True
        value = self.goal.judge(self.maps)
        better = value <= self.best
        if better:
            self.good, self.best = _detached(self.maps), value
        bar.set_postfix_str(f"failure probability {estimate.probability:.2g}")
        if estimate.probability <= method.failure_probability and better:
            task.report.stop_reason = StopReason.TOLERANCE
            return True
        if self.steps == method.steps:
            _explain(task, estimate)
        else:
            self._add(estimate.failures)
        return False

    def _add(self, failures: Tensor) -> None:
        """Let some of the failing parameters join the collocation points."""
        task, step = self.task, self.goal.step
        order = torch.randperm(len(failures), generator=task.generator)[: self.method.added]
        new = failures[order.to(failures.device)]
        if step and len(new):  # where the start is poor, a Newton step from it is no goal
            new = new[task.residual(task.start.maps, new) < _LARGE_RESIDUAL]
        if len(new) == 0:
            return
        A, x = task.problem.family(new), task.cube(new)
        self.A, self.x = torch.cat([self.A, A]), torch.cat([self.x, x])
        if step:
            self.targets = [torch.cat(pair) for pair in zip(self.targets, step(x, A))]
        task.report.collocation = len(self.x)
        task.report.rounds[-1].added = new.tolist()

    def _diverged(self) -> None:
        report = self.task.report
        report.stop_reason = StopReason.DIVERGED
        state = "the state after the last good round" if report.rounds else "the untrained map"
        report.message = (
            f"at step {self.steps}, {state} is returned; try a smaller `learning_rate` than "
            f"{self.method.learning_rate:g}"
        )


def _tolerance(task: Task) -> float:
    return _TOLERANCE if task.tol is None else task.tol


def _explain(task: Task, estimate: FailureEstimate) -> None:
    """Solve exactly where residuals stayed large, to tell singular matrices from a poor fit."""
    worst = estimate.residuals.topk(min(_LOOKS, len(estimate.residuals)))
    large = worst.indices[worst.values > _LARGE_RESIDUAL][: max(0, task.left())]
    if len(large):
        task.solve(estimate.candidates[large.to(estimate.candidates.device)])


def _relative_square(factors: Sequence[Tensor], exact: Sequence[Tensor]) -> Tensor:
    """Squared relative Frobenius error of a whole batch, the mean over its factors."""
    return sum((x - y).abs().square().sum() / y.abs().square().sum() for x, y in zip(factors, exact)) / len(exact)


def _initial_maps(task: Task, embedding: Embedding, rank: int, scales: Sequence[float]) -> list[FactorMap]:
    problem, family, maps = task.problem, task.problem.family, []
    for i, (factor, scale) in enumerate(zip(problem.factors, scales)):
        r = min(rank, real_numbers(problem, i))
        dtype = factor.dtype(family.dtype)
        wide = torch.complex128 if dtype.is_complex else torch.float64
        core = torch.randn((r, *factor.shape), dtype=wide, generator=task.generator) * (scale / r**0.5)
        weights = embedding.initialise(family.dimension, r, task.generator)
        real = {name: w.to(family.device, checks.real_dtype(dtype)) for name, w in weights.items()}
        maps.append(FactorMap(factor.name, core.to(family.device, dtype), embedding, real))
    return maps


def _detached(maps: Sequence[FactorMap]) -> list[FactorMap]:
    return [
        m.with_(core=m.core.detach().clone(), weights={name: w.detach().clone() for name, w in m.weights.items()})
        for m in maps
    ]


def _leaf(m: FactorMap) -> Tensor:
    """Return a real leaf that shares the memory of the (possibly complex) core: the fused Adam takes no others."""
    return (torch.view_as_real(m.core) if m.core.is_complex() else m.core.detach()).requires_grad_()


def _live(m: FactorMap, leaf: Tensor) -> FactorMap:
    """Return the map with gradients to the leaf of its core."""
    return m.with_(core=torch.view_as_complex(leaf) if m.core.is_complex() else leaf)


def _trainable(m: FactorMap) -> list[Tensor]:
    """Return the weights that training moves, as leaves."""
    names = m.embedding.trainable
    return [weight.requires_grad_() for name, weight in m.weights.items() if names is None or name in names]
