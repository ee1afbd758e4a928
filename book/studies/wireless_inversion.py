"""Studies of the chapter on wireless inversion: one map for the whole band, its speed, and harder channels.

`studies.wireless_receivers` has the maps in pieces and their peers.

``python -m studies.wireless_inversion`` trains the maps of the chapter and publishes them; three minutes when idle.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import neumatc as nm
from studies import benchmark, digests, practice, provenance, solvers
from studies.provenance import Record, Table
from studies.texts import conditions, matrices, matrices_between, spread, title, told, two_digits

EXACT = {
    "NumPy loop": solvers.numpy_loop,
    "NumPy batched": solvers.numpy_batched,
    "Sionna, Cholesky": practice.sionna_cholesky,
    "torch, Cholesky": solvers.torch_cholesky,
}
# Name of the record of the trained maps, and the steps of their training.
TRAINED, STEPS = "wireless_trained", 5_000
# Steps towards the map of least residual in the tables of harder channels. Two more lower the lost rate by a tenth, and
# take as long as all the rest of a table.
LEAST_STEPS = 2


def percent(lost: float) -> str:
    """Return a share of the rate in percent; the rate is computed in single precision."""
    return f"{100 * lost:.2g} %" if lost > 1e-6 else "< 0.0001 %"


def quality(
    record: Record,
    model: str,
    channel: nm.wireless.Channel,
    problem: nm.Problem,
    X: Tensor,
    trained: nm.Surrogate,
    solved: nm.Surrogate,
    noise: float,
) -> None:
    """Record errors, residuals and rates of a trained map and of a closed form along the band of one channel.

    Args:
        record: Gets the numbers under ``model``, which must be there already, and the arrays ``<model>_...``.
        model: ``"cdl_a"`` or ``"cdl_c"``.
        channel: The channel.
        problem: The inverse of its regularised Gram matrix.
        X: The exact inverses at the channel's frequencies, (B, n, n).
        trained: The map from gradient training.
        solved: The map of the closed form, of the same rank.
        noise: Variance of the noise.
    """
    f, rank = channel.frequencies, trained.rank
    value, closed = trained(f), solved(f)
    best = benchmark.best_of_rank(X[::4], rank)
    least = benchmark.least_residual(problem.family(f[::8]), rank)
    H = channel(f)

    def rate(inverse: Tensor) -> float:
        every = round(len(H) / len(inverse))
        return float(nm.wireless.sum_rate(H[::every], inverse @ H[::every].mH, noise).mean())

    full, residual = rate(X), problem.residual(f, value)
    # For a Hermitian A, the other side's residual X A - I is the residual of the adjoint, conjugated.
    other_side = problem.residual(f, value.mH)
    norm = torch.linalg.vector_norm(X[::4], dim=(1, 2))
    record.numbers[model] |= {
        "error": benchmark.relative_error(value, X),
        "residual_median": residual.median(),
        "residual_max": residual.max(),
        "rate": full,
        "other_side": other_side.median(),
        "rate_lost": 1 - rate(value) / full,
        "rate_lost_adjoint": 1 - rate(value.mH) / full,
        "rate_lost_best": 1 - rate(best) / rate(X[::4]),
        "rate_lost_least": 1 - rate(least) / rate(X[::8]),
        "least_error": benchmark.relative_error(least, X[::8]),
        "report": trained.report.to_dict(),
        "closed": {
            "error": benchmark.relative_error(closed, X),
            "residual_median": problem.residual(f, closed).median(),
            "residual_max": problem.residual(f, closed).max(),
            "other_side": problem.residual(f, closed.mH).median(),
            "rate_lost": 1 - rate(closed) / full,
            "rate_lost_adjoint": 1 - rate(closed.mH) / full,
            "report": solved.report.to_dict(),
        },
    }
    record.arrays |= {
        f"{model}_frequency": f[::4, 0],
        f"{model}_error": problem.error(f[::4], value[::4]),
        f"{model}_residual": residual[::4],
        f"{model}_closed_error": problem.error(f[::4], closed[::4]),
        f"{model}_best_error": torch.linalg.vector_norm(best - X[::4], dim=(1, 2)) / norm,
    }


def quality_table(record: Record, models: Sequence[str]) -> Table:
    """Tabulate errors and residuals of both fits."""
    rows = []
    for model in models:
        n = record.numbers[model]
        for fit, values in (("trained", n), ("closed form", n["closed"])):
            rows.append(
                [
                    f"{title(model)}, {fit}",
                    f"{values['error']:.1e}",
                    f"{n['limit']:.1e}",
                    f"{values['residual_median']:.1e}",
                    f"{values['residual_max']:.1e}",
                    f"{values['other_side']:.1e}",
                ]
            )
    header = ["channel, fit", "error", "limit", "residual: median", "residual: largest", "of $XA-I$: median"]
    return Table(header, rows)


def glue_quality(record: Record, models: Sequence[str]) -> None:
    """Glue what the text says about the quality of the fits."""
    for model in models:
        n, key = record.numbers[model], model.replace("cdl_", "wi-")
        provenance.glue(f"{key}-sides", n["other_side"] / n["residual_median"])
        provenance.glue(f"{key}-bound", n["residual_max"] * record.numbers["size"] ** 0.5)
        names = (
            "condition",
            "error",
            "rate",
            "rate_lost",
            "rate_lost_adjoint",
            "rate_lost_best",
        )
        for name in (*names, "rate_lost_least"):
            provenance.glue(f"{key}-{name.replace('_', '-')}", n[name] * (100 if "lost" in name else 1))
        provenance.glue(f"{key}-stream", n["rate"] / record.numbers["size"])
        provenance.glue(f"{key}-gap", n["error"] / n["limit"])
        provenance.glue(f"{key}-least-ratio", n["least_error"] / n["limit"])
        provenance.glue(f"{key}-closed-error", n["closed"]["error"])
        provenance.glue(f"{key}-closed-gap", n["closed"]["error"] / n["limit"])
        provenance.glue(f"{key}-closed-solves", n["closed"]["report"]["exact_solves"])
        provenance.glue(f"{key}-closed-rate-lost", 100 * n["closed"]["rate_lost_adjoint"])
    provenance.glue("wi-rank", record.numbers["rank"])
    provenance.glue("wi-slot-matrices", 280 * record.numbers["cdl_c"]["count"])
    provenance.glue("wi-steps", record.numbers["steps"])


def glue_search() -> None:
    """Glue the budget and the error of the search's best trial on CDL-C, which are not those of this chapter."""
    trials = provenance.load("training_search").numbers["trials"]
    best = min((x for x in trials if x["family"] == "cdl_c"), key=lambda x: x["error"])
    provenance.glue("wi-search-steps", best["steps"])
    provenance.glue("wi-search-error", best["error"])


def rate_table(record: Record, models: Sequence[str]) -> Table:
    """Tabulate the share of the sum rate that is lost with each map."""
    rows = []
    for name, keys in {
        "trained": ("rate_lost", "rate_lost_adjoint"),
        "closed form": ("closed_rate_lost", "closed_rate_lost_adjoint"),
        "map of least error": ("rate_lost_best",),
        "map of small $XA-I$": ("rate_lost_least",),
    }.items():
        row = [name]
        for model in models:
            n = record.numbers[model]
            flat = n | {f"closed_{key}": value for key, value in n["closed"].items()}
            lost = [percent(flat[key]) for key in keys]
            row += [*lost, ""] if len(lost) == 1 else lost
        rows.append(row)
    header = ["rate lost", "CDL-A: with $X$", "CDL-A: with $X^H$", "CDL-C: with $X$", "CDL-C: with $X^H$"]
    return Table(header, rows)


def speed(
    record: Record,
    model: str,
    channel: nm.wireless.Channel,
    problem: nm.Problem,
    trained: nm.Surrogate,
    solved: nm.Surrogate,
    *,
    noise: float,
    rounds: int,
) -> None:
    """Record times, errors and lost rates of exact methods, interpolation and maps on the band of one channel.

    Args:
        record: Gets the numbers under ``model``; the rate (:func:`quality`) and the cost of the training
            (:func:`trained_maps`) must be there already.
        model: ``"cdl_a"`` or ``"cdl_c"``.
        channel: The channel.
        problem: The inverse of its regularised Gram matrix.
        trained: The map from gradient training.
        solved: The map of the closed form, of the same rank.
        noise: Variance of the noise.
        rounds: Rounds of the alternating measurement.
    """
    f, rank = channel.frequencies, trained.rank
    A, H = problem.family(f), channel(f)
    knots = max(4, -(-len(f) // 48) + 1)  # an exact inverse at about every 48th subcarrier
    few = {  # degree of the spline, and number of exact inverses
        "held over 24 subcarriers": (0, -(-len(f) // 24)),
        "held over 48 subcarriers": (0, -(-len(f) // 48)),
        "linear interpolation": (1, knots),
        "cubic interpolation": (3, knots),
    }
    builds = {name: lambda n=n, k=k: nm.peers.spline(problem, n, k, f) for name, (k, n) in few.items()}
    builds["closed form"] = lambda: nm.fit(problem, rank=rank, progress=False)
    maps = {name: build() for name, build in builds.items() if name != "closed form"}
    maps |= {"trained": trained, "closed form": solved}
    phi = torch.randn(len(f), rank, device=f.device)
    columns = torch.randn(rank, 2 * A[0].numel(), device=f.device)
    out = torch.empty(len(f), columns.shape[1], device=f.device)

    methods = {
        **{name: lambda solver=solver: solver(A) for name, solver in EXACT.items()},
        **{name: lambda s=s: s(f) for name, s in maps.items()},
        **{f"fit: {name}": build for name, build in builds.items()},
        **{f"{name}, with its fit": lambda build=build: build()(f) for name, build in builds.items()},
        "product alone": lambda: torch.mm(phi, columns),
        "product, old memory": lambda: torch.mm(phi, columns, out=out),
    }
    timings = benchmark.compare(methods, rounds=rounds)
    # The reference for the errors of the exact methods: the same matrices, inverted in double precision.
    X = torch.from_numpy(np.linalg.inv(A.cpu().numpy().astype(np.complex128))).to(f.device)
    relative = {name: timings.ratio(name, "NumPy loop") for name in methods if not name.startswith("fit: ")}
    faster = timings.ratios("NumPy loop", list(relative))
    # What was trained ran once, elsewhere: its cost is known in inversions, and stays in them.
    training, count = record.numbers[model]["training_in_inversions"], len(f)
    relative["trained, with its fit"] = timings.by_round(
        lambda loop, own: own / loop + training / count, "NumPy loop", "trained"
    )
    faster["trained, with its fit"] = timings.by_round(
        lambda loop, own: 1 / (own / loop + training / count), "NumPy loop", "trained"
    )

    def paid(loop: float, instead: float, slow: float, fast: float) -> float:
        return benchmark.break_even(training * loop / count - instead, slow / count, fast / count)

    def rate(inverse: Tensor) -> float:
        return float(nm.wireless.sum_rate(H, inverse @ H.mH, noise).mean())

    record.numbers[model] |= {
        "relative_time": relative,
        "faster": faster,
        # How many times as fast as each other way the trained map is.
        "over": {name: timings.ratio(name, "trained") for name in methods},
        "together_break_even": {
            exact: timings.break_even("closed form, with its fit", exact, "closed form", count, instead="closed form")
            for exact in EXACT
        },
        "closed_beside_cubic": timings.ratio("cubic interpolation, with its fit", "closed form, with its fit"),
        "trained_over": {name: timings.ratio("trained", name) for name in ("product alone", "product, old memory")},
        "conditions": timings.conditions,
        "fit_in_inversions": benchmark.Ratio(training, training, training),
        "knots": knots,
        "break_even": {
            name: timings.by_round(paid, "NumPy loop", f"fit: {name}" if name in builds else 0.0, name, "trained")
            for name in (*EXACT, *builds)
        },
        "errors": {name: benchmark.relative_error(methods[name]().to(X), X) for name in (*EXACT, *maps)},
        "rates_lost": {
            name: 1 - rate(value.mH if name == "trained" else value) / record.numbers[model]["rate"]
            for name, value in ((name, s(f)) for name, s in maps.items())
        },
    }
    for prefix, name in (("closed_", "closed form"), ("cubic_", "cubic interpolation")):
        record.numbers[model] |= {
            f"{prefix}fit_in_inversions": timings.ratio(f"fit: {name}", "NumPy loop").times(len(f)),
            f"{prefix}break_even": {exact: timings.break_even(f"fit: {name}", exact, name, len(f)) for exact in EXACT},
            f"{prefix}faster": {
                exact: [timings.ratio(exact, name), timings.ratio(exact, f"{name}, with its fit")] for exact in EXACT
            },
        }


def even(n: dict, exact: str) -> str:
    """Return in words from where on the closed form pays against an exact method, by both ways of timing."""
    return matrices_between(n["closed_break_even"][exact], n["together_break_even"][exact])


def speed_table(record: Record, model: str) -> Table:
    """Tabulate speed-up, error and lost rate of every method on the band of one channel."""
    n = record.numbers[model]
    times, errors, lost = n["faster"], n["errors"], n["rates_lost"]
    names = [name for name in times if ", with its fit" not in name]
    rows = []
    for name in names:
        with_fit = times.get(f"{name}, with its fit")
        rows.append(
            [
                name,
                spread(times[name]),
                "" if with_fit is None else spread(with_fit),
                f"{errors[name]:.0e}" if name in errors else "",
                percent(lost[name]) if name in lost else "",
            ]
        )
    return Table([title(model), "speed-up", "with its fit", "error", "rate lost"], rows)


def glue_speed(record: Record, models: Sequence[str]) -> None:
    """Glue what the text says about times."""
    for model in models:
        n, key = record.numbers[model], model.replace("cdl_", "wi-")
        over, errors = n["over"], n["errors"]
        for name, ratio in {
            "speed-up": over["NumPy loop"],
            "speed-up-batched": over["NumPy batched"],
            "speed-up-sionna": over["Sionna, Cholesky"],
            "speed-up-cholesky": over["torch, Cholesky"],
            "mm": n["trained_over"]["product alone"],
            "speed-up-interpolation-fit": n["cubic_faster"]["NumPy loop"][1],
            "closed-speed-up-with-fit": n["closed_faster"]["NumPy loop"][1],
        }.items():
            provenance.glue(f"{key}-{name}", ratio[1])
        for name, value in {
            "interpolation-error": errors["cubic interpolation"],
            "interpolation-gain": n["error"] / errors["cubic interpolation"],
            "fit": two_digits(n["fit_in_inversions"][1]),
            "closed-fit": two_digits(n["closed_fit_in_inversions"][1]),
            "closed-break-even": even(n, "NumPy loop"),
            "closed-break-even-cholesky": even(n, "torch, Cholesky"),
            "bands": n["break_even"]["NumPy loop"][1] / n["count"],
            "break-even": matrices(n["break_even"]["NumPy loop"]),
            "break-even-interpolation": matrices(n["break_even"]["cubic interpolation"]),
            "break-even-cholesky": matrices(n["break_even"]["torch, Cholesky"]),
            "timed": conditions(n["conditions"]),
        }.items():
            provenance.glue(f"{key}-{name}", value)
    ratios = [record.numbers[model]["over"]["closed form"] for model in models]
    sentence = (
        "An evaluation of the closed form takes {} and {} times as long as one of the trained map (CDL-A, CDL-C)."
    )
    provenance.glue("wi-embedding", told(sentence, *ratios))
    provenance.glue("wi-knots", record.numbers["cdl_c"]["knots"])
    provenance.glue("wi-count", record.numbers["cdl_c"]["count"])
    provenance.glue("wi-lu-gain", 2 * record.numbers["size"] / record.numbers["rank"])


def paper_table(record: Record, models: Sequence[str]) -> Table:
    """Tabulate what the paper reports beside what was measured here."""
    header = ["", "paper (its task, its machine)", "this run, CDL-A", "this run, CDL-C"]
    both = [record.numbers[model] for model in models]
    strongest = [n["over"]["torch, Cholesky"] for n in both]
    return Table(
        header,
        [
            [
                "speed-up over NumPy (here: in a loop)",
                "over 3",
                *(spread(n["over"]["NumPy loop"]) for n in both),
            ],
            ["accuracy", "called acceptable", *(f"relative error {n['error']:.1e}" for n in both)],
            ["speed-up over the strongest exact method", "not known to us", *map(spread, strongest)],
            [
                "break-even with the loop",
                "not known to us",
                *(matrices(n["break_even"]["NumPy loop"]) for n in both),
            ],
        ],
    )


def harder(
    record: Record,
    draw: Callable[..., nm.wireless.Channel],
    models: Sequence[str],
    *,
    rank: int,
    noise: float,
    users: int,
    every: int,
) -> None:
    """Record limits and rates of channels with other delay spreads, antennas, sectors and noise, as ``harder``.

    Args:
        record: The record.
        draw: Returns a channel for a model and for settings of :func:`neumatc.wireless.cdl`.
        models: ``"cdl_a"`` and ``"cdl_c"``.
        rank: Rank of the maps.
        noise: Variance of the noise where the settings say nothing else.
        users: Number of users.
        every: Only every so many subcarriers.
    """
    spreads = (30e-9 * np.random.default_rng(record.seed).lognormal(sigma=0.5, size=users)).tolist()
    variants = {
        "as above": {},
        "delay spread 100 ns": {"delay_spread": 100e-9},
        "delay spread 300 ns": {"delay_spread": 300e-9},
        "delay spread of each user": {"delay_spread": spreads},
        "omnidirectional users": {"user_pattern": "omni"},
        "omnidirectional users, 100 ns": {"user_pattern": "omni", "delay_spread": 100e-9},
        "all users in one direction": {"sector": 0.0},
        "noise 0.01": {"noise": 0.01},
        "noise 0.001": {"noise": 0.001},
    }
    found = []
    for name, settings in variants.items():
        for model in models:
            level = settings.get("noise", noise)
            channel = draw(model, **{key: value for key, value in settings.items() if key != "noise"})
            f = channel.frequencies[::every]
            problem, H = nm.Problem(channel.gram(level), nm.Inverse()), channel(f)
            X = problem.exact(f).value
            limits = benchmark.eckart_young(X, list(range(1, len(X))))
            best = benchmark.best_of_rank(X, rank)
            least = benchmark.least_residual(problem.family(f), rank, steps=LEAST_STEPS)
            rates = [float(nm.wireless.sum_rate(H, inverse @ H.mH, level).mean()) for inverse in (X, best, least)]
            found.append(
                {
                    "channel": model,
                    "settings": name,
                    "limit": limits[rank - 1],
                    "rank_for_1e-2": int((limits > 1e-2).sum()) + 1,
                    "rate": rates[0],
                    "rate_lost_best": 1 - rates[1] / rates[0],
                    "rate_lost_least": 1 - rates[2] / rates[0],
                }
            )
    record.numbers["harder"] = found


def glue_harder(record: Record) -> None:
    """Glue what little noise costs."""
    for h in record.numbers["harder"]:
        if h["settings"] == "noise 0.001":
            key = f"wi-{h['channel'][-1]}-quiet"
            provenance.glue(f"{key}-best", 100 * h["rate_lost_best"])
            provenance.glue(f"{key}-least", 100 * h["rate_lost_least"])


def harder_table(record: Record, model: str) -> Table:
    """Tabulate limit, rank and lost rates of the harder channels."""
    header = ["limit", "rank for 1e-2", "rate (bit/s/Hz)", "lost, least error", "lost, small $XA-I$"]
    rows = [
        [
            h["settings"],
            f"{h['limit']:.1e}",
            str(h["rank_for_1e-2"]),
            f"{h['rate']:.1f}",
            percent(h["rate_lost_best"]),
            percent(h["rate_lost_least"]),
        ]
        for h in record.numbers["harder"]
        if h["channel"] == model
    ]
    return Table([title(model), *header], rows)


def check(record: Record, models: Sequence[str]) -> None:
    """Assert what text, captions and figures say in words.

    A comparison with NaN is false. So what is said of times stands as what must not be: a time that was refused refutes
    nothing.

    Args:
        record: With the last good times (:func:`studies.last_good.fill`), which are those that the page shows.
        models: ``"cdl_a"`` and ``"cdl_c"``.
    """
    for model in models:
        n = record.numbers[model]
        assert n["error"] >= n["limit"] * 0.98, "no map can beat the limit; 2 % for the coarser grid of the limit"
        assert max(n["errors"][name] for name in EXACT) < 1e-3, "the exact baselines must agree"
    if record.profile != "smoke":
        for model in models:
            check_errors(record, model)
            check_times(record.numbers[model])
        gaps = [record.numbers[model]["error"] / record.numbers[model]["limit"] for model in models]
        assert gaps[0] > gaps[1] > 1.5, "well above the best map, more so for CDL-A"
        limits = [record.arrays[f"{model}_limits"] for model in models]
        assert (limits[0] < limits[1]).all(), "the limit of CDL-A falls faster"
        check_harder(record)


def check_errors(record: Record, model: str) -> None:
    """Assert what the text says of errors and rates on one channel at full size."""
    n = record.numbers[model]
    errors = n["errors"]
    assert n["rate_lost_least"] < n["rate_lost_best"], "the residual is the receiver's goal"
    assert n["rate_lost_adjoint"] < n["rate_lost"], "and that of training, with the adjoint"
    assert n["error"] < 0.1, "the trained map must be of use"
    assert n["closed"]["error"] < 1.1 * n["limit"], "the closed form reaches the limit"
    assert 3 * errors["cubic interpolation"] < min(n["error"], n["closed"]["error"]), "interpolation is more accurate"
    assert abs(n["knots"] / n["closed"]["report"]["exact_solves"] - 1) < 0.25, "from about as many exact inverses"
    assert n["residual_max"] * record.numbers["size"] ** 0.5 > 3 * n["error"], "the bound is loose"
    along = record.arrays[f"{model}_error"]
    edge = len(along) // 20
    assert along.max() > along[edge:-edge].max(), "the trained map is worst at the edges of the band"


def check_times(n: dict) -> None:
    """Assert what the text says of times on one channel at full size."""
    training, band = n["training_in_inversions"], n["count"]
    # A value saves one inversion at most. So no timing is needed to say that training does not pay on one band.
    assert training > 10 * band, "gradient training does not pay on one band"
    faster, even, over = n["faster"], n["break_even"], n["over"]
    for name in ("cubic interpolation", "closed form"):
        assert not faster[f"{name}, with its fit"][1] <= faster["trained, with its fit"][1], "the better choice"
        assert not even[name][1] <= even["NumPy loop"][1], "beside a fit that is short training pays later, or never"
    assert not faster["torch, Cholesky"][1] <= faster["trained, with its fit"][1], "the better choice"
    for name in EXACT:
        assert not even[name][1] <= band, "training does not pay on one band, beside any exact method"
        assert not n["closed_break_even"][name][1] >= 0.1 * even[name][1], "the closed form pays much earlier"
        assert not over[name][1] < over["torch, Cholesky"][1], "the strongest exact method"
        assert not over[name][1] > over["NumPy loop"][1], "against better exact methods the gain is smaller"
    for prefix in ("closed_", "cubic_"):
        assert not n[f"{prefix}break_even"]["NumPy loop"][1] >= 0.5 * band, "crosses the loop well before one band"
        assert not n[f"{prefix}fit_in_inversions"][1] >= 0.01 * training, "starts far lower"


def check_harder(record: Record) -> None:
    """Assert what the text says of the harder channels at full size."""
    found, enough = {(h["channel"], h["settings"]): h for h in record.numbers["harder"]}, record.numbers["rank"]
    wide, omni, both = "delay spread 100 ns", "omnidirectional users", "omnidirectional users, 100 ns"
    for model in ("cdl_a", "cdl_c"):
        rank = {name: h["rank_for_1e-2"] for (channel, name), h in found.items() if channel == model}
        before = rank["as above"]
        assert all(2 <= rank[name] / before <= 4 for name in (wide, omni)), "two to four times the rank"
        assert before < rank["noise 0.01"] < rank["noise 0.001"], "less noise raises the rank"
        together = found[model, "all users in one direction"]
        assert together["rank_for_1e-2"] < before, "a low rank"
        assert together["rate"] < 0.6 * found[model, "as above"]["rate"], "and a low rate"
        quiet = found[model, "noise 0.001"]
        assert quiet["rate_lost_least"] < 0.2 * quiet["rate_lost_best"], "fit to the receiver's goal"
    assert max(found["cdl_a", name]["rank_for_1e-2"] for name in (wide, omni)) <= enough, "still enough for CDL-A"
    poor = [("cdl_c", wide), ("cdl_c", omni), ("cdl_a", "delay spread 300 ns"), ("cdl_a", both)]
    assert all(found[key]["rank_for_1e-2"] > enough for key in poor), "not good enough at that rank"
    assert all(found[key]["rate_lost_least"] < found[key]["rate_lost_best"] / 3 for key in poor), "several times less"


def train(problem: nm.Problem, *, rank: int, steps: int, seed: int) -> nm.Surrogate:
    """Train a map by gradient descent, with the settings of the chapter."""
    embedding = nm.SinusoidalMLP(layers=1, width=64, frequency=40.0)
    method = nm.ResidualTraining(embedding, steps=steps, batch=128, learning_rate=1e-2, rounds=5)
    return nm.fit(problem, rank=rank, method=method, seed=seed, progress=False)


def trained_maps(
    record: Record, problems: Mapping[str, nm.Problem], frequencies: Mapping[str, Tensor], *, rank: int, steps: int
) -> dict[str, nm.Surrogate]:
    """Return the trained map of each channel; at cpu and study the published ones, since training takes too long.

    Args:
        record: Its profile and seed decide; it gets the number ``steps``, and under each model
            ``training_in_inversions``, the cost of the training in inversions by the NumPy loop: that of the published
            record, or timed now.
        problems: The inverses by model.
        frequencies: Frequencies of the channels by model, each (B, 1).
        rank: Rank of the maps.
        steps: Steps of the optimiser, where maps are trained now.
    """
    if record.profile not in ("cpu", "study"):
        record.numbers["steps"] = steps
        maps = {m: train(problem, rank=rank, steps=steps, seed=record.seed) for m, problem in problems.items()}
        loops = {m: _loop_seconds(problem.family(frequencies[m]), time.perf_counter) for m, problem in problems.items()}
        costs = {m: maps[m].report.seconds / loops[m] for m in problems}
    else:
        published, maps = provenance.load(TRAINED).numbers, {m: nm.load(_map_path(m)) for m in problems}
        record.numbers["steps"] = published["steps"]
        costs = {m: published[m]["cost_in_inversions"] for m in problems}
    for model, cost in costs.items():
        record.numbers.setdefault(model, {})["training_in_inversions"] = cost
    return maps


def take_trained(steps: int = STEPS, rank: int = 24, noise: float = 0.1) -> None:
    """Train the maps of the chapter, and publish them with a record of their cost: ``wireless_trained``.

    The cost is a ratio of processor times, which other work on the machine hardly changes.
    """
    record = Record(TRAINED, profile="study", device="cpu", seed=0)
    record.provenance["command"] = "python -m studies.wireless_inversion"
    record.numbers["steps"] = steps
    for model in ("cdl_a", "cdl_c"):
        channel = nm.wireless.cdl(model[-1].upper(), users=8, subcarriers=3276, seed=record.seed)
        problem = nm.Problem(channel.gram(noise), nm.Inverse())
        start = time.process_time()
        surrogate = train(problem, rank=rank, steps=steps, seed=record.seed)
        cost = (time.process_time() - start) / _loop_seconds(problem.family(channel.frequencies), time.process_time)
        record.numbers[model] = {"cost_in_inversions": cost}
        nm.save(surrogate, _map_path(model))
        digests.note(_map_path(model))
    record.save()
    provenance.publish(TRAINED, "study")


def _map_path(model: str) -> Path:
    return provenance.published_path(f"{TRAINED}_{model}").with_suffix(".safetensors")


def _loop_seconds(A: Tensor, clock: Callable[[], float], rounds: int = 5) -> float:
    """Return the median time of one inversion by the NumPy loop."""
    times = []
    for _ in range(rounds):
        start = clock()
        solvers.numpy_loop(A)
        times.append((clock() - start) / len(A))
    return statistics.median(times)


if __name__ == "__main__":
    take_trained()
