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
        with alone(), torch.inference_mode(inference), torch.no_grad():
            return function(part)

    if min(count(), len(parts)) < 2:
        return [work(part) for part in parts]
    return list(_pool(count()).map(work, parts))


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    """Keep threads for the next time: their start costs more than a small evaluation."""
    return ThreadPoolExecutor(size, "neumatc", initializer=_enter)


def _enter() -> None:
    """Mark a thread of the pool: what it calls must not wait for the pool."""
    _given.count = 1


# A child process inherits the pool, but not its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)
