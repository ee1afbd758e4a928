"""Conformance of operations: what the library relies on, checked on a user's own matrices, in any test runner."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from neumatc import checks
from neumatc.box import Box
from neumatc.closed_form import ClosedForm
from neumatc.families import ParametricMatrix
from neumatc.fitting import fit
from neumatc.linalg import wide
from neumatc.operations import Factors, Operation, checked
from neumatc.problem import Problem
from neumatc.storage import load, save

# Matrices that are drawn from a family.
_DRAWN = 8
# Sizes of errors in double precision: two in the range where the residual is proportional to them, with how far from
# that it may be; and those at which a bound is tried.
_SMALL, _TENFOLD = (1e-6, 1e-5), (5, 20)
_ERRORS = (1e-9, 1e-6, 1e-3, 1e-2, 0.1, 1.0)
# Rounding that a bound need not count.
_ROUNDING = 1e4 * torch.finfo(torch.float64).eps


@checks.full_precision
def check_operation(
    operation: Operation,
    matrices: ParametricMatrix | Tensor,
    *,
    failing: Tensor | None = None,
    units: float = 1e4,
    seed: int = 0,
) -> list[str]:
    """Check an operation of your own: that it does what fits, certificates and files rely on.

    The checks are named: ``memory``, which A keeps; ``shapes``; ``residual of the solution``, which is rounding;
    ``gauge``, where `align` must not change the answer; ``failures`` and ``batches``, which concern no other matrix;
    ``file``, in which a surrogate finds its operation again by name and settings; and in double precision ``residual
    of errors``, in proportion to them; ``gradient`` of the loss; and ``bound``, which no error is above. Real matrices
    are tried in all four dtypes, complex ones in both precisions. A check can refute a claim and never prove it.

    Args:
        operation: What to check.
        matrices: For which it has solutions with condition numbers below some hundred: a family, of which a few are
            drawn, or a tensor (B, m, n) of at least two, which vary slowly from one to the next, in double precision.
        failing: A matrix (m, n) without a solution, for which a failure must be reported.
        units: How many rounding units an exact solution and its residual may be off.
        seed: Of the errors that are tried.

    Returns:
        The names of the checks that were made; all have passed.

    Raises:
        AssertionError: With the name of the check that failed, the dtype, and the offending numbers. What the operation
            itself raises comes through: failures are to be reported in the mask.

    Example:
        >>> import torch, neumatc as nm
        >>> family = nm.families.trigonometric(size=4, shift=3, dtype=torch.float64)
        >>> "bound" in nm.testing.check_operation(nm.Inverse(), family, failing=torch.zeros(4, 4))
        True
    """
    checks.instance("operation", operation, Operation, "an operation such as nm.Inverse()")
    units, seed = checks.number("units", units, above=0), checks.seed(seed)
    if isinstance(matrices, ParametricMatrix):
        x = torch.linspace(-0.99, 0.99, _DRAWN, dtype=torch.float64)[:, None]
        A = matrices(matrices.box.parameters(x.expand(-1, matrices.dimension)))
    else:
        A = checks.instance("matrices", matrices, Tensor, "a family or a tensor")
        A = checks.matrices("matrices", A, torch.arange(A.shape[0] if A.ndim else 0)[:, None])  # named by their place
        x = torch.linspace(-1, 1, len(A), dtype=torch.float64)[:, None]
    checks.require(len(A) > 1, "matrices", "at least two", len(A), "give more")
    done: dict[str, None] = {}
    for dtype in (dtype for dtype in checks.DTYPES if A.is_complex() <= dtype.is_complex):
        case = _Case(operation, A.to(dtype), x, failing, units, torch.Generator().manual_seed(seed))
        for check in _CHECKS + (_IN_DOUBLE if checks.real_dtype(dtype) is torch.float64 else ()):
            name = check.__name__[1:].replace("_", " ")
            for good, message in check(case):
                done[name] = None
                if not good:
                    raise AssertionError(f"{name}: {message} ({operation}, {dtype})")
    return list(done)


Findings = Iterator[tuple[bool, str]]


@dataclass
class _Case:
    operation: Operation
    A: Tensor
    x: Tensor
    failing: Tensor | None
    units: float
    generator: torch.Generator

    def solved(self, A: Tensor | None = None) -> Factors:
        return checked(self.operation.exact, self.A if A is None else A)[0]

    def small(self, value: Tensor, what: str) -> tuple[bool, str]:
        """Whether values are rounding."""
        limit, worst = self.units * torch.finfo(self.A.dtype).eps, float(value.nan_to_num(nan=torch.inf).max())
        return worst <= limit, f"{what} is {worst:.3g}, above rounding, {limit:.3g}"

    def errors(self, exact: Factors) -> tuple[list[Tensor], list[Tensor]]:
        """Errors as large as the solution: random ones, and the solution itself."""
        drawn = [torch.randn(x.shape, dtype=wide(x).dtype, generator=self.generator).to(x) for x in exact]
        return [d * x.abs().square().mean().sqrt() for d, x in zip(drawn, exact)], list(exact)


def _shapes(case: _Case) -> Findings:
    (factors, mask), count, dtype = case.operation.exact(case.A), len(case.A), case.A.dtype
    factors = (*factors, mask, case.operation.residual(case.A, factors))
    found = [(tuple(x.shape), x.dtype) for x in factors]
    expected = [((count, *f.shape), f.dtype(dtype)) for f in case.operation.factors(*case.A.shape[1:])]
    expected += [((count,), torch.bool), ((count,), checks.real_dtype(dtype))]
    yield found == expected, f"factors, mask and residual are {found} where {expected} are stated"
    yield not mask.any(), f"{int(mask.sum())} of {count} exact solutions failed"


def _residual_of_the_solution(case: _Case) -> Findings:
    yield case.small(case.operation.residual(case.A, case.solved()), "the residual of an exact solution")


def _gauge(case: _Case) -> Findings:
    if not case.operation.unique:
        fitted, _ = case.operation.align(case.x, checked(case.operation.snapshots, case.A)[0])
        exact = case.solved()
        aligned = [x.clone() if x.shape == y.shape else torch.empty_like(y) for x, y in zip(fitted, exact)]
        case.operation.finish(fitted, aligned)
        yield case.small(case.operation.error(aligned, exact), "the error of aligned solutions")
        yield case.small(case.operation.residual(case.A, aligned), "the residual of aligned solutions")


def _failures(case: _Case) -> Findings:
    """With another matrix in the first place: one without solution, and the zero that stands for an undefined one."""
    exact = case.solved()
    for bad in (torch.zeros_like(case.A[0]), case.failing):
        if bad is not None:
            factors, failed = checked(case.operation.exact, torch.cat([bad.to(case.A)[None], case.A[1:]]))
            yield bad is not case.failing or bool(failed[0]), "a failure is not reported"
            yield not failed[1:].any(), "one failure is reported for others, too"
            yield case.small(case.operation.error(factors, exact)[1:], "the change of others beside a failure")


def _batches(case: _Case) -> Findings:
    exact, alone = case.solved(), case.solved(case.A[-1:])
    yield case.small(case.operation.error(alone, [x[-1:] for x in exact]), "what differs for a matrix alone")


def _memory(case: _Case) -> Findings:
    A = case.A.clone()
    factors = case.operation.exact(A)[0]
    case.operation.residual(A, factors)
    yield torch.equal(A, case.A), "`exact` or `residual` changes its argument"
    for x in factors:
        x.zero_()
    yield torch.equal(A, case.A), "a factor shares the memory of A"


def _file(case: _Case) -> Findings:
    """Fit a constant family, write it to a file, and read it again."""
    A, box = case.A[:1], Box(0.0, 1.0, dtype=checks.real_dtype(case.A.dtype), device=case.A.device)
    family = ParametricMatrix(lambda p: A.expand(len(p), -1, -1).clone(), box.lower, box.upper)
    surrogate = fit(Problem(family, case.operation), rank=1, method=ClosedForm(snapshots=2), progress=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "operation.safetensors"
        save(surrogate, path)
        loaded = load(path, A.device)
    yield loaded.operation == case.operation, f"the file gives {loaded.operation} back"
    value = loaded(box.lower[None])
    factors = (value,) if isinstance(value, Tensor) else tuple(value)
    yield case.small(case.operation.error(factors, case.solved(A)), "the error of a constant map")


def _residual_of_errors(case: _Case) -> Findings:
    exact = case.solved()
    error, _ = case.errors(exact)
    small, large = (case.operation.residual(case.A, [x + s * e for x, e in zip(exact, error)]) for s in _SMALL)
    least, most = (large / small).aminmax()
    good = bool(least > _TENFOLD[0] and most < _TENFOLD[1])
    yield good, f"ten times the error has {float(least):.3g} to {float(most):.3g} times the residual"


def _gradient(case: _Case) -> Findings:
    exact = case.solved()
    near = [(x + 0.1 * e).requires_grad_() for x, e in zip(exact, case.errors(exact)[0])]
    settings = {"fast_mode": True, "raise_exception": False}
    good = torch.autograd.gradcheck(lambda *factors: case.operation.loss(case.A, factors), near, **settings)
    yield good, "the gradient of `loss` by the factors is not that of finite differences"


def _bound(case: _Case) -> Findings:
    exact = case.solved()
    for error in case.errors(exact) if case.operation.certainty == "bound" else ():
        for size in _ERRORS:
            factors = [x + size * e for x, e in zip(exact, error)]
            bound, true = case.operation.error_bound(case.A, factors), case.operation.error(factors, exact)
            worst = (true - bound).nan_to_num(nan=torch.inf).argmax()
            good = bool((true <= bound + _ROUNDING).all())
            yield good, f"an error of {float(true[worst]):.3g} is above its bound, {float(bound[worst]):.3g}"


_CHECKS = (_memory, _shapes, _residual_of_the_solution, _gauge, _failures, _batches, _file)
_IN_DOUBLE = (_residual_of_errors, _gradient, _bound)
