"""What an inference runtime must do to be profiled and exported to."""

import platform
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from ofa_deploy.errors import InputError, MismatchError, MissingDependencyError, UnknownNameError

__all__ = [
    "PROCESSORS",
    "ByteMath",
    "Runtime",
    "Session",
    "check_build",
    "check_calibration",
    "check_least",
]

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

    def timed(self, images: Floats) -> Callable[[], float | None]:
        """A call as measuring processes of the runtime time it, so that figures mean the same.

        It may return its own time, in ms; else the host's clock tells.
        """
        return self.bound(images)


class Runtime(ABC):
    """One inference engine. Profiling and export both go through it, so that they mean the same.

    What they time of a file alone is the same too: see ``Session.timed``.

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

    def settings(self, threads: int = 1) -> Mapping[str, str | int]:
        """What a model is loaded with to be timed, where the engine's defaults would be others."""
        return {}

    def why_not(self) -> str | None:
        """Why nothing can be run here, in one line; None if it can."""
        return None

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
        return self.to_time(model, precision, calibration)

    @abstractmethod
    def to_time(
        self,
        model: onnx.ModelProto,
        precision: str = "fp32",
        calibration: Sequence[Floats] = (),
        *,
        batch: int | None = None,
        processor: str = "here",
    ) -> bytes:
        """What measuring processes open, on this machine and on others.

        Args:
            batch: of the images, for engines that are then built for no other.
            processor: one of ``PROCESSORS``, for which INT8 is placed by engines that place it on
                the host.

        Raises:
            UnknownNameError, InputError, MissingDependencyError: as ``build``.
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
    if precision == "int8":
        _check_any(calibration)


def _check_any(calibration: Sequence[Floats]) -> None:
    if not len(calibration):
        raise InputError("INT8 needs calibration images, found none")


def check_calibration(model: onnx.ModelProto, calibration: Sequence[Floats]) -> None:
    """See that calibration batches are what the model takes.

    Raises:
        InputError: if there are none.
        MismatchError: naming the first that is not.
    """
    _check_any(calibration)
    tensor = model.graph.input[0].type.tensor_type
    wanted = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    for batch in calibration:
        fits = len(batch.shape) == len(wanted) and all(
            size in (None, found) for size, found in zip(wanted, batch.shape, strict=True)
        )
        if not fits or batch.dtype != kind or not len(batch):
            shape = ", ".join("batch" if size is None else str(size) for size in wanted)
            raise MismatchError(
                f"expected calibration batches of {kind} ({shape}), found {batch.dtype} "
                f"{batch.shape}; calibrate with images as the model takes them"
            )


def check_least(package: str, found: str, least: str, *, extra: str) -> None:
    """See that a package is not older than what this code was written for.

    Raises:
        MissingDependencyError: naming the pip extra that brings one that will do.
    """
    if _numbers(found) < _numbers(least):
        raise MissingDependencyError(
            f"{package} {found} is too old: expected {least} or later; run: pip install -U "
            f"'ofa-deploy[{extra}]'"
        )


def _numbers(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", version)[:2]]


@dataclass(frozen=True)
class ByteMath:
    """How bytes must lie for a processor's instructions.

    Attributes:
        signed: whether activations are signed. ARM's kernels are fastest so; x86 has fast ones for
            unsigned activations only.
        narrow: whether weights keep to 7 bits. x86 without VNNI adds pairs of products in 16 bits,
            which would saturate.
    """

    signed: bool
    narrow: bool

    @classmethod
    def of(cls, processor: str) -> "ByteMath":
        """That of one of ``PROCESSORS``.

        Raises:
            UnknownNameError: listing them.
        """
        if processor == "here":
            arm = platform.machine().lower() in ("aarch64", "arm64")
            from ofa_deploy.hardware.telemetry import has_vnni  # its package takes 0.3 s to import

            return cls(signed=arm, narrow=not arm and not has_vnni())
        if processor not in PROCESSORS:
            raise UnknownNameError("processor", processor, PROCESSORS)
        return cls(signed=processor == "arm", narrow=processor == "x86")


PROCESSORS = ("here", "arm", "x86", "x86-vnni")
