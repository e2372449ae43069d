"""Whether a bundle still does what it did, from the command line."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ofa_deploy.errors import DeviceError
from ofa_deploy.export import get_target

Cli = Callable[..., Any]
TARGETS = "onnx,ort-int8,torch-export,tensorrt"
COLUMNS = "target verdict probe_difference probe_sqnr_db probe_sqnr_db_export limit"


@pytest.fixture(scope="module")
def made(job: Any, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of several targets."""
    folder = tmp_path_factory.mktemp("made") / "bundle"
    int8 = ("--calibration-images", 16, "--no-sensitivity", "--allowed-loss", 100)
    asked = ("--target", TARGETS, "--no-measure", *int8)
    done = cli("export", job.subnet, "--out", folder, *asked)
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture
def bundle(made: Path, here: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(made, here / "bundle"))


def lie(monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """ONNX Runtime on this machine computes something else."""
    kind = type(get_target("onnx"))
    honest = kind.load

    def load(self: Any, artefact: bytes, *, threads: int = 1) -> Any:
        session = honest(self, artefact, threads=threads)
        return SimpleNamespace(run=lambda images: change(session.run(images)))

    monkeypatch.setattr(kind, "load", load)


def test_bundle_that_holds(cli: Cli, made: Path) -> None:
    done = cli("verify", made, "--format", "json")
    assert done.code == 0, done.stderr
    rows = {row["target"]: row for row in json.loads(done.stdout)}
    assert list(rows) == TARGETS.split(",")
    assert " ".join(rows["onnx"]) == COLUMNS
    for name in ("onnx", "ort-int8"):
        assert rows[name]["verdict"] == "holds"
        then = rows[name]["probe_sqnr_db_export"]
        assert rows[name]["probe_sqnr_db"] == pytest.approx(then, abs=0.5)
    assert rows["onnx"]["limit"] == "difference <= 0.0001"
    then = rows["ort-int8"]["probe_sqnr_db_export"]
    assert rows["ort-int8"]["limit"] == f"SQNR >= {then - 6:.1f} dB"
    assert "top-1 was not compared; " in done.stderr
    assert f"ofa-deploy verify {made} --data photos" in done.stderr
    for name in ("torch-export", "tensorrt"):
        assert rows[name]["verdict"] == "not verified here"
        assert f"{name}: not verified here: " in done.stderr
    assert "files are those that the manifest names" in done.stderr
    assert "next:\n  ofa-deploy bench" in done.stderr
    assert cli("verify", made, "--quiet").stderr == ""


def test_top1_is_compared_where_the_data_are_at_hand(cli: Cli, made: Path, photos: Path) -> None:
    done = cli("verify", made, "--data", photos, "--format", "json")
    assert done.code == 0, done.stderr
    rows = {row["target"]: row for row in json.loads(done.stdout)}
    manifest = json.loads((made / "manifest.json").read_text())
    for name in ("onnx", "ort-int8"):
        then = rows[name]["test_top1_export"]
        assert then == manifest["targets"][name]["accuracy"]["top1"]
        assert rows[name]["test_top1"] == pytest.approx(then, abs=5)
    assert "not compared" not in done.stderr


def test_what_export_marked_stays_marked(cli: Cli, bundle: Path) -> None:
    path = bundle / "manifest.json"
    value = json.loads(path.read_text())
    reasons = ["loses 2.50 points of top-1, more than the 1 allowed", "takes 1.69 times as long"]
    value["targets"]["ort-int8"] |= {"status": "marked", "reasons": reasons}
    path.write_text(json.dumps(value))
    done = cli("verify", bundle, "--format", "json")
    assert done.code == 0, done.stderr
    verdicts = {row["target"]: row["verdict"] for row in json.loads(done.stdout)}
    assert (verdicts["onnx"], verdicts["ort-int8"]) == ("holds", "holds, marked")
    for reason in reasons:
        assert f"ort-int8: marked at export: {reason}" in done.stderr


def test_lost_top1_is_an_error(
    cli: Cli, made: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INT8 whose noise hits the data, but not the images that travel along."""

    def change(logits: np.ndarray) -> np.ndarray:
        return -logits if len(logits) > 16 else logits

    lie(monkeypatch, change)
    assert cli("verify", made).code == 0
    done = cli("verify", made, "--data", photos)
    assert "onnx does not do here what was checked at export" in done.error(1)
    assert "onnx: differs: top-1 is" in done.stderr


def test_other_data_are_refused(cli: Cli, made: Path, photos: Path, here: Path) -> None:
    other = shutil.copytree(photos, here / "photos")
    next((other / "moss").iterdir()).unlink()
    assert "other images (" in cli("verify", made, "--data", other).error(1)
    assert "neither 'glyphs' nor a folder" in cli("verify", made, "--data", "nowhere").error(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {}}, "not a search space"),
        ({"space": {"name": "x", "resolutions": [10**9]}}, "not a search space"),
        ({"data_options": {"train": 1}}, "expected|images|other"),
        ({"data_digest": "0" * 16}, "other images ("),
    ],
)
def test_manifest_that_tells_other_data(
    cli: Cli, bundle: Path, photos: Path, changes: dict[str, Any], message: str
) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    said = cli("verify", bundle, "--data", photos).error(1)
    assert any(part in said for part in message.split("|"))


def test_target_that_differs_is_an_error(
    cli: Cli, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie(monkeypatch, lambda logits: logits + np.float32(0.01) * np.abs(logits).max())
    done = cli("verify", made, "--format", "json", "--quiet")
    assert "onnx" in done.error(1) and "do not use" in done.error(1)
    verdicts = {row["target"]: row["verdict"] for row in json.loads(done.stdout)}
    assert verdicts["onnx"] == "differs"
    assert "onnx: differs: logits differ from PyTorch's" in done.stderr, "quiet or not"


def test_engine_that_refuses_is_an_error(
    cli: Cli, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is here, so the file should run: that is no matter of "not verified here"."""

    def load(self: Any, artefact: bytes, *, threads: int = 1) -> Any:
        raise DeviceError("onnxruntime 1.2 refuses the model: unknown operator")

    monkeypatch.setattr(type(get_target("onnx")), "load", load)
    done = cli("verify", made)
    assert "onnx, ort-int8 do not do here" in done.error(1)
    assert "onnx: fails: onnxruntime 1.2 refuses the model" in done.stderr


def test_only_hashes_where_nothing_can_run(job: Any, cli: Cli, here: Path) -> None:
    asked = ("--target", "tensorrt", "--out", "engine")
    assert cli("export", job.subnet, *asked).code == 0
    done = cli("verify", "engine")
    assert done.code == 0
    assert "no target can run here: hashes alone were checked" in done.stderr
    path = here / "engine" / "tensorrt.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    assert "SHA-256 differs" in cli("verify", "engine").error(1)


def test_unnamed_files_are_told(cli: Cli, bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    done = cli("verify", bundle)
    assert done.code == 0
    assert "notes.txt: not in the manifest, and not looked at" in done.stderr


@pytest.mark.parametrize("damage", ["changed", "missing", "link", "folder"])
def test_files_that_are_not_those_exported(cli: Cli, bundle: Path, damage: str) -> None:
    path = bundle / "ort-int8.onnx"
    data = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(data + b"\x00")
    elif damage == "link":
        (bundle.parent / "real").write_bytes(data)
        path.symlink_to(bundle.parent / "real")
    elif damage == "folder":
        path.mkdir()
    done = cli("verify", bundle)
    assert "ort-int8.onnx: " in done.error(1)
    assert done.stdout == ""


def test_model_of_another_kind_with_the_right_hash(cli: Cli, bundle: Path) -> None:
    data = (bundle / "README.md").read_bytes()
    (bundle / "model.onnx").write_bytes(data)
    path = bundle / "manifest.json"
    value = json.loads(path.read_text())
    value["files"]["model.onnx"] = hashlib.sha256(data).hexdigest()
    path.write_text(json.dumps(value))
    done = cli("verify", bundle)
    assert "onnx does not do here" in done.error(1)
    assert "onnx: fails: onnxruntime" in done.stderr


def test_no_bundle(cli: Cli, here: Path, job: Any) -> None:
    (here / "empty").mkdir()
    assert "not a bundle: no manifest.json in it; make" in cli("verify", "empty").error(1)
    assert "a run, not a bundle; " in cli("verify", job.run).error(1)
    assert "no such bundle" in cli("verify", "nowhere").error(1)
    assert cli("verify").code == 2
