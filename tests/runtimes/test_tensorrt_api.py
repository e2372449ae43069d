"""The stand-ins of TensorRT are held to what the real bindings offer and refuse."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ofa_deploy.graph import build_onnx
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.space import SearchSpace
from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.record_tensorrt_api import CLASSES, api_of, signature
from tests.runtimes.tensorrt_fake import RECORDED, VERSIONS, fake_tensorrt

RTX = "1.7.1.116"
GONE = {
    "BuilderFlag": {"FP16", "INT8", "BF16", "FP8", "OBEY_PRECISION_CONSTRAINTS"},
    "NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH"},
    "IBuilderConfig": {"int8_calibrator", "set_calibration_profile", "quantization_flags"},
    "ITensor": {"dynamic_range", "set_dynamic_range"},
    "OnnxParser": {"supports_model"},
    "ICudaEngine": {"device_memory_size", "has_implicit_batch_dimension"},
    "Builder": {"platform_has_fast_fp16", "platform_has_fast_int8"},
}


@pytest.fixture(params=[*VERSIONS, "real tensorrt_rtx"])
def trt(request: pytest.FixtureRequest) -> Any:
    if request.param in VERSIONS:
        return fake_tensorrt(request.param, FakeCudaLibrary())
    return pytest.importorskip("tensorrt_rtx", reason="pip install 'ofa-deploy[tensorrt-rtx]'")


@pytest.fixture(scope="module")
def model(tiny_space: SearchSpace) -> onnx.ModelProto:
    return build_onnx(tiny_space.lower(tiny_space.smallest)[:1])


def test_what_11_took_away_is_gone() -> None:
    ten, eleven = (RECORDED[version] for version in VERSIONS)
    for name, members in GONE.items():
        assert members <= ten[name].keys()
        assert not members & eleven[name].keys()


def _own(kind: type) -> Iterator[tuple[str, Any]]:
    for name in dir(kind):
        if not name.startswith("_"):
            yield name, inspect.getattr_static(kind, name)


def _signature(function: Any) -> str:
    _, *parameters = inspect.signature(function).parameters.values()
    return ", ".join(
        p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters
    )


def _plain(signatures: list[str]) -> list[str]:
    """Without defaults, which the fakes simplify."""
    return [", ".join(part.partition("=")[0] for part in s.split(", ")) for s in signatures]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CLASSES)
def test_a_fake_has_nothing_that_the_real_one_lacks(version: str, name: str) -> None:
    kind, recorded = getattr(fake_tensorrt(version, None), name), RECORDED[version][name]
    members = dict(_own(kind))
    if name == "IHostMemory":  # a kind of bytes here
        members = {n: m for n, m in members.items() if n not in dir(bytes)}
    assert members
    for member, value in members.items():
        assert member in recorded
        if inspect.isfunction(value):
            assert _plain([_signature(value)])[0] in _plain(recorded[member])
        elif recorded[member] is not None and not isinstance(recorded[member], list):
            assert int(getattr(kind, member)) == recorded[member]


@pytest.mark.parametrize("name", CLASSES)
def test_rtx_is_called_as_tensorrt_11(name: str) -> None:
    """So what runs on the real TensorRT for RTX here is called as in TensorRT 11."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'ofa-deploy[tensorrt-rtx]'")
    found, recorded = api_of(rtx)[name], RECORDED[VERSIONS[1]][name]
    used = [member for member, _ in _own(getattr(fake_tensorrt(VERSIONS[1], None), name))]
    for member in set(used) & recorded.keys():
        if isinstance(recorded[member], list):
            assert set(_plain(found[member])) & set(_plain(recorded[member]))
        elif recorded[member] is None:
            assert member in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("self: a.Builder", ""),
        ("self: a.Builder, flags: int = 0", "flags=0"),
        ("self: a.B, x: Union[int, str], y: a.C = <Kind.A: 0>", "x, y=<Kind.A: 0>"),
    ],
)
def test_a_signature_is_read(text: str, expected: str) -> None:
    assert signature(text) == expected


# What the real one refuses, the fakes refuse in the same way.


def _logger(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.ERROR:
                self.errors.append(message)

    return Log()


def _network(trt: Any, model: onnx.ModelProto) -> tuple[Any, Any, Any]:
    log = _logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, log).parse(model.SerializeToString())
    return log, builder, network


def _profile(builder: Any, *shapes: tuple[int, ...]) -> Any:
    profile = builder.create_optimization_profile()
    profile.set_shape("images", *shapes)
    return profile


def test_an_input_is_described(trt: Any, model: onnx.ModelProto) -> None:
    _, _, network = _network(trt, model)
    assert (network.num_inputs, network.num_outputs) == (1, 1)
    source = network.get_input(0)
    assert (source.name, tuple(source.shape)) == ("images", (-1, 3, 12, 12))
    assert network.get_input(1) is None


@pytest.mark.parametrize(
    "misuse",
    [
        lambda trt: trt.Builder("a logger"),
        lambda trt: trt.Builder(type("Log", (trt.ILogger,), {"__init__": lambda self: None})()),
        lambda trt: 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED,
        lambda trt: _config(trt).set_flag(3),
        lambda trt: _config(trt).set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, -1),
    ],
)
def test_a_type_error(trt: Any, misuse: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError):
        misuse(trt)


def _config(trt: Any) -> Any:
    return trt.Builder(_logger(trt)).create_builder_config()


def test_a_configuration_takes_no_other_attributes(trt: Any) -> None:
    with pytest.raises(AttributeError):
        _config(trt).int8_callibrator = None


def test_a_level_is_kept_within_bounds(trt: Any) -> None:
    config = _config(trt)
    assert config.builder_optimization_level == 3
    config.builder_optimization_level = 9
    assert config.builder_optimization_level == 5


def test_a_profile_out_of_order_gets_no_index(trt: Any, model: onnx.ModelProto) -> None:
    log, builder, _ = _network(trt, model)
    config = builder.create_builder_config()
    wrong = _profile(builder, (4, 3, 12, 12), (1, 3, 12, 12), (8, 3, 12, 12))
    assert config.add_optimization_profile(wrong) == -1
    assert any("isValid" in error for error in log.errors)
    right = _profile(builder, (1, 3, 12, 12), (1, 3, 12, 12), (8, 3, 12, 12))
    assert config.add_optimization_profile(right) == 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [(None, "no optimization profile"), ((8, 3, 9, 9), "Dimension mismatch for tensor images")],
)
def test_a_build_without_its_profile_gives_none(
    trt: Any, model: onnx.ModelProto, shape: tuple[int, ...] | None, message: str
) -> None:
    log, builder, network = _network(trt, model)
    config = builder.create_builder_config()
    if shape:
        assert config.add_optimization_profile(_profile(builder, shape, shape, shape)) == 0
    assert builder.build_serialized_network(network, config) is None
    assert any(message in error for error in log.errors)


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """One weight of another type than its layer's input."""
    tensor = model.graph.initializer[0]
    array = numpy_helper.to_array(tensor).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def _unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """What ONNX Runtime quantises for x86."""
    images = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
    return onnx.load_from_string(get_runtime("onnxruntime").build(model, "int8", [images]))


def _unknown(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.node[0].op_type = "Konv"
    return model


@pytest.mark.parametrize("spoil", [_halved, _unsigned, _unknown, None])
def test_a_graph_that_is_not_read(
    trt: Any, model: onnx.ModelProto, spoil: Callable[[onnx.ModelProto], onnx.ModelProto] | None
) -> None:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    data = spoil(copy).SerializeToString() if spoil else b"no graph"
    log = _logger(trt)
    network = trt.Builder(log).create_network(0)
    parser = trt.OnnxParser(network, log)
    assert parser.num_errors == 0
    assert parser.parse(data) is False
    assert parser.num_errors >= 1
    assert parser.get_error(0).desc()


def test_a_graph_must_be_bytes(trt: Any) -> None:
    log = _logger(trt)
    with pytest.raises(TypeError):
        trt.OnnxParser(trt.Builder(log).create_network(0), log).parse("model.onnx")
