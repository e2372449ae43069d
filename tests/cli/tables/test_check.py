"""``ofa-deploy tables check``: what is missing, odd or has moved, and its repair."""

import csv
import importlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.cli._legend import SENTINELS
from ofa_deploy.hardware import LatencyTable, LoadMeter
from ofa_deploy.space import get_space
from tests.cli.tables.edits import SPACE, Cli, at_speed, edited, next_commands


def test_check_of_a_missing_block_fails_and_names_it(cli: Cli, table: Path) -> None:
    key = [block.key for block in get_space(SPACE).blocks()][5]
    edited(table, lambda value: value["blocks"].pop(key))
    made = cli("tables", "check", table, "--format", "json")
    message = made.error(1)
    assert key in message
    assert f"ofa-deploy profile --space {SPACE} --classes" in message
    assert json.loads(made.stdout)[0] == {
        "finding": "missing",
        "level": "error",
        "block": key,
        "ms": None,
        "what": "a block of the space that the table lacks",
    }


def test_check_of_what_looks_odd_is_a_warning(cli: Cli, table: Path) -> None:
    key = "mbconv_16x16_16-64-24_k5_s2_relu"
    smaller = "mbconv_16x16_16-64-24_k3_s2_relu"
    edited(table, lambda v: v["blocks"][key].update(ms=v["blocks"][smaller]["ms"] / 2))
    made = cli("tables", "check", table, "--format", "csv")
    assert made.code == 0, made.stderr
    rows = list(csv.DictReader(io.StringIO(made.stdout)))
    assert (key, "not monotone", "warning") in [
        (row["block"], row["finding"], row["level"]) for row in rows
    ]
    assert next_commands(made.stderr) == [
        ["ofa-deploy", "tables", "check", str(table), "--device", "local"]
    ]


def test_check_of_a_space_of_ones_own_asks_for_it(cli: Cli, table: Path) -> None:
    edited(table, lambda value: value.update(space="my-own"))
    assert "name it with --space NAME" in cli("tables", "check", table).error(1)
    made = cli("tables", "check", table, "--space", SPACE)
    assert made.code == 0, made.stderr


def test_check_on_the_unchanged_device_holds(cli: Cli, table: Path, workers: Any) -> None:
    made = cli("tables", "check", table, "--device", "local", "--format", "json")
    assert made.code == 0, made.stderr
    rows = json.loads(made.stdout)
    assert len(rows) == 10
    assert {row["beyond"] for row in rows} == {"no"}
    assert set(SENTINELS) <= set(rows[0])
    assert "the device runs as in the table" in made.stderr
    assert workers.started == 3


def test_slower_device_is_told_and_repaired(cli: Cli, table: Path, workers: Any) -> None:
    at_speed(workers, "1.4")
    message = cli("tables", "check", table, "--device", "local").error(1)
    assert "off by the factor 1.4 " in message and "--repair" in message
    made = cli("tables", "check", table, "--device", "local", "--repair", "now.json")
    assert made.code == 0, made.stderr
    assert "1.4 times the table's latencies" in made.stderr
    old, new = LatencyTable.load(table), LatencyTable.load("now.json")
    assert new.scale == pytest.approx(1.4)
    for key, entry in old.blocks.items():
        assert new.blocks[key].ms == pytest.approx(1.4 * entry.ms)
    assert "all times were multiplied by 1.4" in cli("tables", "show", "now.json").stderr
    again = cli("tables", "check", "now.json", "--device", "local", "--repair", "no.json")
    assert again.code == 0
    assert "nothing to repair" in again.stderr
    assert not Path("no.json").exists()


def test_a_busy_device_repairs_nothing(
    cli: Cli, table: Path, workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadMeter, "others", lambda self: 0.81)
    at_speed(workers, "1.271")
    made = cli("tables", "check", table, "--device", "local", "--repair", "no.json")
    assert "1.27 times the table's latencies, but other programs are at work" in made.error(4)
    assert not Path("no.json").exists()


@pytest.mark.parametrize(("name", "was"), [("power_mode", "15W"), ("runtime_version", "0.1")])
def test_a_table_of_other_conditions_is_not_repaired(
    cli: Cli, table: Path, workers: Any, name: str, was: str
) -> None:
    """The times would be of this mode or version, and the names of the former."""
    edited(table, lambda value: value["conditions"].update({name: was}))
    at_speed(workers, "1.4")
    message = cli("tables", "check", table, "--device", "local", "--repair", "no.json").error(1)
    assert f"made under other conditions (table, here): {name} ({was}, " in message
    assert f"profile anew: ofa-deploy profile --space {SPACE}" in message
    assert not Path("no.json").exists()
    assert workers.started == 0


def test_other_kernels_ask_for_a_new_profile(cli: Cli, table: Path, workers: Any) -> None:
    at_speed(workers, "1 + 0.5 * (size % 2)")
    made = cli("tables", "check", table, "--device", "local", "--repair", "no.json")
    message = made.error(1)
    assert "no longer holds" in message
    assert f"ofa-deploy profile --space {SPACE}" in message
    assert not Path("no.json").exists()


def test_busy_device_is_measured_again(
    cli: Cli, table: Path, workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_speed(workers, "1.4")
    profiling: Any = importlib.import_module("ofa_deploy.profiling")
    check, measured = profiling.check_sentinels, []

    def beside_others(*args: Any, **options: Any) -> Any:
        measured.append(check(*args, **options))
        return replace(measured[-1], other_load=0.9 if len(measured) < 3 else 0.0)

    monkeypatch.setattr(profiling, "check_sentinels", beside_others)
    message = cli("tables", "check", table, "--device", "local").error(4)
    assert "but other programs are at work: too noisy to tell" in message
    assert "end what else runs, or add --wait 10" in message
    command: Any = importlib.import_module("ofa_deploy.cli.tables_check")
    monkeypatch.setattr(command, "_PAUSE_S", 0.01)
    measured.clear()
    made = cli("tables", "check", table, "--device", "local", "--wait", 5)
    assert "off by the factor" in made.error(1) and len(measured) == 3
    assert made.stderr.count("measuring again in ") == 2


def test_newer_runtime_is_named_before_it_is_measured(cli: Cli, table: Path, workers: Any) -> None:
    edited(table, lambda value: value["conditions"].update(runtime_version="0.1"))
    made = cli("tables", "check", table, "--device", "local")
    assert made.code == 0, made.stderr
    assert "changed since the table was made (table, here): runtime_version (0.1, " in made.stderr


@pytest.mark.parametrize(
    ("edit", "args", "message"),
    [
        (None, ["--repair", "x.json"], "--repair needs --device"),
        (None, ["--device", "lokal"], "did you mean local?"),
        (
            lambda value: value["conditions"].update(processor="Slow Inc."),
            ["--device", "local"],
            "does not speak of this machine (table, here): processor (Slow Inc., ",
        ),
        (
            lambda value: value.update(reference=None, source="csv: x.csv"),
            ["--device", "local"],
            "was imported (csv: x.csv)",
        ),
    ],
)
def test_check_that_cannot_be_made_measures_nothing(
    cli: Cli, table: Path, workers: Any, edit: Any, args: list[str], message: str
) -> None:
    if edit:
        edited(table, edit)
    assert message in cli("tables", "check", table, *args).error(1)
    assert workers.started == 0


def test_check_takes_resolutions_only_with_a_space(cli: Cli, table: Path) -> None:
    assert "--space NAME" in cli("tables", "check", table, "--resolutions", 32).error(1)
