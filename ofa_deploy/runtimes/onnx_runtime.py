"""ONNX Runtime on the CPU."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort

from ofa_deploy.errors import DeviceError, UnknownNameError
from ofa_deploy.runtimes.base import Floats, Runtime, Session

__all__ = ["OnnxRuntime"]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


class _OrtSession(Session):
    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    def run(self, images: Floats) -> Floats:
        try:
            output: Floats = self._session.run([self._output], {self._input: images})[0]
        except Exception as error:  # onnxruntime's own exceptions share no public base
            raise DeviceError(f"onnxruntime: {_one_line(error)}") from error
        return output

    def bound(self, images: Floats) -> Callable[[], None]:
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._input, np.ascontiguousarray(images))
        binding.bind_output(self._output, "cpu")
        run = self._session.run_with_iobinding
        return lambda: run(binding)


class OnnxRuntime(Runtime):
    """The CPU execution provider, float32."""

    name = "onnxruntime"
    precisions = ("fp32",)

    @property
    def version(self) -> str:
        return str(ort.__version__)

    def build(self, model: onnx.ModelProto, precision: str = "fp32") -> bytes:
        if precision not in self.precisions:
            raise UnknownNameError("precision", precision, self.precisions, hint=self.name)
        return bytes(model.SerializeToString())

    def load(self, artefact: bytes, *, threads: int = 1) -> Session:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(artefact, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no public base
            raise DeviceError(
                f"onnxruntime {self.version} refuses the model: {_one_line(error)}"
            ) from error
        return _OrtSession(session)
