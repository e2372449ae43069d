"""``ImageSet``: labelled images in memory, and how they are split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import InputError

__all__ = ["ImageSet"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images of one size.

    Attributes:
        images: uint8, shape (n, 3, size, size), RGB.
        labels: int64, shape (n,), indices into ``classes``.
        classes: the class names, in label order.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.images)
        shape = self.images.shape
        square = len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3]
        if self.images.dtype != np.uint8 or not square:
            raise InputError(
                f"expected uint8 images of shape (n, 3, size, size), found "
                f"{self.images.dtype} {shape}"
            )
        if self.labels.shape != (n,) or self.labels.dtype != np.int64:
            raise InputError(
                f"expected {n} int64 labels, found {self.labels.dtype} {self.labels.shape}"
            )
        if n and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise InputError(f"labels must lie in 0..{len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.images.shape[-1])

    def take(self, indices: npt.NDArray[np.integer] | Sequence[int] | slice) -> "ImageSet":
        """The images at ``indices``, in that order."""
        return ImageSet(self.images[indices], self.labels[indices], self.classes)

    def split(self, held_out: int, *, seed: int) -> tuple["ImageSet", "ImageSet"]:
        """Part into (the rest, ``held_out`` images), each class in proportion.

        The split depends on ``seed`` and on the labels only.

        Raises:
            InputError: if nothing would remain on one side.
        """
        if not 0 < held_out < len(self):
            raise InputError(
                f"cannot hold out {held_out} of {len(self)} images; "
                f"expected a number from 1 to {len(self) - 1}"
            )
        rng = np.random.default_rng([seed, 0x51117])
        order = rng.permutation(len(self))
        by_class = order[np.argsort(self.labels[order], kind="stable")]
        # Every (n / held_out)-th image of the list sorted by class: proportions hold to one image.
        picked = np.floor((np.arange(held_out) + rng.random()) * len(self) / held_out).astype(int)
        chosen = np.zeros(len(self), dtype=bool)
        chosen[by_class[picked]] = True
        return self.take(np.flatnonzero(~chosen)), self.take(np.flatnonzero(chosen))
