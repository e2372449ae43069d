"""The guide to a Jetson, followed with a Python of this machine in the Jetson's place.

Every command that it shows is run, with an engine that is here, through an ``ssh`` that runs right
here what it is asked to; real SSH has tests of its own.
"""

import importlib
import platform
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa_deploy.hardware import LatencyTable
from ofa_deploy.predict import fit_accuracy
from ofa_deploy.profiling import Protocol, RemoteTarget, profile_space
from ofa_deploy.search import evolution
from ofa_deploy.space import get_space
from tests.cli.conftest import Result, in_process
from tests.docs.commands import ROOT, Command, blocks_in, commands_in, parse

GUIDE = ROOT / "docs" / "guides" / "jetson-orin.md"
SHOWN = commands_in(GUIDE)
NANO = get_space("mbv3-nano-32")
GUIDED = "mbv3-nano-32@tensorrt-fp16-b1-t1-15W-jetson_clocks.json"
# What stands for what no machine of the tests has.
STANDS_FOR = {
    "tensorrt": "onnxruntime",
    "fp16": "fp32",
    GUIDED: "mbv3-nano-32@onnxruntime-fp32-b1-t1.json",
    "jetson-orin-nano": "cpu-arm" if platform.machine() == "aarch64" else "cpu-x86",
}
QUICK = Protocol(rounds=2, runs=2, processes=1, visit_ms=1e6, tolerance=10)
# Where figures of so few timings decide: the device may be busy, or another than it was.
UNSURE = {("devices", "check"), ("tables", "check")}

job_module: Any = importlib.import_module("ofa_deploy.cli._profile_job")
measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")
sentinels_module: Any = importlib.import_module("ofa_deploy.profiling.sentinels")


def _replaced(text: str) -> str:
    head, slash, name = text.rpartition("/")
    return head + slash + STANDS_FOR.get(name, name)


def _quickly(space: Any, device: Any, **asked: Any) -> LatencyTable:
    given = {"calibration": 4, "holdout": 2, "protocol": QUICK}
    return profile_space(space, device, **{**asked, **given})


def _device_file(name: str) -> str:
    """As the guide has it, of another host, with this Python, and any power mode."""
    (text,) = blocks_in(GUIDE, "toml")
    lines = [line for line in text.splitlines() if not line.startswith("power.mode")]
    text = "\n".join(lines).replace("my-orin", name).replace("orin.local", f"{name}.local")
    text = text.replace("jetson-orin-nano", STANDS_FOR["jetson-orin-nano"], 1)
    return f'{text}\ninterpreter = "{Path(name).resolve()}"\n'


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the guide works in, and devices that answer."""
    folder = tmp_path_factory.mktemp("desk")
    for part in ("bin", "devices"):
        (folder / part).mkdir()
    ssh = folder / "bin" / "ssh"
    ssh.write_text('#!/bin/sh\nfor command; do :; done\nexec sh -c "$command"\n')
    ssh.chmod(0o755)
    find = evolution.search
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PATH", str(folder / "bin"), prepend=":")
        patch.setattr(job_module, "profile_space", _quickly)
        patch.setattr(measure_module, "_TOO_NOISY", np.inf)
        patch.setattr(RemoteTarget, "chunk", 128)
        patch.setattr(sentinels_module, "Protocol", lambda **given: replace(QUICK, processes=2))
        quick = partial(find, population=20, generations=2, climbs=0)
        patch.setattr("ofa_deploy.search.search", quick)
        for name in ("my-orin", "my-nano"):
            (folder / f"{name}-tmp").mkdir()
            python = folder / name
            python.write_text(
                f"#!/bin/sh\nTMPDIR='{folder}/{name}-tmp' exec '{sys.executable}' \"$@\"\n"
            )
            python.chmod(0o755)
            (folder / "devices" / f"{name}.toml").write_text(_device_file(name))
        archs = NANO.decode(NANO.sample(np.random.default_rng(0), 30))
        accuracy = fit_accuracy(NANO, archs, [40 + np.log(NANO.cost(a).macs) for a in archs])
        accuracy.save(folder / "runs" / "mine" / "accuracy.onnx")
        yield folder


def _stand_in(command: Command) -> tuple[str, ...]:
    """What is run in its place: a run is known here by its accuracy model only."""
    args = tuple(map(_replaced, command.args))
    if args[:3] == ("profile", "--run", "runs/mine"):
        return ("profile", "--space", NANO.name, *args[3:-2])  # its minutes are others
    return tuple(re.sub(r"<= [0-9.]+ ms", "<= 100 ms", arg) for arg in args)


@pytest.fixture(scope="module")
def done(desk: Path) -> dict[str, Result]:
    """What each command said, in the guide's order."""
    once: dict[tuple[str, ...], Result] = {}
    for command in SHOWN:
        args = _stand_in(command)
        if args not in once:
            once[args] = in_process(*args)
    return {command.text: once[_stand_in(command)] for command in SHOWN}


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: command.text)
def test_command_of_the_guide_works(command: Command, done: dict[str, Result]) -> None:
    parse(command.args)
    result = done[command.text]
    good = {0, 1, 4} if command.args[:2] in UNSURE else {0}
    assert result.code in good, result.stderr
    assert "Traceback" not in result.stderr
    if result.code:
        result.error(result.code)


def test_it_leaves_what_the_guide_speaks_of(desk: Path, done: dict[str, Result]) -> None:
    for device in ("my-orin", "my-nano"):
        table = STANDS_FOR[GUIDED]
        conditions = LatencyTable.load(desk / "latency_tables" / device / table).conditions
        assert conditions.device == device
        assert not list((desk / f"{device}-tmp").iterdir()), "nothing stays on a device"
        assert (desk / "runs" / "mine" / "fronts" / f"best-{device}.front.json").is_file()
    assert (desk / "runs" / "mine" / "fronts" / "best.front.json").is_file()


def test_the_device_file_of_the_guide_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands there, Jetson and power mode included."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    (text,) = blocks_in(GUIDE, "toml")
    (tmp_path / "devices" / "my-orin.toml").write_text(text)
    shown = in_process("devices", "show", "my-orin", "--format", "csv")
    assert shown.code == 0, shown.stderr
    assert "ssh://me@orin.local" in shown.stdout and "15W" in shown.stdout


def test_what_the_guide_says_of_a_jetson_is_in_its_file(done: dict[str, Result]) -> None:
    from ofa_deploy.hardware import load_device

    device = load_device("jetson-orin-nano")
    assert device.power.clocks == "fixed" and "15W" in device.power.modes
    assert (device.cool_down_s, device.limits.temperature_c) == (10, 85)
    assert {"tensorrt", "onnxruntime"} <= set(device.runtimes)
    assert not device.verified, "once a Jetson was measured, the guide must say so"


def test_errors_that_the_guide_explains_are_errors_there_are() -> None:
    """By their words, in the program's text."""
    rows = re.findall(r"^\| `([^`]+)` \|", GUIDE.read_text(), re.M)
    source = "".join(
        re.sub(r"\"\s*f?\"", "", path.read_text()) for path in (ROOT / "ofa_deploy").rglob("*.py")
    )
    assert len(rows) >= 8
    for row in rows:
        for part in re.split(r" tensorrt |\.\.\.[),]*", row):
            assert part.strip() in source, row


def test_commands_are_written_for_a_shell() -> None:
    assert len(SHOWN) >= 12
    for command in SHOWN:
        assert shlex.split(shlex.join(command.args)) == list(command.args)
