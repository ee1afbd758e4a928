"""What the notebooks of the book call: figures, records, runs, and one module of studies a chapter.

It serves the book and is a distribution of its own (``book/pyproject.toml``), never part of the wheel of ``neumatc``,
which does not import it.
"""
