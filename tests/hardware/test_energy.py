"""Energy counters, in files of the form in which Linux shows them, and energy from power."""

import os
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from ofa_deploy.hardware import Sensors
from ofa_deploy.hardware.energy import EnergyMeter, PowerMeter, energy_meter


def zone(root: Path, number: str, name: str, energy: str, wrap: str = "999999") -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir()
    (folder / "name").write_text(name + "\n")
    (folder / "energy_uj").write_text(energy + "\n")
    (folder / "max_energy_range_uj").write_text(wrap + "\n")
    return folder / "energy_uj"


def test_packages_are_summed_and_their_parts_are_not(tmp_path: Path) -> None:
    counters = [zone(tmp_path, "0", "package-0", "1000"), zone(tmp_path, "1", "package-1", "50")]
    zone(tmp_path, "0:0", "core", "0")
    meter = EnergyMeter.find(tmp_path)
    assert meter is not None

    def call() -> None:
        for counter, used in zip(counters, (3000, 1000), strict=True):
            counter.write_text(str(int(counter.read_text()) + used))

    assert meter.per_call(call, seconds=0) == pytest.approx(4.0)
    assert meter.per_call(call, seconds=0.01) == pytest.approx(4.0)


def test_counter_that_starts_again(tmp_path: Path) -> None:
    counter = zone(tmp_path, "0", "package-0", "999000", wrap="999999")
    meter = EnergyMeter.find(tmp_path)
    assert meter is not None

    def call() -> None:
        counter.write_text("1000")

    assert meter.per_call(call, seconds=0) == 2.0


@pytest.mark.parametrize("damage", ["name", "energy_uj", "max_energy_range_uj"])
def test_without_a_whole_counter_there_is_no_meter(tmp_path: Path, damage: str) -> None:
    zone(tmp_path, "0", "package-0", "1")
    (tmp_path / "intel-rapl:0" / damage).write_text("?")
    assert EnergyMeter.find(tmp_path) is None
    (tmp_path / "intel-rapl:0" / damage).unlink()
    assert EnergyMeter.find(tmp_path) is None


def test_machine_without_counters(tmp_path: Path) -> None:
    assert EnergyMeter.find(tmp_path / "none") is None


# -- from power ------------------------------------------------------------------------------


def test_energy_from_power_is_mean_power_times_time() -> None:
    powers = iter([1000.0, None, 3000.0, *[2000.0] * 1000])
    calls = [0]

    def call() -> None:
        calls[0] += 1

    start = time.monotonic()
    mj = PowerMeter(lambda: next(powers), pause_s=0.001).per_call(call, seconds=0.05)
    took_s = time.monotonic() - start
    assert 0.05 * 2000 * 0.9 <= mj * calls[0] <= took_s * 2000 * 1.1


def test_power_that_is_told_too_seldom_is_refused() -> None:
    meter = PowerMeter(lambda: None, pause_s=0.001)
    with pytest.raises(OSError, match="power was told 0 times in .* s: too seldom"):
        meter.per_call(lambda: None, seconds=0.01)
    with pytest.raises(OSError, match="power was told [12] times"):
        PowerMeter(lambda: 1000.0, pause_s=10).per_call(lambda: None, seconds=0)


def test_a_slow_meter_is_waited_for() -> None:
    """But not for ever."""
    found = PowerMeter(lambda: 1000.0, pause_s=0.1).per_call(lambda: None, seconds=0.1)
    assert found > 0


def _busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_meter_that_is_slow_to_read_is_read_seldom() -> None:
    """What reading takes may be taken from the call, whose time is then too long."""
    read: list[float] = []

    def power_mw() -> float:
        _busy(0.004)
        read.append(time.monotonic())
        return 1000.0

    PowerMeter(power_mw, pause_s=0.001).per_call(lambda: _busy(0.001), seconds=0.3)
    pauses = [later - one for one, later in pairwise(read)]
    assert len(pauses) >= 2
    assert min(pauses) >= 20 * 0.004


def test_power_is_not_read_on_the_core_that_is_measured() -> None:
    usable = os.sched_getaffinity(0)
    others = os.sched_getaffinity(os.getppid()) - {min(usable)}
    if not others:
        pytest.skip("needs two cores")
    seen: list[set[int]] = []

    def power_mw() -> float:
        seen.append(os.sched_getaffinity(0))
        return 1000.0

    os.sched_setaffinity(0, {min(usable)})
    try:
        PowerMeter(power_mw, pause_s=0.001).per_call(lambda: _busy(0.001), seconds=0.3)
        assert os.sched_getaffinity(0) == {min(usable)}, "and what is measured stays"
    finally:
        os.sched_setaffinity(0, usable)
    assert seen and all(each == others for each in seen)


def test_the_watcher_ends_when_the_call_fails() -> None:
    def call() -> None:
        raise RuntimeError("no")

    before = threading.active_count()
    with pytest.raises(RuntimeError):
        PowerMeter(lambda: 1.0).per_call(call)
    assert threading.active_count() == before


def rails(root: Path) -> None:
    chip = root / "sys/class/hwmon/hwmon1"
    chip.mkdir(parents=True)
    for name, text in (("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", 5000)):
        (chip / name).write_text(str(text))
    (chip / "curr1_input").write_text("1000")


def test_counters_go_before_rails(tmp_path: Path) -> None:
    rails(tmp_path)
    with Sensors.find(tmp_path, folders=()) as sensors:
        assert sensors.board_power_mw() == 5000
        assert isinstance(energy_meter(sensors, root=tmp_path), PowerMeter)
        zone(tmp_path, "0", "package-0", "1")
        assert isinstance(energy_meter(sensors, root=tmp_path), EnergyMeter)
        # Rails feed a board's GPU too; the processor's counters do not count a GPU.
        assert isinstance(energy_meter(sensors, gpu=True, root=tmp_path), PowerMeter)


def test_machine_that_tells_no_energy(tmp_path: Path) -> None:
    with Sensors.find(tmp_path, folders=()) as sensors:
        assert energy_meter(sensors, root=tmp_path) is None
        zone(tmp_path, "0", "package-0", "1")
        assert energy_meter(sensors, gpu=True, root=tmp_path) is None


def test_meters_of_hwmon_are_read(tmp_path: Path) -> None:
    """In µW, of chips that meter a board's supply."""
    for number, name, file in ((1, "ina226", "power1_input"), (2, "nvme", "power1_input")):
        chip = tmp_path / f"sys/class/hwmon/hwmon{number}"
        chip.mkdir(parents=True)
        (chip / "name").write_text(name)
        (chip / file).write_text("7500000")
    with Sensors.find(tmp_path, folders=()) as sensors:
        assert sensors.board_power_mw() == 7500
        assert isinstance(energy_meter(sensors, root=tmp_path), PowerMeter)
    (tmp_path / "sys/class/hwmon/hwmon1/name").write_text("power_meter")
    (tmp_path / "sys/class/hwmon/hwmon1/power1_input").rename(
        tmp_path / "sys/class/hwmon/hwmon1/power1_average"
    )
    with Sensors.find(tmp_path, folders=()) as sensors:
        assert sensors.board_power_mw() == 7500
