"""TensorBoard event files of a run: RUN/events, to look at while it trains."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["EventLog"]


class EventLog:
    """Scalars by step. What an interrupted run had written beyond its checkpoint is superseded.

    Args:
        folder: where the event files go, or None to write none.
        step: the step that the run goes on from.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._writer: Any = None
        if folder is not None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=step, flush_secs=10)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars, by name."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            with suppress(OSError):  # of a full disk those files speak that cannot be spared
                self._writer.close()
