"""The peers: what a user would really pick instead of a learned map, as strong as we can make it with SciPy and torch.

Exact solvers take matrices that were formed already. Approximations spend a budget of exact solves once, and are cheap
afterwards: interpolation of the entries, or projection of the problem onto the span of exact solutions.
"""

from neumatc.peers.base import Peer
from neumatc.peers.exact import numpy_batched, numpy_loop, scipy_batched, svd_by_gram, torch_cholesky, torch_lmmse
from neumatc.peers.interpolation import aaa, chebyshev, spline
from neumatc.peers.piecewise import piecewise_chebyshev
from neumatc.peers.projection import reduced_basis, residual_projection

__all__ = [
    "Peer",
    "aaa",
    "chebyshev",
    "numpy_batched",
    "numpy_loop",
    "piecewise_chebyshev",
    "reduced_basis",
    "residual_projection",
    "scipy_batched",
    "spline",
    "svd_by_gram",
    "torch_cholesky",
    "torch_lmmse",
]
