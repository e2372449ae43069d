"""The schedule against the formulas of arXiv 2407.06167, written out anew."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.train import DepsSchedule, TrainConfig

# ImageNet-1k as published: T = 270, W = 150, s = 5, 1.28 M images in batches of 2,048.
PAPER = DepsSchedule(
    epochs=270, ramp_end=150, ramp_epochs=5, steps_per_epoch=625, lr=2.6, lr_min=2.5e-3
)
# The ramp ends early enough that the floor plays no part in it.
SHORT = DepsSchedule(epochs=10, ramp_end=6, ramp_epochs=2, steps_per_epoch=7, lr=0.4, lr_min=0.001)


@st.composite
def schedules(draw: st.DrawFn) -> DepsSchedule:
    epochs = draw(st.integers(2, 30))
    ramp_end = draw(st.integers(1, epochs - 1))
    return DepsSchedule(
        epochs=epochs,
        ramp_end=ramp_end,
        ramp_epochs=draw(st.integers(1, ramp_end)),
        steps_per_epoch=draw(st.integers(1, 20)),
        lr=draw(st.floats(1e-3, 10)),
        lr_min=draw(st.sampled_from([0.0, 1e-4])),
    )


def test_steps_are_counted_in_epochs() -> None:
    assert PAPER.steps == 168_750
    assert PAPER.shrinking_step == 145 * 625
    assert SHORT.shrinking_step == 28


@pytest.mark.parametrize(("share", "lr"), [(0, 2.6), (1 / 3, 1.95), (1 / 2, 1.3), (2 / 3, 0.65)])
def test_rate_is_one_cosine_over_the_whole_run(share: float, lr: float) -> None:
    assert PAPER.lr_at(round(share * PAPER.steps)) == pytest.approx(lr, rel=1e-12)


def test_rate_ends_on_the_floor() -> None:
    # The cosine crosses η_min = 2.5e-3 where 1 - share = 2/π · asin(√(η_min/η0)).
    crossing = 1 - 2 / math.pi * math.asin(math.sqrt(2.5e-3 / 2.6))
    before, after = math.floor(crossing * PAPER.steps), math.ceil(crossing * PAPER.steps)
    assert PAPER.lr_at(before) > 2.5e-3
    assert PAPER.lr_at(after) == 2.5e-3
    assert PAPER.lr_at(PAPER.steps - 1) == 2.5e-3


def test_rate_without_a_floor_goes_to_zero() -> None:
    last = replace(SHORT, lr_min=0).lr_at(SHORT.steps - 1)
    assert last == pytest.approx(0.4 * math.sin(math.pi / 140) ** 2)


@given(schedules())
def test_rate_never_rises(schedule: DepsSchedule) -> None:
    rates = [schedule.lr_at(step) for step in range(schedule.steps)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == schedule.lr


@pytest.mark.parametrize(
    ("step", "ramp"), [(28, 1 / 14), (34, 7 / 14), (35, 8 / 14), (41, 1.0)], ids=str
)
def test_beta_on_the_ramp(step: int, ramp: float) -> None:
    # Steps 28 to 41 are epochs 4 and 5; W = 6 of T = 10 epochs.
    def cosine(share: float) -> float:
        return 0.2 * (1 + math.cos(math.pi * share))

    assert SHORT.beta_at(step) == pytest.approx(ramp * cosine(0.6) / cosine(step / 70), rel=1e-12)


def test_beta_is_zero_before_the_ramp_and_one_after_it() -> None:
    assert {SHORT.beta_at(step) for step in range(28)} == {0.0}
    assert SHORT.beta_at(28) > 0
    assert {SHORT.beta_at(step) for step in range(42, 70)} == {1.0}


@given(schedules())
def test_effective_rate_climbs_linearly_to_the_rate_at_the_ramps_end(
    schedule: DepsSchedule,
) -> None:
    start, end = schedule.shrinking_step, schedule.ramp_end * schedule.steps_per_epoch
    effective = [schedule.beta_at(t) * schedule.lr_at(t) for t in range(start, end)]
    slope = schedule.lr_at(end) / (end - start)
    assert effective == pytest.approx([slope * (i + 1) for i in range(end - start)], rel=1e-9)
    assert schedule.beta_at(end) == 1.0


def test_beta_where_the_ramp_lies_on_the_floor() -> None:
    flat = DepsSchedule(epochs=4, ramp_end=3, ramp_epochs=1, steps_per_epoch=4, lr=0.1, lr_min=0.1)
    assert [flat.beta_at(t) for t in range(8, 13)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])


def test_from_config_scales_the_papers_floor() -> None:
    config = TrainConfig(epochs=9, ramp_end=6, ramp_epochs=2, lr=0.52)
    assert DepsSchedule.from_config(config, 7) == DepsSchedule(
        epochs=9,
        ramp_end=6,
        ramp_epochs=2,
        steps_per_epoch=7,
        lr=0.52,
        lr_min=pytest.approx(0.5e-3),  # 2.5e-3 at 2.6
    )


def test_from_config_takes_the_floor_that_is_given() -> None:
    assert DepsSchedule.from_config(TrainConfig(lr_min=0.0), 7).lr_min == 0
    assert DepsSchedule.from_config(TrainConfig(lr_min=0.02), 7).lr_min == 0.02
