"""What the peers have in common: the result, its timing, exact solutions at a design, and linear maps."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import csr_array, issparse
from torch import Tensor

from neumatc import checks, threads
from neumatc.box import Box
from neumatc.linalg import from_rows, real_rows
from neumatc.problem import Problem


@dataclass(frozen=True, eq=False)
class Peer:
    """A classical method, ready to be evaluated.

    Attributes:
        name: Name of the method, for tables.
        exact_solves: Exact solves spent on building it, failed ones included.
        terms: Matrices (or vectors, or frames) that one evaluation sums, the rank of its map.
        box: The box of parameters.
        evaluate: The map p -> X on parameters that were checked.
        seconds: Wall time of building it, exact solves included.
        details: What else the method found, by name; its function says what.
    """

    name: str
    exact_solves: int
    terms: int
    box: Box = field(repr=False)
    evaluate: Callable[[Tensor], Tensor | tuple[Tensor, ...]] = field(repr=False)
    details: Mapping[str, object] = field(default_factory=dict)
    seconds: float = 0.0

    @checks.full_precision
    @torch.no_grad()
    def __call__(self, p: Tensor | ArrayLike, *, extrapolate: bool = False) -> object:
        """Evaluate at a batch of parameters.

        Args:
            p: Shape (B, d), inside the box, on the family's device; as the family's call takes it.
            extrapolate: Allow parameters outside the box.

        Returns:
            What `Problem.exact` returns as the value: X, shape (B, n, n), or the factors as a named tuple; of the
            family's precision and device, without gradients; arrays where p is one.

        Raises:
            ValueError: If p is empty, of another width, not finite, or outside the box.
            TypeError: If p is not made of real floating numbers.
        """
        return checks.like(p, self.evaluate(self.box.points(p, extrapolate=extrapolate)))


def builder(*, several: bool = False, axis: bool = False) -> Callable:
    """Decorate a builder, problem -> peer: check the problem before, and enter the time that building took.

    Args:
        several: Allow operations with several factors.
        axis: Refuse families of several parameters.
    """

    def decorate(build: Callable[..., Peer]) -> Callable[..., Peer]:
        @checks.explained
        @checks.full_precision
        @torch.no_grad()
        @functools.wraps(build)
        def wrapper(problem: Problem, *args: object, **options: object) -> Peer:
            checks.instance("problem", problem, Problem, "an nm.Problem")
            names, d = [factor.name for factor in problem.factors], problem.family.dimension
            remedy = "take `reduced_basis`, since interpolation does not align the gauges of several factors"
            single, got = several or len(names) == 1, ", ".join(names)
            checks.require(single, "problem", "an operation with one factor", got, remedy)
            checks.require(d == 1 or not axis, "problem", "a family of one parameter", d, "take `chebyshev`")
            start = time.perf_counter()
            peer = build(problem, *args, **options)
            if problem.family.device.type == "cuda":
                torch.cuda.synchronize(problem.family.device)
            return replace(peer, seconds=time.perf_counter() - start)

        return wrapper

    return decorate


@dataclass(frozen=True, eq=False)
class Solved:
    """The exact solutions that succeeded, X (N, ...) at x (N, d) of the cube, as real rows too; and how many failed."""

    problem: Problem
    x: Tensor
    X: Tensor
    rows: Tensor
    failed: int

    def map(self, name: str, basis: Callable[[Tensor], Tensor | np.ndarray | csr_array], values: Tensor, **details):
        """Return the peer phi(x) @ values, phi a tensor or a (sparse) array; values: real rows, or complex ones."""
        box, X, failed = self.problem.family.box, self.X, self.failed
        values = values.to(X.device, X.dtype if values.is_complex() else checks.real_dtype(X.dtype)).contiguous()

        def evaluate(p: Tensor) -> Tensor:
            phi = basis(box.cube(p))
            if issparse(phi) and values.device.type == "cpu":
                flat = torch.from_numpy(phi.astype(values.numpy().dtype) @ values.numpy())
            else:
                phi = torch.as_tensor(phi.toarray() if issparse(phi) else phi).to(values)
                flat = values.new_empty(len(phi), values.shape[1])
                threads.products([(phi, values, flat, None)])
            return flat.reshape(len(flat), *X.shape[1:]) if flat.is_complex() else from_rows(flat, X)

        return Peer(name, len(X) + failed, len(values), box, evaluate, details)


def solve(problem: Problem, p: Tensor, needed: int) -> Solved:
    """Solve at p (N, d), of which at least ``needed`` must succeed."""
    box = problem.family.box
    expected, distinct = f"a box in which {len(p)} parameters differ in {p.dtype}", len(torch.unique(p, dim=0))
    checks.require(distinct == len(p), "problem", expected, box, "give its bounds in double precision")
    X, failed = problem.exact(p)
    enough(problem, p, failed, needed)
    X = X[~failed]
    return Solved(problem, box.cube(p[~failed]), X, real_rows(X), int(failed.sum()))


def enough(problem: Problem, p: Tensor, failed: Tensor, needed: int) -> None:
    """Raise ValueError if fewer than ``needed`` exact solutions came from the parameters p (N, d)."""
    low, high, count = checks.row(p.amin(dim=0)), checks.row(p.amax(dim=0)), int((~failed).sum())
    got = f"{count} from {len(p)} parameters between {low} and {high}"
    expected, remedy = f"at least {needed} exact solutions", f"restrict the box to where {problem.operation.needs}"
    checks.require(count >= needed, "problem", expected, got, remedy)
