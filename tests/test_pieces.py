"""`nm.fit(problem, tol=...)`: what holds where it says that a tolerance is met, and what it says where it is not."""

import itertools
import math
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import DTYPES, CountedInverse, assert_close, assert_raises, eps, real, tensors_of, trained

import neumatc as nm
from neumatc import StopReason

F64 = torch.float64
CYCLES = {1: 2.0, 2: 1.0, 3: 0.4}


def waves(d=1, dtype=F64, size=4, cycles=None, seed=0):
    """A well-conditioned trigonometric family."""
    cycles = CYCLES[d] if cycles is None else cycles
    return nm.families.trigonometric(size, 3, 3.0, seed, cycles=cycles, dimension=d, dtype=dtype)


def diagonal(*entries, d=1, lower=0.0, upper=1.0, dtype=F64, **axes):
    """The family of diagonal matrices with the given functions of the columns of p."""

    def fn(p):
        return torch.diag_embed(torch.stack([entry(*p.T) for entry in entries], dim=1))

    return nm.ParametricMatrix(fn, [lower] * d, [upper] * d, dtype=dtype, **axes)


def fresh(family, count=2000, seed=99):
    return family.box.uniform(count, torch.Generator().manual_seed(seed))


def fitted(problem, tol, **settings):
    """Fit without a bar; a tolerance that is not met warns, which is what some tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)
        return nm.fit(problem, tol=tol, progress=False, **settings)


def failing(problem, surrogate, tol, p=None):
    """The share of fresh parameters at which the residual is above the tolerance."""
    p = fresh(problem.family) if p is None else p
    return float((problem.residual(p, surrogate(p)) > tol).double().mean())


def outside(unmet, p):
    """Which parameters lie in none of the boxes in which the report says that the tolerance is not met."""
    inside = [((p >= torch.tensor(u.lower)) & (p <= torch.tensor(u.upper))).all(dim=1) for u in unmet]
    return ~torch.stack(inside).any(dim=0) if inside else torch.ones(len(p), dtype=torch.bool)


# Where the tolerance is met


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_the_tolerance_is_met_at_fresh_parameters(d, dtype, tol):
    problem = nm.Problem(waves(d, dtype), nm.Inverse())
    surrogate = fitted(problem, tol)
    assert surrogate.report.met and surrogate.report.stop_reason == StopReason.TOLERANCE
    assert surrogate.report.unmet == []
    assert failing(problem, surrogate, tol) <= 0.02
    assert surrogate(fresh(problem.family, 3)).dtype == dtype


@pytest.mark.parametrize(
    "operation",
    [nm.SVD(rank=2), nm.SVD(), nm.QR(), nm.Subspace(rank=2), nm.LogDet(), nm.PseudoInverse(), nm.LMMSE(0.1)],
    ids=str,
)
@pytest.mark.parametrize("d", [1, 2])
def test_the_tolerance_is_met_for_every_operation(operation, d):
    problem = nm.Problem(waves(d, cycles=0.7), operation)
    surrogate = fitted(problem, 1e-3)
    assert surrogate.report.met
    assert failing(problem, surrogate, 1e-3) <= 0.02


def test_a_tighter_tolerance_takes_more_solves_and_gives_less_error():
    problem, p = nm.Problem(waves(), nm.Inverse()), fresh(waves())
    found = [fitted(problem, tol) for tol in (1e-2, 1e-5, 1e-8)]
    errors = [float(problem.error(p, s(p)).max()) for s in found]
    counts = [s.report.exact_solves for s in found]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert counts[0] < counts[1] < counts[2]


def test_a_smooth_result_takes_few_solves():
    report = fitted(nm.Problem(waves(cycles=0.5), nm.Inverse()), 1e-3).report
    assert report.exact_solves <= 20


def test_an_axis_that_does_not_matter_takes_few_nodes():
    family = diagonal(lambda a, b: 2 + torch.sin(9 * a), lambda a, b: 3 + 0.01 * b, d=2)
    report = fitted(nm.Problem(family, nm.Inverse()), 1e-4).report
    assert report.met and report.exact_solves <= 150


def test_no_warning_where_the_tolerance_is_met():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nm.fit(nm.Problem(waves(), nm.Inverse()), tol=1e-3, progress=False).report.met


@pytest.mark.parametrize("settings", [{"seed": 0}, {"seed": 7}, {"seed": 7, "budget": 90}])
def test_a_seed_makes_it_repeatable(settings):
    problem = nm.Problem(waves(), nm.Inverse())
    first, second = (fitted(problem, 1e-5, **settings) for _ in range(2))
    for a, b in zip(tensors_of(first).values(), tensors_of(second).values(), strict=True):
        assert torch.equal(a, b)
    assert first.report.exact_solves == second.report.exact_solves


# What is solved


@dataclass(frozen=True)
class Logged(nm.Inverse):
    """The inverse, which keeps the first entry of every matrix it has solved exactly."""

    seen: ClassVar[list[float]] = []

    def exact(self, A):
        Logged.seen.extend(A[:, 0, 0].tolist())
        return super().exact(A)


def identified(d, hard=False):
    """A family whose first entry tells every parameter apart; with a kink where it is hard."""
    direction = torch.tensor([1.0, math.e / 3, math.pi / 5], dtype=F64)[:d]

    def fn(p):
        key = 2 + (p * direction).sum(dim=1)
        smooth = 2 + torch.sin(4 * p.sum(dim=1)) + ((p[:, 0] - 0.337).abs() if hard else 0)
        return torch.diag_embed(torch.stack([key, smooth], dim=1))

    return nm.ParametricMatrix(fn, [0.0] * d, [1.0] * d, dtype=F64)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("hard", [False, True])
def test_no_parameter_is_solved_twice_and_all_are_counted(d, hard):
    Logged.seen.clear()
    report = fitted(nm.Problem(identified(d, hard), Logged()), 1e-4 if d < 3 else 1e-2).report
    assert report.exact_solves == len(Logged.seen)
    assert max(Counter(round(x, 11) for x in Logged.seen).values()) == 1


@pytest.mark.parametrize("d", [1, 2])
def test_every_row_of_the_latent_tensor_is_an_exact_solution(d):
    """So at the nodes of its pieces the map is exact."""
    problem = nm.Problem(waves(d), nm.Inverse())
    surrogate = fitted(problem, 1e-2)
    for piece in surrogate.pieces:
        p = torch.tensor(list(itertools.product(*piece.nodes)), dtype=F64)
        assert problem.error(p, surrogate(p)).max() < 1e-9


@pytest.mark.parametrize(("d", "budgets"), [(1, (2, 5, 20, 60)), (2, (4, 20, 60, 200)), (3, (8, 100))])
def test_the_budget_is_kept(d, budgets, solved):
    for budget in budgets:
        solved.clear()
        problem = nm.Problem(waves(d), CountedInverse())
        surrogate = fitted(problem, 1e-9, budget=budget)
        report = surrogate.report
        assert sum(solved) == report.exact_solves <= budget
        assert (report.met, report.stop_reason, report.budget) == (False, StopReason.BUDGET, budget)
        assert all("used up" in unmet.reason for unmet in report.unmet)
        assert surrogate(fresh(problem.family, 50)).isfinite().all()


@pytest.mark.parametrize("budget", [20, 40, 90])
@pytest.mark.parametrize("operation", [nm.LogDet(), nm.MatrixFunction("exp")], ids=str)
def test_the_budget_holds_where_residuals_take_exact_solves(operation, budget):
    report = fitted(nm.Problem(waves(), operation), 1e-9, budget=budget).report
    assert report.exact_solves <= budget and not report.met


def test_a_budget_that_ends_a_fit_warns_and_names_the_remedy():
    with pytest.warns(nm.FitWarning, match=r"the tolerance 1e-06 is not met: \[.*raise the budget or the tolerance"):
        nm.fit(nm.Problem(waves(), nm.Inverse()), tol=1e-6, budget=20, progress=False)


@pytest.mark.parametrize(("d", "cycles", "budget"), [(1, 8.0, 60), (2, 2.0, 120)])
def test_a_budget_leaves_no_part_of_the_box_behind(d, cycles, budget):
    problem = nm.Problem(waves(d, size=8, cycles=cycles), nm.Inverse())
    surrogate, p = fitted(problem, 1e-5, budget=budget), fresh(waves(d))
    assert 0.9 * budget <= surrogate.report.exact_solves <= budget
    assert problem.residual(p, surrogate(p)).max() < 0.06


def test_a_larger_budget_is_no_worse():
    problem = nm.Problem(waves(), nm.Inverse())
    p = fresh(problem.family)
    worst = [float(problem.error(p, fitted(problem, 1e-7, budget=b)(p)).median()) for b in (9, 40, 160)]
    assert worst[0] > worst[1] > worst[2]


@pytest.mark.parametrize(("d", "rank"), [(1, 2), (1, 6), (1, 12), (2, 9), (2, 20), (2, 60), (3, 30)])
def test_a_rank_limits_the_terms_of_each_piece(d, rank):
    problem = nm.Problem(waves(d, cycles=0.5), nm.Inverse())
    surrogate = fitted(problem, 3e-2, rank=rank)
    assert max(piece.terms for piece in surrogate.pieces) == surrogate.report.rank <= rank
    if surrogate.report.met:
        assert failing(problem, surrogate, 3e-2) <= 0.02


@pytest.mark.parametrize(
    ("d", "settings", "words"),
    [
        (2, {"budget": 3}, ["`budget`", "at least 4", "got 3"]),
        (3, {"budget": 0}, ["`budget`", "at least 8", "got 0"]),
        (1, {"rank": 1}, ["`rank`", "at least 2", "got 1"]),
        (3, {"rank": 7}, ["`rank`", "at least 8", "got 7"]),
    ],
)
def test_less_than_the_corners_is_refused(d, settings, words):
    problem = nm.Problem(waves(d), nm.Inverse())
    assert_raises(ValueError, words, lambda: nm.fit(problem, tol=1e-2, **settings))


# Faces


def test_values_are_continuous_across_the_cuts_of_one_parameter(dtype):
    problem = nm.Problem(waves(dtype=dtype), nm.Inverse())
    surrogate = fitted(problem, 1e-4)
    cuts = torch.tensor([piece.lower for piece in surrogate.pieces[1:]], dtype=real(dtype))
    assert len(cuts) > 1
    left = torch.nextafter(cuts, torch.zeros_like(cuts))
    assert_close(surrogate(left), surrogate(cuts), units=5000)


def test_values_are_continuous_across_faces_up_to_the_tolerance():
    problem = nm.Problem(waves(2, cycles=2.0), nm.Inverse())
    surrogate = fitted(problem, 1e-3)
    assert surrogate.report.met
    faces = 0
    for piece in surrogate.pieces:
        for i in range(2):
            if piece.lower[i] == 0:
                continue
            p = torch.tensor(piece.lower) + torch.rand(50, 2, dtype=F64) * torch.tensor(
                [b - a for a, b in zip(piece.lower, piece.upper)]
            )
            p[:, i] = piece.lower[i]
            other = p.clone()
            other[:, i] = math.nextafter(piece.lower[i], 0)
            gap = torch.linalg.matrix_norm(surrogate(p) - surrogate(other))
            assert (gap <= 10 * 1e-3 * torch.linalg.matrix_norm(surrogate(p))).all()
            faces += 1
    assert faces > 0


def test_pieces_tile_the_box():
    for d in (1, 2):
        pieces = fitted(nm.Problem(waves(d, cycles=2.0), nm.Inverse()), 1e-3).pieces
        assert len(pieces) > 1
        volume = sum(math.prod(b - a for a, b in zip(piece.lower, piece.upper)) for piece in pieces)
        assert volume == pytest.approx(1, rel=1e-9)


# Where X is not smooth, does not exist, or is not defined


def test_a_jump_is_named_and_costs_only_its_place():
    family = diagonal(lambda p: 2 + torch.sin(3 * p) + (p > 0.337), lambda p: 3 + p)
    problem = nm.Problem(family, nm.Inverse())
    with pytest.warns(nm.FitWarning, match=r"X jumps at p = 0\.337"):
        surrogate = nm.fit(problem, tol=1e-6, progress=False)
    (unmet,) = surrogate.report.unmet
    assert unmet.lower[0] <= 0.337 <= unmet.upper[0]
    assert unmet.upper[0] - unmet.lower[0] < 1e-6
    p = fresh(family)
    assert failing(problem, surrogate, 1e-6, p[outside([unmet], p)]) <= 0.02
    assert surrogate.report.exact_solves < 400


def test_a_jump_in_two_parameters_costs_only_a_strip():
    family = diagonal(lambda a, b: 2 + b + (a > 0.37), lambda a, b: 3 + a, d=2)
    problem = nm.Problem(family, nm.Inverse())
    surrogate = fitted(problem, 1e-3)
    assert surrogate.report.unmet
    for unmet in surrogate.report.unmet:
        assert unmet.lower[0] <= 0.37 <= unmet.upper[0]
        assert unmet.upper[0] - unmet.lower[0] < 1e-2
    p = fresh(family)
    assert failing(problem, surrogate, 1e-3, p[outside(surrogate.report.unmet, p)]) <= 0.02


@pytest.mark.parametrize(("d", "tol"), [(1, 1e-6), (2, 1e-3)])
def test_a_kink_is_resolved(d, tol):
    family = diagonal(lambda a, *_: 2 + torch.sin(3 * a) + (a - 0.337).abs(), lambda a, *_: 3 + a, d=d)
    problem = nm.Problem(family, nm.Inverse())
    surrogate = fitted(problem, tol)
    assert failing(problem, surrogate, tol) <= 0.02
    assert surrogate.report.exact_solves < 400


@pytest.mark.parametrize("pole", [0.337, 0.5])
def test_a_singular_parameter_is_named(pole):
    """Beside it X is a rational function, which is exact; at it there is nothing to find."""
    problem = nm.Problem(diagonal(lambda p: p - pole, lambda p: 3 + p), nm.Inverse())
    surrogate = fitted(problem, 1e-6)
    report = surrogate.report
    assert f"X grows without bound at p = {pole}" in report.message
    assert report.exact_solves < 60
    assert failing(problem, surrogate, 1e-6) <= 0.02


def test_a_singular_curve_in_two_parameters_is_named():
    problem = nm.Problem(diagonal(lambda a, b: a - 0.37 + b / 10, lambda a, b: 3 + a, d=2), nm.Inverse())
    surrogate = fitted(problem, 1e-2, budget=1000)
    b = torch.linspace(0, 1, 50, dtype=F64)
    curve = torch.stack([0.37 - b / 10, b], dim=1)
    assert not surrogate.report.met
    assert not outside(surrogate.report.unmet, curve).any()
    p = fresh(problem.family)
    assert failing(problem, surrogate, 1e-2, p[outside(surrogate.report.unmet, p)]) <= 0.02


@pytest.mark.parametrize("distance", [1e-2, 1e-4])
def test_a_pole_beside_the_box_takes_few_solves(distance):
    """A resonance: a rational function does what takes hundreds of polynomial nodes."""
    family = diagonal(lambda p: p - 0.4 - 1j * distance, lambda p: 2 - p + 0j, lambda p: p + distance + 0j)
    problem = nm.Problem(family, nm.Inverse())
    surrogate = fitted(problem, 1e-6)
    assert surrogate.report.met and surrogate.report.exact_solves < 300
    assert failing(problem, surrogate, 1e-6) <= 0.02
    p = (0.4 + distance * torch.linspace(-5, 5, 101, dtype=F64))[:, None]
    assert problem.residual(p, surrogate(p)).max() < 1e-5


def without(family, hole):
    """The family, undefined where ``hole`` says so."""
    fn = lambda p: torch.where(hole(p)[:, None, None], torch.nan, family(p))  # noqa: E731
    return nm.ParametricMatrix(fn, family.lower, family.upper)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("place", [0.5, 0.0, 1.0, 0.337], ids=["centre", "lower", "upper", "elsewhere"])
@pytest.mark.parametrize("width", [0.0, 1e-3])
def test_an_undefined_parameter_costs_only_itself(d, place, width):
    whole = waves(d, cycles=0.5)
    problem = nm.Problem(without(whole, lambda p: ((p - place).abs() <= width).all(dim=1)), nm.Inverse())
    surrogate = fitted(problem, 1e-4)
    assert surrogate.report.met
    assert all(abs(x - place) <= width for row in surrogate.report.singular for x in row)
    assert surrogate.report.exact_solves < 1.5 * fitted(nm.Problem(whole, nm.Inverse()), 1e-4).report.exact_solves + 60
    assert failing(nm.Problem(whole, nm.Inverse()), surrogate, 1e-4) <= 0.02


def test_a_matrix_that_is_singular_at_a_node_costs_only_itself():
    family = diagonal(lambda p: torch.where((p - 0.5).abs() < 1e-12, 0.0, 2 + torch.sin(p)), lambda p: 3 + p)
    surrogate = fitted(nm.Problem(family, nm.Inverse()), 1e-6)
    assert surrogate.report.met
    assert failing(nm.Problem(family, nm.Inverse()), surrogate, 1e-6) <= 0.02


def test_an_undefined_interval_costs_only_itself():
    whole = waves(cycles=0.5)
    problem = nm.Problem(without(whole, lambda p: (p[:, 0] - 0.5).abs() < 0.1), nm.Inverse())
    surrogate = fitted(problem, 1e-4)
    assert not surrogate.report.met
    assert all(unmet.lower[0] > 0.39 and unmet.upper[0] < 0.61 for unmet in surrogate.report.unmet)
    p = fresh(whole)
    p = p[(p[:, 0] - 0.5).abs() > 0.11]
    assert failing(problem, surrogate, 1e-4, p) <= 0.02
    assert surrogate.report.exact_solves < 700


@pytest.mark.parametrize(("d", "half"), [(1, 0.02), (2, 0.1)])
def test_a_hole_between_the_nodes_is_named(d, half):
    """Few nodes resolve X, and none meets the hole."""
    whole = waves(d, cycles=0.2)
    problem = nm.Problem(without(whole, lambda p: ((p - 0.613).abs() < half).all(dim=1)), nm.Inverse())
    with pytest.warns(nm.FitWarning, match="not defined at random"):
        surrogate = nm.fit(problem, tol=1e-3, progress=False)
    assert not surrogate.report.met and surrogate.report.exact_solves < 60
    p = fresh(whole)
    p = p[~((p - 0.613).abs() < half).all(dim=1)]
    assert failing(problem, surrogate, 1e-3, p) <= 0.02
    assert any(all(a < 0.613 < b for a, b in zip(x.lower, x.upper)) for x in surrogate.report.unmet)


def misspelt(x):
    return np.eye(2) * (1 + x) if x < 0.7 else undefined_name  # noqa: F821


def growing(x):
    return np.eye(2 if x < 0.7 else 3)


def missing(x):
    return np.eye(2) * (1 + x if x < 0.7 else np.nan)


DEFECTS = {
    misspelt: ("the family failed at p = 1: NameError: name 'undefined_name' is not defined", "mend the family"),
    growing: ("the family failed at p = 1: `fn(p)`: expected shape (1, 2, 2) ", "mend the family"),
    missing: ("the family is not defined here", "restrict the box to where the family is defined"),
}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("fn", DEFECTS)
def test_a_defect_of_the_function_is_told_and_not_taken_for_a_singular_matrix(fn, together):
    problem = nm.Problem(nm.ParametricMatrix(fn, 0.0, 1.0, batched=False), nm.Inverse())
    with pytest.warns(nm.FitWarning) as heard:
        *_, surrogate = nm.fit_many([problem] * (1 + together), tol=1e-3, progress=False)
    why, remedy = DEFECTS[fn]
    for text in (str(heard[0].message), " ".join(str(surrogate.report).split())):
        assert why in text and remedy in text and "regular" not in text
    assert {unmet.reason for unmet in surrogate.report.unmet} == {"the family is not defined here"}


def test_a_function_that_raises_at_one_parameter_costs_that_and_is_told():
    def fn(x):
        return np.eye(2) * (2 + 0 / x + x)  # ZeroDivisionError

    report = fitted(nm.Problem(nm.ParametricMatrix(fn, 0.0, 1.0, batched=False), nm.Inverse()), 1e-3).report
    assert report.met and report.message == "the family failed at p = 0: ZeroDivisionError: float division by zero"


@pytest.mark.parametrize("fn", DEFECTS)
def test_what_is_undefined_at_all_parameters_but_one_is_not_called_singular(fn):
    family = nm.ParametricMatrix(lambda x: np.eye(2) if x == 0.5 else fn(1.0), 0.0, 1.0, batched=False)
    assert fitted(nm.Problem(family, nm.Inverse()), 1e-3).report.advice.startswith(DEFECTS[fn][1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rounding_of_exact_solutions_in_other_units_is_told_early(dtype):
    """Of rows that differ by some 10^5 residuals of single precision are above the tolerance, whatever is solved."""
    rows = torch.tensor([[1e-5], [1.0]], dtype=dtype)
    B = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=dtype)

    def fn(p):
        return rows * (B + torch.sin(3 * p[:, :, None]) / 2) / rows.mT

    report = fitted(nm.Problem(nm.ParametricMatrix(fn, 0.0, 1.0, dtype=dtype), nm.Inverse()), 1e-3).report
    assert report.met == (dtype == F64) and report.exact_solves < 60
    if not report.met:
        assert "exact solutions themselves" in report.unmet[0].reason and "same units" in report.advice


@pytest.mark.parametrize("e", [6, 10])
def test_a_family_in_other_units_is_fitted(e):
    """Its condition number is up to 1e20, that of the matrix in units of its rows and columns 5."""
    L, R, q = torch.tensor([10.0**-e, 1.0], dtype=F64), torch.tensor([1.0, 10.0**e], dtype=F64), fresh(waves(), 50)

    def plain(p):
        x = p[:, 0]
        return torch.stack([2 + 0 * x, torch.sin(3 * x), torch.cos(x), 3 + 0 * x], dim=1).view(-1, 2, 2)

    problem = nm.Problem(nm.ParametricMatrix(lambda p: L[:, None] * plain(p) * R, 0.0, 1.0, dtype=F64), nm.Inverse())
    surrogate = fitted(problem, 1e-4)
    assert surrogate.report.met and not problem.exact(q).failed.any()
    X = torch.linalg.inv(plain(q)) / L / R[:, None]
    assert float((torch.linalg.norm(surrogate(q) - X, dim=(1, 2)) / torch.linalg.norm(X, dim=(1, 2))).max()) < 1e-4


@pytest.mark.parametrize(("operation", "exists"), [
    (nm.SVD(rank=1), False), (nm.SVD(rank=1, gauge="subspace"), False), (nm.Eigh(rank=1), False), (nm.SVD(), True),
])  # fmt: skip
def test_values_that_are_no_choice_anywhere_are_not_met(operation, exists):
    """Reflections: the singular values are both 1, so that there is no leading one."""

    def fn(t):
        return np.array([[np.cos(t), np.sin(t)], [np.sin(t), -np.cos(t)]])

    problem = nm.Problem(nm.ParametricMatrix(fn, 0.0, 2 * math.pi, batched=False, periodic=True), operation)
    report = fitted(problem, 1e-4).report
    assert report.met == exists == (not problem.exact([0.3, 1.0]).failed.any())
    assert exists or "value k" in report.advice


def test_neighbours_with_one_trouble_are_one_box():
    family = diagonal(lambda p: 2 + torch.sin(400 * p), lambda p: 3 + torch.cos(300 * p))
    report = fitted(nm.Problem(family, nm.Inverse()), 1e-8, budget=40).report
    ends = [(x.lower[0], x.upper[0], x.reason) for x in report.unmet]
    assert ends and all(a[1] < b[0] or a[2] != b[2] for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize("d", [1, 2])
def test_a_family_that_is_singular_everywhere_gives_the_zero_map(d):
    family = nm.ParametricMatrix(lambda p: torch.ones(len(p), 2, 2, dtype=F64), [0.0] * d, [1.0] * d, dtype=F64)
    with pytest.warns(nm.FitWarning, match="every exact solution fails; .*PseudoInverse"):
        surrogate = nm.fit(nm.Problem(family, nm.Inverse()), tol=1e-2, progress=False)
    assert surrogate.report.stop_reason == StopReason.SINGULAR
    assert surrogate.report.exact_solves == len(surrogate.report.singular) < 300
    assert (surrogate(fresh(family, 20)) == 0).all()


@pytest.mark.parametrize("d", [1, 2])
def test_a_tolerance_below_the_rounding_of_the_family_stops_early(d):
    problem = nm.Problem(waves(d, torch.float32, cycles=0.5), nm.Inverse())
    surrogate = fitted(problem, 1e-9)
    report = surrogate.report
    assert not report.met
    assert any("noise" in unmet.reason for unmet in report.unmet)
    assert report.exact_solves < (300 if d == 1 else 2500)
    p = fresh(problem.family)
    assert problem.residual(p, surrogate(p)).max() < 100 * eps(torch.float32)


@pytest.mark.parametrize("width", [1e-3, 1e-6])
def test_single_precision_boxes_far_from_zero(width):
    """Nodes are where the parameters are after rounding: about 1e4 or 20 of them fit into such a box."""
    low = torch.tensor([100.0], dtype=torch.float32)
    high = low + torch.tensor([1.0 if width == 1e-3 else 0.01])
    fn = lambda p: torch.diag_embed(torch.cat([2 + torch.sin(3 * (p - 100)), 3 + p - 100], dim=1))  # noqa: E731
    problem = nm.Problem(nm.ParametricMatrix(fn, low, high), nm.Inverse())
    surrogate = fitted(problem, 1e-4)
    assert surrogate.report.met
    assert failing(problem, surrogate, 1e-4) <= 0.02


# Axes and grids


def test_a_logarithmic_axis_is_met_at_parameters_of_every_decade():
    family = diagonal(lambda p: 1 / (1 + p), lambda p: 2 + torch.cos(p.log()), lower=1e-5, upper=1e4, scale="log")
    problem = nm.Problem(family, nm.Inverse())
    surrogate = fitted(problem, 1e-3)
    assert surrogate.report.met
    p = torch.logspace(-5, 4, 2000, dtype=F64)[:, None].clamp(1e-5, 1e4)
    assert failing(problem, surrogate, 1e-3, p) <= 0.02


def test_a_linear_axis_over_decades_is_hinted_at():
    family = diagonal(lambda p: 2 + torch.sin(1 / p), lambda p: 3 + p, lower=1e-3, upper=1.0)
    with pytest.warns(nm.FitWarning, match="scale='log'"):
        nm.fit(nm.Problem(family, nm.Inverse()), tol=1e-6, budget=60, progress=False)


@pytest.mark.parametrize("d", [1, 2])
def test_a_periodic_axis_closes(d):
    entries = (lambda a, *_: 2 + torch.sin(a), lambda a, *b: 3 + torch.cos(2 * a) + sum(b) / 10)
    family = diagonal(*entries, d=d, upper=2 * math.pi, periodic=[True, False][:d])
    problem = nm.Problem(family, nm.Inverse())
    surrogate = fitted(problem, 1e-5)
    assert failing(problem, surrogate, 1e-5) <= 0.02
    ends = torch.full((2, d), 0.3, dtype=F64)
    ends[0, 0], ends[1, 0] = 0, 2 * math.pi
    X = surrogate(ends)
    assert torch.linalg.matrix_norm(X[0] - X[1]) < (1e-12 if d == 1 else 2e-5)


def test_a_small_grid_is_solved_exactly(solved):
    p = torch.linspace(0, 1, 50, dtype=F64)[:, None]
    family = nm.families.from_samples(p, waves()(p))
    problem = nm.Problem(family, CountedInverse())
    surrogate = fitted(problem, 1e-3)
    assert (surrogate.report.stop_reason, surrogate.report.met) == (StopReason.TABLE, True)
    assert sum(solved) == surrogate.report.exact_solves == 50
    assert "all 50 points" in surrogate.report.message
    assert problem.error(p, surrogate(p)).max() < 1e-10


def at_random(count):
    """A smooth family of irregular samples, and parameters between them."""
    p, q = (torch.rand(n, 1, dtype=F64, generator=torch.Generator().manual_seed(n)) for n in (count, 2000))
    family = nm.families.from_samples(p, waves()(p))
    return family, p, family.lower + q * (family.upper - family.lower)


@pytest.mark.parametrize(("operation", "count"), [(nm.Inverse(), 150), (nm.Inverse(), 400), (nm.SVD(), 150)], ids=str)
def test_a_table_of_samples_is_met_between_them(count, operation):
    family, _, q = at_random(count)
    problem = nm.Problem(family, operation)
    surrogate = fitted(problem, 1e-4)
    assert (surrogate.report.stop_reason, surrogate.report.met) == (StopReason.TABLE, True)
    assert surrogate.report.exact_solves == count
    assert failing(problem, surrogate, 1e-4, q) <= 0.02


@pytest.mark.parametrize("rank", [None, 3])
def test_what_samples_do_not_tell_between_them_is_not_met_and_named(rank):
    family, p, q = at_random(40)
    problem = nm.Problem(family, nm.Inverse())
    with pytest.warns(nm.FitWarning, match="between the samples"):
        surrogate = nm.fit(problem, tol=1e-6, rank=rank, progress=False)
    report, (place,) = surrogate.report, surrogate.report.unmet
    assert (report.stop_reason, report.met, report.exact_solves) == (StopReason.TABLE, False, 40)
    assert surrogate.rank <= (rank or 8)
    assert problem.error(p, surrogate(p)).max() < 1e-10
    outside = q[(q < place.lower[0]) | (q > place.upper[0])][:, None]
    assert len(outside) == 0 or failing(problem, surrogate, 1e-6, outside) * len(outside) <= 0.02 * len(q)


def on_grid(count, cycles, size=40):
    p = torch.linspace(0, 1, count, dtype=F64)[:, None]
    return nm.ParametricMatrix(waves(size=size, cycles=cycles).fn, [0.0], [1.0], dtype=F64, grid=p)


def test_a_large_grid_of_a_smooth_family_is_not_solved_as_a_whole(solved):
    family = on_grid(4000, 1.0)
    surrogate = fitted(nm.Problem(family, CountedInverse()), 1e-3)
    assert surrogate.report.met and sum(solved) < 100


def test_a_jump_between_two_points_of_a_large_grid_costs_only_its_place(solved):
    p = torch.linspace(0, 1, 4000, dtype=F64)[:, None]
    smooth, jump = waves(size=40)(p), torch.where(p < 0.37, -0.2, 0.2)[:, :, None]
    family = nm.families.from_samples(p, smooth + jump * torch.eye(40, dtype=F64).flip(0))
    problem = nm.Problem(family, CountedInverse())
    surrogate = fitted(problem, 1e-4)
    (place,) = surrogate.report.unmet  # the curve through the samples swings there, at them all is well
    assert not surrogate.report.met and failing(problem, surrogate, 1e-4, p) == 0
    assert sum(solved) == surrogate.report.exact_solves < 400
    assert 0.36 < place.lower[0] < 0.37 < place.upper[0] < 0.38 and "between the samples" in place.reason


@pytest.mark.parametrize("budget", [20, 60])
def test_a_budget_holds_at_a_jump_of_a_grid(budget, solved):
    p = torch.linspace(0, 1, 4000, dtype=F64)[:, None]
    family = nm.families.from_samples(p, torch.where(p < 0.37, 1.0, 3.0)[:, :, None] + waves(size=40)(p))
    report = fitted(nm.Problem(family, CountedInverse()), 1e-4, budget=budget).report
    assert sum(solved) == report.exact_solves <= budget


@pytest.mark.parametrize("budget", range(10, 200, 12))
def test_a_budget_holds_where_a_grid_is_too_coarse(budget):
    p = torch.linspace(0, 1, 200, dtype=F64)[:, None]
    problem = nm.Problem(nm.families.from_samples(p, waves(cycles=15)(p)), nm.Inverse())
    assert fitted(problem, 1e-9, budget=budget).report.exact_solves <= budget


def test_a_grid_takes_no_more_solves_than_it_has_points(solved):
    family = on_grid(1000, 200.0)
    problem = nm.Problem(family, CountedInverse())
    surrogate = fitted(problem, 1e-6)
    assert surrogate.report.met
    assert failing(problem, surrogate, 1e-6, family.grid) == 0
    assert sum(solved) <= 1000


def test_subcarriers_of_a_channel():
    draws = torch.Generator().manual_seed(0)
    paths = torch.randn(1, 6, 4, 2, dtype=torch.complex128, generator=draws)
    delays = 300e-9 * torch.rand(1, 6, dtype=F64, generator=draws)
    tones = torch.arange(-300, 301, dtype=F64)[:, None] * 30e3
    channel = nm.wireless.Channel(paths, delays, -9e6, 9e6, frequencies=tones)
    problem = nm.Problem(channel, nm.LMMSE(0.1))
    surrogate = fitted(problem, 1e-3)
    assert surrogate.report.met and surrogate.report.exact_solves <= 601
    assert failing(problem, surrogate, 1e-3, tones) <= 0.02


# Vectors


def separated(p):
    """Hermitian matrices whose eigenvalues stay apart and whose eigenvectors turn."""
    turn = torch.matrix_exp(
        torch.stack([torch.stack([0 * p, -2 * p], 1), torch.stack([2 * p, 0 * p], 1)], 1)[..., 0]
    ).to(F64)
    values = torch.diag_embed(torch.cat([1 + 0.2 * torch.sin(p), 3 + p], dim=1))
    return turn @ values @ turn.mH


@pytest.mark.parametrize(
    ("operation", "vectors"),
    [
        (nm.SVD(), lambda value: [value[0], value[2].mH]),
        (nm.SVD(rank=1), lambda value: [value[0], value[2].mH]),
        (nm.Eigh(), lambda value: [value[1]]),
        (nm.Eigh(rank=1), lambda value: [value[1]]),
        (nm.Subspace(rank=1), lambda value: [value]),
    ],
    ids=["SVD", "SVD of rank 1", "Eigh", "Eigh of rank 1", "Subspace"],
)
def test_vectors_are_continuous_where_values_stay_apart(operation, vectors):
    problem = nm.Problem(nm.ParametricMatrix(separated, [0.0], [3.0], dtype=F64), operation)
    surrogate = fitted(problem, 1e-4)
    assert surrogate.report.met
    p = torch.linspace(0, 3, 3001, dtype=F64)[:, None]
    for V in vectors(surrogate(p)):
        assert torch.linalg.matrix_norm(V[1:] - V[:-1]).max() < 0.01  # the vectors turn by 2e-3 at each step
    assert failing(problem, surrogate, 1e-4) <= 0.02


@pytest.mark.parametrize("d", [1, 2])
def test_ends_that_are_the_same_are_told(d):
    turning = [
        lambda *p: 3 + torch.cos(2 * math.pi * p[0]),
        lambda *p: 2 + torch.sin(2 * math.pi * p[-1] + p[0] * (d - 1)),
    ]
    around = fitted(nm.Problem(diagonal(*turning, d=d), nm.Inverse()), 1e-3).report.message
    names = ["p"] if d == 1 else ["p2"]
    assert [f"both ends of {name}" in around for name in names] == [True] * len(names)
    assert "both ends of p1" not in around
    said = fitted(nm.Problem(diagonal(turning[0], lambda *p: 2 + 0 * p[0], periodic=True), nm.Inverse()), 1e-3)
    assert "both ends" not in said.report.message


def test_a_pole_at_an_end_of_the_box_is_found():
    problem = nm.Problem(diagonal(lambda p: p, lambda p: 2 + p), nm.Inverse())
    report = fitted(problem, 1e-4).report
    assert report.met
    assert report.exact_solves <= 40


def test_ends_are_not_the_same_where_an_axis_matters_inside():
    problem = nm.Problem(diagonal(lambda a, b: 2 + torch.sin(math.pi * a) * b, lambda a, b: 3 + a, d=2), nm.Inverse())
    assert "both ends" not in fitted(problem, 1e-3).report.message


def test_other_ends_are_not_told():
    for entry in (lambda p: 3 + p, lambda p: 3 + 0 * p, lambda p: 3 + torch.cos(6 * p)):
        report = fitted(nm.Problem(diagonal(entry, lambda p: 2 + 0 * p), nm.Inverse()), 1e-3).report
        assert "both ends" not in report.message


# Many problems at once


def many(operation, count=4, dtype=F64, **settings):
    problems = [nm.Problem(waves(cycles=3.0, dtype=dtype, seed=seed), operation) for seed in range(count)]
    return problems, nm.fit_many(problems, progress=False, **settings)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", [nm.Inverse(), nm.LMMSE(noise=0.1), nm.Cholesky()], ids=str)
def test_problems_fitted_together_meet_the_tolerance(operation, dtype):
    families = [waves(cycles=3.0, dtype=dtype, seed=seed) for seed in range(3)]
    if isinstance(operation, nm.Cholesky):
        families = [nm.ParametricMatrix(lambda p, f=f: f(p) @ f(p).mH, 0.0, 1.0, dtype=real(dtype)) for f in families]
    problems = [nm.Problem(family, operation) for family in families]
    for problem, surrogate in zip(problems, nm.fit_many(problems, tol=1e-3, progress=False)):
        assert surrogate.report.met and surrogate.dtype == dtype
        assert failing(problem, surrogate, 1e-3) <= 0.02


def test_pieces_are_chosen_once_for_all_problems():
    problems, surrogates = many(nm.Inverse(), tol=1e-6)
    alone = max(fitted(problem, 1e-6).report.exact_solves for problem in problems)
    for surrogate in surrogates:
        assert surrogate.pieces == surrogates[0].pieces
        assert surrogate.report.exact_solves == surrogates[0].report.exact_solves <= 1.3 * alone


def test_what_problems_fitted_together_solve_is_counted(solved):
    _, surrogates = many(CountedInverse(), tol=1e-4)
    assert sum(solved) == sum(surrogate.report.exact_solves for surrogate in surrogates)


def swinging(speed):
    return nm.Problem(diagonal(lambda p: 2 + torch.sin(speed * p), lambda p: 3 + p), CountedInverse())


def test_easy_problems_do_not_pay_for_the_hardest(solved):
    problems = [swinging(speed) for speed in (2.0, 120.0, 3.0)]
    alone = [fitted(problem, 1e-6).report.exact_solves for problem in problems]
    solved.clear()
    surrogates = nm.fit_many(problems, tol=1e-6, progress=False)
    found = [surrogate.report.exact_solves for surrogate in surrogates]
    assert sum(solved) == sum(found)
    assert max(found[0], found[2]) <= 0.25 * alone[1] and found[1] <= 1.3 * alone[1] + found[0]
    assert all(failing(*pair, 1e-6) <= 0.02 for pair in zip(problems, surrogates))


def test_what_a_joint_attempt_solved_is_not_solved_again(solved):
    jump = nm.Problem(diagonal(lambda p: 2 + (p > 0.337), lambda p: 3 + p), CountedInverse())
    with pytest.warns(nm.FitWarning, match="X jumps"):
        alone = nm.fit(jump, tol=1e-6, progress=False).report.exact_solves
    solved.clear()
    with pytest.warns(nm.FitWarning, match="X jumps"):
        surrogates = nm.fit_many([swinging(3.0), jump], tol=1e-6, progress=False)
    assert sum(solved) == sum(surrogate.report.exact_solves for surrogate in surrogates) <= 2.3 * alone


def test_reports_of_problems_fitted_together_have_their_own_residuals():
    _, surrogates = many(nm.Inverse(), tol=1e-6)
    assert len({surrogate.report.rounds[-1].residual_max for surrogate in surrogates}) == 4


def test_many_problems_are_solved_in_batches_that_fit_into_memory(solved):
    problems = [nm.Problem(waves(size=64, cycles=0.1, seed=seed % 2), CountedInverse()) for seed in range(24)]
    surrogates = nm.fit_many(problems, tol=1e-2, progress=False)
    assert max(solved) <= len(problems) / 3 * surrogates[0].report.exact_solves


def test_problems_fitted_together_that_fail_are_fitted_alone():
    jump = nm.Problem(diagonal(lambda p: 2 + (p > 0.337), lambda p: 3 + p), nm.Inverse())
    smooth = nm.Problem(diagonal(lambda p: 2 + p, lambda p: 3 + p), nm.Inverse())
    with pytest.warns(nm.FitWarning, match="X jumps at p = 0.33"):
        surrogates = nm.fit_many([smooth, jump], tol=1e-6, progress=False)
    assert [surrogate.report.met for surrogate in surrogates] == [True, False]
    assert failing(smooth, surrogates[0], 1e-6) == 0


def test_a_problem_that_uses_up_the_solves_leaves_the_others_as_they_are_alone():
    wild = nm.Problem(diagonal(lambda p: 2 + torch.sin(20000 * p), lambda p: 3 + p), nm.Inverse())
    smooth = nm.Problem(diagonal(lambda p: 2 + p, lambda p: 3 + p), nm.Inverse())
    with pytest.warns(nm.FitWarning, match="used up"):
        surrogates = nm.fit_many([smooth, wild], tol=1e-4, budget=1000, progress=False)
    assert surrogates[0].report.met and failing(smooth, surrogates[0], 1e-4) == 0


def test_where_one_problem_is_undefined_the_others_are_still_measured():
    def undefined(p):
        return torch.where((p - 0.5).abs() < 0.04, torch.nan, 2.0)

    peak = nm.Problem(diagonal(lambda p: 2 + 4 * torch.exp(-(((p - 0.5) / 0.01) ** 2)), lambda p: 3 + p), nm.Inverse())
    other = nm.Problem(diagonal(undefined, lambda p: 3 + p), nm.Inverse())
    with pytest.warns(nm.FitWarning, match="not defined at random"):
        surrogate, _ = nm.fit_many([peak, other], tol=1e-4, progress=False)
    assert surrogate.report.met and failing(peak, surrogate, 1e-4) <= 0.02
    assert surrogate.report.singular == []


def test_every_axis_is_halved_where_pieces_hold_two_nodes_an_axis():
    family = diagonal(lambda p, q: 2 + torch.sin(4 * p), lambda p, q: 2 + torch.cos(3 * q), d=2)
    problem = nm.Problem(family, nm.Inverse())
    surrogate = fitted(problem, 1e-2, rank=4)
    assert surrogate.report.met and failing(problem, surrogate, 1e-2) <= 0.02


def test_what_the_nodes_have_missed_is_no_noise():
    peak = diagonal(lambda p: 2 + 2 * torch.exp(-(((p - 0.713) / 0.02) ** 2)), lambda p: 3 + 0 * p)
    surrogate = fitted(nm.Problem(peak, nm.Inverse()), 1e-4)
    assert not any("noise" in unmet.reason for unmet in surrogate.report.unmet)
    assert failing(nm.Problem(peak, nm.Inverse()), surrogate, 1e-4) <= 0.02 or not surrogate.report.met


@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-4])
@pytest.mark.parametrize("width", [0.012, 0.008])
def test_a_bump_that_the_first_nodes_miss_costs_only_its_place(width, tol):
    bump = diagonal(lambda p: 2 + torch.exp(-(((p - 0.4321) / width) ** 2)), lambda p: 3 + 0 * p)
    surrogate = fitted(nm.Problem(bump, nm.Inverse()), tol)
    assert surrogate.report.met and surrogate.report.exact_solves < 150
    assert failing(nm.Problem(bump, nm.Inverse()), surrogate, tol) <= 0.02


def drawn(p):
    """Other numbers at every call, as of a Monte Carlo method."""
    return torch.randn(p.shape, dtype=F64, generator=drawn.generator)


drawn.generator = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("error", [drawn, lambda p: torch.sin(1e15 * p)], ids=["random", "rough"])
@pytest.mark.parametrize(("d", "tol"), [(1, 1e-5), (1, 1e-6), (2, 1e-5)])
def test_a_family_with_noise_stops_early_and_names_it(d, tol, error):
    family = diagonal(lambda p, *_: 2 + torch.sin(p) + 1e-3 * error(p), lambda *p: 3 + p[-1], d=d)
    report = fitted(nm.Problem(family, nm.Inverse()), tol).report
    assert not report.met and report.exact_solves < 300
    assert all(re.search("noise of about [1-9]e-0[345]", unmet.reason) for unmet in report.unmet)
    assert report.advice == "ask for a tolerance above the noise"


def test_problems_on_other_boxes_have_their_own_pieces():
    problems = [
        nm.Problem(diagonal(lambda p: 2 + p, lambda p: 3 - p, upper=upper), nm.Inverse()) for upper in (1.0, 2.0)
    ]
    surrogates = nm.fit_many(problems, tol=1e-5, progress=False)
    assert [surrogate.pieces[-1].upper for surrogate in surrogates] == [[1.0], [2.0]]
    assert all(failing(*pair, 1e-5) <= 0.02 for pair in zip(problems, surrogates))


def test_factors_that_must_be_aligned_are_fitted_alone():
    problems, surrogates = many(nm.SVD(rank=2), count=2, tol=1e-3)
    assert all(surrogate.report.met for surrogate in surrogates)
    assert all(failing(*pair, 1e-3) <= 0.02 for pair in zip(problems, surrogates))


# Methods


def test_the_closed_form_has_no_tolerance():
    problem = nm.Problem(waves(), nm.Inverse())
    for settings in ({}, {"rank": 8}):
        words = ["`tol`", "expected None", "nm.ClosedForm", "0.001", "leave the method out"]
        assert_raises(ValueError, words, lambda kw=settings: nm.fit(problem, tol=1e-3, method=nm.ClosedForm(), **kw))


def test_pieces_take_a_tolerance():
    words = ["`tol`", "nm.Pieces", "None", "tol=1e-3"]
    problem = nm.Problem(waves(), nm.Inverse())
    assert_raises(ValueError, words, lambda: nm.fit(problem, rank=4, method=nm.Pieces()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"most": 1}, ["`most`", "at least 2", "1"]), ({"smallest": 0}, ["`smallest`", "above 0", "0"])],
)
def test_pieces_refuse(settings, words):
    assert_raises(ValueError, words, lambda: nm.Pieces(**settings))


def test_the_smallest_piece_is_that_of_the_method():
    problem = nm.Problem(diagonal(lambda p: 2 + (p > 0.337), lambda p: 3 + p), nm.Inverse())
    report = fitted(problem, 1e-6, method=nm.Pieces(smallest=0.01)).report
    assert all(0.005 < unmet.upper[0] - unmet.lower[0] < 0.2 for unmet in report.unmet)


def test_training_says_whether_its_tolerance_is_met():
    problem = nm.Problem(waves(size=2, cycles=0.2), nm.Inverse())
    assert trained(problem, 4, tol=0.9, steps=100).report.met
    with pytest.warns(nm.FitWarning, match="train for more steps"):
        report = trained(problem, 4, tol=1e-9, steps=5).report
    assert not report.met and report.stop_reason == StopReason.STEPS
