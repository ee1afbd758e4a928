"""What chapters say in words is asserted of their records: a record in which it is false stops the page."""

import copy
import math

import numpy as np
import pytest
import scipy.linalg

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


# What *When to use this* says of one fixed matrix, or two


def upwinded(n=32, diffusion=1e-2):
    """Convection and diffusion in one dimension, upwind differences: real eigenvalues, and vectors far from normal."""
    h = 1 / (n + 1)
    A = (2 * diffusion / h**2 + 1 / h) * np.eye(n) - diffusion / h**2 * np.eye(n, k=1)
    return A - (diffusion / h**2 + 1 / h) * np.eye(n, k=-1)


def test_of_a_matrix_far_from_normal_eigenvectors_lose_digits_and_schur_vectors_do_not():
    A, one = upwinded(), np.eye(32)
    values, V = np.linalg.eig(A)
    T, Z = scipy.linalg.schur(A, output="complex")
    for p in (1.0, 10.0):
        exact = np.linalg.inv(A + p * one)
        assert np.linalg.cond(A + p * one) < 50, "the equation is harmless"
        by_vectors = (V / (values + p)) @ np.linalg.inv(V)
        by_schur = Z @ scipy.linalg.solve_triangular(T + p * one, Z.conj().T)
        lost, kept = (np.linalg.norm(found - exact) / np.linalg.norm(exact) for found in (by_vectors, by_schur))
        assert lost > 1e-10 and kept < 1e-13


def test_the_definite_one_of_two_fixed_matrices_has_to_be_well_conditioned():
    n, rng = 60, np.random.default_rng(0)
    x = np.linspace(0, 1, n)
    A_0 = np.exp(-((x[:, None] - x) ** 2) / 0.02) + 1e-10 * np.eye(n)
    A_1, b = np.diag(1 + x), rng.normal(size=n)
    w, V = scipy.linalg.eigh(A_1, A_0)
    own, W = scipy.linalg.eigh(A_0, A_1)
    for p in (1.0, 10.0):
        A = A_0 + p * A_1
        assert np.linalg.cond(A) < 50, "the equation is harmless"
        exact = scipy.linalg.cho_solve(scipy.linalg.cho_factor(A), b)
        lost, kept = (
            np.linalg.norm(found - exact) / np.linalg.norm(exact)
            for found in (V @ (V.T @ b / (1 + p * w)), W @ (W.T @ b / (own + p)))
        )
        assert lost > 1e-8 and kept < 1e-13


def test_the_real_form_of_two_real_matrices_is_not_triangular():
    n, rng = 20, np.random.default_rng(0)
    A_0, A_1, b = rng.normal(size=(n, n)), rng.normal(size=(n, n)), rng.normal(size=n)
    exact = np.linalg.solve(A_0 + 0.3 * A_1, b)
    errors = {}
    for form in ("real", "complex"):
        S, T, Q, Z = scipy.linalg.qz(A_0, A_1, output=form)
        found = Z @ scipy.linalg.solve_triangular(S + 0.3 * T, Q.conj().T @ b)
        errors[form] = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert errors["real"] > 0.1 and errors["complex"] < 1e-14 * np.linalg.cond(A_0 + 0.3 * A_1) * 10


def test_two_fixed_matrices_are_decomposed_once():
    rng = np.random.default_rng(0)
    n, b = 24, rng.normal(size=24)
    (A_0, A_1), one = (M @ M.T / n for M in rng.normal(size=(2, n, n))), np.eye(n)
    A_0 = A_0 + one
    w, V = scipy.linalg.eigh(A_1, A_0)  # V^T A_0 V = I and V^T A_1 V = diag(w)
    B_0, B_1 = upwinded(n) + one, rng.normal(size=(n, n))
    S, T, Q, Z = scipy.linalg.qz(B_0, B_1, output="complex")  # B_0 = Q S Z^H and B_1 = Q T Z^H
    for p in (0.1, 1.0, 7.0):
        exact = np.linalg.solve(A_0 + p * A_1, b)
        np.testing.assert_allclose(V @ (V.T @ b / (1 + p * w)), exact, rtol=0, atol=1e-13 * np.linalg.norm(exact))
        exact = np.linalg.solve(B_0 + p * B_1, b)
        found = Z @ scipy.linalg.solve_triangular(S + p * T, Q.conj().T @ b)
        rounding = 1e-14 * np.linalg.cond(B_0 + p * B_1)
        np.testing.assert_allclose(found, exact, rtol=0, atol=rounding * np.linalg.norm(exact))
