"""Equalisers as a demapper wants them: filters of unit gain, and the variance of what they add to each symbol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from neumatc import checks, linalg
from neumatc.linalg import wide
from neumatc.operations import LMMSE, Factor, Factors, Operation, PseudoInverse


class EqualiserFactors(NamedTuple):
    """X, shape (B, n, m), and v, shape (B, n), real."""

    X: Tensor
    v: Tensor


@dataclass(frozen=True)
class Equaliser(Operation):
    r"""Unbiased LMMSE or zero-forcing filters X and variances v: X y = x + e with E|e_k|^2 = v_k, for y = H x + w.

    LMMSE: rows of :math:`H^H (H H^H + R)^{-1}`, each divided by its :math:`d_k = x_k h_k`, and :math:`v_k = 1/d_k - 1`.
    Zero forcing: :math:`X = H^+`, and the diagonal of :math:`X R X^H`. These are the two outputs of Sionna's
    ``lmmse_equalizer`` and ``zf_equalizer``, of which the symbol is X y. Timing, of all users or of each, turns columns
    of H and rows of X alike, and leaves v as it is: a fit takes it out first (`turns`).

    Residual: the largest over the streams k of

    .. math:: \sqrt{|\sigma_k^2 / v^*_k - 1|}, \quad |g_k - 1| / \sqrt{v^*_k} \quad\text{and}\quad |v_k / v^*_k - 1|,

    with the gain :math:`g_k` of the symbol, the variance :math:`\sigma_k^2` of the interference and noise that the
    filter really leaves, its gain divided out, and the exact :math:`v^*`. So the tolerance says what a receiver loses
    on 99 % of the parameters, of the channel that it is given: at most ``tol ** 2`` of the ratio of signal to
    interference and noise, 0.011 dB for 0.05; symbols are off by no more than ``tol`` standard deviations of what is in
    them anyway; and the demapper's variance is right to ``tol``. A single parameter may lose more. For zero
    forcing, which is at no optimum of that ratio, it is without the root: the ratio is that of exact filters to
    ``tol``, above or below. It takes an exact solve, which fits count.

    Args:
        kind: ``"lmmse"`` or ``"zf"``.
        noise: s, above zero, of white noise R = s I; or ``"beside"`` for a family [H | R], as `families.beside` makes
            it.

    Example:
        >>> import torch, neumatc as nm
        >>> H = nm.families.trigonometric(size=4, shift=3, dtype=torch.float64)
        >>> X, v = nm.Problem(H, nm.Equaliser(noise=0.1)).exact(0.5).value
        >>> X.shape, v.shape
        (torch.Size([1, 4, 4]), torch.Size([1, 4]))
    """

    kind: str = "lmmse"
    noise: float | str = 1.0
    residual_solves, packed = True, EqualiserFactors
    needs = "no column of H is zero and the covariance is positive definite"

    def __post_init__(self) -> None:
        checks.choice("kind", self.kind, ("lmmse", "zf"))
        if self.noise != "beside":
            object.__setattr__(self, "noise", checks.number("noise", self.noise, above=0))

    @property
    def _filters(self) -> LMMSE:
        return LMMSE(self.noise, unbiased=True)

    @property
    def turns(self) -> tuple[tuple[str, ...], ...]:
        return *self._filters.turns, ("",)

    def factors(self, m: int, n: int) -> tuple[Factor, ...]:
        (X,) = self._filters.factors(m, n)
        n, m = X.shape
        good = self.kind == "lmmse" or m >= n
        checks.require(good, "family", "at least as many rows as columns for zero forcing", f"{m} x {n}", "take LMMSE")
        return X, Factor("v", (n,), "real")

    def cost(self, m: int, n: int) -> float:
        return self._filters.cost(m, n) + 4 * self.factors(m, n)[0].shape[0] ** 2 * m

    def exact(self, A: Tensor) -> tuple[Factors, Tensor]:
        A, dtype = wide(A), A.dtype
        H, R = self._filters.parts(A)
        (X,), failed = self._filters.exact(A) if self.kind == "lmmse" else PseudoInverse().exact(H)
        gain, disturbance = linalg.outputs(H, X, R)
        v = disturbance / gain.abs().square()
        failed = failed | ~(torch.isfinite(v) & (v > 0)).all(dim=1)
        return (X.to(dtype), v.to(checks.real_dtype(dtype))), failed

    def residual(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        squares, failed = self._squares(A, factors)
        return torch.where(failed, torch.inf, squares.amax(dim=(0, 2)).sqrt()).to(checks.real_dtype(factors[0].dtype))

    def loss(self, A: Tensor, factors: Sequence[Tensor]) -> Tensor:
        squares, _ = self._squares(A, factors)
        return squares.sum(dim=0).mean(dim=1).to(checks.real_dtype(factors[0].dtype))

    def error(self, factors: Sequence[Tensor], exact: Sequence[Tensor]) -> Tensor:
        return torch.maximum(super().error(factors, exact), (factors[1] / exact[1] - 1).abs().amax(dim=1))

    def _squares(self, A: Tensor, factors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the squares of the three numbers of the residual, shape (3, B, n), and where no X is to be had."""
        A, (X, v) = wide(A), factors
        H, R = self._filters.parts(A)
        (exact, best), failed = self.exact(A)
        gain, _ = linalg.outputs(H, wide(X), R)
        unit = wide(X) / torch.where(gain.abs() > torch.finfo(best.dtype).tiny ** 0.5, gain, 1)[:, :, None]
        # At the least variance what is lost is that of the difference alone, which rounding does not spoil.
        wrong = unit - exact if self.kind == "lmmse" else unit
        lost = linalg.outputs(H, wrong, R)[1] / best
        lost = lost if self.kind == "lmmse" else (lost - 1).square()
        return torch.stack([lost, (gain - 1).abs().square() / best, (v.double() / best - 1).square()]), failed
