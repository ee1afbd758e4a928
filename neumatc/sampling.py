"""Where points go: quasi-random, Chebyshev and tensor designs."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor

from neumatc import checks

# How much denser scattered points are at the faces: 0 is the plain sequence, 1 the density of Chebyshev nodes.
_EDGES = 0.5


@checks.explained
def sobol(count: int, lower: Tensor, upper: Tensor, seed: int = 0) -> Tensor:
    """Return the first points of a scrambled Sobol sequence in a box (SciPy's): even and deterministic.

    Args:
        count: Number of points; powers of two are the most even.
        lower, upper: The box, shape (d,).
        seed: Seed of the scrambling.

    Returns:
        Shape (count, d), of the dtype and on the device of ``lower``.
    """
    x = torch.from_numpy(_drawn(max(0, (count - 1).bit_length()), lower.numel(), seed)[:count])
    return torch.lerp(lower.double().cpu(), upper.double().cpu(), x).to(lower)


@lru_cache(maxsize=16)
def _drawn(power: int, dimension: int, seed: int) -> np.ndarray:
    """Draw a full power of two, which the sequence is balanced for; SciPy takes a millisecond for it."""
    return qmc.Sobol(dimension, rng=seed).random_base2(power)


@checks.explained
def design(
    count: int, dimension: int, seed: int = 0, *, kind: str = "sobol", stretch: float = 0.0, periodic: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Parameters for snapshots on the cube [-1, 1]^d, with quadrature weights for the uniform measure.

    One parameter: the Chebyshev nodes y_i = cos((2i - 1) pi / (2N)) with Fejer's first rule, exact for polynomials of
    degree N - 1, its weights positive; with a stretch a they are moved to x_i = arcsin(a y_i) / arcsin(a), for
    `Chebyshev` polynomials of that stretch, and the weights multiplied by dx/dy. If it is
    periodic they are equidistant, x_i = 2i / N - 1, of equal weight. Several:

    - ``"sobol"``: a scrambled Sobol sequence u in [0, 1]^d, moved to u / 2 + (1 - cos(pi u)) / 4 in every
      direction, so denser at the faces, where interpolation and regression need it; the weights are proportional to the
      inverse density.
    - ``"tensor"``: the grid of the largest k^d <= N Chebyshev nodes, with the product of Fejer's weights.

    Args:
        count: N, of which grids take as many as fit.
        dimension: d, the number of parameters.
        seed: Seed of the sequence.
        kind: For several parameters.
        stretch: a, from 0 (the plain nodes) to below 1, for one parameter.
        periodic: Whether that is periodic.

    Returns:
        Points (N, d) and weights (N,), which sum to one, float64 on the CPU.
    """
    checks.choice("kind", kind, ("sobol", "tensor"))
    if dimension == 1 and periodic:
        x = torch.arange(count, dtype=torch.float64) * (2 / count) - 1
        return x[:, None], torch.full_like(x, 1 / count)
    if dimension == 1:
        angles = (torch.arange(count, dtype=torch.float64) + 0.5) * (torch.pi / count)
        j = torch.arange(1, count // 2 + 1, dtype=torch.float64)
        weights = (1 - 2 * (torch.cos(2 * j * angles[:, None]) / (4 * j**2 - 1)).sum(dim=1)) / count
        x = torch.cos(angles)
        if checks.number("stretch", stretch, at_least=0, below=1):
            weights = weights / torch.sqrt(1 - (stretch * x) ** 2)
            x, weights = torch.asin(stretch * x) / math.asin(stretch), weights / weights.sum()
        return x[:, None], weights
    if kind == "tensor":
        x, weights = design(tensor_side(count, dimension), 1)
        grid = torch.cartesian_prod(*[x[:, 0]] * dimension)
        return grid, torch.cartesian_prod(*[weights] * dimension).prod(dim=1)
    ones = torch.ones(dimension, dtype=torch.float64)
    u = sobol(count, 0 * ones, ones, seed)
    x = (1 - _EDGES) * u + _EDGES * (1 - torch.cos(torch.pi * u)) / 2
    weights = (1 - _EDGES + _EDGES * (torch.pi / 2) * torch.sin(torch.pi * u)).prod(dim=1)
    return 2 * x - 1, weights / weights.sum()


@checks.explained
def widest_stretch(count: int, accuracy: float) -> float:
    r"""Return the largest stretch of Chebyshev nodes that allows for an accuracy.

    .. math:: a = 1 / \cosh(\log(\varepsilon) / N) , \quad \text{for which} \quad
              \bigl((1 + \sqrt{1 - a^2}) / a\bigr)^{-N} = \varepsilon :

    the stretched variable has branch points, and this power is the factor that they leave in the error of N
    interpolated terms (Kosloff and Tal-Ezer, J. Comput. Phys. 104, 1993). The error has another factor, which grows
    with a: with hardly more nodes than convergence takes to begin it is far above that level.

    Args:
        count: N, the number of nodes.
        accuracy: epsilon, between 0 and 1; `nm.ClosedForm` takes four rounding units.

    Returns:
        a, between 0 and 1; it approaches 1, equally spaced nodes, as N grows.
    """
    count = checks.integer("count", count, 1)
    return 1 / math.cosh(math.log(checks.number("accuracy", accuracy, above=0, below=1)) / count)


@checks.explained
def tensor_side(count: int, dimension: int) -> int:
    """Return the side of the largest tensor grid.

    Args:
        count: Most points, at least 1.
        dimension: d, the number of parameters.

    Returns:
        The largest k with k^d <= count.
    """
    return int(count ** (1 / dimension) + 1e-9)  # the root may be rounded down
