"""From an encoded image to pixels of one size."""

from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from ofa_deploy.errors import InputError

__all__ = ["decode", "read_image"]

# Greys, palettes and colours whose meaning is certain. Pillow would also convert floating-point
# greys and Lab, by rules that nobody trained with.
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I")


def read_image(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """One image file as uint8 RGB, shape (3, size, size): the centre square, resized.

    Orientation tags are obeyed, transparency is dropped, 16-bit greys are scaled to 8.

    Raises:
        InputError: if the file cannot be decoded, or its channels are neither grey nor colour.
    """
    return decode(path, str(path), size)


def decode(source: Path | bytes, name: str, size: int) -> npt.NDArray[np.uint8]:
    """``read_image`` of a file or of its bytes; ``name`` is what an error calls it."""
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            _check(image)
            rgb = _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except (
        OSError,  # also UnidentifiedImageError
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,  # where warnings are errors
    ) as error:
        raise InputError(
            f"{name}: not a readable image ({_reason(error)}); mend or remove it"
        ) from None
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    box = (left, top, left + side, top + side)
    square = rgb.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _check(image: Image.Image) -> None:
    """Refuse what Pillow would only warn about, or convert by a rule of its own."""
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels are too many")
    if image.mode not in _MODES and not image.mode.startswith("I;16"):
        bands = len(image.getbands())
        raise ValueError(
            f"{bands} channel{'s' if bands > 1 else ''} of mode {image.mode}, "
            "expected grey, RGB, RGBA or CMYK"
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):  # its message names objects in memory
        return "of no known format, or damaged"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit greys, which Pillow also opens as 32-bit integers
        grey = np.asarray(image).clip(0, 2**16 - 1) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # a palette may hold transparency
    return image.convert("RGB")
