"""Studies of the chapter on continuity and gauge: constants, gauges of a channel, and values that nearly meet."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import neumatc as nm
from studies import benchmark, figures, provenance
from studies.provenance import Record, Table
from studies.texts import as_long, at_least, conditions, spread

# Of the operations whose constants are checked: rank and noise.
RANK, NOISE = 2, 0.1
# Where the values meet that the families below are made for.
CROSSING, AVOIDED, CENTRE = 0.45, 0.4, (0.1, 0.2)
# Gaps of the avoided crossings whose values are drawn.
SHOWN = (0.2, 0.02)


# Constants


def steepness(F: Callable[[Tensor], Tensor], A: Tensor, hermitian: bool) -> Tensor:
    """Return the largest change of F(A) per change of A in the Frobenius norm.

    It is the 2-norm of the Jacobian, by differences; of Hermitian matrices among these.

    Args:
        F: Of a batch of matrices, (B, m, n).
        A: The matrix, (m, n).
        hermitian: Whether A is changed by Hermitian matrices only.
    """
    E = torch.view_as_complex(torch.eye(2 * A.numel(), dtype=torch.float64, device=A.device).view(-1, *A.shape, 2))
    E = 1e-6 * ((E + E.mH) / 2 if hermitian else E)
    D = (F(A + E) - F(A - E)) / 2e-6
    return torch.linalg.matrix_norm((torch.view_as_real(D) if D.is_complex() else D).reshape(len(D), -1), 2)


def part(operation: nm.Operation, which: int) -> Callable[[Tensor], Tensor]:
    """Return the function A -> one factor of the exact result."""
    return lambda A: operation.exact(A)[0][which]


def invariant(operation: nm.Operation) -> Callable[[Tensor], Tensor]:
    """Return the function A -> what of the exact result does not depend on the gauge."""
    return lambda A: operation.invariant(operation.exact(A)[0])


SHAPES = {"any": (6, 4), "square": (5, 5), "positive": (5, 5), "Hermitian": (5, 5)}
# Operation: the matrices, the condition, F, its constant as a text and as a function of the singular values.
CONSTANTS = {
    "values of `SVD`; of `Eigh` without a rank": ("any", "all matrices", part(nm.SVD(), 1), "$1$", lambda S: 1),
    "`Inverse`": ("square", r"$\sigma_n > 0$", part(nm.Inverse(), 0), r"$\sigma_n^{-2}$", lambda S: S[-1] ** -2),
    "`PseudoInverse`": (
        "any",
        "constant rank $r$",
        part(nm.PseudoInverse(), 0),
        r"$\sigma_r^{-2}$",
        lambda S: S[-1] ** -2,
    ),
    "`RegularizedInverse`, noise $\\nu$": (
        "any",
        "all matrices",
        part(nm.RegularizedInverse(NOISE), 0),
        r"$\tfrac{3 \sqrt6}{8}\, \nu^{-3/2}$",
        lambda S: 3 * math.sqrt(6) / 8 * NOISE**-1.5,
    ),
    "`LMMSE`, `RZF`, noise $\\nu$": (
        "any",
        "all matrices",
        part(nm.LMMSE(NOISE), 0),
        r"$\nu^{-1}$",
        lambda S: 1 / NOISE,
    ),
    "`QR`: $Q$": (
        "any",
        "independent columns",
        part(nm.QR(), 0),
        r"$\sqrt2\, \sigma_n^{-1}$",
        lambda S: math.sqrt(2) / S[-1],
    ),
    "`QR`: $R$": (
        "any",
        "independent columns",
        part(nm.QR(), 1),
        r"$\sqrt2\, \sigma_1 / \sigma_n$",
        lambda S: math.sqrt(2) * S[0] / S[-1],
    ),
    "`Cholesky`": (
        "positive",
        "positive definite",
        part(nm.Cholesky(), 0),
        r"$(\sigma_1 / 2)^{1/2}\, \sigma_n^{-1}$",
        lambda S: (S[0] / 2).sqrt() / S[-1],
    ),
    "`Polar`: $U$": ("any", "full rank", part(nm.Polar(), 0), r"$\sigma_n^{-1}$", lambda S: 1 / S[-1]),
    "`Polar`: $P$": ("any", "all matrices", part(nm.Polar(), 1), r"$\sqrt2$", lambda S: math.sqrt(2)),
    '`MatrixFunction("exp")`': (
        "square",
        "all matrices",
        part(nm.MatrixFunction("exp"), 0),
        r"$e^{\sigma_1}$",
        lambda S: S[0].exp(),
    ),
    '`MatrixFunction("sqrt")`': (
        "positive",
        "here: positive definite",
        part(nm.MatrixFunction("sqrt"), 0),
        r"$\tfrac12\, \sigma_n^{-1/2}$",
        lambda S: S[-1] ** -0.5 / 2,
    ),
    '`MatrixFunction("log")`': (
        "positive",
        "here: positive definite",
        part(nm.MatrixFunction("log"), 0),
        r"$\sigma_n^{-1}$",
        lambda S: 1 / S[-1],
    ),
    "`LogDet`: $\\log \\lvert \\det A \\rvert$": (
        "square",
        r"$\sigma_n > 0$",
        part(nm.LogDet(), 1),
        r"$\lVert A^{-1} \rVert_F$",
        lambda S: (S**-2).sum().sqrt(),
    ),
    "`SVD(k)`: $U S V^H$": (
        "any",
        r"$\sigma_k > \sigma_{k+1}$",
        invariant(nm.SVD(RANK)),
        r"$\sigma_k / (\sigma_k - \sigma_{k+1})$",
        lambda S: S[RANK - 1] / (S[RANK - 1] - S[RANK]),
    ),
    "`Projector(k)`, `Subspace(k)`: $P$": (
        "any",
        r"$\sigma_k > \sigma_{k+1}$",
        invariant(nm.Projector(RANK)),
        r"$\sqrt2\, (\sigma_k^2 + \sigma_{k+1}^2)^{1/2} / (\sigma_k^2 - \sigma_{k+1}^2)$",
        lambda S: (2 * (S[RANK - 1] ** 2 + S[RANK] ** 2)).sqrt() / (S[RANK - 1] ** 2 - S[RANK] ** 2),
    ),
    # At the end, so that the rows above keep their random matrices.
    "`Eigh(k)`: $V \\Lambda V^H$": (
        "Hermitian",
        r"Hermitian, $\sigma_k > \sigma_{k+1}$",
        invariant(nm.Eigh(RANK)),
        r"$\sigma_k / (\sigma_k - \sigma_{k+1})$",
        lambda S: S[RANK - 1] / (S[RANK - 1] - S[RANK]),
    ),
    '`MatrixFunction("inverse_sqrt")`': (
        "positive",
        "here: positive definite",
        part(nm.MatrixFunction("inverse_sqrt"), 0),
        r"$\tfrac12\, \sigma_n^{-3/2}$",
        lambda S: S[-1] ** -1.5 / 2,
    ),
    "`PseudoInverse(k)`": (
        "any",
        r"$\sigma_k > \sigma_{k+1}$",
        part(nm.PseudoInverse(rank=RANK), 0),
        r"$\sigma_k^{-1} / (\sigma_k - \sigma_{k+1})$",
        lambda S: 1 / (S[RANK - 1] * (S[RANK - 1] - S[RANK])),
    ),
}


def lipschitz(record: Record) -> None:
    """Record the largest share of each constant that random matrices reach, as ``lipschitz``."""
    small = record.profile == "smoke"
    generator = torch.Generator().manual_seed(record.seed)
    shares = {}
    for name, (kind, _, F, _, c) in CONSTANTS.items():
        ratios, hermitian = [], kind in ("positive", "Hermitian")
        for _ in range(2 if small else 12):
            Z = torch.randn(SHAPES[kind], dtype=torch.complex128, generator=generator).to(record.device)
            U, _, Vh = torch.linalg.svd(Z, full_matrices=False)
            S = 10 ** (2 * torch.rand(len(Vh), dtype=torch.float64, generator=generator) - 1.5).to(record.device)
            signs = (-1.0) ** torch.arange(len(S), device=S.device) if kind == "Hermitian" else 1.0
            A = (U * (S * signs)) @ (U.mH if hermitian else Vh)
            A = (A + A.mH) / 2 if hermitian else A
            ratios.append(float(steepness(F, A, hermitian) / c(S.sort(descending=True).values)))
        shares[name] = max(ratios)
    record.numbers["lipschitz"] = {"shares": shares, "k": RANK, "noise": NOISE, "draws": len(ratios)}


def lipschitz_table(record: Record) -> Table:
    """Tabulate the constants, and glue how many matrices were drawn and the largest share."""
    lipschitz = record.numbers["lipschitz"]
    provenance.glue("cg-draws-of-matrices", lipschitz["draws"])
    provenance.glue("cg-share-most", max(lipschitz["shares"].values()))
    return Table(
        ["result", "condition on $A(p)$", "$c(p)$", "largest share of it found"],
        [[name, needs, text, f"{lipschitz['shares'][name]:.2f}"] for name, (_, needs, _, text, _) in CONSTANTS.items()],
    )


# Before and after


def downlink(draw: int, device: str) -> nm.wireless.Channel:
    """Return a draw of a CDL-C channel from the base station to one user."""
    return nm.wireless.cdl(
        "C", user_antennas=(2, 4, 2), direction="downlink", delay_spread=100e-9, seed=draw, device=device
    )


def turned(U: Tensor) -> Tensor:
    """Return the number of steps between neighbours at which a column turns by more than 90 degrees, by column."""
    return ((U[1:].conj() * U[:-1]).sum(dim=1).real < 0).sum(dim=0)


def before_after(record: Record, channel: nm.wireless.Channel, gauges: Mapping[str, type[nm.SVD]]) -> None:
    """Record what the gauge does to singular vectors, their ranks and their maps along a band, as ``before_after``.

    Args:
        record: Gets also the arrays ``limits_...``, ``frequency`` and ``entry_...``.
        channel: The channel.
        gauges: Singular value decompositions by name of their gauge, ``"as returned"`` and ``"aligned"`` among them.
    """
    small, options = record.profile == "smoke", {"seed": record.seed, "progress": False}
    streams, ranks, snapshots, step = (2, (8, 16), 32, 32) if small else (4, (24, 64), 144, 8)
    f = channel.frequencies[::step]
    x = 2 * (f - channel.lower) / (channel.upper - channel.lower) - 1
    H = channel(f)
    method = nm.ClosedForm(snapshots=snapshots)
    exact = nm.Problem(channel, nm.SVD(rank=streams)).exact(f).value
    product = nm.SVD(rank=streams).invariant(exact)
    most = min(100, len(f))
    entries, dense = {}, {}
    for name, kind in gauges.items():
        operation = kind(rank=streams)
        (U, _, Vh), _ = operation.align(x, operation.snapshots(H)[0])
        limits = {
            key: benchmark.eckart_young(factor, list(range(1, most + 1))) for key, factor in {"U": U, "V": Vh}.items()
        }
        fits = [nm.fit(nm.Problem(channel, operation), rank=r, method=method, **options) for r in ranks]
        entries[name] = {
            "turned": int(turned(U).sum()),
            "ranks": {key: [int((e > tol).sum()) + 1 for tol in (1e-2, 1e-3)] for key, e in limits.items()},
            "errors": [benchmark.relative_error(operation.invariant(fit(f)), product) for fit in fits],
        }
        dense[name] = U
        record.arrays[f"limits_{list(gauges).index(name)}"] = limits["U"]
    column = int(turned(dense["as returned"]).argmax())
    row = 1 + int(dense["aligned"][:, 1:, column].abs().mean(dim=0).argmax())
    follow = dense["aligned"][:, row, column]
    start = dense["as returned"][0, row, column] / follow[0]
    record.arrays["frequency"] = f[:, 0]
    record.arrays["entry_returned"] = dense["as returned"][:, row, column].real
    record.arrays["entry_aligned"] = (follow * start / start.abs()).real
    operation = nm.SVD(rank=streams)
    draws = [
        turned(operation.exact(downlink(i, record.device)(f[:: 1 if small else 2]))[0][0])
        for i in range(2 if small else 8)
    ]
    record.numbers["before_after"] = {
        "gauges": entries,
        "ranks": ranks,
        "snapshots": snapshots,
        "points": len(f),
        "steps": (len(f) - 1) * streams,
        "row": row,
        "column": column,
        "first_row_imaginary": exact.U[:, 0].imag.abs().max(),
        "draws": len(draws),
        "draws_turned": sum(int(t.sum() > 0) for t in draws),
    }


def before_figure(record: Record) -> Figure:
    """Plot an entry of U along the band, as returned and aligned, and the smallest error of U against the rank."""
    b, arrays = record.numbers["before_after"], record.arrays
    figure, (left, right) = plt.subplots(2, 1, figsize=(5.0, 5.6))
    f_mhz = arrays["frequency"] / 1e6
    left.plot(f_mhz, arrays["entry_returned"], ".", color=figures.ORANGE, ms=3, label="as returned")
    left.plot(f_mhz, arrays["entry_aligned"], color=figures.BLUE, lw=1.2, label="aligned")
    left.set(
        xlabel="offset from the carrier (MHz)", ylabel=f"entry ({b['row'] + 1}, {b['column'] + 1}) of $U$, real part"
    )
    left.margins(y=0.12)
    left.legend(fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    styles = [(figures.RED, ":"), (figures.ORANGE, "-."), (figures.PURPLE, "--"), (figures.BLUE, "-")]
    for i, (name, (colour, line)) in enumerate(zip(b["gauges"], styles)):
        limits = arrays[f"limits_{i}"]
        right.semilogy(np.arange(1, len(limits) + 1), limits, color=colour, ls=line, label=name)
    for tolerance in (1e-2, 1e-3):
        right.axhline(tolerance, color=figures.GREY, lw=0.8)
    right.set(xlabel="rank $r$", ylabel="smallest error of $U$", ylim=(1e-4, 1))
    right.legend(fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def before_table(record: Record) -> Table:
    """Tabulate turns, ranks and errors by gauge, and glue what the text says about them."""
    b, arrays = record.numbers["before_after"], record.arrays
    for key, value in {
        "steps": b["steps"],
        "returned-turned": b["gauges"]["as returned"]["turned"],
        "draws": b["draws"],
        "draws-turned": b["draws_turned"],
        "imaginary": at_least(b["first_row_imaginary"], 1),
        "rank-low": b["ranks"][0],
        "rank-high": b["ranks"][1],
        "snapshots": b["snapshots"],
        "points": b["points"],
        "arbitrary-rank": b["gauges"]["arbitrary phases"]["ranks"]["U"][1],
        "returned-rank": b["gauges"]["as returned"]["ranks"]["U"][1],
        "aligned-rank": b["gauges"]["aligned"]["ranks"]["U"][1],
        "returned-low": b["gauges"]["as returned"]["errors"][0],
        "returned-high": b["gauges"]["as returned"]["errors"][1],
        "largest-low": b["gauges"]["largest entry positive"]["errors"][0],
        "largest-high": b["gauges"]["largest entry positive"]["errors"][1],
        "aligned-low": b["gauges"]["aligned"]["errors"][0],
        "aligned-high": b["gauges"]["aligned"]["errors"][1],
    }.items():
        provenance.glue(f"cg-{key}", value)
    low, high = b["ranks"]

    def several(ranks: Sequence[int]) -> str:
        most = len(arrays["limits_0"])  # where the limits end
        return ", ".join(str(rank) if rank <= most else f"over {most}" for rank in ranks)

    return Table(
        ["gauge", "turns over 90°", "rank of $U$ for 1e-2, 1e-3", "of $V$", f"error, r = {low}", f"error, r = {high}"],
        [
            [
                name,
                str(e["turned"]),
                *(several(e["ranks"][key]) for key in "UV"),
                *(f"{x:.1e}" for x in e["errors"]),
            ]
            for name, e in b["gauges"].items()
        ],
    )


# One double cone


class Cones:
    """Families of twelve by twelve matrices whose leading two values meet, or nearly do, at a planted place.

    Args:
        seed: Seed of the rotations Q(p) that hide the place.
        device: The device of the families.
    """

    def __init__(self, seed: int, device: str) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.size, self.wide = 12, {"dtype": torch.float64, "device": device}
        axes = torch.randn(3, self.size, self.size, generator=generator, dtype=torch.float64)
        self.axes = (axes - axes.mT).to(device) / 8
        self.pauli = torch.tensor(
            [[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=torch.complex128, device=device
        )

    def pair(self, xyz: Tensor) -> Tensor:
        """Return 3 I + x X + y Y + z Z with Pauli's matrices, (B, 2, 2): values 3 plus and minus the distance."""
        return 3 * torch.eye(2, **self.wide) + torch.einsum("bi,ijk->bjk", xyz.to(self.pauli), self.pauli)

    def planted(
        self,
        place: Callable[[Tensor], tuple[Tensor, ...]],
        lower: list[float],
        upper: list[float],
        *,
        real: bool = True,
    ) -> nm.ParametricMatrix:
        """Return the family Q(p) diag(pair at place(p), ten eigenvalues from 1.2 to 0.1) Q(p)^T."""

        def fn(p: Tensor) -> Tensor:
            A = torch.diag(torch.linspace(1.5, 0.1, self.size, **self.wide)).to(self.pauli).repeat(len(p), 1, 1)
            A[:, :2, :2] = self.pair(torch.stack(place(p), dim=1))
            Q = torch.matrix_exp(torch.einsum("bi,ijk->bjk", p, self.axes[: p.shape[1]])).to(A)
            A = Q @ A @ Q.mT
            return A.real.contiguous() if real else (A + A.mH) / 2

        return nm.ParametricMatrix(fn, lower, upper, **self.wide)

    def line(self, gap: float, where: float) -> nm.ParametricMatrix:
        """A line past the origin: the least gap between the two values is there."""
        return self.planted(lambda p: (0 * p[:, 0] + gap / 2, 0 * p[:, 0], p[:, 0] - where), [0.0], [1.0])

    def plane(self, distance: float) -> nm.ParametricMatrix:
        """A plane past the origin at a distance, nearest at p = (0.1, 0.2)."""
        return self.planted(
            lambda p: (torch.sin(p[:, 1] - 0.2) / 2, 0 * p[:, 0] + distance, torch.expm1(p[:, 0] - 0.1) / 2),
            [-1.0, -1.0],
            [1.0, 1.0],
            real=distance == 0,
        )

    def space(self) -> nm.ParametricMatrix:
        """Three parameters: the origin is at p = (0.1, 0.2, -0.1)."""
        return self.planted(
            lambda p: (torch.sin(p[:, 1] - 0.2) / 2, (p[:, 2] + 0.1) / 2, torch.expm1(p[:, 0] - 0.1) / 2),
            [-1.0] * 3,
            [1.0] * 3,
            real=False,
        )

    def winding(self) -> nm.ParametricMatrix:
        """Complex square matrices Q(p) D(p) Q(2 p)^T whose smallest singular value is zero at p = (0.1, 0.2)."""

        def fn(p: Tensor) -> Tensor:
            D = torch.diag(torch.linspace(4.0, 2.0, self.size, **self.wide)).to(self.pauli).repeat(len(p), 1, 1)
            D[:, -1, -1] = torch.complex(torch.expm1(p[:, 0] - 0.1), torch.sin(p[:, 1] - 0.2))
            K = torch.einsum("bi,ijk->bjk", p, self.axes[:2])
            return torch.matrix_exp(K).to(D) @ D @ torch.matrix_exp(2 * K).mT.to(D)

        return nm.ParametricMatrix(fn, [-1.0, -1.0], [1.0, 1.0], **self.wide)

    def sphere(self) -> nm.ParametricMatrix:
        """The pair alone, of three parameters: the origin is at zero."""
        return nm.ParametricMatrix(self.pair, [-1.0] * 3, [1.0] * 3, **self.wide)


def measured(
    family: nm.ParametricMatrix,
    operation: nm.Operation,
    points: Tensor,
    rank: int = 24,
    method: nm.ClosedForm | None = None,
    *,
    seed: int,
) -> dict:
    """Fit an operation and return its errors at the points, its exact solves and its events, for the record."""
    task = nm.Problem(family, operation)
    reals = [math.prod(x.shape) * (2 if x.dtype(family.dtype).is_complex else 1) for x in task.factors]
    rank = min(rank, max(reals))
    fit = nm.fit(task, rank=rank, method=method or nm.ClosedForm(snapshots=64), seed=seed, progress=False)
    error = task.error(points, fit(points))
    return {
        "error": error.max(),
        "median": error.median(),
        "solves": fit.report.exact_solves,
        "events": fit.report.to_dict()["events"],
    }


def near(record: Record, cones: Cones, place: float, gap: float) -> Tensor:
    """Return points on the interval, and more around a planted place on the scale of the gap, but not at it."""
    count = 200 if record.profile == "smoke" else 1000
    p = torch.cat([torch.linspace(0, 1, count, **cones.wide), place + gap * torch.linspace(-2, 2, 40, **cones.wide)])
    return p.clamp(0, 1)[:, None]


def crossing(record: Record, cones: Cones, choices: Mapping[str, nm.Operation]) -> None:
    """Record fits of each choice at a crossing, as ``crossing``.

    Args:
        record: The record.
        cones: The families.
        choices: Operations by name.
    """
    straight, points = cones.line(0.0, CROSSING), near(record, cones, CROSSING, 1e-3)
    record.numbers["crossing"] = {
        name: measured(straight, operation, points, seed=record.seed) for name, operation in choices.items()
    }


def avoided(record: Record, cones: Cones, choices: Mapping[str, nm.Operation]) -> None:
    """Record fits of each choice at avoided crossings of all gaps, as ``avoided``.

    Args:
        record: Gets also the arrays ``values_...``, ``weight_...`` and ``p``.
        cones: The families.
        choices: Operations by name.
    """
    small, wide, where = record.profile == "smoke", cones.wide, AVOIDED
    gaps = [1e-6, 1e-3, 1e-1, 4e-1] if small else [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 2e-1, 4e-1]
    swept = {
        name: [
            measured(cones.line(gap, where), operation, near(record, cones, where, gap), seed=record.seed)
            for gap in gaps
        ]
        for name, operation in choices.items()
    }
    p = torch.linspace(0, 1, 200 if small else 400, **wide)[:, None]
    record.numbers["avoided"] = {
        "gaps": gaps,
        "where": where,
        "largest": [float(nm.linalg.svd(cones.line(gap, where)(p))[1].max()) for gap in gaps],
        "fits": swept,
    }
    operation = nm.SVD(rank=2)
    smooth = operation.align(2 * p - 1, operation.snapshots(cones.line(0.0, where)(p))[0])[0][0][:, :, 0]
    for i, gap in enumerate(SHOWN):
        U, S, _ = operation.exact(cones.line(gap, where)(p))[0]
        record.arrays[f"values_{i}"] = S
        record.arrays[f"weight_{i}"] = (smooth.conj() * U[:, :, 0]).sum(dim=1).abs().square()
    record.arrays["values_crossing"] = operation.exact(cones.line(0.0, where)(p))[0][1]
    record.arrays["p"] = p[:, 0]
    record.numbers["avoided"]["shown"] = SHOWN


def glue_crossing(record: Record) -> None:
    """Glue what the text says about the crossing."""
    exactly = record.numbers["crossing"]
    for key, name in {
        "returned": "SVD(2), as returned",
        "vectors": "SVD(2)",
        "block": 'SVD(2, gauge="subspace")',
        "one": "SVD(1)",
        "one-projector": "Projector(1)",
    }.items():
        provenance.glue(f"cg-crossing-{key}", exactly[name]["error"])
    provenance.glue("cg-crossing-place", exactly["SVD(2)"]["events"][0]["parameter"][0])
    provenance.glue("cg-crossing-solves", exactly["SVD(2)"]["solves"])


def avoided_figure(record: Record) -> Figure:
    """Plot the two values past a crossing and two avoided ones, and how their vectors change places."""
    shown = record.numbers["avoided"]["shown"]
    figure, (left, right) = plt.subplots(2, 1, figsize=(5.0, 5.0), sharex=True)
    q = record.arrays["p"]
    for k in range(2):
        left.plot(
            q,
            record.arrays["values_crossing"][:, k],
            color=figures.GREY,
            ls=":",
            label=None if k else "gap 0 (crossing)",
        )
    for i, (gap, colour, line_style) in enumerate(zip(shown, (figures.BLUE, figures.ORANGE), ("-", "--"))):
        for k in range(2):
            label = None if k else f"gap {gap:g}"
            left.plot(q, record.arrays[f"values_{i}"][:, k], color=colour, ls=line_style, label=label)
        right.plot(q, record.arrays[f"weight_{i}"], color=colour, ls=line_style, label=f"gap {gap:g}")
    left.set(ylabel="two largest values", xlim=(0.1, 0.7), ylim=(2.7, 3.3))
    left.legend(fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    right.set(xlabel="$p$", ylabel="squared part along $w$")
    return figure


def gap_figure(record: Record) -> Figure:
    """Plot the errors of each choice against the least gap."""
    avoided = record.numbers["avoided"]
    styles = {
        "SVD(2), as returned": (figures.RED, "v:"),
        "SVD(2)": (figures.BLUE, "o-"),
        'SVD(2, gauge="subspace")': (figures.ORANGE, "s--"),
        "Subspace(2)": (figures.SKY, "x:"),
        "Projector(2)": (figures.GREEN, "D-."),
        "SVD(1)": (figures.PURPLE, "^-"),
        "Projector(1)": (figures.BLACK, "+:"),
    }
    figure, axes = plt.subplots(figsize=(5.0, 4.6))
    for name, (colour, style) in styles.items():
        # From wide to narrow, since the lines part where the gap is narrow.
        gaps, errors = zip(*sorted(zip(avoided["gaps"], (fit["error"] for fit in avoided["fits"][name])))[::-1])
        axes.loglog(gaps, errors, style, color=colour, ms=5, mfc="none", lw=1.3, label=name)
    axes.invert_xaxis()
    axes.set(xlabel="least gap, from wide to narrow (values near 3)", ylabel="largest relative error")
    figures.name_lines(axes, axes.lines)
    return figure


def at(record: Record, name: str, gap: float) -> dict:
    """Return the fit of a choice at the recorded gap nearest to ``gap``."""
    avoided = record.numbers["avoided"]
    return avoided["fits"][name][int(np.argmin(np.abs(np.log(np.array(avoided["gaps"]) / gap))))]


def kinds(fit: dict) -> set[str]:
    """Return the kinds of the events that a fit reported."""
    return {event["kind"] for event in fit["events"]}


def glue_avoided(record: Record) -> None:
    """Glue what the text says about avoided crossings."""
    avoided = record.numbers["avoided"]
    own = avoided["fits"]["SVD(2)"]
    blocked = [gap for gap, fit in zip(avoided["gaps"], own) if "avoided crossing" in kinds(fit)]
    taken = [gap for gap, fit in zip(avoided["gaps"], own) if "crossing" in kinds(fit)]
    alone = [(gap, fit["error"]) for gap, fit in zip(avoided["gaps"], own) if not fit["events"]]
    for key, value in {
        "blocked-most": max(blocked, default=math.nan),
        "blocked-least": min(blocked, default=math.nan),
        "taken-most": max(taken, default=math.nan),
        "taken-error": max([fit["error"] for gap, fit in zip(avoided["gaps"], own) if gap in taken], default=math.nan),
        "taken-one": max([at(record, "SVD(1)", gap)["error"] for gap in taken], default=math.nan),
        "alone-worst": max([error for _, error in alone], default=math.nan),
        "alone-gap": max(alone, key=lambda pair: pair[1], default=(math.nan,))[0],
        "block-worst": at_least(max(fit["error"] for fit in avoided["fits"]['SVD(2, gauge="subspace")']), 1),
        "subspace-worst": at_least(max(fit["error"] for fit in avoided["fits"]["Subspace(2)"]), 1),
        "projector-worst": at_least(max(fit["error"] for fit in avoided["fits"]["Projector(2)"]), 1),
        "one-projector": at(record, "Projector(1)", 1e-3)["error"],
        "one": at(record, "SVD(1)", 1e-3)["error"],
        "solves": own[0]["solves"],
    }.items():
        provenance.glue(f"cg-avoided-{key}", value)


def transport(family: nm.ParametricMatrix, loop: Tensor) -> Tensor:
    """Transport the leading vector along a closed loop: the vectors (N + 1, L), the last one back at the start."""
    u = nm.SVD(rank=1).exact(family(loop))[0][0][:, :, 0]
    u = torch.cat([u, u[:1]])
    overlaps = (u[:-1].conj() * u[1:]).sum(dim=1)
    phases = (overlaps / overlaps.abs()).conj().cumprod(dim=0)
    return torch.cat([u[:1], u[1:] * phases[:, None]])


def berry_phase(family: nm.ParametricMatrix, loop: Tensor) -> float:
    """Return the angle by which the loop turns the leading vector."""
    u = transport(family, loop)
    return float((u[0].conj() * u[-1]).sum().angle())


def unit_circle(record: Record, cones: Cones) -> tuple[Tensor, Tensor]:
    """Return angles along a loop, (N,), and the points of the unit circle there, (N, 2)."""
    small, wide = record.profile == "smoke", cones.wide
    turns = 2 * math.pi * torch.arange(90 if small else 360, **wide) / (90 if small else 360)
    circle = torch.stack([turns.cos(), turns.sin()], dim=1)
    return turns, circle


def holonomy(record: Record, cones: Cones) -> dict[str, float]:
    """Return the angles by which loops around and beside the planted point turn the leading vector.

    The record gets the arrays ``transport_...``, ``loop_...`` and ``turns``.
    """
    turns, circle = unit_circle(record, cones)
    centre = torch.tensor(CENTRE, **cones.wide)
    loops = {"around": centre + 0.5 * circle, "small": centre + 0.05 * circle, "beside": -centre - 0.4 + 0.3 * circle}
    cone = cones.plane(0.0)
    around = {name: berry_phase(cone, loop) for name, loop in loops.items()}
    for name in ("around", "beside"):
        u = transport(cone, loops[name])
        record.arrays[f"transport_{name}"] = (u[0] * u).sum(dim=1)
        record.arrays[f"loop_{name}"] = loops[name]
    record.arrays["turns"] = torch.cat([turns, turns[:1] + 2 * math.pi])
    return around


def planes(record: Record, cones: Cones, choices: Mapping[str, nm.Operation], returned: type[nm.SVD]) -> None:
    """Record fits on planes past a cone, in three parameters, and around a zero of the determinant.

    Args:
        record: Gets the numbers ``planes``, ``space`` and ``winding``, and the arrays ``grid``, ``gap``, ``snapshots``.
        cones: The families.
        choices: Operations by name.
        returned: The singular value decomposition as returned, without a gauge.
    """
    small, seed, wide = record.profile == "smoke", record.seed, cones.wide
    around, cone = holonomy(record, cones), cones.plane(0.0)
    circle, centre = unit_circle(record, cones)[1], torch.tensor(CENTRE, **wide)
    grid = torch.linspace(-1, 1, 41 if small else 121, **wide)
    S = nm.linalg.svd(cone(torch.cartesian_prod(grid, grid)))[1]
    record.arrays["grid"], record.arrays["gap"] = grid, (S[:, 0] - S[:, 1]).view(len(grid), -1)
    count = 64 if small else 256
    method = nm.ClosedForm(snapshots=count, design="tensor")
    points = cone.box.uniform(200 if small else 1000, torch.Generator().manual_seed(seed))
    points = torch.cat([points, centre + 0.01 * circle[::3]])  # and close to the planted point
    # As many terms as the vectors of the pair have real numbers; twice as many beside the cone, where they are complex.
    distances, terms = (0.0, 0.1, 0.3), 16 if small else 24
    record.numbers["planes"] = {
        "around": around,
        "distances": distances,
        "fits": [
            {
                name: measured(
                    cones.plane(distance), operation, points, terms * (1 + (distance > 0)), method, seed=seed
                )
                for name, operation in choices.items()
                if "1)" not in name
            }
            for distance in distances
        ],
        "spacing": float(2 * math.sin(math.pi / (2 * math.isqrt(count)))),
        "truncated": {
            "rank": 16,
            **{
                name: measured(cone, choices[name], points, 16, method, seed=seed)
                for name in ("Subspace(2)", "Projector(2)")
            },
        },
        "largest": [
            float(nm.linalg.svd(cones.plane(distance)(torch.cartesian_prod(grid[::4], grid[::4])))[1].max())
            for distance in distances
        ],
    }
    record.arrays["snapshots"] = nm.sampling.design(count, 2, kind="tensor")[0]
    room, dense = cones.space(), nm.ClosedForm(snapshots=216 if small else 512, design="tensor")
    inside = room.box.uniform(len(points), torch.Generator().manual_seed(seed))
    record.numbers["space"] = {
        name: measured(room, choices[name], inside, 2 * terms, dense, seed=seed)
        for name in ("SVD(2), as returned", "SVD(2)")
    }
    record.numbers["winding"] = {
        name: measured(cones.winding(), operation, points, 16 if small else 80, method, seed=seed)
        for name, operation in {"SVD(), as returned": returned(), "SVD()": nm.SVD()}.items()
    }


def spheres(record: Record, cones: Cones) -> None:
    """Record the phases of loops around the origin by their solid angle, as ``sphere``."""
    circle, sphere = unit_circle(record, cones)[1], cones.sphere()
    polar = (30.0, 60.0, 80.0, 120.0)
    record.numbers["sphere"] = [
        {
            "angle": angle,
            "solid": 2 * math.pi * (1 - math.cos(math.radians(angle))),
            "phase": berry_phase(
                sphere,
                torch.cat(
                    [
                        math.sin(math.radians(angle)) * circle,
                        torch.full_like(circle[:, :1], math.cos(math.radians(angle))),
                    ],
                    dim=1,
                ),
            ),
        }
        for angle in polar
    ]


def conical_figure(record: Record) -> Figure:
    """Plot the gap around a conical intersection, two loops, and the vector transported along them."""
    found = record.numbers["planes"]["fits"][0]["SVD(2)"]["events"]
    figure, (left, right) = plt.subplots(2, 1, figsize=(5.0, 6.8), height_ratios=(1.6, 1))
    grid = record.arrays["grid"]
    filled = left.contourf(grid, grid, record.arrays["gap"].T, levels=12, cmap="cividis")
    figure.colorbar(filled, ax=left, label="gap of the values")
    left.plot(*record.arrays["snapshots"].T, ".", color="white", ms=2.5)
    for name, colour, line_style in (("around", figures.ORANGE, "-"), ("beside", figures.SKY, "--")):
        loop = record.arrays[f"loop_{name}"]
        left.plot(*np.vstack([loop, loop[:1]]).T, color=colour, ls=line_style)
        label = "around the point" if name == "around" else "beside it"
        right.plot(record.arrays["turns"], record.arrays[f"transport_{name}"], color=colour, ls=line_style, label=label)
    left.plot(0.1, 0.2, "o", color="white", ms=10, mfc="none", mew=1.5)
    for event in found:
        left.plot(*event["parameter"], "x", color="white", ms=7, mew=1.5)
    left.set(xlabel="first parameter", ylabel="second parameter", aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    left.grid(visible=False)
    right.axhline(0, color=figures.GREY, lw=0.8)
    right.set(
        xlabel="angle along the loop",
        ylabel="overlap with the start",
        xticks=[0, math.pi, 2 * math.pi],
        xticklabels=["0", "$\\pi$", "$2\\pi$"],
        ylim=(-1.1, 1.1),
    )
    right.legend(fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def rows_of(title: str, planned: str, fit: dict, gap: float = 0.0) -> list[list[str]]:
    """Return the rows of a table of events: what was planted, and what a fit reported."""
    least = f"{gap:.3f}" if gap == 0 or gap >= 1e-3 else f"{gap:.0e}"
    if not fit["events"]:
        return [[title, planned, least, "no event", "", "", "", f"{fit['error']:.0e}"]]
    return [
        [
            title,
            planned,
            least,
            event["kind"],
            ", ".join(f"{v:.3f}" for v in event["parameter"]),
            f"{event['gap']:.3f}",
            f"{math.degrees(event['phase']):.0f}°" if event["kind"] == "loop" else "",
            f"{fit['error']:.0e}",
        ]
        for event in fit["events"]
    ]


def events_table(record: Record) -> Table:
    """Tabulate what was planted and what :func:`neumatc.fit` reported."""
    numbers, avoided = record.numbers, record.numbers["avoided"]
    table = rows_of("crossing", str(CROSSING), numbers["crossing"]["SVD(2)"])
    for gap in (2e-1, 3e-2, 1e-3, 1e-6):
        if gap in avoided["gaps"]:
            relative = gap / avoided["largest"][avoided["gaps"].index(gap)]
            fit = at(record, "SVD(2)", gap)
            table += rows_of(f"avoided crossing, gap {gap:g}", str(AVOIDED), fit, relative)
    for distance, largest, fits in zip(*(numbers["planes"][key] for key in ("distances", "largest", "fits"))):
        title = "conical intersection" if distance == 0 else f"plane, gap {2 * distance:g}"
        table += rows_of(title, str(CENTRE), fits["SVD(2)"], 2 * distance / largest)
    table += rows_of("meeting in three parameters, complex", "(0.1, 0.2, -0.1)", numbers["space"]["SVD(2)"])
    table += rows_of("zero of a complex determinant", "(0.1, 0.2)", numbers["winding"]["SVD()"])
    return Table(["planted", "at", "gap", "reported by `nm.fit`", "at", "gap", "turn", "largest error"], table)


def sphere_table(record: Record) -> Table:
    """Tabulate Berry's phase by solid angle, and glue what the text says about cones."""
    numbers = record.numbers
    around = numbers["planes"]["around"]
    through, close, far = numbers["planes"]["fits"]
    truncated = numbers["planes"]["truncated"]
    sphere = [dict(row) for row in numbers["sphere"]]
    for row in sphere:
        row["expected"] = math.remainder(-row["solid"] / 2, 2 * math.pi)
        row["off"] = abs(math.remainder(row["phase"] - row["expected"], 2 * math.pi))
    no_loop = {"parameter": [math.nan] * 2, "gap": math.nan}

    def loop_of(fit: dict) -> dict:
        return next((event for event in fit["events"] if event["kind"] == "loop"), no_loop)

    for key, value in {
        **{name: abs(math.degrees(angle)) for name, angle in around.items()},
        "away": math.dist(loop_of(through["SVD(2)"])["parameter"], (0.1, 0.2)),
        "close-gap": loop_of(close["SVD(2)"])["gap"],
        "close-planted": 2 * numbers["planes"]["distances"][1] / numbers["planes"]["largest"][1],
        "through-gap": loop_of(through["SVD(2)"])["gap"],
        "space-vectors": at_least(numbers["space"]["SVD(2)"]["error"], 1),
        "space-returned": numbers["space"]["SVD(2), as returned"]["error"],
        "winding-vectors": numbers["winding"]["SVD()"]["error"],
        "winding-returned": numbers["winding"]["SVD(), as returned"]["error"],
        "spacing": numbers["planes"]["spacing"],
        "solves": through["SVD(2)"]["solves"],
        "cone-returned": through["SVD(2), as returned"]["error"],
        "cone-vectors": through["SVD(2)"]["error"],
        "truncated-rank": truncated["rank"],
        "truncated-subspace": truncated["Subspace(2)"]["error"],
        "truncated-projector": truncated["Projector(2)"]["error"],
        "far-vectors": far["SVD(2)"]["error"],
        "far-block": far['SVD(2, gauge="subspace")']["error"],
        "off": max(row["off"] for row in sphere),
    }.items():
        provenance.glue(f"cg-{key}", value)
    return Table(
        ["circle at", "solid angle Ω", "Berry's phase: −Ω/2 mod 2π", "phase of the transported vector"],
        [
            [f"{row['angle']:.0f}°", f"{row['solid']:.4f}", f"{row['expected']:.4f}", f"{row['phase']:.4f}"]
            for row in sphere
        ],
    )


# Costs and limits


def defect(operation: nm.Operation, value: object) -> float:
    """Return the largest distance from orthonormality, in the 2-norm; of a projector from P^2 = P."""
    if isinstance(operation, nm.Projector):
        return torch.linalg.matrix_norm(value @ value - value, 2).max()
    frames = (value.U, value.Vh.mH) if isinstance(operation, nm.SVD) else (value,)
    eye = torch.eye(operation.rank, device=frames[0].device)
    return max(float(torch.linalg.matrix_norm(x.mH @ x - eye, 2).max()) for x in frames)


def cost(record: Record, channel: nm.wireless.Channel) -> None:
    """Record error, distance from orthonormality and time of each choice along the band of a channel, as ``cost``."""
    small, options = record.profile == "smoke", {"seed": record.seed, "progress": False}
    streams = 2 if small else 4
    rank, snapshots = (8, 32) if small else (24, 96)
    kinds_of = {
        f"SVD({streams})": nm.SVD(rank=streams),
        f'SVD({streams}, gauge="subspace")': nm.SVD(rank=streams, gauge="subspace"),
        f"Subspace({streams})": nm.Subspace(rank=streams),
        f"Projector({streams})": nm.Projector(rank=streams),
    }
    band = channel.frequencies[:: 8 if small else 1]
    calls, rows = {}, {}
    for name, operation in kinds_of.items():
        task = nm.Problem(channel, operation)
        fit = nm.fit(task, rank=rank, method=nm.ClosedForm(snapshots=snapshots), **options)
        reference = operation.invariant(task.unpack(task.exact(band).value, band))
        for orthonormal in (False, True):
            if orthonormal and isinstance(operation, nm.Projector):
                continue
            label = name + (", orthonormal=True" if orthonormal else "")
            value = fit(band, orthonormal=orthonormal)
            rows[label] = {
                "error": benchmark.relative_error(operation.invariant(task.unpack(value, band)), reference),
                "defect": defect(operation, value),
                "numbers": sum(math.prod(factor.shape) for factor in task.factors),
            }
            calls[label] = lambda fit=fit, orthonormal=orthonormal: fit(band, orthonormal=orthonormal)
    timings = benchmark.compare(calls, rounds=3 if small else 7)
    for label, row in rows.items():
        row["time"] = timings.ratio(label, next(iter(rows)))
    record.numbers["cost"] = {
        "rank": rank,
        "solves": fit.report.exact_solves,
        "count": len(band),
        "rows": rows,
        "conditions": timings.conditions,
    }


def cost_table(record: Record) -> Table:
    """Tabulate what each choice costs, and glue what the text says about it."""
    cost = record.numbers["cost"]
    names = list(cost["rows"])

    for key, value in {
        "cost-rank": cost["rank"],
        "cost-solves": cost["solves"],
        "cost-count": cost["count"],
        "cost-orthonormal": as_long(cost["rows"][names[1]]["time"], "without it"),
        "cost-block": as_long(cost["rows"][names[2]]["time"], "single vectors"),
        "cost-timed": conditions(cost["conditions"]),
        "defect": cost["rows"][names[0]]["defect"],
        "defect-after": cost["rows"][names[1]]["defect"],
        "error-before": cost["rows"][names[0]]["error"],
        "error-after": cost["rows"][names[1]]["error"],
    }.items():
        provenance.glue(f"cg-{key}", value)
    return Table(
        ["choice", "error", "from orthonormal", "numbers per parameter", "time"],
        [
            [f"`{label}`", f"{row['error']:.1e}", f"{row['defect']:.0e}", str(row["numbers"]), spread(row["time"])]
            for label, row in cost["rows"].items()
        ],
    )


def hard(record: Record, choices: Mapping[str, nm.Operation]) -> None:
    """Record errors on a family whose values nearly meet in many places, as ``hard``."""
    small, options = record.profile == "smoke", {"seed": record.seed, "progress": False}
    wide = {"dtype": torch.float64, "device": record.device}
    hard = nm.families.trigonometric(size=8, terms=4, shift=0.0, dimension=2, cycles=0.5, seed=record.seed, **wide)
    line_of = torch.linspace(0, 1, 31 if small else 101, **wide)
    S = nm.linalg.svd(hard(torch.cartesian_prod(line_of, line_of)))[1]
    counts = (36, 64) if small else (100, 400)
    points = hard.box.uniform(200 if small else 1000, torch.Generator().manual_seed(record.seed))
    fits = {}
    # The largest rank: of a symmetric 8 x 8 projector 36, of the others the numbers in U.
    for name, rank in {"SVD(2)": 16, 'SVD(2, gauge="subspace")': 16, "Projector(2)": 36}.items():
        task = nm.Problem(hard, choices[name])
        fits[name] = {"terms": rank, "median": [], "largest": []}
        for count in counts:
            fit = nm.fit(task, rank=rank, method=nm.ClosedForm(snapshots=count, design="tensor"), **options)
            error = task.error(points, fit(points))
            fits[name]["median"].append(error.median())
            fits[name]["largest"].append(error.max())
        fits[name]["events"] = len(fit.report.events)
        if isinstance(task.operation, nm.SVD):
            checked = nm.certify(fit, task, points, rtol=0.1)
            fits[name] |= {
                "accepted": checked.accepted.double().mean(),
                "certified": task.error(points, checked.value).max(),
            }
    record.numbers["hard"] = {
        "fits": fits,
        "solves": counts,
        "gaps": [float(x) for x in (S[:, :-1] - S[:, 1:]).amin(dim=0) / S.max()],
    }


def hard_table(record: Record) -> Table:
    """Tabulate the errors on the hard family, and glue what the text says about it."""
    hard = record.numbers["hard"]
    fewer, more = hard["solves"]
    for key, value in {
        "hard-gap": hard["gaps"][1],
        "hard-next": hard["gaps"][3],
        "hard-fewer": fewer,
        "hard-more": more,
        "hard-vectors": 100 * hard["fits"]["SVD(2)"]["accepted"],
        "hard-subspace": 100 * hard["fits"]['SVD(2, gauge="subspace")']["accepted"],
    }.items():
        provenance.glue(f"cg-{key}", value)
    return Table(
        [
            "choice",
            "terms",
            *(f"{what}, {n} solves" for what in ("median", "largest") for n in (fewer, more)),
            "events",
        ],
        [
            [
                f"`{name}`",
                str(e["terms"]),
                *(f"{x:.0e}" for x in e["median"]),
                *(f"{x:.1f}" for x in e["largest"]),
                str(e["events"]),
            ]
            for name, e in hard["fits"].items()
        ],
    )


# Pieces and closed paths


class TransportAlone(nm.Eigh):
    """Eigenvectors whose phases are those of the transport from node to node, whatever the pieces."""

    def align(self, x: Tensor, factors: Sequence[Tensor], *, anchors: np.ndarray | None = None, **along: object):
        """Align as `nm.Eigh` does, without a word of the faces of pieces."""
        return super().align(x, factors, **along)


def levels(seed: int) -> Callable[[Tensor], Tensor]:
    """Return Hermitian matrices of size six along a circle, whose eigenvalues stay well apart."""
    B = torch.randn(3, 6, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    B, D = B + B.mH, torch.diag(12.0 * torch.arange(6, dtype=torch.float64))
    return lambda p: D + B[0] + B[1] * p.cos()[:, :, None] + B[2] * p.sin()[:, :, None]


def around_meeting(p: Tensor) -> Tensor:
    """Return real symmetric 2 x 2 matrices along a circle around a conical intersection."""
    a, b = p[:, 0].cos(), p[:, 0].sin()
    return torch.stack([a, b, b, -a], dim=-1).view(-1, 2, 2)


def in_pieces(family: nm.ParametricMatrix, operation: nm.Operation, tol: float, seed: int) -> dict:
    """Return exact solves, pieces, error and events of a fit to a tolerance, and how far vectors jump at the seam."""
    problem = nm.Problem(family, operation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)
        fit = nm.fit(problem, tol=tol, seed=seed, progress=False)
    q = family.box.uniform(500, torch.Generator().manual_seed(seed + 1))
    first, last = fit(torch.stack([family.lower, family.upper]))[1 if isinstance(operation, nm.Eigh) else 0]
    return {
        "solves": fit.report.exact_solves,
        "pieces": len(fit.pieces),
        "met": fit.report.met,
        "error": problem.error(q, fit(q)).max(),
        "seam": torch.linalg.vector_norm(first - last, dim=0).max(),
        "events": [str(event) for event in fit.report.events],
        "unmet": [str(box) for box in fit.report.unmet],
    }


def paths(record: Record, channel: nm.wireless.Channel, as_returned: type[nm.SVD]) -> None:
    """Record fits in pieces, as ``paths``: phases for pieces or not, closed paths, vectors as returned."""
    found, tol = {}, 1e-9

    def circle(matrices: Callable[[Tensor], Tensor], periodic: bool) -> nm.ParametricMatrix:
        return nm.ParametricMatrix(matrices, 0.0, 2 * math.pi, periodic=periodic, dtype=torch.float64)

    own = levels(record.seed)
    for name, matrices, operation, periodic in (
        ("six levels", own, nm.Eigh(), False),
        ("six levels, transport alone", own, TransportAlone(), False),
        ("six levels, periodic", own, nm.Eigh(), True),
        ("real circle", around_meeting, nm.Eigh(), False),
        ("real circle, periodic", around_meeting, nm.Eigh(), True),
    ):
        found[name] = {"tol": tol} | in_pieces(circle(matrices, periodic), operation, tol, record.seed)
    # The band as an interval, without its tones: those could be solved one by one. Single precision ends pieces soon.
    single = {"dtype": torch.float32, "device": record.device}
    band = nm.ParametricMatrix(lambda p: channel(p), channel.lower, channel.upper, **single)
    streams = 2 if record.profile == "smoke" else 4
    for name, kind in (("channel", nm.SVD), ("channel, as returned", as_returned)):
        found[name] = {"tol": 1e-3} | in_pieces(band, kind(rank=streams), 1e-3, record.seed)
    record.numbers["paths"] = found


def paths_table(record: Record) -> Table:
    """Tabulate the fits in pieces, and glue what the text says about them."""
    found = record.numbers["paths"]
    for name, row in found.items():
        label = "cg-path-" + name.replace(", ", "-").replace(" ", "-")
        for key in ("solves", "pieces", "seam", "error"):
            provenance.glue(f"{label}-{key}", row[key])
        provenance.glue(f"{label}-unmet", len(row["unmet"]))
        provenance.glue(f"{label}-tol", row["tol"])
    return Table(
        [
            "family and gauge",
            "tolerance",
            "exact solves",
            "pieces",
            "largest error",
            "jump at the seam",
            "events",
            "met",
        ],
        [
            [
                name,
                f"{row['tol']:g}",
                str(row["solves"]),
                str(row["pieces"]),
                f"{row['error']:.0e}",
                "" if name.startswith("channel") else f"{row['seam']:.0e}",
                str(len(row["events"])),
                "yes" if row["met"] else f"no, {len(row['unmet'])} places",
            ]
            for name, row in found.items()
        ],
    )


def check(record: Record) -> None:
    """Assert what must hold at every size."""
    n = record.numbers
    assert (
        n["before_after"]["gauges"]["aligned"]["errors"][0]
        < 0.1 * n["before_after"]["gauges"]["arbitrary phases"]["errors"][0]
    )
    assert {event["kind"] for event in n["crossing"]["SVD(2)"]["events"]} == {"crossing"}
    assert abs(n["crossing"]["SVD(2)"]["events"][0]["parameter"][0] - 0.45) < 1e-3
    for name in ('SVD(2, gauge="subspace")', "Subspace(2)", "Projector(2)"):
        assert max(fit["error"] for fit in n["avoided"]["fits"][name]) < 1e-8, "the pair does not see the gap inside it"
    assert "loop" in {event["kind"] for event in n["planes"]["fits"][0]["SVD(2)"]["events"]}
    assert abs(abs(n["planes"]["around"]["around"]) - math.pi) < 1e-9 and abs(n["planes"]["around"]["beside"]) < 1e-9
    assert {event["kind"] for event in n["winding"]["SVD()"]["events"]} == {"loop"}
    paths = n["paths"]
    assert paths["six levels"]["solves"] < paths["six levels, transport alone"]["solves"], "smooth as their projectors"
    assert paths["six levels, periodic"]["seam"] < 1e-9
    assert abs(paths["real circle, periodic"]["seam"] - 2) < 1e-9, "continuous real vectors change their sign"
    assert paths["six levels, periodic"]["solves"] <= paths["six levels"]["solves"]
    assert paths["channel"]["met"]
    for row in n["sphere"]:
        assert abs(math.remainder(row["phase"] + row["solid"] / 2, 2 * math.pi)) < 1e-2, "Berry's phase"
    if record.profile != "smoke":
        check_sizes(n)
        check_words(n)


def check_sizes(n: dict) -> None:
    """Assert what the text says of numbers at full size."""
    assert n["crossing"]["SVD(2)"]["error"] < 1e-10
    assert n["before_after"]["gauges"]["aligned"]["errors"][1] < 1e-3
    assert n["planes"]["fits"][0]["SVD(2)"]["error"] < 1e-6
    (event,) = n["planes"]["fits"][0]["SVD(2)"]["events"]
    assert math.dist(event["parameter"], (0.1, 0.2)) < n["planes"]["spacing"] / 4 and event["gap"] < 0.01
    for name in ("space", "winding"):
        (vectors,) = (fit["error"] for key, fit in n[name].items() if key.endswith(")"))
        assert vectors < 1e-3
    assert n["cost"]["rows"]["SVD(4), orthonormal=True"]["defect"] < 1e-5
    subspace = n["hard"]["fits"]['SVD(2, gauge="subspace")']
    assert 0.2 < subspace["accepted"] < 0.9 and subspace["certified"] <= 0.1 < subspace["largest"][-1]
    assert n["hard"]["fits"]["SVD(2)"]["certified"] <= 0.1
    for name, fit in n["hard"]["fits"].items():
        assert min(fit["largest"]) > 0.3
        assert name == "SVD(2)" or fit["median"][1] < 0.5 * fit["median"][0]
    truncated = n["planes"]["truncated"]
    assert truncated["Subspace(2)"]["error"] < truncated["Projector(2)"]["error"]
    for gap, largest, fit in zip(n["avoided"]["gaps"], n["avoided"]["largest"], n["avoided"]["fits"]["SVD(2)"]):
        assert all(e["gap"] > 0.999 * gap / largest for e in fit["events"] if e["kind"] == "avoided crossing")


def check_words(n: dict) -> None:
    """Assert what the text and the descriptions of figures say in words at full size."""
    gauges = n["before_after"]["gauges"]
    ranks = [gauges[name]["ranks"]["U"][1] for name in ("aligned", "as returned", "largest entry positive")]
    assert ranks == sorted(ranks) and ranks[1] < 1.3 * ranks[0], "about the same degree, as returned and aligned"
    assert gauges["arbitrary phases"]["ranks"]["U"][1] > 1.5 * ranks[-1], "slowly with arbitrary phases"
    for name in ("as returned", "largest entry positive"):
        low, high = gauges[name]["errors"]
        assert high > 0.9 * low, "more terms do not help"
    assert gauges["aligned"]["turned"] == 0 < gauges["as returned"]["turned"], "the aligned curve has no jump"
    fits = {name: [fit["error"] for fit in own] for name, own in n["avoided"]["fits"].items()}
    for name in ("SVD(2), as returned", "Projector(1)", "SVD(1)"):
        assert fits[name][0] > 0.5 and fits[name][-1] < 1e-6, "order one as the gap shrinks"
    assert max(fits["SVD(2)"]) < 1e-5, "a peak and a low ridge"
    paths = n["paths"]
    aligned, returned = (paths[name] for name in ("channel", "channel, as returned"))
    assert returned["solves"] > 2 * aligned["solves"] and returned["unmet"], "a gauge that jumps costs exact solves"
    alone, own = (paths[name] for name in ("six levels, transport alone", "six levels"))
    assert alone["pieces"] > 2 * own["pieces"], "the fit resolves errors of the phases"
    for fit in n["planes"]["fits"]:
        vectors, block = fit["SVD(2)"]["error"], fit['SVD(2, gauge="subspace")']["error"]
        assert block < 1e-3 and vectors < 0.1 * fit["SVD(2), as returned"]["error"], "aligned, and in one block"
