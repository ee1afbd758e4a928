"""A surrogate as a graph of ONNX, built operator by operator: torch's exporter knows no complex numbers."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np

from neumatc import checks, files
from neumatc.export.plain import Basis, Plain, Table, described
from neumatc.model import Surrogate

# Operators up to this set, which onnxruntime has had since 1.13, and the version of the format that belongs to it.
_OPSET, _FORMAT = 17, 8
# Rows of the latent tensor for each term up to which a product with zeros takes less time than moving rows about.
_DENSE = 16
# What a file of protobuf may hold, with room for the rest.
_MOST_BYTES = 2**31 - 2**24
# The rounding up to which values are one, in units, when they are sorted: as in `neumatc.spectral`.
_EQUAL = 1e3


@checks.explained
def export_onnx(surrogate: Surrogate, path: str | os.PathLike) -> None:
    """Write a surrogate as an ONNX model (opset 17), which onnxruntime and others evaluate without Python or torch.

    Input ``p``: the parameters, float64, shape (B, d) with any B, 0 too. Outputs: the factors under their names, such
    as ``X``, or ``U``, ``S`` and ``Vh``, of shape (B, rows, cols), in the precision of the surrogate; complex ones as
    pairs, (B, rows, cols, 2) with the real part first. Values are those of ``surrogate(p)`` up to rounding.

    Parameters outside the box, by more than a few units of rounding, raise in the library. ONNX cannot raise: there all
    numbers of all factors are NaN, for these rows only, and so they are where p is not finite. Periodic axes are
    wrapped. Metadata of the model, each a text of JSON: ``parameters`` (names), ``units``, ``lower``, ``upper``,
    ``scale``, ``periodic``, ``operation``, ``tol``, ``met`` (whether the fit met it) and ``neumatc`` (version).

    It takes memory for a row of Phi for each parameter, or where pieces are many for the snapshots that it sums: split
    large batches. What derivatives or ``orthonormal=True`` do is not in it. The file is there as a whole or not at all,
    as with `save`.

    Args:
        surrogate: From any device.
        path: Usually ending in ``.onnx``.

    Raises:
        ImportError: Without the package onnx, which ``pip install "neumatc[export]"`` brings.
        TypeError: If ``surrogate`` is something else.
        ValueError: If its value takes what ONNX lacks, an eigendecomposition of vectors that are followed as a block;
            if its embedding or the operation's `finish` is the user's own; for more than 2 GB.
        OSError: If the file cannot be written, as `save` says.
    """
    try:
        import onnx
    except ImportError:
        text = 'export_onnx: expected the package onnx, got none; install it with `pip install "neumatc[export]"`.'
        raise ImportError(text) from None
    plain = described(surrogate)
    checks.require(plain.bytes < _MOST_BYTES, "surrogate", "less than 2 GB for ONNX", plain.bytes, "take nm.save")
    graph = _Graph(onnx)
    graph.evaluate(plain)
    files.replace(Path(path), graph.model(plain).SerializeToString())


class _Graph:
    """Nodes and constants. A call adds a node and returns the name of what it gives; arrays become constants."""

    def __init__(self, onnx: object):
        self.onnx, self.nodes, self.constants, self.outputs = onnx, [], [], []

    def __call__(self, operator: str, *inputs: object, **attributes: object) -> str:
        names = [x if isinstance(x, str) else self.constant(np.asarray(x)) for x in inputs]
        count, name = attributes.pop("outputs", 1), attributes.pop("name", f"v{len(self.nodes)}")
        given = [f"{name}_{k}" for k in range(1, count)] + [name]  # of several the last is meant
        self.nodes.append(self.onnx.helper.make_node(operator, names, given, **attributes))
        return name

    def constant(self, x: np.ndarray) -> str:
        self.constants.append((f"c{len(self.constants)}", x))
        return self.constants[-1][0]

    def model(self, plain: Plain) -> object:
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        p = helper.make_tensor_value_info("p", kinds.DOUBLE, ["B", plain.dimension])
        kind = helper.np_dtype_to_tensor_dtype(plain.precision)
        outputs = [helper.make_tensor_value_info(name, kind, ["B", *shape]) for name, shape in self.outputs]
        constants = [self.onnx.numpy_helper.from_array(x, name) for name, x in self.constants]
        text = "A surrogate of NeuMatC. Where p lies outside the box, everything is NaN."
        graph = helper.make_graph(self.nodes, "surrogate", [p], outputs, constants, doc_string=text)
        opset = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_FORMAT, producer_name="neumatc")
        helper.set_model_props(model, {name: json.dumps(value) for name, value in plain.told.items()})
        return model

    # What ONNX has no operator for

    def cast(self, x: str, kind: np.dtype | type) -> str:
        return self("Cast", x, to=self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def filled(self, value: float, count: int) -> str:
        """The same number everywhere, (B, count)."""
        batch = self("Gather", self("Shape", "p"), np.array([0]), axis=0)
        return self("Expand", np.array(value), self("Concat", batch, np.array([count]), axis=0))

    def column(self, x: str, i: int) -> str:
        """Column i of (B, K) as (B, 1)."""
        return self("Gather", x, np.array([i]), axis=1)

    def shaped(self, x: str, *shape: int) -> str:
        """Reshape (B, ...) to (B, *shape)."""
        return self("Reshape", x, np.array([0, *shape]))

    def shifted(self, x: str, by: int) -> str:
        """Columns moved to the right, or left, ones in their place."""
        return self("Pad", x, np.array([0, by, 0, -by]), np.float64(1))

    def before(self, x: str, count: int, sign: int = 1) -> str:
        """The product of all columns to the left of each of ``count``, or for sign -1 to the right; (B, count)."""
        x, step = self.shifted(x, sign), 1
        while step < count:
            x, step = self("Mul", x, self.shifted(x, sign * step)), 2 * step
        return x

    # The steps of an evaluation

    def evaluate(self, plain: Plain) -> None:
        x, outside = self.cube(plain)
        rows = {table.basis: len(table.rows) for table in plain.factors}
        bases = [self.basis(basis, x, rows[k]) for k, basis in enumerate(plain.bases)]
        values = [self.product(table, *bases[table.basis], outside) for table in plain.factors]
        if plain.order:
            values = self.sorted(plain, values)
        for i, (table, value) in enumerate(zip(plain.factors, values)):
            value = self.unit(table, value) if i == plain.unit else value
            for slopes, axis in table.phases:
                value = self.turned(table, value, x, slopes, axis)
            self("Identity", value, name=table.name)
            self.outputs.append((table.name, (*table.public, *[2] * table.complex)))

    def cube(self, plain: Plain) -> tuple[str, str]:
        """Return x (B, d), and a column that is 0 inside the box and NaN outside."""
        p, low, up = "p", plain.lower, plain.upper
        if plain.periodic.any():
            turns = self("Floor", self("Div", self("Sub", p, low), up - low))
            outside = self("And", self("Or", self("Less", p, low), self("Greater", p, up)), plain.periodic)
            p = self("Where", outside, self("Sub", p, self("Mul", turns, up - low)), p)
        inside = self("And", self("GreaterOrEqual", p, plain.least), self("LessOrEqual", p, plain.most))
        inside = self("ReduceMin", self.cast(inside, np.float64), axes=[1], keepdims=1)
        outside = self("Where", self.cast(inside, bool), np.float64(0), np.float64(np.nan))
        if plain.log.any():
            p = self("Where", plain.log, self("Log", self("Where", plain.log, p, np.float64(1))), p)
        x = self("Sub", self("Sub", p, plain.start), self("Sub", plain.stop, p))
        return self("Div", x, plain.stop - plain.start), outside

    def basis(self, basis: Basis, x: str, rows: int) -> tuple[str, str | None]:
        """Return functions (B, K) in double precision, and which rows of the latent tensor are theirs, if not all."""
        if basis.kind == "pieces":
            return self.pieces(basis, x, rows)
        x = self.rounded(basis, x)
        phi = self.network(basis, x) if basis.kind == "network" else self.products(basis, x)
        if "weight_out" in basis.arrays:
            weight, bias = (basis.arrays[name] for name in ("weight_out", "bias_out"))
            phi = self("Add", self("MatMul", self.cast(phi, weight.dtype), weight.T.copy()), bias)
        return self.cast(phi, np.float64), None

    def rounded(self, basis: Basis, x: str) -> str:
        return self.cast(self.cast(x, np.float32), np.float64) if basis.single else x

    def pieces(self, basis: Basis, x: str, rows: int) -> tuple[str, str | None]:
        own, several = basis.arrays, len(basis.arrays["low"]) > 1
        piece = self.located(basis, x) if several else None

        def of(table: np.ndarray) -> str | np.ndarray:
            return self("Gather", table, piece, axis=0) if several else table

        phi, most = None, own["counts"].max(axis=0)
        for i, n in enumerate(most):
            at, low, high = self.column(x, i), of(own["low"][:, i : i + 1]), of(own["high"][:, i : i + 1])
            t = self("Div", self("Sub", self("Sub", at, low), self("Sub", high, at)), self("Sub", high, low))
            if own["bend"][:, i].any():
                bend = np.maximum(own["bend"][:, i : i + 1], 2.0**-30)
                t = self("Div", self("Sin", self("Mul", t, of(bend))), of(np.sin(bend)))
            factors, mine = self("Sub", t, of(own["nodes"][:, i, :n])), np.arange(n) < own["counts"][:, i : i + 1]
            if not mine.all():
                factors = self("Where", of(mine), factors, np.float64(1))
            others = self("Mul", self.before(factors, n), self.before(factors, n, -1))
            f = self.weighed(basis, others) if own["normal"] else self("Mul", others, of(own["bary"][:, i, :n]))
            phi = f if i == 0 else self.outer(phi, f, math.prod(most[: i + 1]))
        if not several:
            return phi, None
        which = self("Gather", _rows(own, most), piece, axis=0)
        if rows > _DENSE * most.prod():
            return phi, which
        # Those beyond the number of a piece are zero, whatever they are added to.
        return self("ScatterElements", self.filled(0.0, rows), which, phi, axis=1, reduction="add"), None

    def outer(self, left: str, right: str, size: int) -> str:
        product = self("Mul", self("Unsqueeze", left, np.array([2])), self("Unsqueeze", right, np.array([1])))
        return self.shaped(product, size)

    def weighed(self, basis: Basis, others: str) -> str:
        """Return the functions of the barycentric form: real ones, or real and imaginary parts."""
        real, several = self("Mul", others, basis.arrays["bary"][:, 0]), np.array([1])
        a = self("ReduceSum", real, several, keepdims=1)
        if "imaginary" not in basis.arrays:
            return self("Div", real, a)
        imaginary = self("Mul", others, basis.arrays["imaginary"][:, 0])
        b = self("ReduceSum", imaginary, several, keepdims=1)
        size = self("Add", self("Mul", a, a), self("Mul", b, b))
        first = self("Add", self("Mul", real, a), self("Mul", imaginary, b))
        second = self("Sub", self("Mul", imaginary, a), self("Mul", real, b))
        return self("Div", self("Concat", first, second, axis=1), size)

    def located(self, basis: Basis, x: str) -> str:
        """Return the number of the piece of each x, shape (B,)."""
        own, second = basis.arrays, np.array([1])
        if own["low"].shape[1] == 1:
            passed = self.cast(self("GreaterOrEqual", x, own["low"][1:, 0]), np.int64)
            return self("ReduceSum", passed, second, keepdims=0)
        at = self.filled(0 if own["depth"] else -1, 1)  # the root, or the only piece
        for _ in range(int(own["depth"])):
            inner = self("Squeeze", self("Max", at, np.int64(0)), second)
            axis, cut, halves = (self("Gather", own[name], inner, axis=0) for name in ("axis", "cut", "children"))
            here = self("GatherElements", x, self("Unsqueeze", axis, second), axis=1)
            right = self.cast(self("GreaterOrEqual", here, self("Unsqueeze", cut, second)), np.int64)
            half = self("GatherElements", halves, right, axis=1)
            at = self("Where", self("Less", at, np.int64(0)), at, half)
        return self("Squeeze", self("Sub", np.int64(-1), at), second)

    def products(self, basis: Basis, x: str) -> str:
        phi, indices = None, basis.arrays["indices"]
        for i, own in enumerate(indices.T):
            table = self.newton(basis, x, i) if "nodes" in basis.arrays else self.waves(basis, x, i)
            f = self("Gather", table, own, axis=1)
            phi = f if i == 0 else self("Mul", phi, f)
        return phi

    def newton(self, basis: Basis, x: str, i: int) -> str:
        at, scale = basis.arrays["nodes"][i], basis.arrays["scale"][i]
        return self("Mul", self.before(self("Sub", self.column(x, i), at), len(at)), scale)

    def waves(self, basis: Basis, x: str, i: int) -> str:
        """Return functions 0 to D of an axis, (B, D + 1)."""
        own, at = basis.arrays, self.column(x, i)
        if own["periodic"][i]:
            return self("Sin", self("Add", self("Mul", at, own["frequencies"]), own["phases"]))
        if own["bend"]:
            at = self("Div", self("Sin", self("Mul", at, own["bend"])), np.sin(own["bend"]))
            at = self.rounded(basis, at)
        last, m = len(own["frequencies"]) - 1, 1
        T = self("Concat", self.filled(1.0, 1), at, axis=1)
        while m < last:  # T_{m+j} = 2 T_m T_j - T_{m-j}
            j = np.arange(1, min(m, last - m) + 1)
            twice = self("Mul", self("Mul", self.column(T, m), np.float64(2)), self("Gather", T, j, axis=1))
            T, m = self("Concat", T, self("Sub", twice, self("Gather", T, m - j, axis=1)), axis=1), m + len(j)
        return T

    def network(self, basis: Basis, x: str) -> str:
        own = basis.arrays
        x = self.cast(x, own["weight1"].dtype)
        for k in range(1, basis.layers + 1):
            x = self("Sin", self("Add", self("MatMul", x, own[f"weight{k}"].T.copy()), own[f"bias{k}"]))
        return x

    def product(self, table: Table, phi: str, which: str | None, outside: str) -> str:
        """Return the values of a map, (B, *shape), with pairs last, which are NaN outside."""
        phi = self.cast(self("Add", phi, outside), table.rows.dtype)
        if which is None:
            value = self("MatMul", phi, table.rows)
        else:
            taken = self("Gather", table.rows, which, axis=0)
            value = self("MatMul", self("Unsqueeze", phi, np.array([1])), taken)
        return self.shaped(value, *table.shape, *[2] * table.complex)

    def unit(self, table: Table, value: str) -> str:
        """Make the length of columns one."""
        axes = [1] * bool(table.shape) + [-1] * table.complex
        size = self("Mul", value, value)
        size = self("Sqrt", self("ReduceSum", size, np.array(axes), keepdims=1) if axes else size)
        return self("Div", value, self("Max", size, np.finfo(table.rows.dtype).tiny))

    def turned(self, table: Table, value: str, x: str, slopes: np.ndarray, axis: int) -> str:
        """Turn rows (axis 0) or columns of complex matrices."""
        angles = self("MatMul", x, slopes.T.copy())
        beside = np.array([2 - axis])
        c, s = (self("Unsqueeze", self.cast(self(f, angles), table.rows.dtype), beside) for f in ("Cos", "Sin"))
        re, im = (self("Gather", value, np.int64(k), axis=3) for k in (0, 1))
        parts = self("Sub", self("Mul", re, c), self("Mul", im, s)), self("Add", self("Mul", re, s), self("Mul", im, c))
        return self("Concat", *(self("Unsqueeze", part, np.array([3])) for part in parts), axis=3)

    def sorted(self, plain: Plain, values: list[str]) -> list[str]:
        """Sort the columns by their values; see `plain.sorting`."""
        own, tables, kind = plain.order, plain.factors, plain.precision.type
        S, J, k = values[own["by"]], tables[own["by"]].shape[0], own["count"]
        unsigned, signed = self("Abs", S), own["signed"]
        rounding = self("Mul", self("ReduceMax", unsigned, axes=[1], keepdims=1), kind(_EQUAL * np.finfo(kind).eps))
        apart = self("Add", S, self("Mul", rounding, ((-1 if signed else 1) * np.arange(J)).astype(kind)))
        a, b, center = map(kind, own["worth"])
        worth = self("Add", self("Mul", self("Abs", self("Sub", apart, center)), a), self("Mul", apart, b))
        chosen = self.top(worth, k)
        order = self.along(chosen, self.top(self.key(self.along(apart, chosen), signed), k))
        final = self.along(unsigned if signed else S, order)
        found = list(values)
        found[own["by"]] = self.along(final, self.top(self.key(final, signed), k))
        columns = values[own["columns"]]
        if signed:
            signs = self("Where", self("Less", self("Add", S, rounding), kind(0)), kind(-1), kind(1))
            columns = self("Mul", columns, self("Unsqueeze", signs, np.array([1, 3][: 1 + tables[0].complex])))
        found[own["columns"]] = self.taken(tables[own["columns"]], columns, order, 2)
        if own["rows"] >= 0:
            found[own["rows"]] = self.taken(tables[own["rows"]], values[own["rows"]], order, 1)
        return found if own["always"] else self.where_unordered(plain, S, found, values)

    def where_unordered(self, plain: Plain, S: str, found: list[str], values: list[str]) -> list[str]:
        """Keep what is in order already as it is."""
        last = plain.factors[plain.order["by"]].shape[0] - 1
        if plain.order["signed"]:
            S, last = self("Pad", S, np.array([0, 0, 0, 1]), plain.precision.type(0)), last + 1
        before, after = (self("Gather", S, np.arange(last) + j, axis=1) for j in (0, 1))
        wrong = self("Greater", after, before) if plain.order["signed"] else self("Less", after, before)
        wrong = self("ReduceMax", self.cast(wrong, np.float32), axes=[1], keepdims=0)
        results = []
        for table, new, old in zip(plain.factors, found, values):
            own = self("Unsqueeze", wrong, np.arange(1, 1 + len(table.shape) + table.complex))
            results.append(self("Where", self.cast(own, bool), new, old))
        return results

    def key(self, x: str, signed: int) -> str:
        """What falls in the order that values are to have."""
        return self("Abs" if signed else "Neg", x)

    def along(self, x: str, order: str) -> str:
        return self("GatherElements", x, order, axis=1)

    def top(self, x: str, k: int) -> str:
        """Return the places of the k largest of each row, the largest first."""
        return self("TopK", x, np.array([k]), axis=1, outputs=2)

    def taken(self, table: Table, value: str, order: str, axis: int) -> str:
        """Take columns (axis 2) or rows (axis 1) of matrices in an order (B, k)."""
        k = table.public[axis - 1]
        shape = [1, table.shape[0], k] if axis == 2 else [1, k, table.shape[1]]
        shape += [2] * table.complex
        axes = np.array([other for other in range(1, len(shape)) if other != axis])
        places = self("Expand", self("Unsqueeze", order, axes), np.array(shape))
        return self("GatherElements", value, places, axis=axis)


def _rows(own: dict[str, np.ndarray], most: np.ndarray) -> np.ndarray:
    """Return which rows of the latent tensor belong to the functions of each piece, those beyond the last to that."""
    rows = own["first"][:, None]
    strides = np.cumprod(own["counts"][:, ::-1], axis=1)[:, ::-1] // own["counts"]
    for i, n in enumerate(most):
        j = np.minimum(np.arange(n), own["counts"][:, i : i + 1] - 1) * strides[:, i : i + 1]
        rows = (rows[:, :, None] + j[:, None, :]).reshape(len(rows), -1)
    return rows
