"""A few blocks measured again: do they tell a slower device from other kernels?"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ofa_deploy.errors import MismatchError
from ofa_deploy.hardware import (
    LatencyTable,
    NetworkEntry,
    load_device,
    processor_name,
)
from ofa_deploy.profiling import (
    REFERENCE,
    Protocol,
    SentinelCheck,
    Subject,
    Taken,
    changed_conditions,
    check_sentinels,
    choose_sentinels,
    conditions_here,
)
from ofa_deploy.space import Block, SearchSpace, get_space
from tests.tables import measurement, table_of

sentinels_module: Any = importlib.import_module("ofa_deploy.profiling.sentinels")
measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")

EMPTY_MS = 0.002
REFERENCE_MS = 0.5


def made_up_ms(block: Block) -> float:
    return block.macs / 2e6 + block.bytes_moved / 8e6 + 1e-3


@pytest.fixture
def space() -> SearchSpace:
    return get_space("mbv3-nano-32")


@pytest.fixture
def table(space: SearchSpace) -> LatencyTable:
    return table_of(
        space,
        made_up_ms,
        conditions=conditions_here(
            load_device("local"), runtime="onnxruntime", precision="fp32", batch=1, threads=1
        ),
        empty_ms=EMPTY_MS,
        reference=measurement(REFERENCE_MS),
        networks=(
            NetworkEntry(arch=space.largest.to_dict(), role="holdout", latency=measurement(1.0)),
        ),
    )


@dataclass
class Device:
    """A machine that takes ``speed`` times as long as the table says, and for some blocks more."""

    table: LatencyTable
    speed: float = 1.0
    factors: dict[str, float] = field(default_factory=dict)
    spread: float = 0.01
    load: list[float] = field(default_factory=lambda: [0.0])
    asked: dict[str, Any] = field(default_factory=dict)
    later: list[dict[str, float]] = field(default_factory=list)  # factors of measurements to come
    measured: int = 0

    def measure(self, subjects: Mapping[str, Subject], reference: Subject, **options: Any) -> Taken:
        self.asked = {**options, "subjects": dict(subjects)}
        taken = {
            key: (self.table.blocks[key].ms + EMPTY_MS) * self.speed * self.factors.get(key, 1.0)
            for key in subjects
        }
        taken[REFERENCE] = self.speed * REFERENCE_MS
        made = Taken({key: measurement(ms, spread=self.spread) for key, ms in taken.items()})
        made.other_load = self.load[0]
        self.measured += 1
        if self.later:
            self.factors = self.later.pop(0)
        return made


@pytest.fixture
def device(table: LatencyTable, load: list[float], monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device(table, load=load)
    monkeypatch.setattr(sentinels_module, "measure", made.measure)
    return made


@pytest.fixture
def load() -> list[float]:
    """Share of the machine that other programs use; a quiet one unless a test says otherwise."""
    return [0.0]


# -- which blocks ---------------------------------------------------------------------------


def test_sentinels_show_every_trait(table: LatencyTable, space: SearchSpace) -> None:
    chosen = choose_sentinels(table, space)
    assert len(chosen) == len(set(chosen)) == 10
    every: tuple[Callable[[Block], object], ...] = (
        lambda b: b.kind,
        lambda b: (b.kind, b.kernel),
        lambda b: b.se > 0,
        lambda b: b.activation,
        lambda b: b.expands,
    )
    for trait in every:
        assert {trait(block) for block in chosen} == {trait(block) for block in space.blocks()}
    slowest = max(space.blocks(), key=lambda block: table.blocks[block.key].ms)
    assert slowest in chosen


def test_sentinels_are_the_same_each_time(table: LatencyTable, space: SearchSpace) -> None:
    turned = table.model_copy(update={"blocks": dict(reversed(table.blocks.items()))})
    assert choose_sentinels(table, space) == choose_sentinels(turned, space)


def test_blocks_lost_in_noise_are_no_sentinels(table: LatencyTable, space: SearchSpace) -> None:
    noisy = [b.key for b in choose_sentinels(table, space)][:3]
    blocks = {
        key: e.model_copy(update={"spread": 0.5}) if key in noisy else e
        for key, e in table.blocks.items()
    }
    chosen = choose_sentinels(table.model_copy(update={"blocks": blocks}), space)
    assert len(chosen) == 10
    assert not {block.key for block in chosen} & set(noisy)


def test_small_table_is_measured_whole(table: LatencyTable, space: SearchSpace) -> None:
    few = dict(list(table.blocks.items())[:4])
    chosen = choose_sentinels(table.model_copy(update={"blocks": few}), space)
    assert {block.key for block in chosen} == set(few)


# -- what they say --------------------------------------------------------------------------


def test_unchanged_device_holds(device: Device, table: LatencyTable, space: SearchSpace) -> None:
    found = check_sentinels(table, space)
    assert found.verdict == "holds"
    assert found.scale == pytest.approx(1)
    assert len(found.sentinels) == 10
    assert set(device.asked["subjects"]) == {each.block for each in found.sentinels}


@pytest.mark.parametrize("speed", [0.7, 1.25, 3.0])
def test_device_at_another_speed_is_repaired_by_one_factor(
    device: Device, table: LatencyTable, space: SearchSpace, speed: float
) -> None:
    device.speed = speed
    found = check_sentinels(table, space)
    assert found.verdict == "rescaled"
    assert found.scale == pytest.approx(speed)
    assert f"{speed:.3g} times" in str(found)
    device.speed = 1.0
    repaired = table.scaled(found.scale)
    assert repaired.reference is not None
    device.table, device.speed = table, speed
    assert check_sentinels(repaired, space).verdict == "holds"


@pytest.mark.parametrize("speed", [0.96, 1.04])
def test_small_change_is_noise(
    device: Device, table: LatencyTable, space: SearchSpace, speed: float
) -> None:
    device.speed = speed
    assert check_sentinels(table, space).verdict == "holds"


def test_change_on_a_noisy_device_is_unsure(
    device: Device, table: LatencyTable, space: SearchSpace
) -> None:
    device.speed, device.spread = 1.2, 0.3
    found = check_sentinels(table, space)
    assert found.verdict == "unsure"
    assert "too noisy to tell" in str(found)


@pytest.mark.parametrize("speed", [1.0, 1.5])
def test_blocks_that_moved_apart_ask_for_a_new_profile(
    device: Device, table: LatencyTable, space: SearchSpace, speed: float
) -> None:
    keys = [block.key for block in choose_sentinels(table, space)]
    device.speed = speed
    device.factors = {keys[1]: 1.1, keys[4]: 0.85}
    found = check_sentinels(table, space)
    assert found.verdict == "apart"
    assert {each.block for each in found.sentinels if each.beyond_noise} == {keys[1], keys[4]}
    assert found.scale == pytest.approx(speed)
    told = f"2 of 10 blocks moved otherwise than the rest, {keys[4]} farthest ("
    assert f"{told}{0.85 * speed - 1:+.1%}, the rest {speed - 1:+.1%})" in str(found)
    assert device.measured == 2


@pytest.mark.parametrize(("also", "verdict"), [((), "holds"), ((1,), "holds"), ((1, 4), "apart")])
def test_chance_does_not_strike_twice(
    device: Device,
    table: LatencyTable,
    space: SearchSpace,
    also: tuple[int, ...],
    verdict: str,
) -> None:
    """What one measurement alone says of a block is not said of the table."""
    keys = [block.key for block in choose_sentinels(table, space)]
    device.factors = {keys[1]: 1.07, keys[4]: 0.85}
    device.later = [{keys[7]: 1.3} | {keys[at]: device.factors[keys[at]] for at in also}]
    found = check_sentinels(table, space)
    assert (device.measured, found.verdict) == (2, verdict)
    assert {each.block for each in found.sentinels if each.beyond_noise} == {
        keys[at] for at in also
    }


def test_blocks_that_moved_apart_on_a_busy_device_are_unsure(
    device: Device, table: LatencyTable, space: SearchSpace, load: list[float]
) -> None:
    keys = [block.key for block in choose_sentinels(table, space)]
    device.factors = {keys[1]: 1.2, keys[4]: 0.8}
    load[0] = 0.6
    found = check_sentinels(table, space)
    assert found.verdict == "unsure"
    assert "2 of 10 blocks moved" in str(found) and "other programs used 60%" in str(found)


@pytest.mark.parametrize("speed", [0.7, 1.271])
def test_another_speed_beside_other_programs_is_unsure(
    device: Device, table: LatencyTable, space: SearchSpace, load: list[float], speed: float
) -> None:
    """Their load would be written into the table as the device's own speed."""
    device.speed, load[0] = speed, 0.81
    found = check_sentinels(table, space)
    assert found.verdict == "unsure"
    assert f"runs at {speed:.3g} times the table's latencies, but other programs" in str(found)
    assert "try again when the device is quiet; other programs used 81%" in str(found)
    load[0] = 0.2
    assert check_sentinels(table, space).verdict == "rescaled"


def test_a_busy_device_may_hold(
    device: Device, table: LatencyTable, space: SearchSpace, load: list[float]
) -> None:
    load[0] = 0.81
    assert check_sentinels(table, space).verdict == "holds"


@pytest.mark.parametrize(("factor", "verdict"), [(1.06, "holds"), (1.3, "apart")])
def test_one_block_alone_must_move_far(
    device: Device, table: LatencyTable, space: SearchSpace, factor: float, verdict: str
) -> None:
    device.factors = {choose_sentinels(table, space)[0].key: factor}
    found = check_sentinels(table, space)
    assert sum(each.beyond_noise for each in found.sentinels) == 1
    assert found.verdict == verdict


def test_other_load_is_told(table: LatencyTable) -> None:
    quiet = SentinelCheck((), 1.0, 0.06, 0.02)
    assert "other programs" not in str(quiet)
    assert "other programs used 60%" in str(replace(quiet, other_load=0.6))


def test_conditions_of_the_table_are_measured_under(
    device: Device, table: LatencyTable, space: SearchSpace
) -> None:
    other = table.conditions.model_copy(update={"batch": 3, "threads": 2})
    changed = table.model_copy(update={"conditions": other})
    check_sentinels(changed, space)
    assert device.asked["threads"] == 2
    assert (device.asked["runtime"], device.asked["precision"]) == ("onnxruntime", "fp32")
    for subject in device.asked["subjects"].values():
        assert subject.shape[0] == 3


@pytest.mark.parametrize("slower", [1, 100, 10_000])
def test_slow_device_is_timed_less_often(
    device: Device, table: LatencyTable, space: SearchSpace, slower: float
) -> None:
    check_sentinels(table.scaled(slower), space)
    protocol = device.asked["protocol"]
    runs = protocol.rounds * protocol.runs * protocol.processes
    assert runs >= 60
    if slower == 1:
        assert protocol.rounds == 30
    else:
        assert protocol.rounds == 4


def test_imported_table_has_nothing_to_compare_with(
    table: LatencyTable, space: SearchSpace
) -> None:
    imported = table.model_copy(update={"reference": None, "source": "csv: x.csv"})
    with pytest.raises(MismatchError, match="imported .csv: x.csv."):
        check_sentinels(imported, space)
    with pytest.raises(MismatchError, match="imported .csv: x.csv.*do this"):
        changed_conditions(imported, "local", mend="do this")


def test_table_of_another_space_is_refused(table: LatencyTable, space: SearchSpace) -> None:
    with pytest.raises(MismatchError, match="made for space"):
        check_sentinels(table, space.with_classes(3))


# -- this machine ---------------------------------------------------------------------------


def conditioned(table: LatencyTable, **changes: object) -> LatencyTable:
    return table.model_copy(update={"conditions": table.conditions.model_copy(update=changes)})


def test_same_machine_has_no_changes(table: LatencyTable) -> None:
    assert changed_conditions(table, "local", mend="") == []


def test_newer_runtime_and_power_mode_are_changes(table: LatencyTable) -> None:
    older = conditioned(table, runtime_version="0.9", power_mode="15W")
    changes = changed_conditions(older, "local", mend="")
    now = table.conditions.runtime_version
    assert changes == [f"runtime_version (0.9, {now})", "power_mode (15W, )"]


@pytest.mark.parametrize(("name", "value"), [("processor", "Slow Inc. Y2"), ("device", "jetson")])
def test_another_machine_is_refused(table: LatencyTable, name: str, value: str) -> None:
    with pytest.raises(MismatchError, match="does not speak of this machine") as error:
        changed_conditions(conditioned(table, **{name: value}), "local", mend="profile it")
    assert f"{name} ({value}, " in str(error.value)
    assert "profile it" in str(error.value)


def test_real_blocks_are_measured_again(
    tiny_space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However busy this machine is: that it measures, and what, but not how long it takes."""
    monkeypatch.setattr(measure_module, "_TOO_NOISY", float("inf"))
    table = table_of(
        tiny_space,
        made_up_ms,
        conditions=conditions_here(
            load_device("local"), runtime="onnxruntime", precision="fp32", batch=2, threads=1
        ),
        reference=measurement(REFERENCE_MS),
    )
    quick = Protocol(rounds=2, runs=2, processes=1, tolerance=10)
    found = check_sentinels(table, tiny_space, count=4, protocol=quick)
    assert table.conditions.processor == processor_name()
    assert [each.block for each in found.sentinels] == [
        block.key for block in choose_sentinels(table, tiny_space, 4)
    ]
    assert all(0 < each.now_ms < 1e3 for each in found.sentinels)
