"""What becomes of engines, records and timing caches that are damaged, or of somewhere else."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.errors import (
    DeviceError,
    FileFormatError,
    InputError,
)
from ofa_deploy.graph import build_empty
from ofa_deploy.runtimes import tensorrt as tensorrt_module
from ofa_deploy.runtimes.tensorrt import TensorRt
from ofa_deploy.runtimes.trt import artefact as artefact_module
from ofa_deploy.runtimes.trt.artefact import EngineRecord, pack, read_plan, unpack, write_plan
from ofa_deploy.runtimes.trt.cuda import gpu
from ofa_deploy.runtimes.trt.settings import EngineSettings
from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.tensorrt_fake import VERSIONS, fake_tensorrt, runtime_on

TEN, ELEVEN = VERSIONS


# What may come to the loader: it never hands TensorRT what would crash it (Crash is no Exception)


def test_without_a_gpu_tensorrt_is_not_called(
    library: FakeCudaLibrary, model: onnx.ModelProto, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact = runtime_on(library, version).build(model)
    gpu.cache_clear()
    monkeypatch.setattr("ofa_deploy.runtimes.trt.cuda.LIBRARY", "libnowhere.so.1")
    bare = TensorRt(module=fake_tensorrt(version, None))
    message = "tensorrt needs an NVIDIA GPU: no NVIDIA driver here"
    with pytest.raises(DeviceError, match=message):
        bare.load(artefact)
    with pytest.raises(DeviceError, match=message):
        bare.build(model)
    assert message in (bare.why_not() or "")


@pytest.fixture(scope="module")
def built() -> tuple[TensorRt, bytes]:
    runtime = runtime_on(FakeCudaLibrary())
    return runtime, runtime.build(build_empty())


@given(data=st.data())
def test_a_changed_byte_is_refused_or_means_nothing(
    built: tuple[TensorRt, bytes], data: st.DataObject
) -> None:
    runtime, artefact = built
    position = data.draw(st.integers(0, len(artefact) - 1))
    other = data.draw(st.integers(1, 255))
    changed = bytearray(artefact)
    changed[position] ^= other
    one = np.ones((1, 1), np.float32)
    try:
        session = runtime.load(bytes(changed))
    except DeviceError as error:
        assert "\n" not in str(error)
    else:  # such as the date of a part
        np.testing.assert_array_equal(session.run(one), one)


def _changed(artefact: bytes, **changes: Any) -> bytes:
    record, plan = unpack(artefact)
    return pack(record.model_copy(update=changes), plan)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "the engine is damaged or not the one its record names"),
        ({"size": 7}, "the engine is damaged or not the one its record names: expected 7 bytes"),
        ({"runtime": "tensorrt-rtx"}, "built for runtime tensorrt-rtx, this is tensorrt;"),
        ({"version": TEN}, f"built for version {TEN}, this is {ELEVEN}; build it anew"),
        ({"machine": "linux-riscv64"}, "built for machine linux-riscv64, this is "),
        ({"capabilities": ((8, 6), (8, 9))}, "built for compute capability 8.6, 8.9, this is 8.7"),
    ],
)
def test_an_engine_for_something_else(
    built: tuple[TensorRt, bytes], changes: dict[str, Any], message: str
) -> None:
    runtime, artefact = built
    with pytest.raises(DeviceError, match=message):
        runtime.load(_changed(artefact, **changes))


@pytest.mark.parametrize(
    ("hardware", "capability", "fits"),
    [
        ("none", (8, 7), True),
        ("none", (8, 9), False),
        ("ampere+", (8, 9), True),
        ("ampere+", (12, 0), True),
        ("ampere+", (7, 5), False),
        ("sameComputeCapability", (8, 7), True),
        ("sameComputeCapability", (9, 0), False),
    ],
)
def test_hardware_compatibility(
    library: FakeCudaLibrary, hardware: str, capability: tuple[int, int], fits: bool
) -> None:
    built = runtime_on(library, settings=EngineSettings(hardware=hardware)).build(build_empty())
    there = runtime_on(FakeCudaLibrary(capability))
    one = np.ones((1, 1), np.float32)
    if fits:
        np.testing.assert_array_equal(there.load(built).run(one), one)
    else:
        with pytest.raises(DeviceError, match="built for compute capability"):
            there.load(built)


def test_version_compatibility_goes_forward(library: FakeCudaLibrary) -> None:
    settings = EngineSettings(version_compatible=True)
    one = np.ones((1, 1), np.float32)
    old = runtime_on(library, TEN, settings).build(build_empty())
    np.testing.assert_array_equal(runtime_on(library, ELEVEN).load(old).run(one), one)
    new = runtime_on(library, ELEVEN, settings).build(build_empty())
    with pytest.raises(DeviceError, match=f"built for version {ELEVEN}, this is {TEN}"):
        runtime_on(library, TEN).load(new)


# Files


def test_a_plan_and_its_record(tmp_path: Path, built: tuple[TensorRt, bytes]) -> None:
    runtime, artefact = built
    path = tmp_path / "model.plan"
    record = write_plan(path, artefact)
    assert {p.name for p in tmp_path.iterdir()} == {"model.plan", "model.plan.json"}
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record.sha256
    assert read_plan(path) == artefact
    one = np.ones((1, 1), np.float32)
    np.testing.assert_array_equal(runtime.load(read_plan(path)).run(one), one)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x"])
def test_a_plan_that_is_not_its_records(
    tmp_path: Path, built: tuple[TensorRt, bytes], change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "model.plan"
    write_plan(path, built[1])
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FileFormatError, match="model.plan is damaged or not the one its record"):
        read_plan(path)


def test_a_plan_without_a_record(tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"ftrt")
    with pytest.raises(InputError, match="model.plan.json: no such file"):
        read_plan(tmp_path / "model.plan")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", "tensorrt-engine/2", "written by a newer ofa-deploy"),
        ("precision", "int4", "precision: expected"),
        ("sha256", "../../etc/passwd", "sha256: expected text of the form"),
        ("size", -1, "size: expected more than 0"),
        ("settings", {"batches": [3, 2, 1]}, "settings: batches: expected 1 <="),
        ("settings", {"bathces": [1, 1, 1]}, "settings.bathces: Unexpected keyword argument"),
        ("gpus", 2, "gpus: unknown"),
    ],
)
def test_a_record_that_does_not_hold(
    tmp_path: Path, built: tuple[TensorRt, bytes], field: str, value: Any, message: str
) -> None:
    path = tmp_path / "model.plan"
    write_plan(path, built[1])
    record = tmp_path / "model.plan.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), field: value}))
    with pytest.raises(FileFormatError, match=f"model.plan.json: {message}"):
        read_plan(path)


def test_builds_are_told_apart_by_what_was_asked(built: tuple[TensorRt, bytes]) -> None:
    record, _ = unpack(built[1])
    other_bytes = record.model_copy(update={"sha256": "0" * 64, "size": 1})
    assert other_bytes.build == record.build
    changes: list[dict[str, Any]] = [
        {"onnx_sha256": "0" * 64},
        {"settings": replace(record.settings, tf32=True)},
        {"capabilities": ((8, 9),)},
        {"version": TEN},
    ]
    builds = {record.model_copy(update=change).build for change in changes}
    assert len(builds | {record.build}) == 5


def test_a_record_survives_the_disk(built: tuple[TensorRt, bytes]) -> None:
    record, _ = unpack(built[1])
    text = record.model_dump_json(by_alias=True)
    assert EngineRecord.model_validate_json(text) == record
    assert record.machine == artefact_module.machine()


# The timing cache


def test_a_second_build_times_nothing(
    tmp_path: Path, library: FakeCudaLibrary, version: str, model: onnx.ModelProto
) -> None:
    path = tmp_path / "folder" / "timing.cache"
    runtime = runtime_on(library, version, timing_cache=path)
    runtime.build(model)
    first, written = path.read_bytes(), path.stat().st_mtime_ns
    runtime.build(model)
    assert path.stat().st_mtime_ns == written
    assert runtime.module.builds[0] > 5
    assert runtime.module.builds[1:] == [0]
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["timing.cache"]


def test_without_a_cache_each_build_times_all(
    library: FakeCudaLibrary, model: onnx.ModelProto
) -> None:
    runtime = runtime_on(library)
    runtime.build(model)
    runtime.build(model)
    assert runtime.module.builds[0] == runtime.module.builds[1] > 5


@pytest.mark.parametrize(
    "damage", [lambda d: b"", lambda d: d[:-3], lambda d: b"rubbish", lambda d: d[:-1] + b"?"]
)
def test_a_damaged_cache_is_started_anew(
    tmp_path: Path,
    library: FakeCudaLibrary,
    model: onnx.ModelProto,
    damage: Callable[[bytes], bytes],
) -> None:
    path = tmp_path / "timing.cache"
    runtime = runtime_on(library, timing_cache=path)
    runtime.build(model)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    runtime.build(model)
    assert runtime.module.builds[0] == runtime.module.builds[1]
    assert path.read_bytes() == whole


def test_a_cache_of_another_gpu_is_not_used(tmp_path: Path, model: onnx.ModelProto) -> None:
    path = tmp_path / "timing.cache"
    for name in ("Orin", "Thor"):
        runtime = runtime_on(FakeCudaLibrary(name=name), timing_cache=path)
        runtime.build(model)
        assert runtime.module.builds[0] > 5
    assert b"Thor" in path.read_bytes()


def test_a_cache_that_cannot_be_written_loses_no_engine(
    tmp_path: Path, library: FakeCudaLibrary, model: onnx.ModelProto
) -> None:
    (tmp_path / "file").touch()
    runtime = runtime_on(library, timing_cache=tmp_path / "file" / "timing.cache")
    assert unpack(runtime.build(model))[1]
    assert (tmp_path / "file").read_bytes() == b""


def test_a_cache_that_has_grown_too_large_is_started_anew(
    tmp_path: Path,
    library: FakeCudaLibrary,
    model: onnx.ModelProto,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "timing.cache"
    runtime = runtime_on(library, timing_cache=path)
    runtime.build(model)
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 2000)
    monkeypatch.setattr(tensorrt_module, "_MAX_CACHE_BYTES", len(whole) + 1000)
    runtime.build(model)
    assert path.read_bytes() == whole


def test_a_cache_that_is_a_folder(
    tmp_path: Path, library: FakeCudaLibrary, model: onnx.ModelProto
) -> None:
    with pytest.raises(InputError, match="expected a file, found a folder"):
        runtime_on(library, timing_cache=tmp_path).build(model)
