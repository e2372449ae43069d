"""The three sets that every job keeps apart: train, validation, test."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ofa_deploy._progress import SILENT, Progress
from ofa_deploy.data.folder import image_folder
from ofa_deploy.data.glyphs import glyphs
from ofa_deploy.data.images import ImageSet
from ofa_deploy.errors import InputError

__all__ = ["DataSplits", "load_data"]


@dataclass(frozen=True, eq=False)
class DataSplits:
    """Train on ``train``, choose on ``validation``, report on ``test``."""

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet

    @cached_property
    def digest(self) -> str:
        """A short name for exactly these images and labels."""
        total = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            total.update(part.images.tobytes() + part.labels.tobytes())
        return total.hexdigest()[:16]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.train.classes

    def calibration(self, count: int) -> ImageSet:
        """The first ``count`` images of a fixed shuffle of the training set, for BN statistics."""
        order = np.random.default_rng(0xCA11B).permutation(len(self.train))
        return self.train.take(order[:count])


def load_data(
    name: str,
    *,
    size: int,
    seed: int = 0,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
    progress: Progress = SILENT,
) -> DataSplits:
    """Load a data set and split it.

    Args:
        name: ``glyphs``, or a folder with one sub-folder of images a class. A folder that holds
            ``train/`` and ``test/`` (or ``val/``) uses those; otherwise a fifth is held out.
        size: height and width in pixels.
        seed: for rendering and splitting.
        train: how many images to train and validate on, at most (glyphs: 8,000 + validation).
        validation: how many of them to hold out for choosing (default: glyphs 1,500, else a tenth).
        test: how many test images, at most (glyphs: 2,000).

    Raises:
        InputError: if the folder is not one of images by class.
    """
    if name == "glyphs":
        held_out = 1_500 if validation is None else validation
        learn = glyphs(
            "train", (8_000 if train is None else train) + held_out, seed=seed, size=size
        )
        report = glyphs("test", 2_000 if test is None else test, seed=seed, size=size)
    else:
        learn, report = _folder_splits(Path(name), size, seed, progress)
        learn, report = _at_most(learn, train, seed), _at_most(report, test, seed)
        held_out = max(1, len(learn) // 10) if validation is None else validation
    rest, chosen = learn.split(held_out, seed=seed)
    return DataSplits(name, rest, chosen, report)


def _folder_splits(
    folder: Path, size: int, seed: int, progress: Progress
) -> tuple[ImageSet, ImageSet]:
    if not folder.is_dir():
        raise InputError(
            f"data {str(folder)!r}: neither 'glyphs' nor a folder; expected one sub-folder of "
            "images a class"
        )
    held_out = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    if held_out is not None and (folder / "train").is_dir():
        learn = image_folder(folder / "train", size=size, progress=progress)
        return learn, image_folder(held_out, size=size, classes=learn.classes, progress=progress)
    everything = image_folder(folder, size=size, progress=progress)
    if len(everything) < 10:
        raise InputError(f"{folder}: expected at least 10 images, found {len(everything)}")
    return everything.split(len(everything) // 5, seed=seed + 1)


def _at_most(images: ImageSet, count: int | None, seed: int) -> ImageSet:
    if count is None or count >= len(images):
        return images
    return images.split(count, seed=seed + 2)[1]
