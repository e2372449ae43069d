"""Additive models agree with the costs of lowered networks, one by one."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_deploy.cost import (
    AdditiveModel,
    as_population,
    macs_model,
    params_model,
    peak_memory_model,
)
from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.space import Arch, Block, Head, Population, SearchSpace, Stage, Stem

MODELS = {"macs": macs_model, "params": params_model, "peak_memory": peak_memory_model}


@pytest.fixture(scope="module")
def small_space() -> SearchSpace:
    """Few enough networks to walk through all of them, with depths that leave out 1 and 3."""
    return SearchSpace(
        name="small",
        resolutions=(12, 16),
        classes=3,
        stem=Stem(channels=8),
        stages=(
            Stage(channels=8, stride=1, depths=(1,), kernels=(3,), expands=(1,)),
            Stage(channels=8, stride=2, depths=(1, 2), kernels=(3, 5), expands=(1, 4), se=True),
            Stage(channels=64, stride=1, depths=(2, 4), kernels=(3,), expands=(2, 3)),
        ),
        head=Head(channels=0, features=0),
    )


@pytest.fixture(scope="module")
def everyone(small_space: SearchSpace) -> list[Arch]:
    rows = np.array(list(product(*(range(n) for n in small_space.num_choices))), np.int8)
    return small_space.decode(np.unique(small_space.mask_inactive(rows), axis=0))


@pytest.fixture(scope="module")
def lowered(small_space: SearchSpace, everyone: list[Arch]) -> list[list[str]]:
    """The keys of every network's blocks."""
    return [[block.key for block in small_space.lower(arch)] for arch in everyone]


@pytest.mark.parametrize("metric", MODELS)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 6))
def test_prediction_is_the_cost_of_each_network(
    tiny_space: SearchSpace, metric: str, seed: int, n: int
) -> None:
    model = MODELS[metric](tiny_space)
    population = tiny_space.sample(np.random.default_rng(seed), n)
    archs = tiny_space.decode(population)
    expected = [getattr(tiny_space.cost(arch), metric) for arch in archs]
    for given_as in (archs, population):
        predicted = model.predict(given_as)
        assert predicted.shape == (n,) and predicted.dtype == np.float64
        assert predicted.tolist() == expected


@pytest.mark.parametrize("metric", MODELS)
def test_bounds_are_reached_and_never_passed(
    small_space: SearchSpace, everyone: list[Arch], metric: str
) -> None:
    costs = [getattr(small_space.cost(arch), metric) for arch in everyone]
    assert len(everyone) == small_space.num_archs
    assert MODELS[metric](small_space).bounds() == (min(costs), max(costs))


@pytest.mark.parametrize("reduce", ["sum", "max"])
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_bounds_hold_for_any_values(
    small_space: SearchSpace,
    everyone: list[Arch],
    lowered: list[list[str]],
    reduce: str,
    seed: int,
) -> None:
    # Values in no order: the smallest network need not be the cheapest.
    rng = np.random.default_rng(seed)
    values = {block.key: float(rng.integers(1, 1000)) for block in small_space.blocks()}
    model = AdditiveModel.from_blocks(
        small_space, lambda block: values[block.key], offset=2.5, reduce=reduce
    )
    combine = sum if reduce == "sum" else max
    costs = [2.5 + combine(values[key] for key in keys) for keys in lowered]
    np.testing.assert_allclose(model.predict(small_space.encode(everyone)), costs, rtol=1e-12)
    np.testing.assert_allclose(model.bounds(), (min(costs), max(costs)), rtol=1e-12)


def test_negative_values_are_added_too(small_space: SearchSpace, everyone: list[Arch]) -> None:
    # A stage may then be cheapest at its greatest depth.
    model = AdditiveModel.from_blocks(small_space, lambda block: -1.0)
    counts = [len(small_space.lower(arch)) for arch in everyone]
    assert model.predict(everyone).tolist() == [-n for n in counts]
    assert model.bounds() == (-max(counts), -min(counts))


def test_each_block_is_asked_for_once(tiny_space: SearchSpace) -> None:
    asked: list[Block] = []

    def value(block: Block) -> float:
        asked.append(block)
        return 1.0

    AdditiveModel.from_blocks(tiny_space, value)
    assert len(asked) == len({block.key for block in asked})
    assert {block.key for block in asked} == {block.key for block in tiny_space.blocks()}


def test_predicting_many_is_predicting_each(
    tiny_space: SearchSpace, rng: np.random.Generator
) -> None:
    model = macs_model(tiny_space)
    population = tiny_space.sample(rng, 40_000)  # more than one chunk, the last one not whole
    together = model.predict(population)
    some = rng.choice(len(population), 50, replace=False)
    apart = [model.predict(population[i : i + 1])[0] for i in some]
    assert together[some].tolist() == apart
    reversed_rows = model.predict(population[::-1])
    np.testing.assert_array_equal(reversed_rows[::-1], together)


def test_offset_and_model_without_mutation(
    tiny_space: SearchSpace, rng: np.random.Generator
) -> None:
    population = tiny_space.sample(rng, 20)
    before = population.copy()
    plain = AdditiveModel.from_blocks(tiny_space, lambda block: block.macs)
    shifted = AdditiveModel.from_blocks(tiny_space, lambda block: block.macs, offset=7.0)
    np.testing.assert_array_equal(shifted.predict(population), plain.predict(population) + 7)
    assert shifted.bounds() == tuple(bound + 7 for bound in plain.bounds())
    np.testing.assert_array_equal(population, before)


@pytest.mark.parametrize("shape", [(3, 2), (13,), (0, 0), (1, 2, 3)])
def test_population_of_another_shape_is_refused(
    tiny_space: SearchSpace, shape: tuple[int, ...]
) -> None:
    model = macs_model(tiny_space)
    population: Population = np.zeros(shape, np.int8)
    with pytest.raises(InputError, match=rf"shape \(n, {len(tiny_space.genes)}\) for space tiny"):
        model.predict(population)


def test_network_of_another_space_is_refused(
    tiny_space: SearchSpace, small_space: SearchSpace
) -> None:
    with pytest.raises(MismatchError, match="not in space tiny"):
        macs_model(tiny_space).predict([small_space.largest])


def test_as_population_takes_both_forms(tiny_space: SearchSpace, rng: np.random.Generator) -> None:
    population = tiny_space.sample(rng, 5)
    assert as_population(tiny_space, population) is population
    np.testing.assert_array_equal(
        as_population(tiny_space, tiny_space.decode(population)), population
    )
    assert as_population(tiny_space, population.astype(np.int64)).dtype == np.int8


def test_maximum_of_negative_values_is_refused(tiny_space: SearchSpace) -> None:
    with pytest.raises(InputError, match="not negative"):
        AdditiveModel.from_blocks(tiny_space, lambda block: -1.0, reduce="max")
