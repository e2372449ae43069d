"""What moved between two tables: the common factor, and blocks of their own."""

from collections.abc import Callable

import numpy as np
import pytest

from ofa_deploy.errors import MismatchError
from ofa_deploy.hardware import LatencyTable, diff_tables
from ofa_deploy.hardware.table_diff import weighted_median
from ofa_deploy.space import SearchSpace, get_space

Make = Callable[..., LatencyTable]


@pytest.fixture
def space() -> SearchSpace:
    return get_space("mbv3-nano-32")


@pytest.fixture
def table(make_table: Make, space: SearchSpace) -> LatencyTable:
    return make_table(space)


def moved(table: LatencyTable, factors: dict[str, float]) -> LatencyTable:
    blocks = {
        key: entry.model_copy(update={"ms": entry.ms * factors.get(key, 1.0)})
        for key, entry in table.blocks.items()
    }
    return table.model_copy(update={"blocks": blocks})


def test_equal_tables_differ_in_nothing(table: LatencyTable) -> None:
    found = diff_tables(table, table)
    assert found.ratio == 1
    assert not found.level_moved
    assert (found.conditions, found.moved, found.only_before, found.only_after) == ((), (), (), ())
    assert len(found.blocks) == len(table.blocks)
    assert len(found.networks) == 2


@pytest.mark.parametrize(
    ("factor", "beyond"), [(1.03, False), (0.97, False), (1.2, True), (0.5, True)]
)
def test_one_factor_is_told_from_noise(table: LatencyTable, factor: float, beyond: bool) -> None:
    found = diff_tables(table, table.scaled(factor))
    assert found.ratio == pytest.approx(factor)
    assert found.level_moved is beyond
    assert found.moved == ()
    assert not [each for each in found.networks if each.beyond_noise]


def test_blocks_that_moved_are_ranked_by_ms(table: LatencyTable) -> None:
    small, *_, large = sorted(table.blocks, key=lambda key: table.blocks[key].ms)
    slower = moved(table.scaled(1.3), {small: 2.0, large: 1.2})
    found = diff_tables(table, slower)
    assert found.ratio == pytest.approx(1.3)
    expected = {
        small: 1.3 * table.blocks[small].ms,
        large: 0.2 * 1.3 * table.blocks[large].ms,
    }
    assert {each.name: each.moved for each in found.moved} == pytest.approx(expected)
    gains = [abs(each.moved) for each in found.moved]
    assert gains == sorted(gains, reverse=True)


def test_spread_decides_what_is_noise(table: LatencyTable) -> None:
    key = max(table.blocks, key=lambda each: table.blocks[each].ms)
    after = moved(table, {key: 1.1})
    assert [each.name for each in diff_tables(table, after).moved] == [key]
    entry = after.blocks[key].model_copy(update={"spread": 0.2})
    noisy = after.model_copy(update={"blocks": {**after.blocks, key: entry}})
    assert diff_tables(table, noisy).moved == ()
    assert diff_tables(noisy, table).moved == ()


def test_chance_alone_moves_hardly_any_block(make_table: Make) -> None:
    """Two honest measurements of 868 blocks, their spreads the range of four processes."""
    space = get_space("ofa-mbv3-w1.2")
    table = make_table(space)
    rng = np.random.default_rng(7)

    def drawn() -> LatencyTable:
        blocks = {}
        for key, entry in table.blocks.items():
            processes = entry.ms * (1 + 0.03 * rng.standard_normal(4))
            ms = float(np.median(processes))
            spread = float(np.ptp(processes)) / ms
            blocks[key] = entry.model_copy(update={"ms": ms, "spread": spread})
        return table.model_copy(update={"blocks": blocks})

    found = diff_tables(drawn(), drawn())
    assert found.ratio == pytest.approx(1, abs=0.01)
    assert len(found.moved) < 0.02 * len(found.blocks)


def test_conditions_that_differ_are_named(table: LatencyTable) -> None:
    newer = table.conditions.model_copy(update={"runtime_version": "1.3", "threads": 2})
    found = diff_tables(table, table.model_copy(update={"conditions": newer}))
    assert found.conditions == ("runtime_version (1.2, 1.3)", "threads (1, 2)")


def test_common_blocks_of_two_spaces_are_compared(
    table: LatencyTable, make_table: Make, space: SearchSpace
) -> None:
    other = make_table(space.with_classes(3))
    found = diff_tables(table, other)
    (before,) = found.only_before
    (after,) = found.only_after
    assert before.startswith("classifier") and after.startswith("classifier")
    assert len(found.blocks) == len(table.blocks) - 1


def test_tables_without_a_common_block_are_refused(
    table: LatencyTable, make_table: Make, tiny_space: SearchSpace
) -> None:
    with pytest.raises(MismatchError, match="no block in common: mbv3-nano-32"):
        diff_tables(table, make_table(tiny_space))


@pytest.mark.parametrize(
    ("values", "weights", "expected"),
    [
        ([3, 1, 2], [1, 1, 1], 2),
        ([3, 1, 2], [5, 1, 1], 3),
        ([1, 100], [3, 1], 1),
        ([7], [0.1], 7),
    ],
)
def test_weighted_median(values: list[float], weights: list[float], expected: float) -> None:
    assert weighted_median(values, weights) == expected
