"""How telemetry reaches the system: small files, and fixed commands in known folders."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["FOLDERS", "command_path", "output_of", "pattern", "read_int", "read_text"]

# Not PATH: a shell over ssh often lacks the sbin folders, and nobody else's is wanted.
FOLDERS = ("/usr/bin", "/usr/sbin", "/bin", "/sbin", "/opt/vc/bin")
_LIMIT = 65_536
_LAST_WAIT_S = 1.0  # for a command that was killed: one that the kernel holds is left alone


def pattern(text: str) -> re.Pattern[str]:
    """Of ASCII alone: digits of other scripts are none that a sensor writes."""
    return re.compile(text, re.ASCII)


def read_text(path: Path, limit: int = _LIMIT) -> str | None:
    """The start of a small file, stripped; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", "replace").strip("\0 \t\r\n")
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The decimal number that a file of ``/sys`` holds; None where it holds none."""
    text = read_text(path, 64)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def command_path(name: str, folders: Sequence[str] = FOLDERS) -> str | None:
    """Where a command is, in the system's own folders; None where it is not."""
    return shutil.which(name, path=os.pathsep.join(folders))


def output_of(
    command: Sequence[str], *, timeout_s: float = 5.0, one_line: bool = False, limit: int = _LIMIT
) -> str | None:
    """What a command prints: at most ``limit`` bytes, within ``timeout_s``.

    Args:
        command: program and arguments; no shell reads them.
        one_line: take the first line and end the command, which would go on.

    Returns:
        The text; None if the command fails, is too slow or says nothing.
    """
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return None
    assert process.stdout is not None
    ends = time.monotonic() + timeout_s
    data, code = None, None
    try:
        data = _read(process.stdout.fileno(), ends, one_line, limit)
        if data is not None and not one_line:
            if len(data) == limit:
                _end(process)
            code = process.wait(max(ends - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        pass
    finally:
        _end(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_WAIT_S)
        process.stdout.close()
    if data is None or (code != 0 and not one_line):
        return None
    return data.decode("utf-8", "replace").strip() or None


def _read(file: int, ends: float, one_line: bool, limit: int) -> bytes | None:
    """What comes before the end, or that of the first line; None if the time is over before that.

    Whatever else holds the other end of the pipe may keep it open for ever.
    """
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        while len(data) < limit:
            left_s = ends - time.monotonic()
            if left_s <= 0 or not selector.select(left_s):
                return None
            block = os.read(file, limit - len(data))
            data += block
            if not block or (one_line and b"\n" in block):
                break
    return data.partition(b"\n")[0] if one_line else data


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a command, with whatever it started, unless it has ended."""
    if process.returncode is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
