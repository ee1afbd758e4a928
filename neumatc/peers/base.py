"""What the peers have in common: the result, its timing, exact solutions at a design, and linear maps."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor

from neumatc import checks, sampling
from neumatc.families import ParametricMatrix
from neumatc.problem import Problem


@dataclass(frozen=True, eq=False)
class Peer:
    """A classical method, ready to be evaluated.

    Attributes:
        name: Name of the method, for tables.
        exact_solves: Exact solves spent on building it, failed ones included.
        terms: Matrices (or vectors, or frames) that one evaluation sums, the rank of its map.
        lower, upper: The box of parameters, shape (d,).
        evaluate: The map p -> X on parameters that were checked.
        seconds: Wall time of building it, exact solves included.
        details: What else the method found, by name; its function says what.
    """

    name: str
    exact_solves: int
    terms: int
    lower: Tensor = field(repr=False)
    upper: Tensor = field(repr=False)
    evaluate: Callable[[Tensor], Tensor | tuple[Tensor, ...]] = field(repr=False)
    seconds: float = 0.0
    details: Mapping[str, object] = field(default_factory=dict)

    @checks.full_precision
    @torch.no_grad()
    def __call__(self, p: Tensor, *, extrapolate: bool = False) -> Tensor | tuple[Tensor, ...]:
        """Evaluate at a batch of parameters.

        Args:
            p: Shape (B, d), float32 or float64, inside the box, on the family's device.
            extrapolate: Allow parameters outside the box.

        Returns:
            What `Problem.exact` returns as the value: X, shape (B, n, n), or the factors as a named tuple; of the
            family's precision and device, without gradients.

        Raises:
            ValueError: If p is empty, of another width, not finite, or outside the box.
            TypeError: If p is not a real floating tensor.
        """
        return self.evaluate(checks.points(p, self.lower, self.upper, extrapolate=extrapolate))


def timed(build: Callable[..., Peer], *, several: bool = False) -> Callable[..., Peer]:
    """Decorate a builder: check the problem before, and enter the time that building took.

    Args:
        build: Takes a problem with one factor, and returns the peer.
        several: Allow operations with several factors.
    """

    @checks.full_precision
    @functools.wraps(build)
    def wrapper(problem: Problem, *args: object, **options: object) -> Peer:
        if not isinstance(problem, Problem):
            raise TypeError(f"`problem`: expected a nm.Problem, got {checks.describe(problem)}.")
        if len(problem.factors) != 1 and not several:
            names = ", ".join(factor.name for factor in problem.factors)
            raise ValueError(
                f"`problem`: expected an operation with one factor, such as nm.Inverse(), got {problem.operation} "
                f"with the factors {names}; interpolation does not align the gauges that several factors need, "
                "`reduced_basis` does without."
            )
        start = time.perf_counter()
        with torch.no_grad():
            peer = build(problem, *args, **options)
        if problem.family.device.type == "cuda":
            torch.cuda.synchronize(problem.family.device)
        return replace(peer, seconds=time.perf_counter() - start)

    return wrapper


def one_parameter(problem: Problem) -> ParametricMatrix:
    """Return the family, if it has one parameter."""
    if problem.family.dimension != 1:
        raise ValueError(
            f"`problem`: expected a family of one parameter, got {problem.family.dimension}; take `chebyshev`, `rbf` "
            "or `pod_regression`."
        )
    return problem.family


def unit(family: ParametricMatrix, p: Tensor) -> Tensor:
    """Scale parameters from the box to [0, 1]^d, in double precision."""
    lower = family.lower.double()
    return (p.double() - lower) / (family.upper.double() - lower)


def from_unit(family: ParametricMatrix, x: Tensor) -> Tensor:
    """Scale x in [0, 1]^d to the box, in the precision of its bounds."""
    return torch.lerp(family.lower.double(), family.upper.double(), x.to(family.device)).to(family.lower)


def scattered(family: ParametricMatrix, count: int, seed: int) -> Tensor:
    """Return parameters for scattered snapshots, those of `sampling.design`."""
    return from_unit(family, (1 + sampling.design(count, family.dimension, checks.seed(seed))[0]) / 2)


def solve(problem: Problem, p: Tensor, needed: int) -> tuple[Tensor, Tensor, int]:
    """Solve at p (N, d): the parameters and solutions that succeeded, and how many failed."""
    if len(torch.unique(p, dim=0)) < len(p):
        raise ValueError(
            f"`problem`: expected a box that holds {len(p)} parameters of the design that differ in {p.dtype}, got "
            f"{problem.family.lower.tolist()} to {problem.family.upper.tolist()}; give the box in double precision."
        )
    X, failed = problem.exact(p)
    count = int(failed.sum())
    enough(p, count, needed)
    return (p[~failed], X[~failed], count) if count else (p, X, 0)


def enough(p: Tensor, failures: int, needed: int) -> None:
    """Raise ValueError if fewer than ``needed`` exact solutions came from the parameters p (N, d)."""
    if len(p) - failures < needed:
        raise ValueError(
            f"`problem`: expected at least {needed} exact solutions, got {len(p) - failures} from {len(p)} parameters "
            f"between {p.amin(dim=0).tolist()} and {p.amax(dim=0).tolist()}; restrict the box to where A(p) is regular."
        )


def rows(X: Tensor) -> Tensor:
    """View X (N, ...) as real rows, real and imaginary parts side by side."""
    return (torch.view_as_real(X.resolve_conj()) if X.is_complex() else X).reshape(len(X), -1)


def from_rows(flat: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """View real rows as X (N, *shape), of the dtype of the solutions that they stand for."""
    X = torch.view_as_complex(flat.view(len(flat), -1, 2)) if dtype.is_complex else flat
    return X.view(len(flat), *shape)


def linear(
    name: str, problem: Problem, X: Tensor, failed: int, basis: Callable, values: Tensor, **details: object
) -> Peer:
    """Return the map phi(p) @ values, rows like those of the samples X; phi: a tensor, an array, or a sparse array."""
    family = problem.family
    values = values.to(family.device, checks.real_dtype(X.dtype)).contiguous()

    def evaluate(p: Tensor) -> Tensor:
        phi = basis(unit(family, p))
        if issparse(phi) and family.device.type == "cpu":
            flat = torch.from_numpy(phi.astype(values.numpy().dtype) @ values.numpy())
        else:
            phi = phi.toarray() if issparse(phi) else phi
            flat = torch.as_tensor(np.asarray(phi) if not isinstance(phi, Tensor) else phi).to(values) @ values
        return from_rows(flat, X.shape[1:], X.dtype)

    return Peer(name, len(X) + failed, len(values), family.lower, family.upper, evaluate, details=details)
