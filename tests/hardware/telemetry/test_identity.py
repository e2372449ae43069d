"""What kind of machine this is, from folders as such machines show them."""

import os
import platform
from pathlib import Path

import pytest

from ofa_deploy.hardware import Identity, identify, processor_name

CORES = f"{os.cpu_count()} cores"
A76 = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\nCPU revision\t: 1\n"


def machine(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dash_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_jetson(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__device_dash_tree__model="NVIDIA Jetson Orin Nano Developer Kit\0",
        proc__device_dash_tree__compatible="nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
        proc__meminfo="MemTotal:        7803276 kB\nMemFree:  1 kB\n",
        proc__cpuinfo=A76,
        etc__os_dash_release='NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
        etc__nv_tegra_release="# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    )
    found = identify(root)
    assert found.kind == "jetson"
    assert found.processor == f"NVIDIA Jetson Orin Nano Developer Kit, {CORES}"
    assert found.memory_mib == 7620
    assert found.system == "Ubuntu 22.04.5 LTS, L4T 36.4.3"
    assert Identity(**found.to_dict()) == found  # type: ignore[arg-type]


def test_jetson_in_a_container_that_hides_the_board(tmp_path: Path) -> None:
    root = machine(tmp_path, etc__nv_tegra_release="# R35 (release), REVISION: 4.1, GCID: 1")
    assert identify(root).kind == "jetson"
    assert identify(root).system.endswith("L4T 35.4.1")


def test_raspberry_pi(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__device_dash_tree__model="Raspberry Pi 5 Model B Rev 1.0\0",
        proc__cpuinfo=A76,
    )
    assert identify(root).kind == "raspberry-pi"
    assert processor_name(root) == f"Raspberry Pi 5 Model B Rev 1.0, {CORES}"


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (
            "processor: 0\nmodel name\t: AMD EPYC 7B13\nprocessor: 1\nmodel name: other\n",
            "AMD EPYC 7B13",
        ),
        (A76, "ARM Cortex-A76"),
        (A76.replace("0xd0b", "0xd40"), "ARM Neoverse-V1"),
        (
            A76.replace("0x41", "0x61").replace("0xd0b", "0x022"),
            f"{platform.machine()} 0x61 part 0x022",
        ),
        ("", platform.processor() or platform.machine()),
    ],
)
def test_processors(tmp_path: Path, cpuinfo: str, name: str) -> None:
    assert processor_name(machine(tmp_path, proc__cpuinfo=cpuinfo)) == f"{name}, {CORES}"


def test_gpu_is_where_a_driver_is(tmp_path: Path) -> None:
    assert identify(tmp_path).kind == "cpu"
    assert identify(tmp_path).memory_mib == 0
    machine(tmp_path, proc__driver__nvidia__version="NVRM version: NVIDIA UNIX 580.95.05")
    assert identify(tmp_path).kind == "gpu"


@pytest.mark.parametrize("junk", ["", "\0" * 50, "MemTotal: x kB", "\x1b[2J\n", "é" * 5000])
def test_junk_is_survived(tmp_path: Path, junk: str) -> None:
    names = ("proc__device_dash_tree__model", "proc__device_dash_tree__compatible", "proc__meminfo",
             "proc__cpuinfo", "etc__os_dash_release", "etc__nv_tegra_release")  # fmt: skip
    found = identify(machine(tmp_path, **dict.fromkeys(names, junk)))
    assert found.processor.isprintable() and found.system.isprintable()


def test_this_machine() -> None:
    found = identify()
    assert found.python == platform.python_version()
    assert found.processor == processor_name()
    assert found.architecture in ("x86_64", "aarch64") or found.architecture == platform.machine()
