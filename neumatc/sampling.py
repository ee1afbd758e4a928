"""Sampling of the box: quasi-random designs, and failure-informed adaptive sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from scipy.stats import multivariate_normal, norm, qmc
from torch import Tensor

from neumatc import checks


def uniform(count: int, lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
    """Draw independent uniform points of a box.

    Args:
        count: Number of points.
        lower, upper: The box, shape (d,).
        generator: On the CPU.

    Returns:
        Shape (count, d), of the dtype and on the device of ``lower``.
    """
    x = torch.rand((count, lower.numel()), dtype=torch.float64, generator=generator)
    return _from_unit(x, lower, upper)


def sobol(count: int, lower: Tensor, upper: Tensor, seed: int = 0) -> Tensor:
    """Return the first points of a scrambled Sobol sequence in a box (SciPy's): even and deterministic.

    Args:
        count: Number of points; powers of two are the most even.
        lower, upper: The box, shape (d,).
        seed: Seed of the scrambling.

    Returns:
        Shape (count, d), of the dtype and on the device of ``lower``.
    """
    # Drawn as a full power of two, which the sequence is balanced for, then cut.
    x = qmc.Sobol(lower.numel(), rng=seed).random_base2(max(0, (count - 1).bit_length()))[:count]
    return _from_unit(torch.from_numpy(x), lower, upper)


def design(
    count: int, dimension: int, seed: int = 0, *, kind: str = "sobol", edges: float = 0.5, stretch: float = 0.0
) -> tuple[Tensor, Tensor]:
    r"""Parameters for snapshots on the cube [-1, 1]^d, with quadrature weights for the uniform measure.

    One parameter: the Chebyshev nodes y_i = cos((2i - 1) pi / (2N)) with Fejer's first rule, exact for polynomials of
    degree N - 1, its weights positive; with a stretch a they are moved to x_i = arcsin(a y_i) / arcsin(a), for
    `Chebyshev` polynomials of that stretch, and the weights multiplied by dx/dy. Several:

    - ``"sobol"``: a scrambled Sobol sequence u in [0, 1]^d, moved to (1 - e) u + e (1 - cos(pi u)) / 2 in every
      direction, so denser at the faces, where interpolation and regression need it; the weights are proportional to the
      inverse density.
    - ``"tensor"``: the grid of the largest k^d <= N Chebyshev nodes, with the product of Fejer's weights.
    - ``"sparse"``: the largest sparse grid of at most N points after Smolyak, on the nested extrema
      cos(j pi / 2^l) (Bungartz and Griebel, Acta Numerica 13, 2004). Its quadrature weights can be negative, which
      least squares cannot use; so here they are equal.

    Args:
        count: N, of which grids take as many as fit.
        dimension: d, the number of parameters.
        seed: Seed of the sequence.
        kind: For several parameters.
        edges: e, from 0 (the plain sequence) to below 1.
        stretch: a, from 0 (the plain nodes) to below 1, for one parameter.

    Returns:
        Points (N, d) and weights (N,), which sum to one, float64 on the CPU.
    """
    checks.choice("kind", kind, ("sobol", "tensor", "sparse"))
    if dimension == 1:
        angles = (torch.arange(count, dtype=torch.float64) + 0.5) * (torch.pi / count)
        j = torch.arange(1, count // 2 + 1, dtype=torch.float64)
        weights = (1 - 2 * (torch.cos(2 * j * angles[:, None]) / (4 * j**2 - 1)).sum(dim=1)) / count
        y = torch.cos(angles)
        if checks.number("stretch", stretch, at_least=0, below=1):
            x = torch.asin(stretch * y) / math.asin(stretch)
            weights = weights / torch.sqrt(1 - (stretch * y) ** 2)
            return x[:, None], weights / weights.sum()
        return y[:, None], weights
    if kind == "tensor":
        x, weights = design(tensor_side(count, dimension), 1)
        grid = torch.cartesian_prod(*[x[:, 0]] * dimension)
        return grid, torch.cartesian_prod(*[weights] * dimension).prod(dim=1)
    if kind == "sparse":
        x = sparse_grid(sparse_level(count, dimension), dimension)
        return x, torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    ones = torch.ones(dimension, dtype=torch.float64)
    u = sobol(count, 0 * ones, ones, seed)
    x = (1 - edges) * u + edges * (1 - torch.cos(torch.pi * u)) / 2
    weights = (1 - edges + edges * (torch.pi / 2) * torch.sin(torch.pi * u)).prod(dim=1)
    return 2 * x - 1, weights / weights.sum()


def widest_stretch(count: int, accuracy: float) -> float:
    r"""Return the largest stretch of Chebyshev nodes that allows for an accuracy.

    .. math:: a = 1 / \cosh(\log(\varepsilon) / N) , \quad \text{for which} \quad
              \bigl((1 + \sqrt{1 - a^2}) / a\bigr)^{-N} = \varepsilon :

    the stretched variable has branch points, which keep the error of N interpolated terms at about that level
    (Kosloff and Tal-Ezer, J. Comput. Phys. 104, 1993).

    Args:
        count: N, the number of nodes.
        accuracy: epsilon, between 0 and 1; `nm.ClosedForm` takes four rounding units.

    Returns:
        a, between 0 and 1; it approaches 1, equally spaced nodes, as N grows.
    """
    count = checks.integer("count", count, 1)
    return 1 / math.cosh(math.log(checks.number("accuracy", accuracy, above=0, below=1)) / count)


def tensor_side(count: int, dimension: int) -> int:
    """Return the side of the largest tensor grid.

    Args:
        count: Most points, at least 1.
        dimension: d, the number of parameters.

    Returns:
        The largest k with k^d <= count.
    """
    side = 1
    while (side + 1) ** dimension <= count:
        side += 1
    return side


def sparse_level(count: int, dimension: int) -> int:
    """Return the level of the largest sparse grid.

    Args:
        count: Most points, at least 1.
        dimension: d, the number of parameters.

    Returns:
        The largest level whose `sparse_grid` has at most ``count`` points.
    """
    level = 0
    while len(sparse_grid(level + 1, dimension)) <= count:
        level += 1
    return level


@lru_cache(maxsize=64)
def sparse_grid(level: int, dimension: int) -> Tensor:
    """Return a sparse grid: the points that level l_i adds in direction i, for all l_1 + ... + l_d <= level.

    Args:
        level: At least 0; level 0 is the centre of the cube.
        dimension: d, the number of parameters.

    Returns:
        The points, shape (N, d), float64.
    """
    new = [[0.0], [-1.0, 1.0]]
    for finer in range(2, level + 1):
        new.append(np.cos(np.arange(1, 2**finer, 2) * np.pi / 2**finer).tolist())
    levels = [k for k in product(range(level + 1), repeat=dimension) if sum(k) <= level]
    points = [point for k in levels for point in product(*(new[i] for i in k))]
    return torch.tensor(points, dtype=torch.float64)


def _from_unit(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    return torch.lerp(lower.double().cpu(), upper.double().cpu(), x).to(lower)


@dataclass(frozen=True)
class FailureEstimate:
    """Estimate of the failure probability P = P(residual(p) > tolerance), p uniform in the box.

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
    box:

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
        lower: Tensor,
        upper: Tensor,
        generator: torch.Generator,
    ) -> FailureEstimate:
        """Estimate the failure probability of ``residual`` (p (B, d) -> (B,)) over the box, and find failing points.

        A residual that is not finite counts as a failure.

        Raises:
            ValueError: If ``residual`` returns another shape than (B,).
        """
        d = lower.numel()

        def rho(x: Tensor) -> Tensor:
            r = residual(_from_unit(x, lower, upper)).detach().double().cpu()
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
            failures=_from_unit(x[failed], lower, upper),
            candidates=_from_unit(first, lower, upper),
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
