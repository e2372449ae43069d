"""Ctrl-C that waits until work has come to a place from which it can go on."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

__all__ = ["Interrupted", "Stop", "heeding", "was_interrupted"]

_DEFAULT: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what is kept, as part of a sentence."""


def was_interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is behind it: within a compiled module's import it becomes an ImportError."""
    seen: set[int] = set()
    behind: BaseException | None = error
    while behind is not None and id(behind) not in seen:
        if isinstance(behind, KeyboardInterrupt):
            return True
        seen.add(id(behind))
        behind = behind.__cause__ or behind.__context__
    return False


@dataclass
class Stop:
    """Whether somebody asked to stop."""

    asked: bool = False


@contextmanager
def heeding(said: Callable[[], object]) -> Iterator[Stop]:
    """The first SIGINT or SIGTERM is noted; the next does what it always does.

    A signal that somebody else handles or ignores stays theirs, and outside the main thread, which
    hears none, nothing changes.

    Args:
        said: called when the first comes; it may print.
    """
    stop = Stop()
    mine = _those_of_nobody()

    def note(*_: object) -> None:
        stop.asked = True
        _restore(mine)
        # It came in the middle of another print, or there is nobody to be told any more.
        with suppress(RuntimeError, OSError, ValueError):
            said()

    for each in mine:
        signal.signal(each, note)
    try:
        yield stop
    finally:
        _restore(mine)


def _those_of_nobody() -> list[signal.Signals]:
    if threading.current_thread() is not threading.main_thread():
        return []
    return [each for each, handler in _DEFAULT.items() if signal.getsignal(each) is handler]


def _restore(signals: list[signal.Signals]) -> None:
    for each in signals:
        signal.signal(each, _DEFAULT[each])
