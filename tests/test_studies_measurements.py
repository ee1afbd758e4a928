"""The measurements behind the chapter *Measured*: records go round, and the tables show what they hold."""

import math

import pytest
import torch

import neumatc as nm
from studies import draws, load, measurements, provenance, speed, swings
from studies.load import Load
from studies.provenance import Record


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty folder in the place of the repository."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "neumatc"\n')
    monkeypatch.setattr(provenance, "root", lambda: tmp_path)
    return tmp_path


def with_load(monkeypatch, others):
    """A machine on which other processes take so much."""
    monkeypatch.setattr(load.Watch, "load", lambda self, wait=True: Load(0.0, others))


def test_cases_are_measured_published_and_shown(project, monkeypatch):
    with_load(monkeypatch, 0.0)
    path = measurements.take("cases", words=["finite"])
    record = provenance.load("cases")
    assert path == project / "notebooks" / "records" / "cases.json"
    assert record.provenance["command"] == "python -m studies.measurements cases"
    found = measurements.cases_table(record)
    for row, x in zip(found.rows, record.numbers["cases"], strict=True):
        assert row[0] == x["name"] + ("" if x["right"] else ": missed")


def test_a_loaded_machine_publishes_nothing_and_the_last_record_stays(project, monkeypatch):
    with_load(monkeypatch, 0.0)
    path = measurements.take("cases", words=["finite"])
    before = path.read_text("utf-8")
    with_load(monkeypatch, 0.5)
    with pytest.raises(RuntimeError, match="cases: 1 of 1 timings were refused.*other work took 50%.*idle machine"):
        measurements.take("cases", words=["finite"])
    assert path.read_text("utf-8") == before


def test_families_are_measured_published_and_shown(project):
    measurements.take("families", count=3, fresh=100)
    record = provenance.load("families")
    *kinds, whole = measurements.families_table(record).rows
    assert whole[:3] == ["all", "", "3"]
    assert sum(int(row[2]) for row in kinds) == 3
    assert set(record.numbers["kept"].values()) <= {True, False}


def test_new_families_are_drawn_by_a_seed_of_their_own_and_limit_the_wrong_reports(project):
    measurements.take("families", count=3, fresh=100)
    record = provenance.load("families")
    new = record.numbers["new"]
    assert str(new["seed"]) == record.provenance["date"][:19].translate(str.maketrans("", "", "-:T"))
    assert measurements.every(new["groups"])["fits"] == 3
    # Of one report, that is right, nearly nothing follows: a share of 0.95 of wrong ones would pass in one case of 20.
    lone = {"new": {"groups": [{"kind": "all", "wrong": 0, "met": 1}]}, "groups": [{"kind": "all", "met": 999}]}
    assert measurements.wrong_limit(lone) == 95


def drawn(solves, peers=None, **others):
    """A problem with one row for each number of solves."""
    rows = []
    for i, count in enumerate(solves):
        row = {"solves": count, "terms": 9, "met": True, "error": 1e-4, "above": 0.0} | others
        rows.append(row | ({"peer": {"solves": peers[i], "error": 1e-5}} if peers else {}))
    return {"name": f"problem {solves[0]}", "tol": 1e-3, "draws": rows}


def test_draws_are_counted_beside_the_one_that_is_timed():
    found = [
        drawn([10, 15, 8], peers=[20, 10, 9]),
        drawn([40, 20, 44], above=0.02),
        drawn([7, 7], met=False, above=1.0),
    ]
    assert draws.spreads(found) == {"problem 10": (0.8, 1.5), "problem 40": (0.5, 1.1), "problem 7": (1.0, 1.0)}
    assert draws.unmet(found) == "2 of problem 7" and draws.unmet(found[:2]) == "none"
    assert draws.fewer(found) == (2, 3)
    assert draws.worst(found) == (0.02, "problem 40")
    assert draws.above(found, 0.01) == 3 and draws.above(found, 0.02) == 0
    assert draws.cheapest(found) == []
    assert draws.cheapest([*found, drawn([5, 5, 6])]) == ["problem 5"]
    record = Record("draws", profile="cpu", device="cpu", seed=0, numbers={"draws": found})
    first, second, third = measurements.draws_table(record).rows
    assert tuple(first) == ("problem 10", "0.001", "3 of 3", "10 (8 to 15)", "9", "1.0e-04", "0.0 %", "10 (9 to 20)")
    assert tuple(second[3:]) == ("40 (20 to 44)", "9", "1.0e-04", "2.0 %", "none")
    assert third[2] == "0 of 2"


def test_draws_are_measured_published_and_shown(project):
    def pose(seed):
        family = nm.families.trigonometric(4, terms=2, shift=3, dtype=torch.float64, seed=seed)
        return "waves", nm.Problem(family, nm.Inverse()), torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]

    measurements.take("draws", count=2, posed=[(pose, 1e-3)])
    (found,) = provenance.load("draws").numbers["draws"]
    assert found["name"] == "waves" and len(found["draws"]) == 2
    for row in found["draws"]:
        assert row["met"] and row["above"] <= 0.1 and row["error"] < 1e-2 and row["peer"]["error"] < 1e-2
    assert len(measurements.draws_table(provenance.load("draws")).rows) == 1


def rows(**ratios):
    ratio = [1.0, 2.0, 3.0]
    row = {"name": "inverse", "tol": 1e-4, "solves": 93, "error": 5e-6, "over a copy": ratio}
    row |= {"unsorted over a copy": ratio}
    for name in ("NumPy loop", "Cholesky"):
        row |= {f"{name}: after": [20.0, 25.0, 26.0], f"{name}: with the fit": [0.5, 0.7, 0.9]}
    return [row | ratios]


def test_speed_is_shown_for_every_exact_method():
    record = Record("speed", profile="cpu", device="cpu", seed=0)
    record.numbers |= {"inverse": rows(), "many": [{}], "busy": [{}]}
    first, second = measurements.speed_table(record).rows
    assert first[:2] == ["inverse", "0.0001"] and first[5:7] == ["NumPy loop", "25 (20 to 26)"]
    assert second[0] == "" and second[5:] == ["Cholesky", "25 (20 to 26)", "0.7 (0.5 to 0.9)"]
    (axes,) = measurements.speed_figure(record).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["inverse", "NumPy loop", "Cholesky"]


@pytest.mark.parametrize(
    ("after", "both", "names"),
    [
        ((3.0, 2.0), (0.9, 0.8), ["cubic spline", "cubic spline"]),
        ((2.0, 3.0), (0.9, 0.8), ["Chebyshev", "cubic spline"]),
        ((2.0, 3.0), (0.9, math.nan), ["Chebyshev", "Chebyshev"]),
        ((3.0, 2.0), (0.9, math.nan), ["cubic spline", "Chebyshev"]),
    ],
)
def test_of_the_peers_with_a_number_of_solves_the_fastest_counts_for_each_way_of_counting(after, both, names):
    def peer(after, both):
        return {"solves": 206, "error": 2e-6, "after": [after] * 3, "with the fit": [both] * 3}

    peers = {"piecewise Chebyshev": peer(2.0, 2.0)}
    peers |= {name: peer(*own) for name, *own in zip(("Chebyshev", "cubic spline"), after, both)}
    record = Record("speed", profile="cpu", device="cpu", seed=0)
    record.numbers |= {"inverse": rows(interpolation=peers), "many": [{}], "busy": [{}]}
    shown = [row[5] for row in measurements.speed_table(record).rows]
    assert shown[2:] == [f"{name}, 206 solves, 2.0e-06" for name in peers], "the table has all"
    (row,) = measurements.compared(record)
    for when, name in zip(("after", "with the fit"), names):
        assert [own for own, _ in measurements.interpolated(row, when)] == ["piecewise Chebyshev", name]


def test_every_study_of_speed_is_taken(project, monkeypatch):
    monkeypatch.setattr(speed, "STUDIES", {"inverse": rows, "many": lambda: rows(a=1)})
    measurements.take("speed")
    assert provenance.load("speed").numbers == {"inverse": rows(), "many": rows(a=1)}


def test_swings_are_counted_published_and_said(project):
    measurements.take("swings", draws=1, subcarriers=240)
    rows = provenance.load("swings").numbers["counts"]
    assert {(row["model"], row["spread"]) for row in rows} == {(m, s) for m in swings.MODELS for s in swings.SPREADS}
    assert all(row["swings"] == pytest.approx(row["spread"] * 239 * 30e3, rel=0.01) for row in rows)
    said = swings.said(rows)
    assert [f"on CDL-{model}" in said for model in swings.MODELS] == [True] * len(swings.MODELS)


def test_ups_are_those_of_the_typical_entry():
    """Of three entries with 2, 3 and 5 periods the median has three; a constant one counts for nothing."""
    x = torch.arange(400, dtype=torch.float64) / 400
    waves = torch.stack([torch.cos(2 * torch.pi * (k * x + 0.1)) for k in (2, 3, 5)], dim=1)
    assert swings.ups(torch.cat([waves, torch.ones(400, 4)], dim=1)[:, None]) == 3
    row = {"model": "C", "spread": 1e-7, "swings": 10.0, "H": 6.0, "Gram": 4.0, "inverse": 4.0}
    assert swings.said([row]) == "2.5 on CDL-C"
    assert swings.shares([row], "C", "H") == [0.6]
