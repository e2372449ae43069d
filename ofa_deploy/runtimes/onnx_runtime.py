"""ONNX Runtime on the CPU."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort

from ofa_deploy.errors import DeviceError
from ofa_deploy.runtimes.base import ByteMath, Floats, Runtime, Session, check_build, one_line
from ofa_deploy.runtimes.onnx_file import check_self_contained
from ofa_deploy.runtimes.onnx_fp16 import half

__all__ = ["OnnxRuntime"]


class _OrtSession(Session):
    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    def run(self, images: Floats) -> Floats:
        try:
            output: Floats = self._session.run([self._output], {self._input: images})[0]
        except Exception as error:  # onnxruntime's own exceptions share no public base
            raise DeviceError(f"onnxruntime: {one_line(error)}") from error
        return output

    def bound(self, images: Floats) -> Callable[[], None]:
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._input, np.ascontiguousarray(images))
        binding.bind_output(self._output, "cpu")
        run = self._session.run_with_iobinding
        return lambda: run(binding)


class OnnxRuntime(Runtime):
    """The CPU execution provider: float32, float16, or INT8 for the processor that is here.

    Float16 is a matter of size: where a processor has no such arithmetic, and few x86 ones have,
    it converts to float32 and back.
    """

    name = "onnxruntime"
    precisions = ("fp32", "fp16", "int8")

    @property
    def version(self) -> str:
        return str(ort.__version__)

    def build(
        self,
        model: onnx.ModelProto,
        precision: str = "fp32",
        calibration: Sequence[Floats] = (),
    ) -> bytes:
        check_build(self, precision, calibration)
        if precision == "int8":
            from ofa_deploy.runtimes.onnx_int8 import Quantizer  # takes a while to import

            model = Quantizer(model, calibration, ByteMath.of("here")).build()
        elif precision == "fp16":
            model = half(model)
        return bytes(model.SerializeToString())

    def settings(self, threads: int = 1) -> Mapping[str, str | int]:
        return {"intra_op_num_threads": threads, "inter_op_num_threads": 1}

    def load(self, artefact: bytes, *, threads: int = 1) -> Session:
        check_self_contained(artefact)
        options = ort.SessionOptions()
        for name, value in self.settings(threads).items():
            setattr(options, name, value)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(artefact, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no public base
            raise DeviceError(
                f"onnxruntime {self.version} refuses the model: {one_line(error)}"
            ) from error
        return _OrtSession(session)
