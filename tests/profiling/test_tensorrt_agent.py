"""TensorRT where models are timed: through an agent in a process of its own, and by its parts."""

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ofa_deploy.errors import DeviceError
from ofa_deploy.graph import build_empty
from ofa_deploy.profiling import REFERENCE, RemoteTarget, Subject, measure
from ofa_deploy.profiling.agent import tensorrt as carried
from ofa_deploy.profiling.agent.engines import EngineError, open_model, version
from ofa_deploy.profiling.remote.bundle import agent_source
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.runtimes.tensorrt import TensorRt
from ofa_deploy.runtimes.trt.cuda import Cuda
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
