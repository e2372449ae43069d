"""What a shell offers for the names that commands take."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["NAMES", "CompletingGroup"]


def _devices() -> Iterable[str]:
    from ofa_deploy.hardware import device_names

    return device_names()


def _spaces() -> Iterable[str]:
    from ofa_deploy.space import space_names

    return space_names()


def _runtimes() -> Iterable[str]:
    from ofa_deploy.runtimes import RUNTIMES

    return RUNTIMES


def _targets() -> Iterable[str]:
    from ofa_deploy.export.targets import TARGETS

    return TARGETS


def _checks() -> Iterable[str]:
    from ofa_deploy.cli.doctor import CHECKS

    return CHECKS


# By command (any when empty) and parameter. Not the recipes: to list them takes torch, and seconds.
NAMES: dict[tuple[str, str], Callable[[], Iterable[str]]] = {
    ("", "space"): _spaces,
    ("", "device"): _devices,
    ("", "runtime"): _runtimes,
    ("spaces", "names"): _spaces,
    ("export", "target"): _targets,
    ("devices show", "name"): _devices,
    ("devices probe", "name"): _devices,
    ("devices check", "name"): _devices,
    ("doctor", "needed"): _checks,
}


class CompletingGroup(TyperGroup):
    """The commands, whose parameters of a name in ``NAMES`` are completed.

    In one place, so that a device is completed alike wherever it is asked for.
    """

    def __init__(self, *, commands: Any = None, **settings: Any) -> None:
        super().__init__(commands=commands, **settings)
        _attach(self.commands.values(), "")

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an option's bad value is told as all other bad values are."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            _reword(error)
            raise


def _reword(error: typer.BadParameter) -> None:
    from pydantic import ValidationError

    from ofa_deploy.checks import problem

    if isinstance(error.__cause__, ValidationError):  # as newer versions of typer find it
        error.message = problem(error.__cause__)


def _attach(commands: Iterable[Any], above: str) -> None:
    for command in commands:
        path = f"{above} {command.name}".strip()
        for parameter in command.params:
            names = NAMES.get((path, parameter.name)) or NAMES.get(("", parameter.name))
            if names is not None:
                parameter.shell_complete = _completer(names)
        if isinstance(command, TyperGroup):
            _attach(command.commands.values(), path)


def _completer(names: Callable[[], Iterable[str]]) -> Callable[[Any, str], Sequence[Any]]:
    def complete(context: Any, incomplete: str) -> Sequence[Any]:
        from typer._click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in sorted(names()) if name.startswith(incomplete)]

    return complete
