"""The system's ssh: what it is told, what its refusals mean, and a real server with its faults."""

import importlib
import json
import math
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.errors import DeviceError, InputError, MissingDependencyError
from ofa_deploy.hardware import Connection, LatencyTable, load_device
from ofa_deploy.predict import latency_model
from ofa_deploy.profiling import (
    Protocol,
    RemoteTarget,
    Subject,
    measure,
    open_target,
    profile_space,
)
from ofa_deploy.profiling.remote.pipe import Dropped, Pipe
from ofa_deploy.profiling.remote.ssh import Ssh
from ofa_deploy.space import SearchSpace
from tests.profiling.places import QUICK, Cutter, Server, bare_site, interpreter, make_key

measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")
CUTS = 20
BOTH = pytest.mark.parametrize("ssh_server", ["openssh", "asyncssh"], indirect=True)


def ssh(text: str = "ssh://device", **options: Any) -> Ssh:
    connection = Connection.parse(text)
    assert connection is not None
    return Ssh(connection, **options)


# -- what ssh is told -----------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


@pytest.mark.usefixtures("installed")
def test_command_by_hand() -> None:
    command = ssh("ssh://me@board.local:2222", python="~/venv/bin/python").command("print('a b')")
    assert command[:2] == ["/usr/bin/ssh", "-T"]
    at = command.index("-l")
    assert command[at:] == [
        *("-l", "me", "-p", "2222", "--", "board.local"),
        """exec ~/venv/bin/python -c 'print('"'"'a b'"'"')'""",
    ]
    options = command[2:at]
    assert options[::2] == ["-o"] * (len(options) // 2)
    assert "BatchMode=yes" in options
    assert {option.partition("=")[0] for option in options[1::2]} >= {
        "ServerAliveInterval",
        "ConnectTimeout",
    }


@pytest.mark.usefixtures("installed")
def test_the_check_of_host_keys_is_the_users() -> None:
    text = " ".join(ssh().command("code")).lower()
    for word in ("stricthostkeychecking", "knownhosts", "identity", "password", "checkhostip"):
        assert word not in text


@pytest.mark.usefixtures("installed")
def test_configuration_in_place_of_the_users(tmp_path: Path) -> None:
    command = ssh(config=tmp_path / "config").command("code")
    assert command[command.index("-F") + 1] == str(tmp_path / "config")
    assert command[-3:-1] == ["--", "device"]


def test_options_are_those_of_the_ssh_that_is_here(tmp_path: Path) -> None:
    """It reads them all, and tells what it would do."""
    if shutil.which("ssh") is None:
        pytest.skip("OpenSSH's client is not installed")
    path = tmp_path / "config"
    path.write_text("Host *\n  RemoteCommand uptime\n  LocalForward 9 127.0.0.1:9\n")
    command = ssh("ssh://me@[::1]:22", config=path).command("code")
    told = subprocess.run([command[0], "-G", *command[1:-1]], capture_output=True, check=False)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.decode().lower().splitlines()
    for line in ("user me", "hostname ::1", "batchmode yes", "clearallforwardings yes"):
        assert line in lines
    assert not any(line.startswith("localforward") for line in lines)
    assert "remotecommand uptime" not in lines


@pytest.mark.parametrize("python", ["-c", "python3 -c", "python3;reboot", "$(reboot)", "", "a\nb"])
def test_interpreter_that_a_shell_would_take_for_more(python: str) -> None:
    with pytest.raises(InputError, match="expected the name or path of a Python interpreter"):
        ssh(python=python)


def test_ssh_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependencyError, match="ssh is not installed here"):
        ssh().command("code")


# -- what its refusals mean -----------------------------------------------------------------


# As OpenSSH 9 says it.
CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
It is also possible that a host key has just been changed.
The fingerprint for the ED25519 key sent by the remote host is
SHA256:AAAA.
Please contact your system administrator.
Add correct host key in /home/me/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/me/.ssh/known_hosts:1
Host key for device has changed and you have requested strict checking.
Host key verification failed.
"""


@pytest.mark.parametrize(
    ("code", "said", "message", "lasting"),
    [
        (127, "sh: 1: exec: python3: not found", "has no python3: install Python 3.8", True),
        (255, "Host key verification failed.", "its host key is not known here: log in", True),
        (
            255,
            "No ED25519 host key is known for device and you have requested strict checking.\r\n"
            "Host key verification failed.\r\n",
            "its host key is not known here",
            True,
        ),
        (
            255,
            "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n"
            "Host key verification failed.\n",
            "is not the one that you know",
            True,
        ),
        (255, CHANGED, "is not the one that you know", True),
        (255, "me@device: Permission denied (publickey).", "ssh-copy-id device", True),
        (
            255,
            "bash: /opt/env.sh: Permission denied\nclient_loop: send disconnect: Broken pipe",
            "client_loop: send disconnect",
            False,
        ),
        (
            255,
            "git@host: Permission denied (publickey).\n" + "and so on\n" * 4 + "it has gone",
            "the connection failed: it has gone",
            False,
        ),
        (255, "Received disconnect: Too many authentication failures", "ssh-copy-id", True),
        (255, "ssh: Could not resolve hostname device: Name or service", "no such host", False),
        (255, "ssh: connect to host d port 22: Connection refused", "no SSH server listens", False),
        (255, "ssh: connect to host d port 22: No route to host", "cannot be reached", False),
        (255, "ssh: connect to host d port 22: Connection timed out", "cannot be reached", False),
        (255, "Timeout, server device not responding.", "cannot be reached", False),
        (255, "/c: line 3: Bad configuration option: dance", "configuration has a mistake", True),
        (255, "client_loop: send disconnect: Broken pipe", "client_loop: send disconnect", False),
        (137, "", "ended with exit code 137: no message", False),
        (1, "Traceback\nMemoryError", "ended with exit code 1: MemoryError", False),
        (None, "", "did not answer", False),
    ],
)
def test_failures_say_what_to_do(code: int | None, said: str, message: str, lasting: bool) -> None:
    failure = ssh().failure(code, said)
    assert failure.message.startswith("ssh://device")
    assert message in failure.message
    assert failure.message.isprintable()
    assert failure.lasting is lasting


def test_advice_can_be_typed() -> None:
    failure = ssh("ssh://me@board:2222").failure(255, "Permission denied (publickey).")
    assert "ssh-copy-id -p 2222 me@board" in failure.message


# -- a real server --------------------------------------------------------------------------


def refusal(device: Ssh) -> str:
    """The one line with which it is refused."""
    with pytest.raises(DeviceError) as error:
        RemoteTarget(device)
    assert "\n" not in str(error.value)
    return str(error.value)


@BOTH
def test_unknown_host_key_is_refused(device: Ssh, ssh_server: Server, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    config = ssh_server.config(tmp_path / "c", UserKnownHostsFile=str(tmp_path / "empty"))
    assert "its host key is not known here" in refusal(replace(device, config=config))


@BOTH
def test_wrong_host_key_is_refused(device: Ssh, ssh_server: Server, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(f"device {make_key(tmp_path / 'key')}\n")
    config = ssh_server.config(tmp_path / "c", UserKnownHostsFile=str(tmp_path / "other"))
    assert "is not the one that you know" in refusal(replace(device, config=config))


@BOTH
def test_wrong_key_is_refused(device: Ssh, ssh_server: Server, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    config = ssh_server.config(tmp_path / "c", IdentityFile=str(tmp_path / "stranger"))
    assert "it lets nobody in with the keys at hand" in refusal(replace(device, config=config))


def test_nobody_listens(device: Ssh, ssh_server: Server, tmp_path: Path) -> None:
    config = ssh_server.config(tmp_path / "c", Port="1")
    assert "no SSH server listens there" in refusal(replace(device, config=config))


def test_no_such_host(device: Ssh, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("Host *\n  ProxyCommand none\n  HostName no-such-host.invalid\n")
    assert "no such host is known" in refusal(replace(device, config=tmp_path / "c"))


@BOTH
def test_no_python(device: Ssh) -> None:
    assert "has no python3.77" in refusal(replace(device, python="python3.77"))


@BOTH
def test_no_numpy(device: Ssh, tmp_path: Path) -> None:
    said = refusal(replace(device, python=str(interpreter(tmp_path / "without", None))))
    assert "its Python has no numpy (No module named 'numpy'): install it there" in said


def test_no_runtime(device: Ssh, tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    python = interpreter(tmp_path / "numpy3", bare_site(tmp_path / "site", ("numpy",)))
    message = r"ssh://device has no onnxruntime .*install it"
    with (
        RemoteTarget(replace(device, python=str(python))) as target,
        pytest.raises(DeviceError, match=message),
    ):
        measure(tiny_subjects, tiny_subjects["small"], protocol=QUICK, target=target)


@BOTH
def test_device_file_leads_there(device: Ssh) -> None:
    described = load_device("ssh://device").model_copy(update={"interpreter": device.python})
    with open_target(described, config=device.config) as target:
        assert target is not None
        assert target.name == "ssh://device"
        assert target.version("onnxruntime")


@BOTH
def test_what_an_agent_leaves_behind_is_nothing(
    device: Ssh, tiny_subjects: dict[str, Subject], agents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)
    with RemoteTarget(device) as target:
        measure(tiny_subjects, tiny_subjects["small"], protocol=QUICK, target=target)
        assert list(agents.iterdir()) != []
    assert list(agents.iterdir()) == []


# -- cut twenty times -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_profile_over_a_connection_that_is_cut_twenty_times(
    device: Ssh,
    ssh_server: Server,
    tiny_space: SearchSpace,
    tmp_path: Path,
    agents: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At random points: in the handshake, in the agent, in a model, while something is timed.

    Every process is in the journal once and whole, and a connection is never given up.
    """
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)
    rng = random.Random(7)
    protocol = Protocol(rounds=3, runs=2, processes=3, visit_ms=0.1, tolerance=10)
    options: dict[str, Any] = {"calibration": 4, "holdout": 2, "journal": tmp_path / "journal"}
    # The greeting of the server takes some 4 kB, the agent 120, the models of a chunk 200.
    spans = [(1, 4_000), (4_000, 120_000), (120_000, 330_000), (120_000, 330_000)]
    budgets = [rng.randint(*spans[n % len(spans)]) for n in range(CUTS)]
    with Cutter(ssh_server.port, [200_000, *budgets]) as cutter:
        config = ssh_server.config(tmp_path / "cut", Port=str(cutter.port))
        cut = replace(device, config=config)
        with RemoteTarget(cut, delays_s=[0.0] * (CUTS + 1), sleep=lambda _: None) as target:
            target.chunk = 12
            table = profile_space(
                tiny_space, load_device("local"), protocol=protocol, target=target, **options
            )
            assert cutter.cuts > CUTS, "the first one was cut too"
            assert target.reconnects > 0
            assert target.reboots == 0
    assert_whole(table, tiny_space, tmp_path / "journal", protocol)
    assert list(agents.iterdir()) == []


def assert_whole(
    table: LatencyTable, space: SearchSpace, journal: Path, protocol: Protocol
) -> None:
    """Nothing is lost, nothing stands twice, and the table is of use."""
    (file,) = journal.glob("*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    pairs = [(record["chunk"], record["process"]) for record in records]
    chunks = 1 + max(chunk for chunk, _ in pairs)
    assert chunks > 1
    assert sorted(pairs) == [(c, p) for c in range(chunks) for p in range(protocol.processes)]
    assert set(table.blocks) == {block.key for block in space.blocks()}
    runs = protocol.rounds * protocol.runs * protocol.processes
    assert {entry.count for entry in table.blocks.values()} == {runs}
    model = latency_model(space, table)
    assert model.predict([space.smallest])[0] > 0


# -- pipes ----------------------------------------------------------------------------------


def test_process_that_does_not_read_is_dropped() -> None:
    pipe = Pipe(["sleep", "600"], "it", patience_s=0.2)
    with pytest.raises(Dropped, match="it does not read"):
        pipe.send(b"x" * 2**22)
    pipe.kill()


def test_process_that_floods_is_refused() -> None:
    pipe = Pipe(["sh", "-c", "yes '' & cat > /dev/null; sleep 600"], "it", patience_s=30.0)
    with pytest.raises(DeviceError, match="far more than it was asked|not a result"):
        for _ in range(10_000):
            pipe.send(b"x" * 2**20)
    pipe.kill()


def test_last_words_are_bounded() -> None:
    script = "import sys; sys.stderr.write('noise\\n' * 10**6 + 'last words\\n'); sys.exit(3)"
    pipe = Pipe(["python3", "-I", "-S", "-c", script], "it", patience_s=30.0)
    with pytest.raises(Dropped) as dropped:
        pipe.line(30.0)
    pipe.kill()
    assert dropped.value.code == 3
    assert dropped.value.complaints.endswith("last words\n")
    assert len(dropped.value.complaints) <= 8192
