r"""Embeddings of local support and with poles: polynomials in pieces of the box, and the barycentric rational form.

Both are evaluated by products of differences to the nodes, :math:`\prod_{i \ne j} (x - x_i)`, which need no division:
they are exact at the nodes and smooth in x everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from neumatc import checks, nodes, threads
from neumatc.box import Box
from neumatc.embeddings import Embedding, Piece

# Chunks into which a batched product divides a batch, for each piece of the box: a fourth of its rows at most fills up
# chunks that are short.
_CHUNKS = 4
# Numbers that one batched product holds at least, its tables and its result.
_HELD = 2**20
# Tables that a part of a piece multiplies by the functions of the last axis: too few, and threads wait for Python.
_TABLES = 16
# Numbers of a result, for each piece, from which on a product of its own takes longer than its launch on CUDA. Where x
# comes in the order of the pieces it writes its result where that belongs; batched ones are moved there.
_OWN = 2**20


class _Nodal(Embedding):
    """Functions that belong to nodes, one at their own and zero at the others, or at those that came before."""

    precise = True
    trainable = ()

    def count(self, dimension: int) -> int:
        raise ValueError(
            f"`embedding`: expected features that can be fitted to snapshots, got nm.{type(self).__name__}, which "
            "nm.fit(problem, tol=...) makes; take nm.Chebyshev."
        )

    def features(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        return self(x, weights)


@dataclass(frozen=True)
class PiecewisePolynomials(_Nodal):
    r"""Lagrange's polynomials of the pieces of the box: a Phi of local support.

    On a piece with the nodes :math:`x_{i,1}, \dots, x_{i,n_i}` of each axis i, the functions that are not zero are

    .. math:: \Phi_{j_1 \dots j_d}(x) = \prod_{i=1}^d \ell_{i, j_i}(x_i), \qquad
              \ell_{i, j}(x) = \prod_{k \ne j} \frac{x - x_{i,k}}{x_{i,j} - x_{i,k}},

    so the rows of the latent tensor are the exact solutions at the nodes of the pieces, and :math:`n_1 \cdots n_d` of
    them are summed for a value. Neighbours share nodes on their common faces: in one parameter X is continuous. In
    several it is so where both have the same nodes on the whole face. Else, as where only one of them was cut, they
    take different polynomials there, and X is continuous up to the tolerance of the fit only.

    Here x stands for the position t in the piece, in [-1, 1], or where X oscillates for :math:`\sin(b t) / \sin b`:
    polynomials in it have nearly equidistant nodes, of which they need fewer per oscillation (after Kosloff and
    Tal-Ezer, J. Comput. Phys. 104, 1993).

    Args:
        depth: Levels of the tree of cuts by which a piece is found, in several parameters.
    """

    depth: int = 0

    def locate(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Return the number of the piece in which each x (B, d) lies, shape (B,); outside the cube, of the nearest."""
        x = x.detach()
        if x.shape[1] == 1:
            low, at = weights["low"][1:, 0], x[:, 0].contiguous()
            return (x >= low).sum(dim=1) if checks.followed(x) else torch.searchsorted(low, at, right=True)
        at = torch.full_like(x[:, 0], 0 if self.depth else -1, dtype=torch.long)
        for _ in range(self.depth):
            inner = at.clamp_min(0)
            axis, cut = weights["axis"][inner], weights["cut"][inner]
            right = (x.gather(1, axis[:, None])[:, 0] >= cut).long()
            at = torch.where(at < 0, at, weights["children"][inner].gather(1, right[:, None])[:, 0])
        return -1 - at

    def basis(self, x: Tensor, weights: dict[str, Tensor], piece: Tensor) -> list[Tensor]:
        """Return the functions of each axis at x (B, d) in the pieces given, each of shape (B, most nodes)."""
        own = {name: weights[name][piece] for name in ("low", "high", "bend", "nodes", "bary")}
        return [self.along(i, x[:, i : i + 1], own) for i in range(x.shape[1])]

    def along(self, i: int, x: Tensor, own: dict[str, Tensor]) -> Tensor:
        """Return the functions of axis i at x (B, 1), shape (B, most nodes), from the weights of its piece, or of each
        one's.
        """
        low, high, bend = (own[name][:, i : i + 1] for name in ("low", "high", "bend"))
        t, bary = nodes.bent(((x - low) - (high - x)) / (high - low), bend), own["bary"][:, i]
        return bary * _others(torch.where(bary == 0, 1.0, t - own["nodes"][:, i]))

    def __call__(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Evaluate Phi at x (B, d), shape (B, r): mostly zeros."""
        piece = self.locate(x, weights)
        phi, rows = reduce(_outer, self.basis(x, weights, piece)), _rows(weights, piece)
        total = int((weights["first"] + weights["counts"].prod(dim=1)).max())
        return x.new_zeros(len(x), total, dtype=phi.dtype).scatter_add(1, rows, phi)

    def contract(self, x: Tensor, weights: dict[str, Tensor], columns: Tensor, out: Tensor | None = None) -> Tensor:
        """Return Phi(x) @ columns: gathered where x is followed, batched on CUDA, else piece by piece."""
        piece, pieces, size = self.locate(x, weights), len(weights["low"]), len(x) * columns.shape[1]
        # Of a chain, which has a piece between every two rows, a product for each would take longer.
        chain = len(columns) == pieces + 1 > 2 and size < _HELD
        if checks.followed(x) or (chain and out is None and not x.is_cuda):
            return self.gathered(x, piece, weights, columns)
        out = columns.new_empty(len(x), columns.shape[1]) if out is None else out
        if x.is_cuda and size < _OWN * pieces:
            return self.batched(x, piece, weights, columns, out)
        if pieces < 2 or bool((piece[1:] >= piece[:-1]).all()):
            return self.summed(x, piece, weights, columns, out)
        if x.is_cuda:
            return self.batched(x, piece, weights, columns, out)
        piece, order = piece.sort(stable=True)
        if out.numel() <= threads.CACHED:
            return out.index_copy_(0, order, self.summed(x[order], piece, weights, columns))
        return self.summed(x[order], piece, weights, columns, out, order)

    def gathered(self, x: Tensor, piece: Tensor, weights: dict[str, Tensor], columns: Tensor) -> Tensor:
        """Return Phi(x) @ columns for x (B, d) in any pieces: each x gathers the rows that it sums."""
        phi = reduce(_outer, self.basis(x, weights, piece))
        return torch.einsum("bk,bkm->bm", phi.to(columns.dtype), columns[_rows(weights, piece)])

    def batched(self, x: Tensor, piece: Tensor, weights: dict[str, Tensor], columns: Tensor, out: Tensor) -> Tensor:
        """Return Phi(x) @ columns in ``out``, for x (B, d) in any pieces, by few products of chunks of equal size.

        A device is waited for once, whatever the number of pieces, of one parameter never. A product holds no more
        numbers than the result, or 8 MiB: small batches and uneven ones take several.
        """
        most = [weights["nodes"].shape[2]] if x.shape[1] == 1 else weights["counts"].amax(dim=0).tolist()
        piece, order = piece.sort(stable=True)
        chunks = _chunks(piece, len(weights["low"]))
        size = chunks.shape[1]
        for rows in chunks.split(max(1, max(len(x), _HELD // columns.shape[1]) // (math.prod(most) + size))):
            which, at = piece[rows[:, 0]], order[rows].flatten()
            own = self.basis(x[at], weights, which.repeat_interleave(size))
            phi = reduce(_outer, [f[:, :n] for f, n in zip(own, most)]).to(columns.dtype)
            value = threads.product(phi.view(len(rows), size, -1), columns[_rows(weights, which, most)])
            out.index_copy_(0, at, value.flatten(0, 1))
        return out

    def summed(
        self,
        x: Tensor,
        piece: Tensor,
        weights: dict[str, Tensor],
        columns: Tensor,
        out: Tensor | None = None,
        order: Tensor | None = None,
    ) -> Tensor:
        """Return Phi(x) @ columns for x (B, d) in pieces of rising numbers, one product for each piece.

        With ``order`` its rows go to those places.

        Axes that are constant in the batch are contracted first, unless that takes more memory than it saves.
        """
        out = columns.new_empty(len(x), columns.shape[1]) if out is None else out
        phi = [own.to(columns.dtype) for own in self.basis(x, weights, piece)]
        which, lengths = torch.unique_consecutive(piece, return_counts=True)
        first, counts, jobs, start = weights["first"][which], weights["counts"][which], [], 0
        if x.is_cuda:  # in one piece, as it is waited for
            found = torch.cat([lengths[:, None], first[:, None], counts], dim=1).cpu()
            lengths, first, counts = found[:, 0], found[:, 1], found[:, 2:]
        same = (x == x[:1]).all(dim=0).tolist() if len(phi) > 1 else [False]
        for row, count, length in zip(first.tolist(), counts.tolist(), lengths.tolist()):
            part = slice(start, start := start + length)
            table, local = columns[row : row + math.prod(count)], [own[part, :n] for own, n in zip(phi, count)]
            fixed = [] if all(same) else [i for i, n in enumerate(count) if same[i] and table.shape[1] < n * length]
            if fixed:
                table = reduce(lambda done, i: _contracted(local[i][:1], done, i), fixed, table.view(*count, -1))
                table, local = table.flatten(0, -2), [own for i, own in enumerate(local) if i not in fixed]
            own = (out[part], None) if order is None else (out, order[part])
            jobs.append((reduce(_outer, local), table, *own))
        threads.products(jobs)
        return out

    def grid(
        self, axes: list[Tensor], weights: dict[str, Tensor], columns: Tensor, out: Tensor | None = None
    ) -> Tensor:
        r"""Return Phi @ columns at all points of a tensor grid, the last axis fastest, shape (B_1 ... B_d, M).

        In each piece the axes are contracted one after the other. One of n nodes turns n numbers into b, at its b
        points there. Of two neighbours in this order, i before j takes :math:`b_i n_j (n_i + b_j)` multiply-adds times
        what they share, j before i :math:`b_j n_i (n_j + b_i)`; so 1 / n - 1 / b rises in the cheapest order.

        Args:
            axes: Coordinates in the cube, shape (B_i, 1) each.
            weights: The weights of Phi.
            columns: The latent tensor as real rows, shape (r, M).
            out: Memory for the result. Axes that do not rise take as much again beside it.
        """
        out = columns.new_empty(math.prod(map(len, axes)), columns.shape[1]) if out is None else out
        whole = out.view(*map(len, axes), -1)
        if torch.stack([(x[1:] < x[:-1]).any() for x in axes]).any():
            rising, places = zip(*(x[:, 0].sort() for x in axes))
            value = self.grid([x[:, None] for x in rising], weights, columns)
            whole[torch.meshgrid(*places, indexing="ij")] = value.view_as(whole)
            return out
        pieces, most, d = [], threads.CACHED // columns.shape[1], len(axes)
        for k, (row, *rest) in enumerate(_spans(axes, weights)):
            counts, at = rest[:d], [slice(*ends) for ends in zip(rest[d::2], rest[d + 1 :: 2])]
            if any(part.stop <= part.start for part in at):
                continue
            own = {name: weight[k : k + 1] for name, weight in weights.items()}
            phi = [self.along(i, axes[i][x], own)[:, :n].to(columns.dtype) for i, (x, n) in enumerate(zip(at, counts))]
            table = columns[row : row + math.prod(counts)].view(*counts, -1)
            order = sorted(range(d), key=lambda i: 1 / counts[i] - 1 / len(phi[i]))
            pieces.append(_Patch(phi, table, whole[tuple(at)], order))
        threads.run(_Patch.begin, pieces, out.numel())
        threads.run(_Patch.end, [part for piece in pieces for part in piece.parts(most)], out.numel())
        return out

    def still(self, axis: int, weights: dict[str, Tensor]) -> bool:
        """Whether no value depends on an axis."""
        counts, low, high = (weights[name][:, axis] for name in ("counts", "low", "high"))
        return bool(((counts == 1) & (low == -1) & (high == 1)).all())

    def suits(self, dimension: int, rank: int, weights: dict[str, Tensor]) -> bool:
        counts, first, axis, children = (weights[name] for name in ("counts", "first", "axis", "children"))
        pieces, most, inner = len(first), weights["nodes"].shape[-1], len(axis)
        sizes = [weights[name].shape == (pieces, dimension) for name in ("low", "high", "bend", "counts")]
        sizes += [weights[name].shape == (pieces, dimension, most) for name in ("nodes", "bary")]
        if not all(sizes) or first.ndim != 1 or axis.ndim != 1 or self.depth > inner:
            return False
        ends = first + counts.double().prod(dim=1)
        # Of each: least, most, and the numbers.
        limits = [(1, most, counts), (0, rank, first), (1, rank, ends), (0, dimension - 1, axis)]
        limits += [(-pieces, inner - 1, children)]
        return all(bool(((x >= low) & (x <= high)).all()) for low, high, x in limits)

    def terms(self, rank: int, weights: dict[str, Tensor]) -> int:
        return int(weights["counts"].prod(dim=1).max())

    def parts(self, weights: dict[str, Tensor]) -> int:
        return len(weights["first"])

    def pieces(self, box: Box, weights: dict[str, Tensor], rank: int) -> list[Piece]:
        return _listed(box.here, {name: weight.cpu() for name, weight in weights.items()})

    def working_numbers(self, dimension: int, rank: int) -> int:
        return 8 * rank + 20 * dimension


@dataclass
class _Patch:
    """What a piece contributes to a grid: a table (n_1, ..., n_d, M), whose axes are contracted into out.

    Attributes:
        phi: The functions of each axis, shape (b_i, n_i).
        table: The rows of the latent tensor, with the axes contracted that are done.
        out: Where the result goes, shape (b_1, ..., b_d, M).
        order: The axes that are left to contract, the cheapest first.
    """

    phi: list[Tensor]
    table: Tensor
    out: Tensor
    order: list[int]

    def _contract(self, i: int, out: Tensor | None = None) -> None:
        sizes = self.table.shape
        value = self.table.new_empty(*sizes[:i], len(self.phi[i]), *sizes[i + 1 :]) if out is None else out
        threads.multiply(self.phi[i], self.table.flatten(i + 1), value.flatten(i + 1))
        self.table = value

    def begin(self) -> None:
        """Contract the axes that come before the last one, which `parts` divides."""
        while len(self.order) > 1 and self.order[0] < len(self.phi) - 1:
            self._contract(self.order.pop(0))

    def parts(self, most: int) -> list[_Patch]:
        """Divide the last axis, so that tables of parts hold at most so many rows: they stay in the cache.

        Where it is all that is left, its rows meet one small table after the other, and only these need to stay.
        """
        last, leading, count = len(self.order) == 1, self.table.shape[:-2], len(self.phi[-1])
        size = -(-count // -(-count // ((most if last else most // math.prod(leading)) or 1)))
        some = max(1, _TABLES // math.prod(leading[1:])) if last else max(len(self.table), len(self.out))
        return [
            _Patch([*self.phi[:-1], own], table, out, self.order)
            for own, rows in zip(self.phi[-1].split(size), self.out.split(size, dim=-2))
            for table, out in zip(self.table.split(some), rows.split(some))
        ]

    def end(self) -> None:
        """Contract what is left, at last into ``out``."""
        *order, last = self.order
        for i in order:
            self._contract(i)
        if self.table.shape[last] == 2 and not self.out.is_cuda:
            # Both functions add up to one; a product of two terms takes twice as long.
            ends = self.table.unbind(last)
            for weight, out in zip(self.phi[last][:, 1].tolist(), self.out.unbind(last)):
                torch.lerp(*ends, weight, out=out)
            return
        flat = self.out[(0,) * (last + 1)].is_contiguous()
        self._contract(last, self.out if flat else torch.empty_like(self.out, memory_format=torch.contiguous_format))
        if not flat:
            self.out.copy_(self.table)


@dataclass(frozen=True)
class Rational(_Nodal):
    r"""Rational functions of one parameter in barycentric form, with common support points x_j and weights w_j:

    .. math:: \Phi_j(x) = \frac{w_j}{x - x_j} \Big/ \sum_k \frac{w_k}{x - x_k} ,

    one at their own support point and zero at the others, so the rows of the latent tensor are exact solutions. With
    complex weights, which poles on one side of the real axis ask for, Phi holds real and imaginary parts, and the
    latent tensor each solution twice, once times i. Differentiable and finite everywhere but at a pole.

    Args:
        complex: Whether the weights are complex.
    """

    complex: bool = False

    def __call__(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Evaluate Phi at x (B, 1): shape (B, m), or (B, 2 m) for complex weights."""
        products = _others(x - weights["nodes"])
        real = products * weights["w"][0]
        if not self.complex:
            return real / real.sum(dim=1, keepdim=True)
        imaginary = products * weights["w"][1]
        a, b = real.sum(dim=1, keepdim=True), imaginary.sum(dim=1, keepdim=True)
        size = a.square() + b.square()
        return torch.cat([(real * a + imaginary * b) / size, (imaginary * a - real * b) / size], dim=1)

    def working_numbers(self, dimension: int, rank: int) -> int:
        return 8 * rank


@dataclass(frozen=True)
class SparsePolynomials(_Nodal):
    r"""Hierarchical polynomials over a sparse set of multi-indices, for several parameters.

    With a sequence of nodes :math:`t_0, t_1, \dots` on each axis the functions are

    .. math:: \Phi_\nu(x) = \prod_{i=1}^d h_{\nu_i}(x_i), \qquad
              h_k(x) = \prod_{j < k} \frac{x - t_j}{t_k - t_j} .

    Each is one at its node :math:`(t_{\nu_1}, \dots, t_{\nu_d})` and zero at the nodes of all but the larger indices.
    Rows of the latent tensor are surpluses: the exact solution at a node less what the functions before make of it
    (Chkifa, Cohen and Schwab, Found. Comput. Math. 14, 2014).
    """

    def __call__(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Evaluate Phi at x (B, d), shape (B, r)."""
        phi, ones = None, torch.ones_like(x.T[:1])
        for xi, axis, scale, own in zip(x.T, weights["nodes"], weights["scale"], weights["indices"].T):
            h = torch.cat([ones, (xi - axis[:-1, None]).cumprod(dim=0)]) * scale[:, None]
            phi = h[own] if phi is None else phi.mul_(h[own])
        return phi.T

    def working_numbers(self, dimension: int, rank: int) -> int:
        return 6 * rank


def _listed(box: Box, weights: dict[str, Tensor]) -> list[Piece]:
    """Return the pieces of a box, all on the CPU."""
    low, high = (box.parameters(weights[name]).tolist() for name in ("low", "high"))
    a, b, bend = (weights[name][..., None] for name in ("low", "high", "bend"))
    at, found = torch.lerp(a, b, (1 + nodes.straight(weights["nodes"], bend)) / 2), []
    p = box.parameters(at.mT.flatten(0, 1)).view_as(at.mT).mT.tolist()
    for k, counts in enumerate(weights["counts"].tolist()):
        found.append(Piece(low[k], high[k], [axis[:n] for axis, n in zip(p[k], counts)], math.prod(counts)))
    return found


def _spans(axes: list[Tensor], weights: dict[str, Tensor]) -> list[list[int]]:
    """Return of each piece its first row, its functions per axis, and per axis the first and last of its rising points.

    They are asked for in one piece, as a device is waited for.
    """
    found = [weights["first"][:, None], weights["counts"]]
    for x, low, high in zip(axes, weights["low"].mT.contiguous(), weights["high"].mT.contiguous()):
        begin, end = (torch.searchsorted(x[:, 0].contiguous(), bound) for bound in (low, high))
        found += [torch.where(low == -1, 0, begin)[:, None], torch.where(high == 1, len(x), end)[:, None]]
    return torch.cat(found, dim=1).tolist()


def _chunks(piece: Tensor, count: int) -> Tensor:
    """Return rows (N, size) of a batch in pieces of rising numbers, each chunk of one piece: every row at least once.

    Chunks that are short repeat the last row of their piece, and those beyond the need that of the batch: how many that
    are, a device would have to be waited for.
    """
    size, at = -(-len(piece) // (_CHUNKS * count)), torch.arange(len(piece), device=piece.device)
    begins = (at - torch.searchsorted(piece, piece)) % size == 0
    most = (len(piece) + min(count, len(piece)) * (size - 1)) // size
    begin = torch.where(begins, at, len(piece) - 1).sort().values[:most, None]
    return torch.minimum(begin + at[:size], torch.searchsorted(piece, piece[begin], right=True) - 1)


def _rows(weights: dict[str, Tensor], piece: Tensor, most: list[int] | None = None) -> Tensor:
    """Return the rows of the latent tensor that belong to the functions of pieces, with ``most`` functions per axis."""
    counts, rows = weights["counts"][piece], weights["first"][piece][:, None]
    stride = counts.flip(1).cumprod(dim=1).flip(1) // counts
    for i, n in enumerate(most or [weights["nodes"].shape[2]] * counts.shape[1]):
        j = torch.arange(n, device=piece.device).clamp_max(counts[:, i : i + 1] - 1)
        rows = (rows[:, :, None] + (j * stride[:, i : i + 1])[:, None, :]).flatten(1)
    return rows


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """Return all products of functions (B, m) and (B, n) at the same x, shape (B, m n)."""
    return (left[:, :, None] * right[:, None, :]).flatten(1)


def _contracted(phi: Tensor, table: Tensor, i: int) -> Tensor:
    """Return a table (..., n, ...) whose axis i is contracted with phi (b, n), shape (..., b, ...)."""
    done = phi @ table.reshape(math.prod(table.shape[:i]), table.shape[i], -1)
    return done.view(*table.shape[:i], len(phi), *table.shape[i + 1 :])


def _others(factors: Tensor) -> Tensor:
    """Return for each column the product of all other columns, shape as given."""
    ones = torch.ones_like(factors[:, :1])
    left = torch.cat([ones, factors[:, :-1].cumprod(dim=1)], dim=1)
    right = torch.cat([ones, factors[:, 1:].flip(1).cumprod(dim=1)], dim=1).flip(1)
    return left * right
