"""TensorBoard event files of a run: RUN/events, to look at while it trains."""

import math
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["EventLog"]

_FLUSH_SECONDS = 10.0
_AGAIN_SECONDS = 60.0  # after they could not be written


class EventLog:
    """Scalars by step. What an interrupted run had written beyond its checkpoint is superseded.

    Training does not depend on them: while they cannot be written, it goes on without. They are
    written in the caller's thread; the queue of tensorboardX's own writer is emptied by a thread
    that ends at the first full disk or clock set back, and what fills it waits for ever.

    Args:
        folder: where the event files go, or None to write none.
        step: the step that the run goes on from.
        say: is told, once, that they cannot be written.
    """

    def __init__(self, folder: Path | None, step: int, say: Callable[[str], None]) -> None:
        # An absolute path is never taken for one of the stores that tensorboardX writes to.
        self._folder = None if folder is None else folder.absolute()
        self._say, self._told = say, False
        self._file: Any = None
        self._flushed, self._failed = time.monotonic(), -math.inf
        if self._folder is not None:
            self._try(step, {})

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars, by name."""
        if self._folder is not None:
            self._try(step, values)

    def _try(self, step: int, values: Mapping[str, float]) -> None:
        if time.monotonic() - self._failed < _AGAIN_SECONDS:
            return
        try:
            if self._file is None:
                self._open(step)
            self._add(step, values)
        except OSError as error:
            self._failed = time.monotonic()
            self._close()  # what it holds may end within a record; a later write begins another
            if not self._told:
                reason = error.strerror or str(error)
                self._say(f"{self._folder}: cannot be written ({reason}); training goes on without")
            self._told = True

    def _open(self, step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter

        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        # A start within the same second has a name of its own: that writer empties its file.
        name = f"events.out.tfevents.{now:.0f}.{socket.gethostname()}.{step}"
        self._file = RecordWriter(str(self._folder / name))
        begins = SessionLog(status=SessionLog.START)
        for event in (
            Event(wall_time=now, file_version="brain.Event:2"),
            Event(wall_time=now, step=step, session_log=begins),
        ):
            self._file.write(event.SerializeToString())
        self._file.flush()

    def _add(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in values.items():
            event = Event(wall_time=time.time(), step=step, summary=scalar(name, value))
            self._file.write(event.SerializeToString())
        if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # of a full disk those files speak that cannot be spared
                file.flush()
            with suppress(OSError):
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
