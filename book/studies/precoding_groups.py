"""Precoders in groups, as in 5G: constant within two or four resource blocks, or over the whole allocation.

TS 38.214, 5.1.2.3: the receiver may assume one precoder within a *precoding resource block group*. How a base station
finds it is left open. Here it is that of the group's middle tone, or that of the group's mean Gram matrix. The better
of both is what text and sentences call the loss of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from studies import practice, precoders, receivers, tones
from studies import wireless_precoding as study
from studies.provenance import Record, Table, glue
from studies.texts import between, listed

# Resource blocks of a group: the first is finer than those of 5G, None is the whole band.
SIZES = {"one block": 1, "two blocks": 2, "four blocks": 4, "whole band": None}
FINE, FINEST, COARSE, WHOLE = SIZES
# The other precoder of those groups that 5G has.
MEANS = {name: f"{name}, mean Gram matrix" for name in (FINEST, COARSE, WHOLE)}
# The normal cyclic prefix at 30 kHz, in seconds: 144 of 2,048 samples of a symbol.
PREFIX = 144 / 2048 / 30e3
# The longest delay spread of which the text says that it is no stress test, and the longest that it calls short.
MODERATE, SHORT = 3e-7, 1e-7
# Noise powers below that of the chapter.
QUIETER = (1e-2, 1e-3)
QUIETEST = QUIETER[-1]


def size_of(name: str, count: int) -> int:
    """Return the tones of a group, in a band of so many tones.

    Example:
        >>> size_of("two blocks", 3276), size_of("whole band", 3276)
        (24, 3276)
    """
    blocks = SIZES[name]
    return count if blocks is None else min(blocks * study.BLOCK, count)


def lost(judged: Tensor, best: Tensor, groups: dict[str, Tensor], rate: Callable[..., Tensor]) -> dict[str, float]:
    """Return the part of the rate that precoders of groups lose.

    Args:
        judged: Channels of all tones, in double precision.
        best: Their exact precoders.
        groups: Precoders (N, n, k) of all tones, by name.
        rate: Channels, precoders -> (B,).
    """
    most = rate(judged, best).mean()
    return {name: float(1 - rate(judged, V).mean() / most) for name, V in groups.items()}


def streams(case: tuple[str, float, str], subcarriers: int, seed: int, noises: Sequence[float] = ()) -> study.Row:
    """Return what groups lose on one channel with four streams to one user, as ``joint`` and ``linear``.

    Besides ``latest``: the delay of the last path, in seconds. And ``quieter``: by noise power, the losses of groups of
    two and four blocks with a linear receiver, at some noise powers more.
    """
    channel = study.drawn(*case, subcarriers, seed)
    H = channel(channel.frequencies)
    judged = H.to(torch.complex128)
    groups = {name: practice.group_precoders(H, study.STREAMS, size_of(name, len(H))) for name in SIZES}
    groups |= {mean: precoders.of_mean_gram(H, study.STREAMS, size_of(name, len(H))) for name, mean in MEANS.items()}
    best = precoders.by_gram(judged, study.STREAMS).value
    rates = {"joint": practice.precoded_rate, "linear": study.linear_rate}
    found = {
        key: lost(judged, best, groups, lambda A, V, rate=rate: rate(A, V, study.NOISE)) for key, rate in rates.items()
    }
    few = {way: groups[way] for name in (FINEST, COARSE) for way in (name, MEANS[name])}
    quieter = {f"{s:g}": lost(judged, best, few, partial(study.linear_rate, noise=s)) for s in noises}
    return study.placed(case) | found | {"quieter": quieter, "latest": float(channel.delays.max())}


def users(case: tuple[str, float, str], subcarriers: int, seed: int) -> study.Row:
    """Return what groups lose on one channel with regularised zero forcing for eight users, as ``lost``.

    Besides ``quieter``: by noise power, the losses of one to four blocks with less noise, to which the regularisation
    is adapted; and ``rates`` of exact precoders, by noise power.
    """
    channel = study.drawn(*case, subcarriers, seed, user_antennas=1, users=study.USERS)
    H = channel(channel.frequencies)
    judged = H.to(torch.complex128)
    found: study.Row = {"quieter": {}, "rates": {}}
    for noise in (study.NOISE, *QUIETER):
        loading, rate = study.USERS * noise, partial(study.users_rate, noise=noise)
        counts = {name: -(-len(H) // size_of(name, len(H))) for name in SIZES if noise == study.NOISE or name != WHOLE}
        held = {name: receivers.held(H, loading, count).value for name, count in counts.items()}
        groups = {name: precoders.regularised(W).to(judged) for name, W in held.items()}
        best = precoders.regularised(tones.lmmse(judged, loading))
        found["quieter"][f"{noise:g}"] = lost(judged, best, groups, rate)
        found["rates"][f"{noise:g}"] = float(rate(judged, best).mean())
    return study.placed(case) | found | {"lost": found["quieter"].pop(f"{study.NOISE:g}")}


def fill(record: Record, delays: Sequence[float], *, subcarriers: int) -> None:
    """Record ``groups``: ``channels`` and ``users``, a row for each channel of the survey, and ``counts`` of groups.

    One user is judged with less noise at the longest delay spread that is no stress test, several users at all.
    """
    longest, size = max(delay for delay in delays if delay <= MODERATE), (subcarriers, record.seed)
    rows = {
        "channels": [
            streams(case, *size, noises=QUIETER if case[1] == longest else ())
            for case in study.cases(study.MODELS, delays)
        ],
        "users": [users(case, *size) for case in study.cases("C", delays)],
    }
    counts = {name: -(-subcarriers // size_of(name, subcarriers)) for name in SIZES}
    record.numbers["groups"] = rows | {"counts": counts}


def lines(record: Record) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the name of each channel, and what groups lose there with a linear receiver."""
    for row in record.numbers["groups"]["channels"]:
        yield study.name(row), row["linear"]
    for row in record.numbers["groups"]["users"]:
        yield f"eight users, {study.name(row)}", row["lost"]


def table(record: Record) -> Table:
    """Tabulate the part of the rate that groups lose, a line for each channel."""
    heads = [f"{name} ({count:,})" for name, count in record.numbers["groups"]["counts"].items()]
    shown = (*SIZES, *MEANS.values())
    rows = [[name, *(study.lost_text(own[x]) if x in own else "" for x in shown)] for name, own in lines(record)]
    return Table(["channel", *heads, *MEANS.values()], rows)


def users_table(record: Record) -> Table:
    """Tabulate the part of the rate that groups lose with several users, a line for each channel and noise power."""
    shown = (FINE, FINEST, COARSE)
    rows = [
        [study.name(row), f"{noise:g}", f"{row['rates'][f'{noise:g}']:.1f}", *(study.lost_text(own[x]) for x in shown)]
        for row in record.numbers["groups"]["users"]
        for noise in (study.NOISE, *QUIETER)
        for own in [at(row, noise)]
    ]
    return Table(["channel", "noise power", "rate (bit/s/Hz)", *shown], rows)


def at(row: study.Row, noise: float = study.NOISE) -> dict[str, float]:
    """Return what groups lose on a channel at a noise power: with a linear receiver, or of several users."""
    return row["quieter"][f"{noise:g}"] if noise != study.NOISE else row["lost" if "lost" in row else "linear"]


def better(own: dict[str, float], name: str) -> float:
    """Return what groups of a size lose with the better one of their precoders: middle tone, or mean Gram matrix.

    Example:
        >>> better({"one block": 0.3, "two blocks": 0.2, "two blocks, mean Gram matrix": 0.1}, "two blocks")
        0.1
    """
    return min(own[x] for x in (name, MEANS.get(name)) if x in own)


def most(
    record: Record, name: str, longest: float = MODERATE, part: str = "channels", noise: float = study.NOISE
) -> str:
    """Return the largest part of the rate that groups of a size lose at a noise power, by their better precoder."""
    rows = (row for row in record.numbers["groups"][part] if row["delay"] <= longest)
    return study.lost_text(max(better(at(row, noise), name) for row in rows))


def with_noises(record: Record) -> list[study.Row]:
    """Return the channels of one user that are judged with less noise."""
    return [row for row in record.numbers["groups"]["channels"] if row["quieter"]]


def most_quieter(record: Record, name: str) -> str:
    """Return the largest part of one user's rate that groups of a size lose with less noise, by their better one."""
    return study.lost_text(max(better(at(row, s), name) for row in with_noises(record) for s in QUIETER))


def largest_sentence(record: Record) -> str:
    """Say on which models groups of two and four lose most, up to `MODERATE` and at the longest delay spread."""
    found = record.numbers["groups"]["channels"]
    spans = {f"Up to {1e9 * MODERATE:.0f} ns": [row for row in found if row["delay"] <= MODERATE]}
    end = max(row["delay"] for row in found)
    if end > MODERATE:
        spans[f"at {1e9 * end:,.0f} ns"] = [row for row in found if row["delay"] == end]
    told = []
    for when, rows in spans.items():
        two, four = (max(rows, key=lambda row: better(at(row), name))["model"] for name in (FINEST, COARSE))
        told.append(
            f"{when} CDL-{two} loses most"
            + (f" with {FINEST}, and CDL-{four} with {COARSE}" if four != two else f" with {FINEST} and with {COARSE}")
        )
    return f"{'; '.join(told)}."


def users_rates(record: Record) -> str:
    """Say which rates several users have together, at the noise power of the chapter and at those below it."""
    rows = record.numbers["groups"]["users"]
    ends = {s: [row["rates"][f"{s:g}"] for row in rows] for s in (study.NOISE, *QUIETER)}
    return listed([f"{between(min(x), max(x), '.2g')} bit/s/Hz at {s:g}" for s, x in ends.items()])


def by_middles(record: Record, name: str) -> str:
    """Return the largest part of the rate that groups of a size lose with the precoder of their middle tone."""
    return study.lost_text(max(row["linear"][name] for row in record.numbers["groups"]["channels"]))


def means_sentence(record: Record) -> str:
    """Say on how many channels the mean Gram matrix is the better one for groups, up to `MODERATE` and beyond."""
    found = record.numbers["groups"]["channels"]
    parts = []
    for when, rows in (
        (f"up to {1e9 * MODERATE:.0f} ns", [row["linear"] for row in found if row["delay"] <= MODERATE]),
        ("beyond", [row["linear"] for row in found if row["delay"] > MODERATE]),
    ):
        counts = [sum(own[MEANS[name]] < own[name] for own in rows) for name in (FINEST, COARSE)]
        if rows:
            parts.append(
                f"{when} on {counts[0]} of {len(rows)} channels with {FINEST} and on {counts[1]} with {COARSE}"
            )
    return f"The mean Gram matrix is the better one {', '.join(parts)}."


def times_more(record: Record) -> str:
    """Return how many times what one for each block loses is lost by groups of two, of middle tones, to `MODERATE`."""
    rows = [row["linear"] for row in record.numbers["groups"]["channels"] if row["delay"] <= MODERATE]
    ratios = [row[FINEST] / row[FINE] for row in rows if row[FINE] > study.ROUNDING]
    return f"{between(min(ratios), max(ratios), '.2g')} times" if ratios else "no more than rounding"


def late(record: Record) -> str:
    """Say which delay spreads have paths that come after the normal cyclic prefix."""
    found = record.numbers["groups"]["channels"]
    late = sorted({row["delay"] for row in found if row["latest"] > PREFIX})
    if not late:
        return "No path comes after the normal cyclic prefix of 5G at 30 kHz."
    first = [row["latest"] for row in found if row["delay"] == late[0]]
    last = [row["latest"] for row in found if row["delay"] == late[-1]]
    ends = " and ".join(
        f"{between(1e6 * min(x), 1e6 * max(x), '.2g')} µs at {1e9 * d:,.0f} ns"
        for d, x in dict(zip((late[0], late[-1]), (first, last))).items()
    )
    return (
        f"From a delay spread of {1e9 * late[0]:,.0f} ns on the latest paths come after the normal cyclic prefix of 5G "
        f"at 30 kHz, which is {1e6 * PREFIX:.2f} µs: they come {ends}, by the model."
    )


def glue_all(record: Record) -> None:
    """Glue what the text says of groups."""
    counts, longest = record.numbers["groups"]["counts"], max(study.DELAYS)
    for key, name in {"fine": FINE, "two": FINEST, "four": COARSE, "whole": WHOLE}.items():
        glue(f"wp-groups-{key}", counts[name])
        glue(f"wp-groups-users-{key}-long", most(record, name, longest, "users"))
        glue(f"wp-groups-users-{key}-short", most(record, name, part="users"))
        glue(f"wp-groups-{key}-short", most(record, name))
        glue(f"wp-groups-{key}-long", most(record, name, longest))
        glue(f"wp-groups-{key}-middles", by_middles(record, name))
    for key, name in {"two": FINEST, "four": COARSE}.items():
        glue(f"wp-groups-users-{key}-quiet", most(record, name, part="users", noise=QUIETEST))
        glue(f"wp-groups-users-{key}-quiet-near", most(record, name, SHORT, "users", QUIETEST))
        glue(f"wp-groups-{key}-quieter", most_quieter(record, name))
    glue("wp-groups-users-fine-quiet", most(record, FINE, longest, "users", QUIETEST))
    glue("wp-groups-quietest", QUIETEST)
    glue("wp-groups-delay", round(1e9 * with_noises(record)[0]["delay"]))
    glue("wp-groups-rates", users_rates(record))
    glue("wp-groups-largest", largest_sentence(record))
    glue("wp-groups-times", times_more(record))
    glue("wp-groups-means", means_sentence(record))
    glue("wp-late", late(record))


def check(record: Record) -> None:
    """Assert what the text says of groups in words; a band of the smoke profile has too few of them."""
    found = record.numbers["groups"]
    if record.profile == "smoke":
        return
    for row in found["channels"]:
        own = {name: better(row["linear"], name) for name in SIZES}
        assert own[FINE] <= max(own[FINEST], study.ROUNDING), "a finer group loses less"
        assert own[FINEST] <= max(1.05 * own[COARSE], study.ROUNDING), "a finer group loses less"
        assert row["linear"][MEANS[WHOLE]] < 1.1 * row["linear"][WHOLE], "of the whole band: better, or as good"
        assert row["joint"][COARSE] < max(row["linear"][COARSE], study.ROUNDING), "a joint receiver loses less"
        if row["delay"] < MODERATE:
            assert own[FINEST] < 0.005, "over short delays groups cost little"
        if row["delay"] > MODERATE:
            assert own[COARSE] > 0.01, "over long ones per cents"
        if row["delay"] <= MODERATE:
            assert own[WHOLE] > own[COARSE], "the whole band loses most"
            assert (row["latest"] > PREFIX) == (row["delay"] == MODERATE), "late paths begin there"
    moderate = [row for row in found["channels"] if row["delay"] <= MODERATE]
    for name in (FINEST, COARSE):
        largest = max(moderate, key=lambda row, name=name: better(row["linear"], name))
        assert largest["model"] == "D", "the larger ones have a line of sight"
    check_noises(record)
    one = {study.name(row): row["linear"] for row in found["channels"]}
    for row in found["users"]:
        own, alone = row["lost"], one[study.name(row)]
        assert own[FINEST] > alone[FINEST] and own[COARSE] > alone[COARSE], "several users lose more"
        assert row["delay"] <= MODERATE or own[FINEST] > 0.01, "several users lose per cents over long delays"
        assert own[FINE] < own[FINEST] < own[COARSE] < own[WHOLE], "several users: the finer the better"


def check_noises(record: Record) -> None:
    """Assert what the text says in words of groups with less noise."""
    for row in record.numbers["groups"]["users"]:
        if row["delay"] < MODERATE:
            assert at(row)[FINEST] < 0.005, "over short delays groups cost little, also several users"
        if row["delay"] == SHORT and row["pattern"] == "omni":
            assert at(row, QUIETEST)[FINEST] > 0.01, "and per cents with less noise"
        for name in (FINE, FINEST, COARSE):
            parts = [at(row, noise)[name] for noise in (study.NOISE, *QUIETER)]
            assert parts[0] < parts[1] < parts[2], "several users: the less noise, the more groups cost"
    for row in with_noises(record):
        for name in (FINEST, COARSE):
            before, *after = (better(at(row, noise), name) for noise in (study.NOISE, *QUIETER))
            assert (min(after) > before) == (max(after) > before) == (row["model"] == "D"), "with a line of sight alone"
