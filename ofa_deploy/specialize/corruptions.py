"""Images made worse: noise, blur, contrast, brightness and JPEG, each at five severities.

Parameters are those of CIFAR-10-C for images of at most 64 pixels and of ImageNet-C for larger ones
(Hendrycks and Dietterich 2019); blur is Gaussian, borders reflected. Glyphs and other sets have no
published corrupted form, so figures compare networks on one set, not sets.
"""

import io
import math

import numpy as np
import numpy.typing as npt
import torch
from kornia.filters import gaussian_blur2d
from PIL import Image

from ofa_deploy.errors import InputError, UnknownNameError

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt"]

SEVERITIES = (1, 2, 3, 4, 5)
_SMALL_PIXELS = 64
# By severity: standard deviation, radius in pixels, share of contrast kept, brightness added,
# quality.
_SMALL = {
    "noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "jpeg": (80, 65, 58, 50, 40),
}
_LARGE = {
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "blur": (1.0, 2.0, 3.0, 4.0, 6.0),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "jpeg": (25, 18, 15, 10, 7),
}
CORRUPTIONS = tuple(_SMALL)

Pixels = npt.NDArray[np.uint8]
Unit = npt.NDArray[np.float64]


def corrupt(images: Pixels, name: str, severity: int, *, seed: int = 0) -> Pixels:
    """A corrupted copy of images.

    Args:
        images: uint8 RGB, shape (n, 3, size, size).
        name: one of ``CORRUPTIONS``.
        severity: from 1, mild, to 5.
        seed: of the noise.

    Raises:
        UnknownNameError, InputError: if there is no such corruption or severity.
    """
    if name not in CORRUPTIONS:
        raise UnknownNameError("corruption", name, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise InputError(f"expected a severity from 1 to 5, found {severity}")
    size = images.shape[-1]
    value = (_SMALL if size <= _SMALL_PIXELS else _LARGE)[name][severity - 1]
    if name == "jpeg":
        return np.stack([_jpeg(image, int(value)) for image in images]) if len(images) else images
    unit = images.astype(np.float64) / 255
    match name:
        case "noise":
            rng = np.random.default_rng([seed, severity, 0xC0])
            made = unit + value * rng.standard_normal(unit.shape)
        case "blur":
            made = _blurred(unit, value)
        case "contrast":
            middle = unit.mean((2, 3), keepdims=True)
            made = middle + value * (unit - middle)
        case _:
            made = _brighter(unit, value)
    return np.clip(np.rint(255 * made), 0, 255).astype(np.uint8)


def _blurred(images: Unit, sigma: float) -> Unit:
    # As far as four deviations; a border can only be reflected once.
    reach = min(math.ceil(4 * sigma), images.shape[-1] - 1)
    size = 2 * reach + 1
    blurred = gaussian_blur2d(torch.from_numpy(images), (size, size), (sigma, sigma))
    made: Unit = blurred.numpy()
    return made


def _brighter(images: Unit, added: float) -> Unit:
    """Add to the value of HSV: all channels by one factor, so that hue and saturation stay."""
    value = images.max(1, keepdims=True)
    raised = np.minimum(value + added, 1)
    made: Unit = np.where(value > 0, images * raised / np.maximum(value, 1e-12), raised)
    return made


def _jpeg(image: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(
        buffer, "JPEG", quality=quality
    )
    with Image.open(buffer) as read:
        return np.asarray(read).transpose(2, 0, 1)
