"""Channels of other packages: their arrays, loaded, give their own frequency responses; their conventions, as told.

The files of `tests/data` hold what the packages computed: `python -m studies.foreign_channels PACKAGE` makes one anew.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from neumatc import wireless

SINGLE = torch.finfo(torch.float32).eps
LIGHT = 299792458.0


def stored(name):
    with np.load(Path(__file__).parent / "data" / f"{name}.npz") as file:
        return dict(file)


def rounding(a, tau, f):
    """What single precision of the phases 2 pi f tau, and of the sum, may take from a response; tau without NaN."""
    turns = 2 * math.pi * np.abs(f).max() * np.abs(tau).max()
    return 2 * SINGLE * (2 + turns) * np.abs(a).sum(axis=-1).max()


def response(channel, f):
    """H at frequencies, (frequencies, m, n), in NumPy."""
    return channel(torch.as_tensor(f, dtype=torch.float64)[:, None]).numpy()


def stacked(H, direction):
    """Responses (users, m, n, frequencies) as the matrices of a channel."""
    return np.concatenate(list(H), axis=1 if direction == "uplink" else 0).transpose(2, 0, 1)


# DeepMIMO


def packed(data):
    """As the page on conventions tells it: delays in the order in which `compute_channels` packs the paths."""
    a, power, delays = data["coefficients"], data["power"], data["delays"]
    order = np.argsort(np.isnan(power[:, : a.shape[3]]), axis=1, kind="stable")
    return np.moveaxis(a, 3, 1), np.take_along_axis(delays, order, axis=1)


def test_deepmimo_gives_its_own_response():
    data = stored("deepmimo")
    a, tau = packed(data)
    keep = (a != 0).any(axis=(1, 2, 3))
    f = data["frequencies"]
    channel = wireless.from_paths(a[keep], tau[keep], 0.0, 30e6, direction="downlink")
    theirs = stacked(data["response"][keep], "downlink") * np.sqrt(data["total"])
    limit = rounding(np.moveaxis(a, 1, -1), np.nan_to_num(tau), f)
    assert np.abs(response(channel, f) - theirs).max() < limit < 1e-3 * np.abs(theirs).max()
    assert keep.tolist() == [True, True, False, True]
    assert channel.coefficients.shape[1] == 5  # of the user with the most paths


def test_deepmimos_padding_is_found_where_it_is_not_last():
    """Unpacked delays meet the wrong paths: refused, since one of these has none."""
    data = stored("deepmimo")
    a, keep = packed(data)[0], [0, 1, 3]
    with pytest.raises(ValueError, match="`delays`: expected a finite delay for each path with power, got none for"):
        wireless.from_paths(a[keep], data["delays"][keep], 0.0, 30e6, direction="downlink")


def test_deepmimos_conventions():
    data = stored("deepmimo")
    # Towards the other end along x, y and z: the receiver's shift is negative along x alone, the transmitter's nowhere.
    assert data["doppler"] == pytest.approx(np.array([[-300.0, 300.0, 300.0], [300.0, 300.0, 300.0]]))
    assert data["switched_off"] == pytest.approx(300.0, rel=1e-4)  # `doppler=0` does not switch it off
    right, up = np.pi * np.sin(np.pi / 3), np.pi * np.cos(np.pi / 3)
    panel = np.add.outer(up * np.arange(3), right * np.arange(2)).ravel()  # along y first, then along z
    assert np.exp(1j * data["panel"]) == pytest.approx(np.exp(1j * panel), abs=1e-5)


# quadriga-lib


def quadriga_paths(data):
    users = range(2)
    a = [np.moveaxis(data[f"coefficients_{i}"].swapaxes(0, 1), 2, 0) for i in users]  # (L, base, user)
    return a, [np.moveaxis(data[f"delays_{i}"].swapaxes(0, 1), 2, 0) for i in users]


def test_quadriga_gives_its_own_response():
    data = stored("quadriga")
    a, tau = quadriga_paths(data)
    channel = wireless.from_paths(a, tau, -20e6, 20e6)
    theirs = np.concatenate([data[f"response_{i}"].swapaxes(0, 1) for i in range(2)], axis=1).transpose(2, 0, 1)
    limit = max(rounding(np.moveaxis(own, 0, -1), delay, 20e6) for own, delay in zip(a, tau))
    assert np.abs(response(channel, data["frequencies"]) - theirs).max() < limit < 1e-4 * np.abs(theirs).max()


def test_one_delay_for_all_antennas_is_not_quadrigas_response():
    """What keeping the delays of each pair is for: their differences turn H over the band."""
    data = stored("quadriga")
    a, tau = quadriga_paths(data)
    channel = wireless.from_paths(a, [own.mean(axis=(1, 2)) for own in tau], -20e6, 20e6)
    theirs = np.concatenate([data[f"response_{i}"].swapaxes(0, 1) for i in range(2)], axis=1).transpose(2, 0, 1)
    error = np.abs(response(channel, data["frequencies"]) - theirs).max() / np.abs(theirs).max()
    spread = max(np.abs(own - own.mean(axis=(1, 2), keepdims=True)).max() for own in tau)
    assert 1e-3 < error < 2 * math.pi * 20e6 * spread * 4  # phases, times the sum over four paths at most


def test_quadrigas_conventions():
    data = stored("quadriga")
    assert data["tones"] == pytest.approx(np.linspace(0.0, 0.4e6, 5), abs=1.0)  # both ends of the band are tones
    assert 1e-7 < data["far"].item() < SINGLE * 2 * math.pi * 1e-5 * 1e8  # double in and out, but single within
    absolute, relative, nearer = data["direct"]
    assert absolute[0] == pytest.approx(np.exp(-2j * np.pi * 3e9 * 10.0 / LIGHT), abs=1e-9)  # no path loss of its own
    assert relative[0] == absolute[0] and relative[1] == 0.0  # the delay is shifted, the phase is not
    assert np.angle(nearer[0] / absolute[0]) == pytest.approx(2 * np.pi * 3e9 * 0.01 / LIGHT)  # nearer: positive
    assert data["slants"] == pytest.approx(np.tile([45.0, -45.0], 4))  # pairs side by side
    assert data["panel"][1:].T.tolist() == [[y, z] for y in (-0.25, 0.25) for z in (-0.25, 0.25) for _ in range(2)]


# Sionna RT and OpenNTN


def test_sionna_rt_gives_its_own_response():
    data = stored("sionna_rt")
    a, tau, f, times = (data[name] for name in ("coefficients", "delays", "frequencies", "times"))
    keep = (a != 0).any(axis=(0, 1, 3, 4, 5))
    channel = wireless.from_cir(a[:, :, keep], tau[:, keep], -20e6, 20e6, times=times[:, None])
    limit = rounding(np.moveaxis(a, 4, -1), tau.clip(0), f)
    for t in range(3):
        p = torch.stack(
            [torch.full((5,), times[t], dtype=torch.float64), torch.as_tensor(f, dtype=torch.float64)], dim=1
        )
        theirs = stacked(data["response"][0, :, :, :, t][:, keep].swapaxes(0, 1), "uplink")
        assert np.abs(channel(p).numpy() - theirs).max() < limit < 1e-3 * np.abs(theirs).max()
    assert keep.tolist() == [True, True, False, True]


def test_sionna_rts_user_without_a_path_is_named():
    data = stored("sionna_rt")
    with pytest.raises(ValueError, match="expected a path for every user, got no path for user 2; leave them out"):
        wireless.from_cir(data["coefficients"], data["delays"], -20e6, 20e6, times=data["times"][:, None])
    with pytest.raises(ValueError, match=r"`times`: expected times of shape \(3, 1\), got None"):
        wireless.from_cir(data["coefficients"], data["delays"], -20e6, 20e6)


def test_sionna_rts_conventions():
    data = stored("sionna_rt")
    a, tau, doppler = data["coefficients"], data["delays"], data["doppler"]
    assert set(tau[a[0, 0, :, 0, :, 0][None] == 0]) == {np.float32(-1.0)}  # paths that are not there
    sight = data["base"] - data["places"][0]
    nearest = np.where(tau[0, 0] < 0, 1, tau[0, 0]).argmin()
    expected = data["velocity"] @ sight / np.linalg.norm(sight) * 3.5e9 / LIGHT  # towards the base: positive
    assert doppler[0, 0, nearest] == pytest.approx(expected, rel=1e-4)
    *turned, told = data["normalised"]
    assert turned == pytest.approx(np.full(len(turned), told), abs=2e-3)  # delays from zero turn the coefficients
    assert abs(told - 1) > 0.1
    assert data["normalised_power"] == pytest.approx([1.0, 1.0, 0.0, 1.0], abs=1e-5)  # each link by itself
    assert data["slants"] == pytest.approx([-45.0, 45.0])
    assert data["panel"][1:].T.tolist() == [[y, z] for y in (-0.25, 0.25) for z in (0.25, -0.25)]  # from the top


def test_openntn_gives_its_own_response():
    data = stored("openntn")
    a, tau, f, times = (data[name] for name in ("coefficients", "delays", "frequencies", "times"))
    channel = wireless.from_cir(a[0], tau[0], -10e6, 10e6, times=times[:, None])
    for t in range(2):
        p = torch.stack([torch.full((5,), times[t], dtype=torch.float64), torch.as_tensor(f)], dim=1)
        theirs = stacked(data["response"][0, 0, :, :, :, t].swapaxes(0, 1), "uplink")
        assert np.abs(channel(p).numpy() - theirs).max() < 1e-12 * np.abs(theirs).max()
    assert data["doppler"][0] == pytest.approx(data["doppler"][1])  # of the satellite, in every path
    # An approach raises the frequency, in Sionna PHY and in OpenNTN; rays of a cluster spread about the line of sight.
    assert data["approach"] == pytest.approx(np.ones(2), abs=0.1)
    cells = [[y, z] for y in (-0.25, 0.25) for z in (0.25, -0.25)]  # down a column, then the next
    assert data["phy_panel"][:, 1:] == pytest.approx(np.array(2 * cells))
    assert data["phy_order"].tolist() == list(range(8)) and data["phy_slants"] == pytest.approx([-45.0, 45.0])
    assert data["panel"][:, 1] == pytest.approx(np.array([-0.25, 0.25, -0.25, 0.25]))  # OpenNTN: the same order


# Any arrays


def drawn(seed, users=3, paths=4, m=2, n=3, times=(), apart=False):
    random = np.random.default_rng(seed)
    shape = (users, paths, m, n, *times)
    a = random.normal(size=shape) + 1j * random.normal(size=shape)
    return a, random.uniform(0, 1e-6, shape[: 4 if apart else 2])


@pytest.mark.parametrize("direction", ["uplink", "downlink"])
@pytest.mark.parametrize("moving", [False, True])
def test_delays_of_pairs_of_antennas_are_exact(direction, moving):
    a, tau = drawn(1, times=(2,) * moving, apart=True)
    times = np.array([[0.0], [1e-3]]) if moving else None
    channel = wireless.from_paths(a, tau, -1e7, 1e7, direction=direction, times=times)
    f = np.linspace(-1e7, 1e7, 6)
    p = np.stack([np.full(6, 1e-3), f], axis=1) if moving else f[:, None]
    H = np.einsum("ulij,ulijf->uijf", a[..., -1] if moving else a, np.exp(-2j * np.pi * tau[..., None] * f))
    assert channel(torch.as_tensor(p)).numpy() == pytest.approx(stacked(H, direction), abs=1e-11)


@pytest.mark.parametrize("mark", [0.0, np.nan])
def test_padding_anywhere_changes_nothing(mark):
    a, tau = drawn(2)
    padded, late = np.insert(a, (0, 2, 4), mark, axis=1), np.insert(tau, (0, 2, 4), np.nan, axis=1)
    f = torch.linspace(-1e7, 1e7, 5, dtype=torch.float64)[:, None]
    plain, other = (wireless.from_paths(*own, -1e7, 1e7) for own in ((a, tau), (padded, late)))
    assert torch.equal(plain(f), other(f)) and other.coefficients.shape == (3, 4, 2, 3)


def test_users_with_different_numbers_of_paths_come_as_lists():
    a, tau = drawn(3)
    counts = (2, 4, 1)
    channel = wireless.from_paths(
        [own[:c] for own, c in zip(a, counts)], [own[:c] for own, c in zip(tau, counts)], -1e7, 1e7
    )
    f = np.linspace(-1e7, 1e7, 5)
    H = [np.einsum("lij,lf->ijf", a[u, :c], np.exp(-2j * np.pi * tau[u, :c, None] * f)) for u, c in enumerate(counts)]
    assert response(channel, f) == pytest.approx(stacked(H, "uplink"), abs=1e-11)


@pytest.mark.parametrize("direction", ["uplink", "downlink"])
def test_sionnas_layout_in_both_directions_and_with_delays_of_pairs(direction):
    a, tau = drawn(4, apart=True)
    ours = wireless.from_paths(a, tau, -1e7, 1e7, direction=direction)
    (cir, delays) = (x.transpose(2, 0, 3, 1) for x in (a, tau))  # (receive, users, transmit, L)
    if direction == "uplink":
        cir, delays = cir[None, ..., None], delays[None]
    else:
        cir, delays = (x.swapaxes(0, 1)[:, :, None] for x in (cir[..., None], delays))
    theirs = wireless.from_cir(cir, delays, -1e7, 1e7, direction=direction)
    f = torch.linspace(-1e7, 1e7, 5, dtype=torch.float64)[:, None]
    assert torch.equal(ours(f), theirs(f))


def test_what_cannot_be_loaded_is_named():
    a, tau = drawn(5, users=12)
    blocked = a.copy()
    blocked[1:11] = 0
    with pytest.raises(ValueError, match=r"got no path for users 1, 2, 3, 4, 5, 6, 7, 8 and 2 more; leave them out"):
        wireless.from_paths(blocked, tau, -1e7, 1e7)
    for bad in (np.nan, np.inf):
        broken = a.copy()
        broken[3, 1, 0, 0] = bad
        with pytest.raises(ValueError, match="`coefficients`: expected finite numbers, got NaN or Inf for user 3"):
            wireless.from_paths(broken, tau, -1e7, 1e7)
        late = tau.copy()
        late[7, 2] = bad
        with pytest.raises(ValueError, match="`delays`: expected a finite delay .* got none for user 7"):
            wireless.from_paths(a, late, -1e7, 1e7)
    with pytest.raises(TypeError, match="`coefficients`: expected complex numbers"):
        wireless.from_paths(a.real, tau, -1e7, 1e7)
    for wrong in (tau[:, :2], tau[0], np.moveaxis(a, 1, 3).real):
        with pytest.raises(ValueError, match="`coefficients`, `delays`: expected shapes"):
            wireless.from_paths(a, wrong, -1e7, 1e7)
    with pytest.raises(ValueError, match="`a`, `tau`: expected one receiver"):
        wireless.from_cir(np.ones((2, 1, 1, 1, 1, 1), complex), np.ones((2, 1, 1)), -1e7, 1e7)
    with pytest.raises(ValueError, match="`a`, `tau`: expected one transmitter"):
        wireless.from_cir(np.ones((1, 2, 3, 1, 1, 1), complex), np.ones((1, 3, 1)), -1e7, 1e7, direction="downlink")
