"""Energy of what a device does: counted by the processor (RAPL) or the GPU, or summed from power.

Standard library only, and written for Python 3.8, as ``telemetry`` is.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .telemetry import Sensors

__all__ = ["EnergyMeter", "PowerMeter", "energy_meter"]

_ROOT = Path("/sys/class/powercap")
_LEAST_SAMPLES = 3
_LONGEST = 10  # times what was asked for, while there are fewer
_SHARE = 20  # times what a reading takes, that pass until the next: it may slow the call down


class _Counts(Protocol):
    """A counter, in µJ; it starts again from 0 after ``wrap``."""

    @property
    def wrap(self) -> int: ...

    def read(self) -> int: ...


@dataclass(frozen=True)
class _Counter:
    """One package's counter."""

    path: Path
    wrap: int

    def read(self) -> int:
        return int(self.path.read_text())


@dataclass(frozen=True)
class _GpuCounter:
    """A GPU's, which NVML gives in mJ."""

    energy_mj: Callable[[], int | None]
    wrap: int = 1000 * 2**64 - 1

    def read(self) -> int:
        found = self.energy_mj()
        if found is None:
            raise OSError("the GPU no longer tells its energy")
        return 1000 * found


class EnergyMeter:
    """Energy that all of a device's counters count, idle parts and other programs included.

    Args:
        counters: at least one.
        seconds: how long to repeat a call, so that the counters' steps do not matter.
        least_s: for how long at least, where time is short.
    """

    def __init__(
        self, counters: Sequence[_Counts], seconds: float = 0.1, least_s: float = 0.05
    ) -> None:
        self._counters, self.seconds, self.least_s = counters, seconds, least_s

    @classmethod
    def find(cls, root: Path = _ROOT) -> EnergyMeter | None:
        """The processor's, of this machine; None where there is none or it may not be read."""
        counters = []
        for zone in sorted(root.glob("intel-rapl:*")):
            try:
                if (zone / "name").read_text().startswith("package"):
                    wrap = int((zone / "max_energy_range_uj").read_text())
                    counter = _Counter(zone / "energy_uj", wrap)
                    counter.read()
                    counters.append(counter)
            except (OSError, ValueError):
                continue
        return cls(counters) if counters else None

    def per_call(self, call: Callable[[], object], seconds: float | None = None) -> float:
        """Energy of one call in mJ, from calls for at least so long."""
        before = [counter.read() for counter in self._counters]
        calls, _ = _repeat(call, self.seconds if seconds is None else seconds)
        used = sum(
            (counter.read() - before[i]) % (counter.wrap + 1)
            for i, counter in enumerate(self._counters)
        )
        return used / 1000 / calls


class PowerMeter:
    """Energy from power that is read again and again, where nothing counts energy.

    Args:
        power_mw: tells the power now, in mW; None where it does not.
        seconds: how long to repeat a call; meters of boards answer some tens of times a second.
        pause_s: between two readings, at least; slow ones are read more seldom.
        least_s: for how long at least, where time is short.
    """

    def __init__(
        self,
        power_mw: Callable[[], float | None],
        seconds: float = 1.0,
        pause_s: float = 0.02,
        least_s: float = 0.3,
    ) -> None:
        self._power_mw, self.seconds, self._pause_s = power_mw, seconds, pause_s
        self.least_s = least_s

    def per_call(self, call: Callable[[], object], seconds: float | None = None) -> float:
        """Energy of one call in mJ: mean power, idle parts included, times the call's time.

        Power is read from another core, where there is one, and seldom: what reading it takes is
        not the call's.

        Raises:
            OSError: if the power could not be read often enough.
        """
        least_s = self.seconds if seconds is None else seconds
        most_pause_s = least_s / _LEAST_SAMPLES
        powers: list[float] = []
        done = threading.Event()

        def watch() -> None:
            _step_aside()
            while not done.is_set():
                start = time.monotonic()
                mw = self._power_mw()
                if mw is not None:
                    powers.append(mw)
                pause_s = min(_SHARE * (time.monotonic() - start), most_pause_s)
                done.wait(max(self._pause_s, pause_s))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            calls, took_s = _repeat(call, least_s, lambda: len(powers) >= _LEAST_SAMPLES)
        finally:
            done.set()
            watcher.join()
        if len(powers) < _LEAST_SAMPLES:
            raise OSError(f"power was told {len(powers)} times in {took_s:.2f} s: too seldom")
        return sum(powers) / len(powers) * took_s / calls


def _step_aside() -> None:
    """Take this thread to the cores that this process has and what it measures is not pinned to."""
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # there are none
            others = os.sched_getaffinity(os.getppid()) - os.sched_getaffinity(0)
            os.sched_setaffinity(0, others)


def _repeat(
    call: Callable[[], object], seconds: float, enough: Callable[[], bool] = lambda: True
) -> tuple[int, float]:
    """(calls, seconds) of calls for at least so long, and until there is enough; at least one."""
    start = time.monotonic()
    calls, took = 0, 0.0
    while calls == 0 or took < seconds or (took < _LONGEST * seconds and not enough()):
        call()
        calls += 1
        took = time.monotonic() - start
    return calls, took


def energy_meter(
    sensors: Sensors, *, gpu: bool = False, root: Path = _ROOT
) -> EnergyMeter | PowerMeter | None:
    """The best meter that this machine has.

    Args:
        sensors: open while the meter is used.
        gpu: whether an NVIDIA GPU does the work, rather than the processor.
        root: where RAPL's counters are.

    Returns:
        A GPU's counter, or its power where it has none; RAPL; or the rails of a board, which feed
        its GPU too. None where nothing tells.
    """
    if gpu:
        if sensors.gpu_energy_mj() is not None:
            return EnergyMeter([_GpuCounter(sensors.gpu_energy_mj)], seconds=2.0, least_s=0.5)
        if sensors.gpu_power_mw() is not None:
            return PowerMeter(sensors.gpu_power_mw, seconds=2.0, least_s=0.5)
    elif (meter := EnergyMeter.find(root)) is not None:
        return meter
    return PowerMeter(sensors.board_power_mw) if sensors.board_power_mw() is not None else None
