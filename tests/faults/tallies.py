"""Kills, failing disks and loads, counted: a tally a command and kind of fault, or a size."""

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ofa_deploy.space import SearchSpace
from tests.faults.crowd import profile_many, why_not
from tests.faults.disks import FILE_BYTES, VANISH, Outcome, clock_back, full_disk, vanished
from tests.faults.injection import Commands, Fault
from tests.faults.killing import COMMANDS, SPACE, World, sampled
from tests.faults.loads import LOADS, exponent, load

__all__ = ["Tally", "disk", "kill", "loads"]


@dataclass(frozen=True)
class Tally:
    """What was tried of one thing.

    Attributes:
        cases: tried; of a load its size.
        refused: ended with an error in one line.
        accepted_equal: ended, at the latest after the same command again, as if undisturbed.
        seconds: of a load, of the processor.
    """

    what: str
    cases: int
    refused: int
    accepted_equal: int
    faults: int
    seconds: float
    peak_mib: float = 0.0


@contextmanager
def _world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder, Commands() as commands:
        yield World(Path(folder), commands)


def _tally(what: str, cases: Sequence[Callable[[], Outcome]], peak_mib: float = 0.0) -> Tally:
    began = time.monotonic()
    refused = bad = 0
    for number, case in enumerate(cases):
        found = case()
        refused += found.refused
        bad += bool(found.problems)
        for problem in found.problems:
            print(f"  {what}, case {number}: {problem}", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    return Tally(what, len(cases), refused, len(cases) - bad, bad, seconds, peak_mib)


def kill(times: int) -> Iterator[Tally]:
    """Every command killed at every point, and all together at so many random times."""
    with _world() as world:
        for name in COMMANDS:
            done = world.undisturbed(name)
            draw = random.Random(f"times {name}")
            some = -(-times // len(COMMANDS))
            faults = {
                "at every point": [Fault(kill_at=k) for k in range(len(done.points))],
                "at random times": [
                    Fault(kill_after=draw.uniform(0, done.seconds)) for _ in range(some)
                ],
            }
            for when, each in faults.items():
                cases = [
                    lambda n=name, f=fault: Outcome(False, world.killed(n, f)) for fault in each
                ]
                yield _tally(f"{name} killed {when}", cases, done.peak_mib)
        draw = random.Random("measuring")  # really: times differ, entries do not
        timed = [Fault(kill_after=draw.uniform(1, 6), exact=False) for _ in range(-(-times // 10))]
        cases = [lambda f=fault: Outcome(False, world.killed("profile", f)) for fault in timed]
        yield _tally("profile killed while it measures", cases)


def disk(times: int) -> Iterator[Tally]:
    """Files that cannot grow, files that vanish, a clock that goes back."""
    with _world() as world:
        for name in COMMANDS:
            total = len(world.undisturbed(name).points)
            points = sampled(max(4, times // 20), total, seed=5)
            kinds: dict[str, list[Callable[[], Outcome]]] = {
                "disk full": [lambda n=name, b=b: full_disk(world, n, b) for b in FILE_BYTES],
                "files vanish": [
                    lambda n=name, w=what, p=point: vanished(world, n, w, p)
                    for what in VANISH[name]
                    for point in points
                ],
                "clock goes back": [lambda n=name: clock_back(world, n)],
            }
            for kind, cases in kinds.items():
                yield _tally(f"{name}, {kind}", cases)


def loads() -> Iterator[Tally]:
    """Work of several sizes; the greatest is a fault where it grew faster than it may."""
    for name, kind in LOADS.items():
        taken = [load(name, size) for size in kind.sizes]
        power = exponent(taken[0], taken[-1])
        for each in taken:
            last = each is taken[-1]
            what = f"{kind.what}{f' (time grew as size^{power:.2f})' if last else ''}"
            bad = int(last and power >= kind.most_exponent)
            yield Tally(what, each.size, 0, 1 - bad, bad, each.cpu, each.peak_mib)
    if not why_not():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "tiny.toml").write_text(SPACE)
            taken_by_all = profile_many(folder, SearchSpace.from_toml(folder / "tiny.toml"), 50)
        what = f"profiles at once over SSH, {taken_by_all.seconds:.0f} s by the clock"
        yield Tally(what, 50, 0, 50, 0, taken_by_all.cpu, taken_by_all.peak_mib)
