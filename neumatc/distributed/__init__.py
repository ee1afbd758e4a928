"""Many parameters and many problems over the workers of Dask, chunk by chunk into Zarr.

Parameters are cut into chunks. Each is a task of its own, which computes on one core and writes what it has by itself;
this process notes the checksums. So a value depends on its chunk alone: not on the worker, their number, or what died
on the way (on processors of one kind: other kernels round otherwise). What a lost worker had, another does again. After
a lost scheduler, a full disk or Ctrl-C the same call goes on from the chunks that are there.

Workers and scheduler are those of Dask (`distributed`): by default a process of one thread for each core of this
machine, or those of an address, a cluster or a client. The calls that take ``client=None`` start processes that import
the main program, which therefore needs ``if __name__ == "__main__":``; where progress is shown, the terminal has the
address of their dashboard. Tasks have the name of the call there. Workers need this library, and of a store a place
that they all see.
"""

from __future__ import annotations

import itertools
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm import tqdm

from neumatc import checks, fitting, sampling, storage
from neumatc.advice import FitWarning
from neumatc.box import Box
from neumatc.certification import bounded
from neumatc.certification import certify as certified
from neumatc.distributed.points import Grid, Listed, points
from neumatc.families import FamilyError
from neumatc.model import FactorMap, Surrogate
from neumatc.problem import Problem

try:
    import zarr
    from distributed import Client

    from neumatc.distributed import stores
    from neumatc.distributed.stores import Field, Place, Store
    from neumatc.distributed.workers import Parcel, connected, delivered, drive, one_core
except ImportError as error:
    raise ImportError(
        f'`neumatc.distributed`: expected Dask and Zarr, got none ({error}); run `pip install "neumatc[distributed]"`.'
    ) from error

__all__ = ["Streamed", "certify", "evaluate", "evaluate_rows", "exact", "fit_many", "measure", "read", "verify"]

# Bytes of a chunk by default, its parameters included: a file that disks like, and a worker holds a few times.
_CHUNK_BYTES = 2**25
# Parameters at which matrices are compared to tell families apart.
_PROBES = 16
# Problems that are fitted at once.
_BATCH = 16

# What a caller names as workers, and as the place of values.
Workers = object
Sink = object


@dataclass(frozen=True)
class Streamed:
    """What a call over many parameters has done.

    Attributes:
        names: Of the arrays of each chunk, in order.
        shape: Of the parameters: (N,), or (N_1, ..., N_d) for a grid, which a store has flat.
        chunk: Parameters in each chunk.
        checksums: One for each chunk, shape (chunks,), uint64: CRC-32 of the bytes of its arrays, plus 2**32.
        found: Chunks that were there before.
        bytes: Of the values that this call computed.
        seconds: Of this call.
        results: What the caller's function returned for each chunk, in order; else empty.
        store: Where the values are, or None.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    chunk: int
    checksums: np.ndarray = field(repr=False)
    found: int
    bytes: int
    seconds: float
    results: list[object] = field(repr=False)
    store: object = None

    @property
    def checksum(self) -> str:
        """One for all values, in hexadecimal digits."""
        return f"{stores.checksum([self.checksums.astype('<u8')]):x}"


@dataclass(frozen=True)
class _Job:
    """What is computed for each chunk: from parameters (B, d), and the number of the first, to arrays."""

    name = ""

    @property
    def fields(self) -> list[Field]:
        raise NotImplementedError

    @property
    def identity(self) -> dict[str, object]:
        raise NotImplementedError

    def __call__(self, p: np.ndarray, start: int) -> list[np.ndarray]:
        raise NotImplementedError


@dataclass(frozen=True)
class _Evaluate(_Job):
    surrogate: Surrogate
    orthonormal: bool
    name = "evaluate"

    @property
    def fields(self) -> list[Field]:
        own = self.surrogate
        return _fields(own.operation.factors(*own.shape), own.dtypes)

    @property
    def identity(self) -> dict[str, object]:
        return {"surrogate": _digest(self.surrogate), "orthonormal": self.orthonormal}

    def __call__(self, p: np.ndarray, start: int) -> list[np.ndarray]:
        return _arrays(self.surrogate(p, orthonormal=self.orthonormal))


@dataclass(frozen=True)
class _Rows(_Job):
    """Some rows of the value of a surrogate: a map with these rows of the latent tensor."""

    map: FactorMap
    box: Box
    whole: str
    first: int
    name = "rows"

    @property
    def fields(self) -> list[Field]:
        return [Field(self.map.name, self.map.shape, str(self.map.core.dtype).removeprefix("torch."))]

    @property
    def identity(self) -> dict[str, object]:
        return {"surrogate": self.whole, "rows": [self.first, self.first + self.map.shape[0]]}

    def __call__(self, p: np.ndarray, start: int) -> list[np.ndarray]:
        with torch.no_grad():
            return [self.map(self.box.cube(self.box.points(p, offered=False))).numpy()]


@dataclass(frozen=True)
class _Exact(_Job):
    problem: Problem
    name = "exact"

    @property
    def fields(self) -> list[Field]:
        own = self.problem
        return [*_fields(own.factors, [x.dtype(own.family.dtype) for x in own.factors]), Field("failed", (), "bool")]

    @property
    def identity(self) -> dict[str, object]:
        return {"problem": _probed(self.problem)}

    def __call__(self, p: np.ndarray, start: int) -> list[np.ndarray]:
        value, failed = self.problem.exact(p)
        return [*_arrays(value), failed]


@dataclass(frozen=True)
class _Certify(_Job):
    surrogate: Surrogate
    problem: Problem
    rtol: float
    name = "certify"

    @property
    def fields(self) -> list[Field]:
        kinds = {"residual": "float64", "bound": "float64", "accepted": "bool", "failed": "bool"}
        return [*_Evaluate(self.surrogate, False).fields, *(Field(name, (), kind) for name, kind in kinds.items())]

    @property
    def identity(self) -> dict[str, object]:
        return {"surrogate": _digest(self.surrogate), "problem": _probed(self.problem), "rtol": self.rtol}

    def __call__(self, p: np.ndarray, start: int) -> list[np.ndarray]:
        own = certified(self.surrogate, self.problem, p, rtol=self.rtol)
        return [*_arrays(own.value), own.residual, own.bound, own.accepted, own.failed]


@dataclass(frozen=True)
class _Measure(_Job):
    problem: Problem
    source: Place
    names: tuple[str, ...]
    sums: str
    bounds: bool
    name = "measure"

    @property
    def fields(self) -> list[Field]:
        kind = torch.float64 if self.bounds else checks.real_dtype(self.problem.family.dtype)
        return [Field(name, (), str(kind).removeprefix("torch.")) for name in ("residual", "bound")[: 1 + self.bounds]]

    @property
    def identity(self) -> dict[str, object]:
        return {"problem": _probed(self.problem), "values": self.sums}

    def __call__(self, p: np.ndarray, start: int) -> list[np.ndarray]:
        group = self.source.group("r")
        values = [np.asarray(group[name][start : start + len(p)]) for name in self.names]
        return list(bounded(self.problem, p, values)) if self.bounds else [self.problem.residual(p, values)]


def evaluate(
    surrogate: Surrogate,
    p: ArrayLike | Tensor | Sequence,
    store: Sink = None,
    *,
    client: Workers = None,
    chunk: int | None = None,
    values: bool = True,
    orthonormal: bool = False,
    progress: bool = True,
    timeout: float = 30.0,
) -> Streamed:
    """Evaluate a surrogate at many parameters.

    Args:
        surrogate: What to evaluate.
        p: An array or a tensor of shape (N, d), for d = 1 also (N,); a list of d axes, each an array (N_i,) or a recipe
            ``(start, stop, count)``, for all their pairs, the last axis running fastest; for d = 1 also a recipe alone.
            A recipe has ``count`` values, ends included, evenly on the scale of the axis. Grids and recipes are never
            in memory as a whole, nor is a memory map.
        store: A path, an address, or a store of Zarr's, which every worker sees: a group with an array (N, ...) for
            each factor, complex ones complex, without compression; `read` opens it. None: checksums alone. A function:
            it is called on the workers with the parameters (B, d) of each chunk and its arrays, and what it returns, a
            few numbers, comes back in ``results``; both of these cannot be taken up again.
        client: The address of a scheduler, a `distributed.Client`, or a cluster of Dask. Default: processes of one
            thread, one for each core of this machine, for this call.
        chunk: Parameters in each chunk, which a worker holds some times at once. Default: 32 MiB of values.
        values: False: the store gets checksums alone, from which the same call goes on.
        orthonormal: As for the surrogate's call.
        progress: Show a bar on the standard error stream once it has taken two seconds.
        timeout: Seconds after which a scheduler that does not answer, or has no workers, is given up.

    Returns:
        Checksums and what was done. Where the store has all chunks, nothing is computed and nobody asked.

    Raises:
        ValueError: For parameters outside of the box; for a store of something else, of another shape or version, or of
            another call, or whose metadata are broken or gone; and as a call of the surrogate does.
        TypeError: For arguments of another type.
        ConnectionError: (an OSError) If the scheduler cannot be reached, is lost, or has no workers. What is written
            in a store stays, and the same call goes on from there, also with other workers; without a store it begins
            anew.
        OSError: If the store cannot be written, or has no room.
        RuntimeError: If a chunk ends every worker that takes it, for lack of memory say.

    Example:
        >>> import neumatc as nm, neumatc.distributed
        >>> problem = nm.Problem(nm.families.trigonometric(size=4, shift=3), nm.Inverse())
        >>> surrogate = nm.fit(problem, tol=1e-3)
        >>> p = (0.0, 1.0, 10**8)                                                        # never held as a whole
        >>> nm.distributed.evaluate(surrogate, p, "values.zarr").checksum                # doctest: +SKIP
    """
    checks.instance("surrogate", surrogate, Surrogate, "an nm.Surrogate")
    job = _Evaluate(surrogate, checks.flag("orthonormal", orthonormal))
    return _streamed(job, points(p, surrogate.box), store, client, chunk, values, progress, timeout)


def evaluate_rows(
    surrogate: Surrogate,
    p: ArrayLike | Tensor | Sequence,
    store: Sink = None,
    *,
    parts: int | None = None,
    client: Workers = None,
    chunk: int | None = None,
    progress: bool = True,
    timeout: float = 30.0,
) -> list[Streamed]:
    """Evaluate a surrogate whose latent tensor is split by rows of the value, so that no worker holds all of it.

    Every part has a worker, where there are as many, which takes all of its chunks: it holds these rows of the latent
    tensor twice, packed and unpacked, beside the values of a few chunks. Where that worker dies, another one takes the
    part over. This process has the whole tensor, and the scheduler keeps each part packed.

    Args:
        surrogate: What to evaluate. Of one factor, which its map gives as it is: an inverse, say, or solutions.
        p, client, chunk, progress, timeout: As for `evaluate`; the chunk is by default of 32 MiB of rows.
        store: As for `evaluate`; a path gets a store for each part below it, ``rows-0`` with the first rows and so on,
            which `read` opens, one by one. A function gets the parameters and the rows.
        parts: How many, of as many rows as possible. Default: one for each worker.

    Returns:
        For each part in order what `evaluate` returns; all of them have the time of the call.

    Raises:
        ValueError: If the value has another form, or fewer rows than parts; and as `evaluate` does.
        TypeError, OSError, RuntimeError: As `evaluate` does.
    """
    begin = time.perf_counter()
    checks.instance("surrogate", surrogate, Surrogate, "an nm.Surrogate")
    expected, remedy = "one whose map gives its one factor as it is, a matrix or a vector", "take `evaluate`"
    plain = len(surrogate.maps) == 1 and not surrogate.operation.finishes and surrogate.turns is None
    checks.require(plain and surrogate.maps[0].shape, "surrogate", expected, f"one of {surrogate.operation}", remedy)
    asked, timeout, progress = points(p, surrogate.box), _seconds(timeout), checks.flag("progress", progress)
    good = store is None or callable(store) or isinstance(store, (str, os.PathLike))
    checks.require(good, "store", "a path, or a function", checks.describe(store), "give one", TypeError)
    (map,), digest = surrogate.maps, _digest(surrogate)
    with connected(client, timeout, progress) as workers:
        addresses = sorted(workers.nthreads())
        parts = checks.integer("parts", len(addresses) if parts is None else parts, 1)
        rows = map.shape[0]
        checks.require(parts <= rows, "parts", f"at most {rows}, one for each row", parts, "take fewer")
        ends = [rows * k // parts for k in range(parts + 1)]
        streams = []
        for low, high in itertools.pairwise(ends):
            job = _Rows(map.with_(core=map.core[:, low:high]), surrogate.box, digest, low)
            place = store if store is None or callable(store) else os.path.join(store, f"rows-{low}")
            streams.append(_Stream(job, asked, place, chunk, True))
        _driven("rows", streams, workers, progress, timeout, addresses)
    return [stream.done(begin) for stream in streams]


def exact(
    problem: Problem,
    p: ArrayLike | Tensor | Sequence,
    store: Sink = None,
    *,
    client: Workers = None,
    chunk: int | None = None,
    progress: bool = True,
    timeout: float = 30.0,
) -> Streamed:
    """Solve exactly at many parameters: snapshots.

    Args:
        problem: What to solve; its family's function goes to the workers by value.
        p, store, client, chunk, progress, timeout: As for `evaluate`.

    Returns:
        As `evaluate`. The arrays are the factors, NaN where there is no solution, and ``failed`` (N,).

    Raises:
        FamilyError: (a ValueError) As `Problem.exact` does, for a chunk.
        ValueError, TypeError, OSError, RuntimeError: As `evaluate` does. A store knows a problem by its operation, its
            box and A at a few parameters.
    """
    checks.instance("problem", problem, Problem, "an nm.Problem")
    return _streamed(_Exact(problem), points(p, problem.family.box), store, client, chunk, True, progress, timeout)


def certify(
    surrogate: Surrogate,
    problem: Problem,
    p: ArrayLike | Tensor | Sequence,
    store: Sink = None,
    *,
    rtol: float = 1e-2,
    client: Workers = None,
    chunk: int | None = None,
    progress: bool = True,
    timeout: float = 30.0,
) -> Streamed:
    """Evaluate at many parameters as `neumatc.certify` does: with residuals and bounds, exact where they are too large.

    `measure` has the bounds of values that lie in a store already.

    Args:
        surrogate, problem, rtol: As for `neumatc.certify`.
        p, store, client, chunk, progress, timeout: As for `evaluate`.

    Returns:
        As `evaluate`. The arrays are the factors, and ``residual``, ``bound``, ``accepted`` and ``failed``, each (N,).
        Whether ``bound`` is proved, the operation says: ``problem.operation.certainty``.

    Raises:
        ValueError, TypeError, OSError, RuntimeError: As `neumatc.certify` and `evaluate` do.
    """
    checks.instance("surrogate", surrogate, Surrogate, "an nm.Surrogate")
    checks.instance("problem", problem, Problem, "an nm.Problem")
    job, asked = _Certify(surrogate, problem, checks.number("rtol", rtol, above=0)), points(p, surrogate.box)
    certified(surrogate, problem, surrogate.box.uniform(1, torch.Generator().manual_seed(0)), rtol=rtol)  # they suit
    return _streamed(job, asked, store, client, chunk, True, progress, timeout)


def measure(
    values: object,
    problem: Problem,
    p: ArrayLike | Tensor | Sequence,
    store: Sink = None,
    *,
    bounds: bool = False,
    client: Workers = None,
    progress: bool = True,
    timeout: float = 30.0,
) -> Streamed:
    """Measure the residual of all values of a store, as they were written; nothing is evaluated or solved.

    Args:
        values: A whole store of `evaluate`, `exact` or `certify`.
        problem: What they stand for.
        p: The parameters that they were computed at, as they were given.
        store: As for `evaluate`, of its own: an array ``residual`` (N,), as `Problem.residual` defines it. A function
            gets the parameters and the residuals of each chunk.
        bounds: Certify the values as they are: residual and ``bound`` (N,) are those of `neumatc.certify`, in double
            precision, Inf where nothing is known. Nothing is replaced. Whether the bound is proved, the operation says:
            ``problem.operation.certainty``.
        client, progress, timeout: As for `evaluate`; the chunks are those of the values.

    Raises:
        ValueError: If values are missing, or are of other parameters or another shape; and as `evaluate` does.
        TypeError, OSError, RuntimeError: As `evaluate` does.
    """
    checks.instance("problem", problem, Problem, "an nm.Problem")
    place, asked = Place.of(values), points(p, problem.family.box)
    group = _whole(place)
    own, names = stores.described(group, place), tuple(factor.name for factor in problem.factors)
    expected = [[x.name, list(x.shape), x.dtype] for x in _Exact(problem).fields[:-1]]
    there = own["arrays"][: len(names)]
    checks.require(there == expected, "values", f"a store with {expected}", there, "give that of the problem")
    same_p, remedy = own["parameters"] == asked.digest, "give those that it was made with"
    checks.require(same_p, "p", f"the parameters of {place}", "others", remedy)
    sums = f"{stores.checksum([stores.sums_of(group, place)]):x}"
    job = _Measure(problem, place, names, sums, checks.flag("bounds", bounds))
    return _streamed(job, asked, store, client, own["chunk"], True, progress, timeout)


def read(store: object, *, partial: bool = False) -> dict[str, zarr.Array]:
    """Open the arrays of a store to read them, by name; slices of them are arrays.

    Args:
        store: As for `evaluate`.
        partial: Also of one that is not whole: what is not there reads as NaN, or False.

    Raises:
        ValueError: If it is another group, or of a newer version, or not whole.
        OSError: If there is nothing, or it cannot be read.
    """
    place = Place.of(store)
    group = place.group("r") if checks.flag("partial", partial) else _whole(place)
    return {name: group[name] for name, _, _ in stores.described(group, place)["arrays"]}


def verify(store: object, *, client: Workers = None, progress: bool = True, timeout: float = 30.0) -> list[int]:
    """Read a store and compare the checksums of its chunks, of those that are there.

    Args:
        store: As for `evaluate`; with values.
        client, progress, timeout: As for `evaluate`.

    Returns:
        Numbers of the chunks that differ. They count as missing from then on: the call that made them makes them anew.

    Raises:
        ValueError: If it is another group, or of a newer version.
        ConnectionError, OSError: As `evaluate` does.
    """
    place = Place.of(store)
    own = stores.described(place.group("r+"), place)
    fields = [Field(name, tuple(shape), dtype) for name, shape, dtype in own["arrays"]]
    rest = {key: own[key] for key in own if key not in ("format", "version", "count", "chunk", "arrays")}
    kept, wrong, sizes = Store(place, fields, rest, own["count"], own["chunk"]), [], (own["count"], own["chunk"])
    names = tuple(entry.name for entry in fields)

    def send(i: int) -> tuple:
        return _reread, place, names, *_span(i, *sizes)

    def take(i: int, found: int) -> None:
        bar.update()
        if found != int(kept.sums[i]):
            wrong.append(i)
            kept.note(i, 0)

    timeout = _seconds(timeout)
    with connected(client, timeout, progress) as workers, _bar("verify", len(kept.sums), 0, progress) as bar:
        drive(workers, "verify", np.flatnonzero(kept.sums).tolist(), send, take, kept.flush, timeout)
    return sorted(wrong)


def fit_many(
    problems: Sequence[Problem],
    *,
    batch: int = _BATCH,
    client: Workers = None,
    progress: bool = True,
    timeout: float = 30.0,
    **settings: object,
) -> list[Surrogate]:
    """Fit many problems as `neumatc.fit_many` does, in batches that workers take.

    Args:
        problems: As for `neumatc.fit_many`; their families' functions go to the workers by value.
        batch: Problems that are fitted at once, whatever the number of workers: what comes out does not depend on it.
        client, progress, timeout: As for `evaluate`.
        settings: ``tol`` and all else that `neumatc.fit_many` takes, for each batch.

    Returns:
        One surrogate for each problem, in order. Warnings of the fits come as if they were made here.

    Raises:
        FamilyError: (a ValueError) If families fail; its ``surrogates`` are those of the others, None in their places.
        ValueError, TypeError: As `neumatc.fit_many` does.
        ConnectionError, RuntimeError: As `evaluate` does. Whatever ends the call, KeyboardInterrupt included, has the
            fits that ended in its ``surrogates``, None in the places of the others: these can be given again.
    """
    problems, batch = list(problems), checks.integer("batch", batch, 1)
    checks.require(problems, "problems", "at least one problem", "none", "give a list of them")
    for problem in problems:
        checks.instance("problem", problem, Problem, "an nm.Problem(family, operation)")
    parts = [problems[i : i + batch] for i in range(0, len(problems), batch)]
    found: list[tuple] = [([None] * len(part), None, ()) for part in parts]

    def send(i: int) -> tuple:
        return _fitted, Parcel.of((parts[i], settings))

    def take(i: int, result: Parcel) -> None:
        found[i] = result.opened()
        bar.update(len(parts[i]))

    timeout = _seconds(timeout)
    try:
        with connected(client, timeout, progress) as workers, _bar("fit", len(problems), 0, progress) as bar:
            drive(workers, "fit", range(len(parts)), send, take, lambda: None, timeout)
        for text in (text for _, _, told in found for text in told):
            warnings.warn(text, FitWarning, stacklevel=2)
        errors = [f"batch {i}: {error}" for i, (_, error, _) in enumerate(found) if error]
        if errors:
            raise FamilyError(checks.cut(f"`problems`: expected families that can be fitted, got {errors[0]}", 275))
    except BaseException as error:  # Ctrl-C too
        error.surrogates = [one for own, _, _ in found for one in own]
        raise
    return [one for own, _, _ in found for one in own]


@dataclass(frozen=True)
class _Task:
    """What a worker does for each chunk.

    Attributes:
        job: What is computed.
        grid: The parameters, unless they come with the task.
        place: Where the values go, if anywhere.
        function: The caller's, or None.
    """

    job: _Job
    grid: Grid | None
    place: Place | None
    function: Callable | None

    @cached_property
    def group(self) -> zarr.Group:
        return self.place.group("r+")

    def run(self, part: Listed | None, start: int, stop: int) -> tuple[int, object]:
        """Compute a chunk, write it, and return its checksum and the result of the function."""
        p, fields = (part or self.grid).rows(start, stop), self.job.fields
        with one_core():
            values = [np.ascontiguousarray(x) for x in self.job(p, start)]
        for value, own in zip(values, fields, strict=True):  # Zarr would convert it
            got, expected = (str(value.dtype), value.shape), (own.dtype, (len(p), *own.shape))
            checks.require(got == expected, own.name, f"values of {expected}", got, "mend the operation")
        if self.place is not None:
            try:
                stores.write(self.group, start, [own.name for own in fields], values)
            except OSError as error:
                raise self.place.refused(error, "write") from error
        return stores.checksum(values), None if self.function is None else self.function(p, *values)


class _Stream:
    """A job over all chunks of its parameters: those that are missing, how each is sent, and what has come.

    Args:
        job, asked, store, chunk, values: As `_streamed` takes them.

    Attributes:
        todo: Numbers of the chunks that are missing.
    """

    def __init__(self, job: _Job, asked: Listed | Grid, store: Sink, chunk: int | None, values: bool):
        self.job, self.asked, self.store, fields = job, asked, store, job.fields
        self.count, values = math.prod(asked.shape), checks.flag("values", values)
        self.size = sum(own.bytes for own in fields)
        default = _CHUNK_BYTES // max(self.size, 8 * len(asked.shape), 1)
        self.chunk = min(self.count, max(1, default) if chunk is None else checks.integer("chunk", chunk, 1))
        self.function, self.kept = store if callable(store) else None, None
        if store is not None and self.function is None:
            identity = {"job": job.name, "parameters": asked.digest, **job.identity}
            self.kept = Store(Place.of(store), fields if values else [], identity, self.count, self.chunk)
        self.sums = np.zeros(-(-self.count // self.chunk), np.uint64) if self.kept is None else self.kept.sums
        self.todo, self.results = np.flatnonzero(self.sums == 0).tolist(), [None] * len(self.sums)
        self.missing = sum(stop - start for start, stop in map(self.span, self.todo))
        self.place = self.kept.place if self.kept and values else None

    def span(self, i: int) -> tuple[int, int]:
        """Return the first parameter of a chunk and the first after it."""
        return _span(i, self.count, self.chunk)

    def parcel(self) -> Parcel:
        """Return what a worker needs for all chunks."""
        grid = self.asked if isinstance(self.asked, Grid) else None
        return Parcel.of(_Task(self.job, grid, self.place, self.function))

    def sent(self, root: object, i: int) -> tuple:
        """Return the task of a chunk: a function and its arguments, the first of them the parcel."""
        return _run, root, self.asked.part(*self.span(i)), *self.span(i)

    def take(self, i: int, result: tuple[int, object]) -> int:
        """Keep what a task has returned, and return the number of its parameters."""
        self.sums[i], self.results[i] = result
        if self.kept:
            self.kept.note(i, result[0])
        start, stop = self.span(i)
        return stop - start

    def note(self) -> None:
        """Write the checksums that have come."""
        if self.kept:
            self.kept.flush()

    def done(self, begin: float) -> Streamed:
        """Return what was done since a time of `time.perf_counter`."""
        if self.kept and self.todo:
            self.kept.sweep()
        names, found = tuple(own.name for own in self.job.fields), len(self.sums) - len(self.todo)
        given, place = (self.results, None) if self.function else ([], self.store)
        seconds, size = time.perf_counter() - begin, self.size * self.missing
        return Streamed(names, self.asked.shape, self.chunk, self.sums, found, size, seconds, given, place)


def _streamed(
    job: _Job,
    asked: Listed | Grid,
    store: Sink,
    client: Workers,
    chunk: int | None,
    values: bool,
    progress: bool,
    timeout: float,
) -> Streamed:
    """Do a job chunk by chunk; see `evaluate`."""
    begin, timeout, progress = time.perf_counter(), _seconds(timeout), checks.flag("progress", progress)
    stream = _Stream(job, asked, store, chunk, values)
    if stream.todo:
        with connected(client, timeout, progress) as workers:
            _driven(job.name, [stream], workers, progress, timeout)
    return stream.done(begin)


def _driven(
    name: str,
    streams: Sequence[_Stream],
    workers: Client,
    progress: bool,
    timeout: float,
    addresses: Sequence[str] = (),
) -> None:
    """Do what is missing of all streams, in turn; with addresses each at one of them, as long as that is there."""
    parts, total = len(streams), sum(own.count for own in streams)
    homes = [addresses[k % len(addresses)] if addresses else None for k in range(parts)]
    todo = sorted(i * parts + k for k, own in enumerate(streams) for i in own.todo)
    roots = [delivered(workers, own.parcel(), at) if own.todo else None for own, at in zip(streams, homes)]

    def send(j: int) -> tuple:
        return streams[j % parts].sent(roots[j % parts], j // parts)

    def take(j: int, result: tuple[int, object]) -> None:
        bar.update(streams[j % parts].take(j // parts, result))

    def note() -> None:
        for own in streams:
            own.note()

    with _bar(name, total, total - sum(own.missing for own in streams), progress) as bar:
        drive(workers, name, todo, send, take, note, timeout, lambda j: homes[j % parts])


def _run(parcel: Parcel, *arguments: object) -> tuple[int, object]:
    return parcel.opened().run(*arguments)


def _reread(place: Place, names: tuple[str, ...], start: int, stop: int) -> int:
    """Return the checksum of what a store has for a chunk; 0 where it cannot be read."""
    group = place.group("r")
    try:
        return stores.checksum([np.asarray(group[name][start:stop]) for name in names])
    except (OSError, ValueError, RuntimeError):  # a file of another length
        return 0


def _fitted(parcel: Parcel) -> Parcel:
    """Fit a batch: surrogates, what went wrong, and what was warned of."""
    problems, settings = parcel.opened()
    error = None
    with one_core(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            surrogates = fitting.fit_many(problems, progress=False, **settings)
        except FamilyError as failure:
            surrogates, error = list(failure.surrogates) or [None] * len(problems), str(failure)
    return Parcel.of((surrogates, error, [str(own.message) for own in caught if own.category is FitWarning]))


def _fields(factors: Sequence, dtypes: Sequence[torch.dtype]) -> list[Field]:
    return [Field(f.name, tuple(f.shape), str(d).removeprefix("torch.")) for f, d in zip(factors, dtypes)]


def _arrays(value: object) -> list[np.ndarray]:
    return list(value) if isinstance(value, tuple) else [value]


def _digest(surrogate: Surrogate) -> str:
    """Return a checksum of what decides the values of a surrogate: not of its report, which has times."""
    embeddings = [[type(m.embedding).__name__, m.embedding.settings()] for m in surrogate.maps]
    header = {"maps": embeddings, "box": surrogate.box.settings(), "operation": _named(surrogate.operation)}
    tensors = {name: x.detach().cpu().contiguous() for name, x in surrogate.named_buffers()}
    return storage.digest(tensors, header)


def _probed(problem: Problem) -> str:
    """Return a checksum of an operation, a box, and matrices at some parameters: functions have none."""
    box, ones = problem.family.box, torch.ones(problem.family.dimension, dtype=torch.float64)
    A, good = problem.family.evaluate(box.parameters(sampling.sobol(_PROBES, -ones, ones)))
    tensors = {"A": A, "good": good, "lower": box.lower, "upper": box.upper}
    header = {"box": box.settings(), "operation": _named(problem.operation)}
    return storage.digest({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, header)


def _named(operation: object) -> list:
    return [type(operation).__name__, operation.settings()]


def _whole(place: Place) -> zarr.Group:
    """Return the group of a store; ValueError where chunks are missing."""
    group = place.group("r")
    own = stores.described(group, place)
    left = int((stores.sums_of(group, place) == 0).sum())
    checks.require(own["arrays"], "store", "a store with values", f"{place}, which has checksums alone", "give another")
    remedy = "call what makes it again, or pass partial=True to `read`"
    checks.require(not left, "store", "a store that is whole", f"{place}, where {left} chunks are missing", remedy)
    return group


def _span(i: int, count: int, chunk: int) -> tuple[int, int]:
    """Return the first parameter of a chunk and the first after it."""
    return i * chunk, min(count, (i + 1) * chunk)


def _seconds(timeout: float) -> float:
    return checks.number("timeout", timeout, above=0)


def _bar(name: str, total: int, done: int, progress: bool) -> tqdm:
    hidden = not checks.flag("progress", progress)
    return tqdm(total=total, initial=done, disable=hidden, delay=2, unit_scale=True, unit="", desc=name)
