"""What files of other makers say of a block: a few numbers, none of them believed unchecked."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ofa_deploy.checks import decimal
from ofa_deploy.errors import FileFormatError
from ofa_deploy.space import Block

__all__ = ["MAX_BYTES", "Figure", "Form", "Readings", "clean", "count", "positive", "spread"]

MAX_BYTES = 16 * 2**20  # a file; published tables have 15 kB
_LONGEST = 120
_LEAST, _MOST = 1e-12, 1e12  # of a figure, in any unit of time; their squares and sums stay finite


@dataclass(frozen=True)
class Figure:
    """How long one thing took.

    Attributes:
        mean: in the file's unit, positive.
        spread: relative; 0 if unknown.
        count: timed runs.
    """

    mean: float
    spread: float = 0.0
    count: int = 1


@dataclass(frozen=True)
class Readings:
    """What stands in the files of one import.

    Attributes:
        figures: by the name that the files give each thing.
        files: how many were read.
        sha256: of their contents.
        resolutions: that the files say they are for, in pixels.
        repeated: things that stand in more than one file.
        differ: the most that such a thing's means differ, relative.
    """

    figures: dict[str, Figure]
    files: int
    sha256: str
    resolutions: tuple[int, ...] = ()
    repeated: int = 0
    differ: float = 0.0


@dataclass(frozen=True)
class Form:
    """A form of file.

    Attributes:
        read: from a path to what stands there.
        names: from a block to the sets of names whose figures add up to its latency, any of which
            will do; none if the form cannot hold such a block.
    """

    read: Callable[[Path], Readings]
    names: Callable[[Block], Sequence[tuple[str, ...]]]


def clean(text: str) -> str:
    """Foreign text for a message of one line."""
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return repr(short)


def _number(text: str, where: str, expected: str) -> float:
    value = decimal(text)
    if not abs(value) <= _MOST:
        raise FileFormatError(f"{where}: expected {expected}, found {clean(text)}")
    return value


def positive(text: str, where: str) -> float:
    """A latency.

    Raises:
        FileFormatError: if it is not a number, NaN, infinite, zero, negative or beyond measure.
    """
    expected = f"a latency greater than 0, from {_LEAST:g} to {_MOST:g}"
    if (value := _number(text, where, expected)) >= _LEAST:
        return value
    raise FileFormatError(f"{where}: expected {expected}, found {clean(text)}")


def spread(text: str, where: str) -> float:
    """A spread or standard deviation; as ``positive``, but 0 will do."""
    expected = f"a spread of 0 or more, up to {_MOST:g}"
    if (value := _number(text, where, expected)) >= 0:
        return value
    raise FileFormatError(f"{where}: expected {expected}, found {clean(text)}")


def count(text: str, where: str) -> int:
    """A number of timed runs, at least 1."""
    if re.fullmatch(r"[0-9]{1,9}", text) and int(text) >= 1:
        return int(text)
    raise FileFormatError(f"{where}: expected a count of 1 or more, found {clean(text)}")
