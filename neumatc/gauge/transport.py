"""Transport: frames are followed from node to node, and what loops leave is spread over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
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
# The least part of every vector that must be in what frames are turned towards for that to fix their phases.
_SEEN = 0.1
# Decimals by which coordinates in the cube are told apart.
_DECIMALS = 13
_TINY = np.finfo(float).tiny


class Frames(NamedTuple):
    """What is followed: columns F (N, L, K) with duals D (N, L, K) and values (N, K).

    ``met`` (N, K, K) says whose values are equal, to ``equal``; ``scale`` is the largest value.
    """

    F: np.ndarray
    D: np.ndarray
    values: np.ndarray
    met: np.ndarray
    equal: float
    scale: float

    @classmethod
    def of(cls, F: np.ndarray, D: np.ndarray, values: np.ndarray, eps: float) -> Frames:
        scale = max(np.abs(values).max(), _TINY)
        equal = _DEGENERATE_UNITS * eps * scale
        met = np.abs(values[:, :, None] - values[:, None, :]) <= equal
        return cls(F, D, values, met, equal, scale)

    def turned(self, turns: np.ndarray) -> Frames:
        """Return the frames with their columns combined by matrices (N, K, K)."""
        F = self.F @ turns
        return self._replace(F=F, D=self.D @ adjoint(np.linalg.inv(turns)) if self.alone else F)

    @property
    def alone(self) -> bool:
        """Whether the columns are not orthonormal and cannot form blocks."""
        return self.D is not self.F

    @property
    def degenerate(self) -> np.ndarray:
        """Nodes (N,) at which values meet."""
        return self.met.sum(axis=(1, 2)) > self.met.shape[1]


@dataclass(frozen=True)
class Followed:
    """Frames combined by unitary W (N, K, K) along a graph, and the overlaps of the labels' vectors on each edge."""

    frames: Frames
    graph: Graph
    W: np.ndarray
    blocks: list[np.ndarray]
    overlaps: np.ndarray

    @cached_property
    def vectors(self) -> np.ndarray:
        """The labels' vectors (N, L, K)."""
        return self.frames.F @ self.W

    @cached_property
    def held(self) -> np.ndarray:
        """The labels' values (N, K); in a block the diagonal of the matrix in their place."""
        return np.einsum("nk,nkl->nl", self.frames.values, np.abs(self.W) ** 2)

    @cached_property
    def same(self) -> np.ndarray:
        """Which labels (K, K) are in one block."""
        inside = [np.bincount(block, minlength=self.W.shape[1]) for block in self.blocks]
        return sum(np.outer(mask, mask) for mask in inside) > 0

    def closes(self, block: np.ndarray) -> bool:
        """Whether what a turn around a closed path makes of a block can be undone continuously."""
        return closes(self.overlaps[-1][np.ix_(block, block)])

    @property
    def whole(self) -> bool:
        """Whether the path is closed, and the labels' vectors go on over its seam."""
        return self.graph.closed and all(map(self.closes, self.blocks))


def polar(A: np.ndarray) -> np.ndarray:
    """Return the polar factors of a batch, unitary or with orthonormal columns."""
    return _polar(A)[0]


def _polar(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return polar factors, and the least singular value of each matrix."""
    if A.shape[-1] == 1:  # many decompositions of single columns would take most of the time
        size = np.linalg.norm(A, axis=-2, keepdims=True)
        return np.where(size > 0, A / np.maximum(size, _TINY), np.eye(A.shape[-2], 1)), size[..., 0, 0]
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    return U @ Vh, S[..., -1]


def follow(frames: Frames, graph: Graph, raw: np.ndarray, blocks: list[np.ndarray]) -> Followed:
    """Follow blocks of labels along the tree by overlaps ``raw`` of frames, and spread what a turn makes of them."""
    count, width = frames.values.shape
    W = np.zeros((count, width, width), frames.F.dtype)
    W[graph.root] = np.eye(width)
    (a, b), (clear, steps) = graph.edges.T, _steps(raw[: len(graph.tree)])
    clear &= ~frames.degenerate[graph.tree].any(axis=1)
    if len(blocks) == 1 < width:  # whatever the columns are, they go on in the block
        clear[:], steps[:] = True, np.eye(width)
    for (i, j), overlap, plain, step in zip(graph.tree.tolist(), raw, clear.tolist(), steps):
        if plain:
            np.dot(step, W[i], out=W[j])
            continue
        overlap = W[i].conj().T @ overlap
        turn = _within_values(overlap, frames.met[j])
        W[j] = turn @ _matched(overlap @ turn, blocks)
    if len(blocks) < width:
        W = W @ _turns(adjoint(W)[a] @ raw @ W[b], graph, blocks)
    if graph.closed:
        W = spread(W, W[a[-1]].conj().T @ raw[-1] @ W[b[-1]], graph.x[:, 0], blocks)
    return Followed(frames, graph, W, blocks, adjoint(W)[a] @ raw @ W[b])


def _steps(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unitary steps (E, K, K) from frame to frame that are the same whatever the labels are, and where they hold.

    So it is where every overlap says clearly which column goes on in which: then sets of columns go on in those of
    their own. To take them together is several times as fast as one by one.
    """
    columns = np.abs(raw).argmax(axis=2)[:, :, None]
    kept = np.take_along_axis(raw, columns, axis=2)
    clear = (np.sort(columns[:, :, 0], axis=1) == np.arange(raw.shape[1])).all(axis=1)
    clear &= (np.abs(kept[:, :, 0]) ** 2 >= RESOLVED).all(axis=1)
    steps = np.zeros_like(raw)
    np.put_along_axis(steps, columns, kept.conj() / np.maximum(np.abs(kept), _TINY), axis=2)
    return clear, steps.transpose(0, 2, 1)


def _matched(overlap: np.ndarray, blocks: list[np.ndarray]) -> np.ndarray:
    """Unitary step by which columns go on in labels (overlap: labels by columns), those of a block in any order."""
    share = np.abs(overlap) ** 2
    for block in blocks:  # a block is one goal: its labels share the weight of their span
        if len(block) > 1:
            share[block] = share[block].sum(axis=0)
    columns = share.argmax(axis=1)
    if len(set(columns.tolist())) < len(columns):
        columns = linear_sum_assignment(share, maximize=True)[1]
    step, labels = np.zeros_like(overlap), np.arange(len(columns))
    kept = overlap[labels, columns].conj()
    size = np.abs(kept)
    step[columns, labels] = np.where(size > 0, kept / np.maximum(size, _TINY), 1)
    return step


def _turns(overlaps: np.ndarray, graph: Graph, blocks: list[np.ndarray]) -> np.ndarray:
    """Turns (N, K, K) of the vectors of each block by orthogonal Procrustes, from the root on along the tree."""
    turns = np.tile(np.eye(overlaps.shape[1], dtype=overlaps.dtype), (len(graph.x), 1, 1))
    for block in blocks:
        if len(block) > 1:
            inner = overlaps[: len(graph.tree), block[:, None], block]
            turns[graph.tree[:, 1, None, None], block[:, None], block] = adjoint(polar(inner))
    for i, j in graph.tree.tolist():
        turns[j] = turns[j] @ turns[i]
    return turns


def _within_values(overlap: np.ndarray, met: np.ndarray, alone: bool = False) -> np.ndarray:
    """Turn the vectors of one and the same value towards the labels, those ``alone`` by any matrix."""
    turn = np.eye(len(met), dtype=overlap.dtype)
    for cluster in components(met):
        if len(cluster) > 1:
            rows = np.sort(np.argsort(-(np.abs(overlap[:, cluster]) ** 2).sum(axis=1))[: len(cluster)])
            inner = overlap[np.ix_(rows, cluster)]
            turn[np.ix_(cluster, cluster)] = (inner if alone else polar(inner)).conj().T
    return turn


def separated(frames: Frames, x: np.ndarray) -> tuple[Frames, np.ndarray]:
    """Where values meet at a node by chance, take for their vectors those which the nodes around it predict.

    Also return the turns (N, K, K) by which the vectors became them.
    """
    count, width = frames.values.shape
    turns = np.tile(np.eye(width, dtype=frames.F.dtype), (count, 1, 1))
    apart = np.flatnonzero(~frames.degenerate)
    if len(apart) >= count / 2:
        D, single = frames.D, list(np.arange(width)[:, None])
        for node in np.flatnonzero(frames.degenerate):
            near, weights = _around(x, apart, node)
            overlap = adjoint(D[near[0]]) @ frames.F[near]
            predicted = sum(w * f @ _matched(o, single) for w, f, o in zip(weights, frames.F[near], overlap))
            turns[node] = _within_values(adjoint(predicted) @ D[node], frames.met[node], frames.alone)
        met = np.where(frames.degenerate[:, None, None], np.eye(width, dtype=bool), frames.met)
        frames = frames.turned(turns)._replace(met=met)
    return frames._replace(met=frames.met & np.eye(width, dtype=bool)) if frames.alone else frames, turns


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


def spread(W: np.ndarray, around: np.ndarray, x: np.ndarray, blocks: list[np.ndarray]) -> np.ndarray:
    """Spread what a turn makes of each block, its overlap ``around`` from the last to the first node, along x."""
    for block in blocks:
        inner = around[np.ix_(block, block)]
        if closes(inner):
            angles, V = _rotation(polar(inner))
            turns = (V * np.exp(0.5j * x[:, None, None] * angles)) @ adjoint(V)  # the period is 2
            W[:, :, block] = W[:, :, block] @ (turns if np.iscomplexobj(W) else turns.real)
    return W


def _rotation(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles t and unitary V with A = V exp(i t) V^H, so that powers of a real rotation A are real."""
    T, Q = scipy.linalg.schur(A)
    if np.iscomplexobj(A):
        return np.angle(np.diagonal(T)), Q
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


def relaxed(followed: Followed) -> np.ndarray:
    """Turn the frames of several parameters towards the mean of all, whose projectors then make them smooth."""
    if followed.graph.closed or not len(followed.graph.loops):
        return followed.W
    mean = followed.vectors.mean(axis=0)
    return _turned(followed, lambda block: polar(mean[:, block]), together=True)


def anchored(followed: Followed, anchors: np.ndarray) -> np.ndarray:
    """Turn the frames between anchors on a path towards the straight line between the frames there."""
    x, columns = followed.graph.x[:, 0], followed.vectors
    held = np.flatnonzero(np.isin(x.round(_DECIMALS), anchors.round(_DECIMALS)))
    held = held[np.argsort(x[held])]
    places = x[held]
    if followed.graph.closed and len(held) and places[-1] - places[0] < 2:  # the path goes on beyond both ends
        held, places = np.r_[held[-1:], held, held[:1]], np.r_[places[-1:] - 2, places, places[:1] + 2]
    if len(held) < 2:
        return followed.W
    right = np.searchsorted(places, x).clip(1, len(held) - 1)
    a, b = held[right - 1], held[right]
    t = ((x - places[right - 1]) / (places[right] - places[right - 1])).clip(0, 1)[:, None, None]
    line = (1 - t) * columns[a] + t * columns[b]
    return _turned(followed, lambda block: line[:, :, block])


def _turned(followed: Followed, goal: Callable[[np.ndarray], np.ndarray], together: bool = False) -> np.ndarray:
    """Turn the frames of each block to be nearest to its goal, where (``together``: everywhere or not) it is seen."""
    W = followed.W.copy()
    for block in followed.blocks:
        turns, parts = _polar(adjoint(followed.vectors[:, :, block]) @ goal(block))
        seen = (parts.min() if together else parts[:, None, None]) > _SEEN
        W[:, :, block] = np.where(seen, W[:, :, block] @ turns, W[:, :, block])
    return W


def adjoint(A: np.ndarray) -> np.ndarray:
    return A.conj().swapaxes(-1, -2)
