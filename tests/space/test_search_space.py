"""``SearchSpace``: one network is one arch and one row, and nothing leaves the space."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.space import Arch, Head, SearchSpace, Stage, Stem
from tests.space.drawn import check_in_space, everyone, seeds, spaces, stages

# -- archs and rows -------------------------------------------------------------------------


def test_num_archs_counts_all_of_them(tiny_space: SearchSpace) -> None:
    archs = everyone(tiny_space)
    assert tiny_space.num_archs == len(archs) == 5712
    listed = list(archs)
    population = tiny_space.encode(listed)
    assert len(np.unique(population, axis=0)) == len(listed)
    assert tiny_space.decode(population) == listed


small_stages = stages.filter(lambda s: len(s.kernels) * len(s.expands) * max(s.depths) <= 6)


@given(space=spaces, only=small_stages)
def test_num_archs_of_any_space(space: SearchSpace, only: Stage) -> None:
    space = replace(space, stages=(only,))
    assert space.num_archs == len(everyone(space))


@given(space=spaces, seed=seeds)
def test_encode_and_decode_are_inverse(space: SearchSpace, seed: int) -> None:
    population = space.sample(np.random.default_rng(seed), 8)
    check_in_space(space, population)
    archs = space.decode(population)
    assert space.decode(space.encode(archs)) == archs
    equal_rows = (population[:, None] == population[None]).all(2)
    equal_archs = np.array([[one == other for other in archs] for one in archs])
    np.testing.assert_array_equal(equal_rows, equal_archs)


def test_no_archs_are_no_rows(tiny_space: SearchSpace) -> None:
    assert tiny_space.encode([]).shape == (0, len(tiny_space.genes))
    assert tiny_space.decode(tiny_space.encode([])) == []


def test_decode_gives_plain_numbers(tiny_space: SearchSpace) -> None:
    (arch,) = tiny_space.decode(tiny_space.encode([tiny_space.largest]))
    assert json.loads(json.dumps(arch.to_dict())) == arch.to_dict()


def test_smallest_and_largest(tiny_space: SearchSpace) -> None:
    assert tiny_space.smallest == Arch(12, (1, 1), (3, 3), (2, 1.5))
    assert tiny_space.largest == Arch(16, (2, 3), (7, 7, 5, 5, 5), (3, 3, 3, 3, 3))


# -- arch() ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mobile_space() -> SearchSpace:
    """Five elastic stages of up to four blocks, the shape of the published MobileNetV3 spaces."""
    return SearchSpace(
        name="mobile",
        resolutions=(128, 160, 192, 224),
        classes=1000,
        stem=Stem(channels=16),
        stages=(
            Stage(channels=16, stride=1, depths=(1,), kernels=(3,), expands=(1,)),
            *(
                Stage(
                    channels=channels,
                    stride=stride,
                    depths=(2, 3, 4),
                    kernels=(3, 5, 7),
                    expands=(3, 4, 6),
                )
                for channels, stride in ((24, 2), (40, 2), (80, 2), (112, 1), (160, 2))
            ),
        ),
        head=Head(channels=960, features=1280),
    )


def test_published_full_length_lists(mobile_space: SearchSpace) -> None:
    kernels = [*(3, 3, 5, 7), *(5, 3, 7, 7), *(7, 7, 3, 3), *(3, 5, 3, 5), *(5, 5, 5, 7)]
    expands = [*(3, 4, 6, 6), *(4, 4, 6, 3), *(6, 6, 6, 6), *(3, 3, 4, 6), *(4, 6, 3, 3)]
    arch = mobile_space.arch(
        resolution=160, depths=[2, 4, 3, 2, 4], kernels=kernels, expands=expands
    )
    assert arch.depths == (2, 4, 3, 2, 4)
    assert arch.kernels == (3, 3, *(5, 3, 7, 7), *(7, 7, 3), 3, 5, *(5, 5, 5, 7))
    assert arch.expands == (3, 4, *(4, 4, 6, 3), *(6, 6, 6), 3, 3, *(4, 6, 3, 3))
    short = mobile_space.arch(
        resolution=160, depths=arch.depths, kernels=arch.kernels, expands=arch.expands
    )
    assert short == arch
    inactive = [k if k in (3, 5) else 5 for k in kernels]
    inactive[2] = inactive[3] = 7  # blocks that depth 2 leaves out
    again = mobile_space.arch(depths=[2, 4, 3, 2, 4], kernels=inactive, expands=expands)
    assert again.kernels == tuple(k if k in (3, 5) else 5 for k in arch.kernels)


def test_published_sizes(mobile_space: SearchSpace) -> None:
    assert f"{mobile_space.num_archs / 4:.2e}" == "2.18e+19"  # per resolution, Cai et al. 2020


def test_one_number_for_all(tiny_space: SearchSpace) -> None:
    arch = tiny_space.arch(depths=1, kernels=5, expands=3, resolution=12)
    assert arch == Arch(12, (1, 1), (5, 5), (3, 3))
    assert tiny_space.arch(depths=1, kernels=5, expands=3).resolution == 16


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"depths": [1]}, "expected 2 depths, found 1"),
        ({"depths": [1, 1, 1]}, "expected 2 depths, found 3"),
        ({"kernels": [3]}, r"expected 2 kernels \(active blocks\) or 5 \(full length\), found 1"),
        ({"expands": [3] * 4}, r"expected 2 expands .* found 4"),
        ({"kernels": [3, 7]}, r"kernel\[2\.0\] = 7, expected one of 3, 5"),
        ({"kernels": 4}, r"kernel\[1\.0\] = 4, expected one of 3, 5, 7"),
        ({"expands": [2, 2]}, r"expand\[2\.0\] = 2, expected one of 1\.5, 3"),
        ({"depths": [1, 2], "kernels": 3}, r"depth\[2\] = 2, expected one of 1, 3"),
        ({"resolution": 14}, "resolution = 14, expected one of 12, 16"),
    ],
)
def test_wrong_lengths_and_values_are_named(
    tiny_space: SearchSpace, wrong: dict[str, Any], match: str
) -> None:
    good: dict[str, Any] = {"depths": [1, 1], "kernels": 3, "expands": 3, "resolution": 12}
    assert tiny_space.arch(**good)
    with pytest.raises(InputError, match=f"space tiny.*{match}"):
        tiny_space.arch(**{**good, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"depths": [1, 9]}, id="too deep, counted"),
        pytest.param({"depths": [1, 9], "kernels": [3] * 5}, id="too deep, full length"),
        pytest.param({"depths": [-1, 1]}, id="negative"),
        pytest.param({"depths": [1.5, 1]}, id="broken depth"),
        pytest.param({"kernels": 3.7}, id="broken kernel"),
    ],
)
def test_odd_depths_and_kernels_are_named(tiny_space: SearchSpace, wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {"depths": [1, 1], "kernels": 3, "expands": 3, "resolution": 12}
    with pytest.raises(InputError, match=r"(depth|kernel)\[\d(\.\d)?\] = "):
        tiny_space.arch(**{**good, **wrong})


@pytest.mark.parametrize(
    "changes",
    [
        {"resolution": 224},
        {"depths": (2,)},
        {"depths": (2, 3, 1)},
        {"depths": (2, 2)},
        {"depths": (0, 3)},
        {"depths": (2, 100)},
        {"kernels": (7, 7, 5, 5, 7)},
        {"kernels": (7, 7, 5, 5)},
        {"expands": (3, 3, 3, 3, 2)},
        {"expands": (3,) * 6},
        {"expands": (3, 3, 3, 3, float("nan"))},
        {"widths": (0,)},
    ],
)
def test_arch_of_another_space_is_a_mismatch(
    tiny_space: SearchSpace, changes: dict[str, Any]
) -> None:
    stranger = replace(tiny_space.largest, **changes)
    for use in (
        lambda: tiny_space.encode([tiny_space.largest, stranger]),
        lambda: tiny_space.lower(stranger),
    ):
        with pytest.raises(MismatchError, match="not in space tiny") as caught:
            use()
        assert "\n" not in str(caught.value)
