"""The study of scaling out: what its records say, and at small size that its runs end as promised."""

import math
import os
import time
import zlib

import numpy as np
import pytest
import torch
from conftest import random_surrogate

pytest.importorskip("distributed")
pytest.importorskip("zarr")

from forks import ForkedCrew

import neumatc as nm
from neumatc.distributed import stores
from studies import benchmark, crews, figures, large_matrices, provenance, scaling, scaling_pages, texts
from studies.benchmark import Timings
from studies.provenance import Record

KILLS = ["worker", "worker", "scheduler", "worker"]
NEVER = (math.nan,) * 3


@pytest.fixture(scope="module")
def surrogate():
    return random_surrogate(nm.Inverse(), 4, 4, torch.complex64)


@pytest.fixture
def forked(monkeypatch):
    """Start processes without their imports."""
    monkeypatch.setattr(scaling, "Crew", ForkedCrew)
    monkeypatch.setattr(large_matrices, "Crew", ForkedCrew)


def conditions(refused=""):
    own = {"refused": refused, "date": "2026-11-30T00:00:00+00:00", "rounds": 5, "attempts": 1, "threads": 2}
    return own | {"processor": "a CPU", "load_before": 0.1, "load_during": 0.01, "unsteady": []}


def ran(**others):
    own = {"parameters": 10**6, "chunk": 4096, "chunks": 245, "bytes": 8_192_000_000, "files": 245, "calls": 2}
    own |= {"killed": KILLS, "equal to the serial run": True, "damaged chunks on disk": [], "found by the last call": 9}
    kills = [
        {"what": what, "seconds": 2.0 + i, "worker": 0 if what == "worker" else None} for i, what in enumerate(KILLS)
    ]
    own |= {"step": 0.5, "memory": [{"first": 2, "MB": [100, 400, 700]}], "kills": kills, "seconds of starts": 10.0}
    own |= {"seconds with kills": 10.0}
    return own | {"peak bytes of a worker": 7.1e8} | others


def timed(loop=8.0, disk=10.0, two=11.0, tasks=0.8, whole=110.0, refused=""):
    """A record of runs in which every round took the same."""
    seconds = {"one worker": 20.0, "two workers": two, "two threads": two, "disk": disk, "loop": loop, "read": 16.0}
    timings = Timings({key: (x,) * 5 for key, x in (seconds | {"tasks": tasks}).items()}, conditions(refused))
    found = scaling.predicted(timings, 10**6, 10**7, 4096, whole)
    return {
        "parameters": 10**6,
        "chunk": 4096,
        "bytes": 8_192_000_000,
        "seconds": {key: own[0] for key, own in timings.seconds.items()},
        "ratios": scaling.ratios(timings),
        "conditions": timings.conditions,
        "parameters of a task's worth": timings.ratio("tasks", "loop").times(10**6 / scaling.TASKS),
        "whole": {"parameters": 10**7, "bytes": 81_920_000_000, "conditions": conditions(refused), **found},
    }


def large(**others):
    own = {"size": 1024, "tol": 1e-3, "solves": 9, "matrices asked for": 300, "met": True, "pieces": 1, "terms": 9}
    own |= {"error": 1e-5, "error of Cholesky": 1e-7, "residual": 1e-4, "bytes of the latent tensor": 4e7}
    own |= {"bytes before the fit": 3e8, "peak bytes of the fit": 2e9, "conditions": conditions()}
    return own | {"fit in exact solves": (90, 100, 110), "times as fast": (9, 10, 11), "pays": (100, 110, 120)} | others


def rows(**others):
    own = {"size": 2048, "terms": 8, "solves": 8, "residual": 1e-4, "parameters": 64, "chunk": 4, "difference": 0.0}
    own |= {"bytes of a value": 2**24, "bytes of the latent tensor": 2**27}
    own["whole"] = {"idle bytes": 3e8, "peak bytes": [6e8, 7e8], "workers of a part": [2]}
    return own | {"rows": {"idle bytes": 3e8, "peak bytes": [4e8, 5e8], "workers of a part": [1, 1]}} | others


def recorded(stored=(), streamed=(), split=(), fit=(), **times):
    record = Record("scaling", profile="cpu", device="cpu", seed=0)
    numbers = record.numbers
    numbers["map"] = {"memory of a worker": 2e9, "bytes of a value": 8192}
    numbers |= {"stored": ran(**dict(stored)), "streamed": ran(**{"parameters": 10**7, **dict(streamed)})}
    numbers |= {"timed": timed(**times), "large": large(**dict(fit)), "rows": rows(**dict(split))}
    numbers["paper"] = scaling.paper(numbers["timed"])
    return record


def test_tables_show_what_the_record_holds():
    record = recorded()
    scaling_pages.check(record)
    first, second = scaling_pages.runs_table(record).rows
    assert first == ["stored", "1,000,000", "8.2 GB", "245", "3 workers and 1 scheduler", "yes", "0.71 GB"]
    assert second[1] == "10,000,000"
    found = dict(scaling_pages.speed_table(record).rows)
    assert found["two workers over one"] == "1.8" and found["two workers, share of the disk"] == "0.91"
    assert scaling_pages.speed_table(record).rows[-1][1] == "0.76"
    found = dict(scaling_pages.large_table(record).rows)
    assert found["pays from"] == "110 (100 to 120) matrices" and found["exact solves"] == "9"
    assert [row[-1] for row in scaling_pages.rows_table(record).rows] == ["0.4 GB", "0.2 GB"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"stored": {"killed": KILLS[:3]}}, "stored: killed"),
        ({"streamed": {"killed": ["worker"] * 4}}, "streamed: killed"),
        ({"streamed": {"equal to the serial run": False}}, "streamed: the checksums"),
        ({"stored": {"peak bytes of a worker": 2.1e9}}, "more memory"),
        ({"stored": {"files": 244}}, "missing or damaged"),
        ({"stored": {"damaged chunks on disk": [3]}}, "missing or damaged"),
        ({"loop": 30e3, "disk": 1.0}, "arithmetic"),
        ({"split": {"difference": 1e-3}}, "values of the rows"),
        ({"split": {"rows": {"idle bytes": 3e8, "peak bytes": [8e8], "workers of a part": [1, 1]}}}, "more memory"),
        ({"split": {"rows": {"idle bytes": 3e8, "peak bytes": [4e8], "workers of a part": [1, 2]}}}, "several workers"),
        ({"fit": {"met": False}}, "tolerance"),
        ({"fit": {"matrices asked for": 18}}, "check of the large fit takes less"),
        ({"fit": {"peak bytes of the fit": 3.7e8}}, "little memory"),
        ({"streamed": {"peak bytes of a worker": 1.2e9}}, "grows"),
        ({"streamed": {"parameters": 10**6}}, "grows"),
        ({"stored": {"seconds of starts": 0.6}}, "some chunks"),
    ],
)
def test_what_is_not_as_promised_is_refused(changed, words):
    with pytest.raises(AssertionError, match=words):
        scaling_pages.check(recorded(**changed))


def test_a_time_that_was_refused_refutes_nothing_and_is_not_shown():
    record = recorded(loop=30e3, disk=1.0, refused="other work took 50%")
    scaling_pages.check(record)
    assert set(scaling_pages.sides(record).values()) == {texts.UNTOLD}
    for draw in (scaling_pages.speed_figure, scaling_pages.paper_figure):
        assert [text.get_text() for text in draw(record).axes[0].texts] == ["No time is published here."]
    assert {row[1] for row in scaling_pages.speed_table(record).rows} == {"not timed"}


def test_times_that_spread_are_left_out_alone():
    record = recorded(loop=30e3)
    record.numbers["timed"]["conditions"]["unsteady"] = ["loop"]
    scaling_pages.check(record)
    assert scaling_pages.sides(record)["sc-bottleneck"] == texts.UNTOLD
    assert not scaling_pages.speed_figure(record).axes[0].texts and scaling_pages.paper_figure(record).axes[0].texts


def test_sentences_follow_the_times():
    found = scaling_pages.sides(recorded())
    assert "the second one pays" in found["sc-second"] and "not tell the two apart" in found["sc-threads"]
    told = (
        "2.0 times as fast as to read it back from this disk, cold and in one thread: values of this map are not worth"
    )
    assert told in found["sc-reading"]
    assert "0.91 times" in found["sc-share"] and "something else" in found["sc-share"]
    assert "for 250 values" in found["sc-task"] and "it lies between the two" in found["sc-model"]
    assert "bottleneck is the disks" in found["sc-bottleneck"]
    slow = scaling_pages.sides(recorded(two=25.0, whole=1000.0, tasks=40.0))
    assert "costs more" in slow["sc-second"] and "misses something" in slow["sc-model"]
    assert "the one scheduler" in slow["sc-bottleneck"]
    assert "not longer than the largest" in scaling_pages.sides(recorded(whole=50.0))["sc-model"]
    assert "not tell them from the disk" in scaling_pages.sides(recorded(two=10.0))["sc-share"]


def test_parts_on_paper_that_spread_or_model_do_not_tell_apart_are_both_named():
    record = recorded(loop=8.0, disk=10.0, tasks=4.0)
    hours = record.numbers["paper"]["hours"]
    hours |= {"scheduler": 1.3 * hours["disk"]}
    record.numbers["paper"]["bottleneck"] = "scheduler"
    own = record.numbers["timed"]
    own["whole"]["measured over overlapping"] = [1.1, 1.2, 1.2]
    assert "bottleneck is the one scheduler" in scaling_pages.bottleneck_sentence(record)
    own["whole"]["measured over overlapping"] = [1.2, 1.5, 2.1]
    both = "On paper the one scheduler (7.2 hours) and the disks (5.6) are the longest parts."
    assert scaling_pages.bottleneck_sentence(record).startswith(both)
    own["whole"]["measured over overlapping"] = [1.1, 1.2, 1.2]
    own["ratios"]["loop, share of the disk"] = [1.2, 1.8, 2.2]
    told = scaling_pages.bottleneck_sentence(record)
    assert told.startswith(both) and "quartiles of the disk 1.8 times" in told
    own["whole"]["measured over overlapping"] = [math.nan] * 3
    assert scaling_pages.bottleneck_sentence(record) == texts.UNTOLD


@pytest.mark.parametrize(
    ("largest", "total", "said"),
    [
        ((1.2, 1.3, 1.4), (1.1, 1.2, 1.3), "misses something"),
        ((1.2, 1.5, 2.1), (0.9, 1.1, 1.4), "whether than the sum the spread does not say"),
        ((1.2, 1.3, 1.4), (0.7, 0.8, 0.9), "lies between the two"),
        ((0.9, 1.1, 1.2), (0.7, 0.8, 0.9), "does not say where it lies"),
        ((0.7, 0.8, 0.9), (0.5, 0.6, 0.7), "not longer than the largest"),
    ],
)
def test_the_place_of_a_run_beside_the_model_follows_from_both_quartiles(largest, total, said):
    record = recorded()
    own = zip(scaling_pages.MODEL, (largest, total))
    record.numbers["timed"]["whole"] |= {f"measured over {name}": ratio for name, ratio in own}
    assert said in scaling_pages.model_sentence(record)


def test_figures_can_be_read_and_mark_what_was_killed():
    figures.style()
    record = recorded()
    drawn = [getattr(scaling_pages, f"{name}_figure")(record) for name in ("memory", "speed", "paper")]
    assert [figures.faults(figure) for figure in drawn] == [[], [], []]
    marks = [line for line in drawn[0].axes[0].lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [float(line.get_xdata()[0]) for line in marks] == [0.2, 0.3, 0.5]


def test_the_published_record_holds_what_its_page_says():
    record = provenance.load("scaling")
    scaling_pages.check(record)
    scaling_pages.glue_all(record)
    for draw in (scaling_pages.memory_figure, scaling_pages.speed_figure, scaling_pages.paper_figure):
        assert figures.faults(draw(record)) == []


def test_the_run_on_paper_follows_from_what_was_measured():
    own = scaling.paper(timed(loop=8.0, disk=10.0))
    assert own["bytes"] == pytest.approx(8.192e15)
    assert own["hours"]["arithmetic"] == pytest.approx(8e6 / 1000 / 3600)
    assert own["hours"]["disk"] == pytest.approx(10e6 / 500 / 3600)
    assert own["hours"]["scheduler"] == pytest.approx(8.192e15 / 2**32 * 2e-3 / 3600, rel=1e-4)
    assert own["hours of the scheduler with chunks as here"] == pytest.approx(128 * own["hours"]["scheduler"], rel=1e-4)
    assert own["bottleneck"] == "disk"
    assert scaling.paper(timed(loop=80e3, disk=10.0))["bottleneck"] == "arithmetic"


def test_the_model_is_the_largest_part_or_the_sum():
    own = timed(loop=8.0, disk=10.0, tasks=0.8, whole=110.0)["whole"]
    tasks = 0.8 / 400 * -(-(10**7) // 4096)
    assert own["predicted seconds"] == pytest.approx({"overlapping": 100.0, "one after the other": 140.0 + tasks})
    assert own["measured over overlapping"] == pytest.approx((1.1,) * 3)


def test_the_time_of_the_full_sizes_grows_with_parameters_and_not_with_starts():
    numbers = recorded().numbers
    numbers["seconds of parts"] = {"stored": 60.0, "streamed": 110.0, "timed": 100.0, "large": 30.0, "rows": 30.0}
    small = numbers | {"stored": ran(parameters=10**5), "streamed": ran(parameters=10**6)}
    small["timed"] = timed() | {"parameters": 10**5}
    assert scaling.full_minutes(small) == pytest.approx((10 + 500 + 10 + 1000 + 100 + 60) / 60)


def test_parts_alone_are_taken_anew_and_said_to_be(monkeypatch):
    asked = []
    published = recorded()
    published.numbers["sizes"], published.provenance["wall_seconds"] = vars(scaling.Sizes()), 1000.0
    monkeypatch.setattr(provenance, "load", lambda *name: asked.append(name) or published)
    record = scaling.begun(scaling.Sizes(), ["timed"], ["timed"], "cpu")
    assert record.provenance["anew"]["timed"]["command"] == "python -m studies.scaling timed"
    assert record.numbers["stored"]["parameters"] == 10**6
    assert time.perf_counter() - record._start > 1000
    whole = scaling.begun(scaling.Sizes(), scaling.PARTS, [], "smoke")
    assert list(whole.numbers) == ["sizes"] and "anew" not in whole.provenance
    with pytest.raises(ValueError, match="`sizes`: expected those of the record"):
        scaling.begun(scaling.Sizes(stored=10), ["timed"], [], "cpu")
    published.numbers.pop("large")
    assert scaling.missing("cpu") == ["large"]
    scaling.begun(scaling.Sizes(), ["large"], ["--resume"], "cpu", resume=True)
    assert asked == [("scaling", None), ("scaling", None), ("scaling", "cpu"), ("scaling", "cpu")]
    assert scaling.Sizes().full and not scaling.Sizes(stored=10).full and not scaling.Sizes(rounds=1).full


def test_a_run_saves_each_part_as_it_ends(surrogate, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(scaling, "posed", lambda: (surrogate, (-1.0, 2.0)))
    monkeypatch.setattr(scaling, "killed", lambda *_, values: ran(parameters=7 if values else 8))
    monkeypatch.setattr(large_matrices, "split", lambda size: rows(size=size))
    monkeypatch.setattr(Record, "save", lambda self: saved.append(list(self.numbers)))
    record = Record("scaling", profile="smoke", device="cpu", seed=0)
    scaling.take(record, tmp_path, scaling.Sizes(split=96), ["stored", "rows"])
    assert [own[-1] for own in saved] == ["seconds of parts", "rows"] and record.numbers["rows"]["size"] == 96


# Large matrices


def test_the_large_family_is_what_it_says_and_counts():
    family = large_matrices.Covariances(6)
    A = family(torch.tensor([[0.5], [1.0]], dtype=torch.float64))
    np.testing.assert_allclose(A[0], np.exp(-family.distances.numpy() / 0.5) + np.eye(6), rtol=1e-5)
    assert family.asked == 2 and float(torch.linalg.eigvalsh(A).min()) > 1


def test_a_fit_of_large_matrices_is_measured():
    own = large_matrices.measured(24, 3)
    assert own["met"] and own["error"] < 10 * own["tol"] and own["residual"] < own["tol"]
    assert own["matrices asked for"] > own["solves"] and own["error of Cholesky"] < 1e-4
    assert own["bytes of the latent tensor"] == own["terms"] * own["bytes of a value"]
    assert 0 < own["bytes before the fit"] <= own["peak bytes of the fit"]


def test_some_rows_and_columns_are_kept_to_be_compared():
    pid, own = large_matrices.sampled(np.zeros(2), np.arange(2 * 128 * 128).reshape(2, 128, 128))
    assert pid == os.getpid() and own[0].tolist() == [[0, 64], [64 * 128, 64 * 128 + 64]]


@pytest.mark.slow
def test_a_map_that_is_split_by_rows_is_the_whole_one(forked):
    own = large_matrices.split(128)
    assert own["difference"] <= scaling_pages.ROUNDING and own["rows"]["workers of a part"] == [1, 1]
    assert [len(own[name]["peak bytes"]) for name in ("whole", "rows")] == [2, 2]


# Runs


def test_processes_are_numbered_and_memory_is_kept_by_steps():
    first, second = (crews.Watcher(None) for _ in range(2))
    first.memory = {70: {3: 2_000_000, 5: 4_000_000}, 60: {2: 1_000_000}}
    first.killed = [{"what": "worker", "seconds": 1.234, "pid": 70}, {"what": "scheduler", "seconds": 2.0, "pid": 9}]
    second.memory = {80: {7: 9_000_000}}
    found = crews.told([first, second])
    assert found["memory"] == [{"first": 2, "MB": [1]}, {"first": 3, "MB": [2, 0, 4]}, {"first": 7, "MB": [9]}]
    assert [(kill["what"], kill["worker"]) for kill in found["kills"]] == [("worker", 1), ("scheduler", None)]
    assert first.peak == 4_000_000 and crews.Watcher(None).peak == 0


def test_what_other_processes_of_a_study_compute_is_not_others_work():
    before = crews.computed([os.getpid()])
    sum(range(10**6))
    assert crews.computed([os.getpid()]) >= before > 0 and crews.computed([2**22 + 1]) == 0
    works = {"a": lambda: sum(range(2 * 10**5))}
    found = benchmark.compare(works, rounds=3, more=lambda: 0.0).conditions["load_during"]
    everything = benchmark.compare(works, rounds=3, more=iter(range(0, 10**6, 10**4)).__next__)
    assert everything.conditions["load_during"] == 0.0 <= (found or 0.0)


def test_files_are_written_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "CHUNK_BYTES", 1000)
    scaling.to_disk(tmp_path / "files", 3500)
    assert [path.stat().st_size for path in scaling.files(tmp_path / "files")] == [1000] * 3
    content = b"".join(path.read_bytes() for path in scaling.files(tmp_path / "files"))
    assert scaling.from_disk(tmp_path / "files") == zlib.crc32(content)


def test_the_serial_run_is_a_loop_over_chunks(surrogate):
    p = np.linspace(-1, 2, 10)
    parts = [surrogate(p[i : i + 4]).tobytes() for i in (0, 4, 8)]
    assert scaling.serial(surrogate, (-1.0, 2.0, 10), 4) == [2**32 + zlib.crc32(part) for part in parts]
    assert scaling.chunk_of(surrogate) == 2**25 // 128


def test_chunks_and_checksums_on_disk_are_counted(tmp_path):
    assert scaling.written(tmp_path) == scaling.noted(tmp_path) == 0
    own = stores.Store(stores.Place.of(tmp_path / "store"), [stores.Field("X", (), "float32")], {}, 10, 2)
    stores.write(own.group, 2, ["X"], [np.zeros(2, np.float32)])
    (tmp_path / "store" / "X" / "c" / ".3.partial").write_bytes(b"")
    assert (scaling.written(tmp_path / "store"), scaling.noted(tmp_path / "store")) == (1, 0)
    own.note(1, 2**32)
    own.flush()
    assert scaling.noted(tmp_path / "store") == 1


@pytest.mark.slow
def test_a_run_goes_through_its_kills(surrogate, forked, tmp_path):
    own = scaling.killed(surrogate, (-1.0, 2.0, 20_000), tmp_path / "store", chunk=20)
    assert own["killed"] == KILLS and own["calls"] == 2
    assert own["equal to the serial run"] and own["files"] == own["chunks"] == 1000
    assert own["damaged chunks on disk"] == [] and own["found by the last call"] > 0
    assert [kill["worker"] is None for kill in own["kills"]] == [False, False, True, False]


@pytest.mark.slow
def test_runs_are_timed_beside_disk_and_loop(surrogate, forked, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "CHUNK_BYTES", 128 * 100)
    monkeypatch.setattr(scaling, "TASKS", 20)
    monkeypatch.setattr(benchmark, "ATTEMPTS", 1)
    own = scaling.timed(surrogate, (-1.0, 2.0, 400), 800, tmp_path, 1)
    assert set(own["seconds"]) == {"one worker", "two workers", "two threads", "disk", "loop", "read", "tasks"}
    assert own["chunk"] == 100 and own["whole"]["parameters"] == 800 and list(tmp_path.iterdir()) == []
    assert scaling.paper(own)["bottleneck"] in ("arithmetic", "disk", "scheduler")
