"""Small problems that users brought: each with the call they type, where they look, an oracle, and what is right.

Families and oracles are NumPy's and SciPy's, so that the library under test has no part in the judgement. Builders are
cheap to call except where they say so; those of channels need Sionna.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

import neumatc as nm

DOUBLE = torch.float64
# Of the parameters where a user looks, the share that may exceed the tolerance: that of the contract of `nm.fit`.
TARGET = 0.01
# The numbers of nodes that are tried to find how many a plain interpolation needs.
LADDER = (16, 24, 32, 48, 64, 96, 128, 192)


@dataclass(frozen=True)
class Case:
    """A problem, the call that fits it, and what is right.

    Attributes:
        name: Its name in tables.
        problem: The problem.
        fit: Arguments of `nm.fit`.
        parameters: Where the user looks, shape (N, d).
        defect: From what the surrogate returns there to its defect, an array of shape (N,) or (1,): a residual, an
            error, or a loss of rate.
        bar: The largest defect that is right.
        share: Of the parameters, how many may exceed it.
        solves: The most exact solves that are right; None where nothing is asked.
    """

    name: str
    problem: nm.Problem
    fit: dict[str, object]
    parameters: Tensor
    defect: Callable[[object], np.ndarray] = field(repr=False)
    bar: float
    share: float = 0.0
    solves: int | None = None

    def fitted(self) -> nm.Surrogate:
        """Fit as the user does."""
        return nm.fit(self.problem, **self.fit, progress=False)

    def failing(self, surrogate: nm.Surrogate) -> tuple[float, float]:
        """Return the largest defect where the user looks, and the share above the bar; what is not finite is above."""
        defect = np.nan_to_num(self.defect(surrogate(self.parameters)), nan=np.inf)
        return float(defect.max()), float(np.mean(defect > self.bar))

    def right(self, surrogate: nm.Surrogate) -> bool:
        """Whether the surrogate is as good as asked for."""
        return self.failing(surrogate)[1] <= self.share


def error(X: Tensor | np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Relative error of each matrix in the Frobenius norm, in double precision."""
    X = np.asarray(X).astype(exact.dtype)
    return np.linalg.norm(X - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))


def _adjoint(A: np.ndarray) -> np.ndarray:
    return np.swapaxes(A.conj(), -1, -2)


def _of_inverse(A: np.ndarray) -> Callable[[object], np.ndarray]:
    """Residual of an inverse, as `nm.Inverse` defines it."""
    n = A.shape[-1]
    return lambda X: np.linalg.norm(A @ np.asarray(X) - np.eye(n), axis=(1, 2)) / n**0.5


def _filters(H: np.ndarray, noise: float) -> np.ndarray:
    """LMMSE filters, in double precision."""
    H = H.astype(complex)
    return np.linalg.solve(_adjoint(H) @ H + noise * np.eye(H.shape[-1]), _adjoint(H))


def _of_filters(H: np.ndarray, noise: float) -> Callable[[object], np.ndarray]:
    """Residual of LMMSE filters for tall H: the largest over the users' rows, each relative to its own."""
    H = H.astype(complex)
    L, F = _adjoint(H) @ H + noise * np.eye(H.shape[-1]), _adjoint(H)
    return lambda X: (np.linalg.norm(L @ np.asarray(X) - F, axis=2) / np.linalg.norm(F, axis=2)).max(axis=1)


def _looped(matrix: Callable[[float], np.ndarray]) -> Callable[[Tensor], Tensor]:
    """Return a batched function of one parameter from one that makes a single matrix."""
    return lambda p: torch.as_tensor(np.stack([matrix(float(x)) for x in p[:, 0]]))


def chain(n: int) -> np.ndarray:
    """Stiffness of n unit masses in a row between walls, with springs of 1e4: frequencies of up to 200 rad/s."""
    return 1e4 * (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1))


def _response(name: str, damping: np.ndarray, tol: float, judge: Callable, bar: float, share: float, solves: int):
    n = len(damping)
    K, identity = chain(n), np.eye(n)

    def dynamic(w: np.ndarray) -> np.ndarray:
        return K - w**2 * identity + 1j * w * damping

    family = nm.ParametricMatrix(
        lambda p: torch.as_tensor(dynamic(p.numpy()[:, :, None])), [0.0], [400.0], dtype=DOUBLE
    )
    # The peaks themselves too, which a grid of 0.1 rad/s steps over.
    w = np.sort(np.r_[np.linspace(0, 400, 4001), np.sqrt(np.linalg.eigvalsh(K))])
    return Case(
        name,
        nm.Problem(family, nm.Inverse()),
        {"tol": tol},
        torch.as_tensor(w)[:, None],
        judge(dynamic(w[:, None, None])),
        bar,
        share,
        solves,
    )


def _of_exact_inverse(A: np.ndarray) -> Callable[[object], np.ndarray]:
    exact = np.linalg.inv(A)
    return lambda X: error(X, exact)


def resonances(damping: str = "proportional") -> Case:
    """Frequency response of six masses, 0 to 400 rad/s, with 1 % proportional damping or a dashpot at the first."""
    K = chain(6)
    C = {"proportional": 1e-4 * K, "dashpot": np.diag([10.0, 0, 0, 0, 0, 0]) + 2e-5 * K}[damping]
    # The error of X is up to the condition number of A times the residual: hence a tenth of the error asked for.
    return _response(f"resonances, {damping}", C, 1e-7, _of_exact_inverse, 1e-6, 0.0, 24)


def many_resonances() -> Case:
    """Frequency response of thirty masses with 0.2 % damping: thirty peaks, the lowest of 1e-3 rad/s."""
    return _response("resonances, 30 of 0.2 %", 2e-5 * chain(30), 1e-4, _of_inverse, 1e-4, TARGET, 200)


def kernel_cholesky() -> Case:
    """Cholesky factor of a Gaussian-process covariance of 100 points, its length scale between 0.1 and 3."""
    t = np.linspace(0, 4 * np.pi, 100)[:, None]
    distance, nugget = (t - t.T) ** 2, 1e-2 * np.eye(100)

    def covariance(length: np.ndarray) -> np.ndarray:
        return 3.19 * np.exp(-distance / (2 * length**2)) + nugget

    lengths = np.linspace(0.1, 3, 1001)
    A = covariance(lengths[:, None, None])

    def defect(L: object) -> np.ndarray:
        L = np.asarray(L)
        return error(L @ _adjoint(L), A)

    family = nm.ParametricMatrix(
        lambda p: torch.as_tensor(covariance(p.numpy()[:, :, None])), [0.1], [3.0], dtype=DOUBLE
    )
    problem = nm.Problem(family, nm.Cholesky())
    return Case("GP Cholesky", problem, {"tol": 1e-3}, torch.as_tensor(lengths)[:, None], defect, 1e-3, TARGET)


def _eigenpairs(A: np.ndarray) -> Callable[[object], np.ndarray]:
    """Residual of eigenpairs: A V - V L relative to L, and that of orthogonality."""

    def defect(value: object) -> np.ndarray:
        w, V = (np.asarray(x) for x in value)
        off = np.linalg.norm(A @ V - V * w[:, None, :], axis=(1, 2)) / np.linalg.norm(w, axis=1)
        gram = _adjoint(V) @ V - np.eye(V.shape[-1])
        return np.hypot(off, np.linalg.norm(gram, axis=(1, 2)) / V.shape[-1] ** 0.5)

    return defect


def covariance_eigenpairs() -> Case:
    """The eight leading eigenpairs of the covariance 1 / (1 + a d^2) of 200 points, a between 0.1 and 50."""
    x = np.sort(np.random.default_rng(0).uniform(size=200))
    squares = (x[:, None] - x) ** 2
    a = np.linspace(0.1, 50, 1001)

    def fn(p: Tensor) -> Tensor:
        return 1 / (1 + p[:, :, None] * torch.as_tensor(squares))

    def defect(value: object) -> np.ndarray:  # in blocks: the matrices of all parameters together take 320 MB
        parts = np.array_split(np.arange(len(a)), 8)
        return np.concatenate(
            [_eigenpairs(1 / (1 + a[i, None, None] * squares))([np.asarray(x)[i] for x in value]) for i in parts]
        )

    problem = nm.Problem(nm.ParametricMatrix(fn, [0.1], [50.0], dtype=DOUBLE), nm.Eigh(rank=8))
    return Case("KL eigenpairs", problem, {"tol": 1e-3}, torch.as_tensor(a)[:, None], defect, 1e-3, TARGET)


def loop_eigenpairs() -> Case:
    """Both eigenpairs of a Hermitian 2 x 2 matrix on a closed loop around no crossing, to 1e-8."""

    def matrix(t: float) -> np.ndarray:
        u, v = 0.9 + 0.6 * np.cos(t), 0.4 + 0.6 * np.sin(t)
        real, imaginary = 0.3 * np.sin(v) + 0.2, 0.7 * np.sin(u)
        return np.array(
            [[np.cos(u) - v, real + 1j * imaginary], [real - 1j * imaginary, v - np.cos(u)]],
        )

    t = np.linspace(0, 2 * np.pi, 1001)
    problem = nm.Problem(nm.ParametricMatrix(_looped(matrix), [0.0], [2 * np.pi], dtype=DOUBLE), nm.Eigh())
    defect = _eigenpairs(np.stack([matrix(x) for x in t]))
    return Case("loop eigenpairs", problem, {"tol": 1e-8}, torch.as_tensor(t)[:, None], defect, 1e-8, TARGET)


def needed_nodes(case: Case) -> int:
    """Return with how many Chebyshev nodes of `LADDER` a plain interpolation of a smooth case is good enough."""
    most = 2 * int(np.prod(case.problem.factors[-1].shape))
    for count in LADDER:
        method = nm.ClosedForm(snapshots=count)
        if case.right(nm.fit(case.problem, rank=min(most, count), method=method, progress=False)):
            return count
    raise RuntimeError(f"{case.name}: {LADDER[-1]} nodes do not interpolate to {case.bar:g}.")


def decades_expm(scale: str = "log", lower: float = 1e-5) -> Case:
    """Transition probabilities exp(Q t) of a birth-death chain, rates over six decades, looked at in nine of log t.

    With the scale ``"linear"`` the box may begin at 0.
    """
    n, rng = 20, np.random.default_rng(0)
    rates, Q = np.logspace(-3, 3, n - 1), np.zeros((n, n))
    for i in range(n - 1):
        Q[i, i + 1], Q[i + 1, i] = rates[rng.integers(n - 1)], rates[rng.integers(n - 1)]
    Q -= np.diag(Q.sum(axis=1))
    t = np.clip(np.logspace(-5, 4, 400), 1e-5, 1e4)
    exact = np.stack([scipy.linalg.expm(Q * x) for x in t])
    # No scale is named where it is the default: that is the user who has not heard of it.
    axis = {} if scale == "linear" else {"scale": scale}
    family = nm.ParametricMatrix(lambda p: p[:, :, None] * torch.as_tensor(Q), [lower], [1e4], dtype=DOUBLE, **axis)
    return Case(
        f"expm over decades, {scale} from {lower:g}",
        nm.Problem(family, nm.MatrixFunction("exp")),
        {"tol": 1e-3},
        torch.as_tensor(t)[:, None],
        lambda X: error(X, exact),
        1e-3,
        TARGET,
        150 if scale == "log" else 450,
    )


def decades_ridge(condition: float = 1e5, scale: str = "log") -> Case:
    """Ridge inverse (G + lambda I)^-1, lambda from 1e-6 to 1e2, looked at in log lambda."""
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))
    G = Q * np.geomspace(1, 1 / condition, 10) @ Q.T
    G = (G + G.T) / 2
    ridge = np.clip(np.logspace(-6, 2, 801), 1e-6, 1e2)
    axis = {} if scale == "linear" else {"scale": scale}
    family = nm.ParametricMatrix(
        lambda p: torch.as_tensor(G) + p[:, :, None] * torch.eye(10, dtype=DOUBLE), [1e-6], [1e2], dtype=DOUBLE, **axis
    )
    return Case(
        f"ridge over decades, condition {condition:.0e}, {scale}",
        nm.Problem(family, nm.Inverse()),
        {"tol": 1e-2},
        torch.as_tensor(ridge)[:, None],
        _of_inverse(G + ridge[:, None, None] * np.eye(10)),
        1e-2,
        TARGET,
    )


def slot(speed: float = 3.0) -> Case:
    """LMMSE filters of eight users over a slot of 0.5 ms and a band of 100 MHz, users moving at a speed in km/h.

    Doppler shifts are drawn for each path; the defect is the root-mean-square error, a number.
    """
    channel = nm.wireless.cdl("C", delay_spread=30e-9, user_antennas=1, users=8, user_pattern="omni")
    a, tau, f = channel.coefficients, channel.delays, channel.frequencies
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, tau.shape)
    doppler = torch.from_numpy(speed / 3.6 / 3e8 * 3.5e9 * np.cos(angles))

    def H(p: Tensor) -> Tensor:
        phase = torch.exp(2j * torch.pi * (p[:, 0, None, None] * doppler - p[:, 1, None, None] * tau)).to(a.dtype)
        return torch.einsum("bul,ulmn->bmun", phase, a).flatten(2)

    lower, upper = [0.0, float(f[0])], [0.5e-3, float(f[-1])]
    family = nm.ParametricMatrix(H, lower, upper, dtype=DOUBLE, names=("time", "frequency"), units=("s", "Hz"))
    u = torch.rand((300, 2), dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    p = torch.lerp(torch.tensor(lower, dtype=DOUBLE), torch.tensor(upper, dtype=DOUBLE), u)
    exact = _filters(H(p).numpy(), 0.1)
    return Case(
        f"slot at {speed:g} km/h",
        nm.Problem(family, nm.LMMSE(noise=0.1)),
        {"tol": 1e-2},
        p,
        lambda W: np.sqrt(np.mean(error(W, exact) ** 2, keepdims=True)),
        1e-2,
        solves=200 if speed <= 3 else 400,
    )


def green(eta: float = 0.5, periodic: bool = False) -> Case:
    """Bloch Green's function (E + i eta - H(k))^-1 of a gapped honeycomb model over the Brillouin zone, 2 x 2."""

    def matrices(k: np.ndarray) -> np.ndarray:
        a, b = 2 * np.pi * k.T
        hop = 1 + np.exp(1j * a) + np.exp(1j * b)
        gap = 0.2 + 0.2 * (np.sin(a) - np.sin(b) - np.sin(a - b))
        return np.stack([1 + 1j * eta - gap, -hop, -hop.conj(), 1 + 1j * eta + gap], axis=-1).reshape(-1, 2, 2)

    axes = {"periodic": True} if periodic else {}
    family = nm.ParametricMatrix(
        lambda p: torch.as_tensor(matrices(p.numpy())), [0.0, 0.0], [1.0, 1.0], dtype=DOUBLE, **axes
    )
    k = np.random.default_rng(0).uniform(size=(2000, 2))
    name = f"Green's function, eta {eta:g}" + (", periodic" if periodic else "")
    problem = nm.Problem(family, nm.Inverse())
    return Case(name, problem, {"tol": 1e-2}, torch.as_tensor(k), _of_inverse(matrices(k)), 1e-2, TARGET)


def near_far(power_control: bool = False) -> Case:
    """LMMSE filters of a 3GPP UMi drop of eight users, 44 dB between them; the defect is the share of the rate lost.

    With power control every user arrives with the same mean energy. Takes a second: Sionna draws the drop.
    """
    with torch.random.fork_rng(devices=[]):  # Sionna seeds the global generators
        coefficients, delays = _umi_drop()
    noise = 3.2e-13
    if power_control:
        energy = coefficients.abs().square().sum(dim=(1, 2, 3), keepdim=True)
        coefficients, noise = (coefficients * energy**-0.5 * 1e-5).to(torch.complex64), 1e-12
    f = torch.arange(-1638, 1638, dtype=DOUBLE)[:, None] * 30e3
    channel = nm.wireless.Channel(coefficients, delays, float(f[0]), float(f[-1]), frequencies=f)
    q = f[::13]
    H = channel(q).numpy().astype(complex)

    def rate(W: np.ndarray) -> float:
        gains = np.abs(W @ H) ** 2
        signal = np.einsum("nkk->nk", gains)
        noises = noise * np.sum(np.abs(W) ** 2, axis=2)
        return float(np.log2(1 + signal / (gains.sum(axis=2) - signal + noises)).sum(axis=1).mean())

    exact = rate(_filters(H, noise))
    return Case(
        "near and far users" + (", power control" if power_control else ""),
        nm.Problem(channel, nm.LMMSE(noise=noise)),
        {"tol": 1e-2, "budget": 600},
        q,
        lambda W: np.array([1 - rate(np.asarray(W).astype(complex)) / exact]),
        1e-2,
        solves=600,
    )


def _umi_drop() -> tuple[Tensor, Tensor]:
    """Return path coefficients (8, L, 64, 1) and delays (8, L) of a drop."""
    import sionna.phy
    from sionna.phy.channel import gen_single_sector_topology
    from sionna.phy.channel.tr38901 import PanelArray, UMi

    sionna.phy.config.seed = 3
    carrier = {"carrier_frequency": 3.5e9}
    base = {"polarization": "dual", "polarization_type": "cross", "antenna_pattern": "38.901"}
    user = {"polarization": "single", "polarization_type": "V", "antenna_pattern": "omni"}
    model = UMi(
        o2i_model="low",
        ut_array=PanelArray(num_rows_per_panel=1, num_cols_per_panel=1, **user, **carrier),
        bs_array=PanelArray(num_rows_per_panel=4, num_cols_per_panel=8, **base, **carrier),
        direction="uplink",
        **carrier,
    )
    model.set_topology(*gen_single_sector_topology(1, 8, "umi"))
    a, tau = model(1, 30e3)
    coefficients = a[0, 0, :, :, 0, :, 0].permute(1, 2, 0)[..., None].contiguous()
    return coefficients.to(torch.complex64), tau.reshape(8, -1).double()


def timing_offset(offset: float = 1e-6) -> Case:
    """LMMSE filters where the receiver's window begins ``offset`` seconds early: every entry turns fast together."""
    channel = nm.wireless.cdl("C", users=8)
    f = channel.frequencies
    moved = nm.wireless.Channel(
        channel.coefficients, channel.delays + offset, float(channel.lower), float(channel.upper), frequencies=f
    )
    p = f[::7]
    problem = nm.Problem(moved, nm.LMMSE(noise=0.1))
    defect = _of_filters(moved(p).numpy(), 0.1)
    return Case(f"timing offset of {offset * 1e6:g} us", problem, {"tol": 1e-2}, p, defect, 1e-2, TARGET)


def finite_grid(rank: int = 2) -> Case:
    """The leading singular triplets of 4 x 16 samples at 512 subcarriers, one of four users blocked: rank three."""
    rng = np.random.default_rng(7)
    f, tau = np.arange(512) * 50e6 / 512, rng.exponential(100e-9, 8)
    g = (rng.normal(size=(8, 4, 16)) + 1j * rng.normal(size=(8, 4, 16))) / 4
    g[:, 2] = 0
    H = np.einsum("nl,lkm->nkm", np.exp(-2j * np.pi * f[:, None] * tau), g)
    U, S, Vh = np.linalg.svd(H, full_matrices=False)
    exact = (U[:, :, :rank] * S[:, None, :rank]) @ Vh[:, :rank]

    def defect(value: object) -> np.ndarray:
        U, S, Vh = (np.asarray(x) for x in value)
        return error((U * S[:, None, :]) @ Vh, exact)

    # Nothing is asked between the tones: of four triplets the last is none there.
    p = torch.from_numpy(f)[:, None]
    family = nm.families.from_grid([f], torch.from_numpy(H.astype(np.complex64)))
    problem = nm.Problem(family, nm.SVD(rank=rank))
    return Case(f"512 samples, {rank} triplets", problem, {"tol": 1e-2}, p, defect, 1e-2, TARGET, 512)


def noisy_pilots() -> Case:
    """LMMSE filters of least-squares channel estimates, 16 x 4 at 312 pilots and 20 dB: not smooth to the tolerance."""
    rng = np.random.default_rng(0)
    panel = {"base_antennas": (2, 4, 2), "user_antennas": 1, "users": 4}
    channel = nm.wireless.cdl("C", delay_spread=30e-9, subcarriers=624, **panel)
    p = channel.frequencies[::2]
    H = channel(channel.frequencies).numpy().astype(complex)
    sigma = np.sqrt(np.mean(np.abs(H) ** 2) / 100)
    H = (H + sigma * (rng.normal(size=H.shape) + 1j * rng.normal(size=H.shape)) / 2**0.5)[::2]
    family = nm.families.from_samples(p, torch.from_numpy(H.astype(np.complex64)))
    problem = nm.Problem(family, nm.LMMSE(noise=0.01))
    return Case("noisy pilots", problem, {"tol": 1e-2}, p, _of_filters(H, 0.01), 1e-2, TARGET, 312)


def thermal_block(source: str = "constant", side: int = 12) -> Case:
    """Temperatures of a plate of 2 x 2 blocks, diffusivities in [0.1, 1], one right-hand side.

    All temperatures lie in a space of 2 side + 3 dimensions: one for each of the 2 side - 1 unknowns at which blocks
    meet, since it determines the rest of the blocks but for the load, and one for the load of each block.

    Args:
        source: ``"constant"`` or ``"random"``.
        side: Unknowns along a side, an even number.
    """
    blocks, n = thermal_blocks(side), side**2
    f = np.ones(n) if source == "constant" else np.random.default_rng(0).normal(size=n)
    bounds = ([0.1] * 4, [1.0] * 4)
    matrices = nm.ParametricMatrix(
        lambda q: torch.einsum("bk,kij->bij", q, torch.as_tensor(blocks)), *bounds, dtype=DOUBLE, scale="log"
    )
    q = np.random.default_rng(3).uniform(0.1, 1, size=(400, 4))
    exact = np.linalg.solve(np.einsum("bk,kij->bij", q, blocks), np.broadcast_to(f[:, None], (len(q), n, 1)))
    problem = nm.Problem(nm.families.beside(matrices, torch.as_tensor(f)[:, None]), nm.Solve())
    return Case(
        f"thermal block, {source} source",
        problem,
        {"rank": 40, "budget": 80},
        torch.as_tensor(q),
        lambda X: error(X, exact),
        1e-3,
        solves=80,
    )


def thermal_blocks(side: int = 12) -> np.ndarray:
    """Return the four fixed matrices of a thermal block, (4, n, n), of which A(p) is the sum with the weights p."""
    return np.stack([_stiffness(side, a, b) for a in (0, 1) for b in (0, 1)])


def _stiffness(side: int, a: int, b: int) -> np.ndarray:
    """Five-point stiffness of the unit square with a diffusivity of one in block (a, b) of 2 x 2, zero outside."""
    h, index = 1 / (side + 1), np.arange(side * side).reshape(side, side)
    A = np.zeros((side * side, side * side))
    for (i, j), k in np.ndenumerate(index):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            x, y = (i + 1 + dx / 2) * h, (j + 1 + dy / 2) * h
            c = float((x > 0.5) == a and (y > 0.5) == b) / h**2
            A[k, k] += c
            if 0 <= i + dx < side and 0 <= j + dy < side:
                A[k, index[i + dx, j + dy]] -= c
    return A


def grazing() -> Case:
    """Inverse of a grating's impedance, undefined at normal incidence (p = 0), where a diffraction order grazes."""

    def matrices(p: np.ndarray) -> np.ndarray:
        s = np.sin(p)
        k = np.stack([s - 1, s, s + 1], axis=-1).astype(complex)
        with np.errstate(divide="ignore", invalid="ignore"):
            diagonal = 1 / np.sqrt(1 - k**2)
        return diagonal[:, :, None] * np.eye(3) + 0.3 * np.ones((3, 3)) + 2 * np.eye(3)

    family = nm.ParametricMatrix(lambda p: torch.as_tensor(matrices(p.numpy()[:, 0])), [-0.5], [0.5], dtype=DOUBLE)
    p = np.linspace(-0.5, 0.5, 1000)  # an even number: 0 is not among them
    problem = nm.Problem(family, nm.Inverse())
    name, judge = "one bad parameter", _of_inverse(matrices(p))
    return Case(name, problem, {"tol": 1e-2}, torch.as_tensor(p)[:, None], judge, 1e-2, TARGET)


def all_cases() -> list[Callable[[], Case]]:
    """Return a builder for every case, in the order of the table."""
    return [
        resonances,
        lambda: resonances("dashpot"),
        many_resonances,
        kernel_cholesky,
        covariance_eigenpairs,
        loop_eigenpairs,
        decades_expm,
        lambda: decades_expm("linear"),
        lambda: decades_expm("linear", 0.0),
        *(lambda c=c, s=s: decades_ridge(c, s) for s in ("log", "linear") for c in (470, 1e5, 1e7)),
        *(lambda v=v: slot(v) for v in (3.0, 120.0)),
        *(lambda e=e, w=w: green(e, w) for w in (False, True) for e in (0.5, 0.2)),
        *(lambda w=w: near_far(w) for w in (False, True)),
        *(lambda t=t: timing_offset(t) for t in (1e-6, 2e-6)),
        *(lambda k=k: finite_grid(k) for k in (2, 4)),
        noisy_pilots,
        *(lambda s=s: thermal_block(s) for s in ("constant", "random")),
        grazing,
    ]


def mode_labels(operation: nm.Operation) -> Case:
    """Six modes of a rotating matrix whose values cross three times; the defect: how far a column leaves its branch.

    That is the error of the value, and of the vector, which goes on where values cross.
    """
    rng = np.random.default_rng(1)
    Q, S = np.linalg.qr(rng.normal(size=(6, 6)))[0], rng.normal(size=(6, 6))
    base, slope = np.arange(1.0, 7), np.array([3.0, 0, -1, 0, 0.5, 0])

    def frames(p: np.ndarray) -> np.ndarray:
        return scipy.linalg.expm(0.3 * p[:, None, None] * (S - S.T)) @ Q

    def fn(p: Tensor) -> Tensor:
        t = p.numpy()[:, 0]
        R = frames(t)
        return torch.as_tensor((R * (base + t[:, None] * slope)[:, None, :]) @ _adjoint(R))

    p = np.linspace(0, 1, 1001)
    values, vectors = base + p[:, None] * slope, frames(p)

    def defect(value: object) -> np.ndarray:
        values_at, V = (value.S, value.U) if isinstance(operation, nm.SVD) else value
        w, V = np.asarray(values_at), np.asarray(V)
        own = np.abs(w[0, :, None] - values[0]).argmin(axis=1)
        kept = np.einsum("bik,bik->bk", vectors[:, :, own], V)
        missed = np.linalg.norm(V - vectors[:, :, own] * (kept / np.abs(kept))[:, None], axis=1)
        return np.maximum(np.abs(w - values[:, own]), missed).max(axis=1)

    problem = nm.Problem(nm.ParametricMatrix(fn, [0.0], [1.0], dtype=DOUBLE), operation)
    return Case(
        f"mode labels, {type(operation).__name__}",
        problem,
        {"tol": 1e-6},
        torch.as_tensor(p)[:, None],
        defect,
        1e-5,
        0.0,
        20,
    )


def sign_flips(fit: dict[str, object]) -> Case:
    """Eigenvectors of polynomials with four near misses; the defect: of neighbours that should agree, the worst."""

    def matrices(t: np.ndarray) -> np.ndarray:
        one = np.ones_like(t)
        rows = (one, 2 * t + 1, t**2, t**3), (2 * t + 1, 2 - t, t**2, 1 - t**3), (t**2, t**2, 3 - 2 * t, t**2)
        return np.stack([np.stack(row, -1) for row in (*rows, (t**3, 1 - t**3, t**2, 4 - 3 * t))], -2)

    family = nm.ParametricMatrix(lambda p: torch.as_tensor(matrices(p.numpy()[:, 0])), [-1.0], [1.0], dtype=DOUBLE)
    p = torch.linspace(-1, 1, 2001, dtype=DOUBLE)[:, None]

    def defect(value: object) -> np.ndarray:
        V = np.asarray(value[1])
        return np.array([1 - np.einsum("bik,bik->bk", V[1:], V[:-1]).min()])

    return Case("sign flips", nm.Problem(family, nm.Eigh()), fit, p, defect, 1e-3)


def line_of_sight(model: str, spread: float, gauge: str) -> Case:
    """Two singular triplets at 816 tones; the defect: a step between tones over that of exact parallel transport.

    Where the two values are apart by 5 % of the larger. Transport is that of u and v together, as they share a phase.
    """
    panel = {"base_antennas": (2, 2, 2), "user_antennas": (1, 2, 2), "direction": "downlink", "seed": 3}
    channel = nm.wireless.cdl(model, delay_spread=spread, subcarriers=816, **panel)
    f = channel.frequencies
    U, S, Vh = np.linalg.svd(channel(f).numpy().astype(complex), full_matrices=False)
    exact = np.concatenate([U, _adjoint(Vh)], axis=1)[:, :, :2] / 2**0.5
    kept = np.einsum("bik,bik->bk", exact[1:].conj(), exact[:-1])
    least = np.linalg.norm(exact[1:] * (kept / np.abs(kept))[:, None] - exact[:-1], axis=1)
    apart = (S[:, 0] - S[:, 1]) / S[:, 0] > 0.05
    apart = apart[1:] & apart[:-1]

    def defect(value: object) -> np.ndarray:
        V = np.concatenate([np.asarray(value.U), _adjoint(np.asarray(value.Vh))], axis=1).astype(complex) / 2**0.5
        return (np.linalg.norm(np.diff(V, axis=0), axis=1) / least)[apart].max(axis=1)

    problem = nm.Problem(channel, nm.SVD(rank=2, gauge=gauge))
    return Case(f"CDL-{model}, {gauge}", problem, {"rank": 24}, f, defect, 1.5)
