"""The ``ofa-deploy profile`` that other commands propose."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from ofa_deploy.cli._output import quoted

if TYPE_CHECKING:
    from ofa_deploy.hardware import Device

__all__ = ["profile_command"]


def profile_command(
    whose: str,
    name: str,
    device: "Device | None",
    runtime: str | None = None,
    precision: str | None = None,
    *,
    engines: Collection[str] = (),
) -> str:
    """One that measures what was asked, or else what the device offers first.

    Args:
        whose: the option that names the space.
        name: of the device, as the user gave it.
        device: that it is; None where no file describes it.
        engines: that are installed there; without any, all that it offers may be.
    """
    from ofa_deploy.hardware.engine import engine_of

    if device is not None:
        offered = [each for each in device.runtimes if engine_of(each) in engines]
        runtime = runtime or next(iter([*offered, *device.runtimes]), None)
        precision = precision or next(iter(device.precisions), None)
    given = {"--runtime": runtime, "--precision": precision}
    words = [f"{option} {quoted(value)}" for option, value in given.items() if value]
    return " ".join([f"ofa-deploy profile {whose} --device {quoted(name)}", *words])
