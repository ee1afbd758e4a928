"""The gauge: turn frames of vectors, which LAPACK returns in any phase and order, into continuous functions of p."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neumatc import checks
from neumatc.gauge import events, graph, transport
from neumatc.linalg import wide
from neumatc.report import Event

__all__ = ["Alignment", "align", "guide"]

# Vectors inside blocks are looked at so often that each keeps this part of its squared length (18 degrees) from place
# to place, unless the places are closer than this: two values that come so close are taken to cross.
_KEPT, _NARROW = 0.9, 1e-9
# But in no more numbers than these, 128 MiB, and of blocks of more vectors than the second in as many multiplications
# as they take then, which is seconds: less is seen there.
_MOST, _MANY = 2**24, 32
# Of those places so many are kept that vectors turn by about this (radians) between them.
_STEP = 0.3


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

    def values(self, given: Tensor) -> Tensor:
        """Return the labels' values (N, J), from those of the frames (N, K), or the matrices (N, J, J) in their place.

        Where some labels are a block, the matrices are W^H diag(values) W inside the blocks, and zero outside.
        """
        W = self.rotations
        if self.separate:
            parts = W.abs().square()
            return torch.einsum("nk,nkj->nj", given, (parts / parts.sum(dim=1, keepdim=True)).to(given.dtype))
        inside = torch.block_diag(*(torch.ones(len(block), len(block)) for block in self.blocks)).to(W)
        return W.mH @ (given[:, :, None].to(W.dtype) * W) * inside


@checks.explained
def align(
    frames: Tensor,
    values: Tensor,
    x: Tensor,
    wanted: Tensor | None = None,
    *,
    together: bool = False,
    duals: Tensor | None = None,
    periodic: bool = False,
    anchors: np.ndarray | None = None,
) -> Alignment:
    r"""Align orthonormal frames F_i at parameters x_i: find unitary W_i such that F_i W_i is continuous.

    Along a path (one parameter), or a minimum spanning tree of the parameters (several), each frame is matched with the
    one before: the order by the assignment of largest overlaps :math:`|f_k^H f_l|^2`, the phase such that
    :math:`f_k^H f_k` is positive, which is parallel transport. Vectors of equal values are turned within their span,
    and vectors that turn into each other between two snapshots are followed together, as a block, by orthogonal
    Procrustes (the polar factor of the overlap). In several parameters the loops which the tree leaves open are closed
    by every other edge between neighbours, two parameters with no third one in the ball between (Gabriel's graph).
    Where the transport around one turns a vector by more than 90 degrees it
    joins a block with the vector of the nearest value: a real one has changed its sign around a degeneracy (Herzberg
    and Longuet-Higgins, Discuss. Faraday Soc. 35, 1963), and no continuous real vector exists; a complex one has met
    much curvature, as there is near a degeneracy (Berry, Proc. R. Soc. A 392, 1984), and the gap of the event says
    whether the values meet. The event's place is where the squared difference of the two values, which is smooth where
    no third one is near, is least, by a quadratic through the nodes around. Into blocks also go
    vectors whose values are equal at most parameters. At last all frames F_i are turned towards the mean M of all, such
    that F_i^H M is Hermitian and positive: that makes them as smooth as their projectors. Where some frame has
    little in common with the mean, all stay as they are.

    Args:
        frames: Orthonormal columns, shape (N, L, K), real or complex.
        values: The value of each column, shape (N, K), real.
        x: Parameters in the cube [-1, 1]^d, shape (N, d), float64.
        wanted: Mask (N, K): columns that the caller needs at this parameter, by default all. Labels that are never
            wanted, nor in a block with one that is, are dropped.
        together: Follow all columns as one block.
        duals: For columns that are not orthonormal: D_i with D_i^H F_i = I, which takes the place of F_i in overlaps.
            Then there are no blocks, and no crossings are looked for.
        periodic: Whether the one parameter goes around, -1 and 1 being the same. Where a label returns to itself, the
            phase that a turn gives it (Berry's) is spread evenly over the turn, in proportion to x; of a block the
            unitary matrix, by its logarithm. Labels that are exchanged become a block, and so do two real ones that
            change their signs. Where that does not help (a single real vector changes its sign, or one leaves what is
            followed) a cut stays at the seam, and an event ``"loop"`` at 1 says so.
        anchors: Coordinates of one parameter, such as the faces of pieces. The transport is exact in the limit only:
            its phases depend on where the snapshots are. So between two snapshots at anchors, frames are turned towards
            the straight line between the frames there, which makes them as smooth as their projectors, and keeps those
            at the anchors.

    Returns:
        The alignment, on the device and in the dtype of the frames.

    Raises:
        ValueError: If ``periodic`` is set for several parameters.
    """
    if periodic and x.shape[1] > 1:
        raise ValueError(f"`periodic`: expected False for {x.shape[1]} parameters, got True; one axis closes a path.")
    points = x.double().cpu().numpy()
    F, D, given = (None if x is None else wide(x).resolve_conj().cpu().numpy() for x in (frames, duals, values))
    given = transport.Frames.of(F, F if D is None else D, given, torch.finfo(values.dtype).eps)
    separated, bases = transport.separated(given, points)
    followed, met = _followed(separated, graph.connected(points, periodic), together)
    along = anchors is not None and duals is None
    W = transport.anchored(followed, anchors) if along else transport.relaxed(followed)
    labels = np.abs(W).argmax(axis=2)  # a column has the label that it has the largest part of
    used = np.bincount((labels if wanted is None else labels[wanted.cpu().numpy()]).ravel(), minlength=F.shape[2])
    blocks = [block for block in followed.blocks if used[block].any()]
    order = np.concatenate(blocks)
    renamed = {int(old): new for new, old in enumerate(order)}
    W = torch.from_numpy(np.ascontiguousarray((bases @ W)[:, :, order]))
    return Alignment(
        W.to(frames.device, frames.dtype),
        tuple(tuple(renamed[int(label)] for label in block) for block in blocks),
        tuple(event for event in met if any(label in renamed for label in event.labels)),
    )


def _followed(frames: transport.Frames, lattice: graph.Graph, together: bool) -> tuple[transport.Followed, list[Event]]:
    """Transport; merge what is not resolved; begin again, until every loop closes."""
    a, b = lattice.edges.T
    raw = transport.adjoint(frames.D)[a] @ frames.F[b]
    joined = np.eye(frames.F.shape[2], dtype=bool) | together
    met: list[Event] = []
    while True:
        followed = transport.follow(frames, lattice, raw, graph.components(joined))
        pairs, more = events.obstacles(followed)
        met += more
        if frames.alone or not pairs:
            return followed, events.least(met) + events.crossings(followed)
        for a, b in pairs:
            joined[a, b] = joined[b, a] = True


def guide(
    sample: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    choose: Callable[[np.ndarray], np.ndarray],
    eps: float,
    *,
    followed: bool = False,
    periodic: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Follow the eigenvectors of Hermitian matrices M(x) along a path: what they are turned towards between its nodes.

    A vector that is found anew at every x has any phase. Here phases are those of parallel transport along the whole
    path, through avoided crossings of any width, which are looked at as closely as needed.

    Args:
        sample: From coordinates (N,) to M, shape (N, J, J).
        x: Coordinates to begin with, from -1 to 1, close enough for M to be about linear between them.
        choose: From values (N, J) to the numbers (N, k) of those wanted, in order.
        eps: Rounding unit of M.
        followed: Keep the labels that are wanted at the first x, through crossings; else their order anywhere.
        periodic: Spread the phase that a turn gives a complex vector over the turn.

    Returns:
        Coordinates (P,), and vectors (P, J, k) there.
    """

    def solved(x: np.ndarray) -> tuple[np.ndarray, ...]:
        return x, *np.linalg.eigh(sample(x))

    size = sample(x[:1]).size
    most = _MOST // (size * max(1, size**0.5 / _MANY))
    found = solved(np.append(x[: -1 : 1 + int(len(x) // most)], x[-1]))
    while True:
        x, values, V = found
        frames, raw = transport.Frames.of(V, V, values, eps), transport.adjoint(V[:-1]) @ V[1:]
        kept = (np.abs(raw) ** 2 * frames.met[1:]).sum(axis=2).min(axis=1)
        coarse = (kept < _KEPT) & (np.diff(x) > _NARROW)
        if not coarse.any() or len(x) > most:
            break
        more = solved((x[:-1] + x[1:])[coarse] / 2)
        order = np.concatenate([x, more[0]]).argsort()
        found = [np.concatenate(pair)[order] for pair in zip(found, more)]
    single = list(np.arange(V.shape[2])[:, None])
    path = transport.follow(frames, graph.connected(x[:, None], False), raw, single)
    V, held = path.vectors, path.held + frames.equal * np.arange(V.shape[2])  # equal values stay in order
    if periodic:
        V = transport.spread(V, transport.adjoint(V[-1]) @ V[0], x, single)
    columns = choose(held[:1] if followed else held)
    V = np.take_along_axis(V, np.broadcast_to(columns[:, None], (*V.shape[:2], columns.shape[1])), axis=2)
    turned = np.linalg.norm(np.diff(V, axis=0), axis=1).max(axis=1).cumsum() // _STEP
    ends = np.diff(turned, prepend=0) != 0
    kept = np.r_[True, ends] | np.r_[ends, True]
    return x[kept], V[kept]
