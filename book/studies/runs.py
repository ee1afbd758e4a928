"""Runs of chapters: execute a notebook with parameters, keep what it made, and build the book from that.

    python -m studies.runs run CHAPTER --profile cpu      one chapter -> _build/runs/cpu/CHAPTER.ipynb and its record
    python -m studies.runs publish CHAPTER --profile cpu  keep that record in notebooks/records/
    python -m studies.runs figure ID                      one figure -> _build/figures/ID.svg, .pdf, .csv and .bib
    python -m studies.runs book                           every chapter of the book at cpu, then _build/html
    python -m studies.runs refresh [CHAPTER ...]          execute the saved notebooks in place at smoke

Notebooks are never executed by Sphinx. A chapter of the book runs again only when its key changes, a hash of all
that its outputs depend on, library and studies included; a change of its prose alone only rebuilds the page.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
import papermill
import yaml
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from neumatc import checks
from studies import cite, launch, load, provenance, refused, registry, remake, status

PARAMETERS = ("profile", "device", "seed")
# Cells that set up a run, not for the readers of the page.
HIDDEN_TAGS = {"parameters", "colab"}
# Chapters whose runs take no times, whatever records they show: `book` runs them side by side.
UNTIMED = (
    "frequency_and_time",
    "gauge_in_detail",
    "link_level",
    "low_rankness",
    "measured",
    "rank_bounds",
    "real_channels",
    "scaling_out",
    "synthetic_experiments",
    "training_search",
    "wireless_precoding",
)
# Chapters that run side by side at once.
AT_ONCE = 4
# Chapters that show runs of others (`last_good.shown`): they run after those, and again whenever those did.
SHOWING = {"wireless_precoding": ("beyond_the_inverse",)}
# Seconds for a kernel to start, and to send what a cell wrote: on a machine that computes something else it takes
# minutes, on an idle one two seconds.
PATIENCE = 1800
# What lies in the book's folder and is no part of its pages.
UNSTAGED = {"__pycache__", "build", "studies", "neumatc_studies.egg-info", "pyproject.toml"}


def chapters() -> list[str]:
    """Return the names of all notebooks, without suffix, sorted."""
    return sorted(path.stem for path in (provenance.root() / "notebooks").glob("*.ipynb"))


def book_chapters() -> list[str]:
    """Return the names of the notebooks in the table of contents, in its order."""
    toc = yaml.safe_load((provenance.root() / "book" / "_toc.yml").read_text("utf-8"))

    def files(entry: object) -> list[str]:
        if isinstance(entry, list):
            return [name for item in entry for name in files(item)]
        if not isinstance(entry, dict):
            return []
        own = [entry["file"]] if "file" in entry else []
        return own + [name for value in entry.values() for name in files(value)]

    return [name.removeprefix("notebooks/") for name in files(toc) if name.startswith("notebooks/")]


def read_notebook(chapter: str) -> NotebookNode:
    """Return the saved notebook of a chapter.

    Raises:
        ValueError: If there is none of this name; the message lists the known ones.
    """
    path = provenance.root() / "notebooks" / f"{chapter}.ipynb"
    if not path.is_file():
        raise ValueError(f"`chapter`: expected one of {', '.join(chapters()) or 'none yet'}, got {chapter!r}.")
    return nbformat.read(path, as_version=4)


def tags(cell: NotebookNode) -> set[str]:
    """Return the tags of a cell."""
    return set(cell.metadata.get("tags", ()))


def default_parameters(notebook: NotebookNode, chapter: str) -> dict:
    """Return what the cell tagged ``parameters`` assigns, by name.

    papermill itself only warns about a parameter that the notebook does not have, so this is checked here.

    Raises:
        ValueError: Unless there is exactly one such cell, of plain assignments to profile, device and seed.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and "parameters" in tags(cell)]
    if len(cells) != 1:
        raise ValueError(
            f"notebooks/{chapter}.ipynb: expected exactly one code cell tagged `parameters`, got {len(cells)}."
        )
    try:
        found = {
            target.id: ast.literal_eval(statement.value)
            for statement in ast.parse(cells[0].source).body
            for target in statement.targets
        }
    except (AttributeError, ValueError, SyntaxError):
        found = {}
    if set(found) != set(PARAMETERS):
        raise ValueError(
            f"notebooks/{chapter}.ipynb: expected the `parameters` cell to assign plain values to "
            f"{', '.join(PARAMETERS)} and to nothing else, got {cells[0].source!r}."
        )
    return found


def has_study(notebook: NotebookNode) -> bool:
    """Return whether a chapter shows a published record of what takes too long for a page."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return any(call in source for source in code for call in ("provenance.taken(", "record.computes("))


def run_key(chapter: str, parameters: dict) -> str:
    """Return a hash of all that the outputs of a run depend on.

    That is: the code of the notebook, the modules of library and studies, the pinned versions and the running Python,
    the published records, the runs of other chapters that it shows, the parameters, and whether times are taken.
    """
    root = provenance.root()
    code = [cell.source for cell in read_notebook(chapter).cells if cell.cell_type == "code"]
    files = [
        *sorted((root / "neumatc").rglob("*.py")),
        *sorted((root / "book" / "studies").rglob("*.py")),
        root / "constraints.txt",
        *sorted((root / "notebooks" / "records").glob("*")),
        *(provenance.run_path(other, parameters["profile"]).with_suffix(".json") for other in SHOWING.get(chapter, ())),
    ]
    own = [code, parameters, sys.version, load.wanted()]
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode())
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def run(chapter: str, profile: str = "cpu", device: str = "auto", seed: int = 0) -> Path:
    """Execute a chapter and return the path of the executed notebook, ``_build/runs/<profile>/<chapter>.ipynb``.

    The record that the chapter writes lies beside it, with the seconds that the whole notebook took added, by the clock
    and of its processors. The second hardly depends on what else the machine computes.

    Args:
        chapter: Name of the notebook without suffix.
        profile: One of ``provenance.PROFILES``; ``"study"`` for chapters that show a published record at cpu.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<index>"``.
        seed: Non-negative integer.

    Raises:
        ValueError: For an unknown chapter, profile or device, a notebook without a proper parameters cell, or the
            profile ``"study"`` for a chapter without one.
        RuntimeError: If the device is not there, a cell fails, or the chapter leaves no record.
    """
    notebook = read_notebook(chapter)
    default_parameters(notebook, chapter)
    device = provenance.resolve_device(device, profile)
    if profile == "study" and not has_study(notebook):
        raise ValueError(f"`profile`: expected smoke, cpu or gpu, got 'study'; {chapter} shows no published record.")
    parameters = {"profile": profile, "device": device, "seed": checks.seed(seed)}
    key = run_key(chapter, parameters)
    path = provenance.run_path(chapter, profile)
    output = path.with_suffix(".ipynb")
    # What an earlier run left must not pass for this one's.
    for suffix in (".key", ".ipynb", ".json", ".npz"):
        path.with_suffix(suffix).unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    start, before = time.perf_counter(), _processor_seconds()
    _execute(chapter, output, parameters)
    seconds, processor = time.perf_counter() - start, _processor_seconds() - before
    if not path.with_suffix(".json").is_file():
        raise RuntimeError(
            f"notebooks/{chapter}.ipynb wrote no record {profile}/{chapter}.json; it needs "
            f"`record = Record({chapter!r}, profile=profile, device=device, seed=seed)` and `record.save()`."
        )
    record = provenance.load(chapter, profile)
    found = {name: getattr(record, name) for name in PARAMETERS}
    if found != parameters:
        raise RuntimeError(f"notebooks/{chapter}.ipynb: expected a record of {parameters}, got one of {found}.")
    record.provenance |= {"notebook_seconds": round(seconds, 1), "processor_seconds": round(processor, 1)}
    record.write(path)
    path.with_suffix(".key").write_text(key, "utf-8")
    return output


def _processor_seconds() -> float:
    """Return the time that processors have spent on kernels that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _execute(chapter: str, output: Path, parameters: dict | None, starts: int = 3) -> NotebookNode:
    """Run the saved notebook through papermill, in the folder of the notebooks and this very Python.

    Jupyter picks the ports of a kernel before the kernel takes them. Where another process was faster the kernel dies
    before it has run a cell: then it is started again, ``starts`` times in all.
    """
    root = provenance.root()
    try:
        return papermill.execute_notebook(
            root / "notebooks" / f"{chapter}.ipynb",
            output,
            parameters=parameters,
            kernel_name="python3",
            language="python",
            cwd=root / "notebooks",
            start_timeout=PATIENCE,
            iopub_timeout=PATIENCE,
        )
    except PapermillExecutionError as error:
        raise RuntimeError(
            f"notebooks/{chapter}.ipynb failed in cell [{error.exec_count}] with {error.ename}: {error.evalue} "
            f"The executed notebook is {output.relative_to(root).as_posix()}."
        ) from error
    except RuntimeError as error:
        if starts > 1 and "Kernel died before replying" in str(error):
            return _execute(chapter, output, parameters, starts - 1)
        raise


def with_outputs(saved: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """Return the saved notebook with the outputs of an executed copy.

    What papermill adds (a cell with the parameters, paths and times in the metadata) stays behind, and so does
    what was written to stderr: progress bars, and warnings that carry paths.
    """
    done = [cell for cell in executed.cells if cell.cell_type == "code" and "injected-parameters" not in tags(cell)]
    result = NotebookNode(saved, cells=[NotebookNode(cell) for cell in saved.cells])
    for cell, source in zip((c for c in result.cells if c.cell_type == "code"), done, strict=True):
        cell.outputs = [item for item in source.outputs if item.get("name") != "stderr"]
        cell.execution_count = source.execution_count
    result.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    return result


def refresh(names: Sequence[str] = ()) -> None:
    """Execute saved notebooks in place with their default parameters, which must be those of the smoke profile.

    Args:
        names: Names of chapters; empty for all.

    Raises:
        ValueError: For an unknown chapter or defaults of another profile.
        RuntimeError: If a cell fails; the saved notebook then stays as it was.
    """
    for chapter in names or chapters():
        saved = read_notebook(chapter)
        defaults = default_parameters(saved, chapter)
        if defaults["profile"] != "smoke":
            raise ValueError(
                f"notebooks/{chapter}.ipynb: expected the default profile to be 'smoke', which nbval can run, "
                f"got {defaults['profile']!r}."
            )
        output = provenance.run_path(chapter, "smoke").with_suffix(".ipynb")
        output.parent.mkdir(parents=True, exist_ok=True)
        executed = _execute(chapter, output, None)
        _, fresh = nbformat.validator.normalize(with_outputs(saved, executed))
        number = 0
        for cell in fresh.cells:
            if cell.cell_type == "code":
                number += 1
                cell.execution_count = number
        nbformat.write(fresh, provenance.root() / "notebooks" / f"{chapter}.ipynb")
        print(f"notebooks/{chapter}.ipynb: {number} code cells executed at the smoke profile")


def expected_seconds(chapter: str) -> float | None:
    """Return what the last run of a chapter at cpu took on this machine, else elsewhere; None where nobody knows."""
    try:
        return provenance.load(chapter, "cpu").provenance["notebook_seconds"]
    except (FileNotFoundError, ValueError, KeyError):
        return status.seconds(chapter, "cpu")


class _Clock:
    """Tells how long a build of the book takes, to the terminal alone: no page shows these times."""

    def __init__(self, chapters: Sequence[str]) -> None:
        self.begin, self.starts = time.perf_counter(), {}
        self.expected = {chapter: expected_seconds(chapter) for chapter in chapters}

    def say(self, chapter: str, text: str) -> None:
        print(f"[{status.duration(time.perf_counter() - self.begin)}] {chapter}: {text}", flush=True)

    def start(self, chapter: str, where: str = "") -> None:
        self.starts[chapter] = time.perf_counter()
        self.say(chapter, f"running at the cpu profile{where}, expected {status.duration(self.expected[chapter])}")

    def end(self, chapter: str) -> None:
        took = status.duration(time.perf_counter() - self.starts[chapter])
        self.say(chapter, f"took {took}, expected {status.duration(self.expected[chapter])}")


def book() -> Path:
    """Run the chapters that need it at the cpu profile, build the HTML, and return the path of its first page.

    The terminal shows what has passed since the start, and for each chapter what is expected and what it took. Chapters
    that take times run one after the other, unless no times are `load.wanted`.

    Raises:
        RuntimeError: If a chapter fails, something that it shows changes meanwhile, or Sphinx reports a warning.
    """
    root = provenance.root()
    names = book_chapters()
    parameters = {"profile": "cpu", "device": "cpu", "seed": 0}
    stale = _stale(names, parameters)
    for chapter in (chapter for chapter in names if chapter not in stale):
        print(f"{chapter}: unchanged since its last run", flush=True)
    clock = _Clock(stale)
    whole = status.duration(sum(filter(None, clock.expected.values())))
    print(f"{len(stale)} of {len(names)} chapters are run, expected {whole} on a machine that computes nothing else")
    first = [chapter for chapter in stale if chapter not in SHOWING]
    alone = [chapter for chapter in first if chapter not in UNTIMED and load.wanted()]
    _side_by_side([chapter for chapter in first if chapter not in alone], clock)
    for chapter in alone:
        clock.start(chapter)
        run(chapter, **parameters)
        clock.end(chapter)
    _side_by_side([chapter for chapter in stale if chapter in SHOWING], clock)
    changed = _stale(names, parameters)
    if changed:
        raise RuntimeError(
            f"{' and '.join(changed)}: expected what the pages show to stay as it was while the book was built, got "
            "records or code that have changed since; run `make book` again."
        )
    stage = _stage(names)
    # Sphinx names a warning only once: after a failure, start from nothing, or the next build would pass.
    failed = root / "_build" / "failed"
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(stage)]
    command += ["--path-output", str(root), "--config", str(stage / "_config.yml")]
    command += ["--toc", str(stage / "book" / "_toc.yml"), "-W", "--keep-going", *["--all"] * failed.exists()]
    failed.touch()
    if subprocess.run(command, cwd=root, check=False).returncode:
        raise RuntimeError("the book was not built: Sphinx reported the warnings or errors above.")
    failed.unlink()
    return root / "_build" / "html" / "index.html"


def _stale(names: Sequence[str], parameters: dict) -> list[str]:
    """Return the chapters whose run is not there, or not of what is there now, and those that show the run of such."""
    stale = []
    for chapter in sorted(names, key=SHOWING.__contains__):
        path = provenance.run_path(chapter, parameters["profile"])
        whole = all(path.with_suffix(suffix).is_file() for suffix in (".ipynb", ".json", ".key"))
        same = whole and path.with_suffix(".key").read_text("utf-8") == run_key(chapter, parameters)
        if not same or not set(stale).isdisjoint(SHOWING.get(chapter, ())):
            stale.append(chapter)
    return stale


def _side_by_side(names: Sequence[str], clock: _Clock) -> None:
    """Run chapters at the cpu profile at the same time, each in a process of its own and on one thread.

    The longest begin first, so that none is left at the end.
    """
    command, running = [sys.executable, "-m", "studies.runs", "run", "--device", "cpu"], {}
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    waiting, failed = sorted(names, key=lambda chapter: clock.expected[chapter] or math.inf), []
    while running or waiting:
        while waiting and len(running) < AT_ONCE:
            clock.start(chapter := waiting.pop(), " on one thread")
            running[chapter] = subprocess.Popen([*command, chapter], env=os.environ | alone)
        for chapter, code in [(name, process.poll()) for name, process in running.items()]:
            if code is not None:
                del running[chapter]
                failed += [chapter] * bool(code)
                clock.end(chapter)
        time.sleep(0.1)
    if failed:
        raise RuntimeError(f"{' and '.join(failed)} failed, for the reasons above.")


def _stage(names: Sequence[str]) -> Path:
    """Lay the sources of the book, notebooks with the outputs of their cpu runs, into ``_build/stage``.

    A file that is there already with the same content is left alone, so that Sphinx reads changed pages only.
    """
    root = provenance.root()
    stage = root / "_build" / "stage"
    wanted = {}
    for folder in ("book", "notebooks/records"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and UNSTAGED.isdisjoint(path.relative_to(root).parts):
                wanted[path.relative_to(root)] = path.read_bytes()
    wheels = {path.name: path.read_bytes() for path in launch.wheels()}
    wanted |= {Path("book", "_extra", "wheels", name): content for name, content in wheels.items()}
    page = Path("book", "reproduce.md")
    if page in wanted:
        wanted[page] = status.filled(wanted[page].decode(), names, list(wheels)).encode()
    config = yaml.safe_load((root / "_config.yml").read_text("utf-8"))
    wanted[Path("_config.yml")] = yaml.safe_dump(launch.configured(config), sort_keys=False).encode()
    sources, pages = launch.sources(list(wheels)), {}
    for chapter in names:
        executed = nbformat.read(provenance.run_path(chapter, "cpu").with_suffix(".ipynb"), as_version=4)
        pages[chapter] = _page(chapter, executed, sources)
        wanted[Path("notebooks", f"{chapter}.ipynb")] = nbformat.writes(pages[chapter]).encode()
    if cite.PAGES[0] in wanted:
        wanted |= cite.staged(pages, wanted)
    for path in sorted(stage.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(stage) not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = stage / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return stage


def _page(chapter: str, executed: NotebookNode, sources: Sequence[str]) -> NotebookNode:
    """Return the page of a chapter: its outputs, what it takes to run, what its run did not compute, and in the cell
    that installs, the addresses."""
    page = with_outputs(read_notebook(chapter), executed)
    launch.stamp(page, sources)
    refused.page(page)
    page.cells[0].source = status.with_note(page.cells[0].source, chapter)
    page.cells = status.with_sources(page.cells, provenance.load(chapter, "cpu"))
    for cell in page.cells:
        if tags(cell) & HIDDEN_TAGS:
            cell.metadata["tags"] = sorted(tags(cell) | {"remove-cell"})
    return page


def figure(id: str, profile: str = "cpu") -> list[Path]:
    """Remake one figure or table and return its files, ``_build/figures/<id>.svg``, ``.pdf``, ``.csv``, ``.bib``; of a
    table or an interactive figure the last two.

    A chapter whose record is neither there nor published runs first. Before anything runs, the terminal shows what is
    going to; at the end, whether the numbers agree with the published ones.

    Raises:
        ValueError: For an unknown id; the message has the nearest ones.
        RuntimeError: If the chapter fails.
    """
    entry = registry.find(id)
    missing = remake.absent(entry, profile)[1]
    if not missing:
        print(f"{id}: what it reads is here; only what it hangs on runs", flush=True)
    for chapter in missing:
        print(
            f"{chapter}: no record at {profile}, so it runs; expected {status.duration(expected_seconds(chapter))}",
            flush=True,
        )
        run(chapter, profile)
    shown, folder = cite.sources(entry, profile), provenance.root() / "_build" / "figures"
    paths = remake.write(entry, profile, folder, cite.credit(entry, shown))
    made = next((path for path in paths if path.suffix == ".csv"), None)
    print("\n".join(remake.agreement(entry, profile, made)), flush=True)
    reference = folder / f"{id}.bib"
    reference.write_text(cite.figure_bibtex(entry, shown) + "\n", "utf-8")
    return [*paths, reference]


def _report(path: Path) -> None:
    print(f"written: {path.relative_to(provenance.root()).as_posix()}")


def prepare_kernels() -> None:
    """Set what kernels read from the environment when they start."""
    # The kernel must be this environment's, not one of the same name installed for the user.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    # Nobody debugs a run; without this the debugger warns about frozen modules at every start of a kernel.
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; a failure is one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m studies.runs", description="Run chapters and build the book.")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, action: Callable, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(action=action)
        return command

    def add_chapter(command: argparse.ArgumentParser, profiles: Sequence[str]) -> None:
        command.add_argument("chapter", help="name of the notebook without suffix")
        command.add_argument("--profile", default="cpu", choices=profiles)

    command = add("run", lambda a: _report(run(a.chapter, a.profile, a.device, a.seed)), "execute one chapter")
    add_chapter(command, provenance.PROFILES)
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<index>")
    command.add_argument("--seed", default=0, type=int)
    command = add("publish", lambda a: _report(provenance.publish(a.chapter, a.profile)), "keep the record of a run")
    add_chapter(command, provenance.PROFILES)
    add("book", lambda a: print(f"The book is at {book()}"), "run all chapters at cpu and build the HTML")
    command = add("figure", lambda a: [*map(_report, figure(a.id, a.profile))], "remake one figure or table")
    command.add_argument("id", help="as it stands under the figure")
    command.add_argument("--profile", default="cpu", choices=provenance.PROFILES)
    command = add("refresh", lambda a: refresh(a.chapters), "execute the saved notebooks in place at smoke")
    command.add_argument("chapters", nargs="*")

    prepare_kernels()
    options = parser.parse_args(arguments)
    try:
        options.action(options)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
