"""Folders of images by class."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ofa_deploy.data.files import FolderSource, ImageFiles, Parts
from ofa_deploy.errors import InputError
from ofa_deploy.files import storage_errors

__all__ = ["SUFFIXES", "folder_images", "folder_parts", "image_folder"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_SHOWN = 10  # names in a message
_VALIDATION = ("validation", "valid", "val")


def image_folder(folder: Path, *, size: int, classes: tuple[str, ...] | None = None) -> ImageFiles:
    """List ``folder/CLASS/*.png`` (and the other ``SUFFIXES``), classes in alphabetical order.

    Sub-folders of a class are searched too, links among them; hidden files and folders are passed
    over. No image is read yet.

    Args:
        size: height and width in pixels that the images are brought to.
        classes: the classes that must be there, when another split has set them.

    Raises:
        InputError: if there are fewer than two classes, or a class is empty or unexpected.
        StorageError: if a folder cannot be read: its images would be missing without a word.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one sub-folder of images a class")
    found = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."))
    if classes is not None and found != classes:
        raise InputError(
            f"{folder}: its classes differ from the training set's: {_difference(found, classes)}"
        )
    if len(found) < 2:
        raise InputError(
            f"{folder}: expected at least two sub-folders (classes), found {len(found)}"
            f"{_one_class(folder)}"
        )
    files = [_files(folder, name) for name in found]
    if missing := [name for name, inside in zip(found, files, strict=True) if not inside]:
        names = ", ".join(missing)
        raise InputError(f"{folder}: no images for class {names}; add some or remove the folder")
    labels = np.repeat(np.arange(len(found), dtype=np.int64), [len(inside) for inside in files])
    source = FolderSource(folder, tuple(name for inside in files for name in inside))
    return ImageFiles(source, np.arange(len(labels)), labels, found, size)


def folder_parts(folder: Path, size: int) -> Parts:
    """``folder/train``, with ``test`` and ``validation`` (``valid``, ``val``) where there are any.

    A validation part without a test part is reported on, as a test part is. Without ``train``, or
    with nothing beside it, the folder itself is taken for one set.

    Raises:
        InputError: if one of them is not a folder of images by class.
    """
    test = folder / "test"
    chosen = next((folder / name for name in _VALIDATION if (folder / name).is_dir()), None)
    if not (folder / "train").is_dir() or (chosen is None and not test.is_dir()):
        return Parts(image_folder(folder, size=size))
    train = image_folder(folder / "train", size=size)
    others = [
        image_folder(part, size=size, classes=train.classes)
        for part in (chosen, test)
        if part is not None and part.is_dir()
    ]
    return Parts(train, others[0] if len(others) == 2 else None, others[-1])


def folder_images(folder: Path) -> list[Path]:
    """All images below a folder, in the order of their paths; hidden ones are passed over."""
    return [folder / name for name in _files(folder, ".")]


def _one_class(folder: Path) -> str:
    """What to add where one class is none: images lie right in the folder, or one part of two."""
    if (folder / "train").is_dir():
        return f"; to split what is in train, give {folder / 'train'}, or put a test beside it"
    if not any(path.name.lower().endswith(SUFFIXES) for path in folder.iterdir()):
        return ""
    parent = folder.absolute().parent
    return f"; images lie right in it: where it is one class of several, give its parent, {parent}"


def _files(folder: Path, name: str) -> list[str]:
    """The images below ``folder/name``, relative to ``folder``, in the order of their paths."""
    found: list[str] = []
    seen = {_inode(folder / name)}
    for parent, folders, files in os.walk(folder / name, onerror=_unreadable, followlinks=True):
        # Sorted, so that of several ways to one folder always the same is taken.
        folders[:] = [
            each
            for each in sorted(folders)
            if each[0] != "." and _new(_inode(Path(parent, each)), seen)
        ]
        below = Path(parent).relative_to(folder)
        for file in files:
            if file[0] != "." and file.lower().endswith(SUFFIXES):
                found.append((below / file).as_posix())
    return sorted(found, key=lambda path: path.split("/"))


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """Which classes are too many and which are missing, a few of each."""
    sides = {"only there": set(found) - set(expected), "missing there": set(expected) - set(found)}
    told = []
    for where, names in sides.items():
        some = sorted(names)[:_SHOWN]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        told += [f"{where}: {', '.join(some)}{more}"] if names else []
    return "; ".join(told)


def _inode(folder: Path) -> tuple[int, int]:
    with storage_errors(folder, "read"):
        found = folder.stat()
    return found.st_dev, found.st_ino


def _new(inode: tuple[int, int], seen: set[tuple[int, int]]) -> bool:
    """Whether a folder was not met before: a link may lead back up."""
    before = len(seen)
    seen.add(inode)
    return len(seen) > before


def _unreadable(error: OSError) -> None:
    with storage_errors(Path(error.filename), "read"):
        raise error
