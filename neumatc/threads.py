"""Threads that do not wait for each other.

torch splits every operation over its threads, and they spin until the last is done: where another process has a core,
all wait for it. Here each thread takes whole parts of a batch and computes alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from neumatc import checks

# Multiplications from which threads pay, and parts that each takes: one that lost its core takes fewer.
_LEAST, _PARTS = 2**22, 4
# Multiplications from which NumPy's BLAS may take threads of its own.
_SPLIT = 2**16
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


# A product of real a and b, out[rows] = a @ b with each place once; or all of out, where rows is None.
Product = tuple[Tensor, Tensor, Tensor, Tensor | None]


@contextmanager
def lowered(precision: str | None) -> Iterator[None]:
    """Let products that this thread asks for be of a lower precision, "tf32" or "bf16"; None leaves them."""
    before, _given.precision = getattr(_given, "precision", None), precision
    try:
        yield
    finally:
        _given.precision = before


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the product of matrices, or of batches of them, by torch, in the precision that `lowered` asks for."""
    multiply, precision = torch.bmm if a.ndim == 3 else torch.mm, getattr(_given, "precision", None)
    if precision == "bf16":
        a, b = a.bfloat16(), b.bfloat16()
        if a.is_cuda:
            return multiply(a, b, out_dtype=torch.float32, out=out)
        value = multiply(a, b)  # on a CPU torch rounds the result, too
        return value.float() if out is None else out.copy_(value)
    with checks.products("tf32") if precision else nullcontext():
        return multiply(a, b, out=out)


def products(jobs: Sequence[Product]) -> None:
    """Compute products; on a CPU in parts of rows, in threads where that pays.

    There NumPy's BLAS takes them: where ``a`` has few columns, it was two to four times as fast as torch's on an AMD
    processor of the family Zen 5, and as fast on one of Zen 1. Intel's were not at hand.
    """
    work = sum(a.numel() * b.shape[1] for a, b, _, _ in jobs)
    if jobs and (jobs[0][0].device.type != "cpu" or getattr(_given, "precision", None)):
        for a, b, out, rows in jobs:
            product(a, b, out) if rows is None else out.index_copy_(0, rows, product(a, b))
    elif work < _SPLIT:
        _compute(jobs)
    else:
        run(_compute, _parts(jobs) if _pays(work) else [jobs], work)


def run(function: Callable[[object], object], parts: Sequence[object], work: float) -> None:
    """Call a function that uses NumPy's BLAS with every part, in threads where so many multiplications pay."""
    with alone(), _one_thread:  # in this order: NumPy's BLAS may share its number of threads with torch
        each(function, parts) if _pays(work) else list(map(function, parts))


def _pays(work: float) -> bool:
    """Whether threads pay for so many multiplications."""
    return count() > 1 and work >= _LEAST


@np.errstate(all="ignore")
def multiply(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Compute real products, ``out = a @ b`` for b (..., n, M); within `run` on a CPU."""
    if out.is_cuda:
        torch.matmul(a, b, out=out)
    else:
        np.matmul(*(x.detach().numpy() for x in (a, b)), out=out.numpy())


def _parts(jobs: Sequence[Product]) -> list[list[Product]]:
    """Return jobs in parts of equally many rows, some for each thread."""
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
    return parts


# What a caller asks NumPy to raise is about his own numbers; numbers that are not finite come back as such.
@np.errstate(all="ignore")
def _compute(jobs: Sequence[Product]) -> None:
    for job in jobs:
        a, b, out, rows = (None if x is None else x.detach().numpy() for x in job)
        size = max(1, CACHED // max(1, b.shape[1]))
        done = None if rows is None else np.empty((min(size, len(a)), b.shape[1]), out.dtype)
        for start in range(0, len(a), size):
            part = a[start : start + size]
            if rows is None:
                np.matmul(part, b, out=out[start : start + size])
            else:
                out[rows[start : start + size]] = np.matmul(part, b, out=done[: len(part)])


class _OneThread:
    """NumPy's BLAS on one thread while anybody is inside: the setting is that of the process, the last restores it.

    What another thread sets meanwhile, by `threadpool_limits` say, is lost.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.limiter = threading.Lock(), 0, None
        # Of the libraries that are loaded by now: NumPy's is one, SciPy's may be.
        self.blas = ThreadpoolController().select(user_api="blas")

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.limiter = self.blas.limit(limits=1)
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.limiter.restore_original_limits()


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    """Keep threads for the next time: their start costs more than a small evaluation."""
    return ThreadPoolExecutor(size, "neumatc", initializer=_enter)


def _enter() -> None:
    """Prepare a thread of the pool: it computes alone, and what it calls must not wait for the pool."""
    torch.set_num_threads(1)
    _given.count = 1


_one_thread = _OneThread()


def _forked() -> None:
    """Start anew in a child process: it inherits the pool, but not its threads, and what these have set."""
    global _one_thread
    _pool.cache_clear()
    if _one_thread.inside:
        _one_thread.limiter.restore_original_limits()
    _one_thread = _OneThread()


# Nobody may be on the way in or out meanwhile. A child has a lock of its own, for its own children.
os.register_at_fork(
    before=lambda: _one_thread.lock.acquire(),
    after_in_parent=lambda: _one_thread.lock.release(),
    after_in_child=_forked,
)
