"""Agents that say what they are told to say, and what watches a measurement."""

from pathlib import Path
from typing import Any

from ofa_deploy.profiling import Protocol, RemoteTarget, Subject, measure
from tests.profiling.places import QUICK, Direct

__all__ = ["HONEST", "SERVE", "Notes", "Pauses", "agent", "dying", "taken"]

# An agent that says what a real one says. Every subject takes twice as long as the reference.
HONEST = """
import hashlib, json, os, sys
i = sys.stdin.buffer
print("ofa-deploy-ready", flush=True)
for _ in range(2):
    i.read(int(i.readline()))
hello = {"hello": 2, "python": "3.10.12", "numpy": "1.26.4", "runtimes": {"onnxruntime": "1.19.2"},
    "kind": "jetson", "processor": "Board, 4 cores", "architecture": "aarch64", "system": "Linux",
    "vnni": False, "cores": 4, "memory_mib": 4096, "load": 0.5, "boot": "first", "board": "one",
    "others": 0, "sensors": ["linux", "tegrastats"],
    "telemetry": {"state": {"power_mode": "15W"}}}
def state(gpu):
    return hello["telemetry"]
def say(message):
    print(message if isinstance(message, str) else json.dumps(message), flush=True)
PERCENTILES = ("p10", "p50", "p90", "p99")
def times(ratio):
    return {**dict.fromkeys(PERCENTILES, ratio), "runs": 4, "ratio": ratio}
def time(job):
    names = [name for name in job["models"] if name != job["reference"]]
    say({"engine": "1.19.2"})
    for n in range(job["protocol"]["rounds"]):
        say({"rounds": n + 1})
    result = {"": times(1.0), **{name: times(2.0) for name in names}}
    answer = {"result": result, "windows": 2, "rejected": 0, "throttled": 0, "peak_mib": 100,
        "trace": {"temperature_c": [48.0, 50.0, 51.0], "clocks_mhz": {"cpu0": [1500.0] * 3}}}
    end = {"ended": 0, "last": "", "others": 0.25,
        "telemetry": {"temperatures_c": {"cpu": 50.0}, **hello["telemetry"]}}
    finish(job, answer, end)
def finish(job, answer, end):
    say(answer)
    say(end)
have = set()
def missing(names):
    return {"missing": [name for name in names if name not in have]}
def put(name, data):
    assert hashlib.sha256(data).hexdigest() == name
    have.add(name)
    return {"have": name}
"""
SERVE = """
for line in i:
    request = json.loads(line)
    do = request["do"]
    if do == "hello":
        say(hello)
    elif do == "state":
        say({"state": state(request["gpu"])})
    elif do == "need":
        say(missing(request["models"]))
    elif do == "put":
        say(put(request["put"], i.read(request["size"])))
    elif do == "time":
        time(request["job"])
    elif do == "ping":
        say({"pong": True})
    elif do == "bye":
        break
"""


class Notes:
    """A progress that remembers what was said, and what stood beside its bar."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.notes: list[str] = []
        self.total = self.at = 0

    def task(self, description: str, total: int, *, done: int = 0) -> "Notes":
        self.total, self.at = total, done
        return self

    def __enter__(self) -> "Notes":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, steps: int = 1, note: str = "") -> None:
        assert steps >= 0
        self.at += steps
        self.notes += [note] if note else []

    def say(self, message: str) -> None:
        self.said.append(message)


class Pauses(list[float]):
    """Pauses that take no time."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def agent(changed: str = "") -> Direct:
    return Direct(script=HONEST + changed + SERVE)


def taken(
    subjects: dict[str, Subject], transport: Direct, protocol: Protocol = QUICK, **options: Any
) -> Any:
    """Measure on it, without pauses."""
    journal, progress = options.pop("journal", None), options.pop("progress", Notes())
    device = options.pop("device", None)
    with RemoteTarget(transport, sleep=Pauses(), progress=progress, **options) as target:
        return measure(
            subjects,
            subjects["small"],
            protocol=protocol,
            target=target,
            device=device,
            journal=journal,
            progress=progress,
        )


def dying(seen: Path, times: int, where: str = "finish", then: str = "") -> str:
    """An agent that dies in a function the first so many times.

    Args:
        then: what later ones do otherwise.
    """
    return f"""
seen = {str(seen)!r}
at = len(open(seen).read()) if os.path.exists(seen) else 0
honest = {where}
def {where}(*args):
    global at
    if at < {times}:
        open(seen, "a").write("x")
        os._exit(7)
    at += 1
    return honest(*args)
if at:
    {then or "pass"}
"""
