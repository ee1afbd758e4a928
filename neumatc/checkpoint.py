"""Checkpoints: what a training needs to go on, in a file that is there as a whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import torch
from torch import Tensor

from neumatc import checks, files

_DIGEST = hashlib.sha256().digest_size


def check(path: str | None) -> None:
    """Raise unless there can be a checkpoint at a path, or none is asked for."""
    place = os.path.abspath(path or "state")  # of a name that is too long `read` says so
    possible = os.path.isfile(place) or (os.path.isdir(os.path.dirname(place)) and not os.path.exists(place))
    expected = "a file, or a new one in a folder that exists"
    checks.require(possible or path is None, "checkpoint", expected, files.named(path), "create the folder")


def fingerprint(*parts: object) -> str:
    """Return a checksum of tensors and dictionaries of them, by their bits, and of other objects as written."""
    found = hashlib.sha256()
    for part in parts:
        for value in part.values() if isinstance(part, dict) else [part]:
            found.update(value.cpu().numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode())
    return found.hexdigest()


def write(path: str, state: dict[str, object]) -> None:
    """Write tensors, numbers, texts and containers of these, beside the file first and then in its place.

    Raises:
        OSError: If the file cannot be written; one that is there stays as it was.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files.replace(Path(path), hashlib.sha256(buffer.getbuffer()).digest() + buffer.getbuffer())


def read(path: str, asked: str, device: torch.device) -> dict[str, object] | None:
    """Return what `write` has written; None where there is no file.

    Args:
        path: The file.
        asked: What its state must hold under this name: the fingerprint of what is fitted.
        device: Where to put its tensors.

    Raises:
        ValueError: For a file that is damaged, of another kind or of another fit.
    """
    if not files.existing(Path(path)):
        return None
    content, name, remedy = Path(path).read_bytes(), files.named(path), "delete it or give another path"
    whole = hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]
    checks.require(whole, "checkpoint", "a file written by a training", f"{name}, which is damaged", remedy)
    state = torch.load(io.BytesIO(content[_DIGEST:]), map_location=device, weights_only=True)
    expected = "that of a fit of the same problem with the same arguments"
    checks.require(state["asked"] == asked, "checkpoint", expected, f"another in {name}", remedy)
    return state
