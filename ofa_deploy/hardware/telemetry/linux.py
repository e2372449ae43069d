"""What the kernel shows under ``/sys`` on any Linux: clocks, heat, throttling, metered rails.

Sources: the kernel's documentation of cpufreq, thermal, hwmon and ina3221; for the over-current
counters of Jetson Orin its developer guide, "Over Current Event Status".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ._system import read_int, read_text
from .reading import MAX_ENTRIES, Telemetry, kept, tidy

__all__ = ["LinuxSource", "clocks_fixed"]

_CPUFREQ = "sys/devices/system/cpu/cpufreq"
# Chips that sit in a processor; zones of the thermal framework cover most others.
_PROCESSOR_CHIPS = {"coretemp", "k10temp", "zenpower", "cpu_thermal"}
# Meters of a board's or a whole machine's supply, in hwmon's common form.
_POWER_METERS = {
    *("ina209", "ina219", "ina220", "ina226", "ina228", "ina230", "ina231", "ina237", "ina238"),
    *("power_meter", "scmi_sensors"),
}
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


@dataclass(frozen=True)
class _Figure:
    """Files whose numbers, multiplied and divided by ``unit``, are one reading."""

    name: str
    files: tuple[Path, ...]
    unit: float

    def read(self) -> float | None:
        value = 1.0
        for file in self.files:
            number = read_int(file)
            if number is None:
                return None
            value *= number
        return value / self.unit


def _read(figures: Iterable[_Figure]) -> Iterator[tuple[str, float]]:
    for figure in figures:
        if (value := figure.read()) is not None:
            yield figure.name, value


def _clocks(root: Path, cores: Sequence[int] | None = None) -> Iterator[_Figure]:
    """Clocks of GPUs and of all cores, or of the groups that some cores belong to."""
    policies = {int(name[3:]): path for name, path in _policies(root)}
    wanted = {max((n for n in policies if n <= core), default=-1) for core in cores or ()}
    for first, path in policies.items():
        if cores is None or first in wanted:
            yield _Figure(f"cpu{first}", (path / "scaling_cur_freq",), 1e3)
    for path in _gpus(root):
        yield _Figure("gpu", (path / "cur_freq",), 1e6)


def _heat(root: Path) -> Iterator[_Figure]:
    for zone in _paths(root, "sys/class/thermal/thermal_zone*"):
        yield _Figure(read_text(zone / "type", 64) or zone.name, (zone / "temp",), 1e3)
    for chip, kind in _chips(root):
        if kind in _PROCESSOR_CHIPS:
            for path in _paths(chip, "temp*_input"):
                stem = path.name[: -len("_input")]
                label = read_text(chip / f"{stem}_label", 64) or stem
                yield _Figure(f"{kind}.{label}", (path,), 1e3)


def _chips(root: Path) -> Iterator[tuple[Path, str]]:
    for chip in _paths(root, "sys/class/hwmon/hwmon*"):
        yield chip, read_text(chip / "name", 64) or ""


def _rails(root: Path) -> Iterator[_Figure]:
    """Rails of Jetson's meters (INA3221: mV times mA of named channels); others' are in µW."""
    for chip, kind in _chips(root):
        if kind == "ina3221":
            for path in _paths(chip, "in*_label"):
                number = path.name[2 : -len("_label")]
                rail = read_text(path, 64)
                if rail not in (None, "", "NC"):
                    both = (chip / f"in{number}_input", chip / f"curr{number}_input")
                    yield _Figure(str(rail), both, 1e3)
        elif kind in _POWER_METERS:
            for path in _paths(chip, "power*_input") or _paths(chip, "power*_average"):
                stem = path.name.partition("_")[0]
                label = read_text(chip / f"{stem}_label", 64) or f"{kind}.{chip.name}.{stem}"
                yield _Figure(label, (path,), 1e3)


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
        self._heat, self._rails = list(_heat(root)), list(_rails(root))
        self._clocks: dict[tuple[int, ...], list[_Figure]] = {}

    @classmethod
    def find(cls, root: Path) -> LinuxSource | None:
        """The source, or None where the kernel shows nothing, as in most virtual machines."""
        source = cls(root)
        told = source.tells_throttling or source.glance((0,)) or _state(root)
        return source if told else None

    @property
    def tells_throttling(self) -> bool:
        """Whether the kernel counts, or shows, anything that slows this machine down."""
        return bool(self._counts or self._slowing)

    def read(self) -> Telemetry:
        root = self._root
        return Telemetry(
            temperatures_c=kept("temperatures_c", _read(self._heat)),
            clocks_mhz=kept("clocks_mhz", _read(_clocks(root))),
            throttled=self.throttled(),
            power_mw=kept("power_mw", _read(self._rails)),
            state=_state(root),
        )

    def glance(self, cores: Sequence[int]) -> Telemetry:
        """Heat, rails, and the clocks of some cores: others may have to wake up to answer."""
        chosen = tuple(cores)
        if chosen not in self._clocks:
            self._clocks[chosen] = list(_clocks(self._root, chosen))
        return Telemetry(
            temperatures_c=kept("temperatures_c", _read(self._heat)),
            clocks_mhz=kept("clocks_mhz", _read(self._clocks[chosen])),
            power_mw=kept("power_mw", _read(self._rails)),
        )

    def power(self) -> Telemetry:
        """Metered rails alone, which takes a fraction of a millisecond."""
        return Telemetry(power_mw=kept("power_mw", _read(self._rails)))

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
