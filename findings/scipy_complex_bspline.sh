#!/usr/bin/env bash
# A complex B-spline of SciPy is whole in its values and derivatives; its integral raises, and converted to a piecewise
# polynomial it loses its imaginary part.
#
# Version:  SciPy 1.17.1.
# Input:    scipy.interpolate.make_interp_spline through a complex exponential, as of a matrix entry along frequency.
# Expected: what evaluates and differentiates a complex spline also integrates it (scipy.interpolate.CubicSpline does),
#           and PPoly.from_spline, which takes BSpline objects, gives the same function.
# Seen:     BSpline.integrate raises ValueError on the kind of its array; PPoly.from_spline returns the polynomial of
#           the real part, of complex type with nothing in its imaginary part. The one sign is NumPy's general warning
#           on casts, which is shown once a place.
# Remedy:   convert and integrate real and imaginary part apart, or make a CubicSpline, or integrate antiderivative().
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scipy==1.17.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import scipy
from scipy.interpolate import CubicSpline, PPoly, make_interp_spline

assert scipy.__version__ == "1.17.1"
x, t = np.linspace(0, 2, 41), np.linspace(0.1, 1.9, 50)
y = np.exp(3j * x)
spline, exact = make_interp_spline(x, y), (np.exp(6j) - 1) / 3j

print(f"values: error {abs(spline(t) - np.exp(3j * t)).max():.1e}, complex as they should be")
assert abs(spline(t) - np.exp(3j * t)).max() < 1e-4
assert abs(spline.derivative()(t) - 3j * np.exp(3j * t)).max() < 1e-2

try:
    found = spline.integrate(0, 2)
except ValueError as error:
    print(f"integrate: ValueError, {str(error).strip()}")
else:
    raise SystemExit(f"changed: the integral is {found}")
parts = make_interp_spline(x, y.real).integrate(0, 2) + 1j * make_interp_spline(x, y.imag).integrate(0, 2)
anti = spline.antiderivative()
assert abs(parts - exact) < 1e-4 and abs(CubicSpline(x, y).integrate(0, 2) - exact) < 1e-4
assert abs(anti(2) - anti(0) - exact) < 1e-4

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    polynomial = PPoly.from_spline(spline)
kinds = {w.category.__name__ for w in told}
print(f"from_spline: off by {abs(polynomial(t) - spline(t)).max():.2f}; warnings: {kinds}")
assert not polynomial.c.imag.any() and kinds == {"ComplexWarning"}, "changed: the polynomial has an imaginary part"
assert abs(polynomial(t) - spline(t).real).max() < 1e-12, "changed: it is not that of the real part"
print("as described: the integral raises, and the polynomial has only the real part")
PYTHON
