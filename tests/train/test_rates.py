"""The schedule of DεpS against the formulas of arXiv 2407.06167, written out anew."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.space import get_space
from ofa_deploy.train import DepsConfig, Plan, plan_for
from ofa_deploy.train.rates import cosine, warmed_up
from tests.train.runs import lr_at, rules_at

SPACE = get_space("mbv3-nano-32")  # a schedule does not depend on it


def plan_of(config: DepsConfig, per_epoch: int) -> Plan:
    return plan_for(config, SPACE, per_epoch)


def beta_at(plan: Plan, step: int) -> float:
    """The weight of the subnets' gradients, which all share it; 0 when there are none."""
    largest, *subnets = rules_at(plan, step)
    assert (largest.role, largest.weight) == ("largest", 1.0)
    weights = {rule.weight for rule in subnets}
    assert len(weights) <= 1
    return weights.pop() if weights else 0.0


# ImageNet-1k as published: T = 270, W = 150, s = 5, 1.28 M images in batches of 2,048.
PAPER = plan_of(DepsConfig(epochs=270, ramp_end=150, ramp_epochs=5, lr=2.6, lr_min=2.5e-3), 625)
# The ramp ends early enough that the floor plays no part in it.
SHORT_CONFIG = DepsConfig(epochs=10, ramp_end=6, ramp_epochs=2, lr=0.4, lr_min=0.001)
SHORT = plan_of(SHORT_CONFIG, 7)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[DepsConfig, int]:
    """A config and its steps an epoch; one in some has no ramp."""
    epochs = draw(st.integers(2, 30))
    ramp_end = draw(st.integers(1, epochs - 1))
    config = DepsConfig(
        epochs=epochs,
        ramp_end=ramp_end,
        ramp_epochs=draw(st.integers(0, ramp_end)),
        lr=draw(st.floats(1e-3, 10)),
        lr_min=draw(st.sampled_from([0.0, 1e-4])),
    )
    return config, draw(st.integers(1, 20))


def test_steps_are_counted_in_epochs() -> None:
    assert PAPER.steps == 168_750
    assert PAPER.first_step("ramp") == 145 * 625
    assert PAPER.first_step("shrink") == 150 * 625
    assert SHORT.first_step("ramp") == 28


@pytest.mark.parametrize(("share", "lr"), [(0, 2.6), (1 / 3, 1.95), (1 / 2, 1.3), (2 / 3, 0.65)])
def test_rate_is_one_cosine_over_the_whole_run(share: float, lr: float) -> None:
    assert lr_at(PAPER, round(share * PAPER.steps)) == pytest.approx(lr, rel=1e-12)


def test_rate_ends_on_the_floor() -> None:
    # The cosine crosses η_min = 2.5e-3 where 1 - share = 2/π · asin(√(η_min/η0)).
    crossing = 1 - 2 / math.pi * math.asin(math.sqrt(2.5e-3 / 2.6))
    before, after = math.floor(crossing * PAPER.steps), math.ceil(crossing * PAPER.steps)
    assert lr_at(PAPER, before) > 2.5e-3
    assert lr_at(PAPER, after) == 2.5e-3
    assert lr_at(PAPER, PAPER.steps - 1) == 2.5e-3


def test_rate_without_a_floor_goes_to_zero() -> None:
    last = lr_at(plan_of(SHORT_CONFIG.model_copy(update={"lr_min": 0.0}), 7), SHORT.steps - 1)
    assert last == pytest.approx(0.4 * math.sin(math.pi / 140) ** 2)


@given(schedules())
def test_rate_never_rises(schedule: tuple[DepsConfig, int]) -> None:
    config, per_epoch = schedule
    plan = plan_of(config, per_epoch)
    rates = [lr_at(plan, step) for step in range(plan.steps)]
    assert plan.steps == config.epochs * per_epoch
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == config.lr


@pytest.mark.parametrize(
    ("step", "ramp"), [(28, 1 / 14), (34, 7 / 14), (35, 8 / 14), (41, 1.0)], ids=str
)
def test_beta_on_the_ramp(step: int, ramp: float) -> None:
    # Steps 28 to 41 are epochs 4 and 5; W = 6 of T = 10 epochs.
    def cosine(share: float) -> float:
        return 0.2 * (1 + math.cos(math.pi * share))

    assert beta_at(SHORT, step) == pytest.approx(ramp * cosine(0.6) / cosine(step / 70), rel=1e-12)


def test_beta_is_zero_before_the_ramp_and_one_after_it() -> None:
    assert {beta_at(SHORT, step) for step in range(28)} == {0.0}
    assert all(len(rules_at(SHORT, step)) == 1 for step in range(28))
    assert beta_at(SHORT, 28) > 0
    assert {beta_at(SHORT, step) for step in range(42, 70)} == {1.0}


@given(schedules())
def test_effective_rate_climbs_linearly_to_the_rate_at_the_ramps_end(
    schedule: tuple[DepsConfig, int],
) -> None:
    config, per_epoch = schedule
    plan = plan_of(config, per_epoch)
    start = (config.ramp_end - config.ramp_epochs) * per_epoch
    end = config.ramp_end * per_epoch
    assert all(beta_at(plan, t) == 0 for t in range(start))
    effective = [beta_at(plan, t) * lr_at(plan, t) for t in range(start, end)]
    slope = lr_at(plan, end) / max(1, end - start)
    assert effective == pytest.approx([slope * (i + 1) for i in range(end - start)], rel=1e-9)
    assert all(beta_at(plan, t) == 1.0 for t in range(end, plan.steps))


def test_beta_where_the_ramp_lies_on_the_floor() -> None:
    flat = plan_of(DepsConfig(epochs=4, ramp_end=3, ramp_epochs=1, lr=0.1, lr_min=0.1), 4)
    assert [beta_at(flat, t) for t in range(8, 13)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])


def test_floor_scales_with_the_rate() -> None:
    # 2.5e-3 at 2.6
    plan = plan_of(DepsConfig(epochs=9, ramp_end=6, ramp_epochs=2, lr=0.52), 700)
    assert lr_at(plan, plan.steps - 1) == pytest.approx(0.5e-3, rel=1e-12)


@pytest.mark.parametrize("floor", [0.0, 0.02])
def test_floor_that_is_given_is_taken(floor: float) -> None:
    plan = plan_of(DepsConfig(epochs=9, ramp_end=6, lr_min=floor), 700)
    last = 0.05 * (1 + math.cos(math.pi * (6_299 / 6_300)))
    assert lr_at(plan, 6_299) == pytest.approx(max(floor, last), rel=1e-9)


def test_channels_are_sorted_where_shrinking_begins() -> None:
    starts = [(phase.name, phase.steps, phase.start) for phase in SHORT.phases]
    assert starts == [
        ("warm-up", 28, ()),
        ("ramp", 14, ("sort channels",)),
        ("shrink", 28, ()),
    ]


def test_without_a_ramp_shrinking_begins_at_full_weight() -> None:
    plan = plan_of(SHORT_CONFIG.model_copy(update={"ramp_epochs": 0}), 7)
    starts = [(phase.name, phase.steps, phase.start) for phase in plan.phases]
    assert starts == [("warm-up", 42, ()), ("shrink", 28, ("sort channels",))]
    assert [beta_at(plan, step) for step in (0, 41, 42, 43, 69)] == [0, 0, 1, 1, 1]
    assert [lr_at(plan, t) for t in range(70)] == [lr_at(SHORT, t) for t in range(70)]


def test_ramp_from_the_first_step_has_no_warm_up() -> None:
    plan = plan_of(SHORT_CONFIG.model_copy(update={"ramp_epochs": 6}), 7)
    starts = [(phase.name, phase.steps, phase.start) for phase in plan.phases]
    assert starts == [("ramp", 42, ("sort channels",)), ("shrink", 28, ())]


def test_cosine_and_warm_up() -> None:
    assert [cosine(0.4, step, 4) for step in (0, 2, 4)] == pytest.approx([0.4, 0.2, 0])
    rate = warmed_up(0.4, 4, lambda step: 100.0 + step)
    assert [rate(step) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 100, 101])
    assert warmed_up(0.4, 0, lambda step: 7.0 + step)(0) == 7
