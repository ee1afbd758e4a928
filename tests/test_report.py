"""Reports as tables and pictures, when a map pays, and warnings that name the true place and a remedy."""

import itertools
import math
import re
import sys
import time
import warnings
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import assert_raises, easy, generator, in_pieces, random_surrogate, singular_where

import neumatc as nm
from neumatc import advice
from neumatc.report import StopReason

DOUBLE = torch.float64


def long_report():
    """A report in which every row is as long as it may be."""
    unmet = [nm.Unmet([k / 9] * 4, [(k + 1) / 9] * 4, "the exact solves are used up (4096)") for k in range(9)]
    events = [nm.Event("avoided crossing", (k, k + 1), [0.1 * k] * 4, 1e-3) for k in range(7)]
    last = nm.Round(failure_probability=0.1, residual_median=1e-4, residual_max=2e-3, draws=1000)
    return nm.Report(
        "Pieces", {}, 24, 0, 1e-3, unmet=unmet, events=events, rounds=[last], stop_reason=StopReason.BUDGET,
        message="something to be noted; " * 40, seconds=1.0, exact_solves=4096, collocation=4096,
        problem="Eigh(rank=4) of 64 x 64 matrices, " + "a parameter with a long name in [0, 1], " * 4, pieces=75,
        samples="120; leaving one out changes A by 6.6e-02 (median), 1.4e+00 (max)",
        solve_seconds=2**-8, evaluation_seconds=2**-9, advice="raise the budget or the tolerance",
    )  # fmt: skip


def row(report, name):
    """The lines of one row of a printed report."""
    lines, width = str(report).splitlines(), 14
    start = next(k for k, line in enumerate(lines) if line.startswith(name + " "))
    more = itertools.takewhile(lambda line: line.startswith(" " * width), lines[start + 1 :])
    return [line[width:] for line in (lines[start], *more)]


def test_a_printed_report_is_a_narrow_table_of_aligned_rows():
    lines = str(long_report()).splitlines()
    assert max(map(len, lines)) <= 88 and len(lines) <= 24
    assert all(line[12:14] == "  " and line[14] != " " for line in lines[1:])


def test_a_usual_report_is_short():
    report = nm.fit(easy(nm.Inverse()), tol=1e-4, progress=False).report
    assert len(str(report).splitlines()) < 15
    assert "\n" not in repr(report) and len(repr(report)) < 88


def test_a_report_tells_what_it_knows():
    report = long_report()
    assert str(report).startswith("Eigh(rank=4) of 64 x 64 matrices")
    assert row(report, "map") == ["75 pieces of at most 24 terms (Pieces)"]
    assert row(report, "exact solves") == ["4,096, 4,096 collocation points; 1 s in all"]
    tolerance = row(report, "tolerance")
    assert tolerance[0] == "0.001, not met" and tolerance[-1] == "and 7 more"
    residual = ["up to 0.002, median 0.0001 at 1,000 fresh parameters", "failure probability 0.1 (estimate)"]
    assert row(report, "residual") == residual
    assert row(report, "events")[::3] == ["avoided crossing of 0 and 1 at 0, 0, 0, 0", "and 4 more"]
    assert row(report, "stopped") == [str(StopReason.BUDGET)]
    assert row(report, "samples") == [report.samples]
    assert row(report, "what to do") == ["raise the budget or the tolerance"]


class Cells(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


def test_a_report_in_a_notebook_is_a_plain_table_with_row_headers():
    report = long_report()
    report.advice = "a < b & c"
    cells = Cells(report._repr_html_())
    assert {tag for tag, _ in cells.tags} == {"table", "caption", "tbody", "tr", "th", "td", "br"}
    assert all(own == ({"scope": "row"} if tag == "th" else {}) for tag, own in cells.tags)  # the page's own colours
    assert cells.texts[0] == report.problem and "a < b & c" in cells.texts


def test_a_surrogate_in_a_notebook_tells_its_shapes_and_its_report():
    surrogate = random_surrogate(nm.Inverse(), 3, 3, torch.complex64)
    texts = Cells(surrogate._repr_html_()).texts
    assert repr(surrogate) in texts and "one, of 3 terms (Random)" in texts


# When a map pays


def costs(solve, evaluation, **known):
    return nm.Report("Pieces", {}, 3, 0, seconds=1.0, solve_seconds=solve, evaluation_seconds=evaluation, **known)


def test_a_map_pays_from_the_number_at_which_fit_and_evaluations_are_faster():
    report = costs(2**-8, 2**-9)
    assert report.break_even == 512
    said = "pays from 512 parameters on at best: exact 3.91 ms each, map 1.95 ms"
    assert row(report, "break-even") == [said]


def test_a_map_that_takes_longer_than_exact_solves_never_pays():
    report = costs(1.2e-6, 3e-6)
    assert report.break_even == math.inf
    assert row(report, "break-even") == ["never pays: an exact solve takes 1.2 us, an evaluation 3 us"]


def test_a_grid_with_fewer_points_than_a_map_pays_for_is_solved():
    said = ["never pays: the 511 points are solved exactly in 2 s"]
    assert row(costs(2**-8, 2**-9, points=511), "break-even") == said
    assert row(costs(2**-8, 2**-9, points=512), "break-even")[0].startswith("pays from 512")


def test_without_an_exact_solve_there_is_nothing_to_compare_with():
    report = nm.fit(easy(nm.Inverse()), rank=3, budget=0, progress=False).report
    assert math.isnan(report.break_even) and "break-even" not in str(report)


@pytest.mark.parametrize("many", [1, 3])
def test_times_are_those_of_one_solve_and_one_evaluation(many, monkeypatch):
    """On a clock that goes on by a second whenever it is looked at."""
    monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)
    report = nm.fit_many([easy(nm.Inverse(), seed=i) for i in range(many)], rank=3, progress=False)[0].report
    assert report.solve_seconds == 1 / (many * report.exact_solves)
    assert 0 < report.evaluation_seconds <= 1e-3
    assert report.break_even == math.ceil(report.seconds / (report.solve_seconds - report.evaluation_seconds))


# Warnings


def heard(problem, **settings):
    """The one warning of a fit, and its report."""
    with pytest.warns(nm.FitWarning) as caught:
        report = nm.fit(problem, progress=False, **settings).report
    (warning,) = caught
    message = str(warning.message)
    assert warning.filename == __file__  # the caller's line
    assert len(message) <= 300 and report.advice and message.endswith(report.advice)
    return message, report


def diagonal(*entries, lower=0.0, upper=1.0, **axes):
    """The inverse of a diagonal matrix of functions of p (B, d), each giving (B,)."""
    return nm.Problem(
        nm.ParametricMatrix(
            lambda p: torch.diag_embed(torch.stack([entry(p) for entry in entries], dim=1)),
            lower, upper, dtype=DOUBLE, **axes,
        ),
        nm.Inverse(),
    )  # fmt: skip


def place(message, name="p"):
    return float(re.search(rf"usual size near {name} = (-?[\d.e+-]+)", message)[1])


@pytest.mark.parametrize("pole", [0.3137, 0.3137 + 1e-3j, 0.9 + 1e-2j])
def test_a_pole_is_named_where_a_rank_fails(pole):
    def fn(p):
        z = p[:, 0] - pole.real
        return torch.stack([z, torch.full_like(z, -pole.imag), torch.full_like(z, pole.imag), z], 1).view(-1, 2, 2)

    family = nm.ParametricMatrix(fn, -1.0, 2.0, names=["f"], units=["GHz"], dtype=DOUBLE)
    message, _ = heard(nm.Problem(family, nm.Inverse()), rank=4)
    assert place(message, "f") == pytest.approx(pole.real, abs=1e-4)
    assert ("GHz, as at a pole" if pole.imag == 0 else "GHz, as near a pole") in message
    assert "give a tolerance" in message


@pytest.mark.parametrize("seed", range(8))
def test_rounding_of_what_is_large_at_an_end_makes_no_pole(seed):
    """Rational functions through noise have poles where it is, not where X is large."""
    x = torch.cos(torch.linspace(0, math.pi, 64, dtype=DOUBLE))[:, None]
    rows = torch.exp(-2.5 * x) * torch.tensor([[1.0, 0.3, -0.4]])
    noise = torch.randn(rows.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    problem = diagonal(lambda p: 1 + p[:, 0])
    task = SimpleNamespace(problem=problem, box=problem.family.box.parameters, note=(notes := []).append)
    advice.note_pole(task, x, [rows + 1e-4 * noise])
    assert len(notes) == 1 and "pole" not in notes[0]
    assert place(notes[0]) == pytest.approx(float(problem.family.lower), abs=0.01)


def test_a_pole_is_named_on_a_logarithmic_axis():
    problem = diagonal(lambda p: p[:, 0] - 0.02, lambda p: 1 + p[:, 0], lower=1e-3, scale="log")
    assert place(heard(problem, rank=2)[0]) == pytest.approx(0.02, rel=1e-4)


@pytest.mark.parametrize("budget", [None, 5000])
def test_poles_along_a_curve_are_named_at_one_place_of_it(budget):
    """A larger budget than a fit in pieces takes is no remedy, and not named."""
    problem = diagonal(lambda p: p[:, 0] - p[:, 1] - 0.2, lower=[0.0, 0.0], upper=[2.0, 3.0])
    message, _ = heard(problem, tol=1e-3, budget=budget)
    x, y = map(float, re.search(r"near p1 = ([\d.e-]+), p2 = ([\d.e-]+), as near a pole", message).groups())
    assert abs(x - y - 0.2) < 0.05 and "leave that place out of the box" in message


def test_a_rank_that_is_too_small_is_told_with_its_worst_place():
    problem = nm.Problem(nm.families.trigonometric(16, dtype=DOUBLE), nm.Inverse())
    message, report = heard(problem, rank=2)
    last = report.rounds[-1]
    assert f"the map of rank 2 has residuals up to {last.residual_max:.2g}: the largest at p = " in message
    assert "pole" not in message and "or raise it" in message


def test_a_jump_is_named():
    problem = diagonal(lambda p: torch.where(p[:, 0] > 0.3371, 2.0, 1.0))
    message, _ = heard(problem, tol=1e-3)
    assert "X jumps at p = 0.3371" in message and "end the box there" in message


def test_decades_on_a_linear_axis_are_named():
    message, _ = heard(diagonal(lambda p: 1e-5 + p[:, 0], lambda p: 1 + p[:, 0], lower=1e-6, upper=1e2), rank=2)
    assert "p spans 8 decades and is sampled uniformly, scale='log'" in message


@pytest.mark.parametrize(
    ("operation", "remedy"), [(nm.Inverse(), "nm.PseudoInverse"), (nm.Solve(), "check the family")], ids=str
)
@pytest.mark.parametrize("settings", [{"rank": 1}, {"tol": 1e-3}], ids=str)
def test_a_problem_that_is_singular_everywhere_is_told(operation, remedy, settings):
    family = singular_where(lambda p: p > -1).family
    if isinstance(operation, nm.Solve):
        family = nm.families.beside(family, torch.ones(2, 1, dtype=DOUBLE))
    message, report = heard(nm.Problem(family, operation), **settings)
    assert "every exact sol" in message and remedy in message
    assert report.stop_reason is StopReason.SINGULAR


def test_a_place_where_the_exact_solution_fails_is_named():
    problem = singular_where(lambda p: (p > 0.6) & (p < 0.7))
    message, report = heard(problem, rank=2)
    (found,) = re.findall(r"the exact solution fails at p = ([\d.]+)", message)
    assert 0.6 < float(found) < 0.7 and report.singular


def test_points_that_are_solved_exactly_sooner_are_told(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)
    p = torch.linspace(0, 1, 16, dtype=DOUBLE)
    A = torch.eye(2, dtype=DOUBLE) * (2 + torch.rand(16, 1, 1, dtype=DOUBLE, generator=generator()))
    message, report = heard(nm.Problem(nm.families.from_samples(p, A), nm.Inverse()), tol=1e-6, budget=9)
    seconds = 16 * report.solve_seconds
    assert f"these 16 points are solved exactly in {seconds:.3g} s: no map pays" in message
    assert "never pays: the 16 points" in str(report)


@pytest.mark.parametrize("settings", [{"tol": 1e-9, "budget": 64}, {"rank": 1}], ids=str)
def test_a_warning_is_short_in_boxes_with_many_long_names(settings):
    fn = nm.families.trigonometric(4, 3, 3.0, dimension=6, dtype=DOUBLE).fn
    names = [f"a name that a careful person gave to axis {i} of six" for i in range(6)]
    family = nm.ParametricMatrix(fn, [0.0] * 6, [1.0] * 6, names=names, dtype=DOUBLE)
    heard(nm.Problem(family, nm.Inverse()), **settings)


@pytest.mark.parametrize("settings", [{"rank": 6}, {"tol": 1e-4}], ids=str)
def test_a_good_fit_does_not_warn(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nm.fit(easy(nm.Inverse()), progress=False, **settings).report.advice == ""


# Pictures


@pytest.fixture
def drawn():
    """Axes that are closed again."""
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    yield pyplot.subplots()[1]
    pyplot.close("all")


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def curve(ax, label):
    (line,) = [line for line in ax.get_lines() if line.get_label() == label]
    return line.get_data()


def waves(**box):
    family = nm.ParametricMatrix(
        lambda p: torch.diag_embed(2 + torch.sin(p * torch.tensor([1.0, 2.0, 5.0]))), 1e-2, 10.0, dtype=DOUBLE, **box
    )
    return nm.Problem(family, nm.Inverse())


def test_a_plot_of_one_parameter_shows_residuals_errors_pieces_and_nodes(drawn):
    problem = waves(names=["k"], units=["1/m"], scale="log")
    surrogate = nm.fit(problem, tol=1e-8, progress=False)
    assert surrogate.plot(problem, points=50, exact=True, ax=drawn) is drawn
    assert (drawn.get_xlabel(), drawn.get_ylabel()) == ("k [1/m]", "relative residual and error")
    assert (drawn.get_xscale(), drawn.get_yscale()) == ("log", "log")
    assert set(legend(drawn)) == {"residual", "error", "tolerance 1e-08", "nodes"}
    x, residual = curve(drawn, "residual")
    p = torch.from_numpy(x)[:, None]
    assert len(x) == 50
    np.testing.assert_allclose(residual, problem.residual(p, surrogate(p)).clamp(min=1e-17), rtol=1e-3, atol=1e-14)
    np.testing.assert_allclose(curve(drawn, "error")[1], problem.error(p, surrogate(p)), rtol=1e-3, atol=1e-14)
    pieces = surrogate.pieces
    assert len(pieces) > 1 and len(drawn.patches) == len(pieces) // 2
    assert curve(drawn, "nodes")[0].tolist() == pieces[0].nodes[0]


def test_a_plot_without_the_problem_shows_the_size_of_the_result(drawn):
    surrogate = nm.fit(waves(), tol=1e-3, progress=False)
    surrogate.plot(ax=drawn)
    assert drawn.get_ylabel() == "norm of X" and "tolerance 0.001" not in legend(drawn)
    x, y = curve(drawn, "norm of X")
    np.testing.assert_allclose(y, torch.linalg.matrix_norm(surrogate(torch.from_numpy(x))))


def test_a_plot_names_events_and_places_that_are_not_met(drawn):
    surrogate = in_pieces(lambda x: torch.eye(3, dtype=DOUBLE) * (2 + x[:, :, None]))
    surrogate.report.events = [nm.Event("crossing", (0, 1), [0.25], 0.0)]
    surrogate.report.unmet = [nm.Unmet([0.5], [0.75], "why")]
    surrogate.plot(ax=drawn)
    assert [text.get_text() for text in drawn.texts] == ["crossing of 0 and 1"] and "not met" in legend(drawn)
    assert [line.get_xdata()[0] for line in drawn.get_lines() if line.get_linestyle() == "--"] == [0.25]


@pytest.mark.parametrize("width", [0.25, 1e-7, 1e-12, np.spacing(0.5)])
def test_the_ends_of_a_narrow_box_are_told_apart(width):
    low, high = re.match(r"\[(.*), (.*)\]: why", str(nm.Unmet([0.5], [0.5 + width], "why"))).groups()
    assert float(low) == 0.5 and float(high) - float(low) == pytest.approx(width, rel=0.1)


def test_a_plot_of_two_parameters_shows_each_piece_and_its_nodes(drawn):
    surrogate = in_pieces(lambda x: torch.eye(3, dtype=DOUBLE) * (2 + x.sum(dim=1)[:, None, None]), d=2)
    surrogate.plot(points=100, ax=drawn)
    found = sorted((*p.get_xy(), p.get_width(), p.get_height()) for p in drawn.patches)
    low, high = (np.array([getattr(piece, end) for piece in surrogate.pieces]) for end in ("lower", "upper"))
    np.testing.assert_allclose(found, sorted(np.hstack([low, high - low]).tolist()))
    assert sum(len(line.get_xdata()) for line in drawn.get_lines()) == sum(p.terms for p in surrogate.pieces)
    assert (drawn.get_xlabel(), drawn.get_ylabel()) == ("p1", "p2")


def test_a_plot_leaves_out_what_is_not_defined(drawn):
    surrogate = in_pieces(lambda x: torch.eye(3, dtype=DOUBLE) * (2 + x.sum(dim=1)[:, None, None]), d=2)

    def fn(p):
        A = torch.eye(3, dtype=DOUBLE) / (2 + p.sum(dim=1)[:, None, None])
        return torch.where((p[:, 0] > 0.5)[:, None, None], torch.nan, A)

    surrogate.plot(nm.Problem(nm.ParametricMatrix(fn, [-1.0] * 2, [1.0] * 2, dtype=DOUBLE), nm.Inverse()), ax=drawn)
    (shades,) = drawn.collections
    assert np.ma.getmaskarray(shades.get_array()).mean() == 0.25
    drawn.figure.canvas.draw()


def test_a_plot_of_more_parameters_shows_the_terms_of_each_piece(drawn):
    surrogate = in_pieces(lambda x: torch.eye(3, dtype=DOUBLE) * (2 + x.sum(dim=1)[:, None, None]), d=3)
    surrogate.plot(ax=drawn)
    assert [bar.get_height() for bar in drawn.patches] == [piece.terms for piece in surrogate.pieces]


def test_a_plot_of_a_report_shows_the_residuals_of_its_rounds(drawn):
    report = long_report()
    report.rounds = [nm.Round(residual_median=0.1 / k, residual_max=1 / k, exact_solves=10 * k) for k in (1, 2, 3)]
    assert report.plot(drawn) is drawn and drawn.get_xlabel() == "exact solves"
    x, y = curve(drawn, "residual, largest")
    assert x.tolist() == [10, 20, 30] and y.tolist() == [1, 1 / 2, 1 / 3] and "tolerance 0.001" in legend(drawn)


def test_a_plot_makes_its_own_axes(drawn):
    ax = nm.fit(easy(nm.Inverse()), rank=3, progress=False).plot(easy(nm.Inverse()), points=5)
    assert ax is not drawn and ax.get_title() == "one map of 3 terms"


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"exact": True}, ["`problem`", "nm.Problem", "None"]), ({"points": 1}, ["`points`", "at least 2", "1"])],
    ids=str,
)
def test_a_plot_refuses(settings, words):
    surrogate = random_surrogate(nm.Inverse(), 3, 3, DOUBLE)
    assert_raises(ValueError, words, lambda: surrogate.plot(**settings))


def test_a_report_without_rounds_cannot_be_plotted():
    assert_raises(ValueError, ["`report`", "rounds", "none"], lambda: nm.Report("Pieces", {}, 3, 0).plot())


def test_without_matplotlib_a_plot_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    surrogate = random_surrogate(nm.Inverse(), 3, 3, DOUBLE)
    for plot in (surrogate.plot, long_report().plot):
        assert_raises(ImportError, ["matplotlib", "pip install matplotlib"], plot)


@pytest.mark.parametrize("settings", [{"tol": 1e-3}, {"rank": 3}], ids=str)
def test_where_the_operation_exists_in_part_of_the_box_the_remedy_is_that_part(settings):
    """Where it does not exist, `certify` has no exact solution either."""
    family = nm.ParametricMatrix(lambda p: torch.diag_embed(torch.cat([p - 0.5, 1 + 0 * p], 1)), 0.0, 1.0)
    problem = nm.Problem(family, nm.Cholesky())
    with pytest.warns(nm.FitWarning, match="restrict the box to where A is Hermitian positive definite$") as caught:
        surrogate = nm.fit(problem, progress=False, **settings)
    assert "certify" not in str(caught[0].message) and bool(nm.certify(surrogate, problem, [0.2]).failed)
    smaller = nm.ParametricMatrix(family.fn, 0.6, 1.0)  # the remedy works
    assert nm.fit(nm.Problem(smaller, nm.Cholesky()), tol=1e-3, progress=False).report.met
    with pytest.raises(ValueError, match="restrict the box to where A is Hermitian positive definite"):
        nm.peers.chebyshev(problem, 8)


INDEFINITE = torch.diag(torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize(
    ("operation", "needs"),
    [
        (nm.Eigh(), "A is Hermitian, B, if any, positive definite"),
        (nm.Cholesky(), "A is Hermitian positive definite"),
        (nm.LMMSE(INDEFINITE), "the covariance is Hermitian positive definite"),
        (nm.Eigh(B=INDEFINITE), "B, if any, positive definite"),
    ],
    ids=str,
)
def test_where_every_exact_solution_fails_the_warning_says_what_the_operation_needs(operation, needs):
    family = nm.ParametricMatrix(lambda p: torch.tensor([[1.0, 2.0], [0.0, 1.0]]) + p[:, :, None], 0.0, 1.0)
    with pytest.warns(nm.FitWarning, match=f"exists only where .*{needs}.*: check the family") as caught:
        nm.fit(nm.Problem(family, operation), tol=1e-3, progress=False)
    assert len(str(caught[0].message)) <= 300


@pytest.mark.parametrize("name", ["noise", "jumps", "grows without bound"])
def test_advice_does_not_come_from_the_names_of_axes(name):
    def advised(label):
        family = nm.families.trigonometric(size=4, shift=1.0)
        named = nm.ParametricMatrix(lambda p: family(40 * p), 0.0, 0.025, names=[label])
        with pytest.warns(nm.FitWarning):
            return nm.fit(nm.Problem(named, nm.Inverse()), tol=1e-12, budget=6, progress=False).report.advice

    assert advised(name) == advised("eta")
