"""The command line: the main job, what goes where, exit codes, and errors of one line."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import typer
from PIL import Image

from ofa_deploy import __version__
from ofa_deploy.cli.main import COMMANDS, app
from ofa_deploy.hardware import LatencyTable
from ofa_deploy.predict import AccuracyModel, latency_model
from ofa_deploy.search import FrontFile
from ofa_deploy.space import get_space, space_names
from ofa_deploy.train import RunFile, Trainer

ROOT = Path(__file__).resolve().parents[2]
SPACE = "mbv3-nano-32"
NAMES = [command.__name__ for command in COMMANDS]
TRAIN = ("--epochs", 3, "--batch", 16, "--threads", 1)

Cli = Callable[..., Any]


@pytest.fixture
def run(job: Any, tmp_path: Path) -> Path:
    """A copy of the run folder, to be damaged."""
    return Path(shutil.copytree(job.run, tmp_path / "copied" / "mine"))


@pytest.fixture
def table(job: Any, tmp_path: Path) -> Path:
    """A copy of the latency table, to be damaged."""
    return Path(shutil.copy(job.table, tmp_path / "copy.json"))


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))
    return path


def budget(ms: float) -> tuple[str, str]:
    return ("--constraint", f"latency <= {ms} ms")


def asking(run: Path, table: Path, *more: object) -> tuple[object, ...]:
    return ("search", "--run", run, "--table", table, *(more or budget(0.6)))


# -- the main job ---------------------------------------------------------------------------


def test_main_job_leaves_its_files(job: Any) -> None:
    record = RunFile.load(job.run)
    assert record.classes == ("moss", "rust", "slate")
    assert record.config.epochs == 3
    assert record.weights_sha256
    assert len((job.run / "metrics.csv").read_text().splitlines()) == 1 + 3
    assert not (job.run / "state.pt").exists()
    table = LatencyTable.load(job.table)
    table.check_for(record.search_space)
    predicted, measured = (FrontFile.load(path) for path in job.fronts)
    assert (predicted.kind, measured.kind) == ("predicted", "measured")
    assert predicted.budgets == (0.6,)
    assert predicted.conditions == table.conditions
    manifest = json.loads((job.bundle / "manifest.json").read_text())
    assert manifest["labels"] == ["moss", "rust", "slate"]
    assert manifest["supernet_sha256"] == record.weights_sha256
    assert not list((job.folder / "latency_tables").rglob("*.jsonl")), "finished work is cleared"


def test_chosen_subnet_meets_the_budget_as_measured(job: Any) -> None:
    chosen = json.loads(job.subnet.read_text())["candidate"]
    assert chosen["measured"]["latency"] <= 0.6
    assert chosen["budget"] == "latency <= 0.6 ms"
    (shown,) = json.loads(job.said["search"].stdout)
    assert shown["measured_ms"] == chosen["measured"]["latency"]
    assert shown["top1"] == chosen["measured"]["top1"]
    accurate = max(
        each.measured["top1"]
        for each in FrontFile.load(job.fronts[1]).pareto
        if each.measured["latency"] <= 0.6
    )
    assert chosen["measured"]["top1"] == accurate


@pytest.mark.parametrize("command", ["train", "evaluate", "profile", "search"])
def test_each_step_names_what_it_wrote_and_the_next(job: Any, command: str) -> None:
    said = job.said[command].stderr
    wrote = re.findall(r"^wrote (.*)$", said, re.MULTILINE)
    assert wrote and all(Path(path).exists() for path in wrote)
    following = said.partition("next:\n")[2]
    assert re.findall(r"^  ofa-deploy (\w+)", following, re.MULTILINE)


def test_commands_that_it_names_next_are_right(job: Any, cli: Cli) -> None:
    """Those that only look are run, the others are asked for their options."""
    lines = [line for each in job.said.values() for line in each.stderr.splitlines()]
    commands = {line.split()[1] for line in lines if line.startswith("  ofa-deploy ")}
    assert commands <= set(NAMES)
    shown = next(line for line in lines if line.startswith("  ofa-deploy show"))
    assert cli(*shown.split()[1:]).code == 0


def test_evaluate_writes_the_subnets_to_stdout(job: Any) -> None:
    rows = json.loads(job.said["evaluate"].stdout)
    assert len(rows) == 12
    space = RunFile.load(job.run).search_space
    for row in rows:
        assert 0 <= row["top1"] <= 100
    assert rows[0]["macs"] == space.cost(space.smallest).macs
    assert rows[1]["macs"] == space.cost(space.largest).macs


def test_only_data_goes_to_stdout(job: Any) -> None:
    assert job.said["profile"].stdout == ""
    assert "standard subnets" in job.said["train"].stdout
    assert "best" in job.said["export"].stdout
    for command in ("train", "export"):
        assert "wrote" not in job.said[command].stdout


def test_training_a_finished_run_again_changes_nothing(job: Any, cli: Cli, photos: Path) -> None:
    before = (job.run / "supernet.safetensors").stat().st_mtime_ns
    assert cli("train", "--data", photos, "--run", job.run, *TRAIN).code == 0
    assert (job.run / "supernet.safetensors").stat().st_mtime_ns == before


def test_searching_again_gives_the_same_and_measures_sentinels_only(
    job: Any, run: Path, cli: Cli, workers: Any
) -> None:
    found = cli(*asking(run, job.table), "--format", "json")
    assert found.code == 0, found.stderr
    assert json.loads(found.stdout) == json.loads(job.said["search"].stdout)
    assert workers.started == 3


def test_evaluating_more_keeps_what_is_known(job: Any, run: Path, cli: Cli, photos: Path) -> None:
    before = (run / "evaluations.jsonl").read_text()
    more = cli("evaluate", run, "--subnets", 18, "--format", "json")
    assert more.code == 0, more.stderr
    bars = [line for line in more.stderr.splitlines() if line.startswith("evaluate subnets: ")]
    assert [line.split()[2] for line in bars] == ["18/18"], "one bar for all of them"
    after = (run / "evaluations.jsonl").read_text()
    assert after.startswith(before)
    first = json.loads(job.said["evaluate"].stdout)
    assert json.loads(more.stdout)[: len(first)] == first


def test_profile_without_out_writes_where_tables_are_looked_for(
    job: Any, here: Path, cli: Cli, workers: Any
) -> None:
    assert cli("profile", "--space", SPACE, "--classes", 3).code == 0
    digits = get_space(SPACE).with_classes(3).fingerprint[:8]
    path = here / "latency_tables" / "local" / f"{SPACE}-{digits}@onnxruntime-fp32-b1-t1.json"
    assert LatencyTable.load(path).blocks == LatencyTable.load(job.table).blocks
    listed = json.loads(cli("tables", "--format", "json").stdout)
    assert str(path) in [row["table"] for row in listed]


def test_interrupted_profile_goes_on(
    job: Any, here: Path, cli: Cli, workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = workers.popen

    def stops(command: Any, **options: Any) -> Any:
        if workers.started == 3:
            raise KeyboardInterrupt
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", stops)
    stopped = cli("profile", "--run", job.run, "--out", "t.json")
    assert stopped.code == 130
    assert stopped.stderr.splitlines()[-1].startswith("interrupted; run the same command again")
    assert not (here / "t.json").exists()
    monkeypatch.setattr(subprocess, "Popen", popen)
    assert cli("profile", "--run", job.run, "--out", "t.json").code == 0
    assert workers.started == job.started["profile"], "nothing is measured twice"
    assert LatencyTable.load("t.json").blocks == LatencyTable.load(job.table).blocks


@pytest.mark.parametrize(
    ("args", "where"),
    [
        (("run", "b", "x.png"), "Bundle"),
        (("verify", "b"), "Bundle"),
        (("bench", "b"), "Bundle"),
        (("export", "a.subnet.json", "b.subnet.json", "--out", "c"), "get_target"),
    ],
)
def test_what_keeps_nothing_does_not_promise_to(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], where: str
) -> None:
    class Stopped:
        def __init__(self, *given: Any) -> None:
            raise KeyboardInterrupt

        read = __init__

    monkeypatch.setattr(f"ofa_deploy.export.{where}", Stopped)
    made = cli(*args)
    assert made.code == 130
    assert made.stderr == "interrupted\n"


@pytest.mark.parametrize(
    ("constraint", "metric", "limit"),
    [("macs <= 1.2M", "macs", 1.2e6), ("params <= 90k", "params", 9e4)],
)
def test_budget_of_another_kind(
    job: Any, run: Path, cli: Cli, constraint: str, metric: str, limit: float
) -> None:
    made = cli(
        *asking(run, job.table, "--constraint", constraint), "--no-verify", "--format", "json"
    )
    assert made.code == 0, made.stderr
    rows = json.loads(made.stdout)
    assert rows
    assert all(row[metric] <= limit for row in rows)


def test_seed_and_name_are_taken(job: Any, run: Path, cli: Cli) -> None:
    made = cli(*asking(run, job.table), "--no-verify", "--name", "other", "--seed", 7)
    assert made.code == 0, made.stderr
    assert (run / "fronts" / "other.front.json").exists()


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


# -- exit codes: 1, wrong input -------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "--space", "mbv3-nano-23"], f"did you mean {SPACE} or "),
        (["train", "--data", "nowhere"], "neither 'glyphs' nor a folder"),
        (["train", "--augment", "blur"], "unknown augmentation 'blur'"),
        (["train", "--epochs", "1"], "training settings: epochs"),
        (["train", "--lr", "-1"], "training settings: lr"),
        (["evaluate", "nosuch"], "nosuch: no training run there"),
        (["profile"], "expected either --space NAME or --run FOLDER"),
        (["profile", "--space", SPACE, "--run", "x"], "expected either --space"),
        (["profile", "--run", "nosuch"], "nosuch: no training run there"),
        (["profile", "--run", "x", "--resolutions", "32"], "go with --space: a run has its own"),
        (["profile", "--run", "x", "--classes", "3"], "go with --space: a run has its own"),
        (["plan", "--run", "x", "--resolutions", "32"], "go with --space: a run has its own"),
        (["profile", "--space", "mbv3"], "unknown space 'mbv3'"),
        (["profile", "--space", SPACE, "--device", "locl"], "did you mean local?"),
        (["profile", "--space", SPACE, "--runtime", "tensorrt"], "no runtime 'tensorrt'"),
        (["profile", "--space", SPACE, "--precision", "fp16"], "no precision 'fp16'"),
        (["show", "nosuch.subnet.json"], "nosuch.subnet.json: no such file"),
        (["tables", "show", "nosuch.json"], "nosuch.json: no such latency table"),
        (["compare", "nosuch.front.json"], "nosuch.front.json: no such file"),
        (["export", "nosuch.subnet.json", "--out", "b"], "nosuch.subnet.json: no such file"),
        (["export", "x", "--out", "b", "--target", "onx"], "did you mean onnx or "),
        (["search", "--run", "nosuch", "--table", "t", *budget(1)], "ofa-deploy evaluate nosuch"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    here: Path, cli: Cli, args: list[str], message: str
) -> None:
    made = cli(*args)
    assert message in made.error(1)
    assert made.stdout == ""
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["latency < 8 ms", "latency <= 8 parsecs", "speed <= 3", "latency <= -1 ms", "", "8 ms"]
)
def test_malformed_constraint_is_one_line(job: Any, run: Path, cli: Cli, text: str) -> None:
    assert "constraint" in cli(*asking(run, job.table, "--constraint", text)).error(1)


@pytest.mark.parametrize("kept", [0, 100, -2])
def test_truncated_table_is_one_line(run: Path, table: Path, cli: Cli, kept: int) -> None:
    table.write_bytes(table.read_bytes()[:kept])
    for command in (asking(run, table), ("tables", "show", table)):
        assert f"{table}: not readable as JSON" in cli(*command).error(1)


def test_table_of_another_space_is_one_line(job: Any, run: Path, table: Path, cli: Cli) -> None:
    other = RunFile.load(run).search_space.with_classes(7)
    edited(table, lambda value: value.update(fingerprint=other.fingerprint))
    for command in (asking(run, table), ("show", job.subnet, "--table", table)):
        message = cli(*command).error(1)
        assert "the table was made for space" in message
        assert other.fingerprint in message


def test_table_of_another_machine_cannot_prove_anything(
    run: Path, table: Path, cli: Cli, workers: Any
) -> None:
    edited(table, lambda value: value["conditions"].update(processor="Abacus, 10 rows"))
    message = cli(*asking(run, table)).error(1)
    assert "processor (Abacus, 10 rows," in message
    assert "--no-verify" in message
    assert workers.started == 0
    assert cli(*asking(run, table), "--no-verify").code == 0


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_damaged_supernet_is_one_line(
    job: Any, run: Path, cli: Cli, workers: Any, damage: str
) -> None:
    weights = run / "supernet.safetensors"
    data = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(data[:-100] if damage == "truncated" else data[:-1] + b"\x55")
    for command in (("evaluate", run, "--subnets", 12), asking(run, job.table)):
        assert "supernet.safetensors: " in cli(*command).error(1)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("run.json", "evaluate"),
        ("accuracy.onnx", "search"),
        ("subnets/best.subnet.json", "show"),
        ("subnets/best.subnet.json", "export"),
        ("subnets/best.safetensors", "export"),
        ("fronts/best.front.json", "compare"),
    ],
)
@pytest.mark.parametrize("kept", [0, 60, -5])
def test_truncated_file_is_one_line(
    job: Any, run: Path, cli: Cli, name: str, command: str, kept: int
) -> None:
    damaged = run / name
    damaged.write_bytes(damaged.read_bytes()[:kept])
    subnet = run / "subnets" / "best.subnet.json"
    args: dict[str, tuple[object, ...]] = {
        "evaluate": ("evaluate", run),
        "search": asking(run, job.table),
        "show": ("show", subnet),
        "export": ("export", subnet, "--out", "bundle"),
        "compare": ("compare", damaged),
    }
    assert damaged.name in cli(*args[command]).error(1)


def test_missing_accuracy_model_says_how_to_make_it(job: Any, run: Path, cli: Cli) -> None:
    (run / "accuracy.onnx").unlink()
    message = cli(*asking(run, job.table)).error(1)
    assert f"make it with: ofa-deploy evaluate {run}" in message


def test_unfinished_training_is_one_line(run: Path, cli: Cli) -> None:
    edited(run / "run.json", lambda value: value.update(weights_sha256=None))
    assert f"resume it with: ofa-deploy train --resume --run {run}" in cli("evaluate", run).error(1)


def test_changed_images_are_noticed(
    job: Any, run: Path, here: Path, cli: Cli, photos: Path
) -> None:
    own = shutil.copytree(photos, here / "photos")
    subnet = run / "subnets" / "best.subnet.json"
    for path in (run / "run.json", subnet):
        edited(path, lambda value: value.update(data=str(own)))
    next((own / "moss").iterdir()).unlink()
    for command in (("evaluate", run), ("export", subnet, "--out", "bundle")):
        assert "changed" in cli(*command).error(1)


def test_other_settings_do_not_overwrite_a_run(run: Path, cli: Cli, photos: Path) -> None:
    before = (run / "run.json").read_text()
    made = cli("train", "--data", photos, "--run", run, "--epochs", 4, "--batch", 16)
    message = made.error(1)
    assert f"{run}: holds another run: --epochs 4 (the run there was begun with 3), " in message
    assert "ramp" not in message  # which follows from the epochs
    assert "threads 2 (the run there was begun with 1)" in message
    assert f"to go on with that one: ofa-deploy train --resume --run {run}; " in message
    assert message.endswith("for another one name another --run")
    assert (run / "run.json").read_text() == before


def test_advice_about_the_batch_can_be_followed(
    here: Path, cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cli("train", "--data", photos, "--batch", 1000, "--epochs", 3)
    assert "lower the batch size" in made.error(1)

    def begun(trainer: Trainer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "advance", begun)
    again = cli("train", "--data", photos, "--batch", 16, "--epochs", 3)
    assert again.code == 130, again.stderr


def test_existing_bundle_needs_overwrite(job: Any, run: Path, here: Path, cli: Cli) -> None:
    subnet = run / "subnets" / "best.subnet.json"
    assert cli("export", subnet, "--out", "bundle").code == 0
    before = (here / "bundle" / "manifest.json").read_text()
    assert "pass --overwrite" in cli("export", subnet, "--out", "bundle").error(1)
    assert (here / "bundle" / "manifest.json").read_text() == before
    assert cli("export", subnet, "--out", "bundle", "--overwrite").code == 0


def test_bundle_below_a_file_is_one_line(run: Path, here: Path, cli: Cli) -> None:
    (here / "notes.txt").write_text("mine")
    subnet = run / "subnets" / "best.subnet.json"
    assert "notes.txt" in cli("export", subnet, "--out", "notes.txt/bundle").error(1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written_is_one_line(run: Path, here: Path, cli: Cli) -> None:
    (here / "locked").mkdir(mode=0o500)
    subnet = run / "subnets" / "best.subnet.json"
    assert "locked" in cli("export", subnet, "--out", "locked/bundle").error(1)


# -- another process ------------------------------------------------------------------------


@pytest.fixture
def held() -> Iterator[Callable[[Path], None]]:
    """Hold folders from another process."""
    script = (
        "import sys\n"
        "from ofa_deploy._files import exclusive\n"
        "with exclusive(sys.argv[1]):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holders: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def hold(folder: Path) -> None:
        holder = popen(
            [sys.executable, "-c", script, str(folder)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        holders.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

    yield hold
    for holder in holders:
        holder.communicate()


def test_second_process_on_a_folder_is_one_line(
    job: Any, run: Path, here: Path, cli: Cli, workers: Any, held: Any, photos: Path
) -> None:
    journal = here / "latency_tables" / "local"
    held(run)
    held(journal)
    for command, folder in (
        (("train", "--data", photos, "--run", run, *TRAIN), run),
        (("evaluate", run), run),
        (asking(run, job.table), run),
        (("quickstart", "--run", run), run),
        (("profile", "--space", SPACE), journal.relative_to(here)),
    ):
        message = cli(*command).error(1)
        assert f"{folder}: another ofa-deploy is at work" in message
    assert workers.started == 0


# -- exit codes: 2, 3, 4 --------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["nosuch"],
        ["train", "--nosuch"],
        ["train", "--epochs", "many"],
        ["evaluate"],
        ["evaluate", "x", "--subnets", "3"],
        ["search", "--run", "x"],
        ["export", "x"],
        ["spaces", "--format", "xml"],
        ["profile", "--space", SPACE, "--threads", "0"],
        ["profile", "--space", SPACE, "--classes", "1"],
        ["profile", "--space", SPACE, "--seed", "-1"],
        ["compare"],
    ],
)
def test_usage_errors(here: Path, cli: Cli, args: list[str]) -> None:
    made = cli(*args)
    assert made.code == 2
    assert made.stdout == ""
    assert "Traceback" not in made.stderr
    assert list(here.iterdir()) == []


def reach(message: str, metric: str = "latency") -> tuple[float, float]:
    """In ms, or in counts."""
    unit = "ms" if metric == "latency" else "[kM]"
    match = re.search(rf"{metric} reaches from (\S+) ({unit}) to (\S+) ({unit})", message)
    assert match, message
    size = {"ms": 1.0, "k": 1e3, "M": 1e6}
    return float(match[1]) * size[match[2]], float(match[3]) * size[match[4]]


def test_infeasible_budget_says_what_can_be_reached(job: Any, run: Path, cli: Cli) -> None:
    made = cli(*asking(run, job.table, *budget(0.01)))
    message = made.error(3)
    assert "latency <= 0.01 ms" in message
    assert made.stdout == ""
    model = latency_model(RunFile.load(run).search_space, LatencyTable.load(job.table))
    least, greatest = model.bounds()
    found = reach(message)
    assert found[0] >= least * 0.999
    assert found[1] >= greatest * 0.999


def test_budget_that_cannot_be_promised_is_below_the_reported_least(
    job: Any, run: Path, cli: Cli
) -> None:
    """The interval's upper end must keep the limit, so that end is what can be reached."""
    model = latency_model(RunFile.load(run).search_space, LatencyTable.load(job.table))
    assert model.margin > 0.01
    limit = model.bounds()[0] * (1 + model.margin / 3)
    message = cli(*asking(run, job.table, *budget(limit)), "--no-verify").error(3)
    least, _ = reach(message)
    assert least > limit


def test_predictions_that_do_not_rank_are_warned_of(
    job: Any, run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AccuracyModel, "doubt", "no order")
    for command in (
        ("evaluate", run, "--subnets", 12),
        (*asking(run, job.table, *budget(0.6)), "--no-verify"),
    ):
        made = cli(*command)
        assert made.code == 0 and "\nwarning: no order\n" in f"\n{made.stderr}", made.stderr
        assert "warning" not in cli(*command, "--quiet").stderr
    front = run / "fronts" / "best.front.json"
    assert f"warning: {run}/accuracy.onnx: no order\n" in cli("compare", front).stderr
    monkeypatch.setattr(AccuracyModel, "doubt", "")
    assert "warning" not in cli("compare", front).stderr


def test_contradicting_budgets_say_what_each_can_reach(job: Any, run: Path, cli: Cli) -> None:
    asked = ("--constraint", "macs >= 3M", "--constraint", "params <= 90k")
    message = cli(*asking(run, job.table, *asked)).error(3)
    space = RunFile.load(run).search_space
    costs = [space.cost(arch) for arch in (space.smallest, space.largest)]
    assert reach(message, "macs") == pytest.approx([cost.macs for cost in costs], rel=1e-3)
    assert reach(message, "params") == pytest.approx([cost.params for cost in costs], rel=1e-3)


def test_failing_device_is_exit_4(here: Path, cli: Cli, workers: Any) -> None:
    workers.script = "import sys; sys.stdin.read(); sys.exit('no such instruction')"
    message = cli("profile", "--space", SPACE, "--out", "t.json").error(4)
    assert "a measuring process failed (exit 1): no such instruction" in message
    assert not (here / "t.json").exists()


def test_noisy_device_is_exit_4(here: Path, cli: Cli, workers: Any) -> None:
    # Each process is twice as slow as the one before it, but for the reference.
    count = f"with open({str(here / 'processes')!r}, 'a') as file:\n"
    count += "    nth = file.tell()\n    file.write('x')\n"
    workers.script = workers.script.replace("def times", count + "def times").replace(
        "taken = times(model)",
        'taken = {k: v if k == "runs" else v * 2**nth for k, v in times(model).items()}',
    )
    message = cli("profile", "--space", SPACE, "--out", "t.json").error(4)
    assert "too noisy to measure" in message
    assert not (here / "t.json").exists()


# -- as processes ---------------------------------------------------------------------------


def test_module_runs_and_keeps_its_streams_apart(here: Path, shell: Any) -> None:
    start, finish = shell
    good = finish(start("spaces", "--format", "json", cwd=here))
    assert (good.code, good.stderr) == (0, "")
    assert json.loads(good.stdout)
    bad = finish(start("profile", "--space", SPACE, "--device", "locl", cwd=here))
    assert "did you mean local?" in bad.error(1)
    assert bad.stdout == ""


def test_interrupted_training_goes_on(here: Path, shell: Any, photos: Path) -> None:
    start, finish = shell
    few = ("--train-images", 48, "--epochs", 4, "--batch", 16, "--threads", 1)
    args = ("train", "--data", photos, "--run", "r", *few)
    process = start(*args, cwd=here)
    while not (here / "r" / "state.pt").exists():
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)
    process.send_signal(signal.SIGINT)
    stopped = finish(process)
    assert stopped.code == 130
    assert stopped.stdout == ""
    assert "Traceback" not in stopped.stderr
    last = stopped.stderr.splitlines()[-1]
    told = re.fullmatch(
        r"interrupted; training stands at step (\d) of 8, kept in r; go on with: (.+)", last
    )
    assert told and int(told[1]) > 2
    assert shlex.split(told[2]) == ["ofa-deploy", *map(str, args)]
    assert RunFile.load(here / "r").weights_sha256 is None

    resumed = finish(start(*args, cwd=here))
    assert resumed.code == 0, resumed.stderr
    assert f"resuming training at step {told[1]} of 8" in resumed.stderr
    assert RunFile.load(here / "r").weights_sha256
    assert len((here / "r" / "metrics.csv").read_text().splitlines()) == 1 + 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_main_job_as_a_user_does_it(here: Path, shell: Any, photos: Path) -> None:
    """Real processes and real timings, from a folder of images to a model that runs."""
    start, finish = shell

    def ok(*args: object) -> Any:
        made = finish(start(*args, cwd=here))
        assert made.code == 0, made.stderr
        return made

    ok("train", "--data", photos, "--run", "runs/mine", *TRAIN)
    ok("evaluate", "runs/mine", "--subnets", 9)
    ok("profile", "--run", "runs/mine")
    (table,) = (here / "latency_tables" / "local").glob("*.json")
    model = latency_model(RunFile.load(here / "runs/mine").search_space, LatencyTable.load(table))
    least, greatest = model.bounds()
    assert 0 < least < greatest
    limit = f"{(least + greatest) / 2 * (1 + model.margin):.4f}"
    searched = ok(
        *("search", "--run", "runs/mine", "--table", table, "--format", "json"),
        *("--constraint", f"latency <= {limit} ms"),
    )
    (found,) = json.loads(searched.stdout)
    assert found["measured_ms"] <= float(limit)
    subnet = "runs/mine/subnets/best.subnet.json"
    ok("export", subnet, "--out", "bundles/best")
    ok("show", subnet, "--table", table)
    fronts = [f"runs/mine/fronts/{name}.front.json" for name in ("best", "best-measured")]
    ok("compare", *fronts, "--out", "report.html", "--png", "report.png")
    assert (here / "report.html").stat().st_size > 1000

    manifest = json.loads((here / "bundles/best/manifest.json").read_text())
    wants = manifest["preprocessing"]
    session = ort.InferenceSession(
        here / "bundles/best/model.onnx", providers=["CPUExecutionProvider"]
    )
    right = 0
    for path in (paths := sorted(photos.glob("*/0*.png"))):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((wants["size"],) * 2), np.float32)
        images = ((pixels / 255 - wants["mean"]) / wants["std"]).transpose(2, 0, 1)[None]
        logits = session.run(None, {session.get_inputs()[0].name: images.astype(np.float32)})[0]
        right += manifest["labels"][int(logits.argmax())] == path.parent.name
    assert right > len(paths) / 2  # a third by chance
