"""stdout and stderr of a process, where one may be full, or nobody reads it any more.

What cannot be told on stderr is dropped; a result that cannot be written to stdout ends the
command. Tables, bars, warnings and what other packages say are treated alike: it is done where
bytes leave.
"""

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from ofa_deploy.errors import StorageError

__all__ = ["Result", "open_streams"]

_PIPE_CLOSED = 141  # as shells tell of an end by SIGPIPE


class _Told(io.FileIO):
    """Bytes that are written if they can be."""

    def write(self, data: Any) -> int:
        with suppress(OSError, ValueError):
            if written := super().write(data):
                return written
        return len(data)


class Result(io.FileIO):
    """Bytes that must be written: the first that cannot be end the command, later ones are dropped.

    Attributes:
        lost: the exit code of that end; 0 as long as all was written.
    """

    lost = 0

    def write(self, data: Any) -> int:
        """Write some of it.

        Raises:
            SystemExit: if nobody reads any more.
            StorageError: if it cannot be written for another reason.
        """
        if self.lost:
            return len(data)
        try:
            return super().write(data)
        except BrokenPipeError:
            self.lost = _PIPE_CLOSED
            raise SystemExit(_PIPE_CLOSED) from None
        except OSError as error:
            self.lost = StorageError.exit_code
            raise StorageError(
                f"stdout: expected a place for the result, found {error.strerror!r}; make room "
                "there, or send it elsewhere"
            ) from None


def open_streams() -> Result:
    """Treat this process's own stdout and stderr so; streams that somebody put there are let be."""
    _hold_places()
    told, result = _Told(2, "w", closefd=False), Result(1, "w", closefd=False)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(told, sys.stderr, "backslashreplace")
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(result, sys.stdout, "replace")
    return result


def _hold_places() -> None:
    """Keep files that are opened later from being stdout or stderr, if these are closed.

    What holds stdout's place cannot be written to, what holds stderr's takes all.
    """
    for place, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(place)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)


def _text(raw: io.FileIO, before: TextIO | None, errors: str) -> TextIO:
    """Takes any character: one that the encoding lacks is replaced."""
    old = before if isinstance(before, io.TextIOWrapper) else None  # None where it was closed
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=old.encoding if old else "utf-8",
        errors=errors,
        line_buffering=old is None or old.line_buffering or old.write_through,
    )
