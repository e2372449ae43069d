"""The half of ``tensorrt_fake`` that runs engines: runtime, engine, context."""

import enum
import hashlib
import json
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from tests.runtimes.cuda_fake import ILLEGAL_ADDRESS, FakeCudaLibrary

__all__ = [
    "MS_A_NODE",
    "Crash",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "NumberEnum",
    "Runtime",
    "Severity",
    "check",
    "check_logger",
    "enumeration",
    "shape_of",
]


MS_A_NODE = 0.125  # and image


class Crash(BaseException):
    """The process would have died."""


class NumberEnum(enum.Enum):
    """Such as pybind11 makes them: numbers only when asked."""

    def __int__(self) -> int:
        return int(self.value)


def enumeration(name: str, recorded: dict[str, int | None]) -> Any:
    numbers = {member: n for member, n in recorded.items() if n is not None}
    made: Any = NumberEnum
    return made(name, numbers)


class Severity(NumberEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity
    _made = False

    def __init__(self) -> None:
        self._made = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError("a logger must override log")


def check(wanted: type | tuple[type, ...], *values: Any) -> None:
    for value in values:
        if not isinstance(value, wanted):
            raise TypeError(f"incompatible function arguments: {type(value).__name__}")


def check_logger(logger: Any) -> None:
    check(ILogger, logger)
    if not logger._made:
        raise TypeError("ILogger.__init__() must be called when overriding __init__")


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    dimensions = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dimensions)


class ICudaEngine:
    __slots__ = ("_header", "_model", "_module", "_runtime")

    def __init__(self, runtime: "Runtime", header: dict[str, Any], model: bytes) -> None:
        self._runtime, self._header = runtime, header
        self._module = runtime._module
        self._model = onnx.ModelProto.FromString(model)

    def _values(self) -> list[onnx.ValueInfoProto]:
        return [*self._model.graph.input, *self._model.graph.output]

    def _value(self, name: str) -> onnx.ValueInfoProto:
        return next(value for value in self._values() if value.name == name)

    @property
    def num_io_tensors(self) -> int:
        return len(self._values())

    def get_tensor_name(self, index: int) -> str:
        return self._values()[index].name

    def get_tensor_mode(self, name: str) -> Any:
        inputs = [value.name for value in self._model.graph.input]
        mode = self._module.TensorIOMode
        return mode.INPUT if name in inputs else mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        half = self._value(name).type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
        return self._module.DataType["HALF" if half else "FLOAT"]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return shape_of(self._value(name))

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        if profile_index:
            raise RuntimeError("no such profile")
        return [tuple(shape) for shape in self._header["shapes"][name]]

    def create_execution_context(self, strategy: Any = None) -> "IExecutionContext":
        return IExecutionContext(self)


class IExecutionContext:
    __slots__ = ("_addresses", "_engine", "_session", "_shapes")

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        data = engine._model.SerializeToString()
        self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def _refuse(self, why: str) -> bool:
        self._engine._runtime._logger.log(ILogger.ERROR, why)
        return False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        check((tuple, list), shape)
        low, _, high = self._engine._header["shapes"].get(
            name, [self._engine.get_tensor_shape(name)] * 3
        )
        inside = len(shape) == len(low) and all(
            a <= n <= b for a, n, b in zip(low, shape, high, strict=True)
        )
        if not inside:
            return self._refuse(f"IExecutionContext::setInputShape: {shape} is outside the profile")
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self._engine.get_tensor_shape(name)
        batch = next((s[0] for s in self._shapes.values()), -1)
        return self._shapes.get(name, tuple(batch if n == -1 else n for n in shape))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        check(int, memory)
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        check(int, stream_handle)
        library = self._engine._module.library
        names = [value.name for value in self._engine._values()]
        if -1 in self.get_tensor_shape(names[0]) or set(names) != set(self._addresses):
            return self._refuse("IExecutionContext::enqueueV3: not all addresses or shapes are set")
        if not library.is_stream(stream_handle):
            raise Crash("no such stream")
        places = {name: (self._addresses[name], self.get_tensor_shape(name)) for name in names}
        source, target = names
        library.enqueue(
            lambda: self._compute(library, source, target, places),
            MS_A_NODE * len(self._engine._model.graph.node) * places[source][1][0],
        )
        return True

    def _compute(self, library: FakeCudaLibrary, source: str, target: str, places: Any) -> int:
        address, shape = places[source]
        data = library.at(address, 4 * int(np.prod(shape)))
        found_address, found_shape = places[target]
        room = library.at(found_address, 4 * int(np.prod(found_shape)))
        if data is None or room is None:
            return ILLEGAL_ADDRESS
        images = np.frombuffer(data, np.float32).reshape(shape)
        (output,) = self._session.run([target], {source: images})
        np.frombuffer(room, np.float32)[:] = output.ravel()
        return 0


class Runtime:
    __slots__ = ("_logger", "engine_host_code_allowed")
    _module: Any

    def __init__(self, logger: ILogger) -> None:
        check_logger(logger)
        self._logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        check((bytes, bytearray, memoryview), serialized_engine)
        data = bytes(serialized_engine)
        if not self._module.has_gpu():
            raise Crash("no GPU")
        if data[:4] != b"ftrt" or hashlib.sha256(data[36:]).digest() != data[4:36]:
            raise Crash("no engine")
        text, _, model = data[36:].partition(b"\n")
        header = json.loads(text)
        compatible = "VERSION_COMPATIBLE" in header["flags"]
        if header["version"] != self._module.__version__ and not compatible:
            self._logger.log(ILogger.ERROR, "Version tag does not match")
            return None
        if compatible and not self.engine_host_code_allowed:
            self._logger.log(ILogger.ERROR, "engine host code is not allowed")
            return None
        return ICudaEngine(self, header, model)
