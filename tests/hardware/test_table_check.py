"""What a check finds in a table, and what it lets be."""

from collections.abc import Callable

import pytest

from ofa_deploy.errors import MismatchError
from ofa_deploy.hardware import LatencyTable, check_table, table_space
from ofa_deploy.space import SearchSpace, get_space

Make = Callable[..., LatencyTable]


@pytest.fixture
def space() -> SearchSpace:
    return get_space("mbv3-nano-32").with_classes(7)


@pytest.fixture
def table(make_table: Make, space: SearchSpace) -> LatencyTable:
    return make_table(space)


def without(table: LatencyTable, *keys: str) -> LatencyTable:
    return table.model_copy(
        update={"blocks": {k: e for k, e in table.blocks.items() if k not in keys}}
    )


def with_entry(table: LatencyTable, key: str, **changes: object) -> LatencyTable:
    entry = table.blocks[key].model_copy(update=changes)
    return table.model_copy(update={"blocks": {**table.blocks, key: entry}})


def test_sound_table_has_no_findings(table: LatencyTable, space: SearchSpace) -> None:
    assert check_table(table, space) == []


def test_sound_table_of_many_sizes_has_no_findings(make_table: Make) -> None:
    space = get_space("ofa-mbv3-w1.2")
    assert check_table(make_table(space), space) == []


def test_missing_blocks_are_errors(table: LatencyTable, space: SearchSpace) -> None:
    gone = [block.key for block in space.blocks()][3:5]
    findings = check_table(without(table, *gone), space)
    assert [(f.kind, f.block, f.error) for f in findings] == [
        ("missing", key, True) for key in gone
    ]


def test_other_macs_are_an_error(table: LatencyTable, space: SearchSpace) -> None:
    block = space.blocks()[2]
    (found,) = check_table(with_entry(table, block.key, macs=block.macs + 1), space)
    assert (found.kind, found.block, found.error) == ("inconsistent", block.key, True)
    assert f"{block.macs:,}" in found.what and f"{block.macs + 1:,}" in found.what


def test_macs_are_of_a_whole_batch(table: LatencyTable, space: SearchSpace) -> None:
    batched = table.conditions.model_copy(update={"batch": 2})
    kinds = {f.kind for f in check_table(table.model_copy(update={"conditions": batched}), space)}
    assert kinds == {"inconsistent"}


def test_entries_of_no_block_are_a_warning(table: LatencyTable, space: SearchSpace) -> None:
    key = space.blocks()[0].key
    more = table.model_copy(
        update={"blocks": {**table.blocks, "a": table.blocks[key], "b": table.blocks[key]}}
    )
    (found,) = check_table(more, space)
    assert (found.kind, found.error) == ("unused", False)
    assert found.what.startswith("2 blocks")


def test_noisy_block_is_a_warning(table: LatencyTable, space: SearchSpace) -> None:
    key = space.blocks()[4].key
    (found,) = check_table(with_entry(table, key, spread=0.4), space)
    assert (found.kind, found.block, found.error) == ("noisy", key, False)
    assert "40%" in found.what


def test_table_without_networks_is_unjudged(table: LatencyTable, space: SearchSpace) -> None:
    alone = table.model_copy(update={"networks": ()})
    assert [f.what for f in check_table(alone, space)] == [
        "error unknown: no whole network was measured"
    ]


@pytest.mark.parametrize(
    ("larger", "smaller", "respect"),
    [
        ("mbconv_16x16_16-64-24_k5_s2_relu", "mbconv_16x16_16-64-24_k3_s2_relu", "kernel"),
        ("mbconv_4x4_48-192-48_k3_hswish_se48_res", "mbconv_4x4_48-144-48_k3_hswish_se40_res",
         "mid channels"),
    ],
)  # fmt: skip
def test_larger_block_that_takes_less_is_a_warning(
    table: LatencyTable, space: SearchSpace, larger: str, smaller: str, respect: str
) -> None:
    least = table.blocks[smaller].ms
    found = check_table(with_entry(table, larger, ms=0.9 * least), space)
    assert ("not monotone", larger) in [(f.kind, f.block) for f in found]
    (told,) = [f for f in found if f.block == larger and f.kind == "not monotone"]
    assert "10% less" in told.what and smaller in told.what and respect in told.what
    assert not told.error
    within = check_table(with_entry(table, larger, ms=0.98 * least), space)
    assert ("not monotone", larger) not in [(f.kind, f.block) for f in within]


@pytest.mark.parametrize("factor", [10.0, 0.1, 3.0])
def test_wild_entry_is_an_outlier(make_table: Make, factor: float) -> None:
    space = get_space("ofa-mbv3-w1.2").with_resolutions(160, 224)
    table = make_table(space)
    key = "mbconv_20x20_48-192-48_k5_relu_se48_res"
    wild = with_entry(table, key, ms=factor * table.blocks[key].ms)
    found = [f for f in check_table(wild, space) if f.kind == "outlier"]
    assert [f.block for f in found] == [key]
    assert found[0].ms == wild.blocks[key].ms
    assert not found[0].error


def test_a_third_of_wild_entries_does_not_bend_the_rule(make_table: Make) -> None:
    space = get_space("ofa-mbv3-w1.2").with_resolutions(160, 224)
    table = make_table(space)
    wild = {key: 20 * e.ms for key, e in list(table.blocks.items())[10:150:4]}
    found = check_table(make_table(space, wild), space)
    outliers = {f.block for f in found if f.kind == "outlier"}
    assert outliers == {key for key in wild if key.startswith("mbconv")}


def test_errors_come_first(table: LatencyTable, space: SearchSpace) -> None:
    keys = [block.key for block in space.blocks()]
    bad = with_entry(without(table, keys[9]), keys[1], spread=0.9)
    errors = [f.error for f in check_table(bad, space)]
    assert errors == sorted(errors, reverse=True)
    assert len(errors) == 2


def test_table_of_another_space_is_refused(table: LatencyTable, space: SearchSpace) -> None:
    with pytest.raises(MismatchError, match="made for space"):
        check_table(table, space.with_classes(8))


# -- the space of a table -------------------------------------------------------------------


def test_space_is_found_with_classes_and_resolutions(make_table: Make) -> None:
    space = get_space("ofa-mbv3-w1.2").with_classes(12).with_resolutions(160, 192, 200)
    assert table_space(make_table(space)) == space


def test_space_is_found_when_blocks_are_missing(make_table: Make) -> None:
    space = get_space("ofa-mbv3-w1.2").with_resolutions(160, 164)
    table = make_table(space)
    assert table_space(without(table, space.blocks()[0].key, space.blocks()[7].key)) == space


def test_space_that_is_not_the_catalogues_is_asked_for(
    make_table: Make, tiny_space: SearchSpace
) -> None:
    table = make_table(tiny_space.with_resolutions(12))
    with pytest.raises(MismatchError, match="tiny is not in the catalogue; name it with --space"):
        table_space(table)
    assert table_space(table, tiny_space) == tiny_space.with_resolutions(12)
    with pytest.raises(MismatchError, match="lacks a whole resolution"):
        table_space(table, tiny_space.with_classes(9))
