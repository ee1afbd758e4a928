"""Factorisations and subspaces of a matrix whose factors A determines up to a gauge, or at all: QR, Cholesky, polar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from neumatc import checks, gauge, linalg
from neumatc.linalg import identity_like, norm, relative, squared_norm, two_norm_above
from neumatc.operations import Factor, Factors, Operation, require_rank, require_square, split
from neumatc.report import Event


class QRFactors(NamedTuple):
    """Q (B, m, k) and R (B, k, n), as ``torch.linalg.qr`` returns them, with a positive diagonal of R."""

    Q: Tensor
    R: Tensor


class PolarFactors(NamedTuple):
    """U (B, m, n) and P (B, n, n), as ``scipy.linalg.polar`` returns them."""

    U: Tensor
    P: Tensor


class Product(Operation):
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
class Subspace(Operation):
    r"""An orthonormal basis U of the span of the k leading left (or right) singular vectors.

    Only the span is unique; the basis is continued along the parameter by orthogonal Procrustes. Its columns are no
    singular vectors: it is a precoder for a receiver that decodes the streams jointly, whose rate the span determines.
    A linear receiver, stream by stream, needs the vectors of `SVD`. Crossings among the leading singular values do no
    harm; it takes a gap below them, sigma_k > sigma_{k+1}. Compare principal angles or the projectors U U^H.

    Residual: :math:`\|(I - U U^H) G U\|_F / \|U^H G U\|_F` with the Gram matrix :math:`G = A A^H` (right: A^H A),
    together with the defect of orthonormality; zero for the span of ANY k singular vectors. It weighs each direction
    by the square of its singular value, so that it hardly sees weak ones. `error_bound` sees both, and a fit whether
    the span is the leading one, as for `SVD`.

    Args:
        rank: k, the number of vectors.
        side: ``"left"``, U of shape (m, k), or ``"right"``, (n, k).
    """

    rank: int = 1
    side: str = "left"
    unique, certainty = False, "bound"
    orthonormal, powers, needs = (0,), (0,), "singular value k is above the next"

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

    def wanted(self, A: Tensor, factors: Sequence[Tensor], residuals: Tensor) -> Tensor:
        """Whether no singular value is left out that is larger, up to the error."""
        if self.rank == min(A.shape[1:]):
            return torch.ones(len(A), dtype=torch.bool, device=A.device)
        A, Q = self._sided(A), torch.linalg.qr(self._columns(factors[0]))[0]
        inner = Q.mH @ A
        slack = 2 * residuals * norm(inner) + 4 * sum(A.shape[1:]) * torch.finfo(A.dtype).eps * norm(A)
        return linalg.two_norm_within(A - Q @ inner, linalg.svd(inner)[1][:, -1] + slack)

    def _columns(self, U: Tensor) -> Tensor:
        """Return k columns of the span that the factor stands for."""
        return U

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
            sines = (linalg.lengths(rest @ Wh.mH, 1) + slack[:, None]) * S / (S**2 - tau**2)
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

    unique, orthonormal, wanted = True, (), Subspace.wanted

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

    def _columns(self, P: Tensor) -> Tensor:
        draws = torch.randn(P.shape[1], self.rank, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        return P @ draws.to(P)

    def _basis(self, P: Tensor) -> Tensor:
        return linalg.svd(P)[0][:, :, : self.rank]


@dataclass(frozen=True)
class QR(Product):
    r"""The thin QR factorisation A = Q R with a positive diagonal of R, which makes it unique.

    Matrices whose first min(m, n) columns are dependent to working precision count as failed.

    Residual: :math:`(\|A - Q R\|_F^2 / \|A\|_F^2 + \|Q^H Q - I\|_F^2 / k + \|R_<\|_F^2 / \|A\|_F^2)^{1/2}` with the
    part of R below its diagonal; the signs (phases) of the diagonal it does not see.
    """

    orthonormal, powers, packed, work, needs = (0,), (0, 1), QRFactors, (4, -4 / 3), "A has independent columns"

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        k = min(m, n)
        return Factor("Q", (m, k)), Factor("R", (k, n))

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        return split(linalg.qr(A))

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        return super().loss(A, factors) + relative(factors[1].tril(-1), A)

    def finish(self, fitted: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        out[1].copy_(fitted[1].triu())


@dataclass(frozen=True)
class Cholesky(Operation):
    r"""The lower triangular factor L of a Hermitian positive definite matrix, A = L L^H.

    Matrices that are indefinite or not Hermitian count as failed; where none is Hermitian, solving raises ValueError.

    Residual: :math:`(\|A - L L^H\|_F^2 / \|A\|_F^2 + \|L_>\|_F^2 / \|A\|_F)^{1/2}` with the part of L above its
    diagonal; the signs (phases) of the diagonal it does not see. `error_bound` does.
    """

    certainty = "bound"
    powers, work, needs = (0.5,), (0, 1 / 3), "A is Hermitian positive definite"

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        require_square(self, m, n, "nm.QR")
        return (Factor("L", (n, n)),)

    def admitted(self, A: Tensor) -> tuple[Tensor, Tensor]:
        return linalg.hermitian(A)

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        return split(linalg.cholesky(A))

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        (L,) = factors
        size = norm(A).sqrt().clamp_min(torch.finfo(A.dtype).tiny)
        return relative(A - L @ L.mH, A) + squared_norm(L.triu(1) / size[:, None, None])

    def error_bound(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        r"""Bound the relative error, :math:`\|L - L_*\|_F / \|L_*\|_F`, with the factor :math:`L_*` of A.

        Of A its Hermitian part counts. Let T be the lower triangle of L with the real part of its diagonal, and
        :math:`E = T^{-1} (A - T T^H) T^{-H}`. Then :math:`L_* = T (I + \Gamma)` with a lower triangular Gamma, and
        :math:`\Gamma + \Gamma^H + \Gamma \Gamma^H = E`. So :math:`\Gamma = (E - \Gamma \Gamma^H)_{1/2}`, which
        stands for the part below the diagonal and half the diagonal, and has at most :math:`1 / \sqrt2` of the norm.
        For :math:`\epsilon = \|E\|_F < 1/2` this gives
        :math:`\|\Gamma\|_F \le g = \sqrt2 \, \epsilon / (1 + \sqrt{1 - 2 \epsilon})` (Drmac, Omladic and Veselic,
        SIAM J. Matrix Anal. Appl. 15, 1994), and

        .. math:: \|L_* - T\|_F \le \|T E_{1/2}\|_F + \|T\|_F \, g^2 / \sqrt2 .

        The rest of L is added; :math:`\|L_*\|_F^2 = \mathrm{tr}\, A`. It is Inf where :math:`\epsilon \ge 1/2`, or
        the diagonal of L is not positive.
        """
        (L,), unit = factors, 8 * (A.shape[1] + 4) * torch.finfo(A.dtype).eps  # four times what is needed
        A, diagonal = linalg.hermitian(A)[0], L.diagonal(dim1=1, dim2=2).real
        T = L.tril(-1) + torch.diag_embed(torch.where(diagonal > 0, diagonal, 1.0)).to(L.dtype)
        M = torch.linalg.solve_triangular(T, identity_like(T), upper=False)
        R = A - T @ T.mH
        grown, E = norm(M.abs() @ T.abs()), M @ R @ M.mH
        # M is not quite the inverse, and each product has its rounding.
        defect = norm(identity_like(T) - M @ T) + unit * grown
        computed = norm(E) + unit * (grown**2 + norm(M) ** 2 * norm(R))
        size = computed / (1 - defect) ** 2
        half = E.tril(-1) + torch.diag_embed(E.diagonal(dim1=1, dim2=2) / 2)
        turned = 2**0.5 * size / (1 + (1 - 2 * size).sqrt())
        unsure = size - norm(E) + unit * norm(E) + turned**2 / 2**0.5
        own = norm(T @ half) + norm(T) * unsure + norm(L - T) * (1 + unit)
        sure = (diagonal > 0).all(dim=1) & (defect < 1) & (size < 0.5)
        trace = A.diagonal(dim1=1, dim2=2).real.sum(dim=1)
        return torch.where(sure, own / trace.sqrt() * (1 + unit), torch.inf)

    def finish(self, fitted: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        out[0].copy_(fitted[0].tril())


@dataclass(frozen=True)
class Polar(Product):
    r"""The polar decomposition A = U P of an m x n matrix of full rank.

    U (m x n) has orthonormal columns (rows, if m < n) and is the nearest such matrix to A; :math:`P = (A^H A)^{1/2}` is
    Hermitian positive semidefinite. Matrices with a singular value below max(m, n) eps times the largest count as
    failed, since U is not unique there.

    Residual: :math:`(\|A - U P\|_F^2 / \|A\|_F^2 + \|P - P^H\|_F^2 / \|P\|_F^2 + \|P_-\|_F^2 / \|P\|_F^2 +
    \delta)^{1/2}` with the mean defect of orthonormality delta, and the negative part :math:`P_-` of the Hermitian part
    of P, which training does not see.
    """

    orthonormal, powers, packed, work, needs = (0,), (0, 1), PolarFactors, (8, 22), "A has full rank"

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
