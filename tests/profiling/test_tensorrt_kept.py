"""Engines that an agent's processes keep for those that follow, and real builds without a GPU."""

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from ofa_deploy.errors import DeviceError
from ofa_deploy.profiling import Subject
from ofa_deploy.profiling.agent.tensorrt import Engines
from ofa_deploy.runtimes import get_runtime, room
from ofa_deploy.runtimes.trt.cuda import Cuda
from ofa_deploy.runtimes.trt.kept import sealed
from ofa_deploy.runtimes.trt.settings import EngineSettings, TimingSettings
from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.tensorrt_fake import VERSIONS, fake_tensorrt

TEN, ELEVEN = VERSIONS


# Engines that are kept


def engines(folder: Path, version: str = ELEVEN, gpu: str = "Fake Orin") -> Engines:
    library = FakeCudaLibrary(name=gpu)
    return Engines(folder, fake_tensorrt(version, library), Cuda(library=library))


@pytest.fixture
def graph(tiny_subjects: dict[str, Subject]) -> bytes:
    return bytes(tiny_subjects["small"].graph.SerializeToString())


ONE = EngineSettings(batches=(1, 1, 1))


def test_a_later_process_finds_the_engine(tmp_path: Path, graph: bytes) -> None:
    plan = engines(tmp_path).plan(graph, ONE)
    later = engines(tmp_path)
    assert later.plan(graph, ONE) == plan
    assert later._trt.builds == []


@pytest.mark.parametrize(
    ("version", "gpu", "settings"),
    [
        (TEN, "Fake Orin", ONE),
        (ELEVEN, "Fake Thor", ONE),
        (ELEVEN, "Fake Orin", EngineSettings(batches=(2, 2, 2))),
        (ELEVEN, "Fake Orin", EngineSettings(batches=(1, 1, 1), optimization_level=5)),
    ],
)
def test_an_engine_of_anything_else_is_another(
    tmp_path: Path, graph: bytes, version: str, gpu: str, settings: EngineSettings
) -> None:
    engines(tmp_path).plan(graph, ONE)
    other = engines(tmp_path, version, gpu)
    other.plan(graph, settings)
    assert len(other._trt.builds) == 1
    assert len([*tmp_path.glob("*.engine")]) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole + b"more",
        lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
        lambda whole: sealed("timing cache 1", b"cache"),
    ],
)
def test_an_engine_that_is_not_whole_is_built_anew(
    tmp_path: Path, graph: bytes, damage: Callable[[bytes], bytes]
) -> None:
    plan = engines(tmp_path).plan(graph, ONE)
    (path,) = tmp_path.glob("*.engine")
    path.write_bytes(damage(path.read_bytes()))
    later = engines(tmp_path)
    assert later.plan(graph, ONE) == plan
    assert len(later._trt.builds) == 1
    last = engines(tmp_path)
    assert last.plan(graph, ONE) == plan
    assert last._trt.builds == []


def test_what_a_killed_process_was_writing_is_not_found(
    tmp_path: Path, graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(handle: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            engines(tmp_path).plan(graph, ONE)
    assert not [*tmp_path.iterdir()]
    assert engines(tmp_path).plan(graph, ONE)
    assert {path.suffix for path in tmp_path.iterdir()} == {".engine", ""}


def test_a_damaged_timing_cache_is_started_anew(tmp_path: Path, graph: bytes) -> None:
    first = engines(tmp_path)
    first.plan(graph, ONE)
    timings = tmp_path / "timings"
    whole = timings.read_bytes()
    timings.write_bytes(whole[:-2])
    later = engines(tmp_path)
    later.plan(graph, EngineSettings(batches=(2, 2, 2)))
    assert later._trt.builds == first._trt.builds
    known = engines(tmp_path)
    known.plan(graph, EngineSettings(batches=(3, 3, 3)))
    assert known._trt.builds == [0]


def test_a_full_disk_keeps_nothing_and_stops_nothing(
    tmp_path: Path, graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert engines(tmp_path).plan(graph, ONE)
    assert not [*tmp_path.iterdir()]
    assert engines(tmp_path / "no" / "such").plan(graph, ONE)


def sized(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(room, "_MOST", most)
    monkeypatch.setattr(room, "_chosen", random.Random(7))


def process(monkeypatch: pytest.MonkeyPatch, folder: Path, graph: bytes, batches: range) -> int:
    """How many engines a process builds that asks for some, one after another."""
    monkeypatch.setattr(room, "_open", set())
    made = engines(folder)
    for batch in batches:
        made.plan(graph, EngineSettings(batches=(batch,) * 3))
    return len(made._trt.builds)


@pytest.fixture
def size(tmp_path: Path, graph: bytes) -> int:
    """Bytes of an engine."""
    engines(tmp_path).plan(graph, ONE)
    (path,) = tmp_path.glob("*.engine")
    return path.stat().st_size


def test_engines_of_one_process_do_not_make_room_for_each_other(
    tmp_path: Path, graph: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten of them, and room for nine: the next process needs them all again."""
    sized(monkeypatch, 9 * size + 100)
    ten = range(1, 11)
    assert [process(monkeypatch, tmp_path, graph, ten) for _ in range(3)] == [9, 1, 1]
    assert len([*tmp_path.glob("*.engine")]) == 9


def test_engines_of_other_processes_make_room_for_some_of_them(
    tmp_path: Path, graph: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that take turns, and room for two thirds of what they need."""
    sized(monkeypatch, 8 * size + 100)
    six, others = range(1, 7), range(7, 13)
    built = [process(monkeypatch, tmp_path, graph, each) for each in (six, others) * 4]
    assert built[:2] == [5, 6]
    assert sum(built[2:]) < 0.9 * 36
    assert len([*tmp_path.glob("*.engine")]) == 8
    assert (tmp_path / "timings").exists()


def test_engines_leave_half_of_the_disk(
    tmp_path: Path, graph: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though what a killed process left is in the way."""
    left = tmp_path / ".left.tmp"
    left.write_bytes(b"x" * 10 * size)
    free = SimpleNamespace(free=2 * size + 100)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    assert process(monkeypatch, tmp_path, graph, range(1, 3)) == 1
    assert len([*tmp_path.glob("*.engine")]) == 2
    assert not left.exists()
    free.free = 0
    assert process(monkeypatch, tmp_path, graph, range(3, 4)) == 1
    assert len([*tmp_path.glob("*.engine")]) == 1


# TensorRT for RTX, which builds without a GPU


@pytest.fixture
def rtx() -> ModuleType:
    module: ModuleType = pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX")
    return module


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_real_builder_takes_what_is_sent(
    rtx: ModuleType, tmp_path: Path, tiny_subjects: dict[str, Subject], precision: str
) -> None:
    images = np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)
    graph = tiny_subjects["small"].graph
    sent = get_runtime("tensorrt-rtx").to_time(graph, precision, [images], batch=4)
    cuda = Cuda(library=FakeCudaLibrary((8, 6), name="Fake RTX"))
    told = TimingSettings.heard(get_runtime("tensorrt-rtx").settings())
    assert told.graph_batch == 0
    assert len(Engines(tmp_path, rtx, cuda).plan(sent, told.engine(4))) > 1000


def test_a_real_build_is_kept(rtx: ModuleType, tmp_path: Path, graph: bytes) -> None:
    cuda = Cuda(library=FakeCudaLibrary((8, 6), name="Fake RTX"))
    plan = Engines(tmp_path, rtx, cuda).plan(graph, ONE)
    assert len(plan) > 1000
    (kept,) = tmp_path.iterdir()
    assert kept.suffix == ".engine"
    assert Engines(tmp_path, rtx, cuda).plan(graph, ONE) == plan  # no two builds are alike
    kept.unlink()
    turing = Cuda(library=FakeCudaLibrary((6, 1)))
    with pytest.raises(DeviceError, match="tensorrt-rtx .* builds no engine for compute cap.*6.1"):
        Engines(tmp_path, rtx, turing).plan(graph, ONE)


def test_a_real_refusal_is_passed_on(rtx: ModuleType, tmp_path: Path) -> None:
    cuda = Cuda(library=FakeCudaLibrary((8, 6)))
    with pytest.raises(DeviceError, match=r"^tensorrt-rtx \d.*") as error:
        Engines(tmp_path, rtx, cuda).plan(b"no graph", ONE)
    assert "\n" not in str(error.value)
    assert not [*tmp_path.iterdir()]
