"""One connection to an agent: what it is told, and what it answers, which is not believed blindly.

See ``profiling/agent/main.py`` for the other end.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Protocol, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ofa_deploy.checks import Count
from ofa_deploy.errors import DeviceError
from ofa_deploy.files import sha256_file
from ofa_deploy.hardware import Identity, Telemetry
from ofa_deploy.profiling.agent.main import FORM
from ofa_deploy.profiling.process import Listener, Message, patience_s, printable
from ofa_deploy.profiling.remote.bundle import READY, STARTER, opening
from ofa_deploy.profiling.remote.pipe import Dropped, Pipe
from ofa_deploy.profiling.remote.ssh import Failure

__all__ = ["Hello", "Session", "Transport"]

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
_SHORT = Annotated[str, Field(max_length=300), AfterValidator(printable)]
_PING_S = 10.0  # between two signs of life, while a job runs
_SILENCE_S = 60.0  # without an answer, after which nobody is there
_ANSWER_S = 600.0  # for an answer, while signs of life come
_MOST_BANNER_LINES = 200  # that a login shell may say before the agent does


class Transport(Protocol):
    """A way to run Python on a device."""

    @property
    def name(self) -> str:
        """What messages call the device."""

    def command(self, code: str) -> list[str]:
        """The command that runs Python code there, with its stdin and stdout."""

    def failure(self, code: int | None, complaints: str) -> Failure:
        """What it means that the command ended."""


class Hello(BaseModel):
    """What an agent says of its device.

    Attributes:
        kind, architecture, processor, cores, memory_mib, system, python: as ``Identity`` has them.
        runtimes: versions of the engines that are installed, by the name of their module.
        load: processes that wanted to run lately, on average.
        boot: changes when the device starts anew.
        board: tells devices apart that are alike.
        others: agents of other sessions that are at work there.
        sensors: who told the telemetry.
        telemetry: of the whole machine, its GPU included.
    """

    model_config = _STRICT

    hello: Literal[2]
    kind: Annotated[_SHORT, Field(min_length=1)]
    architecture: _SHORT
    processor: Annotated[_SHORT, Field(min_length=1)]
    cores: int = Field(ge=1, le=2**16)
    memory_mib: int = Field(ge=0, le=2**31)
    system: _SHORT
    python: _SHORT
    numpy: _SHORT
    runtimes: dict[_SHORT, _SHORT] = Field(max_length=16)
    vnni: bool
    load: float = Field(ge=0, le=1e6)
    boot: _SHORT
    board: _SHORT
    others: Count
    sensors: list[_SHORT] = Field(max_length=16)
    telemetry: Annotated[Telemetry, BeforeValidator(Telemetry.from_dict)]

    @property
    def identity(self) -> Identity:
        """The machine."""
        return Identity(**{item.name: getattr(self, item.name) for item in fields(Identity)})

    @property
    def power_mode(self) -> str:
        """As ``Telemetry`` has it."""
        return self.telemetry.power_mode


class _Refused(BaseModel):
    """Why the agent could not start."""

    model_config = _STRICT

    refused: Literal["python", "numpy", "system"]
    found: _SHORT


class _Answer(BaseModel):
    """What an agent says to a request that is not a job."""

    model_config = _STRICT

    missing: list[str] | None = None
    have: str | None = None
    pong: bool = False
    error: _SHORT = ""


def _telemetry(value: object) -> Telemetry | None:
    return None if value is None else Telemetry.from_dict(value)


class _State(BaseModel):
    """What an agent says of its device now."""

    model_config = _STRICT

    state: Annotated[Telemetry, BeforeValidator(Telemetry.from_dict)]


class _Line(Message):
    """What an agent says while a job runs, and at its end."""

    pong: bool = False
    engine: _SHORT = ""
    ended: int | None = None
    last: _SHORT = ""
    others: float | None = Field(None, ge=0, le=1)
    telemetry: Annotated[Telemetry | None, BeforeValidator(_telemetry)] = None


Model = TypeVar("Model", bound=BaseModel)


class Session:
    """A connection with an agent at its other end.

    Args:
        token: the same for all sessions of one host; an earlier one that still runs is ended.

    Raises:
        Dropped: if the connection failed, or ended.
        DeviceError: if the agent cannot run there, or answers nonsense.
    """

    def __init__(
        self, transport: Transport, token: str, *, ping_s: float = _PING_S, silence_s: float
    ) -> None:
        self._name, self._ping_s, self._silence_s = transport.name, ping_s, silence_s
        self._pings = 0  # that wait for their answer
        self._pipe = Pipe(transport.command(STARTER), self._name, patience_s=silence_s)
        try:
            self._started()
            with suppress(Dropped):  # one that cannot run ends, but first it says why
                self._pipe.send(opening())
                self._tell({"do": "hello", "token": token})
            self.hello = self._greeted()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the connection at once."""
        self._pipe.kill()

    def close(self) -> None:
        """End the session, and wait a little until it has cleared up."""
        try:
            self._tell({"do": "bye"})
        except Dropped:
            self._pipe.kill()
        else:
            self._pipe.close()

    def telemetry(self, *, gpu: bool) -> Telemetry:
        """What the device says of itself now; of its GPU if that does the work."""
        self._tell({"do": "state", "gpu": gpu})
        return self._checked(_State, self._heard(), "its state").state

    def time(
        self,
        job: Mapping[str, Any],
        names: Iterable[str],
        finished: Callable[[int], None],
        *,
        version: str,
    ) -> dict[str, Any]:
        """Have a job done.

        Args:
            job: as for ``run_worker``; its models are files of this machine.
            finished: told how many more rounds are finished.
            version: that the engine must have.

        Returns:
            As ``run_worker``; and ``others``, the share of the device that other programs used,
            and ``telemetry``, what the device told at the end.
        """
        names = tuple(names)
        models = {
            name: {"sha256": sha256_file(model["path"]), "shape": model["shape"]}
            for name, model in job["models"].items()
        }
        paths = [Path(model["path"]) for model in job["models"].values()]
        self._bring({m["sha256"]: path for m, path in zip(models.values(), paths, strict=True)})
        self._tell({"do": "time", "job": {**job, "models": models}})
        rounds = job["protocol"]["rounds"]
        listener = Listener(names, rounds, finished, f"{self._name}: a measuring process")
        told = ""
        for _ in range(rounds + _MOST_BANNER_LINES):
            line = self._checked(_Line, self._heard(patience_s(names)), "a measurement")
            if line.ended is not None:
                answer = listener.ended(line.ended, line.last or "no message")
                telemetry = line.telemetry.to_dict() if line.telemetry else {}
                return {**answer, "others": line.others or 0.0, "telemetry": telemetry}
            told = line.engine or told
            if (line.engine or line.result) and told != version:
                raise DeviceError(
                    f"{self._name} said that its engine is of version {version}, and loaded "
                    f"{told or 'one of unknown version'}; is it installed twice?"
                )
            if line.rounds > rounds:
                self._nonsense(f"round {line.rounds} of {rounds}", "a measurement")
            listener.hear(line)
        self._nonsense("far more lines than rounds", "a measurement")

    def _bring(self, files: Mapping[str, Path]) -> None:
        """See that the agent has the models of these hashes."""
        missing = self._ask({"do": "need", "models": list(files)}).missing
        if missing is None or not set(missing) <= set(files):
            self._nonsense(missing, "which models it has not")
        for name in missing:
            data = files[name].read_bytes()
            if self._ask({"do": "put", "put": name, "size": len(data)}, data).have != name:
                self._nonsense("another model", "the model that it was sent")

    def _ask(self, request: Mapping[str, Any], data: bytes = b"") -> _Answer:
        self._tell(request, data)
        answer = self._checked(_Answer, self._heard(), "an answer")
        if answer.error:
            raise DeviceError(
                f"{self._name}: {answer.error}; finished work is kept, mend that and run again"
            )
        return answer

    def _tell(self, request: Mapping[str, Any], data: bytes = b"") -> None:
        self._pipe.send(json.dumps(request).encode() + b"\n" + data)

    def _heard(self, most_s: float = _ANSWER_S) -> bytes:
        """The next line that is not a sign of life; asks for those meanwhile.

        Raises:
            Dropped: if there is none.
            DeviceError: if nothing else comes.
        """
        start = time.monotonic()
        end = start + self._silence_s
        while (left_s := end - time.monotonic()) > 0:
            line = self._pipe.line(min(self._ping_s, left_s))
            if line is None:
                self._tell({"do": "ping"})
                self._pings += 1
            elif line == _PONG and self._pings:
                self._pings -= 1
                end = time.monotonic() + self._silence_s
                if time.monotonic() - start > most_s:
                    raise DeviceError(
                        f"{self._name} answers, but has not gone on for {most_s / 60:.0f} minutes; "
                        "finished work is kept, run again to go on"
                    )
            else:
                return line
        raise Dropped(f"{self._name} has said nothing for {self._silence_s:.0f} s")

    def _started(self) -> None:
        """Wait for Python, after what a login shell says."""
        line: bytes | None = b""
        for _ in range(_MOST_BANNER_LINES):
            line = self._pipe.line(self._silence_s)
            if line is None:
                raise Dropped(f"{self._name} has said nothing for {self._silence_s:.0f} s")
            if line.rstrip(b"\r").endswith(READY.encode()):
                return
        self._nonsense(line, "that Python is there")

    def _greeted(self) -> Hello:
        """The agent's first line."""
        line = self._heard()
        if line.startswith((b'{"refused": ', b'{"found": ')):
            self._refuse(self._checked(_Refused, line, "a refusal"))
        if line.startswith(b'{"error": '):
            problem = self._checked(_Answer, line, "an answer").error
            raise DeviceError(f"{self._name}: the agent has no place to work: {problem}")
        return self._checked(Hello, line, f"a greeting of form {FORM}")

    def _refuse(self, refused: _Refused) -> NoReturn:
        mend = {
            "python": f"expected Python 3.8 or later, found {refused.found}: install it, or name "
            "another interpreter",
            "numpy": f"its Python has no numpy ({refused.found}): install it there "
            "(python3 -m pip install numpy), or name another interpreter",
            "system": f"expected Linux, found {refused.found}",
        }
        raise DeviceError(f"{self._name}: {mend[refused.refused]}")

    def _checked(self, model: type[Model], line: bytes, expected: str) -> Model:
        try:
            return model.model_validate_json(line)
        except ValidationError:
            self._nonsense(line, expected)

    def _nonsense(self, found: object, expected: str) -> NoReturn:
        text = found.decode(errors="replace") if isinstance(found, bytes) else str(found)
        raise DeviceError(f"{self._name} answered {printable(text, 80)!r}, not {expected}")


_PONG = b'{"pong": true}'
