"""Files timed in turns: one real process, and what is said of made-up answers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ofa_deploy.errors import DeviceError
from ofa_deploy.export import get_target, timing
from ofa_deploy.export.timing import TimedFile, time_files
from ofa_deploy.profiling import Protocol

TWINS = {"ort-int8": "onnx", "openvino-fp16": "openvino"}


@pytest.fixture
def files(whole: Any, tmp_path: Path) -> dict[str, TimedFile]:
    """What three engines load, of a real bundle."""
    made = {}
    for name in ("onnx", "ort-int8", "openvino", "openvino-fp16"):
        record = whole.manifest.targets[name]
        data = {file: (whole.folder / file).read_bytes() for file in record.files}
        path = tmp_path / f"{name}.artefact"
        path.write_bytes(get_target(name).artefact(data))
        made[name] = TimedFile.of(name, path, record.input, side=16)
    return made


def test_real_files_are_timed_in_turns(files: dict[str, TimedFile]) -> None:
    protocol = Protocol(rounds=3, runs=3, processes=1, tolerance=1e9)
    found = time_files(files, TWINS, protocol=protocol)
    assert found.keys() == files.keys()
    for name, each in found.items():
        assert 0 < each.ms < 1000 and each.p50 <= each.p90 <= each.p99
        assert (each.batch, each.threads, each.processes, each.spread) == (1, 1, 1, 0.0)
        assert (each.twin_ratio is None) == (name not in TWINS)
    assert 0.2 < found["onnx"].ratio < 5, "the reference, timed against itself"
    ratio = found["openvino-fp16"].ratio / found["openvino"].ratio
    assert found["openvino-fp16"].twin_ratio == pytest.approx(ratio)


def test_files_that_cannot_be_loaded_end_in_one_line(
    files: dict[str, TimedFile], tmp_path: Path
) -> None:
    (tmp_path / "ort-int8.artefact").write_bytes(b"rubbish")
    with pytest.raises(DeviceError, match="a measuring process failed: onnxruntime") as error:
        time_files(files, TWINS, protocol=Protocol(rounds=1, processes=1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("takes", "shape"),
    [
        (("batch", 3, 12, 12), (1, 3, 12, 12)),
        ((4, 3, 12, 12), (4, 3, 12, 12)),
        (("batch", "height", "width", 3), (1, 20, 20, 3)),
        ((2, "height", "width", 3), (2, 20, 20, 3)),
    ],
)
def test_free_dimensions_are_filled(whole: Any, takes: Any, shape: Any) -> None:
    given = whole.manifest.targets["onnx"].input.model_copy(update={"shape": takes})
    assert TimedFile.of("onnx", Path("a"), given, side=20).shape == shape


def test_an_engine_that_brings_its_clock_is_timed_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where latency tables come from; files as deployed are timed by the host's."""
    shapes: list[Any] = []
    session = SimpleNamespace(
        run=lambda images: np.zeros((1, 4), np.float32),
        timed=lambda images: shapes.append(images.shape) or (lambda: 0.125),
    )
    target = SimpleNamespace(runtime="tensorrt", load=lambda artefact, threads: session)
    monkeypatch.setattr(timing, "get_target", lambda name: target)
    spins: list[bool] = []
    monkeypatch.setattr(timing, "gpu", lambda *, spin: spins.append(spin))
    (tmp_path / "plan").touch()
    file = {"target": "tensorrt", "artefact": tmp_path / "plan", "deployed": None}
    call = timing._call({**file, "shape": (2, 3, 8, 8), "dtype": "float32"}, threads=1)
    assert call() == 0.125
    assert shapes == [(2, 3, 8, 8)]
    assert spins == [True]


# -- answers --------------------------------------------------------------------------------


def figures(ratio: float, p10: float = 1.0) -> dict[str, float]:
    return {"ratio": ratio, "p10": p10, "p50": 1.1, "p90": 1.2, "p99": 1.3}


def answering(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any]) -> list[dict[str, Any]]:
    """Processes that answer so, one after another; returns the jobs they were given."""
    jobs: list[dict[str, Any]] = []
    left = list(answers)

    def run_worker(job: dict[str, Any], names: Any, **options: Any) -> Any:
        assert options["module"] == "ofa_deploy.export.timing"
        assert set(names) == {"onnx", "ort-int8"}
        jobs.append(job)
        return left.pop(0)

    monkeypatch.setattr(timing, "run_worker", run_worker)
    return jobs


FILES = {
    name: TimedFile(name, Path(name), (1, 3, 8, 8), "float32") for name in ("onnx", "ort-int8")
}  # fmt: skip


def result(int8: float, onnx: float = 1.0, p10: float = 2.0) -> dict[str, Any]:
    return {
        "result": {"": figures(1.0, p10), "onnx": figures(onnx), "ort-int8": figures(int8)}
    }  # fmt: skip


def test_medians_over_processes_at_the_fastest_level(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [result(0.8, p10=3.0), result(0.5, 0.9), result(0.9, 1.1)]
    jobs = answering(monkeypatch, *answers)
    found = time_files(FILES, {"ort-int8": "onnx"}, threads=2)["ort-int8"]
    assert found.ratio == 0.8
    assert found.ms == pytest.approx(0.8 * 2.0)
    assert found.spread == pytest.approx((0.9 - 0.5) / 0.8)
    assert found.twin_ratio == pytest.approx(0.8)
    assert found.threads == 2
    assert [job["threads"] for job in jobs] == [2, 2, 2]
    assert jobs[0]["files"]["onnx"] == {
        "target": "onnx",
        "artefact": "onnx",
        "shape": (1, 3, 8, 8),
        "dtype": "float32",
        "deployed": None,
    }
