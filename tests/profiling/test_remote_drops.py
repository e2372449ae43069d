"""Connections that drop, agents that are killed, devices that are started anew: nothing is lost."""

import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.errors import DeviceError
from ofa_deploy.profiling import (
    Protocol,
    RemoteTarget,
    Subject,
    measure,
)
from ofa_deploy.profiling.remote.bundle import agent_source, opening
from tests.profiling.fakes import Notes, Pauses, agent, dying, taken
from tests.profiling.places import QUICK, Direct

measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")
session_module: Any = importlib.import_module("ofa_deploy.profiling.remote.session")
pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("where", ["finish", "time", "missing", "put"])
def test_an_interrupted_process_begins_again(
    tiny_subjects: dict[str, Subject], tmp_path: Path, where: str
) -> None:
    transport, bar = agent(dying(tmp_path / "seen", 3, where)), Notes()
    found = taken(tiny_subjects, transport, progress=bar, journal=tmp_path)
    assert found["large"].ms == pytest.approx(2.0)
    assert transport.started == 4
    assert bar.at == bar.total == QUICK.rounds * QUICK.processes, "no round is told twice"
    assert len(bar.said) == 3
    assert all("trying again in" in line for line in bar.said)
    (file,) = tmp_path.glob("*.jsonl")
    assert len(file.read_text().splitlines()) == 1 + QUICK.processes


def test_pauses_grow_and_end(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    pauses, transport = Pauses(), agent("\ndef finish(job, answer, end):\n    os._exit(7)\n")
    with RemoteTarget(transport, delays_s=(1, 2, 4), sleep=pauses) as target:
        message = "exit code 7.*tried 4 times; finished work is kept, run again to go on"
        with pytest.raises(DeviceError, match=message):
            measure(
                tiny_subjects,
                tiny_subjects["small"],
                protocol=QUICK,
                target=target,
                journal=tmp_path,
            )
    assert pauses == [1, 2, 4]
    assert transport.started == 4
    assert taken(tiny_subjects, agent(), journal=tmp_path)["large"].ms == pytest.approx(2.0)


def test_pauses_begin_anew_with_each_process(
    tiny_subjects: dict[str, Subject], tmp_path: Path
) -> None:
    """A device that drops now and then is not given up."""
    seen = tmp_path / "seen"
    fickle = f"""
honest = finish
def finish(job, answer, end):
    seen = {str(seen)!r}
    odd = os.path.exists(seen)
    os.unlink(seen) if odd else open(seen, "w").close()
    honest(job, answer, end) if odd else os._exit(7)
"""
    pauses, protocol = Pauses(), Protocol(rounds=2, runs=2, processes=6)
    with RemoteTarget(agent(fickle), delays_s=(1, 2), sleep=pauses) as target:
        measure(tiny_subjects, tiny_subjects["small"], protocol=protocol, target=target)
        assert target.reconnects == 6
    assert pauses == [1] * 6


def test_a_device_that_says_nothing_is_dropped(
    tiny_subjects: dict[str, Subject], tmp_path: Path
) -> None:
    mute = f"""
honest = time
def time(job):
    if os.path.exists({str(tmp_path / "mute")!r}):
        return honest(job)
    open({str(tmp_path / "mute")!r}, "w").close()
    i.read()
"""
    bar = Notes()
    with RemoteTarget(agent(mute), sleep=Pauses(), progress=bar) as target:
        assert target._session is not None
        target._session._silence_s = 1.5  # once it is there: a Python takes a while to start
        measure(tiny_subjects, tiny_subjects["small"], protocol=QUICK, target=target, progress=bar)
        assert target.reconnects == 1
    assert "ssh://device has said nothing for" in bar.said[0]


def test_a_device_that_answers_and_does_not_go_on_is_given_up(
    tiny_subjects: dict[str, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "patience_s", lambda names: 0.1 * len(names))
    transport = agent("\ndef time(job):\n    say({'engine': '1.19.2'})\n")
    with RemoteTarget(transport, sleep=Pauses()) as target:
        assert target._session is not None
        target._session._ping_s = 0.01
        with pytest.raises(DeviceError, match="^ssh://device answers, but has not gone on for 0 m"):
            measure(tiny_subjects, tiny_subjects["small"], protocol=QUICK, target=target)
    assert transport.started == 1


def test_what_a_devices_shell_complains_of_is_not_about_coming_in(
    tiny_subjects: dict[str, Subject], tmp_path: Path
) -> None:
    """It had let this host in before the connection dropped."""
    dies = dying(tmp_path / "seen", 1).replace("os._exit(7)", "os._exit(255)")
    shell = "\nprint('git@host: Permission denied (publickey).', file=sys.stderr, flush=True)\n"
    bar = Notes()
    assert taken(tiny_subjects, agent(shell + dies), progress=bar)["large"].ms == pytest.approx(2.0)
    (said,) = bar.said
    assert "trying again in" in said


def test_a_reboot_is_noticed(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    rebooted = dying(tmp_path / "seen", 1, then="hello['boot'] = 'second'")
    bar = Notes()
    with RemoteTarget(agent(rebooted), sleep=Pauses(), progress=bar) as target:
        measure(
            tiny_subjects, tiny_subjects["small"], protocol=QUICK, target=target, journal=tmp_path
        )
        assert (target.reconnects, target.reboots) == (1, 1)
        assert target.hello.boot == "second"
    assert "ssh://device has been started anew" in bar.said[1]
    (file,) = tmp_path.glob("*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    assert [record["boot"] for record in records] == ["second", "second"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("hello['board'] = 'two'", r"board \(one, two\)"),
        ("hello['processor'] = 'Other'", r"processor \(Board, 4 cores, Other\)"),
        ("hello['telemetry'] = {'state': {'power_mode': '30W'}}", r"power_mode \(15W, 30W\)"),
        ("hello['runtimes'] = {'onnxruntime': '1.20.0'}", r"runtimes \("),
    ],
)
def test_another_device_at_the_same_address_is_refused(
    tiny_subjects: dict[str, Subject], tmp_path: Path, change: str, message: str
) -> None:
    with pytest.raises(DeviceError, match=f"another device than before.*{message}"):
        taken(tiny_subjects, agent(dying(tmp_path / "seen", 1, then=change)))


def test_what_was_finished_is_not_measured_again(
    tiny_subjects: dict[str, Subject], tmp_path: Path
) -> None:
    """Not even by another run, after one that was given up."""
    protocol, seen = Protocol(rounds=2, runs=2, processes=5), tmp_path / "seen"
    counting = f"""
honest = finish
def finish(job, answer, end):
    with open({str(seen)!r}, "a") as file:
        file.write("x")
    honest(job, answer, end)
"""
    given_up = (
        f"{counting}\nkept = time\ndef time(job):\n    os.path.exists({str(seen)!r}) and "
        + (f"len(open({str(seen)!r}).read()) >= 3 and os._exit(7)\n    kept(job)\n")
    )
    with pytest.raises(DeviceError, match="tried 2 times"):
        taken(tiny_subjects, agent(given_up), protocol, journal=tmp_path, delays_s=(1,))
    found = taken(tiny_subjects, agent(counting), protocol, journal=tmp_path)
    assert len(seen.read_text()) == 5
    assert found["large"].repeats == 5 * 4


def test_an_agent_that_is_killed_loses_nothing(
    tiny_subjects: dict[str, Subject],
    bare_python: Path,
    agents: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real one, with SIGKILL, in the midst of a job, three times.

    Its own measuring process kills it after a round: whoever does so from outside may come when all
    has been said.
    """
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)
    was, seen = '        say({"rounds": event})\n', tmp_path / "seen"
    kill = f"""
        with open({str(seen)!r}, "a+b") as file:
            if file.tell() < 3:
                file.write(b"x")
                file.flush()
                os.kill(os.getppid(), signal.SIGKILL)
                os._exit(9)
"""
    source = agent_source()
    assert source.count(was) == 1
    indented = "".join(f"    {line}\n" for line in kill.splitlines()).lstrip("\n")
    killing = opening(source.replace(was, was + indented))
    monkeypatch.setattr(session_module, "opening", lambda: killing)
    bar = Notes()
    with RemoteTarget(Direct(bare_python), sleep=Pauses(), progress=bar) as target:
        found = measure(
            tiny_subjects, tiny_subjects["small"], protocol=QUICK, target=target, progress=bar
        )
        assert target.reconnects == seen.stat().st_size == 3
    assert bar.at == bar.total == QUICK.rounds * QUICK.processes
    assert found["large"].repeats == QUICK.processes * QUICK.rounds * QUICK.runs
    assert list(agents.iterdir()) == []


def test_interrupt_leaves_nothing_behind(
    tiny_subjects: dict[str, Subject], bare_python: Path, agents: Path
) -> None:
    class Stopped(BaseException):
        """A Ctrl-C that would not stop the tests too."""

    def advance(steps: int = 1, note: str = "") -> None:
        raise Stopped

    bar = Notes()
    bar.advance = advance  # type: ignore[method-assign]
    with pytest.raises(Stopped), RemoteTarget(Direct(bare_python)) as target:
        session = target._session
        measure(tiny_subjects, tiny_subjects["small"], protocol=QUICK, target=target, progress=bar)
    assert session is not None
    assert session._pipe.process.poll() is not None
