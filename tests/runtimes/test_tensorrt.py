"""Engines of TensorRT on a GPU: built on stand-ins of both of its interfaces, see tensorrt_fake."""

import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ofa_deploy.errors import (
    DeviceError,
    InputError,
    MissingDependencyError,
)
from ofa_deploy.graph import build_empty, build_onnx
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.runtimes.tensorrt import TensorRt
from ofa_deploy.runtimes.trt.artefact import unpack
from ofa_deploy.runtimes.trt.cuda import Cuda
from ofa_deploy.runtimes.trt.settings import EngineSettings
from ofa_deploy.space import SearchSpace
from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.tensorrt_fake import VERSIONS, fake_tensorrt, header, runtime_on

TEN, ELEVEN = VERSIONS


# Building


def test_an_engine_is_typed_by_its_graph(
    library: FakeCudaLibrary, version: str, model: onnx.ModelProto
) -> None:
    built = header(runtime_on(library, version).build(model, "fp16"))
    assert built["typed"]
    assert built["flags"] == []  # no TF32 either
    assert (built["hardware"], built["workspace"], built["level"]) == ("NONE", None, 3)
    assert built["shapes"] == {"images": [[1, 3, 12, 12], [1, 3, 12, 12], [32, 3, 12, 12]]}


def test_settings_reach_the_builder(
    library: FakeCudaLibrary, version: str, model: onnx.ModelProto
) -> None:
    settings = EngineSettings(
        batches=(2, 4, 8),
        memory_limit=2**28,
        hardware="ampere+",
        version_compatible=True,
        optimization_level=5,
        tf32=True,
    )
    built = header(runtime_on(library, version, settings).build(model))
    assert built["flags"] == ["TF32", "VERSION_COMPATIBLE"]
    assert (built["hardware"], built["workspace"], built["level"]) == ("AMPERE_PLUS", 2**28, 5)
    assert [shape[0] for shape in built["shapes"]["images"]] == [2, 4, 8]


def test_a_fixed_batch_needs_no_profile(library: FakeCudaLibrary, tiny_space: SearchSpace) -> None:
    fixed = build_onnx(tiny_space.lower(tiny_space.smallest), batch=2)
    runtime = runtime_on(library)
    artefact = runtime.build(fixed)
    assert header(artefact)["shapes"] == {}
    session = runtime.load(artefact)
    pair = np.ones((2, 3, 12, 12), np.float32)
    assert session.run(pair).shape == (2, 4)
    assert session.run(np.concatenate([pair] * 3)).shape == (6, 4)
    with pytest.raises(DeviceError, match=r"shape \(2, 3, 12, 12\), found float32 \(3,"):
        session.run(np.ones((3, 3, 12, 12), np.float32))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_runs(
    library: FakeCudaLibrary,
    version: str,
    model: onnx.ModelProto,
    images: np.ndarray,
    precision: str,
) -> None:
    runtime = runtime_on(library, version)
    artefact = runtime.build(model, precision, [images])
    expected = get_runtime("onnxruntime").load(model.SerializeToString()).run(images)
    found = runtime.load(artefact).run(images)
    assert found.dtype == np.float32
    noise = float(((expected - found) ** 2).mean() / expected.var())
    assert noise < {"fp32": 1e-9, "fp16": 1e-4, "int8": 0.05}[precision]
    assert (noise > 1e-12) == (precision != "fp32")
    record, _ = unpack(artefact)
    assert (record.precision, record.version) == (precision, version)
    assert (record.capabilities, record.gpu) == (((8, 7),), "Fake Orin")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batches": (0, 1, 1)}, "batches: expected 1 <= least <= best <= greatest"),
        ({"batches": (2, 1, 4)}, "found 2, 1, 4"),
        ({"batches": (1, 1, 10**6)}, "found 1, 1, 1000000"),
        ({"memory_limit": 1000}, "memory limit: expected 1 MiB or more, found 1000 bytes"),
        ({"hardware": "turing"}, "expected one of none, ampere., sameComp.*, found 'turing'"),
        ({"optimization_level": 6}, "optimization level: expected 0–5, found 6"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EngineSettings(**settings)


def test_an_older_10_lacks_a_hardware_level(
    library: FakeCudaLibrary, model: onnx.ModelProto
) -> None:
    runtime = runtime_on(library, TEN, EngineSettings(hardware="sameComputeCapability"))
    assert header(runtime.build(model))["hardware"] == "SAME_COMPUTE_CAPABILITY"
    levels = runtime.module.HardwareCompatibilityLevel
    older = {each.name: each for each in list(levels)[:2]}
    runtime.module.HardwareCompatibilityLevel = SimpleNamespace(**older)
    with pytest.raises(DeviceError, match="has no hardware compatibility 'sameComputeCapability'"):
        runtime.build(model)


@pytest.mark.parametrize("version", ["8.6.2", "9.1.0", "12.0.0.1", "x"])
def test_versions_that_are_not_supported(library: FakeCudaLibrary, version: str) -> None:
    module = fake_tensorrt(TEN, library)
    module.__version__ = version
    runtime = TensorRt(module=module, cuda=Cuda(library=library))
    with pytest.raises(DeviceError, match=rf"tensorrt {version}: expected 10.x or 11.x .*JetPack"):
        runtime.build(build_empty())


def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, library: FakeCudaLibrary
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    runtime = TensorRt(cuda=Cuda(library=library))
    with pytest.raises(MissingDependencyError, match=r"pip install 'ofa-deploy\[tensorrt\]'"):
        runtime.build(build_empty())
    assert "tensorrt is not installed" in (runtime.why_not() or "")


def test_why_not_is_silent_where_all_is_there(library: FakeCudaLibrary, version: str) -> None:
    assert runtime_on(library, version).why_not() is None


def _two_outputs() -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in ("x", "y", "z")]
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    return _model(nodes, ends[:1], ends[1:])


def _dynamic_size() -> onnx.ModelProto:
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3, "h", "w"]) for n in ("x", "y")
    ]
    return _model([helper.make_node("Relu", ["x"], ["y"])], ends[:1], ends[1:])


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_two_outputs, "one input and one output, found 1 and 2"),
        (_dynamic_size, "expected images of one size, found an input of shape"),
    ],
)
def test_graphs_of_another_form(
    library: FakeCudaLibrary, version: str, make: Callable[[], onnx.ModelProto], message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        runtime_on(library, version).build(make())


def test_what_the_parser_says_is_passed_on(
    library: FakeCudaLibrary, version: str, model: onnx.ModelProto, images: np.ndarray
) -> None:
    """An INT8 file of ONNX Runtime is none for TensorRT."""
    unsigned = get_runtime("onnxruntime").build(model, "int8", [images])
    with pytest.raises(DeviceError, match=rf"tensorrt {version}: .*(Int32|symmetric)") as error:
        runtime_on(library, version).build_ready(unsigned, "int8")
    assert "\n" not in str(error.value)


def test_a_build_that_fails_says_why_once(
    library: FakeCudaLibrary, version: str, model: onnx.ModelProto
) -> None:
    runtime = runtime_on(library, version)
    runtime.module.trouble = "no tactic"
    with pytest.raises(DeviceError, match=f"tensorrt {version}: .*buildSerial.*: no tactic$"):
        runtime.build(model)
    runtime.module.trouble = None
    assert runtime.build(model)


# Running


def test_more_images_than_the_greatest_batch_go_in_parts(
    library: FakeCudaLibrary, model: onnx.ModelProto, rng: np.random.Generator
) -> None:
    runtime = runtime_on(library, settings=EngineSettings(batches=(1, 4, 4)))
    session = runtime.load(runtime.build(model))
    images = rng.standard_normal((9, 3, 12, 12)).astype(np.float32)
    single = np.concatenate([session.run(images[i : i + 1]) for i in range(9)])
    np.testing.assert_allclose(session.run(images), single, rtol=1e-5)
    with pytest.raises(DeviceError, match=r"shape \(1–4, 3, 12, 12\), found float32 \(9, 3, 12"):
        session.bound(images)


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_batches_below_the_least(
    library: FakeCudaLibrary, model: onnx.ModelProto, batch: int
) -> None:
    runtime = runtime_on(library, settings=EngineSettings(batches=(2, 4, 4)))
    session = runtime.load(runtime.build(model))
    with pytest.raises(DeviceError, match=rf"\(2–4, 3, 12, 12\), found float32 \({batch}, 3,"):
        session.run(np.zeros((batch, 3, 12, 12), np.float32))


def test_images_of_another_type(library: FakeCudaLibrary, model: onnx.ModelProto) -> None:
    session = (runtime := runtime_on(library)).load(runtime.build(model))
    with pytest.raises(DeviceError, match="expected float32 .*, found float64"):
        session.run(np.zeros((1, 3, 12, 12)))  # type: ignore[arg-type]


def test_a_bound_call_copies_nothing(
    library: FakeCudaLibrary, model: onnx.ModelProto, images: np.ndarray
) -> None:
    session = (runtime := runtime_on(library)).load(runtime.build(model))
    call = session.bound(images)
    copied = list(library.copies)
    call()
    call()
    assert library.copies == copied == [images.nbytes, 0]
    session.run(images)
    assert library.copies == [2 * images.nbytes, images.shape[0] * 4 * 4]


def test_bound_calls_keep_to_their_own_images(
    library: FakeCudaLibrary, model: onnx.ModelProto, images: np.ndarray
) -> None:
    """Two bound calls and ``run`` share one context; none may compute on another's images."""
    session = (runtime := runtime_on(library)).load(runtime.build(model))
    expected = [session.run(images), session.run(2 * images[:1])]
    before = set(library.memory)
    calls = [session.bound(images), session.bound(2 * images[:1])]
    rooms = [address for address in library.memory if address not in before]
    results = rooms[1::2]  # inputs and outputs take turns
    for index in (0, 1, 0):
        session.run(images[:2])
        for address in results:
            ctypes.memset(address, 0xFF, len(library.memory[address]))
        calls[index]()
        here, other = (bytes(library.memory[results[i]]) for i in (index, 1 - index))
        np.testing.assert_array_equal(np.frombuffer(here, np.float32), expected[index].ravel())
        assert np.isnan(np.frombuffer(other, np.float32)).all()


def test_a_bound_call_sees_no_other_shape(
    library: FakeCudaLibrary, model: onnx.ModelProto, images: np.ndarray
) -> None:
    """Making room for other images leaves the context with their shape."""
    session = (runtime := runtime_on(library)).load(runtime.build(model))
    before = set(library.memory)
    call = session.bound(images)
    _, result = (address for address in library.memory if address not in before)
    call()
    expected = bytes(library.memory[result])
    session.bound(images[:1])
    ctypes.memset(result, 0xFF, len(expected))
    call()
    assert bytes(library.memory[result]) == expected


def test_a_bound_call_does_nothing_twice(
    library: FakeCudaLibrary,
    model: onnx.ModelProto,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = runtime_on(library)
    context = runtime.module.IExecutionContext
    asked: list[str] = []

    def spied(name: str) -> Callable[..., bool]:
        real = getattr(context, name)

        def call(*arguments: Any) -> bool:
            asked.append(name)
            return bool(real(*arguments))

        return call

    for name in ("set_input_shape", "set_tensor_address", "execute_async_v3"):
        monkeypatch.setattr(context, name, spied(name))
    call = runtime.load(runtime.build(model)).bound(images)
    call()
    asked.clear()
    call()
    call()
    assert asked == ["execute_async_v3", "execute_async_v3"]


def test_an_inference_that_is_not_taken(
    library: FakeCudaLibrary,
    model: onnx.ModelProto,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = runtime_on(library)
    session = runtime.load(runtime.build(model))
    context = runtime.module.IExecutionContext
    for why in ("too hot", "too cold"):  # each says its own reason alone
        monkeypatch.setattr(context, "execute_async_v3", lambda self, _, why=why: self._refuse(why))
        with pytest.raises(DeviceError, match=f"^tensorrt {ELEVEN}: {why}$"):
            session.run(images)


def test_memory_goes_with_what_used_it(
    library: FakeCudaLibrary, model: onnx.ModelProto, images: np.ndarray
) -> None:
    session = (runtime := runtime_on(library)).load(runtime.build(model))
    session.run(images)
    held = len(library.memory)
    session.run(images)
    assert len(library.memory) == held
    call = session.bound(images)
    assert len(library.memory) == 2 * held
    del call
    gc.collect()
    assert len(library.memory) == held
    del session
    gc.collect()
    assert not library.memory


@pytest.mark.parametrize("first", ["call", "run"])
def test_another_thread_may_run_it(
    library: FakeCudaLibrary, model: onnx.ModelProto, images: np.ndarray, first: str
) -> None:
    """Its first step enters the GPU's context, whichever it is."""
    session = (runtime := runtime_on(library)).load(runtime.build(model))
    expected, call, found = session.run(images), session.bound(images), []

    def work() -> None:
        if first == "call":
            call()
        found.append(session.run(images))
        call()
        found.append(None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(found) == 2
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize("function", ["cuMemAlloc_v2", "cuMemcpyHtoDAsync_v2"])
def test_a_gpu_that_fails(
    library: FakeCudaLibrary, model: onnx.ModelProto, images: np.ndarray, function: str
) -> None:
    session = (runtime := runtime_on(library)).load(runtime.build(model))
    library.failures[function] = 700
    with pytest.raises(DeviceError, match=f"cuda: {function}: error 700, an illegal memory"):
        session.run(images)


def test_no_room_on_the_gpu(model: onnx.ModelProto, images: np.ndarray) -> None:
    library = FakeCudaLibrary(room=1000)
    session = (runtime := runtime_on(library)).load(runtime.build(model))
    with pytest.raises(DeviceError, match="out of memory"):
        session.run(images)
