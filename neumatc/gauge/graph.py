"""The graph of the snapshots: the path or tree along which frames are followed, and the edges that close its loops."""

from __future__ import annotations

from contextlib import suppress
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array, triu
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import Delaunay, QhullError, cKDTree
from scipy.spatial.distance import pdist, squareform

# A prediction is the polynomial through so many neighbours on either side.
NEIGHBOURS = 3
# Nodes closer to one another than this part of the distance to be predicted over say the same: one of them is taken.
# Weights stay below about a hundred then, and nodes in a regular order are all taken.
_THIN = 1 / 8
# Up to so many parameters the triangulation is cheap.
_TRIANGULATED = 3


class Graph(NamedTuple):
    """Nodes x (N, d), the edges of a spanning tree from parent to child, parents first, and the other edges.

    In one parameter the tree is the path; where that is ``closed``, with period 2, one more edge leads back.
    """

    x: np.ndarray
    tree: np.ndarray
    loops: np.ndarray
    closed: bool

    @property
    def edges(self) -> np.ndarray:
        return np.concatenate([self.tree, self.loops])

    @property
    def root(self) -> int:
        return int(self.tree[0, 0]) if len(self.tree) else 0

    def unrolled(self, turning: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions along the path, the nodes there and the edges between; of a turn, with what is before and after."""
        nodes = np.append(self.root, self.tree[:, 1])
        x, edges = self.x[nodes, 0], np.arange(len(nodes) - 1)
        if not turning:
            return x, nodes, edges
        some = np.arange(-2 * NEIGHBOURS, len(x) + 2 * NEIGHBOURS)
        turns, places = np.divmod(some, len(x))
        return x[places] + 2 * turns, nodes[places], places[:-1]


def connected(x: np.ndarray, closed: bool) -> Graph:
    """Connect points (N, d): sorted along a path for d = 1, else neighbours (Gabriel's) with their least tree."""
    count, d = x.shape
    if d == 1 or count == 1:
        along = np.argsort(x[:, 0])
        loops = along[[-1, 0]][None] if closed else np.empty((0, 2), int)
        return Graph(x, np.stack([along[:-1], along[1:]], axis=1), loops, closed)
    a, b = _neighbours(x).T
    graph = csr_array((np.linalg.norm(x[a] - x[b], axis=1) + 1e-12, (a, b)), (count, count))
    if connected_components(graph, directed=False)[0] > 1:  # clusters of points: all pairs are few enough to try
        between = minimum_spanning_tree(squareform(pdist(x)) + 1e-12)
        graph = graph.maximum(triu(between.maximum(between.T), format="csr"))
    tree = minimum_spanning_tree(graph)
    order, parents = breadth_first_order(tree, int(np.abs(x).max(axis=1).argmin()), directed=False)
    edges = np.stack([parents[order[1:]], order[1:]], axis=1)
    return Graph(x, edges, np.stack((graph - tree).nonzero(), axis=1), False)


def _neighbours(x: np.ndarray) -> np.ndarray:
    """Pairs (M, 2), ascending, with no third point in the ball that has them as poles, however unequal the spacings.

    They are edges of Delaunay's triangulation (Gabriel and Sokal, Syst. Zool. 18, 1969). In many parameters, where that
    is dear, or of points that it cannot do, only those nearest are looked at.
    """
    count, d = x.shape
    near = cKDTree(x).query(x, k=min(count, 2 * d + 2))[1]
    pairs = np.stack([np.repeat(np.arange(count), near.shape[1]), near.ravel()], axis=1)
    if d <= _TRIANGULATED:
        with suppress(QhullError):
            # Joggled, since regular grids, with many points on one sphere, take several times as long.
            simplices = Delaunay(x, qhull_options="QJ").simplices
            pairs = simplices[:, list(combinations(range(d + 1), 2))].reshape(-1, 2)
    pairs = np.sort(pairs, axis=1)
    pairs = np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)
    ends = x[pairs]
    radii = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1) / 2
    third = cKDTree(x).query(ends.mean(axis=1), k=[3])[0][:, 0]  # after the two poles
    return pairs[third > radii * (1 + 1e-9)]


def lagrange(x: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Weights (N, k) of the polynomial through the nodes ``near`` (N, k), at x (N,)."""
    own = np.eye(near.shape[1], dtype=bool)
    differences = np.where(own, 1, near[:, :, None] - near[:, None, :])
    return np.where(own, 1, (x[:, None] - near)[:, None, :] / differences).prod(axis=2)


def spaced(x: np.ndarray, at: float, count: int) -> np.ndarray:
    """Indices of the nodes nearest to a place, without those that say the same as nearer ones."""
    distance, chosen = np.abs(x - at), []
    for i in distance.argsort():
        if len(chosen) < count and all(abs(x[i] - x[k]) >= _THIN * distance[i] for k in chosen):
            chosen.append(i)
    return np.array(chosen)


def predictions(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours (N, 6) of each of the ascending nodes, and the weights with which they predict what is there.

    Of unequal distances to either side the larger sets the scale at which a node is predicted, so that what happens
    between two nodes far apart is seen by at least one of them, also beside a cluster. The outermost nodes, which have
    too few neighbours on one side, are predicted from themselves.
    """
    rows = np.arange(len(x))
    gaps = np.diff(x, prepend=x[0], append=x[-1])
    step = _THIN * np.maximum(gaps[:-1], gaps[1:])
    near = [rows]
    for _ in range(NEIGHBOURS):
        low, high = near[0], near[-1]
        left = np.minimum(np.searchsorted(x, x[low] - step, "right"), low) - 1
        right = np.maximum(np.searchsorted(x, x[high] + step), high + 1)
        near = [left.clip(min=0), *near, right.clip(max=rows[-1])]
    near = np.stack(near, axis=1)
    outer = (np.diff(x[near], axis=1) <= 0).any(axis=1)  # at the ends the same node comes twice
    near = np.delete(near, NEIGHBOURS, axis=1)
    near[outer] = rows[outer, None]
    weights = np.tile(np.eye(2 * NEIGHBOURS)[0], (len(rows), 1))
    weights[~outer] = lagrange(x[~outer], x[near[~outer]])
    return near, weights


def components(related: np.ndarray) -> list[np.ndarray]:
    """Sets of indices that a relation connects, symmetric and reflexive, in the order of their first."""
    while ((wider := related @ related) != related).any():
        related = wider
    first = related.argmax(axis=1)
    return [np.flatnonzero(first == i) for i in np.unique(first)]
