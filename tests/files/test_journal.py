"""Journals keep every record that was synced, and no other."""

from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.files import Journal
from tests.files.test_files import run_python

IDENTITY = {"space": "tiny", "seed": 0}


def journal(path: Path, *records: dict[str, Any]) -> Journal:
    made = Journal(path, IDENTITY)
    for record in records:
        made.append(record)
    return made


def test_records_survive(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "journal"
    first = journal(path, {"a": 1}, {"a": 2.5, "b": "ü\n"})
    again = Journal(path, IDENTITY)
    assert again.records == first.records == [{"a": 1}, {"a": 2.5, "b": "ü\n"}]
    again.append({"a": 3})
    assert Journal(path, IDENTITY).records == [*first.records, {"a": 3}]


def test_opening_a_whole_journal_does_not_write(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal(path, {"a": 1})
    before = path.stat()
    Journal(path, IDENTITY)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_truncated_last_line_is_dropped_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal(path, {"a": 1}, {"b": "long enough to be cut"})
    data = path.read_bytes()
    last = len(data.splitlines(keepends=True)[-1])
    for length in range(len(data) - last, len(data)):
        path.write_bytes(data[:length])
        made = Journal(path, IDENTITY)
        assert made.records == [{"a": 1}]
        made.append({"c": 2})
        assert Journal(path, IDENTITY).records == [{"a": 1}, {"c": 2}]


@pytest.mark.parametrize("noise", [b"\x00" * 40 + b"\n", b"\xff\xfe\n", b"{}}\n", b"7\n", b"\n"])
def test_what_follows_a_broken_line_is_dropped(tmp_path: Path, noise: bytes) -> None:
    path = tmp_path / "journal"
    journal(path, {"a": 1})
    path.write_bytes(path.read_bytes() + noise + b'{"a": 2}\n')
    assert Journal(path, IDENTITY).records == [{"a": 1}]


def test_deeply_nested_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal(path, {"a": 1})
    path.write_bytes(path.read_bytes() + b"[" * 200_000 + b"\n")
    assert Journal(path, IDENTITY).records == [{"a": 1}]


def test_other_identity_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal(path, {"a": 1})
    other = Journal(path, {**IDENTITY, "seed": 1})
    assert other.records == []
    other.append({"a": 2})
    assert Journal(path, {"seed": 1, "space": "tiny"}).records == [{"a": 2}]
    assert Journal(path, IDENTITY).records == []


def test_record_that_is_not_json_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    made = journal(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        made.append({"a": float("nan")})
    assert made.records == Journal(path, IDENTITY).records == [{"a": 1}]


def test_record_after_a_failed_one_survives(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    code = (
        "import resource, sys\n"
        "from ofa_deploy.files import Journal\n"
        "from ofa_deploy.errors import StorageError\n"
        f"made = Journal(sys.argv[1], {IDENTITY!r})\n"
        "made.append({'a': 1})\n"
        "limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "full = made.path.stat().st_size + 5\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (full, hard))\n"
        "try:\n    made.append({'b': 'longer than five bytes'})\n"
        "except StorageError:\n    print('full')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))\n"
        "made.append({'c': 3})\n"
        "made.append({'d': 4})\n"
    )
    done = run_python(code, path)
    assert (done.returncode, done.stdout) == (0, "full\n"), done.stderr
    assert Journal(path, IDENTITY).records == [{"a": 1}, {"c": 3}, {"d": 4}]


@pytest.mark.parametrize("gone", ["file", "folder"])
def test_a_journal_that_vanishes_is_made_again_whole(tmp_path: Path, gone: str) -> None:
    path = tmp_path / "kept" / "journal"
    made = journal(path, {"a": 1}, {"b": 2})
    path.unlink()
    if gone == "folder":
        path.parent.rmdir()
    made.append({"c": 3})
    made.append({"d": 4})
    assert Journal(path, IDENTITY).records == [{"a": 1}, {"b": 2}, {"c": 3}, {"d": 4}]
