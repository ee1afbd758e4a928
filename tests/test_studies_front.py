"""Page one agrees with the records; the glossary has the words of the book, and the book uses those of the glossary."""

import copy
import math
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest

from studies import anisotropic, figures, front, provenance, texts

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (ROOT / "book").glob("*.md") if path.stem != "glossary"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Words of the chapters that a reader of another field does not know, or knows in another sense.
TECHNICAL = """AAA, Adam, adjoint, alignment, analytic, avoided crossing, band, batched, Bernstein ellipse, bound, box,
branch point, break-even, Brillouin zone, budget, CDL, certificate, CGLS, Chebyshev nodes, Cholesky, closed form,
collocation point, condition number, conical intersection, crossing, defect, delay spread, downlink, Eckart-Young
limit, embedding, equaliser, estimate, event, exact solve, face, factor, failure probability, failure-informed
sampling, family, Fejér, fit, Fourier extension, Frobenius norm, gauge, Gram matrix, greedy, held, Hermitian, hidden
layer, Hölder continuous, importance sampling, kink, knot, Kolmogorov width, LAPACK, latent tensor, leave-one-out,
Lebesgue constant, Lipschitz continuous, LMMSE, map in pieces, met, minibatch, mode-3 product, Newton step, node, NumPy
loop, operation, parallel transport, pass, peer, pencil, piece, POD, polar factor, pole, problem, Procrustes, profile,
projector, quadrature weights, quartiles, rank, rational function, real rank, record, reduced basis, residual, resource
block, reused memory, rounding, RZF, seam, sine network, Sionna, slice, slot, snapshot, Sobol, sparse grid, spectral
radius, spline, stream, stretching, strongest exact method, subcarrier, subspace, successive halving, sum rate,
surrogate, swing, tensor grid, term, thermal block, tolerance, total degree, trained, trigonometric family, unfolding,
unitary, covariance, cyclic prefix, draw, drop, omnidirectional, pilot, positive definite, symbol, tone"""
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


def row(found, start, changes=""):
    """The row of the table whose situation begins so, and which changes so."""
    return next(x for x in front.decisions(found) if x.situation.startswith(f"[{start}") and changes in x.changes)


SPLINE = {"solves": 90, "error": 2e-5, "Cholesky: after": [9.0, 9.5, 9.9]}


def with_spline(found, counted, pays=700.0):
    """Records in which a spline was timed for inverses of 32 x 32, slow ones, so many times as fast as Cholesky."""
    changed = copy.deepcopy(found)
    for x in front.timed(changed):
        x.pop("interpolation", None)
    (x,) = (x for x in changed["speed"]["inverse"] if x["name"] == "inverse 32 x 32, 30 ns")
    own = SPLINE | {"Cholesky: with the fit": list(counted), "Cholesky: pays": [pays] * 3}
    x["interpolation"] = {"cubic spline": own}
    x["Cholesky: with the fit"] = [0.7, 0.8, 0.9]
    return changed


def test_the_map_is_picked_where_its_quartiles_are_above_one_with_the_fit_counted(found):
    changed = copy.deepcopy(found)
    rows = [x for x in changed["speed"]["svd"] if " 30 ns" in x["name"]]
    for ratio, pick, speed in (
        ((1.2, 1.5, 1.6), "**The map in pieces**", "1.5 times as fast as eigenvectors of the Gram matrix"),
        ((0.4, 0.5, 0.9), "**Eigenvectors of the Gram matrix**", "2.0 times as fast as the map in pieces"),
        (
            (0.9, 1.1, 1.2),
            "**The map in pieces or eigenvectors",
            "1.1 times as fast as eigenvectors of the Gram matrix",
        ),
    ):
        for x in rows:
            x["Gram: with the fit"] = list(ratio)
            x.pop("interpolation", None)
        decision = row(changed, "Four leading", "3 swings")
        assert decision.pick.startswith(pick)
        assert decision.speed == f"{speed}; no spline of that tolerance was timed"


def test_a_spline_is_picked_where_it_is_the_fastest_and_the_cell_has_the_map_too(found):
    decision = row(with_spline(found, [2.0, 2.2, 2.4]), "Inverses, 32 x 32", "3 swings")
    assert decision.pick == "**A cubic spline** through 90 exact results"
    assert (
        decision.speed
        == "2.2 (2.0 to 2.4) times as fast as batched Cholesky; the map in pieces: 0.8 (0.7 to 0.9) times"
    )
    assert decision.error == "2e-05 (tolerance 1e-04)" and decision.pays.endswith("spline 700")


def test_an_exact_method_is_picked_where_it_beats_both(found):
    decision = row(with_spline(found, [0.5, 0.5, 0.5]), "Inverses, 32 x 32", "3 swings")
    assert decision.pick == "**Batched Cholesky**" and decision.error.startswith("rounding")
    assert decision.speed == "1.2 times as fast as the map in pieces; 2.0 times as fast as a cubic spline"


def test_what_was_not_timed_or_misses_the_tolerance_of_the_map_is_no_pick(found):
    (x,) = (x for x in with_spline(found, [2.0, 2.2, 2.4])["speed"]["inverse"] if "interpolation" in x)
    (way,) = front.peers(x)
    assert (way.name, way.solves, way.counted, way.pays) == (front.SPLINE, 90, [2.0, 2.2, 2.4], 700.0)
    x["interpolation"]["cubic spline"]["error"] = 2 * x["tol"]
    assert front.peers(x) == [] and front.spline(x) is None
    x["interpolation"]["cubic spline"] |= {"error": 2e-5, "Cholesky: with the fit": [float("nan")] * 3}
    assert front.peers(x) == []


def test_a_rival_of_a_higher_median_that_decides_nothing_is_named_beside_the_pick(found):
    """One bad quartile makes no other way the faster one."""
    changed = with_spline(found, [0.7, 1.9, 1.95])
    (x,) = (x for x in changed["speed"]["inverse"] if "interpolation" in x)
    x["Cholesky: with the fit"] = [1.5, 1.6, 1.7]
    decision = row(changed, "Inverses, 32 x 32", "3 swings")
    start = "Not decided: the time of a cubic spline varied too much."
    assert decision.pick == f"{start} Of what was timed steadily: **The map in pieces**"
    assert decision.speed == (
        "1.6 (1.5 to 1.7) times as fast as batched Cholesky; a cubic spline: 1.9 (0.7 to 1.9) times"
    )
    x["interpolation"]["cubic spline"]["Cholesky: with the fit"] = [0.7, 1.5, 1.95]
    assert row(changed, "Inverses, 32 x 32", "3 swings").pick == "**The map in pieces**"


def test_a_quartile_that_is_shown_as_one_decides_nothing(found):
    decision = row(with_spline(found, [1.01, 1.3, 1.5]), "Inverses, 32 x 32", "3 swings")
    assert decision.pick == "**A cubic spline** through 90 exact results or **batched Cholesky**"


def test_a_rival_that_is_asked_for_a_tolerance_is_picked_without_a_number(found):
    changed = with_spline(found, [1.1, 1.2, 1.3])
    (x,) = (x for x in changed["speed"]["inverse"] if "interpolation" in x)
    x["interpolation"]["piecewise Chebyshev"] = SPLINE | {
        "Cholesky: with the fit": [1.9, 2.0, 2.1],
        "Cholesky: pays": [600.0] * 3,
    }
    decision = row(changed, "Inverses, 32 x 32", "3 swings")
    assert decision.pick == "**Chebyshev interpolation in pieces**"
    assert decision.speed.startswith("2.0 (1.9 to 2.1) times as fast as batched Cholesky; the map in pieces: ")


def test_synthetic_families_have_rows_of_their_own(found):
    poles = row(found, "Inverses, 32 x 32, poles")
    assert "splines err by 0." in poles.pick and re.search(
        r"\*\*AAA\*\* \(`nm.peers.aaa`; error at most \de-\d\d through", poles.pick
    )
    assert "after the fit; " in poles.speed and poles.speed.endswith("times with it, in those passes")
    assert poles.pays.startswith("map ")
    assert "Chebyshev" in row(found, "Inverses, 64 x 64 to 512 x 512").pick
    for peer, error, said in (("spline", 1e-3, "beside poles a spline"), ("aaa", 0.1, "beside poles AAA")):
        changed = copy.deepcopy(found)
        for x in changed["synthetic_experiments"]["difficulty"]:
            x["peers"][peer] = error
        with pytest.raises(ValueError, match=said):
            front.numbers(changed)


@pytest.mark.parametrize(
    ("pays", "later"),
    [
        ((100.0, 200.0), " From 100 to 200 on, by extrapolation: **the map in pieces**"),
        ((100.0, math.nan), " From 100 on, by extrapolation: **the map in pieces**"),
        ((100.0, math.inf), " From 100 on in 1 of 2 problems, by extrapolation: **the map in pieces**"),
        ((math.inf, math.inf), ""),
        ((math.nan, math.nan), ""),
    ],
)
def test_a_pick_that_is_extrapolated_says_so(found, pays, later):
    """For a pass of 3,276 matrices, of which 400 were timed."""
    changed = copy.deepcopy(found)
    rows = [x for x in changed["synthetic_timings"]["difficulty"] if x["kind"] in front.POLES]
    for x, paid in zip(rows, pays, strict=True):
        x.pop(front.synthetic_experiments.ONCE, None)
        x["strongest exact"] |= {"pays": [paid] * 3, "with the fit": [0.6, 0.7, 0.8]}
    timed, _, extrapolated = row(changed, "Inverses, 32 x 32, poles").pick.partition(".")
    assert timed == "In passes of 400 matrices, as timed: **solve exactly**"
    assert extrapolated.startswith(later) and bool(extrapolated) == bool(later)
    rows[0]["strongest exact"]["with the fit"] = [1.1, 1.2, 1.3]
    assert ", but for near poles (the map wins)" in row(changed, "Inverses, 32 x 32, poles").pick


def test_a_row_whose_rival_was_refused_is_not_decided(found):
    changed = with_spline(found, [math.nan] * 3)
    decision = row(changed, "Inverses, 32 x 32", "3 swings")
    start = "Not decided: the time of a cubic spline varied too much."
    assert decision.pick == f"{start} Of what was timed steadily: **Batched Cholesky**"
    (x,) = (x for x in changed["speed"]["inverse"] if "interpolation" in x)
    slow = {"Cholesky: after": [0.7, 0.8, 0.9]}
    for other in ({"error": 2 * x["tol"]}, slow):
        own = SPLINE | {
            key: x["interpolation"]["cubic spline"][key] for key in ("Cholesky: with the fit", "Cholesky: pays")
        }
        x["interpolation"]["cubic spline"] = own | other
        assert row(changed, "Inverses, 32 x 32", "3 swings").pick == "**Batched Cholesky**"


def with_both(found, counted, name="inverse 32 x 32, 30 ns"):
    """Records in which a cubic and a linear spline were timed for one problem, so many times as fast as Cholesky."""
    changed = with_spline(found, counted[0])
    (donor,) = (x for x in changed["speed"]["inverse"] if "interpolation" in x)
    linear = donor["interpolation"]["cubic spline"] | {
        "solves": 400,
        "error": 9e-5,
        "Cholesky: with the fit": counted[1],
    }
    ways = donor.pop("interpolation") | {"linear spline": linear}
    (x,) = (x for x in front.timed(changed) if x["name"] == name)
    x["interpolation"], x["Cholesky: with the fit"] = ways, [0.7, 0.8, 0.9]
    return changed


def test_linear_interpolation_is_a_rival_like_the_cubic_spline(found):
    changed = with_both(found, ([1.9, 2.0, 2.1], [3.9, 4.0, 4.1]))
    decision = row(changed, "Inverses, 32 x 32", "3 swings")
    assert decision.pick == "**Linear interpolation** through 400 exact results"
    assert decision.speed.startswith("4.0 (3.9 to 4.1) times as fast as batched Cholesky; the map in pieces: ")
    assert decision.error.startswith("9e-05 ") and decision.pays.endswith("spline 700")
    assert front.splines(changed).startswith("for one pass it is 4.0 times as fast")
    changed = with_both(found, ([0.4, 0.5, 0.6], [0.7, 0.8, 0.9]))
    decision = row(changed, "Inverses, 32 x 32", "3 swings")
    assert decision.pick == "**Batched Cholesky**"
    assert decision.speed.endswith("; 2.0 times as fast as a cubic spline; 1.2 times as fast as linear interpolation")


def test_what_to_try_first_is_what_interpolates_fastest(found):
    quick, slow = [1.9, 2.0, 2.1], [0.9, 1.0, 1.1]
    assert front.first(found).endswith("for singular vectors a cubic spline through aligned ones")
    assert front.numbers(with_both(found, (quick, slow)))["first"] == "a cubic spline"
    assert front.numbers(with_both(found, (slow, slow)))["first"] == "exact solves"
    changed = with_both(found, (slow, quick), "LMMSE 64 x 8")
    assert front.numbers(changed)["first"] == "linear interpolation"
    changed["speed"]["inverse"] = with_both(found, (quick, slow))["speed"]["inverse"]
    words = "linear interpolation for a tolerance of 0.01, a cubic spline for a finer one"
    assert front.numbers(changed)["first"] == words
    assert row(changed, "Equalisers, 64 antennas, 8").pick == "**Linear interpolation** through 400 exact results"


def test_the_pick_of_a_row_says_from_where_it_pays(found):
    for own in front.decisions(found)[:7]:
        for name in ("Chebyshev interpolation", "Chebyshev interpolation in pieces"):
            assert (f"**{name}**" in own.pick) <= (f"{name.replace(' interpolation', '')} " in own.pays)


def test_of_several_problems_that_which_is_not_decided_is_named(found):
    changed = with_both(found, ([1.9, 2.0, 2.1], [math.nan] * 3), "inverse 64 x 64, 30 ns")
    said = row(changed, "Inverses, 64 x 64, 128 x 128").pick
    assert said.startswith(
        "Not decided for inverse 64 x 64, 30 ns: the time of linear interpolation varied too much. Of "
    )
    (x,) = (x for x in changed["speed"]["inverse"] if "interpolation" in x)
    x["interpolation"]["linear spline"]["Cholesky: after"] = [1.5, 1.6, 1.7]
    assert "Not decided" not in row(changed, "Inverses, 64 x 64, 128 x 128").pick, (
        "it is slower by its evaluation alone"
    )


def test_interpolation_in_pieces_is_counted_beside_the_map(found):
    own, exact = {"error": 1e-5}, {"a: after": [1.0] * 3, "a: with the fit": [1.0] * 3}
    rows = [
        exact
        | {"error": error}
        | {
            "interpolation": {
                "piecewise Chebyshev": own
                | {"with the fit": ratio, "after": ratio, "a: with the fit": [2 * x for x in ratio]}
            }
        }
        for error, ratio in ((2e-5, [0.4, 0.5, 0.6]), (3e-5, [1.4, 1.5, 1.6]), (4e-5, [math.nan] * 3))
    ]
    told = front.tolerant({"speed": {"svd": [{"error": 1}], "lmmse": rows, "inverse": []}})
    assert told == (
        "which for one pass is faster than the map in 1 of 2 problems; where it is faster its errors are 2.0 times "
        "smaller; in the other problems its errors are 3.0 times smaller; once fitted, the map is faster in 1 and "
        "slower in 1 of 2; beside the strongest exact method it is faster in 1 and about as fast in 1, 1.0 to 3.0 "
        "times as fast"
    )
    assert front.tolerant({"speed": {"svd": [], "lmmse": [], "inverse": []}}) == "which was not timed here"


def test_a_sum_of_few_fixed_matrices_has_a_row_of_its_own(found):
    way = {"solves": 12, "error": 2e-6, "time": [0.1, 0.2, 0.3], "pays": [28.0, 29.0, 30.0], "pays_sparse": [140.0] * 3}
    ways = dict.fromkeys(("this map", front.PROJECTED, "sparse solves"), way)
    own = {"shape": [171, 172], "tol": 1e-4, "ways": ways}
    shown = {"chapters": {"your_own_matrices": {"membrane": own}}}
    decision = front.few_fixed(shown)
    assert decision.pick.startswith("**A reduced basis**") and "171 unknowns" in decision.changes
    assert decision.pays.startswith("projected 29, beside sparse solves 140; map 29")
    assert "modes" not in decision.pick, "a record from before they were summed"
    own["ways"] = ways | {front.MODES: way | {"solves": 0, "error": 2e-13}}
    said = front.few_fixed(shown).pick
    added = "; with proportional damping, as here, the modes of stiffness and mass, which are exact"
    assert said == decision.pick + added
    assert row(found, "Solves, matrices that are a sum")


def test_the_pick_for_few_fixed_matrices_is_in_the_order_of_the_record():
    time = {"time": [0.1, 0.2, 0.3], "pays_sparse": [140.0] * 3}
    once = time | {"solves": 12, "error": 2e-6, "pays": [28.0, 29.0, 30.0]}
    aaa = {
        "solves": 23,
        "error": 8e-8,
        "time": [0.01, 0.02, 0.03],
        "pays": [24.0, 25.0, 26.0],
        "pays_sparse": [150.0] * 3,
    }
    ways = {"this map": once, front.PROJECTED: once, front.AAA: aaa, "sparse solves": once}
    shown = {"chapters": {"your_own_matrices": {"membrane": {"shape": [171, 172], "tol": 1e-4, "ways": ways}}}}
    said = front.few_fixed(shown)
    assert said.pick.startswith("**AAA**, or **a reduced basis**, the fixed matrices projected once (AAA has a smaller")
    assert said.pays.startswith("AAA 25, beside sparse solves 150; projected 29") and said.pays.endswith("; of one run")
    assert "has a smaller error, a cheaper value and an earlier break-even than the map" in front.aaa_on_elements(shown)
    ways[front.AAA] = aaa | {"error": 1e-3, "pays": [15.0, 16.0, 22.0]}
    said = front.few_fixed(shown)
    assert said.pays.startswith("AAA below 23 (not settled)")
    assert "it pays below 23 values, and the clock settles no more, the map from 29" in front.aaa_on_elements(shown)
    ways[front.AAA] = aaa | {"error": 1e-3, "time": [1.0] * 3, "pays": [90.0] * 3}
    assert front.few_fixed(shown).pick.startswith(
        "**A reduced basis**, the fixed matrices projected once, or **AAA** (the"
    )
    ways[front.AAA] = aaa | dict.fromkeys(("time", "pays", "pays_sparse"), [math.nan] * 3)
    assert front.few_fixed(shown).pays.startswith("AAA not timed")
    assert front.aaa_on_elements(shown) == front.aaa_on_elements({"chapters": {}})


def test_page_one_reads_the_times_of_the_membrane_where_its_chapter_shows_them(found):
    shown = front.chapter("your_own_matrices")["membrane"]
    assert found["chapters"]["your_own_matrices"]["membrane"] == shown
    assert "your_own_matrices_timings" not in found, "two sources of one number"
    once = texts.settled_of(shown["ways"][front.PROJECTED], shown["ways"][front.SPARSE])
    if not math.isnan(once[1]):
        assert f"beside sparse solves {front.paid_short(once)}" in row(found, "Solves, matrices that").pays
        assert f"paid {front.from_where(once)}" in front.numbers(found)["reduced_basis"]


def test_a_break_even_that_the_clock_does_not_settle_is_shown_as_a_limit(found):
    """A fit cannot pay before as many matrices as it solves exactly; a lower quartile of zero is noise."""
    changed = with_spline(found, [2.0, 2.2, 2.4], pays=60.0)
    decision = row(changed, "Inverses, 32 x 32", "3 swings")
    assert decision.pays.endswith("spline below 90 (not settled)")
    assert front.numbers(changed)["spline_pays"] == "below 90 (not settled)"
    (x,) = (x for x in changed["speed"]["inverse"] if "interpolation" in x)
    x["interpolation"]["cubic spline"]["Cholesky: pays"] = [0.0, 95.0, 412.8]
    assert row(changed, "Inverses, 32 x 32", "3 swings").pays.endswith("spline below 420 (not settled)")
    x["Cholesky: pays"] = [10.0, 20.0, 30.0]
    assert row(changed, "Inverses, 32 x 32", "3 swings").pays.startswith(
        f"map below {texts.at_least(x['solves']):,.0f}"
    )


def test_no_break_even_on_page_one_is_below_the_solves_of_its_fit(found):
    for x in front.timed(found):
        for way in (front.in_pieces(x), *front.peers(x)):
            assert not way.pays < way.solves
    for part in ("size", "difficulty"):
        for x in found["synthetic_timings"][part]:
            assert not front.paying(front.synthetic_experiments.quickest(x)["pays"], x["solves"])[0] < x["solves"]
    passed = found["several_parameters_study"]["wireless"]
    assert min(ratio[1] for ratio in passed["break_even"].values()) > max(passed["solves"].values())


def test_what_is_enough_at_a_lost_rate_is_told_where_the_chapter_computed_it(found):
    steps = {"linear @ 96": {"solves": 35, "loss": 4e-3}, "linear @ 48": {"solves": 69, "loss": 3e-4}}
    steps["linear @ 24"] = {"solves": 137, "loss": 2e-5}
    band = {"task": front.EIGHT, "omni": True, "spread": front.SHORT, "steps": steps}
    band["ways"] = {front.BLOCKS: {"solves": 273, "loss": 2e-4}}
    over = {"linear @ 48": [0.13, 0.14, 0.17], front.HELD_AS_BLOCKS: [math.nan] * 3}
    shown = {"bands": [band], "ladder_times": {front.EIGHT: {"over": over}}}
    changed = found | {"chapters": found["chapters"] | {"wireless_inversion": shown}}
    said = row(changed, "Equalisers, 64 antennas, 8").speed
    assert (
        "0.001 of the rate may be lost at 10 dB over the array, linear through 69, 7.1 (5.9 to 7.7) times, or one held"
        in said
    )
    assert "for each resource block, 273, not timed ([Wireless inversion]" in said
    bare = found | {"chapters": found["chapters"] | {"wireless_inversion": {}}}
    assert "array" not in row(bare, "Equalisers, 64 antennas, 8").speed


def test_the_spline_once_made_is_the_faster_of_each_problem(found):
    changed = with_both(found, ([1.9, 2.0, 2.1], [3.9, 4.0, 4.1]))
    (x,) = (x for x in changed["speed"]["inverse"] if "interpolation" in x)
    x["interpolation"]["linear spline"]["Cholesky: after"] = [6.0, 7.0, 8.0]
    assert front.numbers(changed)["spline_after"] == "7.0", "that of the cubic one, 9.5, is of the slower spline"


def test_bands_of_equalisers_are_counted(found):
    ratio = {"Cholesky, every tone": [1.1, 1.2, 1.3], "one for each block": [0.1, 0.2, 0.3]}
    times = [{"over": ratio}, {"over": ratio | {"Cholesky, every tone": [0.4, 0.5, 0.6]}}]
    told = front.bands({"chapters": {"wireless_inversion": {"band_times": times}}})
    assert "on 1 of 2 bands (0.5 to 1.2 times as fast)" in told and "0.2 times as fast as one exact" in told
    times.append({"over": ratio | {"one for each block": [math.nan] * 3}})
    assert front.bands({"chapters": {"wireless_inversion": {"band_times": times}}}) == told
    assert front.bands({"chapters": {}}) == "were not timed"


def test_interpolated_precoders_name_what_they_lose_at_which_delay_spread(found):
    entry = {"faster": {"Gram matrix": {"aligned 48": [4.0, 5.0, 6.0]}}, "losses": {"aligned 48": 1e-7}}
    svd = {"A30": entry | {"streams": {"aligned 48": 2e-7}}, "C100": entry | {"streams": {"aligned 48": 8e-6}}}
    told = front.precoders({"chapters": {"beyond_the_inverse": {"svd": svd}}})
    assert told.startswith("is 5.0 times as fast") and "at most 2e-07 at 30 ns and 8e-06 at 100 ns of the rate" in told
    assert front.precoders({"chapters": {}}) == "was not timed here"


def test_the_pass_of_two_parameters_names_its_size_its_method_and_its_rivals(found):
    passed = found["several_parameters_study"]["wireless"]
    said = row(found, "Two or more").speed
    assert f"{passed['subcarriers'] * passed['levels']:,} equalisers, a map of fixed rank" in said
    assert "as long as a NumPy loop; it pays from" in said and "on beside eigendecompositions" in said


def test_the_limit_of_wrong_reports_is_that_of_the_new_families(found):
    changed, numbers = copy.deepcopy(found), front.numbers(found)
    every = next(x for x in changed["families"]["groups"] if x["kind"] == "all")
    every |= {"met": every["met"] + 999, "wrong": 5}
    assert front.numbers(changed)["wrong_limit"] == numbers["wrong_limit"]
    new = next(x for x in changed["families"]["new"]["groups"] if x["kind"] == "all")
    new |= {"wrong": new["wrong"] + 5}
    assert float(front.numbers(changed)["wrong_limit"]) > float(numbers["wrong_limit"])


def test_a_fit_of_three_parameters_is_counted_where_it_met_and_named_where_it_did_not(found):
    numbers = front.numbers(found)
    three = [x for x in found["synthetic_experiments"]["dimension"] if x["dimension"] == 3]
    met = [x["solves"] for x in three if x["met"]]
    assert numbers["three"] == f"{min(met)} to {max(met)}"
    assert int(numbers["three_unmet"]) == len(three) - len(met)
    changed = copy.deepcopy(found)
    next(x for x in changed["synthetic_experiments"]["dimension"] if x["dimension"] == 3 and x["met"])["met"] = False
    with pytest.raises(ValueError, match="poles and decades"):
        front.numbers(changed)


def test_a_reduced_basis_pays_where_the_chapter_timed_it(found):
    times = (("reduced basis", math.inf), (front.PROJECTED, 50.0))
    ways = {name: {"pays_sparse": [x] * 3, "solves": 12, "time": [0.05] * 3} for name, x in times}
    ways[front.SPARSE] = {"time": [0.3] * 3}
    changed = {"chapters": {"your_own_matrices": {"membrane": {"ways": ways}}}}
    said = "`nm.peers.reduced_basis` never paid where we timed it; what is projected once paid from 50 values on."
    assert front.basis(changed).endswith(f"{said.removesuffix('.')} (of one run).")
    # Twelve dense solves take as long as 60 sparse ones, less what the values take.
    ways[front.SPARSE]["time"] = [0.25] * 3
    assert "below 60 values, and the clock settles no more" in front.basis(changed)
    ways["reduced basis"]["pays_sparse"] = [math.nan] * 3
    assert front.basis(changed) == front.basis({"chapters": {}}) == "Beside sparse solves it was not timed."


def test_a_reduced_basis_of_several_parameters_is_told_where_it_was_timed(found):
    changed = copy.deepcopy(found)
    case = changed["several_parameters_study"]["anisotropic"]["thermal_constant"]
    case.pop("times", None)
    assert front.numbers(changed)["reduced_several"].endswith("its times are not.")
    case["times"] = {"over exact": {anisotropic.REDUCED: [0.7] * 3, anisotropic.ONCE: [0.1] * 3}}
    assert front.numbers(changed)["reduced_several"].startswith("With four parameters a value takes 0.7 times")


def test_on_a_gpu_inverses_are_beside_the_fastest_exact_method(found):
    changed = copy.deepcopy(found)
    for channel in ("cdl_a", "cdl_c"):
        times = changed["to_the_limit"][channel]["relative_time"]
        times |= {"closed form": 0.3, "Sionna, Cholesky": 0.1, "torch, Cholesky": 0.2}
    assert front.numbers(changed)["gpu_inverses"] == "3.0"


def test_on_a_gpu_orthonormal_vectors_have_a_number_of_their_own(found):
    changed = copy.deepcopy(found)
    for x in changed["beyond_the_inverse"]["svd"].values():
        x["faster"]["Gram matrix"]["map, orthonormal"] = 0.5
    assert front.numbers(changed)["gpu_orthonormal"] == "2.0"
    assert front.numbers(changed)["gpu_after"] == front.numbers(found)["gpu_after"]


def test_a_row_compares_with_the_strongest_exact_method(found):
    for x in front.timed(found):
        after, counted = front.ratios(x)
        methods = [key.removesuffix(": with the fit") for key in x if key.endswith(": with the fit")]
        assert counted[1] == min(x[f"{name}: with the fit"][1] for name in methods)
        assert after in [x[f"{name}: after"] for name in methods]


def test_a_record_with_its_own_break_even_is_believed(found):
    x = copy.deepcopy(front.timed(found)[0])
    x[f"{front.strongest(x)}: pays"] = [900.0, 1000.0, 1100.0]
    assert front.in_pieces(x).pays == 1000.0


def test_each_row_links_to_a_chapter_that_is_in_the_book(found):
    toc = (ROOT / "book" / "_toc.yml").read_text("utf-8")
    links = [re.search(r"\]\(\.\./(notebooks/\w+)\.ipynb\)", x.situation).group(1) for x in front.decisions(found)]
    assert [link for link in links if f"file: {link}\n" not in toc] == []


def test_errors_and_solves_of_a_map_are_those_of_the_record(found):
    changed = copy.deepcopy(found)
    rows = [x for x in changed["speed"]["svd"] if " 30 ns" in x["name"]]
    for x in rows:
        del x["interpolation"]
    decision = row(changed, "Four leading", "3 swings")
    assert decision.error.startswith(f"{max(x['error'] for x in rows):.0e} ")
    assert str(max(x["solves"] for x in rows)) in decision.changes


def test_on_a_gpu_no_break_even_is_made_of_medians(found):
    decision = row(found, "Singular vectors and equalisers, GPU")
    assert decision.pick.startswith("**Solve exactly**") and decision.pays.startswith("not recorded; once fitted")
    ratios = [x[0][1] for x in front.on_a_gpu(found).values()]
    assert f"takes {front.between(1 / x for x in ratios)} times as long as solving (" in decision.pays


def test_on_a_gpu_every_spline_counts_and_what_was_made_there_is_named(found):
    lmmse, svd = (found["beyond_the_inverse"][word].values() for word in ("lmmse", "svd"))
    splines = [x["faster"]["Cholesky"][f"solves and {name}"] for x in lmmse for name in ("cubic", "linear")]
    lines, held = (
        [x["faster"]["Gram matrix"][f"{way} {size}"] for x in svd for size in (24, 48)]
        for way in ("interpolated", "one for")
    )
    said = row(found, "Singular vectors and equalisers, GPU").speed
    assert f"; {front.between(1 / x for x in splines)} times as fast as SciPy's splines of equalisers" in said
    assert f"; {front.between(1 / x for x in lines)} times as fast as linear interpolation between bases" in said
    assert f"is {front.between(held)} times as fast as solving all" in said
    for word, exact, key, words in (
        ("lmmse", "Cholesky", "solves and linear", "SciPy's splines are slower"),
        ("svd", "Gram matrix", "interpolated 48", "linear interpolation is slower"),
    ):
        changed = copy.deepcopy(found)
        changed["beyond_the_inverse"][word]["A30"]["faster"][exact][key] = 2.0
        with pytest.raises(ValueError, match=words):
            front.numbers(changed)


def test_a_linear_spline_is_named_for_many_passes_where_it_wins_them_all(found):
    wins = [front.overtakes(*x) <= front.HUNDRED for x in front.both_splines(found)]
    assert ("take a linear spline" in front.numbers(found)["longer"]) == (bool(wins) and all(wins))


def test_passes_until_a_dearer_way_wins_are_those_of_the_sums():
    """The fits take two and half a pass of the exact method, a value a tenth and a fifth of one."""
    ways = {
        name: {"a: after": [1 / value] * 3, "a: with the fit": [1 / (fit + value)] * 3}
        for name, fit, value in (("quick", 2, 0.1), ("other", 0.5, 0.2))
    }
    problem = {"a: after": [1] * 3, "a: with the fit": [1] * 3, "interpolation": ways}
    assert front.overtakes(problem, "quick", "other") in (15, 16)
    assert front.overtakes(problem, "other", "quick") == math.inf


def test_the_table_says_what_swings_are_where_they_stand_first(found):
    cells = [cell for cells in front.table(found).rows for cell in cells if "swings" in cell]
    assert front.EXPLAINED in cells[0] and front.EXPLAINED not in "".join(cells[1:])


def test_a_certificate_that_is_faster_than_solving_stops_the_build(found):
    cost = {"solve": [0.8, 0.9, 1.0], "cholesky": [0.7, 0.8, 0.9]}
    chapters = found["chapters"] | {
        "beyond_the_inverse": found["chapters"]["beyond_the_inverse"] | {"certify_cost": cost}
    }
    with pytest.raises(ValueError, match="takes longer than Cholesky"):
        front.numbers(found | {"chapters": chapters})
    refused = {"solve": [math.nan] * 3, "cholesky": [math.nan] * 3}
    chapters["beyond_the_inverse"] = chapters["beyond_the_inverse"] | {"certify_cost": refused}
    assert front.numbers(found | {"chapters": chapters})["checking"] == "was not timed"


def test_several_parameters_have_a_row_with_a_lower_limit(found):
    fits = [x["multiple"] for x in found["cases"]["cases"] if x["name"].startswith(front.SEVERAL)]
    least, most = row(found, "Two or more").pays.removeprefix("not before ").split(" to ")
    assert float(least.replace(",", "")) == pytest.approx(min(fits), rel=0.05)
    assert float(most.replace(",", "")) == pytest.approx(max(fits), rel=0.05)


def test_a_slot_is_told_beside_solving_all_of_it(found):
    changed = copy.deepcopy(found)
    held = {"count": 45864, "lost, still": 1e-5, "still": [0.4, 0.5, 0.6], "both solves": 273, "lost, both": 2e-4}
    held["spread"] = 30e-9
    rows = [held | {"Cholesky": x} for x in ([2.0, 3.0, 4.0], [0.2, 0.5, 0.6], [0.9, 1.1, 1.2], [math.nan] * 3)]
    longer = {"Gram": [4.0, 5.0, 6.0], "lost, still": 3e-5, "lost, both": 0.1, "spread": 100e-9}
    changed["frequency_and_time"]["slot"] = [*rows, held | longer]
    told = front.slot(changed)
    assert (told["slot_wins"], told["slot_problems"], told["slot_ratios"]) == ("2", "5", "0.5 to 5.0")
    assert (told["slot_lost"], told["slot_held"]) == ("3e-05", "2.0")
    assert (told["slot_count"], told["slot_middle"]) == ("45,864", "3,276")
    assert (told["slot_blocks"], told["slot_blocks_lost"]) == ("273", "2e-04")
    assert "a map in pieces is 0.5 to 5.0 times as fast as solving all" in row(changed, "Two or more").speed
    changed["frequency_and_time"]["slot"] = rows[1:]
    with pytest.raises(ValueError, match="maps over a slot win some passes"):
        front.numbers(changed)


@pytest.mark.parametrize("noisy", [0, 1, 2])
def test_links_are_counted(found, noisy):
    nan, curve = [math.nan] * 3, {"channel": "C", "modulation": "QPSK", "csi": "perfect"}
    ends = ([0.1, 0.2, 0.3], [-0.1, 0.0, 0.1], nan)
    # The best of the ways counts: the others are worse everywhere.
    losses = [
        {"block": [0, 0, 0]} | dict.fromkeys(front.PER_BLOCK, nan) | {front.PER_BLOCK[i]: x} for i, x in enumerate(ends)
    ]
    curves = [curve | {"channel": str(i), "loss": loss} for i, loss in enumerate(losses)]
    curves += [curve | {"csi": "estimated", "channel": str(i), "loss": losses[1]} for i in range(noisy)]
    changed = found | {"link_level": {"curves": curves, "missing": ["0, QPSK, perfect", "D, QPSK, perfect"]}}
    some = f"{3 + noisy} of {4 + noisy} settings, {noisy or 'none'} of them with estimated channels"
    assert front.links(changed) == {"links": f"so far of {some}", "links_held": f"2 of {3 + noisy}"}
    changed["link_level"]["missing"] = []
    assert front.links(changed)["links"].startswith(f"of {3 + noisy} settings, ")


def test_the_pages_get_the_table_and_the_numbers(found):
    texts = front.substitutions()
    lines = texts["decisions"].splitlines()
    assert len(lines) == len(front.decisions(found)) + 2 and all(line.count(" | ") == 5 for line in lines)
    assert texts["front"] == front.numbers(found)
    assert "{{ decisions }}" in (ROOT / "book" / "intro.md").read_text("utf-8")


def test_the_table_is_short_and_every_row_has_all_cells(found):
    rows = front.table(found).rows
    assert len(rows) <= 12
    assert all(cell.strip() for cells in rows for cell in cells)


def test_the_cards_of_a_telephone_have_the_names_of_the_columns():
    css = (ROOT / "book" / "_static" / "style.css").read_text("utf-8")
    shown = re.findall(r"\.decisions td:nth-child\((\d)\)::before \{\s*content: \"(.*)\";", css)
    assert shown == [(str(i), name) for i, name in enumerate(front.HEADER, 1)]


# The sentences


def test_the_pages_name_no_number_that_is_not_there(found):
    there = set(front.numbers(found))
    sources = [*PAGES, ROOT / "book" / "registry.toml"]
    used = {name for path in sources for name in re.findall(r"\{\{ front\.(\w+) \}\}", path.read_text("utf-8"))}
    assert used <= there
    assert there - used <= {"located"}, "numbers that no page shows"


def test_a_record_that_refutes_a_sentence_stops_the_build(found):
    changed = copy.deepcopy(found)
    for entry in changed["beyond_the_inverse"]["svd"].values():
        entry["faster"]["Gram matrix"]["fit and map"] = 2.0
    with pytest.raises(ValueError, match="on a GPU the exact methods are faster"):
        front.numbers(changed)


def test_a_spline_that_is_slower_than_the_map_stops_the_build(found):
    with pytest.raises(ValueError, match="a spline is often faster"):
        front.numbers(with_spline(found, [0.4, 0.5, 0.6]))


def test_the_sentence_on_splines_has_every_one_that_was_timed(found):
    said = front.splines(with_spline(found, [2.0, 2.2, 2.4]))
    assert said.startswith("for one pass it is 2.2 times as fast as the strongest exact method in the one problem")
    assert said.endswith("the map in pieces is 0.8 times")
    bare = copy.deepcopy(found)
    for x in front.timed(bare):
        x.pop("interpolation", None)
    assert front.splines(bare) == "no spline was timed on this machine"


def test_a_spline_through_aligned_triplets_counts_as_one(found):
    changed, ratio = copy.deepcopy(found), [3.0, 3.1, 3.2]
    for x in changed["speed"]["svd"]:
        ways = {"solves": 40, "error": 1e-4, "Gram: with the fit": ratio, "Gram: pays": [500.0] * 3}
        x["interpolation"] = {"aligned spline": ways}
    decision = row(changed, "Four leading", "3 swings")
    assert decision.pick == "**A cubic spline** through 40 exact results"
    assert decision.speed.startswith("3.1 times as fast as eigenvectors of the Gram matrix; the map in pieces: ")


def test_the_answer_counts_wins_and_losses(found):
    numbers = front.numbers(found)
    counted = [front.ratios(x)[1] for word in ("inverse", "svd", "lmmse") for x in found["speed"][word]]
    shown = [[float(texts.times(x)) for x in ratio] for ratio in counted]
    assert int(numbers["wins"]) == sum(ratio[0] > 1 for ratio in shown)
    assert int(numbers["losses"]) == sum(ratio[2] < 1 for ratio in shown)


def test_costs_of_training_are_those_of_the_best_trial(found):
    trials = provenance.load("training_search").numbers["trials"]
    best = min((x for x in trials if x["family"] == "cdl_c"), key=lambda x: x["error"])
    numbers = front.numbers(found)
    assert numbers["trained_error"] == f"{best['error']:.0e}"
    assert float(numbers["trained_cost"].replace(",", "")) == pytest.approx(best["cost_in_inversions"], rel=0.05)


def test_the_figure_has_a_panel_for_each_machine_and_a_row_for_each_problem(found):
    drawn = front.figure(found)
    labels = [[text.get_text() for text in axes.get_yticklabels()] for axes in drawn.axes]
    sizes = [text.get_fontsize() for axes in drawn.axes for text in axes.get_yticklabels() + axes.get_xticklabels()]
    plt.close(drawn)
    assert [len(names) for names in labels] == [int(front.numbers(found)["problems"]), len(front.on_a_gpu(found))]
    assert all(len(set(names)) == len(names) for names in labels)
    assert min(sizes) >= figures.SMALLEST, "a telephone shows it smaller than 8 px"


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
    assert set(" ".join(TECHNICAL.split()).split(", ")) - set(terms) == set()


def test_links_to_terms_lead_to_the_glossary(terms, book):
    text = book + (ROOT / "book" / "glossary.md").read_text("utf-8")
    linked = re.findall(r"\{term\}`([^`]*)`", text)
    assert {re.sub(r".*<(.*)>", r"\1", link.replace("\n", " ")) for link in linked} <= set(terms)


# The arc of a chapter


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem in ARC], ids=lambda path: path.stem)
def test_a_chapter_opens_with_question_and_finding_and_closes_with_what_it_does_not_show(path):
    first, *rest = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"]
    opening = re.search(
        r"^\*\*The question\.\*\* .*?^\*\*The finding\.\*\* (.*?)\n\n(?!- )", first, re.DOTALL | re.MULTILINE
    )
    assert opening and "{glue:text}" in opening.group(1), "a finding comes from the record"
    assert [text for text in rest if text.startswith("## ")][-1].startswith("## What this chapter does not show\n")


def words(path):
    """Words of a chapter's text; a formula or a glued number is one."""
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "1", prose(path), flags=re.DOTALL)
    return len(re.sub(r"\{[\w:]+\}`[^`]*`", "1", text).split())


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem in ARC], ids=lambda path: path.stem)
def test_a_chapter_is_not_too_long(path):
    assert words(path) <= MOST_WORDS


@pytest.mark.parametrize("place", range(4))
def test_a_range_is_that_of_the_problems_with_a_time(found, place):
    """The smallest of numbers and NaN is either."""
    changed = copy.deepcopy(found)
    rows = front.timed(changed)
    rows[place]["over a copy"] = (math.nan,) * 3
    known = [row["over a copy"][1] for row in rows if not math.isnan(row["over a copy"][1])]
    assert front.numbers(changed)["copies"] == front.between([min(known), max(known)])


def test_where_the_map_wins_one_problem_and_a_spline_the_other_both_are_named(found):
    """Neither the exact method, which loses both."""
    decision = row(found, "Inverses, 64 x 64", "3 swings")
    rows = [x for x in found["speed"]["inverse"] if x["name"].startswith("inverse 64")]
    picks = [front.chosen([front.in_pieces(x), *front.peers(x)]) for x in rows]
    names = {pick if isinstance(pick, str) else pick.name for pick in picks}
    assert ("Cholesky" in decision.pick) == bool(names & {front.SLOWER, front.EVEN})
    for name in names - {front.SLOWER, front.EVEN}:
        assert name.removeprefix("a ").removeprefix("the ") in decision.pick
