"""Model files, opened in an engine and ready to be timed.

Standard library, numpy and that engine only, on Python 3.8 too: the agent carries this file to
other devices, so that the same lines open what is timed here and there.

ONNX Runtime's CUDA and TensorRT providers have not been run on a GPU by the tests.
"""

from __future__ import annotations

import importlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from ofa_deploy.profiling.protocol import Call

    Floats = npt.NDArray[np.float32]

__all__ = ["ENGINES", "PROVIDERS", "EngineError", "one_line", "open_model", "version", "versions"]

# What ONNX Runtime is told to run on; operators that the first cannot run go to the next.
PROVIDERS = {
    "onnxruntime": ("CPUExecutionProvider",),
    "onnxruntime-cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "onnxruntime-tensorrt": (
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ),
}
ENGINES = (*PROVIDERS, "openvino")
_PARTS = ("model.xml", "model.bin")  # of an artefact for OpenVINO
_MAX_BYTES = 2**31
# The packages that may have brought a module, by its name.
_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-qnn"),
    "openvino": ("openvino",),
}


class EngineError(Exception):
    """An engine is missing, or refuses what it was given; one line."""


def one_line(error: object) -> str:
    """What an engine says, on one line of bounded length."""
    return " ".join(str(error).split())[:300]


def version(runtime: str) -> str:
    """The engine's own version.

    Raises:
        EngineError: if it is not installed.
    """
    return _release(_module(runtime).__version__)


def _release(text: str) -> str:
    """Without the build's label, such as ``-16041-1e3b88e4e3f`` or ``+cu12``."""
    return str(text).partition("-")[0].partition("+")[0]


def _module(runtime: str) -> Any:
    name = "onnxruntime" if runtime in PROVIDERS else runtime
    try:
        return importlib.import_module(name)
    except Exception as error:  # a broken installation raises what it likes
        raise EngineError(f"{name} cannot be imported: {one_line(error)}") from None


def versions() -> dict[str, str]:
    """Engines that are installed, without loading them where their packages tell the version."""
    found = {}
    for module, packages in _PACKAGES.items():
        told = [v for v in map(_package_version, packages) if v]
        if len(told) != 1 and util.find_spec(module) is not None:  # told by none, or by two
            try:
                told = [version(module)]
            except EngineError:
                told = []
        if len(told) == 1:
            found[module] = _release(told[0])
    return found


def _package_version(package: str) -> str:
    try:
        return metadata.version(package) or ""
    except metadata.PackageNotFoundError:
        return ""


def open_model(
    path: str, shape: Sequence[int], runtime: str, settings: Mapping[str, str | int]
) -> Call:
    """One inference on random images, bound and done once already.

    Args:
        path: what the runtime's ``build`` made.
        shape: of the images.
        runtime: one of ``ENGINES``.
        settings: those of the runtime's ``settings``.

    Raises:
        EngineError: if the engine is missing or refuses the model.
    """
    artefact = Path(path).read_bytes()
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if runtime in PROVIDERS:
        call = _onnxruntime(artefact, images, PROVIDERS[runtime], settings)
    elif runtime == "openvino":
        call = _openvino(artefact, images, settings)
    else:
        raise EngineError(f"expected one of {', '.join(ENGINES)}, found runtime {runtime!r}")
    call()
    return call


def _onnxruntime(
    artefact: bytes, images: Floats, providers: Sequence[str], settings: Mapping[str, str | int]
) -> Call:
    ort = _module("onnxruntime")
    if providers[0] not in ort.get_available_providers():
        raise EngineError(
            f"onnxruntime {ort.__version__} has no {providers[0]}; it has "
            f"{', '.join(ort.get_available_providers())}: install onnxruntime-gpu"
        )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    try:
        for name, value in settings.items():
            setattr(options, name, value)
        session = ort.InferenceSession(artefact, options, providers=list(providers))
    except Exception as error:  # onnxruntime's own exceptions share no public base
        raise EngineError(
            f"onnxruntime {ort.__version__} refuses the model: {one_line(error)}"
        ) from None
    if session.get_providers()[0] != providers[0]:
        raise EngineError(
            f"onnxruntime {ort.__version__} could not start {providers[0]}: are the driver and "
            "its libraries installed?"
        )
    return _bound(ort, session, images, gpu=providers[0] != "CPUExecutionProvider")


def _bound(ort: Any, session: Any, images: Floats, *, gpu: bool) -> Call:
    """On a GPU images and output stay there: copying them is not what is timed."""
    binding = session.io_binding()
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    if gpu:
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(images, "cuda", 0))
        binding.bind_output(output, "cuda")
    else:
        binding.bind_cpu_input(name, images)
        binding.bind_output(output, "cpu")
    run = session.run_with_iobinding
    return lambda: run(binding)


def _openvino(artefact: bytes, images: Floats, settings: Mapping[str, str | int]) -> Call:
    openvino = _module("openvino")
    try:
        model = _core().read_model(*_unpacked(artefact))
        if model.input(0).partial_shape.is_dynamic:
            model.reshape(list(images.shape))
        request = _core().compile_model(model, "CPU", dict(settings)).create_infer_request()
        request.set_input_tensor(0, openvino.Tensor(images))
    except Exception as error:  # what openvino raises shares no public base
        raise EngineError(
            f"openvino {openvino.__version__} refuses the model: {one_line(error)}"
        ) from None
    infer = request.infer
    return lambda: infer()


@lru_cache(maxsize=None)  # noqa: UP033 - functools.cache is younger than Python 3.8
def _core() -> Any:
    """One core, and it never ends: see ``runtimes/openvino_library.py``."""
    return _module("openvino").Core()


def _unpacked(artefact: bytes) -> list[bytes]:
    """XML and weights."""
    with zipfile.ZipFile(io.BytesIO(artefact)) as archive:
        if sum(archive.getinfo(name).file_size for name in _PARTS) > _MAX_BYTES:
            raise ValueError("the model is larger than 2 GiB")
        return [archive.read(name) for name in _PARTS]
