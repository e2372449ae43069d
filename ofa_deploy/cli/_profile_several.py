"""Several devices of ``ofa-deploy profile``, measured at the same time, a thread each.

Threads do little here but wait for other processes: an ssh a device, and the measuring process of
this machine where it is one of the devices. What does take this machine's time, building graphs, is
done by one thread after another, and before this machine is measured.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import typer

from ofa_deploy.cli._output import (
    INTERRUPTED,
    next_steps,
    progress_of_several,
    quoted,
    say,
    wrote,
)
from ofa_deploy.cli._profile_job import Profiled, ProfileJob
from ofa_deploy.errors import DeviceError, OfaDeployError
from ofa_deploy.hardware import Device
from ofa_deploy.terminal import Progress, Task, Work

__all__ = ["profile_several"]

_POLL_S = 0.2
_LAST_WAIT_S = 10.0  # for threads that were told to end: about a round of timing


def profile_several(
    context: typer.Context,
    job: ProfileJob,
    devices: Sequence[Device],
    names: Mapping[str, str],
    run: Path | None,
    quiet: bool,
) -> None:
    """Measure on all, and say what came of each.

    Args:
        context: of the command, from which the one that goes on is made.
        names: by device id, as the user named it.
        run: whose space it is, if a run's.

    Raises:
        DeviceError: if one failed, naming the command that goes on; OfaDeployError if what failed
            is no device.
    """
    together = _Together([device.id for device in devices if device.ssh is not None])
    with progress_of_several([device.id for device in devices], quiet) as bars:
        parts = [_Part(job, device, together, bars[device.id]) for device in devices]
        interrupted = _all_ended(parts, together)
    for part in parts:
        part.tell(quiet)
    left = [names[part.device.id] for part in parts if part.made is None]
    again = f"go on with: {_command(context, left)}" if left else ""
    if interrupted:
        say(f"interrupted; finished work is kept{again and f', {again}'}")
        raise typer.Exit(INTERRUPTED)
    if failed := [part.error for part in parts if part.error is not None]:
        raise _as_one(failed, f"of {len(parts)} devices failed: {', '.join(left)}", again)
    made = {part.device.id: part.made for part in parts if part.made is not None}
    limits = [f"latency[{name}] <= {each.middle_ms:.2f} ms" for name, each in made.items()]
    asked = " ".join(
        f"--device {quoted(name)} --constraint {quoted(limit)}"
        for name, limit in zip(made, limits, strict=True)
    )
    next_steps(f"ofa-deploy search --run {quoted(run or 'RUN')} {asked}", quiet=quiet)


def _as_one(failed: Sequence[BaseException], which: str, again: str) -> BaseException:
    """What to raise where some devices failed; a mistake of ours is raised as it is."""
    for error in failed:
        if not isinstance(error, OfaDeployError | OSError):
            return error
    kind = DeviceError if any(isinstance(e, DeviceError) for e in failed) else OfaDeployError
    return kind(f"{len(failed)} {which}; finished work is kept, {again}")


def _all_ended(parts: "Sequence[_Part]", together: "_Together") -> bool:
    """Start all, and wait until they have ended; whether Ctrl-C ended them.

    Raises:
        RuntimeError: if one cannot be started; those that were have ended then.
    """
    try:
        for part in parts:
            part.start()
        for part in parts:
            while part.is_alive():  # a signal that another thread got is heard between two waits
                part.join(_POLL_S)
    except BaseException as error:
        together.stopped.set()
        end = time.monotonic() + _LAST_WAIT_S
        for part in parts:
            if part.is_alive():
                part.join(max(end - time.monotonic(), 0.0))
        if not isinstance(error, KeyboardInterrupt):
            raise
        return True
    return False


@dataclass(frozen=True)
class _Together:
    """What the threads agree on.

    Attributes:
        remote: ids of the devices that are not this machine.
        stopped: whether all shall end.
        building: held by the one that builds graphs.
        built: by remote device, whether it has its graphs, or has ended.
    """

    remote: Sequence[str]
    stopped: threading.Event = field(default_factory=threading.Event)
    building: threading.Lock = field(default_factory=threading.Lock)
    built: dict[str, threading.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.built.update({name: threading.Event() for name in self.remote})

    def check(self) -> None:
        """End this thread's work as Ctrl-C would, if all shall end."""
        if self.stopped.is_set():
            raise KeyboardInterrupt

    def missing(self) -> list[str]:
        """Devices whose graphs are still to be built."""
        return [name for name, built in self.built.items() if not built.is_set()]


class _Part(threading.Thread):
    """One of the devices.

    Attributes:
        made: once it is measured.
        error: why it is not.
    """

    def __init__(
        self, job: ProfileJob, device: Device, together: _Together, shown: Progress
    ) -> None:
        super().__init__(daemon=True)  # one that waits for a device does not hold the command up
        self.job, self.device, self.together, self.shown = job, device, together, shown
        self.made: Profiled | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            turns = _Turns(self.device.id, self.together, self.shown)
            self.made = self.job.run(self.device, turns, turns=turns)
        except KeyboardInterrupt:
            pass
        except BaseException as error:
            self.error = error
            self.shown.say("failed; the others go on")
        finally:
            if self.device.id in self.together.built:
                self.together.built[self.device.id].set()

    def tell(self, quiet: bool) -> None:
        """Say what came of it."""
        if self.made is not None:
            for line in self.made.told():
                say(f"{self.device.id}: {line}", quiet=quiet)
            wrote(self.made.path, quiet=quiet)
        elif self.error is not None:
            say(f"{self.device.id}: failed: {self.error}")


class _Turns:
    """The progress of one device, which waits for its turn and hears that all shall end."""

    def __init__(self, name: str, together: _Together, shown: Progress) -> None:
        self._name, self._together, self._shown = name, together, shown

    def say(self, message: str) -> None:
        self._together.check()
        self._shown.say(message)

    @contextmanager
    def task(
        self, description: str, total: int, *, done: int = 0, work: Work = float
    ) -> Iterator[Task]:
        with self._shown.task(description, total, done=done, work=work) as task:
            yield _Watched(task, self._together)

    @contextmanager
    def building(self) -> Iterator[None]:
        """One thread after another."""
        while not self._together.building.acquire(timeout=_POLL_S):
            self._together.check()
        try:
            yield
        finally:
            self._together.building.release()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """At once on another machine; on this one when all graphs are built."""
        if self._name in self._together.built:
            self._together.built[self._name].set()
        else:
            self._wait_for_builders()
        yield

    def _wait_for_builders(self) -> None:
        """Building takes this machine's time, and would be in what is measured on it."""
        if missing := self._together.missing():
            self.say(f"waits until the graphs for {', '.join(missing)} are built here")
        while self._together.missing():
            self._together.check()
            time.sleep(_POLL_S)


@dataclass(frozen=True)
class _Watched:
    """A bar that ends its work when all shall end."""

    task: Task
    together: _Together

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.together.check()
        self.task.advance(steps, note)


def _command(context: typer.Context, devices: Sequence[str]) -> str:
    """The command that was given, for these devices."""
    words = ["ofa-deploy profile"]
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is None or source.name != "COMMANDLINE" or parameter.name == "device":
            continue
        value = context.params[parameter.name or ""]
        words += [parameter.opts[0]] if value is True else [parameter.opts[0], quoted(value)]
    return " ".join([*words, *(f"--device {quoted(name)}" for name in devices)])
