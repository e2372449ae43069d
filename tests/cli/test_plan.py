"""``plan`` and ``predictors``: before training, and with models of others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa_deploy.cost import macs_model
from ofa_deploy.predict import load_accuracy_model
from ofa_deploy.search import FrontFile
from ofa_deploy.space import get_space
from tests.tables import SOMEWHERE, table_of

Cli = Callable[..., Any]
NANO = get_space("mbv3-nano-32")
WIDE = get_space("ofa-mbv3-w1.2")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return table_of(NANO, lambda block: block.macs / 1e6).save(tmp_path / "one.json")


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    there = SOMEWHERE.model_copy(update={"device": "slow"})
    return table_of(NANO, lambda block: block.macs / 2e5, conditions=there).save(
        tmp_path / "slow.json"
    )


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up weights in the form of once-for-all's predictor."""
    rng = np.random.default_rng(0)
    widths = (128, 400, 400, 400, 1)
    state = {}
    for layer in range(4):
        shape = (widths[layer + 1], widths[layer])
        matrix = rng.normal(0, (2 / shape[1]) ** 0.5, shape)
        state[f"{2 * layer}.weight"] = torch.tensor(matrix, dtype=torch.float32)
        state[f"{2 * layer}.bias"] = torch.zeros(shape[0])
    path = tmp_path_factory.mktemp("predictor") / "mlp.pth"
    torch.save(state, path)
    return path


def test_plan_tells_what_is_reached(cli: Cli, table: Path) -> None:
    made = cli("plan", "--space", NANO.name, "--table", table, "--format", "json")
    assert made.code == 0, made.stderr
    rows = {row["metric"]: row for row in json.loads(made.stdout)}
    least, greatest = macs_model(NANO).bounds()
    assert (rows["macs"]["least"], rows["macs"]["greatest"]) == (least, greatest)
    assert rows["latency"]["least"] == pytest.approx(least / 1e6)
    assert rows["latency"]["least"] < rows["latency"]["middle"] < rows["latency"]["greatest"]
    assert {"params", "peak_memory", "model_size"} <= set(rows)
    assert "ofa-deploy train" in made.stderr


def test_plan_tells_which_budgets_are_met(cli: Cli, table: Path, slow: Path) -> None:
    asked = ("--constraint", "latency[bench] <= 2 ms", "--constraint", "latency[slow] <= 8 ms")
    made = cli("plan", "--space", NANO.name, "--table", table, "--table", slow, *asked)
    assert made.code == 0, made.stderr
    shares = dict(line.split(": met by ") for line in made.stderr.splitlines() if "met by" in line)
    assert set(shares) == {asked[1], asked[3], "all of them"}
    found = {text: float(share.split("%")[0]) for text, share in shares.items()}
    assert found["all of them"] == found[asked[3]] < found[asked[1]]
    assert "the largest network that meets all of it has 1.6 million MACs" in made.stderr


def test_plan_prints_units_and_what_comes_next(cli: Cli, table: Path, here: Path) -> None:
    asked = ("--table", table, "--constraint", "latency <= 2 ms")
    made = cli("plan", "--space", NANO.name, *asked)
    rows = {words[0]: words[1:] for line in made.stdout.splitlines() if (words := line.split())}
    assert rows["latency"][1::2] == ["ms"] * 3 and rows["peak_memory"][1] == "KiB"
    assert f"ofa-deploy train --space {NANO.name} --data DIR" in made.stderr


def test_plan_with_fixed_genes(cli: Cli, table: Path) -> None:
    fixed = ("--constraint", "expand = 2", "--constraint", "depth = 1")
    made = cli("plan", "--space", NANO.name, "--table", table, *fixed, "--format", "json")
    rows = {row["metric"]: row for row in json.loads(made.stdout)}
    assert rows["macs"]["least"] == NANO.cost(NANO.smallest).macs
    assert rows["macs"]["greatest"] < macs_model(NANO).bounds()[1]


def test_plan_that_cannot_be_is_exit_3(cli: Cli, table: Path) -> None:
    made = cli("plan", "--space", NANO.name, "--table", table, "--constraint", "latency <= 0.1 ms")
    message = made.error(3)
    assert "no network of space mbv3-nano-32 meets all constraints; nearest: " in message
    assert str(NANO.smallest) in message


def test_plan_of_a_device_without_a_table(cli: Cli, workers: Any) -> None:
    made = cli(
        *("plan", "--space", NANO.name, "--device", "local", "--format", "json"),
        *("--constraint", "macs <= 2M"),
    )
    assert made.code == 0, made.stderr
    assert workers.started == 4
    assert "12 networks measured; 4 hold-out networks" in made.stderr
    rows = {row["metric"]: row for row in json.loads(made.stdout)}
    assert 0 < rows["latency"]["least"] < rows["latency"]["greatest"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--device", "nosuch"), "nosuch"),
        (("--device", "local", "--runtime", "abacus"), "device local has no runtime 'abacus'"),
        (("--constraint", "latency <= 3 ms"), "name its table with --table FILE"),
        (("--constraint", "speed <= 3"), "unknown metric 'speed'"),
        (
            ("--constraint", "top1 >= 75"),
            "accuracy is not known before training; leave 'top1 >= 75' out",
        ),
        (("--table", "nosuch.json"), "no such latency table"),
    ],
)
def test_plan_refuses(cli: Cli, more: tuple[str, ...], message: str) -> None:
    assert message in cli("plan", "--space", NANO.name, *more).error(1)


def test_plan_refuses_before_it_measures(cli: Cli, workers: Any) -> None:
    asked = ("--device", "local", "--constraint", "top1 >= 75")
    assert "not known before training" in cli("plan", "--space", NANO.name, *asked).error(1)
    assert workers.started == 0


def test_plan_from_a_table_or_a_device(cli: Cli, table: Path) -> None:
    made = cli("plan", "--space", NANO.name, "--table", table, "--device", "local")
    assert "expected --table or --device, found both" in made.error(1)


def test_predictor_is_imported_and_searched_with(cli: Cli, predictor: Path, tmp_path: Path) -> None:
    made = cli(
        *("predictors", "import", "--from", "ofa-mlp", predictor),
        *("--space", WIDE.name, "--out", "mlp.onnx"),
    )
    assert made.code == 0, made.stderr
    assert "left out, since it does not know them: 128" in made.stderr
    assert "error unknown" in made.stderr
    shown = cli("predictors", "show", "mlp.onnx")
    assert "at 160, 176, 192, 208, 224 pixels" in shown.stdout and "mlp.pth" in shown.stdout
    space = WIDE.with_resolutions(176, 180, 192)
    table = table_of(space, lambda block: block.macs / 1e7, reference=None, source="csv: x").save(
        "table.json"
    )
    found = cli(
        *("search", "--accuracy", "mlp.onnx", "--table", table, "--no-verify", "--name", "x"),
        *("--constraint", "latency <= 25 ms", "--constraint", "kernel <= 5"),
    )
    assert found.code == 0, found.stderr
    assert "searching 176, 192 pixels; left out, since not known to all: 160, 180" in found.stderr
    front = FrontFile.load(Path("x.front.json")).pareto
    model = load_accuracy_model("mlp.onnx")
    for candidate in front:
        assert candidate.arch.resolution in (176, 192)
        assert max(candidate.arch.kernels) <= 5
        assert candidate.predicted["latency"] <= 25
        expected = model.predict([candidate.arch])[0]
        assert candidate.predicted["top1"] == pytest.approx(expected, rel=1e-5)
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--from", "mlp"), "unknown form of accuracy predictors 'mlp'"),
        (("--from", "ofa-mlp", "--resolutions", "128"), "nonsense at 128 pixels"),
        (("--from", "ofa-mlp", "--space", "ofa-resnet50"), "ofa-resnet50 is another"),
    ],
)
def test_predictor_is_refused(
    cli: Cli, predictor: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    space = () if "--space" in more else ("--space", WIDE.name)
    out = tmp_path / "out.onnx"
    made = cli("predictors", "import", predictor, *more, *space, "--out", out)
    assert message in made.error(1)
    assert not out.exists()


def test_something_else_is_no_predictor(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    asked = ("--from", "ofa-mlp", "--space", WIDE.name, "--out", tmp_path / "o.onnx")
    message = cli("predictors", "import", path, *asked).error(1)
    assert f"{path}: not once-for-all's accuracy predictor: 0.bias missing" in message
