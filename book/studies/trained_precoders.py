"""Singular vectors of channels by the paper's gradient training: errors, rates and times, as we read its setting.

``python -m studies.trained_precoders`` trains, times and publishes; three minutes when idle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor

import neumatc as nm
from studies import benchmark, practice, provenance, solvers, speed, synthetic_experiments
from studies.provenance import Record, glue
from studies.texts import at_least, spread
from studies.wireless_precoding import NOISE, linear_rate

NAME = "trained_precoders"
# Terms, steps, and the sine network. Its frequency was tuned by hand on these channels, among 2, 3, 5 and 20.
RANK, STEPS, WIDTH, FREQUENCY = 32, 2_500, 128, 3.0
CHANNELS = (("A", 30e-9), ("C", 30e-9))
# Every so many subcarriers are judged.
EVERY = 13


def quality(problem: nm.Problem, surrogate: nm.Surrogate, p: Tensor) -> dict[str, float]:
    """Return what a map of triplets is off.

    Returns:
        ``error`` of U S V^H, the largest ``residual``, and the parts of the rate that are lost with V as it comes, by a
        joint receiver (``lost``) and by a linear one (``lost, linear``).
    """
    H, exact, value = problem.family(p), problem.exact(p).value, surrogate(p)
    V, best = value.Vh.mH, exact.Vh.mH

    def lost(rate: Callable) -> float:
        return 1 - float(rate(H, V, NOISE).mean() / rate(H, best, NOISE).mean())

    return {
        "error": benchmark.relative_error(*map(synthetic_experiments.product, (value, exact))),
        "residual": float(problem.residual(p, value).max()),
        "lost": lost(practice.precoded_rate),
        "lost, linear": lost(linear_rate),
    }


def one(model: str, delay: float, steps: int = STEPS, rank: int = RANK, count: int = 3276, rounds: int = 3) -> dict:
    """Train a map of the four leading triplets of a 16 x 64 channel, judge it, and time it with its training.

    Args:
        model: Letter of the CDL model.
        delay: Its delay spread in seconds.
        steps: Of the training.
        rank: Of the map.
        count: Matrices of a pass.
        rounds: Of the clock; the training is timed in each.
    """
    name, problem, frequencies = speed.svd_problem(model, delay)
    method = nm.ResidualTraining(nm.SinusoidalMLP(1, WIDTH, FREQUENCY), steps=steps, failure_probability=0.0)
    fit = partial(synthetic_experiments.quietly, problem, rank=rank, seed=0)
    train = partial(fit, method=method)
    trained, judged, passed = train(), frequencies[::EVERY], frequencies[:count]
    exact = {"NumPy loop": solvers.svd_loop, "Gram": lambda A: solvers.svd_by_gram(A, 4)}
    return {
        "name": name,
        "steps": steps,
        "rank": rank,
        **quality(problem, trained, judged),
        "closed": quality(problem, fit(), judged),
        "training seconds": trained.report.seconds,
        **synthetic_experiments.timed_at(passed, problem, trained, train, exact, rounds=rounds, warm_up=0),
    }


def rows(record: Record) -> list[list[str]]:
    """Return the trained maps as rows of the table of the paper's claim: error, then ratios with quartiles."""
    found = []
    for entry in record.numbers["channels"]:
        times = (entry[rival][when] for rival in ("NumPy loop", "Gram") for when in ("after", "with the fit"))
        label = entry["name"].removeprefix("SVD ")
        found.append([f"trained, {label}", f"{entry['error']:.0e}", *map(spread, times)])
    return found


def glue_all(record: Record) -> None:
    """Glue what the text says of the trained maps."""
    channels = record.numbers["channels"]

    def between(key: str) -> str:
        shares = sorted(100 * entry[key] for entry in channels)
        return f"{shares[0]:.2g} to {shares[-1]:.2g} %"

    seconds = sorted(entry["training seconds"] for entry in channels)
    errors = sorted(entry["error"] for entry in channels)
    for key, text in {
        "steps": f"{channels[0]['steps']:,}",
        "rank": str(channels[0]["rank"]),
        "error": f"{errors[0]:.2f} to {errors[-1]:.2f}",
        "lost": between("lost"),
        "linear": between("lost, linear"),
        "closed": f"at most {at_least(max(entry['closed']['error'] for entry in channels), 1):.0e}",
        "seconds": f"{seconds[0]:.0f} to {seconds[-1]:.0f}",
    }.items():
        glue(f"wp-trained-{key}", text)


def check(record: Record) -> None:
    """Assert what the text says; a time that was refused refutes nothing."""
    for entry in record.numbers["channels"]:
        assert entry["lost"] < 0.01, "a joint receiver loses little"
        assert entry["closed"]["error"] < 0.01 * entry["error"], "the closed form of the same rank is far nearer"
        assert not entry["NumPy loop"]["after"][0] < 10, "ten times NumPy's loop, after the training"
        assert not entry["NumPy loop"]["with the fit"][2] > 0.2, "and far slower with it"
        assert math.isfinite(entry["training seconds"])


def study() -> Record:
    """Take the study, and publish it."""
    record = Record(NAME, profile="cpu", device="cpu", seed=0)
    record.provenance["command"] = f"python -m studies.{NAME}"
    record.numbers["channels"] = [one(*channel) for channel in CHANNELS]
    provenance.keep(record)
    return record


if __name__ == "__main__":
    check(study())
