"""Pictures of surrogates and reports with matplotlib, which is needed here only; they read what others computed."""

from __future__ import annotations

import numpy as np
import torch

from neumatc import checks

# Colour-blind safe: residuals, errors, the tolerance, events, and places where the tolerance is not met.
_RESIDUAL, _ERROR, _TOL, _EVENT, _UNMET = "#0072B2", "#D55E00", "#666666", "#009E73", "#CC3311"
# Least value that is drawn on a logarithmic axis: an exact zero is below it.
_TINY = 1e-17
# Part of the largest value below which colours do not change.
_SHOWN = 1e-6
# Events that are written out; the others are lines only.
_LABELLED = 6


def axes(ax: object) -> object:
    """Return the Axes given, or new ones, as large as matplotlib's settings say."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError("plots: expected matplotlib, got none; install it with `pip install matplotlib`.") from None
    return pyplot.subplots(layout="constrained")[1] if ax is None else ax


def rounds(report: object, ax: object) -> object:
    """Plot the residuals of a report's rounds."""
    checks.require(report.rounds, "report", "rounds with residuals", "none", "fit with a check, or plot the surrogate")
    ax, entries = axes(ax), report.rounds
    solves = len({entry.exact_solves for entry in entries}) > 1 or not any(entry.step for entry in entries)
    x = [entry.exact_solves if solves else entry.step for entry in entries]
    for name, colour, style in (("max", _RESIDUAL, "o-"), ("median", _ERROR, "s--")):
        y = [max(getattr(entry, f"residual_{name}"), _TINY) for entry in entries]
        ax.plot(x, y, style, color=colour, label=f"residual, {'largest' if name == 'max' else name}")
    _tolerance(ax, report.tol)
    ax.set(xlabel="exact solves" if solves else "optimiser steps", ylabel="relative residual", yscale="log")
    ax.legend()
    return ax


def surrogate(own: object, problem: object, points: int, exact: bool, ax: object) -> object:
    """Plot a surrogate: what is measured at parameters over its box, pieces, nodes and events."""
    good, remedy = problem is None or hasattr(problem, "residual"), "pass that of the fit"
    checks.require(good, "problem", "an nm.Problem", checks.describe(problem), remedy)
    checks.require(
        problem is not None or not exact, "problem", "an nm.Problem to solve exactly", "None", "give the problem"
    )
    draw = {1: _curves, 2: _map}.get(own.box.dimension, _terms)
    return draw(own, problem, points, exact, axes(ax))


def _measured(own: object, problem: object, p: torch.Tensor, exact: bool) -> dict[str, np.ndarray]:
    """Return what is plotted at parameters p, by its name."""
    value = own(p)
    if problem is None:
        first = value if isinstance(value, torch.Tensor) else value[0]
        found = {f"norm of {own.maps[0].name}": first.flatten(1).norm(dim=1)}
    else:
        found = {"residual": problem.residual(p, value)}
        if exact:
            found["error"] = problem.error(p, value)
    arrays = {name: y.double().cpu().numpy() for name, y in found.items()}
    return {name: np.where(np.isfinite(y), np.maximum(y, _TINY), np.nan) for name, y in arrays.items()}


def _centres(count: int) -> torch.Tensor:
    """Centres of equal parts of [-1, 1]: not the ends, which are nodes."""
    return (2 * torch.arange(count, dtype=torch.float64) + 1) / count - 1


def _labelled(box: object) -> list[str]:
    return [f"{name} [{unit}]" if unit else name for name, unit in zip(box.names, box.units)]


def _tolerance(ax: object, tol: float | None) -> None:
    if tol is not None:
        ax.axhline(tol, color=_TOL, linestyle=":", label=f"tolerance {tol:g}")


def _curves(own: object, problem: object, points: int, exact: bool, ax: object) -> object:
    box, report, pieces, foot = own.box, own.report, own.pieces, ax.get_xaxis_transform()
    p = box.parameters(_centres(points)[:, None])
    for (name, y), colour in zip(_measured(own, problem, p, exact).items(), (_RESIDUAL, _ERROR)):
        ax.plot(p[:, 0].cpu().numpy(), y, color=colour, label=name)
    _tolerance(ax, None if problem is None else report.tol)
    for k, piece in enumerate(pieces):
        if k % 2:
            ax.axvspan(piece.lower[0], piece.upper[0], color=_TOL, alpha=0.15, linewidth=0, zorder=0)
        for nodes in piece.nodes:
            rug = {"color": "black", "transform": foot, "label": None if k else "nodes"}
            ax.plot(nodes, np.full(len(nodes), 0.015), "|", **rug)
    for k, place in enumerate(report.unmet):
        style = {"color": _UNMET, "alpha": 0.3, "linewidth": 1, "label": None if k else "not met"}
        ax.axvspan(place.lower[0], place.upper[0], **style)
    for k, event in enumerate(report.events):
        ax.axvline(event.parameter[0], color=_EVENT, linewidth=1, linestyle="--")
        if k < _LABELLED:
            style = {"rotation": 90, "va": "top", "ha": "right", "fontsize": "small", "color": _EVENT}
            ax.text(event.parameter[0], 0.98, str(event).partition(" at ")[0], transform=foot, **style)
    ylabel = (
        "relative residual and error" if exact else "relative residual" if problem else f"norm of {own.maps[0].name}"
    )
    ax.set(xlabel=_labelled(box)[0], ylabel=ylabel, xscale=box.scale[0], yscale="log", title=_title(pieces))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax


def _map(own: object, problem: object, points: int, exact: bool, ax: object) -> object:
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    box, report, pieces, side = own.box, own.report, own.pieces, max(2, round(points**0.5))
    p = box.parameters(torch.cartesian_prod(_centres(side), _centres(side)))
    *_, (name, z) = _measured(own, problem, p, exact).items()
    x, y, z = (values.reshape(side, side) for values in (*p.T.cpu().numpy(), z))
    least, most = np.nanmin(z), np.nanmax(z)
    norm = LogNorm(max(least, most * _SHOWN), max(most, least * 1.01))
    shades = ax.pcolormesh(x, y, z, norm=norm, shading="nearest", cmap="Blues", rasterized=True)
    goal = f" (tolerance {report.tol:g})" if problem and report.tol else ""
    ax.figure.colorbar(shades, ax=ax, label=f"relative {name}{goal}" if problem else name)
    for place, colour in [*((piece, "black") for piece in pieces), *((place, _UNMET) for place in report.unmet)]:
        sides = (high - low for low, high in zip(place.lower, place.upper))
        ax.add_patch(Rectangle(place.lower, *sides, fill=False, edgecolor=colour))
    for piece in pieces:
        if piece.nodes:
            ax.plot(*map(np.ravel, np.meshgrid(*piece.nodes)), ".", color="black", markersize=2)
    for event in report.events:
        ax.plot(*event.parameter, "x", color=_EVENT)
    (xlabel, ylabel), (xscale, yscale) = _labelled(box), box.scale
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale, title=_title(pieces))
    return ax


def _terms(own: object, problem: object, points: int, exact: bool, ax: object) -> object:
    pieces = own.pieces
    ax.bar(range(1, len(pieces) + 1), [piece.terms for piece in pieces], color=_RESIDUAL)
    ax.set(xlabel="piece", ylabel="terms", title=_title(pieces))
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def _title(pieces: list) -> str:
    terms = max(piece.terms for piece in pieces)
    return f"{len(pieces)} pieces of at most {terms} terms" if len(pieces) > 1 else f"one map of {terms} terms"
