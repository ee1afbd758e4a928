"""The measurements behind the chapter *Measured*: records go round, and the tables show what they hold."""

import pytest

from studies import load, measurements, provenance, speed
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
    assert [label.get_text() for label in axes.get_yticklabels()] == ["inverse: NumPy loop", "inverse: Cholesky"]


def test_of_the_peers_with_a_number_of_solves_the_faster_is_shown():
    def peer(time):
        return {"solves": 206, "error": 2e-6, "after": [1.0, 2.0, 3.0], "with the fit": [time] * 3}

    peers = {"piecewise Chebyshev": peer(2.0), "Chebyshev": peer(0.9), "cubic spline": peer(0.8)}
    record = Record("speed", profile="cpu", device="cpu", seed=0)
    record.numbers |= {"inverse": rows(interpolation=peers), "many": [{}], "busy": [{}]}
    shown = [row[5] for row in measurements.speed_table(record).rows]
    assert shown[2:] == ["piecewise Chebyshev, 206 solves, 2.0e-06", "cubic spline, 206 solves, 2.0e-06"]


def test_every_study_of_speed_is_taken(project, monkeypatch):
    monkeypatch.setattr(speed, "STUDIES", {"inverse": rows, "many": lambda: rows(a=1)})
    measurements.take("speed")
    assert provenance.load("speed").numbers == {"inverse": rows(), "many": rows(a=1)}
