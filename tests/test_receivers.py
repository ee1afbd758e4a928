"""Pseudo-inverses of constant rank, zero forcing, and receivers in coloured noise, against textbook formulas."""

import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from conftest import DTYPES, assert_close, assert_raises, conditioned, eps, gaussian, grid_of, real

import neumatc as nm

DOUBLE = torch.float64
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def wide(x):
    return x.to(torch.complex128 if x.is_complex() else DOUBLE)


def quietly(problem, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)
        return nm.fit(problem, progress=False, **settings)


# Pseudo-inverses of constant rank


def deficient(batch, m, n, rank, dtype, tail=0.0):
    """Matrices with singular values 1, 1/2, ..., 1/rank, and ``tail`` after them."""
    k = min(m, n)
    U, V = (torch.linalg.qr(gaussian(batch, s, k, dtype=dtype, seed=s)).Q for s in (m, n))
    values = torch.cat([1 / torch.arange(1.0, rank + 1), torch.full((k - rank,), tail)]).to(dtype)
    return (U * values) @ V.mH


@dtypes
@pytest.mark.parametrize("shape", [(5, 5), (7, 4), (4, 7)], ids=str)
@pytest.mark.parametrize("tail", [0.0, 1e-2])
def test_the_pseudo_inverse_of_a_rank_is_that_of_numpy(shape, tail, dtype):
    A = deficient(6, *shape, 3, dtype, tail)
    expected = torch.from_numpy(np.linalg.pinv(wide(A).resolve_conj().numpy(), rcond=0.1))
    for operation in (nm.PseudoInverse(rank=3), nm.PseudoInverse(rcond=0.1)):
        (X,), failed = operation.exact(A)
        assert not failed.any()
        assert_close(X, expected)
        assert operation.residual(A, (X,)).max() <= 100 * eps(dtype)


@dtypes
def test_a_rank_that_is_not_there_fails(dtype):
    values = torch.tensor([[3.0, 2, 1], [3, 2, 2], [2, 1, 0], [2, 0, 0], [0, 0, 0]], dtype=DOUBLE)
    A = torch.diag_embed(values).to(dtype)
    assert nm.PseudoInverse(rank=2).exact(A)[1].tolist() == [False, True, False, True, True]
    assert nm.PseudoInverse(rank=3).exact(A)[1].tolist() == [False, False, True, True, True]
    (X,), failed = nm.PseudoInverse(rcond=1e-3).exact(A)
    assert not failed.any()
    assert_close(X, torch.where(values > 0, 1 / values, 0).diag_embed().to(wide(A)))


@pytest.mark.parametrize("operation", [nm.PseudoInverse(rank=2), nm.PseudoInverse(rcond=0.1)], ids=str)
@pytest.mark.parametrize("shape", [(4, 4), (5, 4), (4, 5)], ids=str)
def test_the_residual_of_a_rank_sees_an_error_in_every_direction(operation, shape):
    """Also in those that A maps to zero, and to first order: ten times the error, ten times the residual."""
    A = deficient(1, *shape, 2, torch.complex128)
    (X,), _ = operation.exact(A)
    for k in range(X[0].numel()):
        E = torch.zeros_like(X)
        E.view(-1)[k] = 1
        small, large = (float(operation.residual(A, (X + size * E,))) for size in (1e-6, 1e-5))
        assert small > 1e-8
        assert 9 < large / small < 11


def test_residuals_of_a_rank_see_directions_that_are_missing_or_too_many():
    A = deficient(3, 5, 5, 3, DOUBLE, 1e-2)
    for wrong in (0, 1, 2, 4, 5):
        (X,), _ = nm.PseudoInverse(rank=max(wrong, 1)).exact(
            A if wrong < 4 else A + 1e-4 * conditioned(3, 5, 5, DOUBLE)
        )
        X = X * (wrong > 0)
        assert nm.PseudoInverse(rank=3).residual(A, (X,)).min() > 0.05
        if wrong < 3:
            assert nm.PseudoInverse(rcond=0.1).residual(A, (X,)).min() > 0.05


def test_a_jump_of_the_rank_is_named():
    def fn(p):
        return torch.diag_embed(torch.cat([torch.ones_like(p), 1.5 * (1 + p), p], dim=1))

    problem = nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=DOUBLE), nm.PseudoInverse(rcond=0.3))
    with pytest.warns(nm.FitWarning, match="jumps"):
        report = nm.fit(problem, tol=1e-4, progress=False).report
    jump = 0.45 / 0.55  # where p = 0.3 * 1.5 (1 + p)
    assert [place.lower[0] <= jump <= place.upper[0] for place in report.unmet] == [True]


@pytest.mark.parametrize(("operation", "words"), [(nm.PseudoInverse(), "full rank"), (nm.Inverse(), "singular")])
@pytest.mark.parametrize("settings", [{"rank": 2}, {"tol": 1e-3}], ids=str)
def test_a_family_without_full_rank_warns_with_the_remedy(operation, words, settings):
    family = nm.ParametricMatrix(lambda p: (1 + p[:, :, None]) * torch.ones(3, 3), [0.0], [1.0])
    with pytest.warns(nm.FitWarning) as caught:
        nm.fit(nm.Problem(family, operation), progress=False, **settings)
    message = str(caught[0].message)
    assert len(caught) == 1 and len(message) < 300
    assert "every exact sol" in message and words in message and "nm.PseudoInverse(rank=...)" in message
    assert nm.fit(nm.Problem(family, nm.PseudoInverse(rank=1)), tol=1e-3, progress=False).report.met


def test_pseudo_inverses_refuse_wrong_settings():
    assert_raises(ValueError, ["`rank`, `rcond`", "one of them", "both"], lambda: nm.PseudoInverse(2, 1e-3))
    assert_raises(ValueError, ["`rank`", "at least 1"], lambda: nm.PseudoInverse(0))
    assert_raises(ValueError, ["`rcond`", "above 0", "below 1"], lambda: nm.PseudoInverse(rcond=1.0))
    assert_raises(ValueError, ["`rank`", "at most 3", "4 x 3"], lambda: nm.PseudoInverse(4).factors(4, 3))


# Zero forcing


def interference(A, X):
    """Power of the interference at each user over that of its own signal, the largest of the users, shape (B,)."""
    G = (X @ A if A.shape[1] >= A.shape[2] else A @ X).abs().square()
    own = G.diagonal(dim1=1, dim2=2)
    return ((G.sum(dim=2) - own) / own).amax(dim=1)


@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (3, 3)], ids=str)
@pytest.mark.parametrize("gap", [1.0, 1e-3])
def test_a_small_residual_of_zero_forcing_promises_suppressed_interference(shape, gap):
    """Two users nearly in one direction; whatever the error, the interference is at most rho^2 / (1 - rho^2)."""
    short = min(shape)
    H = gaussian(20, short, max(shape), dtype=torch.complex128)
    H[:, 1] = H[:, 0] + gap * H[:, 1]
    A = H.mH if shape[0] > shape[1] else H
    operation = nm.PseudoInverse()
    (X,), _ = operation.exact(A)
    for size in (1e-8, 1e-5, 1e-2):
        wrong = X * (1 + size * gaussian(*X.shape, dtype=X.dtype, seed=5))
        rho = operation.residual(A, (wrong,))
        small = rho < 0.9
        assert (interference(A, wrong)[small] <= (rho**2 / (1 - rho**2))[small] * (1 + 1e-9) + 1e-15).all()
        assert small.any() or size > 1e-3


# Receivers in coloured noise


def coloured(m, n, dtype, *, parametric=True, spread=1.0):
    """A channel family (m, n) of one parameter, and a covariance, parametric or constant."""
    H, Q = gaussian(3, m, n, dtype=dtype, seed=1), gaussian(2, m, m, dtype=dtype, seed=2) / m**0.5
    gains = torch.logspace(0, -spread, n).to(dtype)

    def channel(p):
        phases = (p * torch.tensor([0.0, 1.0, 2.5], dtype=p.dtype)).cos().to(dtype)
        return torch.einsum("bk,kmn->bmn", phases, H) * gains

    def covariance(p):
        root = Q[0] + p[:, :, None].to(dtype) * Q[1]
        return root @ root.mH + 0.1 * torch.eye(m, dtype=dtype)

    family = nm.ParametricMatrix(channel, [0.0], [1.0], dtype=real(dtype))
    noise = nm.ParametricMatrix(covariance, [0.0], [1.0], dtype=real(dtype))
    return family, noise if parametric else covariance(torch.tensor([[0.3]], dtype=real(dtype)))[0]


def textbook(H, R, unbiased=False):
    """H^H (H H^H + R)^{-1} one by one with NumPy."""
    found = []
    for h, r in zip(wide(H).resolve_conj().numpy(), wide(R).resolve_conj().numpy()):
        X = np.linalg.solve(h @ h.conj().T + r, h).conj().T
        found.append(X / np.diag(X @ h)[:, None] if unbiased else X)
    return torch.from_numpy(np.stack(found))


@dtypes
@pytest.mark.parametrize("parametric", [False, True])
@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (4, 4)], ids=str)
def test_receivers_in_coloured_noise_are_those_of_the_textbook(shape, parametric, dtype):
    H, R = coloured(*shape, dtype, parametric=parametric)
    family = nm.families.beside(H, R)
    p = grid_of(H, 20)
    covariances = R(p) if parametric else R.expand(20, -1, -1)
    for operation in (nm.LMMSE("beside"), nm.RZF("beside"), nm.LMMSE("beside", unbiased=True)):
        X, failed = nm.Problem(family, operation).exact(p)
        assert not failed.any()
        expected = textbook(H(p), covariances, getattr(operation, "unbiased", False))
        assert_close(X, expected, units=1000)


@pytest.mark.parametrize("receiver", [nm.LMMSE, nm.RZF])
@pytest.mark.parametrize("kind", ["tensor", "array", "list", "sparse", "family"])
def test_ways_to_give_a_covariance(receiver, kind):
    H, R = coloured(4, 2, torch.complex128, parametric=False)
    ways = {"array": R.resolve_conj().numpy(), "list": R.tolist()}
    ways["sparse"], ways["family"] = scipy.sparse.csr_array(ways["array"]), coloured(4, 2, torch.complex128)[1]
    operation = receiver(ways.get(kind, R))
    problem, p = nm.Problem(H, operation), grid_of(H, 5)
    assert problem.operation == operation == receiver("beside") and repr(operation).endswith("(noise='beside')")
    covariances = ways["family"](p) if kind == "family" else R.expand(5, -1, -1)
    assert_close(problem.exact(p).value, textbook(H(p), covariances), units=1000)


@pytest.mark.parametrize("parametric", [False, True])
@pytest.mark.parametrize("shape", [(8, 3), (3, 8)], ids=str)
def test_receivers_in_coloured_noise_are_fitted_and_certified(shape, parametric):
    H, R = coloured(*shape, torch.complex128, parametric=parametric, spread=2.0)
    problem, p = nm.Problem(nm.families.beside(H, R), nm.LMMSE("beside")), grid_of(H, 50)
    surrogate = nm.fit(problem, tol=1e-6, progress=False)
    assert surrogate.report.met and len(surrogate.pieces) >= 1
    expected = textbook(H(p), R(p) if parametric else R.expand(50, -1, -1))
    error = torch.linalg.matrix_norm(surrogate(p) - expected) / torch.linalg.matrix_norm(expected)
    assert error.max() <= 1e-4
    checked = nm.certify(surrogate, problem, p, rtol=1e-3)
    assert checked.certainty == "bound" and checked.accepted.all()
    assert (error <= checked.bound).all()


@pytest.mark.parametrize(
    "operation", [nm.PseudoInverse(rank=2), nm.LMMSE("beside"), nm.LMMSE("beside", unbiased=True)], ids=str
)
def test_pieces_meet_at_their_faces(operation):
    """A fast channel: at faces and beside them as accurate as elsewhere."""
    H, R = coloured(6, 2, torch.complex128)

    def channel(p):
        return H((1 + torch.cos(12 * p)) / 2) + H((1 + torch.sin(9 * p)) / 2)

    def deficient(p):
        return channel(p) @ H(p / 3).mH  # 6 x 6, of rank two

    fn = channel if isinstance(operation, nm.LMMSE) else deficient
    family = nm.ParametricMatrix(fn, 0.0, 3.0, dtype=DOUBLE)
    if fn is channel:
        family = nm.families.beside(family, nm.ParametricMatrix(lambda p: R(p / 3), 0.0, 3.0, dtype=DOUBLE))
    problem = nm.Problem(family, operation)
    surrogate = nm.fit(problem, tol=1e-5, progress=False)
    assert surrogate.report.met and len(surrogate.pieces) >= 4
    faces = torch.tensor(sorted({float(piece.lower[0]) for piece in surrogate.pieces})[1:], dtype=DOUBLE)
    p = torch.cat([faces, faces - 1e-12, faces + 1e-12])[:, None]
    assert problem.residual(p, surrogate(p)).max() <= 2e-5


@pytest.mark.parametrize("shape", [(4, 2), (2, 4)], ids=str)
def test_noise_of_each_antenna_is_a_diagonal_covariance(shape):
    A, noise = conditioned(5, *shape, torch.complex128), [0.1, 2.0, 0.3, 0.05][: shape[0]]
    R = torch.diag(torch.tensor(noise, dtype=DOUBLE)).to(A).expand(5, -1, -1)
    for make in (nm.LMMSE, nm.RZF):
        assert_close(make(noise).exact(A)[0][0], textbook(A, R))
        assert make(tuple(noise)) == make(np.array(noise)) == make(torch.tensor(noise, dtype=DOUBLE))


def test_streams_of_other_powers_are_scaled_columns():
    """Estimates of symbols of power p: sqrt(p) times those of unit power by the filter of H with scaled columns."""
    H, power = conditioned(5, 6, 3, torch.complex128), torch.tensor([1.0, 0.1, 4.0], dtype=DOUBLE)
    P, R = torch.diag(power).to(H), 0.3 * torch.eye(6, dtype=H.dtype)
    expected = P @ H.mH @ torch.linalg.inv(H @ P @ H.mH + R)
    (X,), _ = nm.LMMSE(0.3).exact(H * power.sqrt())
    assert_close(power.sqrt()[:, None] * X, expected)


@pytest.mark.parametrize("noise", [0.2, (0.1, 0.2, 0.3, 0.4, 0.5)], ids=str)
def test_unbiased_receivers_pass_the_wanted_signal_as_it_is(noise, dtype):
    A = conditioned(6, 5, 3, dtype)
    (U,), _ = nm.LMMSE(noise, unbiased=True).exact(A)
    own = (U @ A).diagonal(dim1=1, dim2=2)
    assert_close(own, torch.ones(6, 3, dtype=wide(A).dtype), units=200)
    (X,), _ = nm.LMMSE(noise).exact(wide(A))
    assert_close(U, X / (X @ wide(A)).diagonal(dim1=1, dim2=2)[:, :, None])


def test_the_residual_of_unbiased_receivers_sees_an_error_in_every_entry():
    A, operation = conditioned(1, 5, 3, torch.complex128), nm.LMMSE(0.1, unbiased=True)
    (U,), _ = operation.exact(A)
    for k in range(U[0].numel()):
        E = torch.zeros(U.numel(), dtype=U.dtype).index_fill(0, torch.tensor(k), 1).view(U.shape)
        small, large = (float(operation.residual(A, (U + size * E,))) for size in (1e-6, 1e-5))
        assert small > 1e-8
        assert 9 < large / small < 11
    biased = nm.LMMSE(0.1).exact(A)[0]
    assert operation.residual(A, biased) > 1e-3


@pytest.mark.parametrize("unit", [2.0**-30, 2.0**30])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5)], ids=str)
@pytest.mark.parametrize("unbiased", [False, True])
def test_the_residual_in_coloured_noise_does_not_depend_on_the_unit_of_the_channel(unit, shape, unbiased, dtype):
    H, R = coloured(*shape, dtype, spread=0.5)
    p, operation = grid_of(H, 5), nm.LMMSE("beside", unbiased=unbiased)
    H, R = H(p), R(p)
    (X,), _ = operation.exact(torch.cat([H, R], dim=2))
    X = X + 0.01 * gaussian(*X.shape, dtype=dtype, seed=9)
    scaled = operation.residual(torch.cat([unit * H, unit**2 * R], dim=2), (X / unit,))
    assert_close(scaled, operation.residual(torch.cat([H, R], dim=2), (X,)).double(), 1000)


def improper(kind):
    R = torch.eye(3, dtype=torch.complex128)
    R[{"indefinite": (0, 0), "skew": (0, 1), "undefined": (1, 1)}[kind]] = {"undefined": torch.nan}.get(kind, -0.5)
    return R


@pytest.mark.parametrize("kind", ["indefinite", "skew", "undefined"])
@pytest.mark.parametrize("columns", [2, 5])
@pytest.mark.parametrize("unbiased", [False, True])
def test_matrices_that_are_no_covariance_fail_and_nothing_is_proved_with_them(kind, columns, unbiased):
    H = conditioned(2, 3, columns, torch.complex128)
    A = torch.cat([H, torch.stack([torch.eye(3, dtype=H.dtype), improper(kind)])], dim=2)
    operation = nm.LMMSE("beside", unbiased=unbiased)
    assert operation.exact(A)[1].tolist() == [False, True]
    whole = textbook(H, torch.eye(3).expand(2, -1, -1), unbiased)
    assert torch.isfinite(operation.error_bound(A, (whole,))).tolist() == [True, False]


def test_receivers_refuse_noise_that_is_none():
    words = ["`noise`", "a number", "a matrix", "(2, 3, 3)", "covariance R of shape (m, m)"]
    for R in (torch.ones(2, 3, 3), np.ones((2, 3, 3)), np.ones((2, 3, 3)).tolist()):
        assert_raises(ValueError, words, lambda R=R: nm.LMMSE(R))
    channel = coloured(4, 2, torch.complex64)[0]
    for receiver in (nm.LMMSE, nm.RZF):
        for R in (torch.eye(3), np.eye(3), torch.eye(4)[:, :2]):
            words = ["`noise`", "(4, 4)", str(tuple(R.shape)), "of that size"]
            assert_raises(ValueError, words, lambda R=R, receiver=receiver: nm.Problem(channel, receiver(R)))
        words = ["`noise`", "precision", "complex64", "float64", "convert"]
        assert_raises(ValueError, words, lambda receiver=receiver: nm.Problem(channel, receiver(np.eye(4))))
    assert_raises(ValueError, ["`noise`", "above 0", "-1.0"], lambda: nm.RZF([1.0, -1.0]))
    assert_raises(TypeError, ["`noise`", "number", "'besides'"], lambda: nm.RZF("besides"))
    assert_raises(ValueError, ["`unbiased`", "False or True", "2"], lambda: nm.LMMSE(unbiased=2))
    assert_raises(ValueError, ["`noise`", "4 numbers", "4 x 2", "got 3"], lambda: nm.LMMSE([1, 1, 1]).factors(4, 2))
    assert_raises(
        ValueError, ["`family`", "[A | R]", "4 x 4", "nm.families.beside"], lambda: nm.LMMSE("beside").factors(4, 4)
    )


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("real", ["channel", "covariance"])
def test_a_complex_covariance_with_a_real_channel_makes_the_problem_complex_and_the_other_way_round(real, unbiased):
    H = nm.families.trigonometric(4, shift=3.0, dtype=torch.float64 if real == "channel" else torch.complex128)
    R = torch.eye(4, dtype=torch.complex128) + 0.3j * torch.tensor([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0] * 4, [0] * 4])
    R = R if real == "channel" else R.abs()
    problem, p = nm.Problem(H, nm.LMMSE(R, unbiased=unbiased)), torch.linspace(0, 1, 5, dtype=torch.float64)
    assert problem.family.dtype == torch.complex128
    value, failed = problem.exact(p)
    assert not failed.any()
    A = H(p).to(torch.complex128)
    assert_close(value, textbook(A, R.to(A.dtype).expand(5, -1, -1), unbiased))


def test_the_noise_after_equalisation_is_its_formula(dtype):
    H, W = gaussian(4, 6, 3, dtype=dtype), gaussian(4, 3, 6, dtype=dtype, seed=1)
    root = gaussian(6, 6, dtype=dtype, seed=2)
    R = root @ root.mH
    for noise, covariance in ((0.3, 0.3 * np.eye(6)), (R, wide(R).resolve_conj().numpy())):
        expected = np.empty((4, 3))
        for b, (h, w) in enumerate(zip(wide(H).numpy(), wide(W).numpy())):
            for k in range(3):
                others = sum(abs(w[k] @ h[:, j]) ** 2 for j in range(3) if j != k)
                expected[b, k] = (others + (w[k] @ covariance @ w[k].conj()).real) / abs(w[k] @ h[:, k]) ** 2
        found = nm.wireless.post_equalisation_noise(H, W, noise)
        assert_close(found, torch.from_numpy(expected))
        assert_close(nm.wireless.sum_rate(H, W, noise), torch.from_numpy(np.log2(1 + 1 / expected).sum(axis=1)))


def test_the_noise_after_equalisation_refuses_another_covariance():
    H, W = torch.ones(2, 4, 3), torch.ones(2, 3, 4)
    noise = nm.wireless.post_equalisation_noise
    assert_raises(ValueError, ["`noise`", "(2, 4, 4)", "(3, 3)"], lambda: noise(H, W, torch.eye(3)))
    assert_raises(TypeError, ["`noise`", "float32 like `H`", "float64"], lambda: noise(H, W, torch.eye(4).double()))


@pytest.mark.parametrize("shape", [(8, 3), (4, 4), (3, 5)], ids=str)
def test_receivers_agree_with_sionna(shape):
    """Unbiased estimates and the variance of their error, as `sionna.phy.mimo.lmmse_equalizer` returns them."""
    mimo = pytest.importorskip("sionna.phy.mimo")
    H, R = coloured(*shape, torch.complex128)
    p = grid_of(H, 10)
    y = gaussian(10, shape[0], dtype=torch.complex128, seed=4)
    expected, variance = mimo.lmmse_equalizer(y, H(p), R(p), precision="double")
    U = nm.Problem(nm.families.beside(H, R), nm.LMMSE("beside", unbiased=True)).exact(p).value
    assert_close((U @ y[:, :, None])[:, :, 0], expected, units=1e4)
    assert_close(nm.wireless.post_equalisation_noise(H(p), U, R(p)), variance, units=1e4)


def test_operations_show_the_settings_that_matter():
    assert str(nm.PseudoInverse()) == "PseudoInverse()"
    assert str(nm.PseudoInverse(rank=3)) == "PseudoInverse(rank=3)"
    assert str(nm.LMMSE(0.1)) == "LMMSE(noise=0.1)"
    assert str(nm.LMMSE("beside", unbiased=True)) == "LMMSE(noise='beside', unbiased=True)"


def test_a_user_who_is_not_received_has_no_unbiased_filter():
    A = conditioned(2, 4, 3, torch.complex128)
    A[1, :, 2] = 0
    problem = nm.Problem(nm.ParametricMatrix(lambda p: A[(p[:, 0] > 0.5).long()], 0.0, 1.0), nm.LMMSE(1.0, True))
    assert problem.exact(torch.tensor([0.2, 0.8])[:, None]).failed.tolist() == [False, True]


@pytest.mark.parametrize("shape", [(8, 8), (16, 8), (4, 8)], ids=str)
@pytest.mark.parametrize("noise", [1e-3, 1e-6, 1e-9])
def test_certificates_do_not_worsen_with_the_noise(shape, noise):
    """A bound by 1 / noise alone would refuse maps whose error is a hundredth of the tolerance."""
    family = grid_free(shape)
    problem = nm.Problem(family, nm.LMMSE(noise=noise))
    surrogate, p = quietly(problem, tol=1e-4), torch.linspace(0, 1, 101, dtype=DOUBLE)[:, None]
    checked, error = nm.certify(surrogate, problem, p, rtol=1e-2), problem.error(p, surrogate(p))
    assert (checked.accepted | (error > 1e-4)).all()
    assert (nm.certify(surrogate, problem, p, rtol=1e300).bound >= error * (1 - 1e-9) - 1e-12).all()


def grid_free(shape):
    """Channels with condition numbers below ten, and a slow change over [0, 1]."""
    A, B = conditioned(1, *shape, DOUBLE, 5.0)[0], gaussian(1, *shape, dtype=DOUBLE, seed=1)[0]
    return nm.ParametricMatrix(lambda p: A + 0.02 * p[:, :, None] * B, 0.0, 1.0, dtype=DOUBLE)
