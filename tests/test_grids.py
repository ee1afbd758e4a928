"""Families on a tensor grid, whose nodes and checks are points of it; and fits that begin from others."""

import dataclasses
import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from conftest import assert_close, assert_raises, gaussian, tensors_of

import neumatc as nm
from neumatc import nodes, pieces, refinement
from neumatc.report import StopReason

F64, C128 = torch.float64, torch.complex128
# Axes of a receiver: symbols with gaps, subcarriers with guards in the middle; positions.
SYMBOLS = torch.tensor([0.0, 1.0, 2.0, 4.0, 5.0, 6.0, 9.0, 10.0, 11.0, 12.0], dtype=F64)
TONES = torch.cat([torch.arange(0.0, 70.0), torch.arange(75.0, 130.0)]).double()
PLACES = torch.tensor([0.0, 0.5, 2.0, 3.0], dtype=F64)


def waves(*axes, size=(3, 3), speed=0.02, dtype=C128, seed=0):
    """Matrices on a grid, which vary slowly about two times the identity."""
    p = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    parts = gaussian(3, *size, dtype=dtype, seed=seed)
    phases = (p @ torch.linspace(0.7, 1.3, len(axes), dtype=F64))[..., None] * speed * torch.arange(1.0, 4.0).double()
    A = 2 * torch.eye(*size, dtype=dtype) + 0.1 * torch.einsum("...k,kmn->...mn", phases.cos().to(dtype), parts)
    return A


def rough(*axes, size=(3, 3), dtype=C128, seed=0):
    """Matrices that have nothing to do with each other."""
    return gaussian(*map(len, axes), *size, dtype=dtype, seed=seed) + 4 * torch.eye(*size, dtype=dtype)


class Watched(nm.ParametricMatrix):
    """A family on a grid that keeps every parameter it is asked for."""

    def __init__(self, axes, A, **settings):
        inner, self.asked = nm.families.from_grid(axes, A, **settings), []

        def fn(p):
            self.asked.append(p.clone())
            return inner(p)

        super().__init__(fn, **inner.domain)


def pieced(problem, tol=1e-4, **settings):
    return nm.fit(problem, tol=tol, progress=False, **settings)


def on_grid(axes):
    return torch.cartesian_prod(*axes).view(-1, len(axes))


AXES = {1: [TONES], 2: [SYMBOLS, TONES], 3: [PLACES, SYMBOLS, TONES[::10]]}


# Families


@pytest.mark.parametrize("d", AXES)
def test_a_family_on_a_grid_gives_its_matrices(d, dtype):
    A = waves(*AXES[d], dtype=C128 if dtype.is_complex else F64).to(dtype)
    family = nm.families.from_grid(AXES[d], A)
    assert (family.shape, family.dtype, family.box.dtype, family.dimension) == ((3, 3), dtype, F64, d)
    assert torch.equal(family(on_grid(AXES[d])), A.flatten(0, d - 1))
    assert torch.equal(family.grid, on_grid(AXES[d]))
    assert [torch.equal(x, y) for x, y in zip(family.box.ticks, AXES[d], strict=True)] == [True] * d
    assert torch.equal(family.box.parameters(family.box.cube(family.grid)), family.grid)


def test_arrays_and_lists_and_numpy_in():
    A = waves(PLACES, SYMBOLS)
    family = nm.families.from_grid([PLACES.numpy(), SYMBOLS.tolist()], A.numpy(), names=("x", "t"), units=("m", "s"))
    assert (family.names, family.units) == (("x", "t"), ("m", "s"))
    found = family(on_grid([PLACES, SYMBOLS]).numpy())
    assert isinstance(found, np.ndarray) and np.array_equal(found, A.flatten(0, 1).numpy())
    for axes in (PLACES, PLACES.numpy(), PLACES.tolist(), PLACES[:, None], [PLACES]):
        assert torch.equal(nm.families.from_grid(axes, A[:, 0])(PLACES), A[:, 0])
    ints = nm.families.from_grid([0, 1, 2], torch.ones(3, 2, 2, dtype=torch.int64))
    assert (ints.dtype, ints.box.dtype) == (F64, F64)


def test_single_precision_parameters_find_their_points():
    family = nm.families.from_grid([SYMBOLS, TONES], waves(SYMBOLS, TONES))
    p = on_grid([SYMBOLS, TONES])
    assert torch.equal(family(p.float()), family(p))


@pytest.mark.parametrize("p", [[0.0, 0.5], [3.0, 1.0], [2.0, 72.0], [2.002, 3.0]])
def test_between_the_points_there_is_nothing(p):
    family = nm.families.from_grid([SYMBOLS, TONES], waves(SYMBOLS, TONES))
    with pytest.raises(nm.FamilyError, match="points of the grid"):
        family([p])
    good = torch.tensor([[2.0, 3.0], p], dtype=F64)
    assert family.evaluate(good)[1].tolist() == [True, False]


BAD_AXES = {
    "reversed": torch.tensor([2.0, 1.0, 0.0]),
    "irregular": torch.tensor([0.0, 2.0, 1.0]),
    "repeated": torch.tensor([0.0, 1.0, 1.0]),
    "NaN": torch.tensor([0.0, math.nan, 2.0]),
    "infinite": torch.tensor([0.0, 1.0, math.inf]),
    "complex": torch.tensor([0.0, 1.0, 2.0], dtype=torch.complex64),
    "one": torch.tensor([0.0]),
    "empty": torch.empty(0),
    "a matrix": torch.ones(3, 2),
}


@pytest.mark.parametrize("name", BAD_AXES)
def test_axes_that_do_not_rise_are_refused(name):
    axis = BAD_AXES[name]
    A = torch.ones(len(SYMBOLS), len(axis), 2, 2)
    assert_raises(ValueError, ["`axes[1]`", "rising", ";"], lambda: nm.families.from_grid([SYMBOLS, axis], A))


def test_matrices_of_another_number_are_refused():
    A = waves(SYMBOLS, TONES)
    for wrong in (A[1:], A[:, 1:], A.flatten(0, 1), A.mT[..., 0], A[None]):
        assert_raises(ValueError, ["`A`", f"({len(SYMBOLS)}, {len(TONES)}, 'm', 'n')"], lambda A=wrong: grid_of(A))
    assert_raises(TypeError, ["`A`"], lambda: grid_of(torch.ones(len(SYMBOLS), len(TONES), 2, 2).half()))
    assert_raises(ValueError, ["`axes`"], lambda: nm.families.from_grid([], A))


def grid_of(A):
    return nm.families.from_grid([SYMBOLS, TONES], A)


def test_a_family_that_is_nowhere_defined_is_refused():
    with pytest.raises(nm.FamilyError):
        nm.families.from_grid(TONES, torch.full((len(TONES), 2, 2), math.nan))


def test_a_grid_of_axes_is_not_a_grid_of_points():
    """Lists of numbers, and one tensor or array, are points as they always were."""

    def eye(p):
        return torch.eye(2, dtype=p.dtype) * (1 + p[:, :1, None])

    for grid in ([0, 1, 2], [[0.0], [2.0]], np.array([0.0, 2.0]), torch.tensor([[0.0], [2.0]])):
        assert nm.ParametricMatrix(eye, 0.0, 2.0, grid=grid).box.ticks is None
    family = nm.ParametricMatrix(eye, [0.0, 1.0], [2.0, 3.0], grid=[np.array([0.0, 2.0]), torch.tensor([1.0, 3.0])])
    assert family.grid.tolist() == [[0.0, 1.0], [0.0, 3.0], [2.0, 1.0], [2.0, 3.0]]
    axis = torch.tensor([0.0, 2.0])
    for ticks in ([axis], [axis, axis.flip(0)], [axis, axis[:1]], [axis, 1.5 * axis], [axis, axis, axis]):
        assert_raises(ValueError, ["`ticks", "expected", ";"], lambda t=ticks: nm.Box([0.0, 0.0], [2.0, 2.0], ticks=t))


def test_ticks_round_to_the_nearest():
    box = nm.Box(1.0, 1000.0, scale="log", ticks=[torch.tensor([1.0, 10.0, 1000.0])])
    x = torch.linspace(-1, 1, 1001, dtype=F64)[:, None]
    p = box.parameters(x)
    assert set(p.flatten().tolist()) == {1.0, 10.0, 1000.0}
    nearest = (x - box.places[0]).abs().argmin(dim=1)
    assert torch.equal(p[:, 0], box.ticks[0][nearest])
    assert set(box.uniform(50, torch.Generator().manual_seed(0)).flatten().tolist()) <= {1.0, 10.0, 1000.0}


def test_beside_and_joined_keep_the_grid():
    A = waves(SYMBOLS, TONES)
    left, right = nm.families.from_grid([SYMBOLS, TONES], A), nm.families.from_grid([SYMBOLS, TONES], A[..., :1])
    both = nm.families.beside(left, right)
    joined = nm.Problem(left, nm.LMMSE(noise=torch.eye(3, dtype=C128))).family
    for family in (both, joined):
        assert all(map(torch.equal, family.box.ticks, left.box.ticks))
        assert torch.equal(family.grid, left.grid)
    assert pieced(nm.Problem(both, nm.Solve(1))).report.met


# Fits


@pytest.mark.parametrize("d", AXES)
def test_only_points_of_the_grid_are_asked_for_and_none_is_solved_twice(d):
    axes = AXES[d]
    family = Watched(axes, waves(*axes))
    problem = nm.Problem(family, nm.Inverse())
    surrogate = pieced(problem)
    report, count = surrogate.report, len(family.grid)
    assert report.met and report.exact_solves <= count
    asked = torch.cat(family.asked)
    for own, axis in zip(asked.T, axes):
        assert torch.isin(own, axis).all()
    value = surrogate.grid(*axes)
    assert_close(value.flatten(0, d - 1), surrogate(family.grid), 500)
    assert (problem.residual(family.grid, value.flatten(0, d - 1)) > 1e-4).double().mean() <= 0.02
    held = {tuple(np.round(p, 9)) for piece in surrogate.pieces for p in itertools.product(*piece.nodes)}
    assert held <= {tuple(p) for p in family.grid.tolist()}
    if report.stop_reason is not StopReason.TABLE:
        assert len(held) <= report.exact_solves < count


@pytest.mark.parametrize("counts", [(2,), (3,), (2, 2), (2, 3), (5, 5), (2, 40), (2, 2, 2), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("matrices", [waves, rough])
@pytest.mark.parametrize("operation", [nm.Inverse(), nm.Equaliser(noise=0.1)], ids=str)
def test_tiny_grids_are_exact_or_within_the_tolerance(counts, matrices, operation):
    axes = [torch.arange(n, dtype=F64) for n in counts]
    problem = nm.Problem(nm.families.from_grid(axes, matrices(*axes)), operation)
    surrogate = pieced(problem, 1e-3)
    assert surrogate.report.met
    assert surrogate.report.collocation <= math.prod(counts)
    assert problem.residual(problem.family.grid, surrogate(problem.family.grid)).max() <= 1e-3


@pytest.mark.parametrize("axes", [[TONES], [SYMBOLS, TONES[:40]]], ids=["one", "two"])
def test_rough_matrices_are_all_solved(axes):
    family = Watched(axes, rough(*axes))
    problem = nm.Problem(family, nm.Inverse())
    report = (surrogate := pieced(problem)).report
    assert report.met and report.exact_solves <= len(family.grid)
    assert problem.residual(family.grid, surrogate(family.grid)).max() <= 1e-4


def test_cheap_solves_on_a_grid_are_taken_at_once(monkeypatch):
    counts, axes = {}, [torch.linspace(0, 1, 14, dtype=F64), torch.linspace(0, 40, 3000, dtype=F64)]
    own = refinement.Refinement._round
    found = []
    monkeypatch.setattr(refinement.Refinement, "_round", lambda self, active: found.append(1) or own(self, active))
    problem = nm.Problem(nm.families.from_grid(axes, waves(*axes, speed=1.0)), nm.Inverse())
    for name, budget in (("cheap", None), ("counted", 10_000)):
        found.clear()
        surrogate = pieced(problem, tol=1e-3, budget=budget)
        assert surrogate.report.met
        counts[name] = len(found), surrogate.report.exact_solves
    assert counts["cheap"][0] < counts["counted"][0], "fewer rounds"
    assert counts["counted"][1] < counts["cheap"][1] < 2000, "more solves, and few of the grid"


@pytest.mark.parametrize("many", [1, 3])
def test_a_share_of_the_grid_ends_the_fit(many):
    axes = [SYMBOLS, TONES]
    families = [Watched(axes, rough(*axes, seed=k)) for k in range(many)]
    problems = [nm.Problem(family, nm.Inverse()) for family in families]
    with pytest.warns(nm.FitWarning, match="used up"):
        found = nm.fit_many(problems, tol=1e-3, method=nm.Pieces(share=0.3), progress=False)
    for surrogate in found:
        report = surrogate.report
        assert not report.met and report.stop_reason is StopReason.BUDGET
        assert "30% of the points of the grid" in report.unmet[0].reason
        assert report.exact_solves <= 0.3 * len(families[0].grid)
        low, high = np.array([u.lower for u in report.unmet]), np.array([u.upper for u in report.unmet])
        assert low.min(axis=0).tolist() == [0, 0] and high.max(axis=0).tolist() == [12, 129]


def test_a_problem_that_is_nowhere_defined_leaves_the_others_their_share():
    families = [nm.families.from_grid([SYMBOLS, TONES], factor * waves(SYMBOLS, TONES)) for factor in (1.0, 0.0, 1.0)]
    problems = [nm.Problem(family, nm.Inverse()) for family in families]
    with pytest.warns(nm.FitWarning, match="singular"):
        found = nm.fit_many(problems, tol=1e-3, method=nm.Pieces(share=0.9), progress=False)
    assert [surrogate.report.met for surrogate in found] == [True, False, True]


def test_a_share_that_is_enough_changes_nothing():
    problem = nm.Problem(nm.families.from_grid([SYMBOLS, TONES], waves(SYMBOLS, TONES)), nm.Inverse())
    one, other = pieced(problem), pieced(problem, method=nm.Pieces(share=0.9))
    assert other.report.met
    assert all(torch.equal(x, tensors_of(other)[name]) for name, x in tensors_of(one).items())
    for share in (0.0, 1.5, "much", math.nan):
        with pytest.raises((ValueError, TypeError), match="`share`"):
            nm.Pieces(share=share)


def test_a_rough_grid_larger_than_the_limit_ends_honestly():
    axes = [torch.arange(60.0, dtype=F64), torch.arange(90.0, dtype=F64)]
    problem = nm.Problem(nm.families.from_grid(axes, rough(*axes, size=(1, 1))), nm.Inverse())
    with pytest.warns(nm.FitWarning):
        report = pieced(problem).report
    assert not report.met and report.unmet and report.exact_solves <= 4096 < len(problem.family.grid)


@pytest.mark.parametrize("d", [1, 2])
def test_missing_matrices_are_named_and_the_others_are_right(d):
    axes = AXES[d]
    A = waves(*axes)
    missing = torch.zeros(A.shape[:d], dtype=torch.bool)
    missing[..., 40:44] = True
    A[missing] = math.nan
    problem = nm.Problem(nm.families.from_grid(axes, A), nm.Inverse())
    p, good = problem.family.grid, ~missing.flatten()
    assert torch.equal(problem.family.evaluate(p)[1], good)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        surrogate = pieced(problem)
    assert surrogate.report.met == (not caught)
    r = problem.residual(p[good], surrogate(p[good]))
    assert (r > 1e-4).double().mean() <= 0.01 or not surrogate.report.met
    assert surrogate.report.exact_solves <= len(p)


@pytest.mark.parametrize("where", [[0], [62], [1249], [845, 184, 590, 474, 343]], ids=str)
def test_single_missing_matrices_are_gone_around(where):
    """In a corner, on an edge, and within: a node moves to another point."""
    axes = [SYMBOLS, TONES]
    A = waves(*axes)
    A.view(-1, 3, 3)[where] = math.nan
    problem = nm.Problem(nm.families.from_grid(axes, A), nm.Inverse())
    surrogate, p = pieced(problem), problem.family.grid
    good = problem.family.evaluate(p)[1]
    assert surrogate.report.met and good.sum() == len(p) - len(where)
    assert (problem.residual(p[good], surrogate(p[good])) > 1e-4).double().mean() <= 0.02


def test_logarithmic_axes():
    noise = torch.logspace(-3, 3, 61, dtype=F64)
    A = torch.eye(2, dtype=F64) * noise[:, None, None] + torch.ones(2, 2, dtype=F64)
    A = torch.stack([A, 1.1 * A], dim=1).repeat_interleave(3, dim=1)
    axes = [noise, torch.arange(6.0, dtype=F64)]
    problem = nm.Problem(nm.families.from_grid(axes, A, scale=("log", "linear")), nm.Inverse())
    surrogate = pieced(problem)
    assert problem.family.box.scale == ("log", "linear") and surrogate.report.met
    assert surrogate.report.exact_solves < 61 * 6
    assert_close(surrogate.grid(*axes), A.inverse(), 1e-3 / 2e-16)


@pytest.mark.parametrize("operation", [nm.SVD(rank=2), nm.Subspace(rank=2), nm.QR(), nm.LogDet()], ids=str)
def test_factors_with_a_gauge_on_a_grid(operation):
    axes = [SYMBOLS, TONES]
    A = waves(*axes, size=(4, 3)) if not isinstance(operation, nm.LogDet) else waves(*axes)
    A = A + torch.diag_embed(torch.arange(3.0, 0.0, -1.0).to(C128))[[*range(3), 2][: A.shape[-2]]]
    problem = nm.Problem(nm.families.from_grid(axes, A), operation)
    surrogate = pieced(problem, 1e-3)
    assert surrogate.report.met, surrogate.report
    p = problem.family.grid
    assert (problem.residual(p, surrogate(p)) > 1e-3).double().mean() <= 0.02


def test_certified_answers_at_points_of_a_grid():
    axes = [SYMBOLS, TONES]
    problem = nm.Problem(nm.families.from_grid(axes, waves(*axes)), nm.Inverse())
    p = problem.family.grid[::7]
    checked = nm.certify(pieced(problem), problem, p, rtol=1e-2)
    assert checked.accepted.all()
    assert (problem.error(p, checked.value) <= checked.bound * (1 + 1e-9)).all()
    assert not nm.certify(pieced(problem), problem, p[:9] + 0.25, rtol=1e-2).accepted.any()  # nothing is known there


@pytest.mark.parametrize("axes", [[TONES], [SYMBOLS, TONES]], ids=["one", "two"])
def test_the_closed_form_solves_at_points(axes):
    family = Watched(axes, waves(*axes))
    problem = nm.Problem(family, nm.Inverse())
    surrogate = nm.fit(problem, rank=8, progress=False)
    for own, axis in zip(torch.cat(family.asked).T, axes):
        assert torch.isin(own, axis).all()
    p = family.grid
    assert problem.error(p, surrogate(p)).median() < 0.05


@pytest.mark.parametrize("peer", [nm.peers.spline, nm.peers.chebyshev, nm.peers.aaa], ids=lambda f: f.__name__)
def test_peers_solve_at_points(peer):
    problem = nm.Problem(nm.families.from_grid(TONES, waves(TONES)), nm.Inverse())
    found = peer(problem, 9)
    assert problem.error(TONES, found(TONES)).median() < 0.1


def test_files_keep_the_map(tmp_path):
    axes = [SYMBOLS, TONES]
    surrogate = pieced(nm.Problem(nm.families.from_grid(axes, waves(*axes)), nm.Inverse()))
    nm.save(surrogate, tmp_path / "map.safetensors")
    loaded = nm.load(tmp_path / "map.safetensors")
    assert torch.equal(loaded.grid(*axes), surrogate.grid(*axes))
    assert loaded.report.to_dict() == surrogate.report.to_dict()
    assert pieced(nm.Problem(nm.families.from_grid(axes, waves(*axes)), nm.Inverse()), start=loaded).report.met


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_single_precision_maps_of_a_grid(dtype):
    axes = [SYMBOLS, TONES]
    A = waves(*axes, dtype=C128 if dtype.is_complex else F64).to(dtype)
    problem = nm.Problem(nm.families.from_grid(axes, A), nm.Inverse())
    surrogate = pieced(problem, 1e-3)
    assert surrogate.report.met and surrogate.grid(*axes).dtype == dtype


# Starts


def oscillating(cycles=3.0, phase=0.0, d=1):
    """A family whose inverse needs several pieces: a rotation and a part that stays."""

    def fn(p):
        phases = 6.3 * cycles * p.sum(dim=1) + phase
        wave = torch.stack([phases.cos(), phases.sin(), -phases.sin(), phases.cos()], dim=1).view(-1, 2, 2)
        return 3 * torch.eye(2, dtype=p.dtype) + wave

    return nm.Problem(nm.ParametricMatrix(fn, [0.0] * d, [1.0] * d, dtype=F64), nm.Inverse())


@pytest.mark.parametrize("d", [1, 2])
def test_a_start_of_the_same_problem_is_taken_as_it_is(d):
    problem = oscillating(3.0 / d**2, d=d)
    first = pieced(problem)
    again = pieced(problem, start=first)
    assert again.report.met and len(again.pieces) == len(first.pieces) > 1
    assert again.report.exact_solves <= first.report.exact_solves
    p = problem.family.box.uniform(200, torch.Generator().manual_seed(1))
    assert_close(again(p), first(p), 1e4)  # nodes come through the bounds of pieces and back


def test_nodes_that_pieces_share_are_solved_once(monkeypatch):
    solved = []

    @dataclasses.dataclass(frozen=True)
    class Counted(nm.Inverse):
        def exact(self, A):
            solved.append(len(A))
            return super().exact(A)

    try:
        problem = nm.Problem(oscillating(0.75, d=2).family, Counted())
        first = pieced(problem)
        solved.clear()
        again = pieced(problem, start=first)
        points = {tuple(np.round(p, 9)) for piece in again.pieces for p in itertools.product(*piece.nodes)}
        assert sum(solved) == again.report.exact_solves == len(points)
        assert sum(piece.terms for piece in again.pieces) > len(points)
    finally:
        del nm.Operation.registry["Counted"]


def test_a_harder_problem_is_refined_from_a_start():
    first = pieced(oscillating(cycles=2.0))
    hard = oscillating(cycles=9.0)
    found = pieced(hard, start=first)
    assert found.report.met and len(found.pieces) > len(first.pieces)
    p = hard.family.box.uniform(300, torch.Generator().manual_seed(1))
    assert (hard.residual(p, found(p)) > 1e-4).double().mean() <= 0.02


def test_slot_after_slot_takes_hardly_more_solves_than_alone():
    first = pieced(oscillating())
    following = oscillating(phase=0.05)
    found = pieced(following, start=first).report
    assert found.met and found.exact_solves <= 1.1 * pieced(following).report.exact_solves


def test_a_start_of_another_box_is_refused():
    first = pieced(oscillating())
    other = oscillating()
    family = nm.ParametricMatrix(other.family.fn, [0.0], [2.0], dtype=F64)
    words = ["`start`", "box", "[0, 2]", "[0, 1]", ";"]
    assert_raises(ValueError, words, lambda: pieced(nm.Problem(family, nm.Inverse()), start=first))
    assert_raises(ValueError, ["`start`"], lambda: pieced(oscillating(d=2), start=first))
    assert_raises(TypeError, ["`start`", "nm.Surrogate"], lambda: pieced(other, start=first.report))


def starts():
    """Surrogates on the unit interval that are no pieces: a table, a rational function, one subspace."""
    grid = torch.linspace(0, 1, 5, dtype=F64)
    table = pieced(nm.Problem(nm.families.from_grid(grid, rough(grid, size=(2, 2), dtype=F64)), nm.Inverse()))
    assert table.report.stop_reason is StopReason.TABLE
    near = nm.ParametricMatrix(
        lambda p: torch.eye(2, dtype=p.dtype) * (0.01 + (p[:, :1, None] - 0.4) ** 2), 0.0, 1.0, dtype=F64
    )
    poles = pieced(nm.Problem(near, nm.Inverse()), 1e-9)
    assert isinstance(poles.maps[0].embedding, nm.Rational)
    return {"table": table, "rational": poles, "one subspace": nm.fit(oscillating(), rank=4, progress=False)}


def test_starts_that_are_no_pieces_are_ignored():
    plain = pieced(oscillating())
    for name, start in starts().items():
        found = pieced(oscillating(), start=start)
        assert found.report.exact_solves == plain.report.exact_solves, name
        assert all(torch.equal(x, tensors_of(plain)[key]) for key, x in tensors_of(found).items()), name


def test_a_sparse_start_is_ignored():
    problem = oscillating(cycles=0.1, d=3)
    first = pieced(problem)
    assert isinstance(first.maps[0].embedding, nm.SparsePolynomials)
    again = pieced(problem, start=first)
    assert torch.equal(again.maps[0].core, first.maps[0].core)


def test_many_begin_from_one():
    problems = [oscillating(phase=0.1 * k) for k in range(3)]
    first = nm.fit_many(problems, tol=1e-4, progress=False)
    again = nm.fit_many(problems, tol=1e-4, start=first[0], progress=False)
    for one, other in zip(first, again):
        assert other.report.met and len(other.pieces) == len(one.pieces)
        assert other.report.exact_solves <= one.report.exact_solves
    with pytest.raises(ValueError, match="`start`"):
        nm.fit_many([oscillating(d=2)] * 2, tol=1e-4, start=first[0], progress=False)


def test_a_start_on_another_grid_of_the_same_box():
    """Bounds and nodes move to points of the new grid; a start whose pieces vanish there is left."""
    fine = torch.arange(0.0, 129.0, dtype=F64)
    dense = nm.Problem(nm.families.from_grid([SYMBOLS, fine], waves(SYMBOLS, fine, speed=0.05)), nm.Inverse())
    first = pieced(dense, 1e-5)
    assert len(first.pieces) > 1
    for axis in (fine[::2], fine[fine % 16 < 3], fine[[0, 1, 128]], TONES[TONES < 129]):
        axes = [SYMBOLS, axis]
        problem = nm.Problem(Watched(axes, waves(*axes, speed=0.05)), nm.Inverse())
        found = pieced(problem, 1e-5, start=first)
        assert found.report.met
        p = problem.family.grid
        assert (problem.residual(p, found(p)) > 1e-5).double().mean() <= 0.02
        for own, ticks in zip(torch.cat(problem.family.asked).T, axes):
            assert torch.isin(own, ticks).all()


def test_the_order_of_nodes_is_that_of_leja():
    at = np.array([-1.0, -0.5, 0.0, 0.2, 1.0])
    assert nodes.ordered(at).tolist() == [-1.0, 1.0, 0.0, -0.5, 0.2]
    assert nodes.ordered(np.array([0.2, -0.5]), np.array([0.3])).tolist() == [0.3, -0.5, 0.2]
    assert nodes.ordered(at[:1]).tolist() == [-1.0]
    assert pieces.Pieces() == pieces.Pieces(share=1.0)


# An axis along which hardly anything changes


def parts_of(value):
    return [value] if isinstance(value, torch.Tensor) else list(value)


def slow(axis, *, change=1e-6):
    """A grid on which matrices change as `waves` do, and along one axis by a small part of themselves."""
    moved = 1 + change * torch.linspace(-1, 1, len(SYMBOLS), dtype=F64)
    A = moved[:, None, None, None] * waves(TONES)
    return ([TONES, SYMBOLS], A.transpose(0, 1)) if axis else ([SYMBOLS, TONES], A)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("operation", [nm.Inverse(), nm.LMMSE(noise=0.1), nm.SVD(rank=2)], ids=str)
def test_what_does_not_change_along_an_axis_is_held_there(axis, operation):
    axes, A = slow(axis)
    A = A + torch.diag_embed(torch.tensor([2.0, 1.0, 0.0]).to(C128))
    problem = nm.Problem(nm.families.from_grid(axes, A, names=("p", "q")), operation)
    surrogate = pieced(problem, 1e-3)
    assert surrogate.report.met and "does not change along " + "pq"[axis] in surrogate.report.message
    assert "periodic" not in surrogate.report.message, "there is nothing that goes round"
    assert all(len(piece.nodes[axis]) == 1 < len(piece.nodes[1 - axis]) for piece in surrogate.pieces)
    p = problem.family.grid
    assert problem.residual(p, surrogate(p)).max() <= 1e-3
    value, out = surrogate.grid(*axes), surrogate(p)
    parts = zip(parts_of(value), parts_of(out))
    for grid, own in parts:
        assert_close(grid.flatten(0, 1), own, 1e4)
        assert torch.equal(grid.select(axis, 0), grid.select(axis, -1)) and grid.is_contiguous()
    memory = tuple(torch.empty_like(x) for x in parts_of(value))
    surrogate.grid(*axes, out=memory if len(memory) > 1 else memory[0])
    for grid, own in zip(parts_of(value), memory):
        assert torch.equal(grid, own)


@pytest.mark.parametrize("changes", [1e-6, 1e-2])
def test_many_are_held_where_none_of_them_changes(changes):
    axes, A = slow(0)
    problems = [
        nm.Problem(nm.families.from_grid(axes, x), nm.Inverse()) for x in (A, 2 * A, slow(0, change=changes)[1])
    ]
    found = nm.fit_many(problems, tol=1e-3, method=nm.Pieces(), progress=False)
    held = changes < 1e-3
    for problem, surrogate in zip(problems, found):
        assert surrogate.report.met and ("does not change" in surrogate.report.message) == held
        assert all((len(piece.nodes[0]) == 1) == held for piece in surrogate.pieces)
        p = problem.family.grid
        assert problem.residual(p, surrogate(p)).max() <= 1e-3
        assert_close(surrogate.grid(*axes).flatten(0, 1), surrogate(p), 1e4)


def test_what_changes_by_more_than_the_tolerance_is_not_held():
    axes, A = slow(0, change=1e-2)
    problem = nm.Problem(nm.families.from_grid(axes, A), nm.Inverse())
    surrogate, p = pieced(problem, 1e-3), problem.family.grid
    assert "does not change" not in surrogate.report.message
    assert surrogate.report.met and problem.residual(p, surrogate(p)).max() <= 1e-3
    assert "does not change" in pieced(problem, 0.1).report.message


def test_a_bump_between_the_nodes_is_not_held_away():
    """The ends of an axis are the same, its middle is not."""
    axes, A = slow(0, change=0.0)
    A = A * (1 + 0.1 * torch.sin(torch.linspace(0, math.pi, len(SYMBOLS), dtype=F64)))[:, None, None, None]
    problem = nm.Problem(nm.families.from_grid(axes, A), nm.Inverse())
    surrogate, p = pieced(problem, 1e-3), problem.family.grid
    assert surrogate.report.met and problem.residual(p, surrogate(p)).max() <= 1e-3


def test_turns_along_an_axis_that_is_held_are_put_back():
    times, tones = torch.linspace(0, 1, 200, dtype=F64), TONES
    A = waves(tones) * torch.exp(2j * math.pi * 20 * times)[:, None, None, None]
    problem = nm.Problem(nm.families.from_grid([times, tones], A), nm.Inverse())
    surrogate, p = pieced(problem, 1e-3), problem.family.grid
    assert surrogate.turns is not None and "does not change" in surrogate.report.message
    assert_close(surrogate.grid(times, tones).flatten(0, 1), surrogate(p), 1e4)
    assert problem.residual(p, surrogate(p)).max() <= 1e-3


def test_a_fit_begins_from_a_map_that_holds_an_axis(tmp_path):
    axes, A = slow(0)
    problem = nm.Problem(nm.families.from_grid(axes, A), nm.Inverse())
    before = pieced(problem, 1e-3)
    nm.save(before, tmp_path / "map.safetensors")
    loaded = nm.load(tmp_path / "map.safetensors")
    assert torch.equal(loaded.grid(*axes), before.grid(*axes))
    again = pieced(problem, 1e-3, start=loaded)
    assert again.report.met and again.report.exact_solves <= before.report.exact_solves
    assert_close(again.grid(*axes), before.grid(*axes), 1e4)
