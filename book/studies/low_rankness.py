"""Studies of the chapter on low-rankness: poles, operations, the channels of 3GPP, and what breaks a low rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import neumatc as nm
from neumatc import checks
from neumatc.families import gaussian
from studies import benchmark, figures, provenance
from studies.provenance import Record, Table
from studies.texts import at_least

# Variances of the noise in the regularised inverses of the channels.
NOISES = (1.0, 0.1, 0.01)
# Where smoothness is the only cause of a low rank, polynomials need fewer than so many times its terms.
FEW_MORE = 1.5


def low_rank_plus_shift(
    size: int = 64,
    inner: int = 4,
    shift: float = 1e-3,
    seed: int = 0,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> nm.ParametricMatrix:
    r"""Nearly singular stress case on [0, 1]: an affine product of low rank plus a small shift.

    .. math:: A(p) = (U_0 + p U_1) (V_0 + p V_1)^H + \epsilon I

    with independent Gaussian n x k factors of variance 1 / n. On the null space of the product (k < n) A(p) is
    epsilon I, so the condition number is at least ||A(p)||_2 / epsilon everywhere. Left and right factors being
    unrelated, it can be far larger at some p, where the inverse has a pole close to the interval, or on it. No
    surrogate of that inverse should be trusted; the family is here to test that this is noticed.

    Args:
        size: Rows and columns n of A.
        inner: k, rank of the product, at most n.
        shift: The multiple epsilon of the identity.
        seed: Seed of the factors.
        dtype: Dtype of A. Default: torch's default dtype.
        device: Device of the parameters and of A.

    Returns:
        A family of shape (n, n).
    """
    if inner > size:
        raise ValueError(f"`inner`: expected at most `size` = {size}, got {inner}.")
    dtype = checks.matrix_dtype("dtype", dtype)
    factors = (gaussian((4, size, inner), dtype, torch.Generator().manual_seed(seed)) / size**0.5).to(device, dtype)
    identity = shift * torch.eye(size, dtype=dtype, device=device)

    def fn(p: Tensor) -> Tensor:
        q = p.to(checks.real_dtype(dtype))[:, :, None]
        left, right = factors[0] + q * factors[1], factors[2] + q * factors[3]
        return left @ right.mH + identity

    return nm.ParametricMatrix(fn, [0.0], [1.0], dtype=checks.real_dtype(dtype), device=device)


def nodes(family: nm.ParametricMatrix, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return Chebyshev nodes x in [-1, 1], their place p in the box, both (count, 1), and quadrature weights w."""
    x, w = (t.to(family.lower.device) for t in nm.sampling.design(count, 1))
    return x, torch.lerp(family.lower.double(), family.upper.double(), (x + 1) / 2).to(family.lower), w


def limits(X: Tensor, w: Tensor, field: str = "real") -> Tensor:
    """Return the smallest relative error for every number of terms, in the mean over the box.

    Args:
        X: Results at the nodes, (count, ...).
        w: Quadrature weights, (count,).
        field: ``"real"`` or ``"complex"`` coefficients.
    """
    root = (w * len(w)).sqrt().to(X.dtype).view(-1, *[1] * (X.ndim - 1))
    return benchmark.eckart_young(X * root, range(1, len(X) + 1), field=field)


def polynomial_errors(X: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """Return the same with polynomials: the energy beyond the first r coefficients in an orthonormal basis."""
    rows = (torch.view_as_real(X) if X.is_complex() else X).flatten(1).double()
    T = torch.cos(torch.arange(len(x), device=x.device) * torch.arccos(x))
    Q = torch.linalg.qr(w.sqrt()[:, None] * T).Q
    energy = (Q.T @ (w.sqrt()[:, None] * rows)).square().sum(dim=1)
    beyond = energy.flip(0).cumsum(0).flip(0)[1:] / energy.sum()
    return torch.cat([beyond, beyond.new_zeros(1)]).sqrt().cpu()


def terms(errors: Tensor, tolerance: float) -> int:
    """Return the smallest number of terms whose error is within a tolerance."""
    return int((errors > tolerance).sum()) + 1


def summary(errors: Tensor) -> list[int]:
    """Return the numbers of terms for errors of 1e-2 and 1e-3."""
    return [terms(errors, t) for t in (1e-2, 1e-3)]


def ranks(X: Tensor, w: Tensor, field: str = "real") -> list[int]:
    """Return ``summary(limits(X, w, field))``, several times as fast: a Gram matrix tells errors above 1e-7."""
    real = field == "real" and X.is_complex()
    rows = (torch.view_as_real(X) if real else X).flatten(1)
    rows = w.sqrt()[:, None] * rows.to(torch.complex128 if rows.is_complex() else torch.float64)
    gram = rows @ rows.mH if rows.shape[0] < rows.shape[1] else rows.mH @ rows
    beyond = torch.linalg.eigvalsh(gram).clamp_min(0).cumsum(0).flip(0)
    return summary((beyond[1:] / beyond[0]).sqrt())


def counted(count: int, nodes: int) -> str:
    """Return a number of terms as a text, or that it is over half of the nodes."""
    return str(count) if count <= nodes // 2 else f"over {nodes // 2}"


# Poles


def cyclic(size: int, delta: float, near: float | None = None, *, device: str) -> nm.ParametricMatrix:
    """Return p I - M with the eigenvalues of M on the ellipse through i delta, and perhaps one pair at +-i near."""
    rho = delta + math.sqrt(1 + delta**2)
    P = torch.eye(size, dtype=torch.float64).roll(1, 1)
    M = (rho * P + P.T / rho) / 2
    if near is not None:
        M = torch.block_diag(M, near * torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64))
    M = M.to(device)
    identity = torch.eye(len(M), dtype=torch.float64, device=device)
    return nm.ParametricMatrix(
        lambda p: p[:, :, None] * identity - M, [-1.0], [1.0], dtype=torch.float64, device=device
    )


def inverses(family: nm.ParametricMatrix, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the inverses at Chebyshev nodes, the nodes, their weights, and the largest condition number."""
    x, p, w = nodes(family, count)
    solution = nm.Problem(family, nm.Inverse()).exact(p)
    return solution.value, x, w, torch.linalg.cond(family(p)).max()


def rate(errors: Tensor) -> float:
    """Return the decay per term, -d log(error) / d terms, between errors of 1e-2 and 1e-8."""
    chosen = np.flatnonzero((errors < 1e-2) & (errors > 1e-8))
    return -np.polyfit(chosen, np.log(errors[chosen].numpy()), 1)[0]


def poles(record: Record) -> None:
    """Record the decay of the limits by the distance of the poles, as ``poles``."""
    small, seed, device = record.profile == "smoke", record.seed, record.device
    size, count, far = (24, 97, 0.5) if small else (96, 193, 0.5)
    deltas, near = (0.5, 0.7, 1.0) if small else (0.1, 0.2, 0.5), (0.1 if small else 0.02)
    poles = []
    for i, delta in enumerate(deltas):
        X, x, w, _ = inverses(cyclic(size, delta, device=device), count)
        errors, polynomial = limits(X, w), polynomial_errors(X, x, w)
        record.arrays[f"ring_{i}"], record.arrays[f"ring_polynomial_{i}"] = errors, polynomial
        rho = delta + math.sqrt(1 + delta**2)
        fitted = [rate(e[: size * 2 // 3]) for e in (errors, polynomial)]
        ranks = [terms(errors, t) for t in (1e-2, 1e-3)]
        poles.append({"delta": delta, "rho": rho, "theory": math.log(rho), "rates": fitted, "ranks": ranks})
        above = errors > 1e-8
        poles[-1]["ratio"] = (polynomial[above] / errors[above])[: size * 2 // 3].max()
    pair_nodes = int(16 / near)
    X, x, w, condition = inverses(cyclic(size - 2, far, near, device=device), pair_nodes)
    fit = nm.fit(nm.Problem(cyclic(size - 2, far, near, device=device), nm.Inverse()), tol=1e-3, progress=False)
    record.arrays["pair"], record.arrays["pair_polynomial"] = limits(X, w), polynomial_errors(X, x, w)
    A0 = nm.families.trigonometric(size=size, shift=3.0, seed=seed, dtype=torch.float64, device=device)
    A0 = A0(torch.zeros(1, 1, dtype=torch.float64, device=device))[0]
    u, v = torch.randn(2, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device)
    update = nm.ParametricMatrix(
        lambda p: A0 + p[:, :, None] * torch.outer(u, v) / size, [-0.5], [0.5], dtype=torch.float64, device=device
    )
    X, _, w, _ = inverses(update, count)
    record.numbers["poles"] = {
        "families": poles,
        "size": size,
        "far": far,
        "near": near,
        "condition": condition,
        "nodes": count,
        "pair_nodes": pair_nodes,
        "pair_rank": [terms(record.arrays["pair"], t) for t in (1e-2, 1e-3)],
        "pair_polynomial": terms(record.arrays["pair_polynomial"], 1e-3),
        "pair_fit": {
            "solves": fit.report.exact_solves,
            "pieces": len(fit.pieces),
            "rational": isinstance(fit.maps[0].embedding, nm.Rational),
            "met": fit.report.met,
        },
        "pair_rate": rate(record.arrays["pair"][: size // 2]),
        "update": limits(X, w)[:3].tolist(),
    }


def poles_figure(record: Record) -> Figure:
    """Plot the limits and the errors of polynomials against the number of terms, with the rates of theory."""
    n, arrays = record.numbers["poles"], record.arrays
    figure, (left, right) = plt.subplots(2, 1, figsize=(5.0, 6.8), sharex=True)
    most = n["size"] * 2 // 3
    styles = ((figures.BLUE, "-"), (figures.RED, "--"), (figures.GREEN, "-."))
    for i, (entry, (colour, line)) in enumerate(zip(n["families"], styles)):
        delta, r = entry["delta"], np.arange(1, most + 1)
        left.semilogy(r, arrays[f"ring_{i}"][:most], line, color=colour, label=f"limit, $\\delta$ = {delta}")
        left.semilogy(r, arrays[f"ring_polynomial_{i}"][:most], ".", color=colour, ms=4, markevery=3)
        left.semilogy(r, entry["rho"] ** -r.astype(float), ":", color=figures.BLACK, lw=1)
    left.plot([], [], ".", color=figures.GREY, label="polynomials")
    left.plot([], [], ":", color=figures.BLACK, lw=1, label="theory")
    r = np.arange(1, most + 1)
    right.semilogy(r, arrays["pair"][:most], color=figures.BLUE, label="limit")
    right.semilogy(r, arrays["pair_polynomial"][:most], ".", color=figures.BLUE, ms=4, markevery=3, label="polynomials")
    for delta, colour, line in ((n["near"], figures.ORANGE, "--"), (n["far"], figures.GREEN, "-.")):
        rho = delta + math.sqrt(1 + delta**2)
        right.semilogy(r, rho ** -r.astype(float), line, color=colour, lw=1.2, label=f"theory, $\\delta$ = {delta}")
    left.set(ylabel="relative error", ylim=(1e-11, 2))
    right.set(xlabel="terms $r$", ylabel="relative error", ylim=(1e-11, 2))
    for axes, title in ((left, "poles all around"), (right, "one pair near, the others far")):
        axes.legend(fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), title=title, title_fontsize=10)
    return figure


def glue_poles(record: Record) -> None:
    """Glue what the text says about poles."""
    n = record.numbers["poles"]
    for i, entry in enumerate(n["families"]):
        for key, value in {
            "delta": entry["delta"],
            "theory": entry["theory"],
            "rate": entry["rates"][0],
            "polynomial": entry["rates"][1],
            "rank": counted(entry["ranks"][0], n["nodes"]),
            "ratio": at_least(entry["ratio"], 3),
        }.items():
            provenance.glue(f"lr-ring-{i}-{key}", value)
    for key, value in {
        "size": n["size"],
        "near": n["near"],
        "far": n["far"],
        "condition": math.ceil(n["condition"]),
        "nodes": n["pair_nodes"],
        "rank3": counted(n["pair_rank"][1], n["pair_nodes"]),
        "polynomial": counted(n["pair_polynomial"], n["pair_nodes"]),
        "rate": n["pair_rate"],
        "far-rate": math.log(n["far"] + math.sqrt(1 + n["far"] ** 2)),
        "fit-solves": n["pair_fit"]["solves"],
        "fit-kind": "one rational function" if n["pair_fit"]["rational"] else f"{n['pair_fit']['pieces']} pieces",
        "update-1": n["update"][0],
        "update-2": n["update"][1],
    }.items():
        provenance.glue(f"lr-pair-{key}", value)


# Operations


def described(name: str, factor: str, X: Tensor, x: Tensor, w: Tensor) -> dict:
    """Return the ranks of one factor, and the number of polynomial terms, for the record."""
    errors, polynomial = limits(X if X.ndim > 1 else X[:, None], w), polynomial_errors(X[:, None], x, w)
    ranks, needed = [terms(errors, t) for t in (1e-2, 1e-3)], terms(polynomial, 1e-3)
    reals = X[0].numel() * (2 if X.is_complex() else 1)
    return {"name": name, "factor": factor, "reals": reals, "ranks": ranks, "polynomial": needed}


def operations(record: Record) -> None:
    """Record the ranks of every factor of every operation on one family, as ``operations``."""
    small, seed, device = record.profile == "smoke", record.seed, record.device
    settings = {"size": 8, "terms": 4, "shift": 3.0} if small else {"size": 32, "terms": 8, "shift": 1.6}
    family = nm.families.trigonometric(**settings, seed=seed, dtype=torch.float64, device=device)
    x, p, w = nodes(family, 65 if small else 193)
    A = family(p)
    vectors = 2 if small else 4
    operations = {
        "inverse": nm.Inverse(),
        "LMMSE receiver, noise 0.1": nm.LMMSE(noise=0.1),
        "exponential": nm.MatrixFunction("exp"),
        "square root": nm.MatrixFunction("sqrt"),
        "logarithm": nm.MatrixFunction("log"),
        "logarithm of the determinant": nm.LogDet(),
        "QR": nm.QR(),
        "polar decomposition": nm.Polar(),
        f"projector on {vectors} left vectors": nm.Projector(rank=vectors),
        f"SVD, {vectors} triplets": nm.SVD(rank=vectors),
        "eigendecomposition": nm.Eig(),
    }
    table = [described("the family itself", "A", A, x, w)]
    events = {}
    for name, operation in operations.items():
        factors, failed = operation.snapshots(A)
        assert not failed.any(), name
        names = [factor.name for factor in operation.factors(*family.shape)]
        versions = {"": factors}
        if not operation.unique:
            aligned, found = operation.align(x, factors)
            exact, _ = operation.exact(A)
            versions, events[name] = {", LAPACK": exact, ", aligned": aligned}, [event.kind for event in found]
        for suffix, values in versions.items():
            table += [described(name + suffix, k, X, x, w) for k, X in zip(names, values) if k not in ("sign", "Vh")]
    # Where the number of real eigenvalues changes, two of them have met.
    real = (nm.linalg.eig(A)[0].imag.abs() < 1e-8).sum(dim=1)
    values = nm.linalg.svd(A)[1]
    record.numbers["operations"] = {
        "rows": table,
        "collisions": (real.diff() != 0).sum(),
        "gap": (values[:, vectors - 1] - values[:, vectors]).min() / values.max(),
        "settings": settings,
        "condition": torch.linalg.cond(A).max(),
        "avoided": {name: kinds.count("avoided crossing") for name, kinds in events.items()},
        "nodes": len(x),
    }


def unique_rows(record: Record) -> list[dict]:
    """Return the rows of the family and of the operations that have one result only."""
    rows = record.numbers["operations"]["rows"]
    return [row for row in rows if not row["name"].startswith(("SVD", "eigen", "projector", "logarithm of"))]


def operations_table(record: Record) -> Table:
    """Tabulate the ranks of all operations, and glue what the text says about them."""
    n = record.numbers["operations"]
    rows = {(row["name"], row["factor"]): row for row in n["rows"]}
    svd = next(
        name.removesuffix(", aligned") for name, _ in rows if name.startswith("SVD") and name.endswith("aligned")
    )
    projector = next(name for name, _ in rows if name.startswith("projector"))
    for key, where in {
        "a": ("the family itself", "A"),
        "aligned": (svd + ", aligned", "U"),
        "lapack": (svd + ", LAPACK", "U"),
        "projector": (projector, "P"),
        "eig": ("eigendecomposition, aligned", "eigenvectors"),
    }.items():
        provenance.glue(f"lr-op-{key}", counted(rows[where]["ranks"][0], n["nodes"]))
    provenance.glue("lr-op-a-3", counted(rows["the family itself", "A"]["ranks"][1], n["nodes"]))
    logdet = rows["logarithm of the determinant", "logabsdet"]["polynomial"]
    provenance.glue("lr-op-logdet-polynomial", counted(logdet, n["nodes"]))
    provenance.glue("lr-op-terms", 2 * n["settings"]["terms"] + 1)
    provenance.glue("lr-op-avoided", n["avoided"][svd])
    provenance.glue("lr-op-nodes", n["nodes"])
    provenance.glue("lr-op-collisions", n["collisions"])
    provenance.glue("lr-op-gap", n["gap"])
    unique = unique_rows(record)
    provenance.glue("lr-op-least", min(row["ranks"][1] for row in unique[1:]))
    provenance.glue("lr-op-most", max(row["ranks"][1] for row in unique[1:]))
    provenance.glue("lr-op-ratio", at_least(max(row["polynomial"] / row["ranks"][1] for row in unique[1:])))

    return Table(
        ["operation", "factor", "reals", "rank at 1e-2", "rank at 1e-3", "polynomial terms for 1e-3"],
        [
            [
                row["name"],
                row["factor"],
                str(row["reals"]),
                *(counted(count, n["nodes"]) for count in (*row["ranks"], row["polynomial"])),
            ]
            for row in n["rows"]
        ],
    )


# The channels of 3GPP


class Channels:
    """Draws of the clustered-delay-line models, at the size of a record's profile.

    Args:
        record: The record, whose profile, seed and device count.
    """

    def __init__(self, record: Record) -> None:
        small = record.profile == "smoke"
        self.options = {"subcarriers": 240 if small else 3276, "seed": record.seed, "device": record.device}
        antennas = {"base_antennas": (2, 2, 2) if small else (4, 8, 2)}
        self.one = antennas | {"user_antennas": (1, 2, 2) if small else (2, 4, 2)}
        self.several = antennas | {"users": 2 if small else 8}
        self.least = provenance.pick(record.profile, smoke=48, cpu=512, gpu=1024)

    def downlink(self, model: str, spread: float, **changes: object) -> nm.wireless.Channel:
        """Return the channel from the base station to one user; ``spread``: the delay spread in seconds."""
        return nm.wireless.cdl(model, delay_spread=spread, direction="downlink", **self.one, **self.options, **changes)

    def uplink(self, model: str, spread: float) -> nm.wireless.Channel:
        """Return the channel from several users to the base station."""
        return nm.wireless.cdl(model, delay_spread=spread, **self.several, **self.options)

    def enough(self, channel: nm.wireless.Channel) -> int:
        """Return twice the degree at which polynomials begin to resolve the longest delay, or more."""
        degree = 2 * math.pi * float((channel.upper - channel.lower) * channel.delays.max())
        return max(self.least, math.ceil(degree))


def vectors_of(H: Tensor, x: Tensor, seed: int) -> dict[str, Sequence[Tensor]]:
    """Return the leading singular vectors as LAPACK returns them, aligned, and with random phases."""
    operation = nm.SVD(rank=4)
    snapshots, failed = operation.snapshots(H)
    assert not failed.any()
    aligned, _ = operation.align(x, snapshots)
    exact, _ = operation.exact(H)
    turns = 2 * math.pi * torch.rand(len(H), 1, 4, generator=torch.Generator().manual_seed(seed))
    return {"lapack": exact, "aligned": aligned, "random": (exact[0] * torch.exp(1j * turns).to(exact[0]),)}


def regularized(H: Tensor, noise: float) -> Tensor:
    """Return the regularised inverses."""
    X, failed = nm.RegularizedInverse(noise).exact(H)
    assert not failed.any()
    return X[0]


def model_numbers(record: Record, channels: Channels, model: str) -> dict:
    """Return the ranks of one model: of the channel, its singular vectors, and regularised inverses.

    Args:
        record: Gets the arrays ``channel_...``, and of CDL-A ``vectors_...``.
        channels: The draws.
        model: A letter from A to E.
    """
    downlink = channels.downlink(model, 100e-9, dtype=torch.complex128)
    x, f, w = nodes(downlink, channels.enough(downlink))
    H = downlink(f)
    band = float(downlink.upper - downlink.lower)
    errors, polynomial = limits(H, w), polynomial_errors(H, x, w)
    record.arrays[f"channel_{model}"], record.arrays[f"channel_polynomial_{model}"] = errors, polynomial
    frames = vectors_of(H.to(torch.complex64), x, record.seed)
    energy = downlink.coefficients.abs().square().sum(dim=(0, 2, 3)).sort().values
    entry = {
        "nodes": len(x),
        "paths": downlink.delays.shape[1],
        "strong": int((energy.cumsum(0) > 1e-4 * energy.sum()).sum()),
        "delays": band * float(downlink.delays.max()),
        "real": summary(errors),
        "complex": ranks(H, w, field="complex"),
        "polynomial": summary(polynomial),
        "U": ranks(frames["aligned"][0], w),
        "Vh": ranks(frames["aligned"][2], w),
        "followed": frames["aligned"][0].shape[2],
        "U_lapack": ranks(frames["lapack"][0], w),
        "Vh_lapack": ranks(frames["lapack"][2], w),
    }
    if model == "A":
        for kind, own in frames.items():
            record.arrays[f"vectors_{kind}"] = limits(own[0], w)
            record.arrays[f"vectors_polynomial_{kind}"] = polynomial_errors(own[0], x, w)
    H = channels.uplink(model, 100e-9)(f)
    for noise in NOISES:
        X = regularized(H, noise)
        entry[f"inverse_{noise}"] = ranks(X, w)
        if noise == 0.1:
            entry["inverse_polynomial"] = summary(polynomial_errors(X, x, w))
    return entry


def models(record: Record, letters: str) -> None:
    """Record the ranks of models, as ``models``, beside those that are there already, and the bandwidth."""
    channels, found = Channels(record), record.numbers.setdefault("models", {})
    for model in letters:
        found[model] = model_numbers(record, channels, model)
        print(f"CDL-{model}", flush=True)
    channel = channels.downlink("E", 100e-9)
    record.numbers["bandwidth"] = float(channel.upper - channel.lower)


def models_of(record: Record) -> dict[str, dict]:
    """Return the numbers of the models in the order of their letters."""
    return dict(sorted(record.numbers["models"].items()))


def pair(entry: dict, key: str) -> str:
    """Return the numbers of terms for 1e-2 and 1e-3 as a text."""
    return " / ".join(counted(count, entry["nodes"]) for count in entry[key])


def glue_models(record: Record) -> None:
    """Glue what the text says about the models."""
    models = models_of(record)
    for model, entry in models.items():
        key = f"lr-{model.lower()}"
        for name in ("complex", "U", "U_lapack"):
            provenance.glue(f"{key}-{name.replace('_', '-').lower()}", counted(entry[name][0], entry["nodes"]))
        provenance.glue(f"{key}-strong", entry["strong"])
    for key, values in {
        "paths": [e["paths"] for e in models.values()],
        "nodes": [e["nodes"] for e in models.values()],
        "real": [e["real"][0] for e in models.values()],
        "share": [e["real"][0] / (2 * e["paths"]) for e in models.values()],
        "gain": [e["polynomial"][0] / e["real"][0] for e in models.values()],
        "u": [e["U"][0] for e in models.values()],
        "inverse-gain": [e["inverse_polynomial"][0] / e["inverse_0.1"][0] for e in models.values()],
        **{
            f"inverse-{name}": [e[f"inverse_{noise}"][0] for e in models.values()]
            for name, noise in (("unit", 1.0), ("tenth", 0.1), ("hundredth", 0.01))
        },
    }.items():
        provenance.glue(f"lr-models-{key}-least", min(values))
        provenance.glue(f"lr-models-{key}-most", max(values))


def models_table(record: Record) -> Table:
    """Tabulate the ranks of the channels."""
    models = models_of(record)
    return Table(
        [
            "model",
            "$N$",
            "paths $L$",
            "strong",
            "$B \\tau_{\\max}$",
            "complex rank of $H$",
            "real rank of $H$",
            "polynomial terms",
        ],
        [
            [
                f"CDL-{model}",
                str(entry["nodes"]),
                str(entry["paths"]),
                str(entry["strong"]),
                f"{entry['delays']:.0f}",
                *(pair(entry, key) for key in ("complex", "real", "polynomial")),
            ]
            for model, entry in models.items()
        ],
    )


def models_figure(record: Record) -> Figure:
    """Plot the limits and the errors of polynomials against the number of terms, one line per model."""
    figure, panels = plt.subplots(2, 1, figsize=(5.0, 6.6), sharex=True)
    styles = zip("os^Dv", (figures.BLUE, figures.ORANGE, figures.GREEN, figures.RED, figures.PURPLE))
    for model, (marker, colour) in zip(models_of(record), styles):
        for axes, kind in zip(panels, ("channel", "channel_polynomial")):
            errors = record.arrays[f"{kind}_{model}"]
            marked = np.unique(np.geomspace(1, len(errors), 24).astype(int)) - 1
            r = np.arange(1, len(errors) + 1)
            options_of = {"color": colour, "marker": marker, "ms": 4.5, "mfc": "white", "markevery": marked.tolist()}
            axes.loglog(r, np.maximum(errors, 1e-17), lw=1.4, label=f"CDL-{model}", **options_of)
    panels[0].set_ylabel("error of $H$, limit")
    panels[1].set(xlabel="terms (real)", ylabel="error of $H$, polynomials")
    panels[1].set_xticks([1, 3, 10, 30, 100, 300, 1000], ["1", "3", "10", "30", "100", "300", "1000"])
    for axes in panels:
        axes.set_ylim(1e-9, 2)
        figures.name_lines(axes, axes.lines)
    return figure


def vectors_table(record: Record) -> Table:
    """Tabulate the ranks of singular vectors and of regularised inverses."""
    models = models_of(record)
    return Table(
        ["model", "U aligned", "V aligned", "U LAPACK", "V LAPACK", "inverse, noise 1", "noise 0.1", "noise 0.01"],
        [
            [
                f"CDL-{model}",
                *(pair(entry, key) for key in ("U", "Vh", "U_lapack", "Vh_lapack")),
                *(pair(entry, f"inverse_{noise}") for noise in (1.0, 0.1, 0.01)),
            ]
            for model, entry in models.items()
        ],
    )


def sweep(record: Record) -> None:
    """Record the ranks of CDL-C by delay spread, as ``sweep``."""
    channels = Channels(record)
    spreads = (10e-9, 100e-9) if record.profile == "smoke" else (3e-9, 10e-9, 30e-9, 100e-9, 300e-9)
    sweep = []
    for spread in spreads:
        downlink = channels.downlink("C", spread)
        x, f, w = nodes(downlink, channels.enough(downlink))
        H = downlink(f)
        X = regularized(channels.uplink("C", spread)(f), 0.1)
        sweep.append(
            {
                "spread": spread,
                "product": spread * float(downlink.upper - downlink.lower),
                "H": ranks(H, w)[0],
                "H_polynomial": terms(polynomial_errors(H, x, w), 1e-2),
                "U": ranks(vectors_of(H, x, record.seed)["aligned"][0], w)[0],
                "inverse": ranks(X, w)[0],
                "inverse_polynomial": terms(polynomial_errors(X, x, w), 1e-2),
                "paths": downlink.delays.shape[1],
                "samples": len(x),
            }
        )
        print(f"{spread * 1e9:.0f} ns", flush=True)
    record.numbers["sweep"] = sweep


def product_figure(record: Record) -> Figure:
    """Plot the number of terms against bandwidth times delay spread."""
    sweep = record.numbers["sweep"]
    figure, axes = plt.subplots(figsize=(5.0, 4.6))
    product, lines = [entry["product"] for entry in sweep], []
    for key, line, colour, label in (
        ("H", "o-", figures.BLUE, "$H$, limit"),
        ("H_polynomial", "o:", figures.BLUE, "$H$, polynomials"),
        ("inverse", "s-", figures.RED, "inverse, limit"),
        ("inverse_polynomial", "s:", figures.RED, "inverse, polynomials"),
        ("U", "^-.", figures.GREEN, "U aligned, limit"),
    ):
        lines += axes.loglog(
            product, [entry[key] for entry in sweep], line, color=colour, ms=6, mfc="white", label=label
        )
    exact = axes.axhline(2 * sweep[0]["paths"], color=figures.GREY, lw=1, ls="--", label="$2L$, bound for $H$")
    axes.set(xlabel="bandwidth times delay spread", ylabel="real terms for an error of 1e-2")
    ticks = [t for t in (3, 10, 30, 100, 300) if t <= 1.2 * max(entry["inverse_polynomial"] for entry in sweep)]
    axes.set_yticks(ticks, [str(t) for t in ticks])
    axes.set_xticks(product, [f"{value:.2g}" for value in product])
    axes.minorticks_off()
    figure.legend(handles=[exact], loc="outside lower center", fontsize=9)
    figures.name_lines(axes, lines)
    return figure


def glue_sweep(record: Record) -> None:
    """Glue what the text says about delay spreads."""
    sweep = record.numbers["sweep"]
    first, last = sweep[0], sweep[-1]
    for key in ("H", "H_polynomial", "U", "inverse", "inverse_polynomial"):
        for end, entry in (("first", first), ("last", last)):
            count = counted(entry[key], entry["samples"])
            provenance.glue(f"lr-sweep-{key.replace('_', '-').lower()}-{end}", count)
    provenance.glue("lr-sweep-product-first", first["product"])
    provenance.glue("lr-sweep-product-last", last["product"])
    provenance.glue("lr-sweep-exact", 2 * last["paths"])


# What breaks it


def stress(record: Record) -> None:
    """Record the ranks of inverses with a pole in the box, and with many poles near it, as ``stress``."""
    small, seed, device = record.profile == "smoke", record.seed, record.device
    stress = low_rank_plus_shift(size=8 if small else 32, seed=seed, dtype=torch.float64, device=device)
    inner = 4
    # The family is real: it is singular where its determinant changes sign.
    fine = torch.linspace(0, 1, 4001, dtype=torch.float64, device=device)[:, None]
    signs = torch.linalg.slogdet(stress(fine)).sign
    counts = []
    for count in (130, 65) if small else (386, 193):  # the second is drawn
        X, x, w, condition = inverses(stress, count)
        norms = torch.linalg.vector_norm(X.flatten(1), dim=1)
        errors, each = limits(X, w), limits(X / norms[:, None, None], w)
        counts.append(
            {
                "nodes": count,
                "condition": condition,
                "peak": norms.max() / norms.median(),
                "rank": terms(errors, 1e-2),
                "each": terms(each, 1e-2),
                "exact": terms(each, 1e-10),
            }
        )
    record.arrays["stress"], record.arrays["stress_polynomial"] = errors, polynomial_errors(X, x, w)
    record.arrays["stress_each"] = each
    crowd_nodes = 129 if small else 385
    X, x, w, crowded = inverses(cyclic(32 if small else 64, 0.05, device=device), crowd_nodes)
    record.arrays["crowd"] = limits(X, w)
    record.numbers["stress"] = {
        "inner": inner,
        "poles": fine[1:, 0][signs.diff() != 0].tolist(),
        "counts": counts,
        "crowd_nodes": crowd_nodes,
        "crowd": terms(record.arrays["crowd"], 1e-2),
        "crowd_size": X.shape[1],
        "crowd_condition": crowded,
    }


def smooth_family(record: Record) -> nm.ParametricMatrix:
    """Return a smooth family of 16 by 16 matrices on [0, 1]."""
    return nm.families.trigonometric(size=16, shift=3.0, seed=record.seed, dtype=torch.float64, device=record.device)


def kinks(record: Record, generator: torch.Generator) -> None:
    """Record the ranks of inverses of a smooth family, of one with a kink, and of one with many, as ``kinks``."""
    device, smooth = record.device, smooth_family(record)
    n, count, place = 16, 129 if record.profile == "smoke" else 193, 0.37
    B = (3 * torch.randn(n, n, generator=generator, dtype=torch.float64) / n**0.5).to(device)
    places = torch.rand(n, n, generator=generator, dtype=torch.float64).to(device)
    identity = torch.eye(n, dtype=torch.float64, device=device)
    box = {"lower": [0.0], "upper": [1.0], "dtype": torch.float64, "device": device}
    shared = nm.ParametricMatrix(lambda p: smooth((p - place).abs() / (1 - place)), **box)
    spread = nm.ParametricMatrix(lambda p: 3 * identity + B * (p[:, :, None] - places).abs(), **box)
    kinks = {}
    for name, own in (("smooth", smooth), ("shared", shared), ("spread", spread)):
        X, x, w, _ = inverses(own, count)
        errors, polynomial = limits(X, w), polynomial_errors(X, x, w)
        record.arrays[f"kink_{name}"], record.arrays[f"kink_polynomial_{name}"] = errors, polynomial
        kinks[name] = {
            "ranks": summary(errors),
            "polynomial": terms(polynomial, 1e-3),
            "halving": errors[15] / errors[31],
        }
    record.numbers["kinks"] = {"nodes": count, "families": kinks}


def noise(record: Record, generator: torch.Generator) -> None:
    """Record errors of maps of matrices with noise, as ``noise``."""
    smooth, n = smooth_family(record), 16
    N = 64 if record.profile == "smoke" else 256
    p = torch.linspace(0, 1, N, dtype=torch.float64, device=record.device)[:, None]
    A, truth = smooth(p), nm.Problem(smooth, nm.Inverse()).exact(p).value
    ranks = [2, 4, 6, 8, 10, 12, 16, 24, 32]
    noisy = []
    for i, level in enumerate((1e-2, 1e-3)):
        E = torch.randn(A.shape, generator=generator, dtype=torch.float64).to(A.device)
        measured = A + level * E * torch.linalg.vector_norm(A) / torch.linalg.vector_norm(E)
        X, _ = nm.linalg.inverse(measured)
        floor = benchmark.relative_error(X, truth)
        problem = nm.Problem(nm.families.from_samples(p, measured), nm.Inverse())
        record.arrays[f"noise_limit_{i}"] = benchmark.eckart_young(X, range(1, 65))
        errors = [benchmark.relative_error(benchmark.best_of_rank(X, r), truth) for r in ranks]
        chosen = ranks[int(np.argmin(errors))]
        options = {"rank": chosen, "seed": record.seed, "progress": False}
        few = nm.ClosedForm(nm.Chebyshev(16), snapshots=p.tolist())
        fits = {"default": nm.fit(problem, **options), "smooth": nm.fit(problem, method=few, **options)}
        noisy.append(
            {
                "level": level,
                "floor": floor,
                "errors": errors,
                "rank": chosen,
                "best": min(errors),
                "guess": floor * math.sqrt(chosen / N + chosen / n**2),
                "clean": benchmark.eckart_young(truth, chosen),
                **{key: benchmark.relative_error(fit(p), truth) for key, fit in fits.items()},
                "default_solves": fits["default"].report.exact_solves,
            }
        )
    record.numbers["noise"] = {"samples": N, "ranks": ranks, "levels": noisy, "terms": 17}


def draw(axes: Axes, errors: np.ndarray, line: str, colour: str, label: str, most: int = 48) -> None:
    """Plot the first errors against the number of terms."""
    errors = errors[:most]
    axes.semilogy(np.arange(1, len(errors) + 1), np.maximum(errors, 1e-17), line, color=colour, label=label)


def finish(titles: Mapping[Axes, str]) -> None:
    """Give panels their labels, and their lines names: in a legend, or beside their ends where they are many."""
    list(titles)[-1].set_xlabel("terms $r$")
    for axes, title in titles.items():
        axes.set_ylabel("relative error")
        lines, labels = axes.get_legend_handles_labels()
        if len(labels) > figures.LINES:
            axes.set_title(title)
            figures.name_lines(axes, lines)
        else:
            axes.legend(
                fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), title=title, title_fontsize=10
            )


def breaks_figure(record: Record) -> Figure:
    """Plot the limits where poles and kinks spoil them."""
    arrays = record.arrays
    figure, (a, b) = plt.subplots(2, 1, figsize=(5.0, 6.8), sharex=True)
    draw(a, arrays["stress"], "-", figures.BLUE, "pole inside, limit")
    draw(a, arrays["stress_each"], "--", figures.SKY, "pole inside, each result scaled")
    draw(a, arrays["stress_polynomial"], ":", figures.BLUE, "pole inside, polynomials")
    draw(a, arrays["crowd"], "-.", figures.RED, "many poles, limit")
    draw(b, arrays["kink_smooth"], "-", figures.BLUE, "smooth, limit")
    draw(b, arrays["kink_shared"], "--", figures.ORANGE, "one kink, limit")
    draw(b, arrays["kink_polynomial_shared"], ":", figures.ORANGE, "one kink, polynomials")
    draw(b, arrays["kink_spread"], "-.", figures.RED, "many kinks, limit")
    for axes in (a, b):
        axes.set_ylim(1e-9, 2)
    finish({a: "singular and nearly singular", b: "kinks"})
    return figure


def noise_figure(record: Record) -> Figure:
    """Plot the limits where noise and the gauge spoil them."""
    arrays, numbers = record.arrays, record.numbers
    figure, (c, d) = plt.subplots(2, 1, figsize=(5.0, 7.0))
    draw(c, arrays["kink_smooth"], "-", figures.GREY, "without noise, limit")
    for i, (entry, colour, mark) in enumerate(zip(numbers["noise"]["levels"], (figures.RED, figures.BLUE), "os")):
        level = f"noise {entry['level']:g}"
        draw(c, arrays[f"noise_limit_{i}"], "-", colour, f"{level}, limit")
        c.semilogy(
            numbers["noise"]["ranks"], entry["errors"], mark + ":", color=colour, ms=4, label=f"{level}, true error"
        )
        c.axhline(entry["floor"], color=colour, lw=0.8)
    c.set(xlabel="terms $r$", ylim=(1e-4, 2), xlim=(0, 34))
    draw(d, arrays["vectors_aligned"], "-", figures.BLUE, "aligned, limit", 200)
    draw(d, arrays["vectors_lapack"], "--", figures.ORANGE, "LAPACK, limit", 200)
    draw(d, arrays["vectors_random"], "-.", figures.RED, "random phases, limit", 200)
    draw(d, arrays["vectors_polynomial_aligned"], ":", figures.BLUE, "aligned, polynomials", 200)
    draw(d, arrays["vectors_polynomial_random"], ":", figures.RED, "random, polynomials", 200)
    d.set(ylim=(1e-4, 2), xlim=(-3, 135))
    finish({c: "noise in the matrices", d: "singular vectors of CDL-A"})
    return figure


def glue_breaks(record: Record) -> None:
    """Glue what the text says about what breaks a low rank."""
    arrays, numbers = record.arrays, record.numbers
    s, k, noise = numbers["stress"], numbers["kinks"], numbers["noise"]
    twice, once = s["counts"]
    for key, value in {
        "bound": 2 * s["inner"] + 1,
        "pole": s["poles"][0] if s["poles"] else math.nan,  # the small one has none
        "nodes": once["nodes"],
        "condition": at_least(once["condition"], 1),
        "peak": float(f"{once['peak']:.1e}"),
        "rank": counted(once["rank"], once["nodes"]),
        "each": counted(once["each"], once["nodes"]),
        "exact": counted(once["exact"], once["nodes"]),
        "twice-nodes": twice["nodes"],
        "twice-peak": float(f"{twice['peak']:.1e}"),
        "twice-rank": counted(twice["rank"], twice["nodes"]),
        "crowd": counted(s["crowd"], s["crowd_nodes"]),
        "crowd-size": s["crowd_size"],
        "crowd-condition": math.ceil(s["crowd_condition"]),
        "polynomial": float(arrays["stress_polynomial"][47]),
    }.items():
        provenance.glue(f"lr-stress-{key}", value)
    for name, entry in k["families"].items():
        provenance.glue(f"lr-kink-{name}-3", counted(entry["ranks"][1], k["nodes"]))
        provenance.glue(f"lr-kink-{name}-polynomial", counted(entry["polynomial"], k["nodes"]))
        provenance.glue(f"lr-kink-{name}-halving", entry["halving"])
    for i, entry in enumerate(noise["levels"]):
        for key in ("level", "floor", "rank", "best", "guess", "clean", "default", "smooth", "default_solves"):
            provenance.glue(f"lr-noise-{i}-{key.replace('_', '-')}", entry[key])
        provenance.glue(f"lr-noise-{i}-gain", entry["floor"] / entry["best"])
        provenance.glue(f"lr-noise-{i}-smooth-gain", entry["floor"] / entry["smooth"])
        provenance.glue(f"lr-noise-{i}-default-gain", entry["floor"] / entry["default"])
    provenance.glue("lr-noise-samples", noise["samples"])
    provenance.glue("lr-noise-terms", noise["terms"])
    for kind in ("aligned", "lapack", "random"):
        errors = torch.from_numpy(arrays[f"vectors_{kind}"])
        provenance.glue(f"lr-vectors-{kind}", counted(terms(errors, 1e-2), len(errors)))
        provenance.glue(f"lr-vectors-{kind}-polynomial", arrays[f"vectors_polynomial_{kind}"][:100][-1])


def dimensions(record: Record) -> None:
    """Record the ranks of inverses by the number of parameters, as ``dimensions``."""
    small, seed, device = record.profile == "smoke", record.seed, record.device
    many = 300 if small else 2000
    dimensions = []
    for d in (1, 2) if small else (1, 2, 3):
        family = nm.families.trigonometric(
            size=8 if small else 16, shift=3.0, terms=4 if small else 8, dimension=d, seed=seed, device=device
        )
        q = nm.sampling.sobol(many, family.lower, family.upper, seed)
        X, _ = nm.linalg.inverse(family(q))
        full, half = (benchmark.eckart_young(Y, range(1, many // 2)) for Y in (X, X[: many // 2]))
        dimensions.append({"d": d, "ranks": summary(full), "half": summary(half)})
    record.numbers["dimensions"] = {"entries": dimensions, "samples": many}


def dimensions_table(record: Record) -> Table:
    """Tabulate the ranks by the number of parameters, and glue what the text says about them."""
    n = record.numbers["dimensions"]
    line = n["entries"][0]["ranks"]
    provenance.glue("lr-d-samples", n["samples"])
    last = n["entries"][-1]
    provenance.glue("lr-d-last", last["ranks"][1])
    provenance.glue("lr-d-last-half", last["half"][1])
    provenance.glue("lr-d-most", last["d"])
    return Table(
        [
            "d",
            "rank at 1e-2",
            "from half the samples",
            "polynomial count",
            "rank at 1e-3",
            "from half",
            "polynomial count",
        ],
        [
            [
                str(e["d"]),
                *(
                    str(value)
                    for rank, half, first in zip(e["ranks"], e["half"], line)
                    for value in (rank, half, math.comb(first - 1 + e["d"], e["d"]))
                ),
            ]
            for e in n["entries"]
        ],
    )


def check(record: Record) -> None:
    """Assert what the text says of ranks and errors."""
    n = record.numbers
    for entry in n["poles"]["families"]:
        assert max(abs(value / entry["theory"] - 1) for value in entry["rates"]) < 0.05, "the rate of the nearest pole"
    assert n["poles"]["update"][1] < 1e-12 < n["poles"]["update"][0], "an update of rank one has an inverse of rank two"
    for entry in n["stress"]["counts"]:
        assert entry["exact"] <= 2 * n["stress"]["inner"] + 1, "few poles, low rank"
    for entry in n["models"].values():
        assert max(entry["complex"]) <= entry["paths"] and max(entry["real"]) <= 2 * entry["paths"]
        assert all(c <= r <= 2 * c for c, r in zip(entry["complex"], entry["real"]))
    for entry in n["sweep"]:
        assert max(entry["H_polynomial"], entry["inverse_polynomial"]) <= entry["samples"] / 2, "the rule for nodes"
    assert n["poles"]["pair_polynomial"] <= n["poles"]["pair_nodes"] / 2, "the rule for nodes"
    for level in n["noise"]["levels"]:
        assert level["best"] < level["floor"] and level["smooth"] < level["floor"]
    if record.profile != "smoke":
        check_sizes(record)
        check_words(record)
        check_figures(record)


def check_sizes(record: Record) -> None:
    """Assert what the text says of numbers at full size."""
    n = record.numbers
    smooth, shared, spread = (n["kinks"]["families"][name]["ranks"][1] for name in ("smooth", "shared", "spread"))
    assert shared <= smooth + 1 and spread >= 2 * smooth
    assert n["kinks"]["families"]["smooth"]["polynomial"] < FEW_MORE * smooth, (
        "where nothing else helps, few more terms"
    )
    unique = unique_rows(record)
    assert all(row["polynomial"] < FEW_MORE * row["ranks"][1] for row in unique), "so do analytic operations"
    assert n["poles"]["pair_polynomial"] > 5 * n["poles"]["pair_rank"][1], "analytic, and many more terms"
    assert len(n["stress"]["poles"]) == 1, "one pole in the box"
    assert len({entry["each"] for entry in n["stress"]["counts"]}) == 1, "scaled results do not depend on the nodes"
    assert n["stress"]["counts"][0]["rank"] != n["stress"]["counts"][1]["rank"], "those not scaled do"
    assert n["recipe"]["worst"] < 10 * n["recipe"]["median"], "the recipe finds nothing local"
    for entry in n["models"].values():  # the counts in the text, at 1e-2
        counts = [value[0] for key, value in entry.items() if isinstance(value, list)]
        assert max(counts) <= entry["nodes"] / 2, "the rule for nodes"
    assert max(max(row["ranks"]) for row in unique) <= n["operations"]["nodes"] / 2, "the rule for nodes"
    assert max(row["polynomial"] for row in unique) <= n["operations"]["nodes"] / 2, "the rule for nodes"
    far = math.log(n["poles"]["far"] + math.sqrt(1 + n["poles"]["far"] ** 2))
    assert abs(n["poles"]["pair_rate"] / far - 1) < 0.05, "then at the rate of the far poles"


def check_words(record: Record) -> None:
    """Assert what the text says in words at full size."""
    n = record.numbers
    rows = {(row["name"], row["factor"]): row["ranks"][0] for row in n["operations"]["rows"]}
    easy = max(row["ranks"][0] for row in unique_rows(record))
    aligned, lapack = (rows[f"SVD, 4 triplets, {how}", "U"] for how in ("aligned", "LAPACK"))
    assert easy < aligned < lapack, "singular vectors are harder, as LAPACK returns them most"
    worst = [rank for (_, factor), rank in rows.items() if factor == "eigenvectors"]
    assert min(worst) == sorted(rows.values())[-2], "eigenvectors are the worst"
    models = list(n["models"].values())
    for entry in models:
        assert entry["inverse_1.0"][0] <= entry["inverse_0.1"][0] <= entry["inverse_0.01"][0], "less noise, more terms"
        assert entry["complex"][0] <= entry["strong"] < entry["paths"], "strong paths estimate the rank from above"
    assert any(entry["U"][0] > entry["U_lapack"][0] for entry in models), "alignment does not always lower the rank"
    last = n["sweep"][-1]
    assert last["H"] <= 2 * last["paths"] < last["inverse"], "the number of paths does not hold the rank of the inverse"
    stress = n["stress"]
    assert stress["crowd"] > 0.9 * stress["crowd_size"], "nearly the most that a pencil of its size can have"
    assert 100 * stress["crowd_condition"] < stress["counts"][0]["condition"], "at a condition number far below"


def check_figures(record: Record) -> None:
    """Assert what the figures, as they are described, show at full size."""
    n, arrays = record.numbers, record.arrays
    first = [terms(torch.from_numpy(arrays[f"channel_{name}"]), 1e-2) for name in n["models"]]
    last = [terms(torch.from_numpy(arrays[f"channel_{name}"]), 1e-9) for name in n["models"]]
    assert min(first) >= 6 and max(first) <= 22 <= min(last) and max(last) <= 48, "terms of the channels"
    *_, before, after = n["sweep"]
    rise = {key: after[key] / before[key] for key in ("H", "H_polynomial", "U", "inverse")}
    assert 1.3 * rise.pop("H") < min(rise.values()), "the limit of H flattens, the others continue to rise"
    vectors = [arrays[f"vectors_{how}"] for how in ("aligned", "lapack", "random")]
    counts = [terms(torch.from_numpy(errors), 1e-2) for errors in vectors]
    assert counts == sorted(counts), "LAPACK's phases in between"
    polynomial = {how: arrays[f"vectors_polynomial_{how}"][99] for how in ("aligned", "random")}
    assert polynomial["aligned"] < 1e-2 and polynomial["random"] > 0.8, "random ones hardly fall"
    assert all(8 <= level["rank"] <= 12 for level in n["noise"]["levels"]), "a minimum at a rank of about ten"
    assert arrays["stress"][8] < 1e-9 and arrays["stress_polynomial"][47] > 0.8, "rounding at nine terms"
    smooth, shared, spread = (arrays[f"kink_{name}"][20] for name in ("smooth", "shared", "spread"))
    assert shared < 10 * smooth < spread, "smooth and with one shared kink the limits fall together"
    assert arrays["kink_polynomial_shared"][20] > 100 * shared, "polynomials for the one kink fall slowly"
