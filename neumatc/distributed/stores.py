"""A Zarr group that is written chunk by chunk by many processes, with the checksum of every chunk that is there."""

from __future__ import annotations

import errno
import math
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from zarr.abc.store import Store as ZarrStore
from zarr.storage import MemoryStore, ZipStore

from neumatc import checks, files

_FORMAT, _VERSION = "neumatc-chunks", 1
# The array of checksums, and how many of them are written at once. Every checksum has this bit: 0 is "not there".
_SUMS, _BLOCK, _THERE = "checksums", 2**16, 2**32
_AGAIN = "what is written stays; the same call goes on from there"


@dataclass(frozen=True)
class Field:
    """An array of a store: its name, the shape of what it has for a parameter, and the name of its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Bytes for each parameter."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Place:
    """Where a store is: a path, an address that Zarr knows, or a store of Zarr's. Processes open it by themselves."""

    store: str | ZarrStore

    @classmethod
    def of(cls, store: object) -> Place:
        """Return the place that a caller names; paths become absolute, since workers have folders of their own."""
        own = isinstance(store, (MemoryStore, ZipStore))
        kinds = (str, os.PathLike, ZarrStore)
        remedy = "give a path that all workers see"
        got = f"a {type(store).__name__}, which one process alone can write" if own else checks.describe(store)
        good = isinstance(store, kinds) and not own
        checks.require(good, "store", "a path, an address, or a Zarr store that many may write", got, remedy, TypeError)
        if isinstance(store, ZarrStore):
            checks.require(not store.read_only, "store", "a store that may be written", "one that is read-only", remedy)
            return cls(store)
        text = os.fspath(store).removeprefix("file://")
        return cls(text if "://" in text else os.path.abspath(text))

    @property
    def folder(self) -> Path | None:
        """The folder, where it is one."""
        root = getattr(self.store, "root", self.store)
        return Path(root) if isinstance(root, Path) or (isinstance(root, str) and "://" not in root) else None

    def __str__(self) -> str:
        return files.named(str(self.folder or self.store))

    def group(self, mode: str) -> zarr.Group:
        """Open the group; OSError where it cannot be read, FileNotFoundError where there is none."""
        try:
            return zarr.open_group(self.store, mode=mode)
        except FileNotFoundError:  # of Zarr: no group
            raise FileNotFoundError(
                f"`store`: expected a Zarr group at {self}, got nothing; give a place that every worker sees."
            ) from None
        except OSError as error:
            raise self.refused(error, "open") from error
        except (AttributeError, TypeError, ValueError) as error:  # of Zarr (3.1.6): what it has of it is broken
            got, remedy = f"what Zarr cannot read: {error}", "bring its zarr.json back, or give another path"
            checks.require(False, "store", f"a Zarr group at {self}", got, remedy)

    def create(self, attributes: dict[str, object]) -> zarr.Group:
        """Make the group where there is nothing."""
        folder = self.folder
        empty = folder is None or not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
        checks.require(empty, "store", "an empty place, or a store of this kind", f"{self}", "give another path")
        try:
            return zarr.open_group(self.store, mode="w-", attributes=attributes)
        except OSError as error:
            raise self.refused(error, "make") from error

    def refused(self, error: OSError, what: str) -> OSError:
        """Return an error of the same kind that names the argument, the reason and the remedy."""
        reason = error.strerror or str(error)
        return type(error)(
            f"`store`: could not {what} {self}: {reason}; make room, or give a place that may be written."
        )


class Store:
    """Values of ``count`` parameters in chunks.

    Arrays are not compressed, complex ones are complex, and every chunk is written as it is: by itself Zarr leaves out
    chunks that equal the fill value, and takes -0.0 and NaN parts of complex numbers for equal (3.1.6). What is not
    there yet reads as NaN, or False. A chunk counts as there once its checksum is, which comes after all its arrays.

    Args:
        place: Where; made if there is nothing.
        fields: Its arrays; none for checksums alone.
        identity: What decides the values: a store where something else does is refused.
        count: Parameters.
        chunk: Parameters in each chunk.

    Attributes:
        sums: Checksums of the chunks, shape (chunks,), uint64; 0 where one is not there.

    Raises:
        ValueError: If there is something else.
        OSError: If the store cannot be written, or there is no room for what is missing.
    """

    def __init__(self, place: Place, fields: Sequence[Field], identity: dict[str, object], count: int, chunk: int):
        self.place, self.fields, self._changed = place, tuple(fields), set()
        own = {"format": _FORMAT, "version": _VERSION, "count": count, "chunk": chunk, **identity}
        own["arrays"] = [[field.name, list(field.shape), field.dtype] for field in fields]
        try:
            self.group = place.group("r+")
        except FileNotFoundError:
            self.group = place.create({"neumatc": own})
        compare(self.group, place, own)
        self._begun = array(self.group, place, _SUMS, begun=False) is not None  # the last one that is made
        chunks = -(-count // chunk)
        try:
            for field in fields:
                self._array(field.name, (count, *field.shape), (chunk, *field.shape), field.dtype)
            self._sums = self._array(_SUMS, (chunks,), (min(chunks, _BLOCK),), "uint64")
            self.sums = sums_of(self.group, place)
        except OSError as error:
            raise place.refused(error, "write") from error
        self._room(count)

    def _array(self, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> zarr.Array:
        if (found := array(self.group, self.place, name, self._begun)) is not None:
            return found
        fill = np.nan if np.dtype(dtype).kind in "fc" else 0
        return self.group.create_array(name, shape=shape, chunks=chunks, dtype=dtype, compressors=None, fill_value=fill)

    def _room(self, count: int) -> None:
        """Raise where the disk has no room for what is missing."""
        folder, there = self.place.folder, count * np.count_nonzero(self.sums) // len(self.sums)
        needed = (count - there) * sum(field.bytes for field in self.fields)
        free = needed if folder is None else shutil.disk_usage(folder).free
        if free < needed:
            text = f"room for {needed / 1e9:.3g} GB at {self.place}, got {free / 1e9:.3g} GB"
            raise OSError(errno.ENOSPC, f"`store`: expected {text}; make room: {_AGAIN}.")

    def note(self, i: int, checksum: int) -> None:
        """Enter the checksum of a chunk; 0: it is not there."""
        self.sums[i] = checksum
        self._changed.add(i // _BLOCK)

    def flush(self) -> None:
        """Write what was noted."""
        try:
            for block in sorted(self._changed):
                part = slice(block * _BLOCK, (block + 1) * _BLOCK)
                self._sums[part] = self.sums[part]
        except OSError as error:
            raise self.place.refused(error, "write") from error
        self._changed.clear()

    def sweep(self) -> None:
        """Remove what killed processes left half written, once all chunks are there."""
        if self.place.folder is not None and self.sums.all():
            for path in self.place.folder.rglob("*.partial"):
                path.unlink(missing_ok=True)


def compare(group: zarr.Group, place: Place, own: dict[str, object]) -> None:
    """Raise where a group is not what a call would make: each difference has its own message."""
    found = group.attrs.get("neumatc")
    ours = isinstance(found, dict) and found.get("format") == _FORMAT
    checks.require(ours, "store", "an empty place, or a store of this kind", f"{place}, another group", "give another")
    remedy = "give another path, or the arguments that it was made with"
    newer, version = "update neumatc, or give another path", found.get("version")
    checks.require(version == _VERSION, "store", f"version {_VERSION} at {place}", version, newer)
    same = found.get("chunk") == own.get("chunk", found.get("chunk"))
    checks.require(same, "chunk", f"{found.get('chunk')}, as at {place}", own.get("chunk"), remedy)
    for key, name in {"count": "number of parameters", "arrays": "arrays", "parameters": "parameters"}.items():
        good = found.get(key) == own.get(key, found.get(key))
        got = (f", {own.get(key)}", f" with {found.get(key)}") if key != "parameters" else ("", " with others")
        checks.require(good, "store", f"one with the {name} of this call{got[0]}", f"{place}{got[1]}", remedy)
    changed = [key for key in own if key != "chunk" and found.get(key) != own[key]]
    expected = f"one of the same {' and '.join(changed) or 'values'}"
    checks.require(not changed, "store", expected, f"{place}, which another call has begun", remedy)


def write(group: zarr.Group, start: int, names: Sequence[str], values: Sequence[np.ndarray]) -> None:
    """Write the values of a chunk, which begins with the parameter ``start``."""
    for name, value in zip(names, values):
        # No store keeps this setting, nor does `open_array` take it (3.1.6).
        group[name].with_config({"write_empty_chunks": True})[start : start + len(value)] = value


def checksum(values: Sequence[np.ndarray]) -> int:
    """Return the CRC-32 of the bytes of arrays, one after the other, plus 2**32: never 0."""
    found = 0
    for value in values:
        found = zlib.crc32(np.ascontiguousarray(value).reshape(-1).view(np.uint8), found)
    return _THERE | found


def array(group: zarr.Group, place: Place, name: str, begun: bool = True) -> zarr.Array | None:
    """Return an array of a store; None if it is not there yet, ValueError if it was once: anew it has fill values."""
    try:
        found = group.get(name)
    except (AttributeError, TypeError, ValueError):  # of Zarr, as for groups
        found, begun = None, True
    remedy = "bring its folder back, or remove the store and make it anew"
    there = found is not None or not begun
    checks.require(there, "store", f"an array {name} at {place}", "none that can be read", remedy)
    return found


def described(group: zarr.Group, place: Place) -> dict[str, object]:
    """Return what a store says of itself, after checking that it is one, with all its arrays."""
    compare(group, place, {})
    own = dict(group.attrs["neumatc"])
    for name in [*(name for name, *_ in own["arrays"]), _SUMS]:
        array(group, place, name)
    return own


def sums_of(group: zarr.Group, place: Place) -> np.ndarray:
    """Return the checksums of the chunks of a store, 0 where one is not there; ValueError if they cannot be read."""
    try:
        return np.asarray(group[_SUMS][:])
    except ValueError as error:  # of Zarr (3.1.6): a file of another length
        got, remedy = f"what Zarr cannot read: {error}", "remove its files but zarr.json: all is computed anew"
        checks.require(False, "store", f"{_SUMS} of chunks at {place}", got, remedy)
