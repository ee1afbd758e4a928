"""A fitted surrogate as plain arrays of NumPy, from which its forms outside Python are made.

A value takes four steps: parameters are scaled to the cube; each `Basis` is evaluated there; the product with the
latent tensor gives each factor; an ending, if any, puts factors into the form of the exact solution. The triangles of
`QR` and `Cholesky` are cut out of the latent tensor itself, which is the same.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neumatc import checks, report
from neumatc.embeddings import Chebyshev, SinusoidalMLP
from neumatc.factorizations import QR, Cholesky
from neumatc.local import PiecewisePolynomials, Rational, SparsePolynomials
from neumatc.model import FactorMap, Surrogate
from neumatc.operations import LogDet, Operation
from neumatc.spectral import SVD, Eig, Eigh
from neumatc.turns import of_factors

Arrays = dict[str, np.ndarray]
# Which part of a factor `finish` leaves, and of which columns of a factor it makes the length one.
_TRIANGLES = {QR.finish: (1, np.triu), Cholesky.finish: (0, np.tril)}
_UNITS = {LogDet.finish: 0, Eig.finish: 1}
# The rounding up to which values are one, in units, when they are sorted: as in `neumatc.spectral`.
_EQUAL = 1e3
# Most columns of a block, whose eigenvectors are found by Jacobi's method.
LARGEST = 12
# Names that the evaluators have for other things.
_TAKEN = ("p", "x", "phi", "count", "first")


@dataclass(frozen=True)
class Basis:
    r"""Functions Phi of x in the cube, r of them.

    Attributes:
        kind: ``"pieces"``: as `PiecewisePolynomials`, with arrays of these names, and as `Rational`, which is one piece
            whose functions are divided by their sum (``normal`` is 1, else 0; complex weights have ``imaginary``);
            ``"products"``: products over the axes of the functions 0, 1, 2, ... that ``indices`` (r, d) names, which
            are :math:`\prod_{j<k} (x - t_j)` of ``nodes`` times ``scale``, both (d, K), or without these
            :math:`\sin(a_k x + b_k)` of ``frequencies`` and ``phases`` where an axis is ``periodic``, elsewhere
            Chebyshev polynomials in x, or in :math:`\sin(b x) / \sin b` for an angle ``bend`` that is not 0;
            ``"network"``: sines of layers, ``weight1``, ``bias1``, ...
        arrays: Its numbers. With ``weight_out`` and ``bias_out`` a linear layer follows.
        single: Whether x, and the argument of polynomials, are rounded to single precision before.
    """

    kind: str
    arrays: Arrays
    single: bool

    @property
    def layers(self) -> int:
        """How many layers of sines a network has."""
        return sum(name.startswith("bias") for name in self.arrays) - 1

    def same(self, other: Basis) -> bool:
        """Whether another basis has the same functions."""
        alike = (self.kind, self.single, [*self.arrays]) == (other.kind, other.single, [*other.arrays])
        return alike and all(np.array_equal(self.arrays[name], other.arrays[name]) for name in self.arrays)


@dataclass(frozen=True)
class Table:
    """A factor: the latent tensor as real rows, its basis, and the phases that are put back.

    Attributes:
        name: Of the factor.
        basis: Number of its basis.
        rows: The latent tensor, shape (r, M), of a complex one pairs of real numbers.
        shape: Of a value of the map; ``complex``, whether its numbers are pairs.
        public: The shape of the factor; ``paired``, whether its numbers are pairs, as they are not where a complex
            matrix stands in the place of real values.
        phases: Slopes (count, d) and the axis of a value, 0 or 1, that they turn: by :math:`e^{j s x}`.
    """

    name: str
    basis: int
    rows: np.ndarray
    shape: tuple[int, ...]
    complex: bool
    public: tuple[int, ...]
    paired: bool
    phases: list[tuple[np.ndarray, int]]

    @property
    def values(self) -> np.ndarray:
        """The latent tensor with mode 3 in front, real or complex, shape ``(r, *shape)``."""
        rows = np.ascontiguousarray(self.rows)
        rows = rows.view({"f": np.complex64, "d": np.complex128}[rows.dtype.char]) if self.complex else rows
        return rows.reshape(len(rows), *self.shape)


@dataclass(frozen=True)
class Plain:
    """A surrogate.

    Attributes:
        lower, upper: The box, (d,) each, and ``least``, ``most``: what counts as inside, a few units of rounding more.
        start, stop: What is linear at its ends: the bounds, or their logarithms where ``log``.
        log, periodic: Flags (d,).
        bases, factors: See `Basis` and `Table`.
        unit: Number of a factor whose columns get the length one, or -1.
        order: How columns are sorted, by their values, empty: not; see `sorting`.
        told: What a reader should know: names, units, tolerance, version.
        guide: Towards which vectors of a block are turned, its values (J, k); None: towards the identity.
    """

    lower: np.ndarray
    upper: np.ndarray
    least: np.ndarray
    most: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    log: np.ndarray
    periodic: np.ndarray
    bases: list[Basis]
    factors: list[Table]
    unit: int
    order: dict[str, object]
    told: dict[str, object]
    guide: Table | None = None

    @property
    def tables(self) -> list[Table]:
        """The factors, and the guide if there is one."""
        return [*self.factors, *filter(None, [self.guide])]

    @property
    def dimension(self) -> int:
        """d, the number of parameters."""
        return len(self.lower)

    @property
    def precision(self) -> np.dtype:
        """float32 or float64, of the latent tensors."""
        return self.factors[0].rows.dtype

    @property
    def bytes(self) -> int:
        """Of all arrays, about."""
        return sum(table.rows.nbytes for table in self.tables) + sum(
            x.nbytes for basis in self.bases for x in basis.arrays.values()
        )


def described(surrogate: Surrogate) -> Plain:
    """Describe a surrogate.

    Raises:
        TypeError: If it is none.
        ValueError: If its value takes more than these steps: eigenvectors of large blocks, an embedding or an
            operation's `finish` of the user's own; or if it holds NaN or Inf, or factors with odd names.
    """
    checks.instance("surrogate", surrogate, Surrogate, "an nm.Surrogate")
    operation, box = surrogate.operation, surrogate.box
    wrong = [name for name, x in surrogate.named_buffers() if not x.isfinite().all()]
    checks.require(not wrong, "surrogate", "finite numbers", f"NaN or Inf in {wrong[:3]}", "fit it again")
    factors = operation.factors(*surrogate.shape)
    good = all(re.fullmatch(r"[A-Za-z]\w*", f.name, re.ASCII) and f.name not in _TAKEN for f in factors)
    expected, remedy = f"factors with plain names, none of {', '.join(_TAKEN)}", "rename them in the operation"
    checks.require(good, "surrogate", expected, [f.name for f in factors], remedy)
    unit, order = _ending(surrogate)
    lower, upper = (bound.double().cpu().numpy() for bound in (box.lower, box.upper))
    slack = np.array(checks.slack(torch.finfo(box.dtype).eps, lower.tolist(), upper.tolist()))
    log = np.array([scale == "log" for scale in box.scale])
    start, stop = (np.where(log, np.log(np.where(log, bound, 1)), bound) for bound in (lower, upper))
    edges = (lower, upper, lower - slack, upper + slack, start, stop, log, np.array(box.periodic))
    bases, tables = _tables(surrogate)
    guide = tables.pop() if len(tables) > len(factors) else None
    return Plain(*edges, bases, tables, unit, order, _told(surrogate), guide)


def _tables(surrogate: Surrogate) -> tuple[list[Basis], list[Table]]:
    """Return the bases, and tables of all maps: those of the factors come first."""
    operation, bases, tables = surrogate.operation, [], []
    which, triangle = _TRIANGLES.get(type(operation).finish, (-1, None))
    factors, turned = operation.factors(*surrogate.shape), [[] for _ in surrogate.maps]
    if surrogate.turns is not None:
        turned[: len(factors)] = of_factors(operation, surrogate.shape, surrogate.turns.cpu())
    for i, m in enumerate(surrogate.maps):
        own = _basis(m, surrogate.box.dimension)
        at = next((k for k, basis in enumerate(bases) if basis.same(own)), len(bases))
        bases += [own] if at == len(bases) else []
        rows = _array(m.numbers.reshape(len(m.numbers), -1))
        if which == i:
            kept = np.broadcast_to(triangle(np.ones(m.shape, bool))[..., None], (*m.shape, 1 + m.is_complex))
            rows = rows * kept.reshape(-1)
        phases = [(_array(slopes), -1 - place) for slopes, place in turned[i] if slopes.any()]
        shape, paired = m.shape, m.is_complex
        if i < len(factors):
            shape, paired = tuple(factors[i].shape), factors[i].dtype(m.core.dtype).is_complex
        tables.append(Table(m.name, at, rows, m.shape, m.is_complex, shape, paired, phases))
    return bases, tables


def _told(surrogate: Surrogate) -> dict[str, object]:
    found, box = surrogate.report, surrogate.box
    return {
        "operation": repr(surrogate.operation),
        "parameters": list(box.names),
        "units": list(box.units),
        "lower": box.lower.tolist(),
        "upper": box.upper.tolist(),
        "scale": list(box.scale),
        "periodic": list(box.periodic),
        "tol": found.tol,
        "met": found.met,
        "neumatc": report.library_version(),
    }


def _ending(surrogate: Surrogate) -> tuple[int, dict[str, object]]:
    """Return which factor gets columns of length one, and how columns are sorted."""
    operation, at = surrogate.operation, 0
    finish, shapes = type(operation).finish, [m.shape for m in surrogate.maps]
    if finish in (SVD.finish, Eigh.finish):
        at = operation.powers.index(1)
        k, count, block = operation.factors(*surrogate.shape)[at].shape[0], shapes[at][0], len(shapes[at]) == 2
        if block:
            expected = f"blocks of at most {LARGEST} columns, sorted: an eigendecomposition at each p"
            got, remedy = f"{operation} with one of {count}", "fit nm.Subspace, or a box without the crossing"
            checks.require(count <= LARGEST and not operation.followed, "surrogate", expected, got, remedy)
        eps = torch.finfo(surrogate.maps[at].numbers.dtype).eps
        return -1, {} if operation.followed else sorting(operation, count, k, _EQUAL * eps, block)
    known = finish in (Operation.finish, *_TRIANGLES, *_UNITS)
    remedy = "fit an operation of the library, or finish where you evaluate"
    checks.require(known, "surrogate", "an operation whose `finish` is known here", operation, remedy)
    return _UNITS.get(finish, -1), {}


def sorting(operation: SVD | Eigh, count: int, k: int, equal: float, block: bool) -> dict[str, object]:
    """Return how columns are sorted: of ``count``, the k that are worth most.

    ``by``: the number of the factor with the values; ``signed``: 1 where values fall and are made positive, with the
    signs put into the first factor, 0 where they rise; ``columns`` and ``rows``: numbers of the factors that are sorted
    too; ``count``: k; ``worth``: :math:`a |s - c| + b s` of a value s, as (a, b, c); ``always``: 0 where what is in
    order stays as it is; ``equal``: the part of the largest value up to which two are one; ``block``: 1 where there is
    a Hermitian matrix in the place of the values, whose eigenvectors turn the columns, and are turned to the `guide`.
    """
    if isinstance(operation, SVD):
        own = {"by": 1, "signed": 1, "columns": 0, "rows": 2, "worth": (0.0, 1.0, 0.0)}
    else:
        ends = {"lowest": (0.0, -1.0, 0.0), "highest": (0.0, 1.0, 0.0)}
        worth = ends.get(operation.which, (1.0 if operation._largest else -1.0, 0.0, operation.near or 0.0))
        own = {"by": 0, "signed": 0, "columns": 1, "rows": -1, "worth": worth}
    return own | {"count": k, "always": int(count > k), "equal": equal, "block": int(block)}


def _basis(m: FactorMap, dimension: int) -> Basis:
    embedding, weights = m.embedding, {name: _array(weight) for name, weight in m.weights.items()}
    make = {
        PiecewisePolynomials: _pieces,
        Rational: _rational,
        SparsePolynomials: _sparse,
        Chebyshev: _chebyshev,
        SinusoidalMLP: _network,
    }.get(type(embedding))
    remedy = "fit to a tolerance, or with nm.Chebyshev or nm.SinusoidalMLP"
    checks.require(make, "surrogate", "an embedding of the library", type(embedding).__name__, remedy)
    single = m.numbers.dtype == torch.float32 and not embedding.precise
    kind, arrays = make(embedding, weights, dimension)
    last = {name: weights[name] for name in ("weight_out", "bias_out") if name in weights}
    return Basis(kind, arrays | last, single)


def _pieces(embedding: PiecewisePolynomials, weights: Arrays, dimension: int) -> tuple[str, Arrays]:
    return "pieces", {**weights, "depth": np.array(embedding.depth), "normal": np.array(0)}


def _rational(embedding: Rational, weights: Arrays, dimension: int) -> tuple[str, Arrays]:
    at, w = weights["nodes"], weights["w"]
    one = np.ones((1, 1))
    found = {"low": -one, "high": one, "bend": 0 * one, "nodes": at[None, None], "bary": w[:1, None]}
    found |= {"counts": np.array([[len(at)]]), "first": np.array([0]), "depth": np.array(0), "normal": np.array(1)}
    found |= {"axis": np.zeros(0, int), "cut": np.zeros(0), "children": np.zeros((0, 2), int)}
    return "pieces", found | ({"imaginary": w[1:, None]} if embedding.complex else {})


def _sparse(embedding: SparsePolynomials, weights: Arrays, dimension: int) -> tuple[str, Arrays]:
    return "products", {name: weights[name] for name in ("nodes", "scale", "indices")}


def _chebyshev(embedding: Chebyshev, weights: Arrays, dimension: int) -> tuple[str, Arrays]:
    k = np.arange(embedding.degree + 1)
    indices = k[1:, None] if dimension == 1 else embedding.indices(dimension).numpy()
    found = {"indices": indices, "periodic": np.array(embedding.periodic or (False,) * dimension)}
    found |= {"frequencies": math.pi * np.ceil(k / 2), "phases": math.pi * np.where(k > 0, k % 2, 1) / 2}
    return "products", found | {"bend": np.array(math.asin(embedding.stretch))}


def _network(embedding: SinusoidalMLP, weights: Arrays, dimension: int) -> tuple[str, Arrays]:
    return "network", {name: weight for name, weight in weights.items() if not name.endswith("_out")}


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().contiguous().numpy()
