#!/usr/bin/env bash
# quadriga-lib's frequency response takes and returns double precision, and computes in single.
#
# Version:  quadriga-lib 0.12.2 with NumPy 2.4.6.
# Input:    one path of gain one, at delays of 1 and 10 microseconds, at the upper tones of a band of 100 MHz, in
#           complex128 and float64.
# Expected: exp(-2 pi j f tau) to 1e-12: the result is complex128.
# Seen:     errors of 6e-5 and 7e-4: those of phases in float32, which grow with f tau. An inverse, a null of a
#           beamformer, or a reference for other code made of it is no better than that.
# Remedy:   sum the paths yourself: (coeff[..., None] * np.exp(-2j * np.pi * delay[..., None] * f)).sum(axis=2).
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet quadriga-lib==0.12.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import quadriga_lib as qd

assert qd.version().startswith("0.12.2"), qd.version()
a, place = np.ones((1, 1, 1), complex), np.linspace(0.9, 1.0, 1001)
worst = {}
for delay in (1e-6, 1e-5):
    tau = np.full((1, 1, 1), delay)
    H = qd.channel.baseband_freq_response(coeff=[a], delay=[tau], bandwidth=1e8, pilot_grid=place).ravel()
    assert H.dtype == np.complex128
    worst[delay] = np.abs(H - np.exp(-2j * np.pi * delay * 1e8 * place)).max()
    print(f"delay {delay:g} s: error {worst[delay]:.1e}")
assert worst[1e-6] > 1e-6 and worst[1e-5] > 1e-5, "changed: double precision within"
print("as described: single precision within")
PYTHON
