"""Sessions of ONNX Runtime, on the processor or on an NVIDIA GPU.

Agents carry this file: numpy and ONNX Runtime only, on Python 3.8 too. The CUDA and TensorRT
providers have run against a stand-in of ONNX Runtime only, never on a GPU.

Source: ONNX Runtime's documentation of its CUDA and TensorRT execution providers; its source, by
which networks are strongly typed in TensorRT 10 and later unless float16 or INT8 is asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.errors import DeviceError
from ofa_deploy.runtimes.room import TIMINGS, keep_open, make_room, size_of
from ofa_deploy.runtimes.trt.cuda import count_as_nvml

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["PROVIDERS", "EngineCache", "bind", "missing", "open_session"]

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
_OPTIONS = {"CUDAExecutionProvider": "cuda.", "TensorrtExecutionProvider": "tensorrt."}
_VARIABLE = "NVIDIA_TF32_OVERRIDE"  # the TensorRT provider has no option for that
_LEAST_FREE = 2**26  # bytes of a disk on which what was written is taken for whole
_DEVICE = 0  # of those that CUDA_VISIBLE_DEVICES leaves


def missing(ort: Any, runtime: str) -> str | None:
    """Why this ONNX Runtime cannot serve a runtime, in one line; None if it can."""
    first, found = PROVIDERS[runtime][0], ort.get_available_providers()
    if first in found:
        return None
    return (
        f"onnxruntime {ort.__version__} has no {first}; it has {', '.join(found)}: install "
        "onnxruntime-gpu, and no onnxruntime beside it"
    )


def open_session(
    ort: Any,
    artefact: bytes,
    runtime: str,
    settings: Mapping[str, str | int],
    *,
    cache: EngineCache | None = None,
) -> Any:
    """A session on the first of the runtime's providers.

    Args:
        ort: the module.
        runtime: one of ``PROVIDERS``.
        settings: of the session; ``cuda.…`` and ``tensorrt.…`` are options of those providers, and
            ``NVIDIA_TF32_OVERRIDE`` is a variable of this process.

    Raises:
        DeviceError: if the package has no such provider, it does not start, or it refuses.
    """
    if why := missing(ort, runtime):
        raise DeviceError(why)
    if PROVIDERS[runtime][0] in _OPTIONS:
        count_as_nvml()
    if _VARIABLE in settings:
        os.environ[_VARIABLE] = str(settings[_VARIABLE])
    try:
        session = ort.InferenceSession(
            artefact,
            _session_options(ort, settings),
            providers=_with_options(PROVIDERS[runtime], settings, cache),
            enable_fallback=0,  # else it says what is wrong on stdout, and takes the processor
        )
    except Exception as error:  # onnxruntime's own exceptions share no public base
        said = " ".join(str(error).split())[:300]
        raise DeviceError(f"{runtime} {ort.__version__} refuses the model: {said}") from error
    if session.get_providers()[0] != PROVIDERS[runtime][0]:
        raise DeviceError(
            f"onnxruntime {ort.__version__} could not start {PROVIDERS[runtime][0]}: are the "
            "driver and the libraries that it needs (CUDA, cuDNN, TensorRT) installed?"
        )
    return session


def _session_options(ort: Any, settings: Mapping[str, str | int]) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Fatal ones only: errors are raised, and no terminal shows a model's own text.
    options.log_severity_level = 4
    for name, value in settings.items():
        if "." not in name and name != _VARIABLE:
            setattr(options, name, value)
    return options


def _with_options(
    providers: Sequence[str], settings: Mapping[str, str | int], cache: EngineCache | None
) -> list[str | tuple[str, dict[str, str]]]:
    """Providers, those of GPUs with their options."""
    found: list[str | tuple[str, dict[str, str]]] = []
    for provider in providers:
        prefix = _OPTIONS.get(provider)
        if prefix is None:
            found.append(provider)
            continue
        options = {"device_id": str(_DEVICE)}
        for name, value in settings.items():
            if name.startswith(prefix):
                options[name[len(prefix) :]] = str(value)
        if cache is not None and prefix == "tensorrt.":
            options.update(cache.options)
        found.append((provider, options))
    return found


def bind(
    ort: Any, session: Any, images: npt.NDArray[np.float32], runtime: str
) -> Callable[[], None]:
    """One inference on ``images``, which ends when its output is there.

    On a GPU images and output stay there: copying them is not part of it. Time is the host's:
    ONNX Runtime waits for the GPU at the end of a run.
    """
    binding = session.io_binding()
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    if PROVIDERS[runtime][0] in _OPTIONS:
        there = ort.OrtValue.ortvalue_from_numpy(images, "cuda", _DEVICE)
        binding.bind_ortvalue_input(name, there)
        binding.bind_output(output, "cuda", _DEVICE)
    else:
        binding.bind_cpu_input(name, images)
        binding.bind_output(output, "cpu")
    run = session.run_with_iobinding
    return lambda: run(binding)


class EngineCache:
    """Where the TensorRT provider keeps the engines of one model, for later processes.

    It names engines by the names in a graph, which blocks of different sizes share: so each model
    has a folder of its own. It is filled under another name, and takes its own once an inference
    was done with it: what a killed process left half-written is never found. ONNX Runtime does not
    look whether its writing succeeds, so where the disk is nearly full nothing is kept. What layers
    took to time is shared by all.

    Args:
        folder: of all models.
        asked: what the engine depends on.
    """

    def __init__(self, folder: Path, artefact: bytes, asked: object) -> None:
        key = hashlib.sha256(artefact + json.dumps(asked, sort_keys=True).encode()).hexdigest()
        self._final = folder / key[:32]
        self._timings = folder / TIMINGS
        self._timings.mkdir(parents=True, exist_ok=True)
        made = not self._final.exists()
        self._path = Path(tempfile.mkdtemp(dir=str(folder))) if made else self._final
        keep_open(self._path)
        self.options = {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(self._path),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(self._timings),
        }

    def keep(self) -> None:
        """Let later processes find it, if there is room: an inference was done."""
        if self._path == self._final:
            return
        try:
            if not self._whole():
                shutil.rmtree(str(self._timings), ignore_errors=True)
            elif make_room(self._path.parent, 0):
                self._path.rename(self._final)
                keep_open(self._final)
                return
        except OSError:  # another process was first, or the disk is full
            pass
        shutil.rmtree(str(self._path), ignore_errors=True)  # it is built again then

    def _whole(self) -> bool:
        """Whether the disk had room for more of it."""
        free = shutil.disk_usage(str(self._path)).free
        return free >= max(size_of(self._path), _LEAST_FREE)
