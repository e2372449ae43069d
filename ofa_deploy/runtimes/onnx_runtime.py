"""ONNX Runtime on the CPU, and its providers for NVIDIA GPUs.

Those of GPUs have run against a stand-in of ONNX Runtime only, never on a GPU. They are for
profiling; bundles of ``export`` hold ONNX files, which any provider loads.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort

from ofa_deploy.errors import DeviceError
from ofa_deploy.hardware.engine import one_line
from ofa_deploy.runtimes.base import ByteMath, Floats, Runtime, Session, check_build
from ofa_deploy.runtimes.onnx_file import check_self_contained
from ofa_deploy.runtimes.onnx_fp16 import half
from ofa_deploy.runtimes.ort_session import bind, missing, open_session
from ofa_deploy.runtimes.trt.graphs import to_build

__all__ = ["OnnxRuntime", "OnnxRuntimeCuda", "OnnxRuntimeTensorRt"]


class _OrtSession(Session):
    def __init__(self, session: ort.InferenceSession, runtime: str) -> None:
        self._session, self._runtime = session, runtime
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    def run(self, images: Floats) -> Floats:
        try:
            output: Floats = self._session.run([self._output], {self._input: images})[0]
        except Exception as error:  # onnxruntime's own exceptions share no public base
            raise DeviceError(f"{self._runtime}: {one_line(error)}") from error
        return output

    def bound(self, images: Floats) -> Callable[[], None]:
        return bind(ort, self._session, np.ascontiguousarray(images), self._runtime)


class OnnxRuntime(Runtime):
    """The CPU execution provider: float32, float16, or INT8 for the processor that is here.

    Float16 is a matter of size: where a processor has no such arithmetic, and few x86 ones have,
    it converts to float32 and back.
    """

    name = "onnxruntime"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")

    @property
    def version(self) -> str:
        return str(ort.__version__)

    def why_not(self) -> str | None:
        return missing(ort, self.name)

    def to_time(
        self,
        model: onnx.ModelProto,
        precision: str = "fp32",
        calibration: Sequence[Floats] = (),
        *,
        batch: int | None = None,
        processor: str = "here",
    ) -> bytes:
        check_build(self, precision, calibration)
        if precision == "int8":
            from ofa_deploy.runtimes.onnx_int8 import Quantizer  # takes a while to import

            model = Quantizer(model, calibration, ByteMath.of(processor)).build()
        elif precision == "fp16":
            model = half(model)
        return bytes(model.SerializeToString())

    def settings(self, threads: int = 1) -> Mapping[str, str | int]:
        return {"intra_op_num_threads": threads, "inter_op_num_threads": 1}

    def load(self, artefact: bytes, *, threads: int = 1) -> Session:
        check_self_contained(artefact)
        session = open_session(ort, artefact, self.name, self.settings(threads))
        if not session.get_inputs() or not session.get_outputs():
            raise DeviceError(f"{self.name}: the model has no input, or no output")
        return _OrtSession(session, self.name)


class OnnxRuntimeCuda(OnnxRuntime):
    """The CUDA provider, of the package onnxruntime-gpu 1.18 or later.

    No INT8: it would dequantise convolutions and compute them in float32.
    """

    name = "onnxruntime-cuda"
    precisions: tuple[str, ...] = ("fp32", "fp16")

    def settings(self, threads: int = 1) -> Mapping[str, str | int]:
        """Without TF32; and sessions take what they need: a process has many."""
        return {
            **super().settings(threads),
            "cuda.use_tf32": 0,
            "cuda.arena_extend_strategy": "kSameAsRequested",
        }


class OnnxRuntimeTensorRt(OnnxRuntimeCuda):
    """The TensorRT provider, of onnxruntime-gpu for TensorRT 10: engines of parts of a graph.

    Precision is in the graph, as for TensorRT itself: none of the provider's own is switched on.
    """

    name = "onnxruntime-tensorrt"
    precisions = ("fp32", "fp16", "int8")

    def settings(self, threads: int = 1) -> Mapping[str, str | int]:
        """As ``TensorRt`` builds; TF32 is off for all of the process: there is no other way."""
        return {
            **super().settings(threads),
            "tensorrt.trt_builder_optimization_level": 3,
            "NVIDIA_TF32_OVERRIDE": 0,
        }

    def to_time(
        self,
        model: onnx.ModelProto,
        precision: str = "fp32",
        calibration: Sequence[Floats] = (),
        *,
        batch: int | None = None,
        processor: str = "here",
    ) -> bytes:
        check_build(self, precision, calibration)
        return to_build(model, precision, calibration, batch)
