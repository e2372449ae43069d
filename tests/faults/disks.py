"""Disks and clocks that fail beneath a command: what it said, and what was lost."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.injection import Done, Fault
from tests.faults.killing import COMMANDS, World, differences

__all__ = ["FILE_BYTES", "VANISH", "Outcome", "clock_back", "full_disk", "said_badly", "vanished"]

_GONE = re.compile(r"gone from a run that was finished; remove (\S+) to train it again")
_NO_CURVES = re.compile(r"(\S+): gone, so there are no curves")
FILE_BYTES: Sequence[int] = (0, 300, 1_000, 3_000, 10_000, 20_000, 40_000, 80_000, 160_000)
VANISH: Mapping[str, Sequence[str]] = {
    "train": ("r", "r/run.json", "r/state.pt", "r/metrics.csv", "r/supernet.safetensors"),
    "evaluate": ("r/evaluations.jsonl", "r/accuracy.onnx"),
    "profile": ("latency_tables", "tables"),
    "search": ("r/measurements", "r/fronts", "r/subnets", "r/evaluations.jsonl"),
    "export": ("bundles", "bundles/best"),
    "specialize": ("s", "s/state.pt", "s/subnets", "s/run.json"),
}


@dataclass(frozen=True)
class Outcome:
    """How a command fared.

    Attributes:
        refused: it ended with an error.
        problems: what it said wrongly, or lost; none is good.
    """

    refused: bool
    problems: list[str]


def said_badly(done: Done, expected: str = "") -> list[str]:
    """What is wrong with how a command said that it cannot go on."""
    if done.code == 0:
        return []
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if done.code != 1 or len(said) != 1 or "Traceback" in done.stderr:
        return [f"exit {done.code}, not one line: {done.stderr[-300:]}"]
    return [] if expected in said[0] else [f"said {said[0]!r}"]


def _again(world: World, name: str, work: Path, vanished: str = "") -> list[str]:
    """The same command after the mend; where it names another, after that.

    Args:
        vanished: a journal that did, and with it what only other commands make again.
    """
    done = world.run(*COMMANDS[name], cwd=work)
    if remove := _GONE.search(done.stderr):
        (work / remove[1]).unlink()
        done = world.run(*COMMANDS[name], cwd=work)
    failed = [f"again: exit {done.code}: {done.stderr[-300:]}"] if done.code else []
    said = differences(work, world.after(name), fewer=vanished)
    if told := _NO_CURVES.search(done.stderr):  # drawn from what somebody removed
        run = Path(told[1]).parent
        lost = {f"{told[1]}: missing", f"{run / 'curves.png'}: missing"}
        said = [each for each in said if each not in lost]
    return failed + said


def full_disk(world: World, name: str, file_bytes: int) -> Outcome:
    """No file can become larger; then the limit is gone."""
    work = world.fresh(name)
    done = world.run(*COMMANDS[name], cwd=work, fault=Fault(file_bytes=file_bytes))
    said = said_badly(done, "the disk is full")
    return Outcome(done.code != 0, said + _again(world, name, work))


def vanished(world: World, name: str, what: str, point: int) -> Outcome:
    """A file or folder goes at a point; the same command makes it again."""
    work = world.fresh(name)
    fault = Fault(kill_at=point, vanish=what)
    done = world.run(*COMMANDS[name], cwd=work, fault=fault)
    return Outcome(done.code != 0, said_badly(done) + _again(world, name, work, what))


def clock_back(world: World, name: str) -> Outcome:
    """The clock goes back an hour each time it is read."""
    work = world.fresh(name)
    done = world.run(*COMMANDS[name], cwd=work, fault=Fault(clock_back=3600.0))
    failed = [f"exit {done.code}: {done.stderr[-300:]}"] if done.code else []
    return Outcome(done.code != 0, failed + differences(work, world.after(name)))
