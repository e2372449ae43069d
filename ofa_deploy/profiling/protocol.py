"""The measuring protocol: many callables timed in turns with a reference. Stdlib and numpy only.

Timings drift with clocks, heat and neighbours; ratios between things timed next to each other do
not. So every round times the reference and each subject a few runs, and a subject's figure is the
median over rounds of its ratio to the reference, times the reference's own 10th percentile, which
other programs move least: the latency of a machine that does nothing else. A round in which the
reference moved is dropped and timed again.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Protocol", "Timings", "time_in_turns"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How often, and how strictly.

    Attributes:
        rounds: rounds that must stand.
        runs: timed runs a round and subject, after ``discard`` untimed ones.
        visit_ms: after so long, and two timed runs, the round goes on to the next subject.
        tolerance: how far the reference's medians before and after a round may differ.
        processes: independent processes; a figure is the median over them.
    """

    rounds: int = 40
    runs: int = 10
    discard: int = 1
    visit_ms: float = 20.0
    tolerance: float = 0.1
    processes: int = 4


@dataclass(frozen=True)
class Timings:
    """Timings of one process, in ms.

    Attributes:
        reference: shape (rounds, 2 * runs): timed before and after the subjects.
        subjects: by name, each of shape (rounds, runs); fewer runs where ``visit_ms`` ended them.
        rejected: rounds that were dropped because the reference had moved.
    """

    reference: Floats
    subjects: dict[str, Floats]
    rejected: int


@dataclass(frozen=True)
class _Visitor:
    """Times calls; the first visit of a subject decides how many runs all its visits have."""

    protocol: Protocol
    runs: dict[str, int] = field(default_factory=dict)

    def time(self, name: str, call: Callable[[], None]) -> list[float]:
        clock = time.perf_counter_ns
        for _ in range(self.protocol.discard):
            call()
        marks: list[float] = []
        known = self.runs.get(name)
        while len(marks) < (known or self.protocol.runs):
            start = clock()
            call()
            marks.append((clock() - start) / 1e6)
            if known is None and len(marks) >= 2 and sum(marks) >= self.protocol.visit_ms:
                break
        self.runs[name] = len(marks)
        return marks


def time_in_turns(
    reference: Callable[[], None], subjects: Mapping[str, Callable[[], None]], protocol: Protocol
) -> Iterator[Timings | int]:
    """Time all subjects, round by round.

    A round stands if the reference, timed before and after it, kept within the tolerance. At most
    as many rounds are dropped as asked for; after that they stand as they are, and ``rejected``
    tells.

    Yields:
        The number of rounds that stand after each round, and at the end the ``Timings``.
    """
    kept: list[tuple[list[float], dict[str, list[float]]]] = []
    rejected = 0
    visitor = _Visitor(protocol)
    before = visitor.time("", reference)
    while len(kept) < protocol.rounds:
        taken = {name: visitor.time(name, call) for name, call in subjects.items()}
        after = visitor.time("", reference)
        low, high = sorted((float(np.median(before)), float(np.median(after))))
        if high / low - 1 > protocol.tolerance and rejected < protocol.rounds:
            rejected += 1
        else:
            kept.append((before + after, taken))
        before = after
        yield len(kept)
    yield Timings(
        reference=np.array([reference_times for reference_times, _ in kept]),
        subjects={name: np.array([taken[name] for _, taken in kept]) for name in subjects},
        rejected=rejected,
    )
