"""What a measuring process sees of its device: between windows, cheaply, and what it does then."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ofa_deploy.hardware import Sensors, Telemetry, Trace
from ofa_deploy.profiling import Protocol
from ofa_deploy.profiling.agent import job as job_module
from ofa_deploy.profiling.agent import watch as watch_module
from ofa_deploy.profiling.agent.engines import EngineError
from ofa_deploy.profiling.agent.job import on_gpu, work
from ofa_deploy.profiling.agent.watch import (
    TooHot,
    Watch,
    memory_bounded,
    peak_mib,
    pinned,
)

WARM = Telemetry(
    temperatures_c={"cpu": 50.0}, clocks_mhz={"cpu0": 1500.0}, power_mw={"VDD_IN": 5000.0}
)


@dataclass
class Source:
    """Something that says what it is told to say.

    Attributes:
        held: why clocks are held down, each time it is asked; then never.
        heat: °C each time it is glanced at; then the last of it.
        slow_s: what asking it takes.
    """

    held: list[tuple[str, ...]] = field(default_factory=list)
    heat: list[float] = field(default_factory=lambda: [50.0])
    slow_s: float = 0.0
    tells_throttling: bool = True
    asked: int = 0
    glanced: list[Sequence[int]] = field(default_factory=list)
    name = "made up"

    def read(self) -> Telemetry:
        return WARM

    def glance(self, cores: Sequence[int]) -> Telemetry:
        self.glanced.append(cores)
        heat = self.heat.pop(0) if len(self.heat) > 1 else self.heat[0]
        return replace(WARM, temperatures_c={"cpu": heat})

    def throttled(self) -> tuple[str, ...]:
        self.asked += 1
        if self.slow_s:
            end = time.perf_counter() + self.slow_s
            while time.perf_counter() < end:
                pass
        return self.held.pop(0) if self.held else ()

    def close(self) -> None:
        pass


QUIET: list[tuple[str, ...]] = [(), (), ()]  # what is asked to learn what asking takes


def watch(source: Source, **options: Any) -> Watch:
    return Watch(Sensors([source]), **options)


# -- looking ----------------------------------------------------------------------------------


def test_reasons_are_seen_once_and_remembered() -> None:
    made = watch(Source(held=[*QUIET, ("too hot",), (), ("too hot", "over-current")]))
    assert [made.held() for _ in range(4)] == [True, False, True, False]
    assert made.reasons == ("too hot", "over-current")
    assert made.trace()["throttled"] == ["too hot", "over-current"]
    assert made.trace()["told"] is True


def test_a_device_that_cannot_tell_is_not_asked() -> None:
    source = Source(held=[("too hot",)] * 9, tells_throttling=False)
    made = watch(source)
    assert not made.held()
    assert (source.asked, made.cost_ms) == (0, 0.0)
    assert "told" not in made.trace()


def test_what_asking_takes_is_measured() -> None:
    assert 2.0 <= watch(Source(slow_s=0.002)).cost_ms < watch_module._SLOWEST_MS
    assert watch(Source()).cost_ms < 0.5


def test_one_that_takes_long_to_answer_is_not_asked_after_each_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch_module, "_SLOWEST_MS", 0.5)
    source = Source(held=[*QUIET, ("too hot",)], slow_s=0.001)
    made = watch(source)
    assert not made.held()
    assert source.asked == 3
    assert "told" not in made.trace()


def test_heat_clocks_and_power_are_read_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(heat=[40.0, 60.0, 50.0])
    made = watch(source, cores=(2,))
    for _ in range(5):
        made.held()
    assert source.glanced == [(2,)], "a second has not passed"
    monkeypatch.setattr(watch_module, "_PERIOD_S", 0.0)
    monkeypatch.setattr(watch_module, "_SHARE", 0)
    made.glance()
    made.held()
    assert len(source.glanced) == 3
    found = Trace.model_validate(made.trace())
    assert found.temperature_c == (40, 50, 60)
    assert found.clocks_mhz == {"cpu0": (1500, 1500, 1500)}
    assert found.power_mw == (5000, 5000, 5000)
    assert found.told and not found.throttled


def test_a_device_above_its_limit_ends_it() -> None:
    made = watch(Source(heat=[85.0, 85.5]), limit_c=85.0)
    made.glance()
    with pytest.raises(TooHot) as hot:
        made.glance()
    assert hot.value.celsius == 85.5


def test_this_machine_can_be_watched() -> None:
    """And asking it takes far less than a window."""
    with Sensors.at_work(gpu=False) as sensors:
        made = Watch(sensors, cores=(0,))
        made.held()
    assert made.cost_ms < Protocol().window_ms / 10
    Trace.model_validate(made.trace())


# -- cores and memory -------------------------------------------------------------------------


@pytest.fixture
def affinity(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Cores that this process may use; a system of four."""
    usable = {0, 1, 2, 3}

    def pin(pid: int, wanted: set[int]) -> None:
        if not wanted & {0, 1, 2, 3}:
            raise OSError("no such core")
        usable.clear()
        usable.update(wanted & {0, 1, 2, 3})

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(usable), raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", pin, raising=False)
    monkeypatch.setattr(watch_module, "_CPUS", Path("/none"))
    return usable


@pytest.mark.parametrize(
    ("cores", "threads", "used"),
    [
        ((), 1, {3}),
        ((), 2, {0, 1, 2, 3}),
        ((1,), 1, {1}),
        ((2, 0, 1), 1, {2}),
        ((2, 0, 1), 2, {0, 2}),
    ],
)
def test_processes_are_pinned(
    affinity: set[int], cores: tuple[int, ...], threads: int, used: set[int]
) -> None:
    assert pinned(cores, threads) == (() if used == {0, 1, 2, 3} else tuple(sorted(used)))
    assert affinity == used


@pytest.mark.parametrize(
    ("most_khz", "used"),
    [
        ({0: 5_000_000, 1: 5_000_000, 2: 3_800_000, 3: 3_800_000}, 1),
        ({0: 3_800_000, 1: 3_800_000, 2: 5_000_000, 3: 5_200_000}, 3),
        ({0: 3_800_000, 1: 3_800_000, 2: 3_800_000, 3: 3_800_000}, 3),
        ({0: 5_000_000}, 0),
    ],
)
def test_the_last_of_the_fastest_cores_is_taken(
    affinity: set[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most_khz: dict[int, int],
    used: int,
) -> None:
    """The last ones of some processors are for what is not urgent."""
    for core, khz in most_khz.items():
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "cpuinfo_max_freq").write_text(f"{khz}\n")
    monkeypatch.setattr(watch_module, "_CPUS", tmp_path)
    assert pinned((), 1) == (used,)
    assert affinity == {used}


@pytest.mark.parametrize(
    ("cores", "threads", "message"),
    [
        (
            (7,),
            1,
            "expected to measure on core 7, and not all of that is here; a process may use c",
        ),
        ((3, 4), 2, "expected to measure on cores 3, 4, .*may use cores 0, 1, 2, 3"),
        ((1, 2), 3, "expected a core for each of 3 threads, found cores 1, 2"),
    ],
)
def test_cores_that_are_not_there(
    affinity: set[int], cores: tuple[int, ...], threads: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pinned(cores, threads)


def test_a_system_that_pins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert pinned((), 1) == ()
    with pytest.raises(ValueError, match="leave 'cores' out"):
        pinned((0,), 1)


def test_peak_of_memory(tmp_path: Path) -> None:
    assert peak_mib() > 20
    status = tmp_path / "status"
    status.write_text("Name:\tpython3\nVmPeak:\t  900000 kB\nVmHWM:\t  204800 kB\nVmRSS:\t1 kB\n")
    assert peak_mib(status) == 200
    status.write_text("Name:\tpython3\n")
    assert peak_mib(status) == 0
    assert peak_mib(tmp_path / "none") == 0


def test_memory_is_looked_at_while_models_are_loaded() -> None:
    told: list[int] = []
    seen = threading.Event()

    def exceeded(mib: int) -> None:
        told.append(mib)
        seen.set()

    with memory_bounded(1, exceeded):
        assert seen.wait(10)
    assert len(told) == 1 and told[0] > 1
    before = threading.active_count()
    for limit in (None, 2**24):
        with memory_bounded(limit, exceeded):
            pass
    assert len(told) == 1 and threading.active_count() == before


# -- a job ------------------------------------------------------------------------------------

PROTOCOL = Protocol(rounds=8, runs=2, discard=0, window_ms=0.0, tolerance=1e9)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    """All that the machine can tell."""
    made = Source(held=[*QUIET, ()])

    @contextmanager
    def at_work(*, gpu: bool) -> Any:
        yield Sensors([made])

    monkeypatch.setattr(job_module.Sensors, "at_work", at_work)
    monkeypatch.setattr(job_module, "pinned", lambda cores, threads: tuple(cores))
    return made


def done(**changed: Any) -> list[dict[str, Any]]:
    """What is said of a job of one subject beside its reference."""
    said: list[dict[str, Any]] = []
    asked = {"threads": 1, "protocol": asdict(PROTOCOL), "sent": time.monotonic(), **changed}
    work(asked, lambda job: (lambda: None, {"one": lambda: None}), said.append)
    return said


def test_a_job_says_what_was_seen(source: Source) -> None:
    *rounds, last = done(cores=[2])
    assert rounds == [{"rounds": n + 1} for n in range(8)]
    assert last["throttled"] == 0
    assert last["trace"]["temperature_c"] == [50.0, 50.0, 50.0]
    assert last["peak_mib"] > 20
    assert set(source.glanced) == {(2,)}


def test_windows_in_which_clocks_were_held_down_are_timed_again(source: Source) -> None:
    source.held += [("too hot",), (), ("too hot",)]
    last = done()[-1]
    assert (last["windows"], last["throttled"], last["rejected"]) == (8, 2, 0)
    assert last["result"]["one"]["runs"] == 8 * 2
    assert last["trace"]["throttled"] == ["too hot"]


def test_a_device_that_is_held_down_all_the_time_is_refused(source: Source) -> None:
    source.held += [("over-current",)] * 1000
    message = r"held its clocks down in 21 of 21 windows \(over-current, up to 50 °C\): cool it or"
    with pytest.raises(EngineError, match=message):
        done()


def test_a_device_that_gets_too_hot_is_told(source: Source) -> None:
    source.heat = [92.5]
    assert done(limits={"temperature_c": 90.0}) == [{"hot": 92.5}]
    assert "result" in done(limits={"temperature_c": None})[-1]


def test_too_much_memory_is_refused(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "peak_mib", lambda: 900)
    monkeypatch.setattr(watch_module, "peak_mib", lambda: 0)
    with pytest.raises(EngineError, match="take 900 MiB with their engine, more than the 800 that"):
        done(limits={"memory_mib": 800})
    assert done(limits={"memory_mib": 900})[-1]["peak_mib"] == 900


def test_building_engines_leaves_half_of_the_time(source: Source) -> None:
    """A process that took minutes to start does not end after the least rounds."""
    protocol = {**asdict(PROTOCOL), "rounds": 10**6, "seconds": 0.2}
    *rounds, _ = done(protocol=protocol, sent=time.monotonic() - 1000)
    assert len(rounds) > 20


def test_energy_is_taken_from_whatever_tells(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the meter wants, or for half of the time that there is."""
    seconds: list[float] = []

    class Meter:
        seconds, least_s = 1.0, 0.3

        def per_call(self, call: Callable[[], object], given: float) -> float:
            seconds.append(given)
            call()
            return 7.0

    asked: list[bool] = []

    def energy_meter(sensors: Sensors, *, gpu: bool) -> Meter:
        asked.append(gpu)
        return Meter()

    monkeypatch.setattr(job_module, "energy_meter", energy_meter)
    for given, each in ((0.0, 1.0), (2.0, 0.5), (0.4, 0.3), (100.0, 1.0)):
        protocol = {**asdict(PROTOCOL), "seconds": given}
        last = done(protocol=protocol, energy=True, gpu=True)[-1]
        assert {n: f["energy_mj"] for n, f in last["result"].items()} == {"": 7.0, "one": 7.0}
        assert seconds == pytest.approx([each, each])
        seconds.clear()
    assert asked == [True] * 4
    assert "energy_mj" not in done()[-1]["result"]["one"]


@pytest.mark.parametrize("told", [OSError("too seldom"), -1.0, float("nan"), float("inf"), None])
def test_energy_that_is_none_is_left_out(
    source: Source, monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    class Meter:
        seconds = least_s = 0.1

        def per_call(self, call: object, given: float) -> float:
            if isinstance(told, OSError):
                raise told
            return float(told)

    meter = None if told is None else Meter()
    monkeypatch.setattr(job_module, "energy_meter", lambda sensors, gpu: meter)
    assert "energy_mj" not in done(energy=True)[-1]["result"]["one"]


@dataclass
class Meter:
    """One that says 7 mJ of everything.

    Attributes:
        during: called while it measures.
    """

    during: Callable[[], None] = lambda: None
    seconds = 1.0
    least_s = 0.3
    calls: int = 0

    def per_call(self, call: Callable[[], object], given: float) -> float:
        self.calls += 1
        self.during()
        return 7.0


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    made = Meter()
    monkeypatch.setattr(job_module, "energy_meter", lambda sensors, gpu: made)
    return made


def weighed(found: dict[str, Any]) -> set[str]:
    return {name for name, figures in found["result"].items() if "energy_mj" in figures}


def test_energy_while_clocks_were_held_down_is_left_out(source: Source, meter: Meter) -> None:
    def during() -> None:
        if meter.calls == 1:
            source.held = [("under-voltage",)]

    meter.during = during
    last = done(energy=True)[-1]
    assert weighed(last) == {"one"}
    assert last["trace"]["throttled"] == ["under-voltage"]


def test_what_held_clocks_down_before_says_nothing_of_energy(
    source: Source, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(sensors: Sensors, *, gpu: bool) -> Meter:
        source.held = [("under-voltage",)]
        return meter

    monkeypatch.setattr(job_module, "energy_meter", found)
    assert weighed(done(energy=True)[-1]) == {"", "one"}


def test_a_device_that_gets_too_hot_while_energy_is_taken_is_told(
    source: Source, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_PERIOD_S", 0.0)
    monkeypatch.setattr(watch_module, "_SHARE", 0)

    def during() -> None:
        source.heat = [91.0]

    meter.during = during
    *rounds, last = done(energy=True, limits={"temperature_c": 90.0})
    assert last == {"hot": 91.0} and len(rounds) == PROTOCOL.rounds
    assert meter.calls == 1


def test_energy_takes_no_longer_than_its_share(
    source: Source, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the time that there is, give or take the last one."""
    now = [1000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(job_module, "time", clock)

    def during() -> None:
        now[0] += meter.least_s

    meter.during = during
    asked = {"threads": 1, "protocol": {**asdict(PROTOCOL), "seconds": 2.0}, "sent": now[0]}
    said: list[dict[str, Any]] = []
    calls = {f"net {n}": lambda: None for n in range(50)}
    work({**asked, "energy": True}, lambda job: (lambda: None, calls), said.append)
    assert meter.calls == 4
    assert weighed(said[-1]) == {"", "net 0", "net 1", "net 2"}


def test_engines_on_gpus() -> None:
    assert not any(map(on_gpu, ("onnxruntime", "openvino")))
    assert all(map(on_gpu, ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")))
