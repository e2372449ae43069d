"""Measuring on another device: as here, through connections that drop, and believing no lies."""

import importlib
import json
import math
from pathlib import Path
from typing import Any

import onnx
import pytest

from ofa_deploy.errors import DeviceError
from ofa_deploy.hardware import load_device
from ofa_deploy.profiling import (
    REFERENCE,
    Protocol,
    RemoteTarget,
    Subject,
    conditions_here,
    measure,
    open_target,
    profile_space,
)
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.space import SearchSpace
from tests.profiling.places import QUICK, Direct, bare_site, interpreter

measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")
pytestmark = pytest.mark.timeout(60)

# An agent that says what a real one says. Every subject takes twice as long as the reference.
HONEST = """
import hashlib, json, os, sys
i = sys.stdin.buffer
print("ofa-deploy-ready", flush=True)
for _ in range(2):
    i.read(int(i.readline()))
hello = {"hello": 1, "python": "3.10.12", "numpy": "1.26.4", "runtimes": {"onnxruntime": "1.19.2"},
    "processor": "Board, 4 cores", "machine": "aarch64", "system": "Linux", "vnni": False,
    "cores": 4, "memory_mib": 4096, "load": 0.5, "boot": "first", "board": "one",
    "power_mode": "15W", "others": 0}
def say(message):
    print(message if isinstance(message, str) else json.dumps(message), flush=True)
def times(ratio):
    return {"p10": ratio, "p50": ratio, "p90": ratio, "p99": ratio, "runs": 4, "ratio": ratio}
def time(job):
    names = [name for name in job["models"] if name != job["reference"]]
    say({"engine": "1.19.2"})
    for n in range(job["protocol"]["rounds"]):
        say({"rounds": n + 1})
    result = {"": times(1.0), **{name: times(2.0) for name in names}}
    answer = {"result": result, "windows": 2, "rejected": 0}
    end = {"ended": 0, "last": "", "others": 0.25, "telemetry": {"temperatures_c": {"cpu": 50.0}}}
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
    """A progress that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
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
    with RemoteTarget(transport, sleep=Pauses(), progress=progress, **options) as target:
        return measure(
            subjects,
            subjects["small"],
            protocol=protocol,
            target=target,
            journal=journal,
            progress=progress,
        )


# -- as here --------------------------------------------------------------------------------


@pytest.fixture(params=["local", "bare", "ssh"])
def place(request: pytest.FixtureRequest) -> Any:
    """A target: this machine, a bare Python on it, the same behind a real SSH server."""
    if request.param == "local":
        yield None
        return
    if request.param == "bare":
        request.getfixturevalue("agents")
        transport: Any = Direct(request.getfixturevalue("bare_python"))
    else:
        transport = request.getfixturevalue("device")
    with RemoteTarget(transport) as target:
        yield target


def test_every_place_measures_alike(
    tiny_subjects: dict[str, Subject], place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)  # however busy this machine is
    journal, bar = tmp_path / "journal", Notes()

    def again() -> Any:
        return measure(
            tiny_subjects,
            tiny_subjects["small"],
            protocol=QUICK,
            target=place,
            journal=journal,
            progress=bar,
        )

    found = again()
    assert bar.at == bar.total == QUICK.rounds * QUICK.processes
    assert set(found) == {"small", "large", REFERENCE}
    for each in found.values():
        assert 0 < each.p10 <= each.p50 <= each.p90 <= each.p99
        assert each.repeats >= QUICK.processes * QUICK.rounds * QUICK.runs
    (file,) = journal.glob("*.jsonl")
    lines = file.read_bytes()
    assert again() == found
    assert file.read_bytes() == lines, "nothing was measured again"
    (again_file,) = journal.glob("*.jsonl")
    assert again_file == file


def test_every_place_has_the_same_conditions(place: Any) -> None:
    found = conditions_here(
        load_device("local"), place, runtime="onnxruntime", precision="fp32", batch=1, threads=1
    )
    here = conditions_here(
        load_device("local"), runtime="onnxruntime", precision="fp32", batch=1, threads=1
    )
    assert found == here


@pytest.mark.parametrize("place", ["local", "bare"], indirect=True)
def test_every_place_refuses_what_does_not_fit(
    tiny_subjects: dict[str, Subject], place: Any, tmp_path: Path
) -> None:
    wrong = Subject(tiny_subjects["large"].make, (1, 5, 16, 16))
    with pytest.raises(DeviceError, match=r"measuring process failed \(exit 1\):\s+\S") as error:
        measure(
            {"wrong": wrong},
            tiny_subjects["small"],
            protocol=QUICK,
            target=place,
            journal=tmp_path,
        )
    assert "\n" not in str(error.value)
    (journal,) = tmp_path.glob("*.jsonl")
    assert len(journal.read_text().splitlines()) == 1, "only its head, no record"


def test_openvino_is_measured_by_an_agent_too(
    tiny_subjects: dict[str, Subject], agents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its import forks, and what it forked must not hold the agent up."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)
    with RemoteTarget(Direct()) as target:
        found = measure(
            tiny_subjects,
            tiny_subjects["small"],
            runtime="openvino",
            protocol=QUICK,
            target=target,
        )
    assert found["large"].repeats == QUICK.processes * QUICK.rounds * QUICK.runs


def test_local_is_no_target() -> None:
    with open_target(load_device("local")) as target:
        assert target is None


# -- what it is asked and what is kept ------------------------------------------------------


def test_figures_and_what_else_was_told(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    found = taken(tiny_subjects, agent(), journal=tmp_path)
    assert found["large"].ms == pytest.approx(2.0)
    (file,) = tmp_path.glob("*.jsonl")
    _, *records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(record["chunk"], record["process"]) for record in records] == [(0, 0), (0, 1)]
    for record in records:
        assert record["boot"] == "first"
        assert record["telemetry"] == {"temperatures_c": {"cpu": 50.0}}


def test_models_are_sent_once(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    counted = f"""
honest = put
def put(name, data):
    with open({str(seen)!r}, "a") as file:
        print(len(data), file=file)
    return honest(name, data)
"""
    taken(tiny_subjects, agent(counted))
    assert len(seen.read_text().split()) == 2, "the reference is one of the two subjects"


def test_chunks_are_smaller_than_here(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    many = {f"net {i}": tiny_subjects["large"] for i in range(40)}
    seen = tmp_path / "seen"
    counted = f"""
honest = time
def time(job):
    with open({str(seen)!r}, "a") as file:
        print(len(job["models"]) - 1, file=file)
    honest(job)
"""
    found = taken({**many, "small": tiny_subjects["small"]}, agent(counted))
    assert set(found) == {*many, "small", REFERENCE}
    assert seen.read_text().split() == ["21", "20", "21", "20"]


def test_other_devices_are_measured_anew(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    """And the same device goes on, at another address, and after it was started anew."""
    for changed, journals in (
        ("", 1),
        ("hello['boot'], hello['load'] = 'second', 3.0", 1),
        ("hello['board'] = 'two'", 2),
        ("hello['processor'] = 'Other, 4 cores'", 3),
        ("hello['power_mode'] = '30W'", 4),
        ("hello['machine'] = 'x86_64'", 5),
    ):
        taken(tiny_subjects, agent("\n" + changed), journal=tmp_path)
        files = list(tmp_path.glob("*.jsonl"))
        assert len(files) == journals, changed
        assert all(len(file.read_text().splitlines()) == 3 for file in files)


def test_other_engines_are_measured_anew(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    newer = "\nhello['runtimes'] = {'onnxruntime': '1.20.0'}\n"
    said = HONEST.replace('{"engine": "1.19.2"}', '{"engine": "1.20.0"}')
    taken(tiny_subjects, agent(), journal=tmp_path)
    taken(tiny_subjects, Direct(script=said + newer + SERVE), journal=tmp_path)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_int8_is_built_for_the_device(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    """ARM wants signed activations, x86 unsigned ones."""
    kinds = {}
    for machine in ("aarch64", "x86_64"):
        folder = tmp_path / machine
        folder.mkdir()
        kept = f"""
hello["machine"] = {machine!r}
honest = put
def put(name, data):
    open(os.path.join({str(folder)!r}, name), "wb").write(data)
    return honest(name, data)
"""
        with RemoteTarget(agent(kept)) as target:
            measure(
                {"net": tiny_subjects["small"]},
                tiny_subjects["small"],
                precision="int8",
                protocol=QUICK,
                target=target,
            )
        graph = onnx.load(next(folder.iterdir())).graph
        zeros = {tensor.name: tensor.data_type for tensor in graph.initializer}
        kinds[machine] = {
            zeros[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"
        }
    assert kinds == {"aarch64": {onnx.TensorProto.INT8}, "x86_64": {onnx.TensorProto.UINT8}}


def test_a_table_speaks_of_the_device(tiny_space: SearchSpace) -> None:
    device = load_device("local")
    with RemoteTarget(agent()) as target:
        table = profile_space(
            tiny_space, device, protocol=QUICK, calibration=4, holdout=2, target=target
        )
    c = table.conditions
    assert (c.processor, c.runtime_version, c.power_mode) == ("Board, 4 cores", "1.19.2", "15W")
    assert table.other_load == 0.25
    assert set(table.blocks) == {block.key for block in tiny_space.blocks()}


# -- lies -----------------------------------------------------------------------------------


RESULTS = [
    "del answer['result']['large']",
    "del answer['result']['large']['ratio']",
    "del answer['result']['']",
    "del answer['windows']",
    "answer['result']['extra'] = times(2.0)",
    "answer['result']['large']['ratio'] = float('nan')",
    "answer['result']['large']['ratio'] = float('inf')",
    "answer['result']['large']['ratio'] = -1.0",
    "answer['result']['large']['p50'] = -1.0",
    "answer['result']['large']['p50'] = 'fast'",
    "answer['result']['large']['p10'] = 9.0",
    "answer['result']['large']['p99'] = 0.5",
    "answer['result']['large']['runs'] = 0",
    "answer['result']['large']['speed'] = 3.0",
    "answer['result']['large']['energy_mj'] = -3.0",
    "answer['result']['']['p10'] = 0.0",
    "answer['rejected'] = -1",
    "answer['result'] = None",
    "answer = {}",
    "answer = 'Segmentation fault'",
    "answer = '[' * 60000",
    "answer = 'x' * 70000",
    "say({'rounds': 10 ** 12})",
    "say({'rounds': job['protocol']['rounds'] + 1})",
    "[say({'rounds': 1}) for _ in range(10000)]",
    "say({'engine': '1.0.0'})",
    "say({'pong': True})\nsay({'pong': True, 'x': 1})",
    "end['others'] = 7.0",
    "end['others'] = float('nan')",
    "end['telemetry'] = {'temperatures_c': {'cpu': float('nan')}}",
    "end['telemetry'] = {'secrets': {}}",
    "end['ended'] = 'well'",
    "end['ended'] = 1",
    "say({'error': 'no such model'})",
    "sys.stdout.buffer.write(b'\\xff\\xfe\\n')\nsys.stdout.buffer.flush()",
]


@pytest.mark.parametrize("lie", RESULTS)
def test_no_lie_is_believed(tiny_subjects: dict[str, Subject], tmp_path: Path, lie: str) -> None:
    body = "\n    ".join(lie.split("\n"))
    lying = f"\ndef finish(job, answer, end):\n    {body}\n    say(answer)\n    say(end)\n"
    with pytest.raises(DeviceError, match="^ssh://device") as error:
        taken(tiny_subjects, agent(lying), journal=tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    (journal,) = tmp_path.glob("*.jsonl")
    assert len(journal.read_text().splitlines()) == 1, "only its head, no record"
    assert taken(tiny_subjects, agent(), journal=tmp_path)["large"].ms == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ("hello['cores'] = -1", "not a greeting"),
        ("hello['load'] = float('nan')", "not a greeting"),
        ("hello['processor'] = ''", "not a greeting"),
        ("hello['processor'] = 'x' * 1000", "not a greeting"),
        ("del hello['boot']", "not a greeting"),
        ("hello['hello'] = 2", "not a greeting"),
        ("hello['extra'] = 1", "not a greeting"),
        ("hello['runtimes'] = {str(n): '1' for n in range(99)}", "not a greeting"),
        ("hello = 'x' * 70000", "more than 65,536 bytes"),
        ("hello = '\\n' * 1000", "not a greeting"),
        ("hello['others'] = 1", "ssh://device is busy"),
        ("missing = lambda names: {'missing': ['0' * 64]}", "not which models"),
        ("missing = lambda names: {}", "not which models"),
        ("put = lambda name, data: {'have': '0' * 64}", "not the model that it was sent"),
        ("put = lambda name, data: {'error': 'No space left on device in /tmp'}", "No space left"),
    ],
)
def test_other_lies(
    tiny_subjects: dict[str, Subject], tmp_path: Path, lie: str, message: str
) -> None:
    with pytest.raises(DeviceError, match=message) as error:
        taken(tiny_subjects, agent(f"\n{lie}\n"), journal=tmp_path)
    assert "\n" not in str(error.value)


def test_terminal_does_not_obey_a_device(tiny_subjects: dict[str, Subject]) -> None:
    evil = "\\x1b]0;owned\\x07\\x1b[2J"
    for lie in (
        f"def finish(job, answer, end):\n    say({{'error': '{evil}'}})",
        f"def finish(job, answer, end):\n    say('{evil}')",
        f"def finish(job, answer, end):\n    say({{**end, 'ended': 1, 'last': '{evil}'}})",
        f"sys.stderr.write('{evil}'); sys.exit(9)",
    ):
        with pytest.raises(DeviceError) as error:
            taken(tiny_subjects, agent(f"\n{lie}\n"), delays_s=())
        assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ({"refused": "python", "found": "3.6.9"}, "expected Python 3.8 or later, found 3.6.9"),
        ({"refused": "numpy", "found": "No module named 'numpy'"}, "has no numpy .*pip install"),
        ({"refused": "system", "found": "win32"}, "expected Linux, found win32"),
        ({"refused": "dogs", "found": ""}, "not a refusal"),
    ],
)
def test_why_the_agent_cannot_start(refusal: dict[str, str], message: str) -> None:
    script = f"print('ofa-deploy-ready')\nprint({json.dumps(refusal)!r})\nimport sys; sys.exit(3)"
    with pytest.raises(DeviceError, match=message):
        RemoteTarget(Direct(script=script))


@pytest.mark.parametrize("lines", [1, 50, 300])
def test_what_a_login_shell_says_first_is_passed_over(
    tiny_subjects: dict[str, Subject], lines: int
) -> None:
    """Up to some hundred lines, the last of which may not be ended."""
    script = HONEST.replace(
        'print("ofa-deploy-ready", flush=True)',
        f'print("Welcome\\n" * {lines} + "You have mail. ofa-deploy-ready", flush=True)',
    )
    transport = Direct(script=script + SERVE)
    if lines < 200:
        assert taken(tiny_subjects, transport)["large"].ms == pytest.approx(2.0)
        return
    with pytest.raises(DeviceError, match="answered 'Welcome', not that Python is there"):
        taken(tiny_subjects, transport)


def test_python_that_never_comes(tiny_subjects: dict[str, Subject]) -> None:
    with pytest.raises(DeviceError, match="ssh://device: python3 did not answer"):
        RemoteTarget(Direct(script="import sys; sys.stdin.read()"), silence_s=0.2)


def test_runtime_that_the_device_lacks(tiny_subjects: dict[str, Subject]) -> None:
    with RemoteTarget(agent("\nhello['runtimes'] = {'openvino': '2024.1.0'}\n")) as target:
        message = r"ssh://device has no onnxruntime \(engines that it has: openvino\): install it"
        with pytest.raises(DeviceError, match=message):
            measure(tiny_subjects, tiny_subjects["small"], protocol=QUICK, target=target)
        assert target.version("openvino") == "2024.1.0"


def test_bare_python_without_a_runtime(
    tiny_subjects: dict[str, Subject], tmp_path: Path, agents: Path
) -> None:
    """Numpy alone, for real."""
    python = interpreter(tmp_path / "python3", bare_site(tmp_path / "site", ("numpy",)))
    with RemoteTarget(Direct(python)) as target, pytest.raises(DeviceError, match="it has: none"):
        measure(tiny_subjects, tiny_subjects["small"], protocol=QUICK, target=target)
    with pytest.raises(DeviceError, match="has no numpy"):
        RemoteTarget(Direct(interpreter(tmp_path / "without", None)))


# -- connections that drop ------------------------------------------------------------------


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
    taken(tiny_subjects, agent(mute), silence_s=0.3, progress=bar)
    assert "ssh://device has said nothing for" in bar.said[0]


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
        ("hello['power_mode'] = '30W'", r"power_mode \(15W, 30W\)"),
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
    """The real one, with SIGKILL, in the midst of a job, three times."""
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)
    transport, bar = Direct(bare_python), Notes()
    with RemoteTarget(transport, sleep=Pauses(), progress=bar) as target:
        killed: list[Any] = []

        def advance(steps: int = 1, note: str = "") -> None:
            if len(killed) < 3 and target._session not in killed:
                killed.append(target._session)
                killed[-1]._pipe.process.kill()

        bar.advance = advance  # type: ignore[method-assign]
        found = measure(
            tiny_subjects, tiny_subjects["small"], protocol=QUICK, target=target, progress=bar
        )
        assert target.reconnects == len(killed) == 3
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


def test_local_and_remote_see_the_same_ratio(
    tiny_subjects: dict[str, Subject], bare_python: Path, agents: Path
) -> None:
    """Of a network and itself: 1, whichever process times it."""
    protocol = Protocol(rounds=8, runs=4, processes=1)
    pair = {"same": tiny_subjects["large"]}
    with RemoteTarget(Direct(bare_python)) as target:
        ratios = []
        for where in (None, target):
            found = measure(pair, tiny_subjects["large"], protocol=protocol, target=where)
            ratios.append(found["same"].ms / found[REFERENCE].ms)
    assert all(0.5 < ratio < 2 for ratio in ratios), ratios  # however busy this machine is


def test_version_of_the_engine_is_that_of_the_device(bare_python: Path, agents: Path) -> None:
    with RemoteTarget(Direct(bare_python)) as target:
        assert target.version("onnxruntime") == get_runtime("onnxruntime").version
        assert target.version("onnxruntime-cuda") == target.version("onnxruntime")
        assert target.processor in ("x86", "x86-vnni", "arm")
