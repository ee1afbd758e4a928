"""Studies of the chapter on the architecture: one fit by gradient training, measured."""

from __future__ import annotations

from collections.abc import Callable

import torch

import neumatc as nm
from studies import benchmark, provenance
from studies.provenance import Record
from studies.texts import as_long, at_least, conditions
from studies.training_search import cost

# Fresh parameters at which a trained map is checked: none that fails then proves less than 0.3 % with 95 % confidence.
DRAWS = 1000


def quality(
    record: Record,
    problem: nm.Problem,
    surrogate: nm.Surrogate,
    solve: Callable[[], nm.Surrogate],
    method: nm.ResidualTraining,
) -> None:
    """Record errors and costs of a trained map and of the closed form on a fine grid of one parameter in [0, 1].

    Args:
        record: The record.
        problem: The inverse of a family.
        surrogate: The map from gradient training.
        solve: Fits the closed form, of the same rank.
        method: The training.
    """
    family, rank = problem.family, surrogate.rank
    p = torch.linspace(0, 1, 501, device=family.lower.device)[:, None]
    exact = problem.exact(p).value
    closed_form = solve()
    value, solved = surrogate(p), closed_form(p)
    report = surrogate.report
    # Training ran once; the spread is that of the closed form's rounds.
    timings = benchmark.compare({"closed form": solve})

    record.numbers |= {
        "size": family.shape[0],
        "rank": rank,
        "steps": report.steps[-1],
        "error": benchmark.relative_error(value, exact),
        "limit": benchmark.eckart_young(exact, rank),
        "condition": torch.linalg.cond(family(p)).max(),
        "residual_max": problem.residual(p, value).max(),
        "closed_form_error": benchmark.relative_error(solved, exact),
        "closed_form_report": closed_form.report.to_dict(),
        "checked": check(problem, surrogate, record.seed),
        "training": {
            "conditions": timings.conditions,
            "over_closed_form": timings.ratio(report.seconds, "closed form"),
        },
        "report": report.to_dict(),
    }
    best = benchmark.best_of_rank(exact, rank)
    norm = torch.linalg.vector_norm(exact, dim=(1, 2))
    initial = nm.sampling.sobol(method.collocation, family.lower, family.upper, record.seed)
    added = [(point[0], i) for i, entry in enumerate(report.rounds, 1) for point in entry.added]
    record.arrays |= {
        "p": p[:, 0],
        "error": problem.error(p, value),
        "closed_form_error": problem.error(p, solved),
        "best_error": torch.linalg.vector_norm(best - exact, dim=(1, 2)) / norm,
        "initial": initial[:, 0],
        "added": torch.tensor([point for point, _ in added]),
        "added_round": torch.tensor([i for _, i in added], dtype=torch.int64),
    }


def check(problem: nm.Problem, surrogate: nm.Surrogate, seed: int) -> dict:
    """Return how many of ``DRAWS`` fresh uniform parameters exceed the tolerance of a trained map.

    Returns:
        ``draws`` and ``failed``, and ``uniform``, how many of the points of the map's own last estimate were uniform:
        the others come from a proposal, and say nothing of the share of the box.
    """
    report = surrogate.report
    p = problem.family.box.uniform(DRAWS, torch.Generator().manual_seed(seed + 1))
    sampling = report.settings["sampling"]
    return {
        "draws": DRAWS,
        "failed": int((problem.residual(p, surrogate(p)) > report.tol).sum()),
        "uniform": round(sampling["defensive"] * sampling["samples"]),
    }


def target_verdict(limit: float, target: float) -> str:
    """Return in words whether a limit of the failure probability is below the target of the training.

    Example:
        >>> target_verdict(0.003, 0.01)
        'that is below the target of 1 %'
    """
    return f"that is {'below' if limit < target else 'not below'} the target of {100 * target:g} %"


def ended(stop_reason: str) -> str:
    """Return as the start of the finding what kind of training its error is of.

    Example:
        >>> ended("the estimated failure probability is under the target")
        'The training of this page stops once its tolerance seems met.'
        >>> ended("the steps ran out")
        'The training of this page stops before its tolerance seems met.'
    """
    met = stop_reason == nm.StopReason.TOLERANCE.value
    return f"The training of this page stops {'once' if met else 'before'} its tolerance seems met."


def local(record: Record, problem: nm.Problem, surrogate: nm.Surrogate) -> None:
    """Record the functions and the error of a map in pieces of one parameter in [0, 1]; arguments as of `quality`."""
    p = torch.linspace(0, 1, 501, device=problem.family.device)[:, None]
    (fitted,), pieces = surrogate.maps, surrogate.pieces
    inner = p[p[:, 0] < 1]  # the last node is that of the last function alone
    phi = fitted.embedding(problem.family.box.cube(inner), fitted.weights)
    record.numbers["local"] = {
        "tol": surrogate.report.tol,
        "pieces": len(pieces),
        "slices": len(fitted.core),
        "terms": surrogate.rank,
        "solves": surrogate.report.exact_solves,
        "error": benchmark.relative_error(surrogate(p), problem.exact(p).value),
    }
    record.arrays |= {
        "local_x": inner[:, 0],
        "local_phi": phi,
        "local_cuts": torch.tensor([piece.upper[0] for piece in pieces[:-1]]),
        "local_nodes": torch.tensor(sorted({node for piece in pieces for node in piece.nodes[0]})),
    }


def glue_quality(record: Record, search: Record) -> None:
    """Glue what the text says about the fit, and about the best trial of the published search."""
    numbers = record.numbers
    trials = [trial for trial in search.numbers["trials"] if trial["family"] == "trigonometric"]
    best_trial = min(trials, key=lambda trial: trial["error"])
    first = numbers["report"]["rounds"][0]
    fitted = nm.Report.from_dict(numbers["report"])
    checked = numbers["checked"]
    longer = numbers["training"]["over_closed_form"]
    for key, value in {
        "arch-size": numbers["size"],
        "arch-rank": numbers["rank"],
        "arch-steps": numbers["steps"],
        "arch-error": numbers["error"],
        "arch-limit": numbers["limit"],
        "arch-gap": numbers["error"] / numbers["limit"],
        "arch-condition": at_least(numbers["condition"], 3),
        "arch-first-probability": first["failure_probability"],
        "arch-last-probability": fitted.probability(fitted.rounds[-1]),
        "arch-checked": checked["draws"],
        "arch-failed": checked["failed"],
        "arch-upper-limit": f"{at_least(100 * benchmark.upper_limit(checked['failed'], checked['draws'])):g} %",
        "arch-target-verdict": target_verdict(
            benchmark.upper_limit(checked["failed"], checked["draws"]),
            numbers["report"]["settings"]["failure_probability"],
        ),
        "arch-uniform-draws": checked["uniform"],
        "arch-zero-limit": f"{at_least(100 * benchmark.upper_limit(0, checked['uniform'])):g} %",
        "arch-rounds": len(numbers["report"]["rounds"]),
        "arch-added": len(record.arrays["added"]),
        "arch-ended": ended(numbers["report"]["stop_reason"]),
        "arch-stop": numbers["report"]["stop_reason"],
        "arch-search-error": best_trial["error"],
        "arch-search-gap": best_trial["error"] / search.numbers["trigonometric_limit"],
        "arch-search-steps": best_trial["steps"],
        "arch-search-cost": float(f"{cost(best_trial) / 1e6:.2g}"),
        "arch-tolerance": numbers["report"]["tol"],
        "arch-closed-error": numbers["closed_form_error"],
        "arch-closed-gap": numbers["closed_form_error"] / numbers["limit"],
        "arch-closed-solves": numbers["closed_form_report"]["exact_solves"],
        "arch-closed-share": as_long(longer, "this fit"),
        "arch-timed": conditions(numbers["training"]["conditions"]),
    }.items():
        provenance.glue(key, value)
    for key, value in numbers["local"].items():
        provenance.glue(f"arch-local-{key}", value)
