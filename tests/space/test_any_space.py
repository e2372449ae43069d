"""Random small spaces of every sort, against all of their networks, listed by hand."""

from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from ofa_deploy.space import Arch, Head, SearchSpace, Stage, Stem, make_divisible

FEW = 400  # networks that are listed one by one

seeds = st.integers(0, 2**32 - 1)


def ascending(*choices: float) -> st.SearchStrategy[tuple[Any, ...]]:
    sets = st.sets(st.sampled_from(choices), min_size=1, max_size=2)
    return sets.map(lambda chosen: tuple(sorted(chosen)))


common: dict[str, Any] = {"stride": st.sampled_from([1, 2]), "kernels": ascending(3, 5)}
mobile = st.builds(
    Stage,
    channels=st.sampled_from([8, 16]),
    depths=ascending(1, 2, 3),
    expands=ascending(1, 2.5, 4),
    se=st.booleans(),
    **common,
)
coupled = st.builds(
    Stage,
    channels=st.sampled_from([8, 16]),
    depths=st.sampled_from([(1, 2), (1, 3), (2, 3)]),
    expands=st.sampled_from([(1, 4), (2.5, 4)]),
    coupled=st.just(True),
    **common,
)
bottlenecks = st.builds(
    Stage,
    kind=st.just("bottleneck"),
    channels=st.sampled_from([16, 24]),
    stride=st.sampled_from([1, 2]),
    base_depth=st.sampled_from([1, 2]),
    depths=ascending(0, 1, 2),
    kernels=st.just((3,)),
    expands=ascending(1, 2, 4),
)
coupled_bottlenecks = st.builds(
    Stage,
    kind=st.just("bottleneck"),
    channels=st.just(16),
    stride=st.just(1),
    base_depth=st.just(1),
    depths=st.just((0, 2)),
    kernels=st.just((5,)),
    expands=st.just((1, 2)),
    coupled=st.just(True),
)
stems = st.one_of(
    st.builds(Stem, channels=st.sampled_from([8, 24]), stride=st.sampled_from([1, 2])),
    st.builds(
        Stem,
        kind=st.just("deep"),
        channels=st.sampled_from([32, 48]),
        depths=st.sampled_from([(0,), (2,), (0, 2)]),
    ),
)
heads = st.builds(Head, channels=st.sampled_from([0, 24]), features=st.sampled_from([0, 32]))
facts: dict[str, Any] = {
    "name": st.just("any"),
    "resolutions": ascending(9, 16, 32),
    "classes": st.integers(2, 9),
    "stem": stems,
    "head": heads,
}
any_stage = st.one_of(mobile, coupled, bottlenecks, coupled_bottlenecks)
fixed_width = st.builds(
    SearchSpace, stages=st.lists(any_stage, min_size=1, max_size=2).map(tuple), **facts
)
# Of 24 channels 0.5 and 0.6 give 16 both, of 16 channels 0.6 and 1 do.
elastic_width = st.builds(
    SearchSpace,
    stages=st.lists(st.one_of(bottlenecks, coupled_bottlenecks), max_size=1).map(tuple),
    width_multipliers=st.sampled_from([(0.5, 1.0), (0.5, 0.6, 1.0), (0.6,)]),
    **facts,
)
spaces = st.one_of(fixed_width, elastic_width)


def distinct_widths(space: SearchSpace) -> list[list[int]]:
    """For each width of an arch the indices that give different channels."""
    if not space.width_multipliers:
        return []
    stem = [make_divisible(space.stem.channels * m) for m in space.width_multipliers]
    lists = [[make_divisible(width // 2) for width in stem]] if space.stem.kind == "deep" else []
    lists.append(stem)
    for stage in space.stages:
        lists.append([make_divisible(stage.channels * m) for m in space.width_multipliers])
    return [[i for i, width in enumerate(widths) if width not in widths[:i]] for widths in lists]


def stage_networks(stage: Stage) -> Iterator[tuple[int, tuple[Any, ...], tuple[Any, ...]]]:
    """Every (depth, kernels, expands) of a stage."""
    for index, depth in enumerate(stage.depths):
        count = stage.base_depth + depth
        for kernels in product(stage.kernels, repeat=count):
            if stage.coupled:
                yield depth, kernels, (stage.expands[index],) * count
            else:
                for expands in product(stage.expands, repeat=count):
                    yield depth, kernels, expands


def everyone(space: SearchSpace) -> list[Arch]:
    """All networks, from the space's data and none of its methods."""
    stem = [(d,) for d in space.stem.depths] if len(space.stem.depths) > 1 else [()]
    chosen = [s for s in space.stages if s.elastic or space.width_multipliers]
    parts = product(
        space.resolutions,
        stem,
        product(*distinct_widths(space)),
        product(*(list(stage_networks(stage)) for stage in chosen)),
    )
    return [
        Arch(
            resolution,
            (*first, *(depth for depth, _, _ in stages)),
            tuple(kernel for _, kernels, _ in stages for kernel in kernels),
            tuple(expand for _, _, expands in stages for expand in expands),
            widths,
        )
        for resolution, first, widths, stages in parts
    ]


@given(space=spaces)
def test_every_network_once(space: SearchSpace) -> None:
    assume(space.num_archs <= FEW)
    archs = everyone(space)
    assert space.num_archs == len(archs) == len(set(archs))
    rows = space.encode(archs)
    assert rows.dtype == np.int8 and rows.shape == (len(archs), len(space.genes))
    assert len(np.unique(rows, axis=0)) == len(archs)
    assert space.decode(rows) == archs
    assert (rows < space.num_choices).all() and (rows >= -1).all()
    np.testing.assert_array_equal(rows >= 0, space.is_active(rows))
    # No two of them are built alike, and nothing is listed that none of them has.
    lowered = [space.lower(arch) for arch in archs]
    assert len(set(lowered)) == len(archs)
    occurring = {block for blocks in lowered for block in blocks}
    assert set(space.blocks()) == occurring
    assert len({block.key for block in occurring}) == len(occurring)
    assert space.smallest in set(archs) and space.largest in set(archs)


@given(space=spaces, seed=seeds)
def test_arch_finds_each_network_again(space: SearchSpace, seed: int) -> None:
    rows = space.sample(np.random.default_rng(seed), 5)
    for arch in space.decode(rows):
        again = space.arch(
            resolution=arch.resolution,
            depths=arch.depths,
            kernels=arch.kernels,
            expands=arch.expands,
            widths=arch.widths,
        )
        assert again == arch
        assert Arch.from_dict(arch.to_dict()) == arch


@given(space=spaces, seed=seeds, rate=st.sampled_from([0.0, 0.2, 1.0]))
def test_operators_stay_inside(space: SearchSpace, seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    mothers, fathers = space.sample(rng, 12), space.sample(rng, 12)
    children = space.crossover(mothers, fathers, rng)
    mutants = space.mutate(mothers, rng, rate)
    for rows in (mothers, children, mutants):
        np.testing.assert_array_equal(space.encode(space.decode(rows)), rows)
    inherited = (children == mothers) | (children == fathers)
    assert (inherited | (children < 0)).all()
    if rate == 0:
        np.testing.assert_array_equal(mutants, mothers)


@given(space=spaces)
def test_every_network_is_drawn(space: SearchSpace) -> None:
    assume(space.num_archs <= 24)
    rows = np.unique(space.encode(everyone(space)), axis=0)
    rng = np.random.default_rng(0)
    # At most two stages halve a network's share by their depths: the rarest has 1 / 96 or more.
    drawn = space.sample(rng, 2000)
    np.testing.assert_array_equal(np.unique(drawn, axis=0), rows)
    start = np.repeat(space.encode([space.smallest]), 2000, axis=0)
    np.testing.assert_array_equal(np.unique(space.mutate(start, rng, 1.0), axis=0), rows)


@given(space=spaces, seed=seeds)
def test_blocks_chain_up(space: SearchSpace, seed: int) -> None:
    (arch,) = space.decode(space.sample(np.random.default_rng(seed), 1))
    blocks = space.lower(arch)
    assert (blocks[0].in_channels, blocks[0].size) == (3, arch.resolution)
    for before, after in pairwise(blocks):
        assert (after.in_channels, after.size) == (before.out_channels, before.out_size)
    for block in blocks:
        if block.residual:
            assert (block.stride, block.out_channels) == (1, block.in_channels)
    assert (blocks[-1].kind, blocks[-1].out_channels) == ("classifier", space.classes)
    inner = [b for b in blocks if b.kind in ("mbconv", "bottleneck")]
    fixed = sum(stage.depths[0] for stage in space.stages if not _listed(space, stage))
    fixed += sum(stage.base_depth for stage in space.stages if not _listed(space, stage))
    assert len(inner) == len(arch.kernels) + fixed


def _listed(space: SearchSpace, stage: Stage) -> bool:
    """Whether an arch lists the stage's blocks."""
    return stage.elastic or bool(space.width_multipliers)
