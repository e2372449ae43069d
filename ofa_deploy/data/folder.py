"""A folder of images by class, read into memory at one size."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ofa_deploy._progress import SILENT, Progress
from ofa_deploy.data.images import ImageSet
from ofa_deploy.errors import InputError

__all__ = ["SUFFIXES", "image_folder", "read_image"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_MAX_BYTES = 4 * 2**30


def read_image(path: Path, size: int) -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    """One image as uint8 RGB, shape (3, size, size): shorter side resized, centre cropped.

    Raises:
        InputError: if the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image ({error}); mend or remove it") from None
    scale = size / min(rgb.size)
    width, height = (max(size, round(side * scale)) for side in rgb.size)
    rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    cropped = rgb.crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(cropped).transpose(2, 0, 1))


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
