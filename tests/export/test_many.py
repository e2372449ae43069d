"""Many subnets at once: all that can be exported are, whole, whatever becomes of the others."""

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.errors import (
    DeviceError,
    GateError,
    InputError,
    MismatchError,
    NoisyDeviceError,
    OfaDeployError,
    UnknownNameError,
    WeightsError,
)
from ofa_deploy.export import Bundle, ExportJob, ExportOptions, Manifest, export_many

bundle_module: Any = importlib.import_module("ofa_deploy.export.bundle")


@pytest.fixture
def jobs(saved: Any, tmp_path: Path) -> list[ExportJob]:
    """Three of the same subnet; files are all that tells them apart."""
    return [
        ExportJob(saved.write(tmp_path / "subnets" / name), tmp_path / "out" / name)
        for name in ("a", "b", "c")
    ]


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
    with pytest.raises(InputError, match=r"b.subnet.json: .* \(2 of 3 were not exported\)$"):
        export_many(jobs, saved.test)
    assert left(tmp_path / "out") == {"a"}


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
    def fail(files: Any, twins: Any, *, threads: int) -> None:
        assert (set(files), twins) == ({"onnx", "onnx-fp16"}, {"onnx-fp16": "onnx"})
        raise DeviceError("the clock stopped")

    monkeypatch.setattr(bundle_module, "time_files", fail)
    options = ExportOptions(targets=("onnx-fp16",))
    with pytest.raises(DeviceError, match="the clock stopped"):
        export_many(jobs[:1], saved.test, options=options)
    assert left(tmp_path / "out") == set()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interruption_leaves_what_was_finished_and_nothing_else(
    saved: Any,
    jobs: list[ExportJob],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    real = bundle_module.draft

    def draft(subnet: Path, *args: Any) -> Any:
        if subnet.name == "b.subnet.json":
            raise error
        return real(subnet, *args)

    monkeypatch.setattr(bundle_module, "draft", draft)
    with pytest.raises(error):
        export_many(jobs, saved.test)
    assert left(tmp_path / "out") == {"a"}
    Bundle.read(tmp_path / "out" / "a")


def die(*_: Any) -> None:
    os._exit(9)


def test_process_that_dies_is_one_line(
    saved: Any, jobs: list[ExportJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "_draft", die)
    monkeypatch.setattr(bundle_module, "_begin", int)
    with pytest.raises(DeviceError, match="a process that exports died") as error:
        export_many(jobs, saved.test, workers=2)
    assert "\n" not in str(error.value)
    assert left(tmp_path / "out") == set()


def test_two_subnets_of_one_folder_are_refused(saved: Any, tmp_path: Path) -> None:
    jobs = [ExportJob(saved.path, tmp_path / "x"), ExportJob(saved.path, tmp_path / "." / "x")]
    with pytest.raises(InputError, match="one folder for several"):
        export_many(jobs, saved.test)


def test_what_is_there_is_seen_before_anything_is_built(
    saved: Any, jobs: list[ExportJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs[2].out.mkdir(parents=True)
    monkeypatch.setattr(bundle_module, "draft", die)
    with pytest.raises(InputError, match="c exists; name another folder"):
        export_many(jobs, saved.test)
    with pytest.raises(UnknownNameError):
        export_many(jobs[:2], saved.test, options=ExportOptions(targets=("onnx", "onx")))


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

    monkeypatch.setattr(bundle_module, "draft", fail)
    monkeypatch.setattr(bundle_module, "_shared", (None, None, None))
    found = bundle_module._draft(Path("a"), Path("b"))
    assert type(found) is kind
    again = type(found)(*found.args)
    assert (str(again), again.exit_code) == (str(raised), raised.exit_code)
