"""``profile`` and ``devices`` over real SSH, as a user types them."""

import importlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ofa_deploy.cli.main import app
from ofa_deploy.hardware import Device, LatencyTable
from ofa_deploy.predict import fit_accuracy
from ofa_deploy.profiling import RemoteTarget, profile_space
from ofa_deploy.profiling.remote.ssh import Ssh
from ofa_deploy.search import FrontFile
from ofa_deploy.space import SearchSpace, get_space
from tests.profiling.places import QUICK

job_module: Any = importlib.import_module("ofa_deploy.cli._profile_job")
measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")
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


def test_several_devices_are_profiled_and_searched(
    command: Callable[..., Result], device: Ssh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that answer, each with a folder of its own, and one that nobody is at."""
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)
    monkeypatch.setattr(job_module, "profile_space", _briefly)
    monkeypatch.setattr(RemoteTarget, "chunk", 128)
    config = (tmp_path / "config").read_text()
    (tmp_path / "config").write_text(config.replace("Host device", "Host device crate"))
    (tmp_path / "crates").mkdir()
    other = tmp_path / "crate3"
    bare = Path(device.python).read_text().replace(f"'{tmp_path / 'tmp'}'", f"'{tmp_path}/crates'")
    other.write_text(bare)
    other.chmod(0o755)
    for name, host, python in (("crate", "crate", other), ("gone", "gone.invalid", other)):
        text = DEVICE.format(interpreter=python).replace("//device", f"//{host}")
        Path(f"devices/{name}.toml").write_text(text.replace('"box"', f'"{name}"'))
    named = ("--device", "box", "--device", "crate")
    made = command("profile", "--space", NANO.name, *named, "--device", "gone")
    assert made.exit_code == 4, made.stderr
    last = made.stderr.splitlines()[-1]
    assert last.startswith("error: 1 of 3 devices failed: gone; finished work is kept, go on with:")
    assert last.endswith(f"ofa-deploy profile --space {NANO.name} --device gone")
    assert "gone: failed: ssh://gone.invalid: no such host is known" in made.stderr
    for name in ("box", "crate"):
        (path,) = Path("latency_tables", name).glob("*.json")
        assert LatencyTable.load(path).conditions.device == name
    assert not list((tmp_path / "crates").iterdir()), "its agent leaves nothing behind"
    archs = NANO.decode(NANO.sample(np.random.default_rng(0), 20))
    accuracy = fit_accuracy(NANO, archs, [40 + np.log(NANO.cost(a).macs) for a in archs])
    accuracy.save(Path("runs/mine/accuracy.onnx"))
    limits = [p for name in ("box", "crate") for p in ("--constraint", f"latency[{name}] <= 1 s")]
    found = command("search", "--run", "runs/mine", *named, *limits)
    assert found.exit_code == 0, found.stderr
    front = FrontFile.load(Path("runs/mine/fronts/best.front.json"))
    for each in front.pareto:
        assert {"latency[box]", "latency[crate]"} <= each.predicted.keys()


def _briefly(space: SearchSpace, device: Device, **asked: Any) -> LatencyTable:
    given = {"calibration": 4, "holdout": 2, "protocol": replace(QUICK, processes=1)}
    return profile_space(space, device, **{**asked, **given})
