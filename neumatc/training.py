"""Gradient training: the paper's way, on the algebraic residual with failure-informed adaptive sampling."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR
from tqdm import tqdm

from neumatc import checkpoint, checks, sampling
from neumatc.embeddings import Embedding, SinusoidalMLP
from neumatc.failure import FailureEstimate, FailureInformedSampling
from neumatc.methods import Method, Task
from neumatc.model import FactorMap
from neumatc.report import LARGE_RESIDUAL, Report, StopReason

# Residual that counts as failure where the caller gives no tolerance.
_TOLERANCE = 1e-2
# So many of the worst parameters are solved there: enough to tell, and few beside a fit.
_LOOKS = 8
# Losses that a report keeps: enough for a curve.
_LOSSES = 500
# What Adam adds to the root of the mean squared gradient.
_ADAM_EPS = 1e-8
# What a checkpoint holds of a training as it is.
_STATE = ("steps", "ended", "best", "x", "A", "targets", "probe")


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
    is good already, training on the residual lowers it and raises the error. So from a start with residuals below 0.1,
    the goal is the relative error against a Newton step from it (``operation.improved``; for the inverse X (2 I - AX)),
    taken once at every collocation point: it has about the square of the start's error, and needs no exact solve. From
    others, and for operations without a Newton step, the goal is the residual. The start counts as round zero, and of
    all rounds the map that is best by the goal is returned (its error against the step, or its median residual, at
    parameters not trained on).

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
        failure_probability: Training ends early when the estimated probability that the residual exceeds the tolerance,
            at a uniformly random parameter, is at most this.
        sampling: How that probability is estimated, and failing parameters are found.
        newton: Whether a good start is trained on the error against its Newton step; else on the residual too.
        checkpoint: A file that is written after every round. A fit of the same problem with the same arguments goes on
            from there, and ends with the same bits on the same machine as if it had never stopped; of a finished fit
            it is the result. It is of a size with the matrices A(p_i). Default: none.

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
    failure_probability: float = 1e-2
    sampling: FailureInformedSampling = field(default_factory=FailureInformedSampling)
    newton: bool = True
    checkpoint: str | os.PathLike | None = None

    def __post_init__(self) -> None:
        checks.instance("embedding", self.embedding, Embedding, "an embedding such as nm.SinusoidalMLP()")
        checks.instance("sampling", self.sampling, FailureInformedSampling, "an nm.FailureInformedSampling()")
        for name in ("steps", "batch", "collocation", "rounds"):
            checks.integer(name, getattr(self, name), 1)
        checks.integer("added", self.added, 0)
        checks.number("learning_rate", self.learning_rate, above=0)
        checks.number("failure_probability", self.failure_probability, at_least=0, below=1)
        checks.choice("schedule", self.schedule, ("cosine", "constant"))
        if self.checkpoint is not None:
            checks.instance("checkpoint", self.checkpoint, (str, os.PathLike), "a path")
            object.__setattr__(self, "checkpoint", os.fspath(self.checkpoint))

    def run(self, task: Task) -> list[FactorMap]:
        self._accept(task)
        task.report.rank = task.rank if task.start is None else task.start.rank
        with tqdm(total=self.steps, disable=not task.progress, delay=2, unit="step", desc="residual training") as bar:
            training = _Training(self, task, bar)
            return task.kept(training.run, training.kept)

    def _accept(self, task: Task) -> None:
        """Raise ValueError for what a task can ask of training too much."""
        problem, start = task.problem, task.start
        rank = task.rank if start is None else start.rank
        remedy = "give one, or take nm.ClosedForm()"
        checks.require(rank, "rank", "an integer for nm.ResidualTraining, which cannot choose it", rank, remedy)
        shapes = [factor.shape for factor in problem.factors]
        held = shapes if start is None else [m.shape for m in start.maps]
        got = f"{held}, which follow more vectors than asked for, or a block"
        checks.require(held == shapes, "start", f"maps of the shapes {shapes}", got, "training cannot: leave it out")
        kept = problem.operation.order == "followed"
        remedy = "training knows no labels: take nm.ClosedForm()"
        checks.require(not kept, "order", "another one for nm.ResidualTraining", "'followed'", remedy)
        remedy = "give more points, since fewer do not determine the latent tensor, or a smaller rank"
        enough = self.collocation >= rank
        checks.require(enough, "collocation", f"at least `rank` = {rank} points", self.collocation, remedy)
        expected = f"None for {problem.operation}, whose residual takes an exact solve at every point of every step"
        free = not problem.operation.residual_solves or task.budget is None
        checks.require(free, "budget", expected, task.budget, "take nm.ClosedForm(), or leave it out")
        checkpoint.check(self.checkpoint)

    def batch_snapshots(self, rank: int) -> int:
        """Return how many matrices, or as much, are held at once: latent tensors have gradients and moments."""
        return self.collocation + 4 * rank

    def estimate(self, task: Task, maps: Sequence[FactorMap], step: int = 0) -> FailureEstimate:
        """Estimate how often the residual of the maps exceeds the tolerance, on fresh parameters; report the round."""
        tolerance, box = _TOLERANCE if task.tol is None else task.tol, task.problem.family.box
        found = self.sampling.estimate(lambda p: task.residual(maps, p), tolerance, box, task.generator)
        known = {"failure_probability": found.probability, "standard_error": found.standard_error, "step": step}
        known |= {"draws": self.sampling.samples, "rank": max(m.rank for m in maps)}
        task.judge(found.candidates, found.residuals, **known)
        return found


class _Training:
    """A fit under way.

    Attributes:
        maps: As they are now, with gradients.
        good: The best of all rounds by the goal, of the value ``best``.
        judge: Of maps, the less the better; at the same parameters for all rounds, so that none wins by an easier draw.
        x, A: The collocation points on the cube, and the matrices there.
        targets: The factors to be learned there, where the goal is the error; else None.
        probe: Where ``judge`` looks, if the fit began from a surrogate.
        steps: Taken so far.
        ended: Whether training is over.
    """

    def __init__(self, method: ResidualTraining, task: Task, bar: tqdm):
        family, self.method, self.task, self.bar = task.problem.family, method, task, bar
        self.steps, self.ended, self.probe = 0, False, None
        p = sampling.sobol(method.collocation, family.lower, family.upper, task.report.seed)
        self.A = family(p).clone()  # kept, while the family may write its next matrices into the same memory
        self.x, self.targets = task.cube(p), None
        task.report.collocation = len(p)
        scales = task.problem.operation.scales(self.A)
        self.good = _copied(task.start.maps) if task.start else task.maps(method.embedding, task.rank, scales)
        self.maps, self.judge, self.best = _copied(self.good), lambda maps: 0.0, 0.0
        # The latent tensors move as if their factors were of the size of unitary matrices: Adam with a rate of lr * u
        # and eps / u takes u times the steps that it takes for u times the gradient. So the unit of A does not matter.
        shapes = [factor.shape for factor in task.problem.factors]
        units = [u * shape[-1] ** 0.5 if len(shape) == 2 else u for u, shape in zip(scales, shapes)]
        rate = method.learning_rate
        groups = [
            {"params": [m.numbers.requires_grad_()], "lr": rate * u, "eps": _ADAM_EPS / u}
            for m, u in zip(self.maps, units)
            if u > 0
        ]
        groups.append({"params": [weight for m in self.maps for weight in _trainable(m)]})
        self.optimiser = torch.optim.Adam(groups, lr=rate, eps=_ADAM_EPS, fused=True)
        cosine = method.schedule == "cosine"
        self.schedule = CosineAnnealingLR(self.optimiser, method.steps) if cosine else ConstantLR(self.optimiser, 1.0)
        if method.checkpoint:
            asked = replace(task.report, settings=replace(method, checkpoint=None).settings())
            first, box = [m.state_dict() for m in task.start.maps] if task.start else [], family.box
            own = box.settings(), box.lower.tolist(), box.upper.tolist(), task.problem.operation, self.A
            self.asked = checkpoint.fingerprint(asked.to_dict(), *own, *first)

    def run(self) -> list[FactorMap]:
        """Train in rounds, and return the best maps."""
        steps, rounds, path = self.method.steps, self.method.rounds, self.method.checkpoint
        if path and (state := checkpoint.read(path, self.asked, self.x.device)):
            self._resume(state)
        elif self.task.start:
            self._begin()
        ends = sorted({-(-steps * i // rounds) for i in range(1, rounds + 1)})
        for end in (end for end in ends if end > self.steps and not self.ended):
            self.ended = not self._descend(end) or self._judged()
            if path:
                self._save(path)
        return self.good

    def kept(self) -> list[FactorMap] | None:
        """Return the best maps where something ends training; None before the first step of random ones."""
        if self.task.start is None and all(torch.isfinite(m(self.x)).all() for m in self.maps):
            self.good = _copied(self.maps)
        return self.good if self.task.start or self.steps else None

    def _begin(self) -> None:
        """Choose what to make small from a start, and report it as round zero."""
        task, maps, operation = self.task, self.maps, self.task.problem.operation
        first = self.method.estimate(task, maps)
        near = task.measure(self.A, [m(self.x) for m in maps])
        newton = self.method.newton and operation.newton
        if newton and first.residuals.max() < LARGE_RESIDUAL and near.max() < LARGE_RESIDUAL:
            self.targets = self._step_from_start(self.x, self.A)
        self._look(first.candidates)
        self.best = self.judge(maps)

    def _look(self, p: Tensor) -> None:
        """Judge maps at these parameters from now on."""
        task, self.probe = self.task, p
        if self.targets is None:
            self.judge = lambda maps: float(task.residual(maps, p).median())
        else:
            y, improved = task.cube(p), self._step_from_start(task.cube(p), task.matrices(p))
            self.judge = lambda maps: _relative_square([m(y) for m in maps], improved).item()

    def _save(self, path: str) -> None:
        """Write what `_resume` needs; where that fails, training goes on."""
        state = {name: getattr(self, name) for name in ("asked", *_STATE)}
        state |= {name: [m.state_dict() for m in getattr(self, name)] for name in ("maps", "good")}
        state |= {name: getattr(self, name).state_dict() for name in ("optimiser", "schedule")}
        state |= {"generator": self.task.generator.get_state(), "report": json.dumps(self.task.report.to_dict())}
        try:
            checkpoint.write(path, state)
        except OSError as error:
            self.task.note(f"the checkpoint could not be written: {error}")

    def _resume(self, state: dict) -> None:
        """Go on from what `_save` has written."""
        vars(self).update({name: state[name] for name in _STATE})
        for name in ("maps", "good"):
            for m, saved in zip(getattr(self, name), state[name]):
                m.load_state_dict(saved)
        for name in ("optimiser", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        if self.probe is not None:
            self._look(self.probe)
        self.task.generator.set_state(state["generator"].cpu())
        vars(self.task.report).update(vars(Report.from_dict(json.loads(state["report"]))))
        self.bar.update(self.steps)

    def _step_from_start(self, x: Tensor, A: Tensor) -> list[Tensor]:
        """Take a Newton step from the start: what the maps are to become where the goal is the error."""
        return list(self.task.problem.operation.improved(A, [m(x) for m in self.task.start.maps]))

    def _descend(self, end: int) -> bool:
        """Take steps up to ``end``. Return whether the loss stayed finite."""
        report, losses, every = self.task.report, [], max(1, self.method.steps // _LOSSES)
        while self.steps < end:
            self.task.watch.check(True)
            losses.append(self._step())
            self.steps += 1
            self.bar.update()
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
        rows = torch.randint(count, (min(self.method.batch, count),), generator=self.task.generator)
        rows = rows.to(self.x.device, non_blocking=True)  # else every step waits for the device
        if operation.residual_solves:
            self.task.report.exact_solves += len(rows)
        with torch.enable_grad():
            factors = [m(self.x[rows]) for m in self.maps]
            if self.targets is None:
                loss = operation.loss(self.A[rows], factors).mean()
            else:
                loss = _relative_square(factors, [t[rows] for t in self.targets])
            self.optimiser.zero_grad()
            loss.backward()
        self.optimiser.step()
        self.schedule.step()
        return loss.detach()

    def _judged(self) -> bool:
        """Keep maps that are the best so far, and add points where they fail. Return whether to stop."""
        task, method = self.task, self.method
        estimate = method.estimate(task, self.maps, self.steps)
        if not torch.isfinite(estimate.residuals).all():  # the family is finite, so the map is not
            task.report.rounds.pop()
            self._diverged()
            return True
        value = self.judge(self.maps)
        better = value <= self.best
        if better:
            self.good, self.best = _copied(self.maps), value
        self.bar.set_postfix_str(f"failure probability {estimate.probability:.2g}")
        if estimate.probability <= method.failure_probability and better:
            task.report.stop_reason = StopReason.TOLERANCE
            return True
        if self.steps == method.steps:
            # Solve exactly where residuals stayed large, to tell singular matrices from a poor fit.
            worst = estimate.residuals.topk(min(_LOOKS, len(estimate.residuals)))
            large = worst.indices[worst.values > LARGE_RESIDUAL][: max(0, task.left())]
            if len(large):
                task.solve(estimate.candidates[large.to(estimate.candidates.device)])
        else:
            self._add(estimate.failures)
        return False

    def _add(self, failures: Tensor) -> None:
        """Let some of the failing parameters join the collocation points."""
        task = self.task
        order = torch.randperm(len(failures), generator=task.generator)[: self.method.added]
        new = failures[order.to(failures.device)]
        if self.targets and len(new):  # where the start is poor, a Newton step from it is no goal
            new = new[task.residual(task.start.maps, new) < LARGE_RESIDUAL]
        if len(new) == 0:
            return
        A, x = task.matrices(new), task.cube(new)
        self.A, self.x = torch.cat([self.A, A]), torch.cat([self.x, x])
        if self.targets:
            self.targets = [torch.cat(pair) for pair in zip(self.targets, self._step_from_start(x, A))]
        task.report.collocation, task.report.rounds[-1].added = len(self.x), new.tolist()

    def _diverged(self) -> None:
        self.task.report.stop_reason = StopReason.DIVERGED
        smaller = f"try a smaller `learning_rate` than {self.method.learning_rate:g}"
        self.task.note(f"at step {self.steps}, the best map before it is returned, {smaller}")


def _relative_square(factors: Sequence[Tensor], exact: Sequence[Tensor]) -> Tensor:
    """Squared relative Frobenius error of a whole batch, the mean over its factors."""
    return sum((x - y).abs().square().sum() / y.abs().square().sum() for x, y in zip(factors, exact)) / len(exact)


def _copied(maps: Sequence[FactorMap]) -> list[FactorMap]:
    """Return the maps in memory of their own, without gradients."""
    return [
        m.with_(core=m.core.detach().clone(), weights={name: w.detach().clone() for name, w in m.weights.items()})
        for m in maps
    ]


def _trainable(m: FactorMap) -> list[Tensor]:
    """Return the weights that training moves, as leaves."""
    names = m.embedding.trainable
    return [weight.requires_grad_() for name, weight in m.weights.items() if names is None or name in names]
