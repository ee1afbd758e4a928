"""The registry of what can be cited: figures and tables, read from the notebooks, and claims, from ``registry.toml``.

A figure or a table is a code cell that ends with the expression which makes it. Its metadata give it a name and a
caption: ``mystnb: {figure: {name, caption}, image: {alt}}`` for a figure, ``table: {name, caption}`` for a table.
What page one shows is made by `studies.front`, what a reader moves by `studies.interactive`; their pages name it.
Nothing is written down twice: chapter, cell, script and records follow from the cell, and parameters, seed, versions,
commit and time from the record. A claim is a sentence about one number of one record, which only a person can choose.

    python -m studies.registry                 list the ids
"""

from __future__ import annotations

import ast
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

from nbformat import NotebookNode

from studies import benchmark, ids, interactive, provenance, slices

# Page one, by id: what makes it, the records that this reads, and the caption where the page has none.
FRONT = {
    "fig-decisions": ("figure", ("speed", "beyond_the_inverse"), ""),
    "tab-decisions": (
        "table",
        (
            *("speed", "to_the_limit", "beyond_the_inverse", "synthetic_timings", "synthetic_experiments", "cases"),
            *("several_parameters_study", "frequency_and_time"),
            # What chapters show of their own runs; published are their last good times.
            *("your_own_matrices_timings", "wireless_inversion_timings"),
        ),
        "What to pick for one pass over all matrices, by what you have and how fast it changes.",
    ),
}
# The figure that draws a record; the library computes what the others show when the book is built.
DRAWN = "break-even"
# In a path: the entry whose number, or whose median, is the largest.
LARGEST = "*"
# A ratio of times is said to be close to its limit if a quartile is within this part of it: on another processor it may
# lie on the other side. It is a word and no bound: of two processors one gave the ratio of a claim as 1.6 times that of
# the other.
CLOSE = 0.25
# The table of a record's origin stands at the end of each chapter, and is no result.
ORIGIN = "provenance.table"


@dataclass(frozen=True)
class Entry:
    """A figure or a table of the book.

    Args:
        id: Its name, and the anchor on its page.
        kind: ``"figure"``, ``"table"`` or ``"interactive figure"``, which is kept as the table that stands for it.
        caption: Markdown.
        alt: What a figure shows, in words, for those who do not see it; empty for a table.
        chapter: Name of the notebook without suffix, or of another page.
        cell: Identifier of the cell in the notebook; empty on another page.
        script: The function that draws or tabulates, for example ``studies.figures.training``.
        records: What the cell reads; empty where an interactive figure reads none.
    """

    id: str
    kind: str
    caption: str
    alt: str
    chapter: str
    cell: str
    script: str
    records: tuple[slices.Source, ...]

    @property
    def page(self) -> str:
        """Where it stands in the book, without suffix."""
        return f"{'notebooks' if self.cell else 'book'}/{self.chapter}"


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, or a question that it leaves open, beside a number of ours.

    Args:
        id: Its name.
        paper: What the paper claims, or does not state, in our words.
        ours: What the number is.
        chapter: Whose record holds it.
        path: Keys to it in the numbers of the record, one of which may be `LARGEST`: a number, or a quartile, median
            and quartile; or a check (``draws``, ``failed``), whose number is the upper limit of the share at 95 %
            confidence.
        against: Keys of another number, in whose units it is meant.
        inverse: Whether one divided by it is meant.
        above: What it says is true where the number is larger.
        below: What it says is true where the number is smaller.
        asked: The limit in words, where what the paper says can be read in two ways.
        stated: Whether the paper claims it; else it is a question of ours.
        published: Whether the number is that of the published record, since a page's run does not compute it.
        if_so: What is said where the number bears it out, in the place of *holds* and *yes*: what it does not test.
        record: Name of the published record that has the number, where the chapter shows it and does not compute it.

    Raises:
        ValueError: For both ``above`` and ``below``.
    """

    id: str
    paper: str
    ours: str
    chapter: str
    path: tuple[str | int, ...]
    inverse: bool = False
    above: float | None = None
    below: float | None = None
    stated: bool = True
    published: bool = False
    against: tuple[str | int, ...] = ()
    if_so: str = ""
    asked: str = ""
    record: str = ""

    def __post_init__(self) -> None:
        if self.above is not None and self.below is not None:
            raise ValueError(f"`above`, `below`: expected at most one of them for {self.id}, got both.")

    def values(self, record: provenance.Record) -> list[float]:
        """Return the number, or its quartile, median and quartile, from a record."""
        values = _quartiles(number(record, self.path))
        if self.against:
            # Their quartiles are not those of a ratio; the widest that they allow is taken.
            other = _quartiles(number(record, self.against))
            middles = values[len(values) // 2] / other[len(other) // 2]
            ends = values[0] / other[-1], values[-1] / other[0]
            values = [middles] if len(values) == len(other) == 1 else [ends[0], middles, ends[1]]
        return [1 / value if value else math.inf for value in values[::-1]] if self.inverse else values

    def verdict(self, record: provenance.Record) -> str:
        """Return what follows from the number: ``holds``, ``does not hold``, ``open`` where the quartiles lie on both
        sides, ``not measured`` where a timing was refused, ``no number to compare with``; for a question yes and no.
        A ratio of times that is `CLOSE` to its limit is said to be so.
        """
        values, limit = self.values(record), self.below if self.above is None else self.above
        if any(map(math.isnan, values)):
            return "not measured"
        if limit is None:
            return self.if_so or "no number to compare with"
        answers = {value > limit if self.above is not None else value < limit for value in values}
        if len(answers) == 2:
            return "open, within the spread"
        words = ("holds", "does not hold") if self.stated else ("yes", "no")
        said = self.if_so or words[0] if answers.pop() else words[1]
        # Ratios of times are what has quartiles and a limit from below.
        timed = self.above is not None and len(values) > 1
        close = timed and any(abs(value / limit - 1) <= CLOSE for value in values)
        return f"{said}; close to the limit, so on another processor it may be otherwise" if close else said


def _middle(found: float | list[float]) -> float:
    """Return a number or a median; what is not a number comes last where the largest is wanted."""
    values = _quartiles(found)
    return -math.inf if math.isnan(values[len(values) // 2]) else values[len(values) // 2]


def _quartiles(found: float | list[float] | dict) -> list[float]:
    """Return what is found in a record as one number, or as quartile, median and quartile."""
    if isinstance(found, dict):
        return [benchmark.upper_limit(found["failed"], found["draws"])]
    return [float(value) for value in (found if isinstance(found, list) else [found])]


def labels(cell: NotebookNode) -> tuple[str, dict] | None:
    """Return kind and labels (name, caption) of a cell that has them, else None."""
    figure, table = cell.metadata.get("mystnb", {}).get("figure"), cell.metadata.get("table")
    if figure is not None:
        return "figure", {**figure, "alt": cell.metadata["mystnb"].get("image", {}).get("alt", "")}
    return None if table is None else ("table", dict(table))


def shows(cell: NotebookNode) -> str | None:
    """Return what the saved outputs of a cell show a reader: ``"figure"``, ``"table"`` of results, or None."""
    kinds = {kind for output in cell.outputs for kind in output.get("data", ())}
    if any(kind.startswith("image/") for kind in kinds):
        return "figure"
    lines = cell.source.rstrip().splitlines()
    return "table" if "text/markdown" in kinds and not lines[-1].startswith(ORIGIN) else None


def _script(last: ast.stmt, names: dict[str, str]) -> str:
    """Return the dotted name of the function that the last statement of a cell calls."""
    call = last.value if isinstance(last, ast.Expr) else last
    if not isinstance(call, ast.Call):
        return ""
    first, _, rest = ast.unparse(call.func).partition(".")
    return f"{names.get(first, first)}.{rest}".rstrip(".")


def entries(chapters: Sequence[str] | None = None) -> list[Entry]:
    """Return all figures and tables of the chapters, one by one.

    Args:
        chapters: Names of chapters in the order that is wanted; None for all, sorted.
    """
    folder, found = provenance.root() / "notebooks", []
    for path in slices.notebooks() if chapters is None else [folder / f"{name}.ipynb" for name in chapters]:
        everything = slices.cells(path)
        names = slices.modules([statement for cell in everything for statement in slices.parsed(cell)])
        for cell in everything:
            if (labelled := labels(cell)) is None:
                continue
            kind, data = labelled
            needed = slices.needed(everything, cell, "cpu")
            records = slices.loaded(needed)
            if not records or slices.makes(needed):
                # It shows what its own chapter has just computed, perhaps beside what it loads.
                records.insert(0, slices.Source(path.stem, published=slices.takes(needed)))
            script = _script(slices.parsed(cell)[-1], names)
            found.append(
                Entry(
                    data["name"], kind, data["caption"], data.get("alt", ""), path.stem, cell.id, script, tuple(records)
                )
            )
    return found


def page_entries() -> list[Entry]:
    """Return the figures and tables that pages name which are no notebooks, in their order there."""
    folder, found = provenance.root() / "notebooks", []
    for id, page in ids.known(folder).items():
        if page not in ids.PAGES:
            continue
        text = (folder.parent / "book" / f"{page}.md").read_text("utf-8")
        # The rest of a directive, which is other options and then the caption.
        options, _, words = text.partition(f":name: {id}\n")[2].partition("```")[0].partition("\n")
        alt = options.removeprefix(":alt: ")
        words = re.sub(r"\{\{.*?\}\}", "", " ".join(words.split()))
        found.append(_of_front(id, alt, words) if page == ids.FRONT else _interactive(id, words))
    return found


def _of_front(id: str, alt: str, words: str) -> Entry:
    call, names, caption = FRONT[id]
    kind = "figure" if id.startswith("fig-") else "table"
    records = tuple(slices.Source(name, published=True) for name in names)
    alt = alt if kind == "figure" else ""
    return Entry(id, kind, caption or words, alt, ids.FRONT, "", f"studies.front.{call}", records)


def _interactive(id: str, words: str) -> Entry:
    name = id.removeprefix(interactive.PREFIX)
    # Whether it is that of a run or the published one, `interactive.costs` decides, whatever the profile.
    records = (slices.Source("to_the_limit", published=True),) if name == DRAWN else ()
    script = f"studies.interactive.{interactive.FIGURES[name].__name__}"
    return Entry(id, "interactive figure", words, "", ids.INTERACTIVE, "", script, records)


def find(id: str) -> Entry:
    """Return the entry of an id.

    Raises:
        ValueError: If there is none; the message has the nearest ids.
    """
    chapter = ids.chapter(id, provenance.root() / "notebooks")
    return next(entry for entry in (page_entries() if chapter in ids.PAGES else entries([chapter])) if entry.id == id)


def declared() -> dict:
    """Return what ``registry.toml`` holds."""
    return tomllib.loads((provenance.root() / "book" / "registry.toml").read_text("utf-8"))


def claims() -> list[Claim]:
    """Return the claims, in the order of the file."""
    paths = ("path", "against")
    return [Claim(**entry | {key: tuple(entry.get(key, ())) for key in paths}) for entry in declared()["claim"]]


def number(record: provenance.Record, path: Sequence[str | int]) -> float | list[float] | dict:
    """Return the number of a record that keys lead to, or a timing's quartiles, or the counts of a check.

    Raises:
        ValueError: If there is none.
    """
    try:
        return _at(record.numbers, path)
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(f"the record of {record.chapter} has no number {'.'.join(map(str, path))}.") from None


def _at(value: object, path: Sequence[str | int]) -> float | list[float] | dict:
    """Return what keys lead to in nested numbers."""
    for i, key in enumerate(path):
        if key == LARGEST:
            return max((_at(entry, path[i + 1 :]) for entry in value), key=_middle)
        value = value[key]
    return value


if __name__ == "__main__":
    for entry in page_entries() + entries():
        print(f"{entry.id:32} {entry.chapter}")
