"""Which subnets a step trains."""

from typing import Any

import numpy as np
import pytest

from ofa_deploy.space import SearchSpace, Stage
from ofa_deploy.train import DepsConfig, Opening, Pass, Phase, Plan, Rule, plan_for
from ofa_deploy.train.plan import draw
from tests.train.runs import lr_at, rules_at

# Subnets from step 20 on; β is 1 from step 30 on.
CONFIG = DepsConfig(epochs=5, ramp_end=3, ramp_epochs=1, lr=0.1, lr_min=0.0)


def passes(
    space: SearchSpace, step: int, *, seed: int = 0, random: int = 2, per_epoch: int = 10
) -> tuple[Pass, ...]:
    config = CONFIG.model_copy(update={"random_subnets": random})
    return plan_for(config, space, per_epoch).passes(space, step, seed)


@pytest.mark.parametrize("step", [0, 19])
def test_largest_alone_before_shrinking(tiny_space: SearchSpace, step: int) -> None:
    largest = Pass("largest", tiny_space.largest, 1.0, "labels", dropout=True)
    assert passes(tiny_space, step) == (largest,)


# r·η_W/η_t, of the cosine over 50 steps, at 1/10, 6/10 and 10/10 of the ramp; then 1.
@pytest.mark.parametrize(
    ("step", "ramp"), [(20, 0.1), (25, 0.6), (29, 1.0), (30, None), (49, None)], ids=str
)
def test_sandwich_once_shrinking(tiny_space: SearchSpace, step: int, ramp: float | None) -> None:
    largest, smallest, *random = passes(tiny_space, step)
    beta = 1.0
    if ramp is not None:
        beta = ramp * (1 + np.cos(np.pi * 30 / 50)) / (1 + np.cos(np.pi * step / 50))
    assert largest == Pass("largest", tiny_space.largest, 1.0, "labels", dropout=True)
    assert smallest.weight == pytest.approx(beta, rel=1e-12)
    weight = smallest.weight
    assert smallest == Pass("smallest", tiny_space.smallest, weight, "teacher", dropout=False)
    assert len(random) == 2
    for each in random:
        assert each == Pass("random", each.arch, weight, "teacher", dropout=False)
    tiny_space.encode([each.arch for each in random])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_number_of_random_subnets(tiny_space: SearchSpace, count: int) -> None:
    roles = [each.role for each in passes(tiny_space, 30, random=count)]
    assert roles == ["largest", "smallest"] + ["random"] * count


def test_draw_depends_on_seed_and_step_only(tiny_space: SearchSpace) -> None:
    first = passes(tiny_space, 33, seed=4)
    np.random.seed(1)
    before: Any = np.random.get_state()
    passes(tiny_space, 34, seed=4)
    assert passes(tiny_space, 33, seed=4) == first
    after: Any = np.random.get_state()
    assert np.array_equal(after[1], before[1])


def test_draw_differs_between_steps_and_seeds(tiny_space: SearchSpace) -> None:
    def drawn(step: int, seed: int) -> tuple[Pass, ...]:
        return passes(tiny_space, step, seed=seed)[2:]

    by_step = {drawn(step, 0) for step in range(30, 50)}
    by_seed = {drawn(30, seed) for seed in range(20)}
    # 5,712² pairs: that two of twenty agree is all but impossible.
    assert len(by_step) == len(by_seed) == 20
    assert drawn(31, 0) != drawn(30, 1)


def test_random_subnets_of_a_step_differ(tiny_space: SearchSpace) -> None:
    archs = {each.arch for each in passes(tiny_space, 30, random=6)[2:]}
    assert len(archs) == 6


def test_random_subnets_cover_every_choice(tiny_space: SearchSpace) -> None:
    archs = [
        each.arch
        for step in range(300, 400)
        for each in passes(tiny_space, step, per_epoch=100)[2:]
    ]
    population = tiny_space.encode(archs)
    for column, gene in enumerate(tiny_space.genes):
        seen = set(population[:, column].tolist()) - {-1}
        assert seen == set(range(len(gene.choices))), gene.name


# -- openings -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tiny_space: SearchSpace) -> SearchSpace:
    """Three choices of everything, in two stages of at most four blocks; two resolutions."""
    stage = Stage(channels=16, stride=2, depths=(2, 3, 4), kernels=(3, 5, 7), expands=(3, 4, 6))
    coarse = SearchSpace(
        name="three",
        resolutions=(12, 16),
        classes=4,
        stem=tiny_space.stem,
        stages=(stage, stage),
        head=tiny_space.head,
    )
    assert len(coarse.genes) == 1 + 2 + 8 + 8
    return coarse


@pytest.mark.parametrize("kernels", [1, 2, 99])
@pytest.mark.parametrize("depths", [1, 2, 99])
@pytest.mark.parametrize("expands", [1, 2, 99])
def test_opening_leaves_the_greatest_choices(
    three: SearchSpace, kernels: int, depths: int, expands: int
) -> None:
    rng = np.random.default_rng(1)
    archs = three.decode(draw(three, rng, 200, Opening(kernels, depths, expands)))
    assert {k for arch in archs for k in arch.kernels} == set((7, 5, 3)[:kernels])
    assert {d for arch in archs for d in arch.depths} == set((4, 3, 2)[:depths])
    assert {e for arch in archs for e in arch.expands} == set((6, 4, 3)[:expands])
    assert {arch.resolution for arch in archs} == {12, 16}


def test_choices_are_drawn_evenly_and_apart(three: SearchSpace) -> None:
    archs = three.decode(draw(three, np.random.default_rng(2), 3_000, Opening(99, 2, 99)))
    depths = [arch.depths[0] for arch in archs]
    # Half of 3,000: a standard error of 27; a third: of 26.
    assert abs(depths.count(3) - 1_500) < 110
    firsts = [arch.expands[0] for arch in archs]
    assert all(abs(firsts.count(ratio) - 1_000) < 105 for ratio in (3, 4, 6))
    pairs = {(arch.expands[0], arch.expands[1], arch.kernels[0]) for arch in archs}
    assert len(pairs) == 27


def test_draws_are_populations(three: SearchSpace, rng: np.random.Generator) -> None:
    population = draw(three, rng, 50, Opening())
    assert population.dtype == np.int8
    assert np.array_equal(three.encode(three.decode(population)), population)


def test_coupled_draws_hold_nothing_else(three: SearchSpace, rng: np.random.Generator) -> None:
    ratio = {4: 6, 3: 4, 2: 3}
    for opened in (2, 3, 99):
        archs = three.decode(draw(three, rng, 300, Opening(99, opened, opened, coupled=True)))
        for arch in archs:
            first, second = arch.depths
            assert arch.expands == (ratio[first],) * first + (ratio[second],) * second
        found = {arch.depths for arch in archs}
        assert len(found) == min(opened, 3) ** 2  # stages are drawn apart


def test_coupling_counts_from_the_greatest(tiny_space: SearchSpace) -> None:
    """With fewer ratios than depths the least ratio stands for all further depths."""
    stage = Stage(channels=16, stride=2, depths=(1, 2, 4), kernels=(3,), expands=(2, 5))
    space = SearchSpace(
        name="uneven",
        resolutions=(16,),
        classes=4,
        stem=tiny_space.stem,
        stages=(stage,),
        head=tiny_space.head,
    )
    archs = space.decode(draw(space, np.random.default_rng(3), 60, Opening(coupled=True)))
    assert {(arch.depths[0], *arch.expands) for arch in archs} == {
        (4, 5, 5, 5, 5),
        (2, 2, 2),
        (1, 2),
    }


# -- plans ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan() -> Plan:
    def phase(name: str, steps: int, rate: float) -> Phase:
        return Phase(name, steps, lambda step: rate + step, lambda step: (Rule("smallest", step),))

    return Plan((phase("a", 3, 10), phase("b", 1, 20), phase("c", 2, 30)))


def test_steps_of_a_plan_fall_into_its_phases(plan: Plan, tiny_space: SearchSpace) -> None:
    assert plan.steps == 6
    places = [plan.at(step) for step in range(6)]
    assert [(phase.name, local) for phase, local in places] == [
        *(("a", 0), ("a", 1), ("a", 2)),
        ("b", 0),
        *(("c", 0), ("c", 1)),
    ]
    assert [lr_at(plan, step) for step in range(6)] == [10, 11, 12, 20, 30, 31]
    assert [rules_at(plan, step)[0].weight for step in range(6)] == [0, 1, 2, 0, 0, 1]
    (made,) = plan.passes(tiny_space, 2, seed=0)
    assert made == Pass("smallest", tiny_space.smallest, 2, "labels", dropout=False)
    assert [plan.first_step(name) for name in "abc"] == [0, 3, 4]


def test_what_a_plan_does_not_have(plan: Plan) -> None:
    with pytest.raises(IndexError):
        plan.at(6)
    with pytest.raises(KeyError, match="d"):
        plan.first_step("d")
