"""The achievable sum rate of a linear equaliser, and the noise that it leaves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neumatc import checks, linalg


@checks.explained
def sum_rate(H: Tensor, W: Tensor, noise: float | Tensor) -> Tensor:
    """Return the achievable sum rate of the linear equaliser W y for y = H x + w, in bit/s/Hz.

    ``sum_k log2(1 + SINR_k)``, ``SINR_k = |w_k h_k|^2 / (sum_{j != k} |w_k h_j|^2 + w_k R w_k^H)``, w_k the k-th row
    of W and h_j the j-th column of H: Gaussian symbols of unit power, each stream decoded by itself with the others
    taken as noise, H known to the receiver. The rate is achieved by any W, exact or approximate, and is largest for
    W = H^H (H H^H + R)^(-1). Scaling a row of W by a number other than zero does not change it; a row of zeros
    carries no rate.

    Args:
        H: Channels, shape (B, M, K).
        W: Equalisers, shape (B, K, M), of the dtype and on the device of H.
        noise: Noise power per receive antenna over the transmit power per stream, above zero; or the covariance R of
            the noise, shape (M, M) or (B, M, M), of the dtype and on the device of H, Hermitian positive definite,
            which is not checked.

    Returns:
        The rates, shape (B,), real, of the precision of H.

    Raises:
        TypeError: If H, W or R is not a tensor of a supported dtype, or their dtypes differ.
        ValueError: For wrong shapes, different devices, or a ``noise`` that is not finite and above zero.
    """
    return torch.log1p(1 / post_equalisation_noise(H, W, noise)).sum(dim=1) / math.log(2.0)


@checks.explained
def post_equalisation_noise(H: Tensor, W: Tensor, noise: float | Tensor) -> Tensor:
    """Return the variance of what the equaliser W y adds to each symbol, once its bias is divided out: 1 / SINR_k.

    x_k + e_k = w_k y / (w_k h_k) for y = H x + w, and the variance of e_k is
    ``(sum_{j != k} |w_k h_j|^2 + w_k R w_k^H) / |w_k h_k|^2``: what a demapper takes for its noise, the ``no_eff`` of
    Sionna's ``lmmse_equalizer``. That computes it as 1 / (w_k h_k) - 1, which holds for exact LMMSE filters only; this
    holds for any W, biased or not.

    Args:
        H, W, noise: As for `sum_rate`.

    Returns:
        The variances, shape (B, K), real, of the precision of H; Inf for a row of W that gives no signal.

    Raises:
        TypeError, ValueError: As `sum_rate` does.

    Example:
        >>> import torch
        >>> H = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
        >>> post_equalisation_noise(H, H.mT, noise=0.5)
        tensor([[0.1250, 0.5000]])
    """
    H = checks.matrices("H", H, H, anything=True)
    B, M, K = H.shape
    W = checks.matrices("W", W, H, anything=True)
    given = [("W", W, [(B, K, M)])]
    if isinstance(noise, Tensor) and noise.ndim:
        given.append(("noise", noise, [(M, M), (B, M, M)]))
    else:
        noise = checks.number("noise", noise, above=0.0)
    for name, x, shapes in given:
        same, got = tuple(x.shape) in shapes and x.device == H.device, f"{tuple(x.shape)} on {x.device}"
        checks.require(x.dtype == H.dtype, name, f"{H.dtype} like `H`", x.dtype, "convert it with `.to(H)`", TypeError)
        checks.require(same, name, f"shape {shapes[-1]} on {H.device} for `H`", got, "convert it")
    own, disturbance = linalg.outputs(H, W, noise)
    return disturbance.clamp_min(torch.finfo(disturbance.dtype).tiny) / own.abs().square()
