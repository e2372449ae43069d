"""Training from the command line: recipes, forecasts, settings, adaptation."""

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ofa_deploy.space import get_space
from ofa_deploy.supernet import Supernet
from ofa_deploy.train import Evaluator, Ranks, loop, recipe_names

FEW = ("--train-images", 64, "--validation-images", 40, "--test-images", 40, "--calibration", 32)
SMALL = (*FEW, "--batch", 16, "--threads", 1)
SPACE = "mbv3-nano-32"


def test_recipes_are_listed(cli: Callable[..., Any]) -> None:
    listed = cli("train", "--recipes").stdout
    rows = {words[0]: line for line in listed.splitlines() if (words := line.split())}
    methods = {name.partition("-")[0] for name in recipe_names()}
    data = {name.partition("-")[2] for name in recipe_names()}
    assert methods | data <= rows.keys()
    assert rows["deps"].split()[1:7] == ["8", "30", "200", "200", "270", "270"]
    assert "mbv3-nano-32" in rows["glyphs"] and "--data DIR" in rows["images"]
    assert len(listed.splitlines()) < 25
    assert not list(Path().iterdir())


def test_a_recipe_is_shown_in_full(cli: Callable[..., Any]) -> None:
    shown = cli("train", "--recipes", "progressive-cifar10")
    assert shown.code == 0, shown.stderr
    for text in ("deps-mbv3-32", "teacher", "kernel", "freeze teacher", "kernel_epochs", "89"):
        assert text in shown.stdout
    assert "did you mean deps-glyphs" in cli("train", "deps-glyph", "--recipes").error(1)


def test_every_method_says_what_it_is() -> None:
    from ofa_deploy.cli import _train_recipes

    assert set(_train_recipes._ABOUT) == {name.partition("-")[0] for name in recipe_names()}


def test_dry_run_tells_the_plan_and_spends_nothing(cli: Callable[..., Any]) -> None:
    done = cli("train", "progressive-glyphs", "--dry-run", *SMALL)
    assert done.code == 0, done.stderr
    for text in ("teacher", "kernel", "depth 2", "expand 2", "freeze teacher", "4 random"):
        assert text in done.stdout
    assert "multiply-accumulates" in done.stdout and "MiB" in done.stdout
    assert re.fullmatch(
        r"estimate: \d+ s to \d+ s on this machine as busy as it is now, "
        r"from \d+ steps of 16 images",
        done.stderr.splitlines()[-1],
    )
    assert "estimate" not in cli("train", "--dry-run", *SMALL, "--quiet").stderr
    assert not list(Path().iterdir())


def test_settings_override_each_other(cli: Callable[..., Any]) -> None:
    Path("mine.toml").write_text("lr = 0.5\nlabel_smoothing = 0.2\ndropout = 0.3\nseed = 7\n")
    done = cli(
        *("train", "deps-glyphs", "--config", "mine.toml", "--lr", 0.25, "--set", "dropout=0.0"),
        *("--set", "augment=flip", "--epochs", 2, "--run", "r", *SMALL, "--quiet"),
    )
    assert done.code == 0, done.stderr
    assert done.stderr == ""
    config = json.loads(Path("r/run.json").read_text())["config"]
    found = [config[k] for k in ("lr", "label_smoothing", "dropout", "augment", "epochs", "seed")]
    assert found == [0.25, 0.2, 0.0, "flip", 2, 7]


def test_rate_is_scaled_with_the_images_a_step(cli: Callable[..., Any]) -> None:
    done = cli("train", "--epochs", 2, "--run", "r", *SMALL)
    assert done.code == 0, done.stderr
    assert (
        "learning rate 0.025: the recipe's 0.1 is for 64 images a step, here are 16" in done.stderr
    )
    assert json.loads(Path("r/run.json").read_text())["config"]["lr"] == 0.025


def test_a_run_leaves_curves_events_and_standard_subnets(cli: Callable[..., Any]) -> None:
    done = cli("train", "bignas-glyphs", "--epochs", 2, "--run", "r", *SMALL)
    assert done.code == 0, done.stderr
    for name in ("smallest", "d1 e2", "d3 e4"):
        assert name in done.stdout
    with Image.open("r/curves.png") as image:
        assert image.size == (1344, 1152)
    assert len(list(Path("r/events").glob("events.out.tfevents.*"))) == 1
    again = cli("train", "bignas-glyphs", "--epochs", 2, "--run", "r", "--resume", *SMALL)
    assert again.code == 0 and again.stdout == done.stdout
    assert "r: was finished before; nothing is trained again" in again.stderr
    assert "was finished before" not in done.stderr


def test_progressive_run_goes_through_its_phases(cli: Callable[..., Any]) -> None:
    short = ("teacher_epochs=1", "kernel_epochs=1", "depth_epochs=[1]", "expand_epochs=[1]")
    pairs = [part for text in short for part in ("--set", text)]
    done = cli("train", "progressive-glyphs", *pairs, "--run", "r", *SMALL)
    assert done.code == 0, done.stderr
    with Path("r/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    phases = ["teacher", "kernel", "depth 1", "depth 2", "expand 1", "expand 2"]
    assert [row["phase"] for row in rows] == phases
    assert [row["beta"] for row in rows] == ["0.0"] + ["1.0"] * 5
    costs = [int(row["cost_macs"]) for row in rows]
    assert costs == sorted(set(costs))


def test_evaluations_are_kept_as_csv(cli: Callable[..., Any]) -> None:
    assert cli("train", "--epochs", 2, "--run", "r", *SMALL).code == 0
    done = cli("evaluate", "r", "--subnets", 9, "--format", "json")
    assert done.code == 0, done.stderr
    with Path("r/evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["top1"]) for row in rows] == [r["top1"] for r in json.loads(done.stdout)]
    space = get_space(SPACE)
    for row in rows:
        arch = space.arch(
            resolution=int(row["resolution"]),
            depths=[int(v) for v in row["depths"].split()],
            kernels=[int(v) for v in row["kernels"].split()],
            expands=[float(v) for v in row["expands"].split()],
        )
        assert space.cost(arch).macs == int(row["macs"])
        assert space.cost(arch).params == int(row["params"])


def test_adapt_brings_own_classes_to_given_weights(cli: Callable[..., Any], photos: Path) -> None:
    torch.save(Supernet(get_space(SPACE), seed=3).state_dict(), "given.pth")
    given = ("--weights", "given.pth", "--space", SPACE, "--data", photos, "--run", "mine")
    few = ("--epochs", 3, "--batch", 16, "--calibration", 32, "--threads", 1, "--subnets", 9)
    done = cli("adapt", *given, *few)
    assert done.code == 0, done.stderr
    assert "accuracy model from 9 subnets" in done.stderr
    assert "ofa-deploy profile --run mine" in done.stderr
    record = json.loads(Path("mine/run.json").read_text())
    assert record["classes"] == ["moss", "rust", "slate"]
    assert record["config"]["new_classifier"] and record["config"]["init_sha256"]
    assert Path("mine/accuracy.onnx").exists()
    with Path("mine/evaluations.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 9


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "deps-glyph"], "did you mean deps-glyphs"),
        (["train", "deps-imagenet"], "recipe deps-imagenet needs --data"),
        (["train", "--resume"], "nothing to resume there"),
        (["train", "--set", "lr"], "--set: expected NAME=VALUE, found 'lr'"),
        (["train", "--set", "colour=1"], "training settings: colour: "),
        (["train", "--set", "lr=fast"], "settings: lr: expected a number, found 'fast'"),
        (["train", "--epochs", 1], "settings: epochs: expected at least 2, found 1"),
        (["train", "--set", "batch=1.5"], "batch: expected a whole number, found 1.5"),
        (["train", "--config", "none.toml"], "none.toml: no such file"),
        (["train", "--augment", "crop+blur"], "unknown augmentation 'blur'"),
        (["train", "--set", "method=genetic"], "unknown method 'genetic'"),
        (["train", "bignas-glyphs", "--ramp-end", 3], "method bignas has no setting ramp_end; it"),
        (["train", "compofa-glyphs", "--epochs", 3], "method compofa has no setting epochs; it"),
        (["train", "--dry-run", "--batch", 128], "at least one batch of 128 training images"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    cli: Callable[..., Any], args: list[object], message: str
) -> None:
    assert message in cli(*args, *FEW).error(1)
    assert not list(Path().iterdir())


# -- going on -------------------------------------------------------------------------------


def stopped(monkeypatch: pytest.MonkeyPatch, *args: object, cli: Callable[..., Any]) -> None:
    """Begin a run and interrupt it at the end of its first epoch."""
    write = loop.save_state

    def interrupted(*given: Any) -> None:
        write(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_state", interrupted)
        assert cli(*args).code == 130


def test_a_run_goes_on_by_its_name_alone(
    cli: Callable[..., Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("bignas-images", "--data", photos, "--epochs", 2, "--batch", 16, "--seed", 4)
    few = ("--train-images", 60, "--calibration", 32, "--threads", 1, "--set", "decay=0.9")
    stopped(monkeypatch, "train", *asked, *few, "--run", "r", cli=cli)
    advice = cli("evaluate", "r").error(1).rpartition("ofa-deploy ")[2]
    assert advice == "train --resume --run r"
    done = cli(*advice.split())
    assert done.code == 0, done.stderr
    assert "resuming training at step 3 of 6" in done.stderr
    assert cli("train", *asked, *few, "--run", "whole").code == 0
    names = ("run.json", "supernet.safetensors", "metrics.csv")
    assert all(Path("r", n).read_bytes() == Path("whole", n).read_bytes() for n in names)


def test_what_is_said_beside_a_run_must_be_its_own(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(monkeypatch, "train", "--epochs", 2, "--run", "r", *SMALL, cli=cli)
    resumed = ("train", "--resume", "--run", "r")
    assert "--lr 0.5 (the run there was begun with 0.025)" in cli(*resumed, "--lr", 0.5).error(1)
    assert "--set lr=0.5 (the run there" in cli(*resumed, "--set", "lr=0.5").error(1)
    both = cli(*resumed, "--batch", 8, "--lr", 0.5).error(1)
    assert "--batch 8 (the run" in both and "--lr 0.5 (the run" in both, "each that was given"
    assert "--seed 5 (the run there was begun with 0); to go on" in cli(
        *resumed, "--seed", 5
    ).error(1)
    assert "which differs in its space" in cli(*resumed, "--space", "deps-mbv3-32").error(1)
    assert "differs in its images" in cli(*resumed, "--train-images", 48).error(1)


def test_images_that_have_moved(cli: Callable[..., Any], photos: Path) -> None:
    shutil.copytree(photos, "before")
    shutil.copytree(photos, "other")
    first = next(Path("other/moss").iterdir())
    shutil.copy(next(Path("other/rust").iterdir()), first)
    asked = ("--epochs", 2, "--batch", 16, "--calibration", 32, "--threads", 1)
    assert cli("train", "--data", "before", "--run", "r", *asked).code == 0
    Path("before").rename("after")
    assert "before" in cli("evaluate", "r", "--subnets", 9).error(1)
    assert "images or their number have changed" in cli("evaluate", "r", "--data", "other").error(1)
    done = cli("evaluate", "r", "--subnets", 9, "--data", "after", "--threads", 2)
    assert done.code == 0, done.stderr
    assert torch.get_num_threads() == 2
    cut = ("--run", "r", "--arch", "smallest")
    assert cli("export", *cut, "--data", "after", "--out", "b").code == 0
    subnet = "r/subnets/smallest.subnet.json"
    Path("after").rename("later")
    assert cli("export", subnet, "--out", "c").code == 1
    assert cli("export", subnet, "--data", "later", "--out", "c").code == 0
    assert "are others" in cli("export", subnet, "--data", "other", "--out", "d").error(1)
    again = cli("train", "--resume", "--run", "r", "--data", "later")
    assert again.code == 0, again.stderr


# -- settings -------------------------------------------------------------------------------


def test_the_split_follows_the_seed_of_the_settings(cli: Callable[..., Any]) -> None:
    Path("seed.toml").write_text("seed = 3\n")
    found = []
    for run, *given in (
        ("a", "--config", "seed.toml"),
        ("b", "--seed", 3),
        ("c", "--config", "seed.toml", "--seed", 0),
        ("d",),
    ):
        assert cli("train", "--epochs", 2, "--run", run, *SMALL, *given, "--quiet").code == 0
        record = json.loads(Path(run, "run.json").read_text())
        found.append((record["config"]["seed"], record["data_options"]["seed"]))
    assert found == [(3, 3), (3, 3), (0, 0), (0, 0)]


def test_a_recipe_s_own_epochs_change_nothing(cli: Callable[..., Any]) -> None:
    few = ("--data", "glyphs", "--space", SPACE, "--resolutions", 32, "--dry-run", *SMALL)
    plain, same = (cli("train", "deps-imagenet", *e, *few) for e in ((), ("--epochs", 270)))
    assert plain.code == 0, plain.stderr
    assert plain.stdout == same.stdout
    assert " 150 " in plain.stdout


def test_another_method_brings_its_own_recipe(cli: Callable[..., Any]) -> None:
    given = ("--dry-run", *SMALL, "--quiet")
    changed = cli("train", "deps-glyphs", "--set", "method=progressive", *given)
    assert changed.code == 0, changed.stderr
    assert changed.stdout == cli("train", "progressive-glyphs", *given).stdout


def test_dry_run_lists_the_settings(cli: Callable[..., Any]) -> None:
    shown = cli("train", "bignas-glyphs", "--dry-run", "--set", "decay=0.875", *SMALL).stdout
    (line,) = [line for line in shown.splitlines() if " decay " in line]
    assert "0.875" in line and "0.97" in line


def test_adapt_keeps_a_warm_up(cli: Callable[..., Any]) -> None:
    given = ("--weights", "w.pth", "--space", SPACE, "--data", "glyphs", "--run", "r")
    refused = cli("adapt", *given, "--epochs", 2)
    assert refused.code == 2 and "'--epochs': expected at least 3, found '2'" in refused.stderr


# -- ranks and devices ----------------------------------------------------------------------


@pytest.fixture
def second_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as the second of two; nothing may be sent to the other."""

    @contextmanager
    def joined() -> Iterator[Ranks]:
        yield Ranks(1, 2)

    monkeypatch.setattr("ofa_deploy.train.joined", joined)


@pytest.mark.usefixtures("second_rank")
def test_only_the_first_rank_forecasts_and_adopts(cli: Callable[..., Any]) -> None:
    torch.save(Supernet(get_space(SPACE), seed=3).state_dict(), "given.pth")
    forecast = cli("train", "--dry-run", *SMALL)
    adopted = cli("train", "--init", "given.pth", "--epochs", 0, "--run", "r", *SMALL)
    for done in (forecast, adopted):
        assert (done.code, done.stdout, done.stderr) == (0, "", "")
    assert not Path("r").exists()


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pretend that there is a GPU; stops whatever would compute on it, and notes where that was."""
    seen: list[str] = []

    def trainer(_space: object, _config: object, _data: object, ranks: Ranks, **_: object) -> None:
        seen.append(ranks.device.type)
        raise KeyboardInterrupt

    def load(_run: Path, _data: object, ranks: Ranks = loop.ALONE, **_: object) -> None:
        seen.append(ranks.device.type)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(loop, "Trainer", trainer)
    monkeypatch.setattr(Evaluator, "load", load)
    return seen


def test_training_takes_the_gpu(cli: Callable[..., Any], photos: Path, devices: list[str]) -> None:
    torch.save(Supernet(get_space(SPACE), seed=3).state_dict(), "given.pth")
    given = ("--weights", "given.pth", "--space", SPACE, "--data", photos)
    assert cli("adapt", *given, "--run", "a", "--batch", 16).code == 130
    assert cli("train", "--run", "t", *SMALL).code == 130
    assert cli("quickstart", "--run", "q", "--images", 500, "--quiet").code == 130
    assert devices == ["cuda"] * 3


def test_evaluation_takes_the_gpu(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    asked = ("train", "--epochs", 2, "--run", "r", *SMALL)
    assert cli(*asked, "--quiet").code == 0
    devices = request.getfixturevalue("devices")
    for again in (
        asked,
        ("evaluate", "r"),
        ("export", "--run", "r", "--arch", "largest", "--out", "b"),
    ):
        assert cli(*again).code == 130
    assert devices == ["cuda"] * 3


def test_a_full_gpu_is_one_line(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr("ofa_deploy.train.train", full)
        assert "lower --batch" in cli("train", "--run", "r", *SMALL).error(1)
