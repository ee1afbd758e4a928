"""The gauge: turn frames of vectors, which LAPACK returns in any phase and order, into continuous functions of p."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree
from torch import Tensor

from neumatc.report import Event

# A vector that keeps less than this part of its squared length from one snapshot to the next (45 degrees) is not
# resolved by the snapshots.
_RESOLVED = 0.5
# Where two values come close, vectors that their neighbours predict with a larger error than the first number, and more
# than the second times what is usual on the path and what their common span has, turn into each other too fast for the
# snapshots. A prediction is the polynomial through so many neighbours on either side.
_ROUGH, _ROUGHER, _NEIGHBOURS = 1e-3, 4.0, 3
# Two vectors that exchange more than this part (13 degrees) at a least gap are at an avoided crossing.
_MIXING = 0.05
# A loop between neighbours that turns a vector by more than this (radians) is taken to enclose a degeneracy. A real
# vector turns by 0 or pi, and by pi only around one; a complex one by any angle, of which that is one cause.
_LARGEST_TURN = np.pi / 2
# Values closer than this many rounding units of the largest are one value, whose vectors are any basis of their span.
_DEGENERATE_UNITS = 1e3
# Sweeps by which neighbours agree on their phases in several parameters, after the transport along the tree; and the
# least part of every vector that must be in the mean of all frames for that to fix the phases.
_SWEEPS, _SEEN = 30, 0.1


@dataclass(frozen=True)
class Alignment:
    """How frames are to be combined so that they vary continuously.

    Attributes:
        rotations: Unitary W_i, shape (N, K, J): column j is the vector with label j, or of a block one of its basis.
        blocks: Labels that are followed together, as sets 0 .. J - 1 in order.
        events: What was met on the way.
    """

    rotations: Tensor
    blocks: tuple[tuple[int, ...], ...]
    events: tuple[Event, ...]

    @property
    def separate(self) -> bool:
        """Whether every vector is followed on its own."""
        return all(len(block) == 1 for block in self.blocks)


def align(
    frames: Tensor,
    values: Tensor,
    x: Tensor,
    wanted: Tensor,
    *,
    together: bool = False,
    duals: Tensor | None = None,
) -> Alignment:
    r"""Align orthonormal frames F_i at parameters x_i: find unitary W_i such that F_i W_i is continuous.

    Along a path (one parameter), or a minimum spanning tree of the parameters (several), each frame is matched with the
    one before: the order by the assignment of largest overlaps :math:`|f_k^H f_l|^2`, the phase such that
    :math:`f_k^H f_k` is positive, which is parallel transport. Vectors of equal values are turned within their span,
    and vectors that turn into each other between two snapshots are followed together, as a block, by orthogonal
    Procrustes (the polar factor of the overlap). In several parameters the loops which the tree leaves open are closed
    by every other edge between neighbours. Where the transport around one turns a vector by more than 90 degrees it
    joins a block with the vector of the nearest value: a real one has changed its sign around a degeneracy (Herzberg
    and Longuet-Higgins, Discuss. Faraday Soc. 35, 1963), and no continuous real vector exists; a complex one has met
    much curvature, as there is near a degeneracy (Berry, Proc. R. Soc. A 392, 1984), and the gap of the event says
    whether the values meet. The event's place is where the squared difference of the two values, which is smooth where
    no third one is near, is least, by a quadratic through the nodes around. Into blocks also go
    vectors whose values are equal at most parameters. Then neighbours' phases are averaged (synchronisation), which
    spreads what curvature there is evenly, and all frames F_i are turned towards the mean M of all, such that F_i^H M
    is Hermitian and positive: that makes them as smooth as their projectors. Where a frame has too little in common
    with the mean for such a turn, the average stays.

    Args:
        frames: Orthonormal columns, shape (N, L, K), real or complex.
        values: The value of each column, shape (N, K), real.
        x: Parameters in the cube [-1, 1]^d, shape (N, d), float64.
        wanted: Mask (N, K): columns that the caller needs at this parameter. Labels that are never wanted, nor in a
            block with one that is, are dropped.
        together: Follow all columns as one block.
        duals: For columns that are not orthonormal: D_i with D_i^H F_i = I, which takes the place of F_i in overlaps.
            Then there are no blocks, and no crossings are looked for.

    Returns:
        The alignment, on the device and in the dtype of the frames.
    """
    F, D = _wide(frames), _wide(frames if duals is None else duals)
    eps = torch.finfo(values.dtype).eps
    follower = _Follower(F, D, _wide(values), x.double().cpu().numpy(), eps, duals is not None)
    rotations, blocks = follower.follow(together)
    labels = follower.labels_of(rotations)
    used = np.zeros(F.shape[2], bool)
    np.logical_or.at(used, labels.ravel(), wanted.cpu().numpy().ravel())
    blocks = [block for block in blocks if used[block].any()]
    order = np.concatenate(blocks)
    renamed = {int(old): new for new, old in enumerate(order)}
    events = [e for e in follower.events(rotations, blocks) if any(label in renamed for label in e.labels)]
    W = torch.from_numpy(np.ascontiguousarray((follower.bases @ rotations)[:, :, order]))
    return Alignment(
        W.to(frames.device, frames.dtype),
        tuple(tuple(renamed[int(label)] for label in block) for block in blocks),
        tuple(events),
    )


def _wide(x: Tensor) -> np.ndarray:
    return x.resolve_conj().cpu().to(torch.complex128 if x.is_complex() else torch.float64).numpy()


class _Follower:
    """The transport along a tree, repeated with larger blocks until every loop closes."""

    def __init__(self, F: np.ndarray, D: np.ndarray, values: np.ndarray, x: np.ndarray, eps: float, alone: bool):
        self.F, self.D, self.values, self.x, self.alone = F, D, values, x, alone
        self.count, _, self.width = F.shape
        self.bases = np.broadcast_to(np.eye(self.width, dtype=F.dtype), (self.count, self.width, self.width)).copy()
        self.scale = max(np.abs(values).max(), np.finfo(float).tiny)
        self.tree, self.loops = _edges(x)
        gaps = np.abs(values[:, :, None] - values[:, None, :])
        self.equal = _DEGENERATE_UNITS * eps * self.scale
        self.degenerate = (gaps <= self.equal) & ~(alone & ~np.eye(self.width, dtype=bool))
        if not alone:
            self._separate()
        self.overlaps = _overlap(self.D, self.F, self.tree)
        self.found: dict[tuple, Event] = {}
        self.plain = self.turns = None
        columns = np.abs(self.overlaps).argmax(axis=2)
        kept = np.take_along_axis(self.overlaps, columns[:, :, None], axis=2)[:, :, 0]
        clear = (np.sort(columns, axis=1) == np.arange(self.width)).all() and (np.abs(kept) ** 2 >= _RESOLVED).all()
        if clear and not (self.degenerate.sum(axis=(1, 2)) > self.width).any():
            self.plain, self.turns = columns, kept.conj() / np.abs(kept)

    def _separate(self) -> None:
        """Where values meet at a node by chance, take for their vectors those which the nodes around it predict."""
        met = self.degenerate.sum(axis=(1, 2)) > self.width
        apart = np.flatnonzero(~met)
        if not met.any() or len(apart) < self.count / 2:
            return
        dimension, self.F = self.x.shape[1], self.F.copy()
        for node in np.flatnonzero(met):
            offsets = self.x[apart] - self.x[node]
            near = np.linalg.norm(offsets, axis=1).argsort()[: 2 * (_NEIGHBOURS if dimension == 1 else dimension + 1)]
            offsets, near = offsets[near] / np.abs(offsets[near]).max(), apart[near]
            terms = offsets ** np.arange(len(near)) if dimension == 1 else np.c_[np.ones(len(near)), offsets]
            predicted = 0
            for i, weight in zip(near, np.linalg.pinv(terms)[0]):
                overlap = self.F[near[0]].conj().T @ self.F[i]
                columns = _assigned(np.abs(overlap) ** 2)
                kept = overlap[np.arange(self.width), columns]
                phase = kept.conj() / np.maximum(np.abs(kept), np.finfo(float).tiny)
                predicted = predicted + weight * self.F[i][:, columns] * phase
            turn = self._within_values(predicted.conj().T @ self.F[node], node)
            self.bases[node] = turn
            self.F[node] = self.F[node] @ turn
            self.degenerate[node] = np.eye(self.width, dtype=bool)
        self.D = self.F

    def follow(self, together: bool) -> tuple[np.ndarray, list[np.ndarray]]:
        """Transport; merge what is not resolved; begin again."""
        joined = np.eye(self.width, dtype=bool) | together
        while True:
            blocks = _components(joined)
            W, mixing = self._transport(blocks)
            if not mixing and len(self.loops):
                pairs = self._inseparable(W) + self._turning(W, blocks)
            else:
                pairs = mixing or self._unresolved(W, blocks)
            pairs = [(a, b) for a, b in pairs if not any(a in block and b in block for block in blocks)]
            if not pairs or self.alone:
                break
            for a, b in pairs:
                joined[a, b] = joined[b, a] = True
        return self._relaxed(W, blocks), blocks

    def _transport(self, blocks: list[np.ndarray]) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Follow the labels along the tree, and return the pairs that turn into each other between two snapshots."""
        K = self.width
        if len(blocks) == K and self.plain is not None:
            return self._transport_plain()
        W = np.zeros((self.count, K, K), self.F.dtype)
        root = self.tree[0, 0] if len(self.tree) else 0
        W[root] = np.eye(K)
        block_of = np.empty(K, int)
        for i, block in enumerate(blocks):
            block_of[block] = i
        same = block_of[:, None] == block_of
        large = [block for block in blocks if len(block) > 1]
        mixing = []
        for (a, b), raw in zip(self.tree, self.overlaps):
            overlap = W[a].conj().T @ raw
            turn = self._within_values(overlap, b)
            overlap = overlap if turn is None else overlap @ turn
            # A block is one goal: its labels share the weight of their span.
            square = np.abs(overlap) ** 2
            share = same @ square if large else square
            columns = _assigned(share)
            overlap = overlap[:, columns]
            kept = np.einsum("kl,kl->k", np.abs(overlap) ** 2, same)
            diagonal = np.diagonal(overlap)
            phase = np.where(np.abs(diagonal) > 0, diagonal.conj() / np.maximum(np.abs(diagonal), 1e-300), 1)
            rotation = np.diag(phase.astype(overlap.dtype))
            for block in large:
                U, _, Vh = np.linalg.svd(overlap[np.ix_(block, block)])
                rotation[np.ix_(block, block)] = (U @ Vh).conj().T
            step = np.eye(K)[:, columns] @ rotation
            W[b] = step if turn is None else turn @ step
            for label in np.flatnonzero(kept < _RESOLVED):
                others = np.where(same[label], 0, np.abs(overlap[label]) ** 2)
                partner = int(others.argmax())
                lost = others[partner] < (1 - kept[label]) / 2
                concerned = (label,) if lost else (label, partner)
                self._enter("cut" if lost else "avoided crossing", concerned, (a, b), self._held(W, [a, b]))
                if not lost:
                    mixing.append((int(label), partner))
        return W, mixing

    def _transport_plain(self) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Follow single labels where every overlap says clearly which column goes on in which."""
        K = self.width
        order, phase = np.empty((self.count, K), int), np.ones((self.count, K), self.F.dtype)
        if len(self.tree):
            order[self.tree[0, 0]] = np.arange(K)
        else:
            order[0] = np.arange(K)
        for (a, b), columns, turns in zip(self.tree.tolist(), self.plain, self.turns):
            order[b] = columns[order[a]]
            phase[b] = phase[a] * turns[order[a]]
        W = np.zeros((self.count, K, K), self.F.dtype)
        np.put_along_axis(W, order[:, None, :], phase[:, None, :], axis=1)
        return W, []

    def _within_values(self, overlap: np.ndarray, node: int) -> np.ndarray | None:
        """Turn the vectors of one and the same value towards the labels."""
        if not (self.degenerate[node].sum() > self.width):
            return None
        turn = np.eye(self.width, dtype=overlap.dtype)
        for cluster in _components(self.degenerate[node]):
            if len(cluster) > 1:
                rows = np.sort(np.argsort(-(np.abs(overlap[:, cluster]) ** 2).sum(axis=1))[: len(cluster)])
                U, _, Vh = np.linalg.svd(overlap[np.ix_(rows, cluster)])
                turn[np.ix_(cluster, cluster)] = (U @ Vh).conj().T
        return turn

    def _turning(self, W: np.ndarray, blocks: list[np.ndarray]) -> list[tuple[int, int]]:
        """Close the loops: a pair of labels for each block that one of them turns too far, or exchanges."""
        overlap = _overlap(self.D @ W, self.F @ W, self.loops)
        held, pairs = self._held(W), []
        for block in blocks:
            rest = np.setdiff1d(np.arange(self.width), block)
            inner = overlap[:, block[:, None], block]
            turns = np.abs(np.angle(np.linalg.eigvals(_polar(inner)))).max(axis=1)
            exchanged = (np.abs(inner) ** 2).sum(axis=2).min(axis=1) < _RESOLVED
            flagged = np.flatnonzero((turns > _LARGEST_TURN) | exchanged)
            if not len(flagged):
                continue
            ends = held[self.loops[flagged]]
            if not len(rest):
                self._enter("loop", block, self.loops[flagged[0]], ends[0], float(turns[flagged[0]]))
                continue
            # The cut across which a vector changes its sign ends at the degeneracy: there the values are closest.
            gaps = np.abs(ends[:, :, block][..., None] - ends[:, :, rest][:, :, None]).min(axis=(1, 2))
            least = gaps.min(axis=1).argmin()
            partner = rest[gaps.min(axis=0).argmin()]
            phase = float(np.where(exchanged, 0, turns)[flagged].max())
            edge = self.loops[flagged[least]]
            place = self._closest(np.abs(held[:, block[0]] - held[:, partner]), edge)
            self._enter("loop", (block[0], partner), edge, ends[least], phase, place)
            pairs.append((int(block[0]), int(partner)))
        return pairs

    def _closest(self, gap: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, float]:
        """Return where two values are closest near an edge, and their gap there.

        The square of the gap is smooth where the two meet in a cone or pass each other: from the end of the edge go
        down to a node with the least gap among its neighbours, and take the least of the quadratic around it.
        """
        edges, node = np.concatenate([self.tree, self.loops]), edge[gap[edge].argmin()]
        while True:
            near = edges[(edges == node).any(axis=1)].ravel()
            lower = near[gap[near].argmin()]
            if gap[lower] >= gap[node]:
                break
            node = lower
        d = self.x.shape[1]
        i, j = np.triu_indices(d)
        offsets = self.x - self.x[node]
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
            return self.x[node], gap[node]
        return (self.x[node] + step * scale).clip(-1, 1), max(fitted[0] + fitted[1 : 1 + d] @ step / 2, 0.0) ** 0.5

    def _unresolved(self, W: np.ndarray, blocks: list[np.ndarray]) -> list[tuple[int, int]]:
        """Pairs of labels on a path that come close and turn into each other too fast for the snapshots."""
        along = np.argsort(self.x[:, 0])
        x, aligned, held = self.x[along, 0], (self.F @ W)[along], self._held(W)[along]
        pairs, rough = [], _roughness(x, aligned)
        usual = np.maximum(_ROUGH, _ROUGHER * np.median(rough, axis=0))
        for i, first in enumerate(blocks):
            for second in blocks[i + 1 :]:
                columns = np.concatenate([first, second])
                for a in first:
                    for b in second:
                        for node in _close(held[:, a] - held[:, b]):
                            apart = rough[node : node + 2, columns].max()
                            if not (rough[node : node + 2, columns] > usual[columns]).any():
                                continue
                            window = slice(max(0, node - _NEIGHBOURS), node + _NEIGHBOURS + 2)
                            frames, middle = aligned[window][:, :, columns], aligned[node][:, columns]
                            frames = frames @ _polar(frames.conj().transpose(0, 2, 1) @ middle)
                            if apart > _ROUGHER * _roughness(x[window], frames).max():
                                self._enter("avoided crossing", (a, b), along[[node]], held[[node]])
                                pairs.append((int(a), int(b)))
        return pairs

    def _inseparable(self, W: np.ndarray) -> list[tuple[int, int]]:
        """Pairs of labels whose values are equal at most nodes: around loops their vectors turn within the span."""
        held = self._held(W)
        equal = (np.abs(held[:, :, None] - held[:, None, :]) <= self.equal).mean(axis=0) > 0.5
        return [(int(a), int(b)) for a, b in zip(*np.nonzero(np.triu(equal, 1)))]

    def _relaxed(self, W: np.ndarray, blocks: list[np.ndarray]) -> np.ndarray:
        """Average over neighbours in several parameters, and turn towards the mean of all frames."""
        if len(self.loops) == 0:
            return W
        edges = np.concatenate([self.tree, self.loops])
        for block in blocks:
            overlap = _overlap(self.D @ W[:, :, block], self.F @ W[:, :, block], edges)
            Z = np.broadcast_to(np.eye(len(block), dtype=overlap.dtype), (self.count, len(block), len(block))).copy()
            for _ in range(_SWEEPS):
                # Each is drawn to what its neighbours are, seen from it, and stays half where it is.
                sums = Z * np.bincount(edges.ravel(), minlength=self.count)[:, None, None]
                np.add.at(sums, edges[:, 1], overlap.conj().transpose(0, 2, 1) @ Z[edges[:, 0]])
                np.add.at(sums, edges[:, 0], overlap @ Z[edges[:, 1]])
                Z = _polar(sums)
            W[:, :, block] = W[:, :, block] @ Z
            frames = self.F @ W[:, :, block]
            seen = frames.conj().transpose(0, 2, 1) @ _polar(frames.mean(axis=0))
            if np.linalg.svd(seen, compute_uv=False).min() > _SEEN:
                W[:, :, block] = W[:, :, block] @ _polar(seen)
        return W

    def labels_of(self, W: np.ndarray) -> np.ndarray:
        """Label of each column at each node: the one that it has the largest part of."""
        return (np.abs(W) ** 2).argmax(axis=2)

    def _held(self, W: np.ndarray, nodes: list[int] | slice = slice(None)) -> np.ndarray:
        """Value of each label at each node (in a block, the diagonal of the matrix in its place)."""
        return np.einsum("nk,nkl->nl", self.values[nodes], np.abs(W[nodes]) ** 2)

    def _enter(
        self,
        kind: str,
        labels: Iterable[int],
        nodes: Iterable[int],
        held: np.ndarray,
        phase: float = 0.0,
        place: tuple[np.ndarray, float] | None = None,
    ) -> None:
        """Enter an event between nodes, at which ``held`` has the value of each label; keep the one of least gap."""
        labels = tuple(sorted({int(label) for label in labels}))
        others = np.array(labels if len(labels) > 1 else range(self.width))
        gaps = np.abs(held[:, labels, None] - held[:, None, others])
        gaps[:, np.equal.outer(labels, others)] = np.inf
        where, gap = place or (self.x[list(nodes)].mean(axis=0), gaps.min())
        gap = float(gap / self.scale) if np.isfinite(gap) else float("nan")  # a single vector
        known = self.found.get((kind, labels))
        if known is None or gap < known.gap:
            self.found[kind, labels] = Event(kind, labels, where.tolist(), gap, phase)

    def events(self, W: np.ndarray, blocks: list[np.ndarray]) -> list[Event]:
        """Return what was found on the way, and the crossings and least gaps of the labels followed alone."""
        if self.alone:
            return list(self.found.values())
        single = [int(block[0]) for block in blocks if len(block) == 1]
        held = self._held(W)
        if self.x.shape[1] == 1:
            along = np.argsort(self.x[:, 0])
            aligned = self.F @ W
            for i, a in enumerate(single):
                for b in single[i + 1 :]:
                    self._meetings(a, b, (held[:, a] - held[:, b])[along], along, aligned)
        else:
            edges = np.concatenate([self.tree, self.loops])
            for i, a in enumerate(single):
                for b in single[i + 1 :]:
                    gap = held[:, a] - held[:, b]
                    apart = (np.abs(gap)[edges] > self.equal).any(axis=1)
                    for s, t in edges[(gap[edges[:, 0]] * gap[edges[:, 1]] < 0) & apart]:
                        self._enter("crossing", (a, b), (s, t), held[[s, t]])
        return list(self.found.values())

    def _meetings(self, a: int, b: int, gap: np.ndarray, along: np.ndarray, aligned: np.ndarray) -> None:
        """Enter the crossings and avoided crossings of two labels on a path."""
        x, size = self.x[along, 0], np.abs(gap)
        for i in _close(gap):
            if i + 1 == len(gap) or gap[i] * gap[i + 1] > 0 or max(size[i], size[i + 1]) <= self.equal:
                continue
            where = x[i] + (x[i + 1] - x[i]) * size[i] / max(size[i] + size[i + 1], np.finfo(float).tiny)
            self.found["crossing", (a, b), i] = Event("crossing", (a, b), [float(where)], 0.0)
        for i in range(1, len(gap) - 1):
            if size[i] <= min(size[i - 1], size[i + 1]) and gap[i - 1] * gap[i] > 0 and gap[i] * gap[i + 1] > 0:
                pairs = [(along[i - 1], along[i]), (along[i], along[i + 1])]
                exchange = max(abs(np.vdot(aligned[s, :, a], aligned[t, :, b])) ** 2 for s, t in pairs)
                if exchange > _MIXING:
                    least = Event("avoided crossing", (a, b), [float(x[i])], float(size[i] / self.scale))
                    self.found["avoided crossing", (a, b), i] = least


def _close(gap: np.ndarray) -> list[int]:
    """Nodes on a path after which a difference changes its sign, or at which its size has an inner minimum."""
    size = np.abs(gap)
    crossing = np.append(np.sign(gap[:-1]) * np.sign(gap[1:]) <= 0, False)
    least = np.zeros(len(gap), bool)
    least[1:-1] = (size[1:-1] <= size[:-2]) & (size[1:-1] <= size[2:])
    return np.flatnonzero(crossing | least).tolist()


def _roughness(x: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Error with which the polynomial through its neighbours on a path predicts each vector, shape (N, K); ends: 0."""
    count, reach = len(x), _NEIGHBOURS
    error = np.zeros((count, frames.shape[2]))
    if count <= 2 * reach:
        return error
    offsets = np.r_[-reach:0, 1 : reach + 1]
    inner = np.arange(reach, count - reach)
    near = x[inner[:, None] + offsets]
    differences = near[:, :, None] - near[:, None, :] + np.eye(2 * reach)
    ratios = (x[inner, None, None] - near[:, None, :] + 0 * differences) / differences
    weights = np.where(np.eye(2 * reach, dtype=bool), 1, ratios).prod(axis=2)  # Lagrange's
    rest = frames[inner].astype(frames.dtype)
    for i, offset in enumerate(offsets):
        rest -= weights[:, i, None, None] * frames[inner + offset]
    error[inner] = np.linalg.norm(rest, axis=1)
    return error


def _edges(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges of a spanning tree of the points, from parent to child in an order to follow, and the other edges."""
    count, d = x.shape
    if d == 1 or count == 1:
        along = np.argsort(x[:, 0])
        return np.stack([along[:-1], along[1:]], axis=1), np.empty((0, 2), int)
    distances, near = cKDTree(x).query(x, k=min(count, 2 * d + 2))
    rows = np.repeat(np.arange(count), near.shape[1])
    graph = csr_array((distances.ravel() + 1e-12, (rows, near.ravel())), (count, count))
    graph = graph.maximum(graph.T)
    if connected_components(graph, directed=False)[0] > 1:  # clusters of points: all pairs are few enough to try
        full = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(x)) + 1e-12
        graph = graph.maximum(minimum_spanning_tree(full))
        graph = graph.maximum(graph.T)
    tree = minimum_spanning_tree(graph)
    centre = int(np.abs(x).max(axis=1).argmin())
    order, parents = breadth_first_order(tree, centre, directed=False)
    edges = np.stack([parents[order[1:]], order[1:]], axis=1)
    inside = {frozenset(edge) for edge in edges.tolist()}
    pairs = np.stack(graph.nonzero(), axis=1)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    return edges, np.array([pair for pair in pairs.tolist() if frozenset(pair) not in inside], int).reshape(-1, 2)


def _overlap(F: np.ndarray, G: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return F[edges[:, 0]].conj().transpose(0, 2, 1) @ G[edges[:, 1]]


def _polar(A: np.ndarray) -> np.ndarray:
    """Return the polar factors of a batch, unitary or with orthonormal columns."""
    U, _, Vh = np.linalg.svd(A, full_matrices=False)
    return U @ Vh


def _assigned(square: np.ndarray) -> np.ndarray:
    """Column of each row, distinct, with the largest sum."""
    best = square.argmax(axis=1)
    if len(set(best.tolist())) == len(best):
        return best
    return linear_sum_assignment(square, maximize=True)[1]


def _components(related: np.ndarray) -> list[np.ndarray]:
    """Sets of indices that a symmetric relation connects, in the order of their first."""
    count, names = connected_components(related, directed=False)
    return [np.flatnonzero(names == i) for i in dict.fromkeys(names.tolist())][:count]
