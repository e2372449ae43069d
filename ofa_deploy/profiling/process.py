"""One measuring process, from outside: started with a job, followed, and never believed blindly."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ofa_deploy._processes import module_command, module_environment
from ofa_deploy.errors import DeviceError

__all__ = ["run_worker"]

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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


class _Message(BaseModel):
    """One line of a worker's: how far it is, its result, or why it gave up."""

    model_config = _STRICT

    rounds: int = Field(0, ge=0, le=10**9)
    result: dict[str, _Figures] | None = None
    windows: int | None = Field(None, ge=1)
    rejected: int | None = Field(None, ge=0)
    error: str = ""

    @model_validator(mode="after")
    def _result_is_whole(self) -> Self:
        if not (self.result is None) == (self.windows is None) == (self.rejected is None):
            raise ValueError("a result comes with the number of windows, standing and rejected")
        return self


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
        ``result`` (figures by name, ``""`` being the reference), ``windows`` and ``rejected``.

    Raises:
        DeviceError: if it failed, or answered anything else.
    """
    environment = {"OMP_NUM_THREADS": str(job["threads"])}
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
            answer, seen = _converse(worker, job, finished)
        except BaseException:
            worker.kill()
            raise
        worker.wait()
        complaints.seek(0)
        last = (complaints.read().strip().splitlines() or ["no message"])[-1]
    if worker.returncode or answer is None:
        raise DeviceError(f"a measuring process failed (exit {worker.returncode}): {last}")
    if set(answer["result"]) != {"", *names}:
        raise DeviceError("a measuring process answered for others than it was asked about")
    finished(job["protocol"]["rounds"] - seen)
    return answer


def _converse(
    worker: "subprocess.Popen[str]", job: Mapping[str, Any], finished: Callable[[int], None]
) -> tuple[dict[str, Any] | None, int]:
    assert worker.stdin is not None
    with suppress(BrokenPipeError):  # a worker that died says why on its stderr
        worker.stdin.write(json.dumps({**job, "sent": time.monotonic()}))
        worker.stdin.close()
    answer, seen = None, 0
    for message in _messages(worker):
        if message.result is not None:
            answer = message.model_dump(exclude={"rounds", "error"})
        elif message.error:
            raise DeviceError(f"a measuring process failed: {message.error}")
        elif message.rounds > seen:
            finished(message.rounds - seen)
            seen = message.rounds
    return answer, seen


def _messages(worker: "subprocess.Popen[str]") -> Iterator[_Message]:
    assert worker.stdout is not None
    for line in worker.stdout:
        try:
            yield _Message.model_validate_json(line)
        except ValidationError:
            raise DeviceError(
                f"a measuring process answered {line.strip()[:80]!r}, not a result"
            ) from None
