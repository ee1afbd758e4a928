"""What the pages say about running them: how long a chapter takes, the numbers to expect, the state of the build."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from studies import digests, headlines, launch, provenance
from studies.provenance import Record, Table

# Where a page asks for something that only the build knows.
PLACE = "<!-- {} -->"
# Published results that every run of a chapter at cpu begins with: maps whose training takes too long for it.
BEGUN = {"wireless_inversion": ("wireless_trained",)}
# Published records that a chapter shows at cpu and does not compute again.
SHOWN = BEGUN | {
    "frequency_and_time": ("frequency_and_time",),
    "link_level": ("link_level",),
    "measured": ("cases", "families", "speed", "draws"),
    "scaling_out": ("scaling",),
    "synthetic_experiments": ("synthetic_experiments",),
    "training_search": ("training_search", "training_around"),
    "wireless_precoding": ("wireless_precoders",),
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


class Taken(NamedTuple):
    """What a chapter took: seconds, the day of that run, and whether its machine computed something else as well."""

    seconds: float
    date: str
    loaded: bool


def taken(chapter: str, profile: str) -> Taken | None:
    """Return what a chapter takes on a machine that computes nothing else; None where nobody knows.

    That is the smaller one of two times of a run: by the clock, which is too long on a machine that computes something
    else, and of the processors, which is too long where two of them worked at the same time. At cpu it is the run that
    the pages show, and the published one only where that has no time or had other work beside it.
    """
    known = [_taken(headlines.expected(profile)["chapters"].get(chapter, {}), "seconds")]
    if profile == "cpu":
        with contextlib.suppress(FileNotFoundError, ValueError):
            known.insert(0, _taken(provenance.load(chapter, profile).provenance, "notebook_seconds"))
    known = [found for found in known if found]
    return next((found for found in known if not found.loaded), known[0] if known else None)


def _taken(source: Mapping, key: str) -> Taken | None:
    times = [source[name] for name in (key, "processor_seconds") if source.get(name) is not None]
    return Taken(min(times), str(source.get("date", ""))[:10], bool(source.get("loaded", False))) if times else None


def seconds(chapter: str, profile: str) -> float | None:
    """Return the seconds of :func:`taken`, or None."""
    found = taken(chapter, profile)
    return found and found.seconds


def with_note(source: str, chapter: str) -> str:
    """Return the first cell of a chapter with a line below its title: what is known of the time to run it again."""
    known = {text: seconds(chapter, profile) for profile, text in (("cpu", ""), ("smoke", " at the sizes of a test"))}
    parts = [", or ".join(duration(value) + text for text, value in known.items() if value is not None)]
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
        text: The page; ``<!-- launch -->``, ``<!-- clone -->``, ``<!-- wheels -->``, ``<!-- times -->``,
            ``<!-- numbers -->`` and ``<!-- build -->`` are places, each on a line of its own.
        chapters: Names of the chapters of the book.
        wheels: File names of the wheels beside the pages.
    """
    parts = {
        "launch": launching,
        "clone": cloning,
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


def cloning() -> str:
    """Return the command that makes a clone, and where the address stands if the build does not know it."""
    address = launch.repository()
    told = (
        "These pages were built without the address of a public repository. Where there is one, it stands on the page "
        "that this book was downloaded from, in `CITATION.cff` under `repository-code`, and in a clone "
        "`git remote get-url origin` prints it. Put it in the place of `ADDRESS`:\n\n"
    )
    return f"{'' if address else told}```\ngit clone {address or 'ADDRESS'} neumatc\ncd neumatc\n```"


def times_table(chapters: Sequence[str]) -> Table:
    """Tabulate what chapters take at both profiles, and the sums."""
    rows, sums = [], {"smoke": 0.0, "cpu": 0.0}
    for name in chapters:
        found = {p: taken(name, p) for p in sums}
        rows.append([f"{{doc}}`/notebooks/{name}`", *map(_told, found.values())])
        sums = {p: sums[p] + (x.seconds if x else 0.0) for p, x in found.items()}
    return Table(["chapter", *sums], [*rows, ["all", *map(duration, sums.values())]])


def _told(found: Taken | None) -> str:
    if found is None:
        return "not known"
    return f"{duration(found.seconds)} ({found.date}{', beside other work' if found.loaded else ''})"


def numbers_table() -> Table:
    """Tabulate the headline numbers of the pages with their tolerances."""
    values = provenance.restore(headlines.expected("cpu")["values"])
    rows = []
    for h in headlines.HEADLINES:
        value = values.get(h.id)
        alone = ", its spread was not kept" if h.kind == "timing" and isinstance(value, float) else ""
        rows.append([f"`{h.id}`", h.text, headlines.text(value) + alone, headlines.tolerance(h)])
    return Table(["number", "what it is", "published", "within"], rows)


def build_table() -> Table:
    """Tabulate when, from what and where the book was built."""
    record = Record("book", profile="cpu", device="cpu", seed=0)
    record.provenance["command"] = "make book"
    return provenance.table(record)


def runs_table(chapters: Sequence[str]) -> Table:
    """Tabulate the runs whose outputs the pages show, and the published records."""
    shown = {f"{{doc}}`/notebooks/{name}`": provenance.load(name, "cpu") for name in chapters}
    folder = provenance.published_path("any").parent
    names = sorted(path.stem for path in folder.glob("*.json") if path.name != digests.NAME)
    shown |= {f"record `{name}`": provenance.load(name) for name in names}
    rows = []
    for name, record in shown.items():
        source: Mapping = record.provenance
        # A study that is no chapter has its own name for its size; of a GPU its name stands here.
        size = ", ".join(filter(None, [source.get("profile", record.profile), source["machine"].get("gpu")]))
        commit = source["commit"][:10] + (", changed" if source["dirty"] else "")
        clock = source.get("notebook_seconds", source.get("wall_seconds"))
        took = [duration(seconds) for seconds in (clock, source.get("processor_seconds"))]
        rows.append([name, size, source["date"], commit, *took])
    return Table(["chapter or record", "profile", "computed", "commit", "by the clock", "processors"], rows)
