"""``ofa-deploy specialize``: phases foretold, results told, wrong input in one line."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.errors import NoisyDeviceError
from ofa_deploy.export import load_manifest
from ofa_deploy.export.classify import feed, read_square
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.supernet import load_ensemble, load_subnet

SHORT = ("--set", "batch=16", "--set", "calibration=32", "--threads", 1, "--corrupted-images", 8)
TUNE = ("--method", "finetune", "--scale", 0.05, *SHORT)


def test_fine_tuning_gives_a_subnet_that_export_takes(
    cli: Callable[..., Any], job: Any, workers: Any
) -> None:
    done = cli("specialize", job.subnet, *TUNE, "--format", "json")
    assert done.code == 0, done.stderr
    before, after = json.loads(done.stdout)
    assert (before["network"], after["network"]) == ("before", "after")
    assert before["training_macs"] == 0 < after["training_macs"] == after["training_sparse_macs"]
    assert after["macs"] == before["macs"]
    for name in ("top1", "nll", "ece", "brier", "top1_corrupted", "latency_member"):
        assert isinstance(after[name], float)
    assert workers.started > 0
    result = Path("runs/best-finetune/subnets/best.subnet.json")
    assert str(result) in done.stderr
    assert f"ofa-deploy export {result}" in done.stderr
    assert "judge, before: " in done.stderr and "judge, after: " in done.stderr
    _, record = load_subnet(result)
    assert record.network.measured.keys() >= {"top1", "latency"}
    assert json.loads(Path("runs/best-finetune/judged.json").read_text())["rows"] == [before, after]
    exported = cli("export", result, "--out", "bundle")
    assert exported.code == 0, exported.stderr


def test_a_machine_that_does_not_stand_still_costs_the_latency_only(
    cli: Callable[..., Any], job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = Path("runs/best-finetune/judged.json")
    known: list[dict[str, Any]] = []

    def noisy(*args: Any, **options: Any) -> dict[str, float]:
        known.extend(json.loads(judged.read_text())["rows"])
        raise NoisyDeviceError("too noisy to measure: close other programs")

    monkeypatch.setattr("ofa_deploy.specialize.measured_latency", noisy)
    done = cli("specialize", job.subnet, *TUNE, "--format", "json")
    assert done.code == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows == known == json.loads(judged.read_text())["rows"], "written before it failed"
    assert not any(name.startswith("latency") for row in rows for name in row)
    assert "warning: latency is left out: too noisy to measure" in done.stderr


def test_tickets_give_an_ensemble(
    cli: Callable[..., Any], job: Any, photos: Path, workers: Any
) -> None:
    pairs = ("members=2", "sparsity=0.5", "update_steps=2")
    few = [part for text in pairs for part in ("--set", text)]
    done = cli(
        *("specialize", job.subnet, "--method", "edst", "--scale", 0.1, "--run", "r"),
        *(*few, *SHORT, "--format", "csv"),
    )
    assert done.code == 0, done.stderr
    before, after = csv.DictReader(io.StringIO(done.stdout))
    assert (before["members"], after["members"]) == ("1", "2")
    assert int(after["living"]) < int(after["params"])
    assert int(after["training_sparse_macs"]) < int(after["training_macs"])
    names = ("latency_member", "latency_in_turn", "latency_stacked")
    member, in_turn, stacked = (float(after[name]) for name in names)
    assert in_turn > member and stacked > member  # the fake times a graph by its size
    path = Path("r/subnets/best.ensemble.json")
    assert len(load_ensemble(path).subnets) == 2
    assert f"ofa-deploy export {path} --out r/bundle" in done.stderr
    _export_and_use(cli, path, min((photos / "rust").iterdir()))


def _export_and_use(cli: Callable[..., Any], path: Path, photo: Path) -> None:
    """An ensemble's bundle is one like any other; what it gives are probabilities already."""
    targets = ("--target", "onnx,onnx-fp16,ort-int8,torch-export")
    done = cli("export", path, "--out", "b", *targets, "--no-measure", "--format", "json")
    assert done.code == 0, done.stderr
    manifest = load_manifest(Path("b/manifest.json"))
    assert (manifest.members, manifest.output) == (2, "probabilities")
    ensemble = load_ensemble(path)
    assert manifest.weights_sha256 == ensemble.weights_sha256
    assert manifest.subnet["measured"]["top1"] == ensemble.record.network.measured["top1"]
    assert manifest.targets["onnx"].accuracy is not None
    assert cli("verify", "b").code == 0
    (row,) = json.loads(cli("run", "b", photo, "--top", 1, "--format", "json").stdout)
    model = get_runtime("onnxruntime").load(Path("b/model.onnx").read_bytes())
    given = model.run(feed([read_square(photo)], manifest.preprocessing, "none"))
    assert given.sum() == pytest.approx(1)
    assert row["probability"] == pytest.approx(given.max())


def test_imitation_finds_its_parent_and_goes_on(cli: Callable[..., Any], job: Any) -> None:
    asked = ("specialize", job.subnet, "--method", "wide-narrow", "--scale", 0.05, "--run", "r")
    done = cli(*asked, *SHORT, "--no-latency")
    assert done.code == 0, done.stderr
    assert "top1 corrupted" in done.stdout or "top1_corrupted" in done.stdout
    assert "latency" not in done.stdout
    record = json.loads(Path("r/run.json").read_text())
    assert (
        record["parent_sha256"] == json.loads((job.run / "run.json").read_text())["weights_sha256"]
    )
    again = cli(*asked, *SHORT, "--no-latency")
    assert again.code == 0 and again.stdout == done.stdout


def test_a_subnet_that_was_moved_needs_a_parent_named(cli: Callable[..., Any], job: Any) -> None:
    for path in (job.subnet, job.subnet.with_name("best.safetensors")):
        shutil.copy(path, path.name)
    asked = ("specialize", "best.subnet.json", "--method", "distill", "--scale", 0.05, *SHORT)
    message = cli(*asked, "--no-latency").error(1)
    assert "not beside it; name what to learn from with --parent" in message
    assert not Path("runs").exists()
    done = cli(*asked, "--no-latency", "--parent", job.run)
    assert done.code == 0, done.stderr


@pytest.mark.parametrize(
    ("method", "phrases"),
    [
        ("finetune", ("train", "begin member")),
        ("wide-narrow", ("imitate stages.1", "outputs", "merge", "labels", "imitate_epochs")),
        ("edst", ("explore", "refine 3", "update_steps", "sparsity")),
    ],
)
def test_dry_run_tells_the_plan_and_spends_nothing(
    cli: Callable[..., Any], job: Any, method: str, phrases: tuple[str, ...]
) -> None:
    done = cli("specialize", job.subnet, "--method", method, "--dry-run", *SHORT)
    assert done.code == 0, done.stderr
    for text in (*phrases, "multiply-accumulates, forward and backward"):
        assert text in done.stdout
    assert re.search(r"estimate: .* to .* on this machine .* steps of \d+ images", done.stderr)
    assert not list(Path().iterdir())
    quiet = cli("specialize", job.subnet, "--method", method, "--dry-run", "--quiet", *SHORT)
    assert (quiet.code, quiet.stderr) == (0, "")


def test_settings_override_each_other(cli: Callable[..., Any], job: Any) -> None:
    Path("mine.toml").write_text("lr = 0.5\nlabel_smoothing = 0.2\nseed = 7\n")
    done = cli(
        *("specialize", job.subnet, *TUNE, "--config", "mine.toml", "--set", "lr=0.25"),
        *("--run", "r", "--no-latency", "--quiet"),
    )
    assert done.code == 0, done.stderr
    assert done.stderr == ""
    config = json.loads(Path("r/run.json").read_text())["config"]
    found = [config[name] for name in ("lr", "label_smoothing", "seed", "batch", "augment")]
    assert found == [0.25, 0.2, 7, 16, "crop+flip"]


def test_images_are_treated_as_the_run_treats_them(cli: Callable[..., Any], job: Any) -> None:
    run = Path(shutil.copytree(job.subnet.parent.parent, "r"))
    record = json.loads((run / "run.json").read_text())
    record["config"]["augment"] = "crop"
    (run / "run.json").write_text(json.dumps(record))
    shown = {}
    for name, more in (("run", ()), ("recipe", ("--recipe", "images"))):
        done = cli("specialize", run / "subnets" / job.subnet.name, *TUNE, "--dry-run", *more)
        assert done.code == 0, done.stderr
        found = re.search(r"augment +(\S+)", done.stdout.replace("│", " "))
        shown[name] = found and found[1]
    assert shown == {"run": "crop", "recipe": "crop+flip"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--method", "wide"], "unknown method 'wide'; did you mean wide-narrow?"),
        (["--method", "dst", "--recipe", "mnist"], "unknown recipe 'dst-mnist'"),
        (["--method", "dst", "--set", "sparsity=2"], "training settings: sparsity: "),
        (["--method", "dst", "--set", "sparsity"], "--set: expected NAME=VALUE"),
        (["--method", "finetune", "--set", "sparsity=0.5"], "method finetune has no setting spa"),
        (["--method", "finetune", "--set", "method=dst"], "method: expected it as --method, found"),
        (["--method", "finetune", "--set", "scale=2"], "scale: expected it as --scale, found it"),
        (["--method", "finetune", "--set", "batch=4096"], "at least one batch of 4096 training"),
        (["--method", "finetune", "--config", "none.toml"], "none.toml: no such file"),
        (["--method", "finetune", "--data", "none"], "neither 'glyphs' nor a folder"),
        (["--method", "finetune", "--data", "glyphs"], "the images of glyphs are others"),
        (["--method", "distill", "--parent", "nowhere"], "nowhere: no training run there"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    cli: Callable[..., Any], job: Any, args: list[object], message: str
) -> None:
    assert message in cli("specialize", job.subnet, *args).error(1)
    assert not list(Path().iterdir())


def test_only_subnet_files_are_taken(cli: Callable[..., Any], tmp_path: Path) -> None:
    message = cli("specialize", "best.json", "--method", "dst").error(1)
    assert "best.json: expected a file NAME.subnet.json" in message
