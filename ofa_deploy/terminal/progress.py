"""How long work reports that it moves, without knowing who watches."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["SILENT", "Portions", "Progress", "Task", "TimeLeft", "Work"]

Work = Callable[[int], float]


class Task(Protocol):
    """One bar."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move on by ``steps``; ``note`` is shown beside the bar."""


class Progress(Protocol):
    """Where bars are shown."""

    def task(
        self, description: str, total: int, *, done: int = 0, work: Work = float
    ) -> AbstractContextManager[Task]:
        """A bar of ``total`` steps, ``done`` of them finished before.

        Args:
            work: what so many steps cost from the first on, in any unit, where steps differ.
        """

    def say(self, message: str) -> None:
        """A line of text."""


class TimeLeft:
    """How long work still takes, from its pace of late.

    The first step warms up and is left out. Nothing is said until some steps and seconds are known.

    Args:
        work: as for ``Progress.task``.
    """

    _STEPS, _SECONDS = 2, 2.0  # beyond the first step
    _LATE_SECONDS, _LATE_SHARE = 20.0, 0.4  # what "of late" means: the longer of the two
    _MARKS = 200

    def __init__(self, total: int, done: int = 0, work: Work = float) -> None:
        self._total, self._at, self._work = work(total), done, work
        self._steps = -1  # beyond the first
        self._marks: list[tuple[float, float]] = []  # when, and how much work was done
        self._now = 0.0

    def moved(self, steps: int) -> None:
        """So many steps were taken just now."""
        if steps <= 0:
            return
        self._at, self._now = self._at + steps, time.monotonic()
        self._steps += steps if self._marks else 1
        if not self._marks or self._now - self._marks[-1][0] >= self._elapsed / self._MARKS:
            self._marks.append((self._now, self._work(self._at)))

    @property
    def _elapsed(self) -> float:
        return self._now - self._marks[0][0]

    def seconds(self) -> float | None:
        """From now on; None while too little is known, and when nothing is left."""
        if self._steps < self._STEPS or self._elapsed < self._SECONDS:
            return None
        late = self._now - max(self._LATE_SECONDS, self._LATE_SHARE * self._elapsed)
        when, before = next(
            mark for mark in reversed(self._marks) if mark[0] <= late or mark is self._marks[0]
        )
        done = self._work(self._at)
        pace = (done - before) / (self._now - when)
        if pace <= 0 or done >= self._total:
            return None
        return max(0.0, (self._total - done) / pace - (time.monotonic() - self._now))


class Portions:
    """Progress of work that comes in portions: their tasks move one bar on, which is there before.

    Args:
        task: that bar, of all portions together.
        whole: where text goes.
    """

    def __init__(self, task: Task, whole: Progress) -> None:
        self._task, self._whole = task, whole

    @contextmanager
    def task(
        self, description: str, total: int, *, done: int = 0, work: Work = float
    ) -> Iterator[Task]:
        if done:
            self._task.advance(done)
        yield self._task

    def say(self, message: str) -> None:
        self._whole.say(message)


class _Silent:
    def advance(self, steps: int = 1, note: str = "") -> None:
        pass

    @contextmanager
    def task(
        self, description: str, total: int, *, done: int = 0, work: Work = float
    ) -> Iterator[Task]:
        yield self

    def say(self, message: str) -> None:
        pass


SILENT = _Silent()
