"""Bundles read with suspicion, and their gate run again."""

import importlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.errors import FileFormatError, InputError, MissingDependencyError, UnknownNameError
from ofa_deploy.export import (
    Bundle,
    ExportOptions,
    Manifest,
    export_subnet,
    get_target,
    load_manifest,
)
from ofa_deploy.export.manifest import is_plain
from ofa_deploy.export.probe import Probe, probe_images
from tests.export.conftest import CLASSES
from tests.export.tampering import Edit, edited, renew

draft_module: Any = importlib.import_module("ofa_deploy.export.draft")


def refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        Bundle.read(folder)
    assert "\n" not in str(error.value)


# -- reading --------------------------------------------------------------------------------


def test_a_whole_bundle_is_read(whole: Any) -> None:
    bundle = Bundle.read(whole.folder)
    assert bundle.manifest == whole.manifest
    assert bundle.unnamed == ()
    assert bundle.size == 12


def test_what_else_lies_there_is_told(copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    (copy / "more").mkdir()
    assert Bundle.read(copy).unnamed == ("more", "notes.txt")


def test_every_changed_file_is_noticed(whole: Any, copy: Path) -> None:
    for name in whole.manifest.files:
        before = (copy / name).read_bytes()
        data = bytearray(before)
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        refused(copy, f"{name}: not the file that the manifest names")
        (copy / name).write_bytes(before)
    Bundle.read(copy)


def test_every_missing_file_is_named(whole: Any, copy: Path) -> None:
    for name in whole.manifest.files:
        (copy / name).rename(copy / "away")
        refused(copy, f"{name}: missing, though manifest.json names it")
        (copy / "away").rename(copy / name)


@pytest.mark.parametrize("cut", [0, 1, -20])
def test_truncated_manifest_is_refused(copy: Path, cut: int) -> None:
    path = copy / "manifest.json"
    path.write_bytes(path.read_bytes()[:cut])
    refused(copy, "manifest.json: ")


def test_bundle_without_a_manifest(copy: Path, tmp_path: Path) -> None:
    (copy / "manifest.json").unlink()
    refused(copy, "manifest.json is missing; the bundle is incomplete")
    refused(tmp_path / "nowhere", "no such bundle")


def test_what_is_no_bundle_is_told(copy: Path, tmp_path: Path) -> None:
    def refuse(name: str, message: str) -> None:
        refused(tmp_path / name, message)

    refused(copy / "model.onnx", f"a file of a bundle, not its folder; give that: {copy}")
    run = tmp_path / "a run"
    (run / "subnets").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    refuse("a run", f"a run, not a bundle; find a subnet first: ofa-deploy search --run '{run}'")
    subnet = run / "subnets" / "s.subnet.json"
    subnet.write_text("{}")
    export = f"ofa-deploy export '{subnet}' --out bundles/s"
    refuse("a run/subnets/s.subnet.json", f"a subnet, not a bundle; make one of it: {export}")
    refuse("a run", f"a run, not a bundle; make one of a subnet in it: {export}")
    refuse("a run/subnets", f"no manifest.json in it; make one of a subnet in it: {export}")
    for i in range(6):
        shutil.copytree(copy, run / "bundles" / f"{i}")
    told = ", ".join(f"'{run}/bundles/{i}'" for i in range(5))
    refuse("a run", f"a run, not a bundle; give one of its bundles: {told}, …")
    refuse("a run/bundles", f"no manifest.json in it; give one of its bundles: {told}, …")
    (tmp_path / "f.front.json").write_text("{}")
    refuse("f.front.json", "a Pareto front, not a bundle; look at it: ofa-deploy compare ")
    (tmp_path / "photo.png").write_bytes(b"")
    refuse("photo.png", "a file, not a bundle; expected a folder with manifest.json")
    (tmp_path / "empty").mkdir()
    refuse("empty", "not a bundle: no manifest.json in it; make one with: ofa-deploy export ")


# -- paths ----------------------------------------------------------------------------------


def point_at(name: str) -> Edit:
    def edit(value: dict[str, Any]) -> None:
        value["files"][name] = value["files"].pop("model.onnx")
        value["targets"]["onnx"]["files"] = [name]

    return edit


@pytest.mark.parametrize(
    "name",
    [
        "../model.onnx",
        "/etc/passwd",
        "sub/model.onnx",
        "..",
        ".",
        ".hidden",
        "",
        "C:\\model.onnx",
        "..\\model.onnx",
        "model.onnx:stream",
        "model\u0000.onnx",
        "manifest.json",
        "a" * 300,
    ],
)
def test_paths_out_of_the_bundle_are_refused(copy: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "model.onnx").write_bytes((copy / "model.onnx").read_bytes())
    edited(copy, point_at(name))
    refused(copy, "points outside the bundle")


@given(st.text(max_size=20))
def test_a_plain_name_stays_in_its_folder(name: str) -> None:
    if is_plain(name):
        folder = Path("/bundle")
        assert os.path.normpath(folder / name) == str(folder / name)
        assert (folder / name).parent == folder


@pytest.mark.parametrize("where", ["outside", "inside", "nowhere"])
def test_links_are_refused(copy: Path, tmp_path: Path, where: str) -> None:
    """Even to a file with the right hash: what a link leads to can change."""
    real = {"outside": tmp_path / "real", "inside": copy / "real", "nowhere": tmp_path / "no"}
    path = copy / "model.onnx"
    if where != "nowhere":
        real[where].write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(real[where])
    refused(copy, "model.onnx: expected a file of the bundle's own, found a link")


def test_folder_or_link_in_place_of_the_manifest(copy: Path, tmp_path: Path) -> None:
    path = copy / "manifest.json"
    path.rename(tmp_path / "real.json")
    path.symlink_to(tmp_path / "real.json")
    refused(copy, "manifest.json: expected a file of the bundle's own")
    path.unlink()
    path.mkdir()
    refused(copy, "manifest.json: expected a file of the bundle's own")


def test_bundle_reached_through_a_link_is_let_be(whole: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(whole.folder)
    assert Bundle.read(tmp_path / "link").manifest == whole.manifest


# -- manifests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v.update(schema="bundle/1"), "older ofa-deploy .*export the subnet again"),
        (lambda v: v.update(schema="bundle/3"), "newer ofa-deploy"),
        (lambda v: v.update(schema="front/1"), "expected a file of schema 'bundle/2'"),
        (lambda v: v.update(surprise=1), "surprise"),
        (lambda v: v.update(targets={}), "targets"),
        (lambda v: v.update(best="openvin"), "best: 'openvin' is not one of the targets"),
        (lambda v: v["files"].pop("onnx-fp16.onnx"), "no SHA-256 of onnx-fp16.onnx"),
        (lambda v: v["files"].update({"model.onnx": "0" * 63}), "files.model.onnx"),
        (lambda v: v["targets"]["onnx"].update(status="perfect"), "status"),
        (lambda v: v["targets"]["onnx"]["accuracy"].update(top1=101), "top1"),
        (lambda v: v["targets"]["onnx"]["accuracy"].update(sqnr_db=float("nan")), "NaN"),
        (lambda v: v["targets"]["onnx"]["latency"].update(ms=0), "ms"),
        (lambda v: v.pop("labels"), "labels"),
    ],
)
def test_bad_manifest_is_refused(copy: Path, edit: Edit, message: str) -> None:
    edited(copy, edit)
    with pytest.raises(FileFormatError, match=message) as error:
        load_manifest(copy / "manifest.json")
    assert "\n" not in str(error.value)


def test_manifest_of_the_first_kind_is_refused_clearly(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(
        json.dumps({"schema": "bundle/1", "target": "onnx", "files": {"model.onnx": "0" * 64}})
    )
    refused(tmp_path, "older ofa-deploy")


# -- opening --------------------------------------------------------------------------------


def test_the_best_is_opened_unless_another_is_named(whole: Any) -> None:
    bundle = Bundle.read(whole.folder)
    assert bundle.open().record == bundle.manifest.targets["ort-int8"]
    opened = bundle.open("openvino", threads=2)
    images = whole.saved.test.images[:5]
    logits = opened.logits(opened.prepare(images))
    assert logits.shape == (5, 4) and opened.batch is None
    other = bundle.open("onnx")
    np.testing.assert_allclose(logits, other.logits(other.prepare(images)), atol=1e-4)


def test_without_a_best_what_runs_is_opened(copy: Path) -> None:
    """Not a recipe or a program of torch, though they stand first."""

    def edit(value: dict[str, Any]) -> None:
        names = ("tensorrt", "torch-export", "openvino-int8", "openvino", "onnx")
        targets = {name: value["targets"][name] | {"latency": None} for name in names}
        value.update(targets=targets, best=None)

    edited(copy, edit)
    bundle = Bundle.read(copy)
    assert bundle.manifest.targets["openvino-int8"].status == "marked"
    assert bundle.default == "openvino"
    assert bundle.open().record == bundle.manifest.targets["openvino"]


def test_target_that_is_not_in_the_bundle(whole: Any) -> None:
    with pytest.raises(UnknownNameError, match="unknown target 'tensorrt-rtx'.*of this bundle"):
        Bundle.read(whole.folder).open("tensorrt-rtx")


def test_file_changed_after_reading_is_not_loaded(copy: Path) -> None:
    bundle = Bundle.read(copy)
    (copy / "model.onnx").write_bytes(b"something else")
    with pytest.raises(FileFormatError, match="not the file that the manifest names"):
        bundle.open("onnx")


def test_programs_of_torch_are_not_loaded(whole: Any) -> None:
    with pytest.raises(InputError, match="may run code that it brings"):
        Bundle.read(whole.folder).open("torch-export")


def test_weights_elsewhere_are_refused_though_the_hash_is_right(copy: Path) -> None:
    import onnx

    model = onnx.load(copy / "model.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")
    renew(copy, "model.onnx", model.SerializeToString())
    bundle = Bundle.read(copy)
    with pytest.raises(FileFormatError, match=r"model\.onnx: .*weights .* in another file"):
        bundle.open("onnx")
    with pytest.raises(FileFormatError, match="in another file"):
        bundle.rerun()


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
