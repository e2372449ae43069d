"""``ofa-deploy tables``: what list, show, diff and help say."""

import csv
import io
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer

from ofa_deploy.cli._legend import MOVED
from ofa_deploy.cli.main import app
from ofa_deploy.files import shipped
from ofa_deploy.hardware import LatencyTable
from ofa_deploy.predict import latency_model
from ofa_deploy.space import get_space
from tests.cli.tables.edits import SPACE, Cli, edited, next_commands

# -- list and show --------------------------------------------------------------------------


def test_tables_are_listed_with_the_next_command(cli: Cli, table: Path, here: Path) -> None:
    own = here / "latency_tables" / "local" / "own.json"
    own.parent.mkdir(parents=True)
    shutil.copy(table, own)
    made = cli("tables", "--format", "json")
    rows = json.loads(made.stdout)
    assert rows[0]["table"] == str(own)
    assert (rows[0]["space"], rows[0]["device"], rows[0]["networks"]) == (SPACE, "local", 48)
    assert next_commands(made.stderr) == [["ofa-deploy", "tables", "show", rows[0]["table"]]]


def test_a_list_tells_error_age_and_origin(
    cli: Cli, table: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = here / "latency_tables" / "local"
    folder.mkdir(parents=True)
    measured = LatencyTable.load(table)
    theirs = {"networks": (), "source": "elsewhere"}
    for name, made in {
        "new": measured.model_copy(update={"date": datetime.now(UTC).isoformat()}),
        "old": measured.model_copy(update={"date": "2020-02-29T10:00:00"}),
        "undated": measured.model_copy(update={"date": "spring"}),
        "of-others": measured.model_copy(update=theirs),
    }.items():
        made.save(folder / f"{name}.json")
    made = cli("tables", "list", "--format", "json")
    assert made.stdout == cli("tables", "--format", "json").stdout
    rows = {Path(row["table"]).stem: row for row in json.loads(made.stdout)}
    stale = {name: row["stale"] for name, row in rows.items() if row["from"] != "elsewhere"}
    assert stale == {"new": "no", "old": "maybe", "of-others": None, "undated": None}
    assert rows["new"]["age_days"] == 0 and rows["old"]["age_days"] > 2000
    judged = latency_model(get_space(SPACE), measured).holdout
    assert judged and rows["new"]["error_%"] == pytest.approx(judged.mape, abs=0.01)
    assert rows["of-others"]["error_%"] is None
    assert {name: rows[name]["from"] for name in stale} == {
        **dict.fromkeys(("new", "old", "undated"), "here"),
        "of-others": "imported",
    }
    assert "elsewhere" in {row["from"] for row in rows.values()}
    assert "stale maybe: more than 90 days old" in made.stderr
    monkeypatch.setenv("COLUMNS", "100")
    listed = cli("tables", "list")
    assert next_commands(listed.stderr)[0][3] == "latency_tables/local/new.json"
    printed = listed.stdout
    assert "2020-02-29" in printed and "new.json" in printed
    assert re.search(r"of-others.json +50 +imported", printed)


def test_a_shipped_table_in_a_clone_is_listed_once_and_not_as_measured_here(
    cli: Cli, table: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = here / "latency_tables"
    for name, date in (("a", "2026-01-01"), ("b", "2026-02-01")):
        made = LatencyTable.load(table).model_copy(update={"date": f"{date}T10:00:00+00:00"})
        made.save(clone / "local" / f"{name}.json")
    shutil.copytree(shipped("latency_tables"), clone, dirs_exist_ok=True)
    listed = cli("tables", "list", "--format", "json")
    rows = json.loads(listed.stdout)
    assert len({(row["device"], row["file"]) for row in rows}) == len(rows)
    assert {Path(row["table"]).stem for row in rows if row["from"] == "here"} == {"a", "b"}
    assert next_commands(listed.stderr)[0][3] == str(clone / "local" / "b.json")


def test_show_ranks_by_lost_time(cli: Cli, table: Path) -> None:
    made = cli("tables", "show", table, "--format", "json")
    rows = json.loads(made.stdout)
    assert len(rows) == len(LatencyTable.load(table).blocks)
    lost = [row["lost_ms"] for row in rows]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 0
    assert all(row["gmacs_per_s"] * row["ms"] * 1e6 == pytest.approx(row["macs"]) for row in rows)
    assert "24 hold-out networks: mean error" in made.stderr
    assert "onnxruntime" in made.stderr
    assert next_commands(made.stderr) == [["ofa-deploy", "tables", "check", str(table)]]


@pytest.mark.parametrize("column", ["ms", "macs", "gmacs_per_s"])
def test_show_sorts_by_any_column(cli: Cli, table: Path, column: str) -> None:
    made = cli("tables", "show", table, "--sort", column, "--top", 5, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(made.stdout)))
    values = [float(row[column]) for row in rows]
    assert len(values) == 5
    assert values == sorted(values, reverse=True)


def test_show_for_people_is_short(cli: Cli, table: Path) -> None:
    made = cli("tables", "show", table)
    assert f"25 of {len(LatencyTable.load(table).blocks)} blocks by lost_ms" in made.stdout


def test_show_of_an_unknown_column_names_the_nearest(cli: Cli, table: Path) -> None:
    message = cli("tables", "show", table, "--sort", "gmacs_s").error(1)
    assert "unknown column 'gmacs_s'; did you mean gmacs_per_s" in message


# -- diff -----------------------------------------------------------------------------------


def test_diff_tells_the_factor_and_the_blocks(cli: Cli, table: Path) -> None:
    before = LatencyTable.load(table)
    key = max(before.blocks, key=lambda each: before.blocks[each].ms)

    def change(value: dict[str, Any]) -> None:
        value["blocks"][key]["ms"] *= 1.5
        value["conditions"]["runtime_version"] = "99"

    before.scaled(1.2).save("after.json")
    edited(Path("after.json"), change)
    made = cli("tables", "diff", table, "after.json", "--format", "json")
    assert made.code == 0, made.stderr
    (row,) = json.loads(made.stdout)
    assert row["name"] == key
    assert row["ratio"] == pytest.approx(1.8)
    assert row["moved_ms"] == pytest.approx(0.6 * before.blocks[key].ms)
    assert f"runtime_version ({before.conditions.runtime_version}, 99)" in made.stderr
    assert "all blocks together: +20.0%, beyond the noise" in made.stderr
    assert all(set(MOVED) <= set(row) for row in json.loads(made.stdout))
    every = json.loads(
        cli("tables", "diff", table, "after.json", "--all", "--format", "json").stdout
    )
    assert len(every) == len(before.blocks) + len(before.networks)


def test_diff_of_equal_tables_is_empty(cli: Cli, table: Path) -> None:
    made = cli("tables", "diff", table, table, "--format", "json")
    assert json.loads(made.stdout) == []
    assert "conditions that differ: none" in made.stderr
    assert "within the noise" in made.stderr


def test_diff_of_two_spaces_compares_what_both_have(cli: Cli, table: Path) -> None:
    def change(value: dict[str, Any]) -> None:
        value.update(fingerprint="0" * 16, space="other")
        value["blocks"].pop(next(iter(value["blocks"])))

    shutil.copy(table, "other.json")
    edited(Path("other.json"), change)
    made = cli("tables", "diff", table, "other.json")
    assert f"spaces differ ({SPACE}, other)" in made.stderr
    assert "1 are only in the first, 0 only in the second" in made.stderr


# -- help -----------------------------------------------------------------------------------
COMMANDS = ("list", "show", "import", "export", "diff", "check")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example(cli: Cli, command: str) -> None:
    made = cli("tables", command, "-h")
    text = " ".join(made.stdout.split())
    assert f"Example: ofa-deploy tables {command}" in text
    group: Any = typer.main.get_command(app)
    options = group.commands["tables"].commands[command].params
    assert [each.name for each in options if not getattr(each, "help", "")] == []


def test_help_lists_the_commands(cli: Cli) -> None:
    text = cli("tables", "--help").stdout
    assert all(re.search(rf"^  {command} ", text, re.MULTILINE) for command in COMMANDS)
