"""The gauge: frames in random phases and orders become continuous, and what prevents that is reported where it is."""

import functools
import itertools
import math

import pytest
import torch
from conftest import assert_close, gaussian, generator, parameters

import neumatc as nm
from neumatc import gauge

WIDE = [torch.float64, torch.complex128]
wide = pytest.mark.parametrize("dtype", WIDE, ids=lambda dtype: str(dtype).removeprefix("torch."))


def skew(n, dtype, seed, size=0.4):
    K = gaussian(n, n, dtype=dtype, seed=seed)
    return size * (K - K.mH)


def turning(n, dtype, d=1, size=0.4):
    """A smooth unitary matrix Q(x) of x (N, d)."""
    generators = [skew(n, dtype, seed=5 + i, size=size / d) for i in range(d)]

    def Q(x):
        return functools.reduce(
            torch.matmul, [torch.matrix_exp(x[:, i, None, None] * K) for i, K in enumerate(generators)]
        )

    return Q


def scrambled(frames, values, seed=0):
    """Columns in random phases (signs, for real ones) and orders, their values with them; and where each went."""
    count, _, K = frames.shape
    z = gaussian(count, K, dtype=frames.dtype, seed=seed)
    order = torch.stack([torch.randperm(K, generator=generator(seed + i)) for i in range(count)])
    frames = (frames * (z / z.abs())[:, None, :]).gather(2, order[:, None, :].expand_as(frames))
    return frames, values.gather(1, order), order


def cube(count, d, seed=0):
    """Points of [-1, 1]^d: Chebyshev's for one parameter, in a random order; a grid, slightly moved, for several."""
    if d == 1:
        x = torch.cos((torch.arange(count, dtype=torch.float64) + 0.5) * math.pi / count)[:, None]
        return x[torch.randperm(count, generator=generator(seed))]
    side = round(count ** (1 / d))
    grid = torch.linspace(-1, 1, side, dtype=torch.float64)
    x = torch.cartesian_prod(*[grid] * d)
    return (x + 0.2 / side * (2 * parameters(len(x), d, seed=seed) - 1)).clamp(-1, 1)


def aligned(frames, values, x, **options):
    wanted = options.pop("wanted", torch.ones(values.shape, dtype=torch.bool))
    result = gauge.align(frames, values, x, wanted, **options)
    W = result.rotations
    assert W.dtype == frames.dtype
    # Unitary, as far as a product is whose factors may be as many as the snapshots, each off by some units.
    assert_close(W.mH @ W, torch.eye(W.shape[2], dtype=W.dtype).expand(len(W), -1, -1), units=50 + 4 * len(W))
    return result, frames @ W


def labels_of(result, order):
    """For each parameter and label of a result without blocks, the column of the smooth frame that it follows."""
    assert result.separate
    return order.gather(1, result.rotations.abs().argmax(dim=1))


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("K", [1, 2, 5])
@wide
def test_frames_in_random_phases_and_orders_become_continuous(K, d, dtype):
    x = cube(64, d)
    frames = turning(7, dtype, d, size=0.15)(x)[:, :, :K]
    values = torch.arange(K, 0, -1, dtype=torch.float64) + 0.3 * x.sum(dim=1, keepdim=True).sin()
    mixed, held, order = scrambled(frames, values)
    kept = mixed.clone(), held.clone(), x.clone()
    result, F = aligned(mixed, held, x)
    assert result.blocks == tuple((k,) for k in range(K))
    assert result.events == ()
    labels = labels_of(result, order)
    assert (labels == labels[:1]).all()
    assert all(torch.equal(a, b) for a, b in zip((mixed, held, x), kept))
    near = (x[:, None] - x[None]).norm(dim=2)
    near = near.fill_diagonal_(torch.inf).argmin(dim=1)
    overlaps = (F[near].conj() * F).sum(dim=1)
    assert (torch.real(overlaps) > 0.9).all()
    if d == 1:  # parallel transport along the path: exactly positive
        along = x[:, 0].argsort()
        overlaps = (F[along[1:]].conj() * F[along[:-1]]).sum(dim=1)
        assert_close(overlaps, overlaps.abs().to(dtype))
    if not dtype.is_complex:  # a sign for all parameters is all that is left of the freedom
        smooth = frames.gather(2, labels[:, None, :].expand(-1, 7, -1))
        signs = (smooth * F).sum(dim=1)
        assert_close(signs, signs[:1].sign().expand_as(signs))


@wide
def test_values_that_cross_are_followed_by_their_vectors(dtype):
    x = cube(40, 1)
    frames = turning(6, dtype)(x)[:, :, :3]
    values = torch.cat([2 + x, 2 - x - 0.2, 5 + 0 * x], dim=1)
    mixed, held, order = scrambled(frames, values)
    result, _ = aligned(mixed, held, x)
    labels = labels_of(result, order)
    assert (labels == labels[:1]).all()
    (event,) = result.events
    assert event.kind == "crossing"
    assert event.gap == 0.0
    assert event.parameter == [pytest.approx(-0.1, abs=1e-12)]  # the values are linear between the snapshots
    assert result.separate


@pytest.mark.parametrize("d", [1, 2])
@wide
def test_values_equal_at_a_snapshot_do_not_create_a_block(d, dtype):
    """There LAPACK returns any basis of the span of their vectors: it is turned to the neighbours'."""
    x = cube(81, d)
    node = int(x.norm(dim=1).argmin())
    x = x - x[node]
    frames = turning(6, dtype, d, size=0.2)(x)[:, :, :3]
    values = torch.stack([2 + x[:, 0], 2 - x[:, 0], 5 + 0 * x[:, 0]], dim=1)
    mixed, held, _ = scrambled(frames, values)
    equal = (held[node] == 2).nonzero()[:, 0]
    assert len(equal) == 2
    mixed[node][:, equal] = mixed[node][:, equal] @ torch.linalg.qr(gaussian(2, 2, dtype=dtype, seed=3)).Q
    result, F = aligned(mixed, held, x)
    assert result.separate
    assert {event.kind for event in result.events} == {"crossing"}
    square = (frames.mH @ F).abs() ** 2
    assert (square.amax(dim=1) > 0.995).all()  # also at the node
    assert (square.argmax(dim=1) == square.argmax(dim=1)[:1]).all()


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("K", [1, 3])
@wide
def test_few_snapshots(K, count, d, dtype):
    x = 0.1 * (2 * parameters(count, d) - 1)
    frames = turning(5, dtype, d)(x)[:, :, :K]
    values = torch.arange(K, 0, -1, dtype=torch.float64).expand(count, K).clone()
    mixed, held, order = scrambled(frames, values)
    result, F = aligned(mixed, held, x)
    labels = labels_of(result, order)
    assert (labels == labels[:1]).all()
    assert result.events == ()
    overlaps = (F[:1].conj() * F).sum(dim=1)
    assert (torch.real(overlaps) > 0.9).all()


@wide
def test_columns_that_nobody_wants_are_dropped(dtype):
    x = cube(30, 1)
    frames = turning(6, dtype)(x)[:, :, :4]
    values = torch.stack([3 + x, 3 - x, 1.5 + 0 * x, 0.5 + 0.1 * x], dim=1)[:, :, 0]  # the first two cross
    largest = values.argsort(dim=1, descending=True)
    frames, values = frames.gather(2, largest[:, None, :].expand_as(frames)), values.gather(1, largest)
    wanted = torch.zeros(values.shape, dtype=torch.bool)
    wanted[:, 0] = True  # the largest: one of the first two labels, by turns
    result, F = aligned(frames, values, x, wanted=wanted)
    assert result.blocks == ((0,), (1,))
    assert F.shape == (30, 6, 2)
    assert [event.kind for event in result.events] == ["crossing"]


@wide
def test_together_is_one_block_that_turns_least(dtype):
    x = cube(30, 1)
    frames = turning(6, dtype)(x)[:, :, :3]
    unitary = torch.linalg.qr(gaussian(30, 3, 3, dtype=dtype)).Q  # any basis of the span
    values = torch.ones(30, 3, dtype=torch.float64)
    result, F = aligned(frames @ unitary, values, x, together=True)
    assert result.blocks == ((0, 1, 2),)
    assert not result.separate
    assert result.events == ()
    along = x[:, 0].argsort()
    overlaps = F[along[1:]].mH @ F[along[:-1]]  # Hermitian and positive, which is Procrustes'
    assert_close(overlaps, overlaps.mH)
    assert torch.linalg.eigvalsh(overlaps).min() > 0.9


@wide
def test_a_block_turns_least_also_where_other_values_cross_its_own(dtype):
    """Two values avoid each other narrowly; a third crosses them, a fourth meets one of them at a snapshot."""
    x = cube(41, 1)
    t, first = x[:, 0] - 0.2, turning(6, dtype, size=0.1)(x)[:, :, :4]
    inner = torch.stack([t, 0 * t + 0.03, 0 * t + 0.03, -t], dim=1).view(-1, 2, 2)
    pair, Q = torch.linalg.eigh(inner)
    values = torch.cat([pair, 1.5 * x + 0.9, (pair[:, 1] - (x - x[7])[:, 0].abs())[:, None]], dim=1)
    frames = torch.cat([first[:, :, :2] @ Q.to(dtype), first[:, :, 2:]], dim=2)
    result, F = aligned(*scrambled(frames, values)[:2], x)
    (block,) = [list(block) for block in result.blocks if len(block) > 1]
    along = x[:, 0].argsort()
    overlaps = F[along[1:]].mH @ F[along[:-1]]
    overlap = overlaps[:, block][:, :, block]
    assert_close(overlap, overlap.mH)
    assert torch.linalg.eigvalsh(overlap).min() > 0.9
    assert (overlaps.diagonal(dim1=1, dim2=2).real > 0.9).all()
    apart = torch.arange(41) != 7  # where values meet the vectors are those that the neighbours predict
    own, span = F[apart][:, :, block], first[apart, :, :2]
    assert_close(own @ own.mH, span @ span.mH)


@wide
def test_vectors_that_turn_into_each_other_between_two_snapshots_become_a_block(dtype):
    x = cube(20, 1)
    angle = torch.where(x[:, 0] > 0.2, math.pi / 2.2, 0.0)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
    inner = torch.eye(4, dtype=dtype).repeat(20, 1, 1)
    inner[:, 1:3, 1:3] = turn.to(dtype)
    frames = turning(4, dtype, size=0.1)(x) @ inner
    # The vectors exchange, and so do their values: in the order of size, each jumps from one to the other.
    values = torch.tensor([4.0, 2.1, 2.0, 1.0], dtype=torch.float64).expand(20, 4)
    mixed = frames * (1 - 2 * torch.rand((20, 1, 4), generator=generator()).round()).to(dtype)
    result, F = aligned(mixed, values, x)
    follows = [set(block) for block in result.blocks]
    crossed = {"crossing", "avoided crossing"} & {event.kind for event in result.events}
    assert crossed
    assert {1, 2} in follows or result.separate
    along = x[:, 0].argsort()
    for block in result.blocks:
        part = F[along][:, :, list(block)]
        singular = torch.linalg.svdvals(part[1:].mH @ part[:-1])
        assert singular.min() > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_single_precision_is_followed_as_well(dtype):
    x = cube(40, 1)
    wider = torch.complex128 if dtype.is_complex else torch.float64
    frames = turning(6, wider)(x)[:, :, :3].to(dtype)
    values = torch.cat([2 + x, 1.8 - x, 5 + 0 * x], dim=1).float()
    mixed, held, order = scrambled(frames, values)
    result, _ = aligned(mixed, held, x)
    labels = labels_of(result, order)
    assert (labels == labels[:1]).all()
    assert [event.kind for event in result.events] == ["crossing"]


# Nodes of pieces: spacings that differ by a thousand within one path.

PIECES = {
    "narrow": ([-1, 0.3, 0.3014, 1], [8, 16, 6]),
    "graded": ([-1, 0, 0.5, 0.75, 0.875, 0.876, 1], [6, 8, 8, 8, 16, 6]),
    "coarse": ([-1, -0.5, 0, 0.001, 0.5, 1], [4, 4, 8, 4, 4]),
}
pieces = pytest.mark.parametrize("ends, degrees", PIECES.values(), ids=PIECES)


def lobatto(ends, degrees):
    """Chebyshev-Lobatto points of every piece, those on the faces once."""
    points = [
        a + (b - a) * (1 - (torch.arange(n, dtype=torch.float64) * math.pi / n).cos()) / 2
        for (a, b), n in zip(itertools.pairwise(ends), degrees)
    ]
    return torch.cat([*points, torch.tensor(ends[-1:], dtype=torch.float64)])[:, None]


@pieces
def test_clustered_snapshots_of_smooth_vectors_have_no_events(ends, degrees, dtype):
    x = lobatto(ends, degrees)
    wider = torch.complex128 if dtype.is_complex else torch.float64
    frames = turning(7, wider)(x)[:, :, :4].to(dtype)
    index = torch.arange(4, dtype=torch.float64)
    values = (4 - index + 0.45 * (3 * x + 2 * index).sin()).to(dtype.to_real() if dtype.is_complex else dtype)
    mixed, held, order = scrambled(frames, values)
    result, _ = aligned(mixed, held, x)
    assert result.events == ()
    labels = labels_of(result, order)
    assert (labels == labels[:1]).all()


@pieces
@pytest.mark.parametrize("width", [0.3, 0.01])
@wide
def test_an_avoided_crossing_between_clustered_snapshots_is_seen(ends, degrees, width, dtype):
    """On one edge after the other, narrower than it; the outermost have too few neighbours for a prediction."""
    x = lobatto(ends, degrees)
    for edge in range(5, len(x) - 6, 3):
        left, right = x[edge : edge + 2, 0].tolist()
        place, gap = (left + right) / 2 + 0.1 * (right - left), width * (right - left)
        angle = torch.atan2(torch.tensor(gap, dtype=torch.float64), x[:, 0] - place) / 2
        turn = torch.eye(6, dtype=dtype).repeat(len(x), 1, 1)
        turn[:, 0, 0], turn[:, 1, 1], turn[:, 0, 1], turn[:, 1, 0] = angle.cos(), angle.cos(), -angle.sin(), angle.sin()
        frames = (turning(6, dtype, size=0.2)(x) @ turn)[:, :, :3]
        half = (x[:, 0] - place).hypot(torch.tensor(gap, dtype=torch.float64))
        values = torch.stack([2 + half, 2 - half, 5 + 0 * half], dim=1)
        mixed, held, order = scrambled(frames, values)
        result, _ = aligned(mixed, held, x)
        first = order[x[:, 0].argmin()]
        concerned = {int((first == label).nonzero()) for label in (0, 1)}
        near = x[edge - 1, 0], x[edge + 2, 0]
        assert any(set(e.labels) == concerned and near[0] <= e.parameter[0] <= near[1] for e in result.events), edge


@pytest.mark.parametrize("degrees", [(32, 4), (4, 32), (12, 12)], ids=str)
def test_a_loop_is_closed_on_grids_of_unequal_spacings(degrees):
    """All neighbours of a point that are nearest may lie on one line: the loops need those on the other lines, too."""
    x = torch.cartesian_prod(*[lobatto([-1, 1], [n])[:, 0] for n in degrees])
    values, V = torch.linalg.eigh(conical(x)[:, :2, :2])
    result, _ = aligned(*scrambled(V, values)[:2], x)
    assert result.blocks == ((0, 1),)
    assert [(event.kind, event.labels) for event in result.events] == [("loop", (0, 1))]
    apart = conical(x + 3.0)[:, :2, :2]  # beside the intersection
    values, V = torch.linalg.eigh(apart)
    result, F = aligned(*scrambled(V, values)[:2], x)
    assert result.separate and result.events == ()
    near = (x[:, None] - x[None]).norm(dim=2).fill_diagonal_(torch.inf).argmin(dim=1)
    assert (F[near] * F).sum(dim=1).min() > 0.9


# A parameter that goes around: the phase of one turn is spread over it.


def ring(count):
    """Points of the period [-1, 1), unevenly spaced, in a random order."""
    x = torch.linspace(-1, 1, count + 1, dtype=torch.float64)[:-1, None]
    return (x + 0.1 * (math.pi * x).sin())[torch.randperm(count, generator=generator())]


def around(operation, A, x):
    """Factors aligned over a period, sorted by x, and the events."""
    factors, failed = operation.snapshots(A)
    assert not failed.any()
    along = x[:, 0].argsort()
    out, events = operation.align(x, factors, periodic=True)
    return [factor[along] for factor in out], events


def largest_step(vectors, x):
    """Largest speed |dv / dx| from point to point, that over the seam included."""
    along = x[:, 0].sort().values
    lengths = torch.cat([along.diff(), along[:1] + 2 - along[-1:]])
    return ((vectors.roll(-1, 0) - vectors).flatten(1).norm(dim=1) / lengths).max()


@pytest.mark.parametrize("tilt", [0.3, 1.0, 2.0])
def test_a_berry_phase_is_spread_over_the_turn(tilt):
    """A spin 1/2 in a field on a cone: a turn gives half the solid angle, and the frame of least motion is known."""
    x = ring(60)
    azimuth = math.pi * x[:, 0]
    across = math.sin(tilt) * torch.polar(torch.ones_like(azimuth), -azimuth)
    up = torch.full_like(across, math.cos(tilt))
    A = torch.stack([up, across, across.conj(), -up], dim=1).view(-1, 2, 2)
    (values, V), events = around(nm.Eigh(), A, x)
    assert events == ()
    assert_close(values.abs(), torch.ones_like(values), units=100)
    along = x[:, 0].sort().values
    lengths = torch.cat([along.diff(), along[:1] + 2 - along[-1:]])
    steps = (V.conj() * V.roll(-1, 0)).sum(dim=1).angle()
    # Transport turns by half the solid angle, and each step takes its share of it.
    for column in range(2):
        turn = float(steps[:, column].sum())
        assert math.cos(turn) == pytest.approx(math.cos(math.pi * (1 - math.cos(tilt))), abs=0.02)  # of a polygon
        assert_close(steps[:, column], turn * lengths / 2, units=1e4)


def cone(x, radius=1.0):
    """Real, around a conical intersection: [[cos, sin], [sin, -cos]] beside 3."""
    c, s = radius * (math.pi * x[:, 0]).cos(), radius * (math.pi * x[:, 0]).sin()
    A = torch.diag_embed(torch.tensor([0.0, 0, 3], dtype=torch.float64)).repeat(len(x), 1, 1)
    A[:, 0, 0], A[:, 1, 1], A[:, 0, 1], A[:, 1, 0] = c, -c, s, s
    return A


def test_two_real_vectors_that_change_their_signs_around_a_loop_are_a_block():
    x = ring(60)
    (M, V), (event,) = around(nm.Eigh(), cone(x), x)
    assert (event.kind, event.labels, event.phase) == ("loop", (0, 1), math.pi)
    assert event.gap == pytest.approx(2 / 3)
    assert M.shape == (60, 3, 3)
    assert_close(V @ M @ V.mH, cone(x.sort(dim=0).values))
    assert max(largest_step(V, x), largest_step(M, x)) < 10


def test_a_real_vector_whose_partner_is_not_followed_is_cut_at_the_seam():
    x = ring(60)
    (U,), (event,) = around(nm.Subspace(1), 2 * torch.eye(3) - cone(x), x)
    assert (event.kind, event.labels, event.parameter, event.phase) == ("loop", (0,), [1.0], math.pi)
    assert (U.roll(-1, 0) * U).sum(dim=1)[:-1].min() > 0.9
    assert (U[-1] * U[0]).sum() < -0.9


@wide
def test_labels_that_are_exchanged_around_a_loop_are_a_block(dtype):
    """cos(t / 2) times a reflection at half the angle t / 2: the values cross once, and so change places in a turn."""
    x = ring(60)
    half = math.pi * (x[:, 0] + 1) / 2
    A = cone(half[:, None] / math.pi, half.cos()).to(dtype)
    (M, V), events = around(nm.Eigh(), A, x)
    assert ("loop", (0, 1)) in {(event.kind, event.labels) for event in events}
    assert_close(V @ M @ V.mH, A[x[:, 0].argsort()])
    assert max(largest_step(V, x), largest_step(M, x)) < 10


def test_eigenvalues_that_are_exchanged_around_an_exceptional_point_are_cut_at_the_seam():
    x = ring(60)
    A = torch.zeros(60, 2, 2, dtype=torch.complex128)
    A[:, 0, 1], A[:, 1, 0] = 1, torch.polar(torch.ones(60, dtype=torch.float64), math.pi * x[:, 0])
    _, (event,) = around(nm.Eig(), A, x)
    assert (event.kind, event.labels, event.parameter) == ("loop", (0, 1), [1.0])


@pytest.mark.parametrize("operation", [nm.SVD(), nm.SVD(2, "subspace"), nm.Eigh(), nm.Subspace(2), nm.Eig()], ids=str)
@pytest.mark.parametrize("ends", [False, True], ids=["open", "both ends"])
@wide
def test_periodic_vectors_are_continuous_over_the_seam(ends, operation, dtype):
    x = lobatto([-1, -0.2, 1], [24, 24]) if ends else ring(48)
    angle = math.pi * x[:, 0, None, None]
    Q = torch.matrix_exp(angle.cos() * skew(4, dtype, 1, 0.1)) @ torch.matrix_exp(angle.sin() * skew(4, dtype, 2, 0.1))
    values = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64) + 0.3 * angle[:, :, 0].sin()
    A = Q @ torch.diag_embed(values).to(dtype) @ Q.mH
    factors, events = around(operation, A if isinstance(operation, nm.Eig) else (A + A.mH) / 2, x)
    assert events == ()
    x = x[:-1] if ends else x  # the last point is the first
    assert all(largest_step(factor[: len(x)], x) < 20 for factor in factors)
    if ends:
        for factor in factors:
            assert_close(factor[-1], factor[0], units=1e4)


def test_vectors_of_pieces_are_as_smooth_over_the_seam_as_elsewhere():
    B = torch.randn(3, 6, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    B, D = B + B.mH, torch.diag(12.0 * torch.arange(6, dtype=torch.float64))
    solves = []
    for periodic in (False, True):
        family = nm.ParametricMatrix(
            lambda p: D + B[0] + B[1] * p.cos()[:, :, None] + B[2] * p.sin()[:, :, None],
            *(0.0, 2 * math.pi),
            periodic=periodic,
            dtype=torch.float64,
        )
        report = nm.fit(nm.Problem(family, nm.Eigh()), tol=1e-9, progress=False).report
        assert report.met
        solves.append(report.exact_solves)
    assert solves[1] <= solves[0]


@pytest.mark.parametrize("place", [0.3, 1.0])
def test_crossings_of_a_periodic_family_are_found_once_also_at_the_seam(place):
    x = ring(41)
    values = torch.cat([2 + (math.pi * (x - place) / 2).sin() * (math.pi * (x - place) / 2).cos(), 2 + 0 * x], dim=1)
    frames = torch.eye(3, dtype=torch.float64)[:, :2].repeat(len(x), 1, 1)
    result, _ = aligned(*scrambled(frames, values)[:2], x, periodic=True)
    places = [math.remainder(event.parameter[0] - place, 2) for event in result.events]
    assert [event.kind for event in result.events] == ["crossing"] * 2
    assert sorted(map(abs, places)) == [pytest.approx(0, abs=1e-2), pytest.approx(1, abs=1e-2)]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@wide
def test_few_snapshots_of_a_period(count, dtype):
    x = ring(count)
    frames = torch.eye(4, dtype=dtype)[:, :2].repeat(count, 1, 1)
    result, F = aligned(*scrambled(frames, torch.tensor([[2.0, 1.0]]).double().repeat(count, 1))[:2], x, periodic=True)
    assert result.separate and result.events == ()
    assert_close(F, F[:1].expand_as(F))


def test_only_one_parameter_goes_around():
    x = cube(16, 2)
    frames, values = torch.eye(2).repeat(16, 1, 1), torch.ones(16, 2)
    with pytest.raises(ValueError, match="`periodic`.*2 parameters"):
        gauge.align(frames, values, x, values.bool(), periodic=True)


# Families. What is fitted is followed, and what cannot be is in the report.

SIZE = 6


def rotated(inner, dtype=torch.complex128, d=1, size=0.4, n=SIZE):
    Q = turning(n, dtype, d, size)
    return lambda t: Q(t) @ inner(t).to(dtype) @ Q(t).mH


def crossing(t):
    """The third and the fourth value cross at t = 0.45."""
    p, one = t[:, :1], torch.ones_like(t[:, :1])
    return torch.diag_embed(torch.cat([5 + p, 4 * one, 1 + p, 1.9 - p, 0.3 * one, 0.1 * one], dim=1))


def avoided(gap):
    """The third and the fourth value come as close as 2 gap at t = 0.4."""

    def inner(t):
        A = torch.diag_embed(torch.tensor([2.0, 2, 4, 0.5, 0.2, 6], dtype=torch.float64)).repeat(len(t), 1, 1)
        A[:, 0, 0] += t[:, 0] - 0.4
        A[:, 1, 1] -= t[:, 0] - 0.4
        A[:, 0, 1] = A[:, 1, 0] = gap
        return A

    return inner


def conical(t):
    """The third and the fourth value are equal at t = (0.1, 0.2) only, and on a loop around it change their signs."""
    x, y = t[:, 0], t[:, 1]
    A = torch.diag_embed(torch.tensor([2.0, 2, 5, 0.5, 0.2, 7], dtype=torch.float64)).repeat(len(t), 1, 1)
    A[:, 0, 0] += 0.5 * (x - 0.1)
    A[:, 1, 1] -= 0.5 * (x - 0.1)
    A[:, 0, 1] = A[:, 1, 0] = 0.5 * (y - 0.2)
    return A


def family_of(fn, lower, upper):
    return nm.ParametricMatrix(fn, lower, upper, dtype=torch.float64)


def box(fn, lower, upper):
    """A function of t in [0, 1] or [-1, 1]^2 as a family on another box."""
    low, high = (torch.tensor(x, dtype=torch.float64) for x in (lower, upper))
    base = 0.0 if len(lower) == 1 else -1.0
    return family_of(lambda p: fn(base + (1 - base) * (p - low) / (high - low)), lower, upper)


def fitted(family, operation, rank=24, **settings):
    """The problem, its surrogate, fresh parameters, and the largest error there."""
    problem = nm.Problem(family, operation)
    most = max(math.prod(factor.shape) for factor in problem.factors) * (2 if family.dtype.is_complex else 1)
    surrogate = nm.fit(problem, rank=min(rank, most), method=nm.ClosedForm(**settings), progress=False)
    p = family.box.uniform(500, generator(1))
    return problem, surrogate, p, float(problem.error(p, surrogate(p)).max())


SPECTRAL = [nm.SVD(), nm.SVD(4), nm.Eigh(), nm.Eigh(4)]


@pytest.mark.parametrize("operation", [*SPECTRAL, nm.SVD(3), nm.Eigh(3)], ids=str)
@wide
def test_an_exact_crossing_is_followed_to_rounding(operation, dtype):
    """With rank 3 that of the last value asked for with the next: two more than asked for are followed."""
    family = box(rotated(crossing, dtype), [100.0], [300.0])
    problem, surrogate, p, error = fitted(family, operation)
    assert error < 1e-10
    (event,) = surrogate.report.events
    labels = (1, 2) if operation == nm.Eigh(3) else (2, 3)  # the smallest of six is not followed, and order ascends
    assert event.kind == "crossing"
    assert event.labels == labels
    assert event.parameter == [pytest.approx(190.0, abs=1e-6)]  # in units of the box
    assert f"crossing of {labels[0]} and {labels[1]} at 190" in str(surrogate.report)
    value, exact = surrogate(p), problem.exact(p).value
    values, oracle = (x.eigenvalues if isinstance(operation, nm.Eigh) else x.S for x in (value, exact))
    assert_close(values, oracle, units=1e5)


@pytest.mark.parametrize("operation", SPECTRAL, ids=str)
def test_a_crossing_that_hits_a_snapshot_is_followed_to_rounding(operation):
    """An odd number of snapshots has one in the middle, where the values are equal, with any basis of the span."""
    family = family_of(rotated(lambda t: crossing(t - 0.05)), [0.0], [1.0])
    _, surrogate, _, error = fitted(family, operation, snapshots=65)
    assert error < 1e-10
    assert {event.kind for event in surrogate.report.events} == {"crossing"}
    assert all(m.core.ndim == 2 for m in surrogate.maps if m.name in ("S", "eigenvalues"))  # no block


@pytest.mark.parametrize("gap", [1e-1, 3e-2, 1e-2, 1e-3, 1e-6, 0.0])
@pytest.mark.parametrize("operation", [nm.SVD(4), nm.Eigh(), nm.SVD(3)], ids=str)
def test_an_avoided_crossing_does_no_harm(operation, gap):
    """Resolved by the snapshots, or a block and an event where it is; of rank 3 it is the gap below."""
    family = box(rotated(avoided(gap)), [100.0], [300.0])
    _, surrogate, _, error = fitted(family, operation, rank=36 if gap == 1e-1 else 24)
    assert error < 1e-6 or (operation == nm.SVD(3) and gap < 1e-2)
    events = surrogate.report.events
    if gap < 2e-2:  # less than the distance of the snapshots, 0.025, resolves
        (event,) = events
        # The narrowest are no different from a crossing, not even in the digits that a surrogate has.
        assert event.kind == "avoided crossing" if gap >= 1e-4 else event.kind in ("crossing", "avoided crossing")
        assert event.labels == (2, 3)
        assert event.parameter == [pytest.approx(180.0, abs=8.0)]
        assert f"{event.kind} of 2 and 3 at" in str(surrogate.report)
    else:
        assert all(event.kind == "avoided crossing" for event in events)


@pytest.mark.parametrize("gap", [3e-3, 1e-3])
def test_the_gap_of_an_avoided_crossing_is_that_of_its_two_values(gap):
    """The first two values, 1e-4 apart, are followed as well."""

    def beside(t):
        A = avoided(gap)(t)
        A[:, 5, 5] = 4.0001
        return A

    _, surrogate, _, _ = fitted(family_of(rotated(beside), [0.0], [1.0]), nm.SVD(4))
    (event,) = surrogate.report.events
    assert event.kind == "avoided crossing" and event.labels == (2, 3)
    # The least is 2 gap; a snapshot is at most 0.0125 away from it.
    assert 2 * gap <= event.gap * 4.0001 <= 2 * math.hypot(gap, 0.0125)


CONICAL = [nm.Eigh(4), nm.SVD(), nm.SVD(4, "subspace"), nm.Subspace(4)]


@pytest.mark.parametrize("operation", CONICAL, ids=str)
def test_a_conical_intersection_is_a_loop_with_a_berry_phase(operation):
    """The matrices are smooth, and so are their leading parts, but no continuous eigenvectors exist on the box."""
    family = box(rotated(conical, torch.float64, 2), [10.0, -1.0], [30.0, 1.0])
    _, surrogate, _, error = fitted(family, operation, rank=36, snapshots=144)
    assert error < 1e-4
    events = surrogate.report.events
    if operation in (nm.SVD(4, "subspace"), nm.Subspace(4)):
        assert events == []  # the span of the four is continuous: nothing to report
        return
    (event,) = events
    assert event.kind == "loop"
    assert event.labels == (2, 3)
    assert event.phase == pytest.approx(math.pi, abs=0.3)
    assert event.parameter == pytest.approx([21.0, 0.2], abs=1e-3)  # the snapshots are 2.6 and 0.26 apart
    assert event.gap < 1e-3
    assert "loop of 2 and 3 at" in str(surrogate.report)


@pytest.mark.parametrize(("d", "dtype"), [(2, torch.complex128), (3, torch.float64)], ids=str)
def test_without_a_degeneracy_there_is_no_event(d, dtype):
    values = torch.tensor([5.0, 4, 3, 2, 1, 0.5], dtype=torch.float64)

    def inner(t):
        return torch.diag_embed(values + 0.2 * t.sum(dim=1, keepdim=True).sin())

    family = family_of(rotated(inner, dtype, d, size=0.4 if d == 2 else 0.3), [-1.0] * d, [1.0] * d)
    for operation in (nm.SVD(4), nm.Eigh()):
        _, surrogate, _, error = fitted(family, operation, rank=36, snapshots=150 if d == 2 else 400)
        assert surrogate.report.events == []
        assert error < (1e-4 if d == 2 else 1e-3)


def test_curvature_without_a_degeneracy_is_no_loop():
    """A spin in a field that never vanishes: transport around a loop turns the phase, by the area that it encloses."""

    def spin(t):
        A = torch.diag_embed(torch.tensor([4.2, 1.8, 8, 0.2], dtype=torch.complex128)).repeat(len(t), 1, 1)
        A[:, 0, 1], A[:, 1, 0] = torch.complex(t[:, 0], -t[:, 1]), torch.complex(t[:, 0], t[:, 1])
        return A

    family = family_of(spin, [-1.0, -1.0], [1.0, 1.0])
    for operation in (nm.Eigh(), nm.SVD()):
        _, surrogate, _, error = fitted(family, operation, rank=16, snapshots=144)
        assert not any(event.kind == "loop" for event in surrogate.report.events)
        assert error < 1e-3


@pytest.mark.parametrize(
    ("d", "rank"), [(1, None), (1, 4), (2, None)], ids=["past", "past what is asked for", "around"]
)
def test_near_a_zero_of_a_complex_determinant_a_triplet_is_a_block_with_its_mirror_image(d, rank):
    """Around t = (0.1, 0.2), where the smallest value is zero, the phase between its two vectors turns once."""
    Q, R = turning(SIZE, torch.complex128, d), turning(SIZE, torch.complex128, d, size=0.3)

    def fn(t):
        A = torch.diag_embed(torch.tensor([6.0, 5, 4, 3, 2, 0], dtype=torch.complex128)).repeat(len(t), 1, 1)
        A[:, 5, 5] = torch.complex(t[:, 0] - 0.1, t[:, 1] - 0.2 if d == 2 else torch.full_like(t[:, 0], 1e-4))
        return Q(t) @ A @ R(t)

    _, surrogate, _, error = fitted(family_of(fn, [-1.0] * d, [1.0] * d), nm.SVD(rank), rank=36, snapshots=64 * d**2)
    assert error < (1e-6 if d == 1 else 1e-4)
    kinds = ["avoided crossing" if d == 1 else "loop"] if rank is None else []
    assert [event.kind for event in surrogate.report.events] == kinds


@pytest.mark.parametrize("design", ["tensor", "sobol"])
def test_a_loop_tells_by_its_gap_whether_the_values_meet(design):
    """A spin in a field that comes close to zero, or is zero, at (0.3, -0.2) or an end of a box of three parameters."""

    def spin(least):
        def fn(t):
            x, y = (t[:, 0] - 0.3).sin(), (t[:, 1] + 0.2).exp() - math.exp(0.0)
            z = least + 0 * x if t.shape[1] == 2 else t[:, 2] - 0.1
            A = torch.diag_embed(torch.tensor([3.0, 3, 8, 0.2], dtype=torch.complex128)).repeat(len(t), 1, 1)
            A[:, 0, 0] += z
            A[:, 1, 1] -= z
            A[:, 0, 1], A[:, 1, 0] = torch.complex(x, -y), torch.complex(x, y)
            return A

        return fn

    for least, d in ((0.1, 2), (0.0, 3)):
        family = family_of(spin(least), [-1.0] * d, [1.0] * d)
        _, surrogate, _, error = fitted(family, nm.Eigh(), rank=24, snapshots=12**d if d == 2 else 512, design=design)
        (event,) = surrogate.report.events
        assert event.kind == "loop"
        assert event.parameter == pytest.approx([0.3, -0.2, 0.1][:d], abs=0.07)  # a quarter of a spacing
        assert event.gap == pytest.approx(2 * least / 8, abs=1e-2)
        assert error < 1e-3


@pytest.mark.parametrize("operation", [nm.SVD(), nm.SVD(4), nm.Eigh(3)], ids=str)
@pytest.mark.parametrize("d", [1, 2])
def test_values_that_are_equal_for_all_parameters(operation, d):
    """I (x) B: three equal values have no vectors of their own anywhere, only a span."""

    def inner(t):
        small = 2 + 0.5 * t.sum(dim=1).sin()
        return torch.diag_embed(torch.stack([small] * 3 + [small / 4, small / 8, small / 16], dim=1))

    family = family_of(rotated(inner, d=d), [-1.0] * d, [1.0] * d)
    _, surrogate, _, error = fitted(family, operation, rank=36, **({"snapshots": 144} if d == 2 else {}))
    assert error < (1e-9 if d == 1 else 1e-3)
    assert surrogate.report.events == []  # equal is not crossing


@pytest.mark.parametrize("operation", [nm.SVD(), nm.SVD(3), nm.SVD(6)], ids=str)
def test_a_kronecker_product_with_the_identity(operation):
    waves = nm.families.trigonometric(3, 2, 0.0, cycles=0.3, dtype=torch.float64)
    diagonal, eye = torch.diag(torch.tensor([3.0, 6.0, 9.0])).double(), torch.eye(3, dtype=torch.float64)
    family = family_of(lambda p: torch.kron(eye, diagonal + waves(p)), [0.0], [1.0])
    _, surrogate, _, error = fitted(family, operation)
    assert error < 1e-8
    assert surrogate.report.events == []


@pytest.mark.parametrize("kind", [nm.Subspace, nm.Projector])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("inner", [crossing, avoided(1e-3)], ids=["crossing", "avoided"])
def test_crossings_inside_a_subspace_do_not_matter(inner, side, kind):
    family = family_of(rotated(inner), [0.0], [1.0])
    _, surrogate, _, error = fitted(family, kind(4, side))
    assert surrogate.report.events == []
    assert error < 1e-10


def eigenvalues_apart(t):
    """Not normal, with eigenvalues 1 .. 5 that wander by less than a half."""
    p = t[:, 0]
    diagonal = torch.arange(1.0, 6.0, dtype=torch.float64) + 0.3 * torch.stack([(k + p).sin() for k in range(5)], dim=1)
    T = torch.diag_embed(diagonal) + 0.5 * torch.ones(5, 5, dtype=torch.float64).triu(1)
    V = torch.matrix_exp(0.3 * p[:, None, None] * gaussian(5, 5, dtype=torch.float64, seed=2))
    return torch.matrix_exp(-0.3 * p[:, None, None] * gaussian(5, 5, dtype=torch.float64, seed=2)) @ T @ V


def test_eigenvalues_that_stay_apart_are_followed_in_order():
    family = family_of(eigenvalues_apart, [0.0], [1.0])
    problem, surrogate, p, error = fitted(family, nm.Eig())
    assert surrogate.report.events == []
    assert surrogate.report.singular == []
    assert error < 1e-8
    value = surrogate(p)
    exact = eigenvalues_apart(p).numpy()
    oracle = torch.linalg.eigvals(torch.from_numpy(exact)).real.sort(dim=1).values
    labels = value.eigenvalues.real.argsort(dim=1)
    assert (labels == labels[:1]).all()  # the same column belongs to the same eigenvalue everywhere
    assert (value.eigenvalues.real.sort(dim=1).values - oracle).abs().max() < 1e-8
    assert problem.residual(p, value).max() < 1e-8


def test_eigenvalues_whose_real_parts_cross_are_followed():
    """They stay apart in the plane, so there is nothing to report; for an order by size they would be exchanged."""

    def fn(t):
        p = t[:, 0]
        values = torch.stack([torch.complex(p, 0.5 + 0 * p), torch.complex(1 - p, -0.5 + 0 * p), 3 + 0j * p], dim=1)
        V = torch.matrix_exp(0.4 * p[:, None, None] * gaussian(3, 3, dtype=torch.complex128, seed=2))
        return torch.linalg.solve_triangular(torch.eye(3).to(V), V @ torch.diag_embed(values) @ V.mH, upper=True)

    family = family_of(fn, [0.0], [1.0])
    _, surrogate, _, error = fitted(family, nm.Eig())
    assert surrogate.report.events == []
    assert error < 1e-8


def exceptional(t):
    """[[0, 1], [t - 0.35, 0]] beside 3: at t = 0.35 two eigenvalues meet, and there is one eigenvector for both."""
    A = torch.zeros(len(t), 3, 3, dtype=torch.float64)
    A[:, 0, 1], A[:, 1, 0], A[:, 2, 2] = 1, t[:, 0] - 0.35, 3
    return A


@pytest.mark.parametrize("at_a_snapshot", [False, True])
def test_an_exceptional_point_is_not_hidden(at_a_snapshot):
    family = box(exceptional, [100.0], [300.0])
    points = [[100.0 + 200 * (i + 0.5) / 40] for i in range(40)] + ([[170.0]] if at_a_snapshot else [])
    options = {"snapshots": points} if at_a_snapshot else {}
    _, surrogate, _, _ = fitted(family, nm.Eig(), rank=12, **options)
    report = surrogate.report
    places = [*(event.parameter for event in report.events), *report.singular]
    assert any(abs(place[0] - 170.0) < 10.0 for place in places), places
    if at_a_snapshot:
        assert [170.0] in report.singular


def test_events_survive_a_file(tmp_path):
    for name, family, options in (
        ("crossing", box(rotated(crossing), [100.0], [300.0]), {}),
        ("avoided crossing", box(rotated(avoided(1e-3)), [100.0], [300.0]), {}),
        ("loop", box(rotated(conical, torch.float64, 2), [10.0, -1.0], [30.0, 1.0]), {"snapshots": 100}),
    ):
        _, surrogate, p, _ = fitted(family, nm.SVD(4), **options)
        nm.save(surrogate, tmp_path / "surrogate.safetensors")
        loaded = nm.load(tmp_path / "surrogate.safetensors")
        (event,) = loaded.report.events
        assert event.kind == name
        assert loaded.report.events == surrogate.report.events
        assert str(loaded.report) == str(surrogate.report)
        for x, y in zip(loaded(p), surrogate(p)):  # weights of another stride in memory may round otherwise
            assert_close(x, y)


def test_an_event_of_a_single_vector_survives_a_file(tmp_path):
    """The leading vector jumps; it has no neighbour that is followed, so there is no gap."""

    def fn(p):
        jump = torch.where(p[:, 0] > 0.5, 1.0, 0.0)
        return torch.diag_embed(torch.stack([1.5 - jump, 0.5 + jump], dim=1))

    _, surrogate, _, _ = fitted(family_of(fn, [0.0], [1.0]), nm.Subspace(1), rank=2)
    (event,) = surrogate.report.events
    assert (event.kind, event.labels) == ("cut", (0,))
    assert math.isnan(event.gap)
    assert event.parameter == [pytest.approx(0.5, abs=0.1)]
    nm.save(surrogate, tmp_path / "surrogate.safetensors")
    (loaded,) = nm.load(tmp_path / "surrogate.safetensors").report.events
    assert repr(loaded) == repr(event)  # NaN is not equal to itself


def test_the_report_names_three_events_and_counts_the_rest():
    events = [nm.Event("crossing", (0, i), [100.0 * i], 0.0) for i in range(1, 6)]
    text = str(nm.Report("Method", {}, 3, 7, events=events))
    lines = [line[14:] for line in text.splitlines()]
    start = lines.index("crossing of 0 and 1 at 100")
    assert lines[start + 1 : start + 4] == ["crossing of 0 and 2 at 200", "crossing of 0 and 3 at 300", "and 2 more"]
    assert "cut of 4 at 1, 2" in str(nm.Report("Method", {}, 3, 7, events=[nm.Event("cut", (4,), [1.0, 2.0], 0.0)]))


# What comes out of the maps is brought to the form of an exact solution.


def empty_like(operation, m, n, count, dtype):
    real = dtype.to_real() if dtype.is_complex else dtype
    kinds = [(f.shape, real if f.field == "real" else dtype) for f in operation.factors(m, n)]
    return [torch.full((count, *shape), torch.nan, dtype=kind) for shape, kind in kinds]


@pytest.mark.parametrize("kept", [2, 4])
@pytest.mark.parametrize("blocks", [False, True])
def test_svd_is_finished_with_descending_positive_values(blocks, kept, dtype):
    """From values in any order, with signs, or from a matrix in their place; more of them than are asked for.

    A negative value is the mirror image of a triplet, and goes first where there are more than are asked for.
    """
    operation, count = nm.SVD(kept), 9
    U = torch.linalg.qr(gaussian(count, 6, 4, dtype=dtype)).Q
    V = torch.linalg.qr(gaussian(count, 5, 4, dtype=dtype, seed=1)).Q
    S = torch.tensor(list(itertools.permutations([3.0, 2.0, -1.5, 0.5]))[:count], dtype=torch.float32)
    S = S.to(dtype.to_real() if dtype.is_complex else dtype)
    B = (U * S[:, None, :].to(dtype)) @ V.mH
    if blocks:
        W = torch.linalg.qr(gaussian(count, 4, 4, dtype=dtype, seed=2)).Q
        fitted_factors = [U @ W, W.mH @ (S[:, :, None].to(dtype) * W), W.mH @ V.mH]
    else:
        fitted_factors = [U, S, V.mH.resolve_conj().contiguous()]
    out = fitted_factors if not blocks and kept == 4 else empty_like(operation, 6, 5, count, dtype)
    operation.finish(fitted_factors, out)
    left, values, right = torch.linalg.svd(B, full_matrices=False)
    assert_close(out[1], values[:, :kept])
    best = (left[:, :, :kept] * values[:, None, :kept].to(dtype)) @ right[:, :kept]
    assert_close(operation.invariant(out), best)
    for frame in (out[0], out[2].mH):
        assert_close(frame.mH @ frame, torch.eye(kept, dtype=dtype).expand(count, -1, -1))


@pytest.mark.parametrize("kept", [2, 4])
@pytest.mark.parametrize("blocks", [False, True])
def test_eigh_is_finished_with_ascending_values_of_largest_modulus(blocks, kept, dtype):
    operation, count = nm.Eigh(kept), 9
    V = torch.linalg.qr(gaussian(count, 4, 4, dtype=dtype)).Q
    s = torch.tensor(list(itertools.permutations([3.0, -2.0, 1.5, -0.5]))[:count], dtype=torch.float32)
    s = s.to(dtype.to_real() if dtype.is_complex else dtype)
    if blocks:
        W = torch.linalg.qr(gaussian(count, 4, 4, dtype=dtype, seed=2)).Q
        fitted_factors = [W.mH @ (s[:, :, None].to(dtype) * W), V @ W]
    else:
        fitted_factors = [s.clone(), V.clone()]
    out = fitted_factors if not blocks and kept == 4 else empty_like(operation, 4, 4, count, dtype)
    operation.finish(fitted_factors, out)
    expected = {2: [-2.0, 3.0], 4: [-2.0, -0.5, 1.5, 3.0]}[kept]
    assert_close(out[0], torch.tensor([expected] * count, dtype=torch.float64))
    chosen = torch.where(s.abs() > (1.7 if kept == 2 else 0), s, 0).to(dtype)
    assert_close(operation.invariant(out), (V * chosen[:, None, :]) @ V.mH)


@pytest.mark.parametrize("operation", [nm.SVD(3), nm.SVD(), nm.Eigh(3), nm.Eigh()], ids=str)
@pytest.mark.parametrize("inner", [crossing, avoided(1e-3)], ids=["crossing", "block"])
def test_surrogates_return_the_order_and_signs_of_an_exact_solution(inner, operation):
    family = family_of(rotated(lambda t: inner(t) - 0.25 * torch.eye(SIZE)), [0.0], [1.0])  # indefinite
    problem, surrogate, p, _ = fitted(family, operation)
    value = surrogate(p)
    values = value.S if isinstance(operation, nm.SVD) else value.eigenvalues
    steps = values.diff(dim=1)
    assert (steps <= 0).all() if isinstance(operation, nm.SVD) else (steps >= 0).all()
    if isinstance(operation, nm.SVD):
        assert (values >= 0).all()
    exact = problem.exact(p).value
    assert (values - (exact.S if isinstance(operation, nm.SVD) else exact.eigenvalues)).abs().max() < 1e-3
    before = [x.clone() for x in value]
    again = surrogate(p, out=[torch.empty_like(x) for x in value])
    assert all(torch.equal(x, y) for x, y in zip(again, before))


@pytest.mark.parametrize("operation", [nm.SVD(3), nm.Eigh(3), nm.Subspace(3), nm.QR(), nm.Polar()], ids=str)
@wide
def test_orthonormal_factors_on_request(operation, dtype):
    """At low rank the factors are orthonormal to the error of the fit only, on request to rounding; the span stays."""
    turned = turning(SIZE, dtype, size=0.2 * (not isinstance(operation, nm.Eigh)))  # else U of the polar form is I
    matrices = rotated(lambda t: crossing(t) + 0.2 * torch.eye(SIZE), dtype)
    family = family_of(lambda t: matrices(t) @ turned(3 * t), [0.0], [1.0])
    _, surrogate, p, _ = fitted(family, operation, rank=4)
    loose, tight = (surrogate(p, orthonormal=flag) for flag in (False, True))
    if isinstance(loose, torch.Tensor):
        loose, tight = (loose,), (tight,)
    which = {"SVD": (0, 2), "Eigh": (1,)}.get(type(operation).__name__, (0,))
    for i, (x, y) in enumerate(zip(loose, tight)):
        if i not in which:
            assert torch.equal(x, y)
            continue
        if x.shape[1] < x.shape[2]:
            x, y = x.mH, y.mH
        eye = torch.eye(x.shape[2], dtype=dtype).expand(len(x), -1, -1)
        defect = (x.mH @ x - eye).flatten(1).norm(dim=1)
        assert defect.max() > 1e-10
        assert_close(y.mH @ y, eye)
        left, _, right = torch.linalg.svd(x, full_matrices=False)
        assert_close(y, left @ right)  # the nearest
