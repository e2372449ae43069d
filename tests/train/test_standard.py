"""The subnets by which supernets are compared."""

from dataclasses import replace

import pytest

from ofa_deploy.space import Arch, SearchSpace, Stage, get_space, space_names
from ofa_deploy.train import standard_archs

SIX = {"d2 e3": (2, 3), "d3 e3": (3, 3), "d4 e3": (4, 3), "d4 e4": (4, 4), "d3 e6": (3, 6)}
SIX |= {"d4 e6": (4, 6)}


def uniform(depth: int, ratio: int, *, stages: int = 5, last: int = 0) -> Arch:
    """Kernels 7 at 224 pixels; ``last`` blocks of a stage that has one depth only."""
    blocks = stages * depth + last
    depths = (depth,) * stages + (1,) * last
    return Arch(
        resolution=224, depths=depths, kernels=(7,) * blocks, expands=(float(ratio),) * blocks
    )


def test_published_space_has_the_published_six() -> None:
    found = standard_archs(get_space("deps-mbv3"))
    assert found.pop("smallest") == uniform(2, 3)
    assert found == {name: uniform(*pair) for name, pair in SIX.items() if name != "d2 e3"}


@pytest.mark.parametrize(
    ("space", "millions"),
    [
        ("deps-mbv3", (151.3, 222.0, 292.7, 383.7, 424.4, 566.2)),
        ("deps-mbv3-32", (45.1, 68.3, 91.5, 120.8, 132.9, 179.7)),
    ],
)
def test_costs_are_the_published_ones(space: str, millions: tuple[float, ...]) -> None:
    chosen = get_space(space)
    found = standard_archs(chosen)
    order = ("smallest", "d3 e3", "d4 e3", "d4 e4", "d3 e6", "d4 e6")
    costs = [chosen.cost(found[name]).macs / 1e6 for name in order]
    assert costs == pytest.approx(millions, abs=0.06)
    assert len(found) == 6


def test_elastic_kernels_and_resolutions_are_at_their_greatest() -> None:
    space = get_space("ofa-mbv3-w1.0")
    found = standard_archs(space)
    smallest = found.pop("smallest")
    assert smallest == space.smallest
    assert (smallest.resolution, set(smallest.kernels)) == (128, {3})
    assert found == {name: uniform(*pair) for name, pair in SIX.items()}
    assert found["d4 e6"] == space.largest


def test_stage_of_one_depth_takes_the_ratio() -> None:
    found = standard_archs(get_space("deps-proxyless"))
    assert found.pop("smallest") == uniform(2, 3, last=1)
    rest = {name: uniform(*pair, last=1) for name, pair in SIX.items() if name != "d2 e3"}
    assert found == rest


def test_depth_alone() -> None:
    space = get_space("compofa-mbv3")
    found = standard_archs(space)
    ratios = {2: 3, 3: 4, 4: 6}
    assert {name: arch.depths for name, arch in found.items() if arch.resolution == 224} == {
        f"d{depth}": (depth,) * 5 for depth in ratios
    }
    for depth, ratio in ratios.items():
        assert set(found[f"d{depth}"].expands) == {ratio}
    assert found["smallest"] == space.smallest


def test_resnet_by_hand() -> None:
    space = get_space("ofa-resnet50")
    found = standard_archs(space)
    assert found["smallest"] == space.smallest
    pairs = {"d0 e0.2": (0, 0.2), "d1 e0.2": (1, 0.2), "d2 e0.2": (2, 0.2)}
    pairs |= {"d2 e0.25": (2, 0.25), "d1 e0.35": (1, 0.35), "d2 e0.35": (2, 0.35)}
    assert found.keys() == {"smallest", *pairs}
    for name, (depth, ratio) in pairs.items():
        stem = 0 if depth == 0 else 2
        assert found[name] == space.arch(depths=(stem, *(depth,) * 4), expands=ratio), name
    assert found["d2 e0.35"] == space.largest


@pytest.mark.parametrize("name", space_names())
def test_each_subnet_stands_there_once(name: str) -> None:
    space = get_space(name)
    found = standard_archs(space)
    assert next(iter(found)) == "smallest"
    assert len(set(found.values())) == len(found) >= 3
    assert {space.smallest, space.largest} <= set(found.values())
    space.encode(list(found.values()))


def test_stages_of_different_choices_keep_all_subnets(tiny_space: SearchSpace) -> None:
    """The last stage's depth alone does not tell (second, greatest) apart."""
    first = Stage(channels=16, stride=2, depths=(1, 2, 3), kernels=(3,), expands=(2, 3, 4))
    last = replace(first, depths=(1, 2), expands=(2, 3))
    found = standard_archs(replace(tiny_space, stages=(first, last), resolutions=(16,)))
    assert {name: (arch.depths, arch.expands[0]) for name, arch in found.items()} == {
        "smallest": ((1, 1), 2),
        "d2 e2": ((2, 2), 2),
        "d3 e2": ((3, 2), 2),
        "d3 e3": ((3, 2), 3),
        "d2 e4": ((2, 2), 4),
        "d3 e4": ((3, 2), 4),
    }


def test_space_without_choices_of_depth_or_ratio(tiny_space: SearchSpace) -> None:
    stage = Stage(channels=16, stride=2, depths=(2,), kernels=(3, 5), expands=(2,))
    space = replace(tiny_space, stages=(stage,))
    found = standard_archs(space)
    assert found == {"smallest": space.smallest, "uniform": space.largest}
