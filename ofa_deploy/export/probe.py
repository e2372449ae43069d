"""A few made-up images with the logits that PyTorch and every file gave for them.

They travel with a bundle, so that any machine can see whether its files still compute what they did
where they were checked, without the data set and without torch's subnet. The images are sums of
random patterns of all scales, as photographs are, as bright and as varied as the training images:
INT8 knows the range of those, and noise far outside it would say nothing of the file. None of the
user's own are given away.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from ofa_deploy.errors import FileFormatError

__all__ = ["PROBE", "Probe", "probe_images"]

PROBE = "probe.safetensors"

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_SMALL = 64  # pixels a side, up to which a probe has more images
_IMAGES, _FEW = 16, 4
_MEAN, _SPREAD = 128.0, 50.0  # of the pixels, where no images tell
_LEAST_SPREAD = 10.0  # that of images all alike would be none


def probe_images(resolution: int, draw: int = 0, *, like: Pixels | None = None) -> Pixels:
    """Images, uint8, shape (n, 3, resolution, resolution); the same at each call.

    Args:
        draw: others for other numbers.
        like: images, uint8, shape (m, 3, height, width), whose brightness these take over: nine
            numbers, the mean of each colour, how images differ in it, and the spread within one.
    """
    mean, between, within = np.full(3, _MEAN), np.zeros(3), np.full(3, _SPREAD)
    if like is not None and len(like):
        means = like.mean((2, 3))
        mean, between = means.mean(0), means.std(0)
        within = like.std((2, 3)).mean(0).clip(_LEAST_SPREAD)
    rng = np.random.default_rng([0x9E0BE, resolution, *([draw] if draw else [])])
    count = _IMAGES if resolution <= _SMALL else _FEW
    total = np.zeros((count, 3, resolution, resolution))
    cells = 1
    while cells <= resolution:
        # Less colour than light, and as much of every scale: 1/f, as in photographs (Field 1987).
        pattern = rng.standard_normal((count, 1, cells, cells))
        pattern = pattern + 0.5 * rng.standard_normal((count, 3, cells, cells))
        places = np.arange(resolution) * cells // resolution
        total += pattern[:, :, places][:, :, :, places]
        cells *= 2
    level = total.mean((1, 2, 3), keepdims=True)
    spread = total.std((1, 2, 3), keepdims=True)
    own = mean + between * rng.standard_normal((count, 1))
    moved = own[:, :, None, None] + within[:, None, None] * (total - level) / spread
    scaled: Pixels = np.clip(moved, 0, 255).astype(np.uint8)
    return scaled


@dataclass(frozen=True)
class Probe:
    """Images and logits.

    Attributes:
        pixels: uint8, shape (n, 3, size, size).
        expected: the PyTorch subnet's logits, shape (n, classes).
        found: those of each target that could run where the bundle was made.
    """

    pixels: Pixels
    expected: Floats
    found: Mapping[str, Floats]

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        targets = {f"target.{name}": logits for name, logits in self.found.items()}
        return save_arrays({"pixels": self.pixels, "expected": self.expected, **targets})

    @classmethod
    def parse(cls, data: bytes, path: str, *, classes: int, size: int) -> "Probe":
        """Read what ``to_bytes`` gave.

        Args:
            path: what an error calls it.

        Raises:
            FileFormatError: if it is damaged, or for another network.
        """
        try:
            arrays = load_arrays(data)
        except (SafetensorError, LookupError, TypeError, ValueError) as error:
            raise FileFormatError(f"{path}: unreadable ({error})") from None
        pixels, expected = (arrays.pop(name, np.zeros(0)) for name in ("pixels", "expected"))
        if pixels.ndim != 4 or not 1 <= len(pixels) <= _IMAGES:
            raise FileFormatError(
                f"{path}: expected 1 to {_IMAGES} images and the logits expected of them"
            )
        logits = (len(pixels), classes)
        floats = [expected, *arrays.values()]
        if (
            pixels.shape[1:] != (3, size, size)
            or pixels.dtype != np.uint8
            or any(a.shape != logits or a.dtype != np.float32 for a in floats)
            or not all(np.isfinite(a).all() for a in floats)
        ):
            raise FileFormatError(
                f"{path}: expected images of {size}x{size} pixels and logits of {classes} classes"
            )
        named = {name.removeprefix("target."): array for name, array in arrays.items()}
        return cls(pixels, expected, named)
