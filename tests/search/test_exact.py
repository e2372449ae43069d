"""Dynamic programming against looking at every network."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_deploy.cost import AdditiveModel, macs_model, peak_memory_model
from ofa_deploy.errors import InputError
from ofa_deploy.search import parse_constraint
from ofa_deploy.search.constraints import GeneConstraint
from ofa_deploy.search.domain import Domain
from ofa_deploy.search.exact import Grid, best_within
from ofa_deploy.space import Population, SearchSpace, get_space


@pytest.fixture(scope="module")
def everyone(tiny_space: SearchSpace) -> Population:
    rows = np.array(list(product(*(range(len(g.choices)) for g in tiny_space.genes))), np.int8)
    return np.unique(tiny_space.mask_inactive(rows), axis=0)


def worth(space: SearchSpace, seed: int = 0) -> AdditiveModel:
    """A sum over blocks and another over single genes, of both signs."""
    rng = np.random.default_rng(seed)
    blocks = AdditiveModel.from_blocks(space, lambda block: float(rng.normal()) + block.kernel)
    genes = [
        ((column,), np.r_[0.0, rng.normal(size=len(gene.choices))])
        for column, gene in enumerate(space.genes)
    ]
    return AdditiveModel(space, [*blocks.tables, *genes], offset=3.0)


def price(space: SearchSpace, seed: int = 1) -> AdditiveModel:
    """Milliseconds, of which some blocks give back a little: calibrated tables have those."""
    rng = np.random.default_rng(seed)
    return AdditiveModel.from_blocks(
        space, lambda block: block.macs / 1e5 + float(rng.normal(0, 0.05)), offset=0.5
    )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_optimum_of_every_network(
    tiny_space: SearchSpace, everyone: Population, share: float, seed: int
) -> None:
    value, cost = worth(tiny_space, seed), price(tiny_space, seed)
    costs = cost.predict(everyone)
    limit = float(np.quantile(costs, share))
    truth = value.predict(everyone)[costs <= limit].max()
    found = best_within(Domain(tiny_space), value, cost, limit)
    assert found is not None
    assert cost.predict(found.row[None])[0] <= limit
    assert found.value == pytest.approx(value.predict(found.row[None])[0])
    assert found.value <= truth + 1e-9 <= found.bound + 2e-9
    assert found.gap < 0.2, "of values that reach over tens"
    assert found.value == pytest.approx(truth, abs=found.gap + 1e-9)


def test_finer_grid_closes_the_gap(tiny_space: SearchSpace) -> None:
    value, cost = worth(tiny_space), price(tiny_space)
    least, greatest = cost.bounds()
    gaps = []
    for bins in (16, 256, 1 << 14):
        found = best_within(Domain(tiny_space), value, cost, (least + greatest) / 2, bins=bins)
        gaps.append(np.inf if found is None else found.gap)
    assert gaps[0] >= gaps[1] >= gaps[2] == 0


def test_optimum_within_what_genes_may_choose(
    tiny_space: SearchSpace, everyone: Population
) -> None:
    texts = ("kernel = 3", "resolution = 16")
    domain = Domain(
        tiny_space, [c for c in map(parse_constraint, texts) if isinstance(c, GeneConstraint)]
    )
    value, cost = worth(tiny_space), price(tiny_space)
    kept = everyone[domain.holds(everyone)]
    limit = float(np.median(cost.predict(kept)))
    truth = value.predict(kept)[cost.predict(kept) <= limit].max()
    found = best_within(domain, value, cost, limit)
    assert found is not None and domain.holds(found.row[None]).all()
    assert found.value == pytest.approx(truth, abs=found.gap + 1e-9)


def test_nothing_costs_so_little(tiny_space: SearchSpace) -> None:
    cost = price(tiny_space)
    least = cost.bounds()[0]
    assert best_within(Domain(tiny_space), worth(tiny_space), cost, least - 1e-3) is None
    exactly = best_within(Domain(tiny_space), worth(tiny_space), cost, least)
    assert exactly is not None
    assert cost.predict(exactly.row[None])[0] == pytest.approx(least)


def test_every_budget_at_once(tiny_space: SearchSpace, everyone: Population) -> None:
    value, cost = worth(tiny_space), price(tiny_space)
    limit = cost.bounds()[1]
    sweep = Grid(Domain(tiny_space), cost, limit, bins=512).sweep(value)
    rows = sweep.rows(np.arange(513))
    tiny_space.encode(tiny_space.decode(rows))
    costs, truth = cost.predict(everyone), value.predict(everyone)
    step = (limit - cost.bounds()[0]) / 512
    finite = np.flatnonzero(np.isfinite(sweep.best))
    assert len(rows) == len(finite)
    np.testing.assert_allclose(value.predict(rows), sweep.best[finite])
    for point in finite[::37]:
        budget = limit - (512 - point) * step
        row = rows[np.searchsorted(finite, point)][None]
        assert cost.predict(row)[0] <= budget + 1e-9
        assert sweep.best[point] <= truth[costs <= budget + 1e-9].max() + 1e-9


@pytest.mark.parametrize("name", ["mbv3-nano-32", "ofa-resnet50", "compofa-mbv3"])
def test_spaces_of_every_kind(name: str) -> None:
    """Elastic widths, coupled genes: the bound holds for ten thousand networks."""
    space = get_space(name)
    space = space.with_resolutions(*space.resolutions[:2])
    value, cost = worth(space), macs_model(space)
    drawn = space.sample(np.random.default_rng(0), 10_000)
    limit = float(np.quantile(cost.predict(drawn), 0.3))
    found = best_within(Domain(space), value, cost, limit, bins=512)
    assert found is not None
    assert space.encode(space.decode(found.row[None]))[0].tolist() == found.row.tolist()
    assert cost.predict(found.row[None])[0] <= limit
    assert value.predict(drawn)[cost.predict(drawn) <= limit].max() <= found.bound + 1e-9
    assert found.value >= value.predict(drawn)[cost.predict(drawn) <= limit].max()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 1.0), bins=st.sampled_from([8, 64, 1024]))
def test_bounds_hold_on_any_grid(
    tiny_space: SearchSpace, everyone: Population, seed: int, share: float, bins: int
) -> None:
    value, cost = worth(tiny_space, seed), price(tiny_space, seed)
    costs = cost.predict(everyone)
    limit = float(np.quantile(costs, share))
    found = best_within(Domain(tiny_space), value, cost, limit, bins=bins)
    if found is not None:
        truth = value.predict(everyone)[costs <= limit].max()
        assert found.value - 1e-9 <= truth <= found.bound + 1e-9
        assert cost.predict(found.row[None])[0] <= limit


def test_maximum_over_blocks_is_no_sum(tiny_space: SearchSpace) -> None:
    with pytest.raises(InputError, match="expected sums over blocks"):
        best_within(Domain(tiny_space), worth(tiny_space), peak_memory_model(tiny_space), 1e6)
