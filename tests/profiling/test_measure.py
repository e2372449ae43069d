"""Measuring with worker processes: real ones, and ones that misbehave."""

import importlib
import math
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest

from ofa_deploy.errors import DeviceError, InputError, NoisyDeviceError
from ofa_deploy.graph import build_onnx
from ofa_deploy.profiling import REFERENCE, Protocol, Subject, measure
from ofa_deploy.space import SearchSpace

QUICK = Protocol(rounds=2, runs=2, processes=2, visit_ms=1e6, tolerance=10)
WORKER = "ofa_deploy.profiling.worker"
REAL = subprocess.Popen
# The package's function `measure` hides the module of that name.
measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")

# A worker that says what a real one says: every subject takes twice as long as the reference.
HONEST = """
import json, sys
job = json.load(sys.stdin)
rejected, own = 0, 1.0
def times(ratio):
    ms = ratio * own
    return {"p10": ms, "p50": ms, "p90": ms, "p99": ms, "runs": 4, "ratio": ratio}
print(json.dumps({"rounds": 1}))
names = [name for name in job["models"] if name != job["reference"]]
result = {"": times(1.0), **{name: times(2.0) for name in names}}
"""
ANSWER = "print(json.dumps({'result': result, 'windows': 2, 'rejected': rejected}))\n"


class Stopped(BaseException):
    """A Ctrl-C that would not stop the tests too."""


@dataclass
class Workers:
    """What stands in for worker processes.

    Attributes:
        script: of Python, run instead of a worker; None runs the real one.
        allowed: so many may start; the next one is interrupted.
        started: so many did.
    """

    script: str | None = None
    allowed: int = 1000
    started: int = 0
    processes: list["subprocess.Popen[Any]"] = field(default_factory=list)

    def popen(self, command: Any, **options: Any) -> "subprocess.Popen[Any]":
        if WORKER not in command:
            return REAL(command, **options)
        if self.started >= self.allowed:
            raise Stopped
        self.started += 1
        if self.script is not None:
            command = [sys.executable, "-I", "-S", "-c", self.script]
        self.processes.append(REAL(command, **options))
        return self.processes[-1]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers()
    monkeypatch.setattr(subprocess, "Popen", made.popen)
    return made


@pytest.fixture(scope="module")
def graphs(tiny_space: SearchSpace) -> dict[str, onnx.ModelProto]:
    return {
        "small": build_onnx(tiny_space.lower(tiny_space.smallest)),
        "large": build_onnx(tiny_space.lower(tiny_space.largest)),
    }


@pytest.fixture(scope="module")
def subjects(graphs: dict[str, onnx.ModelProto]) -> dict[str, Subject]:
    return {
        "small": Subject(lambda: graphs["small"], (1, 3, 12, 12)),
        "large": Subject(lambda: graphs["large"], (1, 3, 16, 16)),
    }


@pytest.fixture(scope="module")
def reference(subjects: dict[str, Subject]) -> Subject:
    return subjects["small"]


# -- real workers ---------------------------------------------------------------------------


def test_real_workers_measure_every_subject_once(
    subjects: dict[str, Subject],
    reference: Subject,
    workers: Workers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)  # however busy this machine is
    taken = measure(subjects, reference, protocol=QUICK, journal=tmp_path)
    assert set(taken) == {"small", "large", REFERENCE}
    assert workers.started == QUICK.processes
    for each in taken.values():
        assert 0 < each.p10 <= each.p50 <= each.p90 <= each.p99
        assert each.ms > 0
    assert taken["large"].repeats == QUICK.processes * QUICK.rounds * QUICK.runs
    workers.allowed = 0
    assert measure(subjects, reference, protocol=QUICK, journal=tmp_path) == taken


def test_crash_of_a_real_worker_is_told_in_one_line(
    subjects: dict[str, Subject], graphs: dict[str, onnx.ModelProto], workers: Workers
) -> None:
    wrong = Subject(lambda: graphs["large"], (1, 5, 16, 16))
    with pytest.raises(DeviceError, match=r"measuring process failed: \S") as error:
        measure({"wrong": wrong}, subjects["small"], protocol=QUICK)
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)
    assert workers.started == 1


# -- the journal ----------------------------------------------------------------------------


def test_killed_half_way_keeps_finished_processes(
    subjects: dict[str, Subject], reference: Subject, workers: Workers, tmp_path: Path
) -> None:
    protocol = Protocol(rounds=2, runs=2, processes=5)
    workers.script, workers.allowed = HONEST + ANSWER, 3
    with pytest.raises(Stopped):
        measure(subjects, reference, protocol=protocol, journal=tmp_path)
    assert workers.started == 3
    workers.allowed = 1000
    taken = measure(subjects, reference, protocol=protocol, journal=tmp_path)
    assert workers.started == 5
    assert taken["large"].repeats == 5 * 4


def test_work_without_a_journal_is_not_kept(
    subjects: dict[str, Subject], reference: Subject, workers: Workers
) -> None:
    workers.script = HONEST + ANSWER
    for _ in range(2):
        measure(subjects, reference, protocol=QUICK)
    assert workers.started == 2 * QUICK.processes


@pytest.mark.parametrize(
    "changed",
    [
        {"protocol": Protocol(rounds=3, runs=2, processes=2)},
        {"threads": 2},
        {"reference": "large"},
        {"subjects": ("small",)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_other_questions_are_measured_anew(
    subjects: dict[str, Subject],
    reference: Subject,
    workers: Workers,
    tmp_path: Path,
    changed: dict[str, Any],
) -> None:
    workers.script = HONEST + ANSWER
    measure(subjects, reference, protocol=QUICK, journal=tmp_path)
    asked = {name: subjects[name] for name in changed.get("subjects", subjects)}
    measure(
        asked,
        subjects[changed.get("reference", "small")],
        protocol=changed.get("protocol", QUICK),
        threads=changed.get("threads", 1),
        journal=tmp_path,
    )
    assert workers.started == 2 * QUICK.processes


def test_other_weights_are_measured_anew(
    tiny_space: SearchSpace, reference: Subject, workers: Workers, tmp_path: Path
) -> None:
    workers.script = HONEST + ANSWER
    for text in ("one", "other"):
        blocks = tiny_space.lower(tiny_space.largest)
        subject = Subject(partial(build_onnx, blocks, metadata={"weights": text}), (1, 3, 16, 16))
        measure({"net": subject}, reference, protocol=QUICK, journal=tmp_path)
    assert workers.started == 2 * QUICK.processes


def test_journal_cut_short_by_a_crash_loses_only_its_last_line(
    subjects: dict[str, Subject], reference: Subject, workers: Workers, tmp_path: Path
) -> None:
    workers.script = HONEST + ANSWER
    first = measure(subjects, reference, protocol=QUICK, journal=tmp_path)
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-7])
    assert measure(subjects, reference, protocol=QUICK, journal=tmp_path) == first
    assert workers.started == QUICK.processes + 1


# -- what workers say -----------------------------------------------------------------------


def disagreeing(
    seen: Path, *, second: float, own: float = 1.0, rejected: int = 0, only: str = ""
) -> str:
    """A worker that sees a ratio of 2, and once it has left ``seen`` behind, another one.

    Args:
        own: the reference's ms then.
        only: the one subject whose ratio differs; all do when empty.
    """
    return f"""{HONEST}
import pathlib
seen, only = pathlib.Path({str(seen)!r}), {only!r}
ratio, own = ({second}, {own}) if seen.exists() else (2.0, 1.0)
seen.touch()
rejected = {rejected}
ratios = {{name: ratio if only in ("", name) else 2.0 for name in names}}
result = {{"": times(1.0), **{{name: times(each) for name, each in ratios.items()}}}}
{ANSWER}"""


def test_figures_are_ratios_times_the_reference(
    subjects: dict[str, Subject], reference: Subject, workers: Workers, tmp_path: Path
) -> None:
    """The second process runs three times as slow, and sees another ratio; the fast one counts."""
    workers.script = disagreeing(tmp_path / "seen", second=2.4, own=3.0)
    taken = measure(subjects, reference, protocol=QUICK)
    assert taken[REFERENCE].ms == pytest.approx(1.0)
    assert taken[REFERENCE].spread == pytest.approx((3 - 1) / 2)
    assert taken["large"].ms == pytest.approx(2.2 * 1.0)
    assert taken["large"].p50 == pytest.approx((2.0 * 1.0 + 2.4 * 3.0) / 2)
    assert taken["large"].spread == pytest.approx((2.4 - 2) / 2.2)


def test_many_subjects_are_spread_over_processes(
    subjects: dict[str, Subject], reference: Subject, workers: Workers
) -> None:
    workers.script = HONEST + ANSWER
    many = {f"net {i}": subjects["large"] for i in range(200)}
    taken = measure(many, reference, protocol=QUICK)
    assert set(taken) == {*many, REFERENCE}
    assert workers.started > QUICK.processes


def test_minutes_are_shared_out_to_processes(
    subjects: dict[str, Subject], reference: Subject, workers: Workers, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    workers.script = (
        HONEST + f"open({str(seen)!r}, 'a').write(str(job['protocol']['seconds']) + ' ')\n" + ANSWER
    )
    many = {f"net {i}": subjects["large"] for i in range(200)}
    measure(many, reference, protocol=QUICK, minutes=2)
    assert seen.read_text().split() == ["30.0"] * workers.started
    assert workers.started == 2 * QUICK.processes


def test_few_minutes_are_no_lack_of_a_limit(
    subjects: dict[str, Subject], reference: Subject, workers: Workers, tmp_path: Path
) -> None:
    """0 seconds would be all the time there is."""
    seen = tmp_path / "seen"
    workers.script = (
        HONEST + f"open({str(seen)!r}, 'a').write(str(job['protocol']['seconds']) + ' ')\n" + ANSWER
    )
    measure(subjects, reference, protocol=QUICK, minutes=0.001)
    assert seen.read_text().split() == ["0.1"] * QUICK.processes


def test_nothing_to_measure_is_an_error(reference: Subject) -> None:
    with pytest.raises(InputError, match="nothing to measure"):
        measure({}, reference, protocol=QUICK)


def test_processes_that_disagree_are_refused(
    subjects: dict[str, Subject], reference: Subject, workers: Workers, tmp_path: Path
) -> None:
    protocol = Protocol(rounds=10, runs=2, processes=2, tolerance=0.1)
    workers.script = disagreeing(tmp_path / "seen", second=2.7, rejected=10)
    message = r"2 processes disagree by 30%, and the reference moved in 20 of 24 windows"
    with pytest.raises(NoisyDeviceError, match=message):
        measure(subjects, reference, protocol=protocol)


def test_noise_is_not_kept_for_the_next_call(
    subjects: dict[str, Subject], reference: Subject, workers: Workers, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    workers.script = disagreeing(tmp_path / "seen", second=4.0)
    with pytest.raises(NoisyDeviceError):
        measure(subjects, reference, protocol=QUICK, journal=journal)
    workers.script = HONEST + ANSWER
    taken = measure(subjects, reference, protocol=QUICK, journal=journal)
    assert workers.started == 2 * QUICK.processes
    assert taken["large"].ms == pytest.approx(2.0)
    assert taken["large"].spread == 0.0
    workers.allowed = 0
    assert measure(subjects, reference, protocol=QUICK, journal=journal) == taken


def test_the_journal_that_keeps_it_is_named(
    subjects: dict[str, Subject], reference: Subject, workers: Workers, tmp_path: Path
) -> None:
    workers.script = HONEST + ANSWER
    assert measure(subjects, reference, protocol=QUICK).journal is None
    found = measure(subjects, reference, protocol=QUICK, journal=tmp_path).journal
    other = measure(subjects, reference, protocol=QUICK, threads=2, journal=tmp_path).journal
    assert {found, other} == set(tmp_path.glob("*.jsonl"))


def test_one_subject_that_moved_is_no_reason_to_refuse(
    subjects: dict[str, Subject], reference: Subject, workers: Workers, tmp_path: Path
) -> None:
    workers.script = disagreeing(tmp_path / "seen", second=4.0, only="large")
    taken = measure({**subjects, "third": reference}, reference, protocol=QUICK)
    assert taken["large"].spread == pytest.approx((4 - 2) / 3)
    assert taken["small"].spread == 0.0


@pytest.mark.parametrize("rejected", [7, 10])
def test_rejected_windows_are_no_reason_to_refuse(
    subjects: dict[str, Subject], reference: Subject, workers: Workers, rejected: int
) -> None:
    """Where the processes agree all the same."""
    workers.script = HONEST + f"rejected = {rejected}\n" + ANSWER
    protocol = Protocol(rounds=10, runs=2, processes=2)
    assert measure(subjects, reference, protocol=protocol)["large"].ms == pytest.approx(2.0)


CRASH = "import sys; sys.stderr.write('first\\nlast words\\n'); sys.exit(3)"
SILENT = "import sys; sys.stdin.read()"
KILLED = "import os, sys; sys.stdin.read(); os.kill(os.getpid(), 9)"
LATE_CRASH = HONEST + ANSWER + "sys.exit(5)\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (CRASH, r"exit 3\): last words"),
        (SILENT, r"no message"),
        (KILLED, r"exit -9\)"),
        (LATE_CRASH, r"exit 5\)"),
    ],
)
def test_crashed_worker_is_a_device_error(
    subjects: dict[str, Subject],
    reference: Subject,
    workers: Workers,
    tmp_path: Path,
    script: str,
    message: str,
) -> None:
    workers.script = script
    with pytest.raises(DeviceError, match=message) as error:
        measure(subjects, reference, protocol=QUICK, journal=tmp_path)
    assert "\n" not in str(error.value)
    assert not isinstance(error.value, NoisyDeviceError)
    (journal,) = tmp_path.glob("*.jsonl")
    assert len(journal.read_text().splitlines()) == 1, "only its head, no record"


@pytest.mark.parametrize(
    "lie",
    [
        "print('Hello, I am a banner')",
        "print('3')",
        "print('{}')",
        "print(json.dumps({'rounds': 'many'}))",
        "print(json.dumps({'result': result}))",
        "print(json.dumps({'result': 3, 'windows': 1, 'rejected': 0}))",
        "del result['large']",
        "del result['large']['ratio']",
        "del result['']",
        "result['large']['ratio'] = float('nan')",
        "result['large']['ratio'] = -1.0",
        "result['large']['p50'] = 'fast'",
        "result['']['p10'] = 0.0",
        "rejected = 'none'",
        "rejected = -1",
        "result['extra'] = times(2.0)",
        "result['large']['speed'] = 3.0",
        "result['large']['runs'] = 0",
        "print(json.dumps({'rejected': 0}))",
        "print(json.dumps({'result': result, 'rejected': 0}))",
        "print(json.dumps({'rounds': -1}))",
    ],
)
def test_worker_that_talks_nonsense_is_a_device_error(
    subjects: dict[str, Subject], reference: Subject, workers: Workers, tmp_path: Path, lie: str
) -> None:
    workers.script = HONEST + lie + "\n" + ("" if lie.startswith("print") else ANSWER)
    with pytest.raises(DeviceError) as error:
        measure(subjects, reference, protocol=QUICK, journal=tmp_path)
    assert "\n" not in str(error.value)
    assert all(process.poll() is not None for process in workers.processes)


def test_nonsense_is_not_kept_for_the_next_call(
    subjects: dict[str, Subject], reference: Subject, workers: Workers, tmp_path: Path
) -> None:
    workers.script = HONEST + "result['large']['ratio'] = -1.0\n" + ANSWER
    with pytest.raises(DeviceError):
        measure(subjects, reference, protocol=QUICK, journal=tmp_path)
    workers.script = HONEST + ANSWER
    taken = measure(subjects, reference, protocol=QUICK, journal=tmp_path)
    assert taken["large"].ms == pytest.approx(2.0)
    assert taken["large"].spread == 0.0


@pytest.mark.timeout(30)
def test_worker_that_complains_at_length_is_heard_out(
    subjects: dict[str, Subject], reference: Subject, workers: Workers
) -> None:
    """More than a pipe holds: nobody may wait for the other to read first."""
    workers.script = HONEST + "sys.stderr.write('warning\\n' * 100_000)\n" + ANSWER
    assert measure(subjects, reference, protocol=QUICK)["large"].ms == pytest.approx(2.0)


def test_worker_that_does_not_listen_is_a_device_error(
    subjects: dict[str, Subject], reference: Subject, workers: Workers
) -> None:
    """The job is more than a pipe holds, so it cannot be handed over."""
    workers.script = "import sys; sys.exit('no room')"
    many = {f"{'long ' * 1000}{i}": subjects["large"] for i in range(60)}
    with pytest.raises(DeviceError, match="no room"):
        measure(many, reference, protocol=QUICK)


@dataclass
class Bar:
    """A progress bar that counts, or that is interrupted when it first moves."""

    interrupts: bool = False
    total: int = 0
    at: int = 0

    def task(self, description: str, total: int, *, done: int = 0) -> "Bar":
        self.total, self.at = total, done
        return self

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self.interrupts:
            raise Stopped
        self.at += steps

    def say(self, message: str) -> None:
        pass


def test_interrupt_leaves_no_worker_behind(
    subjects: dict[str, Subject], reference: Subject, workers: Workers
) -> None:
    """Ctrl-C while a worker is at work."""
    workers.script = HONEST + "sys.stdout.flush()\nimport time\ntime.sleep(600)\n"
    with pytest.raises(Stopped):
        measure(subjects, reference, protocol=QUICK, progress=Bar(interrupts=True))
    (process,) = workers.processes
    assert process.poll() is not None


@pytest.mark.parametrize("finished", [0, 1])
def test_progress_reaches_its_end(
    subjects: dict[str, Subject],
    reference: Subject,
    workers: Workers,
    tmp_path: Path,
    finished: int,
) -> None:
    workers.script = HONEST + "print(json.dumps({'rounds': 2}))\n" + ANSWER
    if finished:
        workers.allowed = finished
        with pytest.raises(Stopped):
            measure(subjects, reference, protocol=QUICK, journal=tmp_path)
        workers.allowed = 1000
    bar = Bar()
    measure(subjects, reference, protocol=QUICK, journal=tmp_path, progress=bar)
    assert bar.at == bar.total == QUICK.rounds * QUICK.processes
