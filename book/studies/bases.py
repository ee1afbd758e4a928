"""Embeddings beside those of the library: functions for smooth results in one and several parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neumatc import checks, sampling
from neumatc.embeddings import Embedding, Products


@dataclass(frozen=True)
class FourierExtension(Products):
    r"""Sines and cosines of a period longer than the box, and their products in several parameters.

    .. math:: u_{2k-1}(x) = \sin(\pi k x / T), \qquad u_{2k}(x) = \cos(\pi k x / T), \qquad x \in [-1, 1], \ T > 1.

    X need not be periodic. The functions are nearly dependent on the box, so their coefficients are found by
    regularised least squares, which is stable for the values though not for the coefficients (Adcock, Huybrechs,
    Martin-Vaquero, Found. Comput. Math. 14, 2014, doi 10.1007/s10208-013-9158-8). For oscillating results it needs
    fewer terms than polynomials: in the limit 2 T for each oscillation across the box instead of pi.

    Args:
        degree: Number of functions per parameter: frequencies up to about pi degree / (2 T) over half the box.
        extension: T, above 1.
        index: As for `nm.Chebyshev`.
    """

    degree: int = 64
    extension: float = 1.5
    index: str = "total"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("extension", self.extension, above=1)

    def univariate(self, x: Tensor, axis: int = 0) -> Tensor:
        """Evaluate u_1 to u_degree at x of shape (B,); returns shape (degree, B)."""
        k = (torch.arange(2, self.degree + 2, device=x.device) // 2).to(x.dtype)
        phase = (k * (math.pi / self.extension))[:, None] * x
        phase[1::2] += math.pi / 2
        return phase.sin_()


@dataclass(frozen=True)
class RadialBasis(Embedding):
    r"""Radial basis functions around quasi-random centres, plus a linear polynomial.

    .. math:: \psi_k(x) = \|x - c_k\|^s, \quad k = 1, \dots, K - d, \qquad \psi_{K-d+i}(x) = x_i .

    Args:
        centres: Number of centres c_k, a scrambled Sobol sequence.
        power: s, odd: 1, 3 (cubic) or 5 (quintic).
    """

    centres: int = 256
    power: int = 3

    def __post_init__(self) -> None:
        checks.integer("centres", self.centres, 1)
        checks.choice("power", self.power, (1, 3, 5))

    def count(self, dimension: int) -> int:
        """Return K: the centres, and the parameters themselves."""
        return self.centres + dimension

    def hidden(self, dimension: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw the centres."""
        ones = torch.ones(dimension, dtype=torch.float64)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        return {"centres": sampling.sobol(self.centres, -ones, ones, seed)}

    def features(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Evaluate psi at x of shape (B, d); returns shape (B, K)."""
        distances = (x[:, None, :] - weights["centres"]).square_().sum(dim=-1)
        return torch.cat([distances.pow_(self.power / 2), x], dim=1)

    def working_numbers(self, dimension: int, rank: int) -> int:
        """Return the real numbers that one parameter needs at the peak, differences to the centres included."""
        return (2 + dimension) * self.count(dimension) + rank
