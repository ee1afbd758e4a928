"""Measured matrices: samples in any array type, the interpolation through them, and what leaving one out tells."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.interpolate import RBFInterpolator, make_interp_spline
from scipy.sparse import issparse
from scipy.spatial.distance import cdist
from torch import Tensor

from neumatc import checks

# Of one parameter: samples that are left out at most.
_LEFT_OUT = 256


class Interpolation:
    """Values (N, M) at distinct points x (N, d) of the unit box, interpolated column by column.

    Cubic splines for one parameter (of lower degree for fewer than four samples); for several cubic radial basis
    functions with a linear polynomial.

    Args:
        x, values: The samples.
        missing: How many more there were, that were left out.
    """

    def __init__(self, x: np.ndarray, values: np.ndarray, missing: int = 0):
        self.x, self.values, self.missing = x, values, missing
        self._interpolate = (
            RBFInterpolator(x, values, kernel="cubic", degree=1) if x.shape[1] > 1 else _spline(x, values)
        )

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """Evaluate at points y (B, d)."""
        return self._interpolate(y if self.x.shape[1] > 1 else y[:, 0])

    @cached_property
    def left_out(self) -> np.ndarray:
        """Relative error (N,) of the interpolation of all other samples at each, in the Frobenius norm.

        NaN at the bounds of the box, where it would be an extrapolation; and of more than 256 samples of one parameter
        at most of them. For radial functions by the closed formula of Rippa (Adv. Comput. Math. 11, 1999).
        """
        count, d = self.x.shape
        inner = np.flatnonzero(((self.x > 0) & (self.x < 1)).all(axis=1))
        error, size = np.full(count, np.nan), np.linalg.norm(self.values, axis=1)
        if d > 1 and count > d + 1:
            P, K = np.hstack([np.ones((count, 1)), self.x]), cdist(self.x, self.x) ** 3
            inverse = np.linalg.inv(np.block([[K, P], [P.T, np.zeros((d + 1, d + 1))]]))[:count, :count]
            missed = (inverse @ self.values) / inverse.diagonal()[:, None]
            error[inner] = np.linalg.norm(missed, axis=1)[inner]
        elif d == 1 and len(inner):
            order = np.argsort(self.x[:, 0])
            x, places = self.x[order, 0], np.argsort(order)[inner[:: -(-len(inner) // _LEFT_OUT)]]
            # Away from the ends a spline without a sample is one without a knot there: the value at it that takes the
            # jump of the third derivative away is found from the jump of a spline that is one there and zero elsewhere.
            deep = places[(places > 2) & (places < count - 3)]
            if len(deep):
                unit = _spline(x[:, None], (np.arange(count)[:, None] == deep).astype(float))
                middle = (x[1:] + x[:-1]) / 2
                jumps, own = (np.diff(s.derivative(3)(middle), axis=0)[deep - 1] for s in (self._interpolate, unit))
                error[order[deep]] = np.linalg.norm(jumps, axis=1) / np.abs(own.diagonal())
            for k in order[np.setdiff1d(places, deep)]:
                others = np.arange(count) != k
                error[k] = np.linalg.norm(_spline(self.x[others], self.values[others])(self.x[k, 0]) - self.values[k])
        return error / np.where(size > 0, size, np.nan)

    def __str__(self) -> str:
        known = self.left_out[np.isfinite(self.left_out)]
        lost = f" ({self.missing} more were missing and left out)" if self.missing else ""
        told = (
            f"changes A by {np.median(known):.1e} (median), {known.max():.1e} (max)" if len(known) else "tells nothing"
        )
        return f"{len(self.x)}{lost}; leaving one out {told}"


def _spline(x: np.ndarray, values: np.ndarray) -> object:
    order = np.argsort(x[:, 0])
    return make_interp_spline(x[order, 0], values[order], k=min(3, len(x) - 1))


def sparse(A: object) -> bool:
    """Whether it is a sparse matrix of SciPy or torch, or some of a list are."""
    parts = A if isinstance(A, (list, tuple)) else [A]
    return any(x.layout != torch.strided if isinstance(x, Tensor) else issparse(x) for x in parts)


def dense(A: object, device: torch.device) -> Tensor:
    """Return matrices in any form, or a list of them, as one dense tensor; arrays on a device."""
    if isinstance(A, Tensor):
        return A.to_dense() if sparse(A) else A
    if isinstance(A, (list, tuple)) and any(isinstance(x, Tensor) or issparse(x) for x in A):
        return torch.stack([dense(x, device) for x in A])
    A = A.toarray() if issparse(A) else np.asarray(A)
    return checks.tensor(A.astype(np.float64) if A.dtype.kind in "biu" else A).to(device)


def tensor(name: str, value: Tensor | ArrayLike) -> Tensor:
    """Return samples as a tensor: compounds of a real and an imaginary part as complex, integers in double precision.

    Masked entries become NaN; any byte order goes; sparse matrices are made dense.
    """
    try:
        value = dense(value, "cpu") if sparse(value) else value
        found = value if isinstance(value, Tensor) else torch.from_numpy(_native(value))
    except (TypeError, ValueError):  # no numbers, or no regular shape
        expected = "a tensor, a NumPy array or lists of numbers of a regular shape"
        raise TypeError(f"`{name}`: expected {expected}, got {checks.describe(value)}; convert it.") from None
    whole = not (found.is_floating_point() or found.is_complex() or found.dtype is torch.bool)
    return (found.double() if whole else found).detach()


def _native(value: ArrayLike) -> np.ndarray:
    found = np.ma.filled(value, np.nan) if np.ma.isMaskedArray(value) else np.array(value)
    if found.dtype.names and sorted(field[:1].lower() for field in found.dtype.names) == ["i", "r"]:
        imaginary, real = sorted(found.dtype.names, key=str.lower)
        found = found[real] + 1j * found[imaginary]
    native = {"g": np.float64, "G": np.complex128}.get(found.dtype.char, found.dtype.newbyteorder("="))
    return found.astype(native)


def matrices(A: Tensor, p: Tensor, given: object) -> Tensor:
    """Return A if it has one matrix for each of the parameters p (N, d); name the transpose where an axis is elsewhere.

    Args:
        A, p: As tensors.
        given: A as the caller gave it.
    """
    count, shape = len(p), tuple(A.shape)
    # Of so few samples for so many parameters there is no interpolation.
    count, turned = (p.shape[1], True) if A.ndim == 3 and count < p.shape[1] in shape else (count, False)
    checks.require(not turned or count != len(A), "p", f"(N, d) with N = {count} as in `A`", tuple(p.shape), "pass p.T")
    if A.ndim == 3 and len(A) != count and count in shape:
        function = "p.T and " * turned + ("torch.permute" if isinstance(given, Tensor) else "np.transpose")
        ways = {1: f"{function}(A, (1, 0, 2))", 2: f"{function}(A, (2, 0, 1)), or (2, 1, 0) if all axes are reversed, "}
        ways[2] += "as h5py gives MATLAB's N x m x n"
        axis = 2 if shape[2] == count else 1
        got = f"{shape}, whose axis {axis} has length {count}{f', and `p` of {tuple(p.shape)}' * turned}"
        checks.require(False, "A", f"shape ({count}, m, n), one matrix per parameter", got, f"pass {ways[axis]}")
    return checks.matrices("A", A, p, anything=True)


def kept(p: Tensor, A: Tensor, missing: str) -> Tensor:
    """Return the mask (N,) of samples that are there: finite, and not zero throughout; raise unless asked to drop."""
    checks.choice("missing", missing, ("raise", "drop", "keep"))
    known, finite = torch.isfinite(p).all(dim=1), checks.finite(A)
    zero = (A == 0).flatten(1).all(dim=1).to(p.device) & (missing != "keep")
    good, drop = known & finite.to(p.device) & ~zero, "missing='drop' leaves them out"
    if missing != "drop" and not good.all():
        checks.require(known.all(), "p", "finite parameters", f"{int((~known).sum())} with NaN or Inf", drop)
        first = p[int(torch.argmin(good.int()))].tolist()
        count = f"{int((~good).sum())} of {len(p)}: {int((~finite).sum())} with NaN or Inf, {int(zero.sum())} zero"
        remedy = drop + ", missing='keep' takes zeros as data" * bool(zero.any())
        checks.require(False, "A", "finite matrices that are not zero", f"others, first at {first} ({count})", remedy)
    return good
