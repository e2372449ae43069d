"""The gate of a bundle, run again on any machine; and the probe that it travels with."""

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ofa_deploy.errors import FileFormatError, InputError, MissingDependencyError
from ofa_deploy.export import (
    Bundle,
    ExportOptions,
    Manifest,
    export_subnet,
    get_target,
    load_manifest,
)
from ofa_deploy.export.probe import Probe, probe_images
from tests.export.conftest import CLASSES
from tests.export.tampering import edited

draft_module: Any = importlib.import_module("ofa_deploy.export.draft")


# -- the gate again -------------------------------------------------------------------------


def test_gate_holds_where_the_bundle_was_made(whole: Any) -> None:
    found = Bundle.read(whole.folder).rerun(whole.saved.test)
    assert found.keys() == whole.manifest.targets.keys()
    for name, each in found.items():
        if name in ("torch-export", "tensorrt"):
            assert each.verdict == "not verified here" and each.reasons
            continue
        assert (each.verdict, each.reasons) == ("holds", ())
        assert each.sqnr_db == pytest.approx(each.sqnr_db_then, abs=0.5)
        assert each.top1 == pytest.approx(whole.manifest.targets[name].accuracy.top1, abs=0.5)
        assert each.top1_then == whole.manifest.targets[name].accuracy.top1


def test_a_part_of_the_test_images_has_all_classes_and_is_found_again(
    saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = saved.test.take(np.argsort(saved.test.labels, kind="stable"))
    seen: list[list[int]] = []
    compare = draft_module.compare

    def watched(sessions: Any, subnet: Any, resolution: int, images: Any, progress: Any) -> Any:
        seen.append(np.bincount(images.labels).tolist())
        return compare(sessions, subnet, resolution, images, progress)

    monkeypatch.setattr(draft_module, "compare", watched)
    options = ExportOptions(test_images=30, measure=False)
    made = export_subnet(saved.path, tmp_path / "b", test, options=options)
    (counts,) = seen
    assert sum(counts) == 30 and len(counts) == len(CLASSES) and max(counts) - min(counts) <= 3
    found = Bundle.read(tmp_path / "b").rerun(test)["onnx"]
    assert made.targets["onnx"].accuracy is not None
    assert (found.verdict, found.top1) == ("holds", made.targets["onnx"].accuracy.top1)


def test_gate_holds_without_data(whole: Any) -> None:
    found = Bundle.read(whole.folder).rerun()
    assert found["onnx"].verdict == "holds"
    assert found["onnx"].top1 is None
    assert found["onnx"].max_difference is not None and found["onnx"].max_difference < 1e-4


@pytest.mark.parametrize(
    ("name", "noise", "reason"),
    [
        ("onnx", 1e-3, "logits differ from PyTorch's"),
        ("onnx", np.nan, "no finite logits"),
        ("onnx-fp16", 0.2, "logits differ from PyTorch's"),
        ("ort-int8", 2.0, "noisier here"),
    ],
)
def test_file_that_computes_something_else_here_is_told(
    whole: Any, monkeypatch: pytest.MonkeyPatch, name: str, noise: float, reason: str
) -> None:
    kind = type(get_target("onnx"))
    honest = kind.load

    def load(self: Any, artefact: bytes, *, threads: int = 1) -> Any:
        session = honest(self, artefact, threads=threads)

        def run(images: np.ndarray) -> np.ndarray:
            logits: np.ndarray = session.run(images)
            off = np.float32(noise) * np.abs(logits).max() * (-1) ** np.arange(4)
            return np.asarray(logits + off, np.float32)

        return SimpleNamespace(run=run)

    monkeypatch.setattr(kind, "load", load)
    found = Bundle.read(whole.folder).rerun()
    assert found[name].verdict == "differs"
    assert any(reason in each for each in found[name].reasons)


def test_lost_top1_is_told(whole: Any) -> None:
    test = whole.saved.test
    bundle = Bundle.read(whole.folder)
    opened = bundle.open("onnx")
    given = opened.logits(opened.prepare(test.images)).argmax(1)
    found = bundle.rerun(type(test)(test.images, (given + 1) % 4, test.classes))
    then = whole.manifest.targets["onnx"].accuracy.top1
    assert found["onnx"].top1 is not None and found["onnx"].top1 < then
    assert found["onnx"].verdict == "differs"
    assert f"was {then:.2f} %" in found["onnx"].reasons[0]


@pytest.mark.parametrize(("lost", "verdict"), [(1, "holds"), (2, "differs")])
def test_one_image_is_as_good_as_none(whole: Any, lost: int, verdict: str) -> None:
    """Of 270 it is more than what rounding may move of many."""
    test = whole.saved.test
    bundle = Bundle.read(whole.folder)
    opened = bundle.open("onnx")
    right = np.flatnonzero(opened.logits(opened.prepare(test.images)).argmax(1) == test.labels)
    labels = test.labels.copy()
    labels[right[:lost]] = (labels[right[:lost]] + 1) % 4
    found = bundle.rerun(type(test)(test.images, labels, test.classes))["onnx"]
    assert found.top1 == pytest.approx(100 * (len(right) - lost) / len(test))
    assert found.verdict == verdict


def test_runtime_that_is_missing_here_names_the_extra(
    whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    module = importlib.import_module("ofa_deploy.runtimes.openvino_library")

    def absent(name: str, *, extra: str) -> None:
        raise MissingDependencyError(f"{name} is not installed; pip install 'ofa-deploy[{extra}]'")

    monkeypatch.setattr(module, "optional_import", absent)
    found = Bundle.read(whole.folder).rerun()
    assert found["onnx"].verdict == "holds"
    for name in ("openvino", "openvino-int8"):
        assert found[name].verdict == "not verified here"
        assert "ofa-deploy[openvino]" in found[name].reasons[0]


# -- the probe ------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "count"), [(12, 16), (32, 16), (50, 16), (224, 4)])
def test_probe_images_are_varied_and_the_same(size: int, count: int) -> None:
    images = probe_images(size)
    assert images.shape == (count, 3, size, size)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, probe_images(size))
    assert images.std((1, 2, 3)).min() > 20
    flat = images.reshape(count, -1).astype(float)
    assert np.abs(np.corrcoef(flat) - np.eye(count)).max() < 0.7
    rough = np.abs(np.diff(images.astype(float), axis=-1)).mean()
    assert rough < 0.8 * np.abs(flat - np.roll(flat, 1, 0)).mean(), "smoother than noise"


def test_probe_images_are_as_bright_as_those_that_are_shown() -> None:
    rng = np.random.default_rng(0)
    dark = rng.normal([[[[60]], [[70]], [[80]]]], 30, (9, 3, 20, 20)).clip(0, 255).astype(np.uint8)
    images = probe_images(32, like=dark)
    assert images.mean((0, 2, 3)) == pytest.approx(dark.mean((0, 2, 3)), abs=5)
    assert images.std((2, 3)).mean(0) == pytest.approx(dark.std((2, 3)).mean(0), rel=0.3)
    alike = probe_images(32, like=np.full((2, 3, 4, 4), 90, np.uint8))
    assert alike.std((1, 2, 3)).min() > 5 and alike.std() < 20
    np.testing.assert_array_equal(probe_images(32, like=dark[:0]), probe_images(32))


def test_probe_of_int8_tells_of_the_noise_on_the_data(whole: Any) -> None:
    """Noise far outside of the calibrated range would tell of nothing else."""
    bundle = Bundle.read(whole.folder)
    pixels, test = bundle.probe().pixels, whole.saved.test.batch(slice(None))
    assert pixels.mean((0, 2, 3)) == pytest.approx(test.mean((0, 2, 3)), abs=15)
    of_test = whole.manifest.targets["ort-int8"].accuracy.sqnr_db
    assert bundle.rerun()["ort-int8"].sqnr_db == pytest.approx(of_test, abs=6)


def test_probe_survives_a_round_trip() -> None:
    rng = np.random.default_rng(0)
    logits = [rng.standard_normal((16, 4)).astype(np.float32) for _ in range(2)]
    probe = Probe(probe_images(12), logits[0], {"onnx": logits[1]})
    again = Probe.parse(probe.to_bytes(), "p", classes=4, size=12)
    np.testing.assert_array_equal(again.pixels, probe.pixels)
    np.testing.assert_array_equal(again.expected, logits[0])
    assert again.found.keys() == {"onnx"}
    for wrong in ({"classes": 5, "size": 12}, {"classes": 4, "size": 13}):
        with pytest.raises(FileFormatError, match="p: expected images of"):
            Probe.parse(probe.to_bytes(), "p", **wrong)
    for data in (b"", b"rubbish", probe.to_bytes()[:-4]):
        with pytest.raises(FileFormatError, match="p: unreadable"):
            Probe.parse(data, "p", classes=4, size=12)


def test_bundle_without_a_probe_says_so(copy: Path) -> None:
    edited(copy, lambda value: value["files"].pop("probe.safetensors"))
    with pytest.raises(InputError, match="expected probe.safetensors"):
        Bundle.read(copy).rerun()


def test_manifest_is_what_was_written(whole: Any) -> None:
    assert isinstance(whole.manifest, Manifest)
    assert load_manifest(whole.folder / "manifest.json") == whole.manifest
