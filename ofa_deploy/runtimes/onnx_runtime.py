"""ONNX Runtime on the CPU."""

import logging
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from ofa_deploy.errors import DeviceError
from ofa_deploy.runtimes.base import Floats, Runtime, Session, check_build, has_vnni, one_line

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
    """The CPU execution provider: float32, or INT8 as quantise/dequantise pairs.

    On x86 activations are unsigned and weights signed, which its kernels want. Without VNNI their
    16-bit sums would saturate, so weights keep to 7 bits there.
    """

    name = "onnxruntime"
    precisions = ("fp32", "int8")

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
            return _quantized(model, calibration)
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
                f"onnxruntime {self.version} refuses the model: {one_line(error)}"
            ) from error
        return _OrtSession(session)


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, batches: Sequence[Floats]) -> None:
        self._batches = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._batches, None)


def _quantized(model: onnx.ModelProto, calibration: Sequence[Floats]) -> bytes:
    arm = platform.machine().lower() in ("aarch64", "arm64")
    with tempfile.TemporaryDirectory(prefix="ofa-deploy-") as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)  # given a model instead, it would move its weights to a file
        with _silenced():
            quantize_static(
                source,
                target,
                _Batches(model.graph.input[0].name, calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8 if arm else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=not arm and not has_vnni(),
            )
        return target.read_bytes()


@contextmanager
def _silenced() -> Iterator[None]:
    """Without the advice to preprocess, which would break HardSwish apart."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
