"""Sessions in which something goes wrong that nobody could foresee: it is told, and it ends."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.profiling.places import bare_site, interpreter
from tests.profiling.sessions import Agent, change_agent, job

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(
    ("crash", "told"),
    [
        (
            "raise RuntimeError('CUDA:\\nout of memory')",
            {"error": "RuntimeError: CUDA: out of memory"},
        ),
        ("print('a bug of an engine', file=sys.stderr); os._exit(3)", {"ended": 3}),
    ],
)
def test_a_job_that_crashes_is_told_and_the_session_goes_on(
    start: Callable[..., Agent],
    model: bytes,
    crash: str,
    told: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    was = "timings = _timed(reference, calls, job, watch, say)"
    now = f"exec({crash!r} if job['threads'] > 1 else '')"
    change_agent(monkeypatch, (was, f"{now}; {was}"))
    with start() as agent:
        agent.put(model)
        agent.send(json.dumps({"do": "time", "job": job(model, threads=2)}).encode() + b"\n")
        heard = agent.until("ended")
        assert any(told.items() <= line.items() for line in heard)
        assert heard[-1]["last"] == ("a bug of an engine" if "ended" in told else "")
        agent.send(json.dumps({"do": "time", "job": job(model)}).encode() + b"\n")
        assert agent.until("ended")[-1]["ended"] == 0


def test_a_session_that_stumbles_over_a_job_ends(
    start: Callable[..., Agent], model: bytes, agents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the host, which still gets signs of life, learns of it and tries again."""
    was = "state = _telemetry(gpu=gpu).to_dict()\n"
    change_agent(monkeypatch, (was, "raise ValueError('a sensor says\\nsomething new')\n"))
    with start() as agent:
        agent.put(model)
        agent.send(json.dumps({"do": "time", "job": job(model)}).encode() + b"\n")
        assert agent.ended() == 0
        assert agent.process.stderr is not None
        said = agent.process.stderr.read().decode().splitlines()
        assert said[-1] == "ValueError: a sensor says something new"
    assert list(agents.iterdir()) == []


def test_what_a_job_leaves_open_is_not_waited_for(
    start: Callable[..., Agent], model: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has left the measuring process's group still holds its stderr."""
    script = f"echo $$ > {tmp_path / 'pid'}; exec sleep 600"
    left = (
        f"__import__('subprocess').Popen(['sh', '-c', {script!r}], stdout=-3, start_new_session=1)"
    )
    was = "timings = _timed(reference, calls, job, watch, say)"
    shorter = ("_LAST_WORDS_S = 5.0", "_LAST_WORDS_S = 0.1")
    change_agent(monkeypatch, (was, f"{left}; {was}"), shorter)
    with start() as agent:
        agent.put(model)
        agent.send(json.dumps({"do": "time", "job": job(model)}).encode() + b"\n")
        try:
            assert agent.until("ended")[-1]["ended"] == 0
        finally:
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_an_engine_that_talks_while_it_is_asked_for_its_version(
    agents: Path, tmp_path: Path
) -> None:
    site = bare_site(tmp_path / "site", ("numpy",))
    talks = "import os\nprint('welcome')\nos.write(1, b'[W] no GPU\\n')\n__version__ = '1.2.3'\n"
    (site / "onnxruntime.py").write_text(talks)  # no package tells its version
    with Agent(interpreter(tmp_path / "python3", site)) as agent:
        assert agent.hello["runtimes"] == {"onnxruntime": "1.2.3"}
        assert agent.ask(do="ping") == {"pong": True}
