"""What an inference runtime must do to be profiled and exported to."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx

__all__ = ["Runtime", "Session"]

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
    def build(self, model: onnx.ModelProto, precision: str = "fp32") -> bytes:
        """Turn a graph into what the engine loads.

        Raises:
            InputError: if the precision is not one of ``precisions``.
        """

    @abstractmethod
    def load(self, artefact: bytes, *, threads: int = 1) -> Session:
        """Load an artefact.

        Raises:
            DeviceError: if the engine refuses it.
        """
