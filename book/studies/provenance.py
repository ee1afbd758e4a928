"""Records: what a chapter computed, and where, when and with what it was computed.

A run writes one record, a JSON file of numbers and a NPZ file of arrays beside it, under
``_build/runs/<profile>/``. Text reads records only, and so do nearly all figures. The records that the repository keeps
are *published* ones, under ``notebooks/records/``; a run never writes there, :func:`publish` does.

The JSON is strict: NaN and the infinities are written as the texts ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``
and come back as floats; a text that is spelled like one of them is refused, since it would come back as a number.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import numbers
import os
import platform
import re
import subprocess
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from neumatc import checks
from studies import digests, parts
from studies.load import Watch, processor

# `study` is what takes too long for a page: its record is published, and the page at cpu takes it from there.
PROFILES = ("smoke", "cpu", "study", "gpu")
PACKAGES = ("neumatc", "torch", "numpy", "scipy", "sionna-no-rt")
# What follows the name of a chapter in that of its published study.
STUDY = "_study"
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def check_profile(profile: str) -> str:
    """Return ``profile`` if it is one of ``PROFILES``.

    Raises:
        ValueError: For any other value.
    """
    if profile not in PROFILES:
        raise ValueError(
            f"`profile`: expected one of {', '.join(PROFILES)}, got {profile!r}; "
            "smoke takes seconds, cpu is what the book shows, study what takes too long for it, gpu is the full size."
        )
    return profile


def pick(profile: str, *, smoke: object, cpu: object, gpu: object) -> object:
    """Return the sizes of a profile; ``study`` has those of ``cpu``.

    Raises:
        ValueError: For an unknown profile.

    Example:
        >>> pick("study", smoke=4, cpu=64, gpu=256)
        64
    """
    return {"smoke": smoke, "gpu": gpu}.get(check_profile(profile), cpu)


def check_chapter(chapter: str) -> str:
    """Return ``chapter`` if it can name a file: lower-case letters, digits and underscores.

    Raises:
        ValueError: For any other value.
    """
    if not isinstance(chapter, str) or not re.fullmatch(r"[a-z0-9_]+", chapter):
        raise ValueError(
            f"`chapter`: expected lower-case letters, digits and underscores, got {chapter!r}; "
            "give the name of the notebook without folder and suffix."
        )
    return chapter


def resolve_device(device: str, profile: str) -> str:
    """Return the device a run computes on.

    Args:
        device: ``"auto"`` (CUDA for the gpu profile, else the CPU), ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``.
        profile: One of ``PROFILES``.

    Returns:
        ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``, a name that torch can use on this machine.

    Raises:
        ValueError: For an unknown profile or device.
        RuntimeError: If CUDA is asked for, by name or by the gpu profile, and this machine has no such device.

    Example:
        >>> resolve_device("auto", "smoke")
        'cpu'
    """
    check_profile(profile)
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"`device`: expected auto, cpu, cuda or cuda:<index>, got {device!r}.")
    chosen = ("cuda" if profile == "gpu" else "cpu") if device == "auto" else device
    if chosen != "cpu":
        available = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(chosen.partition(":")[2] or 0) >= available:
            raise RuntimeError(
                f"`device`: {device!r} with the {profile} profile needs the CUDA device {chosen}, but torch "
                f'{torch.__version__} sees {available} CUDA device(s); set DEVICE=cpu (device = "cpu" in the '
                "parameters cell) to run the same sizes on the CPU, or install a CUDA build of torch."
            )
    return chosen


def root() -> Path:
    """Return the repository root: the nearest folder, from the working directory upwards, that is this project's.

    Outside of a clone (a notebook opened alone, for example on Colab) it is the working directory.
    """
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _is_project(folder)), here)


def _is_project(folder: Path) -> bool:
    file = folder / "pyproject.toml"
    try:
        return file.is_file() and tomllib.loads(file.read_text("utf-8")).get("project", {}).get("name") == "neumatc"
    except (OSError, ValueError):  # unreadable, or not TOML: some other project's
        return False


def run_path(chapter: str, profile: str) -> Path:
    """Return where a run of this chapter and profile writes, without suffix."""
    return root() / "_build" / "runs" / check_profile(profile) / check_chapter(chapter)


def published_path(chapter: str) -> Path:
    """Return where the published record of this chapter is kept, without suffix.

    Outside of a clone that is beside the installed studies, whose wheel brings the records along.
    """
    clone = root()
    kept = clone / "notebooks" / "records" if _is_project(clone) else Path(__file__).parent / "records"
    return kept / check_chapter(chapter)


@dataclass
class Record:
    """The numbers and arrays of one run of one chapter, with their provenance.

    Args:
        chapter: Name of the notebook without suffix.
        profile: One of ``PROFILES``.
        device: The device computed on, as :func:`resolve_device` returned it.
        seed: The seed of the run, a non-negative integer.

    Attributes:
        numbers: Values by name: numbers, booleans, texts, None, and lists and dicts of these. Zero-dimensional
            NumPy and torch values are taken as the Python numbers they hold.
        arrays: NumPy arrays or torch tensors by name, real or complex, of any shape; NumPy arrays after
            :func:`load`.
        provenance: ``date`` (UTC, when the record was created), ``commit`` and ``dirty`` (uncommitted changes),
            ``machine``, ``versions``, ``torch_threads``, ``command`` (what computes it anew); after :meth:`save`
            also ``wall_seconds`` (since the record was created), ``load`` (what else the machine did: before the record
            was created and since, see :class:`studies.load.Load`) and ``loaded`` (whether that is too much for times),
            and after a run by ``studies.runs`` ``notebook_seconds``. Where the chapter has parts (:meth:`computes`),
            ``parts`` are those that the run computed, and ``taken`` those that it took, with the provenance of the
            record that they come from. It holds no host name, no user name and no path.

    Example:
        >>> record = Record("architecture", profile="smoke", device="cpu", seed=0)
        >>> record.numbers["relative_error"] = 2.4e-2
        >>> record.arrays["error"] = np.linspace(0.0, 1.0, 5)
        >>> record.provenance["command"]
        'make run CHAPTER=architecture PROFILE=smoke DEVICE=cpu SEED=0'
    """

    chapter: str
    profile: str
    device: str
    seed: int
    numbers: dict = field(default_factory=dict)
    arrays: dict = field(default_factory=dict)
    provenance: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_chapter(self.chapter)
        check_profile(self.profile)
        self.device = str(self.device)
        self.seed = checks.seed(self.seed)
        self._start, self._watch = time.perf_counter(), None if self.provenance else Watch()
        self._part: tuple[str, dict, set[str]] | None = None
        if not self.provenance:
            self.provenance = {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                **_commit(),
                "command": f"make run CHAPTER={self.chapter} PROFILE={self.profile} DEVICE={self.device} "
                f"SEED={self.seed}",
                "machine": _machine(self.device),
                "versions": _versions(),
                "torch_threads": torch.get_num_threads(),
            }

    def computes(self, part: str) -> bool:
        """Return whether this run computes a part of its chapter that takes too long for a page.

        At ``cpu`` it does not: this takes numbers and arrays of the part from the published record of the profile
        ``study``. At the others it does: the part is then all that the record gets until it is saved, or until another
        call. Calls with the same name add to the same part.

        Args:
            part: Its name, as the page calls it.

        Raises:
            FileNotFoundError: At cpu, if no study of the chapter is published; the message has the commands.
            ValueError: At cpu, if the published study has no such part.
        """
        if self.profile != "cpu":
            self._close()
            self._part = part, plain(self.numbers, "numbers"), set(self.arrays)
            return True
        published = load(study_of(self.chapter))
        found, source = published.provenance.get("parts", {}), published.provenance
        if part not in found:
            raise ValueError(
                f"`part`: the published study of {self.chapter} has {', '.join(map(repr, found)) or 'no parts'}, "
                f"got {part!r}; {' and '.join(study_commands(self.chapter))}."
            )
        parts.copy(published.numbers, self.numbers, found[part]["numbers"])
        self.arrays |= {name: published.arrays[name] for name in found[part]["arrays"]}
        taken = self.provenance.setdefault("taken", {"parts": {}})
        taken["source"] = {key: value for key, value in source.items() if key != "parts"}
        taken["parts"][part] = found[part]
        return False

    def _close(self) -> None:
        """Write down what the part that is computed has added."""
        if self._part is not None:
            name, before, arrays = self._part
            found = self.provenance.setdefault("parts", {}).setdefault(name, {"numbers": [], "arrays": []})
            found["numbers"] += parts.added(before, plain(self.numbers, "numbers"))
            found["arrays"] += sorted(set(self.arrays) - arrays)
            self._part = None

    def save(self) -> Path:
        """Write the record to ``_build/runs/<profile>/<chapter>.json``, its arrays to ``.npz``; return the JSON's path.

        Raises:
            TypeError: For a number or an array that cannot be kept; the message names it.
        """
        self._close()
        self.provenance["wall_seconds"] = round(time.perf_counter() - self._start, 3)
        if self._watch is not None:
            found = self._watch.load(wait=False)
            self.provenance |= {"load": asdict(found), "loaded": found.high}
        path = run_path(self.chapter, self.profile)
        self.write(path)
        return path.with_suffix(".json")

    def write(self, path: Path) -> None:
        """Write the record to ``path`` with the suffixes ``.json`` and, if it has arrays, ``.npz``."""
        arrays = {name: _array(name, value) for name, value in self.arrays.items()}
        content = {
            "chapter": self.chapter,
            "parameters": {"profile": self.profile, "device": self.device, "seed": self.seed},
            "provenance": self.provenance,
            "numbers": plain(self.numbers, "numbers"),
            "arrays": {name: {"dtype": str(a.dtype), "shape": list(a.shape)} for name, a in arrays.items()},
        }
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        # The JSON goes last and in one step: where it is, the record is whole.
        path.with_suffix(".json").unlink(missing_ok=True)
        path.with_suffix(".npz").unlink(missing_ok=True)
        if arrays:
            np.savez_compressed(path.with_suffix(".npz"), **arrays)
        partial = path.with_suffix(".json.partial")
        partial.write_text(text, "utf-8")
        partial.replace(path.with_suffix(".json"))


def load(chapter: str, profile: str | None = None, part: str | None = None) -> Record:
    """Read a record back.

    Args:
        chapter: Name of the notebook without suffix.
        profile: The profile of a run on this machine, or None for the published record in ``notebooks/records/``.
        part: The part of the chapter that is shown. Where the run took it from the published study, the record has the
            profile and the provenance of that.

    Returns:
        The record; its arrays are NumPy arrays.

    Raises:
        FileNotFoundError: If there is no such record; the message has the command that makes it.
        ValueError: If the two files of the record do not belong together, are not a record, or have no such part.
    """
    if profile is not None:
        path, remedy = run_path(chapter, profile), f"make run CHAPTER={chapter} PROFILE={profile}"
    elif chapter.endswith(STUDY):
        path, remedy = published_path(chapter), " and ".join(study_commands(chapter.removesuffix(STUDY)))
    else:
        path, remedy = published_path(chapter), f"make run CHAPTER={chapter} and publish it"
    record = _read(path, remedy)
    return record if part is None else of_part(record, part)


def study_of(chapter: str) -> str:
    """Return the name of the published record that has the parts of a chapter which its page does not compute."""
    return f"{chapter}{STUDY}"


def study_commands(chapter: str) -> list[str]:
    """Return the commands that make the published study of a chapter."""
    return [f"make {target} CHAPTER={chapter} PROFILE=study" for target in ("run", "publish")]


def of_part(record: Record, part: str | None) -> Record:
    """Return a record as the source of one of its parts; None stands for what is in no part.

    Raises:
        ValueError: If the record has no such part.
    """
    taken, own = record.provenance.get("taken", {"parts": {}}), record.provenance.get("parts", {})
    if part in taken["parts"]:
        return replace(record, profile="study", provenance=taken["source"])
    if part is not None and part not in own:
        known = ", ".join(map(repr, own | taken["parts"]))
        raise ValueError(f"`part`: the record of {record.chapter} has {known or 'no parts'}, got {part!r}.")
    return record


def taken_part(record: Record, path: parts.Keys) -> str | None:
    """Return the part that the number at a path of the record was taken with, None where the run computed it."""
    return parts.holding(record.provenance.get("taken", {"parts": {}})["parts"], path)


def taken(record: Record) -> Record:
    """Return the record of what takes too long for a page: the published one at the cpu profile, else ``record``.

    A chapter that shows it computes nothing of it at cpu, and says so; :func:`table` of what this returns has its
    date, machine and command.
    """
    return load(record.chapter) if record.profile == "cpu" else record


def _read(path: Path, remedy: str) -> Record:
    name = f"{path.parent.name}/{path.name}.json"
    try:
        content = json.loads(path.with_suffix(".json").read_text("utf-8"))
        record = Record(
            content["chapter"],
            **content["parameters"],
            numbers=restore(content["numbers"]),
            provenance=content["provenance"],
        )
        expected = content["arrays"]
        if expected:
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as data:
                record.arrays = dict(data)
    except FileNotFoundError as error:
        missing = "." + error.filename.rpartition(".")[2]
        raise FileNotFoundError(f"no record {path.parent.name}/{path.name}{missing}; {remedy}.") from None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{name} is not a record ({type(error).__name__}: {error}); {remedy}.") from None
    found = {key: {"dtype": str(a.dtype), "shape": list(a.shape)} for key, a in record.arrays.items()}
    if found != expected:
        raise ValueError(f"{name}: expected the arrays {expected}, its .npz holds {found}; {remedy}.")
    return record


def publish(chapter: str, profile: str) -> Path:
    """Make the record of a run the one that the repository keeps, and return the path of its JSON.

    Of a study with parts these are kept, beside the record of the chapter, as :func:`study_of` names it.

    Args:
        chapter: Name of the notebook without suffix.
        profile: ``"cpu"``, ``"study"`` or ``"gpu"``.

    Raises:
        ValueError: For the smoke profile, whose numbers mean nothing.
        FileNotFoundError: If there is no such run on this machine.
    """
    if check_profile(profile) == "smoke":
        raise ValueError(
            "`profile`: expected cpu, study or gpu, got 'smoke', whose sizes are too small to mean anything; "
            f"make run CHAPTER={chapter} PROFILE=cpu first."
        )
    record = load(chapter, profile)
    if (record.chapter, record.profile) != (chapter, profile):
        raise ValueError(
            f"runs/{profile}/{chapter}.json: expected the record of {chapter} at {profile}, got that of "
            f"{record.chapter} at {record.profile}; make run CHAPTER={chapter} PROFILE={profile}."
        )
    if profile == "study" and "parts" in record.provenance:
        record = _parts_alone(record)
    return keep(record)


def keep(record: Record) -> Path:
    """Write a record among the published ones, note its digests, and return the path of its JSON."""
    path = published_path(record.chapter)
    record.write(path)
    digests.note(path.with_suffix(".json"), path.with_suffix(".npz"))
    return path.with_suffix(".json")


def _parts_alone(record: Record) -> Record:
    """Return what pages take from a study: its parts, under the name of the published record."""
    kept = replace(record, chapter=study_of(record.chapter), numbers={}, arrays={})
    for part in record.provenance["parts"].values():
        parts.copy(record.numbers, kept.numbers, part["numbers"])
        kept.arrays |= {name: record.arrays[name] for name in part["arrays"]}
    return kept


def glue(key: str, value: object) -> None:
    """Make a value available to the text of the book, as ``{glue:text}`key:.2e` ``.

    Numbers are stored as plain Python numbers, whatever library they come from; anything else as it displays.
    Without myst-nb (a notebook opened alone, for example on Colab) this does nothing.
    """
    try:
        from myst_nb import glue as store
    except ImportError:
        return
    scalar = value.item() if isinstance(value, (np.ndarray, np.generic, torch.Tensor)) and value.ndim == 0 else value
    store(key, scalar, display=False)


class Table:
    """Rows of text under a header, shown by Jupyter and by the book as a Markdown table.

    Args:
        header: Titles of the columns.
        rows: Texts, one sequence per row, each as long as the header.

    Raises:
        ValueError: For a row of another length.
    """

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.header, self.rows = list(header), [list(row) for row in rows]
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"`rows`: expected {len(self.header)} texts like `header`, got {row!r}.")

    def __repr__(self) -> str:
        return "\n".join("  ".join(row) for row in [self.header, *self.rows])

    def _repr_markdown_(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Escape what would end a cell, and the quotes of code that stands without backticks, which would become curly."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [part.replace('"', '\\"') for part in parts[::2]]
    return "`".join(parts)


def table(record: Record) -> Table:
    """Return the provenance of a record as a small table, for the end of a chapter; Jupyter displays it."""
    source, machine = record.provenance, record.provenance["machine"]
    memory = "" if machine["memory_gib"] is None else f", {machine['memory_gib']:g} GiB"
    seconds = source.get("notebook_seconds", source.get("wall_seconds"))
    entries = {
        "Computed": source["date"],
        "Commit": _commit_text(source),
        "Command": f"`{source['command']}`",
        "Taken": taken_text(record),
        "Taken anew": _anew_text(source.get("anew")),
        "Machine": f"{machine['cpu']}, {machine['cores']} cores{memory}, {machine['os']}",
        "GPU": machine["gpu"],
        "Versions": ", ".join(f"{name} {version}" for name, version in source["versions"].items()),
        "Threads of torch": source["torch_threads"],
        "Other work": _load_text(source.get("load")),
        "Wall time": None if seconds is None else f"{seconds:.3g} s",
    }
    return Table(("Provenance", ""), [(key, str(value)) for key, value in entries.items() if value is not None])


def taken_text(record: Record, part: str | None = None) -> str | None:
    """Return in words what a run took from the published study of its chapter, and where that comes from.

    Args:
        record: Of the run.
        part: One part; None for all of them. The text is None if none was taken.
    """
    taken = record.provenance.get("taken")
    if taken is None:
        return None
    names, source = [part] if part else [*taken["parts"]], taken["source"]
    commands = ", then ".join(f"`{command}`" for command in study_commands(record.chapter))
    seconds = source.get("notebook_seconds", source["wall_seconds"])
    return (
        f"{'; '.join(names)}: not computed with this page, but taken from the run of {source['date'][:10]} at the "
        f"profile `study` (commit {_commit_text(source)}, {source['machine']['cpu']}); {commands} make it anew in "
        f"{seconds:.0f} s"
    )


def _anew_text(anew: Mapping[str, Mapping] | None) -> str | None:
    """Return in words which parts of a record were taken after it, and of which commits; None where none was."""
    if not anew:
        return None
    return "; ".join(f"{part}: {own['date']}, commit {_commit_text(own)}" for part, own in anew.items())


def _commit_text(source: Mapping) -> str:
    """Return the commit of a provenance in ten digits, and whether anything differed from it."""
    return source["commit"][:10] + (" with uncommitted changes" if source["dirty"] else "")


def _load_text(found: Mapping[str, float | None] | None) -> str | None:
    """Return the load of a record in words, None where nothing is known."""
    if not found or found["others"] is None:
        return None
    before = "" if found["before"] is None else f"; load before {found['before']:g}"
    return f"{100 * found['others']:.0f} % of the processor{before}"


def plain(value: object, name: str) -> object:
    """Return ``value`` as JSON can hold it; see the module's text for NaN and the infinities.

    Raises:
        TypeError: For anything that is not a real number, boolean, text or None, or a list or dict of these.
        ValueError: For a text that would come back as a number.
    """
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)) and value.ndim == 0:
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value in NON_FINITE:
            raise ValueError(f"`{name}`: the text {value!r} would come back as a number; spell it otherwise.")
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        if math.isfinite(number):
            return number
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"`{name}`: expected texts as keys, got {key!r} of type {type(key).__name__}.")
        return {key: plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
    remedy = (
        "put it in `record.arrays`"
        if isinstance(value, (np.ndarray, torch.Tensor))
        else "store its parts, for example real and imaginary"
    )
    raise TypeError(
        f"`{name}`: expected a real number, boolean, text, None, or a list or dict of these, "
        f"got {type(value).__name__}; {remedy}."
    )


def restore(value: object) -> object:
    """Undo :func:`plain`: the texts for NaN and the infinities become floats again."""
    if isinstance(value, dict):
        return {key: restore(item) for key, item in value.items()}
    if isinstance(value, list):
        return [restore(item) for item in value]
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def _array(name: str, value: object) -> np.ndarray:
    array = value.detach().cpu().resolve_conj().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"`arrays[{name!r}]`: expected numbers, got dtype {array.dtype}; convert or leave it out.")
    # These two are parameters of numpy.savez itself.
    if not isinstance(name, str) or not name.isidentifier() or name in ("file", "allow_pickle"):
        raise TypeError(f"`arrays[{name!r}]`: expected an identifier other than file and allow_pickle as its name.")
    return array


def _commit() -> dict:
    """Return the commit and whether anything but the published records differs from it."""
    folder = root()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    try:
        # `--show-cdup` is empty at the top of a work tree only: never take another repository's commit for ours.
        above, commit = git("rev-parse", "--show-cdup", "HEAD").splitlines()
        if above or not _is_project(folder):
            return {"commit": "unknown", "dirty": False}
        return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--", ".", ":!notebooks/records"))}
    except (OSError, ValueError, subprocess.SubprocessError):  # no git, no repository, or no commit yet
        return {"commit": "unknown", "dirty": False}


def _machine(device: str) -> dict:
    """Return CPU name, logical cores, memory in GiB, GPU name and operating system; None where unknown."""
    try:
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # not a POSIX system
        memory = None
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = f"{platform.system()} {platform.mac_ver()[0]}".strip()
    gpu = None
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name(device if device.startswith("cuda") else 0)
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "memory_gib": memory,
        "gpu": gpu,
        "os": f"{system} ({platform.machine()})",
    }


def _versions() -> dict:
    """Return the versions of Python and of the packages that numbers depend on, those that are installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "torch" in versions:
        versions["torch"] = torch.__version__  # with the build: CUDA's packages do not tell theirs
    return versions
