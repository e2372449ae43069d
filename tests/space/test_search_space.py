"""``SearchSpace``: one network is one arch and one row, and nothing leaves the space."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ofa_deploy.errors import FileFormatError, InputError, MismatchError, UnknownNameError
from ofa_deploy.space import (
    Arch,
    Head,
    Population,
    SearchSpace,
    Stage,
    Stem,
    get_space,
    make_divisible,
    space_names,
)

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


# -- populations ----------------------------------------------------------------------------


@given(space=spaces, seed=seeds, rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_mutants_stay_in_the_space(space: SearchSpace, seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    population = space.sample(rng, 16)
    before = population.copy()
    mutants = space.mutate(population, rng, rate)
    check_in_space(space, mutants)
    np.testing.assert_array_equal(population, before)
    if rate == 0:
        np.testing.assert_array_equal(mutants, population)


def test_mutation_rate_is_the_share_of_redrawn_genes(
    tiny_space: SearchSpace, rng: np.random.Generator
) -> None:
    population = np.repeat(tiny_space.encode([tiny_space.largest]), 20_000, axis=0)
    resolution = tiny_space.mutate(population, rng, 0.3)[:, tiny_space.columns["resolution"]]
    # Half of the redrawn get the other of two choices: 0.15, with a deviation of 0.0025.
    assert abs((resolution == 0).mean() - 0.15) < 0.0125


@given(space=spaces, seed=seeds)
def test_children_take_each_gene_from_a_parent(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mothers, fathers = space.sample(rng, 16), space.sample(rng, 16)
    children = space.crossover(mothers, fathers, rng)
    check_in_space(space, children)
    active = children >= 0
    assert (((children == mothers) | (children == fathers)) | ~active).all()
    np.testing.assert_array_equal(space.crossover(mothers, mothers, rng), mothers)


def test_children_mix_both_parents(tiny_space: SearchSpace, rng: np.random.Generator) -> None:
    low = np.repeat(tiny_space.encode([tiny_space.smallest]), 4000, axis=0)
    high = np.repeat(tiny_space.encode([tiny_space.largest]), 4000, axis=0)
    children = tiny_space.crossover(low, high, rng)
    for name in ("resolution", "depth[1]", "depth[2]", "kernel[1.0]", "expand[2.0]"):
        column = tiny_space.columns[name]
        assert abs((children[:, column] == high[0, column]).mean() - 0.5) < 0.04


def test_samples_are_uniform_over_the_choices(
    tiny_space: SearchSpace, rng: np.random.Generator
) -> None:
    population = tiny_space.sample(rng, 30_000)
    check_in_space(tiny_space, population[:500])
    for gene, column in zip(tiny_space.genes, population.T, strict=True):
        shares = np.bincount(column[column >= 0]) / (column >= 0).sum()
        np.testing.assert_allclose(shares, 1 / len(gene.choices), atol=0.02, err_msg=gene.name)


def test_generator_decides_everything(tiny_space: SearchSpace) -> None:
    def draw(seed: int) -> Population:
        rng = np.random.default_rng(seed)
        population = tiny_space.sample(rng, 30)
        return tiny_space.crossover(population, tiny_space.mutate(population, rng, 0.5), rng)

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


def test_mask_hides_exactly_the_inactive(tiny_space: SearchSpace) -> None:
    row = tiny_space.encode([tiny_space.largest])
    row[0, tiny_space.columns["depth[2]"]] = 0
    masked = tiny_space.mask_inactive(row)
    hidden = {tiny_space.genes[c].name for c in np.flatnonzero(masked[0] < 0)}
    assert hidden == {"kernel[2.1]", "kernel[2.2]", "expand[2.1]", "expand[2.2]"}
    np.testing.assert_array_equal(masked < 0, ~tiny_space.is_active(row))


# -- lowering -------------------------------------------------------------------------------


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


# -- identity -------------------------------------------------------------------------------


@given(space=spaces)
def test_json_round_trip(space: SearchSpace) -> None:
    again = SearchSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space
    assert again.fingerprint == space.fingerprint
    assert again.lower(again.largest) == space.lower(space.largest)


def test_fingerprint_is_of_the_networks_not_the_name(tiny_space: SearchSpace) -> None:
    assert replace(tiny_space, name="renamed").fingerprint == tiny_space.fingerprint
    changed = [
        tiny_space.with_classes(5),
        replace(tiny_space, resolutions=(16,)),
        replace(tiny_space, bn_eps=1e-3),
        replace(tiny_space, stages=tiny_space.stages[:2]),
        replace(tiny_space, head=replace(tiny_space.head, features=8)),
    ]
    assert len({tiny_space.fingerprint, *(space.fingerprint for space in changed)}) == 6


def test_equal_spaces_have_equal_fingerprints(tiny_space: SearchSpace) -> None:
    stages = tuple(
        replace(stage, expands=tuple(map(float, stage.expands))) for stage in tiny_space.stages
    )
    same = replace(tiny_space, stages=stages)
    assert same == tiny_space
    assert same.fingerprint == tiny_space.fingerprint


def test_with_classes_changes_the_last_layer_only(tiny_space: SearchSpace) -> None:
    more = tiny_space.with_classes(9)
    old, new = tiny_space.lower(tiny_space.largest), more.lower(more.largest)
    assert new[:-1] == old[:-1]
    assert new[-1] == replace(old[-1], out_channels=9)


STAGE: dict[str, Any] = {
    "channels": 8,
    "stride": 1,
    "depths": (1, 2),
    "kernels": (3,),
    "expands": (1,),
}
PARTS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "stem": (Stem, {"channels": 8}),
    "stage": (Stage, STAGE),
    "head": (Head, {"channels": 8, "features": 8}),
}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"classes": 1}, "at least 2 classes"),
        ({"resolutions": ()}, "ascending"),
        ({"resolutions": (32, 16)}, r"ascending, found \(32, 16\)"),
        ({"resolutions": (16, 16)}, "ascending"),
        ({"stages": ({**STAGE, "depths": (1, 1)},)}, "ascending"),
        ({"stages": ({**STAGE, "kernels": (5, 3)},)}, "ascending"),
        ({"stages": ({**STAGE, "kernels": (2, 4)},)}, "odd"),
        ({"stages": ({**STAGE, "expands": ()},)}, "ascending"),
        ({"stem": {"channels": 8, "kernel": 2}}, "odd"),
    ],
)
def test_space_that_makes_no_sense_is_refused(
    tiny_space: SearchSpace, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(InputError, match=f"^space tiny: .*{match}"):
        replace(tiny_space, **changes)
    with pytest.raises(FileFormatError, match=f"^not a search space: space tiny: .*{match}"):
        SearchSpace.from_dict({**tiny_space.to_dict(), **changes})


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("stem", "channels", 0),
        ("stem", "channels", "8"),
        ("stem", "kernel", 3.5),
        ("stem", "stride", -1),
        ("stem", "activation", "swish"),
        ("stage", "channels", True),
        ("stage", "stride", 0),
        ("stage", "depths", (-1, 1)),
        ("stage", "depths", 2),
        ("stage", "kernels", (3.0,)),
        ("stage", "expands", (0,)),
        ("stage", "expands", ("2",)),
        ("stage", "expands", (float("nan"),)),
        ("stage", "activation", "swish"),
        ("stage", "se", 1),
        ("head", "channels", -8),
        ("head", "features", None),
        ("head", "activation", "Relu"),
        ("head", "colour", 1),
    ],
)
def test_field_of_another_type_or_range_is_named(part: str, field: str, value: Any) -> None:
    make, good = PARTS[part]
    assert make(**good)
    with pytest.raises(ValidationError) as caught:
        make(**{**good, field: value})
    assert [error["loc"][0] for error in caught.value.errors()] == [field]


@pytest.mark.parametrize(
    ("field", "value"),
    [("resolutions", (0, 16)), ("classes", 4.0), ("bn_eps", "1e-5"), ("bn_eps", 0), ("name", 3)],
)
def test_field_of_a_space_is_checked_too(tiny_space: SearchSpace, field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        replace(tiny_space, **{field: value})
    with pytest.raises(FileFormatError, match=f"^not a search space: {field}"):
        SearchSpace.from_dict({**tiny_space.to_dict(), field: value})


def without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key != name}


@pytest.mark.parametrize("name", ["name", "resolutions", "classes", "stem", "stages", "head"])
def test_file_without_a_field_is_refused(tiny_space: SearchSpace, name: str) -> None:
    with pytest.raises(FileFormatError, match=f"not a search space: .*{name}"):
        SearchSpace.from_dict(without(tiny_space.to_dict(), name))


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1},
        {"classes": "5"},
        {"resolutions": 16},
        {"resolutions": ["16"]},
        {"stages": 3},
        {"stages": ["stage"]},
        {"stages": [{"channels": 8}]},
        {"stem": {"channels": 8, "colour": 1}},
        {"stem": None},
        {"head": []},
        {"a\nb": 1},
    ],
)
def test_file_of_the_wrong_types_is_refused(
    tiny_space: SearchSpace, changes: dict[str, Any]
) -> None:
    with pytest.raises(FileFormatError, match=r"not a search space: [\w. ]+: ") as caught:
        SearchSpace.from_dict({**tiny_space.to_dict(), **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, [], "mbv3-nano-32"])
def test_file_that_is_no_dictionary_is_refused(value: Any) -> None:
    with pytest.raises(FileFormatError, match="not a search space: expected names with values"):
        SearchSpace.from_dict(value)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"stem": {"channels": "8"}}, id="channels text"),
        pytest.param({"stem": {"channels": -8}}, id="channels negative"),
        pytest.param({"stem": {"channels": 8, "stride": 0}}, id="stride 0"),
        pytest.param({"stem": {"channels": 8, "kernel": 2}}, id="stem kernel even"),
        pytest.param({"head": {"channels": 8, "features": 8, "activation": "x"}}, id="head act"),
        pytest.param({"head": {"channels": 8.5, "features": 8}}, id="channels broken"),
        pytest.param({"classes": 5.5}, id="classes broken"),
        pytest.param({"resolutions": [16.5]}, id="resolution broken"),
        pytest.param({"bn_eps": "small"}, id="eps text"),
    ],
)
def test_more_files_of_the_wrong_types_are_refused(
    tiny_space: SearchSpace, changes: dict[str, Any]
) -> None:
    with pytest.raises(FileFormatError, match="not a search space: "):
        SearchSpace.from_dict({**tiny_space.to_dict(), **changes})


# -- catalogue ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", space_names())
def test_catalogued_spaces(name: str, rng: np.random.Generator) -> None:
    space = get_space(name)
    assert space.name == name
    check_in_space(space, space.sample(rng, 50))
    small, large = space.cost(space.smallest), space.cost(space.largest)
    assert small.macs < large.macs and small.params < large.params
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_unknown_space_names_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown space 'mbv3-nano'; did you mean .*mbv3-nano-32"
    ):
        get_space("mbv3-nano")
    with pytest.raises(UnknownNameError, match=r"unknown space 'zzzz'; known: .*mbv3-nano-32"):
        get_space("zzzz")
