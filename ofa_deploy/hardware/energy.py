"""Energy of the processor, where Linux exposes its counters (RAPL)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["EnergyMeter"]

_ROOT = Path("/sys/class/powercap")


@dataclass(frozen=True)
class _Counter:
    """One package's counter, in µJ; it starts again from 0 after ``wrap``."""

    path: Path
    wrap: int

    def read(self) -> int:
        return int(self.path.read_text())


class EnergyMeter:
    """Energy that all packages of the processor use, idle cores and other programs included."""

    def __init__(self, counters: Sequence[_Counter]) -> None:
        self._counters = counters

    @classmethod
    def find(cls, root: Path = _ROOT) -> Self | None:
        """The meter of this machine, or None where there is none or it may not be read."""
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

    def per_call(self, call: Callable[[], None], seconds: float = 0.1) -> float:
        """Energy of one call in mJ, from calls for at least so long (counters tick every ms)."""
        before = [counter.read() for counter in self._counters]
        end = time.monotonic() + seconds
        calls = 0
        while calls == 0 or time.monotonic() < end:
            call()
            calls += 1
        used = sum(
            (counter.read() - then) % (counter.wrap + 1)
            for counter, then in zip(self._counters, before, strict=True)
        )
        return used / 1000 / calls
