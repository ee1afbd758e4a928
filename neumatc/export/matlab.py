"""A surrogate as a file of MATLAB: a structure of plain arrays, which Octave and SciPy read too."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import scipy.io

from neumatc import checks, files
from neumatc.export.plain import Basis, Plain, Table, described
from neumatc.model import Surrogate

# What the format holds in a variable, with room for the rest.
_MOST_BYTES = 2**31 - 2**24
# An angle whose sine is itself, for pieces that are not bent.
_STRAIGHT = 2.0**-30


@checks.explained
def save_mat(surrogate: Surrogate, path: str | os.PathLike) -> None:
    """Write a surrogate as a MATLAB file (version 5): a structure ``surrogate`` of plain arrays.

    The page *Elsewhere than Python* of the book has the evaluator: 20 lines of MATLAB or Octave for a map in pieces,
    and some functions for what else there is. Numbers of rows and axes begin with 1; flags are logical; complex arrays
    are complex. Fields:

    ``lower``, ``upper``, ``least``, ``most``, ``start``, ``stop``, ``log``, ``periodic``
        The box, (1, d) each: bounds, what counts as inside, what is linear at the ends (logarithms on such axes).
    ``bases``
        A cell for each set of functions Phi: ``kind``, ``"pieces"``, ``"rational"`` of complex weights,
        ``"products"`` or ``"network"``, and its arrays. Piece q is where ``from(q, :) <= x < to(q, :)``. There the
        position on axis i is ``sin(rate(q, i) * (x(i) - middle(q, i)) - shift(q, i))``, ``nodes{q, i}`` and
        ``weights{q, i}`` are those of the barycentric form, and ``rows{q}`` says which columns of ``latent`` it sums.
    ``factors``, ``maps``
        Names of the factors, and a cell for each: ``basis``, ``size``, ``latent`` (numbers of a value, r), the latent
        tensor with the entries of a matrix column by column, and the phases that are put back. One more map than
        factors says towards which vectors those of a block are turned.
    ``finish``, ``unit``, ``order``
        Whether anything follows; the factor whose columns get the length one, or 0; how columns are sorted, or empty.
    ``told``
        Names, units, scales, operation, tolerance, whether it was met, version.

    The evaluator raises where p lies outside the box. The file is there as a whole or not at all, as with `save`.

    Args:
        surrogate: From any device.
        path: Usually ending in ``.mat``, which is not added.

    Raises:
        TypeError: If ``surrogate`` is something else.
        ValueError: As `export_onnx` does.
        OSError: If the file cannot be written, as `save` says.
    """
    plain, file = described(surrogate), io.BytesIO()
    checks.require(plain.bytes < _MOST_BYTES, "surrogate", "less than 2 GB for MATLAB", plain.bytes, "take nm.save")
    scipy.io.savemat(file, {"surrogate": _structure(plain)}, long_field_names=True, oned_as="row")
    files.replace(Path(path), file.getvalue())


def _structure(plain: Plain) -> dict[str, object]:
    box = ("lower", "upper", "least", "most", "start", "stop", "log", "periodic")
    order = {key: np.asarray(value, float) for key, value in plain.order.items()}
    if order:
        order |= {key: order[key] + 1 for key in ("by", "columns", "rows")}
    told = {key: [] if value is None else value for key, value in plain.told.items()}
    told |= {key: _cells(told[key]) for key in ("parameters", "units", "scale")}
    return {
        **{name: getattr(plain, name)[None] for name in box},
        "bases": _cells([_basis(basis) for basis in plain.bases]),
        "factors": _cells([table.name for table in plain.factors]),
        "maps": _cells([_map(table) for table in plain.tables]),
        "finish": bool(order) or plain.unit >= 0 or any(table.phases for table in plain.factors),
        "unit": float(plain.unit + 1),
        "order": order or [],
        "told": told,
    }


def _basis(basis: Basis) -> dict[str, object]:
    if basis.kind == "pieces":
        return _pieces(**basis.arrays)
    found = {name: x if x.dtype.kind == "b" else x.astype(float) for name, x in basis.arrays.items()}
    found |= {name: found[name] + 1 for name in ("indices",) if name in found}
    return {"kind": basis.kind, "single": basis.single, **found}


def _pieces(low, high, bend, counts, first, nodes, bary, imaginary=None, **tree) -> dict[str, object]:
    """Return pieces as rows of arrays and of cells. The outer ones reach beyond the box, so that no tree is needed."""
    bend, kind = np.maximum(bend, _STRAIGHT), "pieces" if imaginary is None else "rational"
    found = {"kind": kind, "from": np.where(low > -1, low, -np.inf), "to": np.where(high < 1, high, np.inf)}
    middle, rate = (low + high) / 2, 2 * bend / (high - low)
    # What rounding left of the middle is much of a narrow piece.
    found |= {"middle": middle, "rate": rate, "shift": rate * ((low - middle) + (high - middle)) / 2}
    weights = bary if imaginary is None else bary + 1j * imaginary
    for name, table in (("nodes", nodes * np.sin(bend)[..., None]), ("weights", weights)):
        found[name] = _cells([table[at][: counts[at]] for at in np.ndindex(low.shape)]).reshape(low.shape)
    return found | {"rows": _cells([k + np.arange(1.0, 1 + n) for k, n in zip(first, counts.prod(axis=1))])}


def _map(table: Table) -> dict[str, object]:
    latent = np.moveaxis(table.values, 0, -1).reshape(-1, len(table.rows), order="F")
    phases = _cells([{"slopes": slopes, "axis": float(axis + 1)} for slopes, axis in table.phases])
    size = np.array([*table.shape, 1, 1][:2], float)
    return {"basis": float(table.basis + 1), "size": size, "latent": latent, "phases": phases}


def _cells(values: list) -> np.ndarray:
    """Return a row of cells."""
    return np.fromiter(values, object)[None]
