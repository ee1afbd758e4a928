"""Save and load surrogates: one safetensors file with JSON metadata, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from neumatc import checks
from neumatc.box import Box
from neumatc.embeddings import Embedding
from neumatc.model import FactorMap, Surrogate
from neumatc.operations import Operation
from neumatc.report import Report

_FORMAT = "neumatc-surrogate"
_VERSION = 2


def save(surrogate: Surrogate, path: str | os.PathLike) -> None:
    """Write a surrogate to a file: tensors, dtype, operation, embeddings, box, labels and report.

    The file is written beside its place first and then moved there, so a failure (a full disk) leaves an existing file
    as it was. Complex latent tensors are stored as pairs of real numbers, since the format has no complex128.

    Args:
        surrogate: What to save, from any device.
        path: Usually ending in ``.safetensors``.

    Raises:
        TypeError: If ``surrogate`` is something else.
        OSError: If the file cannot be written, for example because its folder does not exist.
    """
    checks.instance("surrogate", surrogate, Surrogate, "an nm.Surrogate")
    tensors, maps = {"lower": surrogate.lower, "upper": surrogate.upper}, []
    for i, m in enumerate(surrogate.maps):
        tensors |= {f"{i}.core": m.numbers} | {f"{i}.weights.{k}": w.clone() for k, w in m.weights.items()}
        maps.append({"name": m.name, "complex": m.is_complex, "embedding": _describe(m.embedding)})
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "shape": surrogate.shape,
        "operation": _describe(surrogate.operation),
        "maps": maps,
        "box": surrogate.box.settings(),
        "report": surrogate.report.to_dict(),
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    header["sha256"] = digest(tensors, header)
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, {"neumatc": _json(header)})
        part.replace(path)
    except safetensors.SafetensorError as error:
        raise OSError(f"`path`: could not write {str(path)!r}: {error}; does its folder exist?") from error
    finally:
        part.unlink(missing_ok=True)


def load(path: str | os.PathLike, device: torch.device | str = "cpu") -> Surrogate:
    """Read a surrogate that `save` wrote.

    Args:
        path: The file.
        device: Where to put it.

    Returns:
        The surrogate, its tensors bit for bit those that were saved.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged (it carries a checksum), is not ours, is of a newer format, or names
            an operation or embedding whose class is not imported.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path`: expected a file written by nm.save, got {str(path)!r}: a folder, or nothing.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("neumatc", "{}"))
            # Cloned to memory that torch aligned: products round otherwise elsewhere, in the last bit.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
        surrogate = _assemble(header, tensors)
    except (safetensors.SafetensorError, LookupError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"`path`: expected a file written by nm.save, got {str(path)!r}, which is damaged or of another kind "
            f"({type(error).__name__}: {error}); save the surrogate again."
        ) from error
    return surrogate.to(device)


def _assemble(header: dict, tensors: dict[str, Tensor]) -> Surrogate:
    kind, version = header.get("format"), header.get("version")
    if kind != _FORMAT or version > _VERSION:
        raise ValueError(f"expected {_FORMAT} up to version {_VERSION}, got {kind} version {version}; update neumatc")
    if header.pop("sha256") != digest(tensors, header):
        raise ValueError("its checksum differs from the one in the file")
    maps = []
    for i, entry in enumerate(header["maps"]):
        prefix, core = f"{i}.weights.", tensors[f"{i}.core"]
        weights = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        embedding = _build(Embedding.registry, entry["embedding"])
        if core.dtype not in checks.REAL or any(w.dtype not in (*checks.REAL, torch.int64) for w in weights.values()):
            raise TypeError(f"the tensors of factor {entry['name']!r} are neither float32, float64 nor int64")
        # One evaluation shows that the weights are all there and fit the embedding and the rank.
        x = torch.zeros((1, len(tensors["lower"])), dtype=torch.float64 if embedding.precise else core.dtype)
        if embedding(x, weights).shape != (1, len(core)):
            raise ValueError(f"the weights of factor {entry['name']!r} do not give rank {len(core)}")
        core = torch.view_as_complex(core) if entry["complex"] else core
        maps.append(FactorMap(entry["name"], core, embedding, weights))
    operation = _build(Operation.registry, header["operation"])
    box = Box(tensors["lower"], tensors["upper"], **header["box"])
    return Surrogate(operation, tuple(header["shape"]), maps, box, Report.from_dict(header["report"]))


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
        raise ValueError(f"expected one of {sorted(registry)}, got {name!r}; import the module that defines it first")
    return registry[name](**description["settings"])
