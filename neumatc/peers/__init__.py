"""The peers: what a user would really pick instead of a learned map, as strong as we can make it with SciPy and torch.

Exact solvers take matrices that were formed already. Approximations spend a budget of exact solves once, and are cheap
afterwards: interpolation of the entries, or projection of the problem onto the span of exact solutions.
"""

from neumatc.peers.base import Peer
from neumatc.peers.exact import (
    numpy_batched,
    numpy_loop,
    scipy_batched,
    sionna_cholesky,
    svd_by_gram,
    torch_cholesky,
)
from neumatc.peers.interpolation import aaa, chebyshev, pod_regression, pod_spline, rbf, spline
from neumatc.peers.piecewise import piecewise_chebyshev
from neumatc.peers.projection import reduced_basis, residual_projection
from neumatc.peers.wireless_practice import group_precoders, lmmse_loop, sionna_lmmse, torch_lmmse

__all__ = [
    "Peer",
    "aaa",
    "chebyshev",
    "group_precoders",
    "lmmse_loop",
    "numpy_batched",
    "numpy_loop",
    "piecewise_chebyshev",
    "pod_regression",
    "pod_spline",
    "rbf",
    "reduced_basis",
    "residual_projection",
    "scipy_batched",
    "sionna_cholesky",
    "sionna_lmmse",
    "spline",
    "svd_by_gram",
    "torch_cholesky",
    "torch_lmmse",
]
