"""Latency tables as CSV, to and from spreadsheets and other profilers.

Columns: the block, as its key (``block``) or as its fields (``kind``, ``in_channels``,
``out_channels``, ``size`` and, where they are not the usual ones, ``mid_channels``, ``kernel``,
``stride``, ``se``, ``activation``, ``residual``); ``ms``; if known, ``spread`` (relative) and
``count`` (timed runs). What follows from the block (MACs and the like) is written, and passed over
when read.
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from ofa_deploy.errors import FileFormatError
from ofa_deploy.files import read_bytes
from ofa_deploy.hardware.figures import (
    MAX_BYTES,
    Figure,
    Form,
    Readings,
    clean,
    count,
    positive,
    spread,
)
from ofa_deploy.hardware.table import LatencyTable
from ofa_deploy.space import Block
from ofa_deploy.space.block import ACTIVATIONS, Kind

__all__ = ["CSV", "table_csv"]

_NEEDED = ("kind", "in_channels", "out_channels", "size")
_USUAL = {
    "mid_channels": "0",
    "kernel": "1",
    "stride": "1",
    "se": "0",
    "activation": "none",
    "residual": "0",
}
_DERIVED = ("macs", "params", "bytes_moved", "gmacs_per_s", "lost_ms", "energy_mj")
_COLUMNS = ("block", *_NEEDED, *_USUAL, "ms", "spread", "count", *_DERIVED)
_TRUTH = {"0": False, "1": True, "false": False, "true": True}
_WORDS = {"kind": get_args(Kind), "activation": ACTIVATIONS}


def table_csv(table: LatencyTable) -> str:
    """The table's blocks as CSV; ``import_tables("csv", …)`` reads the same figures again."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("block", "ms", "spread", "count", *_DERIVED[:4]))
    for key, e in table.blocks.items():
        rest = (e.macs, e.params, e.bytes_moved, e.gmacs_per_s)
        writer.writerow((key, repr(e.ms), repr(e.spread), e.count, *rest))
    return text.getvalue()


def _read(path: Path) -> Readings:
    data = read_bytes(path, limit=MAX_BYTES)
    figures: dict[str, Figure] = {}
    for where, row in _rows(path, data):
        key = _key(where, row)
        if key in figures:
            raise FileFormatError(f"{where}: block {clean(key)} stands twice")
        figures[key] = Figure(
            positive(row["ms"], f"{where}: ms"),
            spread(row.get("spread") or "0", f"{where}: spread"),
            count(row.get("count") or "1", f"{where}: count"),
        )
    return Readings(figures, 1, hashlib.sha256(data).hexdigest())


def _rows(path: Path, data: bytes) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, column to text) of every row."""
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        for values in reader:
            where = f"{path}: line {reader.line_num}"
            if not values:
                continue
            if len(values) != len(header):
                raise FileFormatError(
                    f"{where}: expected {len(header)} values, found {len(values)}; truncated?"
                )
            yield where, {n: v.strip() for n, v in zip(header, values, strict=True)}
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: not UTF-8 ({error})") from None
    except csv.Error as error:
        raise FileFormatError(f"{path}: not readable as CSV ({error})") from None


def _check_header(path: Path, header: list[str]) -> None:
    unknown = [name for name in header if name not in _COLUMNS]
    twice = [name for name in header if header.count(name) > 1]
    if unknown or twice:
        wrong = f"unknown column {clean(unknown[0])}" if unknown else f"two columns {twice[0]}"
        raise FileFormatError(f"{path}: {wrong}; columns are {', '.join(_COLUMNS)}")
    needed = ("ms",) if "block" in header else ("ms", *_NEEDED)
    if missing := [name for name in needed if name not in header]:
        raise FileFormatError(
            f"{path}: no column {', '.join(missing)}; expected ms and either block or "
            f"{', '.join(_NEEDED)}"
        )


def _key(where: str, row: dict[str, str]) -> str:
    """The block's key; where the fields are given too, they must say the same."""
    named = row.get("block")
    if not all(name in row for name in _NEEDED):
        return named or ""
    block = Block(**_fields(where, row))
    if named is not None and named != block.key:
        raise FileFormatError(f"{where}: block {clean(named)}, but its fields say {block.key}")
    return block.key


def _fields(where: str, row: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in (*_NEEDED, *_USUAL):
        text = row.get(name) or _USUAL.get(name, "")
        if name in _WORDS:
            known = text in _WORDS[name]
            values[name] = text
        elif name == "residual":
            known = text.lower() in _TRUTH
            values[name] = _TRUTH.get(text.lower())
        else:
            known = re.fullmatch(r"[0-9]{1,6}", text) is not None
            known = known and (int(text) > 0 or _USUAL.get(name) == "0")
            values[name] = int(text) if known else 0
        if not known:
            expected = ", ".join(_WORDS.get(name, ("0", "1") if name == "residual" else ()))
            raise FileFormatError(
                f"{where}: {name}: expected {expected or 'a whole number'}, found {clean(text)}"
            )
    return values


def _names(block: Block) -> Sequence[tuple[str, ...]]:
    return [(block.key,)]


CSV = Form(_read, _names)
