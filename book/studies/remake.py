"""Remake one figure or table: run the few statements of its notebook that it hangs on, and export what they show."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FuncFormatter

from studies import figures, headlines, ids, last_good, provenance, registry, slices

FORMATS = {"figure": ("svg", "pdf", "csv"), "table": ("csv",)}
COLUMNS = ("panel", "series", "kind", "x", "y", "x_end", "y_end", "value")


def statements(entry: registry.Entry, profile: str, published: Sequence[str] = ()) -> list[ast.stmt]:
    """Return the statements of its notebook that an entry hangs on, see :func:`slices.needed`; of a page, its own."""
    if entry.chapter == ids.INTERACTIVE:
        return ast.parse(f"from studies import interactive\n{entry.script.removeprefix('studies.')}().tabulated()").body
    if not entry.cell:
        return ast.parse(f"from studies import front\n{entry.script.removeprefix('studies.')}(front.records())").body
    cells = slices.cells(provenance.root() / "notebooks" / f"{entry.chapter}.ipynb")
    cell = next(cell for cell in cells if cell.id == entry.cell)
    return slices.needed(cells, cell, profile, published)


def absent(entry: registry.Entry, profile: str) -> tuple[list[str], list[str]]:
    """Return the chapters whose runs an entry reads and that are not there: those whose published record is of the same
    profile and stands for the run, and those that have to run."""
    published, missing = [], []
    for chapter, kept, _ in entry.records:
        if kept or provenance.run_path(chapter, profile).with_suffix(".json").is_file():
            continue
        try:
            (published if provenance.load(chapter).profile == profile else missing).append(chapter)
        except FileNotFoundError:
            missing.append(chapter)
    return published, missing


class _Unfilled(ast.NodeTransformer):
    """Leave a record as it is where statements fill it with the last good timings."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        return node.args[0] if ast.unparse(node.func) == "last_good.fill" else node


def timed_before(entry: registry.Entry, profile: str, record: provenance.Record) -> bool:
    """Return whether an entry shows last good timings in the place of those that the run of a record refused."""
    filled = last_good.fill(record)
    if filled is record:
        return False
    code = statements(entry, profile)
    if entry.script == "studies.own_matrices.weigh":  # It fills what it names, and the fit is not made again.
        name = code[-1].value.args[1].value
        return record.numbers[name]["conditions"] != filled.numbers[name]["conditions"]
    if not any("last_good.fill(" in ast.unparse(statement) for statement in code):
        return False
    with contextlib.redirect_stdout(io.StringIO()):  # A figure without its times says that it is not drawn.
        one, other = (as_csv(_rows(show(entry, profile, fills=fills))) for fills in (True, False))
    plt.close("all")
    return one != other


def show(
    entry: registry.Entry, profile: str, device: str = "cpu", seed: int = 0, fills: bool = True
) -> Figure | provenance.Table:
    """Return the figure or the table of an entry, made again.

    Args:
        entry: From the registry.
        profile: Of the run that it is remade from.
        device: Of the fits that it hangs on.
        seed: Of these fits.
        fills: Whether last good timings stand for those that the run refused, as on the page.

    Raises:
        FileNotFoundError: If it reads a record that is neither there nor published; the message has the command.
        RuntimeError: If the cell shows something else than what its metadata say.
    """
    *before, last = statements(entry, profile, absent(entry, profile)[0])
    if not fills:
        before, last = list(map(_Unfilled().visit, before)), _Unfilled().visit(last)
    scope = {"profile": profile, "device": device, "seed": seed, "__name__": "__main__"}
    exec(_compiled(ast.Module(before, [])), scope)
    plt.close("all")
    value = eval(_compiled(ast.Expression(last.value)), scope)
    shown = next(map(plt.figure, plt.get_fignums()), value) if entry.kind == "figure" else value
    if not isinstance(shown, Figure if entry.kind == "figure" else provenance.Table):
        raise RuntimeError(f"{entry.page}: expected {entry.cell or entry.script} to give a {entry.kind}.")
    return shown


def _compiled(tree: ast.Module | ast.Expression) -> object:
    return compile(ast.fix_missing_locations(tree), "notebook", "eval" if isinstance(tree, ast.Expression) else "exec")


def write(entry: registry.Entry, profile: str, folder: Path, credit: str) -> list[Path]:
    """Remake a figure or table and write it as SVG, PDF and CSV (others: CSV) into a folder; return their paths.

    Args:
        entry: From the registry.
        profile: Of the run that it is remade from.
        folder: Is made.
        credit: One line on where it comes from, for the metadata of SVG and PDF.

    Raises:
        FileNotFoundError: If a record is missing.
        RuntimeError: If readers could not read the figure, see :func:`figures.faults`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind in FORMATS["figure"]:
        (folder / f"{entry.id}.{kind}").unlink(missing_ok=True)
    # As a fresh kernel has them, and files that are the same at every build.
    with plt.rc_context({**mpl.rcParamsDefault, "backend": "agg", "svg.hashsalt": entry.id}):
        shown = show(entry, profile)
        if isinstance(shown, provenance.Table):
            contents = {"csv": as_csv(_rows(shown)).encode()}
        else:
            if found := figures.faults(shown):
                raise RuntimeError(f"{entry.id}: {found[0]}" + f"; {len(found) - 1} more" * (len(found) > 1) + ".")
            contents = {kind: _drawn(shown, kind, entry.id, credit) for kind in ("svg", "pdf")}
            if len(rows := _rows(shown)) > 1:
                contents["csv"] = as_csv(rows).encode()
            plt.close(shown)
    for kind, content in contents.items():
        (folder / f"{entry.id}.{kind}").write_bytes(content)
    return [folder / f"{entry.id}.{kind}" for kind in contents]


def agreement(entry: registry.Entry, profile: str, made: Path | None) -> list[str]:
    """Return in sentences whether what an entry was remade from agrees with what is published.

    Compared are the headline numbers of its chapter, each within its own tolerance, times left out; and the CSV, with
    that of the built book where there is one, within the widest of these tolerances, or that of single precision.

    Args:
        entry: From the registry.
        profile: Of the run that it was remade from.
        made: The CSV; None where the figure has no numbers.
    """
    published = headlines.expected(profile)["values"] if profile in headlines.PROFILES else {}
    own = [h for h in headlines.HEADLINES if h.chapter == entry.chapter and h.kind != "timing" and h.id in published]
    lines, found = [], provenance.run_path(entry.chapter, profile).with_suffix(".json")
    if own and found.is_file():
        record, values = provenance.load(entry.chapter, profile), provenance.restore(published)
        off = [
            h.id
            for h in own
            if not headlines.agrees(h, values[h.id], provenance.restore(registry.number(record, h.keys)))
        ]
        lines.append(
            f"{entry.chapter}: {len(own) - len(off)} of {len(own)} published numbers agree, each within its tolerance "
            f"(times are not compared){'; off: ' * bool(off)}{', '.join(off)}"
        )
    else:
        lines.append(f"{entry.chapter}: no published numbers at {profile} to compare with")
    page = provenance.root() / "_build" / "html" / "figures" / f"{entry.id}.csv"
    if made is not None and page.is_file():
        within = max([headlines.SINGLE, *(h.within for h in own)])
        lines.append(f"{entry.id}.csv beside that of the built book: {differences(made, page, within)}")
    elif made is not None:
        lines.append(f"{entry.id}.csv: the built book's is not here to compare with; `make book` makes it")
    return lines


def differences(made: Path, published: Path, within: float) -> str:
    """Return in words how two files of CSV differ; numbers may be off by ``within``, relative to the larger one."""
    ours, theirs = (list(csv.reader(io.StringIO(path.read_text("utf-8")))) for path in (made, published))
    if list(map(len, ours)) != list(map(len, theirs)):
        return f"they differ in shape, {len(ours)} and {len(theirs)} rows"
    pairs = [pair for rows in zip(ours, theirs) for pair in zip(*rows)]
    off = sum(not _same(*pair, within) for pair in pairs)
    return (
        f"{off} of {len(pairs)} entries differ by more than {within:.2g}, relatively; times differ at each run"
        if off
        else f"all {len(pairs)} entries agree within {within:.2g}, relatively"
    )


def _same(one: str, other: str, within: float) -> bool:
    try:
        return one == other or math.isclose(float(one), float(other), rel_tol=within)
    except ValueError:
        return False


def _drawn(figure: Figure, kind: str, title: str, credit: str) -> bytes:
    stream = io.BytesIO()
    about = {"Date": None, "Description": credit} if kind == "svg" else {"CreationDate": None, "Subject": credit}
    figure.savefig(stream, format=kind, bbox_inches="tight", metadata={"Title": title, **about})
    return stream.getvalue()


def _rows(shown: Figure | provenance.Table) -> list[Sequence[object]]:
    """Return what a figure or a table shows, under a header."""
    return [shown.header, *shown.rows] if isinstance(shown, provenance.Table) else [COLUMNS, *data(shown)]


def as_csv(rows: Sequence[Sequence[object]]) -> str:
    """Return rows as CSV; floats keep all their digits."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def data(figure: Figure) -> Iterator[tuple]:
    """Yield what the axes of a figure show, in the numbers that were given to matplotlib: rows of ``COLUMNS``.

    Lines and dots have one row a point; bars and intervals a row each, with their ends; areas a row a corner; images a
    row a value; ticks that are names a row each. Lines across the whole panel have one coordinate. What has no label is
    numbered. Other texts are no data, and neither is a drawing, whose axes are off.
    """
    for number, axes in enumerate((axes for axes in figure.axes if axes.axison), 1):
        panel = axes.get_title() or axes.get_ylabel() or str(number)
        for i, line in enumerate(axes.lines, 1):
            yield from _line(axes, panel, _series(line, i), line)
        for i, collection in enumerate(axes.collections, 1):
            yield from _collection(panel, _series(collection, i), collection)
        for i, patch in enumerate(axes.patches, 1):
            if isinstance(patch, Rectangle):
                (x, y), width, height = patch.get_xy(), patch.get_width(), patch.get_height()
                yield panel, _series(patch, i), "bar", x, y, x + width, y + height, ""
        for i, image in enumerate(axes.images, 1):
            for (row, column), value in np.ndenumerate(np.ma.filled(image.get_array(), np.nan)):
                yield panel, _series(image, i), "image", column, row, "", "", value
        yield from _ticks(axes, panel)


def _series(artist: Artist, number: int) -> str:
    """Return the label of what was drawn, else its number; matplotlib's own begin with an underscore."""
    label = str(artist.get_label())
    return str(number) if label.startswith("_") else label


def _ticks(axes: Axes, panel: str) -> Iterator[tuple]:
    for axis in (axes.xaxis, axes.yaxis):
        # What sets names for ticks leaves one of these behind.
        if isinstance(axis.get_major_formatter(), (FixedFormatter, FuncFormatter)):
            places = axis.get_majorticklocs()
            for place, label in zip(places, axis.get_major_formatter().format_ticks(places)):
                x, y = (place, "") if axis is axes.xaxis else ("", place)
                yield panel, axis.axis_name, "tick", x, y, "", "", label


def _line(axes: Axes, panel: str, name: str, line: Line2D) -> Iterator[tuple]:
    in_x, in_y = line.get_transform().contains_branch_seperately(axes.transData)
    x, y = line.get_data(orig=True)
    if in_x and in_y:
        kind = "points" if line.get_linestyle() in ("None", "none", " ", "") else "line"
        for place, value in zip(np.ravel(x), np.ravel(y)):
            yield panel, name, kind, place, value, "", "", ""
    elif in_x:
        yield panel, name, "vertical line", np.ravel(x)[0], "", "", "", ""
    elif in_y:
        yield panel, name, "horizontal line", "", np.ravel(y)[0], "", "", ""


def _collection(panel: str, name: str, collection: Collection) -> Iterator[tuple]:
    if isinstance(collection, QuadMesh):
        corners = np.asarray(collection.get_coordinates())
        values = np.ma.filled(collection.get_array(), np.nan).reshape(corners.shape[0] - 1, corners.shape[1] - 1)
        for (row, column), value in np.ndenumerate(values):
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
