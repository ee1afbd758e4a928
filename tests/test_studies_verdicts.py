"""What chapters say in words is asserted of their records: a record in which it is false stops the page."""

import copy
import math

import pytest

from studies import (
    anisotropic,
    problems,
    provenance,
    several_parameters,
    synthetic_pages,
    training_search,
    wireless_inversion,
)


def changed(numbers, path, value):
    """Return numbers with another value at a place."""
    found = copy.deepcopy(numbers)
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return found


def without_times(numbers):
    """Return numbers with NaN in the place of all ratios of times."""
    if isinstance(numbers, dict):
        return {key: without_times(value) for key, value in numbers.items()}
    if not isinstance(numbers, list):
        return numbers
    triple = len(numbers) == 3 and all(isinstance(x, float) for x in numbers)
    return [math.nan] * 3 if triple else [without_times(value) for value in numbers]


@pytest.fixture(scope="module", params=["cdl_a", "cdl_c"])
def timed(request):
    """The published times of a channel, beside inversion by exact methods."""
    return provenance.load("wireless_inversion_timings").numbers[request.param]


def test_the_times_of_the_wireless_chapter_are_as_it_says(timed):
    wireless_inversion.check_times(timed)


def test_times_that_were_refused_refute_nothing(timed):
    wireless_inversion.check_times(without_times(timed))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("training_in_inversions",), 3000.0),
        (("break_even", "torch, Cholesky"), [900.0, 1000.0, 1100.0]),
        (("break_even", "closed form"), [900.0, 1000.0, 1100.0]),
        (("faster", "cubic interpolation, with its fit"), [0.001, 0.002, 0.003]),
        (("faster", "torch, Cholesky"), [0.001, 0.002, 0.003]),
        (("over", "NumPy batched"), [1.0, 1.1, 1.2]),
        (("closed_break_even", "NumPy loop"), [9e5, 9e5, 9e5]),
        (("cubic_break_even", "NumPy loop"), [2000.0, 2000.0, 2000.0]),
        (("closed_fit_in_inversions",), [9e4, 9e4, 9e4]),
    ],
)
def test_a_time_that_refutes_the_wireless_chapter_stops_it(timed, path, value):
    with pytest.raises(AssertionError):
        wireless_inversion.check_times(changed(timed, path, value))


def harder(settings="as above", channel="cdl_a", **values):
    """The published record of harder channels, with other values in one row."""
    record = provenance.load("wireless_inversion_study")
    record.numbers["rank"] = 24
    for h in record.numbers["harder"]:
        if (h["channel"], h["settings"]) == (channel, settings):
            h.update(values)
    return record


def test_harder_channels_are_as_the_chapter_says():
    wireless_inversion.check_harder(harder())


@pytest.mark.parametrize(
    ("settings", "channel", "values"),
    [
        ("delay spread 100 ns", "cdl_a", {"rank_for_1e-2": 30}),
        ("delay spread 100 ns", "cdl_c", {"rank_for_1e-2": 24}),
        ("noise 0.001", "cdl_c", {"rate_lost_least": 0.5}),
        ("all users in one direction", "cdl_a", {"rate": 30.0}),
    ],
)
def test_a_harder_channel_that_refutes_the_chapter_stops_it(settings, channel, values):
    with pytest.raises(AssertionError):
        wireless_inversion.check_harder(harder(settings, channel, **values))


@pytest.fixture(scope="module")
def uneven():
    """The published numbers of fits to a tolerance on problems that differ along their axes."""
    return provenance.load("several_parameters_study").numbers["anisotropic"]


def test_fits_to_a_tolerance_are_as_the_chapter_says(uneven):
    anisotropic.check_sizes(uneven)


@pytest.mark.parametrize(
    ("case", "method", "key", "value"),
    [
        ("thermal_random", anisotropic.TANGENTS, "solves", 90),
        ("thermal_constant", anisotropic.GLOBAL, "solves", 500),
        ("green_0.5", anisotropic.WAVES, "solves", 890),
        ("green_0.2", anisotropic.WAVES, "solves", 1000),
        ("green_0.5", anisotropic.RADIAL, "error", 1e-2),
        ("slot_3", anisotropic.STRETCHED, "solves", 180),
        ("slot_3", anisotropic.GLOBAL, "solves", 100),
        ("green_0.2", anisotropic.GLOBAL, "solves", 2600),
        ("green_0.5", anisotropic.GLOBAL, "failing", 0.005),
        ("slot_120", anisotropic.GLOBAL, "failing", 0.1),
        ("waves", anisotropic.FEWEST, "solves", 400),
    ],
)
def test_a_fit_to_a_tolerance_that_refutes_the_chapter_stops_it(uneven, case, method, key, value):
    with pytest.raises(AssertionError):
        anisotropic.check_sizes(changed(uneven, (case, "rows", method, key), value))


def thermal(uneven, **others):
    """The published numbers of a thermal block, with a plain basis that has as many solves as it needs."""
    case = copy.deepcopy(uneven["thermal_random"]) | {"span": 27}
    case["rows"][anisotropic.REDUCED] |= {"solves": 28, "terms": 27, "error": 5e-15, "failing": 0.0} | others
    return case


def test_reduced_bases_that_hold_all_solutions_are_exact(uneven):
    anisotropic.check_thermal(thermal(uneven))


@pytest.mark.parametrize("others", [{"error": 1e-6}, {"failing": 0.01}, {"terms": 26}], ids=str)
def test_a_reduced_basis_that_misses_solutions_stops_the_chapter(uneven, others):
    with pytest.raises(AssertionError):
        anisotropic.check_thermal(thermal(uneven, **others))


def test_a_record_without_the_dimension_of_the_solutions_says_what_to_run(uneven):
    case = thermal(uneven)
    del case["span"]
    with pytest.raises(AssertionError, match="make run CHAPTER=several_parameters PROFILE=study"):
        anisotropic.check_thermal(case)


def curves(**others):
    """Errors against 45 and 90 exact solves."""
    found = {
        "limit of the rank": [1e-3, 1e-5],
        "closed form": [1.1e-3, 1.1e-5],
        "best in the span of the snapshots": [2e-3, 5e-5],
        "closed form, least squares in the span": [3e-3, 6e-5],
        "residual projection": [3e-3, 6e-5],
        "radial functions, tuned": [4e-3, 7e-5],
        "closed form, snapshots alone": [6e-3, 9e-5],
        "Chebyshev, tensor grid": [7e-3, 9e-5],
    } | {name.replace("_", " "): errors for name, errors in others.items()}
    numbers = {"by_solves": {name: {"solves": [45, 90], "errors": errors} for name, errors in found.items()}}
    return provenance.Record("x", profile="cpu", device="cpu", seed=0, numbers=numbers)


def test_curves_are_as_the_figure_is_described():
    several_parameters.check_curves(curves())


@pytest.mark.parametrize(
    "others",
    [
        {"closed_form": [1.1e-3, 2e-5]},
        {"closed_form": [1.0e-3, 1.4e-5], "best_in_the_span_of_the_snapshots": [2.9e-3, 1e-5]},
        {"residual_projection": [1e-3, 6e-5]},
        {"residual_projection": [8e-3, 6e-5]},
    ],
)
def test_curves_that_the_description_does_not_fit_stop_the_page(others):
    with pytest.raises(AssertionError):
        several_parameters.check_curves(curves(**others))


@pytest.fixture
def search():
    """The published search for settings of gradient training."""
    return provenance.load("training_search")


def test_the_search_is_as_its_chapter_says(search):
    training_search.check(search)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("trigonometric", "batch", 16), ("trigonometric", "error", 1e-3), ("cdl_c", "width", 32), ("cdl_c", "layers", 4)],
)
def test_a_search_that_refutes_its_chapter_stops_it(search, name, key, value):
    training_search.winner(search, name)[key] = value
    with pytest.raises(AssertionError):
        training_search.check(search)


@pytest.fixture
def synthetic():
    """The published record of synthetic experiments."""
    return provenance.load("synthetic_experiments")


def test_synthetic_experiments_are_as_the_chapter_says(synthetic):
    synthetic_pages.check(synthetic)


@pytest.mark.parametrize(
    ("part", "kind", "values"),
    [
        ("difficulty", "poles", {"error": 0.1}),
        ("difficulty", "oscillating", {"limit": 1e-2}),
        ("ablation", "smooth", {"error": 1e-4}),
        ("training_svd", "smooth", {"limit": 1.0}),
        ("dimension", "poles", {"met": True}),
        ("cycles", "oscillating", {"solves": 100}),
    ],
)
def test_synthetic_experiments_that_refute_the_chapter_stop_it(synthetic, part, kind, values):
    for row in synthetic_pages.of(synthetic.numbers[part], kind):
        row.update(values)
    with pytest.raises(AssertionError):
        synthetic_pages.check(synthetic)


def test_a_thermal_block_projected_once_is_exact_and_its_times_are_told_where_they_were_taken():
    case = problems.thermal_block("constant")
    once = anisotropic.projected(case.problem, 27)
    error = case.problem.error(case.parameters[:20], once(case.parameters[:20]))
    assert float(error.max()) < 1e-6, "all temperatures lie in a space of 27 dimensions"
    bare = {"thermal_constant": {"rows": {}}}
    assert anisotropic.thermal_times(bare) == "How long its values take was not timed."
    times = {name: [0.1 * k] * 3 for k, name in enumerate(anisotropic.TIMED, 1)}
    told = {"over exact": times, "conditions": {"refused": "busy", "date": "2026-11-29"}}
    timed = {"thermal_constant": {"rows": {anisotropic.ONCE: {"error": 1e-9}}, "times": told}}
    said = anisotropic.thermal_times(timed)
    assert "reduced basis takes 0.1; of one that is projected once, at an error of 1e-09, 0.2; of the sparse" in said
