"""Files that are not believed until checked.

Reads are bounded in size and refuse what they cannot understand in one line that names the file.
"""

import hashlib
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ofa_deploy.checks import problem
from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.files.storage import storage_errors

if TYPE_CHECKING:
    from io import BufferedReader

    from pydantic import BaseModel

    Model = TypeVar("Model", bound="BaseModel")

__all__ = [
    "MAX_JSON_BYTES",
    "digest",
    "parsed",
    "read_bytes",
    "read_head",
    "read_json",
    "read_model",
    "read_toml",
    "sha256_file",
]

MAX_JSON_BYTES = 256 * 2**20
MAX_TOML_BYTES = 2**20
MAX_FILE_BYTES = 8 * 2**30
_MAX_PARTS = 32  # of a TOML key, and of its tables within one another
_WORD = re.compile(r"""[\w-]+|"[^"\n]*"|'[^'\n]*'""")


def read_bytes(path: Path | str, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a whole file of at most ``limit`` bytes.

    Raises:
        InputError: if it does not exist, or is a device or a pipe, which may have no end.
        FileFormatError: if it is larger than ``limit``.
    """
    path = Path(path)
    with storage_errors(path, "read"), _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise FileFormatError(f"{path}: {size:,} bytes, more than the {limit:,} allowed")
        return file.read(size)


def read_head(path: Path | str, size: int) -> bytes:
    """The first ``size`` bytes of a file, or all of a smaller one; raises as ``read_bytes``."""
    path = Path(path)
    with storage_errors(path, "read"), _opened(path) as file:
        return file.read(size)


@contextmanager
def _opened(path: Path) -> Iterator["BufferedReader"]:
    """A file that is one, open for reading; of a pipe nobody waits for the other end."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:  # a NUL in its name
        raise InputError(f"{path}: no name of a file ({error})") from None
    with os.fdopen(handle, "rb") as file:
        kind = os.fstat(handle).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError
        if not stat.S_ISREG(kind):
            raise InputError(f"{path}: expected a file, found a device or a pipe")
        yield file


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {key!r} stands twice")
        result[key] = value
    return result


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number that may stand here")


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _no_constant(text)


def read_json(path: Path | str) -> dict[str, Any]:
    """Read a JSON object; duplicate keys, NaN and infinities are refused.

    Raises:
        FileFormatError: if it is truncated or not a JSON object.
    """
    return _object(path, read_bytes(path, limit=MAX_JSON_BYTES))


def _object(path: Path | str, data: bytes) -> dict[str, Any]:
    try:
        value = parsed(data)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{path}: not readable as JSON ({error}); truncated or edited? make it anew"
        ) from None
    if not isinstance(value, dict):
        raise FileFormatError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def parsed(data: bytes) -> Any:
    """JSON, strictly: no key twice, no number that is none; raises ``ValueError``."""
    return json.loads(
        data.decode(),
        object_pairs_hook=_no_duplicates,
        parse_constant=_no_constant,
        parse_float=_finite,
    )


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read a TOML file that a person wrote.

    Raises:
        FileFormatError: if it is not TOML, or far larger than a person writes.
    """
    try:
        text = read_bytes(path, limit=MAX_TOML_BYTES).decode()
        if _longest_key(text) > _MAX_PARTS:
            raise ValueError(f"a key of more than {_MAX_PARTS} parts")
        value = tomllib.loads(text)
        if _is_deep(value):
            raise ValueError(f"nested more than {_MAX_PARTS} deep")
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: not readable as TOML ({error})") from None
    return value


def _longest_key(text: str) -> int:
    """How many words are joined by dots at most; tomllib takes the square of that in time."""
    longest = run = 0
    for part in text.split("."):
        run = run + 1 if _WORD.fullmatch(part.strip(" \t")) else 0
        longest = max(longest, run)
    return longest


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_PARTS):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for part in inner for each in part if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def read_model(path: Path | str, model: "type[Model]", *, schema: str) -> "Model":
    """Read a JSON file into a pydantic model, strictly: text is no number, nor is ``true``.

    Its ``schema`` must read ``schema`` (such as ``latency-table/1``).

    Raises:
        FileFormatError: another schema, a newer one, or fields that do not validate.
    """
    from pydantic import ValidationError

    data = read_bytes(path, limit=MAX_JSON_BYTES)
    _check_schema(path, _object(path, data).get("schema"), schema)
    try:
        return model.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise FileFormatError(f"{path}: {problem(error)}") from None


def _check_schema(path: Path | str, found: object, expected: str) -> None:
    if found == expected:
        return
    kind, _, version = expected.partition("/")
    if isinstance(found, str) and found.startswith(f"{kind}/"):
        suffix = found.removeprefix(f"{kind}/")
        if suffix.isascii() and suffix.isdecimal() and int(suffix[:9]) > int(version):
            raise FileFormatError(
                f"{path}: written by a newer ofa-deploy ({found}; this one reads {expected}); "
                "upgrade ofa-deploy"
            )
    raise FileFormatError(f"{path}: expected a file of schema {expected!r}, found {found!r}")


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file, hexadecimal."""
    path = Path(path)
    with storage_errors(path, "read"), _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """A short, stable name for a JSON-able value: 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
