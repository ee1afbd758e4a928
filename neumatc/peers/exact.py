"""An exact solver of matrices that were formed already; the book has others, `studies.solvers`."""

from __future__ import annotations

import torch
from torch import Tensor

from neumatc import checks, linalg
from neumatc.linalg import gram


@checks.explained
def torch_lmmse(H: Tensor, noise: float) -> Tensor:
    """Compute the LMMSE receivers by torch's batched Cholesky factorisation, on all cores.

    Of the smaller of H^H H + s I and H H^H + s I the inverse is formed, and multiplied: torch 2.13 takes longer for
    solutions of many complex right-hand sides (twice as long for 64 x 8).

    Args:
        H: Channels, shape (B, m, n).
        noise: s, the power of the noise.

    Returns:
        Shape (B, n, m), of the dtype and device of H, in whose precision all is computed.
    """
    wide = H.shape[1] < H.shape[2]

    def solve(h: Tensor) -> Tensor:
        X = torch.cholesky_inverse(torch.linalg.cholesky(gram(h.mH if wide else h, noise)))
        return h.mH @ X if wide else X @ h.mH

    return linalg.in_threads(solve, H)
