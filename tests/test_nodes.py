"""Nodes of pieces: nested, well placed also where they take what is solved already, and the decay that they show."""

import math

import numpy as np
import pytest
import torch

from neumatc import nodes

NONE = np.empty(0)


def extended(taken, count, offered, banned=NONE):
    return [*taken, *(x for x, _ in nodes.added(count - len(taken), taken, offered, banned))]


def barycentric(x):
    return nodes.barycentric(np.asarray(x)[None], np.array([len(x)]))[0]


def decay(values, x):
    return nodes.decay(values[None], x[None])[0]


def lebesgue(x):
    """The largest sum of absolute Lagrange polynomials on [-1, 1], on a fine grid."""
    w = barycentric(x)
    t = np.linspace(-1, 1, 2003)
    delta = t[:, None] - np.asarray(x)
    t, delta = t[np.abs(delta).min(axis=1) > 1e-13], delta[np.abs(delta).min(axis=1) > 1e-13]
    terms = w / delta
    return float((np.abs(terms).sum(axis=1) / np.abs(terms.sum(axis=1))).max())


@pytest.mark.parametrize("count", [2, 3, 9, 16])
def test_nodes_are_distinct_and_begin_with_the_ends(count):
    x = extended(NONE, count, NONE)
    assert len(set(x)) == count
    assert sorted(x[:2]) == [-1.0, 1.0]
    assert max(map(abs, x)) == 1.0


def test_more_nodes_keep_those_there_are():
    x = extended(NONE, 5, NONE)
    for count in (7, 11, 16):
        more = extended(np.array(x), count, NONE)
        assert more[: len(x)] == x
        x = more


@pytest.mark.parametrize("count", range(2, 17))
def test_lebesgue_constants_are_small(count):
    assert lebesgue(extended(NONE, count, NONE)) < 5


@pytest.mark.parametrize("steps", [[3, 5, 7, 9, 11, 13, 16], [9, 12, 16], [2, 3, 4, 5, 6, 7, 8, 9, 10]])
def test_lebesgue_constants_stay_small_when_nodes_are_added_in_steps(steps):
    x = []
    for count in steps:
        x = extended(np.array(x), count, NONE)
        assert lebesgue(x) < 12  # each step is bound to those before: four times Chebyshev's at 16 nodes


@pytest.mark.parametrize("counts", [(16, 9), (16, 16), (12, 7), (9, 9), (5, 3)])
@pytest.mark.parametrize("side", [-1, 1])
def test_lebesgue_constants_stay_small_after_many_halvings(counts, side):
    """Each half takes the nodes of the whole that it holds where they are well placed."""
    first, later = counts
    x = np.array(extended(NONE, first, NONE))
    for _ in range(12):
        kept = x[side * x >= 0]
        x = np.array(extended(NONE, later, 2 * kept - side))
        assert lebesgue(x) < 8


def test_points_that_are_offered_are_taken_as_they_are():
    offered = np.array([-0.71, 0.0, 0.7100000001])
    numbers = [k for _, k in nodes.added(5, NONE, offered, NONE)]
    assert set(numbers) >= {0, 1, 2}


def test_points_that_are_badly_placed_are_not_taken():
    offered = np.linspace(-0.01, 0.01, 9)
    x = extended(NONE, 9, offered)
    assert len(set(offered) & set(x)) <= 1
    assert lebesgue(x) < 8


def test_barycentric_weights_interpolate():
    x, t = np.array(extended(NONE, 7, NONE)), np.linspace(-0.99, 0.93, 40)
    f = np.polynomial.Polynomial([1, 0, 0, -2, 0, 0, 1])
    products = np.stack([np.delete(t[:, None] - x, j, axis=1).prod(axis=1) for j in range(7)], axis=1)
    assert np.allclose(products * barycentric(x) @ f(x), f(t), atol=1e-12)


def test_places_beyond_the_count_have_no_weight():
    x = np.array(extended(NONE, 7, NONE))
    padded = nodes.barycentric(np.append(x, [0.0, 0.0])[None], np.array([7]))[0]
    assert np.array_equal(padded, [*barycentric(x), 0, 0])


@pytest.mark.parametrize("bend", [0.0, 0.3, 1.2])
def test_stretched_positions_go_back(bend):
    t = np.linspace(-1, 1, 21)
    y = nodes.bent(t, bend)
    assert np.abs(nodes.straight(y, bend) - t).max() < 1e-14 and list(y[[0, -1]]) == [-1, 1]


@pytest.mark.parametrize("bend", [0.0, 0.3, 1.2])
def test_arrays_and_tensors_are_stretched_alike(bend):
    t = np.linspace(-1, 1, 21)
    for function in (nodes.bent, nodes.straight):
        found = function(torch.from_numpy(t), torch.tensor(bend, dtype=torch.float64))
        assert np.abs(found.numpy() - function(t, bend)).max() < 1e-15


def test_without_a_bend_positions_stay():
    t = np.linspace(-1, 1, 1001)
    assert np.array_equal(nodes.bent(t, 0.0), t) and np.array_equal(nodes.straight(t, 0.0), t)


@pytest.mark.parametrize("count", [5, 9, 16])
def test_a_polynomial_has_no_coefficients_above_its_degree(count):
    x = np.array(extended(NONE, count, NONE))
    values = np.stack([np.cos(3 * np.arccos(x)), 0 * x], axis=-1)
    envelope = decay(values, x)
    assert np.allclose(envelope[:4], 1, atol=1e-11)
    assert (envelope[4:] < 1e-11).all()


def test_envelopes_never_rise():
    x = np.array(extended(NONE, 16, NONE))
    envelope = decay(np.stack([np.cos(9 * x), np.abs(x)], axis=-1), x)
    assert (np.diff(envelope) <= 0).all()


@pytest.mark.parametrize("pole", [1.3, 2.0, 4.0])
def test_a_pole_says_how_fast_coefficients_decay(pole):
    """Bernstein: coefficients of 1 / (a - x) fall by a + sqrt(a^2 - 1) each."""
    x = np.array(extended(NONE, 13, NONE))
    envelope = decay((1 / (pole - x))[:, None], x)
    rate = math.log(envelope[2] / envelope[9]) / 7
    assert rate == pytest.approx(math.log(pole + math.sqrt(pole**2 - 1)), rel=0.05)


def test_decay_along_one_axis_of_a_grid():
    x, y = (np.array(extended(NONE, n, NONE)) for n in (8, 5))
    values = (x[:, None] ** 2 * np.exp(y))[:, :, None]
    assert (decay(values, x)[3:] < 1e-12).all()
    assert decay(np.moveaxis(values, 1, 0), y)[3] > 1e-3


def test_nodes_keep_away_from_where_solutions_fail():
    x = extended(NONE, 9, NONE, np.array([0.0, 1.0]))
    assert len(set(x)) == 9 and min(abs(t - bad) for t in x for bad in (0.0, 1.0)) > 1e-3
