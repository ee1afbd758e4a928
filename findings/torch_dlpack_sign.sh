#!/usr/bin/env bash
# DLPack hands the imaginary part of a conjugated torch tensor to NumPy with the wrong sign.
#
# Versions: torch 2.13.0, NumPy 2.4.6.
# Input:    x.conj().imag of a complex tensor: a real view of the memory of x with a bit that says "negated"
#           (`is_neg()`), as the bit of a lazy conjugation does for x.conj().
# Expected: np.from_dlpack gives -x.imag; or it raises, as it does for x.conj() ("Can't export tensors with the conjugate
#           bit set"), and as .numpy() does for the negated view.
# Seen:     np.from_dlpack gives +x.imag, and so does torch.from_dlpack: the export checks one bit and not the other.
# Remedy:   y.resolve_neg() before a tensor goes to another package, or y.numpy(), which refuses.
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W error - <<'PYTHON'
import numpy as np
import torch

assert torch.__version__.startswith("2.13.0") and np.__version__ == "2.4.6"


def refused(function):
    """Whether a call raises."""
    try:
        function()
    except (BufferError, RuntimeError) as error:
        print("refused:", error)
        return True
    return False


x = torch.tensor([1 + 2j, 3 - 4j])
y = x.conj().imag
assert y.is_neg() and y.tolist() == [-2.0, 4.0]
assert refused(lambda: np.from_dlpack(x.conj())) and refused(y.numpy)
print("tensor", y.tolist(), " NumPy by DLPack", np.from_dlpack(y).tolist())
assert np.from_dlpack(y).tolist() == [2.0, -4.0], "changed: the sign is kept now, or the export refused"
assert torch.from_dlpack(y).tolist() == [2.0, -4.0], "changed: the sign is kept now, or the export refused"
assert np.from_dlpack(y.resolve_neg()).tolist() == [-2.0, 4.0]
print("as described: the sign is lost without a word")
PYTHON
