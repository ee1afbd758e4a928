"""Save and load surrogates: one safetensors file with JSON metadata, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from neumatc import checks, files
from neumatc.box import Box
from neumatc.embeddings import Embedding
from neumatc.model import FactorMap, Surrogate
from neumatc.operations import Operation
from neumatc.report import Report

_FORMAT = "neumatc-surrogate"
# Of a file, and of one with turns, which whoever reads the first alone would leave out.
_VERSION, _TURNED = 2, 3
# More than any fit takes: what a file may name before something is made of it.
_MOST_AXES, _MOST_ROWS, _MOST_TEXT = 1000, 2**31, 2**23
# What reading a damaged file can end in, and how much of it is told: a message can print what the file holds.
_DAMAGES = (safetensors.SafetensorError, LookupError, TypeError, AttributeError, RuntimeError, ValueError)
_DAMAGES += (ArithmeticError, AssertionError, MemoryError)
_TOLD = 98


@checks.explained
def save(surrogate: Surrogate, path: str | os.PathLike) -> None:
    """Write a surrogate to a file: tensors, dtype, operation, embeddings, box, labels and report.

    The file is written beside its place first and then moved there, so a failure (a full disk, a kill) leaves an
    existing file as it was, and whoever reads sees one or the other. Threads and processes may save to one path: the
    last wins. What a killed process left beside a path, the next save there removes. A link stays a link, and what it
    points to is replaced. A new file has the mode that the umask leaves, an existing one keeps its own. Complex latent
    tensors are stored as pairs of real numbers, since the format has no complex128. Takes memory for a copy.

    Args:
        surrogate: What to save, from any device.
        path: Usually ending in ``.safetensors``.

    Raises:
        TypeError: If ``surrogate`` is something else.
        ValueError: If it holds NaN or Inf, or its report more than 8 million characters.
        OSError: If the file cannot be written, for example because its folder does not exist (FileNotFoundError), or it
            is write-protected (PermissionError), a folder (IsADirectoryError), a device or a pipe, or its name is too
            long.
    """
    checks.instance("surrogate", surrogate, Surrogate, "an nm.Surrogate")
    tensors, maps = {"lower": surrogate.lower, "upper": surrogate.upper}, []
    if surrogate.turns is not None:
        tensors["turns"] = surrogate.turns
    for i, m in enumerate(surrogate.maps):
        tensors |= {f"{i}.core": m.numbers} | {f"{i}.weights.{k}": w.clone() for k, w in m.weights.items()}
        maps.append({"name": m.name, "complex": m.is_complex, "embedding": _describe(m.embedding)})
    header = {
        "format": _FORMAT,
        "version": _VERSION if surrogate.turns is None else _TURNED,
        "shape": surrogate.shape,
        "operation": _describe(surrogate.operation),
        "maps": maps,
        "box": surrogate.box.settings(),
        "report": surrogate.report.to_dict(),
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    header["sha256"] = digest(tensors, header)
    _require_finite(tensors)
    size, text = f"a report of {_MOST_TEXT} characters at most", _json(header)
    checks.require(len(text) <= _MOST_TEXT, "surrogate", size, len(text), "shorten it")
    files.replace(Path(path), safetensors.torch.save(tensors, {"neumatc": text}))


@checks.explained
@checks.full_precision
def load(path: str | os.PathLike, device: torch.device | str = "cpu") -> Surrogate:
    """Read a surrogate that `save` wrote.

    Args:
        path: The file.
        device: Where to put it.

    Returns:
        The surrogate, its tensors bit for bit those that were saved.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it may not be read (PermissionError), is a folder (IsADirectoryError), a device or a pipe, or has a
            name that is too long.
        ValueError: If the file is damaged (it carries a checksum), is not ours, is of a newer format, names an
            operation or embedding whose class is not imported, or sizes that do not belong together, or holds NaN.
    """
    path = Path(path)
    try:
        if not files.existing(path):
            raise FileNotFoundError(f"`path`: expected a file of nm.save, got {files.named(path)}: there is nothing.")
        data = path.read_bytes()  # in one piece: safetensors opens a name twice, between which a save may come
    except OSError as error:
        raise files.refused(error, path, "read") from None
    try:
        # Cloned to memory that torch aligned: products round otherwise elsewhere, in the last bit.
        tensors = {name: x.clone() for name, x in safetensors.torch.load(data).items()}
        described = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        text = described.get("__metadata__", {}).get("neumatc", "{}")
        checks.require(len(text) <= _MOST_TEXT, "path", f"at most {_MOST_TEXT} characters of settings", len(text))
        header = json.loads(text)
        surrogate = _assemble(header, tensors)
    except _DAMAGES as error:
        raise ValueError(
            f"`path`: expected a file written by nm.save, got {files.named(path)}, which is damaged or of another kind "
            f"({type(error).__name__}: {str(error)[:_TOLD]}); save the surrogate again."
        ) from error
    return surrogate.to(device)


def _assemble(header: dict, tensors: dict[str, Tensor]) -> Surrogate:
    kind, version = header.get("format"), header.get("version")
    if kind != _FORMAT or version > _TURNED:
        raise ValueError(f"expected {_FORMAT} up to version {_TURNED}, got {kind} version {version}; update neumatc")
    if header.pop("sha256") != digest(tensors, header):
        raise ValueError("its checksum differs from the one in the file")
    _require_finite(tensors)
    # Sizes are compared with those of the tensors, which the file has room for, before anything is made of them.
    dimension, maps = checks.integer("axes", len(tensors["lower"]), 1, _MOST_AXES), []
    shape = tuple(checks.integer("shape", side, 1, _MOST_ROWS) for side in header["shape"])
    for i, entry in enumerate(header["maps"]):
        prefix, core = f"{i}.weights.", tensors[f"{i}.core"]
        weights = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        embedding = _build(Embedding.registry, entry["embedding"])
        if core.dtype not in checks.REAL or any(w.dtype not in (*checks.REAL, torch.int64) for w in weights.values()):
            raise TypeError(f"the tensors of factor {entry['name']!r} are neither float32, float64 nor int64")
        # One evaluation shows that the weights are all there and fit the embedding and the rank.
        x = torch.zeros((1, dimension), dtype=torch.float64 if embedding.precise else core.dtype)
        suits = embedding.suits(dimension, len(core), weights)
        if not suits or embedding(x, weights).shape != (1, len(core)):
            raise ValueError(f"the weights of factor {entry['name']!r} do not give rank {len(core)}")
        core = torch.view_as_complex(core) if entry["complex"] else core
        maps.append(FactorMap(entry["name"], core, embedding, weights))
    operation = _build(Operation.registry, header["operation"])
    box = Box(tensors["lower"], tensors["upper"], **header["box"])
    turns = tensors["turns"] if version == _TURNED else None
    return Surrogate(operation, shape, maps, box, Report.from_dict(header["report"]), turns)


def _require_finite(tensors: dict[str, Tensor]) -> None:
    wrong = [name for name, t in tensors.items() if not t.isfinite().all()]
    checks.require(not wrong, "surrogate", "finite numbers", f"NaN or Inf in {wrong[:3]}", "fit it again")


def _json(header: dict) -> str:
    # Settings given as NumPy numbers become Python's.
    return json.dumps(header, allow_nan=False, sort_keys=True, default=lambda value: value.item())


def digest(tensors: dict[str, Tensor], header: dict) -> str:
    """Return the checksum of a file: of its tensors and of its header, in hexadecimal digits."""
    found = hashlib.sha256(_json(header).encode())
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        found.update(memoryview(tensors[name].numpy().reshape(-1)).cast("B"))
    return found.hexdigest()


def _describe(part: Operation | Embedding) -> dict[str, object]:
    return {"class": type(part).__name__, "settings": part.settings()}


def _build(registry: dict[str, type], description: dict) -> Operation | Embedding:
    if (name := description["class"]) not in registry:
        raise ValueError(f"expected a class that is known here, got {name!r}; import the module that defines it first")
    return registry[name](**description["settings"])
