"""Published weights in place of a training, and spaces from files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ofa_deploy.space import SearchSpace, space_names
from ofa_deploy.supernet import Supernet

ROOT = Path(__file__).resolve().parents[2]
TOML = """
resolutions = [16]
classes = 3
[stem]
channels = 8
[[stages]]
channels = 8
stride = 1
depths = [1]
kernels = [3]
expands = [1]
[[stages]]
channels = 16
stride = 2
depths = [1, 2]
kernels = [3, 5]
expands = [2, 3]
se = true
[head]
channels = 24
features = 32
"""
LAYERS = {
    "expand.": "inverted_bottleneck.conv.",
    "expand_bn.": "inverted_bottleneck.bn.",
    "depthwise.": "depth_conv.conv.conv.",
    "depthwise_bn.": "depth_conv.bn.bn.",
    "squeeze.reduce.": "depth_conv.se.fc.reduce.",
    "squeeze.expand.": "depth_conv.se.fc.expand.",
    "project.": "point_linear.conv.conv.",
    "project_bn.": "point_linear.bn.bn.",
}
OUTER = {
    "layers.stem.full.": "first_conv.",
    "layers.head.full.": "final_expand_layer.",
    "layers.classifier.full.features.": "feature_mix_layer.conv.",
    "layers.classifier.full.": "classifier.",
}


def published(net: Supernet) -> dict[str, torch.Tensor]:
    """The weights of a net of the space above, under names of the older generation."""
    named = {}
    blocks = ("layers.stages-0-0.", "layers.stages-1-0.", "layers.stages-1-1.")
    for key, tensor in net.state_dict().items():
        for own, theirs in OUTER.items():
            if key.startswith(own):
                named[theirs + key.removeprefix(own)] = tensor
                break
        else:
            index = next(i for i, block in enumerate(blocks) if key.startswith(block))
            rest = key.removeprefix(blocks[index]).removeprefix("full.")
            rest = rest.replace("transforms.5to3", "depth_conv.conv.5to3_matrix")
            for own, theirs in LAYERS.items():
                rest = theirs + rest.removeprefix(own) if rest.startswith(own) else rest
            named[f"blocks.{index}.mobile_inverted_conv.{rest}"] = tensor
    return named


@pytest.fixture(scope="module")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "own.toml"
    path.write_text(TOML)
    return path


@pytest.fixture(scope="module")
def checkpoint(space_file: Path) -> Path:
    path = space_file.with_name("published.pth")
    net = Supernet(SearchSpace.from_toml(space_file), seed=5)
    torch.save({"state_dict": published(net)}, path)
    return path


def test_spaces_lists_the_catalogue_and_files(cli: Callable[..., Any], space_file: Path) -> None:
    rows = json.loads(cli("spaces", "--format", "json").stdout)
    assert [row["space"] for row in rows] == list(space_names())
    mobile = next(row for row in rows if row["space"] == "ofa-mbv3-w1.0")
    assert f"{mobile['networks']:.2e}" == "2.18e+19"
    assert (mobile["macs_min"], mobile["macs_max"]) == (121_278_672, 566_170_656)
    assert mobile["pixels"] == "128-224"
    (own,) = json.loads(cli("spaces", space_file, "--format", "json").stdout)
    assert (own["space"], own["networks"], own["pixels"]) == ("own", 20, "16")


def test_shipped_example_of_a_space(cli: Callable[..., Any]) -> None:
    (row,) = json.loads(cli("spaces", ROOT / "docs/my_space.toml", "--format", "json").stdout)
    assert row["space"] == "my-space"
    # per stage: depths 1 to 3 of 4 choices a block, of 9, and two coupled depths
    assert row["networks"] == (4 + 16 + 64) * (9 + 81 + 729) * 2


def test_train_goes_on_from_published_weights(
    cli: Callable[..., Any], photos: Path, space_file: Path, checkpoint: Path, tmp_path: Path
) -> None:
    train = ("train", "--space", space_file, "--data", photos, "--batch", 16, "--threads", 1)
    done = cli(*train, "--init", checkpoint, "--epochs", 2, "--run", "run")
    assert done.code == 0, done.stderr
    config = json.loads(Path("run/run.json").read_text())["config"]
    assert config["init_sha256"] and not config["new_classifier"]
    again = cli(*train, "--epochs", 2, "--run", "run").error(1)
    assert "no --init, which the run there was begun with" in again


def test_published_weights_are_searched_and_exported(
    cli: Callable[..., Any], photos: Path, space_file: Path, checkpoint: Path, workers: Any
) -> None:
    given = ("--weights", checkpoint, "--space", space_file, "--data", photos)
    adopted = ("train", "--init", checkpoint, "--epochs", 0, "--run", "first", "--data", photos)
    done = cli(*adopted, "--space", space_file, "--threads", 1)
    assert done.code == 0 and "ofa-deploy evaluate first" in done.stderr
    profiled = cli("profile", "--run", "first", "--out", "table.json")
    # 20 networks are too few for the usual 40: the tool says so rather than measuring some twice
    assert "too few networks" in profiled.error(1)

    exported = cli("export", *given, "--run", "run", "--arch", "largest", "--out", "bundle")
    assert exported.code == 0, exported.stderr
    manifest = json.loads(Path("bundle/manifest.json").read_text())
    assert manifest["targets"]["onnx"]["accuracy"]["max_difference"] <= 1e-4
    assert manifest["subnet"]["arch"]["depths"] == [2]
    Path("net.json").write_text(json.dumps({"d": [1], "ks": [5, 3], "e": [2, 3]}))
    again = cli("export", "--run", "run", "--arch", "net.json", "--out", "other")
    assert again.code == 0 and Path("run/subnets/net.subnet.json").exists()


def test_search_evaluates_published_weights_first(
    cli: Callable[..., Any], photos: Path, checkpoint: Path, space_file: Path, workers: Any
) -> None:
    wide = Path("wide.toml")
    wide.write_text(TOML.replace("depths = [1, 2]", "depths = [1, 2, 3]"))
    torch.save(Supernet(SearchSpace.from_toml(wide), seed=5).state_dict(), "wide.pth")
    given = ("--init", "wide.pth", "--epochs", 0, "--space", wide, "--data", photos)
    adopted = cli("train", *given, "--run", "run", "--threads", 1)
    assert adopted.code == 0, adopted.stderr
    assert cli("profile", "--run", "run", "--out", "table.json").code == 0
    ask = ("--table", "table.json", "--constraint", "latency <= 1 ms")
    assert "make it with: ofa-deploy evaluate run" in cli("search", "--run", "run", *ask).error(1)
    done = cli("search", "--run", "run", "--weights", "wide.pth", *ask, "--format", "json")
    assert done.code == 0, done.stderr
    (best,) = json.loads(done.stdout)
    assert Path("run/accuracy.onnx").exists() and Path("run/subnets/best.subnet.json").exists()
    assert best["measured_ms"] <= 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "--epochs", 0], "need --init FILE"),
        (["train", "--new-classifier"], "need --init FILE"),
        (["train", "--init", "W", "--epochs", 0, "--new-classifier"], "classifier untrained"),
        (["train", "--init", "none.pth"], "none.pth: no such file"),
        (["train", "--init", "W", "--epochs", 2], "missing"),
        (["train", "--resolutions", "160,big"], "expected numbers such as 160,192,224"),
        (["train", "--resolutions", "0"], "expected 1 to 4096 pixels"),
        (["train", "--space", "none.toml"], "none.toml: no such file"),
        (["spaces", "own"], "a space of your own is a file NAME.toml"),
        (["export", "--out", "b"], "expected either a SUBNET file"),
        (["export", "x.subnet.json", "--arch", "largest", "--out", "b"], "expected either"),
        (["export", "--arch", "largest", "--out", "b"], "expected either"),
        (["export", "--run", "r", "--arch", "largest", "--out", "b"], "no training run there"),
        (
            ["export", "--run", "r", "--arch", "largest", "--weights", "W", "--out", "b"],
            "--weights needs --space and --data",
        ),
        (
            ["export", "--run", "r", "--arch", "largest", "--data", "glyphs", "--out", "b"],
            "go with --weights",
        ),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    cli: Callable[..., Any], checkpoint: Path, args: list[object], message: str
) -> None:
    given = [checkpoint if arg == "W" else arg for arg in args]
    assert message in cli(*given).error(1)
    assert not list(Path().iterdir())


def test_a_run_of_other_weights_is_not_taken(
    cli: Callable[..., Any], photos: Path, space_file: Path, checkpoint: Path
) -> None:
    given = ("--space", space_file, "--data", photos)
    ask = ("--run", "run", "--arch", "largest")
    assert cli("export", "--weights", checkpoint, *given, *ask, "--out", "b").code == 0
    other = Path("other.pth")
    torch.save(published(Supernet(SearchSpace.from_toml(space_file), seed=6)), other)
    assert "was made with other weights" in cli(
        "export", "--weights", other, *ask, "--out", "c"
    ).error(1)
    others = ("--weights", checkpoint, "--data", "glyphs", "--resolutions", 32)
    message = cli("export", *others, *ask, "--out", "c").error(1)
    assert f"was made with resolutions 16 and data {photos}" in message
