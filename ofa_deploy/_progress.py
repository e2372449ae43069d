"""How long work reports that it moves, without knowing who watches."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["SILENT", "Progress", "Task"]


class Task(Protocol):
    """One bar."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move on by ``steps``; ``note`` is shown beside the bar."""


class Progress(Protocol):
    """Where bars are shown."""

    def task(self, description: str, total: int, *, done: int = 0) -> AbstractContextManager[Task]:
        """A bar of ``total`` steps, ``done`` of them finished before."""

    def say(self, message: str) -> None:
        """A line of text."""


class _Silent:
    def advance(self, steps: int = 1, note: str = "") -> None:
        pass

    @contextmanager
    def task(self, description: str, total: int, *, done: int = 0) -> Iterator[Task]:
        yield self

    def say(self, message: str) -> None:
        pass


SILENT = _Silent()
