"""Measuring processes of this machine open models as an agent opens them."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.profiling import worker
from ofa_deploy.profiling.agent import job as agent_job
from ofa_deploy.profiling.agent.engines import ENGINES, EngineError
from ofa_deploy.runtimes import RUNTIMES


def test_every_runtime_can_be_timed() -> None:
    assert set(RUNTIMES) == set(ENGINES)


def _job(path: Path) -> dict[str, Any]:
    return {
        "models": {name: {"path": str(path), "shape": [1, 2]} for name in ("reference", "net")},
        "reference": "reference",
        "runtime": "tensorrt",
        "settings": {"some": 1},
    }


def test_models_are_opened_one_after_another(tmp_path: Path) -> None:
    opened: list[Any] = []

    def load(*asked: Any) -> Callable[[], None]:
        opened.append(asked)
        return lambda: opened.append("called")

    reference, calls = agent_job.models(_job(tmp_path), load)
    assert opened == [(str(tmp_path), [1, 2], "tensorrt", {"some": 1})] * 2
    assert list(calls) == ["net"]
    reference()
    assert opened[2:] == ["called"]


def test_another_way_of_launching_is_said_beside_the_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refused:
        refusal = "tensorrt: not now"

        def __call__(self) -> float:
            return 1.0

    agent_job.models(_job(tmp_path), lambda *_: Refused())
    out, err = capsys.readouterr()
    assert out == ""
    assert "net: timed without a CUDA graph: tensorrt: not now" in err.splitlines()


def test_an_engine_that_refuses_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And what it prints itself, from wherever, is none."""

    def refuse(*_: object) -> Any:
        os.write(1, b"loading plugins\n")
        raise EngineError("no such thing\nhere")

    monkeypatch.setattr(worker, "work", refuse)
    monkeypatch.setattr("sys.stdin", io.StringIO("{}"))
    worker.main()
    out, err = capfd.readouterr()
    assert json.loads(out) == {"error": "no such thing here"}
    assert err == "loading plugins\n"
