"""What a surrogate does to the values of its maps, in operators of ONNX: order, lengths and phases of columns."""

from __future__ import annotations

import numpy as np

from neumatc.export.operators import Operators
from neumatc.export.plain import Plain, Table


def unit(g: Operators, table: Table, value: str) -> str:
    """Make the length of columns one."""
    axes = [1] * bool(table.shape) + [-1] * table.complex
    size = g("Mul", value, value)
    size = g("Sqrt", g("ReduceSum", size, np.array(axes), keepdims=1) if axes else size)
    return g("Div", value, g("Max", size, np.finfo(table.rows.dtype).tiny))


def turned(g: Operators, table: Table, value: str, x: str, slopes: np.ndarray, axis: int) -> str:
    """Turn rows (axis 0) or columns of complex matrices."""
    angles = g("MatMul", x, slopes.T.copy())
    beside = np.array([2 - axis])
    c, s = (g("Unsqueeze", g.cast(g(f, angles), table.rows.dtype), beside) for f in ("Cos", "Sin"))
    re, im = (g("Gather", value, np.int64(k), axis=3) for k in (0, 1))
    parts = g("Sub", g("Mul", re, c), g("Mul", im, s)), g("Add", g("Mul", re, s), g("Mul", im, c))
    return g("Concat", *(g("Unsqueeze", part, np.array([3])) for part in parts), axis=3)


def in_order(g: Operators, plain: Plain, values: list[str]) -> list[str]:
    """Sort the columns by their values; see `plain.sorting`."""
    own, tables, kind = plain.order, plain.factors, plain.precision.type
    S, J, k = values[own["by"]], tables[own["by"]].shape[0], own["count"]
    unsigned, signed = g("Abs", S), own["signed"]
    rounding = g("Mul", g("ReduceMax", unsigned, axes=[1], keepdims=1), kind(own["equal"]))
    apart = g("Add", S, g("Mul", rounding, ((-1 if signed else 1) * np.arange(J)).astype(kind)))
    order = best(g, apart, own, kind)
    final = g.along(unsigned if signed else S, order)
    found = list(values)
    found[own["by"]] = g.along(final, g.top(_key(g, final, signed), k))
    columns = values[own["columns"]]
    if signed:
        signs = g("Where", g("Less", g("Add", S, rounding), kind(0)), kind(-1), kind(1))
        columns = g("Mul", columns, g("Unsqueeze", signs, np.array([1, 3][: 1 + tables[0].complex])))
    found[own["columns"]] = _taken(g, tables[own["columns"]], columns, order, 2)
    if own["rows"] >= 0:
        found[own["rows"]] = _taken(g, tables[own["rows"]], values[own["rows"]], order, 1)
    return found if own["always"] else _where_unordered(g, plain, S, found, values)


def best(g: Operators, values: str, order: dict[str, object], kind: type) -> str:
    """Return the places of the values that are worth most, (B, k), in the order that they are to have."""
    a, b, center = map(kind, order["worth"])
    worth = g("Add", g("Mul", g("Abs", g("Sub", values, center)), a), g("Mul", values, b))
    chosen = g.top(worth, order["count"])
    return g.along(chosen, g.top(_key(g, g.along(values, chosen), order["signed"]), order["count"]))


def _where_unordered(g: Operators, plain: Plain, S: str, found: list[str], values: list[str]) -> list[str]:
    """Keep what is in order already as it is."""
    last = plain.factors[plain.order["by"]].shape[0] - 1
    if plain.order["signed"]:
        S, last = g("Pad", S, np.array([0, 0, 0, 1]), plain.precision.type(0)), last + 1
    before, after = (g("Gather", S, np.arange(last) + j, axis=1) for j in (0, 1))
    wrong = g("Greater", after, before) if plain.order["signed"] else g("Less", after, before)
    wrong = g("ReduceMax", g.cast(wrong, np.float32), axes=[1], keepdims=0)
    results = []
    for table, new, old in zip(plain.factors, found, values):
        own = g("Unsqueeze", wrong, np.arange(1, 1 + len(table.shape) + table.complex))
        results.append(g("Where", g.cast(own, bool), new, old))
    return results


def _key(g: Operators, x: str, signed: int) -> str:
    """What falls in the order that values are to have."""
    return g("Abs" if signed else "Neg", x)


def _taken(g: Operators, table: Table, value: str, order: str, axis: int) -> str:
    """Take columns (axis 2) or rows (axis 1) of matrices in an order (B, k)."""
    k = table.public[axis - 1]
    shape = [table.shape[0], k] if axis == 2 else [k, table.shape[1]]
    return placed(g, value, order, axis, [*shape, *[2] * table.complex])


def placed(g: Operators, x: str, order: str, axis: int, shape: list[int]) -> str:
    """Return x with an axis in an order (B, k), of the shape (B, *shape)."""
    axes = np.array([other for other in range(1, 1 + len(shape)) if other != axis])
    places = g("Expand", g("Unsqueeze", order, axes), np.array([1, *shape]))
    return g("GatherElements", x, places, axis=axis)
