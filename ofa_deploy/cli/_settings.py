"""Settings of whatever is trained: given as text, and listed."""

from typing import TYPE_CHECKING, Any

from ofa_deploy.cli._output import OutputFormat, emit
from ofa_deploy.errors import InputError

if TYPE_CHECKING:
    from ofa_deploy.train import Common

__all__ = ["list_settings", "parse_setting"]

_NOT_TO_SET = {"method", "processes", "init_sha256"}


def parse_setting(text: str) -> tuple[str, Any]:
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
