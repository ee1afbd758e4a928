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
from neumatc.operations import Operation
from neumatc.report import Report, StopReason

# Residual that counts as failure where the caller gives no tolerance.
_TOLERANCE = 1e-2
# A fit that leaves a relative residual above this somewhere looks there for singular matrices.
_LARGE_RESIDUAL = 0.1
# What Adam adds to the root of the mean squared gradient.
_ADAM_EPS = 1e-8


@dataclass(frozen=True)
class ResidualTraining(Method):
    r"""Unsupervised gradient training on the algebraic residual, as the paper proposes; the details are our reading.

    Minimises the mean over collocation points p_i of the operation's loss (for the inverse
    :math:`\|A(p_i) X(p_i) - I\|_F^2 / n`) over the latent tensors and the embeddings' weights, by Adam on minibatches.
    Training goes in rounds: after each, the probability that the residual exceeds the fit's ``tol`` (default 1e-2) is
    estimated on fresh candidates; when it is above ``failure_probability``, failing points join the collocation points.
    Training needs no exact solve unless ``anchors`` are asked for; a fit that ends with residuals above 0.1 solves
    exactly at up to eight of the worst candidates, as far as the budget allows, to tell singular matrices.

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
        anchors: Parameters solved exactly and used in every step as a supervised term, relative Frobenius error
            squared of the operation's gauge-invariant matrix.
        anchor_weight: Weight of that term.
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
    anchors: int = 0
    anchor_weight: float = 1.0
    goal: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_embedding(self.embedding)
        for name in ("steps", "batch", "collocation", "rounds"):
            checks.integer(name, getattr(self, name), 1)
        checks.integer("added", self.added, 0)
        checks.integer("anchors", self.anchors, 0)
        for name in ("learning_rate", "anchor_weight"):
            checks.number(name, getattr(self, name), above=0)
        checks.choice("schedule", self.schedule, ("cosine", "constant"))
        if self.goal is not None:
            checks.choice("goal", self.goal, ("residual", "error"))

    def run(self, task: Task) -> list[FactorMap]:
        # The first optimiser of a process imports this: seconds that are no part of a fit.
        importlib.import_module("torch._dynamo")
        problem, report, generator = task.problem, task.report, task.generator
        rank = task.rank if task.start is None else task.start.rank
        if rank is None:
            raise ValueError(
                "`rank`: expected an integer for nm.ResidualTraining, which cannot choose it, got None; give one"
                ", or take nm.ClosedForm()."
            )
        report.rank = rank
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
        if self.anchors > task.left():
            raise ValueError(
                f"`anchors`: expected at most `budget` = {task.budget} exact solves, got {self.anchors}; lower it."
            )
        tol = _TOLERANCE if task.tol is None else task.tol
        family, operation = problem.family, problem.operation
        points = sampling.sobol(self.collocation, family.lower, family.upper, report.seed)
        A = family(points).clone()  # kept, while the family may write its next matrices into the same memory
        report.collocation = self.collocation
        anchor_x, anchor_exact = self._solve_anchors(task)
        scales = operation.scales(A)
        maps = self._initial_maps(task, rank, scales) if task.start is None else _detached(task.start.maps)
        x, good = task.cube(points), _detached(maps)
        try:
            step_from_start, judge = self._round_zero(task, maps, x, A, tol)
        except FamilyError as error:
            report.stop_reason, report.message = StopReason.FAMILY, str(error)
            return good
        targets = step_from_start and step_from_start(x, A)
        # Real leaves that share the memory of the (possibly complex) cores: the fused Adam takes real tensors only.
        cores = [
            (torch.view_as_real(m.core) if m.core.is_complex() else m.core.detach()).requires_grad_() for m in maps
        ]
        weights = [
            weight.requires_grad_()
            for m in maps
            for name, weight in m.weights.items()
            if m.embedding.trainable is None or name in m.embedding.trainable
        ]
        # The latent tensors move as if their factors were of the size of unitary matrices: Adam with a rate of lr * u
        # and eps / u takes u times the steps that it takes for u times the gradient. So the unit of A does not matter.
        units = [u * f.shape[-1] ** 0.5 if len(f.shape) == 2 else u for u, f in zip(scales, problem.factors)]
        groups = [
            {"params": [c], "lr": self.learning_rate * u, "eps": _ADAM_EPS / u} for c, u in zip(cores, units) if u > 0
        ]
        optimiser = torch.optim.Adam([*groups, {"params": weights}], lr=self.learning_rate, eps=_ADAM_EPS, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda step: 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0,
        )

        def evaluate(x: Tensor) -> list[Tensor]:
            """Evaluate all factors, with gradients."""
            live = [torch.view_as_complex(t) if m.core.is_complex() else t for m, t in zip(maps, cores)]
            return [m.with_(core=core)(x) for m, core in zip(maps, live)]

        def train() -> Tensor:
            rows = torch.randint(len(x), (min(self.batch, len(x)),), generator=generator).to(x.device)
            if operation.residual_solves:
                report.exact_solves += len(rows)
            with torch.enable_grad():
                if targets is None:
                    loss = operation.loss(A[rows], evaluate(x[rows])).mean()
                else:
                    loss = _relative_square(evaluate(x[rows]), [t[rows] for t in targets])
                if anchor_x is not None:
                    anchored = operation.invariant(evaluate(anchor_x))
                    loss = loss + self.anchor_weight * _relative_square([anchored], [anchor_exact])
                optimiser.zero_grad()
                loss.backward()
            optimiser.step()
            schedule.step()
            return loss.detach()

        best = judge()
        step, every, losses = 0, max(1, self.steps // 500), []
        with tqdm(total=self.steps, disable=not task.progress, delay=2, unit="step", desc="residual training") as bar:
            for end in sorted({-(-self.steps * i // self.rounds) for i in range(1, self.rounds + 1)}):
                while step < end:
                    losses.append(train())
                    step += 1
                    bar.update()
                    if step % every == 0 or step == end:
                        report.steps.append(step)
                        report.losses.append(float(torch.stack(losses).mean()))
                        losses.clear()
                        if not math.isfinite(report.losses[-1]):
                            return self._diverged(good, step, report)
                try:
                    estimate = self.estimate(task, maps, tol, step)
                    if not torch.isfinite(estimate.residuals).all():  # the family is finite, so the map is not
                        report.rounds.pop()
                        return self._diverged(good, step, report)
                    entry = report.rounds[-1]
                    value = judge()
                    if value <= best:
                        good, best = _detached(maps), value
                    bar.set_postfix_str(f"failure probability {estimate.probability:.2g}")
                    if estimate.probability <= self.failure_probability and value == best:
                        report.stop_reason = StopReason.TOLERANCE
                        return good
                    if step == self.steps:
                        self._explain(task, estimate)
                    order = torch.randperm(len(estimate.failures), generator=generator)[: self.added]
                    if step < self.steps and len(order):
                        new = estimate.failures[order.to(estimate.failures.device)]
                        if step_from_start:  # where the start is poor, a Newton step from it is no goal
                            new = new[task.residual(task.start.maps, new) < _LARGE_RESIDUAL]
                            if len(new) == 0:
                                continue
                        new_A, new_x = family(new), task.cube(new)
                        A, x = torch.cat([A, new_A]), torch.cat([x, new_x])
                        if step_from_start:
                            targets = [torch.cat(pair) for pair in zip(targets, step_from_start(new_x, new_A))]
                        report.collocation = len(x)
                        entry.added = new.tolist()
                except FamilyError as error:
                    report.stop_reason, report.message = StopReason.FAMILY, str(error)
                    finite = task.start is None and all(torch.isfinite(m(x)).all() for m in maps)
                    return _detached(maps) if finite else good
        return good

    def _round_zero(
        self, task: Task, maps: list[FactorMap], x: Tensor, A: Tensor, tol: float
    ) -> tuple[Callable[[Tensor, Tensor], list[Tensor]] | None, Callable[[], float]]:
        """Report the start. Return its Newton step, where the error is the goal, and how the maps are to be judged.

        The less the better; all rounds at the same parameters, so that none wins by an easier draw.
        """
        operation, why = task.problem.operation, "no start"
        judge: Callable[[], float] = lambda: 0.0  # noqa: E731
        if task.start is not None:
            first = self.estimate(task, maps, tol)
            p, near = first.candidates, operation.residual(A, [m(x) for m in maps])
            task.report.exact_solves += len(A) if operation.residual_solves else 0
            largest = max(float(first.residuals.max()), float(near.max()))
            why = f"a start with residuals up to {largest:.1e}"
            if type(operation).improved is Operation.improved:
                why = f"{operation}, which has no Newton step"
            elif largest < _LARGE_RESIDUAL and self.goal != "residual":

                def step(x: Tensor, A: Tensor) -> list[Tensor]:
                    return list(operation.improved(A, [m(x) for m in task.start.maps]))

                y = task.cube(p)
                goal = step(y, task.problem.family(p))
                return step, lambda: float(_relative_square([m(y) for m in maps], goal))
            judge = lambda: float(task.residual(maps, p).median())  # noqa: E731
        if self.goal == "error":
            raise ValueError(
                f"`goal`: expected a start with residuals below {_LARGE_RESIDUAL} and an operation with a Newton step "
                f"for 'error', got {why}; take goal='residual'."
            )
        return None, judge

    def _explain(self, task: Task, estimate: FailureEstimate) -> None:
        """Solve exactly where residuals stayed large, to tell singular matrices from a poor fit."""
        worst = estimate.residuals.topk(min(8, len(estimate.residuals)))
        large = worst.indices[worst.values > _LARGE_RESIDUAL][: max(0, task.left())]
        if len(large):
            task.solve(estimate.candidates[large.to(estimate.candidates.device)])

    def _diverged(self, good: list[FactorMap], step: int, report: Report) -> list[FactorMap]:
        report.stop_reason = StopReason.DIVERGED
        state = "the state after the last good round" if report.rounds else "the untrained map"
        report.message = (
            f"at step {step}, {state} is returned; try a smaller `learning_rate` than {self.learning_rate:g}"
        )
        return good

    def _solve_anchors(self, task: Task) -> tuple[Tensor | None, Tensor | None]:
        """Solve at random parameters; singular ones are reported and left out."""
        if self.anchors == 0:
            return None, None
        family = task.problem.family
        p = family.box.uniform(self.anchors, task.generator)
        factors, good = task.solve(p)
        return (task.cube(p[good]), task.problem.operation.invariant(factors)) if good.any() else (None, None)

    def _initial_maps(self, task: Task, rank: int, scales: Sequence[float]) -> list[FactorMap]:
        problem, maps = task.problem, []
        family = problem.family
        for i, (factor, scale) in enumerate(zip(problem.factors, scales)):
            r = min(rank, real_numbers(problem, i))
            dtype = factor.dtype(family.dtype)
            wide = torch.complex128 if dtype.is_complex else torch.float64
            core = torch.randn((r, *factor.shape), dtype=wide, generator=task.generator) * (scale / r**0.5)
            weights = self.embedding.initialise(family.dimension, r, task.generator)
            real = {name: w.to(family.device, checks.real_dtype(dtype)) for name, w in weights.items()}
            maps.append(FactorMap(factor.name, core.to(family.device, dtype), self.embedding, real))
        return maps


def _relative_square(factors: Sequence[Tensor], exact: Sequence[Tensor]) -> Tensor:
    """Squared relative Frobenius error of a whole batch, the mean over its factors."""
    return sum((x - y).abs().square().sum() / y.abs().square().sum() for x, y in zip(factors, exact)) / len(exact)


def _detached(maps: Sequence[FactorMap]) -> list[FactorMap]:
    return [
        m.with_(core=m.core.detach().clone(), weights={name: w.detach().clone() for name, w in m.weights.items()})
        for m in maps
    ]
