"""The peers: what a user would really pick instead of a learned map, as strong as we can make it with SciPy and torch.

They spend a budget of exact solves once, and are cheap afterwards: interpolation of the entries, or projection of the
problem onto the span of exact solutions.
"""

from neumatc.peers.base import Peer
from neumatc.peers.exact import torch_lmmse
from neumatc.peers.interpolation import aaa, chebyshev, spline
from neumatc.peers.piecewise import piecewise_chebyshev
from neumatc.peers.projection import reduced_basis, residual_projection

__all__ = [
    "Peer",
    "aaa",
    "chebyshev",
    "piecewise_chebyshev",
    "reduced_basis",
    "residual_projection",
    "spline",
    "torch_lmmse",
]
