"""Rows that are drawn, changed or crossed stay in the space, and all of it can be drawn."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.space import Population, SearchSpace
from tests.space.drawn import check_in_space, seeds, spaces


@given(space=spaces, seed=seeds, rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_mutants_stay_in_the_space(space: SearchSpace, seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    population = space.sample(rng, 16)
    before = population.copy()
    mutants = space.mutate(population, rng, rate)
    check_in_space(space, mutants)
    np.testing.assert_array_equal(population, before)
    if rate == 0:
        np.testing.assert_array_equal(mutants, population)


def test_mutation_rate_is_the_share_of_redrawn_genes(
    tiny_space: SearchSpace, rng: np.random.Generator
) -> None:
    population = np.repeat(tiny_space.encode([tiny_space.largest]), 20_000, axis=0)
    resolution = tiny_space.mutate(population, rng, 0.3)[:, tiny_space.columns["resolution"]]
    # Half of the redrawn get the other of two choices: 0.15, with a deviation of 0.0025.
    assert abs((resolution == 0).mean() - 0.15) < 0.0125


@given(space=spaces, seed=seeds)
def test_children_take_each_gene_from_a_parent(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mothers, fathers = space.sample(rng, 16), space.sample(rng, 16)
    children = space.crossover(mothers, fathers, rng)
    check_in_space(space, children)
    active = children >= 0
    assert (((children == mothers) | (children == fathers)) | ~active).all()
    np.testing.assert_array_equal(space.crossover(mothers, mothers, rng), mothers)


def test_children_mix_both_parents(tiny_space: SearchSpace, rng: np.random.Generator) -> None:
    low = np.repeat(tiny_space.encode([tiny_space.smallest]), 4000, axis=0)
    high = np.repeat(tiny_space.encode([tiny_space.largest]), 4000, axis=0)
    children = tiny_space.crossover(low, high, rng)
    for name in ("resolution", "depth[1]", "depth[2]", "kernel[1.0]", "expand[2.0]"):
        column = tiny_space.columns[name]
        assert abs((children[:, column] == high[0, column]).mean() - 0.5) < 0.04


def test_samples_are_uniform_over_the_choices(
    tiny_space: SearchSpace, rng: np.random.Generator
) -> None:
    population = tiny_space.sample(rng, 30_000)
    check_in_space(tiny_space, population[:500])
    for gene, column in zip(tiny_space.genes, population.T, strict=True):
        shares = np.bincount(column[column >= 0]) / (column >= 0).sum()
        np.testing.assert_allclose(shares, 1 / len(gene.choices), atol=0.02, err_msg=gene.name)


def test_generator_decides_everything(tiny_space: SearchSpace) -> None:
    def draw(seed: int) -> Population:
        rng = np.random.default_rng(seed)
        population = tiny_space.sample(rng, 30)
        return tiny_space.crossover(population, tiny_space.mutate(population, rng, 0.5), rng)

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


def test_mask_hides_exactly_the_inactive(tiny_space: SearchSpace) -> None:
    row = tiny_space.encode([tiny_space.largest])
    row[0, tiny_space.columns["depth[2]"]] = 0
    masked = tiny_space.mask_inactive(row)
    hidden = {tiny_space.genes[c].name for c in np.flatnonzero(masked[0] < 0)}
    assert hidden == {"kernel[2.1]", "kernel[2.2]", "expand[2.1]", "expand[2.2]"}
    np.testing.assert_array_equal(masked < 0, ~tiny_space.is_active(row))
