#!/usr/bin/env bash
# safetensors stores a lazily conjugated torch tensor without its conjugation, and says nothing.
#
# Versions: safetensors 0.8.0, torch 2.13.0.
# Input:    x.conj() of a contiguous complex64 tensor. torch does not touch the memory: it sets a bit, which every
#           operation of torch reads (`is_conj()`); torch.save and NumPy's conversion resolve it or refuse.
# Expected: load(save({"y": y}))["y"] equals y, or save raises, as it does for a view that is not contiguous.
# Seen:     what comes back is x, the values before the conjugation. The same happens to the bit of a negated view,
#           as x.conj().imag has it.
# Remedy:   y.resolve_conj().resolve_neg() before saving. NeuMatC stores complex tensors as pairs of real numbers.
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 safetensors==0.8.0 packaging==25.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import safetensors
import torch
from safetensors.torch import load, save

assert safetensors.__version__ == "0.8.0" and torch.__version__.startswith("2.13.0")
x = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
y = x.conj()
assert y.is_contiguous() and y.is_conj()
back = load(save({"y": y}))["y"]
print("saved ", y.tolist())
print("loaded", back.tolist())
assert torch.equal(back, x) and not torch.equal(back, y), "changed: the conjugation is kept now"
assert torch.equal(load(save({"y": y.resolve_conj()}))["y"], y)
negated = torch._neg_view(torch.tensor([1.0, 2.0]))
assert torch.equal(load(save({"y": negated}))["y"], -negated), "changed: the sign is kept now"
print("as described: the conjugation is lost without a word")
PYTHON
