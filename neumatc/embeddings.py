"""Embeddings Phi: box in R^d -> R^r, the small parametric factor of the map X(p) = C x_3 Phi(p)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from neumatc import checks


class Embedding(ABC):
    """A family of functions Phi(x; weights) on the cube [-1, 1]^d, onto which every box is scaled.

    An embedding is an immutable description, made of plain numbers; its weights live beside it in a dictionary of
    tensors. So it can be stored as JSON plus tensors, and fitted without hidden state. Subclasses are dataclasses.
    """

    registry: dict[str, type[Embedding]] = {}

    def __init_subclass__(cls) -> None:
        checks.register(Embedding.registry, cls)

    @abstractmethod
    def initialise(self, dimension: int, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw the weights in double precision on the CPU, for d = ``dimension`` and r = ``rank``."""

    @abstractmethod
    def __call__(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Evaluate Phi at x of shape (B, d), entries in [-1, 1]; returns shape (B, r)."""

    @abstractmethod
    def working_numbers(self, rank: int) -> int:
        """Real numbers of working memory that one parameter needs at the peak of an evaluation, Phi included."""

    def settings(self) -> dict[str, object]:
        """Return the constructor's arguments, as plain numbers."""
        return asdict(self)


@dataclass(frozen=True)
class SinusoidalMLP(Embedding):
    r"""Multi-layer perceptron with sine activations, as in SIREN.

    .. math:: h_1 = \sin(\omega (W_1 x + b_1)), \quad h_{l+1} = \sin(W_{l+1} h_l + b_{l+1}), \quad
              \Phi(x) = W_{out} h_L + b_{out}.

    The entries of W_1 are uniform in [-1, 1] and those of b_1 in [-pi, pi] / omega, so omega sets the largest angular
    frequency per unit of x (half the box), and the phases cover the circle. Later weights are uniform in
    +-sqrt(6 / width), which keeps the variance of every layer (Sitzmann et al., NeurIPS 2020, arXiv 2006.09661, whose
    constant omega in every layer is absorbed here into the weights).

    Args:
        layers: Hidden layers L, at least 1.
        width: Units of each hidden layer.
        frequency: omega, the frequency scale of the first layer: the largest angular frequency of a first-layer unit
            over half a box. It should exceed that of the result along p, which is pi times its oscillations across
            the box, with a margin; the appendix of the book has a search. But functions of frequency omega in d
            parameters are held down by some (2 omega / pi)^d collocation points only, so in several parameters a large
            omega fails. Default: 40 for one parameter, 5 for several.

    Example:
        >>> import torch, neumatc as nm
        >>> embedding = nm.SinusoidalMLP(layers=2, width=32, frequency=10.0)
        >>> weights = embedding.initialise(dimension=1, rank=5, generator=torch.Generator().manual_seed(0))
        >>> embedding(torch.zeros(7, 1, dtype=torch.float64), weights).shape
        torch.Size([7, 5])
    """

    layers: int = 1
    width: int = 128
    frequency: float | None = None

    def __post_init__(self) -> None:
        checks.integer("layers", self.layers, 1)
        checks.integer("width", self.width, 1)
        if self.frequency is not None:
            checks.number("frequency", self.frequency, above=0)

    def initialise(self, dimension: int, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
        def uniform(limit: float, *shape: int) -> Tensor:
            return limit * (2 * torch.rand(shape, dtype=torch.float64, generator=generator) - 1)

        frequency = self.frequency or (40.0 if dimension == 1 else 5.0)
        weights = {"weight1": uniform(frequency, self.width, dimension), "bias1": uniform(torch.pi, self.width)}
        limit = (6 / self.width) ** 0.5
        for layer in range(2, self.layers + 1):
            weights[f"weight{layer}"] = uniform(limit, self.width, self.width)
            weights[f"bias{layer}"] = uniform(self.width**-0.5, self.width)
        weights["weight_out"] = uniform(limit, rank, self.width)
        weights["bias_out"] = torch.zeros(rank, dtype=torch.float64)
        return weights

    def __call__(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        if x.shape[1] == 1:  # an outer product, for which a matrix product is several times slower
            h = torch.addcmul(weights["bias1"], x, weights["weight1"].T).sin_()
        else:
            h = torch.addmm(weights["bias1"], x, weights["weight1"].T).sin_()
        for layer in range(2, self.layers + 1):
            h = torch.addmm(weights[f"bias{layer}"], h, weights[f"weight{layer}"].T).sin_()
        return torch.addmm(weights["bias_out"], h, weights["weight_out"].T)

    def working_numbers(self, rank: int) -> int:
        return 2 * self.width + rank
