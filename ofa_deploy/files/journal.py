"""Journals: records that outlive the process that made them, one line each."""

import hashlib
import json
import os
from itertools import takewhile
from pathlib import Path
from typing import Any

from ofa_deploy.files.reading import MAX_JSON_BYTES, digest, parsed, read_bytes
from ofa_deploy.files.storage import storage_errors
from ofa_deploy.files.writing import write_text

__all__ = ["Journal"]


class Journal:
    """Records appended to a JSON-lines file as they are made, so that none is made twice.

    Each record is synced before ``append`` returns. The first line holds ``identity``; a journal of
    another identity is started anew, since its records answer another question. Each further line
    ends with a check of what it says and of where it stands: from the first that a crash cut short
    or that was changed since, records are dropped and made again.
    """

    _FORM = 2  # the first had no checks; its records are taken as they are

    def __init__(self, path: Path | str, identity: dict[str, Any]) -> None:
        self.path = Path(path)
        named = digest(identity)
        self.identity = {"journal": named, "form": self._FORM}
        head, *lines = self._whole_lines() or [b""]
        first = _record(head)
        if first == self.identity:
            self.records = self._checked(lines)
        else:
            self.records = _unchecked(lines) if first == {"journal": named} else []
        text = self._text()
        same = self.path.exists() and read_bytes(self.path) == text.encode()
        if not same or self.path.is_symlink():  # a file of its own: appends would follow a link
            write_text(self.path, text)

    @property
    def _head(self) -> str:
        return json.dumps(self.identity) + "\n"

    def _text(self) -> str:
        """The whole file, as the records say."""
        return self._head + "".join(self._line(n, each) for n, each in enumerate(self.records))

    def _line(self, place: int, record: dict[str, Any]) -> str:
        """A record with its check, which is the last of its fields."""
        text = json.dumps(record, allow_nan=False)
        comma = ", " if record else ""
        return f'{text[:-1]}{comma}"check": "{self._check(place, text.encode())}"}}\n'

    def _check(self, place: int, text: bytes) -> str:
        said = f"{self.identity['journal']} {place} ".encode() + text
        return hashlib.sha256(said).hexdigest()[:16]

    def _whole_lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        return read_bytes(self.path, limit=MAX_JSON_BYTES).split(b"\n")[:-1]

    def _checked(self, lines: list[bytes]) -> list[dict[str, Any]]:
        records = []
        for place, line in enumerate(lines):
            body, _, check = line.rpartition(b'"check": "')
            text = body.removesuffix(b", ") + b"}"
            record = _record(text)
            if record is None or check != f'{self._check(place, text)}"}}'.encode():
                break
            records.append(record)
        return records

    def append(self, record: dict[str, Any]) -> None:
        """Add one record durably; a file that was removed meanwhile is made again, whole."""
        line = self._line(len(self.records), record)
        if not self.path.exists():
            write_text(self.path, self._text() + line)
            self.records.append(record)
            return
        left = line.encode()
        with storage_errors(self.path, "write"), self.path.open("ab", buffering=0) as file:
            whole = file.tell()
            try:
                while left:  # a disk that fills up takes a part first, and only then fails
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(whole)  # half a line would swallow the next one
                raise
        self.records.append(record)

    def clear(self) -> None:
        """Forget all records."""
        write_text(self.path, self._head)
        self.records.clear()


def _record(line: bytes) -> dict[str, Any] | None:
    """What a line of a journal says; None if it is none."""
    try:
        value = parsed(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unchecked(lines: list[bytes]) -> list[dict[str, Any]]:
    """Records of the first form, up to one that is not whole, or not of that form."""
    found = (_record(line) or {} for line in lines)
    return list(takewhile(lambda record: record and "check" not in record, found))
