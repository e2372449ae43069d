"""Energy counters, in files of the form in which Linux shows them."""

from pathlib import Path

import pytest

from ofa_deploy.hardware.energy import EnergyMeter


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
