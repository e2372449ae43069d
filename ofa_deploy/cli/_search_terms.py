"""What a search is asked, in terms of the tables that it is given, and what those stand for."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ofa_deploy.errors import InputError

if TYPE_CHECKING:
    from ofa_deploy.hardware import LatencyTable
    from ofa_deploy.search import Constraint, GeneConstraint

__all__ = ["check_distinct", "constraints_on", "form_of", "goals_on", "in_a_name", "renamed"]


def form_of(table: "LatencyTable") -> str:
    """How a table's networks are run."""
    return f"{table.conditions.runtime}-{table.conditions.precision}"


def in_a_name(text: str) -> str:
    """What a table says, as a part of a file's name: no folder of its choice."""
    return re.sub(r"[^A-Za-z0-9._+-]", "-", text)


def check_distinct(tables: "Sequence[LatencyTable]", per_device: bool) -> None:
    """See that every table stands for a form of its own, or for a device of its own.

    Raises:
        InputError: if two are of one device and form, or devices and forms are both to choose from.
    """
    forms = [(table.conditions.device, form_of(table)) for table in tables]
    if twice := [each for each in dict.fromkeys(forms) if forms.count(each) > 1]:
        device, form = twice[0]
        raise InputError(
            f"expected one latency table of a device, runtime and precision, found several of "
            f"{form} on {device}: give one of them"
        )
    devices = {device for device, _ in forms}
    if 1 < len(devices) < len(tables) and not per_device:
        listed = ", ".join(f"{form} on {device}" for device, form in forms)
        raise InputError(
            "one network for several devices: expected one table of each, found "
            f"{listed}; ask for one network a device with --per-device"
        )


def constraints_on(
    asked: "Sequence[Constraint | GeneConstraint]", device: str
) -> "tuple[Constraint | GeneConstraint, ...]":
    """Those that speak of one device, or of none in particular."""
    from ofa_deploy.search import Constraint, for_device

    if not device:
        return tuple(asked)
    kept = (for_device(c, device) if isinstance(c, Constraint) else c for c in asked)
    return tuple(c for c in kept if c is not None)


def goals_on(objectives: "dict[str, str] | None", device: str) -> "dict[str, str] | None":
    """Those that speak of one device, or of none in particular; the usual if none is left."""
    from ofa_deploy.search import metric_for_device

    if not device or objectives is None:
        return objectives
    kept = renamed(objectives, lambda name: metric_for_device(name, device))
    return kept if kept and (len(kept) > 1 or len(objectives) == 1) else None


def renamed(
    objectives: "dict[str, str] | None", name_of: "Callable[[str], str | None]"
) -> "dict[str, str] | None":
    """Objectives under other names; without those that have none.

    Raises:
        InputError: if two of one name contradict each other.
    """
    if objectives is None:
        return None
    found: dict[str, str] = {}
    for metric, goal in objectives.items():
        name = name_of(metric)
        if name is not None and found.setdefault(name, goal) != goal:
            raise InputError(f"objective {metric} {goal} contradicts {name} {found[name]}")
    return found
