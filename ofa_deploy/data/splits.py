"""The three sets that every job keeps apart: train, validation, test."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ofa_deploy.data.files import ImageFiles, Parts
from ofa_deploy.data.folder import folder_parts
from ofa_deploy.data.glyphs import glyphs
from ofa_deploy.data.hub import PREFIX, SHORT_NAMES, HubName, hub_parts
from ofa_deploy.data.images import Images
from ofa_deploy.errors import InputError
from ofa_deploy.terminal import SILENT, Progress

__all__ = ["DataSplits", "full_name", "load_data"]

_MAX_BYTES = 2 * 2**30
_FEWEST = 10


@dataclass(frozen=True, eq=False)
class DataSplits:
    """Train on ``train``, choose on ``validation``, report on ``test``."""

    name: str
    train: Images
    validation: Images
    test: Images

    @cached_property
    def digest(self) -> str:
        """A short name for exactly these images and labels.

        Of images in memory every pixel counts. Of images that stay on disk only their names
        within the data set, sizes in bytes and labels do: one that was painted over without a
        change of its length is not noticed.
        """
        total = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            for piece in part.identity():
                total.update(piece)
        return total.hexdigest()[:16]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.train.classes

    def calibration(self, count: int) -> Images:
        """The first ``count`` images of a fixed shuffle of the training set, for BN statistics."""
        order = np.random.default_rng(0xCA11B).permutation(len(self.train))
        return self.train.take(order[:count])


def full_name(name: str) -> str:
    """The name of a data set as it holds in any working directory: folders made absolute.

    Raises:
        InputError: if it begins with ``hf:`` and is not of that form.
    """
    if name == "glyphs" or name in SHORT_NAMES:
        return name
    return str(HubName.parse(name)) if name.startswith(PREFIX) else str(Path(name).resolve())


def load_data(
    name: str,
    *,
    size: int,
    seed: int = 0,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
    skip_bad: bool = False,
    progress: Progress = SILENT,
) -> DataSplits:
    """Load a data set and split it.

    What takes no more than 2 GiB decoded is read into memory. Of a larger set the images stay
    where they are and are decoded batch by batch; one that cannot be read then ends the job that
    asked for it, unless ``skip_bad`` has it found before.

    Args:
        name: one of

            - ``glyphs``;
            - a folder with one sub-folder of images a class, or one that holds ``train/`` and
              ``test/`` or ``validation/`` (``valid/``, ``val/``) of that form;
            - ``hf:NAME_OR_FOLDER[:CONFIG][?image=COLUMN&label=COLUMN]``, a data set of the
              Hugging Face hub, a folder of parquet files or a saved data set;
            - ``cifar10`` or ``cifar100``, from the hub.

            Where there is no test part a validation part takes its place, and where there is
            neither a fifth of the images is held out.
        size: height and width in pixels.
        seed: for rendering and splitting.
        train: how many images to train and validate on, at most (glyphs: 8,000 + validation).
            A validation part of its own comes on top.
        validation: how many of them to hold out for choosing (default: glyphs 1,500, else a
            tenth); of a validation part of its own, how many to use at most.
        test: how many test images, at most (glyphs: 2,000).
        skip_bad: leave out images that cannot be read, rather than refuse the set. Of a set that
            does not fit in memory each image is decoded once to find out.

    Raises:
        InputError: if there is no such set, or something in it cannot be used.
    """
    if name == "glyphs":
        return _glyph_splits(size, seed, train, validation, test)
    if name in SHORT_NAMES or name.startswith(PREFIX):
        parts = hub_parts(name, size, progress=progress)
    else:
        parts = _folder(name, size)
    learn, chosen, report = _with_test(name, parts, seed)
    learn, report = _at_most(learn, train, seed), _at_most(report, test, seed)
    chosen = None if chosen is None else _at_most(chosen, validation, seed)
    reader = _Reader.of([learn, chosen, report], skip_bad, progress)
    rest, reported = reader.read("train", learn), reader.read("test", report)
    if chosen is not None:
        return DataSplits(name, rest, reader.read("validation", chosen), reported)
    held_out = max(1, len(rest) // 10) if validation is None else validation
    return DataSplits(name, *rest.split(held_out, seed=seed), reported)


def _glyph_splits(
    size: int, seed: int, train: int | None, validation: int | None, test: int | None
) -> DataSplits:
    held_out = 1_500 if validation is None else validation
    count = (8_000 if train is None else train) + held_out
    learn = glyphs("train", count, seed=seed, size=size)
    report = glyphs("test", 2_000 if test is None else test, seed=seed, size=size)
    return DataSplits("glyphs", *learn.split(held_out, seed=seed), report)


def _folder(name: str, size: int) -> Parts:
    if not Path(name).is_dir():
        raise InputError(
            f"data {name!r}: neither 'glyphs' nor a folder; expected one sub-folder of images a "
            f"class, {', '.join(SHORT_NAMES)} or hf:NAME"
        )
    return folder_parts(Path(name), size)


def _with_test(
    name: str, parts: Parts, seed: int
) -> tuple[ImageFiles, ImageFiles | None, ImageFiles]:
    """Train, validation and test, the last held out of the first if need be."""
    if parts.test is not None:
        return parts.train, parts.validation, parts.test
    everything = parts.train
    if len(everything) < _FEWEST:
        raise InputError(f"{name}: expected at least {_FEWEST} images, found {len(everything)}")
    learn, report = everything.split(len(everything) // 5, seed=seed + 1)
    return learn, parts.validation, report


def _at_most(images: ImageFiles, count: int | None, seed: int) -> ImageFiles:
    if count is None or count >= len(images):
        return images
    return images.split(count, seed=seed + 2)[1]


@dataclass(frozen=True)
class _Reader:
    """Brings the parts of a set into memory, if all of them fit."""

    fits: bool
    skip_bad: bool
    progress: Progress

    @classmethod
    def of(
        cls, parts: Sequence[ImageFiles | None], skip_bad: bool, progress: Progress
    ) -> "_Reader":
        memory = sum(part.memory for part in parts if part is not None)
        if memory > _MAX_BYTES:
            progress.say(
                f"the images take {memory / 2**30:.1f} GiB decoded; they stay on disk and are "
                "decoded batch by batch"
            )
        return cls(memory <= _MAX_BYTES, skip_bad, progress)

    def read(self, what: str, images: ImageFiles) -> Images:
        if self.fits:
            return images.in_memory(what=what, skip_bad=self.skip_bad, progress=self.progress)
        return images.without_bad(what=what, progress=self.progress) if self.skip_bad else images
