"""What an agent on a device says: a conversation with a real one, damaged."""

import json
import os
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.faults import binary_mutations, mutations
from tests.faults.formats import SPACE, Format, same

__all__ = ["agent_format"]


class _Recorded:
    """A pipe to an agent that says what stands in a file."""

    def __init__(self, path: Path) -> None:
        self.lines = path.read_bytes().split(b"\n")

    def send(self, data: bytes) -> None:
        pass

    def line(self, timeout_s: float) -> bytes | None:
        from ofa_deploy.errors import DeviceError
        from ofa_deploy.profiling.agent.main import LONGEST_LINE
        from ofa_deploy.profiling.remote.pipe import Dropped

        if not self.lines:
            raise Dropped("talk.jsonl has gone")
        if len(self.lines[0]) >= LONGEST_LINE:  # as the real pipe says
            raise DeviceError("talk.jsonl answered a line that is too long")
        return self.lines.pop(0)

    def kill(self) -> None:
        pass

    close = kill


class _Silent:
    name = "talk.jsonl"

    def command(self, code: str) -> list[str]:
        return []


@cache
def _conversation() -> tuple[tuple[bytes, ...], dict[str, Any], str]:
    """What a real agent says while it times a network; the job; the engine's version."""
    import importlib

    from ofa_deploy.graph import build_onnx
    from ofa_deploy.profiling import RemoteTarget, Subject, measure
    from tests.profiling.places import QUICK, Direct

    module: Any = importlib.import_module("ofa_deploy.profiling.remote.session")
    lines: list[bytes] = []
    asked: dict[str, Any] = {}

    class Tee(module.Pipe):
        def line(self, timeout_s: float) -> bytes | None:
            found: bytes | None = super().line(timeout_s)
            lines.extend([found] if found is not None else [])
            return found

    class Watched(module.Session):
        def time(self, job: Any, *args: Any, **named: Any) -> Any:
            start = len(lines)
            answer = super().time(job, *args, **named)
            if not asked:
                asked.update(job=dict(job), names=list(args[0]), **named)
                asked["lines"] = [line for line in lines[start:] if b'"have"' not in line]
            return answer

    graph = build_onnx(SPACE.lower(SPACE.smallest))
    subject = Subject(lambda: graph, (1, 3, 12, 12))
    place: Any = importlib.import_module("ofa_deploy.profiling.remote.target")
    timing: Any = importlib.import_module("ofa_deploy.profiling.measure")
    kept = module.Pipe, place.Session, timing._TOO_NOISY
    module.Pipe, place.Session, timing._TOO_NOISY = Tee, Watched, float("inf")
    environment = dict(os.environ)
    try:
        # A folder of its own: agents of others are none of its business.
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TMPDIR"] = folder
            with RemoteTarget(Direct()) as target:
                hello = next(line for line in lines if b'"hello"' in line)
                measure({"a": subject}, subject, protocol=QUICK, target=target)
    finally:
        module.Pipe, place.Session, timing._TOO_NOISY = kept
        os.environ.clear()
        os.environ.update(environment)
    job = asked["job"]
    job["models"] = {name: {"path": __file__, "shape": [1]} for name in job["models"]}
    said = [b'{"missing": []}' if b'"missing"' in each else each for each in asked["lines"]]
    return (hello, *said), asked | {"job": job}, asked["version"]


def _shown(value: Any) -> Any:
    """Text as a terminal may have it, wherever it stands."""
    from ofa_deploy.profiling.process import printable

    if isinstance(value, dict):
        return {printable(key): _shown(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shown(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def agent_format() -> Format:
    import importlib

    from ofa_deploy.profiling.remote.bundle import READY

    session: Any = importlib.import_module("ofa_deploy.profiling.remote.session")
    start = READY.encode() + b"\n"
    valid, asked, version = _conversation()
    rounds = asked["job"]["protocol"]["rounds"]

    def read(folder: Path) -> Any:
        from ofa_deploy.errors import DeviceError
        from ofa_deploy.profiling.remote.pipe import Dropped

        session.Pipe = lambda *_, **__: _Recorded(folder / "talk.jsonl")
        done: list[int] = []
        try:
            made = session.Session(_Silent(), "t", silence_s=60.0)
            answer = made.time(asked["job"], asked["names"], done.append, version=version)
        except Dropped as error:  # the connection is opened again, a few times
            raise DeviceError(f"talk.jsonl: {error}") from None
        return made.hello, answer, sum(done)

    def talk(_: bytes, draw: random.Random) -> bytes:
        lines = list(valid)
        for _ in range(draw.choice((1, 1, 2))):
            at = draw.randrange(len(lines))
            match draw.choice(("tree", "tree", "tree", "drop", "twice", "swap", "bytes")):
                case "tree":
                    value = json.loads(valid[at % len(valid)])
                    lines[at] = mutations.json_text(value, draw).replace(b"\n", b"")
                case "drop":
                    del lines[at]
                case "twice":
                    lines.insert(at, lines[at])
                case "swap":
                    other = draw.randrange(len(lines))
                    lines[at], lines[other] = lines[other], lines[at]
                case "bytes":
                    lines[at] = binary_mutations.binary(lines[at], draw)
            lines = lines or [b""]
        return start + b"\n".join(lines)

    def agrees(folder: Path, found: Any) -> str | None:
        hello, answer, done = found
        said = (folder / "talk.jsonl").read_bytes().split(b"\n")
        greeting = next(line for line in said if b"hello" in line)
        results = [json.loads(line) for line in said if b'"result"' in line]
        told = json.loads(greeting)
        told.pop("telemetry")  # kept as it was said, or refused: see test_hostile
        shown = {k: _shown(v) for k, v in told.items()}
        wrong = same(shown, hello.model_dump()) or same(results[-1]["result"], answer["result"])
        return wrong or (None if done == rounds else f"{done} rounds of {rounds}")

    data = start + b"\n".join(valid)
    ways = {"talk": talk, "again": talk, "bytes": binary_mutations.binary}
    return Format("agent messages", {"talk.jsonl": data}, ways, read, agrees, is_file=False)
