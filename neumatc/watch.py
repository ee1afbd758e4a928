"""What ends a fit before it is done: its time, Ctrl-C, a lack of memory, a family that fails."""

from __future__ import annotations

import contextlib
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch

from neumatc.families import FamilyError
from neumatc.report import StopReason

try:
    import resource
except ImportError:  # Windows tells nothing
    resource = None


class TimeLimitError(RuntimeError):
    """The time limit of a fit is over."""


# What may end a fit; of RuntimeErrors it is those alone by which torch says that memory ran out.
ENDINGS = (FamilyError, KeyboardInterrupt, MemoryError, RuntimeError)
# Files with the most bytes of a group, by the controller that /proc/self/cgroup names: version 2 names none.
_LIMITS = {"": "sys/fs/cgroup/{}/memory.max", "memory": "sys/fs/cgroup/memory/{}/memory.limit_in_bytes"}
_REASONS = {
    TimeLimitError: StopReason.TIME,
    KeyboardInterrupt: StopReason.INTERRUPTED,
    (MemoryError, torch.OutOfMemoryError): StopReason.MEMORY,
    FamilyError: StopReason.FAMILY,
}
_WORDS = "allocate memory", "out of memory"
# Reasons of the user and of the machine: they end all that is fitted with it too.
STOPPED = (StopReason.TIME, StopReason.INTERRUPTED, StopReason.MEMORY)
# Why the tolerance is not met in a piece that was still being refined.
UNFINISHED = "not finished when the fit ended"

T = TypeVar("T")


class Watch:
    """Ends a fit, or several at once.

    Args:
        seconds: From now on, or None.
    """

    def __init__(self, seconds: float | None = None):
        self.deadline = math.inf if seconds is None else time.monotonic() + seconds
        self.error: BaseException | None = None  # by which it was ended

    def check(self, begun: bool) -> None:
        """Raise where the fit was ended, or where its time is up and there is something to return."""
        if self.error is not None:
            raise self.error
        if begun and time.monotonic() > self.deadline:
            raise TimeLimitError

    def attempt(self, run: Callable[[], T]) -> T | BaseException:
        """Return what a function returns, or what has ended it."""
        try:
            self.check(False)
            return run()
        except ENDINGS as error:
            self.reason(error)
            return error

    def reason(self, error: BaseException) -> StopReason:
        """Return why an error ends a fit that keeps what it has; raise any other."""
        why = next((why for kind, why in _REASONS.items() if isinstance(error, kind)), None)
        if why is not StopReason.INTERRUPTED and any(words in str(error) for words in _WORDS):
            why = StopReason.MEMORY
        if why is None:
            raise error
        if why in (StopReason.INTERRUPTED, StopReason.MEMORY):
            self.error = error
        if why is StopReason.MEMORY:
            traceback.clear_frames(error.__traceback__)  # which hold what filled it
        return why


def memory(device: torch.device, root: Path = Path("/")) -> int:
    """Return the bytes that a process can have on a device at most, in its container; of Windows that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if resource is None:
        return 2**62
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *([] if limit == resource.RLIM_INFINITY else [limit]), *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    """Yield the limits that Linux sets the control groups of this process, of containers and batch systems too."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controller, group = line.split(":", 2)
            if controller in _LIMITS:
                # In a container the group's own folder may be the top one.
                for place in (Path(group), *Path(group).parents):
                    with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
                        yield int((root / _LIMITS[controller].format(str(place).lstrip("/"))).read_text())
