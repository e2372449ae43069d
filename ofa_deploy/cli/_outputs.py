"""Files that a user names for results: what lies there already is replaced by its like only."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ofa_deploy.errors import InputError

__all__ = ["check_outputs"]

_HEAD = 4096  # bytes
_SCHEMA = re.compile(rb'\{\s*"schema":\s*"([\w-]+)/')

# Whether the head of a file, or its name, is that of such a file.
_KINDS: dict[str, Callable[[Path, bytes], object]] = {
    "latency table": lambda _, head: _schema(head) == b"latency-table",
    "HTML page": lambda _, head: head.lstrip()[:14].lower() == b"<!doctype html",
    "PNG": lambda _, head: head.startswith(b"\x89PNG"),
    "SVG": lambda _, head: b"<svg" in head,
    "CSV": lambda path, _: path.suffix.lower() == ".csv",
    "JSON of figures": lambda _, head: _schema(head) == b"report",
    "ONNX model": lambda path, _: path.suffix.lower() == ".onnx",
}
_SUFFIXES = {
    "HTML page": (".html", ".htm"),
    "PNG": (".png",),
    "SVG": (".svg",),
    "JSON of figures": (".json",),
}


def _schema(head: bytes) -> bytes:
    found = _SCHEMA.match(head)
    return found[1] if found else b""


def check_outputs(outputs: Mapping[str, Path | None]) -> None:
    """See before the work that no output takes the place of something else.

    Args:
        outputs: by kind, one of ``_KINDS``; None is not asked for.

    Raises:
        InputError: if a folder or a file of another kind is there, such as a run's ``run.json``, if
            a name says that it is of another kind, or if two outputs are one file.
    """
    asked = {kind: path for kind, path in outputs.items() if path is not None}
    for kind, path in asked.items():
        if path.is_dir():
            raise InputError(f"{path}: expected a file to write, found a folder")
        if (ends := _SUFFIXES.get(kind)) and path.suffix.lower() not in ends:
            raise InputError(
                f"{path}: expected a name that ends in {' or '.join(ends)} for {kind}, found "
                f"{path.suffix or 'none of these'}"
            )
        if path.exists() and not _is(kind, path):
            raise InputError(
                f"{path} exists and is no {kind}: it is not overwritten; name another file"
            )
    places = [path.resolve() for path in asked.values()]
    if len(set(places)) < len(places):
        twice = next(path for path in asked.values() if places.count(path.resolve()) > 1)
        raise InputError(f"{twice}: expected a file for each output, found one for two")


def _is(kind: str, path: Path) -> bool:
    from ofa_deploy.files import read_head

    head = read_head(path, _HEAD)
    return not head or bool(_KINDS[kind](path, head))
