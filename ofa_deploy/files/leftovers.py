"""Temporary files and folders that do not outlive a killed process for ever.

Whoever makes one holds a lock on it, which goes with the process however it ends. So what nobody
holds was left behind, and the next one that works in the same place takes it away. Where a file
system knows no locks, nothing is taken away.
"""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ofa_deploy.errors import StorageError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["abandoned", "held_file", "held_folder", "scratch", "temporary_folder"]

_RANDOM = "[a-z0-9_]{8}"  # as tempfile makes names
_SCRATCH = "ofa-deploy-scratch-"


def abandoned(folder: Path, prefix: str, suffix: str, *, folders: bool = False) -> Iterator[Path]:
    """What killed processes of this user left in ``folder``, to be removed by the caller.

    Links are never such things, nor are they followed.

    Args:
        folders: such things are folders, else files.
        prefix: a regular expression of how names begin; tempfile's eight characters follow.
        suffix: how they end.
    """
    form = re.compile(f"{prefix}{_RANDOM}{re.escape(suffix)}")
    for path in sorted(folder.iterdir()):
        if form.fullmatch(path.name) and (lock := _free(path, folders)) is not None:
            try:
                yield path
            finally:
                os.close(lock)


@contextmanager
def held_file(folder: Path, prefix: str, suffix: str) -> Iterator[Path]:
    """A new file; the caller renames or removes it."""

    def make() -> Path:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=folder)
        os.close(handle)
        return Path(name)

    path, lock = _held(make)
    try:
        yield path
    finally:
        _let_go(lock)


@contextmanager
def held_folder(folder: Path, prefix: str, suffix: str) -> Iterator[Path]:
    """A new folder; it goes afterwards with all that is in it."""
    path, lock = _held(lambda: Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=folder)))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _let_go(lock)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for a while in the system's; those of processes that were killed go first."""
    folder = temporary_folder()
    for left in abandoned(folder, _SCRATCH, "", folders=True):
        shutil.rmtree(left, ignore_errors=True)
    with held_folder(folder, _SCRATCH, "") as made:
        yield made


def temporary_folder() -> Path:
    """Where what is temporary goes.

    Raises:
        StorageError: if nothing can be written anywhere.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise StorageError(
            "no folder for temporary files can be written: the disk is full or read-only; free "
            "some space or name another in TMPDIR, and run again, finished work is kept"
        ) from None


def _free(path: Path, folder: bool) -> int | None:
    """A lock on what is this user's and held by nobody; None for all else."""
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # a link, another user's, gone
        return None
    try:
        found = os.fstat(handle)
        kind = stat.S_ISDIR if folder else stat.S_ISREG
        if found.st_uid == os.geteuid() and kind(found.st_mode):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
    except OSError:  # held, or no locks here
        pass
    os.close(handle)
    return None


def _held(make: Callable[[], Path]) -> tuple[Path, int | None]:
    """What ``make`` makes, with a lock on it; again if another took it for abandoned meanwhile."""
    while True:
        path = make()
        if fcntl is None:
            return path, None
        with suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY)
            with suppress(OSError):  # no locks here
                fcntl.flock(lock, fcntl.LOCK_EX)
            if _is(path, lock):
                return path, lock
            os.close(lock)


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _let_go(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
