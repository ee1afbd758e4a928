"""What a fit did: numbers, histories and why it stopped, as plain data that a file can hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from neumatc import checks


class StopReason(StrEnum):
    """Why a fit ended."""

    RANK = "the map of the rank asked for is solved for"
    TOLERANCE = "the estimated failure probability is under the target"
    TABLE = "every point of the grid is solved exactly"
    BUDGET = "the exact solves of the budget are used up before the tolerance is met"
    STALLED = "neither more parameters nor a larger embedding brings the residual down"
    SINGULAR = "every exact solve failed; the map returned is zero"
    STEPS = "the steps are used up"
    DIVERGED = "the loss or a residual became NaN or Inf"
    FAMILY = "the family failed at a new parameter; the state before that is returned"
    TIME = "the time limit is over; the best map so far is returned"
    INTERRUPTED = "it was interrupted; the best map so far is returned"
    MEMORY = "memory ran out; the best map so far is returned"


@dataclass
class Round:
    """State at the end of one round of a fit, measured on random parameters that the fit has not seen.

    Attributes:
        step: Optimiser steps so far; 0 in a closed form.
        failure_probability, standard_error: See `FailureEstimate`; NaN where there is no tolerance.
        residual_median, residual_max: Over the uniform candidates.
        added: Parameters added, to the collocation points or to the snapshots, after this round.
        worst: The candidate with the largest residual.
        exact_solves: Exact solves so far.
        rank: Rank of the map.
        draws: Parameters from which the probability is estimated.
    """

    step: int = 0
    failure_probability: float = math.nan
    standard_error: float = math.nan
    residual_median: float = math.nan
    residual_max: float = math.nan
    added: list[list[float]] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)
    exact_solves: int = 0
    rank: int = 0
    draws: int = 0

    def measured(self, r: np.ndarray, tol: float) -> Round:
        """Return the same state with residuals r (N,) at random parameters."""
        share = float((r > tol).mean())
        known = {"residual_median": float(np.median(r)), "residual_max": float(r.max()), "draws": len(r)}
        error = (share * (1 - share) / len(r)) ** 0.5
        return replace(self, failure_probability=share, standard_error=error, **known)


@dataclass(frozen=True)
class Event:
    """A place where vectors cannot be followed one by one, or change their order.

    Attributes:
        kind: ``"crossing"``: two values change their order and their vectors go on smoothly (or an avoided crossing
            is narrower than the distance of the snapshots, which they cannot tell); ``"avoided crossing"``: two
            values come close and their vectors turn into each other; ``"loop"``: transport around a loop turns a
            vector (a Berry phase); ``"cut"``: a vector leaves the span of those that are followed.
        labels: The vectors concerned, by their order at the snapshot from which they are followed, from 0.
        parameter: Where; of several such places next to each other, the one with the smallest gap. A loop around two
            values is given by the place at which they are closest; where it leaves a cut on a periodic axis, by the end
            of the axis.
        gap: Difference of the two values there (of a cut, to the nearest that is followed), relative to the largest
            value; NaN where there is none. Of an avoided crossing it is that of the nearest snapshot, so not less than
            the least; of a loop it is estimated from the snapshots around: about zero where the two meet.
        phase: For a loop, the angle in radians by which it turns the vector; else 0.
    """

    kind: str
    labels: tuple[int, ...]
    parameter: list[float]
    gap: float
    phase: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))  # a file has lists

    def __str__(self) -> str:
        where = ", ".join(f"{x:.4g}" for x in self.parameter)
        return f"{self.kind} of {' and '.join(map(str, self.labels))} at {where}"


@dataclass(frozen=True)
class Unmet:
    """A box in which a tolerance is not met.

    Attributes:
        lower, upper: Its bounds, in the units of the parameters.
        reason: Why.
    """

    lower: list[float]
    upper: list[float]
    reason: str

    def __str__(self) -> str:
        sides = " x ".join(f"[{a:.6g}, {b:.6g}]" for a, b in zip(self.lower, self.upper))
        return f"{sides}: {self.reason}"


@dataclass
class Report:
    """How a surrogate was fitted.

    Attributes:
        method: Class name of the method, and ``settings``, its arguments.
        rank: r, the largest of the factors.
        seed: As given to `fit`, and ``tol`` and ``budget``.
        met: Whether the tolerance is met: in every piece the fresh parameters that it was given pass, and over the box,
            uniform on its scales, at most the target share exceeds it; where a grid was solved as a whole, at its
            points. ``unmet``: the boxes where it is not, and why.
        stop_reason: Why the fit ended, and ``message``, what else there is to know: why it ended early, or
            what it had to do without.
        seconds: Wall time of the fit, everything included.
        exact_solves: Exact solutions computed.
        residual_evaluations: Parameters at which the residual was evaluated to estimate the failure probability.
        singular: Parameters at which an exact solution was tried and failed: snapshots, and, after a training that ends
            with large residuals, the worst candidates.
        collocation: Number of collocation points at the end: parameters at which the fit used A(p).
        steps, losses: Optimiser steps, and the training loss averaged since the step before in the list.
        rounds: One entry per round of adaptive sampling, or check at fresh parameters.
        events: What was met in aligning the factors of the snapshots: crossings, Berry phases.
        version: Version of this library.
    """

    method: str
    settings: dict[str, object]
    rank: int
    seed: int
    tol: float | None = None
    budget: int | None = None
    met: bool = False
    unmet: list[Unmet] = field(default_factory=list)
    stop_reason: StopReason = StopReason.STEPS
    message: str = ""
    seconds: float = 0.0
    exact_solves: int = 0
    residual_evaluations: int = 0
    singular: list[list[float]] = field(default_factory=list)
    collocation: int = 0
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    version: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return plain numbers, strings, lists and dictionaries; NaN and Inf, which JSON lacks, as strings."""
        return _mapped(asdict(self), lambda x: str(x) if isinstance(x, float) and not math.isfinite(x) else x)

    @classmethod
    @checks.explained
    def from_dict(cls, data: dict) -> Report:
        """Rebuild a report from `to_dict`."""
        data = _mapped(data, lambda x: float(x) if x in _NOT_FINITE else x)
        rebuilt = {name: [kind(**entry) for entry in data[name]] for name, kind in _PARTS.items()}
        return cls(**{**data, **rebuilt, "stop_reason": StopReason(data["stop_reason"])})

    @checks.explained
    def probability(self, entry: Round) -> str:
        """Return the failure probability of a round as a text: ``"< 1/N"``, not 0, where none of the N draws failed.

        It stays an estimate: a bound would be several times larger.
        """
        none = entry.failure_probability == 0 and entry.draws
        return f"< 1/{entry.draws:,}" if none else f"{entry.failure_probability:.2g}"

    def __str__(self) -> str:
        solves = f"{self.exact_solves} exact solves, {self.collocation} collocation points"
        parts = [f"{self.method}, rank {self.rank}: {self.seconds:.2g} s, {solves}"]
        for final in self.rounds[-1:]:
            parts[0] += f", residual up to {final.residual_max:.2g} on fresh parameters"
            if not math.isnan(final.failure_probability):
                parts[0] += f", failure probability {self.probability(final)} (estimate)"
        parts += map(str, self.events[:3])
        if len(self.events) > 3:
            parts.append(f"and {len(self.events) - 3} more")
        message = f" ({self.message})" if self.message else ""
        return "; ".join([*parts, f"stopped because {self.stop_reason}{message}"])


# What a report holds lists of, and how JSON writes the numbers that it lacks.
_PARTS = {"rounds": Round, "events": Event, "unmet": Unmet}
_NOT_FINITE = ("nan", "inf", "-inf")


@cache
def library_version() -> str:
    """Return the version of the installed library, or "unknown" in a source tree that is not installed."""
    try:
        return version("neumatc")
    except PackageNotFoundError:
        return "unknown"


def _mapped(value: object, leaf: Callable[[object], object]) -> object:
    """Apply a function to what nested lists and dictionaries hold."""
    if isinstance(value, dict):
        return {key: _mapped(entry, leaf) for key, entry in value.items()}
    return [_mapped(entry, leaf) for entry in value] if isinstance(value, list) else leaf(value)
