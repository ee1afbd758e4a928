"""The trusted room: right on every thread count, failures as data, and nothing else in the library solves."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DTYPES, assert_close, conditioned, eps, gaussian, real

import neumatc as nm
from neumatc import linalg

SHAPES = [(1, 1), (4, 4), (7, 3), (3, 7), (1, 5)]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def views(A):
    """The same values in awkward memory: transposed, strided, lazily conjugated, the imaginary part of a conjugate."""
    yield A.mT.contiguous().mT
    yield torch.stack([A, A], dim=1)[:, 0]
    if A.is_complex():
        yield A.conj().resolve_conj().conj()
    else:
        yield torch.complex(torch.zeros_like(A), -A).conj().imag


@pytest.mark.usefixtures("two_threads")
def test_inverse_where_the_batched_lu_of_torch_fails(dtype, device):
    A = conditioned(16, 192, 192, dtype, condition=100.0)
    X, failed = linalg.inverse(A.to(device))
    oracle = np.stack([np.linalg.inv(a) for a in A.to(torch.complex128 if dtype.is_complex else torch.float64).numpy()])
    assert X.dtype == dtype
    assert X.device == torch.device(device)
    assert not failed.any()
    assert_close(X.cpu(), torch.from_numpy(oracle), units=100, scale=100.0)


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_solvers_agree_with_numpy_in_any_memory_layout(m, n, dtype, device):
    A = conditioned(5, m, n, dtype)
    kept = A.clone()
    for view in (A, *views(A)):
        U, S, Vh, failed = linalg.svd(view.to(device))
        k = min(m, n)
        assert [x.shape for x in (U, S, Vh)] == [(5, m, k), (5, k), (5, k, n)]
        assert [x.dtype for x in (U, S, Vh, failed)] == [dtype, real(dtype), dtype, torch.bool]
        assert not failed.any()
        assert_close(S.cpu(), torch.from_numpy(np.linalg.svd(A.numpy(), compute_uv=False)))
        assert_close(((U * S[:, None, :].to(dtype)) @ Vh).cpu(), A)
        assert_close((U.mH @ U).cpu(), torch.eye(k, dtype=dtype).expand(5, k, k))
        assert_close((Vh @ Vh.mH).cpu(), torch.eye(k, dtype=dtype).expand(5, k, k))
        if m == n:
            X, failed = linalg.inverse(view.to(device))
            assert not failed.any()
            assert_close(X.cpu(), torch.from_numpy(np.linalg.inv(A.numpy())), scale=10.0)
    assert torch.equal(A, kept)  # the argument is not written to


@pytest.mark.parametrize("kind", ["zero", "repeated row", "numerical", "nan", "inf"])
def test_singular_members_are_reported_and_the_others_are_right(kind, dtype, device):
    A = conditioned(6, 8, 8, dtype)
    bad = {
        "zero": torch.zeros(8, 8, dtype=dtype),
        "repeated row": A[2].index_copy(0, torch.tensor([1]), A[2, :1]),
        "numerical": conditioned(1, 8, 8, dtype, condition=1 / eps(dtype))[0],
        "nan": torch.full((8, 8), torch.nan, dtype=dtype),
        "inf": torch.full((8, 8), torch.inf, dtype=dtype),
    }[kind]
    mixed = A.clone()
    mixed[2] = mixed[5] = bad
    X, failed = linalg.inverse(mixed.to(device))
    assert failed.tolist() == [False, False, True, False, False, True]
    assert X[failed].isnan().all()
    assert_close(X[~failed].cpu(), torch.from_numpy(np.linalg.inv(A[[0, 1, 3, 4]].numpy())), scale=10.0)


def test_well_conditioned_matrices_of_any_scale_are_not_singular(dtype):
    """The criterion is the condition number, not the determinant or the size of the entries."""
    A = conditioned(4, 6, 6, dtype) * torch.tensor([1e-12, 1e-4, 1e6, 1e12])[:, None, None].to(dtype)
    assert not linalg.inverse(A)[1].any()


@pytest.mark.parametrize("everything", [False, True])
def test_svd_failures_are_data(everything, dtype):
    """Also when the whole batch fails the factors keep their shapes and dtypes."""
    A = conditioned(4, 5, 3, dtype)
    A[1] = torch.nan
    A = A[1:2] if everything else A
    U, S, Vh, failed = linalg.svd(A)
    assert failed.tolist() == ([True] if everything else [False, True, False, False])
    assert [x.dtype for x in (U, S, Vh)] == [dtype, real(dtype), dtype]
    assert [x.shape[1:] for x in (U, S, Vh)] == [(5, 3), (3,), (3, 3)]
    assert all(x[failed].isnan().all() and x[~failed].isfinite().all() for x in (U, S, Vh))


@pytest.mark.parametrize("dtype", DTYPES[1::2])
def test_inverse_of_a_matrix_that_carries_gradients(dtype):
    A = gaussian(2, 3, 3, dtype=dtype).requires_grad_()
    assert not linalg.inverse(A)[0].requires_grad
    assert not linalg.svd(A)[0].requires_grad


LU = {"inv", "inv_ex", "solve", "solve_ex", "lu", "lu_factor", "lu_factor_ex", "lu_solve", "lu_unpack", "det", "logdet"}
LU |= {"slogdet", "inverse", "tensorinv", "tensorsolve", "matrix_inverse"}


def lu_calls(source):
    """Lines that name a torch function which factorises by LU, however torch is imported, or a tensor's method."""
    tree = ast.parse(source)
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in LU:
            ours = ("linalg",) if imports(tree, "neumatc", "linalg") else ()
            counted = (node.attr, ast.unparse(node.value)) == ("solve", "task")  # neumatc's: through the operation
            trusted = ("np.linalg", "numpy.linalg", "scipy.linalg", "nm.linalg", *ours)
            if not counted and ast.unparse(node.value) not in trusted:
                lines.append(node.lineno)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            lines += [node.lineno for alias in node.names if alias.name in LU]
    return lines


def imports(tree, module, name):
    return any(
        isinstance(node, ast.ImportFrom) and node.module == module and name in [alias.name for alias in node.names]
        for node in ast.walk(tree)
    )


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch\ntorch.linalg.inv(A)", [2]),
        ("A.inverse()", [1]),
        ("torch.linalg.lu_factor_ex(A)", [1]),
        ("from torch import linalg\nlinalg.slogdet(A)", [2]),
        ("from torch.linalg import solve", [1]),
        ("f = torch.linalg.solve", [1]),
        ("from neumatc import linalg\nlinalg.inverse(A)", []),
        ("np.linalg.inv(A)", []),
        ("torch.linalg.svd(A)", []),
        ("task.solve(p)", []),
        ("task.inverse(p)", [1]),
        ("other.solve(p)", [1]),
    ],
)
def test_the_search_for_lu_finds_it(source, found):
    assert lu_calls(source) == found


@pytest.mark.parametrize("path", sorted(Path(nm.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_only_the_trusted_room_factorises(path):
    found = lu_calls(path.read_text(encoding="utf-8"))
    assert path.name == "linalg.py" or not found, f"{path.name}, lines {found}: go through neumatc.linalg"
