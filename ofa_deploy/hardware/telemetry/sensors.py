"""``Sensors``: everything that the machine this runs on can tell of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ._system import FOLDERS
from .identity import identify
from .jetson import JetsonSource
from .linux import LinuxSource
from .nvml import NvmlSource, first_of_cuda
from .raspberry import RaspberrySource
from .reading import Telemetry

__all__ = ["Sensors", "Source"]


class Source(Protocol):
    """Something that can be asked."""

    @property
    def name(self) -> str:
        """Such as ``nvml``."""

    def read(self) -> Telemetry:
        """Everything that it tells."""

    def glance(self, cores: Sequence[int]) -> Telemetry:
        """Heat, the clocks of those cores and of a GPU, power: what is quickly told of them."""

    @property
    def tells_throttling(self) -> bool:
        """Whether ``throttled`` can ever find a reason."""

    def throttled(self) -> tuple[str, ...]:
        """Only why clocks are held down, or were since it was last asked: quickly told."""

    def close(self) -> None:
        """Let go of what it holds."""


class Sensors:
    """The sources of this machine, as one.

    A source remembers what it counted, so that throttling between two readings is seen.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)

    @classmethod
    def find(
        cls,
        root: Path = Path("/"),
        *,
        gpu: int | str | None = None,
        folders: tuple[str, ...] = FOLDERS,
    ) -> Sensors:
        """All that this machine has; none at all is possible, as in a virtual machine.

        Args:
            root: where ``sys``, ``proc`` and ``etc`` are.
            gpu: which NVIDIA GPU, as NVML counts them, or its UUID; None is none. One that takes no
                part must not be asked: it may be held down while the processor is not.
            folders: where commands of the system are looked for.
        """
        found: list[Source | None] = [
            LinuxSource.find(root),
            JetsonSource.find(root, folders),
            RaspberrySource.find(folders),
            None if gpu is None else NvmlSource.find(gpu),
        ]
        return cls([source for source in found if source is not None])

    @classmethod
    def whole(cls) -> Sensors:
        """Of all of this machine, with the GPU that would do work."""
        return cls.find(gpu=first_of_cuda())

    @classmethod
    def at_work(
        cls, root: Path = Path("/"), *, gpu: bool, folders: tuple[str, ...] = FOLDERS
    ) -> Sensors:
        """Of the part of this machine that does the work.

        Args:
            gpu: whether that is the GPU: the one NVML tells of, and nothing where it tells of
                none, or a Jetson's own.
        """
        if gpu and identify(root).kind != "jetson":
            source = NvmlSource.find(first_of_cuda())
            return cls([] if source is None else [source])
        return cls.find(root, folders=folders)

    @property
    def names(self) -> tuple[str, ...]:
        """Who can be asked, such as ``("linux", "tegrastats")``."""
        return tuple(source.name for source in self._sources)

    def read(self) -> Telemetry:
        """One reading of everything; about 0.2 s on a Jetson, milliseconds elsewhere."""
        return Telemetry.merged(source.read() for source in self._sources)

    def glance(self, cores: Sequence[int] = ()) -> Telemetry:
        """What can be read in the midst of work: temperatures, clocks and power.

        Args:
            cores: whose clocks; none are a GPU's alone.
        """
        return Telemetry.merged(source.glance(cores) for source in self._sources)

    @property
    def tells_throttling(self) -> bool:
        """Whether any source can tell that clocks are held down."""
        return any(source.tells_throttling for source in self._sources)

    def throttled(self) -> tuple[str, ...]:
        """Why clocks are held down, or were since this or ``read`` was last called.

        Quick enough for the end of every measured window.
        """
        reasons = (reason for source in self._sources for reason in source.throttled())
        return tuple(dict.fromkeys(reasons))

    def gpu_energy_mj(self) -> int | None:
        """What the NVIDIA GPU has used since its driver was loaded, in mJ."""
        return next((s.energy_mj() for s in self._sources if isinstance(s, NvmlSource)), None)

    def gpu_power_mw(self) -> float | None:
        """What the NVIDIA GPU draws, in mW."""
        return next((s.power_mw() for s in self._sources if isinstance(s, NvmlSource)), None)

    def board_power_mw(self) -> float | None:
        """What the rails of a Jetson or Raspberry Pi carry, in mW; quickly read."""
        for source in self._sources:
            if isinstance(source, (LinuxSource, RaspberrySource)):
                total = source.power().total_power_mw
                if total is not None:
                    return total
        return None

    def close(self) -> None:
        """Let go of all sources."""
        for source in self._sources:
            source.close()

    def __enter__(self) -> Sensors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
