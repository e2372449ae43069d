"""Where measuring processes run: this machine, or one like ``RemoteTarget``."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from ofa_deploy.errors import DeviceError
from ofa_deploy.hardware import Identity, LoadMeter, Sensors, Telemetry, identify
from ofa_deploy.profiling.agent.engines import versions
from ofa_deploy.profiling.process import run_worker
from ofa_deploy.profiling.subject import builder

__all__ = ["Here", "Place", "processor_of"]


class Place(Protocol):
    """A machine that measures."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def chunk(self) -> int:
        """Subjects a process: bounds its memory, and what a crash or a cut costs."""

    @property
    def processor(self) -> str:
        """For which of ``PROCESSORS`` INT8 files must be."""

    @property
    def machine(self) -> Identity:
        """What it is."""

    @property
    def told(self) -> Telemetry:
        """What it said of itself at first, its GPU included."""

    @property
    def engines(self) -> Collection[str]:
        """Engines that are installed there."""

    @property
    def load(self) -> float:
        """Processes that wanted to run there lately, on average."""

    def version(self, runtime: str) -> str:
        """The version of an engine there."""

    def identity(self) -> dict[str, Any]:
        """What tells its measurements from those of other machines."""

    def telemetry(self, *, gpu: bool) -> Telemetry:
        """What it says of itself now; of its GPU if that does the work."""

    def run(
        self, job: Mapping[str, Any], names: Iterable[str], *, finished: Callable[[int], None]
    ) -> dict[str, Any]:
        """As ``run_worker``, and what else was told.

        That is ``others``, the share of it that other programs used meanwhile, and ``telemetry``,
        what it said at the end.
        """


class Here:
    """This machine.

    Attributes:
        machine: what it is.
        sensors, told: who told what of it at first, its GPU included.
    """

    name = "this machine"
    chunk = 128
    processor = "here"

    def __init__(self) -> None:
        self.machine = identify()
        with Sensors.whole() as sensors:
            self.sensors, self.told = sensors.names, sensors.read()

    @property
    def engines(self) -> Collection[str]:
        """Engines that are installed here."""
        return versions()

    @property
    def load(self) -> float:
        """Processes that wanted to run lately, on average."""
        return round(os.getloadavg()[0], 2)

    def version(self, runtime: str) -> str:
        """The version of an engine here.

        Raises:
            DeviceError: if nothing can be run with it here.
        """
        found = builder(runtime)
        if why := found.why_not():
            raise DeviceError(why)
        return found.version

    def identity(self) -> dict[str, Any]:
        """What tells its measurements from those of other machines, and other settings of it."""
        mode = self.told.power_mode
        return {"processor": self.machine.processor, **({"power_mode": mode} if mode else {})}

    def telemetry(self, *, gpu: bool) -> Telemetry:
        """What it says of itself now; of its GPU if that does the work."""
        with Sensors.at_work(gpu=gpu) as sensors:
            return sensors.read()

    def run(
        self, job: Mapping[str, Any], names: Iterable[str], *, finished: Callable[[int], None]
    ) -> dict[str, Any]:
        """As ``run_worker``; and ``others`` and ``telemetry``."""
        meter = LoadMeter()
        answer = run_worker(job, names, finished=finished)
        others = round(meter.others(), 4)  # before anything else is asked
        told = self.telemetry(gpu=bool(job.get("gpu")))
        return {**answer, "others": others, "telemetry": told.to_dict()}


def processor_of(place: Place, *, gpu: bool) -> str:
    """What does the work, as tables record it."""
    card = place.told.state.get("gpu", "") if gpu else ""
    return ", ".join(part for part in (card, place.machine.processor) if part)
