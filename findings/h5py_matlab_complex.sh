#!/usr/bin/env bash
# Complex numbers written into a data set of MATLAB's complex type by h5py lose their imaginary part to the real one.
#
# Versions: h5py 3.16.0, NumPy 2.4.6.
# Input:    a MATLAB v7.3 file, whose complex arrays are pairs of the fields `real` and `imag`, opened for writing, and
#           `file["H"][...] = H` with a complex array of its shape. Reading gives an array of these fields.
# Expected: the fields are filled with real and imaginary part; or an error, as h5py raises where complex numbers
#           go into a data set of floats, or floats into its own complex type (fields `r` and `i`).
# Seen:     NumPy casts the array to the fields, each alone: both hold the real part, so that MATLAB then reads
#           a (1 + i) for a + b i. A warning comes that imaginary parts are discarded; in truth they are replaced.
# Remedy:   H.view(file["H"].dtype), or h5py.get_config().complex_names = ("real", "imag") before the file is opened.
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet h5py==3.16.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import warnings

import h5py
import numpy as np

assert h5py.__version__ == "3.16.0" and np.__version__ == "2.4.6"
H = np.array([1 + 2j, 3 - 4j])
pair = np.dtype([("real", "f8"), ("imag", "f8")])
with h5py.File("matlab.mat", "w") as file:
    data = file.create_dataset("H", (2,), pair)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data[...] = H
    found = data[...]
    print("written", H.tolist(), " read", found.tolist(), " warned:", {str(w.message) for w in caught})
    assert found["imag"].tolist() == found["real"].tolist() == [1.0, 3.0], "changed: the parts are kept now"
    data[...] = H.view(pair)
    assert (data[...]["real"] + 1j * data[...]["imag"] == H).all()
    for shape in ("f8", "c16"):  # where types do not fit, h5py refuses
        other = file.create_dataset(shape, (2,), shape)
        try:
            other[...] = H if shape == "f8" else H.real
            raise AssertionError("changed: h5py converts now")
        except OSError as error:
            print("refused:", error)
h5py.get_config().complex_names = ("real", "imag")
with h5py.File("matlab.mat", "r+") as file:
    file["H"][...] = 2 * H
    assert (file["H"][...] == 2 * H).all()
print("as described: the real part stands in both fields")
PYTHON
