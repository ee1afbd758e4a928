"""Events: what was met on the way, where, and the pairs of labels that are to be followed together for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from neumatc.gauge.graph import Graph, predictions
from neumatc.gauge.transport import RESOLVED, Followed, adjoint, polar
from neumatc.report import Event

# Two vectors turn into each other too fast for the snapshots where neighbours predict one with an error above the
# first number, and above this many times what neighbours predict the span of the two with and what is usual for it,
# unless that is above the last number: then it is hardly predicted anywhere.
_ROUGH, _ROUGHER, _ROUGHEST = 1e-3, 4.0, 0.1
# Two vectors that exchange more than this part (13 degrees) at a least gap are at an avoided crossing.
_MIXING = 0.05
# A loop between neighbours that turns a vector by more than this (radians) is taken to enclose a degeneracy. A real
# vector turns by 0 or pi, and by pi only around one; a complex one by any angle, of which that is one cause.
_LARGEST_TURN = np.pi / 2

# What a check meets: an event, and the labels that are to be followed together for it.
Found = Iterator[tuple[Event | None, Sequence[int]]]


def obstacles(followed: Followed) -> tuple[list[tuple[int, int]], list[Event]]:
    """Return pairs of labels that keep each other from being followed one by one, and what was met."""
    checks, graph, events = [_mixing], followed.graph, []
    if len(graph.loops):
        checks += [_reflected] if graph.closed else [_inseparable, _turning]
    if graph.x.shape[1] == 1:
        checks.append(_unresolved)
    for check in checks:
        found = list(check(followed))
        events += [event for event, _ in found if event]
        pairs = [tuple(pair) for _, pair in found if len(pair) and not followed.same[tuple(pair)]]
        if pairs:
            break
    return pairs, events


def least(events: Iterable[Event]) -> list[Event]:
    """Of events of one kind with the same labels, keep that of the least gap."""
    kept: dict[tuple, Event] = {}
    for event in events:
        key = event.kind, event.labels
        if key not in kept or event.gap < kept[key].gap:
            kept[key] = event
    return list(kept.values())


def _event(kind: str, labels: Iterable[int], nodes: np.ndarray, followed: Followed, **other: object) -> Event:
    """Return an event between nodes, with the least gap of the labels there; of one label, to all others."""
    labels = tuple(sorted({int(label) for label in labels}))
    held = followed.held[nodes]
    others = np.array(labels if len(labels) > 1 else range(held.shape[1]))
    gaps = np.abs(held[:, labels, None] - held[:, None, others])
    gaps[:, np.equal.outer(labels, others)] = np.inf
    gap = float(gaps.min() / followed.frames.scale) if gaps.min() < np.inf else float("nan")  # a single vector
    return replace(Event(kind, labels, followed.graph.x[nodes].mean(axis=0).tolist(), gap), **other)


def _mixing(followed: Followed) -> Found:
    """Pairs of labels that turn into each other between two snapshots, and vectors that are lost there."""
    tree, same = followed.graph.tree, followed.same
    square = np.abs(followed.overlaps[: len(tree)]) ** 2
    kept = (square * same).sum(axis=2)
    for edge, label in np.argwhere(kept < RESOLVED):
        others = np.where(same[label], 0, square[edge, label])
        partner = others.argmax()
        if others[partner] < (1 - kept[edge, label]) / 2:
            yield _event("cut", (label,), tree[edge], followed), ()
        else:
            yield _event("avoided crossing", (label, partner), tree[edge], followed), (label, partner)


def _inseparable(followed: Followed) -> Found:
    """Pairs of labels whose values are equal at most nodes: around loops their vectors turn within the span."""
    held = followed.held
    equal = (np.abs(held[:, :, None] - held[:, None, :]) <= followed.frames.equal).mean(axis=0) > 0.5
    yield from ((None, pair) for pair in np.argwhere(np.triu(equal, 1)))


def _turning(followed: Followed) -> Found:
    """Close the loops: a pair of labels for each block that one of them turns too far, or exchanges."""
    graph, held = followed.graph, followed.held
    for block in followed.blocks:
        inner = followed.overlaps[len(graph.tree) :, block[:, None], block]
        turned = inner if len(block) == 1 else np.linalg.eigvals(polar(inner))
        turns = np.abs(np.angle(turned)).reshape(len(inner), -1).max(axis=1)
        exchanged = (np.abs(inner) ** 2).sum(axis=2).min(axis=1) < RESOLVED
        flagged = np.flatnonzero((turns > _LARGEST_TURN) | exchanged)
        if not len(flagged):
            continue
        ends = graph.loops[flagged]
        rest = np.setdiff1d(np.arange(held.shape[1]), block)
        if not len(rest):
            yield _event("loop", block, ends[0], followed, phase=float(turns[flagged[0]])), ()
            continue
        # The cut across which a vector changes its sign ends at the degeneracy: there the values are closest.
        gaps = np.abs(held[ends][:, :, block, None] - held[ends][:, :, None, rest]).min(axis=(1, 2))
        labels = (int(block[0]), int(rest[gaps.min(axis=0).argmin()]))
        edge = ends[gaps.min(axis=1).argmin()]
        place, gap = _closest(graph, np.abs(held[:, labels[0]] - held[:, labels[1]]), edge)
        phase = float(np.where(exchanged, 0, turns)[flagged].max())
        met = {"parameter": place.tolist(), "gap": float(gap / followed.frames.scale), "phase": phase}
        yield _event("loop", labels, edge, followed, **met), labels


def _closest(graph: Graph, gap: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, float]:
    """Return where two values are closest near an edge, and their gap there.

    The square of the gap is smooth where the two meet in a cone or pass each other: from the end of the edge go
    down to a node with the least gap among its neighbours, and take the least of the quadratic around it.
    """
    x, edges, node = graph.x, graph.edges, edge[gap[edge].argmin()]
    while gap[near := edges[(edges == node).any(axis=1)].ravel()].min() < gap[node]:
        node = near[gap[near].argmin()]
    d = x.shape[1]
    i, j = np.triu_indices(d)
    offsets = x - x[node]
    near = np.linalg.norm(offsets, axis=1).argsort()[: 2 * (1 + d + len(i))]
    scale = np.linalg.norm(offsets[near], axis=1).max()
    offsets = offsets[near] / scale
    terms = np.c_[np.ones(len(near)), offsets, offsets[:, i] * offsets[:, j]]
    weights = np.exp(-3 * (offsets**2).sum(axis=1))
    fitted = np.linalg.lstsq(terms * weights[:, None], gap[near] ** 2 * weights)[0]
    hessian = np.zeros((d, d))
    hessian[i, j] = fitted[1 + d :]
    hessian += hessian.T
    curvatures = np.linalg.eigvalsh(hessian)
    step = -np.linalg.pinv(hessian, rcond=0.1) @ fitted[1 : 1 + d]
    if curvatures[0] < -0.1 * abs(curvatures[-1]) or np.linalg.norm(step) > 1:
        return x[node], gap[node]
    return (x[node] + step * scale).clip(-1, 1), max(fitted[0] + fitted[1 : 1 + d] @ step / 2, 0.0) ** 0.5


def _reflected(followed: Followed) -> Found:
    """What a turn around a closed path exchanges, or reflects (of real vectors: changes their sign).

    Labels that are exchanged go into a block, and of those reflected two whose values come closest. Where no partner is
    followed, the event is at the seam, where a cut stays.
    """
    pairs, left, reflected = [], [], []
    for block in followed.blocks:
        if followed.closes(block):
            continue
        square = np.abs(followed.overlaps[-1][block]) ** 2
        kept = square[:, block].sum(axis=1)
        if kept.min() >= RESOLVED:
            reflected.append(block)
            continue
        square = square[kept.argmin()]
        square[block] = 0
        lost = square.max() < (1 - kept.min()) / 2
        labels = block if lost else (block[kept.argmin()], square.argmax())
        (left if lost or followed.frames.alone else pairs).append((labels, 0.0))
    while len(reflected) > 1 and not followed.frames.alone:
        block = reflected.pop(0)
        nearest = min(range(len(reflected)), key=lambda i: _gap(followed.held, block, reflected[i]).min())
        pairs.append(((block[0], reflected.pop(nearest)[0]), np.pi))
    for (a, b), phase in pairs:
        node = _gap(followed.held, [a], [b]).argmin()
        yield _event("loop", (a, b), [node], followed, phase=phase), (a, b)
    if not pairs:  # else blocks may yet become whole
        for labels, phase in left + [(block, np.pi) for block in reflected]:
            yield _event("loop", labels, followed.graph.loops[0], followed, parameter=[1.0], phase=phase), ()


def _gap(held: np.ndarray, block: Sequence[int], other: Sequence[int]) -> np.ndarray:
    """Return the least difference of values of two blocks at each node."""
    return np.abs(held[:, block][:, :, None] - held[:, other][:, None, :]).min(axis=(1, 2))


def _rough(rows: np.ndarray, near: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Error (N, K) with which neighbours on a path predict each vector, of rows (N, K, L)."""
    predict = csr_array((weights.ravel(), near.ravel(), np.arange(0, near.size + 1, near.shape[1])), (len(rows),) * 2)
    return np.linalg.norm(rows - (predict @ rows.reshape(len(rows), -1)).reshape(rows.shape), axis=2)


def _rough_together(rows: np.ndarray, at: np.ndarray, block: np.ndarray, around: tuple) -> np.ndarray:
    """Error (R,) with which neighbours predict a block at some places, in the basis nearest to its own."""
    near, weights = (x[at][:, :, None] for x in around)
    own, around = rows[at[:, None], block], rows[near, block]
    count, sides, k, _ = around.shape
    around = around.reshape(count, sides * k, -1)
    turns = polar((own @ adjoint(around)).reshape(count, k, sides, k).swapaxes(1, 2)) * weights[..., None]
    return np.linalg.norm(own - turns.swapaxes(1, 2).reshape(count, k, -1) @ around, axis=2).max(axis=1)


def _unresolved(followed: Followed) -> Found:
    """Pairs of labels on a path that come close and turn into each other too fast for the snapshots."""
    x, nodes, _ = followed.graph.unrolled(followed.whole)
    labels = np.argwhere(np.triu(~followed.same))
    held, rows = followed.held[nodes], followed.vectors[nodes].swapaxes(1, 2).copy()
    # After these nodes the difference changes its sign, or at them its size has an inner minimum.
    gap = held[:, labels[:, 0]] - held[:, labels[:, 1]]
    close = np.append((gap[:-1] * gap[1:].conj()).real <= 0, np.zeros((1, gap.shape[1]), bool), axis=0)
    close[1:-1] |= _least(np.abs(gap), followed.frames.equal)
    if not close.any():
        return
    around = predictions(x)
    rough = _rough(rows, *around)
    # Over the length of the path, for over the nodes clusters would outvote the rest.
    lengths = np.diff(x, prepend=x[0]) + np.diff(x, append=x[-1])
    usual = np.quantile(rough, 0.5, axis=0, weights=lengths, method="inverted_cdf")
    too = rough > np.clip(_ROUGHER * usual, _ROUGH, _ROUGHEST)
    for block in followed.blocks:
        too[:, block], rough[:, block] = too[:, block].any(axis=1)[:, None], rough[:, block].max(axis=1)[:, None]
    either = too[:, labels].any(axis=2)
    close &= either | np.append(either[1:], either[-1:], axis=0)
    for pair in np.flatnonzero(close.any(axis=0)):
        a, b = labels[pair]
        start = np.flatnonzero(close[:, pair])
        ends = np.stack([start, (start + 1).clip(max=len(x) - 1)], axis=1)
        columns = np.flatnonzero(followed.same[a] | followed.same[b])
        together = _rough_together(rows, ends.ravel(), columns, around).reshape(ends.shape).max(axis=1)
        for place in start[rough[ends][:, :, [a, b]].max(axis=(1, 2)) > _ROUGHER * together]:
            yield _event("avoided crossing", (a, b), nodes[[place]], followed), (a, b)


def _least(size: np.ndarray, equal: float) -> np.ndarray:
    """Inner nodes of a path at which a size has a minimum; where it is constant there is none."""
    sides = size[:-2], size[2:]
    return (size[1:-1] <= np.minimum(*sides)) & (size[1:-1] + equal < np.maximum(*sides))


def crossings(followed: Followed) -> list[Event]:
    """Return the crossings and least gaps of the labels that are followed alone."""
    graph, frames = followed.graph, followed.frames
    if frames.alone:
        return []
    single = np.array([block[0] for block in followed.blocks if len(block) == 1], int)
    a, b = single[np.stack(np.triu_indices(len(single), 1))]
    gap = followed.held[:, a] - followed.held[:, b]
    if graph.x.shape[1] == 1:
        return _along(followed, a, b, gap)
    ends, edges = gap[graph.edges], graph.edges
    changes = (ends.prod(axis=1) < 0) & (np.abs(ends) > frames.equal).any(axis=1)
    return least(_event("crossing", (a[pair], b[pair]), edges[edge], followed) for pair, edge in np.argwhere(changes.T))


def _along(followed: Followed, a: np.ndarray, b: np.ndarray, gap: np.ndarray) -> list[Event]:
    """Return the crossings and avoided crossings of pairs of labels (a, b) on a path."""
    x, nodes, edges = followed.graph.unrolled(followed.whole)
    gap, equal, events = gap[nodes], followed.frames.equal, {}
    size, apart = np.abs(gap), np.abs(gap) > equal
    for pair in np.flatnonzero((gap.min(axis=0) < 0) & (gap.max(axis=0) > 0)):
        seen = np.flatnonzero(apart[:, pair])
        for i, j in pairwise(seen):
            if gap[i, pair] * gap[j, pair] < 0:
                part = size[i, pair] / (size[i, pair] + size[j, pair])
                place = x[i] + (x[j] - x[i]) * part if j == i + 1 else x[i + 1 : j].mean()
                if not followed.whole or -1 <= place < 1:
                    events["crossing", pair, i] = Event("crossing", (int(a[pair]), int(b[pair])), [float(place)], 0.0)
    exchange = np.abs(followed.overlaps[edges][:, a, b]) ** 2
    side = gap[:-1] * gap[1:] > 0
    minimum = _least(size, equal) & side[:-1] & side[1:]
    for pair, i in np.argwhere((minimum & (np.maximum(exchange[:-1], exchange[1:]) > _MIXING)).T):
        event = _event("avoided crossing", (a[pair], b[pair]), nodes[[i + 1]], followed)
        events["avoided crossing", pair, nodes[i + 1]] = event
    return list(events.values())
