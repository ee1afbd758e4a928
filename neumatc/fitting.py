"""Fitting: `fit`, and the paper's way, residual training with failure-informed adaptive sampling."""

from __future__ import annotations

import importlib
import math
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, is_dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from neumatc import checks, sampling
from neumatc.embeddings import Embedding, SinusoidalMLP
from neumatc.families import FamilyError
from neumatc.model import FactorMap, Surrogate, unit_cube
from neumatc.problem import Problem
from neumatc.report import Report, Round, StopReason, library_version

# A fit that leaves a relative residual above this somewhere looks there for singular matrices.
_LARGE_RESIDUAL = 0.1


class Method(ABC):
    """A way to fit: arguments as data, and one function from a problem to the factor maps."""

    @abstractmethod
    def run(
        self, problem: Problem, rank: int, generator: torch.Generator, report: Report, progress: bool
    ) -> list[FactorMap]:
        """Fit the maps, and fill in the report. Called with gradients off."""

    def settings(self) -> dict[str, object]:
        """Return the arguments as plain numbers, for the report; by default a dataclass's fields."""
        return asdict(self) if is_dataclass(self) else {}


def fit(
    problem: Problem, *, rank: int, method: Method | None = None, seed: int = 0, progress: bool = True
) -> Surrogate:
    r"""Fit a surrogate :math:`X(p) = C \times_3 \Phi(p)` of a problem over the whole box.

    Args:
        problem: What to fit.
        rank: r, columns of the embedding; a factor with fewer than r real numbers takes its number of them.
        method: How; default `ResidualTraining()`.
        seed: Makes the fit repeatable on one machine: same seed, same surrogate. torch's global random state is
            neither read nor changed.
        progress: Show a bar on the standard error stream once the fit has taken two seconds.

    Returns:
        The surrogate, of the family's dtype and on its device; ``surrogate.report`` says how the fit went and why it
        stopped. A numerical failure on the way (divergence, singular matrices, a family that fails at a new
        parameter) ends or degrades the fit and is told there; it does not raise. A tolerance that was met means small
        residuals, no more than that; see the operation for what its residual does not see.

    Raises:
        ValueError: For a rank that is larger than possible, or a family that fails at the first parameters.
        TypeError: For arguments of another type.

    Example:
        >>> import torch, neumatc as nm
        >>> problem = nm.Problem(nm.families.trigonometric(size=4, shift=3, cycles=0.5), nm.Inverse())
        >>> surrogate = nm.fit(problem, rank=6, method=nm.ResidualTraining(steps=800))
        >>> p = torch.tensor([[0.25], [0.75]])
        >>> surrogate(p).shape
        torch.Size([2, 4, 4])
        >>> bool((problem.residual(p, surrogate(p)) < 0.1).all())
        True
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"`problem`: expected an nm.Problem, got {type(problem).__name__}.")
    method = ResidualTraining() if method is None else method
    if not isinstance(method, Method):
        raise TypeError(f"`method`: expected a method such as nm.ResidualTraining(), got {checks.describe(method)}.")
    rank, seed = checks.integer("rank", rank, 1), checks.seed(seed)
    possible = max(_real_numbers(problem, i) for i in range(len(problem.factors)))
    if rank > possible:
        raise ValueError(
            f"`rank`: expected at most {possible}, the real numbers in the largest factor of {problem.operation}, "
            f"got {rank}; lower it."
        )
    # The first optimiser of a process imports this: seconds that are no part of a fit.
    importlib.import_module("torch._dynamo")
    start = time.perf_counter()
    report = Report(type(method).__name__, method.settings(), rank, seed, version=library_version())
    with torch.inference_mode(False), torch.no_grad():
        maps = method.run(problem, rank, torch.Generator().manual_seed(seed), report, progress)
    report.seconds = time.perf_counter() - start
    family = problem.family
    labels = (family.names, family.units)
    return Surrogate(problem.operation, family.shape, maps, family.lower, family.upper, *labels, report)


def _real_numbers(problem: Problem, index: int) -> int:
    factor = problem.factors[index]
    complex_entries = problem.family.dtype.is_complex and not factor.real
    return torch.Size(factor.shape).numel() * (2 if complex_entries else 1)


@dataclass(frozen=True)
class ResidualTraining(Method):
    r"""Unsupervised gradient training on the algebraic residual, as the paper proposes; the details are our reading.

    Minimises the mean over collocation points p_i of the operation's loss (for the inverse
    :math:`\|A(p_i) X(p_i) - I\|_F^2 / n`) over the latent tensors and the embeddings' weights, by Adam on minibatches.
    Training goes in rounds: after each, `FailureInformedSampling` estimates the probability
    that the residual exceeds ``tolerance`` on fresh candidates; when it is above ``failure_probability``, failing
    points join the collocation points. Training needs no exact solve unless ``anchors`` are asked for; a fit that ends
    with residuals above 0.1 solves exactly at up to eight of the worst candidates, to tell singular matrices.

    Args:
        embedding: Phi, one per factor.
        steps: Adam steps, all rounds together; with fewer steps than rounds, each step is a round.
        batch: Collocation points per step.
        learning_rate: Of the first step.
        schedule: ``"cosine"``: the learning rate falls to zero along half a cosine over ``steps``; ``"constant"``.
        collocation: Initial points, a scrambled Sobol sequence, at least the rank.
        rounds: Rounds of training, at least 1; between them points are added.
        added: Most points added after a round.
        tolerance: epsilon, the residual that counts as failure.
        failure_probability: Training ends early when the estimate is at most this.
        anchors: Parameters solved exactly and used in every step as a supervised term, relative Frobenius error
            squared of the operation's gauge-invariant matrix.
        anchor_weight: Weight of that term.
        sampling: The adaptive sampler.

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
    tolerance: float = 1e-2
    failure_probability: float = 1e-2
    anchors: int = 0
    anchor_weight: float = 1.0
    sampling: sampling.FailureInformedSampling = field(default_factory=sampling.FailureInformedSampling)

    def __post_init__(self) -> None:
        if not isinstance(self.embedding, Embedding):
            raise TypeError(
                f"`embedding`: expected an embedding such as nm.SinusoidalMLP(), got {checks.describe(self.embedding)}."
            )
        for name in ("steps", "batch", "collocation", "rounds"):
            checks.integer(name, getattr(self, name), 1)
        checks.integer("added", self.added, 0)
        checks.integer("anchors", self.anchors, 0)
        for name in ("learning_rate", "tolerance"):
            checks.number(name, getattr(self, name), above=0)
        checks.number("anchor_weight", self.anchor_weight, above=0)
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"`schedule`: expected 'cosine' or 'constant', got {self.schedule!r}.")
        checks.number("failure_probability", self.failure_probability, at_least=0, below=1)
        if not isinstance(self.sampling, sampling.FailureInformedSampling):
            raise TypeError(
                f"`sampling`: expected an nm.FailureInformedSampling(), got {checks.describe(self.sampling)}."
            )

    def settings(self) -> dict[str, object]:
        embedding = {"class": type(self.embedding).__name__, **self.embedding.settings()}
        return asdict(self) | {"embedding": embedding}

    def run(
        self, problem: Problem, rank: int, generator: torch.Generator, report: Report, progress: bool
    ) -> list[FactorMap]:
        if self.collocation < rank:
            raise ValueError(
                f"`collocation`: expected at least `rank` = {rank} points, got {self.collocation}; fewer cannot "
                "determine the latent tensor. Give more points or a smaller rank."
            )
        family, operation = problem.family, problem.operation
        points = sampling.sobol(self.collocation, family.lower, family.upper, report.seed)
        A = family(points)
        anchor_x, anchor_exact = self._solve_anchors(problem, generator, report)
        maps = self._initial_maps(problem, rank, A, generator)
        # Real leaves that share the memory of the (possibly complex) cores: the fused Adam takes real tensors only.
        cores = [
            (torch.view_as_real(m.core) if m.core.is_complex() else m.core.detach()).requires_grad_() for m in maps
        ]
        leaves = cores + [weight.requires_grad_() for m in maps for weight in m.weights.values()]
        optimiser = torch.optim.Adam(leaves, lr=self.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda step: 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0,
        )
        real = checks.real_dtype(family.dtype)

        def evaluate(x: Tensor) -> list[Tensor]:
            """Evaluate all factors, with gradients."""
            live = [torch.view_as_complex(t) if m.core.is_complex() else t for m, t in zip(maps, cores)]
            return [replace(m, core=core)(x) for m, core in zip(maps, live)]

        def cube(p: Tensor) -> Tensor:
            return unit_cube(p, family.lower, family.upper, real)

        def residual(p: Tensor) -> Tensor:
            x = cube(p)
            return operation.residual(family(p), [m(x) for m in maps])

        def train() -> Tensor:
            rows = torch.randint(len(x), (min(self.batch, len(x)),), generator=generator).to(x.device)
            with torch.enable_grad():
                loss = operation.loss(A[rows], evaluate(x[rows])).mean()
                if anchor_x is not None:
                    difference = operation.invariant(evaluate(anchor_x)) - anchor_exact
                    loss = loss + self.anchor_weight * _relative_square(difference, anchor_exact)
                optimiser.zero_grad()
                loss.backward()
            optimiser.step()
            schedule.step()
            return loss.detach()

        x, good = cube(points), _detached(maps)
        step, every, losses = 0, max(1, self.steps // 500), []
        with tqdm(total=self.steps, disable=not progress, delay=2, unit="step", desc="residual training") as bar:
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
                    estimate = self.sampling.estimate(residual, self.tolerance, family.lower, family.upper, generator)
                    if not torch.isfinite(estimate.residuals).all():  # the family is finite, so the map is not
                        return self._diverged(good, step, report)
                    good = _detached(maps)
                    entry = Round(
                        step,
                        estimate.probability,
                        estimate.standard_error,
                        float(estimate.residuals.median()),
                        float(estimate.residuals.max()),
                        worst=estimate.candidates[estimate.residuals.argmax()].tolist(),
                    )
                    report.rounds.append(entry)
                    report.residual_evaluations += estimate.evaluations
                    bar.set_postfix_str(f"failure probability {estimate.probability:.2g}")
                    if estimate.probability <= self.failure_probability:
                        report.stop_reason = StopReason.TOLERANCE
                        return good
                    if step == self.steps:
                        self._explain(problem, estimate, report)
                    order = torch.randperm(len(estimate.failures), generator=generator)[: self.added]
                    if step < self.steps and len(order):
                        new = estimate.failures[order.to(estimate.failures.device)]
                        A = torch.cat([A, family(new)])
                        x = torch.cat([x, cube(new)])
                        report.collocation = len(x)
                        entry.added = new.tolist()
                except FamilyError as error:
                    report.stop_reason, report.message = StopReason.FAMILY, str(error)
                    return _detached(maps) if all(torch.isfinite(m(x)).all() for m in maps) else good
        return good

    def _explain(self, problem: Problem, estimate: sampling.FailureEstimate, report: Report) -> None:
        """Solve exactly where residuals stayed large, to tell singular matrices from a poor fit."""
        worst = estimate.residuals.topk(min(8, len(estimate.residuals)))
        large = worst.indices[worst.values > _LARGE_RESIDUAL]
        if len(large):
            p = estimate.candidates[large.to(estimate.candidates.device)]
            report.exact_solves += len(p)
            report.singular += p[problem.exact(p).failed].tolist()

    def _diverged(self, good: list[FactorMap], step: int, report: Report) -> list[FactorMap]:
        report.stop_reason = StopReason.DIVERGED
        state = "the state after the last good round" if report.rounds else "the untrained map"
        report.message = (
            f"at step {step}, {state} is returned; try a smaller `learning_rate` than {self.learning_rate:g}"
        )
        return good

    def _solve_anchors(
        self, problem: Problem, generator: torch.Generator, report: Report
    ) -> tuple[Tensor | None, Tensor | None]:
        """Solve at random parameters; singular ones are reported and left out."""
        report.collocation = self.collocation
        if self.anchors == 0:
            return None, None
        family = problem.family
        p = sampling.uniform(self.anchors, family.lower, family.upper, generator)
        solution = problem.exact(p)
        report.exact_solves = self.anchors
        report.singular = p[solution.failed].tolist()
        kept = ~solution.failed
        if not kept.any():
            return None, None
        exact = problem.operation.invariant(problem.unpack(solution.value, p))[kept]
        return unit_cube(p[kept], family.lower, family.upper, checks.real_dtype(family.dtype)), exact

    def _initial_maps(self, problem: Problem, rank: int, A: Tensor, generator: torch.Generator) -> list[FactorMap]:
        family, maps = problem.family, []
        scales = problem.operation.scales(A)
        for i, (factor, scale) in enumerate(zip(problem.factors, scales)):
            r = min(rank, _real_numbers(problem, i))
            dtype = checks.real_dtype(family.dtype) if factor.real else family.dtype
            wide = torch.complex128 if dtype.is_complex else torch.float64
            core = torch.randn((r, *factor.shape), dtype=wide, generator=generator) * (scale / r**0.5)
            weights = self.embedding.initialise(family.dimension, r, generator)
            real = {name: w.to(family.device, checks.real_dtype(dtype)) for name, w in weights.items()}
            maps.append(FactorMap(factor.name, core.to(family.device, dtype), self.embedding, real))
        return maps


def _relative_square(difference: Tensor, exact: Tensor) -> Tensor:
    return difference.abs().square().sum() / exact.abs().square().sum()


def _detached(maps: list[FactorMap]) -> list[FactorMap]:
    return [
        replace(m, core=m.core.detach().clone(), weights={name: w.detach().clone() for name, w in m.weights.items()})
        for m in maps
    ]
