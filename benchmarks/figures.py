"""How benchmarks print their figures and keep them."""

import csv
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ofa_deploy.hardware import processor_name

__all__ = ["Figures", "commit", "spread"]


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
