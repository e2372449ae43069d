"""One process at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import filelock

from ofa_deploy.errors import BusyError
from ofa_deploy.files.holder import holding, who_holds
from ofa_deploy.files.leftovers import abandoned
from ofa_deploy.files.storage import storage_errors
from ofa_deploy.files.writing import TEMPORARY, make_folder

__all__ = ["exclusive"]


@contextmanager
def exclusive(folder: Path | str) -> Iterator[None]:
    """Hold ``folder`` for this process; the lock goes with the process, however it ends.

    The process that holds it may enter again.

    Raises:
        BusyError: if another process holds it.
    """
    folder = Path(folder)
    with storage_errors(folder, "write"):
        make_folder(folder)
    lock = filelock.FileLock(folder / ".lock", is_singleton=True)
    again = lock.is_locked
    with storage_errors(folder, "lock"):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:  # an OSError too
            who = who_holds(folder)
            raise BusyError(
                f"{folder}: another ofa-deploy is at work there{who and f' ({who})'}; wait for it, "
                "or name another folder"
            ) from None
    try:
        for left in abandoned(folder, r"\..+\.", TEMPORARY):  # by a process killed while writing
            left.unlink(missing_ok=True)
        with nullcontext() if again else holding(folder):
            yield
    finally:
        lock.release()
