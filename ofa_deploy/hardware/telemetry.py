"""What else the machine did while something was measured."""

import os

import psutil

__all__ = ["LoadMeter"]


class LoadMeter:
    """Share of this machine's processors that others than this process and its children used."""

    def __init__(self) -> None:
        self._start = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """(all, idle, own) processor seconds since boot."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        own = os.times()
        return sum(times[:8]), idle, own.user + own.system + own.children_user + own.children_system

    def others(self) -> float:
        """The share since this meter was made, 0 to 1."""
        total, idle, own = (now - then for now, then in zip(self._read(), self._start, strict=True))
        return min(1.0, max(0.0, (total - idle - own) / total)) if total > 0 else 0.0
