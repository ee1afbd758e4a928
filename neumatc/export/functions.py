"""The functions Phi of a surrogate in operators of ONNX, and the pieces of the box that they belong to."""

from __future__ import annotations

import math

import numpy as np

from neumatc.export.operators import Operators
from neumatc.export.plain import Basis

# Rows of the latent tensor for each term up to which a product with zeros takes less time than moving rows about.
_DENSE = 16


def functions(g: Operators, basis: Basis, x: str, rows: int) -> tuple[str, str | None]:
    """Return functions (B, K) in double precision, and which rows of the latent tensor are theirs, if not all."""
    if basis.kind == "pieces":
        return _pieces(g, basis, x, rows)
    x = _rounded(g, basis, x)
    phi = _network(g, basis, x) if basis.kind == "network" else _products(g, basis, x)
    if "weight_out" in basis.arrays:
        weight, bias = (basis.arrays[name] for name in ("weight_out", "bias_out"))
        phi = g("Add", g("MatMul", g.cast(phi, weight.dtype), weight.T.copy()), bias)
    return g.cast(phi, np.float64), None


def _rounded(g: Operators, basis: Basis, x: str) -> str:
    return g.cast(g.cast(x, np.float32), np.float64) if basis.single else x


def _pieces(g: Operators, basis: Basis, x: str, rows: int) -> tuple[str, str | None]:
    own, several = basis.arrays, len(basis.arrays["low"]) > 1
    piece = _located(g, basis, x) if several else None

    def of(table: np.ndarray) -> str | np.ndarray:
        return g("Gather", table, piece, axis=0) if several else table

    phi, most = None, own["counts"].max(axis=0)
    for i, n in enumerate(most):
        at, low, high = g.column(x, i), of(own["low"][:, i : i + 1]), of(own["high"][:, i : i + 1])
        t = g("Div", g("Sub", g("Sub", at, low), g("Sub", high, at)), g("Sub", high, low))
        if own["bend"][:, i].any():
            bend = np.maximum(own["bend"][:, i : i + 1], 2.0**-30)
            t = g("Div", g("Sin", g("Mul", t, of(bend))), of(np.sin(bend)))
        factors, mine = g("Sub", t, of(own["nodes"][:, i, :n])), np.arange(n) < own["counts"][:, i : i + 1]
        if not mine.all():
            factors = g("Where", of(mine), factors, np.float64(1))
        others = g("Mul", g.before(factors, n), g.before(factors, n, -1))
        f = _weighed(g, basis, others) if own["normal"] else g("Mul", others, of(own["bary"][:, i, :n]))
        phi = f if i == 0 else _outer(g, phi, f, math.prod(most[: i + 1]))
    if not several:
        return phi, None
    which = g("Gather", _rows(own, most), piece, axis=0)
    if rows > _DENSE * most.prod():
        return phi, which
    # Those beyond the number of a piece are zero, whatever they are added to.
    return g("ScatterElements", g.filled(0.0, rows), which, phi, axis=1, reduction="add"), None


def _outer(g: Operators, left: str, right: str, size: int) -> str:
    product = g("Mul", g("Unsqueeze", left, np.array([2])), g("Unsqueeze", right, np.array([1])))
    return g.shaped(product, size)


def _weighed(g: Operators, basis: Basis, others: str) -> str:
    """Return the functions of the barycentric form: real ones, or real and imaginary parts."""
    real, several = g("Mul", others, basis.arrays["bary"][:, 0]), np.array([1])
    a = g("ReduceSum", real, several, keepdims=1)
    if "imaginary" not in basis.arrays:
        return g("Div", real, a)
    imaginary = g("Mul", others, basis.arrays["imaginary"][:, 0])
    b = g("ReduceSum", imaginary, several, keepdims=1)
    size = g("Add", g("Mul", a, a), g("Mul", b, b))
    first = g("Add", g("Mul", real, a), g("Mul", imaginary, b))
    second = g("Sub", g("Mul", imaginary, a), g("Mul", real, b))
    return g("Div", g("Concat", first, second, axis=1), size)


def _located(g: Operators, basis: Basis, x: str) -> str:
    """Return the number of the piece of each x, shape (B,)."""
    own, second = basis.arrays, np.array([1])
    if own["low"].shape[1] == 1:
        passed = g.cast(g("GreaterOrEqual", x, own["low"][1:, 0]), np.int64)
        return g("ReduceSum", passed, second, keepdims=0)
    at = g.filled(0 if own["depth"] else -1, 1)  # the root, or the only piece
    for _ in range(int(own["depth"])):
        inner = g("Squeeze", g("Max", at, np.int64(0)), second)
        axis, cut, halves = (g("Gather", own[name], inner, axis=0) for name in ("axis", "cut", "children"))
        here = g("GatherElements", x, g("Unsqueeze", axis, second), axis=1)
        right = g.cast(g("GreaterOrEqual", here, g("Unsqueeze", cut, second)), np.int64)
        half = g("GatherElements", halves, right, axis=1)
        at = g("Where", g("Less", at, np.int64(0)), at, half)
    return g("Squeeze", g("Sub", np.int64(-1), at), second)


def _products(g: Operators, basis: Basis, x: str) -> str:
    phi, indices = None, basis.arrays["indices"]
    for i, own in enumerate(indices.T):
        table = _newton(g, basis, x, i) if "nodes" in basis.arrays else _waves(g, basis, x, i)
        f = g("Gather", table, own, axis=1)
        phi = f if i == 0 else g("Mul", phi, f)
    return phi


def _newton(g: Operators, basis: Basis, x: str, i: int) -> str:
    at, scale = basis.arrays["nodes"][i], basis.arrays["scale"][i]
    return g("Mul", g.before(g("Sub", g.column(x, i), at), len(at)), scale)


def _waves(g: Operators, basis: Basis, x: str, i: int) -> str:
    """Return functions 0 to D of an axis, (B, D + 1)."""
    own, at = basis.arrays, g.column(x, i)
    if own["periodic"][i]:
        return g("Sin", g("Add", g("Mul", at, own["frequencies"]), own["phases"]))
    if own["bend"]:
        at = g("Div", g("Sin", g("Mul", at, own["bend"])), np.sin(own["bend"]))
        at = _rounded(g, basis, at)
    last, m = len(own["frequencies"]) - 1, 1
    T = g("Concat", g.filled(1.0, 1), at, axis=1)
    while m < last:  # T_{m+j} = 2 T_m T_j - T_{m-j}
        j = np.arange(1, min(m, last - m) + 1)
        twice = g("Mul", g("Mul", g.column(T, m), np.float64(2)), g("Gather", T, j, axis=1))
        T, m = g("Concat", T, g("Sub", twice, g("Gather", T, m - j, axis=1)), axis=1), m + len(j)
    return T


def _network(g: Operators, basis: Basis, x: str) -> str:
    own = basis.arrays
    x = g.cast(x, own["weight1"].dtype)
    for k in range(1, basis.layers + 1):
        x = g("Sin", g("Add", g("MatMul", x, own[f"weight{k}"].T.copy()), own[f"bias{k}"]))
    return x


def _rows(own: dict[str, np.ndarray], most: np.ndarray) -> np.ndarray:
    """Return which rows of the latent tensor belong to the functions of each piece, those beyond the last to that."""
    rows = own["first"][:, None]
    strides = np.cumprod(own["counts"][:, ::-1], axis=1)[:, ::-1] // own["counts"]
    for i, n in enumerate(most):
        j = np.minimum(np.arange(n), own["counts"][:, i : i + 1] - 1) * strides[:, i : i + 1]
        rows = (rows[:, :, None] + j[:, None, :]).reshape(len(rows), -1)
    return rows
