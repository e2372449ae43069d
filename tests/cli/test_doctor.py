"""``ofa-deploy doctor``, ``--version`` and what a shell completes."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

from ofa_deploy import __version__
from ofa_deploy.cli._completion import NAMES
from ofa_deploy.cli.main import app
from ofa_deploy.errors import MissingDependencyError
from ofa_deploy.hardware import device_names, identify, processor_name
from ofa_deploy.space import get_space, space_names
from tests.tables import SOMEWHERE, table_of

Cli = Callable[..., Any]
doctor: Any = importlib.import_module("ofa_deploy.cli.doctor")


def _found(cli: Cli, *needed: str, code: int = 0) -> dict[str, dict[str, str]]:
    made = cli("doctor", *needed, "--format", "json")
    assert made.code == code, made.stderr
    return {row["what"]: row for row in json.loads(made.stdout)}


def test_this_machine_is_told(cli: Cli) -> None:
    found = _found(cli)
    assert list(found) == list(doctor.CHECKS)
    assert identify().processor in found["machine"]["found"]
    assert found["onnxruntime"]["found"] == metadata.version("onnxruntime")
    assert metadata.version("torch").partition("+")[0] in found["torch"]["found"]
    assert found["packages"]["status"] == "good"
    assert all(row["purpose"] for row in found.values())
    assert all(row["mend"] for row in found.values() if row["status"] == "missing")
    assert not any(row["status"] == "broken" for row in found.values())


def test_the_table_names_what_to_install(
    cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(here))
    made = cli("doctor")
    assert made.code == 0
    assert "no ssh on the PATH" in made.stdout
    assert "ssh, to measure on devices over SSH: sudo apt install openssh-client" in made.stderr


def test_what_is_asked_for_must_work(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("doctor", "onnxruntime", "torch").code == 0
    monkeypatch.setenv("PATH", str(here))
    said = cli("doctor", "onnxruntime", "ssh").error(4)
    assert "ssh: expected it to work, found no ssh on the PATH; mend it with: sudo apt" in said
    assert cli("doctor").code == 0


def test_an_unknown_check_is_refused(cli: Cli) -> None:
    assert "unknown check 'openvno'; did you mean openvino or " in cli("doctor", "openvno").error(1)


def test_an_engine_that_is_not_installed_is_no_fault(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise MissingDependencyError(
            "openvino is not installed (no); run: pip install 'ofa-deploy[openvino]'"
        )

    monkeypatch.setattr("ofa_deploy.runtimes.openvino.openvino", absent)
    row = _found(cli)["openvino"]
    assert (row["status"], row["mend"]) == ("missing", "pip install 'ofa-deploy[openvino]'")
    _found(cli, "openvino", code=4)


def test_an_engine_that_does_not_load_is_broken(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(name: str) -> None:
        raise ImportError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr("ofa_deploy.runtimes.get_runtime", breaks)
    said = cli("doctor").error(4)
    assert "onnxruntime: expected it to work, found libgomp.so.1" in said


def test_a_required_package_that_is_gone_is_broken(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_there", lambda name: name != "safetensors")
    said = cli("doctor").error(4)
    assert "packages: expected it to work, found safetensors not installed" in said


def test_counters_that_may_not_be_read_are_told_apart(tmp_path: Path) -> None:
    assert doctor._energy(tmp_path).status is doctor.Status.none
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "energy_uj").mkdir()  # which nobody can read as a file
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    found = doctor._energy(tmp_path)
    assert found.status is doctor.Status.missing
    assert found.mend.startswith("sudo chmod a+r ")
    (zone / "energy_uj").rmdir()
    (zone / "energy_uj").write_text("1000\n")
    assert doctor._energy(tmp_path) == doctor.Found(doctor.Status.good, "processor by its counter")


def test_the_driver_is_read(tmp_path: Path) -> None:
    assert doctor._driver(tmp_path / "version") == ""
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX  Kernel Module  1.2.3\nGCC 12\n")
    assert doctor._driver(tmp_path / "version") == "NVIDIA UNIX Kernel Module 1.2.3"


def test_a_device_file_that_does_not_load_is_named(cli: Cli, here: Path) -> None:
    (here / "devices").mkdir()
    (here / "devices" / "desk.toml").write_text("id = 3")
    row = _found(cli)["devices"]
    assert row["status"] == "warning" and "desk.toml" in row["found"]


def test_tables_of_this_folder_are_counted(cli: Cli, here: Path) -> None:
    row = _found(cli)["tables"]
    assert row["status"] == "none" and row["mend"].startswith("ofa-deploy profile")
    (here / "latency_tables" / "local").mkdir(parents=True)
    (here / "latency_tables" / "local" / "a.json").write_text("{}")
    assert re.search(r"none measured on this machine.*\b1 damaged", _found(cli)["tables"]["found"])
    conditions = SOMEWHERE.model_copy(update={"processor": processor_name()})
    mine = table_of(get_space("mbv3-nano-32"), lambda block: 1.0, conditions=conditions)
    mine.save(here / "latency_tables" / "local" / "a.json")
    row = _found(cli)["tables"]
    assert row["status"] == "good" and row["found"].startswith("1 measured on this machine")


def test_version_tells_those_of_the_libraries(cli: Cli) -> None:
    first, *others = cli("--version").stdout.splitlines()
    assert first == f"ofa-deploy {__version__}"
    told = dict(line.split(maxsplit=1) for line in others)
    assert told["torch"] == metadata.version("torch")
    assert told["onnxruntime"] == metadata.version("onnxruntime")
    assert {"python", "onnx", "openvino", "tensorrt", "tensorrt-rtx"} <= told.keys()


def test_version_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from ofa_deploy.cli import _versions

    monkeypatch.setitem(_versions._DISTRIBUTIONS, "torch", ("no-such-distribution",))
    assert _versions.engine_versions()["torch"] == ""
    assert "torch         not installed" in _versions.version_text()


def _bash(words: str, *python: str) -> "subprocess.CompletedProcess[str]":
    """What bash asks when Tab is pressed behind ``words``."""
    variables = {
        "_OFA_DEPLOY_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    code = "import sys; sys.argv[0] = 'ofa-deploy'; from ofa_deploy.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, *python, "-c", code],
        env=os.environ | variables | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_completion_in_a_shell_is_light() -> None:
    done = _bash("ofa-deploy profile --device jetson-o", "-X", "importtime")
    assert done.stdout.split() == ["jetson-orin-nano", "jetson-orin-nx"]
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.split("\n")}
    assert "typer" in loaded
    assert not loaded & {"torch", "onnx", "matplotlib", "pandas"}


def _offered(command: str, parameter: str, incomplete: str) -> list[str]:
    group: Any = typer.main.get_command(app)
    for name in command.split():
        group = group.commands[name]
    found = next(one for one in group.params if one.name == parameter)
    return [item.value for item in found.shell_complete(None, incomplete)]


@pytest.mark.parametrize(
    ("command", "parameter", "incomplete", "offered"),
    [
        ("train", "space", "ofa-mbv3", ["ofa-mbv3-w1.0", "ofa-mbv3-w1.2"]),
        ("search", "space", "", sorted(space_names())),
        ("spaces", "names", "nowhere", []),
        ("devices check", "name", "", sorted(device_names())),
        ("devices show", "name", "raspberry-pi-5", ["raspberry-pi-5"]),
        ("evaluate", "runtime", "open", ["openvino"]),
        ("export", "target", "openvino-", ["openvino-fp16", "openvino-int8"]),
        ("doctor", "needed", "tensorrt-", ["tensorrt-rtx"]),
    ],
)
def test_names_are_completed(
    command: str, parameter: str, incomplete: str, offered: list[str]
) -> None:
    assert _offered(command, parameter, incomplete) == offered


def test_every_completed_name_is_a_parameter_of_some_command() -> None:
    group: Any = typer.main.get_command(app)
    places = {
        (f"{above}{name}", parameter.name)
        for above, commands in _commands(group.commands, "")
        for name, command in commands.items()
        for parameter in command.params
    }
    for command, parameter in NAMES:
        assert any(parameter == known and command in ("", path) for path, known in places), (
            f"{command} {parameter}"
        )


def _commands(commands: dict[str, Any], above: str) -> list[tuple[str, dict[str, Any]]]:
    found = [(above, commands)]
    for name, command in commands.items():
        if hasattr(command, "commands"):
            found += _commands(command.commands, f"{above}{name} ")
    return found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_shown(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    made = _shown(shell)
    assert made.returncode == 0, made.stderr
    assert "ofa-deploy" in made.stdout and "_OFA_DEPLOY_COMPLETE" in made.stdout


def _shown(shell: str) -> "subprocess.CompletedProcess[str]":
    code = "import sys; sys.argv[0] = 'ofa-deploy'; from ofa_deploy.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "--show-completion", shell],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
