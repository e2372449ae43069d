"""Whether a machine is what its device file says, and in a state to be measured."""

from collections.abc import Iterator
from dataclasses import dataclass

from ofa_deploy.hardware.device import LEAST_PYTHON, Device
from ofa_deploy.hardware.telemetry import Identity, Telemetry

__all__ = ["Objection", "check_device"]


@dataclass(frozen=True)
class Objection:
    """Something against measuring a device as it is.

    Attributes:
        error: whether measuring must not begin; otherwise it should not be trusted much.
        what: expected, found, and what to do, in one line.
    """

    error: bool
    what: str


def check_device(device: Device, identity: Identity, telemetry: Telemetry) -> list[Objection]:
    """Compare a device file with what the machine says of itself; an empty list is a good one."""
    return [*_machine(device, identity), *_state(device, telemetry)]


def _machine(device: Device, found: Identity) -> Iterator[Objection]:
    if device.refusal:
        yield Objection(True, f"{device.id} is not supported: {device.refusal}")
    if device.kind not in ("any", "cpu", found.kind):  # whatever it is, it has a processor
        yield Objection(True, f"expected a device of kind {device.kind}, found {found.kind}")
    if device.architecture not in ("", found.architecture):
        yield Objection(
            True, f"expected a processor of {device.architecture}, found {found.architecture}"
        )
    if _version(found.python) < LEAST_PYTHON:
        yield Objection(
            True,
            f"expected Python {'.'.join(map(str, LEAST_PYTHON))} or later, found {found.python}; "
            "name another with 'interpreter' in the device's file",
        )
    if missing := [core for core in device.cores if core >= found.cores]:
        yield Objection(True, f"there is no core {missing[0]}: it has {found.cores}")
    asked = device.limits.memory_mib
    if asked is not None and 0 < found.memory_mib < asked:
        yield Objection(False, f"its file allows {asked} MiB, but it has {found.memory_mib}")


def _version(python: str) -> tuple[int, ...]:
    return tuple(int(part) for part in python.split(".")[:2] if part.isdecimal())


def _state(device: Device, found: Telemetry) -> Iterator[Objection]:
    mode = found.state.get("power_mode", "")
    if device.power.mode and mode != device.power.mode:
        yield Objection(
            True,
            f"expected power mode {device.power.mode}, found {mode or 'none told'}; "
            "set it there with: sudo nvpmodel -m NUMBER",
        )
    elif mode and device.power.modes and mode not in device.power.modes:
        yield Objection(False, f"power mode {mode} does not stand in the device's file")
    clocks = found.state.get("clocks", "unknown")
    if device.power.clocks == "fixed" and clocks != "fixed":
        command = "jetson_clocks" if device.kind == "jetson" else "cpupower frequency-set -d F -u F"
        yield Objection(
            True, f"expected fixed clocks, found {clocks}; fix them there with: sudo {command}"
        )
    limit, heat = device.limits.temperature_c, found.temperature_c
    if limit is not None and heat is not None and heat > limit:
        yield Objection(False, f"{heat:g} °C, above the limit of {limit:g}: let it cool down")
    if found.throttled:
        yield Objection(False, f"its clocks are held down: {', '.join(found.throttled)}")
