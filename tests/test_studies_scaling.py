"""The study of scaling out: what its records say, and at small size that its runs end as promised."""

import math
import zlib

import numpy as np
import pytest
import torch
from conftest import random_surrogate

pytest.importorskip("distributed")
pytest.importorskip("zarr")

import neumatc as nm
from neumatc.distributed import stores
from studies import scaling
from studies.provenance import Record

KILLS = ["worker", "worker", "scheduler", "worker"]


@pytest.fixture(scope="module")
def surrogate():
    return random_surrogate(nm.Inverse(), 4, 4, torch.complex64)


def ran(**others):
    own = {"parameters": 10**6, "chunk": 4096, "chunks": 245, "bytes": 8_192_000_000, "files": 245, "calls": 2}
    own |= {"killed": KILLS, "equal to the serial run": True, "damaged chunks on disk": []}
    return own | {"peak bytes of a worker": 7.1e8} | others


def timed(loop=8.0, disk=10.0, two=11.0):
    seconds = {"one worker": 20.0, "two workers": two, "disk": disk, "loop": loop}
    ratios = {"two workers over one": (1.5, 1.6, 1.7), "two workers, share of the disk": (math.nan,) * 3}
    own = {"parameters": 10**6, "bytes": 8_192_000_000, "seconds": seconds, "seconds of a task": 2e-3, "ratios": ratios}
    return own | {"model": scaling.model(loop, disk, 0.5, 2, two)}


def recorded(stored=(), streamed=(), **times):
    record = Record("scaling", profile="cpu", device="cpu", seed=0)
    record.numbers |= {"stored": ran(**dict(stored)), "streamed": ran(**{"parameters": 10**7, **dict(streamed)})}
    record.numbers["timed"] = timed(**times)
    record.numbers["paper"] = scaling.paper(record.numbers["timed"])
    return record


def test_tables_show_what_the_record_holds():
    record = recorded()
    scaling.check(record)
    first, second = scaling.runs_table(record).rows
    assert first == ["stored", "1,000,000", "8.2 GB", "245", "3 worker, 1 scheduler", "yes", "0.71 GB"]
    assert second[1] == "10,000,000"
    assert scaling.speed_table(record).rows[0] == ["two workers over one", "1.6 (1.5 to 1.7)"]
    assert scaling.speed_table(record).rows[-1] == ["measured over the sum", "0.76"]
    assert [row[0] for row in scaling.paper_table(record).rows] == ["arithmetic", "disks", "scheduler"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"stored": {"killed": KILLS[:3]}}, "stored: killed"),
        ({"streamed": {"killed": ["worker"] * 4}}, "streamed: killed"),
        ({"streamed": {"equal to the serial run": False}}, "streamed: the checksums"),
        ({"stored": {"peak bytes of a worker": 2.1e9}}, "more memory"),
        ({"stored": {"files": 244}}, "missing or damaged"),
        ({"stored": {"damaged chunks on disk": [3]}}, "missing or damaged"),
        ({"loop": 30.0, "two": 16.0, "disk": 1.0}, "arithmetic"),
    ],
)
def test_what_is_not_as_promised_is_refused(changed, words):
    with pytest.raises(AssertionError, match=words):
        scaling.check(recorded(**changed))


def test_the_run_on_paper_follows_from_what_was_measured():
    own = scaling.paper(timed(loop=8.0, disk=10.0))
    assert own["bytes"] == pytest.approx(8.192e15)
    assert own["hours"]["arithmetic"] == pytest.approx(8e6 / 1000 / 3600)
    assert own["hours"]["disks"] == pytest.approx(10e6 / 500 / 3600)
    assert own["hours"]["scheduler"] == pytest.approx(8.192e15 / 2**30 * 2e-3 / 3600)
    assert own["hours of the scheduler with chunks as here"] == pytest.approx(32 * own["hours"]["scheduler"])
    assert own["bottleneck"] == "disks"
    assert scaling.paper(timed(loop=80.0, disk=10.0))["bottleneck"] == "arithmetic"


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
def test_a_run_goes_through_its_kills(surrogate, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "CHUNK_BYTES", 128 * 20)
    own = scaling.killed(surrogate, (-1.0, 2.0, 20_000), tmp_path / "store", values=True)
    assert sorted(own["killed"]) == sorted(KILLS) and own["calls"] == 2
    assert own["equal to the serial run"] and own["files"] == own["chunks"] == 1000
    assert own["damaged chunks on disk"] == [] and own["found by the last call"] > 0
