"""Reaching a device by the system's OpenSSH client, as the user has set it up.

Hosts, jump hosts, keys and the agent are those of the user's configuration, and so is the check of
host keys: nothing here loosens it. Nobody is asked for a password, so that none can leak.
"""

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from ofa_deploy.errors import InputError, MissingDependencyError
from ofa_deploy.hardware import Connection
from ofa_deploy.profiling.process import printable

__all__ = ["Failure", "Ssh"]

_PYTHON = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./~+-]{0,254}", re.ASCII)
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "4",
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
    "LogLevel": "ERROR",  # or a user's QUIET would hide why it failed
}
_SSH_FAILED = 255
_NOT_FOUND = 127
_LAST_LINES = 4  # of its complaints; those before may be of the device's shell


@dataclass(frozen=True)
class Failure:
    """Why a connection failed.

    Attributes:
        message: one line, with what to do.
        lasting: whether it will not pass by itself, as a reboot or a lost network does.
    """

    message: str
    lasting: bool


@dataclass(frozen=True)
class Ssh:
    """The way to a device.

    Attributes:
        python: of the device; looked for on its path if it is no path itself.
        config: a configuration file in place of the user's.
    """

    connection: Connection
    python: str = "python3"
    config: Path | None = None

    def __post_init__(self) -> None:
        if not _PYTHON.fullmatch(self.python):
            raise InputError(
                f"expected the name or path of a Python interpreter on {self.name}, found "
                f"{self.python[:80]!r}"
            )

    @property
    def name(self) -> str:
        """What messages call the device."""
        return str(self.connection)

    def command(self, code: str) -> list[str]:
        """The command that runs Python code on the device.

        Raises:
            MissingDependencyError: if there is no ssh here.
        """
        ssh = shutil.which("ssh")
        if ssh is None:
            raise MissingDependencyError(
                "ssh is not installed here; install OpenSSH's client (openssh-client on Debian)"
            )
        options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
        if self.config is not None:
            options += ["-F", str(self.config)]
        if self.connection.user:
            options += ["-l", self.connection.user]
        if self.connection.port:
            options += ["-p", str(self.connection.port)]
        remote = f"exec {self.python} -c {shlex.quote(code)}"
        return [ssh, "-T", *options, "--", self.connection.host, remote]

    def failure(self, code: int | None, complaints: str) -> Failure:
        """What it means that the command ended.

        Args:
            code: that it ended with; None if it had to be ended.
            complaints: the end of its stderr.
        """
        last = complaints.strip().splitlines()[-_LAST_LINES:] or ["no message"]
        said = printable(last[-1], 200)
        if code == _NOT_FOUND:
            return Failure(
                f"{self.name} has no {self.python}: install Python 3.8 or later there, or name "
                f"another interpreter ({said})",
                lasting=True,
            )
        if code == _SSH_FAILED:
            for pattern, advice, lasting in _REFUSALS:
                if re.search(pattern, "\n".join(last), re.IGNORECASE):
                    return Failure(f"{self.name}: {advice.format(host=self._shown)}", lasting)
            return Failure(f"{self.name}: the connection failed: {said}", lasting=False)
        how = "did not answer" if code is None else f"ended with exit code {code}"
        return Failure(f"{self.name}: {self.python} {how}: {said}", lasting=False)

    @property
    def _shown(self) -> str:
        """As a user types it after ``ssh``."""
        user = f"{self.connection.user}@" if self.connection.user else ""
        port = f"-p {self.connection.port} " if self.connection.port else ""
        return f"{port}{user}{self.connection.host}"


# What OpenSSH says, what to do, and whether it will not pass by itself; the first that fits counts.
_REFUSALS = (
    (
        "IDENTIFICATION HAS CHANGED|Host key for .{1,300} has changed",
        "its host key is not the one that you know: if the device was set up anew, remove the old "
        "key (ssh-keygen -R) and log in once by hand (ssh {host}); if not, somebody may be in "
        "between",
        True,
    ),
    (
        "Host key verification failed|No .{1,40} host key is known|not in the list of known hosts",
        "its host key is not known here: log in once by hand and compare it (ssh {host})",
        True,
    ),
    (
        r"Permission denied \(|Too many authentication failures|No supported authentication",
        "it lets nobody in with the keys at hand; passwords are not asked for: set a key up "
        "(ssh-copy-id {host}) or load one (ssh-add)",
        True,
    ),
    (
        "Could not resolve hostname",
        "no such host is known; is the name right, or a Host of your ssh configuration?",
        False,
    ),
    (
        "Connection refused",
        "no SSH server listens there; is it started, and the port right?",
        False,
    ),
    (
        "No route to host|Network is unreachable|timed out|Timeout",
        "it cannot be reached; is it switched on, and in this network?",
        False,
    ),
    (
        "Bad configuration option|bad .{1,20} number|Can't open user config",
        "ssh's configuration has a mistake; see what ssh {host} says",
        True,
    ),
)
