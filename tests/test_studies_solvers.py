"""Exact solvers of the book and the wireless practice, against dense oracles."""

import pytest
import torch
from conftest import assert_close, assert_raises, conditioned, real

import neumatc as nm
from studies import practice, solvers

SOLVERS = [
    solvers.numpy_loop,
    solvers.numpy_batched,
    solvers.scipy_batched,
    solvers.torch_cholesky,
    practice.sionna_cholesky,
]


def definite(dtype, size=5):
    """Hermitian positive definite matrices, condition below 100."""
    B = conditioned(7, size, size, dtype, condition=8.0)
    return B @ B.mH


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.__name__)
def test_exact_methods_invert(solver, dtype, device):
    if solver is practice.sionna_cholesky:
        pytest.importorskip("sionna.phy")
    A = definite(dtype).to(device)
    X = solver(A)
    assert (X.dtype, X.device) == (dtype, A.device)
    assert_close(X.cpu(), torch.linalg.pinv(A.cpu()), units=2000)


@pytest.mark.parametrize("solver", SOLVERS[:3], ids=lambda solver: solver.__name__)
def test_general_solvers_invert_what_is_not_definite(solver, dtype):
    A = conditioned(7, 5, 5, dtype)
    assert_close(solver(A), torch.linalg.pinv(A), units=500)


def test_cholesky_raises_where_a_matrix_is_not_definite():
    with pytest.raises(torch.linalg.LinAlgError):
        solvers.torch_cholesky(-torch.eye(3)[None])


def test_importing_sionna_leaves_the_random_state_as_it_is():
    pytest.importorskip("sionna.phy")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    practice.sionna_cholesky(definite(torch.complex64))
    assert torch.equal(torch.get_rng_state(), before)


# Exact singular triplets from the Gram matrix


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 4)], ids=str)
def test_svd_by_gram_gives_the_leading_triplets(shape, dtype):
    H = conditioned(5, *shape, dtype, condition=10)
    U, S, Vh = solvers.svd_by_gram(H, 2)
    left, values, right = torch.linalg.svd(H.to(torch.complex128), full_matrices=False)
    assert (U.dtype, S.dtype, Vh.dtype) == (H.dtype, real(H.dtype), H.dtype)
    assert_close(S, values[:, :2], units=100)
    best = (left[:, :, :2] * values[:, None, :2]) @ right[:, :2]
    assert_close((U * S[:, None, :].to(dtype)) @ Vh, best, units=1000)
    eye = torch.eye(2, dtype=dtype).expand(5, -1, -1)
    assert_close(U.mH @ U, eye, units=100)
    assert_close(Vh @ Vh.mH, eye, units=1000)


def test_svd_by_gram_is_finite_for_lost_values_and_refuses_ranks():
    H = torch.zeros(2, 3, 5)
    assert all(x.isfinite().all() for x in solvers.svd_by_gram(H, 3))
    assert_raises(ValueError, ["`rank`", "at least 1", "got 0"], lambda: solvers.svd_by_gram(H, 0))
    assert_raises(ValueError, ["`rank`", "at most 3", "got 4"], lambda: solvers.svd_by_gram(H, 4))


@pytest.mark.parametrize("shape", [(7, 3), (3, 7)], ids=str)
@pytest.mark.parametrize("peer", [practice.lmmse_loop, practice.sionna_lmmse, nm.peers.torch_lmmse])
def test_lmmse_receivers_are_the_regularised_solution(peer, shape, dtype):
    if peer is practice.sionna_lmmse:
        pytest.importorskip("sionna")
        if not dtype.is_complex:
            pytest.skip("complex channels only")
    H = conditioned(5, *shape, dtype, condition=10)
    wide = H.to(torch.complex128)
    expected = torch.linalg.solve(wide.mH @ wide + 0.3 * torch.eye(shape[1], dtype=wide.dtype), wide.mH)
    X = peer(H, 0.3)
    assert X.dtype == dtype
    assert_close(X, expected, units=1000)


# Precoders of groups of subcarriers


def _projectors(V):
    return V @ V.mH


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)], ids=str)
@pytest.mark.parametrize("interpolated", [False, True])
def test_a_group_of_one_has_its_own_precoder(interpolated, shape, dtype):
    H = conditioned(5, *shape, dtype, condition=10)
    V = practice.group_precoders(H, 2, 1, interpolated=interpolated)
    right = torch.linalg.svd(H.to(torch.complex128), full_matrices=False)[2][:, :2].mH
    assert V.dtype == dtype
    assert_close(_projectors(V), _projectors(right), units=2000)


def test_a_group_has_the_precoder_of_its_middle():
    H = conditioned(11, 3, 7, torch.complex128, condition=10)
    V, own = practice.group_precoders(H, 2, 4), practice.group_precoders(H, 2, 1)
    assert_close(V, own[[2] * 4 + [6] * 4 + [9] * 3])


def test_interpolated_precoders_meet_the_middles_and_are_of_second_order():
    family = nm.families.trigonometric(6, 3, 0.0, cycles=0.5, dtype=torch.complex128)
    fixed = torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64)).to(torch.complex128)
    H = fixed[:4] + 0.3 * family(torch.linspace(0, 1, 161, dtype=torch.float64)[:, None])[:, :4]
    exact = _projectors(practice.group_precoders(H, 2, 1))
    inner = slice(20, 140)  # beyond the outer middles it is constant
    errors = {}
    for size in (8, 16):
        V = practice.group_precoders(H, 2, size, interpolated=True)
        assert_close(V.mH @ V, torch.eye(2, dtype=V.dtype).expand(len(V), 2, 2), units=100)
        middles = torch.arange(size // 2, 160, size)
        assert_close(_projectors(V)[middles], exact[middles], units=1000)
        errors[size] = float((_projectors(V) - exact)[inner].abs().max())
        flat = _projectors(practice.group_precoders(H, 2, size)) - exact
        assert errors[size] < 0.2 * float(flat[inner].abs().max())
    assert errors[8] < 0.3 * errors[16]


def test_interpolated_precoders_do_not_depend_on_phases():
    H = conditioned(40, 3, 5, torch.complex128, condition=10)[:1] + 0.02 * conditioned(40, 3, 5, torch.complex128)
    turned = torch.exp(1j * torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 6)
    pair = [practice.group_precoders(x, 2, 6, interpolated=True) for x in (H, H * turned[:, None, None])]
    assert_close(*map(_projectors, pair), units=1000)


def test_interpolated_vectors_stay_singular_vectors_where_bases_drift_away():
    """The bases keep the gauge of the first group; the span is as good, but not the columns."""
    family = nm.families.trigonometric(6, 3, 0.0, cycles=0.5, dtype=torch.complex128)
    fixed = torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64)).to(torch.complex128)
    H = fixed[:4] + 0.3 * family(torch.linspace(0, 1, 161, dtype=torch.float64)[:, None])[:, :4]
    exact, inner = practice.group_precoders(H, 2, 1), slice(20, 140)
    far = {}
    for vectors in (False, True):
        V = practice.group_precoders(H, 2, 8, interpolated=True, vectors=vectors)
        assert_close(V.mH @ V, torch.eye(2, dtype=V.dtype).expand(len(V), 2, 2), units=100)
        assert float((_projectors(V) - _projectors(exact))[inner].abs().max()) < 1e-2
        along = (exact.conj() * V).sum(dim=1).abs()
        far[vectors] = float((1 - along)[inner].max())
    assert far[True] < 0.1 * far[False]


def test_vectors_in_phase_do_not_depend_on_phases():
    H = conditioned(40, 3, 5, torch.complex128, condition=10)[:1] + 0.02 * conditioned(40, 3, 5, torch.complex128)
    draw = torch.Generator().manual_seed(0)
    V = practice.group_precoders(H, 2, 1)
    turned = V * torch.exp(6j * torch.rand(40, 1, 2, dtype=torch.float64, generator=draw))
    steps = [x[1:] - x[:-1] for x in map(practice._in_phase, (V, turned))]
    assert_close(*(torch.linalg.vector_norm(x, dim=1) for x in steps), units=1000)
    orthogonal = torch.eye(3, dtype=torch.complex128)[[0, 1, 2]][:, :, None]
    assert_close(practice._in_phase(orthogonal), orthogonal)  # no phase is the closest, and none is lost


@pytest.mark.parametrize("kind", ["singular vectors", "another basis of their span", "any"])
def test_a_linear_receiver_is_that_of_the_wireless_chapter_and_no_better_than_a_joint_one(kind):
    H, noise = conditioned(7, 4, 9, torch.complex128, condition=10), 0.1
    draw = torch.linalg.qr(torch.randn(7, 9, 9, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))).Q
    V = torch.linalg.svd(H, full_matrices=False)[2][:, :3].mH
    V = {
        "singular vectors": V,
        "another basis of their span": V @ torch.linalg.qr(draw[:, :3, :3]).Q,
        "any": draw[:, :, :3],
    }[kind]
    G = H @ V / 3**0.5
    W = torch.linalg.solve(G.mH @ G + noise * torch.eye(3, dtype=G.dtype), G.mH)
    joint, linear = practice.precoded_rate(H, V, noise), practice.stream_rate(H, V, noise)
    assert_close(linear, nm.wireless.sum_rate(G, W, noise), units=1000)
    if kind == "singular vectors":
        assert_close(linear, joint, units=1000)
    else:
        assert (linear < joint).all()


def test_groups_of_no_subcarrier_are_refused():
    H = conditioned(4, 3, 5, torch.complex64, condition=10)
    assert_raises(ValueError, ["`size`", "at least 1", "got 0"], lambda: practice.group_precoders(H, 2, 0))
    assert len(practice.group_precoders(H, 2, 9, interpolated=True)) == 4  # one group
