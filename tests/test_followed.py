"""Labels that are kept through crossings, and vectors inside blocks that are continuous after evaluation."""

import copy
import math
import warnings

import pytest
import torch
from conftest import assert_close, assert_raises, eps, gaussian

import neumatc as nm

DOUBLE = torch.float64
WIDE = [torch.float64, torch.complex128]
wide = pytest.mark.parametrize("dtype", WIDE, ids=lambda dtype: str(dtype).removeprefix("torch."))
# One map for the box; and a tolerance with pieces of few nodes.
FITS = {"one map": {"rank": 32}, "pieces": {"tol": 1e-8, "rank": 8}}
ways = pytest.mark.parametrize("way", FITS)
OPERATIONS = [nm.Eigh, nm.SVD, nm.Eig]
each = pytest.mark.parametrize("kind", OPERATIONS)


def branches(p):
    """Four values, of which the first crosses two others."""
    return torch.cat([1 + 3 * p, 2 + 0 * p, 4.5 - p, 6 + p.sin()], dim=1)


def turned(values, dtype, speed=6.0):
    """A family with these values (B, K) of p, its vectors turning."""
    K = gaussian(4, 4, dtype=dtype, seed=1)
    K = speed * (K - K.mH) / K.norm()

    def fn(p):
        R = torch.matrix_exp(p[:, :, None] * K)
        return R @ torch.diag_embed(values(p)).to(dtype) @ R.mH

    return fn


def family_of(fn, lower=0.0, upper=1.0, **axes):
    return nm.ParametricMatrix(fn, lower, upper, dtype=DOUBLE, **axes)


def fitted(family, operation, way="pieces", **settings):
    """The problem and its surrogate."""
    problem = nm.Problem(family, operation)
    settings = {**FITS[way], **settings}
    if "tol" not in settings:  # no more than the real numbers of a factor
        most = max(math.prod(factor.shape) for factor in problem.factors) * (1 + family.dtype.is_complex)
        settings["rank"] = min(settings["rank"], most)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return problem, nm.fit(problem, **settings, progress=False)


def parts(value):
    """Values and vectors, of a singular value decomposition both sides on top of each other."""
    if hasattr(value, "S"):
        return value.S, torch.cat([value.U, value.Vh.mH], dim=1) / 2**0.5
    return value


def least_overlap(V):
    """Least overlap of neighbours, for each column: its real part, 1 for vectors that hardly move."""
    return (V[1:].conj() * V[:-1]).sum(dim=1).real.min(dim=0).values


def line(low=0.0, high=1.0, count=2001):
    return torch.linspace(low, high, count, dtype=DOUBLE)[:, None]


# Labels


@each
@ways
@wide
def test_a_column_is_one_branch_in_the_order_of_the_lower_end(kind, way, dtype):
    family = family_of(turned(branches, dtype))
    _, surrogate = fitted(family, kind(order="followed"), way)
    assert way == "one map" or len(surrogate.pieces) >= 4
    values, V = parts(surrogate(line()))
    expected = branches(line())
    if kind is nm.SVD:
        expected = expected.flip(1)
    if kind is nm.Eig:  # in any order
        order = values[0].real.argsort()
        values, V = values[:, order], V[:, :, order]
    assert (values - expected).abs().max() < 1e-6
    assert least_overlap(V).min() > 0.9999


@each
def test_labels_go_on_over_faces(kind):
    _, surrogate = fitted(family_of(turned(branches, DOUBLE)), kind(order="followed"))
    faces = torch.tensor([piece.lower for piece in surrogate.pieces[1:]], dtype=DOUBLE)
    at, below, above = (parts(surrogate(faces + step)) for step in (0, -1e-9, 1e-9))
    for x, y, z in zip(at, below, above):
        assert max((x - y).abs().max(), (x - z).abs().max()) < 1e-6


@each
@ways
def test_labels_survive_a_file(kind, way, tmp_path):
    _, surrogate = fitted(family_of(turned(near_and_far, DOUBLE)), kind(order="followed"), way)
    nm.save(surrogate, tmp_path / "labels.safetensors")
    loaded = nm.load(tmp_path / "labels.safetensors")
    assert loaded.operation == kind(order="followed")
    assert all(torch.equal(x, y) for x, y in zip(loaded(line()), surrogate(line())))


def near_and_far(p):
    return torch.cat([1 + p, 2 - p, 4 + p, 6 - p], dim=1)


def missed(p, gap=0.02):
    """A near miss of the first two of four values at 0.5, which the third crosses at 0.25 and 0.75."""
    a, one = 2 * (p - 0.5), torch.ones_like(p)
    A = torch.diag_embed(torch.cat([3 + a, 3 - a, 3 + 0 * a, 6 * one], dim=1))
    A[:, 2, 2] = 3 + 0.5 - 2 * (p[:, 0] - 0.5).abs().square() * 4
    A[:, 0, 1] = A[:, 1, 0] = gap
    return A


def branches_of_missed(p, gap=0.02):
    a = 2 * (p - 0.5)
    half = (a.square() + gap**2).sqrt()
    return torch.cat([3 - half, 3 + half, 3 + 0.5 - 8 * (p - 0.5).square(), 6 + 0 * p], dim=1)


@ways
@pytest.mark.parametrize("kind", [nm.Eigh, nm.SVD])
@wide
def test_a_branch_goes_on_through_a_block(kind, way, dtype):
    """Two values miss each other, which is resolved as a block; a third crosses both."""
    K = gaussian(4, 4, dtype=dtype, seed=2)
    K = (K - K.mH) / K.norm()

    def fn(p):
        R = torch.matrix_exp(p[:, :, None] * K)
        return R @ missed(p).to(dtype) @ R.mH

    settings = {"rank": 32, "method": nm.ClosedForm(snapshots=400)} if way == "one map" else {}
    _, surrogate = fitted(family_of(fn), kind(order="followed"), way, **settings)
    values, V = parts(surrogate(line(count=20001)))
    expected = branches_of_missed(line(count=20001))
    order = expected[0].argsort(descending=kind is nm.SVD)
    assert (values - expected[:, order]).abs().max() < 1e-4
    assert least_overlap(V).min() > 0.99


@pytest.mark.parametrize("kind", [nm.Eigh, nm.SVD])
@ways
def test_with_a_rank_the_branches_are_those_wanted_at_the_lower_end(kind, way):
    """The two largest at 0; the first, smallest there, is the second largest at 1."""
    problem, surrogate = fitted(family_of(turned(branches, DOUBLE)), kind(rank=2, order="followed"), way)
    values, V = parts(surrogate(line()))
    expected = branches(line())[:, 2:]
    assert (values - (expected.flip(1) if kind is nm.SVD else expected)).abs().max() < 1e-6
    assert least_overlap(V).min() > 0.9999
    assert problem.residual(line(), surrogate(line())).max() < 1e-5


@ways
@wide
def test_a_followed_singular_value_changes_its_sign_where_it_is_zero(way, dtype):
    family = family_of(turned(lambda p: branches(p) - 3, dtype))
    problem, surrogate = fitted(family, nm.SVD(order="followed"), way)
    U, S, Vh = surrogate(line())
    assert (S[0] >= 0).all()
    expected = branches(line()) - 3
    expected = (expected * expected[:1].sign()).gather(1, expected[:1].abs().argsort(descending=True).expand(2001, -1))
    assert (S - expected).abs().max() < 1e-6
    assert min(least_overlap(U).min(), least_overlap(Vh.mH).min()) > 0.9999
    assert problem.error(line(), (U, S, Vh)).max() < 1e-5


def test_certified_values_keep_the_labels():
    problem, surrogate = fitted(family_of(turned(branches, DOUBLE)), nm.SVD(order="followed"), tol=1e-2)
    p = line(count=104)
    certified = nm.certify(surrogate, problem, p, rtol=1e-9)
    assert not certified.accepted.all()
    for x, y in zip(certified.value, surrogate(p)):
        assert (x - y).abs().max() < 0.1
    assert_close(certified.value.S[~certified.accepted], branches(p).flip(1)[~certified.accepted], units=1e3)


@pytest.mark.parametrize("operation", [kind(order="followed") for kind in OPERATIONS], ids=str)
def test_labels_are_refused_where_they_change_places(operation):
    family = nm.ParametricMatrix(lambda p: torch.eye(3, dtype=DOUBLE) + p.sum(dim=1)[:, None, None], [0, 0], [1, 1])
    words = ["`order`", "2 parameters", "degeneracy", "hold all parameters but one fixed"]
    assert_raises(ValueError, words, lambda: nm.Problem(family, operation))


def test_training_refuses_to_keep_labels():
    problem = nm.Problem(family_of(turned(branches, DOUBLE)), nm.Eigh(order="followed"))
    words = ["`order`", "nm.ResidualTraining", "nm.ClosedForm"]
    assert_raises(ValueError, words, lambda: nm.fit(problem, rank=4, method=nm.ResidualTraining(steps=5)))


@pytest.mark.parametrize(("kind", "default"), [(nm.Eigh, "sorted"), (nm.SVD, "sorted"), (nm.Eig, "any")])
def test_other_orders_are_refused(kind, default):
    assert kind().order == default
    assert_raises(ValueError, ["`order`", default, "followed", "ascending"], lambda: kind(order="ascending"))


@pytest.mark.parametrize("order", ["sorted", "followed"])
def test_a_report_says_what_to_take_where_vectors_change_places(order):
    _, surrogate = fitted(family_of(turned(branches, DOUBLE)), nm.Eigh(order=order))
    said = surrogate.report.message
    assert ("order='followed'" in said and "nm.Subspace" in said) == (order == "sorted"), said


# Around


def hopping(p):
    """Two sites in a cell, with equal hops: energies of 2 cos(p / 2) and its negative, which cross at pi."""
    z = 1 + torch.exp(1j * p[:, 0])
    return torch.stack([torch.zeros_like(z), z, z.conj(), torch.zeros_like(z)], dim=1).view(-1, 2, 2)


@pytest.mark.parametrize("way", ["one map", "pieces"])
def test_labels_that_do_not_return_are_cut_at_the_seam_and_reported(way):
    settings = {"rank": 8, "method": nm.ClosedForm(snapshots=41)} if way == "one map" else {}
    family = family_of(hopping, 0.0, 2 * math.pi, periodic=True)
    _, surrogate = fitted(family, nm.Eigh(order="followed"), way, **settings)
    p = line(0, 2 * math.pi)
    values, V = surrogate(p)
    assert (values[:, 1] - 2 * (p[:, 0] / 2).cos()).abs().max() < 1e-4
    assert (values[:, 0] + 2 * (p[:, 0] / 2).cos()).abs().max() < 1e-4
    assert least_overlap(V).min() > 0.9999
    assert any(event.kind == "loop" for event in surrogate.report.events)


@wide
@pytest.mark.parametrize("order", ["sorted", "followed"])
def test_vectors_are_those_of_the_guide_where_all_values_pass_through_zero(order, dtype):
    guide, _ = torch.linalg.qr(gaussian(50, 3, 3, dtype=dtype, seed=1))
    M = eps(dtype) * gaussian(50, 3, 3, dtype=dtype, seed=2)  # nothing but rounding, where elsewhere it is about 2
    frames = torch.eye(3, dtype=dtype).expand(50, 3, 3).clone()
    values, V = torch.empty(50, 3, dtype=DOUBLE), torch.empty(50, 3, 3, dtype=dtype)
    nm.Eigh(order=order).finish([M + M.mH, frames, 2 * guide], [values, V])
    assert_close(V, guide)


@wide
@ways
def test_labels_that_return_go_around(way, dtype):
    K = [0.1 * (k - k.mH) for k in (gaussian(3, 3, dtype=dtype, seed=s) for s in (3, 4))]

    def fn(p):
        R = torch.matrix_exp(p.cos()[:, :, None] * K[0]) @ torch.matrix_exp(p.sin()[:, :, None] * K[1])
        return R @ torch.diag_embed(values(p)).to(dtype) @ R.mH

    def values(p):
        return torch.cat([1 + p.sin(), 1.5 + 0 * p, 4 - p.cos()], dim=1)

    _, surrogate = fitted(family_of(fn, 0.0, 2 * math.pi, periodic=True), nm.Eigh(order="followed"), way)
    p = line(0, 2 * math.pi, 4001)[:-1]
    w, V = surrogate(p)
    assert (w - values(p)).abs().max() < 1e-4
    assert least_overlap(torch.cat([V, V[:1]])).min() > 0.999


@pytest.mark.parametrize("kind", [nm.Eigh, nm.SVD])
def test_complex_vectors_of_a_block_go_around(kind):
    """A spin in a field that turns, beside a third value: one block, whose vectors have a Berry phase."""

    def fn(p):
        azimuth = torch.exp(-1j * p[:, 0])
        A = torch.diag_embed(torch.tensor([3.3, 2.7, 5.0], dtype=torch.complex128)).repeat(len(p), 1, 1)
        A[:, 0, 1], A[:, 1, 0] = 0.6 * azimuth, 0.6 * azimuth.conj()
        return A

    family = family_of(fn, 0.0, 2 * math.pi, periodic=True)
    problem, surrogate = fitted(family, kind(rank=3, gauge="subspace"), "one map", rank=16)
    p = line(0, 2 * math.pi, 1001)[:-1]
    value = surrogate(p)
    assert problem.error(p, value).max() < 1e-4
    V = parts(value)[1]
    steps = (V.roll(-1, 0) - V).norm(dim=1)
    assert steps.max() < 1.2 * steps.min(dim=0).values.max()


# Signs and phases inside blocks


@wide
@ways
@pytest.mark.parametrize("order", ["sorted", "followed"])
@pytest.mark.parametrize("gap", [0.1, 0.02])
def test_vectors_of_a_block_are_continuous(gap, order, way, dtype):
    """At a near miss two vectors turn by 90 degrees: no sign is that of the largest overlap with one frame."""
    K = gaussian(4, 4, dtype=dtype, seed=2)
    K = 3 * (K - K.mH) / K.norm()

    def fn(p):
        R = torch.matrix_exp(p[:, :, None] * K)
        A = missed(p, gap)
        A[:, 2, 2] = 5
        return R @ A.to(dtype) @ R.mH

    settings = {"method": nm.ClosedForm(snapshots=100), "rank": 32} if way == "one map" else {"tol": 1e-5}
    _, surrogate = fitted(family_of(fn), nm.Eigh(order=order), way, **settings)
    V = surrogate(line(count=8001)).eigenvectors
    assert least_overlap(V).min() > 0.999
    faces = torch.tensor([piece.lower for piece in surrogate.pieces[1:]], dtype=DOUBLE).reshape(-1, 1)
    if len(faces):
        ends = [surrogate(faces + step).eigenvectors for step in (-1e-9, 0, 1e-9)]
        assert max((ends[0] - ends[1]).abs().max(), (ends[2] - ends[1]).abs().max()) < 1e-4


@wide
@pytest.mark.parametrize("kind", [nm.Eigh, nm.SVD])
def test_a_block_survives_a_file_a_copy_and_another_precision(kind, dtype, tmp_path):
    family = family_of(lambda p: missed(p, 0.1).to(dtype) + 1)
    _, surrogate = fitted(family, kind(gauge="subspace"), tol=1e-6)
    assert len(surrogate.maps) > len(kind().factors(4, 4))
    nm.save(surrogate, tmp_path / "block.safetensors")
    loaded, p = nm.load(tmp_path / "block.safetensors"), line(count=101)
    for other in (loaded, copy.deepcopy(surrogate)):
        assert all(torch.equal(x, y) for x, y in zip(other(p), surrogate(p)))
    value, single = parts(surrogate(p)), parts(loaded.to(torch.float32)(p))
    assert max((x - y).abs().max() for x, y in zip(single, value)) < 1e-3


@pytest.mark.parametrize("kind", [nm.Eigh, nm.SVD])
@ways
def test_equal_values_do_not_change_places_by_rounding(kind, way):
    """Every value twice: which is first of two equal ones is not for rounding to say."""
    inner = turned(near_and_far, DOUBLE)
    family = family_of(lambda p: torch.stack([torch.kron(A, torch.eye(2, dtype=DOUBLE)) for A in inner(p)]), 0.0, 0.4)
    problem, surrogate = fitted(family, kind(), way, **({"tol": 1e-6} if way == "pieces" else {}))
    value = surrogate(line(0, 0.4))
    assert least_overlap(parts(value)[1]).min() > 0.999
    assert problem.error(line(0, 0.4), value).max() < 1e-5


@pytest.mark.parametrize("kind", [nm.Eigh, nm.SVD])
@pytest.mark.parametrize("way", [{"rank": 32}, {"tol": 1e-4}], ids=["one map", "pieces"])
def test_signs_of_two_parameters_are_those_nearest_to_the_frames(kind, way):
    """Around no degeneracy there is a continuous choice, and a block in the frames of the map makes it."""

    def fn(p):
        A = torch.diag_embed(torch.tensor([2.0, 3, 5], dtype=DOUBLE)).repeat(len(p), 1, 1)
        A[:, 0, 1] = A[:, 1, 0] = p[:, 0] - 0.4
        A[:, 1, 2] = A[:, 2, 1] = 0.3 * p[:, 1]
        return A

    family = nm.ParametricMatrix(fn, [0.0, 0.0], [1.0, 1.0], dtype=DOUBLE)
    _, surrogate = fitted(family, kind(gauge="subspace"), "one map", **{"rank": None, **way})
    grid = torch.linspace(0, 1, 41, dtype=DOUBLE)
    V = parts(surrogate(torch.cartesian_prod(grid, grid)))[1].view(41, 41, -1, 3)
    assert min((V[1:] * V[:-1]).sum(dim=2).min(), (V[:, 1:] * V[:, :-1]).sum(dim=2).min()) > 0.9


@pytest.mark.parametrize("operation", [nm.SVD(rank=2, order="followed"), nm.Eigh(rank=2, order="followed")], ids=str)
def test_where_values_tie_with_others_the_branches_are_those_that_lead_after_that(operation):
    """At the lower end the second value is zero, as three others are."""
    Q = torch.linalg.qr(gaussian(5, 5, dtype=torch.float64))[0]

    def fn(p):
        values = torch.cat([2 + p, p, 0 * p, 0 * p, 0 * p], dim=1)
        turn = torch.matrix_exp(0.3 * p[:, :, None] * (Q - Q.T))
        return (turn * values[:, None]) @ turn.mT

    problem = nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0]), operation)
    surrogate, p = nm.fit(problem, tol=1e-6, progress=False), torch.linspace(0.05, 1, 50, dtype=torch.float64)
    assert surrogate.report.met and problem.error(p, surrogate(p)).max() < 1e-4
