#!/usr/bin/env bash
# scipy.signal.wiener takes complex data without a warning, and what it returns depends on the phase of the whole.
#
# Version:  SciPy 1.17.1.
# Input:    a complex exponential in white complex noise, such as a channel estimate along frequency.
# Expected: the local variance is that of the modulus, mean |y|^2 - |mean y|^2. Then a common phase goes through,
#           wiener(exp(i t) y) = exp(i t) wiener(y), and the noise falls as it does in real and imaginary parts.
#           Or an error, as scipy.signal.medfilt raises for complex data.
# Seen:     the variance is taken of the squares, mean y^2 - (mean y)^2, which is complex and small where the noise has
#           no preferred phase. A phase of 0.8 changes the result by more than the signal; the error falls by a tenth,
#           that of real and imaginary parts filtered apart by half.
# Remedy:   filter the parts apart, or by a method for complex data (scipy.ndimage.gaussian_filter1d is linear).
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scipy==1.17.1 numpy==2.4.6
"$folder/venv/bin/python" -W error - <<'PYTHON'
import numpy as np
import scipy
from scipy.signal import wiener

assert scipy.__version__ == "1.17.1"
rng = np.random.default_rng(0)
signal = np.exp(6j * np.pi * np.linspace(0, 1, 200))
y = signal + 0.3 * (rng.normal(size=200) + 1j * rng.normal(size=200))
turn = np.exp(0.8j)
whole, turned = wiener(y, 7), wiener(turn * y, 7) / turn  # -W error: any warning would end the script
parts = wiener(y.real, 7) + 1j * wiener(y.imag, 7)


def rms(z):
    return float(np.sqrt((abs(z) ** 2).mean()))


print(f"a common phase changes the result by up to {abs(whole - turned).max():.2f}, where the signal has modulus 1")
print(f"error: noisy {rms(y - signal):.3f}, wiener {rms(whole - signal):.3f}, parts apart {rms(parts - signal):.3f}")
assert abs(whole - turned).max() > 1, "changed: the result follows the phase now"
assert rms(whole - signal) > 0.8 * rms(y - signal) and rms(parts - signal) < 0.6 * rms(y - signal), "changed"
print("as described: complex data are filtered wrongly, without a warning")
PYTHON
