"""Results that are typed into prose: speed-ups, errors, counts, percentages and times that no record gives.

    python -m studies.prose            list them, and what of the allow-list is no longer needed

A number that a record gives is glued, and no digit of it stands in the source. ``book/numbers.toml`` holds the numbers
that may stand there, each with the reason. What still has to be glued stands there too, with the place in the record
that it should come from, so that everybody sees it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat

from studies import provenance, registry

LIST = Path("book", "numbers.toml")
# Written by a study, and held to what it gives by tests.
GENERATED = {"first_hour"}
REASONS = ("constant", "setting", "source", "to be glued")
# What is no prose: code, formulas, roles with what they name, addresses, tags. A formula ends with its paragraph.
# Of a directive with prose in it, the fence goes and the words stay.
FENCED = re.compile(r"^(`{3,})\{(?:figure|note|container)\}(.*?)^\1", re.DOTALL | re.MULTILINE)
NO_PROSE = (
    re.compile(r"^(`{3,}|~{3,}).*?^\1", re.DOTALL | re.MULTILINE),
    re.compile(r"\$\$.*?\$\$", re.DOTALL),
    re.compile(r"(?<![\\$])\$(?:[^$\n]|\n(?!\n))+\$"),
    re.compile(r"\{[\w:.-]+\}`[^`]*`"),
    re.compile(r"`[^`]*`"),
    re.compile(r"\]\([^)]*\)|<[^>\n]*>|https?://\S+|\{\{\w+\}\}"),
)
NUMBER = r"\d+(?:,\d+)*(?:\.\d+)?(?:e[-+]?\d+)?"
WORDS = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|fifty|hundred|thousand"
UNITS = r"%|‰|×|(?:x|fold|times|percent|dB|µs|us|ms|s|seconds?|minutes?|min|hours?|h|days?)\b"
COUNTED = r"(?:exact\s)?(?:solves?|solutions?|terms?)\b"
RESULT = re.compile(
    rf"(?<![\w.])(?:{NUMBER}(?:\s?(?:to|-|–|and)\s?{NUMBER})?[\s-]?(?:{UNITS})"
    rf"|(?:{WORDS})[\s-](?:(?:to|and|or)\s(?:{WORDS})\s)?(?:fold|times|percent|seconds|minutes|hours|inversions)\b"
    rf"|factors?\sof\s(?:about\s)?(?:{NUMBER}|(?:{WORDS})\b)"
    rf"|(?:{NUMBER}|(?:{WORDS}))\s{COUNTED}|{NUMBER}\s(?:matrices|families|pieces|fits|problems|trials|seeds)\b"
    rf"|ranks?\s(?:(?:is|was|of|at)\s)?{NUMBER}|{NUMBER}\sof\s(?:the\s)?{NUMBER}|{NUMBER}/{NUMBER}"
    r"|(?:twice|half)\s(?:as\s(?!many|much)\w+|(?:the|its|their)\s(?:error|rank|time|cost|speed)s?\b)"
    rf"|(?:{NUMBER}|(?:{WORDS})|several|many)\sorders?\sof\smagnitude"
    r"|\d(?:\.\d+)?e[-+]?\d+|\d+\.\d+)(?![\w.]*\d)",
    re.IGNORECASE,
)
# In a formula, where a bare power of ten is a tolerance.
POWER = re.compile(r"\d\s*\\(?:cdot|times)\s*10\^\{?-?\d+\}?")


@dataclass(frozen=True)
class Bare:
    """A number that is typed into prose.

    Args:
        page: ``notebooks/<chapter>`` or ``book/<page>``.
        text: The number with its unit.
        around: The words beside it.
    """

    page: str
    text: str
    around: str


def plain(text: str) -> str:
    """Return Markdown without code, formulas, roles and addresses, each replaced by a mark that no number contains.

    Example:
        >>> plain("It takes {glue:text}`a:.1f` times, not $2$ or `3`.")
        'It takes ◦ times, not ◦ or ◦.'
    """
    text = FENCED.sub(r"\2", text)
    for pattern in NO_PROSE:
        text = pattern.sub("◦", text)
    return text


def found(page: str, text: str) -> Iterator[Bare]:
    """Yield what looks like a result in the Markdown of a page.

    Example:
        >>> [bare.text for bare in found("a", "It is 3 times as fast at an error of 1e-3, on 64 antennas.")]
        ['3 times', '1e-3']
    """
    for pattern, prose in ((RESULT, plain(text)), (POWER, text)):
        for match in pattern.finditer(prose):
            around = prose[max(0, match.start() - 60) : match.end() + 40]
            yield Bare(page, re.sub(r"\s+", " ", match[0]), re.sub(r"\s+", " ", around).strip())


def bare() -> list[Bare]:
    """Return all that looks like a result in notebooks and pages: in Markdown, captions and alternative texts."""
    root, numbers = provenance.root(), []
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            words = [cell.source] if cell.cell_type == "markdown" else (registry.labels(cell) or ("", {}))[1].values()
            for text in words:
                numbers += found(f"notebooks/{path.stem}", text)
    for path in sorted(path for path in (root / "book").glob("*.md") if path.stem not in GENERATED):
        numbers += found(f"book/{path.stem}", path.read_text("utf-8"))
    return numbers


def allowed() -> list[dict]:
    """Return the entries of the list: page, text, reason, and for what is to be glued the place in a record.

    Raises:
        ValueError: For an entry without one of ``REASONS`` or, if it is to be glued, without a place.
    """
    path = provenance.root() / LIST
    entries = tomllib.loads(path.read_text("utf-8")).get("number", [])
    for entry in entries:
        if entry.get("reason") not in REASONS or ((entry["reason"] == "to be glued") != ("record" in entry)):
            raise ValueError(
                f"{path.name}: expected a reason of {', '.join(REASONS)} for {entry}, the last with a record."
            )
    return entries


def compared() -> tuple[list[Bare], list[dict]]:
    """Return the numbers that the list does not have, and the entries of the list that no page has any more.

    An entry is for one page, or with ``*`` for all, and one text. ``near`` narrows it down to
    the places that have these words beside it.
    """
    entries, numbers = allowed(), bare()

    def covers(entry: dict, number: Bare) -> bool:
        same = entry["page"] in ("*", number.page) and entry["text"] == number.text
        return same and entry.get("near", "") in number.around

    unknown = [number for number in numbers if not any(covers(entry, number) for entry in entries)]
    return unknown, [entry for entry in entries if not any(covers(entry, number) for number in numbers)]


if __name__ == "__main__":
    unknown, unused = compared()
    for number in unknown:
        print(f"{number.page}: {number.text!r} in: {number.around}")
    for entry in unused:
        print(f"{LIST.name}: no longer needed: {entry['page']}: {entry['text']!r}")
    sys.exit(bool(unknown or unused))
