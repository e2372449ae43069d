"""Which subnets a step trains."""

from dataclasses import replace

import numpy as np
import pytest

from ofa_deploy.space import SearchSpace
from ofa_deploy.train import DepsSchedule, Pass, deps_passes

# Subnets from step 20 on; β is 1 from step 30 on.
SCHEDULE = DepsSchedule(epochs=5, ramp_end=3, ramp_epochs=1, steps_per_epoch=10, lr=0.1, lr_min=0.0)


def passes(space: SearchSpace, step: int, *, seed: int = 0, random: int = 2) -> tuple[Pass, ...]:
    return deps_passes(space, SCHEDULE, step, random_subnets=random, seed=seed)


@pytest.mark.parametrize("step", [0, 19])
def test_largest_alone_before_shrinking(tiny_space: SearchSpace, step: int) -> None:
    largest = Pass("largest", tiny_space.largest, 1.0, "labels", dropout=True)
    assert passes(tiny_space, step) == (largest,)


@pytest.mark.parametrize("step", [20, 25, 29, 30, 49])
def test_sandwich_once_shrinking(tiny_space: SearchSpace, step: int) -> None:
    largest, smallest, *random = passes(tiny_space, step)
    beta = SCHEDULE.beta_at(step)
    assert largest == Pass("largest", tiny_space.largest, 1.0, "labels", dropout=True)
    assert smallest == Pass("smallest", tiny_space.smallest, beta, "teacher", dropout=False)
    assert len(random) == 2
    for each in random:
        assert each == Pass("random", each.arch, beta, "teacher", dropout=False)
    tiny_space.encode([each.arch for each in random])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_number_of_random_subnets(tiny_space: SearchSpace, count: int) -> None:
    roles = [each.role for each in passes(tiny_space, 30, random=count)]
    assert roles == ["largest", "smallest"] + ["random"] * count


def test_draw_depends_on_seed_and_step_only(tiny_space: SearchSpace) -> None:
    first = passes(tiny_space, 33, seed=4)
    np.random.seed(1)
    before = np.random.get_state()[1]
    passes(tiny_space, 34, seed=4)
    assert passes(tiny_space, 33, seed=4) == first
    assert np.array_equal(np.random.get_state()[1], before)


def test_draw_differs_between_steps_and_seeds(tiny_space: SearchSpace) -> None:
    def drawn(step: int, seed: int) -> tuple[Pass, ...]:
        return passes(tiny_space, step, seed=seed)[2:]

    by_step = {drawn(step, 0) for step in range(30, 50)}
    by_seed = {drawn(30, seed) for seed in range(20)}
    # 5,712² pairs: that two of twenty agree is all but impossible.
    assert len(by_step) == len(by_seed) == 20
    assert drawn(31, 0) != drawn(30, 1)


def test_random_subnets_cover_every_choice(tiny_space: SearchSpace) -> None:
    schedule = replace(SCHEDULE, steps_per_epoch=100)
    archs = [
        each.arch
        for step in range(300, 400)
        for each in deps_passes(tiny_space, schedule, step, random_subnets=2, seed=0)[2:]
    ]
    population = tiny_space.encode(archs)
    for column, gene in enumerate(tiny_space.genes):
        seen = set(population[:, column].tolist()) - {-1}
        assert seen == set(range(len(gene.choices))), gene.name
