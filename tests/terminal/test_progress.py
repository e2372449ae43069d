"""How long work still takes: said when it is known, and near the truth."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from rich.console import Console

from ofa_deploy.cli import _output
from ofa_deploy.space import get_space
from ofa_deploy.terminal import Portions, TimeLeft, duration
from ofa_deploy.terminal import progress as _progress
from ofa_deploy.train import get_recipe, plan_for


@dataclass
class Clock:
    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (_progress, _output):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def take(clock: Clock) -> Callable[..., list[float | None]]:
    """What is said after each step that takes so many seconds."""

    def call(left: TimeLeft, *seconds: float) -> list[float | None]:
        said = []
        for each in seconds:
            clock.now += each
            left.moved(1)
            said.append(left.seconds())
        return said

    return call


def test_nothing_is_said_until_steps_and_seconds_are_known(take: Callable[..., list]) -> None:
    assert take(TimeLeft(10), 1, 3, 3) == [None, None, pytest.approx(21)]
    assert take(TimeLeft(100), *[0.5] * 5)[:4] == [None] * 4


def test_nothing_is_said_when_nothing_is_left(take: Callable[..., list]) -> None:
    assert take(TimeLeft(5), *[3] * 5)[-2:] == [pytest.approx(3), None]


def test_a_slow_first_step_is_left_out(take: Callable[..., list]) -> None:
    assert take(TimeLeft(10), 60, 2, 2)[-1] == pytest.approx(14)


def test_what_was_done_before_took_no_time(take: Callable[..., list]) -> None:
    assert take(TimeLeft(100, done=90), 2, 2, 2)[-1] == pytest.approx(14)


def test_the_pace_is_that_of_late(take: Callable[..., list]) -> None:
    said = take(TimeLeft(200), *[1.0] * 50, *[4.0] * 50)
    assert said[49] == pytest.approx(150)
    assert said[-1] == pytest.approx(400)


def test_phases_of_different_cost(take: Callable[..., list]) -> None:
    left = TimeLeft(100, work=lambda steps: steps + 3 * max(0, steps - 50))
    assert take(left, *[1.0] * 25)[-1] == pytest.approx(25 + 200)
    assert take(left, *[1.0] * 25, *[4.0] * 10)[-1] == pytest.approx(160)


def test_it_counts_down_between_steps(clock: Clock, take: Callable[..., list]) -> None:
    left = TimeLeft(10)
    take(left, 5, 5, 5)
    clock.now += 4
    assert left.seconds() == pytest.approx(31)
    clock.now += 1_000
    assert left.seconds() == 0


def test_many_steps_are_not_all_remembered(take: Callable[..., list]) -> None:
    left = TimeLeft(100_000)
    take(left, *[0.1] * 20_000)
    assert len(left._marks) < 2_000
    assert left.seconds() == pytest.approx(8_000, rel=0.01)


def test_a_plan_s_phases_are_weighed() -> None:
    space = get_space("mbv3-nano-32")
    plan = plan_for(get_recipe("deps-glyphs").config, space, 10)
    costs = tuple(range(1, 1 + len(plan.phases)))
    whole = sum(c * phase.steps for c, phase in zip(costs, plan.phases, strict=True))
    first = plan.phases[0].steps
    assert plan.work(costs, plan.steps) == whole
    assert [plan.work(costs, n) for n in (0, first, first + 1)] == [0, first, first + 2]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (137, "137 s"), (300, "5 min"), (5_100, "85 min"), (15_000, "4.2 h")],
)
def test_durations_are_one_number(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_log_says_what_is_left(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), width=120)
    monkeypatch.setattr(_output, "_stderr", screen)
    with _output.progress(False).task("train", 100) as task:
        for seconds in (20, 5, 5, 5):
            clock.now += seconds
            task.advance(note="loss 1.0")
    assert screen.file.getvalue().splitlines() == [
        "train: 1/100 loss 1.0",
        "train: 3/100, 8 min left loss 1.0",
        "train: 4/100 in 35 s loss 1.0",
    ]


def test_a_terminal_says_what_is_left(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, height=20)
    monkeypatch.setattr(_output, "_stderr", screen)
    monkeypatch.setattr(_output, "_on_terminal", lambda: True)
    with _output.progress(False).task("train", 100) as task:
        for seconds in (20, 5, 5):
            clock.now += seconds
            task.advance()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue())
    first, last = text.splitlines()[0], text.splitlines()[-1]
    assert "left" not in first
    assert "3/100" in last and "8 min left" in last


def test_a_task_within_a_task_has_a_line_of_its_own(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, height=20)
    monkeypatch.setattr(_output, "_stderr", screen)
    monkeypatch.setattr(_output, "_on_terminal", lambda: True)
    bars = _output.progress(False)
    with bars.task("export", 2) as outer:
        with bars.task("build", 3):
            pass
        with bars.task("compare", 5):
            pass
        outer.advance(2)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue())
    assert "  build" in text and "  compare" in text
    last = text.splitlines()[-1]
    assert last.startswith("export") and "2/2" in last


def test_a_short_task_within_a_task_is_not_in_a_log(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(file=io.StringIO(), width=120)
    monkeypatch.setattr(_output, "_stderr", screen)
    lines = _output.progress(False)
    with lines.task("export", 1) as outer:
        for name, seconds in (("build", 1), ("blocks", 11)):
            with lines.task(name, 2) as inner:
                for _ in range(2):
                    clock.now += seconds
                    inner.advance()
        outer.advance()
    assert screen.file.getvalue().splitlines() == [
        "blocks: 1/2",
        "blocks: 2/2 in 22 s",
        "export: 1/1 in 24 s",
    ]


def test_portions_move_one_bar_on(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), width=120)
    monkeypatch.setattr(_output, "_stderr", screen)
    lines = _output.progress(False)
    with lines.task("evaluate", 8) as whole:
        bar = Portions(whole, lines)
        for done, total in ((2, 4), (0, 4)):
            with bar.task("some", total, done=done) as task:
                for _ in range(total - done):
                    clock.now += 4
                    task.advance(note="90 %")
        bar.say("that was all")
    assert screen.file.getvalue().splitlines() == [
        "evaluate: 5/8, 12 s left 90 %",
        "that was all",
        "evaluate: 8/8 in 24 s 90 %",
    ]
