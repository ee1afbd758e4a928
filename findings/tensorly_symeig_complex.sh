#!/usr/bin/env bash
# TensorLy's svd="symeig_svd" takes complex data without a word, and a tensor train made with it is no approximation.
#
# Version:  TensorLy 0.10.0 with NumPy 2.4.6.
# Input:    a complex tensor whose multilinear ranks are exactly two; and a complex matrix.
# Guess:    the option chooses how the singular vectors are computed, here as eigenvectors of the Gram matrix. So every
#           choice gives the same tensor train up to rounding, for complex data as for real data: the other two do.
# Seen:     the Gram matrix is formed with a plain transpose, which for complex data is not Hermitian. The singular values
#           are wrong, and the tensor train misses the tensor by about its own norm (real data: rounding). The Tucker
#           decomposition of the same tensor is right, so a test of that alone sees nothing.
# Remedy:   svd="truncated_svd" (the default) or "randomized_svd" for complex data; check the error of a decomposition.
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorly==0.10.0 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" -W error - <<'PYTHON'
import numpy as np
import tensorly as tl
from tensorly.decomposition import tensor_train, tucker
from tensorly.tenalg import svd_interface

assert tl.__version__ == "0.10.0"
rng = np.random.default_rng(0)


def normal(*shape, unit):
    return rng.normal(size=shape) + unit * rng.normal(size=shape)


def missed(found, right):
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


errors = {}
for kind, unit in (("real", 0.0), ("complex", 1j)):
    factors = [normal(n, 2, unit=unit) for n in (8, 7, 6)]
    T = np.einsum("abc,ia,jb,kc->ijk", normal(2, 2, 2, unit=unit), *factors)
    A = normal(6, 5, unit=unit)
    right = np.linalg.svd(A, compute_uv=False)
    for svd in ("truncated_svd", "randomized_svd", "symeig_svd"):
        train = missed(tl.tt_to_tensor(tensor_train(T, [1, 2, 2, 1], svd=svd)), T)
        core = missed(tl.tucker_to_tensor(tucker(T, [2, 2, 2], svd=svd)), T)
        values = float(abs(np.sort(svd_interface(A, method=svd, n_eigenvecs=5)[1])[::-1] - right).max())
        errors[kind, svd] = train, core, values
        print(f"{kind:7} {svd:15} tensor train {train:.0e}, Tucker {core:.0e}, singular values off by {values:.0e}")

wrong = errors.pop(("complex", "symeig_svd"))
assert all(max(found) < 1e-10 for found in errors.values()), "changed: another choice is not exact either"
assert wrong[0] > 0.5 and wrong[2] > 0.5, "changed: complex data go through symeig_svd now"
assert wrong[1] < 1e-10, "changed: Tucker is not right any more"
print("as described: symeig_svd is wrong for complex data, without a warning")
PYTHON
