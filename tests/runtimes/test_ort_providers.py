"""ONNX Runtime's providers for NVIDIA GPUs, on a stand-in; on real ones in ``test_contract``."""

import os
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ofa_deploy.errors import DeviceError, UnknownNameError
from ofa_deploy.runtimes import get_runtime, onnx_runtime
from ofa_deploy.runtimes.onnx_runtime import OnnxRuntimeCuda, OnnxRuntimeTensorRt
from tests.runtimes.ort_fake import FakeOrt

CUDA, TENSORRT, PROCESSOR = (
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
    "CPUExecutionProvider",
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeOrt:
    made = FakeOrt(TENSORRT, CUDA)
    monkeypatch.setattr(onnx_runtime, "ort", made)
    monkeypatch.setattr(onnx_runtime, "check_self_contained", lambda artefact: None)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "unset by the test")
    return made


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_package_without_them_says_so_in_one_line(name: str) -> None:
    import onnxruntime

    first = {"onnxruntime-cuda": CUDA, "onnxruntime-tensorrt": TENSORRT}[name]
    if first in onnxruntime.get_available_providers():
        pytest.skip("they are here")
    runtime = get_runtime(name)
    assert runtime.name == name
    why = runtime.why_not() or ""
    assert f"has no {first}; it has" in why
    assert "install onnxruntime-gpu" in why
    assert "\n" not in why
    with pytest.raises(DeviceError, match=f"has no {first}"):
        runtime.load(b"any")


def test_cuda_is_told_what_the_settings_say(gpu: FakeOrt) -> None:
    OnnxRuntimeCuda().load(b"model", threads=3)
    assert OnnxRuntimeCuda().why_not() is None
    assert [*gpu.options] == [CUDA, PROCESSOR]
    assert gpu.options[CUDA] == {
        "device_id": "0",
        "use_tf32": "0",
        "arena_extend_strategy": "kSameAsRequested",
    }
    assert gpu.session_options.intra_op_num_threads == 3
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "unset by the test"


def test_tensorrt_comes_first_and_is_asked_for_no_precision(gpu: FakeOrt) -> None:
    """Then its networks are strongly typed, and the graph's types are the engine's."""
    OnnxRuntimeTensorRt().load(b"model")
    assert [*gpu.options] == [TENSORRT, CUDA, PROCESSOR]
    assert gpu.options[TENSORRT] == {"device_id": "0", "trt_builder_optimization_level": "3"}
    assert gpu.options[CUDA]["use_tf32"] == "0"
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"


def test_what_it_refuses_is_said_in_one_line(gpu: FakeOrt, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="onnxruntime-cuda 1.99.0 refuses the model: Inva") as no:
        OnnxRuntimeCuda().load(b"rubbish")
    assert "\n" not in str(no.value)
    monkeypatch.setattr(OnnxRuntimeCuda, "settings", lambda self, threads: {"cuda.tf23": 1})
    with pytest.raises(DeviceError, match='refuses the model: Unknown provider option: "tf23"'):
        OnnxRuntimeCuda().load(b"model")


def test_a_gpu_that_does_not_start_is_no_gpu(gpu: FakeOrt) -> None:
    """ONNX Runtime itself goes on with the processor and says nothing."""
    gpu.starts = False
    with pytest.raises(DeviceError, match=rf"1\.99\.0 could not start {CUDA}: are the driver"):
        OnnxRuntimeCuda().load(b"model")


def test_images_stay_on_the_gpu(gpu: FakeOrt) -> None:
    call = OnnxRuntimeCuda().load(b"model").bound(np.ones((2, 3, 4, 4), np.float32))
    call()
    assert gpu.said[1:] == [
        ("in", "image", ((2, 3, 4, 4), "cuda", 0)),
        ("out", "logits", "cuda", 0),
        ("run",),
    ]


def _types(artefact: bytes) -> set[int]:
    model = onnx.load_from_string(artefact)
    return {tensor.data_type for tensor in model.graph.initializer}


def test_precision_is_in_the_graph(model: onnx.ModelProto, images: np.ndarray) -> None:
    for runtime in (OnnxRuntimeCuda(), OnnxRuntimeTensorRt()):
        assert _types(runtime.build(model)) == {TensorProto.FLOAT}
        assert TensorProto.FLOAT16 in _types(runtime.build(model, "fp16"))


def test_cuda_has_no_int8(model: onnx.ModelProto, images: np.ndarray) -> None:
    with pytest.raises(UnknownNameError, match="unknown precision 'int8'.*onnxruntime-cuda"):
        OnnxRuntimeCuda().build(model, "int8", [images])


def test_int8_is_symmetric_for_tensorrt(model: onnx.ModelProto, images: np.ndarray) -> None:
    """Whatever the host's processor would like."""
    built = OnnxRuntimeTensorRt().to_time(model, "int8", [images], processor="x86")
    graph = onnx.load_from_string(built).graph
    arrays: dict[str, Any] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    zeros = [arrays[n.input[2]] for n in graph.node if n.op_type == "QuantizeLinear"]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
