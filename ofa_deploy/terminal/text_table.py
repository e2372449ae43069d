"""Tables as text: one way to fit them to a terminal, which never cuts a number or a name."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

__all__ = ["KEPT", "TextTable"]

_GAP = 2  # characters between columns
KEPT = "\N{NO-BREAK SPACE}"  # keeps the words of a cell on one line; printed as a space
_PAGE = 100  # characters of a note below a table that is narrower
_PROSE = 12  # text longer than that is wrapped between words, where there is no room
# A number stays on one line with its unit, and with the sign before it.
_BETWEEN_WORDS = re.compile(r"(?<![<>=±]) +(?!(?:ms|mJ|[kMG]|[KMG]iB|[kMG]?B|%)(?:\W|$))")


@dataclass(frozen=True)
class TextTable:
    """A table ready to render: every cell is text.

    On a terminal too narrow for it, prose is wrapped between words; if that is not enough, whole
    columns are left out, and a line below says which. A table whose first column alone is wider
    than the terminal is printed as wide as it is.

    Attributes:
        numeric: for each column, whether it holds numbers and is set flush right.
        note: a line to set below it.
        spare: columns to leave out before others, the first of them first; after them the last.
    """

    title: str
    headers: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    spare: tuple[str, ...] = ()

    def to_csv(self) -> str:
        """The cells as CSV with a heading."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.headers, *self.rows])
        return out.getvalue()

    @property
    def width(self) -> int:
        """Characters that all columns take, with no prose wrapped."""
        return _taken([full for _, full in self._widths()])

    def fitted(self, width: int) -> "TextTable":
        """As many of the columns as so many characters hold, and a note that names the others."""
        least = [least for least, _ in self._widths()]
        kept: list[int] = []
        for place in self._by_weight():
            if not kept or _taken([least[i] for i in (*kept, place)]) <= width:
                kept.append(place)
        kept.sort()
        left_out = [name for i, name in enumerate(self.headers) if i not in kept]
        if not left_out:
            return self
        said = (
            f"left out at {width} columns: {', '.join(left_out)} (the table takes "
            f"{_taken(least)}; a pipe or a file gets all of it)"
        )
        return replace(
            self,
            headers=tuple(self.headers[i] for i in kept),
            numeric=tuple(self.numeric[i] for i in kept),
            rows=tuple(tuple(row[i] for i in kept) for row in self.rows),
            note="\n".join(filter(None, (self.note, said))),
        )

    def _by_weight(self) -> list[int]:
        """The columns, those to keep longest first; the first column is always kept."""
        last = {name: len(self.spare) - i for i, name in enumerate(self.spare)}
        return sorted(range(len(self.headers)), key=lambda i: (i > 0, last.get(self.headers[i], 0)))

    def _widths(self) -> list[tuple[int, int]]:
        """Of each column the least that breaks no word of prose, and what wraps nothing."""
        found = []
        for i, (header, numeric) in enumerate(zip(self.headers, self.numeric, strict=True)):
            cells = [row[i] for row in self.rows]
            heading = max(map(_length, header.split() if numeric else [header]), default=0)
            full = max([heading, *map(_length, cells)])
            words = [_length(word) for cell in cells for word in _BETWEEN_WORDS.split(cell)]
            least = full if numeric else max([heading, min(full, _PROSE), *words])
            found.append((least, full))
        return found

    def _final_widths(self, width: int) -> list[int]:
        """The widths of columns of which the least fit: what is left goes to prose, from left."""
        widths = [least for least, _ in self._widths()]
        free = max(0, width - _taken(widths))
        for i, (least, full) in enumerate(self._widths()):
            more = min(free, full - least)
            widths[i] += more
            free -= more
        return widths

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        """The table, as ``rich`` prints it on a console of any width."""
        room = options.max_width
        table = self.fitted(room)
        widths = table._final_widths(room)
        if table.title:
            yield from (_line(line, "bold") for line in _wrapped(table.title, room))
        if table.headers:
            yield from table._body(widths)
        page = min(room, max(_PAGE, _taken(widths)))
        for said in table.note.split("\n") if table.note else ():
            yield from (_line(line, "dim italic") for line in _wrapped(said, page))
        if table.note:
            yield _line()

    def _body(self, widths: Sequence[int]) -> "Iterator[Text]":
        yield _line()
        heads = [
            header.split() if numeric else [header]
            for header, numeric in zip(self.headers, self.numeric, strict=True)
        ]
        tall = max(map(len, heads), default=0)
        heads = [[""] * (tall - len(head)) + head for head in heads]
        yield from (_line(line, "bold") for line in _lines(heads, widths, self.numeric))
        yield _line(" " + "─" * (_taken(widths) - 1))
        for row in self.rows:
            cells = [_wrapped(cell, size) for cell, size in zip(row, widths, strict=True)]
            yield from map(_line, _lines(cells, widths, self.numeric))
        yield _line()


def _line(text: str = "", style: str = "") -> "Text":
    """A line that rich neither wraps nor reads as markup."""
    from rich.text import Text

    return Text(text, style, no_wrap=True, overflow="ignore")


def _taken(widths: Sequence[int]) -> int:
    """Characters of a line: one before the first column, a gap between two."""
    return 1 + sum(widths) + _GAP * (len(widths) - 1)


def _length(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines broken between words; a word that is too long has a line of its own, uncut."""
    lines: list[str] = []
    for word in _BETWEEN_WORDS.split(text) if _length(text) > width else [text]:
        if lines and _length(lines[-1]) + 1 + _length(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _lines(
    cells: Sequence[Sequence[str]], widths: Sequence[int], numeric: Sequence[bool]
) -> Iterator[str]:
    """The lines of one row, whose cells may have several."""
    for at in range(max(map(len, cells), default=0)):
        parts = []
        for lines, width, right in zip(cells, widths, numeric, strict=True):
            text = lines[at] if at < len(lines) else ""
            space = " " * (width - _length(text))
            parts.append(space + text if right else text + space)
        yield (" " + (" " * _GAP).join(parts)).rstrip().replace(KEPT, " ")
