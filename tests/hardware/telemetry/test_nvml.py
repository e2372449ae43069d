"""NVML: the real binding over a small stand-in library, and over a stand-in of its loader.

With the library, a process of its own imports telemetry as an agent does: the folder alone.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.hardware import Sensors, Telemetry, energy_meter
from ofa_deploy.hardware.telemetry import nvml as module
from ofa_deploy.hardware.telemetry.nvml import NvmlSource, first_of_cuda, throttle_reasons

FOLDER = Path(module.__file__).parents[1]
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from telemetry.nvml import NvmlSource
source = NvmlSource.find(int(sys.argv[2]))
found = {"found": source is not None}
if source is not None:
    found["read"] = source.read().to_dict()
    found["energy"] = [source.energy_mj(), source.energy_mj()]
    found["power"] = source.power_mw()
    source.close()
    source.close()
    again = NvmlSource.find(0)
    found["again"] = again is not None and again.power_mw()
print(json.dumps(found))
"""
WHOLE = {
    "temperatures_c": {"gpu": 42},
    "clocks_mhz": {"gpu": 1980, "sm": 1975, "memory": 2619},
    "power_mw": {"gpu": 71250},
    "load_percent": {"gpu": 87, "memory": 12},
    "memory_mib": {"used": 1024, "total": 81559},
    "state": {
        "gpu": "NVIDIA-H100-80GB-HBM3",
        "gpu_id": hashlib.sha256(
            b"ofa-deploy GPU-5f1c2a3b-0d4e-4f60-8a7b-9c0d1e2f3a4b"
        ).hexdigest()[:16],
        "driver": "580.95.05",
        "performance_state": "P0",
        "power_limit": "700 W",
    },
}

Ask = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0x0, ()),
        (0x1, ()),  # idle
        (0x2 | 0x100 | 0x400, ()),  # as the user or the card set it
        (0x4, ("power cap",)),
        (0x8 | 0x40, ("hardware slowdown", "thermal slowdown by hardware")),
        (0x20, ("thermal slowdown by software",)),
        (0x80 | 0x200, ("power brake", "board limit")),
        (1 << 60, ()),
    ],
)
def test_reasons(bits: int, reasons: tuple[str, ...]) -> None:
    assert throttle_reasons(bits) == reasons


def test_without_the_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert NvmlSource.find() is None


# -- the real binding over a library compiled here --------------------------------------------


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with a libnvidia-ml.so.1: as of a present driver, and as of an old one."""
    pytest.importorskip("pynvml")
    if COMPILER is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")
    folders = {}
    for name, define in (("new", "-DNEW"), ("old", "-DOLD")):
        folders[name] = tmp_path_factory.mktemp(f"nvml-{name}")
        source = Path(__file__).with_name("nvml_standin.c")
        library = folders[name] / "libnvidia-ml.so.1"
        command = [COMPILER, "-shared", "-fPIC", define, "-o", str(library), str(source)]
        subprocess.run(command, check=True, timeout=60)
    return folders


@pytest.fixture
def ask(libraries: dict[str, Path]) -> Ask:
    """What a process finds through the binding and one of the libraries."""

    def run(*, says: str = "", library: str = "new", index: int = 0) -> dict[str, Any]:
        paths = {"LD_LIBRARY_PATH": str(libraries[library]), "NVML_SAYS": says}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(FOLDER), str(index)],
            env={**os.environ, **paths},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def test_a_gpu(ask: Ask) -> None:
    found = ask()
    assert Telemetry.from_dict(found["read"]) == Telemetry.from_dict(WHOLE)
    assert found["energy"] == [5000250, 5000500]
    assert found["power"] == 71250
    assert found["again"] == 71250


def test_gpus_that_are_alike_are_told_apart() -> None:
    state = {"gpu": "H100", "driver": "580"}
    one, other = (Telemetry(state={**state, "gpu_id": name}) for name in ("a1", "b2"))
    assert (one.gpu, other.gpu) == ("H100 a1", "H100 b2")
    assert Telemetry(state=state).gpu == "H100"
    assert Telemetry(state={"driver": "580"}).gpu == ""


def test_a_driver_of_before(ask: Ask) -> None:
    found = ask(library="old", says="44")
    assert found["read"]["temperatures_c"] == {"gpu": 41}
    assert found["read"]["throttled"] == ["power cap", "thermal slowdown by hardware"]
    assert found["energy"] == [None, None]


def test_throttling(ask: Ask) -> None:
    assert ask(says="20")["read"]["throttled"] == ["thermal slowdown by software"]
    assert "throttled" not in ask(says="1")["read"]


@pytest.mark.parametrize("says", ["nothing", "lost"])
def test_a_gpu_that_answers_nothing(ask: Ask, says: str) -> None:
    found = ask(says=says)
    assert found["read"] == {"state": {"driver": "580.95.05"}}
    assert found["energy"] == [None, None]
    assert found["power"] is None


def test_no_gpu(ask: Ask) -> None:
    assert ask(says="no driver") == {"found": False}
    assert ask(index=1) == {"found": False}


# -- the real binding over a stand-in of the library it loads ----------------------------------


class Library:
    """A loaded library as ctypes shows it: functions that fill in what their pointers point to."""

    def __init__(self) -> None:
        self.energy = 1000
        self.open = 0

    def nvmlInitWithFlags(self, flags: int) -> int:
        self.open += 1
        return 0

    def nvmlShutdown(self) -> int:
        self.open -= 1
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> int:
        return 0 if index.value == 0 else 2

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Any, millijoules: Any) -> int:
        millijoules._obj.value = self.energy
        return 0

    def nvmlDeviceGetPowerUsage(self, device: Any, milliwatts: Any) -> int:
        milliwatts._obj.value = 50_000
        return 0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    pynvml = pytest.importorskip("pynvml")
    made = Library()

    def load() -> None:
        pynvml.nvmlLib = made

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(pynvml, "_LoadNvmlLibrary", load)
    return made


def test_what_a_library_lacks_is_left_out(library: Library) -> None:
    with Sensors.find(Path("/none"), gpu=0, folders=()) as sensors:
        assert sensors.names == ("nvml",)
        assert sensors.read() == Telemetry(power_mw={"gpu": 50_000})
        assert sensors.throttled() == ()
        assert library.open == 1
    assert library.open == 0


def test_a_gpu_that_is_not_asked_for_is_left_alone(library: Library) -> None:
    assert Sensors.find(Path("/none"), folders=()).names == ()
    assert library.open == 0


def test_nvml_is_let_go_where_there_is_no_such_gpu(library: Library) -> None:
    assert NvmlSource.find(3) is None
    assert library.open == 0


def test_energy_is_what_the_counter_counted(library: Library, tmp_path: Path) -> None:
    def call() -> None:
        library.energy += 7

    with Sensors.find(tmp_path, gpu=0, folders=()) as sensors:
        meter = energy_meter(sensors, gpu=True, root=tmp_path)
        assert meter is not None
        assert meter.per_call(call, seconds=0) == pytest.approx(7)
        library.energy = 2**64 - 3
        assert meter.per_call(lambda: setattr(library, "energy", 4), seconds=0) == pytest.approx(7)


def test_energy_from_power_where_there_is_no_counter(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Library, "nvmlDeviceGetTotalEnergyConsumption")
    with Sensors.find(tmp_path, gpu=0, folders=()) as sensors:
        meter = energy_meter(sensors, gpu=True, root=tmp_path)
        assert meter is not None
        calls = [0]

        def call() -> None:
            calls[0] += 1

        start = time.monotonic()
        mj = meter.per_call(call, seconds=0.1)
        took_s = time.monotonic() - start
    assert 0.1 * 50_000 * 0.99 <= mj * calls[0] <= took_s * 50_000


def test_only_heat_and_failing_power_hold_clocks_down(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its power cap a GPU does what it was sold for."""

    def reasons(self: Library, handle: Any, bits: Any) -> int:
        bits._obj.value = 0x4 | 0x20 | 0x80 | 0x200
        return 0

    with Sensors.find(Path("/none"), gpu=0, folders=()) as sensors:
        assert not sensors.tells_throttling
        monkeypatch.setattr(
            Library, "nvmlDeviceGetCurrentClocksEventReasons", reasons, raising=False
        )
        assert sensors.tells_throttling
        assert sensors.throttled() == ("thermal slowdown by software", "power brake")
        assert "power cap" in sensors.read().throttled
        assert sensors.glance().power_mw == {"gpu": 50_000}


def test_who_does_the_work_is_asked(library: Library, tmp_path: Path) -> None:
    """A PC's GPU alone; on a Jetson the board, whose kernel tells of its GPU."""
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("x86_pkg_temp")
    (zone / "temp").write_text("95000")
    for gpu, names in ((True, ("nvml",)), (False, ("linux",))):
        with Sensors.at_work(tmp_path, gpu=gpu, folders=()) as sensors:
            assert sensors.names == names
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").touch()
    with Sensors.at_work(tmp_path, gpu=True, folders=()) as sensors:
        assert sensors.names == ("linux",)
        assert library.open == 0


@pytest.mark.parametrize(
    ("visible", "first"),
    [(None, 0), ("", 0), ("2,0", 2), (" 1", 1), ("GPU-8a7c,1", "GPU-8a7c")],
)
def test_the_gpu_that_cuda_uses_is_asked(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, first: int | str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert first_of_cuda() == first
