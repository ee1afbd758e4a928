"""Make or mend .venv with everything that the Makefile needs; standard library only.

`make setup` runs this with the Python it found. The file keeps to syntax that any Python 3 can read, so that one
that is too old can say so. A stamp is written last: without it a .venv is unfinished and is made anew; with it, and
nothing changed, there is nothing to do.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# `studies.processors` names others, for other Pythons.
VENV = os.path.join(ROOT, os.environ.get("NEUMATC_VENV", ".venv"))
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, ".complete")
RUNTIME = os.path.join(ROOT, ".ci", "browser_runtime.py")
INPUTS = [
    "pyproject.toml",
    os.path.join("book", "pyproject.toml"),
    "constraints.txt",
    os.path.join(".ci", "bootstrap.py"),
]
OLDEST = (3, 11)
FREE_GB = 4.0

# Words of pip's errors, and what is wrong where they stand. The first match counts.
CAUSES = [
    (
        ("No space left on device", "Errno 28", "Disk quota exceeded"),
        "the disk is full",
        "free at least 4 GB, 10 GB where pip takes the torch that brings CUDA, and run it again",
    ),
    (
        (
            "Failed to establish a new connection",
            "NameResolutionError",
            "Failed to resolve",
            "Temporary failure in name resolution",
            "Name or service not known",
            "Network is unreachable",
            "Connection refused",
            "Connection reset",
            "ConnectTimeout",
            "ConnectionError",
            "Read timed out",
            "ProxyError",
            "Cannot connect to proxy",
            "SSLError",
        ),
        "no network: pip cannot reach the package index",
        "check the connection and the proxy settings, and run it again",
    ),
    (
        ("No matching distribution found", "requires a different Python"),
        "a pinned package has no build for Python {0}.{1} on this machine",
        "name another Python, 3.11 to 3.13: make PYTHON=python3.12 book",
    ),
    (
        ("Permission denied", "Errno 13"),
        "files may not be written here",
        "clone into a folder of your own",
    ),
]


def fail(cause, remedy):
    sys.stderr.write("error: {0}; {1}.\n".format(cause, remedy))
    sys.exit(1)


def digest():
    """Hash of what the environment is made from, and where: a .venv that was copied or moved is not trusted."""
    result = hashlib.sha256(VENV.encode("utf-8"))
    for name in INPUTS:
        with open(os.path.join(ROOT, name), "rb") as file:
            result.update(hashlib.sha256(file.read()).digest())
    return result.hexdigest()


def read_stamp():
    """Content of the stamp, or None where .venv is unfinished or its Python is gone."""
    try:
        with open(STAMP) as file:
            content = file.read()
        runs = subprocess.call([PYTHON, "-c", ""], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return None
    return content if runs else None


def check_prerequisites():
    version = "{0}.{1}.{2}".format(*sys.version_info)
    if sys.version_info < OLDEST:
        fail(
            "Python 3.11 or newer is needed, {0} is {1}".format(sys.executable, version),
            "install one, or name it: make PYTHON=python3.12 book",
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        fail(
            "{0} cannot make virtual environments ({1})".format(sys.executable, error),
            "install its venv module (Debian, Ubuntu: apt install python{0}.{1}-venv), or name another Python: "
            "make PYTHON=python3.12 book".format(*sys.version_info),
        )
    # pip unpacks in the temporary folder before it installs here.
    for folder in (ROOT, tempfile.gettempdir()):
        free = shutil.disk_usage(folder).free / 1e9
        if free < FREE_GB:
            fail(
                "the disk is full: {0:.1f} GB are free in {1}, {2:g} GB are needed".format(free, folder, FREE_GB),
                "free some, or set TMPDIR to a folder on another disk",
            )


def diagnose(report):
    """Cause and remedy, by what pip wrote to stderr."""
    for words, cause, remedy in CAUSES:
        if any(word in report for word in words):
            return cause.format(*sys.version_info), remedy
    return "set-up failed, pip's error is above", "mend its cause and run it again"


def install():
    """Install everything in one pip command, so that no package is resolved without the pins of the others."""
    command = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["-c", "constraints.txt", "-e", ".[wireless,plot,distributed,export,book,test]", "-e", "./book"]
    # pip's progress goes straight to the terminal; its errors are shown and read.
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    errors = []
    for line in process.stderr:
        text = line.decode("utf-8", "replace")
        sys.stderr.write(text)
        errors.append(text)
    if process.wait() != 0:
        fail(*diagnose("".join(errors)))


def set_up(stamp, wanted):
    """Make .venv, or bring the one with this stamp up to date."""
    check_prerequisites()
    if stamp is not None:
        print("Set-up: the pinned packages changed, updating .venv", flush=True)
        os.remove(STAMP)
    else:
        what = "making an unfinished .venv anew" if os.path.exists(VENV) else "making .venv"
        print("Set-up: {0} with Python {1}.{2}".format(what, *sys.version_info), flush=True)
        status = subprocess.call([sys.executable, "-m", "venv", "--clear", VENV])
        if status != 0:
            fail("python -m venv failed, its error is above", "mend its cause and run it again")
    install()
    with open(STAMP, "w") as file:
        file.write(wanted)
    print("Set-up: done", flush=True)


def main():
    wanted = digest()
    stamp = read_stamp()
    if stamp != wanted:
        set_up(stamp, wanted)
    # What the book can do without has its own script, which says so where it fails, and is tried again.
    subprocess.call([PYTHON, RUNTIME])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("set-up was interrupted", "run it again")
    except OSError as error:
        fail("set-up failed, {0}".format(error), "mend its cause and run it again")
