"""Whether a machine is what its device file says, and in a state to be measured."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ofa_deploy.hardware.device import LEAST_PYTHON, Device
from ofa_deploy.hardware.engine import engine_of
from ofa_deploy.hardware.telemetry import Identity, Telemetry

__all__ = ["Objection", "check_device", "power_objections"]

_BUSY = 0.5  # share of its cores for which processes wait, beyond which a machine is busy


@dataclass(frozen=True)
class Objection:
    """Something against measuring a device as it is.

    Attributes:
        error: whether measuring must not begin; otherwise it should not be trusted much.
        what: expected, found, and what to do, in one line.
    """

    error: bool
    what: str


def check_device(
    device: Device,
    identity: Identity,
    telemetry: Telemetry,
    *,
    engines: Collection[str] | None = None,
    load: float = 0.0,
) -> list[Objection]:
    """Compare a device file with what the machine says of itself; an empty list is a good one.

    Args:
        telemetry: of the part of it that does the work.
        engines: that are installed; None is not known.
        load: processes that wanted to run lately, on average.
    """
    return [
        *_machine(device, identity),
        *_engines(device, identity, engines),
        *power_objections(device, telemetry),
        *_state(device, telemetry),
        *_load(identity, load),
    ]


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


def _engines(
    device: Device, found: Identity, engines: Collection[str] | None
) -> Iterator[Objection]:
    if engines is None or device.refusal:
        return
    lacking = [name for name in device.runtimes if engine_of(name) not in engines]
    if len(lacking) == len(device.runtimes):
        yield Objection(
            True,
            f"expected one of {', '.join(device.runtimes)}, found "
            f"{', '.join(engines) or 'no engine'} in its Python {found.python}",
        )
    elif lacking and device.kind != "any":
        yield Objection(False, f"its Python {found.python} has no {', '.join(lacking)}")


def _load(found: Identity, load: float) -> Iterator[Objection]:
    if load > _BUSY * found.cores:
        yield Objection(False, f"busy: {load:g} processes want its {found.cores} cores")


def power_objections(device: Device, found: Telemetry) -> list[Objection]:
    """What is set otherwise than a device's file demands."""
    return [*_mode(device, found), *_clocks(device, found)]


def _mode(device: Device, found: Telemetry) -> Iterator[Objection]:
    mode = found.state.get("power_mode", "")
    if device.power.mode and mode != device.power.mode:
        yield Objection(
            True,
            f"expected power mode {device.power.mode}, found {mode or 'none told'}; "
            "set it there with: sudo nvpmodel -m NUMBER (sudo nvpmodel -p --verbose lists them)",
        )


def _clocks(device: Device, found: Telemetry) -> Iterator[Objection]:
    clocks = found.state.get("clocks", "unknown")
    if device.power.clocks == "fixed" and clocks != "fixed":
        fix = {
            "jetson": "fix them there with: sudo jetson_clocks",
            "gpu": "a GPU's cannot be seen: lock them (sudo nvidia-smi -lgc F) and leave this out",
        }.get(device.kind, "fix them there with: sudo cpupower frequency-set -d F -u F")
        yield Objection(True, f"expected fixed clocks, found {clocks}; {fix}")


def _version(python: str) -> tuple[int, ...]:
    return tuple(int(part) for part in python.split(".")[:2] if part.isdecimal())


def _state(device: Device, found: Telemetry) -> Iterator[Objection]:
    mode = found.state.get("power_mode", "")
    if mode and device.power.modes and mode not in device.power.modes:
        yield Objection(False, f"power mode {mode} does not stand in the device's file")
    limit, heat = device.limits.temperature_c, found.temperature_c
    if limit is not None and heat is None:
        yield Objection(
            False, f"nothing tells how hot it is: its limit of {limit:g} °C holds nothing up"
        )
    if limit is not None and heat is not None and heat > limit:
        yield Objection(False, f"{heat:g} °C, above the limit of {limit:g}: let it cool down")
    if found.throttled:
        yield Objection(False, f"its clocks are held down: {', '.join(found.throttled)}")
