"""Processes that prepare images: whatever ends, starves or stops them is told, and none stays."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from ofa_deploy.data import DataSplits
from ofa_deploy.errors import DeviceError, FileFormatError
from ofa_deploy.terminal import Interrupted
from ofa_deploy.train import DepsConfig, workers
from ofa_deploy.train.batches import Batches
from ofa_deploy.train.workers import prepared
from tests.train.runs import Train, Watch, assert_same_outcome

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60  # no wait takes nearly as long
STREAM = """
import signal, sys, time
from ofa_deploy.data import ImageSet
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.terminal import heeding
from ofa_deploy.train import DepsConfig
from ofa_deploy.train.batches import Batches
import numpy as np

if __name__ == "__main__":
    images = np.zeros((400, 3, 16, 16), np.uint8)
    data = ImageSet(images, np.zeros(400, np.int64), ("a", "b"))
    stream = Batches(DepsConfig(batch=100), data, 64).stream(0, 12, 2)
    print("ready", flush=True)
"""
HEARD_ONCE = """
    with heeding(lambda: None) as stop:
        first = next(stream)
        assert stop.asked and len([first, *stream]) == 12
"""
AT_ONCE = """
    try:
        list(stream)
    except KeyboardInterrupt:
        sys.exit(130)
"""
LIVED_ON = """
    next(stream)
    print("started", flush=True)
    time.sleep(100)
"""
ALL_OF_THEM = """
    print(len(list(stream)))
"""


@pytest.fixture
def batches(config: DepsConfig, data: DataSplits) -> Batches:
    """Of more bytes each than a socket holds, so that there is a half-sent one to be killed in."""
    return Batches(config, data.train, 64)


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def started(script: str, folder: Path) -> "subprocess.Popen[str]":
    """The script at work, in a session of its own, whose processes are thus known."""
    (folder / "script.py").write_text(STREAM + script)
    process = subprocess.Popen(
        [sys.executable, str(folder / "script.py")],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def session(leader: int) -> list[psutil.Process]:
    """The processes of a session that are alive."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def until(happened: Callable[[], object], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "waited for in vain"
        time.sleep(0.01)


@pytest.fixture
def ended() -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes of which nothing is left after the test."""
    given: list[subprocess.Popen[str]] = []
    yield given
    for process in given:
        for each in session(process.pid):
            each.kill()
        process.communicate()


@pytest.mark.parametrize("options", ["size=400k", "size=400k,ro"])
def test_they_need_no_shared_memory(tmp_path: Path, options: str) -> None:
    private = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "sh"]
    mounted = f"mount -t tmpfs -o {options} tmpfs /dev/shm"
    if not shutil.which("unshare"):
        pytest.skip("no unshare")
    tried = subprocess.run([*private, "-c", mounted], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no mounts of one's own here: {tried.stderr.strip()}")
    (tmp_path / "script.py").write_text(STREAM + ALL_OF_THEM)
    done = subprocess.run(
        [*private, "-c", f'{mounted} && exec "$@"', "sh", sys.executable, tmp_path / "script.py"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n12\n", "")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP], ids=lambda each: each.name)
def test_none_outlives_a_killed_run(
    tmp_path: Path, how: signal.Signals, ended: list["subprocess.Popen[str]"]
) -> None:
    process = started(LIVED_ON, tmp_path)
    ended.append(process)
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    assert len(session(process.pid)) >= 4, "the run, two of them, what starts them"
    process.send_signal(how)
    until(lambda: not session(process.pid), 10)


@dataclass(frozen=True)
class Endless:
    """What is never finished."""

    said: str

    def __call__(self, step: int) -> None:
        Path(self.said).write_text(str(os.getpid()))
        time.sleep(100)


def test_one_at_work_ends_with_the_run(
    tmp_path: Path, ended: list["subprocess.Popen[str]"]
) -> None:
    said = tmp_path / "said"
    process = started(
        "    from ofa_deploy.train.workers import prepared\n"
        "    from tests.train.test_workers import Endless\n"
        f"    next(prepared(Endless({str(said)!r}), range(1), 1))\n",
        tmp_path,
    )
    ended.append(process)
    until(said.exists)
    process.kill()
    until(lambda: not session(process.pid), 10)


# Beside the run: what tracks resources, what starts processes, then these.
@pytest.mark.parametrize("others", [2, 3])
@pytest.mark.parametrize(("script", "code"), [(HEARD_ONCE, 0), (AT_ONCE, 130)], ids=["1st", "2nd"])
def test_ctrl_c_while_they_start(
    tmp_path: Path, ended: list["subprocess.Popen[str]"], script: str, code: int, others: int
) -> None:
    process = started(script, tmp_path)
    ended.append(process)
    until(lambda: len(session(process.pid)) > others)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=SECONDS)
    assert (process.returncode, told) == (code, "")
    until(lambda: not session(process.pid), 10)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda each: each.name)
def test_a_killed_one_is_told_in_a_line(batches: Batches, how: signal.Signals) -> None:
    stream = batches.stream(0, 12, 1)
    next(stream)
    (process,) = multiprocessing.active_children()
    assert process.pid is not None
    os.kill(process.pid, how)
    with pytest.raises(DeviceError) as caught:
        list(stream)
    for text in ("images died", f"signal {how.value}", "memory", "--workers", "last checkpoint"):
        assert text in str(caught.value)
    assert not multiprocessing.active_children()


def test_what_started_them_is_not_needed_any_more(batches: Batches) -> None:
    stream = batches.stream(0, 12, 1)
    first = next(stream)
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
    assert len([first, *stream]) == 12
    assert len(list(batches.stream(0, 12, 1))) == 12, "and is started anew"


def test_one_that_cannot_start_is_told_in_a_line(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(workers, "deaf_children", refused)
    with pytest.raises(DeviceError, match=r"not be started .* unavailable\); .* --workers, 0 for"):
        next(batches.stream(0, 12, 2))


def test_one_that_is_stuck_is_not_waited_for_for_ever(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = batches.stream(0, 12, 1)
    next(stream)
    monkeypatch.setattr(workers, "_PATIENCE_S", 2)
    (process,) = multiprocessing.active_children()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(DeviceError, match="within 2 s, found none: .* stuck"):
        list(stream)
    assert not multiprocessing.active_children()


def test_closing_ends_them(batches: Batches) -> None:
    threads = threading.active_count()
    stream = batches.stream(0, 12, 2)
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert not multiprocessing.active_children()
    assert threading.active_count() == threads


def test_a_run_whose_processes_were_killed_goes_on(
    go: Train, run: Path, finished: Path, save_every_step: None
) -> None:
    def killed(step: int) -> None:
        for process in multiprocessing.active_children() if step == 5 else []:
            process.kill()

    with pytest.raises(DeviceError, match="died"):
        go(workers=2, progress=Watch(killed))
    again = Watch(lambda steps: None)
    go(workers=2, progress=again)
    assert again.said[0].startswith("resuming training at step ")
    assert_same_outcome(run, finished)


def test_processes_that_end_with_a_run_that_stops_are_no_error(go: Train, run: Path) -> None:
    def stopped(step: int) -> None:
        if step == 5:  # between a step and the next: a whole group is told to end
            for process in multiprocessing.active_children():
                process.terminate()
                process.join()
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="kept in"):
        go(workers=2, progress=Watch(stopped))


@dataclass(frozen=True)
class Made:
    """What is worth telling a process from this one by."""

    fault: type[Exception] | None = None

    def __call__(self, step: int) -> tuple[np.ndarray, ...]:
        if self.fault is not None:
            raise self.fault("cat/7.jpg")
        others = np.arange(6.0).reshape(2, 3), np.zeros((0, 3), np.uint8), np.array(True)
        return np.array([step, torch.get_num_threads()]), *others


def test_arrays_come_as_they_are_made_and_can_be_written_to() -> None:
    found = list(prepared(Made(), range(3, 8), 2))
    assert [each[0].tolist() for each in found] == [[step, 1] for step in range(3, 8)]
    for ours, theirs in zip(Made()(0)[1:], found[0][1:], strict=True):
        assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype
    found[0][1][:] += 1


def test_no_more_are_started_than_there_are_steps() -> None:
    assert len(list(prepared(Made(), range(1), 5))) == 1
    assert list(prepared(Made(), range(0), 5)) == []


def test_a_fault_of_ours_is_told_with_where_it_was() -> None:
    with pytest.raises(ZeroDivisionError, match=r"cat/7\.jpg") as caught:
        next(prepared(Made(ZeroDivisionError), range(2), 1))
    assert "in a process that prepares images" in caught.value.__notes__[0]
    assert "raise self.fault" in caught.value.__notes__[0]
    with pytest.raises(FileFormatError) as told:
        next(prepared(Made(FileFormatError), range(2), 1))
    assert not hasattr(told.value, "__notes__")
