"""Which polynomials: those that interpolate at a design, and the degree and stretch for scattered points."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from neumatc import sampling
from neumatc.embeddings import Chebyshev

# Stretches that are tried in this order, as long as the error falls: strong, mild, plain.
_STRETCHES = (0.95, 0.8, 0.0)
# Most operations of the factorisations by which all candidates are judged: about half a second of one core. It bounds
# the number of polynomials where there are thousands of points.
_MOST_OPERATIONS = 2**33
# Polynomials for each point, at most: with more, errors at left-out points say little about those elsewhere.
_MOST_PER_POINT = 0.6
# Random combinations of the coefficients by which polynomials are judged: their error is that of all to a tenth.
_JUDGED = 64
# Candidates grow by at least this factor: what lies between hardly differs.
_GROWTH = 1.1
# Mean square of the error that counts as good as the least: 1.2 times its root.
_NEARLY = 1.44
# What a fit to coefficients need not resolve, in rounding units.
_ROUNDING_UNITS = 4


def penalty(dtype: torch.dtype) -> float:
    """Return the penalty on coefficients that weighs the error of a fit against rounding in its evaluation."""
    return _ROUNDING_UNITS * torch.finfo(dtype).eps


def interpolating(
    count: int, dimension: int, kind: str, dtype: torch.dtype, periodic: tuple[bool, ...] = ()
) -> Chebyshev | None:
    """Return the polynomials (on one periodic axis waves) that interpolate at `sampling.design`, if there are any."""
    if dimension == 1 and any(periodic):
        return Chebyshev(max(1, count - 1), periodic=periodic)
    if dimension == 1:
        return Chebyshev(max(1, count - 1), stretch=sampling.widest_stretch(count, penalty(dtype)))
    if kind == "tensor" and (side := sampling.tensor_side(count, dimension)) > 1:
        return Chebyshev(side - 1, "tensor")
    return None


def largest(terms: int, dimension: int) -> Chebyshev:
    """Return the Chebyshev polynomials of the largest total degree that are at most ``terms``, and at least one."""
    degree = 1
    while degree < terms and math.comb(degree + 1 + dimension, dimension) - 1 <= terms:
        degree += 1
    return Chebyshev(degree)


def choose(
    x: Tensor, weights: Tensor, Y: Tensor, tail: float = 0.0, periodic: tuple[bool, ...] = ()
) -> tuple[Chebyshev, float]:
    r"""Choose the polynomials that predict left-out values best, the fewest of those that are nearly as good.

    On periodic axes waves are tried before.

    The error at a point that was left out is its residual over 1 - h_i, with h_i the squared norm of row i of an
    orthogonal basis Q (Allen, Technometrics 16, 1974). Polynomials are ordered by their degree, so the leading columns
    of one Q serve every degree, and cumulative sums over them give all errors.

    Args:
        x: Points of the cube, shape (N, d), float64.
        weights: Positive, shape (N,), summing to one.
        Y: Values, shape (N, R), float64, scaled by their importance.
        tail: Mean square that is left out anyway; errors far below it are not worth more polynomials.
        periodic: Whether each axis is.

    Returns:
        The polynomials, of total degree, and the mean square of the error expected of them, with the tail.
    """
    count, dimension = x.shape
    affordable = math.isqrt(_MOST_OPERATIONS // (4 * len(_STRETCHES) * count))
    top = largest(min(int(_MOST_PER_POINT * count), affordable), dimension)
    if Y.shape[1] > _JUDGED:
        generator = torch.Generator().manual_seed(0)
        Y = Y @ (torch.randn((Y.shape[1], _JUDGED), dtype=Y.dtype, generator=generator) / math.sqrt(_JUDGED))
    variants = [replace(top, periodic=periodic)] if any(periodic) else []
    variants += [replace(top, stretch=stretch) for stretch in _STRETCHES]
    errors, best = {Chebyshev(1): math.inf}, math.inf
    for variant in variants if top.count(dimension) < count else ():
        own = _left_out(x, weights, Y, variant)
        errors |= {replace(variant, degree=degree): tail + error for degree, error in own.items()}
        last, best = best, min(errors.values())
        if best == last:
            break
    good = [space for space, error in errors.items() if error <= _NEARLY * best]
    chosen = min(good, key=lambda space: (space.degree, errors[space]))
    return chosen, errors[chosen]


def _left_out(x: Tensor, weights: Tensor, Y: Tensor, top: Chebyshev) -> dict[int, float]:
    """Return the mean square of the left-out errors of several degrees up to that of ``top``."""
    dimension = x.shape[1]
    degrees, terms = [0], [1]
    for degree in range(1, top.degree + 1):
        total = math.comb(degree + dimension, dimension)
        if total >= _GROWTH * terms[-1] or degree == top.degree:
            degrees, terms = [*degrees, degree], [*terms, total]
    root = weights.sqrt()[:, None]
    Q, _ = torch.linalg.qr(root * torch.cat([torch.ones_like(root), top.features(x, {})], dim=1))
    values = root * Y
    coefficients = Q.T @ values
    parts = [Q[:, a:b] @ coefficients[a:b] for a, b in pairwise([0, *terms])]
    residuals = values - torch.stack(parts).cumsum(dim=0)
    rest = 1 - Q.square().cumsum(dim=1)[:, [t - 1 for t in terms]].T[:, :, None]
    # What the others say nothing about is predicted as zero.
    free = rest > math.sqrt(torch.finfo(Y.dtype).eps)
    errors = torch.where(free, residuals / rest, values).square().sum(dim=(1, 2)).tolist()
    return dict(zip(degrees[1:], errors[1:]))
