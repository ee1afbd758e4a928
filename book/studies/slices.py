"""What of a notebook a cell hangs on.

A chapter computes, saves a record, loads it and draws. What a cell draws is therefore found backwards: its last
statement, and of the statements before it those that bind or change a name that is needed. A record that is loaded
binds its name, so that nothing behind it is needed; a cell that shows a fit itself needs that fit. Whatever saves,
checks or glues is left out: nothing that is remade changes a record.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from studies import provenance

# Cells that set up a run; a figure cannot hang on them but through the parameters.
SETUP = {"colab", "parameters", "injected-parameters"}
# Calls for their output or their check alone.
IDLE = ("glue", "save", "print", "display")


class Source(NamedTuple):
    """A record that a cell reads: its chapter, whether it is the published one instead of a run's, and which part."""

    chapter: str
    published: bool
    part: str | None = None


def notebooks() -> list[Path]:
    """Return the paths of all notebooks, sorted."""
    return sorted((provenance.root() / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[NotebookNode]:
    """Return the code cells of a notebook, without those that set up a run. Do not change them: they are kept."""
    return _cells(path, path.stat().st_mtime_ns)


# As many as the book has chapters: each figure asks for its own.
@functools.lru_cache(maxsize=32)
def _cells(path: Path, _: int) -> list[NotebookNode]:
    found = nbformat.read(path, as_version=4).cells
    return [cell for cell in found if cell.cell_type == "code" and SETUP.isdisjoint(cell.metadata.get("tags", ()))]


def modules(statements: Sequence[ast.stmt]) -> dict[str, str]:
    """Return what the import statements bind, by name: dotted paths of modules and of what is taken from them."""
    found = {}
    for node in statements:
        if isinstance(node, ast.Import):
            found |= {
                (a.asname or a.name.partition(".")[0]): (a.name if a.asname else a.name.partition(".")[0])
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def loaded(statements: Sequence[ast.stmt]) -> list[Source]:
    """Return the records that the statements load, in order."""
    found = []
    for statement in statements:
        for node in ast.walk(statement):
            if loads(node) and isinstance(node.args[0], ast.Constant):
                published = len(node.args) == 1 or ast.unparse(node.args[1]) == "None"
                part = ast.literal_eval(node.args[2]) if len(node.args) > 2 else None
                found.append(Source(node.args[0].value, published, part))
    return list(dict.fromkeys(found))


def takes(statements: Sequence[ast.stmt]) -> bool:
    """Return whether the statements read `provenance.taken`: at cpu the published record of their own chapter."""
    nodes = [node for statement in statements for node in ast.walk(statement)]
    return any(isinstance(node, ast.Call) and _dotted(node.func) == ("provenance", "taken") for node in nodes)


def makes(statements: Sequence[ast.stmt]) -> bool:
    """Return whether the statements make a record: what they show of it has just been computed."""
    nodes = [node for statement in statements for node in ast.walk(statement)]
    return any(isinstance(node, ast.Call) and _dotted(node.func) == ("provenance", "Record") for node in nodes)


def loads(node: ast.AST) -> bool:
    """Return whether a node is a call that loads a record."""
    return isinstance(node, ast.Call) and bool(node.args) and _dotted(node.func) == ("provenance", "load")


def _dotted(node: ast.expr) -> tuple[str, str] | None:
    """Return the parts of ``name.attribute``."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.value.id, node.attr
    return None


def parsed(cell: NotebookNode) -> list[ast.stmt]:
    """Return the statements of a cell, without the lines that only IPython understands."""
    lines = ["" if line.lstrip().startswith(("%", "!")) else line for line in cell.source.splitlines()]
    return ast.parse("\n".join(lines)).body


class _Fold(ast.NodeTransformer):
    """Decide what hangs on the profile alone, and take published records where a run is not there.

    Args:
        profile: Of the run that the figure is remade from.
        published: Chapters whose published record stands for the run.
        modules: What the notebook imports, by name.
    """

    def __init__(self, profile: str, published: Sequence[str], modules: Mapping[str, str]) -> None:
        self.profile, self.published, self.modules = profile, published, modules

    def _decided(self, test: ast.expr) -> bool | None:
        names = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
        if names != {"profile"}:
            return None
        return bool(eval(compile(ast.Expression(test), "notebook", "eval"), {}, {"profile": self.profile}))

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self.generic_visit(node)
        decided = self._decided(node.test)
        return node if decided is None else node.body if decided else node.orelse

    def visit_If(self, node: ast.If) -> object:
        self.generic_visit(node)
        decided = self._decided(node.test)
        return node if decided is None else node.body if decided else node.orelse

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if loads(node) and isinstance(node.args[0], ast.Constant) and node.args[0].value in self.published:
            node.args = node.args[:1]
        return node

    def visit_Assign(self, node: ast.Assign) -> object:
        """Take ``a, b = (provenance.load(name) for name in study.NAMES)`` apart, so that each record stands alone."""
        value = node.value
        if isinstance(value, ast.GeneratorExp) and loads(value.elt) and isinstance(node.targets[0], ast.Tuple):
            module, _, name = ast.unparse(value.generators[0].iter).rpartition(".")
            names = getattr(importlib.import_module(self.modules[module]), name)
            parts = zip(node.targets[0].elts, names, strict=True)
            lines = "\n".join(f"{ast.unparse(target)} = provenance.load({text!r})" for target, text in parts)
            return ast.parse(lines).body
        return self.generic_visit(node)


def _stored(node: ast.AST) -> set[str]:
    """Return the names that a statement binds."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    inner = {
        id(name) for part in ast.walk(node) if isinstance(part, ast.comprehension) for name in ast.walk(part.target)
    }
    found = {
        part.id
        for part in ast.walk(node)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store) and id(part) not in inner
    }
    return found | set(modules([node]))


def _read(node: ast.AST) -> set[str]:
    """Return the names that a statement reads, its own loops and arguments left out."""
    found, own = set(), set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load):
            found.add(part.id)
        elif isinstance(part, ast.arg):
            own.add(part.arg)
        elif isinstance(part, ast.comprehension):
            own |= {name.id for name in ast.walk(part.target) if isinstance(name, ast.Name)}
    return found - own | (
        {node.target.id} if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) else set()
    )


def _changed(node: ast.stmt) -> set[str]:
    """Return the names whose values a statement may change in place: it stores into them, or passes them to a call."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, (ast.Attribute, ast.Subscript)) and isinstance(part.ctx, ast.Store):
            found |= {name.id for name in ast.walk(part.value) if isinstance(name, ast.Name)}
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        found |= _read(node)
    return found


def _idle(node: ast.stmt) -> bool:
    """Return whether a statement only checks, saves or shows."""
    if isinstance(node, (ast.Assert, ast.Delete)):
        return True
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return isinstance(node, ast.Expr)
    name = ast.unparse(node.value.func).rpartition(".")[2]
    return name.partition("_")[0] in IDLE or name.endswith(("_table", "_figure")) or name == "table"


def _styles(node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and (_dotted(call.func) or ("", ""))[1] == "style"


def needed(
    cells: Sequence[NotebookNode], cell: NotebookNode, profile: str, published: Sequence[str] = ()
) -> list[ast.stmt]:
    """Return the statements that the last one of a cell hangs on, in their order, that one included.

    Args:
        cells: Code cells of the notebook as :func:`registry.cells` returns them.
        cell: The one that shows the figure or the table.
        profile: Decides the branches that hang on it alone.
        published: Chapters whose published record stands for the run.
    """
    last = next(i for i, other in enumerate(cells) if other.id == cell.id)
    statements = [statement for other in cells[: last + 1] for statement in parsed(other)]
    imported = modules(statements)
    statements = _Fold(profile, published, imported).visit(ast.Module(statements, [])).body
    chosen, wanted = [statements[-1]], _read(statements[-1])
    for node in reversed(statements[:-1]):
        binds = _stored(node) & wanted
        changes = _changed(node) & (wanted - set(imported)) and not _idle(node)
        if not (binds or changes or _styles(node)):
            continue
        chosen.append(node)
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
            wanted -= binds
        wanted |= _read(node)
    return chosen[::-1]
