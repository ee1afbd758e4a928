"""Where the book can be run from: addresses that are known when it is built, wheels beside the pages, the first cell.

    python -m studies.launch stamp     write the addresses into the first cells of the notebooks, for the branch that
                                       launch buttons open
    python -m studies.launch wheels    build both wheels into _build/wheels

Nothing is invented: without a remote of git and without the variables of CI there is no address, and no button.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from studies import provenance

# Notebooks of this branch carry the addresses; .ci/launch-branch makes it.
BRANCH = "launch"
# The line of the first cell that is filled in.
UNSTAMPED = "SOURCES = ()"
# Owner and name of a repository on a host, without what stands before an @, which may be a password.
REMOTE = re.compile(
    r"(?:https?://|ssh://|git://)?(?:[^@/]*@)?([\w-]+(?:\.[\w-]+)+)(?::\d+/|[:/])((?:[\w.-]+/)+[\w.-]+?)(?:\.git)?/?"
)
# What the wheels are built from, beside the packages themselves.
LIBRARY = ("pyproject.toml", "README.md", "LICENSE", "LICENSE-TEXT.md")
# The oldest time that a ZIP file can hold: the same sources give the same wheels.
EPOCH = "315532800"


def repository() -> str | None:
    """Return the web address of the repository, from CI's variables, else from git's ``origin``; None without either.

    What a remote holds beside host, owner and name (a user, a password, a port) does not appear.
    """
    server, name = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return web_address(f"{server}/{name}" if server and name else _git("remote", "get-url", "origin"))


def web_address(remote: str | None) -> str | None:
    """Return the web address of a remote of git; None where it is none of a host, such as a folder.

    Example:
        >>> web_address("git@example.org:group/book.git"), web_address("../elsewhere")
        ('https://example.org/group/book', None)
    """
    found = REMOTE.fullmatch((remote or "").strip())
    return f"https://{found[1]}/{found[2]}" if found else None


def book() -> str | None:
    """Return the address that the pages are served at, the variable ``BOOK_URL``, without a stroke at its end."""
    return os.environ.get("BOOK_URL", "").rstrip("/") or None


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(provenance.root()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def sources(names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what pip installs library and studies from; empty where no address is known.

    Args:
        names: File names of the wheels beside the pages, library first. With them and :func:`book` the wheels are
            taken, else the commit in the :func:`repository`.
    """
    if book() and names:
        return tuple(f"{name.split('-')[0].replace('_', '-')} @ {book()}/wheels/{name}" for name in names)
    address = repository()
    if address is None:
        return ()
    commit = _git("rev-parse", "HEAD")
    git = f"git+{address}" + (f"@{commit}" if commit else "")
    return f"neumatc @ {git}", f"neumatc-studies @ {git}#subdirectory=book"


def stamped(source: str, found: Sequence[str]) -> str:
    """Return the source of a first cell with the addresses filled in; as it is where there are none.

    Raises:
        ValueError: If the cell has no place for them.
    """
    if source.count(UNSTAMPED) != 1:
        raise ValueError(f"expected a cell tagged `colab` with the line `{UNSTAMPED}`, got {source[:80]!r}.")
    lines = "".join(f'\n    "{address}",' for address in found)
    return source.replace(UNSTAMPED, f"SOURCES = ({lines}\n)") if found else source


def stamp(notebook: NotebookNode, found: Sequence[str]) -> None:
    """Fill the addresses into the first cell of a notebook, in place."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and "colab" in cell.metadata.get("tags", ()):
            cell.source = stamped(cell.source, found)


def stamp_all(target: Path) -> None:
    """Write all notebooks with the addresses filled in to a folder, which may be that of the notebooks.

    Raises:
        RuntimeError: If no address is known.
    """
    found = sources([path.name for path in wheels()])
    if not found:
        raise RuntimeError("no address is known: set BOOK_URL to that of the pages, or add a remote `origin` of git.")
    for path in sorted((provenance.root() / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        stamp(notebook, found)
        nbformat.write(notebook, target / path.name)
    print("\n".join(found))


def configured(config: dict) -> dict:
    """Return the settings of Jupyter Book with launch buttons, where the repository is one that they can open.

    Colab opens notebooks of GitHub only, and so does the theme.
    """
    address = repository()
    if address is None or not address.startswith("https://github.com/"):
        return config
    buttons = {
        "notebook_interface": "jupyterlab",
        "colab_url": "https://colab.research.google.com",
        "binderhub_url": "https://mybinder.org",
    }
    return config | {"launch_buttons": buttons, "repository": {"url": address, "path_to_book": "", "branch": BRANCH}}


def wheels() -> list[Path]:
    """Build the wheels of library and studies, and return their paths; what did not change is not built again.

    Raises:
        RuntimeError: If pip fails.
    """
    root = provenance.root()
    files = [root / name for name in LIBRARY] + sorted((root / "neumatc").rglob("*.py"))
    files += [root / "book" / "pyproject.toml", *sorted((root / "book" / "studies").rglob("*.py"))]
    files += sorted((root / "notebooks" / "records").glob("*"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    target, stamp = root / "_build" / "wheels", root / "_build" / "wheels" / "digest"
    if not (stamp.is_file() and stamp.read_text("utf-8") == digest.hexdigest()):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as folder:
            # Of a copy: pip builds in the folder that it is given, and what it leaves there gets into the next wheel.
            for path in files:
                copy = Path(folder, path.relative_to(root))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            _build(folder, target)
        stamp.write_text(digest.hexdigest(), "utf-8")
    return sorted(target.glob("*.whl"), key=lambda path: len(path.name))


def _build(folder: str, target: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--disable-pip-version-check"]
    # Without isolation: set-up has installed what builds it, and the book builds without a network.
    command += ["--no-build-isolation", "--wheel-dir", str(target), folder, str(Path(folder, "book"))]
    environment = os.environ | {"SOURCE_DATE_EPOCH": EPOCH}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        raise RuntimeError(f"pip did not build the wheels: {result.stderr.strip()[-200:]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; a failure is one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m studies.launch", description="Addresses and wheels of the book.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("stamp", help="write the addresses into the first cells of notebooks/")
    command.add_argument(
        "--to", type=Path, default=provenance.root() / "notebooks", help="a folder to write to instead"
    )
    commands.add_parser("wheels", help="build both wheels into _build/wheels")
    options = parser.parse_args(arguments)
    try:
        if options.command == "stamp":
            stamp_all(options.to)
        else:
            print("\n".join(path.relative_to(provenance.root()).as_posix() for path in wheels()))
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
