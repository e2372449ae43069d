"""Files that survive a crash.

Writes go to a temporary file in the same folder, are synced, then renamed over the target; a
reader sees the old file or the new one.
"""

import errno
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.files.leftovers import abandoned, held_file
from ofa_deploy.files.storage import storage_errors

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = [
    "TEMPORARY",
    "make_folder",
    "move_folder",
    "write_bytes",
    "write_json",
    "write_model",
    "write_text",
    "write_with",
]

TEMPORARY = ".tmp"
# What file systems say that cannot sync folders, or know no modes, such as shares of other systems.
_CANNOT = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS, errno.EPERM)
_UMASK = os.umask(0o077)  # it can only be asked for by setting it, which all threads would see
os.umask(_UMASK)


def write_with(path: Path | str, write: "Any") -> Path:
    """Write atomically by calling ``write(temporary_path)``, then sync and rename.

    Raises:
        StorageError: on a full disk or a folder that cannot be written; the target is untouched.
    """
    path = Path(path)
    with storage_errors(path, "write"):
        make_folder(path.parent)
        for left in abandoned(path.parent, rf"\.{re.escape(path.name)}\.", TEMPORARY):
            left.unlink(missing_ok=True)
        with held_file(path.parent, f".{path.name}.", TEMPORARY) as temporary:
            try:
                write(temporary)
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                _readable(temporary)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        _sync_folder(path.parent)
    return path


def _readable(path: Path) -> None:
    """By others too, unless they are shut out (umask): a temporary file is its owner's alone."""
    try:
        path.chmod(0o644 & ~_UMASK)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; new ones are synced into those that hold them."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(new):
        _sync_folder(each.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # of a folder that may be written and not listed
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        os.close(handle)


def move_folder(source: Path, target: Path) -> None:
    """Rename a folder to a name that is free, on the same disk, and sync that."""
    with storage_errors(target, "write"):
        source.replace(target)
        _sync_folder(target.parent)


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write ``data`` atomically."""
    return write_with(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: Path | str, text: str) -> Path:
    """Write UTF-8 ``text`` atomically."""
    return write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path | str, value: Any) -> Path:
    """Write ``value`` as indented JSON; NaN and infinities are refused."""
    return write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_model(path: Path | str, model: "BaseModel") -> Path:
    """Write a pydantic model as JSON."""
    return write_json(path, model.model_dump(mode="json", by_alias=True))
