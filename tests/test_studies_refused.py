"""Pages whose times were refused: what rests on one says so, and nothing else changes."""

import nbformat
import numpy as np
import pytest

from studies import figures, refused, texts
from studies.provenance import Record


def glued(name, text):
    """An output as gluing leaves it."""
    return nbformat.v4.new_output(
        "display_data",
        {"application/papermill.record/text/plain": text},
        metadata={"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}},
    )


def page(source, *outputs, **metadata):
    """A page of one text and one code cell."""
    code = nbformat.v4.new_code_cell("draw();", outputs=list(outputs), metadata=metadata)
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(source), code])


@pytest.mark.parametrize("text", ["'not timed'", "'a number that was not timed'", "nan"])
def test_a_sentence_on_a_refused_time_gives_way(text):
    own = page(
        "One. It takes {glue:text}`a:.1f` times as long. Three {glue:text}`b`.", glued("a", text), glued("b", "3")
    )
    refused.page(own)
    assert own.cells[0].source == f"One. {texts.UNTOLD} Three {{glue:text}}`b`."


def test_a_paragraph_or_an_item_says_it_once():
    source = (
        "Two {glue:text}`a`. And {glue:text}`a`.\n\n- **Fit.** It is {glue:text}`a`.\n- Error {glue:text}`b`.\n\nEnd."
    )
    assert refused.sentences(source, {"a"}) == (
        f"{texts.UNTOLD} \n\n- **Fit.** {texts.UNTOLD}\n- Error {{glue:text}}`b`.\n\nEnd."
    )


def test_a_page_with_all_its_times_stays_as_it_is():
    source = "It takes {glue:text}`a` times as long.\n\n- One.\n- {glue:text}`b`\n"
    own = page(source, glued("a", "'5.1 (4.8 to 5.4)'"), glued("b", "'It is.'"))
    refused.page(own)
    assert own.cells[0].source == source


def test_a_figure_without_times_is_not_drawn_and_its_caption_says_so(capsys):
    record = Record("x", profile="smoke", device="cpu", seed=0)
    record.numbers["cdl_c"] = {"relative_time": {"NumPy loop": [np.nan] * 3}}
    drawn = figures.total_time(record, "cdl_c", {})
    assert not any(axes.lines for axes in drawn.axes)
    stream = nbformat.v4.new_output("stream", name="stdout", text=capsys.readouterr().out)
    labels = {"figure": {"name": "fig-x", "caption": "Lines cross."}, "image": {"alt": "Lines."}}
    own = page("Text.", stream, mystnb=labels)
    refused.page(own)
    shown = own.cells[1].metadata["mystnb"]
    assert shown == {"figure": {"name": "fig-x", "caption": texts.UNTOLD}, "image": {"alt": texts.UNTOLD}}
    assert not own.cells[1].outputs
