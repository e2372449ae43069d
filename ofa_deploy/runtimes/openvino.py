"""OpenVINO on the CPU."""

import io
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ofa_deploy._files import optional_import
from ofa_deploy.errors import DeviceError
from ofa_deploy.runtimes.base import Floats, Runtime, Session, check_build, one_line

__all__ = ["OpenVino"]

_PARTS = ("model.xml", "model.bin")
_MAX_BYTES = 2**31


def _openvino() -> Any:
    return optional_import("openvino", extra="openvino")


class _OpenVinoSession(Session):
    def __init__(self, compiled: Any) -> None:
        self._shape = compiled.input(0).partial_shape
        self._request = compiled.create_infer_request()

    def _checked(self, images: Floats) -> Any:
        """The images as a tensor; left to itself the engine would take any shape of that size."""
        if not self._shape.compatible(_openvino().PartialShape(list(images.shape))):
            raise DeviceError(
                f"openvino: expected images of shape {self._shape}, found {list(images.shape)}"
            )
        return _openvino().Tensor(np.ascontiguousarray(images))

    def run(self, images: Floats) -> Floats:
        try:
            self._request.infer({0: self._checked(images)})
        except RuntimeError as error:
            raise DeviceError(f"openvino: {one_line(error)}") from error
        return np.array(self._request.get_output_tensor(0).data)

    def bound(self, images: Floats) -> Callable[[], None]:
        self._request.set_input_tensor(0, self._checked(images))
        infer = self._request.infer
        return lambda: infer()


class OpenVino(Runtime):
    """The CPU plugin: float32 throughout, or INT8 as NNCF places it (its preset ``MIXED``).

    Its own default may be bf16 or fp16; here float32 is set explicitly. An artefact is a zip of
    the two files of OpenVINO's own form, weights uncompressed.
    """

    name = "openvino"
    precisions = ("fp32", "int8")

    @property
    def version(self) -> str:
        return str(_openvino().__version__).partition("-")[0]

    def build(
        self,
        model: onnx.ModelProto,
        precision: str = "fp32",
        calibration: Sequence[Floats] = (),
    ) -> bytes:
        check_build(self, precision, calibration)
        try:
            read = _openvino().Core().read_model(model.SerializeToString())
        except Exception as error:  # what openvino raises shares no public base
            raise DeviceError(
                f"openvino {self.version} refuses the model: {one_line(error)}"
            ) from error
        return _packed(_quantized(read, calibration) if precision == "int8" else read)

    def load(self, artefact: bytes, *, threads: int = 1) -> Session:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        try:
            compiled = _openvino().Core().compile_model(_unpacked(artefact), "CPU", settings)
        except Exception as error:  # what openvino raises shares no public base
            raise DeviceError(
                f"openvino {self.version} refuses the model: {one_line(error)}"
            ) from error
        return _OpenVinoSession(compiled)


def _quantized(model: Any, calibration: Sequence[Floats]) -> Any:
    nncf = optional_import("nncf", extra="openvino")
    nncf.set_log_level(40)  # errors only
    with redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(list(calibration)),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration),
        )


def _packed(model: Any) -> bytes:
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="ofa-deploy-") as folder:
        paths = [Path(folder) / name for name in _PARTS]
        _openvino().serialize(model, *map(str, paths))
        with zipfile.ZipFile(packed, "w") as archive:
            for path in paths:
                archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    return packed.getvalue()


def _unpacked(artefact: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(artefact)) as archive:
        if sorted(archive.namelist()) != sorted(_PARTS):
            raise ValueError(f"expected {' and '.join(_PARTS)}, found {archive.namelist()[:4]}")
        if sum(part.file_size for part in archive.infolist()) > _MAX_BYTES:
            raise ValueError("the model is larger than 2 GiB")
        xml, weights = (archive.read(name) for name in _PARTS)
    return _openvino().Core().read_model(xml, weights)
