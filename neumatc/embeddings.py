"""Embeddings Phi: box in R^d -> R^r, the small parametric factor of the map X(p) = C x_3 Phi(p)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice, takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from neumatc import checks, threads
from neumatc.box import Box


class Piece(NamedTuple):
    """A piece of the box: bounds in the units of the parameters, nodes per axis (none: one map for all), and terms."""

    lower: list[float]
    upper: list[float]
    nodes: list[list[float]]
    terms: int


class Embedding(ABC):
    r"""A family of functions on the cube [-1, 1]^d, onto which every box is scaled: K features and a linear last layer,

    .. math:: \Phi(x) = W_{out} \psi(x) + b_{out}, \qquad \psi: [-1, 1]^d \to \mathbb{R}^K .

    An embedding is an immutable description, made of plain numbers; its weights live beside it in a dictionary of
    tensors. So it can be stored as JSON plus tensors, and fitted without hidden state: `ClosedForm` solves for the last
    layer and leaves the features as they are drawn, `ResidualTraining` moves all weights that are `trainable`.
    Subclasses are frozen dataclasses.
    """

    registry: dict[str, type[Embedding]] = {}
    trainable: tuple[str, ...] | None = ("weight_out", "bias_out")
    """Names of the weights that gradient training may move; None means all."""
    precise: bool = False
    """Whether weights and x are kept in double precision in a map of single precision."""

    def __init_subclass__(cls) -> None:
        checks.register(Embedding.registry, cls)

    @abstractmethod
    def features(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Evaluate psi at x of shape (B, d), entries in [-1, 1]; returns shape (B, K). No feature is constant."""

    @abstractmethod
    def count(self, dimension: int) -> int:
        """Return K, the number of features, for d = ``dimension``; raise ValueError where the embedding has none."""

    def hidden(self, dimension: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw the weights of the features in double precision on the CPU; by default there are none."""
        return {}

    def initialise(self, dimension: int, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw all weights in double precision on the CPU, for d = ``dimension`` and r = ``rank``."""
        count = self.count(dimension)
        weights = self.hidden(dimension, generator)
        weights["weight_out"] = _uniform((6 / count) ** 0.5, generator, rank, count)
        weights["bias_out"] = torch.zeros(rank, dtype=torch.float64)
        return weights

    def __call__(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Evaluate Phi at x of shape (B, d), entries in [-1, 1]; returns shape (B, r)."""
        return torch.addmm(weights["bias_out"], self.features(x, weights), weights["weight_out"].T)

    def contract(self, x: Tensor, weights: dict[str, Tensor], columns: Tensor, out: Tensor | None = None) -> Tensor:
        """Return Phi(x) @ columns, the mode-3 product with real columns (r, M); in ``out`` if given."""
        phi = self(x, weights).to(columns.dtype)
        if checks.followed(x) or (out is None and torch.is_grad_enabled()):
            return phi @ columns
        out = columns.new_empty(len(phi), columns.shape[1]) if out is None else out
        threads.products([(phi, columns, out, None)])
        return out

    def suits(self, dimension: int, rank: int, weights: dict[str, Tensor]) -> bool:
        """Whether weights have the sizes that the settings name; asked of a file before anything of them is made."""
        return "weight_out" not in weights or tuple(weights["weight_out"].shape) == (rank, self.count(dimension))

    def terms(self, rank: int, weights: dict[str, Tensor]) -> int:
        """Return the most terms that one value sums, of ``rank`` rows of the latent tensor."""
        return rank

    def parts(self, weights: dict[str, Tensor]) -> int:
        """Return the number of pieces of the box."""
        return 1

    def pieces(self, box: Box, weights: dict[str, Tensor], rank: int) -> list[Piece]:
        """Return the pieces of the box; by default one."""
        return [Piece(box.here.lower.tolist(), box.here.upper.tolist(), [], rank)]

    def working_numbers(self, dimension: int, rank: int) -> int:
        """Real numbers of working memory that one parameter needs at the peak of an evaluation, Phi included."""
        return 2 * self.count(dimension) + rank

    def settings(self) -> dict[str, object]:
        """Return the constructor's arguments, as plain numbers."""
        return asdict(self)


def _uniform(limit: float, generator: torch.Generator, *shape: int) -> Tensor:
    return limit * (2 * torch.rand(shape, dtype=torch.float64, generator=generator) - 1)


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

    trainable = None

    def count(self, dimension: int) -> int:
        return self.width

    def hidden(self, dimension: int, generator: torch.Generator) -> dict[str, Tensor]:
        frequency = self.frequency or (40.0 if dimension == 1 else 5.0)
        weights, columns, limit, phases = {}, dimension, frequency, torch.pi
        for layer in range(1, self.layers + 1):
            weights[f"weight{layer}"] = _uniform(limit, generator, self.width, columns)
            weights[f"bias{layer}"] = _uniform(phases, generator, self.width)
            columns, limit, phases = self.width, (6 / self.width) ** 0.5, self.width**-0.5
        return weights

    def features(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        for layer in range(1, self.layers + 1):
            # One column makes an outer product, for which a matrix product is several times slower.
            product = torch.addcmul if x.shape[1] == 1 else torch.addmm
            x = product(weights[f"bias{layer}"], x, weights[f"weight{layer}"].T).sin_()
        return x


class Products(Embedding):
    """Products of functions of one parameter each: u_k1(x_1) ... u_kd(x_d), with u_0 = 1, over a set of indices k."""

    degree: int
    index: str

    def __post_init__(self) -> None:
        checks.choice("index", self.index, tuple(_INDEX_SETS))
        checks.integer("degree", self.degree, 2 if self.index == "smolyak" else 1)

    @abstractmethod
    def univariate(self, x: Tensor, axis: int = 0) -> Tensor:
        """Evaluate u_1 to u_degree of an axis at x of shape (B,); returns shape (degree, B)."""

    def indices(self, dimension: int) -> Tensor:
        """Return the index set without zero, shape (K, d), by rising total degree."""
        return _indices(self.degree, self.index, dimension)

    def count(self, dimension: int) -> int:
        return self.degree if dimension == 1 else len(self.indices(dimension))

    def suits(self, dimension: int, rank: int, weights: dict[str, Tensor]) -> bool:
        most = weights["weight_out"].shape[-1]
        few = self.degree * dimension <= most and _multi_indices(self.degree, self.index, dimension, most) is not None
        return few and super().suits(dimension, rank, weights)

    def features(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        if x.shape[1] == 1:
            return self.univariate(x[:, 0]).T
        indices = self.indices(x.shape[1]).to(x.device)
        result = None
        for axis, (xi, k) in enumerate(zip(x.T, indices.T)):
            u = self.univariate(xi, axis)
            u = torch.cat([torch.ones_like(u[:1]), u])[k]
            result = u if result is None else result.mul_(u)
        return result.T

    def working_numbers(self, dimension: int, rank: int) -> int:
        return 3 * self.count(dimension) + 2 * self.degree + rank


# Each holds the multi-indices k of degree D for which its function is at most D.
_INDEX_SETS = {
    "tensor": lambda k: max(k),
    "total": sum,
    "hyperbolic": lambda k: math.prod(i + 1 for i in k) - 1,
    "smolyak": lambda k: 2 ** sum((i - 1).bit_length() if i > 1 else i for i in k) - (not any(k)),
}


@lru_cache(maxsize=64)
def _indices(degree: int, index: str, dimension: int) -> Tensor:
    inside = _multi_indices(degree, index, dimension)
    return torch.tensor(sorted((k for k in inside if any(k)), key=lambda k: (sum(k), k)))


def _multi_indices(degree: int, index: str, dimension: int, most: int | None = None) -> list | None:
    """Return an index set, or None if it has more than ``most`` indices beside zero."""
    size, inside = _INDEX_SETS[index], [()]
    for _ in range(dimension):  # dimension by dimension: no set leaves k + (i,) inside when k is outside
        longer = ((*k, i) for k in inside for i in takewhile(lambda i, k=k: size((*k, i)) <= degree, range(degree + 1)))
        inside = list(islice(longer, most and most + 2))
        if most and len(inside) > most + 1:
            return None
    return inside


@dataclass(frozen=True)
class Chebyshev(Products):
    r"""Chebyshev polynomials, and their products in several parameters.

    .. math:: \psi_k(x) = T_{k_1}(x_1) \cdots T_{k_d}(x_d), \qquad T_k(\cos\theta) = \cos k\theta,

    computed by doubling, :math:`T_{2j} = 2 T_j^2 - 1` and :math:`T_{2j+1} = 2 T_j T_{j+1} - T_1`. For one parameter and
    as many nodes as terms, the closed form is interpolation at the Chebyshev nodes; where X(p) is analytic, its error
    falls geometrically once the degree exceeds about pi for each oscillation of X across the box (Trefethen,
    *Approximation Theory and Approximation Practice*, SIAM 2013, chapter 8).

    With a stretch a they are polynomials in :math:`y = \sin(x \arcsin a) / a` in the place of x, each parameter by
    itself (Kosloff and Tal-Ezer, J. Comput. Phys. 104, 1993). The nodes in x are then less dense at the ends of the box
    and closer together inside, so that about :math:`\pi a / \arcsin a`, between pi and 2, terms do for an oscillation;
    in return the error falls no faster than :math:`((1 + \sqrt{1 - a^2}) / a)^{-D}`, since x(y) has branch points at
    y = 1 / a and -1 / a.

    On a periodic axis the place of T_1, T_2, T_3, ... is taken by :math:`\cos \pi x, \sin \pi x, \cos 2 \pi x, \dots`:
    two terms for each oscillation across the box, and equidistant nodes.

    Args:
        degree: D, at least 1.
        index: Which products, for several parameters: ``"total"``: k_1 + ... + k_d <= D; ``"tensor"``: every k_i <= D;
            ``"hyperbolic"`` (sparse): (k_1 + 1) ... (k_d + 1) <= D + 1; ``"smolyak"``: those that a sparse grid of
            level log2(D), D a power of two from 2, determines (Bungartz and Griebel, Acta Numerica 13, 2004).
        stretch: a, from 0 (plain polynomials) to below 1; not on periodic axes.
        periodic: Whether each axis is periodic; empty: none is.

    Example:
        >>> import neumatc as nm
        >>> [nm.Chebyshev(8, index).count(2) for index in ("tensor", "total", "hyperbolic")]
        [80, 44, 22]
    """

    degree: int = 32
    index: str = "total"
    stretch: float = 0.0
    periodic: Sequence[bool] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("stretch", self.stretch, at_least=0, below=1)
        flags, remedy = self.periodic, "give True or False for each axis, such as (True, False)"
        good = isinstance(flags, Sequence) and all(isinstance(flag, bool) for flag in flags)
        checks.require(good, "periodic", "a flag for each axis", checks.shown(flags), remedy, TypeError)
        object.__setattr__(self, "periodic", tuple(flags))

    def count(self, dimension: int) -> int:
        expected, remedy = f"a flag for each of {dimension} axes, or none", "give one for each"
        checks.require(len(self.periodic) in (0, dimension), "periodic", expected, self.periodic, remedy)
        return super().count(dimension)

    def univariate(self, x: Tensor, axis: int = 0) -> Tensor:
        if any(self.periodic[axis : axis + 1]):
            k = torch.arange(1, self.degree + 1, dtype=torch.float64, device=x.device)[:, None]
            # cos t = sin(t + pi / 2); in double precision, as phases are large.
            phases = math.pi * (torch.ceil(k / 2) * x.double() + (k % 2) / 2)
            return torch.sin(phases).to(x.dtype)
        if self.stretch:
            # In double precision: polynomials of degree D magnify the rounding of their argument by up to D^2.
            x = (torch.sin(x.double() * math.asin(self.stretch)) / self.stretch).to(x.dtype)
        if checks.followed(x):
            recurrence = [torch.ones_like(x), x]
            for _ in range(self.degree - 1):
                recurrence.append(2 * x * recurrence[-1] - recurrence[-2])
            return torch.stack(recurrence[1:])
        if x.is_cuda:  # one kernel instead of two dozen, whose launches would take longer than the product with C
            return torch.special.chebyshev_polynomial_t(x, torch.arange(1, self.degree + 1, device=x.device)[:, None])
        T = x.new_empty(self.degree + 1, len(x))
        T[0], T[1] = 1, x
        minus_one, minus_x = x.new_tensor(-1.0), -x
        m = 1
        while 2 * m <= self.degree:  # T_{2m} to T_{4m-1} from T_m to T_{2m}
            even, odd = min(2 * m, self.degree // 2 + 1), min(2 * m, (self.degree + 1) // 2)
            torch.addcmul(minus_one, T[m:even], T[m:even], value=2, out=T[2 * m : 2 * even : 2])
            torch.addcmul(minus_x, T[m:odd], T[m + 1 : odd + 1], value=2, out=T[2 * m + 1 : 2 * odd + 1 : 2])
            m *= 2
        return T[1:]
