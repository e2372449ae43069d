"""``Gate``: measuring processes begin only while a device is as its file demands."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from ofa_deploy.errors import DeviceError, InputError
from ofa_deploy.hardware import Device, Telemetry, check_device, power_objections
from ofa_deploy.profiling.place import Place
from ofa_deploy.terminal import Progress

__all__ = ["TRIES", "Gate", "check_cores"]

TRIES = 4  # of a process, as long as the device gets too hot in it
_MARGIN_C = 5.0  # below its limit, to which a device must cool
_LOOK_S = 5.0  # between two looks at how hot it is
_SLICE_S = 30.0  # of a long pause, after which it is asked something, or it would hang up
_PATIENCE_S = 900.0
pause = time.sleep
_NO_GPU = (
    "nothing tells which GPU does the work, nor its heat, clocks and power: the table will name "
    "the processor alone; install nvidia-ml-py into the Python that is used there"
)
_KEPT = "what was finished is kept, run again to go on"


class Gate:
    """What stands between measuring processes.

    Args:
        device: whose file demands; None demands nothing.
        place: where it is.
        gpu: whether its GPU does the work.
        progress: told why it takes longer.
    """

    def __init__(
        self,
        device: Device | None,
        place: Place,
        *,
        gpu: bool,
        progress: Progress,
    ) -> None:
        self._device, self._place, self._gpu = device, place, gpu
        self._progress = progress
        self._limit_c = device.limits.temperature_c if device else None
        self._blind = self._must_cool = False

    def open(self) -> None:
        """See that the device may be measured at all.

        Raises:
            DeviceError: naming what its file demands and how to set it.
        """
        if self._gpu and self._place.machine.kind != "jetson" and not self._place.told.gpu:
            self._progress.say(f"warning: {self._place.name}: {_NO_GPU}")
        if self._device is None:
            return
        told = self._place.telemetry(gpu=self._gpu)
        objections = check_device(self._device, self._place.machine, told)
        if wrong := [each.what for each in objections if each.error]:
            raise DeviceError(f"{self._place.name} is not ready to be measured: {wrong[0]}")
        for objection in objections:
            self._progress.say(f"{self._place.name}: {objection.what}")
        self._blind = self._limit_c is not None and told.temperature_c is None

    def before(self, note: Callable[[str], None]) -> None:
        """Pause, wait while it is or was too hot, and see that nobody set it otherwise.

        Args:
            note: told what is waited for.

        Raises:
            DeviceError: if it does not cool down, or is set otherwise.
        """
        if self._device is None:
            return
        waited = False
        if pause_s := self._device.cool_down_s:
            note(f"cools down for {pause_s:g} s")
            self._pause(pause_s)
            waited = True
        if self._limit_c is not None and not self._blind:
            waited |= self._cool(self._limit_c, note)
        if waited:
            note("measures")
        demanded = self._device.power
        if demanded.mode or demanded.clocks == "fixed":
            self._check_power(self._place.telemetry(gpu=self._gpu), "")

    def after(self, answer: Mapping[str, Any]) -> None:
        """See that a process was measured as it was meant to be.

        Raises:
            DeviceError: if the device was set otherwise meanwhile: that process does not count.
        """
        told = Telemetry.from_dict(answer["telemetry"])
        mode, was = told.power_mode, self._place.told.power_mode
        if mode != was:  # ask again: a command may have failed
            told = self._place.telemetry(gpu=self._gpu)
            mode = told.power_mode
        dropped = "; the process that was measured meanwhile is dropped"
        if mode != was:
            raise DeviceError(
                f"{self._place.name}: its power mode was {was or 'not told'} and is "
                f"{mode or 'not told'}{dropped}, {_KEPT}: in the former mode, or anew in this one"
            )
        self._check_power(told, dropped)

    def too_hot(self, celsius: float, *, last: bool) -> None:
        """A process ended early since the device was above its limit: say that it is repeated.

        Raises:
            DeviceError: if that was the last try, or there is no limit.
        """
        name, limit_c = self._place.name, self._limit_c
        if limit_c is None:
            raise DeviceError(f"{name} stopped measuring at {celsius:g} °C, which nobody asked for")
        if last:
            raise DeviceError(
                f"{name} got hotter than its limit of {limit_c:g} °C in {TRIES} tries of one "
                f"measuring process ({celsius:g} °C at last): cool it better, measure for fewer "
                f"minutes, or raise limits.temperature_c in its file; {_KEPT}"
            )
        self._must_cool = True  # where anything but its processes tells how hot it is
        self._progress.say(
            f"{name} reached {celsius:g} °C, above its limit of {limit_c:g}, while it was "
            "measured; that process is repeated"
        )

    def _check_power(self, told: Telemetry, consequence: str) -> None:
        if self._device is None:
            return
        if wrong := power_objections(self._device, told):
            raise DeviceError(f"{self._place.name}: {wrong[0].what}{consequence}; {_KEPT}")

    def _pause(self, seconds: float) -> None:
        while seconds > 0:
            part = min(seconds, _SLICE_S)
            pause(part)
            seconds -= part
            if seconds > 0:
                self._place.telemetry(gpu=self._gpu)

    def _cool(self, limit_c: float, note: Callable[[str], None]) -> bool:
        """Wait until it is well below its limit, if it is above it, or was in the last process.

        A temperature that cannot be read meanwhile is one above it.

        Returns:
            Whether it waited.
        """
        heat = self._place.telemetry(gpu=self._gpu).temperature_c
        must_cool, self._must_cool = self._must_cool, False
        goal, waited = limit_c - _MARGIN_C, 0.0
        if heat is None:
            if not must_cool:
                return False
        elif heat <= (goal if must_cool else limit_c):
            return False
        else:
            above = f", above its limit of {limit_c:g}" if heat > limit_c else ""
            self._progress.say(
                f"{self._place.name} has {heat:g} °C{above}: measuring waits until it has {goal:g}"
            )
        while heat is None or heat > goal:
            if waited >= _PATIENCE_S:
                raise DeviceError(self._still(heat, goal, waited))
            note("waits" if heat is None else f"waits at {heat:.0f} °C")
            pause(_LOOK_S)
            waited += _LOOK_S
            heat = self._place.telemetry(gpu=self._gpu).temperature_c
        return True

    def _still(self, heat: float | None, goal: float, waited: float) -> str:
        minutes = f"after {waited / 60:.0f} minutes, and must have {goal:g}"
        if heat is None:
            return f"{self._place.name} tells no temperature {minutes}; {_KEPT}"
        return (
            f"{self._place.name} still has {heat:g} °C {minutes}: cool it, end what else runs "
            f"there, or raise limits.temperature_c in its file; {_KEPT}"
        )


def check_cores(device: Device, threads: int) -> None:
    """See that a device's file names a core for each thread.

    Raises:
        InputError: if it names fewer.
    """
    if 0 < len(device.cores) < threads:
        named = ", ".join(map(str, device.cores))
        raise InputError(
            f"device {device.id} is measured on its cores {named}, too few for {threads} threads; "
            "name more under 'cores' in its file, or ask for fewer threads"
        )
