"""OpenVINO on the CPU."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import onnx

from ofa_deploy.errors import DeviceError
from ofa_deploy.files import scratch
from ofa_deploy.hardware.engine import one_line
from ofa_deploy.runtimes.base import (
    ByteMath,
    Floats,
    Runtime,
    Session,
    check_build,
    check_calibration,
)
from ofa_deploy.runtimes.openvino_library import core, nncf, openvino, signal_stack_kept
from ofa_deploy.runtimes.parts import pack_parts, unpack_parts
from ofa_deploy.system import optional_import

__all__ = ["OpenVino", "pack", "unpack"]

_PARTS = ("model.xml", "model.bin")
_SHAPES = 4  # that a session keeps compiled


class _OpenVinoSession(Session):
    """Compiled for the very shapes that it meets: a free batch takes up to 1.7 times as long.

    Args:
        shape: what the model takes.
        compiled: gives the model as it is compiled for a shape.
    """

    def __init__(self, shape: Any, compiled: Callable[[tuple[int, ...]], Any]) -> None:
        self._shape = shape
        self._compiled = compiled
        self._models: dict[tuple[int, ...], Any] = {}
        self._requests: dict[tuple[int, ...], Any] = {}  # those of ``run``

    def model(self, shape: tuple[int, ...]) -> Any:
        """The model as it is compiled for images of that shape."""
        if shape not in self._models:
            while len(self._models) >= _SHAPES:
                oldest = next(iter(self._models))
                del self._models[oldest]
                self._requests.pop(oldest, None)
            self._models[shape] = self._compiled(shape)
        return self._models[shape]

    def _check(self, images: Floats) -> None:
        """See that images fit; left to itself the engine takes any shape of that size."""
        if not self._shape.compatible(openvino().PartialShape(list(images.shape))):
            raise DeviceError(
                f"openvino: expected images of shape {self._shape}, found {list(images.shape)}"
            )

    def run(self, images: Floats) -> Floats:
        try:
            self._check(images)
            model = self.model(images.shape)
            if images.shape not in self._requests:
                self._requests[images.shape] = model.create_infer_request()
            request = self._requests[images.shape]
            _set(request, images)
            request.infer()
        except RuntimeError as error:
            raise DeviceError(f"openvino: {one_line(error)}") from error
        return np.array(request.get_output_tensor(0).data)

    def bound(self, images: Floats) -> Callable[[], None]:
        self._check(images)
        request = self.model(images.shape).create_infer_request()  # its own: ``run`` sets others
        _set(request, images)
        infer = request.infer
        return lambda: infer()


def _set(request: Any, images: Floats) -> None:
    request.set_input_tensor(0, openvino().Tensor(np.ascontiguousarray(images)))


class OpenVino(Runtime):
    """The CPU plugin: float32, weights kept in float16, or INT8 as NNCF places it.

    Its own default may be to compute in bf16 or fp16; here float32 is set explicitly. An artefact
    is a zip of the two files of OpenVINO's own form.
    """

    name = "openvino"
    precisions = ("fp32", "fp16", "int8")

    @property
    def version(self) -> str:
        return str(openvino().__version__).partition("-")[0]

    def settings(self, threads: int = 1) -> Mapping[str, str | int]:
        return {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
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
        if precision == "int8":
            return self.quantized(model, calibration, ByteMath.of(processor))
        return _saved(self._read(model), model, half=precision == "fp16")

    def quantized(
        self,
        model: onnx.ModelProto,
        calibration: Sequence[Floats],
        math: ByteMath,
        *,
        floats: Iterable[str] = (),
        before: onnx.ModelProto | None = None,
    ) -> bytes:
        """An INT8 artefact.

        Ranges are the least and greatest values seen. NNCF's own choice, the mean over batches of
        each one's extremes, cuts off what is rare: the more, the smaller the batches.

        Args:
            floats: nodes of the graph to leave in float32.
            before: a graph whose output is the input of ``model``, left in float32.
        """
        check_calibration(model, calibration)
        read = _quantized(self._read(model), calibration, math, tuple(floats))
        whole = read if before is None else _joined(self._read(before), read)
        return _saved(whole, model, half=False)

    def _read(self, model: onnx.ModelProto) -> Any:
        try:
            return core().read_model(model.SerializeToString())
        except Exception as error:  # what openvino raises shares no public base
            raise DeviceError(
                f"openvino {self.version} refuses the model: {one_line(error)}"
            ) from error

    def load(self, artefact: bytes, *, threads: int = 1) -> Session:
        settings = dict(self.settings(threads))
        try:
            read = core().read_model(*unpack(artefact))
            shape = read.input(0).partial_shape
            free = [dimension.is_dynamic for dimension in shape]
            if free == [True] + [False] * (len(free) - 1):

                def compiled(wanted: tuple[int, ...]) -> Any:
                    model = read.clone()
                    model.reshape(list(wanted))
                    return core().compile_model(model, "CPU", settings)

                session = _OpenVinoSession(shape, compiled)
                session.model((1, *(shape[i].get_length() for i in range(1, len(free)))))
            else:
                ready = core().compile_model(read, "CPU", settings)
                session = _OpenVinoSession(shape, lambda _: ready)
        except Exception as error:  # what openvino raises shares no public base
            raise DeviceError(
                f"openvino {self.version} refuses the model: {one_line(error)}"
            ) from error
        return session


def _quantized(
    model: Any, calibration: Sequence[Floats], math: ByteMath, floats: tuple[str, ...]
) -> Any:
    module = nncf()
    module.set_log_level(40)  # errors only
    ranges = optional_import("nncf.quantization.range_estimator", extra="openvino")
    fix = module.OverflowFix.ENABLE if math.narrow else module.OverflowFix.DISABLE
    advanced = module.AdvancedQuantizationParameters(
        overflow_fix=fix,
        activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX,
    )
    # A convolution with a bias is read as two operations: NAME/WithoutBiases and NAME.
    ignored = [
        name
        for name in (operation.get_friendly_name() for operation in model.get_ordered_ops())
        if name.partition("/")[0] in floats
    ]
    with redirect_stdout(io.StringIO()), signal_stack_kept():  # its progress bars; its cores
        return module.quantize(
            model,
            module.Dataset(list(calibration)),
            preset=module.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            ignored_scope=module.IgnoredScope(names=ignored),
            advanced_parameters=advanced,
        )


def _joined(first: Any, second: Any) -> Any:
    """One model of two: what the first gives goes into the second."""
    (source,) = second.get_parameters()
    source.output(0).replace(first.get_results()[0].input_value(0))
    return openvino().Model(second.get_results(), first.get_parameters(), second.get_name())


def _saved(model: Any, source: onnx.ModelProto, *, half: bool) -> bytes:
    """An artefact, with the metadata of the graph that it comes from."""
    for entry in source.metadata_props:
        model.set_rt_info(entry.value, ["ofa_deploy", entry.key])
    with scratch() as folder:
        path = folder / _PARTS[0]
        openvino().save_model(model, path, compress_to_fp16=half)
        return pack(*(path.with_name(name).read_bytes() for name in _PARTS))


def pack(xml: bytes, weights: bytes) -> bytes:
    """The two files of OpenVINO's own form as an artefact."""
    return pack_parts(dict(zip(_PARTS, (xml, weights), strict=True)))


def unpack(artefact: bytes) -> tuple[bytes, bytes]:
    """The two files of an artefact: XML and weights.

    Raises:
        ValueError: if it is none.
    """
    xml, weights = unpack_parts(artefact, _PARTS)
    return xml, weights
