"""The answer on page one: the table of decisions, its figure and the numbers beside them, all from records.

The pages *Introduction* and *When to use this* write ``{{ decisions }}`` or ``{{ front.NAME }}`` where one of them
stands; the Sphinx extension ``front_page`` puts it in when the book is built. So a new record changes the pages, and a
verdict that it no longer supports stops the build.

The records are published ones. What a chapter shows of its own run is read from that run (`chapter`), its last good
times in the place of those that were refused, so that page one and the chapter agree.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace

from matplotlib.figure import Figure

from studies import (
    anisotropic,
    draws,
    figures,
    last_good,
    measurements,
    provenance,
    random_families,
    synthetic_experiments,
    texts,
)
from studies import swings as ups_and_downs
from studies.frequency_and_time import SHORT
from studies.slots import NOISE, SLOT
from studies.texts import listed, times, two_digits
from studies.texts import ratios_between as between
from studies.wireless_receivers import BLOCKS, EIGHT, HELD, RATE, stepped

RECORDS = (
    "speed",
    "cases",
    "families",
    "to_the_limit",
    "beyond_the_inverse",
    "training_search",
    "wireless_trained",
    "synthetic_experiments",
    "synthetic_timings",
    "several_parameters_study",
    "draws",
    "frequency_and_time",
    "link_level",
    "swings",
    "blocks",
)
# Chapters of whose own runs the pages quote a number.
SHOWN = ("wireless_inversion", "beyond_the_inverse", "your_own_matrices")
CHAPTERS = "../notebooks/"
# Hertz between two subcarriers of the study's radio band, and nanoseconds of delay spread where a name has none.
SPACING, DELAY = 30e3, 30
# Signal over noise after combining over the array, where rates are lost.
SNR = f"{-10 * math.log10(NOISE):g} dB"
# As many results held as there are resource blocks: one for twelve tones.
HELD_AS_BLOCKS = stepped(HELD, 12)
# Receivers of *Link level* from one exact filter for each resource block.
PER_BLOCK = ("held per PRB", "held, own gain and noise", "linear")
EXACT = {"Gram": "eigenvectors of the Gram matrix", "Cholesky": "batched Cholesky", "NumPy loop": "a NumPy loop"}
# What a cell says where the times of a rival decide nothing.
VARIED = "Not decided{}: the time of {} varied too much."
# What the table says of the three possible verdicts of the quartiles.
FASTER, SLOWER, EVEN = "faster", "slower", "about as fast"
# Ways to precoders from one exact basis in each group of subcarriers: interpolated between them, and held.
LINES, ONE = "interpolated", "one for"
# Seconds from which on an exact solve is slow.
SLOW = 1e-4
# Exact inverses that were timed on the GPU.
EXACT_INVERSES = ("NumPy loop", "NumPy batched", "SciPy batched", "torch, Cholesky", "Sionna, Cholesky")
Numbers = dict[str, object]
Ratio = Sequence[float]


@dataclass(frozen=True)
class Decision:
    """A row of the table, in the words of the page.

    Attributes:
        situation: What a reader has.
        changes: How fast that changes along the parameter, and how many exact solves a fit takes for it.
        pick: What to use for one pass over all matrices.
        speed: How many times as fast as the strongest other way the pick is, with its fit counted.
        error: The largest relative error of the pick.
        pays: From how many matrices on a fit takes less time than the strongest exact method.
    """

    situation: str
    changes: str
    pick: str
    speed: str
    error: str
    pays: str


# Swings, where the table has them first.
EXPLAINED = "delay spread times bandwidth"
HEADER = ("You have", "It changes", "Pick for one pass", "Speed", "Error", "Pays from")


@dataclass(frozen=True)
class Way:
    """A way that has a fit, beside the strongest exact method of its problem.

    Attributes:
        name: What it is.
        error: Its relative error.
        solves: Exact solves of its fit.
        counted: How many times as fast as the exact method it is for one pass, with its fit counted.
        pays: Matrices from which on it takes less time; NaN where that was not timed, or the clock does not settle it.
        below: Where it does not, the upper limit that it gives (:func:`studies.texts.settled`).
    """

    name: str
    error: float
    solves: int
    counted: Ratio
    pays: float
    below: float = math.nan


MAP, SPLINE, LINEAR = "the map in pieces", "a cubic spline", "linear interpolation"
# Splines of degree three and one.
SPLINES = (SPLINE, LINEAR)
# Linear and cubic spline of a problem in the study of speed.
DEGREES = (("linear spline", "cubic spline"), ("aligned linear spline", "aligned spline"))
# Of how many passes of one fit the pages say *some ten*, and from which number on they say *hundreds*.
TENS, HUNDRED = 10, 100
# What interpolates in the study of speed, as the page calls it.
PEERS = {
    "aligned spline": SPLINE,
    "cubic spline": SPLINE,
    "aligned linear spline": LINEAR,
    "linear spline": LINEAR,
    "Chebyshev": "Chebyshev interpolation",
    measurements.PIECES: "Chebyshev interpolation in pieces",
}
# Those that are asked for a tolerance, and find the number of exact results themselves.
ASKED = (MAP, PEERS[measurements.PIECES])


def paying(pays: Ratio, solves: int) -> tuple[float, float]:
    """Return the median of a break-even and NaN; where the clock does not settle it, NaN and its upper limit.

    Example:
        >>> paying((71.0, 72.4, 83.7), 23), paying((0.0, 23.0, 412.8), 41)
        ((72.4, nan), (nan, 412.8))
    """
    found = texts.settled(pays, solves)
    return (math.nan, found[1]) if texts.unsettled(found) else (found[1], math.nan)


def paid(ways: Iterable[Way]) -> str:
    """Return from how many matrices on ways pay, and of those that the clock does not settle the upper limit.

    Example:
        >>> one, two = Way("a", 0.0, 9, (1, 2, 3), 500.0), Way("b", 0.0, 41, (1, 2, 3), *paying((0.0, 23.0, 412.8), 41))
        >>> paid([one]), paid([one, two]), paid([two])
        ('500', '500 (one below 420, not settled)', 'below 420 (not settled)')
    """
    ways = list(ways)
    limits = sorted(texts.without_nan(x.below for x in ways))
    known = texts.without_nan(x.pays for x in ways)
    if not limits:
        return counts(known)
    said = texts.below(limits[-1])
    if not known:
        return f"{said} (not settled)"
    number = "one" if len(limits) == 1 else f"{len(limits)}"
    return f"{counts(known)} ({number} {said}, not settled)"


def records() -> dict[str, Numbers]:
    """Return the numbers of the records by name, of chapters as ``chapters``, and the machines as ``machines``."""
    loaded = {name: provenance.load(name) for name in RECORDS}
    found: dict[str, Numbers] = {name: record.numbers for name, record in loaded.items()}
    found["days"] = {name: record.provenance["date"][:10] for name, record in loaded.items()}
    found["machines"] = {name: record.provenance["machine"] for name, record in loaded.items()}
    found["chapters"] = {name: chapter(name) for name in SHOWN}
    return found


def chapter(name: str) -> Numbers:
    """Return the numbers of a chapter's page: of its run at cpu here, else its last good timings, else none."""
    try:
        return last_good.fill(provenance.load(name, "cpu")).numbers
    except FileNotFoundError:
        pass
    try:
        return provenance.load(f"{name}_timings").numbers
    except FileNotFoundError:
        return {}


def middle(value: float | Ratio) -> float:
    """Return the median of a ratio that may come with its quartiles.

    Example:
        >>> middle(2.0), middle([1.0, 2.0, 4.0])
        (2.0, 2.0)
    """
    return float(value) if isinstance(value, (int, float)) else float(value[1])


def verdict(ratio: Ratio) -> str:
    """Return what quartiles say of a ratio of times; where they lie on both sides of one, that neither is faster.

    A quartile counts with the digits that the page shows, as in all chapters (:func:`studies.texts.side`).

    Example:
        >>> verdict([1.2, 1.5, 1.6]), verdict([0.5, 0.6, 0.9]), verdict([0.9, 1.2, 1.3]), verdict([1.01, 1.3, 1.4])
        ('faster', 'slower', 'about as fast', 'about as fast')
    """
    return texts.side(ratio, FASTER, SLOWER, EVEN)


def counts(values: Iterable[float]) -> str:
    """Return a range of numbers of matrices, in two digits since wall times repeat no better.

    Example:
        >>> counts([1234, 5678.9]), counts([math.inf]), counts([900, math.inf])
        ('1,200 to 5,700', 'never', '900 to never')
    """
    found = sorted(texts.without_nan(values))
    if not found:
        return texts.UNTIMED
    ends = [count(x) for x in (found[0], found[-1])]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def count(value: float) -> str:
    """Return a number of matrices in two digits."""
    return "never" if math.isinf(value) else f"{two_digits(value):,.0f}"


def whole(values: Iterable[int]) -> str:
    """Return a range of whole numbers.

    Example:
        >>> whole([34, 34]), whole([104, 110])
        ('34', '104 to 110')
    """
    found = sorted(values)
    return f"{found[0]:,}" if found[0] == found[-1] else f"{found[0]:,} to {found[-1]:,}"


def power(values: Iterable[float]) -> str:
    """Return the largest error as the book writes it.

    Example:
        >>> power([2.7e-4, 4.1e-4])
        '4e-04'
    """
    return f"{max(values):.0e}"


def most(values: Iterable[float]) -> str:
    """Return the largest value as it stands after *at most*, so that this stays true.

    Example:
        >>> most([2.7e-4, 4.1e-4])
        '5e-04'
    """
    return f"{texts.at_least(max(values), 1):.0e}"


# Problems of the study of speed


def strongest(row: Numbers) -> str:
    """Return the exact method of a row of the study of speed that leaves the map the least advantage."""
    return min(measurements.baselines(row), key=lambda name: measurements.last(row[f"{name}: with the fit"]))


def ratios(row: Numbers) -> tuple[Ratio, Ratio]:
    """Return how many times as fast as its strongest exact method a map is, after the fit and with the fit counted."""
    return tuple(row[f"{strongest(row)}: {when}"] for when in measurements.WHEN)


def timed(found: dict[str, Numbers]) -> list[Numbers]:
    """Return all problems of the study of speed that have an exact method beside them."""
    return [row for word in ("svd", "lmmse", "inverse") for row in found["speed"][word]]


def matrices(found: dict[str, Numbers], row: Numbers) -> int:
    """Return how many matrices a pass has: one for each subcarrier of the band."""
    return row.get("count", found["to_the_limit"]["cdl_c"]["count"])


def in_pieces(row: Numbers) -> Way:
    """Return the map in pieces of a problem of the study of speed."""
    pays = paying(row[f"{strongest(row)}: pays"], row["solves"])
    return Way(MAP, row["error"], row["solves"], ratios(row)[1], *pays)


def peers(row: Numbers) -> list[Way]:
    """Return what interpolates in a problem of the study of speed, to the tolerance of the map, where it was timed."""
    ways = []
    for key, own in row.get("interpolation", {}).items():
        counted, pays = (own[f"{strongest(row)}: {what}"] for what in ("with the fit", "pays"))
        if own["error"] <= row["tol"] and not math.isnan(counted[1]):
            ways.append(Way(PEERS[key], own["error"], own["solves"], counted, *paying(pays, own["solves"])))
    return ways


def spline(row: Numbers) -> Way | None:
    """Return the spline of a problem of the study of speed that is faster for one pass; None where none was timed."""
    found = [way for way in peers(row) if way.name in SPLINES]
    return max(found, key=lambda way: way.counted[1], default=None)


def spline_after(row: Numbers) -> Ratio:
    """Return how many times as fast as the strongest exact method the spline of :func:`spline` is, once it is made."""
    name = spline(row).name
    (own,) = (x for key, x in row["interpolation"].items() if PEERS[key] == name)
    return own[f"{strongest(row)}: after"]


def unsteady(row: Numbers, ways: Sequence[Way]) -> list[str]:
    """Return what keeps the tolerance of the map, whose time was refused, and which may be faster than all ways.

    A pass takes no less time than its evaluation: what is slower by that alone decides nothing.
    """
    best, exact = max(way.counted[1] for way in ways), strongest(row)
    own = [(PEERS[key], x) for key, x in row.get("interpolation", {}).items() if x["error"] <= row["tol"]]
    refused = [(name, x) for name, x in own if math.isnan(x[f"{exact}: with the fit"][1])]
    return [name for name, x in refused if not x[f"{exact}: after"][1] < max(best, 1)]


def chosen(ways: Sequence[Way]) -> Way | str:
    """Return the way to pick for one pass; SLOWER where the exact method is the fastest, EVEN where none is."""
    better = [way for way in ways if verdict(way.counted) == FASTER]
    if better:
        return max(better, key=lambda way: way.counted[1])
    return SLOWER if all(verdict(way.counted) == SLOWER for way in ways) else EVEN


def tied(ways: Sequence[Way], pick: Way) -> set[str]:
    """Return the names of what is not slower than the exact method and has quartiles that overlap those of the pick.

    Example:
        >>> shown = {"a": (2, 3, 4), "b": (1.5, 2, 2), "c": (1.4, 1.4, 1.4)}
        >>> pick, near, far = (Way(name, 0.0, 1, ratio, 1.0) for name, ratio in shown.items())
        >>> tied([pick, near, far], pick)
        {'b'}
    """
    near = {way.name for way in ways if verdict(way.counted) != SLOWER and way.counted[2] >= pick.counted[0]}
    return near - {pick.name}


def contested(ways: Sequence[Way]) -> list[Way]:
    """Return the ways of a higher median than the pick whose quartiles are too far apart for a verdict.

    Example:
        >>> steady, wild = (Way(name, 0.0, 1, ratio, 1.0) for name, ratio in ((MAP, (2, 2, 2)), (SPLINE, (1, 3, 4))))
        >>> [way.name for way in contested([steady, wild])], contested([steady]), contested([wild])
        (['a cubic spline'], [], [])
    """
    pick = chosen(ways)
    if not isinstance(pick, Way):
        return []
    return [way for way in ways if verdict(way.counted) == EVEN and way.counted[1] > pick.counted[1]]


def swings(found: dict[str, Numbers], row: Numbers) -> float:
    """Return how often the phase of a typical echo turns over the band: delay spread times bandwidth, in one digit."""
    named = re.search(r"(\d+) ns", row["name"])
    delay = int(named.group(1)) if named else DELAY
    return float(f"{delay * 1e-9 * SPACING * matrices(found, row):.0e}")


def one_parameter(found: dict[str, Numbers], situation: str, page: str, rows: list[Numbers]) -> Decision:
    """Return the decision for problems of the study of speed; what to pick follows from their quartiles."""
    maps, others = [in_pieces(row) for row in rows], [peers(row) for row in rows]
    every = [[own, *rivals] for own, rivals in zip(maps, others)]
    picks = [chosen(ways) for ways in every]
    exact = listed(sorted({EXACT[strongest(row)] for row in rows}))
    splines = [way for row in rows if (way := spline(row))]
    if all(pick == SLOWER for pick in picks):
        over = (
            f"{between(1 / x.counted[1] for x in own)} times as fast as {name}"
            for name in (MAP, *SPLINES)
            if (own := named(every, [name]))
        )
        pick, speed, error = f"**{texts.capital(exact)}**", "; ".join(over), f"rounding (tolerance {tolerances(rows)})"
        names = []
    else:
        even = not all(isinstance(pick, Way) for pick in picks)
        good = [way.name for ways in every for way in ways if verdict(way.counted) != SLOWER]
        good = good if even else [pick.name for pick in picks]
        names = sorted(set(good), key=(MAP, *PEERS.values()).index)
        best = named(every, names)
        pick = texts.capital(" or ".join(names))
        if not set(names) & set(ASKED):
            pick = f"**{pick}** through {whole(way.solves for way in best)} exact results" + f" or **{exact}**" * even
        else:
            pick = f"**{pick}{f' or {exact}' * even}**"
        speed = against(exact, best, [] if MAP in names else maps)
        error = f"{power(way.error for way in best)} (tolerance {tolerances(rows)})"
    pays = [f"map {paid(maps)}"]
    if texts.without_nan([*(x.pays for x in splines), *(x.below for x in splines)]):
        pays.append(f"spline {paid(splines)}")
    for name in names:
        if name not in (MAP, *SPLINES):
            pays.append(f"{name.replace(' interpolation', '')} {paid(named(every, [name]))}")
    doubts = list(doubtful(rows, every))
    if doubts:
        pick = " ".join([*(doubt for doubt, _ in doubts), f"Of what was timed steadily: {pick}"])
        speed += "".join(f"; {way.name}: {ratio([way])} times" for _, wild in doubts for way in wild)
    elif not splines:
        speed += "; no spline of that tolerance was timed"
    changes = f"{whole(int(swings(found, row)) for row in rows)} swings; {whole(x.solves for x in maps)} solves"
    return Decision(f"[{situation}, CPU]({CHAPTERS}{page}.ipynb)", changes, pick, speed, error, "; ".join(pays))


def doubtful(rows: Sequence[Numbers], every: Sequence[Sequence[Way]]) -> Iterator[tuple[str, list[Way]]]:
    """Yield for each problem that is not decided a sentence that says so, and the ways whose times spread too far."""
    for row, ways in zip(rows, every):
        wild = contested(ways)
        names = list(dict.fromkeys([*unsteady(row, ways), *(way.name for way in wild)]))
        if names:
            yield VARIED.format(f" for {row['name']}" * (len(rows) > 1), listed(names)), wild


def named(every: Sequence[Sequence[Way]], names: Sequence[str]) -> list[Way]:
    """Return the ways of all problems that have one of the names."""
    return [way for ways in every for way in ways if way.name in names]


def against(exact: str, picked: Sequence[Way], others: Sequence[Way]) -> str:
    """Return how many times as fast as the exact method a pick is, and how many times the other way is."""
    text = f"{ratio(picked)} times as fast as {exact}"
    return f"{text}; {others[0].name}: {ratio(others)} times" if others else text


def ratio(ways: Sequence[Way]) -> str:
    """Return how many times as fast as the exact method ways are: of one with its quartiles, of several the range."""
    return texts.spread(ways[0].counted) if len(ways) == 1 else between(way.counted[1] for way in ways)


# Problems on a GPU


def on_a_gpu(found: dict[str, Numbers]) -> dict[str, tuple[Ratio, Ratio, Ratio | None]]:
    """Return ratios over the strongest exact method on the GPU of the record, by the name of the problem.

    They are those of the map after its fit and with it, and of a cubic spline with its exact solves.
    """
    shown = {}
    for word, exact in (("svd", "Gram matrix"), ("lmmse", "Cholesky")):
        for channel, entry in found["beyond_the_inverse"][word].items():
            faster = entry["faster"][exact]
            name = f"{word.upper()} CDL-{channel[0]}, {channel[1:]} ns"
            shown[name] = tuple(
                known(faster[key]) if key in faster else None for key in ("map", "fit and map", "solves and cubic")
            )
    return shown


def known(value: float | Ratio) -> Ratio:
    """Return a ratio with its quartiles; where the record kept the median alone, that three times."""
    return (value,) * 3 if isinstance(value, (int, float)) else value


def gpu_after(found: dict[str, Numbers]) -> str:
    """Return how many times as long as exactly solved on the GPU a value of a map takes once it is fitted."""
    return between(1 / after[1] for after, *_ in on_a_gpu(found).values())


def gpu_orthonormal(found: dict[str, Numbers]) -> str:
    """Return the same for singular vectors whose columns are made orthonormal, as those of the exact method are."""
    entries = found["beyond_the_inverse"]["svd"].values()
    return between(1 / middle(x["faster"]["Gram matrix"]["map, orthonormal"]) for x in entries)


def gpu_inverses(found: dict[str, Numbers]) -> str:
    """Return the same for inverses by a map of fixed rank, beside the fastest exact method of each channel."""
    times_of = [found["to_the_limit"][channel]["relative_time"] for channel in ("cdl_a", "cdl_c")]
    return between(middle(own["closed form"]) / middle(own[fastest(own)]) for own in times_of)


def gpu_fastest(found: dict[str, Numbers]) -> str:
    """Return the fastest exact methods for inverses on the GPU."""
    names = {fastest(found["to_the_limit"][channel]["relative_time"]) for channel in ("cdl_a", "cdl_c")}
    return listed(sorted(name.replace(", ", "'s ") for name in names))


def fastest(own: Numbers) -> str:
    """Return the exact method of the least time for inverses."""
    return min(EXACT_INVERSES, key=lambda name: middle(own[name]))


def gpu_splines(found: dict[str, Numbers]) -> list[Ratio]:
    """Return of SciPy's splines of equalisers, their solves counted, how many times as fast as Cholesky they are."""
    over = [entry["faster"]["Cholesky"] for entry in found["beyond_the_inverse"]["lmmse"].values()]
    return [known(own[f"solves and {name}"]) for own in over for name in ("cubic", "linear")]


def gpu_groups(found: dict[str, Numbers], way: str) -> list[Ratio]:
    """Return of a way to groups of subcarriers, all of it on the GPU, how many times as fast as solving all it is."""
    over = [entry["faster"]["Gram matrix"] for entry in found["beyond_the_inverse"]["svd"].values()]
    return [known(ratio) for own in over for name, ratio in own.items() if name.startswith(way)]


def gpu(found: dict[str, Numbers]) -> Decision:
    """Return the decision for a GPU."""
    maps = [own for _, own, _ in on_a_gpu(found).values()]
    slower = maps, gpu_splines(found), gpu_groups(found, LINES)
    over_maps, over_splines, over_lines = (between(1 / x[1] for x in own) for own in slower)
    held = between(x[1] for x in gpu_groups(found, ONE))
    return Decision(
        f"[Singular vectors and equalisers, GPU]({CHAPTERS}beyond_the_inverse.ipynb)",
        f"{whole(int(swings(found, {'name': name})) for name in on_a_gpu(found))} swings",
        "**Solve exactly**, in a batch, by eigenvectors of the Gram matrix and by Cholesky factors",
        f"{over_maps} times as fast as a map with its fit (that of singular vectors takes general SVDs); "
        f"{over_splines} times as fast as SciPy's splines of equalisers, built on the host; {over_lines} times as fast "
        "as linear interpolation between bases of singular vectors on the GPU. One basis held for 24 or 48 subcarriers "
        f"is {held} times as fast as solving all, and loses some rate",
        "rounding",
        f"not recorded; once fitted, a map takes {gpu_after(found)} times as long as solving (orthonormal singular "
        f"vectors {gpu_orthonormal(found)} times)",
    )


# Problems that users brought


# Its matrices that are smaller than those of the table.
SMALLER = ("bands", "touchstone")
# What the chapter on users' matrices calls a reduced basis of matrices that are projected once.
PROJECTED = "reduced basis, projected once"
# Other ways of that chapter.
SPARSE, AAA = "sparse solves", "AAA"
# What it calls the modes of a stiffness and a mass, exact with the damping of its model.
MODES = "modes of K and M, damping proportional"
SEVERAL = ("slot at", "Green's function", "thermal block")


# Families of the synthetic experiments: with poles beside the interval, and of large matrices.
POLES, LARGE = ("poles", "resonances"), (64, 128, 256, 512)


def synthetic(found: dict[str, Numbers], part: str, kinds: Sequence[str], sizes: Sequence[int]) -> Decision:
    """Return the decision for synthetic families, of which shorter passes were timed than the one that is decided.

    Args:
        found: The records.
        part: Of the study.
        kinds, sizes: Which families.
    """
    rows = [x for x in found["synthetic_timings"][part] if x["kind"] in kinds and x["size"] in sizes]
    drawn = [x for x in found["synthetic_experiments"][part] if x["kind"] in kinds and x.get("size", 32) in sizes]
    beside, near = [synthetic_experiments.quickest(x) for x in rows], kinds == POLES
    other = rational(found) if near else " or Chebyshev interpolation, as accurate at size 32 but not timed"
    pays = [paying(own["pays"], x["solves"])[0] for own, x in zip(beside, rows)]
    known = [x for x in pays if math.isfinite(x)]
    some = f" in {len(known)} of {len(pays)} problems" * (math.inf in pays)
    later = f". From {counts(known)} on{some}, by extrapolation: **{MAP}**{other}" if known else ""
    situation = ", poles or resonances near" if near else f" to {max(sizes)} x {max(sizes)}, smooth"
    return Decision(
        f"[Inverses, {min(sizes)} x {min(sizes)}{situation}, CPU]({CHAPTERS}synthetic_experiments.ipynb)",
        f"{'poles' if near else 'below 1 swing'}; {whole(x['solves'] for x in drawn)} solves",
        f"{short_passes(rows)}{later}",
        f"{between(x['after'][1] for x in beside)} times as fast as the strongest exact method, after the fit; "
        f"{between(x['with the fit'][1] for x in beside)} times with it, in those passes",
        f"{power(x['error'] for x in drawn)} (tolerance {synthetic_experiments.TOL:.0e})",
        f"map {counts(known)}{some}, by extrapolation" if known else "map never",
    )


def short_passes(rows: Sequence[Numbers]) -> str:
    """Return in words what to pick for the passes of synthetic families that were timed, the fit of the map counted.

    Example:
        >>> def beside(*ratio):
        ...     slow, quick = {"after": (9, 9, 9)}, {"after": (3, 3, 3), "with the fit": ratio}
        ...     return {"NumPy loop": slow, "strongest exact": quick}
        >>> row = {"kind": "poles", "size": 32, "count": 400} | beside(0.6, 0.7, 0.8)
        >>> short_passes([row])
        'In passes of 400 matrices, as timed: **solve exactly**'
        >>> ratios = (1.9, 2.0, 2.1), (0.9, 1.1, 1.2), (math.nan,) * 3
        >>> won, even, refused = (beside(*ratio) for ratio in ratios)
        >>> short_passes([row, row | {"size": 64, "count": 99} | won, row | {"size": 65} | even, row | refused])
        'In passes of 99 to 400 matrices, as timed: **solve exactly**, but for n = 64 (the map wins) and n = 65 (even)'
    """
    titles, many = synthetic_experiments.TITLES, len({x["size"] for x in rows}) > 1
    ways: dict[str, list[str]] = {FASTER: [], EVEN: [], SLOWER: []}
    for x in rows:
        if not math.isnan((ratio := synthetic_experiments.quickest(x)["with the fit"])[1]):
            ways[verdict(ratio)].append(f"n = {x['size']}" if many else titles[x["kind"]])
    apart = [f"{name} ({how})" for word, how in ((FASTER, "the map wins"), (EVEN, "even")) for name in ways[word]]
    but = f", but for {listed(apart)}" if apart else ""
    return f"In passes of {whole(x['count'] for x in rows)} matrices, as timed: **solve exactly**{but}"


def rational(found: dict[str, Numbers]) -> str:
    """Return in words what does as well as the map near poles, from as many exact results, and what does not.

    A reduced basis of inverses adds up whole matrices, as many as it has exact results: so its definition counts it.
    """
    aaa, basis = most(near_poles(found, "aaa")), most(near_poles(found, "reduced basis", ("resonances",)))
    rows = [x for x in found["synthetic_experiments"]["difficulty"] if x["kind"] in POLES]
    terms = whole(x["peer_solves"]["reduced basis"] for x in rows)
    return (
        f". **AAA** (`nm.peers.aaa`; error at most {aaa} through at most as many exact results) needs only samples; it "
        f"was not timed here. A reduced basis is the most accurate on resonances ({basis}), but a value of it adds up "
        f"{terms} whole matrices, and was not timed here; splines err by "
        f"{between(poles(found))}"
    )


def poles(found: dict[str, Numbers]) -> list[float]:
    """Return the errors of splines through as many exact results as the map has, where there are poles."""
    return near_poles(found, "spline")


def near_poles(found: dict[str, Numbers], peer: str, kinds: Sequence[str] = POLES) -> list[float]:
    """Return the errors of a peer with at most as many exact results as the map has, where there are poles."""
    return [x["peers"][peer] for x in found["synthetic_experiments"]["difficulty"] if x["kind"] in kinds]


def membrane(found: dict[str, Numbers]) -> Numbers:
    """Return what the chapter *Your own matrices* shows of its finite-element model; empty where it has no times."""
    return found["chapters"].get("your_own_matrices", {}).get("membrane", {})


def better(own: Numbers, other: Numbers) -> list[str]:
    """Return in what a way is better than another one: by its error, and by the quartiles of their times.

    Example:
        >>> basis = {"solves": 12, "error": 2e-6, "time": (0.0017, 0.0020, 0.0024), "pays": (23.2, 24.6, 26.1)}
        >>> aaa = {"solves": 23, "error": 8e-8, "time": (0.0010, 0.0011, 0.0011), "pays": (19.7, 20.8, 22.1)}
        >>> better(aaa, basis), better(basis, aaa)
        (['a smaller error', 'a cheaper value', 'an earlier break-even'], ['fewer exact solves'])
        >>> better(aaa | {"time": (math.nan,) * 3}, basis)
        ['a smaller error', 'an earlier break-even']
    """
    found = {
        "fewer exact solves": own["solves"] < other["solves"],
        "a smaller error": own["error"] < other["error"],
        "a cheaper value": own["time"][2] < other["time"][0],
        "an earlier break-even": texts.settled_of(own)[2] < texts.settled_of(other)[0],
    }
    return [what for what, holds in found.items() if holds]


def pick_of_few(ways: Numbers) -> str:
    """Return what to pick for a sum of few fixed matrices: AAA or a reduced basis, in the order of the record.

    Records that were published before AAA ran, or before modes were summed, have no ways of these names.
    """
    exact = "; with proportional damping, as here, the modes of stiffness and mass, which are exact" * (MODES in ways)
    basis, once, aaa = "reduced basis**, the fixed matrices projected once", ways[PROJECTED], ways.get(AAA)
    if aaa is None:
        return f"**A {basis}{exact}"
    leads = {AAA: better(aaa, once), "the basis": better(once, aaa)}
    first = len(leads[AAA]) > len(leads["the basis"])
    pick = f"**{AAA}**, or **a {basis}" if first else f"**A {basis}, or **{AAA}**"
    reasons = [f"{name} has {listed(own)}" for name, own in leads.items() if own]
    return f"{pick} ({'; '.join([*reasons, f'{AAA} needs only samples'])}){exact}"


def few_fixed(found: dict[str, Numbers]) -> Decision:
    """Return the decision for a sum of few fixed matrices: the finite-element model of *Your own matrices*."""
    shown = membrane(found)
    own, once, sparse = (shown["ways"][name] for name in ("this map", PROJECTED, SPARSE))
    unknowns, aaa = shown["shape"][0], shown["ways"].get(AAA)
    named_ways = [("AAA", aaa)] * (aaa is not None) + [("projected", once), ("map", own)]
    solves = ", ".join(f"{name} {x['solves']}" for name, x in named_ways)
    return Decision(
        f"[Solves, matrices that are a sum of few fixed ones, CPU]({CHAPTERS}your_own_matrices.ipynb)",
        f"finite elements, {unknowns} unknowns, resonances; solves: {solves}",
        pick_of_few(shown["ways"]),
        "in dense solves a value takes "
        + ", ".join(f"{texts.spread(x['time'])} ({name})" for name, x in [*named_ways, ("a sparse solve", sparse)]),
        ", ".join(f"{power([x['error']])} ({name})" for name, x in named_ways) + f"; tolerance {shown['tol']:.0e}",
        "; ".join(
            f"{name} {paid_short(texts.settled_of(x))}, beside sparse solves {paid_short(texts.settled_of(x, sparse))}"
            for name, x in named_ways
        )
        + "; of one run",
    )


def paid_short(pays: Ratio) -> str:
    """Return the median of a break-even, or the limit where it is not settled.

    Example:
        >>> paid_short((71.0, 72.4, 83.7)), paid_short((0.0, 23.0, 23.0)), paid_short((math.nan,) * 3)
        ('72', 'below 23 (not settled)', 'not timed')
    """
    return f"{texts.below(pays[1])} (not settled)" if texts.unsettled(pays) else counts([pays[1]])


def from_where(pays: Ratio) -> str:
    """Return from how many values on something pays, as a sentence has it behind the verb.

    Example:
        >>> from_where((71.0, 72.4, 83.7)), from_where((0.0, 23.0, 23.0))
        ('from 72 values on', 'below 23 values, and the clock settles no more')
    """
    if texts.unsettled(pays):
        return f"{texts.below(pays[1])} values, and the clock settles no more"
    return f"from {counts([pays[1]])} values on"


def aaa_on_elements(found: dict[str, Numbers]) -> str:
    """Return the sentence on AAA beside the map on the finite-element model, with its numbers.

    Example:
        >>> aaa_on_elements({"chapters": {}})
        'On the finite-element model it was not timed.'
    """
    ways = membrane(found).get("ways", {})
    if AAA not in ways or math.isnan(ways[AAA]["pays"][1]) or math.isnan(ways["this map"]["pays"][1]):
        return "On the finite-element model it was not timed."
    own, aaa = ways["this map"], ways[AAA]
    by = [what for what in better(aaa, own) if what != "fewer exact solves"]
    beside = f"has {listed(by)} than the map" if by else "has no advantage over the map"
    errors, starts = [power([x["error"]]) for x in (aaa, own)], [from_where(texts.settled_of(x)) for x in (aaa, own)]
    return (
        f"On the finite-element model AAA through {aaa['solves']} solves {beside}, which took {own['solves']}. It errs "
        f"by {errors[0]}, the map by {errors[1]}; it pays {starts[0]}, the map {starts[1]} (of one run)."
    )


def several(found: dict[str, Numbers]) -> Decision:
    """Return the decision for two to four parameters; a fit pays after the exact solves of its time at the earliest."""
    brought = [x for x in found["cases"]["cases"] if x["name"].startswith(SEVERAL)]
    passed = found["several_parameters_study"]["wireless"]
    number = passed["subcarriers"] * passed["levels"]
    eigen, slots = passed["break_even"]["eigendecomposition per frequency"], slot(found)
    return Decision(
        f"[Two or more parameters, CPU]({CHAPTERS}several_parameters.ipynb)",
        f"each its own way; with two and four parameters {whole(x['solves'] for x in brought)} solves",
        "**Solve exactly**, or hold or interpolate exact results along a parameter that changes little; for "
        "solutions with few right-hand sides a sum of few fixed matrices is projected once, as long as the basis stays "
        "small",
        f"over frequency and time of a slot, {slots['slot_count']} matrices, a map in pieces is "
        f"{slots['slot_ratios']} times as fast as solving all. Over frequency and noise, {number:,} equalisers, a map "
        f"of fixed rank, fitted with the residual, takes {texts.spread(passed['whole'])} times as long as a NumPy "
        f"loop; it pays from {count(eigen[1])} on beside eigendecompositions",
        "rounding, where each is solved",
        f"not before {counts(x['multiple'] for x in brought)}",
    )


def slot(found: dict[str, Numbers]) -> dict[str, str]:
    """Return what maps over frequency and time of one slot win beside the strongest exact method, fits counted."""
    rows = found["frequency_and_time"]["slot"]
    ratios = [ratio for row in rows for ratio in [row.get("Cholesky", row.get("Gram"))] if not math.isnan(ratio[1])]
    size = max(row["count"] for row in rows)
    return {
        "slot_count": f"{size:,}",
        "slot_middle": f"{size // SLOT:,}",
        "slot_problems": str(len(rows)),
        "slot_wins": str([verdict(ratio) for ratio in ratios].count(FASTER)),
        "slot_ratios": between(ratio[1] for ratio in ratios),
        "slot_lost": most(row["lost, still"] for row in rows),
        "slot_blocks": str(max(row["both solves"] for row in rows)),
        "slot_blocks_lost": most(row["lost, both"] for row in rows if math.isclose(row["spread"], SHORT)),
        "slot_held": between(1 / row["still"][1] for row in rows),
    }


def links(found: dict[str, Numbers]) -> dict[str, str]:
    """Return of how many links there are block error rates, and where one filter for each resource block is worse.

    For each link the best of its ways counts: held, held with gain and noise of each tone, or linear between filters.
    """
    curves, missing = found["link_level"]["curves"], found["link_level"]["missing"]
    there = {f"{own['channel']}, {own['modulation']}, {own['csi']}" for own in curves}
    number, noisy = len(there | set(missing)), sum(own["csi"] == "estimated" for own in curves)
    some = f"so far of {len(there)} of {number} settings" if missing else f"of {number} settings"
    ways = [([own["loss"][way][0] for way in PER_BLOCK], own["loss"]["block"][0]) for own in curves]
    # Where none comes to the rate at which receivers are compared, and the block does, they are worse as well.
    worse = sum(all(low > 0 or (math.isnan(low) and not math.isnan(block)) for low in lows) for lows, block in ways)
    return {
        "links": f"{some}, {noisy or 'none'} of them with estimated channels",
        "links_held": f"{worse} of {len(there)}",
    }


def reduced(found: dict[str, Numbers]) -> tuple[Ratio, Ratio] | None:
    """Return from how many values on a reduced basis pays beside sparse solves: our peer, and one projected once.

    None where the chapter that times them has no times.
    """
    ways = membrane(found).get("ways")
    return ways and tuple(texts.settled_of(ways[name], ways[SPARSE]) for name in ("reduced basis", PROJECTED))


def basis(found: dict[str, Numbers]) -> str:
    """Return the sentences on when a reduced basis of a finite-element model pays, of one parameter.

    Example:
        >>> basis({"chapters": {}})
        'Beside sparse solves it was not timed.'
    """
    shown = reduced(found)
    if not shown or math.isnan(shown[0][1]) or math.isnan(shown[1][1]):
        return "Beside sparse solves it was not timed."
    peer, once = (f"paid {from_where(x)}" if math.isfinite(x[1]) else "never paid" for x in shown)
    beside = "Beside sparse solves of one parameter"
    return f"{beside} `nm.peers.reduced_basis` {peer} where we timed it; what is projected once {once} (of one run)."


def timed_basis(found: dict[str, Numbers]) -> tuple[Ratio, Ratio] | None:
    """Return how long a value of a reduced basis of four parameters takes in dense exact ones, and projected once.

    None where the record has no such times.
    """
    times = found["several_parameters_study"]["anisotropic"]["thermal_constant"].get("times")
    if times is None or math.isnan(times["over exact"][anisotropic.ONCE][1]):
        return None
    return tuple(times["over exact"][name] for name in (anisotropic.REDUCED, anisotropic.ONCE))


def basis_of_several(found: dict[str, Numbers]) -> str:
    """Return the sentence on the time of a reduced basis of several parameters."""
    timed = timed_basis(found)
    if timed is None:
        return "With several parameters its errors are measured, its times are not."
    peer, once = map(texts.spread, timed)
    return f"With four parameters a value takes {peer} times as long as a dense exact one, projected once {once} times."


def trained(found: dict[str, Numbers]) -> Numbers:
    """Return the best trial of the search for CDL-C, with its error and its cost in inversions by NumPy."""
    trials = [x for x in found["training_search"]["trials"] if x["family"] == "cdl_c"]
    return min(trials, key=lambda x: x["error"])


# What stands on the pages


def decisions(found: dict[str, Numbers]) -> list[Decision]:
    """Return the table of decisions."""

    def rows(word: str, *texts: str) -> list[Numbers]:
        return [row for row in found["speed"][word] if any(text in row["name"] for text in texts)]

    singular, filters = "Four leading singular vectors, 16 x 64", "Equalisers, 64 antennas,"
    leading = one_parameter(found, singular, "measured", rows("svd", " 30 ns"))
    return [
        replace(leading, changes=leading.changes.replace("swings;", f"swings ({EXPLAINED});")),
        one_parameter(found, singular, "measured", rows("svd", "100 ns")),
        one_parameter(found, "Inverses, 64 x 64, 128 x 128", "measured", rows("inverse", "64 x 64", "128 x 128")),
        one_parameter(found, "Inverses, 32 x 32", "measured", rows("inverse", "32 x 32, 30 ns")),
        one_parameter(found, "Inverses, 32 x 32", "measured", rows("inverse", "32 x 32, 300 ns")),
        one_parameter(found, f"{filters} 32 streams, directional users", "measured", rows("lmmse", "x 32")),
        with_loss(
            found,
            one_parameter(found, f"{filters} 8 streams, omnidirectional users", "measured", rows("lmmse", "x 8")),
        ),
        synthetic(found, "size", ("smooth",), LARGE),
        synthetic(found, "difficulty", POLES, (32,)),
        few_fixed(found),
        gpu(found),
        several(found),
    ]


def table(found: dict[str, Numbers]) -> provenance.Table:
    """Return the table of decisions; sizes of matrices stay on one line."""
    rows = [[re.sub(r"(\d) x (\d)", "\\1\u00a0×\u00a0\\2", cell) for cell in astuple(row)] for row in decisions(found)]
    return provenance.Table(HEADER, rows)


def claims(found: dict[str, Numbers]) -> Iterator[tuple[str, bool]]:
    """Yield what the sentences of both pages say, and whether the records bear it out."""
    rows, on_gpu = timed(found), on_a_gpu(found)
    after, counted = zip(*map(ratios, rows))
    limit, best = found["to_the_limit"]["cdl_c"], trained(found)
    errors, verdicts = limit["errors"], [verdict(x) for x in counted]
    yield "gradient training is less accurate than a spline", best["error"] > 2 * errors["cubic spline"]
    yield "the closed form is near its limit", errors["closed form"] < 1.1 * limit["limit"]
    yield "a spline is more accurate than the closed form", errors["cubic spline"] < errors["closed form"]
    yield "on a CPU the map is faster after its fit", {verdict(x) for x in after} == {FASTER}
    yield "on a CPU the map wins some passes and loses some", {FASTER, SLOWER} <= set(verdicts)
    yield "on a GPU the exact methods are faster", {verdict(x) for _, x, _ in on_gpu.values()} == {SLOWER}
    yield "on a GPU SciPy's splines are slower, too", {verdict(x) for x in gpu_splines(found)} == {SLOWER}
    yield "on a GPU linear interpolation is slower, too", {verdict(x) for x in gpu_groups(found, LINES)} == {SLOWER}
    yield "on a GPU what is held is faster", {verdict(x) for x in gpu_groups(found, ONE)} == {FASTER}
    lost = (x for own in found["beyond_the_inverse"]["svd"].values() for key, x in own["losses"].items() if ONE in key)
    yield "what is held loses some rate", min(lost) > 0
    sure = certified(found)
    yield "a certificate takes longer than Cholesky factors", sure is None or verdict(sure[1]) == FASTER
    both = [(own, in_pieces(row)) for row in rows if (own := spline(row))]
    quicker = sum(own.counted[1] > pieces.counted[1] for own, pieces in both)
    yield "for one pass a spline is often faster than the map in pieces", 2 * quicker >= len(both)
    vectors = [(way, in_pieces(row)) for row in rows if "SVD" in row["name"] and (way := spline(row))]
    faster = all(way.counted[1] > pieces.counted[1] for way, pieces in vectors)
    yield "beside poles a spline through as many results is useless", min(poles(found)) > 0.1
    tol = synthetic_experiments.TOL
    yield "beside poles AAA is accurate enough", max(near_poles(found, "aaa")) < tol
    yield "beside poles a reduced basis is accurate enough", max(near_poles(found, "reduced basis")) < tol
    near = [near_poles(found, name, ("resonances",)) for name in ("reduced basis", "aaa")]
    own = [x["error"] for x in found["synthetic_experiments"]["difficulty"] if x["kind"] == "resonances"]
    yield "on resonances a reduced basis is the most accurate", max(near[0]) < min(max(near[1]), max(own))
    smooth = [x for x in found["synthetic_experiments"]["difficulty"] if x["kind"] == "smooth"]
    yield "of smooth families Chebyshev is as accurate", all(x["peers"]["chebyshev"] < 2 * x["error"] for x in smooth)
    yield "for singular vectors a spline through aligned triplets is faster than the map in pieces", faster
    slow, quick = paces(found)
    cheap = min(slow) < min(quick) and max(slow) < max(quick) / 3
    yield "fits of slow solves cost few of them, of quick ones many", cheap
    wins = [row.get("Cholesky", row.get("Gram")) for row in found["frequency_and_time"]["slot"]]
    yield "maps over a slot win some passes", FASTER in {verdict(x) for x in wins if not math.isnan(x[1])}
    three = [x for x in found["synthetic_experiments"]["dimension"] if x["dimension"] == 3]
    hard = ("poles", "decades")
    yield "in three parameters it is poles and decades that stop", all(x["met"] != (x["kind"] in hard) for x in three)
    least = 0.9 * synthetic_experiments.MOST_SOLVES
    yield "what stops does so near its limit", all(x["solves"] > least for x in three if not x["met"])
    counts_of = found["swings"]["counts"]
    fewer = (
        share < 1 for key in ups_and_downs.MATRICES for x in "AC" for share in ups_and_downs.shares(counts_of, x, key)
    )
    yield "entries go up and down less often than swings say", all(fewer)
    beside = [row["Sionna"] for row in found["blocks"]["blocks"] if not math.isnan(row["Sionna"][1])]
    yield "our equaliser is faster than Sionna's in all slots", {verdict(x) for x in beside} <= {FASTER}
    yield "a step is met nowhere", all(x["met"] == 0 for x in found["families"]["groups"] if x["kind"] == "steps")
    exact = {(row["name"].split()[0], strongest(row)) for row in rows}
    yield (
        "the strongest exact methods are Gram's and Cholesky's",
        exact == {("SVD", "Gram"), ("LMMSE", "Cholesky"), ("inverse", "Cholesky")},
    )


def numbers(found: dict[str, Numbers]) -> dict[str, str]:
    """Return the numbers of the sentences on both pages.

    Raises:
        ValueError: If a record no longer supports a sentence; the message says which.
    """
    for claim, holds in claims(found):
        if not holds:
            raise ValueError(f"`records`: expected that {claim}, as the introduction says; rewrite its sentence.")
    return _speeds(found) | _checks(found) | _training(found) | slot(found) | links(found)


def _speeds(found: dict[str, Numbers]) -> dict[str, str]:
    rows, on_gpu = timed(found), on_a_gpu(found)
    after, counted = zip(*map(ratios, rows))
    number, wins = found["to_the_limit"]["cdl_c"]["count"], [verdict(x) for x in counted]
    unrecorded = all(low == high for both in on_gpu.values() for low, _, high in filter(None, both))
    loops = [row["NumPy loop: with the fit"][1] for row in rows if "NumPy loop: with the fit" in row]
    return {
        "after": between(x[1] for x in after),
        "after_one": between(ratios(row)[0][1] for row in rows if not row["name"].startswith("SVD")),
        "after_vectors": between(ratios(row)[0][1] for row in rows if row["name"].startswith("SVD")),
        "ties": str(len(wins) - wins.count(FASTER) - wins.count(SLOWER)),
        "problems": str(len(rows)),
        "wins": str(wins.count(FASTER)),
        "losses": str(wins.count(SLOWER)),
        "pass": f"{number:,}",
        "pays": paid(in_pieces(row) for row in rows),
        "copies": between(row["over a copy"][1] for row in rows),
        "unsorted": between(row["unsorted over a copy"][1] for row in rows),
        "conditions": texts.conditions(*(row["conditions"] for row in rows)),
        "gpu_day": found["days"]["beyond_the_inverse"],
        "search_day": found["days"]["training_search"],
        "first": first(found),
        "exact_first": exact_first(found),
        "orthonormal": orthonormal(found),
        "longer": " ".join(filter(None, (longer(found), longest(found)))),
        "tolerant": tolerant(found),
        "aaa": most(near_poles(found, "aaa")),
        "basis_at_poles": most(near_poles(found, "reduced basis")),
        "bands": bands(found),
        "smaller": smaller(found),
        "checking": checking(found),
        "precoders": precoders(found),
        "spline_after": between(spline_after(row)[1] for row in rows if spline(row)),
        "pole_splines": between(poles(found)),
        "short_passes": whole(x["count"] for part in ("difficulty", "size") for x in found["synthetic_timings"][part]),
        "spline_pays": paid(own for row in rows if (own := spline(row))),
        "chebyshev_pays": paid(own for row in rows for own in peers(row) if own.name == PEERS["Chebyshev"]),
        "snr": SNR,
        "aaa_on_elements": aaa_on_elements(found),
        "stored": whole(row["solves"] for row in rows),
        "splines": splines(found),
        "gpu": between(1 / middle(x) for _, x, _ in on_gpu.values()),
        "gpu_after": gpu_after(found),
        "gpu_orthonormal": gpu_orthonormal(found),
        "gpu_inverses": gpu_inverses(found),
        "gpu_fastest": gpu_fastest(found),
        "gpu_spread": " Those of the GPU were not recorded." * unrecorded,
        "gpu_name": found["machines"]["beyond_the_inverse"]["gpu"],
        "rounding": most(_exact_errors(found)),
        "cores": str(found["machines"]["speed"]["cores"]),
        "loop": between(loops),
        "many": times(found["speed"]["many"][0]["separate fits over fit_many"][1]),
        "many_name": found["speed"]["many"][0]["name"],
    }


def tolerances(rows: Sequence[Numbers]) -> str:
    """Return the tolerances of problems, the finest first."""
    return " or ".join(f"{tol:.0e}" for tol in sorted({row["tol"] for row in rows}))


def _exact_errors(found: dict[str, Numbers]) -> Iterator[float]:
    """Yield the errors of the strongest exact methods in single precision."""
    beyond, limit = found["beyond_the_inverse"], found["to_the_limit"]
    yield from (entry["error_gram"] for entry in beyond["svd"].values())
    yield from (entry["errors"]["Cholesky"] for entry in beyond["lmmse"].values())
    yield from (limit[channel]["errors"]["torch, Cholesky"] for channel in ("cdl_a", "cdl_c"))


def splines(found: dict[str, Numbers]) -> str:
    """Return the sentence on splines on a CPU, for the problems of which one was timed."""
    both = [(own, in_pieces(row)) for row in timed(found) if (own := spline(row))]
    if not both:
        return "no spline was timed on this machine"
    own, maps = (between(way.counted[1] for way in ways) for ways in zip(*both))
    number = "the one problem" if len(both) == 1 else f"{len(both)} problems"
    return (
        f"for one pass it is {own} times as fast as the strongest exact method in {number} on a CPU; the map in "
        f"pieces is {maps} times"
    )


def orthonormal(found: dict[str, Numbers]) -> str:
    """Return how fast a map of fixed rank is beside the Gram matrix, without and with columns orthonormal to rounding.

    Example:
        >>> orthonormal({"chapters": {}})
        'not timed here'
    """
    by_channel = found["chapters"].get("beyond_the_inverse", {}).get("svd", {})
    if not by_channel:
        return "not timed here"
    plain, made = (
        between(x["faster"]["Gram matrix"][way][1] for x in by_channel.values()) for way in ("map", "map, orthonormal")
    )
    return (
        f"with orthonormal columns a map of fixed rank, once fitted, is {made} times as fast as the eigenvectors of "
        f"the Gram matrix, and {plain} times without, on {len(by_channel)} channels"
    )


def first(found: dict[str, Numbers]) -> str:
    """Return what to try first with one parameter: what interpolates fastest, where it beats exact methods.

    Example:
        >>> def row(tol, name="inverse", **ways):
        ...     way = {"error": 0.0, "solves": 9, "a: pays": [1, 1, 1]}
        ...     own = {key.replace("_", " "): way | {"a: with the fit": [x] * 3} for key, x in ways.items()}
        ...     row = {"tol": tol, "a: after": [1] * 3, "a: with the fit": [1] * 3, "interpolation": own}
        ...     return row | {"name": name}
        >>> def told(*rows):
        ...     return first({"speed": {"svd": [], "lmmse": [], "inverse": rows}})
        >>> fine, coarse = row(1e-4, Chebyshev=3, cubic_spline=2), row(1e-2, cubic_spline=2, linear_spline=3)
        >>> told(fine)
        'Chebyshev interpolation'
        >>> told(row(1e-4, Chebyshev=3, cubic_spline=3))
        'Chebyshev interpolation or a cubic spline (which the clock does not tell apart)'
        >>> told(row(1e-4, Chebyshev=3, cubic_spline=3), row(1e-2, Chebyshev=3, cubic_spline=2))
        'Chebyshev interpolation'
        >>> told(fine, coarse)
        'linear interpolation for a tolerance of 0.01, Chebyshev interpolation for a finer one'
        >>> told(fine, coarse, row(1e-2, cubic_spline=0.5)) == told(fine, coarse)
        True
        >>> told(coarse, row(1e-3, "SVD", aligned_spline=5))
        'linear interpolation, for singular vectors a cubic spline through aligned ones'
        >>> told(coarse, fine, row(1e-2, Chebyshev=5), row(1e-3, Chebyshev=0.5))
        'Chebyshev interpolation or linear interpolation (the table says which)'
    """
    one, aligned = (
        _quickest([row for row in timed(found) if row["name"].startswith("SVD") == vectors])
        for vectors in (False, True)
    )
    told = [one, f"for singular vectors {aligned} through aligned ones" if aligned else ""]
    return ", ".join(filter(None, told)) or "exact solves"


def exact_first(found: dict[str, Numbers]) -> str:
    """Return where exact solves take less time for one pass than all that interpolates, and where about as much.

    Example:
        >>> way = {"error": 0.0, "solves": 9, "a: pays": [1, 1, 1]}
        >>> def told(*speeds):
        ...     rows = [
        ...         {"name": f"inverse {x}", "tol": 0.01, "a: after": [1] * 3, "a: with the fit": [1] * 3}
        ...         | {"interpolation": {"cubic spline": way | {"a: with the fit": [x] * 3}}}
        ...         for x in speeds
        ...     ]
        ...     return exact_first({"speed": {"svd": [], "lmmse": [], "inverse": rows}})
        >>> told(3, 0.5), told(3)
        ('exact solves are faster in 1 of 2 problems (inverse 0.5)', 'exact solves are faster in none of 1 problems')
        >>> told(3, 1)
        'exact solves are faster in none of 2 problems, and about as fast in 1 (inverse 1)'
    """
    rows = timed(found)
    picks = {row["name"]: chosen(peers(row)) for row in rows}
    won, even = ([name for name, pick in picks.items() if pick == kind] for kind in (SLOWER, EVEN))
    said = f"exact solves are faster in {len(won) or 'none'} of {len(rows)} problems"
    said += f" ({'; '.join(won)})" * bool(won)
    return said + f", and about as fast in {len(even)} ({'; '.join(even)})" * bool(even)


def _quickest(rows: Sequence[Numbers]) -> str:
    """Return what interpolates fastest, by the tolerance; nothing where exact methods are faster."""
    names: dict[float, set[str]] = {}
    alike: dict[float, list[set[str]]] = {}
    for row in rows:
        if isinstance(pick := chosen(peers(row)), Way):
            names.setdefault(row["tol"], set()).add(pick.name)
            alike.setdefault(row["tol"], []).append(tied(peers(row), pick))
    every = sorted(set().union(*names.values()))

    def told(*tols: float) -> str:
        others = sorted(set.intersection(*(own for tol in tols for own in alike[tol])))
        return " or ".join([*names[tols[0]], *others]) + " (which the clock does not tell apart)" * bool(others)

    if len(names) == len(every) == 2 and all(len(own) == 1 for own in names.values()):
        coarse, fine = map(told, sorted(names, reverse=True))
        return f"{coarse} for a tolerance of {max(names):g}, {fine} for a finer one"
    if len(every) == 1:
        return told(*names)
    return " or ".join(every) + " (the table says which)" * (len(every) > 1)


def longer(found: dict[str, Numbers]) -> str:
    """Return what a cubic spline gives for more passes where Chebyshev interpolation is the pick for one; else nothing.

    It pays within `TENS` passes, and a linear one, which is dearer, does not.

    Example:
        >>> def told(**after):
        ...     ways = {
        ...         key.replace("_", " "): {"error": 0.0, "solves": 9, "a: pays": [1, 1, 1]}
        ...         | {"a: with the fit": [x] * 3, "a: after": [y] * 3}
        ...         for key, (x, y) in after.items()
        ...     }
        ...     row = {"tol": 1e-4, "a: after": [1] * 3, "a: with the fit": [1] * 3, "interpolation": ways}
        ...     return longer({"speed": {"svd": [], "lmmse": [], "inverse": [row | {"name": "inverse"}]}})
        >>> told(Chebyshev=(3, 4), cubic_spline=(2, 8)).split(": ")[1]
        'once made it is 8.0 times as fast as the strongest exact method, and Chebyshev interpolation 4.0 times.'
        >>> told(Chebyshev=(3, 9), cubic_spline=(2, 8)), told(Chebyshev=(3, 4), cubic_spline=(0.2, 8))
        ('', '')
        >>> told(Chebyshev=(3, 4), cubic_spline=(2, 8), linear_spline=(1.9, 16))
        ''
    """
    pairs, tens, passes = [], [], []
    for row in timed(found):
        pick, own = chosen(peers(row)), row.get("interpolation", {})
        if isinstance(pick, Way) and pick.name == PEERS["Chebyshev"] and "cubic spline" in own:
            pairs.append([own[key][f"{strongest(row)}: after"] for key in ("cubic spline", "Chebyshev")])
            passes.append(overtakes(row, "cubic spline", "Chebyshev"))
            tens.append(passes[-1] < TENS)
            tens.append("linear spline" not in own or not overtakes(row, "linear spline", "cubic spline") < TENS)
    if not pairs or not all(one[0] > other[2] for one, other in pairs) or not all(tens):
        return ""
    spline, chebyshev = (between(x[1] for x in ways) for ways in zip(*pairs))
    soon = "from the second pass on, by the medians" if max(passes) <= 2 else "for some ten passes from one fit"
    return (
        f"In place of Chebyshev interpolation take a cubic spline {soon}: once made it is {spline} times as fast as "
        f"the strongest exact method, and Chebyshev interpolation {chebyshev} times."
    )


def overtakes(row: Numbers, quick: str, other: str) -> float:
    """Return after how many passes what is quick once made has taken less time than another way, both fits counted.

    From medians, so no page shows it: the words *second*, *some ten* and *hundreds* hang on it.
    """
    ways = [row["interpolation"][name] for name in (quick, other)]
    (value, first), (its_value, its_first) = (
        [1 / way[f"{strongest(row)}: {x}"][1] for x in measurements.WHEN] for way in ways
    )
    saved = its_value - value
    more = (first - its_first) / saved if saved > 0 else math.inf
    return max(1, math.floor(more + 1) + 1) if math.isfinite(more) else more


def both_splines(found: dict[str, Numbers]) -> Iterator[tuple[Numbers, str, str]]:
    """Yield the problems in which a linear and a cubic spline were timed, with their names there."""
    for row in timed(found):
        for names in DEGREES:
            own = [row.get("interpolation", {}).get(name) for name in names]
            if all(own) and not any(
                math.isnan(x[f"{strongest(row)}: {when}"][1]) for x in own for when in measurements.WHEN
            ):
                yield row, *names


def longest(found: dict[str, Numbers]) -> str:
    """Return what a linear spline gives for hundreds of passes beside a cubic one; else nothing.

    Example:
        >>> def told(cubic, linear, name="inverse"):
        ...     ways = {
        ...         key: {"error": 0.0, "solves": solves, "a: with the fit": [x] * 3, "a: after": [y - 1, y, y + 1]}
        ...         for key, solves, (x, y) in (("cubic spline", 10, cubic), ("linear spline", 35, linear))
        ...     }
        ...     row = {"tol": 1e-4, "a: after": [1] * 3, "a: with the fit": [1] * 3, "interpolation": ways}
        ...     return longest({"speed": {"svd": [], "lmmse": [row | {"name": name}], "inverse": []}})
        >>> first, second, third = told((2, 8), (1, 16)).split(". ")
        >>> first.split(": ")[1], second
        ('once made it is 16 times as fast as the strongest exact method', 'Its median beats the cubic one in 1 of 1 \
problems, its quartiles in 1')
        >>> third
        'It goes through up to 3.5 times as many exact results.'
        >>> told((2, 8), (3, 9), "LMMSE 64 x 8")[:68]
        'For hundreds of passes, of equalisers from the first one on, take a '
        >>> told((2, 8), (1, 8)), told((2, 8), (0.02, 9))
        ('', '')
    """
    rows = list(both_splines(found))
    passes = {row["name"]: overtakes(row, *names) for row, *names in rows}
    if not rows or max(passes.values()) > HUNDRED:
        return ""
    solves, after = [], []
    for row, *names in rows:
        line, cubic = (row["interpolation"][name] for name in names)
        solves.append(line["solves"] / cubic["solves"])
        after.append([own[f"{strongest(row)}: after"] for own in (line, cubic)])
    higher, apart = sum(x[1] > y[1] for x, y in after), sum(x[0] > y[2] for x, y in after)
    equalisers = [count for name, count in passes.items() if name.startswith("LMMSE")]
    soon = ", of equalisers from the first one on," if equalisers and max(equalisers) == 1 else ""
    return (
        f"For hundreds of passes{soon} take a linear spline of the same tolerance: once made it is "
        f"{between(x[1] for x, _ in after)} times as fast as the strongest exact method. Its median beats the cubic "
        f"one in {higher} of {len(rows)} problems, its quartiles in {apart}. It goes through up to "
        f"{texts.at_least(max(solves)):g} times as many exact results."
    )


def tolerant(found: dict[str, Numbers]) -> str:
    """Return how the map is beside Chebyshev interpolation in pieces, which takes a tolerance as well."""
    rows = [row for row in timed(found) if measurements.PIECES in row.get("interpolation", {})]
    own = [row["interpolation"][measurements.PIECES] for row in rows]
    known, after = ([x[when] for x in own if not math.isnan(x[when][1])] for when in ("with the fit", "after"))
    if not known:
        return "which was not timed here"
    finer: dict[bool, list[float]] = {True: [], False: []}
    for row, x in zip(rows, own):
        if not math.isnan(x["with the fit"][1]):
            finer[verdict(x["with the fit"]) == SLOWER].append(row["error"] / x["error"])
    there, others = (f"{between(some)} times smaller" if some else "" for some in finer.values())
    said = f"; once fitted, the map is {texts.counted(after)} of {len(after)}" if after else ""
    won = f"which for one pass is faster than the map in {len(finer[True])} of {len(known)} problems"
    exact = [x[f"{strongest(row)}: with the fit"] for row, x in zip(rows, own)]
    exact = [x for x in exact if not math.isnan(x[1])]
    if exact:
        ends = between(x[1] for x in exact)
        said += f"; beside the strongest exact method it is {texts.counted(exact)}, {ends} times as fast"
    errors = f"; where it is faster its errors are {there}" * bool(there)
    return won + errors + f"; in the other problems its errors are {others}" * bool(others) + said


def bands(found: dict[str, Numbers]) -> str:
    """Return how the map of equalisers is beside exact ones on the bands of the chapter on inversion, fits counted."""
    rows = found["chapters"].get("wireless_inversion", {}).get("band_times", [])
    ways = ("Cholesky, every tone", "one for each block")
    pairs = [[row["over"][way] for way in ways] for row in rows]
    pairs = [pair for pair in pairs if not any(math.isnan(x[1]) for x in pair)]
    if not pairs:
        return "were not timed"
    exact, blocks = zip(*pairs)
    wins = [verdict(x) for x in exact].count(FASTER)
    return (
        f"have a map in pieces that is faster than batched Cholesky on {wins} of {len(pairs)} bands "
        f"({between(x[1] for x in exact)} times as fast), and {between(x[1] for x in blocks)} times as fast as one "
        "exact result held for each resource block"
    )


def smaller(found: dict[str, Numbers]) -> str:
    """Return when a map of matrices that are smaller than those of the table pays, beside batched exact methods.

    Example:
        >>> smaller({"chapters": {}})
        'no smaller ones were timed'
        >>> way = {"solves": 9, "time": [3.4, 4.1, 4.2], "pays": [math.inf] * 3}
        >>> ribbon = way | {"time": [0.1] * 3, "pays": [515, 556, 569]}
        >>> shown = {"bands": ([12, 12], ribbon), "touchstone": ([4, 4], way)}
        >>> own = {name: {"shape": shape, "ways": {"this map": x}} for name, (shape, x) in shown.items()}
        >>> smaller({"chapters": {"your_own_matrices": own}}).split("; ")[0]
        'at 12 x 12 a value takes 0.1 times as long as an exact one, and the map pays from 560 values on'
        >>> smaller({"chapters": {"your_own_matrices": own}}).split("; ")[1]
        'at 4 x 4 a value takes 4.1 (3.4 to 4.2) times as long as an exact one, and the map never pays'
    """
    shown, told = found["chapters"].get("your_own_matrices", {}), []
    for own in (shown[name] for name in SMALLER if name in shown):
        way = own["ways"]["this map"]
        pays = texts.settled_of(way)
        if not math.isnan(way["time"][1] + pays[1]):
            size, starts = " x ".join(map(str, own["shape"])), from_where(pays)
            paid = f"pays {starts}" if math.isfinite(pays[1]) else "never pays"
            told.append(f"at {size} a value {texts.as_long(way['time'], 'an exact one')}, and the map {paid}")
    return "; ".join(told) or "no smaller ones were timed"


def certified(found: dict[str, Numbers]) -> tuple[Ratio, Ratio] | None:
    """Return how many times as long as inverses in a batch a certificate takes: NumPy's, and by Cholesky factors.

    None where the chapter that times it has no times.
    """
    cost = found["chapters"].get("beyond_the_inverse", {}).get("certify_cost")
    if cost is None or math.isnan(cost["solve"][1]) or math.isnan(cost["cholesky"][1]):
        return None
    return cost["solve"], cost["cholesky"]


def checking(found: dict[str, Numbers]) -> str:
    """Return the same in words, behind *For inverses that*.

    Example:
        >>> cost = {"solve": (0.86, 1.0, 1.3), "cholesky": (1.9, 1.9, 1.9)}
        >>> first, second = checking({"chapters": {"beyond_the_inverse": {"certify_cost": cost}}}).split(", and ")
        >>> first, second
        ('takes 1.0 (0.86 to 1.3) times as long as inverting all with NumPy in a batch', '1.9 times as long as \
inverting all by Cholesky factors')
        >>> checking({"chapters": {}})
        'was not timed'
    """
    shown = certified(found)
    if shown is None:
        return "was not timed"
    numpy, cholesky = map(texts.spread, shown)
    beside = "times as long as inverting all with NumPy in a batch"
    return f"takes {numpy} {beside}, and {cholesky} times as long as inverting all by Cholesky factors"


def with_loss(found: dict[str, Numbers], decision: Decision) -> Decision:
    """Return the row of eight streams with what is enough where channels are given and a part of the rate may go.

    That is linear interpolation between the fewest results that keep it, and as many results held as there are resource
    blocks, both by the chapter on inversion, whose times hang on the shapes and the number of solves alone.
    """
    shown = found["chapters"].get("wireless_inversion", {})
    band = {"task": EIGHT, "omni": True, "spread": SHORT}
    rows = [row for row in shown.get("bands", []) if band.items() <= row.items()]
    if not rows:
        return decision
    (row,), over = rows, shown["ladder_times"][EIGHT]["over"]
    good = [(own["solves"], name) for name, own in row["steps"].items() if own["loss"] < RATE]
    blocks = row["ways"][BLOCKS]
    told = [f"linear through {solves}, {faster(over[name])}" for solves, name in sorted(good)[:1]]
    if blocks["loss"] < RATE:
        told.append(f"or one held for each resource block, {blocks['solves']}, {faster(over[HELD_AS_BLOCKS])}")
    if not told:
        return decision
    said = (
        f"; where the channels are given and {RATE:g} of the rate may be lost at {SNR} over the array, "
        f"{', '.join(told)} ([Wireless inversion]({CHAPTERS}wireless_inversion.ipynb))"
    )
    return replace(decision, speed=decision.speed + said)


def faster(over: Ratio) -> str:
    """Return how many times as fast as what it was divided by something is, from how many times as long it takes.

    Example:
        >>> faster((0.13, 0.14, 0.17)), faster((math.nan,) * 3)
        ('7.1 (5.9 to 7.7) times', 'not timed')
    """
    return texts.UNTIMED if math.isnan(over[1]) else f"{texts.spread([1 / x for x in over[::-1]])} times"


def precoders(found: dict[str, Numbers]) -> str:
    """Return how fast interpolated vectors are beside Gram's way, with their exact results, and what rate they lose."""
    by_channel = found["chapters"].get("beyond_the_inverse", {}).get("svd", {})
    if not by_channel:
        return "was not timed here"
    ratios = between(x["faster"]["Gram matrix"]["aligned 48"][1] for x in by_channel.values())
    lost = {
        spread: most(
            max(x[key]["aligned 48"] for key in ("losses", "streams"))
            for name, x in by_channel.items()
            if name[1:] == spread
        )
        for spread in sorted({name[1:] for name in by_channel}, key=int)
    }
    told = listed([f"{loss} at {spread} ns" for spread, loss in lost.items()])
    return f"is {ratios} times as fast as the eigenvectors of the Gram matrix and loses at most {told} of the rate"


def paces(found: dict[str, Numbers]) -> tuple[list[float], list[float]]:
    """Return how many exact solves a fit of users' problems takes as long as: where these are slow, and quick."""
    cases = found["cases"]["cases"]
    slow = [statistics.median(x["exact_rounds"]) > SLOW for x in cases]
    return tuple([x["multiple"] for x, own in zip(cases, slow) if own == wanted] for wanted in (True, False))


def _checks(found: dict[str, Numbers]) -> dict[str, str]:
    every, new = (measurements.every(x) for x in (found["families"]["groups"], found["families"]["new"]["groups"]))
    cases = found["cases"]["cases"]
    three = [x for x in found["synthetic_experiments"]["dimension"] if x["dimension"] == 3]
    several = [x["multiple"] for x in cases if x["name"].startswith(SEVERAL)]
    drawn = found["draws"]["draws"]
    shares = [share for pair in draws.spreads(drawn).values() for share in pair]
    return {
        "channels": str(sum(len(x["draws"]) for x in drawn)),
        "channels_above": str(draws.above(drawn, random_families.TARGET)),
        "channels_largest": f"{100 * draws.worst(drawn)[0]:.1f}",
        "draws": str(len(drawn[0]["draws"])),
        "draws_cheapest": str(len(draws.cheapest(drawn))),
        "draws_least": f"{min(shares):.2g}",
        "draws_most": f"{max(shares):.2g}",
        "met": str(every["met"]),
        "fits": str(every["fits"]),
        "wrong": str(every["wrong"]),
        "unmet": str(every["unmet"]),
        "located": str(every["located"]),
        **{f"new_{key}": str(new[key]) for key in ("fits", "met", "wrong")},
        "new_largest": f"{100 * new['largest']:.1f}",
        "wrong_limit": f"{measurements.wrong_limit(found['families']):g}",
        "confidence": f"{measurements.trusted():g}",
        "largest": f"{100 * every['largest']:.1f}",
        "target": f"{100 * random_families.TARGET:g}",
        "kept": f"{100 - 100 * random_families.TARGET:g}",
        "cases": str(len(cases)),
        "multiples_slow": counts(paces(found)[0]),
        "multiples_quick": counts(paces(found)[1]),
        "slow": f"{1e3 * SLOW:g} ms",
        "several": counts(several),
        "swings": ups_and_downs.said(found["swings"]["counts"]),
        "sionna_bare": texts.counted(x["bare"] for x in found["blocks"]["blocks"]),
        "sionna_slots": str(len(found["blocks"]["blocks"])),
        **{
            f"sionna_{pace}": texts.times_as_fast(
                [x["Sionna"][1] for x in found["blocks"]["blocks"] if x["pace"] == pace]
            )
            for pace in ("still", "walking")
        },
        "three": whole(x["solves"] for x in three if x["met"]),
        "three_unmet": str(sum(not x["met"] for x in three)),
        "three_limit": f"{synthetic_experiments.MOST_SOLVES:,}",
        "reduced_basis": basis(found),
        "reduced_several": basis_of_several(found),
        "resonances": str(min(x["solves"] for x in cases if x["name"].startswith("resonances"))),
    }


def _training(found: dict[str, Numbers]) -> dict[str, str]:
    limit, best = found["to_the_limit"]["cdl_c"], trained(found)
    errors, short = limit["errors"], found["wireless_trained"]
    # As the page of the chapter has it, where that was timed.
    shown = (
        found["chapters"].get("wireless_inversion", {}).get("cdl_c", {}).get("fit_in_inversions", (0, math.nan, 0))[1]
    )
    return {
        "trained_error": power([best["error"]]),
        "trained_cost": count(best["cost_in_inversions"]),
        "trained_steps": f"{best['steps']:,}",
        "trials": str(sum(x["family"] == "cdl_c" for x in found["training_search"]["trials"])),
        "short_steps": f"{short['steps']:,}",
        "short_cost": count(short["cdl_c"]["cost_in_inversions"] if math.isnan(shown) else shown),
        "closed_error": power([errors["closed form"]]),
        "limit": power([limit["limit"]]),
        "rank": str(limit["rank"]),
        "solves": str(limit["solves"]),
        "spline_error": power([errors["cubic spline"]]),
    }


def figure(found: dict[str, Numbers]) -> Figure:
    """Draw all ratios over the strongest exact method, for each problem on a CPU and then on a GPU."""
    figures.style()
    cpu = []
    for row in timed(found):
        own = spline(row)
        cpu.append((row["name"], *ratios(row), own and own.counted))
    on_gpu = [(name, *shown) for name, shown in on_a_gpu(found).items()]
    return figures.answers({"On a CPU": cpu, "On a GPU": on_gpu})


def substitutions() -> dict[str, object]:
    """Return what stands on the pages in the place of ``{{ decisions }}`` and ``{{ front.NAME }}``."""
    found = records()
    return {"decisions": table(found)._repr_markdown_(), "front": numbers(found)}
