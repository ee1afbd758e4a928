"""Tasks on the workers of Dask: a connection, parcels that each process opens once, and as many at a time as pay."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import logging
import math
import multiprocessing
import queue
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import cloudpickle
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
from distributed.comm import CommClosedError

from neumatc import checks
from neumatc.report import library_version

# Tasks that are under way for each thread of the workers, and at least: so many parameters and results are held.
_AHEAD, _FEWEST = 4, 8
# Seconds between two looks at the connection while nothing comes, and between two notes of what has come.
_LOOK, _NOTE = 0.1, 2.0
_AGAIN = (
    "the same call goes on from what a store has; of `fit_many` the fits that ended are in `surrogates` of this error; "
    "nothing else is kept"
)


@dataclass(frozen=True)
class Parcel:
    """What tasks need, pickled once: each process opens it once. Dask's own way with torch's modules is not taken.

    Attributes:
        key: Of its content, by which parcels are told apart.
        content: The bytes.
        version: The version of this library that made it.
    """

    key: str
    content: bytes = field(repr=False, compare=False)
    version: str = ""

    @classmethod
    def of(cls, value: object) -> Parcel:
        content = cloudpickle.dumps(value)
        return cls(hashlib.sha256(content).hexdigest(), content, library_version())

    @functools.lru_cache(maxsize=2)  # noqa: B019 - two models in each process
    def opened(self) -> object:
        """Return what is in it; of one process always the same object."""
        own, remedy = library_version(), "install the same on all machines"
        checks.require(own == self.version, "client", f"workers with neumatc {self.version}", own, remedy)
        return cloudpickle.loads(self.content)


def delivered(client: Client, parcel: Parcel, home: str | None) -> Future:
    """Return the task by which every worker gets a parcel, again where one was lost, or the one at an address."""
    with _quiet():
        at = {} if home is None else {"workers": [home], "allow_other_workers": True}
        return client.submit(_same, parcel, pure=False, **at)


def _same(parcel: Parcel) -> Parcel:
    return parcel


@contextmanager
def one_core() -> Iterator[None]:
    """Compute on one core, whatever the worker has: products in parts of other sizes round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def connected(client: object, timeout: float, progress: bool = False) -> Iterator[Client]:
    """Yield a client: the one given, or one of an address, a cluster or new processes on this machine, closed after.

    With ``progress`` the terminal gets the address of the dashboard of new ones.

    Raises:
        ConnectionError: If nothing answers at the address, or no worker comes, within ``timeout`` seconds.
        ValueError: For a client that is closed, or an address of another form.
        TypeError: For something else.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_said_once())
        if client is None:
            client = stack.enter_context(_local())
            if progress:
                print(f"dashboard: {client.dashboard_link}", file=sys.stderr)
        if not isinstance(client, Client):
            client = _of(client, timeout)
            stack.callback(_close, client)
        remedy = "make one by distributed.Client(...), in a plain program without asynchronous=True"
        running = client.status == "running" and not client.asynchronous
        checks.require(running, "client", "a client that is connected", client.status, remedy)
        try:
            client.wait_for_workers(1, timeout)
        except TimeoutError:
            raise ConnectionError(
                f"`client`: expected a worker at {_address(client)}, got none in {timeout:g} s; start some."
            ) from None
        yield client


@contextmanager
def _said_once() -> Iterator[None]:
    """Leave out what the loop prints of each task that lost its connection: `drive` raises that, once."""

    def other(record: logging.LogRecord) -> bool:
        return "as_completed._track_future" not in record.getMessage()

    logger = logging.getLogger("tornado.application")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def _close(client: Client) -> None:
    """Close a client; one that tries to connect again would print how that ends."""
    logger = logging.getLogger("distributed.client")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        client.close()
    finally:
        logger.setLevel(before)


def _local() -> LocalCluster:
    """Start a process of one thread for each core."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "`client`: expected a program that new processes can import, got a call while they do; "
            "put it under `if __name__ == '__main__':`."
        )
    return LocalCluster(threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0")


def _of(place: object, timeout: float) -> Client:
    """Return a new client of an address or a cluster."""
    expected, remedy = "an address, a distributed.Client or a cluster", "leave it out for processes on this machine"
    good = isinstance(place, str) or hasattr(place, "scheduler_address")
    checks.require(good, "client", expected, checks.describe(place), remedy, TypeError)
    found, given_up = queue.SimpleQueue(), threading.Event()

    def connect() -> None:
        try:
            own = Client(place, timeout=timeout, set_as_default=False)
        except Exception as error:
            own = error
        found.put(own)
        if given_up.is_set() and isinstance(own, Client):
            own.close()

    # Its own limit does not count for what takes the connection and says nothing (2026.8.0).
    threading.Thread(target=connect, daemon=True).start()
    try:
        own = found.get(timeout=timeout + _LOOK)
        if isinstance(own, Exception):
            raise own
        return own
    except (OSError, queue.Empty) as error:
        given_up.set()
        raise ConnectionError(
            f"`client`: expected a scheduler at {checks.cut(str(place))}, got no answer in {timeout:g} s; "
            "start one (`dask scheduler`), or mend the address."
        ) from error
    except ValueError as error:
        raise ValueError(f"`client`: expected an address such as tcp://host:8786, got {place!r}; mend it.") from error


def drive(
    client: Client,
    name: str,
    todo: Sequence[int],
    send: Callable[[int], tuple],
    take: Callable[[int, object], None],
    note: Callable[[], None],
    timeout: float,
    home: Callable[[int], str | None] = lambda i: None,
) -> None:
    """Do tasks, a few at a time for each thread of the workers; what a lost worker had is done again by another.

    Args:
        client: Connected.
        name: What the dashboard calls them.
        todo: Their numbers.
        send: Returns function and arguments of a task.
        take: Gets the number and the result of each, in the order in which they end.
        note: Called every few seconds, and at the end, whatever that is.
        timeout: Seconds without a result and without a worker after which it is given up.
        home: Returns the address of the worker that takes a task, as long as it is there; None: any.

    Raises:
        ConnectionError: If the connection is lost, the client closed, or there is no worker.
        RuntimeError: If a task ends every worker that takes it.
        Exception: What a task raises.
    """
    run, running, waiting = uuid.uuid4().hex, {}, as_completed(loop=client.loop, with_results=True, raise_errors=False)
    left, last, came, alive = iter(todo), -math.inf, time.monotonic(), {}

    def submit(i: int, at: str | None) -> None:
        future = _submitted(client, (f"{name}-{run}", i, at or ""), send(i), at)
        running[future] = i, at
        waiting.add(future)

    try:
        while True:
            with _lost(client):
                if time.monotonic() - last > _NOTE:
                    last, alive = time.monotonic(), client.nthreads()
                    note()
                    for future, (i, at) in list(running.items()):
                        if at not in (None, *alive):
                            client.cancel([future])
                            del running[future]
                            submit(i, None)
                for i in itertools.islice(left, max(_FEWEST, _AHEAD * sum(alive.values())) - len(running)):
                    submit(i, at if (at := home(i)) in alive else None)
            if not running:
                return
            for future, result in _done(waiting, client, came, timeout):
                came = time.monotonic()
                if future in running:  # and not one that was to wait for a worker that is gone
                    i, _ = running.pop(future)
                    take(i, _checked(client, future, result, i))
    finally:
        note()
        with contextlib.suppress(Exception):  # of a connection that is gone
            if client.status == "running":
                client.cancel(list(running))


def _submitted(client: Client, key: tuple[str, int, str], task: tuple, home: str | None) -> Future:
    with _quiet():
        # Of tasks that may go to others the idle ones take some, even where that worker is there (2026.8.0).
        return client.submit(task[0], *task[1:], key=key, pure=False, workers=home and [home])


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what Dask says of parcels, which go once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")
        yield


def _done(waiting: as_completed, client: Client, came: float, timeout: float) -> list[tuple[Future, object]]:
    """Return what has ended, after waiting a little for it; ConnectionError where nothing can come any more."""
    until = time.monotonic() + min(_NOTE, timeout)
    while not waiting.has_ready():
        with waiting.thread_condition:
            waiting.thread_condition.wait(_LOOK)
        if not (client.status == "running" or waiting.has_ready()):
            raise _gone(client)
        if time.monotonic() > until:
            with _lost(client):
                if time.monotonic() - came > timeout and not client.nthreads():
                    raise _gone(client)
            return []
    return waiting.next_batch(block=False)


def _checked(client: Client, future: Future, result: object, i: int) -> object:
    """Return the result of a task, or raise what has ended it."""
    if isinstance(result, BaseException) or future.status == "cancelled":
        raise _gone(client)
    # What has come counts, whatever the status has become since: workers can be lost, and tasks be tried again.
    if not (isinstance(result, tuple) and len(result) == 3 and isinstance(result[1], BaseException)):
        return result
    error = result[1]
    if isinstance(error, KilledWorker):
        raise RuntimeError(
            f"`client`: expected workers that survive task {i}, got the end of each that took it, perhaps for lack of "
            f"memory; take a smaller `chunk` or `batch`, or give them more; {_AGAIN}."
        ) from error
    raise error


@contextmanager
def _lost(client: Client) -> Iterator[None]:
    """Say what has happened where a call of Dask fails because its connection is gone."""
    try:
        yield
    except Exception as error:
        closed = isinstance(error, CommClosedError)  # which a call may see before the client does
        if client.status == "running" and not closed:
            raise
        raise _gone(client, closed) from error


def _gone(client: Client, closed: bool = False) -> ConnectionError:
    lost = closed or client.status != "running"
    workers = "the connection was lost or closed" if lost else "the workers are gone"
    return ConnectionError(f"`client`: expected {_address(client)} until the end, but {workers}; {_AGAIN}.")


def _address(client: Client) -> str:
    return f"the scheduler {getattr(client.scheduler, 'address', '')}".rstrip()
