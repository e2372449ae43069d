"""Processes of this interpreter: they find the package, end with their parent, and are deaf."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest

from ofa_deploy.system import deaf_children, module_command, module_environment, submit

POOL = """
import multiprocessing, os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from ofa_deploy.system import end_with_parent, submit
def hears():
    return signal.getsignal(signal.SIGINT) != signal.SIG_IGN
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent)
    print(submit(pool, os.getpid).result(), submit(pool, hears).result(), flush=True)
    time.sleep(100)
"""


def test_a_module_is_found_wherever_the_package_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "mine.py").write_text(
        "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['COLOUR']]))"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "away"))
    said = subprocess.run(
        module_command("mine", "a", "b c"),
        env=module_environment({"COLOUR": "red"}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(said.stdout) == [["a", "b c"], "red"]


def test_process_of_a_pool_ends_with_its_parent_and_on_no_ctrl_c(tmp_path: Path) -> None:
    """Else it would wait for more work for ever, or end in a traceback in the terminal."""
    (tmp_path / "pool.py").write_text(POOL)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "pool.py")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        number, hears = process.stdout.readline().split()
        worker = psutil.Process(int(number))
        assert hears == "False"
        worker.send_signal(signal.SIGINT)
        assert worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    worker.wait(timeout=20)


def test_a_pool_that_breaks_meanwhile_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is closed as soon as one process died; the next could then not be started."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:

        def closed(*_: object) -> None:
            raise OSError("handle is closed")

        monkeypatch.setattr(pool, "submit", closed)
        with pytest.raises(BrokenProcessPool, match="handle is closed"):
            submit(pool, os.getpid)


def test_children_are_born_deaf() -> None:
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    command = [sys.executable, "-c", code]
    with deaf_children():
        within = subprocess.run(command, capture_output=True, text=True, check=True)
    after = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (within.stdout.strip(), after.stdout.strip()) == ("True", "False")
