"""The measuring protocol: many callables timed in turns with a reference.

Standard library and numpy only, on Python 3.8 too: the agent carries this file to other devices.

Timings drift with clocks, heat and neighbours; ratios between things timed next to each other do
not. So each round times every subject a few runs, and the reference before and after every window
of so many ms. A subject's figure is the median over rounds of its ratio to the reference beside
it, times the reference's own 10th percentile, which other programs move least: the latency of a
machine that does nothing else. A window in which the reference moved is dropped and timed again,
and so is one in which the device said that its clocks were held down.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt

__all__ = ["LEAST_ROUNDS", "Call", "Floats", "Protocol", "Throttled", "Timings", "time_in_turns"]

LEAST_ROUNDS = 6
_ASKING = 10  # times what asking the device takes, for which a window lasts at least
_MOST_THROTTLED = 20  # windows beyond those that stand, after which a device is given up

# Texts, since Python 3.8 has no such types.
Floats: TypeAlias = "npt.NDArray[np.float64]"
# One inference; it returns its time in ms where the engine has a clock of its own.
Call: TypeAlias = "Callable[[], object]"


@dataclass(frozen=True)
class Protocol:
    """How often, and how strictly.

    Attributes:
        rounds: at most so many.
        seconds: after so long since its start, and ``LEAST_ROUNDS``, a process begins no other
            round; 0 is no limit.
        runs: timed runs a round and subject, after ``discard`` untimed ones.
        visit_ms: after so long, and two timed runs, the round goes on to the next subject.
        window_ms: after so long, and no sooner than its own visit took, the reference is timed
            again.
        tolerance: how far the reference's medians before and after a window may differ.
        processes: independent processes; a figure is the median over them.
    """

    rounds: int = 40
    seconds: float = 0.0
    runs: int = 10
    discard: int = 1
    visit_ms: float = 2.0
    window_ms: float = 100.0
    tolerance: float = 0.1
    processes: int = 4


@dataclass(frozen=True)
class Timings:
    """Timings of one process, in ms.

    Attributes:
        reference: all runs of the reference in windows that stand, one after another.
        subjects: by name, each of shape (rounds, runs); fewer runs where ``visit_ms`` ended them.
        ratios: by name, each of shape (rounds,): the median run over the reference's beside it.
        windows: how many stand.
        rejected: windows that were dropped because the reference had moved.
        throttled: windows that were dropped because clocks were held down.
    """

    reference: Floats
    subjects: dict[str, Floats]
    ratios: dict[str, Floats]
    windows: int
    rejected: int
    throttled: int = 0


class Throttled(Exception):
    """Clocks are held down in most windows."""


@dataclass(frozen=True)
class _Visitor:
    """Times calls; the first visit of a subject decides how many runs all its visits have."""

    protocol: Protocol
    runs: dict[str, int] = field(default_factory=dict)

    def time(self, name: str, call: Call) -> list[float]:
        clock = time.perf_counter_ns
        for _ in range(self.protocol.discard):
            call()
        marks: list[float] = []
        known = self.runs.get(name)
        while len(marks) < (known or self.protocol.runs):
            start = clock()
            own = call()
            marks.append(own if isinstance(own, float) else (clock() - start) / 1e6)
            if known is None and len(marks) >= 2 and sum(marks) >= self.protocol.visit_ms:
                break
        self.runs[name] = len(marks)
        return marks

    def window(
        self, subjects: Iterable[tuple[str, Call]], least_ms: float
    ) -> dict[str, list[float]]:
        """Time as many of the subjects as fit into a window, at least one."""
        taken: dict[str, list[float]] = {}
        end = time.perf_counter_ns() + 1e6 * max(self.protocol.window_ms, least_ms)
        for name, call in subjects:
            taken[name] = self.time(name, call)
            if time.perf_counter_ns() >= end:
                break
        return taken


@dataclass
class _Kept:
    """The windows that stand."""

    protocol: Protocol
    reference: list[float] = field(default_factory=list)
    subjects: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    ratios: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    windows: int = 0
    rejected: int = 0
    throttled: int = 0

    def drop(self) -> None:
        """A window in which clocks were held down.

        Raises:
            Throttled: if such windows are most.
        """
        self.throttled += 1
        if self.throttled > self.windows + _MOST_THROTTLED:
            raise Throttled(f"{self.throttled} of {self.windows + self.throttled} windows")

    def take(
        self, before: list[float], taken: Mapping[str, list[float]], after: list[float]
    ) -> bool:
        """Whether the window stands: the reference did not move, or has moved too often."""
        low, high = sorted((float(np.median(before)), float(np.median(after))))
        if low <= 0:
            raise ValueError("the engine's own clock tells 0 ms for the reference network")
        if high / low - 1 > self.protocol.tolerance and self.rejected <= self.windows:
            self.rejected += 1
            return False
        self.windows += 1
        self.reference += before + after
        beside = float(np.median(before + after))
        for name, times in taken.items():
            self.subjects[name].append(times)
            self.ratios[name].append(float(np.median(times)) / beside)
        return True

    def timings(self) -> Timings:
        return Timings(
            reference=np.array(self.reference),
            subjects={name: np.array(times) for name, times in self.subjects.items()},
            ratios={name: np.array(ratios) for name, ratios in self.ratios.items()},
            windows=self.windows,
            rejected=self.rejected,
            throttled=self.throttled,
        )


def _never() -> bool:
    return False


def time_in_turns(
    reference: Call,
    subjects: Mapping[str, Call],
    protocol: Protocol,
    *,
    spent_s: float = 0.0,
    held: Callable[[], bool] = _never,
    held_ms: float = 0.0,
) -> Iterator[Timings | int]:
    """Time all subjects, round by round, window by window.

    A window stands if the reference, timed before and after it, kept within the tolerance. While
    more windows were dropped than stand, one stands as it is; ``rejected`` tells.

    Args:
        spent_s: what the process has taken already, of the protocol's ``seconds``.
        held: asked after each window: whether clocks were held down since it was last asked.
        held_ms: what asking takes; windows are ten times as long at least.

    Yields:
        The number of finished rounds after each, and at the end the ``Timings``.

    Raises:
        Throttled: if clocks are held down in most windows.
    """
    kept = _Kept(protocol)
    visitor = _Visitor(protocol)
    end = time.perf_counter_ns() + 1e9 * (protocol.seconds - spent_s)
    held()  # what was before does not count
    before = visitor.time("", reference)
    for finished in range(1, protocol.rounds + 1):
        waiting = list(subjects.items())
        while waiting:
            taken = visitor.window(waiting, max(sum(before), _ASKING * held_ms))
            after = visitor.time("", reference)
            if held():
                kept.drop()
                before = visitor.time("", reference)
                continue
            if kept.take(before, taken, after):
                waiting = waiting[len(taken) :]
            before = after
        yield finished
        if protocol.seconds and finished >= LEAST_ROUNDS and time.perf_counter_ns() >= end:
            break
    yield kept.timings()
