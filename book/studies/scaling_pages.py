"""Chapter *Scaling out*: figures, tables and words of the record of `studies.scaling`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from studies import figures, texts
from studies.crews import MEMORY
from studies.provenance import Record, Table, glue
from studies.scaling import KILLS

RUNS = {"stored": "stored", "streamed": "checksums alone"}
# Of the values of a map that is split and of the whole one, relative to the largest: rounding in single precision.
ROUNDING = 1e-5
# Memory of a worker with more parameters, over that with fewer, that has not grown; and how many chunks are many.
GROWN, MANY = 1.5, 10
# Arithmetic, disk and scheduler in the two ways of the model.
MODEL = ("overlapping", "one after the other")
# What its parts are measured by.
PARTS = ("loop", "disk", "tasks")
# What is compared with the disk: its name in the record, and in the figure.
SHARES = {
    "one worker": "one worker, stored",
    "two workers": "two workers, stored",
    "two threads": "one process of two threads, stored",
    "loop": "one core, nothing stored",
}


def refused(record: Record, *works: str) -> bool:
    """Return whether the times of the runs were refused, or those of some works spread too much."""
    told = record.numbers["timed"]["conditions"]
    return bool(told["refused"] or set(works) & set(told["unsteady"]))


def ratio(record: Record, name: str) -> Sequence[float]:
    """Return a ratio of the runs that are timed."""
    return record.numbers["timed"]["ratios"][name]


def check(record: Record) -> None:
    """Assert what is promised of the runs, and what the text says in words; a time that was refused refutes nothing."""
    numbers = record.numbers
    for name in RUNS:
        own = numbers[name]
        assert own["killed"] == [what for _, what in KILLS], f"{name}: killed {own['killed']}"
        assert own["equal to the serial run"], f"{name}: the checksums are not those of the serial run"
        assert own["peak bytes of a worker"] <= MEMORY, f"{name}: more memory than promised"
    stored, streamed = (numbers[name] for name in RUNS)
    assert stored["files"] == stored["chunks"] and not stored["damaged chunks on disk"], "a chunk is missing or damaged"
    grown = streamed["peak bytes of a worker"] / stored["peak bytes of a worker"]
    assert streamed["parameters"] > stored["parameters"] and grown < GROWN, "memory grows with the parameters"
    if not refused(record, *PARTS):
        assert numbers["paper"]["bottleneck"] != "arithmetic", "on paper the bottleneck is arithmetic"
    if not refused(record, "loop"):
        chunk = stored["chunk"] * numbers["timed"]["seconds"]["loop"] / numbers["timed"]["parameters"]
        assert stored["seconds of starts"] > MANY * stored["calls"] * chunk, "a start takes no longer than some chunks"
    check_large(numbers["large"], numbers["rows"])


def check_large(large: Mapping, rows: Mapping) -> None:
    """Assert what the text says of large matrices in words."""
    assert large["met"] and large["residual"] <= large["tol"], "the large fit has not met its tolerance"
    assert large["matrices asked for"] > 2 * large["solves"], "the check of the large fit takes less than its solves"
    held = large["peak bytes of the fit"] - large["bytes before the fit"]
    assert held > 2 * large["bytes of the latent tensor"], "the check of the large fit takes little memory"
    assert rows["rows"]["workers of a part"] == [1, 1], "a part of the rows was on several workers"
    assert rows["difference"] <= ROUNDING, "values of the rows are others"
    assert added(rows["rows"]) < added(rows["whole"]), "a worker of some rows needs more memory than one of all"


def gigabytes(size: float) -> str:
    """Return bytes as people say them.

    Example:
        >>> gigabytes(8_192_000_000), gigabytes(1.3e11), gigabytes(8.192e15), gigabytes(4e8), gigabytes(8192)
        ('8.2 GB', '130 GB', '8,200 TB', '0.4 GB', '8.2 kB')
    """
    unit, name = next((x for x in ((1e12, "TB"), (1e8, "GB"), (1e6, "MB")) if size >= x[0]), (1e3, "kB"))
    return f"{texts.two_digits(size / (1e9 if name == 'GB' else unit)):,g} {name}"


def counted(kills: Sequence[str]) -> str:
    """Return in words what was killed.

    Example:
        >>> counted(["worker", "worker", "scheduler"]), counted(["worker"]), counted([])
        ('2 workers and 1 scheduler', '1 worker', 'nothing')
    """
    found = [(kills.count(what), what) for what in ("worker", "scheduler")]
    return texts.listed([f"{n} {what}{'s' * (n > 1)}" for n, what in found if n] or ["nothing"])


def runs_table(record: Record) -> Table:
    """Both runs: what was computed, what was killed, and whether the checksums are those of the serial run."""
    rows = []
    for name, words in RUNS.items():
        own = record.numbers[name]
        equal = "yes" if own["equal to the serial run"] else "no"
        first = (words, f"{own['parameters']:,}", gigabytes(own["bytes"]), f"{own['chunks']:,}")
        rows.append((*first, counted(own["killed"]), equal, gigabytes(own["peak bytes of a worker"])))
    head = ("run", "parameters", "values", "chunks", "killed", "checksums of the serial run", "peak of a worker")
    return Table(head, rows)


def memory_figure(record: Record) -> Figure:
    """Draw the memory of every process of a worker over the time of a run, and what was killed."""
    drawn, panels = figures.stacked(len(RUNS), 2.6, sharey=True)
    for axes, (name, words) in zip(panels, RUNS.items()):
        own = record.numbers[name]
        step, whole = own["step"], own["seconds with kills"]
        for i, row in enumerate(own["memory"]):
            x = step * (row["first"] + np.arange(len(row["MB"]))) / whole
            axes.plot(x, np.array(row["MB"]) / 1e3, color=(figures.BLUE, figures.SKY)[i % 2], lw=1.2)
        for kill in own["kills"]:
            if kill["what"] == "scheduler":
                axes.axvline(kill["seconds"] / whole, color=figures.RED, lw=1.2, ls="--")
            else:
                row = own["memory"][kill["worker"]]
                place = min(max(int(kill["seconds"] / step) - row["first"], 0), len(row["MB"]) - 1)
                axes.plot(kill["seconds"] / whole, row["MB"][place] / 1e3, "x", color=figures.RED, ms=8, mew=2)
        axes.axhline(record.numbers["map"]["memory of a worker"] / 1e9, color=figures.GREY, lw=1, ls=":")
        axes.set(title=f"{words}, {own['parameters']:,} parameters", ylabel="memory (GB)")
        axes.set(xlim=(0, 1), ylim=(0, None))
    panels[-1].set_xlabel("part of the time of the run")
    marks = {
        "a worker is killed": {"marker": "x", "ls": "", "color": figures.RED},
        "the scheduler is killed": {"ls": "--", "color": figures.RED},
        "limit of a worker": {"ls": ":", "color": figures.GREY},
    }
    handles = [axes.plot([], [], **style, label=label)[0] for label, style in marks.items()]
    drawn.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=figures.SMALLEST)
    return drawn


def speed_figure(record: Record) -> Figure:
    """Draw throughputs as shares of what the disk takes alone."""
    if refused(record, "disk"):
        return figures.undrawn()
    drawn, (axes,) = figures.stacked(1, 2.6)
    for i, name in enumerate(SHARES):
        low, middle, high = ratio(record, f"{name}, share of the disk")
        colour = figures.ORANGE if name == "loop" else figures.BLUE
        axes.plot([low, high], [i, i], color=colour, lw=3, alpha=0.5)
        axes.plot(middle, i, "o", color=colour)
    axes.axvline(1, color=figures.RED, lw=1.2, ls="--")
    axes.set_yticks(range(len(SHARES)), SHARES.values())
    axes.invert_yaxis()
    axes.set(xlabel="throughput, in that of the disk alone", xlim=(0, None))
    return drawn


def speed_table(record: Record) -> Table:
    """Ratios of the runs that are timed, and the time of the whole run beside what the model says."""
    own = record.numbers["timed"]
    rows = [(name, texts.spread(found)) for name, found in own["ratios"].items()]
    whole = f"all {own['whole']['parameters']:,} parameters, measured over predicted"
    rows += [(f"{whole}, parts {name}", texts.spread(own["whole"][f"measured over {name}"])) for name in MODEL]
    return Table(("times as fast", "ratio"), rows)


def paper_figure(record: Record) -> Figure:
    """Draw the hours of each part of the run on paper."""
    if refused(record, *PARTS):
        return figures.undrawn()
    own = record.numbers["paper"]
    parts = own["hours"] | {"scheduler, chunks as here": own["hours of the scheduler with chunks as here"]}
    drawn, (axes,) = figures.stacked(1, 2.4)
    for i, (name, hours) in enumerate(parts.items()):
        axes.plot(hours, i, "o", color=figures.RED if name == own["bottleneck"] else figures.BLUE)
    axes.set_yticks(range(len(parts)), parts)
    axes.invert_yaxis()
    axes.set(xlabel="hours, on paper", xscale="log")
    return drawn


def large_table(record: Record) -> Table:
    """What a fit of large matrices takes and gives."""
    own = record.numbers["large"]
    rows = [
        ("exact solves", f"{own['solves']}"),
        ("matrices that the fit looked at", f"{own['matrices asked for']:,}"),
        ("terms, pieces", f"{own['terms']}, {own['pieces']}"),
        ("relative error", f"{own['error']:.1e}"),
        ("that of Cholesky, beside the library's exact solution", f"{own['error of Cholesky']:.1e}"),
        ("latent tensor", gigabytes(own["bytes of the latent tensor"])),
        ("memory before the fit, and its peak", " / ".join(gigabytes(own[x]) for x in BYTES)),
        ("time of the fit, in exact solves", texts.spread(own["fit in exact solves"])),
        ("after the fit, times as fast as batched Cholesky", texts.spread(own["times as fast"])),
        ("pays from", texts.matrices(texts.settled(own["pays"], own["solves"]))),
    ]
    return Table((f"{own['size']:,} rows, tolerance {own['tol']:g}", ""), rows)


BYTES = ("bytes before the fit", "peak bytes of the fit")


def added(own: Mapping) -> int:
    """Return by how many bytes a run of a large map raised the largest worker above one that has only imported."""
    return max(own["peak bytes"]) - own["idle bytes"]


def rows_table(record: Record) -> Table:
    """What a worker holds of a map as a whole, and of one that is split by rows."""
    own = record.numbers["rows"]
    shown = {"whole": ("all rows on each worker", 1), "rows": ("half of the rows on each worker", 2)}
    table = []
    for name, (words, parts) in shown.items():
        latent, values = (own[x] / parts for x in ("bytes of the latent tensor", "bytes of a value"))
        chunk = values * own["chunk"]
        table.append(
            (
                words,
                gigabytes(latent),
                gigabytes(chunk),
                gigabytes(own[name]["idle bytes"]),
                gigabytes(added(own[name])),
            )
        )
    head = (f"{own['size']:,} rows", "latent tensor", "values of a chunk", "a worker at rest", "added by the run")
    return Table(head, table)


def sides(record: Record) -> dict[str, str]:
    """Return the verdicts of the text, by their keys."""
    workers, threads = ratio(record, "two workers over one"), ratio(record, "two threads over two workers")
    reading, share = ratio(record, "computing over reading"), ratio(record, "two workers, share of the disk")
    task = record.numbers["timed"]["parameters of a task's worth"]
    found = {
        "sc-second": told(
            "Two workers are {} times as fast as one: {}.",
            workers,
            "the second one pays",
            "the second one costs more than it brings",
            "the spread does not tell them apart",
        ),
        "sc-threads": told(
            "One process of two threads is {} times as fast as two processes of one: {}.",
            threads,
            "processes do not pay here",
            "processes pay",
            "the spread does not tell the two apart",
        ),
        "sc-reading": told(
            "To compute a value of this map again is {} times as fast as to read it back from this disk, cold and in "
            "one thread: {}.",
            reading,
            "values of this map are not worth storing for oneself",
            "stored values are worth their place",
            "the spread does not tell the two apart",
        ),
        "sc-share": told(
            "Two workers store {} times what the disk takes alone: {}.",
            share,
            "the memory of the machine took a part of it",
            "something else than the disk holds them back",
            "the spread does not tell them from the disk",
        ),
        "sc-task": texts.told(
            "A task takes scheduler and connection as long as one core needs for {} values of this "
            "map; a chunk of fewer values spends more time on the way than on arithmetic.",
            task,
        ),
    }
    found |= {"sc-model": model_sentence(record), "sc-bottleneck": bottleneck_sentence(record)}
    # Of two times that were refused, one word is enough.
    return found | {"sc-finding": " ".join(dict.fromkeys([found["sc-second"], found["sc-bottleneck"]]))}


def told(sentence: str, own: Sequence[float], above: str, below: str, even: str) -> str:
    """Return a sentence with a ratio, and what its quartiles say.

    Example:
        >>> told("It is {} times as fast: {}.", (1.1, 1.2, 1.3), "it pays", "it costs", "who knows")
        'It is 1.2 (1.1 to 1.3) times as fast: it pays.'
        >>> told("It is {} times as fast: {}.", (math.nan,) * 3, "it pays", "it costs", "who knows")
        'No time is published: it spread too much, or the machine had other work.'
    """
    if math.isnan(own[1]):
        return texts.UNTOLD
    return sentence.format(texts.spread(own), texts.side(own, above, below, even))


def model_sentence(record: Record) -> str:
    """Say where the measured time of the whole run lies beside what the model says."""
    own = record.numbers["timed"]["whole"]
    least, most = (own[f"measured over {name}"] for name in MODEL)
    if math.isnan(least[1]) or math.isnan(most[1]):
        return texts.UNTOLD
    places = {
        "it is longer than the sum of the parts, so that the model misses something": most[0] > 1,
        "it lies between the two": least[0] > 1 > most[2],
        "it is longer than the largest part, and whether than the sum the spread does not say": least[0] > 1,
        "it is not longer than the largest part alone": least[2] <= 1,
    }
    place = next((words for words, true in places.items() if true), "the spread does not say where it lies")
    return (
        f"The run of {own['parameters']:,} parameters took {texts.spread(least)} times what the model says if its "
        f"parts overlap, and {texts.spread(most)} times what it says if they come one after the other: {place}."
    )


def bottleneck_sentence(record: Record) -> str:
    """Name the bottleneck of the run on paper, or the two longest parts if spread or model do not tell them apart."""
    timed, own = record.numbers["timed"], record.numbers["paper"]
    model = timed["whole"]["measured over overlapping"]
    if refused(record, *PARTS) or math.isnan(model[1]):
        return texts.UNTOLD
    hours, names = own["hours"], {"disk": "the disks", "scheduler": "the one scheduler", "arithmetic": "arithmetic"}
    *_, second, first = sorted(hours, key=hours.get)
    low, _, high = ratio(record, "loop, share of the disk")
    gap, spread = hours[first] / hours[second], high / low
    shown = {name: texts.times(x) for name, x in hours.items()}
    finer = (
        f"Arithmetic takes {shown['arithmetic']}. With chunks as here the scheduler alone would take "
        f"{texts.times(own['hours of the scheduler with chunks as here'])}."
    )
    if gap > max(spread, model[1], 1 / model[1]):
        return (
            f"On paper the bottleneck is {names[first]}, with {shown[first]} hours, {texts.times(gap)} times as many "
            f"as the next part. {finer}"
        )
    return (
        f"On paper {names[first]} ({shown[first]} hours) and {names[second]} ({shown[second]}) are the longest parts. "
        f"Which one is longer is not settled: they are {texts.times(gap)} times apart, the quartiles of the disk "
        f"{texts.times(spread)} times, and the run that tested the model took {texts.spread(model)} times what it says "
        f"where parts overlap. {finer}"
    )


def glue_all(record: Record) -> None:
    """Numbers and sentences of the text."""
    numbers = record.numbers
    stored, streamed, rows, large = (numbers[name] for name in ("stored", "streamed", "rows", "large"))
    for key, sentence in sides(record).items():
        glue(key, sentence)
    glue("sc-stored", stored["parameters"])
    glue("sc-stored-bytes", gigabytes(stored["bytes"]))
    glue("sc-streamed", streamed["parameters"])
    glue("sc-streamed-bytes", gigabytes(streamed["bytes"]))
    glue("sc-killed", counted(stored["killed"]))
    glue("sc-found", stored["found by the last call"])
    glue("sc-chunks", stored["chunks"])
    glue("sc-chunk", stored["chunk"])
    glue("sc-peak", gigabytes(max(numbers[name]["peak bytes of a worker"] for name in RUNS)))
    glue("sc-limit", gigabytes(numbers["map"]["memory of a worker"]))
    glue("sc-value", gigabytes(numbers["map"]["bytes of a value"]))
    glue("sc-timed", numbers["timed"]["parameters"])
    glue("sc-conditions", texts.conditions(numbers["timed"]["conditions"], large["conditions"]))
    glue("sc-paper-bytes", gigabytes(numbers["paper"]["bytes"]))
    glue("sc-paper-chunk", f"{numbers['paper']['chunk bytes'] // 2**30} GiB")
    glue("sc-large", large["size"])
    glue("sc-large-solves", large["solves"])
    glue("sc-large-asked", large["matrices asked for"])
    glue("sc-large-peak", gigabytes(large["peak bytes of the fit"]))
    glue("sc-large-latent", gigabytes(large["bytes of the latent tensor"]))
    glue(
        "sc-large-times",
        texts.told("After the fit the map is {} times as fast as batched Cholesky.", large["times as fast"]),
    )
    glue("sc-large-fit", texts.told("The fit takes as long as {} exact solves.", large["fit in exact solves"]))
    pays = texts.settled(large["pays"], large["solves"])
    glue("sc-large-pays", texts.UNTOLD if math.isnan(pays[1]) else f"It pays from {texts.matrices(pays)} on.")
    glue("sc-rows", rows["size"])
    glue("sc-rows-parameters", rows["parameters"])
    glue("sc-rows-difference", "bit for bit the same" if rows["difference"] == 0 else "the same up to rounding")
    glue("sc-rows-less", texts.times(added(rows["rows"]) / added(rows["whole"])))


def glue_live(live: Mapping) -> None:
    """What the run on this page did."""
    glue("sc-live-killed", counted(live["killed"]))
    glue("sc-live-chunks", live["chunks"])
    same = live["equal to the serial run"] and not live["damaged chunks on disk"]
    assert same, "the run on this page is not that of a loop"
