"""TensorRT where models are timed: through an agent in a process of its own, and by its parts."""

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from ofa_deploy.errors import DeviceError
from ofa_deploy.graph import build_empty
from ofa_deploy.profiling import REFERENCE, RemoteTarget, Subject, measure
from ofa_deploy.profiling.agent import tensorrt as carried
from ofa_deploy.profiling.agent.engines import EngineError, open_model, version
from ofa_deploy.profiling.agent.tensorrt import Engines
from ofa_deploy.profiling.remote.bundle import agent_source
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.runtimes.tensorrt import TensorRt
from ofa_deploy.runtimes.trt.cuda import Cuda
from ofa_deploy.runtimes.trt.kept import sealed
from ofa_deploy.runtimes.trt.settings import EngineSettings, TimingSettings
from ofa_deploy.runtimes.trt.timed import Timed
from tests.hardware.telemetry.test_portable import _old_pythons, _works
from tests.profiling.places import QUICK, Direct, bare_site, interpreter
from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.tensorrt_fake import VERSIONS, fake_tensorrt
from tests.runtimes.tensorrt_fake_engine import MS_A_NODE

pytestmark = pytest.mark.timeout(120)
STANDIN = Path(__file__).with_name("standin") / "tensorrt.py"
TEN, ELEVEN = VERSIONS
ONCE = replace(QUICK, processes=1)


# Through an agent


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-ins of this test's processes have built."""
    path = tmp_path / "builds.log"
    path.touch()
    told = {
        "STANDIN_PATH": sysconfig.get_path("purelib"),
        "STANDIN_VERSION": ELEVEN,
        "STANDIN_GPU": "Fake Orin",
        "STANDIN_LOG": str(path),
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    return path


@pytest.fixture
def connect(
    agents: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., RemoteTarget]:
    """A device that has numpy, and what it takes for TensorRT of some version."""

    def connected(release: str = ELEVEN) -> RemoteTarget:
        site = bare_site(tmp_path / "site", ("numpy",))
        (site / "tensorrt.py").symlink_to(STANDIN)
        about = site / f"tensorrt-{release}.dist-info" / "METADATA"
        about.parent.mkdir()
        about.write_text(f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {release}\n")
        monkeypatch.setenv("STANDIN_VERSION", release)
        return RemoteTarget(Direct(interpreter(tmp_path / "python3", site)))

    return connected


def builds(log: Path) -> list[tuple[str, int]]:
    """Of each engine that was built, in which process, and how many layers it timed."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [(pid, int(layers)) for pid, layers in lines]


def nodes(subject: Subject, precision: str = "fp32") -> int:
    made = get_runtime("tensorrt").to_time(subject.graph, precision)
    return len(onnx.load_from_string(made).graph.node)


def test_engines_are_built_once_and_later_processes_know_what_layers_take(
    connect: Callable[..., RemoteTarget],
    tiny_subjects: dict[str, Subject],
    log: Path,
    agents: Path,
) -> None:
    """Each subject has a process of its own here, and the reference is timed in both."""
    with connect() as target:
        target.chunk = 1
        taken = measure(
            tiny_subjects,
            Subject(build_empty, (1, 1)),
            runtime="tensorrt",
            protocol=ONCE,
            target=target,
        )
    small, large = (nodes(tiny_subjects[name]) for name in ("small", "large"))
    assert 1 < small < large
    assert taken[REFERENCE].ms == pytest.approx(MS_A_NODE)  # the GPU's time, to the last digit
    assert taken["small"].ms == pytest.approx(MS_A_NODE * small)
    assert taken["large"].ms == pytest.approx(MS_A_NODE * large)
    made = builds(log)
    assert len(made) == 3
    first, again, second = (pid for pid, _ in made)
    assert first == again != second
    assert sorted(timed for pid, timed in made if pid == first) == [1, small]
    assert 0 < made[-1][1] < large  # layers of the same names are known
    assert not [*agents.glob("ofa-deploy-agent-*")]  # nothing is left behind


def test_precision_is_in_what_is_sent(
    connect: Callable[..., RemoteTarget], tiny_subjects: dict[str, Subject]
) -> None:
    with connect(TEN) as target:
        assert target.version("tensorrt") == TEN
        taken = measure(
            {"large": tiny_subjects["large"]},
            tiny_subjects["small"],
            runtime="tensorrt",
            precision="fp16",
            protocol=ONCE,
            target=target,
        )
    assert nodes(tiny_subjects["large"], "fp16") > nodes(tiny_subjects["large"])
    assert taken["large"].ms == pytest.approx(MS_A_NODE * nodes(tiny_subjects["large"], "fp16"))


@pytest.mark.parametrize(
    ("release", "gpu", "message"),
    [
        (TEN, "", "failed: tensorrt needs an NVIDIA GPU: no NVIDIA driver here .libcuda.so.1 does"),
        ("8.5.2", "Fake Xavier", r"failed: tensorrt 8.5.2: expected 10.x or 11.x .on Jetson, Jet"),
    ],
)
def test_a_device_that_cannot_is_refused_in_one_line(
    connect: Callable[..., RemoteTarget],
    tiny_subjects: dict[str, Subject],
    monkeypatch: pytest.MonkeyPatch,
    release: str,
    gpu: str,
    message: str,
) -> None:
    monkeypatch.setenv("STANDIN_GPU", gpu)
    with connect(release) as target, pytest.raises(DeviceError, match=message) as error:
        measure(
            {"large": tiny_subjects["large"]},
            tiny_subjects["small"],
            runtime="tensorrt",
            protocol=ONCE,
            target=target,
        )
    assert "\n" not in str(error.value)


def test_a_device_without_tensorrt(
    bare_python: Path, agents: Path, tiny_subjects: dict[str, Subject]
) -> None:
    target = RemoteTarget(Direct(bare_python))
    with target, pytest.raises(DeviceError, match="has no tensorrt .engines that it has: onnxr"):
        measure(
            {"large": tiny_subjects["large"]},
            tiny_subjects["small"],
            runtime="tensorrt",
            target=target,
        )


def test_this_machine_goes_the_same_way(
    log: Path, tiny_subjects: dict[str, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(ELEVEN, FakeCudaLibrary()))
    monkeypatch.setattr(TensorRt, "why_not", lambda self: None)  # its driver is the processes' own
    monkeypatch.syspath_prepend(str(STANDIN.parent))  # of the processes that measure
    taken = measure(
        {"large": tiny_subjects["large"]},
        tiny_subjects["small"],
        runtime="tensorrt",
        protocol=ONCE,
    )
    assert taken["large"].ms == pytest.approx(MS_A_NODE * nodes(tiny_subjects["large"]))
    assert len(builds(log)) == 2


def test_a_real_gpu_says_the_same_here_and_through_an_agent(
    agents: Path, tiny_subjects: dict[str, Subject]
) -> None:
    if why := get_runtime("tensorrt").why_not():
        pytest.skip(f"needs TensorRT on a GPU: {why}")
    asked: Any = {
        "subjects": {"large": tiny_subjects["large"]},
        "reference": tiny_subjects["small"],
        "runtime": "tensorrt",
        "precision": "fp16",
    }
    here = measure(**asked)
    with RemoteTarget(Direct(sys.executable)) as target:
        there = measure(**asked, target=target)
    for name in ("large", REFERENCE):
        assert there[name].ms == pytest.approx(here[name].ms, rel=0.2)


# Opening


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    library = FakeCudaLibrary()
    module = fake_tensorrt(request.param, library)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(carried, "gpu", lambda spin: Cuda(library=library, spin=spin))
    return module


@pytest.fixture
def model(tiny_subjects: dict[str, Subject], tmp_path: Path) -> str:
    path = tmp_path / "model"
    path.write_bytes(get_runtime("tensorrt").to_time(tiny_subjects["small"].graph))
    return str(path)


SHAPE = [2, 3, 12, 12]


def test_an_engine_is_for_the_batch_that_is_timed(trt: Any, model: str, tmp_path: Path) -> None:
    call = open_model(model, SHAPE, "tensorrt", get_runtime("tensorrt").settings())
    assert isinstance(call, Timed)
    assert call.graph
    assert trt.library.flags == 1  # it waits busily
    (kept,) = (tmp_path / "tensorrt-engines").glob("*.engine")
    assert b'"shapes": {"images": [[2, 3, 12, 12], [2, 3, 12, 12], [2' in kept.read_bytes()
    assert b'"level": 3' in kept.read_bytes()
    assert b'"flags": []' in kept.read_bytes()  # no TF32
    assert version("tensorrt") == trt.__version__


def test_settings_reach_the_builder(trt: Any, model: str, tmp_path: Path) -> None:
    settings = {"builder_optimization_level": 1, "tf32": 1, "cuda_graph_batch": 0}
    call = open_model(model, SHAPE, "tensorrt", settings)
    assert isinstance(call, Timed)
    assert not call.graph
    (kept,) = (tmp_path / "tensorrt-engines").glob("*.engine")
    assert b'"level": 1' in kept.read_bytes()
    assert b'"flags": ["TF32"]' in kept.read_bytes()
    with pytest.raises(EngineError, match="found NO_SUCH_SETTING 'x'"):
        open_model(model, SHAPE, "tensorrt", {"NO_SUCH_SETTING": "x"})


def test_what_the_parser_says_is_passed_on(
    trt: Any, tiny_subjects: dict[str, Subject], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)
    path = tmp_path / "unsigned"
    built = get_runtime("onnxruntime").build(tiny_subjects["small"].graph, "int8", [images])
    path.write_bytes(built)
    with pytest.raises(EngineError, match=r"^tensorrt 1\d\..*: .*(Int32|symmetric)") as error:
        open_model(str(path), SHAPE, "tensorrt", {})
    assert "\n" not in str(error.value)


def test_without_a_gpu_tensorrt_is_not_called(
    trt: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end the process; the stand-in says so."""

    def none(spin: bool) -> Cuda:
        raise DeviceError("no NVIDIA driver here")

    trt.library.capability = None
    monkeypatch.setattr(carried, "gpu", none)
    with pytest.raises(EngineError, match="^tensorrt needs an NVIDIA GPU: no NVIDIA driver here$"):
        open_model(model, SHAPE, "tensorrt", {})


def test_int8_is_symmetric_whatever_the_hosts_processor_likes(
    trt: Any, tiny_subjects: dict[str, Subject], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)
    path = tmp_path / "int8"
    graph = tiny_subjects["small"].graph
    path.write_bytes(get_runtime("tensorrt").to_time(graph, "int8", [images], processor="x86"))
    assert open_model(str(path), SHAPE, "tensorrt", {})() is not None


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


def test_the_oldest_engines_make_room(
    tmp_path: Path, graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engines(tmp_path)
    made.plan(graph, ONE)
    (first,) = tmp_path.glob("*.engine")
    monkeypatch.setattr(carried, "_MOST", 2 * first.stat().st_size + 100)
    for batch in (2, 3):
        made.plan(graph, EngineSettings(batches=(batch,) * 3))
    left = [*tmp_path.glob("*.engine")]
    assert len(left) == 2
    assert first not in left


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


# On an old Python

OLD = """
import sys, types
numpy = types.ModuleType("numpy")
sys.modules["numpy"] = numpy
carried = sys.modules["carried"] = types.ModuleType("carried")
with open(sys.argv[1]) as file:
    exec(compile(file.read(), "agent", "exec"), vars(carried))
names = vars(carried)
settings = names["_runtimes_trt_settings"]
told = settings.TimingSettings().told()
assert settings.TimingSettings.heard(told).engine(3).batches == (3, 3, 3)
kept = names["_runtimes_trt_kept"]
assert kept.unsealed("a", kept.sealed("a", b"b")) == b"b"
errors = names["_errors"]
try:
    names["_runtimes_trt_cuda"].gpu(spin=True)
except errors.DeviceError as error:
    assert "no NVIDIA driver here" in str(error), error
else:
    print("a GPU")
module = types.SimpleNamespace(__name__="tensorrt", __version__="8.2.1")
sys.modules["tensorrt"] = module
try:
    names["_profiling_agent_engines"].version("tensorrt")
except names["_profiling_agent_engines"].EngineError as error:
    assert "expected 10.x or 11.x" in str(error), error
    print("works")
"""


def test_an_old_python_reads_what_is_carried(tmp_path: Path) -> None:
    """Without numpy here; all but computing runs."""
    oldest_first = sorted(_old_pythons(), key=lambda path: int(path.rpartition(".")[2]))
    python = next(filter(_works, oldest_first), None)
    if python is None:
        pytest.skip("needs a Python older than this one")
    (tmp_path / "agent.py").write_text(agent_source())
    done = subprocess.run(
        [python, "-I", "-W", "error", "-c", OLD, str(tmp_path / "agent.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "works"
