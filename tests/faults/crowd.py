"""Many devices profiled at once, each over its own connection to an SSH server on 127.0.0.1."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from ofa_deploy.graph import build_onnx
from ofa_deploy.hardware import Connection
from ofa_deploy.profiling import REFERENCE, Protocol, RemoteTarget, Subject, measure
from ofa_deploy.profiling.remote.ssh import Ssh
from ofa_deploy.space import SearchSpace
from tests.faults.loads import Taken
from tests.profiling.places import (
    Server,
    bare_site,
    interpreter,
    make_key,
    port_of,
    server_command,
    why_no_server,
)

__all__ = ["profile_many", "why_not"]

_BARE = ("numpy", "onnxruntime", "flatbuffers", "packaging", "protobuf")
_ONCE = Protocol(rounds=2, runs=2, processes=1, visit_ms=1e6, tolerance=10)


def why_not() -> str:
    """Why it cannot be tried here; empty if it can."""
    return why_no_server("asyncssh")


@contextmanager
def _server(folder: Path) -> Iterator[Server]:
    host = make_key(folder / "host")
    make_key(folder / "client")
    (folder / "known_hosts").write_text(f"device {host}\n")
    command = server_command(folder, "asyncssh")
    pipe = subprocess.PIPE
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True)
        with process:
            try:
                yield Server(folder, port_of(command, process))
            finally:
                process.kill()


@contextmanager
def _watched() -> Iterator[list[float]]:
    """Resident MiB of this process and all that it started, at its greatest."""
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not ended.wait(0.3):
            total = 0
            for process in (me, *me.children(recursive=True)):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
            peak[0] = max(peak[0], total / 2**20)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield peak
    finally:
        ended.set()
        watching.join()


def profile_many(folder: Path, space: SearchSpace, count: int) -> Taken:
    """Measure two networks on each of ``count`` devices at once; each must answer for both."""
    graphs = {r: build_onnx(space.lower(a)) for r, a in ((12, space.smallest), (16, space.largest))}
    small, large = (Subject(lambda g=graph: g, (1, 3, r, r)) for r, graph in graphs.items())
    site = bare_site(folder / "site", _BARE)
    with _server(folder) as server:
        config = server.config(folder / "config")

        def profile(number: int) -> set[str]:
            # A device is measured by one at a time: each has a temporary folder of its own.
            device = folder / f"device-{number}"
            device.mkdir()
            python = interpreter(device / "python3", site, f"export TMPDIR='{device}'")
            journal = folder / f"journal-{number}"
            with RemoteTarget(Ssh(Connection("device"), str(python), config)) as target:
                taken = measure(
                    {"large": large}, small, protocol=_ONCE, journal=journal, target=target
                )
            return set(taken)

        started, before = time.perf_counter(), os.times()
        with _watched() as peak, ThreadPoolExecutor(count) as pool:
            found = list(pool.map(profile, range(count)))
        seconds, after = time.perf_counter() - started, os.times()
    assert found == [{"large", REFERENCE}] * count
    assert len(list(folder.glob("journal-*/*.jsonl"))) == count
    assert not any(folder.glob("device-*/*/*/agent.py")), "agents take their folders along"
    cpu = sum(after[:4]) - sum(before[:4])
    return Taken(count, cpu, seconds, peak[0])
