"""Raspberry Pi: what ``vcgencmd`` tells.

Source: Raspberry Pi documentation, "vcgencmd". Bits 0 to 3 of ``get_throttled`` are now, bits 16
to 19 since boot. The Pi 5's power chip meters the rails behind it, so their sum is less than
what the board draws: USB devices and losses are not in it. A Pi 4 meters no currents.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._system import FOLDERS, command_path, output_of, pattern
from .reading import Telemetry, kept

__all__ = ["RaspberrySource", "parse_clock", "parse_pmic", "parse_temperature", "parse_throttled"]

_LONGEST = 8192
_NOW = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
_SINCE_BOOT_SHIFT = 16


_THROTTLED = pattern(r"\s*throttled=0x([0-9a-fA-F]{1,8})\s*")
_TEMPERATURE = pattern(r"\s*temp=(-?\d{1,3}(?:\.\d{1,3})?)'C\s*")
_CLOCK = pattern(r"\s*frequency\(\d{1,4}\)=(\d{1,12})\s*")
_RAIL = pattern(
    r"^\s*([0-9A-Z][0-9A-Z_]{0,31})_([AV]) (?:current|volt)\(\d{1,3}\)=(\d{1,4}\.\d{1,9})[AV]\s*$"
)


def parse_throttled(text: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """(reasons now, reasons since boot) in what ``vcgencmd get_throttled`` prints."""
    found = _THROTTLED.fullmatch(text[:_LONGEST])
    if found is None:
        return None
    bits = int(found.group(1), 16)

    def reasons(shift: int) -> tuple[str, ...]:
        return tuple(what for bit, what in enumerate(_NOW) if bits >> shift + bit & 1)

    return reasons(0), reasons(_SINCE_BOOT_SHIFT)


def parse_temperature(text: str) -> float | None:
    """°C in what ``vcgencmd measure_temp`` prints."""
    found = _TEMPERATURE.fullmatch(text[:_LONGEST])
    return float(found.group(1)) if found else None


def parse_clock(text: str) -> float | None:
    """MHz in what ``vcgencmd measure_clock`` prints."""
    found = _CLOCK.fullmatch(text[:_LONGEST])
    return int(found.group(1)) / 1e6 if found else None


def parse_pmic(text: str) -> dict[str, float]:
    """Power in mW by rail, in what ``vcgencmd pmic_read_adc`` prints: volts times amperes."""
    found: dict[str, dict[str, float]] = {}
    for line in text[:_LONGEST].splitlines():
        if rail := _RAIL.match(line):
            found.setdefault(rail.group(1), {})[rail.group(2)] = float(rail.group(3))
    whole = ((name, both) for name, both in found.items() if len(both) == 2)
    return kept("power_mw", ((name, 1e3 * both["A"] * both["V"]) for name, both in whole))


class RaspberrySource:
    """A Raspberry Pi that this process runs on."""

    name = "vcgencmd"
    tells_throttling = True

    def __init__(self, vcgencmd: str) -> None:
        self._vcgencmd = vcgencmd
        self._since_boot: tuple[str, ...] = ()
        self.throttled()

    @classmethod
    def find(cls, folders: tuple[str, ...] = FOLDERS) -> RaspberrySource | None:
        """The source, or None where ``vcgencmd`` is absent or may not speak to the firmware."""
        vcgencmd = command_path("vcgencmd", folders)
        if (
            vcgencmd is None
            or parse_throttled(output_of([vcgencmd, "get_throttled"]) or "") is None
        ):
            return None
        return cls(vcgencmd)

    def _ask(self, *words: str) -> str:
        return output_of([self._vcgencmd, *words]) or ""

    def read(self) -> Telemetry:
        reasons = self.throttled()
        heat = parse_temperature(self._ask("measure_temp"))
        clocks = {name: parse_clock(self._ask("measure_clock", name)) for name in ("arm", "v3d")}
        return Telemetry(
            temperatures_c=kept("temperatures_c", [] if heat is None else [("soc", heat)]),
            clocks_mhz=kept(
                "clocks_mhz", ((n, mhz) for n, mhz in clocks.items() if mhz is not None)
            ),
            throttled=reasons,
            power_mw=self.power().power_mw,
            state={"throttled_since_boot": ", ".join(self._since_boot) or "never"},
        )

    def glance(self, cores: Sequence[int]) -> Telemetry:
        """The cores' clock, which the kernel shows as it was set and not as it is; and rails."""
        mhz = parse_clock(self._ask("measure_clock", "arm"))
        return Telemetry(
            clocks_mhz=kept("clocks_mhz", [] if mhz is None else [("arm", mhz)]),
            power_mw=self.power().power_mw,
        )

    def power(self) -> Telemetry:
        """Metered rails alone: about 10 ms; nothing on a Pi 4."""
        return Telemetry(power_mw=parse_pmic(self._ask("pmic_read_adc")))

    def throttled(self) -> tuple[str, ...]:
        """Reasons now, and those that the firmware has noted since the last time it was asked."""
        found = parse_throttled(self._ask("get_throttled"))
        if found is None:
            return ()
        now, since_boot = found
        fresh = [what for what in since_boot if what not in self._since_boot and what not in now]
        self._since_boot = since_boot
        return (*now, *fresh)

    def close(self) -> None:
        pass
