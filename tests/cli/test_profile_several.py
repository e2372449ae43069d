"""``profile`` of several devices at the same time: turns, failures, Ctrl-C, what is shown."""

import importlib
import io
import re
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ofa_deploy.errors import DeviceError, NoisyDeviceError
from ofa_deploy.hardware import Device, LatencyTable
from ofa_deploy.space import SearchSpace, get_space
from tests.search.measured import measured_table

Cli = Callable[..., Any]
job_module: Any = importlib.import_module("ofa_deploy.cli._profile_job")
several: Any = importlib.import_module("ofa_deploy.cli._profile_several")
output: Any = importlib.import_module("ofa_deploy.cli._output")
NANO = get_space("mbv3-nano-32")
STEPS = 4


@dataclass
class Floor:
    """Devices whose measuring takes no time.

    Attributes:
        said: (device, what it did), in order.
        fails: by device, with what.
        pause: by device, called before it has built.
        during: by device, called while it measures.
        asked: by device, of ``profile_space``.
    """

    said: list[tuple[str, str]] = field(default_factory=list)
    fails: dict[str, BaseException] = field(default_factory=dict)
    pause: dict[str, Callable[[], None]] = field(default_factory=dict)
    during: dict[str, Callable[[Any], None]] = field(default_factory=dict)
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)

    def target(self, device: Device, *, progress: Any) -> Any:
        @contextmanager
        def reached() -> Iterator[Any]:
            yield device.ssh and SimpleNamespace(name=str(device.ssh))

        return reached()

    def profile(self, space: SearchSpace, device: Device, **options: Any) -> LatencyTable:
        progress, journal, turns = (options[name] for name in ("progress", "journal", "turns"))
        self.asked[device.id] = options
        journal.mkdir(parents=True, exist_ok=True)
        (journal / "own.jsonl").write_text("{}\n")
        with turns.building(), progress.task("graphs", STEPS) as task:
            self.said.append((device.id, "builds"))
            for _ in range(STEPS):
                task.advance()
            self.pause.get(device.id, lambda: None)()
            self.said.append((device.id, "has built"))
        with turns.measuring(), progress.task("build trust in 36 blocks", STEPS) as task:
            self.said.append((device.id, "measures"))
            self.during.get(device.id, lambda task: None)(task)
            for _ in range(STEPS):
                task.advance()
            if device.id in self.fails:
                raise self.fails[device.id]
        options["kept"](journal / "own.jsonl")
        return measured_table(space, device.id)

    def when(self, device: str, what: str) -> int:
        return self.said.index((device, what))


@pytest.fixture
def floor(monkeypatch: pytest.MonkeyPatch, here: Path) -> Floor:
    """Devices a, b and c behind SSH, and this machine."""
    made = Floor()
    monkeypatch.setattr(job_module, "profile_space", made.profile)
    monkeypatch.setattr(job_module, "open_target", made.target)
    (here / "devices").mkdir()
    for name in "abc":
        (here / "devices" / f"{name}.toml").write_text(
            f'schema = "device/1"\nid = "{name}"\nname = "{name}"\nkind = "cpu"\n'
            f'connection = "ssh://me@{name}.local"\n'
            'runtimes = ["onnxruntime"]\nprecisions = ["fp32"]\n'
        )
    return made


def asked(*devices: str) -> list[str]:
    named = [part for device in devices for part in ("--device", device)]
    return ["profile", "--space", NANO.name, "--minutes", "2", *named]


def tables() -> set[str]:
    return {path.parent.name for path in Path("latency_tables").glob("*/*.json")}


def test_all_are_measured_and_searched_together(cli: Cli, floor: Floor) -> None:
    made = cli(*asked("a", "b", "local"))
    assert made.code == 0, made.stderr
    assert tables() == {"a", "b", "local"}
    assert {options["minutes"] for options in floor.asked.values()} == {2.0}, "each has them all"
    assert not list(Path("latency_tables").glob("*/.*-fp32")), "the journal is what the table holds"
    for device in ("a", "b", "local"):
        assert f"\n{device}: latency reaches from " in f"\n{made.stderr}"
        assert f"wrote latency_tables/{device}/" in made.stderr
    following = shlex.split(made.stderr.partition("next:\n")[2])
    assert following[:4] == ["ofa-deploy", "search", "--run", "RUN"]
    assert following[4:7] == ["--device", "a", "--constraint"]
    assert following[7].startswith("latency[a] <= ")


def test_unfinished_work_of_other_settings_is_kept(cli: Cli, floor: Floor) -> None:
    """Of other threads, minutes or power modes: their journals lie in the same folder."""
    work = Path(f"latency_tables/a/.{NANO.fingerprint}-onnxruntime-fp32")
    work.mkdir(parents=True)
    (work / "other.jsonl").write_text("{}\n")
    made = cli(*asked("a"))
    assert made.code == 0, made.stderr
    assert [path.name for path in work.iterdir()] == ["other.jsonl"]


def test_what_a_linked_folder_holds_is_kept(cli: Cli, floor: Floor, here: Path) -> None:
    kept = here / "kept"
    kept.mkdir()
    (kept / "other.jsonl").write_text("{}\n")
    (here / "latency_tables/a").mkdir(parents=True)
    work = here / f"latency_tables/a/.{NANO.fingerprint}-onnxruntime-fp32"
    work.symlink_to(kept)
    assert cli(*asked("a")).code == 0
    assert [path.name for path in kept.iterdir()] == ["other.jsonl"]


def test_one_builds_at_a_time_and_this_machine_is_measured_when_all_have(
    cli: Cli, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building takes time of this machine, which would be in what is measured on it."""

    @contextmanager
    def late(device: Device, *, progress: Any) -> Iterator[Any]:
        """Other devices are reached when this machine's graphs are built, so that it must wait."""
        while device.ssh and ("local", "has built") not in floor.said:
            threading.Event().wait(0.01)
        with floor.target(device, progress=progress) as reached:
            yield reached

    monkeypatch.setattr(job_module, "open_target", late)
    floor.pause["a"] = floor.pause["b"] = lambda: threading.Event().wait(0.3) and None
    made = cli(*asked("local", "a", "b"))
    assert made.code == 0, made.stderr
    built = [what for what in floor.said if "buil" in what[1]]
    assert all(one[0] == other[0] for one, other in zip(built[::2], built[1::2], strict=True))
    for remote in ("a", "b"):
        assert floor.when("local", "measures") > floor.when(remote, "has built")
    assert "local: waits until the graphs for" in made.stderr


def test_one_that_fails_does_not_stop_the_others(cli: Cli, floor: Floor) -> None:
    floor.fails["b"] = NoisyDeviceError("too noisy to measure")
    made = cli(*asked("a", "b", "c"), "--threads", "2", "--seed", "0")
    message = made.error(4)
    assert "b: failed: too noisy to measure" in made.stderr.splitlines()
    assert "1 of 3 devices failed: b; finished work is kept, go on with: " in message
    assert tables() == {"a", "c"}
    again = shlex.split(message.partition("go on with: ")[2])
    assert again == [
        *("ofa-deploy", "profile", "--space", NANO.name, "--threads", "2", "--minutes", "2.0"),
        *("--seed", "0", "--device", "b"),
    ]
    assert list(Path("latency_tables/b").glob(".*-fp32")), "its journal"


def test_what_fails_here_is_no_device(cli: Cli, floor: Floor) -> None:
    floor.fails["b"] = OSError(28, "No space left on device")
    made = cli(*asked("a", "b"))
    assert "1 of 2 devices failed: b" in made.error(1)
    assert "b: failed: [Errno 28] No space left on device" in made.stderr
    floor.fails["b"] = ZeroDivisionError("a mistake of ours")
    Path("latency_tables/b").rename("gone")
    with pytest.raises(ZeroDivisionError):  # not hidden
        cli(*asked("c", "b"))
    assert tables() == {"a", "c"}


def test_a_device_that_cannot_be_reached_does_not_hold_up_this_machine(
    cli: Cli, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach = floor.target

    def unreachable(device: Device, *, progress: Any) -> Any:
        if device.id == "a":
            raise DeviceError("ssh://me@a.local: it cannot be reached")
        return reach(device, progress=progress)

    monkeypatch.setattr(job_module, "open_target", unreachable)
    made = cli(*asked("a", "local"), "--quiet")
    assert "1 of 2 devices failed: a" in made.error(4)
    assert "--quiet --device a" in made.stderr
    assert tables() == {"local"}


def test_ctrl_c_ends_all_and_says_how_to_go_on(cli: Cli, floor: Floor) -> None:
    at_work, turns = threading.Event(), threading.Event()

    def works_on(task: Any) -> None:
        while True:
            task.advance(0)
            at_work.set()
            turns.wait(0.01)

    def interrupt() -> None:
        at_work.wait()
        while not tables():
            turns.wait(0.01)
        signal.raise_signal(signal.SIGINT)

    floor.during["b"] = works_on
    before = set(threading.enumerate())  # other tests' libraries may have some
    sender = threading.Thread(target=interrupt)
    sender.start()
    made = cli(*asked("a", "b"))
    sender.join()
    assert made.code == 130
    assert tables() == {"a"}
    assert made.stderr.splitlines()[-1] == (
        "interrupted; finished work is kept, go on with: "
        f"ofa-deploy profile --space {NANO.name} --minutes 2.0 --device b"
    )
    assert "failed" not in made.stderr
    assert set(threading.enumerate()) <= before, "nothing goes on in the background"


@pytest.mark.parametrize("why", [KeyboardInterrupt(), RuntimeError("can't start new thread")])
def test_those_that_were_started_end_when_another_cannot_be(
    cli: Cli, floor: Floor, monkeypatch: pytest.MonkeyPatch, why: BaseException
) -> None:
    pause, start = threading.Event(), several._Part.start

    def works_on(task: Any) -> None:
        while True:
            task.advance(0)
            pause.wait(0.01)

    def starts(part: Any) -> None:
        if part.device.id == "b":
            raise why
        start(part)

    floor.during["a"] = works_on
    monkeypatch.setattr(several._Part, "start", starts)
    before = set(threading.enumerate())
    made = cli(*asked("a", "b"))
    if isinstance(why, KeyboardInterrupt):
        assert made.code == 130
        assert "--device a --device b" in made.stderr.splitlines()[-1]
    else:
        assert "expected to start one more thread" in made.error(1)
    assert set(threading.enumerate()) <= before, "nothing goes on in the background"


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (("a", "a"), "expected devices that differ, found a twice"),
        (("local", "ssh://localhost"), "local and localhost are the same machine (this machine)"),
        (("ssh://me@127.0.0.1", "local"), "are the same machine (this machine)"),
        (("a", "ssh://you@A.local:22"), "a and a.local-22 are the same machine (a.local)"),
        (("ssh://box:2201", "ssh://me@box:2201"), "found box-2201 twice"),
        (("local", "amd-epyc-2core"), "are the same machine (this machine)"),
    ],
)
def test_one_machine_is_not_measured_twice_at_once(
    cli: Cli, floor: Floor, devices: tuple[str, ...], message: str
) -> None:
    assert message in cli(*asked(*devices)).error(1)
    assert floor.said == []


def test_machines_behind_one_address_may_differ(cli: Cli, floor: Floor) -> None:
    """By port: tunnels, and routers that pass ports on."""
    made = cli(*asked("ssh://localhost:2201", "ssh://localhost:2202", "local"))
    assert made.code == 0, made.stderr
    assert tables() == {"localhost-2201", "localhost-2202", "local"}


def test_all_is_looked_at_before_anything_is_measured(cli: Cli, floor: Floor) -> None:
    assert "--out is the file of one device" in cli(*asked("a", "b"), "--out", "t.json").error(1)
    assert "unknown device 'bb'" in cli(*asked("a", "bb")).error(1)
    assert "no precision 'int8'" in cli(*asked("a", "local"), "--precision", "int8").error(1)
    assert "no address is known" in cli(*asked("a", "raspberry-pi-5")).error(1)
    assert floor.said == []


def test_each_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal: each bar takes the place of the one before."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, height=20)
    monkeypatch.setattr(output, "_stderr", screen)
    with output.progress_of_several(["a", "b"], False) as bars:
        with bars["a"].task("build", 3) as task:
            task.advance(3)
        with bars["a"].task("measure [1]", 9) as first, bars["b"].task("build", 3) as second:
            first.advance(2, note="round 2")
            second.advance()
            bars["b"].say("the connection dropped")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue())
    last = "\n".join(text.splitlines()[-3:])
    assert "a: measure [1]" in last and "2/9" in last and "round 2" in last
    assert "b: build" in last and "1/3" in last
    assert "a: build" not in last
    assert "b: the connection dropped" in text


def test_each_has_its_lines_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "_stderr", Console(stderr=True, highlight=False))
    with output.progress_of_several(["a", "b"], False) as bars:
        with bars["a"].task("measure", 9) as task:
            task.advance(9)
        bars["b"].say("the connection dropped")
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("a: measure: 9/9 in 0 s")
    assert said[1] == "b: the connection dropped"
