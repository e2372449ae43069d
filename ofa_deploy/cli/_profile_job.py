"""One device of ``ofa-deploy profile``, and whether several can be measured at the same time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from ofa_deploy.cli._workspace import load_warning, table_path
from ofa_deploy.errors import InputError
from ofa_deploy.files import exclusive
from ofa_deploy.hardware import Device, LatencyTable
from ofa_deploy.predict import LatencyModel, latency_model
from ofa_deploy.profiling import ALONE, Turns, open_target, profile_space
from ofa_deploy.space import SearchSpace
from ofa_deploy.terminal import Progress

__all__ = ["ProfileJob", "Profiled", "check_apart"]

_HERE = "this machine"
_SSH_PORT = 22


@dataclass(frozen=True)
class Profiled:
    """A table that was measured, and where it was written."""

    space: SearchSpace
    table: LatencyTable
    path: Path

    @cached_property
    def model(self) -> LatencyModel:
        """What the table says of whole networks."""
        return latency_model(self.space, self.table)

    @property
    def middle_ms(self) -> float:
        """Midway between the fastest and the slowest network."""
        return sum(self.model.bounds()) / 2

    def told(self) -> Iterator[str]:
        """What to say of it."""
        least, greatest = self.model.bounds()
        yield f"latency reaches from {least:.3f} to {greatest:.3f} ms; {self.model.holdout}"
        if warning := load_warning(self.table):
            yield warning


@dataclass(frozen=True)
class ProfileJob:
    """What is measured, on whichever device.

    Attributes:
        settings: those of ``profile_space``.
    """

    space: SearchSpace
    settings: Mapping[str, Any]

    def run(
        self,
        device: Device,
        progress: Progress,
        out: Path | None = None,
        turns: Turns = ALONE,
    ) -> Profiled:
        """Measure on one device and write its table.

        Raises:
            OfaDeployError: as ``open_target`` and ``profile_space``; finished work is kept.
        """
        # One lock a device: two profiles at once would measure each other.
        folder = Path("latency_tables") / device.id
        form = "-".join(str(self.settings[part]) for part in ("runtime", "precision"))
        work = folder / f".{self.space.fingerprint}-{form}"
        journals: list[Path] = []
        with exclusive(folder), open_target(device, progress=progress) as target:
            table = profile_space(
                self.space,
                device,
                target=target,
                journal=work,
                progress=progress,
                turns=turns,
                kept=journals.append,
                **self.settings,
            )
            path = table.save(table_path(table, out))
            for journal in journals:  # of what the table now holds; others are not finished yet
                journal.unlink(missing_ok=True)
            with suppress(OSError):  # others are there
                work.rmdir()
        return Profiled(self.space, table, path)


def check_apart(devices: Sequence[Device]) -> None:
    """See that no two devices are one machine, as far as their names and addresses tell.

    What they do not tell, such as two names of one host, the agent there does: for each of its
    users it measures one thing at a time. Two users of one host do not see each other.

    Raises:
        InputError: naming two that are.
    """
    for one, other in combinations(devices, 2):
        if one.id == other.id:
            raise InputError(f"expected devices that differ, found {one.id} twice: give it once")
        if (place := _place(one)) == _place(other):
            raise InputError(
                f"{one.id} and {other.id} are the same machine ({place}) and would disturb each "
                "other: profile one after the other"
            )


def _place(device: Device) -> str:
    """The machine, without the user: names in an ssh configuration stand for themselves."""
    where = device.ssh
    if where is None:
        return _HERE
    port = where.port or _SSH_PORT
    loopback = where.host.lower() in ("localhost", "::1") or where.host.startswith("127.")
    if loopback and port == _SSH_PORT:  # other ports may be the near end of a tunnel
        return _HERE
    return where.host.lower() + (f":{port}" if port != _SSH_PORT else "")
