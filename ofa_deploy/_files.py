"""Files that survive a crash, and are not believed until checked.

Writes go to a temporary file in the same folder, are synced, then renamed over the target; a
reader sees the old file or the new one. Reads are bounded in size and refuse what they cannot
understand in one line that names the file.
"""

import errno
import hashlib
import importlib
import json
import os
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import filelock

from ofa_deploy.errors import (
    BusyError,
    FileFormatError,
    InputError,
    MissingDependencyError,
    StorageError,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    Model = TypeVar("Model", bound="BaseModel")

__all__ = [
    "Journal",
    "digest",
    "exclusive",
    "optional_import",
    "read_bytes",
    "read_json",
    "read_model",
    "read_toml",
    "sha256_file",
    "write_bytes",
    "write_json",
    "write_model",
    "write_text",
    "write_with",
]

MAX_JSON_BYTES = 256 * 2**20
MAX_TOML_BYTES = 2**20
MAX_FILE_BYTES = 8 * 2**30


@contextmanager
def _storage_errors(path: Path, verb: str) -> Iterator[None]:
    """Turn what the operating system says into one line that names the path."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a file, found a folder") from None
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path}: expected a folder, found a file on its path") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(
                f"cannot {verb} {path}: the disk is full; free some space and run again, "
                "finished work is kept"
            ) from error
        raise StorageError(f"cannot {verb} {path}: {error.strerror or error}") from error


def write_with(path: Path | str, write: "Any") -> Path:
    """Write atomically by calling ``write(temporary_path)``, then sync and rename.

    Raises:
        StorageError: on a full disk or a folder that cannot be written; the target is untouched.
    """
    path = Path(path)
    with _storage_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    return path


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write ``data`` atomically."""
    return write_with(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: Path | str, text: str) -> Path:
    """Write UTF-8 ``text`` atomically."""
    return write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path | str, value: Any) -> Path:
    """Write ``value`` as indented JSON; NaN and infinities are refused."""
    return write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_model(path: Path | str, model: "BaseModel") -> Path:
    """Write a pydantic model as JSON."""
    return write_json(path, model.model_dump(mode="json", by_alias=True))


def read_bytes(path: Path | str, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a whole file of at most ``limit`` bytes.

    Raises:
        InputError: if it does not exist.
        FileFormatError: if it is larger than ``limit``.
    """
    path = Path(path)
    with _storage_errors(path, "read"):
        size = path.stat().st_size
        if size > limit:
            raise FileFormatError(f"{path}: {size:,} bytes, more than the {limit:,} allowed")
        return path.read_bytes()


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
    data = read_bytes(path, limit=MAX_JSON_BYTES)
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{path}: not readable as JSON ({error}); truncated or edited? make it anew"
        ) from None
    if not isinstance(value, dict):
        raise FileFormatError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read a TOML file that a person wrote.

    Raises:
        FileFormatError: if it is not TOML, or far larger than a person writes.
    """
    try:
        return tomllib.loads(read_bytes(path, limit=MAX_TOML_BYTES).decode())
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: not readable as TOML ({error})") from None


def read_model(path: Path | str, model: "type[Model]", *, schema: str) -> "Model":
    """Read a JSON file into a pydantic model.

    Its ``schema`` must read ``schema`` (such as ``latency-table/1``).

    Raises:
        FileFormatError: another schema, a newer one, or fields that do not validate.
    """
    from pydantic import ValidationError

    value = read_json(path)
    _check_schema(path, value.get("schema"), schema)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        where = " ".join(where.split())
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise FileFormatError(f"{path}: {where}: {first['msg']}{more}") from None


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
    with _storage_errors(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """A short, stable name for a JSON-able value: 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Journal:
    """Records appended to a JSON-lines file as they are made, so that none is made twice.

    Each record is synced before ``append`` returns. A last line that a crash cut short is
    dropped. The first line holds ``identity``; a journal of another identity is started anew,
    since its records answer another question.
    """

    def __init__(self, path: Path | str, identity: dict[str, Any]) -> None:
        self.path = Path(path)
        self.identity = {"journal": digest(identity)}
        self.records: list[dict[str, Any]] = []
        lines = self._whole_lines()
        if lines and lines[0] == self.identity:
            self.records = lines[1:]
        text = "".join(json.dumps(line) + "\n" for line in [self.identity, *self.records])
        if not self.path.exists() or self.path.read_bytes() != text.encode():
            write_text(self.path, text)

    def _whole_lines(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        lines: list[dict[str, Any]] = []
        for line in read_bytes(self.path, limit=MAX_JSON_BYTES).split(b"\n")[:-1]:
            try:
                value = json.loads(line, parse_constant=_no_constant)
            except (ValueError, RecursionError):
                break
            if not isinstance(value, dict):
                break
            lines.append(value)
        return lines

    def append(self, record: dict[str, Any]) -> None:
        """Add one record durably."""
        left = (json.dumps(record, allow_nan=False) + "\n").encode()
        with _storage_errors(self.path, "write"), self.path.open("ab", buffering=0) as file:
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
        write_text(self.path, json.dumps(self.identity) + "\n")
        self.records.clear()


@contextmanager
def exclusive(folder: Path | str) -> Iterator[None]:
    """Hold ``folder`` for this process; the lock goes with the process, however it ends.

    The process that holds it may enter again.

    Raises:
        BusyError: if another process holds it.
    """
    folder = Path(folder)
    with _storage_errors(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", is_singleton=True)
    with _storage_errors(folder, "lock"):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:  # an OSError too
            raise BusyError(
                f"{folder}: another ofa-deploy is at work there; wait for it, or name another"
            ) from None
    try:
        for leftover in folder.glob(".*.tmp"):  # of a process that was killed while writing
            leftover.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def optional_import(module: str, *, extra: str) -> ModuleType:
    """Import an optional package.

    Raises:
        MissingDependencyError: naming the pip extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{module} is not installed ({error}); run: pip install 'ofa-deploy[{extra}]'"
        ) from None
