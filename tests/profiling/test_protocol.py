"""Timing in turns, on a machine whose clock the tests turn themselves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from types import SimpleNamespace

import numpy as np
import pytest

from ofa_deploy.profiling import Protocol
from ofa_deploy.profiling import protocol as protocol_module
from ofa_deploy.profiling.agent.job import summary
from ofa_deploy.profiling.protocol import Throttled, Timings, time_in_turns

MS = 1_000_000


@dataclass
class Machine:
    """Things to call, and how long they take.

    Attributes:
        slowness: from the reference's bursts so far (the running one included) to a factor.
        calls: the names called, in order.
        now: in ns.
    """

    slowness: Callable[["Machine"], float] = lambda machine: 1.0
    calls: list[str] = field(default_factory=list)
    now: int = 0

    def callable(self, name: str, ms: float) -> Callable[[], None]:
        def call() -> None:
            self.calls.append(name)
            self.now += round(ms * MS * self.slowness(self))

        return call

    @property
    def bursts(self) -> list[tuple[str, int]]:
        """Calls of one name in a row, with their number."""
        return [(name, len(list(group))) for name, group in groupby(self.calls)]

    @property
    def visits(self) -> int:
        """Bursts of the reference so far."""
        return sum(name == "reference" for name, _ in self.bursts)

    def run(self, protocol: Protocol, **subjects: float) -> tuple[list[int], Timings]:
        """Time subjects of so many ms in turns with a reference of 1 ms."""
        calls = {name: self.callable(name, ms) for name, ms in subjects.items()}
        *standing, timings = time_in_turns(self.callable("reference", 1.0), calls, protocol)
        assert isinstance(timings, Timings)
        assert all(isinstance(each, int) for each in standing)
        return standing, timings  # type: ignore[return-value]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine()
    clock = SimpleNamespace(perf_counter_ns=lambda: made.now)
    monkeypatch.setattr(protocol_module, "time", clock)
    yield made


def test_every_round_stands_between_two_of_the_reference(machine: Machine) -> None:
    standing, timings = machine.run(Protocol(rounds=3, runs=2, discard=1), a=2.0, b=3.0)
    turn = [("a", 3), ("b", 3), ("reference", 3)]
    assert machine.bursts == [("reference", 3), *turn, *turn, *turn]
    assert standing == [1, 2, 3]
    assert timings.rejected == 0


def test_timings_are_in_ms_a_round_and_run(machine: Machine) -> None:
    _, timings = machine.run(Protocol(rounds=3, runs=2), a=2.0, b=3.0)
    np.testing.assert_array_equal(timings.subjects["a"], np.full((3, 2), 2.0))
    np.testing.assert_array_equal(timings.subjects["b"], np.full((3, 2), 3.0))
    assert len(timings.reference) == 3 * 2 * 2
    assert (timings.reference == 1.0).all()


def test_an_engine_with_a_clock_of_its_own_is_believed(machine: Machine) -> None:
    """Such as the events of a GPU; whatever else a call returns means nothing."""
    one = machine.callable("one", 5.0)

    def timed() -> float:
        one()
        return 3.0

    def talkative() -> dict[str, int]:
        one()
        return {"answer": 1}

    reference = machine.callable("reference", 1.0)
    calls = {"timed": timed, "talkative": talkative}
    *_, timings = time_in_turns(reference, calls, Protocol(rounds=2, runs=2))
    assert isinstance(timings, Timings)
    assert (timings.subjects["timed"] == 3.0).all()
    assert (timings.subjects["talkative"] == 5.0).all()


def test_a_clock_that_tells_nothing_is_an_error(machine: Machine) -> None:
    with pytest.raises(ValueError, match="tells 0 ms for the reference"):
        list(time_in_turns(lambda: 0.0, {"a": machine.callable("a", 1.0)}, Protocol(rounds=2)))


@pytest.mark.parametrize("discard", [0, 1, 2])
def test_first_calls_of_a_burst_are_not_timed(machine: Machine, discard: int) -> None:
    def cold(m: Machine) -> float:
        return 50.0 if m.bursts[-1][1] <= discard else 1.0

    machine.slowness = cold
    _, timings = machine.run(Protocol(rounds=2, runs=3, discard=discard), a=2.0)
    assert (timings.reference == 1.0).all()
    assert (timings.subjects["a"] == 2.0).all()


def test_round_of_many_windows(machine: Machine) -> None:
    """The reference comes back whenever a window's time is over, and after the round's last."""
    protocol = Protocol(rounds=2, runs=2, discard=1, window_ms=9.0)
    _, timings = machine.run(protocol, a=2.0, b=3.0, c=1.0)
    reference = ("reference", 3)
    turn = [("a", 3), ("b", 3), reference, ("c", 3), reference]
    assert machine.bursts == [reference, *turn, *turn]
    assert timings.windows == 4
    assert {name: times.shape for name, times in timings.subjects.items()} == {
        "a": (2, 2),
        "b": (2, 2),
        "c": (2, 2),
    }
    assert timings.ratios["b"].tolist() == [3.0, 3.0]


def test_window_is_no_shorter_than_the_reference_takes(machine: Machine) -> None:
    protocol = Protocol(rounds=1, runs=5, discard=0, visit_ms=20.0, window_ms=0.0)
    machine.run(protocol, a=0.5, b=0.3, c=0.3)
    reference = ("reference", 5)
    assert machine.bursts == [reference, ("a", 5), ("b", 5), ("c", 5), reference]


def test_only_the_window_in_which_the_reference_moved_is_repeated(machine: Machine) -> None:
    machine.slowness = lambda m: 1.5 if m.visits == 3 else 1.0
    protocol = Protocol(rounds=3, runs=2, discard=1, window_ms=1.0)
    standing, timings = machine.run(protocol, a=2.0, b=3.0)
    subjects = [name for name, _ in machine.bursts if name != "reference"]
    assert subjects == ["a", "b", "b", "b", "a", "b", "a", "b"]
    assert standing == [1, 2, 3]
    assert (timings.windows, timings.rejected) == (6, 2)
    assert (timings.reference == 1.0).all()
    assert (timings.subjects["b"] == 3.0).all()


def test_round_in_which_the_reference_moved_is_repeated(machine: Machine) -> None:
    # The third visit of the reference is the end of window 2 and the start of window 3.
    machine.slowness = lambda m: 1.5 if m.visits == 3 else 1.0
    standing, timings = machine.run(Protocol(rounds=4, runs=2), a=2.0)
    assert standing == [1, 2, 3, 4]
    assert timings.rejected == 2
    assert timings.subjects["a"].shape == (4, 2)
    assert (timings.subjects["a"] == 2.0).all()
    assert (timings.reference == 1.0).all()
    assert machine.visits == 1 + 4 + 2


def test_reference_that_moves_within_the_tolerance_stands(machine: Machine) -> None:
    machine.slowness = lambda m: 1.05 if m.visits == 3 else 1.0
    _, timings = machine.run(Protocol(rounds=4, runs=2, tolerance=0.1), a=2.0)
    assert timings.rejected == 0


def test_drift_slower_than_the_tolerance_stands(machine: Machine) -> None:
    """A round is judged by what stands around it, not by the whole run."""
    machine.slowness = lambda m: 1.05**m.visits
    _, timings = machine.run(Protocol(rounds=20, runs=2, tolerance=0.1), a=2.0)
    assert timings.rejected == 0
    assert timings.reference.max() / timings.reference.min() > 2


def test_single_slow_run_drops_no_round(machine: Machine) -> None:
    machine.slowness = lambda m: 50.0 if m.visits == 3 and m.bursts[-1][1] == 4 else 1.0
    _, timings = machine.run(
        Protocol(rounds=4, runs=5, discard=1, visit_ms=20.0, tolerance=0.1), a=2.0
    )
    assert timings.reference.max() == 50.0
    assert timings.rejected == 0


def test_slow_start_does_not_become_the_measure(machine: Machine) -> None:
    machine.slowness = lambda m: 3.0 if m.visits == 1 else 1.0
    _, timings = machine.run(Protocol(rounds=20, runs=2), a=2.0)
    assert 0 < timings.rejected < 20
    assert (timings.reference == 1.0).all()


def test_a_machine_that_never_stands_still_ends_all_the_same(machine: Machine) -> None:
    """No more windows are dropped than stand, and one."""
    machine.slowness = lambda m: 3.0 if m.visits % 2 else 1.0
    standing, timings = machine.run(Protocol(rounds=5, runs=2), a=2.0)
    assert standing == [1, 2, 3, 4, 5]
    assert (timings.windows, timings.rejected) == (5, 5)
    assert timings.subjects["a"].shape == (5, 2)


def test_window_in_which_clocks_were_held_down_is_timed_again(machine: Machine) -> None:
    """And the reference, before the next one, too: it was slow just now."""
    asked: list[int] = []

    def held() -> bool:
        asked.append(machine.visits)
        return machine.visits == 3

    calls = {"a": machine.callable("a", 2.0)}
    protocol = Protocol(rounds=3, runs=2, discard=0)
    reference = machine.callable("reference", 1.0)
    *_, timings = time_in_turns(reference, calls, protocol, held=held)
    assert isinstance(timings, Timings)
    assert asked[0] == 0, "what was before does not count"
    one, burst = ("a", 2), ("reference", 2)
    assert machine.bursts == [burst, one, burst, one, ("reference", 4), one, burst, one, burst]
    assert (timings.windows, timings.throttled, timings.rejected) == (3, 1, 0)
    assert timings.subjects["a"].shape == (3, 2)


def test_device_that_is_mostly_held_down_is_given_up(machine: Machine) -> None:
    calls = {"a": machine.callable("a", 2.0)}
    reference = machine.callable("reference", 1.0)
    with pytest.raises(Throttled, match="21 of 21 windows"):
        list(time_in_turns(reference, calls, Protocol(runs=2), held=lambda: True))
    answers = iter([False, *[False] * 5, *[True] * 30])
    with pytest.raises(Throttled, match="26 of 31 windows"):
        list(time_in_turns(reference, calls, Protocol(runs=2), held=lambda: next(answers)))


def test_windows_last_ten_times_as_long_as_asking(machine: Machine) -> None:
    calls = {name: machine.callable(name, 1.0) for name in "abcdef"}
    protocol = Protocol(rounds=1, runs=2, discard=0, window_ms=1.0)
    reference = machine.callable("reference", 0.1)
    *_, timings = time_in_turns(reference, calls, protocol, held_ms=0.6)
    assert isinstance(timings, Timings)
    assert [len(list(group)) for group in _between(machine)] == [3, 3]


def _between(machine: Machine) -> Iterator[list[str]]:
    """Subjects of each window."""
    window: list[str] = []
    for name, _ in machine.bursts[1:]:
        if name == "reference":
            yield window
            window = []
        else:
            window.append(name)


@pytest.mark.parametrize(
    ("seconds", "spent", "rounds"),
    [
        (0.0, 0.0, 40),
        (0.0, 99.0, 40),
        (0.1, 0.0, 9),
        (0.1, 0.04, 6),
        (0.01, 0.0, 6),
        (9.0, 0.0, 40),
    ],
)
def test_rounds_end_with_the_time(
    machine: Machine, seconds: float, spent: float, rounds: int
) -> None:
    """A round takes 12 ms here, and the first visit of the reference 3 ms; six are the least."""
    calls = {"a": machine.callable("a", 3.0)}
    protocol = Protocol(runs=2, seconds=seconds)
    reference = machine.callable("reference", 1.0)
    *standing, timings = time_in_turns(reference, calls, protocol, spent_s=spent)
    assert standing == [*range(1, rounds + 1)]
    assert isinstance(timings, Timings)
    assert timings.subjects["a"].shape == (rounds, 2)


def test_ratios_are_recovered_under_drift(machine: Machine) -> None:
    rounds = 40
    machine.slowness = lambda m: 1 + m.now / MS / 1000  # twice as slow after a second
    protocol = Protocol(rounds=rounds, runs=5, visit_ms=20.0, tolerance=10.0)
    _, timings = machine.run(protocol, half=0.5, same=1.0, triple=3.0)
    found = summary(timings)
    for name, ratio in (("half", 0.5), ("same", 1.0), ("triple", 3.0)):
        assert found[name]["ratio"] == pytest.approx(ratio, rel=0.02)
    # The plain timings are no use: they moved by far more.
    assert timings.reference.max() / timings.reference.min() > 3


def test_ratios_are_recovered_when_the_clock_jumps(machine: Machine) -> None:
    rng = np.random.default_rng(3)
    slowness = 1 + 0.5 * (rng.random(1000) < 0.2)  # a fifth of the visits is half as slow again
    machine.slowness = lambda m: float(slowness[m.visits])
    _, timings = machine.run(Protocol(rounds=40, runs=5), triple=3.0)
    assert timings.rejected > 5
    assert summary(timings)["triple"]["ratio"] == pytest.approx(3.0, rel=0.01)


def test_summary_by_hand() -> None:
    timings = Timings(
        reference=np.array([1.0, 1.0, 3.0, 2.0, 2.0, 2.0]),
        subjects={"a": np.array([[2.0, 9.0, 2.0], [6.0, 6.0, 1.0]])},
        ratios={"a": np.array([2.0, 3.0])},
        windows=2,
        rejected=0,
    )
    found = summary(timings)
    assert found[""]["ratio"] == 1.0
    assert found["a"]["ratio"] == pytest.approx(2.5)
    assert found["a"]["p50"] == pytest.approx(4.0)
    assert found["a"]["runs"] == 6
    assert found["a"]["p10"] <= found["a"]["p50"] <= found["a"]["p90"] <= found["a"]["p99"]


def test_ratio_is_the_median_run_over_the_reference_beside_it(machine: Machine) -> None:
    """Beside: the median of the runs before and after, here of 1, 1, 1.05 and 1.05 ms."""
    machine.slowness = lambda m: 1.05 if m.visits == 2 and m.bursts[-1][0] != "a" else 1.0
    _, timings = machine.run(Protocol(rounds=1, runs=2), a=2.0)
    assert timings.ratios["a"].tolist() == pytest.approx([2.0 / 1.025])
