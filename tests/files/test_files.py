"""Files survive what can happen while they are written, and are checked when they are read."""

import errno
import hashlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from ofa_deploy.errors import (
    BusyError,
    FileFormatError,
    InputError,
    OfaDeployError,
    StorageError,
)
from ofa_deploy.files import (
    digest,
    exclusive,
    read_bytes,
    read_json,
    read_model,
    sha256_file,
    write_bytes,
    write_json,
    write_model,
    write_text,
    write_with,
)


class Sample(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_: str = Field("sample/2", alias="schema")
    count: int
    share: float = 0.5


def run_python(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- atomic writes --------------------------------------------------------------------------


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    assert write_text(path, "first") == path
    write_bytes(path, "zweitens: ü".encode())
    assert path.read_text(encoding="utf-8") == "zweitens: ü"
    assert names(path.parent) == ["file"]


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    assert write_text(tmp_path / "file", "x").stat().st_mode & 0o777 == 0o644


def test_written_files_are_kept_from_whom_the_user_shuts_out(tmp_path: Path) -> None:
    code = (
        "import os, sys\nos.umask(0o077)\nfrom ofa_deploy.files import write_text\n"
        "write_text(sys.argv[1], 'x')\n"
    )
    done = run_python(code, tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def _refusing(real: Any, number: int, what: Callable[[Any], bool]) -> Any:
    def call(first: Any, *rest: Any, **options: Any) -> Any:
        if what(first):
            raise OSError(number, os.strerror(number))
        return real(first, *rest, **options)

    return call


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_file_systems_that_cannot_sync_folders_or_know_no_modes_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def folder(handle: int) -> bool:
        return stat.S_ISDIR(os.fstat(handle).st_mode)

    monkeypatch.setattr(os, "fsync", _refusing(os.fsync, number, folder))
    monkeypatch.setattr(os, "chmod", _refusing(os.chmod, number, lambda _: True))
    write_text(tmp_path / "new" / "a", "x")
    assert (tmp_path / "new" / "a").read_text() == "x"
    monkeypatch.setattr(os, "fsync", _refusing(os.fsync, number, lambda _: True))
    with pytest.raises(StorageError, match="cannot write"):
        write_text(tmp_path / "new" / "a", "y")
    assert (tmp_path / "new" / "a").read_text() == "x"


@pytest.mark.parametrize("raised", [ValueError("half done"), KeyboardInterrupt()])
def test_exception_while_writing_keeps_the_old_file(tmp_path: Path, raised: BaseException) -> None:
    path = write_text(tmp_path / "file", "old")

    def write(temporary: Path) -> None:
        temporary.write_text("new, but not all of i")
        raise raised

    with pytest.raises(type(raised)):
        write_with(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_a_storage_error(tmp_path: Path, code: int) -> None:
    path = write_text(tmp_path / "file", "old")

    def write(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(code, os.strerror(code))

    with pytest.raises(StorageError, match=f"{re.escape(str(path))}.*disk is full"):
        write_with(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_disk_that_fills_up_at_the_sync_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_text(tmp_path / "file", "old")

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="disk is full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_file_size_limit_keeps_the_old_file(tmp_path: Path) -> None:
    path = write_text(tmp_path / "file", "old")
    code = (
        "import resource, sys\n"
        "from ofa_deploy.files import write_text\n"
        "from ofa_deploy.errors import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_text(sys.argv[1], 'x' * 100_000)\n"
        "except StorageError as error:\n    print(error)\n"
    )
    done = run_python(code, path)
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout and "disk is full" in done.stdout
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_data_are_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def recording_fsync(handle: int) -> None:
        events.append("sync")
        fsync(handle)

    def recording_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "replace", recording_replace)
    write_text(tmp_path / "file", "x")
    assert events[:2] == ["sync", "rename"]


def test_new_folders_are_synced_into_those_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []

    def recording(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", recording)
    write_text(tmp_path / "a" / "b" / "file", "x")
    assert synced[:2] == [tmp_path, tmp_path / "a"]
    assert synced[-1] == tmp_path / "a" / "b"
    synced.clear()
    write_text(tmp_path / "a" / "b" / "file", "y")
    assert tmp_path not in synced


def test_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="expected a file, found a folder"):
        write_text(tmp_path / "folder", "x")
    assert names(tmp_path) == ["folder"]


def test_file_on_the_path(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    with pytest.raises(InputError, match="found a file on its path"):
        write_text(tmp_path / "file" / "below" / "it", "x")


# -- JSON -----------------------------------------------------------------------------------

keys = st.text(st.characters(exclude_categories=["Cs"]))
leaves = st.none() | st.booleans() | st.integers() | keys | st.floats(allow_nan=False, width=64)
finite = leaves.filter(lambda leaf: leaf not in (float("inf"), float("-inf")))
values = st.recursive(
    finite, lambda each: st.lists(each) | st.dictionaries(keys, each), max_leaves=9
)


@given(value=st.dictionaries(keys, values))
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.json"
    write_json(path, value)
    assert read_json(path) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_json_with_a_number_that_is_none_is_not_written(tmp_path: Path, number: float) -> None:
    path = write_text(tmp_path / "file", "old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": number})
    assert path.read_text() == "old"


WHOLE = json.dumps({"schema": "sample/2", "count": 3})
BROKEN = {
    "empty": ("", "truncated"),
    "truncated": (WHOLE[:-4], "truncated"),
    "trailing": (WHOLE + "}", "Extra data"),
    "duplicate key": ('{"schema": "sample/2", "count": 1, "count": 2}', "'count' stands twice"),
    "nested duplicate": ('{"a": {"b": 1, "b": 1}}', "'b' stands twice"),
    "NaN": ('{"schema": "sample/2", "count": 1, "share": NaN}', "NaN"),
    "Infinity": ('{"schema": "sample/2", "count": 1, "share": -Infinity}', "-Infinity"),
    "overflow": ('{"schema": "sample/2", "count": 1, "share": 1e999}', "1e999"),
    "deep": ("[" * 200_000, "recursion"),
    "long number": ('{"count": ' + "9" * 5000 + "}", "digits"),
    "list": ("[1, 2]", "expected a JSON object, found list"),
    "missing field": ('{"schema": "sample/2"}', "count: expected, but not there"),
    "two missing": ('{"schema": "sample/2", "share": "x"}', "and 1 more"),
    "wrong type": (
        '{"schema": "sample/2", "count": "many"}',
        "count: expected a whole number, found 'many'",
    ),
    "unknown field": ('{"schema": "sample/2", "count": 1, "cuont": 1}', "cuont: unknown"),
    "newer": ('{"schema": "sample/3", "count": 1, "new": 1}', "newer ofa-deploy.*upgrade"),
    "much newer": ('{"schema": "sample/10", "count": 1}', "newer ofa-deploy"),
    "older": ('{"schema": "sample/1", "count": 1}', "expected a file of schema 'sample/2'"),
    "other kind": ('{"schema": "samples/2", "count": 1}', "found 'samples/2'"),
    "no schema": ('{"count": 1}', "found None"),
    "schema of another type": ('{"schema": {"a": 1}, "count": 1}', "expected a file of schema"),
}


def check_refused(path: Path, match: str) -> None:
    with pytest.raises(FileFormatError, match=match) as caught:
        read_model(path, Sample, schema="sample/2")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    text, match = BROKEN[case]
    check_refused(write_text(tmp_path / "file.json", text), match)


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    check_refused(write_bytes(tmp_path / "file.json", b'{"a": "\xff"}'), "utf-8")


@pytest.mark.parametrize("version", ["²", "9" * 5000])
def test_odd_schema_versions_are_refused(tmp_path: Path, version: str) -> None:
    path = write_json(tmp_path / "file.json", {"schema": f"sample/{version}", "count": 1})
    check_refused(path, "sample/")


def test_refusal_stays_on_one_line_whatever_the_file_says(tmp_path: Path) -> None:
    path = write_json(tmp_path / "file.json", {"schema": "sample/2", "count": 1, "a\nb": 1})
    check_refused(path, "a b: unknown")


@given(cut=st.integers(0, len(WHOLE) - 1))
def test_every_truncation_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    check_refused(write_text(tmp_path_factory.getbasetemp() / "cut.json", WHOLE[:cut]), "truncated")


def test_model_round_trip(tmp_path: Path) -> None:
    model = Sample(count=3, share=0.1)
    path = write_model(tmp_path / "file.json", model)
    assert read_json(path) == {"schema": "sample/2", "count": 3, "share": 0.1}
    assert read_model(path, Sample, schema="sample/2") == model


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json: no such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(InputError, match="expected a file, found a folder"):
        read_json(tmp_path)


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "file", b"x" * 1000)
    assert read_bytes(path, limit=1000) == b"x" * 1000
    with pytest.raises(FileFormatError, match="1,000 bytes, more than the 999 allowed"):
        read_bytes(path, limit=999)


# -- names of contents ----------------------------------------------------------------------


def test_sha256_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    path = write_bytes(tmp_path / "file", data)
    assert sha256_file(path) == hashlib.sha256(data).hexdigest()
    with pytest.raises(InputError, match="no such file"):
        sha256_file(tmp_path / "absent")


def test_digest_depends_on_the_content_only() -> None:
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": (2, 3), "a": 1})
    assert re.fullmatch("[0-9a-f]{16}", digest({}))
    distinct: list[Any] = [{}, {"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, [], [[]], None, "", 0]
    assert len({digest(each) for each in distinct}) == len(distinct)
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(float("nan"))


# -- one process a folder -------------------------------------------------------------------

HOLD = (
    "import sys\n"
    "from ofa_deploy.files import exclusive\n"
    "with exclusive(sys.argv[1]):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


def holder(folder: Path) -> "subprocess.Popen[str]":
    """Another process that holds ``folder`` until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def taken(folder: Path) -> Exception | None:
    """The error on trying to hold ``folder``, None if that worked."""
    try:
        with exclusive(folder):
            return None
    except OfaDeployError as error:
        return error


def test_second_process_is_kept_out_until_the_first_is_done(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as process:
        assert taken(tmp_path / "run") is not None
        assert taken(tmp_path / "other") is None
        process.communicate(timeout=60)
    assert taken(tmp_path / "run") is None


def test_second_process_is_told_that_the_folder_is_busy(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        error = taken(tmp_path)
        process.communicate(timeout=60)
    assert isinstance(error, BusyError)
    since = f"{datetime.now():%Y-%m-%d}"
    who = f"process {process.pid} on {socket.gethostname()} since {since}"
    assert str(error).startswith(f"{tmp_path}: another ofa-deploy is at work there ({who}")
    assert not (tmp_path / ".holder").exists()


@pytest.mark.parametrize(
    "said",
    [
        "",
        "{",
        "[]",
        "9" * 5_000,
        '{"process": true, "host": "a", "since": "2026-01-31T14:05:00+00:00"}',
        '{"process": -1, "host": "a", "since": "2026-01-31T14:05:00+00:00"}',
        '{"process": 1, "host": "a b", "since": "2026-01-31T14:05:00+00:00"}',
        '{"process": 1, "host": "a", "since": "yesterday"}',
        '{"process": 1, "host": "a", "since": 7}',
    ],
)
def test_word_of_the_holder_is_not_believed_unseen(tmp_path: Path, said: str) -> None:
    with holder(tmp_path) as process:
        (tmp_path / ".holder").write_text(said)
        error = taken(tmp_path)
        process.communicate(timeout=60)
    assert "at work there; wait for it" in str(error)


def test_stale_word_of_a_holder_is_not_told(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    stale = (tmp_path / ".holder").read_text()
    assert json.loads(stale)["process"] == process.pid
    with holder(tmp_path) as process:
        (tmp_path / ".holder").write_text(stale)
        error = taken(tmp_path)
        process.communicate(timeout=60)
    assert "at work there; wait for it" in str(error)


def test_word_of_the_holder_follows_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text('{"process": 1, "host": "a", "since": "2026-01-31T14:05:00+00:00"}')
    before = precious.read_text()
    run = tmp_path / "run"
    run.mkdir()
    (run / ".holder").symlink_to(precious)
    assert taken(run) is None
    with holder(run) as process:
        (run / ".holder").unlink()
        (run / ".holder").symlink_to(precious)
        error = taken(run)
        process.communicate(timeout=60)
    assert "process 1" not in str(error)
    assert precious.read_text() == before


def test_word_of_the_holder_stays_while_it_enters_again(tmp_path: Path) -> None:
    with exclusive(tmp_path):
        assert taken(tmp_path) is None
        assert (tmp_path / ".holder").exists()


def test_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    assert taken(tmp_path) is None


def test_lock_goes_with_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyError), exclusive(tmp_path):
        raise KeyError
    assert taken(tmp_path) is None


def test_same_process_may_enter_again(tmp_path: Path) -> None:
    with exclusive(tmp_path):
        assert taken(tmp_path) is None
        # Leaving the inner one does not let others in.
        assert run_python(HOLD, tmp_path).returncode != 0
    assert run_python(HOLD, tmp_path).stdout == "held\n"


def test_lock_on_a_file_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    with pytest.raises(InputError, match="expected a folder"), exclusive(tmp_path / "file"):
        pass
