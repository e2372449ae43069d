"""What a device says of itself while it is measured: read between windows, and never within one.

Standard library only, on Python 3.8 too: the agent carries this file to other devices.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.hardware.telemetry._system import read_int, read_text

if TYPE_CHECKING:
    from ofa_deploy.hardware.telemetry.sensors import Sensors

__all__ = ["TooHot", "Watch", "memory_bounded", "peak_mib", "pinned"]

_TRIES = 3  # of which the middle one is what asking takes
_PERIOD_S = 1.0  # between two glances at heat, clocks and power
_SHARE = 50  # times what a glance takes, that must pass until the next
_MOST_CLOCKS = 16
_MOST_GLANCES = 20_000
_SLOWEST_MS = 50.0  # a device that takes longer to answer is not asked after each window
_MEMORY_S = 0.05  # between two looks at the memory that is taken
_PEAK = re.compile(r"^VmHWM:\s+(\d{1,12}) kB", re.ASCII | re.MULTILINE)
_STATUS = Path("/proc/self/status")
_CPUS = Path("/sys/devices/system/cpu")


class TooHot(Exception):
    """The device is above its limit.

    Attributes:
        celsius: its temperature.
    """

    def __init__(self, celsius: float) -> None:
        super().__init__(f"{celsius:g} °C")
        self.celsius = celsius


class Watch:
    """Looks at a device between the windows of one measuring process.

    Args:
        sensors: of the part of it that does the work.
        cores: that the process is pinned to, whose clocks count.
        limit_c: above which measuring must stop.

    Attributes:
        cost_ms: what asking whether clocks are held down takes.
    """

    def __init__(
        self, sensors: Sensors, cores: Sequence[int] = (), limit_c: float | None = None
    ) -> None:
        self._sensors, self._cores, self._limit_c = sensors, tuple(cores), limit_c
        self._reasons: dict[str, None] = {}
        self._heat: list[float] = []
        self._power: list[float] = []
        self._clocks: dict[str, list[float]] = {}
        self._due = 0.0
        self.cost_ms = 0.0
        if sensors.tells_throttling:
            self.cost_ms = statistics.median(_took_ms(sensors.throttled) for _ in range(_TRIES))
        self._asks = sensors.tells_throttling and self.cost_ms <= _SLOWEST_MS

    def held(self) -> bool:
        """Whether clocks are held down, or were since it was last asked.

        Raises:
            TooHot: if the device is above its limit.
        """
        reasons = self._sensors.throttled() if self._asks else ()
        self._reasons.update(dict.fromkeys(reasons))
        if time.monotonic() >= self._due:
            self.glance()
        return bool(reasons)

    def glance(self) -> None:
        """Read heat, clocks and power.

        Raises:
            TooHot: if the device is above its limit.
        """
        start = time.monotonic()
        found = self._sensors.glance(self._cores)
        now = time.monotonic()
        self._due = now + max(_PERIOD_S, _SHARE * (now - start))
        heat, power = found.temperature_c, found.total_power_mw
        if len(self._heat) < _MOST_GLANCES:
            self._heat += [] if heat is None else [heat]
            self._power += [] if power is None else [power]
            for name, mhz in list(found.clocks_mhz.items())[:_MOST_CLOCKS]:
                self._clocks.setdefault(name, []).append(mhz)
        if heat is not None and self._limit_c is not None and heat > self._limit_c:
            raise TooHot(heat)

    @property
    def hottest(self) -> float | None:
        """The greatest temperature that was seen, in °C."""
        return max(self._heat, default=None)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why clocks were held down."""
        return tuple(self._reasons)

    def trace(self) -> dict[str, object]:
        """As JSON can hold it: least, median and greatest of what was read; empty is left out."""
        found = {
            "temperature_c": _range(self._heat),
            "power_mw": _range(self._power),
            "clocks_mhz": {name: _range(mhz) for name, mhz in self._clocks.items() if mhz},
            "throttled": list(self._reasons)[:_MOST_CLOCKS],
            "told": self._asks,
        }
        return {name: value for name, value in found.items() if value}


def _range(values: Sequence[float]) -> list[float]:
    if not values:
        return []
    return [round(v, 3) for v in (min(values), statistics.median(values), max(values))]


def _took_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def pinned(cores: Sequence[int], threads: int) -> tuple[int, ...]:
    """Pin this process, and the threads that it will start.

    Args:
        cores: to as many of these as there are threads; without any, to the last of the fastest
            that it may use if there is one thread, and to none if there are more.

    Returns:
        The cores.

    Raises:
        ValueError: if there are too few cores, or one does not exist here.
    """
    if len(cores) < threads and cores:
        raise ValueError(f"expected a core for each of {threads} threads, found {_listed(cores)}")
    if not hasattr(os, "sched_setaffinity"):
        if cores:
            raise ValueError("this system pins no process to cores: leave 'cores' out")
        return ()
    wanted = set(cores[:threads])
    if not cores:
        wanted = {_last_fastest(os.sched_getaffinity(0))} if threads == 1 else set()
    if wanted:
        usual = os.sched_getaffinity(0)
        with contextlib.suppress(OSError):  # none of them exists
            os.sched_setaffinity(0, wanted)
        if os.sched_getaffinity(0) != wanted:
            raise ValueError(
                f"expected to measure on {_listed(sorted(wanted))}, and not all of that is here; a "
                f"process may use {_listed(sorted(usual))}"
            )
    return tuple(sorted(wanted))


def _last_fastest(usable: Collection[int]) -> int:
    """Processors may have slower cores for what is not urgent, often the last ones."""

    def most_khz(core: int) -> int:
        return read_int(_CPUS / f"cpu{core}" / "cpufreq" / "cpuinfo_max_freq") or 0

    return max(usable, key=lambda core: (most_khz(core), core))


def _listed(cores: Sequence[int]) -> str:
    return f"core{'s' if len(cores) != 1 else ''} {', '.join(map(str, cores))}"


def peak_mib(status: Path = _STATUS) -> int:
    """The most memory that this process has had at once, in MiB; 0 where it is not told.

    It is not what ``getrusage`` says, which counts what its parent had when it started it.
    """
    found = _PEAK.search(read_text(status) or "")
    return int(found.group(1)) // 1024 if found else 0


@contextlib.contextmanager
def memory_bounded(most_mib: int | None, exceeded: Callable[[int], None]) -> Iterator[None]:
    """Look at the memory that this process takes, as long as something is loaded.

    Args:
        exceeded: told the MiB, in a thread of its own, once they are more than ``most_mib``.
    """
    if most_mib is None:
        yield
        return
    limit, done = most_mib, threading.Event()

    def look() -> None:
        while not done.wait(_MEMORY_S):
            taken = peak_mib()
            if taken > limit:
                exceeded(taken)
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
