"""Many parameters over workers: values bit for bit, whatever dies on the way, and clear errors."""

import contextlib
import importlib
import math
import multiprocessing
import os
import resource
import shutil
import socket
import sys
import threading
import time
import urllib.request
import zlib
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import assert_raises, easy, factors_of, random_surrogate

pytest.importorskip("distributed")
pytest.importorskip("zarr")

import dask
import zarr
from distributed import Client, LocalCluster
from distributed.comm import CommClosedError
from distributed.utils import get_mp_context

import neumatc as nm
from neumatc import distributed as nd
from neumatc.distributed import stores, workers
from neumatc.distributed.points import points

QUIET = {"progress": False}
LINE = (-1.0, 2.0, 500)  # on the box of `random_surrogate`


@pytest.fixture(scope="module")
def forks():
    """How processes start here: from one that has imported all, which takes seconds once, not for each worker."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        context = get_mp_context()
        context.set_forkserver_preload(["neumatc.distributed"])
        yield context


@pytest.fixture(scope="module")
def client(forks):
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=None, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as own,
    ):
        yield own


@pytest.fixture(scope="module")
def surrogate():
    return random_surrogate(nm.Inverse(), 3, 3, torch.complex64)


def serial(surrogate, p, chunk):
    """Values and checksums of a loop over chunks in this process, as CRC-32 of zlib."""
    parts = [factors_of(surrogate(p[i : i + chunk])) for i in range(0, len(p), chunk)]
    sums = [2**32 + zlib.crc32(b"".join(x.tobytes() for x in part)) for part in parts]
    return [np.concatenate(x) for x in zip(*parts)], sums


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def files_of(store, name="X"):
    return sum(path.is_file() and not path.name.endswith(".partial") for path in (Path(store) / name).rglob("c/**/*"))


@contextlib.contextmanager
def once(condition, action):
    """Do something as soon as a condition holds, while the body runs."""
    done = threading.Event()

    def wait():
        while not (condition() or done.is_set()):
            time.sleep(0.002)
        if not done.is_set():
            action()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


# Values


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
@pytest.mark.parametrize("operation", [nm.Inverse(), nm.SVD(rank=2)], ids=["inverse", "svd"])
def test_values_and_checksums_are_those_of_a_loop_in_one_process(client, tmp_path, operation, dtype):
    own = random_surrogate(operation, 3, 3, dtype)
    p = np.random.default_rng(0).uniform(-1, 2, 301)
    run = nd.evaluate(own, p, tmp_path / "values", client=client, chunk=50, **QUIET)
    factors, sums = serial(own, p, 50)
    arrays = nd.read(tmp_path / "values")
    assert list(arrays) == list(run.names) == [factor.name for factor in operation.factors(3, 3)]
    for array, factor in zip(arrays.values(), factors, strict=True):
        assert same_bits(array[:], factor) and array.chunks[0] == 50
    assert run.checksums.tolist() == sums and run.found == 0 and run.shape == (301,)
    assert run.bytes == sum(x.nbytes for x in factors)
    again = nd.evaluate(own, p, client=client, chunk=50, **QUIET)
    assert again.checksum == run.checksum and again.store is None and again.results == []
    assert nd.evaluate(own, p, f"file://{tmp_path}/values", client=client, chunk=50).found == 7


def test_the_default_chunk_follows_from_the_values_alone(client, surrogate):
    (results,) = nd.evaluate(surrogate, LINE, lambda p, X: (len(p), X.shape, X.dtype), client=client, **QUIET).results
    assert results == (500, (500, 3, 3), np.complex64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nd, "_CHUNK_BYTES", 72 * 200)
        run = nd.evaluate(surrogate, LINE, lambda p, X: p[0, 0], client=client, **QUIET)
    assert run.chunk == 200 and run.results == pytest.approx([-1 + 3 * i / 499 for i in (0, 200, 400)])


def test_a_grid_is_evaluated_at_all_pairs_in_the_order_of_its_axes(client, tmp_path):
    own = random_surrogate(nm.Inverse(), 2, 2, torch.float64, d=2)
    axis = torch.tensor([-0.5, 0.1, 1.9])
    run = nd.evaluate(own, [axis, (-1.0, 2.0, 7)], tmp_path / "values", client=client, chunk=5, **QUIET)
    assert run.shape == (3, 7)
    found = nd.read(tmp_path / "values")["X"][:].reshape(3, 7, 2, 2)
    np.testing.assert_allclose(found, own.grid(axis.numpy(), np.linspace(-1, 2, 7)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_recipe_is_not_held_and_each_value_depends_on_its_number_alone(scale):
    box = nm.Box(0.1, 10.0, scale=scale, dtype=torch.float64)
    count = 10**12
    own = points((0.1, 10.0, count), box)
    assert own.shape == (count,) and own.part(0, 5) is None
    ends = np.concatenate([own.rows(0, 2), own.rows(count - 2, count)])[:, 0]
    assert ends[0] == 0.1 and ends[-1] == 10.0 and (np.diff(ends) > 0).all()
    whole = points((0.1, 10.0, 1001), box)
    space = np.geomspace if scale == "log" else np.linspace
    np.testing.assert_allclose(whole.rows(0, 1001)[:, 0], space(0.1, 10.0, 1001), rtol=1e-13)
    assert same_bits(whole.rows(0, 1001)[400:500], whole.rows(400, 500))
    assert points((10.0, 0.1, 3), box).rows(0, 3)[[0, 2], 0].tolist() == [10.0, 0.1]
    assert points((2.0, 5.0, 1), box).rows(0, 1).tolist() == [[2.0]]


@pytest.mark.usefixtures("forks")
def test_without_a_client_there_are_processes_for_the_call_alone(surrogate):
    before = set(multiprocessing.active_children())
    pids = nd.evaluate(surrogate, LINE, lambda p, X: os.getpid(), chunk=50, progress=False).results
    assert os.getpid() not in pids
    assert set(multiprocessing.active_children()) <= before


def test_a_memory_map_is_read_by_the_chunk(client, surrogate, tmp_path):
    p = np.memmap(tmp_path / "p", dtype=np.float64, mode="w+", shape=(400, 1))
    p[:, 0] = np.linspace(-1, 2, 400)
    p.flush()
    run = nd.evaluate(surrogate, np.memmap(tmp_path / "p", np.float64, "r", shape=(400, 1)), client=client, chunk=150)
    assert run.checksums.tolist() == serial(surrogate, np.array(p), 150)[1]


def test_minus_zero_and_nan_are_kept_as_they_are(tmp_path):
    """By itself Zarr 3.1.6 leaves such chunks out, and the parts are lost."""
    chunks = [complex(math.nan, -0.0), complex(-0.0, math.nan), complex(math.nan, math.nan), complex(-0.0, -0.0), 0j]
    value = np.repeat(np.array(chunks, np.complex64), 2)
    own = stores.Store(stores.Place.of(tmp_path / "values"), [stores.Field("X", (), "complex64")], {}, 10, 2)
    for start in range(0, 10, 2):
        stores.write(own.group, start, ["X"], [value[start : start + 2]])
    assert files_of(tmp_path / "values") == 5
    assert same_bits(np.asarray(zarr.open_group(tmp_path / "values", mode="r")["X"][:]), value)


def test_snapshots_certificates_and_residuals_over_a_store(client, tmp_path):
    problem = easy(nm.Inverse(), torch.complex128)
    fitted = nm.fit(problem, tol=1e-3, progress=False)
    p, options = np.linspace(0, 1, 90), {"client": client, **QUIET}
    low, high = float(problem.family.lower), float(problem.family.upper)
    p = low + (high - low) * p
    nd.exact(problem, p, tmp_path / "exact", chunk=40, **options)
    exact = nd.read(tmp_path / "exact")
    assert not exact["failed"][:].any()
    np.testing.assert_allclose(exact["X"][:], problem.exact(p).value, rtol=0, atol=1e-13)
    rtol = 1.001 * float(np.median(nm.certify(fitted, problem, p, rtol=1.0).bound))
    nd.certify(fitted, problem, p, tmp_path / "certified", rtol=rtol, chunk=40, **options)
    found, own = nd.read(tmp_path / "certified"), nm.certify(fitted, problem, p, rtol=rtol)
    assert 20 < found["accepted"][:].sum() < 70, "some are replaced by exact ones"
    assert found["accepted"][:].tolist() == own.accepted.tolist()
    np.testing.assert_allclose(found["bound"][:], own.bound, rtol=1e-3, atol=1e-14)
    np.testing.assert_allclose(found["X"][:], own.value, rtol=0, atol=1e-13)
    nd.evaluate(fitted, p, tmp_path / "values", chunk=40, **options)
    nd.measure(tmp_path / "values", problem, p, tmp_path / "measured", **options)
    measured = nd.read(tmp_path / "measured")["residual"][:]
    np.testing.assert_allclose(measured, problem.residual(p, fitted(p)), rtol=1e-6, atol=1e-14)
    with pytest.raises(ValueError, match="`p`: expected the parameters of .*, got others"):
        nd.measure(tmp_path / "values", problem, p[::-1].copy(), tmp_path / "other", **options)
    with pytest.raises(ValueError, match="`values`: expected a store with .*, got"):
        nd.measure(tmp_path / "values", easy(nm.LogDet(), torch.complex128), p, tmp_path / "other", **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_values_of_a_store_are_certified_as_they_are(client, tmp_path, dtype):
    """Without evaluating or solving again: a value that was damaged, or never was a solution, is not bounded."""
    problem, options = easy(nm.Inverse(), dtype), {"client": client, **QUIET}
    fitted = nm.fit(problem, tol=1e-3, progress=False)
    p = np.linspace(float(problem.family.lower), float(problem.family.upper), 90)
    nd.evaluate(fitted, p, tmp_path / "values", chunk=40, **options)
    nd.measure(tmp_path / "values", problem, p, tmp_path / "bounds", bounds=True, **options)
    found, own = nd.read(tmp_path / "bounds"), nm.certify(fitted, problem, p, rtol=1.0)
    assert list(found) == ["residual", "bound"] and own.accepted.all()
    # The values are those of other batches: they differ in rounding of their precision.
    atol = 100 * torch.finfo(dtype).eps
    np.testing.assert_allclose(found["residual"][:], own.residual, rtol=1e-6, atol=atol)
    np.testing.assert_allclose(found["bound"][:], own.bound, rtol=1e-6, atol=atol)
    values = nd.read(tmp_path / "values")["X"][:]
    assert (problem.error(p, values) <= found["bound"][:] + atol).all()
    values[3], values[50] = 1.5 * values[3], np.nan
    zarr.open_group(tmp_path / "values")["X"][:] = values
    bound = np.concatenate(nd.measure(tmp_path / "values", problem, p, _bound, bounds=True, **options).results)
    assert bound[3] >= 0.5 and np.isinf(bound[50]) and np.isfinite(np.delete(bound, 50)).all()


def _bound(p, residual, bound):
    return bound


def test_what_has_no_solution_is_marked(client):
    family = nm.ParametricMatrix(lambda p: (p.abs() + p)[:, :, None], -1.0, 1.0, dtype=torch.float64)
    run = nd.exact(nm.Problem(family, nm.Inverse()), (-1.0, 1.0, 8), _failures, client=client, chunk=4, **QUIET)
    assert run.results == [4, 0]


def _failures(p, X, failed):
    assert np.isnan(X[failed]).all()
    return int(failed.sum())


def test_many_problems_are_fitted_as_in_one_process(client):
    problems = [easy(nm.Inverse(), seed=i) for i in range(5)]
    found = nd.fit_many(problems, tol=1e-4, batch=2, client=client, **QUIET)
    assert len(found) == 5
    for i in range(0, 5, 2):
        for own, other in zip(found[i : i + 2], nm.fit_many(problems[i : i + 2], tol=1e-4, progress=False)):
            p = own.box.uniform(50, torch.Generator().manual_seed(0))
            assert torch.equal(own(p), other(p)) and own.report.met


def test_families_that_fail_on_a_worker_are_named_and_the_others_are_there(client):
    shear = torch.tensor([[2.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
    good, wrong = (
        nm.Problem(nm.ParametricMatrix(lambda p, A=A: A + 0 * p[:, :, None], 0.0, 1.0, dtype=A.dtype), nm.Cholesky())
        for A in (shear @ shear.T, shear)
    )
    with pytest.raises(nm.FamilyError, match="batch 1: .*Hermitian") as caught:
        nd.fit_many([good, wrong], rank=1, batch=1, client=client, **QUIET)
    assert [own is None for own in caught.value.surrogates] == [False, True]
    with pytest.raises(nm.FamilyError, match="Hermitian"):
        nd.exact(wrong, (0.0, 1.0, 8), client=client, **QUIET)


def test_warnings_of_fits_come_to_the_caller(client):
    with pytest.warns(nm.FitWarning, match="not met"):
        nd.fit_many([easy(nm.Inverse())], tol=1e-9, budget=3, client=client, **QUIET)


# A latent tensor that is split by rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_rows_on_workers_of_their_own_are_those_of_the_whole_map(client, tmp_path, dtype):
    own, p = random_surrogate(nm.Inverse(), 5, 5, dtype), np.linspace(-1, 2, 60)
    runs = nd.evaluate_rows(own, p, tmp_path / "rows", client=client, chunk=7, **QUIET)
    found = np.concatenate([nd.read(run.store)["X"][:] for run in runs], axis=1)
    whole = own(p)
    assert found.dtype == whole.dtype and [path.name for path in sorted((tmp_path / "rows").iterdir())] == [
        "rows-0",
        "rows-2",
    ]
    np.testing.assert_allclose(found, whole, rtol=0, atol=8 * np.finfo(whole.dtype).eps * np.abs(whole).max())
    assert [(run.found, len(run.checksums)) for run in runs] == [(0, 9)] * 2
    again = nd.evaluate_rows(own, p, tmp_path / "rows", client=client, chunk=7, **QUIET)
    assert [(run.found, run.checksum) for run in again] == [(9, run.checksum) for run in runs]
    alone = nd.evaluate_rows(own, p, parts=1, client=client, chunk=7, **QUIET)
    assert alone[0].checksum == nd.evaluate(own, p, client=client, chunk=7, **QUIET).checksum


def test_each_part_stays_with_its_worker(client, surrogate):
    runs = nd.evaluate_rows(surrogate, LINE, _where, client=client, chunk=20, **QUIET)
    pids = [{pid for pid, _ in run.results} for run in runs]
    assert [len(own) for own in pids] == [1, 1] and pids[0] != pids[1]
    assert [{shape for _, shape in run.results} for run in runs] == [{(20, 1, 3)}, {(20, 2, 3)}]


def _where(p, X):
    return os.getpid(), X.shape


@pytest.mark.slow
def test_a_part_goes_to_another_worker_where_its_own_is_killed(client, surrogate, tmp_path):
    victim, p = client.run(os.getpid)[min(client.nthreads())], np.linspace(-1, 2, 1000)
    with once(lambda: files_of(tmp_path / "rows" / "rows-0") > 10, lambda: os.kill(victim, 9)):
        runs = nd.evaluate_rows(surrogate, p, tmp_path / "rows", client=client, chunk=5, parts=2, **QUIET)
    assert [nd.verify(run.store, client=client, **QUIET) for run in runs] == [[], []]
    found = np.concatenate([nd.read(run.store)["X"][:] for run in runs], axis=1)
    np.testing.assert_allclose(found, surrogate(p), rtol=0, atol=1e-5)


def test_what_cannot_be_split_by_rows_is_refused(client, surrogate, tmp_path):
    cases = {
        "`surrogate`: expected one whose map gives its one factor as it is": {
            "surrogate": random_surrogate(nm.SVD(rank=2), 3, 3, torch.float64)
        },
        "`parts`: expected at most 3": {"parts": 4},
        "`parts`: expected at least 1": {"parts": 0},
        "`store`: expected a path, or a function": {"store": 3},
        r"`p\[0\]`: expected parameters in the box": {"p": (0.0, 3.0, 10)},
    }
    for words, given in cases.items():
        with pytest.raises((ValueError, TypeError), match=words):
            nd.evaluate_rows(**{"surrogate": surrogate, "p": LINE, "client": client} | QUIET | given)
    nd.evaluate_rows(surrogate, LINE, tmp_path / "rows", parts=3, client=client, chunk=100, **QUIET)
    with pytest.raises(ValueError, match=r"`store`: expected one with the arrays of this call.* with .*1, 3\]"):
        nd.evaluate_rows(surrogate, LINE, tmp_path / "rows", parts=1, client=client, chunk=100, **QUIET)
    with pytest.raises(ValueError, match="as it is, a matrix or a vector, got one of LogDet"):
        nd.evaluate_rows(random_surrogate(nm.LogDet(), 3, 3, torch.float64), LINE, client=client, **QUIET)


# What dies on the way


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_but_time(client, surrogate, tmp_path):
    victim, *_ = client.run(os.getpid).values()
    store, p = tmp_path / "values", np.linspace(-1, 2, 1000)
    with once(lambda: files_of(store) > 10, lambda: os.kill(victim, 9)):
        run = nd.evaluate(surrogate, p, store, client=client, chunk=5, **QUIET)
    factors, sums = serial(surrogate, p, 5)
    assert run.checksums.tolist() == sums
    assert same_bits(nd.read(store)["X"][:], factors[0]) and files_of(store) == 200
    assert nd.verify(store, client=client, **QUIET) == []


def dying(parent, marker=None):
    """A family that ends the workers that come to the second half of its box; with a marker the first one alone."""

    def matrices(p):
        if os.getpid() != parent and float(p[0]) > 0.5 and not (marker and marker.exists()):
            if marker:
                marker.touch()
            os._exit(1)
        return 2 + p[:, :, None].cos()

    return nm.Problem(nm.ParametricMatrix(matrices, 0.0, 1.0, dtype=torch.float64), nm.Inverse())


def test_a_task_that_was_lost_is_done_again_by_another_worker(client, tmp_path):
    problem = dying(os.getpid(), tmp_path / "marker")
    run = nd.exact(problem, (0.0, 1.0, 90), tmp_path / "values", client=client, chunk=10, **QUIET)
    assert (tmp_path / "marker").exists() and len(run.checksums) == 9
    np.testing.assert_allclose(nd.read(run.store)["X"][:, 0, 0], 1 / (2 + np.cos(np.linspace(0, 1, 90))), rtol=1e-14)


def test_what_ends_every_worker_is_given_up_and_said(client):
    with allowing(client, 0), pytest.raises(RuntimeError, match="survive task 0, got the end"):
        nd.exact(dying(os.getpid()), (0.9, 1.0, 4), client=client, **QUIET)


@contextlib.contextmanager
def allowing(client, failures):
    """How many workers a task may end."""

    def set_to(count, dask_scheduler):
        before, dask_scheduler.allowed_failures = dask_scheduler.allowed_failures, count
        return before

    before = client.run_on_scheduler(set_to, failures)
    try:
        yield
    finally:
        client.run_on_scheduler(set_to, before)


def test_fits_that_ended_before_their_call_did_come_with_its_error(client):
    problems = [dying(os.getpid()), *(easy(nm.Inverse(), seed=i) for i in range(3))]
    with allowing(client, 0), pytest.raises(RuntimeError, match="`batch`.*fits that ended are in") as caught:
        nd.fit_many(problems, tol=1e-4, batch=1, client=client, **QUIET)
    assert caught.value.surrogates[0] is None and len(caught.value.surrogates) == 4


@pytest.mark.slow
def test_fits_are_not_lost_with_the_connection(client):
    """What is given again is fitted in the batches that it was in, so all is as in one call."""
    problems = [easy(nm.Inverse(), seed=i) for i in range(40)]
    own, done, plain = Client(client.scheduler.address), [], workers.Parcel.opened

    def opened(parcel):
        done.append(1)
        return plain(parcel)

    with pytest.MonkeyPatch.context() as patch, once(lambda: len(done) > 2, own.close):
        patch.setattr(workers.Parcel, "opened", opened)
        with pytest.raises(ConnectionError, match="lost or closed; .*the fits that ended are in") as caught:
            nd.fit_many(problems, tol=1e-4, batch=2, client=own, **QUIET)
    found = caught.value.surrogates
    left = [i for i, one in enumerate(found) if one is None]
    assert len(found) == 40 and 0 < len(left) < 40
    for i, one in zip(left, nd.fit_many([problems[i] for i in left], tol=1e-4, batch=2, client=client, **QUIET)):
        found[i] = one
    whole = nd.fit_many(problems, tol=1e-4, batch=2, client=client, **QUIET)
    p = np.linspace(float(problems[0].family.lower), float(problems[0].family.upper), 20)
    assert all(same_bits(a(p), b(p)) for a, b in zip(found, whole))


def _cluster(addresses):
    """A scheduler and a worker in a process of their own, which can be killed."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=":0"
    ) as cluster:
        addresses.put(cluster.scheduler_address)
        time.sleep(600)


@pytest.mark.slow
def test_after_the_death_of_the_scheduler_the_same_call_goes_on(client, forks, surrogate, tmp_path, caplog):
    addresses = forks.Queue()
    process = forks.Process(target=_cluster, args=(addresses,), daemon=True)
    process.start()
    store, p = tmp_path / "values", np.linspace(-1, 2, 2000)
    ended = pytest.raises(ConnectionError, match="`client`.*goes on")
    with caplog.at_level("ERROR", "distributed"), once(lambda: files_of(store) > 20, process.kill), ended:
        nd.evaluate(surrogate, p, store, client=addresses.get(timeout=60), chunk=5, timeout=20, **QUIET)
    assert "Traceback" not in caplog.text, "what is lost is said once"
    with pytest.raises(ValueError, match=r"a store that is whole, got .* chunks are missing; call"):
        nd.read(store)
    (store / "X" / "c" / "399" / "0").mkdir(parents=True, exist_ok=True)
    (store / "X" / "c" / "399" / "0" / "0.abc.partial").write_bytes(b"what a killed worker left")
    there = {path: path.stat().st_mtime_ns for path in (store / "X").rglob("c/*/*/0")}
    run = nd.evaluate(surrogate, p, store, client=client, chunk=5, **QUIET)
    assert not list(store.rglob("*.partial"))
    assert 0 < run.found < 400
    assert run.checksums.tolist() == serial(surrogate, p, 5)[1]
    assert sum(path.stat().st_mtime_ns == then for path, then in there.items()) >= run.found, "these were left alone"
    assert nd.evaluate(surrogate, p, store, client="tcp://127.0.0.1:1", chunk=5).found == 400, "nobody is asked"


@pytest.mark.slow
def test_a_client_that_closes_in_the_middle_leaves_a_store_that_can_be_used(client, surrogate, tmp_path):
    store, p, own = tmp_path / "values", np.linspace(-1, 2, 1000), Client(client.scheduler.address)
    with once(lambda: files_of(store) > 10, own.close), pytest.raises(ConnectionError, match="lost or closed"):
        nd.evaluate(surrogate, p, store, client=own, chunk=5, **QUIET)
    assert nd.evaluate(surrogate, p, store, client=client, chunk=5, **QUIET).found > 0
    assert same_bits(nd.read(store)["X"][:], serial(surrogate, p, 5)[0][0])
    with pytest.raises(ValueError, match="`client`: expected a client that is connected, got closed"):
        nd.evaluate(surrogate, p, client=own)


def test_checksums_alone_are_taken_up_again_too(client, surrogate, tmp_path):
    first = nd.evaluate(surrogate, LINE, tmp_path / "sums", values=False, client=client, chunk=100, **QUIET)
    assert files_of(tmp_path / "sums", "checksums") == 1 and not (tmp_path / "sums" / "X").exists()
    again = nd.evaluate(surrogate, LINE, tmp_path / "sums", values=False, client=client, chunk=100)
    assert (first.found, again.found, again.bytes) == (0, 5, 0) and again.checksum == first.checksum
    assert_raises(ValueError, ["`store`", "with values", "checksums alone"], lambda: nd.read(tmp_path / "sums"))


def test_a_damaged_chunk_is_found_and_made_anew(client, surrogate, tmp_path):
    nd.evaluate(surrogate, LINE, tmp_path / "values", client=client, chunk=100, **QUIET)
    before = nd.read(tmp_path / "values")["X"][:]
    chunks = tmp_path / "values" / "X" / "c"
    flipped = bytearray((chunks / "1/0/0").read_bytes())
    flipped[7] ^= 1
    (chunks / "1/0/0").write_bytes(flipped)
    (chunks / "2/0/0").write_bytes(b"short")
    (chunks / "4/0/0").unlink()
    assert nd.verify(tmp_path / "values", client=client, **QUIET) == [1, 2, 4]
    assert nd.evaluate(surrogate, LINE, tmp_path / "values", client=client, chunk=100, **QUIET).found == 2
    assert same_bits(nd.read(tmp_path / "values")["X"][:], before)


BROKEN = {"empty": "", "cut": '{"zarr_format": 3,', "of nothing": "null", "of another kind": "[]"}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("place", ["", "X", "checksums"])
def test_a_store_whose_metadata_are_broken_is_named(client, surrogate, tmp_path, place, content):
    store = tmp_path / "values"
    nd.evaluate(surrogate, LINE, store, client=client, chunk=100, **QUIET)
    (store / place / "zarr.json").write_text(content)
    calls = [
        lambda: nd.evaluate(surrogate, LINE, store, client=client, chunk=100, **QUIET),
        lambda: nd.read(store, partial=True),
        lambda: nd.verify(store, client=client, **QUIET),
    ]
    for call in calls:
        assert_raises(ValueError, ["`store`: expected a", place, "values", "got", "read", "back"], call)


@pytest.mark.parametrize("name", ["X", "checksums"])
def test_an_array_that_is_gone_is_never_taken_for_one_that_is_there(client, surrogate, tmp_path, name):
    """An array that is made anew reads as fill values: the chunks that the store counts would be none."""
    store = tmp_path / "values"

    def call():
        return nd.evaluate(surrogate, LINE, store, client=client, chunk=100, **QUIET)

    first = call()
    shutil.rmtree(store / name)
    words = [f"`store`: expected an array {name} at", "values", "none that can be read", "remove the store"]
    for reading in (lambda: nd.read(store), lambda: nd.verify(store, client=client, **QUIET)):
        assert_raises(ValueError, words, reading)
    if name == "X":
        assert_raises(ValueError, words, call)
        assert not (store / name).exists()
    else:  # as in a store that was only begun: nothing counts as there
        assert (call().found, nd.verify(store, client=client, **QUIET)) == (0, [])
        assert call().checksum == first.checksum


def test_checksums_that_are_cut_are_named_and_all_is_computed_anew(client, surrogate, tmp_path):
    store = tmp_path / "values"

    def call():
        return nd.evaluate(surrogate, LINE, store, client=client, chunk=100, **QUIET)

    first = call()
    (cut,) = [path for path in (store / "checksums").rglob("*") if path.is_file() and path.name != "zarr.json"]
    cut.write_bytes(cut.read_bytes()[:-3])
    for using in (call, lambda: nd.read(store), lambda: nd.verify(store, client=client, **QUIET)):
        assert_raises(ValueError, ["`store`: expected checksums", "values", "cannot read", "zarr.json"], using)
    cut.unlink()
    again = call()
    assert (again.found, again.checksum) == (0, first.checksum) and nd.verify(store, client=client, **QUIET) == []


# The dashboard


@pytest.mark.usefixtures("forks")
def test_the_cluster_of_a_call_tells_where_its_dashboard_is(surrogate, capsys, monkeypatch):
    pytest.importorskip("bokeh")
    pages, local = [], workers._local

    def looked():
        pages.append(local())
        return pages[0]

    def see(client, count, timeout):
        with urllib.request.urlopen(pages[0].dashboard_link) as answer:
            pages.append((answer.status, answer.read().decode()))

    monkeypatch.setattr(workers, "_local", looked)
    monkeypatch.setattr(Client, "wait_for_workers", see)
    nd.evaluate(surrogate, LINE, chunk=250)
    own, (status, page) = pages
    assert status == 200 and "<html" in page and "needs bokeh" not in page
    assert capsys.readouterr().err.count(f"dashboard: {own.dashboard_link}\n") == 1
    pages.clear()
    nd.evaluate(surrogate, LINE, chunk=250, **QUIET)
    assert "dashboard" not in capsys.readouterr().err


# Bad input


def test_another_store_is_refused_and_stays_as_it_was(client, surrogate, tmp_path):
    store = tmp_path / "values"
    nd.evaluate(surrogate, LINE, store, client=client, chunk=100, **QUIET)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}

    def call(own=surrogate, p=LINE, **settings):
        return lambda: nd.evaluate(own, p, store, **{"chunk": 100, "client": client} | settings)

    other = random_surrogate(nm.Inverse(), 3, 3, torch.complex64, seed=1)
    larger = random_surrogate(nm.Inverse(), 4, 4, torch.complex64)
    assert_raises(ValueError, ["`store`", "of the same surrogate", "which another call has begun"], call(other))
    assert_raises(ValueError, ["`store`", "with the arrays of this call", "[4, 4]", "[3, 3]"], call(larger))
    assert_raises(ValueError, ["`store`", "number of parameters of this call, 501", "500"], call(p=(-1.0, 2.0, 501)))
    assert_raises(ValueError, ["`store`", "with the parameters of this call", "with others"], call(p=(-1.0, 1.0, 500)))
    assert_raises(ValueError, ["`chunk`: expected 100", "got 50"], call(chunk=50))
    group = zarr.open_group(store)
    group.attrs["neumatc"] = group.attrs["neumatc"] | {"version": 99}
    assert_raises(ValueError, ["`store`: expected version 1", "got 99; update neumatc"], call())
    group.attrs["neumatc"] = group.attrs["neumatc"] | {"version": 1}
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}.keys() == before.keys()
    assert call()().found == 5


def test_a_place_of_something_else_is_left_alone(surrogate, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    zarr.create_group(tmp_path / "group")
    for name in ("mine", "group"):
        with pytest.raises(ValueError, match="`store`: expected an empty place, or a store of this kind"):
            nd.evaluate(surrogate, LINE, tmp_path / name)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "below", Path("/proc/values")):
        with pytest.raises(OSError, match="`store`: could not (open|make)"):
            nd.evaluate(surrogate, LINE, place)
    with pytest.raises(ValueError, match="`store`: expected a store that may be written, got one that is read-only"):
        nd.evaluate(surrogate, LINE, zarr.storage.LocalStore(tmp_path / "new", read_only=True))
    with pytest.raises(TypeError, match="`store`.* got a MemoryStore, which one process alone can write"):
        nd.evaluate(surrogate, LINE, zarr.storage.MemoryStore())
    with pytest.raises(FileNotFoundError, match="`store`: expected a Zarr group at .*, got nothing"):
        nd.read(tmp_path / "nowhere")


def test_a_scheduler_whose_end_a_call_sees_before_the_client_is_a_lost_connection(
    client, surrogate, tmp_path, monkeypatch
):
    def ended():
        raise CommClosedError("ConnectionResetError: connection reset by peer")

    monkeypatch.setattr(client, "nthreads", ended)
    assert client.status == "running"
    with pytest.raises(ConnectionError, match="lost or closed; .*from what a store has; .*nothing else is kept"):
        nd.evaluate(surrogate, np.linspace(-1, 2, 100), tmp_path / "values", client=client, chunk=5, **QUIET)


@pytest.mark.parametrize("status", ["finished", "lost", "pending", "error"])
def test_a_result_that_has_come_counts_though_its_worker_is_lost_since(client, status):
    assert workers._checked(client, SimpleNamespace(status=status), (7, None), 0) == (7, None)
    error = ValueError("no such matrix")
    with pytest.raises(ValueError, match="no such matrix"):
        workers._checked(client, SimpleNamespace(status=status), (ValueError, error, None), 0)
    for after, result in ((status, CancelledError()), ("cancelled", (7, None))):
        with pytest.raises(ConnectionError, match="until the end"):
            workers._checked(client, SimpleNamespace(status=after), result, 0)


def test_a_full_disk_is_said_before_and_on_the_way(client, surrogate, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(stores.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(OSError, match=r"`store`: expected room for 3.6e-05 GB at .*, got 1e-06 GB; make room"):
            nd.evaluate(surrogate, LINE, tmp_path / "before")
    client.run(_limit, 4096)
    try:
        with pytest.raises(OSError, match="`store`: could not write .*: File too large; make room"):
            nd.evaluate(surrogate, LINE, tmp_path / "values", client=client, chunk=100, **QUIET)
    finally:
        client.run(_limit, resource.RLIM_INFINITY)
    run = nd.evaluate(surrogate, LINE, tmp_path / "values", client=client, chunk=100, **QUIET)
    assert run.checksums.tolist() == serial(surrogate, np.linspace(-1, 2, 500), 100)[1]


def _limit(size):
    """Let files grow no larger, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_scheduler_that_cannot_be_reached_is_given_up_in_time(surrogate):
    begin = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (1, silent.getsockname()[1]):
            with pytest.raises(ConnectionError, match=r"`client`: expected a scheduler at .*, got no answer in 0.5 s"):
                nd.evaluate(surrogate, LINE, client=f"tcp://127.0.0.1:{port}", timeout=0.5)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        pytest.raises(ConnectionError, match=r"`client`: expected a worker at .*, got none in 0.5 s; start some"),
    ):
        nd.evaluate(surrogate, LINE, client=cluster, timeout=0.5)
    assert time.monotonic() - begin < 20


def test_bad_arguments_are_named(surrogate):
    cases = {
        "`client`: expected an address": {"client": 7},
        "`client`: expected an address such as": {"client": "no://where"},
        "`chunk`: expected at least 1": {"chunk": 0},
        "`timeout`: expected a finite number above 0": {"timeout": 0},
        "`values`: expected True or False": {"values": 2, "store": "unused"},
        "`progress`": {"progress": 3},
        "`orthonormal`": {"orthonormal": 3},
        "`store`: expected a path": {"store": 3},
        r"`p`: expected parameters in the box \[-1.0\] to \[2.0\], got \[3.0\]": {"p": np.array([0.0, 3.0])},
        r"`p\[0\]`: expected parameters in the box": {"p": (0.0, 3.0, 10)},
        r"`p\[0\]`: expected at least 1": {"p": (0.0, 1.0, 0)},
        r"`p\[0\]`: expected an integer": {"p": (0.0, 1.0, 1e8)},
        "`p`: expected an array": {"p": [0.0, 1.0]},
        "`p`: expected 1 axes": {"p": [np.zeros(2), np.zeros(2)]},
        "`p`: expected finite": {"p": np.array([math.nan])},
        "`p`: expected at least one": {"p": np.empty(0)},
    }
    for words, given in cases.items():
        with pytest.raises((ValueError, TypeError), match=words):
            nd.evaluate(**{"surrogate": surrogate, "p": LINE, "timeout": 5} | given)
    with pytest.raises(ValueError, match="`problems`: expected at least one"):
        nd.fit_many([], tol=1e-3)


@pytest.mark.parametrize("missing", ["distributed", "zarr"])
def test_without_its_packages_the_import_says_what_to_install(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    for name in ("neumatc.distributed.workers", "neumatc.distributed"):
        monkeypatch.delitem(sys.modules, name)
    words = ["`neumatc.distributed`: expected Dask and Zarr", missing, 'pip install "neumatc[distributed]"']
    assert_raises(ImportError, words, lambda: importlib.import_module("neumatc.distributed"))


def test_a_program_without_its_guard_is_told_so(surrogate, monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(RuntimeError, match="put it under `if __name__ == '__main__':`"):
        nd.evaluate(surrogate, LINE)
