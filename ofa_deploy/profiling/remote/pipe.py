"""Lines to and from a process that is not trusted: bounded, and never waited for without end."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from ofa_deploy.errors import DeviceError
from ofa_deploy.profiling.agent.main import LONGEST_LINE

__all__ = ["Dropped", "Pipe"]

_BLOCK = 2**16
_MOST_UNREAD = 2**20
_MOST_COMPLAINTS = 2**13
_LAST_WAIT_S = 2.0  # for a process that has closed its end, or was asked to end


class Dropped(Exception):
    """The process at the other end has gone, or says nothing any more.

    Attributes:
        code: that it ended with; None if it had to be ended.
        complaints: the end of what it wrote on stderr.
    """

    def __init__(self, why: str, code: int | None = None, complaints: str = "") -> None:
        super().__init__(why)
        self.code, self.complaints = code, complaints


class Pipe:
    """A process, with what it says and what it is told.

    Args:
        command: that is started; in a session of its own, so that Ctrl-C does not reach it first.
        name: what messages call it.
        patience_s: how long it may take to read what it is sent.
    """

    def __init__(self, command: Sequence[str], name: str, *, patience_s: float) -> None:
        self._name, self._patience_s = name, patience_s
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        pipes = (self.process.stdin, self.process.stdout, self.process.stderr)
        self._in, self._out, self._err = (pipe.fileno() for pipe in pipes if pipe is not None)
        os.set_blocking(self._in, False)
        self._selector = selectors.DefaultSelector()
        for handle in (self._out, self._err):
            self._selector.register(handle, selectors.EVENT_READ)
        self._unread, self._complaints = bytearray(), bytearray()
        self._open = True

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            Dropped: if the process has gone, or does not read.
        """
        left = memoryview(data)
        self._selector.register(self._in, selectors.EVENT_WRITE)
        end = time.monotonic() + self._patience_s
        try:
            while left:
                if self._in in self._ready(end - time.monotonic()):
                    with suppress(BlockingIOError):
                        left = left[os.write(self._in, left[:_BLOCK]) :]
                    end = time.monotonic() + self._patience_s
                elif time.monotonic() >= end:
                    raise Dropped(f"{self._name} does not read what it is sent")
        except BrokenPipeError:
            raise self._gone() from None
        finally:
            self._selector.unregister(self._in)

    def line(self, timeout_s: float) -> bytes | None:
        """The next line, without its end; None if none came in time.

        Raises:
            Dropped: if the process has gone.
            DeviceError: if the line is too long.
        """
        end = time.monotonic() + timeout_s
        while (length := self._unread.find(b"\n")) < 0:
            if len(self._unread) >= LONGEST_LINE:
                break
            if not self._open:
                raise self._gone()
            if (left_s := end - time.monotonic()) <= 0:
                return None
            self._ready(left_s)
        if not 0 <= length < LONGEST_LINE:
            raise DeviceError(
                f"{self._name} answered a line of more than {LONGEST_LINE:,} bytes, not a result"
            )
        line = bytes(self._unread[:length])
        del self._unread[: length + 1]
        return line

    def _ready(self, timeout_s: float) -> set[int]:
        """Wait until something can be read or written; take what was said, and tell which."""
        ready = {key.fd for key, _ in self._selector.select(max(timeout_s, 0.0))}
        for handle, kept in ((self._out, self._unread), (self._err, self._complaints)):
            if handle in ready:
                block = os.read(handle, _BLOCK)
                kept += block
                if not block:
                    self._selector.unregister(handle)
                    self._open = self._open and handle != self._out
        del self._complaints[:-_MOST_COMPLAINTS]
        if len(self._unread) > _MOST_UNREAD:
            raise DeviceError(f"{self._name} says far more than it was asked")
        return ready

    def _gone(self) -> Dropped:
        """Why the process has gone, once it has."""
        end = time.monotonic() + _LAST_WAIT_S
        while self._err in self._selector.get_map() and time.monotonic() < end:
            self._ready(end - time.monotonic())
        try:
            code: int | None = self.process.wait(_LAST_WAIT_S)
        except subprocess.TimeoutExpired:
            code = None
        complaints = self._complaints.decode(errors="replace")
        return Dropped(f"{self._name} has gone", code, complaints)

    def close(self) -> None:
        """End the process: first by saying nothing more, then by force."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_LAST_WAIT_S)
        self.kill()

    def kill(self) -> None:
        """End the process, and those that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._selector.close()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
