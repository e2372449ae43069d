"""The main job: what it leaves, what it says, and that it goes on where it was."""

import json
import re
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from ofa_deploy.cli.main import COMMANDS
from ofa_deploy.hardware import LatencyTable
from ofa_deploy.predict import latency_model
from ofa_deploy.search import FrontFile
from ofa_deploy.space import get_space
from ofa_deploy.train import RunFile
from tests.cli.conftest import asking

SPACE = "mbv3-nano-32"
NAMES = [command.__name__ for command in COMMANDS]
TRAIN = ("--epochs", 3, "--batch", 16, "--threads", 1)

Cli = Callable[..., Any]


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
    ("args", "where", "kept"),
    [
        (("run", "b", "x.png"), "Bundle", ""),
        (("verify", "b"), "Bundle", ""),
        (("bench", "b"), "Bundle", ""),
        (
            ("export", "a.subnet.json", "b.subnet.json", "--out", "c"),
            "get_target",
            "; what was finished is kept, nothing half-done is left",
        ),
    ],
)
def test_what_keeps_nothing_does_not_promise_to(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], where: str, kept: str
) -> None:
    class Stopped:
        def __init__(self, *given: Any) -> None:
            raise KeyboardInterrupt

        read = __init__

    monkeypatch.setattr(f"ofa_deploy.export.{where}", Stopped)
    made = cli(*args)
    assert made.code == 130
    assert made.stderr == f"interrupted{kept}\n"


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
