"""``ofa-deploy tables``: list, show, import, export, diff, check, and the guard before a search."""

import csv
import importlib
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer

from ofa_deploy.cli._legend import MOVED, SENTINELS
from ofa_deploy.cli.main import app
from ofa_deploy.files import shipped
from ofa_deploy.hardware import LatencyTable, LoadMeter, table_csv
from ofa_deploy.predict import latency_model
from ofa_deploy.space import get_space
from ofa_deploy.train import RunFile
from tests.tables import table_of

SPACE = "mbv3-nano-32"
COMMANDS = ("list", "show", "import", "export", "diff", "check")
Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else runs on this machine."""
    monkeypatch.setattr(LoadMeter, "others", lambda self: 0.0)


@pytest.fixture(scope="module")
def measured(cli: Cli, make_workers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of this machine, made by exact workers."""
    import subprocess

    path = tmp_path_factory.mktemp("measured") / "table.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        patch.setattr(subprocess, "Popen", make_workers().popen)
        made = cli("profile", "--space", SPACE, "--out", path)
    assert made.code == 0, made.stderr
    return path


@pytest.fixture
def table(measured: Path, here: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copy(measured, here / "table.json"))


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))
    return path


def at_speed(workers: Any, factor: str) -> None:
    """Measuring processes on a device that takes ``factor`` (Python, of ``size``) times as long."""
    slower = workers.script.replace("    return {", f"    ms *= {factor}\n    return {{", 1)
    assert slower != workers.script
    workers.script = slower


def next_commands(stderr: str) -> list[list[str]]:
    _, _, after = stderr.partition("next:\n")
    return [shlex.split(line) for line in after.splitlines() if line.startswith("  ")]


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


# -- import and export ----------------------------------------------------------------------


def test_export_and_import_give_the_same_blocks(cli: Cli, table: Path, here: Path) -> None:
    made = cli("tables", "export", table, "--out", "table.csv")
    assert made.code == 0, made.stderr
    assert (here / "table.csv").read_text() == table_csv(LatencyTable.load(table))
    assert cli("tables", "export", table).stdout == (here / "table.csv").read_text()
    (following,) = next_commands(made.stderr)
    again = cli(*following[1:], "--out", "again.json")
    assert again.code == 0, again.stderr
    old, new = LatencyTable.load(table), LatencyTable.load("again.json")
    assert new.blocks == old.blocks
    assert new.conditions == old.conditions
    assert new.fingerprint == old.fingerprint


@pytest.fixture
def lookup(here: Path) -> Path:
    """Published tables of a phone at 160 and 164 pixels: a millisecond for each 10 MMACs."""
    space = get_space("ofa-mbv3-w1.2")
    folder = here / "look up"
    folder.mkdir()
    for size in (160, 164):
        lines = []
        for block in space.with_resolutions(size).blocks():
            s, o, cin, cout = block.size, block.out_size, block.in_channels, block.out_channels
            shape = f"input:{s}x{s}x{cin}-output:{o}x{o}x{cout}"
            mid, ms = block.mid_channels, block.macs / 1e7
            match block.kind:
                case "mbconv":
                    named = {
                        f"expanded_conv-{shape}-expand:{mid}-kernel:{block.kernel}-stride:"
                        f"{block.stride}-idskip:{int(block.residual)}-se:{int(block.se > 0)}"
                        f"-hs:{int(block.activation == 'hswish')}": ms
                    }
                case "conv":
                    named = {f"{'Conv' if cin == 3 else 'Conv_1'}-{shape}": ms}
                case _:
                    named = {
                        f"AvgPool2D-input:{s}x{s}x{cin}-output:1x1x{cin}": 0.01,
                        f"Conv_2-input:1x1x{cin}-output:1x1x{mid}": cin * mid / 1e7,
                        f"Logits-input:1x1x{mid}-output:{cout}": mid * cout / 1e7,
                    }
            for key, value in named.items():
                lines += [f"{key}:", "  count: 90", f"  mean: {value}", f"  std: {value / 50}"]
        (folder / f"{size}_lookup_table.yaml").write_text("\n".join(lines) + "\n")
    return folder


PUBLISHED = ("--from", "ofa-yaml", "--space", "ofa-mbv3-w1.2", "--device", "samsung-note10")


def test_import_says_what_it_read_and_what_it_does_not_know(cli: Cli, lookup: Path) -> None:
    made = cli("tables", "import", lookup, *PUBLISHED, "--out", "note10.json")
    assert made.code == 0, made.stderr
    assert made.stdout == ""
    space = get_space("ofa-mbv3-w1.2").with_resolutions(160, 164)
    assert f"{len(space.blocks())} blocks at 160, 164 pixels" in made.stderr
    assert "assumed, since not given: batch 1, threads 1" in made.stderr
    assert "error unknown: no whole network was measured" in made.stderr
    imported = LatencyTable.load("note10.json")
    imported.check_for(space)
    largest = (space.cost(space.largest).macs / 1e7) + 0.01
    assert f" to {largest:.3f} ms" in made.stderr
    for command in next_commands(made.stderr):
        followed = cli(*command[1:])
        assert followed.code == 0, followed.stderr
    shown = cli("tables", "show", "note10.json", "--top", 1)
    assert "imported" in shown.stderr and "ofa-yaml: look up, 2 files" in shown.stderr
    assert "error unknown: no whole network was measured" in shown.stderr


def test_import_goes_where_tables_are_looked_for(cli: Cli, lookup: Path, here: Path) -> None:
    made = cli("tables", "import", lookup, *PUBLISHED, "--resolutions", 164, "--quiet")
    assert (made.code, made.stderr) == (0, "")
    (path,) = (here / "latency_tables").rglob("*.json")
    digits = get_space("ofa-mbv3-w1.2").with_resolutions(164).fingerprint[:8]
    assert path.name == f"ofa-mbv3-w1.2-{digits}@unknown-unknown-b1-t1.json"
    assert path.parent.name == "samsung-note10"
    space = get_space("ofa-mbv3-w1.2").with_resolutions(164)
    assert LatencyTable.load(path).fingerprint == space.fingerprint
    assert "samsung-note10" in cli("tables").stdout


def test_import_keeps_the_resolutions_that_are_asked_for_of_a_run(
    job: Any, cli: Cli, here: Path
) -> None:
    run = shutil.copytree(job.run, here / "run")
    edited(run / "run.json", lambda value: value["space"].update(resolutions=[24, 32]))
    space = RunFile.load(run).search_space
    Path("both.csv").write_text(table_csv(table_of(space, lambda block: block.macs / 1e6)))
    asked = ("--from", "csv", "both.csv", "--run", run, "--device", "board")
    for sizes in ((24,), (24, 32)):
        listed = ",".join(map(str, sizes))
        made = cli("tables", "import", *asked, "--resolutions", listed, "--out", "t.json")
        assert made.code == 0, made.stderr
        assert LatencyTable.load("t.json").resolutions == sizes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--unit", "s"], "too slow to be true"),
        (["--unit", "min"], "unknown unit 'min'"),
        (["--resolutions", "160,168"], "expected as 'Conv-input:168x168x3-output:84x84x24'"),
        (["--device", "../x"], "device: expected lower-case letters"),
        (["--from", "yaml"], "unknown form 'yaml'; did you mean ofa-yaml?"),
        (["--run", "nosuch"], "expected either --space NAME or --run"),
        (["--classes", "10"], "expected as 'Logits-input:1x1x1536-output:10'"),
    ],
)
def test_wrong_import_is_one_line_and_writes_nothing(
    cli: Cli, lookup: Path, here: Path, more: list[str], message: str
) -> None:
    made = cli("tables", "import", lookup, *PUBLISHED, *more, "--out", "x.json")
    assert message in made.error(1)
    assert not (here / "x.json").exists()


def test_damaged_yaml_is_one_line(cli: Cli, lookup: Path) -> None:
    file = lookup / "160_lookup_table.yaml"
    file.write_text('"a\\nerror: b": {mean: .nan}\n')
    message = cli("tables", "import", lookup, *PUBLISHED).error(1)
    assert "160_lookup_table.yaml" in message and "greater than 0" in message


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


# -- check ----------------------------------------------------------------------------------


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


# -- before a search ------------------------------------------------------------------------


@pytest.fixture
def asking(job: Any, tmp_path: Path) -> tuple[object, ...]:
    run = shutil.copytree(job.run, tmp_path / "mine")
    table = LatencyTable.load(job.table)
    assert table.reference is not None
    budget = ("--constraint", f"latency <= {5 * table.reference.ms} ms")
    return ("search", "--run", run, "--table", job.table, *budget, "--format", "json")


def test_search_says_that_the_table_holds(
    cli: Cli, asking: tuple[object, ...], workers: Any
) -> None:
    made = cli(*asking)
    assert made.code == 0, made.stderr
    assert "latency table: the device runs as in the table" in made.stderr
    assert "warning: latency table" not in made.stderr


def test_search_rescales_the_table_of_a_slower_device(
    cli: Cli, asking: tuple[object, ...], workers: Any
) -> None:
    at_speed(workers, "2.0")
    made = cli(*asking)
    assert made.code == 0, made.stderr
    assert "searching with all of it rescaled" in made.stderr
    (row,) = json.loads(made.stdout)
    assert row["predicted_ms"] == pytest.approx(row["measured_ms"], rel=0.1)


def test_search_warns_of_other_kernels(cli: Cli, asking: tuple[object, ...], workers: Any) -> None:
    at_speed(workers, "1 + 0.5 * (size % 2)")
    made = cli(*asking)
    assert re.search(r"warning: latency table: .*profile anew: ofa-deploy profile", made.stderr)


def least_of(table: Path) -> float:
    """The latency that is predicted for the fastest network, in ms."""
    return latency_model(get_space(SPACE).with_classes(3), LatencyTable.load(table)).bounds()[0]


@pytest.mark.parametrize("limit", ["latency <= {} ms", "latency.p99 <= {} ms", "macs <= 1k"])
def test_a_budget_that_no_speed_meets_is_refused_before_anything_is_measured(
    cli: Cli, asking: tuple[object, ...], job: Any, workers: Any, limit: str
) -> None:
    least = least_of(job.table)
    asked = limit.format(round(least / 2.5, 6))
    message = cli(*asking, "--constraint", asked).error(3)
    assert workers.started == 0
    assert asked in message and "nothing was measured: " in message and "nearest: " in message
    assert ("a factor of 2, which ofa-deploy tables check" in message) is ("macs" not in limit)


def test_a_budget_that_a_faster_machine_meets_is_asked_of_it(
    cli: Cli, asking: tuple[object, ...], job: Any, workers: Any
) -> None:
    least = least_of(job.table)
    budget = ("--constraint", f"latency <= {least / 1.5:.6f} ms")
    message = cli(*asking, *budget).error(3)
    assert workers.started > 0 and "nothing was measured" not in message
    at_speed(workers, "0.5")
    made = cli(*asking, *budget)
    assert made.code == 0, made.stderr
    assert "out of reach by the table as it is; a few blocks are measured" in made.stderr
    assert "searching with all of it rescaled" in made.stderr


def test_search_without_measuring_does_not_ask_the_device(
    cli: Cli, asking: tuple[object, ...], workers: Any
) -> None:
    assert cli(*asking, "--no-verify").code == 0
    assert workers.started == 0


# -- help -----------------------------------------------------------------------------------


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
