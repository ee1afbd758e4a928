"""A surrogate as a C header: the arrays, and the functions that evaluate it, without a library but that of C."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from string import Template

import numpy as np

from neumatc import checks, files
from neumatc.export import sources
from neumatc.export.plain import Basis, Plain, Table, described
from neumatc.model import Surrogate

# The keywords of C99 and of C++ that begin with a letter.
_WORDS = (
    "auto bool break case catch char class const continue default delete do double else enum explicit export extern "
    "false float for friend goto if inline int long mutable namespace new operator private protected public register "
    "restrict return short signed sizeof static struct switch template this throw true try typedef typeid typename "
    "union unsigned using virtual void volatile wchar_t while"
)
# Numbers on the stack, a megabyte of them, and on a line.
_MOST_NUMBERS = 2**17
_LINE = 6


@checks.explained
def save_c(surrogate: Surrogate, path: str | os.PathLike, name: str = "surrogate") -> None:
    """Write a surrogate as a header for C99 (and C++), with its arrays and an evaluator.

    The functions have 60 lines at most where no columns are sorted, made of length one or turned; up to 200 where they
    are: those that sort within a cluster of values diagonalise a small matrix.

    It includes ``math.h``: link with ``-lm`` where the linker asks for it, as on Linux.

    It defines ``static inline int NAME(const double *p, NAME_real *X)``, with an output for each factor, such as ``U``,
    ``S`` and ``Vh``. It takes one parameter, d numbers, and writes the value row by row, complex numbers as pairs, as
    ``double complex`` has them. ``NAME_real`` is float or double, as the surrogate; functions Phi are computed in
    double precision. It returns 0. Where p lies outside the box by more than a few units of rounding, or is not finite,
    it returns 1, and all outputs are NaN; periodic axes are wrapped. No memory is allocated and none is shared, so
    threads may call it at once. A comment holds names, units, the box, the tolerance and the version.

    On the stack are Phi and, where columns are sorted, the values of the maps: 1 MB at most.

    The text takes about 20 bytes for each number of the latent tensors. The file is there as a whole or not at all, as
    with `save`.

    Args:
        surrogate: From any device.
        path: Usually ending in ``.h``.
        name: Of the function, and what all other names begin with.

    Raises:
        TypeError: If ``surrogate`` is something else.
        ValueError: As `export_onnx` does; for a name that C does not take, or more than 1 MB on the stack.
        OSError: If the file cannot be written, as `save` says.
    """
    plain = described(surrogate)
    checks.instance("name", name, str, "a text")
    good = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name not in _WORDS.split()
    checks.require(good, "name", "an identifier of C", name, "take letters, digits and underscores")
    numbers = max(len(table.rows) for table in plain.tables)
    numbers += sum(table.rows.shape[1] for table in plain.tables) if plain.order else 0
    expected, remedy = f"at most {_MOST_NUMBERS} numbers on the stack of C", "take nm.export_onnx"
    checks.require(numbers <= _MOST_NUMBERS, "surrogate", expected, numbers, remedy)
    files.replace(Path(path), "\n".join(_parts(plain, name)).encode("ascii"))


def _parts(plain: Plain, name: str) -> list[str]:
    d, real = plain.dimension, {"f": "float", "d": "double"}[plain.precision.char]
    told = [f" * {key}: {json.dumps(value)}" for key, value in plain.told.items()]
    comment = "\n".join(told).replace("*/", "* /").replace("/*", "/ *")
    parts = [f"/* A surrogate of NeuMatC. {_signature(plain, name)}\n *\n{comment}\n */"]
    parts += [f"#ifndef {name.upper()}_H\n#define {name.upper()}_H\n#include <math.h>\ntypedef {real} {name}_real;"]
    edges = {"lower", "upper", "least", "most", "start", "stop", "log", "periodic"}
    parts += [_array(f"{name}_{key}", getattr(plain, key)) for key in sorted(edges)]
    own = {"wrap": sources.WRAP if any(plain.periodic) else "", "log": sources.LOG if any(plain.log) else ""}
    parts += [Template(Template(sources.CUBE).safe_substitute(own)).substitute(name=name, d=d)]
    if any("weight_out" in basis.arrays for basis in plain.bases):
        parts += [Template(sources.LAYER).substitute(name=name)]
    for k, basis in enumerate(plain.bases):
        parts += _basis(basis, d, f"{name}_basis{k}")
    parts += [Template(sources.PRODUCT).substitute(name=name)]
    if plain.order:
        parts += [_sort(plain, name)]
    if plain.unit >= 0:
        parts += [Template(sources.UNIT).substitute(name=name)]
    if any(table.phases for table in plain.factors):
        parts += [Template(sources.TURN).substitute(name=name, d=d)]
    for i, table in enumerate(plain.tables):
        parts += [_array(f"{name}_latent{i}", table.rows, f"{name}_real")]
        parts += [_array(f"{name}_slopes{i}_{k}", slopes) for k, (slopes, _) in enumerate(table.phases)]
    return [*parts, _evaluator(plain, name), "#endif\n"]


def _signature(plain: Plain, name: str) -> str:
    outputs = ", ".join(f"{name}_real *{table.name}" for table in plain.factors)
    return f"int {name}(const double *p, {outputs})"


def _array(name: str, x: np.ndarray, kind: str = "") -> str:
    """Write numbers as a constant: integers as int, others exactly."""
    x = np.asarray(x)
    whole = x.dtype.kind in "biu"
    kind = kind or ("int" if whole else "double")
    flat = x.astype(int).ravel() if whole else x.ravel() if kind.endswith("_real") else x.astype(float).ravel()
    numbers = flat.astype(str).tolist()
    suffix = "f" if flat.dtype == np.float32 else ""
    lines = [f"{suffix}, ".join(numbers[i : i + _LINE]) + suffix for i in range(0, len(numbers), _LINE)]
    return f"static const {kind} {name}[] = {{\n    " + ",\n    ".join(lines) + "\n};"


def _basis(basis: Basis, d: int, name: str) -> list[str]:
    """Return arrays and function of a basis: it fills phi, says how many, and returns the first of their rows."""
    own = basis.arrays
    words = {"name": name, "prefix": name.rpartition("_")[0], "d": d, "cast": "(float)" if basis.single else ""}
    if basis.kind == "pieces":
        used, body = _pieces(basis, words)
    elif basis.kind == "products":
        used, body = _products(basis, words)
    else:
        used, body = _network(basis, words)
    if "weight_out" in own:
        used |= {"weight_out", "bias_out"}
        rows, columns = own["weight_out"].shape
        body += Template(sources.LAST).substitute(words, rows=rows, columns=columns)
    head = f"static inline int {name}(const double *x, double *phi, int *count)\n{{\n"
    return [*(_array(f"{name}_{key}", own[key]) for key in sorted(used)), head + body + "}"]


def _pieces(basis: Basis, words: dict[str, object]) -> tuple[set[str], str]:
    own, used = basis.arrays, {"nodes", "bary"}
    words = words | {"most": own["nodes"].shape[2]}
    if own["normal"]:
        several = {"imaginary"} & own.keys()
        return used | several, Template(sources.COMPLEX if several else sources.REAL).substitute(words)
    find = "" if len(own["low"]) == 1 else sources.SEARCH if own["low"].shape[1] == 1 else sources.DESCEND
    used |= {"low", "high", "bend", "counts", "first"}
    used |= {"axis", "cut", "children"} if find == sources.DESCEND else set()
    return used, Template(sources.PIECES.replace("${find}", find)).substitute(words, pieces=len(own["low"]))


def _products(basis: Basis, words: dict[str, object]) -> tuple[set[str], str]:
    own = basis.arrays
    newton = "nodes" in own
    count = own["nodes"].shape[1] if newton else len(own["frequencies"])
    used = {"indices", "nodes", "scale"} if newton else {"indices", "periodic", "frequencies", "phases", "bend"}
    table = Template(sources.NEWTON if newton else sources.WAVES).substitute(words, count=count)
    psi = "phi" if newton else "psi"
    rows = len(own["indices"])
    declared = "" if newton else f", psi[{rows}]"
    more = {"count": count, "table": table, "psi": psi, "rows": rows, "declared": declared}
    more["end"] = f"    *count = {rows};\n    return 0;\n" if newton else ""
    return used, Template(sources.PRODUCTS).substitute(words, **more)


def _network(basis: Basis, words: dict[str, object]) -> tuple[set[str], str]:
    own, used, before, width = basis.arrays, set(), "x", len(basis.arrays["bias1"])
    names = [*(f"h{k}" for k in range(1, basis.layers)), "psi"]
    lines = [f"    double {', '.join(f'{name}[{width}]' for name in names)};"]
    for k, after in enumerate(names, 1):
        rows, columns = own[f"weight{k}"].shape
        weights = f"{words['name']}_weight{k}, {words['name']}_bias{k}"
        lines += [f"    {words['prefix']}_layer({weights}, {rows}, {columns}, {before}, {after}, 1);"]
        used |= {f"weight{k}", f"bias{k}"}
        before = after
    return used, "\n".join(lines) + "\n"


def _sort(plain: Plain, name: str) -> str:
    own, tables = plain.order, plain.factors
    values, columns = tables[own["by"]], tables[own["columns"]]
    a, b, center = map(repr, own["worth"])
    words = {"J": values.shape[0], "k": own["count"], "m": columns.shape[0], "pair": 1 + columns.complex}
    words |= {"a": a, "b": b, "center": center, "signed": own["signed"], "always": own["always"], "name": name}
    words["equal"] = repr(own["equal"])
    words["n"] = tables[own["rows"]].shape[1] if own["rows"] >= 0 else 0
    source = sources.BLOCK if own["block"] else sources.SORT
    return Template(sources.ORDER + "\n" + source).substitute(words)


def _evaluator(plain: Plain, name: str) -> str:
    tables, order = plain.factors, plain.order
    sizes = [int(np.prod(table.public)) * (1 + table.paired) for table in tables]
    most = max(len(table.rows) for table in plain.tables)
    places = [f"fitted{i}" if order else table.name for i, table in enumerate(plain.tables)]
    lines = [f"    double x[{plain.dimension}], phi[{most}];", "    int count, first;"]
    lines += [f"    {name}_real {own}[{table.rows.shape[1]}];" for own, table in zip(places, plain.tables) if order]
    lines += [f"    if ({name}_cube(p, x)) {{"]
    lines += [f"        for (int i = 0; i < {size}; i++) {t.name}[i] = NAN;" for t, size in zip(tables, sizes)]
    lines += ["        return 1;", "    }"]
    done = None
    for i, table in enumerate(plain.tables):
        if table.basis != done:
            lines += [f"    first = {name}_basis{table.basis}(x, phi, &count);"]
        done, M = table.basis, table.rows.shape[1]
        lines += [f"    {name}_product({name}_latent{i} + (long)first * {M}, phi, count, {M}, {places[i]});"]
    if order:
        own = [order["by"], order["columns"], order["rows"]]
        given = [places[i] if i >= 0 else "0" for i in own]
        given += [places[-1] if plain.guide else "0"] if order["block"] else []
        given += [tables[i].name if i >= 0 else "0" for i in own]
        lines += [f"    {name}_sort({', '.join(given)});"]
    lines += [line for i, table in enumerate(tables) for line in _ended(plain, table, i, name)]
    return "\n".join([f"static inline {_signature(plain, name)}", "{", *lines, "    return 0;", "}"])


def _ended(plain: Plain, table: Table, i: int, name: str) -> list[str]:
    rows, columns = (*table.public, 1, 1)[:2]
    lines = [f"    {name}_unit({table.name}, {rows}, {columns}, {1 + table.complex});"] if i == plain.unit else []
    for k, (_, axis) in enumerate(table.phases):
        lines += [f"    {name}_turn({table.name}, {rows}, {columns}, {name}_slopes{i}_{k}, {axis}, x);"]
    return lines
