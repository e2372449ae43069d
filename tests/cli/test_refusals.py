"""Exit codes, and errors of one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.hardware import LatencyTable
from ofa_deploy.predict import AccuracyModel, latency_model
from ofa_deploy.train import RunFile, Trainer
from tests.cli.conftest import asking, budget

ROOT = Path(__file__).resolve().parents[2]
SPACE = "mbv3-nano-32"
TRAIN = ("--epochs", 3, "--batch", 16, "--threads", 1)

Cli = Callable[..., Any]


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))
    return path


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
        (["search", "--run", "nosuch", "--table", "t", *budget(1)], "nosuch: no training run"),
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


def test_a_table_of_other_classes_names_one_that_fits(
    run: Path, table: Path, here: Path, cli: Cli
) -> None:
    space = RunFile.load(run).search_space
    other = space.with_classes(7)
    edited(table, lambda value: value.update(classes=7, fingerprint=other.fingerprint))
    message = cli(*asking(run, table)).error(1)
    assert f"{table}: the table is for 7 classes, the run has {space.classes}; use" in message
    assert "made with: ofa-deploy profile --run" in message
    right = here / "latency_tables" / "local" / "right.json"
    right.parent.mkdir(parents=True)
    right.write_bytes(table.read_bytes())
    edited(right, lambda value: value.update(classes=space.classes, fingerprint=space.fingerprint))
    message = cli(*asking(run, table)).error(1)
    assert "use --table latency_tables/local/right.json, or --device local" in message


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


def test_a_run_keeps_its_length(run: Path, cli: Cli, photos: Path, here: Path) -> None:
    asked = ("train", "--data", photos, *TRAIN[2:])
    message = cli(*asked, "--run", run, "--epochs", 4).error(1)
    assert f"{run}: holds a run of 3 epochs, not 4: a run's length is fixed when it beg" in message
    assert f"to go on with that one: ofa-deploy train --resume --run {run}; " in message
    weights = run / "supernet.safetensors"
    further = f"ofa-deploy train --data {photos} --init {weights} --run OTHER --epochs N"
    assert further in message
    made = cli(*asked, "--init", weights, "--run", here / "other", "--epochs", 2)
    assert made.code == 0, made.stderr
    assert (here / "other" / "supernet.safetensors").is_file()


def test_few_validation_images_are_told(run: Path, cli: Cli, photos: Path) -> None:
    done = cli("train", "--data", photos, *TRAIN, "--dry-run", "--run", "r")
    assert done.stderr.count("warning: ") == 1
    assert "warning: 9 validation images are few to choose by: one is 11 points, and" in done.stderr
    assert "train in another folder with --validation-images" in done.stderr
    done = cli("evaluate", run, "--subnets", 9)
    assert "warning: 9 validation images are few to choose by" in done.stderr


def test_other_versions_are_not_told_as_settings(run: Path, cli: Cli, photos: Path) -> None:
    edited(run / "run.json", lambda value: value["versions"].update(torch="1.0.0"))
    made = cli("train", "--data", photos, "--run", run, *TRAIN)
    assert "differs in torch (1.0.0 there, " in made.error(1)
    assert "; install torch as it was to go on with it, or name another folder" in made.error(1)


def test_run_of_several_processes_goes_on_with_as_many(run: Path, cli: Cli, photos: Path) -> None:
    edited(run / "run.json", lambda value: value["config"].update(processes=4))
    said = cli("train", "--data", photos, "--run", run, *TRAIN).error(1)
    go_on = "torchrun --nproc-per-node 4 -m ofa_deploy -- train --resume --run"
    assert f"to go on with that one: {go_on} {run}; " in said


def test_path_with_two_spaces_is_told_as_it_is(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "a  b"
    assert f"{path}: no training run there" in cli("evaluate", path).error(1)


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
        "from ofa_deploy.files import exclusive\n"
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
