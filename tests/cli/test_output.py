"""What goes where: data, messages, tables for people, help."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from ofa_deploy import __version__
from ofa_deploy.cli.main import COMMANDS, app
from ofa_deploy.hardware import LatencyTable
from ofa_deploy.space import get_space, space_names
from tests.cli.conftest import asking

ROOT = Path(__file__).resolve().parents[2]
SPACE = "mbv3-nano-32"
NAMES = [command.__name__ for command in COMMANDS]
TRAIN = ("--epochs", 3, "--batch", 16, "--threads", 1)

Cli = Callable[..., Any]


# -- looking --------------------------------------------------------------------------------


def parsed(text: str, how: str) -> list[dict[str, Any]]:
    rows = json.loads(text) if how == "json" else list(csv.DictReader(io.StringIO(text)))
    assert isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    return rows


@pytest.mark.parametrize("how", ["json", "csv"])
def test_data_on_stdout_parses(job: Any, run: Path, cli: Cli, how: str) -> None:
    for command, column in (
        (("spaces",), "space"),
        (("devices",), "device"),
        (("tables", "show", job.table), "block"),
        (("show", job.subnet), "block"),
        (("show", job.subnet, "--table", job.table), "share"),
        (("evaluate", run, "--subnets", 12), "top1"),
        ((*asking(run, job.table), "--no-verify"), "top1_predicted"),
    ):
        made = cli(*command, "--format", how)
        assert made.code == 0, made.stderr
        rows = parsed(made.stdout, how)
        assert rows and all(column in row for row in rows), command


def test_messages_go_to_stderr(job: Any, run: Path, cli: Cli) -> None:
    made = cli(*asking(run, job.table), "--no-verify", "--format", "csv")
    assert "latency table: 24 hold-out networks" in made.stderr
    assert "accuracy model from 12 subnets" in made.stderr
    assert "wrote" in made.stderr
    assert "wrote" not in made.stdout


@pytest.mark.parametrize("command", ["spaces", "devices", "tables", "show"])
def test_tables_for_people(job: Any, cli: Cli, command: str) -> None:
    subject = {"tables": ["show", job.table], "show": [job.subnet]}.get(command, [])
    made = cli(command, *subject)
    expected = {
        "spaces": SPACE,
        "devices": "local",
        "tables": "whole networks",
        "show": "classifier",
    }
    assert made.code == 0
    assert expected[command] in made.stdout


def test_spaces_tells_sizes(cli: Cli) -> None:
    rows = {row["space"]: row for row in json.loads(cli("spaces", "--format", "json").stdout)}
    assert set(rows) == set(space_names())
    space = get_space(SPACE)
    assert rows[SPACE]["networks"] == space.num_archs
    assert rows[SPACE]["macs_max"] == space.cost(space.largest).macs
    assert rows[SPACE]["params_min"] == space.cost(space.smallest).params


def test_tables_shows_the_slowest_blocks_first(job: Any, cli: Cli) -> None:
    made = cli("tables", "show", job.table, "--sort", "ms", "--format", "json")
    times = [row["ms"] for row in json.loads(made.stdout)]
    assert len(times) == len(LatencyTable.load(job.table).blocks)
    assert times == sorted(times, reverse=True)
    assert "onnxruntime" in made.stderr


def test_tables_without_any_says_how_to_make_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa_deploy.hardware.table_files", list)
    made = cli("tables", "--format", "json")
    assert made.code == 0
    assert json.loads(made.stdout) == []
    assert "ofa-deploy profile" in made.stderr


# -- quiet ----------------------------------------------------------------------------------


def test_quiet_is_silent(job: Any, run: Path, cli: Cli, workers: Any, photos: Path) -> None:
    for command in (
        ("train", "--data", photos, "--run", run, *TRAIN),
        ("profile", "--run", run),
        ("export", run / "subnets/best.subnet.json", "--out", "bundle", "--format", "json"),
        ("evaluate", run, "--subnets", 12, "--format", "json"),
        (*asking(run, job.table), "--format", "json"),
        ("compare", *job.fronts, "--out", "p.html"),
    ):
        made = cli(*command, "--quiet")
        assert (made.code, made.stderr) == (0, ""), command
        if "--format" in command:
            assert json.loads(made.stdout)
        elif command[0] != "compare":
            assert made.stdout == ""


def test_quiet_still_tells_errors(cli: Cli) -> None:
    made = cli("train", "--space", "nosuch", "--quiet")
    assert "unknown space" in made.error(1)
    assert len(made.stderr.splitlines()) == 1


# -- help -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help(cli: Cli, name: str, flag: str) -> None:
    made = cli(name, flag)
    assert made.code == 0
    text = " ".join(made.stdout.replace("│", " ").split())
    command = next(command for command in COMMANDS if command.__name__ == name)
    assert (command.__doc__ or "").splitlines()[0].split(":")[0] in text


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_help(name: str) -> None:
    group: Any = typer.main.get_command(app)
    options = [option for option in group.commands[name].params if option.name != "help"]
    assert options or hasattr(group.commands[name], "commands")
    assert [option.name for option in options if not getattr(option, "help", "")] == []


def test_help_lists_the_commands(cli: Cli) -> None:
    made = cli("--help")
    assert made.code == 0
    assert all(re.search(rf"\b{name}\b", made.stdout) for name in NAMES)


def test_version(cli: Cli) -> None:
    made = cli("--version")
    assert made.code == 0
    assert made.stdout.startswith(f"ofa-deploy {__version__}\n")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_in_the_readme(name: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"\bofa-deploy {name}\b", text)
