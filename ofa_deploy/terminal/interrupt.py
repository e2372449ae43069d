"""Ctrl-C that waits until work has come to a place from which it can go on."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

__all__ = ["Interrupted", "Stop", "heeding"]

_DEFAULT: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what is kept, as part of a sentence."""


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
        with suppress(RuntimeError):  # it came in the middle of another print
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
