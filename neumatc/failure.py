"""How often the residual fails: failure-informed adaptive sampling of the box, after FI-PINNs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import multivariate_normal, norm
from torch import Tensor

from neumatc import checks
from neumatc.box import Box


@dataclass(frozen=True)
class FailureEstimate:
    """Estimate of the failure probability P = P(residual(p) > tolerance), p uniform on the scales of the box.

    Attributes:
        probability: The importance-sampling estimate; unbiased, not a bound.
        standard_error: Its estimated standard error. It is 0 when no sample failed, which does not prove P = 0, and too
            small when the proposals cover a part of the failures only.
        failures: The samples that failed, shape (F, d).
        candidates: The uniform candidates of the first stage, shape (N1, d).
        residuals: Their residuals, shape (N1,).
        evaluations: Residual evaluations spent.
        proposal_mean, proposal_covariance: The last Gaussian proposal, in coordinates of the cube [0, 1]^d.
    """

    probability: float
    standard_error: float
    failures: Tensor
    candidates: Tensor
    residuals: Tensor
    evaluations: int
    proposal_mean: np.ndarray
    proposal_covariance: np.ndarray


@dataclass(frozen=True)
class FailureInformedSampling:
    r"""Self-adaptive importance sampling of the region where the residual exceeds a tolerance.

    After FI-PINNs (Gao, Yan, Zhou, SIAM J. Sci. Comput. 45, A1971, 2023, arXiv 2210.00279), for a uniform prior on a
    box, in coordinates in which its axes are linear:

    1. Draw ``candidates`` points from the current proposal (first the prior). If at least the fraction ``quantile`` of
       them fails, the failing ones are the elite; otherwise the ``quantile`` with the largest residuals. If that many
       of the prior's fail, failures are not rare, and step 3 takes the prior.
    2. The next proposal is the Gaussian with the elite's mean and covariance, truncated to the box. Repeat until a
       proposal's draws fail often enough, or ``stages`` are done.
    3. Draw ``samples`` fresh points from the last proposal h and estimate
       :math:`\hat P = \frac1N \sum_i 1[\rho(p_i) > \epsilon] \, \pi(p_i) / h(p_i)`.

    The density h is that of the truncated Gaussian: divided by the Gaussian's mass inside the box, without which the
    estimate is biased. One Gaussian can miss a second failure region, so, unlike that paper, step 3 draws from the
    mixture :math:`\delta \pi + (1 - \delta) h`, whose weights never exceed :math:`1/\delta` (a defensive mixture;
    Hesterberg, Technometrics 37, 1995).

    Args:
        candidates: N1, points per stage.
        samples: N2, points of the estimate.
        quantile: p0 in (0, 1], the elite's fraction.
        stages: Most proposals tried.
        defensive: delta in (0, 1], the prior's share in the mixture; 1 is plain Monte Carlo.
    """

    candidates: int = 300
    samples: int = 1000
    quantile: float = 0.1
    stages: int = 5
    defensive: float = 0.2

    def __post_init__(self) -> None:
        checks.integer("candidates", self.candidates, 2)
        checks.integer("samples", self.samples, 1)
        checks.integer("stages", self.stages, 1)
        checks.number("quantile", self.quantile, above=0, at_most=1)
        checks.number("defensive", self.defensive, above=0, at_most=1)

    def estimate(
        self,
        residual: Callable[[Tensor], Tensor],
        tolerance: float,
        box: Box,
        generator: torch.Generator,
    ) -> FailureEstimate:
        """Estimate the failure probability of ``residual`` (p (B, d) -> (B,)) over the box, and find failing points.

        A residual that is not finite counts as a failure.

        Raises:
            ValueError: If ``residual`` returns another shape than (B,).
        """
        d = box.dimension

        def rho(x: Tensor) -> Tensor:
            r = residual(box.parameters(2 * x - 1)).detach().double().cpu()
            if r.shape != x.shape[:1]:
                raise ValueError(f"`residual`: expected values of shape ({len(x)},), got {tuple(r.shape)}.")
            return torch.where(torch.isfinite(r), r, torch.inf)

        x = torch.rand((self.candidates, d), dtype=torch.float64, generator=generator)
        first, first_residuals = x, rho(x)
        residuals, evaluations = first_residuals, self.candidates
        needed = max(2, int(np.ceil(self.quantile * self.candidates)))
        for stage in range(1, self.stages + 1):
            failing = residuals > tolerance
            enough = int(failing.sum()) >= needed
            elite = x[failing] if enough else x[residuals.topk(needed).indices]
            proposal = _TruncatedGaussian.of(elite)
            if enough or stage == self.stages:
                break
            x = proposal.draw(self.candidates, generator)
            residuals, evaluations = rho(x), evaluations + self.candidates
        # Where the prior itself fails often enough, it is the best proposal, and the estimate a plain fraction.
        share = 1.0 if stage == 1 and enough else self.defensive
        from_prior = int((torch.rand(self.samples, dtype=torch.float64, generator=generator) < share).sum())
        x = torch.cat(
            [
                torch.rand((from_prior, d), dtype=torch.float64, generator=generator),
                proposal.draw(self.samples - from_prior, generator),
            ]
        )
        failed = rho(x) > tolerance
        # The prior has density 1 on the unit cube. How many draws come from it is random: each has the mixture's law.
        density = share + (1 - share) * proposal.density(x)
        terms = failed / density
        return FailureEstimate(
            probability=float(terms.mean()),
            standard_error=float(terms.std(correction=0)) / self.samples**0.5,
            failures=box.parameters(2 * x[failed] - 1),
            candidates=box.parameters(2 * first - 1),
            residuals=first_residuals,
            evaluations=evaluations + self.samples,
            proposal_mean=proposal.mean,
            proposal_covariance=proposal.covariance,
        )


class _TruncatedGaussian:
    """Gaussian restricted to the unit cube and normalised there."""

    def __init__(self, mean: np.ndarray, covariance: np.ndarray):
        self.mean, self.covariance = mean, covariance
        self._root = torch.from_numpy(np.linalg.cholesky(covariance))

    def mass(self) -> float:
        """Return the Gaussian's probability of the cube."""
        d = len(self.mean)
        if d == 1:
            return float(np.diff(norm.cdf([0.0, 1.0], self.mean[0], self.covariance[0, 0] ** 0.5))[0])
        # Quasi-Monte Carlo, seeded, in three or more dimensions; an error of 1e-4 is far below that of the samples.
        gaussian = multivariate_normal(self.mean, self.covariance, seed=0, abseps=1e-4, releps=1e-4)
        return float(gaussian.cdf(np.ones(d), lower_limit=np.zeros(d)))

    @classmethod
    def of(cls, points: Tensor) -> _TruncatedGaussian:
        x = points.numpy()
        spread = np.atleast_2d(np.cov(x, rowvar=False)) + 1e-6 * np.eye(x.shape[1])  # an elite may sit on one point
        return cls(x.mean(axis=0), spread)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw by rejection: the mean lies in the cube and so do the elite, so a good part of the mass does."""
        d, kept, total = len(self.mean), [], 0
        while total < count:
            z = torch.randn((2 * count + 16, d), dtype=torch.float64, generator=generator)
            x = torch.from_numpy(self.mean) + z @ self._root.T
            x = x[((x >= 0) & (x <= 1)).all(dim=1)]
            kept.append(x)
            total += len(x)
        return torch.cat(kept)[:count] if kept else torch.empty((0, d), dtype=torch.float64)

    def density(self, x: Tensor) -> Tensor:
        log = multivariate_normal(self.mean, self.covariance).logpdf(x.numpy())
        return torch.from_numpy(np.exp(np.atleast_1d(log)) / self.mass())
