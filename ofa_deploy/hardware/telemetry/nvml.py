"""NVIDIA GPUs through NVML: ``import pynvml``, of the package nvidia-ml-py.

Every question is one that some GPU, driver or container does not answer; such an answer is left
out. On Jetson NVML answers few: tegrastats tells there.
Source: NVIDIA NVML API Reference Guide.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
from collections.abc import Sequence
from typing import Any

from .reading import Telemetry, kept, tidy

__all__ = ["NvmlSource", "first_of_cuda", "throttle_reasons"]

# NVML's bits of nvmlDeviceGetCurrentClocksEventReasons by which a GPU runs slower than it was set
# to. Idling (0x1), clocks that a user set (0x2, 0x100) and the voltage's limit at full boost
# (0x400) are not such.
_REASONS = {
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "thermal slowdown by software",
    0x040: "thermal slowdown by hardware",
    0x080: "power brake",
    0x200: "board limit",
}
# Of those, heat and power that fails. A power cap is how a GPU runs under full load.
_FAILING = 0x008 | 0x020 | 0x040 | 0x080
_CLOCKS = {"gpu": "NVML_CLOCK_GRAPHICS", "sm": "NVML_CLOCK_SM", "memory": "NVML_CLOCK_MEM"}


def throttle_reasons(bits: int) -> tuple[str, ...]:
    """The reasons in NVML's bits that make measurements useless."""
    return tuple(what for bit, what in _REASONS.items() if bits & bit)


def first_of_cuda() -> int | str:
    """The number or UUID of the GPU that CUDA calls 0, where it counts as the bus does.

    See ``CUDA_DEVICE_ORDER=PCI_BUS_ID``; NVML knows nothing of ``CUDA_VISIBLE_DEVICES``.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    return int(first) if first.isdecimal() else first or 0


class NvmlSource:
    """One GPU of this machine."""

    name = "nvml"

    def __init__(self, pynvml: Any, handle: Any) -> None:
        self._nvml = pynvml
        self._handle = handle
        self._open = True

    @classmethod
    def find(cls, index: int | str = 0) -> NvmlSource | None:
        """The GPU of that number or UUID; None without pynvml, a driver, or that GPU."""
        try:
            pynvml: Any = importlib.import_module("pynvml")
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return None
        by = "UUID" if isinstance(index, str) else "Index"
        try:
            return cls(pynvml, getattr(pynvml, f"nvmlDeviceGetHandleBy{by}")(index))
        except pynvml.NVMLError:
            pynvml.nvmlShutdown()
            return None

    def _ask(self, *functions: str, given: tuple[Any, ...] = ()) -> Any:
        """The answer of the first of these functions that there is one of; None if of none."""
        for function in functions:
            ask = getattr(self._nvml, function, None)
            if ask is not None:
                try:
                    return ask(self._handle, *given)
                except (self._nvml.NVMLError, UnicodeDecodeError):
                    continue
        return None

    def read(self) -> Telemetry:
        use = self._ask("nvmlDeviceGetUtilizationRates")
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        return Telemetry(
            temperatures_c=kept("temperatures_c", self._present(gpu=self._heat())),
            clocks_mhz=kept("clocks_mhz", self._clocks()),
            throttled=throttle_reasons(self._bits() or 0),
            power_mw=kept("power_mw", self._present(gpu=self.power_mw())),
            load_percent=kept(
                "load_percent", [("gpu", use.gpu), ("memory", use.memory)] if use else []
            ),
            memory_mib=kept(
                "memory_mib",
                [("used", memory.used / 2**20), ("total", memory.total / 2**20)] if memory else [],
            ),
            state=self._state(),
        )

    def glance(self, cores: Sequence[int]) -> Telemetry:
        return Telemetry(
            temperatures_c=kept("temperatures_c", self._present(gpu=self._heat())),
            clocks_mhz=kept("clocks_mhz", self._clocks()),
            power_mw=kept("power_mw", self._present(gpu=self.power_mw())),
        )

    @staticmethod
    def _present(**values: float | None) -> list[tuple[str, float]]:
        return [(name, value) for name, value in values.items() if value is not None]

    def _heat(self) -> float | None:
        sensor = (self._nvml.NVML_TEMPERATURE_GPU,)
        found = self._ask("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature", given=sensor)
        return None if found is None else float(found)

    def _clocks(self) -> list[tuple[str, float]]:
        kinds = ((name, getattr(self._nvml, kind)) for name, kind in _CLOCKS.items())
        found = ((name, self._ask("nvmlDeviceGetClockInfo", given=(kind,))) for name, kind in kinds)
        return [(name, float(mhz)) for name, mhz in found if mhz is not None]

    def _state(self) -> dict[str, str]:
        level = self._ask("nvmlDeviceGetPerformanceState")
        limit = self._ask("nvmlDeviceGetEnforcedPowerLimit")
        state = {
            "gpu": tidy(str(self._ask("nvmlDeviceGetName") or "")),
            "gpu_id": self._id(),
            "driver": tidy(self._driver()),
            "performance_state": "" if level is None else tidy(f"P{level}"),
            "power_limit": "" if limit is None else f"{limit / 1e3:g} W",
        }
        return {name: text for name, text in state.items() if text}

    def _id(self) -> str:
        """Tells GPUs apart that are alike, without telling their numbers."""
        uuid = self._ask("nvmlDeviceGetUUID")
        return hashlib.sha256(f"ofa-deploy {uuid}".encode()).hexdigest()[:16] if uuid else ""

    def _driver(self) -> str:
        try:
            return str(self._nvml.nvmlSystemGetDriverVersion())
        except (self._nvml.NVMLError, UnicodeDecodeError):
            return ""

    def power_mw(self) -> float | None:
        """What the board draws, in mW; a mean over about a second on most."""
        found = self._ask("nvmlDeviceGetPowerUsage")
        return None if found is None else float(found)

    def energy_mj(self) -> int | None:
        """Energy in mJ that the board has used since the driver was loaded; from Volta on."""
        found = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if found is None else int(found)

    @property
    def tells_throttling(self) -> bool:
        """Whether this GPU says why its clocks are what they are."""
        return self._bits() is not None

    def _bits(self) -> int | None:
        found = self._ask(
            "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"
        )
        return None if found is None else int(found)

    def throttled(self) -> tuple[str, ...]:
        """Heat and failing power alone: under a power cap a GPU works as it should."""
        return throttle_reasons((self._bits() or 0) & _FAILING)

    def close(self) -> None:
        """Let go of NVML; again is nothing."""
        if self._open:
            self._open = False
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
