"""Sphinx extension: the answer on page one, table, numbers and figure, comes from the published records at every build.

A new record changes the setting, and so Sphinx reads the pages again.
"""

import io
from pathlib import Path

import matplotlib.pyplot as plt
from sphinx.application import Sphinx
from sphinx.config import Config

from studies import front

# Beside the introduction, so that Sphinx takes the figure as any other image.
FIGURE = "book/decisions.png"


def fill(app: Sphinx, config: Config) -> None:
    """Give MyST the texts, and lay the figure beside the pages."""
    config.myst_substitutions = {**config.myst_substitutions, **front.substitutions()}
    drawn, image = front.figure(front.records()), io.BytesIO()
    drawn.savefig(image, format="png", metadata={"Software": None})
    plt.close(drawn)
    path = Path(app.srcdir, FIGURE)
    if not path.is_file() or path.read_bytes() != image.getvalue():
        path.write_bytes(image.getvalue())


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", fill)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
