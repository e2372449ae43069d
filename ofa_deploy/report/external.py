"""External points: networks that others measured, from a CSV file that is not believed."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from ofa_deploy.checks import LEAST_MS, MOST_MS, decimal
from ofa_deploy.errors import FileFormatError
from ofa_deploy.files import read_bytes

__all__ = ["ExternalPoint", "read_external"]

MAX_BYTES = 4 * 2**20
MAX_POINTS = 20_000
MAX_NAME = 200
NEEDED = ("name", "latency_ms", "accuracy")


@dataclass(frozen=True)
class ExternalPoint:
    """A network that this project knows by two numbers only.

    Attributes:
        source: the file that says so.
        latency: ms.
        top1: percent.
        device: where it was measured; empty if the file does not say.
    """

    name: str
    latency: float
    top1: float
    device: str
    source: str


def read_external(path: Path | str) -> tuple[ExternalPoint, ...]:
    """Read a CSV file with the columns ``name, latency_ms, accuracy`` and, if wanted, ``device``.

    Latencies are in ms, accuracies in percent. Other columns are left alone.

    Raises:
        InputError: if there is no such file.
        FileFormatError: if it is too large, not such a CSV file, or a value makes no sense; the
            message names the line.
    """
    try:
        text = read_bytes(path, limit=MAX_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        _check_columns(path, reader.fieldnames or ())
        points = []
        for row in reader:
            if None in row or None in row.values():
                raise FileFormatError(
                    f"{path}: line {reader.line_num}: expected a cell for each of the "
                    f"{len(reader.fieldnames or ())} columns, found {_cells(row)}"
                )
            points.append(_point(path, reader.line_num, row))
            if len(points) > MAX_POINTS:
                raise FileFormatError(f"{path}: more than the {MAX_POINTS:,} points allowed")
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(f"{path}: not readable as CSV in UTF-8 ({error})") from None
    if not points:
        raise FileFormatError(f"{path}: expected a line for each network, found none")
    return tuple(points)


def _check_columns(path: Path | str, columns: Sequence[str]) -> None:
    known = [name for name in columns if name in (*NEEDED, "device")]
    if missing := [name for name in NEEDED if name not in known]:
        raise FileFormatError(
            f"{path}: expected the columns {', '.join(NEEDED)} and perhaps device, found no "
            f"{missing[0]}"
        )
    if len(set(known)) < len(known):
        twice = next(name for name in known if known.count(name) > 1)
        raise FileFormatError(f"{path}: expected each column once, found {twice} twice")


def _cells(row: Mapping[str | None, Any]) -> int:
    """How many cells a line has; ``DictReader`` keeps those beyond the columns under None."""
    beyond = row.get(None) or ()
    return sum(value is not None for key, value in row.items() if key is not None) + len(beyond)


def _point(path: Path | str, line: int, row: Mapping[str, str]) -> ExternalPoint:
    where = f"{path}: line {line}"
    accuracy = _number(where, "accuracy", row, "a percentage from 0 to 100")
    expected = f"a positive number of ms, {LEAST_MS:g} to {MOST_MS:g}"
    latency = _number(where, "latency_ms", row, expected)
    if not LEAST_MS <= latency <= MOST_MS:
        raise FileFormatError(f"{where}: latency_ms: expected {expected}, found {latency:g}")
    if not 0 <= accuracy <= 100:
        raise FileFormatError(f"{where}: accuracy: expected 0 to 100 percent, found {accuracy:g}")
    return ExternalPoint(
        _text(where, "name", row), latency, accuracy, _text(where, "device", row), Path(path).name
    )


def _number(where: str, column: str, row: Mapping[str, str], expected: str) -> float:
    text = row[column].strip()
    value = decimal(text)
    if not isfinite(value):
        raise FileFormatError(f"{where}: {column}: expected {expected}, found {text[:40]!r}")
    return value


def _text(where: str, column: str, row: Mapping[str, str]) -> str:
    text = row.get(column, "").strip()
    if len(text) > MAX_NAME or not text.isprintable() or (column == "name" and not text):
        least = "1 to" if column == "name" else "at most"
        raise FileFormatError(
            f"{where}: {column}: expected {least} {MAX_NAME} printable characters, found "
            f"{text[:40]!r}"
        )
    return text
