"""Commands that are killed: which points a command passes, and a way to end it at one of them.

A server process has imported everything and forks a child a run, so that a run costs tenths of a
second. What a child does with files is seen by wrapping ``os.fsync``, ``os.replace``, ``os.rename``
and ``os.unlink`` in the child: the product knows nothing of it. A point is a place just before or
just after such a call on a file below the working folder; of a journal also "torn", where half of
the line that is being synced has reached the disk.
"""

import importlib
import io
import json
import os
import pkgutil
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

__all__ = ["Commands", "Done", "Fault", "left_behind"]

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 240.0


@dataclass(frozen=True)
class Fault:
    """What happens to a run.

    Attributes:
        kill_at: the point, counted from 0, at which it is killed with SIGKILL.
        kill_after: seconds after which it is killed.
        exact: measuring processes are replaced by ``exact_worker.py``, whose times only a model's
            size decides.
        file_bytes: that a file may have at most, as on a disk that is full.
        clock_back: seconds that the clock is set back each time it is read.
        vanish: what is removed at the point ``kill_at``, in place of a kill.
    """

    kill_at: int | None = None
    kill_after: float | None = None
    exact: bool = True
    file_bytes: int | None = None
    clock_back: float = 0.0
    vanish: str = ""


@dataclass(frozen=True)
class Done:
    """How a run ended.

    Attributes:
        code: its exit code; the signal's number, negative, if it was killed.
        points: that it passed, in their order, such as ``before rename runs/a/run.json``.
        session: of its process and all that it started.
        peak_mib: resident memory at its greatest, of itself.
    """

    code: int
    stdout: str
    stderr: str
    points: tuple[str, ...]
    session: int
    seconds: float
    cpu: float
    peak_mib: float

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    def error(self, code: int = 1) -> str:
        """Its one line; it must have ended with ``code``, and without a traceback."""
        assert self.code == code, (self.code, self.stderr)
        assert "Traceback" not in self.stdout + self.stderr, self.stderr
        said = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(said) == 1, self.stderr
        return said[0]


@dataclass
class Commands:
    """The server, started once, and the runs that are asked of it."""

    _process: "subprocess.Popen[str]" = field(init=False)

    def __enter__(self) -> Self:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        calm = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.faults.injection"],
            cwd=ROOT,
            env=os.environ | calm | {"COLUMNS": "240", "MPLBACKEND": "agg"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def __call__(self, *args: object, cwd: Path, fault: Fault | None = None) -> Done:
        """Run ``ofa-deploy ARGS`` in ``cwd``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        job = {"args": [*map(str, args)], "cwd": str(cwd), "fault": asdict(fault or Fault())}
        print(json.dumps(job), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "the server died"
        found = json.loads(answer)
        return Done(**{**found, "points": tuple(found["points"])})


def left_behind(session: int, seconds: float = 15.0) -> list[str]:
    """What a run started and is still there after so long, by command line."""
    ends = time.monotonic() + seconds
    while (found := _members(session)) and time.monotonic() < ends:
        threading.Event().wait(0.05)
    return found


def _members(session: int) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.Error):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:200])
    return found


# -- in the server --------------------------------------------------------------------------


def serve() -> None:
    """Fork a child for each line of stdin; answer in a line of stdout."""
    _import_everything()
    of_libraries = _threads()  # pyarrow's allocator, and ONNX Runtime: children do without
    with os.fdopen(os.dup(1), "w") as answers:
        for line in sys.stdin:
            assert _threads() <= of_libraries, f"a fork would lose threads: {_threads()}"
            print(json.dumps(_run(json.loads(line))), file=answers, flush=True)


def _threads() -> set[str]:
    return {task.name for task in Path("/proc/self/task").iterdir()}


_MODULES = (
    "onnx",
    "onnxruntime",
    "sklearn.gaussian_process",
    "tensorboardX",
    "torch._dynamo",  # which the first optimiser would import
)


def _import_everything() -> None:
    import matplotlib.pyplot as plt
    import torch

    torch.set_num_threads(1)
    for module in (*_MODULES, *_own_modules()):
        importlib.import_module(module)
    plt.figure().savefig(io.BytesIO())  # which reads the fonts


def _own_modules() -> Iterator[str]:
    """All of the package, so that no run waits for one, nor meets one that was edited meanwhile."""
    import ofa_deploy

    for found in pkgutil.walk_packages(ofa_deploy.__path__, "ofa_deploy."):
        if not found.name.endswith("__main__"):
            yield found.name


def _run(job: Mapping[str, Any]) -> dict[str, Any]:
    read, write = os.pipe()
    streams = [os.pipe() for _ in ("stdout", "stderr")]
    before = time.monotonic()
    child = os.fork()
    if child == 0:
        for end in (read, *(there for there, _ in streams)):
            os.close(end)
        _as_child(job, write, [here for _, here in streams])
    for end in (write, *(here for _, here in streams)):
        os.close(end)
    fault = Fault(**job["fault"])
    with _killed_after(child, fault.kill_after):
        points, *said = _drained([read, *(there for there, _ in streams)])
        _, status, used = os.wait4(child, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "stdout": said[0],
        "stderr": said[1],
        "points": points.splitlines(),
        "session": child,
        "seconds": time.monotonic() - before,
        "cpu": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
    }


def _drained(pipes: Sequence[int]) -> list[str]:
    """What came through pipes until the first ended, which the child alone holds.

    Pipes, not files: of those a full disk takes what a command says of it.
    """
    found: dict[int, list[bytes]] = {pipe: [] for pipe in pipes}
    for pipe in pipes:
        os.set_blocking(pipe, False)
    ended = False
    while not ended:
        ready, _, _ = select.select(pipes, (), ())
        ended = pipes[0] in ready and not _taken(pipes[0], found)
        for pipe in pipes[1:]:
            _taken(pipe, found)
        pipes = [pipe for pipe in pipes if found[pipe][-1:] != [b""]]
    for pipe in found:
        os.close(pipe)
    return [b"".join(parts).decode(errors="replace") for parts in found.values()]


def _taken(pipe: int, found: dict[int, list[bytes]]) -> bool:
    """Take what a pipe holds; whether more may come."""
    with suppress(BlockingIOError):
        while part := os.read(pipe, 2**16):
            found[pipe].append(part)
        found[pipe].append(b"")
        return False
    return True


@contextmanager
def _killed_after(child: int, seconds: float | None) -> Iterator[None]:
    """Kill the child, at the latest after ``_SECONDS``; another process does, not a thread."""
    watch = os.fork()
    if watch == 0:
        with suppress(BaseException):
            time.sleep(_SECONDS if seconds is None else seconds)
            os.kill(child, signal.SIGKILL)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(watch, signal.SIGKILL)
        os.waitpid(watch, 0)


# -- in the child ---------------------------------------------------------------------------


def _as_child(job: Mapping[str, Any], points: int, streams: Sequence[int]) -> None:
    """Run the command; never returns."""
    code = 70
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for stream, end in zip((nothing, *streams), (0, 1, 2), strict=True):
            os.dup2(stream, end)
        sys.stdin = os.fdopen(0, closefd=False)
        code = _command(job, points)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _command(job: Mapping[str, Any], points: int) -> int:
    from ofa_deploy.cli.main import main

    fault = Fault(**job["fault"])
    os.chdir(job["cwd"])
    os.environ["XDG_CACHE_HOME"] = str(Path(job["cwd"]) / ".cache")
    os.environ["TMPDIR"] = tempfile_folder(Path(job["cwd"]))
    _inject(fault, Path(job["cwd"]).resolve(), points)
    sys.argv = ["ofa-deploy", *job["args"]]
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def tempfile_folder(cwd: Path) -> str:
    """Beside the working folder: what lies there is not the command's own."""
    import tempfile

    folder = cwd.with_name(f"{cwd.name}-tmp")
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    tempfile.tempdir = None
    return str(folder)


def _inject(fault: Fault, root: Path, points: int) -> None:
    if fault.exact:
        _exact_workers()
    if fault.clock_back:
        _set_back(fault.clock_back)
    if fault.file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.file_bytes, fault.file_bytes))
    _Points(root, points, fault).wrap()


def _exact_workers() -> None:
    real = subprocess.Popen

    def popen(command: Any, *args: Any, **options: Any) -> Any:
        if "ofa_deploy.profiling.worker" in command:
            script = str(Path(__file__).with_name("exact_worker.py"))
            command = [sys.executable, "-I", "-S", script]
        return real(command, *args, **options)

    subprocess.Popen = popen  # type: ignore[assignment,misc]


def _set_back(seconds: float) -> None:
    real, behind = time.time, 0.0

    def back() -> float:
        nonlocal behind
        behind += seconds
        return real() - behind

    time.time = back


@dataclass
class _Points:
    """Counts points, writes each down, and ends the process at one of them.

    Attributes:
        root: files elsewhere do not count.
    """

    root: Path
    pipe: int
    fault: Fault
    count: int = 0

    def wrap(self) -> None:
        """Wrap the calls in ``os``."""
        os.fsync = self._synced(os.fsync)
        for name in ("replace", "rename", "unlink"):
            setattr(os, name, self._moved(name, getattr(os, name)))
        os.remove = os.unlink

    def _at(self, label: str, prepare: Callable[[], None] = lambda: None) -> None:
        os.write(self.pipe, f"{label}\n".encode())
        at, self.count = self.count, self.count + 1
        if at != self.fault.kill_at:
            return
        if self.fault.vanish:
            _remove(self.root / self.fault.vanish)
            return
        prepare()
        os.kill(os.getpid(), signal.SIGKILL)

    def _name(self, path: object) -> str:
        """Of a file below the root, relative to it; else nothing."""
        if not isinstance(path, str | os.PathLike):
            return ""
        whole = Path(os.path.abspath(path))  # noqa: PTH100
        return str(whole.relative_to(self.root)) if whole.is_relative_to(self.root) else ""

    def _synced(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(handle: int) -> None:
            path = str(Path(f"/proc/self/fd/{handle}").readlink())
            name = self._name(path) or ("." if Path(path) == self.root else "")
            if name:
                self._at(f"before fsync {name}")
                if name.endswith(".jsonl"):
                    self._at(f"torn {name}", lambda: _tear(Path(path)))
            real(handle)
            if name:
                self._at(f"after fsync {name}")

        return fsync

    def _moved(self, verb: str, real: Callable[..., None]) -> Callable[..., None]:
        def moved(source: Any, *rest: Any, **named: Any) -> None:
            name = "" if named else self._name(rest[0] if rest else source)
            if name:
                self._at(f"before {verb} {name}")
            real(source, *rest, **named)
            if name:
                self._at(f"after {verb} {name}")

        return moved


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _tear(journal: Path) -> None:
    """Leave half of the last line."""
    data = journal.read_bytes()
    last = data.rstrip(b"\n").rfind(b"\n") + 1
    os.truncate(journal, (last + len(data)) // 2)


if __name__ == "__main__":
    serve()
