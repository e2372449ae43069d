"""``ImageFiles``: images that stay on disk and are decoded when they are asked for."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ofa_deploy.data.decode import decode
from ofa_deploy.data.images import ImageSet, Indices, check_labels, held_out_mask
from ofa_deploy.errors import InputError
from ofa_deploy.terminal import SILENT, Progress

__all__ = ["Encoded", "FolderSource", "ImageFiles", "Parts", "Source"]

Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]

Encoded = tuple[str, Path | bytes]
"""What an error calls an image, and where it is or its bytes."""

_CHUNK = 256
_THREADS = min(8, os.cpu_count() or 1)


class Source(Protocol):
    """Where encoded images lie, by row."""

    def encoded(self, rows: Int64) -> list[Encoded]:
        """The images of ``rows``, in that order."""

    def identity(self, rows: Int64) -> Iterator[str]:
        """For each row a relative name and the size in bytes."""


@dataclass(frozen=True)
class FolderSource:
    """Files below a folder.

    Attributes:
        names: of the files, relative to ``folder``, with ``/``.
    """

    folder: Path
    names: tuple[str, ...]

    def encoded(self, rows: Int64) -> list[Encoded]:
        paths = [self.folder / self.names[row] for row in rows]
        return [(str(path), path) for path in paths]

    def identity(self, rows: Int64) -> Iterator[str]:
        for row in rows:
            path = self.folder / self.names[row]
            try:
                yield f"{self.names[row]} {path.stat().st_size}"
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from None


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Labelled images that lie in files or in rows of a table, too many for memory.

    A batch is decoded by a few threads. Those live as long as the batch, so that the set can be
    handed to other processes, forked or not.

    Attributes:
        source: where they lie.
        rows: int64, shape (n,), the images of ``source`` that belong to this set.
        labels: int64, shape (n,), indices into ``classes``.
        classes: the class names, in label order.
        size: height and width in pixels that they are brought to.
    """

    source: Source
    rows: Int64
    labels: Int64
    classes: tuple[str, ...]
    size: int

    def __post_init__(self) -> None:
        check_labels(self.labels, len(self.rows), len(self.classes))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def memory(self) -> int:
        """Bytes that all images take, decoded."""
        return len(self) * 3 * self.size**2

    def batch(self, indices: Indices) -> UInt8:
        rows = self.rows[indices]
        images = np.empty((len(rows), 3, self.size, self.size), np.uint8)
        for i, image in enumerate(self._decoded(rows)):
            if isinstance(image, InputError):
                raise image
            images[i] = image
        return images

    def take(self, indices: Indices) -> "ImageFiles":
        return replace(self, rows=self.rows[indices], labels=self.labels[indices])

    def split(self, held_out: int, *, seed: int) -> tuple["ImageFiles", "ImageFiles"]:
        chosen = held_out_mask(self.labels, held_out, seed)
        return self.take(np.flatnonzero(~chosen)), self.take(np.flatnonzero(chosen))

    def identity(self) -> Iterator[bytes | memoryview]:
        """Names, sizes in bytes and labels; a change that leaves all of them goes unseen."""
        yield f"{self.size}\n".encode()
        for name in self.source.identity(self.rows):
            yield f"{name}\n".encode()
        yield np.ascontiguousarray(self.labels).data

    def in_memory(
        self, *, what: str = "images", skip_bad: bool = False, progress: Progress = SILENT
    ) -> ImageSet:
        """Decode all images.

        Args:
            what: they are, for the progress bar.
            skip_bad: leave out what cannot be read, and say how many.

        Raises:
            InputError: if an image cannot be read, or with ``skip_bad`` none of a class.
        """
        images = np.empty((len(self), 3, self.size, self.size), np.uint8)
        good = np.zeros(len(self), bool)
        for i, image in self._checked(what, skip_bad=skip_bad, progress=progress):
            images[i], good[i] = image, True
        kept = self._readable(good)
        return ImageSet(images if good.all() else images[good], kept.labels, self.classes)

    def without_bad(self, *, what: str = "images", progress: Progress = SILENT) -> "ImageFiles":
        """The images that can be read; finding out takes as long as decoding them all.

        Raises:
            InputError: if none of a class can.
        """
        good = np.zeros(len(self), bool)
        for i, _ in self._checked(what, skip_bad=True, progress=progress):
            good[i] = True
        return self._readable(good)

    def _checked(
        self, what: str, *, skip_bad: bool, progress: Progress
    ) -> Iterator[tuple[int, UInt8]]:
        """(position, image) of all that can be read; the others are counted and reported."""
        bad: list[InputError] = []
        with progress.task(f"read {what}", len(self)) as task:
            for start in range(0, len(self), _CHUNK):
                decoded = self._decoded(self.rows[start : start + _CHUNK])
                for i, image in enumerate(decoded, start):
                    task.advance()
                    if not isinstance(image, InputError):
                        yield i, image
                    elif skip_bad:
                        bad.append(image)
                    else:
                        raise InputError(f"{image}, or leave out all such with --skip-bad")
        if bad:
            plural = "s" if len(bad) > 1 else ""
            first = str(bad[0]).rpartition(";")[0]  # without the advice: it was left out
            progress.say(f"skipped {len(bad):,} unreadable image{plural}, the first: {first}")

    def _readable(self, good: npt.NDArray[np.bool_]) -> "ImageFiles":
        kept = self.take(np.flatnonzero(good))
        lost = sorted(set(self.labels.tolist()) - set(kept.labels.tolist()))
        if lost:
            names = ", ".join(self.classes[label] for label in lost)
            raise InputError(f"no readable images for class {names}; mend them or remove the class")
        return kept

    def _decoded(self, rows: Int64) -> list[UInt8 | InputError]:
        encoded = self.source.encoded(rows)
        if _THREADS == 1 or len(encoded) < 2:
            return [self._decode(each) for each in encoded]
        with ThreadPoolExecutor(min(_THREADS, len(encoded))) as pool:
            return list(pool.map(self._decode, encoded))

    def _decode(self, encoded: Encoded) -> UInt8 | InputError:
        name, content = encoded
        try:
            return decode(content, name, self.size)
        except InputError as error:
            return error


@dataclass(frozen=True)
class Parts:
    """The sets that a data set comes in; what is None is to be held out of ``train``."""

    train: ImageFiles
    validation: ImageFiles | None = None
    test: ImageFiles | None = None
