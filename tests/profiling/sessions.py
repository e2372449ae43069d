"""An agent in a process of its own, spoken to line by line."""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import pytest

from ofa_deploy.profiling.remote.bundle import READY, STARTER, agent_source, opening
from tests.profiling.places import QUICK

__all__ = [
    "Agent",
    "change_agent",
    "children",
    "folders",
    "job",
    "long_job",
    "running",
    "within",
]


class Agent:
    """An agent in a process of its own."""

    def __init__(self, python: Path, token: str = "mine") -> None:
        self.process = subprocess.Popen(
            [python, "-c", STARTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().decode().strip() == READY
        self.send(opening())
        self.hello = self.ask(do="hello", token=token)

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def ask(self, data: bytes = b"", **request: Any) -> dict[str, Any]:
        self.send(json.dumps(request).encode() + b"\n" + data)
        return self.hear()

    def put(self, data: bytes) -> dict[str, Any]:
        return self.ask(data, do="put", put=hashlib.sha256(data).hexdigest(), size=len(data))

    def until(self, key: str) -> list[dict[str, Any]]:
        """What it says until a line that has ``key``."""
        heard = [self.hear()]
        while key not in heard[-1]:
            heard.append(self.hear())
        return heard

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


def job(model: bytes, **changed: Any) -> dict[str, Any]:
    name = hashlib.sha256(model).hexdigest()
    return {
        "models": {
            each: {"sha256": name, "shape": [1, 3, 12, 12]} for each in ("reference", "other")
        },
        "reference": "reference",
        "runtime": "onnxruntime",
        "settings": {"intra_op_num_threads": 1},
        "threads": 1,
        "protocol": asdict(QUICK),
        "energy": True,
        **changed,
    }


def long_job(model: bytes) -> dict[str, Any]:
    return job(model, protocol={**asdict(QUICK), "rounds": 10**9, "window_ms": 1.0})


@contextmanager
def within(seconds: float) -> Iterator[Callable[[Callable[[], bool]], None]]:
    """Wait for what must soon be true."""
    end = time.monotonic() + seconds

    def wait(true: Callable[[], bool]) -> None:
        while not true():
            assert time.monotonic() < end, "it did not happen"
            os.sched_yield()

    yield wait


def folders(agents: Path) -> list[Path]:
    return [path for path in agents.glob("ofa-deploy-agent-*/*") if path.is_dir()]


def running(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    threads = Path(f"/proc/{pid}/task").iterdir()
    texts = [text, *((thread / "children").read_text() for thread in threads)]
    return [int(word) for word in " ".join(texts).split()]


def change_agent(monkeypatch: pytest.MonkeyPatch, *changes: tuple[str, str]) -> None:
    """Send another agent: what it was, and what it is instead."""
    source = agent_source()
    for was, now in changes:
        assert was in source
        source = source.replace(was, now)
    changed = opening(source)
    monkeypatch.setitem(globals(), "opening", lambda: changed)
