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
# Numbers of pieces, axes and rows, which begin with 1 in MATLAB.
_COUNTED = ("first", "axis", "indices")


@checks.explained
def save_mat(surrogate: Surrogate, path: str | os.PathLike) -> None:
    """Write a surrogate as a MATLAB file (version 5): a structure ``surrogate`` of plain arrays.

    The page *Elsewhere than Python* of the book has the evaluator, some lines of MATLAB or Octave. Numbers of rows,
    axes and pieces begin with 1; flags are logical; complex arrays are complex. Fields:

    ``lower``, ``upper``, ``least``, ``most``, ``start``, ``stop``, ``log``, ``periodic``
        The box, (1, d) each: bounds, what counts as inside, what is linear at the ends (logarithms on such axes).
    ``bases``
        A cell for each set of functions Phi: ``kind``, ``"pieces"``, ``"products"`` or ``"network"``, and its arrays.
        Pieces have ``low``, ``high``, ``bend`` and ``counts`` (P, d), ``nodes`` and ``bary`` (P, d, n), ``first``, the
        first row of the latent tensor of each, and for several parameters the tree of cuts, ``axis``, ``cut`` and
        ``children``, where -k stands for piece k.
    ``factors``
        A cell for each factor: ``name``, ``basis``, ``size``, ``latent`` (numbers of a value, r), the latent tensor
        with the entries of a matrix column by column, and the phases that are put back.
    ``unit``, ``order``, ``guide``
        The factor whose columns get the length one, or 0; how columns are sorted, or empty; and towards which vectors
        of a block are turned, one more factor, or none.
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
        "factors": _cells([_factor(table) for table in plain.factors]),
        "guide": _cells([_factor(plain.guide)] if plain.guide else []),
        "unit": float(plain.unit + 1),
        "order": order or [],
        "told": told,
    }


def _basis(basis: Basis) -> dict[str, object]:
    found = {name: x if x.dtype.kind == "b" else x.astype(float) for name, x in basis.arrays.items()}
    found |= {name: found[name] + 1 for name in _COUNTED if name in found}
    if "children" in found:
        found["children"] = np.where(found["children"] < 0, found["children"], found["children"] + 1)
    if "imaginary" in found:
        found["bary"] = found["bary"] + 1j * found.pop("imaginary")
    return {"kind": basis.kind, "single": basis.single, **found}


def _factor(table: Table) -> dict[str, object]:
    latent = np.moveaxis(table.values, 0, -1).reshape(-1, len(table.rows), order="F")
    phases = _cells([{"slopes": slopes, "axis": float(axis + 1)} for slopes, axis in table.phases])
    size = np.array([*table.shape, 1, 1][:2], float)
    return {"name": table.name, "basis": float(table.basis + 1), "size": size, "latent": latent, "phases": phases}


def _cells(values: list) -> np.ndarray:
    """Return a row of cells."""
    cells = np.empty((1, len(values)), object)
    cells[0] = values
    return cells
