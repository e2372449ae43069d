"""Devices: where their files are looked for, and what is refused; and the load meter."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from ofa_deploy.errors import FileFormatError, UnknownNameError
from ofa_deploy.hardware import LoadMeter, device_names, load_device, processor_name
from ofa_deploy.hardware import telemetry as telemetry_module

TEXT = """\
schema = "device/1"
id = "board"
name = "A board"
kind = "cpu"
connection = "local"
runtimes = ["onnxruntime"]
precisions = ["fp32"]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``./devices`` of an empty working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    return tmp_path / "devices"


def test_this_machine_ships() -> None:
    device = load_device("local")
    assert device.id == "local"
    assert device.connection == "local"
    assert "onnxruntime" in device.runtimes
    assert "fp32" in device.precisions


def test_devices_are_found_without_a_folder_of_ones_own(folder: Path) -> None:
    folder.rmdir()
    assert "local" in device_names()
    assert load_device("local").id == "local"


def test_own_device_is_added(folder: Path) -> None:
    (folder / "board.toml").write_text(TEXT)
    assert {"board", "local"} <= set(device_names())
    assert list(device_names()) == sorted(device_names())
    assert load_device("board").name == "A board"


def test_own_device_goes_before_a_shipped_one(folder: Path) -> None:
    (folder / "local.toml").write_text(TEXT.replace('"board"', '"local"'))
    assert device_names().count("local") == 1
    assert load_device("local").name == "A board"


@pytest.mark.parametrize(("asked", "meant"), [("locl", "local"), ("bord", "board")])
def test_unknown_device_names_the_nearest(folder: Path, asked: str, meant: str) -> None:
    (folder / "board.toml").write_text(TEXT)
    with pytest.raises(UnknownNameError, match=f"unknown device '{asked}'; did you mean {meant}"):
        load_device(asked)


def test_unknown_device_unlike_any_lists_all(folder: Path) -> None:
    (folder / "board.toml").write_text(TEXT)
    with pytest.raises(UnknownNameError, match="known: amd-epyc-2core, board, local"):
        load_device("zzzzzz")


@pytest.mark.parametrize("name", ["../devices/board", "/board", "board.toml", ""])
def test_device_is_a_name_and_no_path(folder: Path, name: str) -> None:
    (folder / "board.toml").write_text(TEXT)
    with pytest.raises(UnknownNameError):
        load_device(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id = ", "not readable as TOML"),
        (TEXT + 'id = "board"\n', "not readable as TOML"),
        (TEXT.replace('"board"', '"other"'), "id 'other' differs from the file's name"),
        (TEXT.replace('"board"', '"Bo ard"'), "id: "),
        (TEXT.replace("device/1", "device/2"), "schema: "),
        (TEXT.replace('"cpu"', '"abacus"'), "kind: "),
        (TEXT + "speed = 3\n", "speed: "),
        ("", "schema: "),
    ],
)
def test_bad_file_is_refused_by_name(folder: Path, text: str, message: str) -> None:
    path = folder / "board.toml"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=re.escape(message)) as error:
        load_device("board")
    assert "devices/board.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_file_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "board.toml").write_bytes(b"\xff\xfe\x00id")
    with pytest.raises(FileFormatError, match="board.toml"):
        load_device("board")


def test_processor_has_a_name_and_cores() -> None:
    assert re.fullmatch(r"\S.*, \d+ cores", processor_name())


# -- load -----------------------------------------------------------------------------------


def machine(
    monkeypatch: pytest.MonkeyPatch, readings: list[tuple[float, float, float]]
) -> LoadMeter:
    """A meter on a machine whose (busy, idle, own) seconds since boot are given."""
    at = iter(readings)
    now = [next(at)]

    class Times(tuple[float, ...]):
        idle = property(lambda self: self[1])
        iowait = 0.0

    def cpu_times() -> Times:
        busy, idle, _ = now[0]
        return Times((busy, idle))

    def own_times() -> SimpleNamespace:
        own = now[0][2]
        now[0] = next(at, now[0])
        return SimpleNamespace(user=own, system=0.0, children_user=0.0, children_system=0.0)

    monkeypatch.setattr(telemetry_module, "psutil", SimpleNamespace(cpu_times=cpu_times))
    monkeypatch.setattr(telemetry_module, "os", SimpleNamespace(times=own_times))
    return LoadMeter()


@pytest.mark.parametrize(
    ("end", "share"),
    [
        ((110.0, 110.0, 10.0), 0.0),  # all that was done was done here
        ((110.0, 110.0, 5.0), 0.25),
        ((120.0, 100.0, 0.0), 1.0),
        ((105.0, 115.0, 10.0), 0.0),  # clocks of different grain: never below 0
        ((100.0, 100.0, 0.0), 0.0),  # no time has passed
    ],
)
def test_load_meter_counts_only_others(
    monkeypatch: pytest.MonkeyPatch, end: tuple[float, float, float], share: float
) -> None:
    meter = machine(monkeypatch, [(100.0, 100.0, 0.0), end])
    assert meter.others() == pytest.approx(share)


def test_load_meter_on_this_machine() -> None:
    assert 0 <= LoadMeter().others() <= 1
