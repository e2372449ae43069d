"""TensorRT on an NVIDIA GPU, Jetson included: 10.x and 11.x.

Engines are built where they run. Where there is no GPU, ``trt/recipe.py`` writes what to build.

No engine has been built or run on a GPU by the tests: they use stand-ins of both interfaces and of
the CUDA driver, and the real builder of TensorRT for RTX, whose interface is that of 11.x. Where a
GPU and ``tensorrt`` are found, the same tests run on them.
"""

import functools
import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import onnx

from ofa_deploy.errors import DeviceError, FileFormatError, OfaDeployError
from ofa_deploy.files import read_bytes, write_bytes
from ofa_deploy.runtimes.base import Floats, Runtime, Session, check_build
from ofa_deploy.runtimes.trt.artefact import (
    Capability,
    EngineRecord,
    check_target,
    machine,
    pack,
    unpack,
)
from ofa_deploy.runtimes.trt.build import build_plan
from ofa_deploy.runtimes.trt.cuda import Cuda, gpu
from ofa_deploy.runtimes.trt.graphs import to_build
from ofa_deploy.runtimes.trt.kept import TIMING_CACHE, sealed, unsealed
from ofa_deploy.runtimes.trt.module import check_version
from ofa_deploy.runtimes.trt.plan import Plan
from ofa_deploy.runtimes.trt.settings import EngineSettings, TimingSettings
from ofa_deploy.runtimes.trt.timed import Timed
from ofa_deploy.system import optional_import

__all__ = ["EngineRuntime", "PlanSession", "TensorRt"]

_MAX_CACHE_BYTES = 512 * 2**20


class PlanSession(Plan, Session):
    """An engine as a session: ``run`` copies images to the GPU, other calls find them there.

    Args:
        trt, plan, cuda, host_code: see ``Plan``.
        graph_batch: see ``Timed``.
    """

    def __init__(
        self, trt: Any, plan: bytes, cuda: Cuda, *, host_code: bool = False, graph_batch: int
    ) -> None:
        super().__init__(trt, plan, cuda, host_code=host_code)
        self._graph_batch = graph_batch

    def timed(self, images: Floats) -> Timed:
        """A call that the GPU times, without what the host does around it; see ``Timed``."""
        return Timed(self, self._cuda, images, graph_batch=self._graph_batch)


class EngineRuntime(Runtime):
    """What TensorRT and TensorRT for RTX do alike: engines with records, run on a GPU.

    Args:
        settings: what engines are built with; kept as ``engine_settings``.
        module: the library; imported when first used if not given.
        cuda: the GPU; the first of this machine, opened when first used, if not given.
    """

    precisions = ("fp32", "fp16", "int8")
    name: Literal["tensorrt", "tensorrt-rtx"]
    _package: str
    _extra: str

    def __init__(
        self,
        settings: EngineSettings | None = None,
        *,
        module: Any = None,
        cuda: Cuda | None = None,
    ) -> None:
        self.engine_settings = settings or EngineSettings()
        self._given_module, self._given_cuda = module, cuda

    @functools.cached_property
    def module(self) -> Any:
        """The library.

        Raises:
            MissingDependencyError: if it is not installed.
            DeviceError: if it is of a version that is not supported.
        """
        module = self._given_module or optional_import(self._package, extra=self._extra)
        check_version(module)
        return module

    @functools.cached_property
    def cuda(self) -> Cuda:
        """The GPU.

        Raises:
            DeviceError: if there is none.
        """
        try:
            return self._given_cuda or gpu()
        except DeviceError as error:
            raise DeviceError(f"{self.name} needs an NVIDIA GPU: {error}") from None

    def why_not(self) -> str | None:
        """Why engines cannot run here, in one line; None if they can."""
        try:
            _ = self.module, self.cuda
        except OfaDeployError as error:
            return str(error)
        return None

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    def settings(self, threads: int = 1) -> Mapping[str, str | int]:
        """What an engine is built and launched with where it is timed."""
        return TimingSettings.of(self.engine_settings).told()

    def build(
        self,
        model: onnx.ModelProto,
        precision: str = "fp32",
        calibration: Sequence[Floats] = (),
    ) -> bytes:
        return self.build_ready(self.to_time(model, precision, calibration), precision)

    def to_time(
        self,
        model: onnx.ModelProto,
        precision: str = "fp32",
        calibration: Sequence[Floats] = (),
        *,
        batch: int | None = None,
        processor: str = "here",
    ) -> bytes:
        """The ONNX, of that precision's types: the engine is built where it is timed."""
        check_build(self, precision, calibration)
        return to_build(model, precision, calibration, batch)

    def build_ready(self, model: bytes, precision: str) -> bytes:
        """Build from an ONNX whose types are those of ``precision`` already.

        Raises:
            DeviceError, MissingDependencyError: as ``build``.
        """
        plan = self._plan(model)
        record = EngineRecord(
            runtime=self.name,
            version=self.version,
            sha256=hashlib.sha256(plan).hexdigest(),
            size=len(plan),
            onnx_sha256=hashlib.sha256(model).hexdigest(),
            precision=precision,
            settings=self.engine_settings,
            **self._built_for(),
        )
        return pack(record, plan)

    @abstractmethod
    def _plan(self, model: bytes) -> bytes:
        """The engine that comes of an ONNX."""

    @abstractmethod
    def _built_for(self) -> dict[str, Any]:
        """``capabilities``, ``gpu`` and ``machine`` of the record."""

    def load(self, artefact: bytes, *, threads: int = 1) -> Session:
        """Load an artefact of ``build``; ``threads`` mean nothing on a GPU.

        Raises:
            DeviceError: if it is damaged or for another GPU, or there is no GPU; TensorRT is not
                asked then, since it would crash.
        """
        try:
            record, plan = unpack(artefact)
        except FileFormatError as error:
            raise DeviceError(f"{self.name}: {error}") from None
        check_target(record, self.name, self.version, self.cuda.capability)
        return PlanSession(
            self.module,
            plan,
            self.cuda,
            host_code=record.settings.version_compatible,
            graph_batch=TimingSettings.heard(self.settings()).graph_batch,
        )


class TensorRt(EngineRuntime):
    """TensorRT: engines for the GPU that is here.

    Args:
        settings, module, cuda: see ``EngineRuntime``.
        timing_cache: a file that keeps what earlier builds timed, made if missing; a damaged one
            is started anew, and one that cannot be written stays as it is.
    """

    name = "tensorrt"
    _package, _extra = "tensorrt", "tensorrt"

    def __init__(
        self,
        settings: EngineSettings | None = None,
        *,
        timing_cache: Path | None = None,
        module: Any = None,
        cuda: Cuda | None = None,
    ) -> None:
        super().__init__(settings, module=module, cuda=cuda)
        self.timing_cache = timing_cache

    def _plan(self, model: bytes) -> bytes:
        module, cuda = self.module, self.cuda  # both must be there before TensorRT is called
        cuda.enter()
        path = self.timing_cache
        before = None if path is None else _read_cache(path)
        plan, after = build_plan(module, model, self.engine_settings, timing_cache=before)
        if path is not None and after is not None and after != before:
            with suppress(OfaDeployError, OSError):  # the next build takes as long, no more
                write_bytes(path, sealed(TIMING_CACHE, after))
        return plan

    def _built_for(self) -> dict[str, Any]:
        capability: Capability = self.cuda.capability
        return {"capabilities": (capability,), "gpu": self.cuda.name, "machine": machine()}


def _read_cache(path: Path) -> bytes:
    """What is in a timing cache; nothing if there is none, or one that is not as it was written."""
    if not path.exists() or path.stat().st_size > _MAX_CACHE_BYTES:
        return b""
    return unsealed(TIMING_CACHE, read_bytes(path, limit=_MAX_CACHE_BYTES)) or b""
