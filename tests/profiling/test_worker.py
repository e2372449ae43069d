"""Measuring processes of this machine: who opens the models of which engine."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ofa_deploy.profiling import worker
from ofa_deploy.profiling.agent.engines import ENGINES


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model"
    path.write_bytes(b"artefact")
    return str(path)


def test_engines_that_an_agent_has_no_part_for_are_the_houses(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []

    def load(artefact: bytes, *, threads: int) -> Any:
        said.append((artefact, threads))
        return SimpleNamespace(bound=lambda images: lambda: said.append(images.shape))

    monkeypatch.setattr(worker, "get_runtime", lambda name: SimpleNamespace(load=load))
    job = {
        "models": {name: {"path": model, "shape": [1, 3, 4, 4]} for name in ("reference", "net")},
        "reference": "reference",
        "runtime": "tensorrt",
        "settings": {},
        "threads": 2,
    }
    assert "tensorrt" not in ENGINES
    reference, calls = worker._models(job)
    assert list(calls) == ["net"]
    assert said == [(b"artefact", 2), (1, 3, 4, 4)] * 2
    reference()
    calls["net"]()
    assert len(said) == 6


@pytest.mark.parametrize("runtime", ENGINES)
def test_others_are_opened_as_an_agent_opens_them(
    model: str, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(worker, "open_model", lambda *asked: opened.append(asked))
    settings = {"some": 1}
    worker._opened(model, [1, 2], runtime, settings, threads=3)
    assert opened == [(model, [1, 2], runtime, settings)]
