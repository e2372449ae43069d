"""Inferences that the GPU times: events and graphs, on a stand-in and on a real GPU."""

import gc
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest

from ofa_deploy.errors import DeviceError, InputError
from ofa_deploy.graph import build_empty
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.runtimes.tensorrt import PlanSession, TensorRt
from ofa_deploy.runtimes.trt.cuda import Cuda
from ofa_deploy.runtimes.trt.events import RESOLUTION_MS, Event, Graph
from ofa_deploy.runtimes.trt.kept import sealed, unsealed
from ofa_deploy.runtimes.trt.settings import EngineSettings, TimingSettings
from ofa_deploy.runtimes.trt.timed import Timed
from tests.runtimes import tensorrt_fake_engine
from tests.runtimes.cuda_fake import FakeCudaLibrary
from tests.runtimes.tensorrt_fake import runtime_on
from tests.runtimes.tensorrt_fake_engine import MS_A_NODE


@pytest.fixture
def cuda(library: FakeCudaLibrary) -> Cuda:
    return Cuda(library=library)


def work(library: FakeCudaLibrary, ms: float, done: list[float] | None = None) -> None:
    """Queue something that takes so long."""

    def run() -> int:
        (done if done is not None else []).append(ms)
        return 0

    library.enqueue(run, ms)


# Events


def test_two_events_enclose_what_was_queued_between(library: FakeCudaLibrary, cuda: Cuda) -> None:
    start, end = Event(cuda), Event(cuda)
    work(library, 7.0)
    start.record()
    work(library, 2.5)
    work(library, 0.5)
    end.record()
    work(library, 9.0)
    end.wait()
    assert end.since(start) == 3.0


def test_nothing_takes_less_than_the_clock_can_tell(cuda: Cuda) -> None:
    start, end = Event(cuda), Event(cuda)
    start.record()
    end.record()
    end.wait()
    assert end.since(start) == RESOLUTION_MS > 0


def test_an_event_to_come_has_no_time(cuda: Cuda) -> None:
    start, end = Event(cuda), Event(cuda)
    start.record()
    start.wait()
    end.record()
    with pytest.raises(DeviceError, match="cuEventElapsedTime: error 600, device not ready"):
        end.since(start)


def test_events_are_given_back(library: FakeCudaLibrary, cuda: Cuda) -> None:
    event = Event(cuda)
    assert len(library.events) == 1
    del event
    gc.collect()
    assert not library.events


def test_a_later_driver_has_the_clock_under_another_name(library: FakeCudaLibrary) -> None:
    library.cuEventElapsedTime_v2 = library.cuEventElapsedTime  # type: ignore[attr-defined]
    del library.cuEventElapsedTime  # type: ignore[attr-defined]
    cuda = Cuda(library=library)
    start, end = Event(cuda), Event(cuda)
    start.record()
    work(library, 4.0)
    end.record()
    end.wait()
    assert end.since(start) == 4.0


def test_waiting_spins_where_it_was_asked_for(library: FakeCudaLibrary) -> None:
    Cuda(library=library)
    assert library.flags is None
    spinning = FakeCudaLibrary()
    Cuda(library=spinning, spin=True)
    assert spinning.flags == 1  # CU_CTX_SCHED_SPIN


# Graphs


def test_a_graph_does_all_of_it_again(library: FakeCudaLibrary, cuda: Cuda) -> None:
    done: list[float] = []

    def queue() -> None:
        work(library, 1.0, done)
        work(library, 2.0, done)

    graph = Graph(cuda, queue)
    cuda.synchronize()
    assert done == []
    assert not library.graphs  # what it was made of is given back
    for times in (1, 2):
        graph.launch()
        cuda.synchronize()
        assert done == [1.0, 2.0] * times
    del graph
    gc.collect()
    assert not library.executables


def test_waiting_cannot_be_captured(library: FakeCudaLibrary, cuda: Cuda) -> None:
    """As of an engine whose shapes depend on its data."""
    with pytest.raises(DeviceError, match="cuStreamSynchronize: error 900, operation not permit"):
        Graph(cuda, cuda.synchronize)
    _is_as_before(library, cuda)


def test_what_was_spoiled_unnoticed_is_no_graph(library: FakeCudaLibrary, cuda: Cuda) -> None:
    def queue() -> None:
        library.cuStreamSynchronize(cuda.stream)  # type: ignore[attr-defined]

    with pytest.raises(DeviceError, match="cuStreamEndCapture: error 901"):
        Graph(cuda, queue)
    _is_as_before(library, cuda)


def test_what_fails_while_it_is_captured_is_forgotten(library: FakeCudaLibrary, cuda: Cuda) -> None:
    def queue() -> None:
        work(library, 1.0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Graph(cuda, queue)
    _is_as_before(library, cuda)


def test_a_graph_that_cannot_be_made_ready_is_forgotten(
    library: FakeCudaLibrary, cuda: Cuda
) -> None:
    library.failures["cuGraphInstantiateWithFlags"] = 2
    with pytest.raises(DeviceError, match="cuGraphInstantiateWithFlags: error 2, out of memory"):
        Graph(cuda, lambda: work(library, 1.0))
    _is_as_before(library, cuda)


def _is_as_before(library: FakeCudaLibrary, cuda: Cuda) -> None:
    """The stream takes work, and nothing is left."""
    done: list[float] = []
    work(library, 5.0, done)
    cuda.synchronize()
    assert done == [5.0]
    gc.collect()
    assert not library.graphs
    assert not library.executables


# Engines


@pytest.fixture
def session(
    library: FakeCudaLibrary, version: str, model: onnx.ModelProto
) -> Callable[[], PlanSession]:
    def load() -> PlanSession:
        runtime = runtime_on(library, version)
        loaded = runtime.load(runtime.build(model))
        assert isinstance(loaded, PlanSession)
        return loaded

    return load


def timed(session: PlanSession, images: np.ndarray, graph_batch: int = 8) -> Timed:
    return Timed(session, session._cuda, images, graph_batch=graph_batch)


@pytest.mark.parametrize("graph_batch", [0, 8])
def test_a_call_returns_the_time_of_one_inference(
    session: Callable[[], PlanSession], model: onnx.ModelProto, images: np.ndarray, graph_batch: int
) -> None:
    call = timed(session(), images, graph_batch)
    assert call.graph == (graph_batch > 0)
    assert call.refusal == ""
    expected = MS_A_NODE * len(model.graph.node) * len(images)
    assert [call(), call(), call()] == [expected] * 3


def test_small_batches_are_launched_as_a_graph(
    session: Callable[[], PlanSession], library: FakeCudaLibrary, rng: np.random.Generator
) -> None:
    for batch, graph in ((1, True), (8, True), (9, False)):
        call = timed(session(), rng.standard_normal((batch, 3, 12, 12)).astype(np.float32))
        before = library.launches
        call()
        assert call.graph is graph
        assert library.launches - before == int(graph)


@pytest.mark.parametrize(
    ("ms", "inferences"), [(0.25, 1), (0.1, 1), (0.0625, 2), (0.0075, 14), (0.0001, 100)]
)
def test_what_is_over_soon_is_launched_many_times_at_once(
    library: FakeCudaLibrary, ms: float, inferences: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of events tells half a microsecond, which is much of a small block's time."""
    monkeypatch.setattr(tensorrt_fake_engine, "MS_A_NODE", ms)
    runtime = runtime_on(library)
    loaded = runtime.load(runtime.build(build_empty()))
    assert isinstance(loaded, PlanSession)
    images = np.ones((1, 1), np.float32)
    call = timed(loaded, images)
    before, launches = library.clock_ms, library.launches
    assert call() == pytest.approx(ms)
    assert call.inferences == inferences
    assert library.launches == launches + 1
    assert library.clock_ms - before == pytest.approx(inferences * ms)
    alone = timed(loaded, images, graph_batch=0)  # the host would be timed, not the GPU
    assert alone.inferences == 1


def test_a_graph_of_many_that_is_refused_leaves_that_of_one(
    library: FakeCudaLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_fake_engine, "MS_A_NODE", 0.01)
    runtime = runtime_on(library)
    loaded = runtime.load(runtime.build(build_empty()))
    assert isinstance(loaded, PlanSession)
    out, refused = loaded._cuda.out, []

    def refuses(kind: object, name: str, *arguments: object) -> object:
        if name == "cuGraphInstantiateWithFlags" and library.executables:
            refused.append(name)
            raise DeviceError("no room")
        return out(kind, name, *arguments)

    monkeypatch.setattr(loaded._cuda, "out", refuses)
    call = timed(loaded, np.ones((1, 1), np.float32))
    assert len(refused) == 1
    assert (call.graph, call.inferences, call.refusal) == (True, 1, "")
    assert call() == pytest.approx(0.01)


@pytest.mark.parametrize("graph_batch", [0, 8])
def test_a_call_computes_and_copies_nothing(
    session: Callable[[], PlanSession],
    library: FakeCudaLibrary,
    images: np.ndarray,
    graph_batch: int,
) -> None:
    loaded = session()
    expected = loaded.run(images)
    before = set(library.memory)
    call = timed(loaded, images, graph_batch)
    _, result = (address for address in library.memory if address not in before)
    room = library.memory[result]
    room[:] = b"\xff" * len(room)
    copied = list(library.copies)
    call()
    assert library.copies == copied
    np.testing.assert_array_equal(np.frombuffer(bytes(room), np.float32), expected.ravel())


def test_an_engine_that_cannot_be_captured_is_launched_as_it_is(
    session: Callable[[], PlanSession],
    library: FakeCudaLibrary,
    model: onnx.ModelProto,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = session()
    queue = loaded._enqueue

    def waits(place: object) -> None:
        loaded._cuda.synchronize()
        queue(place)  # type: ignore[arg-type]

    monkeypatch.setattr(loaded, "_enqueue", waits)
    call = timed(loaded, images)
    assert not call.graph
    assert "error 900, operation not permitted when stream is capturing" in call.refusal
    assert "\n" not in call.refusal
    assert call() == MS_A_NODE * len(model.graph.node) * len(images)
    assert not library.graphs


def test_a_driver_without_graphs(model: onnx.ModelProto, images: np.ndarray) -> None:
    library = FakeCudaLibrary()
    del library.cuGraphInstantiateWithFlags  # type: ignore[attr-defined]
    runtime = runtime_on(library)
    session = runtime.load(runtime.build(model))
    assert isinstance(session, PlanSession)
    call = timed(session, images)
    assert "the driver has no cuGraphInstantiateWithFlags; install a later one" in call.refusal
    assert call() > 0


def test_what_a_graph_uses_lives_as_long(
    session: Callable[[], PlanSession], library: FakeCudaLibrary, images: np.ndarray
) -> None:
    call = timed(session(), images)
    gc.collect()
    assert call() > 0  # or memory would be gone: an illegal access
    del call
    gc.collect()
    assert not (library.memory or library.events or library.executables)


def test_a_gpu_that_fails_is_no_reason_to_go_on(
    session: Callable[[], PlanSession], library: FakeCudaLibrary, images: np.ndarray
) -> None:
    call = timed(session(), images)
    library.failures["cuEventSynchronize"] = 700
    with pytest.raises(DeviceError, match="cuEventSynchronize: error 700, an illegal memory"):
        call()


def test_sessions_time_as_measuring_processes_do(
    library: FakeCudaLibrary, model: onnx.ModelProto, images: np.ndarray, version: str
) -> None:
    """What is exported is timed as tables are: by the GPU, as a graph up to the same batch."""
    loaded = (runtime := runtime_on(library, version)).load(runtime.build(model))
    sent = onnx.load_from_string(runtime.to_time(model))
    call = loaded.timed(images)
    assert isinstance(call, Timed)
    assert call() == pytest.approx(MS_A_NODE * len(sent.graph.node) * len(images))
    assert call.graph
    many = np.concatenate([images] * 3)
    assert len(many) > TimingSettings().graph_batch
    assert not loaded.timed(many).graph
    assert get_runtime("onnxruntime").load(model.SerializeToString()).timed(images)() is None


def test_a_session_launches_no_graph_that_its_runtime_would_not(library: FakeCudaLibrary) -> None:
    runtime = runtime_on(library)
    runtime.settings = lambda threads=1: {"cuda_graph_batch": 0}
    call = runtime.load(runtime.build(build_empty())).timed(np.ones((1, 1), np.float32))
    assert isinstance(call, Timed)
    assert not call.graph


# Settings


def test_settings_are_told_and_heard() -> None:
    engine = EngineSettings(optimization_level=5, tf32=True, memory_limit=2**28)
    told = TimingSettings.of(engine).told()
    assert told == {
        "builder_optimization_level": 5,
        "tf32": 1,
        "cuda_graph_batch": 8,
        "memory_limit": 2**28,
    }
    heard = TimingSettings.heard(told).engine(4)
    assert heard == EngineSettings(
        batches=(4, 4, 4), optimization_level=5, tf32=True, memory_limit=2**28
    )
    assert TimingSettings.heard({}) == TimingSettings()
    assert TensorRt(engine).settings() == told


@pytest.mark.parametrize("told", [{"fp16": 1}, {"tf32": "no"}, {"tf32": True}])
def test_settings_that_there_are_not(told: dict[str, str | int]) -> None:
    with pytest.raises(InputError, match=r"expected numbers for builder_.*, memory_limit; found"):
        TimingSettings.heard(told)


# Files


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: b"",
        lambda d: d[:-1],
        lambda d: d + b"x",
        lambda d: d[:20],
        lambda d: d.replace(b"engine", b"Engine"),
        lambda d: d[:-1] + bytes([d[-1] ^ 1]),
    ],
)
def test_what_is_sealed_is_whole_or_nothing(damage: Callable[[bytes], bytes]) -> None:
    data = sealed("engine 1", b"\x00plan" * 99)
    assert unsealed("engine 1", data) == b"\x00plan" * 99
    assert unsealed("engine 2", data) is None
    assert unsealed("engine 1", damage(data)) is None


def test_nothing_can_be_sealed_too() -> None:
    assert unsealed("engine 1", sealed("engine 1", b"")) == b""


# A real GPU


@pytest.fixture
def real() -> Iterator[TensorRt]:
    runtime = TensorRt()
    if why := runtime.why_not():
        pytest.skip(f"needs TensorRT on a GPU: {why}")
    yield runtime


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("graph_batch", [0, 8])
def test_a_real_gpu_times_what_it_computes(
    real: TensorRt, model: onnx.ModelProto, images: np.ndarray, precision: str, graph_batch: int
) -> None:
    expected = get_runtime("onnxruntime").load(model.SerializeToString()).run(images)
    session = real.load(real.build(model, precision, [images]))
    assert isinstance(session, PlanSession)
    call = timed(session, images, graph_batch)
    assert (call.graph, call.refusal) == (graph_batch > 0, "")
    times = [call() for _ in range(50)]
    assert all(RESOLUTION_MS <= ms < 1000 for ms in times)
    noise = float(((session.run(images) - expected) ** 2).mean() / expected.var())
    assert noise < {"fp32": 1e-6, "fp16": 1e-4, "int8": 0.05}[precision]


def test_a_real_gpu_hands_on_a_number(real: TensorRt) -> None:
    session = real.load(real.build(build_empty()))
    assert isinstance(session, PlanSession)
    assert timed(session, np.ones((1, 1), np.float32))() >= RESOLUTION_MS
