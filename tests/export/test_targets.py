"""What each target writes, and that a user without this package gets the subnet's answers."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from ofa_deploy.errors import GateError, InputError, UnknownNameError
from ofa_deploy.export import (
    TARGETS,
    ExportOptions,
    Manifest,
    export_subnet,
    export_target,
    get_target,
)
from ofa_deploy.graph import OPSET
from ofa_deploy.runtimes.openvino_library import core
from ofa_deploy.supernet import to_tensor

LOSSY = {"ort-int8", "openvino-int8"}


def decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10((wanted**2).sum() / ((wanted - found) ** 2).sum()))


@pytest.fixture(scope="module")
def inputs(whole: Any) -> np.ndarray:
    tensor = to_tensor(whole.saved.test.images, 12)
    return np.ascontiguousarray(tensor.numpy())


# -- the manifest of many targets -----------------------------------------------------------


def test_every_target_is_recorded(whole: Any) -> None:
    manifest: Manifest = whole.manifest
    for name, record in manifest.targets.items():
        target = get_target(name)
        assert (record.runtime, record.precision) == (target.runtime, target.precision)
        sizes = [(whole.folder / file).stat().st_size for file in record.files]
        assert record.bytes == sum(sizes) > 0
        assert record.build_s > 0
        assert record.input.shape == ("batch", 3, 12, 12)
    assert manifest.versions.keys() >= {"onnx", "onnxruntime", "torch", "openvino", "nncf"}
    owned = {file for record in manifest.targets.values() for file in record.files}
    assert manifest.files.keys() - owned == {"README.md", "probe.safetensors"}


def test_what_ran_here_was_compared(whole: Any) -> None:
    for name, record in whole.manifest.targets.items():
        if name == "tensorrt":
            continue
        accuracy = record.accuracy
        assert accuracy is not None and accuracy.images == 270
        if name in LOSSY:
            assert accuracy.tolerance is None
            assert 10 < accuracy.sqnr_db < 60
        elif record.precision == "fp16":
            assert 45 < accuracy.sqnr_db < 90
        else:
            assert accuracy.sqnr_db > 100
            assert accuracy.agreement == 100


def test_what_could_not_run_here_is_said_so(whole: Any) -> None:
    record = whole.manifest.targets["tensorrt"]
    assert record.status == "not verified here"
    assert "tensorrt" in record.reasons[0]
    assert (record.accuracy, record.latency) == (None, None)
    assert record.files == ("tensorrt.onnx", "tensorrt.recipe.json")
    assert record.settings["trtexec"][0] == "trtexec"


def test_slow_int8_is_marked_and_the_best_is_the_fastest_unmarked(whole: Any) -> None:
    targets = whole.manifest.targets
    assert targets["openvino-int8"].status == "marked"
    assert "1.33 times as long as its float32 twin" in targets["openvino-int8"].reasons[0]
    assert targets["ort-int8"].status == "verified", targets["ort-int8"].reasons
    assert whole.manifest.best == "ort-int8"
    assert targets["onnx-fp16"].status == "verified", "what float16 gains is size"
    assert targets["torch-export"].latency is None


def test_int8_says_how_it_was_made(whole: Any) -> None:
    for name in sorted(LOSSY):
        settings = whole.manifest.targets[name].settings
        assert settings["calibration"] == {
            "split": "train",
            "images": 48,
            "data_digest": whole.saved.record.data_digest,
        }
    both = {name: whole.manifest.targets[name].settings for name in LOSSY}
    assert both["ort-int8"]["activations"] in ("uint8", "int8")
    assert "activations" not in both["openvino-int8"], "NNCF chooses"
    found = whole.manifest.targets["ort-int8"].settings["sensitivity"]
    assert found["measured"] and found["images"] == 48
    assert found["sqnr_db"] >= found["sqnr_db_all_int8"]
    assert set(found["float_blocks"]) <= set(found["tried_gain_db"])


def test_what_engines_are_told_is_recorded(whole: Any) -> None:
    for name in ("openvino", "openvino-fp16", "openvino-int8"):
        assert whole.manifest.targets[name].settings["load"]["INFERENCE_PRECISION_HINT"] == "f32"
    for name in ("onnx", "onnx-fp16", "ort-int8"):
        load = whole.manifest.targets[name].settings["load"]
        assert load == {"intra_op_num_threads": 1, "inter_op_num_threads": 1}


def test_threads_that_were_asked_for_are_recorded(saved: Any, tmp_path: Path) -> None:
    options = ExportOptions(targets=("onnx", "openvino"), threads=4)
    targets = export_subnet(saved.path, tmp_path / "b", saved.test, options=options).targets
    assert targets["onnx"].settings["load"]["intra_op_num_threads"] == 4
    assert targets["openvino"].settings["load"]["INFERENCE_NUM_THREADS"] == 4
    assert all(each.latency is not None and each.latency.threads == 4 for each in targets.values())


def test_float16_is_half_as_large(whole: Any) -> None:
    targets = whole.manifest.targets
    assert targets["onnx-fp16"].bytes < 0.7 * targets["onnx"].bytes
    weights = [(whole.folder / f"{n}.bin").stat().st_size for n in ("openvino-fp16", "openvino")]
    assert weights[0] < 0.6 * weights[1]


def test_pytorchs_top1_is_kept_apart(whole: Any) -> None:
    measured = whole.manifest.subnet["measured"]
    accuracy = whole.manifest.targets["ort-int8"].accuracy
    assert measured["test_top1"] == accuracy.subnet_top1
    assert measured["top1"] == 60.0, "what it was chosen by stays"


# -- without this package -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "least"), [("model.onnx", 100), ("onnx-fp16.onnx", 45), ("ort-int8.onnx", 10)]
)
def test_onnx_alone(whole: Any, inputs: np.ndarray, file: str, least: float) -> None:
    path = whole.folder / file
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    found = session.run(None, {source.name: inputs})[0]
    assert decibels(whole.saved.logits(whole.saved.test.images), found) > least
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {o.version for o in model.opset_import if not o.domain} == {OPSET}
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["labels"].split("\n") == ["ant", "bee", "cat", "dog"]
    assert facts["supernet_sha256"] == whole.saved.record.supernet_sha256
    assert facts["bn_images"] == "60"


@pytest.mark.parametrize(
    ("name", "least"), [("openvino", 100), ("openvino-fp16", 45), ("openvino-int8", 10)]
)
def test_openvino_alone(whole: Any, inputs: np.ndarray, name: str, least: float) -> None:
    model = core().read_model(whole.folder / f"{name}.xml")
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(inputs)[0]
    assert decibels(whole.saved.logits(whole.saved.test.images), found) > least
    assert model.get_rt_info(["ofa_deploy", "labels"]).astype(str).split("\n")[0] == "ant"


@pytest.mark.parametrize("count", [1, 2, 7])
def test_torch_program_alone(whole: Any, inputs: np.ndarray, count: int) -> None:
    extra = {"ofa_deploy.json": ""}
    program = torch.export.load(whole.folder / "torch-export.pt2", extra_files=extra)
    with torch.no_grad():
        found = program.module()(torch.from_numpy(inputs[:count])).numpy()
    wanted = whole.saved.logits(whole.saved.test.images[:count])
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    assert "ab" * 32 in extra["ofa_deploy.json"]


# -- preprocessing and batch ----------------------------------------------------------------


@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize("kind", ["none", "normalise", "resize"])
def test_preprocessing_inside_and_fixed_batches_pass_the_gate(
    saved: Any, tmp_path: Path, kind: str, batch: int | None
) -> None:
    """270 images are no multiple of 4: the last batch is filled up."""
    options = ExportOptions(
        targets=("onnx", "onnx-fp16", "openvino"), preprocessing=kind, batch=batch, measure=False
    )
    out = tmp_path / "bundle"
    manifest = export_subnet(saved.path, out, saved.test, options=options)
    for name, record in manifest.targets.items():
        assert record.status == "verified"
        assert record.accuracy is not None
        takes = record.input
        assert takes.preprocessing == kind
        assert takes.shape[0] == ("batch" if batch is None else batch)
        if name.startswith("onnx"):
            session = ort.InferenceSession(
                out / record.files[0], providers=["CPUExecutionProvider"]
            )
            (source,) = session.get_inputs()
            assert (source.name, tuple(source.shape)) == (takes.name, takes.shape)
            assert source.type == f"tensor({'float' if kind == 'none' else 'uint8'})"
    assert manifest.preprocessing.inside == kind


# -- names ----------------------------------------------------------------------------------


def test_targets_know_their_names_and_twins() -> None:
    for name, target in TARGETS.items():
        assert get_target(name) is target and target.name == name
        assert (target.precision == "fp32") == (target.twin == "")
        if target.twin:
            twin = get_target(target.twin)
            assert (twin.runtime, twin.precision) == (target.runtime, "fp32")


def test_every_kind_of_measurement_has_the_target_that_exports_it() -> None:
    for name, target in TARGETS.items():
        found = export_target(target.runtime, target.precision)
        assert found == ("" if name == "onnx" else name)
    assert export_target("onnxruntime", "unknown") == ""


def test_unknown_target_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean onnx"):
        get_target("onxx")


def test_float16_that_overflows_is_refused(saved: Any, tmp_path: Path) -> None:
    """Weights that float16 holds, and activations that it does not."""
    subnet = copy.deepcopy(saved.subnet)
    with torch.no_grad():
        for name, value in subnet.state_dict().items():
            if name.endswith("bn.weight"):
                value.mul_(300)
    path = saved.write(tmp_path / "large", subnet=subnet)
    options = ExportOptions(targets=("onnx-fp16",), measure=False)
    with pytest.raises((GateError, InputError), match="onnx-fp16|float16"):
        export_subnet(path, tmp_path / "b", saved.test, options=options)
    assert not (tmp_path / "b").exists()
