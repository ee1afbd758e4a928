"""Figures: their colours for eyes of every kind by day and by night, and text that a telephone shows."""

import itertools
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text

mpl.use("Agg")

from studies import figures
from studies.provenance import Record

ROOT = Path(__file__).parents[1]
PALETTE = (figures.BLUE, figures.ORANGE, figures.GREEN, figures.RED, figures.PURPLE, figures.SKY, figures.BLACK)
# Machado, Oliveira and Fernandes (2009), severity 1, in linear RGB.
VISION = {
    "normal": np.eye(3),
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
# A tenth in OKLab is the step between neighbours of a ten-step scale of grey; Okabe and Ito's closest pair has 0.076.
DISTANCE = 0.07


def linear(colour):
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    cones = np.cbrt(np.array([*cones, [0.0883024619, 0.2817188376, 0.6299787005]]) @ np.clip(rgb, 0, 1))
    rows = [[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099]]
    return np.array([*rows, [0.0259040371, 0.7827717662, -0.808675766]]) @ cones


def luminance(colour):
    return linear(colour) @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("time", ["day", "night"])
def test_eyes_of_every_kind_tell_the_colours_apart(vision, time):
    colours = PALETTE if time == "day" else [figures.NIGHT[c] for c in PALETTE]
    seen = [oklab(np.array(VISION[vision]) @ linear(c)) for c in colours]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > DISTANCE


@pytest.mark.parametrize("colour", figures.NIGHT)
def test_night_turns_the_palette_into_its_own(colour):
    pixel = (255 * np.array(to_rgb(colour))).round().astype(np.uint8)[None, None]
    found = figures.night(pixel)[0, 0].astype(int)
    assert np.abs(found - 255 * np.array(to_rgb(figures.NIGHT[colour]))).max() < 8


@pytest.mark.parametrize("colour", figures.NIGHT)
def test_colours_of_the_night_are_bright_on_its_ground(colour):
    assert contrast(figures.NIGHT[colour], figures.NIGHT_GROUND) >= 4.5


def test_text_has_contrast_by_day():
    assert min(contrast(figures.BLACK, "white"), contrast(figures.GREY, "white")) >= 4.5


def test_paper_and_edges_become_the_ground():
    """An edge between ink and paper must not shine: half ink is half as bright."""
    shades = np.linspace(255, 0, 6).astype(np.uint8)[None, :, None].repeat(3, 2)
    found = figures.night(shades)[0, :, 0].astype(int)
    assert to_hex(figures.night(shades)[0, 0] / 255) == figures.NIGHT_GROUND
    assert (np.diff(found) > 0).all()


def test_the_interactive_figures_have_the_same_colours():
    css = (ROOT / "book" / "_static" / "style.css").read_text("utf-8")
    found = [value.lower() for value in re.findall(r"--c\d: (#\w+);", css)]
    day = [figures.BLUE, figures.RED, figures.GREEN, figures.PURPLE]
    assert found == [c.lower() for c in (*day, *(figures.NIGHT[c] for c in day))]


# Of an annotation, the words without the line that leads to them: Text.get_window_extent.


def narrow_text(figure):
    """Texts below the size that a telephone shows as 8 px."""
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text())
    return [text.get_text() for text in texts if text.get_fontsize() < figures.SMALLEST]


def test_a_telephone_shows_the_smallest_text():
    assert 328 / (72 * figures.WIDTH) * figures.SMALLEST >= 8


@pytest.fixture
def drawn():
    figures.style()
    yield
    figures.plt.close("all")


def costs():
    names = ("NumPy loop", "NumPy batched", "Sionna, Cholesky", "torch, Cholesky", "closed form", "cubic spline")
    return {
        "relative_time": {name: [x, x, x] for name, x in zip(names, (1, 0.9, 0.6, 0.4, 0.08, 0.07))},
        "count": 3276,
        "a_fit_in_inversions": [380.0, 400.0, 420.0],
        "b_fit_in_inversions": [190.0, 200.0, 210.0],
        "a_break_even": {key: [900.0, 1000.0, 1100.0] for key in names[:4]},
        "b_break_even": {key: [450.0, 500.0, 550.0] for key in names[:4]},
    }


def test_total_time_names_its_lines_where_they_end(drawn):
    record = Record("a", profile="smoke", device="cpu", seed=0, numbers={"x": costs()})
    figure = figures.total_time(record, "x", {"one": ("closed form", "a_"), "two": ("cubic spline", "b_")})
    figure.draw_without_rendering()
    (axes,) = figure.axes
    names = [text for text in axes.texts if text.get_text() in ("NumPy loop", "Sionna, Cholesky", "one", "two")]
    boxes = sorted((Text.get_window_extent(text) for text in names), key=lambda box: box.y0)
    assert len(names) == 4
    assert all(below.y0 < above.y0 for below, above in itertools.pairwise(boxes))
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert figure.legends == []
    assert narrow_text(figure) == []


def test_a_line_of_times_that_were_not_taken_has_no_name(drawn):
    _, axes = figures.plt.subplots()
    lines = [axes.plot([0, 1], [0, end], label=str(end))[0] for end in (1.0, float("nan"))]
    lines[1].set_ydata([float("nan")] * 2)
    figures.name_lines(axes, lines)
    assert [text.get_text() for text in axes.texts] == ["1.0"]


def test_a_line_without_a_label_has_no_name(drawn):
    axes = figures.plt.subplots()[1]
    axes.plot([0, 1], [0, 1], label="a")
    axes.plot([0, 1], [1, 0], "o")
    figures.name_lines(axes, axes.lines)
    assert [text.get_text() for text in axes.texts] == ["a"]


def test_a_line_that_leaves_the_panel_is_named_where_it_was_seen_last(drawn):
    axes = figures.plt.subplots()[1]
    lines = [axes.plot([0, 1, 2, 3], [3, 2, 1 - k, -k], label=str(k))[0] for k in (1, 2)]
    axes.set(xlim=(0, 4), ylim=(0.5, 4))
    figures.name_lines(axes, lines)
    assert [(text.get_text(), text.xy) for text in axes.texts] == [("1", (1.0, 2.0)), ("2", (1.0, 2.0))]


def test_names_of_coinciding_lines_do_not_cover_each_other(drawn):
    figure, axes = figures.plt.subplots()
    lines = [axes.plot([0, 1], [0, 1 + 1e-3 * k], label=f"line {k}")[0] for k in range(7)]
    figures.name_lines(axes, lines)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    order = [text.get_text() for text in sorted(axes.texts, key=lambda text: Text.get_window_extent(text).y0)]
    assert order == [f"line {k}" for k in range(7)]


def test_the_mapping_has_no_small_text(drawn):
    assert narrow_text(figures.mapping()) == []


def test_small_text_is_a_fault(drawn):
    figure, axes = figures.plt.subplots()
    axes.set_title("small", fontsize=8)
    assert ["small" in fault for fault in figures.faults(figure)] == [True]


def test_small_indices_are_a_fault(drawn):
    figure, axes = figures.plt.subplots()
    axes.set_xlabel("$x_1$", fontsize=12)
    axes.set_ylabel("$x_2$", fontsize=figures.INDEXED)
    assert ["x_1" in fault for fault in figures.faults(figure)] == [True]


def test_many_lines_that_no_words_name_are_a_fault(drawn):
    figure, axes = figures.plt.subplots()
    lines = axes.plot(np.arange(3), np.ones((3, figures.LINES + 1)))
    assert ["without a label" in fault for fault in figures.faults(figure)] == [True]
    axes.set_title("five lines")
    assert figures.faults(figure) == []
    axes.set_title("")
    lines[0].set_label("one of them")
    assert figures.faults(figure) == []


def test_a_figure_wider_than_a_page_is_a_fault(drawn):
    assert figures.faults(figures.plt.figure(figsize=(7, 4)))
    assert figures.faults(figures.plt.figure(figsize=(figures.WIDTH, 4))) == []


@pytest.mark.parametrize("count", [4, 5])
def test_five_lines_in_a_legend_are_a_fault(drawn, count):
    figure, axes = figures.plt.subplots()
    for k in range(count):
        axes.plot([0, 1], [0, k], label=str(k))
        axes.plot([0, 1], [0, k], "o", label=f"marks {k}")
    axes.legend()
    assert bool(figures.faults(figure)) == (count > 4)


@pytest.mark.parametrize("limits", [(1e-9, 1e2), (0.1, 40), (2e-3, 7e-3)])
@pytest.mark.parametrize("scale", ["xscale", "yscale"])
def test_ticks_of_logarithmic_axes_are_plain(drawn, limits, scale):
    figure, axes = figures.plt.subplots()
    axes.set(**{scale: "log", scale[0] + "lim": limits})
    axis = axes.xaxis if scale == "xscale" else axes.yaxis
    figure.draw_without_rendering()
    shown = [label.get_text() for label in axis.get_ticklabels(which="both") if label.get_text()]
    values = [float(text) for text in shown]
    assert len([value for value in values if limits[0] <= value <= limits[1]]) > 1
    assert figures.faults(figure) == []


def test_a_binary_axis_shows_its_numbers(drawn):
    figure, axes = figures.plt.subplots()
    axes.set_xscale("log", base=2)
    axes.set_xlim(4, 64)
    figure.draw_without_rendering()
    shown = {label.get_text() for label in axes.xaxis.get_ticklabels()}
    assert {"8", "16", "32"} <= shown


@pytest.mark.parametrize("low", [1e-16, 1e-9, 1e-4])
def test_ticks_of_a_logarithmic_axis_do_not_touch(drawn, low):
    figure, axes = figures.plt.subplots()
    axes.set(xscale="log", xlim=(low, 2))
    figure.draw_without_rendering()
    seen = [label for x, label in zip(axes.get_xticks(), axes.get_xticklabels()) if low <= x <= 2]
    boxes = [label.get_window_extent() for label in seen]
    assert len(boxes) > 2 and all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
