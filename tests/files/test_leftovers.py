"""What killed processes leave behind goes; what others are at work on, and links, stay."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ofa_deploy.files import abandoned, exclusive, held_file, held_folder, scratch, write_text

LEFT = ".file.json.abcd_123.tmp"
WRITE = """
import sys
from pathlib import Path
from ofa_deploy.files import write_with
def write(temporary):
    temporary.write_text("half")
    print(temporary.name, flush=True)
    sys.stdin.read()
write_with(Path(sys.argv[1]), write)
"""


def start(*command: object) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *map(str, command)], stdin=pipe, stdout=pipe, text=True
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_next_writer_takes_away_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    with start("-c", WRITE, path) as process:
        assert process.stdout is not None
        half = process.stdout.readline().strip()
        write_text(path, "whole")
        assert names(tmp_path) == sorted([half, "file.json"]), "its writer is at work"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    assert half in names(tmp_path)
    write_text(tmp_path / "other.json", "x")
    assert half in names(tmp_path), "of another file"
    write_text(path, "whole")
    assert names(tmp_path) == ["file.json", "other.json"]
    assert path.read_text() == "whole"


def test_what_is_no_leftover_stays(tmp_path: Path) -> None:
    precious = write_text(tmp_path / "precious", "x")
    (tmp_path / LEFT).symlink_to(precious)
    (tmp_path / ".file.json.abcd_124.tmp").mkdir()
    mine = (".file.json.backup.tmp", ".file.json.abcd_125.tmp.old", "file.json.abcd_126.tmp")
    for name in mine:
        (tmp_path / name).write_text("x")
    before = names(tmp_path)
    with exclusive(tmp_path):
        write_text(tmp_path / "file.json", "x")
    assert names(tmp_path) == sorted([*before, "file.json", ".lock"])
    assert precious.read_text() == "x"


def test_folder_that_is_entered_is_tidied(tmp_path: Path) -> None:
    (tmp_path / LEFT).write_text("half")
    with exclusive(tmp_path):
        assert names(tmp_path) == [".holder", ".lock"]


@pytest.mark.skipif(os.name != "posix", reason="needs locks that go with a process")
def test_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    with held_folder(tmp_path, "a.", ""), held_file(tmp_path, "a.", "") as file:
        assert not list(abandoned(tmp_path, r"a\.", ""))
        assert not list(abandoned(tmp_path, r"a\.", "", folders=True))
    assert list(abandoned(tmp_path, r"a\.", "")) == [file]
    assert not list(abandoned(tmp_path, r"a\.", "", folders=True))


def test_scratch_takes_away_what_a_killed_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "ofa-deploy-scratch-abcd_123"
    (left / "models").mkdir(parents=True)
    others = tmp_path / "ofa-deploy-other"
    others.mkdir()
    with scratch() as first, scratch() as second:
        assert first != second
        assert set(tmp_path.iterdir()) == {first, second, others}
    assert set(tmp_path.iterdir()) == {others}
