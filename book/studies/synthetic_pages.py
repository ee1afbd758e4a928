"""What the chapter *Synthetic experiments* shows of its record: tables, figures, and the verdicts of its text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies import figures
from studies import synthetic_experiments as study
from studies.provenance import Record, Table, glue
from studies.synthetic_experiments import KINDS, PEERS, STEPS, SVD_KINDS, TITLES, exponent, quartiles
from studies.texts import at_least, between, conditions, listed, paid, settled, side, spread, times

# Two medians nearer than this factor are called equal: the quartiles of five seeds are often that far apart.
ALIKE = 2.0
# Errors below this are called equal, too: they are rounding, of matrices with condition numbers up to 1e6.
ROUNDING = 1e-10
# A verdict on sampling needs so many seeds, and quartiles that are so far from one on the same side.
ENOUGH, CLEAR = 5, 1.1
# Condition numbers above this are named.
BAD = 1e3
# Colours and marks of the ways, the same in all figures.
WAYS = {
    "map in pieces": (figures.BLUE, "o"),
    "spline": (figures.ORANGE, "^"),
    "chebyshev": (figures.GREEN, "s"),
    "aaa": (figures.PURPLE, "v"),
    "reduced basis": (figures.RED, "D"),
}
NAMES = {"chebyshev": "Chebyshev", "aaa": "AAA"}
TRAININGS = {
    "limit": ("limit of the rank", figures.GREEN, "|"),
    "closed": ("closed form", figures.BLUE, "o"),
    "informed": ("trained, failure-informed", figures.ORANGE, "s"),
    "uniform": ("trained, uniform points", figures.BLACK, "x"),
}
# Errors below this are rounding; the figures end there.
FLOOR = 1e-16
SIGNS = {"size": "n", "terms": "K", "cycles": "c"}


def of(rows: Iterable[dict], kind: str) -> list[dict]:
    """Return the rows of a family, one for each seed."""
    return [row for row in rows if row["kind"] == kind]


def middle(rows: Iterable[dict], key: str | Callable[[dict], float]) -> tuple[float, float, float]:
    """Return the quartiles over the seeds of a number of the rows."""
    take = key if callable(key) else lambda row: row[key]
    return quartiles([take(row) for row in rows])


def errors_of(rows: Sequence[dict], way: str) -> tuple[float, float, float]:
    """Return the quartiles of the errors of the fit, or of a peer."""
    return middle(rows, "error" if way == "map in pieces" else lambda row: row["peers"][way])


def count(quarters: tuple[float, float, float]) -> str:
    """Return a median with its quartiles, where they differ.

    Example:
        >>> count((9.0, 9.0, 9.0)), count((33.0, 41.0, 57.0))
        ('9', '41 (33 to 57)')
    """
    low, median, high = (f"{x:,.0f}" for x in quarters)
    return median if low == high else f"{median} ({low} to {high})"


def power(quarters: tuple[float, float, float]) -> str:
    """Return a median in one digit with its quartiles, where they differ.

    Example:
        >>> power((1.01e-3, 1.02e-3, 1.03e-3)), power((1e-5, 2e-5, 4e-5))
        ('1e-03', '2e-05 (1e-05 to 4e-05)')
    """
    low, median, high = (f"{x:.0e}" for x in quarters)
    return median if low == high else f"{median} ({low} to {high})"


# Tables


def difficulty_table(record: Record) -> Table:
    """What a fit to the tolerance takes: medians over the seeds, quartiles in brackets."""
    rows = []
    for kind in KINDS:
        own = of(record.numbers["difficulty"], kind)
        met = f"{sum(row['met'] for row in own)} of {len(own)}"
        rows.append((TITLES[kind], *(count(middle(own, key)) for key in ("solves", "pieces", "terms")), met))
    return Table(("family", "solves", "pieces", "terms", "met"), rows)


def peers_table(record: Record) -> Table:
    """Errors with as many exact solves: medians over the seeds."""
    rows = []
    for kind in KINDS:
        own = of(record.numbers["difficulty"], kind)
        rows.append((TITLES[kind], *(f"{errors_of(own, way)[1]:.0e}" for way in WAYS)))
    return Table(("family", "pieces", "spline", "Cheb.", "AAA", "basis"), rows)


def rank_table(record: Record) -> Table:
    """The smallest rank for the tolerance, and one map of a given rank beside its limit: medians with quartiles."""
    rows = []
    for kind in KINDS:
        own = of(record.numbers["difficulty"], kind)
        numbers = (count(middle(own, "rank")), *(power(middle(own, key)) for key in ("whole", "limit")))
        rows.append((TITLES[kind], *numbers))
    return Table(("family", "rank needed", "one map", "its limit"), rows)


def growths(record: Record) -> list[dict]:
    """Return the fitted growth of the exact solves: ``low``, ``a`` and ``high`` of each thing that grows and family.

    Of the number of parameters, where a power law makes no sense, they are factors for each parameter more. A fit that
    was stopped says how much it was allowed, not what it needs: where one was, nothing is fitted, and they are None.
    ``first`` is the median of the second value over that of the first, and ``at_least`` whether a fit of these was
    stopped.
    """
    found = []
    for name in STEPS:
        for kind in STEPS[name][1]:
            rows = of(record.numbers[name], kind)
            met = sum(row["met"] for row in rows)
            starts = [[row for row in rows if row[name] == value] for value in STEPS[name][0][:2]]
            medians = [middle(start, "solves")[1] for start in starts]
            first = {"first": medians[1] / medians[0], "at_least": not all(row["met"] for row in starts[1])}
            law = dict.fromkeys(("low", "a", "high")) if met < len(rows) else _law(rows, name)
            found.append({"name": name, "kind": kind, **law, **first, "fits": len(rows), "met": met})
    return found


def _law(rows: Sequence[dict], name: str) -> dict[str, float]:
    x = [math.exp(row[name]) if name == "dimension" else row[name] for row in rows]
    values = exponent(x, [row["solves"] for row in rows])
    return dict(zip(("low", "a", "high"), map(math.exp, values) if name == "dimension" else values))


def second_parameter(record: Record) -> str:
    """Return in words what one parameter more takes than the first, family by family."""
    parts = []
    for x in growths(record):
        if x["name"] == "dimension":
            # What is only bounded from below is rounded downwards.
            more = f"more than {math.floor(x['first'])}" if x["at_least"] else times(x["first"])
            parts.append(f"{more} times ({TITLES[x['kind']]}{', not met' if x['at_least'] else ''})")
    return f"From one parameter to two, the solves grow {listed(parts)}."


def with_size(record: Record) -> str:
    """Return in words how the solves go with the size of the matrices."""
    values, kinds, _ = STEPS["size"]
    whole = f"from n = {values[0]} to {values[-1]}"
    these = f"For the families {listed([TITLES[kind] for kind in kinds])}"
    own = [of(record.numbers["size"], kind) for kind in kinds]
    if all(len({row["solves"] for row in rows}) == 1 for rows in own):
        return f"{these} the number of solves is the same at every size, {whole}."
    most = max(x["a"] for x in growths(record) if x["name"] == "size")
    return f"{these} the number of solves grows at most like n to the power {most:.2f}, {whole}."


def seeds_text(record: Record) -> str:
    """Return in words how many seeds the parts of the study have, and which points have fewer."""
    numbers = record.numbers
    most = {part: len({row["seed"] for row in rows}) for part, rows in numbers.items() if part != "longer"}
    text = f"{listed(sorted({str(x) for x in most.values()}))} seeds"
    fewer = [
        f"{study.AXES[name]} = {value} has {count}"
        for name in STEPS
        for value in STEPS[name][0]
        if (count := len({row["seed"] for row in numbers[name] if row[name] == value})) < most[name]
    ]
    return f"{text}; {listed(fewer)}" if fewer else text


def growth_table(record: Record) -> Table:
    """The fitted growth in words, with intervals of 95 %."""
    rows = []
    for x in growths(record):
        if x["name"] == "dimension":
            law, digits = "{} times for each", ".1f"
        else:
            law, digits = f"{SIGNS[x['name']]} to the {{}}", ".2f"
        # No minus before what rounds to zero.
        low, a, high = ("" if x[key] is None else f"{round(x[key], 2) + 0.0:{digits}}" for key in ("low", "a", "high"))
        law, interval = (law.format(a), f"{low} to {high}") if a else ("no law: fits were stopped", "")
        rows.append((study.AXES[x["name"]], TITLES[x["kind"]], law, interval, f"{x['met']} of {x['fits']}"))
    return Table(("what grows", "family", "solves grow", "interval", "met"), rows)


def pairs(record: Record, operation: str, key: str = "error") -> dict[str, list[float]]:
    """Return by family the ratios of a training with uniform points over the informed one of the same seed."""
    end = "" if operation == "inverse" else "_svd"
    others = {(row["kind"], row["seed"]): row[key] for row in record.numbers[f"ablation{end}"]}
    found: dict[str, list[float]] = {}
    for row in record.numbers[f"training{end}"]:
        if (at := (row["kind"], row["seed"])) in others:
            found.setdefault(row["kind"], []).append(others[at] / row[key])
    return found


def ablation_table(record: Record) -> Table:
    """Errors with uniform points over those with informed ones, seed by seed: above one, the latter are better."""
    rows = []
    for operation in ("inverse", "SVD"):
        worst = pairs(record, operation, "worst")
        for kind, ratios in pairs(record, operation).items():
            whole, peak = (f"{m:.2f} ({a:.2f} to {b:.2f})" for a, m, b in (quartiles(ratios), quartiles(worst[kind])))
            rows.append((f"{operation}, {TITLES[kind]}", whole, peak))
    return Table(("operation, family", "mean error", "largest error"), rows)


def live_table(rows: Sequence[dict], record: Record) -> Table:
    """Fits made with this page beside those of the record, of the same family and seed."""
    lines = []
    for row in rows:
        kept = next((x for x in of(record.numbers["difficulty"], row["kind"]) if x["seed"] == row["seed"]), None)
        if kept is None:  # a seed that the study does not have
            lines.append((TITLES[row["kind"]], f"{row['solves']:,} / none", f"{row['error']:.0e} / none"))
            continue
        solves = f"{row['solves']:,} / {kept['solves']:,}"
        lines.append((TITLES[row["kind"]], solves, f"{row['error']:.0e} / {kept['error']:.0e}"))
    return Table(("family", "solves, here / record", "error, here / record"), lines)


# Figures


def _marks(axes: Axes, x: tuple[float, float, float], y: float, colour: str, mark: str, label: str | None) -> None:
    low, median, high = (max(value, FLOOR) for value in x)
    axes.plot([low, high], [y, y], color=colour, lw=1.2)
    axes.plot(median, y, mark, color=colour, ms=5.5, mew=1.6, label=label, ls="")


def _families(axes: Axes, kinds: Sequence[str]) -> None:
    axes.set_yticks(range(len(kinds)), [TITLES[kind] for kind in kinds])
    axes.set(xscale="log", ylim=(len(kinds) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")


def difficulty(record: Record) -> Figure:
    """Draw the errors of the fit and of peers with as many solves, family by family."""
    figure, axes = figures.plt.subplots(figsize=(figures.WIDTH, 5.0))
    for i, kind in enumerate(KINDS):
        own = of(record.numbers["difficulty"], kind)
        for j, (way, (colour, mark)) in enumerate(WAYS.items()):
            label = NAMES.get(way, way) if i == 0 else None
            _marks(axes, errors_of(own, way), i + 0.15 * (j - 2), colour, mark, label)
    axes.axvline(study.TOL, color=figures.GREY, ls="--", lw=1)
    _families(axes, KINDS)
    axes.set_xlabel("relative error")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def growth(record: Record) -> Figure:
    """Draw the exact solves of a fit against the size, the terms, the cycles and the number of parameters."""
    figure, panels = figures.stacked(len(STEPS), 2.1)
    # Eight families: one colour more than the cycle of the book has, which stops at black.
    colours = [*(style["color"] for style in figures.plt.rcParams["axes.prop_cycle"]), figures.GREY]
    styles = {kind: {"color": colour} for kind, colour in zip(KINDS, colours)}
    for axes, (name, (values, kinds, _)) in zip(panels, STEPS.items()):
        for kind in kinds:
            points = [
                middle([x for x in of(record.numbers[name], kind) if x[name] == value], "solves") for value in values
            ]
            lows, medians, highs = zip(*points)
            mark, style = "os^vDPX*"[KINDS.index(kind)], styles[kind]
            axes.plot(values, medians, marker=mark, ms=4.5, label=TITLES[kind], **style)
            axes.fill_between(values, lows, highs, alpha=0.2, **style)
            stopped = [
                (value, y)
                for value, y in zip(values, medians)
                if not all(x["met"] for x in of(record.numbers[name], kind) if x[name] == value)
            ]
            if stopped:
                axes.plot(*zip(*stopped), mark, ms=4.5, mfc="white", zorder=3, **style)
        axes.set(yscale="log", ylim=(5, 1.5 * study.MOST_SOLVES), xlabel=study.AXES[name], ylabel="exact solves")
        if name != "dimension":
            axes.set_xscale("log", base=2)
        axes.set_xticks(values, [str(value) for value in values])
        figures.name_lines(axes, axes.lines)
    return figure


def training(record: Record) -> Figure:
    """Draw the errors of trained maps, of the closed form, and of the best map of the same rank."""
    kinds = {"inverse": KINDS, "SVD": SVD_KINDS}
    figure, panels = figures.plt.subplots(2, 1, figsize=(figures.WIDTH, 6.6), sharex=True, height_ratios=(2, 1.1))
    for axes, operation in zip(panels, kinds):
        end = "" if operation == "inverse" else "_svd"
        for i, kind in enumerate(kinds[operation]):
            informed, uniform = (of(record.numbers[name + end], kind) for name in ("training", "ablation"))
            shown = {"limit": (informed, "limit"), "closed": (informed, "closed")}
            shown |= {"informed": (informed, "error"), "uniform": (uniform, "error")}
            for j, (way, (rows, key)) in enumerate(shown.items()):
                label, colour, mark = TRAININGS[way]
                _marks(axes, middle(rows, key), i + 0.16 * (j - 1.5), colour, mark, label if i == 0 else None)
        _families(axes, kinds[operation])
        axes.set_title(operation)
    panels[1].set_xlabel("relative error")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return figure


# Times


def times_text(record: Record) -> str:
    """Return the sentence that says which way is faster, and under which load that was timed."""
    rows = record.numbers["difficulty"]
    sizes = record.numbers["size"]
    refused = [f"{TITLES[x['kind']]} at n = {x['size']}" for x in (*rows, *sizes) if x["conditions"]["refused"]]
    timed = [x for x in rows if not math.isnan(study.quickest(x)["with the fit"][1])]
    faster = [TITLES[x["kind"]] for x in timed if _faster(x)]
    larger = [f"n = {x['size']} ({x['count']:,} matrices)" for x in sizes if _faster(x)]
    return (
        f"With the fit counted, over {rows[0]['count']:,} matrices of size {rows[0]['size']}, the map is faster than "
        f"the quickest exact method for {some(faster)} of the {len(timed)} families of which these were timed. "
        f"For the smooth one, over as many matrices as the table says, it is faster at {some(larger)}."
        + (f" Times were refused for {some(refused)}." * bool(refused))
        + f" {conditions(*(x['conditions'] for x in (*rows, *sizes, record.numbers['svd'])))}"
    )


def _faster(row: dict) -> bool:
    return side(study.quickest(row)["with the fit"], "faster", "slower", "even") == "faster"


def exceptions(record: Record) -> str:
    """Return in a sentence where the loop was, or may have been, faster than the exact method that is strongest."""
    rows = [*record.numbers["difficulty"], *record.numbers["size"]]
    known = [(f"{TITLES[x['kind']]} ({x['size']})", x) for x in rows] + [("the trained SVD", record.numbers["svd"])]
    names: dict[bool, list[str]] = {True: [], False: []}
    for name, x in known:
        loop, exact = x["NumPy loop"]["after"], x["strongest exact"]["after"]
        if loop[0] <= exact[2]:
            names[loop[2] < exact[0]].append(name)
    parts = [f"the loop was faster for {listed(names[True])}"] * bool(names[True])
    open_ = f"this run does not settle which is faster for {listed(names[False])}, as the quartiles of the two overlap"
    parts += [open_] * bool(names[False])
    said = "; ".join(parts) or "it was so in all rows"
    return f"{said[0].upper()}{said[1:]}."


def timed_error(row: dict, svd: bool, record: Record) -> str:
    """Return the error of the map of a row of times, which is that of the first seed of the record of errors."""
    numbers = record.numbers
    for x in numbers["timed_svd"] if svd else [*numbers["difficulty"], *numbers["size"]]:
        if (x["kind"], x.get("size", 32), x["seed"]) == (row["kind"], row["size"], 0):
            return f"{x['error']:.0e}"
    return "not known"


def times_table(record: Record, errors: Record) -> Table:
    """Ratios of times, medians with quartiles: exact methods over the map, alone and with its fit; break-even.

    Args:
        record: Of the times.
        errors: Of the study, which has the errors of the same maps.
    """
    svd, rows = record.numbers["svd"], []
    for x in [*record.numbers["difficulty"], *record.numbers["size"], svd]:
        name = f"SVD, trained ({svd['steps']} steps)" if x is svd else TITLES[x["kind"]]
        least = study.quickest(x)
        ways = ("NumPy loop", "strongest exact", study.ONCE)
        ratios = [spread(x[way]["after"]) if way in x else "" for way in ways]
        label = f"{name}, {x['size']}"
        # One size is timed twice, among the families and among the sizes.
        again = ", again" if label in [row[0] for row in rows] else ""
        first = (label + again, timed_error(x, x is svd, errors), f"{x['count']:,}")
        ends = spread(least["with the fit"]), paid(settled(least["pays"], x["solves"]))
        rows.append((*first, *ratios, *ends))
    columns = ("family, size", "error", "matrices", "loop", "exact", study.ONCE, "with the fit", "pays from")
    return Table(columns, rows)


# Text


def some(names: Sequence[str]) -> str:
    """Return names as a sentence lists them, or that there are none."""
    return listed(names) or "none"


def winners(record: Record, way: str) -> list[str]:
    """Return the families where the error of a peer, with no more solves, is clearly below that of the fit."""
    errors = {}
    for kind in KINDS:
        own = of(record.numbers["difficulty"], kind)
        errors[kind] = [max(errors_of(own, name)[1], ROUNDING) for name in (way, "map in pieces")]
    return [kind for kind, (other, fit) in errors.items() if ALIKE * other < fit]


def losers(record: Record, way: str) -> list[str]:
    """Return the families where a way, with the solves of the fit, has an error above the tolerance."""
    return [k for k in KINDS if errors_of(of(record.numbers["difficulty"], k), way)[1] > study.TOL]


def meeting(record: Record) -> str:
    """Return in words what fits to the tolerance take where all seeds meet it, and where not all do."""
    rows = record.numbers["difficulty"]
    share = {kind: sum(row["met"] for row in of(rows, kind)) / len(of(rows, kind)) for kind in KINDS}
    solves = {kind: middle(of(rows, kind), "solves")[1] for kind in KINDS}
    good = [kind for kind in KINDS if share[kind] == 1]
    low, high = min(good, key=solves.get), max(good, key=solves.get)
    text = f"takes {solves[low]:,.0f} ({TITLES[low]}) to {solves[high]:,.0f} exact solves ({TITLES[high]})"
    never = [f"{TITLES[kind]}, after {solves[kind]:,.0f} solves" for kind in KINDS if not share[kind]]
    rest = [TITLES[kind] for kind in KINDS if 0 < share[kind] < 1]
    missed = [f"It is never met for {listed(never)}."] * bool(never)
    partly = [f"It is met for some seeds only: {listed(rest)}."] * bool(rest)
    return " ".join([f"where it is met, it {text}.", *missed, *partly])


def basis_text(record: Record) -> str:
    """Return in words where the reduced basis is more accurate, by how much at most, and with how many solves."""
    way, won = "reduced basis", winners(record, "reduced basis")
    if not won:
        return "A reduced basis is more accurate for none."
    gains, saved = {}, {}
    for kind in won:
        own = of(record.numbers["difficulty"], kind)
        gains[kind] = math.log10(errors_of(own, "map in pieces")[1] / errors_of(own, way)[1])
        saved[kind] = [middle(own, "solves")[1], middle(own, lambda row: row["peer_solves"][way])[1]]
    kind = max(saved, key=lambda k: saved[k][0] / saved[k][1])
    theirs, ours = (f"{x:,.0f}" for x in reversed(saved[kind]))
    instance = f"{TITLES[kind]}: {theirs} where the fit takes {ours}"
    return (
        f"A reduced basis is more accurate for {len(won)} of the {len(KINDS)} families, by up to "
        f"{math.floor(max(gains.values()))} orders of magnitude, and takes no more solves ({instance})."
    )


def sampling_helps(record: Record, operation: str, key: str) -> tuple[list[str], list[str]]:
    """Return the families where informed sampling is clearly better, and where worse: both quartiles, enough seeds."""
    quarters = {k: quartiles(ratios) for k, ratios in pairs(record, operation, key).items() if len(ratios) >= ENOUGH}
    better = [TITLES[kind] for kind, (low, _, _) in quarters.items() if low > CLEAR]
    return better, [TITLES[kind] for kind, (_, _, high) in quarters.items() if high < 1 / CLEAR]


def sampling_text(record: Record, operation: str, noun: str) -> str:
    """Return in two sentences for how many families informed sampling is clearly better or worse, and for which."""
    total, said = len(pairs(record, operation)), []
    for key, error in (("error", "mean"), ("worst", "largest")):
        better, worse = sampling_helps(record, operation, key)
        clear = {"better": better, "worse": worse}
        named = [f"clearly {how} for {len(names)} ({listed(names)})" for how, names in clear.items() if names]
        said.append(f"in the {error} error {' and '.join(named) or 'clearly better or worse for none'}")
    return f"Of the {total} {noun} informed sampling is {'; '.join(said)}."


def training_text(record: Record) -> str:
    """Return in words for how many inverses and decompositions training ends clearly above the closed form."""
    counts = []
    for end, noun in (("", "inverses"), ("_svd", "singular value decompositions")):
        gaps = training_gaps(record.numbers[f"training{end}"])
        counts.append(f"{sum(gap > ALIKE for gap in gaps.values())} of {len(gaps)} {noun}")
    return " and ".join(counts)


def longer_text(record: Record) -> str:
    """Return in a sentence how longer trainings of some families end beside the closed form, and the short ones."""
    rows = record.numbers["longer"]
    parts = []
    for row in rows:
        (short,) = (x for x in of(record.numbers["training"], row["kind"]) if x["seed"] == row["seed"])
        ratio = row["error"] / row["closed"]
        where = "below it" if ratio < 1 else "within a factor of two" if ratio <= ALIKE else "far above it"
        errors = f"{row['error']:.1e} after {short['error']:.1e}, closed form {row['closed']:.1e}"
        parts.append(f"{TITLES[row['kind']]} ends {where} ({errors})")
    return (
        f"With {rows[0]['steps']:,} steps, at the settings that the search found for another family, one seed, "
        f"{listed(parts)}."
    )


def training_gaps(rows: Sequence[dict]) -> dict[str, float]:
    """Return by family the median over seeds of a training's error over that of the closed form."""
    kinds = dict.fromkeys(row["kind"] for row in rows)
    return {k: middle(of(rows, k), lambda row: row["error"] / row["closed"])[1] for k in kinds}


def conditioned(record: Record) -> str:
    """Return in words the largest condition numbers over the seeds, of the families where they are large first."""
    largest: dict[tuple[str, int], float] = {}
    for x in record.numbers["condition"]:
        key = x["kind"], x["size"]
        largest[key] = max(x["condition"], largest.get(key, 0.0))
    usual = sorted(((value, kind) for (kind, size), value in largest.items() if size == 32), reverse=True)
    bad = [f"{value:.0e} ({TITLES[kind]})" for value, kind in usual if value > BAD]
    rest = max(value for value, _ in usual if value <= BAD)
    grown = [f"{value:.0e} ({TITLES[kind]}, n = {size})" for (kind, size), value in largest.items() if size > 32]
    return (
        f"The largest condition numbers at n = 32 are {listed(bad)}; those of the other families are at most "
        f"{at_least(rest):g}. They can grow with the size: {listed(grown)}."
    )


def check(record: Record) -> None:
    """Assert what text, captions and descriptions of figures say in words."""
    rows = record.numbers["difficulty"]
    errors = {kind: {way: errors_of(of(rows, kind), way)[1] for way in WAYS} for kind in KINDS}
    smallest = [min(own, key=own.get) for own in errors.values()]
    assert smallest.count("reduced basis") > len(KINDS) / 2, "it has the smallest errors in most rows"
    assert max(own["map in pieces"] for own in errors.values()) < study.TOL, "left of the tolerance in all rows"
    for kind in ("poles", "resonances"):
        assert min(errors[kind][way] for way in ("spline", "chebyshev")) > 100 * study.TOL, "far right of it"
    won = {kind for way in PEERS for kind in winners(record, way)}
    assert len(won) > len(KINDS) / 2, "a peer that suits the family often does better"
    for kind in KINDS:
        whole, limit = (middle(of(rows, kind), key)[1] for key in ("whole", "limit"))
        assert whole <= study.TOL or limit < 0.01 * study.TOL, "it misses, although the limit is far below"
    check_growth(record)
    for end, kinds in (("", KINDS), ("_svd", SVD_KINDS)):
        informed, uniform = (
            [middle(of(record.numbers[f"{part}{end}"], kind), "error")[1] for kind in kinds]
            for part in ("training", "ablation")
        )
        closed, best = (
            [middle(of(record.numbers[f"training{end}"], kind), key)[1] for kind in kinds]
            for key in ("closed", "limit")
        )
        assert all(ALIKE > a / b > 1 / ALIKE for a, b in zip(informed, uniform)), "the marks of both lie together"
        far = sum(a > 10 * b for a, b in zip(informed, closed))
        assert far > len(kinds) / 2, "far right of the closed form in most rows"
        assert all(a <= b for a, b in zip(best, closed)), "the limit of the rank is further left"


def check_growth(record: Record) -> None:
    """Assert what the text says of the exact solves, and what the figure of them shows as it is described."""
    laws = growths(record)
    for x in laws:
        if x["name"] == "size":
            assert x["a"] < 0.05, "level as the size grows"
        if x["name"] == "terms":
            assert x["a"] < 0, "they fall as the number of terms grows"
        if x["name"] == "cycles":
            assert x["a"] > 0.5, "they rise with the number of cycles"
        if x["name"] == "dimension":
            assert x["first"] > 1.5, "and with the number of parameters"
    stopped = {x["kind"] for x in laws if x["name"] == "dimension" and x["met"] < x["fits"]}
    assert stopped == {"poles", "decades"}, "near poles and for the decades they reach the budget"


def glue_all(record: Record) -> None:
    """Numbers and verdicts of the text."""
    check(record)
    rows = record.numbers["difficulty"]
    for key, text in (("met", meeting), ("basis", basis_text), ("with-size", with_size), ("second", second_parameter)):
        glue(f"sx-{key}", text(record))
    glue("sx-conditioned", conditioned(record))
    glue("sx-trained", training_text(record))
    glue("sx-size", 32)
    glue("sx-tol", study.TOL)
    glue("sx-rank", study.RANK)
    glue("sx-seeds", seeds_text(record))
    glue("sx-most-peer", study.MOST_PEER)
    glue("sx-most-basis", study.MOST_BASIS)
    glue("sx-most-solves", study.MOST_SOLVES)
    glue("sx-checked", study.CHECKED)
    glue("sx-dimension-size", STEPS["dimension"][2]["size"])
    glue("sx-dimension-tol", STEPS["dimension"][2]["tol"])
    glue("sx-training-seeds", min(len(own) for op in ("inverse", "SVD") for own in pairs(record, op).values()))
    glue("sx-steps", study.TRAINED)
    glue("sx-enough", ENOUGH)
    glue("sx-clear", CLEAR)
    glue("sx-families", len(KINDS))
    glue("sx-unmet", some([TITLES[k] for k in KINDS if not all(row["met"] for row in of(rows, k))]))
    for way in WAYS:
        key = way.replace(" ", "-")
        glue(f"sx-{key}-fails", some([TITLES[k] for k in losers(record, way)]))
        if way in PEERS:
            glue(f"sx-{key}-wins", some([TITLES[k] for k in winners(record, way)]))
    above = {k: middle(of(rows, k), lambda row: row["whole"] / max(row["limit"], FLOOR))[1] for k in KINDS}
    poor = [k for k in KINDS if middle(of(rows, k), "whole")[1] > study.TOL]
    glue("sx-whole-fails", some([TITLES[k] for k in poor]))
    glue("sx-whole-most", TITLES[max(above, key=above.get)])
    ranks = {k: middle(of(rows, k), "rank")[1] for k in KINDS}
    glue("sx-needed", max(ranks.values()))
    glue("sx-needed-family", TITLES[max(ranks, key=ranks.get)])
    _glue_growth(record)
    _glue_training(record)


def _glue_growth(record: Record) -> None:
    found = growths(record)
    for name in STEPS:
        own = [x for x in found if x["name"] == name]
        laws = [x["a"] for x in own if x["a"] is not None]
        glue(f"sx-{name}-low", min(laws, default=math.nan))
        glue(f"sx-{name}-high", max(laws, default=math.nan))
        glue(f"sx-{name}-unmet", sum(x["fits"] - x["met"] for x in own))
        glue(f"sx-{name}-lawless", some([TITLES[x["kind"]] for x in own if x["a"] is None]))


def _glue_training(record: Record) -> None:
    for operation, end in (("inverse", ""), ("SVD", "_svd")):
        rows, key = record.numbers[f"training{end}"], operation.lower()
        gaps = training_gaps(rows)
        errors = {k: middle(of(rows, k), "error")[1] for k in gaps}
        glue(f"sx-{key}-errors", between(min(errors.values()), max(errors.values())))
        glue(f"sx-{key}-error-worst", TITLES[max(errors, key=errors.get)])
        glue(f"sx-{key}-lost", some([TITLES[k] for k in gaps if gaps[k] > ALIKE]))
        glue(f"sx-{key}-alike", some([TITLES[k] for k in gaps if gaps[k] <= ALIKE]))
        noun = "inverses" if operation == "inverse" else "decompositions"
        glue(f"sx-{key}-sampling", sampling_text(record, operation, noun))
    glue("sx-longer", longer_text(record))
    near = [TITLES[row["kind"]] for row in record.numbers["longer"] if row["error"] <= ALIKE * row["closed"]]
    glue("sx-longer-near", some(near))
    glue("sx-longer-steps", study.LONGER["steps"])
    glue("sx-svd-families", len(SVD_KINDS))
    glue("sx-svd-failing", failing_text(record.numbers["training_svd"]))
    timed = record.numbers["timed_svd"][0]
    glue("sx-timed-error", timed["error"])
    glue("sx-timed-limit", timed["limit"])


def failing_text(rows: Sequence[dict]) -> str:
    """Return the range over the families of the median share of parameters where a trained map fails.

    Example:
        >>> failing_text([{"kind": "smooth", "failing": 0.98}, {"kind": "kinks", "failing": 1.0}])
        '98 to 100 %'
    """
    shares = [100 * middle(of(rows, kind), "failing")[1] for kind in dict.fromkeys(row["kind"] for row in rows)]
    ends = dict.fromkeys(f"{x:.0f}" for x in (min(shares), max(shares)))
    return f"{' to '.join(ends)} %"
