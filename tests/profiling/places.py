"""Places to measure on: a bare Python on this machine, a real SSH server, ways that break."""

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import Any, Self

from ofa_deploy.hardware import Connection
from ofa_deploy.profiling import Protocol
from ofa_deploy.profiling.remote.ssh import Failure, Ssh

__all__ = [
    "QUICK",
    "Cutter",
    "Direct",
    "Server",
    "bare_site",
    "interpreter",
    "make_key",
    "running_server",
    "server_command",
    "why_no_server",
]

_PRIVSEP = Path("/run/sshd")  # made when a system starts it as a service
_UNTIL_STDIN_ENDS = '"$1" -D -e -f "$2" & cat > /dev/null; kill $!'
QUICK = Protocol(rounds=2, runs=2, processes=2, visit_ms=1e6, tolerance=10)


def bare_site(folder: Path, packages: tuple[str, ...]) -> Path:
    """A folder that holds links to packages and what pip wrote about them."""
    folder.mkdir()
    for package in packages:
        files = metadata.files(package) or []
        tops = {Path(file).parts[0] for file in files if file.parts[0] != ".."}
        for top in tops - {"__pycache__"}:
            found = Path(str(metadata.distribution(package).locate_file(top)))
            if found.exists():
                (folder / top).symlink_to(found)
    return folder


def interpreter(path: Path, site: Path | None, *before: str) -> Path:
    """A Python that finds what is in ``site`` and nothing else that was installed.

    Args:
        before: lines of shell that run first.
    """
    own = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    found = f"PYTHONPATH='{site}'" if site else "PYTHONPATH="
    text = "\n".join(["#!/bin/sh", *before, f"{found} exec '{own}' -S -s \"$@\"", ""])
    path.write_text(text)
    path.chmod(0o755)
    return path


@dataclass
class Direct:
    """A transport without a network.

    Attributes:
        python: that is started.
        script: of Python, run instead of what would be.
        started: processes of it.
    """

    python: Path | str = sys.executable
    script: str = ""
    name: str = "ssh://device"
    started: int = 0

    def command(self, code: str) -> list[str]:
        self.started += 1
        if self.script:
            return [sys.executable, "-I", "-S", "-c", self.script]
        return [str(self.python), "-c", code]

    def failure(self, code: int | None, complaints: str) -> Failure:
        return Ssh(Connection("device")).failure(code, complaints)


# -- a real server --------------------------------------------------------------------------


@dataclass
class Server:
    """An SSH server on this machine.

    Attributes:
        folder: of its keys.
        port: that it listens on.
    """

    folder: Path
    port: int

    def config(self, path: Path, **changed: str) -> Path:
        """A configuration in which ``device`` is this server."""
        options = {
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "HostKeyAlias": "device",
            "IdentityFile": str(self.folder / "client"),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            **changed,
        }
        path.write_text("Host device\n" + "".join(f"  {k} {v}\n" for k, v in options.items()))
        return path


def make_key(path: Path) -> str:
    """Make a pair of keys; the public one."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.with_suffix(".pub").read_text().strip()


def why_no_server(kind: str) -> str:
    """Why there is no server of this kind, ``openssh`` or ``asyncssh``; empty if there is one."""
    if kind == "asyncssh":
        return "" if util.find_spec("asyncssh") else "asyncssh is not installed"
    if _sshd() is None:
        return "OpenSSH's server (openssh-server) is not installed"
    if os.geteuid() == 0 and not _PRIVSEP.is_dir():
        return f"OpenSSH's server needs {_PRIVSEP} where root starts it"
    return ""


def _sshd() -> str | None:
    return shutil.which("sshd", path=os.pathsep.join(("/usr/sbin", "/sbin", "/usr/local/sbin")))


def server_command(folder: Path, kind: str) -> list[str]:
    """A server of this kind, with a configuration and keys of its own in ``folder``.

    It ends with its stdin, and so with whoever started it.
    """
    own = [str(folder / "host"), str(folder / "client.pub")]
    if kind == "asyncssh":
        return [sys.executable, str(Path(__file__).with_name("ssh_server.py")), *own]
    sshd = _sshd()
    assert sshd is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": own[0],
        "AuthorizedKeysFile": own[1],
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "AllowUsers": "*",
        "PermitRootLogin": "yes",
        "MaxStartups": "100",
    }
    file = folder / "sshd_config"
    file.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    return ["sh", "-c", _UNTIL_STDIN_ENDS, "sh", sshd, str(file)]


def port_of(command: list[str], process: "subprocess.Popen[str]") -> int:
    if "ssh_server" in command[1]:
        assert process.stdout is not None
        return int(process.stdout.readline())
    text = Path(command[-1]).read_text()
    port = int(text.split("ListenAddress 127.0.0.1:")[1].split()[0])
    for _ in range(1500):  # half a minute
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return port
        threading.Event().wait(0.02)
    raise AssertionError("sshd does not listen")


# -- connections that break -----------------------------------------------------------------


@dataclass
class Cutter:
    """A way to a port on which connections are cut after so many bytes; then one that holds.

    Attributes:
        budgets: bytes of each connection, in both directions together.
        cuts: connections that were cut.
    """

    to: int
    budgets: list[int]
    cuts: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets.append(self._listener)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            _reset(each)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.to))
            self._sockets += [near, far]
            left = [self.budgets.pop(0) if self.budgets else None]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(*pair, left), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, left: list[Any]) -> None:
        with suppress(OSError):
            while block := source.recv(4096):
                if left[0] is not None:
                    block = block[: max(left[0], 0)]
                    left[0] -= len(block)
                sink.sendall(block)
                if left[0] is not None and left[0] <= 0:
                    left[0] = None
                    self.cuts += 1
                    break
        _reset(source)
        _reset(sink)


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def running_server(folder: Path, kind: str) -> Iterator[Server]:
    """A server of that kind, with new keys in ``folder``, until the end of the block."""
    host = make_key(folder / "host")
    make_key(folder / "client")
    (folder / "known_hosts").write_text(f"device {host}\n")
    command = server_command(folder, kind)
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        yield Server(folder, port_of(command, process))
