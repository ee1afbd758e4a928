"""What users of NumPy, SciPy and torch type first: NumPy in, NumPy out, and their settings change nothing."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from conftest import assert_close, assert_raises, parameters

import neumatc as nm

DOUBLE = torch.float64


def one(x):
    """A matrix at one parameter, in NumPy."""
    return np.array([[2 + np.cos(x), 0.3], [0.1, 3 - np.sin(x)]])


def two(p):
    """A complex matrix at two parameters, an array (2,)."""
    return np.array([[2 + p[0], 1j * p[1]], [0.0, 1.0]])


def stacked(p):
    """The same as `one` for a batch, in torch."""
    return torch.as_tensor(np.stack([one(float(x)) for x in p[:, 0]]))


@pytest.fixture(scope="module")
def problem():
    return nm.Problem(nm.ParametricMatrix(one, 0.0, 6.0, batched=False), nm.Inverse())


@pytest.fixture(scope="module", params=["rank", "pieces"])
def surrogate(request, problem):
    """A fit of a rank, and one to a tolerance with at least four pieces."""
    if request.param == "rank":
        return nm.fit(problem, rank=4, progress=False)
    found = nm.fit(problem, tol=1e-8, rank=8, progress=False)
    assert len(found.pieces) >= 4 and found.report.met
    return found


# Functions


def test_a_function_of_one_float_is_a_family():
    family = nm.ParametricMatrix(one, 0.0, 1.0, batched=False)
    assert (family.shape, family.dtype, family.box.dtype) == ((2, 2), DOUBLE, DOUBLE)
    p = parameters(5)
    assert_close(family(p), stacked(p))


def test_a_function_of_one_parameter_of_several_gets_an_array():
    seen = []
    family = nm.ParametricMatrix(lambda p: seen.append(p) or two(p), [0.0, 0.0], [1.0, 1.0], batched=False)
    assert family.dtype == torch.complex128
    assert isinstance(seen[0], np.ndarray) and seen[0].tolist() == [0.5, 0.5]
    p = parameters(5, 2)
    assert_close(family(p), torch.as_tensor(np.stack([two(x) for x in p.numpy()])))


def test_a_function_of_one_parameter_gets_a_float():
    seen = []
    nm.ParametricMatrix(lambda x: seen.append(x) or one(x), 0, 2, grid=[0, 1, 2], batched=False)
    assert seen == [1.0] and type(seen[0]) is float


@pytest.mark.parametrize(
    "kind",
    [
        np.asarray,
        np.ndarray.tolist,
        np.asmatrix,
        np.asfortranarray,
        lambda A: A[::-1][::-1],
        lambda A: np.broadcast_to(A, A.shape),
        lambda A: A.astype(">f8"),
        torch.as_tensor,
        sp.csr_array,
        sp.csc_matrix,
        sp.coo_array,
        sp.dia_array,
        lambda A: torch.as_tensor(A).to_sparse(),
        lambda A: torch.as_tensor(A).to_sparse_csr(),
    ],
)
@pytest.mark.parametrize("batched", [False, True])
def test_a_function_may_return_a_matrix_in_any_form(kind, batched):
    """For a batch, a list of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy and torch deprecate some of their forms
        fn = (lambda p: [kind(one(float(x))) for x in p[:, 0]]) if batched else lambda x: kind(one(x))
        family, p = nm.ParametricMatrix(fn, 0.0, 1.0, batched=batched, dtype=DOUBLE), parameters(5)
        assert_close(family(p), stacked(p))


@pytest.mark.parametrize("kind", [torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.to_sparse], ids=str)
def test_a_batched_function_may_return_an_array_or_a_sparse_batch(kind):
    family, p = nm.ParametricMatrix(lambda p: kind(stacked(p)), 0.0, 1.0, dtype=DOUBLE), parameters(5)
    assert_close(family(p), stacked(p))


@pytest.mark.parametrize("sparse", [False, True])
def test_what_is_made_dense_is_said(sparse):
    fn = (lambda x: sp.csr_array(one(x))) if sparse else one
    family = nm.ParametricMatrix(fn, 0.0, 1.0, batched=False)
    assert family.densified == sparse
    assert ("dense" in repr(family)) == sparse
    report = nm.fit(nm.Problem(family, nm.Inverse()), rank=3, progress=False).report
    assert ("made dense" in report.message) == sparse


def test_integers_are_real_numbers():
    family = nm.ParametricMatrix(lambda x: [[2, 1], [1, int(x)]], 2, 9, batched=False)
    assert family.dtype == DOUBLE
    assert family([3, 4])[:, 1, 1].tolist() == [3.0, 4.0]


def test_a_matrix_may_be_real_at_single_parameters():
    family = nm.ParametricMatrix(lambda x: np.eye(2) if x < 0.3 else np.eye(2) * 1j, 0.0, 1.0, batched=False)
    assert family.dtype == torch.complex128
    assert family([0.1, 0.9])[:, 0, 0].tolist() == [1, 1j]


@pytest.mark.parametrize("upper", [1.0, [1.0]])
@pytest.mark.parametrize("fn", [one, lambda x: np.eye(2) * x, lambda x: sp.csr_array(np.eye(2) * float(x))])
def test_a_function_of_one_parameter_is_told_apart_and_not_guessed(fn, upper):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy deprecates what torch does when such code gets a tensor
        words = ["`fn`", "one parameter at a time", "`batched=False`"]
        assert_raises(nm.FamilyError, words, lambda: nm.ParametricMatrix(fn, upper, 2.0))


@pytest.mark.parametrize(
    ("lower", "batched", "expected"),
    [
        (0.0, True, torch.float32),
        (0.0, False, DOUBLE),
        ([0], False, DOUBLE),
        (np.float64(0.0), True, DOUBLE),
        (np.zeros(1), True, DOUBLE),
        (np.zeros(1, np.float32), True, torch.float32),
        (torch.zeros(1), False, torch.float32),
    ],
)
def test_bounds_decide_the_precision_of_parameters(lower, batched, expected):
    fn = one if not batched else stacked
    assert nm.ParametricMatrix(fn, lower, 1.0, batched=batched).box.dtype == expected


def test_numpy_code_carries_no_gradients(problem):
    p = torch.tensor([[0.5]], dtype=DOUBLE, requires_grad=True)
    for call in (problem.family, problem.exact, problem.family.evaluate):
        assert_raises(ValueError, ["`p`", "without gradients", "NumPy", "detach"], lambda call=call: call(p))
    with torch.no_grad():
        assert problem.family(p).shape == (1, 2, 2)


# Parameters and results


P = [0.25, 1.5, 3.0, 5.5]


@pytest.mark.parametrize(
    ("p", "arrays"),
    [
        (np.array(P), True),
        (np.array(P)[:, None], True),
        (np.array([0.0, *P])[:0:-1][::-1], True),
        (np.float64(0.25), True),
        (np.int64(3), True),
        (np.arange(5), True),
        (P, False),
        ([[x] for x in P], False),
        (0.25, False),
        (3, False),
        (torch.tensor(P, dtype=DOUBLE), False),
        (torch.arange(5), False),
    ],
    ids=repr,
)
def test_numpy_in_numpy_out(surrogate, problem, p, arrays):
    kind = np.ndarray if arrays else torch.Tensor
    rows = torch.as_tensor(np.asarray(p, dtype=float)).reshape(-1, 1)
    X = surrogate(p)
    checked = nm.certify(surrogate, problem, p)
    (part,) = surrogate.batches(p, 10**6)
    peer = nm.peers.chebyshev(problem, 9)
    found = {
        "call": (X, surrogate(rows)),
        "grid": (surrogate.grid(p), surrogate(rows)),
        "parameters": (part[0], rows),
        "batches": (part[1], surrogate(rows)),
        "family": (problem.family(p), problem.family(rows)),
        "evaluate": (problem.family.evaluate(p)[0], problem.family(rows)),
        "exact": (problem.exact(p).value, problem.exact(rows).value),
        "failed": (problem.exact(p).failed, problem.exact(rows).failed),
        "residual": (problem.residual(p, X), problem.residual(rows, X)),
        "error": (problem.error(p, X), problem.error(rows, X)),
        "value": (checked.value, surrogate(rows)),
        "bound": (checked.bound, nm.certify(surrogate, problem, rows).bound),
        "accepted": (checked.accepted, checked.accepted),
        "peer": (peer(p), peer(rows)),
    }
    for name, (value, expected) in found.items():
        assert type(value) is kind, name
        np.testing.assert_allclose(np.asarray(value), np.asarray(expected), rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("p", [0.5, torch.tensor([0.5], dtype=DOUBLE), np.array([0.5])], ids=repr)
def test_values_may_be_arrays_or_tensors(problem, surrogate, p):
    X = torch.as_tensor(surrogate(p))
    for value in (X, X.numpy(), X.numpy()[::-1][::-1], np.broadcast_to(X.numpy(), X.shape)):
        np.testing.assert_allclose(problem.error(p, value), problem.error(p, X), rtol=1e-12)


def test_factors_come_as_a_named_tuple_of_arrays(problem):
    surrogate = nm.fit(nm.Problem(problem.family, nm.SVD()), rank=4, progress=False)
    U, S, Vh = surrogate(np.linspace(0, 6, 5))
    assert [type(x) for x in (U, S, Vh)] == [np.ndarray] * 3
    assert surrogate(np.array([0.5])).S.shape == (1, 2)


@pytest.mark.parametrize("count", [np.int64(5), np.uint8(5), np.int32(5)], ids=repr)
def test_numpy_integers_are_integers(problem, count):
    surrogate = nm.fit(problem, rank=count - 2, budget=np.int64(8), seed=count, progress=False)
    assert surrogate.rank == 3 and surrogate.report.exact_solves == 8
    assert nm.peers.chebyshev(problem, count).terms == 5
    assert nm.peers.spline(problem, count, degree=np.int64(3)).terms == 5
    assert nm.families.trigonometric(size=count).shape == (5, 5)
    assert nm.SVD(rank=np.int64(1)).settings() == nm.SVD(rank=1).settings()


# What the caller has set


@pytest.fixture(params=["errors", "default device", "autocast"])
def setting(request):
    """A setting of the caller's."""
    return {
        "errors": lambda: np.errstate(all="raise"),
        "default device": lambda: torch.device("meta"),
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    }[request.param]


@pytest.mark.parametrize("operation", [nm.Inverse(), nm.SVD(rank=2), nm.LogDet()], ids=str)
@pytest.mark.parametrize("settings", [{"tol": 1e-6}, {"rank": 1}], ids=str)
def test_settings_of_the_caller_change_nothing(setting, operation, settings):
    """Errors that NumPy raises, a default device other than the family's, and autocast."""
    problem = nm.Problem(nm.families.trigonometric(4, shift=3.0, dtype=DOUBLE), operation)
    p, found = np.linspace(0, 1, 9), []
    for context in (setting, lambda: np.errstate()):
        with context():
            surrogate = nm.fit(problem, **settings, progress=False)
            checked = nm.certify(surrogate, problem, p)
            found.append([surrogate(p), problem.error(p, surrogate(p)), checked.bound])
    for x, y in zip(*found):
        np.testing.assert_equal(x, y)


def test_peers_and_files_do_not_mind_a_default_device(problem, tmp_path):
    surrogate = nm.fit(problem, rank=4, progress=False)
    with torch.device("meta"):
        nm.save(surrogate, tmp_path / "map.safetensors")
        assert torch.equal(nm.load(tmp_path / "map.safetensors")(P), surrogate(P))
        for build in (nm.peers.chebyshev, nm.peers.spline, nm.peers.aaa, nm.peers.piecewise_chebyshev):
            peer = build(problem, 33)
            assert peer(np.array(P)).shape == (4, 2, 2)


def test_a_function_runs_under_the_settings_of_its_caller():
    def fn(x):
        return np.array([[1.0 + x, 0.0], [0.0, np.float64(x - 2.0) / np.float64(x - 2.0)]])

    with np.errstate(all="ignore"):
        family = nm.ParametricMatrix(fn, 0.0, 2.0, batched=False)
        assert family.evaluate([1.0, 2.0])[1].tolist() == [True, False]
        assert_raises(nm.FamilyError, ["`fn(p)`", "NaN or Inf", "[2.0]"], lambda: family(2.0))
    with np.errstate(all="raise"):
        assert_raises(nm.FamilyError, ["`fn(p)`", "FloatingPointError"], lambda: family(2.0))


def test_a_function_makes_its_tensors_where_its_caller_does():
    seen = []
    family = nm.ParametricMatrix(
        lambda p: seen.append(torch.empty(0).device.type) or torch.eye(2, device="cpu")[None],
        [0.0],
        [1.0],
        device="cpu",
    )
    with torch.device("meta"):
        family(torch.tensor([[0.5]], device="cpu"))
    assert seen == ["cpu", "meta"]


FLAGS = [True, np.True_, np.array(True), torch.tensor(True)]


@pytest.mark.parametrize("flag", FLAGS, ids=repr)
def test_flags_may_be_of_numpy_and_torch(flag):
    family = nm.ParametricMatrix(lambda p: torch.eye(2).expand(len(p), 2, 2), 0.0, 1.0, periodic=flag, batched=flag)
    assert family.box.periodic == (True,) and family.batched is True
    assert nm.Box([0.0, 0.0], [1.0, 1.0], periodic=[flag, False]).periodic == (True, False)
    surrogate = nm.fit(nm.Problem(family, nm.SVD()), rank=1, progress=flag)
    assert surrogate([0.5], extrapolate=flag, orthonormal=flag).S.shape == (1, 2)


@pytest.mark.parametrize("flag", [1, "yes", None, np.ones(2, bool), torch.ones(1)], ids=repr)
def test_what_is_no_flag_is_refused(problem, flag):
    surrogate = nm.fit(problem, rank=4, progress=False)
    for name, call in {
        "batched": lambda: nm.ParametricMatrix(one, 0.0, 1.0, batched=flag),
        "extrapolate": lambda: surrogate(0.5, extrapolate=flag),
        "orthonormal": lambda: surrogate(0.5, orthonormal=flag),
        "progress": lambda: nm.fit(problem, rank=4, progress=flag),
    }.items():
        assert_raises(
            TypeError, [f"`{name}`", "True or False", "of type" if not hasattr(flag, "dtype") else "shape"], call
        )


# What a function raises


class StrangeError(Exception):
    """An exception that is no ValueError."""


@pytest.mark.parametrize(
    "error", [KeyError("row"), StrangeError("x" * 1000), ZeroDivisionError(), StopIteration()], ids=repr
)
def test_what_a_function_raises_is_a_family_error(error):
    def fn(x):
        if x > 0.75:
            raise error
        return one(x)

    family = nm.ParametricMatrix(fn, 0.0, 1.0, batched=False)
    with pytest.raises(nm.FamilyError, match=type(error).__name__) as caught:
        family([0.5, 0.9])
    assert caught.value.__cause__ is error
    assert len(str(caught.value)) < 300 and "[0.9]" in str(caught.value)
    assert family.evaluate([0.5, 0.9])[1].tolist() == [True, False]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError])
def test_interrupts_and_memory_go_through(error):
    def fn(x):
        raise error

    with pytest.raises(error):
        nm.ParametricMatrix(fn, 0.0, 1.0, batched=False)


@pytest.mark.parametrize("kind", ["array", "tensor", "sparse", "list"])
def test_a_function_may_write_into_the_same_memory_again(kind):
    made = {
        "array": np.eye(2),
        "tensor": torch.eye(2, dtype=torch.float64),
        "sparse": sp.csr_array(np.eye(2)),
        "list": [[1.0, 0.0], [0.0, 1.0]],
    }[kind]

    def fn(x):
        if kind == "list":
            made[0][0] = x
        else:
            made[0, 0] = x
        return made

    family = nm.ParametricMatrix(fn, 1.0, 2.0, batched=False)
    assert family(np.array([1.0, 1.5, 2.0]))[:, 0, 0].tolist() == [1.0, 1.5, 2.0]


@pytest.mark.parametrize("value", [1.0, [1.0, 2.0], np.ones(3)], ids=str)
def test_one_parameter_without_a_matrix_is_told(value):
    words = ["`fn(p)`", "an m x n matrix for one parameter", "return that"]
    assert_raises(nm.FamilyError, words, lambda: nm.ParametricMatrix(lambda x: value, 0.0, 1.0, batched=False))
