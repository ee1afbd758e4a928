"""Figures of the book: they read records and draw, and compute nothing that a reader would cite."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.mathtext import MathTextParser
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle
from matplotlib.scale import LogScale, register_scale
from matplotlib.text import Text
from matplotlib.ticker import LogFormatterSciNotation
from PIL import Image, ImageFilter
from scipy.optimize import isotonic_regression

from studies.provenance import Record

# Okabe and Ito's colours, which readers with any colour vision can tell apart.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#222222",
)
GREY = "#767676"
# What dark pages show instead, on their ground: as far apart, and at least 4.5 times as bright or dark as it.
NIGHT = {
    BLUE: "#5779E1",
    ORANGE: "#FFC764",
    GREEN: "#35B77A",
    RED: "#DD4B10",
    PURPLE: "#C091CE",
    SKY: "#ACCAFF",
    BLACK: "#E8E8E8",
    GREY: "#9A9A9A",
}
NIGHT_GROUND = "#121212"
# Inches, the widest figure, and points, the smallest text: a telephone's column of 328 px then shows it 8 px high.
WIDTH, SMALLEST = 5.0, 9
# Points of a text with indices, which matplotlib draws at 0.7 of its size.
INDEXED = 13
# Ticks such as 1e-16 that fit side by side.
ACROSS = 7
# Lines that a legend may hold; more are named where they end.
LINES = 4
# Pixels per inch of the images.
DPI = 144
# What is printed in the place of a figure whose times were refused.
UNDRAWN = "not drawn: its times were refused"


def plain(value: float) -> str:
    """Return a number without a raised exponent, which a telephone shows too small.

    Example:
        >>> [plain(value) for value in (1e-6, 2e-3, 0.01, 1.0, 512.0, 3e4)]
        ['1e-6', '2e-3', '0.01', '1', '512', '3e4']
    """
    if 0.01 <= abs(value) < 10_000:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


class _PlainTicks(LogFormatterSciNotation):
    """Names those ticks that matplotlib would name, in plain digits."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return plain(x) if super().__call__(x, pos) else ""


class _PlainLogScale(LogScale):
    """The logarithmic scale with these ticks."""

    name = "log"

    def __init__(self, *arguments: object, **options: object) -> None:
        # matplotlib 3.10 passes the axis, later ones do not, and they ask this signature.
        super().__init__(*arguments, **options)

    def set_default_locators_and_formatters(self, axis: Axis) -> None:
        super().set_default_locators_and_formatters(axis)
        if axis.axis_name == "x":
            axis.get_major_locator().set_params(numticks=ACROSS)
        axis.set_major_formatter(_PlainTicks(self.base))
        axis.set_minor_formatter(_PlainTicks(self.base, labelOnlyBase=self.subs is not None))


def style() -> None:
    """Set matplotlib's defaults for the book: size, fonts, colours, a light grid, a white ground, plain ticks."""
    register_scale(_PlainLogScale)
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.6),
            "figure.dpi": DPI,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "savefig.dpi": DPI,
            # A wide rim would make the text of a picture small.
            "savefig.pad_inches": 0.03,
            "font.size": 10,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK]),
            "grid.color": "#dddddd",
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
        }
    )


def _smallest(text: Text) -> float:
    """Return the points of the smallest glyph of a text: indices and exponents are smaller than the rest."""
    sizes = [text.get_fontsize()]
    for line in text.get_text().split("\n"):
        if is_math_text(line):
            glyphs = MathTextParser("path").parse(line, 72, text.get_fontproperties()).glyphs
            sizes += [glyph[1] for glyph in glyphs]
    return min(sizes)


def faults(figure: Figure) -> list[str]:
    """Return what readers cannot read: small text, long legends, and panels of many lines that no words name.

    Args:
        figure: As it is shown; it is laid out once more.
    """
    figure.draw_without_rendering()
    found = [f"it is wider than {WIDTH:g} inches"] if figure.get_figwidth() > WIDTH else []
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text())
    sizes = {text.get_text(): _smallest(text) for text in texts}
    found += [
        f"{text!r} has {size:.1f} points, less than {SMALLEST}" for text, size in sizes.items() if size < SMALLEST
    ]
    for legend in (*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))):
        handles = [h for h in legend.legend_handles if isinstance(h, Line2D) and h.get_linestyle() != "None"]
        if len(handles) > LINES:
            found.append(f"a legend has {len(handles)} lines, more than {LINES}: name them by `figures.name_lines`")
    for axes in figure.axes:
        drawn = [line for line in axes.lines if line.get_linestyle() != "None" and len(line.get_xdata()) > 2]
        bare = [line for line in drawn if str(line.get_label()).startswith("_")]
        if len(bare) > LINES and axes.axison and not (axes.get_title() or axes.texts):
            found.append(f"a panel has {len(bare)} lines without a label, more than {LINES}: title it")
    return found


@functools.cache
def _night_table() -> np.ndarray:
    """Return the colour of dark pages for each point of a grid of colours, (16, 16, 16, 3) in [0, 1].

    Ink on white paper becomes light on the dark ground: what a colour lacks of white is its opacity, and black turns
    into white. The palette and its mixtures with paper and black go where NIGHT says, other colours with their
    neighbours.
    """
    axis = np.linspace(0, 1, 16)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    ground, light, paper, black = (np.array(to_rgb(c)) for c in (NIGHT_GROUND, NIGHT[BLACK], "white", "black"))

    def inked(colours: np.ndarray) -> np.ndarray:
        opacity = 1 - colours.min(-1, keepdims=True)
        ink = (colours - 1 + opacity) / np.maximum(opacity, 1e-9)
        ink = ink + (1 - ink.max(-1, keepdims=True)) * light
        return opacity * ink + (1 - opacity) * ground

    days, nights = [paper, black], [ground, light]
    for day, night in ((np.array(to_rgb(c)) for c in pair) for pair in NIGHT.items()):
        for share in (0.25, 0.5, 0.75, 1):
            days.append(share * day + (1 - share) * paper)
            nights.append(share * night + (1 - share) * ground)
        days.append(0.5 * day + 0.5 * black)
        nights.append(0.5 * night + 0.5 * light)
    days, nights = np.array(days), np.array(nights)
    distances = np.linalg.norm(grid[:, None] - days, axis=-1)
    # Near a colour of the palette its own shift counts; the power keeps each local.
    weights = 1 / np.maximum(distances, 1e-6) ** 4
    shift = weights @ (nights - inked(days)) / weights.sum(1, keepdims=True)
    return np.clip(inked(grid) + shift, 0, 1).reshape(16, 16, 16, 3)


def night(pixels: np.ndarray) -> np.ndarray:
    """Return a figure as dark pages show it.

    Args:
        pixels: Colours of the figure on white, (height, width, 3), uint8.

    Returns:
        Colours of the same shape and dtype: the ground of dark pages instead of white, light text, the palette NIGHT.

    Example:
        >>> night(np.full((1, 1, 3), 255, np.uint8)).tolist()
        [[[18, 18, 18]]]
    """
    table = (_night_table() * 255).round().astype(np.uint8)
    flat = [channel for colour in table.transpose(2, 1, 0, 3).reshape(-1, 3) for channel in colour / 255]
    lookup = ImageFilter.Color3DLUT(16, flat)
    return np.asarray(Image.fromarray(pixels).filter(lookup))


def night_svg(text: str) -> str:
    """Return an SVG of matplotlib's as dark pages show it, as :func:`night` does with pixels.

    What has no colour is black.

    Example:
        >>> night_svg('<svg width="1"><path style="fill: #ffffff"/></svg>')
        '<svg fill="#e8e8e8" width="1"><path style="fill: #121212"/></svg>'
    """

    @functools.cache
    def turned(colour: str) -> str:
        return "#" + night(np.array([[list(bytes.fromhex(colour[1:]))]], np.uint8)).tobytes().hex()

    return re.sub(r"#[0-9a-f]{6}(?=[;\"])", lambda found: turned(found[0]), text).replace(
        "<svg ", f'<svg fill="{NIGHT[BLACK].lower()}" ', 1
    )


def ticks_at(axes: Axes, x: Sequence[float]) -> None:
    """Put ticks of the horizontal axis at these values alone."""
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()


def times_as_fast(axes: Axes, factors: Sequence[float]) -> None:
    """Make the vertical axis one of how many times as fast something is, with a line where it wins no more."""
    axes.axhline(1, color=RED, lw=1.2, ls="--")
    axes.set_ylabel("times as fast")
    axes.set_yticks(factors, [f"{value:g}" for value in factors])


def stacked(count: int, height: float, **options: object) -> tuple[Figure, np.ndarray]:
    """Return a figure of panels one below the other, as telephones need them, each so many inches high."""
    figure, panels = plt.subplots(count, 1, figsize=(WIDTH, height * count), squeeze=False, **options)
    return figure, panels[:, 0]


def name_lines(axes: Axes, lines: Sequence[Line2D]) -> None:
    """Write the label of each line beside the axes, in place of a legend: readers look no colour up.

    A leader goes to the last point that the panel shows. Names keep the order of these points and a line's height of
    distance. Call it last, when the limits of the axes are set.
    """
    axes.figure.draw_without_rendering()
    (left, right), (bottom, top) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    ends, named = [], []
    for line in lines:
        x, y = (np.asarray(values, float) for values in line.get_data())
        seen = (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
        # Times that were not taken are no line, and what has no label has no name.
        if seen.any() and not str(line.get_label()).startswith("_"):
            ends.append((float(x[seen][-1]), float(y[seen][-1])))
            named.append(line)
    if not named:
        return
    lines = named
    across, heights = axes.transAxes.inverted().transform(axes.transData.transform(ends)).T
    # A line of text and a little air, as a fraction of the panel; lines whose names do not fit above go on below.
    room = 1.25 * SMALLEST / 72 * axes.figure.dpi / axes.get_window_extent().height
    # Of lines that end at one height the last is the lowest, so that no leader crosses another.
    order = np.lexsort((-across, heights))
    spread = room * np.arange(len(lines))
    # The nearest places that keep the order and the distance.
    places = isotonic_regression(heights[order] - spread).x + spread
    places -= max(0.0, min(places[-1] - 1, places[0]))
    for i, place in zip(order, places):
        axes.annotate(
            lines[i].get_label(),
            ends[i],
            xytext=(1.05, place),
            textcoords="axes fraction",
            va="center",
            fontsize=SMALLEST,
            arrowprops={
                "arrowstyle": "-",
                "color": lines[i].get_color(),
                # Through the panel a leader is finer, so that nobody takes it for the line itself.
                "lw": 1.2 if across[i] > 0.95 else 0.6,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def mapping() -> Figure:
    """Draw the map X(p) = C x_3 Phi(p) with its shapes: parameter, embedding, latent tensor, result."""
    figure, axes = plt.subplots(figsize=(WIDTH, 2.2))
    axes.set(xlim=(0, 100), ylim=(3, 38), aspect="equal")
    axes.axis("off")

    def label(x: float, y: float, text: str, **options: object) -> None:
        axes.text(x, y, text, ha="center", va="center", **{"fontsize": 10, **options})

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=BLACK, lw=1.2))

    def box(x: float, y: float, width: float, height: float, colour: str) -> None:
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, alpha=0.35, edgecolor=BLACK, lw=1.0))

    box(2, 19, 4, 4, GREY)
    label(4, 28, "$p$")
    label(4, 14, "parameter\n$(d)$", fontsize=SMALLEST)
    arrow((7, 21), (13, 21))
    box(14, 13, 15, 16, SKY)
    label(21.5, 21, "sine\nnetwork", fontsize=SMALLEST)
    label(21.5, 33, "embedding $\\Phi$")
    arrow((30, 21), (36, 21))
    for i in range(6):
        box(37, 13 + 16 / 6 * i, 3, 16 / 6, BLUE)
    label(38.5, 33, "$\\Phi(p)$")
    label(38.5, 8.5, "$(r)$", fontsize=SMALLEST)
    label(46, 21, "$\\times_3$", fontsize=13)
    for i in reversed(range(6)):
        shift = 1.3 * i
        axes.add_patch(Rectangle((51 + shift, 10 + shift), 15, 15, facecolor="#f3d9a3", edgecolor=BLACK, lw=0.9))
    axes.add_patch(
        Polygon([(66, 10), (72.5, 16.5), (72.5, 31.5), (66, 25)], facecolor=ORANGE, alpha=0.45, edgecolor="none")
    )
    label(62, 35.5, "latent tensor $C$")
    label(61, 5.5, "(rows, columns, $r$)", fontsize=SMALLEST)
    label(58.5, 17.5, "$C_{:,:,k}$", fontsize=INDEXED)
    label(78, 21, "$=$", fontsize=13)
    box(82, 13.5, 15, 15, GREEN)
    label(89.5, 21, "$X(p)$")
    label(89.5, 33, "result")
    label(89.5, 8.5, "(rows, columns)", fontsize=SMALLEST)
    return figure


def singular_values(decays: Mapping[str, np.ndarray], rank: int) -> Figure:
    """Plot the limits of Eckart and Young against the rank, one line per family; ``decays`` holds ranks 1, 2, ..."""
    figure, axes = plt.subplots()
    for (name, limits), marker in zip(decays.items(), "os^Dv"):
        ranks = np.arange(1, len(limits) + 1)
        axes.semilogy(ranks, limits, marker=marker, markevery=4, ms=4, label=name)
    axes.axvline(rank, color=GREY, lw=1, ls=":")
    axes.annotate(
        f"$r = {rank}$",
        (rank, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        color=GREY,
    )
    axes.set(xlabel="rank $r$", ylabel="smallest relative error")
    axes.legend()
    return figure


def training(record: Record) -> Figure:
    """Plot the loss and, round by round, the estimated failure probability of one fit."""
    report = record.numbers["report"]
    figure, (above, below) = stacked(2, 2.5, sharex=True)
    above.semilogy(report["steps"], report["losses"], color=BLUE)
    above.set(ylabel="training loss")
    rounds = report["rounds"]
    steps = [entry["step"] for entry in rounds]
    probabilities = [entry["failure_probability"] for entry in rounds]
    errors = [2 * entry["standard_error"] for entry in rounds]
    below.errorbar(
        steps, probabilities, errors, color=ORANGE, marker="o", ms=4, capsize=3, label="estimate, 2 standard errors"
    )
    below.axhline(report["settings"]["failure_probability"], color=GREY, ls="--", lw=1.2, label="target")
    below.set(xlabel="optimiser step", ylabel="failure probability", yscale="log", ylim=(1e-4, 2))
    figure.legend(*below.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=SMALLEST)
    return figure


def error_along_parameter(record: Record, *, xlabel: str) -> Figure:
    """Plot the error along the parameter beside the best map of the same rank, and the collocation points below."""
    arrays, numbers = record.arrays, record.numbers
    figure, (axes, rug) = plt.subplots(2, 1, figsize=(WIDTH, 5.2), sharex=True, height_ratios=(5, 2))
    axes.semilogy(arrays["p"], arrays["error"], color=BLUE, label="gradient training")
    axes.semilogy(arrays["p"], arrays["closed_form_error"], color=ORANGE, label="closed form")
    axes.semilogy(
        arrays["p"],
        arrays["best_error"],
        color=GREEN,
        ls="--",
        label=f"best map of rank {numbers['rank']} (Eckart-Young)",
    )
    axes.set(ylabel="relative error of $X(p)$")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=SMALLEST)
    rug.plot(arrays["initial"], np.zeros_like(arrays["initial"]), "|", color=GREY, ms=9)
    rug.plot(arrays["added"], arrays["added_round"], "|", color=ORANGE, ms=9)
    rounds = int(arrays["added_round"].max(initial=0))
    rug.set(xlabel=xlabel, ylabel="points by round", ylim=(-0.7, rounds + 0.7), yticks=range(rounds + 1))
    rug.set_yticklabels(["start", *range(1, rounds + 1)], fontsize=SMALLEST)
    rug.grid(visible=False)
    return figure


def band(record: Record, names: Sequence[str]) -> Figure:
    """Plot error and residual along the frequency band, one panel per channel."""
    figure, panels = stacked(len(names), 2.7, sharex=True, sharey=True)
    for axes, name in zip(panels, names):
        f = record.arrays[f"{name}_frequency"] / 1e6
        axes.semilogy(f, record.arrays[f"{name}_residual"], color=ORANGE, lw=1.0, label="relative residual of $AX = I$")
        axes.semilogy(f, record.arrays[f"{name}_error"], color=BLUE, lw=1.0, label="relative error of $X$")
        if f"{name}_closed_error" in record.arrays:
            axes.semilogy(
                f, record.arrays[f"{name}_closed_error"], color=BLACK, lw=2.2, label="error of the closed form"
            )
        axes.semilogy(
            f,
            record.arrays[f"{name}_best_error"],
            color=GREEN,
            lw=1.0,
            ls="--",
            label="error of the best map of this rank",
        )
        axes.set(title=name.upper().replace("_", "-"), ylabel="relative size")
    panels[-1].set_xlabel("offset from the carrier (MHz)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=SMALLEST)
    return figure


def undrawn() -> Figure:
    """Return a figure that says that there are no times to draw; what is printed changes its caption on the page."""
    print(UNDRAWN)
    figure, axes = plt.subplots(figsize=(WIDTH, 0.6))
    axes.text(0.5, 0.5, "No time is published here.", ha="center", va="center", color=GREY)
    axes.axis("off")
    return figure


def total_time(record: Record, name: str, maps: Mapping[str, tuple[str, str]]) -> Figure:
    """Plot total time against the number of matrices, fit included, in units of one inversion by NumPy.

    ``maps``: for each line of a map, its label, the name of its time per matrix, and the prefix of its fit and
    break-even points in the record. Lines are medians; a bar joins the quartiles of a break-even point.
    """
    numbers = record.numbers[name]
    relative = {key: median for key, (_, median, _) in numbers["relative_time"].items()}
    if np.isnan(relative["NumPy loop"]):
        return undrawn()
    counts = np.logspace(1, 9, 200)
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4))
    styles = {
        "NumPy loop": (BLACK, "-"),
        "NumPy batched": (ORANGE, "--"),
        "Sionna, Cholesky": (RED, "-."),
        "torch, Cholesky": (GREEN, ":"),
    }
    drawn = []
    for method, (colour, line) in styles.items():
        drawn += axes.loglog(counts, counts * relative[method], color=colour, ls=line, lw=1.2, label=method)
    colours, lines = (SKY, BLUE, PURPLE, GREY, BLACK), ("-", "-", (0, (4, 1)), "-", (0, (1, 1)))
    for (label, (method, prefix)), colour, line in zip(maps.items(), colours, lines):
        total = numbers[f"{prefix}fit_in_inversions"][1] + counts * relative[method]
        drawn += axes.loglog(counts, total, color=colour, ls=line, lw=2.2, label=label)
        for exact, (edge, _) in styles.items():
            low, count, high = numbers[f"{prefix}break_even"][exact]
            if counts[0] < count < counts[-1]:
                ends = [low, min(high, counts[-1])]
                axes.plot(ends, [count * relative[exact]] * 2, color=edge, lw=1, zorder=3)
                axes.plot(count, count * relative[exact], "o", color=edge, ms=5, mfc="white", zorder=3)
    axes.axvline(numbers["count"], color=GREY, ls=":", lw=1)
    axes.annotate(
        "this band",
        (numbers["count"], 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        color=GREY,
    )
    axes.set(xlabel="number of matrices", ylabel="total time (inversions by NumPy)")
    name_lines(axes, drawn)
    return figure


def error_against_rank(record: Record, names: Mapping[str, str]) -> Figure:
    """Plot errors against the rank beside the limit of Eckart and Young, one panel per family; ``names``: titles."""
    figure, panels = stacked(len(names), 3.0)
    for axes, (name, title) in zip(panels, names.items()):
        numbers, arrays = record.numbers[name], record.arrays
        limits = arrays[f"{name}_limits"]
        axes.semilogy(
            np.arange(1, len(limits) + 1), limits, color=GREEN, lw=4, alpha=0.45, label="limit (Eckart-Young)"
        )
        ranks = arrays[f"{name}_ranks"]
        axes.semilogy(ranks, arrays[f"{name}_errors_closed"], "o", color=BLUE, ms=6, mfc="none", label="closed form")
        axes.semilogy(
            ranks, arrays[f"{name}_errors_network"], "x", color=BLACK, ms=5, label="closed form, sine network"
        )
        axes.semilogy(
            numbers["rank"],
            numbers["residual_only"]["error"],
            "+",
            color=RED,
            ms=11,
            mew=1.8,
            label="closed form, residual alone",
        )
        if numbers["trained_error"] is not None:
            axes.semilogy(
                numbers["rank"],
                numbers["trained_error"],
                "s",
                color=ORANGE,
                ms=6,
                label="gradient training (best of the search)",
            )
        axes.set(title=title, ylabel="relative error")
    panels[-1].set_xlabel("rank $r$")
    lines = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=2, fontsize=SMALLEST)
    return figure


def error_against_solves(record: Record, names: Mapping[str, str]) -> Figure:
    """Plot errors against the number of exact solves, one panel per family, with the limit of the rank."""
    figure, panels = stacked(len(names), 3.0)
    styles = {
        "closed form": (BLUE, "o-"),
        "POD and spline": (SKY, "D--"),
        "Chebyshev": (ORANGE, "s:"),
        "cubic spline": (RED, "^-."),
        "AAA": (PURPLE, "v--"),
    }
    for axes, (name, title) in zip(panels, names.items()):
        solves = record.arrays[f"{name}_solves"]
        lines = []
        for i, (method, (colour, line)) in enumerate(styles.items()):
            errors = record.arrays[f"{name}_errors_by_solves"][i]
            lines += axes.loglog(solves, errors, line, color=colour, ms=4, label=method)
        axes.axhline(record.numbers[name]["limit"], color=GREEN, lw=4, alpha=0.45, zorder=1, label="limit of the rank")
        axes.set_xticks(solves[::2], [str(n) for n in solves[::2]])
        axes.minorticks_off()
        axes.set(title=title, ylabel="relative error", xlabel="exact solves")
        name_lines(axes, lines)
    limit = panels[0].get_legend_handles_labels()
    figure.legend([limit[0][-1]], [limit[1][-1]], loc="outside lower center", fontsize=SMALLEST)
    return figure


def pieces(record: Record, panels: Mapping[str, Mapping[str, str]]) -> Figure:
    """Plot errors of maps in pieces against the slices they store, beside the limits; panels: title, name, label."""
    figure, all_axes = stacked(len(panels), 3.0, sharex=True, sharey=True)
    for axes, (title, names) in zip(all_axes, panels.items()):
        for (name, label), colour in zip(names.items(), (BLUE, ORANGE, PURPLE)):
            numbers, limits = record.numbers["pieces"][name], record.arrays[f"pieces_{name}_limits"]
            axes.loglog(np.arange(1, len(limits) + 1), limits, color=colour, lw=4, alpha=0.35)
            axes.loglog(numbers["rank"], numbers["whole_error"], "s", color=colour, mfc="white", ms=6)
            slices, errors = ([fit[key] for fit in numbers["fits"]] for key in ("slices", "error"))
            axes.loglog(slices, errors, "o-", color=colour, ms=4.5, label=label)
        axes.set(title=title, ylabel="relative error")
        axes.legend(loc="upper right", fontsize=SMALLEST)
        axes.set_ylim(1e-7, 2)
    all_axes[-1].set_xlabel("slices stored")
    marks = [
        plt.Line2D([], [], color=GREY, lw=4, alpha=0.5, label="limit of as many slices"),
        plt.Line2D([], [], color=GREY, marker="s", mfc="white", ls="", label="one map for the box"),
        plt.Line2D([], [], color=GREY, marker="o", ms=4.5, label="map in pieces"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, fontsize=SMALLEST)
    return figure


def local_functions(record: Record, *, xlabel: str) -> Figure:
    """Plot the functions Phi of a map in pieces along the parameter, with cuts and nodes."""
    arrays = record.arrays
    x, phi, cuts = arrays["local_x"], arrays["local_phi"], arrays["local_cuts"]
    figure, axes = plt.subplots(figsize=(WIDTH, 2.6))
    for k, values in enumerate(phi.T):
        shown = np.where(values == 0, np.nan, values)
        axes.plot(x, shown, lw=1.1, color=(BLUE, ORANGE, GREEN, SKY, PURPLE)[k % 5])
    for cut in cuts:
        axes.axvline(cut, color=BLACK, lw=1.0, ls="--")
    axes.plot(arrays["local_nodes"], np.zeros(len(arrays["local_nodes"])), "o", color=BLACK, ms=3.5, zorder=3)
    axes.set(xlabel=xlabel, ylabel="entries of $\\Phi$", title=f"{phi.shape[1]} entries; colours repeat")
    return figure


def search(record: Record, family: str) -> Figure:
    """Plot the error of every trial of the search against its steps, with the limit of the rank."""
    trials = [trial for trial in record.numbers["trials"] if trial["family"] == family]
    figure, axes = plt.subplots()
    axes.loglog(
        [t["steps"] for t in trials], [t["error"] for t in trials], "o", color=BLUE, mfc="none", ms=5, label="one trial"
    )
    steps = sorted({t["steps"] for t in trials})
    best = [min(t["error"] for t in trials if t["steps"] == s) for s in steps]
    axes.loglog(steps, best, color=BLUE, label="best of its length")
    axes.axhline(record.numbers[f"{family}_limit"], color=GREEN, ls="--", label="limit of Eckart and Young")
    axes.set(xlabel="optimiser steps", ylabel="relative error")
    figure.legend(loc="outside lower center", ncols=2, fontsize=SMALLEST)
    return figure


# How times beside exact methods are marked: after the fit, with it, and of a spline with its exact solves.
SPEED_MARKS = {
    "map, after its fit": (SKY, "o"),
    "map, with its fit counted": (BLUE, "D"),
    "spline, with its fit counted": (GREEN, "s"),
}


def _speeds(axes: Axes, rows: Sequence[tuple[str, Sequence[Sequence[float] | None]]]) -> None:
    """Draw a row for each problem: its ratios as dots over bars from quartile to quartile, and a line at one."""
    for i, (_, ratios) in enumerate(rows):
        for ratio, (colour, mark) in zip(ratios, SPEED_MARKS.values()):
            if ratio is not None:
                axes.plot([ratio[0], ratio[2]], [i, i], color=colour, lw=3, alpha=0.5)
                axes.plot(ratio[1], i, mark, color=colour, ms=5)
    axes.axvline(1, color=RED, lw=1.2, ls="--")
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=SMALLEST)
    axes.invert_yaxis()


def _speed_legend(figure: Figure, names: Sequence[str], columns: int) -> None:
    marks = [plt.Line2D([], [], color=c, marker=m, ls="", ms=5) for c, m in SPEED_MARKS.values()]
    figure.legend(marks[: len(names)], names, loc="outside lower center", ncols=columns, fontsize=SMALLEST)


def speed_ups(
    rows: Sequence[tuple[str, str, Sequence[float], Sequence[float]]], xlabel: str = "times as fast as the exact method"
) -> Figure:
    """Plot how much faster maps are than other methods, after the fit and with it, with the quartiles.

    Args:
        rows: Problem, other method, and both ratios as quartile, median and quartile.
        xlabel: The label of the axis.
    """
    lines = []
    for i, (problem, method, *ratios) in enumerate(rows):
        lines += [] if i and problem == rows[i - 1][0] else [(problem, [])]
        lines.append((method, ratios))
    figure, axes = plt.subplots(figsize=(WIDTH, 0.6 + 0.25 * len(lines)))
    _speeds(axes, lines)
    for label, (_, ratios) in zip(axes.get_yticklabels(), lines):
        label.set_weight("normal" if ratios else "bold")
    axes.set(xlabel=xlabel)
    _speed_legend(figure, ["after the fit", "with the fit counted"], 2)
    return figure


def answers(
    panels: Mapping[str, Sequence[tuple[str, Sequence[float], Sequence[float], Sequence[float] | None]]],
) -> Figure:
    """Plot how many times as fast as the strongest exact method maps and splines are, one panel below the other.

    Args:
        panels: Title -> rows: problem, the map after its fit, with it, and a spline with it (None: not timed), each as
            quartile, median and quartile.
    """
    heights = [len(rows) + 1 for rows in panels.values()]
    figure, axes = plt.subplots(
        len(panels), 1, sharex=True, squeeze=False, height_ratios=heights, figsize=(WIDTH, 1 + 0.25 * sum(heights))
    )
    for panel, (title, rows) in zip(axes[:, 0], panels.items()):
        _speeds(panel, [(name, ratios) for name, *ratios in rows])
        panel.set_title(title, loc="left", fontsize=10)
        panel.tick_params("y", labelsize=10)
    low, high = panel.get_xlim()
    ticks = [m * 10.0**e for e in range(-4, 4) for m in (1, 3) if low <= m * 10.0**e <= high]
    panel.set_xticks(ticks, [f"{x:g}" for x in ticks], fontsize=SMALLEST)
    panel.minorticks_off()
    panel.set_xlabel("times as fast as the strongest exact method", fontsize=SMALLEST)
    _speed_legend(figure, list(SPEED_MARKS), 2)
    return figure
