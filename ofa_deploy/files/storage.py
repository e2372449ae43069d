"""What the operating system says of a path, in one line that names it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ofa_deploy.errors import InputError, StorageError

__all__ = ["disk_full", "storage_errors"]


@contextmanager
def storage_errors(path: Path, verb: str) -> Iterator[None]:
    """Turn what the operating system says into one line that names the path."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a file, found a folder") from None
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path}: expected a folder, found a file on its path") from None
    except OSError as error:
        why = disk_full(error) or error.strerror or error
        raise StorageError(f"cannot {verb} {path}: {why}") from error


def disk_full(error: OSError) -> str:
    """What to say where a disk or a quota is full; else nothing."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ""
    return "the disk is full; free some space and run again, finished work is kept"
