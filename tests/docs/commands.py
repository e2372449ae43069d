"""Finds the commands that the documentation shows, and parses them as ``ofa-deploy`` would."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ofa_deploy.cli.main import app

__all__ = ["ROOT", "Command", "blocks_in", "commands_in", "parse"]

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<kind>\w*)[^\n`]*\n(?P<body>.*?)^(?P=fence)\s*$", re.M | re.S
)
_SHELLS = ("sh", "bash", "console")
_LAUNCHED = ("-m", "ofa_deploy", "--")  # torchrun ... -m ofa_deploy -- train ...


@dataclass(frozen=True)
class Command:
    """One command that a page shows.

    Attributes:
        page: the page's path in the repository.
        args: what stands behind ``ofa-deploy``, as a shell would pass it.
        launched: whether ``torchrun`` starts it.
    """

    page: str
    args: tuple[str, ...]
    launched: bool = False

    @property
    def text(self) -> str:
        """As it is typed."""
        return shlex.join(("torchrun",) * self.launched + ("ofa-deploy", *self.args))


def blocks_in(path: Path, *kinds: str) -> Iterator[str]:
    """The fenced blocks of a page that are of one of these kinds."""
    for found in _FENCE.finditer(path.read_text(encoding="utf-8")):
        if found["kind"] in kinds:
            yield found["body"]


def commands_in(path: Path) -> list[Command]:
    """The ``ofa-deploy`` commands in the fenced shell blocks of a Markdown page, in order.

    Lines that end in a backslash go on; comments are dropped; in ``console`` blocks a command
    stands behind ``$``.
    """
    page = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    found = []
    for body in blocks_in(path, *_SHELLS):
        for line in body.replace("\\\n", " ").splitlines():
            words = tuple(shlex.split(line.strip().removeprefix("$ "), comments=True))
            if words[:1] == ("ofa-deploy",):
                found.append(Command(page, words[1:]))
            elif words[:1] == ("torchrun",):
                at = words.index("-m")
                assert words[at : at + 3] == _LAUNCHED, line
                found.append(Command(page, words[at + 3 :], launched=True))
    return found


def parse(args: tuple[str, ...]) -> None:
    """See that a command, its options and their values are ones that there are; nothing is run.

    Raises:
        typer's usage errors otherwise; SystemExit for ``--help``.
    """
    command: Any = typer.main.get_command(app)
    rest = list(args)
    name = "ofa-deploy"
    while True:
        context = command.make_context(name, rest, resilient_parsing=False)
        if not hasattr(command, "commands") or not (left := _left(context)):
            return
        name, command, rest = command.resolve_command(context, left)


def _left(context: Any) -> list[str]:
    """What a group leaves for its command."""
    return [*getattr(context, "_protected_args", ()), *context.args]
