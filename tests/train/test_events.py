"""Event files: what TensorBoard reads, and that training never waits for them."""

import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ofa_deploy.train.events import EventLog


def _masked(data: bytes) -> int:
    """The checksum of TensorFlow's records."""
    sum_ = crc32c(data)
    return ((sum_ >> 15 | sum_ << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _events(file: Path) -> Iterator[Event]:
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        head, body, foot = data[8:12], data[12 : 12 + length], data[12 + length : 16 + length]
        assert struct.unpack("<I", head) == (_masked(data[:8]),)
        assert struct.unpack("<I", foot) == (_masked(body),)
        yield Event.FromString(body)
        data = data[16 + length :]


def _scalars(file: Path) -> list[tuple[int, str, float]]:
    found = [(e.step, v.tag, v.simple_value) for e in _events(file) for v in e.summary.value]
    return [(step, tag, round(value, 3)) for step, tag, value in found]


def test_scalars_are_written_and_a_later_start_supersedes(tmp_path: Path) -> None:
    told: list[str] = []
    with EventLog(tmp_path / "events", 0, told.append) as events:
        events.write(10, {"loss": 2.5, "top1/largest": 71.25})
        events.write(20, {"loss": 2.25})
    with EventLog(tmp_path / "events", 10, told.append) as events:  # within the same second
        events.write(20, {"loss": 2.0})
    first, second = sorted((tmp_path / "events").iterdir())
    assert _scalars(first) == [(10, "loss", 2.5), (10, "top1/largest", 71.25), (20, "loss", 2.25)]
    assert _scalars(second) == [(20, "loss", 2.0)]
    version, begins, *_ = _events(second)
    assert version.file_version == "brain.Event:2"
    assert (begins.step, begins.session_log.status) == (10, SessionLog.START)
    assert not told


def test_no_folder_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with EventLog(None, 0, pytest.fail) as events:
        events.write(1, {"loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_named_like_a_store_stays_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with EventLog(Path("s3:bucket/events"), 0, pytest.fail) as events:
        events.write(1, {"loss": 1.0})
    assert [_scalars(file) for file in (tmp_path / "s3:bucket" / "events").iterdir()] == [
        [(1, "loss", 1.0)]
    ]


def test_they_appear_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock set back by years, or one that jumps, changes nothing; nor is there a thread."""
    now = [1e9]
    monkeypatch.setattr("time.time", lambda: now[0])
    monkeypatch.setattr("ofa_deploy.train.events._FLUSH_SECONDS", 0.0)
    threads = threading.active_count()
    with EventLog(tmp_path, 0, pytest.fail) as events:
        for step in range(30):
            now[0] *= -0.9
            events.write(step, {"loss": step / 2})
            (file,) = tmp_path.iterdir()
            assert _scalars(file)[-1] == (step, "loss", step / 2)
        assert threading.active_count() == threads


_FULL = """
import resource, signal
from pathlib import Path
import ofa_deploy.train.events as module
from ofa_deploy.train.events import EventLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
with EventLog(Path("events"), 0, print) as events:
    for step in range(2000):
        events.write(step, {"loss": 1.0})
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    events.write(2000, {"loss": 1.5})
    module._AGAIN_SECONDS = 0.0
    events.write(2000, {"loss": 2.0})
"""


def test_a_full_disk_is_told_once_and_training_goes_on(tmp_path: Path) -> None:
    start = time.monotonic()
    command = [sys.executable, "-c", _FULL]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert time.monotonic() - start < 60
    (line,) = done.stdout.splitlines()
    assert (
        line == f"{tmp_path / 'events'}: cannot be written (File too large); training goes on"
        " without"
    )
    assert not done.stderr
    assert len(list((tmp_path / "events").iterdir())) == 2, "not a file for each step without"
    last = max((tmp_path / "events").iterdir(), key=lambda file: int(file.suffix[1:]))
    assert _scalars(last) == [(2000, "loss", 2.0)]


@pytest.mark.parametrize("found", ["file", "link to nothing"])
def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, found: str) -> None:
    if found == "file":
        (tmp_path / "events").write_text("")
    else:
        (tmp_path / "events").symlink_to(tmp_path / "gone" / "far")
    told: list[str] = []
    with EventLog(tmp_path / "events", 0, told.append) as events:
        events.write(1, {"loss": 1.0})
    assert len(told) == 1 and "cannot be written" in told[0], told
