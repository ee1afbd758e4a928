"""The traced Munich that is shipped: what the tracer itself says of it, and what makes a channel of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from studies import munich, provenance

SINGLE = torch.finfo(torch.float32).eps


@pytest.fixture(scope="module")
def data():
    return munich.stored()


def test_the_rays_give_the_tracers_own_response(data):
    """At all 64 antennas of two users, at three tones; the tracer's phases are of single precision."""
    channel = munich.users(in_time=False)
    ours = channel(torch.as_tensor(data["tones"])[:, None]).unflatten(2, (munich.USERS, 2))[:, :, :2].numpy()
    theirs = data["response"].transpose(3, 2, 0, 1)
    turns = 2 * np.pi * np.abs(data["tones"]).max() * np.nanmax(data["users_delays"])
    limit = 2 * SINGLE * (10 + turns) * np.abs(munich.coefficients(data, "users")).sum(axis=1).max()
    assert np.abs(ours - theirs).max() < limit < 1e-2 * np.abs(theirs).max()


def test_every_user_has_paths_and_the_users_lie_far_apart(data):
    assert (data["users_gains"] != 0).any(axis=(1, 2, 3)).all()
    power = (np.abs(munich.coefficients(data, "users")) ** 2).sum(axis=(1, 2, 3))
    assert 10 * np.log10(power.max() / power.min()) > 30
    assert munich.users().shape == (64, 32)


def test_first_paths_arrive_at_zero_in_time():
    """That turns each user's columns, and takes the turn of the common delay out of the band."""
    late, timed = munich.users(in_time=False), munich.users()
    assert timed.delays.min(dim=1).values.tolist() == [0.0] * munich.USERS
    f = torch.linspace(-4e7, 4e7, 5, dtype=torch.float64)[:, None]
    assert torch.allclose(late(f).abs(), timed(f).abs(), rtol=1e-3, atol=1e-3 * late(f).abs().max())
    assert late.delays.max() > timed.delays.max()


def test_the_street_is_continuous_in_the_position(data):
    """A centimetre turns no ray by more than its length over the wavelength; but where rays come or go."""
    places, channel = munich.street()
    assert places.shape == (munich.POSITIONS, 1) and places[-1].item() == pytest.approx(2.0)
    H = channel(torch.zeros(1, 1, dtype=torch.float64))[0].unflatten(1, (munich.POSITIONS, 2)).movedim(1, 0)
    steps = (H[1:] - H[:-1]).flatten(1).norm(dim=1) / H.flatten(1).norm(dim=1)[1:]
    counts = (data["street_gains"] != 0).any(axis=(2, 3)).sum(axis=1)
    same = torch.as_tensor(counts[1:] == counts[:-1])
    wavelength = 299792458.0 / munich.CARRIER
    a = torch.as_tensor(munich.coefficients(data, "street"))
    rays = a.abs().square().sum(dim=(2, 3)).sqrt().sum(dim=1) / H.flatten(1).norm(dim=1)
    assert bool((steps[same] < 1.1 * 2 * np.pi * munich.STEP / wavelength * rays[1:][same]).all())
    assert same.sum() > 190  # no path is lost here and there


def test_the_file_tells_where_it_comes_from(data):
    origin = json.loads(data["origin"].item())
    assert origin["versions"]["sionna-rt"] == "2.2.0" and origin["seed"] == munich.SEED
    assert len(origin["commit"]) == 40 and len(origin["script"]) == 64
    path = Path(provenance.published_path("munich")).with_suffix(".npz")
    assert path.stat().st_size < 2**20
