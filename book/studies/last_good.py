"""The last good timings of a chapter: what its page shows where a machine has too much else to do to take new ones.

    python -m studies.last_good CHAPTER ...     keep the good timings of the chapters' runs at cpu

A study puts the ratios of a measurement into a dict of its record, at any depth, beside the ``conditions`` of
:class:`studies.benchmark.Timings`. Where these say that the timings were refused, the ratios are three NaN each. Kept
timings are a published record of their own, ``notebooks/records/CHAPTER_timings.json``.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from studies import provenance, texts
from studies.provenance import Record, Table


def kept_as(chapter: str) -> str:
    """Return the name of the published record that has the last good timings of a chapter."""
    return f"{chapter}_timings"


def measurements(numbers: object) -> Iterator[dict]:
    """Yield every dict of a record's numbers that has ``conditions`` of its own."""
    for value in numbers.values() if isinstance(numbers, dict) else numbers if isinstance(numbers, list) else ():
        yield from measurements(value)
    if isinstance(numbers, dict) and "conditions" in numbers:
        yield numbers


def fill(record: Record) -> Record:
    """Return a record with the last good ratios, and their conditions, in the place of those that were refused.

    Only at cpu, and of parts that come from the published study: what is kept are times of these sizes.
    """
    refused = any(entry["conditions"]["refused"] for entry in measurements(record.numbers))
    if record.profile not in ("cpu", "study") or not refused:
        return record
    try:
        good = provenance.load(kept_as(record.chapter))
    except FileNotFoundError:
        return record
    return replace(record, numbers=_filled(record.numbers, good.numbers))


def shown(chapter: str, profile: str) -> Record:
    """Return the times of a chapter for the page of another one, which then shows what the chapter's own page shows.

    At cpu these are the times of its run, with the last good ones in the place of those that were refused. Without such
    a run, and at other profiles, they are the last good ones. `studies.runs.SHOWING` names the pages that do so.
    """
    if profile == "cpu":
        with contextlib.suppress(FileNotFoundError):
            return fill(provenance.load(chapter, profile))
    return provenance.load(kept_as(chapter))


def keep(chapter: str) -> Path:
    """Publish the good timings of the run of a chapter at cpu, beside those kept before; return the path.

    Raises:
        FileNotFoundError: If there is no such run on this machine.
        ValueError: If it has no good timing.
    """
    record = provenance.load(chapter, "cpu")
    refused = [entry["conditions"]["refused"] for entry in measurements(record.numbers)]
    if all(refused):
        raise ValueError(
            f"{chapter}: expected a timing that is good, got {len(refused)}, all refused ({refused[:1]}); "
            f"run the chapter on an idle machine."
        )
    kept = Record(kept_as(chapter), "cpu", record.device, record.seed, provenance=record.provenance)
    kept.numbers = _good(fill(record).numbers)
    return provenance.keep(kept)


def table(record: Record, **tables: str) -> Table:
    """Tabulate under what conditions the times of a chapter were taken.

    Args:
        record: The record.
        **tables: What stands at a place of the record's numbers, by the place's name.
    """
    rows = []
    for place, title in tables.items():
        told = [entry["conditions"] for entry in measurements(record.numbers.get(place))]
        rows += [[title, texts.conditions(*told)]] if told else []
    return Table(("times of", "taken"), rows)


def _filled(own: object, good: object) -> object:
    if isinstance(own, dict) and isinstance(good, dict):
        refused = "conditions" in own and own["conditions"]["refused"] and "conditions" in good
        found = {key: _filled(value, good.get(key)) for key, value in own.items() if key != "conditions"}
        conditions = {"conditions": good["conditions"] if refused else own["conditions"]} if "conditions" in own else {}
        return found | conditions
    if _unknown(own):
        return own if good is None else good
    if isinstance(own, list) and isinstance(good, list) and len(own) == len(good):
        return [_filled(a, b) for a, b in zip(own, good)]
    return own


def _unknown(value: object) -> bool:
    """Say whether a value is a ratio that was refused."""
    triple = isinstance(value, list | tuple) and len(value) == 3  # a tuple before it was ever saved
    return triple and all(isinstance(x, float) and math.isnan(x) for x in value)


def _good(numbers: object) -> object:
    """Return the measurements that were not refused, at their places, and nothing else."""
    if isinstance(numbers, list):
        return [_good(value) for value in numbers]
    if not isinstance(numbers, dict):
        return None
    if "conditions" in numbers and not numbers["conditions"]["refused"]:
        return numbers
    found = {key: _good(value) for key, value in numbers.items()}
    return {key: value for key, value in found.items() if value not in (None, {}) and not _empty(value)}


def _empty(value: object) -> bool:
    return isinstance(value, list) and all(x in (None, {}) or _empty(x) for x in value)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"written: {keep(name).relative_to(provenance.root())}")
