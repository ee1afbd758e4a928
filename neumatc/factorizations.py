"""Factorisations: operations with several factors, or with one that is a basis, and their gauges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neumatc import checks, gauge, linalg
from neumatc.embeddings import followed
from neumatc.linalg import beside, norm, relative, squared_norm, two_norm_above
from neumatc.operations import Factor, Factors, Operation, require_rank, require_square, split
from neumatc.report import Event

# Vectors followed beyond the rank asked for, so that one may cross the last of them.
_EXTRA = 2
# Values closer than this many rounding units of the largest are one value, whose vectors are any basis of their span.
_EQUAL = 1e3


class SVDFactors(NamedTuple):
    """U (B, m, k), S (B, k) and Vh (B, k, n), as ``torch.linalg.svd(A, full_matrices=False)`` returns them."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class EigFactors(NamedTuple):
    """eigenvalues (B, k) and eigenvectors (B, n, k), as ``torch.linalg.eigh`` or ``torch.linalg.eig`` returns them."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class QRFactors(NamedTuple):
    """Q (B, m, k) and R (B, k, n), as ``torch.linalg.qr`` returns them, with a positive diagonal of R."""

    Q: Tensor
    R: Tensor


class PolarFactors(NamedTuple):
    """U (B, m, n) and P (B, n, n), as ``scipy.linalg.polar`` returns them."""

    U: Tensor
    P: Tensor


class _Product(Operation):
    r"""What decompositions of A into a product of factors have in common.

    Training minimises :math:`\|A - B\|_F^2 / \|A\|_F^2` with the product B, plus the mean defect of orthonormality.
    """

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        return relative(A - self.invariant(factors), A) + self.orthogonality(factors)

    def invariant(self, factors: Sequence[Tensor]) -> Tensor:
        return factors[0] @ factors[1]

    def error(self, factors: Sequence[Tensor], exact: Sequence[Tensor]) -> Tensor:
        """Return the largest of the relative errors of the factors, which are unique."""
        return torch.stack([relative(x - y, y).sqrt() for x, y in zip(factors, exact)]).amax(dim=0)


@dataclass(frozen=True)
class _Spectral(_Product):
    r"""What the decompositions A ~ U diag(s) V^H have in common; for Hermitian matrices V = U.

    The map may hold more vectors than are asked for, so that one may cross the last of them, and in the place of the
    values a matrix M with A ~ U M V^H, where some vectors are followed as a block; `finish` sorts this out. What it
    finds in M has any phase: it is turned towards a guide, of several parameters towards the frames of the map.
    """

    rank: int | None = None
    gauge: str = "vectors"
    order: str = "sorted"
    unique, certainty = False, "bound"
    error = Operation.error

    def __post_init__(self) -> None:
        if self.rank is not None:
            checks.integer("rank", self.rank, 1)
        checks.choice("gauge", self.gauge, ("vectors", "subspace"))
        checks.choice("order", self.order, ("sorted", "followed"))

    @property
    def followed(self) -> bool:
        return self.order == "followed"

    def _needed(self, wanted: Tensor, x: Tensor) -> Tensor:
        """Return the mask of columns (N, K) that somebody needs: labels that are kept, where they begin."""
        return wanted & (x == x.min()) if self.followed else wanted

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
        return self._leading(A, self.rank or min(A.shape[1:]))

    def snapshots(self, A: Tensor) -> tuple[Factors, Tensor]:
        extra = max(A.shape) if self.followed else _EXTRA  # labels that are kept may go anywhere
        extra = extra if self.gauge == "vectors" else 0
        return self._leading(A, min((self.rank or max(A.shape)) + extra, *A.shape[1:]))

    def finish(self, fitted: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        at, rows = self.powers.index(1), slice(None)
        values, k = fitted[at], out[at].shape[1]
        if values.ndim == 3:
            values, P = _diagonalised((values + values.mH) / 2)
            # Of several parameters towards the frames of the maps, which are continuous.
            guide, *_ = *fitted[len(out) :], torch.eye(P.shape[1], k).to(P).expand(len(P), -1, -1)
            order = _nearest(P, values, guide) if self.followed else self._order(values, k)
            P, values = _columns(P, order), values.gather(1, order)  # a few columns, before they meet large factors
            ordered = self._turned(fitted, _towards(P, values, guide), values)
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
        x, vectors = gauge.guide(sample, x, choose, eps, followed=self.followed, periodic=periodic)
        return x, torch.from_numpy(vectors).to(values.core)

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
    leading ones it does not see, which is why training uses another loss: the reconstruction error
    :math:`\|A - U S V^H\|_F^2 / \|A\|_F^2` plus the orthogonality defect, smallest for the leading triplets
    (Eckart-Young) and, for k < min(m, n), not zero there. `error_bound` does see it.

    Factors are unique only up to that phase, and only where the singular values are distinct: compare the
    reconstruction U S V^H, the singular values or principal angles, never the entries of U and V.

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
            branch over the whole box. The branches are the k leading ones at the lower end, in their order there. One
            that passes through zero changes its sign: the values of S are analytic, and ``S.abs()`` those of LAPACK.
            `certify` keeps the labels too. With k < min(m, n) it and `Problem.error` compare with the k leading
            triplets, which the branches need not be; `Problem.residual` does not. On a periodic axis whose labels
            do not return to themselves there is a cut at the ends, and an event ``"loop"``.

    Vectors are continuous in one parameter, in blocks too, but where they change places. (Real ones may change their
    signs at the ends of a periodic axis.) The common phase is that of least motion of u and v together. Who wants one
    side alone, and the span of its vectors rather than each of them, as a precoder does, takes `Subspace`: it is
    continuous through crossings, in several parameters too.
    """

    orthonormal, powers, packed = (0, 2), (0, 1, 0), SVDFactors

    def _described(self, m: int, n: int, k: int) -> tuple[Factor, ...]:
        return Factor("U", (m, k)), Factor("S", (k,), "real"), Factor("Vh", (k, n))

    def _leading(self, A: Tensor, k: int) -> tuple[Factors, Tensor]:
        U, S, Vh, failed = linalg.svd(A)
        # Cloned, so that the rest of the decomposition is let go.
        return tuple(x.clone() for x in (U[:, :, :k], S[:, :k], Vh[:, :k])), failed

    def align(self, x: Tensor, factors: Sequence[Tensor], **along: object) -> tuple[Factors, tuple[Event, ...]]:
        U, S, Vh = factors
        square = U.shape[1] == U.shape[2] == Vh.shape[2]
        mirrored = square and not U.is_complex() and len(linalg.slogdet(U @ Vh)[0].unique()) > 1
        while True:
            wanted = (torch.arange(S.shape[1]) < (self.rank or len(S[0]))).expand(S.shape)
            wanted = self._needed(wanted, x)
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


class Eigh(_Spectral):
    r"""Eigenvalues and orthonormal eigenvectors of a Hermitian matrix, A V = V L, eigenvalues ascending.

    Residual: :math:`(\|A V - V L\|_F^2 / \|L\|_F^2 + \|V^H V - I\|_F^2 / k)^{1/2}`; it is zero for any k eigenpairs.
    What is unique, and what training minimises, is as for `SVD`.

    Args:
        rank: k, the number of eigenpairs, those with the largest absolute values (as ``scipy.sparse.linalg.eigsh``
            chooses them); None means all.
        gauge, order: As for `SVD`; sorted values ascend.

    Vectors are continuous as those of `SVD`. Matrices that are not Hermitian count as failed; where none is, solving
    raises ValueError.
    """

    orthonormal, powers, packed, work = (1,), (1, 0), EigFactors, (0, 9)

    def _described(self, m: int, n: int, k: int) -> tuple[Factor, ...]:
        require_square(self, m, n, "nm.SVD")
        return Factor("eigenvalues", (k,), "real"), Factor("eigenvectors", (n, k))

    def _leading(self, A: Tensor, k: int) -> tuple[Factors, Tensor]:
        values, vectors, failed = linalg.eigh(A)
        return self._ordered(values, vectors, k), failed

    def align(self, x: Tensor, factors: Sequence[Tensor], **along: object) -> tuple[Factors, tuple[Event, ...]]:
        values, V = factors
        k = self.rank or values.shape[1]
        wanted = torch.zeros(values.shape, dtype=torch.bool)
        wanted.scatter_(1, values.abs().topk(k).indices.cpu(), True)
        wanted = self._needed(wanted, x)
        found = gauge.align(V, values, x, wanted, together=self.gauge == "subspace", **along)
        return (found.values(values), V @ found.rotations), found.events

    def _parts(self, factors: Sequence[Tensor]) -> Factors:
        return factors[1], factors[0], factors[1]

    def _joined(self, U: Tensor, s: Tensor, V: Tensor) -> Factors:
        return s, V

    def _turned(self, fitted: Sequence[Tensor], P: Tensor, s: Tensor) -> Factors:
        return s, fitted[1] @ P

    def _unordered(self, values: Tensor) -> Tensor:
        return values.diff(dim=-1) < 0

    def _order(self, values: Tensor, k: int) -> Tensor:
        chosen = values.abs().topk(k, dim=1).indices
        return chosen.gather(1, values.gather(1, chosen).argsort(dim=1))

    def _ordered(self, values: Tensor, vectors: Tensor, k: int) -> Factors:
        order = self._order(_apart(values), k)
        return values.gather(1, order).sort(dim=1).values, _columns(vectors, order)


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
    unique, powers, packed = False, (1, 0), EigFactors
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
        lengths = (torch.linalg.vector_norm(V, dim=1) - 1).square().mean(dim=1)
        size = squared_norm(V).clamp_min(torch.finfo(V.dtype).tiny)
        return relative(A.to(V.dtype) @ V - V * values[:, None, :], A) / size + lengths

    def invariant(self, factors: Sequence[Tensor]) -> Tensor:
        values, V = factors
        return (V * values[:, None, :]) @ linalg.inverse(V)[0]

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        return relative(A - self.invariant(factors), A).sqrt()

    def finish(self, fitted: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        V = out[1]
        V /= torch.linalg.vector_norm(V, dim=1, keepdim=True).clamp_min(torch.finfo(V.dtype).tiny)


@dataclass(frozen=True)
class Subspace(Operation):
    r"""An orthonormal basis U of the span of the k leading left (or right) singular vectors: a precoder, for one.

    Only the span is unique; the basis is continued along the parameter by orthogonal Procrustes. Crossings among the
    leading singular values do no harm; it takes a gap below them, sigma_k > sigma_{k+1}. Compare principal angles or
    the projectors U U^H.

    Residual: :math:`\|(I - U U^H) G U\|_F / \|U^H G U\|_F` with the Gram matrix :math:`G = A A^H` (right: A^H A),
    together with the defect of orthonormality; zero for the span of ANY k singular vectors. It weighs each direction
    by the square of its singular value, so that it hardly sees weak ones. `error_bound` sees both.

    Args:
        rank: k, the number of vectors.
        side: ``"left"``, U of shape (m, k), or ``"right"``, (n, k).
    """

    rank: int = 1
    side: str = "left"
    unique, certainty = False, "bound"
    orthonormal, powers = (0,), (0,)

    def __post_init__(self) -> None:
        checks.integer("rank", self.rank, 1)
        checks.choice("side", self.side, ("left", "right"))

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        require_rank(self.rank, m, n)
        return (Factor("U", (m if self.side == "left" else n, self.rank)),)

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        U, S, _, failed = linalg.svd(self._sided(A))
        k = self.rank
        if k < U.shape[1]:  # without a gap the span is not unique
            below = S[:, k] if k < S.shape[1] else 0
            failed = failed | ~(S[:, k - 1] - below > max(A.shape[1:]) * torch.finfo(A.dtype).eps * S[:, 0])
        return (U[:, :, :k].clone(),), failed

    def _sided(self, A: Tensor) -> Tensor:
        return A if self.side == "left" else A.mH

    def align(self, x: Tensor, factors: Sequence[Tensor], **along: object) -> tuple[Factors, tuple[Event, ...]]:
        (U,) = factors
        same = torch.ones((len(U), U.shape[2]), dtype=checks.real_dtype(U.dtype))
        found = gauge.align(U, same, x, together=True, **along)
        return (U @ found.rotations,), found.events

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        (U,), A = factors, self._sided(A)
        GU = A @ (A.mH @ U)
        inner = U.mH @ GU
        return relative(GU - U @ inner, inner) + self.orthogonality(factors)

    def invariant(self, factors: Sequence[Tensor]) -> Tensor:
        return factors[0] @ factors[0].mH

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        r"""Bound the relative error of the projector, :math:`\|P_k - U U^H\|_F / \sqrt k`.

        Let Q be an orthonormal basis of the columns of U, :math:`Q^H A = Y \Sigma W^H` a thin singular value
        decomposition, and r_j the columns of :math:`(I - Q Q^H) A W`. Singular vectors u, v of A with a value sigma
        not among the k largest give :math:`u^H r_j = \sigma v^H w_j - \sigma_j u^H Q y_j` and
        :math:`\sigma u^H Q y_j = \sigma_j v^H w_j`, hence
        :math:`u^H Q y_j = \sigma_j u^H r_j / (\sigma^2 - \sigma_j^2)`. So if :math:`\tau \ge \sigma_{k+1}(A)` is
        below every :math:`\sigma_j`, the sines of the angles between the spans are bounded, and

        .. math:: \|P_k - Q Q^H\|_F \le \sqrt2 \, \Bigl(\sum_j
                  \frac{\sigma_j^2 \|r_j\|^2}{(\sigma_j^2 - \tau^2)^2}\Bigr)^{1/2} .

        It is Wedin's theorem (BIT 12, 1972; Stewart and Sun, *Matrix Perturbation Theory*, 1990, section V.4) with a
        gap for each direction. By Weyl's theorem :math:`\tau = \|(I - Q Q^H) A\|_2` will do, and 0 for
        k = min(m, n). It is Inf where the gap is not certain.
        """
        A = self._sided(A)
        Q, P, k = self._basis(factors[0]), self.invariant(factors), self.rank
        rounding = 16 * (sum(A.shape[1:]) + 8) * torch.finfo(A.dtype).eps
        own = norm(P - Q @ Q.mH) + rounding * (norm(factors[0]) ** 2 + norm(P) + k)
        if k < A.shape[1]:
            slack = rounding * norm(A)
            rest = A - Q @ (Q.mH @ A)
            S, Wh = linalg.svd(Q.mH @ A)[1:3]
            tau = two_norm_above(rest) + slack if k < min(A.shape[1:]) else torch.zeros_like(slack)
            S, tau = S - slack[:, None], tau[:, None]
            sines = (torch.linalg.vector_norm(rest @ Wh.mH, dim=1) + slack[:, None]) * S / (S**2 - tau**2)
            own = own + torch.where(S[:, -1] > tau[:, 0], 2**0.5 * norm(sines), torch.inf)
        return own / k**0.5

    def _basis(self, U: Tensor) -> Tensor:
        """Return an orthonormal basis of the span that the factor stands for."""
        return torch.linalg.qr(U)[0]


class Projector(Subspace):
    r"""The orthogonal projector P = U U^H onto the span of the k leading left (or right) singular vectors.

    Unique where sigma_k > sigma_{k+1}: there is no gauge to choose, at the price of m x m numbers.

    Residual: :math:`(\|G P - P G\|_F^2 / \|G P\|_F^2 + \|P^2 - P\|_F^2 / k + |\mathrm{tr}\, P - k|^2 / k^2)^{1/2}` with
    G as for `Subspace`, and as blind; `error_bound` is that of `Subspace`.

    Args:
        rank: k, the number of vectors.
        side: ``"left"``, P of shape (m, m), or ``"right"``, (n, n).
    """

    unique, orthonormal = True, ()

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        (basis,) = super().factors(m, n)
        return (Factor("P", (basis.shape[0], basis.shape[0])),)

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        (U,), failed = super().exact(A)
        return (U @ U.mH,), failed

    def align(self, x: Tensor, factors: Sequence[Tensor], **along: object) -> tuple[Factors, tuple[Event, ...]]:
        return Operation.align(self, x, factors)

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        (P,), A = factors, self._sided(A)
        GP = A @ (A.mH @ P)
        defect = relative(GP - GP.mH, GP)
        trace = squared_norm(P.diagonal(dim1=1, dim2=2).sum(dim=1, keepdim=True) - self.rank) / self.rank**2
        return defect + squared_norm(P @ P - P) / self.rank + trace

    def invariant(self, factors: Sequence[Tensor]) -> Tensor:
        return factors[0]

    def _basis(self, P: Tensor) -> Tensor:
        return linalg.svd(P)[0][:, :, : self.rank]


@dataclass(frozen=True)
class QR(_Product):
    r"""The thin QR factorisation A = Q R with a positive diagonal of R, which makes it unique.

    Matrices whose first min(m, n) columns are dependent to working precision count as failed.

    Residual: :math:`(\|A - Q R\|_F^2 / \|A\|_F^2 + \|Q^H Q - I\|_F^2 / k + \|R_<\|_F^2 / \|A\|_F^2)^{1/2}` with the
    part of R below its diagonal; the signs (phases) of the diagonal it does not see.
    """

    orthonormal, powers, packed, work = (0,), (0, 1), QRFactors, (4, -4 / 3)

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        k = min(m, n)
        return Factor("Q", (m, k)), Factor("R", (k, n))

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        return split(linalg.qr(A))

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        return super().loss(A, factors) + relative(factors[1].tril(-1), A)

    def finish(self, fitted: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        out[1].triu_()


@dataclass(frozen=True)
class Cholesky(Operation):
    r"""The lower triangular factor L of a Hermitian positive definite matrix, A = L L^H.

    Matrices that are indefinite or not Hermitian count as failed; where none is Hermitian, solving raises ValueError.

    Residual: :math:`(\|A - L L^H\|_F^2 / \|A\|_F^2 + \|L_>\|_F^2 / \|A\|_F)^{1/2}` with the part of L above its
    diagonal; the signs (phases) of the diagonal it does not see.
    """

    powers, work = (0.5,), (0, 1 / 3)

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        require_square(self, m, n, "nm.QR")
        return (Factor("L", (n, n)),)

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        return split(linalg.cholesky(A))

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        (L,) = factors
        size = norm(A).sqrt().clamp_min(torch.finfo(A.dtype).tiny)
        return relative(A - L @ L.mH, A) + squared_norm(L.triu(1) / size[:, None, None])

    def finish(self, fitted: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        out[0].tril_()


@dataclass(frozen=True)
class Polar(_Product):
    r"""The polar decomposition A = U P of an m x n matrix of full rank.

    U (m x n) has orthonormal columns (rows, if m < n) and is the nearest such matrix to A; :math:`P = (A^H A)^{1/2}` is
    Hermitian positive semidefinite. Matrices with a singular value below max(m, n) eps times the largest count as
    failed, since U is not unique there.

    Residual: :math:`(\|A - U P\|_F^2 / \|A\|_F^2 + \|P - P^H\|_F^2 / \|P\|_F^2 + \|P_-\|_F^2 / \|P\|_F^2 +
    \delta)^{1/2}` with the mean defect of orthonormality delta, and the negative part :math:`P_-` of the Hermitian part
    of P, which training does not see.
    """

    orthonormal, powers, packed, work = (0,), (0, 1), PolarFactors, (8, 22)

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        return Factor("U", (m, n)), Factor("P", (n, n))

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        U, S, Vh, failed = linalg.svd(A)
        failed = failed | ~(S[:, -1] > max(A.shape[1:]) * torch.finfo(A.dtype).eps * S[:, 0])
        return (U @ Vh, (Vh.mH * S[:, None, :]) @ Vh), failed

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        P = factors[1]
        negative = linalg.eigh((P + P.mH) / 2)[0].clamp_max(0)
        return (self.loss(A, factors) + relative(negative, P)).sqrt()

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        P = factors[1]
        return super().loss(A, factors) + relative(P - P.mH, P)


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
    share, order = (P.mH @ guide).abs().square(), []
    share = _equal(s).to(share.dtype) @ share
    for k in range(guide.shape[2]):
        order.append(share[:, :, k].argmax(dim=1, keepdim=True))
        share = share.scatter(1, order[k][:, :, None].expand(-1, -1, share.shape[2]), -1)
    return torch.cat(order, dim=1)


def _towards(P: Tensor, s: Tensor, guide: Tensor) -> Tensor:
    """Turn columns of P (B, J, k), of values s, towards the guide: in phase, those of one value by a unitary matrix."""
    overlap, equal = P.mH @ guide, _equal(s)
    phase = torch.sgn(overlap.diagonal(dim1=1, dim2=2))
    turned = P * torch.where(phase == 0, 1, phase)[:, None, :]
    rows = equal.sum(dim=(1, 2)) > s.shape[1]
    if not followed(P) and rows.any():
        left, _, right, _ = linalg.svd(overlap[rows] * equal[rows])
        turned[rows] = P[rows] @ (left @ right)
    return turned


def _equal(s: Tensor) -> Tensor:
    """Which of the values s (B, k) are one, shape (B, k, k)."""
    return (s[:, :, None] - s[:, None, :]).abs() <= _rounding(s)[:, :, None]


def _rounding(s: Tensor) -> Tensor:
    """Difference, shape (B, 1), up to which values s (B, k) are one."""
    return _EQUAL * torch.finfo(s.dtype).eps * s.abs().amax(dim=1, keepdim=True)


def _apart(s: Tensor, sign: int = 1) -> Tensor:
    """Add so much to values s (B, k) that those which are one stay in their order when they are sorted."""
    return s + sign * _rounding(s) * torch.arange(s.shape[1], device=s.device)


def _diagonalised(M: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, in any order, and eigenvectors of Hermitian M (B, k, k).

    Where all have the same blocks, of at most two, by the rotation of Jacobi: it takes a twentieth of LAPACK's time.
    """
    linked = None if followed(M) else (M != 0).any(dim=0).triu(1)
    if linked is None or (linked.sum(dim=0) + linked.sum(dim=1)).max() > 1:
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
