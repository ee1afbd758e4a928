"""What a fit did: numbers, histories and why it stopped, as plain data that a file can hold."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from neumatc import checks, plotting

# A relative residual above this is no approximation; a training that leaves one looks there for singular matrices.
LARGE_RESIDUAL = 0.1
# Columns of a printed report, and lines of one entry: a terminal, half filled.
_WIDTH, _LINES = 88, 3
_UNITS = {1.0: "s", 1e-3: "ms", 1e-6: "us", 0.0: "ns"}


class StopReason(StrEnum):
    """Why a fit ended."""

    RANK = "the map of the rank asked for is solved for"
    TOLERANCE = "the estimated failure probability is under the target"
    NOISE = "the map is as good as the noise of the samples lets it be"
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
        draws: Parameters from which probability and residuals are estimated.
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
        sides = " x ".join(map(_interval, self.lower, self.upper))
        return f"{sides}: {self.reason}"


def _interval(a: float, b: float) -> str:
    """Say an interval in as few digits, six at least, as tell its ends apart."""
    digits = next((k for k in (6, 9) if f"{a:.{k}g}" != f"{b:.{k}g}"), 17 if a != b else 6)
    return f"[{a:.{digits}g}, {b:.{digits}g}]"


@dataclass(repr=False)
class Report:
    """How a surrogate was fitted.

    Attributes:
        method: Class name of the method, and ``settings``, its arguments.
        rank: r, the largest of the factors.
        seed: As given to `fit`, and ``tol`` and ``budget``.
        met: Whether the tolerance is met: in every piece the fresh parameters that it was given pass, and over the box,
            uniform on its scales, so does every random one: at least 149 for one parameter and 192 for more, half as
            many where a residual takes an exact solve. (A rational function is asked at 32, as many between its
            samples, and more beside its poles.) So, at 95 % confidence, at most 2 % of the box exceeds it, or 4 %; the
            aim is 1 %. Where a grid was solved as a whole, at its points; of samples, between them too. ``unmet``: the
            boxes where not, and why.
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
        problem: What was fitted, in words, and ``pieces``, in how many; ``points``, the size of the family's grid or 0.
        samples: Of a family through samples: how many, and what leaving one out changes, or the noise and what
            smoothing leaves of it (`families.from_samples`).
        solve_seconds: Wall time of an exact solve with its A(p), in the fastest of the fit's batches; Inf without any.
        evaluation_seconds: Wall time of an evaluation, in a batch after the fit; of several problems, of one of them.
        advice: What to do where the fit warned.
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
    problem: str = ""
    pieces: int = 0
    points: int = 0
    samples: str = ""
    solve_seconds: float = field(default=math.inf, compare=False)
    evaluation_seconds: float = field(default=0.0, compare=False)
    advice: str = ""
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

    @property
    def break_even(self) -> float:
        """Number of parameters from which fit and evaluations take less time than exact solves, as this fit took them.

        A fit solves in small batches, which for small matrices takes longer for each solve than large batches do: the
        true number is larger, up to 200 times for 4 x 4 matrices, about the same from 32 x 32 on. On a loaded machine
        it is off both ways. Inf where an evaluation takes as long even so, NaN where the fit solved nothing exactly,
        and for a map of no use: with a tolerance, one of which half of the residuals are above 0.1.
        """
        gain = self.solve_seconds - self.evaluation_seconds
        useless = self.stop_reason is StopReason.SINGULAR or (self.tol is None and self.advice)
        useless = useless or any(last.residual_median > LARGE_RESIDUAL for last in self.rounds[-1:] if self.tol)
        if useless or not self.evaluation_seconds or not math.isfinite(gain):
            return math.nan
        return math.ceil(self.seconds / gain) if gain > 0 else math.inf

    def rows(self) -> list[tuple[str, list[str]]]:
        """Return what `print` shows, as names and the lines of their values."""
        kind = f"{self.pieces} pieces of at most {self.rank} terms" if self.pieces > 1 else f"one, of {self.rank} terms"
        solves = f"{self.exact_solves:,}, {self.collocation:,} collocation points; {duration(self.seconds)} in all"
        found = {"map": [f"{kind} ({self.method})"], "exact solves": [solves]}
        if self.tol is not None:
            more = [f"and {len(self.unmet) - 2} more"] if len(self.unmet) > 2 else []
            found["tolerance"] = [f"{self.tol:g}, {'met' if self.met else 'not met'}", *map(str, self.unmet[:2]), *more]
        for last in self.rounds[-1:]:
            fresh = f" at {last.draws:,} fresh parameters" if last.draws else ""
            found["residual"] = [f"up to {last.residual_max:.2g}, median {last.residual_median:.2g}{fresh}"]
            if not math.isnan(last.failure_probability):
                found["residual"].append(f"failure probability {self.probability(last)} (estimate)")
        found["samples"] = [self.samples]
        more = [f"and {len(self.events) - 3} more"] if len(self.events) > 3 else []
        found |= {"events": [*map(str, self.events[:3]), *more], "stopped": [str(self.stop_reason)]}
        found |= {"notes": [self.message], "what to do": [self.advice], "break-even": [self._pays()]}
        return [(name, lines) for name, lines in found.items() if any(lines)]

    def _pays(self) -> str:
        count, solve, own = self.break_even, duration(self.solve_seconds), duration(self.evaluation_seconds)
        if math.isnan(count):
            return ""
        if self.points and count > self.points:
            seconds = duration(self.points * self.solve_seconds)
            return f"never pays: the {self.points:,} points are solved exactly in {seconds}"
        if math.isinf(count):
            return f"never pays: an exact solve takes {solve}, an evaluation {own}"
        return f"pays from {count:,} parameters on at best: exact {solve} each, map {own}"

    def __repr__(self) -> str:
        state = "" if self.tol is None else f", tolerance {self.tol:g} {'met' if self.met else 'not met'}"
        return f"Report({self.method}, rank {self.rank}, {self.exact_solves} exact solves{state})"

    def __str__(self) -> str:
        rows = [row for row in self.rows() if row[1]]
        width = 2 + max(len(name) for name, _ in rows)
        lines = [textwrap.shorten(self.problem, _WIDTH, placeholder=" ...")] if self.problem else []
        for name, values in rows:
            cut = {"width": _WIDTH - width, "max_lines": _LINES, "placeholder": " ..."}
            wrapped = [line for value in values for line in textwrap.wrap(value, **cut)]
            lines += [f"{label:<{width}}{line}" for label, line in zip([name] + [""] * len(wrapped), wrapped)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return table(self.problem, self.rows())

    @checks.explained
    def plot(self, ax: object = None) -> object:
        """Plot the residuals of the rounds against the exact solves, or against the steps where those stay the same.

        Args:
            ax: matplotlib Axes to draw in; default: new ones.

        Returns:
            The Axes.

        Raises:
            ImportError: Without matplotlib.
            ValueError: For a report without rounds.
        """
        return plotting.rounds(self, ax)


class Shown:
    """How a surrogate shows itself: its report as a table, and pictures."""

    def _repr_html_(self) -> str:
        return table(self.report.problem, [("surrogate", [repr(self)]), *self.report.rows()])

    @checks.explained
    def plot(self, problem: object = None, *, points: int = 400, exact: bool = False, ax: object = None) -> object:
        """Plot residuals over the box, with pieces, nodes and events; needs matplotlib.

        One parameter: curves along it. Two: the pieces, and colours. More: the terms of each piece.

        Args:
            problem: What was fitted, for its residual; default: the norm of the first factor.
            points: Parameters, uniform on the scales of the box.
            exact: Draw the error against exact solutions too (of two parameters, instead).
            ax: matplotlib Axes to draw in; default: new ones.

        Returns:
            The Axes.

        Raises:
            ImportError: Without matplotlib.
            ValueError: With ``exact`` and no problem.
        """
        return plotting.surrogate(self, problem, checks.integer("points", points, 2), exact, ax)


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


def duration(seconds: float) -> str:
    """Write seconds in two digits and a unit from ns to s."""
    unit = next(unit for unit in _UNITS if seconds >= unit)
    return f"{seconds / (unit or 1e-9):.3g} {_UNITS[unit]}" if seconds < 100 else f"{seconds:,.0f} s"


def table(caption: str, rows: list[tuple[str, list[str]]]) -> str:
    """Write rows as an HTML table, which takes its colours from the page."""
    cells = ((html.escape(name), "<br>".join(map(html.escape, lines))) for name, lines in rows)
    body = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in cells)
    return f"<table><caption>{html.escape(caption)}</caption><tbody>{body}</tbody></table>"


def _mapped(value: object, leaf: Callable[[object], object]) -> object:
    """Apply a function to what nested lists and dictionaries hold."""
    if isinstance(value, dict):
        return {key: _mapped(entry, leaf) for key, entry in value.items()}
    return [_mapped(entry, leaf) for entry in value] if isinstance(value, list) else leaf(value)
