"""Opening models: with the real engines, and with a stand-in of ONNX Runtime on a GPU."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ofa_deploy.profiling import Subject
from ofa_deploy.profiling.agent import engines
from ofa_deploy.profiling.agent.engines import EngineError, open_model, version, versions
from ofa_deploy.runtimes import get_runtime

SHAPE = [1, 3, 12, 12]


@pytest.fixture
def built(tiny_subjects: dict[str, Subject], tmp_path: Path) -> Callable[[str], str]:
    def build(runtime: str) -> str:
        path = tmp_path / f"{runtime}.model"
        path.write_bytes(get_runtime(runtime).build(tiny_subjects["small"].graph))
        return str(path)

    return build


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_real_engines_open_what_was_built_for_them(
    built: Callable[[str], str], runtime: str
) -> None:
    engine = get_runtime(runtime)
    call = open_model(built(runtime), SHAPE, runtime, engine.settings(1))
    call()
    assert version(runtime) == engine.version
    assert versions()[runtime] == engine.version


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_settings_reach_the_engine(built: Callable[[str], str], runtime: str) -> None:
    """A setting that no engine has is refused by it."""
    with pytest.raises(EngineError, match="NO_SUCH_SETTING"):
        open_model(built(runtime), SHAPE, runtime, {"NO_SUCH_SETTING": "x"})


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_rubbish_is_refused_in_one_line(tmp_path: Path, runtime: str) -> None:
    path = tmp_path / "rubbish"
    path.write_bytes(b"rubbish" * 100)
    with pytest.raises(EngineError, match=f"{runtime} .* refuses the model") as error:
        open_model(str(path), SHAPE, runtime, {})
    assert "\n" not in str(error.value)


def test_openvino_takes_only_a_zip_of_its_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: Callable[[str], str]
) -> None:
    monkeypatch.setattr(engines, "_MAX_BYTES", 10)
    with pytest.raises(EngineError, match="larger than 2 GiB"):
        open_model(built("openvino"), SHAPE, "openvino", {})


def test_unknown_runtime_is_refused(built: Callable[[str], str]) -> None:
    with pytest.raises(EngineError, match="onnxruntime.*openvino, found runtime 'abacus'"):
        open_model(built("onnxruntime"), SHAPE, "abacus", {})


def test_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match="openvino cannot be imported"):
        version("openvino")


def test_version_comes_from_the_module_where_two_packages_claim_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"onnxruntime": "1.2.3", "onnxruntime-gpu": "4.5.6"}
    monkeypatch.setattr(engines, "_package_version", lambda package: told.get(package, ""))
    assert versions()["onnxruntime"] == get_runtime("onnxruntime").version
    del told["onnxruntime"]
    assert versions()["onnxruntime"] == "4.5.6"


# -- a GPU that is not there ----------------------------------------------------------------


class FakeGpu:
    """ONNX Runtime with CUDA, as far as it is used.

    Args:
        starts: whether CUDA can be started.
    """

    __version__ = "1.99.0"

    def __init__(self, starts: bool = True) -> None:
        self.starts, self.said = starts, []  # type: ignore[var-annotated]
        self.OrtValue = SimpleNamespace(
            ortvalue_from_numpy=lambda images, device, number: (images.shape, device, number)
        )
        self.GraphOptimizationLevel = SimpleNamespace(ORT_ENABLE_ALL="all")
        self.SessionOptions = SimpleNamespace

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, model: bytes, options: Any, providers: list[str]) -> Any:
        self.said.append(("session", providers))
        session = SimpleNamespace(
            get_providers=lambda: providers if self.starts else providers[1:],
            get_inputs=lambda: [SimpleNamespace(name="image")],
            get_outputs=lambda: [SimpleNamespace(name="logits")],
            io_binding=lambda: SimpleNamespace(
                bind_ortvalue_input=lambda *said: self.said.append(("in", *said)),
                bind_output=lambda *said: self.said.append(("out", *said)),
            ),
            run_with_iobinding=lambda _: self.said.append(("run",)),
        )
        return session


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    made = FakeGpu()
    monkeypatch.setattr(engines, "_module", lambda runtime: made)
    return made


def test_images_and_output_stay_on_the_gpu(gpu: FakeGpu, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"")
    open_model(str(path), [2, 3, 4, 4], "onnxruntime-cuda", {})()
    assert gpu.said == [
        ("session", ["CUDAExecutionProvider", "CPUExecutionProvider"]),
        ("in", "image", ((2, 3, 4, 4), "cuda", 0)),
        ("out", "logits", "cuda"),
        ("run",),
        ("run",),
    ]


def test_gpu_that_does_not_start_is_no_gpu(gpu: FakeGpu, tmp_path: Path) -> None:
    """ONNX Runtime itself goes on with the processor and says nothing."""
    gpu.starts = False
    path = tmp_path / "model"
    path.write_bytes(b"")
    with pytest.raises(EngineError, match=r"1\.99\.0 could not start CUDAExecutionProvider"):
        open_model(str(path), SHAPE, "onnxruntime-cuda", {})


def test_provider_that_the_package_lacks_is_named(gpu: FakeGpu, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"")
    with pytest.raises(EngineError, match=r"has no TensorrtExecutionProvider; it has CUDA"):
        open_model(str(path), SHAPE, "onnxruntime-tensorrt", {})


def test_images_are_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def bound(artefact: bytes, images: Any, *_: Any) -> Callable[[], None]:
        seen.append(images)
        return lambda: None

    monkeypatch.setattr(engines, "_onnxruntime", bound)
    path = tmp_path / "model"
    path.write_bytes(b"")
    for _ in range(2):
        open_model(str(path), SHAPE, "onnxruntime", {})
    assert seen[0].dtype == np.float32
    np.testing.assert_array_equal(seen[0], seen[1])
