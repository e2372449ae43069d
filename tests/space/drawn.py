"""Spaces drawn at random, all networks of a space, and what holds of every row."""

from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ofa_deploy.space import Arch, Head, Population, SearchSpace, Stage, Stem

seeds = st.integers(0, 2**32 - 1)


def ascending(*choices: float) -> st.SearchStrategy[tuple[Any, ...]]:
    sets = st.sets(st.sampled_from(choices), min_size=1, max_size=2)
    return sets.map(lambda chosen: tuple(sorted(chosen)))


stages = st.builds(
    Stage,
    channels=st.sampled_from([8, 16]),
    stride=st.sampled_from([1, 2]),
    depths=ascending(1, 2, 3),
    kernels=ascending(3, 5),
    expands=ascending(1, 2.5, 4),
    activation=st.sampled_from(["relu", "hswish"]),
    se=st.booleans(),
)
spaces = st.builds(
    SearchSpace,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,5}", fullmatch=True),
    resolutions=ascending(9, 16, 32),
    classes=st.integers(2, 9),
    stem=st.builds(Stem, channels=st.just(8), stride=st.sampled_from([1, 2])),
    stages=st.lists(stages, max_size=2).map(tuple),
    head=st.builds(Head, channels=st.sampled_from([0, 24]), features=st.sampled_from([0, 32])),
)


def everyone(space: SearchSpace) -> set[Arch]:
    """All networks, built from the choices of the stages without any of the space's methods."""
    found = set()
    elastic = [stage for stage in space.stages if stage.elastic]
    for resolution in space.resolutions:
        for depths in product(*(stage.depths for stage in elastic)):
            blocks = [
                product(stage.kernels, stage.expands)
                for stage, depth in zip(elastic, depths, strict=True)
                for _ in range(depth)
            ]
            for chosen in product(*blocks):
                kernels = tuple(kernel for kernel, _ in chosen)
                expands = tuple(expand for _, expand in chosen)
                found.add(Arch(resolution, depths, kernels, expands))
    return found


def check_in_space(space: SearchSpace, population: Population) -> None:
    """Rows are of networks in the space, and -1 exactly where a block is inactive."""
    assert population.dtype == np.int8
    assert population.shape[1:] == (len(space.genes),)
    np.testing.assert_array_equal(space.encode(space.decode(population)), population)
