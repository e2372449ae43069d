"""A stated load beside what is timed: other processes that are at work all the time.

Each adds to 8 MiB of numbers over and over, and so takes processor time, cache and memory
bandwidth. This module is such a process when run (``python -m ofa_deploy.export.busy PARENT``).
"""

import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ofa_deploy.errors import DeviceError
from ofa_deploy.system import module_command, module_environment

__all__ = ["busy", "main"]

_NUMBERS = 2**21  # float32
_READY = "at work"
_START_S = 60.0  # for a process to load numpy, however busy the machine is
_LAST_WAIT_S = 5.0  # for one that was killed


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many other processes are at work meanwhile.

    Raises:
        DeviceError: if one cannot be started.
    """
    command = module_command("ofa_deploy.export.busy", str(os.getpid()))
    started: list[subprocess.Popen[str]] = []
    try:
        for _ in range(processes):
            started.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    env=module_environment({"OMP_NUM_THREADS": "1"}),
                )
            )
        for process in started:
            if _first_word(process) != _READY:
                raise DeviceError("a process of the load beside did not start")
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_LAST_WAIT_S)


def _first_word(process: "subprocess.Popen[str]") -> str:
    """The line that it says first; nothing if it ends or says none in time."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline().strip() if selector.select(_START_S) else ""


def main() -> None:
    """Work until the parent ends this process, or is gone."""
    import numpy as np

    numbers = np.zeros(_NUMBERS, np.float32)
    print(_READY, flush=True)
    parent = int(sys.argv[1])
    while os.getppid() == parent:
        for _ in range(20):
            np.add(numbers, 1, out=numbers)


if __name__ == "__main__":
    main()
