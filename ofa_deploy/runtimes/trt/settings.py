"""What an engine is built with, beside its ONNX, and timed with.

Agents carry this file: standard library only, on Python 3.8 too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ofa_deploy.errors import InputError

__all__ = ["HARDWARE", "EngineSettings", "SettingsError", "TimingSettings"]

# As trtexec writes it: as TensorRT's HardwareCompatibilityLevel does.
HARDWARE = {
    "none": "NONE",
    "ampere+": "AMPERE_PLUS",
    "sameComputeCapability": "SAME_COMPUTE_CAPABILITY",
}
_MAX_BATCH = 65_536
_GRAPH_BATCH = 8


class SettingsError(InputError, ValueError):
    """Settings out of range; a ``ValueError`` too, so that pydantic says where they stand."""


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is built with, beside its ONNX.

    Attributes:
        batches: least, best and greatest batch of an ONNX whose batch is dynamic; a fixed one
            keeps its own.
        memory_limit: bytes of workspace that a layer may use; None for all there is.
        hardware: which GPUs may run it: ``none`` (those like the one that built it), ``ampere+``
            or ``sameComputeCapability`` (later 10.x). Such an engine may be slower; on Jetson
            TensorRT builds none.
        version_compatible: whether later releases of TensorRT may run it; the engine then holds
            code for the host, which loading it runs.
        optimization_level: 0 to 5, as TensorRT counts them; higher builds longer.
        tf32: whether float32 products may be rounded to 10 bits, as TensorRT does by default.

    Raises:
        SettingsError: for a value out of range.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (a field it must not be)

    batches: tuple[int, int, int] = (1, 1, 32)
    memory_limit: int | None = None
    hardware: str = "none"
    version_compatible: bool = False
    optimization_level: int = 3
    tf32: bool = False

    def __post_init__(self) -> None:
        least, best, greatest = self.batches
        if not 1 <= least <= best <= greatest <= _MAX_BATCH:
            raise SettingsError(
                f"batches: expected 1 <= least <= best <= greatest <= {_MAX_BATCH:,}, found "
                f"{least}, {best}, {greatest}"
            )
        if self.memory_limit is not None and not 2**20 <= self.memory_limit < 2**48:
            raise SettingsError(
                f"memory limit: expected 1 MiB or more, found {self.memory_limit} bytes"
            )
        if self.hardware not in HARDWARE:
            raise SettingsError(
                f"hardware: expected one of {', '.join(HARDWARE)}, found {self.hardware!r}"
            )
        if self.optimization_level not in range(6):
            raise SettingsError(
                f"optimization level: expected 0–5, found {self.optimization_level}"
            )


@dataclass(frozen=True)
class TimingSettings:
    """How engines are built and launched where they are timed; their batch is that of the images.

    Attributes:
        optimization_level, tf32, memory_limit: as of ``EngineSettings``.
        graph_batch: the greatest batch that is launched as a CUDA graph; 0 for none.
    """

    optimization_level: int = EngineSettings.optimization_level
    tf32: bool = EngineSettings.tf32
    memory_limit: int | None = EngineSettings.memory_limit
    graph_batch: int = _GRAPH_BATCH

    @classmethod
    def of(cls, engine: EngineSettings) -> TimingSettings:
        """Those of an engine's settings that count where it is timed."""
        return cls(engine.optimization_level, engine.tf32, engine.memory_limit)

    def told(self) -> dict[str, int]:
        """As jobs and tables write them."""
        limit = {} if self.memory_limit is None else {"memory_limit": self.memory_limit}
        return {
            "builder_optimization_level": self.optimization_level,
            "tf32": int(self.tf32),
            "cuda_graph_batch": self.graph_batch,
            **limit,
        }

    @classmethod
    def heard(cls, told: Mapping[str, str | int]) -> TimingSettings:
        """What ``told`` wrote.

        Raises:
            SettingsError: for a name that it does not write, or no number.
        """
        known = cls().told()
        for name, value in told.items():
            if name not in (*known, "memory_limit") or type(value) is not int:
                raise SettingsError(
                    f"expected numbers for {', '.join(known)}, memory_limit; found {name} {value!r}"
                )
        numbers = {**known, **told}
        limit = numbers.get("memory_limit")
        return cls(
            int(numbers["builder_optimization_level"]),
            bool(numbers["tf32"]),
            None if limit is None else int(limit),
            int(numbers["cuda_graph_batch"]),
        )

    def engine(self, batch: int) -> EngineSettings:
        """What an engine for that batch alone is built with."""
        return EngineSettings(
            batches=(batch, batch, batch),
            memory_limit=self.memory_limit,
            optimization_level=self.optimization_level,
            tf32=self.tf32,
        )
