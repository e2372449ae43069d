"""Sums that are fitted to what a model says."""

import numpy as np
import pytest

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.search.climb import fit_sum
from ofa_deploy.space import SearchSpace


@pytest.mark.parametrize("count", [15, 200])
def test_fit_is_the_least_of_its_penalised_error(tiny_space: SearchSpace, count: int) -> None:
    """Of fewer networks than choices, and of more: no other weights are better."""
    rng = np.random.default_rng(0)
    rows = tiny_space.sample(rng, count)
    assert (count < tiny_space.num_choices.sum()) == (count == 15)
    values = rng.normal(70, 3, count)
    fitted = fit_sum(tiny_space, rows, values)

    def loss(model: AdditiveModel) -> float:
        weights = np.concatenate([table[1:] for _, table in model.tables])
        return float(((model.predict(rows) - values) ** 2).sum() + 1e-3 * count * weights @ weights)

    least = loss(fitted)
    for step in (1e-3, 1e-2, 1e-1):
        for _ in range(20):
            moved = [
                (columns, table + np.r_[0.0, rng.normal(0, step, len(table) - 1)])
                for columns, table in fitted.tables
            ]
            shift = float((values - AdditiveModel(tiny_space, moved).predict(rows)).mean())
            assert loss(AdditiveModel(tiny_space, moved, offset=shift)) > least


def test_a_sum_is_found_again(tiny_space: SearchSpace) -> None:
    rng = np.random.default_rng(1)
    tables = [
        ((column,), np.r_[0.0, rng.normal(size=len(gene.choices))])
        for column, gene in enumerate(tiny_space.genes)
    ]
    model = AdditiveModel(tiny_space, tables, offset=50.0)
    fitted = fit_sum(tiny_space, *(lambda r: (r, model.predict(r)))(tiny_space.sample(rng, 400)))
    others = tiny_space.sample(rng, 100)
    np.testing.assert_allclose(fitted.predict(others), model.predict(others), atol=0.1)
