"""A session with the agent as it is sent, spoken to line by line."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.hardware import Identity, Telemetry, Trace, identify
from ofa_deploy.profiling.remote.session import Hello
from ofa_deploy.runtimes import get_runtime
from tests.profiling.places import QUICK, bare_site, interpreter
from tests.profiling.sessions import (
    Agent,
    change_agent,
    children,
    folders,
    job,
    long_job,
    running,
    within,
)

pytestmark = pytest.mark.timeout(60)


# -- what it does ---------------------------------------------------------------------------


def test_a_session_from_hello_to_bye(
    start: Callable[..., Agent], model: bytes, agents: Path
) -> None:
    name = hashlib.sha256(model).hexdigest()
    with start() as agent:
        assert agent.hello["hello"] == 2
        Hello.model_validate_json(json.dumps(agent.hello))
        assert Identity(**{f.name: agent.hello[f.name] for f in fields(Identity)}) == replace(
            identify(), python=agent.hello["python"]
        )
        for gpu in (False, True):
            state = agent.ask(do="state", gpu=gpu)["state"]
            assert Telemetry.from_dict(state) is not None
        assert agent.hello["runtimes"]["onnxruntime"] == get_runtime("onnxruntime").version
        assert "openvino" not in agent.hello["runtimes"]
        assert agent.hello["others"] == 0
        assert agent.ask(do="need", models=[name]) == {"missing": [name]}
        assert agent.put(model) == {"have": name}
        assert agent.ask(do="need", models=[name]) == {"missing": []}
        agent.send(json.dumps({"do": "time", "job": job(model)}).encode() + b"\n")
        engine, *rounds, result, end = agent.until("ended")
        assert engine == {"engine": get_runtime("onnxruntime").version}
        assert rounds == [{"rounds": 1}, {"rounds": 2}]
        assert set(result["result"]) == {"", "other"}
        assert result["result"]["other"]["runs"] == QUICK.rounds * QUICK.runs
        assert end["ended"] == 0
        assert 0 <= end["others"] <= 1
        assert agent.ask(do="ping") == {"pong": True}
        agent.send(b'{"do": "bye"}\n')
        assert agent.ended() == 0
    assert list(agents.iterdir()) == []


def test_another_request_may_come_while_a_job_runs(
    start: Callable[..., Agent], model: bytes
) -> None:
    with start() as agent:
        agent.put(model)
        agent.send(json.dumps({"do": "time", "job": long_job(model)}).encode() + b"\n")
        agent.until("rounds")
        agent.send(b'{"do": "ping"}\n')
        agent.until("pong")
        agent.send(json.dumps({"do": "time", "job": job(model)}).encode() + b"\n")
        assert agent.until("error")[-1] == {"error": "a job is running already"}


def test_what_a_job_leaves_running_is_ended(agents: Path, model: bytes, tmp_path: Path) -> None:
    """Engines may fork; the copy holds the pipes of its parent open."""
    site = bare_site(tmp_path / "site", ("numpy",))
    forks = "import os, time\nif os.fork() == 0:\n    time.sleep(600)\n"
    (site / "onnxruntime.py").write_text(forks + "raise ImportError('left something behind')\n")
    (site / "onnxruntime-1.0.dist-info").mkdir()
    text = "Metadata-Version: 2.1\nName: onnxruntime\nVersion: 1.0\n"
    (site / "onnxruntime-1.0.dist-info" / "METADATA").write_text(text)
    with Agent(interpreter(tmp_path / "python3", site)) as agent:
        agent.put(model)
        agent.send(json.dumps({"do": "time", "job": job(model)}).encode() + b"\n")
        last, end = agent.until("ended")
        assert "left something behind" in last["error"]
        assert end["ended"] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"runtime": "openvino"}, "openvino cannot be imported"),
        ({"runtime": "abacus"}, "abacus cannot be imported"),
        ({"runtime": "onnxruntime-cuda"}, "has no CUDAExecutionProvider"),
    ],
)
def test_engine_that_is_not_there_is_told(
    start: Callable[..., Agent], model: bytes, changed: dict[str, Any], message: str
) -> None:
    with start() as agent:
        agent.put(model)
        agent.send(json.dumps({"do": "time", "job": job(model, **changed)}).encode() + b"\n")
        *_, last, end = agent.until("ended")
        assert message in last["error"]
        assert end["ended"] == 0


def test_what_cannot_be_done_is_told(start: Callable[..., Agent], model: bytes) -> None:
    with start() as agent:
        assert "unknown request" in agent.ask(do="dance")["error"]
        assert "no room" in agent.ask(do="time", job=job(model))["error"], "nothing was put there"
        damaged = agent.ask(model, do="put", put="0" * 64, size=len(model))
        assert damaged == {"error": "a model arrived damaged"}
        assert agent.put(model)["have"]


def test_a_job_says_what_the_device_said(start: Callable[..., Agent], model: bytes) -> None:
    with start() as agent:
        agent.put(model)
        agent.send(json.dumps({"do": "time", "job": job(model)}).encode() + b"\n")
        *_, result, end = agent.until("ended")
        assert result["throttled"] == 0
        assert 10 < result["peak_mib"] < 4000
        Trace.model_validate(result["trace"])
        assert Telemetry.from_dict(end["telemetry"]) is not None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cores": [4000]}, "expected to measure on core 4000, and not all of that is here"),
        ({"cores": [0], "threads": 2}, "expected a core for each of 2 threads, found core 0"),
        ({"limits": {"memory_mib": 1}}, "MiB with their engine, more than the 1 that limits.mem"),
    ],
)
def test_what_a_device_does_not_allow_is_told(
    start: Callable[..., Agent], model: bytes, changed: dict[str, Any], message: str
) -> None:
    with start() as agent:
        agent.put(model)
        agent.send(json.dumps({"do": "time", "job": job(model, **changed)}).encode() + b"\n")
        *_, last, end = agent.until("ended")
        assert message in last["error"]
        assert end["ended"] == 0


def test_full_disk_is_told_and_the_session_goes_on(
    site: Path, agents: Path, tmp_path: Path, model: bytes
) -> None:
    """The shell's limit makes any larger file fail as a full disk does."""
    python = interpreter(tmp_path / "limited3", site, "ulimit -f 256")  # blocks of 512 or 1024
    with Agent(python) as agent:
        answer = agent.put(b"x" * 600_000)
        assert str(agents) in answer["error"]
        assert agent.put(model)["have"], "what follows is understood"
        (folder,) = folders(agents)
        assert sorted(path.stat().st_size for path in folder.iterdir())[-1] < 600_000


def test_models_go_when_room_is_short(
    bare_python: Path, agents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one job stay; if there is no room for all of them, it is said."""
    change_agent(monkeypatch, ("_MOST = 2**33", "_MOST = 2500"))
    first, second, third = (bytes([n]) * 1000 for n in range(3))
    names = [hashlib.sha256(data).hexdigest() for data in (first, second, third)]
    with Agent(bare_python) as agent:
        for data in (first, second):
            assert "have" in agent.put(data)
        assert agent.ask(do="need", models=names[:1]) == {"missing": []}
        assert "have" in agent.put(third)
        assert agent.ask(do="need", models=names) == {"missing": [names[1]]}
        (folder,) = folders(agents)
        left = {"lock", "agent.py", names[0], names[2]}
        assert {path.name for path in folder.iterdir()} == left
        told = agent.put(second)
        assert told == {"error": f"no room for the models of one job in {folder.parent}"}
        assert {path.name for path in folder.iterdir()} == left


# -- how it ends ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["EOF", "TERM", "HUP"])
def test_whatever_ends_it_nothing_is_left(
    start: Callable[..., Agent], model: bytes, agents: Path, how: str
) -> None:
    with start() as agent:
        agent.put(model)
        agent.send(json.dumps({"do": "time", "job": long_job(model)}).encode() + b"\n")
        agent.until("rounds")
        (worker,) = set(children(agent.process.pid))
        if how == "EOF":
            assert agent.process.stdin is not None
            agent.process.stdin.close()
        else:
            agent.process.send_signal(getattr(signal, f"SIG{how}"))
        assert agent.ended() == 0
        assert not running(worker)
    assert list(agents.iterdir()) == []


def test_nobody_speaks_any_more(
    start: Callable[..., Agent], model: bytes, agents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the host lost its power: nothing is closed, but no sign of life comes."""
    change_agent(
        monkeypatch, ("{True: 60.0,", "{True: 0.5,"), ("time.sleep(5.0)", "time.sleep(0.1)")
    )
    with start() as agent:
        agent.put(model)
        agent.send(json.dumps({"do": "time", "job": long_job(model)}).encode() + b"\n")
        assert agent.ended() == 0
    assert list(agents.iterdir()) == []


def test_nobody_hears_it_any_more(start: Callable[..., Agent], model: bytes, agents: Path) -> None:
    """The other end closed only what it heard with, as a killed ssh does."""
    with start() as agent:
        agent.put(model)
        agent.send(json.dumps({"do": "time", "job": long_job(model)}).encode() + b"\n")
        agent.until("rounds")
        assert agent.process.stdout is not None
        agent.process.stdout.close()
        assert agent.ended() == 0
    assert list(agents.iterdir()) == []


def test_what_a_killed_one_leaves_the_next_removes(
    start: Callable[..., Agent], model: bytes, agents: Path
) -> None:
    with start() as agent, start("other") as neighbour:
        agent.put(model)
        agent.send(json.dumps({"do": "time", "job": long_job(model)}).encode() + b"\n")
        agent.until("rounds")
        (worker,) = set(children(agent.process.pid))
        agent.process.kill()
        agent.ended()
        with within(20) as wait:
            wait(lambda: not running(worker))
        assert len(folders(agents)) == 2
        with start("third") as third:
            assert third.hello["others"] == 1, "the neighbour is alive"
            assert len(folders(agents)) == 2, "its own, and the neighbour's"
            third.send(b'{"do": "bye"}\n')
            third.ended()
        assert neighbour.ask(do="ping") == {"pong": True}
        neighbour.send(b'{"do": "bye"}\n')
        neighbour.ended()
    assert list(agents.iterdir()) == []


def test_what_was_left_meanwhile_goes_too(start: Callable[..., Agent], agents: Path) -> None:
    """As by the measuring process of a killed agent, which outlives it for a moment."""
    with start() as agent:
        (folder,) = folders(agents)
        late = folder.parent / "late"
        late.mkdir()
        (late / "engine").write_text("x")
        agent.send(b'{"do": "bye"}\n')
        agent.ended()
    assert list(agents.iterdir()) == []


@pytest.mark.parametrize("stopped", [False, True])
def test_an_earlier_one_of_the_same_host_is_ended(
    start: Callable[..., Agent],
    model: bytes,
    agents: Path,
    stopped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its connection was lost, and it does not know; one that cannot end by itself is killed.

    What it had is not sent again.
    """
    if stopped:
        change_agent(monkeypatch, ("_PATIENCE_S = 3.0", "_PATIENCE_S = 0.5"))
    with start() as first:
        first.put(model)
        first.send(json.dumps({"do": "time", "job": long_job(model)}).encode() + b"\n")
        first.until("rounds")
        (worker,) = set(children(first.process.pid))
        if stopped:
            first.process.send_signal(signal.SIGSTOP)
        with start() as second:
            assert second.hello["others"] == 0
            assert first.process.wait(10) == (-signal.SIGKILL if stopped else 0)
            with within(20) as wait:
                wait(lambda: not running(worker))
            (folder,) = folders(agents)
            names = [hashlib.sha256(model).hexdigest(), "0" * 64]
            assert second.ask(do="need", models=names) == {"missing": names[1:]}
            assert (folder / names[0]).read_bytes() == model
            second.send(b'{"do": "bye"}\n')
            assert second.ended() == 0
    assert list(agents.iterdir()) == []


def test_somebody_elses_folder_is_not_used(bare_python: Path, agents: Path) -> None:
    root = agents / f"ofa-deploy-agent-{os.getuid()}"
    root.mkdir()
    root.chmod(0o777)
    with Agent(bare_python) as agent:
        assert "not a folder of this user alone" in agent.hello["error"]
