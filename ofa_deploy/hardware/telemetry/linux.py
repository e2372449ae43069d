"""What the kernel shows under ``/sys`` on any Linux: clocks, heat, throttling, metered rails.

Sources: the kernel's documentation of cpufreq, thermal, hwmon and ina3221; for the over-current
counters of Jetson Orin its developer guide, "Over Current Event Status".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ._system import read_int, read_text
from .reading import MAX_ENTRIES, Telemetry, kept, tidy

__all__ = ["LinuxSource", "clocks_fixed"]

_CPUFREQ = "sys/devices/system/cpu/cpufreq"
# Chips that sit in a processor; zones of the thermal framework cover most others.
_PROCESSOR_CHIPS = {"coretemp", "k10temp", "zenpower", "cpu_thermal"}
# Cooling by slowing down; fans and displays are cooling devices too.
_SLOWING = re.compile(r"processor|cpufreq|devfreq|balanced|throttle", re.IGNORECASE)
_JETSON_GPU = re.compile(r"(?:^|\.)(?:gpu|ga10b|gv11b|gp10b|gm20b)(?:\.\d+)?$")
_COUNTERS = {
    "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count": "processor too hot",
    "sys/class/hwmon/hwmon*/oc*_event_cnt": "over-current",
}


def _paths(root: Path, pattern: str) -> list[Path]:
    try:
        return sorted(islice(root.glob(pattern), 4 * MAX_ENTRIES))
    except OSError:
        return []


def _policies(root: Path) -> list[tuple[str, Path]]:
    """(``cpu0``, folder) of each group of cores that share a clock."""
    folders = [path for path in _paths(root, f"{_CPUFREQ}/policy*") if path.name[6:].isdigit()]
    folders.sort(key=lambda path: int(path.name[6:]))
    return [(f"cpu{path.name[6:]}", path) for path in folders]


def _gpus(root: Path) -> list[Path]:
    return [path for path in _paths(root, "sys/class/devfreq/*") if _JETSON_GPU.search(path.name)]


def clocks_fixed(root: Path) -> bool | None:
    """Whether cores and, on Jetson, the GPU have no clock to choose; None where none is told.

    So they are after ``jetson_clocks``, or where a user set the least clock to the greatest.
    """
    pairs = [
        (read_int(path / "scaling_min_freq"), read_int(path / "scaling_max_freq"))
        for _, path in _policies(root)
    ]
    pairs += [(read_int(path / "min_freq"), read_int(path / "max_freq")) for path in _gpus(root)]
    known = [(low, high) for low, high in pairs if low is not None and high is not None]
    return all(low == high for low, high in known) if known else None


def _clocks(root: Path) -> Iterator[tuple[str, float]]:
    for name, path in _policies(root):
        if (khz := read_int(path / "scaling_cur_freq")) is not None:
            yield name, khz / 1e3
    for path in _gpus(root):
        if (hertz := read_int(path / "cur_freq")) is not None:
            yield "gpu", hertz / 1e6


def _heat(root: Path) -> Iterator[tuple[str, float]]:
    for zone in _paths(root, "sys/class/thermal/thermal_zone*"):
        if (milli := read_int(zone / "temp")) is not None:
            yield read_text(zone / "type", 64) or zone.name, milli / 1e3
    for chip in _paths(root, "sys/class/hwmon/hwmon*"):
        kind = read_text(chip / "name", 64)
        if kind in _PROCESSOR_CHIPS:
            for path in _paths(chip, "temp*_input"):
                stem = path.name[: -len("_input")]
                label = read_text(chip / f"{stem}_label", 64) or stem
                if (milli := read_int(path)) is not None:
                    yield f"{kind}.{label}", milli / 1e3


def _rails(root: Path) -> Iterator[tuple[str, float]]:
    """Jetson's meters (INA3221): mV times mA of each channel that has a name."""
    for chip in _paths(root, "sys/class/hwmon/hwmon*"):
        if read_text(chip / "name", 64) == "ina3221":
            for path in _paths(chip, "in*_label"):
                number = path.name[2 : -len("_label")]
                rail = read_text(path, 64)
                volts, amperes = (
                    read_int(chip / f"{kind}{number}_input") for kind in ("in", "curr")
                )
                if rail not in (None, "", "NC") and volts is not None and amperes is not None:
                    yield str(rail), volts * amperes / 1e3


def _state(root: Path) -> dict[str, str]:
    state = {}
    governors = {read_text(path / "scaling_governor", 64) for _, path in _policies(root)}
    if found := ", ".join(sorted(tidy(name) for name in governors if name)):
        state["governor"] = found[:80]
    boost = read_int(root / _CPUFREQ / "boost")
    no_turbo = read_int(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    if boost is not None or no_turbo is not None:
        state["boost"] = "on" if boost == 1 or no_turbo == 0 else "off"
    if (fixed := clocks_fixed(root)) is not None:
        state["clocks"] = "fixed" if fixed else "free"
    return state


class LinuxSource:
    """The machine that this process runs on."""

    name = "linux"

    def __init__(self, root: Path) -> None:
        self._root = root
        self._slowing = [
            (kind, device / "cur_state")
            for device in _paths(root, "sys/class/thermal/cooling_device*")
            if _SLOWING.search(kind := tidy(read_text(device / "type", 64) or ""))
        ]
        self._counters = [
            (path, what) for pattern, what in _COUNTERS.items() for path in _paths(root, pattern)
        ]
        self._counts = self._read_counts()

    @classmethod
    def find(cls, root: Path) -> LinuxSource | None:
        """The source, or None where the kernel shows nothing, as in most virtual machines."""
        source = cls(root)
        return source if source.read() or source._counts or source._slowing else None

    def read(self) -> Telemetry:
        root = self._root
        return Telemetry(
            temperatures_c=kept("temperatures_c", _heat(root)),
            clocks_mhz=kept("clocks_mhz", _clocks(root)),
            throttled=self.throttled(),
            power_mw=kept("power_mw", _rails(root)),
            state=_state(root),
        )

    def power(self) -> Telemetry:
        """Metered rails alone, which takes a fraction of a millisecond."""
        return Telemetry(power_mw=kept("power_mw", _rails(self._root)))

    def throttled(self) -> tuple[str, ...]:
        """What slows the processor down now, or has since the last time this was asked."""
        reasons = [
            f"cooling by {kind}" for kind, path in self._slowing if (read_int(path) or 0) > 0
        ]
        before, self._counts = self._counts, self._read_counts()
        grown = [
            what
            for (path, what), now in self._counts.items()
            if now > before.get((path, what), now)
        ]
        return tuple(dict.fromkeys([*reasons, *grown]))[:16]

    def _read_counts(self) -> dict[tuple[Path, str], int]:
        """How often each counter has counted since boot."""
        found = {(path, what): read_int(path) for path, what in self._counters}
        return {counter: count for counter, count in found.items() if count is not None}

    def close(self) -> None:
        pass
