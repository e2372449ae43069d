"""All sources of a machine as one: a Jetson made of files and scripts."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ofa_deploy.hardware import Sensors, Telemetry
from ofa_deploy.hardware.telemetry import jetson as jetson_module
from ofa_deploy.hardware.telemetry import sensors as sensors_module

LINE = (
    "RAM 1954/7620MB (lfb 4x4MB) SWAP 0/3810MB CPU [3%@1510,0%@1510] EMC_FREQ 1%@2133 "
    "GR3D_FREQ 26%@[305] cpu@48.062C tj@48.218C VDD_IN 4523mW/4523mW VDD_SOC 1373mW/1373mW"
)


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, ...]:
    """Where tegrastats and nvpmodel of an Orin are."""
    folder = tmp_path / "bin"
    # Like the real one it ends only when it is ended.
    script(
        folder / "tegrastats",
        f'[ "$1 $2" = "--interval 100" ] || exit 1\nwhile echo "{LINE}"; do sleep 0.1; done',
    )
    script(folder / "nvpmodel", '[ "$1" = -q ] && printf "NV Power Mode: 15W\\n0\\n"')
    return (str(folder),)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What the kernel of that Orin shows, after jetson_clocks."""
    root = tmp_path / "root"
    for folder, low in (
        ("sys/devices/system/cpu/cpufreq/policy0", "scaling_min_freq"),
        ("sys/class/devfreq/17000000.gpu", "min_freq"),
    ):
        (root / folder).mkdir(parents=True)
        (root / folder / low).write_text("1510400")
        (root / folder / low.replace("min", "max")).write_text("1510400")
    (root / "etc").mkdir()
    (root / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1")
    device = root / "sys/class/thermal/cooling_device0"
    device.mkdir(parents=True)
    (device / "type").write_text("thermal-cpufreq-0")
    (device / "cur_state").write_text("0")
    return root


def test_an_orin(root: Path, folders: tuple[str, ...]) -> None:
    with Sensors.find(root, folders=folders) as sensors:
        assert sensors.names == ("linux", "tegrastats")
        found = sensors.read()
    assert found.temperature_c == 48.218
    assert found.clocks_mhz == {"cpu0": 1510, "cpu1": 1510, "emc": 2133, "gpu": 305}
    assert found.total_power_mw == 4523
    assert found.state == {
        "power_mode": "15W",
        "jetson_clocks": "on",
        "clocks": "fixed",
        "l4t": "36.4.3",
    }
    assert found.power_mode == "15W-jetson_clocks"
    assert Telemetry.from_dict(found.to_dict()) == found


def test_jetson_clocks_that_are_off(root: Path, folders: tuple[str, ...]) -> None:
    (root / "sys/class/devfreq/17000000.gpu/min_freq").write_text("306000")
    state = Sensors.find(root, folders=folders).read().state
    assert (state["jetson_clocks"], state["clocks"]) == ("off", "free")


def test_throttling_is_told_without_the_slow_command(
    root: Path, folders: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    sensors = Sensors.find(root, folders=folders)
    monkeypatch.setattr(jetson_module, "output_of", lambda *_, **__: pytest.fail("asked"))
    assert sensors.throttled() == ()
    (root / "sys/class/thermal/cooling_device0/cur_state").write_text("2")
    assert sensors.throttled() == ("cooling by thermal-cpufreq-0",)


def test_a_command_that_fails_leaves_out_what_it_tells(
    root: Path, folders: tuple[str, ...]
) -> None:
    script(Path(folders[0]) / "tegrastats", "exit 1")
    script(Path(folders[0]) / "nvpmodel", "echo permission denied; exit 1")
    found = Sensors.find(root, folders=folders).read()
    assert found.power_mw == {}
    assert found.state == {"jetson_clocks": "on", "clocks": "fixed", "l4t": "36.4.3"}


def test_without_nvpmodel(root: Path, folders: tuple[str, ...]) -> None:
    (Path(folders[0]) / "nvpmodel").unlink()
    assert "power_mode" not in Sensors.find(root, folders=folders).read().state


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    with Sensors.find(tmp_path, folders=(str(tmp_path),)) as sensors:
        assert sensors.names == ()
        assert not sensors.read()
        assert sensors.throttled() == ()
        assert sensors.gpu_energy_mj() is None
        assert sensors.gpu_power_mw() is None
        assert sensors.board_power_mw() is None


def test_this_machine_can_be_asked() -> None:
    with Sensors.find(gpu=0) as sensors:
        found = sensors.read()
    assert Telemetry.from_dict(found.to_dict()) == found


def test_a_glance_runs_no_slow_command(
    root: Path, folders: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sensors.at_work(root, gpu=True, folders=folders) as sensors:
        assert sensors.names == ("linux", "tegrastats")
        assert sensors.tells_throttling
        monkeypatch.setattr(jetson_module, "output_of", lambda *_, **__: pytest.fail("asked"))
        (root / "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq").write_text("729600")
        assert sensors.glance((5,)).clocks_mhz == {"cpu0": 729.6}


@pytest.mark.parametrize("found", [True, False])
def test_only_nvml_speaks_for_the_gpu_of_a_pc(
    root: Path, folders: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    """The processor's heat and throttling, and its board's power, are not the GPU's."""
    (root / "etc/nv_tegra_release").unlink()
    source = SimpleNamespace(name="nvml", close=lambda: None) if found else None
    monkeypatch.setattr(sensors_module.NvmlSource, "find", lambda index: source)
    with Sensors.at_work(root, gpu=True, folders=folders) as sensors:
        assert sensors.names == (("nvml",) if found else ())
    with Sensors.at_work(root, gpu=False, folders=folders) as sensors:
        assert "linux" in sensors.names
