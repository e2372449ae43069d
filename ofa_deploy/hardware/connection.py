"""``Connection``: how a device is reached, read strictly, since it ends up in an ssh command."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

from ofa_deploy.errors import InputError

__all__ = ["Connection"]

_FORM = "expected 'local' or ssh://[user@]host[:port]"
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
# Host names, and names that stand in a user's ssh configuration. None begins with a dash.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")


@dataclass(frozen=True)
class Connection:
    """A machine behind ssh.

    Attributes:
        host: a name, an address, or a name in the user's ssh configuration.
        user: empty is whom ssh takes.
        port: 0 is what ssh takes.
    """

    host: str
    user: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The connection that ``text`` describes; None is this machine.

        Nothing is accepted that ssh or a shell could take for anything but a user, a host and a
        port: no leading dash, space, control character, path or password.

        Raises:
            InputError: saying which part is wrong.
        """
        if text == "local":
            return None
        scheme, separator, rest = text.partition("://")
        if scheme != "ssh" or not separator:
            raise InputError(f"{_FORM}, found {text.rpartition('@')[2][:80]!r}")
        user, at, place = rest.rpartition("@")
        if ":" in user:
            raise InputError(f"{_FORM}: no password may stand there; ssh uses keys, or asks")
        if at and not _USER.fullmatch(user):
            raise InputError(f"{_FORM}: {user[:80]!r} is no user's name")
        host, port = _split(place)
        return cls(host=_checked_host(host), user=user, port=_checked_port(port))

    @property
    def destination(self) -> str:
        """``user@host``, as ssh takes it; the port is an option of its own."""
        return f"{self.user}@{self.host}" if self.user else self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"ssh://{user}{host}{f':{self.port}' if self.port else ''}"


def _split(place: str) -> tuple[str, str | None]:
    """(host, port); an IPv6 address stands in brackets, which are kept to tell it apart."""
    if place.startswith("["):
        address, bracket, after = place.partition("]")
        if after and not after.startswith(":"):
            raise InputError(f"{_FORM}: {after[:80]!r} after the address")
        return address + bracket, after[1:] if after else None
    host, colon, port = place.partition(":")
    return host, port if colon else None


def _checked_host(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            if "%" in host:  # a zone: ssh would read the sign as one of its own tokens
                raise ValueError
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise InputError(f"{_FORM}: {host[:80]!r} is no IPv6 address") from None
    if not _HOST.fullmatch(host):
        raise InputError(f"{_FORM}: {host[:80]!r} is no host's name")
    return host


def _checked_port(port: str | None) -> int:
    if port is None:
        return 0
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise InputError(f"{_FORM}: {port[:80]!r} is no port (1 to 65535)")
    return int(port)
