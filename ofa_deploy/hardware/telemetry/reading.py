"""``Telemetry``: what a device said of itself at one moment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import islice

__all__ = ["MAX_ENTRIES", "Telemetry", "kept", "tidy"]

MAX_ENTRIES = 96  # of each kind; more than any board has
_MAX_REASONS = 16
_LONGEST_NAME, _LONGEST_TEXT = 40, 80
# Beyond these a sensor is switched off or lies: Jetson writes -256 °C for a part without power.
_BOUNDS = {
    "temperatures_c": (-40.0, 150.0),
    "clocks_mhz": (0.0, 20_000.0),
    "power_mw": (-10_000.0, 5_000_000.0),
    "load_percent": (0.0, 100.0),
    "memory_mib": (0.0, 16_777_216.0),
}
# Sensors that are not the processor's. Jetson's PMIC says 100 °C whatever happens.
_ELSEWHERE = re.compile(r"pmic|wifi|acpi|int34|nvme|bat|board|diode|pch", re.IGNORECASE)
_INPUT_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")
_FED_BY_OTHERS = {"VDDQ_VDD2_1V8AO"}  # of Jetson AGX Orin, behind VIN_SYS_5V0


def tidy(text: str, longest: int = _LONGEST_NAME) -> str:
    """A name or short text of harmless characters: others become a dash."""
    plain = re.sub(r"[^A-Za-z0-9_.:+]+", "-", text[: 4 * longest]).strip("-")
    return plain[:longest].rstrip("-")


def kept(kind: str, found: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Of the readings of one kind, those that can be true, by tidy name.

    Args:
        kind: a field of ``Telemetry`` that holds numbers.
        found: (name, value); of a name that comes twice the last counts, of temperatures the
            hottest: two processors have sensors of one name.
    """
    low, high = _BOUNDS[kind]
    result: dict[str, float] = {}
    for name, value in found:
        name = tidy(name)
        if name and low <= value <= high and (name in result or len(result) < MAX_ENTRIES):
            if kind == "temperatures_c":
                value = max(value, result.get(name, value))
            result[name] = round(float(value), 3)
    return result


@dataclass(frozen=True)
class Telemetry:
    """One reading. What the device does not tell is absent.

    Attributes:
        temperatures_c: °C by sensor.
        clocks_mhz: MHz by name: ``cpu0`` (of the cores that share a clock, the first), ``gpu``,
            ``emc`` (Jetson's memory), ``memory`` (a GPU's).
        throttled: why clocks are held down, or were since the reading before; empty if they
            were not.
        power_mw: mW by rail.
        load_percent: share of use by engine.
        memory_mib: ``used`` and ``total``, ``swap`` in use.
        state: settings that change the speed: ``power_mode``, ``jetson_clocks``, ``governor``...
            and which GPU it is: ``gpu``, ``gpu_id``.
    """

    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    clocks_mhz: Mapping[str, float] = field(default_factory=dict)
    throttled: tuple[str, ...] = ()
    power_mw: Mapping[str, float] = field(default_factory=dict)
    load_percent: Mapping[str, float] = field(default_factory=dict)
    memory_mib: Mapping[str, float] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything was read."""
        return any(getattr(self, item.name) for item in fields(self))

    @property
    def temperature_c(self) -> float | None:
        """The hottest of the processor's sensors, in °C."""
        inside = [t for name, t in self.temperatures_c.items() if not _ELSEWHERE.search(name)]
        return max(inside, default=None)

    @property
    def total_power_mw(self) -> float | None:
        """Power of the whole module in mW: its input rail, else the sum of what is measured.

        The sum leaves out what is not metered, such as losses of conversion and USB.
        """
        for rail in _INPUT_RAILS:
            if rail in self.power_mw:
                return self.power_mw[rail]
        parts = [mw for rail, mw in self.power_mw.items() if rail not in _FED_BY_OTHERS]
        return round(sum(parts), 3) if parts else None

    @property
    def power_mode(self) -> str:
        """What of its state belongs to a device's identity, such as ``15W-jetson_clocks``."""
        locked = "jetson_clocks" if self.state.get("jetson_clocks") == "on" else ""
        return "-".join(part for part in (self.state.get("power_mode", ""), locked) if part)

    @property
    def gpu(self) -> str:
        """Which NVIDIA GPU it is, told from others of its kind; empty where nothing tells."""
        return " ".join(self.state[part] for part in ("gpu", "gpu_id") if part in self.state)

    @classmethod
    def merged(cls, parts: Iterable[Telemetry]) -> Telemetry:
        """Several readings as one; of a name that comes twice the last counts."""
        numbers: dict[str, dict[str, float]] = {kind: {} for kind in _BOUNDS}
        state: dict[str, str] = {}
        throttled: list[str] = []
        for part in parts:
            for kind, known in numbers.items():
                known.update(getattr(part, kind))
            state.update(part.state)
            throttled += [reason for reason in part.throttled if reason not in throttled]
        return cls(
            throttled=tuple(throttled[:_MAX_REASONS]),
            state=dict(islice(state.items(), MAX_ENTRIES)),
            **{kind: dict(islice(all_.items(), MAX_ENTRIES)) for kind, all_ in numbers.items()},
        )

    def to_dict(self) -> dict[str, object]:
        """As JSON can hold it; empty fields are left out."""
        found: dict[str, object] = {kind: dict(getattr(self, kind)) for kind in _BOUNDS}
        found["state"] = dict(self.state)
        found["throttled"] = list(self.throttled)
        return {name: value for name, value in found.items() if value}

    @classmethod
    def from_dict(cls, value: object) -> Telemetry:
        """The reading that ``to_dict`` wrote elsewhere; it is not trusted.

        Raises:
            ValueError: naming the first field that no device of ours would send.
        """
        if not isinstance(value, dict):
            raise ValueError(f"telemetry: expected an object, found {type(value).__name__}")
        unknown = [str(name)[:_LONGEST_NAME] for name in value if name not in _FIELDS]
        if unknown:
            raise ValueError(f"telemetry: unknown field {unknown[0]!r}")
        numbers = {kind: _numbers(kind, value.get(kind, {})) for kind in _BOUNDS}
        return cls(
            throttled=_reasons(value.get("throttled", [])),
            state=_texts(value.get("state", {})),
            **numbers,
        )


_FIELDS = frozenset(item.name for item in fields(Telemetry))


def _entries(kind: str, value: object) -> list[tuple[str, object]]:
    if not isinstance(value, dict) or len(value) > MAX_ENTRIES:
        raise ValueError(f"telemetry: {kind}: expected an object of at most {MAX_ENTRIES} entries")
    for name in value:
        if not isinstance(name, str) or not name or tidy(name) != name:
            raise ValueError(f"telemetry: {kind}: {str(name)[:_LONGEST_NAME]!r} is no name")
    return list(value.items())


def _numbers(kind: str, value: object) -> dict[str, float]:
    low, high = _BOUNDS[kind]
    result = {}
    for name, number in _entries(kind, value):
        if (
            not isinstance(number, (int, float))
            or isinstance(number, bool)
            or not low <= number <= high
        ):
            raise ValueError(f"telemetry: {kind}: {name}: expected a number of {low:g} to {high:g}")
        result[name] = float(number)
    return result


def _plain(text: object) -> bool:
    return (
        isinstance(text, str)
        and 0 < len(text) <= _LONGEST_TEXT
        and text.isascii()
        and text.isprintable()
    )


def _texts(value: object) -> dict[str, str]:
    result = {}
    for name, text in _entries("state", value):
        if not _plain(text):
            raise ValueError(f"telemetry: state: {name}: expected a short line of plain text")
        result[name] = str(text)
    return result


def _reasons(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_REASONS or not all(map(_plain, value)):
        raise ValueError(f"telemetry: throttled: expected at most {_MAX_REASONS} short texts")
    return tuple(value)
