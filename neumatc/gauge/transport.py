"""Transport: frames are followed from node to node, and what loops leave is spread over all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
from scipy.optimize import linear_sum_assignment

from neumatc.gauge.graph import NEIGHBOURS, Graph, components, lagrange, spaced

# A vector that keeps less than this part of its squared length from one snapshot to the next (45 degrees) is not
# resolved by the snapshots.
RESOLVED = 0.5
# Values closer than this many rounding units of the largest are one value, whose vectors are any basis of their span.
_DEGENERATE_UNITS = 1e3
# The least part of every vector that must be in the mean of all frames for that to fix its phases, and the part from
# which on it does so at once. Below, neighbours agree on their phases first, in so many sweeps at most, until the
# largest change is as small as the last.
_SEEN, _CLEARLY, _SWEEPS, _SETTLED = 0.1, 0.5, 30, 1e-3
# Edges at a time, so that copies of their frames stay in the cache.
_PART = 64
# Decimals by which coordinates in the cube are told apart.
_DECIMALS = 13
_TINY = np.finfo(float).tiny


class Frames(NamedTuple):
    """What is followed: columns F (N, L, K) with duals D and values (N, K).

    ``met`` (N, K, K) says whose values are equal, to ``equal``; ``scale`` is the largest value; ``alone``, whether the
    columns are not orthonormal and cannot form blocks.
    """

    F: np.ndarray
    D: np.ndarray
    values: np.ndarray
    met: np.ndarray
    equal: float
    scale: float
    alone: bool

    @classmethod
    def of(cls, F: np.ndarray, D: np.ndarray, values: np.ndarray, eps: float, alone: bool) -> Frames:
        scale = max(np.abs(values).max(), _TINY)
        equal = _DEGENERATE_UNITS * eps * scale
        met = np.abs(values[:, :, None] - values[:, None, :]) <= equal
        return cls(F, D, values, met & np.eye(F.shape[2], dtype=bool) if alone else met, equal, scale, alone)

    @property
    def degenerate(self) -> np.ndarray:
        """Nodes (N,) at which values meet."""
        return self.met.sum(axis=(1, 2)) > self.met.shape[1]


class Followed(NamedTuple):
    """Frames combined by unitary W (N, K, K): the labels' vectors, their overlaps on each edge, and their values.

    In a block the values are the diagonal of the matrix in their place.
    """

    W: np.ndarray
    blocks: list[np.ndarray]
    overlaps: np.ndarray
    held: np.ndarray
    closed: bool

    @property
    def same(self) -> np.ndarray:
        """Which labels (K, K) are in one block."""
        same = np.zeros(self.W.shape[1:], bool)
        for block in self.blocks:
            same[np.ix_(block, block)] = True
        return same

    def closes(self, block: np.ndarray) -> bool:
        """Whether what a turn around a closed path makes of a block can be undone continuously."""
        return closes(self.overlaps[-1][np.ix_(block, block)])

    @property
    def whole(self) -> bool:
        """Whether the path is closed, and the labels' vectors go on over its seam."""
        return self.closed and all(map(self.closes, self.blocks))


def overlaps(frames: Frames, edges: np.ndarray) -> np.ndarray:
    """Products D_a^H F_b over edges (a, b), shape (E, K, K)."""
    D, parts = _adjoint(frames.D), range(0, len(edges), _PART)
    found = [D[edge[:, 0]] @ frames.F[edge[:, 1]] for edge in (edges[i : i + _PART] for i in parts)]
    return np.concatenate(found) if found else np.empty((0, *frames.met.shape[1:]), D.dtype)


def polar(A: np.ndarray) -> np.ndarray:
    """Return the polar factors of a batch, unitary or with orthonormal columns."""
    if A.shape[-1] == 1:
        size = np.abs(A) if A.shape[-2] == 1 else np.linalg.norm(A, axis=-2, keepdims=True)
        return np.where(size > 0, A / np.maximum(size, _TINY), np.eye(A.shape[-2], 1))
    U, _, Vh = np.linalg.svd(A, full_matrices=False)
    return U @ Vh


def follow(frames: Frames, graph: Graph, raw: np.ndarray, blocks: list[np.ndarray]) -> Followed:
    """Follow blocks of labels along the tree by overlaps ``raw`` of frames, and spread what a turn makes of them."""
    W = _transport(frames, graph, raw, blocks)
    turned = _turned(W, raw, graph.edges)
    if graph.closed:
        W = _spread(W, turned[-1], graph.x[:, 0], blocks)
        turned = _turned(W, raw, graph.edges)
    return Followed(W, blocks, turned, np.einsum("nk,nkl->nl", frames.values, np.abs(W) ** 2), graph.closed)


def _turned(W: np.ndarray, raw: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return _adjoint(W)[edges[:, 0]] @ raw @ W[edges[:, 1]]


def _transport(frames: Frames, graph: Graph, raw: np.ndarray, blocks: list[np.ndarray]) -> np.ndarray:
    count, width = frames.values.shape
    W = np.zeros((count, width, width), frames.F.dtype)
    W[graph.root] = np.eye(width)
    clear, steps = _steps(raw[: len(graph.tree)], blocks)
    degenerate = frames.degenerate
    if len(blocks) > 1:
        clear = clear & ~degenerate[graph.tree].any(axis=1)
    for (a, b), overlap, plain, step in zip(graph.tree.tolist(), raw, clear.tolist(), steps):
        if plain:
            np.dot(step, W[a], out=W[b])
            continue
        overlap = W[a].conj().T @ overlap
        turn = _within_values(overlap, frames.met[b]) if degenerate[b] else None
        W[b] = _matched(overlap, blocks) if turn is None else turn @ _matched(overlap @ turn, blocks)
    return W


def _steps(raw: np.ndarray, blocks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Unitary steps (E, K, K) from frame to frame that are the same whatever the labels are, and where they hold.

    So it is for one block, and for labels alone where every overlap says clearly which column goes on in which.
    """
    count, width, _ = raw.shape
    if len(blocks) == 1:
        return np.ones(count, bool), _adjoint(polar(raw))
    columns = np.abs(raw).argmax(axis=2)[:, :, None]
    kept = np.take_along_axis(raw, columns, axis=2)
    clear = (np.sort(columns[:, :, 0], axis=1) == np.arange(width)).all(axis=1)
    clear &= (np.abs(kept[:, :, 0]) ** 2 >= RESOLVED).all(axis=1) & (len(blocks) == width)
    steps = np.zeros_like(raw)
    np.put_along_axis(steps, columns, kept.conj() / np.maximum(np.abs(kept), _TINY), axis=2)
    return clear, steps.transpose(0, 2, 1)


def _matched(overlap: np.ndarray, blocks: list[np.ndarray]) -> np.ndarray:
    """Unitary step by which columns go on in labels (overlap: labels by columns), blocks by orthogonal Procrustes."""
    square = np.abs(overlap) ** 2
    share = np.empty_like(square)
    for block in blocks:  # a block is one goal: its labels share the weight of their span
        share[block] = square[block].sum(axis=0)
    columns = share.argmax(axis=1)
    if len(set(columns.tolist())) < len(columns):
        columns = linear_sum_assignment(share, maximize=True)[1]
    step = np.zeros_like(overlap)
    for block in blocks:
        step[np.ix_(columns[block], block)] = polar(overlap[np.ix_(block, columns[block])]).conj().T
    return step


def _within_values(overlap: np.ndarray, met: np.ndarray) -> np.ndarray:
    """Turn the vectors of one and the same value towards the labels."""
    turn = np.eye(len(met), dtype=overlap.dtype)
    for cluster in components(met):
        if len(cluster) > 1:
            rows = np.sort(np.argsort(-(np.abs(overlap[:, cluster]) ** 2).sum(axis=1))[: len(cluster)])
            turn[np.ix_(cluster, cluster)] = polar(overlap[np.ix_(rows, cluster)]).conj().T
    return turn


def separated(frames: Frames, x: np.ndarray) -> tuple[Frames, np.ndarray]:
    """Where values meet at a node by chance, take for their vectors those which the nodes around it predict.

    Also return the turns (N, K, K) by which the vectors became them.
    """
    count, width = frames.values.shape
    turns = np.broadcast_to(np.eye(width, dtype=frames.F.dtype), (count, width, width))
    apart = np.flatnonzero(~frames.degenerate)
    if frames.alone or len(apart) == count or len(apart) < count / 2:
        return frames, turns
    F, met, turns = frames.F.copy(), frames.met.copy(), turns.copy()
    for node in np.flatnonzero(frames.degenerate):
        near, weights = _around(x, apart, node)
        aligned = F[near]
        overlap = aligned[0].conj().T @ aligned
        predicted = sum(
            w * f @ _matched(o, list(np.arange(width)[:, None])) for w, f, o in zip(weights, aligned, overlap)
        )
        turns[node] = _within_values(predicted.conj().T @ F[node], met[node])
        F[node] = F[node] @ turns[node]
        met[node] = np.eye(width, dtype=bool)
    return frames._replace(F=F, D=F, met=met), turns


def _around(x: np.ndarray, apart: np.ndarray, node: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes around one, and the weights with which they predict it: by a polynomial, in several parameters linear."""
    d = x.shape[1]
    if d == 1:
        near = apart[spaced(x[apart, 0], x[node, 0], 2 * NEIGHBOURS)]
        return near, lagrange(x[node], x[near].T)[0]
    offsets = x[apart] - x[node]
    order = np.linalg.norm(offsets, axis=1).argsort()[: 2 * (d + 1)]
    return apart[order], np.linalg.pinv(np.c_[np.ones(len(order)), offsets[order] / np.abs(offsets[order]).max()])[0]


def closes(overlap: np.ndarray) -> bool:
    """Whether what a turn makes of the vectors of a block can be undone bit by bit: a rotation and no reflection."""
    if (np.abs(overlap) ** 2).sum(axis=1).min() < RESOLVED:
        return False
    return np.iscomplexobj(overlap) or np.linalg.det(overlap) > 0


def _spread(W: np.ndarray, around: np.ndarray, x: np.ndarray, blocks: list[np.ndarray]) -> np.ndarray:
    """Spread what a turn makes of each block, its overlap ``around`` from the last to the first node, along x."""
    W = W.copy()
    for block in blocks:
        inner = around[np.ix_(block, block)]
        if closes(inner):
            angles, V = _rotation(polar(inner))
            turns = (V * np.exp(0.5j * x[:, None, None] * angles)) @ _adjoint(V)  # the period is 2
            W[:, :, block] = W[:, :, block] @ (turns if np.iscomplexobj(W) else turns.real)
    return W


def _rotation(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles t and unitary V with A = V exp(i t) V^H, so that powers of a real rotation A are real."""
    if np.iscomplexobj(A):
        T, V = scipy.linalg.schur(A)
        return np.angle(np.diagonal(T)), V
    T, Q = scipy.linalg.schur(A)
    # Of a rotation the form has 2 x 2 rotations and single signs; negative ones come in pairs, which turn by pi.
    generator, i, negative = np.zeros_like(T), 0, []
    while i < len(T):
        paired = i + 1 < len(T) and abs(T[i + 1, i]) > 1e-12
        if paired:
            generator[i + 1, i] = np.arctan2(T[i + 1, i], T[i, i])
        elif T[i, i] < 0:
            negative.append(i)
        i += 1 + paired
    generator[negative[1::2], negative[::2]] = np.pi
    angles, V = np.linalg.eigh(-1j * (generator - generator.T))
    return angles, Q @ V


def relaxed(frames: Frames, graph: Graph, followed: Followed) -> np.ndarray:
    """Average over neighbours in several parameters, and turn towards the mean of all frames."""
    W = followed.W.copy()
    if graph.closed or not len(graph.loops):
        return W
    for size in {len(block) for block in followed.blocks}:
        group = np.stack([block for block in followed.blocks if len(block) == size])
        inner = followed.overlaps[:, group[:, :, None], group[:, None, :]]
        columns = np.moveaxis((frames.F @ W)[:, :, group], 1, 2)
        # Where the mean fixes the phases, it does not matter from which they start.
        Z, (seen, part) = np.eye(size, dtype=W.dtype), _mean(columns)
        if part.min() < _CLEARLY:
            Z = _averaged(graph, inner)
            seen, part = _mean(_times(columns, Z))
        Z = np.where((part > _SEEN)[:, None, None], _times(Z, polar(seen)), Z)
        W[:, :, group] = np.moveaxis(_times(np.moveaxis(W[:, :, group], 1, 2), Z), 2, 1)
    return W


def anchored(
    frames: Frames, W: np.ndarray, blocks: list[np.ndarray], x: np.ndarray, anchors: np.ndarray, periodic: bool
) -> np.ndarray:
    """Turn the frames between anchors x on a path towards the straight line between the frames there."""
    held = np.flatnonzero(np.isin(x.round(_DECIMALS), anchors.round(_DECIMALS)))
    held = held[np.argsort(x[held])]
    places = x[held]
    if periodic and len(held) and places[-1] - places[0] < 2:  # the path goes on beyond both ends
        held, places = np.r_[held[-1:], held, held[:1]], np.r_[places[-1:] - 2, places, places[:1] + 2]
    if len(held) < 2:
        return W
    right = np.searchsorted(places, x).clip(1, len(held) - 1)
    a, b = held[right - 1], held[right]
    t = ((x - places[right - 1]) / (places[right] - places[right - 1])).clip(0, 1)[:, None, None]
    columns, W = frames.F @ W, W.copy()
    line = (1 - t) * columns[a] + t * columns[b]
    for block in blocks:
        seen = _adjoint(columns[:, :, block]) @ line[:, :, block]
        clear = np.linalg.svd(seen, compute_uv=False)[:, -1] > _SEEN
        W[:, :, block] = np.where(clear[:, None, None], W[:, :, block] @ polar(seen), W[:, :, block])
    return W


def _mean(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Overlaps (N, B, k, k) of blocks of columns with the mean over all nodes, and the least part of each block."""
    seen = _adjoint(columns) @ polar(columns.mean(axis=0))
    parts = np.abs(seen) if seen.shape[-1] == 1 else np.linalg.svd(seen, compute_uv=False)[..., None]
    return seen, parts.min(axis=(0, 2, 3))


def _times(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return A * B if B.shape[-1] == 1 else A @ B  # a product of many 1 x 1 matrices is slow


def _adjoint(A: np.ndarray) -> np.ndarray:
    return A.conj().swapaxes(-1, -2)


def _averaged(graph: Graph, overlap: np.ndarray) -> np.ndarray:
    """Unitary Z (N, B, k, k) by which the frames of B blocks, with overlaps (E, B, k, k) on the edges, agree."""
    a, b = graph.edges.T
    towards = np.argsort(np.concatenate([b, a]), kind="stable")
    source = np.concatenate([a, b])[towards]
    weights = np.concatenate([_adjoint(overlap), overlap])[towards]
    degrees = np.bincount(source, minlength=len(graph.x))
    starts = np.append(0, degrees.cumsum()[:-1])
    Z = np.broadcast_to(np.eye(overlap.shape[-1], dtype=overlap.dtype), (len(graph.x), *overlap.shape[1:]))
    for _ in range(_SWEEPS):
        # Each is drawn to what its neighbours are, seen from it, and stays half where it is.
        before = Z
        Z = polar(Z * degrees[:, None, None, None] + np.add.reduceat(_times(weights, Z[source]), starts))
        if np.abs(Z - before).max() <= _SETTLED:
            break
    return Z
