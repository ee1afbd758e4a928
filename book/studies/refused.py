"""Pages whose times were refused: a sentence, a caption or a figure that rests on such a time says so.

Sentences of a chapter take their numbers from what its code cells glue. Where a time was refused, what is glued is no
number, and a sentence around it would read "takes not timed times as long". When the book is built, such a sentence
gives way to `studies.texts.UNTOLD`, and so does the caption of a figure that has no line to draw.
"""

from __future__ import annotations

import math
import re

from nbformat import NotebookNode

from studies import figures, texts

# What stands in the place of a glued time that was refused, alone.
UNKNOWN = {texts.UNTIMED, texts.matrices((math.nan,) * 3), "nan"}
# What a sentence takes from code: a value, or a figure that it points to.
_GLUED = re.compile(r"\{(?:glue:text|numref)\}`([^`:]+)(?::[^`]*)?`")
# A sentence ends with a mark, perhaps in bold or in parentheses, before white space.
_END = re.compile(r"(?<=[.!?])(\*{0,2}\)?\*{0,2}\s+)")
# What begins a line and no sentence: an item of a list, or its number.
_ITEM = re.compile(r"(?m)^(?=[ \t]*(?:[-*]|\d+\.)[ \t])")


def keys(page: NotebookNode) -> set[str]:
    """Return the names of glued values that are no numbers, because a time was refused."""
    found = set()
    for cell in page.cells:
        for output in cell.get("outputs", ()):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            values = [text for kind, text in output.get("data", {}).items() if kind.endswith("text/plain")]
            if name is not None and any(text.strip("'") in UNKNOWN for text in values):
                found.add(name)
    return found


def sentences(source: str, unknown: set[str]) -> str:
    """Return Markdown in which each sentence with an unknown value has given way; once for each paragraph or item.

    Args:
        source: Of a cell.
        unknown: Names of glued values.

    Example:
        >>> sentences("It has 3 pieces. It takes {glue:text}`a` times as long.", {"a"})
        'It has 3 pieces. No time is published: it spread too much, or the machine had other work.'
        >>> sentences("It takes {glue:text}`a:.1f` times as long.", {"b"})
        'It takes {glue:text}`a:.1f` times as long.'
    """
    if not unknown.intersection(_GLUED.findall(source)):
        return source
    return "\n\n".join("".join(_item(x, unknown) for x in _ITEM.split(part)) for part in source.split("\n\n"))


def _item(text: str, unknown: set[str]) -> str:
    if not unknown.intersection(_GLUED.findall(text)):
        return text
    marker = re.match(r"[ \t]*(?:[-*]|\d+\.)[ \t]+|", text)[0]
    parts, kept = _END.split(text[len(marker) :]), []
    for sentence, end in zip(parts[::2], [*parts[1::2], ""]):
        if not unknown.intersection(_GLUED.findall(sentence)):
            kept += [sentence, end]
        elif texts.UNTOLD not in kept:
            # White space alone: marks of bold type that were opened in the sentence have gone with it.
            kept += [texts.UNTOLD, re.sub(r"\S", "", end)]
    found = marker + "".join(kept)
    return found + "\n" * (text.endswith("\n") and not found.endswith("\n"))


def page(page: NotebookNode) -> None:
    """Let all that rests on refused times give way, in place; also sentences that refer to a figure without lines."""
    unknown = keys(page)
    for cell in page.cells:
        if (figure := cell.metadata.get("mystnb", {}).get("figure")) and figures.UNDRAWN in _printed(cell):
            unknown.add(figure["name"])
            figure["caption"] = texts.UNTOLD
            cell.metadata["mystnb"]["image"] = {"alt": texts.UNTOLD}
            cell.outputs = [output for output in cell.outputs if output.output_type != "stream"]
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = sentences(cell.source, unknown)


def _printed(cell: NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)
