"""One measuring process, from outside: started with a job, followed, and never believed blindly."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ofa_deploy._processes import module_command, module_environment
from ofa_deploy.errors import DeviceError
from ofa_deploy.hardware import Trace
from ofa_deploy.profiling.agent.job import GPU_ORDER

__all__ = ["Furthest", "Listener", "Message", "Overheated", "printable", "run_worker"]

_ROUNDING = 1 + 1e-9
_ANSWER = {"result", "windows", "rejected", "throttled", "trace", "peak_mib"}
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def printable(text: str, longest: int = 300) -> str:
    """Somebody else's text on one line, with nothing in it that a terminal would obey."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * longest])
    return " ".join(shown.split())[:longest]


class _Figures(BaseModel):
    """What a worker says of one subject; ``p..`` in ms."""

    model_config = _STRICT

    ratio: float = Field(gt=0)
    p10: float = Field(gt=0)
    p50: float = Field(gt=0)
    p90: float = Field(gt=0)
    p99: float = Field(gt=0)
    runs: int = Field(ge=1)
    energy_mj: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _percentiles_rise(self) -> Self:
        times = (self.p10, self.p50, self.p90, self.p99)
        if any(low > _ROUNDING * high for low, high in pairwise(times)):
            raise ValueError("expected percentiles that rise")
        return self


class Message(BaseModel):
    """One line of a worker's: how far it is, its result, or why it gave up."""

    model_config = _STRICT

    rounds: int = Field(0, ge=0, le=10**9)
    result: dict[str, _Figures] | None = None
    windows: int | None = Field(None, ge=1)
    rejected: int | None = Field(None, ge=0)
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
    listener = Listener(names, job["protocol"]["rounds"], finished)
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            module_command(module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=module_environment(environment),
        ) as worker,
    ):
        try:
            _converse(worker, job, listener)
        except BaseException:
            worker.kill()
            raise
        worker.wait()
        complaints.seek(0)
        last = (complaints.read().strip().splitlines() or ["no message"])[-1]
    return listener.ended(worker.returncode, last)


def _converse(worker: "subprocess.Popen[str]", job: Mapping[str, Any], listener: Listener) -> None:
    assert worker.stdin is not None and worker.stdout is not None
    with suppress(BrokenPipeError):  # a worker that died says why on its stderr
        worker.stdin.write(json.dumps({**job, "sent": time.monotonic()}))
        worker.stdin.close()
    for line in worker.stdout:
        try:
            message = Message.model_validate_json(line)
        except ValidationError:
            raise DeviceError(
                f"a measuring process answered {line.strip()[:80]!r}, not a result"
            ) from None
        listener.hear(message)
