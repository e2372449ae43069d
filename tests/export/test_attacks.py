"""Bundles made by somebody who means harm: right hashes, wrong everything else."""

import hashlib
import importlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save as save_arrays

from ofa_deploy.errors import (
    DeviceError,
    FileFormatError,
    InputError,
    MismatchError,
    OfaDeployError,
)
from ofa_deploy.export import BenchOptions, Bundle, ExportOptions, bench_bundle, export_subnet
from ofa_deploy.runtimes.trt.artefact import EngineRecord, pack, write_plan
from ofa_deploy.runtimes.trt.settings import EngineSettings
from tests.export.tampering import Edit, edited, renew

tensorrt_module: Any = importlib.import_module("ofa_deploy.runtimes.tensorrt")


def one_line(error: pytest.ExceptionInfo[OfaDeployError]) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 1000
    return text


# -- manifests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"schema": "bundle/2", "targets": ' + "[" * 900 + "]" * 900 + "}",
        "[]",
        "null",
        '"bundle/2"',
        '{"schema": "bundle/2", "schema": "bundle/2"}',
        '{"schema": "bundle/2", "allowed_loss": 1e999}',
        '{"schema": "bundle/2", "allowed_loss": NaN}',
        '{"schema": "bundle/2", "allowed_loss": -Infinity}',
        '{"schema": ["bundle/2"]}',
        '{"schema": "bundle/99999999999999999999"}',
        "\ufeff{}",
        "\x00",
    ],
)
def test_odd_json_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(FileFormatError, match="manifest.json") as error:
        Bundle.read(copy)
    one_line(error)


def test_bytes_that_are_no_text_are_refused(copy: Path) -> None:
    (copy / "manifest.json").write_bytes(b"\xff\xfe\x80{}")
    with pytest.raises(FileFormatError, match="not readable as JSON"):
        Bundle.read(copy)


def test_manifest_larger_than_any_is_not_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa_deploy.files.reading.MAX_JSON_BYTES", 1000)
    with pytest.raises(FileFormatError, match="more than the 1,000 allowed"):
        Bundle.read(copy)


def target(name: str, **changes: object) -> Edit:
    return lambda value: value["targets"][name].update(changes)


def takes(**changes: object) -> Edit:
    return lambda value: value["targets"]["onnx"]["input"].update(changes)


def preprocess(**changes: object) -> Edit:
    return lambda value: value["preprocessing"].update(changes)


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        (takes(shape=[10**9, 3, 12, 12]), "targets.onnx.input"),
        (takes(shape=[5000, 3, 12, 12]), "targets.onnx.input"),
        (takes(shape=[0, 3, 12, 12]), "targets.onnx.input"),
        (takes(shape=["batch", 3, 12, 13]), "targets.onnx.input"),
        (takes(shape=[]), "targets.onnx.input"),
        (takes(shape=["batch", 3, 12, 12] * 10_000), "targets.onnx.input"),
        (takes(dtype="uint8"), "targets.onnx.input"),
        (takes(preprocessing="resize"), "targets.onnx.input"),
        (takes(name="pixels"), "targets.onnx.input"),
        (target("onnx", precision="int8"), "targets.onnx: expected onnxruntime in fp32"),
        (target("onnx", runtime="tensorrt"), "targets.onnx: expected onnxruntime in fp32"),
        (target("onnx", files=[]), "targets.onnx.files"),
        (target("onnx", bytes=-1), "targets.onnx.bytes"),
        (preprocess(size=0), "preprocessing.size"),
        (preprocess(size=10**9), "preprocessing.size"),
        (preprocess(size="12"), "preprocessing.size"),
        (preprocess(std=[1, 0, 1]), "preprocessing.std"),
        (preprocess(mean=[0, 0]), "preprocessing.mean"),
        (preprocess(crop="left half"), "preprocessing.crop"),
        (preprocess(inside="everything"), "preprocessing.inside"),
        (lambda v: v.update(data_options={"size": 10**9}), "data_options"),
        (lambda v: v.update(data_options={"train": -1}), "data_options"),
        (lambda v: v.update(best="tensorrt-rtx"), "best"),
        (lambda v: v.update(targets=[]), "targets"),
        (lambda v: v.update(labels="ant"), "labels"),
    ],
)
def test_manifest_that_contradicts_itself_is_refused(copy: Path, edit: Edit, where: str) -> None:
    edited(copy, edit)
    with pytest.raises(FileFormatError, match=where) as error:
        Bundle.read(copy)
    one_line(error)


def test_target_of_a_later_version_is_not_verified_here(copy: Path) -> None:
    def add(value: dict[str, Any]) -> None:
        value["targets"]["npu-int4"] = value["targets"]["onnx"] | {"runtime": "npu"}

    edited(copy, add)
    bundle = Bundle.read(copy)
    found = bundle.rerun()
    assert found["npu-int4"].verdict == "not verified here"
    assert "unknown target 'npu-int4'" in found["npu-int4"].reasons[0]
    assert found["onnx"].verdict == "holds"


def test_folder_replaced_by_a_file_while_it_is_read(copy: Path) -> None:
    bundle = Bundle.read(copy)
    copy.rename(copy.with_name("away"))
    copy.write_text("now a file")
    with pytest.raises(OfaDeployError) as error:
        bundle.open("onnx")
    one_line(error)
    with pytest.raises(InputError, match="a file, not a bundle"):
        Bundle.read(copy)


# -- files with the right hash --------------------------------------------------------------


def rubbish() -> dict[str, bytes]:
    return {"nothing": b"", "text": b"once upon a time", "zeros": bytes(4096), "high": b"\xff" * 99}


@pytest.mark.parametrize("kind", list(rubbish()))
@pytest.mark.parametrize(("name", "file"), [("onnx", "model.onnx"), ("openvino", "openvino.xml")])
def test_file_that_is_no_model_fails(copy: Path, name: str, file: str, kind: str) -> None:
    renew(copy, file, rubbish()[kind])
    bundle = Bundle.read(copy)
    with pytest.raises(OfaDeployError) as error:
        bundle.open(name)
    one_line(error)
    assert bundle.rerun()[name].verdict == "fails"
    with pytest.raises(OfaDeployError):
        bench_bundle(bundle, BenchOptions(targets=(name,)))


@pytest.mark.parametrize("keep", [0, 40, -4])
def test_weights_of_openvino_that_are_too_short_fail(copy: Path, keep: int) -> None:
    renew(copy, "openvino.bin", (copy / "openvino.bin").read_bytes()[:keep])
    found = Bundle.read(copy).rerun()["openvino"]
    assert found.verdict in ("fails", "differs")


def test_files_of_another_target_are_refused(copy: Path) -> None:
    edited(copy, target("openvino", files=["model.onnx"]))
    with pytest.raises(FileFormatError, match="expected one .xml file, found model.onnx"):
        Bundle.read(copy).open("openvino")
    edited(copy, target("onnx", files=["model.onnx", "onnx-fp16.onnx"]))
    with pytest.raises(FileFormatError, match="expected one .onnx file"):
        Bundle.read(copy).open("onnx")


def test_other_weights_under_the_same_name_differ(copy: Path) -> None:
    """A whole model, but not the one that was checked."""
    import onnx

    model = onnx.load(copy / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(1.01 * values, tensor.name))
    renew(copy, "model.onnx", model.SerializeToString())
    found = Bundle.read(copy).rerun()
    assert found["onnx"].verdict == "differs"
    assert "logits differ from PyTorch's" in found["onnx"].reasons[0]
    assert found["openvino"].verdict == "holds"


# -- the probe ------------------------------------------------------------------------------


def header(name: str, kind: str, shape: list[int], size: int) -> bytes:
    text = json.dumps({name: {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<Q", 2**62),
        struct.pack("<Q", 10**8) + b"{",
        header("pixels", "U8", [1, 3, 12, 12], 432),
        header("pixels", "U8", [2**40, 3], 0),
        header("pixels", "BF16", [1, 2], 4),
        header("pixels", "F8_E4M3", [4], 4),
        header("pixels", "NOPE", [4], 4),
        save_arrays({"pixels": np.zeros((0, 3, 12, 12), np.uint8), "expected": np.zeros((0, 4))}),
        save_arrays(
            {
                "pixels": np.zeros((17, 3, 12, 12), np.uint8),
                "expected": np.zeros((17, 4), np.float32),
            }
        ),
        save_arrays(
            {
                "pixels": np.zeros((1, 3, 12, 12), np.float32),
                "expected": np.zeros((1, 4), np.float32),
            }
        ),
        save_arrays(
            {
                "pixels": np.zeros((1, 3, 12, 12), np.uint8),
                "expected": np.full((1, 4), np.nan, np.float32),
            }
        ),
        save_arrays({"pixels": np.array(3, np.uint8), "expected": np.array(3, np.float32)}),
    ],
)
def test_odd_probe_is_refused(copy: Path, data: bytes) -> None:
    renew(copy, "probe.safetensors", data)
    with pytest.raises(FileFormatError, match="probe.safetensors") as error:
        Bundle.read(copy).rerun()
    one_line(error)


def test_probe_of_zeros_alone_says_nothing(copy: Path) -> None:
    """Logits of nothing but zeros would make every difference infinite."""
    arrays: dict[str, np.ndarray] = {
        "pixels": np.zeros((1, 3, 12, 12), np.uint8),
        "expected": np.zeros((1, 4), np.float32),
    }
    renew(copy, "probe.safetensors", save_arrays(arrays))
    assert Bundle.read(copy).rerun()["onnx"].verdict == "differs"


# -- engines --------------------------------------------------------------------------------


@pytest.fixture
def engine(copy: Path) -> Path:
    """A bundle with a TensorRT engine that was built elsewhere."""
    plan = b"bytes that crash TensorRT where there is no GPU"
    record = EngineRecord(
        runtime="tensorrt",
        version="10.3.0",
        sha256=hashlib.sha256(plan).hexdigest(),
        size=len(plan),
        onnx_sha256="0" * 64,
        precision="fp32",
        settings=EngineSettings(),
        capabilities=((8, 7),),
    )
    write_plan(copy / "tensorrt.plan", pack(record, plan))
    for name in ("tensorrt.plan", "tensorrt.plan.json"):
        renew(copy, name, (copy / name).read_bytes())
    edited(copy, target("tensorrt", files=["tensorrt.plan", "tensorrt.plan.json"]))
    return copy


class Forbidden:
    """TensorRT, installed, of a version that is supported; nothing of it may be called."""

    __name__ = "tensorrt"
    __version__ = "10.3.0"

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"tensorrt.{name} was used without a GPU")


def test_engine_without_a_gpu_never_reaches_the_library(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_gpu() -> None:
        raise DeviceError("no NVIDIA driver here")

    monkeypatch.setattr(tensorrt_module, "optional_import", lambda *_, **__: Forbidden())
    monkeypatch.setattr(tensorrt_module, "gpu", no_gpu)
    bundle = Bundle.read(engine)
    with pytest.raises(DeviceError, match="tensorrt needs an NVIDIA GPU"):
        bundle.open("tensorrt")
    found = bundle.rerun()["tensorrt"]
    assert found.verdict == "not verified here"
    assert "needs an NVIDIA GPU: no NVIDIA driver here" in found.reasons[0]
    with pytest.raises(DeviceError, match="needs an NVIDIA GPU"):
        bench_bundle(bundle, BenchOptions(targets=("tensorrt",)))


def test_engine_that_is_not_its_records_is_refused(engine: Path) -> None:
    renew(engine, "tensorrt.plan", b"other bytes, with a hash of their own")
    with pytest.raises(OfaDeployError) as error:
        Bundle.read(engine).open("tensorrt")
    assert "damaged or not the one its record names" in one_line(error)


def test_record_of_an_engine_that_is_none(engine: Path) -> None:
    renew(engine, "tensorrt.plan.json", b'{"schema": "tensorrt-engine/1"}')
    with pytest.raises(FileFormatError, match="not the record of an engine"):
        Bundle.read(engine).open("tensorrt")


# -- calibration ----------------------------------------------------------------------------


class Images:
    """Images as some other code might hand them over."""

    def __init__(self, like: Any, shape: tuple[int, ...]) -> None:
        self.labels, self.classes, self.size = like.labels, like.classes, 16
        self.shape = shape

    def __len__(self) -> int:
        return 32

    def batch(self, indices: Any) -> Any:
        return np.zeros((len(indices), *self.shape), np.uint8)


@pytest.mark.parametrize("shape", [(1, 16, 16), (4, 16, 16), (16, 16, 3), (3, 16), (3, 16, 24)])
@pytest.mark.parametrize("name", ["ort-int8", "openvino-int8", "tensorrt-int8"])
def test_calibration_images_of_another_shape(
    whole: Any, tmp_path: Path, shape: tuple[int, ...], name: str
) -> None:
    saved = whole.saved
    odd: Any = Images(saved.test, shape)
    options = ExportOptions(targets=(name,), measure=False)
    with pytest.raises(MismatchError, match="calibration images") as error:
        export_subnet(saved.path, tmp_path / "b", saved.test, calibration=odd, options=options)
    one_line(error)
    assert not (tmp_path / "b").exists()
