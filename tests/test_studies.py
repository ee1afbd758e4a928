"""Studies of the chapters: each is documented and called, notebooks stay thin, and what has an oracle meets it."""

import ast
import math
import re
from collections import Counter
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

import neumatc as nm
from studies import continuity, low_rankness, provenance, several_parameters

ROOT = Path(__file__).parents[1]
STUDIES = sorted((ROOT / "book" / "studies").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@cache
def code(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def functions(path):
    """Public functions and classes of a module, and the methods of these."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_is_documented(path):
    assert [node.name for node in functions(path) if not ast.get_docstring(node)] == []


@pytest.fixture(scope="module")
def uses():
    """How often each word stands in the studies, the tests and the notebooks."""
    files = [*STUDIES, *Path(__file__).parent.glob("*.py")]
    texts = [*(file.read_text("utf-8") for file in files), *(s for n in NOTEBOOKS for s in code(n))]
    return Counter(word for text in texts for word in re.findall(r"\w+", text))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_is_called(path, uses):
    assert [node.name for node in functions(path) if uses[node.name] < 2] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short(path):
    """What is longer belongs into a study."""
    assert [source for source in code(path) if len(source.splitlines()) > 30] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_prose_of_a_chapter_is_short(path):
    """What is longer is split, or moves to an appendix."""
    prose = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert len(" ".join(prose).split()) <= 4000


@pytest.mark.parametrize(
    "chapter",
    [
        *("architecture", "beyond_the_inverse", "several_parameters", "to_the_limit", "training_search"),
        *("link_level", "scaling_out", "wireless_precoding"),
    ],
)
def test_a_chapter_opens_with_its_question_and_closes_with_what_it_does_not_show(chapter):
    cells = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4).cells
    first, *rest = [cell.source for cell in cells if cell.cell_type == "markdown"]
    question, finding = (re.search(rf"^\*\*The {word}\.\*\*", first, re.MULTILINE) for word in ("question", "finding"))
    assert question and finding and question.start() < finding.start()
    assert "{glue:text}" in first[finding.start() :], "a finding comes from the record"
    assert any(re.search(r"^## What this (chapter|page) does not show$", text, re.MULTILINE) for text in rest)


def test_limits_are_weighted_singular_values():
    generator = torch.Generator().manual_seed(0)
    X, w = torch.randn(9, 4, 3, generator=generator, dtype=torch.float64), torch.rand(9, generator=generator).double()
    values = np.linalg.svd(((w * 9).sqrt()[:, None] * X.flatten(1)).numpy(), compute_uv=False)
    expected = np.sqrt([np.sum(values[r:] ** 2) for r in range(1, 10)]) / np.linalg.norm(values)
    np.testing.assert_allclose(low_rankness.limits(X, w).numpy(), expected, atol=1e-7)


def test_a_polynomial_needs_its_own_terms():
    family = nm.families.trigonometric(size=4, dtype=torch.float64)
    x, _, w = low_rankness.nodes(family, 33)
    errors = low_rankness.polynomial_errors(1 + x + 3 * x**4, x, w)
    assert errors[3] > 0.1
    assert errors[4] < 1e-13


def test_the_eigenvalues_lie_on_the_ellipse():
    delta = 0.3
    M = -low_rankness.cyclic(12, delta, device="cpu")(torch.zeros(1, 1, dtype=torch.float64))[0]
    values = torch.linalg.eigvals(M)
    rho = delta + math.sqrt(1 + delta**2)
    distance = (values.real / ((rho + 1 / rho) / 2)) ** 2 + (values.imag / ((rho - 1 / rho) / 2)) ** 2
    torch.testing.assert_close(distance, torch.ones_like(distance))


def test_berry_phase_is_minus_half_the_solid_angle():
    turns = 2 * math.pi * torch.arange(720, dtype=torch.float64) / 720
    polar = math.radians(60)
    loop = torch.stack([math.sin(polar) * turns.cos(), math.sin(polar) * turns.sin()], dim=1)
    loop = torch.cat([loop, torch.full_like(loop[:, :1], math.cos(polar))], dim=1)
    phase = continuity.berry_phase(continuity.Cones(0, "cpu").sphere(), loop)
    expected = -math.pi * (1 - math.cos(polar))
    assert abs(math.remainder(phase - expected, 2 * math.pi)) < 1e-4


# Eigenvalues of both signs; of each choice of two, those chosen.
VALUES = (-2.0, -1.1, -0.3, 0.5, 0.8, 2.5)
CHOICES = {
    "largest": ({}, (-2.0, 2.5)),
    "smallest": ({"which": "smallest"}, (-0.3, 0.5)),
    "lowest": ({"which": "lowest"}, (-2.0, -1.1)),
    "highest": ({"which": "highest"}, (0.8, 2.5)),
    "near": ({"near": -1.4}, (-2.0, -1.1)),
}


def hermitian(values, seed=0):
    """A Hermitian matrix with these eigenvalues."""
    generator = torch.Generator().manual_seed(seed)
    Z = torch.randn(len(values), len(values), dtype=torch.complex128, generator=generator)
    U = torch.linalg.qr(Z)[0]
    A = (U * torch.tensor(values, dtype=torch.float64)) @ U.mH
    return (A + A.mH) / 2


@pytest.mark.parametrize("choice", CHOICES)
def test_the_constant_of_chosen_eigenpairs_is_attained_for_every_choice(choice):
    """max(1, |s| / |s - t|), s chosen and t not, as the chapter on the gauge proves it."""
    settings, chosen = CHOICES[choice]
    others = [t for t in VALUES if t not in chosen]
    c = max(1.0, *(abs(s) / abs(s - t) for s in chosen for t in others))
    F = continuity.invariant(nm.Eigh(2, **settings))
    assert float(continuity.steepness(F, hermitian(VALUES), hermitian=True)) == pytest.approx(c, rel=1e-6)


def test_the_constant_of_the_table_is_that_of_the_values_of_largest_modulus():
    """Where the last that is kept and the first that is left have the same sign; else it is less."""
    *_, c = continuity.CONSTANTS["`Eigh(k)`: $V \\Lambda V^H$"]
    F = continuity.invariant(nm.Eigh(continuity.RANK))
    for last, attained in ((1.9, True), (-1.9, False)):
        values = (2.5, last, 1.5, 0.5, 0.2)
        limit = float(c(torch.tensor(values, dtype=torch.float64).abs()))
        share = float(continuity.steepness(F, hermitian(values), hermitian=True)) / limit
        assert share == pytest.approx(1, rel=1e-6) if attained else share < 0.9


def test_coloured_noise_has_the_constant_of_its_smallest_eigenvalue():
    """One over it, times R^{-1/2} on both sides; two of the three matrices come near it."""
    R = hermitian((0.1, 0.4, 1.0, 2.0))
    generator, shares = torch.Generator().manual_seed(1), []
    least = float(torch.linalg.eigvalsh(R)[0])
    for gain in (0.0, 0.02, 1.0):
        H = torch.randn(4, 3, dtype=torch.complex128, generator=generator) * gain

        def exact(A):
            return torch.linalg.solve(A @ A.mH + R, A).mH

        shares.append(float(continuity.steepness(exact, H, hermitian=False)) * least)
    assert max(shares) < 1 + 1e-6 and min(shares[:2]) > 0.95
    problem = nm.Problem(nm.ParametricMatrix(lambda p: p[:, :, None] * H, 0.5, 1.5, dtype=torch.float64), nm.LMMSE(R))
    one = problem.exact(torch.ones(1, 1, dtype=torch.float64)).value[0]
    torch.testing.assert_close(one, exact(H[None])[0])


@pytest.mark.parametrize("gap", [0.0, 0.25])
def test_the_least_gap_is_where_it_was_planted(gap):
    family = continuity.Cones(0, "cpu").line(gap, where=0.4)
    S = torch.linalg.svdvals(family(torch.tensor([[0.3], [0.4], [0.5]], dtype=torch.float64)))
    gaps = S[:, 0] - S[:, 1]
    assert abs(gaps[1] - gap) < 1e-12
    assert gaps[1] < gaps[[0, 2]].min()


def test_a_batch_by_numpy_is_judged_where_it_was_timed_and_told_from_elsewhere_where_not():
    own, limit = [0.5] * 3, {"NumPy batched": [0.6] * 3, "SciPy batched": [1.0] * 3}
    fixed = [{"d": d, "time": own, "over_batched": [0.4] * 3} for d in (2, 3)]
    elsewhere = provenance.Record("to_the_limit", "cpu", "cpu", 0, numbers={"cdl_c": {"relative_time": limit}})
    said = several_parameters.beside_batched(fixed, elsewhere)
    assert "NumPy's was not timed here" in said and "map of two and three parameters would gain little" in said
    timed = [f | {"over_numpy": x} for f, x in zip(fixed, ([0.5, 0.6, 0.7], [0.8, 1.1, 1.2]))]
    said = several_parameters.beside_batched(timed, elsewhere)
    assert said.endswith(
        "NumPy's it is faster with two (0.6 (0.5 to 0.7) times), about as fast with three (1.1 (0.8 to 1.2) times)."
    )


def test_solves_between_two_rungs():
    entry = {"climbed": [{"error": 1e-1, "solves": 10}, {"error": 1e-3, "solves": 40}]}
    assert several_parameters.interpolated(entry, 1e-2) == pytest.approx(20)
    assert several_parameters.interpolated(entry, 1e-4) == math.inf
    assert several_parameters.reached(entry, 1e-2) == entry["climbed"][1]


@pytest.mark.parametrize(
    ("saved", "extra", "price"), [(10, 100.0, 10.0), (10, -300.0, 0.0), (0, -300.0, 0.0), (0, 100.0, math.inf)]
)
def test_the_price_of_a_solve_from_which_on_a_build_pays(saved, extra, price):
    assert several_parameters.price(saved, extra) == price


def contest(stretched):
    """A contest of two rivals at two parameters: the one that is quickest and asks for the most is timed, or not."""
    names = {several_parameters.CLOSED: 10, "tensor": 20, "stretched": 15}
    climbed = {name: [{"solves": n // 2, "error": 1.0}, {"solves": n, "error": 5e-3}] for name, n in names.items()}
    races = [
        {
            "d": 2,
            "goal": 1e-2,
            "build": {several_parameters.CLOSED: [9.0] * 3, "tensor": [3.0] * 3, "stretched": [stretched] * 3},
            "over": {"tensor": [3.0] * 3, "stretched": [9 / stretched] * 3},
            "price": {"tensor": [50.0] * 3, "stretched": [120 * stretched] * 3},
        },
        {"d": 2, "goal": 1e-3, "build": {}, "over": {}, "price": {}},
    ]
    entries = [{"d": 2, "method": name, "climbed": rungs} for name, rungs in climbed.items()]
    numbers = {"contest": {"entries": entries, "races": races}}
    return provenance.Record("x", profile="smoke", device="cpu", seed=0, numbers=numbers)


@pytest.mark.parametrize(
    ("stretched", "cells", "said"),
    [
        (1.0, ["stretched", "9.0", "120"], "Every rival was timed."),
        (
            math.nan,
            ["tensor", "at least 3.0", "at least 50"],
            'Not timed: "stretched" for d = 2 to 0.01. "At least" means: over the rivals timed there.',
        ),
    ],
)
def test_over_the_timed_rivals_alone_a_price_is_a_lower_limit(stretched, cells, said):
    record = contest(stretched)
    (row,) = several_parameters.verdict_table(record).rows
    assert row[-3:] == cells
    assert several_parameters.untimed(several_parameters.verdict(record)) == said


def test_budgets_are_powers_or_grids():
    assert several_parameters.rungs(4, 16) == [4, 6, 8, 11, 16]
    assert several_parameters.rungs(4, 30, 2) == [4, 9, 16, 25]
