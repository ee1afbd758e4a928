"""What every way of fitting shares: the task it is given, and its arguments."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from neumatc import checks
from neumatc.embeddings import Chebyshev, Embedding
from neumatc.families import FAILED, FamilyError, ParametricMatrix
from neumatc.model import FactorMap, Surrogate, evaluate
from neumatc.operations import checked, judged
from neumatc.problem import Problem
from neumatc.report import Event, Report, Round, StopReason
from neumatc.watch import ENDINGS, Watch


@dataclass(frozen=True)
class Task:
    """What a fit is asked for.

    Attributes:
        problem: What to fit.
        rank: r, or None where the method is to choose it.
        tol: Relative residual that counts as failure, or None.
        budget: Most exact solves, or None.
        start: A surrogate to begin from, or None.
        generator: For every random draw, on the CPU.
        report: To be filled in.
        progress: Whether to show a bar.
        watch: Ends it before it is done.
    """

    problem: Problem
    rank: int | None
    tol: float | None
    budget: int | None
    start: Surrogate | None
    generator: torch.Generator
    report: Report
    progress: bool
    watch: Watch = field(default_factory=Watch)

    def cube(self, p: Tensor) -> Tensor:
        """Scale parameters to [-1, 1]^d, in double precision, on the device of the family."""
        return self.problem.family.box.cube(p)

    def place(self, p: Tensor) -> Tensor:
        """Scale parameters to [-1, 1]^d in double precision, on the CPU."""
        return self.problem.family.box.cube(p).cpu()

    def box(self, x: Tensor) -> Tensor:
        """Scale points of the cube to parameters, in the precision and on the device of the family."""
        return self.problem.family.box.parameters(x)

    def residual(self, maps: Sequence[FactorMap], p: Tensor) -> Tensor:
        """Relative algebraic residual of the maps at p, shape (B,)."""
        operation, family = self.problem.operation, self.problem.family
        return self.measure(self.matrices(p), evaluate(operation, family.shape, maps, self.cube(p)))

    def measure(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        """Relative algebraic residual of factors, shape (B,); counts what it costs."""
        self.report.residual_evaluations += len(A)
        if self.problem.operation.residual_solves:
            self.report.exact_solves += len(A)
        return judged(self.problem.operation, A, factors)

    def matrices(self, p: Tensor) -> Tensor:
        """Return A(p), unless the fit is to end."""
        self.check()
        return self.problem.family(p)

    def evaluate(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return A(p), and where it is defined, as `ParametricMatrix.evaluate`, unless the fit is to end."""
        self.check()
        family = self.problem.family
        return checks.defined(self.tried(family, family.box.points(p)))

    def tried(self, family: ParametricMatrix, p: Tensor) -> Tensor:
        """Return A(p), at parameters as `Box.points` gives them, NaN where the family fails; note what it raised."""
        A, why = family._anything(p)
        if why and FAILED not in self.report.message:
            self.note(why)
        return A

    def check(self) -> None:
        """Raise where the fit is to end, by its time once something is solved."""
        self.watch.check(self.report.exact_solves > 0)

    def kept(self, fit: Callable[[], list[FactorMap]], best: Callable[[], list[FactorMap] | None]) -> list[FactorMap]:
        """Return what ``fit`` returns; where something ends it, ``best``, the maps so far, and report why.

        Where there are no maps so far, what ended it is raised.
        """
        try:
            return fit()
        except ENDINGS as error:
            why = self.watch.reason(error)
            if (maps := best()) is None:
                raise
            self.report.stop_reason, self.report.met = why, False
            self.note(str(error))
            return maps

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which axes factors go around; none where their gauge may not return to itself."""
        return self.problem.family.box.periodic if self.problem.operation.unique else ()

    @property
    def many(self) -> int:
        """How many problems it stands for."""
        return 1

    def unfinished(self, p: Tensor, fitted: Sequence[Tensor]) -> Tensor:
        """Relative residual at p of factors as their maps give them, shape (B,): NaN where the family is undefined."""
        family, operation, out = self.problem.family, self.problem.operation, []
        for own, factor in zip(fitted, self.problem.factors):
            dtype = factor.dtype(family.dtype)
            alike = own.shape[1:] == factor.shape
            out.append(own if alike else own.new_empty((len(p), *factor.shape), dtype=dtype))
        operation.finish(fitted, out)
        A, good = self.evaluate(p)
        r = self.measure(A, out)
        return torch.where(good, torch.where(torch.isfinite(r), r, torch.inf), torch.nan)

    def left(self) -> int:
        """Return how many exact solves the budget still allows."""
        return 2**62 if self.budget is None else self.budget - self.report.exact_solves

    def solve(self, p: Tensor, *, aligned: bool = False) -> tuple[tuple[Tensor, ...], Tensor]:
        """Solve exactly: the factors where that succeeded, and the mask of successes, on the CPU; counts and reports.

        With ``aligned`` the factors are those that the operation needs to align its snapshots.
        """
        operation, begin = self.problem.operation, time.perf_counter()
        solve, (A, defined) = operation.snapshots if aligned else operation.exact, self.evaluate(p)
        try:
            factors, failed = checked(solve, A)
        except FamilyError:
            # The operation suits none of these, as the Cholesky factor. The shapes are those for a unit matrix.
            factors, _ = checked(solve, torch.eye(*A.shape[1:], dtype=A.dtype, device=A.device)[None])
            factors = tuple(x.expand(len(p), *x.shape[1:]) for x in factors)
            failed = torch.ones(len(p), dtype=torch.bool, device=A.device)
        good = (~failed & defined).cpu()  # of a device the one wait
        self.count(p, good, begin)
        return (factors if good.all() else tuple(x[good] for x in factors)), good

    def count(self, p: Tensor, good: Tensor, begin: float = -math.inf, many: int = 1) -> None:
        """Report exact solves at p, of which some may have failed, and their time since ``begin``, of many problems."""
        self.report.exact_solves += len(p)
        if not good.all():
            self.report.singular += p[~good].tolist()
        price = (time.perf_counter() - begin) / (len(p) * many)
        self.report.solve_seconds = min(price, self.report.solve_seconds)  # the least is overhead and noise the least

    def maps(self, embedding: Embedding, rank: int, scales: Sequence[float]) -> list[FactorMap]:
        """Return random maps of factors whose entries have these root mean squares, their rank at most its numbers."""
        family, maps = self.problem.family, []
        for i, (factor, scale) in enumerate(zip(self.problem.factors, scales)):
            r, dtype = min(rank, real_numbers(self.problem, i)), factor.dtype(family.dtype)
            wide = torch.complex128 if dtype.is_complex else torch.float64
            core = torch.randn((r, *factor.shape), dtype=wide, generator=self.generator) * (scale / r**0.5)
            weights = embedding.initialise(family.dimension, r, self.generator)
            real = {name: w.to(family.device, checks.real_dtype(dtype)) for name, w in weights.items()}
            maps.append(FactorMap(factor.name, core.to(family.device, dtype), embedding, real))
        return maps

    def zero(self) -> list[FactorMap]:
        """Return the zero map, where nothing could be solved."""
        self.report.stop_reason, self.report.rank = StopReason.SINGULAR, 1
        return self.maps(Chebyshev(1), 1, [0.0] * len(self.problem.factors))

    def enter(self, events: Sequence[Event]) -> None:
        """Report what aligning the snapshots has met, in the units of the parameters."""
        places = [torch.tensor([event.parameter], dtype=torch.float64) for event in events]
        self.report.events = [replace(e, parameter=self.box(x)[0].tolist()) for e, x in zip(events, places)]

    def note(self, message: str) -> None:
        """Add to the report's message what it does not say yet."""
        if message not in self.report.message:
            self.report.message += "; " * bool(self.report.message) + message

    def judge(self, p: Tensor, residuals: Tensor, **known: object) -> None:
        """Report a round: residuals (B,) at fresh parameters p (B, d), and what else is `known` of it (see `Round`)."""
        known, residuals = {"draws": len(p)} | known, residuals.cpu()
        known |= {"residual_median": float(residuals.median()), "residual_max": float(residuals.max())}
        known |= {"worst": p[int(residuals.argmax())].tolist(), "exact_solves": self.report.exact_solves}
        self.report.rounds.append(Round(**known))


@dataclass(frozen=True)
class Method(ABC):
    """A way to fit: arguments as data, and one function from a task to the factor maps."""

    @abstractmethod
    def run(self, task: Task) -> list[FactorMap]:
        """Fit the maps, and fill in the report. Called with gradients off."""

    def batch_snapshots(self, rank: int) -> int:
        """Return how many exact solutions, or as much, are held at once if the budget allows."""
        return rank

    def settings(self) -> dict[str, object]:
        """Return the arguments as plain numbers, for the report."""
        embeddings = {name: value for name, value in vars(self).items() if isinstance(value, Embedding)}
        named = {name: {"class": type(value).__name__, **value.settings()} for name, value in embeddings.items()}
        return asdict(self) | named


def real_numbers(problem: Problem, index: int) -> int:
    """Return how many real numbers a factor has: the largest rank that means something."""
    factor = problem.factors[index]
    return torch.Size(factor.shape).numel() * (2 if factor.dtype(problem.family.dtype).is_complex else 1)
