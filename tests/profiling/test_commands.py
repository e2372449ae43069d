"""``profile`` and ``devices`` over real SSH, as a user types them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ofa_deploy.cli.main import app
from ofa_deploy.hardware import LatencyTable
from ofa_deploy.profiling.remote.ssh import Ssh
from ofa_deploy.space import get_space

NANO = get_space("mbv3-nano-32")
DEVICE = """
schema = "device/1"
id = "box"
name = "A bare Python behind SSH"
kind = "any"
connection = "ssh://device"
interpreter = "{interpreter}"
runtimes = ["onnxruntime", "openvino"]
precisions = ["fp32"]
"""


@pytest.fixture
def command(device: Ssh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command where ./devices/box.toml is the device, and ssh has the test's settings."""
    real, config = shutil.which("ssh"), tmp_path / "config"
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(f"#!/bin/sh\nexec '{real}' -F '{config}' \"$@\"\n")
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    work = tmp_path / "work"
    (work / "devices").mkdir(parents=True)
    text = DEVICE.format(interpreter=tmp_path / "bare3")
    (work / "devices" / "box.toml").write_text(text)
    monkeypatch.chdir(work)
    return lambda *args: CliRunner().invoke(app, [str(arg) for arg in args])


def test_a_device_behind_ssh_is_asked(command: Callable[..., Result]) -> None:
    done = command("devices", "probe", "box", "--format", "json")
    assert done.exit_code == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["runtimes"].keys() == {"onnxruntime"}
    checked = command("devices", "check", "box")
    assert checked.exit_code in (0, 4), checked.stderr  # 4 while this machine is busy
    assert "Traceback" not in checked.stdout + checked.stderr


def test_a_space_is_profiled_behind_ssh(command: Callable[..., Result]) -> None:
    made = command(
        *("profile", "--space", NANO.name, "--device", "box", "--minutes", 0.1),
        *("--calibration", 4, "--holdout", 9, "--out", "box.json"),
    )
    if made.exit_code == 4:  # the same machine, too busy to be measured
        assert "noisy" in made.stderr
        return
    assert made.exit_code == 0, made.stderr
    table = LatencyTable.load(Path("box.json"))
    assert table.conditions.device == "box"
    assert table.blocks.keys() == {block.key for block in NANO.blocks()}
    assert len(table.networks) == 13
    assert not list(Path("latency_tables").rglob("*.jsonl")), "the journal is what the table holds"


def test_an_engine_that_is_not_there_is_named(command: Callable[..., Result]) -> None:
    done = command("profile", "--space", NANO.name, "--device", "box", "--runtime", "openvino")
    assert done.exit_code == 4
    assert "has no openvino (engines that it has: onnxruntime)" in done.stderr
    refused = command("profile", "--space", NANO.name, "--device", "box", "--precision", "int8")
    assert "device box has no precision 'int8'; it offers: fp32" in refused.stderr
