"""A base station in Munich, traced by Sionna RT: users in a sector, and one user who walks along a street.

    python -m studies.munich

traces anew and writes ``notebooks/records/munich.npz``, in a temporary environment with pinned packages; LLVM as
:mod:`studies.foreign_channels` says. The file holds rays, not antennas: gains at the centre of the base station's array
for its two polarisations and the user's two antennas, delays, and directions seen from the base station. :func:`users`
and :func:`street` make channels of them, as the tracer does of plane waves (``synthetic_array=True``).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

# Of this module, what the tracer's environment imports is NumPy alone.
import numpy as np

NAME = "munich.npz"
CARRIER = 3.5e9  # Hz
BASE, TOWARDS = (8.5, 21.0, 27.0), (8.5, 150.0, 1.5)  # metres, in the coordinates of the scene
ROWS, COLUMNS = 4, 8
USERS, SECTOR, DISTANCES = 16, 120.0, (20.0, 180.0)  # degrees; metres
STREET, STEP, POSITIONS = ((5.0, 178.0, 1.5), (0.0, 1.0, 0.0)), 0.01, 201  # start and direction; metres between
SEED = 1
DEPTH = 5  # most reflections of a ray
RAYS = 200_000  # that the base station sends out to find walls
TOGETHER = 8  # places traced at once: of many together the tracer loses paths (findings/sionna_rt_many_receivers.sh)
TONES = (-40e6, 0.0, 25e6)  # at which the tracer's own response is kept


def trace() -> dict[str, np.ndarray]:
    """Return the rays of users and street, the tracer's own response for two users, and what it was made with."""
    import mitsuba as mi
    import sionna.rt as rt
    from sionna.rt.utils import rotation_matrix

    scene = rt.load_scene(rt.scene.munich)
    scene.frequency = CARRIER
    # One source of rays is fast, and what it sends is what it receives: the uplink is the transpose.
    scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="cross")
    panel = {"pattern": "tr38901", "polarization": "cross"}
    station = rt.Transmitter("base", position=list(BASE), look_at=list(TOWARDS))
    scene.add(station)
    solver = rt.PathSolver()
    setting = {"max_depth": DEPTH, "samples_per_src": RAYS, "refraction": False, "synthetic_array": True, "seed": SEED}

    def traced(rows: int, columns: int, places: np.ndarray) -> rt.Paths:
        """Trace from a panel of the base station to users at places."""
        scene.tx_array = rt.PlanarArray(num_rows=rows, num_cols=columns, **panel)
        for name in list(scene.receivers):
            scene.remove(name)
        for i, place in enumerate(places):
            scene.add(rt.Receiver(f"user {i}", position=[float(x) for x in place]))
        return solver(scene, **setting)

    def rays(places: np.ndarray) -> dict[str, np.ndarray]:
        """Return gains (places, L, 2, 2), delays (places, L) and directions (places, L, 3), the rays first."""
        gains, delays, directions = [], [], []
        for i in range(0, len(places), TOGETHER):
            paths = traced(1, 1, places[i : i + TOGETHER])
            a, tau = paths.cir(normalize_delays=False, out_type="numpy")
            theta, phi = paths.theta_t.numpy()[:, 0], paths.phi_t.numpy()[:, 0]
            k = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)
            gains += list(a[:, :, 0, :, :, 0].transpose(0, 3, 2, 1))  # (L, polarisations, user antennas) each
            delays, directions = delays + list(tau[:, 0]), directions + list(k)
        there = [(a != 0).any(axis=(1, 2)) for a in gains]
        most = max(own.sum() for own in there)

        def packed(values: list[np.ndarray], fill: float, dtype: type) -> np.ndarray:
            """Put the rays of each place first, and fill up to the most."""
            out = np.full((len(places), most, *values[0].shape[1:]), fill, dtype)
            for row, value, own in zip(out, values, there):
                row[: own.sum()] = value[own]
            return out

        return {
            "gains": packed(gains, 0, np.complex64),
            "delays": packed(delays, np.nan, np.float32),
            "directions": packed(directions, 0, np.float32),
        }

    # Candidates in the sector, under the open sky; of those that a ray reaches, the first are the users.
    random = np.random.default_rng(SEED)
    distance, angle = random.uniform(*DISTANCES, 50), np.radians(90 + random.uniform(-SECTOR / 2, SECTOR / 2, 50))
    places = np.stack([BASE[0] + distance * np.cos(angle), BASE[1] + distance * np.sin(angle), np.full(50, 1.5)], 1)
    above = mi.Ray3f(mi.Point3f(*places.T.astype(np.float32)), mi.Vector3f(0.0, 0.0, 1.0))
    places = places[~np.array(scene.mi_scene.ray_test(above))]
    reached = (rays(places)["gains"] != 0).any(axis=(1, 2, 3))
    places = places[reached][:USERS]
    walk = np.array(STREET[0]) + STEP * np.arange(POSITIONS)[:, None] * np.array(STREET[1])
    found = {f"users_{name}": value for name, value in rays(places).items()}
    found |= {f"street_{name}": value for name, value in rays(walk).items()}
    turned = np.array(rotation_matrix(station.orientation)).reshape(3, 3)
    elements = turned @ np.array(rt.PlanarArray(num_rows=ROWS, num_cols=COLUMNS, **panel).normalized_positions)
    whole = traced(ROWS, COLUMNS, places[:2]).cfr(np.array(TONES), normalize_delays=False, out_type="numpy")
    return found | {
        "elements": elements.T.astype(np.float32),  # in wavelengths, from the centre
        "users_places": places,
        "street_places": walk,
        "tones": np.array(TONES),
        "response": whole[:, :, 0, :, 0].astype(np.complex64),  # (two users, user antennas, base antennas, tones)
    }


def stored() -> dict[str, np.ndarray]:
    """Return the arrays of the file."""
    from studies import provenance

    with np.load(provenance.published_path("munich").with_suffix(".npz")) as file:
        return dict(file)


def coefficients(data: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Return the coefficients at all antennas of the base station.

    Args:
        data: As `stored` returns it.
        name: ``"users"`` or ``"street"``.

    Returns:
        Shape (users or positions, L, 64, 2), complex64: antennas of the first polarisation, then those of the second.
    """
    turns = np.exp(2j * np.pi * (data[f"{name}_directions"] @ data["elements"].T.astype(float)))
    a = data[f"{name}_gains"][:, :, :, None] * turns[:, :, None, :, None]  # (users, L, polarisations, elements, 2)
    return a.reshape(*a.shape[:2], -1, 2).astype(np.complex64)


def users(lower: float = -49.14e6, upper: float = 49.11e6, *, in_time: bool = True):
    """Return the uplink of all users, 64 x 32: a `neumatc.wireless.Channel`, with the gains that were traced.

    Args:
        lower, upper: The band in Hz from the carrier; default: 3,276 subcarriers of 30 kHz.
        in_time: Whether every user's first path arrives at zero, as timing advance does it; else delays are absolute.
    """
    from neumatc import wireless

    data = stored()
    delays = data["users_delays"].astype(float)
    first = np.nanmin(delays, axis=1, keepdims=True) if in_time else 0.0
    return wireless.from_paths(coefficients(data, "users"), delays - first, lower, upper)


def street(lower: float = -49.14e6, upper: float = 49.11e6, *, in_time: bool = True):
    """Return positions along the street in metres, shape (201, 1), and the uplink at all of them side by side.

    The channel is 64 x 402: ``channel(f).unflatten(2, (201, 2))`` are the matrices of one frequency at each position.

    Args:
        lower, upper: As for `users`.
        in_time: Whether the first path at the first position arrives at zero; else delays are absolute.
    """
    import torch

    from neumatc import wireless

    data = stored()
    delays = data["street_delays"].astype(float)
    first = np.nanmin(delays[0]) if in_time else 0.0
    places = torch.as_tensor(np.linalg.norm(data["street_places"] - data["street_places"][0], axis=1))[:, None]
    return places, wireless.from_paths(coefficients(data, "street"), delays - first, lower, upper)


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    if arguments[:1] == ["inside"]:
        found = trace()
        from importlib.metadata import version

        names = ("sionna-rt", "mitsuba", "drjit", "numpy")
        origin = {
            "versions": {name: version(name) for name in names},
            "script": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
            "seed": SEED,
        }
        np.savez_compressed(arguments[1], **found, origin=json.dumps(origin | json.loads(arguments[2])))
        return 0
    import subprocess

    from studies import digests, foreign_channels, provenance

    path = provenance.published_path("munich").with_suffix(".npz")
    git = ["git", "-C", str(path.parent), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    foreign_channels.within(
        foreign_channels.PINS["sionna_rt"], "studies.munich", "inside", str(path), json.dumps({"commit": commit})
    )
    digests.note(path)
    print(f"{path.name}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
