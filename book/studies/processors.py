"""The tests under settings of other processors, thread counts, load and Pythons: once before each release.

    python -m studies.processors                         every cell, the fast tests
    python -m studies.processors --full                  every cell, all of `make test`
    python -m studies.processors aten threads -- tests/test_linalg.py

A cell is one run of pytest in a process of its own. What comes after ``--`` goes to pytest. A cell that this machine
cannot run is named with its reason and is no failure; the exit status is 1 if any test of any cell fails.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from studies import provenance

# Flags of /proc/cpuinfo without which the kernels of a name end in an illegal instruction.
AVX2 = {"avx2", "fma"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
FAST = ("-m", "not slow")
# As `make test`: the cells of a notebook go to one process.
FULL = (
    *("-n", "2", "--dist", "loadfile", "--nbval-lax", "--nbval-current-env"),
    *("--nbval-cell-timeout=1800", "--nbval-kernel-startup-timeout=1800"),
)
# Keeps one core busy until its parent is gone, also where that was killed.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(10**5))"


@dataclass(frozen=True)
class Cell:
    """One run of the tests.

    Attributes:
        name: ``group setting``.
        environment: Variables that differ from one thread and the processor's own kernels.
        flags: What the processor must have, as /proc/cpuinfo names it.
        python: Minor version of the Python 3 that runs it; None for this one.
        busy: Processes beside it that do nothing but compute.
    """

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    python: int | None = None
    busy: int = 0


CELLS = (
    Cell("aten default", {"ATEN_CPU_CAPABILITY": "default"}),
    Cell("aten avx2", {"ATEN_CPU_CAPABILITY": "avx2"}, frozenset(AVX2)),
    Cell("aten avx512", {"ATEN_CPU_CAPABILITY": "avx512"}, frozenset(AVX512)),
    # MKL reads it on Intel's processors only; elsewhere the cell repeats the plain run.
    Cell("mkl AVX2", {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}, frozenset(AVX2)),
    Cell("mkl AVX512", {"MKL_ENABLE_INSTRUCTIONS": "AVX512"}, frozenset(AVX512)),
    Cell("openblas Haswell", {"OPENBLAS_CORETYPE": "Haswell"}, frozenset(AVX2)),
    Cell("openblas SkylakeX", {"OPENBLAS_CORETYPE": "SkylakeX"}, frozenset(AVX512)),
    Cell("openblas Zen", {"OPENBLAS_CORETYPE": "Zen"}, frozenset(AVX2)),
    *(Cell(f"threads {n}", dict.fromkeys(THREADS, str(n))) for n in (1, 2, 4)),
    Cell("load 2", busy=2),
    *(Cell(f"python 3.{minor}", python=minor) for minor in (11, 12, 13)),
)


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes:
        cell: Its name.
        counts: Tests that ``passed``, ``failed`` (errors among them) and were ``skipped``.
        failed: Names of those that failed.
        seconds: Wall time of the run.
        reason: Why the cell could not run, else empty.
    """

    cell: str
    counts: dict[str, int] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    seconds: float = 0.0
    reason: str = ""


def cpu_flags(text: str | None = None) -> set[str]:
    """Return the flags of this processor, or of the text of a /proc/cpuinfo; none where there is no such file."""
    file = Path("/proc/cpuinfo")
    text = (file.read_text("utf-8") if file.is_file() else "") if text is None else text
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(found[1].split()) if found else set()


def interpreter(minor: int) -> str | None:
    """Return a Python 3.<minor> that runs: on the path, or one of pyenv's, whose shims need not run."""
    name = f"python3.{minor}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(name), *sorted(pyenv.glob(f"3.{minor}.*/bin/python"))]
    for path in filter(None, candidates):
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(path)
    return None


def python_of(cell: Cell) -> tuple[str, str]:
    """Return the Python of a cell, and the reason if there is none; the environment of another one is set up first."""
    if cell.python in (None, sys.version_info[1]):
        return sys.executable, ""
    base = interpreter(cell.python)
    if base is None:
        return "", f"no Python 3.{cell.python} here"
    folder = provenance.root() / "_build" / "processors" / f"3.{cell.python}"
    command = [base, str(provenance.root() / ".ci" / "bootstrap.py")]
    if subprocess.run(command, env=os.environ | {"NEUMATC_VENV": str(folder)}, check=False).returncode:
        return "", "its set-up failed, see above"
    return str(folder / "bin" / "python"), ""


@contextlib.contextmanager
def load(count: int) -> Iterator[None]:
    """Keep this many cores busy for as long as the block runs."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def read(report: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the counts of a JUnit report and the names of the tests that failed; each counts once."""
    worst: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        kinds = {child.tag for child in case}
        bad = worst.get(name) == "failed" or kinds & {"failure", "error"}
        worst[name] = "failed" if bad else "skipped" if "skipped" in kinds else "passed"
    counts = {kind: list(worst.values()).count(kind) for kind in ("passed", "failed", "skipped")}
    return counts, tuple(name for name, kind in worst.items() if kind == "failed")


def run(cell: Cell, arguments: Sequence[str]) -> Outcome:
    """Run the tests in a cell, or say why this machine cannot."""
    missing = sorted(cell.flags - cpu_flags())
    if missing:
        return Outcome(cell.name, reason=f"not on this processor ({platform.machine()} without {', '.join(missing)})")
    python, reason = python_of(cell)
    if reason:
        return Outcome(cell.name, reason=reason)
    environment = os.environ | dict.fromkeys(THREADS, "1") | cell.environment
    with tempfile.TemporaryDirectory() as folder, load(cell.busy):
        # torch 2.13 finds what it compiled for one capability under another, where it does not compile.
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "compiled")
        report, start = Path(folder) / "report.xml", time.perf_counter()
        command = [python, "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
        result = subprocess.run(command, cwd=provenance.root(), env=environment, check=False)
        seconds = time.perf_counter() - start
        if result.returncode not in (0, 1) or not report.is_file():  # no tests, interrupted, or killed by a signal
            died = (f"pytest ended with status {result.returncode}",)
            return Outcome(cell.name, {"passed": 0, "failed": 1, "skipped": 0}, died, seconds)
        counts, failed = read(report)
    return Outcome(cell.name, counts, failed, seconds)


def table(outcomes: Sequence[Outcome]) -> provenance.Table:
    """What came of the cells, a line each."""
    rows = []
    for x in outcomes:
        counts = [f"{x.counts[kind]:,}" if x.counts else "" for kind in ("passed", "failed", "skipped")]
        rows.append((x.cell, *counts, x.reason or ", ".join(x.failed) or "none"))
    return provenance.Table(("cell", "passed", "failed", "skipped", "which failed"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cells whose names begin with one of the words, all without any, and print the table."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(prog="python -m studies.processors", description="Tests on other processors.")
    parser.add_argument("cells", nargs="*", help="such as aten, 'threads 2' or python; all without any")
    parser.add_argument("--full", action="store_true", help="all tests and notebooks, not the fast lane")
    options = parser.parse_args(words[:end])
    chosen = [cell for cell in CELLS if not options.cells or cell.name.startswith(tuple(options.cells))]
    if not chosen:
        parser.error(f"`cells`: expected the beginnings of {', '.join(cell.name for cell in CELLS)}")
    outcomes = []
    for cell in chosen:
        print(f"== {cell.name}", flush=True)
        outcomes.append(run(cell, [*(FULL if options.full else FAST), *words[end + 1 :]]))
        print(f"== {outcomes[-1].cell}: {outcomes[-1].seconds:.0f} s", flush=True)
    print(table(outcomes))
    return int(any(x.failed for x in outcomes))


if __name__ == "__main__":
    sys.exit(main())
