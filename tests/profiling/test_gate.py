"""Device files while measuring: cores, pauses, limits, power; with a place that says anything."""

import importlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.errors import DeviceError, InputError
from ofa_deploy.hardware import Device, Identity, Telemetry, load_device
from ofa_deploy.hardware.device import Limits
from ofa_deploy.profiling import Subject, Taken, gate, measure
from ofa_deploy.profiling.process import Overheated
from tests.profiling.fakes import Notes
from tests.profiling.places import QUICK

measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")
MACHINE = Identity("jetson", "aarch64", "Board, 4 cores", 4, 4096, "Linux", "3.10.12")
STATE = {"power_mode": "15W", "clocks": "fixed", "jetson_clocks": "on"}
COOL = Telemetry(temperatures_c={"cpu": 50.0}, state=STATE)
FIGURES = {"ratio": 1.0, "p10": 1.0, "p50": 1.0, "p90": 1.0, "p99": 1.0, "runs": 4}


@dataclass
class Board:
    """A place that says what it is told to say.

    Attributes:
        says: what it says of itself next, and then always the last of it.
        hot: temperatures at which its next processes end early.
        jobs: it was given.
        asked: how often it was asked how it is.
        after: what it says at the end of a process.
    """

    says: list[Telemetry] = field(default_factory=lambda: [COOL])
    hot: list[float] = field(default_factory=list)
    jobs: list[Mapping[str, Any]] = field(default_factory=list)
    asked: int = 0
    after: Telemetry = COOL
    name = "ssh://board"
    chunk = 32
    processor = "here"
    machine = MACHINE
    told = COOL
    engines = ("onnxruntime",)
    load = 0.0

    def version(self, runtime: str) -> str:
        return "1.0"

    def identity(self) -> dict[str, Any]:
        return {}

    def telemetry(self, *, gpu: bool) -> Telemetry:
        self.asked += 1
        return self.says.pop(0) if len(self.says) > 1 else self.says[0]

    def run(
        self, job: Mapping[str, Any], names: Iterable[str], *, finished: Callable[[int], None]
    ) -> dict[str, Any]:
        self.jobs.append(job)
        finished(1)
        if self.hot:
            raise Overheated(self.hot.pop(0))
        finished(1)
        counts = {"windows": 2, "rejected": 1, "throttled": 0}
        trace = {"temperature_c": [40.0, 45.0, 50.0 + len(self.jobs)]}
        result = {name: FIGURES for name in ("", *names)}
        more = {"trace": trace, "others": 0.25, "telemetry": self.after.to_dict()}
        return {"result": result, **counts, **more}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses that take no time."""
    made: list[float] = []
    monkeypatch.setattr(gate, "pause", made.append)
    return made


def described(**changes: Any) -> Device:
    kind = {"schema": "device/1", "id": "board", "name": "A board", "kind": "jetson"}
    offers = {"runtimes": ["onnxruntime"], "precisions": ["fp32"]}
    return Device.model_validate({**kind, **offers, **changes})


def hot(celsius: float) -> Telemetry:
    return replace(COOL, temperatures_c={"cpu": celsius})


@pytest.fixture
def run(tiny_subjects: dict[str, Subject]) -> Callable[..., Taken]:
    """Measures two subjects in two processes."""

    def measured(board: Board, device: Device | None, **options: Any) -> Taken:
        options = {"protocol": QUICK, "progress": Notes(), **options}
        small = tiny_subjects["small"]
        return measure(tiny_subjects, small, target=board, device=device, **options)

    return measured


Run = Callable[..., Taken]


# -- cores -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("cores", "threads"), [([], 1), ([], 4), ([2], 1), ([3, 1], 2)])
def test_cores_are_told_to_the_process(run: Run, cores: list[int], threads: int) -> None:
    board = Board()
    run(board, described(cores=cores), threads=threads)
    assert [job["cores"] for job in board.jobs] == [cores, cores]


def test_a_core_for_each_thread_is_demanded(run: Run) -> None:
    board = Board()
    message = "device board is measured on its cores 2, 3, too few for 3 threads"
    with pytest.raises(InputError, match=message):
        run(board, described(cores=[2, 3]), threads=3)
    assert not board.jobs


def test_a_core_that_is_not_there_is_refused(run: Run) -> None:
    board = Board()
    with pytest.raises(DeviceError, match="ssh://board is not ready .*there is no core 4: it has"):
        run(board, described(cores=[4]))
    assert not board.jobs


def test_other_cores_are_measured_anew(run: Run, tmp_path: Path) -> None:
    board = Board()
    for cores in ([1], [1], [2]):
        run(board, described(cores=cores), journal=tmp_path)
    assert [job["cores"] for job in board.jobs] == [[1], [1], [2], [2]]


# -- pauses and heat -------------------------------------------------------------------------


def test_it_cools_down_before_each_process(run: Run, pauses: list[float]) -> None:
    bar, board = Notes(), Board()
    run(board, described(cool_down_s=10), progress=bar)
    assert pauses == [10, 10]
    assert bar.notes == ["cools down for 10 s", "measures"] * 2


def test_a_long_pause_does_not_make_it_hang_up(run: Run, pauses: list[float]) -> None:
    """An agent that hears nothing for long ends."""
    board = Board()
    run(board, described(cool_down_s=100))
    assert pauses == [30, 30, 30, 10] * 2
    assert board.asked == 1 + 2 * 3


def test_nothing_is_asked_where_nothing_is_demanded(run: Run, pauses: list[float]) -> None:
    board = Board(says=[hot(120)])
    run(board, None)
    assert board.asked == 0 and pauses == []


def test_it_waits_until_it_is_five_degrees_below(run: Run, pauses: list[float]) -> None:
    bar = Notes()
    board = Board(says=[COOL, *map(hot, (85.5, 84.0, 80.5, 80.0)), COOL])
    run(board, described(limits={"temperature_c": 85}), progress=bar)
    assert pauses == [5, 5, 5]
    assert bar.said == [
        "ssh://board has 85.5 °C, above its limit of 85: measuring waits until it has 80"
    ]
    assert bar.notes == ["waits at 86 °C", "waits at 84 °C", "waits at 80 °C", "measures"]
    assert len(board.jobs) == 2


def test_at_its_limit_it_does_not_wait(run: Run, pauses: list[float]) -> None:
    run(Board(says=[hot(85.0)]), described(limits={"temperature_c": 85}))
    assert pauses == []


def test_one_that_does_not_cool_is_given_up(run: Run, pauses: list[float], tmp_path: Path) -> None:
    """What was finished before is kept."""
    limits = described(limits={"temperature_c": 60})
    board = Board(says=[COOL, COOL, hot(61.0)])
    message = "still has 61 °C after 15 minutes, and must have 55: cool it.*finished is kept"
    with pytest.raises(DeviceError, match=message):
        run(board, limits, journal=tmp_path)
    assert sum(pauses) == 900
    assert len(board.jobs) == 1
    again = Board()
    run(again, limits, journal=tmp_path)
    assert len(again.jobs) == 1


def test_a_process_that_got_too_hot_is_repeated(run: Run) -> None:
    """And no round of it is told twice."""
    bar, board = Notes(), Board(hot=[85.5, 86.0])
    taken = run(board, described(limits={"temperature_c": 85}), progress=bar)
    assert len(board.jobs) == 4
    assert board.jobs[0]["limits"] == {"temperature_c": 85, "memory_mib": None}
    assert bar.at == bar.total == QUICK.rounds * QUICK.processes
    assert [line.partition(",")[0] for line in bar.said] == [
        "ssh://board reached 85.5 °C",
        "ssh://board reached 86 °C",
    ]
    assert taken["large"].repeats == 2 * 4


def test_one_that_gets_too_hot_each_time_is_given_up(run: Run, tmp_path: Path) -> None:
    limits = described(limits={"temperature_c": 85})
    board = Board(hot=[90.0] * 4)
    message = "got hotter than its limit of 85 °C in 4 tries of one measuring process .90 °C"
    with pytest.raises(DeviceError, match=message):
        run(board, limits, journal=tmp_path)
    assert len(board.jobs) == 4


def test_heat_that_is_not_told_holds_nothing_up(run: Run, pauses: list[float]) -> None:
    bar, board = Notes(), Board(says=[Telemetry(state=STATE)])
    run(board, described(limits={"temperature_c": 85}), progress=bar)
    assert pauses == [] and board.asked == 1
    assert bar.said == [
        "ssh://board: nothing tells how hot it is: its limit of 85 °C holds nothing up"
    ]


def test_after_a_process_that_got_too_hot_it_cools_well_below(
    run: Run, pauses: list[float]
) -> None:
    """A little below its limit it would get too hot again, four times in a minute."""
    bar = Notes()
    board = Board(says=[COOL, COOL, *map(hot, (84.5, 82.0, 80.0)), COOL], hot=[85.5])
    run(board, described(limits={"temperature_c": 85}), progress=bar)
    assert pauses == [5, 5]
    assert bar.said[1] == "ssh://board has 84.5 °C: measuring waits until it has 80"
    assert len(board.jobs) == 3


def test_heat_that_is_not_told_while_it_cools_is_waited_for(run: Run, pauses: list[float]) -> None:
    silent = Telemetry(state=STATE)
    board = Board(says=[COOL, hot(86.0), silent, hot(84.0), silent, hot(79.0), COOL])
    bar = Notes()
    run(board, described(limits={"temperature_c": 85}), progress=bar)
    assert pauses == [5, 5, 5, 5]
    assert bar.notes[:4] == ["waits at 86 °C", "waits", "waits at 84 °C", "waits"]


def test_one_that_got_too_hot_and_falls_silent_is_given_up(run: Run, pauses: list[float]) -> None:
    board = Board(says=[COOL, COOL, Telemetry(state=STATE)], hot=[90.0])
    message = "tells no temperature after 15 minutes, and must have 80; what was finished is kept"
    with pytest.raises(DeviceError, match=message):
        run(board, described(limits={"temperature_c": 85}))
    assert sum(pauses) == 900
    assert len(board.jobs) == 1


# -- GPUs ------------------------------------------------------------------------------------


def card(**state: str) -> Telemetry:
    return replace(COOL, state={**STATE, **state})


@pytest.mark.parametrize(
    ("runtime", "started"), [("tensorrt", [2, 0, 2, 2]), ("onnxruntime", [2, 0, 0, 0])]
)
def test_processes_of_two_gpus_are_not_put_together(
    run: Run, tmp_path: Path, runtime: str, started: list[int]
) -> None:
    """Neither of two that are alike, nor where one is not the one that works."""
    known = {"gpu": "H100", "gpu_id": "1"}
    for state, count in zip(
        (known, known, {**known, "gpu_id": "2"}, {"gpu": "A2"}), started, strict=True
    ):
        board = Board()
        board.told = card(**state)
        run(board, None, runtime=runtime, journal=tmp_path)
        assert len(board.jobs) == count


@pytest.mark.parametrize(
    ("runtime", "kind", "state", "warned"),
    [
        ("tensorrt", "gpu", {}, True),
        ("tensorrt", "gpu", {"gpu": "H100"}, False),
        ("tensorrt", "jetson", {}, False),
        ("onnxruntime", "gpu", {}, False),
    ],
)
def test_a_gpu_that_nothing_tells_of_is_warned_of(
    run: Run, runtime: str, kind: str, state: dict[str, str], warned: bool
) -> None:
    bar, board = Notes(), Board()
    board.told, board.machine = card(**state), replace(MACHINE, kind=kind)
    run(board, None, runtime=runtime, progress=bar)
    assert any("install nvidia-ml-py into the Python" in line for line in bar.said) is warned


# -- memory ----------------------------------------------------------------------------------


def test_fewer_networks_share_a_process_where_memory_is_short(
    run: Run, tiny_subjects: dict[str, Subject]
) -> None:
    many = {f"net {n}": tiny_subjects["large"] for n in range(8)}
    sizes = {mib: Board() for mib in (1, 1000)}
    for mib, board in sizes.items():
        place: Any = board
        device = described(limits={"memory_mib": mib})
        reference = tiny_subjects["small"]
        measure(many, reference, protocol=QUICK, target=place, device=device)
    assert max(len(job["models"]) for job in sizes[1000].jobs) == 9
    assert max(len(job["models"]) for job in sizes[1].jobs) < 9
    assert all(job["limits"]["memory_mib"] == 1 for job in sizes[1].jobs)


def test_a_network_that_cannot_fit_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "stat", _huge(Path.stat))
    board = Board()
    with pytest.raises(InputError, match=r"has 100 MiB as a file, more than the 50 that"):
        run(board, described(limits={"memory_mib": 50}))
    assert not board.jobs


def _huge(real: Callable[..., Any]) -> Callable[..., Any]:
    def stat(path: Path, **options: Any) -> Any:
        found = real(path, **options)
        if path.suffix != ".model":
            return found
        return type(found)((*found[:6], 100 * 2**20, *found[7:]))

    return stat


# -- power -----------------------------------------------------------------------------------


MODES = {"modes": ["15W", "30W"], "mode": "30W"}


def test_another_power_mode_is_refused_before_anything(run: Run) -> None:
    board = Board()
    message = "expected power mode 30W, found 15W; set it there with: sudo nvpmodel -m NUMBER"
    with pytest.raises(DeviceError, match=message):
        run(board, described(power=MODES))
    assert not board.jobs


def test_clocks_that_vary_are_refused_before_anything(run: Run) -> None:
    board = Board(says=[replace(COOL, state={**STATE, "clocks": "free"})])
    with pytest.raises(DeviceError, match="expected fixed clocks, found free.*sudo jetson_clocks"):
        run(board, described(power={"clocks": "fixed"}))
    assert not board.jobs


@pytest.mark.parametrize("demanded", [{}, {"clocks": "fixed"}])
def test_a_mode_that_changes_in_the_midst_drops_that_process(
    run: Run, demanded: dict[str, str], tmp_path: Path
) -> None:
    """Whether or not the file demands one: a table speaks of one."""
    other = replace(COOL, state={**STATE, "power_mode": "7W"})
    board = Board(after=other, says=[COOL, COOL, other] if demanded else [COOL, other])
    message = "its power mode was 15W-jetson_clocks and is 7W-jetson_clocks; the process"
    with pytest.raises(DeviceError, match=message):
        run(board, described(power=demanded), journal=tmp_path)
    (journal,) = tmp_path.glob("*.jsonl")
    assert len(journal.read_text().splitlines()) == 1, "only its head, no record"


def test_a_mode_that_could_not_be_read_once_has_not_changed(run: Run) -> None:
    board = Board(after=Telemetry())
    assert run(board, None)["large"].repeats == 8
    assert board.asked == 2


def test_clocks_that_are_let_go_in_the_midst_drop_that_process(run: Run) -> None:
    loose = replace(COOL, state={"power_mode": "15W", "jetson_clocks": "on", "clocks": "free"})
    board = Board(after=loose)
    with pytest.raises(DeviceError, match="found free; .*measured meanwhile is dropped; what was"):
        run(board, described(power={"clocks": "fixed"}))


def test_what_is_wrong_between_two_processes_is_seen(run: Run) -> None:
    loose = replace(COOL, state={**STATE, "clocks": "free"})
    board = Board(says=[COOL, COOL, loose])
    with pytest.raises(DeviceError, match="expected fixed clocks, found free"):
        run(board, described(power={"clocks": "fixed"}))
    assert len(board.jobs) == 1


def test_another_kind_of_machine_is_refused(run: Run) -> None:
    with pytest.raises(DeviceError, match="expected a processor of x86_64, found aarch64"):
        run(Board(), load_device("cpu-x86"))


# -- what is told of it all ------------------------------------------------------------------


def test_telemetry_of_all_processes_is_joined(run: Run, tmp_path: Path) -> None:
    first = run(Board(), None, journal=tmp_path)
    assert first.telemetry.temperature_c == (40, 45, 52)
    assert (first.windows, first.rejected, first.throttled) == (4, 2, 0)
    assert first.other_load == 0.25
    again = run(Board(), None, journal=tmp_path)
    assert again == first and again.telemetry == first.telemetry
    (journal,) = tmp_path.glob("*.jsonl")
    (_, record, _) = map(json.loads, journal.read_text().splitlines())
    assert record["telemetry"]["temperatures_c"] == {"cpu": 50.0}


# -- real processes ---------------------------------------------------------------------------


def test_real_workers_do_as_the_device_file_says(
    tiny_subjects: dict[str, Subject],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)
    core = min(os.sched_getaffinity(0))
    local = load_device("local").model_copy(update={"cores": (core,)})
    taken = measure(
        tiny_subjects, tiny_subjects["small"], protocol=QUICK, device=local, journal=tmp_path
    )
    (journal,) = tmp_path.glob("*.jsonl")
    for line in journal.read_text().splitlines()[1:]:
        record = json.loads(line)
        assert 10 < record["peak_mib"] < 4000
        assert record["throttled"] == 0 or record["trace"]["throttled"]
        assert 0 <= record["others"] <= 1
    assert taken.windows >= QUICK.processes * QUICK.rounds
    small = local.model_copy(update={"limits": Limits(memory_mib=20)})
    message = r"take \d+ MiB with their engine, more than the 20 that limits.memory_mib allows"
    with pytest.raises(DeviceError, match=message):
        measure(tiny_subjects, tiny_subjects["small"], protocol=QUICK, device=small)
