"""Training from the command line: recipes, forecasts, settings, adaptation."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ofa_deploy.space import get_space
from ofa_deploy.supernet import Supernet

FEW = ("--train-images", 64, "--validation-images", 40, "--test-images", 40, "--calibration", 32)
SMALL = (*FEW, "--batch", 16, "--threads", 1)
SPACE = "mbv3-nano-32"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_recipes_are_listed(cli: Callable[..., Any]) -> None:
    listed = cli("train", "--recipes").stdout
    for name in ("deps-glyphs", "progressive-cifar10", "alphanet-imagenet"):
        assert name in listed
    assert not list(Path().iterdir())


def test_dry_run_tells_the_plan_and_spends_nothing(cli: Callable[..., Any]) -> None:
    done = cli("train", "progressive-glyphs", "--dry-run", *SMALL)
    assert done.code == 0, done.stderr
    for text in ("teacher", "kernel", "depth 2", "expand 2", "freeze teacher", "4 random"):
        assert text in done.stdout
    assert "multiply-accumulates" in done.stdout and "MiB" in done.stdout
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
        assert image.size == (1152, 1152)
    assert len(list(Path("r/events").glob("events.out.tfevents.*"))) == 1
    again = cli("train", "bignas-glyphs", "--epochs", 2, "--run", "r", "--resume", *SMALL)
    assert again.code == 0 and again.stdout == done.stdout


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


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "deps-glyph"], "did you mean deps-glyphs"),
        (["train", "deps-imagenet"], "recipe deps-imagenet needs --data"),
        (["train", "--resume"], "nothing to resume there"),
        (["train", "--set", "lr"], "--set: expected NAME=VALUE, found 'lr'"),
        (["train", "--set", "colour=1"], "training settings: colour: "),
        (["train", "--set", "lr=fast"], "training settings: lr: "),
        (["train", "--config", "none.toml"], "none.toml: no such file"),
        (["train", "--augment", "crop+blur"], "unknown augmentation 'blur'"),
        (["train", "--set", "method=genetic"], "unknown method 'genetic'"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    cli: Callable[..., Any], args: list[object], message: str
) -> None:
    assert message in cli(*args, *FEW).error(1)
    assert not list(Path().iterdir())
