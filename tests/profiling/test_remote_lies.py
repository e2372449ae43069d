"""What devices say that is not so: no lie is believed, and no terminal obeys one."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.errors import DeviceError
from ofa_deploy.hardware import load_device
from ofa_deploy.hardware.device import Limits
from ofa_deploy.profiling import (
    RemoteTarget,
    Subject,
    measure,
)
from tests.profiling.fakes import HONEST, SERVE, Notes, agent, taken
from tests.profiling.places import QUICK, Direct, bare_site, interpreter

measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")
pytestmark = pytest.mark.timeout(60)


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
    "answer['result']['large']['runs'] = 10 ** 4000",
    "[r.update(dict.fromkeys(('ratio', *PERCENTILES), 1e200)) for r in answer['result'].values()]",
    "answer['result']['large'].update(dict.fromkeys(PERCENTILES, 1e-200))",
    "answer['result']['large']['ratio'] = 1e-320",
    "answer['result']['large']['ratio'] = 1e200",
    "answer['result']['large']['ratio'] = 0.4",
    "answer['result']['large']['ratio'] = 9.0",
    "answer['result']['']['ratio'] = 1.5",
    "answer['result'][''].update(dict.fromkeys(PERCENTILES, 9.0))",
    "answer['windows'] = 10 ** 4000",
    "answer['rejected'] = 10 ** 10",
    "answer['result']['large']['energy_mj'] = 1e308",
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
    "answer['throttled'] = -1",
    "answer['throttled'] = True",
    "answer['trace'] = 'cool'",
    "answer['trace']['temperature_c'] = [50.0, 49.0, 51.0]",
    "answer['trace']['temperature_c'] = [1e9] * 3",
    "answer['trace']['temperature_c'] = [float('nan')] * 3",
    "answer['trace']['temperature_c'] = [50.0, 51.0]",
    "answer['trace']['clocks_mhz'] = {f'cpu{n}': [1.0] * 3 for n in range(99)}",
    "answer['trace']['clocks_mhz'] = {'\\x1b[2J': [1.0] * 3}",
    "answer['trace']['power_mw'] = [0.0, 0.0, float('inf')]",
    "answer['trace']['throttled'] = ['\\x1b[2J']",
    "answer['trace']['throttled'] = ['x' * 1000]",
    "answer['trace']['secrets'] = 1",
    "answer['peak_mib'] = -5",
    "answer = {'hot': 1e9}",
    "answer = {'hot': float('nan')}",
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


def test_an_engine_of_unknown_version_is_not_believed(tiny_subjects: dict[str, Subject]) -> None:
    silent = "\nhonest = say\ndef say(message):\n    'engine' in message or honest(message)\n"
    with pytest.raises(DeviceError, match="version 1.19.2, and loaded one of unknown version; is"):
        taken(tiny_subjects, agent(silent))


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ("hello['cores'] = -1", "not a greeting"),
        ("hello['load'] = float('nan')", "not a greeting"),
        ("hello['processor'] = ''", "not a greeting"),
        ("hello['processor'] = 'x' * 1000", "not a greeting"),
        ("del hello['boot']", "not a greeting"),
        ("hello['hello'] = 1", "not a greeting"),
        ("hello['extra'] = 1", "not a greeting"),
        ("hello['kind'] = ''", "not a greeting"),
        ("hello['telemetry'] = {'temperatures_c': {'cpu': 1e9}}", "not a greeting"),
        ("hello['telemetry'] = {'state': {'power_mode': '\\x1b[2J'}}", "not a greeting"),
        ("hello['telemetry'] = 3", "not a greeting"),
        ("hello['sensors'] = ['x'] * 99", "not a greeting"),
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


@pytest.mark.parametrize("lie", ["3", "{'secrets': 1}", "{'temperatures_c': {'cpu': 'warm'}}"])
def test_states_that_are_none(tiny_subjects: dict[str, Subject], lie: str) -> None:
    message = "^ssh://device answered .*, not its state"
    with (
        RemoteTarget(agent(f"\ndef state(gpu):\n    return {lie}\n")) as target,
        pytest.raises(DeviceError, match=message),
    ):
        target.telemetry(gpu=False)


def test_a_device_that_is_always_too_hot(tiny_subjects: dict[str, Subject]) -> None:
    """Though nothing limits it, or each time: it cannot keep the host busy for ever."""
    hot = "\ndef finish(job, answer, end):\n    say({'hot': 99.0})\n    say(end)\n"
    with pytest.raises(DeviceError, match="stopped measuring at 99 °C, which nobody asked for"):
        taken(tiny_subjects, agent(hot))
    bar, transport = Notes(), agent(hot)
    limits = {"limits": Limits(temperature_c=85)}
    device = load_device("ssh://device").model_copy(update=limits)
    with pytest.raises(DeviceError, match="in 4 tries of one measuring process"):
        taken(tiny_subjects, transport, progress=bar, device=device)
    assert [line.partition(",")[0] for line in bar.said[1:]] == ["ssh://device reached 99 °C"] * 3
    assert transport.started == 1


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
