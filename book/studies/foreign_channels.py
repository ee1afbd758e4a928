"""Channels that other packages make, with their own frequency responses: what `tests/test_loaders.py` compares with.

    python -m studies.foreign_channels deepmimo|quadriga|sionna_rt|openntn ...

makes ``tests/data/PACKAGE.npz`` anew. For each it installs pinned packages in a temporary environment, and runs this
module there. Sionna RT needs LLVM besides, which ``DRJIT_LIBLLVM_PATH`` names: Debian's 14 and 15 crash on machines
with AVX-512, 19 runs. On Debian 12 it takes neither root nor an installation: ``apt-get download libllvm19``, then
``dpkg -x`` into a folder.

Each file holds arrays as the package gives them: ``coefficients`` and ``delays``; the ``response`` that the package
computes from them at ``frequencies`` (Hz from the carrier); and what was measured of its conventions.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

# Of this module, what an environment of another package imports is NumPy alone.
import numpy as np

PINS = {
    "deepmimo": ("DeepMIMO==4.0.5", "numpy==2.2.6"),
    "quadriga": ("quadriga-lib==0.12.2", "numpy==2.4.6"),
    "sionna_rt": ("sionna-rt==2.2.0", "mitsuba==3.9.1", "drjit==1.5.0", "numpy==2.4.6"),
    "openntn": ("openntn==2.0.0", "sionna==2.2.0", "torch==2.13.0", "numpy==2.4.6"),
}
LIGHT = 299792458.0  # m/s


def deepmimo() -> dict[str, np.ndarray]:
    """Return channels of a DeepMIMO dataset built from arrays: four users, one blocked, one with a gap in its padding.

    The phases of arrival are those of plane waves that a single moving receiver, or transmitter, meets or sends along
    x, y and z, in the order of ``doppler``.
    """
    import deepmimo as dm
    from deepmimo.core.scene import Face, PhysicalElement, Scene

    rng = np.random.default_rng(1)

    class Tracing:
        frequency = 3e9

    def dataset(users: int, paths: int) -> dm.Dataset:
        own = dm.Dataset({})
        own.rx_pos, own.tx_pos = rng.uniform(10, 50, (users, 3)), np.zeros((1, 3))
        shape = (users, paths)
        own.power, own.phase = rng.uniform(-100, -80, shape), rng.uniform(-180, 180, shape)
        own.delay = rng.uniform(1e-7, 1e-6, shape)
        own.aoa_az, own.aod_az = rng.uniform(-180, 180, shape), rng.uniform(-180, 180, shape)
        own.aoa_el, own.aod_el = rng.uniform(30, 150, shape), rng.uniform(30, 150, shape)
        own.inter, own.inter_pos = np.zeros(shape), np.full((*shape, 1, 3), np.nan)
        ground = [(-99, -99, 0), (99, -99, 0), (99, 99, 0), (-99, 99, 0)]
        own.scene, own.rt_params = Scene(), Tracing()
        own.scene.add_objects([PhysicalElement([Face(ground)], object_id=0, label="terrain")])
        return own

    own = dataset(4, 5)
    blocked = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [1, 1, 1, 1, 1], [0, 1, 0, 0, 1]], dtype=bool)
    for name in ("power", "phase", "delay", "aoa_az", "aoa_el", "aod_az", "aod_el", "inter"):
        own[name] = np.where(blocked, np.nan, own[name])
    tones, total, bandwidth = np.arange(0, 64, 9), 64, 30e6
    arrays = {"bs_antenna": {"shape": [2, 3], "rotation": [0, 0, 30]}, "ue_antenna": {"shape": [2, 1]}}
    ofdm = {"subcarriers": total, "bandwidth": bandwidth, "selected_subcarriers": tones}
    found = {
        "coefficients": own.compute_channels(dm.ChannelParameters(freq_domain=False, **arrays)),
        "response": own.compute_channels(dm.ChannelParameters(ofdm=ofdm, **arrays)),
        "power": np.asarray(own.power),
        "delays": np.asarray(own.delay),
        "frequencies": tones * bandwidth / total,
        "total": np.array(total),
    }
    shifts = np.zeros((2, 3))
    for axis, (azimuth, elevation) in enumerate(((0.0, 90.0), (90.0, 90.0), (0.0, 0.0))):
        for side in range(2):
            own = dataset(1, 1)
            angles = (("aoa_az", "aoa_el"), ("aod_az", "aod_el"))[side]
            own[angles[0]], own[angles[1]] = np.array([[azimuth]]), np.array([[elevation]])
            # Each moves towards the other end, at a tenth of a millionth of the speed of light: the shift is 300 Hz.
            setattr(own, ("rx_vel", "tx_vel")[side], np.eye(3)[axis] * LIGHT * 1e-7)
            shifts[side, axis] = own.doppler[0, 0]
    off = dm.ChannelParameters(freq_domain=False, doppler=0)
    moved = own.compute_channels(off, times=np.array([0.0, 1e-3]))[0, 0, 0, 0]
    cell = dataset(1, 1)
    cell.aod_az[:], cell.aod_el[:] = 90.0, 60.0  # to the right of the broadside, upwards
    panel = cell.compute_channels(dm.ChannelParameters(freq_domain=False, bs_antenna={"shape": [2, 3]}))[0, 0, :, 0]
    return found | {
        "doppler": shifts,
        "switched_off": np.angle(moved[1] / moved[0]) / (2 * np.pi * 1e-3),
        "panel": np.angle(panel / panel[0]),
    }


def quadriga() -> dict[str, np.ndarray]:
    """Return spherical-wave channels of quadriga-lib: two users, three and four paths, a delay for each pair."""
    import quadriga_lib as qd

    carrier, rng = 3.5e9, np.random.default_rng(2)
    base = qd.arrayant.generate("3gpp", 10.0, freq=carrier, M=2, N=2, pol=3)
    user = qd.arrayant.generate("omni")
    grid, bandwidth = np.linspace(-0.5, 0.5, 7), 40e6
    found = {"frequencies": grid * bandwidth}
    for i, count in enumerate((3, 4)):
        bounces = rng.uniform(-40, 40, (3, count)) + np.array([[60.0], [0.0], [0.0]])
        gains, M = rng.uniform(1e-9, 1e-7, count), np.zeros((8, count))
        M[0], M[6] = 1.0, -1.0  # as a mirror leaves the two polarisations
        ends = (np.array([0.0, 0.0, 25.0]), np.zeros(3), np.array([80.0, 20.0 * i, 1.5]), np.zeros(3))
        setting = {"center_freq": carrier, "use_absolute_delays": True, "complex": True}
        rays = (bounces, bounces, gains, np.zeros(count), M)
        a, tau = qd.arrayant.get_channels_spherical(base, user, *rays, *ends, **setting)[:2]
        response = qd.channel.baseband_freq_response(coeff=[a], delay=[tau], bandwidth=bandwidth, pilot_grid=grid)
        found |= {f"coefficients_{i}": a, f"delays_{i}": tau, f"response_{i}": response[..., 0]}
    # The tones that a number of carriers means, read off the turn of one path of one microsecond.
    one = {"coeff": [np.ones((1, 1, 1), complex)], "delay": [np.full((1, 1, 1), 1e-6)]}
    turned = qd.channel.baseband_freq_response(**one, bandwidth=0.4e6, carriers=5).ravel()
    late = {"coeff": one["coeff"], "delay": [np.full((1, 1, 1), 1e-5)]}
    far = qd.channel.baseband_freq_response(**late, bandwidth=1e8, pilot_grid=np.array([0.123456789])).ravel()
    arrays = base["element_pos"] * carrier / LIGHT
    front = [int(np.argmin(abs(np.asarray(base[grid])))) for grid in ("elevation_grid", "azimuth_grid")]

    def direct(distance: float, absolute: bool) -> list[complex]:
        """Return coefficient and delay of a line of sight between omnidirectional antennas."""
        middle, M = np.array([[distance / 2], [0.0], [0.0]]), np.array([[1.0], [0], [0], [0], [0], [0], [-1.0], [0]])
        ends = (np.zeros(3), np.zeros(3), np.array([distance, 0.0, 0.0]), np.zeros(3))
        setting = {"center_freq": 3e9, "use_absolute_delays": absolute, "complex": True}
        rays = (middle, middle, np.ones(1), np.zeros(1), M)
        return [x.item() for x in qd.arrayant.get_channels_spherical(user, user, *rays, *ends, **setting)[:2]]

    return found | {
        "tones": -np.unwrap(np.angle(turned)) / (2 * np.pi * 1e-6),
        "far": np.abs(far - np.exp(-2j * np.pi * 1e-5 * 1e8 * 0.123456789)),
        "panel": arrays,
        "slants": np.degrees(np.arctan2(base["e_phi_re"][(*front,)], base["e_theta_re"][(*front,)])),
        "direct": np.array([direct(10.0, True), direct(10.0, False), direct(9.99, True)]),
    }


def sionna_rt() -> dict[str, np.ndarray]:
    """Return channels traced by Sionna RT in its street canyon: four users that move, one of them under the ground."""
    import sionna.rt as rt

    scene = rt.load_scene(rt.scene.simple_street_canyon)
    scene.frequency = 3.5e9
    scene.rx_array = rt.PlanarArray(num_rows=2, num_cols=2, pattern="tr38901", polarization="cross")
    scene.tx_array = rt.PlanarArray(num_rows=1, num_cols=2, pattern="iso", polarization="V")
    scene.add(rt.Receiver("base", position=[-30.0, 0.0, 20.0], look_at=[0.0, 0.0, 2.0]))
    places = [[10.0, 3.0, 1.5], [25.0, -4.0, 1.5], [5.0, 0.0, -5.0], [-5.0, 2.0, 1.5]]
    for i, place in enumerate(places):
        scene.add(rt.Transmitter(f"user {i}", position=place, velocity=[0.0, 10.0, 0.0]))
    paths = rt.PathSolver()(scene, max_depth=2, refraction=False, synthetic_array=True)
    moving = {"sampling_frequency": 2e3, "num_time_steps": 3, "normalize_delays": False, "out_type": "numpy"}
    a, tau = paths.cir(**moving)
    f = np.linspace(-20e6, 20e6, 5, dtype=np.float32)
    delayed, zeroed = (paths.cir(normalize_delays=own, out_type="numpy")[0] for own in (False, True))
    first = np.where(tau[0, 0] >= 0, tau[0, 0], 1).min().astype(float)
    turned = (zeroed / np.where(delayed == 0, 1, delayed))[0, 0, 0, 0, np.flatnonzero(tau[0, 0] >= 0), 0]
    return {
        "coefficients": a,
        "delays": tau,
        "response": paths.cfr(f, **moving),
        "frequencies": f,
        "times": np.arange(3) / 2e3,
        "doppler": paths.doppler.numpy(),
        "velocity": np.array([0.0, 10.0, 0.0]),
        "places": np.array(places),
        "base": np.array([-30.0, 0.0, 20.0]),
        "normalised": np.array([*turned, np.exp(2j * np.pi * 3.5e9 * first)]),
        "normalised_power": (abs(paths.cfr(f, normalize=True, out_type="numpy")) ** 2).mean(axis=(0, 1, 3, 4, 5)),
        "panel": np.array(scene.rx_array.normalized_positions),
        "slants": np.degrees([rt.antenna_pattern.polarization_registry.get("cross")]).ravel(),
    }


def openntn() -> dict[str, np.ndarray]:
    """Return a drop of OpenNTN: three terminals and a satellite at 600 km, with its motion over two instants.

    ``approach`` are the Doppler shifts, over that expected, of a user who moves towards the other end in line of sight:
    in Sionna PHY's UMi and in OpenNTN with a satellite that stands still.
    """
    import openntn as ntn
    import torch
    from openntn.utils import gen_single_sector_topology
    from sionna.phy import config
    from sionna.phy.channel import cir_to_ofdm_channel
    from sionna.phy.channel.tr38901 import PanelArray, UMi

    config.seed, carrier, room = 1, 2.2e9, {"precision": "double", "device": "cpu"}
    own = {"polarization": "single", "polarization_type": "V", "antenna_pattern": "omni"}
    user = ntn.Antenna(**own, carrier_frequency=carrier, **room)
    own = {"polarization": "dual", "polarization_type": "cross", "antenna_pattern": "38.901"}
    satellite = ntn.AntennaArray(num_rows=1, num_cols=2, **own, carrier_frequency=carrier, **room)
    ends = {"ut_array": user, "bs_array": satellite, "elevation_angle": 50.0}
    model = ntn.Urban(carrier_frequency=carrier, direction="uplink", **ends, **room)
    place = {"scenario": "urb", "elevation_angle": 50.0, "bs_height": 600e3}
    topology = gen_single_sector_topology(batch_size=1, num_ut=3, **place, **room)
    model.set_topology(*topology)
    a, tau = model(2, 1e6)
    f = torch.linspace(-10e6, 10e6, 5, dtype=torch.float64)
    shift = torch.angle(a[..., 1] / a[..., 0])[a[..., 0] != 0] / (2 * np.pi * 1e-6)

    def approach(model: object, user: torch.Tensor, base: torch.Tensor) -> float:
        """Return the shift of the strongest path, over that of the line of sight, where a user approaches."""
        towards = (base - user) / (base - user).norm(dim=-1, keepdim=True)
        still, out = torch.zeros_like(user), torch.zeros(1, 1, dtype=torch.bool)
        model.set_topology(user, base, still, still, towards * LIGHT * 1e-7, out, True)
        a = model(2, 1e5)[0][0, 0, 0, 0, 0]
        one = a[a[:, 0].abs().argmax()]
        return (torch.angle(one[1] / one[0]) / (2 * np.pi * 1e-5) / (carrier * 1e-7)).item()

    single = {"num_rows_per_panel": 1, "num_cols_per_panel": 1, "polarization": "single", "polarization_type": "V"}
    element = PanelArray(**single, antenna_pattern="omni", carrier_frequency=carrier, **room)
    ends = {"ut_array": element, "bs_array": element}
    street = UMi(carrier_frequency=carrier, o2i_model="low", direction="uplink", **ends, **room)
    ends = {"ut_array": user, "bs_array": user, "elevation_angle": 50.0, "doppler_enabled": False}
    sky = ntn.Urban(carrier_frequency=carrier, direction="uplink", **ends, **room)
    panel = {"num_rows_per_panel": 2, "num_cols_per_panel": 2, "polarization": "dual", "polarization_type": "cross"}
    panel = PanelArray(**panel, antenna_pattern="omni", carrier_frequency=carrier, **room)
    near = torch.tensor([[[80.0, 0.0, 10.0]]], dtype=torch.float64)
    shifts = [
        approach(street, near, near * torch.tensor([0.0, 0.0, 1.0])),
        approach(sky, topology[0][:, :1], topology[1]),
    ]
    return {
        "approach": np.array(shifts),
        "phy_panel": panel.ant_pos.numpy() * carrier / LIGHT,
        "phy_slants": np.degrees([panel.ant_pol1.slant_angle.item(), panel.ant_pol2.slant_angle.item()]),
        "phy_order": np.concatenate([panel.ant_ind_pol1.numpy(), panel.ant_ind_pol2.numpy()]),
        "coefficients": a.numpy(),
        "delays": tau.numpy(),
        "response": cir_to_ofdm_channel(f, a, tau).numpy(),
        "frequencies": f.numpy(),
        "times": np.arange(2) * 1e-6,
        "doppler": np.array([shift.min().item(), shift.max().item()]),
        "panel": satellite.ant_pos.numpy() * carrier / LIGHT,
    }


def within(pins: Sequence[str], module: str, *arguments: str) -> None:
    """Run a module of the studies in a new environment with pinned packages.

    Args:
        pins: What pip installs, such as ``"sionna-rt==2.2.0"``.
        module: Such as ``"studies.munich"``.
        arguments: Of its command line.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        for line in (("pip", "install", "--quiet", *pins), (module, *arguments)):
            subprocess.run([python, "-m", *line], check=True, cwd=Path(__file__).parents[1], env=alone)


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    if arguments[:1] == ["inside"]:
        (_, name, path) = arguments
        np.savez_compressed(path, **{key: np.asarray(value) for key, value in globals()[name]().items()})
        return 0
    for name in arguments:
        path = Path(__file__).parents[2] / "tests" / "data" / f"{name}.npz"
        within(PINS[name], "studies.foreign_channels", "inside", name, str(path))
        print(f"{path.name}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
