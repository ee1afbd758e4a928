#!/usr/bin/env bash
# torch.compile takes code out of its cache that was written for wider vectors, and returns half of the values.
#
# Versions: torch 2.13.0, NumPy 2.4.6; a processor with AVX-512, a C++ compiler.
# Input:    one compiled function, run with ATEN_CPU_CAPABILITY=avx512, then with avx2, with one folder for the cache: what
#           two kinds of machine do that share a home directory or an image.
# Expected: a second entry in the cache, or compilation anew: the library writes other loops for each width.
# Seen:     the loops for AVX-512 are found again and built for AVX2. They go in steps of 16 numbers and fill 8 of them; the
#           other 8 are what happened to be in memory. No warning. With a new folder all values are right.
# Remedy:   TORCHINDUCTOR_CACHE_DIR, one for each kind of processor.
# The script ends with status 0 as long as this is so, with another one if it changes or cannot be tried here.
set -euo pipefail
grep -q avx512vl /proc/cpuinfo || { echo "not on this processor: no AVX-512" >&2; exit 3; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/try.py" <<'PYTHON'
import sys

import torch

assert torch.__version__.startswith("2.13.0")


def function(x):
    """Anything that is fused into one loop."""
    return torch.sin(x) * 2 + x


x = torch.linspace(0, 3, 4096)
compiled = torch.compile(function)(x)
right = torch.isclose(compiled, function(x), rtol=1e-4, atol=1e-4)
print(torch.backends.cpu.get_cpu_capability(), int((~right).sum()), "of", len(x), "values are wrong")
places = (torch.arange(len(x)) % 16)[~right]
if sys.argv[1] == "half":
    assert len(places) and places.min() >= 8, "changed: the cache tells the widths apart now"
else:
    assert not len(places)
PYTHON
export TORCHINDUCTOR_CACHE_DIR
for kind in avx512,right,one avx2,half,one avx2,right,other; do
  IFS=, read -r capability expected cache <<< "$kind"
  TORCHINDUCTOR_CACHE_DIR="$folder/$cache"
  ATEN_CPU_CAPABILITY=$capability "$folder/venv/bin/python" "$folder/try.py" "$expected"
done
echo "as described: half of the values, without a word"
