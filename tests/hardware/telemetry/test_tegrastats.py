"""tegrastats, nvpmodel and release lines as boards of several generations print them.

The lines are what users of such boards have published, in bug reports and in tests of monitors.
They stand in tegrastats.txt.
"""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ofa_deploy.hardware.telemetry import (
    Telemetry,
    parse_l4t,
    parse_nvpmodel,
    parse_tegrastats,
)

LINES = dict(
    line.split(": ", 1)
    for line in Path(__file__).with_name("tegrastats.txt").read_text().splitlines()
    if not line.startswith("#")
)


@pytest.mark.parametrize(
    ("line", "heat", "gpu_mhz", "emc_mhz", "cores", "total_mw", "memory"),
    [
        ("nano", 47.5, 76, 1600, 4, 4122, (1501, 3956)),
        ("tx1", 42.5, 76, 408, 4, 2532, (1179, 3983)),
        ("tx2", 41.0, 114, 40, 1, 2003, (1345, 7829)),
        ("agx-xavier", 33.5, None, None, 8, 3113, (1903, 15692)),
        ("xavier-nx", 33.0, 114, 1600, 6, 3528, (2387, 7774)),
        ("xavier-nx-jetpack-5", 39.5, 510, 1600, 4, 5079, (2690, 6854)),
        ("agx-orin", 44.562, 0, 2133, 12, 6755, (4321, 62801)),
        ("orin-nano-root", 48.218, 305, 2133, 6, 4523, (1954, 7620)),
        ("orin-nano-user", 51.718, None, None, 6, 4744, (2513, 7620)),
    ],
)
def test_every_generation(
    line: str,
    heat: float,
    gpu_mhz: int | None,
    emc_mhz: int | None,
    cores: int,
    total_mw: int,
    memory: tuple[int, int],
) -> None:
    found = parse_tegrastats(LINES[line])
    assert found is not None
    assert found.temperature_c == heat
    assert found.clocks_mhz.get("gpu") == gpu_mhz
    assert found.clocks_mhz.get("emc") == emc_mhz
    assert sum(name.startswith("cpu") for name in found.clocks_mhz) == cores
    assert found.total_power_mw == total_mw
    assert (found.memory_mib["used"], found.memory_mib["total"]) == memory
    assert Telemetry.from_dict(found.to_dict()) == found


def test_all_of_a_nano() -> None:
    assert parse_tegrastats(LINES["nano"]) == Telemetry(
        temperatures_c={
            "PLL": 39, "CPU": 44, "PMIC": 100, "GPU": 41.5, "AO": 47.5, "thermal": 42.5
        },
        clocks_mhz={
            **{f"cpu{core}": 1479 for core in range(4)}, "emc": 1600, "gpu": 76, "vic": 140
        },
        power_mw={"POM_5V_IN": 4122, "POM_5V_GPU": 109, "POM_5V_CPU": 1167},
        load_percent={"cpu0": 16, "cpu1": 13, "cpu2": 10, "cpu3": 4, "emc": 4, "gpu": 28, "vic": 0},
        memory_mib={"used": 1501, "total": 3956},
    )  # fmt: skip


def test_cores_that_are_off_keep_their_numbers() -> None:
    found = parse_tegrastats("CPU [5%@345,off,off,7%@1200]")
    assert found is not None
    assert found.clocks_mhz == {"cpu0": 345, "cpu3": 1200}


def test_one_clock_behind_all_cores() -> None:
    found = parse_tegrastats("RAM 1000/4000MB CPU [1%,2%]@1224")
    assert found is not None
    assert found.clocks_mhz == {"cpu0": 1224, "cpu1": 1224}
    assert found.load_percent == {"cpu0": 1, "cpu1": 2}


def test_fastest_cluster_of_a_gpu_counts() -> None:
    found = parse_tegrastats("GR3D_FREQ 99%@[0,1300]")
    assert found is not None
    assert found.clocks_mhz == {"gpu": 1300}


def test_parts_without_power_tell_nothing() -> None:
    found = parse_tegrastats(LINES["agx-orin"])
    assert found is not None
    assert set(found.temperatures_c) == {"CPU", "Tboard", "SOC2", "Tdiode", "SOC0", "tj", "SOC1"}
    assert "NC" not in found.power_mw


@pytest.mark.parametrize(
    "line",
    [
        "",
        "tegrastats: command not found",
        "RAM x/yMB CPU [] EMC_FREQ %@ GR3D_FREQ",
        "CPU@C VDD_IN mW/mW",
        "GPU@-256C",
        "RAM 99999999999999/1MB",
        "RAM \u0661/\u0662MB",
        "CPU [" + "1%@1," * 10_000,
        "\x00\xff" * 9000,
        "x" * 8192 + " GPU@40C",  # longer than any line of its
    ],
)
def test_junk_tells_nothing(line: str) -> None:
    assert parse_tegrastats(line) is None


def test_values_that_cannot_be_are_left_out() -> None:
    found = parse_tegrastats("GPU@900C CPU@40C GR3D_FREQ 400%@99999 VDD_IN 99999999/1 VDD_SOC 5/5")
    assert found == Telemetry(temperatures_c={"CPU": 40}, power_mw={"VDD_SOC": 5})


FRAGMENTS = st.sampled_from(
    [
        *" ,/@%[]C",
        "mW",
        "off",
        "RAM ",
        "CPU [",
        "GR3D_FREQ ",
        "EMC_FREQ ",
        "VDD_IN ",
        "7",
        "-256",
        "1e9",
    ]
)


@given(st.one_of(st.text(), st.lists(FRAGMENTS, max_size=200).map("".join)))
@example(" ".join(LINES.values()))
def test_whatever_is_read_can_be_sent(line: str) -> None:
    found = parse_tegrastats(line)
    assert found is None or Telemetry.from_dict(found.to_dict()) == found


@given(st.sampled_from(sorted(LINES)), st.data())
def test_damaged_lines_do_no_harm(name: str, data: st.DataObject) -> None:
    line = LINES[name]
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(line))] * 2)))
    found = parse_tegrastats(line[:start] + data.draw(st.text(max_size=5)) + line[end:])
    assert found is None or Telemetry.from_dict(found.to_dict()) == found


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXN\n0\n", "MAXN"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n", "MAXN"),
        (
            "NVPM WARN: fan mode is not set to cool\nNV Power Mode: MODE_30W_2CORE\n2\n",
            "MODE_30W_2CORE",
        ),
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_15W_6CORE\n2\n", "MODE_15W_6CORE"),
        ("NV Power Mode: 25W\n1\n", "25W"),
        ("NV Power Mode: MAXN_SUPER\n2\n", "MAXN_SUPER"),
        ("NVPM VERB: Current mode: NV Power Mode: 25W\n1\n", "25W"),
        ("", None),
        ("NV Power Mode:", None),
        ("NV Power Mode: \x1b[31m\n", None),
        ("nvpmodel: permission denied", None),
    ],
)
def test_power_modes(text: str, mode: str | None) -> None:
    assert parse_nvpmodel(text) == mode


@given(st.one_of(st.text(), st.text().map("NV Power Mode: {}".format)))
def test_power_mode_is_one_tidy_word(text: str) -> None:
    mode = parse_nvpmodel(text)
    assert mode is None or Telemetry.from_dict({"state": {"power_mode": mode}}).power_mode == mode


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
            "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
            "36.4.3",
        ),
        ("# R32 (release), REVISION: 7.1, GCID: 1, BOARD: t210ref, EABI: aarch64", "32.7.1"),
        ("# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref", "35.4.1"),
        ("# R36 (release), REVISION: ", None),
        ("Ubuntu", None),
    ],
)
def test_releases(text: str, release: str | None) -> None:
    assert parse_l4t(text) == release
