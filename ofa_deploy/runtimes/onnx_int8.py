"""INT8 for ONNX Runtime: quantise/dequantise pairs around what it can compute in bytes."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantType, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from ofa_deploy.files import scratch
from ofa_deploy.runtimes.base import ByteMath, Floats, check_calibration

__all__ = ["Quantizer"]

_WARNING, _ERROR = 2, 3  # of ONNX Runtime's log


class Quantizer:
    """Quantises one graph, calibrated once, as often as is asked.

    Weights have a scale a channel, activations one a tensor: the range that was seen.

    Args:
        model: float32. ``quant_pre_process`` is left out: it would break HardSwish apart.
        calibration: batches of inputs.
        math: the processor's.
        operators: to quantise, such as ``Conv``; all that ONNX Runtime can if empty.
        options: further ones of ONNX Runtime's quantiser, its ``extra_options``.

    Raises:
        MismatchError: if the batches are not what the model takes.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        calibration: Sequence[Floats],
        math: ByteMath,
        *,
        operators: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        check_calibration(model, calibration)
        self._model = onnx.shape_inference.infer_shapes(model)
        self._math = math
        self._operators = list(operators) or sorted({*QLinearOpsRegistry, *QDQRegistry})
        self._options = dict(options or {})
        with _silenced():
            self._ranges = _ranges(model, calibration, self._operators)

    def build(self, *, only: Iterable[str] = (), floats: Iterable[str] = ()) -> onnx.ModelProto:
        """The graph in INT8.

        Args:
            only: the nodes to quantise; all that can be if empty.
            floats: nodes to leave in float32.
        """
        with _silenced():
            quantizer = QDQQuantizer(
                deepcopy(self._model),
                True,  # a scale a channel
                self._math.narrow,
                QuantType.QInt8,
                QuantType.QInt8 if self._math.signed else QuantType.QUInt8,
                self._ranges,
                list(only),
                list(floats),
                self._operators,
                self._options,
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        model: onnx.ModelProto = quantizer.model.model
        del model.graph.value_info[:]
        return model


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, batches: Sequence[Floats]) -> None:
        self._batches = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._batches, None)


def _ranges(model: onnx.ModelProto, calibration: Sequence[Floats], operators: list[str]) -> Any:
    """Least and greatest value of every tensor that those operators read or write."""
    with scratch() as folder:
        source = folder / "float.onnx"
        onnx.save(model, source)
        calibrator = create_calibrator(
            source, operators, augmented_model_path=str(folder / "ranges.onnx")
        )
        calibrator.collect_data(_Batches(model.graph.input[0].name, calibration))
        return calibrator.compute_data()


@contextmanager
def _silenced() -> Iterator[None]:
    """Without the quantiser's advice, and what ONNX Runtime says of the graph that it tries."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    ort.set_default_logger_severity(_ERROR)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_WARNING)  # its default: there is no way to ask
        root.setLevel(level)
