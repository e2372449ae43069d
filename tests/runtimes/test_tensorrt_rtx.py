"""TensorRT for RTX: real builds, wherever its package is installed; no GPU is needed."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ofa_deploy.errors import DeviceError, InputError, MissingDependencyError
from ofa_deploy.graph import build_empty
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.runtimes.tensorrt_rtx import ACCEPTED, TensorRtRtx, parse_capability
from ofa_deploy.runtimes.trt.artefact import read_plan, unpack, write_plan
from ofa_deploy.runtimes.trt.cuda import Cuda, gpu
from ofa_deploy.runtimes.trt.graphs import with_precision
from ofa_deploy.runtimes.trt.settings import EngineSettings
from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.tensorrt_fake import fake_tensorrt

RTX = "1.7.1.116"


@pytest.fixture
def _installed() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'ofa-deploy[tensorrt-rtx]'")


real = pytest.mark.usefixtures("_installed")


@real
@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
def test_an_engine_is_built_for_a_capability(model: onnx.ModelProto, capability: str) -> None:
    runtime = TensorRtRtx([capability])
    record, plan = unpack(runtime.build(model))
    assert record.capabilities == (parse_capability(capability),)
    assert (record.runtime, record.version) == ("tensorrt-rtx", runtime.version)
    assert record.onnx_sha256 == hashlib.sha256(model.SerializeToString()).hexdigest()
    assert (record.gpu, record.machine) == ("", "")
    assert plan[:4] == b"vtrt"
    assert len(plan) > 50_000


@real
def test_one_engine_holds_several_capabilities(model: onnx.ModelProto) -> None:
    alone = [unpack(TensorRtRtx([c]).build(model))[1] for c in ("8.6", "12.0")]
    record, both = unpack(TensorRtRtx(["12.0", "8.6"]).build(model))
    assert record.capabilities == ((8, 6), (12, 0))
    first, second = (plan[32] for plan in alone)  # a bit a capability, in 1.7
    assert first != second
    assert both[32] == first | second


@real
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_is_built(
    model: onnx.ModelProto, images: np.ndarray, precision: str, capfd: pytest.CaptureFixture[str]
) -> None:
    record, plan = unpack(TensorRtRtx(["8.9"]).build(model, precision, [images]))
    ready = with_precision(model, precision, [images]).SerializeToString()
    assert record.precision == precision
    assert record.onnx_sha256 == hashlib.sha256(ready).hexdigest()
    assert len(plan) > 50_000
    assert capfd.readouterr() == ("", "")


@real
def test_builds_of_one_thing_are_known_as_one(model: onnx.ModelProto) -> None:
    """Though their bytes may differ."""
    first, again, other = (
        unpack(TensorRtRtx([capability]).build(model))[0] for capability in ("8.6", "8.6", "8.9")
    )
    assert first.build == again.build != other.build


@real
def test_settings_reach_the_builder(model: onnx.ModelProto) -> None:
    settings = EngineSettings(batches=(1, 4, 8), memory_limit=2**26, optimization_level=1)
    record, plan = unpack(TensorRtRtx(["8.6"], settings).build(model))
    assert record.settings == settings
    assert plan != unpack(TensorRtRtx(["8.6"]).build(model))[1]


@real
def test_what_the_builder_says_is_passed_on(model: onnx.ModelProto, images: np.ndarray) -> None:
    unsigned = get_runtime("onnxruntime").build(model, "int8", [images])
    with pytest.raises(DeviceError, match=r"tensorrt-rtx \d+\.\d+") as error:
        TensorRtRtx(["8.6"]).build_ready(unsigned, "int8")
    assert "\n" not in str(error.value)


@real
def test_an_engine_waits_for_a_gpu(
    tmp_path: Path, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built here, kept as two files, refused where no GPU can run it."""
    runtime = TensorRtRtx(["8.6"])
    write_plan(tmp_path / "net.plan", runtime.build(model))
    gpu.cache_clear()
    monkeypatch.setattr("ofa_deploy.runtimes.trt.cuda.LIBRARY", "libnowhere.so.1")
    with pytest.raises(DeviceError, match="tensorrt-rtx needs an NVIDIA GPU: no NVIDIA driver"):
        runtime.load(read_plan(tmp_path / "net.plan"))


@pytest.mark.parametrize(
    ("text", "capability"),
    [("8.6", (8, 6)), ("86", (8, 6)), ("sm89", (8, 9)), ("SM_120", (12, 0)), (" 12.1 ", (12, 1))],
)
def test_a_capability_is_read(text: str, capability: tuple[int, int]) -> None:
    assert parse_capability(text) == capability


@pytest.mark.parametrize("text", ["7.5", "8.7", "9.0", "10.0", "sm75", "8", "", "8.66", "rtx"])
def test_a_refused_capability_lists_those_there_are(text: str) -> None:
    accepted = "accepted: 8.0, 8.6, 8.9, 12.0, 12.1"
    with pytest.raises(InputError, match=f"no engine for compute capability '{text}'; {accepted}"):
        TensorRtRtx(["8.6", text])


@real
def test_the_accepted_ones_are_those_of_the_library(model: onnx.ModelProto) -> None:
    known = set(TensorRtRtx().module.ComputeCapability.__members__)
    assert known == {"NONE", "CURRENT", "SM75", *(f"SM{a}{b}" for a, b in ACCEPTED)}
    TensorRtRtx([f"{major}.{minor}" for major, minor in ACCEPTED]).build(build_empty())


@pytest.mark.parametrize("capabilities", [[], ["8.6", "86"]])
def test_capabilities_must_differ(capabilities: list[str]) -> None:
    with pytest.raises(InputError, match="expected distinct compute capabilities, found"):
        TensorRtRtx(capabilities)


@pytest.mark.parametrize("settings", [{"hardware": "ampere+"}, {"version_compatible": True}])
def test_what_needs_a_driver_is_not_offered(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="hardware and version compatibility need a GPU"):
        TensorRtRtx(["8.6"], EngineSettings(**settings))


def test_a_library_that_knows_fewer(model: onnx.ModelProto) -> None:
    module = fake_tensorrt(RTX, None, rtx=True)
    with pytest.raises(DeviceError, match=f"tensorrt-rtx {RTX} builds no engine for .* 12.1"):
        TensorRtRtx(["12.1"], module=module).build(model)


def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, model: onnx.ModelProto
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ofa-deploy\[tensorrt-rtx\]'"):
        TensorRtRtx().build(model)


@pytest.mark.parametrize(("capability", "fits"), [((8, 6), True), ((8, 9), False), ((7, 5), False)])
def test_an_engine_runs_on_its_capabilities_alone(
    model: onnx.ModelProto, images: np.ndarray, capability: tuple[int, int], fits: bool
) -> None:
    library = FakeCudaLibrary(capability)
    module = fake_tensorrt(RTX, library, rtx=True)
    runtime = TensorRtRtx(["8.6", "12.0"], module=module, cuda=Cuda(library=library))
    artefact = runtime.build(model)
    if fits:
        expected = get_runtime("onnxruntime").load(model.SerializeToString()).run(images)
        np.testing.assert_allclose(runtime.load(artefact).run(images), expected, rtol=1e-4)
    else:
        with pytest.raises(DeviceError, match="built for compute capability 8.6, 12.0, this is"):
            runtime.load(artefact)
