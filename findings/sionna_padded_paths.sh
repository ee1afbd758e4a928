#!/usr/bin/env bash
# Delays of Sionna's system-level channels hold paths that are not there, one second after the others.
#
# Version:  sionna-no-rt 2.2.0 with torch 2.13.0.
# Input:    a drop of 30 users in one sector of each of the scenarios UMi, UMa and RMa of 3GPP TR 38.901.
# Guess:    users have different numbers of clusters. So the tensors of coefficients and delays are padded, with zeros in
#           both: the largest delay is some microseconds, and tells how long a cyclic prefix, or a filter, has to be.
# Seen:     the padded paths have coefficients of zero, but delays of a second and more (UMa: up to 3.3 s). So the
#           largest delay of a drop is 10^5 times the true one, and a mean or a spread of delays that is not weighted by
#           power is as wrong. The frequency response is right, since these paths have no power.
# Remedy:   leave out paths whose coefficients are all zero before anything is made of the delays alone.
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 sionna-no-rt==2.2.0
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from sionna.phy import config
from sionna.phy.channel import gen_single_sector_topology
from sionna.phy.channel.tr38901 import PanelArray, RMa, UMa, UMi

assert version("sionna-no-rt") == "2.2.0"
config.seed = 1
room = {"precision": "double", "device": "cpu"}
one = {"num_rows_per_panel": 1, "num_cols_per_panel": 1, "polarization": "single", "polarization_type": "V"}
array = PanelArray(**one, antenna_pattern="omni", carrier_frequency=3.5e9, **room)
for model, name in ((UMi, "umi"), (UMa, "uma"), (RMa, "rma")):
    loss = {} if name == "rma" else {"o2i_model": "low"}
    channel = model(carrier_frequency=3.5e9, ut_array=array, bs_array=array, direction="uplink", **loss, **room)
    channel.set_topology(*gen_single_sector_topology(1, 30, name, **room))
    a, tau = channel(1, 1.0)
    there, delays = a[0, 0, 0, :, 0, :, 0] != 0, tau[0, 0]  # both (users, paths)
    true, told = float(delays[there].max()), float(delays.max())
    print(f"{name}: {int((~there).sum())} of {there.numel()} paths are not there; largest delay {told:.3g} s, of the "
          f"others {true:.2g} s")
    assert 0 < true < 1e-4, "changed: delays of paths with power"
    assert 0.9 < told < 10, "changed: what stands for paths that are not there"
    assert not bool((there & (delays > 0.5)).any()), "changed: paths that come so late have power"
print("as described: padded paths come a second late or later")
PYTHON
