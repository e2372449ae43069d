"""Bounds are those of all networks, listed one by one, in spaces of every sort."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ofa_deploy.cost import AdditiveModel, macs_model, params_model, peak_memory_model
from ofa_deploy.space import Head, Population, SearchSpace, Stage, Stem, get_space


def make(*stages: Stage, **fields: Any) -> SearchSpace:
    given: dict[str, Any] = {
        "name": "small",
        "resolutions": (16,),
        "classes": 3,
        "stem": Stem(channels=8),
        "head": Head(channels=0, features=0),
    }
    return SearchSpace(stages=stages, **{**given, **fields})


def bottleneck(**fields: Any) -> Stage:
    given: dict[str, Any] = {"channels": 32, "stride": 1, "depths": (0, 1), "base_depth": 1}
    return Stage(kind="bottleneck", **{**given, "kernels": (3,), "expands": (0.5, 1), **fields})


FIXED = Stage(channels=8, stride=1, depths=(1,), kernels=(3,), expands=(1,))
MOBILE = Stage(channels=8, stride=2, depths=(1, 3), kernels=(3, 5), expands=(1, 2))
DEEPER = Stage(channels=16, stride=1, depths=(1, 2), kernels=(3,), expands=(2, 3), se=True)
ONE_DEPTH = Stage(channels=16, stride=1, depths=(2,), kernels=(3, 5), expands=(2,))
DEPTH_ONLY = Stage(channels=8, stride=1, depths=(1, 2, 4), kernels=(3,), expands=(2,))
COUPLED = Stage(
    channels=8, stride=2, depths=(1, 2, 3), kernels=(3,), expands=(1, 2, 4), coupled=True
)
COUPLED_KERNELS = Stage(
    channels=8, stride=1, depths=(1, 3), kernels=(3, 5), expands=(2, 4), coupled=True
)
DEEP = Stem(channels=32, kind="deep", depths=(0, 2))
SPACES = {
    "nothing to choose": make(FIXED),
    "resolutions only": make(resolutions=(8, 12, 16)),
    "mbconv": make(FIXED, MOBILE, DEEPER),
    "mbconv, 2 resolutions": make(DEPTH_ONLY, ONE_DEPTH, DEEPER, resolutions=(9, 16)),
    "coupled": make(COUPLED, COUPLED, resolutions=(12, 16)),
    "coupled and free": make(COUPLED_KERNELS, DEEPER, DEPTH_ONLY),
    "bottleneck": make(bottleneck(), bottleneck(depths=(0, 2)), stem=DEEP),
    "bottleneck, widths": make(
        bottleneck(),
        bottleneck(expands=(0.5,), stride=2),
        stem=DEEP,
        width_multipliers=(0.5, 0.6, 1.0),
    ),
    "widths only": make(
        bottleneck(expands=(1,), depths=(0,)),
        bottleneck(expands=(1,), depths=(0,)),
        head=Head(channels=24, features=16),
        resolutions=(8, 16),
        width_multipliers=(0.5, 1.0, 1.5),
    ),
    "coupled, widths": make(
        bottleneck(coupled=True), bottleneck(coupled=True), width_multipliers=(0.5, 1.0)
    ),
}


@dataclass(frozen=True)
class Listed:
    """A space, all of its networks, and the keys of each one's blocks."""

    space: SearchSpace
    rows: Population
    keys: list[list[str]]


@pytest.fixture(scope="module", params=SPACES)
def listed(request: pytest.FixtureRequest) -> Listed:
    space = SPACES[request.param]
    every = np.array(list(product(*(range(n) for n in space.num_choices))), np.int8)
    rows = np.unique(space.mask_inactive(every), axis=0)
    assert len(rows) == space.num_archs <= 2000
    keys = [[block.key for block in space.lower(arch)] for arch in space.decode(rows)]
    return Listed(space, rows, keys)


def check(model: AdditiveModel, rows: Population, expected: Iterable[float]) -> None:
    values = np.array(list(expected))
    np.testing.assert_allclose(model.predict(rows), values, rtol=1e-12, atol=1e-9)
    bounds = values.min(), values.max()
    np.testing.assert_allclose(model.bounds(), bounds, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, -3.5])
@pytest.mark.parametrize("seed", range(4))
def test_any_values_summed(listed: Listed, seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    values = {block.key: float(rng.normal()) for block in listed.space.blocks()}
    model = AdditiveModel.from_blocks(listed.space, lambda b: values[b.key], offset=offset)
    check(model, listed.rows, (offset + sum(values[k] for k in keys) for keys in listed.keys))


@pytest.mark.parametrize("seed", range(4))
def test_greatest_of_any_values(listed: Listed, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {block.key: float(rng.exponential()) for block in listed.space.blocks()}
    model = AdditiveModel.from_blocks(
        listed.space, lambda b: values[b.key], offset=0.25, reduce="max"
    )
    check(model, listed.rows, (0.25 + max(values[k] for k in keys) for keys in listed.keys))


def test_costs(listed: Listed) -> None:
    space, archs = listed.space, listed.space.decode(listed.rows)
    blocks = {block.key: block for block in space.blocks()}
    lowered = [[blocks[key] for key in keys] for keys in listed.keys]
    check(macs_model(space), listed.rows, (sum(b.macs for b in each) for each in lowered))
    check(params_model(space), listed.rows, (sum(b.params for b in each) for each in lowered))
    peaks = [max(block.activation_bytes for block in each) for each in lowered]
    check(peak_memory_model(space), listed.rows, peaks)
    assert [space.cost(arch).peak_memory for arch in archs] == peaks


def test_one_rare_network_is_found(listed: Listed) -> None:
    # The tables alone say which it is: one value a gene, the wanted choice's the least.
    rng = np.random.default_rng(3)
    for wanted in listed.rows[rng.choice(len(listed.rows), min(4, len(listed.rows)), False)]:
        tables = []
        for column, (choice, choices) in enumerate(
            zip(wanted, listed.space.num_choices, strict=True)
        ):
            table = np.ones(choices + 1)
            table[choice + 1] = 0.0
            tables.append(((column,), table))
        model = AdditiveModel(listed.space, tables)
        values = model.predict(listed.rows)
        assert (values == (listed.rows != wanted).sum(1)).all()
        assert model.bounds() == (0.0, values.max())


@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_tables_of_the_same_genes_are_joined(listed: Listed, reduce: str) -> None:
    space = listed.space
    rng = np.random.default_rng(5)
    tables: list[tuple[tuple[int, ...], npt.NDArray[np.float64]]] = [
        ((column, other), rng.random((choices + 1, space.num_choices[other] + 1)))
        for column, choices in enumerate(space.num_choices)
        for other in {0, len(space.genes) - 1} - {column}
    ]
    tables.append(((0,), rng.random(space.num_choices[0] + 1)))
    pairs = [*tables, *((columns, rng.random(table.shape)) for columns, table in tables)]
    model = AdditiveModel(space, pairs, reduce=reduce)
    assert len(model.tables) == len({columns for columns, _ in pairs}) == len(pairs) / 2
    gathered = [
        [float(table[tuple(int(row[c]) + 1 for c in columns)]) for columns, table in pairs]
        for row in listed.rows
    ]
    check(model, listed.rows, map(sum if reduce == "sum" else max, gathered))


def test_bounds_of_published_spaces() -> None:
    for name in ("ofa-resnet50", "ofa-proxyless-w1.3", "compofa-mbv3"):
        space = get_space(name).with_resolutions(128, 224)
        ends = [space.cost(arch) for arch in (space.smallest, space.largest)]
        assert macs_model(space).bounds() == tuple(end.macs for end in ends)
        assert params_model(space).bounds() == tuple(end.params for end in ends)
        assert peak_memory_model(space).bounds() == tuple(end.peak_memory for end in ends)


def test_bounds_of_a_great_space_are_never_passed(rng: np.random.Generator) -> None:
    space = get_space("ofa-resnet50").with_resolutions(160, 224)
    values = {block.key: float(rng.normal()) for block in space.blocks()}
    model = AdditiveModel.from_blocks(space, lambda block: values[block.key])
    least, most = model.bounds()
    population = space.sample(rng, 500)
    for _ in range(150):  # climb down
        population = np.concatenate([population, space.mutate(population, rng, 0.1)])
        population = population[np.argsort(model.predict(population))[:500]]
    best = model.predict(population)[0]
    assert least <= best + 1e-9
    assert best < least + 0.1 * (most - least)
