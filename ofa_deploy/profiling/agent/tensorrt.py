"""TensorRT where models are timed: engines are built there, and kept for the session.

What is sent is an ONNX whose types are the precision. A process builds its engine on the GPU that
is there, with what earlier builds timed; later processes of the session find both. Both lie beside
the models and go with them. They are written aside and renamed, and sealed: what a killed process
or a full disk left half-written is never given to TensorRT. The memory that building takes counts
among what its process takes.

Standard library, numpy and ``tensorrt`` (10.x or 11.x) or ``tensorrt_rtx`` only, on Python 3.8 too.
Has run against stand-ins of TensorRT and of the CUDA driver only, and real builds of TensorRT for
RTX without a GPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.errors import DeviceError
from ofa_deploy.runtimes.room import TIMINGS, keep_open, make_room
from ofa_deploy.runtimes.trt.build import build_plan, for_capabilities
from ofa_deploy.runtimes.trt.cuda import gpu
from ofa_deploy.runtimes.trt.kept import TIMING_CACHE, sealed, unsealed
from ofa_deploy.runtimes.trt.module import check_version, name_of
from ofa_deploy.runtimes.trt.plan import Plan
from ofa_deploy.runtimes.trt.settings import TimingSettings
from ofa_deploy.runtimes.trt.timed import Timed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from ofa_deploy.runtimes.trt.cuda import Cuda
    from ofa_deploy.runtimes.trt.settings import EngineSettings

__all__ = ["Engines", "open_engine"]

_ENGINE = "engine 1"
_LARGEST = 2**31  # bytes of a file that is read


def open_engine(
    trt: Any,
    model: bytes,
    images: npt.NDArray[np.float32],
    settings: Mapping[str, str | int],
    folder: Path,
) -> Timed:
    """An engine for these images, ready to be timed.

    Args:
        trt: the module.
        model: an ONNX.
        images: float32; the engine is for their batch.
        settings: as ``TimingSettings.told`` writes them.
        folder: where engines of this session are kept; made if missing.

    Raises:
        DeviceError: if there is no GPU, or TensorRT is of another version or refuses.
        SettingsError: for settings that there are not.
    """
    check_version(trt)
    told = TimingSettings.heard(settings)
    try:
        cuda = gpu(spin=True)  # before TensorRT is called: without a GPU it may crash
    except DeviceError as error:
        raise DeviceError(f"{name_of(trt)} needs an NVIDIA GPU: {error}") from None
    plan = Engines(folder, trt, cuda).plan(model, told.engine(len(images)))
    return Timed(Plan(trt, plan, cuda), cuda, images, graph_batch=told.graph_batch)


class Engines:
    """Engines that this session has built, in a folder.

    Args:
        folder: made if missing.
        trt: the module.
        cuda: the GPU.
    """

    def __init__(self, folder: Path, trt: Any, cuda: Cuda) -> None:
        self._folder, self._trt, self._cuda = folder, trt, cuda
        self._rtx = name_of(trt) == "tensorrt-rtx"
        with contextlib.suppress(OSError):  # then nothing is kept
            folder.mkdir(exist_ok=True)

    def plan(self, model: bytes, settings: EngineSettings) -> bytes:
        """An engine: one that is there, or a new one.

        Raises:
            DeviceError: with what TensorRT says.
        """
        path = self._folder / f"{self._key(model, settings)}.engine"
        keep_open(path)
        found = _read(path, _ENGINE)
        if found is not None:
            return found
        plan = self._build(model, settings)
        self._keep(path, sealed(_ENGINE, plan))
        return plan

    def _key(self, model: bytes, settings: EngineSettings) -> str:
        asked = {
            "model": hashlib.sha256(model).hexdigest(),
            "version": [name_of(self._trt), str(self._trt.__version__)],
            "gpu": [self._cuda.name, *self._cuda.capability],
            "settings": asdict(settings),
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]

    def _build(self, model: bytes, settings: EngineSettings) -> bytes:
        self._cuda.enter()
        if self._rtx:  # it times nothing when it builds
            configure = for_capabilities(self._trt, [self._cuda.capability])
            return build_plan(self._trt, model, settings, configure=configure)[0]
        path = self._folder / TIMINGS
        before = _read(path, TIMING_CACHE) or b""
        plan, after = build_plan(self._trt, model, settings, timing_cache=before)
        if after is not None and after != before:
            _write(path, sealed(TIMING_CACHE, after))
        return plan

    def _keep(self, path: Path, engine: bytes) -> None:
        with contextlib.suppress(OSError):
            if make_room(self._folder, len(engine)):
                _write(path, engine)


def _read(path: Path, kind: str) -> bytes | None:
    """What was kept; None if there is nothing, or nothing whole."""
    try:
        return unsealed(kind, path.read_bytes()) if path.stat().st_size <= _LARGEST else None
    except OSError:
        return None


def _write(path: Path, data: bytes) -> None:
    """Keep something, whole or not at all; without room it is not kept, and made again."""
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=str(path.parent))
        aside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink()
            raise
