"""``ofa-deploy devices``: lists, files, and what machines say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.hardware import device_names, load_device

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


def test_this_machine_is_as_its_file_says(cli: Cli) -> None:
    assert "as its file says" in cli("devices", "check", "local").stdout


def test_your_own_file_is_held_against_the_machine(cli: Cli, own: Callable[..., None]) -> None:
    own(more="cores = [4000]\n")
    done = cli("devices", "check", "desk", "--format", "json")
    assert "desk is not ready to be measured: there is no core 4000" in done.error(4)
    assert [row["verdict"] for row in json.loads(done.stdout)] == ["error"]


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
