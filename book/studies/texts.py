"""Numbers as the text and the tables of several chapters write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence


def title(name: str) -> str:
    """Return the name of a channel model as 3GPP writes it.

    Example:
        >>> title("cdl_a")
        'CDL-A'
    """
    return name.upper().replace("_", "-")


def two_digits(value: float) -> float:
    """Round to two digits: wall times repeat no better.

    Example:
        >>> two_digits(1234.5)
        1200.0
    """
    return float(f"{value:.1e}") if math.isfinite(value) else value


def times(ratio: float) -> str:
    """Return a ratio of times with two digits.

    Example:
        >>> times(0.123), times(0.998), times(1.26), times(12.6), times(12345)
        ('0.12', '1.0', '1.3', '13', '12,000')
    """
    rounded = float(f"{ratio:.1e}")
    return f"{rounded:.1f}" if 1 <= rounded < 10 else f"{rounded:,g}"


def as_long(ratio: Sequence[float], than: str) -> str:
    """Return a ratio of times with its quartiles as the end of a sentence, verb included, also where none was taken.

    Example:
        >>> as_long((4.81, 5.12, 5.39), "a solve"), as_long((math.nan,) * 3, "a solve")
        ('takes 5.1 (4.8 to 5.4) times as long as a solve', 'was not timed')
    """
    return f"was {UNTIMED}" if math.isnan(ratio[1]) else f"takes {spread(ratio)} times as long as {than}"


def at_least(value: float, digits: int = 2) -> float:
    """Round up to some digits: what stands after *at most* must not be smaller than what was found.

    Example:
        >>> at_least(2.615), at_least(3.3109, 3), at_least(1.5), at_least(1.02e-6, 1), at_least(0.0)
        (2.7, 3.32, 1.5, 2e-06, 0.0)
    """
    if not value:
        return value
    step = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    # A number that has these digits already is kept, whatever its rounding.
    return float(f"{math.ceil(value / step * (1 - 1e-12)) * step:.{digits - 1}e}")


UNTIMED = "not timed"
# Fewer rounds than this have a range in the place of quartiles.
FEW = 5


def without_nan(values: Iterable[float]) -> list[float]:
    """Return the numbers that are known, since the smallest of numbers and NaN is either.

    Example:
        >>> without_nan([2.0, math.nan, 1.0])
        [2.0, 1.0]
    """
    return [x for x in values if not math.isnan(x)]


def spread(ratio: Sequence[float]) -> str:
    """Return a ratio of times with its quartiles.

    Example:
        >>> spread((4.81, 5.12, 5.39)), spread((math.nan,) * 3), spread((900, 1000, math.inf))
        ('5.1 (4.8 to 5.4)', 'not timed', '1,000 (900 to never)')
    """
    lower, median, upper = (times(x) if math.isfinite(x) else "never" for x in ratio)
    return UNTIMED if math.isnan(ratio[1]) else median if lower == upper else f"{median} ({lower} to {upper})"


def settled(pays: Sequence[float], solves: float) -> Sequence[float]:
    """Return from how many values on a fit pays as far as the clock settles it: as it is, or 0 and a limit twice.

    A fit that takes so many exact solves can hardly pay before as many values, so a median below that number says that
    the clock, or a batch of solves, was faster than the one it is compared with; and a lower quartile of zero says
    that the time of the fit is lost in the noise. The limit is the upper quartile, or the solves where these are more.
    What takes no exact solve, as a sum of modes, has no such number and is left as it is.

    Args:
        pays: Lower quartile, median and upper quartile.
        solves: Exact solves of the fit, in those of the method that it is compared with.

    Example:
        >>> settled((0.0, 23.0, 412.8), 41), settled((19.7, 20.8, 22.1), 23), settled((71.0, 72.4, 83.7), 23)
        ((0.0, 412.8, 412.8), (0.0, 23.0, 23.0), (71.0, 72.4, 83.7))
        >>> settled((0.0, 0.0, 0.0), 0)
        (0.0, 0.0, 0.0)
    """
    if not solves or not (pays[1] < solves or pays[0] <= 0):
        return pays
    limit = float(max(pays[2], solves))
    return 0.0, limit, limit


def settled_of(way: Mapping[str, object], beside: Mapping[str, object] | None = None) -> Sequence[float]:
    """Return from how many values on a way of a record pays, as far as the clock settles it.

    Args:
        way: Its ``solves``, ``time`` of a value in exact solves, and where it ``pays`` beside these.
        beside: Another way, of exact solves that are cheaper; then it is asked where ``pays_sparse`` says that this one
            pays. Each value saves the difference of their times, so the exact solves of the fit take so many more.

    Example:
        >>> aaa = {"solves": 22, "time": (0.02,) * 3, "pays": (20.0, 21.0, 22.0), "pays_sparse": (69.0, 80.0, 83.0)}
        >>> settled_of(aaa), settled_of(aaa, {"time": (0.24,) * 3})
        ((0.0, 22.0, 22.0), (0.0, 100.0, 100.0))
    """
    solves = way.get("solves", 0)
    if beside is None:
        return settled(way["pays"], solves)
    saved = beside["time"][1] - way["time"][1]
    return settled(way["pays_sparse"], solves / saved if saved > 0 else solves)


def unsettled(pays: Sequence[float]) -> bool:
    """Say whether a break-even that :func:`settled` returned is only a limit."""
    return pays[0] <= 0 < pays[1]


def paid(pays: Sequence[float]) -> str:
    """Return a break-even that :func:`settled` returned, as tables write it.

    Example:
        >>> paid(settled((0.0, 23.0, 412.8), 41)), paid((71.0, 72.4, 83.7)), paid((math.nan,) * 3)
        ('below 420: not settled', '72 (71 to 84)', 'not timed')
        >>> paid(settled((0.0, 23.0, math.inf), 41))
        'not settled'
    """
    if not unsettled(pays):
        return spread(pays)
    return f"{below(pays[1])}: not settled" if math.isfinite(pays[1]) else "not settled"


def below(limit: float) -> str:
    """Return the upper limit of a break-even that is not settled, in words.

    Example:
        >>> below(412.8)
        'below 420'
    """
    return f"below {at_least(limit):,.0f}"


# What stands in the place of a sentence about times that were refused.
UNTOLD = "No time is published: it spread too much, or the machine had other work."


def ratios_between(values: Iterable[float]) -> str:
    """Return a range of ratios in words.

    Example:
        >>> ratios_between([2.46, math.nan, 3.11]), ratios_between([1.93]), ratios_between([math.nan])
        ('2.5 to 3.1', '1.9', 'not timed')
    """
    found = sorted(without_nan(values))
    if not found:
        return UNTIMED
    ends = [times(x) for x in (found[0], found[-1])]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def times_as_fast(values: Sequence[float]) -> str:
    """Return how many times as fast something is, and in how many cases that was timed.

    Example:
        >>> times_as_fast([2.1, 3.1, math.nan]), times_as_fast([2.1, 3.1])
        ('2.1 to 3.1 times as fast in the 2 of 3 that were timed', '2.1 to 3.1 times as fast')
    """
    known = without_nan(values)
    part = f" in the {len(known)} of {len(values)} that were timed" if len(known) < len(values) else ""
    return f"{ratios_between(known)} times as fast{part}"


def between(low: float, high: float, digits: str = ".1g") -> str:
    """Return the ends of some numbers in words; where both read alike, that all are the same.

    Example:
        >>> between(0.01, 0.4), between(0.38, 0.42)
        ('from 0.01 to 0.4', 'all 0.4')
    """
    ends = f"{low:{digits}}", f"{high:{digits}}"
    return f"all {ends[0]}" if ends[0] == ends[1] else f"from {ends[0]} to {ends[1]}"


def told(sentence: str, *ratios: Sequence[float], how: Callable[[Sequence[float]], str] = spread) -> str:
    """Return a sentence about times; where one of its times was refused, another sentence, which says that.

    Args:
        sentence: With ``{}`` for each ratio.
        *ratios: Lower quartile, median and upper quartile of each.
        how: Writes a ratio.

    Example:
        >>> told("It takes {} times as long.", (4.81, 5.12, 5.39))
        'It takes 5.1 (4.8 to 5.4) times as long.'
        >>> told("It takes {} times as long.", (math.nan,) * 3)
        'No time is published: it spread too much, or the machine had other work.'
    """
    return UNTOLD if any(math.isnan(ratio[1]) for ratio in ratios) else sentence.format(*map(how, ratios))


def least(ratios: Iterable[Sequence[float]]) -> Sequence[float]:
    """Return the ratio with the smallest median of those that are known; three NaN if none is.

    Example:
        >>> least([(math.nan,) * 3, (2.0, 3.0, 4.0), (1.0, 2.0, 9.0)])
        (1.0, 2.0, 9.0)
    """
    return min(_known(ratios), key=lambda ratio: ratio[1], default=(math.nan,) * 3)


def most(ratios: Iterable[Sequence[float]]) -> Sequence[float]:
    """Return the ratio with the largest median of those that are known; three NaN if none is.

    Example:
        >>> most([(math.nan,) * 3, (2.0, 3.0, 4.0), (1.0, 2.0, 9.0)])
        (2.0, 3.0, 4.0)
    """
    return max(_known(ratios), key=lambda ratio: ratio[1], default=(math.nan,) * 3)


def _known(ratios: Iterable[Sequence[float]]) -> list[Sequence[float]]:
    return [ratio for ratio in ratios if not math.isnan(ratio[1])]


def measured(ratio: float | Sequence[float]) -> Sequence[float]:
    """Return a ratio of a record, also of one that kept medians alone: their spread is not known, and shown as none.

    Example:
        >>> measured(2.0), measured([1.0, 2.0, 3.0])
        ((2.0, 2.0, 2.0), [1.0, 2.0, 3.0])
    """
    return ratio if isinstance(ratio, Sequence) else (ratio,) * 3


def side(ratio: Sequence[float], above: str, below: str, even: str) -> str:
    """Return the word for a ratio, by its quartiles: a median that the spread does not hold up is no verdict.

    A quartile counts with the digits that readers see: one of 1.04 is shown as 1.0, and is not above one.

    Args:
        ratio: Lower quartile, median and upper quartile.
        above: The word where even the lower quartile is above one.
        below: Where even the upper quartile is below one.
        even: Else.

    Example:
        >>> words = "faster", "slower", "about as fast"
        >>> side((1.1, 1.3, 1.5), *words), side((0.9, 1.3, 1.5), *words), side((0.5, 0.6, 0.9), *words)
        ('faster', 'about as fast', 'slower')
        >>> side((math.nan,) * 3, *words), side((1.04, 1.3, 1.4), *words)
        ('not timed', 'about as fast')
    """
    if math.isnan(ratio[1]):
        return UNTIMED
    lower, _, upper = (float(times(x).replace(",", "")) for x in ratio)
    return above if lower > 1 else below if upper < 1 else even


def verdict(ratios: Mapping[str, Sequence[float]], what: str = "as fast", *, at: str = "on") -> str:
    """Return what ratios of times say, each with its place and its spread, as the end of a sentence.

    *About* stands where the quartiles lie on both sides of one, by :func:`side`.

    Args:
        ratios: Where -> lower quartile, median and upper quartile of how many times as fast, or as long, something is.
        what: ``"as fast"`` or ``"as long"``.
        at: The word before a place; ``"as"`` before what it is compared with.

    Example:
        >>> verdict({"A": (2.0, 2.2, 2.3), "B": (3.0, 3.0, 3.0), "C": (0.9, 1.1, 1.3)})
        '2.2 (2.0 to 2.3) times as fast on A and 3.0 times on B; about as fast on C, 1.1 (0.9 to 1.3) times'
        >>> verdict({"a solve": (0.4, 0.5, 0.6), "a copy": (2.0, 2.2, 2.3)}, "as long", at="as")
        '0.5 (0.4 to 0.6) times as long as a solve and 2.2 (2.0 to 2.3) times as long as a copy'
        >>> verdict({"A": (math.nan,) * 3, "C": (2.0, 2.2, 2.3)})
        '2.2 (2.0 to 2.3) times as fast on C; not timed: A'
        >>> verdict({"A": (math.nan,) * 3, "C": (math.nan,) * 3})
        'not timed'
    """
    if all(math.isnan(ratio[1]) for ratio in ratios.values()):
        return UNTIMED
    groups: dict[str, list[str]] = {"clear": [], "even": [], UNTIMED: []}
    for where, ratio in ratios.items():
        group = side(ratio, "clear", "clear", "even")
        # The words stand once, or before each thing that is compared with.
        words = f" {what}" if at == "as" or not groups["clear"] else ""
        text = {
            "clear": f"{spread(ratio)} times{words} {at} {where}",
            "even": f"{'' if groups['even'] else f'about {what} '}{at} {where}, {spread(ratio)} times",
            UNTIMED: where,
        }
        groups[group].append(text[group])
    parts = [listed(groups[key]) for key in ("clear", "even") if groups[key]]
    return "; ".join([*parts, *[f"{UNTIMED}: {listed(groups[UNTIMED])}"] * bool(groups[UNTIMED])])


def counted(ratios: Iterable[Sequence[float]]) -> str:
    """Return in how many cases something is faster, about as fast and slower, by :func:`side`, and not timed.

    Example:
        >>> counted([(1.1, 1.2, 1.3), (0.4, 0.5, 0.6), (2.0, 2.1, 2.2), (math.nan,) * 3])
        'faster in 2, slower in 1 and not timed in 1'
    """
    found = [side(ratio, "faster", "slower", "about as fast") for ratio in ratios]
    words = ("faster", "about as fast", "slower", UNTIMED)
    return listed([f"{word} in {found.count(word)}" for word in words if word in found])


def judged(sentence: str, ratios: Mapping[str, Sequence[float]]) -> str:
    """Return a sentence with the :func:`verdict` of ratios in it; where none was timed, that no time is published.

    Example:
        >>> judged("The map is {}.", {"A": (2.0, 2.2, 2.3)})
        'The map is 2.2 (2.0 to 2.3) times as fast on A.'
        >>> judged("The map is {}.", {"A": (math.nan,) * 3}) == UNTOLD
        True
    """
    found = verdict(ratios)
    return UNTOLD if found == UNTIMED else sentence.format(found)


def capital(text: str) -> str:
    """Return a text with its first letter as a capital."""
    return text[0].upper() + text[1:]


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence.

    Example:
        >>> listed(["a", "b", "c"]), listed(["a"])
        ('a, b and c', 'a')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def matrices(ratio: Sequence[float]) -> str:
    """Return a break-even point with its quartiles, in words.

    Example:
        >>> matrices((1190, 1234.5, 1301)), matrices((math.inf,) * 3), matrices((math.nan,) * 3)
        ('1,200 (1,200 to 1,300) matrices', 'no number of matrices', 'a number that was not timed')
        >>> matrices((90, 100, math.inf))
        '100 (90 to never) matrices'
        >>> matrices(settled((0.0, 23.0, 412.8), 41))
        'a number of matrices below 420 (not settled)'
    """
    if math.isnan(ratio[1]):
        return "a number that was not timed"
    if unsettled(ratio) and math.isfinite(ratio[1]):
        return f"a number of matrices {below(ratio[1])} (not settled)"
    return f"{spread(ratio)} matrices" if math.isfinite(ratio[1]) else "no number of matrices"


def matrices_between(*ways: Sequence[float]) -> str:
    """Return a break-even point in words that was timed in several ways: the medians, the smallest first.

    Example:
        >>> never, unknown = (math.inf,) * 3, (math.nan,) * 3
        >>> matrices_between((300.0, 335.0, 400.0), (400.0, 422.0, 450.0)), matrices_between((80.0, 90.0, 95.0), never)
        ('340 to 420 matrices', '90 matrices, or never')
        >>> matrices_between(never, never), matrices_between((70.0, 80.0, 90.0), unknown)
        ('no number of matrices', 'a number that was not timed')
    """
    medians = [way[1] for way in ways]
    low, high = (math.nan, math.nan) if any(map(math.isnan, medians)) else (min(medians), max(medians))
    if math.isnan(low) or math.isinf(low) or times(low) == times(high):
        return matrices((low,) * 3)
    return f"{times(low)} to {times(high)} matrices" if math.isfinite(high) else f"{times(low)} matrices, or never"


def conditions(*measured: Mapping[str, object]) -> str:
    """Return when, where and beside what times were taken, or why they were not.

    Args:
        *measured: The conditions of measurements that are shown together, from ``studies.benchmark.Timings``.

    Example:
        >>> told = {"refused": "", "date": "2026-11-28T10:00:00+00:00", "rounds": 5, "threads": 2, "attempts": 1}
        >>> told |= {"processor": "AMD EPYC", "load_before": 0.3, "load_during": 0.02}
        >>> conditions(told)
        'Timed on 2026-11-28: AMD EPYC, 2 threads, 5 rounds; load before 0.3, other work 2 % of the processor.'
        >>> conditions(told | {"rounds": 3}, told | {"rounds": 27})[42:121]
        '3 to 27 rounds (of fewer than 5 the parentheses have the least and the largest)'
        >>> conditions(told, told | {"refused": "other work took 50%"})[-28:]
        ' 1 of 2 timings was refused.'
    """
    good = [x for x in measured if not x["refused"]]
    if not good:
        reason, day = measured[0]["refused"], str(measured[0]["date"])[:10]
        return f"No timing could be taken here on {day} ({reason}); errors and counts are not affected."
    days = listed(sorted({str(x["date"])[:10] for x in good}))
    where = listed(sorted({f"{x['processor']}, {x['threads']} threads" for x in good}))
    before = max((x["load_before"] for x in good if x["load_before"] is not None), default=None)
    others = max((x["load_during"] for x in good if x["load_during"] is not None), default=None)
    load = "" if before is None else f"load before {_at_most(f'{before:g}', len(good))}, "
    work = "unknown" if others is None else f"{_at_most(f'{100 * others:.0f}', len(good))} % of the processor"
    refused = len(measured) - len(good)
    left = f" {refused} of {len(measured)} timings {'was' if refused == 1 else 'were'} refused." if refused else ""
    fewest, most = (pick(x["rounds"] for x in good) for pick in (min, max))
    rounds = f"{fewest} rounds" if fewest == most else f"{fewest} to {most} rounds"
    rounds += f" (of fewer than {FEW} the parentheses have the least and the largest)" * (fewest < FEW)
    # Records that were published before times were judged one by one have no such entry.
    wild = sorted({name for x in good for name in x.get("unsteady", ())})
    some = "For some of them the" if len(good) > 1 else "The"
    # Their names have commas.
    quoted, plural = [f'"{name}"' for name in wild], "s" * (len(wild) > 1)
    left += f" {some} time{plural} of {listed(quoted)} varied too much to be published." if wild else ""
    return f"Timed on {days}: {where}, {rounds}; {load}other work {work}.{left}"


def _at_most(number: str, count: int) -> str:
    """Return the largest of some numbers in words; of one alone, and of zero, there is nothing that it limits."""
    return number if count == 1 or float(number) == 0 else f"at most {number}"
