"""ResNet-50: elastic width, depths beyond a base, a stem that may lose its residual block."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ofa_deploy.errors import MismatchError
from ofa_deploy.space import Arch, Head, SearchSpace, Stage, Stem, get_space


@pytest.fixture(scope="module")
def resnet() -> SearchSpace:
    return get_space("ofa-resnet50")


def blocks_by_slot(space: SearchSpace, arch: Arch) -> dict[str, str]:
    return {name: block.key for name, block in space.lower_named(arch)}


# 4 + 4 + 6 + 4 entries; depths (2, 0, 1, 0, 2) leave out those in brackets.
FULL_EXPANDS = [
    *(0.2, 0.35, 0.25, 0.25),  # [.25, .25]
    *(0.2, 0.25, 0.35, 0.2),  # [.2]
    *(0.2, 0.25, 0.35, 0.2, 0.35, 0.35),  # [.35, .35]
    *(0.2, 0.25, 0.35, 0.2),
]
ACTIVE_EXPANDS = (0.2, 0.35, 0.2, 0.25, 0.35, 0.2, 0.25, 0.35, 0.2, 0.2, 0.25, 0.35, 0.2)
CONFIG: dict[str, Any] = {
    "depths": [2, 0, 1, 0, 2],
    "expands": FULL_EXPANDS,
    "widths": [0, 1, 0, 1, 2, 0],
    "resolution": 132,
}


def test_published_config(resnet: SearchSpace) -> None:
    arch = resnet.arch(**CONFIG)
    assert arch == Arch(132, (2, 0, 1, 0, 2), (3,) * 13, ACTIVE_EXPANDS, (0, 1, 0, 1, 2, 0))
    assert arch == resnet.arch(**{**CONFIG, "expands": ACTIVE_EXPANDS})
    assert arch == resnet.arch(**{**CONFIG, "kernels": 3})
    assert arch == resnet.arch(**{**CONFIG, "kernels": [3] * 18})
    # What depth leaves out does not count.
    for inactive in (2, 3, 7, 12, 13):
        changed = [*FULL_EXPANDS]
        changed[inactive] = 0.9
        assert resnet.arch(**{**CONFIG, "expands": changed}) == arch


def test_block_list_by_hand(resnet: SearchSpace) -> None:
    # Widths 20 -> 24, 51.2 -> 48, 166.4 -> 168, 409.6 -> 408, 1024, 1331.2 -> 1328.
    # Sizes are odd on the way down: 132, 66, 33, 33, 17, 9, 5.
    assert blocks_by_slot(resnet, resnet.arch(**CONFIG)) == {
        "stem.0": "conv_132x132_3-24_k3_s2_relu",
        "stem.1": "conv_66x66_24-24_k3_relu_res",
        "stem.2": "conv_66x66_24-48_k3_relu",
        "stem.pool": "maxpool_66x66_48-48_k3_s2",
        "stages.0.0": "bottleneck_33x33_48-32-168_k3_relu",
        "stages.0.1": "bottleneck_33x33_168-56-168_k3_relu_res",
        "stages.1.0": "bottleneck_33x33_168-80-408_k3_s2_relu",
        "stages.1.1": "bottleneck_17x17_408-104-408_k3_relu_res",
        "stages.1.2": "bottleneck_17x17_408-144-408_k3_relu_res",
        "stages.2.0": "bottleneck_17x17_408-208-1024_k3_s2_relu",
        "stages.2.1": "bottleneck_9x9_1024-256-1024_k3_relu_res",
        "stages.2.2": "bottleneck_9x9_1024-360-1024_k3_relu_res",
        "stages.2.3": "bottleneck_9x9_1024-208-1024_k3_relu_res",
        "stages.3.0": "bottleneck_9x9_1024-264-1328_k3_s2_relu",
        "stages.3.1": "bottleneck_5x5_1328-336-1328_k3_relu_res",
        "stages.3.2": "bottleneck_5x5_1328-464-1328_k3_relu_res",
        "stages.3.3": "bottleneck_5x5_1328-264-1328_k3_relu_res",
        "classifier": "classifier_5x5_1328-1000",
    }


def test_widths_of_every_index(resnet: SearchSpace) -> None:
    by_index = []
    for index in range(3):
        blocks = resnet.lower(resnet.arch(depths=2, expands=0.35, widths=index))
        by_index.append([block.out_channels for block in blocks if not block.residual])
    assert [widths[:2] + widths[3:-1] for widths in by_index] == [
        [24, 40, 168, 336, 664, 1328],
        [24, 48, 208, 408, 816, 1640],
        [32, 64, 256, 512, 1024, 2048],
    ]


def test_two_stem_indices_are_one_network(resnet: SearchSpace) -> None:
    first = resnet.arch(**CONFIG)
    second = resnet.arch(**{**CONFIG, "widths": [1, 1, 0, 1, 2, 0]})
    assert first == second and hash(first) == hash(second)
    assert first.widths[0] == second.widths[0] == 0
    written = replace(first, widths=(1, *first.widths[1:]))  # an arch that another program wrote
    rows = resnet.encode([first, second, written])
    assert (rows == rows[0]).all()
    assert resnet.lower(written) == resnet.lower(first)
    wide = resnet.arch(**{**CONFIG, "widths": [2, 1, 0, 1, 2, 0]})
    assert wide != first
    assert blocks_by_slot(resnet, wide)["stem.0"] == "conv_132x132_3-32_k3_s2_relu"
    # Only the stem's middle has equal widths.
    for column in range(1, 6):
        widths = [[0] * 6, [0] * 6]
        widths[1][column] = 1
        one, other = (resnet.arch(**{**CONFIG, "widths": w}) for w in widths)
        assert one != other and resnet.lower(one) != resnet.lower(other)


def test_first_depth_is_the_stems(resnet: SearchSpace) -> None:
    kept = resnet.arch(**CONFIG)
    skipped = resnet.arch(**{**CONFIG, "depths": [0, 0, 1, 0, 2]})
    assert "stem.1" not in blocks_by_slot(resnet, skipped)
    left = {k: v for k, v in blocks_by_slot(resnet, kept).items() if k != "stem.1"}
    assert blocks_by_slot(resnet, skipped) == left
    assert skipped == resnet.arch(**{**CONFIG, "depths": [1, 0, 1, 0, 2]})
    assert skipped.depths[0] == 0
    rows = resnet.encode([skipped, replace(skipped, depths=(1, *skipped.depths[1:]))])
    assert (rows[0] == rows[1]).all()
    assert resnet.cost(kept).macs - resnet.cost(skipped).macs == 24 * 24 * 9 * 66**2


@pytest.mark.parametrize(
    ("depth", "stem", "blocks"), [(0, 0, (2, 2, 4, 2)), (1, 0, (3, 3, 5, 3)), (2, 2, (4, 4, 6, 4))]
)
def test_depths_count_beyond_the_base(
    resnet: SearchSpace, depth: int, stem: int, blocks: tuple[int, ...]
) -> None:
    arch = resnet.arch(depths=depth, expands=0.25)
    assert arch == resnet.arch(depths=[stem, *[depth] * 4], expands=[0.25] * sum(blocks))
    assert arch.depths == (stem, *[depth] * 4)
    assert len(arch.kernels) == len(arch.expands) == sum(blocks)
    slots = blocks_by_slot(resnet, arch)
    for stage, count in enumerate(blocks):
        expected = {f"stages.{stage}.{b}" for b in range(count)}
        assert {slot for slot in slots if slot.startswith(f"stages.{stage}")} == expected
    assert arch.widths == (2,) * 6 and arch.resolution == 224


def test_smallest_and_largest(resnet: SearchSpace) -> None:
    assert resnet.smallest == Arch(128, (0,) * 5, (3,) * 10, (0.2,) * 10, (0,) * 6)
    assert resnet.largest == Arch(224, (2,) * 5, (3,) * 18, (0.35,) * 18, (2,) * 6)


def test_text_shows_depths_beyond_a_base(resnet: SearchSpace) -> None:
    assert str(resnet.smallest) == f"r128 d0,0,0,0,0 w0,0,0,0,0,0 | {' '.join(['k3e0.2'] * 10)}"
    assert Arch.from_dict(resnet.largest.to_dict()) == resnet.largest


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"depths": [0, 1, 0, 2]}, "expected 5 depths, found 4"),
        ({"depths": [3, 0, 1, 0, 2]}, r"depth[stem] = 3, expected one of 0, 2"),
        ({"depths": [2, 0, 1, 3, 2]}, r"depth[2] = 3, expected one of 0, 1, 2"),
        ({"depths": [2, 0, 1, 0, -1]}, r"depth[3] = -1, expected one of 0, 1, 2"),
        ({"widths": [0] * 5}, "expected 6 widths, found 5"),
        ({"widths": [0] * 7}, "expected 6 widths, found 7"),
        ({"widths": [3, *[0] * 5]}, r"width[stem.middle] = 3, expected one of 0, 2"),
        ({"widths": [*[0] * 5, 3]}, r"width[3] = 3, expected one of 0, 1, 2"),
        ({"widths": -1}, r"width[stem.middle] = -1, expected one of 0, 2"),
        ({"widths": [0, 0.65, 0, 0, 0, 0]}, r"width[stem] = 0.65, expected one of 0, 1, 2"),
        ({"expands": [0.2] * 14}, "expected 13 expands (active blocks) or 18 (full length), found"),
        ({"expands": None}, r"expand[0.0] is not given, expected one of 0.2, 0.25, 0.35"),
        ({"expands": [0.3] * 13}, r"expand[0.0] = 0.3, expected one of 0.2, 0.25, 0.35"),
        ({"kernels": 5}, r"kernel[0.0] = 5, expected one of 3"),
    ],
)
def test_wrong_configs_are_named(resnet: SearchSpace, wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(MismatchError) as caught:
        resnet.arch(**{**CONFIG, **wrong})
    assert str(caught.value).startswith(f"space ofa-resnet50: {match}")


def test_arch_of_another_width_list_is_a_mismatch(resnet: SearchSpace) -> None:
    for widths in ((), (0,) * 5, (0, 0, 0, 0, 0, 9)):
        with pytest.raises(MismatchError, match="is not in space ofa-resnet50: .*width"):
            resnet.encode([replace(resnet.largest, widths=widths)])


def test_operators_stay_inside(resnet: SearchSpace, rng: np.random.Generator) -> None:
    population = resnet.sample(rng, 100)
    mutants = resnet.mutate(population, rng, 0.3)
    children = resnet.crossover(population, mutants, rng)
    for rows in (population, mutants, children):
        np.testing.assert_array_equal(resnet.encode(resnet.decode(rows)), rows)
    middle = population[:, resnet.columns["width[stem.middle]"]]
    assert set(middle) == {0, 1}  # choices of that gene, not indices of multipliers
    assert {arch.widths[0] for arch in resnet.decode(population)} == {0, 2}


def test_every_key_is_one_block(resnet: SearchSpace) -> None:
    blocks = resnet.with_resolutions(224).blocks()
    assert len({block.key for block in blocks}) == len(set(blocks)) == len(blocks)
    # Stage 0's first block: 3 inputs, 3 outputs, 3 ratios; the others have one input an output.
    first = [block for block in blocks if block.key.startswith("bottleneck_56x56")]
    assert len([block for block in first if block.projects and block.stride == 1]) == 27
    assert len([block for block in first if block.residual]) == 9


def test_plain_stem_has_a_width_too() -> None:
    space = SearchSpace(
        name="wide",
        resolutions=(32,),
        classes=2,
        stem=Stem(channels=16, stride=1),
        stages=(
            Stage(
                kind="bottleneck",
                channels=32,
                stride=2,
                depths=(1,),
                kernels=(5,),
                expands=(0.5,),
            ),
        ),
        head=Head(channels=24, features=40),
        width_multipliers=(0.5, 1.0, 1.5),
    )
    assert [gene.name for gene in space.genes] == ["resolution", "width[stem]", "width[0]"]
    assert space.num_archs == 9
    assert space.elastic_stages == (0,)  # a width is a choice
    arch = space.arch(depths=1, widths=[2, 0])
    assert arch == Arch(32, (1,), (5,), (0.5,), (2, 0))
    assert [block.key for block in space.lower(arch)] == [
        "conv_32x32_3-24_k3_hswish",
        "bottleneck_32x32_24-8-16_k5_s2_hswish",
        "conv_16x16_16-24_k1_hswish",
        "classifier_16x16_24-40-2_hswish",
    ]
    assert space.arch(depths=1) == space.arch(depths=1, widths=2) == space.largest
