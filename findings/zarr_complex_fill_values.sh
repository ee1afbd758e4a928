#!/usr/bin/env bash
# Zarr's write_empty_chunks is not kept with an array: whoever opens it again writes by the default, and complex chunks
# whose numbers compare equal to the fill value, but are not the same bits, are left out and read back as others.
#
# Version:  zarr 3.1.6 with numpy 2.4.6.
# Input:    a complex128 array of five chunks, made with config={"write_empty_chunks": True} because of numbers such as
#           -0.0 - 0.0j. It is opened again, as by another process or worker, by open_array(mode="r+"), also with the
#           same config; and two chunks of negative zeros are written.
# Expected: what the array was made with holds for all who write into it, or at least what is given to open_array does:
#           the chunks are on the disk, and come back with their bits.
# Seen:     chunks written by the object that made the array are there, and keep their signs. Those of the reopened
#           array are not written, with the config given to open_array or without it, and come back as +0.0 + 0.0j. No
#           word is said. Of real numbers only a sign is lost; of a complex phase, np.angle, it is pi.
# Remedy:   array.with_config({"write_empty_chunks": True}) at every opening, or real and imaginary parts as integers
#           of their bits. See zarr-python issue 2931.
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarr==3.1.6 numpy==2.4.6
FOLDER=$folder "$folder/venv/bin/python" - <<'PYTHON'
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
import zarr

assert version("zarr") == "3.1.6"
path = Path(os.environ["FOLDER"], "values.zarr")
config = {"write_empty_chunks": True}
zeros = np.full(10, complex(-0.0, -0.0))
made = zarr.create_array(path, shape=(50,), chunks=(10,), dtype="complex128", fill_value=0, config=config)
made[:10] = zeros
zarr.open_array(path, mode="r+")[10:20] = zeros
try:
    given = zarr.open_array(path, mode="r+", config=config)
except TypeError as error:
    print("open_array refuses config:", error)
    given = zarr.open_array(path, mode="r+")
given[20:30] = zeros
zarr.open_array(path, mode="r+").with_config(config)[30:40] = zeros
there = sorted(int(name.name) for name in (path / "c").iterdir())
back = zarr.open_array(path, mode="r")[:]
kept = [bool(np.signbit(back[10 * k : 10 * k + 10].real).all()) for k in range(5)]
print("chunks on the disk:", there, "of those written, 0 to 3; signs kept:", kept)
print("phases of what came back:", [float(abs(np.angle(back[10 * k]))) for k in range(4)])
assert there == [0, 3], "changed: which chunks are written"
assert kept == [True, False, False, True, False], "changed: what comes back"
PYTHON
