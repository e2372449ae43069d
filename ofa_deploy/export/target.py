"""What every target must do: turn a ``Source`` into files, and files into what an engine loads."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.errors import FileFormatError
from ofa_deploy.export.manifest import Input
from ofa_deploy.export.options import ExportOptions
from ofa_deploy.graph import INPUT, PIXELS
from ofa_deploy.runtimes import Runtime, Session, get_runtime
from ofa_deploy.runtimes.base import ByteMath

if TYPE_CHECKING:
    from ofa_deploy.export.source import Source

__all__ = ["Built", "Target", "ending"]


@dataclass(frozen=True)
class Built:
    """What a target made.

    Attributes:
        files: their names.
        settings: what they were built with.
        artefact: what the engine loads; None if it cannot run here.
        why_not: then the reason, in one line.
    """

    files: tuple[str, ...]
    settings: Mapping[str, Any]
    artefact: bytes | None
    why_not: str = ""


class Target(ABC):
    """One target.

    Attributes:
        name: as users write it.
        runtime: the engine's name.
        precision: ``fp32``, ``fp16`` or ``int8``.
        twin: the float32 target of the same engine, that others are judged against.
        timed: whether its files can be timed here, if they run.
        portable: whether its files are for every machine that has the engine.
        laid_out: whether its INT8 files are laid out for the arithmetic of a kind of processors.
    """

    runtime: str
    timed = True
    portable = True
    laid_out = False

    def __init__(self, name: str, precision: str, twin: str = "") -> None:
        self.name, self.precision, self.twin = name, precision, twin

    def engine(self) -> Runtime:
        """The engine."""
        return get_runtime(self.runtime)

    def versions(self) -> dict[str, str]:
        """Of the packages that take part in building, as far as they are here."""
        return {self.runtime: self.engine().version}

    def check(self, options: ExportOptions) -> None:
        """See, before anything is built, that there is what building needs.

        Raises:
            MissingDependencyError: if the engine is not installed, or too old.
            DeviceError: if the engine is of a version that is not supported.
            InputError: if options of the engine cannot be had.
        """
        self.versions()

    def built_for(self, options: ExportOptions) -> str:
        """The kind of processors that a file is laid out for, where it is not the one here."""
        if not self.laid_out or self.precision != "int8":
            return ""
        same = ByteMath.of(options.processor) == ByteMath.of("here")
        return "" if same else options.processor

    @abstractmethod
    def build(self, source: "Source", folder: Path) -> Built:
        """Write the files.

        Raises:
            InputError: if INT8 is asked for without calibration images.
            MissingDependencyError: if the engine is not installed, or too old.
            DeviceError: if the engine refuses the graph.
        """

    def loads(self, files: Iterable[str]) -> bool:
        """Whether, of a bundle's files of those names, the engine loads any where it is."""
        return True

    @abstractmethod
    def artefact(self, files: Mapping[str, bytes]) -> bytes:
        """What the engine loads.

        Args:
            files: by name; their hashes have been checked.

        Raises:
            FileFormatError: if they are not the files of this target.
            InputError: if they are not to be loaded on this machine.
        """

    def load(self, artefact: bytes, *, threads: int = 1) -> Session:
        """Load an artefact."""
        return self.engine().load(artefact, threads=threads)

    def preprocessing(self, asked: str) -> str:
        """What of the preprocessing that was asked for goes into the files."""
        return asked

    def input(self, size: int, *, batch: int | None, preprocessing: str) -> Input:
        """What the files take."""
        kind = self.preprocessing(preprocessing)
        count: int | str = "batch" if batch is None else batch
        if kind == "none":
            shape: tuple[int | str, ...] = (count, 3, size, size)
            return Input(
                name=INPUT, dtype="float32", shape=shape, layout="NCHW", preprocessing="none"
            )
        sides: tuple[int | str, ...] = (size, size) if kind == "normalise" else ("height", "width")
        return Input(
            name=PIXELS,
            dtype="uint8",
            shape=(count, *sides, 3),
            layout="NHWC",
            preprocessing=kind,
        )


def ending(files: Mapping[str, bytes], suffix: str) -> bytes:
    """The one of the files whose name ends so.

    Raises:
        FileFormatError: if there is not exactly one.
    """
    found = [data for name, data in files.items() if name.endswith(suffix)]
    if len(found) != 1:
        raise FileFormatError(f"expected one {suffix} file, found {', '.join(files)}")
    return found[0]
