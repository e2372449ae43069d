"""Exporting from the command line: targets, several subnets, INT8, and what is refused."""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.errors import MissingDependencyError
from ofa_deploy.export import load_manifest

bundle_module: Any = importlib.import_module("ofa_deploy.export.bundle")
Cli = Callable[..., Any]

TARGETS = "onnx,onnx-fp16,ort-int8,openvino,torch-export,tensorrt-int8"
FEW = ("--calibration-images", 16, "--no-sensitivity", "--allowed-loss", 100)


@pytest.fixture
def subnet(job: Any, here: Path) -> Path:
    """A copy of the subnet, to be damaged."""
    return copied(job, here / "subnets", "best")


def copied(job: Any, folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copy(job.subnet.with_name("best.safetensors"), folder / f"{name}.safetensors")
    return Path(shutil.copy(job.subnet, folder / f"{name}.subnet.json"))


def edited(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


# -- what is exported -----------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_every_target_is_told_timed_and_judged(cli: Cli, subnet: Path) -> None:
    made = cli("export", subnet, "--out", "b", "--target", TARGETS, *FEW, "--format", "json")
    assert made.code == 0, made.stderr
    rows = {row["target"]: row for row in json.loads(made.stdout)}
    assert list(rows) == TARGETS.split(",")
    manifest = load_manifest(Path("b/manifest.json"))
    for name, row in rows.items():
        record = manifest.targets[name]
        assert row["bytes"] == sum((Path("b") / file).stat().st_size for file in record.files)
        assert row["status"] == ("best" if name == manifest.best else record.status)
        if name == "tensorrt-int8":
            assert (row["top1"], row["ms"]) == (None, None)
            assert row["status"] == "not verified here"
            assert f"b, {name}: not verified here: tensorrt" in made.stderr
        else:
            assert row["sqnr_db"] > (100 if record.precision == "fp32" else 5)
            assert (row["ms"] is None) == (name == "torch-export")
    assert manifest.best is not None
    assert made.stderr.index("wrote b") < made.stderr.index("next:")
    assert "ofa-deploy bench b" in made.stderr


def test_one_file_alone_is_timed_too(cli: Cli, subnet: Path) -> None:
    made = cli("export", subnet, "--out", "b", "--format", "json")
    assert made.code == 0, made.stderr
    (row,) = json.loads(made.stdout)
    assert row["ms"] > 0 and 0.1 < row["vs_onnx"] < 10, "against itself"
    assert (row["target"], row["status"]) == ("onnx", "best")
    (row,) = json.loads(
        cli("export", subnet, "--out", "c", "--no-measure", "--format", "json").stdout
    )
    assert (row["ms"], row["vs_onnx"], row["status"]) == (None, None, "best")


def test_options_reach_the_files(cli: Cli, subnet: Path) -> None:
    made = cli(
        *("export", subnet, "--out", "b", "--target", "onnx, ort-int8", "--no-measure", *FEW),
        *("--batch", 2, "--preprocessing", "resize", "--int8-for", "arm", "--test-images", 20),
    )
    assert made.code == 0, made.stderr
    manifest = load_manifest(Path("b/manifest.json"))
    assert manifest.preprocessing.inside == "resize"
    for record in manifest.targets.values():
        assert record.input.shape == (2, "height", "width", 3)
        assert record.accuracy is not None and record.accuracy.images == 20
        assert record.latency is None
    int8 = manifest.targets["ort-int8"].settings
    assert (int8["processor"], int8["activations"]) == ("arm", "int8")
    assert int8["calibration"]["images"] == 16
    assert int8["sensitivity"] == {"float_blocks": [], "measured": False}


def test_sensitive_blocks_are_looked_for_unless_told_not_to(cli: Cli, subnet: Path) -> None:
    made = cli(
        *("export", subnet, "--out", "b", "--target", "ort-int8", "--no-measure"),
        *("--calibration-images", 16, "--allowed-loss", 100),
    )
    assert made.code == 0, made.stderr
    settings = load_manifest(Path("b/manifest.json")).targets["ort-int8"].settings
    assert settings["sensitivity"]["measured"]


def test_int8_that_loses_more_than_allowed_is_marked_and_not_the_best(
    cli: Cli, subnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is the real one; only what the gate counted is made worse."""
    compare = importlib.import_module("ofa_deploy.export.draft").compare

    def worse(*args: Any) -> Any:
        found = compare(*args)
        changed = {"top1": 0.0, "subnet_top1": 60.0}
        return found | {"ort-int8": found["ort-int8"].model_copy(update=changed)}

    monkeypatch.setattr("ofa_deploy.export.draft.compare", worse)
    made = cli("export", subnet, "--out", "b", "--target", "onnx,ort-int8", *FEW[:3])
    assert made.code == 0, made.stderr
    assert "b, ort-int8: marked: loses 60.00 points of top-1" in made.stderr
    assert load_manifest(Path("b/manifest.json")).best == "onnx"


def test_interrupted_export_says_what_is_left(
    cli: Cli, subnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ofa_deploy.export.draft.compare", stop)
    stopped = cli("export", subnet, "--out", "b", "--quiet")
    assert stopped.code == 130
    said = "interrupted; what was finished is kept, nothing half-done is left"
    assert stopped.stderr.splitlines() == [said]
    assert not Path("b").exists() and not list(Path().glob(".b.*"))


def test_several_subnets_side_by_side(job: Any, cli: Cli, here: Path) -> None:
    subnets = [copied(job, here / "subnets", name) for name in ("a", "b")]
    made = cli("export", *subnets, "--out", "all", "--jobs", 2, "--format", "json")
    assert made.code == 0, made.stderr
    assert [row["bundle"] for row in json.loads(made.stdout)] == ["a", "b"]
    files = [load_manifest(here / "all" / name / "manifest.json").files for name in "ab"]
    assert files[0]["model.onnx"] == files[1]["model.onnx"]
    assert {path.name for path in Path("all").iterdir()} == {"a", "b"}


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_one_of_several_that_fails_hides_nothing(job: Any, cli: Cli, here: Path, jobs: int) -> None:
    subnets = [copied(job, here / "subnets", name) for name in ("a", "b", "c")]
    edited(subnets[1], calibration=0)
    made = cli("export", *subnets, "--out", "all", "--jobs", jobs, "--no-measure")
    message = made.error(1)
    assert "b.subnet.json: its BN was never recalibrated" in message
    assert message.endswith("(1 of 3 were not exported: b; exported: a, c)")
    assert "b: not exported: " in made.stderr
    assert {path.name for path in Path("all").iterdir()} == {"a", "c"}


def test_damaged_subnet_of_several_is_named_before_anything_is_built(
    job: Any, cli: Cli, here: Path
) -> None:
    good, bad = (copied(job, here / "subnets", name) for name in ("good", "bad"))
    bad.with_name("bad.safetensors").write_bytes(b"")
    message = cli("export", good, bad, "--out", "all").error(1)
    assert "bad.subnet.json" in message or "bad.safetensors" in message
    assert not Path("all").exists()


def test_engine_ahead_of_time(cli: Cli, subnet: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    asked = ("--target", "tensorrt-rtx", "--compute-capabilities", "8.6,8.9")
    made = cli("export", subnet, "--out", "b", *asked, "--engine-batches", "1,1,4")
    assert made.code == 0, made.stderr
    record = load_manifest(Path("b/manifest.json")).targets["tensorrt-rtx"]
    assert record.files == ("tensorrt-rtx.plan", "tensorrt-rtx.plan.json")
    assert record.settings["capabilities"] == ["8.6", "8.9"]
    assert record.settings["engine"]["batches"] == [1, 1, 4]
    refused = cli("export", subnet, "--out", "c", "--target", "tensorrt-rtx",
                  "--compute-capabilities", "8.7")  # fmt: skip
    assert "accepted: 8.0, 8.6, 8.9, 12.0, 12.1" in refused.error(1)
    assert not Path("c").exists()


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--target", "onnx-fp61"], "unknown target 'onnx-fp61'; did you mean onnx-fp16"),
        (["--target", "onnx-int8"], "unknown target 'onnx-int8'; did you mean"),
        (["--target", "tensorrt-fp32"], "did you mean tensorrt"),
        (["--target", "onnx,"], "unknown target ''"),
        (["--target", ""], "unknown target ''"),
        (["--target", "onnx,openvino,onnx"], "expected distinct targets"),
        (["--preprocessing", "crop"], "unknown preprocessing 'crop'"),
        (["--int8-for", "x68"], "unknown processor 'x68'"),
        (["--batch", "0"], "batch: expected 1 to 1024, found 0"),
        (["--batch", "-3"], "batch: expected 1 to 1024"),
        (["--calibration-images", "0"], "calibration images: expected 1"),
        (["--allowed-loss", "101"], "allowed loss: expected 0 to 100"),
        (["--allowed-loss", "-1"], "allowed loss"),
        (["--test-images", "0"], "test images"),
        (["--threads", "0"], "threads: expected 1"),
        (["--engine-batches", "1,2"], "--engine-batches: expected three numbers"),
        (["--engine-batches", "1,x,2"], "--engine-batches: expected three numbers"),
        (["--engine-batches", "4,2,1"], "batches: expected 1 <= least <= best"),
        (["--hardware", "hopper"], "hardware: expected one of none"),
        (
            ["--target", "onnx,tensorrt", "--engine-batches", "8,16,32"],
            "tensorrt: expected a least batch of 1, found 8",
        ),
        (
            ["--target", "onnx,tensorrt-rtx", "--compute-capabilities", "7.5"],
            "builds no engine for compute capability '7.5'",
        ),
        (
            ["--target", "ort-int8", "--calibration-images", "4", "--batch", "8"],
            "a fixed batch of 8 needs as many calibration images, found 4",
        ),
    ],
)
def test_wrong_options_are_one_line_and_leave_nothing(
    cli: Cli, subnet: Path, here: Path, args: list[str], message: str
) -> None:
    made = cli("export", subnet, "--out", "b", *args)
    assert message in made.error(1)
    assert made.stdout == ""
    assert {path.name for path in here.iterdir()} == {"subnets"}


def test_subnet_that_was_never_recalibrated_needs_force(cli: Cli, subnet: Path) -> None:
    edited(subnet, calibration=0)
    message = cli("export", subnet, "--out", "b").error(1)
    assert "its BN was never recalibrated" in message and "--force" in message
    assert not Path("b").exists()
    assert cli("export", subnet, "--out", "b", "--force").code == 0
    assert "never recalibrated" in Path("b/README.md").read_text()
    assert load_manifest(Path("b/manifest.json")).bn_images == 0


def test_other_images_are_refused(cli: Cli, subnet: Path, photos: Path, here: Path) -> None:
    other = shutil.copytree(photos, here / "photos")
    next((other / "moss").iterdir()).unlink()
    message = cli("export", subnet, "--data", other, "--out", "b").error(1)
    assert "the images of" in message and str(other) in message
    assert not Path("b").exists()


def test_images_that_moved_are_taken(cli: Cli, subnet: Path, photos: Path, here: Path) -> None:
    other = shutil.copytree(photos, here / "moved")
    edited(subnet, data=str(here / "gone"))
    assert "gone" in cli("export", subnet, "--out", "b").error(1)
    assert cli("export", subnet, "--data", other, "--out", "b").code == 0


@pytest.mark.parametrize("target", ["openvino", "openvino-int8", "tensorrt-rtx"])
def test_missing_engine_names_the_extra(
    cli: Cli, subnet: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    def absent(name: str, *, extra: str) -> None:
        raise MissingDependencyError(f"{name}: run: pip install 'ofa-deploy[{extra}]'")

    for module in ("openvino_library", "tensorrt"):
        monkeypatch.setattr(f"ofa_deploy.runtimes.{module}.optional_import", absent)
    message = cli("export", subnet, "--out", "b", "--target", target, *FEW).error(1)
    extra = "tensorrt-rtx" if target == "tensorrt-rtx" else "openvino"
    assert f"ofa-deploy[{extra}]" in message
    assert not Path("b").exists()


def test_old_engine_is_refused(cli: Cli, subnet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("openvino")
    monkeypatch.setattr(module, "__version__", "2023.1.0-1")
    message = cli("export", subnet, "--out", "b", "--target", "openvino").error(1)
    assert "openvino 2023.1.0-1 is too old" in message
    assert "ofa-deploy[openvino]" in message


@pytest.mark.parametrize("flag", [(), ("--overwrite",)])
def test_what_is_there_is_left_alone(cli: Cli, subnet: Path, flag: tuple[str, ...]) -> None:
    for name, make in (("folder", Path.mkdir), ("file", Path.touch)):
        make(Path(name))
        assert f"{name} " in cli("export", subnet, "--out", name, *flag).error(1)
    assert list(Path("folder").iterdir()) == []
    assert Path("file").read_bytes() == b""


def test_subnets_of_one_name_are_refused(job: Any, cli: Cli, here: Path) -> None:
    both = [copied(job, here / folder, "best") for folder in ("one", "two")]
    assert "expected subnets of different names" in cli("export", *both, "--out", "all").error(1)
    assert not Path("all").exists()


def test_file_that_is_no_subnet(cli: Cli, subnet: Path, here: Path) -> None:
    edited(subnet, schema="front/1")
    assert "schema 'subnet/1'" in cli("export", subnet, "--out", "b").error(1)
    subnet.unlink()
    subnet.mkdir()
    assert "best.subnet.json" in cli("export", subnet, "--out", "b").error(1)
