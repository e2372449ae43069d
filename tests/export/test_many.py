"""Many subnets at once: all that can be exported are, whole, whatever becomes of the others."""

import importlib
import multiprocessing.spawn
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ofa_deploy.errors import (
    DeviceError,
    GateError,
    InputError,
    MismatchError,
    MissingDependencyError,
    NoisyDeviceError,
    OfaDeployError,
    UnknownNameError,
    WeightsError,
)
from ofa_deploy.export import (
    Bundle,
    ExportJob,
    ExportOptions,
    Manifest,
    export_many,
    get_target,
)
from ofa_deploy.runtimes.trt.settings import EngineSettings

bundle_module: Any = importlib.import_module("ofa_deploy.export.bundle")
side_module: Any = importlib.import_module("ofa_deploy.export.side_by_side")


@pytest.fixture
def jobs(saved: Any, tmp_path: Path) -> list[ExportJob]:
    """Three of the same subnet; files are all that tells them apart."""
    return [
        ExportJob(saved.write(tmp_path / "subnets" / name), tmp_path / "out" / name)
        for name in ("a", "b", "c")
    ]


class Said:
    """What is told of the work."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tasks: list[str] = []
        self.steps: list[int] = []
        self.notes: list[str] = []
        self.at_work: list[int] = []

    @contextmanager
    def task(self, description: str, total: int, *, done: int = 0) -> Iterator["Said"]:
        self.tasks.append(f"{description}, {total}")
        self.steps.append(0)
        self.at_work.append(len(self.tasks) - 1)
        yield self
        self.at_work.pop()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps[self.at_work[-1]] += steps
        self.notes += [note] * (steps == 0)

    def say(self, message: str) -> None:
        self.lines.append(message)


class Pool:
    """In place of processes: does what it is given at once.

    Attributes:
        open: whether one may be at work.
        dies: the call, counted from 0, in which a process dies.
    """

    open = False
    dies: int | None = None

    def __init__(self, workers: int, context: object, begin: Any, given: Any) -> None:
        begin(*given)
        self.calls = 0

    def __enter__(self) -> "Pool":
        Pool.open = True
        return self

    def __exit__(self, *_: object) -> None:
        Pool.open = False

    def submit(self, call: Any, *args: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        if self.calls == self.dies:
            future.set_exception(BrokenProcessPool("it was killed"))
        else:
            future.set_result(call(*args))
        self.calls += 1
        return future

    def shutdown(self, **_: object) -> None:
        pass


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> type[Pool]:
    monkeypatch.setattr(side_module, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(side_module, "end_with_parent", lambda: None)  # there is no process
    monkeypatch.setattr(side_module, "_shared", None)  # to be as before, when it is done
    monkeypatch.setattr(Pool, "dies", None)
    return Pool


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.mark.parametrize("workers", [1, 2])
def test_one_bad_subnet_does_not_cost_the_others(
    saved: Any, jobs: list[ExportJob], tmp_path: Path, workers: int
) -> None:
    weights = jobs[1].subnet.with_name("b.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"b.subnet.json: .*SHA-256 differs") as error:
        export_many(jobs, saved.test, workers=workers)
    assert "\n" not in str(error.value)
    assert left(tmp_path / "out") == {"a", "c"}
    for name in ("a", "c"):
        bundle = Bundle.read(tmp_path / "out" / name)
        assert bundle.rerun(saved.test)["onnx"].verdict == "holds"


def test_several_failures_are_counted(saved: Any, jobs: list[ExportJob], tmp_path: Path) -> None:
    for job in jobs[1:]:
        job.subnet.unlink()
    said = Said()
    counted = r"b.subnet.json: .* \(2 of 3 were not exported: b, c; exported: a\)$"
    with pytest.raises(InputError, match=counted) as error:
        export_many(jobs, saved.test, progress=said)
    assert "\n" not in str(error.value)
    assert left(tmp_path / "out") == {"a"}
    assert [line.partition(": ")[0] for line in said.lines] == ["b", "c"]
    assert all("not exported: " in line and ".subnet.json" in line for line in said.lines)


def test_no_bundle_of_several_is_told(saved: Any, jobs: list[ExportJob]) -> None:
    for job in jobs[:2]:
        job.subnet.unlink()
    with pytest.raises(InputError, match=r"\(2 of 2 were not exported: a, b; exported: none\)$"):
        export_many(jobs[:2], saved.test)


def test_many_names_are_cut_short(saved: Any, tmp_path: Path) -> None:
    jobs = [ExportJob(tmp_path / f"{i}.subnet.json", tmp_path / "out" / str(i)) for i in range(30)]
    with pytest.raises(InputError, match=r"exported: 0, 1, .*, 9 and 20 more; exported: none\)$"):
        export_many(jobs, saved.test)


def test_failure_of_a_single_subnet_is_told_once(saved: Any, jobs: list[ExportJob]) -> None:
    jobs[0].subnet.unlink()
    said = Said()
    with pytest.raises(InputError, match=r"no such file or folder$"):
        export_many(jobs[:1], saved.test, progress=said)
    assert said.lines == []


def test_manifests_come_in_the_order_of_the_jobs(saved: Any, jobs: list[ExportJob]) -> None:
    made = export_many(jobs, saved.test, options=ExportOptions(test_images=20))
    assert [type(each) for each in made] == [Manifest] * 3
    for job, manifest in zip(jobs, made, strict=True):
        assert Bundle.read(job.out).manifest == manifest
        accuracy = manifest.targets["onnx"].accuracy
        assert accuracy is not None and accuracy.images == 20


def test_timing_waits_until_a_bundle_is_built_and_may_fail(
    saved: Any, jobs: list[ExportJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(files: Any, twins: Any, *, threads: int, progress: object) -> None:
        assert (set(files), twins) == ({"onnx", "onnx-fp16"}, {"onnx-fp16": "onnx"})
        raise DeviceError("the clock stopped")

    monkeypatch.setattr(bundle_module, "time_files", fail)
    options = ExportOptions(targets=("onnx-fp16",))
    with pytest.raises(DeviceError, match="the clock stopped"):
        export_many(jobs[:1], saved.test, options=options)
    assert left(tmp_path / "out") == set()


def test_nothing_is_timed_while_others_are_built(
    saved: Any, jobs: list[ExportJob], pool: type[Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    draft, time_files = side_module.draft, bundle_module.time_files

    def build(*args: Any) -> Any:
        assert pool.open
        events.append("built")
        return draft(*args)

    def clock(*args: Any, **options: Any) -> Any:
        assert not pool.open
        events.append("timed")
        return time_files(*args, **options)

    monkeypatch.setattr(side_module, "draft", build)
    monkeypatch.setattr(bundle_module, "time_files", clock)
    said = Said()
    export_many(jobs, saved.test, workers=2, progress=said)
    assert events == ["built"] * 3 + ["timed"] * 3
    assert said.tasks == ["build 3 subnets, 3", "export 3 subnets, 3"]
    assert said.steps == [3, 3]


def test_what_takes_long_is_told(
    saved: Any, jobs: list[ExportJob], calibration: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ofa_deploy.export.sensitivity._GOAL_DB", 1e9)
    monkeypatch.setattr("ofa_deploy.export.sensitivity._SHARE", 1.0)
    said = Said()
    options = ExportOptions(targets=("ort-int8",))
    export_many(jobs[:1], saved.test, calibration=calibration, options=options, progress=said)
    blocks = len(saved.record.search_space.lower_named(saved.record.network.arch))
    assert said.tasks == [
        "export a, 1",
        "build, 1",
        f"blocks in INT8, one alone, {blocks}",
        "blocks left in float32, 8",
        "compare 270 test images, 2",
    ]
    assert said.steps == [1, 1, blocks, min(blocks, 8), 2]
    assert said.notes == ["ort-int8", "onnx, to compare with"]


def test_process_that_dies_does_not_cost_what_others_have_built(
    saved: Any, jobs: list[ExportJob], pool: type[Pool], tmp_path: Path
) -> None:
    pool.dies = 1
    with pytest.raises(DeviceError, match=r"b.subnet.json: a process .* exported: a, c\)$"):
        export_many(jobs, saved.test, workers=2)
    assert left(tmp_path / "out") == {"a", "c"}
    Bundle.read(tmp_path / "out" / "c")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interruption_leaves_what_was_finished_and_nothing_else(
    saved: Any,
    jobs: list[ExportJob],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    real = side_module.draft

    def draft(subnet: Path, *args: Any) -> Any:
        if subnet.name == "b.subnet.json":
            raise error
        return real(subnet, *args)

    monkeypatch.setattr(side_module, "draft", draft)
    with pytest.raises(error):
        export_many(jobs, saved.test)
    assert left(tmp_path / "out") == {"a"}
    Bundle.read(tmp_path / "out" / "a")


def die(*_: Any) -> None:
    os._exit(9)


def test_process_that_dies_is_one_line(
    saved: Any, jobs: list[ExportJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_module, "_draft", die)
    with pytest.raises(DeviceError, match="a process that exports died") as error:
        export_many(jobs, saved.test, workers=2)
    assert "\n" not in str(error.value)
    assert left(tmp_path / "out") == set()


def test_process_that_dies_before_it_has_read_anything_is_not_waited_for(
    saved: Any, jobs: list[ExportJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where memory runs out while it imports; images are more than a pipe holds."""
    dies = tmp_path / "dies"
    tracker = f'case "$*" in *resource_tracker*) exec \'{sys.executable}\' "$@" ;; esac'
    dies.write_text(f"#!/bin/sh\n{tracker}\nexit 9\n")
    dies.chmod(0o755)
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(dies))
    assert saved.test.images.nbytes > 2**17
    failed: list[OfaDeployError] = []

    def export() -> None:
        try:
            export_many(jobs, saved.test, workers=2)
        except OfaDeployError as error:
            failed.append(error)

    exporting = threading.Thread(target=export, daemon=True)
    exporting.start()
    exporting.join(60)
    assert not exporting.is_alive(), "it waits for a process that is gone"
    assert "a process that exports died" in str(failed[0])
    assert left(tmp_path / "out") == set()


def test_two_subnets_of_one_folder_are_refused(saved: Any, tmp_path: Path) -> None:
    jobs = [ExportJob(saved.path, tmp_path / "x"), ExportJob(saved.path, tmp_path / "." / "x")]
    with pytest.raises(InputError, match="one folder for several"):
        export_many(jobs, saved.test)


def test_what_is_there_is_seen_before_anything_is_built(
    saved: Any, jobs: list[ExportJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs[2].out.mkdir(parents=True)
    monkeypatch.setattr(side_module, "draft", die)
    with pytest.raises(InputError, match="c exists; name another folder"):
        export_many(jobs, saved.test)
    with pytest.raises(UnknownNameError):
        export_many(jobs[:2], saved.test, options=ExportOptions(targets=("onnx", "onx")))


WIDE = EngineSettings(batches=(8, 16, 32))


@pytest.mark.parametrize(
    ("absent", "options", "message"),
    [
        ("openvino", {"targets": ("onnx", "openvino-int8")}, "openvino is not installed"),
        ("nncf", {"targets": ("ort-int8", "openvino-int8")}, "nncf is not installed"),
        ("tensorrt_rtx", {"targets": ("tensorrt-rtx",)}, "tensorrt_rtx is not installed"),
        (
            "",
            {"targets": ("tensorrt-rtx-fp16",), "capabilities": ("8.7",)},
            "no engine for compute capability '8.7'; accepted: 8.0",
        ),
        (
            "",
            {"targets": ("onnx", "tensorrt-rtx"), "engine": EngineSettings(hardware="ampere+")},
            "hardware and version compatibility need a GPU",
        ),
        (
            "",
            {"targets": ("onnx", "tensorrt-int8"), "engine": WIDE},
            "tensorrt-int8: expected a least batch of 1, found 8: .* take batches 1,16,32, or",
        ),
        ("", {"targets": ("tensorrt-rtx",), "engine": WIDE}, "expected a least batch of 1"),
    ],
)
def test_what_cannot_be_had_is_told_before_anything_is_built(
    saved: Any,
    jobs: list[ExportJob],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    absent: str,
    options: dict[str, Any],
    message: str,
) -> None:
    def find(name: str, *, extra: str) -> Any:
        if name == absent:
            raise MissingDependencyError(f"{name} is not installed: 'ofa-deploy[{extra}]'")
        return SimpleNamespace(__version__="2099.1", __name__=name, ComputeCapability=None)

    def unreached(*_: Any) -> None:
        raise AssertionError("something was built")

    for module in ("openvino_library", "tensorrt"):
        monkeypatch.setattr(f"ofa_deploy.runtimes.{module}.optional_import", find)
    monkeypatch.setattr(side_module, "draft", unreached)
    with pytest.raises((InputError, MissingDependencyError), match=message) as error:
        export_many(jobs, saved.test, options=ExportOptions(**options))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_engines_of_a_fixed_batch_have_no_least_one() -> None:
    get_target("tensorrt").check(ExportOptions(batch=8, engine=WIDE))


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (UnknownNameError("target", "x", ["y"]), InputError),
        (WeightsError("what", missing=["a"]), MismatchError),
        (GateError("differs"), GateError),
        (NoisyDeviceError("noise"), DeviceError),
    ],
)
def test_errors_keep_their_kind_between_processes(
    monkeypatch: pytest.MonkeyPatch, raised: OfaDeployError, kind: type[OfaDeployError]
) -> None:
    """Pickled as a message alone, whatever they were made of."""

    def fail(*_: Any) -> None:
        raise raised

    monkeypatch.setattr(side_module, "draft", fail)
    monkeypatch.setattr(side_module, "_shared", (None, None, None))
    found = side_module._draft(Path("a"), Path("b"))
    assert type(found) is kind
    again = type(found)(*found.args)
    assert (str(again), again.exit_code) == (str(raised), raised.exit_code)
