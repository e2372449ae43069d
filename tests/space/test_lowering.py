"""The blocks of a network follow its arch, and its cost is theirs."""

from itertools import pairwise

import numpy as np
from hypothesis import given

from ofa_deploy.space import Arch, SearchSpace, make_divisible
from tests.space.drawn import everyone, seeds, spaces


@given(space=spaces, seed=seeds)
def test_lowered_blocks_chain_up(space: SearchSpace, seed: int) -> None:
    (arch,) = space.decode(space.sample(np.random.default_rng(seed), 1))
    blocks = space.lower(arch)
    assert (blocks[0].in_channels, blocks[0].size) == (3, arch.resolution)
    for before, after in pairwise(blocks):
        assert (after.in_channels, after.size) == (before.out_channels, before.out_size)
    assert blocks[-1].kind == "classifier" and blocks[-1].out_channels == space.classes
    for block in blocks:
        can_add = block.stride == 1 and block.in_channels == block.out_channels
        assert block.residual == (can_add and block.kind == "mbconv")
    known = {block.key for block in space.blocks()}
    assert {block.key for block in blocks} <= known


def test_blocks_are_exactly_those_that_occur(tiny_space: SearchSpace) -> None:
    occurring = {block for arch in everyone(tiny_space) for block in tiny_space.lower(arch)}
    assert set(tiny_space.blocks()) == occurring


def test_lowering_by_hand(tiny_space: SearchSpace) -> None:
    arch = Arch(12, (2, 1), (7, 3, 5), (2, 3, 1.5))
    named = tiny_space.lower_named(arch)
    assert [(name, block.key) for name, block in named] == [
        ("stem", "conv_12x12_3-8_k3_s2_hswish"),
        ("stages.0.0", "mbconv_6x6_8-8-8_k3_relu_res"),
        ("stages.1.0", "mbconv_6x6_8-16-16_k7_s2_relu"),
        ("stages.1.1", "mbconv_3x3_16-48-16_k3_relu_res"),
        ("stages.2.0", "mbconv_3x3_16-24-16_k5_hswish_se8_res"),
        ("head", "conv_3x3_16-24_k1_hswish"),
        ("classifier", "classifier_3x3_24-32-4_hswish"),
    ]
    assert tuple(block for _, block in named) == tiny_space.lower(arch)


@given(seed=seeds)
def test_lowered_blocks_follow_the_arch(tiny_space: SearchSpace, seed: int) -> None:
    (arch,) = tiny_space.decode(tiny_space.sample(np.random.default_rng(seed), 1))
    blocks = [
        b for name, b in tiny_space.lower_named(arch) if name.startswith(("stages.1", "stages.2"))
    ]
    assert tuple(block.kernel for block in blocks) == arch.kernels
    wide = [make_divisible(b.in_channels * e) for b, e in zip(blocks, arch.expands, strict=True)]
    assert [block.mid_channels for block in blocks] == wide


@given(seed=seeds)
def test_cost_is_the_sum_over_blocks(tiny_space: SearchSpace, seed: int) -> None:
    (arch,) = tiny_space.decode(tiny_space.sample(np.random.default_rng(seed), 1))
    cost, blocks = tiny_space.cost(arch), tiny_space.lower(arch)
    assert cost.macs == sum(block.macs for block in blocks)
    assert cost.params == sum(block.params for block in blocks)
    assert cost.peak_memory == max(block.activation_bytes for block in blocks)
