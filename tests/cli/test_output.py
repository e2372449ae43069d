"""What goes where: data, messages, tables for people, help."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from ofa_deploy import __version__
from ofa_deploy.cli._output import OutputFormat, emit, quoted
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


# -- streams that fail ----------------------------------------------------------------------


@pytest.fixture
def typed(here: Path) -> Callable[[str], tuple[int, str, str]]:
    """Run a line of bash in which ``$ofa`` is the command: (exit code, stdout, stderr)."""

    def call(line: str) -> tuple[int, str, str]:
        variables = {"ofa": f"{sys.executable} -m ofa_deploy", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return call


Typed = Callable[[str], tuple[int, str, str]]


@pytest.mark.parametrize("command", ["spaces", "spaces --format json", "--help", "--version"])
def test_a_result_that_cannot_be_written_ends_in_one_line(typed: Typed, command: str) -> None:
    code, _, told = typed(f"$ofa {command} > /dev/full")
    assert (code, len(told.splitlines())) == (1, 1), told
    assert told.startswith("error: stdout: expected a place for the result, found 'No space left")
    code, _, told = typed(f"$ofa {command} >&-")
    assert (code, len(told.splitlines())) == (1, 1), told
    assert "found 'Bad file descriptor'; make room there" in told


@pytest.mark.parametrize("command", ["spaces", "spaces --format csv", "spaces --help"])
def test_a_result_that_nobody_reads_ends_in_silence(typed: Typed, command: str) -> None:
    gone = "exec 3> >(:); wait $!;"  # a pipe whose reader has ended
    assert typed(f"{gone} $ofa {command} >&3") == (141, "", "")
    code, head, told = typed(f"$ofa {command} | head -1")
    assert code in (0, 141)
    assert len(head.splitlines()) == 1 and told == ""


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-", "2>&3"])
def test_what_cannot_be_told_decides_nothing(typed: Typed, stderr: str) -> None:
    gone = "exec 3> >(:); wait $!;"
    code, said, _ = typed(f"{gone} $ofa spaces --format json {stderr}")
    assert code == 0 and len(json.loads(said)) == len(space_names())
    assert typed(f"{gone} $ofa spaces nosuch {stderr}") == (1, "", "")
    assert typed(f"{gone} $ofa nosuch {stderr}") == (2, "", "")


def test_training_goes_on_when_nobody_reads_its_progress(
    typed: Typed, photos: Path, here: Path
) -> None:
    train = f"$ofa train --data {photos} --epochs 3 --batch 16 --threads 1"
    gone = "exec 3> >(:); wait $!;"
    for streams, code in (("2>&3", 0), ("2>/dev/full", 0), ("2>&3 >&3", 141)):
        run = here / f"run {streams}".replace("/", "-")
        assert typed(f"{gone} {train} --run {quoted(run)} {streams}")[::2] == (code, "")
        assert {"supernet.safetensors", "curves.png"} <= {path.name for path in run.iterdir()}


def test_a_name_that_the_encoding_lacks_is_replaced(typed: Typed) -> None:
    code, said, told = typed("PYTHONIOENCODING=ascii $ofa spaces compofa-mbv3 --format json")
    assert (code, told) == (0, "") and json.loads(said)
    for how in ("ascii", "latin-1", "utf-8"):
        code, said, told = typed(f"PYTHONIOENCODING={how} $ofa spaces | head -c 9999999")
        assert (code, told) == (0, "") and SPACE in said
    code, _, told = typed("PYTHONIOENCODING=ascii $ofa spaces $'n\\xe9\\u2500'")
    assert code == 1 and "Traceback" not in told and told.count("error: ") == 1


def test_data_survives_an_encoding_that_lacks_its_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    emit([{"name": "caf\u00e9 \udce9"}], OutputFormat.json)
    narrow.seek(0)
    assert json.loads(narrow.read()) == [{"name": "caf\u00e9 \udce9"}]


@pytest.mark.parametrize("columns", ["0", "1", "5"])
def test_a_terminal_without_columns_is_told_something(here: Path, columns: str) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ofa_deploy", "spaces", SPACE],
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": columns, "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 4096):
                said += part
        except OSError:  # as Linux says that the other end is closed
            pass
        assert process.stderr is not None and process.stderr.read() == b""
    os.close(ours)
    assert process.returncode == 0
    assert SPACE in re.sub(r"\x1b\[[0-9;]*m", "", said.decode())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("runs/mine", "runs/mine"),
        ("my run", "'my run'"),
        ("ncaf\udce9 it's", "$'ncaf\\xe9 it\\x27s'"),
        ("a\nb\\", "$'a\\x0ab\\x5c'"),
        ("\ud800", "$'\\xed\\xa0\\x80'"),
        ("", "''"),
    ],
)
def test_names_are_quoted_so_that_they_can_be_pasted(name: str, shown: str) -> None:
    assert quoted(name) == shown
    pasted = subprocess.check_output(["bash", "-c", f"printf %s {shown}"])
    assert pasted == name.encode(
        errors="surrogateescape" if "\ud800" not in name else "surrogatepass"
    )


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
