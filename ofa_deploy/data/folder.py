"""A folder of images by class, read into memory at one size."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ofa_deploy._progress import SILENT, Progress
from ofa_deploy.data.images import ImageSet
from ofa_deploy.errors import InputError

__all__ = ["SUFFIXES", "image_folder", "read_image"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_MAX_BYTES = 4 * 2**30


def read_image(path: Path, size: int) -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    """One image as uint8 RGB, shape (3, size, size): the centre square, resized.

    Orientation tags are obeyed, transparency is dropped, 16-bit greys are scaled to 8.

    Raises:
        InputError: if the file cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                rgb = _to_rgb(ImageOps.exif_transpose(image))
    except (
        OSError,
        SyntaxError,
        ValueError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise InputError(f"{path}: not a readable image ({error}); mend or remove it") from None
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    box = (left, top, left + side, top + side)
    square = rgb.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit greys, which Pillow also opens as 32-bit integers
        grey = np.asarray(image).clip(0, 2**16 - 1) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # a palette may hold transparency
    return image.convert("RGB")


def image_folder(
    folder: Path, *, size: int, classes: tuple[str, ...] | None = None, progress: Progress = SILENT
) -> ImageSet:
    """Read ``folder/CLASS/*.png`` (and the other ``SUFFIXES``), classes in alphabetical order.

    Args:
        classes: the classes that must be there, when another split has set them.

    Raises:
        InputError: if there are fewer than two classes, a class is empty or unexpected, an image
            cannot be read, or all of them would not fit in memory.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one sub-folder of images a class")
    found = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."))
    if classes is not None and found != classes:
        odd = sorted(set(found) ^ set(classes))
        raise InputError(f"{folder}: its classes differ from the training set's: {', '.join(odd)}")
    if len(found) < 2:
        raise InputError(
            f"{folder}: expected at least two sub-folders (classes), found {len(found)}"
        )
    files = [
        (label, path)
        for label, name in enumerate(found)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    missing = set(range(len(found))) - {label for label, _ in files}
    if missing:
        names = ", ".join(found[label] for label in sorted(missing))
        raise InputError(f"{folder}: no images for class {names}; add some or remove the folder")
    if len(files) * 3 * size**2 > _MAX_BYTES:
        raise InputError(
            f"{folder}: {len(files):,} images of {size}x{size} need "
            f"{len(files) * 3 * size**2 / 2**30:.1f} GiB of memory, more than the "
            f"{_MAX_BYTES / 2**30:.0f} allowed"
        )
    images = np.empty((len(files), 3, size, size), np.uint8)
    with progress.task(f"read {folder.name}", len(files)) as task:
        for i, (_, path) in enumerate(files):
            images[i] = read_image(path, size)
            task.advance()
    return ImageSet(images, np.array([label for label, _ in files], np.int64), found)
