"""What a device said while it was measured: joined, told, and never believed blindly."""

from typing import Any

import pytest
from pydantic import ValidationError

from ofa_deploy.hardware import LatencyTable, Trace
from ofa_deploy.hardware.table import table_files


def test_processes_are_joined() -> None:
    one = Trace(temperature_c=(40, 45, 50), clocks_mhz={"cpu0": (1, 2, 3)}, told=True)
    two = Trace(
        temperature_c=(30, 47, 49),
        clocks_mhz={"cpu0": (2, 4, 9), "gpu": (5, 5, 5)},
        power_mw=(1, 2, 3),
        throttled=("too hot",),
    )
    assert Trace.joined([one, two, Trace()]) == Trace(
        temperature_c=(30, 46, 50),
        clocks_mhz={"cpu0": (1, 3, 9), "gpu": (5, 5, 5)},
        power_mw=(1, 2, 3),
        throttled=("too hot",),
        told=True,
    )
    assert Trace.joined([]) == Trace()


def test_told_in_a_line() -> None:
    assert str(Trace()) == "no sensor told anything"
    trace = Trace(
        temperature_c=(40.4, 45, 51.6),
        clocks_mhz={"gpu": (900, 1000.4, 1100)},
        power_mw=(4000, 4567, 5000),
        throttled=("too hot",),
    )
    assert str(trace) == (
        "40 to 52 °C, gpu at 1000 MHz, 4.57 W, clocks held down now and then (too hot)"
    )


@pytest.mark.parametrize(
    "lie",
    [
        {"temperature_c": [1, 2]},
        {"temperature_c": [3, 2, 4]},
        {"temperature_c": [1, 2, 151]},
        {"power_mw": [0, float("nan"), 1]},
        {"clocks_mhz": {"cpu 0": [1, 1, 1]}},
        {"clocks_mhz": {f"cpu{n}": [1, 1, 1] for n in range(65)}},
        {"clocks_mhz": {"cpu0": [1, 1, 1e6]}},
        {"throttled": ["\x1b[2J"]},
        {"throttled": ["x"] * 65},
        {"more": 1},
    ],
)
def test_lies_are_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Trace.model_validate(lie)


def test_tables_of_before_load() -> None:
    """Those that ship were measured before telemetry was kept."""
    tables = [LatencyTable.load(path) for path in table_files()]
    assert any(table.telemetry is None and table.windows == 0 for table in tables)
