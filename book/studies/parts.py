"""Parts of a chapter that take too long for its page: which numbers and arrays of a record they are.

A part is what a record gets between the call that names it and the next time that it is saved. A run at the profile
``study`` writes down the paths of its numbers and the names of its arrays; a page at ``cpu`` takes just these from the
published record of such a run. See :meth:`studies.provenance.Record.computes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

# What leads to a number of a record.
Keys = Sequence[str | int]


def added(before: Mapping, after: Mapping, above: Sequence[str] = ()) -> list[list[str]]:
    """Return the paths of what nested numbers have more than before, or have otherwise, the shortest ones.

    Example:
        >>> added({"a": {"x": 1}, "b": 2}, {"a": {"x": 1, "y": 3}, "b": 2, "c": {"z": 4}})
        [['a', 'y'], ['c']]
    """
    found = []
    for key, value in after.items():
        path = [*above, key]
        if key in before and isinstance(value, Mapping) and isinstance(before[key], Mapping):
            found += added(before[key], value, path)
        elif key not in before or before[key] != value:
            found.append(path)
    return found


def copy(source: Mapping, target: dict, paths: Iterable[Sequence[str]]) -> None:
    """Put what stands at some paths of nested numbers at the same places of others.

    Example:
        >>> own = {"a": {"x": 1}}
        >>> copy({"a": {"x": 5, "y": 3}, "c": 4}, own, [["a", "y"], ["c"]])
        >>> own
        {'a': {'x': 1, 'y': 3}, 'c': 4}
    """
    for *outer, last in paths:
        place, value = target, source
        for key in outer:
            place, value = place.setdefault(key, {}), value[key]
        place[last] = value[last]


def holding(parts: Mapping[str, Mapping], path: Keys) -> str | None:
    """Return the part that a number belongs to, by the path that leads to it; None if it belongs to none.

    Example:
        >>> parts = {"growth": {"numbers": [["growth"], ["a", "limit"]]}}
        >>> holding(parts, ["growth", "rows", 0]), holding(parts, ["a", "error"])
        ('growth', None)
    """
    for name, part in parts.items():
        if any(list(path[: len(own)]) == list(own) for own in part["numbers"]):
            return name
    return None
