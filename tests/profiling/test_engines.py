"""Opening models: with the real engines, and with a stand-in of ONNX Runtime on a GPU."""

import os
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
from ofa_deploy.runtimes import get_runtime, room
from tests.runtimes.ort_fake import FakeOrt

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
    with pytest.raises(EngineError, match="onnxruntime.*tensorrt-rtx, found runtime 'abacus'"):
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
    told["onnxruntime"] = "4.5.6"  # two that agree
    assert versions()["onnxruntime"] == "4.5.6"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("2026.1.0-21000-abc", "2026.1.0"),
        ("1.31.1+cu12", "1.31.1"),
        ("10.13.3.9.post1", "10.13.3.9"),
        ("10.0.0b6", "10.0.0"),
        ("unknown", "unknown"),
    ],
)
def test_labels_of_a_version_do_not_tell_engines_apart(text: str, numbers: str) -> None:
    assert engines._release(text) == numbers


def test_runtimes_are_parts_of_engines() -> None:
    assert engines.engine_of("onnxruntime-cuda") == "onnxruntime"
    assert engines.engine_of("tensorrt-rtx") == "tensorrt-rtx"


# -- a GPU that is not there ----------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeOrt:
    made = FakeOrt("TensorrtExecutionProvider", "CUDAExecutionProvider")
    monkeypatch.setitem(sys.modules, "onnxruntime", made)  # type: ignore[arg-type]
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return made


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model"
    path.write_bytes(b"model")
    return str(path)


def test_images_and_output_stay_on_the_gpu(gpu: FakeOrt, model: str) -> None:
    open_model(model, [2, 3, 4, 4], "onnxruntime-cuda", {})()
    assert gpu.said == [
        ("session", ["CUDAExecutionProvider", "CPUExecutionProvider"]),
        ("in", "image", ((2, 3, 4, 4), "cuda", 0)),
        ("out", "logits", "cuda", 0),
        ("run",),
        ("run",),
    ]


def test_gpu_that_does_not_start_is_no_gpu(gpu: FakeOrt, model: str) -> None:
    """ONNX Runtime itself goes on with the processor and says nothing."""
    gpu.starts = False
    with pytest.raises(EngineError, match=r"1\.99\.0 could not start CUDAExecutionProvider"):
        open_model(model, SHAPE, "onnxruntime-cuda", {})


def test_provider_that_the_package_lacks_is_named(gpu: FakeOrt, model: str) -> None:
    gpu.providers.remove("TensorrtExecutionProvider")
    with pytest.raises(EngineError, match=r"has no TensorrtExecutionProvider; it has CUDA"):
        open_model(model, SHAPE, "onnxruntime-tensorrt", {})


def test_what_fails_in_the_first_inference_is_said(gpu: FakeOrt, model: str) -> None:
    def fail() -> None:
        raise RuntimeError("TensorRT EP failed to build\nan engine")

    gpu.on_run = fail
    with pytest.raises(EngineError, match="^onnxruntime-tensorrt 1.99.0: TensorRT EP .* an engine"):
        open_model(model, SHAPE, "onnxruntime-tensorrt", {})


def test_what_fails_before_the_first_inference_is_said(gpu: FakeOrt, model: str) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory\nsomewhere")

    gpu.OrtValue.ortvalue_from_numpy = fail
    with pytest.raises(EngineError, match="^onnxruntime-cuda 1.99.0: CUDA failure 2: out of mem"):
        open_model(model, SHAPE, "onnxruntime-cuda", {})


def test_what_fails_in_openvinos_first_inference_is_said(
    built: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("Check 'shape'\nfailed")

    request = SimpleNamespace(set_input_tensor=lambda *_: None, infer=fail)
    compiled = SimpleNamespace(create_infer_request=lambda: request)
    real = engines._core()
    core = SimpleNamespace(read_model=real.read_model, compile_model=lambda *_: compiled)
    monkeypatch.setattr(engines, "_core", lambda: core)
    with pytest.raises(EngineError, match="^openvino .* refuses the model: Check 'shape' failed$"):
        open_model(built("openvino"), SHAPE, "openvino", {})


def _built(gpu: FakeOrt) -> int:
    return gpu.said.count(("build",))


def test_engines_of_the_provider_are_kept_for_later_processes(
    gpu: FakeOrt, model: str, tmp_path: Path
) -> None:
    """Each model has a folder: the provider's own names are those of a graph's tensors alone."""
    settings = get_runtime("onnxruntime-tensorrt").settings(1)
    for _ in range(2):
        open_model(model, SHAPE, "onnxruntime-tensorrt", settings)
    assert _built(gpu) == 1
    other = tmp_path / "other"
    other.write_bytes(b"another model")
    open_model(str(other), SHAPE, "onnxruntime-tensorrt", settings)
    open_model(model, [2, 3, 12, 12], "onnxruntime-tensorrt", settings)
    assert _built(gpu) == 3
    timings = gpu.options["TensorrtExecutionProvider"]["trt_timing_cache_path"]
    assert Path(timings).is_relative_to(tmp_path)
    assert Path(timings).is_dir()
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"


def test_an_engine_that_was_not_finished_is_not_found(
    gpu: FakeOrt, model: str, tmp_path: Path
) -> None:
    """A process that is killed in its first inference may leave half of one."""

    def killed() -> None:
        path = gpu.options["TensorrtExecutionProvider"]["trt_engine_cache_path"]
        (Path(path) / "a.engine").write_bytes(b"eng")
        raise RuntimeError

    gpu.on_run = killed
    with pytest.raises(EngineError):
        open_model(model, SHAPE, "onnxruntime-tensorrt", {})
    gpu.on_run = lambda: None
    open_model(model, SHAPE, "onnxruntime-tensorrt", {})
    assert _built(gpu) == 1


def test_what_a_nearly_full_disk_took_is_not_taken_for_whole(
    gpu: FakeOrt, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider does not look whether its writing succeeds; neither engine nor timings stay."""
    free = SimpleNamespace(free=2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    open_model(model, SHAPE, "onnxruntime-tensorrt", {})
    assert not [*(tmp_path / "onnxruntime-engines").iterdir()]
    free.free = 2**30
    for _ in range(2):
        open_model(model, SHAPE, "onnxruntime-tensorrt", {})
    assert _built(gpu) == 2


def test_engines_of_the_provider_make_room_for_others(
    gpu: FakeOrt, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_MOST", 20)  # three engines of 6 bytes
    folder = tmp_path / "onnxruntime-engines"
    for batch in range(1, 6):
        open_model(model, [batch, 3, 4, 4], "onnxruntime-tensorrt", {})
    kept = {path.name for path in folder.iterdir()}
    assert len(kept) == 4
    assert "timings" in kept
    monkeypatch.setattr(room, "_open", set())  # as in another process
    open_model(model, [6, 3, 4, 4], "onnxruntime-tensorrt", {})
    after = {path.name for path in folder.iterdir()}
    assert len(after & kept) == 3
    assert len(after) == 4


def test_gpus_are_counted_as_where_models_are_timed(
    gpu: FakeOrt, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here too, where engines are built: a machine may have several."""
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    open_model(model, SHAPE, "onnxruntime-cuda", {})
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_full_disk_is_no_reason_to_give_up(
    gpu: FakeOrt, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    open_model(model, SHAPE, "onnxruntime-tensorrt", {})
    assert gpu.options["TensorrtExecutionProvider"] == {"device_id": "0"}


def test_images_are_the_same_everywhere(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def bound(runtime: str, path: Path, images: Any, settings: Any) -> Callable[[], None]:
        seen.append(images)
        return lambda: None

    monkeypatch.setattr(engines, "_onnxruntime", bound)
    for _ in range(2):
        open_model(model, SHAPE, "onnxruntime", {})
    assert seen[0].dtype == np.float32
    np.testing.assert_array_equal(seen[0], seen[1])
