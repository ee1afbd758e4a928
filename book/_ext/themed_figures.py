"""Sphinx extension: every figure has a second image for dark pages, redrawn from the first by `studies.figures.night`.

Both have 256 colours: more than a diagram has, and a quarter of the bytes.

style.css shows the one that suits the theme. The theme's own classes for that, only-light and only-dark, would hide the
captions of figures too.
"""

from pathlib import Path

import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.osutil import relative_uri

from studies import figures

SUFFIX = "-night.png"


def darken(source: Path, target: Path) -> None:
    """Write the dark version of an image, unless it is there; names of images are hashes of their content."""
    if not target.is_file():
        with Image.open(source) as image:
            pixels = np.asarray(image.convert("RGB"))
        target.parent.mkdir(parents=True, exist_ok=True)
        _save(Image.fromarray(figures.night(pixels)), target)


def lighten(app: Sphinx, failure: Exception | None) -> None:
    """Write the images that notebooks made anew, in as few colours as the dark ones."""
    if failure is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir, "_images").glob("*.png"):
        with Image.open(path) as image:
            if image.mode != "P":
                _save(image.convert("RGB"), path)


def _save(image: Image.Image, target: Path) -> None:
    image.quantize(256, method=Image.Quantize.MEDIANCUT).save(target, optimize=True)


def pair(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the image for dark pages beside each image of a page."""
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        uri = image.get("candidates", {}).get("*", image["uri"])
        source = Path(app.srcdir, uri)
        if not uri.endswith(".png") or not source.is_file():
            continue
        # dark-light tells the theme to leave the image as it is.
        image["classes"] += ["dark-light", "day"]
        folder = Path(app.doctreedir, "night")
        target = folder / (source.stem + SUFFIX)
        darken(source, target)
        other = image.deepcopy()
        other["classes"] = [name for name in image["classes"] if name != "day"] + ["night"]
        other["ids"], other["names"] = [], []
        path = relative_uri(f"{Path(app.srcdir).as_posix()}/", target.as_posix())
        other["uri"], other["candidates"] = path, {"*": path}
        app.env.images.add_file(docname, path)
        image.parent.insert(image.parent.index(image) + 1, other)


def setup(app: Sphinx) -> dict:
    app.connect("doctree-resolved", pair)
    app.connect("build-finished", lighten)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
