"""One measuring process, from outside: started with a job, followed, and never believed blindly."""

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from itertools import pairwise
from queue import Empty, SimpleQueue
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ofa_deploy.errors import DeviceError
from ofa_deploy.files import temporary_folder
from ofa_deploy.hardware import Trace
from ofa_deploy.runtimes.trt.cuda import GPU_ORDER
from ofa_deploy.system import module_command, module_environment

__all__ = ["Furthest", "Listener", "Message", "Overheated", "patience_s", "printable", "run_worker"]

_ROUNDING = 1 + 1e-9
_ANSWER = {"result", "windows", "rejected", "throttled", "trace", "peak_mib"}
_MOST = 10**9  # runs, windows; and mJ of one inference
_APART = 4  # times that a ratio may leave what the percentiles beside it allow
_PATIENCE_S, _BUILDING_S = 3600.0, 300.0  # for a process, and for each engine that it may build
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
_Milliseconds = Annotated[float, Field(ge=1e-6, le=1e7)]


def printable(text: str, longest: int = 300) -> str:
    """Somebody else's text on one line, with nothing in it that a terminal would obey."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * longest])
    return " ".join(shown.split())[:longest]


def patience_s(names: Collection[str]) -> float:
    """For how many seconds a process may say nothing: it may have an engine a name to build."""
    return _PATIENCE_S + _BUILDING_S * len(names)


class _Figures(BaseModel):
    """What a worker says of one subject; ``p..`` in ms."""

    model_config = _STRICT

    ratio: float = Field(ge=1e-9, le=1e9)
    p10: _Milliseconds
    p50: _Milliseconds
    p90: _Milliseconds
    p99: _Milliseconds
    runs: int = Field(ge=1, le=_MOST)
    energy_mj: float | None = Field(None, ge=0, le=_MOST)

    @model_validator(mode="after")
    def _percentiles_rise(self) -> Self:
        times = (self.p10, self.p50, self.p90, self.p99)
        if any(low > _ROUNDING * high for low, high in pairwise(times)):
            raise ValueError("expected percentiles that rise")
        return self

    def fits(self, reference: Self) -> bool:
        """Whether the ratio is one that these times and the reference's may give."""
        least = self.p10 / (_APART * reference.p99)
        return least <= self.ratio <= _APART * self.p99 / reference.p10


class Message(BaseModel):
    """One line of a worker's: how far it is, its result, or why it gave up."""

    model_config = _STRICT

    rounds: int = Field(0, ge=0, le=10**9)
    result: dict[str, _Figures] | None = None
    windows: int | None = Field(None, ge=1, le=_MOST)
    rejected: int | None = Field(None, ge=0, le=_MOST)
    throttled: int = Field(0, ge=0, le=10**9)
    trace: Trace = Trace()
    peak_mib: int = Field(0, ge=0, le=2**24)
    hot: float | None = Field(None, ge=-40, le=150)
    error: Annotated[str, AfterValidator(printable)] = ""

    @model_validator(mode="after")
    def _result_is_whole(self) -> Self:
        if not (self.result is None) == (self.windows is None) == (self.rejected is None):
            raise ValueError("a result comes with the number of windows, standing and rejected")
        return self

    @model_validator(mode="after")
    def _ratios_follow(self) -> Self:
        figures = self.result or {}
        reference = figures.get("")
        if reference is not None and not (
            reference.ratio == 1 and all(each.fits(reference) for each in figures.values())
        ):
            raise ValueError("expected ratios that follow from the times")
        return self


class Overheated(Exception):
    """A measuring process ended early, since the device was above its limit.

    Attributes:
        celsius: its temperature then.
    """

    def __init__(self, celsius: float) -> None:
        super().__init__(f"{celsius:g} °C")
        self.celsius = celsius


class Furthest:
    """Rounds of a process that may begin again: none is told twice.

    Args:
        finished: told how many more rounds are finished.
    """

    def __init__(self, finished: Callable[[int], None]) -> None:
        self._finished, self._told = finished, 0

    def begin(self) -> Callable[[int], None]:
        """To be told of the rounds of one try."""
        at = 0

        def more(rounds: int) -> None:
            nonlocal at
            at += rounds
            if at > self._told:
                self._finished(at - self._told)
                self._told = at

        return more


class Listener:
    """Hears a measuring process out.

    Args:
        names: what it times, beside the reference.
        rounds: that it was asked for.
        finished: told how many more rounds are finished.
        what: messages call it.
    """

    def __init__(
        self,
        names: Iterable[str],
        rounds: int,
        finished: Callable[[int], None],
        what: str = "a measuring process",
    ) -> None:
        self._names, self._rounds, self._finished = {"", *names}, rounds, finished
        self._what = what
        self._seen = 0
        self._answer: dict[str, Any] | None = None
        self._hot: float | None = None

    def hear(self, message: Message) -> None:
        """One more line.

        Raises:
            DeviceError: if the process gave up.
        """
        if message.result is not None:
            self._answer = message.model_dump(include=_ANSWER, mode="json")
        elif message.hot is not None:
            self._hot = message.hot
        elif message.error:
            raise DeviceError(f"{self._what} failed: {message.error}")
        elif message.rounds > self._seen:
            self._finished(message.rounds - self._seen)
            self._seen = message.rounds

    def ended(self, code: int, last: str) -> dict[str, Any]:
        """What it found, once it has ended.

        Args:
            code: that it ended with.
            last: of its complaints.

        Raises:
            Overheated: if the device was too hot.
            DeviceError: if it failed, or answered for others than it was asked about.
        """
        if self._hot is not None and self._answer is None and not code:
            raise Overheated(self._hot)
        if code or self._answer is None:
            raise DeviceError(f"{self._what} failed (exit {code}): {last}")
        if set(self._answer["result"]) != self._names:
            raise DeviceError(f"{self._what} answered for others than it was asked about")
        self._finished(self._rounds - self._seen)
        return self._answer


def run_worker(
    job: Mapping[str, Any],
    names: Iterable[str],
    *,
    module: str = "ofa_deploy.profiling.worker",
    finished: Callable[[int], None],
) -> dict[str, Any]:
    """Run one worker.

    Args:
        job: what it is told: its ``threads``, its ``protocol``, and what ``module`` asks for.
        names: what it is to time, beside the reference.
        module: a worker, which calls ``serve``.
        finished: told how many more rounds are finished.

    Returns:
        ``result`` (figures by name, ``""`` being the reference); how many ``windows`` stand, were
        ``rejected``, and ``throttled``; its ``trace``, and the ``peak_mib`` of its memory.

    Raises:
        Overheated: if the device was above its limit.
        DeviceError: if it failed, or answered anything else.
    """
    environment = {"OMP_NUM_THREADS": str(job["threads"]), **GPU_ORDER}
    names = tuple(names)
    listener = Listener(names, job["protocol"]["rounds"], finished)
    with (
        tempfile.TemporaryFile("w+", errors="replace", dir=temporary_folder()) as complaints,
        subprocess.Popen(
            module_command(module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            errors="replace",
            env=module_environment(environment),
        ) as worker,
    ):
        try:
            with _Patience(worker, patience_s(names)) as patience:
                _converse(worker, job, listener, patience)
        except BaseException:
            worker.kill()
            raise
        worker.wait()
        complaints.seek(0)
        last = (complaints.read().strip().splitlines() or ["no message"])[-1]
    return listener.ended(worker.returncode, last)


class _Patience:
    """Ends a process that says nothing for too long."""

    def __init__(self, worker: "subprocess.Popen[str]", seconds: float) -> None:
        self._worker, self._seconds = worker, seconds
        self._signs: SimpleQueue[bool] = SimpleQueue()  # whether more are to come
        self._lost = False
        self._waiting = threading.Thread(target=self._wait, daemon=True)

    def __enter__(self) -> Self:
        self._waiting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._signs.put(False)
        self._waiting.join()

    def heard(self) -> None:
        """It has said something."""
        self._signs.put(True)

    def check(self) -> None:
        """See that it was not ended.

        Raises:
            DeviceError: if it was.
        """
        if self._lost:
            raise DeviceError(
                f"a measuring process has said nothing for {self._seconds / 60:.0f} minutes and "
                "was ended; finished work is kept, run again to go on"
            )

    def _wait(self) -> None:
        try:
            while self._signs.get(timeout=self._seconds):
                pass
        except Empty:
            self._lost = True
            self._worker.kill()


def _converse(
    worker: "subprocess.Popen[str]",
    job: Mapping[str, Any],
    listener: Listener,
    patience: _Patience,
) -> None:
    assert worker.stdin is not None and worker.stdout is not None
    with suppress(BrokenPipeError):  # a worker that died says why on its stderr
        worker.stdin.write(json.dumps({**job, "sent": time.monotonic()}))
        worker.stdin.close()
    for line in worker.stdout:
        patience.heard()
        try:
            message = Message.model_validate_json(line)
        except ValidationError:
            raise DeviceError(
                f"a measuring process answered {line.strip()[:80]!r}, not a result"
            ) from None
        listener.hear(message)
    patience.check()
