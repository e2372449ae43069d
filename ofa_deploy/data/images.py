"""``Images``: what every labelled set can do; ``ImageSet``: one that lies in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import InputError

__all__ = ["ImageSet", "Images", "Indices", "check_labels", "held_out_mask", "in_proportion"]

Indices = npt.NDArray[np.integer] | Sequence[int] | slice


class Images(Protocol):
    """Labelled images of one size, in memory or not."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Shape (n,), indices into ``classes``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in label order."""

    @property
    def size(self) -> int:
        """Height and width in pixels."""

    def __len__(self) -> int: ...

    def batch(self, indices: Indices) -> npt.NDArray[np.uint8]:
        """The images at ``indices``, in that order: uint8 RGB, shape (k, 3, size, size).

        Raises:
            InputError: if one of them cannot be read.
        """

    def take(self, indices: Indices) -> Self:
        """The set of the images at ``indices``, in that order."""

    def split(self, held_out: int, *, seed: int) -> tuple[Self, Self]:
        """Part into (the rest, ``held_out`` images), each class in proportion.

        The split depends on ``seed`` and on the labels only.

        Raises:
            InputError: if nothing would remain on one side.
        """

    def identity(self) -> Iterator[bytes | memoryview]:
        """What a digest of the set is taken over."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images of one size, in memory.

    Attributes:
        images: uint8, shape (n, 3, size, size), RGB.
        labels: int64, shape (n,), indices into ``classes``.
        classes: the class names, in label order.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = self.images.shape
        square = len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3]
        if self.images.dtype != np.uint8 or not square:
            raise InputError(
                f"expected uint8 images of shape (n, 3, size, size), found "
                f"{self.images.dtype} {shape}"
            )
        check_labels(self.labels, len(self.images), len(self.classes))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.images.shape[-1])

    def batch(self, indices: Indices) -> npt.NDArray[np.uint8]:
        return self.images[indices]

    def take(self, indices: Indices) -> "ImageSet":
        return ImageSet(self.images[indices], self.labels[indices], self.classes)

    def split(self, held_out: int, *, seed: int) -> tuple["ImageSet", "ImageSet"]:
        chosen = held_out_mask(self.labels, held_out, seed)
        return self.take(np.flatnonzero(~chosen)), self.take(np.flatnonzero(chosen))

    def identity(self) -> Iterator[bytes | memoryview]:
        """Every pixel and every label."""
        yield np.ascontiguousarray(self.images).data
        yield np.ascontiguousarray(self.labels).data


def in_proportion(images: Images, count: int) -> Images:
    """``count`` images, each class in proportion, always the same ones; all if there are fewer.

    Test sets lie sorted by class: their first images would be those of the first classes.
    """
    return images if count >= len(images) else images.split(count, seed=0)[1]


def check_labels(labels: npt.NDArray[np.int64], images: int, classes: int) -> None:
    """See that there is a label for each image and a class for each label.

    Raises:
        InputError: otherwise.
    """
    if labels.shape != (images,) or labels.dtype != np.int64:
        raise InputError(f"expected {images} int64 labels, found {labels.dtype} {labels.shape}")
    if images and not (labels.min() >= 0 and labels.max() < classes):
        raise InputError(f"labels must lie in 0..{classes - 1}")


def held_out_mask(labels: npt.NDArray[np.int64], held_out: int, seed: int) -> npt.NDArray[np.bool_]:
    """Which images to hold out: bool, shape (n,), ``held_out`` of them true.

    Raises:
        InputError: if nothing would remain on one side.
    """
    n = len(labels)
    if not 0 < held_out < n:
        raise InputError(
            f"cannot hold out {held_out} of {n} images; expected a number from 1 to {n - 1}"
        )
    rng = np.random.default_rng([seed, 0x51117])
    order = rng.permutation(n)
    by_class = order[np.argsort(labels[order], kind="stable")]
    # Every (n / held_out)-th image of the list sorted by class: proportions hold to one image.
    picked = np.floor((np.arange(held_out) + rng.random()) * n / held_out).astype(int)
    chosen = np.zeros(n, dtype=bool)
    chosen[by_class[picked]] = True
    return chosen
