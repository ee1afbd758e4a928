"""Threads that do not wait for each other.

torch splits every operation over its threads, and they spin until the last is done: where another process has a core,
all wait for it. Here each thread takes whole parts of a batch and computes alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

# Multiplications from which threads pay, and parts that each takes: one that lost its core takes fewer.
_LEAST, _PARTS = 2**22, 4
# Numbers of a product that are computed before they are moved: they are still in the cache then.
CACHED = 2**17

_given = threading.local()


def count() -> int:
    """Return torch's number of threads as the caller has set it, `alone` or not."""
    return getattr(_given, "count", None) or torch.get_num_threads()


@contextmanager
def alone() -> Iterator[None]:
    """Let torch's operations in this thread run on one core; afterwards the setting is as it was."""
    before, outer = torch.get_num_threads(), getattr(_given, "count", None)
    _given.count = outer or before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _given.count = outer


def each(function: Callable[[object], object], parts: Sequence[object]) -> list[object]:
    """Call a function with every part, in at most `count` threads that take one after the other.

    Args:
        function: Called with gradients off, under the caller's inference mode, and alone on its core.
        parts: Its arguments.

    Returns:
        The results, in order.
    """
    inference = torch.is_inference_mode_enabled()

    def work(part: object) -> object:
        with torch.inference_mode(inference), torch.no_grad():
            return function(part)

    # The numbers of threads of BLAS are those of the process, so they are set once, here, and not by each thread.
    many = min(count(), len(parts))
    with alone():
        return list(map(work, parts)) if many < 2 else list(_pool(count()).map(work, parts))


# A product of which the rows go to places, a, b, out and rows: out[rows] = a @ b; or all of out, where rows is None.
Product = tuple[Tensor, Tensor, Tensor, Tensor | None]


def products(jobs: Sequence[Product]) -> None:
    """Compute products; on a CPU in parts of rows, in threads where that pays."""
    work = sum(a.numel() * b.shape[1] for a, b, _, _ in jobs)
    if not work or jobs[0][0].device.type != "cpu" or count() == 1 or work < _LEAST:
        return _compute(jobs)
    size = -(-sum(len(a) for a, _, _, _ in jobs) // (_PARTS * count()))
    parts, left = [[]], size
    for a, b, out, rows in jobs:
        start = 0
        while start < len(a):
            part = slice(start, start := min(len(a), start + left))
            own = (out[part], None) if rows is None else (out, rows[part])
            parts[-1].append((a[part], b, *own))
            left -= part.stop - part.start
            if not left:
                parts, left = [*parts, []], size
    each(_compute, parts)


def _compute(jobs: Sequence[Product]) -> None:
    for a, b, out, rows in jobs:
        if rows is None:
            torch.mm(a, b, out=out)
            continue
        size = max(1, CACHED // b.shape[1])
        for part, where in zip(a.split(size), rows.split(size)):
            out.index_copy_(0, where, part @ b)


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    """Keep threads for the next time: their start costs more than a small evaluation."""
    return ThreadPoolExecutor(size, "neumatc", initializer=_enter)


def _enter() -> None:
    """Prepare a thread of the pool: it computes alone, and what it calls must not wait for the pool."""
    torch.set_num_threads(1)
    _given.count = 1


# A child process inherits the pool, but not its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)
