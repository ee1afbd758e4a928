"""How often the residual fails: failure-informed adaptive sampling of the box, after FI-PINNs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import multivariate_normal
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
    """

    probability: float
    standard_error: float
    failures: Tensor
    candidates: Tensor
    residuals: Tensor


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

    @checks.explained
    def estimate(
        self, residual: Callable[[Tensor], Tensor], tolerance: float, box: Box, generator: torch.Generator
    ) -> FailureEstimate:
        """Estimate the failure probability of ``residual`` (p (B, d) -> (B,)) over the box, and find failing points.

        A residual that is not finite counts as a failure.

        Raises:
            ValueError: If ``residual`` returns another shape than (B,).
        """
        d = box.dimension

        def rho(x: Tensor) -> Tensor:
            r = residual(box.parameters(2 * x - 1)).detach().double().cpu()
            checks.require(
                r.shape == x.shape[:1], "residual", f"values of shape ({len(x)},)", tuple(r.shape), "return one a row"
            )
            return torch.where(torch.isfinite(r), r, torch.inf)

        def prior(count: int) -> Tensor:
            return torch.rand((count, d), dtype=torch.float64, generator=generator)

        x = first = prior(self.candidates)
        residuals = first_residuals = rho(x)
        needed = max(2, int(np.ceil(self.quantile * self.candidates)))
        for stage in range(1, self.stages + 1):
            failing = residuals > tolerance
            enough = int(failing.sum()) >= needed
            elite = x[failing] if enough else x[residuals.topk(needed).indices]
            proposal = _TruncatedGaussian(elite)
            if enough or stage == self.stages:
                break
            x = proposal.draw(self.candidates, generator)
            residuals = rho(x)
        # Where the prior itself fails often enough, it is the best proposal, and the estimate a plain fraction.
        share = 1.0 if stage == 1 and enough else self.defensive
        # The prior has density 1 on the unit cube. How many draws come from it is random: each has the mixture's law.
        from_prior = int((torch.rand(self.samples, dtype=torch.float64, generator=generator) < share).sum())
        x = torch.cat([prior(from_prior), proposal.draw(self.samples - from_prior, generator)])
        failed = rho(x) > tolerance
        terms = failed.double() / (share + (1 - share) * proposal.density(x) if share < 1 else 1.0)
        error = float(terms.std(correction=0)) / self.samples**0.5
        failures, candidates = (box.parameters(2 * u - 1) for u in (x[failed], first))
        return FailureEstimate(float(terms.mean()), error, failures, candidates, first_residuals)


class _TruncatedGaussian:
    """The Gaussian of some points, restricted to the unit cube and normalised there."""

    def __init__(self, points: Tensor):
        x, self.d = points.numpy(), points.shape[1]
        self.mean = x.mean(axis=0)
        self.covariance = np.atleast_2d(np.cov(x, rowvar=False)) + 1e-6 * np.eye(self.d)  # points may be one
        self._root = torch.from_numpy(np.linalg.cholesky(self.covariance))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw by rejection: the mean lies in the cube and so do the points, so a good part of the mass does."""
        x = torch.empty((0, self.d), dtype=torch.float64)
        while len(x) < count:
            z = torch.randn((2 * count + 16, self.d), dtype=torch.float64, generator=generator)
            new = torch.from_numpy(self.mean) + z @ self._root.T
            x = torch.cat([x, new[((new >= 0) & (new <= 1)).all(dim=1)]])
        return x[:count]

    def density(self, x: Tensor) -> Tensor:
        # Quasi-Monte Carlo, seeded, in three or more dimensions; an error of 1e-4 is far below that of the samples.
        gaussian = multivariate_normal(self.mean, self.covariance, seed=0, abseps=1e-4, releps=1e-4)
        mass = gaussian.cdf(np.ones(self.d), lower_limit=np.zeros(self.d))
        return torch.from_numpy(np.atleast_1d(gaussian.pdf(x.numpy())) / mass)
