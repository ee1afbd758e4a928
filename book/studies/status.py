"""What the pages say about running them: how long a chapter takes, the numbers to expect, the state of the build."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from studies import headlines, launch, provenance
from studies.provenance import Record, Table

# Where a page asks for something that only the build knows.
PLACE = "<!-- {} -->"
# Published records that a chapter shows at cpu and does not compute again.
SHOWN = {
    "measured": ("cases", "families", "speed"),
    "synthetic_experiments": ("synthetic_experiments",),
    "training_search": ("training_search", "training_around"),
    "wireless_inversion": ("wireless_trained",),
}
# How a cell of a notebook asks whether it computes a part.
PART = re.compile(r"record\.computes\(\"([^\"]+)\"\)")


def duration(seconds: float | None) -> str:
    """Return seconds as people say them.

    Example:
        >>> duration(9.6), duration(270), duration(None)
        ('10 s', '4.5 min', 'an unknown time')
    """
    if seconds is None:
        return "an unknown time"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def seconds(chapter: str, profile: str) -> float | None:
    """Return what a chapter takes on a machine that computes nothing else; None where nobody knows.

    That is the smaller one of two times of the published run: by the clock, which is too long on a machine that
    computes something else, and of the processors, which is too long where two of them worked at the same time.
    """
    found = headlines.expected(profile)["chapters"].get(chapter, {})
    return min((x for x in (found.get("seconds"), found.get("processor_seconds")) if x is not None), default=None)


def with_note(source: str, chapter: str) -> str:
    """Return the first cell of a chapter with a line below its title: what is known of the time to run it again."""
    times = {
        text: seconds(chapter, profile) for text, profile in (("{}", "cpu"), ("{} at the sizes of a test", "smoke"))
    }
    parts = [", or ".join(text.format(duration(time)) for text, time in times.items() if time is not None)]
    took = [provenance.load(name).provenance.get("wall_seconds") for name in SHOWN.get(chapter, ())]
    if took and None not in took:
        parts.append(f"the records that it shows took {duration(sum(took))}")
    text = "; ".join([*filter(None, parts), "{doc}`how </book/reproduce>`"])
    note = f"*To run again: {text}.*"
    lines = source.split("\n")
    title = next((place for place, line in enumerate(lines) if line.startswith("# ")), None)
    return source if title is None else "\n".join([*lines[: title + 1], "", note, *lines[title + 1 :]])


def with_sources(cells: Sequence[NotebookNode], record: Record) -> list[NotebookNode]:
    """Return the cells of a page with a sentence behind each that did not compute its part but took it.

    Args:
        cells: Of the page.
        record: Of the run that it shows.
    """
    found = []
    for cell in cells:
        found.append(cell)
        names = PART.findall(cell.source) if cell.cell_type == "code" else []
        for number, name in enumerate(names if "taken" in record.provenance else []):
            text = provenance.taken_text(record, name)
            found.append(new_markdown_cell(f"*{text[0].upper()}{text[1:]}.*", id=f"{cell.id}-taken-{number}"))
    return found


def filled(text: str, chapters: Sequence[str], wheels: Sequence[str]) -> str:
    """Return a page with what only the build knows in its places.

    Args:
        text: The page; ``<!-- launch -->``, ``<!-- wheels -->``, ``<!-- times -->``, ``<!-- numbers -->`` and
            ``<!-- build -->`` are places, each on a line of its own.
        chapters: Names of the chapters of the book.
        wheels: File names of the wheels beside the pages.
    """
    parts = {
        "launch": launching,
        "wheels": lambda: ", ".join(f'<a href="../wheels/{name}">{name}</a>' for name in wheels),
        "times": lambda: _markdown(times_table(chapters)),
        "numbers": lambda: _markdown(numbers_table()),
        "build": lambda: _markdown(build_table()) + "\n\n" + _markdown(runs_table(chapters)),
    }
    for name, part in parts.items():
        if PLACE.format(name) in text:
            text = text.replace(PLACE.format(name), part())
    return text


def _markdown(table: Table) -> str:
    return table._repr_markdown_()


def launching() -> str:
    """Return what the page says about running chapters in the browser, by what the build knows."""
    address = launch.repository()
    if not launch.configured({}):
        return (
            "This copy of the book was built without the address of a public repository, so its chapters have no "
            "buttons that open them elsewhere. Each can be downloaded at its top right, and runs in a clone as below."
        )
    return (
        f"The rocket at the top of each chapter opens it on Colab or Binder, from the branch `{launch.BRANCH}` of "
        f"[{address.removeprefix('https://')}]({address}). The first cell installs what is missing there, and leaves "
        "torch and numpy as they are. It then runs at the `smoke` profile; change `profile` in the second cell."
    )


def times_table(chapters: Sequence[str]) -> Table:
    """Tabulate what chapters take at both profiles, and the sums."""
    rows = [
        [f"{{doc}}`/notebooks/{name}`", *(duration(seconds(name, p)) for p in ("smoke", "cpu"))] for name in chapters
    ]
    sums = [sum(seconds(name, p) or 0 for name in chapters) for p in ("smoke", "cpu")]
    return Table(["chapter", "smoke", "cpu"], [*rows, ["all", *map(duration, sums)]])


def numbers_table() -> Table:
    """Tabulate the headline numbers of the pages with their tolerances."""
    values = provenance.restore(headlines.expected("cpu")["values"])
    rows = [
        [f"`{h.id}`", h.text, headlines.text(values.get(h.id)), headlines.tolerance(h)] for h in headlines.HEADLINES
    ]
    return Table(["number", "what it is", "published", "within"], rows)


def build_table() -> Table:
    """Tabulate when, from what and where the book was built."""
    record = Record("book", profile="cpu", device="cpu", seed=0)
    record.provenance["command"] = "make book"
    return provenance.table(record)


def runs_table(chapters: Sequence[str]) -> Table:
    """Tabulate the runs whose outputs the pages show."""
    rows = []
    for name in chapters:
        source: Mapping = provenance.load(name, "cpu").provenance
        commit = source["commit"][:10] + (", changed" if source["dirty"] else "")
        took = [duration(source.get(key)) for key in ("notebook_seconds", "processor_seconds")]
        rows.append([f"{{doc}}`/notebooks/{name}`", source["date"], commit, *took])
    return Table(["chapter", "computed", "commit", "by the clock", "processors"], rows)
