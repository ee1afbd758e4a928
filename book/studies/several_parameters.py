"""Studies of the chapter on several parameters: designs, embeddings, exact solves, a wireless example."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import neumatc as nm
from studies import bases, benchmark, figures, interpolants, last_good, provenance, solvers
from studies.benchmark import relative_error
from studies.provenance import Record, Table
from studies.texts import UNTIMED, UNTOLD, at_least, conditions, least, listed, matrices, most, side, spread
from studies.texts import verdict as told

# A map: a surrogate or a peer.
Map = nm.Surrogate | nm.peers.Peer
KINDS = ("sobol", "tensor", "sparse")
GOALS = (1e-2, 1e-3)
PIECES = "fit to a tolerance"
CLOSED, HELPED = "closed form", "radial functions, quintic, 9 n values"
RIVALS = (
    "Chebyshev, tensor grid",
    "Chebyshev, stretched grid",
    "radial functions, quintic",
    "radial functions, tuned",
)
# From so many exact solves on, for three parameters, the closed form is given more polynomials than it tries by itself:
# this part of the number of values.
MANY, POLYNOMIALS = 128, 0.3
# Exact equalisers, and what the text calls them.
EXACT = {
    "NumPy loop": "the NumPy loop",
    "torch, Cholesky": "torch's Cholesky factorisation",
    "eigendecomposition per frequency": "one eigendecomposition for each frequency",
}
UNKNOWN = (math.nan,) * 3
TOLD_RADIAL = "radial functions, tuned, noise axis times 0.1"


@dataclass(frozen=True)
class Setting:
    """What the studies of the chapter share: sizes by profile, families, samples, fits.

    Args:
        record: The record, whose profile, seed and device count.
    """

    record: Record

    @property
    def small(self) -> bool:
        """Whether this is the smoke profile."""
        return self.record.profile == "smoke"

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.record.seed

    @property
    def family(self) -> dict:
        """Settings of :func:`neumatc.families.trigonometric`."""
        return {"size": 8, "terms": 4, "shift": 3.0} if self.small else {"size": 32, "terms": 12, "shift": 2.0}

    @property
    def tests(self) -> int:
        """Number of random parameters at which errors are measured."""
        return 200 if self.small else 2000

    @property
    def timing(self) -> slice:
        """Those on which times are measured."""
        return slice(0, 200 if self.small else 500)

    @property
    def solves(self) -> tuple[int, int]:
        """A few exact solves for two parameters, and many."""
        return (29, 40) if self.small else (65, 128)

    @property
    def shifts(self) -> tuple[float, float]:
        """Shifts of an easier and of a harder family."""
        return (3.0, 2.5) if self.small else (2.0, 1.6)

    @property
    def sides(self) -> tuple[int, int]:
        """Sides of the grid of who knows which variable is smooth."""
        return (8, 3) if self.small else (25, 5)

    @property
    def told_grid(self) -> str:
        """The name of Chebyshev interpolation on that grid."""
        return f"Chebyshev, {self.sides[0]} x {self.sides[1]}, stretched along the band"

    def inverse(self, d: int, **changes: object) -> nm.Problem:
        """Return the inverse of a trigonometric family of d parameters."""
        settings = {"seed": self.seed} | self.family | changes
        family = nm.families.trigonometric(**settings, dimension=d, device=self.record.device)
        return nm.Problem(family, nm.Inverse())

    def contender(self, d: int) -> nm.Problem:
        """Return the family of d parameters on which the methods compete."""
        return self.inverse(d, cycles=0.4 if d == 4 else 1.2)

    def sample(self, task: nm.Problem) -> tuple[Tensor, Tensor, Tensor]:
        """Return random parameters, the matrices there, and their exact solutions."""
        q = task.family.box.uniform(self.tests, torch.Generator().manual_seed(self.seed + 1))
        return q, task.family(q), task.exact(q).value

    def ours(
        self,
        task: nm.Problem,
        n: int,
        rank: int | None = None,
        embedding: nm.Embedding | None = None,
        **changes: object,
    ) -> nm.Surrogate:
        """Fit the closed form from n exact solves, with as many terms unless told otherwise."""
        if embedding is None and task.family.dimension == 3 and n >= MANY:
            embedding = nm.Chebyshev(degree(int(POLYNOMIALS * 9 * n), 3), stretch=0.95)
        rank = min(rank or n, self.family["size"] ** 2)
        method = nm.ClosedForm(embedding, **{"snapshots": n} | changes)
        return nm.fit(task, rank=rank, budget=n, method=method, seed=self.seed, progress=False)

    def radial(self, task: nm.Problem, n: int, **changes: object) -> nm.peers.Peer:
        """Fit the strongest radial functions that we know: multiquadrics, their shape tuned by leave-one-out."""
        return interpolants.rbf(task, n, kernel="multiquadric", seed=self.seed, **changes)

    def methods(self) -> dict[str, Callable[[nm.Problem, int], Map]]:
        """Return the methods that compete, as functions of a problem and a number of exact solves."""
        return {
            CLOSED: self.ours,
            RIVALS[0]: nm.peers.chebyshev,
            RIVALS[1]: lambda task, n: nm.peers.chebyshev(task, n, stretch=0.9),
            RIVALS[2]: lambda task, n: interpolants.rbf(task, n, seed=self.seed),
            RIVALS[3]: self.radial,
        }


def degree(terms: int, d: int) -> int:
    """Return the largest total degree of at most so many polynomials in d parameters.

    Example:
        >>> degree(10, 2), degree(9, 2)
        (3, 2)
    """
    return next(k for k in range(terms + 1) if math.comb(k + 1 + d, d) > terms)


def solves(fitted: Map) -> int:
    """Return the number of exact solves that a map took."""
    return fitted.report.exact_solves if isinstance(fitted, nm.Surrogate) else fitted.exact_solves


def terms(fitted: Map) -> int:
    """Return the number of terms of a map."""
    return fitted.rank if isinstance(fitted, nm.Surrogate) else fitted.terms


# Designs and embeddings


def sparse_grid(level: int, dimension: int) -> Tensor:
    """Return a sparse grid after Smolyak, on the nested Chebyshev extrema cos(j pi / 2^l).

    It has the points that level l_i adds in direction i, for all l_1 + ... + l_d <= level (Bungartz and Griebel, Acta
    Numerica 13, 2004).

    Args:
        level: At least 0.
        dimension: d.

    Returns:
        Points of the cube, shape (N, d), float64.
    """
    new = [[0.0], [-1.0, 1.0]]
    for finer in range(2, level + 1):
        new.append(np.cos(np.arange(1, 2**finer, 2) * np.pi / 2**finer).tolist())
    levels = [k for k in product(range(level + 1), repeat=dimension) if sum(k) <= level]
    points = [point for k in levels for point in product(*(new[i] for i in k))]
    return torch.tensor(points, dtype=torch.float64)


def designs(record: Record, plane: nm.Problem, q: Tensor, X: Tensor) -> None:
    """Record designs of snapshots and index sets of polynomials, and the errors from each design.

    Args:
        record: Gets the arrays ``design_...`` and ``index_...`` and the numbers ``designs`` and ``counts``.
        plane: The inverse of a family of two parameters.
        q: Parameters to measure at, (B, 2).
        X: The inverses there, (B, n, n).
    """
    setting = Setting(record)
    few, degree = setting.solves[0], 8
    found = {}
    for kind in KINDS:
        without, further = {"projections": 0}, {}
        if kind == "sparse":  # as parameters; the polynomials that they determine are given with them
            level = next(level for level in range(few) if len(sparse_grid(level + 1, 2)) > few)
            x = sparse_grid(level, 2)
            further["snapshots"] = plane.family.box.parameters(x).tolist()
            without["embedding"] = nm.Chebyshev(2**level, "smolyak")
        else:
            x, _ = nm.sampling.design(few, 2, setting.seed, kind=kind)
            further["design"] = kind
        record.arrays[f"design_{kind}"] = x
        fits = {
            name: setting.ours(plane, few, **changes)
            for name, changes in {"without": further | without, "with": further}.items()
        }
        found[kind] = {"solves": solves(fits["without"])} | {
            name: relative_error(fit(q), X) for name, fit in fits.items()
        }
    for name, peer in (("chebyshev", nm.peers.chebyshev(plane, few)), ("rbf", setting.radial(plane, few))):
        found[name] = {"solves": solves(peer), "error": relative_error(peer(q), X)}
    found["limit"] = float(benchmark.eckart_young(X, few))
    record.numbers["designs"] = found
    record.numbers["counts"] = {
        index: [nm.Chebyshev(degree, index).count(d) + 1 for d in (1, 2, 3, 4)]
        for index in ("tensor", "total", "hyperbolic", "smolyak")
    }
    for index in record.numbers["counts"]:
        record.arrays[f"index_{index}"] = nm.Chebyshev(degree, index).indices(2)


def square(axes: Axes, title: str) -> None:
    """Draw the frame of a design in the square."""
    axes.set(title=title, xlabel="first parameter", ylabel="second parameter", aspect="equal")
    axes.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), xticks=[-1, 0, 1], yticks=[-1, 0, 1])


def designs_figure(record: Record) -> Figure:
    """Draw the designs of snapshots and the index sets of polynomials."""
    arrays = record.arrays
    figure, panels = plt.subplots(2, 2, figsize=(figures.WIDTH, 5.8))
    for axes, kind in zip(panels.flat, ("sobol", "tensor", "sparse")):
        points = arrays[f"design_{kind}"]
        axes.plot(*points.T, "o", color=figures.BLUE, ms=4)
        square(axes, f"{kind}, {len(points)} points")
    axes = panels[1, 1]
    for (index, colour), (marker, size) in zip(
        {
            "tensor": figures.SKY,
            "total": figures.BLUE,
            "smolyak": figures.ORANGE,
            "hyperbolic": figures.BLACK,
        }.items(),
        (("s", 9), ("o", 7), ("D", 5), ("x", 4)),
    ):
        k = arrays[f"index_{index}"]
        axes.plot(*k.T, marker, ls="", color=colour, ms=size, mfc="none", label=index)
    axes.set(
        title="polynomials of degree 8",
        xlabel="first degree",
        ylabel="second degree",
        aspect="equal",
        xticks=range(0, 9, 2),
    )
    axes.set_yticks(range(0, 9, 2))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return figure


def counts_table(record: Record) -> Table:
    """Tabulate the number of polynomials by index set and number of parameters."""
    counts = record.numbers["counts"]
    return Table(
        ["polynomials of degree 8", "d = 1", "2", "3", "4"],
        [[f"`{index}`", *(f"{n:,}" for n in row)] for index, row in counts.items()],
    )


def embeddings(record: Record, plane: nm.Problem, q: Tensor, A: Tensor, X: Tensor) -> None:
    """Record error and time of maps of one rank with different embeddings.

    Args:
        record: Gets the numbers ``embeddings`` and ``embeddings_limit``.
        plane: The inverse of a family of two parameters.
        q: Parameters to measure at, (B, 2).
        A: The matrices there, (B, n, n).
        X: Their inverses.
    """
    setting = Setting(record)
    small, many = setting.small, setting.solves[1]
    choices = {
        "Chebyshev, total, stretched (the default's choice)": None,
        "Chebyshev, total": nm.Chebyshev(5 if small else 28),
        "Chebyshev, tensor": nm.Chebyshev(4 if small else 20, "tensor"),
        "Chebyshev, hyperbolic": nm.Chebyshev(9 if small else 92, "hyperbolic"),
        "Chebyshev, smolyak": nm.Chebyshev(8 if small else 64, "smolyak"),
        "Fourier extension, total": bases.FourierExtension(5 if small else 28),
        "radial functions, cubic": bases.RadialBasis(20 if small else 432, 3),
        "sine network, two layers": nm.SinusoidalMLP(2, 20 if small else 434, 5.0),
    }
    fits = {name: setting.ours(plane, many, embedding=embedding) for name, embedding in choices.items()}
    plain = nm.Chebyshev(next(iter(fits.values())).maps[0].embedding.degree)
    fits["Chebyshev, total, as many as the default's"] = setting.ours(plane, many, embedding=plain)
    timings = benchmark.compare(
        {name: lambda m=m: m(q) for name, m in fits.items()} | {"loop": lambda: solvers.numpy_loop(A)}, rounds=5
    )
    record.numbers["embeddings"] = [
        {
            "name": name,
            "features": fitted.maps[0].embedding.count(2),
            "error": relative_error(fitted(q), X),
        }
        for name, fitted in fits.items()
    ]
    record.numbers["embeddings_timed"] = {
        "conditions": timings.conditions,
        "time": {name: timings.ratio(name, "loop") for name in fits},
    }
    record.numbers["embeddings_limit"] = float(benchmark.eckart_young(X, many))


def embeddings_table(record: Record) -> Table:
    """Tabulate the embeddings, and glue what the text says about them and about the designs."""
    first, many = record.numbers, Setting(record).solves[1]
    each = first["embeddings_timed"]["time"]
    for key, value in {
        "few": first["designs"]["sobol"]["solves"],
        "features": first["embeddings"][0]["features"],
        "features-others": first["embeddings"][1]["features"],
        "plain-error": first["embeddings"][-1]["error"],
        "plain-features": first["embeddings"][-1]["features"],
        "others-error": first["embeddings"][1]["error"],
        "sparse-best": min(e["error"] for e in first["embeddings"] if e["name"].endswith(("hyperbolic", "smolyak"))),
        "default-error": first["embeddings"][0]["error"],
        "many": many,
        "design-limit": first["designs"]["limit"],
        "design-rbf": first["designs"]["rbf"]["error"],
        "design-chebyshev": first["designs"]["chebyshev"]["error"],
        "embedding-limit": first["embeddings_limit"],
        "sobol-without": first["designs"]["sobol"]["without"],
        "tensor-without": first["designs"]["tensor"]["without"],
        "sparse-without": first["designs"]["sparse"]["without"],
        "with-best": min(first["designs"][kind]["with"] for kind in KINDS),
        "with-worst": max(first["designs"][kind]["with"] for kind in KINDS),
    }.items():
        provenance.glue(f"sp-{key}", value)
    return Table(
        ["embedding (d = 2)", "features", "error", "time per matrix (inversions)"],
        [[e["name"], str(e["features"]), f"{e['error']:.1e}", spread(each[e["name"]])] for e in first["embeddings"]],
    )


def designs_table(record: Record) -> Table:
    """Tabulate the errors from each design."""
    d = record.numbers["designs"]
    rows = [
        [f"closed form, `{kind}`", str(d[kind]["solves"]), f"{d[kind]['without']:.1e}", f"{d[kind]['with']:.1e}"]
        for kind in KINDS
    ]
    rows += [
        [label, str(d[key]["solves"]), f"{d[key]['error']:.1e}", ""]
        for key, label in (("chebyshev", "Chebyshev, tensor grid"), ("rbf", "radial functions, tuned, Sobol"))
    ]
    return Table(["d = 2", "exact solves", "error, from snapshots alone", "error, with the residual"], rows)


# Errors by the number of exact solves


@dataclass(frozen=True)
class InverseInSpan(nm.Inverse):
    """The inverse without its Newton step: what is left is least squares in the span of the snapshots."""

    newton = False


def in_span(plane: nm.Problem, q: Tensor, X: Tensor, n: int, seed: int) -> float:
    """Return the error of the best approximation in the span of n snapshots."""
    x, _ = nm.sampling.design(n, 2, seed)
    snapshots = plane.exact(((x + 1) / 2).to(q)).value
    Q, _ = torch.linalg.qr(snapshots.flatten(1).double().T)
    Y = X.flatten(1).double()
    return relative_error(Y @ Q @ Q.T, Y)


def by_solves(record: Record, plane: nm.Problem, q: Tensor, A: Tensor, X: Tensor) -> None:
    """Record the errors of all methods against the number of exact solves.

    Args:
        record: Gets the numbers ``by_solves``, ``projection``, ``nine`` and ``double``.
        plane: The inverse of a family of two parameters.
        q: Parameters to measure at, (B, 2).
        A: The matrices there, (B, n, n).
        X: Their inverses.
    """
    setting = Setting(record)
    small, seed, many, ours = setting.small, setting.seed, setting.solves[1], setting.ours

    def error(fitted: Map, part: slice = slice(None)) -> float:
        return relative_error(fitted(q[part]), X[part])

    spanned = nm.Problem(plane.family, InverseInSpan())
    ladder = [16, 29] if small else [32, 45, 64, 90, 128, 256]
    limits = dict(zip(ladder, benchmark.eckart_young(X, ladder).tolist()))
    cheap = [n for n in ladder if n <= 128]  # what follows takes too long for more terms
    part = slice(0, 50 if small else 200)
    lines = {
        "closed form": (ladder, lambda n: error(ours(plane, n))),
        "closed form, least squares in the span": (cheap, lambda n: error(ours(spanned, n))),
        "closed form, snapshots alone": (ladder, lambda n: error(ours(plane, n, projections=0))),
        "Chebyshev, tensor grid": (ladder, lambda n: error(nm.peers.chebyshev(plane, n))),
        "radial functions, tuned": (ladder, lambda n: error(setting.radial(plane, n))),
        "residual projection": (cheap, lambda n: error(nm.peers.residual_projection(plane, n, seed=seed), part)),
        "best in the span of the snapshots": (ladder, lambda n: in_span(plane, q, X, n, seed)),
        "limit of the rank": (ladder, lambda n: limits[n]),
    }
    record.numbers["by_solves"] = {
        name: {"solves": own, "errors": [measure(n) for n in own]} for name, (own, measure) in lines.items()
    }
    projected = nm.peers.residual_projection(plane, cheap[-1], seed=seed)
    nine = interpolants.rbf(plane, 9 * many, seed=seed)
    timings = benchmark.compare(
        {"projection": lambda: projected(q[part]), "loop": lambda: solvers.numpy_loop(A[part])}, rounds=3
    )
    record.numbers["projection"] = {
        "solves": cheap[-1],
        "conditions": timings.conditions,
        "time": timings.ratio("projection", "loop"),
    }
    record.numbers["nine"] = {"error": error(nine), "terms": nine.terms}
    record.numbers["double"] = {"rank": 2 * many, "error": error(ours(plane, many, 2 * many))}


def solves_figure(record: Record) -> Figure:
    """Plot the errors of all methods against the number of exact solves."""
    curves = record.numbers["by_solves"]
    figure, axes = plt.subplots(figsize=(figures.WIDTH, 5.6))
    styles = {
        "closed form": (figures.BLUE, "o-", 2.2),
        "closed form, least squares in the span": (figures.SKY, "D--", 1.4),
        "closed form, snapshots alone": (figures.GREY, "P:", 1.4),
        "Chebyshev, tensor grid": (figures.ORANGE, "s:", 1.4),
        "radial functions, tuned": (figures.RED, "^-.", 1.4),
        "residual projection": (figures.PURPLE, "v--", 1.4),
        "best in the span of the snapshots": (figures.BLACK, "-", 1.0),
    }
    # As they fit beside the ends of the lines.
    short = {
        "closed form, least squares in the span": "least squares in span",
        "closed form, snapshots alone": "snapshots alone",
        "Chebyshev, tensor grid": "Chebyshev, tensor",
        "radial functions, tuned": "radial functions",
        "best in the span of the snapshots": "best in span",
    }
    lines = []
    for name, (colour, line, width) in styles.items():
        solves, errors, label = curves[name]["solves"], curves[name]["errors"], short.get(name, name)
        lines += axes.loglog(solves, errors, line, color=colour, lw=width, ms=5, label=label)
    limit = curves["limit of the rank"]
    style = {"color": figures.GREEN, "lw": 5, "alpha": 0.4, "zorder": 1, "label": "limit of the rank"}
    lines += axes.loglog(limit["solves"], limit["errors"], **style)
    axes.set_xticks(limit["solves"], [str(n) for n in limit["solves"]])
    axes.minorticks_off()
    axes.set(xlabel="exact solves", ylabel="relative error", ylim=(min(curves["closed form"]["errors"]) / 3, None))
    figures.name_lines(axes, lines)
    return figure


def at(record: Record, name: str) -> float:
    """Return the error of a method at the number of exact solves that the text speaks of."""
    few, many = Setting(record).solves
    own = record.numbers["by_solves"][name]
    return own["errors"][own["solves"].index(few if record.profile == "smoke" else many)]


def glue_solves(record: Record) -> None:
    """Glue what the text says about the number of exact solves."""
    numbers, mine = record.numbers, at(record, "closed form")
    for key, value in {
        "newton": mine,
        "span-fit": at(record, "closed form, least squares in the span"),
        "alone": at(record, "closed form, snapshots alone"),
        "span": at(record, "best in the span of the snapshots"),
        "limit": at(record, "limit of the rank"),
        "gain-chebyshev": at(record, "Chebyshev, tensor grid") / mine,
        "gain-rbf": at(record, "radial functions, tuned") / mine,
        "gain-projection": at(record, "residual projection") / mine,
        "gain-alone": at(record, "closed form, snapshots alone") / mine,
        "alone-rbf": at(record, "closed form, snapshots alone") / at(record, "radial functions, tuned"),
        "projection-time": spread(numbers["projection"]["time"]),
        "projection-solves": numbers["projection"]["solves"],
        "nine": numbers["nine"]["error"],
        "nine-terms": numbers["nine"]["terms"],
        "double": numbers["double"]["error"],
        "double-rank": numbers["double"]["rank"],
    }.items():
        provenance.glue(f"sp-{key}", value)


# The contest


def rungs(first: int, last: int, d: int | None = None) -> list[int]:
    """Return budgets, by factors of sqrt(2); or the sizes of tensor grids of d parameters."""
    steps = [round(first * 2 ** (k / 2)) for k in range(40)] if d is None else [m**d for m in range(2, 2000)]
    return [n for n in steps if first <= n <= last]


def climb(setting: Setting, d: int, name: str, ladder: list[int]) -> dict:
    """Raise the budget of one method until the last goal is met; return its errors, terms and time."""
    task = setting.contender(d)
    q, A, X = setting.sample(task)
    climbed = []
    for n in ladder:
        fitted = (
            interpolants.rbf(task, 9 * n, seed=setting.seed) if name == HELPED else setting.methods()[name](task, n)
        )
        matrices = fitted.report.collocation if isinstance(fitted, nm.Surrogate) else solves(fitted)
        spent = n if name == HELPED else solves(fitted)
        climbed.append({"solves": spent, "error": relative_error(fitted(q), X), "matrices": matrices})
        if climbed[-1]["error"] <= GOALS[-1]:
            break
    timing = setting.timing
    timings = benchmark.compare(
        {"loop": lambda: solvers.numpy_loop(A[timing]), "map": lambda: fitted(q[timing])}, rounds=5
    )
    limit = benchmark.eckart_young(X, terms(fitted)) if name == "closed form" else None
    return {
        "d": d,
        "method": name,
        "climbed": climbed,
        "terms": terms(fitted),
        "conditions": timings.conditions,
        "time": timings.ratio("map", "loop"),
        "limit": limit,
    }


def ladder_of(contest: list[dict], d: int, name: str, plan: tuple[int, int, int]) -> list[int]:
    """Return the budgets of a method: first rung, last rung of the closed form, last rung of the others."""
    if name == HELPED:
        own = next(e["climbed"] for e in contest if (e["d"], e["method"]) == (d, CLOSED))
        return [rung["solves"] for rung in own if rung["matrices"] == 9 * rung["solves"]]
    first, last, most = plan
    grid = d > 1 and name.startswith("Chebyshev")
    return rungs(first, last if name == CLOSED else most, d if grid else None)


def reached(entry: dict, goal: float) -> dict | None:
    """Return the first rung at which the goal is met, or None."""
    return next((rung for rung in entry["climbed"] if rung["error"] <= goal), None)


def race(setting: Setting, contest: list[dict], d: int, goal: float) -> dict:
    """Time, side by side, the builds of all methods at the rungs where they reach the goal.

    Returns:
        For the record: ``build``, in inversions by the NumPy loop; ``over``, the build of the closed form in units of
        that of each rival; and ``price``, that of an exact solve, in inversions, from which on the closed form's is
        the cheaper build.
    """
    task, methods = setting.contender(d), setting.methods()
    A = setting.sample(task)[1][setting.timing]
    found = {e["method"]: reached(e, goal) for e in contest if e["d"] == d and e["method"] in methods}
    found = {name: rung for name, rung in found.items() if rung}
    calls = {"loop": lambda: solvers.numpy_loop(A)}
    calls |= {name: lambda name=name, n=rung["solves"]: methods[name](task, n) for name, rung in found.items()}
    # Every build has run once, on the ladder, and needs no other warm-up.
    timings = benchmark.compare(calls, rounds=benchmark.ROUNDS, warm_up=0)
    result = {"d": d, "goal": goal, "conditions": timings.conditions}
    result["build"] = {name: timings.ratio(name, "loop").times(len(A)) for name in found}
    rivals = [name for name in found if name != CLOSED] if CLOSED in found else []
    result["over"] = {name: timings.ratio(CLOSED, name) for name in rivals}
    saved = {name: found[name]["solves"] - found[CLOSED]["solves"] for name in rivals}
    result["price"] = {
        name: timings.by_round(
            lambda own, rival, loop, saved=saved[name]: price(saved, len(A) * (own - rival) / loop),
            CLOSED,
            name,
            "loop",
        )
        for name in rivals
    }
    return result


def contest(record: Record) -> None:
    """Record how many exact solves, and how much time, each method needs to reach the goals, as ``contest``."""
    setting, entries, races = Setting(record), [], []
    plans = (
        {1: (4, 32, 32), 2: (16, 64, 64)}  # d: first rung, last rung of the closed form, last rung of the others
        if setting.small
        else {1: (4, 45, 45), 2: (32, 256, 512), 3: (90, 256, 512), 4: (16, 256, 1296)}
    )
    if record.profile == "gpu":  # to the second goal
        plans[3] = (90, 512, 1450)
    for d, plan in plans.items():
        for name in (CLOSED, *RIVALS, *[HELPED] * (d > 1)):
            entries.append(climb(setting, d, name, ladder_of(entries, d, name, plan)))
        races += [race(setting, entries, d, goal) for goal in GOALS]
    record.numbers["contest"] = {"tests": setting.tests, "entries": entries, "races": races}


def family_of(d: int) -> str:
    """Return what a table calls the family of d parameters."""
    return f"{d} (slower family)" if d == 4 else str(d)


def contest_table(record: Record) -> Table:
    """Tabulate solves and times of all methods, and glue at how many parameters errors are measured."""
    numbers = record.numbers
    provenance.glue("sp-tests", numbers["contest"]["tests"])
    rows = []
    for e in numbers["contest"]["entries"]:
        cells = []
        for goal in GOALS:
            rung = reached(e, goal)
            build = raced(record, e["d"], goal)["build"].get(e["method"])
            used = f"{rung['solves']} ({rung['matrices']:,})" if rung else f"over {e['climbed'][-1]['solves']}"
            cells += [used, spread(build) if build else ""]
        rows.append([family_of(e["d"]), e["method"], *cells, str(e["terms"]), spread(e["time"])])
    return Table(
        [
            "d",
            "method",
            "solves to 1e-2 (A(p) used)",
            "build (inversions)",
            "solves to 1e-3 (A(p) used)",
            "build (inversions)",
            "terms of the last map",
            "its time per matrix",
        ],
        rows,
    )


def interpolated(entry: dict, goal: float) -> float:
    """Return the solves to the goal, interpolated between two rungs on logarithmic axes; infinite if not reached."""
    steps = [(math.log(rung["error"]), math.log(rung["solves"])) for rung in entry["climbed"]]
    for (before, few_solves), (after, more_solves) in pairwise(steps):
        if after <= math.log(goal) < before:
            return math.exp(few_solves + (more_solves - few_solves) * (before - math.log(goal)) / (before - after))
    return math.inf


def price(saved: int, extra: float) -> float:
    """Return the price of a solve, in inversions, from which on our build is cheaper than a rival's.

    Args:
        saved: How many solves fewer ours takes.
        extra: How much longer it takes else, in inversions.
    """
    if saved > 0:
        return max(0.0, extra / saved)
    return 0.0 if extra <= 0 and saved == 0 else math.inf


def raced(record: Record, d: int, goal: float) -> dict:
    """Return the race of the builds for a number of parameters and a goal."""
    return next(race for race in record.numbers["contest"]["races"] if (race["d"], race["goal"]) == (d, goal))


def verdict(record: Record) -> list[dict]:
    """Return, for each number of parameters and each goal, how the closed form compares with its rivals."""
    contest, result = record.numbers["contest"]["entries"], []
    for d in sorted({e["d"] for e in contest}):
        entries = {e["method"]: e for e in contest if e["d"] == d}
        for goal in GOALS:
            needed, race = interpolated(entries[CLOSED], goal), raced(record, d, goal)
            if not race["over"]:
                continue
            fewest = min(race["over"], key=lambda name: interpolated(entries[name], goal))
            known = [name for name in race["over"] if not math.isnan(race["build"][name][1])]
            quickest = min(known, key=lambda name: race["build"][name][1], default=UNTIMED)
            untimed = [name for name in race["over"] if name not in known]
            result.append(
                {
                    "d": d,
                    "goal": goal,
                    "share": needed / interpolated(entries[fewest], goal),
                    "rival": fewest,
                    "quickest": quickest,
                    "slower": race["over"].get(quickest, (math.nan,) * 3),
                    # Against the rival that asks for the most of those that were timed.
                    "worth": most(race["price"].values()),
                    "untimed": untimed,
                }
            )
    return result


def is_near(entry: dict) -> bool:
    """Return whether an entry of the contest is one whose last map is compared with the limit of its rank."""
    return entry["method"] == CLOSED and entry["d"] in (2, 3)


def glue_verdict(record: Record) -> None:
    """Glue what the text says about the contest."""
    contest = record.numbers["contest"]["entries"]
    beyond = [v for v in verdict(record) if v["d"] > 1]
    shares = [v["share"] for v in beyond if math.isfinite(v["share"])] or [math.nan]
    one = [v["share"] for v in verdict(record) if v["d"] == 1 and math.isfinite(v["share"])]
    some = f"{min(one):.2f} to {max(one):.2f} times as many solves" if one else "a number of solves that was not found"
    provenance.glue("sp-one-share", some)
    timed = [entry["conditions"] for entry in last_good.measurements(record.numbers["contest"])]
    provenance.glue("sp-contest-timed", conditions(*timed))
    provenance.glue("sp-share-least", float(f"{min(shares):.1e}"))
    provenance.glue("sp-share-most", float(f"{max(shares):.1e}"))
    for key in ("slower", "worth"):
        provenance.glue(f"sp-{key}-least", spread(least(v[key] for v in beyond)))
        provenance.glue(f"sp-{key}-most", spread(most(v[key] for v in beyond)))
    provenance.glue("sp-untimed", untimed(beyond))
    words = {f"{v['d']} parameters to an error of {v['goal']:g}": v["slower"] for v in beyond}
    provenance.glue("sp-slower-verdict", told(words, "as long", at="for"))
    fewer = all(share < 1 for share in shares)
    provenance.glue(
        "sp-share-verdict", "needs fewer exact solves" if fewer else "does not always need fewer exact solves"
    )
    provenance.glue("sp-helped-verdict", helped(contest))
    near = [e["climbed"][-1]["error"] / e["limit"] for e in contest if is_near(e)]
    provenance.glue("sp-near-limit", at_least(max(near), 3))
    for e in contest:
        if e["d"] == 2 and e["method"] == HELPED:
            provenance.glue("sp-helped-solves", (reached(e, GOALS[1]) or e["climbed"][-1])["solves"])
            provenance.glue("sp-helped-terms", e["terms"])
            ours = next(o["time"] for o in contest if (o["d"], o["method"]) == (2, CLOSED))
            provenance.glue("sp-helped-time", spread(e["time"]))
            provenance.glue("sp-helped-ours", spread(ours))


def untimed(verdicts: Sequence[dict]) -> str:
    """Return in words which rivals were not timed where: what compares with the others is a lower limit there.

    Example:
        >>> untimed([{"d": 2, "goal": 0.01, "untimed": ["a", "b"], "worth": (1.0, 2.0, 3.0)}])
        'Not timed: "a" and "b" for d = 2 to 0.01. "At least" means: over the rivals timed there.'
    """
    if all(math.isnan(v["worth"][1]) for v in verdicts):
        return UNTOLD
    goals: dict[tuple[str, int], list[str]] = {}
    for v in verdicts:
        if v["untimed"]:
            names = listed([f'"{name}"' for name in v["untimed"]])
            goals.setdefault((names, v["d"]), []).append(f"{v['goal']:g}")
    if not goals:
        return "Every rival was timed."
    parts = [f"{names} for d = {d} to {listed(own)}" for (names, d), own in goals.items()]
    return f'Not timed: {"; ".join(parts)}. "At least" means: over the rivals timed there.'


def limited(v: dict, key: str) -> str:
    """Return a ratio of a verdict for the table; over the timed rivals alone it is a lower limit."""
    known = v["untimed"] and math.isfinite(v[key][1])
    return f"at least {spread(v[key])}" if known else spread(v[key])


def helped(contest: Sequence[dict]) -> str:
    """Return in words whether a peer through exact results, counted as if by the residual, takes more solves."""
    pairs = []
    for entry in (e for e in contest if e["method"] == HELPED):
        own = next(e for e in contest if (e["d"], e["method"]) == (entry["d"], CLOSED))
        for goal in GOALS:
            rungs = [reached(e, goal) for e in (own, entry)]
            pairs.append([rung["solves"] if rung else math.inf for rung in rungs])
    # Where neither reached the goal nothing is compared.
    pairs = [pair for pair in pairs if min(pair) < math.inf]
    count = sum(theirs <= ours for ours, theirs in pairs)
    return f"in {count} of {len(pairs)} cases"


def verdict_table(record: Record) -> Table:
    """Tabulate how the closed form compares with its rivals."""
    return Table(
        [
            "d",
            "error",
            "our solves / fewest of a rival (interpolated)",
            "that rival",
            "quickest timed rival",
            "our build / its build",
            "pays if a solve costs more than (inversions)",
        ],
        [
            [
                family_of(v["d"]),
                f"{v['goal']:.0e}",
                f"{v['share']:.2f}",
                v["rival"],
                v["quickest"],
                limited(v, "slower"),
                limited(v, "worth"),
            ]
            for v in verdict(record)
        ],
    )


# Fixed budgets


def at_fixed_budget(setting: Setting, d: int, n: int, shift: float, other: int) -> dict:
    """Return errors and costs of all methods on one family of d parameters, from n exact solves.

    Args:
        setting: What the studies share.
        d: Number of parameters.
        n: Number of exact solves.
        shift: Shift of the family.
        other: Seed of the family.
    """
    task, seed, timing = setting.inverse(d, shift=shift, seed=other), setting.seed, setting.timing
    q, A, X = setting.sample(task)
    fitted = setting.ours(task, n)
    peers = {name: method(task, n) for name, method in setting.methods().items() if name != CLOSED}
    peers["POD and radial functions"] = interpolants.pod_regression(task, n, n // 2, kernel="multiquadric", seed=seed)
    calls = {"loop": lambda: solvers.numpy_loop(A[timing]), "ours": lambda: fitted(q[timing])}
    calls |= {"batched": lambda: solvers.scipy_batched(A[timing]), "numpy": lambda: solvers.numpy_batched(A[timing])}
    calls |= {name: lambda m=m: m(q[timing]) for name, m in peers.items()}
    timings = benchmark.compare(calls, rounds=5)
    share = {name: timings.ratio(name, "loop") for name in calls}
    return {
        "conditions": timings.conditions,
        "d": d,
        "solves": n,
        "shift": shift,
        "seed": other,
        "condition": torch.linalg.cond(A).max(),
        "error": relative_error(fitted(q), X),
        "rank": fitted.rank,
        "limit": benchmark.eckart_young(X, fitted.rank),
        "features": fitted.maps[0].embedding.count(d),
        "time": share["ours"],
        "batched": share["batched"],
        "numpy": share["numpy"],
        "over_batched": timings.ratio("ours", "batched"),
        "over_numpy": timings.ratio("ours", "numpy"),
        "peers": {
            name: {"error": relative_error(m(q), X), "solves": m.exact_solves, "time": share[name]}
            for name, m in peers.items()
        },
    }


def fixed(record: Record) -> None:
    """Record errors and costs at fixed budgets, as ``fixed``."""
    setting = Setting(record)
    cases = [(2, 29), (2, 40)] if setting.small else [(2, 128), (3, 512 if record.profile == "gpu" else 256)]
    record.numbers["fixed"] = [
        at_fixed_budget(setting, d, n, shift, other)
        for d, n in cases
        for shift in setting.shifts
        for other in (setting.seed, setting.seed + 1)
    ]


def with_best(record: Record) -> list[dict]:
    """Return the families at fixed budgets, with the error of the best peer."""
    return [f | {"best": min(peer["error"] for peer in f["peers"].values())} for f in record.numbers["fixed"]]


def glue_fixed(record: Record) -> None:
    """Glue what the text says about fixed budgets."""
    fixed = with_best(record)
    provenance.glue("sp-shift-easy", fixed[0]["shift"])
    for i, n in enumerate(sorted({f["solves"] for f in fixed})):
        provenance.glue(f"sp-case-{('first', 'second')[i]}", n)
    for d in (2, 3):
        own = [f for f in fixed if f["d"] == min(d, max(f["d"] for f in fixed))]
        ratios = [f["error"] / f["best"] for f in own]
        provenance.glue(f"sp-{d}d-ratio-best", min(ratios))
        provenance.glue(f"sp-{d}d-ratio-worst", max(ratios))
        provenance.glue(f"sp-{d}d-limit-least", min(f["error"] / f["limit"] for f in own))
        provenance.glue(f"sp-{d}d-limit-most", max(f["error"] / f["limit"] for f in own))
        provenance.glue(f"sp-{d}d-features-least", min(f["features"] for f in own))
        provenance.glue(f"sp-{d}d-features-most", max(f["features"] for f in own))
        provenance.glue(f"sp-{d}d-error", own[0]["error"])
        provenance.glue(f"sp-{d}d-rival", own[0]["best"])
        provenance.glue(f"sp-{d}d-time-least", spread(least(f["time"] for f in own)))
        provenance.glue(f"sp-{d}d-time-most", spread(most(f["time"] for f in own)))
    provenance.glue("sp-batched", beside_batched(fixed, provenance.load(last_good.kept_as("to_the_limit"))))


def beside_batched(fixed: Sequence[dict], elsewhere: Record) -> str:
    """Return in sentences how the map compares with inversions in a batch on all cores, at worst.

    A record that was published before NumPy's was timed says what is known of it from another chapter.

    Args:
        fixed: The families at fixed budgets.
        elsewhere: The timings of the chapter *To the limit*.
    """
    last = max(f["d"] for f in fixed)

    def worst(key: str) -> list[Sequence[float]]:
        return [most(f.get(key, UNKNOWN) for f in fixed if f["d"] == min(d, last)) for d in (2, 3)]

    two, three = map(spread, worst("over_batched"))
    said = (
        f"Beside SciPy's, at worst, the map takes {two} times the time with two parameters, {three} times with three."
    )
    numpy = worst("over_numpy")
    if not any(math.isnan(x[1]) for x in numpy):
        words = (f"{side(x, 'slower', 'faster', 'about as fast')} with" for x in numpy)
        two, three = (f"{word} {d} ({spread(x)} times)" for word, d, x in zip(words, ("two", "three"), numpy))
        return f"{said} Beside NumPy's it is {two}, {three}."
    batched, slow = (elsewhere.numbers["cdl_c"]["relative_time"][key] for key in ("NumPy batched", "SciPy batched"))
    times = [most(f["time"] for f in fixed if f["d"] == d) for d in (2, 3)]
    none = [name for name, x in zip(("two", "three"), times) if x[1] > 0.8 * batched[1]]
    return (
        f"{said} NumPy's was not timed here. For complex matrices of this size it takes {spread(batched)} times as "
        f"long as the loop, SciPy's {spread(slow)} times."
        + f" Beside that the map of {listed(none)} parameters would gain little or nothing."
        * bool(none)
    )


def fixed_table(record: Record) -> Table:
    """Tabulate errors at fixed budgets."""
    fixed = with_best(record)
    short = {
        "Chebyshev, tensor grid": "Chebyshev",
        "Chebyshev, stretched grid": "stretched",
        "radial functions, quintic": "quintic",
        "radial functions, tuned": "tuned",
        "POD and radial functions": "POD, half the terms",
    }
    return Table(
        [
            "d",
            "shift",
            "seed",
            "closed form",
            "ours / best peer",
            *short.values(),
            "largest condition",
        ],
        [
            [
                str(f["d"]),
                f"{f['shift']:g}",
                str(f["seed"]),
                f"**{f['error']:.1e}**",
                f"{f['error'] / f['best']:.2f}",
                *(f"{f['peers'][name]['error']:.1e}" for name in short),
                f"{f['condition']:.0f}",
            ]
            for f in fixed
        ],
    )


def fixed_costs_table(record: Record) -> Table:
    """Tabulate terms and times at fixed budgets."""
    return Table(
        [
            "d",
            "shift",
            "seed",
            "terms",
            "polynomials",
            "time per matrix: closed form",
            "Chebyshev",
            "tuned",
            "exact, SciPy batched",
            "exact, NumPy batched",
        ],
        [
            [
                str(f["d"]),
                f"{f['shift']:g}",
                str(f["seed"]),
                str(f["rank"]),
                str(f["features"]),
                spread(f["time"]),
                spread(f["peers"]["Chebyshev, tensor grid"]["time"]),
                spread(f["peers"]["radial functions, tuned"]["time"]),
                spread(f["batched"]),
                spread(f.get("numpy", UNKNOWN)),
            ]
            for f in record.numbers["fixed"]
        ],
    )


# A wireless example


def exact_equalisers(channel: nm.wireless.Channel, f: Tensor, s: Tensor, A: Tensor) -> dict[str, Callable]:
    """Return the exact methods as functions.

    Args:
        channel: The channel.
        f: Frequencies, (F,).
        s: Logarithms of the noise level, (S,).
        A: The systems at all pairs, (F * S, n, n + m): matrices and right-hand sides.
    """
    streams, H = channel.shape[1], channel(f[:, None])
    G, B = A[:, :, :streams].contiguous(), A[:, :, streams:].contiguous()

    def loop() -> list[np.ndarray]:
        """One system after the other, as `numpy.linalg.solve` takes it."""
        return [np.linalg.solve(a, b) for a, b in zip(G.cpu().numpy(), B.cpu().numpy())]

    def decomposed() -> Tensor:
        """One eigendecomposition for each frequency serves all noise levels."""
        L, V = nm.linalg.in_threads(lambda h: tuple(torch.linalg.eigh(h.mH @ h)), H)
        W = (V.mH @ H.mH)[:, None] / (L[:, None] + (10**s).to(L)[:, None])[..., None]
        return (V[:, None] @ W).flatten(0, 1)

    def factored() -> Tensor:
        """Batched Cholesky factorisations without any check, on all cores."""
        return nm.linalg.in_threads(
            lambda a: torch.cholesky_solve(a[:, :, streams:], torch.linalg.cholesky(a[:, :, :streams])), A
        )

    return {
        "NumPy loop": loop,
        "torch, Cholesky": factored,
        "eigendecomposition per frequency": decomposed,
    }


def equaliser_maps(
    setting: Setting, equaliser: nm.Problem, lmmse: nm.Surrogate, method: nm.ClosedForm
) -> dict[str, Map]:
    """Return maps of the equaliser from as many exact solves as ``lmmse``, which ``method`` fitted."""
    small, seed, rank, budget = setting.small, setting.seed, lmmse.rank, method.snapshots
    fourier = bases.FourierExtension(6 if small else 28)
    return {
        "closed form": lmmse,
        PIECES: nm.fit(equaliser, tol=1e-2, seed=seed, progress=False),
        "closed form, Fourier extension": nm.fit(
            equaliser, rank=rank, budget=budget, method=replace(method, embedding=fourier), seed=seed, progress=False
        ),
        "radial functions, tuned": setting.radial(equaliser, budget),
        TOLD_RADIAL: setting.radial(equaliser, budget, scales=(1, 0.1)),
        "Chebyshev, equal sides": nm.peers.chebyshev(equaliser, budget),
        setting.told_grid: told_map(setting, equaliser, budget),
        "POD and radial functions, tuned": interpolants.pod_regression(
            equaliser, budget, rank, kernel="multiquadric", seed=seed
        ),
    }


def told_map(setting: Setting, equaliser: nm.Problem, budget: int) -> nm.peers.Peer:
    """Return the grid whose sides and stretch say which variable is smooth."""
    return nm.peers.chebyshev(equaliser, budget, sides=setting.sides, stretch=(0.95, 0))


def wireless(
    record: Record, channel: nm.wireless.Channel, equaliser: nm.Problem, lmmse: nm.Surrogate, method: nm.ClosedForm
) -> None:
    """Record errors and times of the equaliser along frequency and noise level, as ``wireless``.

    Args:
        record: The record.
        channel: The channel.
        equaliser: The problem of its frequency and the logarithm of the noise level.
        lmmse: The fitted map.
        method: The method that fitted it.
    """
    setting = Setting(record)
    small, rank, budget = setting.small, lmmse.rank, method.snapshots
    f = channel.frequencies[:: 6 if small else 13, 0]
    s = torch.linspace(-1.5, 0.0, 3 if small else 8, dtype=torch.float64, device=f.device)
    p = torch.cartesian_prod(f, s)
    X = equaliser.exact(p).value
    exact = exact_equalisers(channel, f, s, equaliser.family(p))
    maps = equaliser_maps(setting, equaliser, lmmse, method)
    options = {"rank": rank, "budget": budget, "method": method, "seed": setting.seed, "progress": False}
    calls = exact | {name: lambda m=m: m(p) for name, m in maps.items()}
    fits = {
        "fit": lambda: nm.fit(equaliser, **options),
        "fit of the grid": lambda: told_map(setting, equaliser, budget),
    }
    timings = benchmark.compare(calls | fits, rounds=3)
    full = len(s) * len(channel.frequencies) / len(p)
    record.numbers["wireless"] = {
        "count": len(p),
        "frequencies": len(f),
        "levels": len(s),
        "subcarriers": len(channel.frequencies),
        "streams": channel.shape[1],
        "antennas": channel.shape[0],
        "rank": rank,
        "limit": benchmark.eckart_young(X[:: max(1, len(X) // 1024)], rank),
        "collocation": lmmse.report.collocation,
        "errors": {name: relative_error(m(p), X) for name, m in maps.items()}
        | {name: relative_error(exact[name](), X) for name in ("eigendecomposition per frequency", "torch, Cholesky")},
        "solves": {name: solves(m) for name, m in maps.items()},
        "terms": {name: terms(m) for name, m in maps.items()},
        "conditions": timings.conditions,
        "relative_time": {key: timings.ratio(key, "NumPy loop") for key in calls},
        "over": {key: timings.ratio(key, CLOSED) for key in calls},
        "fit": timings.ratio("fit", "NumPy loop").times(len(p)),
        "grid_fit": timings.ratio("fit of the grid", "NumPy loop").times(len(p)),
        "grid_even": timings.break_even("fit", setting.told_grid, CLOSED, len(p), "fit of the grid"),
        # At all subcarriers, fit included, beside the loop.
        "whole": timings.by_round(
            lambda fit, each, loop: (fit + full * each) / (full * loop), "fit", CLOSED, "NumPy loop"
        ),
        "break_even": {key: timings.break_even("fit", key, CLOSED, len(p)) for key in exact},
    }


def glue_wireless(record: Record) -> None:
    """Glue what the text says about the equaliser."""
    w, setting = record.numbers["wireless"], Setting(record)
    sides, over = setting.sides, w["over"]
    for key, value in {
        "count": w["count"],
        "frequencies": w["frequencies"],
        "levels": w["levels"],
        "solves": w["solves"]["closed form"],
        "rank": w["rank"],
        "limit": w["limit"],
        "collocation": w["collocation"],
        "error": w["errors"]["closed form"],
        "fourier": w["errors"]["closed form, Fourier extension"],
        "pieces": w["errors"][PIECES],
        "pieces-solves": w["solves"][PIECES],
        "pieces-terms": w["terms"][PIECES],
        "rbf": w["errors"]["radial functions, tuned"],
        "chebyshev": w["errors"]["Chebyshev, equal sides"],
        "rbf-told": w["errors"][TOLD_RADIAL],
        "chebyshev-told": w["errors"][setting.told_grid],
        "told-share": spread(over[setting.told_grid]),
        "sides": f"{sides[0]} x {sides[1]}",
        "subcarriers": w["subcarriers"],
        "speed": spread(over["NumPy loop"]),
        "speed-cholesky": spread(over["torch, Cholesky"]),
        "speed-eigen": spread(over["eigendecomposition per frequency"]),
        "timed": conditions(w["conditions"]),
        "verdict": told({name: over[key] for key, name in EXACT.items()}, at="as"),
        "fit": spread(w["fit"]),
        "grid-fit": spread(w["grid_fit"]),
        "grid-even": matrices(w["grid_even"]),
        "even": matrices(w["break_even"]["NumPy loop"]),
        "even-cholesky": matrices(w["break_even"]["torch, Cholesky"]),
        "even-eigen": matrices(w["break_even"]["eigendecomposition per frequency"]),
        "side": round(w["solves"]["Chebyshev, equal sides"] ** 0.5),
        "full": w["levels"] * w["subcarriers"],
        "with-fit": spread(w["whole"]),
        "with-fit-verdict": side(w["whole"], "longer than", "less time than", "about as long as"),
    }.items():
        provenance.glue(f"sp-w-{key}", value)


def wireless_table(record: Record) -> Table:
    """Tabulate errors and times of the equaliser."""
    w, told_grid = record.numbers["wireless"], Setting(record).told_grid
    fits = {CLOSED: spread(w["fit"]), told_grid: spread(w["grid_fit"])}
    rows = [[name, "each", "", "", "none", spread(w["relative_time"][name])] for name in w["break_even"]]
    rows += [
        [
            name,
            str(w["solves"][name]),
            str(w["terms"][name]),
            f"{w['errors'][name]:.1e}",
            fits.get(name, ""),
            spread(w["relative_time"][name]),
        ]
        for name in w["solves"]
    ]
    return Table(["LMMSE equaliser", "solves", "terms", "error", "fit", "time per matrix (NumPy loop = 1)"], rows)


def check(record: Record) -> None:
    """Assert what the text says of errors and counts; what it says of times follows from the quartiles."""
    numbers = record.numbers
    own, entries = numbers["by_solves"], numbers["contest"]["entries"]
    spanned, limits = (own[name]["errors"] for name in ("best in the span of the snapshots", "limit of the rank"))
    assert all(e >= 0.99 * limit for e, limit in zip(spanned, limits)), "no span of n snapshots beats the limit of n"
    firsts = [e["climbed"][0]["error"] for e in entries if e["method"] != HELPED]
    assert min(firsts) > GOALS[0], "ladders begin above the goals"
    if record.profile != "smoke":
        check_sizes(record)


def check_sizes(record: Record) -> None:
    """Assert what the text says of errors and counts at full size."""
    assert all(f["error"] <= 0.6 * f["best"] for f in with_best(record)), "the closed form against the best peer"
    assert at(record, CLOSED) < at(record, "best in the span of the snapshots"), "Newton's iteration leaves the span"
    assert at(record, "closed form, least squares in the span") < at(record, "radial functions, tuned")
    found = {e["name"]: e["error"] for e in record.numbers["embeddings"]}
    assert found["Chebyshev, total"] < min(found[f"Chebyshev, {kind}"] for kind in ("hyperbolic", "smolyak"))
    for v in verdict(record):
        assert v["d"] == 1 or v["share"] < 1, "fewest exact solves for several parameters"
    check_curves(record)
    default, plain = record.numbers["embeddings"][0]["error"], record.numbers["embeddings"][-1]["error"]
    assert default < plain, "stretched polynomials beside as many plain ones"
    designs = [record.numbers["designs"][kind] for kind in KINDS]
    without, given = ([design[key] for design in designs] for key in ("without", "with"))
    assert max(without) > 2 * min(without), "from the snapshots alone the design matters much"
    assert max(given) < 1.2 * min(given), "with the residual the default is as good as the others"
    near = [e["climbed"][-1]["error"] / e["limit"] for e in record.numbers["contest"]["entries"] if is_near(e)]
    assert max(near) < 2, "what is still needed are terms rather than solves"
    errors, told_grid = record.numbers["wireless"]["errors"], Setting(record).told_grid
    assert errors["closed form, Fourier extension"] < errors["radial functions, tuned"], "not told"
    assert errors[told_grid] < 0.3 * errors["Chebyshev, equal sides"], "told which variable is smooth"
    assert errors[TOLD_RADIAL] < 0.3 * errors["radial functions, tuned"]
    assert max(errors[name] for name in ("eigendecomposition per frequency", "torch, Cholesky")) < 1e-4
    untold = [errors[name] for name in ("Chebyshev, equal sides", "radial functions, tuned")]
    assert min(untold) > 3 * errors[CLOSED], "with equal sides, or one scale, the peers do much worse"
    w = record.numbers["wireless"]
    assert w["terms"][told_grid] > w["terms"][CLOSED], "the grid keeps all its terms"


def check_curves(record: Record) -> None:
    """Assert what the description of the figure of exact solves says."""
    curves = {name: dict(zip(c["solves"], c["errors"])) for name, c in record.numbers["by_solves"].items()}
    limit, closed = curves.pop("limit of the rank"), curves.pop(CLOSED)
    assert all(closed[n] < 1.5 * limit[n] for n in closed if n >= 45), "close to the limit of the rank"
    span = curves.pop("best in the span of the snapshots")
    high = [curves.pop(name) for name in ("closed form, snapshots alone", "Chebyshev, tensor grid")]
    first, last = min(closed), max(closed)
    falls = [curve[last] / curve[first] for curve in (span, *high, curves["radial functions, tuned"])]
    assert closed[last] / closed[first] < min(falls), "falls fastest"
    for name in ("closed form, least squares in the span", "residual projection"):
        assert all(error > span[n] for n, error in curves[name].items()), "above the best in the span"
    for curve in curves.values():
        assert all(error < min(line[n] for line in high) for n, error in curve.items()), "these two lie highest"
