"""The lines of the first hour: each does what its page says, on one map for the whole box and in pieces."""

import pytest

from studies import first_hour


@pytest.fixture(scope="module", params=first_hour.FITS)
def names(request):
    return first_hour.namespace(request.param)


def test_a_fit_to_a_tolerance_has_four_pieces_and_a_face_between_them():
    names = first_hour.namespace("tol")
    pieces, p = names["surrogate"].pieces, names["p"].tolist()
    assert len(pieces) >= 4 and names["surrogate"].report.met
    assert p[2] == pieces[1].lower[0] == pieces[0].upper[0] and p[1] < p[2] < p[3]


def test_there_are_thirty_lines_and_none_twice():
    assert len({line.code for line in first_hour.LINES}) == len(first_hour.LINES) >= 30


@pytest.fixture(scope="module")
def rows():
    """What the page says, by line."""
    rows = [row.split(" | ", 1) for row in first_hour.PAGE.read_text("utf-8").splitlines() if row.startswith("| `")]
    return {code.removeprefix("| `").removesuffix("`"): text.removesuffix(" |") for code, text in rows}


@pytest.mark.parametrize("line", first_hour.LINES, ids=lambda line: line.code)
def test_a_line_does_what_the_page_says(line, names, rows):
    text = first_hour.outcome(line, names)
    assert text == rows[line.code], "run python -m studies.first_hour"
    if line.error is not None:
        assert len(text) < 320 and text.count("`") >= 4


def test_the_page_is_what_the_study_writes(rows):
    assert first_hour.PAGE.read_text("utf-8") == first_hour.rendered(rows), "run python -m studies.first_hour"
    assert list(rows) == [line.code for line in first_hour.LINES]
