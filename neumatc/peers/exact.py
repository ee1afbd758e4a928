"""An exact solver of matrices that were formed already; the book has others, `studies.solvers`."""

from __future__ import annotations

import torch
from torch import Tensor

from neumatc import checks, linalg
from neumatc.linalg import gram


@checks.explained
def torch_lmmse(H: Tensor, noise: float) -> Tensor:
    """Compute the LMMSE receivers by torch's batched Cholesky factorisation of H^H H + s I, on all cores.

    Args:
        H: Channels, shape (B, m, n).
        noise: s, the power of the noise.

    Returns:
        Shape (B, n, m), of the dtype and device of H, in whose precision all is computed.
    """
    return linalg.in_threads(lambda h: torch.cholesky_solve(h.mH, torch.linalg.cholesky(gram(h, noise))), H)
