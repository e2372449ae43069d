"""Archs that people write down: our own form, and that of published once-for-all configs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.files import read_json
from ofa_deploy.space.arch import Arch
from ofa_deploy.space.search_space import SearchSpace

__all__ = ["arch_from_config", "read_arch"]

_FIELDS = {"d": "depths", "ks": "kernels", "e": "expands", "w": "widths", "r": "resolution"}


def arch_from_config(space: SearchSpace, config: Mapping[str, Any]) -> Arch:
    """A published config: ``d``, and ``ks``, ``e``, ``w``, ``r`` where they apply.

    Raises:
        InputError: if a field is unknown or is not of the space.
    """
    given = {key: value for key, value in config.items() if value is not None}
    if unknown := sorted(given.keys() - _FIELDS.keys()):
        raise InputError(
            f"unknown field {unknown[0]!r} in a network's config; expected {', '.join(_FIELDS)}"
        )
    if "d" not in given:
        raise InputError("a network's config needs the depths 'd'")
    fields = {_FIELDS[key]: value for key, value in given.items()}
    for key, value in given.items():
        values = value if isinstance(value, list | tuple) else [value]
        if odd := [v for v in values if isinstance(v, bool) or not isinstance(v, int | float)]:
            raise InputError(
                f"not a network's config: {_FIELDS[key]} {key!r}: {odd[0]!r:.60} is no number"
            )
    try:
        if isinstance(given_size := fields.get("resolution"), list):
            if len(given_size) != 1:
                raise InputError(f"a network has one resolution 'r', found {given_size}")
            fields["resolution"] = given_size[0]
        return space.arch(**fields)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"not a network's config: {error}") from None


def read_arch(space: SearchSpace, name: str) -> Arch:
    """``largest``, ``smallest``, or a JSON file with an arch of ours or a published config.

    Raises:
        InputError: if it is not a network of the space.
        FileFormatError: if the file is damaged.
    """
    if name in ("largest", "smallest"):
        return space.largest if name == "largest" else space.smallest
    if not Path(name).exists():
        raise InputError(f"{name}: expected 'largest', 'smallest' or a JSON file, found no file")
    value = read_json(name)
    try:
        if "depths" not in value:
            return arch_from_config(space, value)
        return space.decode(space.encode([Arch.from_dict(value)]))[0]
    except FileFormatError as error:
        raise FileFormatError(f"{name}: {error}") from None
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
