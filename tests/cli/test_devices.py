"""``ofa-deploy devices``: lists, files, and what machines say."""

import json
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy import profiling
from ofa_deploy.hardware import Telemetry, device_names, load_device
from ofa_deploy.profiling import RemoteTarget
from tests.profiling.fakes import agent

Cli = Callable[..., Any]

OWN = """
extends = "cpu-x86"
schema = "device/1"
id = "desk"
name = "The one on my desk"
connection = "{connection}"
"""


@pytest.fixture
def own(here: Path) -> Callable[..., None]:
    """Writes ./devices/desk.toml."""

    def write(connection: str = "local", more: str = "") -> None:
        (here / "devices").mkdir(exist_ok=True)
        (here / "devices" / "desk.toml").write_text(OWN.format(connection=connection) + more)

    return write


def test_all_devices_are_listed_alike(cli: Cli) -> None:
    rows = json.loads(cli("devices", "--format", "json").stdout)
    assert rows == json.loads(cli("devices", "list", "--format", "json").stdout)
    assert [row["device"] for row in rows] == list(device_names())
    known = {row["device"]: row for row in rows}
    assert known["jetson-nano"]["supported"] == "no"
    assert known["local"]["verified"] == "yes"
    assert known["jetson-orin-nano"]["verified"] == "not yet"


def test_a_bad_file_hides_no_other_device(cli: Cli, own: Callable[..., None], here: Path) -> None:
    own()
    (here / "devices" / "bad.toml").write_text('schema = "device/1"\nspeed = 3\n')
    (here / "devices" / "cut.toml").write_text("id = ")
    made = cli("devices", "--format", "json")
    assert "2 of" in (message := made.error(1)) and "cannot be used: bad, cut" in message
    names = [row["device"] for row in json.loads(made.stdout)]
    assert set(device_names()) - set(names) == {"bad", "cut"}
    assert "desk" in names
    assert any(line.startswith("devices/bad.toml: ") for line in made.stderr.splitlines())
    assert any(line.startswith("devices/cut.toml: not read") for line in made.stderr.splitlines())


def test_a_file_is_shown_whole(cli: Cli) -> None:
    (shown,) = json.loads(cli("devices", "show", "jetson-nano", "--format", "json").stdout)
    device = load_device("jetson-nano")
    assert shown == device.model_dump(mode="json", by_alias=True) | {"refusal": device.refusal}
    told = cli("devices", "show", "jetson-nano")
    assert "is not supported: JetPack 4" in told.stderr
    assert "JetPack 4" in told.stdout


def test_this_machine_is_asked(cli: Cli) -> None:
    done = cli("devices", "probe", "local", "--format", "json")
    (found,) = json.loads(done.stdout)
    assert found["cores"] >= 1 and found["processor"]
    assert found["runtimes"].keys() == {"onnxruntime", "openvino"}
    assert "ofa-deploy profile --space mbv3-nano-32 --device local" in done.stderr
    assert "onnxruntime " in cli("devices", "probe", "local").stdout


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing else runs, and every engine is there."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


def test_a_busy_machine_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (4000.0, 0.0, 0.0))
    done = cli("devices", "check", "local", "--format", "json")
    assert "busy: 4000 processes want its" in json.loads(done.stdout)[-1]["what"]
    assert "not ready" not in done.stderr


@pytest.mark.usefixtures("quiet")
def test_this_machine_is_as_its_file_says(cli: Cli) -> None:
    assert "as its file says" in cli("devices", "check", "local").stdout


@pytest.mark.usefixtures("quiet")
def test_your_own_file_is_held_against_the_machine(cli: Cli, own: Callable[..., None]) -> None:
    own(more="cores = [4000]\n")
    done = cli("devices", "check", "desk", "--format", "json")
    assert "desk is not ready to be measured: there is no core 4000" in done.error(4)
    assert json.loads(done.stdout)[0]["verdict"] == "error"


# -- behind an agent --------------------------------------------------------------------------


@pytest.fixture
def behind(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """An agent that says what it is told to say is wherever a device file leads."""
    (here / "devices").mkdir()
    text = BOARD.replace("cpu-x86", "jetson-orin-nano")
    (here / "devices" / "board.toml").write_text(text)

    def say(changed: str = "") -> None:
        hello = "hello['cores'] = 8\nhello['telemetry'] = {'state': STATE}\n" + changed
        transport = agent(f"\nSTATE = {STATE!r}\n{hello}\n")
        monkeypatch.setattr(profiling, "open_target", lambda device: RemoteTarget(transport))

    return say


STATE = {"power_mode": "15W", "jetson_clocks": "on", "clocks": "fixed"}
BOARD = """
extends = "cpu-x86"
schema = "device/1"
id = "board"
connection = "ssh://board"
cores = [7]
power.mode = "15W"
"""
LIMIT = "nothing tells how hot it is: its limit of 85 °C holds nothing up"


@pytest.mark.parametrize(
    ("changed", "error", "what"),
    [
        ("", False, LIMIT),
        ("hello['telemetry']['temperatures_c'] = {'tj': 91.5}", False, "91.5 °C, above the limit"),
        ("hello['telemetry']['throttled'] = ['over-current']", False, "held down: over-current"),
        ("hello['telemetry']['state']['power_mode'] = '7W'", True, "expected power mode 15W, foun"),
        (
            "hello['telemetry']['state']['clocks'] = 'free'",
            True,
            "expected fixed clocks, found",
        ),
        ("hello['cores'] = 4", True, "there is no core 7: it has 4"),
        ("hello['kind'] = 'cpu'", True, "expected a device of kind jetson, found cpu"),
        ("hello['architecture'] = 'x86_64'", True, "a processor of aarch64, found x86_64"),
        ("hello['python'] = '3.7.1'", True, "expected Python 3.8 or later, found 3.7.1"),
        ("hello['runtimes'] = {'openvino': '1.0'}", True, "found openvino in its Python 3.10.12"),
        ("hello['load'] = 7.5", False, "busy: 7.5 processes want its 8 cores"),
    ],
)
def test_a_device_behind_an_agent_is_checked_as_whole(
    cli: Cli, behind: Callable[..., None], changed: str, error: bool, what: str
) -> None:
    behind(changed)
    done = cli("devices", "check", "board", "--format", "json")
    rows = json.loads(done.stdout)
    assert any(what in row["what"] and (row["verdict"] == "error") is error for row in rows), rows
    assert ("not ready to be measured" in done.stderr) is error


def test_a_device_behind_an_agent_tells_as_much(cli: Cli, behind: Callable[..., None]) -> None:
    behind("hello['telemetry']['temperatures_c'] = {'tj': 48.0}")
    (there,) = json.loads(cli("devices", "probe", "board", "--format", "json").stdout)
    (here,) = json.loads(cli("devices", "probe", "local", "--format", "json").stdout)
    assert here.keys() - there.keys() <= {item.name for item in fields(Telemetry)}
    assert there["kind"] == "jetson"
    assert there["temperatures_c"] == {"tj": 48.0}
    assert there["state"] == STATE
    assert there["sensors"] == ["linux", "tegrastats"]


@pytest.mark.parametrize(
    ("engines", "asked"),
    [
        ({"onnxruntime": "1.19.2"}, "--runtime onnxruntime-tensorrt --precision fp32"),
        ({"onnxruntime": "1.19.2", "tensorrt": "10.3.0"}, "--runtime tensorrt --precision fp32"),
        ({}, "--runtime tensorrt --precision fp32"),
    ],
)
def test_what_is_proposed_is_offered_there(
    cli: Cli, behind: Callable[..., None], engines: dict[str, str], asked: str
) -> None:
    """profile's own default may not be, as on an NVIDIA GPU."""
    behind(f"hello['runtimes'] = {engines!r}")
    said = cli("devices", "probe", "board").stderr
    assert f"ofa-deploy profile --space mbv3-nano-32 --device board {asked}\n" in said


@pytest.mark.parametrize("command", ["probe", "check"])
@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("jetson-orin-nano", 1, "is a kind of machine, and no address is known"),
        ("nowhere", 1, "unknown device 'nowhere'"),
        ("ssh://-oProxyCommand=x@y", 1, "expected 'local' or ssh://"),
        ("ssh://user:secret@host", 1, ""),
    ],
)
def test_what_is_no_device_is_refused(
    cli: Cli, command: str, name: str, code: int, message: str
) -> None:
    said = cli("devices", command, name).error(code)
    assert message in said and "secret" not in said
