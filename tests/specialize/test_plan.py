"""What each method does when: phases, rates, topology updates that end before training does."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.space import get_space
from ofa_deploy.specialize import (
    Imitate,
    Learn,
    SpecialPhase,
    SpecialPlan,
    build_specialize_config,
    specialize_plan,
    units_of,
)

SPACE = get_space("mbv3-nano-32")
UNITS = units_of(SPACE, SPACE.smallest)
PER_EPOCH = 10
ANEW = ("begin member", "restart optimizer")


def plan(method: str, **settings: object) -> SpecialPlan:
    return specialize_plan(build_specialize_config(method, **settings), UNITS, PER_EPOCH)


def outline(made: SpecialPlan) -> list[tuple[str, int, tuple[str, ...], bool]]:
    return [(phase.name, phase.steps, phase.start, phase.member) for phase in made.phases]


def updates(phase: SpecialPhase) -> dict[int, float]:
    return {step: rate for step in range(phase.steps) if (rate := phase.drop(step))}


def test_units_are_stem_stages_head_classifier() -> None:
    assert [unit.name for unit in UNITS] == [
        *("stem", "stages.0", "stages.1", "stages.2", "stages.3", "head", "classifier")
    ]
    assert UNITS[0].start == 0 and all(a.stop == b.start for a, b in pairwise(UNITS))
    assert sum(unit.macs for unit in UNITS) == SPACE.cost(SPACE.smallest).macs
    deep = units_of(get_space("ofa-resnet50"), get_space("ofa-resnet50").largest)
    assert [len(unit.blocks) for unit in deep] == [4, 4, 4, 6, 4, 1]


def test_fine_tuning_is_one_cosine_a_member() -> None:
    made = plan("finetune", epochs=2.5, members=2, lr=0.5, lr_min=0.01)
    assert outline(made) == [("train", 25, ANEW, True)] * 2
    (phase, _) = made.phases
    assert [phase.lr(step) for step in (0, 5)] == pytest.approx(
        [0.5, 0.25 * (1 + math.cos(math.pi / 5))]
    )
    assert phase.lr(24) == 0.01
    assert phase.task == Learn(labels=1.0, soft=0.0)
    assert not updates(phase)


def test_distillation_adds_soft_labels() -> None:
    assert plan("distill", kd_ratio=0.7).phases[0].task == Learn(labels=1.0, soft=0.7)


def test_imitation_goes_bottom_up_then_outputs_then_labels() -> None:
    made = plan(
        "wide-narrow",
        lr=0.2,
        imitate_epochs=(1, 0.5, 0, 2),
        imitate_lr=(1, 0.5),
        imitate_optimizer=("sgd", "rmsprop", "sgd"),
        output_epochs=3,
        output_lr=0.25,
        label_epochs=1.5,
        kd_ratio=0.3,
    )
    fresh = ("restart optimizer",)
    assert outline(made) == [
        ("imitate stem", 10, ANEW, False),
        ("imitate stages.0", 5, fresh, False),
        ("imitate stages.2", 20, fresh, False),
        ("imitate stages.3", 20, fresh, False),
        ("imitate head", 20, fresh, False),
        ("outputs", 30, ("merge", *fresh), False),
        ("labels", 15, fresh, True),
    ]
    assert [phase.task for phase in made.phases] == [
        *(Imitate(unit, below=False) for unit in (0, 1, 3, 4, 5)),
        Learn(labels=0.0, soft=1.0),
        Learn(labels=1.0, soft=0.3),
    ]
    assert [phase.lr(0) for phase in made.phases] == pytest.approx([0.2] + [0.1] * 4 + [0.05, 0.2])
    names = [phase.optimizer for phase in made.phases]
    assert names == ["sgd", "rmsprop", "sgd", "sgd", "sgd", "sgd", "sgd"]


def test_maps_are_merged_before_whatever_trains_the_whole() -> None:
    made = plan("wide-narrow", output_epochs=0)
    assert made.phases[-1].start == ("merge", "restart optimizer")
    alone = plan("wide-narrow", output_epochs=0, imitate_epochs=(0,))
    assert outline(alone) == [("labels", 50, ("begin member", "merge", "restart optimizer"), True)]


def test_independent_tickets_begin_anew() -> None:
    made = plan("dst", epochs=20, members=3, update_steps=20)
    assert outline(made) == [("sparse", 200, ANEW, True)] * 3
    assert len({frozenset(updates(phase).items()) for phase in made.phases}) == 1


def test_one_run_explores_then_refines() -> None:
    made = plan("edst", explore_epochs=10, refine_epochs=20, members=3, lr=0.5, update_steps=30)
    assert outline(made) == [
        ("explore", 100, ANEW, False),
        ("refine 1", 200, (), True),
        ("refine 2", 200, (), True),
        ("refine 3", 200, (), True),
    ]
    explore, first, second, third = made.phases
    assert {explore.lr(step) for step in range(100)} == {0.5}
    for phase in (first, second, third):
        assert [phase.lr(step) for step in (0, 99, 100, 199)] == [0.05, 0.05, 0.005, 0.005]
    assert 0 not in updates(first)
    assert updates(second)[0] == updates(third)[0] == 0.8
    later = {step: rate for step, rate in updates(second).items() if step}
    assert later == updates(first)


def test_without_exploration_the_first_refinement_begins_the_member() -> None:
    made = plan("edst", explore_epochs=0, members=2)
    assert [phase.start for phase in made.phases] == [ANEW, ()]


@given(
    epochs=st.floats(0.1, 40),
    every=st.integers(1, 60),
    until=st.floats(0, 0.99),
    rate=st.floats(0.01, 0.99),
    method=st.sampled_from(["dst", "edst"]),
)
def test_updates_decay_and_end_before_training_does(
    epochs: float, every: int, until: float, rate: float, method: str
) -> None:
    length = "epochs" if method == "dst" else "refine_epochs"
    made = plan(
        method,
        **{length: epochs},
        update_steps=every,
        update_until=until,
        drop_rate=rate,
    )
    for phase in made.phases:
        found = {step: value for step, value in updates(phase).items() if step or value <= rate}
        assert all((step + 1) % every == 0 for step in found if step)
        assert all(step + 1 < until * phase.steps for step in found if step)
        values = [found[step] for step in sorted(found) if step]
        assert values == sorted(values, reverse=True)
        assert all(0 < value <= rate for value in values)
        assert phase.drop(phase.steps - 1) == 0
