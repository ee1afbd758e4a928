"""A surrogate as a graph of ONNX, built operator by operator: torch's exporter knows no complex numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from neumatc import checks, files
from neumatc.export.blocks import untangled
from neumatc.export.endings import in_order, turned, unit
from neumatc.export.functions import functions
from neumatc.export.operators import Operators
from neumatc.export.plain import Plain, Table, described
from neumatc.model import Surrogate

# The set of operators, that of onnx 1.12, and the version of the format that belongs to it.
_OPSET, _FORMAT = 17, 8
# What a file of protobuf may hold, with room for the rest.
_MOST_BYTES = 2**31 - 2**24


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

    Vectors that are followed as a block take some hundred operators more, for the method of Jacobi; where their values
    are one up to rounding they are another basis of the same span.

    It takes memory for a row of Phi for each parameter, or where pieces are many for the snapshots that it sums: split
    large batches. What derivatives or ``orthonormal=True`` do is not in it. The file is there as a whole or not at all,
    as with `save`.

    Args:
        surrogate: From any device.
        path: Usually ending in ``.onnx``.

    Raises:
        ImportError: Without the package onnx, which ``pip install "neumatc[export]"`` brings.
        TypeError: If ``surrogate`` is something else.
        ValueError: If its value takes what ONNX lacks, the eigenvectors of a block of more than 12 columns, or of one
            with ``order="followed"``; if its embedding or the operation's `finish` is the user's own; for more than
            2 GB.
        OSError: If the file cannot be written, as `save` says.
    """
    try:
        import onnx
    except ImportError:
        text = 'export_onnx: expected the package onnx, got none; install it with `pip install "neumatc[export]"`.'
        raise ImportError(text) from None
    plain = described(surrogate)
    checks.require(plain.bytes < _MOST_BYTES, "surrogate", "less than 2 GB for ONNX", plain.bytes, "take nm.save")
    g = Operators(onnx)
    _evaluate(g, plain)
    files.replace(Path(path), _model(g, plain).SerializeToString())


def _evaluate(g: Operators, plain: Plain) -> None:
    x, outside = _cube(g, plain)
    rows = {table.basis: len(table.rows) for table in plain.tables}
    bases = [functions(g, basis, x, rows[k]) for k, basis in enumerate(plain.bases)]
    values = [_product(g, table, *bases[table.basis], outside) for table in plain.factors]
    if plain.order.get("block"):
        guide = plain.guide and _product(g, plain.guide, *bases[plain.guide.basis], outside)
        values = untangled(g, plain, values, guide)
    elif plain.order:
        values = in_order(g, plain, values)
    for i, (table, value) in enumerate(zip(plain.factors, values)):
        value = unit(g, table, value) if i == plain.unit else value
        for slopes, axis in table.phases:
            value = turned(g, table, value, x, slopes, axis)
        g("Identity", value, name=table.name)
        g.outputs.append((table.name, (*table.public, *[2] * table.paired)))


def _cube(g: Operators, plain: Plain) -> tuple[str, str]:
    """Return x (B, d), and a column that is 0 inside the box and NaN outside."""
    p, low, up = "p", plain.lower, plain.upper
    if plain.periodic.any():
        turns = g("Floor", g("Div", g("Sub", p, low), up - low))
        outside = g("And", g("Or", g("Less", p, low), g("Greater", p, up)), plain.periodic)
        p = g("Where", outside, g("Sub", p, g("Mul", turns, up - low)), p)
    inside = g("And", g("GreaterOrEqual", p, plain.least), g("LessOrEqual", p, plain.most))
    inside = g("ReduceMin", g.cast(inside, np.float64), axes=[1], keepdims=1)
    outside = g("Where", g.cast(inside, bool), np.float64(0), np.float64(np.nan))
    if plain.log.any():
        p = g("Where", plain.log, g("Log", g("Where", plain.log, p, np.float64(1))), p)
    x = g("Sub", g("Sub", p, plain.start), g("Sub", plain.stop, p))
    return g("Div", x, plain.stop - plain.start), outside


def _product(g: Operators, table: Table, phi: str, which: str | None, outside: str) -> str:
    """Return the values of a map, (B, *shape), with pairs last, which are NaN outside."""
    phi = g.cast(g("Add", phi, outside), table.rows.dtype)
    if which is None:
        value = g("MatMul", phi, table.rows)
    else:
        taken = g("Gather", table.rows, which, axis=0)
        value = g("MatMul", g("Unsqueeze", phi, np.array([1])), taken)
    return g.shaped(value, *table.shape, *[2] * table.complex)


def _model(g: Operators, plain: Plain) -> object:
    helper, kinds = g.onnx.helper, g.onnx.TensorProto
    p = helper.make_tensor_value_info("p", kinds.DOUBLE, ["B", plain.dimension])
    kind = helper.np_dtype_to_tensor_dtype(plain.precision)
    outputs = [helper.make_tensor_value_info(name, kind, ["B", *shape]) for name, shape in g.outputs]
    constants = [g.onnx.numpy_helper.from_array(x, name) for name, x in g.constants]
    text = "A surrogate of NeuMatC. Where p lies outside the box, everything is NaN."
    graph = helper.make_graph(g.nodes, "surrogate", [p], outputs, constants, doc_string=text)
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_FORMAT, producer_name="neumatc")
    helper.set_model_props(model, {name: json.dumps(value) for name, value in plain.told.items()})
    return model
