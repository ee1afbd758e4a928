"""Axes that differ: pieces, the global map and the peers on problems of two and four parameters."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import neumatc as nm
from studies import benchmark, figures, problems, provenance, texts
from studies.provenance import Record, Table
from studies.several_parameters import PIECES, Map, Setting, solves, terms

# Radial functions through more exact solutions than this take minutes.
_MOST_CENTRES = 1000
# Nodes tried for an axis that hardly matters, and most nodes tried for the others.
_FEW, _MOST_NODES = range(2, 9), 128
# Parameters at which grids are tried out: fresh for the grids as for the fits.
_TRIED = 500
# Parameters at which the smoke profile compares, which shows that all runs and not how good it is.
_SEEN = 150
# Singular values below this share of the largest are rounding.
_ROUNDING = 1e-12
PERIODIC, GLOBAL = "fit to a tolerance, periodic axes", "global map"
FEWEST, STRETCHED, WAVES = "fewest Chebyshev nodes", "fewest Chebyshev nodes, stretched", "fewest trigonometric nodes"
RADIAL = "radial functions, tuned"
REDUCED, TANGENTS = "reduced basis", "reduced basis, with derivatives"
ONCE, EXACT = "reduced basis, projected once", "exact"
# Of a thermal block, in the order of the sentence.
TIMED = (REDUCED, ONCE, PIECES, GLOBAL)


def seen(case: problems.Case, setting: Setting) -> problems.Case:
    """Return the case; at the smoke profile the user looks at fewer parameters."""
    every = math.ceil(len(case.parameters) / _SEEN)
    return replace(case, parameters=case.parameters[::every]) if setting.small else case


def measured(case: problems.Case, X: Tensor, tol: float) -> dict:
    """Return errors of values where the user of the case looks, and the share whose residual is above the tolerance."""
    error = case.problem.error(case.parameters, X)
    failing = (case.problem.residual(case.parameters, X) > tol).double().mean()
    return {"error": error.square().mean().sqrt(), "worst": error.max(), "failing": failing}


def quality(case: problems.Case, fitted: Map, tol: float) -> dict:
    """Return exact solves, terms and errors of a map."""
    return {"solves": solves(fitted), "terms": terms(fitted)} | measured(case, fitted(case.parameters), tol)


def functions(x: Tensor, count: int, stretch: float | None) -> Tensor:
    """Return so many functions of x in [-1, 1]: Chebyshev polynomials, stretched, or waves (an odd number) for None."""
    k = torch.arange(count, dtype=x.dtype)
    if stretch is None:
        angle = math.pi * x[:, None] * ((k + 1) // 2)
        return torch.where(k % 2 == 0, torch.cos(angle), torch.sin(angle))
    y = torch.sin(x * math.asin(stretch)) / stretch if stretch else x
    return torch.cos(k * torch.acos(y.clamp(-1, 1))[:, None])


def on_grid(problem: nm.Problem, sides: tuple[int, int], stretches: tuple, p: Tensor) -> tuple[Tensor, ...]:
    """Interpolate exact solutions at a tensor grid of two parameters, and evaluate at p (B, 2).

    Args:
        problem: An operation with one factor.
        sides: Nodes of each axis.
        stretches: For each axis the stretch of Chebyshev nodes, or None for waves through equidistant ones.
        p: Parameters.
    """
    family, axes = problem.family, []
    for m, a in zip(sides, stretches):
        even = 2 * torch.arange(m, dtype=torch.float64) / m - 1
        axes.append(even if a is None else nm.sampling.design(m, 1, stretch=a)[0][:, 0])
    X = problem.exact(family.box.parameters(torch.cartesian_prod(*axes))).value
    values, x = X.flatten(1).view(*sides, -1), family.box.cube(p)
    first, second = (
        torch.linalg.solve(functions(own, m, a).T, functions(y, m, a).T).T.to(values.dtype)
        for own, y, m, a in zip(axes, x.T, sides, stretches)
    )
    return torch.einsum("bi,bj,ijk->bk", first, second, values).view(-1, *X.shape[1:])


def frobenius(problem: nm.Problem, p: Tensor, X: Tensor) -> Tensor:
    """Return the residual of LMMSE filters as a whole, where `problem.residual` takes the worst of the users."""
    H = problem.family(p)
    L = H.mH @ H + problem.operation.noise * torch.eye(H.shape[2], dtype=H.dtype)
    return (L @ X - H.mH).flatten(1).norm(dim=1) / H.flatten(1).norm(dim=1)


def fewest(
    case: problems.Case, tol: float, stretches: tuple, first: Iterator[int] | None, measure: Callable | None = None
) -> dict:
    """Find the smallest tensor grid whose residual is above the tolerance at no more than the share allowed.

    Args:
        case: A case of two parameters.
        tol: The tolerance.
        stretches: As for `on_grid`.
        first: Nodes of the first axis that are tried; None for as many as on the second.
        measure: From problem, parameters and values to residuals; default that of the operation.
    """
    p, problem, best = case.parameters[:_TRIED], case.problem, None
    step = 2 if None in stretches else 1  # an odd number of waves

    def passes(sides: tuple[int, int]) -> bool:
        X = on_grid(problem, sides, stretches, p)
        residual = measure(problem, p, X) if measure else problem.residual(p, X)
        return float((residual > tol).double().mean()) <= problems.TARGET

    for few in first or [None]:
        low, high = 1, _MOST_NODES // step
        if best:
            high = min(high, (math.prod(best) - 1) // few)
        if high <= low or not passes((few or step * high + step - 1, step * high + step - 1)):
            continue
        while high - low > 1:
            middle = (low + high) // 2
            m = step * middle + step - 1
            low, high = (low, middle) if passes((few or m, m)) else (middle, high)
        m = step * high + step - 1
        best = (few or m, m)
    if best is None:
        return {"solves": None}
    count = {"solves": math.prod(best), "sides": best, "terms": math.prod(best)}
    return count | measured(case, on_grid(problem, best, stretches, case.parameters), tol)


def shape(surrogate: nm.Surrogate) -> dict:
    """Return the pieces of a fit: their bounds, nodes, and least and most nodes by axis."""
    counts = [[len(axis) for axis in piece.nodes] for piece in surrogate.pieces]
    return {
        "pieces": len(counts),
        "nodes": [[min(axis), max(axis)] for axis in zip(*counts)],
        "met": surrogate.report.met,
        "boxes": [[*piece.lower, *piece.upper] for piece in surrogate.pieces],
    }


def fitted(case: problems.Case, setting: Setting, tol: float, budget: int | None = None) -> nm.Surrogate:
    """Fit to a tolerance; the warning of one that is not met is for the table to tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.FitWarning)
        return nm.fit(case.problem, tol=tol, budget=budget, seed=setting.seed, progress=False)


def common(case: problems.Case, setting: Setting, tol: float, rank: int) -> tuple[dict, dict, nm.Surrogate]:
    """Return the qualities of pieces and, from as many exact solves, of the global map and the peers."""
    pieces = fitted(case, setting, tol)
    n = min(solves(pieces), 64) if setting.small else solves(pieces)
    maps = {
        PIECES: pieces,
        GLOBAL: setting.ours(case.problem, n, rank),
        "Chebyshev, equal sides": nm.peers.chebyshev(case.problem, n),
    }
    if n <= _MOST_CENTRES:
        maps[RADIAL] = setting.radial(case.problem, n)
    return {name: quality(case, m, tol) for name, m in maps.items()}, shape(pieces), pieces


def slot(record: Record, speed: float) -> dict:
    """Return how the methods do on a slot of time and frequency with users that move at a speed in km/h."""
    setting, tol = Setting(record), 1e-2
    case = seen(problems.slot(speed), setting)
    rows, pieces, surrogate = common(case, setting, tol, 64)
    tried = _FEW if not setting.small else (2,)
    rows[FEWEST] = fewest(case, tol, (0.0, 0.0), tried)
    rows[STRETCHED] = fewest(case, tol, (0.0, 0.95), tried)
    whole = fewest(case, tol, (0.0, 0.0), tried, frobenius)
    keep(record, f"slot_{speed:g}", surrogate)
    return {"name": f"slot, {speed:g} km/h", "tol": tol, "rows": rows, "shape": pieces, "whole": whole}


def green(record: Record, eta: float) -> dict:
    """Return how the methods do on a Green's function over the Brillouin zone, with damping eta."""
    case, setting, tol = problems.green(eta), Setting(record), 1e-2
    rows, pieces, surrogate = common(case, setting, tol, 8)
    closed = problems.green(eta, periodic=True)
    rows[PERIODIC] = quality(closed, fitted(closed, setting, tol), tol)
    rows[FEWEST] = fewest(case, tol, (0.0, 0.0), None)
    rows[WAVES] = fewest(case, tol, (None, None), None)
    keep(record, f"green_{eta:g}", surrogate)
    return {"name": f"Green's function, $\\eta = {eta:g}$", "tol": tol, "rows": rows, "shape": pieces}


def waves(record: Record) -> dict:
    """Return how the methods do on the family of the sections above, which prefers no direction."""
    setting, tol = Setting(record), 1e-2
    task = setting.contender(2)
    case = problems.Case("waves", task, {"tol": tol}, setting.sample(task)[0], lambda X: X, tol)
    rows, pieces, _ = common(case, setting, tol, setting.solves[0])
    rows[FEWEST] = fewest(case, tol, (0.0, 0.0), None)
    return {"name": "oblique waves", "tol": tol, "rows": rows, "shape": pieces}


def thermal(record: Record, source: str) -> dict:
    """Return how the methods do on the temperatures of a plate of four blocks, four logarithmic axes."""
    setting, tol = Setting(record), 1e-3
    case = seen(problems.thermal_block(source), setting)
    problem, rank, budget = case.problem, case.fit["rank"], case.fit["budget"]
    pieces = fitted(case, setting, tol, 64 if setting.small else None)
    maps = {
        PIECES: pieces,
        GLOBAL: nm.fit(problem, rank=rank, budget=budget, seed=setting.seed, progress=False),
        "Chebyshev, equal sides": nm.peers.chebyshev(problem, 3**4),
        RADIAL: setting.radial(problem, budget),
        REDUCED: nm.peers.reduced_basis(problem, budget, seed=setting.seed),
        TANGENTS: nm.peers.reduced_basis(problem, 16, tangents=True, seed=setting.seed),
    }
    rows = {name: quality(case, m, tol) for name, m in maps.items()}
    found = {"name": f"thermal block, {source} source", "tol": tol, "rows": rows, "shape": shape(pieces)}
    found["span"] = dimensions(problem.exact(case.parameters).value)
    once = projected(problem, found["span"])
    rows[ONCE] = {"solves": found["span"], "terms": found["span"]} | measured(case, once(case.parameters), tol)
    ways = {name: maps[name] for name in TIMED if name in maps} | {ONCE: once, EXACT: problem.exact}
    timings = benchmark.compare({name: lambda m=m: m(case.parameters) for name, m in ways.items()}, rounds=5)
    times = {name: timings.ratio(name, EXACT) for name in TIMED}
    return found | {"times": {"conditions": timings.conditions, "over exact": times}}


def projected(problem: nm.Problem, count: int) -> Callable[[Tensor], Tensor]:
    """Return the temperatures of a thermal block in the span V of so many exact ones, its four matrices projected once.

    A value solves ``count`` equations and multiplies by V; no matrix of full size is formed.
    """
    p = problem.family.box.parameters(nm.sampling.design(count, 4)[0])
    V = torch.linalg.qr(problem.exact(p).value[:, :, 0].T)[0].numpy()
    small, load = V.T @ problems.thermal_blocks() @ V, V.T @ problem.family(p[:1])[0, :, -1:].numpy()
    return lambda q: torch.from_numpy(V @ np.linalg.solve(np.einsum("bk,kij->bij", q.numpy(), small), load))


def thermal_times(found: dict) -> str:
    """Return in sentences how long a value of a thermal block takes beside an exact one.

    Args:
        found: The study of uneven problems; in records of before its times were taken, they are missing.
    """
    case = found["thermal_constant"]
    if "times" not in case or math.isnan(case["times"]["over exact"][ONCE][1]):
        return "How long its values take was not timed."
    reduced, once, pieces, whole = (texts.spread(case["times"]["over exact"][name]) for name in TIMED)
    return (
        f"In dense exact solutions a value of the reduced basis takes {reduced}; of one that is projected once, at an "
        f"error of {case['rows'][ONCE]['error']:.0e}, {once}; of the sparse polynomial {pieces}, of the global map "
        f"{whole}. {texts.conditions(case['times']['conditions'])}"
    )


def dimensions(X: Tensor) -> int:
    """Return the dimension of the space that solutions (N, n, 1) span, up to rounding.

    Example:
        >>> dimensions(torch.tensor([[[1.0], [2.0]], [[2.0], [4.0]], [[0.0], [1e-16]]], dtype=torch.float64))
        1
    """
    values = torch.linalg.svdvals(X.flatten(1))
    return int((values > _ROUNDING * values[0]).sum())


def keep(record: Record, key: str, surrogate: nm.Surrogate) -> None:
    """Keep the nodes of all pieces, each once, as the array ``nodes_<key>``."""
    found = {p for piece in surrogate.pieces for p in itertools.product(*piece.nodes)}
    record.arrays[f"nodes_{key}".replace(".", "")] = torch.tensor(sorted(found), dtype=torch.float64)


def study(record: Record) -> None:
    """Record all of it, as ``anisotropic``: by case its rows, pieces and tolerance."""
    small = record.profile == "smoke"
    found = {"waves": waves(record)}
    for speed in (3.0,) if small else (3.0, 120.0):
        found[f"slot_{speed:g}"] = slot(record, speed)
    for eta in (0.5,) if small else (0.5, 0.2):
        found[f"green_{eta:g}"] = green(record, eta)
    for source in ("constant",) if small else ("constant", "random"):
        found[f"thermal_{source}"] = thermal(record, source)
    record.numbers["anisotropic"] = found


def pieces_figure(record: Record) -> Figure:
    """Draw pieces and nodes of the fits with two parameters."""
    found = record.numbers["anisotropic"]
    labels = {
        "slot": ("time (ms)", "offset from the carrier (MHz)", (1e3, 1e-6)),
        "green": ("first wave number", "second wave number", (1, 1)),
    }
    keys = [key for key in found if key.split("_")[0] in labels]
    keys = [key for key in keys if key != "green_0.5" or record.profile == "smoke"]
    figure, panels = plt.subplots(len(keys), 1, figsize=(4.8, 3.9 * len(keys)), squeeze=False)
    for axes, key in zip(panels[:, 0], keys):
        xlabel, ylabel, scale = labels[key.split("_")[0]]
        for a, b, c, d in found[key]["shape"]["boxes"]:
            x, y = [a, c, c, a, a], [b, b, d, d, b]
            axes.plot([scale[0] * v for v in x], [scale[1] * v for v in y], color=figures.GREY, lw=1)
        nodes = record.arrays[f"nodes_{key}".replace(".", "")] * scale
        axes.plot(*nodes.T, ".", color=figures.BLUE, ms=2.5, clip_on=False)
        axes.set(title=f"{found[key]['name']}: {found[key]['shape']['pieces']} pieces", xlabel=xlabel, ylabel=ylabel)
        axes.grid(visible=False)
    return figure


def span(pair: list[int]) -> str:
    """Return a range of numbers of nodes."""
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"


def shapes_table(record: Record) -> Table:
    """Tabulate the pieces and the nodes per axis."""
    rows = []
    for own in record.numbers["anisotropic"].values():
        found = own["shape"]
        each = " × ".join(span(pair) for pair in found["nodes"]) or "none: a sparse polynomial"
        met = "yes" if found["met"] else "no"
        rows.append([own["name"], f"{own['tol']:g}", str(found["pieces"]), each, met])
    return Table(["problem", "tolerance", "pieces", "nodes of a piece, axis by axis", "met"], rows)


def methods_table(record: Record) -> Table:
    """Tabulate exact solves and errors of all methods."""
    rows = []
    for own in record.numbers["anisotropic"].values():
        for name, row in own["rows"].items():
            if row["solves"] is None:
                rows.append([own["name"], name, "over the grids tried", "", "", "", ""])
                continue
            sides = f" = {' × '.join(map(str, row['sides']))}" if "sides" in row else ""
            rows.append(
                [
                    own["name"],
                    name,
                    f"{row['solves']:,}{sides}",
                    f"{row['terms']:,}",
                    f"{row['error']:.0e}",
                    f"{row['worst']:.0e}",
                    f"{100 * row['failing']:.1f} %",
                ]
            )
    return Table(["problem", "method", "exact solves", "terms", "error", "largest error", "above the tolerance"], rows)


def glue(record: Record) -> None:
    """Glue what the text says about all this."""
    found = record.numbers["anisotropic"]
    for key, own in found.items():
        label = f"sp-{key.replace('_', '-').replace('.', '')}"
        for name, short in {
            PIECES: "pieces",
            PERIODIC: "periodic",
            GLOBAL: "global",
            RADIAL: "radial",
            FEWEST: "fewest",
            STRETCHED: "stretched",
            WAVES: "waves",
            REDUCED: "reduced",
            TANGENTS: "tangents",
        }.items():
            if row := own["rows"].get(name):
                for what in ("solves", "terms", "error", "worst"):
                    value = row.get(what)
                    provenance.glue(f"{label}-{short}-{what}", float("nan") if value is None else value)
                provenance.glue(f"{label}-{short}-failing", 100 * row.get("failing", float("nan")))
        for i, pair in enumerate(own["shape"]["nodes"]):
            provenance.glue(f"{label}-axis-{i}", span(pair))
        provenance.glue(f"{label}-tol", own["tol"])
        provenance.glue(f"{label}-count", own["shape"]["pieces"])
        provenance.glue(f"{label}-met", "yes" if own["shape"]["met"] else "no")
        if key == "thermal_constant":
            provenance.glue("sp-thermal-times", thermal_times(found))
        if "span" in own:
            provenance.glue(f"{label}-span", own["span"])
        if "whole" in own:
            provenance.glue(f"{label}-whole", own["whole"]["solves"] or float("nan"))


def check(record: Record) -> None:
    """Assert what the text says of the fits to a tolerance."""
    for case in record.numbers["anisotropic"].values():
        rows = case["rows"]
        assert not case["shape"]["met"] or rows[PIECES]["failing"] <= 0.01, "met means met"
        if TANGENTS in rows:
            check_thermal(case)
    if record.profile != "smoke":
        check_sizes(record.numbers["anisotropic"])


def check_thermal(case: dict) -> None:
    """Assert what the text says of the reduced bases of a thermal block: both hold all solutions, and are exact."""
    rows = case["rows"]
    # In older records the plain basis had fewer solves than that space has dimensions.
    assert "span" in case, "take it again: make run CHAPTER=several_parameters PROFILE=study"
    assert rows[GLOBAL]["error"] < 1e-3, "one subspace holds all these temperatures"
    for name in (REDUCED, TANGENTS):
        assert rows[name]["terms"] >= case["span"], "a basis of all solutions"
        assert rows[name]["error"] < 1e-9 and rows[name]["failing"] == 0, "which is exact up to rounding"


def check_sizes(found: dict) -> None:
    """Assert what the text says of the fits to a tolerance at full size."""
    for key, case in found.items():
        rows = case["rows"]
        own, grid = rows[PIECES], rows.get(FEWEST)
        if TANGENTS in rows:
            least = min(row["solves"] for name, row in rows.items() if name not in (REDUCED, TANGENTS, ONCE))
            assert rows[TANGENTS]["solves"] < rows[REDUCED]["solves"] < least, "derivatives save solves"
            equation = (GLOBAL, REDUCED, TANGENTS)
            assert max(rows[name]["solves"] for name in equation) < 0.5 * own["solves"], "far fewer solves"
        suitable = [rows[name]["solves"] for name in (STRETCHED, WAVES) if name in rows]
        if suitable:
            assert rows[GLOBAL]["failing"] > 0.01, "the global map misses the tolerance where the axes differ"
            assert rows[GLOBAL]["solves"] >= min(suitable), "with as many solves as a suitable grid, or more"
        if WAVES in rows:
            assert not grid["solves"] or own["solves"] < grid["solves"], "fewer than a Chebyshev grid"
            assert RADIAL not in rows or rows[RADIAL]["error"] < 1.1 * own["error"], "radial functions as well"
            waves = rows[WAVES]["solves"] / own["solves"]
            assert waves < 0.8 if key == "green_0.5" else 0.8 < waves < 1.2, "fewer for the wide ridge, else as many"
        if STRETCHED in rows:
            assert rows[STRETCHED]["solves"] < own["solves"], "on the slot one grid takes fewer solves"
            assert own["terms"] < 0.5 * rows[STRETCHED]["terms"], "the pieces have fewer terms in a value"
            equal = [rows[name]["failing"] for name in (GLOBAL, "Chebyshev, equal sides", RADIAL)]
            assert min(equal) > 0.9, "with equal sides the tolerance is exceeded at nearly all parameters"
    waves = found["waves"]
    assert waves["shape"]["pieces"] == 1, "the oblique waves are not divided"
    assert waves["rows"][FEWEST]["solves"] <= waves["rows"][PIECES]["solves"], "nothing is gained over a grid there"
    slow, fast = (found[f"slot_{speed}"]["shape"]["nodes"] for speed in (3, 120))
    assert slow[0][1] < fast[0][0] and slow[0][1] < slow[1][0], "few nodes along time at walking speed"
