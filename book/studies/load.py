"""What else a machine computes while something is measured on it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Share of the cores' time that others may take. Two threads that miss a tenth of their time are up to a tenth slower
# than one, and tables show two digits.
HIGHEST = 0.1
# Seconds that a look takes at least: kernels count in ticks of 10 ms, so that a shorter one sees mere rounding.
SHORTEST = 0.2


@dataclass(frozen=True)
class Load:
    """What other processes did in a span of time.

    Attributes:
        before: Mean number of runnable processes in the minute before the span, this one included; None if unknown.
        others: Share of the time of all cores that other processes took during the span, 0 to 1; None if unknown.
    """

    before: float | None
    others: float | None

    @property
    def high(self) -> bool:
        """Whether others took more than ``HIGHEST``; False where that is unknown."""
        return self.others is not None and self.others > HIGHEST


class Watch:
    """Watches the machine from its creation on.

    Args:
        more: Returns the seconds that processes have computed which belong to this one, and live all the while.
    """

    def __init__(self, more: Callable[[], float] = lambda: 0.0) -> None:
        self._before, self._more = _average(), more
        self._start, self._ticks = time.monotonic(), _ticks(more)

    def load(self, *, wait: bool = True) -> Load:
        """Return the load since the creation.

        Args:
            wait: Whether to wait until ``SHORTEST`` has passed; else nothing is known of others before that.
        """
        rest = SHORTEST - (time.monotonic() - self._start)
        if self._ticks is None or (rest > 0 and not wait):
            return Load(self._before, None)
        time.sleep(max(0.0, rest))
        span = (time.monotonic() - self._start) * (os.cpu_count() or 1)
        return Load(self._before, share(self._ticks, _ticks(self._more), span))


def wanted() -> bool:
    """Return whether times are to be taken; ``NEUMATC_TIMES=0`` says no, as on shared machines that test and build."""
    return os.environ.get("NEUMATC_TIMES") != "0"


def share(first: tuple[float, float], last: tuple[float, float], span: float) -> float:
    """Return the share of the cores' time that other processes took.

    Args:
        first, last: Seconds that all processes, and that this one alone, have computed at two moments.
        span: Seconds between them, times the number of cores.

    Returns:
        From 0 to 1. What rounding makes negative is 0.
    """
    everybody, own = (b - a for a, b in zip(first, last))
    return min(1.0, max(0.0, (everybody - own) / span))


def parse(text: str, per_second: int) -> float:
    """Return the seconds that all processes have computed, stolen time included, by the text of ``/proc/stat``.

    Args:
        text: The file.
        per_second: Ticks in a second.
    """
    # user nice system idle iowait irq softirq steal; guests are counted in user already.
    fields = [int(word) for word in text.split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - sum(fields[3:5])) / per_second


def processor() -> str:
    """Return the name of the processor."""
    try:
        if platform.system() == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        return named(Path("/proc/cpuinfo").read_text("utf-8"))
    except (OSError, KeyError, subprocess.SubprocessError):  # ARM kernels list no model name
        return platform.processor() or platform.machine()


def named(text: str) -> str:
    """Return the name of the first processor in the text of a /proc/cpuinfo, with family and model.

    Virtual machines name only the make: of two processors ten years apart, both are an AMD EPYC.

    Raises:
        KeyError: If it lists no name.

    Example:
        >>> named("cpu family : 26\\nmodel : 2\\nmodel name : AMD EPYC\\n")
        'AMD EPYC (family 26, model 2)'
    """
    fields = dict(re.findall(r"^(\w[\w ]*\w)\s*: *(.*?)\s*$", text, re.MULTILINE)[::-1])
    parts = [f"{word} {fields[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in fields]
    return fields["model name"] + (f" ({', '.join(parts)})" if parts else "")


def _average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):  # not a POSIX system
        return None


def _ticks(more: Callable[[], float]) -> tuple[float, float] | None:
    try:
        everybody = parse(Path("/proc/stat").read_text("utf-8"), os.sysconf("SC_CLK_TCK"))
    except (AttributeError, OSError, ValueError):  # not Linux
        return None
    return everybody, sum(os.times()[:4]) + more()
