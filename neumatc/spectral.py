"""Singular values and eigenvalues with their vectors: whatever order, and continuous where that is possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse, sparray
from torch import Tensor

from neumatc import checks, gauge, linalg
from neumatc.factorizations import Product
from neumatc.families import ParametricMatrix
from neumatc.linalg import (
    beside,
    identity_like,
    norm,
    relative,
    squared_norm,
    two_norm_above,
    two_norm_within,
    wide,
)
from neumatc.operations import Factor, Factors, Operation, Paired, require_rank, require_square, split
from neumatc.report import Event

# Vectors followed beyond the rank asked for, so that one may cross the last of them.
_EXTRA = 2
# Values closer than this times the root of their number, in units of rounding of the largest, are one and the same.
_SAME = 8
# The condition number of a second matrix, in units of rounding, up to which its inverse is believed: a hundredth.
_SURE = 0.01
# Values closer than this many rounding units of the largest are one value, whose vectors are any basis of their span.
_EQUAL = 1e3
# The length of a guide's vectors where the size of the values elsewhere is not known.
_UNSIZED = 1e-6


class SVDFactors(NamedTuple):
    """U (B, m, k), S (B, k) and Vh (B, k, n), as ``torch.linalg.svd(A, full_matrices=False)`` returns them."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class EigFactors(NamedTuple):
    """eigenvalues (B, k) and eigenvectors (B, n, k), as ``torch.linalg.eigh`` or ``torch.linalg.eig`` returns them."""

    eigenvalues: Tensor
    eigenvectors: Tensor


@dataclass(frozen=True)
class _Spectral(Product):
    r"""What the decompositions A ~ U diag(s) V^H have in common; for Hermitian matrices V = U.

    The map may hold more vectors than are asked for, so that one may cross the last of them, and in the place of the
    values a matrix M with A ~ U M V^H, where some vectors are followed as a block; `finish` sorts this out. What it
    finds in M has any phase: it is turned towards a guide, of several parameters towards the frames of the map.
    """

    rank: int | None = None
    gauge: str = "vectors"
    order: str = "sorted"
    unique, certainty, needs = False, "bound", "value k is apart from the next"
    error = Operation.error
    _largest = True  # whether the values of largest modulus are wanted

    def __post_init__(self) -> None:
        if self.rank is not None:
            checks.integer("rank", self.rank, 1)
        checks.choice("gauge", self.gauge, ("vectors", "subspace"))
        checks.choice("order", self.order, ("sorted", "followed"))

    @property
    def followed(self) -> bool:
        return self.order == "followed"

    def _needed(self, wanted: Tensor, x: Tensor, values: Tensor) -> Tensor:
        """Return the mask of columns (N, K) that somebody needs: labels that are kept, at the first choice there is."""
        if not self.followed:
            return wanted
        chosen = x[(self._ahead(values, int(wanted[0].sum()))[0] > 0).cpu()]
        return wanted & (x == (chosen if len(chosen) else x).min())

    def _count(self, m: int, n: int) -> int:
        require_rank(self.rank or 1, m, n)
        return self.rank or min(m, n)

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        return self._described(m, n, self._count(m, n))

    def fits(self, m: int, n: int, shapes: Sequence[tuple[int, ...]]) -> bool:
        k = shapes[0][-1]
        public = [factor.shape for factor in self._described(m, n, k)]
        blocks = [(k, k) if shape == (k,) else shape for shape in public]
        guided = [*blocks, (k, self._count(m, n))]
        return k >= self._count(m, n) and list(shapes) in (public, blocks, guided)

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        factors, failed = self._whole(A)
        return self._ordered(*factors, k := self._count(*A.shape[1:])), failed | self._tied(factors, k)

    def snapshots(self, A: Tensor) -> tuple[Factors, Tensor]:
        factors, failed = self._whole(A)
        extra = max(A.shape) if self.followed else _EXTRA  # labels that are kept may go anywhere
        k = self._count(*A.shape[1:])
        if self.gauge == "subspace":  # has no span where the next value is as good
            return self._ordered(*factors, k), failed | self._tied(factors, k)
        return self._ordered(*factors, min(k + extra, *A.shape[1:])), failed

    def undecided(self, factors: Sequence[Tensor]) -> Tensor:
        """Mask of snapshots, shape (N,), of which the k values asked for are no choice, as at a crossing."""
        return self._tied(factors, self.rank or factors[self.powers.index(1)].shape[1])

    def _tied(self, factors: Sequence[Tensor], k: int) -> Tensor:
        """Mask of what has no k best values: the next is as good, up to rounding, and not both are nothing."""
        gap, nothing = self._ahead(factors[self.powers.index(1)], k)
        return (gap <= 0) & ~(nothing & self._largest)

    def _ahead(self, values: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return by how much value k is better than the next, less rounding, and whether it is nothing; shape (N,)."""
        worth = self._worth(values).sort(dim=1, descending=True).values
        rounding = _SAME * worth.shape[1] ** 0.5 * torch.finfo(values.dtype).eps * values.abs().amax(dim=1)
        after = worth[:, k] if k < worth.shape[1] else -torch.inf
        return worth[:, k - 1] - after - rounding, worth[:, k - 1] <= rounding

    def finish(self, fitted: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        at, rows = self.powers.index(1), slice(None)
        values, k = fitted[at], out[at].shape[1]
        if values.ndim == 3:
            values, P = _diagonalised((values + values.mH) / 2)
            # Of several parameters towards the frames of the maps, which are continuous.
            guide, *_ = *fitted[len(out) :], _UNSIZED * torch.eye(P.shape[1], k).to(fitted[at])[None]
            order = _nearest(P, values, guide) if self.followed else self._order(values, k)
            P, values = _columns(P, order), values.gather(1, order)  # a few columns, before they meet large factors
            ordered = self._turned(fitted, _towards(P, values, guide).to(fitted[at]), values)
        elif self.followed:
            return
        else:
            if values is out[at]:  # in place: only where it is not in order already
                rows = self._unordered(values).any(dim=-1)
                if not rows.any():
                    return
            ordered = self._ordered(*(x[rows] for x in fitted), k)
        for x, y in zip(out, ordered):
            x[rows] = y

    def guide(
        self, maps: Sequence[Callable], x: np.ndarray, m: int, n: int, *, periodic: bool
    ) -> tuple[np.ndarray, Tensor] | None:
        values, k = maps[self.powers.index(1)], self._count(m, n)
        if len(values.shape) == 1:
            return None

        def sample(x: np.ndarray) -> np.ndarray:
            M = values(torch.from_numpy(x[:, None]).to(values.core.device))
            return linalg.wide((M + M.mH) / 2).resolve_conj().cpu().numpy()

        def choose(s: np.ndarray) -> np.ndarray:
            return self._order(torch.from_numpy(s), k).numpy()

        eps = torch.finfo(values.core.dtype).eps
        # As long as M is large: where all of its values pass through zero, that tells what is rounding.
        size = np.linalg.norm(sample(x), axis=(1, 2)).max() or 1.0
        x, vectors = gauge.guide(sample, x, choose, eps, followed=self.followed, periodic=periodic)
        return x, torch.from_numpy(size * vectors).to(values.core)

    def matched(self, factors: Sequence[Tensor], like: Sequence[Tensor]) -> Factors:
        if not self.followed:
            return super().matched(factors, like)
        return self._joined(*_matched(self._parts(factors), self._parts(like)))

    def invariant(self, factors: Sequence[Tensor]) -> Tensor:
        U, s, V = self._parts(factors)
        return (U * s[:, None, :].to(U.dtype)) @ V.mH

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        U, s, V = self._parts(factors)
        sides = [relative(A @ V - U * s[:, None, :], s)]
        if U is not V:
            sides.append(relative(U.mH @ A - s[:, :, None] * V.mH, s))
        return (sum(sides) / len(sides) + self.orthogonality(factors)).sqrt()

    def wanted(self, A: Tensor, factors: Sequence[Tensor], residuals: Tensor) -> Tensor:
        """Whether no value that is left out is larger, up to the error."""
        U, s, V = self._parts(factors)
        return self._leading(A, U, s, V, 2 * residuals * norm(s))

    def _leading(self, A: Tensor, U: Tensor, s: Tensor, V: Tensor, slack: Tensor) -> Tensor:
        if self.followed or s.shape[1] == min(A.shape[1:]):
            return torch.ones(len(A), dtype=torch.bool, device=A.device)
        rounding = 4 * sum(A.shape[1:]) * torch.finfo(A.dtype).eps * (norm(A) + norm(s))
        return two_norm_within(A - (U * s[:, None, :].to(U.dtype)) @ V.mH, s.abs().amin(dim=1) + slack + rounding)

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        r"""Bound the relative error of the rank-k part A_k, :math:`\|A_k - B\|_F / \|A_k\|_F` with B = U S V^H.

        Let Q, W be orthonormal bases of the columns of U and V, T = Q^H B W,
        :math:`C = (I - Q Q^H) A (I - W W^H)` and E = A - B - C. If :math:`\tau = \|C\|_2 + \|E\|_F < \sigma_k(T)`, B is
        the best approximation of rank k of A - E, and Wedin's theorem (BIT 12, 1972; Stewart and Sun, *Matrix
        Perturbation Theory*, 1990, section V.4) bounds the sines of the angles between the leading singular subspaces
        of A and of A - E, left and right together, by :math:`\sqrt2 \|E\|_F / (\sigma_k(T) - \tau)`. Hence (the proof
        is in the book, *Beyond the inverse*)

        .. math:: \|A_k - B\|_F \le \|E\|_F \Bigl(1 + \frac{\sqrt2\, \tau}{\sigma_k(T) - \tau}\Bigr) .

        By Weyl's theorem the same number bounds the error of the singular values of B, which are S as far as U and V
        are orthonormal (the residual sees that). It is Inf where the gap to the rest of the spectrum is not certain.
        For k = min(m, n) the difference is known: A_k = A.
        """
        (U, s, V), B = self._parts(factors), self.invariant(factors)
        # B itself is rounded: by cancellation it can be far smaller than the product of its factors' norms.
        sizes = norm(U) * norm(V) * s.abs().amax(dim=1)
        slack = 16 * (sum(A.shape[1:]) + 8) * torch.finfo(A.dtype).eps * (norm(A) + sizes)
        if U.shape[-1] == min(A.shape[1:]):
            return (norm(A - B) + slack) / norm(A)
        Q, W = torch.linalg.qr(U)[0], torch.linalg.qr(V)[0]
        T, QA, AW = Q.mH @ B @ W, Q.mH @ A, A @ W
        inner = Q @ (QA @ W) @ W.mH
        C = A - Q @ QA - AW @ W.mH + inner
        E = norm(Q @ QA + AW @ W.mH - inner - B) + slack
        tau = two_norm_above(C) + slack + E
        least = linalg.svd(T)[1][:, -1] - slack
        return beside(torch.where(least > tau, E * (1 + 2**0.5 * tau / (least - tau)), torch.inf), B)


class SVD(_Spectral):
    r"""The leading singular triplets, A V = U S and A^H U = V S, of an m x n matrix.

    Residual: :math:`(\alpha + \beta)^{1/2}` with the defects of the triplets and of orthogonality,
    :math:`\alpha = (\|A V - U S\|_F^2 + \|A^H U - V S\|_F^2) / (2 \|S\|_F^2)` and
    :math:`\beta = (\|U^H U - I\|_F^2 + \|V^H V - I\|_F^2) / (2k)`.
    A common phase of a pair (u_i, v_i) leaves it as it is. It is zero for ANY k singular triplets: that they are the
    leading ones it does not see, and a fit looks for that besides: at every parameter of its checks it factorises
    :math:`\sigma_k^2 I - E^H E`, E what is left of A. Training uses another loss: the reconstruction error
    :math:`\|A - U S V^H\|_F^2 / \|A\|_F^2` plus the orthogonality defect, smallest for the leading triplets
    (Eckart-Young) and, for k < min(m, n), not zero there. `error_bound` does see it.

    Factors are unique only up to that phase, and only where the singular values are distinct: compare the
    reconstruction U S V^H, the singular values or principal angles, never the entries of U and V. Matrices of which
    value k is the next one too, up to rounding and not zero, count as failed: not even U S V^H is unique. At single
    parameters a fit goes on through them; a piece of which all nodes are such is not met.

    A singular value that passes through zero, as for real square families wherever the determinant changes its sign,
    is smooth only with a sign (Bunse-Gerstner, Byers, Mehrmann and Nichols, Numer. Math. 60, 1991). There the map
    also follows the mirror images (u, -v) with the values -s, and a passage is the crossing of a triplet with its own.
    A complex determinant vanishes at points of two parameters, around which the phase between u and v turns once. Where
    that, or a narrow miss, keeps a triplet from being followed, it becomes a block with its mirror image.

    Args:
        rank: k, the number of triplets; None means min(m, n).
        gauge: ``"vectors"``: every triplet is followed along the parameter, those that turn into each other as a block;
            ``"subspace"``: the k triplets are one block. A block asks for an eigendecomposition of a small Hermitian
            matrix at every evaluation, and only for a gap below its smallest value.
        order: ``"sorted"``: S descends and is not negative, as LAPACK gives it, so that vectors change places where
            values cross. ``"followed"``, for one parameter: labels are kept through crossings, and column k is one
            branch over the whole box. The branches are the k leading ones at the lower end, in their order there, or
            where value k and the next first differ. One
            that passes through zero changes its sign: the values of S are analytic, and ``S.abs()`` those of LAPACK.
            `certify` keeps the labels too. With k < min(m, n) it and `Problem.error` compare with the k leading
            triplets, which the branches need not be; `Problem.residual` does not. On a periodic axis whose labels
            do not return to themselves there is a cut at the ends, and an event ``"loop"``.

    Vectors are continuous in one parameter, in blocks too, but where they change places. (Real ones may change their
    signs at the ends of a periodic axis.) The common phase is that of least motion of u and v together. Who wants one
    side alone, and the span of its vectors rather than each of them, as the precoder for a receiver that decodes
    jointly, takes `Subspace`: it is continuous through crossings, in several parameters too.
    """

    orthonormal, powers, packed = (0, 2), (0, 1, 0), SVDFactors
    turns = (("rows", ""), ("", ""), ("", "columns"))

    def _described(self, m: int, n: int, k: int) -> tuple[Factor, ...]:
        return Factor("U", (m, k)), Factor("S", (k,), "real"), Factor("Vh", (k, n))

    def _whole(self, A: Tensor) -> tuple[Factors, Tensor]:
        return split(linalg.svd(A))

    def _worth(self, S: Tensor) -> Tensor:
        return S

    def align(self, x: Tensor, factors: Sequence[Tensor], **along: object) -> tuple[Factors, tuple[Event, ...]]:
        U, S, Vh = factors
        square = U.shape[1] == U.shape[2] == Vh.shape[2]
        mirrored = square and not U.is_complex() and len(linalg.slogdet(U @ Vh)[0].unique()) > 1
        while True:
            wanted = (torch.arange(S.shape[1]) < (self.rank or len(S[0]))).expand(S.shape)
            wanted = self._needed(wanted, x, S)
            if mirrored:
                wanted = torch.cat([wanted, torch.zeros_like(wanted)], dim=1)
                U, S, Vh = torch.cat([U, U], dim=2), torch.cat([S, -S], dim=1), torch.cat([Vh, -Vh], dim=1)
            frames = torch.cat([U, Vh.mH], dim=1) / 2**0.5  # a triplet is an eigenvector of [0 A; A^H 0]
            found = gauge.align(frames, S, x, wanted, together=self.gauge == "subspace", **along)
            W, events = found.rotations, found.events
            # Around a zero of a complex determinant, and near one, a triplet turns into its mirror image.
            if mirrored or not (square and U.is_complex() and any(e.kind in ("loop", "cut") for e in events)):
                return (U @ W, found.values(S), W.mH @ Vh), events
            mirrored = True

    def _parts(self, factors: Sequence[Tensor]) -> Factors:
        return factors[0], factors[1], factors[2].mH

    def _joined(self, U: Tensor, S: Tensor, V: Tensor) -> Factors:
        return U, S, V.mH

    def _turned(self, fitted: Sequence[Tensor], P: Tensor, S: Tensor) -> Factors:
        left, S = (P, S) if self.followed else (_signed(P, S), S.abs())
        return fitted[0] @ left, S, P.mH @ fitted[2]

    def _unordered(self, S: Tensor) -> Tensor:
        return torch.nn.functional.pad(S, (0, 1)).diff(dim=-1) > 0

    def _order(self, S: Tensor, k: int) -> Tensor:
        S, order = S.topk(k)  # of a triplet and its mirror image, the one with a positive value
        return order.gather(1, S.abs().argsort(dim=-1, descending=True))

    def _ordered(self, U: Tensor, S: Tensor, Vh: Tensor, k: int) -> Factors:
        order = self._order(_apart(S, -1), k)
        Vh = Vh.gather(1, order[:, :, None].expand(-1, -1, Vh.shape[2]))
        return _columns(_signed(U, S), order), S.gather(1, order).abs().sort(dim=1, descending=True).values, Vh


@dataclass(frozen=True)
class Eigh(Paired, _Spectral):
    r"""Eigenvalues and eigenvectors of a Hermitian matrix, A V = V L, or of a pair of matrices, A V = B V L.

    Eigenvalues ascend, as those of ``torch.linalg.eigh``, whichever are asked for. Vectors are orthonormal; with a
    Hermitian positive definite B they have :math:`V^H B V = I`. With :math:`B = R R^H` (Cholesky) a pair is treated as
    the matrix :math:`C = R^{-1} A R^{-H}` and its vectors :math:`Y = R^H V`; without B, C = A and Y = V.

    Residual: :math:`(\|C Y - Y L\|_F^2 / \|L\|_F^2 + \|Y^H Y - I\|_F^2 / k)^{1/2}`. The units of A, of B and of their
    rows do not change it. It is relative to the k values: where all of them pass through zero, shift A by a multiple of
    I, or of B. It is zero for any k eigenpairs; that they are those wanted only `error_bound` sees. The error is that
    of :math:`V L V^H`. Training minimises :math:`\|G - Y g(L) Y^H\|_F^2 / \|G\|_F^2` plus the defect of orthonormality,
    with a function G = g(C) of which those values are the largest: C itself, :math:`c I \pm C`, or
    :math:`c I - (C - \sigma I)^2 / c`. It is slow where they are close to others on the scale of C.

    Args:
        rank: k, the number of eigenpairs; None means all.
        gauge, order: As for `SVD`, and vectors are as continuous; sorted values ascend.
        which: Those with the ``"largest"`` or ``"smallest"`` absolute values (``"LM"`` and ``"SM"`` of
            ``scipy.sparse.linalg.eigsh``), or at one end of the spectrum, ``"lowest"`` or ``"highest"``.
        B: The second matrix, one for all p, (n, n), as a tensor, an array or a sparse matrix of SciPy; or a
            `ParametricMatrix` on the box of A. If one of A and B is complex, the pair is. `Problem` puts B beside A and
            calls the operation ``Eigh(..., B="beside")``: that of a family [A | B], as `families.beside` makes it. So B
            belongs to the family, and like A it is in no file; to certify a loaded surrogate give the problem the same
            B.
        near: sigma: the k values closest to it, instead of ``which``. For these and the smallest a fit holds all n
            vectors of every exact solution, since any may become one of the k.

    Failures: matrices that are not Hermitian up to rounding (if all are, solving raises ValueError), a B that is not
    positive definite, and values of which k are no choice, since the next one is as good up to rounding; for
    ``"largest"`` not where both are zero, as the product is unique there.
    """

    which: str = "largest"
    B: str | Tensor | np.ndarray | sparray | ParametricMatrix | None = None
    near: float | None = None
    powers, packed, work = (1, 0), EigFactors, (0, 9)
    needs = "A is Hermitian, B, if any, positive definite, and value k apart from the next"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.choice("which", self.which, ("largest", "smallest", "lowest", "highest"))
        if self.near is not None:
            object.__setattr__(self, "near", checks.number("near", self.near))
            remedy = "leave one of the two out"
            checks.require(self.which == "largest", "which", f"no choice beside near={self.near}", self.which, remedy)
        if isinstance(self.B, (ParametricMatrix, Tensor, np.ndarray)) or issparse(self.B):
            self._put_beside("B")
        expected, remedy = "a tensor or array (n, n), a ParametricMatrix, or 'beside'", "pass the matrix itself"
        checks.require(self.B in (None, "beside"), "B", expected, checks.describe(self.B), remedy, TypeError)

    @property
    def orthonormal(self) -> tuple[int, ...]:
        return () if self.B else (1,)

    @property
    def _largest(self) -> bool:
        return self.which == "largest" and self.near is None

    @property
    def inner(self) -> bool:
        """Whether the values wanted may lie within the spectrum, others on both sides."""
        return self.which == "smallest" or self.near is not None

    def _described(self, m: int, n: int, k: int) -> tuple[Factor, ...]:
        if not self.B:
            require_square(self, m, n, "nm.SVD")
        expected, remedy = f"[A | B] of shape n x 2n for {self}", "give B of the shape of A"
        checks.require(n == m * (1 + bool(self.B)), "family", expected, f"{m} x {n}", remedy)
        return Factor("eigenvalues", (k,), "real"), Factor("eigenvectors", (m, k))

    def admitted(self, A: Tensor) -> tuple[Tensor, Tensor]:
        parts, good = zip(*map(linalg.hermitian, self._blocks(A)))
        return torch.cat(parts, dim=2), torch.stack(good).all(dim=0)

    def _blocks(self, A: Tensor) -> tuple[Tensor, ...]:
        n = A.shape[1]
        return (A[:, :, :n], A[:, :, n:]) if self.B else (A,)

    def _whole(self, A: Tensor) -> tuple[Factors, Tensor]:
        return split(linalg.eigh(*self._blocks(A)))

    def snapshots(self, A: Tensor) -> tuple[Factors, Tensor]:
        """Solve exactly for all values that may be wanted near A, and with B for Y too, which has orthonormal columns.

        Values ascend, and each is continuous in its place: those wanted come from one end, both, or anywhere.
        """
        (factors, failed), k = self._whole(A), self._count(*A.shape[1:])
        if self.gauge == "subspace":
            factors = self._ordered(*factors, k)
        elif not (self.inner or self.followed):
            place = torch.arange(A.shape[1], device=A.device)
            low, high = place < k + _EXTRA, place >= len(place) - k - _EXTRA
            held = {"lowest": low, "highest": high}.get(self.which, low | high)
            factors = tuple(x[..., held] for x in factors)
        return (*factors, self._standard(A, factors)[2][1].to(A.dtype)) if self.B else factors, failed

    def align(self, x: Tensor, factors: Sequence[Tensor], **along: object) -> tuple[Factors, tuple[Event, ...]]:
        k = self.rank or factors[0].shape[1]
        wanted = torch.zeros(factors[0].shape, dtype=torch.bool)
        wanted.scatter_(1, self._worth(factors[0]).topk(k).indices.cpu(), True)
        wanted = self._needed(wanted, x, factors[0])
        # And those beside, which may cross them; labels that are kept may go anywhere.
        used = (wanted.any(dim=0, keepdim=True) | self.followed).float()
        some = (torch.nn.functional.max_pool1d(used, 2 * _EXTRA + 1, 1, _EXTRA) > 0)[0]
        factors, wanted = [x[..., some.to(x.device)] for x in factors], wanted[:, some]
        values, V = factors[:2]
        found = gauge.align(factors[-1], values, x, wanted, together=self.gauge == "subspace", **along)
        return (found.values(values), V @ found.rotations), found.events

    def _standard(self, A: Tensor, factors: Sequence[Tensor]) -> tuple[Eigh, Tensor, Factors, Tensor | None, Tensor]:
        """Return the operation on one matrix, C, the factors L and Y, R, and where B is not positive definite."""
        if not self.B:
            return self, A, factors, None, torch.zeros(len(A), dtype=torch.bool, device=A.device)
        C, R, failed = linalg.standard(*self._blocks(A))
        return replace(self, B=None), C, (factors[0], R.mH @ wide(factors[1])), R, failed

    def scales(self, A: Tensor) -> tuple[float, ...]:
        if not self.B:
            return super().scales(A)
        C, R, _ = linalg.standard(*self._blocks(A))
        value, vector = replace(self, B=None).scales(C)
        return value, vector / (float(norm(R).square().mean().sqrt()) / A.shape[1] ** 0.5)

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        plain, C, own, _, failed = self._standard(A, factors)
        return torch.where(failed, torch.inf, super(Eigh, plain).residual(C, own)).to(factors[0].dtype)

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        plain, C, own, _ = _positive(self, A, factors)
        return super(Eigh, plain).loss(C, own).to(factors[0].dtype)

    def wanted(self, A: Tensor, factors: Sequence[Tensor], residuals: Tensor) -> Tensor:
        _, C, (values, Y), steep = _positive(self, A, factors)
        return self._leading(C, Y, values, Y, 2 * steep * residuals * norm(factors[0]))

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        r"""Bound the relative error, :math:`\|A_k - V L V^H\|_F / \|A_k\|_F`, with the k eigenpairs wanted in A_k.

        For ``"largest"`` without B as for `SVD`. Otherwise let Q be an orthonormal basis of the columns of Y with
        :math:`Q^H C Q = M = \mathrm{diag}(x_j)`, r_j the columns of :math:`C Q - Q M`,
        :math:`\rho^2 = \sum_j \|r_j\|^2`, Z a basis of the complement, z the eigenvalues of :math:`Z^H C Z`, and f the
        worth of a value, which changes by no more than the value does (for the lowest :math:`-\lambda`). By Weyl's
        theorem the eigenvalues of C are within rho of x and z. So if all
        :math:`\delta_j = f(x_j) - \max f(z) - \rho` are above rho, those wanted are near x, and every other one, y, has
        :math:`|x_j - y| \ge \delta_j`. Its vector u gives :math:`(y - x_j) u^H q_j = u^H r_j`. So the sines of the
        angles between the spans have the norm :math:`s \le (\sum_j \|r_j\|^2 / \delta_j^2)^{1/2}`, and times the values
        x_j :math:`w \le (\sum_j x_j^2 \|r_j\|^2 / \delta_j^2)^{1/2}` (Davis and Kahan, SIAM J. Numer. Anal. 7, 1970).
        The span wanted is that of :math:`W = Q + Z X`, :math:`\|X\|_F \le t = s / (1 - s^2)^{1/2}`. There C acts as
        :math:`C W = W (M + F^H X)`, :math:`F = Z^H C Q`, so its part is :math:`W S W^H` with
        :math:`S = (M + F^H X)(I + X^H X)^{-1}`, Hermitian and at most :math:`l = \max_j |x_j| + \rho`; hence
        :math:`\|S - M\|_F \le d = \rho t + l t^2`, :math:`\|X S\|_F \le o = w (1 + t^2)^{1/2} + t d`, and by blocks

        .. math:: \|A_k - V L V^H\|_F \le \|R^{-1}\|_2^2 \bigl( (d^2 + 2 o^2 + t^2 o^2)^{1/2}
                  + \|Q M Q^H - Y L Y^H\|_F \bigr) .

        It is Inf where a gap to the other values is not certain. It takes the eigenvalues of an n x n matrix.
        """
        if self._largest and not self.B:
            return super().error_bound(A, factors)
        _, C, own, R, failed = self._standard(A, factors)
        size = condition = torch.ones_like(norm(C))
        if self.B:
            size = two_norm_above(torch.linalg.solve_triangular(R, identity_like(R), upper=False)) ** 2
            condition = size * two_norm_above(R) ** 2  # of B, by which its rounding is magnified
        distance = size * _distance(C, *own, self._worth, condition) / (1 - _SURE)
        sure = ~failed & (condition * torch.finfo(C.dtype).eps * C.shape[1] < _SURE)
        return torch.where(sure, beside(distance, self.invariant(factors)), torch.inf)

    def _parts(self, factors: Sequence[Tensor]) -> Factors:
        return factors[1], factors[0], factors[1]

    def _joined(self, U: Tensor, s: Tensor, V: Tensor) -> Factors:
        return s, V

    def _turned(self, fitted: Sequence[Tensor], P: Tensor, s: Tensor) -> Factors:
        return s, fitted[1] @ P

    def _unordered(self, values: Tensor) -> Tensor:
        return values.diff(dim=-1) < 0

    def _worth(self, values: Tensor) -> Tensor:
        """How much a value is wanted; it changes by no more than the value does."""
        distance = (values - (self.near or 0.0)).abs()
        return {"lowest": -values, "highest": values}.get(self.which, distance if self._largest else -distance)

    def _order(self, values: Tensor, k: int) -> Tensor:
        chosen = self._worth(values).topk(k, dim=1).indices
        return chosen.gather(1, values.gather(1, chosen).argsort(dim=1))

    def _ordered(self, values: Tensor, vectors: Tensor, k: int) -> Factors:
        order = self._order(_apart(values), k)
        return values.gather(1, order).sort(dim=1).values, _columns(vectors, order)


def _positive(operation: Eigh, A: Tensor, factors: Sequence[Tensor]) -> tuple[Eigh, Tensor, Factors, Tensor]:
    """Return the operation on one matrix, a function of C of which the values wanted are the largest, and its own.

    Last its steepness at these values, shape (B,).
    """
    plain, C, (values, Y), _, _ = operation._standard(A, factors)
    steep = torch.ones_like(values[:, 0])
    if not operation._largest:
        sigma = operation.near or 0.0
        c = (norm(C) + abs(sigma)).clamp_min(torch.finfo(C.dtype).tiny)[:, None]
        if operation.inner:
            C, steep = C - sigma * identity_like(C), 2 * (values - sigma).abs().amax(dim=1) / c[:, 0]
            C, values = -(C @ C) / c[:, :, None], -((values - sigma) ** 2) / c
        elif operation.which == "lowest":
            C, values = -C, -values
        C, values = C + c[:, :, None] * identity_like(C), values + c
    return plain, C, (values, Y), steep


@dataclass(frozen=True)
class Eig(Operation):
    r"""Eigenvalues and eigenvectors of a general square matrix, A V = V diag(w), where the eigenvalues stay apart.

    Columns of V have unit length. Real matrices give complex factors. The order is that of the first snapshot,
    continued along the parameter, of one parameter through crossings too; the phase of each column is the one of least
    motion. Defective matrices, and those with a condition number of V above 1 / sqrt(eps), count as failed. Around a
    parameter where two eigenvalues meet the eigenvectors have no continuous order (Kato, *Perturbation Theory for
    Linear Operators*, 1966, chapter II): it is reported, and there are no blocks to fall back on; take
    `nm.MatrixFunction` or `nm.SVD`.

    Residual: :math:`\|A V - V W\|_F / (\|A\|_F \|V\|_F)`, together with the defect of the columns' lengths. The error
    of :math:`V W V^{-1}` can be larger by a factor up to :math:`\|V\|_F \|V^{-1}\|_2`. So the estimate of the error is
    :math:`\|A - V W V^{-1}\|_F / \|A\|_F`, at the price of an inverse: the error itself, up to the rounding in it. That
    of eigenvalues can be larger than this by the condition number again (Bauer and Fike, Numer. Math. 2, 1960).

    Args:
        order: ``"any"``, since complex values have none: as far as labels can be kept. ``"followed"``: what cannot keep
            them is refused, several parameters and training; and `certify` keeps the labels too.
    """

    order: str = "any"
    unique, powers, packed, needs = False, (1, 0), EigFactors, "A is diagonalizable"
    work = (0, 51)  # 25 for the eigenvectors, and their singular values tell which matrices are defective

    def __post_init__(self) -> None:
        checks.choice("order", self.order, ("any", "followed"))

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        require_square(self, m, n, "nm.SVD")
        return Factor("eigenvalues", (n,), "complex"), Factor("eigenvectors", (n, n), "complex")

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        return split(linalg.eig(A))

    def align(self, x: Tensor, factors: Sequence[Tensor], **along: object) -> tuple[Factors, tuple[Event, ...]]:
        values, V = factors
        found = gauge.align(V, values, x, duals=linalg.inverse(V)[0].mH, **along)
        return (found.values(values), V @ found.rotations), found.events

    def matched(self, factors: Sequence[Tensor], like: Sequence[Tensor]) -> Factors:
        kept = self.order == "followed"
        return _matched((factors[1], *factors), (like[1], *like))[1:] if kept else super().matched(factors, like)

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        values, V = factors
        lengths = (linalg.lengths(V, 1) - 1).square().mean(dim=1)
        size = squared_norm(V).clamp_min(torch.finfo(V.dtype).tiny)
        return relative(A.to(V.dtype) @ V - V * values[:, None, :], A) / size + lengths

    def invariant(self, factors: Sequence[Tensor]) -> Tensor:
        values, V = factors
        return (V * values[:, None, :]) @ linalg.inverse(V)[0]

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        return relative(A - self.invariant(factors), A).sqrt()

    def finish(self, fitted: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        V = fitted[1]
        out[1].copy_(V / linalg.lengths(V, 1)[:, None].clamp_min(torch.finfo(V.dtype).tiny))


def _distance(A: Tensor, values: Tensor, V: Tensor, worth: Callable[[Tensor], Tensor], units: Tensor) -> Tensor:
    """Bound the distance of V L V^H from the part of A with the values of the highest worth; see `Eigh.error_bound`.

    A is known up to so many ``units`` of rounding.
    """
    (n, k), B = V.shape[1:], (V * values[:, None, :]) @ V.mH
    size = norm(A) + norm(V) ** 2 * values.abs().amax(dim=1)
    slack = 16 * (2 * n + 8) * torch.finfo(A.dtype).eps * units * size
    if k == n:
        return norm(A - B) + slack
    Q = torch.linalg.qr(V)[0]
    M = Q.mH @ A @ Q
    x, W, _ = linalg.eigh((M + M.mH) / 2)
    Q = Q @ W
    AQ, QM = A @ Q, Q * x[:, None, :]
    r = linalg.lengths(AQ - QM, 1) + slack[:, None]
    # On the complement as A is, and on the span of Q far above: the last k values.
    rest = A - AQ @ Q.mH - Q @ AQ.mH + (QM + 3 * size[:, None, None] * Q) @ Q.mH
    z = linalg.eigh((rest + rest.mH) / 2)[0][:, : n - k]
    rho = norm(r)
    gap = worth(x) - (worth(z).amax(dim=1) + rho + slack)[:, None]
    sines, x = r / gap, x.abs() + slack[:, None]
    s, w = norm(sines), norm(x * sines)
    t = s / (1 - s**2).clamp_min(0).sqrt()
    d = rho * t + (x.amax(dim=1) + rho) * t**2
    o = w * (1 + t**2).sqrt() + t * d
    found = (d**2 + (2 + t**2) * o**2).sqrt() + norm(QM @ Q.mH - B) + slack
    return torch.where((gap.amin(dim=1) > rho) & (s < 1), found, torch.inf)


def _columns(A: Tensor, order: Tensor) -> Tensor:
    return A.gather(2, order[:, None, :].expand(-1, A.shape[1], -1))


def _signed(A: Tensor, S: Tensor) -> Tensor:
    """Change the sign of the columns with a negative value, unless that is rounding."""
    return A * torch.where(S + _rounding(S) < 0, -1, 1).to(A.dtype)[:, None, :]


def _matched(exact: Sequence[Tensor], like: Sequence[Tensor]) -> Factors:
    """Return U, s and V with the labels of others: in their order, with their phases and the signs of their values."""
    (U, s, V), (left, _, right) = exact, like
    order = _nearest(V, s, right)
    U, s, V = _columns(U, order), s.gather(1, order), _columns(V, order)
    phases = [torch.sgn((x.conj() * y).sum(dim=1)) for x, y in ((U, left), (V, right))]
    passed = (phases[0] * phases[1].conj()).real < 0  # through zero
    return U * phases[0][:, None], torch.where(passed, -s, s), V * phases[1][:, None]


def _nearest(P: Tensor, s: Tensor, guide: Tensor) -> Tensor:
    """Return the numbers (B, k) of the columns of P (B, J, J), with values s, that are nearest to those of the guide.

    What a column shares with vectors of one value it shares with their span.
    """
    share, order = (P.mH @ guide.to(P)).abs().square(), []
    share = _equal(s, guide).to(share.dtype) @ share
    for k in range(guide.shape[2]):
        order.append(share[:, :, k].argmax(dim=1, keepdim=True))
        share = share.scatter(1, order[k][:, :, None].expand(-1, -1, share.shape[2]), -1)
    return torch.cat(order, dim=1)


def _towards(P: Tensor, s: Tensor, guide: Tensor) -> Tensor:
    """Turn columns of P (B, J, k), of values s, towards the guide: in phase, those of one value by a unitary matrix."""
    overlap, equal = P.mH @ guide.to(P), _equal(s, guide)
    phase = torch.sgn(overlap.diagonal(dim1=1, dim2=2))
    turned = P * torch.where(phase == 0, 1, phase)[:, None, :]
    rows = equal.sum(dim=(1, 2)) > s.shape[1]
    if not checks.followed(P) and rows.any():
        left, _, right, _ = linalg.svd(overlap[rows] * equal[rows])
        turned[rows] = P[rows] @ (left @ right)
    return turned


def _equal(s: Tensor, guide: Tensor) -> Tensor:
    """Which of the values s (B, k) are one, shape (B, k, k), beside what they are elsewhere, as the guide is long."""
    size = linalg.lengths(guide, 1).amax(dim=1, keepdim=True).expand(len(s), 1)
    return (s[:, :, None] - s[:, None, :]).abs() <= _rounding(torch.cat([s, size], dim=1))[:, :, None]


def _rounding(s: Tensor) -> Tensor:
    """Difference, shape (B, 1), up to which values s (B, k) are one."""
    return _EQUAL * torch.finfo(s.dtype).eps * s.abs().amax(dim=1, keepdim=True)


def _apart(s: Tensor, sign: int = 1) -> Tensor:
    """Add so much to values s (B, k) that those which are one stay in their order when they are sorted."""
    return s + sign * _rounding(s) * torch.arange(s.shape[1], device=s.device)


def _diagonalised(M: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, in any order, and eigenvectors of Hermitian M (B, k, k).

    Where all have the same blocks, of at most two, by the rotation of Jacobi: it takes a twentieth of LAPACK's time.
    Where something follows M, in double precision.
    """
    if checks.followed(M):
        s, P = torch.linalg.eigh(wide(M))  # torch refuses losses that see the phase, as rounding makes them seem to
        return s.to(checks.real_dtype(M.dtype)), P
    linked = (M != 0).any(dim=0).triu(1)
    if (linked.sum(dim=0) + linked.sum(dim=1)).max() > 1:
        return linalg.in_threads(lambda part: tuple(torch.linalg.eigh(part)), M)
    s, P = M.diagonal(dim1=1, dim2=2).real.clone(), torch.eye(M.shape[1]).to(M).repeat(len(M), 1, 1)
    for i, j in linked.nonzero().tolist():
        middle, half, b = (s[:, i] + s[:, j]) / 2, (s[:, i] - s[:, j]) / 2, M[:, i, j]
        angle, radius = torch.atan2(b.abs(), half) / 2, torch.hypot(half, b.abs())
        turn = torch.sin(angle) * torch.where(b == 0, 1, torch.sgn(b))
        s[:, i], s[:, j] = middle + radius, middle - radius
        P[:, i, i] = P[:, j, j] = torch.cos(angle).to(P.dtype)
        P[:, j, i], P[:, i, j] = turn.conj(), -turn
    return s, P
