"""From an image to the classes that a file of a bundle sees in it. Torch-free.

This is what somebody writes who uses a bundle: Pillow and numpy before the file and after it.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ofa_deploy.data import Images, read_image
from ofa_deploy.export.manifest import Preprocessing
from ofa_deploy.runtimes import Session

__all__ = [
    "BATCH",
    "feed",
    "probabilities",
    "read_square",
    "run_in_batches",
    "top1_allowance",
    "top1_of",
]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

BATCH = 250  # images compared at a time
_TOP1_ROUNDING = 0.05  # points that rounding may move top-1 by


def read_square(path: Path) -> Pixels:
    """The centre square of an image file as it is, uint8, shape (side, side, 3).

    Raises:
        InputError: if the file is not an image that can be read.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            side = min(image.size)
    except Exception:  # whatever it is, reading it says so
        side = 1
    return np.ascontiguousarray(read_image(path, side).transpose(1, 2, 0))


def feed(images: Sequence[Pixels], wanted: Preprocessing, inside: str) -> npt.NDArray[Any]:
    """Images as a file takes them.

    Args:
        images: uint8, shape (height, width, 3); of one size if the file resizes them.
        wanted: what is to be done to them.
        inside: what of that the file does itself.
    """
    squares = [_square(image) for image in images]
    if inside == "resize":
        return np.stack(squares)
    size = (wanted.size, wanted.size)
    resized = [
        image
        if image.shape[:2] == size
        else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        for image in squares
    ]
    pixels = np.stack(resized)
    if inside == "normalise":
        return pixels
    deviations = np.array(wanted.std, np.float32)
    scale, shift = 1 / (np.float32(255) * deviations), np.array(wanted.mean, np.float32)
    scaled: Floats = pixels * scale - shift / deviations
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _square(image: Pixels) -> Pixels:
    """The centre; where the border is odd, its wider part is right or below."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def run_in_batches(session: Session, inputs: npt.NDArray[Any], batch: int | None) -> Floats:
    """Run any number of images; where the batch is fixed the last is filled up."""
    if batch is None:
        return session.run(inputs)
    missing = -len(inputs) % batch
    filled = np.concatenate([inputs, np.repeat(inputs[-1:], missing, 0)]) if missing else inputs
    parts = [
        session.run(np.ascontiguousarray(filled[i : i + batch]))
        for i in range(0, len(filled), batch)
    ]
    return np.concatenate(parts)[: len(inputs)]


def top1_of(logits: Callable[[Pixels], Floats], images: Images) -> float:
    """The share of images, in percent, whose class is the greatest of their logits.

    Args:
        logits: of images uint8 (n, 3, size, size).
    """
    right = 0
    for start in range(0, len(images), BATCH):
        part = np.arange(start, min(start + BATCH, len(images)))
        right += int((logits(images.batch(part)).argmax(1) == images.labels[part]).sum())
    return 100 * right / len(images)


def top1_allowance(images: int) -> float:
    """Points of top-1 by which a float32 file may differ from its subnet.

    Args:
        images: that top-1 is a share of.
    """
    # Two classes may be as good as equal: rounding then decides, and one image must not sink a
    # file. Of fewer than 2,000 images, one is more than the share that is allowed of many.
    return max(_TOP1_ROUNDING, 100 / images) + 1e-6  # shares are rounded themselves


def probabilities(found: Floats, output: str = "logits") -> npt.NDArray[np.float64]:
    """What a file gives as probabilities, shape (n, classes).

    Args:
        output: what it gives, as the manifest names it.
    """
    logits = found.astype(np.float64)
    if output == "probabilities":
        return logits
    powers = np.exp(logits - logits.max(1, keepdims=True))
    result: npt.NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return result
