"""Page one agrees with the records; the glossary has the words of the book, and the book uses those of the glossary."""

import copy
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest

from studies import front, provenance

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (ROOT / "book").glob("*.md") if path.stem != "glossary"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Words of the chapters that a reader of another field does not know, or knows in another sense.
TECHNICAL = """AAA, adjoint, alignment, avoided crossing, bound, box, break-even, budget, certificate, Chebyshev nodes,
closed form, collocation point, condition number, conical intersection, crossing, defect, Eckart-Young limit, embedding,
equaliser, estimate, event, exact solve, face, factor, failure probability, failure-informed sampling, family, fit,
gauge, Gram matrix, held, knot, latent tensor, LMMSE, met, mode-3 product, node, operation, peer, piece, POD, problem,
profile, quartiles, rank, real rank, record, reduced basis, residual, reused memory, slice, snapshot, spline,
stream, stretching, subcarrier, subspace, sum rate, surrogate, term, tolerance, trained, unfolding"""
# Most words of a chapter's text. A reader who needs more time than for these does not come to the end.
MOST_WORDS = 4000
# Chapters that are held to this limit and to the arc.
ARC = ("measured", "wireless_inversion", "your_own_matrices", "your_own_operation")


@pytest.fixture(scope="module")
def found():
    return front.records()


def prose(path):
    """The text of a notebook's cells of Markdown."""
    return "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")


# The table of decisions


def row(found, start):
    """The cells of the row of the table whose situation begins so."""
    return next(cells for cells in front.table(found).rows if cells[0].startswith(f"[{start}"))


def test_the_map_is_picked_where_its_quartiles_are_above_one_with_the_fit_counted(found):
    changed = copy.deepcopy(found)
    rows = [x for x in changed["speed"]["svd"] if " 30 ns" in x["name"]]
    for ratio, pick in {(1.2, 1.5, 1.6): "map in pieces", (0.5, 0.6, 0.9): "Gram", (0.9, 1.1, 1.2): "Either"}.items():
        for x in rows:
            x["Gram: with the fit"] = list(ratio)
        _, picked, speed, *_ = row(changed, "Leading singular vectors")
        assert pick in picked.split(";")[0] and speed.startswith(front.between([ratio[1]]))


def test_a_row_compares_with_the_strongest_exact_method(found):
    for x in front.speeds(found, "inverse", ""):
        after, counted = front.ratios(x)
        methods = [key.removesuffix(": with the fit") for key in x if key.endswith(": with the fit")]
        assert counted[1] == min(x[f"{name}: with the fit"][1] for name in methods)
        assert after in [x[f"{name}: after"] for name in methods]


def test_each_row_links_to_a_chapter_that_is_in_the_book(found):
    toc = (ROOT / "book" / "_toc.yml").read_text("utf-8")
    links = [re.search(r"\]\(\.\./(notebooks/\w+)\.ipynb\)", cells[0]).group(1) for cells in front.table(found).rows]
    assert [link for link in links if f"file: {link}\n" not in toc] == []


def test_errors_and_costs_of_the_table_are_those_of_the_records(found):
    errors = provenance.load("to_the_limit").numbers["cdl_c"]["errors"]
    assert row(found, "One parameter")[3].startswith(f"spline {errors['cubic spline']:.0e}")
    trials = provenance.load("training_search").numbers["trials"]
    best = min((x for x in trials if x["family"] == "cdl_c"), key=lambda x: x["error"])
    trained = row(found, "The paper")
    assert trained[3].startswith(f"{best['error']:.0e}")
    assert float(trained[4].split()[0].replace(",", "")) == pytest.approx(best["cost_in_inversions"], rel=0.05)
    steps = [x for x in provenance.load("families").numbers["groups"] if x["kind"] == "steps"]
    assert f"{sum(x['met'] for x in steps)} of {sum(x['fits'] for x in steps)}" in row(found, "A step")[3]


def test_the_pages_get_the_table_and_the_numbers(found):
    texts = front.substitutions()
    lines = texts["decisions"].splitlines()
    assert len(lines) == len(front.decisions(found)) + 2 and all(line.count(" | ") == 4 for line in lines)
    assert texts["front"] == front.numbers(found)
    assert "{{ decisions }}" in (ROOT / "book" / "intro.md").read_text("utf-8")


def test_every_row_has_all_cells(found):
    assert all(cell.strip() for cells in front.table(found).rows for cell in cells)


# The sentences


def test_the_pages_name_no_number_that_is_not_there(found):
    there = set(front.numbers(found))
    used = {name for path in PAGES for name in re.findall(r"\{\{ front\.(\w+) \}\}", path.read_text("utf-8"))}
    assert used <= there
    assert there - used <= {"cases", "right", "located"}, "numbers that no page shows"


def test_a_record_that_refutes_a_sentence_stops_the_build(found):
    changed = copy.deepcopy(found)
    for entry in changed["beyond_the_inverse"]["svd"].values():
        entry["faster"]["Gram matrix"]["fit and map"] = 2.0
    with pytest.raises(ValueError, match="on a GPU the exact methods are faster"):
        front.numbers(changed)


def test_the_answer_counts_wins_and_losses(found):
    numbers = front.numbers(found)
    counted = [front.ratios(x)[1] for word in ("inverse", "svd", "lmmse") for x in found["speed"][word]]
    assert int(numbers["wins"]) == sum(ratio[0] > 1 for ratio in counted)
    assert int(numbers["losses"]) == sum(ratio[2] < 1 for ratio in counted)


def test_the_figure_has_a_row_for_each_problem(found):
    drawn = front.figure(found)
    labels = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    plt.close(drawn)
    assert len(labels) == int(front.numbers(found)["problems"]) + len(front.on_a_gpu(found))
    assert len(set(labels)) == len(labels)


# The glossary


@pytest.fixture(scope="module")
def terms():
    text = (ROOT / "book" / "glossary.md").read_text("utf-8")
    return re.findall(r"^(\S.*)\n  \S", text.split("```{glossary}\n")[1], re.MULTILINE)


@pytest.fixture(scope="module")
def book():
    return "\n".join([*(path.read_text("utf-8") for path in PAGES), *map(prose, NOTEBOOKS)])


def test_the_glossary_is_sorted_and_has_no_term_twice(terms):
    assert terms == sorted(set(terms), key=str.casefold)


def test_every_term_of_the_glossary_is_used_in_the_book(terms, book):
    words = re.sub(r"[\s*_]+", " ", book).casefold()
    assert [term for term in terms if term.casefold().removesuffix("s") not in words] == []


def test_technical_words_are_in_the_glossary(terms):
    assert set(re.split(r",\s+", TECHNICAL)) - set(terms) == set()


def test_links_to_terms_lead_to_the_glossary(terms, book):
    text = book + (ROOT / "book" / "glossary.md").read_text("utf-8")
    linked = re.findall(r"\{term\}`([^`]*)`", text)
    assert {re.sub(r".*<(.*)>", r"\1", link.replace("\n", " ")) for link in linked} <= set(terms)


# The arc of a chapter


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem in ARC], ids=lambda path: path.stem)
def test_a_chapter_opens_with_question_and_finding_and_closes_with_what_it_does_not_show(path):
    first, *rest = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"]
    opening = re.search(r"^\*\*The question\.\*\* .*?^\*\*The finding\.\*\* (.*?)\n\n", first, re.DOTALL | re.MULTILINE)
    assert opening and "{glue:text}" in opening.group(1), "a finding comes from the record"
    assert [text for text in rest if text.startswith("## ")][-1].startswith("## What this chapter does not show\n")


def words(path):
    """Words of a chapter's text; a formula or a glued number is one."""
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "1", prose(path), flags=re.DOTALL)
    return len(re.sub(r"\{[\w:]+\}`[^`]*`", "1", text).split())


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem in ARC], ids=lambda path: path.stem)
def test_a_chapter_is_not_too_long(path):
    assert words(path) <= MOST_WORDS
