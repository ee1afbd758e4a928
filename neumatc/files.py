"""Files that are there as a whole or not at all, whoever writes them at the same time."""

from __future__ import annotations

import os
import re
import stat
import uuid
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows; what a killed process leaves there stays
    fcntl = None


def replace(path: Path, data: bytes) -> None:
    """Write a file beside its place and move it there; what killed processes left beside it is removed.

    Raises:
        OSError: If it cannot be written; a file that is there stays as it was.
    """
    part, before = None, existing(path)
    path = Path(os.path.realpath(path))
    try:
        if before:
            path.open("ab").close()  # PermissionError where it is write-protected; its folder may not be
        _sweep(path)
        with _part(path) as file:  # locked until it is moved
            part = Path(file.name)
            file.write(data)
            if before:
                part.chmod(stat.S_IMODE(before.st_mode))
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
    except OSError as error:
        raise refused(error, path, "write") from error
    finally:
        if part:
            part.unlink(missing_ok=True)


def _part(path: Path) -> BinaryIO:
    """Open a new file beside a path, and lock it as long as it is open, by which others see that somebody writes it."""
    while True:
        file = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part").open("xb")
        if fcntl:
            with suppress(OSError):  # a file system without locks, where nobody can take it for a leftover
                fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # somebody took it for a leftover before it was locked


def _sweep(path: Path) -> None:
    """Remove what killed processes left beside a path: files of `_part` that nobody has locked."""
    leftover, names = re.compile(re.escape(path.name) + r"\.[0-9a-f]{32}\.part"), []
    with suppress(OSError):  # a folder that may not be listed
        names = filter(leftover.fullmatch, os.listdir(path.parent) if fcntl else [])
    for name in names:
        with suppress(OSError), path.with_name(name).open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.with_name(name).unlink()


def existing(path: Path) -> os.stat_result | None:
    """Return what is known of a file, None if there is nothing; OSError if it is no file, which could block."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:  # a name that is too long, or a folder that may not be searched
        raise refused(error, path, "find") from error
    if not stat.S_ISREG(found.st_mode):
        error = IsADirectoryError if stat.S_ISDIR(found.st_mode) else OSError
        raise error(f"`path`: expected a file, got {named(path)}, which is a folder, a device, a pipe or a socket.")
    return found


def named(path: Path | str) -> str:
    """Return a path for a message, of a long one both ends."""
    text = repr(str(path))
    return text if len(text) <= 60 else f"{text[:30]}...{text[-30:]}"


def refused(error: OSError, path: Path, what: str) -> OSError:
    """Return an error of the same kind that names the argument, the reason and the remedy; one of ours as it is."""
    remedy = "make its folder" if isinstance(error, FileNotFoundError) else "give another path"
    text = f"`path`: could not {what} {named(path)}: {error.strerror}; {remedy}."
    return type(error)(text) if error.errno else error
