"""What each target writes, and that a user without this package gets the subnet's answers."""

import copy
import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from PIL import Image

from ofa_deploy.data import ImageSet
from ofa_deploy.errors import GateError, InputError, UnknownNameError
from ofa_deploy.export import (
    TARGETS,
    ExportOptions,
    Manifest,
    export_subnet,
    get_target,
)
from ofa_deploy.graph import OPSET
from ofa_deploy.runtimes.openvino import OpenVino
from ofa_deploy.runtimes.openvino_library import core
from ofa_deploy.supernet import Ensemble, to_tensor

LOSSY = {"ort-int8", "openvino-int8"}


def expected(saved: Any, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = saved.subnet(to_tensor(images, 12)).numpy()
    return logits


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
        assert settings["activations"] in ("uint8", "int8")
    found = whole.manifest.targets["ort-int8"].settings["sensitivity"]
    assert found["measured"] and found["images"] == 48
    assert found["sqnr_db"] >= found["sqnr_db_all_int8"]
    assert set(found["float_blocks"]) <= set(found["tried_gain_db"])


def test_precision_hint_is_recorded(whole: Any) -> None:
    for name in ("openvino", "openvino-fp16", "openvino-int8"):
        assert whole.manifest.targets[name].settings["load"]["INFERENCE_PRECISION_HINT"] == "f32"


def test_float16_is_half_as_large(whole: Any) -> None:
    targets = whole.manifest.targets
    assert targets["onnx-fp16"].bytes < 0.7 * targets["onnx"].bytes
    weights = [(whole.folder / f"{n}.bin").stat().st_size for n in ("openvino-fp16", "openvino")]
    assert weights[0] < 0.6 * weights[1]


def test_pytorchs_top1_is_kept_apart(whole: Any) -> None:
    measured = whole.manifest.subnet["measured"]
    accuracy = whole.manifest.targets["ort-int8"].accuracy
    assert measured["test_top1"] == accuracy.subnet_top1 == whole.manifest.subnet_top1
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
    assert decibels(expected(whole.saved, whole.saved.test.images), found) > least
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
    assert decibels(expected(whole.saved, whole.saved.test.images), found) > least
    assert model.get_rt_info(["ofa_deploy", "labels"]).astype(str).split("\n")[0] == "ant"


@pytest.mark.parametrize("count", [1, 2, 7])
def test_torch_program_alone(whole: Any, inputs: np.ndarray, count: int) -> None:
    extra = {"ofa_deploy.json": ""}
    program = torch.export.load(whole.folder / "torch-export.pt2", extra_files=extra)
    with torch.no_grad():
        found = program.module()(torch.from_numpy(inputs[:count])).numpy()
    wanted = expected(whole.saved, whole.saved.test.images[:count])
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    assert "ab" * 32 in extra["ofa_deploy.json"]


def run_example(folder: Path, image: np.ndarray, out: Path) -> list[tuple[str, float]]:
    """What the example of a model card prints for an image."""
    shutil.copytree(folder, out)
    Image.fromarray(image).save(out / "image.jpg", quality=100, subsampling=0)
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    used = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))
    assert used == {"json", "numpy", "onnxruntime", "PIL"}
    assert len(code.splitlines()) <= 30
    (out / "example.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)
        patch.setattr(sys, "argv", ["example.py"])
        found = runpy.run_path("example.py")
    logits = found["logits"]
    order = np.argsort(-logits)[:5]
    return [(found["manifest"]["labels"][i], float(logits[i])) for i in order]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("kind", ["none", "normalise", "resize"])
def test_example_of_the_card_gives_the_subnets_answer(
    saved: Any, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a smooth photograph that is no square: JPEG and rounding move a logit a little."""
    out = tmp_path / "bundle"
    export_subnet(saved.path, out, saved.test, options=ExportOptions(preprocessing=kind))
    ramp = np.linspace(0, 255, 40)[None, :, None] * np.linspace(0.2, 1, 30)[:, None, None]
    image = (ramp * np.array([1, 0.7, 0.4])).astype(np.uint8)
    found = run_example(out, image, tmp_path / "use")
    assert capsys.readouterr().out.split()[0] == found[0][0]
    square = np.ascontiguousarray(image[:, 5:35].transpose(2, 0, 1)[None])
    wanted = expected(saved, square)[0]
    labels = saved.record.classes
    assert found[0][0] == labels[int(wanted.argmax())]
    logits = np.array([dict(found)[label] for label in labels])
    assert np.abs(logits - wanted).max() < 0.1 * np.abs(wanted).max()


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


def test_int8_with_preprocessing_inside(saved: Any, calibration: ImageSet, tmp_path: Path) -> None:
    options = ExportOptions(
        targets=("ort-int8", "openvino-int8", "torch-export"),
        preprocessing="resize",
        calibration_images=16,
        sensitivity=False,
        measure=False,
        batch=2,
    )
    manifest = export_subnet(
        saved.path, tmp_path / "b", saved.test, calibration=calibration, options=options
    )
    for name in sorted(LOSSY):
        record = manifest.targets[name]
        assert record.accuracy is not None and record.accuracy.sqnr_db > 5
        assert record.input.dtype == "uint8"
    assert manifest.targets["torch-export"].input.preprocessing == "none"


def test_fixed_batch_needs_as_many_calibration_images(
    saved: Any, calibration: ImageSet, tmp_path: Path
) -> None:
    options = ExportOptions(targets=("ort-int8",), batch=8)
    with pytest.raises(InputError, match="a fixed batch of 8 needs as many .* found 5"):
        export_subnet(
            saved.path,
            tmp_path / "b",
            saved.test,
            calibration=calibration.take(slice(5)),
            options=options,
        )


# -- sensitive blocks in OpenVINO -----------------------------------------------------------


@pytest.mark.parametrize("helps", [True, False])
def test_openvino_keeps_blocks_in_float_only_if_that_helps(
    saved: Any, calibration: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helps: bool
) -> None:
    asked: list[tuple[str, ...]] = []
    good, bad = (OpenVino().build(graph_of(saved, noise)) for noise in (0.0, 0.05))

    def quantized(
        self: OpenVino, *_: Any, floats: tuple[str, ...] = (), before: Any = None
    ) -> bytes:
        asked.append(floats)
        return good if floats and helps else bad

    monkeypatch.setattr(OpenVino, "quantized", quantized)
    module = sys.modules["ofa_deploy.export.sensitivity"]
    monkeypatch.setattr(module, "_GOAL_DB", 199.0)
    monkeypatch.setattr(module, "_SHARE", 1.0)
    options = ExportOptions(targets=("openvino-int8",), measure=False, allowed_loss=100.0)
    manifest = export_subnet(
        saved.path, tmp_path / "b", saved.test, calibration=calibration, options=options
    )
    settings = manifest.targets["openvino-int8"].settings
    assert asked[0] == () and asked[1]
    assert bool(settings["float_blocks"]) == helps
    assert (settings["sqnr_db_tried"] > settings["sqnr_db_all_int8"]) == helps


def graph_of(saved: Any, noise: float) -> onnx.ModelProto:
    """The subnet's graph, its weights disturbed."""
    subnet = copy.deepcopy(saved.subnet)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in subnet.parameters():
            weight.mul_(1 + noise * torch.randn(weight.shape, generator=generator))
    return Ensemble((subnet,), saved.record).onnx()


# -- names ----------------------------------------------------------------------------------


def test_targets_know_their_names_and_twins() -> None:
    for name, target in TARGETS.items():
        assert get_target(name) is target and target.name == name
        assert (target.precision == "fp32") == (target.twin == "")
        if target.twin:
            twin = get_target(target.twin)
            assert (twin.runtime, twin.precision) == (target.runtime, "fp32")


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
