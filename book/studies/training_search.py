"""The search for training settings: random trials, halved by their error, and changes of one setting at a time.

``python -m studies.training_search`` takes the second and publishes its record, ``training_around``; about two minutes.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import neumatc as nm
from studies import benchmark, provenance, solvers
from studies.provenance import Record, Table
from studies.texts import listed, measured

TITLES = {"trigonometric": "trigonometric", "cdl_c": "CDL-C"}
# What another seed may do to an error, for all that we know: the changes around the winner were run with one.
SEED = 2.0
SPACE = {
    "frequency": [2.5, 5.0, 10.0, 20.0, 40.0, 80.0],
    "width": [32, 64, 128, 256],
    "layers": [1, 2, 3, 4],
    "learning_rate": [1e-3, 3e-3, 1e-2, 3e-2],
    "batch": [16, 64, 128],
}


def trial(
    problem: nm.Problem, p: Tensor, exact: Tensor, settings: Mapping[str, object], *, steps: int, rank: int, seed: int
) -> dict:
    """Train once; return the error and the cost in exact inversions by NumPy, timed right after it.

    Args:
        problem: The inverse of a family.
        p: Parameters to measure at, (B, 1).
        exact: The inverses there, (B, n, n).
        settings: A value of every setting in ``SPACE``, perhaps a ``schedule``.
        steps: Steps of the optimiser.
        rank: Rank of the map.
        seed: Seed of the fit.
    """
    embedding = nm.SinusoidalMLP(settings["layers"], settings["width"], settings["frequency"])
    method = nm.ResidualTraining(
        embedding,
        steps=steps,
        batch=settings["batch"],
        learning_rate=settings["learning_rate"],
        schedule=settings.get("schedule", "cosine"),
        rounds=1,
    )
    surrogate = nm.fit(problem, rank=rank, method=method, seed=seed, progress=False)
    matrices = problem.family(p)
    timing = benchmark.compare({"loop": lambda: solvers.numpy_loop(matrices)}, rounds=3)
    return {
        "error": benchmark.relative_error(surrogate(p), exact),
        # Training ran once; the spread is that of the loop's rounds. In older records it is a number alone.
        "cost_in_inversions": timing.ratio(surrogate.report.seconds, "loop").times(len(matrices)),
        "stop": surrogate.report.stop_reason.name,
    }


def search(
    record: Record, name: str, problem: nm.Problem, p: Tensor, *, stages: Sequence[tuple[int, int]], rank: int
) -> None:
    """Search on one family: random settings first, the best of them with more steps in each stage that follows.

    Args:
        record: Gets the number ``<name>_limit``, and more ``trials``; it is saved after every stage.
        name: Name of the family.
        problem: The inverse of the family.
        p: Parameters to measure at, (B, 1).
        stages: Number of trials and their steps.
        rank: Rank of the maps.
    """
    exact = problem.exact(p).value
    record.numbers[f"{name}_limit"] = benchmark.eckart_young(exact, rank)
    trials = record.numbers.setdefault("trials", [])
    draw = random.Random(record.seed)
    settings = [{key: draw.choice(values) for key, values in SPACE.items()} for _ in range(stages[0][0])]
    for stage, (count, steps) in enumerate(stages):
        results = []
        for chosen in settings[:count]:
            results.append({"family": name, "stage": stage, "steps": steps, **chosen})
            results[-1] |= trial(problem, p, exact, chosen, steps=steps, rank=rank, seed=record.seed)
        results.sort(key=lambda result: result["error"])
        settings = [{key: result[key] for key in SPACE} for result in results]
        trials += results
        record.save()  # a long search keeps what it has
    print(f"{name}: best error {results[0]['error']:.1e}, limit {record.numbers[f'{name}_limit']:.1e}")


def cost(trial: Mapping[str, object]) -> float:
    """Return the median cost of a trial, in inversions by the NumPy loop."""
    return measured(trial["cost_in_inversions"])[1]


def winner(record: Record, name: str) -> dict:
    """Return the best trial on one family."""
    return min((t for t in record.numbers["trials"] if t["family"] == name), key=lambda t: t["error"])


def glue_search(record: Record) -> None:
    """Glue what the text says about the search."""
    trials = record.numbers["trials"]
    for name, key in (("trigonometric", "ts-t"), ("cdl_c", "ts-c")):
        best, limit = winner(record, name), record.numbers[f"{name}_limit"]
        provenance.glue(f"{key}-error", best["error"])
        provenance.glue(f"{key}-limit", limit)
        provenance.glue(f"{key}-gap", best["error"] / limit)
        provenance.glue(f"{key}-steps", best["steps"])
        provenance.glue(f"{key}-cost", float(f"{cost(best) / 1e6:.2g}"))
        provenance.glue(f"{key}-trials", sum(t["family"] == name for t in trials))
    provenance.glue("ts-settings", math.prod(len(values) for values in SPACE.values()))


def best_table(record: Record, count: int = 5) -> Table:
    """Tabulate the best trials on each family."""
    trials, rows = record.numbers["trials"], []
    for name, title in TITLES.items():
        ranked = sorted((t for t in trials if t["family"] == name), key=lambda t: t["error"])
        rows += [
            [
                title,
                f"{t['steps']:,}",
                f"{t['frequency']:g}",
                str(t["width"]),
                str(t["layers"]),
                f"{t['learning_rate']:g}",
                str(t["batch"]),
                f"{t['error']:.1e}",
                f"{cost(t):.1e}",
            ]
            for t in ranked[:count]
        ]
    header = [
        "family",
        "steps",
        "frequency",
        "width",
        "layers",
        "learning rate",
        "batch",
        "error",
        "cost in inversions",
    ]
    return Table(header, rows)


def median_table(record: Record) -> Table:
    """Tabulate the median errors of the first trials by the value of one setting."""
    trials, rows = record.numbers["trials"], []
    for key, values in SPACE.items():
        for value in values:
            row = [key.replace("_", " "), f"{value:g}"]
            for name in TITLES:
                errors = [t["error"] for t in trials if t["family"] == name and t["stage"] == 0 and t[key] == value]
                row.append(f"{statistics.median(errors):.1e} ({len(errors)})" if errors else "none")
            rows.append(row)
    return Table(["setting", "value", *(f"{title}: median error (trials)" for title in TITLES.values())], rows)


def around(
    record: Record, problem: nm.Problem, p: Tensor, best: Mapping[str, object], *, steps: int, rank: int
) -> None:
    """Record the errors when one setting of the best trial is changed, as ``around``, and ``around_steps``.

    See :func:`search`.
    """
    chosen = {key: best[key] for key in SPACE}
    changes = {
        "none": {},
        "constant learning rate": {"schedule": "constant"},
        "constant, a tenth of the rate": {"schedule": "constant", "learning_rate": chosen["learning_rate"] / 10},
        "twice the batch": {"batch": 2 * chosen["batch"]},
        "twice the frequency scale": {"frequency": 2 * chosen["frequency"]},
    }
    exact = problem.exact(p).value
    record.numbers |= {"around": [], "around_steps": steps}
    for name, change in changes.items():
        result = trial(problem, p, exact, chosen | change, steps=steps, rank=rank, seed=record.seed)
        record.numbers["around"].append({"change": name, **result})
        print(name)


def glue_around(record: Record) -> None:
    """Glue in words what the changes around the best trial do; the first entry is the unchanged setting."""
    same, *others = record.numbers["around"]
    better = [entry["change"] for entry in others if SEED * entry["error"] < same["error"]]
    best = f"Better ended: {listed(better)}." if better else "No change is better by more than that."
    ratio = max(entry["error"] / same["error"] for entry in others)
    kept = record.chapter == "training_around"
    origin = " The table shows a published record; a run of the cell above takes another number of steps."
    provenance.glue("ts-around-origin", origin if kept else "")
    provenance.glue("ts-around-noise", SEED)
    edge = "So for this family, at this length, there is no sign of a much better setting just outside of these ranges."
    ends = f"{best} The worst change multiplies the error by {ratio:.1f}."
    provenance.glue("ts-around-verdict", ends if better else f"{ends} {edge}")


def check(record: Record) -> None:
    """Assert what text and captions say of the search, but for a smoke run, which has a handful of trials."""
    for name in TITLES:
        assert winner(record, name)["error"] > record.numbers[f"{name}_limit"], "no map can beat the limit"
    if record.profile != "smoke":
        check_sizes(record)


def check_sizes(record: Record) -> None:
    """Assert what text and captions say of the search at full size."""
    best: dict[str, dict[int, float]] = {name: {} for name in TITLES}
    for entry in record.numbers["trials"]:
        rungs = best[entry["family"]]
        rungs[entry["steps"]] = min(entry["error"], rungs.get(entry["steps"], math.inf))
    for name, rungs in best.items():
        own, errors = winner(record, name), [rungs[steps] for steps in sorted(rungs)]
        assert errors == sorted(errors, reverse=True), "the best error falls steadily"
        assert own["batch"] == max(SPACE["batch"]) and own["layers"] == min(SPACE["layers"]), "at the edges"
    first, last = min(best["trigonometric"]), max(best["trigonometric"])
    fell = best["trigonometric"][first] / best["trigonometric"][last]
    assert 0.7 < math.log(fell) / math.log(last / first) < 1.3, "roughly as one over the steps"
    gap = winner(record, "trigonometric")["error"] / record.numbers["trigonometric_limit"]
    assert 3 < gap < 10, "comes to several times the limit"
    assert winner(record, "trigonometric")["frequency"] == max(SPACE["frequency"]), "the largest frequency scale"
    assert winner(record, "cdl_c")["width"] == max(SPACE["width"]), "the largest width"
    *_, before, after = (best["cdl_c"][steps] for steps in sorted(best["cdl_c"]))
    assert before < 1.5 * after, "the last steps gain little on CDL-C"


def around_table(record: Record) -> Table:
    """Tabulate the errors around the best trial."""
    entries = record.numbers["around"]
    return Table(["change", "error"], [[entry["change"], f"{entry['error']:.1e}"] for entry in entries])


def take_around() -> None:
    """Change one setting of the published winner at a time, at the sizes of the search, and publish the record.

    With half of these steps the order is another one: the schedules have not come far enough to differ.
    """
    record = Record("training_around", profile="study", device="cpu", seed=0)
    record.provenance["command"] = "python -m studies.training_search"
    family = nm.families.trigonometric(size=64, seed=record.seed)
    p = torch.linspace(0, 1, 401)[:, None]
    best = winner(provenance.load("training_search"), "trigonometric")
    around(record, nm.Problem(family, nm.Inverse()), p, best, steps=600, rank=24)
    record.save()
    provenance.publish("training_around", "study")


if __name__ == "__main__":
    take_around()
