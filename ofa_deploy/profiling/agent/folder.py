"""An agent's folder of its own, in the system's temporary one; what killed agents left goes.

Each folder holds a file that its agent keeps locked. The lock goes with the process, however that
ends: a folder that can be locked belongs to nobody. Standard library only, on Python 3.8 too.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Folder"]

_LOCK = "lock"
_PATIENCE_S = 3.0  # for an agent that was asked to end
# Models, by their SHA-256, and engines that are looked at before they are used.
_KEPT = re.compile(r"[0-9a-f]{64}|tensorrt(-rtx)?-engines")


class Folder:
    """A folder, held by this process.

    Attributes:
        path: of it. It may hold models and engines already.
        others: how many other agents of this user are at work on this device.
    """

    def __init__(self, path: Path, lock: int, others: int) -> None:
        self.path, self._lock, self.others = path, lock, others

    @classmethod
    def claim(cls, token: str) -> Folder:
        """Make one; an earlier agent of the same token, whose connection was lost, is ended.

        What that one had of models and engines is taken over.

        Raises:
            OSError: if the temporary folder is full, or somebody else's.
        """
        with _alone() as root:
            used = [path for path in root.iterdir() if path.is_dir() and not _removed(path)]
            path = Path(tempfile.mkdtemp(dir=str(root)))
            others = sum(not _removed(folder, token, path) for folder in used)
            lock = os.open(str(path / _LOCK), os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.write(lock, f"{os.getpid()} {token}".encode())
        return cls(path, lock, others)

    def remove(self) -> None:
        """Remove it, and let go of it."""
        shutil.rmtree(str(self.path), ignore_errors=True)
        os.close(self._lock)
        with _alone() as root:
            for folder in [path for path in root.iterdir() if path.is_dir()]:
                _removed(folder)  # a killed one's process may have left something behind
            # The last one takes everything along.
            if [path.name for path in root.iterdir()] == [_LOCK]:
                (root / _LOCK).unlink()
                root.rmdir()


@contextmanager
def _alone() -> Iterator[Path]:
    """The folder of all agents of this user, while no other agent looks at it."""
    while True:
        root = Path(tempfile.gettempdir()) / f"ofa-deploy-agent-{os.getuid()}"
        with suppress(FileExistsError):
            root.mkdir(mode=0o700)
        try:
            _check_own(root)
            turn = os.open(str(root / _LOCK), os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # the last one that left took it along
            continue
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if os.fstat(turn).st_nlink:  # else it went while this one waited
                yield root
                return
        finally:
            os.close(turn)


def _check_own(root: Path) -> None:
    found = os.lstat(str(root))
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise OSError(f"{root} is not a folder of this user alone; remove it")


def _removed(folder: Path, token: str = "", heir: Path | None = None) -> bool:
    """Remove a folder that nobody holds, or an agent of that token; False if it is in use.

    Args:
        heir: where that agent's models and engines go.
    """
    try:
        lock = os.open(str(folder / _LOCK), os.O_RDWR)
    except OSError:  # killed before it had one
        shutil.rmtree(str(folder), ignore_errors=True)
        return True
    try:
        free = _locked(lock)
        if not free:
            pid, _, holder = os.read(lock, 256).decode("ascii", "replace").partition(" ")
            if heir is not None and holder == token and pid.isdigit():
                _inherit(folder, heir)
                free = _ended(int(pid), lock)
        if free:
            shutil.rmtree(str(folder), ignore_errors=True)
        return free
    finally:
        os.close(lock)


def _inherit(folder: Path, heir: Path) -> None:
    """Take what is worth it from one that works still, and so has all that it wrote."""
    with suppress(OSError):  # it may be about to end
        for path in list(folder.iterdir()):
            if _KEPT.fullmatch(path.name):
                path.rename(heir / path.name)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _ended(pid: int, lock: int) -> bool:
    """Whether the process that holds a lock let go of it when asked, or when made to."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except OSError:
            return _locked(lock)
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            if _locked(lock):
                return True
            time.sleep(0.02)
    return False
