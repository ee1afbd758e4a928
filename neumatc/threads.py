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


def products(jobs: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Write a @ b to out for each (a, b, out); on a CPU in parts of rows, in threads where that pays."""

    def compute(part: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        for a, b, out in part:
            torch.mm(a, b, out=out)

    on_cpu = bool(jobs) and jobs[0][0].device.type == "cpu"
    if not on_cpu or count() == 1 or sum(a.numel() * b.shape[1] for a, b, _ in jobs) < _LEAST:
        return compute(jobs)
    rows = -(-sum(len(a) for a, _, _ in jobs) // (_PARTS * count()))
    parts, left = [[]], rows
    for a, b, out in jobs:
        start = 0
        while start < len(a):
            end = min(len(a), start + left)
            parts[-1].append((a[start:end], b, out[start:end]))
            start, left = end, left - (end - start)
            if not left:
                parts, left = [*parts, []], rows
    each(compute, parts)


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
