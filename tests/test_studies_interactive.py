"""Interactive figures: what the browser computes from their data is what the library says."""

import copy
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import neumatc as nm
from studies import interactive, provenance
from studies.texts import measured, two_digits

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def shown():
    return {name: interactive.figure(name) for name in interactive.FIGURES}


@pytest.mark.parametrize("name", interactive.FIGURES)
def test_data_are_small_and_have_a_table(shown, name):
    text = json.dumps(shown[name].data, separators=(",", ":"), allow_nan=False)
    assert len(text) < 300_000
    head, *rows = shown[name].table
    assert rows
    assert {len(row) for row in rows} == {len(head)}


def test_the_page_and_the_script_have_every_figure():
    page = (ROOT / "book" / "interactive.md").read_text("utf-8")
    script = (ROOT / "book" / "_static" / "interactive.js").read_text("utf-8")
    for name in interactive.FIGURES:
        assert f"{{interactive}} {name}\n:name: {interactive.PREFIX}{name}\n" in page
        assert f'"{name}": draw' in script or f" {name}: draw" in script
    assert "http" not in script.replace("http://www.w3.org/2000/svg", "")


def test_the_slider_holds_a_matrix_its_inverse_and_the_map(shown):
    data = {key: np.array(value) for key, value in shown["slider"].data.items()}
    n = int(data["size"])
    A, X = data["A"].reshape(-1, n, n), data["X"].reshape(-1, n, n)
    assert np.abs(A @ X - np.eye(n)).max() < 5e-3  # four digits of A
    approximate = (data["phi"] @ data["core"]).reshape(X.shape)
    errors = np.linalg.norm(approximate - X, axis=(1, 2)) / np.linalg.norm(X, axis=(1, 2))
    assert f"{errors.max():.1e}" == shown["slider"].table[-1][1]


def test_limits_are_those_of_the_singular_values():
    X = torch.randn(12, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = interactive.limits(X, 3, 4)
    best = 0.0
    for part in X.view(3, 4, 4):
        U, S, Vh = torch.linalg.svd(part)
        best += float((part - S[0] * torch.outer(U[:, 0], Vh[0])).square().sum())
    assert float(found[0]) == pytest.approx((best / float(X.square().sum())) ** 0.5)
    assert float(found[3]) < 1e-12


def test_more_pieces_and_more_terms_are_never_worse(shown):
    limits = np.array(shown["pieces"].data["limits"])
    assert (np.diff(limits, axis=0) <= 0).all()
    assert (np.diff(limits, axis=1) <= 0).all()


def test_fits_do_not_beat_the_limit_of_as_many_pieces(shown):
    """Equal pieces are not the best ones, so more of them are allowed here than the fit has."""
    data = shown["pieces"].data
    for fit in data["fits"]:
        assert fit["error"] < fit["tol"]
        assert fit["error"] > data["limits"][data["pieces"].index(16)][min(fit["terms"], interactive.RANKS) - 1]


def test_break_even_says_what_its_lines_say(shown):
    """Lines of medians meet where the record says, which has the median and quartiles of every round's break-even."""
    record, table = interactive.costs(), iter(shown["break-even"].table[1:])
    for name, problem in zip(interactive.PROBLEMS, shown["break-even"].data["problems"]):
        for prefix, entry in zip(interactive.MAPS, problem["maps"]):
            title, label, *texts = next(table)
            assert (title, label) == (problem["title"], entry["name"])
            for exact, text in zip(problem["exact"], texts, strict=True):
                low, median, high = measured(record.numbers[name][f"{prefix}break_even"][exact["name"]])
                assert text == (f"{two_digits(median):,.0f}" if median < math.inf else "never")
                saved = exact["each"] - entry["each"]
                meet = entry["fit"] / saved if saved > 0 else math.inf
                # Medians of ratios need not meet at that median; where a record kept medians alone, they do.
                assert 0.9 * low <= meet <= 1.1 * high
                assert low < high or meet == median == math.inf or meet == pytest.approx(median, rel=1e-9)


@pytest.mark.parametrize("where", ["fit", "map", "exact"])
def test_a_run_with_a_refused_time_gives_way_to_the_published_one(monkeypatch, where):
    """JSON has no NaN, and the figure no line for it."""
    published = provenance.load("to_the_limit")
    assert interactive.timed(published)
    run = dataclasses.replace(published, numbers=copy.deepcopy(published.numbers))
    assert interactive.timed(run)
    numbers = run.numbers["cdl_c"]
    if where == "fit":
        numbers["closed_fit_in_inversions"] = [math.nan] * 3
    else:
        numbers["relative_time"]["closed form" if where == "map" else interactive.EXACT[1]] = [math.nan] * 3
    monkeypatch.setattr(interactive.provenance, "load", lambda chapter, profile=None: run if profile else published)
    assert interactive.costs() is published
    json.dumps(interactive.break_even().data, allow_nan=False)


@pytest.mark.parametrize("gap", interactive.GAPS)
def test_values_of_the_track_are_known(gap):
    family = interactive.avoided(gap)
    p = torch.tensor([0.0, 0.3, 0.5, 0.9], dtype=torch.float64)
    root = torch.sqrt((p - 0.5) ** 2 + gap**2 / 4)
    expected = torch.stack([2 + root, 2 - root, torch.full_like(p, 0.5)], 1)
    assert torch.allclose(torch.linalg.svdvals(family(p)), expected, atol=1e-12)


def test_the_track_follows_the_values(shown):
    for case in shown["track"].data["cases"]:
        assert np.allclose(case["values"], np.sort(case["followed"], axis=0)[::-1], atol=1e-3)


def test_the_vector_of_the_map_has_no_jump_where_the_values_avoid_each_other(shown):
    case = next(case for case in shown["track"].data["cases"] if case["gap"] == 0.2)
    assert np.abs(np.diff(case["vector"])).max() < 0.1
    assert np.abs(np.diff(case["returned"])).max() > 0.5


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="slider"):
        interactive.figure("spiral")


def test_rounding_keeps_significant_digits():
    assert interactive.rounded(torch.tensor([123456.0, 1.23456e-7], dtype=torch.float64)) == [123500.0, 1.235e-07]


def test_terms_of_a_map_are_what_it_gives_for_unit_tensors():
    surrogate = nm.fit(nm.Problem(nm.families.trigonometric(4, seed=0), nm.Inverse()), rank=5, seed=0, progress=False)
    (factor,) = surrogate.maps
    p = torch.linspace(0, 1, 7)
    phi = factor.with_(core=torch.eye(5))(2 * p[:, None] - 1)
    assert torch.allclose((phi @ factor.core.flatten(1)).view(-1, 4, 4), surrogate(p), atol=1e-5)
