"""Precoders of a band from few exact ones: held, aligned, and along the sphere and the Grassmann manifold.

All take the channels H (N, m, n) of one user's downlink, the number of streams k, and the tones to solve exactly, and
return V (N, n, k) with orthonormal columns, which `studies.practice.precoded_rate` judges. Only the span of V matters
for that, and only the spans are interpolated but by `spherical`, whose single vector is a span.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neumatc import checks
from neumatc.wireless import from_sionna
from studies import practice, tones
from studies.solvers import svd_by_gram
from studies.tones import Filters


def by_gram(H: Tensor, rank: int, solves: int | None = None) -> Filters:
    """Return the leading right singular vectors at every tone, by eigenvectors of Gram matrices on all cores.

    Args:
        H: Channels on the grid of tones, shape (N, m, n).
        rank: k, at most min(m, n).
        solves: Not used; there for the signature that all share.

    Returns:
        V, shape (N, n, k), of the dtype of H, and N.

    Raises:
        ValueError: For a rank out of range, NaN or Inf.
    """
    tones.budget(H, solves)
    return Filters(svd_by_gram(tones.read(H, slice(None)), rank)[2].mH, len(H))


def held(H: Tensor, rank: int, solves: int | None = None) -> Filters:
    """Hold the precoder of a group's middle: `studies.practice.group_precoders`.

    Args:
        H, rank: As for `by_gram`.
        solves: The most groups. All have the same number of tones, but the last. Default: groups of 12 tones.

    Returns:
        V, shape (N, n, k), of the dtype of H, and the number of groups.

    Raises:
        ValueError: For a rank or groups out of range, NaN or Inf.
    """
    return _in_groups(H, rank, solves, interpolated=False)


def of_mean_gram(H: Tensor, rank: int, size: int | None = None) -> Tensor:
    """Return one precoder for each group of tones, the leading eigenvectors of the mean of its Gram matrices.

    Of all precoders that are the same at every tone of a group this one sends most power to the user.

    Args:
        H: Channels on the grid of tones, shape (N, m, n), all of which are read.
        rank: k, at most n.
        size: Tones in a group, at least 1; the last group may be smaller. Default: all tones are one group.

    Returns:
        V, shape (N, n, k), the same at every tone of a group, of the dtype of H, with orthonormal columns.

    Raises:
        ValueError: For a rank or size out of range, NaN or Inf.
    """
    tones.budget(H, None)
    N, rank, A = len(H), checks.integer("rank", rank, 1, H.shape[2]), tones.read(H, slice(None))
    size = N if size is None else checks.integer("size", size, 1)
    # Tones of zeros fill the last group; eigenvectors are those of the sum, too.
    A = torch.cat([A, A.new_zeros(-N % size, *A.shape[1:])]).view(-1, size * H.shape[1], H.shape[2])
    return torch.linalg.eigh(A.mH @ A)[1][:, :, -rank:].flip(-1)[torch.arange(N) // size]


def aligned(H: Tensor, rank: int, solves: int | None = None) -> Filters:
    """Interpolate linearly between bases that were turned towards each other: `studies.practice.group_precoders`.

    Args:
        H, rank, solves: As for `held`.

    Returns:
        V, shape (N, n, k), of the dtype of H, and the number of groups.

    Raises:
        ValueError: As `held`.
    """
    return _in_groups(H, rank, solves, interpolated=True)


def _in_groups(H: Tensor, rank: int, solves: int | None, interpolated: bool) -> Filters:
    count = tones.budget(H, solves)
    size = -(-len(H) // count)
    V = practice.group_precoders(H, rank, size, interpolated=interpolated)
    remedy = "leave such tones out, or estimate them again"
    checks.require(checks.finite(V).all(), "H", "finite entries", "NaN or Inf in the middle of a group", remedy)
    return Filters(V, -(-len(H) // size))


def spherical(H: Tensor, rank: int = 1, solves: int | None = None, *, phases: int = 16) -> Filters:
    r"""Interpolate beamformers between two tones by a weighted sum with a phase, and scale it to unit length.

    .. math:: v(t) = \frac{(1 - c) \, v_0 + c \, e^{j \theta} v_1}{\|(1 - c) \, v_0 + c \, e^{j \theta} v_1\|}, \qquad
              c = \frac{t - t_0}{t_1 - t_0}

    A singular vector is known up to a phase, so the phase between two of them is chosen: that of a few which gives the
    strongest signal, :math:`\|H v\|`, at the tone in the middle. Source: Choi and Heath, IEEE Trans. Signal Process.
    53, 2005, where the receiver makes this choice, by the least gain or the capacity between, and feeds it back; to
    judge one tone in the middle is our shorter way.

    Args:
        H: Channels on the grid of tones, shape (N, m, n). Solved tones and those in the middle are read.
        rank: 1; more streams have no one phase, see `aligned` and `geodesic`.
        solves: Equally spaced tones to solve, at least 2, both ends among them. Default: one in 12.
        phases: How many are tried, equally spaced on the circle.

    Returns:
        v, shape (N, n, 1), of the dtype of H, and the exact solves.

    Raises:
        ValueError: For another rank, NaN or Inf, or too few or many solves or phases.
    """
    chosen, V = _solved(H, checks.integer("rank", rank, 1, 1), solves)
    angles = torch.arange(checks.integer("phases", phases, 1), dtype=torch.float64) * (2 * math.pi / phases)
    turns = torch.exp(1j * angles).to(H.dtype)
    middles = (chosen[:-1] + chosen[1:]) // 2
    weight = ((middles - chosen[:-1]).double() / chosen.diff()).to(checks.real_dtype(H.dtype))[:, None, None]
    tried = _unit((1 - weight) * V[:-1] + weight * V[1:] * turns)  # (segments, n, phases)
    best = torch.linalg.vector_norm(tones.read(H, middles) @ tried, dim=1).argmax(dim=1)
    i, c = tones.between(len(H), chosen, H.dtype)
    c, ends = c[:, None, None], V[1:] * turns[best][:, None, None]
    return Filters(_unit((1 - c) * V[:-1][i] + c * ends[i]), len(chosen))


def geodesic(H: Tensor, rank: int, solves: int | None = None) -> Filters:
    r"""Interpolate subspaces along geodesics of the Grassmann manifold.

    With the singular value decomposition :math:`V_0^H V_1 = Y \cos(\Theta) Z^H` of two bases, :math:`\Theta` the
    principal angles,

    .. math:: V(t) = V_0 Y \, \frac{\sin((1 - c) \Theta)}{\sin \Theta} + V_1 Z \, \frac{\sin(c \Theta)}{\sin \Theta},
              \qquad c = \frac{t - t_0}{t_1 - t_0}.

    Sources: Edelman, Arias and Smith, SIAM J. Matrix Anal. Appl. 20, 1998; for precoders of OFDM Pande, Love and
    Krogmeier, IEEE Trans. Signal Process. 55, 2007. A subspace orthogonal to its neighbour has many shortest ways to
    it, of which this is one.

    Args:
        H: Channels on the grid of tones, shape (N, m, n). Only solved tones are read.
        rank: k, at most min(m, n).
        solves: Equally spaced tones to solve, at least 2, both ends among them. Default: one in 12.

    Returns:
        V, shape (N, n, k), of the dtype of H, and the exact solves. The columns jump where one geodesic ends; their
        span does not.

    Raises:
        ValueError: For a rank out of range, NaN or Inf, or too few or many solves.
    """
    chosen, V = _solved(H, rank, solves)
    i, c = tones.between(len(H), chosen, H.dtype)
    Y, cosines, Zh = torch.linalg.svd(V[:-1].mH @ V[1:])
    # The weights are even in the angle, so that the cosine of a small one tells enough.
    angles = cosines.clamp(0, 1).arccos()[i]
    before, after = (x * torch.sinc(x * angles / math.pi) for x in (1 - c[:, None], c[:, None]))
    whole = torch.sinc(angles / math.pi)
    left, right = (V[:-1] @ Y)[i], (V[1:] @ Zh.mH)[i]
    return Filters(left * (before / whole)[:, None, :] + right * (after / whole)[:, None, :], len(chosen))


def _solved(H: Tensor, rank: int, solves: int | None) -> tuple[Tensor, Tensor]:
    """Return equally spaced tones and the leading right singular vectors there."""
    count = tones.budget(H, solves, 2)
    chosen = tones.spaced(len(H), count)
    return chosen, svd_by_gram(tones.read(H, chosen), rank)[2].mH


def _unit(V: Tensor) -> Tensor:
    """Scale columns to unit length; those of length zero stay so."""
    return V / torch.linalg.vector_norm(V, dim=1, keepdim=True).clamp_min(torch.finfo(V.dtype).tiny)


def regularised(W: Tensor) -> Tensor:
    """Make regularised zero-forcing precoders of LMMSE receivers of the downlink channels: columns of unit length.

    Args:
        W: Shape (N, n, k), such as `studies.receivers` gives for channels (N, k, n) of k single-antenna users.

    Returns:
        V, of the shape and dtype of W; columns of zeros stay so.
    """
    return _unit(W)


def sionna_regularised(H: Tensor, noise: float) -> Tensor:
    """Compute regularised zero-forcing precoders by Sionna's `rzf_precoding_matrix`.

    Args:
        H: Downlink channels, shape (N, k, n), one row for each user's antenna.
        noise: alpha, the regularisation.

    Returns:
        V, shape (N, n, k), of the dtype of H. Sionna does not check that the factorisation succeeded.
    """
    (solve,) = from_sionna("sionna.phy.mimo", "rzf_precoding_matrix")
    return solve(H, noise, precision="single" if H.dtype == torch.complex64 else "double")


# By name; each is called with H, rank and solves.
PEERS = {
    "Gram, every tone": by_gram,
    "held": held,
    "linear, aligned": aligned,
    "spherical": spherical,
    "geodesic": geodesic,
}
