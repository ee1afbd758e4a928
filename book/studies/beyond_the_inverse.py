"""Studies of the chapter beyond the inverse: every operation at work, singular vectors, equalisers, certificates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import neumatc as nm
from studies import benchmark, figures, interpolants, practice, provenance, solvers
from studies.provenance import Record, Table
from studies.texts import conditions, judged, measured, spread, times, told

# Sentences on a map after its fit, and with it.
VERDICTS = {"map": "After the fit the map alone is {}.", "with": "Fit and map together are {}."}
GROUPS = ("linear", "factors", "functions", "meeting")
# The map whose vectors are orthonormal, in the record.
MAP = "map, orthonormal"
# Precoders for groups of subcarriers, in the record -> in the tables.
WAYS = {"one for": "one precoder for", "interpolated": "bases, interpolated,", "aligned": "vectors, interpolated,"}


def across(entries: Mapping[str, dict], rows: Mapping[str, Callable[[dict], str]]) -> Table:
    """Return a table with a column for each entry; ``rows``: label -> the text of an entry."""
    columns = list(map(label, entries))
    return Table(["", *columns], [[x, *map(text, entries.values())] for x, text in rows.items()])


def at_work(
    operation: nm.Operation,
    family: nm.ParametricMatrix,
    *,
    p: Tensor,
    seed: int,
    gives: str,
    compared: str = "$X$",
    rank: int = 8,
) -> dict:
    """Fit an operation on a family in closed form, check it, and return what the record keeps of it.

    Args:
        operation: The operation.
        family: The family of matrices.
        p: Parameters to measure at, (B, 1).
        seed: Seed of the fit.
        gives: What the operation returns, in words or as a formula.
        compared: What the error compares, as a formula.
        rank: Rank of the map.
    """
    problem = nm.Problem(family, operation)
    surrogate = nm.fit(problem, rank=rank, method=nm.ClosedForm(snapshots=32), seed=seed, progress=False)
    bound, error = stated(surrogate, problem, p), problem.error(p, surrogate(p))
    report = surrogate.report
    return {
        "call": f"nm.{operation}",
        "gives": gives,
        "compared": compared,
        "error": error.max(),
        "stated": bound.max(),
        "certainty": operation.certainty,
        "holds": bool((bound >= error).all()),
        "notes": [*map(str, report.events), *filter(None, [report.message])],
    }


def stated(surrogate: nm.Surrogate, problem: nm.Problem, p: Tensor) -> Tensor:
    """Return what `certify` says of a map's own values, whatever it is; Inf where it says nothing."""
    checked = nm.certify(surrogate, problem, p, rtol=1e300)
    return torch.where(checked.accepted, checked.bound, torch.inf)


def shown(record: Record, group: str) -> Table:
    """Tabulate the operations of a group."""
    sign = {"bound": "≤", "estimate": "≈"}
    return Table(
        ["call, and what it gives", "compared", "error", "`certify`"],
        [
            [
                f"`{e['call']}`, {e['gives']}",
                e["compared"],
                f"{e['error']:.0e}",
                f"{sign[e['certainty']]} {e['stated']:.0e}",
            ]
            for e in record.numbers[group]
        ],
    )


def notes_table(record: Record) -> Table:
    """Tabulate the events and notes in the reports of all operations at work."""
    return Table(
        ["call", "events and notes in the report"],
        [
            [f"`{e['call']}`, {e['gives']}", "; ".join(e["notes"])]
            for group in GROUPS
            for e in record.numbers[group]
            if e["notes"]
        ],
    )


def svd(
    channel: nm.wireless.Channel,
    *,
    rank: int,
    snapshots: int,
    streams: int,
    noise: float,
    groups: Mapping[str, dict],
    rounds: int,
    seed: int,
    arrays: dict,
) -> dict:
    """Measure maps of the leading singular vectors of a channel beside exact decompositions and grouped precoders.

    Args:
        channel: The channel, downlink.
        rank: Rank of the maps.
        snapshots: Exact decompositions that a fit spends.
        streams: Number of leading triplets.
        noise: Variance of the noise in the rates.
        groups: Arguments of :func:`studies.practice.group_precoders` by name.
        rounds: Rounds of the alternating measurement.
        seed: Seed of the fits.
        arrays: Takes the ``frequency`` and the singular values there, ``exact`` and of the ``map``.

    Returns:
        Errors, defects of orthogonality, lost rates and ratios of times, for the record. ``losses`` are those of a
        receiver that decodes the streams jointly, ``streams`` those of a linear one, stream by stream.
    """

    def fit(gauge: str = "vectors", rank: int = rank, snapshots: int = snapshots) -> nm.Surrogate:
        problem = nm.Problem(channel, nm.SVD(rank=streams, gauge=gauge))
        return nm.fit(problem, rank=rank, method=nm.ClosedForm(snapshots=snapshots), seed=seed, progress=False)

    operation, f = nm.SVD(rank=streams), channel.frequencies
    H, surrogate, block, former = channel(f), fit(), fit("subspace"), fit(rank=16, snapshots=48)
    exact = nm.Problem(channel, operation).exact(f).value
    h, out = H.cpu().numpy(), tuple(torch.empty_like(x) for x in exact)
    calls = {
        "NumPy loop": lambda: [np.linalg.svd(matrix, full_matrices=False) for matrix in h],
        "NumPy": lambda: nm.linalg.svd(H),
        "Gram matrix": lambda: solvers.svd_by_gram(H, streams),
        "map": lambda: surrogate(f, out=out),
        "map, new memory": lambda: surrogate(f),
        "map, orthonormal": lambda: surrogate(f, orthonormal=True),
        "map, block": lambda: block(f, out=out),
        "fit and map": lambda: fit()(f),
        "fit and map, orthonormal": lambda: fit()(f, orthonormal=True),
    }
    calls |= {name: lambda group=group: practice.group_precoders(H, streams, **group) for name, group in groups.items()}
    timings = benchmark.compare(calls, rounds=rounds)
    invariant, eye = operation.invariant(exact), torch.eye(streams, device=f.device)
    value, tidy = surrogate(f), surrogate(f, orthonormal=True)

    def error(factors: nm.SVDFactors) -> Tensor:
        return benchmark.relative_error(operation.invariant(factors), invariant)

    def defect(factors: nm.SVDFactors) -> float:
        return max(float((x.mH @ x - eye).abs().max()) for x in (factors.U, factors.Vh.mH))

    def lost(rate: Callable[..., Tensor], V: Tensor) -> Tensor:
        return 1 - rate(H, V, noise).mean() / rate(H, exact.Vh.mH, noise).mean()

    precoders = {name: calls[name]() for name in groups} | {MAP: tidy.Vh.mH}
    arrays |= {"frequency": f[:, 0], "exact": exact.S, "map": value.S}
    return {
        "shape": list(channel.shape),
        "count": len(f),
        "rank": rank,
        "solves": surrogate.report.exact_solves,
        "events": [*map(str, surrogate.report.events)],
        "error": error(value),
        "error_former": error(former(f)),
        "error_block": error(block(f)),
        "error_gram": error(calls["Gram matrix"]()),
        "values": benchmark.relative_error(value.S, exact.S),
        "defect": defect(value),
        "defect_orthonormal": defect(tidy),
        "loss": lost(practice.precoded_rate, value.Vh.mH),
        "losses": {name: lost(practice.precoded_rate, V) for name, V in precoders.items()},
        "streams": {name: lost(practice.stream_rate, V) for name, V in precoders.items()},
        "conditions": timings.conditions,
        "faster": {
            slow: timings.ratios(slow, list(calls))
            for slow in ("NumPy loop", "NumPy", "Gram matrix", "fit and map, orthonormal")
        },
    }


def glue_svd(record: Record) -> None:
    """Glue what the text says about singular vectors."""
    svd = record.numbers["svd"]
    for case, entry in svd.items():
        for key, value in {
            "error": entry["error"],
            "former": entry["error_former"],
            "block-error": entry["error_block"],
            "gram-error": entry["error_gram"],
            "defect": entry["defect"],
            "defect-tidy": entry["defect_orthonormal"],
            "solves": entry["solves"],
            "rank": entry["rank"],
            "events": "; ".join(entry["events"]) or "nothing",
        }.items():
            provenance.glue(f"bi-{case.lower()}-{key}", value)
    provenance.glue("bi-count", svd["A30"]["count"])
    rivals = {"loop": "NumPy loop", "batched": "NumPy", "gram": "Gram matrix"}
    own = "map, orthonormal", "fit and map, orthonormal"
    glue_verdicts("bi-svd", svd, rivals, own)
    found = {label(case, " at"): entry["faster"]["Gram matrix"][own[1]] for case, entry in svd.items()}
    provenance.glue("bi-finding", judged("Beside it, fit and map together are {}.", found))


def glue_verdicts(
    prefix: str, entries: Mapping[str, dict], rivals: Mapping[str, str], own: tuple[str, str] = ("map", "fit and map")
) -> None:
    """Glue in words how map, and fit and map, compare with exact methods on all channels, from the quartiles.

    ``own``: the names of both in the record; a map beside vectors that are orthonormal is one whose vectors are.
    """
    provenance.glue(f"{prefix}-timed", conditions(*(entry["conditions"] for entry in entries.values())))
    for key, rival in rivals.items():
        for short, name in zip(("map", "with"), own):
            found = {label(case, " at"): entry["faster"][rival][name] for case, entry in entries.items()}
            provenance.glue(f"{prefix}-verdict-{key}-{short}", judged(VERDICTS[short], found))


def label(case: str, joined: str = ",") -> str:
    """Return the name of a channel: its model and its delay spread.

    Example:
        >>> label("A30"), label("C100", " at")
        ('CDL-A, 30 ns', 'CDL-C at 100 ns')
    """
    return f"CDL-{case[0]}{joined} {case[1:]} ns"


def svd_table(record: Record) -> Table:
    """Tabulate errors and orthogonality of the maps of singular vectors."""
    svd = record.numbers["svd"]
    return across(
        svd,
        {
            "exact decompositions": lambda e: str(e["solves"]),
            "rank of the maps": lambda e: str(e["rank"]),
            "error of the rank-4 part": lambda e: f"{e['error']:.1e}",
            "error of the singular values": lambda e: f"{e['values']:.1e}",
            "orthogonality error": lambda e: f"{e['defect']:.0e}",
            "orthogonality error, `orthonormal=True`": lambda e: f"{e['defect_orthonormal']:.0e}",
            'error, `gauge="subspace"`': lambda e: f"{e['error_block']:.1e}",
            "events in the report": lambda e: str(len(e["events"])),
        },
    )


def _over_a_loop(entries: dict, rows: dict[str, str]) -> Table:
    """Tabulate how many times as fast as a loop of NumPy each is; ``rows``: label -> name in the record."""
    return across(
        entries, {label: lambda e, name=name: spread(e["faster"]["NumPy loop"][name]) for label, name in rows.items()}
    )


def svd_times_table(record: Record) -> Table:
    """Tabulate the speed-up over a loop of exact decompositions."""
    svd = record.numbers["svd"]
    return _over_a_loop(
        svd,
        {
            "map, in reused memory": "map",
            "map, in new memory": "map, new memory",
            "map, `orthonormal=True`, in new memory": "map, orthonormal",
            'map, `gauge="subspace"`': "map, block",
            "fit and map": "fit and map",
            "fit and map, `orthonormal=True`": "fit and map, orthonormal",
            "NumPy on all cores": "NumPy",
            "Gram matrix on all cores": "Gram matrix",
        },
    )


def glue_losses(record: Record) -> None:
    """Glue what the text says about precoders for groups of subcarriers."""
    svd = record.numbers["svd"]
    old = [case for case, entry in svd.items() if "streams" not in entry]
    assert not old, f"{old} have no rates of a linear receiver: make run CHAPTER=beyond_the_inverse PROFILE=study"
    for case, entry in svd.items():
        for name, loss in entry["losses"].items():
            provenance.glue(f"bi-{case.lower()}-{name.replace(', ', ' ').replace(' ', '-')}", loss)
    bases, vectors, own = ([e["streams"][x] for e in svd.values()] for x in ("interpolated 24", "aligned 24", MAP))
    provenance.glue("bi-streams-bases", f"{times(100 * min(bases))} to {times(100 * max(bases))} %")
    provenance.glue("bi-streams-vectors", max(vectors))
    provenance.glue("bi-streams-map", max(own))
    found = {
        label(case, " at"): entry["faster"]["fit and map, orthonormal"]["aligned 24"] for case, entry in svd.items()
    }
    sentence = "Beside fit and map, in orthonormal columns, interpolation of vectors between groups of 24 is {}."
    provenance.glue("bi-interpolated-verdict", judged(sentence, found))


def group_labels(record: Record) -> dict[str, str]:
    """Return what a table calls each way of grouping subcarriers."""
    named = ((*name.rpartition(" ")[::2], count) for name, count in record.numbers["groups"].items())
    return {f"{way} {size}": f"{WAYS[way]} {size} subcarriers ({count})" for way, size, count in named}


def losses_table(record: Record) -> Table:
    """Tabulate the share of the rate that grouped precoders and the map lose, for both receivers."""
    svd, labels = record.numbers["svd"], group_labels(record) | {MAP: "map, `orthonormal=True`"}
    return across(
        svd,
        {
            label: (lambda e, name=name: f"{e['losses'][name]:.0e} / {e['streams'][name]:.0e}")
            for name, label in labels.items()
        },
    )


def losses_times_table(record: Record) -> Table:
    """Tabulate the speed-up of grouped precoders and of the map."""
    svd, labels = record.numbers["svd"], group_labels(record)
    return across(
        svd,
        {label: (lambda e, name=name: spread(e["faster"]["NumPy loop"][name])) for name, label in labels.items()}
        | {"fit and map, `orthonormal=True`": lambda e: spread(e["faster"]["NumPy loop"]["fit and map, orthonormal"])},
    )


def lmmse(
    channel: nm.wireless.Channel, *, level: float, terms: int, budget: int, rounds: int, seed: int, arrays: dict
) -> dict:
    """Measure maps of the linear equaliser of a channel beside exact solvers and interpolation.

    Args:
        channel: The channel, uplink.
        level: Variance of the noise.
        terms: Rank of the maps.
        budget: Exact solves that a fit spends.
        rounds: Rounds of the alternating measurement.
        seed: Seed of the fits.
        arrays: Takes the ``frequency`` and the relative errors there: of the ``map``, of the best map of its rank
            (``limit``) and of the cubic ``spline``.

    Returns:
        Errors, lost rates and ratios of times, for the record.
    """
    task, f = nm.Problem(channel, nm.LMMSE(noise=level)), channel.frequencies
    knots = len(f) // 24 + 1

    def fit() -> nm.Surrogate:
        return nm.fit(task, rank=terms, method=nm.ClosedForm(snapshots=budget), seed=seed, progress=False)

    matrices, surrogate = channel(f), fit()
    reference = practice.lmmse_loop(matrices.to(torch.complex128), level)
    out, lines = surrogate(f), nm.peers.spline(task, knots, degree=1)
    calls = {
        "NumPy loop": lambda: practice.lmmse_loop(matrices, level),
        "Sionna": lambda: practice.sionna_lmmse(matrices, level),
        "Cholesky": lambda: nm.peers.torch_lmmse(matrices, level),
        "map": lambda: surrogate(f, out=out),
        "map, new memory": lambda: surrogate(f),
        "fit and map": lambda: fit()(f),
        "linear": lambda: lines(f),
        "solves and linear": lambda: nm.peers.spline(task, knots, degree=1)(f),
        "solves and cubic": lambda: nm.peers.spline(task, budget)(f),
    }
    timings = benchmark.compare(calls, rounds=rounds)

    # Errors and rates on every fourth subcarrier.
    H, reference = matrices[::4].to(torch.complex128), reference[::4]
    names = ("Sionna", "Cholesky", "map, new memory", "linear", "solves and cubic")
    values = {name: calls[name]()[::4].to(reference) for name in names}
    values["POD and spline"] = interpolants.pod_spline(task, budget, terms)(f[::4]).to(reference)
    best = nm.wireless.sum_rate(H, reference, level).mean()
    drawn = {"map": values["map, new memory"], "limit": benchmark.best_of_rank(reference, terms)}
    arrays |= {"frequency": f[::4, 0]}
    for name, value in (drawn | {"spline": values["solves and cubic"]}).items():
        arrays[name] = torch.linalg.vector_norm(value - reference, dim=(1, 2)) / torch.linalg.vector_norm(
            reference, dim=(1, 2)
        )
    return {
        "shape": list(channel.shape),
        "rank": terms,
        "solves": surrogate.report.exact_solves,
        "knots": knots,
        "limit": benchmark.eckart_young(reference, terms),
        "errors": {name: benchmark.relative_error(value, reference) for name, value in values.items()},
        "losses": {name: 1 - nm.wireless.sum_rate(H, value, level).mean() / best for name, value in values.items()},
        "conditions": timings.conditions,
        "faster": {slow: timings.ratios(slow, list(calls)) for slow in ("NumPy loop", "Sionna", "Cholesky")},
    }


def glue_lmmse(record: Record) -> None:
    """Glue what the text says about the equaliser."""
    lmmse = record.numbers["lmmse"]
    for case, entry in lmmse.items():
        for key, value in {
            "error": entry["errors"]["map, new memory"],
            "cubic": entry["errors"]["solves and cubic"],
            "linear": entry["errors"]["linear"],
            "gap": entry["errors"]["map, new memory"] / entry["limit"],
            "loss": entry["losses"]["map, new memory"],
            "rank": entry["rank"],
            "solves": entry["solves"],
        }.items():
            provenance.glue(f"bi-lmmse-{case.lower()}-{key}", value)
    provenance.glue("bi-knots", lmmse["A30"]["knots"])
    beside = [entry["errors"]["POD and spline"] / entry["errors"]["map, new memory"] for entry in lmmse.values()]
    provenance.glue("bi-lmmse-pod-least", f"{min(beside):.2f}")
    provenance.glue("bi-lmmse-pod-most", f"{max(beside):.2f}")
    rivals = {"loop": "NumPy loop", "sionna": "Sionna", "cholesky": "Cholesky"}
    glue_verdicts("bi-lmmse", lmmse, rivals, ("map, new memory", "fit and map"))
    for key, sentence, (slow, fast), cases in (
        (
            "reused",
            "In memory that is there already, as a caller may hand it over, where Sionna writes new memory, the map "
            "has {} (CDL-A) and {} (CDL-C) times Sionna's speed at 30 ns.",
            ("Sionna", "map"),
            ("A30", "C30"),
        ),
        (
            "cubic-time",
            "With its solves the spline has, on CDL-C, {} (30 ns) and {} (100 ns) times the speed of the loop.",
            ("NumPy loop", "solves and cubic"),
            ("C30", "C100"),
        ),
    ):
        provenance.glue(f"bi-lmmse-{key}", told(sentence, *(lmmse[case]["faster"][slow][fast] for case in cases)))


def lmmse_table(record: Record) -> Table:
    """Tabulate errors and lost rates of the maps of the equaliser."""
    lmmse = record.numbers["lmmse"]
    return across(
        lmmse,
        {
            "exact solves, map and cubic spline": lambda e: str(e["solves"]),
            "exact solves, linear": lambda e: str(e["knots"]),
            "rank": lambda e: str(e["rank"]),
            "limit of the rank": lambda e: f"{e['limit']:.1e}",
            "error of the map": lambda e: f"{e['errors']['map, new memory']:.1e}",
            "error, cubic spline": lambda e: f"{e['errors']['solves and cubic']:.1e}",
            "error, POD and cubic spline": lambda e: f"{e['errors']['POD and spline']:.1e}",
            "error, linear": lambda e: f"{e['errors']['linear']:.1e}",
            "error, Sionna": lambda e: f"{e['errors']['Sionna']:.0e}",
            "error, torch Cholesky": lambda e: f"{e['errors']['Cholesky']:.0e}",
            "sum rate lost, map": lambda e: f"{e['losses']['map, new memory']:.0e}",
            "sum rate lost, cubic spline": lambda e: f"{e['losses']['solves and cubic']:.0e}",
            "sum rate lost, linear": lambda e: f"{e['losses']['linear']:.0e}",
        },
    )


def lmmse_times_table(record: Record) -> Table:
    """Tabulate the speed-up over a loop of exact equalisers."""
    lmmse = record.numbers["lmmse"]
    return _over_a_loop(
        lmmse,
        {
            "map, in reused memory": "map",
            "map, in new memory": "map, new memory",
            "fit and map": "fit and map",
            "Sionna": "Sionna",
            "torch Cholesky": "Cholesky",
            "linear, after its solves": "linear",
            "linear and its solves": "solves and linear",
            "cubic spline and its solves": "solves and cubic",
        },
    )


def on_gpu_by_case(record: Record) -> dict[str, dict]:
    """Return both tasks of a record by channel."""
    return {case: {"svd": e, "lmmse": record.numbers["lmmse"][case]} for case, e in record.numbers["svd"].items()}


def glue_gpu(record: Record) -> None:
    """Glue what the text says about a run on a GPU."""
    machine = record.provenance["machine"]
    provenance.glue("bi-gpu", machine["gpu"] or machine["cpu"])
    provenance.glue("bi-gpu-cores", machine["cores"])
    provenance.glue("bi-gpu-date", record.provenance["date"][:10])
    for case, entry in on_gpu_by_case(record).items():
        for key, value in {
            "gram": entry["svd"]["faster"]["Gram matrix"]["map"],
            "gram-tidy": entry["svd"]["faster"]["Gram matrix"]["map, orthonormal"],
            "gram-with": entry["svd"]["faster"]["Gram matrix"]["fit and map"],
            "sionna": entry["lmmse"]["faster"]["Sionna"]["map"],
            "sionna-new": entry["lmmse"]["faster"]["Sionna"]["map, new memory"],
            "sionna-with": entry["lmmse"]["faster"]["Sionna"]["fit and map"],
        }.items():
            provenance.glue(f"bi-gpu-{case.lower()}-{key}", spread(measured(value)))


def gpu_table(record: Record) -> Table:
    """Tabulate the ratios of times of a run on a GPU."""

    def ratio(task: str, fast: str, slow: str) -> Callable[[dict], str]:
        return lambda e: spread(measured(e[task]["faster"][slow][fast]))

    return across(
        on_gpu_by_case(record),
        {
            "SVD: map / NumPy loop": ratio("svd", "map", "NumPy loop"),
            "SVD: map / Gram matrix": ratio("svd", "map", "Gram matrix"),
            "SVD: map, `orthonormal=True` / Gram matrix": ratio("svd", "map, orthonormal", "Gram matrix"),
            "SVD: fit and map / Gram matrix": ratio("svd", "fit and map", "Gram matrix"),
            "SVD: interpolated, 24 / Gram matrix": ratio("svd", "interpolated 24", "Gram matrix"),
            "SVD: batched SVD / NumPy loop": ratio("svd", "NumPy", "NumPy loop"),
            "LMMSE: map / NumPy loop": ratio("lmmse", "map", "NumPy loop"),
            "LMMSE: map / Sionna": ratio("lmmse", "map", "Sionna"),
            "LMMSE: map, in new memory / Sionna": ratio("lmmse", "map, new memory", "Sionna"),
            "LMMSE: fit and map / Sionna": ratio("lmmse", "fit and map", "Sionna"),
        },
    )


def wide(x: Tensor) -> Tensor:
    """Return x in double precision."""
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def true_error(task: nm.Problem, value: object, f: Tensor) -> Tensor:
    """Return the error against the exact result for the same matrices, in double precision."""
    exact, _ = task.operation.exact(wide(task.family(f)))
    return task.operation.error([wide(x) for x in task.unpack(value, f)], exact)


def certificates(
    tasks: Mapping[str, nm.Problem], f: Tensor, *, ranks: Sequence[int], budget: int, seed: int, arrays: dict
) -> list[dict]:
    """Compare the bounds of :func:`neumatc.certify` with the true errors of maps of several ranks.

    Args:
        tasks: Problems by name.
        f: Frequencies to certify at, (B, 1).
        ranks: Ranks of the maps.
        budget: Exact solves that a fit spends.
        seed: Seed of the fits.
        arrays: Takes ``<name>_error`` and ``<name>_bound`` at all frequencies, for the maps of all ranks.
    """
    method, certified = nm.ClosedForm(snapshots=budget), []
    for name, task in tasks.items():
        for r in ranks:
            surrogate = nm.fit(task, rank=r, method=method, seed=seed, progress=False)
            bound, error = stated(surrogate, task, f), true_error(task, surrogate(f), f)
            for key, value in (("error", error), ("bound", bound)):
                kept = arrays.get(f"{name}_{key}", value[:0])
                arrays[f"{name}_{key}"] = torch.cat([kept, value])
            for rtol in (1e-2, 1e-3):
                checked = nm.certify(surrogate, task, f, rtol=rtol)
                certified.append(
                    {
                        "operation": name,
                        "rank": r,
                        "rtol": rtol,
                        "accepted": checked.accepted.double().mean(),
                        "good": (error <= rtol).double().mean(),
                        "error": error.max(),
                        "error_after": true_error(task, checked.value, f).max(),
                        "sharpness": (bound / error).median(),
                        "holds": bool((bound >= error).all()),
                    }
                )
    return certified


def certificate_cost(task: nm.Problem, surrogate: nm.Surrogate, f: Tensor) -> dict:
    """Return how many times as long as exact inverses, and as the map, a certificate of the map takes.

    The inverses are NumPy's, batched, and from torch's Cholesky factor, the fastest that we know; both form A first.
    """
    timings = benchmark.compare(
        {
            "certify": lambda: nm.certify(surrogate, task, f, rtol=1.0),
            "solve": lambda: solvers.numpy_batched(task.family(f)),
            "Cholesky": lambda: solvers.torch_cholesky(task.family(f)),
            "map": lambda: surrogate(f),
        },
        rounds=5,
    )
    return {
        "conditions": timings.conditions,
        "solve": timings.ratio("certify", "solve"),
        "cholesky": timings.ratio("certify", "Cholesky"),
        "map": timings.ratio("certify", "map"),
    }


def prefixed(prefix: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return arrays with names that a record keeps apart."""
    return {f"{prefix}_{name}": value for name, value in arrays.items()}


def track_figure(record: Record, case: str) -> Figure:
    """Plot the singular values along the band, exact and of the map, and how far they are apart."""
    f, exact, ours = (record.arrays[f"svd_{case}_{name}"] for name in ("frequency", "exact", "map"))
    figure, (values, errors) = plt.subplots(2, 1, figsize=(figures.WIDTH, 5.2), sharex=True, height_ratios=(5, 3))
    colours = (figures.BLUE, figures.ORANGE, figures.GREEN, figures.PURPLE)
    for k, colour in zip(range(exact.shape[1]), colours):
        values.plot(f / 1e6, exact[:, k], color=colour, lw=3.5, alpha=0.35)
        values.plot(f / 1e6, ours[:, k], color=figures.BLACK, lw=0.9, ls="--")
        values.annotate(f"{k + 1}", (f[-1] / 1e6, exact[-1, k]), xytext=(4, 0), textcoords="offset points", va="center")
    values.set(ylabel="singular value")
    errors.semilogy(f / 1e6, np.abs(ours - exact).max(axis=1) / exact[:, 0], color=figures.BLACK, lw=0.9)
    errors.set(xlabel="offset from the carrier (MHz)", ylabel="largest error / value 1")
    marks = [
        plt.Line2D([], [], color=figures.GREY, lw=3.5, alpha=0.5, label="exact"),
        plt.Line2D([], [], color=figures.BLACK, lw=0.9, ls="--", label="map"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def band_figure(record: Record, cases: Sequence[str]) -> Figure:
    """Plot the errors of the equaliser along the band beside those of the best map of its rank, a panel a channel."""
    figure, panels = plt.subplots(len(cases), 1, figsize=(figures.WIDTH, 2.6 * len(cases)), sharex=True, sharey=True)
    for axes, case in zip(np.atleast_1d(panels), cases):
        arrays = {name: record.arrays[f"lmmse_{case}_{name}"] for name in ("frequency", "map", "limit", "spline")}
        f = arrays.pop("frequency") / 1e6
        axes.semilogy(f, arrays["map"], color=figures.BLUE, lw=1.3, label="map")
        axes.semilogy(f, arrays["limit"], color=figures.GREEN, lw=1.0, ls="--", label="best map of its rank (limit)")
        axes.semilogy(f, arrays["spline"], color=figures.ORANGE, lw=0.9, label="cubic spline, as many solves")
        axes.set(title=label(case), ylabel="relative error")
    axes.set_xlabel("offset from the carrier (MHz)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return figure


def bound_figure(record: Record) -> Figure:
    """Plot bounds in units of the true errors, one point a frequency and map; no point may lie below one."""
    figure, axes = plt.subplots(figsize=(figures.WIDTH, 4.2))
    names = dict.fromkeys(entry["operation"] for entry in record.numbers["certified"])
    for name, colour, mark in zip(names, (figures.BLUE, figures.ORANGE, figures.GREEN), "o^s"):
        error, bound = (record.arrays[f"certified_{name}_{key}"] for key in ("error", "bound"))
        known = np.isfinite(bound)
        axes.loglog(
            error[known], bound[known] / error[known], mark, color=colour, ms=3, mfc="none", mew=0.6, label=name
        )
    axes.axhline(1, color=figures.BLACK, lw=1, label="bound = error")
    axes.set(xlabel="true relative error", ylabel="bound / true error")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return figure


def glue_certificates(record: Record) -> None:
    """Glue what the text says about certificates."""
    cost = record.numbers["certify_cost"]
    numpy, cholesky, own = cost["solve"], cost["cholesky"], cost["map"]
    sentence = (
        "To certify every answer takes {} times as long as inverting every matrix with NumPy on all cores, {} "
        "times as long as inverting with torch's Cholesky factor, and {} times as long as the map alone."
    )
    provenance.glue("bi-certify-price", told(sentence, numpy, cholesky, own))
    provenance.glue("bi-certify-timed", conditions(cost["conditions"]))
    for name in dict.fromkeys(entry["operation"] for entry in record.numbers["certified"]):
        sharp = [entry["sharpness"] for entry in record.numbers["certified"] if entry["operation"] == name]
        provenance.glue(f"bi-sharp-{name.lower()}-least", times(min(sharp)))
        provenance.glue(f"bi-sharp-{name.lower()}-most", times(max(sharp)))


def certificates_table(record: Record) -> Table:
    """Tabulate true errors and what was accepted."""
    return Table(
        ["operation, rank", "largest error", "tolerance", "within", "accepted", "error after"],
        [
            [
                f"{e['operation']}, {e['rank']}",
                f"{e['error']:.0e}",
                f"{e['rtol']:g}",
                f"{100 * e['good']:.0f} %",
                f"{100 * e['accepted']:.4g} %",
                f"{e['error_after']:.0e}",
            ]
            for e in record.numbers["certified"]
        ],
    )


def check(record: Record, on_gpu: Record) -> None:
    """Assert what the text says of errors and rates; what it says of times follows from the quartiles."""
    numbers = record.numbers
    # The record of a GPU may have kept no spread, so what is said of it holds by far.
    svd, lmmse = (on_gpu.numbers[task]["C30"]["faster"] for task in ("svd", "lmmse"))
    assert measured(svd["Gram matrix"]["fit and map"])[1] < 0.5 and measured(lmmse["Sionna"]["fit and map"])[1] < 0.5
    assert measured(svd["NumPy loop"]["NumPy"])[1] < 0.7, "the batched SVD of a GPU"
    worked = [entry for group in GROUPS for entry in numbers[group]]
    assert all(entry["holds"] for entry in worked if entry["certainty"] == "bound")
    assert all(entry["error"] < 3e-3 for entry in worked)
    given = {entry["call"]: entry["stated"] / entry["error"] for entry in worked}
    assert all(abs(given[f"nm.{call}"] - 1) < 1e-2 for call in ("Eig()", "MatrixFunction()"))
    notes = [" ".join(entry["notes"]) for entry in numbers["meeting"]]
    assert all("crossing of" in text for text in notes[:3]) and "avoided" in notes[2]
    assert all(entry["holds"] for entry in numbers["certified"])
    assert all(entry["error_after"] <= entry["rtol"] for entry in numbers["certified"])
    if record.profile != "smoke":
        check_sizes(numbers)
        check_curves(record)


def check_sizes(numbers: dict) -> None:
    """Assert what the text says of errors and rates at full size."""
    for entry in numbers["svd"].values():
        assert entry["solves"] <= 96 and entry["error"] <= 1e-2
        assert abs(entry["loss"]) <= 1e-4 and entry["losses"][MAP] <= 1e-4
        assert entry["defect_orthonormal"] <= 1e-5
        for lost in (entry["losses"], entry["streams"]):
            assert lost[MAP] < lost["one for 24"] < lost["one for 48"], "flat precoders lose more than the map"
            assert lost["aligned 24"] < lost[MAP], "vectors that are interpolated lose less, with both receivers"
        assert entry["losses"]["interpolated 24"] < entry["losses"][MAP], "bases too, with the joint one"
        flat = entry["streams"]["one for 48"]
        assert entry["streams"]["interpolated 24"] > 10 * flat, "bases are the worst row with the linear one"
        assert max(entry[key]["aligned 48"] for key in ("losses", "streams")) < 1e-4, "page one: it loses little"
    assert numbers["svd"]["A100"]["events"]
    for case, entry in numbers["lmmse"].items():
        assert entry["errors"]["solves and cubic"] < entry["errors"]["map, new memory"] < 1e-2
        assert entry["losses"]["map, new memory"] <= 1e-4
        assert case[1:] != "30" or entry["errors"]["linear"] < entry["errors"]["map, new memory"]
        assert (entry["losses"]["linear"] < entry["losses"]["map, new memory"]) == (case != "A100")
        assert entry["errors"]["POD and spline"] < 1.1 * entry["errors"]["map, new memory"]
    for letter in ("A", "C"):
        short, long = (numbers["lmmse"][f"{letter}{spread}"]["errors"]["map, new memory"] for spread in (30, 100))
        assert short < long, "at 100 ns the error is still higher"
    for entry in numbers["svd"].values():
        assert math.ceil(entry["count"] / 48) > entry["solves"], "interpolated precoders take more decompositions"
    sharp = {
        name: [e["sharpness"] for e in numbers["certified"] if e["operation"] == name]
        for name in ("inverse", "LMMSE", "SVD")
    }
    assert max(sharp["inverse"] + sharp["LMMSE"]) < 2 < min(sharp["SVD"]), "those of the decomposition lie higher"
    strict = [e for e in numbers["certified"] if e["operation"] == "SVD" and e["rtol"] == 1e-3]
    assert any(e["accepted"] < 0.5 * e["good"] for e in strict), "most that are close below the tolerance are refused"


def check_curves(record: Record) -> None:
    """Assert what the figure of the equaliser along the band, as it is described, shows at full size."""
    for case in ("C30", "C100"):
        own, best, spline = (record.arrays[f"lmmse_{case}_{name}"] for name in ("map", "limit", "spline"))
        assert np.linalg.norm(own) < 1.05 * np.linalg.norm(best), "the error of the map lies on that of the best map"
        assert (spline < np.minimum(own, best)).mean() > 0.5, "that of the spline below both over most of the band"
