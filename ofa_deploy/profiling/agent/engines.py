"""Model files, opened in an engine and ready to be timed.

Standard library, numpy and that engine only, on Python 3.8 too: the agent carries this file to
other devices, so that the same lines open what is timed here and there.

TensorRT and ONNX Runtime's CUDA and TensorRT providers have not been run on a GPU by the tests.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.hardware.engine import PACKAGES, engine_of, one_line
from ofa_deploy.profiling.agent.tensorrt import open_engine
from ofa_deploy.runtimes.ort_session import PROVIDERS, EngineCache, bind, open_session
from ofa_deploy.runtimes.trt.module import check_version

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from ofa_deploy.profiling.protocol import Call

    Floats = npt.NDArray[np.float32]

__all__ = [
    "ENGINES",
    "PROVIDERS",
    "EngineError",
    "engine_of",
    "open_model",
    "version",
    "versions",
]

_TENSORRT = ("tensorrt", "tensorrt-rtx")
ENGINES = (*PROVIDERS, "openvino", *_TENSORRT)
_PARTS = ("model.xml", "model.bin")  # of an artefact for OpenVINO
_MAX_BYTES = 2**31


class EngineError(Exception):
    """An engine is missing, or refuses what it was given; one line."""


def version(runtime: str) -> str:
    """The engine's own version.

    Raises:
        EngineError: if it is not installed.
    """
    module = _module(runtime)
    if runtime in _TENSORRT:
        try:
            check_version(module)
        except OfaDeployError as error:
            raise EngineError(one_line(error)) from None
    return _release(module.__version__)


def _release(text: object) -> str:
    """Its numbers, without labels such as ``-16041-1e3b88e4e3f``, ``+cu12`` or ``.post1``."""
    found = re.match(r"\d+(\.\d+)*", str(text))
    return found.group() if found else str(text)


def _module(runtime: str) -> Any:
    name = engine_of(runtime).replace("-", "_")
    # Each would tell its makers of its use, over the network.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if name == "openvino":
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    except Exception as error:  # a broken installation raises what it likes
        raise EngineError(f"{name} cannot be imported: {one_line(error)}") from None


def versions() -> dict[str, str]:
    """Engines that are installed, without loading them where their packages tell the version."""
    found = {}
    for engine, packages in PACKAGES.items():
        told = {_release(v) for v in map(_package_version, packages) if v}
        if len(told) != 1 and util.find_spec(engine.replace("-", "_")) is not None:
            try:  # told by none, or by two that differ
                told = {_release(_module(engine).__version__)}
            except EngineError:
                told = set()
        if len(told) == 1:
            found[engine] = told.pop()
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
        path: what the runtime's ``to_time`` made; engines that are built of it are kept beside it.
        shape: of the images.
        runtime: one of ``ENGINES``.
        settings: those of the runtime's ``settings``.

    Raises:
        EngineError: if the engine is missing or refuses the model.
    """
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    try:
        if runtime in PROVIDERS:
            return _onnxruntime(runtime, Path(path), images, settings)
        if runtime == "openvino":
            return _openvino(Path(path).read_bytes(), images, settings)
        if runtime in _TENSORRT:
            model, folder = Path(path).read_bytes(), Path(path).parent / f"{runtime}-engines"
            return open_engine(_module(runtime), model, images, settings, folder)
    except OfaDeployError as error:
        raise EngineError(one_line(error)) from None
    raise EngineError(f"expected one of {', '.join(ENGINES)}, found runtime {runtime!r}")


def _onnxruntime(
    runtime: str, path: Path, images: Floats, settings: Mapping[str, str | int]
) -> Call:
    ort, artefact, cache = _module(runtime), path.read_bytes(), None
    if runtime == "onnxruntime-tensorrt":
        asked = [ort.__version__, list(images.shape), dict(settings)]
        with suppress(OSError):  # without room nothing is kept
            cache = EngineCache(path.parent / "onnxruntime-engines", artefact, asked)
    session = open_session(ort, artefact, runtime, settings, cache=cache)
    try:
        call = bind(ort, session, images, runtime)
        call()
    except Exception as error:  # onnxruntime's own exceptions share no public base
        raise EngineError(f"{runtime} {ort.__version__}: {one_line(error)}") from None
    if cache is not None:
        cache.keep()
    return call


def _openvino(artefact: bytes, images: Floats, settings: Mapping[str, str | int]) -> Call:
    openvino = _module("openvino")
    try:
        model = _core().read_model(*_unpacked(artefact))
        if model.input(0).partial_shape.is_dynamic:
            model.reshape(list(images.shape))
        request = _core().compile_model(model, "CPU", dict(settings)).create_infer_request()
        request.set_input_tensor(0, openvino.Tensor(images))
        infer = request.infer
        infer()
    except Exception as error:  # what openvino raises shares no public base
        raise EngineError(
            f"openvino {openvino.__version__} refuses the model: {one_line(error)}"
        ) from None
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
