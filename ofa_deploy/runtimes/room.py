"""Room on a disk for what can be made again, such as engines.

Measuring uses the same things in the same order, process after process. What was used longest ago
is then what is asked for next, so what goes is drawn at random. Agents carry this file: standard
library only, on Python 3.8 too.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

__all__ = ["TIMINGS", "keep_open", "make_room", "size_of", "to_remove"]

TIMINGS = "timings"  # what builds of engines share, which stays
_MOST = 2**33  # bytes
_chosen = random.Random()
_open: set[Path] = set()  # what this process has opened: its job asks for them again

Name = TypeVar("Name")


def to_remove(
    sizes: Mapping[Name, int], size: int, free: int, *, stay: Collection[Name] = ()
) -> list[Name] | None:
    """What has to go, so that all takes half of what there is at most, and 8 GiB.

    Args:
        sizes: of what is kept, in bytes.
        size: of what comes; 0 if it is among them.
        free: bytes that the disk has left.
        stay: of what is kept, what stays.

    Returns:
        Their names; None if it is not enough that all of them go.
    """
    total = size + sum(sizes.values())
    most = min(_MOST, (sum(sizes.values()) + free) // 2)
    others = [name for name in sizes if name not in stay]
    _chosen.shuffle(others)
    gone: list[Name] = []
    while total > most:
        if not others:
            return None
        gone.append(others.pop())
        total -= sizes[gone[-1]]
    return gone


def keep_open(path: Path) -> None:
    """Let a file or folder stay as long as this process runs."""
    _open.add(path)


def make_room(folder: Path, size: int) -> bool:
    """Whether so many bytes more may lie in a folder, once others have gone from there.

    Raises:
        OSError: if the folder cannot be read.
    """
    sizes = {path: size_of(path) for path in folder.iterdir() if path.name != TIMINGS}
    gone = to_remove(sizes, size, shutil.disk_usage(str(folder)).free, stay=_open)
    for path in gone or ():
        if path.is_dir():
            shutil.rmtree(str(path), ignore_errors=True)
        else:
            path.unlink()
    return gone is not None


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files in a folder; what goes meanwhile has none."""
    total = 0
    for each in path.glob("**/*") if path.is_dir() else [path]:
        with contextlib.suppress(FileNotFoundError):
            total += each.lstat().st_size if not each.is_dir() else 0
    return total
