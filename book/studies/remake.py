"""Remake one figure or table: run the few statements of its notebook that it hangs on, and export what they show."""

from __future__ import annotations

import ast
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from studies import provenance, registry, slices

FORMATS = {"figure": ("svg", "pdf", "csv"), "table": ("csv",)}
COLUMNS = ("panel", "series", "kind", "x", "y", "x_end", "y_end", "value")


def statements(entry: registry.Entry, profile: str, published: Sequence[str] = ()) -> list[ast.stmt]:
    """Return the statements of its notebook that an entry hangs on; see :func:`slices.needed`."""
    cells = slices.cells(provenance.root() / "notebooks" / f"{entry.chapter}.ipynb")
    cell = next(cell for cell in cells if cell.id == entry.cell)
    return slices.needed(cells, cell, profile, published)


def absent(entry: registry.Entry, profile: str) -> tuple[list[str], list[str]]:
    """Return the chapters whose runs an entry reads and that are not there: those whose published record is of the same
    profile and stands for the run, and those that have to run."""
    published, missing = [], []
    for chapter, kept in slices.loaded(statements(entry, profile)):
        if kept or provenance.run_path(chapter, profile).with_suffix(".json").is_file():
            continue
        try:
            (published if provenance.load(chapter).profile == profile else missing).append(chapter)
        except FileNotFoundError:
            missing.append(chapter)
    return published, missing


def show(entry: registry.Entry, profile: str, device: str = "cpu", seed: int = 0) -> Figure | provenance.Table:
    """Return the figure or the table of an entry, made again.

    Raises:
        FileNotFoundError: If it reads a record that is neither there nor published; the message has the command.
        RuntimeError: If the cell shows something else than what its metadata say.
    """
    *before, last = statements(entry, profile, absent(entry, profile)[0])
    scope = {"profile": profile, "device": device, "seed": seed, "__name__": "__main__"}
    exec(_compiled(ast.Module(before, [])), scope)
    plt.close("all")
    value = eval(_compiled(ast.Expression(last.value)), scope)
    shown = value if entry.kind == "table" else next(map(plt.figure, plt.get_fignums()), value)
    if not isinstance(shown, provenance.Table if entry.kind == "table" else Figure):
        raise RuntimeError(f"notebooks/{entry.chapter}.ipynb: expected cell {entry.cell} to end with a {entry.kind}.")
    return shown


def _compiled(tree: ast.Module | ast.Expression) -> object:
    return compile(ast.fix_missing_locations(tree), "notebook", "eval" if isinstance(tree, ast.Expression) else "exec")


def write(entry: registry.Entry, profile: str, folder: Path, credit: str) -> list[Path]:
    """Remake a figure or table and write it as SVG, PDF and CSV (a table: CSV) into a folder; return their paths.

    Args:
        entry: From the registry.
        profile: Of the run that it is remade from.
        folder: Is made.
        credit: One line on where it comes from, for the metadata of SVG and PDF.

    Raises:
        FileNotFoundError: If a record is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind in FORMATS["figure"]:
        (folder / f"{entry.id}.{kind}").unlink(missing_ok=True)
    # As a fresh kernel has them, and files that are the same at every build.
    with plt.rc_context({**mpl.rcParamsDefault, "backend": "agg", "svg.hashsalt": entry.id}):
        shown = show(entry, profile)
        if isinstance(shown, provenance.Table):
            contents = {"csv": as_csv([shown.header, *shown.rows]).encode()}
        else:
            contents = {kind: _drawn(shown, kind, entry.id, credit) for kind in ("svg", "pdf")}
            if rows := list(data(shown)):
                contents["csv"] = as_csv([COLUMNS, *rows]).encode()
            plt.close(shown)
    for kind, content in contents.items():
        (folder / f"{entry.id}.{kind}").write_bytes(content)
    return [folder / f"{entry.id}.{kind}" for kind in contents]


def _drawn(figure: Figure, kind: str, title: str, credit: str) -> bytes:
    stream = io.BytesIO()
    about = {"Date": None, "Description": credit} if kind == "svg" else {"CreationDate": None, "Subject": credit}
    figure.savefig(stream, format=kind, bbox_inches="tight", metadata={"Title": title, **about})
    return stream.getvalue()


def as_csv(rows: Sequence[Sequence[object]]) -> str:
    """Return rows as CSV; floats keep all their digits."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def data(figure: Figure) -> Iterator[tuple]:
    """Yield what the axes of a figure show, in the numbers that were given to matplotlib: rows of ``COLUMNS``.

    Lines and dots have one row a point; bars, intervals and areas a row each, with their ends or, for an area, its
    corners; images a row a value. Lines across the whole panel have one coordinate. Texts and plain shapes are no data.
    """
    for number, axes in enumerate(figure.axes, 1):
        panel = axes.get_title() or axes.get_ylabel() or str(number)
        for line in axes.lines:
            yield from _line(axes, panel, line)
        for collection in axes.collections:
            yield from _collection(axes, panel, collection)
        for patch in axes.patches:
            if isinstance(patch, Rectangle) and patch.get_transform() - axes.transData == patch.get_patch_transform():
                x, y = patch.get_xy()
                yield panel, _series(patch), "bar", x, y, x + patch.get_width(), y + patch.get_height(), ""
        for image in axes.images:
            for (row, column), value in np.ndenumerate(np.ma.filled(image.get_array(), np.nan)):
                yield panel, _series(image), "image", column, row, "", "", value


def _series(artist: object) -> str:
    """Return the label of what was drawn; matplotlib's own begin with an underscore."""
    label = str(artist.get_label())
    return "" if label.startswith("_") else label


def _line(axes: object, panel: str, line: object) -> Iterator[tuple]:
    along = [
        axes.transData.contains_branch(line.get_transform()),
        *line.get_transform().contains_branch_seperately(axes.transData),
    ]
    kind = "line" if line.get_linestyle() not in ("None", "none", " ", "") else "points"
    if along[1] and along[2]:
        for x, y in zip(*line.get_data(orig=True)):
            yield panel, _series(line), kind, x, y, "", "", ""
    elif along[1]:
        yield panel, _series(line), "vertical line", line.get_xdata(orig=True)[0], "", "", "", ""
    elif along[2]:
        yield panel, _series(line), "horizontal line", "", line.get_ydata(orig=True)[0], "", "", ""


def _collection(axes: object, panel: str, collection: object) -> Iterator[tuple]:
    name = _series(collection)
    if isinstance(collection, QuadMesh):
        corners = np.asarray(collection.get_coordinates())
        for (row, column), value in np.ndenumerate(
            np.ma.filled(collection.get_array(), np.nan).reshape(np.array(corners.shape[:2]) - 1)
        ):
            yield panel, name, "cell", *corners[row, column], *corners[row + 1, column + 1], value
    elif isinstance(collection, PathCollection):
        values = collection.get_array()
        for i, (x, y) in enumerate(collection.get_offsets()):
            yield panel, name, "points", x, y, "", "", "" if values is None else values[i]
    elif isinstance(collection, LineCollection):
        for (x, y), *_, (x_end, y_end) in collection.get_segments():
            yield panel, name, "interval", x, y, x_end, y_end, ""
    elif isinstance(collection, PolyCollection):
        for number, path in enumerate(collection.get_paths()):
            for x, y in path.vertices:
                yield panel, name, "area", x, y, "", "", number
