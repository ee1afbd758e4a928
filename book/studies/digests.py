"""SHA-256 digests of the published records: a digit that is changed by hand is found, also where no rerun computes it.

    python -m studies.digests              name the files that are not as they were published
    python -m studies.digests FILE ...     note files as published, after a merge that brought them

What publishes a record notes its digests (:func:`studies.provenance.keep`). They stand in ``digests.json`` beside the
records, one line for each file.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

NAME = "digests.json"


def noted(folder: Path) -> dict[str, str]:
    """Return the digests of the files in a folder by name; empty if none are noted."""
    path = folder / NAME
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def note(*paths: Path) -> None:
    """Note files of one folder as published; those that are gone are forgotten."""
    folder = paths[0].parent
    found = noted(folder) | {path.name: _digest(path) for path in paths}
    kept = {name: found[name] for name in sorted(found) if found[name]}
    (folder / NAME).write_text(json.dumps(kept, indent=2) + "\n", "utf-8")


def differing(folder: Path) -> list[str]:
    """Return the names of the files that are not as they were published: changed, gone, or never noted."""
    here = {path.name: _digest(path) for path in folder.iterdir() if path.name != NAME and path.is_file()}
    known = noted(folder)
    return sorted(name for name in here.keys() | known.keys() if here.get(name) != known.get(name))


def _digest(path: Path) -> str:
    """Return the digest of a file, an empty text if it is gone."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    from studies import provenance  # which imports this module

    folder = provenance.published_path("x").parent
    if arguments:
        note(*(folder / name for name in arguments))
    wrong = differing(folder)
    print("\n".join(wrong) or f"all {len(noted(folder))} files are as they were published")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
