"""Constraints as people write them: ``latency <= 8 ms``, ``macs <= 300M``."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal

from ofa_deploy.errors import ConstraintError

__all__ = ["Constraint", "parse_constraint"]

_PATTERN = re.compile(
    r"\s*(?P<metric>[a-z_0-9]+(?:\[[^\]\s]+\])?)\s*(?P<sign><=|>=)\s*"
    r"(?P<number>[0-9][0-9.eE+-]*)\s*(?P<unit>[A-Za-zµ%]*)\s*"
)
_TIMES = {"": 1.0, "ms": 1.0, "s": 1e3, "us": 1e-3, "µs": 1e-3}
_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_BYTES = {
    "": 1.0,
    "B": 1.0,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
_UNITS = {
    "latency": _TIMES,
    "macs": _COUNTS,
    "params": _COUNTS,
    "peak_memory": _BYTES,
    "top1": {"": 1.0, "%": 1.0},
}


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric.

    Attributes:
        metric: ``latency``, ``latency[device]``, ``macs``, ``params``, ``peak_memory``, ``top1``.
        limit: in the metric's base unit: ms, counts, bytes, percent.
        upper: whether values must stay at or below the limit, rather than at or above.
        text: as it was written.
    """

    metric: str
    limit: float
    upper: bool
    text: str

    def __str__(self) -> str:
        return self.text


def parse_constraint(text: str) -> Constraint:
    """Read one constraint.

    Raises:
        ConstraintError: saying what was expected.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ConstraintError(
            f"constraint {text!r} does not parse; expected METRIC <= NUMBER [UNIT], such as "
            "'latency <= 8 ms', 'latency[local] <= 8 ms' or 'macs <= 300M'"
        )
    base = match["metric"].partition("[")[0]
    if base not in _UNITS:
        raise ConstraintError(
            f"constraint {text!r}: unknown metric {base!r}; known: {', '.join(_UNITS)}"
        )
    if "[" in match["metric"] and base != "latency":
        raise ConstraintError(f"constraint {text!r}: only latency is a matter of device")
    units = _UNITS[base]
    if match["unit"] not in units:
        known = ", ".join(unit for unit in units if unit)
        raise ConstraintError(
            f"constraint {text!r}: unknown unit {match['unit']!r} for {base}; known: {known}"
        )
    try:
        limit = float(match["number"])
        if math.isfinite(limit) and limit > 0:
            # In decimals, so that 8.2M is 8,200,000 and not a little less.
            limit = float(Decimal(match["number"]) * Decimal(str(units[match["unit"]])))
    except ValueError:
        raise ConstraintError(f"constraint {text!r}: {match['number']!r} is no number") from None
    if not math.isfinite(limit) or limit <= 0:
        raise ConstraintError(f"constraint {text!r}: expected a positive, finite limit")
    return Constraint(match["metric"], limit, match["sign"] == "<=", " ".join(text.split()))
