"""Bundles are read with suspicion."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.errors import FileFormatError, InputError, UnknownNameError
from ofa_deploy.export import (
    Bundle,
    load_manifest,
)
from ofa_deploy.export.manifest import is_plain
from tests.export.tampering import Edit, edited, renew


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
