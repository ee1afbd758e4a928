"""Checkpoints: what a training needs to go on, in a file that is there as a whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from neumatc import checks

_DIGEST = hashlib.sha256().digest_size


def fingerprint(parts: Iterable[object]) -> str:
    """Return a checksum of tensors by their bits, and of other objects by how they are written."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.detach().cpu().numpy().tobytes() if isinstance(part, Tensor) else repr(part).encode())
    return found.hexdigest()


def write(path: str, state: dict[str, object]) -> None:
    """Write tensors, numbers, texts and containers of these, beside the file first and then in its place.

    Raises:
        OSError: If the file cannot be written; one that is there stays as it was.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    part = Path(f"{path}.{os.getpid()}.part")
    try:
        part.write_bytes(hashlib.sha256(buffer.getbuffer()).digest() + buffer.getbuffer())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: str, asked: str) -> dict[str, object] | None:
    """Return what `write` has written, on the CPU; None where there is no file.

    Args:
        path: The file.
        asked: What its state must hold under this name: the fingerprint of what is fitted.

    Raises:
        ValueError: For a file that is damaged, of another kind or of another fit.
    """
    if not Path(path).exists():
        return None
    content, remedy = Path(path).read_bytes(), "delete it or give another path"
    whole = hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]
    checks.require(whole, "checkpoint", "a file written by a training", f"{path!r}, which is damaged", remedy)
    state = torch.load(io.BytesIO(content[_DIGEST:]), map_location="cpu", weights_only=True)
    expected = "that of a fit of the same problem with the same arguments"
    checks.require(state["asked"] == asked, "checkpoint", expected, f"another in {path!r}", remedy)
    return state
