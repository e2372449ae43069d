"""Augmentation of a training batch, from an explicit generator."""

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import UnknownNameError

__all__ = ["AUGMENTATIONS", "augment"]

AUGMENTATIONS = ("none", "crop", "crop+flip")


def augment(
    images: npt.NDArray[np.uint8], how: str, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Vary a batch.

    Args:
        images: uint8, shape (n, 3, h, w).
        how: ``crop`` shifts by up to an eighth of the size, borders reflected (4 pixels at 32, as
            in He et al. 2016); ``crop+flip`` also mirrors half of the images; ``none``.

    Raises:
        UnknownNameError: for another ``how``.
    """
    if how not in AUGMENTATIONS:
        raise UnknownNameError("augmentation", how, AUGMENTATIONS)
    if how == "none":
        return images
    n, _, height, width = images.shape
    pad = max(1, height // 8)
    padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect")
    tops, lefts = rng.integers(0, 2 * pad + 1, size=(2, n))
    rows = tops[:, None] + np.arange(height)
    columns = lefts[:, None] + np.arange(width)
    cropped = padded[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    cropped = cropped.transpose(0, 3, 1, 2)
    if how == "crop+flip":
        mirrored = rng.random((n, 1, 1, 1)) < 0.5
        cropped = np.where(mirrored, cropped[..., ::-1], cropped)
    return np.ascontiguousarray(cropped)
