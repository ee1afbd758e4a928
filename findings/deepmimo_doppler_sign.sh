#!/usr/bin/env bash
# DeepMIMO's Doppler shift of a moving receiver has the wrong sign along x, and the right one along y and z.
#
# Version:  DeepMIMO 4.0.5 with NumPy 2.2.6.
# Input:    a dataset of one user with one path, built from arrays: the user moves at 1e-7 of the speed of light towards
#           where the path comes from, along x, y or z; the carrier is 3 GHz. Then the same for the transmitter.
# Expected: an approach raises the frequency: +300 Hz in all cases. (Or -300 Hz in all: some define it so.)
# Seen:     the receiver's shift is -300 Hz along x, +300 Hz along y and z; the transmitter's +300 Hz along all. The
#           direction is reversed by negating radius and both angles, under which r sin(e) cos(a) stays as it is.
#           So a user who walks through a city gets the shifts of one whose velocity is mirrored in x.
#           Besides, the shifts are in the channels though `doppler=0` asked for none, as soon as anything moves.
# Remedy:   `dataset.set_doppler(shifts)`, with v . d / wavelength for d = (sin e cos a, sin e sin a, cos e) of
#           the angles of arrival, or mirror: `dataset.rx_vel = velocity * [-1, 1, 1]`. For none, leave velocities zero.
# The script ends with status 0 as long as this is so, with another one if it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet DeepMIMO==4.0.5 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version
from types import SimpleNamespace

import deepmimo as dm
import numpy as np
from deepmimo.core.scene import Face, PhysicalElement, Scene

assert version("deepmimo") == "4.0.5"
SPEED = 29.9792458  # m/s


def dataset(arrival, departure):
    """One user with one direct path, over flat ground."""
    own = dm.Dataset({})
    own.rx_pos, own.tx_pos = np.zeros((1, 3)), np.array([[100.0, 0.0, 0.0]])
    own.power, own.phase, own.delay = np.array([[-60.0]]), np.array([[0.0]]), np.array([[3e-7]])
    own.aoa_az, own.aoa_el = (np.array([[x]]) for x in arrival)
    own.aod_az, own.aod_el = (np.array([[x]]) for x in departure)
    own.inter, own.inter_pos = np.zeros((1, 1)), np.full((1, 1, 1, 3), np.nan)
    own.rt_params, own.scene = SimpleNamespace(frequency=3e9), Scene()
    ground = Face([(-99, -99, 0), (99, -99, 0), (99, 99, 0), (-99, 99, 0)])
    own.scene.add_objects([PhysicalElement([ground], object_id=0, label="terrain")])
    return own


axes = {"x": (0.0, 90.0), "y": (90.0, 90.0), "z": (0.0, 0.0)}  # azimuth and, from z, elevation
for i, (name, angles) in enumerate(axes.items()):
    receiver, transmitter = dataset(angles, axes["x"]), dataset(axes["x"], angles)
    receiver.rx_vel = transmitter.tx_vel = np.eye(3)[i] * SPEED
    shifts = [own.doppler.item() for own in (receiver, transmitter)]
    print(f"{name}: receiver {shifts[0]:+.1f} Hz, transmitter {shifts[1]:+.1f} Hz")
    assert np.allclose(shifts, [-300.0 if name == "x" else 300.0, 300.0]), "changed: the signs"
channel = receiver.compute_channels(dm.ChannelParameters(freq_domain=False, doppler=0), times=np.array([0.0, 1e-3]))
turned = np.angle(channel[0, 0, 0, 0, 1] / channel[0, 0, 0, 0, 0]) / (2 * np.pi * 1e-3)
print(f"with doppler=0: {turned:+.1f} Hz")
assert abs(turned - 300.0) < 0.1, "changed: the switch counts now"
print("as described: the receiver's shift is mirrored in x, and the switch does not count")
PYTHON
