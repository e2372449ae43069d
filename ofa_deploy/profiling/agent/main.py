"""A session on a device: takes requests on stdin and answers on stdout, a JSON object a line.

This is what a device runs that was sent this file and what it needs, joined into one
(``remote/bundle.py``). A session starts a process of its own (``job.worker``) for each
job. It keeps models in a temporary folder, and leaves nothing behind when it ends: on
``bye``, when its connection ends, on SIGHUP or SIGTERM, or when nobody was heard for long. What a
killed one leaves is removed by the next.

Standard library, numpy and one engine only, on Python 3.8 too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ofa_deploy.hardware.engine import one_line
from ofa_deploy.hardware.telemetry._system import read_text
from ofa_deploy.hardware.telemetry.identity import has_vnni, identify
from ofa_deploy.hardware.telemetry.load import LoadMeter
from ofa_deploy.hardware.telemetry.sensors import Sensors
from ofa_deploy.profiling.agent.engines import versions
from ofa_deploy.profiling.agent.folder import Folder
from ofa_deploy.profiling.agent.job import kill_group, own_stdout, worker
from ofa_deploy.runtimes.room import to_remove
from ofa_deploy.runtimes.trt.cuda import GPU_ORDER

if TYPE_CHECKING:
    from typing import IO, Any

    from ofa_deploy.hardware.telemetry.reading import Telemetry

__all__ = ["FORM", "LONGEST_LINE", "main"]

FORM = 2  # of what host and session say to each other
LONGEST_LINE = 2**16  # that a session says
_LONGEST_REQUEST = 2**20
_SILENCE_S = {True: 60.0, False: 900.0}  # by whether a job runs; then nobody is there any more
_BLOCK = 2**20
_LAST_WORDS_S = 5.0  # for what a process that has ended wrote on its stderr
# Starts this file again with this process's own path, whatever made it up.
_WORKER = (
    "import sys,json;file,path=sys.argv[1:3];sys.argv[1:]=['worker'];sys.path[:]=json.loads(path);"
    "SOURCE=open(file,'rb').read();exec(compile(SOURCE,file,'exec'))"
)


class _Session:
    """Requests, one after another; a job runs beside them, so that its end is not waited for."""

    def __init__(self, source: bytes, requests: IO[bytes], answers: IO[bytes]) -> None:
        self._source, self._requests, self._answers = source, requests, answers
        self._lock = threading.Lock()
        self._folder: Folder | None = None
        self._models: dict[str, int] = {}
        self._wanted: list[str] = []  # of the models, those of one job
        self._child: subprocess.Popen[bytes] | None = None
        self._heard = time.monotonic()

    def run(self) -> None:
        """Answer until somebody ends it."""
        threading.Thread(target=self._end_when_silent, daemon=True).start()
        while True:
            line = self._requests.readline(_LONGEST_REQUEST)
            self._heard = time.monotonic()
            if not line.endswith(b"\n"):
                return  # the connection ended, or what comes is no request
            request = json.loads(line)
            if request["do"] == "bye":
                return
            try:
                self._answer(request)
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    raise
                self.say({"error": "storage: " + one_line(error)})

    def _answer(self, request: dict[str, Any]) -> None:
        do = request["do"]
        if do == "ping":
            self.say({"pong": True})
        elif do == "hello":
            self._hello(request["token"])
        elif do == "state":
            self.say({"state": _telemetry(gpu=request["gpu"]).to_dict()})
        elif do == "need":
            self._need(request["models"])
        elif do == "put":
            self._put(request["put"], request["size"])
        elif do == "time":
            self._time(request["job"])
        else:
            self.say({"error": "unknown request " + one_line(do)})

    def say(self, message: Mapping[str, Any]) -> None:
        """One line to the host."""
        self._send(json.dumps(message).encode() + b"\n")

    def _send(self, line: bytes) -> None:
        with self._lock:
            self._answers.write(line)
            self._answers.flush()

    def _end_when_silent(self) -> None:
        while time.monotonic() - self._heard < _SILENCE_S[self._child is not None]:
            time.sleep(5.0)
        os.kill(os.getpid(), signal.SIGTERM)

    def _hello(self, token: str) -> None:
        self._folder = Folder.claim(token)
        self._models = {
            path.name: path.stat().st_size for path in self._path.iterdir() if len(path.name) == 64
        }
        (self._path / "agent.py").write_bytes(self._source)
        with Sensors.whole() as sensors:
            sources, found = sensors.names, sensors.read()
        self.say(
            {
                "hello": FORM,
                **identify().to_dict(),
                "numpy": np.__version__,
                "runtimes": versions(),
                "vnni": has_vnni(),
                "load": round(os.getloadavg()[0], 2),
                "boot": read_text(Path("/proc/sys/kernel/random/boot_id"), 64) or "",
                "board": _board(),
                "others": self._folder.others,
                "sensors": list(sources),
                "telemetry": found.to_dict(),
            }
        )

    @property
    def _path(self) -> Path:
        assert self._folder is not None
        return self._folder.path

    def _need(self, wanted: list[str]) -> None:
        """Which models are not here; the others will stay until something else is needed."""
        self._wanted = wanted
        self.say({"missing": [name for name in wanted if name not in self._models]})

    def _put(self, name: str, size: int) -> None:
        """Take a model; one that cannot be kept is read all the same, to hear what follows."""
        partial, digest, blocks = self._path / "partial", hashlib.sha256(), self._blocks(size)
        problem = ""
        try:
            self._make_room(size)
            with partial.open("wb") as file:
                for block in blocks:
                    digest.update(block)
                    file.write(block)
            if digest.hexdigest() != name:
                problem = "a model arrived damaged"
        except OSError as error:
            problem = f"{one_line(error.strerror)} in {self._path.parent}"
            for _ in blocks:
                pass
        if problem:
            partial.unlink(missing_ok=True)
            self.say({"error": problem})
            return
        partial.replace(self._path / name)
        self._models[name] = size
        self.say({"have": name})

    def _make_room(self, size: int) -> None:
        free = shutil.disk_usage(str(self._path)).free
        gone = to_remove(self._models, size, free, stay=self._wanted)
        if gone is None:
            raise OSError(errno.ENOSPC, "no room for the models of one job")
        for name in gone:
            del self._models[name]
            (self._path / name).unlink()

    def _blocks(self, size: int) -> Iterator[bytes]:
        while size:
            block = self._requests.read(min(size, _BLOCK))
            if not block:
                raise EOFError("the connection ended")
            self._heard = time.monotonic()
            size -= len(block)
            yield block

    def _time(self, job: dict[str, Any]) -> None:
        if self._child is not None:
            self.say({"error": "a job is running already"})
            return
        if not all(model["sha256"] in self._models for model in job["models"].values()):
            self.say({"error": f"no room in {self._path.parent} for the models of one job"})
            return
        for model in job["models"].values():
            model["path"] = str(self._path / model["sha256"])
        job["sent"] = time.monotonic()
        meter = LoadMeter()
        child = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-B", "-c", _WORKER),
                *(str(self._path / "agent.py"), json.dumps(sys.path)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=str(self._path),
            start_new_session=True,
            env={**os.environ, **self._variables(job["threads"])},
        )
        self._child = child
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # one that died says why on its stderr
            child.stdin.write(json.dumps(job).encode() + b"\n")
            child.stdin.flush()
        gpu = bool(job.get("gpu"))
        threading.Thread(target=self._follow, args=(child, meter, gpu), daemon=True).start()

    def _variables(self, threads: int) -> dict[str, str]:
        """Engines leave files of their own in the temporary folder."""
        return {"OMP_NUM_THREADS": str(threads), "TMPDIR": str(self._path), **GPU_ORDER}

    def _follow(self, child: subprocess.Popen[bytes], meter: LoadMeter, gpu: bool) -> None:
        """Pass on what a measuring process says, and then how it ended."""
        words: list[str] = []
        hearing = threading.Thread(target=_last_words, args=(child.stderr, words), daemon=True)
        hearing.start()
        threading.Thread(target=_reap, args=(child,), daemon=True).start()
        try:
            for line in _lines(child.stdout):
                self._send(line)
            code = child.wait()
            hearing.join(_LAST_WORDS_S)
            self._child = None
            others = round(meter.others(), 4)  # before anything else is asked
            last = words[-1] if words else ""
            state = _telemetry(gpu=gpu).to_dict()
            self.say({"ended": code, "last": last, "others": others, "telemetry": state})
        except BaseException as error:  # the connection has ended, or shall: the host tries again
            with contextlib.suppress(OSError):
                print(type(error).__name__ + ": " + one_line(error), file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)

    def end(self) -> None:
        """Leave nothing behind."""
        child = self._child
        if child is not None:
            kill_group(child.pid)
            child.wait()
        if self._folder is not None:
            self._folder.remove()


def _lines(stream: IO[bytes] | None) -> Iterator[bytes]:
    """What a child says, in parts of bounded length."""
    assert stream is not None
    return iter(lambda: stream.readline(LONGEST_LINE), b"")


def _reap(child: subprocess.Popen[bytes]) -> None:
    """End what a measuring process started: it may hold the pipes open for ever."""
    child.wait()
    kill_group(child.pid)


def _last_words(stream: IO[bytes] | None, words: list[str]) -> None:
    for line in _lines(stream):
        if line.strip():
            words[:] = [one_line(line.decode("utf-8", "replace"))]


def _telemetry(*, gpu: bool) -> Telemetry:
    with Sensors.at_work(gpu=gpu) as sensors:
        return sensors.read()


def _board() -> str:
    """Tells boards apart that are alike, without telling their numbers."""
    places = ("/proc/device-tree/serial-number", "/etc/machine-id")
    numbers = " ".join(read_text(Path(place), 256) or "" for place in places)
    return hashlib.sha256(b"ofa-deploy " + numbers.encode()).hexdigest()[:16]


def main(source: bytes) -> None:
    """Be a session on stdin and stdout, or a measuring process of one.

    Args:
        source: of the file that this runs from, which measuring processes are started with.
    """
    if sys.argv[1:] == ["worker"]:
        worker()

    def stop(*_: object) -> None:
        raise SystemExit

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    session = _Session(source, sys.stdin.buffer, os.fdopen(own_stdout(), "wb"))
    try:
        session.run()
    except (SystemExit, EOFError, BrokenPipeError):
        pass
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        session.end()
    os._exit(0)  # threads may still wait for what does not come
