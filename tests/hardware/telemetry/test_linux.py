"""The kernel's files, in folders of the form in which Linux shows them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_deploy.hardware import Telemetry
from ofa_deploy.hardware.telemetry.linux import LinuxSource, clocks_fixed

CPU = "sys/devices/system/cpu"
THERMAL = "sys/class/thermal"
HWMON = "sys/class/hwmon"


def write(root: Path, **files: object) -> None:
    """Files of a folder; a dot in a name is a folder."""
    for name, value in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


def laptop(root: Path) -> Path:
    for number, khz in ((0, 4_200_000), (1, 3_900_000), (10, 800_000)):
        write(
            root / CPU / f"cpufreq/policy{number}",
            scaling_cur_freq=khz,
            scaling_min_freq=800_000,
            scaling_max_freq=4_200_000,
            scaling_governor="powersave",
        )
    write(root / CPU / "intel_pstate", no_turbo=0)
    write(root / CPU / "cpu0/thermal_throttle", core_throttle_count=7, package_throttle_count=9)
    write(root / THERMAL / "thermal_zone0", type="acpitz", temp=27800)
    write(root / THERMAL / "thermal_zone1", type="x86_pkg_temp", temp=61000)
    write(root / THERMAL / "cooling_device0", type="Processor", cur_state=0)
    write(root / THERMAL / "cooling_device1", type="INT3404 Fan", cur_state=3)
    write(root / HWMON / "hwmon3", name="coretemp", temp1_label="Package id 0", temp1_input=62000)
    write(root / HWMON / "hwmon4", name="nvme", temp1_input=71000)
    return root


def jetson(root: Path) -> Path:
    for number in (0, 4):
        write(
            root / CPU / f"cpufreq/policy{number}",
            scaling_cur_freq=1_510_400,
            scaling_min_freq=1_510_400,
            scaling_max_freq=1_510_400,
            scaling_governor="schedutil",
        )
    write(
        root / "sys/class/devfreq/17000000.gpu",
        cur_freq=624_750_000,
        min_freq=306_000_000,
        max_freq=624_750_000,
    )
    write(root / THERMAL / "thermal_zone0", type="cpu-thermal", temp=48062)
    write(root / THERMAL / "thermal_zone1", type="cv0-thermal", temp=-256000)
    write(
        root / HWMON / "hwmon1",
        name="ina3221",
        in1_label="VDD_IN",
        in1_input=5064,
        curr1_input=888,
        in2_label="VDD_CPU_GPU_CV",
        in2_input=5064,
        curr2_input=104,
        in3_label="NC",
        in3_input=1,
        curr3_input=1,
        in7_label="sum of shunt voltages",
        in7_input=3,
    )
    write(root / HWMON / "hwmon2", name="soctherm_oc", oc3_event_cnt=2)
    return root  # fmt: skip


def test_laptop(tmp_path: Path) -> None:
    source = LinuxSource.find(laptop(tmp_path))
    assert source is not None
    found = source.read()
    assert found.clocks_mhz == {"cpu0": 4200, "cpu1": 3900, "cpu10": 800}
    assert found.temperatures_c == {"acpitz": 27.8, "x86_pkg_temp": 61, "coretemp.Package-id-0": 62}
    assert found.temperature_c == 62
    assert found.throttled == ()
    assert found.power_mw == {}
    assert found.state == {"governor": "powersave", "boost": "on", "clocks": "free"}


def test_jetson(tmp_path: Path) -> None:
    source = LinuxSource.find(jetson(tmp_path))
    assert source is not None
    found = source.read()
    assert found.clocks_mhz == {"cpu0": 1510.4, "cpu4": 1510.4, "gpu": 624.75}
    assert found.temperatures_c == {"cpu-thermal": 48.062}
    assert found.power_mw == {"VDD_IN": pytest.approx(4496.832), "VDD_CPU_GPU_CV": 526.656}
    assert source.power().total_power_mw == pytest.approx(4496.832)
    assert found.state["clocks"] == "free"  # the GPU's are


def test_clocks_are_fixed_when_none_has_a_choice(tmp_path: Path) -> None:
    assert clocks_fixed(tmp_path) is None
    gpu = jetson(tmp_path) / "sys/class/devfreq/17000000.gpu"
    assert clocks_fixed(tmp_path) is False
    write(gpu, min_freq=624_750_000)
    assert clocks_fixed(tmp_path) is True
    write(tmp_path / "sys/class/devfreq/13e10000.vic", min_freq=1, max_freq=2)  # no GPU
    assert clocks_fixed(tmp_path) is True
    write(tmp_path / CPU / "cpufreq/policy4", scaling_min_freq=115_200)
    assert clocks_fixed(tmp_path) is False


def test_counters_that_grow_are_throttling(tmp_path: Path) -> None:
    source = LinuxSource.find(jetson(laptop(tmp_path)))
    assert source is not None
    assert source.throttled() == ()  # what was counted before is past
    write(tmp_path / CPU / "cpu0/thermal_throttle", core_throttle_count=8)
    write(tmp_path / HWMON / "hwmon2", oc3_event_cnt=3)
    assert source.throttled() == ("processor too hot", "over-current")
    assert source.throttled() == ()
    write(
        tmp_path / CPU / "cpu0/thermal_throttle", core_throttle_count=0
    )  # the counter started anew
    assert source.throttled() == ()


@pytest.mark.parametrize(
    ("kind", "state", "reasons"),
    [
        ("Processor", 2, ("cooling by Processor",)),
        ("cpufreq-cpu0", 1, ("cooling by cpufreq-cpu0",)),
        ("thermal-cpufreq-0", 1, ("cooling by thermal-cpufreq-0",)),
        ("devfreq-17000000.gpu", 4, ("cooling by devfreq-17000000.gpu",)),
        ("cpu-balanced", 1, ("cooling by cpu-balanced",)),
        ("gpu-throttle-alert", 1, ("cooling by gpu-throttle-alert",)),
        ("hot-surface-alert", 1, ()),
        ("Processor", 0, ()),
        ("Processor", -1, ()),
        ("intel_powerclamp", -1, ()),
        ("pwm-fan", 3, ()),
        ("LCD", 10, ()),
    ],
)
def test_cooling_by_slowing_down(
    tmp_path: Path, kind: str, state: int, reasons: tuple[str, ...]
) -> None:
    write(tmp_path / THERMAL / "cooling_device0", type=kind, cur_state=state)
    assert LinuxSource(tmp_path).throttled() == reasons


@pytest.mark.parametrize(
    ("files", "boost"),
    [
        ({"cpufreq__boost": 1}, "on"),
        ({"cpufreq__boost": 0}, "off"),
        ({"intel_pstate__no_turbo": 1}, "off"),
        ({"intel_pstate__no_turbo": 0}, "on"),
    ],
)
def test_boost(tmp_path: Path, files: dict[str, int], boost: str) -> None:
    write(tmp_path / CPU, **files)
    assert LinuxSource(tmp_path).read().state == {"boost": boost}


def test_machine_that_shows_nothing(tmp_path: Path) -> None:
    assert LinuxSource.find(tmp_path) is None
    assert LinuxSource.find(tmp_path / "none") is None


@settings(max_examples=15)
@given(st.binary(max_size=80))
def test_junk_in_every_file_tells_nothing_wrong(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes
) -> None:
    root = jetson(laptop(tmp_path_factory.mktemp("root")))
    for path in root.rglob("*"):
        if path.is_file():
            path.write_bytes(junk)
    source = LinuxSource(root)
    found = source.read()
    assert Telemetry.from_dict(found.to_dict()) == found
    clocks_fixed(root)


def test_folders_where_files_should_be(tmp_path: Path) -> None:
    (tmp_path / THERMAL / "thermal_zone0/temp").mkdir(parents=True)
    (tmp_path / CPU / "cpufreq/policyX").mkdir(parents=True)
    assert LinuxSource(tmp_path).read() == Telemetry()


def test_a_huge_machine_stays_bounded(tmp_path: Path) -> None:
    for number in range(120):
        write(tmp_path / CPU / f"cpufreq/policy{number}", scaling_cur_freq=2_000_000 + number)
    found = LinuxSource(tmp_path).read()
    assert len(found.clocks_mhz) == 96
    assert Telemetry.from_dict(found.to_dict()) == found


def test_a_glance_reads_the_clocks_that_count(tmp_path: Path) -> None:
    """Of each core asked for, that of its group; and a GPU's, heat and rails."""
    source = LinuxSource.find(jetson(tmp_path))
    assert source is not None
    assert source.glance(()).clocks_mhz == {"gpu": 624.75}
    for core, group in ((0, "cpu0"), (3, "cpu0"), (4, "cpu4"), (5, "cpu4")):
        assert source.glance((core,)).clocks_mhz == {group: 1510.4, "gpu": 624.75}
    found = source.glance((0, 5))
    assert found.clocks_mhz.keys() == {"cpu0", "cpu4", "gpu"}
    assert found.temperatures_c == {"cpu-thermal": 48.062}
    assert found.total_power_mw == pytest.approx(4496.832)
    assert found.state == {} and found.throttled == ()


def test_a_glance_sees_what_changes(tmp_path: Path) -> None:
    source = LinuxSource.find(laptop(tmp_path))
    assert source is not None
    assert source.glance((1,)).temperature_c == 62
    write(tmp_path / HWMON / "hwmon3", temp1_input=71000)
    write(tmp_path / CPU / "cpufreq/policy1", scaling_cur_freq=800_000)
    found = source.glance((1,))
    assert (found.temperature_c, found.clocks_mhz) == (71, {"cpu1": 800})
    (tmp_path / HWMON / "hwmon3/temp1_input").unlink()
    assert source.glance((1,)).temperature_c == 61


def test_who_can_tell_throttling(tmp_path: Path) -> None:
    for number, made in enumerate((laptop, jetson)):
        source = LinuxSource.find(made(tmp_path / str(number)))
        assert source is not None and source.tells_throttling
    write(tmp_path / "2" / THERMAL / "thermal_zone0", type="x86_pkg_temp", temp=61000)
    source = LinuxSource.find(tmp_path / "2")
    assert source is not None and not source.tells_throttling


def test_of_two_processors_the_hotter_counts(tmp_path: Path) -> None:
    """Their sensors have the same names."""
    for number, (tctl, zone) in enumerate(((96_000, 41_000), (41_000, 88_000))):
        write(
            tmp_path / HWMON / f"hwmon{number}",
            name="k10temp",
            temp1_label="Tctl",
            temp1_input=tctl,
        )
        write(tmp_path / THERMAL / f"thermal_zone{number}", type="x86_pkg_temp", temp=zone)
    source = LinuxSource(tmp_path)
    for found in (source.read(), source.glance((0,))):
        assert found.temperatures_c == {"x86_pkg_temp": 88, "k10temp.Tctl": 96}
        assert found.temperature_c == 96
