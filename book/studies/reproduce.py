"""Run the chapters again and compare their headline numbers with the published ones.

    python -m studies.reproduce run --profile cpu [CHAPTER ...]       run, compare, write the table
    python -m studies.reproduce compare --profile cpu [CHAPTER ...]   compare the runs that are in _build/runs
    python -m studies.reproduce publish --profile cpu [CHAPTER ...]   make these runs the published numbers

``make reproduce`` is the first. Its table goes to the terminal and to ``_build/reproduce/<profile>.md`` and ``.json``;
executed notebooks and records stay in ``_build/runs/<profile>/``. The exit status is 1 where a number other than a
time disagrees, and where a chapter does not run. The published numbers are in ``notebooks/expected/<profile>.json``.
With the chapter *Measured* the records that page one reads are counted again, see :mod:`studies.recount`, and all
published records are compared with their digests.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from studies import digests, provenance, recount, runs, status
from studies.headlines import HEADLINES, PROFILES, Headline, agrees, expected, expected_path, text, tolerance
from studies.provenance import Record, Table

PASS, FAIL = "pass", "FAIL"
TAKEN = "not run at this profile: from the published study"
UNCHANGED = "as published"
HEADER = ("figure or claim", "expected", "got", "within", "pass")


@dataclass(frozen=True)
class Row:
    """A number beside the published one: its id, both values and the tolerance as texts, and the verdict."""

    id: str
    expected: str
    got: str
    within: str
    verdict: str


def value(record: Record, headline: Headline) -> float | list[float]:
    """Return the number of a record that a headline names.

    Raises:
        ValueError: If the record has no such number.
    """
    found: object = record.numbers
    try:
        for key in headline.keys:
            found = found[key]
    except (KeyError, IndexError, TypeError):
        found = None
    numbers = found if isinstance(found, list) and len(found) == 3 and headline.kind == "timing" else [found]
    if not all(isinstance(x, (int, float)) for x in numbers):
        raise ValueError(f"{headline.id}: expected a number at {headline.path!r} of the records.")
    return provenance.plain(found, headline.id)


def judge(headline: Headline, published: object, got: object, loaded: bool = False) -> Row:
    """Compare one number with the published one.

    Args:
        headline: What is compared.
        published: The published number, for a timing perhaps its quartiles; None if there is none.
        got: The number of the run; None if it should have one and has none.
        loaded: Whether the machine of either run computed something else, which timings do not survive.
    """
    texts = headline.id, text(published), text(got), tolerance(headline)
    if published is None:
        return Row(*texts, "no published number")
    if got is None:
        return Row(*texts, FAIL)
    if headline.kind == "timing":
        return Row(*texts, _timing(published, got, loaded))
    return Row(*texts, PASS if agrees(headline, published, got) else FAIL)


def _timing(published: object, got: object, loaded: bool) -> str:
    if loaded:
        return "timing, not judged: the machine was loaded"
    if not isinstance(published, list) or not isinstance(got, list):
        return "timing, not judged: no spread"
    if any(map(math.isnan, (*published, *got))):
        return "timing, not judged: it was refused"
    return PASS if got[0] <= published[2] and published[0] <= got[2] else "timing, outside of the spread"


def is_loaded(record: Record) -> bool:
    """Return whether a record says that its machine computed something else as well."""
    return bool(record.provenance.get("loaded", False))


def compare(profile: str, chapters: Sequence[str], failures: Mapping[str, str] | None = None) -> list[Row]:
    """Compare the runs of chapters with the published numbers.

    Args:
        profile: One of ``PROFILES``.
        chapters: Names of chapters.
        failures: By name, why a chapter did not run.

    Returns:
        One row for every chapter that was run, then one for each of its headline numbers.
    """
    published, failures, rows = expected(profile), failures or {}, []
    for chapter in chapters:
        if chapter in failures:
            rows.append(Row(chapter, "runs", failures[chapter], "", FAIL))
            continue
        record = provenance.load(chapter, profile)
        loaded = is_loaded(record) or published["chapters"].get(chapter, {}).get("loaded", False)
        rows.append(Row(chapter, "runs", "ran", "", PASS))
        for headline in HEADLINES:
            if headline.chapter == chapter:
                found = provenance.restore(published["values"].get(headline.id))
                row = judge(headline, found, provenance.restore(value(record, headline)), loaded)
                # A number that the run only copied has not been reproduced, but both published ones have to agree.
                copied = provenance.taken_part(record, headline.keys) is not None
                rows.append(replace(row, verdict=TAKEN) if copied and row.verdict != FAIL else row)
        if chapter == recount.CHAPTER:
            rows += counted_again(profile)
    return rows


def counted_again(profile: str) -> list[Row]:
    """Compare the published records with their digests, and what page one reads of them with what was counted again."""
    wrong = digests.differing(provenance.published_path(recount.NAME).parent)
    rows = [Row("records", UNCHANGED, ", ".join(wrong) or UNCHANGED, "equal", FAIL if wrong else PASS)]
    try:
        record = provenance.load(recount.NAME, profile)
    except FileNotFoundError:
        return rows  # a run of the chapter alone, as for the pages
    return rows + [judge(*pair) for pair in recount.pairs(record)]


def table(rows: Sequence[Row]) -> Table:
    """Tabulate what was compared."""
    return Table(HEADER, [(row.id, row.expected, row.got, row.within, row.verdict) for row in rows])


def write(profile: str, rows: Sequence[Row]) -> Path:
    """Write the table as Markdown and as JSON; return the path of the first."""
    path = provenance.root() / "_build" / "reproduce" / f"{profile}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table(rows)._repr_markdown_() + "\n", "utf-8")
    content = {"profile": profile, "rows": [asdict(row) for row in rows]}
    path.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return path


def reproduce(profile: str, names: Sequence[str] = (), again: bool = True) -> int:
    """Run chapters, show and write the comparison, and return the number of rows that fail.

    Args:
        profile: One of ``PROFILES``.
        names: Names of chapters; empty for all of the book.
        again: Whether to run them; else what an earlier run left is compared.

    Raises:
        ValueError: For an unknown profile or chapter.
        RuntimeError: If the device of the profile is not there.
        FileNotFoundError: If a chapter has no run and is not to be run.
    """
    published = expected(profile)
    chapters = list(names) or runs.book_chapters()
    for chapter in chapters:
        runs.read_notebook(chapter)
    provenance.resolve_device("auto", profile)
    if not published["values"]:
        print(f"There are no published numbers at the {profile} profile yet: runs are kept, nothing is judged.")
    failures: dict[str, str] = {}
    for number, chapter in enumerate(chapters if again else (), 1):
        takes = status.duration(published["chapters"].get(chapter, {}).get("seconds"))
        print(
            f"[{number} of {len(chapters)}] {chapter}: running at the {profile} profile, expected {takes}", flush=True
        )
        try:
            runs.run(chapter, profile)
            if chapter == recount.CHAPTER and profile in recount.PROFILES:
                print("counting again what page one rests on: 2 min of one processor at cpu", flush=True)
                recount.take(profile)
        except (RuntimeError, OSError) as error:  # the others are still compared
            failures[chapter] = f"{error}"
            print(f"error: {error}", file=sys.stderr, flush=True)
    rows = compare(profile, chapters, failures)
    print(aligned(rows))
    path = write(profile, rows)
    failed = sum(row.verdict == FAIL for row in rows)
    judged = sum(row.verdict in (PASS, FAIL) for row in rows)
    print(f"{judged - failed} of {judged} pass; the table: {path.relative_to(provenance.root()).as_posix()}")
    return failed


def aligned(rows: Sequence[Row]) -> str:
    """Return the table as text whose columns stand below each other."""
    lines = [HEADER, *((row.id, row.expected, row.got, row.within, row.verdict) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines)


def publish(profile: str, names: Sequence[str] = ()) -> Path:
    """Make the numbers of runs the published ones, with their date, commit and versions, and return their path.

    Numbers of chapters that are not named stay, without those that are headlines no more.

    Raises:
        ValueError: For an unknown profile or chapter.
        FileNotFoundError: If a chapter has no run.
    """
    content = expected(profile)
    names = list(names) or runs.book_chapters()
    for chapter in names:
        record = provenance.load(chapter, profile)
        source = record.provenance
        content["chapters"][chapter] = {
            "date": source["date"],
            "commit": source["commit"],
            "dirty": source["dirty"],
            "command": source["command"],
            "machine": source["machine"],
            "versions": source["versions"],
            "loaded": is_loaded(record),
            "seconds": source.get("notebook_seconds", source.get("wall_seconds")),
            "processor_seconds": source.get("processor_seconds"),
        }
        content["values"] |= {h.id: value(record, h) for h in HEADLINES if h.chapter == chapter}
    ids = {headline.id for headline in HEADLINES}
    content["values"] = {key: content["values"][key] for key in sorted(ids & set(content["values"]))}
    content["chapters"] = {key: content["chapters"][key] for key in sorted(content["chapters"])}
    path = expected_path(profile)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; a failure is one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m studies.reproduce", description="Compare with what is published.")
    parser.add_argument("command", choices=("run", "compare", "publish"))
    parser.add_argument(
        "chapters", nargs="*", metavar="CHAPTER", help="names of notebooks without suffix; none for all"
    )
    parser.add_argument("--profile", default="cpu", choices=PROFILES)
    options = parser.parse_intermixed_args(arguments)
    runs.prepare_kernels()
    try:
        if options.command == "publish":
            print(f"written: {publish(options.profile, options.chapters).relative_to(provenance.root()).as_posix()}")
            return 0
        return int(reproduce(options.profile, options.chapters, options.command == "run") > 0)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
