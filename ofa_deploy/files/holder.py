"""Who holds a folder, for those who have to wait. It is only told; the lock decides.

What is said may be stale, after a kill, or come from anybody who may write there.
"""

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

__all__ = ["holding", "who_holds"]

_NAME = ".holder"
_LONGEST = 1_000  # bytes
_HOST = re.compile(r"[\w.-]{1,255}", re.ASCII)


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Leave word in ``folder`` of this process, as long as it holds the lock there."""
    path = folder / _NAME
    with suppress(OSError):  # a full disk does not keep from working
        path.unlink(missing_ok=True)
        _write(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _write(path: Path) -> None:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    text = json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since})
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL  # which follows no link
    handle = os.open(path, flags, 0o644)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def who_holds(folder: Path) -> str:
    """Such as ``process 123 on my-host since 2026-01-31 14:05``; nothing where it is not known."""
    try:
        said = json.loads(_read(folder / _NAME))
        process, host, since = (said[name] for name in ("process", "host", "since"))
        when = datetime.fromisoformat(since).astimezone()
        if type(process) is not int or process < 1 or not _HOST.fullmatch(host):
            return ""
    except (OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return ""
    if host == socket.gethostname() and not _alive(process):
        return ""
    return f"process {process} on {host} since {when:%Y-%m-%d %H:%M}"


def _read(path: Path) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags)
    try:
        return os.read(handle, _LONGEST)
    finally:
        os.close(handle)


def _alive(process: int) -> bool:
    if os.name != "posix":  # where signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # another user's
    return True
