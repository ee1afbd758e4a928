r"""Phases that turn fast along a parameter: taken out of A before a fit, put back into its factors at evaluation.

A receiver whose window begins early by tau sees :math:`H(f) e^{-2 \pi j f \tau}`. Its filters turn with the channel,
tens or hundreds of times over a band, and a fit would pay for every turn. But for :math:`A = D_r A_0 D_c` with diagonal
unitary D_r(p) and D_c(p) the factors of many operations are those of A_0 with rows and columns turned
(`Operation.turns`), and residuals are the same. So phases linear in p are estimated from A(p), a slope for each column
or row and axis, and the map is that of the factors of A_0.

Turns are one tensor of shape (m + n, d), float64: of each row of A, then of each column, the radians for half a box.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from neumatc import checks, sampling, threads
from neumatc.batches import at_once
from neumatc.box import Box
from neumatc.families import FamilyError, ParametricMatrix
from neumatc.operations import Operation

# Places at which A is compared with itself some steps further, fewer of large matrices, for so many numbers; and the
# steps, in half boxes. The first tells slopes of up to two thousand turns over the box, each further one refines it.
_PLACES, _NUMBERS, _STEPS = (4, 32), 2**12, tuple(2.0**k for k in (-11, -9, -7, -5, -3, -1))
# Correlation over the first step below which there is no phase; the part of it that is left over the last one that
# counts; and how far its phase may be off what the one before promises, in radians.
_RELATED, _LEFT, _OFF = 0.5, 0.7, 1.0
# A turn pays from so many radians over the box, and so many times the spread of the slopes in a column, since what X
# itself takes, several spreads to either side, stays. The correlation says so over a step of at most _FAR radians,
# where noise may take _NOISE of it.
_LEAST, _CLEAR, _FAR, _NOISE = 8 * math.pi, 10.0, 8.0, 0.05
# Points of a grid below which all of them are solved anyway, and the part of a slope by which common ones may differ.
_FEW, _COMMON = 32, 0.2
# What is left of a slope by rounding.
_EQUAL = 1e-9
# Numbers of a factor that a thread turns at a time.
_PART = 2**20


class Straight(ParametricMatrix):
    """The family A_0 that is left of A when its turns are taken out; the rest is as in A.

    Args:
        family: A.
        turns: Of A, shape (m + n, d).
    """

    def __init__(self, family: ParametricMatrix, turns: Tensor):
        vars(self).update(vars(family))
        self.family, self.turns = family, turns.to(family.device)

    def _values(self, p: Tensor, *, anything: bool = False) -> Tensor:
        A, m = self.family._values(p, anything=anything), self.shape[0]
        phases = _phases(self.box.cube(p), -self.turns, A.dtype)
        return A * phases[:, :m, None] * phases[:, None, m:]

    def _at_once(self, families: Sequence[ParametricMatrix]) -> Callable[[Tensor], Tensor] | None:
        own, m = at_once([family.family for family in families]), self.shape[0]
        turns = torch.cat([family.turns for family in families])

        def fn(p: Tensor) -> Tensor:
            phases = _phases(self.box.cube(p), -turns, self.dtype).unflatten(1, (len(families), -1))
            return own(p) * phases[:, :, :m, None] * phases[:, :, None, m:]

        return own and fn


@torch.no_grad()
def straightened(families: Sequence[ParametricMatrix], operation: Operation) -> list[ParametricMatrix]:
    """Return families of one shape and dtype without turns, where they have some that pay; real matrices have none.

    Each column and each row is correlated with itself some steps further along every linear axis that is not periodic.
    Of noise, and of many slopes at once, no correlation is left. What turns all of a column is taken out first, or of a
    row, where that is the clearer; where rows and columns have many slopes each, neither is.
    """
    sides = _counts(operation, *families[0].shape)
    if not sides or not families[0].dtype.is_complex:
        return list(families)
    every = at_once(families)
    return [own for group in ([families] if every else zip(families)) for own in _straightened(group, every, operation)]


def _straightened(
    families: Sequence[ParametricMatrix], every: Callable[[Tensor], Tensor] | None, operation: Operation
) -> list[ParametricMatrix]:
    """Do that for one family, or for several that are evaluated at once."""
    first = families[0]
    if first.count < _FEW:
        return list(families)
    try:
        samples = {axis: _samples(families, every, axis) for axis in _axes(first.box)}
    except FamilyError:  # the fit says where
        return list(families)
    return [
        _turned(family, {axis: (A[:, :, k], x) for axis, (A, x) in samples.items()}, operation)
        for k, family in enumerate(families)
    ]


def _turned(
    family: ParametricMatrix, samples: dict[int, tuple[Tensor, Tensor]], operation: Operation
) -> ParametricMatrix:
    """Return a family without turns, of which there are samples along axes."""
    m, n = family.shape
    sides, turns = _counts(operation, m, n), torch.zeros(m + n, family.dimension, dtype=torch.float64)
    for axis, (A, x) in samples.items():
        A, left = A / A.abs().amax().clamp_min(torch.finfo(A.dtype).tiny), dict(sides)
        while left:
            found = {side: _slopes(_sided(A, side)[..., :count], x) for side, count in left.items()}
            side = min(found, key=lambda side: found[side][1] * (2 if side == "rows" else 1))
            slopes, count = found[side][0], left.pop(side)
            if not slopes.any():
                break
            own = turns[m:, axis] if side == "columns" else turns[:m, axis]
            own[:count] = slopes
            A = _sided(_sided(A, side) * _unit(-x[:, :, None, None] * own).to(A), side)
    if not operation.unique and sides == {"rows": m, "columns": n}:
        # A phase that all of A shares may be told of either side: half of it on each is the smallest step of factors.
        turns = _moved(turns, m, (turns[m:].mean(dim=0) - turns[:m].mean(dim=0)) / 2)
    return Straight(family, turns) if turns.any() else family


def _moved(turns: Tensor, m: int, slopes: Tensor) -> Tensor:
    """Return turns of the same A with slopes (d,) more on each of the m rows, and less on each column."""
    return torch.cat([turns[:m] + slopes, turns[m:] - slopes])


def _sided(A: Tensor, side: str) -> Tensor:
    """Return A with the columns last, or the rows."""
    return A if side == "columns" else A.mT


def _counts(operation: Operation, m: int, n: int) -> dict[str, int]:
    """Return which sides of A turn factors, and how many rows or columns, from the first."""
    named = zip(operation.turns, operation.factors(m, n))
    return {side.removeprefix("-"): count for own, f in named for side, count in zip(own, f.shape) if side}


def _samples(
    families: Sequence[ParametricMatrix], every: Callable[[Tensor], Tensor] | None, axis: int
) -> tuple[Tensor, Tensor]:
    """Return A (steps, places, N, m, n) of N families at places, and steps of an axis further, and where (.., ..)."""
    family, (m, n) = families[0], families[0].shape
    places = max(_PLACES[0], min(_PLACES[1], _NUMBERS // (m * n)))
    ones = torch.ones(family.dimension, dtype=torch.float64)
    x = sampling.sobol(places, -ones, ones).repeat(1 + len(_STEPS), 1, 1)
    towards = torch.where(x[0, :, axis] < 0, 1.0, -1.0)  # the middle
    x[1:, :, axis] += torch.tensor(_STEPS).double()[:, None] * towards
    if family.box.ticks is not None:
        x[:, :, axis] = _neighbours(family.box.places[axis].cpu(), x[:, :, axis])
    elif family.grid is not None and family.dimension == 1:
        x = _neighbours(family.box.cube(family.grid).cpu()[:, 0].unique(), x[:, :, 0])[:, :, None]
    p = family.box.here.parameters(x.flatten(0, 1))
    x, p = family.box.here.cube(p)[:, axis], p.to(family.device)
    A = checks.defined(every(p).flatten(0, 1))[0] if every else family.evaluate(p)[0]
    return A.cpu().view(-1, places, len(families), m, n), x.view(-1, places)


def _neighbours(grid: Tensor, x: Tensor) -> Tensor:
    """Move places x[0], and those some steps further, to points of a grid, the steps to one point at least."""
    after = torch.searchsorted(grid, x.contiguous()).clamp(1, len(grid) - 1)
    nearest = torch.where(x - grid[after - 1] < grid[after] - x, after - 1, after)
    towards = torch.where(x[1] > x[0], 1, -1)
    nearest[1:] = torch.where(nearest[1:] == nearest[0], nearest[0] + towards, nearest[1:])
    return grid[nearest.clamp(0, len(grid) - 1)]


def _slopes(A: Tensor, x: Tensor) -> tuple[Tensor, float]:
    """Return slopes of phases of the columns, in radians for half a box, and how wide they spread within a column.

    Zeros and Inf where they do not pay.

    A column's phase over a step is that of its correlation, which is unambiguous for the first; the longer the step,
    the better it tells the slope, until the slopes within the column have spread.

    Args:
        A, x: Of a family, as `_samples` gives them.
    """
    slopes, found = torch.zeros(A.shape[-1], dtype=torch.float64), []
    size = A.abs().square().sum(dim=(1, 2)).double()  # of each step and column
    for own, h, norm in zip(A[1:], x[1:] - x[0], (size[0] * size[1:]).sqrt()):
        total = (A[0].conj() * own).sum(dim=1)
        total, h, mean = torch.where((h < 0)[:, None], total.conj(), total), h.abs(), h.abs().mean()
        total = (total * _unit(-h[:, None] * slopes)).sum(dim=0)
        related, angle = total.abs() / norm, total.angle()
        if not found:
            first, known, width = related, (related >= _RELATED) & (mean > 0), slopes
            held = known
        else:
            held = held & (related >= _LEFT * first) & (angle.abs() <= _OFF)
        slopes = torch.where(held, slopes + angle / mean, slopes)
        if 2 * slopes.abs().max() < _LEAST:  # mostly after one step
            return torch.zeros_like(slopes), math.inf
        width = torch.where(held, _spread(related / first) / mean, width)
        found.append((_spread(related / first + _NOISE) / mean, mean.expand_as(related)))
    spread, lengths = map(torch.stack, zip(*found))
    # Few slopes far away show over short steps alone.
    spread = torch.where(slopes.abs() * lengths <= _FAR, spread, 0).amax(dim=0)[known]
    # What is left turns as fast as its slopes spread, as a channel does whose first path has no delay: measured, pieces
    # of what does not turn at all take a fifth more nodes.
    if slopes.abs().max() < _CLEAR * spread.max():
        return torch.zeros_like(slopes), math.inf
    return torch.sign(slopes) * (slopes.abs() - width).clamp_min(0), float(width[known].max())


def _spread(correlation: Tensor) -> Tensor:
    """Return the standard deviation of normal phases with this correlation."""
    return (-2 * correlation.clamp(1e-3, 1).log()).sqrt()


def require_turns(
    turns: Tensor | None, operation: Operation, shape: tuple[int, int], box: Box, dtypes: Sequence[torch.dtype]
) -> None:
    """Raise unless turns, if any, are those of an operation on matrices of a shape, with such factors, in a box."""
    if turns is None:
        return
    expected, got = f"finite float64 numbers of shape {(sum(shape), box.dimension)}", checks.describe(turns)
    good = turns.shape == (sum(shape), box.dimension) and turns.dtype == torch.float64 and turns.isfinite().all()
    checks.require(good, "turns", expected, got, "take those of a fit")
    able = operation.turns and all(dtype.is_complex for own, dtype in zip(operation.turns, dtypes) if any(own))
    got, remedy = f"{operation} with factors of {[*dtypes]}", "leave them out"
    checks.require(able, "turns", "an operation whose factors turn, and are complex", got, remedy)
    fixed = [i for i in range(box.dimension) if i not in _axes(box)]
    checks.require(not turns[:, fixed].any(), "turns", "turns along linear axes only", f"others, of {box}", remedy)


def _axes(box: Box) -> list[int]:
    """Return the axes along which a phase may turn: linear ones at whose ends A need not be the same."""
    return [i for i, scale in enumerate(box.scale) if scale == "linear" and not box.periodic[i]]


def _unit(angles: Tensor) -> Tensor:
    """Return exp(j angles), in double precision, so that it does not matter how often they go around."""
    return torch.complex(angles.cos(), angles.sin())


def _phases(x: Tensor | list[Tensor], slopes: Tensor, dtype: torch.dtype) -> Tensor:
    """Return phases of slopes (k, d) at x (B, d), shape (B, k), or on the grid of axes (B_i, 1), where they vary."""
    if isinstance(x, Tensor):
        return _unit(x.double() @ slopes.T).to(dtype)
    found = [torch.ones((1,) * (len(x) + 1), dtype=dtype, device=slopes.device)]
    for i, (axis, own) in enumerate(zip(x, slopes.T)):
        if own.any():
            found.append(_unit(axis.double() * own).view(*[1] * i, len(axis), *[1] * (len(x) - i - 1), -1))
    return reduce(torch.mul, found).to(dtype)


# Slopes of the rows (-1) or columns (-2) of a factor, and that number: where phases get another axis.
_Turns = list[tuple[Tensor, int]]


def of_factors(operation: Operation, shape: tuple[int, int], turns: Tensor) -> list[_Turns]:
    """Return how each factor is turned."""
    sides, found = {"rows": turns[: shape[0]], "columns": turns[shape[0] :]}, []
    for own, factor in zip(operation.turns, operation.factors(*shape)):
        named = [(i, side.removeprefix("-"), -1 if side[0] == "-" else 1) for i, side in enumerate(own) if side]
        found.append([(sign * sides[side][: factor.shape[i]], -1 - i) for i, side, sign in named])
    return found


def turned(
    operation: Operation, shape: tuple[int, int], turns: Tensor, x: Tensor, factors: Sequence[Tensor]
) -> list[Tensor]:
    """Return the factors of A from those of A_0 at x (B, d), as a function of x."""
    factors = list(factors)
    for i, own in enumerate(of_factors(operation, shape, turns)):
        for slopes, place in own:
            factors[i] = factors[i] * _phases(x, slopes, factors[i].dtype).unsqueeze(place)
    return factors


def turn_(
    operation: Operation, shape: tuple[int, int], turns: Tensor, x: Tensor | list[Tensor], factors: Sequence[Tensor]
) -> None:
    """Make the factors of A from those of A_0 in place, at x (B, d) or on the grid of axes (B_i, 1)."""
    counts = [len(x)] if isinstance(x, Tensor) else [*map(len, x)]
    for own, factor in zip(of_factors(operation, shape, turns), factors):
        value = factor.view(*counts, *factor.shape[1:])
        found = [(_phases(x, slopes, factor.dtype), place) for slopes, place in own if slopes.any()]
        found = [phases.expand(*counts, -1).unsqueeze(place) for phases, place in found]

        def work(part: slice, value: Tensor = value, found: list[Tensor] = found) -> None:
            for phases in found:
                value[part].mul_(phases[part])

        size = counts[0] if factor.is_cuda else max(1, _PART * counts[0] // factor.numel())
        parts = [slice(start, start + size) for start in range(0, counts[0], size)]
        list(map(work, parts)) if factor.is_cuda else threads.each(work, parts)


def _alike(slopes: Tensor) -> Tensor:
    """Return along which axes slopes (k, d) are the same up to rounding."""
    return slopes.amax(dim=0) - slopes.amin(dim=0) <= _EQUAL * slopes.abs().amax(dim=0)


def told(turns: Tensor, box: Box, m: int) -> str:
    """Say what was taken out of a family with m rows, in the units of its parameters."""
    said, width = [], (box.upper - box.lower).double().cpu()
    # What all of A shares is said once, of the side whose slopes differ, or of the columns.
    rows, columns = turns[:m], turns[m:]
    shift = torch.where(_alike(columns) & ~_alike(rows), columns.mean(dim=0), -rows.mean(dim=0))
    turns = _moved(turns, m, torch.where(rows.any(dim=0) & columns.any(dim=0), shift, 0))
    turns = torch.where(turns.abs() > _EQUAL * turns.abs().amax(dim=0), turns, 0)
    for side, own in (("column", turns[m:].cpu()), ("row", turns[:m].cpu())):
        for slopes, name, unit, w in zip(own.T, box.names, box.units, width):
            if not slopes.any():
                continue
            cycles = slopes[slopes != 0] / math.pi / w
            kind, values, of = (
                ("delay", -cycles, "s") if unit == "Hz" else ("turn", cycles, f"cycles per {unit or name}")
            )
            low, high, middle = float(values.min()), float(values.max()), float(values.median())
            common = high - low <= _COMMON * abs(middle)
            each = f"per {side} {low:.3g} to {high:.3g}"
            said.append(f"a common {kind} of {middle:.3g} {of} ({each})" if common else f"{kind}s {each} {of}")
    several = len(said) > 1 or not said[0].startswith("a ")
    return (
        f"{' and '.join(said)} {'were' if several else 'was'} taken out of A and {'are' if several else 'is'} put back"
    )
