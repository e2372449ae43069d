"""What else the machine did while something was measured."""

from __future__ import annotations

import os
from pathlib import Path

from ._system import read_text

__all__ = ["LoadMeter"]

_STAT = Path("/proc/stat")


def _processor_seconds() -> tuple[float, float]:
    """(all, idle) processor seconds since boot; waiting for a disk is idle."""
    text = read_text(_STAT, 4096)
    if text is not None and text.startswith("cpu "):
        ticks = os.sysconf("SC_CLK_TCK")
        times = [int(word) / ticks for word in text.splitlines()[0].split()[1:9]]
        return sum(times), times[3] + (times[4] if len(times) > 4 else 0.0)
    import psutil

    found = psutil.cpu_times()
    return sum(found[:8]), found.idle + getattr(found, "iowait", 0.0)


class LoadMeter:
    """Share of this machine's processors that others than this process and its children used."""

    def __init__(self) -> None:
        self._start = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """(all, idle, own) processor seconds since boot."""
        total, idle = _processor_seconds()
        own = os.times()
        return total, idle, own.user + own.system + own.children_user + own.children_system

    def others(self) -> float:
        """The share since this meter was made, 0 to 1."""
        now = self._read()
        total, idle, own = (now[i] - self._start[i] for i in range(3))
        return min(1.0, max(0.0, (total - idle - own) / total)) if total > 0 else 0.0
