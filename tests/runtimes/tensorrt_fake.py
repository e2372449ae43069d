"""Stand-ins for ``tensorrt`` 10.13 and 11.4 and ``tensorrt_rtx`` 1.7, as far as they are used here.

They have no name that the real bindings lack (``tensorrt_api.json`` holds those), and refuse what
the real ones refuse, in the same way: what TensorRT for RTX says on this machine was the model. An
engine of theirs is the ONNX that it was built from, run by ONNX Runtime on memory of the fake GPU.

Bytes that no one checked, and a call without a GPU, end the process in the real ones; here they
raise ``Crash``, which no ``except Exception`` catches.
"""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnxruntime.quantization.onnx_model import ONNXModel

from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.tensorrt_fake_engine import (
    Crash,
    ICudaEngine,
    IExecutionContext,
    ILogger,
    Runtime,
    check,
    check_logger,
    enumeration,
    shape_of,
)

if TYPE_CHECKING:
    from ofa_deploy.runtimes.tensorrt import TensorRt
    from ofa_deploy.runtimes.trt.settings import EngineSettings

__all__ = ["RECORDED", "VERSIONS", "Crash", "fake_tensorrt", "header", "runtime_on"]

VERSIONS = ("10.13.0.35", "11.4.0.106")
RECORDED = json.loads(Path(__file__).with_name("tensorrt_api.json").read_text())
_ENUMS = (
    "BuilderFlag",
    "DataType",
    "HardwareCompatibilityLevel",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "TensorIOMode",
)
_TYPED_FLAGS = ("FP16", "INT8", "BF16", "FP8")  # in 10 alone


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class ITensor:
    __slots__ = ("_value",)

    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self._value = value

    @property
    def name(self) -> str:
        return self._value.name

    @property
    def shape(self) -> tuple[int, ...]:
        return shape_of(self._value)


class INetworkDefinition:
    __slots__ = ("_data", "_model", "_typed")

    def __init__(self, typed: bool) -> None:
        self._typed = typed
        self._data = b""
        self._model = onnx.ModelProto()

    @property
    def num_inputs(self) -> int:
        return len(self._model.graph.input)

    @property
    def num_outputs(self) -> int:
        return len(self._model.graph.output)

    def get_input(self, index: int) -> ITensor | None:
        inside = 0 <= index < self.num_inputs
        return ITensor(self._model.graph.input[index]) if inside else None


class ParserError:
    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class OnnxParser:
    __slots__ = ("_errors", "_logger", "_network")

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        check(INetworkDefinition, network)
        check_logger(logger)
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse(self, model: bytes, path: str | None = None) -> bool:
        check((bytes, bytearray, memoryview), model)
        try:
            read = onnx.ModelProto.FromString(bytes(model))
            ONNXModel(read).topological_sort()  # as the real parser does
            onnx.checker.check_model(read, full_check=True)
            _check_quantized(read.graph)
        except Exception as error:
            self._errors.append(ParserError(f"Invalid Node:\n{error}"))
            self._logger.log(ILogger.ERROR, "While parsing node number 0")
            return False
        self._network._model, self._network._data = read, bytes(model)
        return True


def _check_quantized(graph: onnx.GraphProto) -> None:
    """Refuse zero points but 0, unsigned activations and quantised biases."""
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = arrays[node.input[2]]
            if zero.dtype == np.int32:
                raise ValueError(f"{node.name}: input has type Int32 but must have type Int8")
            if zero.dtype != np.int8 or zero.any():
                raise ValueError(f"{node.name}: TensorRT only supports symmetric quantization")


class IOptimizationProfile:
    __slots__ = ("_shapes",)

    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(
        self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]
    ) -> None:
        self._shapes[input] = [min, opt, max]

    def _valid(self) -> bool:
        ordered = [
            a <= b <= c for shapes in self._shapes.values() for a, b, c in zip(*shapes, strict=True)
        ]
        return bool(ordered) and all(ordered)


class ITimingCache:
    __slots__ = ("_device", "_layers")

    def __init__(self, device: str, layers: set[str]) -> None:
        self._device, self._layers = device, layers

    def serialize(self) -> IHostMemory:
        return IHostMemory(json.dumps([self._device, sorted(self._layers)]).encode())


class IBuilderConfig:
    """Slots, since the bindings take no attribute that they do not have."""

    __slots__ = (
        "_cache",
        "_level",
        "_module",
        "_profiles",
        "_set",
        "_workspace",
        "hardware_compatibility_level",
    )

    def __init__(self, module: Any) -> None:
        self._module = module
        self._set = {module.BuilderFlag.TF32}
        self._profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None
        self._workspace: int | None = None
        self._level = 3
        self.hardware_compatibility_level = module.HardwareCompatibilityLevel.NONE

    @property
    def builder_optimization_level(self) -> int:
        return self._level

    @builder_optimization_level.setter
    def builder_optimization_level(self, level: int) -> None:
        self._level = min(max(level, 0), 5)

    def set_flag(self, flag: Any) -> None:
        check(self._module.BuilderFlag, flag)
        self._set.add(flag)

    def clear_flag(self, flag: Any) -> None:
        check(self._module.BuilderFlag, flag)
        self._set.discard(flag)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        check(self._module.MemoryPoolType, pool)
        if pool_size < 0:
            raise TypeError("incompatible function arguments: negative size_t")
        self._workspace = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        check(IOptimizationProfile, profile)
        if not profile._valid():
            self._module.logger.log(ILogger.ERROR, "Parameter check failed: profile->isValid()")
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        if not serialized_timing_cache:
            return ITimingCache(self._module.library.name, set())
        device, layers = json.loads(serialized_timing_cache)
        return ITimingCache(device, set(layers))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        check(ITimingCache, cache)
        if not ignore_mismatch and cache._device != self._module.library.name:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder:
    __slots__ = ("_logger", "_module")
    _module: Any

    def __init__(self, logger: ILogger) -> None:
        check_logger(logger)
        self._logger = logger
        if self._module.needs_gpu and not self._module.has_gpu():
            logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        check(int, flags)
        typed = self._module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        always = not self._module.__version__.startswith("10.")
        return INetworkDefinition(always or bool(flags & 1 << int(typed)))

    def create_builder_config(self) -> Any:
        self._module.logger = self._logger
        return self._module.IBuilderConfig(self._module)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        check(INetworkDefinition, network)
        check(IBuilderConfig, config)
        if why := self._module.objection(network, config):
            self._logger.log(
                ILogger.ERROR, f"IBuilder::buildSerializedNetwork: Error Code 4: {why}"
            )
            return None
        self._module.builds.append(_time_layers(network, config))
        shapes = config._profiles[0]._shapes if config._profiles else {}
        header = {
            "version": self._module.__version__,
            "shapes": shapes,
            "flags": sorted(flag.name for flag in config._set),
            "hardware": config.hardware_compatibility_level.name,
            "workspace": config._workspace,
            "level": config._level,
            "capabilities": getattr(config, "_capabilities", []),
            "typed": network._typed,
        }
        body = json.dumps(header).encode() + b"\n" + network._data
        return IHostMemory(b"ftrt" + hashlib.sha256(body).digest() + body)


def _time_layers(network: INetworkDefinition, config: IBuilderConfig) -> int:
    """How many layers must be timed, since no cache has them."""
    layers = {f"{node.op_type} {node.name}" for node in network._model.graph.node}
    known = config._cache._layers if config._cache else set()
    timed = len(layers - known)
    known |= layers
    return timed


class _FakeModule(SimpleNamespace):
    """The module, and what tests want to know of it.

    Attributes:
        library: the driver's.
        builds: how many layers each build had to time.
        trouble: what a build shall fail with.
    """

    def has_gpu(self) -> bool:
        return self.library is not None and self.library.capability is not None

    def objection(self, network: INetworkDefinition, config: IBuilderConfig) -> str | None:
        if self.trouble:
            return str(self.trouble)
        if not network._data:
            return "Network must have at least one output"
        typed = sorted(flag.name for flag in config._set if flag.name in _TYPED_FLAGS)
        if network._typed and typed:
            return f"precision flags {typed} on a strongly typed network"
        source = network.get_input(0)
        assert source is not None
        if -1 in source.shape and not config._profiles:
            return "Network has dynamic or shape inputs, but no optimization profile"
        for profile in config._profiles:
            for shape in profile._shapes.get(source.name, []):
                pairs = zip(shape, source.shape, strict=True)
                if any(n not in (-1, m) for m, n in pairs):
                    return f"Dimension mismatch for tensor {source.name} and profile 0"
        return None


def fake_tensorrt(
    version: str, library: FakeCudaLibrary | None, *, rtx: bool = False
) -> _FakeModule:
    """The module of that version, on a machine with that driver; ``rtx`` needs none to build."""
    kinds: dict[str, Any] = {
        kind.__name__: kind
        for kind in (
            IBuilderConfig,
            ICudaEngine,
            IExecutionContext,
            IHostMemory,
            ILogger,
            INetworkDefinition,
            IOptimizationProfile,
            ITensor,
            ITimingCache,
            OnnxParser,
            ParserError,
        )
    }
    enums = {
        name: enumeration(name, RECORDED[VERSIONS[1] if rtx else version][name]) for name in _ENUMS
    }
    module = _FakeModule(
        **{**kinds, **enums},
        __name__="tensorrt_rtx" if rtx else "tensorrt",
        __version__=version,
        library=library,
        needs_gpu=not rtx,
        builds=[],
        trouble=None,
        logger=None,
    )
    module.Builder = type("Builder", (Builder,), {"__slots__": (), "_module": module})
    module.Runtime = type("Runtime", (Runtime,), {"__slots__": (), "_module": module})
    if rtx:
        module.IBuilderConfig = _RtxConfig
        module.ComputeCapability = enumeration(
            "ComputeCapability",
            {"NONE": 0, "CURRENT": 1, "SM75": 75, "SM80": 80, "SM86": 86, "SM89": 89, "SM120": 120},
        )
    return module


class _RtxConfig(IBuilderConfig):
    __slots__ = ("_capabilities",)

    @property
    def num_compute_capabilities(self) -> int:
        return len(self._capabilities)

    @num_compute_capabilities.setter
    def num_compute_capabilities(self, count: int) -> None:
        self._capabilities = [0] * count

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        if int(compute_capability) < 75 or not 0 <= index < len(self._capabilities):
            return False
        self._capabilities[index] = int(compute_capability)
        return True


def runtime_on(
    library: FakeCudaLibrary,
    version: str = VERSIONS[1],
    settings: "EngineSettings | None" = None,
    timing_cache: Path | None = None,
) -> "TensorRt":
    """TensorRT of that version on a machine with that GPU."""
    from ofa_deploy.runtimes.tensorrt import TensorRt  # not where only the stand-in is wanted
    from ofa_deploy.runtimes.trt.cuda import Cuda

    return TensorRt(
        settings,
        timing_cache=timing_cache,
        module=fake_tensorrt(version, library),
        cuda=Cuda(library=library),
    )


def header(artefact: bytes) -> dict[str, Any]:
    """What an engine of the fake says that it was built with."""
    from ofa_deploy.runtimes.trt.artefact import unpack

    _, plan = unpack(artefact)
    found: dict[str, Any] = json.loads(plan[36:].partition(b"\n")[0])
    return found
