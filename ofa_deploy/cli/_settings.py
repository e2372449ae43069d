"""Settings of whatever is trained: given as text, and listed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.cli._output import OutputFormat, emit
from ofa_deploy.errors import InputError

if TYPE_CHECKING:
    from ofa_deploy.train import Common

__all__ = ["given_settings", "list_settings"]

_NOT_TO_SET = {"method", "processes", "init_sha256"}


def given_settings(
    file: Path | None, flags: Mapping[str, Any], pairs: Sequence[str] | None
) -> dict[str, Any]:
    """What the user set: in a TOML file, under flags that are not None, under ``--set``."""
    from ofa_deploy.files import read_toml

    given = {**(read_toml(file) if file else {})}
    given |= {name: value for name, value in flags.items() if value is not None}
    return given | dict(_setting(text) for text in pairs or [])


def _setting(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``, with the value as TOML would read it, or as text."""
    import tomllib

    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set: expected NAME=VALUE, found {text!r}")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def list_settings(config: "Common") -> None:
    """What ``--set`` and ``--config`` take, with the values that it has."""
    fields = type(config).model_fields
    emit(
        [
            {
                "setting": name,
                "value": str(getattr(config, name)),
                "default": str(fields[name].default),
            }
            for name in sorted(fields.keys() - _NOT_TO_SET)
        ],
        OutputFormat.table,
        title=f"{config.method}: what --set and --config take",
    )
