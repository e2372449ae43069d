"""What an inference runtime must do to be profiled and exported to."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from ofa_deploy.errors import InputError, UnknownNameError

__all__ = ["Runtime", "Session", "check_build", "has_vnni", "one_line"]

Floats = npt.NDArray[np.float32]


class Session(ABC):
    """A loaded artefact, ready to run."""

    @abstractmethod
    def run(self, images: Floats) -> Floats:
        """One inference.

        Args:
            images: float32, the model's input shape.

        Returns:
            The model's output, float32.
        """

    @abstractmethod
    def bound(self, images: Floats) -> Callable[[], None]:
        """A call that runs on ``images`` with as little around it as the runtime allows."""


class Runtime(ABC):
    """One inference engine. Profiling and export both go through it, so that they mean the same.

    Attributes:
        name: as users write it.
        precisions: what ``build`` accepts.
    """

    name: str
    precisions: tuple[str, ...]

    @property
    @abstractmethod
    def version(self) -> str:
        """The engine's own version."""

    @abstractmethod
    def build(
        self,
        model: onnx.ModelProto,
        precision: str = "fp32",
        calibration: Sequence[Floats] = (),
    ) -> bytes:
        """Turn a graph into what the engine loads.

        Args:
            calibration: batches of inputs from which INT8 learns its ranges; other precisions need
                none.

        Raises:
            UnknownNameError: if the precision is not one of ``precisions``.
            InputError: if INT8 is asked for without calibration.
            MissingDependencyError: if the engine is not installed.
        """

    @abstractmethod
    def load(self, artefact: bytes, *, threads: int = 1) -> Session:
        """Load an artefact.

        Raises:
            DeviceError: if the engine refuses it.
        """


def check_build(runtime: Runtime, precision: str, calibration: Sequence[Floats]) -> None:
    """See that a runtime can build what is asked.

    Raises:
        UnknownNameError, InputError: as ``Runtime.build`` says.
    """
    if precision not in runtime.precisions:
        raise UnknownNameError("precision", precision, runtime.precisions, hint=runtime.name)
    if precision == "int8" and not len(calibration):
        raise InputError("INT8 needs calibration images, found none")


def one_line(error: Exception) -> str:
    """What an engine says, on one line of bounded length."""
    return " ".join(str(error).split())[:300]


def has_vnni() -> bool:
    """Whether this x86 processor multiplies bytes into 32-bit sums at once."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
    return "avx512_vnni" in flags or "avx_vnni" in flags
