"""Constraints as people write them.

Of metrics: ``latency <= 8 ms``, ``latency[jetson].p99 <= 9 ms``, ``macs <= 300M``; times, energy
and sizes need a unit. Of genes: ``resolution in 160,192``, ``kernel = 3`` (of all blocks),
``depth[2] >= 3``, ``expand[1.0] = 4``, ``width <= 0.8`` (a multiplier).
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from ofa_deploy.errors import ConstraintError

__all__ = ["PERCENTILES", "Constraint", "GeneConstraint", "parse_constraint", "split_metric"]

PERCENTILES = ("p10", "p50", "p90", "p99")

_METRIC = re.compile(
    r"\s*(?P<metric>[a-z_0-9]+(?:\[[^\]\s]+\])?(?:\.[a-z0-9]+)?)\s*(?P<sign><=|>=)\s*"
    r"(?P<number>[0-9][0-9.eE+-]*)\s*(?P<unit>[A-Za-zµ%]*)\s*"
)
_STRICT = re.compile(r"([<>])(?!=)")
_GENE = re.compile(
    r"\s*(?P<gene>(?P<kind>resolution|depth|width|kernel|expand)(?:\[[a-z0-9.]+\])?)\s*"
    r"(?P<sign><=|>=|=|in\s)\s*(?P<values>[0-9][0-9.]*(?:\s*,\s*[0-9][0-9.]*)*)\s*"
)
# A number alone is one of counts and of percent; ms and s, or bytes and MiB, are never guessed.
_TIMES = {"ms": 1.0, "s": 1e3, "us": 1e-3, "µs": 1e-3}
_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_BYTES = {
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
    "energy": {"mJ": 1.0, "J": 1e3},
    "macs": _COUNTS,
    "params": _COUNTS,
    "peak_memory": _BYTES,
    "model_size": _BYTES,
    "top1": {"": 1.0, "%": 1.0},
}
_OF_A_DEVICE = ("latency", "energy")


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric.

    Attributes:
        metric: ``latency``, ``latency[device]``, ``latency.p99``, ``energy``, ``macs``, ``params``,
            ``peak_memory``, ``model_size``, ``top1``.
        limit: in the metric's base unit: ms, mJ, counts, bytes, percent.
        upper: whether values must stay at or below the limit, rather than at or above.
        text: as it was written.
    """

    metric: str
    limit: float
    upper: bool
    text: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.limit):
            raise ConstraintError(f"constraint {self.text!r}: expected a finite limit")

    def __str__(self) -> str:
        return self.text

    def met_by(self, value: float) -> bool:
        """Whether a value keeps the limit."""
        return value <= self.limit if self.upper else value >= self.limit


@dataclass(frozen=True)
class GeneConstraint:
    """What genes may choose.

    Attributes:
        gene: ``kernel`` for those of all blocks, or ``kernel[2.1]`` for one.
        sign: how choices are compared with ``values``; widths by their multiplier.
    """

    gene: str
    sign: Literal["in", "<=", ">="]
    values: tuple[float, ...]
    text: str

    def __str__(self) -> str:
        return self.text

    def allows(self, choice: float) -> bool:
        """Whether a gene may take this value."""
        match self.sign:
            case "<=":
                return choice <= self.values[0]
            case ">=":
                return choice >= self.values[0]
            case "in":
                return choice in self.values


def parse_constraint(text: str) -> Constraint | GeneConstraint:
    """Read one constraint.

    Raises:
        ConstraintError: saying what was expected.
    """
    if (match := _GENE.fullmatch(text)) is not None:
        return _of_genes(match, text)
    if (match := _METRIC.fullmatch(text)) is None:
        if _METRIC.fullmatch(meant := _STRICT.sub(r"\1=", text)):
            raise ConstraintError(f"constraint {text!r}: limits are <= or >=; write {meant!r}")
        raise ConstraintError(
            f"constraint {text!r} does not parse; expected METRIC <= NUMBER [UNIT], such as "
            "'latency <= 8 ms', 'latency[local].p99 <= 8 ms' or 'macs <= 300M', or a choice, such "
            "as 'resolution in 160,192' or 'kernel = 3'"
        )
    base = _known_base(match["metric"], text)
    limit = _limit(match["number"], _unit(match, base, text), text)
    if base == "top1" and not match["unit"] and limit <= 1:
        raise ConstraintError(
            f"constraint {text!r}: top1 is in percent; write {100 * limit:g} % or {limit:g} %"
        )
    return Constraint(match["metric"], limit, match["sign"] == "<=", " ".join(text.split()))


def split_metric(metric: str) -> tuple[str, str, str]:
    """``latency[jetson].p99`` to its base, device and percentile; empty where it has none."""
    head, _, percentile = metric.partition("].") if "]." in metric else _last_dot(metric)
    base, _, device = head.partition("[")
    return base, device.removesuffix("]"), percentile


def _last_dot(metric: str) -> tuple[str, str, str]:
    return (metric, "", "") if metric.endswith("]") else metric.partition(".")


def _known_base(metric: str, text: str) -> str:
    base, device, percentile = split_metric(metric)
    if base not in _UNITS:
        raise ConstraintError(
            f"constraint {text!r}: unknown metric {base!r}; known: {', '.join(_UNITS)}, and genes: "
            "resolution, depth, width, kernel, expand"
        )
    if device and base not in _OF_A_DEVICE:
        raise ConstraintError(f"constraint {text!r}: only latency and energy are of a device")
    if percentile and (base != "latency" or percentile not in PERCENTILES):
        raise ConstraintError(
            f"constraint {text!r}: unknown percentile {percentile!r} of {base}; latency has "
            f"{', '.join(PERCENTILES)}"
        )
    return base


def _unit(match: re.Match[str], base: str, text: str) -> float:
    """The size of the unit that a number was written in."""
    units, unit = _UNITS[base], match["unit"]
    if unit in units:
        return units[unit]
    known = [each for each in units if each]
    if unit:
        raise ConstraintError(
            f"constraint {text!r}: unknown unit {unit!r} for {base}; known: {', '.join(known)}"
        )
    raise ConstraintError(
        f"constraint {text!r}: expected a unit, one of {', '.join(known)}, such as "
        f"'{match['metric']} {match['sign']} {match['number']} {known[0]}'"
    )


def _limit(number: str, unit: float, text: str) -> float:
    try:
        limit = float(number)
        if math.isfinite(limit) and limit > 0:
            # In decimals, so that 8.2M is 8,200,000 and not a little less.
            limit = float(Decimal(number) * Decimal(str(unit)))
    except ValueError:
        raise ConstraintError(f"constraint {text!r}: {number!r} is no number") from None
    if not math.isfinite(limit) or limit <= 0:
        raise ConstraintError(f"constraint {text!r}: expected a positive, finite limit")
    return limit


def _of_genes(match: re.Match[str], text: str) -> GeneConstraint:
    try:
        values = tuple(float(value) for value in match["values"].split(","))
    except ValueError:
        raise ConstraintError(f"constraint {text!r}: {match['values']!r} are no numbers") from None
    sign: Literal["in", "<=", ">="] = "in"
    if match["sign"] == "<=" or match["sign"] == ">=":
        sign = "<=" if match["sign"] == "<=" else ">="
    if len(values) > 1 and match["sign"].strip() != "in":
        listed = match["values"].strip()
        raise ConstraintError(
            f"constraint {text!r}: expected one value after {match['sign']}, found {listed}; "
            f"several are written: {match['gene']} in {listed}"
        )
    return GeneConstraint(match["gene"], sign, values, " ".join(text.split()))
