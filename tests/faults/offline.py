"""What a process without a network is: a start-up file that refuses every connection elsewhere."""

from pathlib import Path

__all__ = ["block"]

_CODE = """
import os, socket, sys
_HERE = {"127.0.0.1", "::1", "localhost", None, ""}
def _refuse(what):
    with open(os.environ["OFA_BLOCKED"], "a") as file:
        print(what, file=file)
    raise OSError("no network in this test: " + what)
def _hook(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        made, address = args[0], args[1]
        if made.family != socket.AF_UNIX and isinstance(address, tuple) and address[0] not in _HERE:
            _refuse(f"{event} {address[0]}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        if args[0] not in _HERE and args[0] not in (b"localhost", b"127.0.0.1"):
            _refuse(f"{event} {args[0]!r}")
sys.addaudithook(_hook)
"""


def block(folder: Path) -> dict[str, str]:
    """Variables of a Python process that may reach this machine and no other.

    Every try is written into ``folder/tries``, also where it is made by a process that it starts.
    """
    (folder / "sitecustomize.py").write_text(_CODE)
    return {"PYTHONPATH": str(folder), "OFA_BLOCKED": str(folder / "tries")}
