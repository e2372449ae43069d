"""INT8 beside float32: accuracy of quantised subnets, and the better of both under a budget."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.export import AsShipped, load_manifest
from ofa_deploy.predict import load_accuracy_model
from ofa_deploy.runtimes.onnx_runtime import OnnxRuntime
from ofa_deploy.supernet import load_subnet
from ofa_deploy.train import Evaluator
from tests.cli.conftest import Workers, budget, in_process

Cli = Callable[..., Any]

INT8 = ("--precision", "int8")


@dataclass(frozen=True)
class Made:
    """A run whose INT8 accuracy is known, and its tables."""

    run: Path
    fp32: Path
    int8: Path
    evaluated: Any


@pytest.fixture(scope="module")
def made(job: Any, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("int8")
    run = Path(shutil.copytree(job.run, folder / "mine"))
    table = folder / "int8.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(subprocess, "Popen", Workers().popen)
        evaluated = in_process("evaluate", run, *INT8, "--subnets", 9, "--format", "json")
        assert evaluated.code == 0, evaluated.stderr
        few = ("--calibration", 6, "--holdout", 9)
        profiled = in_process("profile", "--run", run, *INT8, *few, "--out", table)
        assert profiled.code == 0, profiled.stderr
    return Made(run, job.table, table, evaluated)


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Path:
    """A copy of the run, to be searched."""
    return Path(shutil.copytree(made.run, tmp_path / "mine"))


def test_int8_subnets_are_judged_beside_the_others(made: Made, job: Any) -> None:
    rows = json.loads(made.evaluated.stdout)
    assert len(rows) == 9
    assert "--runtime onnxruntime --precision int8" in made.evaluated.stderr
    for name in ("accuracy{}.onnx", "evaluations{}.csv", "evaluations{}.jsonl"):
        assert (made.run / name.format("-onnxruntime-int8")).is_file()
        assert (made.run / name.format("")).read_bytes() == (job.run / name.format("")).read_bytes()
    model = load_accuracy_model(made.run / "accuracy-onnxruntime-int8.onnx")
    archs, top1 = model.space.decode(model.measured[0]), model.measured[1]
    evaluator = Evaluator.load(made.run, _data(made.run))
    assert AsShipped(evaluator, "onnxruntime", "int8").validate(archs) == pytest.approx(list(top1))
    journal = made.run / "evaluations-onnxruntime-int8.jsonl"
    assert len(journal.read_text().splitlines()) == 1 + len(archs), "nothing was done twice"


def _data(run: Path) -> Any:
    from ofa_deploy.cli._workspace import run_data
    from ofa_deploy.train import RunFile

    record = RunFile.load(run)
    return run_data(record.data, record.data_options, record.search_space)


@pytest.mark.slow
def test_top1_is_that_of_the_file_which_export_writes(
    made: Made, run: Path, cli: Cli, workers: Workers
) -> None:
    found = cli("search", "--run", run, "--table", made.int8, *budget(1), "--format", "json")
    assert found.code == 0, found.stderr
    subnet = run / "subnets" / "best.subnet.json"
    assert load_subnet(subnet)[1].network.target == "ort-int8"
    (line,) = re.findall(r"^  ofa-deploy (export .*)$", found.stderr, re.MULTILINE)
    assert line.endswith("--target ort-int8 --no-sensitivity")
    assert cli(*line.split(), "--no-measure").code == 0
    manifest = load_manifest(Path("bundles/best/manifest.json"))
    record = manifest.targets["ort-int8"]
    assert record.settings["sensitivity"] == {"float_blocks": [], "measured": False}
    evaluator = Evaluator.load(run, _data(run))
    arch = load_subnet(subnet)[1].network.arch
    (path,) = (name for name in record.files if name.endswith(".onnx"))
    shipped = AsShipped(evaluator, "onnxruntime", "int8")
    assert _top1(Path("bundles/best") / path, evaluator) == pytest.approx(
        shipped.validate([arch])[0]
    )


def _top1(path: Path, evaluator: Evaluator) -> float:
    """Top-1 of an exported file on the validation images."""
    from ofa_deploy.runtimes import get_runtime
    from ofa_deploy.supernet import to_tensor

    images = evaluator.data.validation
    session = get_runtime("onnxruntime").load(path.read_bytes())
    size = evaluator.record.search_space.resolutions[-1]
    pixels = to_tensor(images.batch(range(len(images))), size).numpy()  # type: ignore[arg-type]
    return float(100 * (session.run(pixels).argmax(1) == images.labels).mean())


@pytest.mark.slow
def test_the_more_accurate_of_both_that_fits_wins(
    made: Made, run: Path, cli: Cli, workers: Workers
) -> None:
    both = ("--table", made.fp32, "--table", made.int8)
    found = cli("search", "--run", run, *both, *budget(0.6), "--format", "json")
    assert found.code == 0, found.stderr
    rows = json.loads(found.stdout)
    assert len(rows) == 2
    assert all(row["measured_ms"] <= 0.6 for row in rows)
    best = load_subnet(run / "subnets" / "best.subnet.json")[1].network
    assert best.measured["top1"] == max(row["top1"] for row in rows)
    for form in ("onnxruntime-fp32", "onnxruntime-int8"):
        assert (run / "fronts" / f"best-{form}.front.json").is_file()
        assert (run / "fronts" / f"best-{form}-measured.front.json").is_file()
    assert "the most accurate that fits: " in found.stderr


@pytest.mark.slow
def test_where_only_one_fits_it_wins(made: Made, run: Path, cli: Cli, workers: Workers) -> None:
    """INT8 files are smaller, so they are faster here: a budget that float32 cannot meet."""
    both = ("--table", made.fp32, "--table", made.int8)
    least = _least(cli("search", "--run", run, "--table", made.fp32, *budget(1e-6)))
    found = cli("search", "--run", run, *both, *budget(0.95 * least), "--format", "json")
    assert found.code == 0, found.stderr
    assert load_subnet(run / "subnets" / "best.subnet.json")[1].network.target == "ort-int8"
    assert "onnxruntime-fp32: " in found.stderr
    refused = cli("search", "--run", run, *both, *budget(1e-6)).error(3)
    assert all(f"onnxruntime-{form}: no network" in refused for form in ("fp32", "int8"))


def _least(refused: Any) -> float:
    assert refused.code == 3
    found = re.search(r"latency reaches from (\S+) ms to", refused.stderr)
    assert found
    return float(found[1])


def test_without_the_accuracy_int8_is_refused(
    made: Made, job: Any, tmp_path: Path, cli: Cli, workers: Workers
) -> None:
    run = shutil.copytree(job.run, tmp_path / "mine")
    refused = cli("search", "--run", run, "--table", made.int8, *budget(0.6))
    message = refused.error(1)
    assert "the accuracy of int8 subnets was never measured" in message
    assert f"ofa-deploy evaluate {run} --runtime onnxruntime --precision int8" in message
    model = ("--accuracy", run / "accuracy.onnx", "--no-verify")
    assert "never measured" in cli("search", *model, "--table", made.int8, *budget(1)).error(1)


def test_predicted_fronts_of_both_are_files_of_their_own(made: Made, run: Path, cli: Cli) -> None:
    both = ("--table", made.fp32, "--table", made.int8)
    found = cli("search", "--run", run, *both, "--no-verify", *budget(0.6))
    assert found.code == 0, found.stderr
    for form in ("onnxruntime-fp32", "onnxruntime-int8"):
        assert (run / "fronts" / f"best-{form}.front.json").is_file()


@pytest.mark.parametrize(
    ("args", "message"),
    [(("--precision", "int4"), "unknown precision"), (("--runtime", "tflite"), "unknown runtime")],
)
def test_unknown_forms_are_refused(
    run: Path, cli: Cli, args: tuple[str, ...], message: str
) -> None:
    assert message in cli("evaluate", run, *args).error(1)


def test_another_version_of_the_engine_evaluates_anew(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = Evaluator.load(run, _data(run))
    journal = run / "evaluations-onnxruntime-int8.jsonl"
    before = journal.read_text().splitlines()
    monkeypatch.setattr(OnnxRuntime, "version", "0.1")
    AsShipped(evaluator, "onnxruntime", "int8").validate([evaluator.record.search_space.smallest])
    assert journal.read_text().splitlines()[0] != before[0]
    assert len(journal.read_text().splitlines()) == 2
