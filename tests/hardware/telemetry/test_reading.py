"""``Telemetry`` as a value: what is hottest, what is drawn, how readings join, what is refused."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ofa_deploy.hardware import Telemetry
from ofa_deploy.hardware.telemetry.reading import MAX_ENTRIES, kept, tidy

NUMBERS = ("temperatures_c", "clocks_mhz", "power_mw", "load_percent", "memory_mib")
WHOLE = Telemetry(
    temperatures_c={"cpu": 51.5},
    clocks_mhz={"gpu": 1020.0},
    throttled=("under-voltage",),
    power_mw={"VDD_IN": 5000.0},
    load_percent={"gpu": 99.0},
    memory_mib={"used": 10.0},
    state={"power_mode": "15W"},
)


def test_hottest_is_of_the_processor() -> None:
    others = {"PMIC": 100, "iwlwifi_1": 90, "Tboard": 80, "acpitz": 70, "nvme": 60, "Tdiode": 55}
    assert Telemetry(temperatures_c={**others, "cpu-thermal": 40, "gpu": 41}).temperature_c == 41
    assert Telemetry(temperatures_c=others).temperature_c is None


@pytest.mark.parametrize(
    ("rails", "total"),
    [
        ({}, None),
        ({"VDD_IN": 5000, "VDD_SOC": 1000}, 5000),
        ({"POM_5V_IN": 4000, "POM_5V_CPU": 1000}, 4000),
        (
            {"VDD_GPU_SOC": 2340, "VDD_CPU_CV": 390, "VIN_SYS_5V0": 4025, "VDDQ_VDD2_1V8AO": 301},
            6755,
        ),
        ({"VDD_GPU": 100, "VIN": 23000}, 23000),
        ({"gpu": 71250}, 71250),
    ],
)
def test_total_power(rails: dict[str, float], total: float | None) -> None:
    assert Telemetry(power_mw=rails).total_power_mw == total


@pytest.mark.parametrize(
    ("state", "mode"),
    [
        ({}, ""),
        ({"governor": "performance", "clocks": "fixed"}, ""),
        ({"power_mode": "15W", "jetson_clocks": "off"}, "15W"),
        ({"power_mode": "MAXN", "jetson_clocks": "on"}, "MAXN-jetson_clocks"),
    ],
)
def test_mode_is_part_of_the_identity(state: dict[str, str], mode: str) -> None:
    assert Telemetry(state=state).power_mode == mode


def test_nothing_read_is_false() -> None:
    assert not Telemetry()
    assert Telemetry(throttled=("x",)) and Telemetry(state={"a": "b"})


def test_readings_join() -> None:
    other = Telemetry(
        temperatures_c={"cpu": 52, "gpu": 50},
        throttled=("under-voltage", "capped"),
        state={"a": "b"},
    )
    joined = Telemetry.merged([WHOLE, other])
    assert joined.temperatures_c == {"cpu": 52, "gpu": 50}
    assert joined.throttled == ("under-voltage", "capped")
    assert joined.state == {"power_mode": "15W", "a": "b"}
    assert joined.power_mw == WHOLE.power_mw
    assert Telemetry.merged([]) == Telemetry()


def test_joined_readings_stay_bounded() -> None:
    many = [
        Telemetry(
            temperatures_c={f"{part}.{i}": 1.0 for i in range(MAX_ENTRIES)},
            throttled=tuple(f"{part}.{i}" for i in range(10)),
            state={f"{part}.{i}": "x" for i in range(MAX_ENTRIES)},
        )
        for part in ("a", "b")
    ]
    joined = Telemetry.merged(many)
    assert Telemetry.from_dict(joined.to_dict()) == joined


def test_through_json() -> None:
    assert Telemetry.from_dict(json.loads(json.dumps(WHOLE.to_dict()))) == WHOLE
    assert Telemetry().to_dict() == {}
    assert Telemetry.from_dict({}) == Telemetry()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "x",
        {"heat": {}},
        {3: {}},
        {"temperatures_c": 50},
        {"temperatures_c": {"cpu": "50"}},
        {"temperatures_c": {"cpu": True}},
        {"temperatures_c": {"cpu": float("nan")}},
        {"temperatures_c": {"cpu": -256}},
        {"clocks_mhz": {"cpu": float("inf")}},
        {"clocks_mhz": {"cpu": 10**400}},
        {"power_mw": {"VDD IN": 5}},
        {"power_mw": {"x" * 41: 5}},
        {"power_mw": {"": 5}},
        {"power_mw": {"\x1b[2J": 5}},
        {"load_percent": {f"cpu{i}": 1 for i in range(MAX_ENTRIES + 1)}},
        {"throttled": "yes"},
        {"throttled": ["x"] * 17},
        {"throttled": ["two\nlines"]},
        {"throttled": [""]},
        {"throttled": [3]},
        {"state": {"mode": 3}},
        {"state": {"mode": "x" * 81}},
        {"state": {"mode": "\x07"}},
    ],
)
def test_what_no_device_of_ours_sends_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="^telemetry: ") as error:
        Telemetry.from_dict(value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([*NUMBERS, "state", "throttled", "cpu", "a b"]), inner),
    ),
    max_leaves=10,
)


@given(JSON)
@example({"state": {"a": "b"}, "throttled": ["c"]})
def test_only_values_or_one_kind_of_error(value: Any) -> None:
    try:
        found = Telemetry.from_dict(value)
    except ValueError:
        return
    assert Telemetry.from_dict(found.to_dict()) == found


@given(st.sampled_from(NUMBERS), st.lists(st.tuples(st.text(), st.floats() | st.integers())))
@example("power_mw", [("x" * 39 + "-y", 1.0), ("--a--b--", 10**400), ("é", 1)])
@example("power_mw", [(f"rail{i}", i) for i in range(200)])
def test_what_is_kept_can_be_sent(kind: str, found: list[tuple[str, float]]) -> None:
    reading = Telemetry(**{kind: kept(kind, found)})  # type: ignore[arg-type]
    assert Telemetry.from_dict(reading.to_dict()) == reading


@given(st.text())
def test_tidy_is_tidy(text: str) -> None:
    assert tidy(tidy(text)) == tidy(text)


def test_last_of_a_name_counts() -> None:
    assert kept("temperatures_c", [("cpu", 40), ("cpu", 41.00049), ("gpu", float("nan"))]) == {
        "cpu": 41
    }
