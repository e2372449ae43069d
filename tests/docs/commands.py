"""Finds the commands that the documentation shows; parses and runs them as ``ofa-deploy`` would."""

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ofa_deploy.cli.main import app
from tests.cli.conftest import Result, in_process

__all__ = ["ROOT", "Command", "Reader", "blocks_in", "commands_in", "parse", "why_not"]

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<kind>\w*)[^\n`]*\n(?P<body>.*?)^(?P=fence)\s*$", re.M | re.S
)
_SHELLS = ("sh", "bash", "console")
# What makes a command quick; later options win.
_QUICK = {
    "train": ("--epochs", "3", "--batch", "16", "--threads", "1"),
    "evaluate": ("--subnets", "9"),
    "bench": ("--minutes", "0.01", "--processes", "1"),
}
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


def why_not(command: Command, not_run: Mapping[str, str]) -> str | None:
    """Why a command is not run here: by its beginning, or since it needs several processes."""
    if command.launched:
        return "needs several processes; tests/train/test_ranks.py starts some"
    text = shlex.join(command.args)
    return next((why for start, why in not_run.items() if text.startswith(start)), None)


class Reader:
    """Runs commands in their order, each once, as far as somebody has asked.

    Args:
        slow: those that are passed over, unless they are asked for.
    """

    def __init__(self, commands: Sequence[Command], slow: Collection[Command] = ()) -> None:
        self._commands, self._slow = commands, slow
        self._found: dict[str, Result] = {}

    def reach(self, wanted: Command) -> Result:
        """What this command says, after those before it."""
        for command in self._commands:
            passed = command in self._slow and command != wanted
            if command.text not in self._found and not passed:
                quick = () if "--help" in command.args else _QUICK.get(command.args[0], ())
                self._found[command.text] = in_process(*command.args, *quick)
            if command == wanted:
                break
        return self._found[wanted.text]
