"""``Block``: costs by hand, and one key a block."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.space import Block, SearchSpace, make_divisible
from ofa_deploy.space.block import ACTIVATIONS

STEM = Block(
    kind="conv", in_channels=3, out_channels=8, kernel=3, stride=2, size=9, activation="hswish"
)
STRIDED = Block(
    kind="mbconv",
    in_channels=8,
    mid_channels=16,
    out_channels=12,
    kernel=3,
    stride=2,
    size=9,
    se=4,
    activation="relu",
)
UNEXPANDED = Block(
    kind="mbconv",
    in_channels=8,
    mid_channels=8,
    out_channels=8,
    kernel=5,
    size=6,
    activation="relu",
    residual=True,
)
EXPANDED = Block(
    kind="mbconv",
    in_channels=8,
    mid_channels=32,
    out_channels=8,
    kernel=7,
    size=4,
    activation="hswish",
    residual=True,
)
POOLED = Block(
    kind="classifier",
    in_channels=10,
    mid_channels=20,
    out_channels=5,
    size=4,
    activation="hswish",
)
LINEAR = Block(kind="classifier", in_channels=10, out_channels=5, size=4)

# block, key, out_size, macs, params, activation_bytes, bytes_moved
BY_HAND: list[tuple[Block, str, int, int, int, int, int]] = [
    (
        STEM,
        "conv_9x9_3-8_k3_s2_hswish",
        5,
        3 * 8 * 9 * 25,
        3 * 8 * 9 + 16,
        4 * (3 * 81 + 8 * 25),
        4 * (3 * 81 + 8 * 25 + 232),
    ),
    (
        STRIDED,
        "mbconv_9x9_8-16-12_k3_s2_relu_se4",
        5,
        # expansion at 9x9, depthwise at 5x5, SE twice, projection at 5x5
        8 * 16 * 81 + 16 * 9 * 25 + 2 * 16 * 4 + 16 * 12 * 25,
        (8 * 16 + 32) + (16 * 9 + 32) + (16 * 4 + 4 + 4 * 16 + 16) + (16 * 12 + 24),
        4 * (8 * 81 + 16 * 81),  # the expansion's input and output
        4 * (8 * 81 + 12 * 25 + 700 + 2 * 16 * (81 + 25)),
    ),
    (
        UNEXPANDED,
        "mbconv_6x6_8-8-8_k5_relu_res",
        6,
        8 * 25 * 36 + 8 * 8 * 36,
        (8 * 25 + 16) + (8 * 8 + 16),
        4 * (3 * 8 * 36),  # input held, projection's input and output
        4 * (2 * 8 * 36 + 296 + 2 * 8 * 36),
    ),
    (
        EXPANDED,
        "mbconv_4x4_8-32-8_k7_hswish_res",
        4,
        8 * 32 * 16 + 32 * 49 * 16 + 32 * 8 * 16,
        (8 * 32 + 64) + (32 * 49 + 64) + (32 * 8 + 16),
        4 * (8 * 16 + 2 * 32 * 16),  # input held, the depthwise's input and output
        4 * (2 * 8 * 16 + 2224 + 4 * 32 * 16),
    ),
    (
        POOLED,
        "classifier_4x4_10-20-5_hswish",
        1,
        10 * 20 + 20 * 5,
        10 * 20 + 20 * 5 + 5,
        4 * (10 * 16 + 20),
        4 * (10 * 16 + 5 + 305),
    ),
    (LINEAR, "classifier_4x4_10-5", 1, 50, 55, 4 * (160 + 5), 4 * (160 + 5 + 55)),
]


@pytest.mark.parametrize(
    ("block", "key", "out_size", "macs", "params", "activation_bytes", "bytes_moved"),
    BY_HAND,
    ids=[row[1] for row in BY_HAND],
)
def test_costs_by_hand(
    block: Block,
    key: str,
    out_size: int,
    macs: int,
    params: int,
    activation_bytes: int,
    bytes_moved: int,
) -> None:
    assert block.key == key
    assert block.out_size == out_size
    assert block.macs == macs
    assert block.params == params
    assert block.activation_bytes == activation_bytes
    assert block.bytes_moved == bytes_moved


counts = st.integers(1, 64)
common: dict[str, Any] = {
    "in_channels": counts,
    "out_channels": counts,
    "size": counts,
    "activation": st.sampled_from(ACTIVATIONS),
}
kernels, strides = st.sampled_from([1, 3, 5, 7, 13]), st.sampled_from([1, 2, 4])
blocks = st.one_of(
    st.builds(Block, kind=st.just("conv"), kernel=kernels, stride=strides, **common),
    st.builds(
        Block,
        kind=st.just("mbconv"),
        mid_channels=counts,
        kernel=kernels,
        stride=strides,
        se=st.integers(0, 16),
        residual=st.booleans(),
        **common,
    ),
    st.builds(Block, kind=st.just("classifier"), mid_channels=st.integers(0, 64), **common),
)


@given(one=blocks, other=blocks)
def test_equal_keys_are_equal_blocks(one: Block, other: Block) -> None:
    assert (one.key == other.key) == (one == other)


FIELDS: list[tuple[str, Any]] = [
    ("kind", "conv"),
    ("in_channels", 9),
    ("mid_channels", 17),
    ("out_channels", 13),
    ("kernel", 5),
    ("stride", 1),
    ("size", 10),
    ("se", 0),
    ("se", 8),
    ("activation", "none"),
    ("activation", "hswish"),
    ("residual", True),
]


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_every_field_shows_in_the_key(field: str, value: Any) -> None:
    # Random pairs of blocks seldom differ in one field only.
    fields = {name: getattr(STRIDED, name) for name, _ in FIELDS}
    assert fields[field] != value
    assert Block(**{**fields, field: value}).key != STRIDED.key


def test_keys_in_a_space_are_distinct(tiny_space: SearchSpace) -> None:
    everything = tiny_space.blocks()
    assert len({block.key for block in everything}) == len(set(everything)) == len(everything)


@given(size=st.integers(1, 50), kernel=kernels, stride=st.integers(1, 4))
def test_out_size_counts_the_windows(size: int, kernel: int, stride: int) -> None:
    block = Block(
        kind="conv", in_channels=1, out_channels=1, size=size, kernel=kernel, stride=stride
    )
    padding = kernel // 2
    starts = range(-padding, size + padding - kernel + 1, stride)
    assert block.out_size == len(starts)


@given(value=st.floats(0.1, 2000), divisor=st.sampled_from([4, 8, 16]))
def test_make_divisible(value: float, divisor: int) -> None:
    rounded = make_divisible(value, divisor)
    assert rounded % divisor == 0 and rounded >= divisor
    assert rounded >= 0.9 * value
    assert rounded <= max(divisor, value + divisor)


@pytest.mark.parametrize(
    ("value", "rounded"), [(1, 8), (11, 16), (12, 16), (19, 24), (20, 24), (25, 24), (57, 56)]
)
def test_make_divisible_by_hand(value: float, rounded: int) -> None:
    assert make_divisible(value) == rounded
