"""Another device as a place to measure on, through connections that may drop.

A process that was interrupted is measured again as a whole, after the device was reached again:
what a process finds is never put together from two, let alone from before and after a reboot.
"""

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self, TypeVar

from ofa_deploy.errors import DeviceError
from ofa_deploy.hardware import Device, Identity, Telemetry
from ofa_deploy.profiling.agent.engines import engine_of
from ofa_deploy.profiling.process import Furthest
from ofa_deploy.profiling.remote.pipe import Dropped
from ofa_deploy.profiling.remote.session import Hello, Session, Transport
from ofa_deploy.profiling.remote.ssh import Ssh
from ofa_deploy.terminal import SILENT, Progress

__all__ = ["RemoteTarget", "open_target"]

Answer = TypeVar("Answer")

_DELAYS_S = (
    0.5,
    1.0,
    2.0,
    4.0,
    8.0,
    16.0,
    30.0,
    30.0,
    30.0,
    30.0,
)  # a reboot takes a minute or two
# What a device may say otherwise of itself when it is reached again.
_PASSING = {"load", "boot", "memory_mib", "sensors", "telemetry"}
_ARM = ("aarch64", "arm64", "armv7l", "armv8l")


class RemoteTarget:
    """A device that is reached by a ``Transport``. Connected when made, closed by ``with``.

    Args:
        delays_s: pauses before each new try to reach it, for one measuring process.
        sleep: makes the pauses.
        silence_s: without an answer, after which the connection is taken for dead.
        progress: told when the connection dropped.

    Attributes:
        chunk: subjects a process; fewer than here, since an interrupted process starts anew.
        hello: what the device says of itself.
        reconnects: how often it was reached again.
        reboots: how often it had started anew then.

    Raises:
        DeviceError: if it cannot be reached, or cannot run the agent.
    """

    chunk = 32

    def __init__(
        self,
        transport: Transport,
        *,
        delays_s: Sequence[float] = _DELAYS_S,
        sleep: Callable[[float], None] = time.sleep,
        silence_s: float = 60.0,
        progress: Progress = SILENT,
    ) -> None:
        self._transport, self._delays_s, self._sleep = transport, tuple(delays_s), sleep
        self._silence_s, self._progress = silence_s, progress
        self._token = secrets.token_hex(8)
        self.reconnects = self.reboots = 0
        try:
            self._session: Session | None = self._open()
        except Dropped as dropped:
            failure = transport.failure(dropped.code, dropped.complaints)
            raise DeviceError(failure.message) from None
        self.hello: Hello = self._session.hello

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        if kind is None:
            session.close()
        else:
            session.kill()

    @property
    def name(self) -> str:
        """What messages call the device."""
        return self._transport.name

    @property
    def processor(self) -> str:
        """For which of ``PROCESSORS`` INT8 files must be."""
        if self.hello.architecture in _ARM:
            return "arm"
        return "x86-vnni" if self.hello.vnni else "x86"

    @property
    def machine(self) -> Identity:
        """What the device is."""
        return self.hello.identity

    @property
    def engines(self) -> Collection[str]:
        """Engines that are installed there."""
        return self.hello.runtimes

    @property
    def load(self) -> float:
        """Processes that wanted to run there when it was reached, on average."""
        return self.hello.load

    @property
    def told(self) -> Telemetry:
        """What it said of itself when it was reached, its GPU included."""
        return self.hello.telemetry

    def version(self, runtime: str) -> str:
        """The version of an engine there.

        Raises:
            DeviceError: if it is not installed.
        """
        module = engine_of(runtime)
        if module not in self.hello.runtimes:
            has = ", ".join(self.hello.runtimes) or "none"
            raise DeviceError(
                f"{self.name} has no {module} (engines that it has: {has}): install it into the "
                f"Python that is used there ({self.hello.python})"
            )
        return self.hello.runtimes[module]

    def identity(self) -> dict[str, Any]:
        """What tells its measurements from those of other devices, and of others like it."""
        known = self.hello.model_dump(include={"processor", "architecture", "cores", "board"})
        return {**known, "power_mode": self.hello.power_mode}

    def telemetry(self, *, gpu: bool) -> Telemetry:
        """What the device says of itself now; of its GPU if that does the work.

        Raises:
            DeviceError: as ``run``.
        """
        return self._reaching(lambda session: session.telemetry(gpu=gpu))

    def run(
        self, job: Mapping[str, Any], names: Iterable[str], *, finished: Callable[[int], None]
    ) -> dict[str, Any]:
        """As ``run_worker``, on the device; as often as it takes.

        Returns:
            The same; ``others``, the share of the device that other programs used meanwhile;
            ``telemetry``, what it said at the end; and ``boot``: what it was started as.

        Raises:
            Overheated: if the device was above its limit.
            DeviceError: if the process failed, the answer makes no sense, another device answers,
                or this one is not reached any more.
        """
        names = tuple(names)
        version = self.version(job["runtime"])
        furthest = Furthest(finished)
        answer = self._reaching(
            lambda session: session.time(job, names, furthest.begin(), version=version)
        )
        return {**answer, "boot": self.hello.boot}

    def _reaching(self, ask: Callable[[Session], Answer]) -> Answer:
        """What a session answers, reopened as often as it takes."""
        for delay_s in (*self._delays_s, None):
            try:
                if self._session is None:
                    self._session = self._reopened()
                return ask(self._session)
            except Dropped as dropped:
                why = self._dropped(dropped)
            if delay_s is not None:
                self._progress.say(f"{why}; trying again in {delay_s:g} s")
                self._sleep(delay_s)
        raise DeviceError(
            f"{why}; tried {len(self._delays_s) + 1} times; finished work is kept, run again to "
            "go on"
        )

    def _dropped(self, dropped: Dropped) -> str:
        """Let go of a connection; why it ended.

        Raises:
            DeviceError: if it will not come back.
        """
        let_in = self._session is not None  # what it says is not about coming in
        if self._session is not None:
            self._session.kill()
            self._session = None
        if dropped.code is None:
            return str(dropped)
        failure = self._transport.failure(dropped.code, dropped.complaints)
        if failure.lasting and not let_in:
            raise DeviceError(failure.message) from None
        return failure.message

    def _open(self) -> Session:
        session = Session(self._transport, self._token, silence_s=self._silence_s)
        if session.hello.others:
            session.kill()
            raise DeviceError(
                f"{self.name} is busy: another ofa-deploy measures there; wait for it, since two "
                "would disturb each other"
            )
        return session

    def _reopened(self) -> Session:
        """The device again, and not another one.

        Raises:
            Dropped: if it is not reached.
            DeviceError: if another one is.
        """
        session = self._open()
        before, now = self.hello, session.hello
        lasting = [*(name for name in Hello.model_fields if name not in _PASSING), "power_mode"]
        pairs = {name: (getattr(before, name), getattr(now, name)) for name in lasting}
        pairs["gpu"] = (before.telemetry.gpu, now.telemetry.gpu)
        different = [f"{name} ({was}, {new})" for name, (was, new) in pairs.items() if was != new]
        if different:
            session.kill()
            raise DeviceError(
                f"{self.name} is another device than before, or was changed (before, now): "
                f"{', '.join(different)}; run again to measure it as it is"
            )
        self.reconnects += 1
        if now.boot != before.boot:
            self.reboots += 1
            self._progress.say(
                f"{self.name} has been started anew; what it had not finished begins again"
            )
        self.hello = now
        return session


def open_target(
    device: Device, *, config: Path | None = None, progress: Progress = SILENT
) -> AbstractContextManager[RemoteTarget | None]:
    """Where a device is measured, for ``with``: None is this machine.

    Args:
        config: an OpenSSH configuration in place of the user's.

    Raises:
        InputError: if nothing says where it is.
        DeviceError: if it cannot be reached, or cannot run the agent.
    """
    connection = device.ssh
    if connection is None:
        return nullcontext()
    return RemoteTarget(Ssh(connection, device.interpreter, config), progress=progress)
