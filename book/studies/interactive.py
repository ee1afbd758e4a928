"""Interactive figures: their data, computed by the library in seconds or read from a record, and a table for print.

`book/_ext/interactive_pages.py` puts them on a page, `book/_static/interactive.js` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import neumatc as nm
from studies import provenance
from studies.provenance import Record, Table
from studies.texts import measured, two_digits

# What their ids begin with.
PREFIX = "fig-try-"
# Parameters of a track of the sliders: a step is then less than three pixels of the figure.
STEPS = 121
# Sizes that a reader can see as coloured squares, and that keep the data small.
SIZE, RANK = 8, 12
# Pieces that halve each other, and the ranks within them.
PIECES, RANKS = (1, 2, 4, 8, 16), 24
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)
# Distances of the two singular values where they are nearest, from a crossing to far apart.
GAPS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4)
# Channels of the break-even figure, as the record names them.
PROBLEMS = {"cdl_a": "CDL-A, 32 x 32", "cdl_c": "CDL-C, 32 x 32"}
# Maps of that figure: how the record names what belongs to their fit, and their times.
MAPS = {"closed_": "closed form", "network_": "closed form, sine network", "cubic spline_": "cubic spline"}
# Exact methods that a map is set against, as the record names them.
EXACT = ("NumPy loop", "NumPy batched", "torch, Cholesky", "Sionna, Cholesky")


@dataclass(frozen=True)
class Shown:
    """One interactive figure.

    Attributes:
        name: Its name on the page.
        title: What it shows, for screen readers.
        data: What interactive.js draws: numbers, texts and lists of them.
        table: Head and rows of the table that stands for it without scripts and in print.
    """

    name: str
    title: str
    data: dict
    table: list[list[str]]

    def tabulated(self) -> Table:
        """Return the table that stands for the figure."""
        return Table(self.table[0], self.table[1:])


def rounded(x: Tensor, digits: int = 4) -> list:
    """Return a tensor as nested lists of numbers with so many significant digits.

    Example:
        >>> rounded(torch.tensor([[1 / 3, 2e-5]]))
        [[0.3333, 2e-05]]
    """
    if x.ndim:
        return [rounded(row, digits) for row in x]
    return float(f"{x.item():.{digits}g}")


def relative(X: Tensor, exact: Tensor) -> Tensor:
    """Return the relative errors ||X_i - Y_i||_F / ||Y_i||_F of matrices, shape (B,)."""
    return torch.linalg.matrix_norm(X - exact) / torch.linalg.matrix_norm(exact)


def slider() -> Shown:
    """The inverse along the parameter: matrix, exact inverse, the map with any number of its terms, and its error."""
    family = nm.families.trigonometric(size=SIZE, terms=4, shift=2.5, seed=0, dtype=torch.float64)
    surrogate = nm.fit(nm.Problem(family, nm.Inverse()), rank=RANK, seed=0, progress=False)
    (factor,) = surrogate.maps
    p = torch.linspace(0, 1, STEPS, dtype=torch.float64)
    A = family(p)
    exact = torch.linalg.inv(A)
    # Phi(p) is what the map gives for unit tensors. Its terms are sorted by what they carry.
    phi = factor.with_(core=torch.eye(RANK, dtype=torch.float64))(2 * p[:, None] - 1)
    core = factor.core.flatten(1)
    errors = [relative((phi[:, :r] @ core[:r]).view_as(exact), exact).max().item() for r in range(1, RANK + 1)]
    data = {
        "size": SIZE,
        "p": rounded(p),
        "A": rounded(A.flatten(1)),
        "X": rounded(exact.flatten(1), 7),
        "phi": rounded(phi, 7),
        "core": rounded(core, 7),
    }
    rows = [[str(r), f"{errors[r - 1]:.1e}"] for r in range(1, RANK + 1)]
    return Shown("slider", "The inverse along the parameter", data, [["terms", "largest relative error"], *rows])


def limits(X: Tensor, pieces: int, ranks: int) -> Tensor:
    """Return the errors of the best map of 1, 2, ... terms in each of so many equal pieces (Eckart and Young).

    Args:
        X: Values at equally spaced parameters, (N, m, n).
        pieces: Their number, a divisor of N.
        ranks: The largest number of terms.

    Returns:
        Root of the sum of squares over all pieces, relative to that of X, (ranks,).
    """
    S = torch.linalg.svdvals(X.reshape(pieces, len(X) // pieces, -1))
    tails = S.square().flip(1).cumsum(1).flip(1)[:, 1 : ranks + 1].sum(0)
    tails = torch.nn.functional.pad(tails, (0, ranks - len(tails)))
    return (tails / X.square().sum()).sqrt()


def pieces() -> Shown:
    """Rank and pieces against the error: the limits of maps in equal pieces, and what fits with a tolerance choose."""
    family = nm.families.trigonometric(size=16, cycles=6.0, shift=2.5, seed=0, dtype=torch.float64)
    problem = nm.Problem(family, nm.Inverse())
    p = torch.linspace(0, 1, 1024, dtype=torch.float64)
    X = torch.linalg.inv(family(p))
    # Below single precision nobody reads the axis.
    lines = [limits(X, count, RANKS).clamp_min(1e-9) for count in PIECES]
    fits = []
    for tol in TOLERANCES:
        surrogate = nm.fit(problem, tol=tol, seed=0, progress=False)
        error = ((surrogate(p) - X).square().sum() / X.square().sum()).sqrt().item()
        report = surrogate.report
        fits.append(
            {
                "tol": tol,
                "pieces": len(surrogate.pieces),
                "terms": surrogate.rank,
                "solves": report.exact_solves,
                "error": float(f"{error:.3g}"),
            }
        )
    data = {"pieces": list(PIECES), "limits": [rounded(line, 3) for line in lines], "fits": fits}
    shown = range(3, RANKS, 4)
    rows = [[str(r + 1), *(f"{line[r]:.1e}" for line in lines)] for r in shown]
    head = ["terms", *(f"{count} piece{'s' * (count > 1)}" for count in PIECES)]
    return Shown("pieces", "Rank and pieces against the error", data, [head, *rows])


def middle(ratio: float | Sequence[float]) -> float:
    """Return the median of a ratio, also of a record that kept medians alone."""
    return measured(ratio)[1]


def timed(record: Record) -> bool:
    """Return whether no time that the figure of break-even takes from a record of *To the limit* was refused."""
    problems = [record.numbers[name] for name in PROBLEMS]
    fits = [numbers[f"{prefix}fit_in_inversions"] for numbers in problems for prefix in MAPS]
    times = [numbers["relative_time"][key] for numbers in problems for key in (*MAPS.values(), *EXACT)]
    return not any(math.isnan(middle(ratio)) for ratio in [*fits, *times])


def costs() -> Record:
    """Return the costs of *To the limit*: of this build's run, if all was timed, else of the published record."""
    try:
        record = provenance.load("to_the_limit", "cpu")
    except (FileNotFoundError, ValueError):
        return provenance.load("to_the_limit")
    return record if timed(record) else provenance.load("to_the_limit")


def break_even() -> Shown:
    """Total time against the number of matrices, the fit counted, from the record of *To the limit*."""
    record = costs()
    problems, rows = [], []
    for name, title in PROBLEMS.items():
        numbers = record.numbers[name]
        times, errors = numbers["relative_time"], numbers["errors"]
        problems.append(
            {
                "title": title,
                "count": numbers["count"],
                "exact": [{"name": key, "each": middle(times[key]), "error": errors[key]} for key in EXACT],
                "maps": [
                    {
                        "name": label,
                        "fit": middle(numbers[f"{prefix}fit_in_inversions"]),
                        "each": middle(times[label]),
                        "error": errors[label],
                    }
                    for prefix, label in MAPS.items()
                ],
            }
        )
        for prefix, label in MAPS.items():
            even = [middle(numbers[f"{prefix}break_even"][key]) for key in EXACT]
            rows.append([title, label, *(f"{two_digits(x):,.0f}" if x < math.inf else "never" for x in even)])
    machine, date = record.provenance["machine"], record.provenance["date"][:10]
    data = {"problems": problems, "machine": machine.get("gpu") or machine["cpu"], "date": date}
    head = ["problem", "map", *(f"pays against {key} after" for key in EXACT)]
    return Shown("break-even", "When a fit has paid for itself", data, [head, *rows])


def avoided(gap: float) -> nm.ParametricMatrix:
    """Return 4 x 3 matrices on [0, 1] with singular values 2 +- root((p - 1/2)^2 + gap^2 / 4) and 1/2."""
    generator = torch.Generator().manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(n, 3, generator=generator, dtype=torch.float64)).Q for n in (4, 3))

    def fn(p: Tensor) -> Tensor:
        x, half = p[:, 0] - 0.5, torch.full_like(p[:, 0], gap / 2)
        middle = torch.zeros(len(p), 3, 3, dtype=p.dtype)
        middle[:, 0, 0], middle[:, 1, 1], middle[:, 2, 2] = 2 + x, 2 - x, 0.5
        middle[:, 0, 1] = middle[:, 1, 0] = half
        return U.to(p.dtype) @ middle @ V.mT.to(p.dtype)

    return nm.ParametricMatrix(fn, 0.0, 1.0, dtype=torch.float64)


def track() -> Shown:
    """Two singular values that meet or avoid each other, as LAPACK returns them and as the map follows them."""
    p = torch.linspace(0, 1, STEPS, dtype=torch.float64)
    cases, rows = [], []
    for gap in GAPS:
        family = avoided(gap)
        surrogate = nm.fit(nm.Problem(family, nm.SVD(rank=2)), tol=1e-6, seed=0, progress=False)
        U, S, _ = surrogate(p)
        returned, values, _ = torch.linalg.svd(family(p), full_matrices=False)
        cases.append(
            {
                "gap": gap,
                "values": rounded(values[:, :2].mT),
                "followed": rounded(S.mT),
                "returned": rounded(returned[:, 0, 0]),
                "vector": rounded(U[:, 0, 0]),
                "solves": surrogate.report.exact_solves,
                "pieces": len(surrogate.pieces),
            }
        )
        error = (S.sort(dim=1, descending=True).values - values[:, :2]).abs().max().item()
        rows.append([f"{gap:g}", str(surrogate.report.exact_solves), str(len(surrogate.pieces)), f"{error:.1e}"])
    head = ["smallest distance", "exact solves", "pieces", "largest error of the values"]
    return Shown("track", "Two singular values along the parameter", {"p": rounded(p), "cases": cases}, [head, *rows])


FIGURES: dict[str, Callable[[], Shown]] = {
    "slider": slider,
    "pieces": pieces,
    "break-even": break_even,
    "track": track,
}


def figure(name: str) -> Shown:
    """Return an interactive figure.

    Raises:
        ValueError: For an unknown name.
    """
    if name not in FIGURES:
        raise ValueError(f"interactive figure: expected one of {', '.join(FIGURES)}, got {name!r}; correct the name.")
    return FIGURES[name]()
