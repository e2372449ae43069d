"""ResNet's blocks by hand: residual convolution, max-pool, bottleneck with both shortcuts."""

from dataclasses import replace
from typing import Any

import pytest

from ofa_deploy.space import Block

RESIDUAL = Block(
    kind="conv",
    in_channels=8,
    out_channels=8,
    kernel=3,
    size=6,
    activation="relu",
    residual=True,
)
POOL = Block(kind="maxpool", in_channels=8, out_channels=8, kernel=3, stride=2, size=7)
PROJECTED = Block(
    kind="bottleneck",
    in_channels=8,
    mid_channels=16,
    out_channels=24,
    kernel=3,
    stride=2,
    size=7,
    activation="relu",
)
IDENTITY = Block(
    kind="bottleneck",
    in_channels=24,
    mid_channels=16,
    out_channels=24,
    kernel=5,
    size=4,
    activation="relu",
    residual=True,
)

# block, key, MACs, params
BY_HAND: list[tuple[Block, str, int, int]] = [
    (RESIDUAL, "conv_6x6_8-8_k3_relu_res", 8 * 8 * 9 * 36, 8 * 8 * 9 + 16),
    (POOL, "maxpool_7x7_8-8_k3_s2", 0, 0),
    (
        PROJECTED,
        "bottleneck_7x7_8-16-24_k3_s2_relu",
        # 1x1 at 7x7; 3x3, 1x1 and the shortcut's 1x1 at 4x4
        8 * 16 * 49 + 16 * 16 * 9 * 16 + 16 * 24 * 16 + 8 * 24 * 16,
        (8 * 16 + 32) + (16 * 16 * 9 + 32) + (16 * 24 + 48) + (8 * 24 + 48),
    ),
    (
        IDENTITY,
        "bottleneck_4x4_24-16-24_k5_relu_res",
        24 * 16 * 16 + 16 * 16 * 25 * 16 + 16 * 24 * 16,
        (24 * 16 + 32) + (16 * 16 * 25 + 32) + (16 * 24 + 48),
    ),
]


@pytest.mark.parametrize(
    ("block", "key", "macs", "params"), BY_HAND, ids=[row[1] for row in BY_HAND]
)
def test_costs_by_hand(block: Block, key: str, macs: int, params: int) -> None:
    assert (block.key, block.macs, block.params) == (key, macs, params)


def test_out_size() -> None:
    assert [block.out_size for block in (RESIDUAL, POOL, PROJECTED, IDENTITY)] == [6, 4, 4, 4]


def test_which_shortcuts_are_projected() -> None:
    found = [block.projects for block in (RESIDUAL, POOL, PROJECTED, IDENTITY)]
    assert found == [False, False, True, False]
    # A stage's first block projects at stride 1 and equal widths too.
    assert replace(IDENTITY, residual=False).projects
    extra = replace(IDENTITY, residual=False).params - IDENTITY.params
    assert extra == 24 * 24 + 2 * 24


def bottleneck(inputs: int, mid: int, outputs: int, stride: int, size: int) -> Block:
    return replace(
        PROJECTED,
        in_channels=inputs,
        mid_channels=mid,
        out_channels=outputs,
        stride=stride,
        size=size,
    )


@pytest.mark.parametrize(
    ("block", "values"),
    [
        pytest.param(RESIDUAL, 2 * 8 * 36, id="residual convolution"),
        pytest.param(POOL, 8 * 49 + 8 * 16, id="max-pool"),
        # The input waits for the shortcut while the 3x3 reads and writes the middle.
        pytest.param(PROJECTED, 8 * 49 + 16 * 49 + 16 * 16, id="3x3"),
        pytest.param(replace(IDENTITY, mid_channels=32), 24 * 16 + 2 * 32 * 16, id="identity, 3x3"),
        pytest.param(IDENTITY, 24 * 16 + 16 * 16 + 24 * 16, id="identity, last 1x1"),
        # The branch's output waits while the input is pooled, then while that is projected.
        pytest.param(bottleneck(32, 8, 16, 2, 8), (16 + 32) * 16 + 32 * 64, id="pooling"),
        pytest.param(bottleneck(16, 8, 64, 1, 4), 16 * (64 + 16 + 64), id="projection"),
        pytest.param(bottleneck(8, 32, 8, 2, 8), (8 + 32) * 64 + 32 * 16, id="wide middle"),
    ],
)
def test_peak_activation_bytes_by_hand(block: Block, values: int) -> None:
    assert block.activation_bytes == 4 * values


@pytest.mark.parametrize(
    ("block", "values"),
    [
        pytest.param(POOL, 8 * 49 + 8 * 16, id="max-pool"),
        pytest.param(RESIDUAL, 2 * 8 * 36 + 592, id="residual convolution"),
        # In, out, weights; both middles twice, the pooled input and the projection twice.
        pytest.param(
            PROJECTED,
            8 * 49 + 24 * 16 + 3168 + 2 * 16 * (49 + 16) + 2 * 8 * 16 + 2 * 24 * 16,
            id="projected",
        ),
        pytest.param(IDENTITY, 2 * 24 * 16 + 7296 - 16 + 4 * 16 * 16, id="identity"),
    ],
)
def test_bytes_moved_by_hand(block: Block, values: int) -> None:
    assert block.bytes_moved == 4 * values


FIELDS: list[tuple[str, Any]] = [
    ("kind", "mbconv"),
    ("in_channels", 16),
    ("mid_channels", 24),
    ("out_channels", 8),
    ("kernel", 5),
    ("stride", 1),
    ("size", 8),
    ("activation", "none"),
    ("residual", True),
]


def test_every_field_shows_in_the_key() -> None:
    for block in (PROJECTED, POOL, RESIDUAL):
        variants = {replace(block, **{name: value}) for name, value in FIELDS}
        assert len({variant.key for variant in (block, *variants)}) == len({block, *variants})
    fields = [name for name, value in FIELDS if getattr(PROJECTED, name) != value]
    assert len(fields) == len(FIELDS)  # each of them changes the bottleneck
