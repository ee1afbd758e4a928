"""Ids of figures and tables, read with the standard library alone, before anything is set up or imported.

Those of the chapters stand in the metadata of notebooks, those of other pages in their text, as ``:name: ID``.

python book/studies/ids.py ID PROFILE      say what `make figure` is going to do; an unknown id fails at once
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from pathlib import Path

# Page one, whose figures and tables come from published records.
FRONT = "intro"
# The page of figures that a reader moves, which are computed when the book is built, one of them from a record.
INTERACTIVE = "interactive"
PAGES = (FRONT, INTERACTIVE)


def known(folder: Path) -> dict[str, str]:
    """Return the chapter or page of each figure and table, of the notebooks in a folder and of the book beside it."""
    found = {}
    for name in PAGES:
        page = folder.parent / "book" / f"{name}.md"
        text = page.read_text("utf-8") if page.is_file() else ""
        found |= dict.fromkeys(re.findall(r"^:name: ((?:fig|tab)-\S+)$", text, re.MULTILINE), name)
    for path in sorted(folder.glob("*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            labels = cell["metadata"].get("mystnb", {}).get("figure") or cell["metadata"].get("table")
            if labels:
                found[labels["name"]] = path.stem
    return found


def chapter(id: str, folder: Path) -> str:
    """Return the chapter of an id.

    Raises:
        ValueError: If there is none; the message has the nearest ids.
    """
    found = known(folder)
    if id not in found:
        near = difflib.get_close_matches(id, found, 3, 0.3) or sorted(found)[:3]
        raise ValueError(
            f"`ID`: expected a figure or table of the book, got {id!r}; the nearest are {', '.join(near)}."
        )
    return found[id]


def announcement(id: str, profile: str, root: Path) -> str:
    """Return what remaking takes: set-up, and the run of the chapter where there is no record to draw from.

    Args:
        id: Of the figure or table.
        profile: Of the run that it is remade from.
        root: Folder of the project.

    Raises:
        ValueError: For an unknown id.
    """
    name = chapter(id, root / "notebooks")
    set_up = "Set-up: one or two minutes where there is no .venv yet, else seconds"
    if name == FRONT:
        return f"{id}, of page one. {set_up}. Run: seconds; it is drawn from published records."
    if name == INTERACTIVE:
        return f"{id}, a figure to move. {set_up}. Run: seconds; it is computed, or drawn from a record."
    path = root / "notebooks" / "expected" / f"{profile}.json"
    chapters = json.loads(path.read_text("utf-8"))["chapters"] if path.is_file() else {}
    # The smaller one: either is too long on a machine that computes something else, or on several processors.
    times = [chapters.get(name, {}).get(key) for key in ("seconds", "processor_seconds")]
    least = min((seconds for seconds in times if seconds is not None), default=None)
    takes = "an unknown time" if least is None else f"about {max(1, round(least / 60))} min"
    return (
        f"{id}, of the chapter {name}, at the profile {profile}. {set_up}. Run: the cells that it hangs on; the whole "
        f"chapter, expected {takes} on a machine that computes nothing else, where there is no record of it."
    )


def main(arguments: list[str]) -> int:
    """Run the command line and return its exit status; a failure is one line on stderr."""
    try:
        print(announcement(*arguments, Path(__file__).parents[2]), flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
