#!/usr/bin/env bash
# Sionna RT's delays "from zero", its default, turn the coefficients as well: two base stations lose their phase.
#
# Versions: sionna-rt 2.2.0 with mitsuba 3.9.1, drjit 1.5.0, NumPy 2.4.6.
# Needs:    LLVM, whose library DRJIT_LIBLLVM_PATH names (tried: 19.1 of Debian; its 14 and 15 crash with AVX-512).
# Input:    an empty scene at 3 GHz; two transmitters, and a receiver that moves by 2 cm, a fifth of a wavelength, away
#           from the first and towards the second; `paths.cir()`, which has normalize_delays=True.
# Guess:    the delays of each link start at zero; the coefficients are those with absolute delays. So each has the
#           phase -2 pi d / wavelength of its distance: the ratio of the two changes by 4 pi / 5, and fades.
# Seen:     the ratio does not change: each coefficient has the phase zero. What the carrier turns in the delay that was
#           taken out is taken out of it too. For one link that is a factor of magnitude one. For several it is wrong
#           wherever phases between links count: joint transmission, distributed arrays, fading along a street.
# Remedy:   paths.cir(normalize_delays=False), paths.cfr(..., normalize_delays=False); take a common delay out later.
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet sionna-rt==2.2.0 mitsuba==3.9.1 drjit==1.5.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import sionna.rt as rt

assert version("sionna-rt") == "2.2.0"
scene = rt.load_scene()
scene.frequency = 299792458.0 * 10  # a wavelength of 10 cm
scene.tx_array = scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
scene.add(rt.Transmitter("first", position=[0.0, 0.0, 10.0]))
scene.add(rt.Transmitter("second", position=[100.0, 0.0, 10.0]))
scene.add(rt.Receiver("here", position=[50.0, 0.0, 10.0]))
scene.add(rt.Receiver("there", position=[50.02, 0.0, 10.0]))
paths = rt.PathSolver()(scene, max_depth=0)
turned = {}
for zero in (True, False):
    a = paths.cir(normalize_delays=zero, out_type="numpy")[0][:, 0, :, 0, 0, 0]  # (receivers, transmitters)
    here, there = a[:, 0] / a[:, 1]
    turned[zero] = abs(np.angle(there / here))
    print(f"normalize_delays={zero}: phases {np.angle(a).round(2).tolist()}, the ratio turns by {turned[zero]:.3f}")
assert turned[True] < 1e-3, "changed: the coefficients keep their phase"
assert abs(turned[False] - 4 * np.pi / 5) < 1e-2, "changed: absolute delays"
print("as described: the coefficients are turned with the delays")
PYTHON
