"""How benchmarks print their figures and keep them."""

import contextlib
import csv
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ofa_deploy.files import read_json, write_json
from ofa_deploy.hardware import processor_name

__all__ = ["Figures", "commit", "counted_seconds", "spread"]


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.4g} (range {min(values):.4g} to {max(values):.4g})"


def commit() -> str:
    """The commit that is checked out, and whether files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"


class Figures:
    """Figures of one run, printed as they come; the machine and the commit come first."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []
        self.line("machine", f"{processor_name()}, Python {platform.python_version()}")
        self.line("commit", commit())

    def line(self, what: str, value: str) -> None:
        """Print a figure and keep it."""
        print(f"{what:<58} {value}", flush=True)
        self.rows.append((what, value))

    def save(self, path: Path | None) -> None:
        """Write a CSV of figure and value, if a path was given."""
        if path is not None:
            with path.open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([("figure", "value"), *self.rows])


@contextlib.contextmanager
def counted_seconds(kept: Path) -> Iterator[list[float]]:
    """Seconds by the clock and of the processor, with those of earlier tries.

    They are written down every few seconds, so that a run that is killed loses next to none.
    """
    before = read_json(kept)["seconds"] if kept.exists() else [0.0, 0.0]
    started = time.monotonic(), time.process_time()
    spent = list(before)
    ended = threading.Event()

    def note() -> None:
        now = time.monotonic(), time.process_time()
        spent[:] = [b + n - s for b, n, s in zip(before, now, started, strict=True)]
        write_json(kept, {"seconds": spent})

    def watch() -> None:
        while not ended.wait(5.0):
            note()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield spent
    finally:
        ended.set()
        watching.join()
        note()
