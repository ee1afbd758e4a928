"""Trained precoders: what the study records, and that the page says nothing else."""

import copy

import pytest
import torch

import neumatc as nm
from studies import cite, provenance, registry, speed, trained_precoders


@pytest.fixture(scope="module")
def record():
    return provenance.load(trained_precoders.NAME)


@pytest.mark.slow
def test_a_small_study_has_all_that_the_page_shows(monkeypatch):
    found = trained_precoders.one("A", 30e-9, steps=20, rank=6, count=6, rounds=2)
    made = provenance.Record(trained_precoders.NAME, profile="cpu", device="cpu", seed=0)
    made.numbers["channels"] = [found]
    (row,) = trained_precoders.rows(made)
    assert row[0] == "trained, CDL-A, 30 ns" and len(row) == 6
    glued = {}
    monkeypatch.setattr(trained_precoders, "glue", glued.__setitem__)
    trained_precoders.glue_all(made)
    assert glued["wp-trained-steps"] == "20" and glued["wp-trained-rank"] == "6"
    assert found["closed"]["error"] < found["error"] and found["training seconds"] > 0


def test_quality_is_that_of_the_vectors():
    _, problem, frequencies = speed.svd_problem("A", 30e-9)
    p = frequencies[::400]
    surrogate = nm.fit(problem, tol=1e-3, progress=False)
    good = trained_precoders.quality(problem, surrogate, p)
    assert good["error"] < 1e-2 and abs(good["lost"]) < 1e-4 and abs(good["lost, linear"]) < 1e-4

    class Wrong:
        def __call__(self, p):
            U, S, Vh = problem.exact(p).value
            return nm.SVDFactors(U, S, torch.roll(Vh, 8, dims=2))

    bad = trained_precoders.quality(problem, Wrong(), p)
    assert bad["error"] > 0.5 and bad["lost"] > 0.1


def test_the_record_bears_out_the_page(record):
    trained_precoders.check(record)
    first, second = record.numbers["channels"]
    assert [entry["name"] for entry in record.numbers["channels"]] == ["SVD CDL-A, 30 ns", "SVD CDL-C, 30 ns"]
    claims = {claim.id: claim.values(cite.origin(claim, "cpu")) for claim in registry.claims() if claim.record}
    assert claims == {
        "paper-svd-trained": list(second["NumPy loop"]["after"]),
        "paper-svd-trained-error": [second["error"]],
        "paper-accuracy-svd-trained": [second["lost"]],
        "paper-accuracy-svd-trained-linear": [second["lost, linear"]],
        "paper-svd-trained-error-a": [first["error"]],
        "paper-accuracy-svd-trained-a": [first["lost"]],
        "paper-accuracy-svd-trained-linear-a": [first["lost, linear"]],
    }
    assert {entry["steps"] for entry in (first, second)} == {trained_precoders.STEPS}


@pytest.mark.parametrize(
    ("path", "value"),
    [(("lost",), 0.05), (("closed", "error"), 1.0), (("NumPy loop", "after"), [5.0, 6.0, 7.0])],
)
def test_a_record_that_refutes_it_stops_the_page(record, path, value):
    changed = copy.deepcopy(record)
    place = changed.numbers["channels"][1]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(AssertionError):
        trained_precoders.check(changed)
