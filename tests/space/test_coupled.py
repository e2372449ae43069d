"""Stages whose depth decides the expansion ratio (CompOFA)."""

from typing import Any

import numpy as np
import pytest

from ofa_deploy.errors import MismatchError
from ofa_deploy.space import Arch, Head, SearchSpace, Stage, Stem, get_space


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """A coupled stage with a choice of kernels, a free one after it."""
    return SearchSpace(
        name="both",
        resolutions=(16,),
        classes=3,
        stem=Stem(channels=8),
        stages=(
            Stage(
                channels=16,
                stride=1,
                depths=(1, 3),
                kernels=(3, 5),
                expands=(2, 4),
                coupled=True,
            ),
            Stage(channels=16, stride=2, depths=(1, 2), kernels=(3,), expands=(2, 4)),
        ),
        head=Head(channels=0, features=0),
    )


def test_genes_and_networks(space: SearchSpace) -> None:
    assert [gene.name for gene in space.genes] == [
        "resolution",
        "depth[0]",
        "depth[1]",
        *("kernel[0.0]", "kernel[0.1]", "kernel[0.2]"),
        *("expand[1.0]", "expand[1.1]"),
    ]
    assert space.num_archs == (2 + 2**3) * (2 + 2**2)
    assert get_space("compofa-mbv3").columns.keys() == {
        "resolution",
        *(f"depth[{stage}]" for stage in (1, 2, 3, 4, 5)),
    }


def test_expands_follow_depths(space: SearchSpace) -> None:
    shallow = space.arch(depths=[1, 1], kernels=3, expands=[2, 4])
    assert shallow == Arch(16, (1, 1), (3, 3), (2, 4))
    deep = space.arch(depths=[3, 1], kernels=3, expands=[4, 4, 4, 2])
    assert deep.expands == (4, 4, 4, 2)
    keys = [block.key for name, block in space.lower_named(deep) if name.startswith("stages.0")]
    assert keys == [
        "mbconv_8x8_8-32-16_k3_hswish",
        "mbconv_8x8_16-64-16_k3_hswish_res",
        "mbconv_8x8_16-64-16_k3_hswish_res",
    ]
    assert space.lower(shallow)[1].key == "mbconv_8x8_8-16-16_k3_hswish"


def test_arch_needs_no_expands() -> None:
    space = get_space("compofa-mbv3")
    arch = space.arch(depths=[2, 3, 4, 3, 2], resolution=160)
    expands = (*[3] * 2, *[4] * 3, *[6] * 4, *[4] * 3, *[3] * 2)
    assert arch.expands == expands
    assert arch == space.arch(depths=[2, 3, 4, 3, 2], expands=expands, resolution=160)
    full = [*[3] * 4, *[4] * 4, *[6] * 4, *[4] * 4, *[3] * 4]
    assert arch == space.arch(depths=[2, 3, 4, 3, 2], expands=full, resolution=160)
    assert space.arch(depths=3, expands=4) == space.arch(depths=3)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"expands": [3, 4, *[3] * 8]}, r"expand[1.1] = 4, expected one of 3"),
        ({"expands": [3, 3, 6, 6, *[3] * 15, 4]}, None),  # inactive entries of a full-length list
        ({"expands": 6}, r"expand[1.0] = 6, expected one of 3"),
        ({"depths": [2, 4, 2, 2, 2], "expands": 3}, r"expand[2.0] = 3, expected one of 6"),
        ({"kernels": 3}, r"kernel[2.0] = 3, expected one of 5"),
        ({"depths": [2, 1, 2, 2, 2]}, r"depth[2] = 1, expected one of 2, 3, 4"),
    ],
)
def test_what_does_not_follow_is_refused(wrong: dict[str, Any], match: str | None) -> None:
    space = get_space("compofa-mbv3")
    asked = {"depths": [2, 2, 2, 2, 2], **wrong}
    if match is None:
        assert space.arch(**asked) == space.arch(depths=2)
        return
    with pytest.raises(MismatchError) as caught:
        space.arch(**asked)
    assert str(caught.value) == f"space compofa-mbv3: {match}"


def test_stranger_is_refused(space: SearchSpace) -> None:
    good = Arch(16, (3, 1), (3, 3, 5, 3), (4, 4, 4, 2))
    assert space.decode(space.encode([good])) == [good]
    for expands in ((4, 4, 2, 2), (2, 2, 2, 2), (2, 4, 4, 2)):
        with pytest.raises(MismatchError, match=r"not in space both: expand\[0\.\d\] = 2"):
            space.encode([Arch(16, (3, 1), (3, 3, 5, 3), expands)])


def test_operators_stay_inside(space: SearchSpace, rng: np.random.Generator) -> None:
    population = space.sample(rng, 200)
    mutants = space.mutate(population, rng, 0.4)
    children = space.crossover(population, mutants, rng)
    for rows in (population, mutants, children):
        archs = space.decode(rows)
        np.testing.assert_array_equal(space.encode(archs), rows)
        for arch in archs:
            first = arch.expands[: arch.depths[0]]
            assert set(first) == ({2} if arch.depths[0] == 1 else {4})


def test_smallest_and_largest(space: SearchSpace) -> None:
    assert space.smallest == Arch(16, (1, 1), (3, 3), (2, 2))
    assert space.largest == Arch(16, (3, 2), (5, 5, 5, 3, 3), (4,) * 5)


def test_published_space_lowers_to_the_coupled_ratios() -> None:
    space = get_space("compofa-mbv3").with_resolutions(64)
    rows = space.encode([space.arch(depths=depth) for depth in (2, 3, 4)])
    assert rows.tolist() == [[0, *[choice] * 5] for choice in range(3)]
    lowered = [space.lower(arch) for arch in space.decode(rows)]
    assert [blocks[2].mid_channels for blocks in lowered] == [48, 64, 96]
    assert [len(blocks) for blocks in lowered] == [2 + 10 + 2, 2 + 15 + 2, 2 + 20 + 2]
